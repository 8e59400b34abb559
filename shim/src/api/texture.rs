//! Texture and surface objects, and tensor maps.
//!
//! An object's value is the driver's own, because kernels get it as a plain number; what it was made from is kept here and
//! told from here. A tensor map is computed by the driver's host code: its arguments go there and 128 bytes come back.

use super::array::{array, mipmapped};
use super::{Result, enter, put};
use crate::arrays::Object;
use crate::call::{call, garbled, post};
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUDA_RESOURCE_DESC, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, CUarray, CUmipmappedArray, CUresult,
    CUsurfObject, CUtensorMap, CUtexObject, MAX_TENSOR_RANK, Resource,
};
use std::ffi::{c_int, c_uint, c_void};

/// What a description says, its arrays alive.
fn checked(session: &Session, description: &CUDA_RESOURCE_DESC) -> Result<Resource> {
    let resource = description.resource().ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match resource {
        Resource::Array(CUarray(0)) | Resource::MipmappedArray(CUmipmappedArray(0)) => {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Resource::Array(handle) => {
            array(session, handle)?;
        }
        Resource::MipmappedArray(handle) => {
            mipmapped(session, handle)?;
        }
        Resource::Linear { .. } | Resource::Pitch2D { .. } => {}
    }
    if description.flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(resource)
}

pub(crate) unsafe fn cuTexObjectCreate(
    pTexObject: *mut CUtexObject,
    pResDesc: *const CUDA_RESOURCE_DESC,
    pTexDesc: *const CUDA_TEXTURE_DESC,
    pResViewDesc: *const CUDA_RESOURCE_VIEW_DESC,
) -> Result {
    let (session, context) = enter()?;
    if pTexObject.is_null() || pResDesc.is_null() || pTexDesc.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let (description, texture) = unsafe { (pResDesc.read(), pTexDesc.read()) };
    // SAFETY: null, or readable by the entry point's contract.
    let view = unsafe { pResViewDesc.as_ref() }.copied();
    let resource = checked(session, &description)?;
    let reply = call(op::cuTexObjectCreate, |writer| {
        resource.encode(writer);
        writer.put(texture);
        writer.put(u32::from(view.is_some()));
        if let Some(view) = &view {
            view.encode(writer);
        }
    })?;
    let value: u64 = reply.reader().get().map_err(garbled)?;
    let object = Object { context: context.handle, resource: description, texture, view };
    session.arrays.textures.insert(value, object);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pTexObject, value) }
}

pub(crate) unsafe fn cuTexObjectDestroy(texObject: CUtexObject) -> Result {
    let session = session()?;
    session.check()?;
    if texObject == 0 {
        return Ok(());
    }
    session.arrays.textures.remove(texObject).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    post(op::cuTexObjectDestroy, |writer| writer.put(texObject))
}

/// A texture object that is alive.
fn texture(value: CUtexObject) -> Result<Object> {
    let (session, _) = enter()?;
    session.arrays.textures.get(value).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) unsafe fn cuTexObjectGetResourceDesc(
    pResDesc: *mut CUDA_RESOURCE_DESC,
    texObject: CUtexObject,
) -> Result {
    let object = texture(texObject)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pResDesc, object.resource) }
}

pub(crate) unsafe fn cuTexObjectGetTextureDesc(
    pTexDesc: *mut CUDA_TEXTURE_DESC,
    texObject: CUtexObject,
) -> Result {
    let object = texture(texObject)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pTexDesc, object.texture) }
}

pub(crate) unsafe fn cuTexObjectGetResourceViewDesc(
    pResViewDesc: *mut CUDA_RESOURCE_VIEW_DESC,
    texObject: CUtexObject,
) -> Result {
    // Where there is no view nothing is written (measured on an H200, driver 580; the manual says CUDA_ERROR_INVALID_VALUE).
    let Some(view) = texture(texObject)?.view else { return Ok(()) };
    // SAFETY: the entry point's contract.
    unsafe { put(pResViewDesc, view) }
}

pub(crate) unsafe fn cuSurfObjectCreate(
    pSurfObject: *mut CUsurfObject,
    pResDesc: *const CUDA_RESOURCE_DESC,
) -> Result {
    let (session, context) = enter()?;
    if pSurfObject.is_null() || pResDesc.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let description = unsafe { pResDesc.read() };
    let resource = checked(session, &description)?;
    let reply = call(op::cuSurfObjectCreate, |writer| resource.encode(writer))?;
    let value: u64 = reply.reader().get().map_err(garbled)?;
    let texture = CUDA_TEXTURE_DESC::default();
    let object = Object { context: context.handle, resource: description, texture, view: None };
    session.arrays.surfaces.insert(value, object);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pSurfObject, value) }
}

