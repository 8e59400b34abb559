// Proves conditional nodes: a body that runs or not, one that runs until the device says otherwise, and one of several; the
// device decides during the launch. Also a choice inside a loop, and a node put into a graph that is being captured.
#include "common.h"

__global__ void count_down(int *left, int *turns, cudaGraphConditionalHandle handle) {
    ++*turns;
    cudaGraphSetConditional(handle, --*left > 0 ? 1 : 0);
}

__global__ void choose(const int *which, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, *which); }
__global__ void is_odd(const int *left, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, *left & 1); }
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

// A loop whose body looks at a value of its own each time: an odd number is marked in one way, an even one in another.
void choice_in_a_loop(int *values) {
    cudaGraph_t graph;
    CHECK(cudaGraphCreate(&graph, 0));
    cudaGraphConditionalHandle repeat, odd;
    CHECK(cudaGraphConditionalHandleCreate(&repeat, graph, 1, cudaGraphCondAssignDefault));
    cudaGraphNode_t loop, choice;
    cudaGraphNodeParams params = conditional(repeat, cudaGraphCondTypeWhile, 1);
    CHECK(cudaGraphAddNode(&loop, graph, nullptr, nullptr, 0, &params));
    cudaGraph_t body = params.conditional.phGraph_out[0];
    CHECK(cudaGraphConditionalHandleCreate(&odd, body, 0, 0));
    cudaGraphNode_t step = kernel(body, nullptr, reinterpret_cast<void *>(count_down), values, values + 1, repeat);
    cudaGraphNode_t looked = kernel(body, &step, reinterpret_cast<void *>(is_odd), static_cast<const int *>(values), odd);
    params = conditional(odd, cudaGraphCondTypeIf, 2);
    CHECK(cudaGraphAddNode(&choice, body, &looked, nullptr, 1, &params));
    kernel(params.conditional.phGraph_out[0], nullptr, reinterpret_cast<void *>(mark), values + 2, 1);
    kernel(params.conditional.phGraph_out[1], nullptr, reinterpret_cast<void *>(mark), values + 3, 1);
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(choice, &type));
    REQUIRE(type == cudaGraphNodeTypeConditional);
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    // The executable graph needs neither the graph nor the values' names in it.
    CHECK(cudaGraphDestroy(graph));
    for (int round = 1; round <= 2; ++round) {
        int start[] = {5, 0, 0, 0}, end[4];
        CHECK(cudaMemcpy(values, start, sizeof start, cudaMemcpyHostToDevice));
        CHECK(cudaGraphLaunch(exec, nullptr));
        CHECK(cudaMemcpy(end, values, sizeof end, cudaMemcpyDeviceToHost));
        std::printf("round %d: %d turns, %d odd, %d even\n", round, end[1], end[2], end[3]);
        REQUIRE(end[0] == 0 && end[1] == 5 && end[2] == 2 && end[3] == 3);
    }
    CHECK(cudaGraphExecDestroy(exec));
}

// The application puts a loop between two captured kernels.
void loop_in_a_capture(int *values) {
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    mark<<<1, 1, 0, stream>>>(values + 2, 1);
    cudaStreamCaptureStatus status;
    cudaGraph_t graph;
    const cudaGraphNode_t *after;
    size_t count;
    CHECK(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, &after, nullptr, &count));
    cudaGraphConditionalHandle repeat;
    CHECK(cudaGraphConditionalHandleCreate(&repeat, graph, 1, cudaGraphCondAssignDefault));
    cudaGraphNode_t loop;
    cudaGraphNodeParams params = conditional(repeat, cudaGraphCondTypeWhile, 1);
    CHECK(cudaGraphAddNode(&loop, graph, after, nullptr, count, &params));
    CHECK(cudaStreamUpdateCaptureDependencies(stream, &loop, nullptr, 1, cudaStreamSetCaptureDependencies));
    mark<<<1, 1, 0, stream>>>(values + 3, 1);
    CHECK(cudaStreamEndCapture(stream, &graph));
    kernel(params.conditional.phGraph_out[0], nullptr, reinterpret_cast<void *>(count_down), values, values + 1, repeat);
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    int start[] = {3, 0, 0, 0}, end[4];
    CHECK(cudaMemcpy(values, start, sizeof start, cudaMemcpyHostToDevice));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(end, values, sizeof end, cudaMemcpyDeviceToHost));
    std::printf("captured: %d turns, marks %d and %d\n", end[1], end[2], end[3]);
    REQUIRE(end[0] == 0 && end[1] == 3 && end[2] == 1 && end[3] == 1);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaStreamDestroy(stream));
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
    choice_in_a_loop(values);
    loop_in_a_capture(values);
    // A value is for one node, and each kind has its number of graphs.
    CHECK(cudaGraphCreate(&graph, 0));
    CHECK(cudaGraphConditionalHandleCreate(&repeat, graph, 1, cudaGraphCondAssignDefault));
    params = conditional(repeat, cudaGraphCondTypeWhile, 2);
    EXPECT(cudaErrorInvalidValue, cudaGraphAddNode(&while_node, graph, nullptr, nullptr, 0, &params));
    params = conditional(0, cudaGraphCondTypeIf, 1);
    EXPECT(cudaErrorInvalidValue, cudaGraphAddNode(&while_node, graph, nullptr, nullptr, 0, &params));
    std::printf("errors\n");
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaFree(values));
    return pass();
}
