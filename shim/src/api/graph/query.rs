//! The shape of a graph: its nodes and edges. Lists come in pieces that fit into a frame.

use super::build::{EDGES, write_edges};
use crate::api::{Result, put};
use crate::call::{call, garbled};
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUgraph, CUgraphEdgeData, CUgraphNode, CUgraphNodeType, CUresult};

/// Asks for a list of `of` (a graph or a node): up to `room` entries of `N` words. Answers how many there are, and the entries.
fn list<const N: usize>(number: u16, of: u64, room: usize) -> Result<(usize, Vec<[u64; N]>)> {
    let mut entries = Vec::new();
    loop {
        let reply = call(number, |writer| {
            writer.put(of);
            writer.put(entries.len() as u64);
            writer.put((room - entries.len()) as u64);
        })?;
        let mut fields = reply.reader();
        let total: u64 = fields.get().map_err(garbled)?;
        let here: u64 = fields.get().map_err(garbled)?;
        for _ in 0..here {
            let mut entry = [0; N];
            for word in &mut entry {
                *word = fields.get().map_err(garbled)?;
            }
            entries.push(entry);
        }
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if here == 0 || entries.len() >= room.min(total) {
            return Ok((total, entries));
        }
    }
}

/// Fills the application's array as CUDA does: with no array the count is asked for; entries beyond the list are null, and the
/// count becomes that of the list where that is smaller (CUDA driver API, cuGraphGetNodes).
///
/// # Safety
/// `count` may be written, and the arrays, where not null, hold as many entries as it says.
unsafe fn nodes(number: u16, of: u64, array: *mut CUgraphNode, count: *mut usize) -> Result {
    // SAFETY: null or a count, by this function's contract.
    let count = unsafe { count.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if array.is_null() {
        *count = list::<1>(number, of, 0)?.0;
        return Ok(());
    }
    let (total, entries) = list::<1>(number, of, *count)?;
    for index in 0..*count {
        let node = entries.get(index).map_or(CUgraphNode::NULL, |[node]| CUgraphNode(*node));
        // SAFETY: within the array, by this function's contract.
        unsafe { array.add(index).write(node) };
    }
    *count = total.min(*count);
    Ok(())
}

/// As [`nodes`], for edges: of each, `ends` arrays take the nodes and `data`, where not null, the edge's data. Without the last
/// an edge that has data cannot be told (`CUDA_ERROR_LOSSY_QUERY`).
///
/// # Safety
/// As [`nodes`].
unsafe fn edges<const N: usize>(
    number: u16,
    of: u64,
    ends: [*mut CUgraphNode; N],
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Result {
    // SAFETY: null or a count, by this function's contract.
    let count = unsafe { count.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if ends.iter().all(|array| array.is_null()) {
        *count = list::<3>(number, of, 0)?.0;
        return Ok(());
    }
    if ends.iter().any(|array| array.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (total, entries) = list::<3>(number, of, *count)?;
    if data.is_null() && entries.iter().any(|[_, _, data]| *data != 0) {
        return Err(CUresult::ERROR_LOSSY_QUERY);
    }
    for index in 0..*count {
        let entry = entries.get(index).copied().unwrap_or([0; 3]);
        for (array, node) in ends.iter().zip(entry) {
            // SAFETY: within the array, by this function's contract.
            unsafe { array.add(index).write(CUgraphNode(node)) };
        }
        if !data.is_null() {
            // SAFETY: as above.
            unsafe { data.add(index).write(CUgraphEdgeData::from_word(entry[2])) };
        }
    }
    *count = total.min(*count);
    Ok(())
}

pub(crate) unsafe fn cuGraphGetNodes(
    hGraph: CUgraph,
    nodes: *mut CUgraphNode,
    numNodes: *mut usize,
) -> Result {
    let graph = session()?.graphs.graph(hGraph)?;
    // SAFETY: the entry point's contract.
    unsafe { self::nodes(op::cuGraphGetNodes, graph.id, nodes, numNodes) }
}

pub(crate) unsafe fn cuGraphGetRootNodes(
    hGraph: CUgraph,
    rootNodes: *mut CUgraphNode,
    numRootNodes: *mut usize,
) -> Result {
    let graph = session()?.graphs.graph(hGraph)?;
    // SAFETY: the entry point's contract.
    unsafe { nodes(op::cuGraphGetRootNodes, graph.id, rootNodes, numRootNodes) }
}

pub(crate) unsafe fn cuGraphGetEdges(
    hGraph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    numEdges: *mut usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuGraphGetEdges_v2(hGraph, from, to, std::ptr::null_mut(), numEdges) }
}

pub(crate) unsafe fn cuGraphGetEdges_v2(
    hGraph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numEdges: *mut usize,
) -> Result {
    let graph = session()?.graphs.graph(hGraph)?;
    // SAFETY: the entry point's contract.
    unsafe { edges(op::cuGraphGetEdges_v2, graph.id, [from, to], edgeData, numEdges) }
}

pub(crate) unsafe fn cuGraphNodeGetDependencies(
    hNode: CUgraphNode,
    dependencies: *mut CUgraphNode,
    numDependencies: *mut usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuGraphNodeGetDependencies_v2(hNode, dependencies, std::ptr::null_mut(), numDependencies) }
}

pub(crate) unsafe fn cuGraphNodeGetDependencies_v2(
    hNode: CUgraphNode,
    dependencies: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numDependencies: *mut usize,
) -> Result {
    session()?;
    // SAFETY: the entry point's contract.
    unsafe { edges(op::cuGraphNodeGetDependencies_v2, hNode.0, [dependencies], edgeData, numDependencies) }
}

pub(crate) unsafe fn cuGraphNodeGetDependentNodes(
    hNode: CUgraphNode,
    dependentNodes: *mut CUgraphNode,
    numDependentNodes: *mut usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuGraphNodeGetDependentNodes_v2(hNode, dependentNodes, std::ptr::null_mut(), numDependentNodes) }
}

pub(crate) unsafe fn cuGraphNodeGetDependentNodes_v2(
    hNode: CUgraphNode,
    dependentNodes: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numDependentNodes: *mut usize,
) -> Result {
    session()?;
    // SAFETY: the entry point's contract.
    unsafe {
        edges(op::cuGraphNodeGetDependentNodes_v2, hNode.0, [dependentNodes], edgeData, numDependentNodes)
    }
}

/// Adds edges, or takes them away.
///
/// # Safety
/// The arrays hold `count` entries; the last may be null.
pub(super) unsafe fn dependencies(
    session: &Session,
    adds: bool,
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Result {
    let graph = session.graphs.graph(graph)?;
    if count == 0 {
        return Ok(());
    }
    if from.is_null() || to.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let number = if adds { op::cuGraphAddDependencies_v2 } else { op::cuGraphRemoveDependencies_v2 };
    for start in (0..count).step_by(EDGES) {
        let piece = start..count.min(start + EDGES);
        call(number, |writer| {
            writer.put(graph.id);
            // SAFETY: by this function's contract.
            unsafe {
                write_edges(from, data, piece.clone(), writer);
                write_edges(to, std::ptr::null(), piece, writer);
            }
        })?;
    }
    Ok(())
}

pub(crate) unsafe fn cuGraphAddDependencies(
    hGraph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    numDependencies: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { dependencies(session()?, true, hGraph, from, to, std::ptr::null(), numDependencies) }
}

pub(crate) unsafe fn cuGraphAddDependencies_v2(
    hGraph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edgeData: *const CUgraphEdgeData,
    numDependencies: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { dependencies(session()?, true, hGraph, from, to, edgeData, numDependencies) }
}

pub(crate) unsafe fn cuGraphRemoveDependencies(
    hGraph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    numDependencies: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { dependencies(session()?, false, hGraph, from, to, std::ptr::null(), numDependencies) }
}

pub(crate) unsafe fn cuGraphRemoveDependencies_v2(
    hGraph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edgeData: *const CUgraphEdgeData,
    numDependencies: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { dependencies(session()?, false, hGraph, from, to, edgeData, numDependencies) }
}

pub(crate) unsafe fn cuGraphNodeGetType(hNode: CUgraphNode, kind: *mut CUgraphNodeType) -> Result {
    let reply = call(op::cuGraphNodeGetType, |writer| writer.put(hNode.0))?;
    let value = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(kind, value) }
}
