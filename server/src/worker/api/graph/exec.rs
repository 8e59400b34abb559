//! Instantiated graphs.

use super::super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::super::estimate::Key;
use super::memory::ending;
use super::mirror::Done;
use super::{Exec, Use, params, replace};
use crate::stats::count;
use pxos_protocol::types::{CUDA_GRAPH_INSTANTIATE_PARAMS, CUgraphExecUpdateResultInfo, CUresult, CUstream};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a graph writes.
fn writes(uses: &BTreeMap<u64, Vec<Use>>) -> Arc<Vec<Use>> {
    Arc::new(uses.values().flatten().filter(|one| one.writes).cloned().collect())
}

/// `cuGraphInstantiate…`: graph, flags, stream; the answer is the driver's, what it says of a failure, the executable graph and
/// the node that failed.
pub(in crate::worker) fn instantiate(call: &mut Call<'_>) -> Answer {
    let (id, flags): (u64, u64) = (call.get()?, call.get()?);
    let stream = call.get_stream()?;
    call.state.graphs.check_room()?;
    let graph = call.state.graphs.graph(id)?.native;
    let mut asked =
        CUDA_GRAPH_INSTANTIATE_PARAMS { flags, upload_stream: CUstream(stream), ..Default::default() };
    let mut native = 0;
    // SAFETY: a graph of the session's; pointers to locals.
    let made = unsafe { call.driver().cuGraphInstantiateWithParams(&raw mut native, graph, &raw mut asked) };
    let graphs = &mut call.state.graphs;
    let mut exec = 0;
    if made.is_ok() {
        let uses = graphs.collect(id);
        let writes = writes(&uses);
        exec = graphs.number(super::EXEC);
        let allocations = graphs.allocations(id);
        let promises = graphs.promises(id);
        graphs
            .execs
            .insert(exec, Exec { native, graph: id, allocations, promises, uses, writes, done: None });
    }
    let failed = graphs.node_id(asked.err_node_out.0, id);
    let mut reply = call.reply();
    reply.put(CUresult::from(made).0);
    reply.put(asked.result_out);
    reply.put(exec);
    reply.put(failed);
    done()
}

