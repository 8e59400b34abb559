//! Virtual memory management. The addresses are the driver's; which are reserved and what is mapped where, the guest knows too,
//! so that copies and pointer attributes find mapped memory and a wrong range is refused by the very call.

use super::ipc::{descriptor_of, share_of};
use super::pool::{access_list, refuse, with_parked_freed, write_access, write_location};
use super::{Result, put};
use crate::allocations::Kind;
use crate::call::{call, garbled};
use crate::handles::HandleTable;
use crate::lock;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, CUdeviceptr, CUmemAccessDesc, CUmemAllocationHandleType,
    CUmemAllocationProp, CUmemGenericAllocationHandle, CUmemLocation, CUresult, HandleKind, location_type,
};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_uint, c_void};
use std::sync::{Arc, Mutex};

/// Properties as they travel: type, handle types, location (2), compression, RDMA, usage.
type Properties = [u64; 8];

/// A piece of physical memory.
#[derive(Debug)]
pub(crate) struct Physical {
    handle: u64,
    properties: Properties,
    holds: Mutex<Holds>,
}

/// What keeps physical memory alive.
#[derive(Debug)]
struct Holds {
    /// How often the application holds the handle.
    references: u64,
    /// How many mappings there are.
    mappings: u64,
}

/// Everything of a session.
#[derive(Debug)]
pub(crate) struct Vmm {
    physical: HandleTable<Physical>,
    /// Reserved addresses: bytes by first address.
    reserved: Mutex<BTreeMap<u64, u64>>,
    /// Granularities by properties and option: they do not change.
    granularities: Mutex<HashMap<(Properties, u32), u64>>,
}

impl Default for Vmm {
    fn default() -> Self {
        Self {
            physical: HandleTable::new(HandleKind::Physical),
            reserved: Mutex::default(),
            granularities: Mutex::default(),
        }
    }
}

/// Physical memory whose handle the application holds.
fn held(session: &Session, handle: CUmemGenericAllocationHandle) -> Result<Arc<Physical>> {
    let physical = session.vmm.physical.get(handle.0);
    let physical = physical.filter(|physical| lock(&physical.holds).references > 0);
    physical.ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Changes what holds physical memory; what nothing holds is forgotten.
fn change(session: &Session, physical: &Physical, change: impl FnOnce(&mut Holds)) {
    let mut holds = lock(&physical.holds);
    change(&mut holds);
    if holds.references == 0 && holds.mappings == 0 {
        session.vmm.physical.remove(physical.handle);
    }
}

fn new_physical(session: &Session, properties: Properties) -> Result<Arc<Physical>> {
    session.vmm.physical.mint(|handle| Physical {
        handle,
        properties,
        holds: Mutex::new(Holds { references: 1, mappings: 0 }),
    })
}

/// Properties that the application asks for.
///
/// # Safety
/// Null or a structure.
unsafe fn properties(session: &Session, prop: *const CUmemAllocationProp) -> Result<Properties> {
    // SAFETY: by this function's contract.
    let prop = unsafe { prop.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if prop.location.kind != location_type::DEVICE {
        return Err(match prop.location.kind {
            location_type::HOST | location_type::HOST_NUMA | location_type::HOST_NUMA_CURRENT => {
                refuse("virtual memory management of host memory is not carried")
            }
            _ => CUresult::ERROR_INVALID_VALUE,
        });
    }
    super::device::device(session, prop.location.id)?;
    if prop.requested_handle_types & !CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR != 0 {
        return Err(refuse("memory is shared between processes by file descriptors only"));
    }
    Ok([
        prop.kind.into(),
        prop.requested_handle_types.into(),
        prop.location.kind.into(),
        u64::from(prop.location.id.cast_unsigned()),
        prop.compression_type.into(),
        prop.gpu_direct_rdma_capable.into(),
        prop.usage.into(),
        0,
    ])
}

/// The same as the application sees it.
#[expect(clippy::cast_possible_truncation, reason = "each word was made from a field of that width")]
fn structure(words: Properties) -> CUmemAllocationProp {
    CUmemAllocationProp {
        kind: words[0] as u32,
        requested_handle_types: words[1] as u32,
        location: CUmemLocation { kind: words[2] as u32, id: (words[3] as u32).cast_signed() },
        win32_handle_meta_data: std::ptr::null_mut(),
        compression_type: words[4] as u8,
        gpu_direct_rdma_capable: words[5] as u8,
        usage: words[6] as u16,
        reserved: [0; 4],
    }
}

pub(crate) unsafe fn cuMemAddressReserve(
    ptr: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    addr: CUdeviceptr,
    flags: u64,
) -> Result {
    let session = session()?;
    if ptr.is_null() || size == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuMemAddressReserve, |writer| {
        writer.put(size as u64);
        writer.put(alignment as u64);
        writer.put(addr);
        writer.put(flags);
    })?;
    let address: u64 = reply.reader().get().map_err(garbled)?;
    lock(&session.vmm.reserved).insert(address, size as u64);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(ptr, address) }
}

