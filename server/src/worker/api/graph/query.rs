//! The shape of graphs, in pieces that fit into a frame.

use super::super::super::dispatch::{Answer, Call, done};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUgraphEdgeData, CUresult};

/// Entries of one answer.
const PIECE: usize = 16 << 10;
/// Most entries of a list that the driver is asked for.
const MAX_ENTRIES: usize = 1 << 26;

/// `cuGraphGetNodes`, `cuGraphGetRootNodes`: graph, first entry, room; the answer is how many there are, how many follow, and
/// those.
pub(in crate::worker) fn nodes(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let (first, room) = (call.get_usize()?, call.get_usize()?);
    let graph = call.state.graphs.graph(id)?.native;
    let driver = call.driver();
    let roots = call.header.op == op::cuGraphGetRootNodes;
    let ask = |array: *mut u64, count: &mut usize| {
        // SAFETY: a graph of the session's; an array of `count` entries, or none.
        unsafe {
            if roots {
                driver.cuGraphGetRootNodes(graph, array, &raw mut *count)
            } else {
                driver.cuGraphGetNodes(graph, array, &raw mut *count)
            }
        }
    };
    let mut count = 0;
    ask(std::ptr::null_mut(), &mut count)?;
    if count > MAX_ENTRIES {
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    let mut natives = vec![0; count];
    if room > 0 && count > 0 {
        ask(natives.as_mut_ptr(), &mut count)?;
    }
    let natives: Vec<u64> = natives.into_iter().skip(first).take(room.min(PIECE)).collect();
    let ids: Vec<u64> = natives.into_iter().map(|native| call.state.graphs.node_id(native, id)).collect();
    let mut reply = call.reply();
    reply.put(count as u64);
    reply.put(ids.len() as u64);
    ids.into_iter().for_each(|id| reply.put(id));
    done()
}

/// `cuGraphGetEdges`: graph; `cuGraphNodeGetDependencies`, `cuGraphNodeGetDependentNodes`: node; then first entry, room. As
/// [`nodes`], with three words each: the node (or from), to, and the edge's data.
pub(in crate::worker) fn edges(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let (first, room) = (call.get_usize()?, call.get_usize()?);
    let driver = call.driver();
    let number = call.header.op;
    let whole = number == op::cuGraphGetEdges_v2;
    let (native, graph) = if whole {
        (call.state.graphs.graph(id)?.native, id)
    } else {
        let node = call.state.graphs.node(id)?;
        (node.native, node.graph)
    };
    let ask = |from: *mut u64, to: *mut u64, data: *mut CUgraphEdgeData, count: &mut usize| {
        // SAFETY: a graph or node of the session's; arrays of `count` entries, or none.
        unsafe {
            match number {
                op::cuGraphGetEdges_v2 => driver.cuGraphGetEdges_v2(native, from, to, data, &raw mut *count),
                op::cuGraphNodeGetDependencies_v2 => {
                    driver.cuGraphNodeGetDependencies_v2(native, from, data, &raw mut *count)
                }
                _ => driver.cuGraphNodeGetDependentNodes_v2(native, from, data, &raw mut *count),
            }
        }
    };
    use std::ptr::null_mut;
    let mut count = 0;
    ask(null_mut(), null_mut(), null_mut(), &mut count)?;
    if count > MAX_ENTRIES {
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    let (mut from, mut to) = (vec![0; count], vec![0; count]);
    let mut data = vec![CUgraphEdgeData::default(); count];
    if room > 0 && count > 0 {
        ask(from.as_mut_ptr(), to.as_mut_ptr(), data.as_mut_ptr(), &mut count)?;
    }
    let here = first.min(count)..count.min(first.saturating_add(room.min(PIECE)));
    let mut words = Vec::with_capacity(3 * here.len());
    for index in here.clone() {
        words.push(call.state.graphs.node_id(from[index], graph));
        words.push(call.state.graphs.node_id(to[index], graph));
        words.push(data[index].to_word());
    }
    let mut reply = call.reply();
    reply.put(count as u64);
    reply.put(here.len() as u64);
    words.into_iter().for_each(|word| reply.put(word));
    done()
}

/// `cuGraphNodeGetType`: node.
pub(in crate::worker) fn kind(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let node = call.state.graphs.node(id)?.native;
    let mut kind: u32 = 0;
    // SAFETY: a node of the session's; a pointer to a local.
    unsafe { call.driver().cuGraphNodeGetType(node, &raw mut kind)? };
    call.reply().put(kind);
    done()
}

/// `cuGraphKernelNodeCopyAttributes`: to, from.
pub(in crate::worker) fn copy_attributes(call: &mut Call<'_>) -> Answer {
    let (to, from): (u64, u64) = (call.get()?, call.get()?);
    let (to, from) = (call.state.graphs.node(to)?.native, call.state.graphs.node(from)?.native);
    // SAFETY: nodes of the session's.
    unsafe { call.driver().cuGraphKernelNodeCopyAttributes(to, from)? };
    done()
}

/// `cuGraphKernelNodeGetAttribute`: node, attribute; the answer is the value.
pub(in crate::worker) fn attribute(call: &mut Call<'_>) -> Answer {
    let (id, attribute): (u64, u32) = (call.get()?, call.get()?);
    let node = call.state.graphs.node(id)?.native;
    let mut value = [0_u64; 8];
    // SAFETY: a node of the session's; a pointer to a local of the value's size.
    unsafe { call.driver().cuGraphKernelNodeGetAttribute(node, attribute, &raw mut value)? };
    call.reply().put(value);
    done()
}

/// `cuGraphKernelNodeSetAttribute`: node, attribute, value.
pub(in crate::worker) fn set_attribute(call: &mut Call<'_>) -> Answer {
    let (id, attribute): (u64, u32) = (call.get()?, call.get()?);
    let value: [u64; 8] = call.get()?;
    let node = call.state.graphs.node(id)?.native;
    let value = super::super::launch::attribute_value(call.state, attribute, value)?;
    // SAFETY: a node of the session's; a pointer to a local of the value's size, with the driver's handles in it.
    unsafe { call.driver().cuGraphKernelNodeSetAttribute(node, attribute, &raw const value)? };
    done()
}
