// Proves graphs: captured from two streams with events, built by hand from kernel, copy, set and host nodes, launched
// many times, updated in place (parameters of a node, whole graph), cloned, and the edges and nodes that can be asked.
#include <vector>

#include "common.h"

__global__ void add(int *data, int count, int value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] += value;
}

__global__ void combine(const int *a, const int *b, int *c, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) c[i] = a[i] * 1000 + b[i];
}

void CUDART_CB count_call(void *argument) { ++*static_cast<int *>(argument); }

const int count = 512;
const size_t size = count * sizeof(int);

void expect(const int *device, int want, const char *what) {
    std::vector<int> host(count);
    CHECK(cudaMemcpy(host.data(), device, size, cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; ++i)
        if (host[i] != want) fail("%s: element %d is %d, expected %d", what, i, host[i], want);
    std::printf("%s: %d\n", what, want);
}

int main() {
    int *a, *b, *c;
    CHECK(cudaMalloc(&a, size));
    CHECK(cudaMalloc(&b, size));
    CHECK(cudaMalloc(&c, size));
    cudaStream_t stream, branch;
    cudaEvent_t fork, join;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&branch, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    CHECK(cudaMemset(a, 0, size));
    CHECK(cudaMemset(b, 0, size));
    CHECK(cudaDeviceSynchronize());

    // Captured: a and b are incremented on two branches, then combined. Capturing runs nothing.
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaStreamCaptureStatus status;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaStreamIsCapturing(stream, &status));
    REQUIRE(status == cudaStreamCaptureStatusActive);
    add<<<2, 256, 0, stream>>>(a, count, 1);
    CHECK(cudaEventRecord(fork, stream));
    CHECK(cudaStreamWaitEvent(branch, fork, 0));
    add<<<2, 256, 0, branch>>>(b, count, 10);
    add<<<2, 256, 0, stream>>>(a, count, 2);
    CHECK(cudaEventRecord(join, branch));
    CHECK(cudaStreamWaitEvent(stream, join, 0));
    combine<<<2, 256, 0, stream>>>(a, b, c, count);
    CHECK(cudaStreamEndCapture(stream, &graph));
    size_t nodes = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
    std::printf("captured %zu nodes\n", nodes);
    REQUIRE(nodes == 4);
    CHECK(cudaGraphInstantiate(&executable, graph, 0));
    expect(a, 0, "before the launch");
    for (int i = 0; i < 20; ++i) CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect(c, 60200, "captured graph, 20 launches");

    // Built by hand: set, two kernels, copy to the host, host function.
    int calls = 0, value = 7, length = count, *pinned;
    CHECK(cudaMallocHost(&pinned, size));
    cudaGraph_t built;
    cudaGraphNode_t set_node, first, second, copy_node, host_node;
    CHECK(cudaGraphCreate(&built, 0));
    cudaMemsetParams set = {};
    set.dst = a;
    set.value = 100;
    set.elementSize = sizeof(int);
    set.width = count;
    set.height = 1;
    CHECK(cudaGraphAddMemsetNode(&set_node, built, nullptr, 0, &set));
    void *arguments[] = {&a, &length, &value};
    cudaKernelNodeParams kernel = {};
    kernel.func = reinterpret_cast<void *>(add);
    kernel.gridDim = dim3(2);
    kernel.blockDim = dim3(256);
    kernel.kernelParams = arguments;
    CHECK(cudaGraphAddKernelNode(&first, built, &set_node, 1, &kernel));
    value = 30;
    CHECK(cudaGraphAddKernelNode(&second, built, &first, 1, &kernel));
    CHECK(cudaGraphAddMemcpyNode1D(&copy_node, built, &second, 1, pinned, a, size, cudaMemcpyDeviceToHost));
    cudaHostNodeParams host = {};
    host.fn = count_call;
    host.userData = &calls;
    CHECK(cudaGraphAddHostNode(&host_node, built, &copy_node, 1, &host));
    cudaGraphExec_t second_executable;
    CHECK(cudaGraphInstantiate(&second_executable, built, 0));
    for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(second_executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(calls == 3 && pinned[0] == 137 && pinned[count - 1] == 137);
    expect(a, 137, "built graph");

    // One node of the executable graph gets other parameters; the graph itself keeps its own.
    value = 1000;
    CHECK(cudaGraphExecKernelNodeSetParams(second_executable, second, &kernel));
    CHECK(cudaGraphLaunch(second_executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(pinned[5] == 1107);
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(host_node, &type));
    REQUIRE(type == cudaGraphNodeTypeHost);
    cudaGraph_t clone;
    cudaGraphExec_t third_executable;
    CHECK(cudaGraphClone(&clone, built));
    CHECK(cudaGraphInstantiate(&third_executable, clone, 0));
    CHECK(cudaGraphLaunch(third_executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    REQUIRE(pinned[5] == 137 && calls == 5);
    std::printf("updated and cloned\n");

    CHECK(cudaGraphExecDestroy(executable));
    CHECK(cudaGraphExecDestroy(second_executable));
    CHECK(cudaGraphExecDestroy(third_executable));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphDestroy(built));
    CHECK(cudaGraphDestroy(clone));
    CHECK(cudaEventDestroy(fork));
    CHECK(cudaEventDestroy(join));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaStreamDestroy(branch));
    CHECK(cudaFreeHost(pinned));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    return pass();
}
