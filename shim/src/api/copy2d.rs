//! Copies that know rows, planes or arrays. Every form becomes one: a box of bytes between two places.
//!
//! Ends in device memory and arrays are named; page-locked memory that is shared with the worker, too. Other host memory is
//! gathered into slabs that pass through the staging area or the frames, and scattered from them ([`super::rows`]).

use super::array::array;
use super::rows::{self, Linear, slabs};
use super::{Result, enter, stream_argument};
use crate::arrays::Array;
use crate::call::garbled;
use crate::session::Session;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::control::STAGING_SLOT;
use pxos_protocol::frame::{BULK_CHUNK, control};
use pxos_protocol::types::{
    BoxCopy, CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST, CU_MEMORYTYPE_UNIFIED,
    CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUDA_MEMCPY3D_PEER, CUarray, CUresult, CUstream, Place,
};
use std::ffi::c_void;

/// Up to here a slab travels in its frame, above it through the staging area where there is one: a slot costs a message
/// more, copying through the ring a second copy.
const INLINE: u64 = 64 << 10;

/// `CU_DEVICE_ATTRIBUTE_MAX_PITCH` of every device so far.
const MAX_PITCH: u64 = 0x7fff_ffff;

/// One end as the application describes it.
#[derive(Clone, Copy)]
pub(super) struct Given {
    kind: u32,
    host: u64,
    device: u64,
    array: CUarray,
    /// Bytes, rows and planes before it.
    at: [usize; 3],
    /// Bytes from row to row.
    pitch: usize,
    /// Rows from plane to plane.
    rows: usize,
    /// Must be zero.
    lod: usize,
}

/// One end, resolved.
enum End {
    /// Host memory.
    Host {
        /// Where.
        line: Linear,
        /// Whether CUDA knows it: work in a stream may write it.
        known: bool,
        /// The same as the worker reaches it, if it does.
        shared: Option<Place>,
    },
    /// Device memory or an array.
    Named(Place),
}

impl End {
    /// As the worker reaches it, if it does.
    fn named(&self) -> Option<Place> {
        match self {
            Self::Named(place) => Some(*place),
            Self::Host { shared, .. } => *shared,
        }
    }

    fn is_host(&self) -> bool {
        matches!(self, Self::Host { .. })
    }
}

/// A copy, resolved.
struct Task {
    to: End,
    from: End,
    extent: [u64; 3],
    /// The contexts of a copy between two, to and from.
    contexts: Option<[u64; 2]>,
}

fn invalid<T>() -> Result<T> {
    Err(CUresult::ERROR_INVALID_VALUE)
}

impl Given {
    fn from_of(copy: &CUDA_MEMCPY3D) -> Self {
        Self {
            kind: copy.src_memory_type,
            host: copy.src_host.expose_provenance() as u64,
            device: copy.src_device,
            array: copy.src_array,
            at: [copy.src_x_in_bytes, copy.src_y, copy.src_z],
            pitch: copy.src_pitch,
            rows: copy.src_height,
            lod: copy.src_lod,
        }
    }

    fn to_of(copy: &CUDA_MEMCPY3D) -> Self {
        Self {
            kind: copy.dst_memory_type,
            host: copy.dst_host.expose_provenance() as u64,
            device: copy.dst_device,
            array: copy.dst_array,
            at: [copy.dst_x_in_bytes, copy.dst_y, copy.dst_z],
            pitch: copy.dst_pitch,
            rows: copy.dst_height,
            lod: copy.dst_lod,
        }
    }

    /// A single row at an address.
    pub(super) fn line(kind: u32, address: u64) -> Self {
        Self {
            kind,
            host: address,
            device: address,
            array: CUarray::NULL,
            at: [0; 3],
            pitch: 0,
            rows: 0,
            lod: 0,
        }
    }

    /// A single row of an array, from a byte on.
    pub(super) fn line_of(array: CUarray, offset: usize) -> Self {
        Self { array, at: [offset, 0, 0], ..Self::line(CU_MEMORYTYPE_ARRAY, 0) }
    }

