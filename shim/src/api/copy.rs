//! Copies of linear memory.
//!
//! To the device: small ones travel inside the call and need no answer; large ones pass through the staging area
//! ([`super::staged`]), or over a socket in chunks, a window of which is under way at a time. To the host: the answer brings the
//! bytes. Page-locked memory that is shared with the worker is not copied at all.

use super::stream::Waited;
use super::{Result, enter, stream_argument};
use crate::allocations::{Allocation, Kind};
use crate::call::call;
use crate::session::Session;
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::frame::{BULK_CHUNK, FLAG_REPLY, control};
use pxos_protocol::types::{CUDA_MEMCPY3D, CUcontext, CUdeviceptr, CUresult, CUstream};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::Ordering;

/// Up to here a copy to the device is sent along and not awaited. Natively such a copy from pageable memory returns
/// before it has run, too (CUDA driver API, "API synchronization behavior": 64 KiB).
const INLINE: usize = 64 << 10;

/// Up to here bytes for the host come in the answer; above, the staging area saves two copies (measured).
const SMALL: usize = 8 << 10;

/// Chunks under way at a time: two fill the pipe, four ride out a hiccup.
const WINDOW: usize = 4;

/// `CU_MEMORYTYPE_HOST` and `CU_MEMORYTYPE_DEVICE`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// A copy into a stream that is being captured: its ends as memory type and address.
fn captured(from: (u32, u64), to: (u32, u64), bytes: usize, stream: u64) -> Result {
    let session = crate::session::session()?;
    let copy = CUDA_MEMCPY3D {
        src_memory_type: from.0,
        src_host: pointer(from.1).cast_const().cast(),
        src_device: from.1,
        dst_memory_type: to.0,
        dst_host: pointer(to.1).cast(),
        dst_device: to.1,
        width_in_bytes: bytes,
        height: 1,
        depth: 1,
        ..CUDA_MEMCPY3D::default()
    };
    super::graph::captured_copy(session, &copy, stream)
}

/// One end of a copy.
enum End {
    Device(u64),
    Host(*mut u8, Option<Kind>),
}

