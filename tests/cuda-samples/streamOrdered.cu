// Proves stream-ordered allocation: cudaMallocAsync and cudaFreeAsync in order with kernels, reuse, use on another
// stream through an event, an own pool with a threshold, pool attributes, trimming, and mixing with cudaFree.
#include <vector>

#include "common.h"

__global__ void fill(int *data, int count, int value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = value + i;
}

__global__ void add(const int *a, const int *b, int *c, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) c[i] = a[i] + b[i];
}

int main() {
    int supported = 0;
    CHECK(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, 0));
    if (!supported) {
        std::printf("waived: the device has no memory pools\n");
        return 2;
    }
    const int count = 3000;
    size_t size = count * sizeof(int);
    cudaStream_t stream, other;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    std::vector<int> host(count);
    int *sum;
    CHECK(cudaMalloc(&sum, size));
    // Allocated, used and freed in stream order, without any synchronisation between the rounds.
    for (int round = 0; round < 20; ++round) {
        int *a, *b;
        CHECK(cudaMallocAsync(&a, size, stream));
        CHECK(cudaMallocAsync(&b, size, stream));
        fill<<<divide_up(count, 128), 128, 0, stream>>>(a, count, round);
        fill<<<divide_up(count, 128), 128, 0, stream>>>(b, count, 1000);
        add<<<divide_up(count, 128), 128, 0, stream>>>(a, b, sum, count);
        CHECK_LAUNCH();
        CHECK(cudaFreeAsync(a, stream));
        CHECK(cudaFreeAsync(b, stream));
    }
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(host.data(), sum, size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i) REQUIRE(host[i] == 1019 + 2 * i);
    std::printf("20 rounds in stream order\n");

    // Allocated on one stream, used on another, freed there.
    int *shared;
    cudaEvent_t ready;
    CHECK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    CHECK(cudaMallocAsync(&shared, size, stream));
    fill<<<divide_up(count, 128), 128, 0, stream>>>(shared, count, 7);
    CHECK_LAUNCH();
    CHECK(cudaEventRecord(ready, stream));
    CHECK(cudaStreamWaitEvent(other, ready, 0));
    CHECK(cudaMemcpyAsync(host.data(), shared, size, cudaMemcpyDeviceToHost, other));
    CHECK(cudaFreeAsync(shared, other));
    CHECK(cudaStreamSynchronize(other));
    for (int i = 0; i < count; ++i) REQUIRE(host[i] == 7 + i);
    std::printf("across streams\n");

    cudaMemPool_t pool, standard;
    CHECK(cudaDeviceGetDefaultMemPool(&standard, 0));
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = 0;
    CHECK(cudaMemPoolCreate(&pool, &properties));
    uint64_t threshold = ~0ull, value = 0;
    CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &value));
    REQUIRE(value == threshold);
    int *own;
    CHECK(cudaMallocFromPoolAsync(&own, 1 << 20, pool, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &value));
    REQUIRE(value >= 1 << 20);
    CHECK(cudaFreeAsync(own, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &value));
    REQUIRE(value == 0);
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &value));
    REQUIRE(value >= 1 << 20);
    CHECK(cudaMemPoolTrimTo(pool, 0));
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &value));
    REQUIRE(value == 0);
    std::printf("an own pool, kept by its threshold, trimmed\n");
    CHECK(cudaMemPoolDestroy(pool));

    // cudaFree takes an allocation of a pool as well, once nothing uses it: it does not wait for the stream.
    CHECK(cudaMallocAsync(&own, size, stream));
    fill<<<divide_up(count, 128), 128, 0, stream>>>(own, count, 1);
    CHECK_LAUNCH();
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaFree(own));
    CHECK(cudaDeviceSynchronize());
    int *nothing = reinterpret_cast<int *>(1);
    EXPECT(cudaErrorMemoryAllocation, cudaMallocAsync(&nothing, size_t(1) << 46, stream));
    cudaGetLastError();
    CHECK(cudaEventDestroy(ready));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaStreamDestroy(other));
    CHECK(cudaFree(sum));
    return pass();
}
