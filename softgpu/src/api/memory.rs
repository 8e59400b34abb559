//! Device and host memory (CUDA driver API, section "Memory management": allocation and information).
//!
//! A device address is the host address of the same byte: pinned memory needs no second address, and managed memory
//! is device memory that the host may touch.

use super::{Answer, driver_fns};
use crate::device::allocation::{self, Allocation, Origin};
use crate::device::attribute::PITCH;
use crate::device::context::{self, Active, CONTEXTS};
use crate::device::{capture, platform, pool};
use pxos_protocol::types::{CUcontext, CUdevice, CUdeviceptr, CUresult};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Free and total memory of the current context's device.
    ready fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let memory = &context::current()?.device.memory;
        let (capacity, used) = (memory.capacity(), memory.used());
        let size = |bytes: u64| usize::try_from(bytes).expect("addresses have 64 bits here");
        free.put(size(capacity.saturating_sub(used)))?;
        total.put(size(capacity))
    }

    /// Allocates device memory.
    ready fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) {
        let active = context::current()?;
        address.required()?;
        address.put(allocate(&active, bytes as u64, Origin::Device)?)
    }

    /// Allocates rows of device memory, each at a multiple of 512 bytes (measured).
    ready fn cuMemAllocPitch_v2(address: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint) {
        let active = context::current()?;
        let (address, pitch) = (address.required()?, pitch.required()?);
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let row = (width as u64).checked_next_multiple_of(PITCH).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
        let bytes = row.checked_mul(height as u64).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
        address.put(allocate(&active, bytes, Origin::Device)?)?;
        pitch.put(usize::try_from(row).expect("addresses have 64 bits here"))
    }

    /// Allocates memory that host and device see at one address. `CONCURRENT_MANAGED_ACCESS` is 0: the host must
    /// synchronise before it touches what a kernel may use.
    ready fn cuMemAllocManaged(address: *mut CUdeviceptr, bytes: usize, flags: c_uint) {
        let active = context::current()?;
        address.required()?;
        if !matches!(flags, ATTACH_GLOBAL | ATTACH_HOST) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let base = allocate(&active, bytes as u64, Origin::Managed(flags))?;
        share_managed(active.device.ordinal, base, bytes as u64)?;
        address.put(base)
    }

    /// Frees device memory, after all work of its context. Zero is allowed, also without a context (measured).
    ready fn cuMemFree_v2(address: CUdeviceptr) {
        if let Some(active) = context::top().and_then(|top| top.active()) {
            active.fault.check()?;
        }
        if address == 0 {
            return Ok(());
        }
        let held = allocation::starting_at(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        capture::check_unsafe_call()?;
        if held.origin == Origin::Graph {
            // The memory goes with its graph.
            return Ok(());
        }
        if !can_be_freed(&held) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        wait_for_owner(&held);
        if give_back(&held) { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
    }

    /// The range that an address lies in.
    ready fn cuMemGetAddressRange_v2(base: *mut CUdeviceptr, size: *mut usize, address: CUdeviceptr) {
        context::current()?;
        let held = allocation::find(address).ok_or(CUresult::ERROR_NOT_FOUND)?;
        base.put_if_wanted(held.base);
        size.put_if_wanted(usize::try_from(held.bytes).expect("addresses have 64 bits here"));
        Ok(())
    }

    /// Allocates host memory that the device sees too.
    ready fn cuMemAllocHost(address: *mut *mut c_void, bytes: c_uint) {
        let active = context::current()?;
        address.required()?;
        address.put(allocate_host(&active, bytes as usize, 0)?)
    }

    /// Allocates host memory that the device sees too.
    ready fn cuMemAllocHost_v2(address: *mut *mut c_void, bytes: usize) {
        let active = context::current()?;
        address.required()?;
        address.put(allocate_host(&active, bytes, 0)?)
    }

    /// Allocates host memory that the device sees too.
    ready fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint) {
        let active = context::current()?;
        address.required()?;
        if flags & !(PORTABLE | DEVICE_MAP | WRITE_COMBINED) != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        address.put(allocate_host(&active, bytes, flags)?)
    }

    /// Frees host memory, after all work of its context.
    ready fn cuMemFreeHost(address: *mut c_void) {
        let address = address.address();
        if let Some(active) = context::top().and_then(|top| top.active()) {
            active.fault.check()?;
        }
        if address == 0 {
            return Ok(());
        }
        let held = allocation::starting_at(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if !matches!(held.origin, Origin::HostAllocated(_)) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        wait_for_owner(&held);
        if give_back(&held) { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
    }

    /// Where the device sees pinned memory: at the same address.
    ready fn cuMemHostGetDevicePointer_v2(device: *mut CUdeviceptr, host: *mut c_void, flags: c_uint) {
        context::current()?;
        device.required()?;
        let held = allocation::find(host.address()).filter(|held| held.on_host());
        if held.is_none() || flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        device.put(host.address())
    }

    /// The flags that pinned memory was made with; `CU_MEMHOSTALLOC_DEVICEMAP` is always among them (measured).
    ready fn cuMemHostGetFlags(flags: *mut c_uint, host: *mut c_void) {
        context::current()?;
        match allocation::find(host.address()).map(|held| held.origin) {
            Some(Origin::HostAllocated(made) | Origin::HostRegistered(made)) => flags.put(made | DEVICE_MAP),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// Lets the device see host memory of the application.
    ready fn cuMemHostRegister(address: *mut c_void, bytes: usize, flags: c_uint) {
        register(address.address(), bytes as u64, flags)
    }

    /// Lets the device see host memory of the application.
    ready fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, flags: c_uint) {
        register(address.address(), bytes as u64, flags)
    }

    /// Ends a registration, after all work of its context.
    ready fn cuMemHostUnregister(address: *mut c_void) {
        context::current()?;
        let held = allocation::find(address.address()).ok_or(CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED)?;
        if held.base != address.address() || !matches!(held.origin, Origin::HostRegistered(_)) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        wait_for_owner(&held);
        if give_back(&held) { Ok(()) } else { Err(CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED) }
    }
}

/// `CU_MEMHOSTALLOC_PORTABLE`, and that of `cuMemHostRegister`.
const PORTABLE: c_uint = 1;
/// `CU_MEMHOSTALLOC_DEVICEMAP`.
const DEVICE_MAP: c_uint = 2;
/// `CU_MEMHOSTALLOC_WRITECOMBINED`.
const WRITE_COMBINED: c_uint = 4;
/// `CU_MEMHOSTREGISTER_IOMEMORY`.
const IO_MEMORY: c_uint = 4;
/// `CU_MEMHOSTREGISTER_READ_ONLY`.
const READ_ONLY: c_uint = 8;
/// `CU_MEM_ATTACH_GLOBAL`.
const ATTACH_GLOBAL: c_uint = 1;
/// `CU_MEM_ATTACH_HOST`.
const ATTACH_HOST: c_uint = 2;

/// Allocates memory of a context's device.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for no bytes, `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn allocate(active: &Active, bytes: u64, origin: Origin) -> Answer<CUdeviceptr> {
    if bytes == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if matches!(origin, Origin::Device | Origin::Managed(_)) {
        capture::check_unsafe_call()?;
    }
    let memory = &active.device.memory;
    let retry = || {
        // What streams are about to free comes back first.
        active.wait();
        memory.alloc(bytes)
    };
    let base = memory.alloc(bytes).or_else(retry).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    allocation::insert(base, bytes, origin, active.device.ordinal, active.handle, active.life);
    Ok(base)
}

/// Allocates managed memory that belongs to no context.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn allocate_managed(bytes: u64) -> Answer<CUdeviceptr> {
    let device = platform()?.device(0)?;
    let base = device.memory.alloc(bytes).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    allocation::insert(base, bytes, Origin::Managed(ATTACH_GLOBAL), device.ordinal, CUcontext::NULL, 0);
    share_managed(device.ordinal, base, bytes)?;
    Ok(base)
}

/// Lets the other devices see managed memory: to them it is host memory.
fn share_managed(owner: CUdevice, base: u64, bytes: u64) -> Answer {
    for device in platform()?.devices().iter().filter(|device| device.ordinal != owner) {
        device.memory.register_host(base, bytes);
    }
    Ok(())
}

/// Whether `cuMemFree` and `cuMemFreeAsync` take a range.
pub(crate) fn can_be_freed(held: &Allocation) -> bool {
    matches!(
        held.origin,
        Origin::Device | Origin::Pool(_) | Origin::Managed(_) | Origin::Opened { pooled: true }
    )
}

/// Waits for all work of the context that a range was made in: what a free implies (CUDA driver API, `cuMemFree`).
fn wait_for_owner(held: &Allocation) {
    let owner = CONTEXTS.find(held.context).and_then(|context| context.active());
    if let Some(owner) = owner.filter(|owner| owner.life == held.life) {
        owner.wait();
    }
}

/// Frees a range whatever it is; false if another thread was faster.
pub(crate) fn give_back(held: &Arc<Allocation>) -> bool {
    let mine = allocation::remove(held);
    if mine {
        release(held);
    }
    mine
}

/// Gives a range that is no longer in the table back to where it came from.
pub(crate) fn release(held: &Allocation) {
    let Ok(platform) = platform() else { return };
    match held.origin {
        Origin::Device | Origin::Module | Origin::Managed(_) | Origin::Graph => {
            if matches!(held.origin, Origin::Managed(_)) {
                super::managed::forget(held.base, held.bytes);
                for device in platform.devices().iter().filter(|device| device.ordinal != held.device) {
                    device.memory.unregister_host(held.base);
                }
            }
            if let Ok(device) = platform.device(held.device) {
                device.memory.free(held.base);
            }
        }
        Origin::Pool(pool) => pool::reclaim(pool, held),
        Origin::Opened { .. } => crate::device::ipc::forget(held),
        // Goes with `cuMemUnmap` only.
        Origin::Mapped => {}
        Origin::HostAllocated(_) | Origin::HostRegistered(_) => {
            for device in platform.devices() {
                device.memory.unregister_host(held.base);
            }
            if matches!(held.origin, Origin::HostAllocated(_)) {
                unmap(held.base, held.bytes);
            }
        }
    }
}

fn allocate_host(active: &Active, bytes: usize, flags: c_uint) -> Answer<*mut c_void> {
    capture::check_unsafe_call()?;
    if bytes == 0 {
        return Ok(std::ptr::null_mut());
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping, which replaces nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(CUresult::ERROR_OUT_OF_MEMORY);
    }
    let base = at.expose_provenance() as u64;
    announce_host(base, bytes as u64)?;
    allocation::insert(
        base,
        bytes as u64,
        Origin::HostAllocated(flags),
        active.device.ordinal,
        active.handle,
        active.life,
    );
    Ok(at)
}

/// Lets the kernels of every device access a host range: addresses are unified.
fn announce_host(base: u64, bytes: u64) -> Answer {
    for device in platform()?.devices() {
        device.memory.register_host(base, bytes);
    }
    Ok(())
}

fn unmap(base: u64, bytes: u64) {
    let size = |number: u64| usize::try_from(number).expect("addresses have 64 bits here");
    // SAFETY: the mapping was made by `allocate_host`, and its range has just been taken out of the table.
    unsafe {
        libc::munmap(std::ptr::with_exposed_provenance_mut(size(base)), size(bytes));
    }
}

fn register(base: u64, bytes: u64, flags: c_uint) -> Answer {
    let active = context::current()?;
    if base == 0 || bytes == 0 || base.checked_add(bytes).is_none() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if flags & !(PORTABLE | DEVICE_MAP | IO_MEMORY | READ_ONLY) != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if flags & IO_MEMORY != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    if allocation::overlaps(base, bytes) {
        return Err(CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    if !is_mapped(base, bytes) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    announce_host(base, bytes)?;
    let origin = Origin::HostRegistered(flags);
    allocation::insert(base, bytes, origin, active.device.ordinal, active.handle, active.life);
    Ok(())
}

/// Whether the whole range is mapped in this process, so that a kernel that uses it does not end the process.
fn is_mapped(base: u64, bytes: u64) -> bool {
    let page = 4096;
    let start = base / page * page;
    let Some(length) = (base + bytes).checked_next_multiple_of(page).map(|end| end - start) else {
        return false;
    };
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else { return false };
    let mut resident = vec![0u8; (1 << 16).min(length / 4096)];
    let portion = resident.len() * 4096;
    (0..length).step_by(portion).all(|offset| {
        let part = portion.min(length - offset);
        let at = std::ptr::without_provenance_mut(start + offset);
        // SAFETY: the vector has a byte for each page of the part; the call only looks at the page tables.
        unsafe { libc::mincore(at, part, resident.as_mut_ptr()) == 0 }
    })
}
