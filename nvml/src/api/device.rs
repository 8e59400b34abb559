//! Finding devices, and what identifies them.

use super::{known, put, put_text, text_array, versioned};
use crate::facts::{Address, Known, device, facts};
use crate::types::{
    DISABLED, Error, Result, nvmlBrandType_t, nvmlBusType_t, nvmlComputeMode_t, nvmlDevice_t,
    nvmlDeviceArchitecture_t, nvmlEnableState_t, nvmlPciInfo_t, nvmlPciInfoExt_t, nvmlUUID_t,
};
use pxos_protocol::types::attribute;
use std::ffi::{CStr, c_char, c_int, c_uint};

/// NVIDIA's number as a vendor of PCI devices, which stands for the device where the host does not know it.
const VENDOR: u32 = 0x10de;
/// `NVML_BUS_TYPE_PCIE`.
const PCIE: nvmlBusType_t = 2;
/// PCI class of display controllers, and its subclass of 3D controllers.
const CLASS: (u32, u32) = (3, 2);
/// `NVML_DEVICE_ARCH_UNKNOWN`.
const UNKNOWN_ARCHITECTURE: nvmlDeviceArchitecture_t = u32::MAX;

pub(crate) unsafe fn nvmlDeviceGetCount(count: *mut c_uint) -> Result {
    let devices = facts()?.devices.len();
    // SAFETY: the entry point's contract.
    unsafe { put(count, c_uint::try_from(devices).unwrap_or(0)) }
}

pub(crate) unsafe fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlDeviceGetCount(count) }
}

pub(crate) unsafe fn nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut nvmlDevice_t) -> Result {
    let known = facts()?.devices.get(index as usize).ok_or(Error::INVALID_ARGUMENT)?;
    // SAFETY: the entry point's contract.
    unsafe { put(device, known.handle()) }
}

pub(crate) unsafe fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlDeviceGetHandleByIndex(index, device) }
}

/// Text that a program gives.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Error::INVALID_ARGUMENT)
}

fn find(is: impl Fn(&Known) -> bool) -> Result<nvmlDevice_t> {
    facts()?.devices.iter().find(|known| is(known)).map(Known::handle).ok_or(Error::NOT_FOUND)
}

pub(crate) unsafe fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> Result {
    // SAFETY: the entry point's contract.
    let wanted = unsafe { text(uuid)? };
    let handle = find(|known| known.uuid().eq_ignore_ascii_case(wanted))?;
    // SAFETY: the entry point's contract.
    unsafe { put(device, handle) }
}

pub(crate) unsafe fn nvmlDeviceGetHandleByUUIDV(
    uuid: *const nvmlUUID_t,
    device: *mut nvmlDevice_t,
) -> Result {
    // SAFETY: the entry point's contract.
    let wanted = unsafe { versioned(uuid)? };
    let handle = match wanted.kind {
        1 => {
            let text = CStr::from_bytes_until_nul(&wanted.value).map_err(|_| Error::INVALID_ARGUMENT)?;
            let text = text.to_str().map_err(|_| Error::INVALID_ARGUMENT)?;
            find(|known| known.uuid().eq_ignore_ascii_case(text))?
        }
        2 => find(|known| known.device.uuid == wanted.value[..16])?,
        _ => return Err(Error::INVALID_ARGUMENT),
    };
    // SAFETY: the entry point's contract.
    unsafe { put(device, handle) }
}

pub(crate) unsafe fn nvmlDeviceGetHandleByPciBusId(id: *const c_char, device: *mut nvmlDevice_t) -> Result {
    facts()?;
    // SAFETY: the entry point's contract.
    let wanted = Address::parse(unsafe { text(id)? }).ok_or(Error::INVALID_ARGUMENT)?;
    let handle = find(|known| known.address == wanted)?;
    // SAFETY: the entry point's contract.
    unsafe { put(device, handle) }
}

pub(crate) unsafe fn nvmlDeviceGetHandleByPciBusId_v2(
    id: *const c_char,
    device: *mut nvmlDevice_t,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlDeviceGetHandleByPciBusId(id, device) }
}

pub(crate) unsafe fn nvmlDeviceGetName(handle: nvmlDevice_t, name: *mut c_char, length: c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_text(name, length, &device(handle)?.device.name) }
}

/// 0 (unknown) where the host does not know it.
pub(crate) unsafe fn nvmlDeviceGetBrand(handle: nvmlDevice_t, brand: *mut nvmlBrandType_t) -> Result {
    let value = device(handle)?.board.brand.unwrap_or(0);
    // SAFETY: the entry point's contract.
    unsafe { put(brand, value) }
}

