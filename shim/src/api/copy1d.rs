//! Copies between one-dimensional arrays and linear memory: a box of one row ([`super::copy2d`]).

use super::Result;
use super::copy2d::{Given, run};
use pxos_protocol::types::{CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST, CUarray, CUdeviceptr, CUstream};
use std::ffi::c_void;

pub(crate) unsafe fn cuMemcpyDtoA_v2(
    dstArray: CUarray,
    dstOffset: usize,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
) -> Result {
    let (to, from) = (Given::line_of(dstArray, dstOffset), Given::line(CU_MEMORYTYPE_DEVICE, srcDevice));
    // SAFETY: the entry point's contract.
    unsafe { run(&to, &from, [ByteCount, 1, 1], CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyAtoD_v2(
    dstDevice: CUdeviceptr,
    srcArray: CUarray,
    srcOffset: usize,
    ByteCount: usize,
) -> Result {
    let (to, from) = (Given::line(CU_MEMORYTYPE_DEVICE, dstDevice), Given::line_of(srcArray, srcOffset));
    // SAFETY: the entry point's contract.
    unsafe { run(&to, &from, [ByteCount, 1, 1], CUstream::NULL, true) }
}

/// # Safety
/// `bytes` at `source` may be read.
unsafe fn host_to_array(
    array: CUarray,
    offset: usize,
    source: *const c_void,
    bytes: usize,
    stream: CUstream,
    waits: bool,
) -> Result {
    let from = Given::line(CU_MEMORYTYPE_HOST, source.expose_provenance() as u64);
    // SAFETY: by this function's contract.
    unsafe { run(&Given::line_of(array, offset), &from, [bytes, 1, 1], stream, waits) }
}

pub(crate) unsafe fn cuMemcpyHtoA_v2(
    dstArray: CUarray,
    dstOffset: usize,
    srcHost: *const c_void,
    ByteCount: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { host_to_array(dstArray, dstOffset, srcHost, ByteCount, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyHtoAAsync_v2(
    dstArray: CUarray,
    dstOffset: usize,
    srcHost: *const c_void,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { host_to_array(dstArray, dstOffset, srcHost, ByteCount, hStream, false) }
}

/// # Safety
/// `bytes` at `target` may be written.
unsafe fn array_to_host(
    target: *mut c_void,
    array: CUarray,
    offset: usize,
    bytes: usize,
    stream: CUstream,
    waits: bool,
) -> Result {
    let to = Given::line(CU_MEMORYTYPE_HOST, target.expose_provenance() as u64);
    // SAFETY: by this function's contract.
    unsafe { run(&to, &Given::line_of(array, offset), [bytes, 1, 1], stream, waits) }
}

pub(crate) unsafe fn cuMemcpyAtoH_v2(
    dstHost: *mut c_void,
    srcArray: CUarray,
    srcOffset: usize,
    ByteCount: usize,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { array_to_host(dstHost, srcArray, srcOffset, ByteCount, CUstream::NULL, true) }
}

pub(crate) unsafe fn cuMemcpyAtoHAsync_v2(
    dstHost: *mut c_void,
    srcArray: CUarray,
    srcOffset: usize,
    ByteCount: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { array_to_host(dstHost, srcArray, srcOffset, ByteCount, hStream, false) }
}

pub(crate) unsafe fn cuMemcpyAtoA_v2(
    dstArray: CUarray,
    dstOffset: usize,
    srcArray: CUarray,
    srcOffset: usize,
    ByteCount: usize,
) -> Result {
    let (to, from) = (Given::line_of(dstArray, dstOffset), Given::line_of(srcArray, srcOffset));
    // SAFETY: the entry point's contract.
    unsafe { run(&to, &from, [ByteCount, 1, 1], CUstream::NULL, true) }
}
