//! Contexts: handles, the stack and the flags live in the guest; the host learns of a context when it is made or ended.

use super::{Result, current, enter, put};
use crate::call::{call, garbled, post};
use crate::objects::{Context, Progress};
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUcontext, CUctxCreateParams, CUdevice, CUexecAffinityParam, CUfunc_cache, CUlimit, CUmoduleLoadingMode,
    CUresult, CUsharedconfig,
};
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `CUDA_ERROR_INVALID_CONTEXT` unless `ctx` is alive; 0 asks for the current one.
fn named(session: &Session, ctx: CUcontext) -> Result<std::sync::Arc<Context>> {
    if ctx.is_null() {
        return current(session);
    }
    session.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

fn create(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Result {
    let session = session()?;
    super::device::device(session, dev)?;
    super::device::check_flags(flags)?;
    if pctx.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let id = session.next_context_id();
    let context = session.contexts.mint(|handle| Context {
        handle,
        device: dev,
        id,
        primary: false,
        flags: AtomicU32::new(flags),
        retained: AtomicU32::new(1),
        cache_config: AtomicU32::new(0),
        shared_config: AtomicU32::new(0),
        work: Progress::default(),
        legacy: Progress::default(),
        legacy_waited: AtomicU64::new(0),
        lives: AtomicU64::new(0),
        next_stream_id: AtomicU64::new(3),
    })?;
    let made = call(op::cuCtxCreate_v2, |writer| {
        writer.put(context.handle);
        writer.put(dev);
        writer.put(flags);
    });
    if let Err(error) = made {
        session.contexts.remove(context.handle);
        return Err(error);
    }
    thread::push(context.handle);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pctx, CUcontext(context.handle)) }
}

pub(crate) unsafe fn cuCtxCreate_v2(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> Result {
    create(pctx, flags, dev)
}

pub(crate) unsafe fn cuCtxCreate_v3(
    pctx: *mut CUcontext,
    _paramsArray: *mut CUexecAffinityParam,
    numParams: c_int,
    flags: c_uint,
    dev: CUdevice,
) -> Result {
    if numParams != 0 {
        // Execution affinity needs MPS on the host.
        return Err(CUresult::ERROR_UNSUPPORTED_EXEC_AFFINITY);
    }
    create(pctx, flags, dev)
}

pub(crate) unsafe fn cuCtxCreate_v4(
    pctx: *mut CUcontext,
    ctxCreateParams: *mut CUctxCreateParams,
    flags: c_uint,
    dev: CUdevice,
) -> Result {
    // SAFETY: null or a structure, by the entry point's contract.
    if let Some(params) = unsafe { ctxCreateParams.as_ref() } {
        if params.num_exec_affinity_params != 0 {
            return Err(CUresult::ERROR_UNSUPPORTED_EXEC_AFFINITY);
        }
        if !params.cig_params.is_null() {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
    }
    create(pctx, flags, dev)
}

/// Ends a context: everything in it is dead from now on, in the guest at once and on the host in its turn.
pub(crate) fn end(session: &'static Session, context: &Context, op: u16, reset: bool) -> Result {
    let handle = context.handle;
    // The runtime's own records first: its destructors still call functions of this context.
    if reset {
        pxos_cudart::storage::context_reset(handle);
    } else {
        pxos_cudart::storage::context_destroyed(handle);
    }
    context.lives.fetch_add(1, Ordering::Relaxed);
    session.streams.remove_all(|stream| stream.context == handle);
    session.events.remove_all(|event| event.context == handle);
    session.functions.remove_all(|function| function.context == handle);
    session.modules.remove_all(|module| module.context == handle);
    super::module::context_ended(session, handle);
    session.links.forget_context(handle);
    session.arrays.forget_context(handle);
    session.parked.forget(handle);
    let memory = session.allocations.remove_all(|range| range.context == handle);
    super::memory::release_host(session, &memory);
    crate::exclusive::context_ended(session, handle);
    let device = context.device;
    post(op, |writer| {
        writer.put(handle);
        writer.put(device);
    })
}

pub(crate) unsafe fn cuCtxDestroy(ctx: CUcontext) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuCtxDestroy_v2(ctx) }
}

