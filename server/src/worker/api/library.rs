//! Libraries and kernels.

use super::super::dispatch::{Answer, Call, done};
use super::super::state::{Owned, State};
use super::module::{Jit, file, name, unlinked, write_names, write_variable};

/// `cuLibraryLoadData`: handle, hash, JIT options, hashes of the images from before the link. Library options do not
/// concern the host: the driver copies the image, since the worker does not say `CU_LIBRARY_BINARY_IS_PRESERVED`.
pub(in super::super) fn load(call: &mut Call<'_>) -> Answer {
    let (handle, hash): (u64, [u64; 2]) = (call.get()?, call.get()?);
    let mut jit = Jit::read(call)?;
    let unlinked = unlinked(call)?;
    call.state.libraries.check(handle)?;
    call.state.grow_stack(call.session)?;
    let image = call.state.images.loadable(hash, &unlinked)?;
    let mut native = 0;
    let count = u32::try_from(jit.options.len()).expect("bounded by MAX_OPTIONS");
    // SAFETY: a complete image; arrays of `count` entries, whose pointers lead to buffers of `jit`.
    let loaded = unsafe {
        call.driver().cuLibraryLoadData(
            &raw mut native,
            image.as_ptr(),
            jit.options.as_mut_ptr(),
            jit.values.as_mut_ptr(),
            count,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    };
    if loaded.is_ok() {
        call.state.libraries.insert(handle, Owned { native, context: 0 })?;
        call.state.images.loaded(handle, hash, unlinked);
    }
    jit.reply(&mut call.reply(), loaded);
    done()
}

/// `cuLibraryUnload`: handle.
pub(in super::super) fn unload(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let library = call.state.libraries.remove(handle)?;
    call.state.images.unloaded(handle);
    call.state.kernels.forget(|kernel| kernel.owner == handle);
    // Its modules go with it, and what was found in them.
    let State { modules, of_libraries, functions, arrays, .. } = call.state;
    for (module, _) in of_libraries.extract_if(|_, library| *library == handle) {
        let _ = modules.remove(module);
        functions.forget(|function| function.owner == module);
        arrays.references.forget(|reference| reference.module == module);
    }
    // SAFETY: a library of this session's, taken out of the table.
    unsafe { call.driver().cuLibraryUnload(library.native)? };
    done()
}

/// `cuLibraryGetKernel`: library, handle, name.
pub(in super::super) fn kernel(call: &mut Call<'_>) -> Answer {
    let (owner, handle): (u64, u64) = (call.get()?, call.get()?);
    let name = name(call)?;
    let library = call.state.libraries.get(owner)?.native;
    let mut native = 0;
    // SAFETY: a library of this session's; pointers to a local and a C string.
    unsafe { call.driver().cuLibraryGetKernel(&raw mut native, library, name.as_ptr())? };
    file(call, owner, handle, native, name, true)
}

/// `cuLibraryEnumerateKernels`: library; the answer is names.
pub(in super::super) fn enumerate(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let library = call.state.libraries.get(handle)?.native;
    let mut count = 0;
    // SAFETY: a library of this session's; a pointer to a local.
    unsafe { call.driver().cuLibraryGetKernelCount(&raw mut count, library)? };
    let mut natives = vec![0; count as usize];
    // SAFETY: room for `count` kernels.
    unsafe { call.driver().cuLibraryEnumerateKernels(natives.as_mut_ptr(), count, library)? };
    write_names(call, &natives, |driver, native| {
        let mut name = std::ptr::null();
        // SAFETY: a kernel that the driver just named; a pointer to a local.
        unsafe { driver.cuKernelGetName(&raw mut name, native)? };
        Ok(name)
    })
}

/// `cuLibraryGetModule`: library, handle.
pub(in super::super) fn module(call: &mut Call<'_>) -> Answer {
    let (owner, handle): (u64, u64) = (call.get()?, call.get()?);
    let library = call.state.libraries.get(owner)?.native;
    let mut native = 0;
    // SAFETY: a library of this session's; a pointer to a local.
    unsafe { call.driver().cuLibraryGetModule(&raw mut native, library)? };
    call.state.modules.insert(handle, Owned { native, context: call.header.context })?;
    call.state.of_libraries.insert(handle, owner);
    done()
}

/// `cuLibraryGetGlobal`: library, name; address, bytes and whether it is managed come back.
pub(in super::super) fn global(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let name = name(call)?;
    let library = call.state.libraries.get(handle)?.native;
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: a library of this session's; pointers to locals and a C string.
    unsafe { call.driver().cuLibraryGetGlobal(&raw mut address, &raw mut bytes, library, name.as_ptr())? };
    write_variable(call, address, bytes);
    done()
}

/// `cuLibraryGetManaged`: library, name; answered as `cuLibraryGetGlobal` is.
pub(in super::super) fn managed(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let name = name(call)?;
    let library = call.state.libraries.get(handle)?.native;
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: a library of this session's; pointers to locals and a C string.
    unsafe { call.driver().cuLibraryGetManaged(&raw mut address, &raw mut bytes, library, name.as_ptr())? };
    write_variable(call, address, bytes);
    done()
}
