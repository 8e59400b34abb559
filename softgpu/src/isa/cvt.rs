//! Conversions between all types (PTX ISA, "Data Movement and Conversion Instructions: cvt" and "cvt.pack").
//!
//! Pure. [`convert`] answers any scalar `cvt` on register bits; the typed functions beside it are for loops over
//! lanes. Values out of an integer's range clamp to it, whether `.sat` is given or not. A NaN becomes zero if the
//! source is not `.f64` and the destination is narrower than 64 bits, else `1 << (width - 1)`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "conversion is this file's job; each cast rounds or clamps as its comment says"
)]

use super::Round;
use super::exact::Exact;
use super::float::{canonical_f32, ftz_f32, narrow, quiet_f64, sat_f32, sat_f64};
use super::half::{self, Bf16, F16, Half};
use super::int::Int;

/// The source or destination type of `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Num {
    /// `.u8`.
    U8,
    /// `.u16`.
    U16,
    /// `.u32`.
    U32,
    /// `.u64`.
    U64,
    /// `.s8`.
    S8,
    /// `.s16`.
    S16,
    /// `.s32`.
    S32,
    /// `.s64`.
    S64,
    /// `.f16`.
    F16,
    /// `.bf16`.
    Bf16,
    /// `.tf32`, in a 32-bit register.
    Tf32,
    /// `.f32`.
    F32,
    /// `.f64`.
    F64,
    /// `.e4m3`: one element of an `.e4m3x2`.
    E4m3,
    /// `.e5m2`: one element of an `.e5m2x2`.
    E5m2,
}

/// The modifiers of `cvt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CvtMode {
    /// The rounding modifier, or the integer rounding modifier.
    pub round: Round,
    /// `.rni .rzi .rmi .rpi` was given: a floating-point result is rounded to an integral value.
    pub integral: bool,
    /// `.ftz`: single-precision subnormals become zero.
    pub ftz: bool,
    /// `.sat`: integers clamp to the destination's range, floating-point results to `[0, 1]`.
    pub sat: bool,
    /// `.relu`: negative results become zero.
    pub relu: bool,
    /// `.satfinite`: what overflows becomes the greatest finite number.
    pub satfinite: bool,
}

/// Any scalar `cvt` (PTX ISA, "cvt"). `bits` are the source's, in the low end; what is above is ignored. A signed
/// integer result comes sign-extended to 64 bits, everything else zero-extended, so that a destination register
/// wider than the type is right after truncation to its width.
#[inline]
pub fn convert(to: Num, from: Num, m: CvtMode, bits: u64) -> u64 {
    match from {
        Num::U8 => from_int(to, m, bits as u8),
        Num::U16 => from_int(to, m, bits as u16),
        Num::U32 => from_int(to, m, bits as u32),
        Num::U64 => from_int(to, m, bits),
        Num::S8 => from_int(to, m, bits as i8),
        Num::S16 => from_int(to, m, bits as i16),
        Num::S32 => from_int(to, m, bits as i32),
        Num::S64 => from_int(to, m, bits as i64),
        Num::F16 => from_f32(to, from, m, F16::to_f32(bits as u16)),
        Num::Bf16 => from_f32(to, from, m, Bf16::to_f32(bits as u16)),
        Num::E4m3 => from_f32(to, from, m, half::e4m3_to_f32(bits as u8)),
        Num::E5m2 => from_f32(to, from, m, half::e5m2_to_f32(bits as u8)),
        Num::F32 | Num::Tf32 => {
            let a = f32::from_bits(bits as u32);
            // `.ftz` is an arithmetic step, which makes a NaN canonical (measured).
            from_f32(to, from, m, if m.ftz { canonical_f32(ftz_f32(a)) } else { a })
        }
        Num::F64 => from_f64(to, m, f64::from_bits(bits)),
    }
}

/// A signed result in its register.
fn extended<T: Int>(v: T) -> u64 {
    v.value() as u64
}

fn from_int<S: Int>(to: Num, m: CvtMode, a: S) -> u64 {
    fn int<S: Int, D: Int>(a: S, sat: bool) -> u64 {
        extended(if sat { saturate::<S, D>(a) } else { D::from_bits(a.value() as u64) })
    }
    match to {
        Num::U8 => int::<S, u8>(a, m.sat),
        Num::U16 => int::<S, u16>(a, m.sat),
        Num::U32 => int::<S, u32>(a, m.sat),
        Num::U64 => int::<S, u64>(a, m.sat),
        Num::S8 => int::<S, i8>(a, m.sat),
        Num::S16 => int::<S, i16>(a, m.sat),
        Num::S32 => int::<S, i32>(a, m.sat),
        Num::S64 => int::<S, i64>(a, m.sat),
        Num::F64 => {
            let x = int_to_f64(a, m.round);
            (if m.sat { sat_f64(x) } else { x }).to_bits()
        }
        Num::F32 | Num::Tf32 => {
            let x = int_to_f32(a, m.round);
            u64::from((if m.sat { sat_f32(x) } else { x }).to_bits())
        }
        Num::F16 => u64::from(int_to_half::<F16, S>(a, m)),
        Num::Bf16 => u64::from(int_to_half::<Bf16, S>(a, m)),
        // No such `cvt` exists; by way of `f32` every small integer is exact.
        Num::E4m3 => u64::from(half::f32_to_e4m3(int_to_f32(a, Round::Rn), m.relu)),
        Num::E5m2 => u64::from(half::f32_to_e5m2(int_to_f32(a, Round::Rn), m.relu)),
    }
}

