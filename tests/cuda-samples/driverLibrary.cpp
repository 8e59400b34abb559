// Proves the context-independent part of the driver API: cuLibraryLoadData before any context exists, kernels,
// globals, kernel attributes and names, launching a CUkernel directly, the function and the module behind it in the
// primary context, cuLaunchKernelEx with attributes, enumeration and unloading.
#include <algorithm>
#include <string>
#include <vector>

#include <cuda.h>

#include "common.h"
#include "kernels_fatbin.h"

int main() {
    CUdevice device;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CUlibrary library;
    CHECK_DRIVER(cuLibraryLoadData(&library, kernels_fatbin, nullptr, nullptr, 0, nullptr, nullptr, 0));
    CUkernel add, reverse, absent;
    CHECK_DRIVER(cuLibraryGetKernel(&add, library, "add"));
    CHECK_DRIVER(cuLibraryGetKernel(&reverse, library, "reverse"));
    EXPECT_DRIVER(CUDA_ERROR_NOT_FOUND, cuLibraryGetKernel(&absent, library, "no_such_kernel"));

    unsigned kernels = 0;
    CHECK_DRIVER(cuLibraryGetKernelCount(&kernels, library));
    std::vector<CUkernel> all(kernels);
    CHECK_DRIVER(cuLibraryEnumerateKernels(all.data(), kernels, library));
    std::vector<std::string> names;
    for (CUkernel kernel : all) {
        const char *name = nullptr;
        CHECK_DRIVER(cuKernelGetName(&name, kernel));
        names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    for (const std::string &name : names) std::printf("kernel %s\n", name.c_str());
    REQUIRE((names == std::vector<std::string>{"add", "mixed", "reverse"}));

    CUcontext context;
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));

    CUdeviceptr offset;
    size_t size = 0;
    CHECK_DRIVER(cuLibraryGetGlobal(&offset, &size, library, "offset"));
    REQUIRE(size == sizeof(int));
    int five = 5;
    CHECK_DRIVER(cuMemcpyHtoD(offset, &five, sizeof(five)));

    const int count = 512;
    std::vector<int> a(count), b(count), c(count);
    for (int i = 0; i < count; ++i) {
        a[i] = i;
        b[i] = 10 * i;
    }
    CUdeviceptr device_a, device_b, device_c;
    for (CUdeviceptr *pointer : {&device_a, &device_b, &device_c}) CHECK_DRIVER(cuMemAlloc(pointer, count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(device_a, a.data(), count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(device_b, b.data(), count * sizeof(int)));
    int length = count;
    void *parameters[] = {&device_a, &device_b, &device_c, &length};
    // A CUkernel may stand where a CUfunction is expected; it means the function in the current context.
    CHECK_DRIVER(cuLaunchKernel(reinterpret_cast<CUfunction>(add), 4, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), device_c, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(c[i] == 11 * i + 5);
    std::printf("launched as CUkernel\n");

    CUfunction function;
    CUmodule module;
    CHECK_DRIVER(cuKernelGetFunction(&function, add));
    CHECK_DRIVER(cuMemsetD8(device_c, 0, count * sizeof(int)));
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
    attribute.value.priority = 0;
    CUlaunchConfig config = {};
    config.gridDimX = 2;
    config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = 256;
    config.blockDimY = config.blockDimZ = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    CHECK_DRIVER(cuLaunchKernelEx(&config, function, parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), device_c, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(c[i] == 11 * i + 5);
    std::printf("launched as CUfunction with an attribute\n");

    // The module behind the library shares its globals.
    CHECK_DRIVER(cuLibraryGetModule(&module, library));
    CUdeviceptr same;
    CHECK_DRIVER(cuModuleGetGlobal(&same, &size, module, "offset"));
    REQUIRE(same == offset);
    CUfunction from_module;
    CHECK_DRIVER(cuModuleGetFunction(&from_module, module, "add"));
    CHECK_DRIVER(cuLaunchKernel(from_module, 4, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK_DRIVER(cuCtxSynchronize());
    CUdeviceptr calls;
    int call_count = 0;
    CHECK_DRIVER(cuLibraryGetGlobal(&calls, &size, library, "calls"));
    CHECK_DRIVER(cuMemcpyDtoH(&call_count, calls, sizeof(call_count)));
    std::printf("calls %d\n", call_count);
    REQUIRE(call_count == 3);

    int threads = 0, bound = -1;
    CHECK_DRIVER(cuKernelGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add, device));
    REQUIRE(threads >= 256);
    CHECK_DRIVER(cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 * 1024, reverse, device));
    CHECK_DRIVER(cuKernelGetAttribute(&bound, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, reverse, device));
    REQUIRE(bound == 64 * 1024);

    // Parameter layout of a kernel, as CUDA 12.4 and later report it.
    size_t parameter_offset = 99, parameter_size = 99;
    CHECK_DRIVER(cuKernelGetParamInfo(add, 3, &parameter_offset, &parameter_size));
    REQUIRE(parameter_offset == 24 && parameter_size == 4);
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuKernelGetParamInfo(add, 4, &parameter_offset, &parameter_size));

    for (CUdeviceptr pointer : {device_a, device_b, device_c}) CHECK_DRIVER(cuMemFree(pointer));
    CHECK_DRIVER(cuLibraryUnload(library));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
