// Proves order within a stream, order across streams through events (cudaStreamWaitEvent), the legacy default
// stream's barrier with blocking streams, priorities, flags and queries.
#include <vector>

#include "common.h"

__global__ void multiply_add(int *data, int count, int factor, int term) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = data[i] * factor + term;
}

int main() {
    const int count = 2048, streams = 4;
    size_t size = count * sizeof(int);
    cudaStream_t stream[streams];
    int *data[streams];
    std::vector<int> got(count), want(count);
    for (int s = 0; s < streams; ++s) {
        CHECK(cudaStreamCreateWithFlags(&stream[s], s % 2 ? cudaStreamNonBlocking : cudaStreamDefault));
        unsigned flags = 99;
        CHECK(cudaStreamGetFlags(stream[s], &flags));
        REQUIRE(flags == static_cast<unsigned>(s % 2 ? cudaStreamNonBlocking : cudaStreamDefault));
        CHECK(cudaMalloc(&data[s], size));
        CHECK(cudaMemsetAsync(data[s], 0, size, stream[s]));
    }

    // 50 dependent steps in each stream: x -> 3x + k. Any lost or swapped launch changes the result.
    for (int k = 1; k <= 50; ++k)
        for (int s = 0; s < streams; ++s) {
            multiply_add<<<divide_up(count, 256), 256, 0, stream[s]>>>(data[s], count, 3, k + s);
            CHECK_LAUNCH();
        }
    for (int s = 0; s < streams; ++s) {
        CHECK(cudaStreamSynchronize(stream[s]));
        CHECK(cudaStreamQuery(stream[s]));
        unsigned value = 0;
        for (int k = 1; k <= 50; ++k) value = value * 3 + k + s;
        CHECK(cudaMemcpy(got.data(), data[s], size, cudaMemcpyDeviceToHost));
        want.assign(count, static_cast<int>(value));
        require_equal("chain", got.data(), want.data(), count);
        std::printf("stream %d: %d\n", s, got[0]);
    }

    // A relay: one buffer handed round the streams with events; the only order is the events'.
    cudaEvent_t handed[streams];
    for (cudaEvent_t &event : handed) CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CHECK(cudaMemset(data[0], 0, size));
    CHECK(cudaDeviceSynchronize());
    unsigned relay = 0;
    for (int k = 0; k < 40; ++k) {
        int s = k % streams, previous = (k + streams - 1) % streams;
        if (k) CHECK(cudaStreamWaitEvent(stream[s], handed[previous], 0));
        multiply_add<<<divide_up(count, 256), 256, 0, stream[s]>>>(data[0], count, 5, k);
        CHECK_LAUNCH();
        CHECK(cudaEventRecord(handed[s], stream[s]));
        relay = relay * 5 + k;
    }
    CHECK(cudaEventSynchronize(handed[39 % streams]));
    CHECK(cudaEventQuery(handed[39 % streams]));
    CHECK(cudaMemcpy(got.data(), data[0], size, cudaMemcpyDeviceToHost));
    want.assign(count, static_cast<int>(relay));
    require_equal("relay", got.data(), want.data(), count);
    std::printf("relay: %d\n", got[0]);

    // The legacy default stream waits for blocking streams, and they wait for it.
    CHECK(cudaMemset(data[0], 0, size));
    unsigned legacy = 0;
    for (int k = 1; k <= 30; ++k) {
        multiply_add<<<divide_up(count, 256), 256, 0, k % 3 ? stream[k % 3 == 1 ? 0 : 2] : nullptr>>>(data[0], count, 7, k);
        CHECK_LAUNCH();
        // Streams 0 and 2 are not ordered with each other, so the default stream goes between them.
        if (k % 3 == 1) multiply_add<<<divide_up(count, 256), 256>>>(data[0], count, 1, 0);
        CHECK_LAUNCH();
        legacy = legacy * 7 + k;
    }
    CHECK(cudaMemcpy(got.data(), data[0], size, cudaMemcpyDeviceToHost));
    want.assign(count, static_cast<int>(legacy));
    require_equal("legacy barrier", got.data(), want.data(), count);
    std::printf("legacy barrier: %d\n", got[0]);

    int least = 0, greatest = 0, priority = 99;
    CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    REQUIRE(greatest <= least);
    cudaStream_t urgent;
    CHECK(cudaStreamCreateWithPriority(&urgent, cudaStreamNonBlocking, greatest));
    CHECK(cudaStreamGetPriority(urgent, &priority));
    REQUIRE(priority == greatest);
    CHECK(cudaStreamDestroy(urgent));

    for (int s = 0; s < streams; ++s) {
        CHECK(cudaEventDestroy(handed[s]));
        CHECK(cudaStreamDestroy(stream[s]));
        CHECK(cudaFree(data[s]));
    }
    return pass();
}
