//! Virtual memory management (CUDA driver API, section of that name). Memory is shared with other processes by file descriptors.

use super::{Answer, driver_fns};
use crate::api::pool::LOCATION_DEVICE as DEVICE;
use crate::device::{context, physical, platform};
use pxos_protocol::types::{
    CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdevice, CUdeviceptr,
    CUmemAccessDesc, CUmemAllocationHandleType, CUmemAllocationProp, CUmemLocation, CUresult,
};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};

driver_fns! {
    /// Reserves addresses.
    ready fn cuMemAddressReserve(address: *mut CUdeviceptr, bytes: usize, alignment: usize, hint: CUdeviceptr, flags: u64) {
        address.required()?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        address.put(physical::reserve(bytes as u64, alignment as u64, hint)?)
    }

    /// Gives reserved addresses back.
    ready fn cuMemAddressFree(address: CUdeviceptr, bytes: usize) {
        physical::free(address, bytes as u64)
    }

    /// Makes physical memory.
    ready fn cuMemCreate(handle: *mut u64, bytes: usize, properties: *const CUmemAllocationProp, flags: u64) {
        handle.required()?;
        let properties = properties.read()?;
        let device = wanted(&properties)?;
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let shareable = properties.requested_handle_types == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        handle.put(physical::create(device, bytes as u64, shareable, properties.compression_type)?)
    }

    /// Gives a handle back; the memory lives as long as it is mapped.
    ready fn cuMemRelease(handle: u64) {
        physical::release(handle)
    }

    /// Maps physical memory at reserved addresses.
    ready fn cuMemMap(address: CUdeviceptr, bytes: usize, offset: usize, handle: u64, flags: u64) {
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        physical::map(address, bytes as u64, offset as u64, handle)
    }

    /// Takes mappings away, after all work of the current context.
    ready fn cuMemUnmap(address: CUdeviceptr, bytes: usize) {
        if let Some(active) = context::top().and_then(|top| top.active()) {
            active.wait();
        }
        physical::unmap(address, bytes as u64)
    }

    /// Sets which devices may access mappings.
    ready fn cuMemSetAccess(address: CUdeviceptr, bytes: usize, wishes: *const CUmemAccessDesc, count: usize) {
        for index in 0..count {
            let wish = wishes.read_at(index)?;
            let device = located(wish.location)?;
            let allowed = match wish.flags {
                READ_WRITE => true,
                NONE => false,
                // Read-only access is given as full access, since kernels here are not checked for it.
                READ => true,
                _ => return Err(CUresult::ERROR_INVALID_VALUE),
            };
            physical::set_access(address, bytes as u64, device, allowed)?;
        }
        Ok(())
    }

    /// Which access there is to a mapping.
    ready fn cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, address: CUdeviceptr) {
        flags.required()?;
        located(location.read()?)?;
        flags.put(if physical::access(address)? { u64::from(READ_WRITE) } else { 0 })
    }

    /// What sizes and addresses must be multiples of.
    ready fn cuMemGetAllocationGranularity(granularity: *mut usize, properties: *const CUmemAllocationProp, option: c_uint) {
        granularity.required()?;
        wanted(&properties.read()?)?;
        if option > 1 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        granularity.put(usize::try_from(physical::GRANULARITY).expect("addresses have 64 bits here"))
    }

    /// What physical memory was made as.
    ready fn cuMemGetAllocationPropertiesFromHandle(properties: *mut CUmemAllocationProp, handle: u64) {
        properties.required()?;
        let physical = physical::find(handle).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        properties.put(CUmemAllocationProp {
            kind: CU_MEM_ALLOCATION_TYPE_PINNED,
            requested_handle_types: if physical.shareable { CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR } else { 0 },
            location: CUmemLocation { kind: DEVICE, id: physical.device },
            win32_handle_meta_data: std::ptr::null_mut(),
            compression_type: physical.compression,
            gpu_direct_rdma_capable: 0,
            usage: 0,
            reserved: [0; 4],
        })
    }

    /// A handle of what is mapped at an address.
    ready fn cuMemRetainAllocationHandle(handle: *mut u64, address: *mut c_void) {
        handle.required()?;
        handle.put(physical::retain(address.address())?)
    }

    /// A descriptor by which another process can have physical memory; it is the caller's to close.
    ready fn cuMemExportToShareableHandle(shareable: *mut c_void, handle: u64, kind: CUmemAllocationHandleType, flags: u64) {
        let shareable = shareable.required()?;
        if kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let file = physical::export(handle)?;
        shareable.cast::<c_int>().put(file.into_raw_fd())
    }

    /// A handle of physical memory that another process has made; the descriptor stays the caller's.
    ready fn cuMemImportFromShareableHandle(handle: *mut u64, shareable: *mut c_void, kind: CUmemAllocationHandleType) {
        handle.required()?;
        if kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let file = descriptor(shareable.address())?;
        let ordinal = context::top().map_or(0, |context| context.device.ordinal);
        handle.put(physical::import(file, ordinal)?)
    }
}

/// A copy of the descriptor whose number the application passes as a pointer.
pub(super) fn descriptor(number: u64) -> Answer<OwnedFd> {
    let number = c_int::try_from(number).ok().filter(|number| *number >= 0);
    let number = number.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: only asked to be copied, which fails for a number that is no descriptor.
    let file = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
    file.map_err(|_| CUresult::ERROR_INVALID_VALUE)
}

/// `CU_MEM_ACCESS_FLAGS_PROT_NONE`.
const NONE: c_uint = 0;
/// `CU_MEM_ACCESS_FLAGS_PROT_READ`.
const READ: c_uint = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: c_uint = 3;

/// The device that memory should be on.
fn wanted(properties: &CUmemAllocationProp) -> Answer<CUdevice> {
    if properties.kind != CU_MEM_ALLOCATION_TYPE_PINNED {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if !matches!(properties.requested_handle_types, 0 | CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    located(properties.location)
}

fn located(location: CUmemLocation) -> Answer<CUdevice> {
    if location.kind != DEVICE {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    Ok(platform()?.device(location.id)?.ordinal)
}
