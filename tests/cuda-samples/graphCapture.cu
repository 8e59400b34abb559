// Proves stream capture: fork and join over three streams, copies from and to host memory that are made anew at each
// launch, host functions in between, a graph launched into a capture, capture into a graph that exists, and what can be
// asked meanwhile. Capturing runs nothing.
#include <vector>

#include "common.h"

const int count = 1000;
const size_t size = count * sizeof(int);

__global__ void scale(const int *from, int *to, int factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = from[i] * factor;
}

__global__ void sum(const int *a, const int *b, const int *c, int *to) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = a[i] + b[i] + c[i];
}

struct Seen {
    const int *result;
    std::vector<int> values;
};

// Reads what the copy before it has brought.
void CUDART_CB look(void *argument) {
    Seen *seen = static_cast<Seen *>(argument);
    seen->values.push_back(seen->result[count - 1]);
}

int turns = 0;
int *source_of_turns;

// Writes what the copy behind it reads.
void CUDART_CB feed(void *) {
    ++turns;
    for (int i = 0; i < count; ++i) source_of_turns[i] = turns;
}

int main() {
    int *x, *a, *b, *c, *out;
    for (int **pointer : {&x, &a, &b, &c, &out}) CHECK(cudaMalloc(pointer, size));
    int *pinned, *result;
    CHECK(cudaMallocHost(&pinned, size));
    CHECK(cudaMallocHost(&result, size));
    std::vector<int> pageable(count, -1);
    cudaStream_t main_stream, left, right;
    for (cudaStream_t *stream : {&main_stream, &left, &right})
        CHECK(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    cudaEvent_t fork, join_left, join_right;
    for (cudaEvent_t *event : {&fork, &join_left, &join_right})
        CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));

    Seen seen{result, {}};
    CHECK(cudaStreamBeginCapture(main_stream, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaMemcpyAsync(x, pinned, size, cudaMemcpyHostToDevice, main_stream));
    CHECK(cudaEventRecord(fork, main_stream));
    CHECK(cudaStreamWaitEvent(left, fork, 0));
    CHECK(cudaStreamWaitEvent(right, fork, 0));
    scale<<<4, 256, 0, main_stream>>>(x, a, 1);
    scale<<<4, 256, 0, left>>>(x, b, 10);
    scale<<<4, 256, 0, right>>>(x, c, 100);
    cudaStreamCaptureStatus status;
    CHECK(cudaStreamIsCapturing(left, &status));
    REQUIRE(status == cudaStreamCaptureStatusActive);
    CHECK(cudaEventRecord(join_left, left));
    CHECK(cudaEventRecord(join_right, right));
    CHECK(cudaStreamWaitEvent(main_stream, join_left, 0));
    CHECK(cudaStreamWaitEvent(main_stream, join_right, 0));
    unsigned long long id = 0;
    cudaGraph_t graph = nullptr, same;
    const cudaGraphNode_t *last;
    size_t last_count = 0;
    CHECK(cudaStreamGetCaptureInfo(main_stream, &status, &id, &graph, &last, nullptr, &last_count));
    std::printf("capturing, %zu nodes are last\n", last_count);
    REQUIRE(id != 0 && graph != nullptr && last_count == 3);
    sum<<<4, 256, 0, main_stream>>>(a, b, c, out);
    CHECK(cudaMemcpyAsync(result, out, size, cudaMemcpyDeviceToHost, main_stream));
    CHECK(cudaLaunchHostFunc(main_stream, look, &seen));
    CHECK(cudaMemcpyAsync(pageable.data(), out, size, cudaMemcpyDeviceToHost, main_stream));
    CHECK(cudaStreamEndCapture(main_stream, &same));
    REQUIRE(same == graph);
    CHECK(cudaStreamIsCapturing(left, &status));
    REQUIRE(status == cudaStreamCaptureStatusNone);
    REQUIRE(seen.values.empty() && pageable[0] == -1);

    size_t nodes = 0, edges = 0, roots = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
    CHECK(cudaGraphGetRootNodes(graph, nullptr, &roots));
    CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    std::printf("captured %zu nodes, %zu roots, %zu edges\n", nodes, roots, edges);
    REQUIRE(nodes == 8 && roots == 1 && edges == 9);
    std::vector<cudaGraphNode_t> all(nodes);
    CHECK(cudaGraphGetNodes(graph, all.data(), &nodes));
    int kinds[16] = {};
    for (cudaGraphNode_t node : all) {
        cudaGraphNodeType type;
        CHECK(cudaGraphNodeGetType(node, &type));
        ++kinds[type];
    }
    REQUIRE(kinds[cudaGraphNodeTypeKernel] == 4 && kinds[cudaGraphNodeTypeMemcpy] == 3 && kinds[cudaGraphNodeTypeHost] == 1);

    // Each launch reads the host memory as it is then.
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    for (int turn = 1; turn <= 3; ++turn) {
        for (int i = 0; i < count; ++i) pinned[i] = turn * 1000 + i % 10;
        CHECK(cudaGraphLaunch(exec, main_stream));
        CHECK(cudaStreamSynchronize(main_stream));
        for (int i = 0; i < count; ++i)
            if (result[i] != pinned[i] * 111 || pageable[i] != result[i])
                fail("launch %d: element %d is %d and %d, expected %d", turn, i, result[i], pageable[i], pinned[i] * 111);
    }
    for (int turn = 0; turn < 4; ++turn) CHECK(cudaGraphLaunch(exec, main_stream));
    cudaEvent_t done;
    CHECK(cudaEventCreate(&done));
    CHECK(cudaEventRecord(done, main_stream));
    CHECK(cudaEventSynchronize(done));
    std::printf("host functions saw");
    for (int value : seen.values) std::printf(" %d", value);
    std::printf("\n");
    REQUIRE(seen.values.size() == 7 && seen.values[0] == 1009 * 111 && seen.values[6] == 3009 * 111);

    // A host function feeds the copy behind it, in launches that nothing separates.
    CHECK(cudaMallocHost(&source_of_turns, size));
    CHECK(cudaMemset(out, 0, size));
    cudaGraph_t fed;
    cudaGraphExec_t fed_exec;
    CHECK(cudaStreamBeginCapture(main_stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaLaunchHostFunc(main_stream, feed, nullptr));
    CHECK(cudaMemcpyAsync(a, source_of_turns, size, cudaMemcpyHostToDevice, main_stream));
    sum<<<4, 256, 0, main_stream>>>(a, out, out, out);
    CHECK(cudaStreamEndCapture(main_stream, &fed));
    CHECK(cudaGraphInstantiate(&fed_exec, fed, 0));
    CHECK(cudaDeviceSynchronize());
    for (int turn = 0; turn < 5; ++turn) CHECK(cudaGraphLaunch(fed_exec, main_stream));
    CHECK(cudaMemcpyAsync(result, out, size, cudaMemcpyDeviceToHost, main_stream));
    CHECK(cudaStreamSynchronize(main_stream));
    std::printf("fed by host functions: %d\n", result[count - 1]);
    REQUIRE(turns == 5 && result[0] == 57 && result[count - 1] == 57);

    // A graph cannot be launched into a capture. It becomes part of another as a child node, and capture goes on behind it.
    cudaGraph_t outer = reinterpret_cast<cudaGraph_t>(1);
    cudaGraphExec_t outer_exec;
    CHECK(cudaStreamBeginCapture(left, cudaStreamCaptureModeRelaxed));
    EXPECT(cudaErrorStreamCaptureUnsupported, cudaGraphLaunch(exec, left));
    EXPECT(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(left, &outer));
    (void)cudaGetLastError();
    REQUIRE(outer == nullptr);
    cudaGraphNode_t child;
    CHECK(cudaGraphCreate(&outer, 0));
    CHECK(cudaGraphAddChildGraphNode(&child, outer, nullptr, 0, graph));
    CHECK(cudaStreamBeginCaptureToGraph(left, outer, &child, nullptr, 1, cudaStreamCaptureModeRelaxed));
    scale<<<4, 256, 0, left>>>(out, a, 2);
    CHECK(cudaStreamEndCapture(left, nullptr));
    CHECK(cudaGraphGetNodes(outer, nullptr, &nodes));
    REQUIRE(nodes == 2);
    all.resize(nodes);
    CHECK(cudaGraphGetNodes(outer, all.data(), &nodes));
    cudaGraphNodeType first, second;
    CHECK(cudaGraphNodeGetType(all[0], &first));
    CHECK(cudaGraphNodeGetType(all[1], &second));
    cudaGraphNode_t end = second == cudaGraphNodeTypeKernel ? all[1] : all[0];
    REQUIRE((first == cudaGraphNodeTypeGraph) != (second == cudaGraphNodeTypeGraph));
    CHECK(cudaStreamBeginCaptureToGraph(right, outer, &end, nullptr, 1, cudaStreamCaptureModeThreadLocal));
    scale<<<4, 256, 0, right>>>(a, b, 3);
    CHECK(cudaMemcpy2DAsync(pageable.data(), 40, b, 40, 20, count / 10, cudaMemcpyDeviceToHost, right));
    CHECK(cudaStreamEndCapture(right, &same));
    REQUIRE(same == outer);
    CHECK(cudaGraphInstantiate(&outer_exec, outer, 0));
    for (int i = 0; i < count; ++i) pinned[i] = i, pageable[i] = 7;
    CHECK(cudaGraphLaunch(outer_exec, left));
    CHECK(cudaStreamSynchronize(left));
    for (int i = 0; i < count; ++i) {
        // The copy takes 20 of every 40 bytes; the graph inside has filled the rest.
        int want = i % 10 < 5 ? i * 666 : i * 111;
        if (pageable[i] != want) fail("nested: element %d is %d, expected %d", i, pageable[i], want);
    }
    REQUIRE(seen.values.size() == 8);
    std::printf("nested and continued\n");

    for (cudaGraphExec_t one : {exec, fed_exec, outer_exec}) CHECK(cudaGraphExecDestroy(one));
    for (cudaGraph_t one : {graph, fed, outer}) CHECK(cudaGraphDestroy(one));
    for (int *pointer : {x, a, b, c, out}) CHECK(cudaFree(pointer));
    for (int *pointer : {pinned, result, source_of_turns}) CHECK(cudaFreeHost(pointer));
    return pass();
}
