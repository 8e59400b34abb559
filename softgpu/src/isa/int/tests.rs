//! Integer instructions against the pseudo-code of the PTX ISA, bit by bit, and against 128-bit arithmetic.

use proptest::prelude::*;

use super::*;

/// The low bits of `v` as a `T`.
fn wrap<T: Int>(v: i128) -> T {
    T::from_bits(v as u64)
}

/// PTX ISA, "bfe".
fn bfe_by_bits<T: Int>(a: T, b: u32, c: u32) -> T {
    let msb = T::BITS - 1;
    let (pos, len) = if T::BITS == 64 { (b, c) } else { (b & 0xff, c & 0xff) };
    let bit = |i: u32| a.bits() >> i & 1;
    let sign = if !T::SIGNED || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
    let d = (0..=msb).fold(0, |d, i| d | (if i < len && pos + i <= msb { bit(pos + i) } else { sign }) << i);
    T::from_bits(d)
}

/// PTX ISA, "bfi".
fn bfi_by_bits<T: Int>(a: T, b: T, c: u32, d: u32) -> T {
    let msb = T::BITS - 1;
    let (pos, len) = if T::BITS == 64 { (c, d) } else { (c & 0xff, d & 0xff) };
    let mut f = b.bits();
    for i in 0..len {
        if pos + i <= msb {
            f = f & !(1 << (pos + i)) | (a.bits() >> i & 1) << (pos + i);
        }
    }
    T::from_bits(f)
}

/// PTX ISA, "bfind".
fn bfind_by_bits<T: Int>(a: T) -> u32 {
    let flip = T::SIGNED && a < T::default();
    (0..T::BITS).rev().find(|i| (a.bits() >> i & 1 == 1) != flip).unwrap_or(u32::MAX)
}

/// PTX ISA, "fns".
fn fns_by_steps(mask: u32, base: u32, offset: i32) -> u32 {
    let set = |pos: i64| mask >> pos & 1 == 1;
    if offset == 0 {
        return if set(base.into()) { base } else { u32::MAX };
    }
    let (mut pos, mut count) = (i64::from(base), offset.unsigned_abs() - 1);
    let step = if offset > 0 { 1 } else { -1 };
    while (0..32).contains(&pos) {
        if set(pos) {
            if count == 0 {
                return pos as u32;
            }
            count -= 1;
        }
        pos += step;
    }
    u32::MAX
}

/// PTX ISA, "bmsk".
fn bmsk_by_steps(a: u32, b: u32, clamp: bool) -> u32 {
    let (a1, b1) = (a & 0x1f, b & 0x1f);
    let mut mask0 = u32::MAX << a1;
    let sum = a1 + b1;
    let sum_overflow = sum >= 32;
    let mut mask1 = if sum_overflow { 0 } else { u32::MAX << sum };
    let (mut position_overflow, mut width_overflow) = (false, false);
    if clamp {
        if a >= 32 {
            position_overflow = true;
            mask0 = 0;
        }
        width_overflow = b >= 32;
    }
    if sum_overflow || position_overflow || width_overflow {
        mask1 = 0;
    } else if b1 == 0 {
        mask1 = u32::MAX;
    }
    mask0 & !mask1
}

/// PTX ISA, "szext".
fn szext_by_steps(a: u32, b: u32, clamp: bool, signed: bool) -> u32 {
    let b1 = b & 0x1f;
    let too_large = b >= 32 && clamp;
    let mask = if too_large { 0 } else { u32::MAX << b1 };
    let sign = if b1 == 0 || too_large || !signed { 0 } else { a >> ((b1 - 1) & 0x1f) & 1 };
    a & !mask | if sign == 1 { mask } else { 0 }
}

