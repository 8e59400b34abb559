//! What `atom`, `red` and their shared-memory and reduction kin compute: the new value from the old one and the
//! operand (PTX ISA, "Parallel Synchronization and Communication Instructions: atom").
//!
//! Pure; the caller makes the exchange atomic, in a loop of compare-and-swap where the host has no such operation.
//! Values are bits in the low end of a `u64`, zero-extended.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a value is the low bits of its register; the type says how many"
)]

use super::half::{self, Bf16, F16, Half};
use super::int::Int;
use super::{FloatMode, float};

/// The operation of `atom` and `red`, `.cas` excepted ([`cas`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomOp {
    /// `.and`.
    And,
    /// `.or`.
    Or,
    /// `.xor`.
    Xor,
    /// `.exch`.
    Exch,
    /// `.add`.
    Add,
    /// `.inc`: up to the operand, then zero.
    Inc,
    /// `.dec`: down to zero, then the operand; the operand too if the old value is above it.
    Dec,
    /// `.min`.
    Min,
    /// `.max`.
    Max,
}

/// The type of `atom` and `red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomType {
    /// `.b16`.
    B16,
    /// `.b32`.
    B32,
    /// `.b64`.
    B64,
    /// `.u32`.
    U32,
    /// `.u64`.
    U64,
    /// `.s32`.
    S32,
    /// `.s64`.
    S64,
    /// `.f16`, always `.noftz`.
    F16,
    /// `.f16x2`, always `.noftz`.
    F16x2,
    /// `.bf16`, always `.noftz`.
    Bf16,
    /// `.bf16x2`, always `.noftz`.
    Bf16x2,
    /// `.f32`; subnormals are kept, as in shared memory.
    F32,
    /// `.f64`.
    F64,
}

