//! Arrays and mipmapped arrays. Making one is answered, because it may not fit; everything else about them is known here.

use super::{Result, enter, put};
use crate::arrays::{Array, MipmappedArray};
use crate::call::{Reply, call, garbled, post};
use crate::lock;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::codec::{DecodeError, Writer};
use pxos_protocol::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY_SPARSE_PROPERTIES,
    CUDA_ARRAY3D_DESCRIPTOR, CUarray, CUdevice, CUmipmappedArray, CUresult,
};
use std::collections::HashMap;
use std::ffi::c_uint;
use std::sync::{Arc, Mutex};

/// A live array.
pub(super) fn array(session: &Session, array: CUarray) -> Result<Arc<Array>> {
    session.arrays.arrays.get(array.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// A live mipmapped array.
pub(super) fn mipmapped(session: &Session, array: CUmipmappedArray) -> Result<Arc<MipmappedArray>> {
    session.arrays.mipmapped.get(array.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

fn encode(writer: &mut Writer<'_>, handle: u64, descriptor: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) {
    writer.put(handle);
    for side in [descriptor.width, descriptor.height, descriptor.depth] {
        writer.put(side as u64);
    }
    for number in [descriptor.format, descriptor.num_channels, descriptor.flags, levels] {
        writer.put(number);
    }
}

/// The descriptor that an answer brings.
fn described(reply: &Reply) -> Result<CUDA_ARRAY3D_DESCRIPTOR> {
    let mut fields = reply.reader();
    let mut side = || -> Result<usize, DecodeError> {
        let value: u64 = fields.get()?;
        usize::try_from(value).map_err(|_| DecodeError::Value(value))
    };
    let sides = || -> Result<[usize; 3], DecodeError> { Ok([side()?, side()?, side()?]) };
    let [width, height, depth] = { sides }().map_err(garbled)?;
    Ok(CUDA_ARRAY3D_DESCRIPTOR {
        width,
        height,
        depth,
        format: fields.get().map_err(garbled)?,
        num_channels: fields.get().map_err(garbled)?,
        flags: fields.get().map_err(garbled)?,
    })
}

fn new_array(handle: u64, context: u64, descriptor: CUDA_ARRAY3D_DESCRIPTOR, parent: u64) -> Array {
    Array { handle, context, descriptor, parent, parts: Mutex::default() }
}

fn create(descriptor: &CUDA_ARRAY3D_DESCRIPTOR) -> Result<CUarray> {
    let (session, context) = enter()?;
    let owner = context.handle;
    let array = session.arrays.arrays.mint(|handle| new_array(handle, owner, *descriptor, 0))?;
    let made = session.call(op::cuArray3DCreate_v2, |writer| encode(writer, array.handle, descriptor, 0));
    match made.and_then(|reply| described(&reply)) {
        Ok(told) => session.arrays.arrays.replace(array.handle, new_array(array.handle, owner, told, 0)),
        Err(error) => {
            session.arrays.arrays.remove(array.handle);
            return Err(error);
        }
    }
    Ok(CUarray(array.handle))
}

pub(crate) unsafe fn cuArrayCreate_v2(
    pHandle: *mut CUarray,
    pAllocateArray: *const CUDA_ARRAY_DESCRIPTOR,
) -> Result {
    enter()?;
    if pHandle.is_null() || pAllocateArray.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let descriptor = unsafe { pAllocateArray.read() };
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pHandle, create(&descriptor.into())?) }
}

pub(crate) unsafe fn cuArray3DCreate_v2(
    pHandle: *mut CUarray,
    pAllocateArray: *const CUDA_ARRAY3D_DESCRIPTOR,
) -> Result {
    enter()?;
    if pHandle.is_null() || pAllocateArray.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let descriptor = unsafe { pAllocateArray.read() };
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pHandle, create(&descriptor)?) }
}

pub(crate) unsafe fn cuArrayGetDescriptor_v2(
    pArrayDescriptor: *mut CUDA_ARRAY_DESCRIPTOR,
    hArray: CUarray,
) -> Result {
    let (session, _) = enter()?;
    let array = array(session, hArray)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pArrayDescriptor, array.descriptor.flat()) }
}

pub(crate) unsafe fn cuArray3DGetDescriptor_v2(
    pArrayDescriptor: *mut CUDA_ARRAY3D_DESCRIPTOR,
    hArray: CUarray,
) -> Result {
    let (session, _) = enter()?;
    let array = array(session, hArray)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pArrayDescriptor, array.descriptor) }
}

