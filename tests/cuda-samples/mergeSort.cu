// Proves long chains of dependent launches over two alternating buffers, with binary searches (divergent loops):
// a stable merge sort of keys with values, and a bitonic sort in shared memory for the first runs.
// Argument: elements (default 10000).
#include <algorithm>
#include <numeric>
#include <vector>

#include "common.h"

constexpr int RUN = 256;

// Sorts runs of RUN elements. The value breaks ties, which makes the sort stable.
__global__ void sort_runs(unsigned *keys, unsigned *values, int count) {
    __shared__ unsigned long long pairs[RUN];
    int base = blockIdx.x * RUN, t = threadIdx.x;
    for (int i = t; i < RUN; i += blockDim.x)
        pairs[i] = base + i < count ? (static_cast<unsigned long long>(keys[base + i]) << 32) | values[base + i] : ~0ull;
    for (int size = 2; size <= RUN; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            int i = 2 * t - (t & (stride - 1));
            bool up = (i & size) == 0;
            unsigned long long a = pairs[i], b = pairs[i + stride];
            if ((a > b) == up) {
                pairs[i] = b;
                pairs[i + stride] = a;
            }
        }
    __syncthreads();
    for (int i = t; i < RUN; i += blockDim.x)
        if (base + i < count) {
            keys[base + i] = static_cast<unsigned>(pairs[i] >> 32);
            values[base + i] = static_cast<unsigned>(pairs[i]);
        }
}

// The number of elements of the sorted range that go before `key`.
__device__ int rank_in(const unsigned *keys, int from, int to, unsigned key, bool equal_too) {
    int first = from;
    while (from < to) {
        int middle = (from + to) / 2;
        if (keys[middle] < key || (equal_too && keys[middle] == key)) from = middle + 1;
        else to = middle;
    }
    return from - first;
}

__global__ void merge(const unsigned *keys, const unsigned *values, unsigned *to_keys, unsigned *to_values, int count, int run) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int pair = i / (2 * run) * (2 * run);
    int middle = min(pair + run, count), end = min(pair + 2 * run, count);
    bool left = i < middle;
    int at = left ? i + rank_in(keys, middle, end, keys[i], false) : i - run + rank_in(keys, pair, middle, keys[i], true);
    to_keys[at] = keys[i];
    to_values[at] = values[i];
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 10000);
    std::vector<unsigned> keys(count), values(count), got_keys(count), got_values(count), order(count);
    Random random(9);
    for (int i = 0; i < count; ++i) {
        keys[i] = random.bits() % 1000;
        values[i] = i;
    }
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return keys[a] < keys[b]; });

    size_t size = count * sizeof(unsigned);
    unsigned *buffer[4];
    for (unsigned *&b : buffer) CHECK(cudaMalloc(&b, size));
    CHECK(cudaMemcpy(buffer[0], keys.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(buffer[1], values.data(), size, cudaMemcpyHostToDevice));
    sort_runs<<<divide_up(count, RUN), RUN / 2>>>(buffer[0], buffer[1], count);
    CHECK_LAUNCH();
    int from = 0, passes = 0;
    for (int run = RUN; run < count; run *= 2, from ^= 2, ++passes) {
        merge<<<divide_up(count, 128), 128>>>(buffer[from], buffer[from + 1], buffer[from ^ 2], buffer[(from ^ 2) + 1], count, run);
        CHECK_LAUNCH();
    }
    CHECK(cudaMemcpy(got_keys.data(), buffer[from], size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(got_values.data(), buffer[from + 1], size, cudaMemcpyDeviceToHost));
    require_equal("order", got_values.data(), order.data(), count);
    for (int i = 0; i < count; ++i) REQUIRE(got_keys[i] == keys[order[i]]);
    std::printf("%d elements, %d merge passes\n", count, passes);
    for (unsigned *b : buffer) CHECK(cudaFree(b));
    return pass();
}