/// What `address` is, for a copy of `bytes` from or to it.
fn end(session: &Session, address: u64, bytes: usize) -> Result<End> {
    match session.allocations.find(address) {
        Some(range) if range.bytes_from(address) < bytes as u64 && !range.is_host() => {
            Err(CUresult::ERROR_INVALID_VALUE)
        }
        Some(range) if range.is_host() => Ok(End::Host(pointer(address), Some(range.kind))),
        Some(_) => Ok(End::Device(address)),
        // Unified addressing: what is no device memory is the host's (CUDA driver API, cuMemcpy).
        None => Ok(End::Host(pointer(address), None)),
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits"))
}

/// Where the device's end of a copy lies.
enum DeviceEnd {
    /// In the device's own memory.
    Device(u64),
    /// In managed or page-locked memory, which has a device address, too: the copy is one by addresses.
    Host,
}

/// The device's end of a copy of `bytes`.
fn device_end(session: &Session, address: u64, bytes: usize) -> Result<DeviceEnd> {
    let fits = |range: &Allocation| range.bytes_from(address) >= bytes as u64;
    let range = session.allocations.find(address).filter(fits).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok(if range.is_host() { DeviceEnd::Host } else { DeviceEnd::Device(address) })
}

/// Copies to the device.
///
/// # Safety
/// `bytes` at `source` may be read.
unsafe fn to_device(
    session: &'static Session,
    destination: u64,
    source: *const u8,
    bytes: usize,
    stream: u64,
    waits: bool,
) -> Result {
    // SAFETY: by this function's contract.
    unsafe { send_to_device(session, destination, source, bytes, stream, waits)? };
    // The bytes are with the worker and in order with this stream; the next launch in a stream that does not wait for this one
    // must find them on the device, too. Page-locked memory was waited for.
    let is_seen_by_all = !thread::per_thread() && !session.has_free_streams.load(Ordering::Relaxed);
    if waits && !is_seen_by_all && session.shared_address(source.expose_provenance() as u64).is_none() {
        session.post(control::FENCE, |writer| writer.put(stream))?;
    }
    Ok(())
}

/// Sends what is copied to the device, and waits until the memory may be used anew.
///
/// # Safety
/// As for [`to_device`].
unsafe fn send_to_device(
    session: &'static Session,
    destination: u64,
    source: *const u8,
    bytes: usize,
    stream: u64,
    waits: bool,
) -> Result {
    let address = source.expose_provenance() as u64;
    if let Some(shared) = session.shared_address(address) {
        return arena_copy(session, destination, shared, bytes, stream, waits);
    }
    if session.captures.is_capturing(stream) {
        return captured((HOST, address), (DEVICE, destination), bytes, stream);
    }
    if session.callbacks.are_pending() {
        // A host function before this copy may still write what the copy reads: its bytes are taken when it has run.
        call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
    }
    if bytes <= INLINE {
        // SAFETY: by this function's contract.
        let data = unsafe { std::slice::from_raw_parts(source, bytes) };
        return session.post(op::cuMemcpyHtoDAsync_v2, |writer| {
            writer.put(destination);
            writer.put(stream);
            writer.put_bytes(data);
        });
    }
    session.check()?;
    if let Some(staging) = &session.staging {
        // SAFETY: by this function's contract.
        return unsafe { super::staged::to_device(session, staging, destination, source, bytes, stream) };
    }
    let mut under_way = VecDeque::with_capacity(WINDOW);
    let mut result = Ok(());
    for offset in (0..bytes).step_by(BULK_CHUNK) {
        let length = BULK_CHUNK.min(bytes - offset);
        // SAFETY: within the range of this function's contract.
        let data = unsafe { std::slice::from_raw_parts(source.add(offset), length) };
        let header = session.header(op::cuMemcpyHtoDAsync_v2, FLAG_REPLY);
        session.link.expect(header.request);
        let mut fields = Vec::with_capacity(24);
        let mut writer = Writer::new(&mut fields);
        writer.put(destination + offset as u64);
        writer.put(stream);
        writer.put(length as u64);
        session.link.send_bulk(header, &fields, data)?;
        under_way.push_back(header.request);
        if under_way.len() == WINDOW {
            let oldest = under_way.pop_front().expect("the window is not empty");
            let answered = session.answer(oldest).map(|_| ());
            result = result.and(answered);
            if result.is_err() {
                break;
            }
        }
    }
    for request in under_way {
        let answered = session.answer(request).map(|_| ());
        result = result.and(answered);
    }
    result
}

/// Copies to the host, and waits for it unless the memory is shared with the worker.
///
/// # Safety
/// `bytes` at `destination` may be written.
unsafe fn to_host(
    session: &'static Session,
    destination: *mut u8,
    source: u64,
    bytes: usize,
    stream: u64,
    waits: bool,
) -> Result {
    session.check()?;
    let address = destination.expose_provenance() as u64;
    if let Some(shared) = session.shared_address(address) {
        return arena_copy(session, shared, source, bytes, stream, waits);
    }
    if session.captures.is_capturing(stream) {
        return captured((DEVICE, source), (HOST, address), bytes, stream);
    }
    if let Some(staging) = session.staging.as_ref().filter(|_| bytes > SMALL) {
        // SAFETY: by this function's contract.
        return unsafe { super::staged::to_host(session, staging, destination, source, bytes, stream) };
    }
    // The application often synchronises behind it: the answer of this copy is the answer to that, too.
    let waited = Waited::for_all_in(session, super::current(session)?, stream);
    let header = session.header(op::cuMemcpyDtoHAsync_v2, FLAG_REPLY);
    // SAFETY: by this function's contract, and the call below returns only when it is answered or the link is dead.
    unsafe { session.link.land(header.request, destination, bytes) };
    let answer = session.call_in(header, |writer| {
        writer.put(source);
        writer.put(stream);
        writer.put(bytes as u64);
    });
    answer.map(|_| waited.answered())
}

/// Copies bytes to the device in the order of the default stream, for what is kept equal on both sides.
///
/// # Safety
/// `bytes` at `source` may be read.
pub(crate) unsafe fn send_bytes(
    session: &'static Session,
    destination: u64,
    source: *const u8,
    bytes: usize,
) -> Result {
    // SAFETY: by this function's contract.
    unsafe { to_device(session, destination, source, bytes, 0, true) }
}

/// Copies bytes to the host in a stream, and waits for them.
///
/// # Safety
/// `bytes` at `destination` may be written.
pub(crate) unsafe fn receive_bytes(
    session: &'static Session,
    destination: *mut u8,
    source: u64,
    bytes: usize,
    stream: u64,
) -> Result {
    // SAFETY: by this function's contract.
    unsafe { to_host(session, destination, source, bytes, stream, true) }
}

/// A copy of which at least one end is page-locked memory that the worker maps, too: one message, no bytes.
fn arena_copy(
    session: &'static Session,
    to: u64,
    from: u64,
    bytes: usize,
    stream: u64,
    waits: bool,
) -> Result {
    let fields = |writer: &mut Writer<'_>| {
        writer.put(to);
        writer.put(from);
        writer.put(bytes as u64);
        writer.put(stream);
    };
    if waits { session.call(control::COPY, fields).map(|_| ()) } else { session.post(control::COPY, fields) }
}

