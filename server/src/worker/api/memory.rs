//! Memory: allocation within the quota (design D11), copies, memset.

use super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::estimate::Key;
use super::super::flight::Place;
use super::super::session::Session;
use super::copy2d::refuse_capture;
use crate::driver::Result;
use crate::quota::Kind;
use crate::scheduler::page::Direction;
use crate::stats::add;
use pxos_protocol::codec::Writer;
use pxos_protocol::frame::{BULK_CHUNK, Header, control};
use pxos_protocol::types::CUresult;

/// Free and total bytes of the current device, within the session's quota.
pub(super) fn figures(call: &mut Call<'_>) -> Result<(u64, u64)> {
    call.state.pools.recount(call.session);
    let (mut free, mut total) = (0, 0);
    // SAFETY: pointers to locals.
    unsafe { call.driver().cuMemGetInfo_v2(&raw mut free, &raw mut total)? };
    let (mut free, mut total) = (free as u64, total as u64);
    let (limit, left) = call.session.ledger.limits();
    total = total.min(limit.unwrap_or(u64::MAX));
    free = free.min(left.unwrap_or(u64::MAX));
    Ok((free, total))
}

/// `cuMemGetInfo`: free and total.
pub(in super::super) fn info(call: &mut Call<'_>) -> Answer {
    let (free, total) = figures(call)?;
    let mut reply = call.reply();
    reply.put(free);
    reply.put(total);
    done()
}

/// `cuDeviceTotalMem`: device. What [`info`] answers as the total, so that the two agree after a limit was changed.
pub(in super::super) fn total(call: &mut Call<'_>) -> Answer {
    let device: i32 = call.get()?;
    let device = usize::try_from(device).ok().and_then(|device| call.session.snapshot.devices.get(device));
    let total = device.ok_or(CUresult::ERROR_INVALID_DEVICE)?.total_memory;
    let (limit, _) = call.session.ledger.limits();
    call.reply().put(total.min(limit.unwrap_or(u64::MAX)));
    done()
}

/// Files an allocation, or gives the reservation back.
fn account(call: &mut Call<'_>, address: Result<u64>, bytes: u64) -> Result<u64> {
    match address {
        Ok(address) => {
            call.state.allocations.insert(address, (bytes, call.header.context));
            Ok(address)
        }
        Err(error) => {
            call.session.ledger.release(Kind::Linear, bytes);
            Err(error)
        }
    }
}

/// `cuMemAlloc`: bytes.
pub(in super::super) fn allocate(call: &mut Call<'_>) -> Answer {
    let bytes = call.get_usize()?;
    let taken = call.session.ledger.charge(bytes as u64)?;
    call.state.reserve(call.session, Kind::Linear, taken)?;
    let mut address = 0;
    // SAFETY: a pointer to a local.
    let made = unsafe { call.driver().cuMemAlloc_v2(&raw mut address, bytes) }.map(|()| address);
    let address = account(call, made, taken)?;
    call.reply().put(address);
    done()
}

/// `cuMemAllocPitch`: width, height, element.
pub(in super::super) fn allocate_pitch(call: &mut Call<'_>) -> Answer {
    let (width, height) = (call.get_usize()?, call.get_usize()?);
    let element = call.get()?;
    // The pitch is the driver's choice; rows are padded to 512 bytes on every device so far (measured).
    let bytes = (width as u64).checked_next_multiple_of(512).and_then(|row| row.checked_mul(height as u64));
    let ledger = &call.session.ledger;
    let expected = ledger.charge(bytes.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?)?;
    call.state.reserve(call.session, Kind::Linear, expected)?;
    let (mut address, mut pitch) = (0, 0);
    // SAFETY: pointers to locals.
    let made =
        unsafe { call.driver().cuMemAllocPitch_v2(&raw mut address, &raw mut pitch, width, height, element) };
    let address = account(call, made.map(|()| address), expected)?;
    let taken = ledger.charge((pitch as u64).saturating_mul(height as u64))?;
    ledger.release(Kind::Linear, expected.saturating_sub(taken));
    if taken > expected && ledger.reserve(Kind::Linear, taken - expected).is_err() {
        call.state.allocations.remove(&address);
        // SAFETY: just allocated, known to nobody.
        let _ = unsafe { call.driver().cuMemFree_v2(address) };
        ledger.release(Kind::Linear, expected);
        return Err(CUresult::ERROR_OUT_OF_MEMORY.into());
    }
    call.state.allocations.insert(address, (taken, call.header.context));
    let mut reply = call.reply();
    reply.put(address);
    reply.put(pitch as u64);
    done()
}

