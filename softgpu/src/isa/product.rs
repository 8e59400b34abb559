//! The products that programs spend their time with, as straight loops over arrays of known size: what [`Mma::run`] computes
//! for any shape, for the shapes and types that GEMM kernels use.
//!
//! A register of a factor holds, for each group of four lanes, a stretch of a row of A or of a column of B; one of an
//! accumulator every other element of a row of eight ([`super::matrix::Fragment::coord`]).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "elements are fields of registers"
)]

use super::Round;
use super::float::canonical_f32;
use super::half::{Bf16, F16, Half};
use super::matrix::{Element, Mma};

/// A register of all lanes.
pub type Register<W> = [W; 32];

impl Mma {
    /// Computes D from whole registers, numbered as in the instruction's lists; false, with nothing written, for what only
    /// [`Mma::run`] can do. Every read comes before the first write, so D may be the registers of C.
    #[inline(always)]
    pub fn run_whole(
        &self,
        a: impl Fn(usize) -> Register<u32>,
        b: impl Fn(usize) -> Register<u32>,
        c: impl Fn(usize) -> Register<u32>,
        mut d: impl FnMut(usize, Register<u32>),
    ) -> bool {
        use Element::{Bf16 as B, F16 as H, S8, S32, Tf32 as T, U8};
        let [left, right, from, to] = self.fragments();
        let shape = (left.rows(), right.cols(), left.cols());
        let f16 = |word: u32, part: u32| F16::to_f32((word >> (16 * part)) as u16);
        let bf16 = |word: u32, part: u32| Bf16::to_f32((word >> (16 * part)) as u16);
        let tf32 = |word: u32, _| f32::from_bits(word & 0xffff_e000);
        let multiply = |x: f32, y: f32, sum: f32| x * y + sum;
        let (from, to) = (from.element(), to.element());
        macro_rules! float {
            ($m:literal, $n:literal, $k:literal, $per:literal, $decode:expr) => {{
                let left = rows::<f32, u32, $m, $k>(&a, $per, $decode);
                let right = columns::<f32, u32, $k, $n>(&b, $per, $decode);
                let mut sums = [[0f32; $n]; $m];
                if from == H {
                    halves_in(&mut sums, &c);
                } else {
                    pairs_in(&mut sums, &c, f32::from_bits);
                }
                product(&left, &right, &mut sums, multiply);
                if to == H {
                    halves_out(&sums, &mut d);
                } else {
                    pairs_out(&sums, &mut d, |sum| canonical_f32(sum).to_bits());
                }
            }};
        }
        match (left.element(), right.element(), shape) {
            (H, H, (16, 16, 16)) => float!(16, 16, 16, 2, f16),
            (H, H, (16, 8, 16)) => float!(16, 8, 16, 2, f16),
            (B, B, (16, 16, 16)) => float!(16, 16, 16, 2, bf16),
            (B, B, (16, 8, 16)) => float!(16, 8, 16, 2, bf16),
            (T, T, (16, 16, 8)) => float!(16, 16, 8, 1, tf32),
            (T, T, (16, 8, 8)) => float!(16, 8, 8, 1, tf32),
            (S8 | U8, S8 | U8, (16, 16, 16)) if from == S32 && !self.clamps() => {
                let signed = |is: bool| {
                    move |word: u32, part: u32| {
                        let byte = (word >> (8 * part)) as u8;
                        if is { i32::from(byte as i8) } else { i32::from(byte) }
                    }
                };
                let left = rows::<i32, u32, 16, 16>(&a, 4, signed(left.element() == S8));
                let right = columns::<i32, u32, 16, 16>(&b, 4, signed(right.element() == S8));
                let mut sums = [[0i32; 16]; 16];
                pairs_in(&mut sums, &c, |word| word as i32);
                product(&left, &right, &mut sums, |x, y, sum| x.wrapping_mul(y).wrapping_add(sum));
                pairs_out(&sums, &mut d, |sum| sum as u32);
            }
            _ => return false,
        }
        true
    }

    /// As [`Mma::run_whole`], for registers of 64 bits.
    #[inline(always)]
    pub fn run_whole_wide(
        &self,
        a: impl Fn(usize) -> Register<u64>,
        b: impl Fn(usize) -> Register<u64>,
        c: impl Fn(usize) -> Register<u64>,
        d: impl FnMut(usize, Register<u64>),
    ) -> bool {
        let [left, right, ..] = self.fragments();
        if (left.rows(), right.cols(), left.cols()) != (8, 8, 4) {
            return false;
        }
        let left = rows::<f64, u64, 8, 4>(a, 1, |word, _| f64::from_bits(word));
        let right = columns::<f64, u64, 4, 8>(b, 1, |word, _| f64::from_bits(word));
        let mut sums = [[0f64; 8]; 8];
        pairs_in(&mut sums, c, f64::from_bits);
        product(&left, &right, &mut sums, f64::mul_add);
        pairs_out(&sums, d, f64::to_bits);
        true
    }
}

