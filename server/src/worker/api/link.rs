//! The JIT linker: images go in by their hash, the machine code comes back in chunks.

use super::super::dispatch::{Answer, Call, done};
use super::super::state::State;
use super::module::Jit;
use pxos_protocol::frame::BULK_CHUNK;
use pxos_protocol::types::{CUjitInputType, CUresult};
use std::ffi::CString;

/// Most bytes that a finished program may have.
const LONGEST: usize = 1 << 30;

/// `CU_JIT_INPUT_PTX`.
const PTX: CUjitInputType = 1;
/// `CU_JIT_INPUT_FATBINARY`: the last kind whose headers say how long it is.
const FATBINARY: CUjitInputType = 2;
/// `CU_JIT_NUM_INPUT_TYPES`.
const KINDS: CUjitInputType = 6;

/// A state of the linker.
pub(crate) struct Link {
    native: u64,
    /// The guest's handle of the context.
    pub(crate) context: u64,
    /// Holds the log buffers, which the driver writes to until the state is destroyed.
    jit: Jit,
    program: Vec<u8>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("native", &self.native)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// `cuLinkCreate`: handle, JIT options.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let mut jit = Jit::read(call)?;
    call.state.links.check(handle)?;
    let count = u32::try_from(jit.options.len()).expect("bounded where they are read");
    let mut native = 0;
    // SAFETY: arrays of `count` entries, whose pointers lead to buffers of `jit`, which lives as long as the state.
    unsafe {
        call.driver().cuLinkCreate_v2(
            count,
            jit.options.as_mut_ptr(),
            jit.values.as_mut_ptr(),
            &raw mut native,
        )?;
    }
    let link = Link { native, context: call.header.context, jit, program: Vec::new() };
    call.state.links.insert(handle, link)?;
    done()
}

/// `cuLinkAddData`: handle, kind, hash, name, JIT options; result and logs come back.
pub(in super::super) fn add(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let kind: CUjitInputType = call.get()?;
    let hash = call.get()?;
    let name = CString::new(call.fields.get_bytes()?).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let mut options = Jit::read(call)?;
    if kind >= KINDS {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let State { links, images, reply, .. } = call.state;
    let link = links.get(handle)?;
    let image = if kind <= FATBINARY { images.complete(hash)? } else { images.whole(hash)? };
    // The length counts the NUL that ends PTX; the driver refuses text without one.
    let text;
    let image = if kind == PTX && image.last() != Some(&0) {
        text = [image, &[0]].concat();
        &text[..]
    } else {
        image
    };
    // Logs are those that the state was made with.
    let plain = options.plain();
    let count = u32::try_from(plain).expect("bounded where they are read");
    // SAFETY: an image and its length, a C string, arrays of `count` entries with plain values. The driver reads the image and
    // does not write to it.
    let added = unsafe {
        call.session.driver.cuLinkAddData_v2(
            link.native,
            kind,
            image.as_ptr().cast_mut().cast(),
            image.len(),
            name.as_ptr(),
            count,
            options.options.as_mut_ptr(),
            options.values.as_mut_ptr(),
        )
    };
    link.jit.reply(&mut pxos_protocol::codec::Writer::new(reply), added);
    done()
}

/// `cuLinkComplete`: handle, offset. At offset 0 the program is linked, and result, logs and length come back; each call brings
/// the bytes from the offset on, as many as fit.
pub(in super::super) fn complete(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let offset = call.get_usize()?;
    let State { links, reply, .. } = call.state;
    let link = links.get_mut(handle)?;
    let mut writer = pxos_protocol::codec::Writer::new(reply);
    if offset == 0 {
        let (mut program, mut bytes) = (std::ptr::null_mut(), 0_usize);
        // SAFETY: a state of this session's; pointers to locals.
        let completed =
            unsafe { call.session.driver.cuLinkComplete(link.native, &raw mut program, &raw mut bytes) };
        link.program.clear();
        if completed.is_ok() && !program.is_null() {
            if bytes > LONGEST {
                return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
            }
            // SAFETY: the driver's program, good until the state is destroyed.
            link.program
                .extend_from_slice(unsafe { std::slice::from_raw_parts(program.cast::<u8>(), bytes) });
        }
        link.jit.reply(&mut writer, completed);
        writer.put(link.program.len() as u64);
    }
    let rest = link.program.get(offset..).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    writer.put_bytes(&rest[..rest.len().min(BULK_CHUNK)]);
    done()
}

/// `cuLinkDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let link = call.state.links.remove(handle)?;
    // SAFETY: a state of this session's, taken out of the table; its buffers go after it.
    unsafe { call.driver().cuLinkDestroy(link.native)? };
    done()
}
