"""What goes wrong: refused, told in PyTorch's words, and survived where natively it is."""

import re

import torch

from groups.blas import normal
from record import Info
from registry import check, neutral


def refused(work):
    """Type and first line of the error that `work` ends with."""
    try:
        work()
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {neutral(str(error).splitlines()[0])}"
    return "no error"


@check
def out_of_memory(device):
    """Caught; the message tells capacity and request; what was there stays, and smaller requests succeed."""
    before = torch.arange(1000, device=device)
    total = torch.cuda.mem_get_info()[1]
    try:
        torch.empty(total + (1 << 30), dtype=torch.uint8, device=device)
        message = "no error"
    except torch.OutOfMemoryError as error:
        message = str(error)
    told = re.search(r"total capacity of ([\d.]+) GiB", message)
    return {
        "message": neutral(message).partition(" of which")[0],
        "capacity": bool(told) and abs(float(told[1]) - total / (1 << 30)) < 0.1,
        "told": Info(told and told[1]),
        "kept": before,
        "after": torch.ones(1 << 20, device=device).sum(),
        "counted": torch.cuda.memory_stats()["num_ooms"] >= 1,
    }


@check(alone=True)
def out_of_memory_by_and_by(device):
    """Blocks of a sixteenth of the device until none is left, then all of them given back."""
    total = torch.cuda.mem_get_info()[1]
    held = []
    try:
        while len(held) < 64:
            held.append(torch.empty(total // 16, dtype=torch.uint8, device=device))
            held[-1][:100] = len(held)
    except torch.OutOfMemoryError:
        ended = True
    sums = sum(block[:100].sum().item() for block in held) == 100 * sum(range(1, len(held) + 1))
    count = len(held)
    held.clear()
    torch.cuda.empty_cache()
    again = torch.empty(total // 16, dtype=torch.uint8, device=device)
    return {"ended": ended, "intact": sums, "blocks": Info(count), "after": again.numel() == total // 16}


@check
def absurd_sizes(device):
    return {
        "petabyte": refused(lambda: torch.empty(1 << 50, dtype=torch.uint8, device=device)).split(":")[0],
        "negative": refused(lambda: torch.empty(-1, device=device)),
        "pinned": refused(lambda: torch.empty(1 << 50, dtype=torch.uint8, pin_memory=True)).split(":")[0],
        "after": torch.ones(3, device=device).sum(),
    }


@check(alone=True)
def device_assertion(device):
    """Sticky: the context is at an end, and every later call says so."""
    first = refused(lambda: torch._assert_async(torch.zeros(1, device=device)))
    second = refused(lambda: torch.zeros(10, device=device).sum().item())
    return {"first": first, "second": second}


@check(alone=True)
def index_out_of_bounds(device):
    given = normal(100)
    first = refused(lambda: given[torch.tensor([5, 1000], device=device)])
    second = refused(lambda: given + 1)
    return {"first": first, "second": second}


@check(alone=True)
def label_out_of_bounds(device):
    return {"first": refused(lambda: torch.nn.functional.cross_entropy(normal(4, 10), torch.tensor([1, 2, 3, 99], device=device)))}


@check(alone=True)
def illegal_address(device):
    kernel = torch.cuda._compile_kernel('extern "C" __global__ void wild(int *p) { p[1ll << 40] = 1; }', "wild")
    given = torch.zeros(4, dtype=torch.int32, device=device)
    first = refused(lambda: kernel(grid=(1, 1, 1), block=(1, 1, 1), args=[given]))
    second = refused(lambda: torch.ones(10, device=device).sum().item())
    return {"first": first, "second": second}


@check(alone=True)
def trap(device):
    kernel = torch.cuda._compile_kernel('extern "C" __global__ void stop() { __trap(); }', "stop")
    return {"first": refused(lambda: kernel(grid=(1, 1, 1), block=(1, 1, 1), args=[]))}


@check(alone=True)
def launch_of_a_wrong_shape(device):
    """Refused by the call; nothing is broken."""
    kernel = torch.cuda._compile_kernel('extern "C" __global__ void none() {}', "none")
    found = {
        "threads": refused(lambda: kernel(grid=(1, 1, 1), block=(2048, 1, 1), args=[])),
        "grid": refused(lambda: kernel(grid=(1, 100_000, 1), block=(1, 1, 1), args=[])),
        "shared": refused(lambda: kernel(grid=(1, 1, 1), block=(1, 1, 1), args=[], shared_mem=300 * 1024)),
    }
    return found | {"after": torch.ones(100, device=device).sum()}


@check
def wrong_device(device):
    count = torch.cuda.device_count()
    return {
        "count": Info(count),
        "ordinal": refused(lambda: torch.zeros(1, device="cuda:99")),
        "set": refused(lambda: torch.cuda.set_device(99)),
        "properties": refused(lambda: torch.cuda.get_device_properties(99)),
        "mixed": refused(lambda: torch.zeros(3, device=device) + torch.zeros(3)),
        "product": refused(lambda: torch.zeros(3, 3, device=device) @ torch.zeros(3, 3)),
        "after": torch.ones(3, device=device).sum(),
    }


@check
def wrong_types_and_shapes(device):
    one = normal(3, 4)
    return {
        "shapes": refused(lambda: one @ one),
        "types": refused(lambda: one @ one.T.double()),
        "half": refused(lambda: torch.linalg.inv(normal(3, 3).half())),
        "convolution": refused(lambda: torch.nn.functional.conv2d(normal(1, 3, 8, 8), normal(4, 5, 3, 3))),
        "not positive": refused(lambda: torch.linalg.cholesky(-torch.eye(3, device=device))),
        "plan": refused(lambda: torch.fft.fft(normal(0))),
        "after": one.sum(),
    }
