//! Modules, and what they share with libraries: images, functions, variables.

use super::super::dispatch::{Answer, Call, Failed, done};
use super::super::state::{Function, Owned, State};
use crate::driver::{Driver, Result};
use pxos_protocol::codec::Writer;
use pxos_protocol::control::Device;
use pxos_protocol::frame::MAX_PAYLOAD;
use pxos_protocol::types::attribute::{COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR};
use pxos_protocol::types::{CUjit_option, CUresult};
use std::ffi::{CStr, CString, c_void};

/// Attributes of a function in CUDA 13.0.
pub(super) const ATTRIBUTES: u32 = 16;

/// Most parameters of a kernel.
const MAX_PARAMS: usize = 32_764;

/// Most images that are linked to one: object files of a program.
const MAX_UNLINKED: u64 = 1 << 16;

/// Longest compiler log that is carried.
const MAX_LOG: u32 = 256 << 10;

/// Most JIT options of one load.
const MAX_OPTIONS: u64 = 64;

const WALL_TIME: CUjit_option = 2;
const INFO_LOG_BUFFER: CUjit_option = 3;
const INFO_LOG_BYTES: CUjit_option = 4;
const ERROR_LOG_BUFFER: CUjit_option = 5;
const ERROR_LOG_BYTES: CUjit_option = 6;

/// JIT options as the driver wants them, with log buffers of ours.
pub(super) struct Jit {
    pub(super) options: Vec<CUjit_option>,
    pub(super) values: Vec<*mut c_void>,
    /// How many of them, the first ones, carry plain values.
    plain: usize,
    info: Vec<u8>,
    error: Vec<u8>,
}

impl Jit {
    /// Reads them from a load call.
    pub(super) fn read(call: &mut Call<'_>) -> std::result::Result<Self, Failed> {
        let count: u64 = call.get()?;
        if count > MAX_OPTIONS {
            return Err(Failed::Call(CUresult::ERROR_INVALID_VALUE));
        }
        let mut jit =
            Self { options: Vec::new(), values: Vec::new(), plain: 0, info: Vec::new(), error: Vec::new() };
        for _ in 0..count {
            let option: u32 = call.get()?;
            let value = call.get_usize()?;
            // A pointer of the guest's must not reach the driver: only options with plain values pass.
            if matches!(option, 0 | 1 | 7..=16 | 20..=34) {
                jit.options.push(option);
                jit.values.push(std::ptr::without_provenance_mut(value));
            }
        }
        jit.plain = jit.options.len();
        let (info, error): (u32, u32) = (call.get()?, call.get()?);
        jit.info = vec![0; info.min(MAX_LOG) as usize];
        jit.error = vec![0; error.min(MAX_LOG) as usize];
        for (buffer, bytes, log) in [
            (INFO_LOG_BUFFER, INFO_LOG_BYTES, &mut jit.info),
            (ERROR_LOG_BUFFER, ERROR_LOG_BYTES, &mut jit.error),
        ] {
            if !log.is_empty() {
                jit.options.extend([buffer, bytes]);
                jit.values.extend([log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())]);
            }
        }
        jit.options.push(WALL_TIME);
        jit.values.push(std::ptr::null_mut());
        Ok(jit)
    }

    /// How many options carry plain values; they come first.
    pub(super) fn plain(&self) -> usize {
        self.plain
    }

    /// Writes result and logs; the call itself succeeds, so that the logs of a failure travel.
    pub(super) fn reply(&self, writer: &mut Writer<'_>, result: Result) {
        let text = |log: &[u8]| log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        writer.put(CUresult::from(result));
        let wall_time = self.values.last().map_or(0, |value| value.addr() & 0xffff_ffff);
        writer.put(f32::from_bits(u32::try_from(wall_time).unwrap_or(0)));
        writer.put_bytes(&self.info[..text(&self.info)]);
        writer.put_bytes(&self.error[..text(&self.error)]);
    }
}

/// The hashes of the images from before the device code of a load call's image was linked.
pub(super) fn unlinked(call: &mut Call<'_>) -> std::result::Result<Vec<[u64; 2]>, Failed> {
    let count: u64 = call.get()?;
    if count > MAX_UNLINKED {
        return Err(Failed::Call(CUresult::ERROR_INVALID_VALUE));
    }
    (0..count).map(|_| call.get()).collect()
}

