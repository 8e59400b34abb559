// Calls what other programs do not: devices, contexts in all their forms, green contexts, functions and libraries, linking
// by the older names, the profiler. Prints every answer.
#include <algorithm>

#include <unistd.h>

#include "tell.h"

#include "kernels_ptx.h"

static void devices(const Setting &it) {
    unsigned words[16] = {}, operations[] = {0, 1};
    int value = -1, other = -1;
    size_t bytes = 0;
    char luid[16] = {};
    CUuuid uuid;
    void *address = nullptr;
    CUdevprop properties = {};
    ROW("cuGetProcAddress", "cuMemAlloc", &address, 12000, cuuint64_t(0));
    std::printf("found: %d\n", address != nullptr);
    ROW("cuDeviceGetUuid_v2", &uuid, it.device);
    ROW("cuDeviceGetLuid", static_cast<char *>(luid), &words[0], it.device);
    ROW("cuDeviceTotalMem", &words[0], it.device);
    ROW("cuDeviceGetTexture1DLinearMaxWidth", &bytes, CU_AD_FORMAT_FLOAT, 1u, it.device);
    ROW("cuDeviceGetHostAtomicCapabilities", &words[0], &operations[0], 2u, it.device);
    ROW("cuDeviceGetP2PAtomicCapabilities", &words[0], &operations[0], 2u, it.device, it.device);
    ROW("cuDeviceGetExecAffinitySupport", &value, CU_EXEC_AFFINITY_TYPE_SM_COUNT, it.device);
    ROW("cuFlushGPUDirectRDMAWrites", CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
    ROW("cuDeviceGetProperties", &properties, it.device);
    std::printf("threads: %d, warp: %d\n", properties.maxThreadsPerBlock, properties.SIMDWidth);
    ROW("cuDeviceComputeCapability", &value, &other, it.device);
    std::printf("capability: %d.%d\n", value, other);
    ROW("cuDeviceGetP2PAttribute", &value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, it.device, it.device);
}

static void primary(const Setting &it) {
    unsigned flags = 77;
    int active = 77;
    CUcontext held;
    ROW("cuDevicePrimaryCtxSetFlags", it.device, static_cast<unsigned>(CU_CTX_SCHED_BLOCKING_SYNC));
    ROW("cuDevicePrimaryCtxGetState", it.device, &flags, &active);
    std::printf("flags: %u, active: %d\n", flags, active);
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&held, it.device));
    ROW("cuDevicePrimaryCtxGetState", it.device, &flags, &active);
    std::printf("active: %d\n", active);
    ROW("cuDevicePrimaryCtxRelease", it.device);
    ROW("cuDevicePrimaryCtxReset_v2", it.device);
    ROW("cuDevicePrimaryCtxSetFlags", it.device, 0u);
}

