//! Instantiated graphs: made, launched, updated, ended. A launch is one message that nobody waits for.

use super::{Graphs, number};
use crate::api::{Result, enter, put, stream_argument};
use crate::call::{call, garbled, post};
use crate::session::{Session, session};
use crate::{exclusive, lock};
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{
    CUDA_GRAPH_INSTANTIATE_PARAMS, CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode, CUresult,
    CUstream,
};
use std::ffi::{c_char, c_uint};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// What instantiating tells beside its result.
struct Instantiated {
    exec: u64,
    error_node: u64,
    details: u32,
    result: CUresult,
}

fn instantiate(session: &Session, graph: CUgraph, flags: u64, stream: u64) -> Result<Instantiated> {
    let graph = session.graphs.graph(graph)?;
    let reply = call(op::cuGraphInstantiateWithParams, |writer| {
        writer.put(graph.id);
        writer.put(flags);
        writer.put(stream);
    })?;
    let mut fields = reply.reader();
    let result = CUresult(fields.get().map_err(garbled)?);
    let details = fields.get().map_err(garbled)?;
    let (exec, error_node) = (number(&mut fields)?, number(&mut fields)?);
    if result.is_success() {
        session.graphs.add_exec(exec, &graph);
    }
    Ok(Instantiated { exec, error_node, details, result })
}

pub(crate) unsafe fn cuGraphInstantiateWithFlags(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    flags: u64,
) -> Result {
    let (session, _) = enter()?;
    if phGraphExec.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let made = instantiate(session, hGraph, flags, 0)?;
    made.result.ok()?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraphExec, CUgraphExec(made.exec)) }
}

pub(crate) unsafe fn cuGraphInstantiate(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    phErrorNode: *mut CUgraphNode,
    logBuffer: *mut c_char,
    bufferSize: usize,
) -> Result {
    let (session, _) = enter()?;
    if phGraphExec.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let made = instantiate(session, hGraph, 0, 0)?;
    // SAFETY: not null, and writable by the entry point's contract; the log is empty.
    unsafe {
        if !phErrorNode.is_null() {
            phErrorNode.write(CUgraphNode(made.error_node));
        }
        if !logBuffer.is_null() && bufferSize > 0 {
            logBuffer.write(0);
        }
        made.result.ok()?;
        put(phGraphExec, CUgraphExec(made.exec))
    }
}

pub(crate) unsafe fn cuGraphInstantiate_v2(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    phErrorNode: *mut CUgraphNode,
    logBuffer: *mut c_char,
    bufferSize: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuGraphInstantiate(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize) }
}

pub(crate) unsafe fn cuGraphInstantiateWithParams(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    instantiateParams: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
) -> Result {
    let (session, _) = enter()?;
    // SAFETY: null or parameters, by the entry point's contract.
    let params = unsafe { instantiateParams.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if phGraphExec.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let stream = stream_argument(session, params.upload_stream.0)?;
    let made = instantiate(session, hGraph, params.flags, stream)?;
    params.err_node_out = CUgraphNode(made.error_node);
    params.result_out = made.details;
    made.result.ok()?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraphExec, CUgraphExec(made.exec)) }
}

pub(crate) unsafe fn cuGraphExecDestroy(hGraphExec: CUgraphExec) -> Result {
    let session = session()?;
    session.graphs.remove_exec(hGraphExec)?;
    post(op::cuGraphExecDestroy, |writer| writer.put(hGraphExec.0))
}

pub(crate) unsafe fn cuGraphExecGetFlags(hGraphExec: CUgraphExec, flags: *mut u64) -> Result {
    let exec = session()?.graphs.exec(hGraphExec)?;
    let reply = call(op::cuGraphExecGetFlags, |writer| writer.put(exec.id))?;
    let value = number(&mut reply.reader())?;
    // SAFETY: the entry point's contract.
    unsafe { put(flags, value) }
}

pub(crate) unsafe fn cuGraphLaunch(hGraphExec: CUgraphExec, hStream: CUstream) -> Result {
    let (session, context) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    let exec = session.graphs.exec(hGraphExec)?;
    if session.captures.is_capturing(stream) {
        // The launch becomes a node that stands for the whole graph.
        let reply = call(op::cuGraphAddChildGraphNode, |writer| {
            writer.put(exec.id);
            writer.put(stream);
        })?;
        let node = number(&mut reply.reader())?;
        let mut flat = super::Held::default();
        lock(&exec.held).values().for_each(|held| flat.extend(held));
        session.captures.hold(session, stream, node, flat);
        return Ok(());
    }
    exec.prepare(session, stream)?;
    exec.allocations.iter().for_each(|allocated| allocated.appear(session));
    let write = |writer: &mut Writer<'_>| {
        writer.put(exec.id);
        writer.put(stream);
    };
    if exclusive::is_possible() && exclusive::graphs_concern(session, context.device) {
        return exclusive::submit(session, &context, stream, op::cuGraphLaunch, write);
    }
    session.post(op::cuGraphLaunch, write)
}

