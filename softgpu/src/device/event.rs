//! Events: named points in streams (CUDA driver API, "Event management").

use super::capture::Captured;
use super::context::Active;
use super::marker::Marker;
use super::shared_point::SharedPoint;
use super::table::Table;
use pxos_protocol::types::{CUevent, CUresult};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Waits without spinning; a wish that needs no obeying here.
pub(crate) const BLOCKING_SYNC: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
pub(crate) const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`.
pub(crate) const INTERPROCESS: u32 = 4;

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its handle.
    pub(crate) handle: CUevent,
    /// The life of the context that it belongs to.
    pub(crate) life: u64,
    /// That context, while it is active.
    pub(crate) owner: Weak<Active>,
    flags: u32,
    /// The point of its last recording.
    marker: Mutex<Option<Arc<Marker>>>,
    /// The place in a capture, if it was last recorded in one.
    captured: Mutex<Option<Captured>>,
    /// The point that other processes know too, if it was made for them, and this process's last recording there.
    shared: Option<(Arc<SharedPoint>, AtomicU32)>,
}

/// Every event of the process.
pub(crate) static EVENTS: Table<CUevent, Event> = Table::new();

/// Makes an event in a context.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
pub(crate) fn create(active: &Arc<Active>, flags: u32) -> Result<CUevent, CUresult> {
    let point = || SharedPoint::create().map_err(|_| CUresult::ERROR_OPERATING_SYSTEM);
    let shared = (flags & INTERPROCESS != 0).then(point).transpose()?;
    enter(active, flags, shared)
}

/// Makes an event of a point that another process has made.
///
/// # Errors
/// `CUDA_ERROR_OPERATING_SYSTEM`, and as for [`create`].
pub(crate) fn open(active: &Arc<Active>, file: OwnedFd) -> Result<CUevent, CUresult> {
    let point = SharedPoint::open(file).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
    enter(active, DISABLE_TIMING | INTERPROCESS, Some(point))
}

fn enter(active: &Arc<Active>, flags: u32, shared: Option<Arc<SharedPoint>>) -> Result<CUevent, CUresult> {
    let (handle, _) = EVENTS.insert_with(|handle| Event {
        handle,
        life: active.life,
        owner: Arc::downgrade(active),
        flags,
        marker: Mutex::new(None),
        captured: Mutex::new(None),
        shared: shared.map(|point| (point, AtomicU32::new(0))),
    })?;
    Ok(handle)
}

/// Ends the events of a context that goes.
pub(crate) fn forget_life(life: u64) {
    for event in EVENTS.all() {
        if event.life == life {
            EVENTS.remove(event.handle);
        }
    }
}

impl Event {
    /// The point of the last recording; `None` if it was never recorded.
    pub(crate) fn marker(&self) -> Option<Arc<Marker>> {
        if let Some((point, mine)) = &self.shared
            && point.recorded() != mine.load(Ordering::Acquire)
        {
            return point.marker();
        }
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place in a capture under way, if it was last recorded in one.
    pub(crate) fn captured(&self) -> Option<Captured> {
        let captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        captured.filter(|captured| !captured.capture.has_ended())
    }

    /// Notes a recording in a capture.
    pub(crate) fn record_captured(&self, captured: Captured) {
        *self.captured.lock().unwrap_or_else(PoisonError::into_inner) = Some(captured);
    }

    /// The file by which other processes open it, if it was made for them.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.shared.as_ref().map(|(point, _)| point.file())
    }

    /// Notes a recording.
    pub(crate) fn record(&self, marker: Arc<Marker>) {
        *self.captured.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut last = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((point, mine)) = &self.shared {
            mine.store(point.record(Arc::clone(&marker)), Ordering::Release);
        }
        *last = Some(marker);
    }

    /// Milliseconds from this event to a later one.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` if one was made without timing or never recorded, `CUDA_ERROR_NOT_READY` if one
    /// is not reached yet (measured).
    pub(crate) fn elapsed(&self, end: &Self) -> Result<f32, CUresult> {
        if (self.flags | end.flags) & DISABLE_TIMING != 0 {
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        let (start, end) = self.marker().zip(end.marker()).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        let (start, end) = start.time().zip(end.time()).ok_or(CUresult::ERROR_NOT_READY)?;
        let seconds = match end.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f64(),
            None => -start.duration_since(end).as_secs_f64(),
        };
        #[expect(clippy::cast_possible_truncation, reason = "the interface gives a float")]
        Ok((seconds * 1e3) as f32)
    }
}
