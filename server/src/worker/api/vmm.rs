//! Virtual memory management (CUDA driver API, section "Virtual Memory Management"): addresses, physical memory, and which lies
//! where. Addresses are the driver's own. Physical memory counts against the session's limit from its creation until neither a
//! handle nor a mapping holds it.

use super::super::dispatch::{Answer, Call, Failed, done};
use super::super::exchange::{Kind, Record, Share};
use super::super::session::Session;
use super::super::state::State;
use super::super::tables::Table;
use super::pool::{access, location, share};
use crate::quota::Kind as QuotaKind;
use pxos_protocol::types::{
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUmemAllocationProp, CUmemLocation, CUresult, HandleKind,
    location_type,
};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// Most reservations, and most mappings, of a session.
const MOST: usize = 1 << 20;

/// Physical memory.
#[derive(Debug)]
struct Physical {
    /// The driver's handle, good while `references` is above zero.
    native: u64,
    bytes: u64,
    /// What it counts as.
    kind: QuotaKind,
    /// How often the guest holds the handle.
    references: u32,
    /// How many mappings hold the memory.
    mappings: u32,
    /// What it is, for who imports it.
    props: [u64; 8],
    shares: Vec<Share>,
}

/// Everything of a session.
#[derive(Debug)]
pub(crate) struct Vmm {
    physical: Table<Physical>,
    /// Reserved addresses: bytes by first address.
    reserved: BTreeMap<u64, u64>,
    /// Mapped ranges: bytes and the guest's handle by first address.
    mapped: BTreeMap<u64, (u64, u64)>,
}

impl Default for Vmm {
    fn default() -> Self {
        Self {
            physical: Table::new(HandleKind::Physical),
            reserved: BTreeMap::new(),
            mapped: BTreeMap::new(),
        }
    }
}

impl Vmm {
    /// Frees what nothing holds any more.
    fn settle(&mut self, session: &Session, handle: u64) {
        let Ok(physical) = self.physical.get(handle) else { return };
        if physical.references == 0 && physical.mappings == 0 {
            session.ledger.release(physical.kind, physical.bytes);
            physical.shares.iter().for_each(|share| session.exchange.withdraw(share));
            let _ = self.physical.remove(handle);
        }
    }
}

/// The next fields, properties of physical memory; those that a guest may have.
fn props(call: &mut Call<'_>) -> Result<(CUmemAllocationProp, [u64; 8]), Failed> {
    let words: [u64; 8] = call.get()?;
    Ok((unpack(words)?, words))
}