macro_rules! arithmetic {
    ($name:ident, $t:ty) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(3000))]
            #[test]
            fn $name(
                a in operand::<$t>(), b in operand::<$t>(), c in operand::<$t>(),
                p in 0u32..300, n in 0u32..300, carry: bool,
            ) {
                let wrap = |value: i128| -> $t { wrap(value) };
                let (x, y, z) = (a.value(), b.value(), c.value());
                prop_assert_eq!(add(a, b), wrap(x + y));
                prop_assert_eq!(sub(a, b), wrap(x - y));
                prop_assert_eq!(mul_lo(a, b), wrap(x.wrapping_mul(y)));
                // 64 by 64 bits unsigned overflow i128 in the top bit only, which the shift below must not smear.
                let high: $t = wrap(((x as u128).wrapping_mul(y as u128) >> <$t>::BITS) as i128);
                prop_assert_eq!(mul_hi(a, b), high);
                prop_assert_eq!(mad_lo(a, b, c), wrap(x.wrapping_mul(y).wrapping_add(z)));
                prop_assert_eq!(mad_hi(a, b, c), wrap(high.value() + z));
                if y == 0 {
                    prop_assert_eq!(div(a, b).bits(), u64::MAX >> (64 - <$t>::BITS));
                    prop_assert_eq!(rem(a, b).bits(), u64::MAX >> (64 - <$t>::BITS));
                } else {
                    prop_assert_eq!(div(a, b), wrap(x / y));
                    prop_assert_eq!(rem(a, b), wrap(x % y));
                }
                prop_assert_eq!(abs(a), wrap(x.abs()));
                prop_assert_eq!(neg(a), wrap(-x));
                prop_assert_eq!(min(a, b), wrap(x.min(y)));
                prop_assert_eq!(max(a, b), wrap(x.max(y)));
                prop_assert_eq!(sad(a, b, c), wrap(z + (x - y).abs()));

                let (u, v, w) = (i128::from(a.bits()), i128::from(b.bits()), i128::from(c.bits()));
                let cin = i128::from(carry);
                prop_assert_eq!(addc(a, b, carry), (wrap(u + v + cin), (u + v + cin) >> <$t>::BITS != 0));
                prop_assert_eq!(subc(a, b, carry), (wrap(u - v - cin), u < v + cin));
                let low = i128::from(mul_lo(a, b).bits());
                prop_assert_eq!(madc_lo(a, b, c, carry), (wrap(low + w + cin), (low + w + cin) >> <$t>::BITS != 0));
                let top = i128::from(high.bits());
                prop_assert_eq!(madc_hi(a, b, c, carry), (wrap(top + w + cin), (top + w + cin) >> <$t>::BITS != 0));

                prop_assert_eq!(shl(a, n), if n >= <$t>::BITS { 0 } else { wrap(x << n) });
                prop_assert_eq!(shr(a, n), wrap(x >> n.min(127)));
                prop_assert_eq!(bfe(a, p, n), bfe_by_bits(a, p, n));
                prop_assert_eq!(bfe(a, p % 70, n % 70), bfe_by_bits(a, p % 70, n % 70));
                prop_assert_eq!(bfi(a, b, p, n), bfi_by_bits(a, b, p, n));
                prop_assert_eq!(bfi(a, b, p % 70, n % 70), bfi_by_bits(a, b, p % 70, n % 70));
                let found = bfind_by_bits(a);
                prop_assert_eq!(bfind(a), found);
                let shift = if found == u32::MAX { found } else { <$t>::BITS - 1 - found };
                prop_assert_eq!(bfind_shiftamt(a), shift);
                prop_assert_eq!(clz(a), a.leading_zeros());
                prop_assert_eq!(popc(a), a.count_ones());
                prop_assert_eq!(brev(a), a.reverse_bits());
            }
        }
    };
}

/// Any number, with those next to zero, to the ends of the range and to powers of two more often.
fn operand<T: Int>() -> impl Strategy<Value = T> {
    prop_oneof![
        any::<u64>().prop_map(T::from_bits),
        (-3i64..=3).prop_map(|v| T::from_bits(v as u64)),
        (0..T::BITS, -1i64..=1).prop_map(|(n, d)| T::from_bits((1u64 << n).wrapping_add(d as u64))),
    ]
}

