//! Context management (CUDA driver API, section "Context management").

use super::{Answer, driver_fns};
use crate::device::attribute::SHARED_PER_BLOCK_OPTIN;
use crate::device::context::{self, CONTEXTS, Context, MAP_HOST};
use crate::device::platform;
use pxos_protocol::types::{
    CUcontext, CUctxCreateParams, CUdevice, CUexecAffinityParam, CUfunc_cache, CUlimit, CUresult,
    CUsharedconfig,
};
use std::ffi::{c_int, c_uint};
use std::sync::atomic::Ordering;

/// The API version that every context reports (measured).
const API_VERSION: c_uint = 3020;

driver_fns! {
    /// Makes a context and pushes it.
    ready fn cuCtxCreate_v2(context: *mut CUcontext, flags: c_uint, dev: CUdevice) {
        context.required()?;
        context.put(create(flags, dev)?)
    }

    /// Makes a context with execution affinities, which this device does not support.
    ready fn cuCtxCreate_v3(
        context: *mut CUcontext,
        affinities: *mut CUexecAffinityParam,
        count: c_int,
        flags: c_uint,
        dev: CUdevice,
    ) {
        context.required()?;
        if count != 0 || !affinities.is_null() {
            return Err(CUresult::ERROR_UNSUPPORTED_EXEC_AFFINITY);
        }
        context.put(create(flags, dev)?)
    }

    /// Makes a context and pushes it.
    ready fn cuCtxCreate_v4(context: *mut CUcontext, parameters: *mut CUctxCreateParams, flags: c_uint, dev: CUdevice) {
        context.required()?;
        if !parameters.is_null() {
            let parameters = parameters.read()?;
            if !parameters.cig_params.is_null() {
                return Err(CUresult::ERROR_NOT_SUPPORTED);
            }
            if parameters.num_exec_affinity_params != 0 {
                return Err(CUresult::ERROR_UNSUPPORTED_EXEC_AFFINITY);
            }
        }
        context.put(create(flags, dev)?)
    }

    /// Destroys a context.
    ready fn cuCtxDestroy(context: CUcontext) {
        destroy(context)
    }

    /// Destroys a context.
    ready fn cuCtxDestroy_v2(context: CUcontext) {
        destroy(context)
    }

    /// Pushes a context.
    ready fn cuCtxPushCurrent(context: CUcontext) {
        push(context)
    }

    /// Pushes a context.
    ready fn cuCtxPushCurrent_v2(context: CUcontext) {
        push(context)
    }

    /// Takes the current context off the stack.
    ready fn cuCtxPopCurrent(context: *mut CUcontext) {
        let popped = context::pop().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        context.put_if_wanted(popped.handle);
        Ok(())
    }

    /// Takes the current context off the stack.
    ready fn cuCtxPopCurrent_v2(context: *mut CUcontext) {
        let popped = context::pop().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        context.put_if_wanted(popped.handle);
        Ok(())
    }

    /// Puts a context in the place of the current one; null only takes that away.
    ready fn cuCtxSetCurrent(context: CUcontext) {
        let named = if context.is_null() { None } else { Some(context::named(context)?) };
        if named.as_ref().is_none_or(|_| context::top_handle() != context) {
            context::pop();
            if let Some(named) = named {
                context::push(named);
            }
        }
        Ok(())
    }

    /// The current context; null for none.
    ready fn cuCtxGetCurrent(context: *mut CUcontext) {
        context.put(context::top_handle())
    }

    /// The device of the current context.
    ready fn cuCtxGetDevice(device: *mut CUdevice) {
        device.required()?;
        device.put(context::top().ok_or(CUresult::ERROR_INVALID_CONTEXT)?.device.ordinal)
    }

    /// The device of a context; null means the current one.
    ready fn cuCtxGetDevice_v2(device: *mut CUdevice, context: CUcontext) {
        device.required()?;
        device.put(named_or_current(context)?.device.ordinal)
    }

    /// The flags of the current context.
    ready fn cuCtxGetFlags(flags: *mut c_uint) {
        let context = context::top().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        let always = if context.is_primary { MAP_HOST } else { 0 };
        flags.put(context.flags.load(Ordering::Relaxed) | always)
    }

    /// Sets the flags of the current context.
    ready fn cuCtxSetFlags(flags: c_uint) {
        let context = context::top().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        check_flags(flags)?;
        context.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// A number for a context that no other one of the process has had.
    ready fn cuCtxGetId(context: CUcontext, id: *mut u64) {
        id.required()?;
        id.put(id_of(context)?)
    }

    /// Waits for all work of the current context.
    ready fn cuCtxSynchronize() {
        context::current_even_faulted()?.synchronise()
    }

    /// Waits for all work of a context; null means the current one.
    ready fn cuCtxSynchronize_v2(context: CUcontext) {
        if context.is_null() {
            return context::current_even_faulted()?.synchronise();
        }
        context::named(context)?.active().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?.synchronise()
    }

    /// Sets a limit.
    ready fn cuCtxSetLimit(limit: CUlimit, value: usize) {
        let active = context::current()?;
        let mut settings = active.settings();
        match limit {
            STACK_SIZE if value > MAX_STACK => return Err(CUresult::ERROR_INVALID_VALUE),
            STACK_SIZE => settings.stack = value.next_multiple_of(16),
            PRINTF_FIFO_SIZE => settings.printf = value.max(512 << 10),
            MALLOC_HEAP_SIZE => settings.heap = value,
            PENDING_LAUNCH_COUNT => settings.pending_launches = value,
            MAX_L2_FETCH_GRANULARITY if value > 128 => return Err(CUresult::ERROR_INVALID_VALUE),
            MAX_L2_FETCH_GRANULARITY => settings.l2_granularity = value,
            PERSISTING_L2_CACHE_SIZE => settings.l2_persisting = value.next_multiple_of(L2_PORTION),
            other => return Err(limit_error(other, true)),
        }
        Ok(())
    }

    /// The value of a limit.
    ready fn cuCtxGetLimit(value: *mut usize, limit: CUlimit) {
        let active = context::current()?;
        value.required()?;
        let settings = active.settings();
        value.put(match limit {
            STACK_SIZE => settings.stack,
            PRINTF_FIFO_SIZE => settings.printf,
            MALLOC_HEAP_SIZE => settings.heap,
            PENDING_LAUNCH_COUNT => settings.pending_launches,
            MAX_L2_FETCH_GRANULARITY => settings.l2_granularity,
            PERSISTING_L2_CACHE_SIZE => settings.l2_persisting,
            SHMEM_SIZE => SHARED_PER_BLOCK_OPTIN as usize,
            CIG_ENABLED => 0,
            other => return Err(limit_error(other, false)),
        })
    }

    /// The cache preference of the current context.
    ready fn cuCtxGetCacheConfig(config: *mut CUfunc_cache) {
        let active = context::current()?;
        config.put(active.settings().cache)
    }

    /// Sets the cache preference, which changes nothing here.
    ready fn cuCtxSetCacheConfig(config: CUfunc_cache) {
        let active = context::current()?;
        if config > 3 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        active.settings().cache = config;
        Ok(())
    }

    /// The version of the API that a context was made with.
    ready fn cuCtxGetApiVersion(context: CUcontext, version: *mut c_uint) {
        named_or_current(context)?;
        version.put(API_VERSION)
    }

    /// The range of stream priorities (measured on an H200).
    ready fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        context::current()?;
        least.put_if_wanted(LEAST_PRIORITY);
        greatest.put_if_wanted(GREATEST_PRIORITY);
        Ok(())
    }

    /// Resets persisting lines in the cache; there are none.
    ready fn cuCtxResetPersistingL2Cache() {
        context::current().map(drop)
    }

    /// Attaches to the current context.
    ready fn cuCtxAttach(context: *mut CUcontext, flags: c_uint) {
        context.required()?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let current = context::top().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        current.attach();
        context.put(current.handle)
    }

    /// Detaches from a context, destroying it when nobody else holds it.
    ready fn cuCtxDetach(context: CUcontext) {
        context::named(context)?.detach()
    }

    /// The bank width of shared memory.
    ready fn cuCtxGetSharedMemConfig(config: *mut CUsharedconfig) {
        let active = context::current()?;
        config.put(active.settings().shared)
    }

    /// Sets the bank width of shared memory, which no device of today has.
    ready fn cuCtxSetSharedMemConfig(config: CUsharedconfig) {
        context::current()?;
        if config > 2 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
    }

    /// Lets the current context reach another device's memory; devices here are not linked.
    ready fn cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) {
        context::current()?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        context::named(peer)?;
        // To itself as well (measured on an H200, driver 580).
        Err(CUresult::ERROR_PEER_ACCESS_UNSUPPORTED)
    }

    /// Takes back what [`cuCtxEnablePeerAccess`] gave, which is nothing.
    ready fn cuCtxDisablePeerAccess(peer: CUcontext) {
        context::current()?;
        context::named(peer)?;
        Err(CUresult::ERROR_PEER_ACCESS_NOT_ENABLED)
    }
}