/// `cuMemFree`: address.
pub(in super::super) fn free(call: &mut Call<'_>) -> Answer {
    let address = call.get()?;
    let bytes = match call.state.allocations.remove(&address) {
        Some((bytes, _)) => bytes,
        None => call
            .state
            .pools
            .forget(call.session, address, None)
            .map(|()| 0)
            .ok_or(CUresult::ERROR_INVALID_VALUE)?,
    };
    // Freeing waits for work that may use the memory (CUDA driver API, "Implicit synchronization").
    // SAFETY: an allocation of this session's, taken out of the table.
    unsafe { call.driver().cuMemFree_v2(address)? };
    call.session.ledger.release(Kind::Linear, bytes);
    done()
}

/// Copies to the device: address, stream, bytes. A chunk whose answer is awaited goes through page-locked memory; a small
/// copy straight to the driver, which takes up to 64 KiB at once.
pub(in super::super) fn to_device(call: &mut Call<'_>) -> Answer {
    let to = call.get()?;
    let stream = call.get_stream()?;
    let bytes = call.fields.get_bytes()?;
    refuse_capture(call, stream)?;
    add(&call.session.stats.copy_bytes_to_device, bytes.len() as u64);
    let (session, place, waits) = (call.session, call.place(stream), call.header.wants_reply());
    let upload = &mut call.state.upload;
    session.gate.copy(session, place, Direction::ToDevice, bytes.len() as u64, || {
        if waits {
            return upload.copy(session, to, bytes, stream);
        }
        // SAFETY: pageable memory of the length given, which the driver has read when it returns (CUDA driver API, "API
        // synchronization behavior"); it checks the range at `to` itself.
        unsafe { session.driver.cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), stream) }
    })?;
    done()
}

/// Copies to the host: address, stream, length. The bytes travel in DATA frames before the answer.
pub(in super::super) fn to_host(call: &mut Call<'_>) -> Answer {
    let from: u64 = call.get()?;
    let stream = call.get_stream()?;
    let length = call.get_usize()?;
    let request = call.header.request;
    refuse_capture(call, stream)?;
    add(&call.session.stats.copy_bytes_to_host, length as u64);
    let place = call.place(stream);
    Ok(Outcome::Later(Box::new(move |session, _| {
        if length <= SMALL {
            return session.gate.copy(session, place, Direction::ToHost, length as u64, || {
                small_to_host(session, request, from, stream, length)
            });
        }
        chunks_to_host(session, request, from, place, length)
    })))
}

/// Up to here the driver's own staging is as good as ours.
const SMALL: usize = 64 << 10;

/// Whether an awaited copy may be the driver's own synchronous one: one call where a copy and a wait are two, which shows
/// beside the few microseconds that a small one takes (measured on an H200). Such calls exist for the legacy stream only.
pub(super) fn is_one_call(stream: u64, bytes: usize) -> bool {
    stream == 0 && bytes <= SMALL
}

fn small_to_host(session: &Session, request: u64, from: u64, stream: u64, length: usize) -> Result {
    let mut bytes = vec![0_u8; length];
    if is_one_call(stream, length) {
        // SAFETY: a buffer of the length given.
        unsafe { session.driver.cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), from, length)? };
    } else {
        // SAFETY: a buffer of the length given; a copy to pageable memory is complete when the stream is.
        let complete = unsafe {
            session.driver.cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, length, stream)?;
            session.driver.cuStreamSynchronize(stream)
        };
        if complete.is_err() {
            // A fault, or the guest has begun to capture the stream meanwhile: the device may still write there.
            bytes.leak();
            return complete;
        }
    }
    send_data(session, request, 0, &bytes);
    Ok(())
}

fn send_data(session: &Session, request: u64, offset: u64, bytes: &[u8]) {
    let mut header = Header::new(control::DATA);
    header.request = request;
    let mut prefix = Vec::with_capacity(16);
    let mut writer = Writer::new(&mut prefix);
    writer.put(offset);
    writer.put(bytes.len() as u64);
    session.send(header, &[&prefix, bytes]);
}

