//! Exact binary numbers and their one rounding: the slow, surely right path behind directed rounding in double
//! precision and behind every narrow format. The fast paths in `float` and `half` are tested against it.
//!
//! Pure integer arithmetic; no host rounding mode takes part.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "fields are cut out of and put into bit patterns; every exponent fits i32 by far"
)]

use super::Round;

/// A binary interchange format: sign, exponent field, fraction field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Significant bits, the hidden one included.
    pub(super) precision: u32,
    /// Width of the exponent field.
    pub(super) exponent_bits: u32,
    /// Bits (without sign) of the greatest finite number; what is above is infinity or NaN.
    pub(super) max: u64,
    /// Bits (without sign) of what overflow rounds to: infinity, or NaN in a format without.
    pub(super) overflow: u64,
}

impl Format {
    const fn ieee(precision: u32, exponent_bits: u32) -> Self {
        let infinity = ((1u64 << exponent_bits) - 1) << (precision - 1);
        Self { precision, exponent_bits, max: infinity - 1, overflow: infinity }
    }
    /// `.f64`.
    pub(super) const F64: Self = Self::ieee(53, 11);
    /// `.f32`.
    pub(super) const F32: Self = Self::ieee(24, 8);
    /// `.f16`.
    pub(super) const F16: Self = Self::ieee(11, 5);
    /// `.bf16`.
    pub(super) const BF16: Self = Self::ieee(8, 8);
    /// `.tf32`, as 19 bits.
    pub(super) const TF32: Self = Self::ieee(11, 8);
    /// `.e5m2`.
    pub(super) const E5M2: Self = Self::ieee(3, 5);
    /// `.e4m3`: no infinities; only all ones is NaN.
    pub(super) const E4M3: Self = Self { precision: 4, exponent_bits: 4, max: 0x7e, overflow: 0x7f };

    /// The exponent of the smallest normal number.
    const fn min_exponent(self) -> i32 {
        2 - (1 << (self.exponent_bits - 1))
    }
    /// The sign bit.
    pub(super) const fn sign(self) -> u64 {
        1 << (self.precision - 1 + self.exponent_bits)
    }
}

/// `±mantissa · 2^exponent`. The lowest bit of the mantissa may be *sticky*: set because something non-zero was
/// cut off below it. Rounding needs two more bits than the format; all that is made here has many more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

impl Exact {
    /// An integer.
    pub(super) fn integer(v: i128) -> Self {
        Self { negative: v < 0, mantissa: v.unsigned_abs(), exponent: 0 }
    }

    /// The number that `bits` encode; they must encode a finite one.
    pub(super) fn decode(bits: u64, f: Format) -> Self {
        let negative = bits & f.sign() != 0;
        let magnitude = bits & (f.sign() - 1);
        let field = (magnitude >> (f.precision - 1)) as i32;
        let fraction = magnitude & ((1 << (f.precision - 1)) - 1);
        let lowest = f.min_exponent() - (f.precision as i32 - 1);
        let (mantissa, exponent) = if field == 0 {
            (fraction, lowest)
        } else {
            (fraction | 1 << (f.precision - 1), lowest + field - 1)
        };
        Self { negative, mantissa: u128::from(mantissa), exponent }
    }

    /// A finite `.f64`.
    pub(super) fn f64(v: f64) -> Self {
        Self::decode(v.to_bits(), Format::F64)
    }

    /// The same number with the highest mantissa bit at `position`, which must not be below it.
    fn normalised(self, position: u32) -> Self {
        let shift = position - self.mantissa.ilog2();
        Self { mantissa: self.mantissa << shift, exponent: self.exponent - shift as i32, ..self }
    }

    /// The negated number.
    #[cfg(test)]
    pub(super) fn negate(self) -> Self {
        Self { negative: !self.negative, ..self }
    }

    /// The product; the mantissas together must not exceed 126 bits.
    pub(super) fn times(self, b: Self) -> Self {
        Self {
            negative: self.negative != b.negative,
            mantissa: self.mantissa * b.mantissa,
            exponent: self.exponent + b.exponent,
        }
    }

