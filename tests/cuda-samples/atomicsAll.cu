// Proves every atomic: add, sub, exch, min, max, inc, dec, cas, and, or, xor on the types that have them, in global
// and shared memory, with block, device and system scope, the values they return, and a lock built from them.
#include <vector>

#include "common.h"

struct Results {
    int add, sub, min, max, exchanged, and_, or_, xor_;
    unsigned inc, dec, umin, umax;
    unsigned long long add64, min64, max64, or64, cas64;
    long long smin64, smax64;
    float addf, exchf;
    double addd, cas_add;
    unsigned short cas16;
    unsigned system, block;
    unsigned ticket_sum;
};

__device__ Results global;

// 2^20 keeps float and double sums of small multiples of 1/4 exact in any order.
__device__ void all(Results *r, int i, unsigned *tickets) {
    atomicAdd(&r->add, i);
    atomicSub(&r->sub, 2 * i);
    atomicMin(&r->min, 500 - i);
    atomicMax(&r->max, i - 500);
    atomicAnd(&r->and_, ~(1 << (i % 20)));
    atomicOr(&r->or_, 1 << (i % 24));
    atomicXor(&r->xor_, 1 << (i % 30));
    atomicInc(&r->inc, 99);
    atomicDec(&r->dec, 49);
    atomicMin(&r->umin, 0xffff0000u + i);
    atomicMax(&r->umax, 0x80000000u + i);
    atomicAdd(&r->add64, 0x100000001ull * i);
    atomicMin(&r->min64, 0xf000000000000000ull - i);
    atomicMax(&r->max64, 0xf000000000000000ull + i);
    atomicMin(&r->smin64, -5000000000ll - i);
    atomicMax(&r->smax64, 5000000000ll + i);
    atomicOr(&r->or64, 1ull << (i % 64));
    atomicAdd(&r->addf, 0.25f * i);
    atomicAdd(&r->addd, 0.125 * i);
    atomicAdd_system(&r->system, 1u);
    atomicAdd_block(&r->block, 1u);
    // Every returned value of an increment is another one: a ticket.
    atomicAdd(&r->ticket_sum, atomicAdd(tickets, 1u));
    // A double sum by compare and swap.
    unsigned long long *word = reinterpret_cast<unsigned long long *>(&r->cas_add), seen = *word, expected;
    do {
        expected = seen;
        seen = atomicCAS(word, expected, static_cast<unsigned long long>(__double_as_longlong(__longlong_as_double(static_cast<long long>(expected)) + 0.5 * i)));
    } while (seen != expected);
    unsigned short old = r->cas16, assumed;
    do {
        assumed = old;
        old = atomicCAS(&r->cas16, assumed, static_cast<unsigned short>(assumed + 3));
    } while (old != assumed);
}

__device__ void start(Results *r) {
    *r = {};
    r->min = 1 << 30;
    r->max = -(1 << 30);
    r->and_ = -1;
    r->umin = 0xffffffffu;
    r->min64 = ~0ull;
    r->smin64 = 1ll << 62;
    r->smax64 = -(1ll << 62);
}

__global__ void start_global() { start(&global); }

__device__ unsigned global_tickets;

__global__ void in_global() { all(&global, blockIdx.x * blockDim.x + threadIdx.x, &global_tickets); }

__global__ void in_shared(Results *out) {
    __shared__ Results shared;
    __shared__ unsigned tickets;
    if (threadIdx.x == 0) {
        start(&shared);
        tickets = 0;
    }
    __syncthreads();
    all(&shared, threadIdx.x, &tickets);
    __syncthreads();
    if (threadIdx.x == 0) *out = shared;
}

__device__ int lock, guarded;

// One thread of each block at a time adds without an atomic.
__global__ void with_lock() {
    if (threadIdx.x) return;
    while (atomicCAS(&lock, 0, 1)) __nanosleep(20);
    __threadfence();
    int value = *static_cast<volatile int *>(&guarded);
    *static_cast<volatile int *>(&guarded) = value + 1;
    __threadfence();
    atomicExch(&lock, 0);
}

// Exchanges pass every value on exactly once: what is left plus what came out is what went in.
__global__ void exchange(int *slot, int *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = atomicExch(slot, i + 1);
}

void check(const char *where, const Results &r, int n) {
    long long sum = static_cast<long long>(n) * (n - 1) / 2;
    int and_mask = -1, or_mask = 0, xor_mask = 0;
    unsigned long long or64 = 0;
    unsigned dec = 0;
    for (int i = 0; i < n; ++i) {
        and_mask &= ~(1 << (i % 20));
        or_mask |= 1 << (i % 24);
        xor_mask ^= 1 << (i % 30);
        or64 |= 1ull << (i % 64);
        dec = dec == 0 || dec > 49 ? 49 : dec - 1;
    }
    REQUIRE(r.add == sum && r.sub == -2 * sum);
    REQUIRE(r.min == 500 - (n - 1) && r.max == n - 1 - 500);
    REQUIRE(r.and_ == and_mask && r.or_ == or_mask && r.xor_ == xor_mask);
    REQUIRE(r.inc == static_cast<unsigned>(n % 100) && r.dec == dec);
    REQUIRE(r.umin == 0xffff0000u && r.umax == 0x80000000u + n - 1);
    REQUIRE(r.add64 == 0x100000001ull * sum);
    REQUIRE(r.min64 == 0xf000000000000000ull - (n - 1) && r.max64 == 0xf000000000000000ull + n - 1);
    REQUIRE(r.smin64 == -5000000000ll - (n - 1) && r.smax64 == 5000000000ll + n - 1 && r.or64 == or64);
    REQUIRE(r.addf == 0.25f * sum && r.addd == 0.125 * sum && r.cas_add == 0.5 * sum);
    REQUIRE(r.system == static_cast<unsigned>(n) && r.ticket_sum == sum);
    REQUIRE(r.cas16 == static_cast<unsigned short>(3 * n));
    std::printf("%s: %d threads\n", where, n);
}

int main() {
    Results results, *device;
    start_global<<<1, 1>>>();
    in_global<<<8, 100>>>();
    CHECK_LAUNCH();
    CHECK(cudaMemcpyFromSymbol(&results, global, sizeof(results)));
    check("global", results, 800);

    CHECK(cudaMalloc(&device, sizeof(results)));
    in_shared<<<1, 320>>>(device);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(&results, device, sizeof(results), cudaMemcpyDeviceToHost));
    check("shared", results, 320);
    REQUIRE(results.block == 320);

    with_lock<<<40, 32>>>();
    CHECK_LAUNCH();
    int value = 0;
    CHECK(cudaMemcpyFromSymbol(&value, guarded, sizeof(value)));
    std::printf("lock: %d\n", value);
    REQUIRE(value == 40);

    const int count = 512;
    std::vector<int> out(count), seen(count + 1, 0);
    int *slot, *values, left = 0;
    CHECK(cudaMalloc(&slot, sizeof(int)));
    CHECK(cudaMalloc(&values, count * sizeof(int)));
    CHECK(cudaMemset(slot, 0, sizeof(int)));
    exchange<<<4, count / 4>>>(slot, values);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(out.data(), values, count * sizeof(int), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&left, slot, sizeof(int), cudaMemcpyDeviceToHost));
    ++seen[left];
    for (int x : out) ++seen[x];
    for (int times : seen) REQUIRE(times == 1);
    std::printf("exchange: every value once\n");
    CHECK(cudaFree(device));
    CHECK(cudaFree(slot));
    CHECK(cudaFree(values));
    return pass();
}
