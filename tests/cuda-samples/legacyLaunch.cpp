// Proves the launch interface of CUDA 3: block shape, shared size and parameters set one by one on the function, launched on
// a grid of one block, on a grid and in a stream; and what is refused.
#include <vector>

#define CUDA_ENABLE_DEPRECATED
#include <cuda.h>

#include "common.h"
#include "kernels_fatbin.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

int main() {
    CUdevice device;
    CUcontext context;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));
    CUmodule module;
    CUfunction add, reverse;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_fatbin));
    CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
    CHECK_DRIVER(cuModuleGetFunction(&reverse, module, "reverse"));

    const int count = 1000;
    std::vector<int> a(count), b(count);
    for (int i = 0; i < count; ++i) {
        a[i] = i;
        b[i] = 5 * i;
    }
    CUdeviceptr x, y, z;
    for (auto pointer : {&x, &y, &z}) CHECK_DRIVER(cuMemAlloc(pointer, count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(x, a.data(), count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(y, b.data(), count * sizeof(int)));

    CHECK_DRIVER(cuFuncSetBlockShape(add, 128, 1, 1));
    int offset = 0;
    for (auto pointer : {&x, &y, &z}) {
        CHECK_DRIVER(cuParamSetv(add, offset, pointer, sizeof *pointer));
        offset += sizeof *pointer;
    }
    CHECK_DRIVER(cuParamSeti(add, offset, count));
    CHECK_DRIVER(cuParamSetSize(add, offset + sizeof(int)));
    // No texture reference is none.
    REQUIRE(cuParamSetTexRef(add, CU_PARAM_TR_DEFAULT, nullptr) != CUDA_SUCCESS);
    CHECK_DRIVER(cuLaunchGrid(add, divide_up(count, 128), 1));
    CHECK_DRIVER(cuMemcpyDtoH(a.data(), z, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(a[i] == 6 * i + 7);
    std::printf("a grid\n");

    // What was set stays; only the length changes.
    CUstream stream;
    CHECK_DRIVER(cuStreamCreate(&stream, 0));
    CHECK_DRIVER(cuMemsetD32(z, 0, count));
    CHECK_DRIVER(cuParamSeti(add, offset, count / 2));
    CHECK_DRIVER(cuLaunchGridAsync(add, divide_up(count, 128), 1, stream));
    CHECK_DRIVER(cuMemcpyDtoHAsync(a.data(), z, count * sizeof(int), stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(a[i] == (i < count / 2 ? 6 * i + 7 : 0));
    std::printf("in a stream\n");

    const int threads = 64;
    CHECK_DRIVER(cuFuncSetBlockShape(reverse, threads, 1, 1));
    CHECK_DRIVER(cuFuncSetSharedSize(reverse, threads * sizeof(int)));
    CHECK_DRIVER(cuParamSetv(reverse, 0, &y, sizeof y));
    CHECK_DRIVER(cuParamSetSize(reverse, sizeof y));
    CHECK_DRIVER(cuLaunch(reverse));
    CHECK_DRIVER(cuMemcpyDtoH(a.data(), y, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(a[i] == (i < threads ? 5 * (threads - 1 - i) : 5 * i));
    std::printf("one block with shared memory\n");

    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuFuncSetBlockShape(add, 0, 1, 1));
    CHECK_DRIVER(cuStreamDestroy(stream));
    for (auto pointer : {x, y, z}) CHECK_DRIVER(cuMemFree(pointer));
    CHECK_DRIVER(cuModuleUnload(module));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
