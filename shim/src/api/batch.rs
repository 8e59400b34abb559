//! Batches of copies. The copies of a batch have no order among themselves, so one after the other is right.

use super::array::array;
use super::copy2d::run_box;
use super::{Result, enter, stream_name};
use crate::session::Session;
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CU_STREAM_LEGACY, CUDA_MEMCPY3D_BATCH_OP, CUarray, CUdeviceptr, CUmemcpyAttributes, CUresult, CUstream,
    access_orders, src_access_order,
};

/// What `failIdx` says of an error that is not of one copy.
const NO_COPY: usize = usize::MAX;

/// An error, and which copy made it.
type Failure = (CUresult, usize);

fn whole(error: CUresult) -> Failure {
    (error, NO_COPY)
}

/// The session, for a stream that a batch may go to.
fn batch_session(stream: CUstream) -> Result<&'static Session> {
    let (session, _) = enter()?;
    // "Must not be legacy NULL stream."
    if stream == CU_STREAM_LEGACY || (stream.is_null() && !thread::per_thread()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    stream_name(session, stream.0)?;
    Ok(session)
}

/// # Safety
/// As `cuMemcpyBatchAsync` says of its pointers.
unsafe fn copies(
    (targets, sources, sizes, count): (*const CUdeviceptr, *const CUdeviceptr, *const usize, usize),
    (attributes, starts, number): (*const CUmemcpyAttributes, *const usize, usize),
    stream: CUstream,
) -> Result<(), Failure> {
    let session = batch_session(stream).map_err(whole)?;
    let any_null =
        targets.is_null() || sources.is_null() || sizes.is_null() || attributes.is_null() || starts.is_null();
    if any_null || count == 0 || number > count {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    // SAFETY: not null, and that many entries by this function's contract.
    let attributes = unsafe { std::slice::from_raw_parts(attributes, number) };
    // SAFETY: as above.
    let starts = unsafe { std::slice::from_raw_parts(starts, number) };
    let mut settle = false;
    for (index, order) in access_orders(attributes, starts, count).map_err(whole)?.into_iter().enumerate() {
        // SAFETY: `count` entries each, by this function's contract.
        let (target, source, size) =
            unsafe { (targets.add(index).read(), sources.add(index).read(), sizes.add(index).read()) };
        // SAFETY: by this function's contract.
        unsafe { super::cuMemcpyAsync(target, source, size, stream) }.map_err(|error| (error, index))?;
        // Other host memory has been read already.
        settle |= order == src_access_order::DURING_API_CALL && session.shared_address(source).is_some();
    }
    if settle {
        let stream = stream_name(session, stream.0).map_err(whole)?;
        session.call(op::cuStreamSynchronize, |writer| writer.put(stream)).map_err(whole)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemcpyBatchAsync(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    failIdx: *mut usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { copies((dsts, srcs, sizes, count), (attrs, attrsIdxs, numAttrs), hStream) };
    // SAFETY: null, or writable by the entry point's contract.
    unsafe { tell(done, failIdx) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemcpyBatchAsync_v2(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { copies((dsts, srcs, sizes, count), (attrs, attrsIdxs, numAttrs), hStream) };
    done.map_err(|(error, _)| error)
}

/// # Safety
/// The pointer is null or writable.
unsafe fn tell(done: Result<(), Failure>, index: *mut usize) -> Result {
    done.map_err(|(error, failed)| {
        if !index.is_null() {
            // SAFETY: not null, and writable by this function's contract.
            unsafe { index.write(failed) };
        }
        error
    })
}

/// Bytes of an array's element.
fn element(session: &Session, handle: CUarray) -> Result<usize> {
    let bytes = array(session, handle)?.descriptor.element_bytes();
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or(CUresult::ERROR_NOT_SUPPORTED)
}

/// # Safety
/// As `cuMemcpy3DBatchAsync` says of its pointers.
unsafe fn boxes(
    count: usize,
    copies: *const CUDA_MEMCPY3D_BATCH_OP,
    flags: u64,
    stream: CUstream,
) -> Result<(), Failure> {
    let session = batch_session(stream).map_err(whole)?;
    if count == 0 || copies.is_null() || flags != 0 {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    for index in 0..count {
        // SAFETY: `count` entries, by this function's contract.
        let given = unsafe { copies.add(index).read() };
        let copy = given.as_copy(|array| element(session, array)).map_err(|error| (error, index))?;
        let waits = given.src_access_order == src_access_order::DURING_API_CALL;
        // SAFETY: by this function's contract.
        unsafe { run_box(&raw const copy, stream, waits) }.map_err(|error| (error, index))?;
    }
    Ok(())
}

pub(crate) unsafe fn cuMemcpy3DBatchAsync(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    failIdx: *mut usize,
    flags: u64,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { boxes(numOps, opList, flags, hStream) };
    // SAFETY: null, or writable by the entry point's contract.
    unsafe { tell(done, failIdx) }
}

pub(crate) unsafe fn cuMemcpy3DBatchAsync_v2(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: u64,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { boxes(numOps, opList, flags, hStream) }.map_err(|(error, _)| error)
}
