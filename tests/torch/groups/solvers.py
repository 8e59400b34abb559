"""cuSOLVER, cuFFT, cuSPARSE and cuSPARSELt."""

import warnings

import torch

from groups.blas import normal
from record import Near
from registry import Skip, check


def positive(size, device, dtype=torch.float64):
    """A symmetric positive definite matrix of no bad condition."""
    matrix = normal(size, size, dtype=dtype, device=device)
    return matrix @ matrix.mT / size + torch.eye(size, dtype=dtype, device=device)


@check(cpu=True)
def cholesky(device):
    matrix = positive(96, device)
    factor = torch.linalg.cholesky(matrix)
    batch = torch.stack([positive(12, device, torch.float32) for _ in range(8)])
    return {
        "factor": factor,
        "solved": torch.cholesky_solve(normal(96, 3, dtype=torch.float64, device=device), factor),
        "inverse": torch.cholesky_inverse(factor),
        "batch": torch.linalg.cholesky(batch),
    }


@check(cpu=True)
def singular_values(device):
    """Vectors have a free sign, so what is compared is what they make up."""
    found = {}
    for dtype in (torch.float32, torch.float64, torch.complex64):
        matrix = torch.randn(72, 40, dtype=dtype).to(device)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        found[f"{dtype} values"] = values
        found[f"{dtype} product"] = (left * values) @ right
        found[f"{dtype} values alone"] = torch.linalg.svdvals(matrix)
    for driver in ("gesvd", "gesvdj", "gesvda") if device != "cpu" else ():
        values = torch.linalg.svdvals(normal(48, 32, dtype=torch.float64), driver=driver)
        found[driver] = Near(values, 1e-9)  # Jacobi stops at a tolerance of its own
    return found


@check(cpu=True)
def symmetric_eigenvalues(device):
    matrix = positive(64, device)
    values, vectors = torch.linalg.eigh(matrix)
    batch = torch.stack([positive(10, device) for _ in range(6)])
    return {"values": values, "product": (vectors * values) @ vectors.mT, "batch": torch.linalg.eigvalsh(batch)}


@check(cpu=True)
def general_eigenvalues(device):
    values = torch.linalg.eigvals(normal(24, 24, dtype=torch.float64, device=device))
    return {"magnitudes": values.abs().sort().values, "sum": values.sum().real}


@check(cpu=True)
def orthogonal(device):
    matrix = normal(80, 48, dtype=torch.float64, device=device)
    q, r = torch.linalg.qr(matrix)
    reflectors, tau = torch.geqrf(matrix)
    batch = torch.linalg.qr(normal(5, 16, 16, device=device))
    return {
        "q": q,
        "r": r,
        "reflectors": reflectors,
        "tau": tau,
        "made": torch.linalg.householder_product(reflectors, tau),
        "applied": torch.ormqr(reflectors, tau, normal(80, 4, dtype=torch.float64, device=device)),
        "batch": batch.R,
    }


@check(cpu=True)
def solving(device):
    matrix = normal(100, 100, dtype=torch.float64, device=device) + 10 * torch.eye(100, device=device)
    right = normal(100, 7, dtype=torch.float64, device=device)
    factors, pivots, info = torch.linalg.ldl_factor_ex(positive(20, device))
    return {
        "solved": torch.linalg.solve(matrix, right),
        "inverse": torch.linalg.inv(matrix),
        "determinant": torch.linalg.slogdet(matrix),
        "condition": torch.linalg.cond(matrix, 1),
        "lu": torch.linalg.lu(matrix),
        "ldl": factors,
        "ldl pivots": pivots,
        "exponential": torch.linalg.matrix_exp(matrix / 20),
    }


@check(cpu=True)
def least_squares(device):
    matrix = normal(60, 20, dtype=torch.float64, device=device)
    right = normal(60, 2, dtype=torch.float64, device=device)
    return {
        "solution": torch.linalg.lstsq(matrix, right).solution,
        "pseudo-inverse": torch.linalg.pinv(matrix),
        "rank": torch.linalg.matrix_rank(matrix).item(),
        "norms": [torch.linalg.matrix_norm(matrix, order).item() for order in ("fro", "nuc", 2, 1)],
    }


@check(cpu=True)
def singular_matrix_is_refused(device):
    try:
        torch.linalg.inv(torch.zeros(8, 8, device=device))
    except torch.linalg.LinAlgError as error:
        return {"error": str(error)}
    raise AssertionError("a singular matrix was inverted")


