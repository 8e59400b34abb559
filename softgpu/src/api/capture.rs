//! Stream capture (CUDA driver API, section "Stream management": `cuStreamBeginCapture` and its kin).

use super::graph::CUgraphEdgeData;
use super::{Answer, DefaultStream, In, Out, driver_fns};
use crate::device::capture::{self, Capture, Captured, GLOBAL, RELAXED};
use crate::device::context::stream_anywhere;
use crate::device::graph::{GRAPHS, Graph};
use crate::device::stream::{Kind, Stream};
use pxos_protocol::types::{
    CUgraph, CUgraphNode, CUresult, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use std::ffi::c_uint;
use std::sync::Arc;

driver_fns! {
    /// Begins to capture a stream, in global mode.
    ready fn cuStreamBeginCapture / cuStreamBeginCapture_ptsz(stream: CUstream) |default| {
        begin(stream, default, GLOBAL, None)
    }

    /// Begins to capture a stream.
    ready fn cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz(stream: CUstream, mode: CUstreamCaptureMode) |default| {
        begin(stream, default, mode, None)
    }

    /// Begins to capture a stream into a graph that there is, after some of its nodes.
    ready fn cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz(
        stream: CUstream,
        graph: CUgraph,
        dependencies: *const CUgraphNode,
        _edges: *const CUgraphEdgeData,
        count: usize,
        mode: CUstreamCaptureMode,
    ) |default| {
        let graph = GRAPHS.get(graph).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let after = nodes(dependencies, count)?;
        begin(stream, default, mode, Some((graph, after)))
    }

    /// Ends a capture and gives the graph.
    ready fn cuStreamEndCapture / cuStreamEndCapture_ptsz(stream: CUstream, graph: *mut CUgraph) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        graph.put_if_wanted(CUgraph::NULL);
        let part = stream.captured().clone().ok_or(CUresult::ERROR_ILLEGAL_STATE)?;
        let capture = &part.capture;
        if capture.origin != stream.id {
            capture.invalidate();
            return Err(CUresult::ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        let wrong_thread = capture.mode != RELAXED && capture.thread != std::thread::current().id();
        capture.end();
        active.leave_capture(capture.id);
        // The wrong thread ends a capture all the same, and loses its graph (measured on an H200, driver 580).
        let verdict = if wrong_thread {
            Err(CUresult::ERROR_STREAM_CAPTURE_WRONG_THREAD)
        } else if capture.is_invalidated() {
            Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED)
        } else if !capture.is_joined(&part.after) {
            Err(CUresult::ERROR_STREAM_CAPTURE_UNJOINED)
        } else {
            Ok(())
        };
        if verdict.is_err() {
            if !capture.into_existing {
                capture.graph.destroy();
            }
            return verdict;
        }
        graph.put_if_wanted(capture.graph.handle);
        Ok(())
    }

    /// Whether a stream is being captured.
    ready fn cuStreamIsCapturing / cuStreamIsCapturing_ptsz(stream: CUstream, status: *mut CUstreamCaptureStatus) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        status.required()?;
        if stream.kind == Kind::Legacy {
            capture::check_legacy(&active)?;
        }
        status.put(status_of(&stream))
    }

    /// What is known of a stream's capture.
    ready fn cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz(stream: CUstream, status: *mut CUstreamCaptureStatus, id: *mut u64) |default| {
        let none = Out::from_api(std::ptr::null_mut());
        information(stream, default, status, id, none, Out::from_api(std::ptr::null_mut()), Out::from_api(std::ptr::null_mut()))
    }

    /// What is known of a stream's capture.
    ready fn cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(
        stream: CUstream,
        status: *mut CUstreamCaptureStatus,
        id: *mut u64,
        graph: *mut CUgraph,
        dependencies: *mut *const CUgraphNode,
        count: *mut usize,
    ) |default| {
        information(stream, default, status, id, graph, dependencies, count)
    }

    /// What is known of a stream's capture; dependencies have no data of their own here.
    ready fn cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz(
        stream: CUstream,
        status: *mut CUstreamCaptureStatus,
        id: *mut u64,
        graph: *mut CUgraph,
        dependencies: *mut *const CUgraphNode,
        edges: *mut *const CUgraphEdgeData,
        count: *mut usize,
    ) |default| {
        edges.put_if_wanted(std::ptr::null());
        information(stream, default, status, id, graph, dependencies, count)
    }

    /// Changes what the next captured node comes after.
    ready fn cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz(
        stream: CUstream,
        dependencies: *mut CUgraphNode,
        count: usize,
        flags: c_uint,
    ) |default| {
        update(stream, default, In::from_api(dependencies.raw()), count, flags)
    }

    /// Changes what the next captured node comes after.
    ready fn cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz(
        stream: CUstream,
        dependencies: *mut CUgraphNode,
        _edges: *const CUgraphEdgeData,
        count: usize,
        flags: c_uint,
    ) |default| {
        update(stream, default, In::from_api(dependencies.raw()), count, flags)
    }

    /// Swaps the thread's capture mode.
    ready fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) {
        let new = mode.read()?;
        if new > RELAXED {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        mode.put(capture::exchange_mode(new))
    }
}

