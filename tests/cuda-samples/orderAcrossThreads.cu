// Proves that work queued by one host thread before it signals another is done when that other thread has synchronised:
// thread A launches a kernel, signals a condition variable, thread B synchronises, copies the result and answers.
// A system with one channel per thread that may reorder across threads fails here.
// Built twice: orderAcrossThreads (legacy default stream) and orderAcrossThreadsPTDS (per-thread default streams,
// where B waits for A's stream through an event or for the whole device).
// Argument: rounds (default 10000).
#include <condition_variable>
#include <mutex>
#include <thread>

#include "common.h"

__global__ void store(int *data, int value) { *data = value; }

// A value handed from one thread to another, one at a time.
struct Handover {
    std::mutex lock;
    std::condition_variable changed;
    int value = 0;
    void set(int next) {
        std::lock_guard<std::mutex> guard(lock);
        value = next;
        changed.notify_one();
    }
    void wait_for(int wanted) {
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [&] { return value == wanted; });
    }
};

int main(int argc, char **argv) {
    int rounds = argument(argc, argv, 1, 10000);
    int *data;
    CHECK(cudaMalloc(&data, sizeof(int)));
    CHECK(cudaMemset(data, 0, sizeof(int)));
    CHECK(cudaDeviceSynchronize());
    cudaStream_t stream;
    cudaEvent_t event;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    Handover launched, checked;
    int wrong = 0, first_wrong = 0, first_value = 0;

    std::thread b([&] {
        for (int round = 1; round <= rounds; ++round) {
            launched.wait_for(round);
            int value = -1;
            switch (round % 4) {
            case 0:  // A used its default stream; the whole device is waited for.
                CHECK(cudaDeviceSynchronize());
                CHECK(cudaMemcpy(&value, data, sizeof(int), cudaMemcpyDeviceToHost));
                break;
            case 1:  // A used a shared stream, B copies on the same one.
                CHECK(cudaMemcpyAsync(&value, data, sizeof(int), cudaMemcpyDeviceToHost, stream));
                CHECK(cudaStreamSynchronize(stream));
                break;
            case 2:  // A recorded an event, B waits for it on the host.
                CHECK(cudaEventSynchronize(event));
                CHECK(cudaMemcpy(&value, data, sizeof(int), cudaMemcpyDeviceToHost));
                break;
            case 3:  // A recorded an event, B's own stream waits for it.
                CHECK(cudaStreamWaitEvent(cudaStreamPerThread, event, 0));
                CHECK(cudaMemcpyAsync(&value, data, sizeof(int), cudaMemcpyDeviceToHost, cudaStreamPerThread));
                CHECK(cudaStreamSynchronize(cudaStreamPerThread));
                break;
            }
            if (value != round && !wrong++) {
                first_wrong = round;
                first_value = value;
            }
            checked.set(round);
        }
    });

    for (int round = 1; round <= rounds; ++round) {
        cudaStream_t s = round % 4 == 1 ? stream : nullptr;
        store<<<1, 1, 0, s>>>(data, round);
        CHECK_LAUNCH();
        if (round % 4 >= 2) CHECK(cudaEventRecord(event, s));
        launched.set(round);
        checked.wait_for(round);
    }
    b.join();
    std::printf("%d rounds, %d wrong\n", rounds, wrong);
    if (wrong) fail("first in round %d, which read %d", first_wrong, first_value);
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(data));
    return pass();
}
