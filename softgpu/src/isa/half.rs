//! Half-precision arithmetic, `.f16` and `.bf16` (PTX ISA, "Half Precision Floating Point Instructions"), and the
//! formats below it: `.tf32`, `.e4m3`, `.e5m2` (PTX ISA, "Alternate Floating-Point Data Formats").
//!
//! Pure. Numbers are bit patterns (`u16`; packed pairs `u32`, the first element in the low half). Every result
//! is rounded once. NaN results are the canonical `0x7fff`.

#![expect(
    clippy::cast_possible_truncation,
    reason = "fields of bit patterns; what is cut off has been rounded or masked away"
)]

use super::exact::{Exact, Format};
use super::float::{self, MinMax, add_odd, narrow_odd};
use super::{FloatMode, Round, approx};

/// A 16-bit floating-point format: [`F16`] or [`Bf16`].
pub trait Half: Copy + Send + Sync + 'static {
    /// The bits of infinity.
    const INFINITY: u16;
    /// The bits of the greatest finite number.
    const MAX: u16;
    /// The bits of one.
    const ONE: u16;
    /// The exact value; NaN stays NaN.
    fn to_f32(bits: u16) -> f32;
    /// The nearest number, ties to even.
    fn nearest(a: f32) -> u16;
    /// The nearest number in the sense of a rounding other than `.rn`; `a` is finite.
    fn directed(a: f32, round: Round) -> u16;

    /// The nearest number in the sense of `round` (PTX ISA, "cvt").
    #[inline(always)]
    fn from_f32(a: f32, round: Round) -> u16 {
        if round == Round::Rn || !a.is_finite() { Self::nearest(a) } else { Self::directed(a, round) }
    }

    /// The nearest number in the sense of `round` to a double-precision one, rounded once.
    #[inline(always)]
    fn from_f64(a: f64, round: Round) -> u16 {
        Self::from_f32(narrow_odd(a), round)
    }
}

/// The canonical NaN of both formats.
pub const NAN: u16 = 0x7fff;
const SIGN: u16 = 0x8000;

/// IEEE 754 binary16.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// The upper half of a binary32.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

impl Half for F16 {
    const INFINITY: u16 = 0x7c00;
    const MAX: u16 = 0x7bff;
    const ONE: u16 = 0x3c00;

    #[inline(always)]
    fn to_f32(bits: u16) -> f32 {
        const REBIAS: u32 = 112 << 23;
        const SMALLEST: f32 = f32::from_bits(113 << 23); // 2^-14, the smallest normal number
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let exponent = bits & Self::INFINITY;
        // A subnormal number is put in front of 2^-14, which is then taken away: exact, and, unlike a scaling
        // multiplication, without a subnormal operand, on which a processor is slow.
        let subnormal = (f32::from_bits(magnitude + (113 << 23)) - SMALLEST).to_bits();
        let special = if exponent == Self::INFINITY { 0x7f80_0000 } else { 0 };
        let normal = (magnitude + REBIAS) | special;
        let sign = u32::from(bits & SIGN) << 16;
        f32::from_bits(sign | if exponent == 0 { subnormal } else { normal })
    }

    #[inline(always)]
    fn nearest(a: f32) -> u16 {
        let magnitude = a.to_bits() & 0x7fff_ffff;
        let sign = (a.to_bits() >> 16) as u16 & SIGN;
        // Below 2^-14 adding one half places the result's last bit at the sum's, and the processor rounds.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let rebiased = magnitude.wrapping_sub(112 << 23);
        let normal = rebiased.wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
        if magnitude > 0x7f80_0000 {
            NAN
        } else if magnitude >= 0x4780_0000 {
            sign | Self::INFINITY
        } else if magnitude < 0x3880_0000 {
            sign | subnormal as u16
        } else {
            sign | normal as u16
        }
    }

    fn directed(a: f32, round: Round) -> u16 {
        Exact::decode(u64::from(a.to_bits()), Format::F32).round(Format::F16, round) as u16
    }
}

impl Half for Bf16 {
    const INFINITY: u16 = 0x7f80;
    const MAX: u16 = 0x7f7f;
    const ONE: u16 = 0x3f80;

