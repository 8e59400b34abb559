// Proves that a long run of small launches is neither lost nor reordered and that queues with bounds only slow it
// down: N launches that each count, on one stream and on four, with and without reading back in between.
// Argument: launches (default 20000).
#include <chrono>

#include "common.h"

__global__ void empty() {}
__global__ void count_up(unsigned *counter) { *counter = *counter * 3 + 1; }

int main(int argc, char **argv) {
    int launches = argument(argc, argv, 1, 20000);
    auto begin = std::chrono::steady_clock::now();
    auto microseconds = [&] { return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count(); };
    empty<<<1, 1>>>();
    CHECK(cudaDeviceSynchronize());
    begin = std::chrono::steady_clock::now();
    for (int i = 0; i < launches; ++i) empty<<<1, 1>>>();
    CHECK_LAUNCH();
    double issued = microseconds();
    CHECK(cudaDeviceSynchronize());
    std::printf("time: %.2f us per launch to issue, %.2f us in all\n", issued / launches, microseconds() / launches);

    const int streams = 4;
    cudaStream_t stream[streams];
    unsigned *counters, got[streams], want = 0;
    CHECK(cudaMalloc(&counters, sizeof(got)));
    CHECK(cudaMemset(counters, 0, sizeof(got)));
    CHECK(cudaDeviceSynchronize());
    for (cudaStream_t &s : stream) CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    for (int i = 0; i < launches / streams; ++i) {
        for (int s = 0; s < streams; ++s) count_up<<<1, 1, 0, stream[s]>>>(counters + s);
        want = want * 3 + 1;
        if (i % 500 == 499) CHECK(cudaMemcpyAsync(&got[i / 500 % streams], counters + i / 500 % streams, 4, cudaMemcpyDeviceToHost, stream[i / 500 % streams]));
    }
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(got, counters, sizeof(got), cudaMemcpyDeviceToHost));
    for (unsigned g : got)
        if (g != want) fail("a counter is %u, expected %u", g, want);
    std::printf("%d launches on %d streams, each counter %u\n", launches / streams * streams, streams, want);
    for (cudaStream_t s : stream) CHECK(cudaStreamDestroy(s));
    CHECK(cudaFree(counters));
    return pass();
}
