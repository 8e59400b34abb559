//! Stream capture. The worker captures in relaxed mode: one of its threads stands for all of the guest's, so that what the
//! driver forbids to a thread would hit the wrong one. The guest decides what a mode forbids.

use super::super::super::dispatch::{Answer, Call, done};
use super::super::super::gate::is_capturing;
use super::build::{edges, pointer};
use super::{params, replace};
use crate::driver::{Driver, Result};
use pxos_protocol::types::{CUDA_MEMCPY3D, CUgraphEdgeData, CUresult, capture_mode, capture_status};
use std::ffi::c_void;

/// What the driver says of a stream's capture.
struct Info {
    status: u32,
    graph: u64,
    /// The nodes that the next one will depend on.
    last: Vec<(u64, u64)>,
}

fn info(call: &Call<'_>, stream: u64) -> Result<Info> {
    let (mut status, mut id, mut graph, mut count) = (0_u32, 0_u64, 0_u64, 0_usize);
    let mut nodes: *const u64 = std::ptr::null();
    let mut data: *const CUgraphEdgeData = std::ptr::null();
    // SAFETY: a stream of the session's; pointers to locals.
    unsafe {
        call.driver().cuStreamGetCaptureInfo_v3(
            stream,
            &raw mut status,
            &raw mut id,
            &raw mut graph,
            &raw mut nodes,
            &raw mut data,
            &raw mut count,
        )?;
    }
    let active = status == capture_status::ACTIVE;
    let count = if active && !nodes.is_null() { count } else { 0 };
    let entry = |index: usize| {
        // SAFETY: the driver's arrays have `count` entries until the next call on the stream.
        let node = unsafe { nodes.add(index).read() };
        let data = match data.is_null() {
            true => CUgraphEdgeData::default(),
            // SAFETY: as above.
            false => unsafe { data.add(index).read() },
        };
        (node, data.to_word())
    };
    Ok(Info { status, graph: if active { graph } else { 0 }, last: (0..count).map(entry).collect() })
}

/// The driver's graph that a stream is captured into, 0 for none.
pub(super) fn graph_of(call: &Call<'_>, stream: u64) -> Result<u64> {
    info(call, stream).map(|info| info.graph)
}

/// Answers the graph that a stream is captured into.
fn begun(call: &mut Call<'_>, stream: u64) -> Answer {
    call.state.graphs.has_captured = true;
    let native = info(call, stream)?.graph;
    let id = call.state.graphs.graph_id(native, 0);
    call.state.graphs.capture(stream, id, false);
    call.reply().put(id);
    done()
}

/// Readies a stream for a capture: a batch that is measured ends before it. An end that the capture took in would be asked about
/// later, and with that the capture is useless.
fn ready(call: &Call<'_>) {
    call.session.gate.settle(call.session);
}

/// `cuStreamBeginCapture`: stream; the answer is the graph to be.
pub(in crate::worker) fn begin(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    call.state.graphs.check_room()?;
    ready(call);
    // SAFETY: a stream of the session's.
    unsafe { call.driver().cuStreamBeginCapture_v2(stream, capture_mode::RELAXED)? };
    begun(call, stream)
}

/// `cuStreamBeginCaptureToGraph`: stream, graph, dependencies; the answer is the graph.
pub(in crate::worker) fn begin_to_graph(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let id = call.get()?;
    let (nodes, data) = edges(call)?;
    let graph = call.state.graphs.graph(id)?.native;
    ready(call);
    // SAFETY: objects of the session's; arrays of one length.
    unsafe {
        call.driver().cuStreamBeginCaptureToGraph(
            stream,
            graph,
            nodes.as_ptr(),
            pointer(&data),
            nodes.len(),
            capture_mode::RELAXED,
        )?;
    }
    call.state.graphs.capture(stream, id, true);
    call.reply().put(id);
    done()
}

/// `cuStreamEndCapture`: stream, whether the guest has ended the capture for a reason of its own; the answer is the graph.
pub(in crate::worker) fn end(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let discard = call.get::<u32>()? != 0;
    let before = info(call, stream).map_or(0, |info| info.graph);
    let mut native = 0;
    // SAFETY: a stream of the session's; a pointer to a local.
    let ended = unsafe { call.driver().cuStreamEndCapture(stream, &raw mut native) };
    if let Err(error) = ended {
        // A stream that captures nothing, or another's capture, goes on with what it does.
        if native == 0 && !is_capturing(call.session, stream) {
            let ended = call.state.graphs.abandon_capture(stream);
            call.state.graphs.lapse(call.session, ended);
        }
        return Err(error.into());
    }
    call.state.graphs.captures.remove(&stream);
    let known = call.state.graphs.graph_ids.get(&before).copied();
    let id = match known {
        // The driver may give the graph another name when it hands it over.
        Some(id) if native != before => {
            call.state.graphs.graph_ids.remove(&before);
            call.state.graphs.graph_ids.insert(native, id);
            call.state.graphs.graph_mut(id)?.native = native;
            id
        }
        _ => call.state.graphs.graph_id(native, 0),
    };
    if discard {
        // SAFETY: a graph of the session's, forgotten with this.
        unsafe { call.driver().cuGraphDestroy(native)? };
        return super::build::forget(call, id);
    }
    call.reply().put(id);
    done()
}

/// `cuStreamIsCapturing`: stream; the answer is the status.
pub(in crate::worker) fn status(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let status = info(call, stream)?.status;
    call.reply().put(status);
    done()
}

