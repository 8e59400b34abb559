//! Integer arithmetic, bit and shift instructions (PTX ISA, "Integer Arithmetic Instructions", "Extended-Precision
//! Integer Arithmetic Instructions", "Logic and Shift Instructions").
//!
//! Pure; every function is total. Generic functions work on the two's-complement types of [`Int`]; a `.bNN`
//! operand is passed as the unsigned type of its width.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "PTX integer instructions are defined on bits; reinterpreting and narrowing is their job"
)]

mod types;

pub use types::{Int, Widen};

// ---- Arithmetic ------------------------------------------------------------------------------------------

/// `add` (PTX ISA, "add"): wraps.
#[inline(always)]
pub fn add<T: Int>(a: T, b: T) -> T {
    a.wrapping_add(b)
}

/// `sub` (PTX ISA, "sub"): wraps.
#[inline(always)]
pub fn sub<T: Int>(a: T, b: T) -> T {
    a.wrapping_sub(b)
}

/// `add.sat.s32` (PTX ISA, "add"): clamps to the range of `.s32`.
#[inline(always)]
pub fn add_sat_s32(a: i32, b: i32) -> i32 {
    a.saturating_add(b)
}

/// `sub.sat.s32` (PTX ISA, "sub"): clamps to the range of `.s32`.
#[inline(always)]
pub fn sub_sat_s32(a: i32, b: i32) -> i32 {
    a.saturating_sub(b)
}

/// `mul.lo` (PTX ISA, "mul").
#[inline(always)]
pub fn mul_lo<T: Int>(a: T, b: T) -> T {
    a.wrapping_mul(b)
}

/// `mul.hi` (PTX ISA, "mul").
#[inline(always)]
pub fn mul_hi<T: Int>(a: T, b: T) -> T {
    a.high_mul(b)
}

/// `mul.wide` (PTX ISA, "mul"): the whole product.
#[inline(always)]
pub fn mul_wide<T: Widen>(a: T, b: T) -> T::Wide {
    a.widen().wrapping_mul(b.widen())
}

/// `mad.lo` (PTX ISA, "mad").
#[inline(always)]
pub fn mad_lo<T: Int>(a: T, b: T, c: T) -> T {
    a.wrapping_mul(b).wrapping_add(c)
}

/// `mad.hi` (PTX ISA, "mad").
#[inline(always)]
pub fn mad_hi<T: Int>(a: T, b: T, c: T) -> T {
    a.high_mul(b).wrapping_add(c)
}

/// `mad.wide` (PTX ISA, "mad").
#[inline(always)]
pub fn mad_wide<T: Widen>(a: T, b: T, c: T::Wide) -> T::Wide {
    mul_wide(a, b).wrapping_add(c)
}

/// `mad.hi.sat.s32` (PTX ISA, "mad"): the final sum clamps.
#[inline(always)]
pub fn mad_hi_sat_s32(a: i32, b: i32, c: i32) -> i32 {
    a.high_mul(b).saturating_add(c)
}

/// The low 24 bits, extended by the signedness of `T`.
#[inline(always)]
fn low24<T: Int>(a: T) -> i64 {
    if T::SIGNED { ((a.bits() << 40) as i64) >> 40 } else { (a.bits() & 0xff_ffff) as i64 }
}

/// `mul24.lo` (PTX ISA, "mul24"): the low 32 bits of the 48-bit product of two 24-bit numbers.
#[inline(always)]
pub fn mul24_lo<T: Int>(a: T, b: T) -> T {
    T::from_bits(low24(a).wrapping_mul(low24(b)) as u64)
}

/// `mul24.hi` (PTX ISA, "mul24"): the high 32 bits of the 48-bit product of two 24-bit numbers.
#[inline(always)]
pub fn mul24_hi<T: Int>(a: T, b: T) -> T {
    T::from_bits((low24(a).wrapping_mul(low24(b)) >> 16) as u64)
}

/// `mad24.lo` (PTX ISA, "mad24").
#[inline(always)]
pub fn mad24_lo<T: Int>(a: T, b: T, c: T) -> T {
    mul24_lo(a, b).wrapping_add(c)
}

