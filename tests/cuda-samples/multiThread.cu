// Proves host threads sharing one context: each thread allocates, copies, launches and frees on its own stream and on
// the default stream, while the others do; a last part passes work between threads through an event.
// Built twice: multiThread with the legacy default stream, multiThreadPTDS with per-thread default streams.
// Arguments: threads (default 6), rounds (default 20).
#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common.h"

__global__ void step(unsigned *data, int count, unsigned salt) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] = data[i] * 1664525u + 1013904223u + salt;
}

void work(int thread, int rounds) {
    const int count = 700;
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, thread % 2 ? cudaStreamNonBlocking : cudaStreamDefault));
    std::vector<unsigned> host(count), want(count);
    for (int round = 0; round < rounds; ++round) {
        // Odd rounds use the default stream: the same one for all threads, or each thread's own.
        cudaStream_t s = round % 2 ? nullptr : stream;
        unsigned *data;
        CHECK(cudaMalloc(&data, count * sizeof(unsigned)));
        for (int i = 0; i < count; ++i) host[i] = want[i] = i * 31u + thread * 1000u + round;
        CHECK(cudaMemcpyAsync(data, host.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice, s));
        for (unsigned k = 0; k < 5; ++k) {
            step<<<divide_up(count, 128), 128, 0, s>>>(data, count, k + thread);
            CHECK_LAUNCH();
            for (unsigned &x : want) x = x * 1664525u + 1013904223u + k + thread;
        }
        CHECK(cudaMemcpyAsync(host.data(), data, count * sizeof(unsigned), cudaMemcpyDeviceToHost, s));
        CHECK(cudaStreamSynchronize(s));
        for (int i = 0; i < count; ++i)
            if (host[i] != want[i]) fail("thread %d, round %d, element %d: %u, expected %u", thread, round, i, host[i], want[i]);
        CHECK(cudaFree(data));
    }
    CHECK(cudaStreamDestroy(stream));
}

int main(int argc, char **argv) {
    int threads = argument(argc, argv, 1, 6), rounds = argument(argc, argv, 2, 20);
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t) running.emplace_back(work, t, rounds);
    for (std::thread &thread : running) thread.join();
    std::printf("%d threads, %d rounds each\n", threads, rounds);

    // Errors are per thread: one thread's failed call is not another's last error.
    void *nothing = nullptr;
    EXPECT(cudaErrorInvalidValue, cudaMemcpy(nothing, nothing, 16, cudaMemcpyHostToDevice));
    cudaError_t seen = cudaErrorUnknown;
    std::thread([&] { seen = cudaGetLastError(); }).join();
    REQUIRE(seen == cudaSuccess);
    EXPECT(cudaErrorInvalidValue, cudaGetLastError());

    // Work queued by one thread, waited for by another through an event, continued by a third.
    unsigned *data, result = 0;
    cudaEvent_t event;
    CHECK(cudaMalloc(&data, sizeof(unsigned)));
    CHECK(cudaMemset(data, 0, sizeof(unsigned)));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    std::thread([&] {
        for (int i = 0; i < 50; ++i) step<<<1, 1, 0, cudaStreamPerThread>>>(data, 1, i);
        CHECK_LAUNCH();
        CHECK(cudaEventRecord(event, cudaStreamPerThread));
    }).join();
    std::thread([&] {
        CHECK(cudaStreamWaitEvent(cudaStreamPerThread, event, 0));
        step<<<1, 1, 0, cudaStreamPerThread>>>(data, 1, 99);
        CHECK_LAUNCH();
        CHECK(cudaMemcpyAsync(&result, data, sizeof(unsigned), cudaMemcpyDeviceToHost, cudaStreamPerThread));
        CHECK(cudaStreamSynchronize(cudaStreamPerThread));
    }).join();
    unsigned want = 0;
    for (int i = 0; i < 50; ++i) want = want * 1664525u + 1013904223u + i;
    want = want * 1664525u + 1013904223u + 99;
    std::printf("relay through threads: %u\n", result);
    REQUIRE(result == want);
    CHECK(cudaEventDestroy(event));
    CHECK(cudaFree(data));
    return pass();
}
