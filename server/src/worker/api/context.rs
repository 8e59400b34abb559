//! Contexts.

use super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::session::Session;
use super::super::state::Context;
use pxos_protocol::types::{CUlimit, CUresult};

/// `cuDevicePrimaryCtxRetain`: handle, device, flags. The context becomes active at its first use.
pub(in super::super) fn retain(call: &mut Call<'_>) -> Answer {
    let (handle, device, _flags): (u64, i32, u32) = (call.get()?, call.get()?, call.get()?);
    if usize::try_from(device).ok().is_none_or(|device| device >= call.session.snapshot.devices.len()) {
        return Err(CUresult::ERROR_INVALID_DEVICE.into());
    }
    if call.state.contexts.get(handle).is_err() {
        // One that ends under one handle would leave behind what it held under the other.
        if call.state.contexts.find(|context| context.primary && context.device == device).is_some() {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        call.state.contexts.insert(handle, Context { native: 0, device, primary: true })?;
    }
    done()
}

/// `cuDevicePrimaryCtxReset` and the last release: everything in the context is gone.
pub(in super::super) fn reset(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let context = call.state.contexts.get_mut(handle).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    if !context.primary {
        return Err(CUresult::ERROR_INVALID_CONTEXT.into());
    }
    let device = context.device;
    if context.native == 0 {
        return done();
    }
    let native = std::mem::take(&mut context.native);
    call.session.gate.forget_context(native);
    // A primary context that is made anew has the driver's own limits.
    call.state.small_stack = call.state.small_stack.filter(|small| !small.is_of(native));
    let freed = call.state.forget_context(call.session, handle);
    call.session.left();
    let driver = call.driver();
    // SAFETY: plain calls; the worker's own retain is given back, so that the next use makes a new context.
    unsafe {
        driver.cuDevicePrimaryCtxReset_v2(device)?;
        driver.cuDevicePrimaryCtxRelease_v2(device)?;
    }
    freed.release(call.session);
    done()
}

/// `cuCtxCreate`: handle, device, flags.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let (handle, device, flags): (u64, i32, u32) = (call.get()?, call.get()?, call.get()?);
    call.state.contexts.check(handle)?;
    let mut native = 0;
    let driver = call.driver();
    call.session.left();
    // SAFETY: pointers to a local. The driver leaves the context current; the guest's stack is the guest's own affair.
    unsafe {
        match driver.cuCtxCreate_v4(&raw mut native, std::ptr::null_mut(), flags, device) {
            Err(CUresult::ERROR_NOT_SUPPORTED) => driver.cuCtxCreate_v2(&raw mut native, flags, device)?,
            made => made?,
        }
        let mut popped = 0;
        driver.cuCtxPopCurrent_v2(&raw mut popped)?;
    }
    call.state.contexts.insert(handle, Context { native, device, primary: false })?;
    done()
}

/// `cuCtxDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let known = call.state.contexts.get(handle).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    // The driver's own, or a green one's, which live on: everything in them does.
    if known.primary || call.state.green.is_of_green(handle) {
        return Err(CUresult::ERROR_INVALID_CONTEXT.into());
    }
    let context = call.state.contexts.remove(handle).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    call.session.gate.forget_context(context.native);
    let freed = call.state.forget_context(call.session, handle);
    call.session.left();
    // SAFETY: a context of this session's, taken out of the table.
    unsafe { call.driver().cuCtxDestroy_v2(context.native)? };
    freed.release(call.session);
    done()
}

/// `cuCtxSynchronize`.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all rows")]
pub(in super::super) fn synchronise() -> Answer {
    // SAFETY: the context is current on this thread, which runs what is left, too.
    Ok(Outcome::Later(Box::new(|session, _| unsafe { session.driver.cuCtxSynchronize() })))
}

/// `cuCtxGetLimit`: limit.
pub(in super::super) fn limit(call: &mut Call<'_>) -> Answer {
    let limit: CUlimit = call.get()?;
    let mut value = 0;
    match call.state.small_stack.and_then(|small| small.tells(Session::current(), limit)) {
        Some(told) => value = told,
        // SAFETY: a pointer to a local.
        None => unsafe { call.driver().cuCtxGetLimit(&raw mut value, limit)? },
    }
    call.reply().put(value as u64);
    done()
}

/// `cuCtxSetLimit`: limit, value.
pub(in super::super) fn set_limit(call: &mut Call<'_>) -> Answer {
    let limit: CUlimit = call.get()?;
    let value = call.get_usize()?;
    call.state.grow_stack(call.session)?;
    // SAFETY: a plain call.
    unsafe { call.driver().cuCtxSetLimit(limit, value)? };
    done()
}