/// `mad24.hi` (PTX ISA, "mad24").
#[inline(always)]
pub fn mad24_hi<T: Int>(a: T, b: T, c: T) -> T {
    mul24_hi(a, b).wrapping_add(c)
}

/// `mad24.hi.sat.s32` (PTX ISA, "mad24").
#[inline(always)]
pub fn mad24_hi_sat_s32(a: i32, b: i32, c: i32) -> i32 {
    mul24_hi(a, b).saturating_add(c)
}

/// `div` (PTX ISA, "div"): towards zero. PTX leaves division by zero open; the device gives all ones.
#[inline(always)]
pub fn div<T: Int>(a: T, b: T) -> T {
    a.quotient(b)
}

/// `rem` (PTX ISA, "rem"): sign of the dividend. PTX leaves a zero divisor open; the device gives all ones.
#[inline(always)]
pub fn rem<T: Int>(a: T, b: T) -> T {
    a.remainder(b)
}

/// `abs` (PTX ISA, "abs"): the most negative number stays.
#[inline(always)]
pub fn abs<T: Int>(a: T) -> T {
    if T::SIGNED && a < T::default() { neg(a) } else { a }
}

/// `neg` (PTX ISA, "neg"): wraps.
#[inline(always)]
pub fn neg<T: Int>(a: T) -> T {
    T::default().wrapping_sub(a)
}

/// `min` (PTX ISA, "min").
#[inline(always)]
pub fn min<T: Int>(a: T, b: T) -> T {
    if b < a { b } else { a }
}

/// `max` (PTX ISA, "max").
#[inline(always)]
pub fn max<T: Int>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

/// `min.relu.s32` (PTX ISA, "min"): negative results become zero.
#[inline(always)]
pub fn min_relu_s32(a: i32, b: i32) -> i32 {
    a.min(b).max(0)
}

/// `max.relu.s32` (PTX ISA, "max"): negative results become zero.
#[inline(always)]
pub fn max_relu_s32(a: i32, b: i32) -> i32 {
    a.max(b).max(0)
}

/// `sad` (PTX ISA, "sad"): `c + |a - b|`.
#[inline(always)]
pub fn sad<T: Int>(a: T, b: T, c: T) -> T {
    c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
}

// ---- Extended precision ----------------------------------------------------------------------------------

/// `addc.cc` (PTX ISA, "addc"): sum with carry in, and the carry out. `add.cc` is this with no carry in.
#[inline(always)]
pub fn addc<T: Int>(a: T, b: T, carry: bool) -> (T, bool) {
    let wide = u128::from(a.bits()) + u128::from(b.bits()) + u128::from(carry);
    (T::from_bits(wide as u64), wide >> T::BITS != 0)
}

/// `subc.cc` (PTX ISA, "subc"): difference with borrow in, and the borrow out. `sub.cc` is this with no borrow in.
#[inline(always)]
pub fn subc<T: Int>(a: T, b: T, borrow: bool) -> (T, bool) {
    let wide = i128::from(a.bits()) - i128::from(b.bits()) - i128::from(borrow);
    (T::from_bits(wide as u64), wide < 0)
}

/// `madc.lo.cc` (PTX ISA, "madc"): low half of the product, plus `c`, plus the carry in; and the carry out.
#[inline(always)]
pub fn madc_lo<T: Int>(a: T, b: T, c: T, carry: bool) -> (T, bool) {
    addc(mul_lo(a, b), c, carry)
}

/// `madc.hi.cc` (PTX ISA, "madc"): high half of the product, plus `c`, plus the carry in; and the carry out.
#[inline(always)]
pub fn madc_hi<T: Int>(a: T, b: T, c: T, carry: bool) -> (T, bool) {
    addc(mul_hi(a, b), c, carry)
}

// ---- Shifts ----------------------------------------------------------------------------------------------

/// `shl` (PTX ISA, "shl"): a shift of the width or more gives zero.
#[inline(always)]
pub fn shl<T: Int>(a: T, n: u32) -> T {
    if n >= T::BITS { T::default() } else { a.shift_left(n) }
}

/// `shr` (PTX ISA, "shr"): a shift of the width or more gives zero, or all sign bits for a signed type.
#[inline(always)]
pub fn shr<T: Int>(a: T, n: u32) -> T {
    if T::SIGNED {
        a.shift_right(n.min(T::BITS - 1))
    } else if n >= T::BITS {
        T::default()
    } else {
        a.shift_right(n)
    }
}

