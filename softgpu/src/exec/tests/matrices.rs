//! Matrix instructions against plain products, from `tests/ptx/matrix.cu`.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use super::{Arg, bytes, f32s, grid, launch, u32s, u64s};
use crate::isa::Round;
use crate::isa::half::{F16, Half};

const TEXT: &str = include_str!("../../../tests/ptx/matrix.ptx");

fn halves(values: &[f32]) -> Vec<u8> {
    bytes(&values.iter().map(|value| F16::from_f32(*value, Round::Rn)).collect::<Vec<u16>>())
}

/// Small integers, exact in every type.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13 + i * i) % 11) as f32 - 5.0).collect()
}

#[test]
fn wmma_with_half_precision() {
    let (a, b) = (numbers(256, 1), numbers(256, 2));
    let (mut da, mut db, mut c, mut d) = (halves(&a), halves(&b), vec![0; 1024], vec![0; 512]);
    let mut args = [Arg::Buffer(&mut da), Arg::Buffer(&mut db), Arg::Buffer(&mut c), Arg::Buffer(&mut d)];
    launch(TEXT, "wmma_half", &grid(1, 32), &mut args).unwrap();
    let (c, d) = (
        f32s(&c),
        d.chunks_exact(2).map(|h| F16::to_f32(u16::from_le_bytes([h[0], h[1]]))).collect::<Vec<_>>(),
    );
    for row in 0..16 {
        for col in 0..16 {
            let sum: f32 = (0..16).map(|k| a[row * 16 + k] * b[col * 16 + k]).sum::<f32>() + 1.0;
            assert_eq!(c[row * 16 + col], sum, "{row},{col}");
            assert_eq!(d[col * 16 + row], sum, "{row},{col}");
        }
    }
}

#[test]
fn wmma_with_bytes_and_doubles() {
    let (a, b) = (numbers(256, 3), numbers(256, 4));
    let narrow = |v: &[f32]| v.iter().map(|x| (*x as i8).cast_unsigned()).collect::<Vec<u8>>();
    let (mut da, mut db, mut c) = (narrow(&a), narrow(&b), vec![0; 1024]);
    launch(
        TEXT,
        "wmma_int8",
        &grid(1, 32),
        &mut [Arg::Buffer(&mut da), Arg::Buffer(&mut db), Arg::Buffer(&mut c)],
    )
    .unwrap();
    for (index, found) in u32s(&c).into_iter().enumerate() {
        let sum = (0..16).map(|k| a[index / 16 * 16 + k] * b[k * 16 + index % 16]).sum::<f32>() as i32 + 3;
        assert_eq!(found.cast_signed(), sum, "{index}");
    }
    let wide = |v: &[f32]| bytes(&v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    let (mut da, mut db, mut c) = (wide(&a[..32]), wide(&b[..32]), vec![0; 512]);
    launch(
        TEXT,
        "wmma_double",
        &grid(1, 32),
        &mut [Arg::Buffer(&mut da), Arg::Buffer(&mut db), Arg::Buffer(&mut c)],
    )
    .unwrap();
    for (index, found) in u64s(&c).into_iter().enumerate() {
        let sum: f32 = (0..4).map(|k| a[index / 8 * 4 + k] * b[index % 8 * 4 + k]).sum();
        assert_eq!(f64::from_bits(found), f64::from(sum), "{index}");
    }
}

#[test]
fn ldmatrix_and_mma_as_a_product_uses_them() {
    let (a, b) = (numbers(256, 5), numbers(128, 6));
    let (mut da, mut db, mut c) = (halves(&a), halves(&b), vec![0; 512]);
    launch(
        TEXT,
        "mma_half",
        &grid(1, 32),
        &mut [Arg::Buffer(&mut da), Arg::Buffer(&mut db), Arg::Buffer(&mut c)],
    )
    .unwrap();
    for (index, found) in f32s(&c).into_iter().enumerate() {
        let sum: f32 = (0..16).map(|k| a[index / 8 * 16 + k] * b[k * 8 + index % 8]).sum();
        assert_eq!(found, sum, "{index}");
    }
}

#[test]
fn transposes_agree() {
    let values: Vec<u16> = (0..64).map(|i| i * 3 + 1).collect();
    let (mut input, mut out) = (bytes(&values), vec![0; 384]);
    launch(TEXT, "transposes", &grid(1, 32), &mut [Arg::Buffer(&mut input), Arg::Buffer(&mut out)]).unwrap();
    let expected: Vec<u16> = (0..64).map(|i| values[i % 8 * 8 + i / 8]).collect();
    assert_eq!(out[..128], bytes(&expected), "ldmatrix.trans");
    assert_eq!(out[128..256], bytes(&expected), "movmatrix");
    assert_eq!(out[256..], bytes(&expected), "stmatrix.trans");
}
