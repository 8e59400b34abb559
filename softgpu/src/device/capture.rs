//! Stream capture: work put into a stream becomes nodes of a graph (CUDA C++ programming guide, "Creating a graph using
//! stream capture").
//!
//! A [`Capture`] is shared by all streams that joined it through events. A stream under capture knows the nodes that its
//! next one comes after.

use super::context::Active;
use super::graph::{Body, CopyGiven, Graph, KernelNode};
use super::operation::{Copy, Operation};
use super::stream::Stream;
use pxos_protocol::types::{
    CU_MEMORYTYPE_UNIFIED, CUDA_MEMCPY3D, CUgraphNode, CUkernel, CUresult, CUstreamCaptureMode,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

/// A capture under way.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Unique in the process.
    pub(crate) id: u64,
    /// The graph that it fills.
    pub(crate) graph: Arc<Graph>,
    /// Whether the graph was the application's to begin with.
    pub(crate) into_existing: bool,
    /// The stream where it began, by its number.
    pub(crate) origin: u64,
    /// Which calls it forbids.
    pub(crate) mode: CUstreamCaptureMode,
    /// The thread that began it.
    pub(crate) thread: ThreadId,
    invalidated: AtomicBool,
    ended: AtomicBool,
    /// The last nodes of all its streams that no node and no stream comes after yet.
    open: Mutex<Vec<CUgraphNode>>,
}

/// A stream's part in a capture.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// The capture.
    pub(crate) capture: Arc<Capture>,
    /// What the stream's next node comes after.
    pub(crate) after: Vec<CUgraphNode>,
}

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`.
pub(crate) const GLOBAL: CUstreamCaptureMode = 0;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
pub(crate) const THREAD_LOCAL: CUstreamCaptureMode = 1;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub(crate) const RELAXED: CUstreamCaptureMode = 2;

/// The captures under way in the process.
static UNDER_WAY: Mutex<Vec<Arc<Capture>>> = Mutex::new(Vec::new());

thread_local! {
    static MODE: Cell<CUstreamCaptureMode> = const { Cell::new(GLOBAL) };
}

/// Swaps the calling thread's mode: how it wants to be kept from unsafe calls.
pub(crate) fn exchange_mode(new: CUstreamCaptureMode) -> CUstreamCaptureMode {
    MODE.replace(new)
}

impl Capture {
    /// Begins a capture.
    pub(crate) fn begin(
        graph: Arc<Graph>,
        into_existing: bool,
        stream: &Stream,
        mode: CUstreamCaptureMode,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let capture = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            graph,
            into_existing,
            origin: stream.id,
            mode,
            thread: std::thread::current().id(),
            invalidated: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&capture));
        capture
    }

    /// Whether it has become useless.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Relaxed)
    }

    /// Whether it is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Makes it useless: something happened that a capture cannot hold.
    pub(crate) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Relaxed);
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other.id != self.id);
    }

    /// Whether all work has come together in the nodes that the origin's next one would come after: these, and whatever
    /// they come after, by way of nodes that the application put into the graph itself, too.
    pub(crate) fn is_joined(&self, after: &[CUgraphNode]) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().all(|node| after.iter().any(|last| self.graph.precedes(*node, *last)))
    }
}

impl Captured {
    /// Adds a node and makes it what comes before the stream's next one.
    ///
    /// # Errors
    /// `CUDA_ERROR_STREAM_CAPTURE_INVALIDATED`.
    pub(crate) fn add(&mut self, body: Body) -> Result<CUgraphNode, CUresult> {
        if self.capture.is_invalidated() {
            return Err(CUresult::ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        let node = self.capture.graph.add(body, self.after.clone())?;
        let mut open = self.capture.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|before| !self.after.contains(before));
        open.push(node);
        drop(open);
        self.after = vec![node];
        Ok(node)
    }

    /// Makes the stream's next node come after those of another place in the capture too.
    pub(crate) fn join(&mut self, other: &[CUgraphNode]) {
        for node in other {
            if !self.after.contains(node) {
                self.after.push(*node);
            }
        }
    }
}

/// Whether the calling thread may make a call that could disturb a capture, such as an allocation: not while a capture
/// of global mode is under way anywhere, or of thread-local mode on this thread, unless the thread's mode says so.
///
/// # Errors
/// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`; the captures are invalidated.
pub(crate) fn check_unsafe_call() -> Result<(), CUresult> {
    let captures = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    if captures.is_empty() {
        return Ok(());
    }
    let (mode, thread) = (MODE.get(), std::thread::current().id());
    let disturbed: Vec<_> = captures
        .iter()
        .filter(|capture| match capture.mode {
            GLOBAL => mode == GLOBAL || mode == THREAD_LOCAL && capture.thread == thread,
            THREAD_LOCAL => mode != RELAXED && capture.thread == thread,
            _ => false,
        })
        .collect();
    if disturbed.is_empty() {
        return Ok(());
    }
    disturbed.iter().for_each(|capture| capture.invalidate());
    Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
}

/// The node that an operation becomes.
pub(crate) fn body(operation: Operation) -> Body {
    match operation {
        Operation::Copy(copy) | Operation::Staged(copy, _) => {
            Body::Copy(copy, Arc::new(CopyGiven(describe(&copy))))
        }
        Operation::Fill(fill) => Body::Fill(fill),
        Operation::Host(call) => Body::Host(call),
        Operation::Kernel(launch) => {
            let function = launch.target.handle();
            Body::Kernel(Arc::new(KernelNode::new(launch, function, CUkernel::NULL)))
        }
    }
}

/// A copy in the words of the application.
fn describe(copy: &Copy) -> CUDA_MEMCPY3D {
    let size = |number: u64| usize::try_from(number).expect("addresses have 64 bits here");
    let rows = |pitch: u64, plane: u64| plane.checked_div(pitch).map_or(0, size);
    CUDA_MEMCPY3D {
        src_memory_type: CU_MEMORYTYPE_UNIFIED,
        src_device: copy.from.address,
        src_pitch: size(copy.from.pitch),
        src_height: rows(copy.from.pitch, copy.from.plane),
        dst_memory_type: CU_MEMORYTYPE_UNIFIED,
        dst_device: copy.to.address,
        dst_pitch: size(copy.to.pitch),
        dst_height: rows(copy.to.pitch, copy.to.plane),
        width_in_bytes: size(copy.width),
        height: size(copy.height),
        depth: size(copy.depth),
        ..CUDA_MEMCPY3D::default()
    }
}

/// What work in the legacy default stream does to captures of blocking streams: it would have to wait for them.
///
/// # Errors
/// `CUDA_ERROR_STREAM_CAPTURE_IMPLICIT`; the captures are invalidated.
pub(crate) fn check_legacy(active: &Active) -> Result<(), CUresult> {
    let captures = active.blocking_captures();
    if captures.is_empty() {
        return Ok(());
    }
    captures.iter().for_each(|capture| capture.invalidate());
    Err(CUresult::ERROR_STREAM_CAPTURE_IMPLICIT)
}
