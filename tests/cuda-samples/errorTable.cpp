// Prints what the driver answers to wrong calls, one line each: `name: code`, or `name: crash` where the driver itself
// does not survive the call. The codes that a real GPU's driver gives are kept in tests/harness/tests/errors-580.toml.
//
// What leaves the context unusable happens in processes of its own: the program starts itself with a name.
#include <sys/wait.h>
#include <unistd.h>

#include "tell.h"

#include "kernels_ptx.h"

static const char faults_ptx[] = R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry store(.param .u64 address) {
    .reg .u64 %rd<2>;
    .reg .u32 %r<2>;
    ld.param.u64 %rd1, [address];
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry stop() {
    trap;
}
.visible .entry spin(.param .u64 address) {
    ret;
}
)";

static CUdevice device;
static CUcontext context;

static void before_initialisation() {
    int count;
    CUcontext current;
    CUdeviceptr pointer;
    CUstream stream;
    CUdevice first;
    size_t bytes;
    TELL("uninitialised cuDeviceGetCount", cuDeviceGetCount(&count));
    TELL("uninitialised cuDeviceGet", cuDeviceGet(&first, 0));
    TELL("uninitialised cuCtxGetCurrent", cuCtxGetCurrent(&current));
    TELL("uninitialised cuMemAlloc", cuMemAlloc(&pointer, 16));
    TELL("uninitialised cuStreamCreate", cuStreamCreate(&stream, 0));
    TELL("uninitialised cuMemGetInfo", cuMemGetInfo(&bytes, &bytes));
    TELL("uninitialised cuDriverGetVersion", cuDriverGetVersion(&count));
    TELL("cuInit with flags", cuInit(1));
}