/// Properties as they travel: type, handle types, location (2), compression, RDMA, usage.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each word holds a number of the field's width, or is refused by the driver"
)]
fn unpack(words: [u64; 8]) -> Result<CUmemAllocationProp, CUresult> {
    let location = CUmemLocation { kind: words[2] as u32, id: (words[3] as u32).cast_signed() };
    if location.kind != location_type::DEVICE
        || words[1] & !u64::from(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0
    {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    Ok(CUmemAllocationProp {
        kind: words[0] as u32,
        requested_handle_types: words[1] as u32,
        location,
        win32_handle_meta_data: std::ptr::null_mut(),
        compression_type: words[4] as u8,
        gpu_direct_rdma_capable: words[5] as u8,
        usage: words[6] as u16,
        reserved: [0; 4],
    })
}

/// `cuMemAddressReserve`: bytes, alignment, wanted address, flags; the address comes back.
pub(in super::super) fn reserve(call: &mut Call<'_>) -> Answer {
    let (bytes, alignment) = (call.get_usize()?, call.get_usize()?);
    let (wanted, flags): (u64, u64) = (call.get()?, call.get()?);
    if call.state.vmm.reserved.len() >= MOST {
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    let mut address = 0;
    // SAFETY: a pointer to a local. The wanted address is a hint: the driver never takes a range that is in use.
    unsafe { call.driver().cuMemAddressReserve(&raw mut address, bytes, alignment, wanted, flags)? };
    call.state.vmm.reserved.insert(address, bytes as u64);
    call.reply().put(address);
    done()
}

/// `cuMemAddressFree`: address, bytes.
pub(in super::super) fn free(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let bytes = call.get_usize()?;
    let vmm = &mut call.state.vmm;
    let known = vmm.reserved.get(&address).is_some_and(|reserved| *reserved == bytes as u64);
    let still_mapped = vmm.mapped.range(address..address.saturating_add(bytes as u64)).next().is_some();
    if !known || still_mapped {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: a reservation of this session's, just as it was made, with nothing mapped.
    unsafe { call.session.driver.cuMemAddressFree(address, bytes)? };
    call.state.vmm.reserved.remove(&address);
    done()
}

/// `cuMemCreate`: handle, bytes, properties, flags.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let bytes = call.get_usize()?;
    let (props, words) = props(call)?;
    let flags: u64 = call.get()?;
    let session = call.session;
    // Before the memory is made: what no handle names is never given back.
    call.state.vmm.physical.check(handle)?;
    call.state.reserve(session, QuotaKind::Physical, bytes as u64)?;
    let State { vmm, .. } = call.state;
    let mut native = 0;
    // SAFETY: pointers to locals.
    let made = unsafe { session.driver.cuMemCreate(&raw mut native, bytes, &raw const props, flags) };
    let physical = Physical {
        native,
        bytes: bytes as u64,
        kind: QuotaKind::Physical,
        references: 1,
        mappings: 0,
        props: words,
        shares: Vec::new(),
    };
    if let Err(error) = made.and_then(|()| vmm.physical.insert(handle, physical)) {
        session.ledger.release(QuotaKind::Physical, bytes as u64);
        return Err(error.into());
    }
    done()
}

/// `cuMemRelease`: handle.
pub(in super::super) fn release(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let physical = call.state.vmm.physical.get_mut(handle)?;
    physical.references = physical.references.checked_sub(1).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let native = physical.native;
    // SAFETY: a reference of this session's, given back once.
    unsafe { call.session.driver.cuMemRelease(native)? };
    let State { vmm, .. } = call.state;
    vmm.settle(call.session, handle);
    done()
}

/// `cuMemRetainAllocationHandle`: handle, address.
pub(in super::super) fn retain(call: &mut Call<'_>) -> Answer {
    let (handle, address): (u64, u64) = (call.get()?, call.get()?);
    let State { vmm, .. } = call.state;
    let lies_there = vmm
        .mapped
        .range(..=address)
        .next_back()
        .is_some_and(|(base, (bytes, of))| address - base < *bytes && *of == handle);
    if !lies_there {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let mut native = 0;
    // SAFETY: a pointer to a local; the address is one that this session has mapped.
    unsafe {
        let address = usize::try_from(address).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let address = std::ptr::with_exposed_provenance_mut(address);
        call.session.driver.cuMemRetainAllocationHandle(&raw mut native, address)?;
    }
    let physical = vmm.physical.get_mut(handle)?;
    physical.native = native;
    physical.references += 1;
    done()
}

/// `cuMemMap`: address, bytes, offset, handle, flags.
pub(in super::super) fn map(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let (bytes, offset) = (call.get_usize()?, call.get_usize()?);
    let (handle, flags): (u64, u64) = (call.get()?, call.get()?);
    let vmm = &mut call.state.vmm;
    let end = address.checked_add(bytes as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let reserved =
        vmm.reserved.range(..=address).next_back().is_some_and(|(base, reserved)| end <= base + reserved);
    if !reserved || vmm.mapped.len() >= MOST {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let physical = vmm.physical.get_mut(handle)?;
    if physical.references == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: physical memory of this session's; the range is of its own reservation, the driver checks the rest.
    unsafe { call.session.driver.cuMemMap(address, bytes, offset, physical.native, flags)? };
    physical.mappings += 1;
    vmm.mapped.insert(address, (bytes as u64, handle));
    done()
}

/// `cuMemUnmap`: address, bytes: one or more whole mappings.
pub(in super::super) fn unmap(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let bytes = call.get_usize()?;
    let State { vmm, .. } = call.state;
    let end = address.checked_add(bytes as u64).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut next = address;
    let mut gone = Vec::new();
    for (base, (length, handle)) in vmm.mapped.range(address..end) {
        if *base != next {
            break;
        }
        next += length;
        gone.push((*base, *handle));
    }
    if next != end || gone.is_empty() {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: whole mappings of this session's.
    unsafe { call.session.driver.cuMemUnmap(address, bytes)? };
    for (base, handle) in gone {
        vmm.mapped.remove(&base);
        if let Ok(physical) = vmm.physical.get_mut(handle) {
            physical.mappings -= 1;
        }
        vmm.settle(call.session, handle);
    }
    done()
}

/// `cuMemSetAccess`: address, bytes, list.
pub(in super::super) fn set_access(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let bytes = call.get_usize()?;
    let list = access(call)?;
    if list.iter().any(|entry| entry.location.kind != location_type::DEVICE) {
        return Err(CUresult::ERROR_NOT_SUPPORTED.into());
    }
    // SAFETY: a list of that length; the driver checks the range.
    unsafe { call.driver().cuMemSetAccess(address, bytes, list.as_ptr(), list.len())? };
    done()
}

/// `cuMemGetAccess`: location, address; the flags come back.
pub(in super::super) fn get_access(call: &mut Call<'_>) -> Answer {
    let location = location(call)?;
    let address = call.get()?;
    let mut flags = 0_u64;
    // SAFETY: pointers to locals; the driver checks the address.
    unsafe { call.driver().cuMemGetAccess(&raw mut flags, &raw const location, address)? };
    call.reply().put(flags);
    done()
}

/// `cuMemGetAllocationGranularity`: properties, option; the granularity comes back.
pub(in super::super) fn granularity(call: &mut Call<'_>) -> Answer {
    let (props, _) = props(call)?;
    let option: u32 = call.get()?;
    let mut granularity = 0_usize;
    // SAFETY: pointers to locals.
    unsafe { call.driver().cuMemGetAllocationGranularity(&raw mut granularity, &raw const props, option)? };
    call.reply().put(granularity as u64);
    done()
}

/// `cuMemExportToShareableHandle`: handle; the share comes back.
pub(in super::super) fn export(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let session = call.session;
    let physical = call.state.vmm.physical.get_mut(handle)?;
    if physical.references == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let native = physical.native;
    let record = Record { bytes: physical.bytes, native: [0; 8], extra: physical.props };
    let share = share(&session.exchange, Kind::Physical, &record, |number| {
        // SAFETY: physical memory of this session's; a pointer to an `int`.
        unsafe {
            session.driver.cuMemExportToShareableHandle(
                std::ptr::from_mut(number).cast(),
                native,
                CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                0,
            )
        }
    })?;
    physical.shares.push(share);
    call.reply().put(share);
    done()
}

/// `cuMemImportFromShareableHandle`: handle, share; bytes and properties come back.
pub(in super::super) fn import(call: &mut Call<'_>) -> Answer {
    let (handle, share): (u64, Share) = (call.get()?, call.get()?);
    let session = call.session;
    call.state.vmm.physical.check(handle)?;
    let (record, descriptor) = session.exchange.fetch(Kind::Physical, &share)?;
    let number = usize::try_from(descriptor.as_raw_fd()).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
    // The memory outlives the process that made it for as long as this one holds it, so it counts here as well.
    call.state.reserve(session, QuotaKind::Imported, record.bytes)?;
    let State { vmm, .. } = call.state;
    let mut native = 0;
    // SAFETY: a pointer to a local; the descriptor goes by its number in the pointer (CUDA driver API).
    let opened = unsafe {
        session.driver.cuMemImportFromShareableHandle(
            &raw mut native,
            std::ptr::without_provenance_mut(number),
            CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        )
    };
    let physical = Physical {
        native,
        bytes: record.bytes,
        kind: QuotaKind::Imported,
        references: 1,
        mappings: 0,
        props: record.extra,
        shares: Vec::new(),
    };
    if let Err(error) = opened.and_then(|()| vmm.physical.insert(handle, physical)) {
        session.ledger.release(QuotaKind::Imported, record.bytes);
        return Err(error.into());
    }
    let mut reply = call.reply();
    reply.put(record.bytes);
    reply.put(record.extra);
    done()
}
