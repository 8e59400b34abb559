//! Managed memory: advice and prefetching (CUDA driver API, sections "Unified addressing" and "Memory management").
//!
//! Host and device share their pages here, so that nothing moves; what was advised is kept and told.

use super::{Answer, DefaultStream, Out, driver_fns};
use crate::device::allocation::{self, Origin};
use crate::device::{context, platform};
use pxos_protocol::advice::{Advice, HOST};
use pxos_protocol::types::{
    CUdevice, CUdeviceptr, CUmem_advise, CUmem_range_attribute, CUmemLocation, CUresult, CUstream, mem_advise,
};
use std::ffi::{c_uint, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

driver_fns! {
    /// Advises about the use of a range.
    ready fn cuMemAdvise(address: CUdeviceptr, bytes: usize, advice: CUmem_advise, dev: CUdevice) {
        context::current()?;
        check_range(address, bytes)?;
        if advice > mem_advise::UNSET_READ_MOSTLY {
            check_place(dev)?;
        }
        self::advice().advise(address, bytes as u64, advice, dev)
    }

    /// Advises about the use of a range.
    ready fn cuMemAdvise_v2(address: CUdeviceptr, bytes: usize, advice: CUmem_advise, location: CUmemLocation) {
        context::current()?;
        check_range(address, bytes)?;
        let place = if advice <= mem_advise::UNSET_READ_MOSTLY { HOST } else { place(location)? };
        self::advice().advise(address, bytes as u64, advice, place)
    }

    /// What holds for every page of a range.
    ready fn cuMemRangeGetAttribute(
        data: *mut c_void,
        room: usize,
        attribute: CUmem_range_attribute,
        address: CUdeviceptr,
        bytes: usize,
    ) {
        check_range(address, bytes)?;
        tell(data, room, attribute, address, bytes)
    }

    /// What holds for every page of a range, several attributes at once.
    ready fn cuMemRangeGetAttributes(
        data: *mut *mut c_void,
        rooms: *mut usize,
        attributes: *mut CUmem_range_attribute,
        count: usize,
        address: CUdeviceptr,
        bytes: usize,
    ) {
        check_range(address, bytes)?;
        if data.is_null() || rooms.is_null() || attributes.is_null() || count == 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        for index in 0..count {
            let (to, room) = (data.read_at(index)?, rooms.read_at(index)?);
            tell(Out::from_api(to), room, attributes.read_at(index)?, address, bytes)?;
        }
        Ok(())
    }

    /// Asks for a range at a device, or at the host.
    ready fn cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz(
        address: CUdeviceptr,
        bytes: usize,
        dev: CUdevice,
        stream: CUstream,
    ) |default| {
        context::current()?.stream(stream, default)?;
        check_range(address, bytes)?;
        check_place(dev)?;
        advice().prefetch(address, bytes as u64, dev);
        Ok(())
    }

    /// Asks for a range at a place.
    ready fn cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz(
        address: CUdeviceptr,
        bytes: usize,
        location: CUmemLocation,
        flags: c_uint,
        stream: CUstream,
    ) |default| {
        context::current()?.stream(stream, default)?;
        check_range(address, bytes)?;
        let place = place(location)?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        advice().prefetch(address, bytes as u64, place);
        Ok(())
    }

    /// Asks for ranges at places.
    ready fn cuMemPrefetchBatchAsync / cuMemPrefetchBatchAsync_ptsz(
        addresses: *mut CUdeviceptr,
        sizes: *mut usize,
        count: usize,
        locations: *mut CUmemLocation,
        starts: *mut usize,
        number: usize,
        flags: u64,
        stream: CUstream,
    ) |default| {
        batch((addresses, sizes, count), Some((locations, starts, number)), flags, (stream, default))
    }

    /// Says that the contents of ranges are not needed. They are kept.
    ready fn cuMemDiscardBatchAsync / cuMemDiscardBatchAsync_ptsz(
        addresses: *mut CUdeviceptr,
        sizes: *mut usize,
        count: usize,
        flags: u64,
        stream: CUstream,
    ) |default| {
        batch((addresses, sizes, count), None, flags, (stream, default))
    }

    /// Both at once.
    ready fn cuMemDiscardAndPrefetchBatchAsync / cuMemDiscardAndPrefetchBatchAsync_ptsz(
        addresses: *mut CUdeviceptr,
        sizes: *mut usize,
        count: usize,
        locations: *mut CUmemLocation,
        starts: *mut usize,
        number: usize,
        flags: u64,
        stream: CUstream,
    ) |default| {
        batch((addresses, sizes, count), Some((locations, starts, number)), flags, (stream, default))
    }
}

static ADVICE: LazyLock<Mutex<Advice>> = LazyLock::new(Mutex::default);

fn advice() -> MutexGuard<'static, Advice> {
    ADVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range of managed memory is freed.
pub(crate) fn forget(base: u64, bytes: u64) {
    advice().forget(base, bytes);
}

fn check_range(address: u64, bytes: usize) -> Answer {
    let held = allocation::find(address).filter(|held| matches!(held.origin, Origin::Managed(_)));
    let fits = held.is_some_and(|held| bytes > 0 && held.holds(address, bytes as u64));
    if fits { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
}

fn check_place(dev: CUdevice) -> Answer {
    if dev == HOST { Ok(()) } else { platform()?.device(dev).map(|_| ()) }
}

/// The device that a location is, or the host, whose NUMA nodes are one here.
fn place(location: CUmemLocation) -> Answer<CUdevice> {
    match location.kind {
        1 => platform()?.device(location.id).map(|device| device.ordinal),
        2..=4 => Ok(HOST),
        _ => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

fn tell(data: Out<c_void>, room: usize, attribute: u32, address: u64, bytes: usize) -> Answer {
    if data.is_null() || room == 0 || !room.is_multiple_of(4) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut values = vec![0i32; room / 4];
    advice().tell(address, bytes as u64, attribute, &mut values)?;
    values.into_iter().enumerate().try_for_each(|(index, value)| data.cast::<i32>().put_at(index, value))
}

/// Ranges, and the places where they are wanted: each holds from its index up to the next one's.
fn batch(
    ranges: (Out<CUdeviceptr>, Out<usize>, usize),
    locations: Option<(Out<CUmemLocation>, Out<usize>, usize)>,
    flags: u64,
    stream: (CUstream, DefaultStream),
) -> Answer {
    context::current()?.stream(stream.0, stream.1)?;
    let (addresses, sizes, count) = ranges;
    let invalid = Err(CUresult::ERROR_INVALID_VALUE);
    if flags != 0 || count == 0 {
        return invalid;
    }
    let mut places: Vec<(usize, CUdevice)> = Vec::new();
    if let Some((given, starts, number)) = locations {
        if number == 0 || number > count {
            return invalid;
        }
        for index in 0..number {
            let (location, start) = (given.read_at(index)?, starts.read_at(index)?);
            let rises = places.last().map_or(start == 0, |(last, _)| start > *last);
            if !rises || start >= count {
                return invalid;
            }
            places.push((start, place(location)?));
        }
    }
    let mut checked = Vec::new();
    for index in 0..count {
        let (address, bytes) = (addresses.read_at(index)?, sizes.read_at(index)?);
        check_range(address, bytes)?;
        checked.push((address, bytes as u64));
    }
    let mut advice = advice();
    for (index, (address, bytes)) in checked.into_iter().enumerate() {
        if let Some(at) = places.partition_point(|(start, _)| *start <= index).checked_sub(1) {
            advice.prefetch(address, bytes, places[at].1);
        }
    }
    Ok(())
}
