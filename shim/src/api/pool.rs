//! Stream-ordered allocation and memory pools. Which pool a device allocates from is the guest's own record; the pool itself,
//! and what it holds, is the driver's.

use super::ipc::{descriptor_of, share_of};
use super::{Result, enter, put, stream_argument};
use crate::allocations::Kind;
use crate::call::{Reply, call, garbled, post};
use crate::handles::HandleTable;
use crate::lock;
use crate::log::{Level, line};
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::attribute::MEMORY_POOLS_SUPPORTED;
use pxos_protocol::types::{
    CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdevice, CUdeviceptr,
    CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocation,
    CUmemPool_attribute, CUmemPoolProps, CUmemPoolPtrExportData, CUmemoryPool, CUresult, CUstream,
    HandleKind, location_type,
};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

const RELEASE_THRESHOLD: u32 = 4;
const RESERVED_HIGH: u32 = 6;
const USED_HIGH: u32 = 8;

/// Most entries of an access list.
const MAX_ACCESS: usize = 64;

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    handle: u64,
    /// Ordinal of the device whose memory it holds.
    device: i32,
    /// Made or opened by the application; the others are a device's own.
    made: bool,
    /// Another process's: nothing can be allocated from it.
    imported: bool,
    /// How its allocations may be shared.
    handle_types: u32,
}

/// All pools.
#[derive(Debug)]
pub(crate) struct Pools {
    table: HandleTable<Pool>,
    /// Of each device, the pool it was made with and the one that allocations come from.
    of_device: Mutex<HashMap<i32, (u64, u64)>>,
}

impl Default for Pools {
    fn default() -> Self {
        Self { table: HandleTable::new(HandleKind::MemoryPool), of_device: Mutex::default() }
    }
}

/// Asks for memory; where there is none, again when blocks that were only parked are given back.
pub(super) fn with_parked_freed(session: &'static Session, ask: impl Fn() -> Result<Reply>) -> Result<Reply> {
    match ask() {
        Err(CUresult::ERROR_OUT_OF_MEMORY)
            if super::memory::free_parked(session, crate::thread::current_context())? =>
        {
            ask()
        }
        answer => answer,
    }
}

/// Says why something of memory is refused.
pub(super) fn refuse(what: &str) -> CUresult {
    line(Level::Warn, format_args!("{what}"));
    CUresult::ERROR_NOT_SUPPORTED
}

/// A device's own pool and its current one. The server learns of the former when it is first needed.
fn of_device(session: &'static Session, device: i32) -> Result<(u64, u64)> {
    let supported = super::device::device(session, device)?.attribute(MEMORY_POOLS_SUPPORTED) != 0;
    if !supported {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let mut pools = lock(&session.pools.of_device);
    if let Some(known) = pools.get(&device) {
        return Ok(*known);
    }
    let pool = session.pools.table.mint(|handle| Pool {
        handle,
        device,
        made: false,
        imported: false,
        handle_types: 0,
    })?;
    session.post(op::cuDeviceGetDefaultMemPool, |writer| {
        writer.put(pool.handle);
        writer.put(device);
    })?;
    pools.insert(device, (pool.handle, pool.handle));
    Ok((pool.handle, pool.handle))
}

fn live(session: &Session, pool: CUmemoryPool) -> Result<Arc<Pool>> {
    session.pools.table.get(pool.0).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) unsafe fn cuDeviceGetDefaultMemPool(pool_out: *mut CUmemoryPool, dev: CUdevice) -> Result {
    let (original, _) = of_device(session()?, dev)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pool_out, CUmemoryPool(original)) }
}

pub(crate) unsafe fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> Result {
    let (_, current) = of_device(session()?, dev)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pool, CUmemoryPool(current)) }
}

