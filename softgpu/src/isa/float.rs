//! Single- and double-precision arithmetic (PTX ISA, "Floating Point Instructions").
//!
//! Pure. Every `.rn .rz .rm .rp` result is the exact result rounded once. A single-precision NaN result is the
//! canonical `0x7fffffff`; double precision keeps what the host's IEEE arithmetic makes of NaN payloads. The
//! `.rn` forms are plain host arithmetic, so that loops over lanes vectorise; compile such a loop with FMA
//! enabled, or [`fma_f32`] and [`fma_f64`] become library calls.

use super::exact::Exact;
use super::{FloatMode, Round};

/// The NaN that single-precision instructions produce.
pub const NAN_F32: f32 = f32::from_bits(0x7fff_ffff);

/// Makes any NaN the canonical one.
#[inline(always)]
pub fn canonical_f32(a: f32) -> f32 {
    // On the bits: a choice between two NaN values is one that an optimiser may drop.
    let bits = a.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
}

/// `.ftz`: a subnormal number becomes zero of its sign.
#[inline(always)]
pub fn ftz_f32(a: f32) -> f32 {
    let bits = a.to_bits();
    if bits & 0x7f80_0000 == 0 { f32::from_bits(bits & 0x8000_0000) } else { a }
}

/// `.sat`: clamps to `[0, 1]`; NaN and negative zero become `+0`.
#[inline(always)]
pub fn sat_f32(a: f32) -> f32 {
    let low = if a > 0.0 { a } else { 0.0 };
    if low < 1.0 { low } else { 1.0 }
}

/// `.sat` in double precision; see [`sat_f32`].
#[inline(always)]
pub fn sat_f64(a: f64) -> f64 {
    let low = if a > 0.0 { a } else { 0.0 };
    if low < 1.0 { low } else { 1.0 }
}

/// The input under `.ftz`.
#[inline(always)]
fn input(a: f32, ftz: bool) -> f32 {
    if ftz { ftz_f32(a) } else { a }
}

/// The result under `.ftz`, with NaN made canonical.
#[inline(always)]
fn output(a: f32, ftz: bool) -> f32 {
    canonical_f32(input(a, ftz))
}

/// The result under the mode's `.ftz` and `.sat`.
#[inline(always)]
fn finish(a: f32, m: FloatMode) -> f32 {
    let a = output(a, m.ftz);
    if m.sat { sat_f32(a) } else { a }
}

// ---- Rounding through double precision ------------------------------------------------------------------

/// Converts with the given rounding; exact inputs only are not assumed, so `a` may itself be rounded to odd.
#[inline(always)]
pub(super) fn narrow(a: f64, round: Round) -> f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the conversion to nearest is the start of any other"
    )]
    let near = a as f32;
    let back = f64::from(near);
    match round {
        Round::Rn => near,
        Round::Rna => {
            if a.is_finite() {
                Exact::f64(a).to_f32(Round::Rna)
            } else {
                near
            }
        }
        // Stepping the bits by one goes to the next number of the same sign, from infinity to the greatest.
        Round::Rz => {
            if back.abs() > a.abs() {
                f32::from_bits(near.to_bits() - 1)
            } else {
                near
            }
        }
        Round::Rm => {
            if back > a {
                near.next_down()
            } else {
                near
            }
        }
        Round::Rp => {
            if back < a {
                near.next_up()
            } else {
                near
            }
        }
    }
}

/// Rounds to odd: towards zero, then sets the last bit if anything was lost. What is rounded again to a format at
/// least two bits narrower comes out as if rounded once.
#[inline(always)]
pub(super) fn narrow_odd(a: f64) -> f32 {
    let cut = narrow(a, Round::Rz);
    f32::from_bits(cut.to_bits() | u32::from(f64::from(cut) != a && !a.is_nan()))
}

/// `a + b` rounded to odd; no overflow may occur.
#[inline(always)]
pub(super) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: the error of `sum`, exactly.
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    // An error of the opposite sign says that the sum was rounded away from zero.
    let away = u64::from((error < 0.0) != (sum < 0.0));
    let odd = f64::from_bits((sum.to_bits() - away) | 1);
    if error != 0.0 && !error.is_nan() { odd } else { sum }
}

/// A sum in double precision, to be narrowed with `round`: odd, with the sign that zero has under `.rm`.
#[inline(always)]
fn add_for(a: f64, b: f64, round: Round) -> f64 {
    let sum = add_odd(a, b);
    if sum == 0.0 && round == Round::Rm && (a.is_sign_negative() || b.is_sign_negative()) {
        -0.0
    } else {
        sum
    }
}

// ---- Single precision ------------------------------------------------------------------------------------

/// `add.f32` (PTX ISA, "add").
#[inline(always)]
pub fn add_f32(a: f32, b: f32, m: FloatMode) -> f32 {
    let (a, b) = (input(a, m.ftz), input(b, m.ftz));
    finish(
        match m.round {
            Round::Rn => a + b,
            round => narrow(add_for(f64::from(a), f64::from(b), round), round),
        },
        m,
    )
}

