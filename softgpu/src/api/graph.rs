//! Graphs as a whole (CUDA driver API, section "Graph management"): making, asking, copying, instantiating, launching.

use super::capture::nodes;
use super::{Answer, DefaultStream, In, Out, driver_fns};
use crate::device::allocation::{self, Origin};
use crate::device::context::{Active, stream_anywhere};
use crate::device::graph::{Body, EXECS, GRAPHS, Graph, GraphExec, GraphMemory, NODES, Node};
use crate::device::platform;
use crate::device::stream::Stream;
use pxos_protocol::types::{CUdevice, CUgraph, CUgraphExec, CUgraphNode, CUresult, CUstream};
use std::ffi::{c_char, c_uint, c_void};
use std::fmt::Write;
use std::sync::Arc;

driver_fns! {
    /// Makes an empty graph.
    ready fn cuGraphCreate(graph: *mut CUgraph, flags: c_uint) {
        graph.required()?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        graph.put(Graph::create()?.handle)
    }

    /// Ends a graph.
    ready fn cuGraphDestroy(graph: CUgraph) {
        live(graph)?.destroy();
        Ok(())
    }

    /// Copies a graph.
    ready fn cuGraphClone(copy: *mut CUgraph, graph: CUgraph) {
        copy.required()?;
        copy.put(live(graph)?.duplicate()?.handle)
    }

    /// The node of a copy that was made from a node.
    ready fn cuGraphNodeFindInClone(node: *mut CUgraphNode, original: CUgraphNode, copy: CUgraph) {
        node.required()?;
        let found = live(copy)?.nodes().into_iter().find(|node| node.original == original);
        node.put(found.ok_or(CUresult::ERROR_INVALID_VALUE)?.handle)
    }

    /// The nodes of a graph.
    ready fn cuGraphGetNodes(graph: CUgraph, list: *mut CUgraphNode, count: *mut usize) {
        let handles: Vec<_> = live(graph)?.nodes().iter().map(|node| node.handle).collect();
        give(&handles, list, count)
    }

    /// The nodes of a graph that depend on none.
    ready fn cuGraphGetRootNodes(graph: CUgraph, list: *mut CUgraphNode, count: *mut usize) {
        let nodes = live(graph)?.nodes();
        let roots: Vec<_> = nodes.iter().filter(|node| node.after.is_empty()).map(|node| node.handle).collect();
        give(&roots, list, count)
    }

    /// The dependencies of a graph.
    ready fn cuGraphGetEdges(graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, count: *mut usize) {
        edges(graph, from, to, count)
    }

    /// The dependencies of a graph; none has data of its own here.
    ready fn cuGraphGetEdges_v2(
        graph: CUgraph,
        from: *mut CUgraphNode,
        to: *mut CUgraphNode,
        data: *mut CUgraphEdgeData,
        count: *mut usize,
    ) {
        let room = if from.is_null() { 0 } else { count.read()? };
        edges(graph, from, to, count)?;
        blank(data, room.min(count.read()?))
    }

    /// The nodes that a node depends on.
    ready fn cuGraphNodeGetDependencies(node: CUgraphNode, list: *mut CUgraphNode, count: *mut usize) {
        give(&find(node)?.1.after, list, count)
    }

    /// The nodes that a node depends on.
    ready fn cuGraphNodeGetDependencies_v2(
        node: CUgraphNode,
        list: *mut CUgraphNode,
        data: *mut CUgraphEdgeData,
        count: *mut usize,
    ) {
        let room = if list.is_null() { 0 } else { count.read()? };
        give(&find(node)?.1.after, list, count)?;
        blank(data, room.min(count.read()?))
    }

    /// The nodes that depend on a node.
    ready fn cuGraphNodeGetDependentNodes(node: CUgraphNode, list: *mut CUgraphNode, count: *mut usize) {
        give(&dependents(node)?, list, count)
    }

    /// The nodes that depend on a node.
    ready fn cuGraphNodeGetDependentNodes_v2(
        node: CUgraphNode,
        list: *mut CUgraphNode,
        data: *mut CUgraphEdgeData,
        count: *mut usize,
    ) {
        let room = if list.is_null() { 0 } else { count.read()? };
        give(&dependents(node)?, list, count)?;
        blank(data, room.min(count.read()?))
    }

    /// Adds dependencies.
    ready fn cuGraphAddDependencies(graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize) {
        connect(graph, from, to, count, Graph::connect)
    }

    /// Adds dependencies.
    ready fn cuGraphAddDependencies_v2(
        graph: CUgraph,
        from: *const CUgraphNode,
        to: *const CUgraphNode,
        _data: *const CUgraphEdgeData,
        count: usize,
    ) {
        connect(graph, from, to, count, Graph::connect)
    }

    /// Takes dependencies away.
    ready fn cuGraphRemoveDependencies(graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize) {
        connect(graph, from, to, count, Graph::disconnect)
    }

    /// Takes dependencies away.
    ready fn cuGraphRemoveDependencies_v2(
        graph: CUgraph,
        from: *const CUgraphNode,
        to: *const CUgraphNode,
        _data: *const CUgraphEdgeData,
        count: usize,
    ) {
        connect(graph, from, to, count, Graph::disconnect)
    }

    /// Takes a node out of its graph.
    ready fn cuGraphDestroyNode(node: CUgraphNode) {
        let (graph, _) = find(node)?;
        graph.remove(node)
    }

    /// Makes a graph executable.
    ready fn cuGraphInstantiate(
        exec: *mut CUgraphExec,
        graph: CUgraph,
        _error: *mut CUgraphNode,
        _log: *mut c_char,
        _room: usize,
    ) {
        exec.required()?;
        exec.put(GraphExec::create(&*live(graph)?, 0)?)
    }

    /// Makes a graph executable.
    ready fn cuGraphInstantiate_v2(
        exec: *mut CUgraphExec,
        graph: CUgraph,
        _error: *mut CUgraphNode,
        _log: *mut c_char,
        _room: usize,
    ) {
        exec.required()?;
        exec.put(GraphExec::create(&*live(graph)?, 0)?)
    }

    /// Makes a graph executable.
    ready fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) {
        exec.required()?;
        let graph = live(graph)?;
        check_flags(flags)?;
        exec.put(GraphExec::create(&graph, flags)?)
    }

    /// Makes a graph executable.
    ready fn cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz(
        exec: *mut CUgraphExec,
        graph: CUgraph,
        parameters: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
    ) |_default| {
        exec.required()?;
        let graph = live(graph)?;
        let mut given = parameters.read()?;
        check_flags(given.flags)?;
        exec.put(GraphExec::create(&graph, given.flags)?)?;
        (given.error_node, given.result) = (CUgraphNode::NULL, 0);
        parameters.put(given)
    }

    /// The flags that an executable graph was made with.
    ready fn cuGraphExecGetFlags(exec: CUgraphExec, flags: *mut u64) {
        flags.put(live_exec(exec)?.flags)
    }

    /// Puts an executable graph on the device, where it is.
    ready fn cuGraphUpload / cuGraphUpload_ptsz(exec: CUgraphExec, stream: CUstream) |default| {
        live_exec(exec)?;
        stream_anywhere(stream, default).map(drop)
    }

    /// Launches an executable graph.
    ready fn cuGraphLaunch / cuGraphLaunch_ptsz(exec: CUgraphExec, stream: CUstream) |default| {
        launch(exec, stream, default)
    }

    /// Ends an executable graph; what was launched goes on.
    ready fn cuGraphExecDestroy(exec: CUgraphExec) {
        EXECS.remove(exec).map(drop).ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// Takes over the parameters of a graph of the same form.
    ready fn cuGraphExecUpdate(exec: CUgraphExec, graph: CUgraph, error: *mut CUgraphNode, result: *mut c_uint) {
        let verdict = live_exec(exec)?.update(&*live(graph)?);
        result.put_if_wanted(if verdict.is_ok() { UPDATE_SUCCESS } else { UPDATE_TOPOLOGY_CHANGED });
        error.put_if_wanted(verdict.err().unwrap_or(CUgraphNode::NULL));
        verdict.map_err(|_| CUresult::ERROR_GRAPH_EXEC_UPDATE_FAILURE)
    }

    /// Takes over the parameters of a graph of the same form.
    ready fn cuGraphExecUpdate_v2(exec: CUgraphExec, graph: CUgraph, information: *mut CUgraphExecUpdateResultInfo) {
        information.required()?;
        let verdict = live_exec(exec)?.update(&*live(graph)?);
        information.put(CUgraphExecUpdateResultInfo {
            result: if verdict.is_ok() { UPDATE_SUCCESS } else { UPDATE_TOPOLOGY_CHANGED },
            error_node: verdict.err().unwrap_or(CUgraphNode::NULL),
            error_from_node: CUgraphNode::NULL,
        })?;
        verdict.map_err(|_| CUresult::ERROR_GRAPH_EXEC_UPDATE_FAILURE)
    }

    /// Sets whether a node is to be run.
    ready fn cuGraphNodeSetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: c_uint) {
        live_exec(exec)?.enable(node, enabled != 0)
    }

    /// Whether a node is to be run.
    ready fn cuGraphNodeGetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: *mut c_uint) {
        enabled.required()?;
        enabled.put(u32::from(live_exec(exec)?.is_enabled(node)?))
    }

    /// Writes a graph in the language of the program `dot`.
    ready fn cuGraphDebugDotPrint(graph: CUgraph, file: *const c_char, _flags: c_uint) {
        let text = dot(&live(graph)?.nodes());
        std::fs::write(file.text()?, text).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
    }

    /// Gives back memory that graphs keep and do not use; none is kept.
    ready fn cuDeviceGraphMemTrim(dev: CUdevice) {
        platform()?.device(dev).map(drop)
    }

    /// How much memory the allocation nodes of graphs hold.
    ready fn cuDeviceGetGraphMemAttribute(dev: CUdevice, attribute: c_uint, value: *mut c_void) {
        platform()?.device(dev)?;
        if attribute > 3 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let held = allocation::select(|held| held.origin == Origin::Graph && held.device == dev);
        value.cast::<u64>().put(held.iter().map(|held| held.bytes).sum())
    }

    /// Sets the highest amounts back, which are not kept apart from the present ones.
    ready fn cuDeviceSetGraphMemAttribute(dev: CUdevice, attribute: c_uint, value: *mut c_void) {
        platform()?.device(dev)?;
        let zero = value.cast::<u64>().read()? == 0;
        if matches!(attribute, 1 | 3) && zero { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
    }
}