static void contexts(const Setting &it) {
    CUcontext made = nullptr, current = nullptr;
    unsigned flags = 77;
    unsigned long long id = 0, second = 0;
    CUsharedconfig banks;
    CUfunc_cache cache;
    CUexecAffinityParam affinity = {};
    ROW("cuCtxCreate_v2", &made, 0u, it.device);
    ROW("cuCtxPopCurrent", &current);
    std::printf("popped: %d\n", current == made);
    ROW("cuCtxPushCurrent", made);
    ROW("cuCtxDestroy", made);
    ROW("cuCtxCreate_v3", &made, static_cast<CUexecAffinityParam *>(nullptr), 0, 0u, it.device);
    ROW("cuCtxDestroy_v2", made);
    CHECK_DRIVER(cuCtxSetCurrent(it.context));
    ROW("cuCtxGetFlags", &flags);
    ROW("cuCtxSetFlags", static_cast<unsigned>(CU_CTX_SCHED_YIELD));
    ROW("cuCtxGetFlags", &flags);
    ROW("cuCtxGetId", it.context, &id);
    ROW("cuCtxGetId", static_cast<CUcontext>(nullptr), &second);
    std::printf("the same: %d\n", id == second);
    ROW("cuCtxGetCacheConfig", &cache);
    ROW("cuCtxResetPersistingL2Cache");
    ROW("cuCtxGetExecAffinity", &affinity, CU_EXEC_AFFINITY_TYPE_SM_COUNT);
    ROW("cuCtxGetSharedMemConfig", &banks);
    ROW("cuCtxSetSharedMemConfig", banks);
    ROW("cuCtxAttach", &made, 0u);
    std::printf("attached: %d\n", made == it.context);
    ROW("cuCtxDetach", made);
    CUevent event;
    CHECK_DRIVER(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    ROW("cuCtxRecordEvent", it.context, event);
    ROW("cuCtxWaitEvent", it.context, event);
    CHECK_DRIVER(cuCtxSynchronize());
    CHECK_DRIVER(cuEventDestroy(event));
}

static void green(const Setting &it) {
    CUdevResource whole = {}, parts[2] = {}, rest = {}, again = {};
    CUdevResourceDesc description = nullptr;
    unsigned count = 1;
    CUgreenCtx part = nullptr, owner = nullptr;
    CUcontext context = nullptr;
    CUstream stream = nullptr;
    CUevent event = nullptr;
    unsigned long long id = 0;
    CHECK_DRIVER(cuCtxSetCurrent(it.context));
    quiet = cuDeviceGetDevResource(it.device, &whole, CU_DEV_RESOURCE_TYPE_SM) == CUDA_ERROR_NOT_SUPPORTED;
    std::printf("the device can be divided: %d\n", !quiet);
    MAYBE("cuCtxGetDevResource", it.context, &whole, CU_DEV_RESOURCE_TYPE_SM);
    MAYBE("cuDevSmResourceSplitByCount", &parts[0], &count, static_cast<const CUdevResource *>(&whole), &rest, 0u, 8u);
    MAYBE("cuDevResourceGenerateDesc", &description, &parts[0], 1u);
    MAYBE("cuGreenCtxCreate", &part, description, it.device, static_cast<unsigned>(CU_GREEN_CTX_DEFAULT_STREAM));
    MAYBE("cuGreenCtxGetDevResource", part, &again, CU_DEV_RESOURCE_TYPE_SM);
    MAYBE("cuCtxFromGreenCtx", &context, part);
    MAYBE("cuGreenCtxStreamCreate", &stream, part, static_cast<unsigned>(CU_STREAM_NON_BLOCKING), 0);
    MAYBE("cuStreamGetGreenCtx", stream, &owner);
    std::printf("its own: %d\n", owner == part);
    MAYBE("cuGreenCtxGetId", part, &id);
    if (!quiet) {
        CHECK_DRIVER(cuCtxSetCurrent(context));
        CHECK_DRIVER(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    }
    MAYBE("cuGreenCtxRecordEvent", part, event);
    MAYBE("cuGreenCtxWaitEvent", part, event);
    if (!quiet) {
        CHECK_DRIVER(cuEventSynchronize(event));
        CHECK_DRIVER(cuEventDestroy(event));
        CHECK_DRIVER(cuStreamDestroy(stream));
        CHECK_DRIVER(cuCtxSetCurrent(it.context));
    }
    MAYBE("cuGreenCtxDestroy", part);
    quiet = false;
}

static void functions(const Setting &it) {
    unsigned count = 0;
    CUfunction functions[8] = {};
    CUmodule owner = nullptr;
    const char *name = nullptr;
    size_t offset = 77, bytes = 77, room = 0;
    CUfunctionLoadingState state;
    int blocks = 0, threads = 0, clusters = 0;
    ROW("cuModuleGetFunctionCount", &count, it.module);
    std::printf("functions: %u\n", count);
    ROW("cuModuleEnumerateFunctions", &functions[0], std::min(count, 8u), it.module);
    ROW("cuFuncGetModule", &owner, it.add);
    std::printf("its own: %d\n", owner == it.module);
    ROW("cuFuncGetName", &name, it.add);
    std::printf("name: %s\n", name ? name : "none");
    ROW("cuFuncGetParamInfo", it.mixed, size_t(3), &offset, &bytes);
    std::printf("parameter: %zu bytes at %zu\n", bytes, offset);
    ROW("cuFuncLoad", it.add);
    ROW("cuFuncIsLoaded", &state, it.add);
    std::printf("loaded: %d\n", static_cast<int>(state));
    ROW("cuFuncSetSharedMemConfig", it.add, CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE);
    ROW("cuParamSetf", it.mixed, 0, 1.5f);
    ROW("cuOccupancyMaxPotentialBlockSize", &blocks, &threads, it.add, static_cast<CUoccupancyB2DSize>(nullptr), size_t(0), 0);
    ROW("cuOccupancyMaxPotentialBlockSizeWithFlags", &blocks, &threads, it.add, static_cast<CUoccupancyB2DSize>(nullptr), size_t(0), 0, 0u);
    ROW("cuOccupancyAvailableDynamicSMemPerBlock", &room, it.add, 1, 256);
    CUlaunchConfig config = {};
    config.gridDimX = 8, config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = 64, config.blockDimY = config.blockDimZ = 1;
    ROW("cuOccupancyMaxPotentialClusterSize", &clusters, it.add, static_cast<const CUlaunchConfig *>(&config));
    CUlaunchAttribute cluster = {};
    cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster.value.clusterDim = {1, 1, 1};
    config.attrs = &cluster, config.numAttrs = 1;
    ROW("cuOccupancyMaxActiveClusters", &clusters, it.add, static_cast<const CUlaunchConfig *>(&config));
    CUtexref texture = nullptr;
    CUsurfref surface = nullptr;
    quiet = true;
    MAYBE("cuModuleGetTexRef", &texture, it.module, "nothing");
    quiet = true;
    MAYBE("cuModuleGetSurfRef", &surface, it.module, "nothing");
    quiet = false;
}

static void libraries(const Setting &it) {
    CUlibrary library, owner = nullptr;
    CUkernel kernel;
    CHECK_DRIVER(cuLibraryLoadData(&library, kernels_ptx, nullptr, nullptr, 0, nullptr, nullptr, 0));
    CHECK_DRIVER(cuLibraryGetKernel(&kernel, library, "add"));
    ROW("cuKernelGetLibrary", &owner, kernel);
    std::printf("its own: %d\n", owner == library);
    ROW("cuKernelSetCacheConfig", kernel, CU_FUNC_CACHE_PREFER_L1, it.device);
    CHECK_DRIVER(cuLibraryUnload(library));

    CUlinkState link = nullptr;
    void *image = nullptr;
    size_t bytes = 0;
    std::string text(reinterpret_cast<const char *>(kernels_ptx));
    ROW("cuLinkCreate", 0u, static_cast<CUjit_option *>(nullptr), static_cast<void **>(nullptr), &link);
    ROW("cuLinkAddData", link, CU_JIT_INPUT_PTX, static_cast<void *>(text.data()), text.size() + 1, "kernels", 0u, static_cast<CUjit_option *>(nullptr), static_cast<void **>(nullptr));
    ROW("cuLinkAddFile", link, CU_JIT_INPUT_PTX, "/nonexistent/file.ptx", 0u, static_cast<CUjit_option *>(nullptr), static_cast<void **>(nullptr));
    TELL("cuLinkComplete", cuLinkComplete(link, &image, &bytes));
    CHECK_DRIVER(cuLinkDestroy(link));
}

int main() {
    Setting it(kernels_ptx);
    devices(it);
    contexts(it);
    green(it);
    functions(it);
    libraries(it);
    quiet = true;
    MAYBE("cuProfilerInitialize", "nothing", "nothing", 0);
    ROW("cuProfilerStart");
    ROW("cuProfilerStop");
    CHECK_DRIVER(cuCtxDestroy(it.context));
    primary(it);
    return pass();
}
