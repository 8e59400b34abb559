//! What each operation computes, on bits: the reference that constant folding and the CPU executor share, and that
//! the PTX and CUDA C forms are tested against.
//!
//! Integers wrap; a shift by 32 or more gives zero or the sign (PTX ISA `shl`, `shr`); a division by zero, which only
//! a masked-out thread or an unchecked kernel can reach, gives zero here; `min` and `max` prefer the operand that is a
//! number and order -0 below +0 (PTX ISA `min`, `max`); conversions to integers truncate and saturate, and NaN gives
//! zero for a float and 2^31 for a double (PTX ISA `cvt`).
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "reinterpreting and rounding values is the very job of this file"
)]

use crate::ir::{BinaryOp, CompareOp, UnaryOp};
use crate::types::Scalar;

/// The low 32 bits.
pub(crate) const fn low(bits: u64) -> u32 {
    bits as u32
}

/// The low 16 bits.
pub(crate) const fn half(bits: u64) -> u16 {
    bits as u16
}

pub(crate) const fn int(bits: u64) -> i32 {
    bits as u32 as i32
}

pub(crate) fn float(bits: u64) -> f32 {
    f32::from_bits(low(bits))
}

fn of_int(value: i32) -> u64 {
    u64::from(value as u32)
}

fn of_float(value: f32) -> u64 {
    u64::from(value.to_bits())
}

/// `a * b + c` in binary32 with one rounding, without a call where the machine has no such instruction: the product
/// of two binary32 is exact in binary64; the sum is rounded to odd there, which makes the second rounding exact
/// (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums").
#[inline]
pub(crate) fn fma_float(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    // Knuth's TwoSum: the exact error of the addition.
    let virtual_c = sum - product;
    let error = (product - (sum - virtual_c)) + (c - virtual_c);
    let bits = sum.to_bits();
    let inexact = error != 0.0 && error.is_finite();
    let even = bits & 1 == 0;
    // Towards the error: away from zero when it has the sum's sign.
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    let adjusted = if inexact && even && sum != 0.0 { odd } else { bits };
    f64::from_bits(adjusted) as f32
}