/// The pair `[b, a]` as 64 bits: the operand of the funnel shifts.
#[inline(always)]
fn funnel(a: u32, b: u32) -> u64 {
    u64::from(b) << 32 | u64::from(a)
}

/// `shf.l.wrap.b32` (PTX ISA, "shf"): the high word of `[b, a] << (c & 31)`.
#[inline(always)]
pub fn shf_l_wrap(a: u32, b: u32, c: u32) -> u32 {
    (funnel(a, b) << (c & 31) >> 32) as u32
}

/// `shf.l.clamp.b32` (PTX ISA, "shf"): the high word of `[b, a] << min(c, 32)`.
#[inline(always)]
pub fn shf_l_clamp(a: u32, b: u32, c: u32) -> u32 {
    (funnel(a, b) << c.min(32) >> 32) as u32
}

/// `shf.r.wrap.b32` (PTX ISA, "shf"): the low word of `[b, a] >> (c & 31)`.
#[inline(always)]
pub fn shf_r_wrap(a: u32, b: u32, c: u32) -> u32 {
    (funnel(a, b) >> (c & 31)) as u32
}

/// `shf.r.clamp.b32` (PTX ISA, "shf"): the low word of `[b, a] >> min(c, 32)`.
#[inline(always)]
pub fn shf_r_clamp(a: u32, b: u32, c: u32) -> u32 {
    (funnel(a, b) >> c.min(32)) as u32
}

// ---- Bit fields ------------------------------------------------------------------------------------------

/// The two counts of a bit field instruction: their low 8 bits, and for a 64-bit type, whatever PTX says, all of
/// them (measured; cut at 256 all the same, which is beyond any bit).
#[inline(always)]
fn field<T: Int>(pos: u32, len: u32) -> (u32, u32) {
    if T::BITS == 64 { (pos.min(256), len.min(256)) } else { (pos & 0xff, len & 0xff) }
}

/// `bfe` (PTX ISA, "bfe"): `len` bits of `a` from bit `pos`, sign-extended for a signed type.
#[inline(always)]
pub fn bfe<T: Int>(a: T, pos: u32, len: u32) -> T {
    let (pos, len) = field::<T>(pos, len);
    if len == 0 {
        return T::default();
    }
    if T::SIGNED {
        // The sign bit of the field, or the top bit where the field reaches past it.
        let end = (pos + len).min(T::BITS);
        if pos >= T::BITS {
            return shr(a, T::BITS - 1);
        }
        a.shift_left(T::BITS - end).shift_right(T::BITS - end + pos)
    } else {
        let rest = shr(a, pos).bits();
        T::from_bits(if len >= 64 { rest } else { rest & ((1 << len) - 1) })
    }
}

/// `bfi` (PTX ISA, "bfi"): `b` with its `len` bits from bit `pos` replaced by the low bits of `a`.
#[inline(always)]
pub fn bfi<T: Int>(a: T, b: T, pos: u32, len: u32) -> T {
    let (pos, len) = field::<T>(pos, len);
    if pos >= T::BITS {
        return b;
    }
    let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = ones << pos;
    T::from_bits(a.bits() << pos & mask | b.bits() & !mask)
}

/// `bfind` (PTX ISA, "bfind"): position of the highest bit that differs from the sign (or from zero, for an
/// unsigned type); `0xffffffff` when there is none.
#[inline(always)]
pub fn bfind<T: Int>(a: T) -> u32 {
    let v = if T::SIGNED && a < T::default() { !a.bits() & (u64::MAX >> (64 - T::BITS)) } else { a.bits() };
    if v == 0 { u32::MAX } else { v.ilog2() }
}

/// `bfind.shiftamt` (PTX ISA, "bfind"): how far to shift left so that the found bit is the highest.
#[inline(always)]
pub fn bfind_shiftamt<T: Int>(a: T) -> u32 {
    let d = bfind(a);
    if d == u32::MAX { d } else { T::BITS - 1 - d }
}

/// `clz` (PTX ISA, "clz").
#[inline(always)]
pub fn clz<T: Int>(a: T) -> u32 {
    a.bits().leading_zeros() - (64 - T::BITS)
}