fn device_to_device(
    session: &'static Session,
    destination: u64,
    source: u64,
    bytes: usize,
    stream: u64,
) -> Result {
    session.post(op::cuMemcpyDtoDAsync_v2, |writer| {
        writer.put(destination);
        writer.put(source);
        writer.put(bytes as u64);
        writer.put(stream);
    })
}

/// Copies in whichever direction the two addresses say.
///
/// # Safety
/// A host address is valid for the whole copy.
unsafe fn unified(destination: u64, source: u64, bytes: usize, stream: CUstream, waits: bool) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, stream.0)?;
    if bytes == 0 {
        return Ok(());
    }
    if destination == 0 || source == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    match (end(session, destination, bytes)?, end(session, source, bytes)?) {
        (End::Device(to), End::Device(from)) => device_to_device(session, to, from, bytes, stream),
        // SAFETY: by this function's contract.
        (End::Device(to), End::Host(from, _)) => unsafe {
            to_device(session, to, from, bytes, stream, waits)
        },
        // SAFETY: by this function's contract.
        (End::Host(to, _), End::Device(from)) => unsafe { to_host(session, to, from, bytes, stream, waits) },
        (End::Host(to, to_kind), End::Host(from, from_kind)) => {
            if let (Some(to), Some(from)) =
                (session.shared_address(destination), session.shared_address(source))
            {
                return arena_copy(session, to, from, bytes, stream, waits);
            }
            if session.captures.is_capturing(stream) {
                return captured((HOST, source), (HOST, destination), bytes, stream);
            }
            if waits || to_kind.is_some() || from_kind.is_some() {
                call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
            }
            // SAFETY: by this function's contract; the ranges may overlap.
            unsafe { std::ptr::copy(from, to, bytes) };
            Ok(())
        }
    }
}

