// Proves changes of graphs: parameters of nodes asked for and set again, edges added and taken away, nodes of an
// executable graph changed and switched off, a whole graph taken over or refused with its reason, and objects that live
// as long as a graph needs them.
#include <atomic>
#include <vector>

#include "common.h"

const int count = 256;
const size_t size = count * sizeof(int);

__global__ void put(int *to, int value) { to[threadIdx.x] = value; }
__global__ void add(int *to, int value) { to[threadIdx.x] += value; }
__global__ void times(int *to, int value) { to[threadIdx.x] *= value; }

int read_back(const int *from) {
    std::vector<int> values(count);
    CHECK(cudaMemcpy(values.data(), from, size, cudaMemcpyDeviceToHost));
    for (int value : values) REQUIRE(value == values[0]);
    return values[0];
}

int run(cudaGraphExec_t exec, const int *from) {
    CHECK(cudaGraphLaunch(exec, nullptr));
    CHECK(cudaStreamSynchronize(nullptr));
    return read_back(from);
}

cudaGraphNode_t add_kernel(cudaGraph_t graph, std::vector<cudaGraphNode_t> after, void *function, int *to, int value) {
    void *arguments[] = {&to, &value};
    cudaKernelNodeParams params = {};
    params.func = function;
    params.gridDim = dim3(1);
    params.blockDim = dim3(count);
    params.kernelParams = arguments;
    cudaGraphNode_t node;
    CHECK(cudaGraphAddKernelNode(&node, graph, after.data(), after.size(), &params));
    return node;
}

void CUDART_CB note(void *argument) { ++*static_cast<int *>(argument); }

std::atomic<int> ended{0};
void CUDART_CB end_object(void *argument) {
    delete static_cast<int *>(argument);
    ++ended;
}