pub(crate) unsafe fn cuSurfObjectDestroy(surfObject: CUsurfObject) -> Result {
    let session = session()?;
    session.check()?;
    if surfObject == 0 {
        return Ok(());
    }
    session.arrays.surfaces.remove(surfObject).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    post(op::cuSurfObjectDestroy, |writer| writer.put(surfObject))
}

pub(crate) unsafe fn cuSurfObjectGetResourceDesc(
    pResDesc: *mut CUDA_RESOURCE_DESC,
    surfObject: CUsurfObject,
) -> Result {
    let (session, _) = enter()?;
    let object = session.arrays.surfaces.get(surfObject).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pResDesc, object.resource) }
}

/// The arguments of an encoding; arrays as far as they are given.
#[derive(Default)]
struct Tensor {
    kind: u32,
    rank: u32,
    address: u64,
    /// Which arrays are given: a bit each for dimensions, strides, element strides, first and second box.
    given: u32,
    dimensions: [u64; MAX_TENSOR_RANK],
    strides: [u64; MAX_TENSOR_RANK],
    element_strides: [u32; MAX_TENSOR_RANK],
    first: [u32; MAX_TENSOR_RANK],
    second: [u32; MAX_TENSOR_RANK],
    /// Corner widths, channels, pixels, interleave, mode, swizzle, promotion, fill.
    plain: [u32; 9],
}

/// Reads `count` numbers where there are any.
///
/// # Safety
/// `from` is null, or that many numbers may be read.
unsafe fn numbers<T: Copy + Default>(
    given: &mut u32,
    bit: u32,
    from: *const T,
    count: usize,
) -> [T; MAX_TENSOR_RANK] {
    let mut found = [T::default(); MAX_TENSOR_RANK];
    if !from.is_null() {
        *given |= 1 << bit;
        for (index, number) in found.iter_mut().enumerate().take(count) {
            // SAFETY: by this function's contract.
            *number = unsafe { from.add(index).read() };
        }
    }
    found
}