    /// The sum; mantissas of at most 106 bits. An exact zero out of opposite signs is `-0` under `.rm`, else `+0`.
    pub(super) fn plus(self, b: Self, round: Round) -> Self {
        if self.mantissa == 0 && b.mantissa == 0 {
            let negative =
                if self.negative == b.negative { self.negative } else { matches!(round, Round::Rm) };
            return Self { negative, ..self };
        }
        if self.mantissa == 0 {
            return b;
        }
        if b.mantissa == 0 {
            return self;
        }
        let (x, y) = (self.normalised(125), b.normalised(125));
        let (x, y) = if (x.exponent, x.mantissa) >= (y.exponent, y.mantissa) { (x, y) } else { (y, x) };
        // Shifts of up to 19 lose nothing (106 bits end 20 above the bottom); beyond, at most one bit cancels.
        let distance = (x.exponent - y.exponent) as u32;
        let aligned = if distance >= 127 {
            1
        } else {
            y.mantissa >> distance | u128::from(y.mantissa & ((1 << distance) - 1) != 0)
        };
        if x.negative == y.negative {
            Self { mantissa: x.mantissa + aligned, ..x }
        } else if x.mantissa == aligned {
            Self { negative: matches!(round, Round::Rm), mantissa: 0, exponent: 0 }
        } else {
            Self { mantissa: x.mantissa - aligned, ..x }
        }
    }

    /// The quotient; both mantissas non-zero and of at most 64 bits.
    pub(super) fn over(self, b: Self) -> Self {
        let (x, y) = (self.normalised(126), b.normalised(63));
        let (quotient, rest) = (x.mantissa / y.mantissa, x.mantissa % y.mantissa);
        Self {
            negative: self.negative != b.negative,
            mantissa: quotient << 1 | u128::from(rest != 0),
            exponent: x.exponent - y.exponent - 1,
        }
    }

    /// The square root of a positive number with a mantissa of at most 64 bits.
    pub(super) fn root(self) -> Self {
        let mut x = self.normalised(125);
        if x.exponent & 1 != 0 {
            x = Self { mantissa: x.mantissa << 1, exponent: x.exponent - 1, ..x };
        }
        let root = x.mantissa.isqrt();
        Self {
            negative: false,
            mantissa: root << 1 | u128::from(root * root != x.mantissa),
            exponent: x.exponent / 2 - 1,
        }
    }

    /// The nearest number of format `f` in the sense of `round`, as bits.
    pub(super) fn round(self, f: Format, round: Round) -> u64 {
        let sign = if self.negative { f.sign() } else { 0 };
        if self.mantissa == 0 {
            return sign;
        }
        let magnitude = self.exponent + self.mantissa.ilog2() as i32;
        let scale = magnitude.max(f.min_exponent());
        let shift = scale - (f.precision as i32 - 1) - self.exponent;
        // `kept` in units of the last place, and twice what is left over against one such unit.
        let (kept, rest) = if shift <= 0 {
            ((self.mantissa << -shift) as u64, Rest::Nothing)
        } else if shift >= 128 {
            // The whole number lies below the last place, and below its half.
            (0, Rest::BelowHalf)
        } else {
            let cut = self.mantissa & ((1 << shift) - 1);
            let half = 1 << (shift - 1);
            let rest = match cut.cmp(&half) {
                _ if cut == 0 => Rest::Nothing,
                std::cmp::Ordering::Less => Rest::BelowHalf,
                std::cmp::Ordering::Equal => Rest::Half,
                std::cmp::Ordering::Greater => Rest::AboveHalf,
            };
            ((self.mantissa >> shift) as u64, rest)
        };
        let away = match round {
            Round::Rn => rest == Rest::AboveHalf || rest == Rest::Half && kept & 1 == 1,
            Round::Rna => matches!(rest, Rest::AboveHalf | Rest::Half),
            Round::Rz => false,
            Round::Rm => self.negative && rest != Rest::Nothing,
            Round::Rp => !self.negative && rest != Rest::Nothing,
        };
        // The hidden bit of `kept` carries into the exponent field; so does a carry out of rounding.
        let field = (scale - f.min_exponent()) as u64;
        if field >= 1 << f.exponent_bits {
            return sign | overflow(f, round, self.negative);
        }
        let bits = (field << (f.precision - 1)) + kept + u64::from(away);
        sign | if bits > f.max { overflow(f, round, self.negative) } else { bits }
    }

    /// The nearest `.f64` in the sense of `round`.
    pub(super) fn to_f64(self, round: Round) -> f64 {
        f64::from_bits(self.round(Format::F64, round))
    }