pub(crate) unsafe fn cuGraphUpload(hGraphExec: CUgraphExec, hStream: CUstream) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    let exec = session.graphs.exec(hGraphExec)?;
    session.post(op::cuGraphUpload, |writer| {
        writer.put(exec.id);
        writer.put(stream);
    })
}

fn update(exec: CUgraphExec, graph: CUgraph) -> Result<(CUresult, CUgraphExecUpdateResultInfo)> {
    let (session, _) = enter()?;
    let (exec, graph) = (session.graphs.exec(exec)?, session.graphs.graph(graph)?);
    let reply = call(op::cuGraphExecUpdate_v2, |writer| {
        writer.put(exec.id);
        writer.put(graph.id);
    })?;
    let mut fields = reply.reader();
    let result = CUresult(fields.get().map_err(garbled)?);
    let info = CUgraphExecUpdateResultInfo {
        result: fields.get().map_err(garbled)?,
        error_node: CUgraphNode(number(&mut fields)?),
        error_from_node: CUgraphNode(number(&mut fields)?),
    };
    if result.is_success() {
        let mut new = session.graphs.collect(&graph);
        let mut held = lock(&exec.held);
        if held.len() == new.len() {
            // The nodes keep the names of the graph that was instantiated; both count up in the order of creation.
            new = held.keys().copied().zip(new.into_values()).collect();
        }
        exec.holds.store(!new.is_empty(), Ordering::Release);
        *held = new;
        exec.primed.store(false, Ordering::Relaxed);
    }
    Ok((result, info))
}

pub(crate) unsafe fn cuGraphExecUpdate(
    hGraphExec: CUgraphExec,
    hGraph: CUgraph,
    hErrorNode_out: *mut CUgraphNode,
    updateResult_out: *mut c_uint,
) -> Result {
    let (result, info) = update(hGraphExec, hGraph)?;
    // SAFETY: null or writable, by the entry point's contract.
    unsafe {
        if !hErrorNode_out.is_null() {
            hErrorNode_out.write(info.error_node);
        }
        if !updateResult_out.is_null() {
            updateResult_out.write(info.result);
        }
    }
    result.ok()
}

pub(crate) unsafe fn cuGraphExecUpdate_v2(
    hGraphExec: CUgraphExec,
    hGraph: CUgraph,
    resultInfo: *mut CUgraphExecUpdateResultInfo,
) -> Result {
    if resultInfo.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (result, info) = update(hGraphExec, hGraph)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { resultInfo.write(info) };
    result.ok()
}

pub(crate) unsafe fn cuGraphNodeSetEnabled(
    hGraphExec: CUgraphExec,
    hNode: CUgraphNode,
    isEnabled: c_uint,
) -> Result {
    let exec = session()?.graphs.exec(hGraphExec)?;
    call(op::cuGraphNodeSetEnabled, |writer| {
        writer.put(exec.id);
        writer.put(hNode.0);
        writer.put(isEnabled);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuGraphNodeGetEnabled(
    hGraphExec: CUgraphExec,
    hNode: CUgraphNode,
    isEnabled: *mut c_uint,
) -> Result {
    let exec = session()?.graphs.exec(hGraphExec)?;
    let reply = call(op::cuGraphNodeGetEnabled, |writer| {
        writer.put(exec.id);
        writer.put(hNode.0);
    })?;
    let value = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(isEnabled, value) }
}

impl Graphs {
    /// Takes an executable graph out. Launches of it go on; what they write still comes back, so what they use stays for a
    /// while.
    fn remove_exec(&self, handle: CUgraphExec) -> Result {
        let mut execs = self.execs.write().unwrap_or_else(PoisonError::into_inner);
        let exec = execs.remove(&handle.0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        drop(execs);
        let uses: Vec<_> = lock(&exec.held).values().flat_map(|held| held.uses.clone()).collect();
        self.mirrors.linger(uses);
        Ok(())
    }
}
