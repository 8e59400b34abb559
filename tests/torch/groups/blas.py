"""Matrix products: cuBLAS and cuBLASLt, in every type that they have."""

import torch

from registry import Skip, check


def normal(*shape, dtype=torch.float32, device="cuda"):
    """Normal numbers, drawn on the CPU, so that they are the same on every device."""
    return torch.randn(*shape).to(dtype).to(device)


def product(dtype, device, size=192):
    one = torch.randn(size, size + 32, dtype=torch.float64).to(dtype).to(device)
    other = torch.randn(size + 32, size - 64, dtype=torch.float64).to(dtype).to(device)
    return {"product": one @ other, "transposed": other.mT @ one.mT}


@check(cpu=True)
def matmul_float64(device):
    return product(torch.float64, device)


@check(cpu=True)
def matmul_float32(device):
    return product(torch.float32, device)


@check
def matmul_tf32(device):
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return product(torch.float32, device, 512)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


@check(cpu=True)
def matmul_float16(device):
    return product(torch.float16, device) | {"large": product(torch.float16, device, 1024)["product"]}


@check(cpu=True)
def matmul_bfloat16(device):
    return product(torch.bfloat16, device) | {"large": product(torch.bfloat16, device, 1024)["product"]}


@check(cpu=True)
def matmul_complex(device):
    found = {}
    for dtype in (torch.complex64, torch.complex128):
        one, other = (torch.randn(96, 96, dtype=dtype).to(device) for _ in range(2))
        found |= {f"{dtype}": one @ other, f"{dtype} conjugate": one.conj().mT @ other}
    return found


@check(cpu=True)
def matmul_batched(device):
    one, other, base = (normal(16, 64, 64, device=device) for _ in range(3))
    return {
        "bmm": torch.bmm(one, other),
        "baddbmm": torch.baddbmm(base, one, other, beta=0.5, alpha=2.0),
        "broadcast": one.view(4, 4, 64, 64) @ other[:4].unsqueeze(1),
        "einsum": torch.einsum("bij,bkj->bik", one, other),
    }


@check(cpu=True)
def vectors(device):
    one, other = normal(4096, device=device), normal(4096, device=device)
    matrix = normal(512, 4096, device=device)
    return {
        "dot": torch.dot(one, other),
        "mv": torch.mv(matrix, one),
        "addmv": torch.addmv(one[:512], matrix, other, alpha=0.25),
        "outer": torch.outer(one[:64], other[:64]),
    }


@check
def epilogues(device):
    """Bias and activation in the same kernel: cuBLASLt."""
    found = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        bias, one, other = normal(256, dtype=dtype), normal(128, 384, dtype=dtype), normal(384, 256, dtype=dtype)
        found[f"{dtype} bias"] = torch.addmm(bias, one, other)
        found[f"{dtype} relu"] = torch._addmm_activation(bias, one, other)
        found[f"{dtype} gelu"] = torch._addmm_activation(bias, one, other, use_gelu=True)
        found[f"{dtype} linear"] = torch.nn.functional.linear(one, other.T.contiguous(), bias)
    return found


@check
def matmul_int8(device):
    one = torch.randint(-128, 128, (128, 256), dtype=torch.int8).to(device)
    other = torch.randint(-128, 128, (256, 64), dtype=torch.int8).to(device)
    return {"product": torch._int_mm(one, other), "columns": torch._int_mm(one, other.T.contiguous().T)}


@check
def matmul_float8(device):
    if torch.cuda.get_device_capability() < (8, 9):
        raise Skip("the device has no fp8")
    found = {}
    for left, right in (("e4m3fn", "e4m3fn"), ("e5m2", "e4m3fn")):
        one = normal(128, 256).to(getattr(torch, f"float8_{left}"))
        other = normal(64, 256).to(getattr(torch, f"float8_{right}")).T
        scales = torch.tensor(0.5, device=device), torch.tensor(2.0, device=device)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            found[f"{left} {right} {dtype}"] = torch._scaled_mm(
                one, other, scale_a=scales[0], scale_b=scales[1], out_dtype=dtype
            )
    return found


@check
def matmul_float8_rowwise(device):
    if torch.cuda.get_device_capability() < (9, 0):
        raise Skip("the device has no row scales")
    one, other = normal(128, 256).to(torch.float8_e4m3fn), normal(64, 256).to(torch.float8_e4m3fn).T
    rows = torch.rand(128, 1).to(device) + 0.5
    columns = torch.rand(1, 64).to(device) + 0.5
    return {"product": torch._scaled_mm(one, other, scale_a=rows, scale_b=columns, out_dtype=torch.bfloat16)}


@check(cpu=True)
def triangular_batches(device):
    """cublasXtrsmBatched and cublasXgetrfBatched."""
    matrix = normal(32, 24, 24, device=device) + 8 * torch.eye(24, device=device)
    right = normal(32, 24, 4, device=device)
    factors, pivots = torch.linalg.lu_factor(matrix)
    return {
        "triangular": torch.linalg.solve_triangular(matrix.tril(), right, upper=False),
        "factors": factors,
        "pivots": pivots,
        "solved": torch.linalg.lu_solve(factors, pivots, right),
        "inverse": torch.linalg.inv(matrix),
    }


@check(cpu=True)
def linear_backward(device):
    layer = torch.nn.Linear(256, 128).to(device)
    given = normal(64, 256, device=device).requires_grad_()
    layer(given).square().sum().backward()
    return {"input": given.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}


@check
def libraries_for_blas(device):
    """The other library for the same products, and the workspace's size as a user sets it."""
    one, other = normal(2, 128, 128, dtype=torch.float16), normal(2, 128, 128, dtype=torch.float16)
    before = torch.backends.cuda.preferred_blas_library()
    found = {}
    for library in ("cublas", "cublaslt"):
        torch.backends.cuda.preferred_blas_library(library)
        found[library] = one[0] @ other[0]
    torch.backends.cuda.preferred_blas_library(before)
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    found["full accumulation"] = one @ other
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True
    return found


@check
def grouped_products(device):
    """One call for several products of different sizes (CUTLASS kernels in PyTorch itself)."""
    if torch.cuda.get_device_capability() < (9, 0):
        raise Skip("the device has no grouped products")
    one, other = normal(128, 64, dtype=torch.bfloat16), normal(4, 64, 48, dtype=torch.bfloat16)
    ends = torch.tensor([16, 48, 80, 128], dtype=torch.int32, device=device)
    return {"product": torch._grouped_mm(one, other.mT.contiguous().mT, offs=ends)}
