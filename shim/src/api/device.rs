//! Device management and primary contexts: answered from the snapshot, but for what changes a context on the host.

use super::{Result, put};
use crate::call::{call, garbled, post};
use crate::objects::Context;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::control::Device;
use pxos_protocol::types::attribute as attr;
use pxos_protocol::types::{
    CUcontext, CUdevice, CUdevice_attribute, CUdevprop, CUexecAffinityType, CUresult, CUuuid,
};
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The device with this ordinal.
pub(crate) fn device(session: &Session, ordinal: CUdevice) -> Result<&Device> {
    let device = usize::try_from(ordinal).ok().and_then(|ordinal| session.snapshot.devices.get(ordinal));
    device.ok_or(CUresult::ERROR_INVALID_DEVICE)
}

/// Its primary context, active or not.
pub(crate) fn primary(session: &Session, ordinal: CUdevice) -> Result<&Arc<Context>> {
    let context = usize::try_from(ordinal).ok().and_then(|ordinal| session.primaries.get(ordinal));
    context.ok_or(CUresult::ERROR_INVALID_DEVICE)
}

pub(crate) unsafe fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> Result {
    self::device(session()?, ordinal)?;
    // SAFETY: the entry point's contract.
    unsafe { put(device, ordinal) }
}

pub(crate) unsafe fn cuDeviceGetCount(count: *mut c_int) -> Result {
    let devices = session()?.snapshot.devices.len();
    // SAFETY: the entry point's contract.
    unsafe { put(count, c_int::try_from(devices).unwrap_or(c_int::MAX)) }
}

/// Copies text to a buffer of `length` bytes, cut and always ended by a NUL.
unsafe fn put_text(buffer: *mut c_char, length: c_int, text: &[u8]) -> Result {
    let room = usize::try_from(length).ok().filter(|room| *room > 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if buffer.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let count = text.len().min(room - 1);
    // SAFETY: `count` + 1 bytes fit into the buffer, by the entry point's contract on `length`.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), count);
        buffer.add(count).write(0);
    }
    Ok(())
}

/// The driver writes names up to this length with NULs behind them, where there is room (measured on an H200, driver 580).
const NAME_LENGTH: usize = 63;

pub(crate) unsafe fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) -> Result {
    let device = device(session()?, dev)?;
    let mut text = device.name.as_bytes().to_vec();
    text.resize(text.len().max(NAME_LENGTH), 0);
    // SAFETY: the entry point's contract.
    unsafe { put_text(name, len, &text) }
}

pub(crate) unsafe fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> Result {
    let bytes = device(session()?, dev)?.uuid;
    // SAFETY: the entry point's contract.
    unsafe { put(uuid, CUuuid { bytes }) }
}

pub(crate) unsafe fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> Result {
    let bytes = device(session()?, dev)?.uuid_v2;
    // SAFETY: the entry point's contract.
    unsafe { put(uuid, CUuuid { bytes }) }
}

pub(crate) unsafe fn cuDeviceGetLuid(
    luid: *mut c_char,
    deviceNodeMask: *mut c_uint,
    dev: CUdevice,
) -> Result {
    let (bytes, mask) = device(session()?, dev)?.luid.ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    // SAFETY: the entry point's contract.
    unsafe {
        put(luid.cast::<[u8; 8]>(), bytes)?;
        put(deviceNodeMask, mask)
    }
}

/// Asked each time: an operator may change the quota, and `cuMemGetInfo` must not say otherwise.
fn total_memory(ordinal: CUdevice) -> Result<u64> {
    device(session()?, ordinal)?;
    let reply = call(op::cuDeviceTotalMem_v2, |writer| writer.put(ordinal))?;
    reply.reader().get().map_err(garbled)
}

pub(crate) unsafe fn cuDeviceTotalMem(bytes: *mut c_uint, dev: CUdevice) -> Result {
    let total = total_memory(dev)?;
    // The 32-bit form saturates (CUDA driver API of version 3.1).
    // SAFETY: the entry point's contract.
    unsafe { put(bytes, c_uint::try_from(total).unwrap_or(c_uint::MAX)) }
}

