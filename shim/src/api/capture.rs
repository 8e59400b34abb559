//! Stream capture.
//!
//! Which streams capture the guest knows itself: a capture begins and ends by calls, and spreads to a stream that waits for an
//! event recorded in it. The worker's driver captures in relaxed mode, because one of its threads speaks for all of the
//! guest's; what a capture mode forbids to a thread is therefore decided here, where the threads are (CUDA driver API,
//! cuThreadExchangeStreamCaptureMode). While a capture is under way only launches, sets and copies into capturing streams go
//! unanswered; everything else waits for its answer, so that a mistake is reported by the call that makes it.

use super::graph::{Graph, Held};
use super::{Result, enter, put, stream_argument, stream_name};
use crate::call::{call, garbled};
use crate::lock;
use crate::objects::Event;
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::frame::control;
use pxos_protocol::types::{
    CU_STREAM_PER_THREAD, CUattributeValue, CUgraph, CUgraphEdgeData, CUgraphNode, CUresult, CUstream,
    CUstreamAttrID, CUstreamCaptureMode, CUstreamCaptureStatus, capture_mode, capture_status,
};
use std::collections::HashMap;
use std::ffi::c_uint;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`: a node of its own, and no part of the capture's own order.
const EXTERNAL: u32 = 1;

/// A stream: its number on the wire, and for a thread's default stream the thread and context.
type Key = (u64, u32, u64);

fn key(stream: u64) -> Key {
    if stream == CU_STREAM_PER_THREAD.0 {
        (stream, thread::number(), thread::current_context())
    } else {
        (stream, 0, 0)
    }
}

/// One capture.
#[derive(Debug)]
pub(crate) struct Capture {
    /// `cuStreamGetCaptureInfo`'s id.
    id: u64,
    /// Where it began, and must end.
    origin: Key,
    thread: u32,
    mode: u32,
    context: u64,
    graph: Arc<Graph>,
    /// Whether the graph was there before.
    to_graph: bool,
    /// Whether the legacy stream must not be used meanwhile.
    blocking: AtomicBool,
    invalid: AtomicBool,
    /// An error may have invalidated it: the worker knows.
    doubtful: AtomicBool,
    /// What `cuStreamGetCaptureInfo` handed out last.
    listed: Mutex<(Vec<CUgraphNode>, Vec<CUgraphEdgeData>)>,
}

/// All captures.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    active: AtomicU32,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<Key, Arc<Capture>>,
    /// Events whose last recording is part of a capture.
    events: HashMap<u64, Arc<Capture>>,
}

impl Captures {
    /// Whether any stream captures.
    #[inline]
    pub(crate) fn are_active(&self) -> bool {
        // Relaxed: another thread's capture is only this thread's concern once they have synchronised.
        self.active.load(Ordering::Relaxed) > 0
    }

    fn of(&self, stream: u64) -> Option<Arc<Capture>> {
        if !self.are_active() {
            return None;
        }
        lock(&self.state).streams.get(&key(stream)).cloned()
    }

    /// Whether work in this stream becomes part of a graph.
    pub(crate) fn is_capturing(&self, stream: u64) -> bool {
        self.of(stream).is_some()
    }

    /// Whether a call may go unanswered although something captures: work for the stream that the call named.
    pub(crate) fn lets_post(number: u16) -> bool {
        let is_work = matches!(
            number,
            op::cuLaunchKernel
                | op::cuMemsetD2D32Async
                | op::cuMemcpyDtoDAsync_v2
                | control::COPY
                | control::MIRROR_WRITE
        );
        is_work && (number == control::MIRROR_WRITE || thread::stream_captures())
    }

    /// Notes for [`Self::lets_post`] which stream the call names.
    pub(crate) fn note_stream(&self, stream: u64) {
        if self.are_active() {
            thread::set_stream_captures(self.is_capturing(stream));
        }
    }

    /// Refuses what the thread's mode and the captures under way forbid, which ends those captures.
    pub(crate) fn admit(&self, number: u16) -> Result {
        let is_unsafe = matches!(
            number,
            op::cuMemAlloc_v2
                | op::cuMemAllocPitch_v2
                | op::cuMemFree_v2
                | op::cuMemHostAlloc
                | op::cuMemFreeHost
                | op::cuMemHostRegister_v2
                | op::cuEventQuery
        );
        let mode = thread::capture_mode();
        if !is_unsafe || mode == capture_mode::RELAXED {
            return Ok(());
        }
        let here = thread::number();
        let mut refused = false;
        for capture in lock(&self.state).streams.values() {
            let forbids = match capture.mode {
                capture_mode::RELAXED => false,
                capture_mode::THREAD_LOCAL => capture.thread == here,
                _ => capture.thread == here || mode == capture_mode::GLOBAL,
            };
            if forbids {
                capture.invalid.store(true, Ordering::Relaxed);
                refused = true;
            }
        }
        if refused { Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// Notes an error that may have ended a capture.
    pub(crate) fn note_error(&self, error: CUresult) {
        if (900..=908).contains(&error.0) {
            for capture in lock(&self.state).streams.values() {
                capture.doubtful.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Notes what a captured node needs of the guest.
    pub(crate) fn hold(&self, _session: &Session, stream: u64, node: u64, held: Held) {
        if let Some(capture) = self.of(stream) {
            capture.graph.hold(node, held);
        }
    }

    /// An event was recorded.
    pub(crate) fn recorded(&self, event: &Arc<Event>, stream: u64, flags: u32) {
        if !self.are_active() {
            return;
        }
        let mut state = lock(&self.state);
        match state.streams.get(&key(stream)).cloned() {
            Some(capture) if flags & EXTERNAL == 0 => state.events.insert(event.handle, capture),
            Some(capture) => {
                // A node that records it at each launch; no node has the event's name.
                let held = Held { events: vec![Arc::clone(event)], ..Held::default() };
                capture.graph.hold(event.handle, held);
                None
            }
            None => state.events.remove(&event.handle),
        };
    }

    /// A stream waits for an event: if that is part of a capture, so is the stream from now on.
    pub(crate) fn waits(&self, session: &Session, stream: u64, event: u64, flags: u32) {
        if !self.are_active() || flags & EXTERNAL != 0 {
            return;
        }
        let mut state = lock(&self.state);
        if let Some(capture) = state.events.get(&event).cloned() {
            if is_blocking(session, stream) {
                capture.blocking.store(true, Ordering::Relaxed);
            }
            state.streams.entry(key(stream)).or_insert(capture);
        }
    }

    /// A stream is gone.
    pub(crate) fn forget_stream(&self, stream: u64) {
        if self.are_active() {
            let gone = lock(&self.state).streams.remove(&key(stream));
            if let Some(capture) = gone.filter(|capture| capture.origin == key(stream)) {
                self.remove(&capture);
            }
        }
    }

    fn begin(&self, capture: Capture) {
        let mut state = lock(&self.state);
        state.streams.insert(capture.origin, Arc::new(capture));
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, capture: &Arc<Capture>) {
        let mut state = lock(&self.state);
        state.streams.retain(|_, other| !Arc::ptr_eq(other, capture));
        state.events.retain(|_, other| !Arc::ptr_eq(other, capture));
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a capture forbids the use of the legacy stream of a context.
    fn blocks_legacy(&self, context: u64) -> bool {
        let state = lock(&self.state);
        state
            .streams
            .values()
            .any(|capture| capture.context == context && capture.blocking.load(Ordering::Relaxed))
    }
}

fn is_blocking(session: &Session, stream: u64) -> bool {
    session.streams.get(stream).is_none_or(|stream| stream.flags & NON_BLOCKING == 0)
}

/// Starts a capture; `graph` with its nodes to begin after where it is captured into one.
fn begin(raw: CUstream, mode: CUstreamCaptureMode, into: Option<(CUgraph, &[u64])>) -> Result {
    let (session, context) = enter()?;
    let stream = stream_argument(session, raw.0)?;
    if mode > capture_mode::RELAXED {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if stream == 0 {
        // The legacy stream cannot be captured (CUDA driver API, cuStreamBeginCapture).
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    let reply = match into {
        None => call(op::cuStreamBeginCapture_v2, |writer| writer.put(stream))?,
        Some((graph, edges)) => {
            let graph = session.graphs.graph(graph)?;
            call(op::cuStreamBeginCaptureToGraph, |writer| {
                writer.put(stream);
                writer.put(graph.id);
                writer.put(edges.len() as u64 / 2);
                edges.iter().for_each(|word| writer.put(*word));
            })?
        }
    };
    let graph: u64 = reply.reader().get().map_err(garbled)?;
    let context = session.streams.get(stream).map_or(context.handle, |stream| stream.context);
    session.captures.begin(Capture {
        id: session.captures.next.fetch_add(1, Ordering::Relaxed) + 1,
        origin: key(stream),
        thread: thread::number(),
        mode,
        context,
        graph: session.graphs.adopt(graph),
        to_graph: into.is_some(),
        blocking: AtomicBool::new(is_blocking(session, stream)),
        invalid: AtomicBool::new(false),
        doubtful: AtomicBool::new(false),
        listed: Mutex::default(),
    });
    Ok(())
}

pub(crate) unsafe fn cuStreamBeginCapture(hStream: CUstream) -> Result {
    begin(hStream, capture_mode::GLOBAL, None)
}

pub(crate) unsafe fn cuStreamBeginCapture_v2(hStream: CUstream, mode: CUstreamCaptureMode) -> Result {
    begin(hStream, mode, None)
}

pub(crate) unsafe fn cuStreamBeginCaptureToGraph(
    hStream: CUstream,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    dependencyData: *const CUgraphEdgeData,
    numDependencies: usize,
    mode: CUstreamCaptureMode,
) -> Result {
    // SAFETY: the entry point's contract.
    let edges = unsafe { edges(dependencies, dependencyData, numDependencies)? };
    begin(hStream, mode, Some((hGraph, &edges)))
}

/// Most dependencies of one call; a frame holds as many.
const MAX_DEPENDENCIES: usize = 16 << 10;

/// Nodes and edge data in turn, as they travel.
///
/// # Safety
/// The arrays hold `count` entries; the second may be null.
unsafe fn edges(nodes: *const CUgraphNode, data: *const CUgraphEdgeData, count: usize) -> Result<Vec<u64>> {
    if (nodes.is_null() && count > 0) || count > MAX_DEPENDENCIES {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut words = Vec::with_capacity(2 * count);
    for index in 0..count {
        // SAFETY: within the array, by this function's contract.
        words.push(unsafe { nodes.add(index).read() }.0);
        let data = match data.is_null() {
            true => CUgraphEdgeData::default(),
            // SAFETY: as above.
            false => unsafe { data.add(index).read() },
        };
        words.push(data.to_word());
    }
    Ok(words)
}

pub(crate) unsafe fn cuStreamEndCapture(hStream: CUstream, phGraph: *mut CUgraph) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    if !phGraph.is_null() {
        // Whatever the error (measured on an H200, driver 580).
        // SAFETY: writable by the entry point's contract.
        unsafe { phGraph.write(CUgraph::NULL) };
    }
    let capture = session.captures.of(stream);
    let Some(capture) = capture else {
        // The driver's own word for it.
        return call(op::cuStreamEndCapture, |writer| {
            writer.put(stream);
            writer.put(0_u32);
        })
        .map(|_| ());
    };
    if capture.origin != key(stream) {
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    // Ended by the wrong thread a capture is over all the same, and its graph lost; a graph that nobody wants to have is lost as
    // well, without an error (both measured on an H200, driver 580).
    let wrong_thread = capture.mode != capture_mode::RELAXED && capture.thread != thread::number();
    let invalid = capture.invalid.load(Ordering::Relaxed);
    let discard = (wrong_thread || invalid || phGraph.is_null()) && !capture.to_graph;
    let reply = call(op::cuStreamEndCapture, |writer| {
        writer.put(stream);
        writer.put(u32::from(discard));
    });
    session.captures.remove(&capture);
    let lost = |verdict: Result| {
        if !capture.to_graph {
            session.graphs.lost(session, capture.graph.id);
        }
        verdict
    };
    if wrong_thread {
        return lost(Err(CUresult::ERROR_STREAM_CAPTURE_WRONG_THREAD));
    }
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return lost(Err(error)),
    };
    if invalid {
        return lost(Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED));
    }
    if phGraph.is_null() {
        return if capture.to_graph { Ok(()) } else { lost(Ok(())) };
    }
    let graph: u64 = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phGraph, CUgraph(graph)) }
}

/// The capture of a stream and its status; asks the worker only after an error.
fn status(session: &Session, stream: u64) -> Result<(Option<Arc<Capture>>, u32)> {
    if !session.captures.are_active() {
        return Ok((None, capture_status::NONE));
    }
    let Some(capture) = session.captures.of(stream) else {
        let legacy = stream == 0 && session.captures.blocks_legacy(thread::current_context());
        return if legacy {
            Err(CUresult::ERROR_STREAM_CAPTURE_IMPLICIT)
        } else {
            Ok((None, capture_status::NONE))
        };
    };
    if capture.doubtful.swap(false, Ordering::Relaxed) {
        let reply = call(op::cuStreamIsCapturing, |writer| writer.put(stream))?;
        let status: u32 = reply.reader().get().map_err(garbled)?;
        if status == capture_status::INVALIDATED {
            capture.invalid.store(true, Ordering::Relaxed);
        }
    }
    let invalid = capture.invalid.load(Ordering::Relaxed);
    Ok((Some(capture), if invalid { capture_status::INVALIDATED } else { capture_status::ACTIVE }))
}

pub(crate) unsafe fn cuStreamIsCapturing(
    hStream: CUstream,
    captureStatus: *mut CUstreamCaptureStatus,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    let (_, status) = status(session, stream)?;
    // SAFETY: the entry point's contract.
    unsafe { put(captureStatus, status) }
}

pub(crate) unsafe fn cuStreamGetCaptureInfo(
    hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut u64,
) -> Result {
    let nothing = std::ptr::null_mut();
    let (none, empty, edges) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the contract is the same.
    unsafe { cuStreamGetCaptureInfo_v3(hStream, captureStatus_out, id_out, nothing, none, edges, empty) }
}

pub(crate) unsafe fn cuStreamGetCaptureInfo_v2(
    hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut u64,
    graph_out: *mut CUgraph,
    dependencies_out: *mut *const CUgraphNode,
    numDependencies_out: *mut usize,
) -> Result {
    let edges = std::ptr::null_mut();
    // SAFETY: the contract is the same.
    unsafe {
        cuStreamGetCaptureInfo_v3(
            hStream,
            captureStatus_out,
            id_out,
            graph_out,
            dependencies_out,
            edges,
            numDependencies_out,
        )
    }
}

pub(crate) unsafe fn cuStreamGetCaptureInfo_v3(
    hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut u64,
    graph_out: *mut CUgraph,
    dependencies_out: *mut *const CUgraphNode,
    edgeData_out: *mut *const CUgraphEdgeData,
    numDependencies_out: *mut usize,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    if captureStatus_out.is_null() || (!edgeData_out.is_null() && dependencies_out.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let (capture, status) = status(session, stream)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(captureStatus_out, status)? };
    let Some(capture) = capture.filter(|_| status == capture_status::ACTIVE) else {
        return Ok(());
    };
    // SAFETY: null or writable, by the entry point's contract; so below.
    unsafe {
        if !id_out.is_null() {
            id_out.write(capture.id);
        }
        if !graph_out.is_null() {
            graph_out.write(CUgraph(capture.graph.id));
        }
    }
    if dependencies_out.is_null() && numDependencies_out.is_null() {
        return Ok(());
    }
    let reply = call(op::cuStreamGetCaptureInfo_v3, |writer| writer.put(stream))?;
    let mut fields = reply.reader();
    let count: u64 = fields.get().map_err(garbled)?;
    let (mut nodes, mut data) = (Vec::new(), Vec::new());
    for _ in 0..count {
        nodes.push(CUgraphNode(fields.get().map_err(garbled)?));
        data.push(CUgraphEdgeData::from_word(fields.get().map_err(garbled)?));
    }
    if !dependencies_out.is_null()
        && edgeData_out.is_null()
        && data.iter().any(|edge| *edge != CUgraphEdgeData::default())
    {
        return Err(CUresult::ERROR_LOSSY_QUERY);
    }
    let mut listed = lock(&capture.listed);
    *listed = (nodes, data);
    // SAFETY: null or writable, by the entry point's contract; the arrays live until the next question (as natively).
    unsafe {
        if !dependencies_out.is_null() {
            dependencies_out.write(listed.0.as_ptr());
        }
        if !edgeData_out.is_null() {
            edgeData_out.write(listed.1.as_ptr());
        }
        if !numDependencies_out.is_null() {
            numDependencies_out.write(listed.0.len());
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuStreamUpdateCaptureDependencies(
    hStream: CUstream,
    dependencies: *mut CUgraphNode,
    numDependencies: usize,
    flags: c_uint,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe {
        cuStreamUpdateCaptureDependencies_v2(hStream, dependencies, std::ptr::null(), numDependencies, flags)
    }
}

pub(crate) unsafe fn cuStreamUpdateCaptureDependencies_v2(
    hStream: CUstream,
    dependencies: *mut CUgraphNode,
    dependencyData: *const CUgraphEdgeData,
    numDependencies: usize,
    flags: c_uint,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    // SAFETY: the entry point's contract.
    let edges = unsafe { edges(dependencies, dependencyData, numDependencies)? };
    call(op::cuStreamUpdateCaptureDependencies_v2, |writer| {
        writer.put(stream);
        writer.put(flags);
        writer.put(edges.len() as u64 / 2);
        edges.iter().for_each(|word| writer.put(*word));
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) -> Result {
    session()?;
    // SAFETY: null or a mode, by the entry point's contract.
    let wanted = unsafe { mode.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if *wanted > capture_mode::RELAXED {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    *wanted = thread::exchange_capture_mode(*wanted);
    Ok(())
}

pub(crate) unsafe fn cuStreamCopyAttributes(dst: CUstream, src: CUstream) -> Result {
    let (session, _) = enter()?;
    let (to, from) = (stream_name(session, dst.0)?, stream_name(session, src.0)?);
    call(op::cuStreamCopyAttributes, |writer| {
        writer.put(to);
        writer.put(from);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuStreamGetAttribute(
    hStream: CUstream,
    attr: CUstreamAttrID,
    value_out: *mut CUattributeValue,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    let reply = call(op::cuStreamGetAttribute, |writer| {
        writer.put(stream);
        writer.put(attr);
    })?;
    let value = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(value_out, value) }
}

pub(crate) unsafe fn cuStreamSetAttribute(
    hStream: CUstream,
    attr: CUstreamAttrID,
    value: *const CUattributeValue,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    // SAFETY: null or a value, by the entry point's contract.
    let value = unsafe { value.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    call(op::cuStreamSetAttribute, |writer| {
        writer.put(stream);
        writer.put(attr);
        writer.put(*value);
    })
    .map(|_| ())
}