/// A's rows, out of registers of `per` elements.
#[inline(always)]
fn rows<T: Copy + Default, W: Copy, const M: usize, const K: usize>(
    registers: impl Fn(usize) -> Register<W>,
    per: usize,
    decode: impl Fn(W, u32) -> T,
) -> [[T; K]; M] {
    let mut dense = [[T::default(); K]; M];
    let down = if M < 16 { 1 } else { 2 };
    for (tile, rows) in dense.chunks_exact_mut(8 * down).enumerate() {
        for right in 0..K / (4 * per) {
            for (half, rows) in rows.chunks_exact_mut(8).enumerate() {
                let register = registers((tile * (K / (4 * per)) + right) * down + half);
                for part in 0..per {
                    let elements = register.map(|word| decode(word, part as u32));
                    for (row, four) in rows.iter_mut().zip(elements.as_chunks::<4>().0) {
                        for (thread, element) in four.iter().enumerate() {
                            row[4 * per * right + per * thread + part] = *element;
                        }
                    }
                }
            }
        }
    }
    dense
}

/// B's rows, out of registers of `per` elements.
#[inline(always)]
fn columns<T: Copy + Default, W: Copy, const K: usize, const N: usize>(
    registers: impl Fn(usize) -> Register<W>,
    per: usize,
    decode: impl Fn(W, u32) -> T,
) -> [[T; N]; K] {
    let mut dense = [[T::default(); N]; K];
    for tile in 0..N / 8 {
        for (down, rows) in dense.chunks_exact_mut(4 * per).enumerate() {
            let register = registers(tile * (K / (4 * per)) + down);
            for part in 0..per {
                let elements = register.map(|word| decode(word, part as u32));
                for (group, four) in elements.as_chunks::<4>().0.iter().enumerate() {
                    for (thread, element) in four.iter().enumerate() {
                        rows[per * thread + part][8 * tile + group] = *element;
                    }
                }
            }
        }
    }
    dense
}

/// The sums so far, of which a register has every other element.
#[inline(always)]
fn pairs_in<T, W: Copy, const M: usize, const N: usize>(
    dense: &mut [[T; N]; M],
    registers: impl Fn(usize) -> Register<W>,
    decode: impl Fn(W) -> T,
) {
    for (above, rows) in dense.chunks_exact_mut(8).enumerate() {
        for tile in 0..N / 8 {
            let at = accumulator::<M, N>(above, tile);
            let (even, odd) = (registers(2 * at), registers(2 * at + 1));
            for (group, row) in rows.iter_mut().enumerate() {
                for thread in 0..4 {
                    row[8 * tile + 2 * thread] = decode(even[4 * group + thread]);
                    row[8 * tile + 2 * thread + 1] = decode(odd[4 * group + thread]);
                }
            }
        }
    }
}

/// The other way round.
#[inline(always)]
fn pairs_out<T: Copy, W: Copy + Default, const M: usize, const N: usize>(
    dense: &[[T; N]; M],
    mut registers: impl FnMut(usize, Register<W>),
    encode: impl Fn(T) -> W,
) {
    for (above, rows) in dense.chunks_exact(8).enumerate() {
        for tile in 0..N / 8 {
            let at = accumulator::<M, N>(above, tile);
            let (mut even, mut odd) = ([W::default(); 32], [W::default(); 32]);
            for (group, row) in rows.iter().enumerate() {
                for thread in 0..4 {
                    even[4 * group + thread] = encode(row[8 * tile + 2 * thread]);
                    odd[4 * group + thread] = encode(row[8 * tile + 2 * thread + 1]);
                }
            }
            registers(2 * at, even);
            registers(2 * at + 1, odd);
        }
    }
}

/// As [`pairs_in`], from registers with both elements of a pair in half precision.
#[inline(always)]
fn halves_in<const M: usize, const N: usize>(
    dense: &mut [[f32; N]; M],
    registers: impl Fn(usize) -> Register<u32>,
) {
    pairs_in(
        dense,
        |at| registers(at / 2).map(|word| word >> (16 * (at & 1))),
        |word| F16::to_f32(word as u16),
    );
}

/// The other way round.
#[inline(always)]
fn halves_out<const M: usize, const N: usize>(
    dense: &[[f32; N]; M],
    mut registers: impl FnMut(usize, Register<u32>),
) {
    let mut even = [0; 32];
    pairs_out(
        dense,
        |at, words: Register<u32>| {
            if at & 1 == 0 {
                even = words;
            } else {
                registers(at / 2, std::array::from_fn(|lane| even[lane] | words[lane] << 16));
            }
        },
        |sum| u32::from(F16::from_f32(sum, Round::Rn)),
    );
}

