"""Triton beside PyTorch's own use of it: tensor memory access, printing, clusters of warps, and kernels kept as files."""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from record import Info
from registry import Skip, check


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).cuda()


@triton.jit
def product_by_descriptors(one, other, out, inner, block: tl.constexpr):
    row, column = tl.program_id(0) * block, tl.program_id(1) * block
    total = tl.zeros((block, block), tl.float32)
    for start in range(0, inner, block):
        total += tl.dot(one.load([row, start]), other.load([start, column]))
    out.store([row, column], total.to(tl.float16))


@check
def triton_descriptors():
    """cuTensorMapEncodeTiled on the host's side, TMA on the device's."""
    if torch.cuda.get_device_capability() < (9, 0):
        raise Skip("the device has no tensor memory access")
    one, other, out = normal(256, 128, dtype=torch.float16), normal(128, 256, dtype=torch.float16), torch.empty(256, 256).half().cuda()
    described = [TensorDescriptor.from_tensor(tensor, [64, 64]) for tensor in (one, other, out)]
    product_by_descriptors[(4, 4)](*described, 128, block=64)
    return {"product": out}


@triton.jit
def copy_by_device_descriptors(given, out, rows, columns, block: tl.constexpr):
    source = tl.make_tensor_descriptor(given, [rows, columns], [columns, 1], [block, block])
    target = tl.make_tensor_descriptor(out, [rows, columns], [columns, 1], [block, block])
    place = [tl.program_id(0) * block, tl.program_id(1) * block]
    target.store(place, source.load(place) * 2)


@check
def triton_descriptors_of_the_device():
    if torch.cuda.get_device_capability() < (9, 0):
        raise Skip("the device has no tensor memory access")
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
    given = normal(128, 96)
    out = torch.zeros_like(given)
    copy_by_device_descriptors[(4, 3)](given, out, 128, 96, block=32)
    return {"out": out}


@triton.jit
def many_types(given, out, count, factor, flag: tl.constexpr, block: tl.constexpr):
    places = tl.program_id(0) * block + tl.arange(0, block)
    values = tl.load(given + places, places < count, other=0.0).to(tl.float32)
    values = tl.where(values > 0, values * factor, tl.exp(values)) if flag else tl.math.rsqrt(tl.abs(values) + 1)
    tl.store(out + places, values.to(out.dtype.element_ty), places < count)


@check
def triton_types():
    found = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for flag in (True, False):
            given, out = normal(1000, dtype=dtype), torch.zeros(1000, dtype=dtype, device="cuda")
            kernel = many_types[(2,)](given, out, 1000, 1.5, flag, block=512)
            found[f"{dtype} {flag}"] = out
    return found | {"registers": Info(kernel.n_regs), "shared": kernel.metadata.shared, "spills": kernel.n_spills}


@triton.jit
def scans_and_sorts(given, out, block: tl.constexpr):
    places = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + places, tl.cumsum(tl.sort(tl.load(given + places)), 0))


@check
def triton_scans():
    given, out = torch.randint(0, 100, (8 * 256,), dtype=torch.int32).cuda(), torch.zeros(8 * 256, dtype=torch.int32, device="cuda")
    scans_and_sorts[(8,)](given, out, block=256)
    return {"out": out}


@triton.jit
def grouped_by_warps(given, out, size, block: tl.constexpr, stages: tl.constexpr):
    total = tl.zeros((block,), tl.float32)
    for start in tl.range(0, size, block, num_stages=stages):
        total += tl.load(given + tl.program_id(0) * size + start + tl.arange(0, block))
    tl.store(out + tl.program_id(0), tl.sum(total))


@check
def triton_pipelines():
    """Asynchronous copies in several stages, with different numbers of warps."""
    given = normal(16, 8192)
    found = {}
    for warps in (1, 4, 8):
        out = torch.zeros(16, device="cuda")
        grouped_by_warps[(16,)](given, out, 8192, block=512, stages=3, num_warps=warps)
        found[str(warps)] = out
    return found


@check
def triton_timing():
    given = normal(1 << 16)
    out = torch.zeros_like(given)
    milliseconds = triton.testing.do_bench(lambda: many_types[(128,)](given, out, 1 << 16, 2.0, True, block=512), rep=20, warmup=5)
    return {"out": out, "milliseconds": Info(milliseconds), "positive": milliseconds > 0}


@check
def triton_device():
    target = triton.runtime.driver.active.get_current_target()
    properties = triton.runtime.driver.active.utils.get_device_properties(0)
    return {"backend": target.backend, "arch": target.arch, "properties": properties}
