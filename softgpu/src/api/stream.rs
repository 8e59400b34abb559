//! Streams and callbacks (CUDA driver API, section "Stream management").

use super::{Answer, DefaultStream, context as api_context, driver_fns};
use crate::device::allocation;
use crate::device::capture::Captured;
use crate::device::context::{self, STREAMS, stream_anywhere};
use crate::device::event::EVENTS;
use crate::device::graph::Body;
use crate::device::operation::{HostCall, Operation};
use crate::device::stream::{Kind, Stream, as_callback};
use pxos_protocol::types::{
    CUattributeValue, CUcontext, CUdevice, CUdeviceptr, CUevent, CUgreenCtx, CUhostFn, CUresult, CUstream,
    CUstreamAttrID, CUstreamCallback,
};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Makes a stream.
    ready fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) {
        let active = context::current()?;
        stream.required()?;
        stream.put(active.create_stream(kind(flags)?, api_context::LEAST_PRIORITY)?)
    }

    /// Makes a stream of some priority; one out of range is brought into it.
    ready fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) {
        let active = context::current()?;
        stream.required()?;
        let priority = priority.clamp(api_context::GREATEST_PRIORITY, api_context::LEAST_PRIORITY);
        stream.put(active.create_stream(kind(flags)?, priority)?)
    }

    /// Ends a stream; its work goes on.
    ready fn cuStreamDestroy(stream: CUstream) {
        destroy(stream)
    }

    /// Ends a stream; its work goes on.
    ready fn cuStreamDestroy_v2(stream: CUstream) {
        destroy(stream)
    }

    /// The priority of a stream.
    ready fn cuStreamGetPriority / cuStreamGetPriority_ptsz(stream: CUstream, priority: *mut c_int) |default| {
        let (_, stream) = stream_anywhere(stream, default)?;
        priority.put(stream.priority)
    }

    /// A number for a stream that no other one of the process has had.
    ready fn cuStreamGetId / cuStreamGetId_ptsz(stream: CUstream, id: *mut u64) |default| {
        let (_, stream) = stream_anywhere(stream, default)?;
        id.put(stream.id)
    }

    /// The flags of a stream.
    ready fn cuStreamGetFlags / cuStreamGetFlags_ptsz(stream: CUstream, flags: *mut c_uint) |default| {
        let (_, stream) = stream_anywhere(stream, default)?;
        flags.put(if stream.kind == Kind::NonBlocking { NON_BLOCKING } else { 0 })
    }

    /// The device of a stream.
    ready fn cuStreamGetDevice / cuStreamGetDevice_ptsz(stream: CUstream, device: *mut CUdevice) |default| {
        let (active, _) = stream_anywhere(stream, default)?;
        device.put(active.device.ordinal)
    }

    /// The context of a stream.
    ready fn cuStreamGetCtx / cuStreamGetCtx_ptsz(stream: CUstream, context: *mut CUcontext) |default| {
        let (active, _) = stream_anywhere(stream, default)?;
        context.put(active.handle)
    }

    /// The context of a stream, which is no green one.
    ready fn cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz(stream: CUstream, context: *mut CUcontext, green: *mut CUgreenCtx) |default| {
        let (active, _) = stream_anywhere(stream, default)?;
        context.required()?;
        green.put_if_wanted(CUgreenCtx::NULL);
        context.put(active.handle)
    }

    /// An attribute of a stream.
    ready fn cuStreamGetAttribute / cuStreamGetAttribute_ptsz(stream: CUstream, attribute: CUstreamAttrID, value: *mut CUattributeValue) |default| {
        let (_, stream) = stream_anywhere(stream, default)?;
        check_attribute(attribute)?;
        let set = stream.attributes().get(&attribute).copied();
        let first = match attribute {
            SYNCHRONIZATION_POLICY => 1,
            PRIORITY => u64::from(stream.priority.cast_unsigned()),
            _ => 0,
        };
        value.put(set.unwrap_or([first, 0, 0, 0, 0, 0, 0, 0]))
    }

    /// Sets an attribute of a stream. They are hints about caches and order, which change no result.
    ready fn cuStreamSetAttribute / cuStreamSetAttribute_ptsz(stream: CUstream, attribute: CUstreamAttrID, value: *const CUattributeValue) |default| {
        let (_, stream) = stream_anywhere(stream, default)?;
        check_attribute(attribute)?;
        let value = value.read()?;
        stream.attributes().insert(attribute, value);
        Ok(())
    }

    /// Gives a stream the attributes of another one.
    ready fn cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz(to: CUstream, from: CUstream) |default| {
        let (_, to) = stream_anywhere(to, default)?;
        let (_, from) = stream_anywhere(from, default)?;
        let attributes = from.attributes().clone();
        *to.attributes() = attributes;
        Ok(())
    }

    /// Makes further work of a stream wait for an event's last recording.
    ready fn cuStreamWaitEvent / cuStreamWaitEvent_ptsz(stream: CUstream, event: CUevent, flags: c_uint) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        let event = EVENTS.get(event)?;
        if flags == EXTERNAL {
            // A node that waits for the event whenever the graph runs.
            let node = active.capture_as(&stream, || Body::Wait(Arc::clone(&event)))?;
            return node.map(drop).ok_or(CUresult::ERROR_ILLEGAL_STATE);
        }
        check_event_flags(flags)?;
        if let Some(place) = event.captured() {
            return join(&stream, place);
        }
        let pending = event.marker().filter(|marker| !marker.is_reached());
        if let Some(captured) = stream.captured().as_ref() {
            if event.marker().is_none() {
                return Ok(());
            }
            captured.capture.invalidate();
            return Err(CUresult::ERROR_STREAM_CAPTURE_ISOLATION);
        }
        if let Some(marker) = pending {
            active.mark(&stream, vec![marker]);
        }
        Ok(())
    }

    /// Calls a function once the work before it is done, whatever became of it.
    ready fn cuStreamAddCallback / cuStreamAddCallback_ptsz(stream: CUstream, callback: CUstreamCallback, data: *mut c_void, flags: c_uint) |default| {
        let (active, named) = stream_anywhere(stream, default)?;
        let callback = callback.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        named.forbid_capture()?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let owner = active.share();
        let work = move |status: CUresult| {
            owner.flush();
            // SAFETY: the application gave the function for exactly this call, and its data with it.
            as_callback(|| unsafe { callback(stream, status, data.raw()) });
            Ok(())
        };
        active.submit(&named, Vec::new(), Box::new(work));
        Ok(())
    }

    /// Calls a function once the work before it is done, unless that failed.
    ready fn cuLaunchHostFunc / cuLaunchHostFunc_ptsz(stream: CUstream, function: CUhostFn, data: *mut c_void) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        let function = function.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        active.enqueue(&stream, Operation::Host(HostCall { function, data: data.raw() }))
    }

    /// Gives managed memory to a stream. Devices here see it at all times, so that only the arguments are checked.
    ready fn cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz(stream: CUstream, address: CUdeviceptr, _length: usize, flags: c_uint) |default| {
        stream_anywhere(stream, default)?;
        let held = allocation::find(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let managed = matches!(held.origin, allocation::Origin::Managed(_));
        if managed && matches!(flags, 1 | 2 | 4) { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
    }

    /// Whether all work of a stream is done.
    ready fn cuStreamQuery / cuStreamQuery_ptsz(stream: CUstream) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        stream.forbid_capture()?;
        let idle = stream.is_idle();
        active.fault.check()?;
        if idle { Ok(()) } else { Err(CUresult::ERROR_NOT_READY) }
    }

    /// Waits for all work of a stream.
    ready fn cuStreamSynchronize / cuStreamSynchronize_ptsz(stream: CUstream) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        stream.forbid_capture()?;
        stream.wait();
        active.flush();
        active.fault.check()
    }
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