/// `CU_GRAPH_EXEC_UPDATE_SUCCESS`.
const UPDATE_SUCCESS: c_uint = 0;
/// `CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED`.
const UPDATE_TOPOLOGY_CHANGED: c_uint = 2;

/// Data of a dependency (cuda.h 13.0); all zero is the plain one, the only one here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CUgraphEdgeData {
    /// Ports, kind and reserved bytes.
    pub bytes: [u8; 8],
}

/// How a graph is made executable (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_GRAPH_INSTANTIATE_PARAMS {
    /// `CUgraphInstantiate_flags`.
    pub flags: u64,
    /// The stream to upload in.
    pub upload: CUstream,
    /// The node at fault.
    pub error_node: CUgraphNode,
    /// `CUgraphInstantiateResult`.
    pub result: c_uint,
}

/// What became of an update (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUgraphExecUpdateResultInfo {
    /// `CUgraphExecUpdateResult`.
    pub result: c_uint,
    /// The node at fault.
    pub error_node: CUgraphNode,
    /// The node before it, where a dependency is at fault.
    pub error_from_node: CUgraphNode,
}

const _: () = {
    assert!(size_of::<CUgraphEdgeData>() == 8);
    assert!(size_of::<CUDA_GRAPH_INSTANTIATE_PARAMS>() == 32);
    assert!(size_of::<CUgraphExecUpdateResultInfo>() == 24);
};