/// `sub.f32` (PTX ISA, "sub").
#[inline(always)]
pub fn sub_f32(a: f32, b: f32, m: FloatMode) -> f32 {
    add_f32(a, -b, m)
}

/// `mul.f32` (PTX ISA, "mul").
#[inline(always)]
pub fn mul_f32(a: f32, b: f32, m: FloatMode) -> f32 {
    let (a, b) = (input(a, m.ftz), input(b, m.ftz));
    finish(
        match m.round {
            Round::Rn => a * b,
            // 24 by 24 bits: the product is exact in double precision.
            round => narrow(f64::from(a) * f64::from(b), round),
        },
        m,
    )
}

/// `fma.f32`, and `mad.f32` of sm_20 and later (PTX ISA, "fma").
#[inline(always)]
pub fn fma_f32(a: f32, b: f32, c: f32, m: FloatMode) -> f32 {
    let (a, b, c) = (input(a, m.ftz), input(b, m.ftz), input(c, m.ftz));
    finish(
        match m.round {
            Round::Rn => a.mul_add(b, c),
            round => narrow(add_for(f64::from(a) * f64::from(b), f64::from(c), round), round),
        },
        m,
    )
}

/// `div.{rn,rz,rm,rp}.f32` (PTX ISA, "div").
#[inline(always)]
pub fn div_f32(a: f32, b: f32, m: FloatMode) -> f32 {
    let (a, b) = (input(a, m.ftz), input(b, m.ftz));
    finish(
        match m.round {
            Round::Rn => a / b,
            // A quotient of 24-bit numbers that is no `f32` differs from every `f32` by more than the error of
            // the division in double precision, so the direction is still visible.
            round => narrow(f64::from(a) / f64::from(b), round),
        },
        m,
    )
}

/// `rcp.{rn,rz,rm,rp}.f32` (PTX ISA, "rcp").
#[inline(always)]
pub fn rcp_f32(a: f32, m: FloatMode) -> f32 {
    div_f32(1.0, a, m)
}

/// `sqrt.{rn,rz,rm,rp}.f32` (PTX ISA, "sqrt").
#[inline(always)]
pub fn sqrt_f32(a: f32, m: FloatMode) -> f32 {
    let a = input(a, m.ftz);
    finish(
        match m.round {
            Round::Rn => a.sqrt(),
            // As for division: an inexact root stays clear of every `f32`.
            round => narrow(f64::from(a).sqrt(), round),
        },
        m,
    )
}

// ---- Double precision ------------------------------------------------------------------------------------

/// `add.f64` (PTX ISA, "add").
#[inline(always)]
pub fn add_f64(a: f64, b: f64, r: Round) -> f64 {
    if r == Round::Rn || !a.is_finite() || !b.is_finite() {
        return a + b;
    }
    Exact::f64(a).plus(Exact::f64(b), r).to_f64(r)
}

/// `sub.f64` (PTX ISA, "sub").
#[inline(always)]
pub fn sub_f64(a: f64, b: f64, r: Round) -> f64 {
    add_f64(a, -b, r)
}

/// `mul.f64` (PTX ISA, "mul").
#[inline(always)]
pub fn mul_f64(a: f64, b: f64, r: Round) -> f64 {
    if r == Round::Rn || !a.is_finite() || !b.is_finite() {
        return a * b;
    }
    Exact::f64(a).times(Exact::f64(b)).to_f64(r)
}

/// `fma.f64`, and `mad.f64` (PTX ISA, "fma").
#[inline(always)]
pub fn fma_f64(a: f64, b: f64, c: f64, r: Round) -> f64 {
    if r == Round::Rn || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    Exact::f64(a).times(Exact::f64(b)).plus(Exact::f64(c), r).to_f64(r)
}

/// `div.f64` (PTX ISA, "div").
#[inline(always)]
pub fn div_f64(a: f64, b: f64, r: Round) -> f64 {
    if r == Round::Rn || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return a / b;
    }
    Exact::f64(a).over(Exact::f64(b)).to_f64(r)
}

/// `rcp.f64` (PTX ISA, "rcp").
#[inline(always)]
pub fn rcp_f64(a: f64, r: Round) -> f64 {
    div_f64(1.0, a, r)
}

/// `sqrt.f64` (PTX ISA, "sqrt").
#[inline(always)]
pub fn sqrt_f64(a: f64, r: Round) -> f64 {
    if r == Round::Rn || !a.is_finite() || a <= 0.0 {
        return a.sqrt();
    }
    Exact::f64(a).root().to_f64(r)
}

// ---- Minimum, maximum, signs, properties -----------------------------------------------------------------

/// The modifiers of `min` and `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MinMax {
    /// `.ftz`.
    pub ftz: bool,
    /// `.NaN`: a NaN operand makes the result NaN, instead of yielding the other operand.
    pub nan: bool,
    /// `.xorsign.abs`: compare magnitudes, and give the result the product of the signs.
    pub xorsign_abs: bool,
}

