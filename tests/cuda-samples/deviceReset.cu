// Proves cudaDeviceReset: it ends all work, frees everything, gives variables their first values again, and the
// program goes on as if it had just started, several times and from several threads.
#include <thread>

#include "common.h"

__device__ int state = 11;

__global__ void change(int *data, int value) {
    data[threadIdx.x] = state + value;
    __syncthreads();
    if (threadIdx.x == 0) state = value;
}

void round_trip(int round) {
    int *data, host[32], value = 0;
    size_t limit = 0;
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMalloc(&data, sizeof(host)));
    change<<<1, 32, 0, stream>>>(data, round);
    CHECK_LAUNCH();
    CHECK(cudaMemcpyAsync(host, data, sizeof(host), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int x : host) REQUIRE(x == 11 + round);
    CHECK(cudaMemcpyFromSymbol(&value, state, sizeof(value)));
    REQUIRE(value == round);
    CHECK(cudaDeviceSetLimit(cudaLimitStackSize, 2048 + 1024 * round));
    CHECK(cudaDeviceGetLimit(&limit, cudaLimitStackSize));
    REQUIRE(limit >= size_t(2048 + 1024 * round));
    // Nothing is freed: the reset does it.
    std::printf("round %d\n", round);
}

int main() {
    size_t first = 0, later = 0;
    CHECK(cudaDeviceGetLimit(&first, cudaLimitStackSize));
    for (int round = 1; round <= 3; ++round) {
        round_trip(round);
        // Work is still running when the reset comes.
        int *data;
        CHECK(cudaMalloc(&data, 128));
        for (int i = 0; i < 20; ++i) change<<<1, 32>>>(data, 5);
        CHECK(cudaDeviceReset());
        CHECK(cudaDeviceGetLimit(&later, cudaLimitStackSize));
        REQUIRE(later == first);
    }
    std::thread([] {
        round_trip(4);
        CHECK(cudaDeviceReset());
    }).join();
    round_trip(5);
    // A pointer of an earlier life is not one of this life (unless the same address was given out again).
    CHECK(cudaDeviceReset());
    EXPECT(cudaErrorInvalidValue, cudaFree(reinterpret_cast<void *>(0x1000)));
    cudaGetLastError();
    CHECK(cudaDeviceReset());
    return pass();
}