    /// Where it lies, for a copy of `extent`.
    fn resolve(&self, session: &Session, extent: [u64; 3]) -> Result<End> {
        if self.lod != 0 {
            return invalid();
        }
        let (address, must_be_known) = match self.kind {
            CU_MEMORYTYPE_HOST => (self.host, false),
            CU_MEMORYTYPE_DEVICE => (self.device, true),
            CU_MEMORYTYPE_UNIFIED => (self.device, false),
            CU_MEMORYTYPE_ARRAY => return self.in_array(&*array(session, self.array)?, extent),
            _ => return invalid(),
        };
        let line = self.linear(address, extent).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if address == 0 {
            return invalid();
        }
        let shape = BoxCopy { to: Place::Payload, from: Place::Payload, extent };
        let reach = shape.reach(line.pitch, line.rows).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let Linear { address, pitch, rows } = line;
        match session.allocations.find(address) {
            Some(range) if range.is_host() => match session.shared_address(address) {
                Some(_) if reach > range.bytes_from(address) => invalid(),
                there => {
                    let shared = there.map(|address| Place::Pinned { address, pitch, rows });
                    Ok(End::Host { line, known: true, shared })
                }
            },
            Some(range) if reach > range.bytes_from(address) => invalid(),
            // Unified addressing: a device address may stand for a host one.
            Some(_) => Ok(End::Named(Place::Device { address, pitch, rows })),
            None if must_be_known => invalid(),
            None => Ok(End::Host { line, known: false, shared: None }),
        }
    }

    /// An end in linear memory, its offsets made part of the address; `None` where pitch or rows are too small, or too
    /// large. Where there is one row or plane only, what lies between them does not matter.
    fn linear(&self, address: u64, [width, height, depth]: [u64; 3]) -> Option<Linear> {
        let [x, y, z] = self.at.map(|offset| offset as u64);
        let (pitch, rows) = (self.pitch as u64, self.rows as u64);
        let row_end = x.checked_add(width)?;
        if pitch > MAX_PITCH || (height > 1 || depth > 1) && pitch < row_end {
            return None;
        }
        if depth > 1 && rows < y.checked_add(height)? {
            return None;
        }
        let offset = z.checked_mul(rows)?.checked_add(y)?.checked_mul(pitch)?.checked_add(x)?;
        Some(Linear {
            address: address.checked_add(offset)?,
            pitch: if height > 1 || depth > 1 { pitch } else { width },
            rows: if depth > 1 { rows } else { height },
        })
    }

    fn in_array(&self, array: &Array, extent: [u64; 3]) -> Result<End> {
        let at = self.at.map(|offset| offset as u64);
        // Block-compressed and video formats have rules of their own, which the driver knows.
        if let (Some(whole), Some(element)) = (array.descriptor.extent(), array.descriptor.element_bytes()) {
            let fits =
                (0..3).all(|side| at[side].checked_add(extent[side]).is_some_and(|end| end <= whole[side]));
            if !fits || !at[0].is_multiple_of(element) || !extent[0].is_multiple_of(element) {
                return invalid();
            }
        }
        Ok(End::Named(Place::Array { array: CUarray(array.handle), at }))
    }
}

impl Task {
    /// What goes over the wire for a copy between two named places.
    fn encode(&self, writer: &mut Writer<'_>, stream: u64, copy: &BoxCopy) {
        writer.put(stream);
        for context in self.contexts.iter().flatten() {
            writer.put(*context);
        }
        copy.encode(writer);
    }

    fn op(&self) -> u16 {
        if self.contexts.is_some() { op::cuMemcpy3DPeerAsync } else { op::cuMemcpy3DAsync_v2 }
    }

