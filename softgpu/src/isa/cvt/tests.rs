//! Conversions against 128-bit integer arithmetic and the exact rounding.

use proptest::prelude::*;

use super::*;

const ROUNDINGS: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];
const INTS: [Num; 8] = [Num::U8, Num::U16, Num::U32, Num::U64, Num::S8, Num::S16, Num::S32, Num::S64];

fn mode(round: Round) -> CvtMode {
    CvtMode { round, ..CvtMode::default() }
}

/// Range of an integer type, and its width.
fn range(n: Num) -> (i128, i128, u32) {
    let (signed, bits) = match n {
        Num::U8 => (false, 8),
        Num::U16 => (false, 16),
        Num::U32 => (false, 32),
        Num::U64 => (false, 64),
        Num::S8 => (true, 8),
        Num::S16 => (true, 16),
        Num::S32 => (true, 32),
        Num::S64 => (true, 64),
        _ => panic!("{n:?} is no integer type"),
    };
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1, bits) } else { (0, (1 << bits) - 1, bits) }
}

/// The integer that `bits` of type `n` mean.
fn value(n: Num, bits: u64) -> i128 {
    let (low, _, width) = range(n);
    let v = i128::from(bits & (u64::MAX >> (64 - width)));
    if low < 0 && v >> (width - 1) == 1 { v - (1 << width) } else { v }
}

