//! Stream-ordered allocation and memory pools (CUDA driver API, section "Stream Ordered Memory Allocator").
//!
//! A pool counts against the session's limit by what it has *reserved* (design D11): freed memory that a pool keeps is memory
//! that nobody else can have. A pool grows inside the driver, so an allocation reserves what it will need at most before the
//! driver is asked, and the count is corrected by what the pool says afterwards.

use super::super::dispatch::{Answer, Call, done};
use super::super::exchange::{Exchange, Kind, Record, Share};
use super::super::ledger::growth;
use super::super::session::Session;
use super::super::state::State;
use super::super::tables::Table;
use super::graph::memory::{capture_allocation, is_captured_free};
use crate::driver::{Driver, Result};
use crate::quota::Kind as QuotaKind;
use pxos_protocol::types::{
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUmemAccessDesc, CUmemLocation, CUmemPoolProps,
    CUmemPoolPtrExportData, CUresult, HandleKind, location_type,
};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const RELEASE_THRESHOLD: u32 = 4;
const RESERVED: u32 = 5;
const RESERVED_HIGH: u32 = 6;
const USED: u32 = 7;
const USED_HIGH: u32 = 8;

/// Most devices in one access list: no machine has more.
pub(super) const MAX_ACCESS: u64 = 64;

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

/// A pool.
#[derive(Debug)]
struct Pool {
    native: u64,
    /// Bytes of it that stand in the session's count.
    counted: u64,
    /// Made by the guest, and so to be destroyed by it; the others are a device's own.
    made: bool,
    /// Another process's, opened here.
    imported: bool,
    shares: Vec<Share>,
}

/// One allocation.
#[derive(Debug, Clone, Copy)]
struct Allocation {
    /// The guest's handle of the pool.
    pool: u64,
    /// How long it is.
    bytes: u64,
    /// Whether it counts by itself: one of another process's pool.
    imported: bool,
}

/// All pools of a session.
#[derive(Debug)]
pub(crate) struct Pools {
    table: Table<Pool>,
    allocations: HashMap<u64, Allocation>,
    /// Pools that the guest has destroyed while some of their memory was in use, or was still to be freed in a stream: the
    /// driver's handle and what stands in the count. They are destroyed when they are empty, so that the driver can say when
    /// that is.
    leaving: Vec<(u64, u64)>,
    /// Bytes that are free once the event has happened, and what they count as.
    pending: Vec<(u64, QuotaKind, u64)>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            table: Table::new(HandleKind::MemoryPool),
            allocations: HashMap::new(),
            leaving: Vec::new(),
            pending: Vec::new(),
        }
    }
}

/// A 64-bit attribute of a pool.
fn size_of_pool(driver: &Driver, native: u64, attribute: u32) -> Result<u64> {
    let mut value = 0_u64;
    // SAFETY: a pool of this session's; a pointer to a local of the attribute's type.
    unsafe { driver.cuMemPoolGetAttribute(native, attribute, (&raw mut value).cast())? };
    Ok(value)
}

/// Corrects one entry of the session's count.
fn correct(session: &Session, counted: &mut u64, now: u64) {
    if now > *counted {
        session.ledger.add(QuotaKind::Pool, now - *counted);
    } else {
        session.ledger.release(QuotaKind::Pool, *counted - now);
    }
    *counted = now;
}

