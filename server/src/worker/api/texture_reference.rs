//! Texture and surface references: the names under which device code of before CUDA 12 reads textures.

use super::super::dispatch::{Answer, Call, done};
use super::super::state::Owned;
use super::module::name;
use crate::driver::Result;
use pxos_protocol::api::op;
use pxos_protocol::types::{CUDA_ARRAY_DESCRIPTOR, CUresult};

/// A reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    /// The driver's handle.
    native: u64,
    /// The guest's handle of the context.
    pub(crate) context: u64,
    /// The guest's handle of the module that has it, 0 for one that the guest made.
    pub(crate) module: u64,
}

/// `cuModuleGetTexRef` and `cuModuleGetSurfRef`: module, handle, name.
pub(in super::super) fn find(call: &mut Call<'_>) -> Answer {
    let (module, handle): (u64, u64) = (call.get()?, call.get()?);
    let name = name(call)?;
    let Owned { native: native_module, context } = *call.state.modules.get(module)?;
    let driver = call.driver();
    let mut native = 0;
    // SAFETY: a module of this session's; pointers to a local and a C string.
    unsafe {
        if call.header.op == op::cuModuleGetSurfRef {
            driver.cuModuleGetSurfRef(&raw mut native, native_module, name.as_ptr())?;
        } else {
            driver.cuModuleGetTexRef(&raw mut native, native_module, name.as_ptr())?;
        }
    }
    let reference = Reference { native, context, module };
    call.state.arrays.references.insert(handle, reference)?;
    done()
}

/// `cuTexRefCreate`: handle.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let mut native = 0;
    // SAFETY: a pointer to a local.
    unsafe { call.driver().cuTexRefCreate(&raw mut native)? };
    call.state
        .arrays
        .references
        .insert(handle, Reference { native, context: call.header.context, module: 0 })?;
    done()
}

/// `cuTexRefDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    if call.state.arrays.references.get(handle)?.module != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let reference = call.state.arrays.references.remove(handle)?;
    // SAFETY: a reference of this session's, taken out of the table.
    unsafe { call.driver().cuTexRefDestroy(reference.native)? };
    done()
}

/// `cuTexRefSet…` and `cuSurfRefSetArray`: reference, and the function's own parameters in their order.
pub(in super::super) fn set(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let native = call.state.arrays.references.get(handle)?.native;
    let driver = call.driver();
    // SAFETY: a reference of this session's, arrays from its tables, pointers to locals; addresses are the device's affair.
    unsafe {
        match call.header.op {
            op::cuTexRefSetArray | op::cuSurfRefSetArray => {
                let (array, flags): (u64, u32) = (call.get()?, call.get()?);
                let array = if array == 0 { 0 } else { call.state.arrays.arrays.get(array)?.native };
                if call.header.op == op::cuSurfRefSetArray {
                    driver.cuSurfRefSetArray(native, array, flags)?;
                } else {
                    driver.cuTexRefSetArray(native, array, flags)?;
                }
            }
            op::cuTexRefSetMipmappedArray => {
                let (array, flags): (u64, u32) = (call.get()?, call.get()?);
                let array = if array == 0 { 0 } else { call.state.arrays.mipmapped.get(array)?.native };
                driver.cuTexRefSetMipmappedArray(native, array, flags)?;
            }
            op::cuTexRefSetAddress_v2 => {
                let address = call.get()?;
                let bytes = call.get_usize()?;
                let mut offset = 0;
                driver.cuTexRefSetAddress_v2(&raw mut offset, native, address, bytes)?;
                call.reply().put(offset as u64);
            }
            op::cuTexRefSetAddress2D_v3 => {
                let (width, height) = (call.get_usize()?, call.get_usize()?);
                let (format, num_channels) = (call.get()?, call.get()?);
                let address = call.get()?;
                let pitch = call.get_usize()?;
                let descriptor = CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels };
                driver.cuTexRefSetAddress2D_v3(native, &raw const descriptor, address, pitch)?;
            }
            op::cuTexRefSetFormat => driver.cuTexRefSetFormat(native, call.get()?, call.get()?)?,
            op::cuTexRefSetAddressMode => driver.cuTexRefSetAddressMode(native, call.get()?, call.get()?)?,
            op::cuTexRefSetFilterMode => driver.cuTexRefSetFilterMode(native, call.get()?)?,
            op::cuTexRefSetMipmapFilterMode => driver.cuTexRefSetMipmapFilterMode(native, call.get()?)?,
            op::cuTexRefSetMipmapLevelBias => driver.cuTexRefSetMipmapLevelBias(native, call.get()?)?,
            op::cuTexRefSetMipmapLevelClamp => {
                driver.cuTexRefSetMipmapLevelClamp(native, call.get()?, call.get()?)?;
            }
            op::cuTexRefSetMaxAnisotropy => driver.cuTexRefSetMaxAnisotropy(native, call.get()?)?,
            op::cuTexRefSetBorderColor => {
                let mut colour: [f32; 4] = [call.get()?, call.get()?, call.get()?, call.get()?];
                driver.cuTexRefSetBorderColor(native, colour.as_mut_ptr())?;
            }
            op::cuTexRefSetFlags => driver.cuTexRefSetFlags(native, call.get()?)?,
            _ => return Err(CUresult::ERROR_NOT_SUPPORTED.into()),
        }
    }
    done()
}