pub(crate) unsafe fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> Result {
    let total = total_memory(dev)?;
    // SAFETY: the entry point's contract.
    unsafe { put(bytes, usize::try_from(total).unwrap_or(usize::MAX)) }
}

pub(crate) unsafe fn cuDeviceGetAttribute(
    pi: *mut c_int,
    attrib: CUdevice_attribute,
    dev: CUdevice,
) -> Result {
    let device = device(session()?, dev)?;
    let value =
        device.attributes.get(attrib as usize).copied().flatten().ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pi, value) }
}

pub(crate) unsafe fn cuDeviceGetExecAffinitySupport(
    pi: *mut c_int,
    kind: CUexecAffinityType,
    dev: CUdevice,
) -> Result {
    let device = device(session()?, dev)?;
    if kind != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the entry point's contract.
    unsafe { put(pi, device.exec_affinity.into()) }
}

pub(crate) unsafe fn cuDeviceGetProperties(prop: *mut CUdevprop, dev: CUdevice) -> Result {
    let device = device(session()?, dev)?;
    let of = |attribute| device.attribute(attribute);
    let properties = CUdevprop {
        max_threads_per_block: of(attr::MAX_THREADS_PER_BLOCK),
        max_threads_dim: [of(attr::MAX_BLOCK_DIM_X), of(attr::MAX_BLOCK_DIM_Y), of(attr::MAX_BLOCK_DIM_Z)],
        max_grid_size: [of(attr::MAX_GRID_DIM_X), of(attr::MAX_GRID_DIM_Y), of(attr::MAX_GRID_DIM_Z)],
        shared_mem_per_block: of(attr::MAX_SHARED_MEMORY_PER_BLOCK),
        total_constant_memory: of(attr::TOTAL_CONSTANT_MEMORY),
        simd_width: of(attr::WARP_SIZE),
        mem_pitch: of(attr::MAX_PITCH),
        regs_per_block: of(attr::MAX_REGISTERS_PER_BLOCK),
        clock_rate: of(attr::CLOCK_RATE),
        texture_align: of(attr::TEXTURE_ALIGNMENT),
    };
    // SAFETY: the entry point's contract.
    unsafe { put(prop, properties) }
}

pub(crate) unsafe fn cuDeviceComputeCapability(
    major: *mut c_int,
    minor: *mut c_int,
    dev: CUdevice,
) -> Result {
    let device = device(session()?, dev)?;
    // SAFETY: the entry point's contract.
    unsafe {
        put(major, device.attribute(attr::COMPUTE_CAPABILITY_MAJOR))?;
        put(minor, device.attribute(attr::COMPUTE_CAPABILITY_MINOR))
    }
}

pub(crate) unsafe fn cuDeviceGetPCIBusId(pciBusId: *mut c_char, len: c_int, dev: CUdevice) -> Result {
    let device = device(session()?, dev)?;
    // SAFETY: the entry point's contract.
    unsafe { put_text(pciBusId, len, device.pci_bus_id.as_bytes()) }
}

/// Domain, bus, device and function of `[domain]:[bus]:[device].[function]`, any of the short forms.
fn parse_pci(text: &str) -> Option<(u32, u32, u32)> {
    let (address, function) = text.trim().split_once('.').unwrap_or_else(|| (text.trim(), "0"));
    let hex = |part: &str| u32::from_str_radix(part, 16).ok();
    hex(function)?;
    match address.split(':').collect::<Vec<_>>().as_slice() {
        [domain, bus, device] => Some((hex(domain)?, hex(bus)?, hex(device)?)),
        [bus, device] => Some((0, hex(bus)?, hex(device)?)),
        _ => None,
    }
}

pub(crate) unsafe fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, pciBusId: *const c_char) -> Result {
    let session = session()?;
    if pciBusId.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and a C string by the entry point's contract.
    let text = unsafe { CStr::from_ptr(pciBusId) }.to_string_lossy();
    let wanted = parse_pci(&text).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let found =
        session.snapshot.devices.iter().position(|device| parse_pci(&device.pci_bus_id) == Some(wanted));
    let ordinal =
        found.and_then(|index| CUdevice::try_from(index).ok()).ok_or(CUresult::ERROR_INVALID_DEVICE)?;
    // SAFETY: the entry point's contract.
    unsafe { put(dev, ordinal) }
}

