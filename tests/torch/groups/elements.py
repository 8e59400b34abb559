"""Elementwise work, reductions, sorting, indexing and random numbers, in every type."""

import torch

from groups.blas import normal
from record import Near
from registry import check

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@check(cpu=True)
def integer_arithmetic(device):
    found = {}
    for dtype in INTEGERS:
        low, high = (0, 100) if dtype == torch.uint8 else (-100, 100)
        one = torch.randint(low, high, (1000,), dtype=dtype).to(device)
        other = torch.randint(1, 50, (1000,), dtype=dtype).to(device)
        found[str(dtype)] = [
            one + other, one * other, one // other, one % other, one & other, one ^ other, one << 2, one >> 1,
            one.sum(), one.max(), torch.gcd(one, other), one.clamp(3, 40), -one,
        ]  # fmt: skip
    return found


@check(cpu=True)
def float_arithmetic(device):
    found = {}
    for dtype in FLOATS:
        one, other = normal(3000, dtype=dtype, device=device), normal(3000, dtype=dtype, device=device)
        found[str(dtype)] = [
            one + other, one * other, one / other, torch.fmod(one, other), one.exp(), one.abs().sqrt(), one.sin(),
            one.tanh(), one.abs().log1p(), torch.atan2(one, other), one.sum(), one.mean(), one.std(), one.round(),
            torch.addcmul(one, one, other, value=0.5), torch.lerp(one, other, 0.25), one.prod(), one.norm(),
        ]  # fmt: skip
    return found


@check(cpu=True)
def booleans(device):
    one = torch.rand(2000).to(device) < 0.4
    other = torch.rand(2000).to(device) < 0.6
    return {
        "logic": [one & other, one | other, one ^ other, ~one],
        "counts": [one.sum(), one.any(), one.all(), other.count_nonzero()],
        "selected": torch.arange(2000, device=device)[one],
        "nonzero": torch.nonzero(one.view(40, 50)),
    }


@check(cpu=True)
def complex_arithmetic(device):
    found = {}
    for dtype in (torch.complex64, torch.complex128):
        one, other = torch.randn(2, 1500, dtype=dtype).to(device)
        found[str(dtype)] = [
            one * other, one / other, one.exp(), one.sqrt(), one.abs(), one.angle(), one.conj() + other, one.sum(),
            torch.polar(one.real.abs(), other.imag),
        ]  # fmt: skip
    return found


@check(cpu=True)
def conversions(device):
    given = normal(2048, device=device) * 20
    types = (*INTEGERS, *FLOATS, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)
    # Negative numbers to unsigned integers are undefined.
    found = {str(dtype): (given.abs() if dtype == torch.uint8 else given).to(dtype) for dtype in types}
    found["back from e4m3"] = given.to(torch.float8_e4m3fn).to(torch.bfloat16)
    found["back from e5m2"] = given.to(torch.float8_e5m2).to(torch.float32)
    found["viewed"] = given.view(torch.int32)
    return found


@check(cpu=True)
def special_functions(device):
    given = normal(2000, device=device).abs() + 0.1
    functions = ("erf", "erfinv", "digamma", "i0", "i1", "bessel_j0", "bessel_y1", "gammaln", "expit", "ndtri", "entr")
    found = {name: getattr(torch.special, name)(given / 6 if name in ("erfinv", "ndtri") else given) for name in functions}
    return found | {"zeta": torch.special.zeta(given + 1.5, given), "gammainc": torch.special.gammainc(given, given)}


@check
def special_functions_compiled_at_run_time(device):
    """These come as source to NVRTC on a CUDA device."""
    given = torch.linspace(-2, 2, 500, dtype=torch.float64, device=device)
    return {
        "airy": torch.special.airy_ai(given),
        "hermite": torch.special.hermite_polynomial_h(given, 5),
        "laguerre": torch.special.laguerre_polynomial_l(given, 4),
        "k1": torch.special.modified_bessel_k1(given.abs() + 0.5),
        "spherical": torch.special.spherical_bessel_j0(given),
    }


@check(cpu=True)
def reductions(device):
    given = normal(40, 30, 50, device=device)
    return {
        "all": [given.sum(), given.mean(), given.var(), given.amax(), given.argmin(), given.median()],
        "rows": given.sum(1),
        "several": given.mean((0, 2)),
        "order": [torch.quantile(given[0], 0.3, dim=1), given.kthvalue(7, 2).values, given.mode(2).values[:2]],
        "norms": [given.norm(p).item() for p in (1, 2, 3, float("inf"))],
        "logsumexp": given.logsumexp(2),
        "variance and mean": torch.var_mean(given, 0),
        "half": given.half().sum((0, 1)),
        "extremes": torch.aminmax(given, dim=0),
    }


@check(cpu=True)
def sorting(device):
    given = torch.randint(0, 1000, (20, 500)).to(device)
    numbers = torch.randperm(100_000).to(device)
    return {
        "sorted": torch.sort(given, dim=1, stable=True),
        "largest": numbers.float().topk(50).values,
        "unique": torch.unique(given, return_counts=True),
        "consecutive": torch.unique_consecutive(given.flatten().sort().values),
        "radix": numbers.sort(descending=True).values,
        "order": numbers.argsort(),
        "searched": torch.searchsorted(given[0].sort().values, given[1]),
        "buckets": torch.bucketize(normal(300, device=device), torch.linspace(-2, 2, 9, device=device)),
    }


