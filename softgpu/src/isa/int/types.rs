//! The integer types of PTX as a trait, so that each instruction is written once.

use std::fmt::Debug;
use std::hash::Hash;

/// A PTX integer type: `.u8` to `.u64`, `.s8` to `.s64`.
pub trait Int: Copy + Ord + Default + Debug + Hash + Send + Sync + 'static {
    /// Width in bits.
    const BITS: u32;
    /// Whether the type is `.sNN`.
    const SIGNED: bool;
    /// The low `BITS` bits of `v`.
    fn from_bits(v: u64) -> Self;
    /// The value's bits, zero-extended.
    fn bits(self) -> u64;
    /// The value, sign- or zero-extended according to the type.
    fn value(self) -> i128;
    /// Two's-complement sum.
    fn wrapping_add(self, b: Self) -> Self;
    /// Two's-complement difference.
    fn wrapping_sub(self, b: Self) -> Self;
    /// Low half of the product.
    fn wrapping_mul(self, b: Self) -> Self;
    /// High half of the product.
    fn high_mul(self, b: Self) -> Self;
    /// Quotient towards zero; all ones for a zero divisor.
    fn quotient(self, b: Self) -> Self;
    /// Remainder with the sign of the dividend; all ones for a zero divisor.
    fn remainder(self, b: Self) -> Self;
    /// Shift left; `n < BITS`.
    fn shift_left(self, n: u32) -> Self;
    /// Shift right, arithmetic for signed types; `n < BITS`.
    fn shift_right(self, n: u32) -> Self;
    /// Order of the bits as an unsigned number.
    fn unsigned_cmp(self, b: Self) -> std::cmp::Ordering;
}

macro_rules! int {
    ($t:ty, $wide:ty, $signed:literal, |$v:ident| $unsigned:expr, |$b:ident| $from:expr) => {
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            const SIGNED: bool = $signed;
            #[inline(always)]
            fn from_bits($b: u64) -> Self {
                $from
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                let $v = self;
                u64::from($unsigned)
            }
            #[inline(always)]
            fn value(self) -> i128 {
                i128::from(self)
            }
            #[inline(always)]
            fn wrapping_add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn wrapping_sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }
            #[inline(always)]
            fn wrapping_mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn high_mul(self, b: Self) -> Self {
                ((<$wide>::from(self) * <$wide>::from(b)) >> Self::BITS) as Self
            }
            #[inline(always)]
            fn quotient(self, b: Self) -> Self {
                if b == 0 { !0 } else { self.wrapping_div(b) }
            }
            #[inline(always)]
            fn remainder(self, b: Self) -> Self {
                if b == 0 { !0 } else { self.wrapping_rem(b) }
            }
            #[inline(always)]
            fn shift_left(self, n: u32) -> Self {
                self.wrapping_shl(n)
            }
            #[inline(always)]
            fn shift_right(self, n: u32) -> Self {
                self.wrapping_shr(n)
            }
            #[inline(always)]
            fn unsigned_cmp(self, b: Self) -> std::cmp::Ordering {
                self.bits().cmp(&b.bits())
            }
        }
    };
}
int!(u8, u16, false, |v| v, |b| b as Self);
int!(i8, i16, true, |v| v.cast_unsigned(), |b| b as Self);
int!(u16, u32, false, |v| v, |b| b as Self);
int!(i16, i32, true, |v| v.cast_unsigned(), |b| b as Self);
int!(u32, u64, false, |v| v, |b| b as Self);
int!(i32, i64, true, |v| v.cast_unsigned(), |b| b as Self);
int!(u64, u128, false, |v| v, |b| b);
int!(i64, i128, true, |v| v.cast_unsigned(), |b| b as Self);

/// An integer type with a type of twice its width, for `mul.wide` and `mad.wide`.
pub trait Widen: Int {
    /// The type of twice the width and the same signedness.
    type Wide: Int;
    /// Sign- or zero-extends.
    fn widen(self) -> Self::Wide;
}
macro_rules! widen {
    ($($t:ty => $w:ty),*) => { $(impl Widen for $t {
        type Wide = $w;
        #[inline(always)]
        fn widen(self) -> $w { <$w>::from(self) }
    })* };
}
widen!(u8 => u16, i8 => i16, u16 => u32, i16 => i32, u32 => u64, i32 => i64);