/// `cuModuleLoadData`: handle, hash, JIT options, hashes of the images from before the link.
pub(in super::super) fn load(call: &mut Call<'_>) -> Answer {
    let (handle, hash): (u64, [u64; 2]) = (call.get()?, call.get()?);
    let mut jit = Jit::read(call)?;
    let unlinked = unlinked(call)?;
    call.state.modules.check(handle)?;
    call.state.grow_stack(call.session)?;
    let image = call.state.images.loadable(hash, &unlinked)?;
    let mut native = 0;
    let count = u32::try_from(jit.options.len()).expect("bounded by MAX_OPTIONS");
    // SAFETY: a complete image; arrays of `count` entries, whose pointers lead to buffers of `jit`.
    let loaded = unsafe {
        call.driver().cuModuleLoadDataEx(
            &raw mut native,
            image.as_ptr(),
            count,
            jit.options.as_mut_ptr(),
            jit.values.as_mut_ptr(),
        )
    };
    if loaded.is_ok() {
        call.state.modules.insert(handle, Owned { native, context: call.header.context })?;
        call.state.images.loaded(handle, hash, unlinked);
    }
    jit.reply(&mut call.reply(), loaded);
    done()
}

/// `cuModuleUnload`: handle.
pub(in super::super) fn unload(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    if call.state.of_libraries.contains_key(&handle) {
        // The library's to unload (CUDA driver API, cuModuleUnload).
        return Err(CUresult::ERROR_NOT_PERMITTED.into());
    }
    let module = call.state.modules.remove(handle)?;
    call.state.images.unloaded(handle);
    call.state.functions.forget(|function| function.owner == handle && !function.is_kernel);
    call.state.arrays.references.forget(|reference| reference.module == handle);
    // SAFETY: a module of this session's, taken out of the table.
    unsafe { call.driver().cuModuleUnload(module.native)? };
    done()
}

/// The next field, a name.
pub(super) fn name(call: &mut Call<'_>) -> std::result::Result<CString, Failed> {
    let bytes = call.fields.get_bytes()?;
    CString::new(bytes).map_err(|_| Failed::Call(CUresult::ERROR_NOT_FOUND))
}

