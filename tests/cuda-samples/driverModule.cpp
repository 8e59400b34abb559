// Proves the driver API without any runtime: a context of its own, modules from PTX, cubin and fat binary images,
// globals, launches by kernelParams and by the packed buffer of `extra`, dynamic shared memory, memory operations,
// streams and events, function attributes, JIT options with a log, and the errors of wrong names and broken images.
#include <string>
#include <vector>

#include <cuda.h>

#include "common.h"
#include "kernels_cubin.h"
#include "kernels_fatbin.h"
#include "kernels_ptx.h"

static void run_module(const char *name, CUmodule module) {
    const int count = 1000;
    CUfunction add, mixed, reverse;
    CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
    CHECK_DRIVER(cuModuleGetFunction(&mixed, module, "mixed"));
    CHECK_DRIVER(cuModuleGetFunction(&reverse, module, "reverse"));
    CUfunction absent;
    EXPECT_DRIVER(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&absent, module, "no_such_kernel"));

    CUdeviceptr offset, calls;
    size_t offset_size = 0, calls_size = 0;
    CHECK_DRIVER(cuModuleGetGlobal(&offset, &offset_size, module, "offset"));
    CHECK_DRIVER(cuModuleGetGlobal(&calls, &calls_size, module, "calls"));
    CUdeviceptr nothing;
    EXPECT_DRIVER(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal(&nothing, nullptr, module, "no_such_global"));
    REQUIRE(offset_size == sizeof(int) && calls_size == sizeof(int));
    int seven = 0, thousand = 1000;
    CHECK_DRIVER(cuMemcpyDtoH(&seven, offset, sizeof(int)));
    REQUIRE(seven == 7);

    std::vector<int> a(count), b(count), c(count);
    for (int i = 0; i < count; ++i) {
        a[i] = i;
        b[i] = 2 * i;
    }
    size_t size = count * sizeof(int);
    CUdeviceptr device_a, device_b, device_c;
    CHECK_DRIVER(cuMemAlloc(&device_a, size));
    CHECK_DRIVER(cuMemAlloc(&device_b, size));
    CHECK_DRIVER(cuMemAlloc(&device_c, size));
    CHECK_DRIVER(cuMemcpyHtoD(device_a, a.data(), size));
    CHECK_DRIVER(cuMemcpyHtoD(device_b, b.data(), size));
    CHECK_DRIVER(cuMemsetD32(device_c, 0xdeadbeef, count));

    int length = count;
    void *parameters[] = {&device_a, &device_b, &device_c, &length};
    CHECK_DRIVER(cuLaunchKernel(add, divide_up(count, 128), 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), device_c, size));
    for (int i = 0; i < count; ++i) REQUIRE(c[i] == 3 * i + 7);

    // The same by a packed argument buffer, half the length, after the constant has changed.
    CHECK_DRIVER(cuMemcpyHtoD(offset, &thousand, sizeof(int)));
    struct {
        CUdeviceptr a, b, c;
        int count;
    } packed = {device_a, device_b, device_c, count / 2};
    size_t packed_size = sizeof(CUdeviceptr) * 3 + sizeof(int);
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &packed_size, CU_LAUNCH_PARAM_END};
    CHECK_DRIVER(cuLaunchKernel(add, divide_up(count, 128), 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), device_c, size));
    for (int i = 0; i < count; ++i) REQUIRE(c[i] == 3 * i + (i < count / 2 ? 1000 : 7));
    int call_count = 0;
    CHECK_DRIVER(cuMemcpyDtoH(&call_count, calls, sizeof(int)));
    REQUIRE(call_count == 2);

    char small = -3;
    double fraction = 2.25;
    short medium = -300;
    struct {
        char tag;
        double value;
    } pair = {'p', 0.125};
    float single = 1.5f;
    long long values[6] = {};
    CUdeviceptr out;
    CHECK_DRIVER(cuMemAlloc(&out, sizeof(values)));
    void *mixed_parameters[] = {&small, &fraction, &medium, &pair, &single, &out};
    CHECK_DRIVER(cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, nullptr, mixed_parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(values, out, sizeof(values)));
    REQUIRE(values[0] == -3 && values[1] == 9 && values[2] == -300 && values[3] == 'p' && values[4] == 1 && values[5] == 24);

    CUstream stream;
    CUevent begin, end;
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuEventCreate(&begin, CU_EVENT_DEFAULT));
    CHECK_DRIVER(cuEventCreate(&end, CU_EVENT_DEFAULT));
    CHECK_DRIVER(cuEventRecord(begin, stream));
    CHECK_DRIVER(cuMemcpyHtoDAsync(device_a, a.data(), 256 * sizeof(int), stream));
    void *reverse_parameters[] = {&device_a};
    CHECK_DRIVER(cuLaunchKernel(reverse, 1, 1, 1, 256, 1, 1, 256 * sizeof(int), stream, reverse_parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoHAsync(c.data(), device_a, 256 * sizeof(int), stream));
    CHECK_DRIVER(cuEventRecord(end, stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuStreamQuery(stream));
    CHECK_DRIVER(cuEventQuery(end));
    float milliseconds = -1;
    CHECK_DRIVER(cuEventElapsedTime(&milliseconds, begin, end));
    REQUIRE(milliseconds >= 0);
    for (int i = 0; i < 256; ++i) REQUIRE(c[i] == 255 - i);

    int most = 0, shared = -1;
    CHECK_DRIVER(cuFuncGetAttribute(&most, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add));
    CHECK_DRIVER(cuFuncGetAttribute(&shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, reverse));
    REQUIRE(most >= 256 && shared == 0);
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE,
                  cuLaunchKernel(add, 1, 1, 1, 1025, 1, 1, 0, nullptr, parameters, nullptr));
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(add, 0, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr));

    CHECK_DRIVER(cuEventDestroy(begin));
    CHECK_DRIVER(cuEventDestroy(end));
    CHECK_DRIVER(cuStreamDestroy(stream));
    for (CUdeviceptr pointer : {device_a, device_b, device_c, out}) CHECK_DRIVER(cuMemFree(pointer));
    std::printf("%s: add, mixed, reverse\n", name);
}