/// `cuStreamGetCaptureInfo`: stream; the answer is the nodes that the next one will depend on, with the edges' data.
pub(in crate::worker) fn last(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let info = info(call, stream)?;
    if info.graph == 0 {
        call.reply().put(0_u64);
        return done();
    }
    let graphs = &mut call.state.graphs;
    let graph = graphs.graph_id(info.graph, 0);
    let last: Vec<(u64, u64)> =
        info.last.into_iter().map(|(node, data)| (graphs.node_id(node, graph), data)).collect();
    let mut reply = call.reply();
    reply.put(last.len() as u64);
    for (node, data) in last {
        reply.put(node);
        reply.put(data);
    }
    done()
}

/// `cuStreamUpdateCaptureDependencies`: stream, flags, nodes.
pub(in crate::worker) fn update(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let flags = call.get()?;
    let (mut nodes, data) = edges(call)?;
    // SAFETY: objects of the session's; arrays of one length.
    unsafe {
        call.driver().cuStreamUpdateCaptureDependencies_v2(
            stream,
            nodes.as_mut_ptr(),
            pointer(&data),
            nodes.len(),
            flags,
        )?;
    }
    done()
}

/// Answers the node that a stream has captured last.
fn captured(call: &mut Call<'_>, stream: u64, uses: Vec<super::Use>) -> Answer {
    let info = info(call, stream)?;
    let node = info.last.first().ok_or(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED)?.0;
    let graphs = &mut call.state.graphs;
    let graph = graphs.graph_id(info.graph, 0);
    let node = graphs.node_id(node, graph);
    replace(&mut graphs.graph_mut(graph)?.uses, node, uses);
    call.reply().put(node);
    done()
}

/// Refuses what would run at once where the guest believes that it captures.
fn check(call: &Call<'_>, stream: u64) -> Result {
    let active = info(call, stream)?.status == capture_status::ACTIVE;
    if active { Ok(()) } else { Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED) }
}

/// `CU_MEMORYTYPE_HOST` and `CU_MEMORYTYPE_DEVICE`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// Puts a copy into a stream, a single row by the function for that, as the guest did.
fn start(driver: &Driver, copy: &CUDA_MEMCPY3D, stream: u64) -> Result {
    let from = copy.src_device.wrapping_add(copy.src_x_in_bytes as u64);
    let to = copy.dst_device.wrapping_add(copy.dst_x_in_bytes as u64);
    let bytes = copy.width_in_bytes;
    let is_row =
        copy.height == 1 && copy.depth == 1 && [copy.src_y, copy.src_z, copy.dst_y, copy.dst_z] == [0; 4];
    // SAFETY: host ends lead to mirrors or to shared memory, of the length that was checked; the driver checks device ends.
    unsafe {
        match (copy.src_memory_type, copy.dst_memory_type) {
            (HOST, DEVICE) if is_row => driver.cuMemcpyHtoDAsync_v2(to, copy.src_host, bytes, stream),
            (DEVICE, HOST) if is_row => driver.cuMemcpyDtoHAsync_v2(copy.dst_host, from, bytes, stream),
            (DEVICE, DEVICE) if is_row => driver.cuMemcpyDtoDAsync_v2(to, from, bytes, stream),
            _ => driver.cuMemcpy3DAsync_v2(copy, stream),
        }
    }
}

/// A copy with host memory: stream, copy; the answer is the node.
pub(in crate::worker) fn copy(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let mut uses = Vec::new();
    let copy = params::copy(call, &mut uses)?;
    check(call, stream)?;
    start(call.driver(), &copy, stream)?;
    captured(call, stream, uses)
}

/// A host function: stream, number; the answer is the node.
pub(in crate::worker) fn function(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let number = call.get()?;
    check(call, stream)?;
    let (function, data): (_, *mut c_void) = super::super::super::callbacks::kept(call.session, number);
    // SAFETY: a stream of the session's; the data is a number, and leads nowhere.
    unsafe { call.driver().cuLaunchHostFunc(stream, function, data)? };
    captured(call, stream, Vec::new())
}

/// A launch of a graph: executable graph, stream; the answer is the node.
pub(in crate::worker) fn launch(call: &mut Call<'_>) -> Answer {
    let id = call.get()?;
    let stream = call.get_stream()?;
    check(call, stream)?;
    let exec = call.state.graphs.exec(id)?;
    let (native, uses) = (exec.native, exec.uses.values().flatten().cloned().collect());
    // SAFETY: objects of the session's.
    unsafe { call.driver().cuGraphLaunch(native, stream)? };
    captured(call, stream, uses)
}

/// `cuStreamCopyAttributes`: to, from.
pub(in crate::worker) fn copy_attributes(call: &mut Call<'_>) -> Answer {
    let (to, from) = (call.get_stream()?, call.get_stream()?);
    // SAFETY: streams of the session's.
    unsafe { call.driver().cuStreamCopyAttributes(to, from)? };
    done()
}

/// `cuStreamGetAttribute`: stream, attribute; the answer is the value.
pub(in crate::worker) fn attribute(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let attribute: u32 = call.get()?;
    let mut value = [0_u64; 8];
    // SAFETY: a stream of the session's; a pointer to a local of the value's size.
    unsafe { call.driver().cuStreamGetAttribute(stream, attribute, &raw mut value)? };
    call.reply().put(value);
    done()
}

/// `cuStreamSetAttribute`: stream, attribute, value.
pub(in crate::worker) fn set_attribute(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let attribute: u32 = call.get()?;
    let value: [u64; 8] = call.get()?;
    let value = super::super::launch::attribute_value(call.state, attribute, value)?;
    // SAFETY: a stream of the session's; a pointer to a local of the value's size, with the driver's handles in it.
    unsafe { call.driver().cuStreamSetAttribute(stream, attribute, &raw const value)? };
    done()
}
