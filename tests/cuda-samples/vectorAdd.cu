// Proves the shortest path of a runtime program: allocate, copy in, launch, copy out, free.
// The length is no multiple of the block, so the guard in the kernel matters.
// Argument: number of elements (default 50000).
#include <vector>

#include "common.h"

__global__ void vector_add(const float *a, const float *b, float *c, int count) {
    int i = blockDim.x * blockIdx.x + threadIdx.x;
    if (i < count) c[i] = a[i] + b[i];
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 50000);
    size_t size = count * sizeof(float);
    std::vector<float> a(count), b(count), c(count, -1.0f), want(count);
    Random random(1);
    for (int i = 0; i < count; ++i) {
        a[i] = random.uniform();
        b[i] = random.uniform();
        want[i] = a[i] + b[i];
    }
    float *device_a, *device_b, *device_c;
    CHECK(cudaMalloc(&device_a, size));
    CHECK(cudaMalloc(&device_b, size));
    CHECK(cudaMalloc(&device_c, size));
    CHECK(cudaMemcpy(device_a, a.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), size, cudaMemcpyHostToDevice));
    int blocks = divide_up(count, 256);
    std::printf("%d elements, %d blocks of 256 threads\n", count, blocks);
    vector_add<<<blocks, 256>>>(device_a, device_b, device_c, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(c.data(), device_c, size, cudaMemcpyDeviceToHost));
    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(device_c));
    require_equal("c", c.data(), want.data(), count);
    std::printf("checksum %016llx\n", static_cast<unsigned long long>(checksum(c.data(), size)));
    return pass();
}
