// Proves conditional nodes: a body that runs or not, one that runs until the device says otherwise, and one of several; the
// device decides during the launch.
#include "common.h"

__global__ void count_down(int *left, int *turns, cudaGraphConditionalHandle handle) {
    ++*turns;
    cudaGraphSetConditional(handle, --*left > 0 ? 1 : 0);
}

__global__ void choose(const int *which, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, *which); }
__global__ void mark(int *to, int value) { *to += value; }

template <typename... Arguments>
cudaGraphNode_t kernel(cudaGraph_t graph, cudaGraphNode_t *after, void *function, Arguments... arguments) {
    void *pointers[] = {&arguments...};
    cudaKernelNodeParams params = {};
    params.func = function;
    params.gridDim = params.blockDim = dim3(1);
    params.kernelParams = pointers;
    cudaGraphNode_t node;
    CHECK(cudaGraphAddKernelNode(&node, graph, after, after ? 1 : 0, &params));
    return node;
}

cudaGraphNodeParams conditional(cudaGraphConditionalHandle handle, cudaGraphConditionalNodeType type, unsigned size) {
    cudaGraphNodeParams params = {};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = handle;
    params.conditional.type = type;
    params.conditional.size = size;
    return params;
}

int main() {
    int *values; // left, turns, which, marks
    CHECK(cudaMalloc(&values, 4 * sizeof(int)));
    cudaGraph_t graph;
    CHECK(cudaGraphCreate(&graph, 0));
    cudaGraphConditionalHandle repeat, choice;
    cudaError_t supported = cudaGraphConditionalHandleCreate(&repeat, graph, 1, cudaGraphCondAssignDefault);
    if (supported == cudaErrorNotSupported) {
        std::printf("this device's driver has no conditional nodes\n");
        return pass();
    }
    CHECK(supported);
    CHECK(cudaGraphConditionalHandleCreate(&choice, graph, 0, 0));

    cudaGraphNode_t while_node, switch_node;
    cudaGraphNodeParams params = conditional(repeat, cudaGraphCondTypeWhile, 1);
    CHECK(cudaGraphAddNode(&while_node, graph, nullptr, nullptr, 0, &params));
    cudaGraph_t body = params.conditional.phGraph_out[0];
    kernel(body, nullptr, reinterpret_cast<void *>(count_down), values, values + 1, repeat);

    cudaGraphNode_t chooser =
        kernel(graph, &while_node, reinterpret_cast<void *>(choose), static_cast<const int *>(values + 2), choice);
    params = conditional(choice, cudaGraphCondTypeSwitch, 3);
    CHECK(cudaGraphAddNode(&switch_node, graph, &chooser, nullptr, 1, &params));
    for (int i = 0; i < 3; ++i) {
        // One body is captured, the others are built.
        cudaGraph_t one = params.conditional.phGraph_out[i];
        int value = i == 0 ? 1 : i == 1 ? 10 : 100;
        if (i == 1) {
            cudaStream_t stream;
            CHECK(cudaStreamCreate(&stream));
            CHECK(cudaStreamBeginCaptureToGraph(stream, one, nullptr, nullptr, 0, cudaStreamCaptureModeRelaxed));
            mark<<<1, 1, 0, stream>>>(values + 3, value);
            CHECK(cudaStreamEndCapture(stream, nullptr));
            CHECK(cudaStreamDestroy(stream));
        } else {
            kernel(one, nullptr, reinterpret_cast<void *>(mark), values + 3, value);
        }
    }
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    int want = 0;
    for (int which = 0; which < 4; ++which) {
        int start[] = {5 + which, 0, which};
        CHECK(cudaMemcpy(values, start, sizeof start, cudaMemcpyHostToDevice));
        if (which == 0) CHECK(cudaMemset(values + 3, 0, sizeof(int)));
        CHECK(cudaGraphLaunch(exec, nullptr));
        CHECK(cudaDeviceSynchronize());
        int end[4];
        CHECK(cudaMemcpy(end, values, sizeof end, cudaMemcpyDeviceToHost));
        want += which == 0 ? 1 : which == 1 ? 10 : which == 2 ? 100 : 0;
        std::printf("case %d: %d turns, marks %d\n", which, end[1], end[3]);
        REQUIRE(end[0] == 0 && end[1] == 5 + which && end[3] == want);
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaFree(values));
    return pass();
}