macro_rules! min_max {
    ($t:ty, $a:expr, $b:expr, $less:tt, $zeros:tt) => {{
        let (a, b): ($t, $t) = ($a, $b);
        if a.is_nan() || b $less a {
            b
        } else if a == b {
            // Equal numbers differ in their bits only as zeros do.
            <$t>::from_bits(a.to_bits() $zeros b.to_bits())
        } else {
            a
        }
    }};
}

/// `min.f32` (PTX ISA, "min"): the operand that is a number; `-0` is below `+0`.
#[inline(always)]
pub fn min_f32(a: f32, b: f32, m: MinMax) -> f32 {
    min_max_f32(a, b, m, |a, b| min_max!(f32, a, b, <, |))
}

/// `max.f32` (PTX ISA, "max"): the operand that is a number; `+0` is above `-0`.
#[inline(always)]
pub fn max_f32(a: f32, b: f32, m: MinMax) -> f32 {
    min_max_f32(a, b, m, |a, b| min_max!(f32, a, b, >, &))
}

#[inline(always)]
fn min_max_f32(a: f32, b: f32, m: MinMax, pick: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, b) = (input(a, m.ftz), input(b, m.ftz));
    let picked = if m.xorsign_abs {
        let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
        f32::from_bits(pick(a.abs(), b.abs()).to_bits() & 0x7fff_ffff | sign)
    } else {
        pick(a, b)
    };
    // Only if both are NaN does `pick` answer NaN: its second operand.
    if m.nan && (a.is_nan() || b.is_nan()) { NAN_F32 } else { canonical_f32(picked) }
}

/// `min.f64` (PTX ISA, "min"): the operand that is a number; `-0` is below `+0`.
#[inline(always)]
pub fn min_f64(a: f64, b: f64) -> f64 {
    quiet_f64(if b.is_nan() && !a.is_nan() { a } else { min_max!(f64, a, b, <, |) })
}

/// `max.f64` (PTX ISA, "max"): the operand that is a number; `+0` is above `-0`.
#[inline(always)]
pub fn max_f64(a: f64, b: f64) -> f64 {
    quiet_f64(if b.is_nan() && !a.is_nan() { a } else { min_max!(f64, a, b, >, &) })
}

/// `abs.f32` (PTX ISA, "abs"): NaN becomes canonical (measured).
#[inline(always)]
pub fn abs_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(input(a, ftz).abs())
}

/// `neg.f32` (PTX ISA, "neg"): NaN becomes canonical (measured).
#[inline(always)]
pub fn neg_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(-input(a, ftz))
}

/// A NaN made quiet; any other number as it is.
#[inline(always)]
pub fn quiet_f64(a: f64) -> f64 {
    let quiet = if a.is_nan() { 1 << 51 } else { 0 };
    f64::from_bits(a.to_bits() | quiet)
}

/// `abs.f64` (PTX ISA, "abs"): NaN keeps its sign (measured).
#[inline(always)]
pub fn abs_f64(a: f64) -> f64 {
    if a.is_nan() { quiet_f64(a) } else { a.abs() }
}

/// `neg.f64` (PTX ISA, "neg"): NaN keeps its sign (measured).
#[inline(always)]
pub fn neg_f64(a: f64) -> f64 {
    if a.is_nan() { quiet_f64(a) } else { -a }
}

/// `copysign.f32` (PTX ISA, "copysign"): the sign of `a` with the magnitude of `b`.
#[inline(always)]
pub fn copysign_f32(a: f32, b: f32) -> f32 {
    b.copysign(a)
}

/// `copysign.f64` (PTX ISA, "copysign"): the sign of `a` with the magnitude of `b`.
#[inline(always)]
pub fn copysign_f64(a: f64, b: f64) -> f64 {
    b.copysign(a)
}

/// The property that `testp` asks for (PTX ISA, "testp").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Testp {
    /// `.finite`: neither infinity nor NaN.
    Finite,
    /// `.infinite`.
    Infinite,
    /// `.number`: not NaN.
    Number,
    /// `.notanumber`.
    NotANumber,
    /// `.normal`: neither NaN, infinity nor subnormal; zero is normal.
    Normal,
    /// `.subnormal`: neither NaN, infinity, normal nor zero.
    Subnormal,
}

/// `testp.f32` (PTX ISA, "testp").
#[inline(always)]
pub fn testp_f32(p: Testp, a: f32) -> bool {
    match p {
        Testp::Finite => a.is_finite(),
        Testp::Infinite => a.is_infinite(),
        Testp::Number => !a.is_nan(),
        Testp::NotANumber => a.is_nan(),
        Testp::Normal => a.is_normal() || a == 0.0,
        Testp::Subnormal => a.is_subnormal(),
    }
}

/// `testp.f64` (PTX ISA, "testp").
#[inline(always)]
pub fn testp_f64(p: Testp, a: f64) -> bool {
    match p {
        Testp::Finite => a.is_finite(),
        Testp::Infinite => a.is_infinite(),
        Testp::Number => !a.is_nan(),
        Testp::NotANumber => a.is_nan(),
        Testp::Normal => a.is_normal() || a == 0.0,
        Testp::Subnormal => a.is_subnormal(),
    }
}

#[cfg(test)]
mod tests;
