//! Unified addressing: what a pointer is, answered from the guest's own table.

use super::{Result, put};
use crate::allocations::{Allocation, Kind};
use crate::session::{Session, session};
use pxos_protocol::types::{CUdeviceptr, CUpointer_attribute, CUresult};
use std::ffi::{c_uint, c_void};

const CONTEXT: u32 = 1;
const MEMORY_TYPE: u32 = 2;
const DEVICE_POINTER: u32 = 3;
const HOST_POINTER: u32 = 4;
const SYNC_MEMOPS: u32 = 6;
const BUFFER_ID: u32 = 7;
const IS_MANAGED: u32 = 8;
const DEVICE_ORDINAL: u32 = 9;
const IS_LEGACY_CUDA_IPC_CAPABLE: u32 = 10;
const RANGE_START_ADDR: u32 = 11;
const RANGE_SIZE: u32 = 12;
const MAPPED: u32 = 13;
const ALLOWED_HANDLE_TYPES: u32 = 14;
const IS_GPU_DIRECT_RDMA_CAPABLE: u32 = 15;
const ACCESS_FLAGS: u32 = 16;
const MEMPOOL_HANDLE: u32 = 17;
const MAPPING_SIZE: u32 = 18;
const MAPPING_BASE_ADDR: u32 = 19;
const MEMORY_BLOCK_ID: u32 = 20;
const IS_HW_DECOMPRESS_CAPABLE: u32 = 21;

const MEMORYTYPE_HOST: u32 = 1;
const MEMORYTYPE_DEVICE: u32 = 2;

pub(crate) unsafe fn cuMemGetAddressRange_v2(
    pbase: *mut CUdeviceptr,
    psize: *mut usize,
    dptr: CUdeviceptr,
) -> Result {
    let range = session()?.allocations.find(dptr).filter(|range| range.kind != Kind::Registered);
    let range = range.ok_or(CUresult::ERROR_NOT_FOUND)?;
    if !pbase.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { pbase.write(range.base) };
    }
    if !psize.is_null() {
        // SAFETY: as above.
        unsafe { psize.write(usize::try_from(range.size).unwrap_or(usize::MAX)) };
    }
    Ok(())
}

/// Writes one attribute of a known pointer.
///
/// # Safety
/// `data` has room for the attribute's type.
unsafe fn write_attribute(data: *mut c_void, attribute: u32, address: u64, range: &Allocation) -> Result {
    let managed = range.is_managed();
    let host = range.is_host();
    // SAFETY: by this function's contract; `put` refuses null.
    unsafe {
        match attribute {
            CONTEXT => put(data.cast(), range.context),
            MEMORY_TYPE => {
                put(data.cast(), if host && !managed { MEMORYTYPE_HOST } else { MEMORYTYPE_DEVICE })
            }
            // Over a socket host memory has no device address; its own stands for it.
            DEVICE_POINTER => put(data.cast(), range.shared_address(address).unwrap_or(address)),
            HOST_POINTER if host || managed => put(data.cast(), address),
            HOST_POINTER => Err(CUresult::ERROR_INVALID_VALUE),
            SYNC_MEMOPS => put(data.cast(), 0_u32),
            IS_MANAGED => put(data.cast(), u32::from(managed)),
            IS_LEGACY_CUDA_IPC_CAPABLE => put(data.cast(), u32::from(range.kind == Kind::Device)),
            BUFFER_ID | MEMORY_BLOCK_ID => put(data.cast(), range.id),
            DEVICE_ORDINAL => put(data.cast(), range.device),
            RANGE_START_ADDR | MAPPING_BASE_ADDR => put(data.cast(), range.base),
            RANGE_SIZE | MAPPING_SIZE => put(data.cast(), range.size),
            MAPPED => put(data.cast(), 1_u32),
            ALLOWED_HANDLE_TYPES if matches!(range.kind, Kind::Pool | Kind::Mapped) => {
                put(data.cast(), u64::from(range.flags))
            }
            MEMPOOL_HANDLE if range.kind == Kind::Pool => put(data.cast(), range.owner),
            ALLOWED_HANDLE_TYPES | MEMPOOL_HANDLE => put(data.cast(), 0_u64),
            IS_GPU_DIRECT_RDMA_CAPABLE | IS_HW_DECOMPRESS_CAPABLE => put(data.cast(), 0_u32),
            // CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE
            ACCESS_FLAGS => put(data.cast(), 3_u32),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
}

fn find(session: &Session, address: u64) -> Option<Allocation> {
    session.allocations.find(address)
}

pub(crate) unsafe fn cuPointerGetAttribute(
    data: *mut c_void,
    attribute: CUpointer_attribute,
    ptr: CUdeviceptr,
) -> Result {
    let range = find(session()?, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { write_attribute(data, attribute, ptr, &range) }
}

pub(crate) unsafe fn cuPointerGetAttributes(
    numAttributes: c_uint,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    ptr: CUdeviceptr,
) -> Result {
    let session = session()?;
    if attributes.is_null() || data.is_null() || numAttributes == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let range = find(session, ptr);
    for index in 0..numAttributes as usize {
        // SAFETY: both arrays have `numAttributes` entries, by the entry point's contract.
        let (attribute, to) = unsafe { (attributes.add(index).read(), data.add(index).read()) };
        // SAFETY: the entry point's contract.
        let known = range.map_or(Err(CUresult::ERROR_INVALID_VALUE), |range| unsafe {
            write_attribute(to, attribute, ptr, &range)
        });
        if known.is_ok() || to.is_null() {
            continue;
        }
        // "CUDA_SUCCESS even if the pointer is unknown": each attribute then has its null value, the ordinal -2
        // (CUDA driver API, cuPointerGetAttributes; ordinal measured).
        // SAFETY: room for the attribute's type, by the entry point's contract.
        unsafe {
            match attribute {
                DEVICE_ORDINAL => to.cast::<i32>().write(-2),
                CONTEXT | DEVICE_POINTER | BUFFER_ID | RANGE_START_ADDR | RANGE_SIZE | MEMPOOL_HANDLE
                | ALLOWED_HANDLE_TYPES | MAPPING_SIZE | MAPPING_BASE_ADDR | MEMORY_BLOCK_ID => {
                    to.cast::<u64>().write(0);
                }
                HOST_POINTER => to.cast::<u64>().write(if range.is_some() { 0 } else { ptr }),
                MEMORY_TYPE | SYNC_MEMOPS | MAPPED | ACCESS_FLAGS | IS_HW_DECOMPRESS_CAPABLE => {
                    to.cast::<u32>().write(0);
                }
                IS_MANAGED | IS_LEGACY_CUDA_IPC_CAPABLE | IS_GPU_DIRECT_RDMA_CAPABLE => {
                    to.cast::<u8>().write(0);
                }
                _ => return Err(CUresult::ERROR_INVALID_VALUE),
            }
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuPointerSetAttribute(
    value: *const c_void,
    attribute: CUpointer_attribute,
    ptr: CUdeviceptr,
) -> Result {
    let session = session()?;
    find(session, ptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if attribute != SYNC_MEMOPS || value.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and an `unsigned int` for this attribute.
    let wanted = unsafe { value.cast::<u32>().read() };
    crate::call::post(pxos_protocol::api::op::cuPointerSetAttribute, |writer| {
        writer.put(wanted);
        writer.put(attribute);
        writer.put(ptr);
    })
}
