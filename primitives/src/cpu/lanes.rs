//! One operation over all threads of a block. The semantics are those of [`crate::arith`]; the loops are plain, so
//! that the compiler makes vector code of them.

use crate::arith;
use crate::ir::{BinaryOp, CompareOp, UnaryOp};
use crate::types::Scalar;

/// The values of an expression, one for each thread: 32 bits each, or 64 for doubles.
#[derive(Debug, Clone)]
pub(super) enum Lanes {
    Words(Vec<u32>),
    Longs(Vec<u64>),
}

impl Lanes {
    pub(super) fn constant(ty: Scalar, bits: u64, lanes: usize) -> Self {
        match ty {
            Scalar::Double => Self::Longs(vec![bits; lanes]),
            _ => Self::Words(vec![arith::low(bits); lanes]),
        }
    }

    pub(super) fn words(&self) -> &[u32] {
        match self {
            Self::Words(words) => words,
            Self::Longs(_) => unreachable!("the checker gives doubles to operations on doubles only"),
        }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Words(words) => words,
            Self::Longs(_) => unreachable!("the checker gives doubles to operations on doubles only"),
        }
    }

    fn longs(&self) -> &[u64] {
        match self {
            Self::Longs(longs) => longs,
            Self::Words(_) => unreachable!("the checker gives doubles to operations on doubles"),
        }
    }

    fn longs_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Longs(longs) => longs,
            Self::Words(_) => unreachable!("the checker gives doubles to operations on doubles"),
        }
    }

    /// One thread's value.
    #[inline]
    pub(super) fn get(&self, lane: usize) -> u64 {
        match self {
            Self::Words(words) => u64::from(words[lane]),
            Self::Longs(longs) => longs[lane],
        }
    }

    #[inline]
    pub(super) fn set(&mut self, lane: usize, bits: u64) {
        match self {
            Self::Words(words) => words[lane] = arith::low(bits),
            Self::Longs(longs) => longs[lane] = bits,
        }
    }

    /// Takes over the values of some threads.
    pub(super) fn blend(&mut self, from: &Self, mask: &[bool]) {
        match (self, from) {
            (Self::Words(to), Self::Words(from)) => {
                for ((to, from), take) in to.iter_mut().zip(from).zip(mask) {
                    *to = if *take { *from } else { *to };
                }
            }
            (Self::Longs(to), Self::Longs(from)) => {
                for ((to, from), take) in to.iter_mut().zip(from).zip(mask) {
                    *to = if *take { *from } else { *to };
                }
            }
            _ => unreachable!("a variable keeps its type"),
        }
    }
}

#[inline]
fn each(a: &mut [u32], f: impl Fn(u32) -> u32) {
    for x in a {
        *x = f(*x);
    }
}

#[inline]
fn both(a: &mut [u32], b: &[u32], f: impl Fn(u32, u32) -> u32) {
    for (x, y) in a.iter_mut().zip(b) {
        *x = f(*x, *y);
    }
}

#[inline]
fn floats(a: &mut [u32], b: &[u32], f: impl Fn(f32, f32) -> f32) {
    both(a, b, |x, y| f(f32::from_bits(x), f32::from_bits(y)).to_bits());
}

#[inline]
fn ints(a: &mut [u32], b: &[u32], f: impl Fn(i32, i32) -> i32) {
    both(a, b, |x, y| f(x.cast_signed(), y.cast_signed()).cast_unsigned());
}

#[inline]
fn doubles(a: &mut [u64], b: &[u64], f: impl Fn(f64, f64) -> f64) {
    for (x, y) in a.iter_mut().zip(b) {
        *x = f(f64::from_bits(*x), f64::from_bits(*y)).to_bits();
    }
}

pub(super) fn unary(op: UnaryOp, ty: Scalar, a: &mut Lanes) {
    match (ty, a) {
        (Scalar::Float, Lanes::Words(a)) => {
            let apply = |a: &mut [u32], f: fn(f32) -> f32| each(a, |x| f(f32::from_bits(x)).to_bits());
            match op {
                UnaryOp::Neg => each(a, |x| x ^ 0x8000_0000),
                UnaryOp::Abs => each(a, |x| x & 0x7fff_ffff),
                UnaryOp::Sqrt => each(a, |x| arith::canonical(f32::from_bits(x).sqrt()).to_bits()),
                UnaryOp::Floor => apply(a, f32::floor),
                UnaryOp::Ceil => apply(a, f32::ceil),
                UnaryOp::Round => apply(a, f32::round_ties_even),
                UnaryOp::Not | UnaryOp::Invert => {}
            }
        }
        (_, Lanes::Words(a)) => each(a, |x| arith::low(arith::unary(op, ty, u64::from(x)))),
        (_, Lanes::Longs(a)) => {
            for x in a {
                *x = arith::unary(op, ty, *x);
            }
        }
    }
}

