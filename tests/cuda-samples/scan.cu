// Proves a three-launch algorithm whose launches depend on each other in stream order: exclusive prefix sum with
// block scans in shared memory, a scan of the block sums, and the uniform addition.
#include <vector>

#include "common.h"

constexpr int BLOCK = 256;

__global__ void scan_blocks(const unsigned *in, unsigned *out, unsigned *sums, int count) {
    __shared__ unsigned buffer[2][BLOCK];
    int i = blockIdx.x * BLOCK + threadIdx.x, t = threadIdx.x, from = 0;
    unsigned own = i < count ? in[i] : 0;
    buffer[0][t] = own;
    __syncthreads();
    for (int step = 1; step < BLOCK; step *= 2, from ^= 1) {
        buffer[from ^ 1][t] = buffer[from][t] + (t >= step ? buffer[from][t - step] : 0);
        __syncthreads();
    }
    unsigned inclusive = buffer[from][t];
    if (i < count) out[i] = inclusive - own;
    if (sums && t == BLOCK - 1) sums[blockIdx.x] = inclusive;
}

__global__ void add_sums(unsigned *out, const unsigned *sums, int count) {
    int i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < count) out[i] += sums[blockIdx.x];
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 30011);
    int blocks = divide_up(count, BLOCK);
    if (blocks > BLOCK) fail("at most %d elements", BLOCK * BLOCK);
    std::vector<unsigned> host(count), want(count), got(count);
    Random random(4);
    unsigned running = 0;
    for (int i = 0; i < count; ++i) {
        host[i] = random.bits();
        want[i] = running;
        running += host[i];
    }
    unsigned *in, *out, *sums;
    CHECK(cudaMalloc(&in, count * sizeof(unsigned)));
    CHECK(cudaMalloc(&out, count * sizeof(unsigned)));
    CHECK(cudaMalloc(&sums, blocks * sizeof(unsigned)));
    CHECK(cudaMemcpy(in, host.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
    scan_blocks<<<blocks, BLOCK>>>(in, out, sums, count);
    CHECK_LAUNCH();
    scan_blocks<<<1, BLOCK>>>(sums, sums, nullptr, blocks);
    CHECK_LAUNCH();
    add_sums<<<blocks, BLOCK>>>(out, sums, count);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), out, count * sizeof(unsigned), cudaMemcpyDeviceToHost));
    require_equal("prefix sum", got.data(), want.data(), count);
    std::printf("%d elements, %d blocks, last %u\n", count, blocks, got[count - 1]);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    CHECK(cudaFree(sums));
    return pass();
}
