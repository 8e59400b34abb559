//! The approximate floating-point instructions (PTX ISA, "Floating Point Instructions": `.approx` and `.full`).
//!
//! Pure. Results are more accurate than PTX asks, so they are not the device's bits; special values, the
//! treatment of subnormals and the stated error bounds are PTX's. A NaN result is the canonical one.

#![expect(clippy::cast_possible_truncation, reason = "results are computed in double precision and narrowed")]

use super::float::{NAN_F32, canonical_f32, ftz_f32};

/// The input, or a result, under `.ftz`.
#[inline(always)]
fn flush(a: f32, ftz: bool) -> f32 {
    if ftz { ftz_f32(a) } else { a }
}

/// A result: narrowed, flushed, canonical.
#[inline(always)]
fn finish(a: f64, ftz: bool) -> f32 {
    canonical_f32(flush(a as f32, ftz))
}

/// `div.approx.f32` (PTX ISA, "div"): `a · (1 / b)`, so that a divisor above 2^126 gives zero, or NaN for an
/// infinite dividend.
#[inline(always)]
pub fn div_approx_f32(a: f32, b: f32, ftz: bool) -> f32 {
    const LARGE: f32 = f32::from_bits(0x7e80_0000); // 2^126
    let (a, b) = (flush(a, ftz), flush(b, ftz));
    let reciprocal = if b.abs() > LARGE { 0f64.copysign(f64::from(b)) } else { 1.0 / f64::from(b) };
    let quotient = f64::from(a) / f64::from(b);
    finish(if b.abs() > LARGE { f64::from(a) * reciprocal } else { quotient }, ftz)
}

/// `div.full.f32` (PTX ISA, "div").
#[inline(always)]
pub fn div_full_f32(a: f32, b: f32, ftz: bool) -> f32 {
    canonical_f32(flush(flush(a, ftz) / flush(b, ftz), ftz))
}

/// `rcp.approx.f32` (PTX ISA, "rcp").
#[inline(always)]
pub fn rcp_approx_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(flush(1.0 / flush(a, ftz), ftz))
}

/// `sqrt.approx.f32` (PTX ISA, "sqrt"): `-0` for `-0`, NaN for what is below.
#[inline(always)]
pub fn sqrt_approx_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(flush(a, ftz).sqrt())
}

/// `rsqrt.approx.f32` (PTX ISA, "rsqrt"): infinity of the same sign for a zero.
#[inline(always)]
pub fn rsqrt_approx_f32(a: f32, ftz: bool) -> f32 {
    finish(1.0 / f64::from(flush(a, ftz)).sqrt(), ftz)
}

/// `sin.approx.f32` (PTX ISA, "sin").
#[inline(always)]
pub fn sin_approx_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(flush(flush(a, ftz).sin(), ftz))
}

/// `cos.approx.f32` (PTX ISA, "cos").
#[inline(always)]
pub fn cos_approx_f32(a: f32, ftz: bool) -> f32 {
    canonical_f32(flush(flush(a, ftz).cos(), ftz))
}

/// `tanh.approx.f32` (PTX ISA, "tanh").
#[inline(always)]
pub fn tanh_approx_f32(a: f32) -> f32 {
    canonical_f32(a.tanh())
}

/// `ex2.approx.f32` (PTX ISA, "ex2"): 2 to the power of `a`; exact for integers.
#[inline(always)]
pub fn ex2_approx_f32(a: f32, ftz: bool) -> f32 {
    // Taylor's coefficients ln(2)^k / k!, for an argument of at most one half: the rest is below 2^-32.
    const C: [f64; 9] = [
        1.0,
        std::f64::consts::LN_2,
        0.240_226_506_959_100_7,
        0.055_504_108_664_821_58,
        0.009_618_129_107_628_477,
        0.001_333_355_814_642_844_3,
        0.000_154_035_303_933_816_1,
        1.525_273_380_405_984e-5,
        1.321_548_679_014_431e-6,
    ];
    const TO_INTEGER: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52: adding it rounds to an integer
    let x = f64::from(flush(a, ftz));
    // Beyond ±200 every result is zero or infinite; NaN is put back at the end.
    let x = if x > -200.0 { x } else { -200.0 };
    let x = if x < 200.0 { x } else { 200.0 };
    let shifted = x + TO_INTEGER;
    let whole = shifted - TO_INTEGER;
    let f = x - whole;
    let power = C.iter().rev().fold(0.0, |sum, c| sum * f + c);
    // The integer stands in the low bits of `shifted`; moved into the exponent field it scales by 2^whole.
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let result = flush((power * scale) as f32, ftz);
    if a.is_nan() { NAN_F32 } else { result }
}

