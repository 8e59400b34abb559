//! Fragments cover their operands evenly and lie as the PTX ISA draws them; products equal dense products.

use super::*;

const SHAPES: [(u32, u32, u32); 18] = [
    (8, 8, 4),
    (8, 8, 16),
    (8, 8, 32),
    (8, 8, 128),
    (16, 8, 4),
    (16, 8, 8),
    (16, 8, 16),
    (16, 8, 32),
    (16, 8, 64),
    (16, 8, 128),
    (16, 8, 256),
    (16, 16, 16),
    (32, 8, 16),
    (8, 32, 16),
    (16, 16, 8),
    (8, 8, 64),
    (4, 4, 4),
    (32, 8, 8),
];
const ELEMENTS: [Element; 13] = [
    Element::B1,
    Element::S4,
    Element::U4,
    Element::S8,
    Element::U8,
    Element::E4m3,
    Element::E5m2,
    Element::F16,
    Element::Bf16,
    Element::Tf32,
    Element::F32,
    Element::S32,
    Element::F64,
];

fn fragments() -> Vec<(Shape, Fragment)> {
    let mut all = Vec::new();
    for (m, n, k) in SHAPES {
        for operand in [Operand::A, Operand::B, Operand::C] {
            for element in ELEMENTS {
                let shape = Shape::new(m, n, k);
                all.extend(Fragment::mma(shape, operand, element).map(|f| (shape, f)));
                all.extend(Fragment::wmma(shape, operand, element).map(|f| (shape, f)));
            }
        }
    }
    all
}

#[test]
fn fragments_hold_every_element_equally_often() {
    let all = fragments();
    assert!(all.len() > 60, "only {} fragments", all.len());
    for (shape, f) in all {
        let mut seen = vec![0; (f.rows() * f.cols()) as usize];
        for lane in 0..32 {
            for i in 0..f.elements() {
                let (row, col) = f.coord(lane, i);
                assert!(row < f.rows() && col < f.cols(), "{shape:?} {f:?} {lane} {i}: {row} {col}");
                seen[(row * f.cols() + col) as usize] += 1;
            }
        }
        let copies = f.elements() * 32 / (f.rows() * f.cols());
        assert!(seen.iter().all(|n| *n == copies), "{shape:?} {f:?}");
        assert_eq!(f.registers() * f.per_register(), f.elements());
    }
}

#[test]
fn register_counts_are_those_of_the_instructions() {
    let wmma = [
        ((16, 16, 16), Element::F16, [8, 8, 4]),
        ((32, 8, 16), Element::F16, [8, 8, 4]),
        ((8, 32, 16), Element::F16, [8, 8, 4]),
    ];
    for ((m, n, k), e, want) in wmma {
        let shape = Shape::new(m, n, k);
        let got =
            [Operand::A, Operand::B, Operand::C].map(|o| Fragment::wmma(shape, o, e).unwrap().registers());
        assert_eq!(got, want);
    }
    let factors = [
        ((16, 16, 16), Element::Bf16, [4, 4]),
        ((32, 8, 16), Element::Bf16, [8, 2]),
        ((8, 32, 16), Element::Bf16, [2, 8]),
        ((16, 16, 16), Element::S8, [2, 2]),
        ((32, 8, 16), Element::U8, [4, 1]),
        ((8, 32, 16), Element::U8, [1, 4]),
        ((16, 16, 8), Element::Tf32, [4, 4]),
        ((8, 8, 4), Element::F64, [1, 1]),
        ((8, 8, 32), Element::S4, [1, 1]),
        ((8, 8, 128), Element::B1, [1, 1]),
    ];
    for ((m, n, k), e, want) in factors {
        let shape = Shape::new(m, n, k);
        let got = [Operand::A, Operand::B].map(|o| Fragment::wmma(shape, o, e).unwrap().registers());
        assert_eq!(got, want, "{shape:?} {e:?}");
    }
    let f = |m, n, k, o, e| Fragment::mma(Shape::new(m, n, k), o, e).unwrap().registers();
    assert_eq!(f(16, 8, 16, Operand::A, Element::F16), 4);
    assert_eq!(f(16, 8, 16, Operand::B, Element::F16), 2);
    assert_eq!(f(16, 8, 16, Operand::C, Element::F16), 2);
    assert_eq!(f(16, 8, 16, Operand::C, Element::F32), 4);
    assert_eq!(f(16, 8, 8, Operand::A, Element::Tf32), 4);
    assert_eq!(f(16, 8, 32, Operand::A, Element::S8), 4);
    assert_eq!(f(16, 8, 16, Operand::A, Element::F64), 8);
    assert!(Fragment::mma(Shape::new(16, 8, 16), Operand::A, Element::Tf32).is_none());
    assert!(Fragment::wmma(Shape::new(16, 16, 8), Operand::A, Element::F16).is_none());
}

