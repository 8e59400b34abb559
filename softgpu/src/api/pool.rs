//! The stream-ordered memory allocator (CUDA driver API, section "Stream ordered memory allocator").

use super::{Answer, DefaultStream, driver_fns, graph, memory};
use crate::device::allocation::{self, Origin};
use crate::device::context::stream_anywhere;
use crate::device::graph::Body;
use crate::device::platform;
use crate::device::pool::{POOLS, Pool, Sharing};
use pxos_protocol::types::{
    CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdevice, CUdeviceptr,
    CUmemAccessDesc, CUmemLocation, CUmemPoolProps, CUmemoryPool, CUresult, CUstream,
};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Allocates from the device's current pool, in a stream.
    ready fn cuMemAllocAsync / cuMemAllocAsync_ptsz(address: *mut CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        address.required()?;
        if stream.captured().is_some() {
            return address.put(graph::capture_allocation(&active, &stream, bytes as u64)?);
        }
        let pool = POOLS.get(active.device.current_pool())?;
        address.put(pool.allocate(&active, bytes as u64)?)
    }

    /// Allocates from a pool, in a stream.
    ready fn cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz(address: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream) |default| {
        let (active, stream) = stream_anywhere(stream, default)?;
        address.required()?;
        if stream.captured().is_some() {
            return address.put(graph::capture_allocation(&active, &stream, bytes as u64)?);
        }
        let pool = POOLS.get(pool).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        address.put(pool.allocate(&active, bytes as u64)?)
    }

    /// Frees memory once the work before it is done.
    ready fn cuMemFreeAsync / cuMemFreeAsync_ptsz(address: CUdeviceptr, stream: CUstream) |default| {
        free(address, stream, default)
    }

    /// The pool that a device was made with.
    ready fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, dev: CUdevice) {
        let original = platform()?.device(dev)?.original_pool();
        pool.put(original)
    }

    /// The pool that a device's allocations come from.
    ready fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) {
        let current = platform()?.device(dev)?.current_pool();
        pool.put(current)
    }

    /// Changes it.
    ready fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) {
        let device = platform()?.device(dev)?;
        let pool = live(pool)?;
        if pool.device != device.ordinal {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        device.set_current_pool(pool.handle);
        Ok(())
    }

    /// The pool that a device was made with, by its location.
    ready fn cuMemGetDefaultMemPool(pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: c_uint) {
        let device = located(location.read()?, kind)?;
        pool.put(device.original_pool())
    }

    /// The pool that a device's allocations come from, by its location.
    ready fn cuMemGetMemPool(pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: c_uint) {
        let device = located(location.read()?, kind)?;
        pool.put(device.current_pool())
    }

    /// Changes it.
    ready fn cuMemSetMemPool(location: *mut CUmemLocation, kind: c_uint, pool: CUmemoryPool) {
        let device = located(location.read()?, kind)?;
        device.set_current_pool(live(pool)?.handle);
        Ok(())
    }

    /// Gives back reserved memory that is not in use, down to a size.
    ready fn cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize) {
        live(pool)?.trim(keep as u64);
        Ok(())
    }

    /// Sets an attribute of a pool. The counts of the most there was can only be set back to zero (measured).
    ready fn cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: c_uint, value: *mut c_void) {
        let pool = live(pool)?;
        let value = value.required()?;
        let mut account = pool.account();
        match attribute {
            1..=3 => account.reuse[attribute as usize - 1] = value.cast::<u32>().read()?,
            RELEASE_THRESHOLD => account.threshold = value.cast::<u64>().read()?,
            RESERVED_HIGH if value.cast::<u64>().read()? == 0 => account.reserved_high = account.reserved,
            USED_HIGH if value.cast::<u64>().read()? == 0 => account.used_high = account.used,
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
        Ok(())
    }

    /// An attribute of a pool.
    ready fn cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: c_uint, value: *mut c_void) {
        let account = *live(pool)?.account();
        let value = value.required()?;
        match attribute {
            1..=3 => value.cast::<u32>().put(account.reuse[attribute as usize - 1]),
            RELEASE_THRESHOLD => value.cast::<u64>().put(account.threshold),
            RESERVED => value.cast::<u64>().put(account.reserved),
            RESERVED_HIGH => value.cast::<u64>().put(account.reserved_high),
            USED => value.cast::<u64>().put(account.used),
            USED_HIGH => value.cast::<u64>().put(account.used_high),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// Sets which devices reach a pool's memory: its own always does, others cannot.
    ready fn cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize) {
        let pool = live(pool)?;
        for index in 0..count {
            let wish = map.read_at(index)?;
            let own = wish.location.kind == LOCATION_DEVICE && wish.location.id == pool.device;
            if !own || wish.flags != READ_WRITE {
                return Err(CUresult::ERROR_INVALID_DEVICE);
            }
        }
        Ok(())
    }

    /// Which access a device has to a pool's memory.
    ready fn cuMemPoolGetAccess(flags: *mut c_uint, pool: CUmemoryPool, location: *mut CUmemLocation) {
        let (pool, location) = (live(pool)?, location.read()?);
        let own = location.kind == LOCATION_DEVICE && location.id == pool.device;
        flags.put(if own { READ_WRITE } else { 0 })
    }

    /// Makes a pool on a device.
    ready fn cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) {
        let (pool, wish) = (pool.required()?, properties.read()?);
        if wish.alloc_type != CU_MEM_ALLOCATION_TYPE_PINNED || wish.location.kind != LOCATION_DEVICE {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if !matches!(wish.handle_types, 0 | CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let device = platform()?.device(wish.location.id)?;
        let sharing = if wish.handle_types == 0 { Sharing::Private } else { Sharing::Shareable };
        pool.put(Pool::create(device.ordinal, wish.max_size as u64, sharing)?)
    }

    /// Ends a pool's handle; its allocations live on. The pool that a device was made with stays (measured).
    ready fn cuMemPoolDestroy(pool: CUmemoryPool) {
        let pool = live(pool)?;
        let device = platform()?.device(pool.device)?;
        if device.original_pool() == pool.handle {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if device.current_pool() == pool.handle {
            device.set_current_pool(device.original_pool());
        }
        POOLS.remove(pool.handle).map(drop).ok_or(CUresult::ERROR_INVALID_VALUE)
    }
}

const RELEASE_THRESHOLD: c_uint = 4;
const RESERVED: c_uint = 5;
const RESERVED_HIGH: c_uint = 6;
const USED: c_uint = 7;
const USED_HIGH: c_uint = 8;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
pub(crate) const LOCATION_DEVICE: c_uint = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: c_uint = 3;

fn live(pool: CUmemoryPool) -> Answer<Arc<Pool>> {
    POOLS.get(pool).map_err(|_| CUresult::ERROR_INVALID_VALUE)
}

fn located(location: CUmemLocation, kind: c_uint) -> Answer<&'static Arc<crate::device::Device>> {
    if location.kind != LOCATION_DEVICE || kind != CU_MEM_ALLOCATION_TYPE_PINNED {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    platform()?.device(location.id)
}

/// Frees memory in its turn in a stream. To the API the range is gone at once, so that a second free is refused.
fn free(address: u64, stream: CUstream, default: DefaultStream) -> Answer {
    let (active, stream) = stream_anywhere(stream, default)?;
    if address == 0 {
        return Ok(());
    }
    if active.capture_as(&stream, || Body::Free(address))?.is_some() {
        return Ok(());
    }
    let held = allocation::starting_at(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if held.origin == Origin::Graph {
        // The memory goes with its graph.
        return Ok(());
    }
    if !memory::can_be_freed(&held) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if !allocation::remove(&held) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if stream.is_idle() {
        memory::release(&held);
        return Ok(());
    }
    let work = move |_| {
        memory::release(&held);
        Ok(())
    };
    active.submit(&stream, Vec::new(), Box::new(work));
    Ok(())
}
