"""CuPy."""

import cupy
import numpy

from record import Info
from registry import check


def numbers(*shape, dtype="float32"):
    """Normal numbers, drawn on the CPU."""
    return cupy.asarray(numpy.random.standard_normal(shape).astype(dtype))


@check
def cupy_elementwise():
    found = {}
    for dtype in ("float16", "float32", "float64", "complex64", "complex128"):
        one, other = numbers(1000, dtype=dtype), numbers(1000, dtype=dtype)
        found[dtype] = [cupy.asnumpy(each) for each in (one + other, one * other, cupy.exp(one), abs(one - other))]
    for dtype in ("int8", "uint16", "int32", "int64"):
        given = cupy.arange(1000).astype(dtype)
        found[dtype] = [cupy.asnumpy(each) for each in (given * 3, given >> 1, given % 7, given.astype("bool"))]
    return found


@check
def cupy_kernels():
    """Elementwise and reduction kernels, fused functions: each goes through NVRTC."""
    squared = cupy.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)", "squared")
    norm = cupy.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm")

    @cupy.fuse()
    def fused(one, other):
        return cupy.sqrt(cupy.abs(one)) * other + 1

    one, other = numbers(5000), numbers(5000)
    return {"squared": squared(one, other).get(), "norm": norm(one).get(), "fused": fused(one, other).get()}


MODULE = r"""
__constant__ float factors[4];
extern "C" __global__ void scale(const float *given, float *out, int count) {
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < count) out[place] = given[place] * factors[place % 4];
}
template <typename T> __global__ void reversed(T *out, const T *given, int count) {
    for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < count; place += gridDim.x * blockDim.x)
        out[count - 1 - place] = given[place];
}
"""


@check
def cupy_raw_modules():
    """Constant memory, and templates by their C++ names."""
    module = cupy.RawModule(code=MODULE, options=("-std=c++17",), name_expressions=["reversed<double>"])
    pointer = module.get_global("factors")
    cupy.ndarray(4, cupy.float32, pointer)[...] = cupy.arange(1, 5, dtype=cupy.float32)
    given, out = numbers(1000), cupy.zeros(1000, cupy.float32)
    module.get_function("scale")((4,), (256,), (given, out, cupy.int32(1000)))
    double = numbers(777, dtype="float64")
    back = cupy.zeros_like(double)
    kernel = module.get_function("reversed<double>")
    kernel((2,), (128,), (back, double, cupy.int32(777)))
    return {"scaled": out.get(), "reversed": back.get(), "registers": Info(kernel.num_regs), "shared": kernel.shared_size_bytes}


@check
def cupy_raw_kernel():
    source = r"""
    extern "C" __global__ void sums(const float *given, float *out) {
        extern __shared__ float kept[];
        kept[threadIdx.x] = given[blockIdx.x * blockDim.x + threadIdx.x];
        for (int half = blockDim.x / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) kept[threadIdx.x] += kept[threadIdx.x + half];
        }
        if (threadIdx.x == 0) out[blockIdx.x] = kept[0];
    }"""
    kernel = cupy.RawKernel(source, "sums")
    given, out = numbers(256 * 32), cupy.zeros(32, cupy.float32)
    kernel((32,), (256,), (given, out), shared_mem=1024)
    return {"sums": out.get(), "threads": kernel.max_threads_per_block}


@check
def cupy_products():
    found = {}
    for dtype in ("float16", "float32", "float64", "complex64"):
        one, other = numbers(60, 80, dtype=dtype), numbers(80, 40, dtype=dtype)
        found[dtype] = [(one @ other).get(), cupy.einsum("ij,jk->ki", one, other).get()]
    found["batched"] = cupy.matmul(numbers(8, 20, 30), numbers(8, 30, 10)).get()
    return found


@check
def cupy_solvers():
    matrix = numbers(50, 50, dtype="float64")
    symmetric = matrix @ matrix.T + 50 * cupy.eye(50)
    return {
        "solved": cupy.linalg.solve(symmetric, numbers(50, 2, dtype="float64")).get(),
        "cholesky": cupy.linalg.cholesky(symmetric).get(),
        "singular values": cupy.linalg.svd(matrix, compute_uv=False).get(),
        "eigenvalues": cupy.linalg.eigvalsh(symmetric).get(),
        "r": abs(cupy.linalg.qr(matrix)[1]).get(),
        "inverse": cupy.linalg.inv(symmetric).get(),
        "determinant": cupy.linalg.slogdet(symmetric)[1].get(),
    }


@check
def cupy_fft():
    given = numbers(4, 240, dtype="complex64")
    return {
        "forward": cupy.fft.fft(given).get(),
        "back": cupy.fft.ifft(cupy.fft.fft(given)).get(),
        "real": cupy.fft.rfft2(numbers(32, 48)).get(),
        "three": cupy.fft.fftn(numbers(8, 10, 12, dtype="complex128")).get(),
    }


@check
def cupy_sparse():
    from cupyx.scipy import sparse

    dense = numbers(80, 60)
    dense *= abs(dense) > 1
    matrix = sparse.csr_matrix(dense)
    return {
        "vector": (matrix @ numbers(60)).get(),
        "matrix": (matrix @ numbers(60, 9)).get(),
        "product": (matrix @ matrix.T.tocsr()).toarray().get(),
        "columns": matrix.tocsc().indptr.get(),
        "coordinates": matrix.tocoo().row.get(),
    }