arithmetic!(s16, i16);
arithmetic!(u16, u16);
arithmetic!(s32, i32);
arithmetic!(u32, u32);
arithmetic!(s64, i64);
arithmetic!(u64, u64);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]
    #[test]
    fn words(a in operand::<u32>(), b in operand::<u32>(), c in operand::<u32>(), n in 0u32..70, lut: u8) {
        let pair = u64::from(b) << 32 | u64::from(a);
        prop_assert_eq!(shf_l_wrap(a, b, n), (pair << (n % 32) >> 32) as u32);
        prop_assert_eq!(shf_l_clamp(a, b, n), if n >= 32 { a } else { (pair << n >> 32) as u32 });
        prop_assert_eq!(shf_r_wrap(a, b, n), (pair >> (n % 32)) as u32);
        prop_assert_eq!(shf_r_clamp(a, b, n), if n >= 32 { b } else { (pair >> n) as u32 });
        for (p, w) in [(n, c % 40), (c, n), (n, c)] {
            prop_assert_eq!(bmsk_clamp(p, w), bmsk_by_steps(p, w, true));
            prop_assert_eq!(bmsk_wrap(p, w), bmsk_by_steps(p, w, false));
        }
        prop_assert_eq!(szext_clamp(a, n), szext_by_steps(a, n, true, false));
        prop_assert_eq!(szext_wrap(a, n), szext_by_steps(a, n, false, false));
        prop_assert_eq!(szext_clamp(a as i32, n) as u32, szext_by_steps(a, n, true, true));
        prop_assert_eq!(szext_wrap(a as i32, n) as u32, szext_by_steps(a, n, false, true));
        prop_assert_eq!(fns(a, n % 32, c as i32 % 36), fns_by_steps(a, n % 32, c as i32 % 36));
        prop_assert_eq!(fns(a, n % 32, c as i32), fns_by_steps(a, n % 32, c as i32));
        let by_bits = (0..32).fold(0, |d, i| {
            let index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
            d | u32::from(lut >> index & 1) << i
        });
        prop_assert_eq!(lop3(a, b, c, lut), by_bits);
        let signed = |v: u32| i64::from((v << 8) as i32 >> 8);
        prop_assert_eq!(mul24_lo(a as i32, b as i32), (signed(a) * signed(b)) as i32);
        prop_assert_eq!(mul24_hi(a as i32, b as i32), ((signed(a) * signed(b)) >> 16) as i32);
        let unsigned = |v: u32| u64::from(v & 0xff_ffff);
        prop_assert_eq!(mad24_lo(a, b, c), ((unsigned(a) * unsigned(b)) as u32).wrapping_add(c));
        prop_assert_eq!(mad24_hi(a, b, c), (((unsigned(a) * unsigned(b)) >> 16) as u32).wrapping_add(c));
        prop_assert_eq!(mul_wide(a, b), u64::from(a) * u64::from(b));
        prop_assert_eq!(mul_wide(a as i32, b as i32), i64::from(a as i32) * i64::from(b as i32));
        prop_assert_eq!(mad_wide(a as u16, b as u16, c), (u32::from(a as u16) * u32::from(b as u16)).wrapping_add(c));
    }
}

#[test]
fn division_at_the_edges() {
    assert_eq!(div(i32::MIN, -1), i32::MIN);
    assert_eq!(rem(i64::MIN, -1), 0);
    assert_eq!(div(7u32, 0), u32::MAX);
    assert_eq!(div(-7i32, 0), -1);
    assert_eq!(rem(7u64, 0), u64::MAX);
    assert_eq!(div(-7, 2), -3);
    assert_eq!(rem(-7, 2), -1);
}