int main() {
    int *data;
    CHECK(cudaMalloc(&data, size));
    cudaGraph_t graph;
    CHECK(cudaGraphCreate(&graph, 0));
    cudaGraphNode_t first = add_kernel(graph, {}, reinterpret_cast<void *>(put), data, 5);
    cudaGraphNode_t second = add_kernel(graph, {first}, reinterpret_cast<void *>(add), data, 10);
    cudaGraphNode_t third = add_kernel(graph, {second}, reinterpret_cast<void *>(times), data, 2);
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    std::printf("as built: %d\n", run(exec, data));

    // What comes back can be looked at, changed and set.
    cudaKernelNodeParams params;
    CHECK(cudaGraphKernelNodeGetParams(second, &params));
    REQUIRE(params.blockDim.x == count && params.gridDim.x == 1);
    int *to = *static_cast<int **>(params.kernelParams[0]);
    int value = *static_cast<int *>(params.kernelParams[1]);
    REQUIRE(to == data && value == 10);
    value = 20;
    void *changed[] = {&to, &value};
    params.kernelParams = changed;
    CHECK(cudaGraphKernelNodeSetParams(second, &params));
    CHECK(cudaGraphKernelNodeGetParams(second, &params));
    REQUIRE(*static_cast<int *>(params.kernelParams[1]) == 20);
    std::printf("the executable graph keeps its own: %d\n", run(exec, data));
    CHECK(cudaGraphExecKernelNodeSetParams(exec, second, &params));
    std::printf("until it is told: %d\n", run(exec, data));

    // Edges.
    cudaGraphNode_t nodes[4];
    size_t room = 4;
    CHECK(cudaGraphNodeGetDependencies(third, nodes, nullptr, &room));
    REQUIRE(room == 1 && nodes[0] == second && nodes[1] == nullptr);
    room = 4;
    CHECK(cudaGraphNodeGetDependentNodes(first, nodes, nullptr, &room));
    REQUIRE(room == 1 && nodes[0] == second);
    CHECK(cudaGraphRemoveDependencies(graph, &second, &third, nullptr, 1));
    CHECK(cudaGraphRemoveDependencies(graph, &first, &second, nullptr, 1));
    CHECK(cudaGraphAddDependencies(graph, &first, &third, nullptr, 1));
    CHECK(cudaGraphAddDependencies(graph, &third, &second, nullptr, 1));
    cudaGraphExec_t reordered;
    CHECK(cudaGraphInstantiate(&reordered, graph, 0));
    std::printf("in another order: %d\n", run(reordered, data));
    cudaGraphNode_t from[4], into[4];
    room = 4;
    CHECK(cudaGraphGetEdges(graph, from, into, nullptr, &room));
    REQUIRE(room == 2);

    // A node that is switched off does nothing.
    unsigned enabled = 2;
    CHECK(cudaGraphNodeSetEnabled(reordered, third, 0));
    CHECK(cudaGraphNodeGetEnabled(reordered, third, &enabled));
    REQUIRE(enabled == 0);
    std::printf("without one node: %d\n", run(reordered, data));
    CHECK(cudaGraphNodeSetEnabled(reordered, third, 1));
    std::printf("with it again: %d\n", run(reordered, data));

    // Another graph of the same form is taken over; one of another form is refused.
    cudaGraph_t twin, other;
    CHECK(cudaGraphCreate(&twin, 0));
    cudaGraphNode_t a = add_kernel(twin, {}, reinterpret_cast<void *>(put), data, 1);
    cudaGraphNode_t b = add_kernel(twin, {a}, reinterpret_cast<void *>(add), data, 2);
    add_kernel(twin, {b}, reinterpret_cast<void *>(times), data, 7);
    cudaGraphExecUpdateResultInfo information;
    CHECK(cudaGraphExecUpdate(exec, twin, &information));
    REQUIRE(information.result == cudaGraphExecUpdateSuccess);
    std::printf("taken over: %d\n", run(exec, data));
    CHECK(cudaGraphCreate(&other, 0));
    add_kernel(other, {}, reinterpret_cast<void *>(put), data, 1);
    EXPECT(cudaErrorGraphExecUpdateFailure, cudaGraphExecUpdate(exec, other, &information));
    (void)cudaGetLastError();
    REQUIRE(information.result == cudaGraphExecUpdateErrorTopologyChanged);
    std::printf("refused: %d\n", run(exec, data));

    // Copies, sets, host functions and events of an executable graph get other parameters.
    std::vector<int> one(count, 1), two(count, 2), back(count), elsewhere(count);
    int calls = 0, others = 0;
    cudaGraph_t mixed;
    cudaGraphExec_t mixed_exec;
    cudaGraphNode_t set_node, in_node, out_node, host_node, record_node;
    cudaEvent_t early, late;
    CHECK(cudaEventCreate(&early));
    CHECK(cudaEventCreate(&late));
    CHECK(cudaGraphCreate(&mixed, 0));
    cudaMemsetParams set = {};
    set.dst = data;
    set.value = 3;
    set.elementSize = 4;
    set.width = count;
    set.height = 1;
    CHECK(cudaGraphAddMemsetNode(&set_node, mixed, nullptr, 0, &set));
    CHECK(cudaGraphAddMemcpyNode1D(&in_node, mixed, &set_node, 1, data, one.data(), size / 2, cudaMemcpyHostToDevice));
    CHECK(cudaGraphAddMemcpyNode1D(&out_node, mixed, &in_node, 1, back.data(), data, size, cudaMemcpyDeviceToHost));
    cudaHostNodeParams host = {note, &calls};
    CHECK(cudaGraphAddHostNode(&host_node, mixed, &out_node, 1, &host));
    CHECK(cudaGraphAddEventRecordNode(&record_node, mixed, &host_node, 1, early));
    CHECK(cudaGraphInstantiate(&mixed_exec, mixed, 0));
    CHECK(cudaGraphLaunch(mixed_exec, nullptr));
    CHECK(cudaStreamSynchronize(nullptr));
    REQUIRE(back[0] == 1 && back[count - 1] == 3 && calls == 1);
    cudaMemsetParams asked;
    CHECK(cudaGraphMemsetNodeGetParams(set_node, &asked));
    REQUIRE(asked.dst == data && asked.value == 3 && asked.elementSize == 4 && asked.width == size_t(count));
    cudaHostNodeParams asked_host;
    CHECK(cudaGraphHostNodeGetParams(host_node, &asked_host));
    REQUIRE(asked_host.fn == note && asked_host.userData == &calls);
    cudaMemcpy3DParms asked_copy;
    CHECK(cudaGraphMemcpyNodeGetParams(in_node, &asked_copy));
    REQUIRE(asked_copy.srcPtr.ptr == one.data() && asked_copy.dstPtr.ptr == data);
    set.value = 4;
    CHECK(cudaGraphExecMemsetNodeSetParams(mixed_exec, set_node, &set));
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(mixed_exec, in_node, data, two.data(), size / 2, cudaMemcpyHostToDevice));
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(mixed_exec, out_node, elsewhere.data(), data, size, cudaMemcpyDeviceToHost));
    host.userData = &others;
    CHECK(cudaGraphExecHostNodeSetParams(mixed_exec, host_node, &host));
    CHECK(cudaGraphExecEventRecordNodeSetEvent(mixed_exec, record_node, late));
    back.assign(count, -1);
    CHECK(cudaGraphLaunch(mixed_exec, nullptr));
    CHECK(cudaEventSynchronize(late));
    CHECK(cudaStreamSynchronize(nullptr));
    REQUIRE(elsewhere[0] == 2 && elsewhere[count - 1] == 4 && back[0] == -1 && calls == 1 && others == 1);
    cudaEvent_t which;
    CHECK(cudaGraphEventRecordNodeGetEvent(record_node, &which));
    REQUIRE(which == early);
    std::printf("copies, sets, host functions and events changed\n");

    // A child graph is a copy.
    cudaGraph_t parent, inside;
    cudaGraphNode_t child_node;
    cudaGraphExec_t parent_exec;
    CHECK(cudaGraphCreate(&parent, 0));
    CHECK(cudaGraphAddChildGraphNode(&child_node, parent, nullptr, 0, twin));
    CHECK(cudaGraphChildGraphNodeGetGraph(child_node, &inside));
    REQUIRE(inside != twin);
    size_t inside_count = 0;
    CHECK(cudaGraphGetNodes(inside, nullptr, &inside_count));
    REQUIRE(inside_count == 3);
    add_kernel(parent, {child_node}, reinterpret_cast<void *>(add), data, 100);
    CHECK(cudaGraphInstantiate(&parent_exec, parent, 0));
    std::printf("with a child: %d\n", run(parent_exec, data));

    // A user object ends when neither the program nor a graph needs it.
    cudaUserObject_t object;
    cudaError_t supported = cudaUserObjectCreate(&object, new int(1), end_object, 1, cudaUserObjectNoDestructorSync);
    if (supported == cudaErrorNotSupported) {
        std::printf("this device's driver has no user objects\n");
        (void)cudaGetLastError();
    } else {
        CHECK(supported);
        CHECK(cudaGraphRetainUserObject(parent, object, 1, cudaGraphUserObjectMove));
        cudaGraph_t clone;
        CHECK(cudaGraphClone(&clone, parent));
        CHECK(cudaGraphDestroy(parent));
        parent = nullptr;
        REQUIRE(ended == 0);
        CHECK(cudaGraphDestroy(clone));
        CHECK(cudaGraphExecDestroy(parent_exec));
        parent_exec = nullptr;
        CHECK(cudaDeviceSynchronize());
        for (int wait = 0; ended == 0 && wait < 50000000; ++wait) std::atomic_thread_fence(std::memory_order_seq_cst);
        REQUIRE(ended == 1);
        std::printf("user object ended\n");
    }

    for (cudaGraphExec_t one_exec : {exec, reordered, mixed_exec}) CHECK(cudaGraphExecDestroy(one_exec));
    if (parent_exec) CHECK(cudaGraphExecDestroy(parent_exec));
    if (parent) CHECK(cudaGraphDestroy(parent));
    CHECK(cudaGraphDestroyNode(third));
    size_t left = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &left));
    REQUIRE(left == 2);
    for (cudaGraph_t one_graph : {graph, twin, other, mixed}) CHECK(cudaGraphDestroy(one_graph));
    CHECK(cudaFree(data));
    return pass();
}
