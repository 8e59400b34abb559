// Proves copies from global to shared memory that the thread does not wait for: cooperative_groups::memcpy_async with
// wait, the pipeline intrinsics (cp.async) in two stages, and a block barrier object in shared memory.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda/barrier>
#include <cuda_pipeline.h>
#include <vector>

#include "common.h"

namespace cg = cooperative_groups;

constexpr int BLOCK = 128, TILES = 6;

__global__ void by_group(const int *in, int *out) {
    __shared__ alignas(16) int tile[BLOCK];
    cg::thread_block block = cg::this_thread_block();
    for (int t = 0; t < TILES; ++t) {
        int base = (blockIdx.x * TILES + t) * BLOCK;
        cg::memcpy_async(block, tile, in + base, sizeof(tile));
        cg::wait(block);
        out[base + threadIdx.x] = tile[BLOCK - 1 - threadIdx.x] + t;
        block.sync();
    }
}

__global__ void by_pipeline(const int4 *in, int4 *out) {
    __shared__ int4 stage[2][BLOCK];
    int base = blockIdx.x * TILES * BLOCK;
    __pipeline_memcpy_async(&stage[0][threadIdx.x], &in[base + threadIdx.x], sizeof(int4));
    __pipeline_commit();
    for (int t = 0; t < TILES; ++t) {
        if (t + 1 < TILES) __pipeline_memcpy_async(&stage[(t + 1) % 2][threadIdx.x], &in[base + (t + 1) * BLOCK + threadIdx.x], sizeof(int4));
        __pipeline_commit();
        __pipeline_wait_prior(1);
        __syncthreads();
        int4 value = stage[t % 2][(threadIdx.x + 1) % BLOCK];
        value.x += t;
        out[base + t * BLOCK + threadIdx.x] = value;
        __syncthreads();
    }
}

// Half of the block produces, all wait at the barrier with its own arrival count.
#pragma nv_diagnostic push
#pragma nv_diag_suppress static_var_with_dynamic_init
__global__ void by_barrier(int *out) {
    __shared__ cuda::barrier<cuda::thread_scope_block> barrier;
    __shared__ int values[BLOCK];
    if (threadIdx.x == 0) init(&barrier, BLOCK);
    __syncthreads();
    int sum = 0;
    for (int round = 0; round < 4; ++round) {
        values[threadIdx.x] = threadIdx.x * (round + 1);
        barrier.arrive_and_wait();
        sum += values[(threadIdx.x + 37) % BLOCK];
        auto token = barrier.arrive();
        barrier.wait(std::move(token));
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = sum;
}
#pragma nv_diagnostic pop

int main() {
    const int blocks = 3, count = blocks * TILES * BLOCK;
    std::vector<int> in(count * 4), got(count * 4);
    for (int i = 0; i < count * 4; ++i) in[i] = i * 5 + 1;
    int *device_in, *device_out;
    CHECK(cudaMalloc(&device_in, in.size() * 4));
    CHECK(cudaMalloc(&device_out, in.size() * 4));
    CHECK(cudaMemcpy(device_in, in.data(), in.size() * 4, cudaMemcpyHostToDevice));
    by_group<<<blocks, BLOCK>>>(device_in, device_out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), device_out, count * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(got[i] == in[i / BLOCK * BLOCK + BLOCK - 1 - i % BLOCK] + i / BLOCK % TILES);
    std::printf("memcpy_async of a group\n");

    by_pipeline<<<blocks, BLOCK>>>(reinterpret_cast<int4 *>(device_in), reinterpret_cast<int4 *>(device_out));
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), device_out, got.size() * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i)
        for (int k = 0; k < 4; ++k) {
            int from = i / BLOCK * BLOCK + (i + 1) % BLOCK;
            REQUIRE(got[4 * i + k] == in[4 * from + k] + (k == 0 ? i / BLOCK % TILES : 0));
        }
    std::printf("pipeline of two stages\n");

    by_barrier<<<2, BLOCK>>>(device_out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got.data(), device_out, 2 * BLOCK * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 2 * BLOCK; ++i) REQUIRE(got[i] == (i % BLOCK + 37) % BLOCK * 10);
    std::printf("barrier object\n");
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_out));
    return pass();
}
