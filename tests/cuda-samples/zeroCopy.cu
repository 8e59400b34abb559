// Proves host memory that kernels use in place: mapped pinned memory, its device pointer, memory of the program's own
// registered later, and visibility in both directions after synchronising.
#include <cstdlib>

#include "common.h"

__global__ void add(const float *a, const float *b, float *c, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) c[i] = a[i] + b[i];
}

int main() {
    int map = 0;
    CHECK(cudaDeviceGetAttribute(&map, cudaDevAttrCanMapHostMemory, 0));
    if (!map) {
        std::printf("waived: the device cannot map host memory\n");
        return 2;
    }
    const int count = 20000;
    size_t size = count * sizeof(float);
    float *a, *b, *c, *device_a, *device_b, *device_c;
    CHECK(cudaHostAlloc(&a, size, cudaHostAllocMapped));
    CHECK(cudaHostAlloc(&b, size, cudaHostAllocMapped | cudaHostAllocWriteCombined));
    CHECK(cudaHostAlloc(&c, size, cudaHostAllocMapped));
    CHECK(cudaHostGetDevicePointer(&device_a, a, 0));
    CHECK(cudaHostGetDevicePointer(&device_b, b, 0));
    CHECK(cudaHostGetDevicePointer(&device_c, c, 0));
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < count; ++i) {
            a[i] = static_cast<float>(i + round);
            b[i] = static_cast<float>(2 * i);
            c[i] = -1;
        }
        add<<<divide_up(count, 256), 256>>>(device_a, device_b, device_c, count);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < count; ++i) REQUIRE(c[i] == static_cast<float>(3 * i + round));
    }
    std::printf("mapped\n");

    size_t page = 4096, bytes = (size + page - 1) / page * page;
    float *own = static_cast<float *>(std::aligned_alloc(page, bytes)), *device_own;
    REQUIRE(own);
    for (int i = 0; i < count; ++i) own[i] = static_cast<float>(i);
    CHECK(cudaHostRegister(own, bytes, cudaHostRegisterMapped));
    CHECK(cudaHostGetDevicePointer(&device_own, own, 0));
    for (int round = 0; round < 3; ++round) {
        // In place: the registered memory is input and output.
        add<<<divide_up(count, 256), 256>>>(device_own, device_a, device_own, count);
        CHECK_LAUNCH();
        CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < count; ++i) REQUIRE(own[i] == static_cast<float>(i) + (round + 1) * (i + 2.0f));
    }
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, own + 5));
    REQUIRE(attributes.type == cudaMemoryTypeHost);
    cudaError_t again = cudaHostRegister(own, bytes, cudaHostRegisterMapped);
    std::printf("registered, a second time: %s\n", cudaGetErrorName(again));
    REQUIRE(again == cudaErrorHostMemoryAlreadyRegistered);
    cudaGetLastError();
    CHECK(cudaHostUnregister(own));
    EXPECT(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(own));
    cudaGetLastError();
    std::free(own);
    CHECK(cudaFreeHost(a));
    CHECK(cudaFreeHost(b));
    CHECK(cudaFreeHost(c));
    return pass();
}