fn int_to_half<H: Half, S: Int>(a: S, m: CvtMode) -> u16 {
    // To double, to odd beyond 53 bits: `f64` is exact up to there, and halves overflow or have 40 bits to spare.
    let v = a.value();
    let wide = v as f64;
    let odd = if wide as i128 == v {
        wide
    } else {
        f64::from_bits(Exact::integer(v).to_f64(Round::Rz).to_bits() | 1)
    };
    let x = H::from_f64(odd, m.round);
    if m.sat { half::sat::<H>(x) } else { x }
}

fn from_f32(to: Num, from: Num, m: CvtMode, a: f32) -> u64 {
    let a = if m.integral && !is_int(to) { integral_f32(a, m.round) } else { a };
    match to {
        Num::U8 => extended(f32_to_int::<u8>(a, m.round)),
        Num::U16 => extended(f32_to_int::<u16>(a, m.round)),
        Num::U32 => extended(f32_to_int::<u32>(a, m.round)),
        Num::U64 => extended(f32_to_int::<u64>(a, m.round)),
        Num::S8 => extended(f32_to_int::<i8>(a, m.round)),
        Num::S16 => extended(f32_to_int::<i16>(a, m.round)),
        Num::S32 => extended(f32_to_int::<i32>(a, m.round)),
        Num::S64 => extended(f32_to_int::<i64>(a, m.round)),
        Num::F32 => {
            // What narrower formats call subnormal is normal here; `.ftz` concerns single precision only.
            let x = if m.ftz && from == Num::F32 { ftz_f32(a) } else { a };
            // A `.bf16` is moved into place, NaN and all (measured).
            let x = if from == Num::Bf16 { x } else { canonical_f32(x) };
            u64::from(clamped(x, m).to_bits())
        }
        Num::F64 => (if m.sat { sat_f64(f64::from(a)) } else { f64::from(a) }).to_bits(),
        Num::F16 => u64::from(to_half::<F16>(a, m)),
        Num::Bf16 => u64::from(to_half::<Bf16>(a, m)),
        Num::Tf32 => u64::from(half::f32_to_tf32(a, m.round, m.relu, m.satfinite)),
        Num::E4m3 => u64::from(half::f32_to_e4m3(a, m.relu)),
        Num::E5m2 => u64::from(half::f32_to_e5m2(a, m.relu)),
    }
}

fn from_f64(to: Num, m: CvtMode, a: f64) -> u64 {
    match to {
        Num::U8 => extended(f64_to_int::<u8>(a, m.round)),
        Num::U16 => extended(f64_to_int::<u16>(a, m.round)),
        Num::U32 => extended(f64_to_int::<u32>(a, m.round)),
        Num::U64 => extended(f64_to_int::<u64>(a, m.round)),
        Num::S8 => extended(f64_to_int::<i8>(a, m.round)),
        Num::S16 => extended(f64_to_int::<i16>(a, m.round)),
        Num::S32 => extended(f64_to_int::<i32>(a, m.round)),
        Num::S64 => extended(f64_to_int::<i64>(a, m.round)),
        Num::F64 => {
            let a = if m.integral { quiet_f64(integral_f64(a, m.round)) } else { a };
            (if m.sat { sat_f64(a) } else { a }).to_bits()
        }
        Num::F32 => u64::from(f64_to_f32(a, m.round, m.ftz, m.sat).to_bits()),
        Num::F16 => u64::from(half_finish::<F16>(f64_to_half::<F16>(a, m.round), m)),
        Num::Bf16 => u64::from(half_finish::<Bf16>(f64_to_half::<Bf16>(a, m.round), m)),
        // No such `cvt` exists; rounded to odd, the detour does not show.
        Num::Tf32 | Num::E4m3 | Num::E5m2 => from_f32(to, Num::F32, m, super::float::narrow_odd(a)),
    }
}

