"""cuDNN: convolutions, recurrent networks, normalisation, CTC; and the layers around them."""

import torch
import torch.nn.functional as F
from torch import nn

from groups.blas import normal
from record import Near
from registry import check


def forward_backward(layer, given):
    """Output and all gradients."""
    given = given.detach().requires_grad_()
    out = layer(given)
    out.float().square().mean().backward()
    found = {"output": out, "input gradient": given.grad}
    for name, parameter in layer.named_parameters():
        found[f"{name} gradient"] = parameter.grad
    return found


@check(cpu=True)
def conv2d_float32(device):
    layer = nn.Conv2d(16, 32, 3, padding=1, stride=2).to(device)
    return forward_backward(layer, normal(4, 16, 33, 33, device=device))


@check
def conv2d_float16_channels_last(device):
    layer = nn.Conv2d(32, 64, 3, padding=1).to(device, torch.float16, memory_format=torch.channels_last)
    given = normal(4, 32, 28, 28, dtype=torch.float16).to(memory_format=torch.channels_last)
    return forward_backward(layer, given)


@check
def conv2d_bfloat16_groups(device):
    layer = nn.Conv2d(32, 64, 5, groups=8, dilation=2).to(device, torch.bfloat16)
    depthwise = nn.Conv2d(32, 32, 3, groups=32, padding=1).to(device, torch.bfloat16)
    given = normal(2, 32, 24, 24, dtype=torch.bfloat16)
    return {"groups": layer(given), "depthwise": depthwise(given)}


@check(cpu=True)
def conv2d_float64(device):
    layer = nn.Conv2d(8, 8, 3).to(device, torch.float64)
    return forward_backward(layer, normal(2, 8, 17, 17, dtype=torch.float64, device=device))


@check(cpu=True)
def conv1d_conv3d(device):
    return {
        "1d": F.conv1d(normal(4, 8, 100, device=device), normal(16, 8, 7, device=device), padding=3),
        "3d": F.conv3d(normal(2, 4, 12, 12, 12, device=device), normal(8, 4, 3, 3, 3, device=device)),
    }


@check(cpu=True)
def conv_transposed(device):
    return forward_backward(nn.ConvTranspose2d(16, 8, 4, stride=2).to(device), normal(2, 16, 9, 9, device=device))


@check
def conv_benchmark(device):
    """cuDNN times its algorithms and takes the fastest."""
    torch.backends.cudnn.benchmark = True
    try:
        layer = nn.Conv2d(16, 16, 3, padding=1, bias=False).to(device)
        given = normal(8, 16, 32, 32)
        # Algorithms that transform (Winograd, FFT) round otherwise than those that sum.
        return {"first": Near(layer(given), 1e-3), "again": Near(layer(given), 1e-3)}
    finally:
        torch.backends.cudnn.benchmark = False


@check
def conv_deterministic(device):
    torch.backends.cudnn.deterministic = True
    try:
        layer = nn.Conv2d(8, 16, 3).to(device)
        given = normal(4, 8, 20, 20)
        one, other = forward_backward(layer, given)["output"], forward_backward(layer, given)["output"]
        return {"output": one, "twice the same": torch.equal(one, other)}
    finally:
        torch.backends.cudnn.deterministic = False


@check
def conv_tf32(device):
    torch.backends.cudnn.allow_tf32 = True
    try:
        layer = nn.Conv2d(32, 32, 3, padding=1).to(device)
        # TF32 has ten bits of fraction; another algorithm rounds elsewhere.
        return {"output": Near(layer(normal(4, 32, 32, 32)), 2e-3)}
    finally:
        torch.backends.cudnn.allow_tf32 = False


@check(cpu=True)
def lstm(device):
    layer = nn.LSTM(32, 48, num_layers=2, bidirectional=True, batch_first=True).to(device)
    given = normal(4, 15, 32, device=device).requires_grad_()
    out, (hidden, cell) = layer(given)
    out.square().mean().backward()
    return {"output": out, "hidden": hidden, "cell": cell, "gradient": given.grad, "weight": layer.weight_hh_l1.grad}


@check(cpu=True)
def gru_packed(device):
    """Sequences of different lengths in one call."""
    layer = nn.GRU(16, 32).to(device)
    packed = nn.utils.rnn.pack_padded_sequence(normal(12, 4, 16, device=device), [12, 9, 5, 2])
    out, hidden = layer(packed)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(out)
    return {"output": padded, "lengths": lengths, "hidden": hidden}