/// The graph of a handle.
pub(crate) fn live(graph: CUgraph) -> Answer<Arc<Graph>> {
    GRAPHS.find(graph).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// The executable graph of a handle.
pub(crate) fn live_exec(exec: CUgraphExec) -> Answer<Arc<GraphExec>> {
    EXECS.find(exec).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// A node and its graph.
pub(crate) fn find(node: CUgraphNode) -> Answer<(Arc<Graph>, Node)> {
    let graph = NODES.find(node).and_then(|graph| graph.upgrade()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let found = graph.node(node).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok((graph, found))
}

/// Gives nodes in the way of these functions: without a list the number of all, with one as many as there is room for,
/// the rest of the room null.
fn give(all: &[CUgraphNode], list: Out<CUgraphNode>, count: Out<usize>) -> Answer {
    if list.is_null() {
        return count.put(all.len());
    }
    let room = count.read()?;
    for index in 0..room {
        list.put_at(index, all.get(index).copied().unwrap_or(CUgraphNode::NULL))?;
    }
    count.put(all.len().min(room))
}

/// Writes the data of plain dependencies.
fn blank(data: Out<CUgraphEdgeData>, count: usize) -> Answer {
    if data.is_null() {
        return Ok(());
    }
    (0..count).try_for_each(|index| data.put_at(index, CUgraphEdgeData::default()))
}

fn edges(graph: CUgraph, from: Out<CUgraphNode>, to: Out<CUgraphNode>, count: Out<usize>) -> Answer {
    let nodes = live(graph)?.nodes();
    let pairs = nodes.iter().flat_map(|node| node.after.iter().map(|before| (*before, node.handle)));
    let (first, second): (Vec<_>, Vec<_>) = pairs.unzip();
    if from.is_null() != to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if !to.is_null() {
        let room = count.read()?;
        for index in 0..room {
            to.put_at(index, second.get(index).copied().unwrap_or(CUgraphNode::NULL))?;
        }
    }
    give(&first, from, count)
}

fn dependents(node: CUgraphNode) -> Answer<Vec<CUgraphNode>> {
    let (graph, _) = find(node)?;
    Ok(graph.nodes().iter().filter(|other| other.after.contains(&node)).map(|other| other.handle).collect())
}

fn connect(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    count: usize,
    change: impl Fn(&Graph, CUgraphNode, CUgraphNode) -> Answer,
) -> Answer {
    let graph = live(graph)?;
    nodes(from, count)?.into_iter().zip(nodes(to, count)?).try_for_each(|(from, to)| change(&graph, from, to))
}

/// Auto-free on launch, upload and node priorities are accepted; launching from the device is not.
fn check_flags(flags: u64) -> Answer {
    match flags {
        _ if flags & !0xf != 0 => Err(CUresult::ERROR_INVALID_VALUE),
        _ if flags & 4 != 0 => Err(CUresult::ERROR_NOT_SUPPORTED),
        _ => Ok(()),
    }
}

fn launch(exec: CUgraphExec, stream: CUstream, default: DefaultStream) -> Answer {
    let (active, stream) = stream_anywhere(stream, default)?;
    let exec = live_exec(exec)?;
    if let Some(part) = &*stream.captured() {
        // Measured on an H200, driver 580: a graph cannot be launched into a capture, of whatever mode.
        part.capture.invalidate();
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    let run = exec.prepare();
    let after = run.after.iter().map(Arc::clone).collect();
    let owner = active.share();
    let done = active.submit(&stream, after, Box::new(move |_| run.execute(&owner)));
    exec.note(&done);
    Ok(())
}

/// Memory for an allocation node; it belongs to the graph for as long as that lives.
pub(crate) fn graph_memory(active: &Active, bytes: u64) -> Answer<Arc<GraphMemory>> {
    let address = super::memory::allocate(active, bytes, Origin::Graph)?;
    Ok(Arc::new(GraphMemory { address, bytes }))
}

/// A stream-ordered allocation in a capture.
pub(crate) fn capture_allocation(active: &Active, stream: &Stream, bytes: u64) -> Answer<u64> {
    let memory = graph_memory(active, bytes)?;
    let address = memory.address;
    active.capture_as(stream, || Body::Allocate(memory))?;
    Ok(address)
}

fn dot(nodes: &[Node]) -> String {
    let mut text = String::from("digraph dot {\n");
    for (index, node) in nodes.iter().enumerate() {
        let what = match &node.body {
            Body::Kernel(kernel) => kernel.launch.target.kernel().name.as_str(),
            Body::Copy(..) => "MEMCPY",
            Body::Fill(_) => "MEMSET",
            Body::Host(_) => "HOST",
            Body::Child(_) => "GRAPH",
            Body::Conditional(_) => "CONDITIONAL",
            Body::Empty => "EMPTY",
            Body::Wait(_) => "WAIT_EVENT",
            Body::Record(_) => "EVENT_RECORD",
            Body::Allocate(_) => "MEM_ALLOC",
            Body::Free(_) => "MEM_FREE",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  node{index} [label=\"{what}\"];");
        for before in
            node.after.iter().filter_map(|before| nodes.iter().position(|other| other.handle == *before))
        {
            let _ = writeln!(text, "  node{before} -> node{index};");
        }
    }
    text.push_str("}\n");
    text
}
