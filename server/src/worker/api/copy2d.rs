//! Copies of rows and planes, between linear memory, arrays and the guest.

use super::super::dispatch::{Answer, Call, Failed, Outcome, done};
use super::super::estimate::Key;
use super::super::gate::capture_status_of;
use crate::driver::{Driver, Result};
use crate::scheduler::page::Direction;
use crate::stats::add;
use pxos_protocol::api::op;
use pxos_protocol::codec::DecodeError;
use pxos_protocol::frame::BULK_CHUNK;
use pxos_protocol::types::{
    BoxCopy, CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST, CUDA_MEMCPY3D, CUarray,
    CUcontext, CUresult, Place, capture_status,
};
use std::ffi::c_void;

/// One end in the driver's terms.
struct End {
    kind: u32,
    host: *mut c_void,
    device: u64,
    array: CUarray,
    at: [usize; 3],
    pitch: usize,
    rows: usize,
}

fn size(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| CUresult::ERROR_INVALID_VALUE)
}

/// Turns an end of the wire into one of the driver's; `payload` is where the bytes of a frame lie.
fn end(call: &Call<'_>, copy: &BoxCopy, place: Place, payload: *mut c_void) -> Result<End> {
    let [width, height, _] = copy.extent;
    let nothing = End {
        kind: CU_MEMORYTYPE_HOST,
        host: std::ptr::null_mut(),
        device: 0,
        array: CUarray::NULL,
        at: [0; 3],
        pitch: 0,
        rows: 0,
    };
    match place {
        Place::Payload => Ok(End { host: payload, pitch: size(width)?, rows: size(height)?, ..nothing }),
        Place::Device { address, pitch, rows } => {
            if call.state.areas.as_ref().is_some_and(|areas| areas.is_arena(address)) {
                // Host memory, which the guest must name as such so that its range is checked.
                return Err(CUresult::ERROR_INVALID_VALUE);
            }
            let (kind, pitch, rows) = (CU_MEMORYTYPE_DEVICE, size(pitch)?, size(rows)?);
            Ok(End { kind, device: address, pitch, rows, ..nothing })
        }
        Place::Pinned { address, pitch, rows } => {
            let reach = copy.reach(pitch, rows).ok_or(CUresult::ERROR_INVALID_VALUE)?;
            let areas = call.state.areas.as_ref().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
            if !areas.is_pinned(address, reach) {
                return Err(CUresult::ERROR_INVALID_VALUE);
            }
            let host = std::ptr::with_exposed_provenance_mut(size(address)?);
            Ok(End { host, pitch: size(pitch)?, rows: size(rows)?, ..nothing })
        }
        Place::Staged { slot } => {
            let bytes = copy.bytes().ok_or(CUresult::ERROR_INVALID_VALUE)?;
            let areas = call.state.areas.as_ref().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
            Ok(End { host: areas.slot(slot, bytes)?, pitch: size(width)?, rows: size(height)?, ..nothing })
        }
        Place::Array { array, at: [x, y, z] } => {
            let array = CUarray(call.state.arrays.arrays.get(array.0)?.native);
            Ok(End { kind: CU_MEMORYTYPE_ARRAY, array, at: [size(x)?, size(y)?, size(z)?], ..nothing })
        }
    }
}

/// The driver's structure.
fn parameters(copy: &BoxCopy, to: &End, from: &End) -> Result<CUDA_MEMCPY3D> {
    Ok(CUDA_MEMCPY3D {
        src_x_in_bytes: from.at[0],
        src_y: from.at[1],
        src_z: from.at[2],
        src_memory_type: from.kind,
        src_host: from.host,
        src_device: from.device,
        src_array: from.array,
        src_pitch: from.pitch,
        src_height: from.rows,
        dst_x_in_bytes: to.at[0],
        dst_y: to.at[1],
        dst_z: to.at[2],
        dst_memory_type: to.kind,
        dst_host: to.host,
        dst_device: to.device,
        dst_array: to.array,
        dst_pitch: to.pitch,
        dst_height: to.rows,
        width_in_bytes: size(copy.extent[0])?,
        height: size(copy.extent[1])?,
        depth: size(copy.extent[2])?,
        ..CUDA_MEMCPY3D::default()
    })
}

/// Puts a copy into a stream; `contexts` are those of a copy between two, to and from.
///
/// # Safety
/// Host ends are valid for the copy's rows and planes until it is done.
unsafe fn start(driver: &Driver, copy: &CUDA_MEMCPY3D, contexts: Option<[u64; 2]>, stream: u64) -> Result {
    // SAFETY: by this function's contract; arrays come from the worker's tables and device ranges are checked by the driver.
    unsafe {
        match contexts {
            None => driver.cuMemcpy3DAsync_v2(copy, stream),
            Some([to, from]) => {
                let copy = copy.between(CUcontext(to), CUcontext(from));
                driver.cuMemcpy3DPeerAsync(&raw const copy, stream)
            }
        }
    }
}