@check
def rnn_float16(device):
    layer = nn.RNN(32, 32, nonlinearity="relu").to(device, torch.float16)
    return {"output": layer(normal(10, 4, 32, dtype=torch.float16))[0]}


@check(cpu=True)
def batch_norm(device):
    layer = nn.BatchNorm2d(16).to(device)
    given = normal(8, 16, 14, 14, device=device)
    found = forward_backward(layer, given) | {"mean": layer.running_mean, "variance": layer.running_var}
    return found | {"evaluated": layer.eval()(given)}


@check(cpu=True)
def other_norms(device):
    given = normal(4, 32, 16, 16, device=device)
    return {
        "layer": F.layer_norm(given, [16, 16]),
        "group": F.group_norm(given, 8),
        "instance": F.instance_norm(given),
        "rms": F.rms_norm(given, [16]),
        "local response": F.local_response_norm(given, 4),
    }


@check(cpu=True)
def pooling(device):
    given = normal(4, 8, 30, 30, device=device)
    pooled, indices = F.max_pool2d(given, 3, 2, return_indices=True)
    return {
        "max": pooled,
        "indices": indices,
        "unpool": F.max_unpool2d(pooled, indices, 3, 2, output_size=(30, 30)),
        "average": F.avg_pool2d(given, 4),
        "adaptive": F.adaptive_avg_pool2d(given, 7),
        "lp": F.lp_pool2d(given.abs(), 2, 3),
    }


@check(cpu=True)
def resampling(device):
    given = normal(2, 3, 20, 20, device=device)
    grid = F.affine_grid(torch.tensor([[[0.8, 0.2, 0.1], [-0.2, 0.8, 0.0]]] * 2).to(device), [2, 3, 24, 24], align_corners=False)
    return {
        "bilinear": F.interpolate(given, scale_factor=1.7, mode="bilinear"),
        "bicubic": F.interpolate(given, size=31, mode="bicubic", antialias=True),
        "nearest": F.interpolate(given, size=13),
        "grid": F.grid_sample(given, grid, align_corners=False),
        "shuffled": F.pixel_shuffle(normal(2, 16, 5, 5, device=device), 4),
        "columns": F.unfold(given, 3),
    }


@check
def ctc_loss(device):
    scores = normal(50, 4, 20).log_softmax(-1).requires_grad_()
    targets = torch.randint(1, 20, (4, 10)).to(device)
    loss = F.ctc_loss(scores, targets, (50,) * 4, (10,) * 4)
    loss.backward()
    return {"loss": loss, "gradient": scores.grad}


@check(cpu=True)
def losses(device):
    scores, labels = normal(64, 10, device=device), torch.randint(0, 10, (64,)).to(device)
    one, other = normal(64, 10, device=device), normal(64, 10, device=device)
    return {
        "cross entropy": F.cross_entropy(scores, labels, label_smoothing=0.1),
        "nll": F.nll_loss(scores.log_softmax(-1), labels, reduction="none"),
        "binary": F.binary_cross_entropy_with_logits(one, other.sigmoid()),
        "smooth l1": F.smooth_l1_loss(one, other),
        "kl": F.kl_div(one.log_softmax(-1), other.softmax(-1), reduction="batchmean"),
        "cosine": F.cosine_similarity(one, other),
        "triplet": F.triplet_margin_loss(one, other, scores),
    }


@check(cpu=True)
def activations(device):
    given = normal(4, 1000, device=device)
    names = ("relu", "gelu", "silu", "elu", "selu", "mish", "softplus", "hardswish", "leaky_relu", "logsigmoid")
    found = {name: getattr(F, name)(given) for name in names}
    return found | {"softmax": given.softmax(-1), "glu": F.glu(given), "threshold": F.threshold(given, 0.1, 20.0)}


@check(cpu=True)
def embeddings(device):
    table = nn.Embedding(100, 32, padding_idx=0).to(device)
    words = torch.randint(0, 100, (8, 12)).to(device)
    table(words).square().sum().backward()
    bag = nn.EmbeddingBag(100, 16, mode="mean").to(device)
    return {"gradient": table.weight.grad, "bag": bag(words)}
