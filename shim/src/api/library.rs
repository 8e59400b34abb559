//! Libraries and kernels: images without a context. cudart 12 and later loads everything this way.

use super::module::{
    JitOptions, global, names, new_module, put_global, read_file, resolve, send_image, text,
};
use super::{Result, enter, put};
use crate::call::post;
use crate::lock;
use crate::objects::{Function, Module};
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUcontext, CUdevice, CUdeviceptr, CUfunc_cache, CUfunction, CUfunction_attribute, CUjit_option, CUkernel,
    CUlibrary, CUlibraryOption, CUmodule, CUresult,
};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// `CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE`: points into the guest.
const UNIVERSAL_TABLE: u32 = 0;
/// `CU_LIBRARY_BINARY_IS_PRESERVED`: the caller keeps the image; the worker keeps its own copy anyway.
const BINARY_IS_PRESERVED: u32 = 1;

unsafe fn load(
    session: &'static Session,
    library: *mut CUlibrary,
    image: *const c_void,
    jit: &JitOptions,
    options: (*mut CUlibraryOption, c_uint),
) -> Result {
    session.check()?;
    if library.is_null() || image.is_null() || (options.1 > 0 && options.0.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    for index in 0..options.1 as usize {
        // SAFETY: the array has that many entries, by the entry point's contract.
        let option = unsafe { options.0.add(index).read() };
        if !matches!(option, UNIVERSAL_TABLE | BINARY_IS_PRESERVED) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
    }
    let entry = session.libraries.mint(|handle| new_module(handle, 0))?;
    // SAFETY: the entry point's contract.
    let loaded = unsafe { send_image(session, op::cuLibraryLoadData, entry.handle, image, jit) };
    if let Err(error) = loaded {
        session.libraries.remove(entry.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(library, CUlibrary(entry.handle)) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    jitOptions: *mut CUjit_option,
    jitOptionsValues: *mut *mut c_void,
    numJitOptions: c_uint,
    libraryOptions: *mut CUlibraryOption,
    _libraryOptionValues: *mut *mut c_void,
    numLibraryOptions: c_uint,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe {
        let jit = JitOptions::new(jitOptions, jitOptionsValues, numJitOptions)?;
        load(session()?, library, code, &jit, (libraryOptions, numLibraryOptions))
    }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    fileName: *const c_char,
    jitOptions: *mut CUjit_option,
    jitOptionsValues: *mut *mut c_void,
    numJitOptions: c_uint,
    libraryOptions: *mut CUlibraryOption,
    _libraryOptionValues: *mut *mut c_void,
    numLibraryOptions: c_uint,
) -> Result {
    // SAFETY: the entry point's contract; the file is the guest's own.
    unsafe {
        let bytes = read_file(fileName)?;
        let jit = JitOptions::new(jitOptions, jitOptionsValues, numJitOptions)?;
        load(session()?, library, bytes.as_ptr().cast(), &jit, (libraryOptions, numLibraryOptions))
    }
}

fn library(session: &Session, raw: CUlibrary) -> Result<Arc<Module>> {
    session.libraries.get(raw.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// The kernel behind a handle, which may also be given as a function.
pub(super) fn kernel(session: &Session, raw: u64) -> Result<Arc<Function>> {
    session.function(raw).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) unsafe fn cuLibraryUnload(library: CUlibrary) -> Result {
    let session = session()?;
    let library = session.libraries.remove(library.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    session.kernels.remove_all(|kernel| kernel.owner == library.handle);
    for module in lock(&library.modules).values() {
        session.functions.remove_all(|function| function.owner == *module);
        session.modules.remove(*module);
    }
    for (address, _) in lock(&library.globals).values() {
        super::module::forget_variable(session, *address);
    }
    post(op::cuLibraryUnload, |writer| writer.put(library.handle))
}

pub(crate) unsafe fn cuLibraryGetKernel(
    pKernel: *mut CUkernel,
    library: CUlibrary,
    name: *const c_char,
) -> Result {
    let session = session()?;
    // SAFETY: the entry point's contract.
    let name = unsafe { text(name)? };
    let library = self::library(session, library)?;
    let handle = resolve(session, &library, name, true)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pKernel, CUkernel(handle)) }
}

pub(crate) unsafe fn cuLibraryGetKernelCount(count: *mut c_uint, lib: CUlibrary) -> Result {
    let session = session()?;
    let library = library(session, lib)?;
    let found = names(session, &library, op::cuLibraryEnumerateKernels)?.len();
    // SAFETY: the entry point's contract.
    unsafe { put(count, c_uint::try_from(found).unwrap_or(c_uint::MAX)) }
}

pub(crate) unsafe fn cuLibraryEnumerateKernels(
    kernels: *mut CUkernel,
    numKernels: c_uint,
    lib: CUlibrary,
) -> Result {
    let session = session()?;
    if kernels.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let library = library(session, lib)?;
    let found = names(session, &library, op::cuLibraryEnumerateKernels)?;
    for (index, name) in found.into_iter().take(numKernels as usize).enumerate() {
        let name = CString::new(name).map_err(|_| CUresult::ERROR_UNKNOWN)?;
        let handle = resolve(session, &library, &name, true)?;
        // SAFETY: room for `numKernels`, by the entry point's contract.
        unsafe { kernels.add(index).write(CUkernel(handle)) };
    }
    Ok(())
}

/// The module of a library in the current context.
fn module_of(session: &'static Session, library: &Module) -> Result<u64> {
    let context = super::current(session)?.handle;
    let mut modules = lock(&library.modules);
    if let Some(module) = modules.get(&context) {
        return Ok(*module);
    }
    let module = session.modules.mint(|handle| new_module(handle, context))?;
    let found = session.call(op::cuLibraryGetModule, |writer| {
        writer.put(library.handle);
        writer.put(module.handle);
    });
    if let Err(error) = found {
        session.modules.remove(module.handle);
        return Err(error);
    }
    modules.insert(context, module.handle);
    Ok(module.handle)
}

pub(crate) unsafe fn cuLibraryGetModule(pMod: *mut CUmodule, library: CUlibrary) -> Result {
    let (session, _) = enter()?;
    let library = self::library(session, library)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pMod, CUmodule(module_of(session, &library)?)) }
}

pub(crate) unsafe fn cuLibraryGetGlobal(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Result {
    let (session, context) = enter()?;
    // SAFETY: the entry point's contract.
    let name = unsafe { text(name)? };
    let library = self::library(session, library)?;
    let found = global(session, &library, (context.handle, context.device), name, op::cuLibraryGetGlobal)?;
    // SAFETY: the entry point's contract.
    unsafe { put_global(dptr, bytes, found) };
    Ok(())
}

/// A managed variable needs no context (measured): the runtime asks before it has one. Its value comes by the device's
/// primary context then.
pub(crate) unsafe fn cuLibraryGetManaged(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Result {
    let session = session()?;
    session.check()?;
    let library = self::library(session, library)?;
    // SAFETY: the entry point's contract.
    let name = unsafe { text(name)? };
    let is_without = thread::current_context() == 0;
    if is_without {
        let mut primary = CUcontext::NULL;
        // SAFETY: a pointer to a local.
        unsafe {
            super::cuDevicePrimaryCtxRetain(&raw mut primary, 0)?;
            super::cuCtxPushCurrent_v2(primary)?;
        }
    }
    let found = enter().and_then(|(_, context)| {
        global(session, &library, (context.handle, context.device), name, op::cuLibraryGetManaged)
    });
    if is_without {
        // SAFETY: no pointer.
        unsafe { super::cuCtxPopCurrent_v2(std::ptr::null_mut())? };
    }
    // SAFETY: the entry point's contract.
    unsafe { put_global(dptr, bytes, found?) };
    Ok(())
}

/// A kernel is its own function: every `CUfunction` parameter accepts it (measured: cudart 13 launches kernels so).
pub(crate) unsafe fn cuKernelGetFunction(pFunc: *mut CUfunction, kernel: CUkernel) -> Result {
    let (session, _) = enter()?;
    let kernel = self::kernel(session, kernel.0)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pFunc, CUfunction(kernel.handle)) }
}

pub(crate) unsafe fn cuKernelGetLibrary(pLib: *mut CUlibrary, kernel: CUkernel) -> Result {
    let kernel = self::kernel(session()?, kernel.0)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pLib, CUlibrary(kernel.owner)) }
}