    /// Does it, in a stream of the wire; `waits` for the function that natively returns when the host may go on.
    ///
    /// # Safety
    /// Rows in host memory are valid.
    unsafe fn run(&self, session: &'static Session, stream: u64, waits: bool) -> Result {
        if let (Some(to), Some(from)) = (self.to.named(), self.from.named()) {
            let copy = BoxCopy { to, from, extent: self.extent };
            let write = |writer: &mut Writer<'_>| self.encode(writer, stream, &copy);
            return if waits && (self.to.is_host() || self.from.is_host()) {
                session.call(self.op(), write).map(|_| ())
            } else {
                session.post(self.op(), write)
            };
        }
        match (&self.to, &self.from) {
            (
                End::Host { line: to, known: to_known, .. },
                End::Host { line: from, known: from_known, .. },
            ) => {
                if waits || *to_known || *from_known {
                    session.call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
                }
                // SAFETY: by this function's contract.
                unsafe { rows::across(to, from, self.extent) };
                Ok(())
            }
            (End::Host { line, .. }, End::Named(from)) => {
                // SAFETY: by this function's contract.
                unsafe { self.to_host(session, line, *from, stream) }
            }
            (End::Named(to), End::Host { line, known, .. }) => {
                // SAFETY: by this function's contract.
                unsafe { self.to_device(session, *to, line, *known, stream) }
            }
            (End::Named(_), End::Named(_)) => unreachable!("named ends are copied above"),
        }
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn to_device(
        &self,
        session: &'static Session,
        to: Place,
        from: &Linear,
        known: bool,
        stream: u64,
    ) -> Result {
        if known || session.callbacks.are_pending() {
            // Work before this copy may still write what it reads: the rows are taken when that has run.
            session.call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
        }
        let staging = session.staging.as_ref();
        let limit = if staging.is_some() { STAGING_SLOT } else { BULK_CHUNK as u64 };
        for slab in slabs(self.extent, limit) {
            let to = rows::part(to, &slab);
            let Some(staging) = staging.filter(|_| slab.bytes() > INLINE) else {
                let mut packed = vec![0; usize::try_from(slab.bytes()).expect("slabs are small")];
                // SAFETY: by this function's contract; a buffer of the slab's size.
                unsafe { rows::gather(from, &slab, packed.as_mut_ptr()) };
                let copy = BoxCopy { to, from: Place::Payload, extent: slab.extent };
                session.post(self.op(), |writer| {
                    self.encode(writer, stream, &copy);
                    writer.put_bytes(&packed);
                })?;
                continue;
            };
            let slot = staging.take(session)?;
            // SAFETY: by this function's contract; a slot that this thread has taken holds a slab.
            unsafe { rows::gather(from, &slab, staging.address(slot)) };
            let copy = BoxCopy { to, from: Place::Staged { slot }, extent: slab.extent };
            let sent = session.post(self.op(), |writer| self.encode(writer, stream, &copy));
            staging.drain(slot);
            sent?;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn to_host(&self, session: &'static Session, to: &Linear, from: Place, stream: u64) -> Result {
        let staging = session.staging.as_ref();
        let limit = if staging.is_some() { STAGING_SLOT } else { BULK_CHUNK as u64 };
        for slab in slabs(self.extent, limit) {
            let from = rows::part(from, &slab);
            let Some(staging) = staging.filter(|_| slab.bytes() > INLINE) else {
                let copy = BoxCopy { to: Place::Payload, from, extent: slab.extent };
                let reply = session.call(self.op(), |writer| self.encode(writer, stream, &copy))?;
                let length = usize::try_from(slab.bytes()).expect("slabs are small");
                let packed = reply.reader().get_raw(length).map_err(garbled)?;
                // SAFETY: by this function's contract; as many bytes as the slab has.
                unsafe { rows::scatter(to, &slab, packed.as_ptr()) };
                continue;
            };
            let slot = staging.take(session)?;
            let filled = staged(
                session,
                self,
                &BoxCopy { to: Place::Staged { slot }, from, extent: slab.extent },
                slot,
                stream,
            );
            if filled.is_ok() {
                // SAFETY: by this function's contract; a slot that the device has filled.
                unsafe { rows::scatter(to, &slab, staging.address(slot)) };
            }
            staging.give_back(slot);
            filled?;
        }
        Ok(())
    }
}

/// Has the device fill a slot, and waits for it.
fn staged(session: &'static Session, task: &Task, copy: &BoxCopy, slot: u64, stream: u64) -> Result {
    session.post(task.op(), |writer| task.encode(writer, stream, copy))?;
    session.call(control::STAGE_WAIT, |writer| writer.put(slot)).map(|_| ())
}

/// Resolves and does a copy.
///
/// # Safety
/// Rows in host memory are valid.
pub(super) unsafe fn run(
    to: &Given,
    from: &Given,
    extent: [usize; 3],
    stream: CUstream,
    waits: bool,
) -> Result {
    // SAFETY: by this function's contract.
    unsafe { run_between(to, from, extent, None, stream, waits) }
}

/// # Safety
/// As [`run`].
unsafe fn run_between(
    to: &Given,
    from: &Given,
    extent: [usize; 3],
    contexts: Option<[u64; 2]>,
    stream: CUstream,
    waits: bool,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, stream.0)?;
    if [to, from].iter().any(|end| !(CU_MEMORYTYPE_HOST..=CU_MEMORYTYPE_UNIFIED).contains(&end.kind)) {
        return invalid();
    }
    if extent.contains(&0) {
        return Ok(());
    }
    let sides = extent;
    let extent = extent.map(|side| side as u64);
    let whole = extent.iter().try_fold(1_u64, |bytes, side| bytes.checked_mul(*side));
    if whole.is_none() {
        return invalid();
    }
    let task =
        Task { to: to.resolve(session, extent)?, from: from.resolve(session, extent)?, extent, contexts };
    if session.captures.is_capturing(stream) && (task.to.named().is_none() || task.from.named().is_none()) {
        return super::graph::captured_copy(session, &described(to, from, sides), stream);
    }
    // SAFETY: by this function's contract.
    unsafe { task.run(session, stream, waits) }
}

/// A copy in the words of `cuMemcpy3D`.
fn described(to: &Given, from: &Given, extent: [usize; 3]) -> CUDA_MEMCPY3D {
    let host = |address: u64| {
        std::ptr::with_exposed_provenance_mut::<c_void>(
            usize::try_from(address).expect("addresses have 64 bits"),
        )
    };
    CUDA_MEMCPY3D {
        src_x_in_bytes: from.at[0],
        src_y: from.at[1],
        src_z: from.at[2],
        src_memory_type: from.kind,
        src_host: host(from.host).cast_const(),
        src_device: from.device,
        src_array: from.array,
        src_pitch: from.pitch,
        src_height: from.rows,
        dst_x_in_bytes: to.at[0],
        dst_y: to.at[1],
        dst_z: to.at[2],
        dst_memory_type: to.kind,
        dst_host: host(to.host),
        dst_device: to.device,
        dst_array: to.array,
        dst_pitch: to.pitch,
        dst_height: to.rows,
        width_in_bytes: extent[0],
        height: extent[1],
        depth: extent[2],
        ..CUDA_MEMCPY3D::default()
    }
}

/// # Safety
/// The pointer is null or readable; host rows are valid.
pub(super) unsafe fn run_box(copy: *const CUDA_MEMCPY3D, stream: CUstream, waits: bool) -> Result {
    enter()?;
    // SAFETY: by this function's contract.
    let copy = unsafe { copy.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let extent = [copy.width_in_bytes, copy.height, copy.depth];
    // SAFETY: by this function's contract.
    unsafe { run(&Given::to_of(copy), &Given::from_of(copy), extent, stream, waits) }
}

/// # Safety
/// As [`run_box`].
unsafe fn run_rectangle(copy: *const CUDA_MEMCPY2D, stream: CUstream, waits: bool) -> Result {
    enter()?;
    // SAFETY: by this function's contract.
    let copy = unsafe { copy.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let copy = CUDA_MEMCPY3D::from(*copy);
    // SAFETY: by this function's contract.
    unsafe { run_box(&raw const copy, stream, waits) }
}

pub(crate) unsafe fn cuMemcpy2D_v2(pCopy: *const CUDA_MEMCPY2D) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_rectangle(pCopy, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpy2DUnaligned_v2(pCopy: *const CUDA_MEMCPY2D) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_rectangle(pCopy, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpy2DAsync_v2(pCopy: *const CUDA_MEMCPY2D, hStream: CUstream) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_rectangle(pCopy, hStream, false) }
}

pub(crate) unsafe fn cuMemcpy3D_v2(pCopy: *const CUDA_MEMCPY3D) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_box(pCopy, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpy3DAsync_v2(pCopy: *const CUDA_MEMCPY3D, hStream: CUstream) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_box(pCopy, hStream, false) }
}

/// # Safety
/// As [`run_box`].
unsafe fn run_peers(copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream, waits: bool) -> Result {
    let (session, current) = enter()?;
    // SAFETY: by this function's contract.
    let copy = unsafe { copy.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let context = |kind: u32, named: u64| -> Result<u64> {
        // "ignored" with arrays, which know theirs; host memory has none.
        if kind == CU_MEMORYTYPE_ARRAY || kind == CU_MEMORYTYPE_HOST {
            return Ok(current.handle);
        }
        session.contexts.get(named).map(|found| found.handle).ok_or(CUresult::ERROR_INVALID_CONTEXT)
    };
    let contexts = [
        context(copy.dst_memory_type, copy.dst_context.0)?,
        context(copy.src_memory_type, copy.src_context.0)?,
    ];
    let plain = CUDA_MEMCPY3D::from(*copy);
    let extent = [plain.width_in_bytes, plain.height, plain.depth];
    let contexts = (contexts[0] != contexts[1]).then_some(contexts);
    // SAFETY: by this function's contract.
    unsafe { run_between(&Given::to_of(&plain), &Given::from_of(&plain), extent, contexts, stream, waits) }
}

pub(crate) unsafe fn cuMemcpy3DPeer(pCopy: *const CUDA_MEMCPY3D_PEER) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_peers(pCopy, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpy3DPeerAsync(pCopy: *const CUDA_MEMCPY3D_PEER, hStream: CUstream) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { run_peers(pCopy, hStream, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(at: [usize; 3], pitch: usize, rows: usize) -> Given {
        Given { at, pitch, rows, ..Given::line(CU_MEMORYTYPE_DEVICE, 1000) }
    }

    #[test]
    fn offsets_become_part_of_the_address() {
        let line = given([4, 2, 1], 100, 10).linear(1000, [20, 3, 2]);
        assert_eq!(line, Some(Linear { address: 1000 + 1000 + 200 + 4, pitch: 100, rows: 10 }));
        let row = given([4, 2, 0], 100, 0).linear(1000, [96, 1, 1]);
        assert_eq!(row, Some(Linear { address: 1204, pitch: 96, rows: 1 }));
    }

    #[test]
    fn rows_must_fit_into_their_pitch() {
        assert!(given([4, 0, 0], 100, 10).linear(0, [97, 2, 1]).is_none());
        assert!(given([4, 0, 0], 100, 10).linear(0, [96, 2, 1]).is_some());
        assert!(given([0, 1, 0], 100, 10).linear(0, [96, 10, 2]).is_none());
        assert!(given([0, 0, 0], 1 << 31, 10).linear(0, [96, 10, 1]).is_none());
        assert!(given([usize::MAX, 0, 0], 100, 10).linear(0, [96, 1, 1]).is_none());
        assert!(given([0, usize::MAX, 0], 100, 10).linear(1, [96, 1, 1]).is_none());
    }
}
