//! Events (CUDA driver API, section "Event management").

use super::{Answer, DefaultStream, driver_fns, stream as api_stream};
use crate::device::context::{self, Active, stream_anywhere};
use crate::device::event::{self, BLOCKING_SYNC, DISABLE_TIMING, EVENTS, Event, INTERPROCESS};
use crate::device::graph::Body;
use crate::device::stream::in_callback;
use pxos_protocol::types::{CUcontext, CUevent, CUresult, CUstream};
use std::ffi::c_uint;
use std::sync::Arc;

driver_fns! {
    /// Makes an event.
    ready fn cuEventCreate(event: *mut CUevent, flags: c_uint) {
        let active = context::current()?;
        event.required()?;
        if flags & !(BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS) != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0 {
            // Timing and sharing exclude each other (measured).
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        event.put(event::create(&active, flags)?)
    }

    /// Whether an event's last recording is reached; one that was never recorded is.
    ready fn cuEventQuery(event: CUevent) {
        let event = live(event)?;
        match event.marker() {
            Some(marker) if !marker.is_reached() => {
                check(&event)?;
                Err(CUresult::ERROR_NOT_READY)
            }
            _ => check(&event),
        }
    }

    /// Waits for an event's last recording.
    ready fn cuEventSynchronize(event: CUevent) {
        let event = live(event)?;
        check(&event)?;
        if let Some(marker) = event.marker() {
            marker.wait();
        }
        if let Some(owner) = event.owner.upgrade() {
            owner.flush();
        }
        check(&event)
    }

    /// Ends an event's handle; streams that wait for it still do.
    ready fn cuEventDestroy(event: CUevent) {
        destroy(event)
    }

    /// Ends an event's handle; streams that wait for it still do.
    ready fn cuEventDestroy_v2(event: CUevent) {
        destroy(event)
    }

    /// Milliseconds between two events.
    ready fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) {
        let (start, end) = (live(start)?, live(end)?);
        check(&start)?;
        if milliseconds.is_null() {
            // Measured; the manual says invalid value.
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        milliseconds.put(start.elapsed(&end)?)
    }

    /// Milliseconds between two events.
    ready fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) {
        let (start, end) = (live(start)?, live(end)?);
        check(&start)?;
        if milliseconds.is_null() {
            // Measured; the manual says invalid value.
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        milliseconds.put(start.elapsed(&end)?)
    }

    /// Records an event: makes it name this point of all streams of its context.
    ready fn cuCtxRecordEvent(context: CUcontext, event: CUevent) {
        let active = active(context)?;
        let event = live(event)?;
        if event.life != active.life {
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        event.record(active.mark_all());
        Ok(())
    }

    /// Makes further work of all streams of a context wait for an event's last recording.
    ready fn cuCtxWaitEvent(context: CUcontext, event: CUevent) {
        let active = active(context)?;
        let event = live(event)?;
        if let Some(marker) = event.marker().filter(|marker| !marker.is_reached()) {
            active.hold_all(&marker);
        }
        Ok(())
    }

    /// Records an event: makes it name this point of a stream.
    ready fn cuEventRecord / cuEventRecord_ptsz(event: CUevent, stream: CUstream) |default| {
        record(event, stream, default, 0)
    }

    /// Records an event.
    ready fn cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz(event: CUevent, stream: CUstream, flags: c_uint) |default| {
        record(event, stream, default, flags)
    }
}

/// A context by its handle, or the current one for null.
fn active(context: CUcontext) -> Answer<Arc<Active>> {
    if context.is_null() {
        return context::current();
    }
    context::named(context)?.active().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)
}

/// The event that a handle names, outside of callbacks.
fn live(event: CUevent) -> Answer<Arc<Event>> {
    if in_callback() {
        return Err(CUresult::ERROR_NOT_PERMITTED);
    }
    EVENTS.get(event)
}

/// `CU_EVENT_RECORD_EXTERNAL`.
const EXTERNAL: c_uint = 1;

/// The sticky fault of an event's context, and whether its recording is a place in a capture, which the question makes useless
/// (CUDA programming guide, "Prohibited and Unhandled Operations" of stream capture).
fn check(event: &Event) -> Answer {
    if let Some(captured) = event.captured() {
        captured.capture.invalidate();
        return Err(CUresult::ERROR_CAPTURED_EVENT);
    }
    event.owner.upgrade().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?.fault.check()
}

fn record(event: CUevent, stream: CUstream, default: DefaultStream, flags: c_uint) -> Answer {
    let (active, stream) = stream_anywhere(stream, default)?;
    let event = live(event)?;
    if flags == EXTERNAL {
        // A node that records the event whenever the graph runs.
        let node = active.capture_as(&stream, || Body::Record(Arc::clone(&event)))?;
        return node.map(drop).ok_or(CUresult::ERROR_ILLEGAL_STATE);
    }
    api_stream::check_event_flags(flags)?;
    if event.life != active.life {
        // An event belongs to the context of the stream that it is recorded in.
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    if let Some(captured) = stream.captured().as_ref() {
        event.record_captured(captured.clone());
        return Ok(());
    }
    event.record(active.mark(&stream, Vec::new()));
    Ok(())
}

fn destroy(event: CUevent) -> Answer {
    live(event)?.owner.upgrade().map_or(Ok(()), |owner| owner.fault.check())?;
    EVENTS.remove(event).map(drop).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// Records the event that a launch attribute names.
pub(crate) fn record_after_launch(event: CUevent, stream: CUstream, default: DefaultStream) -> Answer {
    record(event, stream, default, 0)
}
