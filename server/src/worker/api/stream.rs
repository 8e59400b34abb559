//! Streams.

use super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::state::Owned;
use crate::driver::Result;
use pxos_protocol::types::{CU_STREAM_PER_THREAD, CUresult, CUstream};

/// `cuStreamCreateWithPriority`: handle, flags, priority.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let (handle, flags, priority): (u64, u32, i32) = (call.get()?, call.get()?, call.get()?);
    call.state.streams.check(handle)?;
    call.session.ledger.open_stream()?;
    let mut native = 0;
    // SAFETY: a pointer to a local.
    let made = unsafe { call.driver().cuStreamCreateWithPriority(&raw mut native, flags, priority) };
    let owned = Owned { native, context: call.header.context };
    file(call, handle, made.map(|()| owned))
}

/// Files a stream that was taken out of the quota, or gives it back.
pub(super) fn file(call: &mut Call<'_>, handle: u64, made: Result<Owned>) -> Answer {
    match made.and_then(|owned| call.state.streams.insert(handle, owned)) {
        Ok(()) => done(),
        Err(error) => {
            call.session.ledger.close_streams(1);
            Err(error.into())
        }
    }
}

/// `cuStreamDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let stream = call.state.streams.remove(handle)?;
    call.session.gate.settle(call.session);
    call.session.ledger.close_streams(1);
    call.state.fences.forget_stream(stream.native);
    let ended = call.state.graphs.abandon_capture(stream.native);
    // SAFETY: a stream of this session's, taken out of the table.
    let destroyed = unsafe { call.driver().cuStreamDestroy_v2(stream.native) };
    call.state.graphs.lapse(call.session, ended);
    destroyed?;
    done()
}

/// `cuStreamWaitEvent`: stream, event, flags.
pub(in super::super) fn wait_event(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let event = call.get()?;
    let flags = call.get()?;
    let event = call.state.events.get(event)?.native;
    // What the stream waits for is not its own work.
    call.session.gate.settle(call.session);
    // SAFETY: handles of this session's.
    unsafe { call.driver().cuStreamWaitEvent(stream, event, flags)? };
    done()
}

/// FENCE: stream, one of the default ones.
pub(in super::super) fn fence(call: &mut Call<'_>) -> Answer {
    let raw = call.get()?;
    if raw != CUstream::NULL.0 && raw != CU_STREAM_PER_THREAD.0 {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let stream = call.state.stream(call.session, raw, call.header.thread, call.header.context)?;
    call.state.fences.raise(call.session, call.header.context, stream)?;
    done()
}

/// `cuStreamQuery`: stream.
pub(in super::super) fn query(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    // SAFETY: a handle of this session's.
    unsafe { call.driver().cuStreamQuery(stream)? };
    done()
}

/// `cuStreamSynchronize`: stream.
pub(in super::super) fn synchronise(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    // SAFETY: a handle of this session's. A guest that destroys the stream meanwhile hurts its own worker only.
    Ok(Outcome::Later(Box::new(move |session, _| unsafe { session.driver.cuStreamSynchronize(stream) })))
}
