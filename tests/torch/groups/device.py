"""The device as PyTorch tells it, and the tools around it: saving, profiling, printing."""

import copy
import io
import pickle
import sys

import torch

from groups.blas import normal
from record import Info
from registry import check


@check
def properties(device):
    found = torch.cuda.get_device_properties(0)
    names = ("name", "major", "minor", "multi_processor_count", "warp_size", "regs_per_multiprocessor",
             "max_threads_per_multi_processor", "shared_memory_per_block", "shared_memory_per_block_optin", "L2_cache_size",
             "is_integrated", "is_multi_gpu_board", "uuid", "pci_bus_id", "pci_device_id", "pci_domain_id")  # fmt: skip
    told = {name: str(getattr(found, name)) for name in names if hasattr(found, name)}
    return told | {
        "memory": Info(found.total_memory),  # the quota of a VM
        "capability": list(torch.cuda.get_device_capability()),
        "count": torch.cuda.device_count(),
        "available": torch.cuda.is_available(),
        "current": torch.cuda.current_device(),
        "architectures": torch.cuda.get_arch_list(),
        "bfloat16": torch.cuda.is_bf16_supported(),
        "peer": torch.cuda.can_device_access_peer(0, 0) if torch.cuda.device_count() > 1 else False,
    }


@check
def libraries(device):
    return {
        "cudnn": torch.backends.cudnn.version(),
        "nccl": list(torch.cuda.nccl.version()),
        "cusparselt": torch.backends.cusparselt.version() if torch.backends.cusparselt.is_available() else None,
        "cufft": torch.backends.cuda.cufft_plan_cache.size >= 0,
        "compiled for": torch._C._cuda_getCompiledVersion(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


@check
def management(device):
    """NVML behind torch.cuda: where there is none, an error and no crash."""
    found = {}
    for name in ("utilization", "temperature", "power_draw", "clock_rate", "memory_usage"):
        try:
            found[name] = Info(getattr(torch.cuda, name)())
        except Exception as error:
            found[name] = Info(f"{type(error).__name__}: {error}")
    return found | {"after": torch.ones(3, device=device).sum()}


@check(cpu=True)
def saving(device):
    model = torch.nn.Linear(10, 5).to(device)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "numbers": normal(50, device=device).half()}, file)
    file.seek(0)
    there = torch.load(file, weights_only=True)
    file.seek(0)
    here = torch.load(file, map_location="cpu", weights_only=True)
    return {
        "device": there["numbers"].device.type == torch.device(device).type,
        "here": here["numbers"],
        "weight": there["model"]["weight"],
        "pickled": pickle.loads(pickle.dumps(normal(20, device=device))),
        "copied": copy.deepcopy(model)(torch.ones(1, 10, device=device)),
        "text": str(torch.arange(5, device=device)),
    }


@check
def modules_move(device):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).cuda().half().float()
    out = model(normal(2, 3, 9, 9))
    return {"out": out, "back": model.cpu()[0].weight, "kind": next(model.parameters()).device.type}


@check(alone=True)
def profiler(device):
    """With CUPTI there are kernels; without, the program runs and the CPU's side is told."""
    from torch.profiler import ProfilerActivity, profile

    given = normal(128, 128)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        result = (given @ given).relu().sum()
        torch.cuda.synchronize()
    names = {event.key for event in profiled.key_averages()}
    return {
        "result": result,
        "operators": "aten::mm" in names and "aten::relu" in names,
        "kernels": Info(sum(1 for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA)),
    }


@check
def ranges_and_markers(device):
    """NVTX, and the profiler's switches of the runtime."""
    with torch.cuda.nvtx.range("outer"):
        torch.cuda.nvtx.mark("here")
        result = normal(100).sum()
    torch.cuda.profiler.start()
    torch.cuda.profiler.stop()
    return {"result": result}


@check(alone=True)
def printing(device):
    """printf of a kernel comes out of this process, in order, by the next synchronisation."""
    import os
    import tempfile

    source = """extern "C" __global__ void say(const float *given) {
        if (threadIdx.x < 3) printf("thread %d has %.3f of %s\\n", threadIdx.x, given[threadIdx.x], "them");
    }"""
    kernel = torch.cuda._compile_kernel(source, "say")
    given = torch.tensor([0.5, 1.25, -3.0], device=device)
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        kernel(grid=(1, 1, 1), block=(32, 1, 1), args=[given])
        torch.cuda.synchronize()
        os.dup2(kept, 1)
        file.seek(0)
        return {"said": file.read().decode()}


@check
def clock_of_the_device(device):
    """Device time advances with work, in cycles that the device counts itself."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.cuda._sleep(10_000_000)
    end.record()
    torch.cuda.synchronize()
    return {"advanced": begin.elapsed_time(end) > 1.0}


@check
def lazy_start(device):
    """Another interpreter that leaves by its ordinary exit, with streams, graphs and pinned memory still alive."""
    import subprocess

    program = """
import torch
given = torch.ones(100, device='cuda'); stream = torch.cuda.Stream(); pinned = torch.empty(1000, pin_memory=True)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph): result = given * 2
graph.replay(); print(result.sum().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    return {"said": done.stdout, "exit": done.returncode, "errors": Info(done.stderr[-500:])}
