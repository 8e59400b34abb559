//! Functions of the device runtime: printf, assertions and the device heap.

#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses within a window are checked against its size; arguments of 32 bits come in words of 64"
)]

use super::LOCAL_WINDOW;
use super::aux::{Builtin, CallSite, Piece};
use super::children;
use super::fault::FaultKind;
use super::launch::Job;
use super::memory_ops::read_bytes;
use super::op::{Cx, Lanes, Mask};
use crate::printf;

/// Strings longer than this are taken to be no strings.
const MAX_TEXT: usize = 64 << 10;
/// Most bytes of arguments that `vprintf` takes.
const MAX_ARGUMENTS: usize = 4096;

/// Calls a function for each lane; false after a fault.
pub(super) fn call(job: &Job<'_>, cx: &mut Cx<'_>, site: &CallSite, builtin: Builtin, lanes: Mask) -> bool {
    for lane in Lanes(lanes) {
        let arg =
            |cx: &Cx<'_>, index: usize| site.args.get(index).map_or(0, |piece| read_piece(cx, lane, *piece));
        let result = match builtin {
            Builtin::Vprintf => match vprintf(job, cx, lane, arg(cx, 0), arg(cx, 1)) {
                Some(count) => count,
                None => return false,
            },
            Builtin::Malloc => job.host.malloc(arg(cx, 0)),
            Builtin::Free => {
                let address = arg(cx, 0);
                if address != 0 {
                    job.host.free(address);
                }
                0
            }
            Builtin::SetConditional => {
                let (handle, value) = (arg(cx, 0), arg(cx, 1) as u32);
                if !job.host.set_conditional(handle, value) {
                    let text = format!("cudaGraphSetConditional: {handle:#x} is no live handle");
                    cx.fail(FaultKind::IllegalAddress, lane, text);
                    return false;
                }
                0
            }
            Builtin::Device(function) => match children::call(job, cx, site, function, lane) {
                Some(result) => result,
                None => return false,
            },
            Builtin::AssertFail => {
                let text = assertion(cx, lane, [arg(cx, 0), arg(cx, 1), arg(cx, 3)], arg(cx, 2), cx.block);
                cx.fail(FaultKind::Assert, lane, text);
                return false;
            }
        };
        if let Some(place) = site.returns.first() {
            write_piece(cx, lane, *place, result);
        }
    }
    true
}

/// An argument of up to eight bytes out of the caller's frame.
pub(super) fn read_piece(cx: &Cx<'_>, lane: usize, piece: Piece) -> u64 {
    let mut bytes = [0u8; 8];
    let count = piece.bytes.min(8) as usize;
    let from = cx.local.wrapping_add(lane * cx.local_stride + (cx.local_base + piece.offset) as usize);
    // SAFETY: the piece lies in the running function's frame, which the lane's local memory holds.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count) };
    u64::from_le_bytes(bytes)
}

fn write_piece(cx: &Cx<'_>, lane: usize, piece: Piece, value: u64) {
    let count = piece.bytes.min(8) as usize;
    let to = cx.local.wrapping_add(lane * cx.local_stride + (cx.local_base + piece.offset) as usize);
    // SAFETY: as in `read_piece`.
    unsafe { std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), to, count) };
}

/// A zero-terminated string of device memory.
fn string(cx: &mut Cx<'_>, lane: usize, address: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut byte = [0u8];
    while text.len() < MAX_TEXT {
        read_bytes(cx, lane, address.wrapping_add(text.len() as u64), &mut byte).ok()?;
        if byte[0] == 0 {
            break;
        }
        text.push(byte[0]);
    }
    Some(text)
}

/// Formats and prints; the number of arguments' bytes read is not known to the device either, so the result is
/// what CUDA documents: the number of arguments parsed, here of conversions in the format.
fn vprintf(job: &Job<'_>, cx: &mut Cx<'_>, lane: usize, format: u64, arguments: u64) -> Option<u64> {
    let Some(format_text) = string(cx, lane, format) else {
        cx.fail(FaultKind::IllegalAddress, lane, format!("printf: format at {format:#x} is not accessible"));
        return None;
    };
    let room = match arguments {
        0 => 0,
        at if (LOCAL_WINDOW..LOCAL_WINDOW + super::WINDOW_BYTES).contains(&at) => {
            cx.local_stride.saturating_sub((at - LOCAL_WINDOW) as usize)
        }
        _ => MAX_ARGUMENTS,
    };
    let mut bytes = Vec::new();
    let mut byte = [0u8];
    while bytes.len() < room.min(MAX_ARGUMENTS) {
        if read_bytes(cx, lane, arguments.wrapping_add(bytes.len() as u64), &mut byte).is_err() {
            break;
        }
        bytes.push(byte[0]);
    }
    let text = printf::format(&format_text, &bytes, &mut |address| string(cx, lane, address));
    job.host.print(&text);
    let conversions = format_text.iter().filter(|byte| **byte == b'%').count();
    let escaped = format_text.windows(2).filter(|pair| pair == b"%%").count();
    Some((conversions - 2 * escaped.min(conversions / 2)) as u64)
}

/// The text that CUDA prints for a failed assertion.
fn assertion(cx: &mut Cx<'_>, lane: usize, texts: [u64; 3], line: u64, block: [u32; 3]) -> String {
    let mut read = |address| {
        let bytes = string(cx, lane, address).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let [message, file, function] = texts.map(&mut read);
    let thread = cx.job.thread(cx.warp, u32::try_from(lane).unwrap_or(0));
    let [bx, by, bz] = block;
    let [tx, ty, tz] = thread;
    let line = line & 0xffff_ffff;
    format!(
        "{file}:{line}: {function}: block: [{bx},{by},{bz}], thread: [{tx},{ty},{tz}] Assertion `{message}` failed."
    )
}