impl AtomType {
    /// Bytes in memory.
    pub const fn size(self) -> usize {
        match self {
            Self::B16 | Self::F16 | Self::Bf16 => 2,
            Self::B32 | Self::U32 | Self::S32 | Self::F16x2 | Self::Bf16x2 | Self::F32 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }
}

/// The new value; `None` if there is no such operation on that type.
#[inline(always)]
pub fn apply(op: AtomOp, ty: AtomType, old: u64, b: u64) -> Option<u64> {
    match ty {
        AtomType::B16 | AtomType::B32 | AtomType::B64 => bits(op, old, b),
        AtomType::U32 => integer::<u32>(op, old, b),
        AtomType::S32 => integer::<i32>(op, old, b),
        AtomType::U64 => integer::<u64>(op, old, b),
        AtomType::S64 => integer::<i64>(op, old, b),
        AtomType::F32 => {
            let (x, y) = (f32::from_bits(old as u32), f32::from_bits(b as u32));
            (op == AtomOp::Add).then(|| u64::from(float::add_f32(x, y, FloatMode::RN).to_bits()))
        }
        AtomType::F64 => (op == AtomOp::Add).then(|| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
        AtomType::F16 => one_half::<F16>(op, old as u16, b as u16).map(u64::from),
        AtomType::Bf16 => one_half::<Bf16>(op, old as u16, b as u16).map(u64::from),
        AtomType::F16x2 => two_halves::<F16>(op, old as u32, b as u32),
        AtomType::Bf16x2 => two_halves::<Bf16>(op, old as u32, b as u32),
    }
}

/// `.cas`: `new` if the old value equals `compare`, else the old value.
#[inline(always)]
pub fn cas(old: u64, compare: u64, new: u64) -> u64 {
    if old == compare { new } else { old }
}

#[inline(always)]
fn bits(op: AtomOp, old: u64, b: u64) -> Option<u64> {
    match op {
        AtomOp::And => Some(old & b),
        AtomOp::Or => Some(old | b),
        AtomOp::Xor => Some(old ^ b),
        AtomOp::Exch => Some(b),
        _ => None,
    }
}

#[inline(always)]
fn integer<T: Int>(op: AtomOp, old: u64, b: u64) -> Option<u64> {
    let (x, y) = (T::from_bits(old), T::from_bits(b));
    let new = match op {
        AtomOp::Add => x.wrapping_add(y),
        AtomOp::Min => x.min(y),
        AtomOp::Max => x.max(y),
        AtomOp::Inc if !T::SIGNED => {
            if x >= y {
                T::default()
            } else {
                x.wrapping_add(T::from_bits(1))
            }
        }
        AtomOp::Dec if !T::SIGNED => {
            if x == T::default() || x > y {
                y
            } else {
                x.wrapping_sub(T::from_bits(1))
            }
        }
        AtomOp::Inc | AtomOp::Dec => return None,
        AtomOp::And | AtomOp::Or | AtomOp::Xor | AtomOp::Exch => return bits(op, old, b),
    };
    Some(new.bits())
}

#[inline(always)]
fn one_half<H: Half>(op: AtomOp, old: u16, b: u16) -> Option<u16> {
    match op {
        AtomOp::Add => Some(half::add::<H>(old, b, FloatMode::RN)),
        AtomOp::Min => Some(half::min::<H>(old, b, float::MinMax::default())),
        AtomOp::Max => Some(half::max::<H>(old, b, float::MinMax::default())),
        _ => None,
    }
}

#[inline(always)]
fn two_halves<H: Half>(op: AtomOp, old: u32, b: u32) -> Option<u64> {
    let ([x0, x1], [y0, y1]) = (half::unpack(old), half::unpack(b));
    Some(u64::from(half::pack(one_half::<H>(op, x0, y0)?, one_half::<H>(op, x1, y1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let m1 = u64::from(u32::MAX);
        let cases = [
            (AtomOp::Add, AtomType::U32, m1, 2, 1),
            (AtomOp::Add, AtomType::U64, u64::MAX, 2, 1),
            (AtomOp::Min, AtomType::S32, m1, 5, m1),
            (AtomOp::Min, AtomType::U32, m1, 5, 5),
            (AtomOp::Max, AtomType::S64, u64::MAX, 5, 5),
            (AtomOp::Max, AtomType::U64, u64::MAX, 5, u64::MAX),
            (AtomOp::And, AtomType::B32, 12, 10, 8),
            (AtomOp::Or, AtomType::B64, 12, 10, 14),
            (AtomOp::Xor, AtomType::U32, 12, 10, 6),
            (AtomOp::Exch, AtomType::B64, 12, 10, 10),
            (AtomOp::Inc, AtomType::U32, 4, 5, 5),
            (AtomOp::Inc, AtomType::U32, 5, 5, 0),
            (AtomOp::Inc, AtomType::U32, 9, 5, 0),
            (AtomOp::Dec, AtomType::U32, 4, 5, 3),
            (AtomOp::Dec, AtomType::U32, 0, 5, 5),
            (AtomOp::Dec, AtomType::U32, 9, 5, 5),
        ];
        for (op, ty, old, b, new) in cases {
            assert_eq!(apply(op, ty, old, b), Some(new), "{op:?} {ty:?}");
        }
        assert_eq!(apply(AtomOp::Inc, AtomType::S32, 1, 2), None);
        assert_eq!(apply(AtomOp::Add, AtomType::B32, 1, 2), None);
        assert_eq!(apply(AtomOp::Min, AtomType::F32, 1, 2), None);
    }

    #[test]
    fn floats() {
        let f = |x: f32| u64::from(x.to_bits());
        assert_eq!(apply(AtomOp::Add, AtomType::F32, f(1.5), f(2.0)), Some(f(3.5)));
        assert_eq!(
            apply(AtomOp::Add, AtomType::F64, 1.5f64.to_bits(), 2f64.to_bits()),
            Some(3.5f64.to_bits())
        );
        assert_eq!(apply(AtomOp::Add, AtomType::F16x2, 0x3c00_4000, 0x3c00_3c00), Some(0x4000_4200));
        assert_eq!(apply(AtomOp::Add, AtomType::Bf16, 0x3f80, 0x3f80), Some(0x4000));
        assert_eq!(apply(AtomOp::Max, AtomType::Bf16x2, 0x3f80_0000, 0x0000_4000), Some(0x3f80_4000));
    }

    #[test]
    fn compare_and_swap() {
        assert_eq!(cas(3, 3, 9), 9);
        assert_eq!(cas(4, 3, 9), 4);
    }

    #[test]
    fn sizes() {
        assert_eq!(AtomType::Bf16.size(), 2);
        assert_eq!(AtomType::F16x2.size(), 4);
        assert_eq!(AtomType::F64.size(), 8);
    }
}
