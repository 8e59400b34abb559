//! Modules (CUDA driver API, section "Module management").

use super::jit::JitLog;
use super::{Answer, In, Out, driver_fns};
use crate::device::context;
use crate::device::kernel::Function;
use crate::device::module::{self, Code, MODULES, Module};
use crate::exec::Program;
use crate::image::{self, PtxImage};
use pxos_protocol::types::{
    CUdeviceptr, CUfunction, CUjit_option, CUlibrary, CUmodule, CUmoduleLoadingMode, CUresult,
};
use std::ffi::{c_char, c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Loads a module from a file.
    ready fn cuModuleLoad(module: *mut CUmodule, file: *const c_char) {
        context::current()?;
        let (module, file) = (module.required()?, file.text()?);
        let bytes = read_file(&file)?;
        module.put(load_bytes(&bytes, &mut JitLog::default())?)
    }

    /// Loads a module from an image in memory.
    ready fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) {
        context::current()?;
        module.required()?;
        module.put(load_pointer(image.raw())?)
    }

    /// Loads a module from an image in memory, with options for the compiler.
    ready fn cuModuleLoadDataEx(
        module: *mut CUmodule,
        image: *const c_void,
        count: c_uint,
        options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) {
        context::current()?;
        module.required()?;
        let mut log = JitLog::from_options(count, options, values)?;
        let code = compile_pointer(image, &mut log);
        log.deliver()?;
        module.put(load_code(Arc::new(code?))?)
    }

    /// Loads a module from a fatbin.
    ready fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) {
        context::current()?;
        module.required()?;
        module.put(load_pointer(image.raw())?)
    }

    /// Unloads a module, after all work of the context. One of a library goes with its library only (measured).
    ready fn cuModuleUnload(module: CUmodule) {
        let active = context::current()?;
        let module = live(module)?;
        if !module.library.is_null() {
            return Err(CUresult::ERROR_NOT_PERMITTED);
        }
        active.wait();
        active.flush();
        module::unload(&module);
        Ok(())
    }

    /// When code is loaded: lazily.
    ready fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode) {
        mode.put(2)
    }

    /// A function of a module by name.
    ready fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char) {
        context::current()?;
        let (function, name) = (function.required()?, name.text()?);
        let module = live(module)?;
        let index = module.code.kernel(&name).ok_or(CUresult::ERROR_NOT_FOUND)?;
        function.put(module.functions()?[index].handle)
    }

    /// How many functions a module has.
    ready fn cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule) {
        let module = live(module)?;
        count.put(c_uint::try_from(module.functions()?.len()).expect("fewer kernels than handles"))
    }

    /// The functions of a module, as many as there is room for.
    ready fn cuModuleEnumerateFunctions(functions: *mut CUfunction, room: c_uint, module: CUmodule) {
        let module = live(module)?;
        for (index, function) in module.functions()?.iter().take(room as usize).enumerate() {
            functions.put_at(index, function.handle)?;
        }
        Ok(())
    }

    /// Address and length of a module's variable.
    ready fn cuModuleGetGlobal_v2(address: *mut CUdeviceptr, bytes: *mut usize, module: CUmodule, name: *const c_char) {
        context::current()?;
        let (module, name) = (live(module)?, name.text()?);
        give_global(&module, &name, address, bytes)
    }
}

fn live(module: CUmodule) -> Answer<Arc<Module>> {
    MODULES.get(module)
}

/// Writes where a variable is; at least one of the two must be wanted.
pub(crate) fn give_global(
    module: &Module,
    name: &str,
    address: Out<CUdeviceptr>,
    bytes: Out<usize>,
) -> Answer {
    if address.is_null() && bytes.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let Some((base, length)) = module.global(name) else {
        // A kernel is no variable, but it is found (measured).
        let is_kernel = module.code.kernel(name).is_some();
        return Err(if is_kernel { CUresult::ERROR_INVALID_VALUE } else { CUresult::ERROR_NOT_FOUND });
    };
    address.put_if_wanted(base);
    bytes.put_if_wanted(usize::try_from(length).expect("addresses have 64 bits here"));
    Ok(())
}

/// `cuModuleLoadData` from inside.
pub(crate) fn load_pointer(image: *const c_void) -> Answer<CUmodule> {
    let code = compile_pointer(In::from_api(image), &mut JitLog::default())?;
    load_code(Arc::new(code))
}

