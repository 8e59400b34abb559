"""Autograd and training: small models as people write them."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from groups.blas import normal
from models import Gpt, ResNet
from record import Near
from registry import check


def train(model, optimizer, batches, loss_of):
    """Losses of some steps."""
    losses = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().float())
    # Steps feed roundings back into themselves.
    return Near(torch.stack(losses), 2e-3)


@check(cpu=True)
def training_perceptron(device):
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 1)).to(device)
    given = normal(128, 20, device=device)
    wanted = given.pow(2).sum(-1, keepdim=True).sqrt()
    losses = {}
    for name, options in (("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {}), ("Adagrad", {})):
        optimizer = getattr(torch.optim, name)(model.parameters(), 1e-2, **options)
        losses[name] = train(model, optimizer, [0] * 5, lambda model, _: F.mse_loss(model(given), wanted))
    return losses


@check
def fused_optimizers(device):
    found = {}
    for name, options in (("AdamW", {"fused": True}), ("Adam", {"foreach": True}), ("SGD", {"fused": True})):
        parameters = [normal(40 + index, 33).requires_grad_() for index in range(10)]
        optimizer = getattr(torch.optim, name)(parameters, 1e-2, **options)
        for _ in range(3):
            for index, parameter in enumerate(parameters):
                parameter.grad = parameter.detach() * 0.1 + index
            optimizer.step()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        found[name] = [parameters[-1], norm]
    return found


@check
def training_gpt(device):
    model = Gpt(vocabulary=256, width=64, heads=4, layers=2, length=64).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    words = torch.randint(0, 256, (4, 65)).to(device)
    return {"losses": train(model, optimizer, [words] * 5, lambda model, words: model(words))}


@check
def training_resnet(device):
    model = ResNet(widths=(16, 32)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    images, labels = normal(8, 3, 32, 32), torch.randint(0, 10, (8,)).to(device)
    return {"losses": train(model, optimizer, [0] * 4, lambda model, _: F.cross_entropy(model(images), labels))}


@check
def mixed_precision_float16(device):
    """Loss scaling: the first steps overflow and are left out."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    given, wanted = normal(32, 64), torch.randint(0, 8, (32,)).to(device)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = F.cross_entropy(model(given), wanted)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach().float())
    return {"losses": Near(torch.stack(losses), 5e-3), "scale": scaler.get_scale()}


@check
def mixed_precision_bfloat16(device):
    model = Gpt(vocabulary=128, width=64, heads=2, layers=2, length=32).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    words = torch.randint(0, 128, (4, 33)).to(device)

    def loss_of(model, words):
        with torch.autocast("cuda", torch.bfloat16):
            return model(words)

    return {"losses": train(model, optimizer, [words] * 4, loss_of)}


@check(cpu=True)
def second_derivatives(device):
    given = normal(50, dtype=torch.float64, device=device).requires_grad_()
    value = (given.sin() * given.exp()).sum()
    (first,) = torch.autograd.grad(value, given, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), given)
    return {"first": first, "second": second}


@check(cpu=True)
def gradients_are_right(device):
    """Against finite differences."""
    given = normal(3, 4, dtype=torch.float64, device=device).requires_grad_()
    weight = normal(4, 5, dtype=torch.float64, device=device).requires_grad_()
    return {"right": torch.autograd.gradcheck(lambda one, other: torch.tanh(one @ other).softmax(-1), (given, weight))}


@check
def checkpointing(device):
    """Activations are computed again in the backward pass, with the same random numbers."""
    layers = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.2)) for _ in range(4)).to(device)
    given = normal(16, 64).requires_grad_()
    grads = []
    for kept in (False, True):
        torch.manual_seed(5)
        given.grad = None
        state = given
        for layer in layers:
            state = checkpoint(layer, state, use_reentrant=False) if kept else layer(state)
        state.sum().backward()
        grads.append(given.grad.clone())
    return {"gradient": grads[0], "same": torch.equal(*grads)}


@check(cpu=True)
def function_transforms(device):
    from torch.func import grad, jacrev, jvp, vmap

    weight, given = normal(6, 6, device=device), normal(10, 6, device=device)

    def work(one):
        return torch.tanh(weight @ one).sum()

    return {
        "mapped": vmap(grad(work))(given),
        "jacobian": jacrev(lambda one: torch.tanh(weight @ one))(given[0]),
        "forward": jvp(work, (given[0],), (given[1],)),
    }


@check(cpu=True)
def hooks_and_own_functions(device):
    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(context, given):
            context.save_for_backward(given)
            return given.clamp(-1, 1)

        @staticmethod
        def backward(context, gradient):
            return gradient * (context.saved_tensors[0].abs() < 1)

    seen = []
    given = normal(500, device=device).requires_grad_()
    given.register_hook(lambda gradient: seen.append(gradient.sum().item()))
    with torch.autograd.detect_anomaly(check_nan=True):
        (Clipped.apply(given) * 3).sum().backward()
    return {"gradient": given.grad, "seen": seen}


@check(cpu=True)
def inference(device):
    model = Gpt(vocabulary=100, width=32, heads=2, layers=1, length=32).to(device).eval()
    words = torch.randint(0, 100, (2, 8)).to(device)
    with torch.inference_mode():
        for _ in range(6):
            words = torch.cat([words, model.scores(words)[:, -1].argmax(-1, keepdim=True)], 1)
    return {"words": words}


@check
def gradients_on_streams(device):
    """The backward pass runs where the forward pass ran."""
    stream = torch.cuda.Stream()
    given = normal(200, 200).requires_grad_()
    torch.cuda.current_stream().synchronize()
    with torch.cuda.stream(stream):
        loss = (given @ given).square().mean()
    torch.cuda.current_stream().wait_stream(stream)
    loss.backward()
    return {"gradient": given.grad}
