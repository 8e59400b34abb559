"""The caching allocator, the device's memory as PyTorch tells it, and page-locked memory."""

import torch

from groups.blas import normal
from record import Info
from registry import check

MIB = 1 << 20


def emptied():
    """Starts from no cached block."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


@check
def allocator_statistics(device):
    """What the allocator counts is a matter of the program alone."""
    allocated, reserved = emptied()
    small = [torch.empty(1000 * (index + 1), device=device) for index in range(20)]
    large = torch.empty(50 * MIB, dtype=torch.uint8, device=device)
    held = torch.cuda.memory_allocated() - allocated, torch.cuda.memory_reserved() - reserved
    del small[::2], large
    statistics = torch.cuda.memory_stats()
    found = {
        "allocated": held[0],
        "reserved": Info(held[1]),
        "after": torch.cuda.memory_allocated() - allocated,
        "peak": torch.cuda.max_memory_allocated() - allocated,
        "failed": statistics["num_ooms"],
        "summary": "allocated" in torch.cuda.memory_summary().lower(),
    }
    del small
    return found


@check
def emptied_cache_returns_memory(device):
    """What `empty_cache` gives back can be had by the rest of the device, to the byte."""
    emptied()
    before, total = torch.cuda.mem_get_info()
    held = torch.empty(512 * MIB, dtype=torch.uint8, device=device)
    during = torch.cuda.mem_get_info()[0]
    del held
    cached = torch.cuda.mem_get_info()[0]
    torch.cuda.empty_cache()
    after = torch.cuda.mem_get_info()[0]
    # Other processes of the device may take or give something meanwhile, so exact amounts are for information.
    return {
        "total": Info(total),
        "taken": Info(before - during),
        "at least": before - during > 400 * MIB and before - cached > 400 * MIB,
        "returned": after - cached > 400 * MIB,
        "kept": Info(before - after),
        "through the runtime": torch.cuda.cudart().cudaMemGetInfo(0)[1] == total,
    }


@check
def allocator_snapshot(device):
    emptied()
    torch.cuda.memory._record_memory_history(context=None, max_entries=1000)
    held = [torch.empty(3 * MIB, dtype=torch.uint8, device=device) for _ in range(3)]
    del held
    snapshot = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled=None)
    actions = [entry["action"] for trace in snapshot["device_traces"] for entry in trace]
    return {
        "allocations": actions.count("alloc"),
        "frees": actions.count("free_completed"),
        "segments": Info(len(snapshot["segments"])),
    }


@check(environment={"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
def expandable_segments(device):
    """Virtual memory management: a segment grows by mapping."""
    parts = [torch.full((16 * MIB,), float(index), device=device) for index in range(4)]
    sums = [part.sum(dtype=torch.float64).item() for part in parts]
    free = torch.cuda.mem_get_info()[0]
    del parts[1:3]
    torch.cuda.empty_cache()
    grown = torch.full((40 * MIB,), 0.5, device=device)
    segments = [segment["is_expandable"] for segment in torch.cuda.memory_snapshot()]
    return {
        "sums": sums,
        "kept": [parts[0].sum(dtype=torch.float64).item(), parts[1].sum(dtype=torch.float64).item()],
        "grown": grown.sum(dtype=torch.float64).item(),
        "expandable": any(segments),
        "free": Info(free),
        "product": normal(64, 64) @ normal(64, 64),
    }


@check(fresh=True, environment={"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"})
def stream_ordered_backend(device):
    """The driver's memory pools in place of PyTorch's allocator."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        one = normal(1000, 1000)
        product = one @ one
    torch.cuda.current_stream().wait_stream(stream)
    product.record_stream(torch.cuda.current_stream())
    held = torch.cuda.memory_allocated()
    del one
    torch.cuda.empty_cache()
    return {
        "backend": torch.cuda.get_allocator_backend(),
        "product": product,
        "allocated": Info(held),
        "less": torch.cuda.memory_allocated() < held,
    }


@check(
    environment={"PYTORCH_ALLOC_CONF": "max_split_size_mb:64,garbage_collection_threshold:0.6,roundup_power2_divisions:4"}
)
def allocator_options(device):
    blocks = [torch.full((size * MIB,), 1, dtype=torch.uint8, device=device) for size in (10, 70, 130, 33)]
    total = sum(block.sum().item() for block in blocks)
    return {"sum": total, "reserved": torch.cuda.memory_reserved(), "allocated": torch.cuda.memory_allocated()}


