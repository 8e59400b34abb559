//! Copies through shared memory: the staging area, and the arena of page-locked memory.

use super::super::dispatch::{Answer, Call, Failed, Outcome, done};
use super::super::flight::Place;
use super::super::gate::is_capturing;
use super::super::session::Session;
use super::super::shared::Areas;
use super::memory::is_one_call;
use crate::scheduler::page::Direction;
use crate::stats::add;
use pxos_protocol::frame::control;
use pxos_protocol::types::CUresult;

/// A copy engine takes turns between copies, not within one: a longer copy goes to it in pieces of this many bytes, so that no
/// other VM's copy waits for the whole. A piece takes 300 us of an H200's engine, on which 16 MiB are as fast as a gigabyte.
const PIECE: usize = 16 << 20;

/// A piece while no other VM wants the device: whoever comes waits 5 ms at most, and a copy of this length goes to the driver as
/// it does natively. Sixteen pieces in its place cost 2 % (measured on an H200).
const PIECE_ALONE: usize = 256 << 20;

/// The areas of a session that has them; a guest without shared memory does not send these ops.
fn areas<'a>(call: &'a mut Call<'_>) -> Result<&'a mut Areas, Failed> {
    call.state.areas.as_mut().ok_or(Failed::Call(CUresult::ERROR_NOT_SUPPORTED))
}

/// A slot to the device or from it: address, stream, slot, length.
pub(in super::super) fn stage(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let stream = call.get_stream()?;
    let (slot, length): (u64, u64) = (call.get()?, call.get()?);
    let to_device = call.header.op == control::STAGE_WRITE;
    let session = call.session;
    let memory = areas(call)?.slot(slot, length)?;
    let bytes = usize::try_from(length).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let stats = session.stats;
    let (direction, counters) = match to_device {
        true => (Direction::ToDevice, [&stats.copy_bytes_to_device, &stats.shared_bytes_in]),
        false => (Direction::ToHost, [&stats.copy_bytes_to_host, &stats.shared_bytes_out]),
    };
    counters.into_iter().for_each(|counter| add(counter, length));
    session.gate.copy(session, call.place(stream), direction, length, || {
        // SAFETY: a slot of at least `bytes` bytes, registered with the driver; it checks the device's address itself.
        unsafe {
            match to_device {
                true => session.driver.cuMemcpyHtoDAsync_v2(address, memory, bytes, stream),
                false => session.driver.cuMemcpyDtoHAsync_v2(memory, address, bytes, stream),
            }
        }
    })?;
    areas(call)?.mark(&session.driver, slot, stream)?;
    done()
}

/// Waits until the device is done with a slot: slot.
pub(in super::super) fn wait(call: &mut Call<'_>) -> Answer {
    let slot = call.get()?;
    let event = areas(call)?.event(slot)?;
    if event == 0 {
        return done();
    }
    // SAFETY: an event of the session's. A guest that reuses the slot meanwhile hurts its own worker only.
    Ok(Outcome::Later(Box::new(move |session, _| unsafe { session.driver.cuEventSynchronize(event) })))
}