@check(cpu=True)
def scans(device):
    given = normal(16, 3000, device=device)
    return {
        "sum": given.cumsum(1),
        "product": (1 + given / 1000).cumprod(1),
        "maximum": given.cummax(1),
        "logarithm": given.logcumsumexp(1),
        "integers": torch.randint(0, 9, (200_000,)).to(device).cumsum(0)[-500:],
    }


@check(cpu=True)
def gather_and_scatter(device):
    base, rows = normal(200, 40, device=device), torch.randint(0, 200, (500,)).to(device)
    updates = normal(500, 40, device=device)
    return {
        "gather": base.gather(0, rows[:40].view(1, 40)),
        "selected": base.index_select(0, rows),
        "added": base.index_add(0, rows, updates),
        "scattered": torch.zeros(200, 40, device=device).scatter_reduce(
            0, rows.view(-1, 1).expand(-1, 40), updates, "amax", include_self=False
        ),
        "put": base.clone().index_put_((rows,), updates, accumulate=True),
        "taken": base.take(rows),
        "masked": base.masked_fill(base > 1, -1.0),
        "filled": base.index_fill(0, rows[:5], 7.0),
        "where": torch.where(base > 0, base, base * 2),
    }


@check(cpu=True)
def counting(device):
    given = torch.randint(0, 64, (5000,)).to(device)
    return {
        "bins": torch.bincount(given, minlength=70),
        "histogram": torch.histc(normal(5000, device=device), 20, -3, 3),
        "one hot": torch.nn.functional.one_hot(given[:50], 64).sum(0),
    }


@check(cpu=True)
def shapes(device):
    given = normal(6, 7, 8, device=device)
    return {
        "joined": torch.cat([given, given.flip(0)], 1),
        "stacked": torch.stack([given, -given]),
        "rolled": given.roll((2, 3), (0, 2)),
        "triangles": [given.tril(), given.triu(1)],
        "permuted": given.permute(2, 0, 1).contiguous(),
        "padded": torch.nn.functional.pad(given, (1, 2, 3, 0), mode="reflect"),
        "repeated": given.repeat_interleave(3, 1),
        "diagonal": torch.diag_embed(given[0]),
        "product": torch.kron(given[0], given[1]),
        "distances": torch.cdist(given[0], given[1]),
        "crossed": torch.linalg.cross(given[..., :3], given[..., 3:6]),
        "grid": torch.meshgrid(given[0, 0], given[0, 1], indexing="ij"),
    }


@check(cpu=True)
def many_tensors_at_once(device):
    ones = [normal(50 + index, device=device) for index in range(60)]
    others = [normal(50 + index, device=device) for index in range(60)]
    torch._foreach_mul_(ones, 0.5)
    added = torch._foreach_add(ones, others, alpha=2.0)
    return {"norms": torch.stack(torch._foreach_norm(added)), "last": added[-1]}


@check
def random_numbers(device):
    """Philox on the device: a seed gives the same numbers everywhere."""
    found = {
        "uniform": torch.rand(5000, device=device),
        "normal": torch.randn(5000, device=device),
        "integers": torch.randint(0, 1 << 40, (1000,), device=device),
        "permutation": torch.randperm(3000, device=device),
        "double": torch.rand(100, dtype=torch.float64, device=device),
        "half": torch.randn(100, dtype=torch.float16, device=device),
    }
    state = torch.cuda.get_rng_state()
    found["first"] = torch.rand(10, device=device)
    torch.cuda.set_rng_state(state)
    found["again"] = torch.rand(10, device=device)
    generator = torch.Generator(device=device).manual_seed(7)
    return found | {"generator": torch.randn(64, device=device, generator=generator), "seed": generator.initial_seed()}


@check
def distributions(device):
    given = torch.rand(2000).to(device)
    return {
        "bernoulli": torch.bernoulli(given),
        "poisson": torch.poisson(given * 10),
        "multinomial": torch.multinomial(given, 100),
        "exponential": torch.empty(500, device=device).exponential_(2.0),
        "cauchy": torch.empty(500, device=device).cauchy_(),
        "geometric": torch.empty(500, device=device).geometric_(0.3),
        "log-normal": torch.empty(500, device=device).log_normal_(),
        "gamma": torch.distributions.Gamma(given[:200] + 1, given[:200] + 1).sample(),
        "dropout": torch.nn.functional.dropout(given, 0.4),
        "choices": torch.multinomial(given[:40], 500, replacement=True),
    }


@check(cpu=True)
def large_elementwise(device):
    """More elements than one launch of small blocks holds, and 64-bit offsets in the kernel."""
    given = torch.arange(30_000_000, device=device, dtype=torch.int32)
    return {"sum": (given % 7).sum(), "picked": (given * 3)[:: 1_000_003], "mean": Near(given.float().mean(), 1e-6)}


@check(cpu=True)
def quantised(device):
    given = normal(64, 32, device=device)
    whole = torch.quantize_per_tensor(given, 0.05, 3, torch.qint8)
    faked = torch.fake_quantize_per_tensor_affine(given, 0.05, 3, -128, 127)
    return {"integers": whole.int_repr(), "back": whole.dequantize(), "fake": faked}
