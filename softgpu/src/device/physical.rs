//! Virtual memory management: addresses reserved, physical memory made, and the one mapped to the other (CUDA driver API,
//! section "Virtual memory management").
//!
//! Physical memory is an anonymous file, so that it can be mapped at several addresses. A mapping is known to the table of
//! allocations like any other range; neighbouring ones count as one for copies.

use super::allocation::{self, Origin};
use super::memory::share::anonymous_file;
use super::{Device, platform};
use pxos_protocol::types::{CUcontext, CUdevice, CUresult};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// What addresses and physical memory are given out in: that of an H200.
pub(crate) const GRANULARITY: u64 = 2 << 20;

/// Physical memory of a device; freed with the last handle and mapping.
#[derive(Debug)]
pub(crate) struct Physical {
    file: OwnedFd,
    bytes: u64,
    /// The device that it belongs to.
    pub(crate) device: CUdevice,
    /// Whether other processes may have it.
    pub(crate) shareable: bool,
    /// The compression that was asked for (`CU_MEM_ALLOCATION_COMP_GENERIC`): a wish that changes no result.
    pub(crate) compression: u8,
}

impl Drop for Physical {
    fn drop(&mut self) {
        if let Ok(device) = platform().and_then(|platform| platform.device(self.device)) {
            device.memory.release_physical(self.bytes);
        }
    }
}

#[derive(Debug)]
struct Reservation {
    bytes: u64,
    /// The device out of whose range of addresses it is.
    device: CUdevice,
}

#[derive(Debug)]
struct Mapping {
    bytes: u64,
    handle: u64,
    physical: Arc<Physical>,
}

#[derive(Debug, Default)]
struct State {
    reservations: BTreeMap<u64, Reservation>,
    mappings: BTreeMap<u64, Mapping>,
    /// Physical memory by handle, with how often the handle was given out.
    handles: HashMap<u64, (Arc<Physical>, u32)>,
    last_handle: u64,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;

fn device(ordinal: CUdevice) -> Result<&'static Arc<Device>, CUresult> {
    platform()?.device(ordinal)
}

/// Reserves addresses.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for sizes that are no multiple of the granularity, `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn reserve(bytes: u64, alignment: u64, hint: u64) -> Result<u64, CUresult> {
    let alignment = alignment.max(GRANULARITY);
    if bytes == 0 || !bytes.is_multiple_of(GRANULARITY) || !alignment.is_power_of_two() {
        return Err(INVALID);
    }
    let home = device(0)?;
    let base = home.memory.reserve(bytes, alignment, hint).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    state().reservations.insert(base, Reservation { bytes, device: home.ordinal });
    Ok(base)
}

/// Gives addresses back, on which nothing is mapped.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`.
pub(crate) fn free(base: u64, bytes: u64) -> Result<(), CUresult> {
    let mut state = state();
    let reserved = state.reservations.get(&base).filter(|reserved| reserved.bytes == bytes).ok_or(INVALID)?;
    let home = device(reserved.device)?;
    let end = base + bytes;
    if state.mappings.range(..end).next_back().is_some_and(|(at, mapping)| at + mapping.bytes > base) {
        return Err(INVALID);
    }
    state.reservations.remove(&base);
    home.memory.release(base);
    Ok(())
}

/// Makes physical memory of a device.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for sizes that are no multiple of the granularity, `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn create(
    ordinal: CUdevice,
    bytes: u64,
    shareable: bool,
    compression: u8,
) -> Result<u64, CUresult> {
    if bytes == 0 || !bytes.is_multiple_of(GRANULARITY) {
        return Err(INVALID);
    }
    let file = anonymous_file(bytes).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
    enter(file, ordinal, bytes, shareable, compression)
}

/// Counts physical memory and gives it a handle.
fn enter(
    file: OwnedFd,
    ordinal: CUdevice,
    bytes: u64,
    shareable: bool,
    compression: u8,
) -> Result<u64, CUresult> {
    if !device(ordinal)?.memory.charge_physical(bytes) {
        return Err(CUresult::ERROR_OUT_OF_MEMORY);
    }
    let physical = Arc::new(Physical { file, bytes, device: ordinal, shareable, compression });
    let mut state = state();
    state.last_handle += 1;
    let handle = state.last_handle;
    state.handles.insert(handle, (physical, 1));
    Ok(handle)
}

/// A descriptor by which another process can have the memory of a handle.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for memory that was not made for it, `CUDA_ERROR_OPERATING_SYSTEM`.
pub(crate) fn export(handle: u64) -> Result<OwnedFd, CUresult> {
    let physical = find(handle).filter(|physical| physical.shareable).ok_or(INVALID)?;
    physical.file.try_clone().map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
}

/// A handle of another process's memory, which its descriptor stands for.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for any other descriptor, `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn import(file: OwnedFd, ordinal: CUdevice) -> Result<u64, CUresult> {
    let bytes =
        std::fs::File::from(file.try_clone().map_err(|_| INVALID)?).metadata().map_err(|_| INVALID)?.len();
    if bytes == 0 || !bytes.is_multiple_of(GRANULARITY) {
        return Err(INVALID);
    }
    enter(file, ordinal, bytes, true, 0)
}