/// A copy with an end in the arena: to, from, length, stream.
pub(in super::super) fn copy(call: &mut Call<'_>) -> Answer {
    let (to, from, length): (u64, u64, u64) = (call.get()?, call.get()?, call.get()?);
    let stream = call.get_stream()?;
    let (session, place) = (call.session, call.place(stream));
    let areas = areas(call)?;
    // An end in the arena must be registered; any other end must be the device's, which the driver checks: it is asked for a
    // copy of that direction, so that a guest cannot name memory of the worker's own.
    for end in [to, from] {
        if areas.is_arena(end) && !areas.is_pinned(end, length) {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
    }
    let bytes = usize::try_from(length).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let (to_arena, from_arena) = (areas.is_arena(to), areas.is_arena(from));
    // Ends in the arena are registered ranges of at least `bytes` bytes; device ends are checked by the driver.
    let waits = call.header.wants_reply();
    let (direction, counters) = match (to_arena, from_arena) {
        (false, true) => {
            (Direction::ToDevice, [&session.stats.copy_bytes_to_device, &session.stats.shared_bytes_in])
        }
        (true, false) => {
            (Direction::ToHost, [&session.stats.copy_bytes_to_host, &session.stats.shared_bytes_out])
        }
        (true, true) => {
            // The device's engine copies it as it does everything else.
            in_pieces(session, place, Direction::ToHost, bytes, |offset, bytes| {
                let (to, from) = (to + offset as u64, from + offset as u64);
                // SAFETY: both are registered ranges, see above; a piece of the whole.
                unsafe { session.driver.cuMemcpyAsync(to, from, bytes, stream) }
            })?;
            return Ok(if waits { synchronise(stream) } else { Outcome::Done(Ok(())) });
        }
        (false, false) => return Err(CUresult::ERROR_INVALID_VALUE.into()),
    };
    counters.into_iter().for_each(|counter| add(counter, length));
    if waits && is_one_call(stream, bytes) {
        return Ok(Outcome::Later(Box::new(move |session, _| {
            session.gate.copy(session, place, direction, length, || {
                // SAFETY: as above; the guest cannot unpin what it has not seen copied without hurting its own worker only.
                unsafe {
                    match direction {
                        Direction::ToDevice => session.driver.cuMemcpyHtoD_v2(to, pointer(from)?, bytes),
                        Direction::ToHost => session.driver.cuMemcpyDtoH_v2(pointer(to)?, from, bytes),
                    }
                }
            })
        })));
    }
    in_pieces(session, place, direction, bytes, |offset, bytes| {
        let (to, from) = (to + offset as u64, from + offset as u64);
        // SAFETY: as above; a piece of the whole.
        unsafe {
            match direction {
                Direction::ToDevice => session.driver.cuMemcpyHtoDAsync_v2(to, pointer(from)?, bytes, stream),
                Direction::ToHost => session.driver.cuMemcpyDtoHAsync_v2(pointer(to)?, from, bytes, stream),
            }
        }
    })?;
    if waits { Ok(synchronise(stream)) } else { done() }
}

/// The rest of a call that is answered when a stream of the session's is complete.
fn synchronise(stream: u64) -> Outcome {
    // SAFETY: a stream of the session's.
    Outcome::Later(Box::new(move |session, _| unsafe { session.driver.cuStreamSynchronize(stream) }))
}

/// A number that the guest sent, as an address.
fn pointer(address: u64) -> Result<*mut std::ffi::c_void, CUresult> {
    let address = usize::try_from(address).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    Ok(std::ptr::with_exposed_provenance_mut(address))
}

/// Runs a copy of page-locked memory in pieces, each of which passes the gate. A copy that is being captured is one node of
/// the graph, as the guest sees it.
fn in_pieces(
    session: &Session,
    place: Place,
    direction: Direction,
    bytes: usize,
    copy: impl Fn(usize, usize) -> Result<(), CUresult>,
) -> Result<(), CUresult> {
    let captured = bytes > PIECE && is_capturing(session, place.stream);
    let mut offset = 0;
    while offset < bytes {
        let piece = match () {
            () if captured => bytes,
            () if session.gate.is_wide_open(place.device) => PIECE_ALONE,
            () => PIECE,
        };
        let length = piece.min(bytes - offset);
        session.gate.copy(session, place, direction, length as u64, || copy(offset, length))?;
        offset += length;
    }
    Ok(())
}

/// `cuMemHostAlloc`: address, length, both in pages of the arena.
pub(in super::super) fn pin(call: &mut Call<'_>) -> Answer {
    let (address, length): (u64, u64) = (call.get()?, call.get()?);
    let session = call.session;
    areas(call)?.pin(&session.driver, address, length)?;
    done()
}

/// `cuMemFreeHost`: address. Natively, too, it waits for work that may use the memory.
pub(in super::super) fn unpin(call: &mut Call<'_>) -> Answer {
    let address = call.get()?;
    let memory = areas(call)?.unpin(address)?.expose_provenance();
    Ok(Outcome::Later(Box::new(move |session, _| {
        // SAFETY: the context is current on this thread; the range was registered and is taken out of the table.
        unsafe {
            let synchronised = session.driver.cuCtxSynchronize();
            session.driver.cuMemHostUnregister(std::ptr::with_exposed_provenance_mut(memory))?;
            synchronised
        }
    })))
}
