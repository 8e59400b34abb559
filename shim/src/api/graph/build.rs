//! Making and ending graphs and nodes.

use super::{Graphs, Held, number, params};
use crate::api::{Result, enter, put};
use crate::call::call;
use crate::lock;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{
    CUcontext, CUgraph, CUgraphConditionalHandle, CUgraphEdgeData, CUgraphNode, CUgraphNodeParams, CUresult,
};
use std::ffi::c_uint;

/// Edges of one message: half of what a frame holds.
pub(super) const EDGES: usize = 16 << 10;

pub(crate) unsafe fn cuGraphCreate(phGraph: *mut CUgraph, flags: c_uint) -> Result {
    let (session, _) = enter()?;
    if phGraph.is_null() || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(op::cuGraphCreate, |writer| writer.put(flags))?;
    let graph = session.graphs.adopt(number(&mut reply.reader())?);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraph, CUgraph(graph.id)) }
}

pub(crate) unsafe fn cuGraphDestroy(hGraph: CUgraph) -> Result {
    let session = session()?;
    session.graphs.graph(hGraph)?;
    let reply = call(op::cuGraphDestroy, |writer| writer.put(hGraph.0));
    if let Some(graph) = session.graphs.forget(hGraph.0) {
        for allocated in std::mem::take(&mut *lock(&graph.allocations)) {
            session.allocations.remove(allocated.address, |_| true);
        }
    }
    reply.map(|_| ())
}

pub(crate) unsafe fn cuGraphClone(phGraphClone: *mut CUgraph, originalGraph: CUgraph) -> Result {
    let session = session()?;
    let original = session.graphs.graph(originalGraph)?;
    if phGraphClone.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(op::cuGraphClone, |writer| writer.put(original.id))?;
    let mut fields = reply.reader();
    let clone = session.graphs.adopt(number(&mut fields)?);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraphClone, CUgraph(clone.id))? };
    // The clone's nodes need what the original's do; asked one by one, since few nodes need anything.
    for (node, held) in session.graphs.collect(&original) {
        let reply = call(op::cuGraphNodeFindInClone, |writer| {
            writer.put(node);
            writer.put(clone.id);
        });
        match reply {
            Ok(reply) => clone.hold(number(&mut reply.reader())?, held),
            // A node of a graph inside a node.
            Err(_) => clone.hold(node, held),
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuGraphNodeFindInClone(
    phNode: *mut CUgraphNode,
    hOriginalNode: CUgraphNode,
    hClonedGraph: CUgraph,
) -> Result {
    let session = session()?;
    let clone = session.graphs.graph(hClonedGraph)?;
    let reply = call(op::cuGraphNodeFindInClone, |writer| {
        writer.put(hOriginalNode.0);
        writer.put(clone.id);
    })?;
    let node = number(&mut reply.reader())?;
    // SAFETY: the entry point's contract.
    unsafe { put(phNode, CUgraphNode(node)) }
}

/// Writes nodes and the data of the edges to them.
///
/// # Safety
/// The arrays hold `count` entries; the second may be null.
pub(super) unsafe fn write_edges(
    nodes: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    range: std::ops::Range<usize>,
    writer: &mut Writer<'_>,
) {
    writer.put(range.len() as u64);
    for index in range {
        // SAFETY: within the array, by this function's contract.
        writer.put(unsafe { nodes.add(index).read() }.0);
        let data = match data.is_null() {
            true => CUgraphEdgeData::default(),
            // SAFETY: as above.
            false => unsafe { data.add(index).read() },
        };
        writer.put(data.to_word());
    }
}

/// Adds a node of any kind.
///
/// # Safety
/// As the CUDA driver API manual says of cuGraphAddNode.
pub(super) unsafe fn add(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    node_params: &mut CUgraphNodeParams,
) -> Result {
    let (session, _) = enter()?;
    let graph = session.graphs.graph(hGraph)?;
    if phGraphNode.is_null() || (dependencies.is_null() && count > 0) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut bytes = Vec::new();
    // SAFETY: by this function's contract.
    let held = unsafe { params::write(session, node_params, &mut Writer::new(&mut bytes))? };
    let first = count.min(EDGES);
    let reply = call(op::cuGraphAddNode_v2, |writer| {
        writer.put(graph.id);
        // SAFETY: by this function's contract.
        unsafe { write_edges(dependencies, data, 0..first, writer) };
        writer.put_raw(&bytes);
    })?;
    let mut fields = reply.reader();
    let node = number(&mut fields)?;
    graph.hold(node, held);
    session.graphs.note_node(session, &graph, node, node_params, &mut fields)?;
    for start in (first..count).step_by(EDGES) {
        let rest = start..count.min(start + EDGES);
        let to = vec![CUgraphNode(node); rest.len()];
        // SAFETY: by this function's contract; as many targets as there are sources.
        unsafe {
            let data = if data.is_null() { data } else { data.add(start) };
            super::query::dependencies(
                session,
                true,
                hGraph,
                dependencies.add(start),
                to.as_ptr(),
                data,
                rest.len(),
            )?;
        }
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraphNode, CUgraphNode(node)) }
}

/// Replaces the parameters of a node, in its graph or, with `exec`, in an instantiated one.
///
/// # Safety
/// The pointers in the parameters are valid as the CUDA driver API manual says of the kind.
pub(super) unsafe fn set(
    exec: Option<pxos_protocol::types::CUgraphExec>,
    node: CUgraphNode,
    node_params: &CUgraphNodeParams,
) -> Result {
    let (session, _) = enter()?;
    let exec = exec.map(|exec| session.graphs.exec(exec)).transpose()?;
    let mut bytes = Vec::new();
    // SAFETY: by this function's contract.
    let held: Held = unsafe { params::write(session, node_params, &mut Writer::new(&mut bytes))? };
    if let Some(exec) = exec {
        call(op::cuGraphExecNodeSetParams, |writer| {
            writer.put(exec.id);
            writer.put(node.0);
            writer.put_raw(&bytes);
        })?;
        exec.hold(node.0, held);
        return Ok(());
    }
    let reply = call(op::cuGraphNodeSetParams, |writer| {
        writer.put(node.0);
        writer.put_raw(&bytes);
    })?;
    session.graphs.adopt(number(&mut reply.reader())?).hold(node.0, held);
    Ok(())
}

pub(crate) unsafe fn cuGraphAddNode(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    numDependencies: usize,
    nodeParams: *mut CUgraphNodeParams,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe {
        cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, std::ptr::null(), numDependencies, nodeParams)
    }
}

