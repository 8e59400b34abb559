// Proves event times: never negative, additive along a stream, longer for more work, not shorter than a kernel that
// watches the device's own clock, and of the same size as the host's clock says.
#include <chrono>

#include "common.h"

// Runs for a number of nanoseconds of the device's global timer.
__global__ void wait_nanoseconds(unsigned long long nanoseconds) {
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begin < nanoseconds);
}

int main() {
    cudaStream_t stream;
    cudaEvent_t event[4];
    CHECK(cudaStreamCreate(&stream));
    for (cudaEvent_t &e : event) CHECK(cudaEventCreate(&e));
    wait_nanoseconds<<<1, 1, 0, stream>>>(1000);
    CHECK_LAUNCH();
    CHECK(cudaStreamSynchronize(stream));

    auto host_begin = std::chrono::steady_clock::now();
    CHECK(cudaEventRecord(event[0], stream));
    wait_nanoseconds<<<1, 1, 0, stream>>>(20000000);
    CHECK_LAUNCH();
    CHECK(cudaEventRecord(event[1], stream));
    cudaError_t early = cudaEventQuery(event[1]);
    wait_nanoseconds<<<1, 1, 0, stream>>>(60000000);
    CHECK_LAUNCH();
    CHECK(cudaEventRecord(event[2], stream));
    CHECK(cudaEventRecord(event[3], stream));
    // The kernel needs 20 ms and the calls some microseconds.
    REQUIRE(early == cudaErrorNotReady || early == cudaSuccess);
    CHECK(cudaEventSynchronize(event[3]));
    double host = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - host_begin).count();
    float first, second, both, nothing;
    CHECK(cudaEventElapsedTime(&first, event[0], event[1]));
    CHECK(cudaEventElapsedTime(&second, event[1], event[2]));
    CHECK(cudaEventElapsedTime(&both, event[0], event[2]));
    CHECK(cudaEventElapsedTime(&nothing, event[2], event[3]));
    std::printf("time: %.3f ms, %.3f ms, both %.3f ms, nothing %.3f ms, host %.3f ms\n", first, second, both, nothing, host);
    REQUIRE(first >= 19.9f && second >= 59.9f && nothing >= 0);
    REQUIRE(std::fabs(first + second - both) < 0.01f * both + 0.1f);
    REQUIRE(both <= host * 1.01 + 0.5);
    std::printf("ordered, additive and within the host's time\n");

    // Recording again replaces the earlier time; query says not ready until it is reached.
    CHECK(cudaEventRecord(event[0], stream));
    CHECK(cudaEventSynchronize(event[0]));
    CHECK(cudaEventQuery(event[0]));
    float backwards;
    CHECK(cudaEventElapsedTime(&backwards, event[0], event[1]));
    REQUIRE(backwards < 0);
    for (cudaEvent_t e : event) CHECK(cudaEventDestroy(e));
    CHECK(cudaStreamDestroy(stream));
    return pass();
}