/// Which pair of elements of a lane lies in eight rows and eight columns.
#[inline(always)]
const fn accumulator<const M: usize, const N: usize>(above: usize, tile: usize) -> usize {
    if M < 16 { above * (N / 8) + tile } else { (above / 2 * (N / 8) + tile) * 2 + above % 2 }
}

/// The product itself, summed in the order of K.
#[inline(always)]
fn product<T: Copy, const M: usize, const N: usize, const K: usize>(
    left: &[[T; K]; M],
    right: &[[T; N]; K],
    sums: &mut [[T; N]; M],
    fused: impl Fn(T, T, T) -> T,
) {
    for (sums, left) in sums.iter_mut().zip(left) {
        let mut row = *sums;
        for (x, right) in left.iter().zip(right) {
            for (sum, y) in row.iter_mut().zip(right) {
                *sum = fused(*x, *y, *sum);
            }
        }
        *sums = row;
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Shape;
    use super::*;
    use std::cell::RefCell;

    /// Bits that are every kind of number now and then.
    fn scramble(seed: u32) -> u32 {
        let mut x = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
        x ^= x >> 15;
        x = x.wrapping_mul(0x2c1b_3c6d);
        x ^ (x >> 13)
    }

    #[test]
    fn whole_registers_give_what_single_elements_give() {
        use Element::{Bf16, F16, F32, S8, S32, Tf32, U8};
        type Make = fn(Shape, [Element; 4]) -> Option<Mma>;
        let (wmma, mma): (Make, Make) = (Mma::wmma, Mma::mma_sync);
        let cases = [
            (wmma, (16, 16, 16), [F32, F16, F16, F32]),
            (wmma, (16, 16, 16), [F16, F16, F16, F16]),
            (wmma, (16, 16, 16), [F32, F16, F16, F16]),
            (wmma, (16, 16, 16), [F16, F16, F16, F32]),
            (wmma, (16, 16, 16), [F32, Bf16, Bf16, F32]),
            (wmma, (16, 16, 8), [F32, Tf32, Tf32, F32]),
            (wmma, (16, 16, 16), [S32, S8, S8, S32]),
            (wmma, (16, 16, 16), [S32, U8, U8, S32]),
            (mma, (16, 8, 16), [F32, F16, F16, F32]),
            (mma, (16, 8, 16), [F16, F16, F16, F16]),
            (mma, (16, 8, 16), [F32, Bf16, Bf16, F32]),
            (mma, (16, 8, 8), [F32, Tf32, Tf32, F32]),
            (wmma, (8, 32, 16), [F32, F16, F16, F32]),
            (mma, (16, 8, 8), [F32, F16, F16, F32]),
        ];
        let mut quick = 0;
        for (make, (m, n, k), types) in cases {
            let mma = make(Shape::new(m, n, k), types).unwrap();
            let word = |operand: u32| move |r: u32, lane: u32| scramble(operand << 16 | r << 5 | lane);
            let whole = |operand: u32| {
                move |r: usize| std::array::from_fn(|lane| word(operand)(r as u32, lane as u32))
            };
            let wide = |operand: u32| move |r: u32, lane: u32| u64::from(word(operand)(r, lane));
            let slow = RefCell::new(vec![[0u32; 32]; mma.fragments()[3].registers() as usize]);
            mma.run(wide(0), wide(1), wide(2), |r, lane, value| {
                slow.borrow_mut()[r as usize][lane as usize] = value as u32;
            });
            let mut fast = vec![[0u32; 32]; slow.borrow().len()];
            if mma.run_whole(whole(0), whole(1), whole(2), |r, words| fast[r] = words) {
                assert_eq!(fast, *slow.borrow(), "{m} {n} {k} {types:?}");
                quick += 1;
            }
        }
        assert_eq!(quick, 12);
    }

    #[test]
    fn double_precision_too() {
        let mma = Mma::wmma(Shape::new(8, 8, 4), [Element::F64; 4]).unwrap();
        let number = |operand: u32, r: u32, lane: u32| {
            (f64::from(scramble(operand << 16 | r << 5 | lane)) / 65536.0 - 32768.0).to_bits()
        };
        let slow = RefCell::new(vec![[0u64; 32]; 2]);
        mma.run(
            |r, lane| number(0, r, lane),
            |r, lane| number(1, r, lane),
            |r, lane| number(2, r, lane),
            |r, lane, value| slow.borrow_mut()[r as usize][lane as usize] = value,
        );
        let whole =
            |operand: u32| move |r: usize| std::array::from_fn(|lane| number(operand, r as u32, lane as u32));
        let mut fast = vec![[0u64; 32]; 2];
        assert!(mma.run_whole_wide(whole(0), whole(1), whole(2), |r, words| fast[r] = words));
        assert_eq!(fast, *slow.borrow());
    }
}