/// Rows and columns as the PTX ISA gives them for `mma.m16n8k16` and its neighbours, formula by formula.
#[test]
fn layouts_follow_the_formulas() {
    let f = |m, n, k, o, e| Fragment::mma(Shape::new(m, n, k), o, e).unwrap();
    for lane in 0..32 {
        let (group, thread) = (lane >> 2, lane % 4);
        let a = f(16, 8, 16, Operand::A, Element::F16);
        for i in 0..8 {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            let col = thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 };
            assert_eq!(a.coord(lane, i), (row, col));
        }
        let b = f(16, 8, 16, Operand::B, Element::Bf16);
        for i in 0..4 {
            assert_eq!(b.coord(lane, i), (thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, group));
        }
        for e in [Element::F32, Element::F16] {
            let c = f(16, 8, 16, Operand::C, e);
            for i in 0..4 {
                assert_eq!(c.coord(lane, i), (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)));
            }
        }
        let a = f(16, 8, 8, Operand::A, Element::Tf32);
        for i in 0..4 {
            let row = if i == 0 || i == 2 { group } else { group + 8 };
            assert_eq!(a.coord(lane, i), (row, if i < 2 { thread } else { thread + 4 }));
        }
        let b = f(16, 8, 8, Operand::B, Element::Tf32);
        assert_eq!([b.coord(lane, 0), b.coord(lane, 1)], [(thread, group), (thread + 4, group)]);
        let a = f(16, 8, 32, Operand::A, Element::S8);
        for i in 0..16 {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            let col = thread * 4 + (i & 3) + if i >= 8 { 16 } else { 0 };
            assert_eq!(a.coord(lane, i), (row, col));
        }
        let b = f(16, 8, 32, Operand::B, Element::U8);
        for i in 0..8 {
            assert_eq!(b.coord(lane, i), (thread * 4 + (i & 3) + if i >= 4 { 16 } else { 0 }, group));
        }
        let a = f(8, 8, 4, Operand::A, Element::F64);
        assert_eq!(a.coord(lane, 0), (group, thread));
        let b = f(8, 8, 4, Operand::B, Element::F64);
        assert_eq!(b.coord(lane, 0), (thread, group));
        let c = f(8, 8, 4, Operand::C, Element::F64);
        assert_eq!([c.coord(lane, 0), c.coord(lane, 1)], [(group, thread * 2), (group, thread * 2 + 1)]);
        let a = f(8, 8, 16, Operand::A, Element::S8);
        assert_eq!(a.coord(lane, 3), (group, thread * 4 + 3));
    }
}

/// A number for each place of an operand: small integers, exact in every format but `.b1`.
fn number(operand: Operand, row: u32, col: u32, element: Element) -> i32 {
    let v = match operand {
        Operand::A => (row * 7 + col * 3) % 5,
        Operand::B => (row * 5 + col * 11) % 7,
        Operand::C => (row * 13 + col) % 19,
    } as i32;
    match element {
        Element::B1 => v & 1,
        Element::U4 | Element::U8 => v,
        _ => v - 3,
    }
}

fn encode(element: Element, v: i32) -> u64 {
    match element {
        Element::F16 => F16::nearest(v as f32).into(),
        Element::Bf16 => Bf16::nearest(v as f32).into(),
        Element::E4m3 => half::f32_to_e4m3(v as f32, false).into(),
        Element::E5m2 => half::f32_to_e5m2(v as f32, false).into(),
        Element::Tf32 | Element::F32 => (v as f32).to_bits().into(),
        Element::F64 => f64::from(v).to_bits(),
        _ => u64::from(v as u32) & (u64::MAX >> (64 - element.bits())),
    }
}

/// The registers of an operand filled with [`number`]s.
fn registers(f: Fragment, operand: Operand) -> Vec<[u64; 32]> {
    let mut all = vec![[0; 32]; f.registers() as usize];
    for lane in 0..32 {
        for i in 0..f.elements() {
            let (row, col) = f.coord(lane, i);
            let (r, j) = (i / f.per_register(), i % f.per_register());
            let bits = encode(f.element(), number(operand, row, col, f.element()));
            all[r as usize][lane as usize] |= bits << (j * f.element().bits());
        }
    }
    all
}

