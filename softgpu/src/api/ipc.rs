//! Sharing between processes by handles that fit into a message (CUDA driver API, section "Memory management": `cuIpc…`, and
//! pools). This device gives none out, so that every handle it is given is wrong.

use super::driver_fns;
use crate::device::allocation;
use crate::device::context;
use crate::device::event::EVENTS;
use crate::device::pool::POOLS;
use pxos_protocol::types::{
    CUdeviceptr, CUevent, CUipcEventHandle, CUipcMemHandle, CUmemAllocationHandleType,
    CUmemPoolPtrExportData, CUmemoryPool, CUresult,
};
use std::ffi::{c_uint, c_void};

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;

driver_fns! {
    /// A handle of an allocation.
    ready fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, address: CUdeviceptr) {
        context::current()?;
        handle.required()?;
        allocation::find(address).ok_or(INVALID)?;
        Err(CUresult::ERROR_NOT_SUPPORTED)
    }

    /// The allocation of a handle.
    ready fn cuIpcOpenMemHandle(address: *mut CUdeviceptr, _handle: CUipcMemHandle, _flags: c_uint) {
        context::current()?;
        address.required()?;
        Err(INVALID)
    }

    /// The allocation of a handle.
    ready fn cuIpcOpenMemHandle_v2(address: *mut CUdeviceptr, _handle: CUipcMemHandle, _flags: c_uint) {
        context::current()?;
        address.required()?;
        Err(INVALID)
    }

    /// Gives an opened allocation back.
    ready fn cuIpcCloseMemHandle(_address: CUdeviceptr) {
        context::current()?;
        Err(INVALID)
    }

    /// A handle of an event, which must have been made for it: none can be.
    ready fn cuIpcGetEventHandle(handle: *mut CUipcEventHandle, event: CUevent) {
        handle.required()?;
        EVENTS.get(event)?;
        Err(INVALID)
    }

    /// The event of a handle.
    ready fn cuIpcOpenEventHandle(event: *mut CUevent, _handle: CUipcEventHandle) {
        context::current()?;
        event.required()?;
        Err(INVALID)
    }

    /// A descriptor of a pool, which must have been made for it: none can be.
    ready fn cuMemPoolExportToShareableHandle(
        handle: *mut c_void,
        pool: CUmemoryPool,
        _kind: CUmemAllocationHandleType,
        _flags: u64,
    ) {
        handle.required()?;
        POOLS.get(pool)?;
        Err(INVALID)
    }

    /// The pool of a descriptor.
    ready fn cuMemPoolImportFromShareableHandle(
        pool: *mut CUmemoryPool,
        _handle: *mut c_void,
        _kind: CUmemAllocationHandleType,
        _flags: u64,
    ) {
        pool.required()?;
        Err(INVALID)
    }

    /// What another process needs to find an allocation of a shared pool.
    ready fn cuMemPoolExportPointer(data: *mut CUmemPoolPtrExportData, address: CUdeviceptr) {
        data.required()?;
        allocation::find(address).ok_or(INVALID)?;
        Err(INVALID)
    }

    /// An allocation of another process's pool.
    ready fn cuMemPoolImportPointer(address: *mut CUdeviceptr, _pool: CUmemoryPool, data: *mut CUmemPoolPtrExportData) {
        address.required()?;
        data.required()?;
        Err(INVALID)
    }
}