    #[inline(always)]
    fn to_f32(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn nearest(a: f32) -> u16 {
        let bits = a.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        if a.is_nan() { NAN } else { rounded }
    }

    fn directed(a: f32, round: Round) -> u16 {
        Exact::decode(u64::from(a.to_bits()), Format::F32).round(Format::BF16, round) as u16
    }
}

/// `.ftz`: a subnormal number becomes zero of its sign.
#[inline(always)]
pub fn ftz<H: Half>(a: u16) -> u16 {
    if a & H::INFINITY == 0 { a & SIGN } else { a }
}

/// Whether `a` is a NaN.
#[inline(always)]
pub fn is_nan<H: Half>(a: u16) -> bool {
    a & !SIGN > H::INFINITY
}

/// `.relu`: what is below zero becomes `+0`; NaN becomes the canonical NaN.
#[inline(always)]
pub fn relu<H: Half>(a: u16) -> u16 {
    if is_nan::<H>(a) {
        NAN
    } else if a & SIGN != 0 {
        0
    } else {
        a
    }
}

/// `.sat`: clamps to `[0, 1]`; NaN becomes `+0`.
#[inline(always)]
pub fn sat<H: Half>(a: u16) -> u16 {
    // Among positive numbers the bits are in the order of the values.
    if is_nan::<H>(a) || a & SIGN != 0 { 0 } else { a.min(H::ONE) }
}

#[inline(always)]
fn input<H: Half>(a: u16, m: FloatMode) -> f32 {
    H::to_f32(if m.ftz { ftz::<H>(a) } else { a })
}

#[inline(always)]
fn finish<H: Half>(a: u16, m: FloatMode) -> u16 {
    let a = if m.ftz { ftz::<H>(a) } else { a };
    if m.sat { sat::<H>(a) } else { a }
}

/// `add.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: add").
#[inline(always)]
pub fn add<H: Half>(a: u16, b: u16, m: FloatMode) -> u16 {
    let (a, b) = (input::<H>(a, m), input::<H>(b, m));
    finish::<H>(
        match m.round {
            // Twice the precision and two bits: for a sum, rounding by way of `f32` is as good as once.
            Round::Rn => H::nearest(a + b),
            round => H::from_f64(directed_sum(f64::from(a), f64::from(b), round), round),
        },
        m,
    )
}

/// `sub.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: sub").
#[inline(always)]
pub fn sub<H: Half>(a: u16, b: u16, m: FloatMode) -> u16 {
    add::<H>(a, b ^ SIGN, m)
}

/// `mul.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: mul").
#[inline(always)]
pub fn mul<H: Half>(a: u16, b: u16, m: FloatMode) -> u16 {
    let product = f64::from(input::<H>(a, m)) * f64::from(input::<H>(b, m));
    finish::<H>(H::from_f64(product, m.round), m)
}

/// `fma.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: fma"); `clamp` is `.relu`.
#[inline(always)]
pub fn fma<H: Half>(a: u16, b: u16, c: u16, m: FloatMode, clamp: bool) -> u16 {
    // The product is exact; the sum is rounded to odd twice on its way, which the last rounding does not see.
    let product = f64::from(input::<H>(a, m)) * f64::from(input::<H>(b, m));
    let sum = directed_sum(product, f64::from(input::<H>(c, m)), m.round);
    let result = finish::<H>(H::from_f64(sum, m.round), m);
    if clamp { relu::<H>(result) } else { result }
}

/// The sum rounded to odd, and `-0` for an exact zero out of opposite signs under `.rm`.
#[inline(always)]
fn directed_sum(a: f64, b: f64, round: Round) -> f64 {
    let sum = add_odd(a, b);
    if round == Round::Rm && sum == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) {
        -0.0
    } else {
        sum
    }
}

/// `min.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: min").
#[inline(always)]
pub fn min<H: Half>(a: u16, b: u16, m: MinMax) -> u16 {
    pick::<H>(a, b, m, float::min_f32)
}

/// `max.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: max").
#[inline(always)]
pub fn max<H: Half>(a: u16, b: u16, m: MinMax) -> u16 {
    pick::<H>(a, b, m, float::max_f32)
}

#[inline(always)]
fn pick<H: Half>(a: u16, b: u16, m: MinMax, choose: impl Fn(f32, f32, MinMax) -> f32) -> u16 {
    let (a, b) = if m.ftz { (ftz::<H>(a), ftz::<H>(b)) } else { (a, b) };
    // The result is one of the operands, so conversion is exact; `.ftz` is done, and means `f32`'s there.
    H::nearest(choose(H::to_f32(a), H::to_f32(b), MinMax { ftz: false, ..m }))
}

/// A NaN made canonical (measured for `neg` and `abs`).
#[inline(always)]
fn canonical<H: Half>(a: u16) -> u16 {
    if is_nan::<H>(a) { NAN } else { a }
}

/// `neg.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: neg").
#[inline(always)]
pub fn neg<H: Half>(a: u16, flush: bool) -> u16 {
    canonical::<H>((if flush { ftz::<H>(a) } else { a }) ^ SIGN)
}