/// Gives one use of a handle back.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`.
pub(crate) fn release(handle: u64) -> Result<(), CUresult> {
    let mut state = state();
    let (_, uses) = state.handles.get_mut(&handle).ok_or(INVALID)?;
    *uses -= 1;
    if *uses == 0 {
        state.handles.remove(&handle);
    }
    Ok(())
}

/// The physical memory of a handle.
pub(crate) fn find(handle: u64) -> Option<Arc<Physical>> {
    state().handles.get(&handle).map(|(physical, _)| Arc::clone(physical))
}

/// A handle of what is mapped at an address; one more use of it.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where nothing is mapped.
pub(crate) fn retain(address: u64) -> Result<u64, CUresult> {
    let mut state = state();
    let (at, mapping) = state.mappings.range(..=address).next_back().ok_or(INVALID)?;
    if address - at >= mapping.bytes {
        return Err(INVALID);
    }
    let (handle, physical) = (mapping.handle, Arc::clone(&mapping.physical));
    state.handles.entry(handle).or_insert((physical, 0)).1 += 1;
    Ok(handle)
}

/// Maps physical memory at reserved addresses; nobody may access it yet.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for addresses that are not reserved or taken and for a part that the memory does not have.
pub(crate) fn map(base: u64, bytes: u64, offset: u64, handle: u64) -> Result<(), CUresult> {
    let mut state = state();
    let physical = state.handles.get(&handle).map(|(physical, _)| Arc::clone(physical)).ok_or(INVALID)?;
    let fits = offset.checked_add(bytes).is_some_and(|end| end <= physical.bytes);
    if !fits || bytes == 0 || !(base | bytes | offset).is_multiple_of(GRANULARITY) {
        return Err(INVALID);
    }
    let home = state.home(base, bytes)?;
    let taken =
        state.mappings.range(..base + bytes).next_back().is_some_and(|(at, has)| at + has.bytes > base);
    if taken {
        return Err(INVALID);
    }
    let file = physical.file.as_raw_fd();
    home.memory.map_file(base, bytes, file, offset).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
    let held = allocation::insert(base, bytes, Origin::Mapped, physical.device, CUcontext::NULL, 0);
    held.accessible.store(false, Ordering::Relaxed);
    state.mappings.insert(base, Mapping { bytes, handle, physical });
    Ok(())
}

impl State {
    /// The device out of whose range of addresses a reserved range is.
    fn home(&self, base: u64, bytes: u64) -> Result<&'static Arc<Device>, CUresult> {
        let (at, reserved) = self.reservations.range(..=base).next_back().ok_or(INVALID)?;
        let inside = base.checked_add(bytes).is_some_and(|end| end <= at + reserved.bytes);
        if inside { device(reserved.device) } else { Err(INVALID) }
    }

    /// The mappings that a range consists of.
    fn whole(&self, base: u64, bytes: u64) -> Result<Vec<(u64, u64)>, CUresult> {
        let end = base.checked_add(bytes).ok_or(INVALID)?;
        let found: Vec<(u64, u64)> =
            self.mappings.range(base..end).map(|(at, has)| (*at, has.bytes)).collect();
        let mut next = base;
        for (at, length) in &found {
            if *at != next {
                return Err(INVALID);
            }
            next = at + length;
        }
        if next == end && bytes > 0 { Ok(found) } else { Err(INVALID) }
    }
}

/// Takes whole mappings away. The caller has waited for the work that uses them.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for anything but whole mappings.
pub(crate) fn unmap(base: u64, bytes: u64) -> Result<(), CUresult> {
    let mut state = state();
    for (at, length) in state.whole(base, bytes)? {
        let home = state.home(at, length)?;
        if let Some(held) = allocation::starting_at(at) {
            allocation::remove(&held);
        }
        for other in platform()?.devices() {
            other.memory.unregister_host(at);
        }
        home.memory.unmap(at, length);
        state.mappings.remove(&at);
    }
    Ok(())
}

/// Sets whether a device may access whole mappings.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for anything but whole mappings, `CUDA_ERROR_INVALID_DEVICE`.
pub(crate) fn set_access(base: u64, bytes: u64, ordinal: CUdevice, allowed: bool) -> Result<(), CUresult> {
    let state = state();
    let wanted = device(ordinal)?;
    for (at, length) in state.whole(base, bytes)? {
        let home = state.home(at, length)?;
        if home.ordinal == ordinal {
            home.memory.set_access(at, length, allowed);
        } else if allowed {
            // To another device the addresses are like host memory; a second time changes nothing.
            wanted.memory.register_host(at, length);
        } else {
            wanted.memory.unregister_host(at);
        }
        if let Some(held) = allocation::starting_at(at) {
            held.accessible.store(allowed, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Whether what is mapped at an address may be accessed.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where nothing is mapped.
pub(crate) fn access(address: u64) -> Result<bool, CUresult> {
    let held = allocation::find(address).filter(|held| held.origin == Origin::Mapped).ok_or(INVALID)?;
    Ok(held.accessible.load(Ordering::Relaxed))
}
