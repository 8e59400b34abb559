//! Arrays as the executor's threads share them.
//!
//! Threads of a kernel may write where others read; that is the program's own race, and must not be one of this
//! process. So every element is accessed as an atomic, relaxed, which costs nothing over a plain access.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::arith::{float_to_half, half_to_float};
use crate::types::Element;

/// An array of a launch.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    element: Element,
    cells: Cells<'a>,
    /// Where the elements go in the end, when they had to be copied to be aligned.
    copied: Option<(&'a mut [u8], Vec<AtomicU64>)>,
    length: usize,
}

#[derive(Debug)]
enum Cells<'a> {
    Bytes(&'a [AtomicU8]),
    Halves(&'a [AtomicU16]),
    Words(&'a [AtomicU32]),
    Longs(&'a [AtomicU64]),
    /// In `copied`, one element a cell.
    Apart,
}

/// Views exclusively borrowed bytes as atomics, when they are aligned.
macro_rules! view {
    ($bytes:expr, $atomic:ty) => {{
        let bytes: &mut [u8] = $bytes;
        let pointer = bytes.as_mut_ptr();
        if pointer.align_offset(align_of::<$atomic>()) == 0 {
            // SAFETY: the bytes are borrowed exclusively for this lifetime and become reachable through this slice
            // alone; the pointer is aligned (tested above) and the length rounds down to whole elements; an atomic
            // has the size and the bit validity of its integer.
            Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<$atomic>().cast_const(), bytes.len() / size_of::<$atomic>()) })
        } else {
            Err(bytes)
        }
    }};
}

impl<'a> Memory<'a> {
    pub(super) fn new(element: Element, bytes: &'a mut [u8]) -> Self {
        let length = bytes.len() / element.bytes();
        let viewed = match element.bytes() {
            1 => view!(bytes, AtomicU8).map(Cells::Bytes),
            2 => view!(bytes, AtomicU16).map(Cells::Halves),
            4 => view!(bytes, AtomicU32).map(Cells::Words),
            _ => view!(bytes, AtomicU64).map(Cells::Longs),
        };
        match viewed {
            Ok(cells) => Self { element, cells, copied: None, length },
            Err(bytes) => {
                let copy = bytes
                    .chunks_exact(element.bytes())
                    .map(|chunk| {
                        let mut whole = [0; 8];
                        whole[..chunk.len()].copy_from_slice(chunk);
                        AtomicU64::new(u64::from_le_bytes(whole))
                    })
                    .collect();
                Self { element, cells: Cells::Apart, copied: Some((bytes, copy)), length }
            }
        }
    }

    /// Writes elements back that were copied.
    pub(super) fn finish(self) {
        if let Some((bytes, copy)) = self.copied {
            let size = self.element.bytes();
            for (chunk, cell) in bytes.chunks_exact_mut(size).zip(copy) {
                chunk.copy_from_slice(&cell.into_inner().to_le_bytes()[..size]);
            }
        }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The stored bits of an element within the array.
    #[inline]
    pub(super) fn get(&self, index: usize) -> u64 {
        match &self.cells {
            Cells::Words(cells) => u64::from(cells[index].load(Ordering::Relaxed)),
            Cells::Bytes(cells) => u64::from(cells[index].load(Ordering::Relaxed)),
            Cells::Halves(cells) => u64::from(cells[index].load(Ordering::Relaxed)),
            Cells::Longs(cells) => cells[index].load(Ordering::Relaxed),
            Cells::Apart => self.copied.as_ref().map_or(0, |(_, copy)| copy[index].load(Ordering::Relaxed)),
        }
    }

    /// Stores an element's bits.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the element's own bits are the low ones")]
    pub(super) fn set(&self, index: usize, bits: u64) {
        match &self.cells {
            Cells::Words(cells) => cells[index].store(bits as u32, Ordering::Relaxed),
            Cells::Bytes(cells) => cells[index].store(bits as u8, Ordering::Relaxed),
            Cells::Halves(cells) => cells[index].store(bits as u16, Ordering::Relaxed),
            Cells::Longs(cells) => cells[index].store(bits, Ordering::Relaxed),
            Cells::Apart => {
                if let Some((_, copy)) = &self.copied {
                    copy[index].store(bits, Ordering::Relaxed);
                }
            }
        }
    }

    /// Replaces an element by a function of it, in one step; the old bits. Atomics exist on 4 and 8 byte elements.
    #[expect(clippy::cast_possible_truncation, reason = "the element's own bits are the low ones")]
    pub(super) fn update(&self, index: usize, change: impl Fn(u64) -> u64) -> u64 {
        let order = Ordering::Relaxed;
        let wide = |cell: &AtomicU64| match cell.fetch_update(order, order, |old| Some(change(old))) {
            Ok(old) | Err(old) => old,
        };
        match &self.cells {
            Cells::Words(cells) => {
                match cells[index].fetch_update(order, order, |old| Some(change(u64::from(old)) as u32)) {
                    Ok(old) | Err(old) => u64::from(old),
                }
            }
            Cells::Longs(cells) => wide(&cells[index]),
            Cells::Apart => self.copied.as_ref().map_or(0, |(_, copy)| wide(&copy[index])),
            Cells::Bytes(_) | Cells::Halves(_) => {
                unreachable!("the checker allows atomics on 4 and 8 bytes only")
            }
        }
    }
}

/// Stored bits to the bits of the loaded value.
#[inline]
pub(super) fn loaded(element: Element, bits: u64) -> u64 {
    match element {
        Element::Half => u64::from(half_to_float(crate::arith::half(bits)).to_bits()),
        _ => bits,
    }
}

/// A value's bits to the bits to be stored.
#[inline]
pub(super) fn stored(element: Element, bits: u64) -> u64 {
    match element {
        Element::Byte => bits & 0xff,
        Element::Half => u64::from(float_to_half(crate::arith::float(bits))),
        _ => bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_arrays_are_copied_and_written_back() {
        let mut bytes = [0u8; 17];
        let start = bytes.as_ptr().align_offset(4) + 1;
        let slice = &mut bytes[start..start + 8];
        let memory = Memory::new(Element::Int, slice);
        assert_eq!(memory.length(), 2);
        memory.set(1, 0x0403_0201);
        assert_eq!(memory.update(1, |old| old + 1), 0x0403_0201);
        memory.finish();
        assert_eq!(slice, [0, 0, 0, 0, 2, 2, 3, 4]);
    }
}