static void without_context() {
    int value;
    char name[8];
    size_t bytes;
    CUdevice other;
    CUdeviceptr pointer;
    CUstream stream;
    CUevent event;
    CUmodule module;
    CUcontext made;
    TELL("cuDeviceGet beyond the last", cuDeviceGet(&other, 99));
    TELL("cuDeviceGet of a negative number", cuDeviceGet(&other, -1));
    TELL("cuDeviceGet into null", cuDeviceGet(nullptr, 0));
    TELL("cuDeviceGetCount into null", cuDeviceGetCount(nullptr));
    TELL("cuDeviceGetAttribute of no attribute", cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(9999), device));
    TELL("cuDeviceGetAttribute of no device", cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 99));
    TELL("cuDeviceGetAttribute into null", cuDeviceGetAttribute(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
    TELL("cuDeviceGetName into null", cuDeviceGetName(nullptr, 8, device));
    TELL("cuDeviceGetName of no device", cuDeviceGetName(name, sizeof name, 99));
    TELL("cuDeviceTotalMem of no device", cuDeviceTotalMem(&bytes, 99));
    TELL("cuDeviceGetByPCIBusId of nonsense", cuDeviceGetByPCIBusId(&other, "nonsense"));
    TELL("cuDeviceCanAccessPeer of no device", cuDeviceCanAccessPeer(&value, device, 99));
    TELL("cuCtxCreate with unknown flags", cuCtxCreate(&made, nullptr, 0x10000, device));
    TELL("cuCtxCreate on no device", cuCtxCreate(&made, nullptr, 0, 99));
    TELL("cuCtxCreate into null", cuCtxCreate(nullptr, nullptr, 0, device));
    TELL("cuDevicePrimaryCtxSetFlags with unknown flags", cuDevicePrimaryCtxSetFlags(device, 0x10000));
    TELL("cuDevicePrimaryCtxRetain on no device", cuDevicePrimaryCtxRetain(&made, 99));
    TELL("cuDevicePrimaryCtxRelease of what is not retained", cuDevicePrimaryCtxRelease(device));
    TELL("no context cuMemAlloc", cuMemAlloc(&pointer, 16));
    TELL("no context cuMemFree", cuMemFree(16));
    TELL("no context cuMemGetInfo", cuMemGetInfo(&bytes, &bytes));
    TELL("no context cuCtxSynchronize", cuCtxSynchronize());
    TELL("no context cuCtxPopCurrent", cuCtxPopCurrent(&made));
    TELL("no context cuCtxGetDevice", cuCtxGetDevice(&other));
    TELL("no context cuStreamCreate", cuStreamCreate(&stream, 0));
    TELL("no context cuStreamSynchronize", cuStreamSynchronize(nullptr));
    TELL("no context cuEventCreate", cuEventCreate(&event, 0));
    TELL("no context cuModuleLoadData", cuModuleLoadData(&module, kernels_ptx));
    TELL("no context cuMemcpyHtoD", cuMemcpyHtoD(16, &value, 4));
    TELL("no context cuCtxGetLimit", cuCtxGetLimit(&bytes, CU_LIMIT_STACK_SIZE));
}

static void contexts() {
    size_t bytes;
    int value;
    TELL("cuCtxSetLimit of no limit", cuCtxSetLimit(static_cast<CUlimit>(99), 1));
    TELL("cuCtxGetLimit of no limit", cuCtxGetLimit(&bytes, static_cast<CUlimit>(99)));
    TELL("cuCtxGetLimit into null", cuCtxGetLimit(nullptr, CU_LIMIT_STACK_SIZE));
    TELL("cuCtxSetCacheConfig of no preference", cuCtxSetCacheConfig(static_cast<CUfunc_cache>(99)));
    TELL("cuCtxDestroy of null", cuCtxDestroy(nullptr));
    TELL("cuCtxEnablePeerAccess to itself", cuCtxEnablePeerAccess(context, 0));
    TELL("cuCtxEnablePeerAccess to null", cuCtxEnablePeerAccess(nullptr, 0));
    TELL("cuCtxDisablePeerAccess to null", cuCtxDisablePeerAccess(nullptr));
    TELL("cuCtxGetStreamPriorityRange into null", cuCtxGetStreamPriorityRange(nullptr, nullptr));
    TELL("cuGetErrorName of no error", [&] { const char *name; return cuGetErrorName(static_cast<CUresult>(123456), &name); }());
    (void)value;
}

static void memory() {
    CUdeviceptr pointer = 0, other = 0;
    size_t pitch;
    unsigned flags;
    void *host;
    std::vector<char> pageable(1 << 16);
    CHECK_DRIVER(cuMemAlloc(&pointer, 1000));
    TELL("cuMemAlloc of nothing", cuMemAlloc(&other, 0));
    TELL("cuMemAlloc into null", cuMemAlloc(nullptr, 16));
    TELL("cuMemAlloc of too much", cuMemAlloc(&other, size_t(1) << 50));
    TELL("cuMemAllocPitch of an odd element", cuMemAllocPitch(&other, &pitch, 100, 10, 5));
    TELL("cuMemAllocPitch of no rows", cuMemAllocPitch(&other, &pitch, 100, 0, 4));
    TELL("cuMemFree of null", cuMemFree(0));
    TELL("cuMemFree of a number", cuMemFree(4097));
    TELL("cuMemFree inside an allocation", cuMemFree(pointer + 256));
    TELL("cuMemcpyHtoD beyond the end", cuMemcpyHtoD(pointer, pageable.data(), pageable.size()));
    TELL("cuMemcpyHtoD from null", cuMemcpyHtoD(pointer, nullptr, 16));
    TELL("cuMemcpyHtoD to null", cuMemcpyHtoD(0, pageable.data(), 16));
    TELL("cuMemcpyHtoD of nothing to null", cuMemcpyHtoD(0, nullptr, 0));
    TELL("cuMemcpyDtoH from a number", cuMemcpyDtoH(pageable.data(), 4096, 16));
    TELL("cuMemcpyDtoH to null", cuMemcpyDtoH(nullptr, pointer, 16));
    TELL("cuMemcpyDtoH before the start", cuMemcpyDtoH(pageable.data(), pointer - 64, 16));
    TELL("cuMemcpyDtoD from a number", cuMemcpyDtoD(pointer, 4096, 16));
    TELL("cuMemcpyDtoD beyond the end", cuMemcpyDtoD(pointer, pointer, 5000));
    TELL("cuMemcpyHtoDAsync beyond the end", cuMemcpyHtoDAsync(pointer, pageable.data(), pageable.size(), nullptr));
    TELL("cuMemcpy from null", cuMemcpy(pointer, 0, 16));
    TELL("cuMemsetD8 beyond the end", cuMemsetD8(pointer, 1, 1 << 20));
    TELL("cuMemsetD8 of a number", cuMemsetD8(4096, 1, 16));
    TELL("cuMemsetD32 at an odd address", cuMemsetD32(pointer + 1, 1, 4));
    TELL("cuMemsetD16 at an odd address", cuMemsetD16(pointer + 1, 1, 4));
    TELL("cuMemsetD2D8 with rows that overlap", cuMemsetD2D8(pointer, 4, 1, 8, 2));
    TELL("cuMemGetAddressRange of a number", cuMemGetAddressRange(&other, &pitch, 4096));
    TELL("cuMemHostAlloc with unknown flags", cuMemHostAlloc(&host, 4096, 0x100));
    TELL("cuMemFreeHost of pageable memory", cuMemFreeHost(pageable.data()));
    TELL("cuMemHostGetDevicePointer of pageable memory", cuMemHostGetDevicePointer(&other, pageable.data(), 0));
    TELL("cuMemHostGetFlags of pageable memory", cuMemHostGetFlags(&flags, pageable.data()));
    TELL("cuMemHostRegister of null", cuMemHostRegister(nullptr, 4096, 0));
    TELL("cuMemHostRegister of nothing", cuMemHostRegister(pageable.data(), 0, 0));
    TELL("cuMemHostRegister with unknown flags", cuMemHostRegister(pageable.data(), 4096, 0x100));
    TELL("cuMemHostUnregister of pageable memory", cuMemHostUnregister(pageable.data()));
    CHECK_DRIVER(cuMemHostRegister(pageable.data(), pageable.size(), 0));
    TELL("cuMemHostRegister twice", cuMemHostRegister(pageable.data(), pageable.size(), 0));
    TELL("cuMemFreeHost of registered memory", cuMemFreeHost(pageable.data()));
    CHECK_DRIVER(cuMemHostUnregister(pageable.data()));
    TELL("cuMemHostUnregister twice", cuMemHostUnregister(pageable.data()));
    TELL("cuMemAllocManaged of nothing", cuMemAllocManaged(&other, 0, CU_MEM_ATTACH_GLOBAL));
    TELL("cuMemAllocManaged without a flag", cuMemAllocManaged(&other, 16, 0));
    TELL("cuMemAllocManaged with unknown flags", cuMemAllocManaged(&other, 16, 0x80));
    CUmemLocation there = {};
    there.type = CU_MEM_LOCATION_TYPE_DEVICE;
    TELL("cuMemPrefetchAsync of device memory", cuMemPrefetchAsync(pointer, 1000, there, 0, nullptr));
    TELL("cuMemAdvise of device memory", cuMemAdvise(pointer, 1000, CU_MEM_ADVISE_SET_READ_MOSTLY, there));
    CHECK_DRIVER(cuMemFree(pointer));
    TELL("cuMemFree twice", cuMemFree(pointer));
}

static void pointers_and_pools() {
    unsigned kind;
    CUdeviceptr pointer;
    CUmemoryPool pool;
    uint64_t value;
    char handle[64];
    CUdeviceptr held;
    CHECK_DRIVER(cuMemAlloc(&held, 4096));
    TELL("cuPointerGetAttribute of a number", cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 4096));
    TELL("cuPointerGetAttribute of no attribute", cuPointerGetAttribute(&kind, static_cast<CUpointer_attribute>(999), held));
    TELL("cuPointerGetAttribute into null", cuPointerGetAttribute(nullptr, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, held));
    TELL("cuPointerSetAttribute that cannot be set", cuPointerSetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, held));
    TELL("cuMemPoolCreate without properties", cuMemPoolCreate(&pool, nullptr));
    TELL("cuDeviceGetDefaultMemPool of no device", cuDeviceGetDefaultMemPool(&pool, 99));
    CHECK_DRIVER(cuDeviceGetDefaultMemPool(&pool, device));
    TELL("cuMemPoolDestroy of the default pool", cuMemPoolDestroy(pool));
    TELL("cuMemPoolGetAttribute of no attribute", cuMemPoolGetAttribute(pool, static_cast<CUmemPool_attribute>(99), &value));
    TELL("cuMemPoolSetAttribute of a count", cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value));
    TELL("cuMemAllocAsync into null", cuMemAllocAsync(nullptr, 16, nullptr));
    TELL("cuMemFreeAsync of a number", cuMemFreeAsync(4096, nullptr));
    TELL("cuMemFreeAsync of null", cuMemFreeAsync(0, nullptr));
    TELL("cuMemPoolExportToShareableHandle of the default pool", cuMemPoolExportToShareableHandle(handle, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    CUipcMemHandle shared = {};
    TELL("cuIpcGetMemHandle of a number", cuIpcGetMemHandle(&shared, 4096));
    TELL("cuIpcOpenMemHandle of zeros", cuIpcOpenMemHandle(&pointer, shared, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    TELL("cuIpcCloseMemHandle of a number", cuIpcCloseMemHandle(4096));
    CHECK_DRIVER(cuMemFree(held));
}

static void virtual_memory() {
    CUdeviceptr pointer;
    CUmemGenericAllocationHandle handle;
    size_t granularity;
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    TELL("cuMemAddressReserve of an odd size", cuMemAddressReserve(&pointer, 1000, 0, 0, 0));
    TELL("cuMemAddressReserve of nothing", cuMemAddressReserve(&pointer, 0, 0, 0, 0));
    TELL("cuMemAddressReserve with flags", cuMemAddressReserve(&pointer, 2 << 20, 0, 0, 1));
    TELL("cuMemAddressFree of a number", cuMemAddressFree(4096, 2 << 20));
    TELL("cuMemCreate of an odd size", cuMemCreate(&handle, 1000, &properties, 0));
    TELL("cuMemCreate without properties", cuMemCreate(&handle, 2 << 20, nullptr, 0));
    TELL("cuMemRelease of nothing", cuMemRelease(0));
    TELL("cuMemMap of unreserved addresses", cuMemMap(size_t(1) << 40, 2 << 20, 0, 0, 0));
    TELL("cuMemUnmap of what is not mapped", cuMemUnmap(size_t(1) << 40, 2 << 20));
    TELL("cuMemGetAllocationGranularity without properties", cuMemGetAllocationGranularity(&granularity, nullptr, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    properties.location.id = 99;
    TELL("cuMemCreate on no device", cuMemCreate(&handle, 2 << 20, &properties, 0));
}

static void modules() {
    CUmodule module, other;
    CUfunction function;
    CUdeviceptr pointer;
    CUlibrary library;
    CUkernel kernel;
    CUlinkState link;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_ptx));
    TELL("cuModuleLoadData of null", cuModuleLoadData(&other, nullptr));
    TELL("cuModuleLoadData of nonsense", cuModuleLoadData(&other, "nonsense that is no image at all"));
    TELL("cuModuleLoadData of wrong PTX", cuModuleLoadData(&other, ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() { nonsense; }\n"));
    TELL("cuModuleLoadData of PTX from the future", cuModuleLoadData(&other, ".version 99.0\n.target sm_90\n.address_size 64\n.visible .entry k() { ret; }\n"));
    TELL("cuModuleLoadData of PTX for another device", cuModuleLoadData(&other, ".version 8.8\n.target sm_121\n.address_size 64\n.visible .entry k() { ret; }\n"));
    TELL("cuModuleLoad of no file", cuModuleLoad(&other, "/nonexistent/file.cubin"));
    TELL("cuModuleGetFunction of no kernel", cuModuleGetFunction(&function, module, "nothing"));
    TELL("cuModuleGetFunction of no name", cuModuleGetFunction(&function, module, nullptr));
    TELL("cuModuleGetFunction into null", cuModuleGetFunction(nullptr, module, "add"));
    TELL("cuModuleGetGlobal of no variable", cuModuleGetGlobal(&pointer, nullptr, module, "nothing"));
    TELL("cuModuleGetGlobal of a kernel", cuModuleGetGlobal(&pointer, nullptr, module, "add"));
    TELL("cuModuleGetGlobal without a name", cuModuleGetGlobal(&pointer, nullptr, module, nullptr));
    TELL("cuLibraryLoadData of null", cuLibraryLoadData(&library, nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0));
    TELL("cuLibraryLoadFromFile of no file", cuLibraryLoadFromFile(&library, "/nonexistent/file.cubin", nullptr, nullptr, 0, nullptr, nullptr, 0));
    CHECK_DRIVER(cuLibraryLoadData(&library, kernels_ptx, nullptr, nullptr, 0, nullptr, nullptr, 0));
    TELL("cuLibraryGetKernel of no kernel", cuLibraryGetKernel(&kernel, library, "nothing"));
    TELL("cuLibraryGetGlobal of no variable", cuLibraryGetGlobal(&pointer, nullptr, library, "nothing"));
    CHECK_DRIVER(cuLibraryUnload(library));
    CHECK_DRIVER(cuLinkCreate(0, nullptr, nullptr, &link));
    std::string wrong = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() { nonsense; }\n";
    TELL("cuLinkAddData of wrong PTX", cuLinkAddData(link, CU_JIT_INPUT_PTX, const_cast<char *>(wrong.c_str()), wrong.size() + 1, "wrong", 0, nullptr, nullptr));
    TELL("cuLinkAddFile of no file", cuLinkAddFile(link, CU_JIT_INPUT_CUBIN, "/nonexistent/file.cubin", 0, nullptr, nullptr));
    CHECK_DRIVER(cuLinkDestroy(link));
    CHECK_DRIVER(cuModuleUnload(module));
}

static void launches() {
    CUmodule module;
    CUfunction add, reverse;
    int value;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_ptx));
    CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
    CHECK_DRIVER(cuModuleGetFunction(&reverse, module, "reverse"));
    CUdeviceptr data;
    CHECK_DRIVER(cuMemAlloc(&data, 4096));
    int count = 0;
    void *parameters[] = {&data, &data, &data, &count};
    char packed[28] = {};
    size_t size = sizeof packed;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    void *unknown[] = {reinterpret_cast<void *>(77), packed, CU_LAUNCH_PARAM_END};
    TELL("cuLaunchKernel of no threads", cuLaunchKernel(add, 1, 1, 1, 0, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of no blocks", cuLaunchKernel(add, 0, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of 2048 threads", cuLaunchKernel(add, 1, 1, 1, 2048, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of 64 x 32 threads", cuLaunchKernel(add, 1, 1, 1, 64, 32, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of 65 planes of threads", cuLaunchKernel(add, 1, 1, 1, 1, 1, 65, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of 70000 rows of blocks", cuLaunchKernel(add, 1, 70000, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel of 2^31 blocks", cuLaunchKernel(add, 0x80000000u, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel with 1 MiB of shared memory", cuLaunchKernel(reverse, 1, 1, 1, 1, 1, 1, 1 << 20, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel with 64 KiB of shared memory unasked", cuLaunchKernel(reverse, 1, 1, 1, 1, 1, 1, 64 << 10, nullptr, parameters, nullptr));
    TELL("cuLaunchKernel without parameters", cuLaunchKernel(add, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    TELL("cuLaunchKernel with parameters twice", cuLaunchKernel(add, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, extra));
    TELL("cuLaunchKernel with unknown extras", cuLaunchKernel(add, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, unknown));
    TELL("cuLaunchKernel of null", cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    TELL("cuLaunchCooperativeKernel of too many blocks", cuLaunchCooperativeKernel(add, 1 << 20, 1, 1, 1024, 1, 1, 0, nullptr, parameters));
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = {2, 1, 1};
    CUlaunchConfig config = {};
    config.gridDimX = 3, config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = config.blockDimY = config.blockDimZ = 1;
    config.attrs = &attribute, config.numAttrs = 1;
    TELL("cuLaunchKernelEx with clusters that do not fit the grid", cuLaunchKernelEx(&config, add, parameters, nullptr));
    attribute.value.clusterDim = {64, 1, 1};
    config.gridDimX = 64;
    TELL("cuLaunchKernelEx with clusters of 64", cuLaunchKernelEx(&config, add, parameters, nullptr));
    TELL("cuLaunchKernelEx without a configuration", cuLaunchKernelEx(nullptr, add, parameters, nullptr));
    TELL("cuLaunchHostFunc of null", cuLaunchHostFunc(nullptr, nullptr, nullptr));
    TELL("cuFuncGetAttribute of no attribute", cuFuncGetAttribute(&value, static_cast<CUfunction_attribute>(999), add));
    TELL("cuFuncGetAttribute into null", cuFuncGetAttribute(nullptr, CU_FUNC_ATTRIBUTE_NUM_REGS, add));
    TELL("cuFuncSetAttribute of a constant", cuFuncSetAttribute(add, CU_FUNC_ATTRIBUTE_NUM_REGS, 1));
    TELL("cuFuncSetAttribute of too much shared memory", cuFuncSetAttribute(add, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20));
    TELL("cuFuncSetCacheConfig of no preference", cuFuncSetCacheConfig(add, static_cast<CUfunc_cache>(99)));
    TELL("cuOccupancyMaxActiveBlocksPerMultiprocessor of no threads", cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, add, 0, 0));
    CHECK_DRIVER(cuCtxSynchronize());
    CHECK_DRIVER(cuMemFree(data));
    CHECK_DRIVER(cuModuleUnload(module));
}

static void streams_and_events() {
    CUstream stream, other;
    CUevent first, second, untimed;
    float milliseconds;
    int priority;
    CUgraph graph;
    CUdeviceptr pointer;
    TELL("cuStreamCreate with unknown flags", cuStreamCreate(&stream, 0x100));
    TELL("cuStreamCreate into null", cuStreamCreate(nullptr, 0));
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuEventCreate(&first, 0));
    CHECK_DRIVER(cuEventCreate(&second, 0));
    CHECK_DRIVER(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
    TELL("cuStreamGetPriority into null", cuStreamGetPriority(stream, nullptr));
    TELL("cuStreamWaitEvent of null", cuStreamWaitEvent(stream, nullptr, 0));
    TELL("cuStreamWaitEvent with unknown flags", cuStreamWaitEvent(stream, first, 0x100));
    TELL("cuStreamAddCallback of null", cuStreamAddCallback(stream, nullptr, nullptr, 0));
    TELL("cuStreamAttachMemAsync of a number", cuStreamAttachMemAsync(stream, 4096, 0, CU_MEM_ATTACH_SINGLE));
    TELL("cuStreamDestroy of the legacy stream", cuStreamDestroy(CU_STREAM_LEGACY));
    TELL("cuStreamDestroy of null", cuStreamDestroy(nullptr));
    TELL("cuEventCreate with unknown flags", cuEventCreate(&second, 0x100));
    TELL("cuEventCreate for others with timing", cuEventCreate(&second, CU_EVENT_INTERPROCESS));
    TELL("cuEventQuery of null", cuEventQuery(nullptr));
    TELL("cuEventQuery of what was never recorded", cuEventQuery(first));
    TELL("cuEventRecord of null", cuEventRecord(nullptr, stream));
    TELL("cuEventDestroy of null", cuEventDestroy(nullptr));
    TELL("cuEventElapsedTime of what was never recorded", cuEventElapsedTime(&milliseconds, first, second));
    CHECK_DRIVER(cuEventRecord(untimed, stream));
    CHECK_DRIVER(cuEventRecord(first, stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    TELL("cuEventElapsedTime without timing", cuEventElapsedTime(&milliseconds, untimed, first));
    TELL("cuEventElapsedTime into null", cuEventElapsedTime(nullptr, first, first));
    TELL("cuStreamEndCapture of no capture", cuStreamEndCapture(stream, &graph));
    TELL("cuStreamBeginCapture of the legacy stream", cuStreamBeginCapture(CU_STREAM_LEGACY, CU_STREAM_CAPTURE_MODE_GLOBAL));
    TELL("cuStreamBeginCapture in no mode", cuStreamBeginCapture(stream, static_cast<CUstreamCaptureMode>(99)));
    CHECK_DRIVER(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    TELL("captured cuStreamBeginCapture", cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    TELL("captured cuStreamQuery", cuStreamQuery(stream));
    TELL("captured cuStreamEndCapture after that", cuStreamEndCapture(stream, &graph));
    CHECK_DRIVER(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    TELL("captured cuStreamSynchronize", cuStreamSynchronize(stream));
    TELL("captured cuStreamEndCapture after a synchronisation", cuStreamEndCapture(stream, &graph));
    CHECK_DRIVER(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    TELL("captured cuMemAlloc", cuMemAlloc(&pointer, 16));
    TELL("captured cuStreamEndCapture after an allocation", cuStreamEndCapture(stream, &graph));
    CHECK_DRIVER(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    CHECK_DRIVER(cuEventRecord(first, stream));
    CHECK_DRIVER(cuStreamWaitEvent(other, first, 0));
    TELL("captured cuEventSynchronize", cuEventSynchronize(first));
    cuStreamEndCapture(stream, &graph);
    CHECK_DRIVER(cuStreamDestroy(other));
    CHECK_DRIVER(cuStreamDestroy(stream));
    (void)priority;
}

static void graphs() {
    CUgraph graph, other;
    CUgraphNode node, second;
    CUgraphExec executable;
    CUgraphNodeType type;
    CHECK_DRIVER(cuGraphCreate(&graph, 0));
    CHECK_DRIVER(cuGraphAddEmptyNode(&node, graph, nullptr, 0));
    CHECK_DRIVER(cuGraphAddEmptyNode(&second, graph, &node, 1));
    TELL("cuGraphCreate with flags", cuGraphCreate(&other, 1));
    TELL("cuGraphCreate into null", cuGraphCreate(nullptr, 0));
    TELL("cuGraphAddKernelNode without parameters", cuGraphAddKernelNode(&node, graph, nullptr, 0, nullptr));
    TELL("cuGraphAddEmptyNode to null", cuGraphAddEmptyNode(&node, nullptr, nullptr, 0));
    TELL("cuGraphAddEmptyNode after null", cuGraphAddEmptyNode(&node, graph, nullptr, 1));
    TELL("cuGraphAddChildGraphNode of null", cuGraphAddChildGraphNode(&node, graph, nullptr, 0, nullptr));
    TELL("cuGraphAddDependencies twice", cuGraphAddDependencies(graph, &node, &second, nullptr, 1));
    TELL("cuGraphAddDependencies on itself", cuGraphAddDependencies(graph, &second, &second, nullptr, 1));
    TELL("cuGraphRemoveDependencies of none", cuGraphRemoveDependencies(graph, &second, &node, nullptr, 1));
    TELL("cuGraphInstantiate of null", cuGraphInstantiate(&executable, nullptr, 0));
    TELL("cuGraphInstantiate with unknown flags", cuGraphInstantiate(&executable, graph, 0x1000));
    TELL("cuGraphLaunch of null", cuGraphLaunch(nullptr, nullptr));
    TELL("cuGraphDestroy of null", cuGraphDestroy(nullptr));
    TELL("cuGraphExecDestroy of null", cuGraphExecDestroy(nullptr));
    TELL("cuGraphNodeGetType of null", cuGraphNodeGetType(nullptr, &type));
    TELL("cuGraphDestroyNode of null", cuGraphDestroyNode(nullptr));
    CHECK_DRIVER(cuGraphInstantiate(&executable, graph, 0));
    CHECK_DRIVER(cuGraphCreate(&other, 0));
    CUgraphExecUpdateResultInfo result = {};
    TELL("cuGraphExecUpdate to another shape", cuGraphExecUpdate(executable, other, &result));
    std::printf("the reason: %d\n", static_cast<int>(result.result));
    CHECK_DRIVER(cuGraphExecDestroy(executable));
    CHECK_DRIVER(cuGraphDestroy(other));
    CHECK_DRIVER(cuGraphDestroy(graph));
}

static void arrays_and_textures() {
    CUarray array;
    CUmipmappedArray pyramid;
    CUtexObject texture;
    CUsurfObject surface;
    CUDA_ARRAY_DESCRIPTOR shape = {16, 16, CU_AD_FORMAT_FLOAT, 1};
    CUDA_RESOURCE_DESC resource = {};
    CUDA_TEXTURE_DESC how = {};
    char host[1024] = {};
    TELL("cuArrayCreate without a shape", cuArrayCreate(&array, nullptr));
    shape.Width = 0;
    TELL("cuArrayCreate of nothing", cuArrayCreate(&array, &shape));
    shape.Width = 1 << 20;
    TELL("cuArrayCreate of too wide an array", cuArrayCreate(&array, &shape));
    shape.Width = 16, shape.NumChannels = 3;
    TELL("cuArrayCreate of three channels", cuArrayCreate(&array, &shape));
    shape.NumChannels = 1, shape.Format = static_cast<CUarray_format>(0x7f);
    TELL("cuArrayCreate of no format", cuArrayCreate(&array, &shape));
    shape.Format = CU_AD_FORMAT_FLOAT;
    TELL("cuArrayDestroy of null", cuArrayDestroy(nullptr));
    CHECK_DRIVER(cuArrayCreate(&array, &shape));
    TELL("cuTexObjectCreate without a resource", cuTexObjectCreate(&texture, nullptr, &how, nullptr));
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    TELL("cuTexObjectCreate of no array", cuTexObjectCreate(&texture, &resource, &how, nullptr));
    resource.res.array.hArray = array;
    TELL("cuTexObjectCreate without a description", cuTexObjectCreate(&texture, &resource, nullptr, nullptr));
    TELL("cuSurfObjectCreate of an array not meant for it", cuSurfObjectCreate(&surface, &resource));
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear = {};
    resource.res.linear.devPtr = 4096;
    resource.res.linear.format = CU_AD_FORMAT_FLOAT;
    resource.res.linear.numChannels = 1;
    resource.res.linear.sizeInBytes = 64;
    TELL("cuTexObjectCreate of a number", cuTexObjectCreate(&texture, &resource, &how, nullptr));
    TELL("cuTexObjectDestroy of null", cuTexObjectDestroy(0));
    CUDA_MEMCPY2D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST, copy.srcHost = host, copy.srcPitch = 8;
    copy.dstMemoryType = CU_MEMORYTYPE_ARRAY, copy.dstArray = array;
    copy.WidthInBytes = 16, copy.Height = 4;
    TELL("cuMemcpy2D with rows that overlap", cuMemcpy2D(&copy));
    copy.srcPitch = 64, copy.WidthInBytes = 65;
    TELL("cuMemcpy2D wider than the array", cuMemcpy2D(&copy));
    copy.WidthInBytes = 64, copy.Height = 17;
    TELL("cuMemcpy2D higher than the array", cuMemcpy2D(&copy));
    copy.Height = 4, copy.srcHost = nullptr;
    TELL("cuMemcpy2D from null", cuMemcpy2D(&copy));
    TELL("cuMemcpy2D of null", cuMemcpy2D(nullptr));
    CUDA_ARRAY3D_DESCRIPTOR solid = {16, 16, 0, CU_AD_FORMAT_FLOAT, 1, 0};
    CUarray level;
    TELL("cuMipmappedArrayCreate of no levels", cuMipmappedArrayCreate(&pyramid, &solid, 0));
    CHECK_DRIVER(cuMipmappedArrayCreate(&pyramid, &solid, 3));
    TELL("cuMipmappedArrayGetLevel beyond the last", cuMipmappedArrayGetLevel(&level, pyramid, 3));
    CHECK_DRIVER(cuMipmappedArrayDestroy(pyramid));
    solid = {16, 16, 4, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP};
    CUarray cube;
    TELL("cuArray3DCreate of a cube with four faces", cuArray3DCreate(&cube, &solid));
    CHECK_DRIVER(cuArrayDestroy(array));
}

// Calls after a fault: in a process of their own.
static int after_fault(const std::string &which) {
    CUmodule module;
    CUfunction store, stop;
    CUdeviceptr data, bad = 4096;
    CUstream stream;
    CHECK_DRIVER(cuModuleLoadData(&module, faults_ptx));
    CHECK_DRIVER(cuModuleGetFunction(&store, module, "store"));
    CHECK_DRIVER(cuModuleGetFunction(&stop, module, "stop"));
    CHECK_DRIVER(cuMemAlloc(&data, 64));
    CHECK_DRIVER(cuStreamCreate(&stream, 0));
    if (which == "misaligned") bad = data + 1;
    void *parameters[] = {&bad};
    CHECK_DRIVER(cuLaunchKernel(which == "trap" ? stop : store, 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr));
    auto tell = [&](const char *what, CUresult code) {
        std::printf("%s %s: %d\n", which.c_str(), what, static_cast<int>(code));
        std::fflush(stdout);
    };
    CUdeviceptr more;
    CUstream another;
    size_t bytes;
    tell("cuStreamSynchronize", cuStreamSynchronize(stream));
    tell("cuStreamQuery", cuStreamQuery(stream));
    tell("cuCtxSynchronize", cuCtxSynchronize());
    tell("cuMemAlloc", cuMemAlloc(&more, 16));
    tell("cuMemFree", cuMemFree(data));
    tell("cuMemcpyDtoH", cuMemcpyDtoH(&bytes, data, 4));
    tell("cuMemGetInfo", cuMemGetInfo(&bytes, &bytes));
    tell("cuStreamCreate", cuStreamCreate(&another, 0));
    tell("cuLaunchKernel", cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    tell("cuModuleLoadData", cuModuleLoadData(&module, faults_ptx));
    return 0;
}

static void start_again(const char *self, const char *which) {
    std::fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", self, which, nullptr);
        _exit(127);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        CHECK_DRIVER(cuInit(0));
        CHECK_DRIVER(cuDeviceGet(&device, 0));
        CHECK_DRIVER(cuCtxCreate(&context, nullptr, 0, device));
        return after_fault(argv[1]);
    }
    for (const char *which : {"address", "misaligned", "trap"}) start_again(argv[0], which);
    survive_crashes();
    before_initialisation();
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    without_context();
    CHECK_DRIVER(cuCtxCreate(&context, nullptr, 0, device));
    contexts();
    memory();
    pointers_and_pools();
    virtual_memory();
    modules();
    launches();
    streams_and_events();
    graphs();
    arrays_and_textures();
    CHECK_DRIVER(cuCtxDestroy(context));
    CUdeviceptr pointer;
    TELL("after cuCtxDestroy cuMemAlloc", cuMemAlloc(&pointer, 16));
    TELL("after cuCtxDestroy cuCtxSynchronize", cuCtxSynchronize());
    return pass();
}
