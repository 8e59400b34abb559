// Host functions that much depends on: results of a graph larger than any buffer come before the function that looks at them,
// though the program makes no call meanwhile; what a function writes is there for the copy behind it, and the function ends,
// while a call stands still and more calls than fit anywhere wait behind that.
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "common.h"

__global__ void fill(int *data, int count, int value) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) data[index] = value + index;
}

__global__ void add_one(int *value) { *value += 1; }

// Kernels that have not been launched yet: to load one the driver may wait for all that the context has to do.
template <int N> __global__ void add(int *value) { *value += N; }

using Launch = void (*)(int *, cudaStream_t);
template <int N> void launch_add(int *value, cudaStream_t stream) { add<N><<<1, 1, 0, stream>>>(value); }
const Launch fresh[] = {launch_add<1>, launch_add<2>, launch_add<3>, launch_add<4>, launch_add<5>};
const int rounds = sizeof(fresh) / sizeof(*fresh);

struct Check {
    const std::vector<int> *results;
    int value;
    std::atomic<int> done;
};

void CUDART_CB check(void *argument) {
    Check *check = static_cast<Check *>(argument);
    int right = 1;
    for (size_t i = 0; i < check->results->size(); ++i)
        if ((*check->results)[i] != check->value + int(i)) right = -1;
    check->done = right;
}

struct Source {
    std::vector<int> *memory;
    std::atomic<int> value;
};

void CUDART_CB write_late(void *argument) {
    Source *source = static_cast<Source *>(argument);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int &one : *source->memory) one = source->value;
}

void CUDART_CB pause_long(void *) { std::this_thread::sleep_for(std::chrono::milliseconds(400)); }

int main() {
    cudaStream_t stream, other;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    int *value;
    CHECK(cudaMalloc(&value, sizeof(int)));
    CHECK(cudaMemset(value, 0, sizeof(int)));
    CHECK(cudaDeviceSynchronize());

    // A graph's results, in memory that is not page-locked.
    const int count = 4 << 20;
    int *device;
    std::vector<int> results(count);
    Check seen = {&results, 0, {0}};
    CHECK(cudaMalloc(&device, count * sizeof(int)));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphNode_t filled, copied, called;
    CHECK(cudaGraphCreate(&graph, 0));
    int size = count;
    void *arguments[] = {&device, &size, &seen.value};
    cudaKernelNodeParams kernel = {};
    kernel.func = reinterpret_cast<void *>(fill);
    kernel.gridDim = dim3(count / 256);
    kernel.blockDim = dim3(256);
    kernel.kernelParams = arguments;
    CHECK(cudaGraphAddKernelNode(&filled, graph, nullptr, 0, &kernel));
    CHECK(cudaGraphAddMemcpyNode1D(&copied, graph, &filled, 1, results.data(), device, count * sizeof(int), cudaMemcpyDeviceToHost));
    cudaHostNodeParams host = {check, &seen};
    CHECK(cudaGraphAddHostNode(&called, graph, &copied, 1, &host));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphLaunch(exec, stream));
    auto begun = std::chrono::steady_clock::now();
    while (seen.done == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        if (std::chrono::steady_clock::now() - begun > std::chrono::seconds(20)) fail("the host function was not called");
    }
    REQUIRE(seen.done == 1);
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    std::printf("a host function saw %d results of its graph\n", count);

    // What a host function writes, copied by the next node, while a launch waits. In page-locked memory: of other memory a graph
    // copies what was there when it was launched or before (measured on an H200, driver 580).
    std::vector<int> memory(100000), back(memory.size());
    CHECK(cudaHostRegister(memory.data(), memory.size() * sizeof(int), cudaHostRegisterDefault));
    Source source = {&memory, {0}};
    int *copy;
    CHECK(cudaMalloc(&copy, memory.size() * sizeof(int)));
    CHECK(cudaGraphCreate(&graph, 0));
    cudaHostNodeParams writer = {write_late, &source};
    CHECK(cudaGraphAddHostNode(&called, graph, nullptr, 0, &writer));
    CHECK(cudaGraphAddMemcpyNode1D(&copied, graph, &called, 1, copy, memory.data(), memory.size() * sizeof(int), cudaMemcpyHostToDevice));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    int total = 0;
    for (int i = 0; i < rounds; ++i) {
        source.value = 1000 + i;
        CHECK(cudaGraphLaunch(exec, stream));
        fresh[i](value, other);
        CHECK_LAUNCH();
        total += i + 1;
        CHECK(cudaStreamSynchronize(other));
        CHECK(cudaStreamSynchronize(stream));
        CHECK(cudaMemcpy(back.data(), copy, back.size() * sizeof(int), cudaMemcpyDeviceToHost));
        for (int one : back)
            if (one != 1000 + i) fail("round %d: the copy behind a host function has %d", i, one);
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaHostUnregister(memory.data()));
    std::printf("%d copies of what host functions wrote\n", rounds);

    // More launches than fit anywhere, behind one that waits for a host function.
    const int launches = 100000;
    add_one<<<1, 1, 0, other>>>(value);
    CHECK_LAUNCH();
    CHECK(cudaStreamSynchronize(other));
    CHECK(cudaLaunchHostFunc(stream, pause_long, nullptr));
    add<100><<<1, 1, 0, stream>>>(value);
    for (int i = 0; i < launches; ++i) add_one<<<1, 1, 0, stream>>>(value);
    CHECK_LAUNCH();
    CHECK(cudaDeviceSynchronize());
    int found = 0;
    CHECK(cudaMemcpy(&found, value, sizeof(int), cudaMemcpyDeviceToHost));
    std::printf("%d launches behind a host function\n", found - total - 101);
    REQUIRE(found == total + 101 + launches);
    CHECK(cudaFree(copy));
    CHECK(cudaFree(device));
    CHECK(cudaFree(value));
    CHECK(cudaStreamDestroy(other));
    CHECK(cudaStreamDestroy(stream));
    return pass();
}
