//! Modules: images go to the host once, functions and variables are resolved once.

use super::{Result, enter, put};
use crate::allocations::{Allocation, Kind};
use crate::call::{Reply, garbled, post};
use crate::lock;
use crate::objects::{FUNCTION_ATTRIBUTES, Function, Module};
use crate::session::{Session, session};
use pxos_cudart::image::{Image, Span, inspect};
use pxos_protocol::api::op;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::frame::{BULK_CHUNK, control};
use pxos_protocol::types::{CUdeviceptr, CUfunction, CUjit_option, CUmodule, CUresult};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_uint, c_void};
use std::sync::atomic::{AtomicI32, AtomicU8};
use std::sync::{Arc, Mutex};

/// Most parameters of a kernel: 32764 bytes of at least one byte each.
const MAX_PARAMS: u64 = 32_764;

/// Options of the JIT compiler that carry a plain value to the host (`CUjit_option`).
const PLAIN_OPTIONS: &[u32] =
    &[0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 30, 31, 32, 33, 34];
const WALL_TIME: u32 = 2;
const INFO_LOG_BUFFER: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG_BUFFER: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;

/// Bytes of a C string argument.
///
/// # Safety
/// Null, or a C string.
pub(super) unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a CStr> {
    if pointer.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and a C string by this function's contract.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// What tells images of one process apart.
fn hash(bytes: &[u8]) -> [u64; 2] {
    let hash = twox_hash::XxHash3_128::oneshot(bytes).to_le_bytes();
    let (halves, _) = hash.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
}

/// Images from here on are brought in at once.
const LARGE: usize = 1 << 20;

/// Has the kernel bring in an image that lies in a file: a fault for each few pages of a library of 200 MB costs more than
/// reading it. Where it cannot, the faults come one by one.
fn bring_in(bytes: &[u8]) {
    const PAGE: usize = 4096;
    if bytes.len() < LARGE {
        return;
    }
    let begin = bytes.as_ptr().map_addr(|address| address / PAGE * PAGE);
    let length = bytes.as_ptr_range().end.addr() - begin.addr();
    // SAFETY: reads pages that lie at least partly in `bytes`, and changes nothing.
    unsafe { libc::madvise(begin.cast_mut().cast(), length, libc::MADV_POPULATE_READ) };
}

/// Makes sure that the host has an image; its hash.
pub(super) fn upload(session: &'static Session, bytes: &[u8]) -> Result<[u64; 2]> {
    bring_in(bytes);
    let hash = hash(bytes);
    let mut known = lock(&session.images);
    if known.contains(&hash) {
        return Ok(hash);
    }
    for (index, chunk) in bytes.chunks(BULK_CHUNK).enumerate() {
        let mut fields = Vec::with_capacity(40);
        let mut writer = Writer::new(&mut fields);
        writer.put(hash);
        writer.put(bytes.len() as u64);
        writer.put((index * BULK_CHUNK) as u64);
        writer.put(chunk.len() as u64);
        session.link.send_bulk(session.header(control::IMAGE, 0), &fields, chunk)?;
    }
    known.insert(hash);
    Ok(hash)
}

/// The JIT options of a load call.
#[derive(Debug, Default)]
pub(super) struct JitOptions {
    list: Vec<(u32, *mut *mut c_void)>,
    /// Room for the two logs; the slots that say so are overwritten with what was written.
    rooms: [u32; 2],
}

impl JitOptions {
    /// Reads the two arrays.
    ///
    /// # Safety
    /// Both have `count` entries, or `count` is zero.
    pub(super) unsafe fn new(
        options: *const CUjit_option,
        values: *mut *mut c_void,
        count: c_uint,
    ) -> Result<Self> {
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        // SAFETY: by this function's contract.
        let list = (0..count as usize).map(|index| unsafe { (options.add(index).read(), values.add(index)) });
        let mut this = Self { list: list.collect(), rooms: [0; 2] };
        this.rooms =
            [this.room(INFO_LOG_BUFFER, INFO_LOG_BYTES), this.room(ERROR_LOG_BUFFER, ERROR_LOG_BYTES)];
        Ok(this)
    }

    fn value(&self, option: u32) -> Option<*mut c_void> {
        // SAFETY: the slots are valid for the call that made them.
        self.list.iter().find(|(name, _)| *name == option).map(|(_, slot)| unsafe { slot.read() })
    }

    fn room(&self, buffer: u32, bytes: u32) -> u32 {
        match (self.value(buffer), self.value(bytes)) {
            // "The value is the size in bytes", passed in the pointer itself.
            (Some(buffer), Some(bytes)) if !buffer.is_null() => {
                u32::try_from(bytes.addr() & 0xffff_ffff).unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        let plain: Vec<_> = self.list.iter().filter(|(name, _)| PLAIN_OPTIONS.contains(name)).collect();
        writer.put(plain.len() as u64);
        for (name, slot) in plain {
            writer.put(*name);
            // SAFETY: as in `value`.
            writer.put(unsafe { slot.read() }.addr() as u64);
        }
        writer.put(self.rooms[0]);
        writer.put(self.rooms[1]);
    }

    /// Hands out what the compiler said.
    pub(super) fn read(&self, fields: &mut Reader<'_>) -> Result {
        let result = CUresult(fields.get().map_err(garbled)?);
        let wall_time: f32 = fields.get().map_err(garbled)?;
        let info = fields.get_bytes().map_err(garbled)?;
        let error = fields.get_bytes().map_err(garbled)?;
        let logs = [(INFO_LOG_BUFFER, INFO_LOG_BYTES, info), (ERROR_LOG_BUFFER, ERROR_LOG_BYTES, error)];
        for ((buffer, bytes, text), room) in logs.into_iter().zip(self.rooms) {
            let room = room as usize;
            if room == 0 {
                continue;
            }
            let count = text.len().min(room - 1);
            let to: *mut u8 = self.value(buffer).unwrap_or(std::ptr::null_mut()).cast();
            // SAFETY: the application gave a buffer of `room` bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(text.as_ptr(), to, count);
                to.add(count).write(0);
            }
            self.answer(bytes, std::ptr::without_provenance_mut(count));
        }
        self.answer(WALL_TIME, std::ptr::without_provenance_mut(wall_time.to_bits() as usize));
        result.ok()
    }

    fn answer(&self, option: u32, value: *mut c_void) {
        for (_, slot) in self.list.iter().filter(|(name, _)| *name == option) {
            // SAFETY: the slots are valid for the call that made them.
            unsafe { slot.write(value) };
        }
    }
}

/// The bytes of an image that a load call was given, and those of the images from before its device code was linked.
///
/// # Safety
/// As `inspect`.
unsafe fn image_bytes<'a>(image: *const c_void) -> Result<(&'a [u8], Vec<&'a [u8]>)> {
    // SAFETY: by this function's contract.
    let Image { span, wrapper, .. } = unsafe { inspect(image) }.map_err(|error| CUresult(error.result()))?;
    // SAFETY: `inspect` found that many readable bytes, which the application keeps during the call.
    let bytes = |span: &Span| unsafe { std::slice::from_raw_parts(span.pointer, span.len) };
    let unlinked = wrapper.map_or_else(Vec::new, |wrapper| wrapper.unlinked);
    Ok((bytes(&span), unlinked.iter().map(bytes).collect()))
}

/// Sends an image and has it loaded under `handle` by `opcode`.
///
/// Device code that was linked at build time is machine code; for a device that this does not fit, a driver links the
/// images from before anew, perhaps only when the first kernel is asked for. So it gets them, as natively.
///
/// # Safety
/// `image` is what a load call accepts.
pub(super) unsafe fn send_image(
    session: &'static Session,
    opcode: u16,
    handle: u64,
    image: *const c_void,
    jit: &JitOptions,
) -> Result {
    // SAFETY: by this function's contract.
    let (bytes, unlinked) = unsafe { image_bytes(image)? };
    let hash = upload(session, bytes)?;
    let unlinked = unlinked.iter().map(|image| upload(session, image)).collect::<Result<Vec<_>>>()?;
    let reply = session.call(opcode, |writer| {
        writer.put(handle);
        writer.put(hash);
        jit.write(writer);
        writer.put(unlinked.len() as u64);
        unlinked.iter().for_each(|hash| writer.put(*hash));
    })?;
    jit.read(&mut reply.reader())
}

pub(super) fn new_module(handle: u64, context: u64) -> Module {
    Module {
        handle,
        context,
        functions: Mutex::default(),
        globals: Mutex::default(),
        names: Mutex::default(),
        modules: Mutex::default(),
    }
}

/// Loads a module into the current context; its handle.
///
/// # Safety
/// `image` is what `cuModuleLoadData` accepts.
pub(crate) unsafe fn load(session: &'static Session, image: *const c_void, _options: &[()]) -> Result<u64> {
    // SAFETY: by this function's contract.
    unsafe { load_with(session, image, &JitOptions::default()) }
}

unsafe fn load_with(session: &'static Session, image: *const c_void, jit: &JitOptions) -> Result<u64> {
    let context = super::current(session)?.handle;
    if image.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let module = session.modules.mint(|handle| new_module(handle, context))?;
    // SAFETY: by the caller's contract.
    let loaded = unsafe { send_image(session, op::cuModuleLoadData, module.handle, image, jit) };
    if let Err(error) = loaded {
        session.modules.remove(module.handle);
        return Err(error);
    }
    Ok(module.handle)
}

pub(crate) unsafe fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> Result {
    let (session, _) = enter()?;
    // SAFETY: the entry point's contract.
    unsafe { put(module, CUmodule(load_with(session, image, &JitOptions::default())?)) }
}

pub(crate) unsafe fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
) -> Result {
    let (session, _) = enter()?;
    // SAFETY: the entry point's contract.
    unsafe {
        let jit = JitOptions::new(options, optionValues, numOptions)?;
        put(module, CUmodule(load_with(session, image, &jit)?))
    }
}