fn check(mma: &Mma, bits: Option<BitOp>) {
    let [fa, fb, fc, fd] = mma.fragments();
    let (a, b, c) = (registers(fa, Operand::A), registers(fb, Operand::B), registers(fc, Operand::C));
    let mut d = vec![[0; 32]; fd.registers() as usize];
    mma.run(
        |r, lane| a[r as usize][lane as usize],
        |r, lane| b[r as usize][lane as usize],
        |r, lane| c[r as usize][lane as usize],
        |r, lane, v| d[r as usize][lane as usize] = v,
    );
    for lane in 0..32 {
        for i in 0..fd.elements() {
            let (row, col) = fd.coord(lane, i);
            let products: i32 = (0..fa.cols())
                .map(|k| {
                    let x = number(Operand::A, row, k, fa.element());
                    let y = number(Operand::B, k, col, fb.element());
                    match bits {
                        None => x * y,
                        Some(BitOp::Xor) => x ^ y,
                        Some(BitOp::And) => x & y,
                    }
                })
                .sum();
            let want = encode(fd.element(), products + number(Operand::C, row, col, fc.element()));
            let (r, j) = (i / fd.per_register(), i % fd.per_register());
            let width = fd.element().bits();
            let got = d[r as usize][lane as usize] >> (j * width) & (u64::MAX >> (64 - width));
            assert_eq!(got, want, "{mma:?} row {row} column {col}");
        }
    }
}

#[test]
fn products_equal_dense_products() {
    use Element::{B1, Bf16, E4m3, E5m2, F16, F32, F64, S4, S8, S32, Tf32, U4, U8};
    let mut count = 0;
    for (m, n, k) in SHAPES {
        let shape = Shape::new(m, n, k);
        for types in [
            [F32, F16, F16, F32],
            [F16, F16, F16, F16],
            [F32, F16, F16, F16],
            [F16, F16, F16, F32],
            [F32, Bf16, Bf16, F32],
            [F32, Tf32, Tf32, F32],
            [F32, E4m3, E5m2, F32],
            [S32, S8, U8, S32],
            [S32, U8, U8, S32],
            [S32, S4, U4, S32],
            [F64, F64, F64, F64],
        ] {
            for mma in [Mma::mma_sync(shape, types), Mma::wmma(shape, types)].into_iter().flatten() {
                check(&mma, None);
                check(&mma.satfinite(true), None);
                count += 1;
            }
        }
        for mma in [Mma::mma_sync(shape, [S32, B1, B1, S32]), Mma::wmma(shape, [S32, B1, B1, S32])]
            .into_iter()
            .flatten()
        {
            for op in [BitOp::Xor, BitOp::And] {
                check(&mma.clone().bit_op(op), Some(op));
                count += 1;
            }
        }
    }
    assert!(count > 40, "only {count} instructions");
    assert!(Mma::mma_sync(Shape::new(16, 8, 16), [F32, F16, Bf16, F32]).is_none());
    assert!(Mma::mma_sync(Shape::new(16, 8, 16), [F16, Bf16, Bf16, F16]).is_none());
    assert!(Mma::mma_sync(Shape::new(16, 8, 8), [F16, Tf32, Tf32, F16]).is_none());
    assert!(Mma::mma_sync(Shape::new(16, 8, 16), [S32, F16, F16, S32]).is_none());
}

#[test]
fn integer_sums_wrap_or_clamp() {
    let shape = Shape::new(16, 8, 16);
    let types = [Element::S32, Element::S8, Element::S8, Element::S32];
    let mma = Mma::mma_sync(shape, types).unwrap();
    let run = |mma: &Mma| {
        let mut first = 0;
        let ones = |_, _| 0x0101_0101;
        mma.run(
            ones,
            ones,
            |_, _| i32::MAX as u64,
            |r, lane, v| {
                if (r, lane) == (0, 0) {
                    first = v;
                }
            },
        );
        first as u32 as i32
    };
    assert_eq!(run(&mma), i32::MAX.wrapping_add(16));
    assert_eq!(run(&mma.satfinite(true)), i32::MAX);
}

#[test]
fn names() {
    assert_eq!(Shape::parse("m16n8k16"), Some(Shape::new(16, 8, 16)));
    assert_eq!(Shape::parse("m16n8"), None);
    assert_eq!(Element::parse("bf16"), Some(Element::Bf16));
    assert_eq!(Element::parse("f8"), None);
}

#[test]
fn ldmatrix_rows_and_columns() {
    assert_eq!(ldmatrix_coord(0, false), [(0, 0), (0, 1)]);
    assert_eq!(ldmatrix_coord(5, false), [(1, 2), (1, 3)]);
    assert_eq!(ldmatrix_coord(31, false), [(7, 6), (7, 7)]);
    assert_eq!(ldmatrix_coord(5, true), [(2, 1), (3, 1)]);
    // What ldmatrix brings is the A fragment of a 16-bit mma, and transposed the B fragment.
    let a = Fragment::mma(Shape::new(16, 8, 8), Operand::A, Element::F16).unwrap();
    let b = Fragment::mma(Shape::new(16, 8, 8), Operand::B, Element::F16).unwrap();
    for lane in 0..32 {
        for half in 0..2 {
            assert_eq!(a.coord(lane, half), ldmatrix_coord(lane, false)[half as usize]);
            assert_eq!(b.coord(lane, half), ldmatrix_coord(lane, true)[half as usize]);
        }
    }
}