pub(crate) unsafe fn nvmlDeviceGetIndex(handle: nvmlDevice_t, index: *mut c_uint) -> Result {
    let value = device(handle)?.index;
    // SAFETY: the entry point's contract.
    unsafe { put(index, c_uint::try_from(value).unwrap_or(0)) }
}

pub(crate) unsafe fn nvmlDeviceGetUUID(handle: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_text(uuid, length, &device(handle)?.uuid()) }
}

pub(crate) unsafe fn nvmlDeviceGetVbiosVersion(
    handle: nvmlDevice_t,
    version: *mut c_char,
    length: c_uint,
) -> Result {
    let text = known(device(handle)?.board.vbios.as_deref())?;
    // SAFETY: the entry point's contract.
    unsafe { put_text(version, length, text) }
}

pub(crate) unsafe fn nvmlDeviceGetBoardPartNumber(
    handle: nvmlDevice_t,
    number: *mut c_char,
    length: c_uint,
) -> Result {
    let text = known(device(handle)?.board.part_number.as_deref())?;
    // SAFETY: the entry point's contract.
    unsafe { put_text(number, length, text) }
}

/// A number that devices of one board share: its place on the bus.
pub(crate) unsafe fn nvmlDeviceGetBoardId(handle: nvmlDevice_t, id: *mut c_uint) -> Result {
    let Address { domain, bus, device } = device(handle)?.address;
    // SAFETY: the entry point's contract.
    unsafe { put(id, domain << 16 | bus << 8 | device) }
}

pub(crate) unsafe fn nvmlDeviceGetMultiGpuBoard(handle: nvmlDevice_t, is: *mut c_uint) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(is, 0) }
}

pub(crate) unsafe fn nvmlDeviceGetBusType(handle: nvmlDevice_t, kind: *mut nvmlBusType_t) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(kind, PCIE) }
}

fn pci(known: &Known) -> nvmlPciInfo_t {
    let Address { domain, bus, device } = known.address;
    nvmlPciInfo_t {
        busIdLegacy: text_array(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        pciDeviceId: known.board.pci_device.unwrap_or(VENDOR),
        pciSubSystemId: known.board.pci_subsystem.unwrap_or(0),
        busId: text_array(&format!("{domain:08X}:{bus:02X}:{device:02X}.0")),
    }
}

/// Version 1 knows the structure as far as `pciDeviceId`.
pub(crate) unsafe fn nvmlDeviceGetPciInfo(handle: nvmlDevice_t, to: *mut nvmlPciInfo_t) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_pci(handle, to, std::mem::offset_of!(nvmlPciInfo_t, pciSubSystemId)) }
}

/// Version 2 knows it as far as `pciSubSystemId`.
pub(crate) unsafe fn nvmlDeviceGetPciInfo_v2(handle: nvmlDevice_t, to: *mut nvmlPciInfo_t) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_pci(handle, to, std::mem::offset_of!(nvmlPciInfo_t, busId)) }
}

pub(crate) unsafe fn nvmlDeviceGetPciInfo_v3(handle: nvmlDevice_t, to: *mut nvmlPciInfo_t) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { put_pci(handle, to, size_of::<nvmlPciInfo_t>()) }
}

/// Writes the first `length` bytes of it.
///
/// # Safety
/// `to` is null or can be written that far.
unsafe fn put_pci(handle: nvmlDevice_t, to: *mut nvmlPciInfo_t, length: usize) -> Result {
    let info = pci(device(handle)?);
    if to.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: as far as the caller says, within the structure here; bytes need no alignment.
    unsafe { to.cast::<u8>().copy_from_nonoverlapping((&raw const info).cast::<u8>(), length) };
    Ok(())
}

pub(crate) unsafe fn nvmlDeviceGetPciInfoExt(handle: nvmlDevice_t, to: *mut nvmlPciInfoExt_t) -> Result {
    let info = pci(device(handle)?);
    // SAFETY: the entry point's contract.
    let asked = unsafe { versioned(to)? };
    let (baseClass, subClass) = CLASS;
    let nvmlPciInfo_t { domain, bus, device, pciDeviceId, pciSubSystemId, busId, .. } = info;
    let answer = nvmlPciInfoExt_t {
        domain,
        bus,
        device,
        pciDeviceId,
        pciSubSystemId,
        baseClass,
        subClass,
        busId,
        ..asked
    };
    // SAFETY: the entry point's contract.
    unsafe { put(to, answer) }
}

fn capability(known: &Known) -> (i32, i32) {
    let get = |number| known.device.attribute(number);
    (get(attribute::COMPUTE_CAPABILITY_MAJOR), get(attribute::COMPUTE_CAPABILITY_MINOR))
}

