//! The JIT linker: images are sent once, as for a module; the linked program comes back in chunks and is kept until the state is
//! destroyed, as natively.

use super::module::{JitOptions, read_file, text, upload};
use super::{Result, enter, put};
use crate::call::{garbled, post};
use crate::handles::HandleTable;
use crate::lock;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUjit_option, CUjitInputType, CUlinkState, CUresult, HandleKind};
use std::ffi::{c_char, c_uint, c_void};
use std::sync::{Arc, Mutex};

/// `CU_JIT_NUM_INPUT_TYPES`.
const KINDS: CUjitInputType = 6;

/// A state of the linker.
#[derive(Debug)]
pub(crate) struct Link {
    handle: u64,
    context: u64,
    options: Options,
    program: Mutex<Vec<u8>>,
}

/// The options that the state was made with: "The optionValues array must remain valid for the life of the CUlinkState if output
/// options are used" (CUDA driver API, cuLinkCreate).
#[derive(Debug)]
struct Options(JitOptions);

// SAFETY: pointers to arrays that the application keeps valid for the life of the state; they are used in its calls only.
unsafe impl Send for Options {}
// SAFETY: as above.
unsafe impl Sync for Options {}

/// All states.
#[derive(Debug)]
pub(crate) struct Links(HandleTable<Link>);

impl Default for Links {
    fn default() -> Self {
        Self(HandleTable::new(HandleKind::LinkState))
    }
}

impl Links {
    /// Forgets the states of a context that ended.
    pub(crate) fn forget_context(&self, context: u64) {
        self.0.remove_all(|link| link.context == context);
    }
}

fn live(session: &Session, state: CUlinkState) -> Result<Arc<Link>> {
    session.links.0.get(state.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) unsafe fn cuLinkCreate(
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
    stateOut: *mut CUlinkState,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuLinkCreate_v2(numOptions, options, optionValues, stateOut) }
}

pub(crate) unsafe fn cuLinkCreate_v2(
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
    stateOut: *mut CUlinkState,
) -> Result {
    let (session, context) = enter()?;
    if stateOut.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the entry point's contract.
    let options = unsafe { JitOptions::new(options, optionValues, numOptions)? };
    let context = context.handle;
    let link = session.links.0.mint(|handle| Link {
        handle,
        context,
        options: Options(options),
        program: Mutex::default(),
    })?;
    let made = session.call(op::cuLinkCreate_v2, |writer| {
        writer.put(link.handle);
        link.options.0.write(writer);
    });
    if let Err(error) = made {
        session.links.0.remove(link.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(stateOut, CUlinkState(link.handle)) }
}

/// Adds an image.
fn add(
    session: &'static Session,
    state: CUlinkState,
    kind: CUjitInputType,
    image: &[u8],
    name: &[u8],
    options: &JitOptions,
) -> Result {
    let link = live(session, state)?;
    if kind >= KINDS || image.is_empty() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let hash = upload(session, image)?;
    let reply = session.call(op::cuLinkAddData_v2, |writer| {
        writer.put(link.handle);
        writer.put(kind);
        writer.put(hash);
        writer.put_bytes(name);
        options.write(writer);
    })?;
    link.options.0.read(&mut reply.reader())
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLinkAddData(
    state: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    size: usize,
    name: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuLinkAddData_v2(state, kind, data, size, name, numOptions, options, optionValues) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    size: usize,
    name: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
) -> Result {
    let (session, _) = enter()?;
    if data.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the entry point's contract: `size` readable bytes, a C string or null, arrays of `numOptions` entries.
    unsafe {
        let image = std::slice::from_raw_parts(data.cast_const().cast::<u8>(), size);
        let name = if name.is_null() { &[] } else { text(name)?.to_bytes() };
        let options = JitOptions::new(options, optionValues, numOptions)?;
        add(session, state, kind, image, name, &options)
    }
}

pub(crate) unsafe fn cuLinkAddFile(
    state: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuLinkAddFile_v2(state, kind, path, numOptions, options, optionValues) }
}

pub(crate) unsafe fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
) -> Result {
    let (session, _) = enter()?;
    // SAFETY: the entry point's contract; the file is the guest's own.
    unsafe {
        let name = text(path)?.to_bytes();
        let mut image = read_file(path)?;
        // Its last byte is a NUL of ours, which ends text; an image of another kind is as long as its file.
        if kind != 1 {
            image.pop();
        }
        let options = JitOptions::new(options, optionValues, numOptions)?;
        add(session, state, kind, &image, name, &options)
    }
}

pub(crate) unsafe fn cuLinkComplete(
    state: CUlinkState,
    cubinOut: *mut *mut c_void,
    sizeOut: *mut usize,
) -> Result {
    let (session, _) = enter()?;
    let link = live(session, state)?;
    if cubinOut.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut program = lock(&link.program);
    let mut linked = Vec::new();
    let mut total = 0;
    loop {
        let offset = linked.len() as u64;
        let reply = session.call(op::cuLinkComplete, |writer| {
            writer.put(link.handle);
            writer.put(offset);
        })?;
        let mut fields = reply.reader();
        if offset == 0 {
            link.options.0.read(&mut fields)?;
            total = fields.get::<u64>().map_err(garbled)?;
        }
        let chunk = fields.get_bytes().map_err(garbled)?;
        linked.extend_from_slice(chunk);
        if linked.len() as u64 >= total || chunk.is_empty() {
            break;
        }
    }
    *program = linked;
    // SAFETY: the entry point's contract; the bytes live until the state is destroyed, as natively.
    unsafe {
        if !sizeOut.is_null() {
            sizeOut.write(program.len());
        }
        put(cubinOut, program.as_mut_ptr().cast())
    }
}

pub(crate) unsafe fn cuLinkDestroy(state: CUlinkState) -> Result {
    let session = session()?;
    let link = session.links.0.remove(state.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    post(op::cuLinkDestroy, |writer| writer.put(link.handle))
}