/// The nearest half; a NaN keeps its sign and the upper end of its payload (measured).
fn f64_to_half<H: Half>(a: f64, round: Round) -> u16 {
    if !a.is_nan() {
        return H::from_f64(a, round);
    }
    let fraction_bits = H::INFINITY.trailing_zeros();
    let payload = (a.to_bits() & ((1 << 52) - 1)) >> (52 - fraction_bits);
    let sign = (a.to_bits() >> 48) as u16 & 0x8000;
    sign | H::INFINITY | 1 << (fraction_bits - 1) | payload as u16
}

const fn is_int(n: Num) -> bool {
    matches!(n, Num::U8 | Num::U16 | Num::U32 | Num::U64 | Num::S8 | Num::S16 | Num::S32 | Num::S64)
}

/// `.sat` and `.relu` of a single-precision result.
fn clamped(a: f32, m: CvtMode) -> f32 {
    let a = if m.relu && !a.is_nan() && a.is_sign_negative() { 0.0 } else { a };
    if m.sat { sat_f32(a) } else { a }
}

/// `cvt.{rn,rz}.{f16,bf16}.f32` with its modifiers (PTX ISA, "cvt").
#[inline(always)]
pub fn to_half<H: Half>(a: f32, m: CvtMode) -> u16 {
    half_finish::<H>(H::from_f32(a, m.round), m)
}

#[inline(always)]
fn half_finish<H: Half>(x: u16, m: CvtMode) -> u16 {
    let x = if m.satfinite && x & 0x7fff == H::INFINITY { x & 0x8000 | H::MAX } else { x };
    let x = if m.relu { half::relu::<H>(x) } else { x };
    if m.sat { half::sat::<H>(x) } else { x }
}

// ---- Typed conversions -----------------------------------------------------------------------------------

/// Clamps an integer to the range of another type (PTX ISA, "cvt", `.sat`).
#[inline(always)]
pub fn saturate<S: Int, D: Int>(a: S) -> D {
    let (low, high) = if D::SIGNED {
        (-(1i128 << (D::BITS - 1)), (1i128 << (D::BITS - 1)) - 1)
    } else {
        (0, (1i128 << D::BITS) - 1)
    };
    D::from_bits(a.value().clamp(low, high) as u64)
}

/// Rounds to an integral value (PTX ISA, "cvt.{rni,rzi,rmi,rpi}.f32.f32").
#[inline(always)]
pub fn integral_f32(a: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a.round_ties_even(),
        Round::Rz => a.trunc(),
        Round::Rm => a.floor(),
        Round::Rp => a.ceil(),
        Round::Rna => a.round(),
    }
}

/// Rounds to an integral value (PTX ISA, "cvt.{rni,rzi,rmi,rpi}.f64.f64").
#[inline(always)]
pub fn integral_f64(a: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a.round_ties_even(),
        Round::Rz => a.trunc(),
        Round::Rm => a.floor(),
        Round::Rp => a.ceil(),
        Round::Rna => a.round(),
    }
}

/// What a NaN becomes; see the head of the file.
#[inline(always)]
fn nan_as_int<T: Int>(double: bool) -> T {
    T::from_bits(if double || T::BITS == 64 { 1 << (T::BITS - 1) } else { 0 })
}

/// Clamps an integral `f32` or `f64` to the range of `T`: `as` clamps to the range of the type it names.
macro_rules! clamp_to_int {
    ($t:ty, $a:expr) => {
        match (<$t>::SIGNED, <$t>::BITS) {
            (true, 64) => <$t>::from_bits($a as i64 as u64),
            (false, 64) => <$t>::from_bits($a as u64),
            (true, 32) => <$t>::from_bits($a as i32 as u64),
            (false, 32) => <$t>::from_bits(u64::from($a as u32)),
            (true, 16) => <$t>::from_bits($a as i16 as u64),
            (false, 16) => <$t>::from_bits(u64::from($a as u16)),
            (true, _) => <$t>::from_bits($a as i8 as u64),
            (false, _) => <$t>::from_bits(u64::from($a as u8)),
        }
    };
}

/// `cvt.{rni,rzi,rmi,rpi}.<int>.f32` (PTX ISA, "cvt"); apply `.ftz` to `a` first.
#[inline(always)]
pub fn f32_to_int<T: Int>(a: f32, round: Round) -> T {
    if a.is_nan() { nan_as_int(false) } else { clamp_to_int!(T, integral_f32(a, round)) }
}

/// `cvt.{rni,rzi,rmi,rpi}.<int>.f64` (PTX ISA, "cvt").
#[inline(always)]
pub fn f64_to_int<T: Int>(a: f64, round: Round) -> T {
    if a.is_nan() { nan_as_int(true) } else { clamp_to_int!(T, integral_f64(a, round)) }
}

