// Proves green contexts: the multiprocessors of a device split into groups, a context on one of them, kernels in its
// streams, what a stream says of its contexts, events of whole contexts, and what is refused.
#include <vector>

#include <cuda.h>

#include "common.h"
#include "kernels_fatbin.h"

int main() {
    CUdevice device;
    CUcontext primary;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&primary, device));
    CHECK_DRIVER(cuCtxSetCurrent(primary));
    int multiprocessors = 0;
    CHECK_DRIVER(cuDeviceGetAttribute(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device));
    CUdevResource all;
    CUresult can = cuDeviceGetDevResource(device, &all, CU_DEV_RESOURCE_TYPE_SM);
    if (can == CUDA_ERROR_NOT_SUPPORTED) {
        std::printf("waived: the device cannot be divided\n");
        return 2;
    }
    CHECK_DRIVER(can);
    REQUIRE(all.type == CU_DEV_RESOURCE_TYPE_SM && all.sm.smCount == static_cast<unsigned>(multiprocessors));

    // How many groups of at least eight, and then the groups.
    unsigned groups = 0;
    CHECK_DRIVER(cuDevSmResourceSplitByCount(nullptr, &groups, &all, nullptr, 0, 8));
    REQUIRE(groups >= 2 && groups <= all.sm.smCount / 8);
    unsigned two = 2;
    CUdevResource parts[2], rest;
    CHECK_DRIVER(cuDevSmResourceSplitByCount(parts, &two, &all, &rest, 0, 8));
    REQUIRE(two == 2 && parts[0].sm.smCount >= 8 && parts[0].sm.smCount == parts[1].sm.smCount);
    REQUIRE(parts[0].sm.smCount + parts[1].sm.smCount + rest.sm.smCount <= all.sm.smCount);
    std::printf("split\n");

    CUdevResourceDesc description;
    CUgreenCtx green;
    CUcontext context;
    CHECK_DRIVER(cuDevResourceGenerateDesc(&description, parts, 1));
    CHECK_DRIVER(cuGreenCtxCreate(&green, description, device, CU_GREEN_CTX_DEFAULT_STREAM));
    CUdevResource own;
    CHECK_DRIVER(cuGreenCtxGetDevResource(green, &own, CU_DEV_RESOURCE_TYPE_SM));
    REQUIRE(own.sm.smCount == parts[0].sm.smCount);
    CHECK_DRIVER(cuCtxFromGreenCtx(&context, green));
    REQUIRE(context != primary);
    CHECK_DRIVER(cuCtxSetCurrent(context));
    CHECK_DRIVER(cuCtxGetDevResource(context, &own, CU_DEV_RESOURCE_TYPE_SM));
    REQUIRE(own.sm.smCount == parts[0].sm.smCount);
    std::printf("a context on a part\n");

    // A kernel in a stream of the green context.
    CUstream stream;
    CHECK_DRIVER(cuGreenCtxStreamCreate(&stream, green, CU_STREAM_NON_BLOCKING, 0));
    CUgreenCtx told = nullptr;
    CHECK_DRIVER(cuStreamGetGreenCtx(stream, &told));
    REQUIRE(told == green);
    CUmodule module;
    CUfunction add;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_fatbin));
    CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
    const int count = 100000;
    std::vector<int> a(count), b(count);
    for (int i = 0; i < count; ++i) {
        a[i] = i;
        b[i] = 3 * i;
    }
    CUdeviceptr x, y, z;
    for (auto pointer : {&x, &y, &z}) CHECK_DRIVER(cuMemAlloc(pointer, count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoDAsync(x, a.data(), count * sizeof(int), stream));
    CHECK_DRIVER(cuMemcpyHtoDAsync(y, b.data(), count * sizeof(int), stream));
    int length = count;
    void *parameters[] = {&x, &y, &z, &length};
    CHECK_DRIVER(cuLaunchKernel(add, divide_up(count, 128), 1, 1, 128, 1, 1, 0, stream, parameters, nullptr));
    CUevent event;
    CHECK_DRIVER(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    CHECK_DRIVER(cuGreenCtxRecordEvent(green, event));
    CHECK_DRIVER(cuEventSynchronize(event));
    CHECK_DRIVER(cuMemcpyDtoHAsync(a.data(), z, count * sizeof(int), stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(a[i] == 4 * i + 7);
    CHECK_DRIVER(cuGreenCtxWaitEvent(green, event));
    std::printf("a kernel there\n");

    CUstream other;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuGreenCtxStreamCreate(&other, green, CU_STREAM_DEFAULT, 0));
    CUgreenCtx none;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuGreenCtxCreate(&none, description, device, 0));
    for (auto pointer : {x, y, z}) CHECK_DRIVER(cuMemFree(pointer));
    CHECK_DRIVER(cuEventDestroy(event));
    CHECK_DRIVER(cuModuleUnload(module));
    CHECK_DRIVER(cuStreamDestroy(stream));
    CHECK_DRIVER(cuCtxSetCurrent(primary));
    CHECK_DRIVER(cuGreenCtxDestroy(green));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
