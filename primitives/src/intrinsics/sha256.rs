//! SHA256: the digest (FIPS 180-4) of each message of an array; one thread for a message.
//!
//! The schedule of 64 words lives in 16 variables, all rounds are written out.

use std::fmt::Write as _;

use super::{Extra, launch};
use crate::plan::Launch;

/// The first 32 bits of the fractional part of a root of a prime.
fn fraction(prime: u64, cube: bool) -> u32 {
    // floor(root(prime) * 2^32), by bisection in integers.
    let wide = u128::from(prime);
    let (mut low, mut high) = (0u128, 1u128 << 40);
    while high - low > 1 {
        let middle = u128::midpoint(low, high);
        let fits = if cube { middle.pow(3) <= wide << 96 } else { middle.pow(2) <= wide << 64 };
        if fits {
            low = middle;
        } else {
            high = middle;
        }
    }
    crate::arith::low(u64::try_from(low).expect("40 bits"))
}

fn primes() -> impl Iterator<Item = u64> {
    (2u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// The kernel in the language.
pub(super) fn text(name: &str) -> String {
    let mut out = format!(
        "GPU_FUNCTION octet(data byte[], start int, p int, length int) → int:\n  CALCULATE v = 0\n  IF p < length:\n    \
         LOAD data[start + p] → v\n  ELIF p == length:\n    CALCULATE v = 128\n  RETURN v\nGPU_END\n\
         GPU_FUNCTION octets(data byte[], start int, p int, length int) → uint:\n  \
         CALCULATE a = (octet(data, start, p, length) << 24) | (octet(data, start, p + 1, length) << 16)\n  \
         CALCULATE b = (octet(data, start, p + 2, length) << 8) | octet(data, start, p + 3, length)\n  \
         RETURN uint(a | b)\nGPU_END\n\
         GPU_KERNEL {name}\nGPU_PARAM data byte[]\nGPU_PARAM out byte[]\nGPU_PARAM chunk int\nGPU_PARAM count int\n\
         GPU_BLOCK 128\nGPU_THREAD_CODE:\n  THREAD_ID → tid\n  CALCULATE start = tid * chunk\n  \
         CALCULATE length = min(chunk, len(data) - start)\n"
    );
    let starts: Vec<u32> = primes().take(8).map(|p| fraction(p, false)).collect();
    for (index, start) in starts.iter().enumerate() {
        let _ = writeln!(out, "  CALCULATE h{index} = {start}u");
    }
    out.push_str(
        "  CALCULATE last = (length + 8) >> 6\n  FOR block IN 0..last + 1:\n    CALCULATE p = block << 6\n",
    );
    for w in 0..16 {
        let _ = writeln!(out, "    CALCULATE w{w} = octets(data, start, p + {}, length)", w * 4);
    }
    out.push_str(
        "    IF block == last:\n      CALCULATE w14 = uint(length) >> 29\n      CALCULATE w15 = uint(length) << 3\n",
    );
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (index, letter) in letters.iter().enumerate() {
        let _ = writeln!(out, "    CALCULATE {letter}_0 = h{index}");
    }
    let mut names: Vec<String> = letters.iter().map(|letter| format!("{letter}_0")).collect();
    for (round, prime) in primes().take(64).enumerate() {
        let k = fraction(prime, true);
        let w = round % 16;
        if round >= 16 {
            let (w1, w9, w14) = ((round + 1) % 16, (round + 9) % 16, (round + 14) % 16);
            let _ = writeln!(
                out,
                "    CALCULATE w{w} = w{w} + w{w9} + (rotr(w{w1}, 7) ^ rotr(w{w1}, 18) ^ (w{w1} >> 3)) + \
                 (rotr(w{w14}, 17) ^ rotr(w{w14}, 19) ^ (w{w14} >> 10))"
            );
        }
        let [a, b, c, d, e, f, g, h]: [&str; 8] = std::array::from_fn(|index| names[index].as_str());
        let _ = writeln!(
            out,
            "    CALCULATE t{round} = {h} + (rotr({e}, 6) ^ rotr({e}, 11) ^ rotr({e}, 25)) + (({e} & {f}) ^ (~{e} & {g})) + {k}u + w{w}"
        );
        let _ = writeln!(
            out,
            "    CALCULATE a_{n} = t{round} + (rotr({a}, 2) ^ rotr({a}, 13) ^ rotr({a}, 22)) + (({a} & {b}) ^ ({a} & {c}) ^ ({b} & {c}))",
            n = round + 1
        );
        let _ = writeln!(out, "    CALCULATE e_{n} = {d} + t{round}", n = round + 1);
        names = vec![
            format!("a_{}", round + 1),
            a.to_owned(),
            b.to_owned(),
            c.to_owned(),
            format!("e_{}", round + 1),
            e.to_owned(),
            f.to_owned(),
            g.to_owned(),
        ];
    }
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(out, "    CALCULATE h{index} = h{index} + {name}");
    }
    out.push_str("  CALCULATE at = tid * 32\n");
    for byte in 0..32 {
        let _ = writeln!(out, "  STORE (h{} >> {}) & 255u → out[at + {byte}]", byte / 4, 24 - byte % 4 * 8);
    }
    out.push_str("GPU_END\n");
    out
}

/// One launch with a thread for each message; the last message may be shorter.
pub(super) fn launches(bytes: u64, room: u64, chunk: i32) -> Result<Vec<Launch>, String> {
    let size = u64::try_from(chunk)
        .ok()
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("a message has {chunk} bytes"))?;
    // Nothing at all is one empty message.
    let count = bytes.div_ceil(size).max(1);
    if count * 32 > room {
        return Err(format!("{count} digests take {} bytes, the result has room for {room}", count * 32));
    }
    let number = i32::try_from(count).map_err(|_| format!("{count} messages are too many"))?;
    Ok(vec![launch(0, count, vec![(Extra::Chunk, chunk), (Extra::Count, number)])])
}
