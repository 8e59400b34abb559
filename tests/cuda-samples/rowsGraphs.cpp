// Calls what other programs do not: streams, events, memory operations and captures by the older names, and the setters
// and getters of graphs, their nodes and what is instantiated of them. Prints every answer.
#include <algorithm>

#include <unistd.h>

#include "tell.h"

#include "kernels_ptx.h"

static void streams(const Setting &it) {
    CUstream stream, other;
    CUcontext context = nullptr;
    CUgreenCtx green = nullptr;
    CUdevice device = 77;
    unsigned long long id = 0;
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK_DRIVER(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    ROW("cuStreamGetId", stream, &id);
    ROW("cuStreamGetDevice", stream, &device);
    ROW("cuStreamGetCtx", stream, &context);
    std::printf("its own: %d\n", context == it.context);
    ROW("cuStreamGetCtx_v2", stream, &context, &green);
    CUstreamAttrValue value = {};
    ROW("cuStreamGetAttribute", stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    value.syncPolicy = CU_SYNC_POLICY_YIELD;
    ROW("cuStreamSetAttribute", stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, static_cast<const CUstreamAttrValue *>(&value));
    ROW("cuStreamCopyAttributes", other, stream);
    value = {};
    ROW("cuStreamGetAttribute", other, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    std::printf("policy: %d\n", static_cast<int>(value.syncPolicy));

    CUdeviceptr word;
    CHECK_DRIVER(cuMemAlloc(&word, 64));
    CHECK_DRIVER(cuMemsetD32(word, 0, 16));
    CHECK_DRIVER(cuCtxSynchronize());
    ROW("cuStreamWriteValue32", stream, word, cuuint32_t(5), 0u);
    ROW("cuStreamWaitValue32", stream, word, cuuint32_t(5), 0u);
    ROW("cuStreamWriteValue64", stream, word + 8, cuuint64_t(6), 0u);
    ROW("cuStreamWaitValue64", stream, word + 8, cuuint64_t(6), 0u);
    CUstreamBatchMemOpParams op = {};
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = word;
    op.writeValue.value = 7;
    ROW("cuStreamBatchMemOp", stream, 1u, &op, 0u);
    CHECK_DRIVER(cuStreamSynchronize(stream));

    CUevent first, second;
    float milliseconds = -1;
    CHECK_DRIVER(cuEventCreate(&first, 0));
    CHECK_DRIVER(cuEventCreate(&second, 0));
    ROW("cuEventRecordWithFlags", first, stream, 0u);
    CHECK_DRIVER(cuEventRecord(second, stream));
    CHECK_DRIVER(cuEventSynchronize(second));
    ROW("cuEventElapsedTime", &milliseconds, first, second);
    REQUIRE(milliseconds >= 0);
    ROW("cuEventDestroy", first);
    CHECK_DRIVER(cuEventDestroy(second));

    CUgraph graph = nullptr, seen = nullptr;
    CUstreamCaptureStatus status;
    const CUgraphNode *after = nullptr;
    size_t count = 77;
    ROW("cuStreamBeginCapture", stream);
    CHECK_DRIVER(cuMemsetD32Async(word, 9, 4, stream));
    ROW("cuStreamGetCaptureInfo", stream, &status, &id);
    ROW("cuStreamGetCaptureInfo_v2", stream, &status, &id, &seen, &after, &count);
    std::printf("after: %zu\n", count);
    ROW("cuStreamUpdateCaptureDependencies", stream, static_cast<CUgraphNode *>(nullptr), size_t(0), static_cast<unsigned>(CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
    ROW("cuStreamUpdateCaptureDependencies_v2", stream, static_cast<CUgraphNode *>(nullptr), static_cast<const CUgraphEdgeData *>(nullptr), size_t(0), static_cast<unsigned>(CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    TELL("cuStreamEndCapture", cuStreamEndCapture(stream, &graph));
    if (graph) CHECK_DRIVER(cuGraphDestroy(graph));
    CHECK_DRIVER(cuMemFree(word));
    ROW("cuStreamDestroy", stream);
    ROW("cuStreamDestroy", other);
}

// The first form of the parameters of a kernel node.
struct KernelNode {
    CUfunction function;
    unsigned grid[3], block[3], shared;
    void **parameters, **extra;
};

static void CUDA_CB nothing(void *) {}

static void nodes(const Setting &it) {
    CUdeviceptr data;
    int length = 0;
    CHECK_DRIVER(cuMemAlloc(&data, 4096));
    void *parameters[] = {&data, &data, &data, &length};
    KernelNode kernel = {it.add, {1, 1, 1}, {32, 1, 1}, 0, parameters, nullptr}, told = {};
    const KernelNode *given = &kernel;
    CUgraph graph, clone, child;
    CUgraphNode node = nullptr, copy = nullptr, set = nullptr, host = nullptr, record = nullptr, wait = nullptr, batch = nullptr, sub = nullptr, plain, found = nullptr;
    const CUgraphNode *none = nullptr;
    CHECK_DRIVER(cuGraphCreate(&graph, 0));
    CHECK_DRIVER(cuGraphCreate(&child, 0));
    CHECK_DRIVER(cuGraphAddEmptyNode(&plain, child, nullptr, 0));
    ROW("cuGraphAddKernelNode", &node, graph, none, size_t(0), given);
    ROW("cuGraphKernelNodeGetParams", node, &told);
    std::printf("threads: %u\n", told.block[0]);
    kernel.block[0] = 64;
    ROW("cuGraphKernelNodeSetParams", node, given);
    CUkernelNodeAttrValue value = {};
    ROW("cuGraphKernelNodeGetAttribute", node, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value);
    ROW("cuGraphKernelNodeSetAttribute", node, CU_LAUNCH_ATTRIBUTE_PRIORITY, static_cast<const CUkernelNodeAttrValue *>(&value));
    CUgraphNode second;
    ROW("cuGraphAddKernelNode", &second, graph, none, size_t(0), given);
    ROW("cuGraphKernelNodeCopyAttributes", second, node);

    char bytes[64] = {};
    CUDA_MEMCPY3D box = {};
    box.srcMemoryType = CU_MEMORYTYPE_HOST, box.srcHost = bytes;
    box.dstMemoryType = CU_MEMORYTYPE_DEVICE, box.dstDevice = data;
    box.WidthInBytes = 64, box.Height = box.Depth = 1;
    CHECK_DRIVER(cuGraphAddMemcpyNode(&copy, graph, nullptr, 0, &box, it.context));
    box.WidthInBytes = 32;
    ROW("cuGraphMemcpyNodeSetParams", copy, static_cast<const CUDA_MEMCPY3D *>(&box));
    CUDA_MEMSET_NODE_PARAMS fill = {};
    fill.dst = data, fill.elementSize = 4, fill.width = 4, fill.height = 1, fill.value = 1;
    CHECK_DRIVER(cuGraphAddMemsetNode(&set, graph, nullptr, 0, &fill, it.context));
    fill.value = 2;
    ROW("cuGraphMemsetNodeSetParams", set, static_cast<const CUDA_MEMSET_NODE_PARAMS *>(&fill));
    CUDA_HOST_NODE_PARAMS function = {nothing, nullptr};
    CHECK_DRIVER(cuGraphAddHostNode(&host, graph, nullptr, 0, &function));
    ROW("cuGraphHostNodeSetParams", host, static_cast<const CUDA_HOST_NODE_PARAMS *>(&function));
    CUevent event, later, seen = nullptr;
    CHECK_DRIVER(cuEventCreate(&event, 0));
    CHECK_DRIVER(cuEventCreate(&later, 0));
    CHECK_DRIVER(cuGraphAddEventRecordNode(&record, graph, nullptr, 0, event));
    ROW("cuGraphEventRecordNodeSetEvent", record, later);
    ROW("cuGraphAddEventWaitNode", &wait, graph, none, size_t(0), event);
    ROW("cuGraphEventWaitNodeGetEvent", wait, &seen);
    std::printf("the same: %d\n", seen == event);
    ROW("cuGraphEventWaitNodeSetEvent", wait, later);
    CUstreamBatchMemOpParams op = {};
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = data;
    CUDA_BATCH_MEM_OP_NODE_PARAMS ops = {it.context, 1, &op, 0}, ops_told = {};
    const CUDA_BATCH_MEM_OP_NODE_PARAMS *ops_given = &ops;
    ROW("cuGraphAddBatchMemOpNode", &batch, graph, none, size_t(0), ops_given);
    if (batch) {
        ROW("cuGraphBatchMemOpNodeGetParams", batch, &ops_told);
        ROW("cuGraphBatchMemOpNodeSetParams", batch, ops_given);
    } else {
        // Where there are none, the rows answer all the same.
        ROW("cuGraphBatchMemOpNodeGetParams", node, &ops_told);
        ROW("cuGraphBatchMemOpNodeSetParams", node, ops_given);
    }
    CHECK_DRIVER(cuGraphAddChildGraphNode(&sub, graph, nullptr, 0, child));

    const CUgraphNode *from = &node, *to = &set;
    CUgraphNode list[8], ends[8];
    size_t count = 8, edges = 8;
    ROW("cuGraphAddDependencies", graph, from, to, size_t(1));
    ROW("cuGraphGetEdges", graph, &list[0], &ends[0], &edges);
    std::printf("edges: %zu\n", edges);
    ROW("cuGraphNodeGetDependencies", set, &list[0], &count);
    std::printf("before: %zu\n", count);
    count = 8;
    ROW("cuGraphNodeGetDependentNodes", node, &list[0], &count);
    std::printf("behind: %zu\n", count);
    ROW("cuGraphRemoveDependencies", graph, from, to, size_t(1));
    CHECK_DRIVER(cuGraphClone(&clone, graph));
    ROW("cuGraphNodeFindInClone", &found, node, clone);
    std::printf("found: %d\n", found != nullptr);
    std::string file = "/tmp/pxos-graph-" + std::to_string(getpid()) + ".dot";
    ROW("cuGraphDebugDotPrint", graph, file.c_str(), 0u);
    std::remove(file.c_str());

    CUgraphNodeParams any = {};
    any.type = CU_GRAPH_NODE_TYPE_MEMSET;
    any.memset.dst = data, any.memset.elementSize = 4, any.memset.width = 4, any.memset.height = 1, any.memset.ctx = it.context;
    CUgraphNode one = nullptr, two = nullptr;
    ROW("cuGraphAddNode", &one, graph, none, size_t(0), &any);
    ROW("cuGraphAddNode_v2", &two, graph, none, static_cast<const CUgraphEdgeData *>(nullptr), size_t(0), &any);
    any.memset.value = 3;
    ROW("cuGraphNodeSetParams", one, &any);

    CUgraphExec executable = nullptr, other = nullptr;
    CUgraphNode culprit = nullptr;
    unsigned reason = 77;
    ROW("cuGraphInstantiate", &other, graph, &culprit, static_cast<char *>(nullptr), size_t(0));
    if (other) CHECK_DRIVER(cuGraphExecDestroy(other));
    ROW("cuGraphInstantiate_v2", &other, graph, &culprit, static_cast<char *>(nullptr), size_t(0));
    if (other) CHECK_DRIVER(cuGraphExecDestroy(other));
    CUDA_GRAPH_INSTANTIATE_PARAMS how = {};
    ROW("cuGraphInstantiateWithParams", &executable, graph, &how);
    REQUIRE(executable != nullptr);
    ROW("cuGraphExecKernelNodeSetParams", executable, node, given);
    ROW("cuGraphExecChildGraphNodeSetParams", executable, sub, child);
    ROW("cuGraphExecEventWaitNodeSetEvent", executable, wait, event);
    ROW("cuGraphExecBatchMemOpNodeSetParams", executable, batch ? batch : node, ops_given);
    ROW("cuGraphExecNodeSetParams", executable, one, &any);
    ROW("cuGraphExecUpdate", executable, graph, &culprit, &reason);
    std::printf("the reason: %u\n", reason);
    CUstream stream;
    CHECK_DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    ROW("cuGraphUpload", executable, stream);
    CHECK_DRIVER(cuGraphLaunch(executable, stream));
    CHECK_DRIVER(cuStreamSynchronize(stream));
    CHECK_DRIVER(cuStreamDestroy(stream));
    CHECK_DRIVER(cuGraphExecDestroy(executable));

    CUuserObject object;
    CHECK_DRIVER(cuUserObjectCreate(&object, &length, nothing, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    CHECK_DRIVER(cuGraphRetainUserObject(graph, object, 1, 0));
    ROW("cuUserObjectRetain", object, 1u);
    ROW("cuUserObjectRelease", object, 1u);
    ROW("cuGraphReleaseUserObject", graph, object, 1u);
    ROW("cuUserObjectRelease", object, 1u);
    CHECK_DRIVER(cuGraphDestroy(clone));
    CHECK_DRIVER(cuGraphDestroy(child));
    CHECK_DRIVER(cuGraphDestroy(graph));
    CHECK_DRIVER(cuEventDestroy(event));
    CHECK_DRIVER(cuEventDestroy(later));
    CHECK_DRIVER(cuMemFree(data));
}

int main() {
    Setting it(kernels_ptx);
    streams(it);
    nodes(it);
    CHECK_DRIVER(cuCtxDestroy(it.context));
    return pass();
}