/// `popc` (PTX ISA, "popc").
#[inline(always)]
pub fn popc<T: Int>(a: T) -> u32 {
    a.bits().count_ones()
}

/// `brev` (PTX ISA, "brev").
#[inline(always)]
pub fn brev<T: Int>(a: T) -> T {
    T::from_bits(a.bits().reverse_bits() >> (64 - T::BITS))
}

/// `bmsk.wrap.b32` (PTX ISA, "bmsk"): `b & 31` ones from bit `a & 31`.
#[inline(always)]
pub fn bmsk_wrap(a: u32, b: u32) -> u32 {
    (((1u64 << (b & 31)) - 1) << (a & 31)) as u32
}

/// `bmsk.clamp.b32` (PTX ISA, "bmsk"): `min(b, 32)` ones from bit `a`.
#[inline(always)]
pub fn bmsk_clamp(a: u32, b: u32) -> u32 {
    (((1u64 << b.min(32)) - 1) << a.min(32)) as u32
}

/// `szext.wrap` (PTX ISA, "szext"): sign- or zero-extends the low `b & 31` bits of a 32-bit `a`.
#[inline(always)]
pub fn szext_wrap<T: Int>(a: T, b: u32) -> T {
    bfe(a, 0, b & 31)
}

/// `szext.clamp` (PTX ISA, "szext"): sign- or zero-extends the low `min(b, 32)` bits of a 32-bit `a`.
#[inline(always)]
pub fn szext_clamp<T: Int>(a: T, b: u32) -> T {
    bfe(a, 0, b.min(T::BITS))
}

/// `fns.b32` (PTX ISA, "fns"): position of the `|offset|`-th set bit of `mask` from bit `base`, upwards for a
/// positive offset, downwards for a negative one; with offset 0, `base` if that bit is set. `0xffffffff` if none.
#[inline]
pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if base >= 32 {
        return u32::MAX; // PTX: the base must lie in the mask
    }
    if offset == 0 {
        return if mask >> base & 1 == 1 { base } else { u32::MAX };
    }
    let upwards = offset > 0;
    let mut rest = if upwards { mask >> base << base } else { mask << (31 - base) >> (31 - base) };
    for _ in 1..offset.unsigned_abs().min(33) {
        rest = if upwards { rest & rest.wrapping_sub(1) } else { rest ^ highest(rest) };
    }
    if rest == 0 {
        u32::MAX
    } else if upwards {
        rest.trailing_zeros()
    } else {
        rest.ilog2()
    }
}

/// The highest set bit alone; 0 for 0.
fn highest(v: u32) -> u32 {
    if v == 0 { 0 } else { 1 << v.ilog2() }
}

// ---- Bytes and logic -------------------------------------------------------------------------------------

/// The mode of `prmt` (PTX ISA, "prmt").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prmt {
    /// No mode: four selectors, each three bits of byte number and one that replicates the sign.
    #[default]
    Default,
    /// `.f4e`: forward 4 extract.
    F4e,
    /// `.b4e`: backward 4 extract.
    B4e,
    /// `.rc8`: replicate 8.
    Rc8,
    /// `.ecl`: edge clamp left.
    Ecl,
    /// `.ecr`: edge clamp right.
    Ecr,
    /// `.rc16`: replicate 16.
    Rc16,
}

/// `prmt.b32` (PTX ISA, "prmt"): four bytes picked out of the eight of `[b, a]`.
#[inline(always)]
pub fn prmt(a: u32, b: u32, c: u32, mode: Prmt) -> u32 {
    // For every mode but the default, the equivalent selectors by c[1:0], byte 3 first.
    let selector = match mode {
        Prmt::Default => c,
        Prmt::F4e => [0x3210, 0x4321, 0x5432, 0x6543][(c & 3) as usize],
        Prmt::B4e => [0x5670, 0x6701, 0x7012, 0x0123][(c & 3) as usize],
        Prmt::Rc8 => [0x0000, 0x1111, 0x2222, 0x3333][(c & 3) as usize],
        Prmt::Ecl => [0x3210, 0x3211, 0x3222, 0x3333][(c & 3) as usize],
        Prmt::Ecr => [0x0000, 0x1110, 0x2210, 0x3210][(c & 3) as usize],
        Prmt::Rc16 => [0x1010, 0x3232, 0x1010, 0x3232][(c & 3) as usize],
    };
    let bytes = funnel(a, b);
    let pick = |i: u32| {
        let s = selector >> (4 * i) & 0xf;
        let byte = (bytes >> (8 * (s & 7))) as u8;
        let byte = if s & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        u32::from(byte) << (8 * i)
    };
    pick(0) | pick(1) | pick(2) | pick(3)
}