#[test]
fn saturation() {
    assert_eq!(add_sat_s32(i32::MAX, 1), i32::MAX);
    assert_eq!(sub_sat_s32(i32::MIN, 1), i32::MIN);
    assert_eq!(mad_hi_sat_s32(i32::MIN, i32::MIN, i32::MAX), i32::MAX);
    assert_eq!(mad24_hi_sat_s32(0x7f_ffff, 0x7f_ffff, i32::MAX), i32::MAX);
    assert_eq!(min_relu_s32(-4, 3), 0);
    assert_eq!(max_relu_s32(-4, -3), 0);
    assert_eq!(max_relu_s32(-4, 3), 3);
}

#[test]
fn permutations() {
    let (a, b) = (0x8322_1100, 0x7766_5544);
    assert_eq!(prmt(a, b, 0x3210, Prmt::Default), a);
    assert_eq!(prmt(a, b, 0x7654, Prmt::Default), b);
    assert_eq!(prmt(a, b, 0x0123, Prmt::Default), 0x0011_2283);
    assert_eq!(prmt(a, b, 0xbf80, Prmt::Default), 0xff00_0000);
    let table = [
        (Prmt::F4e, [0x8322_1100, 0x4483_2211, 0x5544_8322, 0x6655_4483]),
        (Prmt::B4e, [0x5566_7700, 0x6677_0011, 0x7700_1122, 0x0011_2283]),
        (Prmt::Rc8, [0x0000_0000, 0x1111_1111, 0x2222_2222, 0x8383_8383]),
        (Prmt::Ecl, [0x8322_1100, 0x8322_1111, 0x8322_2222, 0x8383_8383]),
        (Prmt::Ecr, [0x0000_0000, 0x1111_1100, 0x2222_1100, 0x8322_1100]),
        (Prmt::Rc16, [0x1100_1100, 0x8322_8322, 0x1100_1100, 0x8322_8322]),
    ];
    for (mode, by_selector) in table {
        for (c, want) in by_selector.into_iter().enumerate() {
            assert_eq!(prmt(a, b, c as u32 + 4, mode), want, "{mode:?} {c}");
        }
    }
}

#[test]
fn dot_products() {
    // Bytes of a, low first: 1, 2, -1, 4; of b: 10, 20, 30, -40.
    let (a, b) = (u32::from_le_bytes([1, 2, 0xff, 4]), u32::from_le_bytes([10, 20, 30, 0xd8]));
    assert_eq!(dp4a(a, true, b, true, 100) as i32, 100 + 10 + 40 - 30 - 160);
    assert_eq!(dp4a(a, false, b, false, 0), 10 + 40 + 255 * 30 + 4 * 216);
    assert_eq!(dp4a(a, true, b, false, 0) as i32, 10 + 40 - 30 + 4 * 216);
    // Halves of h: 300, -2.
    let h = 0xfffe_012c;
    assert_eq!(dp2a(h, true, b, true, 5, false) as i32, 5 + 3000 - 40);
    assert_eq!(dp2a(h, true, b, true, 5, true) as i32, 5 + 9000 + 80);
    assert_eq!(dp2a(h, false, b, false, 0, true), 300 * 30 + 65534 * 216);
}

#[test]
fn packed_halves() {
    assert_eq!(add_x2(0xffff_ffff, 0x0001_0002), 0x0000_0001);
    assert_eq!(min_u16x2(0xffff_0001, 0x0001_ffff), 0x0001_0001);
    assert_eq!(max_u16x2(0xffff_0001, 0x0001_ffff), 0xffff_ffff);
    assert_eq!(min_s16x2(0xffff_0001, 0x0001_ffff), 0xffff_ffff);
    assert_eq!(max_s16x2(0xffff_0001, 0x0001_ffff), 0x0001_0001);
    assert_eq!(min_relu_s16x2(0xffff_0005, 0x0001_0007), 0x0000_0005);
    assert_eq!(max_relu_s16x2(0xffff_0005, 0xfff0_0007), 0x0000_0007);
}
