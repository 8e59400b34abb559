//! Texture and surface references, which CUDA 12 took out of its headers for device code but not out of the driver: every
//! question and every setting is asked of the driver, which keeps them.

use super::array::{array, mipmapped};
use super::module::{module, text};
use super::{Result, enter, put};
use crate::arrays::Reference;
use crate::call::{Reply, call, garbled};
use crate::session::Session;
use pxos_protocol::api::op;
use pxos_protocol::codec::{Plain, Writer};
use pxos_protocol::types::{
    CUDA_ARRAY_DESCRIPTOR, CUaddress_mode, CUarray, CUarray_format, CUdeviceptr, CUfilter_mode,
    CUmipmappedArray, CUmodule, CUresult, CUsurfref, CUtexref,
};
use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;

fn reference(session: &Session, reference: CUtexref, surface: bool) -> Result<Arc<Reference>> {
    let found = session.arrays.references.get(reference.0).filter(|found| found.surface == surface);
    found.ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// A reference of a module, by name: the same handle each time.
///
/// # Safety
/// `name` is null or a C string, `to` null or writable.
unsafe fn find(to: *mut CUtexref, hmod: CUmodule, name: *const c_char, surface: bool) -> Result {
    let (session, context) = enter()?;
    // SAFETY: by this function's contract.
    let name = unsafe { text(name)? }.to_bytes();
    let module = module(session, hmod)?;
    let owner = module.handle;
    let is_it = |known: &Reference| known.module == owner && known.surface == surface && known.name == name;
    let known = std::cell::Cell::new(None);
    session.arrays.references.for_each(|found| {
        if is_it(found) {
            known.set(Some(found.handle));
        }
    });
    let handle = match known.get() {
        Some(handle) => handle,
        None => {
            let made = session.arrays.references.mint(|handle| Reference {
                handle,
                context: context.handle,
                module: owner,
                name: name.to_vec(),
                surface,
            })?;
            let number = if surface { op::cuModuleGetSurfRef } else { op::cuModuleGetTexRef };
            let found = call(number, |writer| {
                writer.put(owner);
                writer.put(made.handle);
                writer.put_bytes(name);
            });
            if let Err(error) = found {
                session.arrays.references.remove(made.handle);
                return Err(error);
            }
            made.handle
        }
    };
    // SAFETY: by this function's contract.
    unsafe { put(to, CUtexref(handle)) }
}

pub(crate) unsafe fn cuModuleGetTexRef(
    pTexRef: *mut CUtexref,
    hmod: CUmodule,
    name: *const c_char,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { find(pTexRef, hmod, name, false) }
}

pub(crate) unsafe fn cuModuleGetSurfRef(
    pSurfRef: *mut CUsurfref,
    hmod: CUmodule,
    name: *const c_char,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { find(pSurfRef, hmod, name, true) }
}

pub(crate) unsafe fn cuTexRefCreate(pTexRef: *mut CUtexref) -> Result {
    let (session, context) = enter()?;
    if pTexRef.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let owner = context.handle;
    let made = session.arrays.references.mint(|handle| Reference {
        handle,
        context: owner,
        module: 0,
        name: Vec::new(),
        surface: false,
    })?;
    if let Err(error) = call(op::cuTexRefCreate, |writer| writer.put(made.handle)) {
        session.arrays.references.remove(made.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pTexRef, CUtexref(made.handle)) }
}

pub(crate) unsafe fn cuTexRefDestroy(hTexRef: CUtexref) -> Result {
    let (session, _) = enter()?;
    reference(session, hTexRef, false)?;
    call(op::cuTexRefDestroy, |writer| writer.put(hTexRef.0))?;
    session.arrays.references.remove(hTexRef.0);
    Ok(())
}

/// Sets something: the reference and what `write` adds.
fn set(op: u16, handle: CUtexref, write: impl FnOnce(&mut Writer<'_>)) -> Result<Reply> {
    let (session, _) = enter()?;
    reference(session, handle, op == op::cuSurfRefSetArray)?;
    call(op, |writer| {
        writer.put(handle.0);
        write(writer);
    })
}

/// Settings whose parameters are plain numbers.
macro_rules! settings {
    ($($name:ident($($parameter:ident: $type:ty),*);)*) => { $(
        pub(crate) unsafe fn $name(hTexRef: CUtexref, $($parameter: $type),*) -> Result {
            set(op::$name, hTexRef, |writer| { $(writer.put($parameter);)* }).map(|_| ())
        }
    )* };
}

settings! {
    cuTexRefSetFormat(fmt: CUarray_format, NumPackedComponents: c_int);
    cuTexRefSetAddressMode(dim: c_int, am: CUaddress_mode);
    cuTexRefSetFilterMode(fm: CUfilter_mode);
    cuTexRefSetMipmapFilterMode(fm: CUfilter_mode);
    cuTexRefSetMipmapLevelBias(bias: f32);
    cuTexRefSetMipmapLevelClamp(minMipmapLevelClamp: f32, maxMipmapLevelClamp: f32);
    cuTexRefSetMaxAnisotropy(maxAniso: c_uint);
    cuTexRefSetFlags(Flags: c_uint);
}

/// Binds an array, or nothing.
fn set_array(op: u16, handle: CUtexref, bound: u64, flags: c_uint) -> Result {
    set(op, handle, |writer| {
        writer.put(bound);
        writer.put(flags);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuTexRefSetArray(hTexRef: CUtexref, hArray: CUarray, Flags: c_uint) -> Result {
    let (session, _) = enter()?;
    if !hArray.is_null() {
        array(session, hArray)?;
    }
    set_array(op::cuTexRefSetArray, hTexRef, hArray.0, Flags)
}

pub(crate) unsafe fn cuTexRefSetMipmappedArray(
    hTexRef: CUtexref,
    hMipmappedArray: CUmipmappedArray,
    Flags: c_uint,
) -> Result {
    let (session, _) = enter()?;
    if !hMipmappedArray.is_null() {
        mipmapped(session, hMipmappedArray)?;
    }
    set_array(op::cuTexRefSetMipmappedArray, hTexRef, hMipmappedArray.0, Flags)
}

pub(crate) unsafe fn cuSurfRefSetArray(hSurfRef: CUsurfref, hArray: CUarray, Flags: c_uint) -> Result {
    let (session, _) = enter()?;
    array(session, hArray)?;
    set_array(op::cuSurfRefSetArray, hSurfRef, hArray.0, Flags)
}

pub(crate) unsafe fn cuTexRefSetAddress_v2(
    ByteOffset: *mut usize,
    hTexRef: CUtexref,
    dptr: CUdeviceptr,
    bytes: usize,
) -> Result {
    let reply = set(op::cuTexRefSetAddress_v2, hTexRef, |writer| {
        writer.put(dptr);
        writer.put(bytes as u64);
    })?;
    let offset: u64 = reply.reader().get().map_err(garbled)?;
    if !ByteOffset.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { ByteOffset.write(usize::try_from(offset).unwrap_or(usize::MAX)) };
    }
    Ok(())
}

pub(crate) unsafe fn cuTexRefSetAddress2D_v2(
    hTexRef: CUtexref,
    desc: *const CUDA_ARRAY_DESCRIPTOR,
    dptr: CUdeviceptr,
    Pitch: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuTexRefSetAddress2D_v3(hTexRef, desc, dptr, Pitch) }
}

pub(crate) unsafe fn cuTexRefSetAddress2D_v3(
    hTexRef: CUtexref,
    desc: *const CUDA_ARRAY_DESCRIPTOR,
    dptr: CUdeviceptr,
    Pitch: usize,
) -> Result {
    // SAFETY: null, or readable by the entry point's contract.
    let descriptor = unsafe { desc.as_ref() }.copied().ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let reply = set(op::cuTexRefSetAddress2D_v3, hTexRef, |writer| {
        writer.put(descriptor.width as u64);
        writer.put(descriptor.height as u64);
        writer.put(descriptor.format);
        writer.put(descriptor.num_channels);
        writer.put(dptr);
        writer.put(Pitch as u64);
    });
    reply.map(|_| ())
}

pub(crate) unsafe fn cuTexRefSetBorderColor(hTexRef: CUtexref, pBorderColor: *mut f32) -> Result {
    if pBorderColor.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and four numbers by the entry point's contract.
    let colour = unsafe { pBorderColor.cast::<[f32; 4]>().read() };
    let reply = set(op::cuTexRefSetBorderColor, hTexRef, |writer| {
        colour.into_iter().for_each(|channel| writer.put(channel));
    });
    reply.map(|_| ())
}

/// Asks for something: the reference and what `write` adds.
fn ask(op: u16, handle: CUtexref, write: impl FnOnce(&mut Writer<'_>)) -> Result<Reply> {
    let (session, _) = enter()?;
    reference(session, handle, op == op::cuSurfRefGetArray)?;
    call(op, |writer| {
        writer.put(handle.0);
        write(writer);
    })
}

/// Hands out numbers of an answer, each where its pointer says; the first must not be null.
///
/// # Safety
/// The pointers are null or writable.
unsafe fn answer<T: Plain>(op: u16, handle: CUtexref, pointers: &[*mut T]) -> Result {
    if pointers.iter().all(|pointer| pointer.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = ask(op, handle, |_| {})?;
    let mut fields = reply.reader();
    for pointer in pointers {
        let value = fields.get().map_err(garbled)?;
        if !pointer.is_null() {
            // SAFETY: not null, and writable by this function's contract.
            unsafe { pointer.write(value) };
        }
    }
    Ok(())
}

/// Questions with one number for an answer.
macro_rules! questions {
    ($($name:ident($type:ty);)*) => { $(
        pub(crate) unsafe fn $name(to: *mut $type, hTexRef: CUtexref) -> Result {
            // SAFETY: the entry point's contract.
            unsafe { answer::<$type>(op::$name, hTexRef, &[to]) }
        }
    )* };
}

questions! {
    cuTexRefGetAddress_v2(CUdeviceptr);
    cuTexRefGetFilterMode(CUfilter_mode);
    cuTexRefGetMipmapFilterMode(CUfilter_mode);
    cuTexRefGetMipmapLevelBias(f32);
    cuTexRefGetMaxAnisotropy(c_int);
    cuTexRefGetFlags(c_uint);
}

pub(crate) unsafe fn cuTexRefGetArray(phArray: *mut CUarray, hTexRef: CUtexref) -> Result {
    // SAFETY: the entry point's contract; a handle is its number.
    unsafe { answer(op::cuTexRefGetArray, hTexRef, &[phArray.cast::<u64>()]) }
}

pub(crate) unsafe fn cuTexRefGetMipmappedArray(
    phMipmappedArray: *mut CUmipmappedArray,
    hTexRef: CUtexref,
) -> Result {
    // SAFETY: the entry point's contract; a handle is its number.
    unsafe { answer(op::cuTexRefGetMipmappedArray, hTexRef, &[phMipmappedArray.cast::<u64>()]) }
}

pub(crate) unsafe fn cuSurfRefGetArray(phArray: *mut CUarray, hSurfRef: CUsurfref) -> Result {
    // SAFETY: the entry point's contract; a handle is its number.
    unsafe { answer(op::cuSurfRefGetArray, hSurfRef, &[phArray.cast::<u64>()]) }
}

pub(crate) unsafe fn cuTexRefGetMipmapLevelClamp(
    pminMipmapLevelClamp: *mut f32,
    pmaxMipmapLevelClamp: *mut f32,
    hTexRef: CUtexref,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { answer(op::cuTexRefGetMipmapLevelClamp, hTexRef, &[pminMipmapLevelClamp, pmaxMipmapLevelClamp]) }
}

pub(crate) unsafe fn cuTexRefGetFormat(
    pFormat: *mut CUarray_format,
    pNumChannels: *mut c_int,
    hTexRef: CUtexref,
) -> Result {
    // SAFETY: the entry point's contract; both are 32-bit numbers.
    unsafe { answer(op::cuTexRefGetFormat, hTexRef, &[pFormat, pNumChannels.cast()]) }
}

pub(crate) unsafe fn cuTexRefGetBorderColor(pBorderColor: *mut f32, hTexRef: CUtexref) -> Result {
    if pBorderColor.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: four numbers by the entry point's contract.
    let channels = unsafe { [pBorderColor, pBorderColor.add(1), pBorderColor.add(2), pBorderColor.add(3)] };
    // SAFETY: as above.
    unsafe { answer(op::cuTexRefGetBorderColor, hTexRef, &channels) }
}

pub(crate) unsafe fn cuTexRefGetAddressMode(
    pam: *mut CUaddress_mode,
    hTexRef: CUtexref,
    dim: c_int,
) -> Result {
    let reply = ask(op::cuTexRefGetAddressMode, hTexRef, |writer| writer.put(dim))?;
    let mode = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pam, mode) }
}
