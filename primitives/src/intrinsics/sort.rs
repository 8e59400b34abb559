//! SORT: a bitonic network, ascending, in place, for any length.
//!
//! Every comparator puts the smaller element first: the first step of each merge mirrors the second half. So elements
//! past the end can be thought of as greater than all and need not exist. Floats are ordered by their bits (negative
//! NaN, -infinity … -0, +0 … +infinity, NaN), which is a total order. Steps within 1024 elements run in shared memory.

use std::fmt::Write as _;

use super::{Extra, launch};
use crate::plan::Launch;
use crate::types::Element;

/// Elements that one block sorts in shared memory.
const TILE: u64 = 1024;

/// Four kernels: sort tiles, mirror step, distance step, merge tiles.
pub(super) fn text(name: &str, element: Element) -> String {
    let (key, most) = match element {
        Element::Uint => ("uint", "0xffffffffu"),
        _ => ("int", "0x7fffffff"),
    };
    // A float's bits as an int that is ordered as the float is; the same function goes back.
    let (to, from) = match element {
        Element::Float => ("flip(int(bits(x)))", "as_float(uint(flip(v)))"),
        _ => ("x", "v"),
    };
    let ty = element.name();
    let mut out = format!(
        "GPU_FUNCTION flip(v int) → int:\n  RETURN v ^ ((v >> 31) & 0x7fffffff)\nGPU_END\n\
         GPU_FUNCTION encode(x {ty}) → {key}:\n  RETURN {to}\nGPU_END\n\
         GPU_FUNCTION decode(v {key}) → {ty}:\n  RETURN {from}\nGPU_END\n"
    );
    let tile = |out: &mut String, suffix: &str, sizes: &[u32], mirrored: bool| {
        let _ = write!(
            out,
            "GPU_KERNEL {name}_{suffix}\nGPU_PARAM data {ty}[]\nGPU_BLOCK 512\nGPU_SHARED_MEM t {key} {TILE}\nGPU_THREAD_CODE:\n\
             \x20 LOCAL_ID → lid\n  BLOCK_ID → bid\n  CALCULATE p = bid * {TILE} + lid\n  CALCULATE q = p + 512\n"
        );
        for (at, slot) in [("p", "lid"), ("q", "lid + 512")] {
            let _ = write!(
                out,
                "  IF {at} < len(data):\n    STORE encode(data[{at}]) → t[{slot}]\n  ELSE:\n    STORE {most} → t[{slot}]\n"
            );
        }
        for size in sizes {
            let mut steps = Vec::new();
            if mirrored {
                steps.push((size / 2, true));
            }
            let mut distance = if mirrored { size / 4 } else { size / 2 };
            while distance > 0 {
                steps.push((distance, false));
                distance /= 2;
            }
            for (distance, mirror) in steps {
                let _ = write!(
                    out,
                    "  SYNC_THREADS\n  CALCULATE g = (lid / {distance}) * {}\n  CALCULATE r = lid % {distance}\n  \
                     CALCULATE i = g + r\n",
                    distance * 2
                );
                if mirror {
                    let _ = writeln!(out, "  CALCULATE j = g + {} - r", distance * 2 - 1);
                } else {
                    let _ = writeln!(out, "  CALCULATE j = i + {distance}");
                }
                out.push_str(
                    "  LOAD t[i] → x\n  LOAD t[j] → y\n  STORE min(x, y) → t[i]\n  STORE max(x, y) → t[j]\n",
                );
            }
        }
        out.push_str("  SYNC_THREADS\n");
        for (at, slot) in [("p", "lid"), ("q", "lid + 512")] {
            let _ = write!(out, "  IF {at} < len(data):\n    STORE decode(t[{slot}]) → data[{at}]\n");
        }
        out.push_str("GPU_END\n");
    };
    tile(&mut out, "tile", &[2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], true);
    for (suffix, j) in [("mirror", "g + (2 << shift) - 1 - r"), ("distance", "i + (1 << shift)")] {
        let _ = write!(
            out,
            "GPU_KERNEL {name}_{suffix}\nGPU_PARAM data {ty}[]\nGPU_PARAM shift int\nGPU_THREAD_CODE:\n  THREAD_ID → tid\n  \
             CALCULATE g = (tid >> shift) << (shift + 1)\n  CALCULATE r = tid & ((1 << shift) - 1)\n  CALCULATE i = g + r\n  \
             CALCULATE j = {j}\n  IF j < len(data):\n    CALCULATE x = encode(data[i])\n    CALCULATE y = encode(data[j])\n    \
             IF y < x:\n      STORE decode(y) → data[i]\n      STORE decode(x) → data[j]\nGPU_END\n"
        );
    }
    tile(&mut out, "merge", &[1024], false);
    out
}

/// The launches that sort so many elements.
pub(super) fn launches(length: u64) -> Vec<Launch> {
    if length < 2 {
        return Vec::new();
    }
    let tiles = length.div_ceil(TILE);
    let mut list = vec![launch(0, tiles * 512, Vec::new())];
    let mut size = TILE * 2;
    while size / 2 < length {
        // A thread for each pair; pairs whose second element is past the end do nothing.
        let pairs = length.div_ceil(size) * (size / 2);
        let shift = |distance: u64| vec![(Extra::Shift, distance.trailing_zeros().cast_signed())];
        list.push(launch(1, pairs, shift(size / 2)));
        let mut distance = size / 4;
        while distance >= TILE {
            list.push(launch(2, pairs, shift(distance)));
            distance /= 2;
        }
        list.push(launch(3, tiles * 512, Vec::new()));
        size *= 2;
    }
    list
}
