// Proves the driver API's virtual memory management: granularity, physical allocations mapped side by side into one
// reserved range, use by copies and kernels across the seam, growing, access rights, remapping and release.
#include <vector>

#include <cuda.h>

#include "common.h"
#include "kernels_fatbin.h"

int main() {
    CUdevice device;
    CUcontext context;
    int supported = 0;
    CHECK_DRIVER(cuInit(0));
    CHECK_DRIVER(cuDeviceGet(&device, 0));
    CHECK_DRIVER(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device));
    if (!supported) {
        std::printf("waived: the device has no virtual memory management\n");
        return 2;
    }
    CHECK_DRIVER(cuDevicePrimaryCtxRetain(&context, device));
    CHECK_DRIVER(cuCtxSetCurrent(context));
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    size_t granularity = 0;
    CHECK_DRIVER(cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    std::printf("granularity %zu\n", granularity);
    REQUIRE(granularity >= 4096 && (granularity & (granularity - 1)) == 0);
    CUmemGenericAllocationHandle physical[3];
    CUdeviceptr range = 0;
    CHECK_DRIVER(cuMemAddressReserve(&range, 4 * granularity, 0, 0, 0));
    REQUIRE(range % granularity == 0);
    for (auto &handle : physical) CHECK_DRIVER(cuMemCreate(&handle, granularity, &properties, 0));
    CUmemGenericAllocationHandle odd;
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemCreate(&odd, granularity + 1, &properties, 0));

    // Two pieces side by side; nothing is readable before the access is set.
    CHECK_DRIVER(cuMemMap(range, granularity, 0, physical[0], 0));
    CHECK_DRIVER(cuMemMap(range + granularity, granularity, 0, physical[1], 0));
    CUmemAccessDesc access = {};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CHECK_DRIVER(cuMemSetAccess(range, 2 * granularity, &access, 1));
    unsigned long long rights = 0;
    CHECK_DRIVER(cuMemGetAccess(&rights, &properties.location, range));
    REQUIRE(rights == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);

    // A kernel and copies across the seam.
    const int count = 2000;
    CUdeviceptr seam = range + granularity - count / 2 * sizeof(int), operand, result;
    std::vector<int> a(count), b(count), c(count);
    for (int i = 0; i < count; ++i) {
        a[i] = 5 * i;
        b[i] = i;
    }
    CHECK_DRIVER(cuMemAlloc(&operand, count * sizeof(int)));
    CHECK_DRIVER(cuMemAlloc(&result, count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(seam, a.data(), count * sizeof(int)));
    CHECK_DRIVER(cuMemcpyHtoD(operand, b.data(), count * sizeof(int)));
    CUmodule module;
    CUfunction add;
    CHECK_DRIVER(cuModuleLoadData(&module, kernels_fatbin));
    CHECK_DRIVER(cuModuleGetFunction(&add, module, "add"));
    int length = count;
    void *parameters[] = {&seam, &operand, &result, &length};
    CHECK_DRIVER(cuLaunchKernel(add, divide_up(count, 128), 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), result, count * sizeof(int)));
    for (int i = 0; i < count; ++i) REQUIRE(c[i] == 6 * i + 7);
    std::printf("across the seam\n");

    // Grown by a third piece; the first two keep their content.
    CHECK_DRIVER(cuMemMap(range + 2 * granularity, granularity, 0, physical[2], 0));
    CHECK_DRIVER(cuMemSetAccess(range + 2 * granularity, granularity, &access, 1));
    CHECK_DRIVER(cuMemsetD32(range + 2 * granularity, 0x01020304, granularity / 4));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), seam, count * sizeof(int)));
    REQUIRE(c == a);
    std::printf("grown\n");

    // The first piece is unmapped and appears at another place, with its content.
    CHECK_DRIVER(cuMemUnmap(range, granularity));
    CHECK_DRIVER(cuMemMap(range + 3 * granularity, granularity, 0, physical[0], 0));
    CHECK_DRIVER(cuMemSetAccess(range + 3 * granularity, granularity, &access, 1));
    CHECK_DRIVER(cuMemcpyDtoH(c.data(), range + 4 * granularity - count / 2 * sizeof(int), count / 2 * sizeof(int)));
    for (int i = 0; i < count / 2; ++i) REQUIRE(c[i] == a[i]);
    EXPECT_DRIVER(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(c.data(), range, 4));
    std::printf("remapped\n");

    for (int piece = 1; piece < 4; ++piece) CHECK_DRIVER(cuMemUnmap(range + piece * granularity, granularity));
    for (auto handle : physical) CHECK_DRIVER(cuMemRelease(handle));
    CHECK_DRIVER(cuMemAddressFree(range, 4 * granularity));
    CHECK_DRIVER(cuMemFree(operand));
    CHECK_DRIVER(cuMemFree(result));
    CHECK_DRIVER(cuModuleUnload(module));
    CHECK_DRIVER(cuDevicePrimaryCtxRelease(device));
    return pass();
}