#[inline]
pub(crate) fn min_float(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

#[inline]
pub(crate) fn max_float(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b || (a == b && a.is_sign_positive()) {
        a
    } else {
        b
    }
}

#[inline]
pub(crate) fn min_double(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

#[inline]
pub(crate) fn max_double(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b || (a == b && a.is_sign_positive()) {
        a
    } else {
        b
    }
}

#[inline]
pub(crate) fn shl(a: u32, count: u32) -> u32 {
    a.checked_shl(count).unwrap_or(0)
}

#[inline]
pub(crate) fn shr(a: u32, count: u32) -> u32 {
    a.checked_shr(count).unwrap_or(0)
}

#[inline]
pub(crate) fn sar(a: i32, count: u32) -> i32 {
    a >> count.min(31)
}

#[inline]
pub(crate) fn div_int(a: i32, b: i32) -> i32 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

#[inline]
pub(crate) fn rem_int(a: i32, b: i32) -> i32 {
    if b == 0 { 0 } else { a.wrapping_rem(b) }
}

#[inline]
pub(crate) fn div_uint(a: u32, b: u32) -> u32 {
    a.checked_div(b).unwrap_or(0)
}

#[inline]
pub(crate) fn rem_uint(a: u32, b: u32) -> u32 {
    a.checked_rem(b).unwrap_or(0)
}

/// A NaN has one form, as a GPU's arithmetic gives it (PTX ISA, "floating point": canonical NaN 0x7fffffff).
#[inline]
pub(crate) fn canonical(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(0x7fff_ffff) } else { value }
}

pub(crate) fn unary(op: UnaryOp, ty: Scalar, a: u64) -> u64 {
    match ty {
        Scalar::Float => {
            let x = float(a);
            of_float(match op {
                UnaryOp::Neg => -x,
                UnaryOp::Abs => x.abs(),
                UnaryOp::Sqrt => canonical(x.sqrt()),
                UnaryOp::Floor => x.floor(),
                UnaryOp::Ceil => x.ceil(),
                UnaryOp::Round => x.round_ties_even(),
                UnaryOp::Not | UnaryOp::Invert => x,
            })
        }
        Scalar::Double => {
            let x = f64::from_bits(a);
            match op {
                UnaryOp::Neg => -x,
                UnaryOp::Abs => x.abs(),
                UnaryOp::Sqrt => x.sqrt(),
                UnaryOp::Floor => x.floor(),
                UnaryOp::Ceil => x.ceil(),
                UnaryOp::Round => x.round_ties_even(),
                UnaryOp::Not | UnaryOp::Invert => x,
            }
            .to_bits()
        }
        Scalar::Bool => a ^ 1,
        Scalar::Int | Scalar::Uint | Scalar::Pixel => match op {
            UnaryOp::Neg => of_int(int(a).wrapping_neg()),
            UnaryOp::Abs => of_int(int(a).wrapping_abs()),
            UnaryOp::Invert => u64::from(!low(a)),
            _ => a,
        },
    }
}

pub(crate) fn binary(op: BinaryOp, ty: Scalar, a: u64, b: u64) -> u64 {
    match ty {
        Scalar::Float => {
            let (x, y) = (float(a), float(b));
            of_float(match op {
                BinaryOp::Add => x + y,
                BinaryOp::Sub => x - y,
                BinaryOp::Mul => x * y,
                BinaryOp::Div => x / y,
                BinaryOp::Min => min_float(x, y),
                BinaryOp::Max => max_float(x, y),
                _ => x,
            })
        }
        Scalar::Double => {
            let (x, y) = (f64::from_bits(a), f64::from_bits(b));
            match op {
                BinaryOp::Add => x + y,
                BinaryOp::Sub => x - y,
                BinaryOp::Mul => x * y,
                BinaryOp::Div => x / y,
                BinaryOp::Min => min_double(x, y),
                BinaryOp::Max => max_double(x, y),
                _ => x,
            }
            .to_bits()
        }
        Scalar::Bool => match op {
            BinaryOp::And => a & b,
            BinaryOp::Or => a | b,
            _ => (a ^ b) & 1,
        },
        Scalar::Int => {
            let (x, y) = (int(a), int(b));
            of_int(match op {
                BinaryOp::Add => x.wrapping_add(y),
                BinaryOp::Sub => x.wrapping_sub(y),
                BinaryOp::Mul => x.wrapping_mul(y),
                BinaryOp::Div => div_int(x, y),
                BinaryOp::Rem => rem_int(x, y),
                BinaryOp::Min => x.min(y),
                BinaryOp::Max => x.max(y),
                BinaryOp::And => x & y,
                BinaryOp::Or => x | y,
                BinaryOp::Xor => x ^ y,
                BinaryOp::Shl => shl(x as u32, y as u32) as i32,
                BinaryOp::Shr => sar(x, y as u32),
                BinaryOp::Rotr => (x as u32).rotate_right(y as u32 & 31) as i32,
            })
        }
        Scalar::Uint | Scalar::Pixel => {
            let (x, y) = (low(a), low(b));
            u64::from(match op {
                BinaryOp::Add => x.wrapping_add(y),
                BinaryOp::Sub => x.wrapping_sub(y),
                BinaryOp::Mul => x.wrapping_mul(y),
                BinaryOp::Div => div_uint(x, y),
                BinaryOp::Rem => rem_uint(x, y),
                BinaryOp::Min => x.min(y),
                BinaryOp::Max => x.max(y),
                BinaryOp::And => x & y,
                BinaryOp::Or => x | y,
                BinaryOp::Xor => x ^ y,
                BinaryOp::Shl => shl(x, y),
                BinaryOp::Shr => shr(x, y),
                BinaryOp::Rotr => x.rotate_right(y & 31),
            })
        }
    }
}

pub(crate) fn compare(op: CompareOp, ty: Scalar, a: u64, b: u64) -> bool {
    fn by<T: PartialOrd + Copy>(op: CompareOp, x: T, y: T) -> bool {
        match op {
            CompareOp::Lt => x < y,
            CompareOp::Le => x <= y,
            CompareOp::Gt => x > y,
            CompareOp::Ge => x >= y,
            CompareOp::Eq => x == y,
            CompareOp::Ne => x != y,
        }
    }
    match ty {
        Scalar::Int => by(op, int(a), int(b)),
        Scalar::Float => by(op, float(a), float(b)),
        Scalar::Double => by(op, f64::from_bits(a), f64::from_bits(b)),
        Scalar::Uint | Scalar::Pixel | Scalar::Bool => by(op, low(a), low(b)),
    }
}

pub(crate) fn cast(from: Scalar, to: Scalar, a: u64) -> u64 {
    match (from, to) {
        (Scalar::Int, Scalar::Float) => of_float(int(a) as f32),
        (Scalar::Uint, Scalar::Float) => of_float(low(a) as f32),
        (Scalar::Int, Scalar::Double) => f64::from(int(a)).to_bits(),
        (Scalar::Uint, Scalar::Double) => f64::from(low(a)).to_bits(),
        (Scalar::Float, Scalar::Int) => of_int(float(a) as i32),
        (Scalar::Float, Scalar::Uint) => u64::from(float(a) as u32),
        (Scalar::Double, Scalar::Int | Scalar::Uint) if f64::from_bits(a).is_nan() => 1 << 31,
        (Scalar::Double, Scalar::Int) => of_int(f64::from_bits(a) as i32),
        (Scalar::Double, Scalar::Uint) => u64::from(f64::from_bits(a) as u32),
        (Scalar::Float, Scalar::Double) => f64::from(float(a)).to_bits(),
        (Scalar::Double, Scalar::Float) => of_float(f64::from_bits(a) as f32),
        (Scalar::Bool, Scalar::Float) => of_float(a as f32),
        (Scalar::Bool, Scalar::Double) => (a as f64).to_bits(),
        _ => a,
    }
}

/// binary16 bits to binary32.
pub(crate) fn half_to_float(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 31;
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Subnormals: the fraction counts units of 2^-24.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 if fraction == 0 => 0x7f80_0000,
        31 => return f32::from_bits(0x7fff_ffff),
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// binary32 to binary16 bits, to nearest even.
pub(crate) fn float_to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return 0x7fff;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    let (mantissa, shift) = if magnitude >= 0x3880_0000 {
        (magnitude - 0x3800_0000, 13)
    } else {
        let exponent = magnitude >> 23;
        if exponent < 102 {
            return sign;
        }
        ((magnitude & 0x7f_ffff) | 0x80_0000, 126 - exponent)
    };
    let half = (1u32 << (shift - 1)) - 1 + ((mantissa >> shift) & 1);
    sign | ((mantissa + half) >> shift) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fma_rounds_once() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bits = state;
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Exponents near each other, so that sums cancel.
            f32::from_bits((bits & 0x807f_ffff) | (((state >> 28) + 120) << 23))
        };
        for _ in 0..200_000 {
            let (a, b) = (next(), next());
            for c in [next(), -(a * b), a * b, f32::MIN_POSITIVE / 4.0, 0.0] {
                assert_eq!(fma_float(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a} {b} {c}");
            }
        }
        assert_eq!(fma_float(f32::INFINITY, 1.0, 1.0), f32::INFINITY);
        assert!(fma_float(f32::INFINITY, 0.0, 1.0).is_nan());
        assert_eq!(fma_float(f32::MAX, 2.0, f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(fma_float(f32::MAX, f32::MAX, 1.0), f32::INFINITY);
    }

    #[test]
    fn every_half_survives_and_halfway_values_go_to_even() {
        for bits in 0..=u16::MAX {
            let value = half_to_float(bits);
            if value.is_nan() {
                assert_eq!(float_to_half(value), 0x7fff);
            } else {
                assert_eq!(float_to_half(value), bits, "{bits:04x}");
                if bits & 0x7fff < 0x7bff {
                    let next = half_to_float(bits + 1);
                    let middle = value / 2.0 + next / 2.0;
                    let even = if bits & 1 == 0 { bits } else { bits + 1 };
                    assert_eq!(float_to_half(middle), even, "{bits:04x}");
                }
            }
        }
        assert_eq!(float_to_half(65520.0), 0x7c00);
        assert_eq!(float_to_half(65519.0), 0x7bff);
    }
}