pub(super) fn binary(op: BinaryOp, ty: Scalar, a: &mut Lanes, b: &Lanes) {
    match ty {
        Scalar::Float => {
            let (a, b) = (a.words_mut(), b.words());
            match op {
                BinaryOp::Add => floats(a, b, |x, y| x + y),
                BinaryOp::Sub => floats(a, b, |x, y| x - y),
                BinaryOp::Mul => floats(a, b, |x, y| x * y),
                BinaryOp::Div => floats(a, b, |x, y| x / y),
                BinaryOp::Min => floats(a, b, arith::min_float),
                BinaryOp::Max => floats(a, b, arith::max_float),
                _ => unreachable!("not defined for floats"),
            }
        }
        Scalar::Double => {
            let (a, b) = (a.longs_mut(), b.longs());
            match op {
                BinaryOp::Add => doubles(a, b, |x, y| x + y),
                BinaryOp::Sub => doubles(a, b, |x, y| x - y),
                BinaryOp::Mul => doubles(a, b, |x, y| x * y),
                BinaryOp::Div => doubles(a, b, |x, y| x / y),
                BinaryOp::Min => doubles(a, b, arith::min_double),
                BinaryOp::Max => doubles(a, b, arith::max_double),
                _ => unreachable!("not defined for doubles"),
            }
        }
        _ => {
            let (a, b) = (a.words_mut(), b.words());
            match (op, ty) {
                (BinaryOp::Add, _) => both(a, b, u32::wrapping_add),
                (BinaryOp::Sub, _) => both(a, b, u32::wrapping_sub),
                (BinaryOp::Mul, _) => both(a, b, u32::wrapping_mul),
                (BinaryOp::And, _) => both(a, b, |x, y| x & y),
                (BinaryOp::Or, _) => both(a, b, |x, y| x | y),
                (BinaryOp::Xor, _) => both(a, b, |x, y| x ^ y),
                (BinaryOp::Shl, _) => both(a, b, arith::shl),
                (BinaryOp::Rotr, _) => both(a, b, |x, y| x.rotate_right(y & 31)),
                (BinaryOp::Shr, Scalar::Int) => ints(a, b, |x, y| arith::sar(x, y.cast_unsigned())),
                (BinaryOp::Min, Scalar::Int) => ints(a, b, i32::min),
                (BinaryOp::Max, Scalar::Int) => ints(a, b, i32::max),
                (BinaryOp::Div, Scalar::Int) => ints(a, b, arith::div_int),
                (BinaryOp::Rem, Scalar::Int) => ints(a, b, arith::rem_int),
                (BinaryOp::Shr, _) => both(a, b, arith::shr),
                (BinaryOp::Min, _) => both(a, b, u32::min),
                (BinaryOp::Max, _) => both(a, b, u32::max),
                (BinaryOp::Div, _) => both(a, b, arith::div_uint),
                (BinaryOp::Rem, _) => both(a, b, arith::rem_uint),
            }
        }
    }
}

pub(super) fn compare(op: CompareOp, ty: Scalar, a: Lanes, b: &Lanes) -> Lanes {
    fn fill<T: PartialOrd + Copy>(op: CompareOp, a: &mut [u32], b: &[u32], view: impl Fn(u32) -> T) {
        match op {
            CompareOp::Lt => both(a, b, |x, y| u32::from(view(x) < view(y))),
            CompareOp::Le => both(a, b, |x, y| u32::from(view(x) <= view(y))),
            CompareOp::Gt => both(a, b, |x, y| u32::from(view(x) > view(y))),
            CompareOp::Ge => both(a, b, |x, y| u32::from(view(x) >= view(y))),
            CompareOp::Eq => both(a, b, |x, y| u32::from(view(x) == view(y))),
            CompareOp::Ne => both(a, b, |x, y| u32::from(view(x) != view(y))),
        }
    }
    match a {
        Lanes::Longs(a) => Lanes::Words(
            a.iter().zip(b.longs()).map(|(x, y)| u32::from(arith::compare(op, ty, *x, *y))).collect(),
        ),
        Lanes::Words(mut a) => {
            match ty {
                Scalar::Int => fill(op, &mut a, b.words(), u32::cast_signed),
                Scalar::Float => fill(op, &mut a, b.words(), f32::from_bits),
                _ => fill(op, &mut a, b.words(), |x| x),
            }
            Lanes::Words(a)
        }
    }
}

pub(super) fn fma(ty: Scalar, a: &mut Lanes, b: &Lanes, c: &Lanes) {
    match ty {
        Scalar::Double => {
            for ((x, y), z) in a.longs_mut().iter_mut().zip(b.longs()).zip(c.longs()) {
                *x = f64::from_bits(*x).mul_add(f64::from_bits(*y), f64::from_bits(*z)).to_bits();
            }
        }
        Scalar::Float => {
            for ((x, y), z) in a.words_mut().iter_mut().zip(b.words()).zip(c.words()) {
                *x = arith::fma_float(f32::from_bits(*x), f32::from_bits(*y), f32::from_bits(*z)).to_bits();
            }
        }
        _ => {
            for ((x, y), z) in a.words_mut().iter_mut().zip(b.words()).zip(c.words()) {
                *x = x.wrapping_mul(*y).wrapping_add(*z);
            }
        }
    }
}

pub(super) fn cast(from: Scalar, to: Scalar, a: Lanes) -> Lanes {
    match (a, to == Scalar::Double) {
        (Lanes::Words(mut a), false) => {
            match (from, to) {
                (Scalar::Int, Scalar::Float) => each(&mut a, |x| {
                    #[expect(clippy::cast_precision_loss, reason = "rounds to nearest, as asked")]
                    let value = x.cast_signed() as f32;
                    value.to_bits()
                }),
                _ => each(&mut a, |x| arith::low(arith::cast(from, to, u64::from(x)))),
            }
            Lanes::Words(a)
        }
        (Lanes::Words(a), true) => {
            Lanes::Longs(a.iter().map(|x| arith::cast(from, to, u64::from(*x))).collect())
        }
        (Lanes::Longs(a), false) => {
            Lanes::Words(a.iter().map(|x| arith::low(arith::cast(from, to, *x))).collect())
        }
        (longs, true) => longs,
    }
}
