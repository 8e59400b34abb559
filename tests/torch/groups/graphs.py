"""CUDA graphs."""

import torch
from torch import nn

from groups.blas import normal
from registry import check


def captured(work, pool=None):
    """A graph of `work` after a warm-up beside it, as PyTorch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = work()
    return graph, result


@check
def graph_replay(device):
    """Each replay computes from what the input holds by then."""
    given, weight = normal(64, 64), normal(64, 64) / 8
    graph, result = captured(lambda: torch.relu(given @ weight).softmax(-1) + given.sum())
    found = []
    for index in range(3):
        given.copy_(torch.full((64, 64), 0.1 * index))
        graph.replay()
        found.append(result.clone())
    return {"results": torch.stack(found)}


@check
def graphed_callables(device):
    layer = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).to(device)
    graphed = torch.cuda.make_graphed_callables(layer, (normal(16, 32).requires_grad_(),))
    optimizer = torch.optim.SGD(layer.parameters(), 0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        loss = graphed(normal(16, 32).requires_grad_()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), "weight": layer[0].weight}


@check
def graph_of_a_training_step(device):
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 4)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, capturable=True)
    given, wanted = normal(32, 32), torch.randint(0, 4, (32,)).to(device)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(given), wanted)
        loss.backward()
        optimizer.step()
        return loss

    graph, loss = captured(step)
    losses = []
    for _ in range(10):
        graph.replay()
        losses.append(loss.detach().clone())
    return {"losses": torch.stack(losses)}


@check
def graph_with_random_numbers(device):
    """A replay advances the generator."""
    graph, result = captured(lambda: torch.rand(1000, device=device))
    # The seed is also written when the capture begins, in the capture's stream, for which no replay waits: natively, too, a
    # busy device may take the two the other way round (PyTorch 2.11; one capture of 440 beside other programs).
    torch.cuda.synchronize()
    torch.cuda.manual_seed(11)
    graph.replay()
    one = result.clone()
    graph.replay()
    other = result.clone()
    torch.cuda.manual_seed(11)
    graph.replay()
    return {"one": one, "other": other, "again": torch.equal(result, one), "differ": not torch.equal(one, other)}


@check
def graphs_in_one_pool(device):
    given = normal(256, 256)
    pool = torch.cuda.graph_pool_handle()
    first, one = captured(lambda: given * 2 + 1, pool)
    second, two = captured(lambda: one.sqrt().nan_to_num(0.5) @ given, pool)
    given.copy_(torch.ones(256, 256))
    first.replay()
    second.replay()
    return {"one": one.clone(), "two": two.clone()}


@check
def graph_with_two_branches(device):
    given, side = normal(10_000), torch.cuda.Stream()

    def work():
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            branch = given.cumsum(0)
        trunk = given.sin()
        main.wait_stream(side)
        return branch + trunk

    graph, result = captured(work)
    given.copy_(torch.linspace(0, 1, 10_000))
    graph.replay()
    return {"result": result.clone()}


@check
def graph_of_libraries(device):
    """Convolution, recurrent network, FFT and a solver's product in one graph."""
    conv, rnn = nn.Conv2d(3, 8, 3).to(device).eval(), nn.LSTM(16, 16).to(device).eval()
    image, words = normal(2, 3, 16, 16), normal(5, 2, 16)

    def work():
        with torch.no_grad():
            return conv(image).sum((2, 3)), rnn(words)[0], torch.fft.rfft(words).abs()

    graph, results = captured(work)
    image.copy_(torch.ones(2, 3, 16, 16))
    words.copy_(torch.full((5, 2, 16), 0.3))
    graph.replay()
    return {"results": [part.clone() for part in results]}


@check
def graph_updates_by_copies(device):
    """Host memory as a node: each replay reads what stands there by then."""
    host, target = torch.zeros(2000).pin_memory(), torch.zeros(2000, device=device)
    graph, result = captured(lambda: target.copy_(host, non_blocking=True) * 2)
    found = []
    for index in range(3):
        host.fill_(index + 1)
        graph.replay()
        torch.cuda.synchronize()
        found.append(result.clone())
    return {"results": torch.stack(found)}


@check(alone=True)
def capture_that_is_broken(device):
    """A synchronisation ends the capture with an error; what follows works."""
    given = normal(100)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            given.add(1)
            torch.cuda.current_stream().synchronize()
        error = "none"
    except RuntimeError as refused:
        error = str(refused).splitlines()[0]
    torch.cuda.synchronize()
    graph, result = captured(lambda: given * 3)
    graph.replay()
    return {"error": error, "after": result.clone()}


@check
def many_replays(device):
    given = torch.zeros(100, device=device)
    graph, _ = captured(lambda: given.add_(1))
    given.zero_()
    for _ in range(500):
        graph.replay()
    return {"count": given.clone()}