/// `cvt.{rn,rz,rm,rp}.f32.<int>` (PTX ISA, "cvt").
#[inline(always)]
pub fn int_to_f32<T: Int>(a: T, round: Round) -> f32 {
    if round == Round::Rn {
        // By width, so that a loop over 32-bit numbers stays in 32 bits.
        match (T::SIGNED, T::BITS) {
            (true, 64) => a.bits() as i64 as f32,
            (true, _) => a.value() as i32 as f32,
            (false, 64) => a.bits() as f32,
            (false, _) => a.bits() as u32 as f32,
        }
    } else {
        Exact::integer(a.value()).to_f32(round)
    }
}

/// `cvt.{rn,rz,rm,rp}.f64.<int>` (PTX ISA, "cvt").
#[inline(always)]
pub fn int_to_f64<T: Int>(a: T, round: Round) -> f64 {
    if round == Round::Rn || T::BITS < 64 {
        match (T::SIGNED, T::BITS) {
            (true, 64) => a.bits() as i64 as f64,
            (true, _) => f64::from(a.value() as i32),
            (false, 64) => a.bits() as f64,
            (false, _) => f64::from(a.bits() as u32),
        }
    } else {
        Exact::integer(a.value()).to_f64(round)
    }
}

/// `cvt.{rn,rz,rm,rp}.f32.f64` (PTX ISA, "cvt").
#[inline(always)]
pub fn f64_to_f32(a: f64, round: Round, ftz: bool, sat: bool) -> f32 {
    // NaN keeps its sign and the upper end of its payload (measured), as in the host's conversion.
    let x = narrow(a, round);
    let x = if ftz { ftz_f32(x) } else { x };
    if sat { sat_f32(x) } else { x }
}

// ---- Packed conversions ----------------------------------------------------------------------------------

/// `cvt.*.{f16x2,bf16x2,e4m3x2,e5m2x2}.f32 d, a, b` (PTX ISA, "cvt"): `a` in the upper half of the result, `b` in
/// the lower. `None` for any other type.
#[inline(always)]
pub fn convert_x2(to: Num, m: CvtMode, a: f32, b: f32) -> Option<u32> {
    let (a, b) = if m.ftz { (ftz_f32(a), ftz_f32(b)) } else { (a, b) };
    Some(match to {
        Num::F16 => half::pack(to_half::<F16>(b, m), to_half::<F16>(a, m)),
        Num::Bf16 => half::pack(to_half::<Bf16>(b, m), to_half::<Bf16>(a, m)),
        Num::E4m3 => u32::from(half::f32_to_e4m3(a, m.relu)) << 8 | u32::from(half::f32_to_e4m3(b, m.relu)),
        Num::E5m2 => u32::from(half::f32_to_e5m2(a, m.relu)) << 8 | u32::from(half::f32_to_e5m2(b, m.relu)),
        _ => return None,
    })
}

/// `cvt.rn.satfinite.{e4m3x2,e5m2x2}.f16x2` (PTX ISA, "cvt"): both elements of `a`. `None` for any other type.
#[inline(always)]
pub fn f16x2_to_fp8x2(to: Num, m: CvtMode, a: u32) -> Option<u16> {
    let [low, high] = half::unpack(a);
    let both = convert_x2(to, m, F16::to_f32(high), F16::to_f32(low))?;
    matches!(to, Num::E4m3 | Num::E5m2).then_some(both as u16)
}

/// `cvt.rn.f16x2.{e4m3x2,e5m2x2}` (PTX ISA, "cvt"): both elements of `a`, exactly. `None` for any other type.
#[inline(always)]
pub fn fp8x2_to_f16x2(from: Num, m: CvtMode, a: u16) -> Option<u32> {
    let element = |bits: u8| match from {
        Num::E4m3 => Some(half::e4m3_to_f32(bits)),
        Num::E5m2 => Some(half::e5m2_to_f32(bits)),
        _ => None,
    };
    Some(half::pack(to_half::<F16>(element(a as u8)?, m), to_half::<F16>(element((a >> 8) as u8)?, m)))
}

/// `cvt.pack.sat.<type>.s32 d, a, b{, c}` (PTX ISA, "cvt.pack"): `a` and `b` clamped to `width`-bit integers, `a`
/// above `b`; the rest of the word is the low end of `c` (for 16-bit types there is no rest, and no `c`).
#[inline(always)]
pub fn pack(width: u32, signed: bool, a: i32, b: i32, c: u32) -> u32 {
    let clamped = |v: i32| {
        let (low, high) = if signed {
            (-(1i64 << (width - 1)), (1i64 << (width - 1)) - 1)
        } else {
            (0, (1i64 << width) - 1)
        };
        i64::from(v).clamp(low, high) as u32 & ((1 << width) - 1)
    };
    let pair = clamped(a) << width | clamped(b);
    if width >= 16 { pair } else { c << (2 * width) | pair }
}

#[cfg(test)]
mod tests;