pub(crate) unsafe fn cuMemAddressFree(ptr: CUdeviceptr, size: usize) -> Result {
    let session = session()?;
    let mut reserved = lock(&session.vmm.reserved);
    if reserved.get(&ptr) != Some(&(size as u64)) || session.allocations.touches(ptr, size as u64) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    reserved.remove(&ptr);
    session.post(op::cuMemAddressFree, |writer| {
        writer.put(ptr);
        writer.put(size as u64);
    })
}

pub(crate) unsafe fn cuMemCreate(
    handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    prop: *const CUmemAllocationProp,
    flags: u64,
) -> Result {
    let session = session()?;
    if handle.is_null() || size == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the entry point's contract.
    let properties = unsafe { properties(session, prop)? };
    let physical = new_physical(session, properties)?;
    let made = with_parked_freed(session, || {
        session.call(op::cuMemCreate, |writer| {
            writer.put(physical.handle);
            writer.put(size as u64);
            writer.put(properties);
            writer.put(flags);
        })
    });
    if let Err(error) = made {
        session.vmm.physical.remove(physical.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(handle, CUmemGenericAllocationHandle(physical.handle)) }
}

pub(crate) unsafe fn cuMemRelease(handle: CUmemGenericAllocationHandle) -> Result {
    let session = session()?;
    let physical = held(session, handle)?;
    change(session, &physical, |holds| holds.references -= 1);
    session.post(op::cuMemRelease, |writer| writer.put(physical.handle))
}

pub(crate) unsafe fn cuMemMap(
    ptr: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: u64,
) -> Result {
    let session = session()?;
    let physical = held(session, handle)?;
    let end = ptr.checked_add(size as u64).filter(|_| size > 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let reserved = lock(&session.vmm.reserved);
    let lies_within = reserved.range(..=ptr).next_back().is_some_and(|(base, bytes)| end <= base + bytes);
    if !lies_within || session.allocations.touches(ptr, size as u64) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    session.call(op::cuMemMap, |writer| {
        writer.put(ptr);
        writer.put(size as u64);
        writer.put(offset as u64);
        writer.put(physical.handle);
        writer.put(flags);
    })?;
    change(session, &physical, |holds| holds.mappings += 1);
    let properties = structure(physical.properties);
    session.allocations.insert_owned(
        Kind::Mapped,
        ptr,
        size as u64,
        0,
        properties.location.id,
        properties.requested_handle_types,
        physical.handle,
    );
    Ok(())
}

pub(crate) unsafe fn cuMemUnmap(ptr: CUdeviceptr, size: usize) -> Result {
    let session = session()?;
    // One or more whole mappings, side by side.
    let _one_at_a_time = lock(&session.vmm.reserved);
    let gone = session.allocations.remove_run(ptr, size as u64, |range| range.kind == Kind::Mapped);
    for mapping in gone.ok_or(CUresult::ERROR_INVALID_VALUE)? {
        if let Some(physical) = session.vmm.physical.get(mapping.owner) {
            change(session, &physical, |holds| holds.mappings -= 1);
        }
    }
    session.post(op::cuMemUnmap, |writer| {
        writer.put(ptr);
        writer.put(size as u64);
    })
}

pub(crate) unsafe fn cuMemSetAccess(
    ptr: CUdeviceptr,
    size: usize,
    desc: *const CUmemAccessDesc,
    count: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    let list = unsafe { access_list(desc, count)? };
    let answer = call(op::cuMemSetAccess, |writer| {
        writer.put(ptr);
        writer.put(size as u64);
        write_access(writer, list);
    });
    answer.map(|_| ())
}

pub(crate) unsafe fn cuMemGetAccess(
    flags: *mut u64,
    location: *const CUmemLocation,
    ptr: CUdeviceptr,
) -> Result {
    // SAFETY: null or a location, by the entry point's contract.
    let location = unsafe { location.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let reply = call(op::cuMemGetAccess, |writer| {
        write_location(writer, location);
        writer.put(ptr);
    })?;
    let told = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(flags, told) }
}

pub(crate) unsafe fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    prop: *const CUmemAllocationProp,
    option: c_uint,
) -> Result {
    let session = session()?;
    // SAFETY: the entry point's contract.
    let properties = unsafe { properties(session, prop)? };
    let mut known = lock(&session.vmm.granularities);
    let told = match known.get(&(properties, option)) {
        Some(told) => *told,
        None => {
            let reply = session.call(op::cuMemGetAllocationGranularity, |writer| {
                writer.put(properties);
                writer.put(option);
            })?;
            let told: u64 = reply.reader().get().map_err(garbled)?;
            known.insert((properties, option), told);
            told
        }
    };
    // SAFETY: the entry point's contract.
    unsafe { put(granularity, usize::try_from(told).unwrap_or(usize::MAX)) }
}

pub(crate) unsafe fn cuMemGetAllocationPropertiesFromHandle(
    prop: *mut CUmemAllocationProp,
    handle: CUmemGenericAllocationHandle,
) -> Result {
    let physical = held(session()?, handle)?;
    // SAFETY: the entry point's contract.
    unsafe { put(prop, structure(physical.properties)) }
}

pub(crate) unsafe fn cuMemRetainAllocationHandle(
    handle: *mut CUmemGenericAllocationHandle,
    addr: *mut c_void,
) -> Result {
    let session = session()?;
    let address = addr.addr() as u64;
    let mapping = session.allocations.find(address).filter(|range| range.kind == Kind::Mapped);
    let mapping = mapping.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let physical = session.vmm.physical.get(mapping.owner).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if handle.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    session.call(op::cuMemRetainAllocationHandle, |writer| {
        writer.put(physical.handle);
        writer.put(address);
    })?;
    change(session, &physical, |holds| holds.references += 1);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(handle, CUmemGenericAllocationHandle(physical.handle)) }
}

