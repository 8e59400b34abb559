"""CUDA's own bindings for Python, and Numba: clients of the driver API without a runtime between."""

import ctypes

import numpy

from record import Info
from registry import Skip, check

try:
    from cuda.bindings import driver, nvrtc
except ImportError:
    driver = None
try:
    from numba import cuda
except ImportError:
    cuda = None

SOURCE = b"""
extern "C" __global__ void saxpy(float a, const float *x, float *y, int n) {
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < n) y[place] = a * x[place] + y[place];
}
"""


def ok(answer):
    """The values of a call that must succeed."""
    assert int(answer[0]) == 0, answer[0]
    return answer[1] if len(answer) == 2 else answer[1:]


def context():
    """The primary context, current."""
    if driver is None:
        raise Skip("no cuda.bindings")
    ok(driver.cuInit(0))
    device = ok(driver.cuDeviceGet(0))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(device))))
    return device


def compiled(device):
    """SOURCE for this device."""
    major = ok(driver.cuDeviceGetAttribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = ok(driver.cuDeviceGetAttribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    program = ok(nvrtc.nvrtcCreateProgram(SOURCE, b"saxpy.cu", 0, [], []))
    ok(nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=compute_{major}{minor}".encode()]))
    text = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, text))
    return numpy.char.array(text)


@check
def bindings_kernel():
    """Module, launch, copies, events."""
    module = ok(driver.cuModuleLoadData(compiled(context()).ctypes.data))
    kernel = ok(driver.cuModuleGetFunction(module, b"saxpy"))
    count = 10_000
    x, y = numpy.random.rand(2, count).astype("float32")
    there = [ok(driver.cuMemAlloc(4 * count)) for _ in range(2)]
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    for pointer, host in zip(there, (x, y)):
        ok(driver.cuMemcpyHtoDAsync(pointer, host.ctypes.data, 4 * count, stream))
    arguments = ((2.5, *there, count), (ctypes.c_float, None, None, ctypes.c_int))
    ok(driver.cuLaunchKernel(kernel, 40, 1, 1, 256, 1, 1, 0, stream, arguments, 0))
    out = numpy.empty_like(y)
    ok(driver.cuMemcpyDtoHAsync(out.ctypes.data, there[1], 4 * count, stream))
    ok(driver.cuStreamSynchronize(stream))
    for pointer in there:
        ok(driver.cuMemFree(pointer))
    ok(driver.cuStreamDestroy(stream))
    ok(driver.cuModuleUnload(module))
    return {"out": out}


@check
def bindings_device():
    device = context()
    names = [name for name in dir(driver.CUdevice_attribute) if name.startswith("CU_DEVICE_ATTRIBUTE_") and not name.endswith("_MAX")]
    told = {}
    for name in names:
        answer = driver.cuDeviceGetAttribute(getattr(driver.CUdevice_attribute, name), device)
        told[name] = [int(answer[0]), answer[1] if int(answer[0]) == 0 else 0]
    # The guest is told so: managed memory there is synchronised at launches (docs/api-support.md).
    for name in list(told):
        if any(word in name for word in ("MANAGED", "PAGEABLE", "HOST_NATIVE", "COUNT_CLOCK", "DMA_BUF", "FABRIC", "GPU_DIRECT", "HOST_NUMA", "REGISTERED_MEM")):
            told[name] = Info(told[name])
    return told | {"name": ok(driver.cuDeviceGetName(100, device)).rstrip(b"\0").decode(), "version": ok(driver.cuDriverGetVersion())}


@check
def bindings_pools_and_graphs():
    context()
    stream = ok(driver.cuStreamCreate(0))
    ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    pointer = ok(driver.cuMemAllocAsync(4096, stream))
    ok(driver.cuMemsetD32Async(pointer, 77, 1024, stream))
    host = numpy.zeros(1024, "int32")
    ok(driver.cuMemcpyDtoHAsync(host.ctypes.data, pointer, 4096, stream))
    ok(driver.cuMemFreeAsync(pointer, stream))
    graph = ok(driver.cuStreamEndCapture(stream))
    executable = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(executable, stream))
    ok(driver.cuStreamSynchronize(stream))
    nodes = ok(driver.cuGraphGetNodes(graph))[1]
    ok(driver.cuGraphExecDestroy(executable))
    ok(driver.cuGraphDestroy(graph))
    return {"host": host, "nodes": nodes}


@check
def bindings_errors():
    context()
    return {
        "free": driver.cuMemFree(12345)[0].name,
        "module": driver.cuModuleLoadData(b"this is no module\0")[0].name,
        "device": driver.cuDeviceGet(99)[0].name,
        "memory": driver.cuMemAlloc(1 << 50)[0].name,
    }


def numba_kernels():
    if cuda is None:
        raise Skip("no Numba")

    @cuda.jit
    def add(one, other, out):
        place = cuda.grid(1)
        if place < out.size:
            out[place] = one[place] + other[place] * 2

    @cuda.jit
    def total(given, out):
        kept = cuda.shared.array(128, "float32")
        kept[cuda.threadIdx.x] = given[cuda.grid(1)]
        cuda.syncthreads()
        half = 64
        while half > 0:
            if cuda.threadIdx.x < half:
                kept[cuda.threadIdx.x] += kept[cuda.threadIdx.x + half]
            cuda.syncthreads()
            half //= 2
        if cuda.threadIdx.x == 0:
            cuda.atomic.add(out, 0, kept[0])

    return add, total


@check
def numba_elementwise():
    add, total = numba_kernels()
    one, other = numpy.random.rand(2, 1280).astype("float32")
    out = cuda.device_array(1280, "float32")
    add[10, 128](cuda.to_device(one), cuda.to_device(other), out)
    summed = cuda.to_device(numpy.zeros(1, "float32"))
    total[10, 128](out, summed)
    return {"out": out.copy_to_host(), "sum": summed.copy_to_host()}


@check
def numba_streams():
    add, _ = numba_kernels()
    stream = cuda.stream()
    host = cuda.pinned_array(10_000, "float64")
    host[:] = numpy.arange(10_000)
    with stream.auto_synchronize():
        there = cuda.to_device(host, stream=stream)
        out = cuda.device_array_like(there, stream=stream)
        add[79, 128, stream](there, there, out)
        back = out.copy_to_host(stream=stream)
    return {"back": back}
