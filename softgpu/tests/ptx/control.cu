// nvcc -ptx -arch=compute_90 control.cu
// Divergence, barriers, calls, tables, atomics and printf: what a scheduler of warps must get right.
#include <cstdio>
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void block_sum(const int* in, int* out, int n) {
  __shared__ int part[256];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = i < n ? in[i] : 0;
  __syncthreads();
  for (int s = blockDim.x / 2; s > 0; s >>= 1) {
    if (threadIdx.x < s) part[threadIdx.x] += part[threadIdx.x + s];
    __syncthreads();
  }
  if (threadIdx.x == 0) atomicAdd(out, part[0]);
}

extern "C" __global__ void warp_sum(const int* in, int* out) {
  int v = in[threadIdx.x + blockIdx.x * blockDim.x];
  for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffff, v, d);
  if ((threadIdx.x & 31) == 0) out[(threadIdx.x + blockIdx.x * blockDim.x) / 32] = v;
}

// Lanes take different numbers of rounds; some leave early.
extern "C" __global__ void collatz(unsigned* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned long long x = i + 1;
  unsigned steps = 0;
  while (x != 1) {
    x = (x & 1) ? 3 * x + 1 : x / 2;
    steps++;
  }
  out[i] = steps;
}

__device__ __noinline__ int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
extern "C" __global__ void recursion(int* out) { out[threadIdx.x] = fib(threadIdx.x % 13); }

struct Shape { __device__ virtual int area(int k) const = 0; };
struct Square : Shape { int a; __device__ Square(int a) : a(a) {} __device__ __noinline__ int area(int k) const override { return a * a + k; } };
struct Rect : Shape { int a, b; __device__ Rect(int a, int b) : a(a), b(b) {} __device__ __noinline__ int area(int k) const override { return a * b - k; } };
extern "C" __global__ void virtuals(int* out) {
  Square s(threadIdx.x);
  Rect r(threadIdx.x, 3);
  const Shape* p = threadIdx.x % 3 ? (const Shape*)&s : (const Shape*)&r;
  out[threadIdx.x] = p->area(100);
}

extern "C" __global__ void table(const int* op, int* out) {
  int x = threadIdx.x;
  switch (op[x]) {
    case 0: x = x * 3; break;
    case 1: x = x + 1000; break;
    case 2: x = -x; break;
    case 3: x = x ^ 0x55; break;
    case 4: x = x << 4; break;
    case 5: x = x % 7; break;
    case 6: x = __popc(x); break;
    case 7: x = __brev(x); break;
    default: x = 42;
  }
  out[threadIdx.x] = x;
}

// A lock taken by every lane of every warp: needs progress of lanes that are not the lowest.
__device__ int lock_word;
extern "C" __global__ void spin_lock(int* counter) {
  bool done = false;
  while (!done) {
    if (atomicCAS(&lock_word, 0, 1) == 0) {
      int v = *(volatile int*)counter;
      *(volatile int*)counter = v + 1;
      __threadfence();
      atomicExch(&lock_word, 0);
      done = true;
    }
  }
}

// The same without the flag: the holder leaves the loop.
__device__ int lock_word2;
extern "C" __global__ void spin_lock_plain(int* counter) {
  while (atomicCAS(&lock_word2, 0, 1) != 0) {}
  *(volatile int*)counter += 1;
  __threadfence();
  atomicExch(&lock_word2, 0);
}

// Blocks wait for their predecessors.
extern "C" __global__ void chain(volatile int* flags, int* out) {
  if (threadIdx.x == 0) {
    if (blockIdx.x > 0) while (flags[blockIdx.x - 1] == 0) {}
    __threadfence();
    out[blockIdx.x] = blockIdx.x == 0 ? 1 : out[blockIdx.x - 1] + 2;
    __threadfence();
    flags[blockIdx.x] = 1;
  }
}

// Blocks wait for later blocks: all must be resident.
extern "C" __global__ void backward_chain(volatile int* flags) {
  if (threadIdx.x == 0) {
    if (blockIdx.x + 1 < gridDim.x) while (flags[blockIdx.x + 1] == 0) {}
    __threadfence();
    flags[blockIdx.x] = blockIdx.x + 1;
  }
}

extern "C" __global__ void grid_sync(int* data, int* out, int rounds) {
  cg::grid_group grid = cg::this_grid();
  int i = grid.thread_rank(), n = grid.size();
  for (int r = 0; r < rounds; r++) {
    out[i] = data[i] + data[(i + 1) % n];
    grid.sync();
    data[i] = out[i];
    grid.sync();
  }
}

extern "C" __global__ void hello(const char* unused) {
  printf("block %d thread %d: %s %5.2f %llx %c\n", blockIdx.x, threadIdx.x, "text", threadIdx.x * 1.5, 0x123456789abcdefull, 'z');
}

extern "C" __global__ void heap(int* out) {
  int* p = (int*)malloc(sizeof(int) * 10);
  for (int i = 0; i < 10; i++) p[i] = i * threadIdx.x;
  int s = 0;
  for (int i = 0; i < 10; i++) s += p[i];
  free(p);
  out[threadIdx.x] = s;
}

__constant__ int weights[8] = {1, 2, 3, 4, 5, 6, 7, 8};
__device__ int scale = 10;
__device__ int* where = &scale;
extern "C" __global__ void symbols(int* out) { out[threadIdx.x] = weights[threadIdx.x % 8] * *where; }

extern "C" __global__ void dynamic_shared(int* out) {
  extern __shared__ int buffer[];
  __shared__ int fixed[4];
  if (threadIdx.x < 4) fixed[threadIdx.x] = threadIdx.x;
  buffer[threadIdx.x] = threadIdx.x * 2;
  __syncthreads();
  out[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x] + fixed[threadIdx.x & 3];
}

extern "C" __global__ void votes(unsigned* out) {
  unsigned i = threadIdx.x;
  unsigned b = __ballot_sync(0xffffffff, i % 3 == 0);
  unsigned any = __any_sync(0xffffffff, i == 5), all = __all_sync(0xffffffff, i < 32);
  unsigned m = __match_any_sync(0xffffffff, i / 4);
  unsigned r = __reduce_add_sync(0xffffffff, i);
  unsigned half = 0;
  if (i & 1) half = __activemask(); else half = ~__activemask();
  out[i] = b ^ (any << 1) ^ all ^ m ^ r ^ half;
}

extern "C" __global__ void diverged_shuffle(int* out) {
  int i = threadIdx.x, v = i * 10, r;
  // Both sides run the same exchange of the whole warp at different places.
  if (i & 1) { r = __shfl_xor_sync(0xffffffff, v + 1, 1); r += 1000; }
  else { r = __shfl_xor_sync(0xffffffff, v + 2, 1); r += 2000; }
  out[i] = r;
}

extern "C" __global__ void fails_at(int* p, int i) { if (threadIdx.x == 3) p[i] = 1; }
extern "C" __global__ void misaligned(char* p) { *(int*)(p + 2) = 1; }
extern "C" __global__ void traps() { if (threadIdx.x == 7) __trap(); }
#include <cassert>
extern "C" __global__ void asserts(int n) { assert(threadIdx.x != n && "must differ"); }
extern "C" __global__ void barrier_or(int* out) { out[threadIdx.x] = __syncthreads_or(threadIdx.x == 70) + 2 * __syncthreads_and(threadIdx.x < 100) + 4 * __syncthreads_count(threadIdx.x % 5 == 0); }