pub(crate) unsafe fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { unified(dst, src, ByteCount, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyAsync(
    dst: CUdeviceptr,
    src: CUdeviceptr,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { unified(dst, src, ByteCount, hStream, false) }
}

pub(crate) unsafe fn cuMemcpyHtoD_v2(
    dstDevice: CUdeviceptr,
    srcHost: *const c_void,
    ByteCount: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { host_to_device(dstDevice, srcHost, ByteCount, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyHtoDAsync_v2(
    dstDevice: CUdeviceptr,
    srcHost: *const c_void,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { host_to_device(dstDevice, srcHost, ByteCount, hStream, false) }
}

unsafe fn host_to_device(
    dstDevice: CUdeviceptr,
    srcHost: *const c_void,
    ByteCount: usize,
    hStream: CUstream,
    waits: bool,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    if ByteCount == 0 {
        return Ok(());
    }
    let source = srcHost.expose_provenance() as u64;
    if srcHost.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let DeviceEnd::Device(destination) = device_end(session, dstDevice, ByteCount)? else {
        // SAFETY: the entry point's contract.
        return unsafe { unified(dstDevice, source, ByteCount, hStream, waits) };
    };
    match session.allocations.find(source).filter(|range| !range.is_host()) {
        // Unified addressing lets a device pointer stand for a host one.
        Some(_) => device_to_device(session, destination, source, ByteCount, stream),
        // SAFETY: the entry point's contract.
        None => unsafe { to_device(session, destination, srcHost.cast(), ByteCount, stream, waits) },
    }
}

pub(crate) unsafe fn cuMemcpyDtoH_v2(
    dstHost: *mut c_void,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { device_to_host(dstHost, srcDevice, ByteCount, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyDtoHAsync_v2(
    dstHost: *mut c_void,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { device_to_host(dstHost, srcDevice, ByteCount, hStream, false) }
}

unsafe fn device_to_host(
    dstHost: *mut c_void,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
    hStream: CUstream,
    waits: bool,
) -> Result {
    let (session, _) = enter()?;
    let stream = stream_argument(session, hStream.0)?;
    if ByteCount == 0 {
        return Ok(());
    }
    if dstHost.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let destination = dstHost.expose_provenance() as u64;
    let DeviceEnd::Device(source) = device_end(session, srcDevice, ByteCount)? else {
        // SAFETY: the entry point's contract.
        return unsafe { unified(destination, srcDevice, ByteCount, hStream, waits) };
    };
    match session.allocations.find(destination).filter(|range| !range.is_host()) {
        Some(_) => device_to_device(session, destination, source, ByteCount, stream),
        // SAFETY: the entry point's contract.
        None => unsafe { to_host(session, dstHost.cast(), source, ByteCount, stream, waits) },
    }
}

pub(crate) unsafe fn cuMemcpyDtoD_v2(
    dstDevice: CUdeviceptr,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuMemcpyDtoDAsync_v2(dstDevice, srcDevice, ByteCount, CUstream::NULL) }
}

pub(crate) unsafe fn cuMemcpyDtoDAsync_v2(
    dstDevice: CUdeviceptr,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    let (session, _) = enter()?;
    stream_argument(session, hStream.0)?;
    // Page-locked memory will do, pageable memory will not (measured).
    let is_known = |address: CUdeviceptr| session.allocations.find(address).is_some();
    if ByteCount > 0 && !(is_known(dstDevice) && is_known(srcDevice)) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: the contract is the same.
    unsafe { unified(dstDevice, srcDevice, ByteCount, hStream, false) }
}

pub(crate) unsafe fn cuMemcpyPeer(
    dstDevice: CUdeviceptr,
    dstContext: CUcontext,
    srcDevice: CUdeviceptr,
    srcContext: CUcontext,
    ByteCount: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuMemcpyPeerAsync(dstDevice, dstContext, srcDevice, srcContext, ByteCount, CUstream::NULL) }
}

pub(crate) unsafe fn cuMemcpyPeerAsync(
    dstDevice: CUdeviceptr,
    dstContext: CUcontext,
    srcDevice: CUdeviceptr,
    srcContext: CUcontext,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    let (session, _) = enter()?;
    for context in [dstContext, srcContext] {
        session.contexts.get(context.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    }
    let stream = stream_argument(session, hStream.0)?;
    if ByteCount == 0 {
        return Ok(());
    }
    match (device_end(session, dstDevice, ByteCount)?, device_end(session, srcDevice, ByteCount)?) {
        (DeviceEnd::Device(to), DeviceEnd::Device(from)) => {
            device_to_device(session, to, from, ByteCount, stream)
        }
        // SAFETY: both ends are live memory of the session's, the size included.
        _ => unsafe { unified(dstDevice, srcDevice, ByteCount, hStream, false) },
    }
}