pub(crate) unsafe fn cuCtxDestroy_v2(ctx: CUcontext) -> Result {
    let session = session()?;
    if ctx.0 == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let context = session.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    if context.primary {
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    end(session, &context, op::cuCtxDestroy_v2, false)?;
    context.retained.store(0, Ordering::Release);
    session.contexts.remove(ctx.0);
    if thread::current_context() == ctx.0 {
        thread::pop();
    }
    Ok(())
}

pub(crate) unsafe fn cuCtxPushCurrent(ctx: CUcontext) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuCtxPushCurrent_v2(ctx) }
}

pub(crate) unsafe fn cuCtxPushCurrent_v2(ctx: CUcontext) -> Result {
    session()?.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    thread::push(ctx.0);
    Ok(())
}

pub(crate) unsafe fn cuCtxPopCurrent(pctx: *mut CUcontext) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuCtxPopCurrent_v2(pctx) }
}

pub(crate) unsafe fn cuCtxPopCurrent_v2(pctx: *mut CUcontext) -> Result {
    session()?;
    let popped = thread::pop().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    if !pctx.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { pctx.write(CUcontext(popped)) };
    }
    Ok(())
}

pub(crate) unsafe fn cuCtxSetCurrent(ctx: CUcontext) -> Result {
    let session = session()?;
    if ctx.is_null() {
        thread::pop();
        return Ok(());
    }
    // A primary context may be made current before it is retained (measured: the CUDA runtime does so).
    session.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    thread::set_current(ctx.0);
    Ok(())
}

pub(crate) unsafe fn cuCtxGetCurrent(pctx: *mut CUcontext) -> Result {
    session()?;
    // SAFETY: the entry point's contract.
    unsafe { put(pctx, CUcontext(thread::current_context())) }
}

pub(crate) unsafe fn cuCtxGetDevice(device: *mut CUdevice) -> Result {
    let session = session()?;
    let raw = thread::current_context();
    // The most frequent call of all (2495 in one training step): no table lookup for a primary context.
    let primary = session.primaries.iter().find(|context| context.handle == raw);
    let ordinal = match primary {
        Some(context) => context.device,
        None if raw == 0 => return Err(CUresult::ERROR_INVALID_CONTEXT),
        None => session.contexts.get(raw).ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?.device,
    };
    // SAFETY: the entry point's contract.
    unsafe { put(device, ordinal) }
}

pub(crate) unsafe fn cuCtxGetDevice_v2(device: *mut CUdevice, ctx: CUcontext) -> Result {
    let session = session()?;
    let context = match ctx {
        // SAFETY: the contract is the same.
        CUcontext::NULL => return unsafe { cuCtxGetDevice(device) },
        ctx => named(session, ctx)?,
    };
    // SAFETY: the entry point's contract.
    unsafe { put(device, context.device) }
}

pub(crate) unsafe fn cuCtxGetFlags(flags: *mut c_uint) -> Result {
    let (_, context) = enter()?;
    // SAFETY: the entry point's contract.
    unsafe { put(flags, context.flags.load(Ordering::Relaxed)) }
}

pub(crate) unsafe fn cuCtxSetFlags(flags: c_uint) -> Result {
    let (_, context) = enter()?;
    super::device::check_flags(flags)?;
    context.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

pub(crate) unsafe fn cuCtxGetId(ctx: CUcontext, ctxId: *mut u64) -> Result {
    let context = named(session()?, ctx)?;
    // SAFETY: the entry point's contract.
    unsafe { put(ctxId, context.id) }
}

pub(crate) unsafe fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint) -> Result {
    let session = session()?;
    let context = named(session, ctx)?;
    let device = super::device::device(session, context.device)?;
    // SAFETY: the entry point's contract.
    unsafe { put(version, device.context_api_version) }
}