/// The lowest priority of a stream.
pub(crate) const LEAST_PRIORITY: c_int = 0;
/// The highest.
pub(crate) const GREATEST_PRIORITY: c_int = -5;

const STACK_SIZE: CUlimit = 0;
const PRINTF_FIFO_SIZE: CUlimit = 1;
const MALLOC_HEAP_SIZE: CUlimit = 2;
const SYNC_DEPTH: CUlimit = 3;
const PENDING_LAUNCH_COUNT: CUlimit = 4;
const MAX_L2_FETCH_GRANULARITY: CUlimit = 5;
const PERSISTING_L2_CACHE_SIZE: CUlimit = 6;
const SHMEM_SIZE: CUlimit = 7;
const CIG_ENABLED: CUlimit = 8;
const CIG_SHMEM_FALLBACK: CUlimit = 9;
/// The most stack that a thread may have: 512 KiB less what the driver keeps (CUDA C++ programming guide).
const MAX_STACK: usize = 512 << 10;
/// What persisting cache is given out in (measured).
const L2_PORTION: usize = 3_932_160;

/// What a limit that has no value answers (measured).
fn limit_error(limit: CUlimit, setting: bool) -> CUresult {
    match limit {
        SYNC_DEPTH | CIG_SHMEM_FALLBACK => CUresult::ERROR_UNSUPPORTED_LIMIT,
        SHMEM_SIZE | CIG_ENABLED if setting => CUresult::ERROR_NOT_PERMITTED,
        _ => CUresult::ERROR_INVALID_VALUE,
    }
}

/// Refuses flags that no context has, and two ways to wait at a time (measured).
pub(crate) fn check_flags(flags: c_uint) -> Answer {
    let scheduling = flags & 7;
    if flags & !0xff != 0 || scheduling.count_ones() > 1 {
        Err(CUresult::ERROR_INVALID_VALUE)
    } else {
        Ok(())
    }
}

fn create(flags: c_uint, dev: CUdevice) -> Answer<CUcontext> {
    let device = platform()?.device(dev)?;
    check_flags(flags)?;
    let context = Context::create(device, flags)?;
    let handle = context.handle;
    context::push(context);
    Ok(handle)
}

fn destroy(context: CUcontext) -> Answer {
    if context.0 == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let named = context::named(context)?;
    if named.is_primary {
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    named.destroy();
    Ok(())
}

fn push(context: CUcontext) -> Answer {
    if context.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    context::push(context::named(context)?);
    Ok(())
}

fn named_or_current(context: CUcontext) -> Answer<std::sync::Arc<Context>> {
    let found = if context.is_null() { context::top() } else { CONTEXTS.find(context) };
    found.ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

/// The number of a context; null means the current one.
pub(crate) fn id_of(context: CUcontext) -> Answer<u64> {
    Ok(named_or_current(context)?.id)
}
