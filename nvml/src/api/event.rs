//! Sets of events, in which nothing ever happens: events of a device tell of all VMs. Programs are let make sets and register
//! for events all the same, because they do before they know whether any will come (`nvidia-smi`, and `nvidia-smi -l`).

use super::put;
use crate::facts::{device, facts};
use crate::types::{Error, Result, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};
use std::ffi::{c_uint, c_ulonglong};
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// The one set that all are: its address is the handle.
static SET: AtomicU8 = AtomicU8::new(0);

fn set() -> nvmlEventSet_t {
    nvmlEventSet_t(SET.as_ptr().cast())
}

pub(crate) unsafe fn nvmlEventSetCreate(to: *mut nvmlEventSet_t) -> Result {
    facts()?;
    // SAFETY: the entry point's contract.
    unsafe { put(to, set()) }
}

pub(crate) unsafe fn nvmlDeviceRegisterEvents(
    handle: nvmlDevice_t,
    _types: c_ulonglong,
    of: nvmlEventSet_t,
) -> Result {
    device(handle)?;
    if of == set() { Ok(()) } else { Err(Error::INVALID_ARGUMENT) }
}

pub(crate) unsafe fn nvmlEventSetFree(of: nvmlEventSet_t) -> Result {
    facts()?;
    if of == set() { Ok(()) } else { Err(Error::INVALID_ARGUMENT) }
}

/// Waits in vain.
pub(crate) unsafe fn nvmlEventSetWait(
    of: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> Result {
    facts()?;
    if of != set() || data.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    std::thread::sleep(Duration::from_millis(timeout.into()));
    Err(Error::TIMEOUT)
}

pub(crate) unsafe fn nvmlEventSetWait_v2(
    of: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlEventSetWait(of, data, timeout) }
}

/// None.
pub(crate) unsafe fn nvmlDeviceGetSupportedEventTypes(
    handle: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(types, 0) }
}