pub(crate) unsafe fn cuCtxGetStreamPriorityRange(
    leastPriority: *mut c_int,
    greatestPriority: *mut c_int,
) -> Result {
    let (session, context) = enter()?;
    let (least, greatest) = super::device::device(session, context.device)?.priorities;
    for (pointer, value) in [(leastPriority, least), (greatestPriority, greatest)] {
        if !pointer.is_null() {
            // SAFETY: not null, and writable by the entry point's contract.
            unsafe { pointer.write(value) };
        }
    }
    Ok(())
}

/// `CU_CTX_ATTACH_DETACH` semantics went with CUDA 4; what is left is a reference that nobody counts.
pub(crate) unsafe fn cuCtxAttach(pctx: *mut CUcontext, flags: c_uint) -> Result {
    let (_, context) = enter()?;
    if flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    context.retained.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the entry point's contract.
    unsafe { put(pctx, CUcontext(context.handle)) }
}

pub(crate) unsafe fn cuCtxDetach(ctx: CUcontext) -> Result {
    let context = session()?.contexts.get(ctx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    if context.retained.load(Ordering::Acquire) > 1 {
        context.retained.fetch_sub(1, Ordering::AcqRel);
        return Ok(());
    }
    // SAFETY: the contract is the same.
    unsafe { cuCtxDestroy_v2(ctx) }
}

pub(crate) unsafe fn cuCtxSynchronize() -> Result {
    let (_, context) = enter()?;
    let (work, legacy) = (context.work.end(), context.legacy.end());
    call(op::cuCtxSynchronize, |_| {})?;
    context.work.complete(work);
    context.legacy.complete(legacy);
    Ok(())
}

pub(crate) unsafe fn cuCtxSynchronize_v2(ctx: CUcontext) -> Result {
    let session = session()?;
    session.check()?;
    let context = named(session, ctx)?;
    let (work, legacy) = (context.work.end(), context.legacy.end());
    let mut header = session.header(op::cuCtxSynchronize, pxos_protocol::frame::FLAG_REPLY);
    header.context = context.handle;
    session.call_in(header, |_| {})?;
    context.work.complete(work);
    context.legacy.complete(legacy);
    Ok(())
}

pub(crate) unsafe fn cuCtxSetLimit(limit: CUlimit, value: usize) -> Result {
    enter()?;
    call(op::cuCtxSetLimit, |writer| {
        writer.put(limit);
        writer.put(value as u64);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuCtxGetLimit(pvalue: *mut usize, limit: CUlimit) -> Result {
    enter()?;
    let reply = call(op::cuCtxGetLimit, |writer| writer.put(limit))?;
    let value: u64 = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pvalue, usize::try_from(value).unwrap_or(usize::MAX)) }
}

pub(crate) unsafe fn cuCtxGetCacheConfig(pconfig: *mut CUfunc_cache) -> Result {
    let (_, context) = enter()?;
    // SAFETY: the entry point's contract.
    unsafe { put(pconfig, context.cache_config.load(Ordering::Relaxed)) }
}

pub(crate) unsafe fn cuCtxSetCacheConfig(config: CUfunc_cache) -> Result {
    let (_, context) = enter()?;
    if config > 3 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // A preference that devices since Volta do not follow (CUDA driver API): it is kept to be read back.
    context.cache_config.store(config, Ordering::Relaxed);
    Ok(())
}

pub(crate) unsafe fn cuCtxGetSharedMemConfig(pConfig: *mut CUsharedconfig) -> Result {
    let (_, context) = enter()?;
    // SAFETY: the entry point's contract.
    unsafe { put(pConfig, context.shared_config.load(Ordering::Relaxed)) }
}

pub(crate) unsafe fn cuCtxSetSharedMemConfig(config: CUsharedconfig) -> Result {
    let (_, context) = enter()?;
    if config > 2 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    context.shared_config.store(config, Ordering::Relaxed);
    Ok(())
}

pub(crate) unsafe fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode) -> Result {
    let mode_here = session()?.snapshot.loading_mode;
    // SAFETY: the entry point's contract.
    unsafe { put(mode, mode_here) }
}