impl Tensor {
    /// What all encodings share.
    ///
    /// # Safety
    /// The pointers are null, or hold as many numbers as the rank asks for.
    unsafe fn new(
        (kind, rank): (u32, u32),
        address: *mut c_void,
        dimensions: *const u64,
        strides: *const u64,
        element_strides: *const u32,
    ) -> Result<Self> {
        let count = rank as usize;
        if count > MAX_TENSOR_RANK {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let mut given = 0;
        // SAFETY: by this function's contract; there is no stride of the innermost dimension.
        let (dimensions, strides, element_strides) = unsafe {
            (
                numbers(&mut given, 0, dimensions, count),
                numbers(&mut given, 1, strides, count.saturating_sub(1)),
                numbers(&mut given, 2, element_strides, count),
            )
        };
        let address = address.expose_provenance() as u64;
        Ok(Self { kind, rank, address, given, dimensions, strides, element_strides, ..Self::default() })
    }

    /// Has the driver compute the map.
    ///
    /// # Safety
    /// `to` may be written.
    unsafe fn encode(&self, op: u16, to: *mut CUtensorMap) -> Result {
        enter()?;
        if to.is_null() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let reply = call(op, |writer| {
            writer.put(self.kind);
            writer.put(self.rank);
            writer.put(self.address);
            writer.put(self.given);
            self.dimensions.iter().chain(&self.strides).for_each(|number| writer.put(*number));
            let small = self.element_strides.iter().chain(&self.first).chain(&self.second).chain(&self.plain);
            small.for_each(|number| writer.put(*number));
        })?;
        let map: CUtensorMap = reply.reader().get().map_err(garbled)?;
        // The application may have given less than the alignment of the type.
        // SAFETY: not null, and writable by this function's contract.
        unsafe { to.write_unaligned(map) };
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuTensorMapEncodeTiled(
    tensorMap: *mut CUtensorMap,
    tensorDataType: c_uint,
    tensorRank: c_uint,
    globalAddress: *mut c_void,
    globalDim: *const u64,
    globalStrides: *const u64,
    boxDim: *const c_uint,
    elementStrides: *const c_uint,
    interleave: c_uint,
    swizzle: c_uint,
    l2Promotion: c_uint,
    oobFill: c_uint,
) -> Result {
    let form = (tensorDataType, tensorRank);
    // SAFETY: the entry point's contract.
    let mut tensor = unsafe { Tensor::new(form, globalAddress, globalDim, globalStrides, elementStrides)? };
    // SAFETY: the entry point's contract.
    tensor.first = unsafe { numbers(&mut tensor.given, 3, boxDim, tensorRank as usize) };
    tensor.plain = [0, 0, 0, 0, interleave, 0, swizzle, l2Promotion, oobFill];
    // SAFETY: the entry point's contract.
    unsafe { tensor.encode(op::cuTensorMapEncodeTiled, tensorMap) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuTensorMapEncodeIm2col(
    tensorMap: *mut CUtensorMap,
    tensorDataType: c_uint,
    tensorRank: c_uint,
    globalAddress: *mut c_void,
    globalDim: *const u64,
    globalStrides: *const u64,
    pixelBoxLowerCorner: *const c_int,
    pixelBoxUpperCorner: *const c_int,
    channelsPerPixel: c_uint,
    pixelsPerColumn: c_uint,
    elementStrides: *const c_uint,
    interleave: c_uint,
    swizzle: c_uint,
    l2Promotion: c_uint,
    oobFill: c_uint,
) -> Result {
    let form = (tensorDataType, tensorRank);
    // SAFETY: the entry point's contract.
    let mut tensor = unsafe { Tensor::new(form, globalAddress, globalDim, globalStrides, elementStrides)? };
    // The corners have a number for each dimension but the outermost and the innermost.
    let corners = (tensorRank as usize).saturating_sub(2);
    // SAFETY: the entry point's contract; signed numbers travel as their bits.
    unsafe {
        tensor.first = numbers(&mut tensor.given, 3, pixelBoxLowerCorner.cast(), corners);
        tensor.second = numbers(&mut tensor.given, 4, pixelBoxUpperCorner.cast(), corners);
    }
    tensor.plain = [0, 0, channelsPerPixel, pixelsPerColumn, interleave, 0, swizzle, l2Promotion, oobFill];
    // SAFETY: the entry point's contract.
    unsafe { tensor.encode(op::cuTensorMapEncodeIm2col, tensorMap) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuTensorMapEncodeIm2colWide(
    tensorMap: *mut CUtensorMap,
    tensorDataType: c_uint,
    tensorRank: c_uint,
    globalAddress: *mut c_void,
    globalDim: *const u64,
    globalStrides: *const u64,
    pixelBoxLowerCornerWidth: c_int,
    pixelBoxUpperCornerWidth: c_int,
    channelsPerPixel: c_uint,
    pixelsPerColumn: c_uint,
    elementStrides: *const c_uint,
    interleave: c_uint,
    mode: c_uint,
    swizzle: c_uint,
    l2Promotion: c_uint,
    oobFill: c_uint,
) -> Result {
    let form = (tensorDataType, tensorRank);
    // SAFETY: the entry point's contract.
    let mut tensor = unsafe { Tensor::new(form, globalAddress, globalDim, globalStrides, elementStrides)? };
    let (lower, upper) = (pixelBoxLowerCornerWidth.cast_unsigned(), pixelBoxUpperCornerWidth.cast_unsigned());
    tensor.plain =
        [lower, upper, channelsPerPixel, pixelsPerColumn, interleave, mode, swizzle, l2Promotion, oobFill];
    // SAFETY: the entry point's contract.
    unsafe { tensor.encode(op::cuTensorMapEncodeIm2colWide, tensorMap) }
}

pub(crate) unsafe fn cuTensorMapReplaceAddress(
    tensorMap: *mut CUtensorMap,
    globalAddress: *mut c_void,
) -> Result {
    enter()?;
    if tensorMap.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and readable by the entry point's contract.
    let map = unsafe { tensorMap.read_unaligned() };
    let reply = call(op::cuTensorMapReplaceAddress, |writer| {
        writer.put(map);
        writer.put(globalAddress.expose_provenance() as u64);
    })?;
    let map: CUtensorMap = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { tensorMap.write_unaligned(map) };
    Ok(())
}
