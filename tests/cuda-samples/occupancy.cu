// Proves the occupancy calculator and function attributes: blocks per multiprocessor within the device's limits and
// falling with shared memory, the suggested block size, and a launch with it that gives the right result.
#include <vector>

#include "common.h"

__global__ void square(int *data, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] *= data[i];
}

__global__ void __launch_bounds__(128) bounded(float *data) {
    extern __shared__ float dynamic[];
    __shared__ float fixed[100];
    fixed[threadIdx.x % 100] = data[threadIdx.x];
    dynamic[threadIdx.x] = fixed[threadIdx.x % 100];
    __syncthreads();
    data[threadIdx.x] = dynamic[127 - threadIdx.x];
}

int main() {
    int threads = 0, per_multiprocessor = 0, shared = 0;
    CHECK(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, 0));
    CHECK(cudaDeviceGetAttribute(&per_multiprocessor, cudaDevAttrMaxBlocksPerMultiprocessor, 0));
    CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, 0));
    for (int block : {32, 64, 128, 256, 512, 1024}) {
        int blocks = 0;
        CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, square, block, 0));
        std::printf("square, %4d threads: %d blocks per multiprocessor\n", block, blocks);
        REQUIRE(blocks >= 1 && blocks * block <= threads && blocks <= per_multiprocessor);
    }
    int previous = 1 << 30;
    for (int bytes : {0, 8192, 16384, 32768}) {
        int blocks = 0;
        CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, bounded, 128, bytes));
        std::printf("bounded, %5d bytes of shared memory: %d blocks per multiprocessor\n", bytes, blocks);
        REQUIRE(blocks >= 1 && blocks <= previous && static_cast<long long>(blocks) * (bytes + 400) <= shared);
        previous = blocks;
    }
    int grid = 0, block = 0;
    CHECK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, square, 0, 0));
    std::printf("suggested for square: %d blocks of %d threads\n", grid, block);
    REQUIRE(block >= 32 && block <= 1024 && block % 32 == 0 && grid >= 1);

    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, bounded));
    std::printf("bounded: %zu bytes static, at most %d threads\n", attributes.sharedSizeBytes, attributes.maxThreadsPerBlock);
    REQUIRE(attributes.sharedSizeBytes == 400 && attributes.maxThreadsPerBlock == 128);
    REQUIRE(attributes.numRegs > 0 && attributes.binaryVersion >= 90 && attributes.ptxVersion >= 90);

    const int count = 10000;
    std::vector<int> host(count);
    for (int i = 0; i < count; ++i) host[i] = i;
    int *data;
    CHECK(cudaMalloc(&data, count * sizeof(int)));
    CHECK(cudaMemcpy(data, host.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    square<<<divide_up(count, block), block>>>(data, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(host.data(), data, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(host[i] == i * i);
    CHECK(cudaFree(data));
    return pass();
}