pub(crate) unsafe fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> Result {
    let session = session()?;
    let (original, _) = of_device(session, dev)?;
    let pool = live(session, pool)?;
    if pool.device != dev || pool.imported {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut pools = lock(&session.pools.of_device);
    pools.insert(dev, (original, pool.handle));
    Ok(())
}

/// The device that a location names, whose pinned memory is meant.
unsafe fn located(location: *const CUmemLocation, kind: CUmemAllocationType) -> Result<CUdevice> {
    // SAFETY: null or a location, by the entry point's contract.
    let location = unsafe { location.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match (location.kind, kind) {
        (location_type::DEVICE, CU_MEM_ALLOCATION_TYPE_PINNED) => Ok(location.id),
        _ => Err(refuse("memory pools of host memory and of managed memory are not carried")),
    }
}

pub(crate) unsafe fn cuMemGetDefaultMemPool(
    pool_out: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { cuDeviceGetDefaultMemPool(pool_out, located(location, kind)?) }
}

pub(crate) unsafe fn cuMemGetMemPool(
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { cuDeviceGetMemPool(pool, located(location, kind)?) }
}

pub(crate) unsafe fn cuMemSetMemPool(
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
    pool: CUmemoryPool,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { cuDeviceSetMemPool(located(location, kind)?, pool) }
}

pub(crate) unsafe fn cuMemPoolCreate(pool: *mut CUmemoryPool, poolProps: *const CUmemPoolProps) -> Result {
    let session = session()?;
    // SAFETY: null or a structure, by the entry point's contract.
    let props = unsafe { poolProps.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if pool.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if props.alloc_type != CU_MEM_ALLOCATION_TYPE_PINNED || props.location.kind != location_type::DEVICE {
        return Err(refuse("memory pools of host memory and of managed memory are not carried"));
    }
    super::device::device(session, props.location.id)?;
    if props.handle_types & !CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR != 0 {
        return Err(refuse("memory is shared between processes by file descriptors only"));
    }
    let made = session.pools.table.mint(|handle| Pool {
        handle,
        device: props.location.id,
        made: true,
        imported: false,
        handle_types: props.handle_types,
    })?;
    let answer = session.call(op::cuMemPoolCreate, |writer| {
        writer.put(made.handle);
        writer.put(props.alloc_type);
        writer.put(props.handle_types);
        write_location(writer, &props.location);
        writer.put(props.max_size as u64);
        writer.put(props.usage);
    });
    if let Err(error) = answer {
        session.pools.table.remove(made.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pool, CUmemoryPool(made.handle)) }
}

/// Writes a location.
pub(super) fn write_location(writer: &mut Writer<'_>, location: &CUmemLocation) {
    writer.put(location.kind);
    writer.put(location.id);
}

pub(crate) unsafe fn cuMemPoolDestroy(pool: CUmemoryPool) -> Result {
    let session = session()?;
    let known = live(session, pool)?;
    if !known.made {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let known = session.pools.table.remove(pool.0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut pools = lock(&session.pools.of_device);
    if let Some((original, current)) = pools.get_mut(&known.device)
        && *current == known.handle
    {
        // "If any … current mempool is destroyed, the default mempool becomes the current one" (cuMemPoolDestroy).
        *current = *original;
    }
    drop(pools);
    session.post(op::cuMemPoolDestroy, |writer| writer.put(known.handle))
}

pub(crate) unsafe fn cuMemPoolTrimTo(pool: CUmemoryPool, minBytesToKeep: usize) -> Result {
    let pool = live(session()?, pool)?;
    post(op::cuMemPoolTrimTo, |writer| {
        writer.put(pool.handle);
        writer.put(minBytesToKeep as u64);
    })
}

pub(crate) unsafe fn cuMemPoolSetAttribute(
    pool: CUmemoryPool,
    attr: CUmemPool_attribute,
    value: *mut c_void,
) -> Result {
    let pool = live(session()?, pool)?;
    if value.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let wanted = match attr {
        // SAFETY: not null, and an `int` for these attributes.
        1..RELEASE_THRESHOLD => u64::from(unsafe { value.cast::<u32>().read() }),
        // SAFETY: not null, and a `cuuint64_t` for the others.
        RELEASE_THRESHOLD | RESERVED_HIGH | USED_HIGH => unsafe { value.cast::<u64>().read() },
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    if matches!(attr, RESERVED_HIGH | USED_HIGH) && wanted != 0 {
        // "High watermark can only be reset to zero."
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    post(op::cuMemPoolSetAttribute, |writer| {
        writer.put(pool.handle);
        writer.put(attr);
        writer.put(wanted);
    })
}

pub(crate) unsafe fn cuMemPoolGetAttribute(
    pool: CUmemoryPool,
    attr: CUmemPool_attribute,
    value: *mut c_void,
) -> Result {
    let pool = live(session()?, pool)?;
    if value.is_null() || !matches!(attr, 1..=USED_HIGH) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(op::cuMemPoolGetAttribute, |writer| {
        writer.put(pool.handle);
        writer.put(attr);
    })?;
    let told: u64 = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null; an `int` for the first three attributes, a `cuuint64_t` for the others.
    unsafe {
        if attr < RELEASE_THRESHOLD {
            put(value.cast(), u32::try_from(told & 0xffff_ffff).unwrap_or(0))
        } else {
            put(value.cast(), told)
        }
    }
}

/// Who may access memory, as the application lists it.
///
/// # Safety
/// `list` has `count` entries.
pub(super) unsafe fn access_list<'a>(
    list: *const CUmemAccessDesc,
    count: usize,
) -> Result<&'a [CUmemAccessDesc]> {
    if list.is_null() || count == 0 || count > MAX_ACCESS {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: by this function's contract.
    let list = unsafe { std::slice::from_raw_parts(list, count) };
    if list.iter().any(|entry| entry.location.kind != location_type::DEVICE) {
        return Err(refuse("access from the host to device memory is not carried"));
    }
    Ok(list)
}

/// Writes such a list.
pub(super) fn write_access(writer: &mut Writer<'_>, list: &[CUmemAccessDesc]) {
    writer.put(list.len() as u64);
    for entry in list {
        write_location(writer, &entry.location);
        writer.put(entry.flags);
    }
}

pub(crate) unsafe fn cuMemPoolSetAccess(
    pool: CUmemoryPool,
    map: *const CUmemAccessDesc,
    count: usize,
) -> Result {
    let pool = live(session()?, pool)?;
    // SAFETY: the entry point's contract.
    let list = unsafe { access_list(map, count)? };
    let answer = call(op::cuMemPoolSetAccess, |writer| {
        writer.put(pool.handle);
        write_access(writer, list);
    });
    answer.map(|_| ())
}

pub(crate) unsafe fn cuMemPoolGetAccess(
    flags: *mut CUmemAccess_flags,
    memPool: CUmemoryPool,
    location: *mut CUmemLocation,
) -> Result {
    let pool = live(session()?, memPool)?;
    // SAFETY: null or a location, by the entry point's contract.
    let location = unsafe { location.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let reply = call(op::cuMemPoolGetAccess, |writer| {
        writer.put(pool.handle);
        write_location(writer, location);
    })?;
    let told: u32 = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(flags, told) }
}

/// Allocates from `pool`, or from the current pool of the stream's device.
unsafe fn allocate(
    dptr: *mut CUdeviceptr,
    bytesize: usize,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
) -> Result {
    let (session, context) = enter()?;
    let stream = stream_argument(session, stream.0)?;
    if dptr.is_null() || bytesize == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let pool = match pool {
        Some(pool) => live(session, pool)?,
        None => {
            let owner = session.streams.get(stream).and_then(|stream| session.contexts.get(stream.context));
            let device = owner.map_or(context.device, |context| context.device);
            live(session, CUmemoryPool(of_device(session, device)?.1))?
        }
    };
    if pool.imported {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = with_parked_freed(session, || {
        session.call(op::cuMemAllocFromPoolAsync, |writer| {
            writer.put(pool.handle);
            writer.put(bytesize as u64);
            writer.put(stream);
        })
    })?;
    let address: u64 = reply.reader().get().map_err(garbled)?;
    insert(session, &pool, address, bytesize as u64);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(dptr, address) }
}

/// Enters an allocation of a pool; it is of a device, not of a context.
fn insert(session: &Session, pool: &Pool, address: u64, bytes: u64) {
    session.allocations.insert_owned(
        Kind::Pool,
        address,
        bytes,
        0,
        pool.device,
        pool.handle_types,
        pool.handle,
    );
}

pub(crate) unsafe fn cuMemAllocAsync(dptr: *mut CUdeviceptr, bytesize: usize, hStream: CUstream) -> Result {
    // SAFETY: the contract is the same.
    unsafe { allocate(dptr, bytesize, None, hStream) }
}

pub(crate) unsafe fn cuMemAllocFromPoolAsync(
    dptr: *mut CUdeviceptr,
    bytesize: usize,
    pool: CUmemoryPool,
    hStream: CUstream,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { allocate(dptr, bytesize, Some(pool), hStream) }
}

pub(crate) unsafe fn cuMemFreeAsync(dptr: CUdeviceptr, hStream: CUstream) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    if dptr == 0 {
        return Ok(());
    }
    // Memory of cuMemAlloc may be freed so, too (CUDA C++ Programming Guide, "Stream ordered memory allocator").
    let removed = session.allocations.remove(dptr, |range| matches!(range.kind, Kind::Pool | Kind::Device));
    removed.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    session.post(op::cuMemFreeAsync, |writer| {
        writer.put(dptr);
        writer.put(stream);
    })
}

pub(crate) unsafe fn cuMemPoolExportToShareableHandle(
    handle_out: *mut c_void,
    pool: CUmemoryPool,
    handleType: CUmemAllocationHandleType,
    flags: u64,
) -> Result {
    let pool = live(session()?, pool)?;
    if handle_out.is_null() || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
        || pool.handle_types & handleType == 0
        || pool.imported
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(op::cuMemPoolExportToShareableHandle, |writer| writer.put(pool.handle))?;
    let share = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and an `int` for this handle type.
    unsafe { put(handle_out.cast(), descriptor_of(share)?) }
}

pub(crate) unsafe fn cuMemPoolImportFromShareableHandle(
    pool_out: *mut CUmemoryPool,
    handle: *mut c_void,
    handleType: CUmemAllocationHandleType,
    flags: u64,
) -> Result {
    let session = session()?;
    if pool_out.is_null() || flags != 0 || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let share = share_of(handle.addr())?;
    let pool = session.pools.table.mint(|handle| Pool {
        handle,
        device: super::current(session).map_or(0, |context| context.device),
        made: true,
        imported: true,
        handle_types: 0,
    })?;
    let answer = session.call(op::cuMemPoolImportFromShareableHandle, |writer| {
        writer.put(pool.handle);
        writer.put(share);
    });
    if let Err(error) = answer {
        session.pools.table.remove(pool.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pool_out, CUmemoryPool(pool.handle)) }
}

pub(crate) unsafe fn cuMemPoolExportPointer(
    shareData_out: *mut CUmemPoolPtrExportData,
    ptr: CUdeviceptr,
) -> Result {
    let session = session()?;
    let range = session.allocations.find(ptr).filter(|range| range.kind == Kind::Pool && range.base == ptr);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if shareData_out.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuMemPoolExportPointer, |writer| {
        writer.put(ptr);
        writer.put(range.size);
    })?;
    let share: [u64; 8] = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and 64 writable bytes by the entry point's contract.
    unsafe { shareData_out.cast::<[u64; 8]>().write_unaligned(share) };
    Ok(())
}

pub(crate) unsafe fn cuMemPoolImportPointer(
    ptr_out: *mut CUdeviceptr,
    pool: CUmemoryPool,
    shareData: *mut CUmemPoolPtrExportData,
) -> Result {
    let session = session()?;
    let pool = live(session, pool)?;
    if ptr_out.is_null() || shareData.is_null() || !pool.imported {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and 64 readable bytes by the entry point's contract.
    let share = unsafe { shareData.cast::<[u64; 8]>().read_unaligned() };
    let reply = session.call(op::cuMemPoolImportPointer, |writer| {
        writer.put(pool.handle);
        writer.put(share);
    })?;
    let mut fields = reply.reader();
    let (address, bytes): (u64, u64) = (fields.get().map_err(garbled)?, fields.get().map_err(garbled)?);
    insert(session, &pool, address, bytes);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(ptr_out, address) }
}
