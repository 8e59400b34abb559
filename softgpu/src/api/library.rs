//! Libraries: code that belongs to no context (CUDA driver API, section "Library management").

use super::jit::JitLog;
use super::{Answer, Out, driver_fns, error, execution, module as api_module};
use crate::device::kernel::{KERNELS, LIBRARIES, Library, LibraryKernel};
use crate::device::module::{self, Code};
use crate::device::{context, platform};
use pxos_protocol::types::{
    CUdevice, CUdeviceptr, CUfunc_cache, CUfunction, CUfunction_attribute, CUjit_option, CUkernel, CUlibrary,
    CUlibraryOption, CUmodule, CUresult,
};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Makes a library from an image in memory. Needs no context; what is wrong with the PTX shows at its first use
    /// (measured).
    ready fn cuLibraryLoadData(
        library: *mut CUlibrary,
        image: *const c_void,
        jit_options: *mut CUjit_option,
        jit_values: *mut *mut c_void,
        jit_count: c_uint,
        options: *mut CUlibraryOption,
        _values: *mut *mut c_void,
        count: c_uint,
    ) {
        library.required()?;
        check_options(options, count)?;
        let mut log = JitLog::from_options(jit_count, jit_options, jit_values)?;
        let code = api_module::compile_pointer(image, &mut log);
        log.deliver()?;
        library.put(create(code, &log)?)
    }

    /// Makes a library from a file.
    ready fn cuLibraryLoadFromFile(
        library: *mut CUlibrary,
        file: *const c_char,
        jit_options: *mut CUjit_option,
        jit_values: *mut *mut c_void,
        jit_count: c_uint,
        options: *mut CUlibraryOption,
        _values: *mut *mut c_void,
        count: c_uint,
    ) {
        let (library, file) = (library.required()?, file.text()?);
        check_options(options, count)?;
        let mut log = JitLog::from_options(jit_count, jit_options, jit_values)?;
        let bytes = api_module::read_file(&file)?;
        let code = api_module::compile_bytes(&[&bytes], &mut log);
        log.deliver()?;
        library.put(create(code, &log)?)
    }

    /// Ends a library: its kernels, and its modules in all contexts, after their work.
    ready fn cuLibraryUnload(library: CUlibrary) {
        let library = LIBRARIES.remove(library).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        for kernel in &library.kernels {
            KERNELS.remove(kernel.handle);
        }
        for context in context::CONTEXTS.all() {
            let Some(active) = context.active() else { continue };
            let module = active.libraries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&library.handle);
            if let Some(module) = module {
                active.wait();
                active.flush();
                module::unload(&module);
            }
        }
        library.free_managed();
        Ok(())
    }

    /// A kernel of a library by name.
    ready fn cuLibraryGetKernel(kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) {
        let (kernel, name, library) = (kernel.required()?, name.text()?, live(library)?);
        let index = library.code.clone()?.kernel(&name).ok_or(CUresult::ERROR_NOT_FOUND)?;
        kernel.put(library.kernels.get(index).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?.handle)
    }

    /// How many kernels a library has.
    ready fn cuLibraryGetKernelCount(count: *mut c_uint, library: CUlibrary) {
        let library = live(library)?;
        library.code.clone()?;
        count.put(c_uint::try_from(library.kernels.len()).expect("fewer kernels than handles"))
    }

    /// The kernels of a library, as many as there is room for.
    ready fn cuLibraryEnumerateKernels(kernels: *mut CUkernel, room: c_uint, library: CUlibrary) {
        for (index, kernel) in live(library)?.kernels.iter().take(room as usize).enumerate() {
            kernels.put_at(index, kernel.handle)?;
        }
        Ok(())
    }

    /// A library's module in the current context.
    ready fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) {
        let active = context::current()?;
        module.required()?;
        module.put(live(library)?.module(&active)?.handle)
    }

    /// A kernel's function in the current context.
    ready fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) {
        let active = context::current()?;
        function.required()?;
        let kernel = live_kernel(kernel)?;
        let module = owner(&kernel)?.module(&active)?;
        function.put(module.functions()?[kernel.index].handle)
    }

    /// A kernel's library.
    ready fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) {
        library.required()?;
        library.put(owner(&*live_kernel(kernel)?)?.handle)
    }

    /// Address and length of a variable in the current context.
    ready fn cuLibraryGetGlobal(address: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char) {
        let active = context::current()?;
        let (library, name) = (live(library)?, name.text()?);
        let module = library.module(&active)?;
        api_module::give_global(&module, &name, address, bytes)
    }

    /// Address and length of a managed variable, which needs no context (measured).
    ready fn cuLibraryGetManaged(address: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char) {
        let (library, name) = (live(library)?, name.text()?);
        if address.is_null() && bytes.is_null() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let code = library.code.clone()?;
        let globals = code.program.globals();
        let found = globals.iter().position(|global| global.name == name && global.managed);
        let index = found.ok_or(CUresult::ERROR_NOT_FOUND)?;
        address.put_if_wanted(library.managed()?[index].ok_or(CUresult::ERROR_NOT_FOUND)?);
        bytes.put_if_wanted(usize::try_from(globals[index].size).expect("addresses have 64 bits here"));
        Ok(())
    }

    /// An attribute of a kernel on a device.
    ready fn cuKernelGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, kernel: CUkernel, dev: CUdevice) {
        value.required()?;
        let kernel = live_kernel(kernel)?;
        let device = platform()?.device(dev)?;
        let library = owner(&kernel)?;
        let code = library.code.clone()?;
        let settings = kernel.settings(device.ordinal);
        value.put(execution::attribute(&code, kernel.index, &settings, attribute)?)
    }

    /// Sets an attribute of a kernel on a device.
    ready fn cuKernelSetAttribute(attribute: CUfunction_attribute, value: c_int, kernel: CUkernel, dev: CUdevice) {
        let kernel = live_kernel(kernel)?;
        let device = platform()?.device(dev)?;
        let library = owner(&kernel)?;
        let code = library.code.clone()?;
        let change = execution::change(&code.program.kernels()[kernel.index], attribute, value)?;
        kernel.set(device.ordinal, change);
        Ok(())
    }

    /// Sets a kernel's cache preference, which changes nothing here.
    ready fn cuKernelSetCacheConfig(kernel: CUkernel, config: CUfunc_cache, dev: CUdevice) {
        live_kernel(kernel)?;
        platform()?.device(dev)?;
        if config > 3 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
    }

    /// A kernel's name; the text lives as long as the library.
    ready fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) {
        name.required()?;
        let kernel = live_kernel(kernel)?;
        let library = owner(&kernel)?;
        name.put(library.code.clone()?.names[kernel.index].as_ptr())
    }

    /// Offset and size of a kernel's parameter.
    ready fn cuKernelGetParamInfo(kernel: CUkernel, index: usize, offset: *mut usize, size: *mut usize) {
        let kernel = live_kernel(kernel)?;
        let library = owner(&kernel)?;
        let code = library.code.clone()?;
        execution::give_parameter(&code.program.kernels()[kernel.index], index, offset, size)
    }
}

