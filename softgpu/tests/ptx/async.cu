// nvcc -ptx -arch=compute_90 async.cu
// Asynchronous copies and the barriers that track them.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cuda/barrier>
namespace cg = cooperative_groups;

// Double-buffered cp.async, 16 bytes a thread.
extern "C" __global__ void pipelined(const int4* in, int* out, int tiles) {
  __shared__ int4 buffer[2][64];
  auto fetch = [&](int tile) {
    if (tile < tiles) {
      unsigned to = __cvta_generic_to_shared(&buffer[tile & 1][threadIdx.x]);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(in + tile * 64 + threadIdx.x) : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  int sum = 0;
  fetch(0);
  for (int tile = 0; tile < tiles; tile++) {
    fetch(tile + 1);
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    int4 v = buffer[tile & 1][63 - threadIdx.x];
    sum += v.x + 2 * v.y + 3 * v.z + 4 * v.w;
    __syncthreads();
  }
  out[threadIdx.x] = sum;
}

extern "C" __global__ void block_barrier(const int* in, int* out) {
  __shared__ cuda::barrier<cuda::thread_scope_block> bar;
  __shared__ int s[128];
  if (threadIdx.x == 0) init(&bar, blockDim.x);
  __syncthreads();
  int v = in[threadIdx.x];
  for (int round = 0; round < 4; round++) {
    s[threadIdx.x] = v;
    bar.arrive_and_wait();
    v += s[(threadIdx.x + 1) % 128];
    auto token = bar.arrive();
    bar.wait(std::move(token));
  }
  out[threadIdx.x] = v;
}

extern "C" __global__ void bulk_copy(const int* in, int* out) {
  __shared__ __align__(128) int s[128];
  __shared__ cuda::barrier<cuda::thread_scope_block> bar;
  if (threadIdx.x == 0) {
    init(&bar, blockDim.x);
    asm volatile("fence.proxy.async.shared::cta;");
  }
  __syncthreads();
  cuda::barrier<cuda::thread_scope_block>::arrival_token token;
  if (threadIdx.x == 0) {
    cuda::device::experimental::cp_async_bulk_global_to_shared(s, in, sizeof(s), bar);
    token = cuda::device::barrier_arrive_tx(bar, 1, sizeof(s));
  } else {
    token = bar.arrive();
  }
  bar.wait(std::move(token));
  s[threadIdx.x] += 5;
  asm volatile("fence.proxy.async.shared::cta;");
  __syncthreads();
  if (threadIdx.x == 0) {
    cuda::device::experimental::cp_async_bulk_shared_to_global(out, s, sizeof(s));
    cuda::device::experimental::cp_async_bulk_commit_group();
    cuda::device::experimental::cp_async_bulk_wait_group_read<0>();
  }
}

// Tiles of a warp reduce at the same instruction with different member masks.
extern "C" __global__ void tiles(const int* in, int* out) {
  auto block = cg::this_thread_block();
  auto tile = cg::tiled_partition<8>(block);
  auto warp = cg::tiled_partition<32>(block);
  int v = in[threadIdx.x];
  int most = cg::reduce(tile, v, cg::greater<int>());
  auto odd = cg::binary_partition(warp, v & 1);
  auto third = cg::labeled_partition(warp, v % 3);
  out[threadIdx.x] = most * 10000 + odd.size() * 100 + third.thread_rank();
}
