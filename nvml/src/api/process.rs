//! Processes of this VM, by their numbers in the guest, and shares of device time.

use super::{put, put_list, versioned};
use crate::facts::{Known, device, facts};
use crate::live::{self, Shares};
use crate::types::{
    DISABLED, Error, NOT_AVAILABLE, Result, nvmlDevice_t, nvmlEnableState_t, nvmlProcessDetail_t,
    nvmlProcessDetailList_t, nvmlProcessInfo_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t,
    nvmlProcessUtilizationInfo_t, nvmlProcessUtilizationSample_t, nvmlProcessesUtilizationInfo_t,
    nvmlUtilization_t,
};
use std::ffi::{c_uint, c_ulonglong};

/// Instances that a process is in where there are none.
pub(super) const NO_INSTANCE: c_uint = u32::MAX;
/// `NVML_PROCESS_MODE_*`: compute, and all.
const MODES: std::ops::RangeInclusive<c_uint> = 0..=3;

/// Number and memory of each process. What a process holds is known of all devices together only, so that with several it is
/// not told of any.
pub(super) fn processes(handle: nvmlDevice_t) -> Result<Vec<(c_uint, c_ulonglong)>> {
    device(handle)?;
    let facts = facts()?;
    let vm_use = live::now(facts)?;
    let one = facts.devices.len() == 1;
    let of = |process: &pxos_protocol::monitor::ProcessUse| {
        (process.pid, if one { process.memory } else { NOT_AVAILABLE })
    };
    Ok(vm_use.processes.iter().map(of).collect())
}

pub(crate) unsafe fn nvmlDeviceGetComputeRunningProcesses(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_v1_t,
) -> Result {
    let list = processes(handle)?.into_iter();
    let list = list.map(|(pid, usedGpuMemory)| nvmlProcessInfo_v1_t { pid, usedGpuMemory });
    // SAFETY: the entry point's contract.
    unsafe { put_list(count, to, list.collect()) }
}

pub(crate) unsafe fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> Result {
    let list = processes(handle)?.into_iter().map(|(pid, usedGpuMemory)| nvmlProcessInfo_t {
        pid,
        usedGpuMemory,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    });
    // SAFETY: the entry point's contract.
    unsafe { put_list(count, to, list.collect()) }
}

pub(crate) unsafe fn nvmlDeviceGetComputeRunningProcesses_v2(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_v2_t,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlDeviceGetComputeRunningProcesses_v3(handle, count, to) }
}

/// Kinds of process that there are none of: with graphics, and of MPS.
macro_rules! none_of {
    ($($name:ident $info:ty;)*) => { $(
        pub(crate) unsafe fn $name(handle: nvmlDevice_t, count: *mut c_uint, _to: *mut $info) -> Result {
            device(handle)?;
            // SAFETY: the entry point's contract.
            unsafe { put(count, 0) }
        }
    )* };
}

none_of! {
    nvmlDeviceGetGraphicsRunningProcesses nvmlProcessInfo_v1_t;
    nvmlDeviceGetGraphicsRunningProcesses_v2 nvmlProcessInfo_v2_t;
    nvmlDeviceGetGraphicsRunningProcesses_v3 nvmlProcessInfo_t;
    nvmlDeviceGetMPSComputeRunningProcesses nvmlProcessInfo_v1_t;
    nvmlDeviceGetMPSComputeRunningProcesses_v2 nvmlProcessInfo_v2_t;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 nvmlProcessInfo_t;
}

pub(crate) unsafe fn nvmlDeviceGetRunningProcessDetailList(
    handle: nvmlDevice_t,
    to: *mut nvmlProcessDetailList_t,
) -> Result {
    // SAFETY: the entry point's contract.
    let asked = unsafe { versioned(to)? };
    if !MODES.contains(&asked.mode) {
        return Err(Error::INVALID_ARGUMENT);
    }
    let all = if matches!(asked.mode, 0 | 3) { processes(handle)? } else { Vec::new() };
    let list = all.into_iter().map(|(pid, usedGpuMemory)| nvmlProcessDetail_t {
        pid,
        usedGpuMemory,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
        usedGpuCcProtectedMemory: 0,
    });
    // SAFETY: a structure of that version, as was seen above.
    let count = unsafe { &raw mut (*to).numProcArrayEntries };
    // SAFETY: the entry point's contract: the array has as many entries as the structure says.
    unsafe { put_list(count, asked.procArray, list.collect()) }
}

pub(crate) unsafe fn nvmlDeviceGetAccountingMode(
    handle: nvmlDevice_t,
    mode: *mut nvmlEnableState_t,
) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(mode, DISABLED) }
}

/// The VM's share of device time. How busy the memory is nobody measures for each VM: 0.
pub(crate) unsafe fn nvmlDeviceGetUtilizationRates(
    handle: nvmlDevice_t,
    to: *mut nvmlUtilization_t,
) -> Result {
    let place = device(handle)?.place;
    let gpu = live::shares(facts()?)?.devices.get(place).copied().unwrap_or(0);
    // SAFETY: the entry point's contract.
    unsafe { put(to, nvmlUtilization_t { gpu, memory: 0 }) }
}

/// Shares of processes, if they are newer than what the program has seen already.
fn samples(known: &Known, seen: c_ulonglong) -> Result<(u64, Vec<(u32, u32)>)> {
    let Shares { at, processes, .. } = live::shares(facts()?)?;
    if at <= seen || processes.is_empty() {
        return Err(Error::NOT_FOUND);
    }
    let of = |(pid, shares): (u32, Vec<u32>)| (pid, shares.get(known.place).copied().unwrap_or(0));
    Ok((at, processes.into_iter().map(of).collect()))
}

pub(crate) unsafe fn nvmlDeviceGetProcessUtilization(
    handle: nvmlDevice_t,
    to: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    seen: c_ulonglong,
) -> Result {
    let (timeStamp, list) = samples(device(handle)?, seen)?;
    let list = list.into_iter().map(|(pid, smUtil)| nvmlProcessUtilizationSample_t {
        pid,
        timeStamp,
        smUtil,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    });
    // SAFETY: the entry point's contract; without an array there is no room, whatever the count says.
    unsafe { put_samples(count, to, list.collect()) }
}

/// As [`put_list`], where a missing array asks how long the list is.
///
/// # Safety
/// As of [`put_list`].
unsafe fn put_samples<T>(count: *mut c_uint, to: *mut T, list: Vec<T>) -> Result {
    if to.is_null() && !count.is_null() {
        // SAFETY: not null, the caller's.
        unsafe { count.write(0) };
    }
    // SAFETY: the caller's.
    unsafe { put_list(count, to, list) }
}

pub(crate) unsafe fn nvmlDeviceGetProcessesUtilizationInfo(
    handle: nvmlDevice_t,
    to: *mut nvmlProcessesUtilizationInfo_t,
) -> Result {
    // SAFETY: the entry point's contract.
    let asked = unsafe { versioned(to)? };
    let (timeStamp, list) = samples(device(handle)?, asked.lastSeenTimeStamp)?;
    let list = list.into_iter().map(|(pid, smUtil)| nvmlProcessUtilizationInfo_t {
        timeStamp,
        pid,
        smUtil,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    });
    // SAFETY: a structure of that version, as was seen above.
    let count = unsafe { &raw mut (*to).processSamplesCount };
    // SAFETY: the entry point's contract: the array has as many entries as the structure says.
    unsafe { put_samples(count, asked.procUtilArray, list.collect()) }
}
