// Proves cooperative groups within a block: static tiles of several sizes with shuffles and votes, tile reductions
// (cg::reduce), coalesced groups in divergent code, tiled partitions of tiles, and block-wide synchronisation.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <vector>

#include "common.h"

namespace cg = cooperative_groups;

template <int SIZE>
__global__ void tile_sums(const int *in, int *out) {
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<SIZE>(block);
    int i = blockIdx.x * blockDim.x + block.thread_rank();
    int sum = in[i];
    for (int step = tile.size() / 2; step > 0; step /= 2) sum += tile.shfl_down(sum, step);
    if (tile.thread_rank() == 0) out[i / SIZE] = sum;
}

template <int SIZE>
__global__ void tile_reduce(const int *in, int *out) {
    auto tile = cg::tiled_partition<SIZE>(cg::this_thread_block());
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int largest = cg::reduce(tile, in[i], cg::greater<int>());
    int before = cg::exclusive_scan(tile, in[i], cg::plus<int>());
    out[2 * i] = largest;
    out[2 * i + 1] = before;
}

// Counts the odd and the even values with one atomic per coalesced group.
__global__ void count_parity(const int *in, int *counts) {
    int value = in[blockIdx.x * blockDim.x + threadIdx.x];
    if (value & 1) {
        cg::coalesced_group group = cg::coalesced_threads();
        if (group.thread_rank() == 0) atomicAdd(&counts[1], static_cast<int>(group.size()));
    } else {
        cg::coalesced_group group = cg::coalesced_threads();
        if (group.thread_rank() == 0) atomicAdd(&counts[0], static_cast<int>(group.size()));
    }
}

__global__ void votes(unsigned *out) {
    auto tile = cg::tiled_partition<16>(cg::this_thread_block());
    auto half = cg::tiled_partition<8>(tile);
    unsigned rank = tile.thread_rank();
    unsigned bits = tile.ballot(rank % 3 == 0) | (half.ballot(half.thread_rank() < 2) << 16);
    if (tile.any(rank == 5)) bits |= 1u << 30;
    if (tile.all(rank < 15)) bits |= 1u << 31;
    out[threadIdx.x] = bits + (half.meta_group_rank() << 24);
}

template <int SIZE>
void check(const std::vector<int> &host, const int *in) {
    int count = static_cast<int>(host.size());
    std::vector<int> sums(count / SIZE), pairs(2 * count);
    int *out;
    CHECK(cudaMalloc(&out, pairs.size() * sizeof(int)));
    tile_sums<SIZE><<<count / 128, 128>>>(in, out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(sums.data(), out, sums.size() * sizeof(int), cudaMemcpyDeviceToHost));
    tile_reduce<SIZE><<<count / 128, 128>>>(in, out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(pairs.data(), out, pairs.size() * sizeof(int), cudaMemcpyDeviceToHost));
    for (int t = 0; t < count / SIZE; ++t) {
        int sum = 0, largest = host[t * SIZE];
        for (int i = t * SIZE; i < (t + 1) * SIZE; ++i) {
            if (pairs[2 * i + 1] != sum) fail("tiles of %d: the scan before element %d is %d, not %d", SIZE, i, pairs[2 * i + 1], sum);
            sum += host[i];
            largest = host[i] > largest ? host[i] : largest;
        }
        if (sums[t] != sum) fail("tiles of %d: the sum of tile %d is %d, not %d", SIZE, t, sums[t], sum);
        for (int i = t * SIZE; i < (t + 1) * SIZE; ++i)
            if (pairs[2 * i] != largest) fail("tiles of %d: the maximum at %d is %d, not %d", SIZE, i, pairs[2 * i], largest);
    }
    std::printf("tiles of %d\n", SIZE);
    CHECK(cudaFree(out));
}

int main() {
    const int count = 1024;
    std::vector<int> host(count);
    Random random(8);
    int parity[2] = {}, got[2];
    for (int &x : host) {
        x = static_cast<int>(random.bits() % 1000);
        ++parity[x & 1];
    }
    int *in, *counts;
    CHECK(cudaMalloc(&in, count * sizeof(int)));
    CHECK(cudaMalloc(&counts, sizeof(got)));
    CHECK(cudaMemcpy(in, host.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    check<4>(host, in);
    check<16>(host, in);
    check<32>(host, in);

    CHECK(cudaMemset(counts, 0, sizeof(got)));
    count_parity<<<count / 128, 128>>>(in, counts);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(got, counts, sizeof(got), cudaMemcpyDeviceToHost));
    std::printf("even %d, odd %d\n", got[0], got[1]);
    REQUIRE(got[0] == parity[0] && got[1] == parity[1]);

    unsigned *out, bits[64];
    CHECK(cudaMalloc(&out, sizeof(bits)));
    votes<<<1, 64>>>(out);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(bits, out, sizeof(bits), cudaMemcpyDeviceToHost));
    for (unsigned i = 0; i < 64; ++i) {
        // Ballot of ranks divisible by 3 in 16 lanes, of the first two lanes in 8, any true, all false.
        unsigned want = (0x9249u | (0x3u << 16) | (1u << 30)) + ((i / 8 % 2) << 24);
        if (bits[i] != want) fail("votes of thread %u: %08x, expected %08x", i, bits[i], want);
    }
    CHECK(cudaFree(in));
    CHECK(cudaFree(counts));
    CHECK(cudaFree(out));
    return pass();
}