/// `cuTexRefGet…` and `cuSurfRefGetArray`: reference, and for the address mode the dimension. The answer is what the function
/// writes, arrays as the guest's handles.
pub(in super::super) fn query(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let native = call.state.arrays.references.get(handle)?.native;
    let driver = call.driver();
    let (mut word, mut number, mut count, mut float, mut second) = (0_u64, 0_u32, 0_i32, 0_f32, 0_f32);
    // SAFETY: a reference of this session's, pointers to locals.
    unsafe {
        match call.header.op {
            op::cuTexRefGetAddress_v2 => {
                driver.cuTexRefGetAddress_v2(&raw mut word, native)?;
                call.reply().put(word);
            }
            op::cuTexRefGetArray | op::cuSurfRefGetArray => {
                if call.header.op == op::cuSurfRefGetArray {
                    driver.cuSurfRefGetArray(&raw mut word, native)?;
                } else {
                    driver.cuTexRefGetArray(&raw mut word, native)?;
                }
                let array = known(call.state.arrays.handle_of(word))?;
                call.reply().put(array);
            }
            op::cuTexRefGetMipmappedArray => {
                driver.cuTexRefGetMipmappedArray(&raw mut word, native)?;
                let array = known(call.state.arrays.mipmapped_of(word))?;
                call.reply().put(array);
            }
            op::cuTexRefGetAddressMode => {
                driver.cuTexRefGetAddressMode(&raw mut number, native, call.get()?)?;
                call.reply().put(number);
            }
            op::cuTexRefGetFilterMode => {
                driver.cuTexRefGetFilterMode(&raw mut number, native)?;
                call.reply().put(number);
            }
            op::cuTexRefGetMipmapFilterMode => {
                driver.cuTexRefGetMipmapFilterMode(&raw mut number, native)?;
                call.reply().put(number);
            }
            op::cuTexRefGetFlags => {
                driver.cuTexRefGetFlags(&raw mut number, native)?;
                call.reply().put(number);
            }
            op::cuTexRefGetFormat => {
                driver.cuTexRefGetFormat(&raw mut number, &raw mut count, native)?;
                let mut reply = call.reply();
                reply.put(number);
                reply.put(count);
            }
            op::cuTexRefGetMaxAnisotropy => {
                driver.cuTexRefGetMaxAnisotropy(&raw mut count, native)?;
                call.reply().put(count);
            }
            op::cuTexRefGetMipmapLevelBias => {
                driver.cuTexRefGetMipmapLevelBias(&raw mut float, native)?;
                call.reply().put(float);
            }
            op::cuTexRefGetMipmapLevelClamp => {
                driver.cuTexRefGetMipmapLevelClamp(&raw mut float, &raw mut second, native)?;
                let mut reply = call.reply();
                reply.put(float);
                reply.put(second);
            }
            op::cuTexRefGetBorderColor => {
                let mut colour = [0_f32; 4];
                driver.cuTexRefGetBorderColor(colour.as_mut_ptr(), native)?;
                let mut reply = call.reply();
                colour.into_iter().for_each(|channel| reply.put(channel));
            }
            _ => return Err(CUresult::ERROR_NOT_SUPPORTED.into()),
        }
    }
    done()
}

/// An array that a reference names, unless it is gone.
fn known(handle: Option<u64>) -> Result<u64> {
    handle.ok_or(CUresult::ERROR_INVALID_VALUE)
}
