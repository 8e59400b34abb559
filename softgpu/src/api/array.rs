//! Arrays (CUDA driver API, section "Memory management": `cuArray…` and `cuMipmappedArray…`).

use super::driver_fns;
use crate::device::array::{ARRAYS, Array, MIPMAPS, MipmappedArray};
use crate::device::context;
use pxos_protocol::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY_SPARSE_PROPERTIES,
    CUDA_ARRAY3D_DESCRIPTOR, CUarray, CUdevice, CUmipmappedArray, CUresult,
};
use std::ffi::c_uint;

driver_fns! {
    /// Makes an array of rows.
    ready fn cuArrayCreate_v2(array: *mut CUarray, descriptor: *const CUDA_ARRAY_DESCRIPTOR) {
        let active = context::current()?;
        array.required()?;
        array.put(Array::create(&active, descriptor.read()?.into())?)
    }

    /// What an array of rows was made as.
    ready fn cuArrayGetDescriptor_v2(descriptor: *mut CUDA_ARRAY_DESCRIPTOR, array: CUarray) {
        let array = ARRAYS.get(array)?;
        descriptor.put(array.descriptor.flat())
    }

    /// Makes an array of rows and planes or layers.
    ready fn cuArray3DCreate_v2(array: *mut CUarray, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR) {
        let active = context::current()?;
        array.required()?;
        array.put(Array::create(&active, descriptor.read()?)?)
    }

    /// What an array was made as.
    ready fn cuArray3DGetDescriptor_v2(descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, array: CUarray) {
        let array = ARRAYS.get(array)?;
        descriptor.put(array.descriptor)
    }

    /// Destroys an array, after all work of the context.
    ready fn cuArrayDestroy(array: CUarray) {
        let active = context::current()?;
        active.wait();
        Array::destroy(array)
    }

    /// How a sparse array is tiled; no array here is sparse.
    ready fn cuArrayGetSparseProperties(_properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: CUarray) {
        ARRAYS.get(array)?;
        Err(CUresult::ERROR_INVALID_VALUE)
    }

    /// How a sparse mipmapped array is tiled; none here is sparse.
    ready fn cuMipmappedArrayGetSparseProperties(_properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: CUmipmappedArray) {
        MIPMAPS.get(array)?;
        Err(CUresult::ERROR_INVALID_VALUE)
    }

    /// The memory that an array of deferred mapping needs; none here is one.
    ready fn cuArrayGetMemoryRequirements(_requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: CUarray, _dev: CUdevice) {
        ARRAYS.get(array)?;
        Err(CUresult::ERROR_INVALID_VALUE)
    }

    /// The memory that a mipmapped array of deferred mapping needs; none here is one.
    ready fn cuMipmappedArrayGetMemoryRequirements(
        _requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
        array: CUmipmappedArray,
        _dev: CUdevice,
    ) {
        MIPMAPS.get(array)?;
        Err(CUresult::ERROR_INVALID_VALUE)
    }

    /// A plane of a video format; arrays here have no such format.
    ready fn cuArrayGetPlane(_plane: *mut CUarray, array: CUarray, _index: c_uint) {
        ARRAYS.get(array)?;
        Err(CUresult::ERROR_INVALID_VALUE)
    }

    /// Makes a mipmapped array.
    ready fn cuMipmappedArrayCreate(array: *mut CUmipmappedArray, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR, levels: c_uint) {
        let active = context::current()?;
        array.required()?;
        array.put(MipmappedArray::create(&active, descriptor.read()?, levels)?)
    }

    /// A level of a mipmapped array.
    ready fn cuMipmappedArrayGetLevel(level: *mut CUarray, array: CUmipmappedArray, number: c_uint) {
        level.required()?;
        let mipmap = MIPMAPS.get(array)?;
        let found = mipmap.levels.get(number as usize).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        level.put(found.handle)
    }

    /// Destroys a mipmapped array, after all work of the context.
    ready fn cuMipmappedArrayDestroy(array: CUmipmappedArray) {
        let active = context::current()?;
        active.wait();
        MipmappedArray::destroy(array)
    }
}
