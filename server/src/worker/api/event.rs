//! Events.

use super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::state::Owned;
use pxos_protocol::types::CUresult;

/// `cuEventCreate`: handle, flags.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let (handle, flags): (u64, u32) = (call.get()?, call.get()?);
    call.state.events.check(handle)?;
    let mut native = 0;
    // SAFETY: a pointer to a local.
    unsafe { call.driver().cuEventCreate(&raw mut native, flags)? };
    call.state.events.insert(handle, Owned { native, context: call.header.context })?;
    done()
}

/// `cuEventDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let event = call.state.events.remove(handle)?;
    // SAFETY: an event of this session's, taken out of the table.
    unsafe { call.driver().cuEventDestroy_v2(event.native)? };
    done()
}

/// `cuEventRecord`: event, stream, flags.
pub(in super::super) fn record(call: &mut Call<'_>) -> Answer {
    let event = call.get()?;
    let stream = call.get_stream()?;
    let flags: u32 = call.get()?;
    let event = call.state.events.get(event)?.native;
    let driver = call.driver();
    // SAFETY: handles of this session's.
    unsafe {
        if flags == 0 {
            driver.cuEventRecord(event, stream)?;
        } else {
            driver.cuEventRecordWithFlags(event, stream, flags)?;
        }
    }
    done()
}

/// `cuEventQuery`: event.
pub(in super::super) fn query(call: &mut Call<'_>) -> Answer {
    let event = call.get()?;
    let event = call.state.events.get(event)?.native;
    // SAFETY: a handle of this session's.
    unsafe { call.driver().cuEventQuery(event)? };
    done()
}

/// `cuEventSynchronize`: event.
pub(in super::super) fn synchronise(call: &mut Call<'_>) -> Answer {
    let event = call.get()?;
    let event = call.state.events.get(event)?.native;
    // SAFETY: a handle of this session's. A guest that destroys it meanwhile hurts its own worker only.
    Ok(Outcome::Later(Box::new(move |session, _| unsafe { session.driver.cuEventSynchronize(event) })))
}

/// `cuEventElapsedTime`: start, end.
pub(in super::super) fn elapsed(call: &mut Call<'_>) -> Answer {
    let (start, end): (u64, u64) = (call.get()?, call.get()?);
    let (start, end) = (call.state.events.get(start)?.native, call.state.events.get(end)?.native);
    let mut milliseconds = 0.0;
    // SAFETY: handles of this session's, a pointer to a local.
    let result: Result<(), CUresult> =
        unsafe { call.driver().cuEventElapsedTime(&raw mut milliseconds, start, end) };
    result?;
    call.reply().put(milliseconds);
    done()
}