pub(crate) unsafe fn nvmlDeviceGetCudaComputeCapability(
    handle: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> Result {
    let (one, other) = capability(device(handle)?);
    // SAFETY: the entry point's contract.
    unsafe {
        put(major, one)?;
        put(minor, other)
    }
}

/// `NVML_DEVICE_ARCH_*` of a compute capability (CUDA C++ programming guide, "compute capabilities").
fn architecture(capability: (i32, i32)) -> nvmlDeviceArchitecture_t {
    match capability {
        (3, _) => 2,
        (5, _) => 3,
        (6, _) => 4,
        (7, 5..) => 6,
        (7, _) => 5,
        (8, 9) => 8,
        (8, _) => 7,
        (9, _) => 9,
        (10..=12, _) => 10,
        _ => UNKNOWN_ARCHITECTURE,
    }
}

/// FP32 lanes of a multiprocessor of a compute capability (the same table of the guide).
fn lanes(capability: (i32, i32)) -> Option<u32> {
    match capability {
        (6, 0) | (7, _) | (8, 0) => Some(64),
        (5 | 6 | 8..=12, _) => Some(128),
        _ => None,
    }
}

pub(crate) unsafe fn nvmlDeviceGetArchitecture(
    handle: nvmlDevice_t,
    to: *mut nvmlDeviceArchitecture_t,
) -> Result {
    let value = architecture(capability(device(handle)?));
    // SAFETY: the entry point's contract.
    unsafe { put(to, value) }
}

/// A number of an attribute that cannot be negative.
fn number(known: &Known, attribute: u32) -> u32 {
    u32::try_from(known.device.attribute(attribute)).unwrap_or(0)
}

pub(crate) unsafe fn nvmlDeviceGetNumGpuCores(handle: nvmlDevice_t, to: *mut c_uint) -> Result {
    let device = device(handle)?;
    let lanes = known(lanes(capability(device)))?;
    let processors = number(device, attribute::MULTIPROCESSOR_COUNT);
    // SAFETY: the entry point's contract.
    unsafe { put(to, lanes.saturating_mul(processors)) }
}

pub(crate) unsafe fn nvmlDeviceGetMemoryBusWidth(handle: nvmlDevice_t, to: *mut c_uint) -> Result {
    let width = number(device(handle)?, attribute::GLOBAL_MEMORY_BUS_WIDTH);
    // SAFETY: the entry point's contract.
    unsafe { put(to, width) }
}

pub(crate) unsafe fn nvmlDeviceGetEccMode(
    handle: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> Result {
    let enabled = number(device(handle)?, attribute::ECC_ENABLED);
    // SAFETY: the entry point's contract.
    unsafe {
        put(current, enabled)?;
        put(pending, enabled)
    }
}

/// The numbers of CUDA's modes are NVML's.
pub(crate) unsafe fn nvmlDeviceGetComputeMode(handle: nvmlDevice_t, to: *mut nvmlComputeMode_t) -> Result {
    let mode = number(device(handle)?, attribute::COMPUTE_MODE);
    // SAFETY: the entry point's contract.
    unsafe { put(to, mode) }
}

pub(crate) unsafe fn nvmlDeviceGetDisplayMode(handle: nvmlDevice_t, to: *mut nvmlEnableState_t) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(to, DISABLED) }
}

pub(crate) unsafe fn nvmlDeviceGetDisplayActive(handle: nvmlDevice_t, to: *mut nvmlEnableState_t) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { nvmlDeviceGetDisplayMode(handle, to) }
}

pub(crate) unsafe fn nvmlDeviceGetMigMode(
    handle: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe {
        put(current, DISABLED)?;
        put(pending, DISABLED)
    }
}

pub(crate) unsafe fn nvmlDeviceGetMaxMigDeviceCount(handle: nvmlDevice_t, count: *mut c_uint) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(count, 0) }
}

pub(crate) unsafe fn nvmlDeviceIsMigDeviceHandle(handle: nvmlDevice_t, is: *mut c_uint) -> Result {
    device(handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(is, 0) }
}

pub(crate) unsafe fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: nvmlDevice_t,
    _index: c_uint,
    _mig: *mut nvmlDevice_t,
) -> Result {
    device(handle)?;
    Err(Error::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_architectures() {
        let known = [
            ((7, 0), 5, 64),
            ((7, 5), 6, 64),
            ((8, 0), 7, 64),
            ((8, 9), 8, 128),
            ((9, 0), 9, 128),
            ((12, 0), 10, 128),
        ];
        for (capability, name, cores) in known {
            assert_eq!((architecture(capability), lanes(capability)), (name, Some(cores)), "{capability:?}");
        }
        assert_eq!((architecture((99, 0)), lanes((99, 0))), (UNKNOWN_ARCHITECTURE, None));
    }
}