pub(crate) unsafe fn cuDeviceCanAccessPeer(
    canAccessPeer: *mut c_int,
    dev: CUdevice,
    peerDev: CUdevice,
) -> Result {
    let session = session()?;
    let can = device(session, dev)?.peers.get(usize::try_from(peerDev).unwrap_or(usize::MAX)).copied();
    // SAFETY: the entry point's contract.
    unsafe { put(canAccessPeer, can.ok_or(CUresult::ERROR_INVALID_DEVICE)?.into()) }
}

pub(crate) unsafe fn cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice) -> Result {
    let session = session()?;
    let context = primary(session, dev)?;
    session.check()?;
    // SAFETY: the entry point's contract.
    unsafe { put(pctx, CUcontext(context.handle)) }?;
    // AcqRel: whoever finds the count above zero also finds the message queued before its own.
    if context.retained.fetch_add(1, Ordering::AcqRel) == 0 {
        let flags = context.flags.load(Ordering::Relaxed);
        let handle = context.handle;
        post(op::cuDevicePrimaryCtxRetain, |writer| {
            writer.put(handle);
            writer.put(dev);
            writer.put(flags);
        })?;
    }
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxRelease(dev: CUdevice) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuDevicePrimaryCtxRelease_v2(dev) }
}

pub(crate) unsafe fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> Result {
    let session = session()?;
    let context = primary(session, dev)?;
    let before =
        context.retained.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
    match before {
        Err(_) => Err(CUresult::ERROR_INVALID_CONTEXT),
        Ok(1) => super::context::end(session, context, op::cuDevicePrimaryCtxRelease_v2, false),
        Ok(_) => Ok(()),
    }
}

pub(crate) unsafe fn cuDevicePrimaryCtxReset(dev: CUdevice) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuDevicePrimaryCtxReset_v2(dev) }
}

pub(crate) unsafe fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> Result {
    let session = session()?;
    let context = primary(session, dev)?;
    super::context::end(session, context, op::cuDevicePrimaryCtxReset_v2, true)
}

pub(crate) unsafe fn cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuDevicePrimaryCtxSetFlags_v2(dev, flags) }
}

/// All flags of CUDA 13.0: scheduling, map host, local memory, core dumps, synchronised memory operations.
pub(crate) const CONTEXT_FLAGS: c_uint = 0xff;

/// Scheduling flags that a context may have: one of auto, spin, yield, blocking sync.
pub(crate) fn check_flags(flags: c_uint) -> Result {
    let scheduling = matches!(flags & 7, 0 | 1 | 2 | 4);
    if flags & !CONTEXT_FLAGS == 0 && scheduling { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
}

pub(crate) unsafe fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint) -> Result {
    let context = primary(session()?, dev)?;
    check_flags(flags)?;
    // How the host's thread waits is the worker's own affair; the flags are kept to be read back.
    context.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxGetState(
    dev: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> Result {
    let context = primary(session()?, dev)?;
    // SAFETY: the entry point's contract.
    unsafe {
        put(flags, context.flags.load(Ordering::Relaxed))?;
        put(active, (context.retained.load(Ordering::Relaxed) > 0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_have_three_forms() {
        assert_eq!(parse_pci("0000:65:00.0"), Some((0, 0x65, 0)));
        assert_eq!(parse_pci("0001:0a:1f"), Some((1, 10, 31)));
        assert_eq!(parse_pci("65:00.0"), Some((0, 0x65, 0)));
        for text in ["", "x", "1:2:3:4", "0000:zz:00.0"] {
            assert_eq!(parse_pci(text), None, "{text}");
        }
    }

    #[test]
    fn one_way_to_wait_at_a_time() {
        assert!(check_flags(0).is_ok() && check_flags(4 | 8).is_ok());
        assert!(check_flags(3).is_err() && check_flags(0x100).is_err());
    }
}
