// Proves host functions in streams: cudaLaunchHostFunc and cudaStreamAddCallback run in stream order, see what copies
// before them brought and delay what comes after them; each runs exactly once and the callback gets its status. Launches that
// the driver makes wait for one do not keep it from returning, nor does memory that is freed meanwhile.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "common.h"

__global__ void add_one(int *data) { ++*data; }
__global__ void add_two(int *data) { *data += 2; }

struct Step {
    std::vector<int> *log;
    const int *seen;
    int number;
};

std::mutex log_lock;

void CUDART_CB host_function(void *argument) {
    Step *step = static_cast<Step *>(argument);
    std::lock_guard<std::mutex> guard(log_lock);
    step->log->push_back(step->number * 1000 + *step->seen);
}

void CUDART_CB stream_callback(cudaStream_t, cudaError_t status, void *argument) {
    Step *step = static_cast<Step *>(argument);
    std::lock_guard<std::mutex> guard(log_lock);
    step->log->push_back(step->number * 1000 + (status == cudaSuccess ? 500 : 900) + *step->seen);
}

struct Writer {
    int *pinned;
    int value;
};

void CUDART_CB slow_writer(void *argument) {
    Writer *writer = static_cast<Writer *>(argument);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    *writer->pinned = writer->value;
}

int main() {
    const int rounds = 40;
    cudaStream_t stream;
    int *device, *pinned;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMalloc(&device, sizeof(int)));
    CHECK(cudaMallocHost(&pinned, rounds * sizeof(int)));
    CHECK(cudaMemsetAsync(device, 0, sizeof(int), stream));
    std::memset(pinned, 0xff, rounds * sizeof(int));
    std::vector<int> log;
    std::vector<Step> steps(rounds);
    for (int i = 0; i < rounds; ++i) {
        steps[i] = {&log, &pinned[i], i};
        add_one<<<1, 1, 0, stream>>>(device);
        CHECK_LAUNCH();
        CHECK(cudaMemcpyAsync(&pinned[i], device, sizeof(int), cudaMemcpyDeviceToHost, stream));
        if (i % 2)
            CHECK(cudaStreamAddCallback(stream, stream_callback, &steps[i], 0));
        else
            CHECK(cudaLaunchHostFunc(stream, host_function, &steps[i]));
    }
    CHECK(cudaStreamSynchronize(stream));
    if (log.size() != rounds) fail("%zu host functions ran, not %d", log.size(), rounds);
    for (int i = 0; i < rounds; ++i) {
        int want = i * 1000 + (i % 2 ? 500 : 0) + i + 1;
        if (log[i] != want) fail("host function %d logged %d, expected %d", i, log[i], want);
    }
    std::printf("%d host functions in order\n", rounds);

    // A copy queued after a slow host function must see what that function wrote.
    Writer writers[3];
    for (int i = 0; i < 3; ++i) {
        writers[i] = {&pinned[0], 100 + i};
        int back = 0;
        CHECK(cudaLaunchHostFunc(stream, slow_writer, &writers[i]));
        CHECK(cudaMemcpyAsync(device, &pinned[0], sizeof(int), cudaMemcpyHostToDevice, stream));
        add_one<<<1, 1, 0, stream>>>(device);
        CHECK_LAUNCH();
        CHECK(cudaMemcpyAsync(&pinned[1], device, sizeof(int), cudaMemcpyDeviceToHost, stream));
        CHECK(cudaStreamSynchronize(stream));
        back = pinned[1];
        std::printf("after the slow host function: %d\n", back);
        REQUIRE(back == 101 + i);
    }

    // Streams wait for each other's host functions through events, and cudaDeviceSynchronize waits for all.
    cudaStream_t other;
    cudaEvent_t event;
    std::atomic<int> done{0};
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&event));
    Writer late = {&pinned[2], 77};
    CHECK(cudaLaunchHostFunc(other, slow_writer, &late));
    CHECK(cudaEventRecord(event, other));
    CHECK(cudaStreamWaitEvent(stream, event, 0));
    CHECK(cudaMemcpyAsync(device, &pinned[2], sizeof(int), cudaMemcpyHostToDevice, stream));
    CHECK(cudaLaunchHostFunc(other, [](void *p) { ++*static_cast<std::atomic<int> *>(p); }, &done));
    CHECK(cudaDeviceSynchronize());
    REQUIRE(done == 1);
    int value = 0;
    CHECK(cudaMemcpy(&value, device, sizeof(int), cudaMemcpyDeviceToHost));
    REQUIRE(value == 77);

    // Freeing waits for everything, and must hear of host functions meanwhile.
    int *extra;
    CHECK(cudaMalloc(&extra, sizeof(int)));
    CHECK(cudaLaunchHostFunc(other, slow_writer, &late));
    CHECK(cudaLaunchHostFunc(stream, slow_writer, &late));
    CHECK(cudaFree(extra));

    // To load a kernel that has not been launched yet, the driver may wait for all that the context has to do; and a launch
    // waits where more are in flight than there is room for.
    const int launches = 3000;
    CHECK(cudaMemset(device, 0, sizeof(int)));
    CHECK(cudaLaunchHostFunc(other, slow_writer, &late));
    add_two<<<1, 1, 0, stream>>>(device);
    CHECK_LAUNCH();
    CHECK(cudaLaunchHostFunc(stream, slow_writer, &late));
    for (int i = 0; i < launches; ++i) add_one<<<1, 1, 0, stream>>>(device);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(&value, device, sizeof(int), cudaMemcpyDeviceToHost));
    std::printf("%d launches behind host functions\n", value - 1);
    REQUIRE(value == launches + 2);
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(other));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
    CHECK(cudaFreeHost(pinned));
    return pass();
}
