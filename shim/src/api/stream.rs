//! Streams. Creating, destroying and waiting for events need no answer; what a stream is, the guest knows itself.

use super::{Result, current, enter, put, stream_argument, stream_name};
use crate::call::{call, post};
use crate::callbacks::Callback;
use crate::objects::{Context, Progress, Stream};
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{
    CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUcontext, CUdevice, CUevent, CUgreenCtx, CUresult, CUstream,
    CUstreamCallback,
};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const NON_BLOCKING: c_uint = 1;

/// `cuStreamGetId`: the default streams have the ids that their handles would have, others one of their own in the
/// context.
pub(crate) fn stream_id(session: &Session, raw: u64) -> Result<u64> {
    match stream_name(session, raw)? {
        0 => Ok(CU_STREAM_LEGACY.0),
        // One id per thread, apart from the ids of created streams.
        raw if raw == CU_STREAM_PER_THREAD.0 => Ok(1 << 32 | u64::from(thread::number())),
        raw => session.streams.get(raw).map(|stream| stream.id).ok_or(CUresult::ERROR_INVALID_HANDLE),
    }
}

pub(crate) unsafe fn cuStreamCreate(phStream: *mut CUstream, Flags: c_uint) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuStreamCreateWithPriority(phStream, Flags, 0) }
}

pub(crate) unsafe fn cuStreamCreateWithPriority(
    phStream: *mut CUstream,
    flags: c_uint,
    priority: c_int,
) -> Result {
    let (session, context) = enter()?;
    if flags & !NON_BLOCKING != 0 || phStream.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // "Priorities outside the range are clamped" (CUDA driver API, cuStreamCreateWithPriority).
    let (least, greatest) = super::device::device(session, context.device)?.priorities;
    let priority = priority.clamp(greatest.min(least), least.max(greatest));
    if flags & NON_BLOCKING != 0 {
        // Relaxed: who gets the stream from another thread gets it by something that orders.
        session.has_free_streams.store(true, Ordering::Relaxed);
    }
    let id = context.next_stream_id.fetch_add(1, Ordering::Relaxed);
    let owner = context.handle;
    let stream = session.streams.mint(|handle| Stream {
        handle,
        context: owner,
        flags,
        priority,
        id,
        work: Progress::default(),
    })?;
    announce(session, &stream, op::cuStreamCreateWithPriority, |writer| {
        writer.put(stream.handle);
        writer.put(flags);
        writer.put(priority);
    })?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phStream, CUstream(stream.handle)) }
}

/// Tells the host of a new stream; nobody waits, unless there may be only so many.
pub(super) fn announce(
    session: &'static Session,
    stream: &Stream,
    number: u16,
    write: impl FnOnce(&mut Writer<'_>),
) -> Result {
    if !session.bounds_streams {
        return session.post(number, write);
    }
    session.call(number, write).map(drop).inspect_err(|_| {
        session.streams.remove(stream.handle);
    })
}

pub(crate) unsafe fn cuStreamDestroy(hStream: CUstream) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuStreamDestroy_v2(hStream) }
}

pub(crate) unsafe fn cuStreamDestroy_v2(hStream: CUstream) -> Result {
    let session = session()?;
    let stream = session.streams.remove(hStream.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    session.captures.forget_stream(stream.handle);
    post(op::cuStreamDestroy_v2, |writer| writer.put(stream.handle))
}

/// Answers `ask` of a created stream, or `default` for a default stream of the current context.
fn of_stream<T>(raw: CUstream, ask: impl FnOnce(&Stream) -> T, default: impl FnOnce() -> T) -> Result<T> {
    let session = session()?;
    let stream = stream_name(session, raw.0)?;
    match session.streams.get(stream) {
        Some(stream) => Ok(ask(&stream)),
        None => {
            current(session)?;
            Ok(default())
        }
    }
}

pub(crate) unsafe fn cuStreamGetPriority(hStream: CUstream, priority: *mut c_int) -> Result {
    let value = of_stream(hStream, |stream| stream.priority, || 0)?;
    // SAFETY: the entry point's contract.
    unsafe { put(priority, value) }
}

pub(crate) unsafe fn cuStreamGetFlags(hStream: CUstream, flags: *mut c_uint) -> Result {
    let value = of_stream(hStream, |stream| stream.flags, || 0)?;
    // SAFETY: the entry point's contract.
    unsafe { put(flags, value) }
}

pub(crate) unsafe fn cuStreamGetId(hStream: CUstream, streamId: *mut u64) -> Result {
    let id = stream_id(session()?, hStream.0)?;
    // SAFETY: the entry point's contract.
    unsafe { put(streamId, id) }
}

pub(crate) unsafe fn cuStreamGetDevice(hStream: CUstream, device: *mut CUdevice) -> Result {
    let context = of_stream(hStream, |stream| stream.context, thread::current_context)?;
    let context = session()?.contexts.get(context).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    // SAFETY: the entry point's contract.
    unsafe { put(device, context.device) }
}

/// The context of a stream.
pub(super) fn stream_context(session: &'static Session, raw: CUstream) -> Result<u64> {
    let stream = stream_argument(session, raw.0)?;
    match session.streams.get(stream) {
        Some(stream) => Ok(stream.context),
        None => Ok(current(session)?.handle),
    }
}

pub(crate) unsafe fn cuStreamGetCtx(hStream: CUstream, pctx: *mut CUcontext) -> Result {
    let context = of_stream(hStream, |stream| stream.context, thread::current_context)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pctx, CUcontext(context)) }
}