pub(crate) unsafe fn cuArrayDestroy(hArray: CUarray) -> Result {
    let session = session()?;
    session.check()?;
    if array(session, hArray)?.parent != 0 {
        // A level or plane goes with the whole.
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    session.arrays.arrays.remove(hArray.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    session.arrays.arrays.remove_all(|part| part.parent == hArray.0);
    post(op::cuArrayDestroy, |writer| writer.put(hArray.0))
}

pub(crate) unsafe fn cuMipmappedArrayCreate(
    pHandle: *mut CUmipmappedArray,
    pMipmappedArrayDesc: *const CUDA_ARRAY3D_DESCRIPTOR,
    numMipmapLevels: c_uint,
) -> Result {
    let (session, context) = enter()?;
    if pHandle.is_null() || pMipmappedArrayDesc.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let descriptor = unsafe { pMipmappedArrayDesc.read() };
    let owner = context.handle;
    let array = session.arrays.mipmapped.mint(|handle| MipmappedArray {
        handle,
        context: owner,
        parts: Mutex::default(),
    })?;
    // "This value is clamped to the range [1, …]."
    let levels = numMipmapLevels.max(1);
    let made =
        session.call(op::cuMipmappedArrayCreate, |writer| encode(writer, array.handle, &descriptor, levels));
    if let Err(error) = made {
        session.arrays.mipmapped.remove(array.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pHandle, CUmipmappedArray(array.handle)) }
}

/// A level or plane: asked for once, the same handle ever after.
fn part(
    session: &'static Session,
    (parent, context): (u64, u64),
    parts: &Mutex<HashMap<u32, u64>>,
    op: u16,
    number: u32,
) -> Result<CUarray> {
    let mut parts = lock(parts);
    if let Some(handle) = parts.get(&number) {
        return Ok(CUarray(*handle));
    }
    let nothing = CUDA_ARRAY3D_DESCRIPTOR::default();
    let array = session.arrays.arrays.mint(|handle| new_array(handle, context, nothing, parent))?;
    let made = session.call(op, |writer| {
        writer.put(parent);
        writer.put(array.handle);
        writer.put(number);
    });
    match made.and_then(|reply| described(&reply)) {
        Ok(told) => {
            session.arrays.arrays.replace(array.handle, new_array(array.handle, context, told, parent));
        }
        Err(error) => {
            session.arrays.arrays.remove(array.handle);
            return Err(error);
        }
    }
    parts.insert(number, array.handle);
    Ok(CUarray(array.handle))
}

pub(crate) unsafe fn cuMipmappedArrayGetLevel(
    pLevelArray: *mut CUarray,
    hMipmappedArray: CUmipmappedArray,
    level: c_uint,
) -> Result {
    let (session, _) = enter()?;
    let whole = mipmapped(session, hMipmappedArray)?;
    let names = (whole.handle, whole.context);
    let level = part(session, names, &whole.parts, op::cuMipmappedArrayGetLevel, level)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pLevelArray, level) }
}

pub(crate) unsafe fn cuArrayGetPlane(pPlaneArray: *mut CUarray, hArray: CUarray, planeIdx: c_uint) -> Result {
    let (session, _) = enter()?;
    let whole = array(session, hArray)?;
    let names = (whole.handle, whole.context);
    let plane = part(session, names, &whole.parts, op::cuArrayGetPlane, planeIdx)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pPlaneArray, plane) }
}

pub(crate) unsafe fn cuMipmappedArrayDestroy(hMipmappedArray: CUmipmappedArray) -> Result {
    let session = session()?;
    session.check()?;
    let array = session.arrays.mipmapped.remove(hMipmappedArray.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    session.arrays.arrays.remove_all(|part| part.parent == array.handle);
    post(op::cuMipmappedArrayDestroy, |writer| writer.put(array.handle))
}

fn requirements(op: u16, handle: u64, device: CUdevice) -> Result<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
    let reply = call(op, |writer| {
        writer.put(handle);
        writer.put(device);
    })?;
    let mut fields = reply.reader();
    let (size, alignment): (u64, u64) = (fields.get().map_err(garbled)?, fields.get().map_err(garbled)?);
    let whole = |value: u64| usize::try_from(value).map_err(|_| garbled(DecodeError::Value(value)));
    Ok(CUDA_ARRAY_MEMORY_REQUIREMENTS { size: whole(size)?, alignment: whole(alignment)?, reserved: [0; 4] })
}

pub(crate) unsafe fn cuArrayGetMemoryRequirements(
    memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    array: CUarray,
    device: CUdevice,
) -> Result {
    let (session, _) = enter()?;
    super::device::device(session, device)?;
    let array = self::array(session, array)?;
    // SAFETY: the entry point's contract.
    unsafe { put(memoryRequirements, requirements(op::cuArrayGetMemoryRequirements, array.handle, device)?) }
}

pub(crate) unsafe fn cuMipmappedArrayGetMemoryRequirements(
    memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    mipmap: CUmipmappedArray,
    device: CUdevice,
) -> Result {
    let (session, _) = enter()?;
    super::device::device(session, device)?;
    let array = mipmapped(session, mipmap)?;
    // SAFETY: the entry point's contract.
    unsafe {
        put(
            memoryRequirements,
            requirements(op::cuMipmappedArrayGetMemoryRequirements, array.handle, device)?,
        )
    }
}

fn sparse(op: u16, handle: u64) -> Result<CUDA_ARRAY_SPARSE_PROPERTIES> {
    let reply = call(op, |writer| writer.put(handle))?;
    let mut fields = reply.reader();
    Ok(CUDA_ARRAY_SPARSE_PROPERTIES {
        tile_extent: fields.get().map_err(garbled)?,
        miptail_first_level: fields.get().map_err(garbled)?,
        miptail_size: fields.get().map_err(garbled)?,
        flags: fields.get().map_err(garbled)?,
        reserved: [0; 4],
    })
}

pub(crate) unsafe fn cuArrayGetSparseProperties(
    sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES,
    array: CUarray,
) -> Result {
    let (session, _) = enter()?;
    let array = self::array(session, array)?;
    // SAFETY: the entry point's contract.
    unsafe { put(sparseProperties, sparse(op::cuArrayGetSparseProperties, array.handle)?) }
}

pub(crate) unsafe fn cuMipmappedArrayGetSparseProperties(
    sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES,
    mipmap: CUmipmappedArray,
) -> Result {
    let (session, _) = enter()?;
    let array = mipmapped(session, mipmap)?;
    // SAFETY: the entry point's contract.
    unsafe { put(sparseProperties, sparse(op::cuMipmappedArrayGetSparseProperties, array.handle)?) }
}