/// Nodes that the application names in an array.
pub(crate) fn nodes(array: In<CUgraphNode>, count: usize) -> Answer<Vec<CUgraphNode>> {
    (0..count).map(|index| array.read_at(index)).collect()
}

fn begin(
    stream: CUstream,
    default: DefaultStream,
    mode: CUstreamCaptureMode,
    existing: Option<(Arc<Graph>, Vec<CUgraphNode>)>,
) -> Answer {
    let (_, stream) = stream_anywhere(stream, default)?;
    if mode > RELAXED {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if stream.kind == Kind::Legacy {
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    let mut part = stream.captured();
    if part.is_some() {
        return Err(CUresult::ERROR_ILLEGAL_STATE);
    }
    let into_existing = existing.is_some();
    let (graph, after) = match existing {
        Some(existing) => existing,
        None => (Graph::create()?, Vec::new()),
    };
    if !after.iter().all(|node| graph.node(*node).is_some()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    *part = Some(Captured { capture: Capture::begin(graph, into_existing, &stream, mode), after });
    Ok(())
}

fn status_of(stream: &Stream) -> CUstreamCaptureStatus {
    match &*stream.captured() {
        None => 0,
        Some(part) if part.capture.is_invalidated() => 2,
        Some(_) => 1,
    }
}

fn information(
    stream: CUstream,
    default: DefaultStream,
    status: Out<CUstreamCaptureStatus>,
    id: Out<u64>,
    graph: Out<CUgraph>,
    dependencies: Out<*const CUgraphNode>,
    count: Out<usize>,
) -> Answer {
    let (active, stream) = stream_anywhere(stream, default)?;
    status.required()?;
    if stream.kind == Kind::Legacy {
        capture::check_legacy(&active)?;
    }
    status.put(status_of(&stream))?;
    let part = stream.captured().clone();
    if let Some(part) = part.filter(|part| !part.capture.is_invalidated()) {
        id.put_if_wanted(part.capture.id);
        graph.put_if_wanted(part.capture.graph.handle);
        count.put_if_wanted(part.after.len());
        if !dependencies.is_null() {
            dependencies.put(stream.keep_dependencies(part.after))?;
        }
    }
    Ok(())
}

fn update(
    stream: CUstream,
    default: DefaultStream,
    array: In<CUgraphNode>,
    count: usize,
    flags: c_uint,
) -> Answer {
    let (_, stream) = stream_anywhere(stream, default)?;
    let new = nodes(array, count)?;
    let mut part = stream.captured();
    let part = part.as_mut().ok_or(CUresult::ERROR_ILLEGAL_STATE)?;
    if !new.iter().all(|node| part.capture.graph.node(*node).is_some()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    match flags {
        // CU_STREAM_ADD_CAPTURE_DEPENDENCIES
        0 => part.join(&new),
        // CU_STREAM_SET_CAPTURE_DEPENDENCIES
        1 => part.after = new,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    }
    Ok(())
}