pub(crate) unsafe fn cuGraphAddNode_v2(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    dependencyData: *const CUgraphEdgeData,
    numDependencies: usize,
    nodeParams: *mut CUgraphNodeParams,
) -> Result {
    // SAFETY: null or parameters, by the entry point's contract.
    let params = unsafe { nodeParams.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { add(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, params) }
}

pub(crate) unsafe fn cuGraphNodeSetParams(hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams) -> Result {
    // SAFETY: null or parameters, by the entry point's contract.
    let params = unsafe { nodeParams.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { set(None, hNode, params) }
}

pub(crate) unsafe fn cuGraphExecNodeSetParams(
    hGraphExec: pxos_protocol::types::CUgraphExec,
    hNode: CUgraphNode,
    nodeParams: *mut CUgraphNodeParams,
) -> Result {
    // SAFETY: null or parameters, by the entry point's contract.
    let params = unsafe { nodeParams.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { set(Some(hGraphExec), hNode, params) }
}

pub(crate) unsafe fn cuGraphDestroyNode(hNode: CUgraphNode) -> Result {
    let session = session()?;
    let reply = call(op::cuGraphDestroyNode, |writer| writer.put(hNode.0))?;
    let graph = session.graphs.adopt(number(&mut reply.reader())?);
    graph.hold(hNode.0, Held::default());
    lock(&graph.kept).remove(&hNode.0);
    Ok(())
}

pub(crate) unsafe fn cuGraphConditionalHandleCreate(
    pHandle_out: *mut CUgraphConditionalHandle,
    hGraph: CUgraph,
    ctx: CUcontext,
    defaultLaunchValue: c_uint,
    flags: c_uint,
) -> Result {
    let (session, context) = enter()?;
    let graph = session.graphs.graph(hGraph)?;
    let context = match ctx {
        CUcontext::NULL => context,
        ctx => session.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?,
    };
    let reply = call(op::cuGraphConditionalHandleCreate, |writer| {
        writer.put(graph.id);
        writer.put(context.handle);
        writer.put(defaultLaunchValue);
        writer.put(flags);
    })?;
    let handle = number(&mut reply.reader())?;
    // SAFETY: the entry point's contract.
    unsafe { put(pHandle_out, handle) }
}

impl Graphs {
    /// Ends every graph that the worker forgot with a capture that failed.
    pub(crate) fn lost(&self, session: &Session, id: u64) {
        if let Some(graph) = self.forget(id) {
            for allocated in std::mem::take(&mut *lock(&graph.allocations)) {
                session.allocations.remove(allocated.address, |_| true);
            }
        }
    }
}
