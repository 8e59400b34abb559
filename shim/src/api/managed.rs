//! Managed memory (design D9): page-locked memory of the arena, which guest and device see at one address.
//!
//! The device reaches it over the bus at every access, so that nothing can ever be stale and no page has to move; while kernels
//! make system-scope atomics it may have it to itself ([`crate::exclusive`]). The guest is told `CONCURRENT_MANAGED_ACCESS = 0`.
//! Hints about where pages should live are kept, told again and change nothing.

use super::{Result, enter, put, stream_argument};
use crate::allocations::{Allocation, Kind};
use crate::session::{Session, session};
use crate::{exclusive, lock};
use pxos_protocol::advice::{self, Advice};
use pxos_protocol::types::{
    CUdevice, CUdeviceptr, CUmem_advise, CUmem_range_attribute, CUmemLocation, CUresult, CUstream, mem_advise,
};
use std::ffi::{c_uint, c_void};
use std::sync::MutexGuard;

/// `CU_MEM_ATTACH_*`: global, host, single.
fn is_attach_flag(flags: c_uint) -> bool {
    matches!(flags, 1 | 2 | 4)
}

/// `CU_DEVICE_CPU`, the host as a place for pages.
const DEVICE_CPU: CUdevice = advice::HOST;

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
    exclusive::add(address.expose_provenance() as u64, bytesize as u64);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(dptr, address.expose_provenance() as u64) }
}

/// A range of managed memory (or of host memory, which these calls accept where the device can reach it).
fn check_range(session: &Session, address: CUdeviceptr, bytes: usize) -> Result {
    let range = session.allocations.find(address).filter(Allocation::is_managed);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if bytes == 0 || bytes as u64 > range.bytes_from(address) {
        Err(CUresult::ERROR_INVALID_VALUE)
    } else {
        Ok(())
    }
}

/// What the application has advised.
fn advice(session: &Session) -> MutexGuard<'_, Advice> {
    lock(&session.advice)
}

/// A range of managed memory is freed.
pub(super) fn forget(session: &Session, base: u64, bytes: u64) {
    advice(session).forget(base, bytes);
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
    stream_argument(session, hStream.0)?;
    advice(session).prefetch(devPtr, count as u64, dstDevice);
    Ok(())
}

pub(crate) unsafe fn cuMemAdvise(
    devPtr: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    // Read-mostly and its undoing take no device.
    if advice > mem_advise::UNSET_READ_MOSTLY {
        check_device(session, device)?;
    }
    self::advice(session).advise(devPtr, count as u64, advice, device)
}