/// Two buffers: one is filled by the device while the other travels. Each chunk passes the gate.
fn chunks_to_host(session: &Session, request: u64, from: u64, place: Place, length: usize) -> Result {
    let buffers = [session.staging.take(session)?, session.staging.take(session)?];
    let mut events = [0; 2];
    let driver = &session.driver;
    let chunk = |index: usize| {
        let offset = index * BULK_CHUNK;
        (offset, BULK_CHUNK.min(length - offset))
    };
    let chunks = length.div_ceil(BULK_CHUNK);
    let start = |index: usize, events: &[u64; 2]| {
        let (offset, bytes) = chunk(index);
        let (from, stream) = (from + offset as u64, place.stream);
        // SAFETY: a buffer of that many bytes that is not in use; the driver checks the range at `from`.
        let copy =
            || unsafe { driver.cuMemcpyDtoHAsync_v2(buffers[index % 2].address(), from, bytes, stream) };
        session.gate.copy(session, place, Direction::ToHost, bytes as u64, copy)?;
        // SAFETY: an event of ours.
        unsafe { driver.cuEventRecord(events[index % 2], stream) }
    };
    let mut copy = || {
        for event in &mut events {
            // SAFETY: a pointer to a local.
            unsafe { driver.cuEventCreate(&raw mut *event, 2)? };
        }
        start(0, &events)?;
        for index in 0..chunks {
            if index + 1 < chunks {
                start(index + 1, &events)?;
            }
            // SAFETY: an event of ours.
            unsafe { driver.cuEventSynchronize(events[index % 2])? };
            let (offset, bytes) = chunk(index);
            // SAFETY: the copy into it is complete, the next into it not yet begun.
            send_data(session, request, offset as u64, unsafe { buffers[index % 2].bytes(bytes) });
        }
        Ok(())
    };
    let result = copy();
    for event in events.into_iter().filter(|event| *event != 0) {
        // SAFETY: an event of ours, used no more.
        let _ = unsafe { driver.cuEventDestroy_v2(event) };
    }
    if result.is_ok() {
        buffers.into_iter().for_each(|buffer| session.staging.give_back(session, buffer));
    }
    // After a fault the device may still own the buffers: they are left alone, and end with the worker.
    result
}

/// Copies on the device: to, from, length, stream.
pub(in super::super) fn device_to_device(call: &mut Call<'_>) -> Answer {
    let (to, from): (u64, u64) = (call.get()?, call.get()?);
    let length = call.get_usize()?;
    let stream = call.get_stream()?;
    let (session, place) = (call.session, call.place(stream));
    // SAFETY: device addresses, which the driver checks.
    let copy = || unsafe { session.driver.cuMemcpyDtoDAsync_v2(to, from, length, stream) };
    session.gate.command(session, place, || Key::memory(length as u64), copy)?;
    done()
}

/// Every memset: address, pitch, value, element size, width, height, stream.
pub(in super::super) fn fill(call: &mut Call<'_>) -> Answer {
    let to: u64 = call.get()?;
    let pitch = call.get_usize()?;
    let value: u32 = call.get()?;
    let element: u32 = call.get()?;
    let (width, height) = (call.get_usize()?, call.get_usize()?);
    let stream = call.get_stream()?;
    let (session, driver, place) = (call.session, call.driver(), call.place(stream));
    let [low, high, ..] = value.to_le_bytes();
    let half = u16::from_le_bytes([low, high]);
    // Every element is filled once; products that overflow are refused by the driver.
    let bytes = (width as u64).saturating_mul(height as u64).saturating_mul(element.into());
    session.gate.command(
        session,
        place,
        || Key::memory(bytes),
        || {
            // SAFETY: device addresses, which the driver checks.
            unsafe {
                match (element, height) {
                    (1, 1) => driver.cuMemsetD8Async(to, low, width, stream),
                    (2, 1) => driver.cuMemsetD16Async(to, half, width, stream),
                    (4, 1) => driver.cuMemsetD32Async(to, value, width, stream),
                    (1, _) => driver.cuMemsetD2D8Async(to, pitch, low, width, height, stream),
                    (2, _) => driver.cuMemsetD2D16Async(to, pitch, half, width, height, stream),
                    (4, _) => driver.cuMemsetD2D32Async(to, pitch, value, width, height, stream),
                    _ => Err(CUresult::ERROR_INVALID_VALUE),
                }
            }
        },
    )?;
    done()
}

/// `cuPointerSetAttribute`: value, attribute, address.
pub(in super::super) fn set_attribute(call: &mut Call<'_>) -> Answer {
    let value: u32 = call.get()?;
    let attribute = call.get()?;
    let address = call.get()?;
    // CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, the one that can be set, is an `unsigned int`.
    if attribute != 6 {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    // SAFETY: a pointer to a local of the attribute's type.
    unsafe { call.driver().cuPointerSetAttribute((&raw const value).cast(), attribute, address)? };
    done()
}