pub(crate) unsafe fn cuModuleLoadFatBinary(module: *mut CUmodule, fatCubin: *const c_void) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuModuleLoadData(module, fatCubin) }
}

/// A file's bytes with a NUL behind them, as text images need.
pub(super) unsafe fn read_file(name: *const c_char) -> Result<Vec<u8>> {
    // SAFETY: by the caller's contract.
    let name = unsafe { text(name)? };
    let path = std::ffi::OsStr::new(name.to_str().map_err(|_| CUresult::ERROR_FILE_NOT_FOUND)?);
    let mut bytes = std::fs::read(path).map_err(|_| CUresult::ERROR_FILE_NOT_FOUND)?;
    bytes.push(0);
    Ok(bytes)
}

pub(crate) unsafe fn cuModuleLoad(module: *mut CUmodule, fname: *const c_char) -> Result {
    let (session, _) = enter()?;
    // SAFETY: the entry point's contract; the file is the guest's own.
    unsafe {
        let bytes = read_file(fname)?;
        put(module, CUmodule(load_with(session, bytes.as_ptr().cast(), &JitOptions::default())?))
    }
}

pub(crate) unsafe fn cuModuleUnload(hmod: CUmodule) -> Result {
    let session = session()?;
    let module = session.modules.remove(hmod.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    session.functions.remove_all(|function| function.owner == module.handle && !function.is_kernel);
    session.arrays.forget_module(module.handle);
    for (address, _) in lock(&module.globals).values() {
        forget_variable(session, *address);
    }
    post(op::cuModuleUnload, |writer| writer.put(module.handle))
}

/// What the host says of a function.
pub(super) struct Resolved {
    params: Vec<(u32, u32)>,
    attributes: [i32; FUNCTION_ATTRIBUTES],
}

impl Resolved {
    /// Reads it from an answer.
    pub(super) fn read(reply: &Reply) -> Result<Self> {
        let mut fields = reply.reader();
        let attributes = read_attributes(&mut fields)?;
        let count: u64 = fields.get().map_err(garbled)?;
        if count > MAX_PARAMS {
            return Err(CUresult::ERROR_UNKNOWN);
        }
        let mut params = Vec::new();
        for _ in 0..count {
            params.push((fields.get().map_err(garbled)?, fields.get().map_err(garbled)?));
        }
        Ok(Self { params, attributes })
    }

    /// Makes the object, which is taken to be alike on all devices until it is changed on one.
    fn into_function(
        self,
        devices: usize,
        handle: u64,
        name: CString,
        owner: u64,
        is_kernel: bool,
        context: u64,
    ) -> Function {
        let end =
            self.params.iter().map(|(offset, size)| *offset as usize + *size as usize).max().unwrap_or(0);
        Function {
            handle,
            name,
            owner,
            is_kernel,
            context,
            params: self.params,
            param_bytes: end,
            attributes: (0..devices).map(|_| self.attributes.map(AtomicI32::new)).collect(),
            legacy: Mutex::default(),
            system_atomics: AtomicU8::default(),
            occupancy: Mutex::default(),
            set: Mutex::default(),
        }
    }
}

/// Reads all attributes of a function.
pub(super) fn read_attributes(fields: &mut Reader<'_>) -> Result<[i32; FUNCTION_ATTRIBUTES]> {
    let mut attributes = [i32::MIN; FUNCTION_ATTRIBUTES];
    for attribute in &mut attributes {
        *attribute = fields.get().map_err(garbled)?;
    }
    Ok(attributes)
}

/// Resolves a function or kernel by name, once per module or library.
pub(super) fn resolve(
    session: &'static Session,
    module: &Arc<Module>,
    name: &CStr,
    is_kernel: bool,
) -> Result<u64> {
    let key = name.to_string_lossy().into_owned();
    let mut functions = lock(&module.functions);
    if let Some(handle) = functions.get(&key) {
        return Ok(*handle);
    }
    let (table, opcode) = if is_kernel {
        (&session.kernels, op::cuLibraryGetKernel)
    } else {
        (&session.functions, op::cuModuleGetFunction)
    };
    let devices = session.snapshot.devices.len();
    // The host files the function under the handle before its layout is known here, so the slot is taken first.
    let slot = table.mint(|handle| {
        let unresolved = Resolved { params: Vec::new(), attributes: [i32::MIN; FUNCTION_ATTRIBUTES] };
        unresolved.into_function(
            devices,
            handle,
            CString::default(),
            module.handle,
            is_kernel,
            module.context,
        )
    })?;
    let answered = session
        .call(opcode, |writer| {
            writer.put(module.handle);
            writer.put(slot.handle);
            writer.put_bytes(name.to_bytes());
        })
        .and_then(|reply| Resolved::read(&reply));
    let resolved = answered.inspect_err(|_| {
        table.remove(slot.handle);
    })?;
    table.replace(
        slot.handle,
        resolved.into_function(devices, slot.handle, name.into(), module.handle, is_kernel, module.context),
    );
    functions.insert(key, slot.handle);
    Ok(slot.handle)
}

pub(super) fn module(session: &Session, raw: CUmodule) -> Result<Arc<Module>> {
    session.modules.get(raw.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) unsafe fn cuModuleGetFunction(
    hfunc: *mut CUfunction,
    hmod: CUmodule,
    name: *const c_char,
) -> Result {
    let session = session()?;
    // SAFETY: the entry point's contract.
    let name = unsafe { text(name)? };
    let module = module(session, hmod)?;
    let handle = resolve(session, &module, name, false)?;
    // SAFETY: the entry point's contract.
    unsafe { put(hfunc, CUfunction(handle)) }
}

/// Names of all functions or kernels, asked once.
pub(super) fn names(session: &Session, module: &Module, opcode: u16) -> Result<Vec<String>> {
    let mut names = lock(&module.names);
    if let Some(names) = &*names {
        return Ok(names.clone());
    }
    let reply = session.call(opcode, |writer| writer.put(module.handle))?;
    let mut fields = reply.reader();
    let count: u64 = fields.get().map_err(garbled)?;
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(fields.get_str().map_err(garbled)?.to_owned());
    }
    *names = Some(found.clone());
    Ok(found)
}

/// Handles of all functions of a module.
pub(crate) fn functions(session: &'static Session, raw: u64) -> Result<Vec<u64>> {
    let module = module(session, CUmodule(raw))?;
    names(session, &module, op::cuModuleEnumerateFunctions)?
        .into_iter()
        .map(|name| {
            let name = CString::new(name).map_err(|_| CUresult::ERROR_UNKNOWN)?;
            resolve(session, &module, &name, false)
        })
        .collect()
}

pub(crate) unsafe fn cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule) -> Result {
    let session = session()?;
    let module = self::module(session, module)?;
    let found = names(session, &module, op::cuModuleEnumerateFunctions)?.len();
    // SAFETY: the entry point's contract.
    unsafe { put(count, c_uint::try_from(found).unwrap_or(c_uint::MAX)) }
}

