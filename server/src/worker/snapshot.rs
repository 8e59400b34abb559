//! Asks the driver once for everything about the devices that does not change (design D7).

use crate::driver::{Driver, DriverError, Result};
use pxos_protocol::control::{Device, Snapshot};
use pxos_protocol::types::attribute::ATTRIBUTE_COUNT;
use pxos_protocol::types::{CUresult, CUuuid};
use std::ffi::{CStr, c_char};

/// Limits of a context that are asked: `CU_LIMIT_STACK_SIZE` … `CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED`.
const LIMITS: u32 = 10;

/// Initialises the driver and describes it; the first device's primary context is retained and current afterwards.
///
/// Only that one is made: a context costs half a gigabyte of its device (measured on an H200). What only a context can
/// tell (limits, stream priorities) is taken to be the same on every device of the machine.
pub(crate) fn take(driver: &Driver) -> std::result::Result<(Snapshot, u64), DriverError> {
    let called = |call| move |result| DriverError::Call { call, result };
    let mut driver_version = 0;
    let mut count = 0;
    let mut loading_mode = 2;
    // SAFETY: pointers to locals.
    unsafe {
        driver.cuInit(0).map_err(called("cuInit"))?;
        driver.cuDriverGetVersion(&raw mut driver_version).map_err(called("cuDriverGetVersion"))?;
        driver.cuDeviceGetCount(&raw mut count).map_err(called("cuDeviceGetCount"))?;
        let _ = driver.cuModuleGetLoadingMode(&raw mut loading_mode);
    }
    let mut context = 0;
    if count > 0 {
        // SAFETY: a pointer to a local.
        unsafe {
            driver
                .cuDevicePrimaryCtxRetain(&raw mut context, 0)
                .map_err(called("cuDevicePrimaryCtxRetain"))?;
            driver.cuCtxSetCurrent(context).map_err(called("cuCtxSetCurrent"))?;
        }
    }
    let devices =
        (0..count).map(|ordinal| device(driver, ordinal, count, context)).collect::<Result<Vec<_>>>();
    let devices = devices.map_err(called("describing a device"))?;
    let software = devices.iter().any(|device| device.name.contains("softgpu"));
    let snapshot =
        Snapshot { driver_version, loading_mode, devices, error_strings: error_strings(driver), software };
    Ok((snapshot, context))
}

fn error_strings(driver: &Driver) -> Vec<(u32, String)> {
    CUresult::ALL
        .iter()
        .filter_map(|(_, error)| {
            let mut text = std::ptr::null();
            // SAFETY: a pointer to a local; the text that comes back is static.
            unsafe {
                driver.cuGetErrorString(*error, &raw mut text).ok()?;
                (!text.is_null()).then(|| (error.0, CStr::from_ptr(text).to_string_lossy().into_owned()))
            }
        })
        .collect()
}

/// Text of a call that writes a C string to a buffer.
fn text(call: impl FnOnce(*mut c_char, i32) -> Result) -> Result<String> {
    let mut buffer = [0_u8; 256];
    call(buffer.as_mut_ptr().cast(), 256)?;
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

fn device(driver: &Driver, ordinal: i32, count: i32, context: u64) -> Result<Device> {
    // SAFETY: a buffer of the length given.
    let name = text(|buffer, length| unsafe { driver.cuDeviceGetName(buffer, length, ordinal) })?;
    // SAFETY: as above.
    let pci_bus_id = text(|buffer, length| unsafe { driver.cuDeviceGetPCIBusId(buffer, length, ordinal) });
    let mut uuid = CUuuid::default();
    // SAFETY: as above.
    unsafe { driver.cuDeviceGetUuid(&raw mut uuid, ordinal)? };
    let mut uuid_v2 = uuid;
    // SAFETY: as above.
    let _ = unsafe { driver.cuDeviceGetUuid_v2(&raw mut uuid_v2, ordinal) };
    let (mut luid, mut mask) = ([0; 8], 0);
    // SAFETY: as above.
    let has_luid = unsafe { driver.cuDeviceGetLuid(&raw mut luid, &raw mut mask, ordinal) }.is_ok();
    let mut total = 0_usize;
    // SAFETY: as above.
    unsafe { driver.cuDeviceTotalMem_v2(&raw mut total, ordinal)? };
    let attributes = (0..ATTRIBUTE_COUNT).map(|attribute| {
        let mut value = 0;
        // SAFETY: as above.
        unsafe { driver.cuDeviceGetAttribute(&raw mut value, attribute, ordinal) }.ok().map(|()| value)
    });
    let peers = (0..count).map(|peer| {
        let mut can = 0;
        // SAFETY: as above.
        unsafe { driver.cuDeviceCanAccessPeer(&raw mut can, ordinal, peer) }.is_ok() && can != 0
    });
    let (mut least, mut greatest) = (0, 0);
    // SAFETY: as above.
    let _ = unsafe { driver.cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest) };
    let limits = (0..LIMITS).map(|limit| {
        let mut value = 0_usize;
        // SAFETY: as above.
        unsafe { driver.cuCtxGetLimit(&raw mut value, limit) }.ok().map(|()| value as u64)
    });
    let mut context_api_version = 0;
    // SAFETY: as above; the context is the one that is retained.
    let _ = unsafe { driver.cuCtxGetApiVersion(context, &raw mut context_api_version) };
    let mut affinity = 0;
    // SAFETY: as above.
    let _ = unsafe { driver.cuDeviceGetExecAffinitySupport(&raw mut affinity, 0, ordinal) };
    Ok(Device {
        name,
        uuid: uuid.bytes,
        uuid_v2: uuid_v2.bytes,
        luid: has_luid.then_some((luid, mask)),
        total_memory: total as u64,
        pci_bus_id: pci_bus_id.unwrap_or_default(),
        attributes: attributes.collect(),
        peers: peers.collect(),
        priorities: (least, greatest),
        limits: limits.collect(),
        context_api_version,
        exec_affinity: affinity != 0,
    })
}
