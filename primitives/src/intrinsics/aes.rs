//! AES_BLOCK and AES_CTR: AES with keys of 128, 192 and 256 bits (FIPS 197), as a code book or in counter mode
//! (NIST SP 800-38A, the counter a 128-bit big-endian number).
//!
//! Each block of threads makes the round table and the round keys in shared memory once, then its threads go over
//! blocks of data. Words hold columns with row 0 in the lowest byte.

use std::fmt::Write as _;

use super::{Extra, launch};
use crate::plan::{Launch, Operand};

/// Threads of a launch at most: enough to fill a GPU, few enough to make the tables rarely.
const MOST_THREADS: u64 = 256 * 1024;

/// The substitution box, from its definition: the inverse in GF(2^8), then an affine map.
fn substitution() -> [u8; 256] {
    let mut table = [0u8; 256];
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        // p runs over all powers of 3, q over those of its inverse.
        p ^= (p << 1) ^ if p & 0x80 == 0 { 0 } else { 0x1b };
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        q ^= if q & 0x80 == 0 { 0 } else { 0x09 };
        table[p as usize] =
            q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
}

/// The kernel in the language.
pub(super) fn text(name: &str, counting: bool) -> String {
    let mut out = String::from("GPU_CONST aes_box uint[]");
    for value in substitution() {
        let _ = write!(out, " {value}");
    }
    // A word of four substituted bytes, taken from four words (the table holds the plain box in its second byte).
    out.push_str(
        "\nGPU_FUNCTION substitute(t uint[], a uint, b uint, c uint, d uint) → uint:\n  \
         CALCULATE w = ((t[a & 255u] >> 8) & 255u) | (t[(b >> 8) & 255u] & 0xff00u)\n  \
         CALCULATE v = ((t[(c >> 16) & 255u] << 8) & 0xff0000u) | ((t[d >> 24] << 16) & 0xff000000u)\n  RETURN w | v\nGPU_END\n\
         GPU_FUNCTION column(t uint[], a uint, b uint, c uint, d uint, k uint) → uint:\n  \
         CALCULATE w = t[a & 255u] ^ rotr(t[(b >> 8) & 255u], 24) ^ k\n  \
         RETURN w ^ rotr(t[(c >> 16) & 255u], 16) ^ rotr(t[d >> 24], 8)\nGPU_END\n\
         GPU_FUNCTION word(x byte[], at int) → uint:\n  \
         RETURN uint(x[at]) | (uint(x[at + 1]) << 8) | (uint(x[at + 2]) << 16) | (uint(x[at + 3]) << 24)\nGPU_END\n\
         GPU_FUNCTION swap(w uint) → uint:\n  RETURN (rotr(w, 8) & 0xff00ff00u) | (rotr(w, 24) & 0x00ff00ffu)\nGPU_END\n",
    );
    let _ = write!(out, "GPU_KERNEL {name}\nGPU_PARAM data byte[]\nGPU_PARAM key byte[]\n");
    if counting {
        out.push_str("GPU_PARAM counter byte[]\n");
    }
    out.push_str(
        "GPU_PARAM out byte[]\nGPU_PARAM words int\nGPU_PARAM rounds int\nGPU_PARAM count int\nGPU_BLOCK 256\n\
         GPU_SHARED_MEM t uint 256\nGPU_SHARED_MEM rk uint 60\nGPU_THREAD_CODE:\n  LOCAL_ID → lid\n  LOAD aes_box[lid] → s\n  \
         CALCULATE double = (s << 1) ^ ((s >> 7) * 0x11bu)\n  \
         STORE double | (s << 8) | (s << 16) | ((double ^ s) << 24) → t[lid]\n  SYNC_THREADS\n  IF lid == 0:\n    \
         FOR i IN 0..words: STORE word(key, i * 4) → rk[i]\n    CALCULATE rcon = 1u\n    \
         FOR i IN words..4 * (rounds + 1):\n      LOAD rk[i - 1] → w\n      CALCULATE place = i % words\n      \
         IF place == 0:\n        CALCULATE w = substitute(t, rotr(w, 8), rotr(w, 8), rotr(w, 8), rotr(w, 8)) ^ rcon\n        \
         CALCULATE rcon = (rcon << 1) ^ ((rcon >> 7) * 0x11bu)\n      ELIF words > 6 AND place == 4:\n        \
         CALCULATE w = substitute(t, w, w, w, w)\n      STORE w ^ rk[i - words] → rk[i]\n  SYNC_THREADS\n  \
         PARALLEL FOR i IN 0..count:\n    CALCULATE at = i * 16\n",
    );
    if counting {
        out.push_str(
            "    CALCULATE low = swap(word(counter, 12)) + uint(i)\n    CALCULATE carry0 = low < uint(i)\n    \
             CALCULATE second = swap(word(counter, 8)) + uint(select(carry0, 1, 0))\n    \
             CALCULATE carry1 = carry0 AND second == 0u\n    \
             CALCULATE third = swap(word(counter, 4)) + uint(select(carry1, 1, 0))\n    \
             CALCULATE carry2 = carry1 AND third == 0u\n    \
             CALCULATE top = swap(word(counter, 0)) + uint(select(carry2, 1, 0))\n    \
             CALCULATE s0 = swap(top) ^ rk[0]\n    CALCULATE s1 = swap(third) ^ rk[1]\n    \
             CALCULATE s2 = swap(second) ^ rk[2]\n    CALCULATE s3 = swap(low) ^ rk[3]\n",
        );
    } else {
        for j in 0..4 {
            let _ = writeln!(out, "    CALCULATE s{j} = word(data, at + {}) ^ rk[{j}]", j * 4);
        }
    }
    out.push_str("    FOR r IN 1..rounds:\n");
    for j in 0..4 {
        let [a, b, c, d] = [j, (j + 1) % 4, (j + 2) % 4, (j + 3) % 4];
        let _ = writeln!(out, "      CALCULATE n{j} = column(t, s{a}, s{b}, s{c}, s{d}, rk[r * 4 + {j}])");
    }
    for j in 0..4 {
        let _ = writeln!(out, "      CALCULATE s{j} = n{j}");
    }
    for j in 0..4 {
        let [a, b, c, d] = [j, (j + 1) % 4, (j + 2) % 4, (j + 3) % 4];
        let _ = writeln!(
            out,
            "    CALCULATE o{j} = substitute(t, s{a}, s{b}, s{c}, s{d}) ^ rk[rounds * 4 + {j}]"
        );
    }
    for byte in 0..16 {
        let value = format!("(o{} >> {}) & 255u", byte / 4, byte % 4 * 8);
        if counting {
            let _ = writeln!(
                out,
                "    IF at + {byte} < len(data): STORE uint(data[at + {byte}]) ^ ({value}) → out[at + {byte}]"
            );
        } else {
            let _ = writeln!(out, "    STORE {value} → out[at + {byte}]");
        }
    }
    out.push_str("GPU_END\n");
    out
}