pub(crate) unsafe fn cuModuleEnumerateFunctions(
    functions: *mut CUfunction,
    numFunctions: c_uint,
    module: CUmodule,
) -> Result {
    if functions.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let found = self::functions(session()?, module.0)?;
    for (index, handle) in found.into_iter().take(numFunctions as usize).enumerate() {
        // SAFETY: room for `numFunctions`, by the entry point's contract.
        unsafe { functions.add(index).write(CUfunction(handle)) };
    }
    Ok(())
}

/// Address and size of a variable, asked once per module (and context, for a library).
pub(super) fn global(
    session: &'static Session,
    module: &Module,
    context: (u64, i32),
    name: &CStr,
    opcode: u16,
) -> Result<(u64, u64)> {
    let key = (name.to_string_lossy().into_owned(), context.0);
    let mut globals = lock(&module.globals);
    if let Some(known) = globals.get(&key) {
        return Ok(*known);
    }
    let reply = session.call(opcode, |writer| {
        writer.put(module.handle);
        writer.put_bytes(name.to_bytes());
    })?;
    let mut fields = reply.reader();
    let found: (u64, u64) = (fields.get().map_err(garbled)?, fields.get().map_err(garbled)?);
    let is_managed = fields.get::<u32>().map_err(garbled)? != 0;
    if is_managed {
        session.managed_variables.add(session, found.0, found.1, context.0)?;
    }
    let kind = if is_managed { Kind::ManagedVariable } else { Kind::Global };
    session.allocations.insert(kind, found.0, found.1, context.0, context.1, 0);
    globals.insert(key, found);
    Ok(found)
}

