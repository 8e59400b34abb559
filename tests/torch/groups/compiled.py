"""Code compiled at run time: torch.compile, Triton, NVRTC. Caches are the runner's business (`TRITON_CACHE_DIR`,
`TORCHINDUCTOR_CACHE_DIR`): with an empty one everything is compiled, otherwise loaded."""

import torch

from groups.blas import normal
from registry import Skip, check

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def needs_triton():
    if triton is None:
        raise Skip("no Triton")


if triton:

    @triton.jit
    def add_kernel(one, other, out, count, block: tl.constexpr):
        places = tl.program_id(0) * block + tl.arange(0, block)
        inside = places < count
        tl.store(out + places, tl.load(one + places, inside) + tl.load(other + places, inside), inside)

    @triton.jit
    def softmax_kernel(given, out, columns, block: tl.constexpr):
        row = tl.program_id(0)
        places = tl.arange(0, block)
        values = tl.load(given + row * columns + places, places < columns, other=-float("inf"))
        values = tl.exp(values - tl.max(values, 0))
        tl.store(out + row * columns + places, values / tl.sum(values, 0), places < columns)

    @triton.autotune([triton.Config({"block": 32}, num_warps=2), triton.Config({"block": 64}, num_warps=4)], ["size"])
    @triton.jit
    def product_kernel(one, other, out, size, block: tl.constexpr):
        rows = tl.program_id(0) * block + tl.arange(0, block)
        columns = tl.program_id(1) * block + tl.arange(0, block)
        inner = tl.arange(0, 32)
        total = tl.zeros((block, block), tl.float32)
        for start in range(0, size, 32):
            left = tl.load(one + rows[:, None] * size + start + inner[None, :])
            right = tl.load(other + (start + inner)[:, None] * size + columns[None, :])
            total += tl.dot(left, right)
        tl.store(out + rows[:, None] * size + columns[None, :], total)

    @triton.jit
    def count_kernel(given, counts, count, block: tl.constexpr):
        places = tl.program_id(0) * block + tl.arange(0, block)
        tl.atomic_add(counts + tl.load(given + places, places < count, other=0), 1, places < count)


@check
def triton_elementwise(device):
    needs_triton()
    one, other = normal(10_001), normal(10_001)
    out = torch.empty_like(one)
    add_kernel[(triton.cdiv(10_001, 1024),)](one, other, out, 10_001, block=1024)
    return {"sum": out}


@check
def triton_reduction(device):
    needs_triton()
    given = normal(64, 1000)
    out = torch.empty_like(given)
    softmax_kernel[(64,)](given, out, 1000, block=1024)
    return {"softmax": out}


@check
def triton_product_tuned(device):
    """Tensor cores, and two configurations that Triton times with events."""
    needs_triton()
    one, other = normal(256, 256, dtype=torch.float16), normal(256, 256, dtype=torch.float16)
    out = torch.empty(256, 256, device=device)
    product_kernel[lambda meta: (256 // meta["block"], 256 // meta["block"])](one, other, out, 256)
    return {"product": out}


@check
def triton_atomics(device):
    needs_triton()
    given = torch.randint(0, 50, (20_000,), dtype=torch.int32).to(device)
    counts = torch.zeros(50, dtype=torch.int32, device=device)
    count_kernel[(triton.cdiv(20_000, 512),)](given, counts, 20_000, block=512)
    return {"counts": counts}


@check
def triton_in_a_graph(device):
    needs_triton()
    one, other, out = normal(4096), normal(4096), torch.empty(4096, device=device)
    add_kernel[(4,)](one, other, out, 4096, block=1024)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add_kernel[(4,)](one, other, out, 4096, block=1024)
    one.fill_(1.0)
    graph.replay()
    return {"sum": out.clone()}


@check
def compiled_elementwise(device):
    needs_triton()

    @torch.compile
    def work(one, other):
        return torch.nn.functional.gelu(one * other + 1).sum(-1), (one - other).softmax(-1)

    return {"results": work(normal(64, 500), normal(64, 500))}


@check
def compiled_training_step(device):
    needs_triton()
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 8))
    model = model.to(device)
    compiled = torch.compile(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = compiled(normal(32, 64)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), "weight": model[0].weight}


@check
def compiled_with_graphs(device):
    """`reduce-overhead`: Inductor's kernels in CUDA graphs."""
    needs_triton()
    weight = normal(64, 64) / 8

    @torch.compile(mode="reduce-overhead")
    def work(given):
        return torch.relu(given @ weight).cumsum(-1)

    found = []
    with torch.no_grad():
        for index in range(4):
            found.append(work(torch.full((16, 64), 0.1 * (index + 1), device=device)).clone())
    return {"results": torch.stack(found)}


@check
def jiterator(device):
    """An elementwise operator from C++ source."""
    work = torch.cuda.jiterator._create_jit_fn(
        "template <typename T> T work(T one, T other, T share) { return one * share + other / (T(1) + one * one); }",
        share=0.5,
    )
    several = torch.cuda.jiterator._create_multi_output_jit_fn(
        "template <typename T> void both(T one, T& twice, T& square) { twice = one + one; square = one * one; }", 2
    )
    one, other = normal(5000), normal(5000)
    return {
        "float": work(one, other),
        "share": work(one.double(), other.double(), share=0.25),
        "several": several(one),
    }


SCALE = r"""
extern "C" __global__ void scale(const float *given, float *out, int count, double factor) {
    extern __shared__ float kept[];
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    kept[threadIdx.x] = place < count ? given[place] : 0.0f;
    __syncthreads();
    if (place < count) out[place] = kept[blockDim.x - 1 - threadIdx.x] * (float)factor;
}
"""


@check
def cuda_source(device):
    """A kernel from CUDA C by NVRTC, launched through the driver API from Python."""
    kernel = torch.cuda._compile_kernel(SCALE, "scale")
    given, out = normal(4096), torch.zeros(4096, device=device)
    kernel(grid=(16, 1, 1), block=(256, 1, 1), args=[given, out, 4096, 2.5], shared_mem=1024)
    kernel.set_shared_memory_config(100 * 1024)  # beyond 48 KiB a kernel has to ask
    more = torch.zeros(4096, device=device)
    kernel(grid=(16, 1, 1), block=(256, 1, 1), args=[given, more, 4096, 0.5], shared_mem=100 * 1024)
    return {"out": out, "more": more}


@check
def cuda_source_with_a_mistake(device):
    try:
        torch.cuda._compile_kernel('extern "C" __global__ void wrong() { no_such_thing(); }', "wrong")
    except RuntimeError as error:
        return {"named": "no_such_thing" in str(error)}
    raise AssertionError("nonsense was compiled")
