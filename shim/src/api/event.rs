//! Events. Creating, recording and destroying need no answer.

use super::{Result, enter, put, stream_argument};
use crate::call::{call, garbled, post};
use crate::objects::{Event, Progress};
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{CUevent, CUresult, CUstream};
use std::ffi::c_uint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DISABLE_TIMING: c_uint = 2;
pub(super) const INTERPROCESS: c_uint = 4;
const FLAGS: c_uint = 7;

fn live(session: &Session, event: CUevent) -> Result<Arc<Event>> {
    session.events.get(event.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) unsafe fn cuEventCreate(phEvent: *mut CUevent, Flags: c_uint) -> Result {
    let (session, context) = enter()?;
    let interprocess_with_timing = Flags & INTERPROCESS != 0 && Flags & DISABLE_TIMING == 0;
    if Flags & !FLAGS != 0 || interprocess_with_timing || phEvent.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let owner = context.handle;
    let event = session.events.mint(|handle| Event {
        handle,
        context: owner,
        flags: Flags,
        recorded: AtomicBool::new(false),
        records: Progress::default(),
    })?;
    let write = |writer: &mut Writer<'_>| {
        writer.put(event.handle);
        writer.put(Flags);
    };
    if Flags & INTERPROCESS != 0 {
        // Not every device can.
        if let Err(error) = session.call(op::cuEventCreate, write) {
            session.events.remove(event.handle);
            return Err(error);
        }
    } else {
        session.post(op::cuEventCreate, write)?;
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phEvent, CUevent(event.handle)) }
}

pub(crate) unsafe fn cuEventDestroy(hEvent: CUevent) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuEventDestroy_v2(hEvent) }
}

pub(crate) unsafe fn cuEventDestroy_v2(hEvent: CUevent) -> Result {
    let event = session()?.events.remove(hEvent.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    post(op::cuEventDestroy_v2, |writer| writer.put(event.handle))
}

pub(crate) unsafe fn cuEventRecord(hEvent: CUevent, hStream: CUstream) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuEventRecordWithFlags(hEvent, hStream, 0) }
}

pub(crate) unsafe fn cuEventRecordWithFlags(hEvent: CUevent, hStream: CUstream, flags: c_uint) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    let event = live(session, hEvent)?;
    if flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let stream_context = session.streams.get(stream).map(|stream| stream.context);
    if stream_context.is_some_and(|context| context != event.context) {
        // "hEvent and hStream must be from the same context."
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    event.record();
    let write = |writer: &mut Writer<'_>| {
        writer.put(event.handle);
        writer.put(stream);
        writer.put(flags);
    };
    if event.flags & INTERPROCESS != 0 {
        // Another process may be told of it when this returns.
        return session.call(op::cuEventRecord, write).map(|_| ());
    }
    session.post(op::cuEventRecord, write)?;
    session.captures.recorded(&event, stream, flags);
    Ok(())
}

pub(crate) unsafe fn cuEventQuery(hEvent: CUevent) -> Result {
    let session = session()?;
    session.check()?;
    let event = live(session, hEvent)?;
    if !event.recorded.load(Ordering::Acquire) {
        return Ok(());
    }
    // Records of another process's event are not seen here.
    if event.flags & INTERPROCESS == 0 && event.records.is_complete() {
        return Ok(());
    }
    let end = event.records.end();
    call(op::cuEventQuery, |writer| writer.put(event.handle))?;
    event.records.complete(end);
    Ok(())
}

pub(crate) unsafe fn cuEventSynchronize(hEvent: CUevent) -> Result {
    let session = session()?;
    session.check()?;
    let event = live(session, hEvent)?;
    if !event.recorded.load(Ordering::Acquire) {
        return Ok(());
    }
    let end = event.records.end();
    call(op::cuEventSynchronize, |writer| writer.put(event.handle))?;
    event.records.complete(end);
    Ok(())
}

pub(crate) unsafe fn cuEventElapsedTime(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuEventElapsedTime_v2(pMilliseconds, hStart, hEnd) }
}

pub(crate) unsafe fn cuEventElapsedTime_v2(
    pMilliseconds: *mut f32,
    hStart: CUevent,
    hEnd: CUevent,
) -> Result {
    let session = session()?;
    session.check()?;
    let (start, end) = (live(session, hStart)?, live(session, hEnd)?);
    if pMilliseconds.is_null() {
        // Measured; the manual says invalid value.
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    for event in [&start, &end] {
        if event.flags & DISABLE_TIMING != 0 || !event.recorded.load(Ordering::Acquire) {
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
    }
    let reply = call(op::cuEventElapsedTime_v2, |writer| {
        writer.put(start.handle);
        writer.put(end.handle);
    })?;
    let milliseconds: f32 = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pMilliseconds, milliseconds) }
}
