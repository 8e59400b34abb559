//! Single and double precision against the exact arithmetic of `exact`, in every rounding, and at special values.

use proptest::prelude::*;

use super::*;

const ROUNDINGS: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];

const EDGES: [u32; 22] = [
    0,
    1,
    2,
    0x007f_ffff,
    0x0080_0000,
    0x0080_0001,
    0x3f7f_ffff,
    0x3f80_0000,
    0x3f80_0001,
    0x4b00_0000,
    0x4b80_0000,
    0x7f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7fc0_0000,
    0x8000_0000,
    0x8000_0001,
    0xbf80_0000,
    0x3400_0000,
    0x3380_0000,
    0xb380_0000,
    0xff7f_ffff,
];

fn single() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        proptest::sample::select(EDGES.to_vec()).prop_map(f32::from_bits),
        // Near one, where sums cancel and ties are frequent.
        (any::<bool>(), 0x3e00_0000u32..0x4200_0000, 0u32..24)
            .prop_map(|(s, b, n)| f32::from_bits(u32::from(s) << 31 | b >> n << n)),
    ]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        single().prop_map(f64::from),
        (any::<bool>(), 0u64..40, any::<u64>())
            .prop_map(|(s, e, m)| f64::from_bits(u64::from(s) << 63 | e << 52 | m >> 12)),
    ]
}

/// The same number, or both NaN (canonical, for `f32`).
fn same(got: f32, want: f32) -> bool {
    if want.is_nan() { got.to_bits() == 0x7fff_ffff } else { got.to_bits() == want.to_bits() }
}

fn exact(a: f32) -> Exact {
    Exact::f64(f64::from(a))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn single_precision_rounds_once(a in single(), b in single(), c in single()) {
        for round in ROUNDINGS {
            let m = FloatMode { round, ..FloatMode::RN };
            let finite = a.is_finite() && b.is_finite();
            let want = if finite { exact(a).plus(exact(b), round).to_f32(round) } else { a + b };
            prop_assert!(same(add_f32(a, b, m), want), "{:?} {:e} + {:e}", round, a, b);
            let want = if finite { exact(a).plus(exact(b).negate(), round).to_f32(round) } else { a - b };
            prop_assert!(same(sub_f32(a, b, m), want), "{:?} {:e} - {:e}", round, a, b);
            let want = if finite { exact(a).times(exact(b)).to_f32(round) } else { a * b };
            prop_assert!(same(mul_f32(a, b, m), want), "{:?} {:e} * {:e}", round, a, b);
            let want = if finite && c.is_finite() {
                exact(a).times(exact(b)).plus(exact(c), round).to_f32(round)
            } else {
                a.mul_add(b, c)
            };
            prop_assert!(same(fma_f32(a, b, c, m), want), "{:?} {:e} * {:e} + {:e}", round, a, b, c);
            let want = if finite && a != 0.0 && b != 0.0 { exact(a).over(exact(b)).to_f32(round) } else { a / b };
            prop_assert!(same(div_f32(a, b, m), want), "{:?} {:e} / {:e}", round, a, b);
            let want = if a.is_finite() && a > 0.0 { exact(a).root().to_f32(round) } else { a.sqrt() };
            prop_assert!(same(sqrt_f32(a, m), want), "{:?} sqrt {:e}", round, a);
            prop_assert_eq!(rcp_f32(a, m).to_bits(), div_f32(1.0, a, m).to_bits());
        }
    }

    #[test]
    fn double_precision_is_enclosed(a in double(), b in double(), c in double()) {
        type Op = fn(f64, f64, f64, Round) -> f64;
        let ops: [Op; 6] = [
            |a, b, _, r| add_f64(a, b, r),
            |a, b, _, r| sub_f64(a, b, r),
            |a, b, _, r| mul_f64(a, b, r),
            fma_f64,
            |a, b, _, r| div_f64(a, b, r),
            |a, _, _, r| sqrt_f64(a, r),
        ];
        for (i, op) in ops.into_iter().enumerate() {
            let [near, zero, down, up] = ROUNDINGS.map(|r| op(a, b, c, r));
            if near.is_nan() {
                prop_assert!(zero.is_nan() && down.is_nan() && up.is_nan(), "{}", i);
                continue;
            }
            // The processor's own nearest result lies between the two directions, which are neighbours.
            prop_assert!(down <= near && near <= up, "{} {:e} {:e} {:e}", i, a, b, c);
            prop_assert!(down == up || down.next_up() == up, "{} {:e} {:e} {:e}", i, a, b, c);
            prop_assert!(zero == if near > 0.0 { down } else { up } || near == 0.0, "{}", i);
        }
        // Whether a result is inexact, by an independent way: the error of the nearest product.
        if a.is_finite() && b.is_finite() && (a * b).abs() > 1e-200 && (a * b).is_finite() {
            let error = a.mul_add(b, -(a * b));
            prop_assert_eq!(mul_f64(a, b, Round::Rm) == a * b, error >= 0.0);
            prop_assert_eq!(mul_f64(a, b, Round::Rp) == a * b, error <= 0.0);
        }
    }

    #[test]
    fn narrowing_rounds_once(a in double()) {
        for round in [Round::Rn, Round::Rz, Round::Rm, Round::Rp, Round::Rna] {
            let got = narrow(a, round);
            let want = if a.is_finite() { Exact::f64(a).to_f32(round) } else { got };
            prop_assert!(a.is_nan() == got.is_nan() && a.is_infinite() <= got.is_infinite());
            prop_assert!(got.to_bits() == want.to_bits() || a.is_nan(), "{:?} {:e}", round, a);
        }
    }

    #[test]
    fn minimum_and_maximum(a in single(), b in single()) {
        let m = MinMax::default();
        let (low, high) = (min_f32(a, b, m), max_f32(a, b, m));
        match (a.is_nan(), b.is_nan()) {
            (true, true) => {
                prop_assert_eq!(low.to_bits(), 0x7fff_ffff);
                prop_assert_eq!(high.to_bits(), 0x7fff_ffff);
            }
            (true, false) => prop_assert!(same(low, b) && same(high, b)),
            (false, true) => prop_assert!(same(low, a) && same(high, a)),
            (false, false) => {
                // `total_cmp` puts -0 below +0.
                let (want_low, want_high) = if a.total_cmp(&b).is_lt() { (a, b) } else { (b, a) };
                prop_assert!(same(low, want_low) && same(high, want_high), "{:e} {:e}", a, b);
                let wide = (min_f64(a.into(), b.into()), max_f64(a.into(), b.into()));
                prop_assert_eq!(wide.0.to_bits(), f64::from(want_low).to_bits());
                prop_assert_eq!(wide.1.to_bits(), f64::from(want_high).to_bits());
            }
        }
        let nan = MinMax { nan: true, ..m };
        prop_assert_eq!(min_f32(a, b, nan).is_nan(), a.is_nan() || b.is_nan());
        let xorsign = max_f32(a, b, MinMax { xorsign_abs: true, ..m });
        if !a.is_nan() && !b.is_nan() {
            prop_assert_eq!(xorsign.abs(), a.abs().max(b.abs()));
            prop_assert_eq!(xorsign.is_sign_negative(), a.is_sign_negative() != b.is_sign_negative());
        }
    }
}