/// A float to an integer: rounded in 128 bits, then clamped.
fn rounded(a: f64, round: Round) -> i128 {
    let whole = a.trunc();
    let rest = a - whole; // exact
    let v = whole as i128;
    match round {
        Round::Rz => v,
        Round::Rm => v - i128::from(rest < 0.0),
        Round::Rp => v + i128::from(rest > 0.0),
        Round::Rn | Round::Rna => {
            let up = rest.abs() > 0.5 || rest.abs() == 0.5 && v & 1 == 1;
            if up { v + if a < 0.0 { -1 } else { 1 } } else { v }
        }
    }
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_filter("number", |x| !x.is_nan()),
        (-1000i32..1000).prop_map(|v| f64::from(v) / 4.0),
        (0i32..66, any::<bool>(), -4i32..=4)
            .prop_map(|(n, s, d)| (2f64.powi(n) + f64::from(d) / 2.0) * if s { -1.0 } else { 1.0 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn integers_to_integers(bits: u64) {
        for from in INTS {
            for to in INTS {
                let v = value(from, bits);
                let (low, high, width) = range(to);
                let plain = convert(to, from, CvtMode::default(), bits);
                prop_assert_eq!(i128::from(plain as i64) as u64, value(to, v as u64) as u64);
                let sat = convert(to, from, CvtMode { sat: true, ..CvtMode::default() }, bits);
                prop_assert_eq!(sat, v.clamp(low, high) as u64, "{:?} {:?} {}", to, from, width);
            }
        }
    }

    #[test]
    fn floats_to_integers(a in double()) {
        for round in ROUNDINGS {
            for to in INTS {
                let (low, high, _) = range(to);
                let want = rounded(a, round).clamp(low, high) as u64;
                prop_assert_eq!(convert(to, Num::F64, mode(round), a.to_bits()), want, "{:?} {:e}", to, a);
                let single = a as f32;
                let want = rounded(f64::from(single), round).clamp(low, high) as u64;
                prop_assert_eq!(convert(to, Num::F32, mode(round), single.to_bits().into()), want);
                let half = F16::nearest(single);
                let want = rounded(f64::from(F16::to_f32(half)), round).clamp(low, high) as u64;
                prop_assert_eq!(convert(to, Num::F16, mode(round), half.into()), want);
            }
        }
    }

    #[test]
    fn integers_to_floats(bits: u64, shift in 0u32..64) {
        let bits = bits >> shift;
        for round in ROUNDINGS {
            for from in INTS {
                let exact = Exact::integer(value(from, bits));
                let m = mode(round);
                prop_assert_eq!(convert(Num::F64, from, m, bits), exact.to_f64(round).to_bits());
                prop_assert_eq!(convert(Num::F32, from, m, bits), u64::from(exact.to_f32(round).to_bits()));
                let half = exact.round(crate::isa::exact::Format::F16, round);
                prop_assert_eq!(convert(Num::F16, from, m, bits), half, "{:?} {:x}", from, bits);
                let half = exact.round(crate::isa::exact::Format::BF16, round);
                prop_assert_eq!(convert(Num::Bf16, from, m, bits), half, "{:?} {:x}", from, bits);
            }
        }
    }

    #[test]
    fn floats_to_floats(a in double()) {
        prop_assume!(a.is_finite());
        for round in ROUNDINGS {
            let narrow = convert(Num::F32, Num::F64, mode(round), a.to_bits());
            prop_assert_eq!(narrow, u64::from(Exact::f64(a).to_f32(round).to_bits()));
            let wide = convert(Num::F64, Num::F32, CvtMode::default(), narrow);
            prop_assert_eq!(f64::from_bits(wide), f64::from(f32::from_bits(narrow as u32)));
            let integral = f64::from_bits(convert(Num::F64, Num::F64, CvtMode { integral: true, ..mode(round) }, a.to_bits()));
            if a.abs() < 1e30 {
                prop_assert_eq!(integral, rounded(a, round) as f64);
                prop_assert_eq!(integral.is_sign_negative(), a.is_sign_negative());
            } else {
                prop_assert_eq!(integral, a);
            }
        }
    }
}

#[test]
fn nan_to_integers() {
    for to in INTS {
        let (_, _, width) = range(to);
        let high = value(to, 1 << (width - 1)) as u64;
        let from_f32 = if width == 64 { high } else { 0 };
        assert_eq!(convert(to, Num::F32, mode(Round::Rz), f32::NAN.to_bits().into()), from_f32, "{to:?}");
        assert_eq!(convert(to, Num::F16, mode(Round::Rz), 0x7e00), from_f32, "{to:?}");
        assert_eq!(convert(to, Num::F64, mode(Round::Rz), f64::NAN.to_bits()), high, "{to:?}");
    }
}

#[test]
fn modifiers() {
    let f = |x: f32| u64::from(x.to_bits());
    let sat = CvtMode { sat: true, ..CvtMode::default() };
    assert_eq!(convert(Num::F32, Num::F32, sat, f(3.5)), f(1.0));
    assert_eq!(convert(Num::F32, Num::F32, sat, f(f32::NAN)), 0);
    assert_eq!(convert(Num::F32, Num::S32, sat, u64::from(u32::MAX)), 0);
    assert_eq!(convert(Num::F16, Num::F32, sat, f(2.0)), 0x3c00);
    assert_eq!(convert(Num::F64, Num::F64, sat, 2f64.to_bits()), 1f64.to_bits());
    let ftz = CvtMode { ftz: true, ..CvtMode::default() };
    assert_eq!(convert(Num::F32, Num::F32, ftz, 0x8000_0001), 0x8000_0000);
    assert_eq!(convert(Num::F64, Num::F32, ftz, 1), 0);
    assert_eq!(convert(Num::F32, Num::F64, ftz, 1e-40f64.to_bits()), 0);
    assert_eq!(convert(Num::S32, Num::F32, CvtMode { round: Round::Rp, ..ftz }, 1), 0);
    assert_eq!(convert(Num::S32, Num::F32, mode(Round::Rp), 1), 1);
    // A half's subnormals are normal in single precision.
    assert_eq!(convert(Num::F32, Num::F16, ftz, 1), f(2f32.powi(-24)));
    let relu = CvtMode { relu: true, ..CvtMode::default() };
    assert_eq!(convert(Num::F16, Num::F32, relu, f(-2.0)), 0);
    assert_eq!(convert(Num::Bf16, Num::F32, relu, f(f32::NAN)), 0x7fff);
    assert_eq!(
        convert(Num::F16, Num::F32, CvtMode { satfinite: true, ..CvtMode::default() }, f(1e9)),
        0x7bff
    );
    assert_eq!(convert(Num::Tf32, Num::F32, mode(Round::Rna), 0x3f80_1000), 0x3f80_2000);
    assert_eq!(convert(Num::F32, Num::F64, CvtMode::default(), 0xfff8_0000_1234_5678), 0xffc0_0000);
    assert_eq!(convert(Num::F16, Num::F64, CvtMode::default(), 0xfff8_0000_1234_5678), 0xfe00);
    assert_eq!(convert(Num::F32, Num::Bf16, CvtMode::default(), 0x7f81), 0x7f81_0000);
    // One above a number of 53 bits: the bit that decides lies far below.
    assert_eq!(convert(Num::Bf16, Num::U64, mode(Round::Rp), (1 << 63) + 1), 0x5f01);
}

#[test]
fn packed() {
    let m = CvtMode::default();
    assert_eq!(convert_x2(Num::F16, m, 1.0, 2.0), Some(0x3c00_4000));
    assert_eq!(convert_x2(Num::Bf16, m, 1.0, 2.0), Some(0x3f80_4000));
    assert_eq!(convert_x2(Num::E4m3, m, 1.0, 448.0), Some(0x387e));
    assert_eq!(convert_x2(Num::E5m2, m, 1.0, -1.0), Some(0x3cbc));
    assert_eq!(convert_x2(Num::F32, m, 1.0, -1.0), None);
    assert_eq!(f16x2_to_fp8x2(Num::E4m3, m, 0x3c00_c000), Some(0x38c0));
    assert_eq!(f16x2_to_fp8x2(Num::F16, m, 0), None);
    assert_eq!(fp8x2_to_f16x2(Num::E4m3, m, 0x38c0), Some(0x3c00_c000));
    assert_eq!(fp8x2_to_f16x2(Num::E5m2, m, 0x3cbc), Some(0x3c00_bc00));
    assert_eq!(pack(16, true, 70_000, -70_000, 0), 0x7fff_8000);
    assert_eq!(pack(16, false, 70_000, -70_000, 0), 0xffff_0000);
    assert_eq!(pack(8, false, 300, -1, 0x1234_5678), 0x5678_ff00);
    assert_eq!(pack(4, true, 300, -300, 0x1234_5678), 0x3456_7878);
    assert_eq!(pack(2, false, 3, 1, 0xf), 0xfd);
}