/// `CU_EVENT_WAIT_EXTERNAL`.
const EXTERNAL: c_uint = 1;

/// `CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY` and `_PRIORITY`.
const SYNCHRONIZATION_POLICY: CUstreamAttrID = 3;
const PRIORITY: CUstreamAttrID = 8;

/// Streams have the access policy window, synchronization policy, priority, and the two of memory domains.
fn check_attribute(attribute: CUstreamAttrID) -> Answer {
    if matches!(attribute, 1 | SYNCHRONIZATION_POLICY | PRIORITY | 9 | 10) {
        Ok(())
    } else {
        Err(CUresult::ERROR_INVALID_VALUE)
    }
}

/// Brings a stream to a place in a capture.
fn join(stream: &Stream, place: Captured) -> Answer {
    let mut part = stream.captured();
    match part.as_mut() {
        None => *part = Some(place),
        Some(own) if own.capture.id == place.capture.id => own.join(&place.after),
        Some(own) => {
            own.capture.invalidate();
            place.capture.invalidate();
            return Err(CUresult::ERROR_STREAM_CAPTURE_MERGE);
        }
    }
    Ok(())
}

fn kind(flags: c_uint) -> Answer<Kind> {
    match flags {
        0 => Ok(Kind::Blocking),
        NON_BLOCKING => Ok(Kind::NonBlocking),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// `CU_EVENT_WAIT_EXTERNAL` and `CU_EVENT_RECORD_EXTERNAL` belong to captures only (measured).
pub(crate) fn check_event_flags(flags: c_uint) -> Answer {
    match flags {
        0 => Ok(()),
        1 => Err(CUresult::ERROR_ILLEGAL_STATE),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

fn destroy(handle: CUstream) -> Answer {
    let stream = STREAMS.get(handle)?;
    if let Some(active) = stream.owner.upgrade() {
        active.fault.check()?;
    }
    if STREAMS.remove(handle).is_none() {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    if let Some(active) = stream.owner.upgrade() {
        active.retire_stream(&stream);
    }
    Ok(())
}

/// The number of a stream of a context; null means the current context, and 0 to 2 the default streams.
pub(crate) fn id_in(context: CUcontext, stream: CUstream) -> Answer<u64> {
    let active = if context.is_null() {
        context::current_even_faulted()?
    } else {
        context::named(context)?.active().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?
    };
    Ok(active.stream(stream, DefaultStream::Legacy)?.id)
}