/// Offset and size of each parameter (`cuFuncGetParamInfo`, driver 12.4 and later).
fn params(driver: &Driver, native: u64, is_kernel: bool) -> Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    while found.len() < MAX_PARAMS {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: a function of this session's; pointers to locals.
        let told = unsafe {
            if is_kernel {
                driver.cuKernelGetParamInfo(native, found.len(), &raw mut offset, &raw mut size)
            } else {
                driver.cuFuncGetParamInfo(native, found.len(), &raw mut offset, &raw mut size)
            }
        };
        match told {
            Ok(()) => found.push((
                u32::try_from(offset).map_err(|_| CUresult::ERROR_UNKNOWN)?,
                u32::try_from(size).map_err(|_| CUresult::ERROR_UNKNOWN)?,
            )),
            Err(CUresult::ERROR_INVALID_VALUE) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Writes every attribute of a function, or of a kernel on a device; `i32::MIN` for one that the driver refuses.
pub(super) fn write_attributes(call: &mut Call<'_>, native: u64, kernel_on: Option<i32>) {
    let driver = call.driver();
    let mut values = [i32::MIN; ATTRIBUTES as usize];
    for (attribute, slot) in (0..).zip(&mut values) {
        let mut value = 0;
        // SAFETY: a function of this session's; a pointer to a local.
        let told = unsafe {
            if let Some(device) = kernel_on {
                driver.cuKernelGetAttribute(&raw mut value, attribute, native, device)
            } else {
                driver.cuFuncGetAttribute(&raw mut value, attribute, native)
            }
        };
        if told.is_ok() {
            *slot = value;
        }
    }
    let mut reply = call.reply();
    values.into_iter().for_each(|value| reply.put(value));
}

/// Files a function under the guest's handle and answers with its attributes and parameters.
pub(super) fn file(
    call: &mut Call<'_>,
    owner: u64,
    handle: u64,
    native: u64,
    name: CString,
    is_kernel: bool,
) -> Answer {
    let params = params(call.driver(), native, is_kernel)?;
    let end = params.iter().map(|(offset, size)| *offset as usize + *size as usize).max().unwrap_or(0);
    let offsets = params.iter().map(|(offset, _)| *offset).collect();
    let function = Function { native, owner, is_kernel, name, offsets, param_bytes: end };
    let table = if is_kernel { &mut call.state.kernels } else { &mut call.state.functions };
    table.insert(handle, function)?;
    let device = call.state.contexts.get(call.header.context).map_or(0, |context| context.device);
    write_attributes(call, native, is_kernel.then_some(device));
    let mut tail = Vec::new();
    let mut writer = Writer::new(&mut tail);
    writer.put(params.len() as u64);
    for (offset, size) in params {
        writer.put(offset);
        writer.put(size);
    }
    call.state.reply.extend_from_slice(&tail);
    done()
}

/// `cuModuleGetFunction`: module, handle, name.
pub(in super::super) fn function(call: &mut Call<'_>) -> Answer {
    let (owner, handle): (u64, u64) = (call.get()?, call.get()?);
    let name = name(call)?;
    let module = call.state.modules.get(owner)?.native;
    let mut native = 0;
    // SAFETY: a module of this session's; pointers to a local and a C string.
    unsafe { call.driver().cuModuleGetFunction(&raw mut native, module, name.as_ptr())? };
    file(call, owner, handle, native, name, false)
}

/// SYSTEM_ATOMICS: function, whether it is a kernel of a library; 1 comes back where it makes system-scope atomics. What
/// cannot be read of an image makes none.
pub(in super::super) fn system_atomics(call: &mut Call<'_>) -> Answer {
    let (handle, is_kernel): (u64, u64) = (call.get()?, call.get()?);
    let architecture = |device: &Device| {
        let version = |attribute| u32::try_from(device.attribute(attribute)).unwrap_or(0);
        10 * version(COMPUTE_CAPABILITY_MAJOR) + version(COMPUTE_CAPABILITY_MINOR)
    };
    let architectures: Vec<u32> = call.session.snapshot.devices.iter().map(architecture).collect();
    let State { kernels, functions, of_libraries, images, .. } = &mut *call.state;
    let function = if is_kernel == 0 { functions.get(handle)? } else { kernels.get(handle)? };
    let image_of = of_libraries.get(&function.owner).unwrap_or(&function.owner);
    let makes = images.makes_system_atomics(*image_of, &function.name.to_string_lossy(), &architectures);
    call.reply().put(u64::from(makes));
    done()
}

/// Writes a list of names, as many as fit into an answer.
pub(super) fn write_names(
    call: &mut Call<'_>,
    natives: &[u64],
    name_of: impl Fn(&Driver, u64) -> Result<*const std::ffi::c_char>,
) -> Answer {
    let mut names = Vec::new();
    let mut total = 64;
    for native in natives {
        let pointer = name_of(call.driver(), *native)?;
        if pointer.is_null() {
            continue;
        }
        // SAFETY: a name of the driver's, which lives as long as the module.
        let name = unsafe { CStr::from_ptr(pointer) }.to_bytes().to_vec();
        total += name.len() + 16;
        names.push(name);
    }
    if total > MAX_PAYLOAD {
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    let mut reply = call.reply();
    reply.put(names.len() as u64);
    names.iter().for_each(|name| reply.put_bytes(name));
    done()
}

/// `cuModuleEnumerateFunctions`: module; the answer is names.
pub(in super::super) fn enumerate(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let module = call.state.modules.get(handle)?.native;
    let mut count = 0;
    // SAFETY: a module of this session's; a pointer to a local.
    unsafe { call.driver().cuModuleGetFunctionCount(&raw mut count, module)? };
    let mut natives = vec![0; count as usize];
    // SAFETY: room for `count` functions.
    unsafe { call.driver().cuModuleEnumerateFunctions(natives.as_mut_ptr(), count, module)? };
    write_names(call, &natives, |driver, native| {
        let mut name = std::ptr::null();
        // SAFETY: a function that the driver just named; a pointer to a local.
        unsafe { driver.cuFuncGetName(&raw mut name, native)? };
        Ok(name)
    })
}

/// `CU_POINTER_ATTRIBUTE_IS_MANAGED`.
const IS_MANAGED: u32 = 8;

/// Answers with a variable's address, its bytes and whether it is managed.
pub(super) fn write_variable(call: &mut Call<'_>, address: u64, bytes: usize) {
    let mut managed = 0u32;
    // SAFETY: an address of the driver's; the attribute is a boolean, for which there is room.
    let told = unsafe { call.driver().cuPointerGetAttribute((&raw mut managed).cast(), IS_MANAGED, address) };
    let managed = told.is_ok() && managed & 0xff != 0;
    let mut reply = call.reply();
    reply.put(address);
    reply.put(bytes as u64);
    reply.put(u32::from(managed));
}

/// `cuModuleGetGlobal`: module, name; address, bytes and whether it is managed come back.
pub(in super::super) fn global(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let name = name(call)?;
    let module = call.state.modules.get(handle)?.native;
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: a module of this session's; pointers to locals and a C string.
    unsafe { call.driver().cuModuleGetGlobal_v2(&raw mut address, &raw mut bytes, module, name.as_ptr())? };
    write_variable(call, address, bytes);
    done()
}
