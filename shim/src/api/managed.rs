//! Managed memory (design D9): page-locked memory of the arena, which guest and device see at one address.
//!
//! The device reaches it over the bus at every access, so that nothing can ever be stale and no page has to move; the guest is
//! told `CONCURRENT_MANAGED_ACCESS = 0`, and hints about where pages should live are taken and change nothing.

use super::{Result, enter, put, stream_argument};
use crate::allocations::Kind;
use crate::session::{Session, session};
use pxos_protocol::types::{
    CUdevice, CUdeviceptr, CUmem_advise, CUmem_range_attribute, CUmemLocation, CUresult, CUstream,
};
use std::ffi::{c_uint, c_void};

/// `CU_MEM_ATTACH_*`: global, host, single.
fn is_attach_flag(flags: c_uint) -> bool {
    matches!(flags, 1 | 2 | 4)
}

/// `CU_DEVICE_CPU`, the host as a place for pages.
const DEVICE_CPU: CUdevice = -1;

pub(crate) unsafe fn cuMemAllocManaged(dptr: *mut CUdeviceptr, bytesize: usize, flags: c_uint) -> Result {
    let (session, context) = enter()?;
    if dptr.is_null() || bytesize == 0 || !is_attach_flag(flags) || flags == 4 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if session.arena.is_none() {
        crate::log::line(
            crate::log::Level::Warn,
            format_args!(
                "managed memory needs shared memory with the server, which this connection does not have"
            ),
        );
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let address = super::memory::allocate_host(
        session,
        Kind::Managed,
        bytesize,
        flags,
        context.handle,
        context.device,
    )?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(dptr, address.expose_provenance() as u64) }
}

/// A range of managed memory (or of host memory, which these calls accept where the device can reach it).
fn check_range(session: &Session, address: CUdeviceptr, bytes: usize) -> Result {
    let range = session.allocations.find(address).filter(|range| range.kind == Kind::Managed);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if bytes == 0 || bytes as u64 > range.bytes_from(address) {
        Err(CUresult::ERROR_INVALID_VALUE)
    } else {
        Ok(())
    }
}

fn check_device(session: &Session, device: CUdevice) -> Result {
    if device == DEVICE_CPU { Ok(()) } else { super::device::device(session, device).map(|_| ()) }
}

pub(crate) unsafe fn cuMemPrefetchAsync(
    devPtr: CUdeviceptr,
    count: usize,
    dstDevice: CUdevice,
    hStream: CUstream,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    check_device(session, dstDevice)?;
    stream_argument(session, hStream.0).map(|_| ())
}

pub(crate) unsafe fn cuMemAdvise(
    devPtr: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    if !(1..=6).contains(&advice) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    check_device(session, device)
}

pub(crate) unsafe fn cuStreamAttachMemAsync(
    hStream: CUstream,
    dptr: CUdeviceptr,
    length: usize,
    flags: c_uint,
) -> Result {
    let (session, _) = enter()?;
    stream_argument(session, hStream.0)?;
    let range = session.allocations.find(dptr).filter(|range| range.kind == Kind::Managed);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // "length must be zero or the size of the entire allocation" (CUDA driver API, cuStreamAttachMemAsync).
    let whole = range.base == dptr && (length == 0 || length as u64 == range.size);
    if !whole || !is_attach_flag(flags) { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

const READ_MOSTLY: CUmem_range_attribute = 1;
const PREFERRED_LOCATION: CUmem_range_attribute = 2;
const ACCESSED_BY: CUmem_range_attribute = 3;
const LAST_PREFETCH_LOCATION: CUmem_range_attribute = 4;
/// `CU_DEVICE_INVALID`: no place.
const NOWHERE: i32 = -2;

pub(crate) unsafe fn cuMemRangeGetAttribute(
    data: *mut c_void,
    dataSize: usize,
    attribute: CUmem_range_attribute,
    devPtr: CUdeviceptr,
    count: usize,
) -> Result {
    let session = session()?;
    check_range(session, devPtr, count)?;
    let entries = dataSize / 4;
    if data.is_null() || entries == 0 || !dataSize.is_multiple_of(4) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let value = match attribute {
        READ_MOSTLY => 0,
        PREFERRED_LOCATION | ACCESSED_BY | LAST_PREFETCH_LOCATION => NOWHERE,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    for index in 0..entries {
        // SAFETY: `dataSize` bytes, by the entry point's contract.
        unsafe { data.cast::<i32>().add(index).write_unaligned(value) };
    }
    Ok(())
}

/// Where `CUmemLocation` points: invalid, a device, the host, a NUMA node, the current NUMA node.
fn check_location(session: &Session, location: CUmemLocation) -> Result {
    match location.kind {
        1 => super::device::device(session, location.id).map(|_| ()),
        2..=4 => Ok(()),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

pub(crate) unsafe fn cuMemPrefetchAsync_v2(
    devPtr: CUdeviceptr,
    count: usize,
    location: CUmemLocation,
    flags: c_uint,
    hStream: CUstream,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    check_location(session, location)?;
    if flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    stream_argument(session, hStream.0).map(|_| ())
}

pub(crate) unsafe fn cuMemAdvise_v2(
    devPtr: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    location: CUmemLocation,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    if !(1..=6).contains(&advice) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // Read-mostly and its undoing take no location.
    if advice <= 2 { Ok(()) } else { check_location(session, location) }
}