pub(crate) unsafe fn cuMemExportToShareableHandle(
    shareableHandle: *mut c_void,
    handle: CUmemGenericAllocationHandle,
    handleType: CUmemAllocationHandleType,
    flags: u64,
) -> Result {
    let session = session()?;
    let physical = held(session, handle)?;
    let allowed = physical.properties[1] & u64::from(handleType) != 0;
    if shareableHandle.is_null()
        || flags != 0
        || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
        || !allowed
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuMemExportToShareableHandle, |writer| writer.put(physical.handle))?;
    let share = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and an `int` for this handle type.
    unsafe { put(shareableHandle.cast(), descriptor_of(share)?) }
}

pub(crate) unsafe fn cuMemImportFromShareableHandle(
    handle: *mut CUmemGenericAllocationHandle,
    osHandle: *mut c_void,
    shHandleType: CUmemAllocationHandleType,
) -> Result {
    let session = session()?;
    if handle.is_null() || shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let share = share_of(osHandle.addr())?;
    let physical = new_physical(session, [0; 8])?;
    let opened = session.call(op::cuMemImportFromShareableHandle, |writer| {
        writer.put(physical.handle);
        writer.put(share);
    });
    let told = opened.and_then(|reply| {
        let mut fields = reply.reader();
        let _bytes: u64 = fields.get().map_err(garbled)?;
        fields.get::<Properties>().map_err(garbled)
    });
    let properties = told.inspect_err(|_| {
        session.vmm.physical.remove(physical.handle);
    })?;
    let holds = Mutex::new(Holds { references: 1, mappings: 0 });
    session.vmm.physical.replace(physical.handle, Physical { handle: physical.handle, properties, holds });
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(handle, CUmemGenericAllocationHandle(physical.handle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_the_wire() {
        let words = [1, 1, 1, 3, 1, 0, 2, 0];
        let there = structure(words);
        assert_eq!((there.kind, there.location.id, there.compression_type, there.usage), (1, 3, 1, 2));
        assert_eq!(there.location.kind, location_type::DEVICE);
    }
}
