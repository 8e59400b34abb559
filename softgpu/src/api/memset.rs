//! Fills (CUDA driver API, section "Memory management": `cuMemset…`).

use super::{Answer, DefaultStream, driver_fns};
use crate::device::operation::{Fill, Operation};
use crate::device::{allocation, context};
use pxos_protocol::types::{CUdeviceptr, CUresult, CUstream};
use std::ffi::c_uint;

driver_fns! {
    /// Fills bytes.
    ready fn cuMemsetD8_v2 / cuMemsetD8_v2_ptds(to: CUdeviceptr, value: u8, count: usize) |default| {
        line(to, &[value], count, CUstream::NULL, default, true)
    }

    /// Fills 16-bit words.
    ready fn cuMemsetD16_v2 / cuMemsetD16_v2_ptds(to: CUdeviceptr, value: u16, count: usize) |default| {
        line(to, &value.to_ne_bytes(), count, CUstream::NULL, default, true)
    }

    /// Fills 32-bit words.
    ready fn cuMemsetD32_v2 / cuMemsetD32_v2_ptds(to: CUdeviceptr, value: c_uint, count: usize) |default| {
        line(to, &value.to_ne_bytes(), count, CUstream::NULL, default, true)
    }

    /// Fills rows of bytes.
    ready fn cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds(to: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize) |default| {
        rows(to, pitch, &[value], (width, height), CUstream::NULL, default, true)
    }

    /// Fills rows of 16-bit words.
    ready fn cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds(to: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize) |default| {
        rows(to, pitch, &value.to_ne_bytes(), (width, height), CUstream::NULL, default, true)
    }

    /// Fills rows of 32-bit words.
    ready fn cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds(to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize) |default| {
        rows(to, pitch, &value.to_ne_bytes(), (width, height), CUstream::NULL, default, true)
    }

    /// Fills bytes, in a stream.
    ready fn cuMemsetD8Async / cuMemsetD8Async_ptsz(to: CUdeviceptr, value: u8, count: usize, stream: CUstream) |default| {
        line(to, &[value], count, stream, default, false)
    }

    /// Fills 16-bit words, in a stream.
    ready fn cuMemsetD16Async / cuMemsetD16Async_ptsz(to: CUdeviceptr, value: u16, count: usize, stream: CUstream) |default| {
        line(to, &value.to_ne_bytes(), count, stream, default, false)
    }

    /// Fills 32-bit words, in a stream.
    ready fn cuMemsetD32Async / cuMemsetD32Async_ptsz(to: CUdeviceptr, value: c_uint, count: usize, stream: CUstream) |default| {
        line(to, &value.to_ne_bytes(), count, stream, default, false)
    }

    /// Fills rows of bytes, in a stream.
    ready fn cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz(to: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize, stream: CUstream) |default| {
        rows(to, pitch, &[value], (width, height), stream, default, false)
    }

    /// Fills rows of 16-bit words, in a stream.
    ready fn cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz(to: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize, stream: CUstream) |default| {
        rows(to, pitch, &value.to_ne_bytes(), (width, height), stream, default, false)
    }

    /// Fills rows of 32-bit words, in a stream.
    ready fn cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz(to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize, stream: CUstream) |default| {
        rows(to, pitch, &value.to_ne_bytes(), (width, height), stream, default, false)
    }
}

fn line(
    to: u64,
    value: &[u8],
    count: usize,
    stream: CUstream,
    default: DefaultStream,
    blocking: bool,
) -> Answer {
    rows(to, 0, value, (count, 1), stream, default, blocking)
}

/// Fills `height` rows of `width` elements, `pitch` bytes apart.
fn rows(
    to: u64,
    pitch: usize,
    value: &[u8],
    (width, height): (usize, usize),
    stream: CUstream,
    default: DefaultStream,
    blocking: bool,
) -> Answer {
    let active = context::current()?;
    let stream = active.stream(stream, default)?;
    let row = width.checked_mul(value.len()).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if row == 0 || height == 0 {
        return Ok(());
    }
    let aligned = to.is_multiple_of(value.len() as u64) && pitch.is_multiple_of(value.len());
    if !aligned || height > 1 && pitch < row {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let extent = (height - 1).checked_mul(pitch).and_then(|above| above.checked_add(row));
    let held = allocation::check(to, extent.ok_or(CUresult::ERROR_INVALID_VALUE)? as u64)?;
    let fill = Fill {
        address: to,
        pitch: pitch as u64,
        value: value.to_vec(),
        width: width as u64,
        height: height as u64,
    };
    let operation = Operation::Fill(fill);
    if blocking && held.on_host() {
        active.perform(&stream, || operation.run(&active))??;
        active.flush();
        return active.fault.check();
    }
    active.enqueue(&stream, operation)
}