fn live(library: CUlibrary) -> Answer<Arc<Library>> {
    LIBRARIES.get(library)
}

fn live_kernel(kernel: CUkernel) -> Answer<Arc<LibraryKernel>> {
    KERNELS.get(kernel)
}

fn owner(kernel: &LibraryKernel) -> Answer<Arc<Library>> {
    kernel.library.upgrade().ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// `CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE` and `CU_LIBRARY_BINARY_IS_PRESERVED`: neither changes anything
/// here, since the image is compiled at once.
fn check_options(options: Out<CUlibraryOption>, count: c_uint) -> Answer {
    for index in 0..count as usize {
        if options.read_at(index)? > 1 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
    }
    Ok(())
}

/// A library of compiled code. PTX that does not compile makes a library too, whose kernels cannot be had; anything
/// that is no image at all is refused.
fn create(code: Answer<Code>, log: &JitLog) -> Answer<CUlibrary> {
    match code {
        Err(refused @ (CUresult::ERROR_INVALID_VALUE | CUresult::ERROR_INVALID_IMAGE)) => Err(refused),
        Err(later) => {
            error::report(&format!("a library is unusable: {later}: {}", log.text()));
            Library::create(Err(later))
        }
        Ok(code) => Library::create(Ok(Arc::new(code))),
    }
}
