//! Peer access between contexts, atomic capabilities, and events of whole contexts.

use super::{Result, enter, put};
use crate::call::{call, garbled};
use crate::session::session;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUatomicOperation, CUcontext, CUdevice, CUevent, CUexecAffinityParam, CUexecAffinityType, CUresult,
};
use std::ffi::c_uint;
use std::sync::atomic::Ordering;

/// Most operations that one call asks about; CUDA 13.0 has 13.
const MOST: c_uint = 256;

pub(crate) unsafe fn cuCtxEnablePeerAccess(peerContext: CUcontext, Flags: c_uint) -> Result {
    let (session, _) = enter()?;
    let peer = session.contexts.get(peerContext.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    if Flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let answer = session.call(op::cuCtxEnablePeerAccess, |writer| {
        writer.put(peer.handle);
        writer.put(Flags);
    });
    answer.map(|_| ())
}

pub(crate) unsafe fn cuCtxDisablePeerAccess(peerContext: CUcontext) -> Result {
    let (session, _) = enter()?;
    let peer = session.contexts.get(peerContext.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    session.call(op::cuCtxDisablePeerAccess, |writer| writer.put(peer.handle)).map(|_| ())
}

/// Asks for the capabilities of each operation.
///
/// # Safety
/// Both arrays have `count` entries.
unsafe fn atomics(
    number: u16,
    capabilities: *mut c_uint,
    operations: *const CUatomicOperation,
    count: c_uint,
    devices: [CUdevice; 2],
) -> Result {
    let session = session()?;
    for device in devices {
        super::device::device(session, device)?;
    }
    if capabilities.is_null() || operations.is_null() || count == 0 || count > MOST {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: by this function's contract.
    let operations = unsafe { std::slice::from_raw_parts(operations, count as usize) };
    let reply = call(number, |writer| {
        writer.put(devices[0]);
        writer.put(devices[1]);
        writer.put(u64::from(count));
        operations.iter().for_each(|operation| writer.put(*operation));
    })?;
    let mut fields = reply.reader();
    for index in 0..count as usize {
        let told: u32 = fields.get().map_err(garbled)?;
        // SAFETY: by this function's contract.
        unsafe { capabilities.add(index).write(told) };
    }
    Ok(())
}

pub(crate) unsafe fn cuDeviceGetHostAtomicCapabilities(
    capabilities: *mut c_uint,
    operations: *const CUatomicOperation,
    count: c_uint,
    dev: CUdevice,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { atomics(op::cuDeviceGetHostAtomicCapabilities, capabilities, operations, count, [dev, dev]) }
}

pub(crate) unsafe fn cuDeviceGetP2PAtomicCapabilities(
    capabilities: *mut c_uint,
    operations: *const CUatomicOperation,
    count: c_uint,
    srcDevice: CUdevice,
    dstDevice: CUdevice,
) -> Result {
    let devices = [srcDevice, dstDevice];
    // SAFETY: the contract is the same.
    unsafe { atomics(op::cuDeviceGetP2PAtomicCapabilities, capabilities, operations, count, devices) }
}

pub(crate) unsafe fn cuCtxGetExecAffinity(
    pExecAffinity: *mut CUexecAffinityParam,
    kind: CUexecAffinityType,
) -> Result {
    let (session, _) = enter()?;
    let reply = session.call(op::cuCtxGetExecAffinity, |writer| writer.put(kind))?;
    let mut fields = reply.reader();
    let affinity = CUexecAffinityParam {
        kind: fields.get().map_err(garbled)?,
        sm_count: fields.get().map_err(garbled)?,
    };
    // SAFETY: the entry point's contract.
    unsafe { put(pExecAffinity, affinity) }
}

/// `cuCtxRecordEvent` and `cuCtxWaitEvent`.
fn context_event(number: u16, context: CUcontext, event: CUevent) -> Result {
    let session = session()?;
    let context = match context {
        CUcontext::NULL => super::current(session)?,
        context => session.contexts.get(context.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?,
    };
    let event = session.events.get(event.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if number == op::cuCtxRecordEvent {
        if event.context != context.handle {
            // "hEvent and hCtx must be from the same CUDA context."
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        event.record();
    } else if !event.recorded.load(Ordering::Acquire) {
        return Ok(());
    }
    session.post(number, |writer| {
        writer.put(context.handle);
        writer.put(event.handle);
    })
}

pub(crate) unsafe fn cuCtxRecordEvent(hCtx: CUcontext, hEvent: CUevent) -> Result {
    context_event(op::cuCtxRecordEvent, hCtx, hEvent)
}

pub(crate) unsafe fn cuCtxWaitEvent(hCtx: CUcontext, hEvent: CUevent) -> Result {
    context_event(op::cuCtxWaitEvent, hCtx, hEvent)
}