@check(cpu=True)
def fft_complex(device):
    found = {}
    for dtype in (torch.complex64, torch.complex128):
        for size in (128, 1000, 1021):  # a power of two, small factors, a prime
            given = torch.randn(4, size, dtype=dtype).to(device)
            found[f"{dtype} {size}"] = torch.fft.fft(given)
            found[f"{dtype} {size} back"] = torch.fft.ifft(torch.fft.fft(given))
    return found


@check(cpu=True)
def fft_real(device):
    given = normal(3, 48, 60, device=device)
    volume = normal(12, 10, 14, dtype=torch.float64, device=device)
    return {
        "two dimensions": torch.fft.rfft2(given),
        "back": torch.fft.irfft2(torch.fft.rfft2(given), s=(48, 60)),
        "three dimensions": torch.fft.rfftn(volume),
        "another axis": torch.fft.fft(given, dim=1),
        "hermitian": torch.fft.hfft(given[0, :, :20].to(torch.complex64)),
        "shifted": torch.fft.fftshift(torch.fft.rfft(given)),
    }


@check
def fft_half(device):
    return {"output": torch.fft.rfft(normal(4, 256, dtype=torch.float16)).to(torch.complex64)}


@check
def fft_large_and_plans(device):
    """More plans than the cache holds."""
    cache = torch.backends.cuda.cufft_plan_cache
    cache.max_size = 3
    sums = [torch.fft.fft(normal(size)).abs().sum().item() for size in (100, 200, 300, 400, 100)]
    size = cache.size
    cache.clear()
    cache.max_size = 4096
    given = normal(1 << 20)
    return {"sums": sums, "cached": size, "large": torch.fft.rfft(given)}


@check(cpu=True)
def stft(device):
    window = torch.hann_window(256, device=device)
    given = normal(2, 4000, device=device)
    spectrum = torch.stft(given, 256, 64, window=window, return_complex=True)
    return {"spectrum": spectrum, "back": torch.istft(spectrum, 256, 64, window=window, length=4000)}


def sparse_matrix(device, dtype=torch.float32):
    matrix = normal(120, 90, dtype=dtype, device=device)
    return matrix * (matrix.abs() > 1.2)


@check(cpu=True)
def sparse_rows(device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for dtype in (torch.float32, torch.float64):
            rows = sparse_matrix(device, dtype).to_sparse_csr()
            found[f"{dtype} vector"] = rows @ normal(90, dtype=dtype, device=device)
            found[f"{dtype} matrix"] = rows @ normal(90, 20, dtype=dtype, device=device)
            found[f"{dtype} columns"] = rows.crow_indices()
        rows = sparse_matrix(device).to_sparse_csr()
        found["product"] = (rows @ rows.to_dense().mT.to_sparse_csr()).to_dense()
        found["added"] = (rows + rows).to_dense()
        return found


@check(cpu=True)
def sparse_coordinates(device):
    matrix = sparse_matrix(device)
    indices = torch.randint(0, 50, (2, 400)).to(device)
    summed = torch.sparse_coo_tensor(indices, normal(400, device=device), (50, 50)).coalesce()
    return {
        "indices": matrix.to_sparse().indices(),
        "product": torch.sparse.mm(matrix.to_sparse(), normal(90, 16, device=device)),
        "sparse product": torch.sparse.mm(matrix.to_sparse(), matrix.mT.to_sparse()).to_dense(),
        "coalesced": summed.values(),
        "sum": torch.sparse.sum(summed, 0).to_dense(),
        "softmax": torch.sparse.softmax(summed, 1).to_dense(),
    }


@check
def sparse_sampled(device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask = sparse_matrix(device).to_sparse_csr()
        one, other = normal(120, 32), normal(32, 90)
        square = (sparse_matrix(device)[:90, :90].tril(-1) + 4 * torch.eye(90, device=device)).to_sparse_csr()
        solved = torch.triangular_solve(normal(90, 3), square, upper=False).solution
        blocks = sparse_matrix(device)[:80, :80].to_sparse_bsr((4, 4))
        return {
            "sampled": torch.sparse.sampled_addmm(mask, one, other).to_dense(),
            "solved": solved,
            "blocks": blocks @ normal(80, 16),
        }


@check
def semi_structured(device):
    """Two of four elements are zero: cuSPARSELt."""
    from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

    if torch.cuda.get_device_capability() < (8, 0):
        raise Skip("the device has no such products")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SparseSemiStructuredTensor._FORCE_CUTLASS = False
        mask = torch.tensor([0, 0, 1, 1], device=device).tile((128, 32)).bool()
        matrix = normal(128, 128, dtype=torch.float16) * mask
        return {"product": to_sparse_semi_structured(matrix) @ normal(128, 64, dtype=torch.float16)}
