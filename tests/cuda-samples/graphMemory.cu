// Proves memory that graphs allocate: allocation and free nodes built by hand, stream-ordered allocation captured, memory
// that outlives its graph's launch, memory freed by the next launch, and the account of it.
#include <vector>

#include "common.h"

const int count = 4096;
const size_t size = count * sizeof(int);

__global__ void fill(int *to, int value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = value + i;
}

__global__ void move(const int *from, int *to) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = from[i] * 2;
}

template <typename... Arguments>
cudaGraphNode_t kernel(cudaGraph_t graph, cudaGraphNode_t after, void *function, Arguments... arguments) {
    void *pointers[] = {&arguments...};
    cudaKernelNodeParams params = {};
    params.func = function;
    params.gridDim = dim3(count / 256);
    params.blockDim = dim3(256);
    params.kernelParams = pointers;
    cudaGraphNode_t node;
    CHECK(cudaGraphAddKernelNode(&node, graph, &after, 1, &params));
    return node;
}

cudaMemAllocNodeParams allocation() {
    cudaMemAllocNodeParams params = {};
    params.poolProps.allocType = cudaMemAllocationTypePinned;
    params.poolProps.location.type = cudaMemLocationTypeDevice;
    params.poolProps.location.id = 0;
    params.bytesize = size;
    return params;
}

void expect(const int *device, int first, const char *what) {
    std::vector<int> values(count);
    CHECK(cudaMemcpy(values.data(), device, size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i)
        if (values[i] != (first + i) * 2) fail("%s: element %d is %d", what, i, values[i]);
    std::printf("%s: %d\n", what, values[0]);
}

int main() {
    int *out;
    CHECK(cudaMalloc(&out, size));
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

    // Allocated, used and freed inside.
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaGraphCreate(&graph, 0));
    cudaGraphNode_t alloc_node, free_node;
    cudaMemAllocNodeParams params = allocation();
    CHECK(cudaGraphAddMemAllocNode(&alloc_node, graph, nullptr, 0, &params));
    int *inside = static_cast<int *>(params.dptr);
    REQUIRE(inside != nullptr);
    cudaMemAllocNodeParams asked;
    CHECK(cudaGraphMemAllocNodeGetParams(alloc_node, &asked));
    REQUIRE(asked.dptr == inside && asked.bytesize == size);
    cudaGraphNode_t filled = kernel(graph, alloc_node, reinterpret_cast<void *>(fill), inside, 10);
    cudaGraphNode_t moved = kernel(graph, filled, reinterpret_cast<void *>(move), static_cast<const int *>(inside), out);
    CHECK(cudaGraphAddMemFreeNode(&free_node, graph, &moved, 1, inside));
    void *freed = nullptr;
    CHECK(cudaGraphMemFreeNodeGetParams(free_node, &freed));
    REQUIRE(freed == inside);
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect(out, 10, "inside a graph");

    // Captured.
    cudaGraph_t captured;
    cudaGraphExec_t captured_exec;
    int *temporary;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMallocAsync(&temporary, size, stream));
    fill<<<count / 256, 256, 0, stream>>>(temporary, 20);
    move<<<count / 256, 256, 0, stream>>>(temporary, out);
    CHECK(cudaFreeAsync(temporary, stream));
    CHECK(cudaStreamEndCapture(stream, &captured));
    size_t nodes = 0;
    CHECK(cudaGraphGetNodes(captured, nullptr, &nodes));
    REQUIRE(nodes == 4);
    CHECK(cudaGraphInstantiate(&captured_exec, captured, 0));
    for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(captured_exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect(out, 20, "captured");

    // Memory that is still there when the graph has run, until the stream frees it.
    cudaGraph_t keeping;
    cudaGraphExec_t keeping_exec;
    CHECK(cudaGraphCreate(&keeping, 0));
    params = allocation();
    cudaGraphNode_t kept_node;
    CHECK(cudaGraphAddMemAllocNode(&kept_node, keeping, nullptr, 0, &params));
    int *kept = static_cast<int *>(params.dptr);
    kernel(keeping, kept_node, reinterpret_cast<void *>(fill), kept, 30);
    CHECK(cudaGraphInstantiate(&keeping_exec, keeping, 0));
    for (int i = 0; i < 2; ++i) {
        CHECK(cudaGraphLaunch(keeping_exec, stream));
        move<<<count / 256, 256, 0, stream>>>(kept, out);
        CHECK(cudaFreeAsync(kept, stream));
    }
    CHECK(cudaStreamSynchronize(stream));
    expect(out, 30, "outlives a launch");

    // Freed by the next launch.
    cudaGraph_t automatic;
    cudaGraphExec_t automatic_exec;
    CHECK(cudaGraphCreate(&automatic, 0));
    params = allocation();
    CHECK(cudaGraphAddMemAllocNode(&kept_node, automatic, nullptr, 0, &params));
    int *again = static_cast<int *>(params.dptr);
    cudaGraphNode_t last = kernel(automatic, kept_node, reinterpret_cast<void *>(fill), again, 40);
    kernel(automatic, last, reinterpret_cast<void *>(move), static_cast<const int *>(again), out);
    CHECK(cudaGraphInstantiate(&automatic_exec, automatic, cudaGraphInstantiateFlagAutoFreeOnLaunch));
    for (int i = 0; i < 4; ++i) CHECK(cudaGraphLaunch(automatic_exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect(out, 40, "freed by launches");
    unsigned long long flags = 0;
    CHECK(cudaGraphExecGetFlags(automatic_exec, &flags));
    REQUIRE(flags & cudaGraphInstantiateFlagAutoFreeOnLaunch);

    // The account.
    unsigned long long used = 0, high = 0;
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemHigh, &high));
    REQUIRE(high >= size);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphExecDestroy(captured_exec));
    CHECK(cudaGraphExecDestroy(keeping_exec));
    CHECK(cudaGraphExecDestroy(automatic_exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphDestroy(captured));
    CHECK(cudaGraphDestroy(keeping));
    CHECK(cudaGraphDestroy(automatic));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaDeviceGraphMemTrim(0));
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemCurrent, &used));
    std::printf("trimmed\n");
    CHECK(cudaFree(out));
    return pass();
}