@check(environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
def no_caching(device):
    """Each tensor is a cudaMalloc and a cudaFree."""
    sums = []
    for size in (10, 1000, 100_000, 3_000_000):
        sums += [(torch.ones(size, device=device) * index).sum().item() for index in range(8)]
    return {"sums": sums}


@check(alone=True)
def memory_fraction(device):
    """The program's own limit."""
    torch.cuda.set_per_process_memory_fraction(0.01)
    limit = int(torch.cuda.mem_get_info()[1] * 0.01)
    try:
        torch.empty(limit + MIB, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        refused = "out of memory" in str(error)
    torch.cuda.set_per_process_memory_fraction(1.0)
    return {"refused": refused, "allowed": torch.empty(limit + MIB, dtype=torch.uint8, device=device).numel() > limit}


@check
def private_pools(device):
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        held = torch.full((4 * MIB,), 3, dtype=torch.uint8, device=device)
    total = held.sum().item()
    segments = len(pool.snapshot())
    del held
    return {"sum": total, "segments": segments}


@check
def pinned_copies(device):
    """Both directions, not waited for, of sizes around those where paths change."""
    found = {}
    for count in (1, 1000, 16_384, 70_000, 1_000_003):
        given = torch.randn(count).pin_memory()
        there = given.to(device, non_blocking=True)
        back = torch.empty(count, pin_memory=True)
        back.copy_(there * 2, non_blocking=True)
        torch.cuda.synchronize()
        found[str(count)] = back
        found[f"{count} pinned"] = back.is_pinned() and given.is_pinned()
    return found


@check
def pageable_copies(device):
    found = {}
    for count in (1, 16_384, 70_000, 5_000_003):
        given = torch.arange(count, dtype=torch.float32)
        there = given.to(device)
        given.fill_(-1)  # the copy has been made
        found[str(count)] = (there + 1).cpu()
    found["bytes"] = torch.arange(100_001, dtype=torch.int64).to(torch.uint8).to(device).cpu()
    return found


@check
def strided_copies(device):
    given = torch.randn(300, 400)
    there = torch.zeros(400, 300, device=device)
    there.T[::2, ::3] = given[::2, ::3].to(device)
    there[10:20].copy_(given[:10, :300])
    host = torch.zeros(400, 150)
    host.copy_(there[:, ::2])
    return {"there": there, "host": host, "half": there[:, 5:9].half().cpu()}


@check
def pinned_memory_is_reused(device):
    """The pinned allocator gives a block out again only when the copy from it has ended."""
    sums = []
    stream = torch.cuda.Stream()
    for index in range(30):
        block = torch.full((300_000,), float(index)).pin_memory()
        with torch.cuda.stream(stream):
            there = block.to(device, non_blocking=True)
            sums.append(there.sum())
        del block
    stream.synchronize()
    return {"sums": torch.stack(sums)}


@check
def registered_memory(device):
    """cudaHostRegister of memory that the program has already."""
    given = torch.arange(1_000_000, dtype=torch.float32)
    runtime = torch.cuda.cudart()
    registered = int(runtime.cudaHostRegister(given.data_ptr(), given.numel() * 4, 0))
    there = given.to(device, non_blocking=True)
    total = there.sum(dtype=torch.float64).item()
    given.mul_(2)
    again = given.to(device, non_blocking=True).sum(dtype=torch.float64).item()
    unregistered = int(runtime.cudaHostUnregister(given.data_ptr()))
    return {"codes": [registered, unregistered], "sums": [total, again], "pinned": Info(given.is_pinned())}


@check(environment={"PYTORCH_ALLOC_CONF": "pinned_use_cuda_host_register:True"})
def pinned_by_registering(device):
    given = torch.randn(500_000).pin_memory()
    return {"copied": given.to(device, non_blocking=True) * 3, "pinned": given.is_pinned()}


@check
def interchange(device):
    """Other libraries see the same memory."""
    given = normal(32, 16)
    interface = given.__cuda_array_interface__
    other = torch.from_dlpack(given)
    other.add_(1)
    viewed = torch.as_tensor(type("Array", (), {"__cuda_array_interface__": interface})(), device=device)
    return {
        "shape": list(interface["shape"]),
        "kind": interface["typestr"],
        "same memory": viewed.data_ptr() == given.data_ptr(),
        "written": given - other,
        "numpy": torch.from_numpy(given.cpu().numpy() * 2),
    }


@check
def large_allocations(device):
    """Four GiB, of which a few places are written."""
    held = torch.empty(1 << 32, dtype=torch.uint8, device=device)
    held[:: 1 << 28] = 7
    held[-1] = 9
    picked = held[:: 1 << 28].clone(), held[-1].item()
    del held
    torch.cuda.empty_cache()
    return {"picked": picked[0], "last": picked[1]}