/// The contexts of a copy between two, brought to life where they sleep.
fn contexts(call: &mut Call<'_>) -> std::result::Result<Option<[u64; 2]>, Failed> {
    if call.header.op != op::cuMemcpy3DPeerAsync {
        return Ok(None);
    }
    let mut natives = [0; 2];
    for native in &mut natives {
        let raw = call.get()?;
        call.state.enter(call.session, raw)?;
        *native = call.state.contexts.get(raw).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?.native;
    }
    call.state.enter(call.session, call.header.context)?;
    Ok(Some(natives))
}

/// Refuses bytes of a frame, or of an answer, where they would become part of a graph, which reads or writes them when they are
/// long gone and their memory is another's. Captures begin in the leader's turn, as this runs in it.
pub(super) fn refuse_capture(call: &Call<'_>, stream: u64) -> Result {
    if !call.state.graphs.may_capture() {
        return Ok(());
    }
    match capture_status_of(call.driver(), stream)? {
        capture_status::NONE => Ok(()),
        _ => Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED),
    }
}

/// Every copy with rows: stream, for a copy between contexts these (to, from), [`BoxCopy`], and the bytes where they come
/// with the frame. Bytes for the guest are the answer.
pub(in super::super) fn copy(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let contexts = contexts(call)?;
    let copy = BoxCopy::decode(&mut call.fields)?;
    let stats = call.session.stats;
    let bytes = copy.bytes().unwrap_or(u64::MAX);
    if copy.to == Place::Payload {
        if matches!(copy.from, Place::Pinned { .. } | Place::Staged { .. }) {
            // The guest's own memory, which it copies itself.
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        let from = end(call, &copy, copy.from, std::ptr::null_mut())?;
        let to = end(call, &copy, Place::Payload, std::ptr::null_mut())?;
        let (parameters, length) = (Sendable(parameters(&copy, &to, &from)?), size(bytes)?);
        if length > BULK_CHUNK {
            return Err(DecodeError::TooLong { claimed: bytes, limit: BULK_CHUNK as u64 }.into());
        }
        add(&stats.copy_bytes_to_host, bytes);
        return Ok(Outcome::Later(Box::new(move |session, reply| {
            let Sendable(mut parameters) = { parameters };
            let buffer = session.staging.take(session)?;
            parameters.dst_host = buffer.address();
            // Where this fails, the driver may still write to the buffer: after a fault, or in a graph, where the guest has
            // begun to capture the stream. Then the buffer is left alone, and ends with the worker.
            // SAFETY: a buffer of `BULK_CHUNK` bytes has room for all rows and planes; it is not read before the stream is done.
            unsafe {
                start(&session.driver, &parameters, contexts, stream)?;
                session.driver.cuStreamSynchronize(stream)?;
                reply.extend_from_slice(buffer.bytes(length));
            }
            session.staging.give_back(session, buffer);
            Ok(())
        })));
    }
    let data = if copy.from == Place::Payload { call.fields.get_bytes()? } else { &[] };
    if copy.from == Place::Payload && data.len() as u64 != bytes {
        return Err(DecodeError::Truncated { have: data.len(), need: size(bytes)? }.into());
    }
    match (copy.to, copy.from) {
        (Place::Pinned { .. } | Place::Staged { .. }, _) => {
            add(&stats.copy_bytes_to_host, bytes);
            add(&stats.shared_bytes_out, bytes);
        }
        (_, Place::Payload | Place::Pinned { .. } | Place::Staged { .. }) => {
            add(&stats.copy_bytes_to_device, bytes);
            if copy.from != Place::Payload {
                add(&stats.shared_bytes_in, bytes);
            }
        }
        _ => {}
    }
    if copy.from == Place::Payload {
        refuse_capture(call, stream)?;
    }
    let to = end(call, &copy, copy.to, std::ptr::null_mut())?;
    let from = end(call, &copy, copy.from, data.as_ptr().cast_mut().cast())?;
    let parameters = parameters(&copy, &to, &from)?;
    let (session, place) = (call.session, call.place(stream));
    // SAFETY: the frame's bytes are as many as the copy has, and pageable memory, which the driver has read when it returns
    // (CUDA driver API, "API synchronization behavior"); pinned ranges were checked.
    let run = || unsafe { start(&session.driver, &parameters, contexts, stream) };
    match (copy.to, copy.from) {
        (Place::Pinned { .. } | Place::Staged { .. }, _) => {
            session.gate.copy(session, place, Direction::ToHost, bytes, run)?;
        }
        (_, Place::Payload | Place::Pinned { .. } | Place::Staged { .. }) => {
            session.gate.copy(session, place, Direction::ToDevice, bytes, run)?;
        }
        _ => session.gate.command(session, place, || Key::memory(bytes), run)?,
    }
    for place in [copy.to, copy.from] {
        if let (Place::Staged { slot }, Some(areas)) = (place, call.state.areas.as_mut()) {
            areas.mark(&call.session.driver, slot, stream)?;
        }
    }
    if call.header.wants_reply() {
        // Bytes for page-locked memory of the guest's, which waits for them.
        // SAFETY: a stream of the session's.
        return Ok(Outcome::Later(Box::new(move |session, _| unsafe {
            session.driver.cuStreamSynchronize(stream)
        })));
    }
    done()
}

/// Parameters on their way to the lane that runs them.
struct Sendable(CUDA_MEMCPY3D);

// SAFETY: the pointers in it are null; what it names otherwise are numbers.
unsafe impl Send for Sendable {}
