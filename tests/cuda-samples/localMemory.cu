// Proves local memory and calls: arrays indexed at run time, recursion (a deep stack within the limit), pointers to
// locals passed down, large stack frames, and loops whose lanes call different functions.
#include <vector>

#include "common.h"

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

__device__ __noinline__ void quicksort(int *data, int from, int to) {
    if (from >= to) return;
    int pivot = data[(from + to) / 2], i = from, j = to;
    while (i <= j) {
        while (data[i] < pivot) ++i;
        while (data[j] > pivot) --j;
        if (i <= j) {
            int swap = data[i];
            data[i++] = data[j];
            data[j--] = swap;
        }
    }
    quicksort(data, from, j);
    quicksort(data, i, to);
}

__device__ __noinline__ void collect(long long *where, int value) { *where = *where * 31 + value; }

__global__ void work(const int *in, int *sorted, unsigned *values, long long *hashes, int length) {
    int local[64], t = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = 0; i < length; ++i) local[i] = in[t * length + i];
    quicksort(local, 0, length - 1);
    long long hash = 17;
    for (int i = 0; i < length; ++i) {
        sorted[t * length + i] = local[i];
        collect(&hash, local[(i * 7 + t) % length]);
    }
    hashes[t] = hash;
    values[t] = ackermann(t % 3, t % 5);
}

int main() {
    const int threads = 96, length = 33;
    std::vector<int> in(threads * length), sorted(threads * length);
    std::vector<unsigned> values(threads);
    std::vector<long long> hashes(threads);
    Random random(16);
    for (int &x : in) x = static_cast<int>(random.bits() % 1000) - 500;
    size_t limit = 0;
    CHECK(cudaDeviceSetLimit(cudaLimitStackSize, 8192));
    CHECK(cudaDeviceGetLimit(&limit, cudaLimitStackSize));
    REQUIRE(limit >= 8192);
    int *device_in, *device_sorted;
    unsigned *device_values;
    long long *device_hashes;
    CHECK(cudaMalloc(&device_in, in.size() * 4));
    CHECK(cudaMalloc(&device_sorted, in.size() * 4));
    CHECK(cudaMalloc(&device_values, threads * 4));
    CHECK(cudaMalloc(&device_hashes, threads * 8));
    CHECK(cudaMemcpy(device_in, in.data(), in.size() * 4, cudaMemcpyHostToDevice));
    work<<<3, threads / 3>>>(device_in, device_sorted, device_values, device_hashes, length);
    CHECK_LAUNCH();
    CHECK(cudaMemcpy(sorted.data(), device_sorted, in.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(values.data(), device_values, threads * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(hashes.data(), device_hashes, threads * 8, cudaMemcpyDeviceToHost));
    for (int t = 0; t < threads; ++t) {
        std::vector<int> own(in.begin() + t * length, in.begin() + (t + 1) * length);
        for (int i = 1; i < length; ++i)
            for (int j = i; j > 0 && own[j - 1] > own[j]; --j) std::swap(own[j - 1], own[j]);
        require_equal("sorted", &sorted[t * length], own.data(), length);
        long long hash = 17;
        for (int i = 0; i < length; ++i) hash = hash * 31 + own[(i * 7 + t) % length];
        REQUIRE(hashes[t] == hash);
        unsigned m = t % 3, n = t % 5, want = m == 0 ? n + 1 : m == 1 ? n + 2 : 2 * n + 3;
        REQUIRE(values[t] == want);
    }
    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, work));
    REQUIRE(attributes.localSizeBytes >= 64 * sizeof(int));
    std::printf("%d threads sorted %d values each and called down\n", threads, length);
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_sorted));
    CHECK(cudaFree(device_values));
    CHECK(cudaFree(device_hashes));
    return pass();
}
