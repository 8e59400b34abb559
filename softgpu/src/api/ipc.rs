//! Sharing between processes by handles that fit into a message (CUDA driver API, section "Memory management": `cuIpc…`, and
//! pools). What is behind them is in [`crate::device::ipc`].

use super::argument::Out;
use super::{Answer, driver_fns, memory, virtual_memory};
use crate::device::allocation::{self, Origin};
use crate::device::context;
use crate::device::event::{self, EVENTS};
use crate::device::ipc::{self, Share};
use crate::device::pool::{POOLS, Pool, Sharing};
use pxos_protocol::types::{
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdeviceptr, CUevent, CUipcEventHandle, CUipcMemHandle,
    CUmemAllocationHandleType, CUmemPoolPtrExportData, CUmemoryPool, CUresult,
};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;
/// Bytes of what processes share of an event.
const EVENT_BYTES: u64 = 4096;
/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`.
const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;

driver_fns! {
    /// A handle of an allocation.
    ready fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, address: CUdeviceptr) {
        context::current()?;
        handle.required()?;
        let held = allocation::find(address).filter(|held| held.origin == Origin::Device).ok_or(INVALID)?;
        handle.put(CUipcMemHandle { reserved: ipc::share(&held, ipc::MEMORY)?.bytes() })
    }

    /// The allocation of a handle.
    ready fn cuIpcOpenMemHandle(address: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) {
        open(address, &handle, flags)
    }

    /// The allocation of a handle.
    ready fn cuIpcOpenMemHandle_v2(address: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint) {
        open(address, &handle, flags)
    }

    /// Gives an opened allocation back.
    ready fn cuIpcCloseMemHandle(address: CUdeviceptr) {
        let active = context::current()?;
        if !ipc::close(address)? {
            return Ok(());
        }
        active.wait();
        let held = allocation::starting_at(address).ok_or(INVALID)?;
        if memory::give_back(&held) { Ok(()) } else { Err(INVALID) }
    }

    /// A handle of an event, which must have been made for it.
    ready fn cuIpcGetEventHandle(handle: *mut CUipcEventHandle, event: CUevent) {
        handle.required()?;
        let event = EVENTS.get(event)?;
        let share = Share::of(ipc::EVENT, event.file().ok_or(INVALID)?, 0, EVENT_BYTES)?;
        handle.put(CUipcEventHandle { reserved: share.bytes() })
    }

    /// The event of a handle.
    ready fn cuIpcOpenEventHandle(event: *mut CUevent, handle: CUipcEventHandle) {
        let active = context::current()?;
        event.required()?;
        let file = Share::read(&handle.reserved, ipc::EVENT)?.open()?;
        event.put(event::open(&active, file)?)
    }

    /// A descriptor of a pool, which must have been made for it; it is the caller's to close.
    ready fn cuMemPoolExportToShareableHandle(
        handle: *mut c_void,
        pool: CUmemoryPool,
        kind: CUmemAllocationHandleType,
        flags: u64,
    ) {
        let handle = handle.required()?;
        let pool = POOLS.get(pool).map_err(|_| INVALID)?;
        let shareable = matches!(pool.sharing, Sharing::Shareable);
        if !shareable || kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0 {
            return Err(INVALID);
        }
        handle.cast::<c_int>().put(ipc::file_of(pool.device)?.into_raw_fd())
    }

    /// The pool of a descriptor.
    ready fn cuMemPoolImportFromShareableHandle(
        pool: *mut CUmemoryPool,
        handle: *mut c_void,
        kind: CUmemAllocationHandleType,
        flags: u64,
    ) {
        pool.required()?;
        if kind != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0 {
            return Err(INVALID);
        }
        let file = virtual_memory::descriptor(handle.address())?;
        let ordinal = context::top().map_or(0, |context| context.device.ordinal);
        pool.put(Pool::create(ordinal, 0, Sharing::Imported(file))?)
    }

    /// What another process needs to find an allocation of a shared pool.
    ready fn cuMemPoolExportPointer(data: *mut CUmemPoolPtrExportData, address: CUdeviceptr) {
        data.required()?;
        let held = allocation::starting_at(address).ok_or(INVALID)?;
        let Origin::Pool(pool) = held.origin else { return Err(INVALID) };
        let shareable = |pool: &Arc<Pool>| matches!(pool.sharing, Sharing::Shareable);
        POOLS.find(pool).filter(shareable).ok_or(INVALID)?;
        data.put(CUmemPoolPtrExportData { reserved: ipc::share(&held, ipc::POINTER)?.bytes() })
    }

    /// An allocation of another process's pool.
    ready fn cuMemPoolImportPointer(address: *mut CUdeviceptr, pool: CUmemoryPool, data: *mut CUmemPoolPtrExportData) {
        let active = context::current()?;
        address.required()?;
        let data = data.required()?.read()?;
        let pool = POOLS.get(pool).map_err(|_| INVALID)?;
        let Sharing::Imported(file) = &pool.sharing else { return Err(INVALID) };
        address.put(ipc::open_pointer(&active, file, &data.reserved)?)
    }
}

fn open(address: Out<CUdeviceptr>, handle: &CUipcMemHandle, flags: c_uint) -> Answer {
    let active = context::current()?;
    address.required()?;
    if flags & !LAZY_ENABLE_PEER_ACCESS != 0 {
        return Err(INVALID);
    }
    address.put(ipc::open(&active, &handle.reserved)?)
}
