//! How devices lie to each other. The host's bus is not the guest's: what is known is whether one reaches the other's memory.

use super::{put, put_list};
use crate::facts::{device, facts};
use crate::types::{
    Error, Result, nvmlDevice_t, nvmlGpuP2PCapsIndex_t, nvmlGpuP2PStatus_t, nvmlGpuTopologyLevel_t,
};
use std::ffi::{c_int, c_uint};

/// `NVML_TOPOLOGY_INTERNAL`: one board.
const INTERNAL: nvmlGpuTopologyLevel_t = 0;
/// `NVML_TOPOLOGY_SYSTEM`: nothing nearer than the same machine is known.
const SYSTEM: nvmlGpuTopologyLevel_t = 50;
/// `NVML_P2P_STATUS_OK`.
const OK: nvmlGpuP2PStatus_t = 0;
/// `NVML_P2P_STATUS_NOT_SUPPORTED`.
const NOT_SUPPORTED: nvmlGpuP2PStatus_t = 5;
/// `NVML_P2P_CAPS_INDEX_UNKNOWN`: capabilities have numbers below.
const CAPABILITIES: nvmlGpuP2PCapsIndex_t = 5;

pub(crate) unsafe fn nvmlDeviceGetTopologyCommonAncestor(
    one: nvmlDevice_t,
    other: nvmlDevice_t,
    to: *mut nvmlGpuTopologyLevel_t,
) -> Result {
    let same = device(one)?.index == device(other)?.index;
    // SAFETY: the entry point's contract.
    unsafe { put(to, if same { INTERNAL } else { SYSTEM }) }
}

pub(crate) unsafe fn nvmlDeviceGetTopologyNearestGpus(
    handle: nvmlDevice_t,
    level: nvmlGpuTopologyLevel_t,
    count: *mut c_uint,
    to: *mut nvmlDevice_t,
) -> Result {
    let own = device(handle)?.index;
    let others = facts()?.devices.iter().filter(|known| known.index != own && level == SYSTEM);
    // SAFETY: the entry point's contract.
    unsafe { put_list(count, to, others.map(crate::facts::Known::handle).collect()) }
}

/// Reading and writing (0, 1) by what the driver API says; no more is known.
pub(crate) unsafe fn nvmlDeviceGetP2PStatus(
    one: nvmlDevice_t,
    other: nvmlDevice_t,
    capability: nvmlGpuP2PCapsIndex_t,
    to: *mut nvmlGpuP2PStatus_t,
) -> Result {
    let (one, other) = (device(one)?, device(other)?);
    if capability >= CAPABILITIES {
        return Err(Error::INVALID_ARGUMENT);
    }
    let reaches = one.device.peers.get(other.place).copied().unwrap_or(false);
    // SAFETY: the entry point's contract.
    unsafe { put(to, if reaches && capability < 2 { OK } else { NOT_SUPPORTED }) }
}

pub(crate) unsafe fn nvmlDeviceOnSameBoard(one: nvmlDevice_t, other: nvmlDevice_t, to: *mut c_int) -> Result {
    let same = device(one)?.index == device(other)?.index;
    // SAFETY: the entry point's contract.
    unsafe { put(to, c_int::from(same)) }
}