#[test]
fn flushing_and_saturation() {
    let tiny = f32::from_bits(0x8000_0001);
    let normal = f32::MIN_POSITIVE;
    assert_eq!(add_f32(tiny, tiny, FloatMode::RN_FTZ).to_bits(), 0x8000_0000);
    assert_eq!(mul_f32(normal, 0.5, FloatMode::RN_FTZ).to_bits(), 0);
    assert_eq!(mul_f32(-normal, 0.5, FloatMode::RN_FTZ).to_bits(), 0x8000_0000);
    assert_eq!(mul_f32(normal, 0.5, FloatMode::RN).to_bits(), 0x0040_0000);
    let sat = FloatMode { sat: true, ..FloatMode::RN };
    assert_eq!(add_f32(1.0, 1.0, sat), 1.0);
    assert_eq!(add_f32(-1.0, -1.0, sat).to_bits(), 0);
    assert_eq!(add_f32(0.25, 0.5, sat), 0.75);
    assert_eq!(add_f32(f32::NAN, 0.5, sat).to_bits(), 0);
    assert_eq!(mul_f32(-0.0, 1.0, sat).to_bits(), 0);
    assert_eq!(sat_f64(7.0), 1.0);
    assert_eq!(sat_f64(f64::NAN).to_bits(), 0);
}

#[test]
fn nan_results_are_canonical() {
    let m = FloatMode::RN;
    for r in [
        add_f32(f32::INFINITY, f32::NEG_INFINITY, m),
        mul_f32(0.0, f32::INFINITY, m),
        sqrt_f32(-1.0, m),
        div_f32(0.0, 0.0, m),
        fma_f32(f32::from_bits(0xffc1_2345), 1.0, 1.0, m),
        min_f32(-f32::NAN, f32::NAN, MinMax::default()),
    ] {
        assert_eq!(r.to_bits(), 0x7fff_ffff);
    }
}

#[test]
fn signs() {
    assert_eq!(add_f32(1.0, -1.0, FloatMode { round: Round::Rm, ..FloatMode::RN }).to_bits(), 0x8000_0000);
    assert_eq!(add_f64(1.0, -1.0, Round::Rm).to_bits(), 1 << 63);
    assert_eq!(add_f64(1.0, -1.0, Round::Rp).to_bits(), 0);
    assert_eq!(copysign_f32(-1.0, 3.0), -3.0);
    assert_eq!(copysign_f64(1.0, -3.0), 3.0);
    assert_eq!(neg_f32(f32::from_bits(1), true).to_bits(), 0x8000_0000);
    assert_eq!(abs_f32(-2.5, false), 2.5);
    assert_eq!(abs_f64(-2.5), 2.5);
    assert_eq!(neg_f64(0.0).to_bits(), 1 << 63);
}

#[test]
fn properties() {
    let cases = [
        (Testp::Finite, [true, true, true, false, false]),
        (Testp::Infinite, [false, false, false, true, false]),
        (Testp::Number, [true, true, true, true, false]),
        (Testp::NotANumber, [false, false, false, false, true]),
        (Testp::Normal, [true, false, true, false, false]),
        (Testp::Subnormal, [false, true, false, false, false]),
    ];
    for (p, want) in cases {
        let singles = [0.0, f32::from_bits(3), -1.0, f32::INFINITY, f32::NAN];
        assert_eq!(singles.map(|x| testp_f32(p, x)), want, "{p:?}");
        let doubles = [0.0, 5e-324, -1.0, f64::NEG_INFINITY, f64::NAN];
        assert_eq!(doubles.map(|x| testp_f64(p, x)), want, "{p:?}");
    }
}