impl Pools {
    /// Brings the count up to date: pools give memory back by themselves when the guest synchronises.
    pub(crate) fn recount(&mut self, session: &Session) {
        let driver = &session.driver;
        self.table.for_each_mut(|pool| {
            if let (false, Ok(now)) = (pool.imported, size_of_pool(driver, pool.native, RESERVED)) {
                correct(session, &mut pool.counted, now);
            }
        });
        self.leaving.retain_mut(|(native, counted)| {
            // SAFETY: a pool of this session's.
            let _ = unsafe { driver.cuMemPoolTrimTo(*native, 0) };
            let Ok(now) = size_of_pool(driver, *native, RESERVED) else { return true };
            correct(session, counted, now);
            if now == 0 {
                // SAFETY: a pool of this session's that nobody names any more.
                let _ = unsafe { driver.cuMemPoolDestroy(*native) };
            }
            now > 0
        });
        self.pending.retain(|(event, kind, bytes)| {
            // SAFETY: an event of ours.
            if unsafe { driver.cuEventQuery(*event) } == Err(CUresult::ERROR_NOT_READY) {
                return true;
            }
            // SAFETY: an event of ours, used no more.
            let _ = unsafe { driver.cuEventDestroy_v2(*event) };
            session.ledger.release(*kind, *bytes);
            false
        });
    }

    /// Has every pool give back what is not in use.
    pub(crate) fn trim(&mut self, session: &Session) {
        self.table.for_each_mut(|pool| {
            if !pool.imported {
                // SAFETY: a pool of this session's.
                let _ = unsafe { session.driver.cuMemPoolTrimTo(pool.native, 0) };
            }
        });
        self.recount(session);
    }

    /// Forgets an allocation that the guest frees; `None` where it is none of a pool.
    pub(super) fn forget(&mut self, session: &Session, address: u64, stream: Option<u64>) -> Option<()> {
        let allocation = self.allocations.remove(&address)?;
        if allocation.imported {
            self.give_back(session, QuotaKind::Imported, allocation.bytes, stream);
        }
        Some(())
    }

    /// Gives `bytes` back to the limit, once the work that is in `stream` now is done.
    fn give_back(&mut self, session: &Session, kind: QuotaKind, bytes: u64, stream: Option<u64>) {
        let Some(stream) = stream else {
            session.ledger.release(kind, bytes);
            return;
        };
        let mut event = 0;
        // SAFETY: a pointer to a local; a stream of this session's.
        let recorded = unsafe {
            let driver = &session.driver;
            driver
                .cuEventCreate(&raw mut event, DISABLE_TIMING)
                .and_then(|()| driver.cuEventRecord(event, stream))
        };
        // Where that fails, the bytes count until the session ends: late is better than early.
        if recorded.is_ok() {
            self.pending.push((event, kind, bytes));
        }
    }
}

/// A device's own pool: handle, device.
pub(in super::super) fn of_device(call: &mut Call<'_>) -> Answer {
    let (handle, device): (u64, i32) = (call.get()?, call.get()?);
    call.state.pools.table.check(handle)?;
    let mut native = 0;
    // SAFETY: a pointer to a local.
    unsafe { call.driver().cuDeviceGetDefaultMemPool(&raw mut native, device)? };
    file(call, handle, Pool { native, counted: 0, made: false, imported: false, shares: Vec::new() })
}

fn file(call: &mut Call<'_>, handle: u64, pool: Pool) -> Answer {
    call.state.pools.table.insert(handle, pool)?;
    done()
}

/// `cuMemPoolCreate`: handle, allocation type, handle types, location, most bytes, usage.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let handle: u64 = call.get()?;
    let (alloc_type, handle_types): (u32, u32) = (call.get()?, call.get()?);
    let location = location(call)?;
    let max_size = call.get_usize()?;
    let usage: u16 = call.get()?;
    call.state.pools.table.check(handle)?;
    if location.kind != location_type::DEVICE {
        return Err(CUresult::ERROR_NOT_SUPPORTED.into());
    }
    let props = CUmemPoolProps {
        alloc_type,
        handle_types: handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        location,
        win32_security_attributes: std::ptr::null_mut(),
        max_size,
        usage,
        reserved: [0; 54],
    };
    let mut native = 0;
    // SAFETY: pointers to locals.
    unsafe { call.driver().cuMemPoolCreate(&raw mut native, &raw const props)? };
    file(call, handle, Pool { native, counted: 0, made: true, imported: false, shares: Vec::new() })
}

