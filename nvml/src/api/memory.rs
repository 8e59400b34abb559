//! Memory: the VM's quota and what it holds of it, as `cuMemGetInfo` answers.

use super::{put, versioned};
use crate::facts::{device, facts};
use crate::live;
use crate::types::{Result, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t};
use pxos_protocol::monitor::DeviceUse;

fn now(handle: nvmlDevice_t) -> Result<DeviceUse> {
    let place = device(handle)?.place;
    Ok(live::now(facts()?)?.devices[place].clone())
}

pub(crate) unsafe fn nvmlDeviceGetMemoryInfo(handle: nvmlDevice_t, to: *mut nvmlMemory_t) -> Result {
    let DeviceUse { total, free, .. } = now(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(to, nvmlMemory_t { total, free, used: total.saturating_sub(free) }) }
}

/// What driver and firmware keep for themselves is not the VM's and does not show.
pub(crate) unsafe fn nvmlDeviceGetMemoryInfo_v2(handle: nvmlDevice_t, to: *mut nvmlMemory_v2_t) -> Result {
    // SAFETY: the entry point's contract.
    let asked = unsafe { versioned(to)? };
    let DeviceUse { total, free, .. } = now(handle)?;
    let answer = nvmlMemory_v2_t { total, reserved: 0, free, used: total.saturating_sub(free), ..asked };
    // SAFETY: the entry point's contract.
    unsafe { put(to, answer) }
}