/// Forgets a variable whose module goes.
pub(super) fn forget_variable(session: &Session, address: u64) {
    session.managed_variables.remove(address);
    session.allocations.remove(address, Allocation::is_variable);
}

/// Hands out address and size of a variable; either pointer may be null (CUDA driver API, cuModuleGetGlobal).
pub(super) unsafe fn put_global(dptr: *mut CUdeviceptr, bytes: *mut usize, found: (u64, u64)) {
    if !dptr.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { dptr.write(found.0) };
    }
    if !bytes.is_null() {
        // SAFETY: as above.
        unsafe { bytes.write(usize::try_from(found.1).unwrap_or(usize::MAX)) };
    }
}

pub(crate) unsafe fn cuModuleGetGlobal_v2(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    hmod: CUmodule,
    name: *const c_char,
) -> Result {
    let (session, context) = enter()?;
    // SAFETY: the entry point's contract.
    let name = unsafe { text(name)? };
    let module = module(session, hmod)?;
    let found = global(session, &module, (context.handle, context.device), name, op::cuModuleGetGlobal_v2)?;
    // SAFETY: the entry point's contract.
    unsafe { put_global(dptr, bytes, found) };
    Ok(())
}

/// Forgets what a context took with it from every library.
pub(crate) fn context_ended(session: &Session, context: u64) {
    session.managed_variables.context_ended(context);
    session.libraries.for_each(|library| {
        let keep = |map: &mut HashMap<(String, u64), (u64, u64)>| map.retain(|(_, of), _| *of != context);
        keep(&mut lock(&library.globals));
        lock(&library.modules).remove(&context);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_differ_anywhere_hash_apart() {
        let image = vec![7_u8; 10_001];
        let first = hash(&image);
        assert_eq!(first, hash(&image.clone()));
        for at in [0, 1, 4096, 9999, 10_000] {
            let mut other = image.clone();
            other[at] ^= 1;
            assert_ne!(first, hash(&other), "{at}");
        }
        assert_ne!(first, hash(&image[..10_000]));
    }
}