pub(crate) unsafe fn cuStreamGetCtx_v2(
    hStream: CUstream,
    pCtx: *mut CUcontext,
    pGreenCtx: *mut CUgreenCtx,
) -> Result {
    let session = session()?;
    let context = stream_context(session, hStream)?;
    let green = session.greens.of_context(context);
    if !pGreenCtx.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { pGreenCtx.write(green.map_or(CUgreenCtx::NULL, CUgreenCtx)) };
    }
    if green.is_none() {
        // SAFETY: the entry point's contract.
        return unsafe { put(pCtx, CUcontext(context)) };
    }
    // "The API returns the green context in pGreenCtx and the primary context of the associated device in pCtx."
    let device = session.contexts.get(context).ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?.device;
    let primary = super::device::primary(session, device)?.handle;
    // SAFETY: the entry point's contract.
    unsafe { put(pCtx, CUcontext(primary)) }
}

pub(crate) unsafe fn cuStreamWaitEvent(hStream: CUstream, hEvent: CUevent, Flags: c_uint) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    let event = session.events.get(hEvent.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if Flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if !event.recorded.load(Ordering::Acquire) {
        // "If cuEventRecord has not been called on the event, this call acts as if the record has already completed."
        return Ok(());
    }
    let write = |writer: &mut Writer<'_>| {
        writer.put(stream);
        writer.put(event.handle);
        writer.put(Flags);
    };
    if event.flags & super::event::INTERPROCESS != 0 {
        // Its maker may record it anew when this returns.
        return session.call(op::cuStreamWaitEvent, write).map(|_| ());
    }
    session.post(op::cuStreamWaitEvent, write)?;
    session.captures.waits(session, stream, event.handle, Flags);
    Ok(())
}

pub(crate) unsafe fn cuStreamQuery(hStream: CUstream) -> Result {
    let (session, context) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    let created = session.streams.get(stream);
    let work = match &created {
        Some(stream) => Some(&stream.work),
        None => (stream == 0).then_some(&context.legacy),
    };
    if work.is_some_and(Progress::is_complete) {
        return Ok(());
    }
    let end = work.map(Progress::end);
    call(op::cuStreamQuery, |writer| writer.put(stream))?;
    if let (Some(work), Some(end)) = (work, end) {
        work.complete(end);
    }
    Ok(())
}

pub(crate) unsafe fn cuStreamSynchronize(hStream: CUstream) -> Result {
    let (session, context) = enter()?;
    let stream = stream_name(session, hStream.0)?;
    let waited = Waited::for_all_in(session, context, stream);
    // A capture refuses to be waited for, which the answer says.
    if waited.is_known() && !session.captures.are_active() {
        return Ok(());
    }
    call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
    waited.answered();
    Ok(())
}

/// What is in a stream by now, and proved done by the answer of a call that waits for it.
pub(super) struct Waited {
    queue: Queue,
    end: u64,
}

enum Queue {
    Created(Arc<Stream>),
    /// It waits for other streams of its context, so everything in those counts.
    Legacy(Arc<Context>),
    /// A thread's own, of which no count is kept.
    PerThread,
}

impl Waited {
    /// To be made before the call.
    pub(super) fn for_all_in(session: &Session, context: Arc<Context>, stream: u64) -> Self {
        let queue = match session.streams.get(stream) {
            Some(created) => Queue::Created(created),
            None if stream == 0 => Queue::Legacy(context),
            None => Queue::PerThread,
        };
        let end = match &queue {
            Queue::Created(stream) => stream.work.end(),
            Queue::Legacy(context) => context.work.end(),
            Queue::PerThread => 0,
        };
        Self { queue, end }
    }

    /// Whether all of it was seen done before.
    fn is_known(&self) -> bool {
        match &self.queue {
            Queue::Created(stream) => stream.work.is_complete(),
            Queue::Legacy(context) => context.legacy_waited.load(Ordering::Relaxed) == self.end,
            Queue::PerThread => false,
        }
    }

    /// The call has been answered.
    pub(super) fn answered(self) {
        match self.queue {
            Queue::Created(stream) => stream.work.complete(self.end),
            // Relaxed: a thread that learns of it by other means has its own ordering.
            Queue::Legacy(context) => {
                context.legacy_waited.fetch_max(self.end, Ordering::Relaxed);
            }
            Queue::PerThread => {}
        }
    }
}

/// Puts a callback into a stream.
pub(crate) fn enqueue_callback(raw: CUstream, callback: Callback) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, raw.0)?;
    if session.captures.is_capturing(stream) {
        return super::graph::captured_function(session, callback, stream);
    }
    let wants_status = matches!(callback, Callback::Stream(..));
    let number = session.callbacks.register(session, callback)?;
    session.post(op::cuLaunchHostFunc, |writer| {
        writer.put(number);
        writer.put(stream);
        writer.put(u32::from(wants_status));
    })
}

pub(crate) unsafe fn cuStreamAddCallback(
    hStream: CUstream,
    callback: CUstreamCallback,
    userData: *mut c_void,
    flags: c_uint,
) -> Result {
    if callback.is_none() || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    enqueue_callback(hStream, Callback::Stream(callback, hStream, userData.expose_provenance()))
}
