//! Texture and surface objects, whose values are the driver's own because kernels get them as numbers, and tensor maps,
//! which the driver's host code computes.

use super::super::dispatch::{Answer, Call, Failed, done};
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUDA_RESOURCE_DESC, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, CUarray, CUmipmappedArray, CUresult,
    CUtensorMap, MAX_TENSOR_RANK, Resource,
};
use std::ffi::c_void;

/// A resource with the driver's handles.
fn resource(call: &mut Call<'_>) -> Result<CUDA_RESOURCE_DESC, Failed> {
    let resource = match Resource::decode(&mut call.fields)? {
        Resource::Array(array) => Resource::Array(CUarray(call.state.arrays.arrays.get(array.0)?.native)),
        Resource::MipmappedArray(array) => {
            Resource::MipmappedArray(CUmipmappedArray(call.state.arrays.mipmapped.get(array.0)?.native))
        }
        memory => memory,
    };
    Ok(resource.into())
}

/// `cuTexObjectCreate`: resource, texture, whether a view follows, the view.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let resource = resource(call)?;
    let texture: CUDA_TEXTURE_DESC = call.get()?;
    let view = match call.get::<u32>()? {
        0 => None,
        _ => Some(CUDA_RESOURCE_VIEW_DESC::decode(&mut call.fields)?),
    };
    let view_pointer = view.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut object = 0;
    // SAFETY: pointers to locals; arrays are from the worker's tables, addresses are the device's affair.
    unsafe {
        call.driver().cuTexObjectCreate(
            &raw mut object,
            &raw const resource,
            &raw const texture,
            view_pointer,
        )?;
    };
    call.state.arrays.textures.insert(object, call.header.context);
    call.reply().put(object);
    done()
}

/// `cuTexObjectDestroy`: object.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let object = call.get()?;
    call.state.arrays.textures.remove(&object).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: an object of this session's, taken out of the table.
    unsafe { call.driver().cuTexObjectDestroy(object)? };
    done()
}

/// `cuSurfObjectCreate`: resource.
pub(in super::super) fn create_surface(call: &mut Call<'_>) -> Answer {
    let resource = resource(call)?;
    let mut object = 0;
    // SAFETY: pointers to locals; arrays are from the worker's tables.
    unsafe { call.driver().cuSurfObjectCreate(&raw mut object, &raw const resource)? };
    call.state.arrays.surfaces.insert(object, call.header.context);
    call.reply().put(object);
    done()
}

/// `cuSurfObjectDestroy`: object.
pub(in super::super) fn destroy_surface(call: &mut Call<'_>) -> Answer {
    let object = call.get()?;
    call.state.arrays.surfaces.remove(&object).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: an object of this session's, taken out of the table.
    unsafe { call.driver().cuSurfObjectDestroy(object)? };
    done()
}

/// The arguments that every encoding has. The driver computes with the address; it does not follow it.
struct Tensor {
    kind: u32,
    rank: u32,
    address: *mut c_void,
    dimensions: [u64; MAX_TENSOR_RANK],
    strides: [u64; MAX_TENSOR_RANK],
    element_strides: [u32; MAX_TENSOR_RANK],
}

/// A pointer to as many numbers as there are; null where the guest's was.
fn pointer<T>(given: bool, numbers: &[T]) -> *const T {
    if given { numbers.as_ptr() } else { std::ptr::null() }
}

/// `cuTensorMapEncode…`: type, rank, address, which arrays are given (a bit each), arrays of five numbers each, and the plain
/// numbers in the order of the function's parameters. The answer is the 128 bytes.
pub(in super::super) fn encode(call: &mut Call<'_>) -> Answer {
    let (kind, rank): (u32, u32) = (call.get()?, call.get()?);
    let address = std::ptr::without_provenance_mut(call.get_usize()?);
    let given: u32 = call.get()?;
    let has = |bit: u32| given & 1 << bit != 0;
    let mut tensor = Tensor {
        kind,
        rank,
        address,
        dimensions: [0; MAX_TENSOR_RANK],
        strides: [0; MAX_TENSOR_RANK],
        element_strides: [0; MAX_TENSOR_RANK],
    };
    for number in tensor.dimensions.iter_mut().chain(&mut tensor.strides) {
        *number = call.get()?;
    }
    for number in &mut tensor.element_strides {
        *number = call.get()?;
    }
    let (mut first, mut second) = ([0_u32; MAX_TENSOR_RANK], [0_u32; MAX_TENSOR_RANK]);
    for number in first.iter_mut().chain(&mut second) {
        *number = call.get()?;
    }
    let mut plain = [0_u32; 9];
    for number in &mut plain {
        *number = call.get()?;
    }
    if rank as usize > MAX_TENSOR_RANK {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let mut map = CUtensorMap { opaque: [0; 16] };
    let [lower_width, upper_width, channels, pixels, interleave, mode, swizzle, promotion, fill] = plain;
    let driver = call.driver();
    let Tensor { kind, rank, address, .. } = tensor;
    let dimensions = pointer(has(0), &tensor.dimensions);
    let strides = pointer(has(1), &tensor.strides);
    let element_strides = pointer(has(2), &tensor.element_strides);
    // SAFETY: pointers to locals of five numbers, as many as the highest rank; the address is only computed with.
    unsafe {
        match call.header.op {
            op::cuTensorMapEncodeTiled => driver.cuTensorMapEncodeTiled(
                &raw mut map,
                kind,
                rank,
                address,
                dimensions,
                strides,
                pointer(has(3), &first),
                element_strides,
                interleave,
                swizzle,
                promotion,
                fill,
            )?,
            op::cuTensorMapEncodeIm2col => driver.cuTensorMapEncodeIm2col(
                &raw mut map,
                kind,
                rank,
                address,
                dimensions,
                strides,
                pointer(has(3), &first).cast(),
                pointer(has(4), &second).cast(),
                channels,
                pixels,
                element_strides,
                interleave,
                swizzle,
                promotion,
                fill,
            )?,
            _ => driver.cuTensorMapEncodeIm2colWide(
                &raw mut map,
                kind,
                rank,
                address,
                dimensions,
                strides,
                lower_width.cast_signed(),
                upper_width.cast_signed(),
                channels,
                pixels,
                element_strides,
                interleave,
                mode,
                swizzle,
                promotion,
                fill,
            )?,
        }
    }
    call.reply().put(map);
    done()
}

/// `cuTensorMapReplaceAddress`: map, address. The answer is the map.
pub(in super::super) fn replace_address(call: &mut Call<'_>) -> Answer {
    let mut map: CUtensorMap = call.get()?;
    let address = std::ptr::without_provenance_mut(call.get_usize()?);
    // SAFETY: a pointer to a local; the address is only computed with.
    unsafe { call.driver().cuTensorMapReplaceAddress(&raw mut map, address)? };
    call.reply().put(map);
    done()
}