pub(crate) unsafe fn cuKernelGetAttribute(
    pi: *mut c_int,
    attrib: CUfunction_attribute,
    kernel: CUkernel,
    dev: CUdevice,
) -> Result {
    let session = session()?;
    super::device::device(session, dev)?;
    let value = super::execution::attribute(session, CUfunction(kernel.0), dev, attrib)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pi, value) }
}

pub(crate) unsafe fn cuKernelSetAttribute(
    attrib: CUfunction_attribute,
    val: c_int,
    kernel: CUkernel,
    dev: CUdevice,
) -> Result {
    super::device::device(session()?, dev)?;
    super::execution::set_attribute(CUfunction(kernel.0), dev, attrib, val)
}

pub(crate) unsafe fn cuKernelSetCacheConfig(kernel: CUkernel, config: CUfunc_cache, dev: CUdevice) -> Result {
    super::device::device(session()?, dev)?;
    // SAFETY: the contract is the same.
    unsafe { super::cuFuncSetCacheConfig(CUfunction(kernel.0), config) }
}

pub(crate) unsafe fn cuKernelGetName(name: *mut *const c_char, hfunc: CUkernel) -> Result {
    // SAFETY: the contract is the same.
    unsafe { super::cuFuncGetName(name, CUfunction(hfunc.0)) }
}

pub(crate) unsafe fn cuKernelGetParamInfo(
    kernel: CUkernel,
    paramIndex: usize,
    paramOffset: *mut usize,
    paramSize: *mut usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { super::cuFuncGetParamInfo(CUfunction(kernel.0), paramIndex, paramOffset, paramSize) }
}

/// The module of a function; for a kernel that of its library in the current context.
pub(super) fn module_of_function(session: &'static Session, function: &Function) -> Result<u64> {
    if !function.is_kernel {
        return Ok(function.owner);
    }
    module_of(session, &*library(session, CUlibrary(function.owner))?)
}