/// `cuGraphExecDestroy`: executable graph.
pub(in crate::worker) fn destroy(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let mut exec = call.state.graphs.execs.remove(&id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: of this session, taken out of the table.
    unsafe { call.driver().cuGraphExecDestroy(exec.native)? };
    call.state.graphs.lapse(call.session, ending(std::mem::take(&mut exec.promises)));
    if exec.uses.is_empty() {
        return done();
    }
    drop(exec);
    Ok(Outcome::Later(Box::new(|session, _| {
        super::bury(session);
        Ok(())
    })))
}

/// `cuGraphLaunch`: executable graph, stream.
pub(in crate::worker) fn launch(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let stream = call.get_stream()?;
    let (session, place) = (call.session, call.place(stream));
    let exec = call.state.graphs.execs.get_mut(&id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    count(&session.stats.launches);
    for address in &exec.allocations {
        // Counted with the graph.
        call.state.allocations.entry(*address).or_insert((0, call.header.context));
    }
    if exec.writes.is_empty() {
        let native = exec.native;
        // SAFETY: of this session, as the stream is.
        let launch = || unsafe { session.driver.cuGraphLaunch(native, stream) };
        session.gate.command(session, place, || Key::graph(native), launch)?;
        return done();
    }
    let context = call.header.context;
    let event = match &exec.done {
        Some((event, of)) if *of == context => Arc::clone(event),
        _ => {
            let event = Done::new(session)?;
            exec.done = Some((Arc::clone(&event), context));
            event
        }
    };
    session.deliveries.expect(id, stream, Arc::clone(&event), &exec.writes);
    let native = exec.native;
    let mut launched = Err(CUresult::ERROR_DEINITIALIZED);
    let passed = session.gate.command(
        session,
        place,
        || Key::graph(native),
        || {
            // SAFETY: of this session, as the stream is.
            launched = unsafe { session.driver.cuGraphLaunch(native, stream) };
            launched = launched.and_then(|()| event.record(session, stream));
            launched
        },
    );
    session.deliveries.launched(id, launched);
    passed?;
    done()
}

/// `cuGraphUpload`: executable graph, stream.
pub(in crate::worker) fn upload(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let stream = call.get_stream()?;
    let exec = call.state.graphs.exec(id)?.native;
    // SAFETY: of this session, as the stream is.
    unsafe { call.driver().cuGraphUpload(exec, stream)? };
    done()
}

/// `cuGraphExecUpdate`: executable graph, graph; the answer is the driver's, and what it says of a failure.
pub(in crate::worker) fn update(call: &mut Call<'_>) -> Answer {
    let (id, graph): (u64, u64) = (call.get()?, call.get()?);
    let exec = call.state.graphs.exec(id)?;
    let (native, origin) = (exec.native, exec.graph);
    let new = call.state.graphs.graph(graph)?.native;
    let mut info = CUgraphExecUpdateResultInfo::default();
    // SAFETY: objects of this session's; a pointer to a local.
    let updated = unsafe { call.driver().cuGraphExecUpdate_v2(native, new, &raw mut info) };
    let graphs = &mut call.state.graphs;
    let mut replaced = false;
    if updated.is_ok() {
        let mut uses = graphs.collect(graph);
        let exec = graphs.execs.get_mut(&id).expect("looked up above");
        if uses.len() == exec.uses.len() {
            // The nodes keep the names of the graph that was instantiated.
            uses = exec.uses.keys().copied().zip(uses.into_values()).collect();
        }
        replaced = !exec.uses.is_empty();
        exec.writes = writes(&uses);
        exec.uses = uses;
    }
    let failed = graphs.node_id(info.error_node.0, graph);
    let from =
        graphs.node_id(info.error_from_node.0, if graphs.graph(origin).is_ok() { origin } else { graph });
    let mut reply = call.reply();
    reply.put(CUresult::from(updated).0);
    reply.put(info.result);
    reply.put(failed);
    reply.put(from);
    if !replaced {
        return done();
    }
    let payload = std::mem::take(&mut call.state.reply);
    Ok(Outcome::Later(Box::new(move |session, reply| {
        *reply = payload;
        super::bury(session);
        Ok(())
    })))
}

/// `cuGraphExecNodeSetParams`: executable graph, node, parameters.
pub(in crate::worker) fn set(call: &mut Call<'_>) -> Answer {
    let (id, node): (u64, u64) = (call.get()?, call.get()?);
    let mut decoded = params::read(call)?;
    decoded.refuse_allocation()?;
    let native = call.state.graphs.node(node)?.native;
    let exec = call.state.graphs.exec(id)?.native;
    // SAFETY: objects of this session's; parameters whose pointers lead to memory of `decoded`.
    unsafe { call.driver().cuGraphExecNodeSetParams(exec, native, &raw mut decoded.native)? };
    let exec = call.state.graphs.execs.get_mut(&id).expect("looked up above");
    if !decoded.uses.is_empty() || exec.uses.contains_key(&node) {
        replace(&mut exec.uses, node, decoded.uses);
        exec.writes = writes(&exec.uses);
    }
    done()
}

/// `cuGraphExecGetFlags`: executable graph; the answer is its flags.
pub(in crate::worker) fn flags(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let exec = call.state.graphs.exec(id)?.native;
    let mut flags: u64 = 0;
    // SAFETY: of this session; a pointer to a local.
    unsafe { call.driver().cuGraphExecGetFlags(exec, &raw mut flags)? };
    call.reply().put(flags);
    done()
}

/// `cuGraphNodeSetEnabled`: executable graph, node, whether.
pub(in crate::worker) fn set_enabled(call: &mut Call<'_>) -> Answer {
    let (id, node, enabled): (u64, u64, u32) = (call.get()?, call.get()?, call.get()?);
    let (exec, node) = (call.state.graphs.exec(id)?.native, call.state.graphs.node(node)?.native);
    // SAFETY: objects of this session's.
    unsafe { call.driver().cuGraphNodeSetEnabled(exec, node, enabled)? };
    done()
}

/// `cuGraphNodeGetEnabled`: executable graph, node; the answer is whether.
pub(in crate::worker) fn enabled(call: &mut Call<'_>) -> Answer {
    let (id, node): (u64, u64) = (call.get()?, call.get()?);
    let (exec, node) = (call.state.graphs.exec(id)?.native, call.state.graphs.node(node)?.native);
    let mut enabled: u32 = 0;
    // SAFETY: objects of this session's; a pointer to a local.
    unsafe { call.driver().cuGraphNodeGetEnabled(exec, node, &raw mut enabled)? };
    call.reply().put(enabled);
    done()
}
