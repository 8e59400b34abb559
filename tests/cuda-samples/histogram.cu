// Proves atomics in shared and in global memory together: 256 bins, one histogram per block, merged.
// A second kernel counts without shared memory; both must give the same exact counts.
#include <vector>

#include "common.h"

__global__ void histogram_shared(const unsigned char *data, unsigned *bins, int count) {
    __shared__ unsigned local[256];
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) local[bin] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(&local[data[i]], 1u);
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x)
        if (local[bin]) atomicAdd(&bins[bin], local[bin]);
}

__global__ void histogram_global(const unsigned char *data, unsigned *bins, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) atomicAdd(&bins[data[i]], 1u);
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 60000);
    std::vector<unsigned char> host(count);
    std::vector<unsigned> want(256, 0), got(256);
    Random random(5);
    for (unsigned char &x : host) {
        // The sum of two dice: the middle bins are contended.
        x = static_cast<unsigned char>((random.bits() % 128) + (random.bits() % 128));
        ++want[x];
    }
    unsigned char *data;
    unsigned *bins;
    CHECK(cudaMalloc(&data, count));
    CHECK(cudaMalloc(&bins, 256 * sizeof(unsigned)));
    CHECK(cudaMemcpy(data, host.data(), count, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(bins, 0, 256 * sizeof(unsigned)));
    histogram_shared<<<16, 192>>>(data, bins, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), bins, 256 * sizeof(unsigned), cudaMemcpyDeviceToHost));
    require_equal("bins (shared)", got.data(), want.data(), 256);
    CHECK(cudaMemset(bins, 0, 256 * sizeof(unsigned)));
    histogram_global<<<divide_up(count, 256), 256>>>(data, bins, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), bins, 256 * sizeof(unsigned), cudaMemcpyDeviceToHost));
    require_equal("bins (global)", got.data(), want.data(), 256);
    std::printf("%d values, bin 100 holds %u, bin 127 holds %u\n", count, got[100], got[127]);
    CHECK(cudaFree(data));
    CHECK(cudaFree(bins));
    return pass();
}