int main() {
    int version = 0, devices = 0;
    EXPECT_DRIVER(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&devices));
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDriverGetVersion(&version));
    REQUIRE(version >= 13000);
    CHECK_DRIVER(cuDeviceGetCount(&devices));
    REQUIRE(devices >= 1);
    CUdevice device;
    CUcontext context, current = nullptr;
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CUdeviceptr nowhere;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&nowhere, 16));
    CHECK_DRIVER(cuCtxCreate(&context, nullptr, 0, device));
    CHECK_DRIVER(cuCtxGetCurrent(&current));
    REQUIRE(current == context);

    CUmodule module;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_fatbin));
    run_module("fat binary", module);
    CHECK_DRIVER(cuModuleUnload(module));

    CHECK_DRIVER(cuModuleLoadFatBinary(&module, kernels_fatbin));
    run_module("fat binary by cuModuleLoadFatBinary", module);
    CHECK_DRIVER(cuModuleUnload(module));

    // Machine code runs on the device that it was made for; any other says so. A fat binary has PTX for those.
    CUresult loaded = cuModuleLoadData(&module, kernels_cubin);
    if (loaded == CUDA_ERROR_NO_BINARY_FOR_GPU) {
        std::printf("cubin: not for this device\n");
    } else {
        CHECK_DRIVER(loaded);
        run_module("cubin", module);
        CHECK_DRIVER(cuModuleUnload(module));
    }

    // PTX with options: both logs and a target from the context.
    char info[4096] = "", errors[4096] = "";
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                              CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_TARGET_FROM_CUCONTEXT};
    void *values[] = {info, reinterpret_cast<void *>(sizeof(info)), errors, reinterpret_cast<void *>(sizeof(errors)), nullptr};
    std::string ptx(reinterpret_cast<const char *>(kernels_ptx), sizeof(kernels_ptx));
    CHECK_DRIVER(cuModuleLoadDataEx(&module, ptx.c_str(), 5, options, values));
    run_module("PTX", module);
    CHECK_DRIVER(cuModuleUnload(module));

    values[1] = reinterpret_cast<void *>(sizeof(info));
    values[3] = reinterpret_cast<void *>(sizeof(errors));
    CUresult result = cuModuleLoadDataEx(&module, ".version 8.0\n.target sm_90\n.address_size 64\nnonsense here;\n", 4, options, values);
    std::printf("broken PTX: %d, a message: %s\n", static_cast<int>(result), errors[0] ? "yes" : "no");
    REQUIRE(result == CUDA_ERROR_INVALID_PTX && errors[0]);
    result = cuModuleLoadData(&module, "no image at all");
    std::printf("no image: %d\n", static_cast<int>(result));
    REQUIRE(result != CUDA_SUCCESS);

    const char *name = nullptr, *text = nullptr;
    CHECK_DRIVER(cuGetErrorName(CUDA_ERROR_INVALID_PTX, &name));
    CHECK_DRIVER(cuGetErrorString(CUDA_ERROR_INVALID_PTX, &text));
    REQUIRE(!std::strcmp(name, "CUDA_ERROR_INVALID_PTX") && text && *text);

    // The context stack.
    CUcontext popped = nullptr;
    CHECK_DRIVER(cuCtxPopCurrent(&popped));
    REQUIRE(popped == context);
    CHECK_DRIVER(cuCtxGetCurrent(&current));
    REQUIRE(current == nullptr);
    EXPECT_DRIVER(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&nowhere, 16));
    CHECK_DRIVER(cuCtxPushCurrent(context));
    CHECK_DRIVER(cuMemAlloc(&nowhere, 16));
    CHECK_DRIVER(cuMemFree(nowhere));
    CHECK_DRIVER(cuCtxSynchronize());
    CHECK_DRIVER(cuCtxDestroy(context));
    CHECK_DRIVER(cuCtxGetCurrent(&current));
    REQUIRE(current == nullptr);
    return pass();
}
