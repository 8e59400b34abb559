// Proves memory pools beyond plain stream-ordered allocation: the device's current pool and its default one, every
// attribute and its two widths, high watermarks, the access of a pool, pointer attributes of pool memory, memory of
// cudaMalloc freed in stream order and pool memory freed by cudaFree, what a destroyed pool leaves usable, and refusals.
#include <vector>

#include "common.h"

__global__ void scale(float *data, int count, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = data[i] * factor + i;
}

static uint64_t attribute(cudaMemPool_t pool, cudaMemPoolAttr which) {
    uint64_t value = 0;
    CHECK(cudaMemPoolGetAttribute(pool, which, &value));
    return value;
}

static cudaMemPool_t make_pool() {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = 0;
    cudaMemPool_t pool;
    CHECK(cudaMemPoolCreate(&pool, &properties));
    return pool;
}

int main() {
    int supported = 0;
    CHECK(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, 0));
    if (!supported) {
        std::printf("waived: the device has no memory pools\n");
        return 2;
    }
    const int count = 100000;
    const size_t size = count * sizeof(float);
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));

    // The current pool is the default one until another is set, and again when that one is destroyed.
    cudaMemPool_t standard, current, own = make_pool();
    CHECK(cudaDeviceGetDefaultMemPool(&standard, 0));
    CHECK(cudaDeviceGetMemPool(&current, 0));
    REQUIRE(current == standard);
    REQUIRE(own != standard);
    CHECK(cudaDeviceSetMemPool(0, own));
    CHECK(cudaDeviceGetMemPool(&current, 0));
    REQUIRE(current == own);
    std::printf("current pool\n");

    // An allocation comes from the current pool and says so.
    uint64_t before = attribute(own, cudaMemPoolAttrUsedMemCurrent);
    float *data;
    CHECK(cudaMallocAsync(&data, size, stream));
    REQUIRE(attribute(own, cudaMemPoolAttrUsedMemCurrent) >= before + size);
    REQUIRE(attribute(own, cudaMemPoolAttrReservedMemCurrent) >= attribute(own, cudaMemPoolAttrUsedMemCurrent));
    cudaPointerAttributes told;
    CHECK(cudaPointerGetAttributes(&told, data));
    REQUIRE(told.type == cudaMemoryTypeDevice && told.device == 0 && told.devicePointer == data);
    std::vector<float> host(count, 1.0f);
    CHECK(cudaMemcpyAsync(data, host.data(), size, cudaMemcpyHostToDevice, stream));
    scale<<<divide_up(count, 256), 256, 0, stream>>>(data, count, 3.0f);
    CHECK_LAUNCH();
    CHECK(cudaMemcpyAsync(host.data(), data, size, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(host[i] == 3.0f + i);
    CHECK(cudaFreeAsync(data, stream));
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(attribute(own, cudaMemPoolAttrUsedMemCurrent) == before);
    REQUIRE(attribute(own, cudaMemPoolAttrUsedMemHigh) >= before + size);
    uint64_t zero = 0;
    CHECK(cudaMemPoolSetAttribute(own, cudaMemPoolAttrUsedMemHigh, &zero));
    REQUIRE(attribute(own, cudaMemPoolAttrUsedMemHigh) < before + size);
    std::printf("used, and its high watermark\n");

    // The first three attributes are ints.
    for (auto which : {cudaMemPoolReuseFollowEventDependencies, cudaMemPoolReuseAllowOpportunistic,
                       cudaMemPoolReuseAllowInternalDependencies}) {
        int pair[2] = {-1, -1};
        CHECK(cudaMemPoolGetAttribute(own, which, pair));
        REQUIRE(pair[0] == 1 && pair[1] == -1);
        int off = 0;
        CHECK(cudaMemPoolSetAttribute(own, which, &off));
        CHECK(cudaMemPoolGetAttribute(own, which, pair));
        REQUIRE(pair[0] == 0);
    }
    uint64_t threshold = 64 << 20;
    CHECK(cudaMemPoolSetAttribute(own, cudaMemPoolAttrReleaseThreshold, &threshold));
    REQUIRE(attribute(own, cudaMemPoolAttrReleaseThreshold) == threshold);
    std::printf("attributes\n");

    // The device has access to its own pool.
    cudaMemLocation location = {};
    location.type = cudaMemLocationTypeDevice;
    location.id = 0;
    cudaMemAccessFlags flags;
    CHECK(cudaMemPoolGetAccess(&flags, own, &location));
    REQUIRE(flags == cudaMemAccessFlagsProtReadWrite);

    // Kept below the threshold, given back by trimming, down to what is asked.
    std::vector<float *> pieces(8);
    for (auto &piece : pieces) CHECK(cudaMallocFromPoolAsync(&piece, 1 << 20, own, stream));
    for (auto piece : pieces) CHECK(cudaFreeAsync(piece, stream));
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(attribute(own, cudaMemPoolAttrReservedMemCurrent) >= 8 << 20);
    CHECK(cudaMemPoolTrimTo(own, 0));
    REQUIRE(attribute(own, cudaMemPoolAttrReservedMemCurrent) == 0);
    std::printf("kept and trimmed\n");

    // Memory of cudaMalloc may be freed in stream order, pool memory by cudaFree.
    float *plain, *pooled;
    CHECK(cudaMalloc(&plain, size));
    CHECK(cudaMemsetAsync(plain, 0, size, stream));
    CHECK(cudaFreeAsync(plain, stream));
    CHECK(cudaMallocAsync(&pooled, size, stream));
    CHECK(cudaMemsetAsync(pooled, 0, size, stream));
    CHECK(cudaFree(pooled));
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(cudaErrorInvalidValue, cudaFree(pooled));
    cudaGetLastError();
    std::printf("freed the other way\n");

    // A destroyed pool's memory lives until it is freed; the default pool is current again.
    CHECK(cudaMallocAsync(&data, size, stream));
    CHECK(cudaMemcpyAsync(data, host.data(), size, cudaMemcpyHostToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolDestroy(own));
    CHECK(cudaDeviceGetMemPool(&current, 0));
    REQUIRE(current == standard);
    scale<<<divide_up(count, 256), 256, 0, stream>>>(data, count, 2.0f);
    CHECK_LAUNCH();
    CHECK(cudaMemcpyAsync(host.data(), data, size, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < count; ++i) REQUIRE(host[i] == 2.0f * (3.0f + i) + i);
    CHECK(cudaFreeAsync(data, stream));
    CHECK(cudaStreamSynchronize(stream));
    std::printf("after the pool\n");

    CHECK(cudaStreamDestroy(stream));
    return pass();
}
