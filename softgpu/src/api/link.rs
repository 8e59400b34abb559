//! The JIT linker (CUDA driver API, section "Module Management", `cuLink*`). What it gives as a program is the PTX of all its
//! inputs behind a first line of ours; the load functions know it by that ([`units`]) and link when they compile.

use super::jit::JitLog;
use super::module::{compile_bytes, image_error, read_file};
use super::{Answer, In, Out, driver_fns};
use crate::device::context;
use crate::device::table::Table;
use crate::image;
use crate::ptx;
use pxos_protocol::types::{CUjit_option, CUjitInputType, CUlinkState, CUresult};
use std::ffi::{c_char, c_uint, c_void};
use std::sync::{Arc, Mutex, PoisonError};

driver_fns! {
    /// Begins to link.
    ready fn cuLinkCreate_v2(count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void, state: *mut CUlinkState) {
        create(count, options, values, state)
    }

    /// Begins to link; the older name.
    ready fn cuLinkCreate(count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void, state: *mut CUlinkState) {
        create(count, options, values, state)
    }

    /// Adds an image.
    ready fn cuLinkAddData_v2(
        state: CUlinkState,
        kind: CUjitInputType,
        data: *mut c_void,
        size: usize,
        name: *const c_char,
        count: c_uint,
        options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) {
        let _ = (name, count, options, values);
        add_data(state, kind, data, size)
    }

    /// Adds an image; the older name.
    ready fn cuLinkAddData(
        state: CUlinkState,
        kind: CUjitInputType,
        data: *mut c_void,
        size: usize,
        name: *const c_char,
        count: c_uint,
        options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) {
        let _ = (name, count, options, values);
        add_data(state, kind, data, size)
    }

    /// Adds an image from a file.
    ready fn cuLinkAddFile_v2(
        state: CUlinkState,
        kind: CUjitInputType,
        path: *const c_char,
        count: c_uint,
        options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) {
        let _ = (count, options, values);
        add(state, kind, &read_file(&path.text()?)?)
    }

    /// Adds an image from a file; the older name.
    ready fn cuLinkAddFile(
        state: CUlinkState,
        kind: CUjitInputType,
        path: *const c_char,
        count: c_uint,
        options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) {
        let _ = (count, options, values);
        add(state, kind, &read_file(&path.text()?)?)
    }

    /// Links; the program lives as long as the state.
    ready fn cuLinkComplete(state: CUlinkState, program: *mut *mut c_void, size: *mut usize) {
        let state = LINKS.get(state)?;
        program.required()?;
        let mut inner = state.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { texts, log, program: linked } = &mut *inner;
        let images: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let compiled = compile_bytes(&images, log);
        log.deliver()?;
        compiled?;
        // NUL-ended, as text is where only its address is given.
        *linked = [MARK, &texts.join(SEPARATOR), "\0"].concat().into_bytes();
        size.put_if_wanted(linked.len());
        program.put(linked.as_mut_ptr().cast())
    }

    /// Ends a state, and the life of its program.
    ready fn cuLinkDestroy(state: CUlinkState) {
        LINKS.remove(state).map(drop).ok_or(CUresult::ERROR_INVALID_HANDLE)
    }
}

/// The first line of a linked program.
const MARK: &str = "//pxsoft linked program\n";
/// What stands between its parts.
const SEPARATOR: &str = "\n//pxsoft next part\n";

const CUBIN: CUjitInputType = 0;
const PTX: CUjitInputType = 1;
const FATBINARY: CUjitInputType = 2;

/// The device's compute capability.
const CAPABILITY: u32 = 90;

/// A state of the linker.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    texts: Vec<String>,
    log: JitLog,
    program: Vec<u8>,
}

static LINKS: Table<CUlinkState, Link> = Table::new();

/// The parts of a linked program; any other image is one part.
pub(crate) fn units(image: &[u8]) -> Vec<&[u8]> {
    let Some(text) = image.strip_prefix(MARK.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok())
    else {
        return vec![image];
    };
    text.trim_end_matches('\0').split(SEPARATOR).map(str::as_bytes).collect()
}

fn create(
    count: c_uint,
    options: Out<CUjit_option>,
    values: Out<*mut c_void>,
    state: Out<CUlinkState>,
) -> Answer {
    context::current()?;
    state.required()?;
    let log = JitLog::from_options(count, options, values)?;
    let inner = Mutex::new(Inner { texts: Vec::new(), log, program: Vec::new() });
    let (handle, _) = LINKS.insert_with(|_| Link { inner })?;
    state.put(handle)
}

fn add_data(state: CUlinkState, kind: CUjitInputType, data: Out<c_void>, size: usize) -> Answer {
    if data.is_null() || size == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let first = In::<u8>::from_api(data.raw().cast_const().cast());
    let bytes = (0..size).map(|index| first.read_at(index)).collect::<Answer<Vec<u8>>>()?;
    add(state, kind, &bytes)
}

/// Takes the PTX out of an image. What is wrong with it by itself is said at once.
fn add(state: CUlinkState, kind: CUjitInputType, image: &[u8]) -> Answer {
    let state: Arc<Link> = LINKS.get(state)?;
    let mut inner = state.inner.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match kind {
        // Machine code cannot be run here.
        CUBIN => return Err(CUresult::ERROR_NO_BINARY_FOR_GPU),
        PTX | FATBINARY => image::ptx_of(image, CAPABILITY).map_err(|error| {
            inner.log.error(&error.to_string());
            image_error(&error)
        }),
        _ => return Err(CUresult::ERROR_NOT_SUPPORTED),
    };
    let added = found.and_then(|found| {
        for part in &found {
            inner.log.check_version(&part.text)?;
            if let Err(error) = ptx::parse(&part.text) {
                return Err(inner.log.refuse(&error));
            }
        }
        inner.texts.extend(found.into_iter().map(|part| part.text));
        Ok(())
    });
    inner.log.deliver()?;
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_falls_into_its_parts() {
        let program = [MARK, ".version 8.0", SEPARATOR, ".version 7.0", "\0"].concat();
        assert_eq!(units(program.as_bytes()), [b".version 8.0", b".version 7.0"]);
        assert_eq!(units(b".version 8.0"), [b".version 8.0"]);
    }
}