    /// The nearest `.f32` in the sense of `round`.
    pub(super) fn to_f32(self, round: Round) -> f32 {
        f32::from_bits(self.round(Format::F32, round) as u32)
    }
}

/// What rounding cuts off, against half a unit in the last place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    BelowHalf,
    Half,
    AboveHalf,
}

/// What a number too great for the format becomes, without sign: the greatest finite one where rounding goes
/// towards zero.
fn overflow(f: Format, round: Round, negative: bool) -> u64 {
    match (round, negative) {
        (Round::Rz, _) | (Round::Rm, false) | (Round::Rp, true) => f.max,
        _ => f.overflow,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EDGES: [f64; 12] = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1.0 + f64::EPSILON,
        1e300,
        -3e-310,
    ];

    #[test]
    fn decode_and_round_are_inverse() {
        for x in EDGES {
            for r in [Round::Rn, Round::Rz, Round::Rm, Round::Rp, Round::Rna] {
                assert_eq!(Exact::f64(x).to_f64(r).to_bits(), x.to_bits());
            }
        }
        for bits in 0..0x7c00u64 {
            assert_eq!(Exact::decode(bits, Format::F16).round(Format::F16, Round::Rn), bits);
        }
        for bits in 0..=0x7eu64 {
            assert_eq!(Exact::decode(bits, Format::E4M3).round(Format::E4M3, Round::Rz), bits);
        }
    }

    #[test]
    fn overflow_depends_on_the_direction() {
        let max = Exact::f64(f64::MAX);
        let cases = [
            (Round::Rn, f64::INFINITY),
            (Round::Rz, f64::MAX),
            (Round::Rm, f64::MAX),
            (Round::Rp, f64::INFINITY),
        ];
        for (r, want) in cases {
            assert_eq!(max.plus(max, r).to_f64(r), want);
        }
        assert_eq!(max.negate().plus(max.negate(), Round::Rp).to_f64(Round::Rp), f64::MIN);
        assert_eq!(max.negate().plus(max.negate(), Round::Rm).to_f64(Round::Rm), f64::NEG_INFINITY);
    }

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
            // Exponents close together, where cancellation and ties happen.
            (any::<bool>(), 1000u64..1050, any::<u64>())
                .prop_map(|(s, e, m)| { f64::from_bits(u64::from(s) << 63 | e << 52 | m >> 12) }),
            (any::<bool>(), 0u64..60, any::<u64>())
                .prop_map(|(s, e, m)| f64::from_bits(u64::from(s) << 63 | e << 52 | m >> 12)),
            proptest::sample::select(EDGES.to_vec()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn nearest_agrees_with_the_processor(a in finite(), b in finite(), c in finite()) {
            let (x, y, z) = (Exact::f64(a), Exact::f64(b), Exact::f64(c));
            prop_assert_eq!(x.plus(y, Round::Rn).to_f64(Round::Rn).to_bits(), (a + b).to_bits());
            prop_assert_eq!(x.times(y).to_f64(Round::Rn).to_bits(), (a * b).to_bits());
            prop_assert_eq!(x.times(y).plus(z, Round::Rn).to_f64(Round::Rn).to_bits(), a.mul_add(b, c).to_bits());
            if a != 0.0 && b != 0.0 {
                prop_assert_eq!(x.over(y).to_f64(Round::Rn).to_bits(), (a / b).to_bits());
                prop_assert_eq!(Exact::f64(a.abs()).root().to_f64(Round::Rn).to_bits(), a.abs().sqrt().to_bits());
            }
            prop_assert_eq!(x.to_f32(Round::Rn).to_bits(), (a as f32).to_bits());
        }

        #[test]
        fn directed_results_enclose_the_nearest(a in finite(), b in finite(), c in finite()) {
            let x = Exact::f64(a).times(Exact::f64(b)).plus(Exact::f64(c), Round::Rn);
            let (down, near, up, zero) =
                (x.to_f64(Round::Rm), x.to_f64(Round::Rn), x.to_f64(Round::Rp), x.to_f64(Round::Rz));
            prop_assert!(down <= near && near <= up);
            prop_assert!(down == up || down.next_up() == up);
            prop_assert_eq!(zero.to_bits(), if x.negative { up.to_bits() } else { down.to_bits() });
        }
    }
}