/// The next fields, a location.
pub(super) fn location(
    call: &mut Call<'_>,
) -> std::result::Result<CUmemLocation, super::super::dispatch::Failed> {
    Ok(CUmemLocation { kind: call.get()?, id: call.get()? })
}

/// The next fields, a list of who may access memory.
pub(super) fn access(
    call: &mut Call<'_>,
) -> std::result::Result<Vec<CUmemAccessDesc>, super::super::dispatch::Failed> {
    let count: u64 = call.get()?;
    if count > MAX_ACCESS {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    (0..count).map(|_| Ok(CUmemAccessDesc { location: location(call)?, flags: call.get()? })).collect()
}

/// `cuMemPoolDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let pool = call.state.pools.table.get(handle)?;
    if !pool.made {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let pool = call.state.pools.table.remove(handle)?;
    let session = call.session;
    pool.shares.iter().for_each(|share| session.exchange.withdraw(share));
    let driver = call.driver();
    if pool.imported {
        // SAFETY: a pool of this session's, taken out of the table.
        unsafe { driver.cuMemPoolDestroy(pool.native)? };
        return done();
    }
    // What is in use stays until it is freed, and nothing is kept then (CUDA driver API, cuMemPoolDestroy).
    let mut nothing = 0_u64;
    // SAFETY: a pool of this session's; a pointer to a local of the attribute's type.
    let _ =
        unsafe { driver.cuMemPoolSetAttribute(pool.native, RELEASE_THRESHOLD, (&raw mut nothing).cast()) };
    let State { pools, .. } = call.state;
    pools.leaving.push((pool.native, pool.counted));
    pools.recount(session);
    done()
}

/// `cuMemPoolTrimTo`: handle, bytes to keep.
pub(in super::super) fn trim(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let keep = call.get_usize()?;
    let native = call.state.pools.table.get(handle)?.native;
    // SAFETY: a pool of this session's.
    unsafe { call.driver().cuMemPoolTrimTo(native, keep)? };
    let State { pools, .. } = call.state;
    pools.recount(call.session);
    done()
}

/// `cuMemPoolSetAttribute`: handle, attribute, value.
pub(in super::super) fn set_attribute(call: &mut Call<'_>) -> Answer {
    let (handle, attribute, mut value): (u64, u32, u64) = (call.get()?, call.get()?, call.get()?);
    let native = call.state.pools.table.get(handle)?.native;
    if !matches!(attribute, 1..=RELEASE_THRESHOLD | RESERVED_HIGH | USED_HIGH) {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: a pool of this session's; eight bytes, of which an `int` takes the lower four.
    unsafe { call.driver().cuMemPoolSetAttribute(native, attribute, (&raw mut value).cast())? };
    done()
}

/// `cuMemPoolGetAttribute`: handle, attribute; the value comes back.
pub(in super::super) fn attribute(call: &mut Call<'_>) -> Answer {
    let (handle, attribute): (u64, u32) = (call.get()?, call.get()?);
    let native = call.state.pools.table.get(handle)?.native;
    if !matches!(attribute, 1..=USED_HIGH) {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let value = size_of_pool(call.driver(), native, attribute)?;
    call.reply().put(value);
    done()
}

/// `cuMemPoolSetAccess`: handle, list.
pub(in super::super) fn set_access(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let list = access(call)?;
    let native = call.state.pools.table.get(handle)?.native;
    // SAFETY: a pool of this session's; a list of that length.
    unsafe { call.driver().cuMemPoolSetAccess(native, list.as_ptr(), list.len())? };
    done()
}

/// `cuMemPoolGetAccess`: handle, location; the flags come back.
pub(in super::super) fn get_access(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let mut location = location(call)?;
    let native = call.state.pools.table.get(handle)?.native;
    let mut flags = 0_u32;
    // SAFETY: a pool of this session's; pointers to locals.
    unsafe { call.driver().cuMemPoolGetAccess(&raw mut flags, native, &raw mut location)? };
    call.reply().put(flags);
    done()
}

/// `cuMemAllocFromPoolAsync`: pool, bytes, stream; the address comes back.
pub(in super::super) fn allocate(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let bytes = call.get_usize()?;
    let stream = call.get_stream()?;
    let session = call.session;
    let driver = call.driver();
    let native = call.state.pools.table.get(handle)?.native;
    let allocate = |session: &Session| {
        let mut address = 0;
        // SAFETY: a pool and a stream of this session's; a pointer to a local.
        unsafe { session.driver.cuMemAllocFromPoolAsync(&raw mut address, bytes, native, stream)? };
        Ok(address)
    };
    if let Some(address) = capture_allocation(call, stream, bytes as u64, allocate)? {
        call.reply().put(address);
        return done();
    }
    let (used, reserved) = (size_of_pool(driver, native, USED)?, size_of_pool(driver, native, RESERVED)?);
    let expected = growth(used, reserved, bytes as u64)?;
    call.state.reserve(session, QuotaKind::Pool, expected)?;
    let made = allocate(session);
    let State { pools, .. } = call.state;
    let pool = pools.table.get_mut(handle)?;
    // What was reserved is in the count already.
    let mut held = pool.counted.saturating_add(expected);
    pool.counted = size_of_pool(driver, native, RESERVED).unwrap_or(reserved);
    correct(session, &mut held, pool.counted);
    let address = made?;
    if session.ledger.is_over() {
        // The pool grew by more than was asked for: it grows in steps of its own.
        // SAFETY: what was just allocated, in the same stream.
        let _ = unsafe { driver.cuMemFreeAsync(address, stream) };
        // Not awaited: the stream may be waiting for a host function of the guest's. Until then it counts as used.
        pools.trim(session);
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    pools.allocations.insert(address, Allocation { pool: handle, bytes: bytes as u64, imported: false });
    call.reply().put(address);
    done()
}

/// `cuMemFreeAsync`: address, stream. Memory of `cuMemAlloc` may be freed so, too (CUDA C++ Programming Guide, "Stream ordered
/// memory allocator").
pub(in super::super) fn free(call: &mut Call<'_>) -> Answer {
    let address = call.get()?;
    let stream = call.get_stream()?;
    let session = call.session;
    if is_captured_free(call, stream, address)? {
        // SAFETY: an allocation of the graph that this stream of the session's is captured into.
        unsafe { session.driver.cuMemFreeAsync(address, stream)? };
        return done();
    }
    let State { pools, allocations, .. } = call.state;
    let plain = if pools.allocations.contains_key(&address) {
        None
    } else {
        Some(allocations.remove(&address).ok_or(CUresult::ERROR_INVALID_VALUE)?.0)
    };
    // SAFETY: an allocation of this session's, taken out of the table; a stream of this session's.
    unsafe { session.driver.cuMemFreeAsync(address, stream)? };
    match plain {
        Some(bytes) => pools.give_back(session, QuotaKind::Linear, bytes, Some(stream)),
        None => pools.forget(session, address, Some(stream)).unwrap_or(()),
    }
    done()
}

/// Passes memory on to another process of the VM.
pub(super) fn share(
    exchange: &Exchange,
    kind: Kind,
    record: &Record,
    export: impl FnOnce(&mut i32) -> Result,
) -> Result<Share> {
    let mut number = -1;
    export(&mut number)?;
    if number < 0 {
        return Err(CUresult::ERROR_OPERATING_SYSTEM);
    }
    // SAFETY: a descriptor that the driver just made for us.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    exchange.publish_descriptor(kind, record, descriptor)
}

/// `cuMemPoolExportToShareableHandle`: handle; the share comes back.
pub(in super::super) fn export(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let session = call.session;
    let pool = call.state.pools.table.get_mut(handle)?;
    let native = pool.native;
    let record = Record { bytes: 0, native: [0; 8], extra: [0; 8] };
    let share = share(&session.exchange, Kind::Pool, &record, |number| {
        // SAFETY: a pool of this session's; a pointer to an `int`.
        unsafe {
            session.driver.cuMemPoolExportToShareableHandle(
                std::ptr::from_mut(number).cast(),
                native,
                CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                0,
            )
        }
    })?;
    pool.shares.push(share);
    call.reply().put(share);
    done()
}

/// `cuMemPoolImportFromShareableHandle`: handle, share.
pub(in super::super) fn import(call: &mut Call<'_>) -> Answer {
    let (handle, share): (u64, Share) = (call.get()?, call.get()?);
    call.state.pools.table.check(handle)?;
    let (_, descriptor) = call.session.exchange.fetch(Kind::Pool, &share)?;
    let mut native = 0;
    let number = usize::try_from(descriptor.as_raw_fd()).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
    // SAFETY: a pointer to a local; the descriptor goes by its number in the pointer (CUDA driver API).
    unsafe {
        call.driver().cuMemPoolImportFromShareableHandle(
            &raw mut native,
            std::ptr::without_provenance_mut(number),
            CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
            0,
        )?;
    }
    file(call, handle, Pool { native, counted: 0, made: true, imported: true, shares: Vec::new() })
}

/// `cuMemPoolExportPointer`: address, bytes as the guest knows them; the share comes back.
pub(in super::super) fn export_pointer(call: &mut Call<'_>) -> Answer {
    let (address, _): (u64, u64) = (call.get()?, call.get()?);
    let session = call.session;
    let allocation = call.state.pools.allocations.get(&address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut data = CUmemPoolPtrExportData { reserved: [0; 64] };
    // SAFETY: an allocation of a pool of this session's; a pointer to a local.
    unsafe { session.driver.cuMemPoolExportPointer(&raw mut data, address)? };
    // What counts for who opens it is no guest's to say.
    let record = Record { bytes: allocation.bytes, native: words(data.reserved), extra: [0; 8] };
    let share = session.exchange.publish(Kind::PoolPointer, &record)?;
    if let Ok(pool) = call.state.pools.table.get_mut(allocation.pool) {
        pool.shares.push(share);
    }
    call.reply().put(share);
    done()
}

/// `cuMemPoolImportPointer`: pool, share; address and bytes come back.
pub(in super::super) fn import_pointer(call: &mut Call<'_>) -> Answer {
    let (handle, share): (u64, Share) = (call.get()?, call.get()?);
    let session = call.session;
    let record = session.exchange.find(Kind::PoolPointer, &share)?;
    let native = call.state.pools.table.get(handle)?.native;
    // The memory outlives the process that made it for as long as this one holds it, so it counts here as well.
    call.state.reserve(session, QuotaKind::Imported, record.bytes)?;
    let State { pools, .. } = call.state;
    let mut data = CUmemPoolPtrExportData { reserved: bytes(record.native) };
    let mut address = 0;
    // SAFETY: a pool of this session's; pointers to locals, the data as the driver gave it to another worker of this VM.
    let opened = unsafe { session.driver.cuMemPoolImportPointer(&raw mut address, native, &raw mut data) };
    if let Err(error) = opened {
        session.ledger.release(QuotaKind::Imported, record.bytes);
        return Err(error.into());
    }
    pools.allocations.insert(address, Allocation { pool: handle, bytes: record.bytes, imported: true });
    let mut reply = call.reply();
    reply.put(address);
    reply.put(record.bytes);
    done()
}

/// 64 bytes as words.
pub(super) fn words(bytes: [u8; 64]) -> [u64; 8] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(chunks[index]))
}

/// The same back.
pub(super) fn bytes(words: [u64; 8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_bytes_survive_the_wire() {
        let original: [u8; 64] = std::array::from_fn(|index| u8::try_from(index * 3).unwrap());
        assert_eq!(bytes(words(original)), original);
    }
}