/// `lg2.approx.f32` (PTX ISA, "lg2"): negative infinity for a zero, NaN for what is below; exact for powers of
/// two.
#[inline(always)]
pub fn lg2_approx_f32(a: f32, ftz: bool) -> f32 {
    let x = flush(a, ftz);
    // Every positive single-precision number is normal in double precision.
    let bits = f64::from(x).to_bits();
    // Counted from sqrt(1/2), so that the fraction lies within [sqrt(1/2), sqrt(2)).
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let exponent = (bits.wrapping_sub(SQRT_HALF) >> 52) as u32 & 0xfff;
    // Sign-extended from 12 bits.
    let exponent = f64::from((exponent << 20).cast_signed() >> 20);
    let fraction = f64::from_bits(bits.wrapping_sub(bits.wrapping_sub(SQRT_HALF) >> 52 << 52));
    // log2(m) = 2/ln(2) · artanh((m - 1)/(m + 1)); the argument is below 0.172.
    let s = (fraction - 1.0) / (fraction + 1.0);
    let s2 = s * s;
    const D: [f64; 7] = [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0];
    let series = D.iter().rev().fold(0.0, |sum, d| sum * s2 + d);
    let result = (exponent + 2.0 * std::f64::consts::LOG2_E * s * series) as f32;
    if x > 0.0 && x < f32::INFINITY {
        flush(result, ftz)
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else if x > 0.0 {
        f32::INFINITY
    } else {
        NAN_F32
    }
}

/// A double with its low word cleared: what the two gross approximations read and write.
#[inline(always)]
fn high_word(a: f64) -> f64 {
    f64::from_bits(a.to_bits() & 0xffff_ffff_0000_0000)
}

/// `.ftz` in double precision.
#[inline(always)]
fn ftz_f64(a: f64) -> f64 {
    if a.is_subnormal() { 0f64.copysign(a) } else { a }
}

/// `rcp.approx.ftz.f64` (PTX ISA, "rcp.approx.ftz.f64"): from the upper word of `a`, a result whose lower word is
/// zero; NaN is `0x7fffffff00000000`.
#[inline(always)]
pub fn rcp_approx_ftz_f64(a: f64) -> f64 {
    gross(1.0 / ftz_f64(high_word(a)))
}

/// `rsqrt.approx.f64` (PTX ISA, "rsqrt"); with `ftz`, "rsqrt.approx.ftz.f64": from the upper word of `a`, a result
/// whose lower word is zero.
#[inline(always)]
pub fn rsqrt_approx_f64(a: f64, ftz: bool) -> f64 {
    if ftz { gross(1.0 / ftz_f64(high_word(a)).sqrt()) } else { 1.0 / a.sqrt() }
}

/// The result of a gross approximation.
#[inline(always)]
fn gross(a: f64) -> f64 {
    if a.is_nan() { f64::from_bits(0x7fff_ffff_0000_0000) } else { ftz_f64(high_word(a)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples over all exponents and both signs, plus the special values.
    fn samples() -> impl Iterator<Item = f32> {
        let step = 9973usize;
        (0..=u32::MAX).step_by(step).map(f32::from_bits)
    }

    /// Relative error in units of 2^-23, for results in the normal range.
    fn relative(got: f32, want: f64) -> f64 {
        if want == 0.0 {
            f64::from(got).abs()
        } else {
            ((f64::from(got) - want) / want).abs() * 2f64.powi(23)
        }
    }

    #[test]
    fn ex2_is_within_two_ulp_of_the_library() {
        for x in samples().filter(|x| x.abs() < 126.0) {
            let want = f64::from(x).exp2();
            assert!(relative(ex2_approx_f32(x, false), want) < 2.0, "{x:e}");
        }
        for n in -149i32..128 {
            assert_eq!(ex2_approx_f32(n as f32, false), 2f64.powi(n) as f32, "{n}");
        }
        assert_eq!(ex2_approx_f32(-149.0, true).to_bits(), 0);
        assert_eq!(ex2_approx_f32(f32::NEG_INFINITY, false).to_bits(), 0);
        assert_eq!(ex2_approx_f32(f32::INFINITY, false), f32::INFINITY);
        assert_eq!(ex2_approx_f32(128.0, false), f32::INFINITY);
        assert_eq!(ex2_approx_f32(-f32::from_bits(5), true), 1.0);
        assert_eq!(ex2_approx_f32(-f32::NAN, false).to_bits(), 0x7fff_ffff);
    }

    #[test]
    fn lg2_is_within_the_stated_error() {
        for x in samples().filter(|x| *x > 0.0 && x.is_finite()) {
            let want = f64::from(x).log2();
            let error = (f64::from(lg2_approx_f32(x, false)) - want).abs();
            assert!(error <= 2f64.powi(-22) * want.abs().max(1.0), "{x:e}");
        }
        for n in -149i32..128 {
            assert_eq!(lg2_approx_f32(2f64.powi(n) as f32, false), n as f32);
        }
        assert_eq!(lg2_approx_f32(1.0, false).to_bits(), 0);
        assert_eq!(lg2_approx_f32(-0.0, false), f32::NEG_INFINITY);
        assert_eq!(lg2_approx_f32(f32::from_bits(7), true), f32::NEG_INFINITY);
        assert_eq!(lg2_approx_f32(f32::INFINITY, false), f32::INFINITY);
        assert_eq!(lg2_approx_f32(-1.0, false).to_bits(), 0x7fff_ffff);
        assert_eq!(lg2_approx_f32(f32::NEG_INFINITY, false).to_bits(), 0x7fff_ffff);
        assert_eq!(lg2_approx_f32(f32::NAN, false).to_bits(), 0x7fff_ffff);
    }

    #[test]
    fn roots_and_reciprocals_are_within_one_ulp() {
        for x in samples().filter(|x| x.is_normal() && x.abs() < 1e38) {
            let wide = f64::from(x);
            assert!(relative(rcp_approx_f32(x, false), 1.0 / wide) <= 1.0, "{x:e}");
            if x > 0.0 {
                assert!(relative(sqrt_approx_f32(x, false), wide.sqrt()) <= 1.0, "{x:e}");
                assert!(relative(rsqrt_approx_f32(x, false), 1.0 / wide.sqrt()) <= 1.0, "{x:e}");
            }
            assert!(relative(tanh_approx_f32(x), wide.tanh()) < 4096.0, "{x:e}");
        }
        assert_eq!(rcp_approx_f32(-0.0, false), f32::NEG_INFINITY);
        assert_eq!(rcp_approx_f32(f32::from_bits(1), true), f32::INFINITY);
        assert_eq!(rcp_approx_f32(f32::MAX, true).to_bits(), 0);
        assert!(rcp_approx_f32(f32::MAX, false) > 0.0);
        assert_eq!(sqrt_approx_f32(-0.0, false).to_bits(), 0x8000_0000);
        assert_eq!(sqrt_approx_f32(-1.0, false).to_bits(), 0x7fff_ffff);
        assert_eq!(rsqrt_approx_f32(-0.0, false), f32::NEG_INFINITY);
        assert_eq!(rsqrt_approx_f32(f32::INFINITY, false).to_bits(), 0);
        assert_eq!(rsqrt_approx_f32(-4.0, false).to_bits(), 0x7fff_ffff);
        assert_eq!(tanh_approx_f32(f32::NEG_INFINITY), -1.0);
    }

    #[test]
    fn sine_and_cosine_are_within_the_stated_error() {
        let bound = 2f64.powf(-20.5);
        for i in -100_000i32..=100_000 {
            let x = i as f32 * 1e-4;
            assert!((f64::from(sin_approx_f32(x, false)) - f64::from(x).sin()).abs() < bound);
            assert!((f64::from(cos_approx_f32(x, true)) - f64::from(x).cos()).abs() < bound);
        }
        assert_eq!(sin_approx_f32(-0.0, false).to_bits(), 0x8000_0000);
        assert_eq!(sin_approx_f32(-f32::from_bits(9), true).to_bits(), 0x8000_0000);
        assert_eq!(cos_approx_f32(-f32::from_bits(9), false), 1.0);
        assert_eq!(sin_approx_f32(f32::INFINITY, false).to_bits(), 0x7fff_ffff);
        assert_eq!(cos_approx_f32(f32::NEG_INFINITY, false).to_bits(), 0x7fff_ffff);
    }

    #[test]
    fn division_by_a_large_number_follows_the_reciprocal() {
        let large = 2f32.powi(127);
        assert_eq!(div_approx_f32(f32::MAX, large, false).to_bits(), 0);
        assert_eq!(div_approx_f32(f32::MAX, -large, false).to_bits(), 0x8000_0000);
        assert_eq!(div_approx_f32(f32::INFINITY, large, false).to_bits(), 0x7fff_ffff);
        assert!((div_full_f32(f32::MAX, large, false) - 2.0).abs() < 1e-6);
        assert_eq!(div_approx_f32(3.0, 2f32.powi(126), false), 3.0 * 2f32.powi(-126));
        assert_eq!(div_approx_f32(1.0, 0.0, false), f32::INFINITY);
        assert_eq!(div_approx_f32(0.0, 0.0, false).to_bits(), 0x7fff_ffff);
        assert_eq!(div_full_f32(1.0, f32::from_bits(1), true), f32::INFINITY);
    }

    #[test]
    fn gross_approximations_have_an_empty_low_word() {
        for x in [1.0, 3.0, -7.5, 1e300, 1e-300, std::f64::consts::PI] {
            let r = rcp_approx_ftz_f64(x);
            assert_eq!(r.to_bits() & 0xffff_ffff, 0);
            assert!((r * x - 1.0).abs() < 2f64.powi(-18), "{x}");
            let q = rsqrt_approx_f64(x.abs(), true);
            assert_eq!(q.to_bits() & 0xffff_ffff, 0);
            assert!((q * q * x.abs() - 1.0).abs() < 2f64.powi(-18), "{x}");
            assert!((rsqrt_approx_f64(x.abs(), false).powi(2) * x.abs() - 1.0).abs() < 1e-15);
        }
        assert_eq!(rcp_approx_ftz_f64(5e-324), f64::INFINITY);
        assert_eq!(rcp_approx_ftz_f64(-0.0), f64::NEG_INFINITY);
        assert_eq!(rcp_approx_ftz_f64(f64::MAX).to_bits(), 0);
        assert_eq!(rcp_approx_ftz_f64(f64::NAN).to_bits(), 0x7fff_ffff_0000_0000);
    }
}