/// One launch; its threads go over the blocks.
pub(super) fn launches(
    operands: &[Operand],
    data: usize,
    key: usize,
    counter: Option<usize>,
    out: usize,
) -> Result<Vec<Launch>, String> {
    let (bytes, key, out) = (operands[data].length, operands[key].length, operands[out].length);
    let words = match key {
        16 | 24 | 32 => key.cast_signed() / 4,
        _ => return Err(format!("a key has 16, 24 or 32 bytes, not {key}")),
    };
    match counter.map(|counter| operands[counter].length) {
        Some(16) => {}
        Some(length) => return Err(format!("the counter has 16 bytes, not {length}")),
        None if !bytes.is_multiple_of(16) => {
            return Err(format!("the data is whole blocks of 16 bytes; {bytes} bytes are not"));
        }
        None => {}
    }
    if out < bytes {
        return Err(format!("the result has room for {out} bytes, the data has {bytes}"));
    }
    let count = bytes.div_ceil(16);
    let words = i32::try_from(words).expect("8 at most");
    let extras = vec![
        (Extra::KeyWords, words),
        (Extra::Rounds, words + 6),
        (Extra::Count, i32::try_from(count).expect("lengths are below 2^31")),
    ];
    Ok(vec![launch(0, count.min(MOST_THREADS), extras)])
}
