//! Peer access between contexts, atomic capabilities, and events of whole contexts.

use super::super::dispatch::{Answer, Call, Failed, done};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUexecAffinityParam, CUresult};

/// Most atomic operations that one call asks about; CUDA 13.0 has 13.
const MOST: u64 = 256;

/// The driver's handle of a context that need not be current; a primary context comes to life.
fn native(call: &mut Call<'_>, raw: u64) -> Result<u64, Failed> {
    call.state.enter(call.session, raw)?;
    let native = call.state.contexts.get(raw).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?.native;
    call.state.enter(call.session, call.header.context)?;
    Ok(native)
}

/// `cuCtxEnablePeerAccess`: context, flags.
pub(in super::super) fn enable(call: &mut Call<'_>) -> Answer {
    let (peer, flags) = (call.get()?, call.get()?);
    let peer = native(call, peer)?;
    // SAFETY: a context of this session's.
    unsafe { call.driver().cuCtxEnablePeerAccess(peer, flags)? };
    done()
}

/// `cuCtxDisablePeerAccess`: context.
pub(in super::super) fn disable(call: &mut Call<'_>) -> Answer {
    let peer = call.get()?;
    let peer = native(call, peer)?;
    // SAFETY: a context of this session's.
    unsafe { call.driver().cuCtxDisablePeerAccess(peer)? };
    done()
}

/// `cuDeviceGetHostAtomicCapabilities` and `cuDeviceGetP2PAtomicCapabilities`: device, other device, operations; the
/// capabilities of each come back.
pub(in super::super) fn atomics(call: &mut Call<'_>) -> Answer {
    let (device, other): (i32, i32) = (call.get()?, call.get()?);
    let count: u64 = call.get()?;
    if count > MOST {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let operations = (0..count).map(|_| call.get::<u32>()).collect::<Result<Vec<_>, _>>()?;
    let mut capabilities = vec![0_u32; operations.len()];
    let count = u32::try_from(count).expect("bounded by MOST");
    let driver = call.driver();
    // SAFETY: two arrays of `count` entries.
    unsafe {
        if call.header.op == op::cuDeviceGetHostAtomicCapabilities {
            driver.cuDeviceGetHostAtomicCapabilities(
                capabilities.as_mut_ptr(),
                operations.as_ptr(),
                count,
                device,
            )?;
        } else {
            driver.cuDeviceGetP2PAtomicCapabilities(
                capabilities.as_mut_ptr(),
                operations.as_ptr(),
                count,
                device,
                other,
            )?;
        }
    }
    let mut reply = call.reply();
    capabilities.into_iter().for_each(|value| reply.put(value));
    done()
}

/// `cuCtxGetExecAffinity`: kind; kind and count come back.
pub(in super::super) fn affinity(call: &mut Call<'_>) -> Answer {
    let kind = call.get()?;
    let mut affinity = CUexecAffinityParam { kind, sm_count: 0 };
    // SAFETY: a pointer to a local.
    unsafe { call.driver().cuCtxGetExecAffinity(&raw mut affinity, kind)? };
    let mut reply = call.reply();
    reply.put(affinity.kind);
    reply.put(affinity.sm_count);
    done()
}

/// `cuCtxRecordEvent` and `cuCtxWaitEvent`: context, event.
pub(in super::super) fn context_event(call: &mut Call<'_>) -> Answer {
    let (context, event) = (call.get()?, call.get()?);
    let context = native(call, context)?;
    let event = call.state.events.get(event)?.native;
    let driver = call.driver();
    // SAFETY: a context and an event of this session's.
    unsafe {
        if call.header.op == op::cuCtxRecordEvent {
            driver.cuCtxRecordEvent(context, event)?;
        } else {
            driver.cuCtxWaitEvent(context, event)?;
        }
    }
    done()
}