pub(crate) unsafe fn cuStreamAttachMemAsync(
    hStream: CUstream,
    dptr: CUdeviceptr,
    length: usize,
    flags: c_uint,
) -> Result {
    let (session, _) = enter()?;
    stream_argument(session, hStream.0)?;
    let range = session.allocations.find(dptr).filter(Allocation::is_managed);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // "length must be zero or the size of the entire allocation" (CUDA driver API, cuStreamAttachMemAsync).
    let whole = range.base == dptr && (length == 0 || length as u64 == range.size);
    if !whole || !is_attach_flag(flags) { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

pub(crate) unsafe fn cuMemRangeGetAttribute(
    data: *mut c_void,
    dataSize: usize,
    attribute: CUmem_range_attribute,
    devPtr: CUdeviceptr,
    count: usize,
) -> Result {
    let session = session()?;
    check_range(session, devPtr, count)?;
    if data.is_null() || dataSize == 0 || !dataSize.is_multiple_of(4) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut values = vec![0i32; dataSize / 4];
    advice(session).tell(devPtr, count as u64, attribute, &mut values)?;
    // SAFETY: `dataSize` bytes, by the entry point's contract.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), data.cast::<u8>(), dataSize) };
    Ok(())
}

pub(crate) unsafe fn cuMemRangeGetAttributes(
    data: *mut *mut c_void,
    dataSizes: *mut usize,
    attributes: *mut CUmem_range_attribute,
    numAttributes: usize,
    devPtr: CUdeviceptr,
    count: usize,
) -> Result {
    if data.is_null() || dataSizes.is_null() || attributes.is_null() || numAttributes == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    for index in 0..numAttributes {
        // SAFETY: arrays of that many entries, by the entry point's contract.
        unsafe {
            let (to, room) = (data.add(index).read(), dataSizes.add(index).read());
            cuMemRangeGetAttribute(to, room, attributes.add(index).read(), devPtr, count)?;
        }
    }
    Ok(())
}

/// Where `CUmemLocation` points: invalid, a device, the host, a NUMA node, the current NUMA node.
fn check_location(session: &Session, location: CUmemLocation) -> Result<CUdevice> {
    match location.kind {
        1 => super::device::device(session, location.id).map(|_| location.id),
        2..=4 => Ok(DEVICE_CPU),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

/// Ranges of managed memory, and for each, where it is wanted if that is said: a location holds from its index up to the
/// next location's (CUDA driver API, cuMemPrefetchBatchAsync).
///
/// # Safety
/// The arrays have as many entries as the counts say.
unsafe fn batch(
    ranges: (*mut CUdeviceptr, *mut usize, usize),
    locations: Option<(*mut CUmemLocation, *mut usize, usize)>,
    flags: u64,
    stream: CUstream,
) -> Result {
    let (session, _) = enter()?;
    let (addresses, sizes, count) = ranges;
    let invalid = Err(CUresult::ERROR_INVALID_VALUE);
    if flags != 0 || count == 0 || addresses.is_null() || sizes.is_null() {
        return invalid;
    }
    let mut places = Vec::new();
    if let Some((given, starts, number)) = locations {
        if given.is_null() || starts.is_null() || number == 0 || number > count {
            return invalid;
        }
        for index in 0..number {
            // SAFETY: by this function's contract.
            let (location, start) = unsafe { (given.add(index).read(), starts.add(index).read()) };
            let rises = places.last().map_or(start == 0, |(last, _)| start > *last);
            if !rises || start >= count {
                return invalid;
            }
            places.push((start, check_location(session, location)?));
        }
    }
    stream_argument(session, stream.0)?;
    let mut checked = Vec::new();
    for index in 0..count {
        // SAFETY: by this function's contract.
        let (address, bytes) = unsafe { (addresses.add(index).read(), sizes.add(index).read()) };
        check_range(session, address, bytes)?;
        checked.push((address, bytes as u64));
    }
    let mut advice = advice(session);
    for (index, (address, bytes)) in checked.into_iter().enumerate() {
        let place = places.partition_point(|(start, _)| *start <= index).checked_sub(1);
        if let Some(place) = place {
            advice.prefetch(address, bytes, places[place].1);
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemPrefetchBatchAsync(
    dptrs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    prefetchLocs: *mut CUmemLocation,
    prefetchLocIdxs: *mut usize,
    numPrefetchLocs: usize,
    flags: u64,
    hStream: CUstream,
) -> Result {
    let places = (prefetchLocs, prefetchLocIdxs, numPrefetchLocs);
    // SAFETY: the entry point's contract.
    unsafe { batch((dptrs, sizes, count), Some(places), flags, hStream) }
}

/// What is discarded may be kept: reading it gives "undefined" values either way.
pub(crate) unsafe fn cuMemDiscardBatchAsync(
    dptrs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    flags: u64,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { batch((dptrs, sizes, count), None, flags, hStream) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemDiscardAndPrefetchBatchAsync(
    dptrs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    prefetchLocs: *mut CUmemLocation,
    prefetchLocIdxs: *mut usize,
    numPrefetchLocs: usize,
    flags: u64,
    hStream: CUstream,
) -> Result {
    let places = (prefetchLocs, prefetchLocIdxs, numPrefetchLocs);
    // SAFETY: the entry point's contract.
    unsafe { batch((dptrs, sizes, count), Some(places), flags, hStream) }
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
    let place = check_location(session, location)?;
    if flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    stream_argument(session, hStream.0)?;
    advice(session).prefetch(devPtr, count as u64, place);
    Ok(())
}

pub(crate) unsafe fn cuMemAdvise_v2(
    devPtr: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    location: CUmemLocation,
) -> Result {
    let (session, _) = enter()?;
    check_range(session, devPtr, count)?;
    // Read-mostly and its undoing take no location.
    let place =
        if advice <= mem_advise::UNSET_READ_MOSTLY { DEVICE_CPU } else { check_location(session, location)? };
    self::advice(session).advise(devPtr, count as u64, advice, place)
}