/// `abs.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: abs").
#[inline(always)]
pub fn abs<H: Half>(a: u16, flush: bool) -> u16 {
    canonical::<H>((if flush { ftz::<H>(a) } else { a }) & !SIGN)
}

/// `ex2.approx.{f16,ftz.bf16}` (PTX ISA, "Half Precision Floating Point Instructions: ex2").
#[inline(always)]
pub fn ex2_approx<H: Half>(a: u16, flush: bool) -> u16 {
    let m = FloatMode { ftz: flush, ..FloatMode::RN };
    finish::<H>(H::nearest(approx::ex2_approx_f32(input::<H>(a, m), false)), m)
}

/// `tanh.approx.{f16,bf16}` (PTX ISA, "Half Precision Floating Point Instructions: tanh").
#[inline(always)]
pub fn tanh_approx<H: Half>(a: u16) -> u16 {
    H::nearest(approx::tanh_approx_f32(H::to_f32(a)))
}

// ---- Packed pairs ----------------------------------------------------------------------------------------

/// The two elements of a packed pair, the low one first.
#[inline(always)]
pub fn unpack(a: u32) -> [u16; 2] {
    [a as u16, (a >> 16) as u16]
}

/// A packed pair.
#[inline(always)]
pub fn pack(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// Applies `f` to the elements of a packed pair.
#[inline(always)]
pub fn x2_1(a: u32, f: impl Fn(u16) -> u16) -> u32 {
    x2_3(a, 0, 0, |a, _, _| f(a))
}

/// Applies `f` to the elements of two packed pairs.
#[inline(always)]
pub fn x2_2(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    x2_3(a, b, 0, |a, b, _| f(a, b))
}

/// Applies `f` to the elements of three packed pairs.
#[inline(always)]
pub fn x2_3(a: u32, b: u32, c: u32, f: impl Fn(u16, u16, u16) -> u16) -> u32 {
    // One call of `f`, not two, so that it is inlined however long it is.
    [0, 16].into_iter().fold(0, |pair, shift| {
        pair | u32::from(f((a >> shift) as u16, (b >> shift) as u16, (c >> shift) as u16)) << shift
    })
}

// ---- tf32 and the 8-bit formats --------------------------------------------------------------------------

/// `cvt.{rn,rz,rna}.tf32.f32` (PTX ISA, "cvt"): an `f32` whose low 13 bits are zero. `clamp` is `.relu`,
/// `satfinite` keeps what overflows finite.
#[inline]
pub fn f32_to_tf32(a: f32, round: Round, clamp: bool, satfinite: bool) -> u32 {
    if a.is_nan() {
        // Measured: rounding away from zero keeps the NaN, the other two make it canonical.
        return if round == Round::Rna { a.to_bits() & 0xffff_e000 } else { 0x7fff_e000 };
    }
    if clamp && a.is_sign_negative() {
        return 0;
    }
    let bits = if a.is_infinite() {
        a.to_bits()
    } else {
        (Exact::decode(u64::from(a.to_bits()), Format::F32).round(Format::TF32, round) as u32) << 13
    };
    const INFINITY: u32 = 0x7f80_0000;
    if satfinite && bits & INFINITY == INFINITY { bits - (1 << 13) } else { bits }
}

/// The nearest number of an 8-bit format; what overflows, infinities included, becomes the greatest finite number
/// (`.satfinite` is mandatory for these formats).
#[inline]
fn to_fp8(a: f32, f: Format, clamp: bool) -> u8 {
    if a.is_nan() {
        return 0x7f;
    }
    if clamp && a.is_sign_negative() {
        return 0;
    }
    let sign = if a.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = if a.is_infinite() {
        f.max
    } else {
        Exact::decode(u64::from(a.abs().to_bits()), Format::F32).round(f, Round::Rn).min(f.max)
    };
    sign | magnitude as u8
}

/// `cvt.rn.satfinite.e4m3x2.f32`, one element (PTX ISA, "cvt"); `clamp` is `.relu`.
#[inline]
pub fn f32_to_e4m3(a: f32, clamp: bool) -> u8 {
    to_fp8(a, Format::E4M3, clamp)
}

/// `cvt.rn.satfinite.e5m2x2.f32`, one element (PTX ISA, "cvt"); `clamp` is `.relu`.
#[inline]
pub fn f32_to_e5m2(a: f32, clamp: bool) -> u8 {
    to_fp8(a, Format::E5M2, clamp)
}

/// The exact value of an `.e4m3`.
#[inline]
pub fn e4m3_to_f32(a: u8) -> f32 {
    if a & 0x7f == 0x7f {
        return float::NAN_F32;
    }
    Exact::decode(u64::from(a), Format::E4M3).to_f32(Round::Rn)
}

/// The exact value of an `.e5m2`, which is the upper half of an `.f16`.
#[inline]
pub fn e5m2_to_f32(a: u8) -> f32 {
    float::canonical_f32(F16::to_f32(u16::from(a) << 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bits of the nearest number by the exact rounding; NaN is canonical.
    fn reference(a: f64, f: Format, round: Round) -> u16 {
        let (infinity, sign) = (f.overflow as u16, if a.is_sign_negative() { SIGN } else { 0 });
        if a.is_nan() {
            NAN
        } else if a.is_infinite() {
            sign | infinity
        } else {
            Exact::f64(a).round(f, round) as u16
        }
    }

    #[test]
    fn every_half_survives_the_way_to_single_precision_and_back() {
        for bits in 0..=u16::MAX {
            for r in [Round::Rn, Round::Rz, Round::Rm, Round::Rp] {
                let f16 = if is_nan::<F16>(bits) { NAN } else { bits };
                assert_eq!(F16::from_f32(F16::to_f32(bits), r), f16, "{bits:#x}");
                let bf16 = if is_nan::<Bf16>(bits) { NAN } else { bits };
                assert_eq!(Bf16::from_f32(Bf16::to_f32(bits), r), bf16, "{bits:#x}");
            }
            if !is_nan::<F16>(bits) && bits & F16::INFINITY != F16::INFINITY {
                let exact = Exact::decode(u64::from(bits), Format::F16).to_f32(Round::Rn);
                assert_eq!(F16::to_f32(bits).to_bits(), exact.to_bits());
            }
        }
    }

    #[test]
    fn nearest_agrees_with_the_exact_rounding() {
        // Every exponent, and the fractions around the ties of both formats.
        for high in 0..=0xffffu32 {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001]
            {
                let a = f32::from_bits(high << 16 | low);
                assert_eq!(F16::nearest(a), reference(f64::from(a), Format::F16, Round::Rn), "{a:e}");
                assert_eq!(Bf16::nearest(a), reference(f64::from(a), Format::BF16, Round::Rn), "{a:e}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn arithmetic_rounds_once(a: u16, b: u16, c: u16) {
            // The exact sum of a product and a number, through 128-bit integers.
            fn check<H: Half>(a: u16, b: u16, c: u16, f: Format) -> Result<(), TestCaseError> {
                let (x, y, z) = (H::to_f32(a), H::to_f32(b), H::to_f32(c));
                if !(x.is_finite() && y.is_finite() && z.is_finite()) {
                    return Ok(());
                }
                let [x, y, z] = [x, y, z].map(|v| Exact::f64(f64::from(v)));
                for r in [Round::Rn, Round::Rz, Round::Rm, Round::Rp] {
                    let m = FloatMode { round: r, ..FloatMode::RN };
                    prop_assert_eq!(fma::<H>(a, b, c, m, false), x.times(y).plus(z, r).round(f, r) as u16);
                    prop_assert_eq!(mul::<H>(a, b, m), x.times(y).round(f, r) as u16);
                    prop_assert_eq!(add::<H>(a, b, m), x.plus(y, r).round(f, r) as u16);
                    prop_assert_eq!(sub::<H>(a, b, m), x.plus(y.negate(), r).round(f, r) as u16);
                }
                Ok(())
            }
            check::<F16>(a, b, c, Format::F16)?;
            check::<Bf16>(a, b, c, Format::BF16)?;
        }

        #[test]
        fn from_double_rounds_once(a: f64) {
            for r in [Round::Rn, Round::Rz, Round::Rm, Round::Rp] {
                prop_assert_eq!(F16::from_f64(a, r), reference(a, Format::F16, r));
                prop_assert_eq!(Bf16::from_f64(a, r), reference(a, Format::BF16, r));
            }
        }
    }

    #[test]
    fn a_fused_result_differs_from_two_roundings() {
        // (1 + 2^-10)^2 - (1 + 2^-9) is 2^-20, which a rounded product loses.
        let m = FloatMode::RN;
        assert_eq!(fma::<F16>(0x3c01, 0x3c01, 0xbc02, m, false), F16::nearest(2f32.powi(-20)));
        assert_eq!(add::<F16>(mul::<F16>(0x3c01, 0x3c01, m), 0xbc02, m), 0);
    }

    #[test]
    fn special_values() {
        let m = FloatMode::RN;
        assert_eq!(add::<F16>(0x7c00, 0xfc00, m), NAN);
        assert_eq!(mul::<Bf16>(0x7f80, 0, m), NAN);
        assert_eq!(add::<F16>(0x7bff, 0x7bff, m), 0x7c00);
        assert_eq!(fma::<F16>(0xbc00, 0x3c00, 0, m, true), 0);
        assert_eq!(fma::<F16>(NAN, 0x3c00, 0, m, true), NAN);
        assert_eq!(add::<F16>(0x3c00, 0x3c00, FloatMode { sat: true, ..m }), 0x3c00);
        assert_eq!(add::<F16>(0xfe00, 0, FloatMode { sat: true, ..m }), 0);
        assert_eq!(add::<F16>(0x0001, 0x0001, FloatMode::RN_FTZ), 0);
        assert_eq!(min::<F16>(0x7e00, 0x3c00, MinMax::default()), 0x3c00);
        assert_eq!(min::<F16>(0x7e00, 0x3c00, MinMax { nan: true, ..MinMax::default() }), NAN);
        assert_eq!(min::<F16>(0, 0x8000, MinMax::default()), 0x8000);
        assert_eq!(max::<Bf16>(0x8000, 0, MinMax::default()), 0);
        assert_eq!(max::<F16>(0xc000, 0x3c00, MinMax { xorsign_abs: true, ..MinMax::default() }), 0xc000);
        assert_eq!(neg::<F16>(0x3c00, false), 0xbc00);
        assert_eq!(abs::<F16>(0x8001, true), 0);
        assert_eq!(ex2_approx::<F16>(0x4200, false), 0x4800); // 2^3 = 8
        assert_eq!(tanh_approx::<Bf16>(0xff80), 0xbf80);
    }

    #[test]
    fn packed_forms_keep_the_elements_apart() {
        let m = FloatMode::RN;
        let sum = x2_2(pack(0x3c00, 0x4000), pack(0x3c00, 0xc000), |a, b| add::<F16>(a, b, m));
        assert_eq!(unpack(sum), [0x4000, 0]);
        assert_eq!(x2_1(pack(1, 0x8002), |a| neg::<F16>(a, false)), pack(0x8001, 2));
        let fused = x2_3(pack(0x3c00, 0), pack(0x4000, 0), pack(0x3c00, 0x3c00), |a, b, c| {
            fma::<F16>(a, b, c, m, false)
        });
        assert_eq!(unpack(fused), [0x4200, 0x3c00]);
    }

    #[test]
    fn tf32_keeps_ten_fraction_bits() {
        assert_eq!(f32_to_tf32(1.0, Round::Rna, false, false), 1f32.to_bits());
        // Half a unit above one: to even stays, away from zero goes up.
        let tie = f32::from_bits(0x3f80_1000);
        assert_eq!(f32_to_tf32(tie, Round::Rn, false, false), 0x3f80_0000);
        assert_eq!(f32_to_tf32(tie, Round::Rna, false, false), 0x3f80_2000);
        assert_eq!(f32_to_tf32(tie, Round::Rz, false, false), 0x3f80_0000);
        assert_eq!(f32_to_tf32(f32::MAX, Round::Rna, false, false), 0x7f80_0000);
        assert_eq!(f32_to_tf32(-f32::MAX, Round::Rna, false, true), 0xff7f_e000);
        assert_eq!(f32_to_tf32(-1.0, Round::Rn, true, false), 0);
        assert_eq!(f32_to_tf32(f32::NAN, Round::Rn, false, false), 0x7fff_e000);
    }

    #[test]
    fn eight_bit_formats() {
        assert_eq!(e4m3_to_f32(0x38), 1.0);
        assert_eq!(e4m3_to_f32(0x7e), 448.0);
        assert_eq!(e4m3_to_f32(0x81), -2f32.powi(-9));
        assert!(e4m3_to_f32(0xff).is_nan());
        assert_eq!(e5m2_to_f32(0x7b), 57344.0);
        assert_eq!(e5m2_to_f32(0x3c), 1.0);
        assert_eq!(e5m2_to_f32(0xfc), f32::NEG_INFINITY);
        for bits in 0..=u8::MAX {
            let (x, y) = (e4m3_to_f32(bits), e5m2_to_f32(bits));
            assert_eq!(f32_to_e4m3(x, false), if x.is_nan() { 0x7f } else { bits });
            let saturated = if y.is_infinite() { bits - 1 } else { bits };
            assert_eq!(f32_to_e5m2(y, false), if y.is_nan() { 0x7f } else { saturated });
        }
        assert_eq!(f32_to_e4m3(1e9, false), 0x7e);
        assert_eq!(f32_to_e4m3(-464.1, false), 0xfe);
        assert_eq!(f32_to_e5m2(f32::NEG_INFINITY, true), 0);
    }
}