@check
def cupy_sorting():
    given = cupy.asarray(numpy.random.permutation(50_000))
    return {
        "sorted": cupy.sort(given)[::500].get(),
        "order": cupy.argsort(given)[::500].get(),
        "unique": cupy.unique(given % 97, return_counts=True)[1].get(),
        "part": cupy.sort(cupy.partition(given, 100)[:100]).get(),
        "scan": cupy.cumsum(given)[::500].get(),
        "found": cupy.searchsorted(cupy.arange(0, 50_000, 7), given[:300]).get(),
        "histogram": cupy.histogram(given, 20)[0].get(),
        "lexical": cupy.lexsort(cupy.stack([given[:500] % 5, given[:500]])).get(),
    }


@check
def cupy_random():
    old = cupy.random.RandomState(11)
    new = cupy.random.default_rng(11)
    return {
        "uniform": old.random_sample(1000).get(),
        "normal": old.standard_normal(1000).get(),
        "generator": new.random(1000).get(),
        "integers": new.integers(0, 1000, 500).get(),
        "poisson": new.poisson(4.0, 500).get(),
    }


@check
def cupy_pool():
    """The pool's own accounts, its limit, and what happens at it."""
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        held = cupy.ones(1 << 20, cupy.float32)
        used = pool.used_bytes()
        total = held.sum().get()
        pool.set_limit(size=16 << 20)
        try:
            cupy.zeros(1 << 25, cupy.float32)
            refused = "no"
        except cupy.cuda.memory.OutOfMemoryError as error:
            refused = str(error).split("(")[0]
        del held
        pool.free_all_blocks()
    return {"used": used, "sum": total, "refused": refused, "left": pool.total_bytes() <= 1024}


@check
def cupy_other_allocators():
    """The driver's pools, and managed memory."""
    found = {}
    allocators = {
        "stream-ordered": cupy.cuda.MemoryAsyncPool().malloc,
        "managed": cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc,
    }
    for name, allocator in allocators.items():
        with cupy.cuda.using_allocator(allocator):
            given = cupy.arange(100_000, dtype=cupy.float64)
            found[name] = (given * 2).sum().get()
            del given
    cupy.cuda.Device().synchronize()
    return found


@check
def cupy_streams():
    one, other = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream()
    event = cupy.cuda.Event()
    with one:
        given = cupy.arange(100_000, dtype=cupy.float32)
        root = cupy.sqrt(given)
        event.record(one)
    other.wait_event(event)
    with other:
        total = root.sum()
    other.synchronize()
    seen = []
    one.launch_host_func(lambda argument: seen.append(argument), 42)
    one.synchronize()
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    cupy.sort(given)
    end.record()
    end.synchronize()
    return {"sum": total.get(), "called": seen, "milliseconds": Info(cupy.cuda.get_elapsed_time(begin, end)), "done": one.done}


@check
def cupy_graphs():
    given, out = numbers(2000), cupy.zeros(2000, cupy.float32)
    cupy.multiply(given, 2, out=out)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        cupy.multiply(given, 2, out=out)
        cupy.add(out, 1, out=out)
        graph = stream.end_capture()
        found = []
        for factor in (1, 3):
            given[...] = factor
            graph.launch()
            stream.synchronize()
            found.append(out.get(stream=stream))
    return {"results": found}


@check
def cupy_copies():
    import cupyx

    found = {}
    for count in (10, 20_000, 2_000_000):
        host = cupyx.empty_pinned(count, numpy.float32)
        host[...] = numpy.arange(count)
        there = cupy.empty(count, cupy.float32)
        there.set(host)
        found[str(count)] = (there * 2).get()
    strided = cupy.asarray(numpy.arange(600).reshape(20, 30)[::2, ::3])
    return found | {"strided": strided.get(), "dlpack": cupy.from_dlpack(strided).T.get()}


@check
def cupy_textures():
    from cupy.cuda import runtime, texture

    source = r"""
    extern "C" __global__ void sample(cudaTextureObject_t image, float *out, int width, int height) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x < width && y < height) out[y * width + x] = tex2D<float>(image, x + 0.25f, y + 0.75f);
    }"""
    width, height = 32, 16
    channel = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(channel, width, height)
    array.copy_from(numbers(height, width))
    resource = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array)
    clamp = runtime.cudaAddressModeClamp
    sampling = texture.TextureDescriptor((clamp, clamp), runtime.cudaFilterModeLinear, runtime.cudaReadModeElementType)
    out = cupy.zeros((height, width), cupy.float32)
    kernel = cupy.RawKernel(source, "sample")
    kernel((2, 2), (16, 8), (texture.TextureObject(resource, sampling), out, cupy.int32(width), cupy.int32(height)))
    return {"out": out.get()}


@check
def cupy_signals():
    from cupyx.scipy import ndimage, signal, special

    image = numbers(40, 50)
    return {
        "filtered": ndimage.gaussian_filter(image, 1.5).get(),
        "rotated": ndimage.rotate(image, 30, reshape=False).get(),
        "labels": ndimage.label(image > 0.5)[1],
        "convolved": signal.convolve2d(image, numbers(5, 5)).get(),
        "special": special.erf(image).get(),
    }


@check
def cupy_device():
    device = cupy.cuda.Device()
    return {
        "capability": device.compute_capability,
        "bus": device.pci_bus_id,
        "name": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "versions": [cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()],
        "memory": Info(list(device.mem_info)),
    }


@check
def cupy_errors():
    found = {}
    try:
        cupy.zeros(1 << 50, cupy.uint8)
    except cupy.cuda.memory.OutOfMemoryError as error:
        found["memory"] = type(error).__name__
    try:
        cupy.cuda.Device(99).use()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        found["device"] = str(error)
    try:
        cupy.RawKernel('extern "C" __global__ void wrong() { missing(); }', "wrong")((1,), (1,), ())
    except cupy.cuda.compiler.CompileException as error:
        found["source"] = "missing" in str(error)
    return found | {"after": cupy.ones(10).sum().get()}