/// The functions of a module, as numbers, for the CUDA libraries.
pub(crate) fn functions_of(module: CUmodule) -> Answer<Vec<u64>> {
    let module = live(module)?;
    let handle = |function: &Arc<Function>| function.handle.0;
    Ok(module.functions()?.iter().map(handle).collect())
}

fn load_bytes(bytes: &[u8], log: &mut JitLog) -> Answer<CUmodule> {
    load_code(Arc::new(compile_bytes(&[bytes], log)?))
}

fn load_code(code: Arc<Code>) -> Answer<CUmodule> {
    let active = context::current()?;
    active.flush();
    Ok(module::load(&active, code, CUlibrary::NULL, &[])?.handle)
}

/// A file's bytes, with a NUL behind them for the case that they are text.
pub(crate) fn read_file(file: &str) -> Answer<Vec<u8>> {
    std::fs::read(file).map_err(|_| CUresult::ERROR_FILE_NOT_FOUND)
}

/// Compiles what a load call was given.
pub(crate) fn compile_pointer(image: In<c_void>, log: &mut JitLog) -> Answer<Code> {
    if image.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller of the API promised a complete image that stays as it is during the call.
    let found = unsafe { pxos_cudart::image::inspect(image.raw()) };
    let found = found.map_err(|error| {
        log.error(&error.to_string());
        CUresult(error.result())
    })?;
    let unlinked = found.wrapper.as_ref().map_or(&[][..], |wrapper| &wrapper.unlinked);
    let spans = if unlinked.is_empty() { std::slice::from_ref(&found.span) } else { unlinked };
    let bytes: Vec<&[u8]> = spans
        .iter()
        // SAFETY: `inspect` found the span readable, and the caller keeps the image as it is during the call.
        .map(|span| unsafe { std::slice::from_raw_parts(span.pointer, span.len) })
        .collect();
    compile_bytes(&bytes, log)
}

/// Compiles the PTX of some images, linking them where there are several.
pub(crate) fn compile_bytes(images: &[&[u8]], log: &mut JitLog) -> Answer<Code> {
    let mut texts: Vec<PtxImage> = Vec::new();
    let mut left_out = None;
    for image in images.iter().flat_map(|image| super::link::units(image)) {
        let is_text = image.first().is_some_and(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        let found = image::ptx_of(image, CAPABILITY);
        if images.len() > 1
            && let Err(error @ (image::ImageError::NoPtx { .. } | image::ImageError::NotForDevice { .. })) =
                &found
        {
            // One of several object files: the toolkit's device runtime is machine code, and the engine has its
            // functions. What else is missing is named when the rest is linked.
            left_out.get_or_insert_with(|| error.to_string());
            continue;
        }
        texts.extend(found.map_err(|error| match error {
            image::ImageError::NotForDevice { .. } if is_text && !image.starts_with(b"P\xed\x55\xba") => {
                // In the words of the real compiler (measured).
                log.error("SM version specified by .target is higher than default SM version assumed");
                CUresult::ERROR_INVALID_PTX
            }
            error => {
                log.error(&error.to_string());
                image_error(&error)
            }
        })?);
    }
    if texts.is_empty() {
        let error = left_out.unwrap_or_else(|| "image holds no PTX".to_owned());
        super::error::report(&error);
        log.error(&error);
        return Err(CUresult::ERROR_NO_BINARY_FOR_GPU);
    }
    let target = texts.iter().map(|text| text.target_sm).max().unwrap_or(0);
    for text in &texts {
        log.check_version(&text.text)?;
    }
    let sources: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let program = Program::compile_all(&sources).map_err(|error| log.refuse(&error))?;
    Ok(Code::new(program, target.cast_signed()))
}

/// The device's compute capability.
const CAPABILITY: u32 = 90;

pub(crate) fn image_error(error: &image::ImageError) -> CUresult {
    match error {
        image::ImageError::NoPtx { .. } | image::ImageError::NotForDevice { .. } => {
            super::error::report(&error.to_string());
            CUresult::ERROR_NO_BINARY_FOR_GPU
        }
        _ => CUresult::ERROR_INVALID_IMAGE,
    }
}