/// `lop3.b32` (PTX ISA, "lop3"): bit `a·4 + b·2 + c` of the table, for each bit position.
#[inline(always)]
pub fn lop3(a: u32, b: u32, c: u32, lut: u8) -> u32 {
    // A term per table entry; the entries as masks, so that a loop over lanes hoists them.
    let term = |i: u8, x: u32| x & 0u32.wrapping_sub(u32::from(lut >> i & 1));
    term(0, !a & !b & !c)
        | term(1, !a & !b & c)
        | term(2, !a & b & !c)
        | term(3, !a & b & c)
        | term(4, a & !b & !c)
        | term(5, a & !b & c)
        | term(6, a & b & !c)
        | term(7, a & b & c)
}

/// Byte `i` of `v` as a number.
#[inline(always)]
fn byte(v: u32, signed: bool, i: u32) -> i32 {
    let b = (v >> (8 * i)) as u8;
    if signed { i32::from(b as i8) } else { i32::from(b) }
}

/// `dp4a` (PTX ISA, "dp4a"): dot product of four bytes, added to `c`.
#[inline(always)]
pub fn dp4a(a: u32, a_signed: bool, b: u32, b_signed: bool, c: u32) -> u32 {
    (0..4).fold(c, |sum, i| sum.wrapping_add((byte(a, a_signed, i) * byte(b, b_signed, i)) as u32))
}

/// `dp2a` (PTX ISA, "dp2a"): dot product of the two halves of `a` and two bytes of `b` (the upper two with `hi`),
/// added to `c`.
#[inline(always)]
pub fn dp2a(a: u32, a_signed: bool, b: u32, b_signed: bool, c: u32, hi: bool) -> u32 {
    let half = |i: u32| {
        let h = (a >> (16 * i)) as u16;
        if a_signed { i32::from(h as i16) } else { i32::from(h) }
    };
    let first = if hi { 2 } else { 0 };
    (0..2).fold(c, |sum, i| sum.wrapping_add((half(i) * byte(b, b_signed, first + i)) as u32))
}

// ---- Packed 16-bit ---------------------------------------------------------------------------------------

/// Applies `f` to both 16-bit halves.
#[inline(always)]
fn halves(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16 | u32::from(f(a as u16, b as u16))
}

/// `add.{u16x2,s16x2}` (PTX ISA, "add"): no carry between the halves.
#[inline(always)]
pub fn add_x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::wrapping_add)
}

/// `min.u16x2` (PTX ISA, "min").
#[inline(always)]
pub fn min_u16x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::min)
}

/// `max.u16x2` (PTX ISA, "max").
#[inline(always)]
pub fn max_u16x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::max)
}

/// `min.s16x2` (PTX ISA, "min").
#[inline(always)]
pub fn min_s16x2(a: u32, b: u32) -> u32 {
    halves(a, b, |x, y| (x as i16).min(y as i16) as u16)
}

/// `max.s16x2` (PTX ISA, "max").
#[inline(always)]
pub fn max_s16x2(a: u32, b: u32) -> u32 {
    halves(a, b, |x, y| (x as i16).max(y as i16) as u16)
}

/// `min.relu.s16x2` (PTX ISA, "min"): negative results become zero.
#[inline(always)]
pub fn min_relu_s16x2(a: u32, b: u32) -> u32 {
    halves(a, b, |x, y| (x as i16).min(y as i16).max(0) as u16)
}

/// `max.relu.s16x2` (PTX ISA, "max"): negative results become zero.
#[inline(always)]
pub fn max_relu_s16x2(a: u32, b: u32) -> u32 {
    halves(a, b, |x, y| (x as i16).max(y as i16).max(0) as u16)
}

#[cfg(test)]
mod tests;
