//! Initialisation, versions, and what there is none of in a guest.

use super::{put, put_text, versioned};
use crate::facts::{self, facts};
use crate::types::{Error, Result, nvmlHwbcEntry_t, nvmlSystemDriverBranchInfo_t};
use std::ffi::{c_char, c_int, c_uint};

/// Version of the NVML whose table this is (driver 580, CUDA 13).
const NVML_VERSION: &str = "13.580.00";

pub(crate) unsafe fn nvmlInit() -> Result {
    facts::initialise()
}

pub(crate) unsafe fn nvmlInit_v2() -> Result {
    facts::initialise()
}

/// The flags say what to do where there are no devices, and whether to open them: neither costs anything here.
pub(crate) unsafe fn nvmlInitWithFlags(_flags: c_uint) -> Result {
    facts::initialise()
}

pub(crate) unsafe fn nvmlShutdown() -> Result {
    facts::shut_down()
}

pub(crate) unsafe fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_text(version, length, NVML_VERSION) }
}

pub(crate) unsafe fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Result {
    let driver = super::known(Some(&facts()?.driver).filter(|driver| !driver.is_empty()))?;
    // SAFETY: the entry point's contract.
    unsafe { put_text(version, length, driver) }
}

/// The branch is the version's first number, with the `r` before it that NVIDIA puts there.
pub(crate) unsafe fn nvmlSystemGetDriverBranch(
    branch: *mut nvmlSystemDriverBranchInfo_t,
    length: c_uint,
) -> Result {
    let number = facts()?.driver.split('.').next().filter(|number| !number.is_empty());
    let text = format!("r{}_00", super::known(number)?);
    // SAFETY: the entry point's contract.
    unsafe { versioned(branch)? };
    // SAFETY: a structure of that version, as was just seen.
    let to = unsafe { (&raw mut (*branch).branch).cast::<c_char>() };
    // SAFETY: within the array that the structure has.
    unsafe { put_text(to, length.min(80), &text) }
}

pub(crate) unsafe fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Result {
    let cuda = facts()?.cuda;
    // SAFETY: the entry point's contract.
    unsafe { put(version, cuda) }
}

pub(crate) unsafe fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlSystemGetCudaDriverVersion(version) }
}

/// The program that a process of this guest runs, as the guest's own kernel knows it.
pub(super) fn command_of(pid: c_uint) -> Option<String> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = command.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(program).into_owned()).filter(|name| !name.is_empty())
}

/// The name of a process of this guest, cut to fit.
pub(crate) unsafe fn nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) -> Result {
    facts()?;
    let mut text = command_of(pid).ok_or(Error::NOT_FOUND)?;
    while text.len() >= (length as usize).max(1) {
        text.pop();
    }
    // SAFETY: the entry point's contract.
    unsafe { put_text(name, length, &text) }
}

pub(crate) unsafe fn nvmlSystemGetHicVersion(count: *mut c_uint, _entries: *mut nvmlHwbcEntry_t) -> Result {
    facts()?;
    // SAFETY: the entry point's contract.
    unsafe { put(count, 0) }
}

pub(crate) unsafe fn nvmlUnitGetCount(count: *mut c_uint) -> Result {
    facts()?;
    // SAFETY: the entry point's contract.
    unsafe { put(count, 0) }
}

pub(crate) unsafe fn nvmlGetExcludedDeviceCount(count: *mut c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put(count, 0) }
}

pub(crate) unsafe fn nvmlGetBlacklistDeviceCount(count: *mut c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put(count, 0) }
}
