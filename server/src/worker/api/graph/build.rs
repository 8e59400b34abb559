//! Making, changing and ending graphs and nodes.

use super::super::super::dispatch::{Answer, Call, Failed, Outcome, done};
use super::memory::ending;
use super::{params, replace};
use pxos_protocol::types::{CUgraphEdgeData, CUresult, node_type};

/// Most edges of one call: a frame holds no more.
const MAX_EDGES: usize = 64 << 10;

/// `cuGraphCreate`: flags; the answer is the graph.
pub(in crate::worker) fn create(call: &mut Call<'_>) -> Answer {
    let flags = call.get()?;
    call.state.graphs.check_room()?;
    let mut native = 0;
    // SAFETY: a pointer to a local.
    unsafe { call.driver().cuGraphCreate(&raw mut native, flags)? };
    let id = call.state.graphs.graph_id(native, 0);
    call.reply().put(id);
    done()
}

/// `cuGraphDestroy`: graph.
pub(in crate::worker) fn destroy(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let graph = call.state.graphs.graph(id)?;
    if graph.inside != 0 || call.state.graphs.is_captured(id) {
        // It belongs to its node, or a stream still captures into it.
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: a graph of the session's.
    unsafe { call.driver().cuGraphDestroy(graph.native)? };
    forget(call, id)
}

/// Forgets a graph; memory that nothing uses any more is given back outside the leader's turn.
pub(super) fn forget(call: &mut Call<'_>, id: u64) -> Answer {
    let mirrored = !call.state.graphs.collect(id).is_empty();
    let reserved = call.state.graphs.forget_graph(id);
    call.state.graphs.lapse(call.session, reserved);
    if !mirrored {
        return done();
    }
    Ok(Outcome::Later(Box::new(|session, _| {
        super::bury(session);
        Ok(())
    })))
}

/// `cuGraphClone`: graph; the answer is the clone.
pub(in crate::worker) fn clone(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    call.state.graphs.check_room()?;
    let original = call.state.graphs.graph(id)?.native;
    let mut native = 0;
    let driver = call.driver();
    // SAFETY: a graph of the session's; a pointer to a local.
    unsafe { driver.cuGraphClone(&raw mut native, original)? };
    let clone = call.state.graphs.graph_id(native, 0);
    for (node, uses) in call.state.graphs.collect(id) {
        let mut twin = 0;
        let original = call.state.graphs.node(node)?.native;
        // SAFETY: a node of the original, its clone, and a pointer to a local.
        let found = unsafe { driver.cuGraphNodeFindInClone(&raw mut twin, original, native) };
        // A node of a graph inside a node is not found; its memory lives with the clone all the same.
        let twin = if found.is_ok() { call.state.graphs.node_id(twin, clone) } else { node };
        replace(&mut call.state.graphs.graph_mut(clone)?.uses, twin, uses);
    }
    call.reply().put(clone);
    done()
}

/// `cuGraphNodeFindInClone`: node, clone; the answer is the node there.
pub(in crate::worker) fn find_in_clone(call: &mut Call<'_>) -> Answer {
    let (node, clone): (u64, u64) = (call.get()?, call.get()?);
    let node = call.state.graphs.node(node)?.native;
    let graph = call.state.graphs.graph(clone)?.native;
    let mut twin = 0;
    // SAFETY: a node and a graph of the session's; a pointer to a local.
    unsafe { call.driver().cuGraphNodeFindInClone(&raw mut twin, node, graph)? };
    let twin = call.state.graphs.node_id(twin, clone);
    call.reply().put(twin);
    done()
}

/// Nodes with the data of the edges to them: count, then each. The driver's handles.
pub(super) fn edges(call: &mut Call<'_>) -> Result<(Vec<u64>, Vec<CUgraphEdgeData>), Failed> {
    let count = call.get_usize()?;
    if count > MAX_EDGES {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let (mut nodes, mut data) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (node, word): (u64, u64) = (call.get()?, call.get()?);
        nodes.push(call.state.graphs.node(node)?.native);
        data.push(CUgraphEdgeData::from_word(word));
    }
    Ok((nodes, data))
}

/// What the driver is told of edges: nothing where none has data, since some drivers refuse even zeros.
pub(super) fn pointer(data: &[CUgraphEdgeData]) -> *const CUgraphEdgeData {
    let plain = data.iter().all(|edge| *edge == CUgraphEdgeData::default());
    if plain { std::ptr::null() } else { data.as_ptr() }
}

/// `cuGraphAddNode`: graph, dependencies, parameters; the answer is the node, and what came with it.
pub(in crate::worker) fn add(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let (dependencies, data) = edges(call)?;
    let mut decoded = params::read(call)?;
    call.state.graphs.check_room()?;
    let graph = call.state.graphs.graph(id)?.native;
    let session = call.session;
    let promise = match decoded.allocates {
        0 => None,
        bytes => Some(call.state.graphs.promise(session, bytes)?),
    };
    let mut native = 0;
    // SAFETY: a graph and nodes of the session's; parameters whose pointers lead to memory of `decoded`.
    let added = unsafe {
        call.driver().cuGraphAddNode_v2(
            &raw mut native,
            graph,
            dependencies.as_ptr(),
            pointer(&data),
            dependencies.len(),
            &raw mut decoded.native,
        )
    };
    if let Err(error) = added {
        call.state.graphs.lapse(session, ending(promise.into_iter().collect()));
        return Err(error.into());
    }
    let node = call.state.graphs.node_id(native, id);
    let held = call.state.graphs.graph_mut(id)?;
    held.promises.extend(promise);
    replace(&mut held.uses, node, std::mem::take(&mut decoded.uses));
    call.state.graphs.note_kernel(node, &decoded.native);
    let mut answer = vec![node];
    match decoded.native.kind {
        node_type::MEM_ALLOC => {
            // SAFETY: the member of the kind, which the driver has filled.
            let address = unsafe { decoded.native.body.alloc.dptr };
            call.state.graphs.graph_mut(id)?.allocations.push(address);
            answer.push(address);
        }
        node_type::CONDITIONAL => {
            // SAFETY: as above.
            let conditional = unsafe { decoded.native.body.conditional };
            for index in 0..conditional.size as usize {
                // SAFETY: the driver's array has as many graphs as were asked for.
                let body = unsafe { conditional.graph_out.add(index).read() };
                answer.push(call.state.graphs.graph_id(body.0, node));
            }
        }
        // The child belongs to its node from now on.
        node_type::GRAPH => {
            // SAFETY: as above.
            let child = unsafe { decoded.native.body.graph };
            if child.ownership == 1 {
                let moved = call.state.graphs.graph_id(child.graph.0, node);
                call.state.graphs.graph_mut(moved)?.inside = node;
                call.state.graphs.graph_mut(id)?.parts.push(moved);
            }
        }
        _ => {}
    }
    let mut reply = call.reply();
    answer.into_iter().for_each(|word| reply.put(word));
    done()
}

/// `cuGraphNodeSetParams`: node, parameters; the answer is the node's graph.
pub(in crate::worker) fn set(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let mut decoded = params::read(call)?;
    decoded.refuse_allocation()?;
    let node = call.state.graphs.node(id)?;
    // SAFETY: a node of the session's; parameters whose pointers lead to memory of `decoded`.
    unsafe { call.driver().cuGraphNodeSetParams(node.native, &raw mut decoded.native)? };
    replace(&mut call.state.graphs.graph_mut(node.graph)?.uses, id, decoded.uses);
    call.state.graphs.note_kernel(id, &decoded.native);
    call.reply().put(node.graph);
    done()
}

/// `cuGraphDestroyNode`: node; the answer is its graph.
pub(in crate::worker) fn destroy_node(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let node = call.state.graphs.node(id)?;
    if call.state.graphs.is_captured(node.graph) {
        // The stream's next node may depend on it.
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: a node of the session's.
    unsafe { call.driver().cuGraphDestroyNode(node.native)? };
    call.state.graphs.forget_node(id);
    call.reply().put(node.graph);
    done()
}

/// `cuGraphAddDependencies` and `cuGraphRemoveDependencies`: graph, from, to.
pub(in crate::worker) fn dependencies(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let (from, data) = edges(call)?;
    let (to, _) = edges(call)?;
    let graph = call.state.graphs.graph(id)?.native;
    if from.len() != to.len() {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let driver = call.driver();
    // SAFETY: a graph and nodes of the session's, arrays of one length.
    unsafe {
        if call.header.op == pxos_protocol::api::op::cuGraphAddDependencies_v2 {
            driver.cuGraphAddDependencies_v2(
                graph,
                from.as_ptr(),
                to.as_ptr(),
                pointer(&data),
                from.len(),
            )?;
        } else {
            driver.cuGraphRemoveDependencies_v2(
                graph,
                from.as_ptr(),
                to.as_ptr(),
                pointer(&data),
                from.len(),
            )?;
        }
    }
    done()
}

/// `cuGraphConditionalHandleCreate`: graph, context, default value, flags; the answer is the handle.
pub(in crate::worker) fn conditional(call: &mut Call<'_>) -> Answer {
    let (id, context): (u64, u64) = (call.get()?, call.get()?);
    let (value, flags): (u32, u32) = (call.get()?, call.get()?);
    let graph = call.state.graphs.graph(id)?.native;
    let context = call.state.contexts.get(context)?.native;
    let mut handle = 0;
    // SAFETY: a graph and a context of the session's; a pointer to a local.
    unsafe { call.driver().cuGraphConditionalHandleCreate(&raw mut handle, graph, context, value, flags)? };
    call.state.graphs.conditionals.insert(handle, id);
    call.reply().put(handle);
    done()
}
