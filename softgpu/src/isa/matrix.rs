//! Matrix instructions: which lane holds which element, and the products (PTX ISA, "Warp Level Matrix
//! Multiply-Accumulate Instructions").
//!
//! Pure: registers come in and go out through closures. `mma` fragments are laid out as PTX prescribes. PTX leaves
//! `wmma` fragments opaque; here they are `mma` tiles side by side, so that `wmma.load`, `wmma.mma` and
//! `wmma.store` agree and a program that scales `frag.x[i]` reaches every element. Sums of half-precision products
//! are kept in single precision; `.tf32` operands use the upper 19 bits of their registers.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "elements are fields of registers; indices are below 2^16"
)]

use super::Round;
use super::half::{self, Bf16, F16, Half};

/// The `.mMnNkK` of an instruction: A is M×K, B is K×N, C and D are M×N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of A, C and D.
    pub m: u32,
    /// Columns of B, C and D.
    pub n: u32,
    /// Columns of A, rows of B.
    pub k: u32,
}

impl Shape {
    /// A shape.
    pub const fn new(m: u32, n: u32, k: u32) -> Self {
        Self { m, n, k }
    }

    /// The shape that a modifier such as `m16n8k16` names.
    pub fn parse(modifier: &str) -> Option<Self> {
        let (m, rest) = modifier.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some(Self { m: m.parse().ok()?, n: n.parse().ok()?, k: k.parse().ok()? })
    }
}

/// The type of an element of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// `.b1`.
    B1,
    /// `.s4`.
    S4,
    /// `.u4`.
    U4,
    /// `.s8`.
    S8,
    /// `.u8`.
    U8,
    /// `.e4m3`.
    E4m3,
    /// `.e5m2`.
    E5m2,
    /// `.f16`.
    F16,
    /// `.bf16`.
    Bf16,
    /// `.tf32`.
    Tf32,
    /// `.f32`.
    F32,
    /// `.s32`.
    S32,
    /// `.f64`.
    F64,
}

impl Element {
    /// Width in bits, in a register and in memory.
    pub const fn bits(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::S4 | Self::U4 => 4,
            Self::S8 | Self::U8 | Self::E4m3 | Self::E5m2 => 8,
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 | Self::F32 | Self::S32 => 32,
            Self::F64 => 64,
        }
    }

    /// The type that a modifier (without the dot) names.
    pub fn parse(modifier: &str) -> Option<Self> {
        Some(match modifier {
            "b1" => Self::B1,
            "s4" => Self::S4,
            "u4" => Self::U4,
            "s8" => Self::S8,
            "u8" => Self::U8,
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "s32" => Self::S32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    /// The type in which products of this type are summed, and so the type of the multiplication's operands.
    const fn family(self) -> Family {
        match self {
            Self::B1 => Family::Bit,
            Self::S4 | Self::U4 | Self::S8 | Self::U8 | Self::S32 => Family::Integer,
            Self::F64 => Family::Double,
            _ => Family::Single,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Bit,
    Integer,
    Single,
    Double,
}

/// Which operand a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The left factor.
    A,
    /// The right factor.
    B,
    /// The accumulator; also the result.
    C,
}

/// How one operand is spread over the registers of a warp.
///
/// Element `i` of a lane stands in its register `i / per_register()`, from bit `(i % per_register()) · bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    operand: Operand,
    element: Element,
    rows: u32,
    cols: u32,
    elements: u32,
}

impl Fragment {
    /// The fragment of an `mma.sync` operand (PTX ISA, "Matrix Fragments for mma.…"); `None` if PTX has no such
    /// operand.
    pub fn mma(shape: Shape, operand: Operand, element: Element) -> Option<Self> {
        use Element::{B1, Bf16, E4m3, E5m2, F16, F32, F64, S4, S8, S32, Tf32, U4, U8};
        let Shape { m, n, k } = shape;
        let known = match (operand, element) {
            (Operand::C, F16) => matches!((m, n, k), (16, 8, 8 | 16 | 32)),
            (Operand::C, F32) => matches!((m, n, k), (16, 8, 4 | 8 | 16 | 32)),
            (Operand::C, S32) => {
                matches!((m, n, k), (8, 8, 16 | 32 | 128) | (16, 8, 16 | 32 | 64 | 128 | 256))
            }
            (_, F64) => matches!((m, n, k), (8, 8, 4) | (16, 8, 4 | 8 | 16)),
            (Operand::C, _) | (_, F32 | S32) => false,
            (_, F16 | Bf16) => matches!((m, n, k), (16, 8, 8 | 16)),
            (_, Tf32) => matches!((m, n, k), (16, 8, 4 | 8)),
            (_, E4m3 | E5m2) => matches!((m, n, k), (16, 8, 16 | 32)),
            (_, S8 | U8) => matches!((m, n, k), (8, 8, 16) | (16, 8, 16 | 32)),
            (_, S4 | U4) => matches!((m, n, k), (8, 8, 32) | (16, 8, 32 | 64)),
            (_, B1) => matches!((m, n, k), (8, 8, 128) | (16, 8, 128 | 256)),
        };
        known.then(|| Self::new(shape, operand, element, 1))
    }

    /// The fragment of a `wmma` operand (PTX ISA, "Matrix Fragments for WMMA"); `None` if PTX has no such operand.
    pub fn wmma(shape: Shape, operand: Operand, element: Element) -> Option<Self> {
        use Element::{B1, Bf16, F16, F32, F64, S4, S8, S32, Tf32, U4, U8};
        let Shape { m, n, k } = shape;
        let full = matches!((m, n, k), (16, 16, 16) | (32, 8, 16) | (8, 32, 16));
        let known = match (operand, element) {
            (_, F64) => (m, n, k) == (8, 8, 4),
            (Operand::C, F16) => full,
            (Operand::C, F32) => full || (m, n, k) == (16, 16, 8),
            (Operand::C, S32) => full || matches!((m, n, k), (8, 8, 32 | 128)),
            (Operand::C, _) | (_, F32 | S32) => false,
            (_, F16 | Bf16 | S8 | U8) => full,
            (_, Tf32) => (m, n, k) == (16, 16, 8),
            (_, S4 | U4) => (m, n, k) == (8, 8, 32),
            (_, B1) => (m, n, k) == (8, 8, 128),
            _ => false,
        };
        // An `.f16` factor has 16 elements a lane whatever the shape, so each is held two or four times, or once.
        let copies = match (operand, element) {
            (Operand::A, F16) => 512 / (m * k),
            (Operand::B, F16) => 512 / (n * k),
            _ => 1,
        };
        known.then(|| Self::new(shape, operand, element, copies))
    }

    fn new(shape: Shape, operand: Operand, element: Element, copies: u32) -> Self {
        let (rows, cols) = match operand {
            Operand::A => (shape.m, shape.k),
            Operand::B => (shape.k, shape.n),
            Operand::C => (shape.m, shape.n),
        };
        Self { operand, element, rows, cols, elements: rows * cols / 32 * copies }
    }

    /// Rows of the operand.
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// Columns of the operand.
    pub const fn cols(self) -> u32 {
        self.cols
    }

    /// The element type.
    pub const fn element(self) -> Element {
        self.element
    }

    /// Elements that each lane holds.
    pub const fn elements(self) -> u32 {
        self.elements
    }

    /// Elements in one register: of 32 bits, or of 64 for `.f64`.
    pub const fn per_register(self) -> u32 {
        if self.element.bits() == 64 { 1 } else { 32 / self.element.bits() }
    }

    /// Registers that each lane holds.
    pub const fn registers(self) -> u32 {
        self.elements / self.per_register()
    }

    /// Row and column of element `i` of `lane`, with `i < elements()` and `lane < 32`.
    #[inline]
    pub const fn coord(self, lane: u32, i: u32) -> (u32, u32) {
        let (group, thread) = (lane >> 2, lane & 3);
        let (_, i) = split(i, self.rows * self.cols / 32); // further copies repeat the first
        match self.operand {
            Operand::A => {
                // Tiles of 16 rows (or 8), one below the other; in a tile, register by register: down, then right.
                let e = self.per_register();
                let height = if self.rows < 16 { 8 } else { 16 };
                let per_tile = height * self.cols / 32;
                let (tile, j) = split(i, per_tile);
                let (register, within) = split(j, e);
                let (down, right) = if height == 16 { (register & 1, register >> 1) } else { (0, register) };
                (tile * height + 8 * down + group, 4 * e * right + e * thread + within)
            }
            Operand::B => {
                // Tiles of 8 columns, side by side; in a tile, register by register downwards.
                let e = self.per_register();
                let per_tile = self.rows * 8 / 32;
                let (tile, j) = split(i, per_tile);
                let (down, within) = split(j, e);
                (4 * e * down + e * thread + within, tile * 8 + group)
            }
            Operand::C => {
                // Tiles of 16 (or 8) by 8, row of tiles by row of tiles; in a tile, pairs downwards.
                let height = if self.rows < 16 { 8 } else { 16 };
                let per_tile = height * 8 / 32;
                let (tile, j) = split(i, per_tile);
                let (tile_row, tile_col) = split(tile, self.cols / 8);
                (tile_row * height + 8 * (j >> 1) + group, tile_col * 8 + 2 * thread + (j & 1))
            }
        }
    }
}

/// Quotient and remainder by a power of two, as all dimensions are.
#[inline(always)]
const fn split(i: u32, unit: u32) -> (u32, u32) {
    (i >> unit.trailing_zeros(), i & (unit - 1))
}

/// How `.b1` operands are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BitOp {
    /// `.xor.popc`.
    #[default]
    Xor,
    /// `.and.popc`.
    And,
}

/// One `mma.sync` or `wmma.mma`: D = A·B + C. Make it once per instruction: it holds the layouts as tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mma {
    a: Layout,
    b: Layout,
    c: Layout,
    d: Layout,
    satfinite: bool,
    bit_op: BitOp,
}

impl Mma {
    /// `mma.sync.aligned` with the four element types in the order D, A, B, C of its modifiers; `None` if PTX has
    /// no such combination.
    pub fn mma_sync(shape: Shape, [d, a, b, c]: [Element; 4]) -> Option<Self> {
        Self::of(Fragment::mma, shape, [d, a, b, c])
    }

    /// `wmma.mma.sync.aligned` with the four element types in the order D, A, B, C; `None` if PTX has no such
    /// combination.
    pub fn wmma(shape: Shape, [d, a, b, c]: [Element; 4]) -> Option<Self> {
        Self::of(Fragment::wmma, shape, [d, a, b, c])
    }

    fn of(
        fragment: impl Fn(Shape, Operand, Element) -> Option<Fragment>,
        shape: Shape,
        [d, a, b, c]: [Element; 4],
    ) -> Option<Self> {
        // Accumulators of the bit form are integers.
        let sums = if a.family() == Family::Bit { Family::Integer } else { a.family() };
        // The factors may differ in sign or in their 8-bit format; only `.f16` and those sum to `.f16`.
        let same = a == b || a.family() == b.family() && a.bits() == b.bits() && a.bits() <= 8;
        let wide = matches!(a, Element::Bf16 | Element::Tf32) && (c == Element::F16 || d == Element::F16);
        if !same || wide || c.family() != sums || d.family() != sums {
            return None;
        }
        Some(Self {
            a: Layout::new(fragment(shape, Operand::A, a)?),
            b: Layout::new(fragment(shape, Operand::B, b)?),
            c: Layout::new(fragment(shape, Operand::C, c)?),
            d: Layout::new(fragment(shape, Operand::C, d)?),
            satfinite: false,
            bit_op: BitOp::Xor,
        })
    }

    /// With `.satfinite`: integer sums clamp to `.s32` instead of wrapping.
    #[must_use]
    pub fn satfinite(self, on: bool) -> Self {
        Self { satfinite: on, ..self }
    }

    /// With the given operation on `.b1` operands.
    #[must_use]
    pub fn bit_op(self, op: BitOp) -> Self {
        Self { bit_op: op, ..self }
    }

    /// Whether integer sums clamp.
    pub(super) const fn clamps(&self) -> bool {
        self.satfinite
    }

    /// The fragments of A, B, C and D.
    pub const fn fragments(&self) -> [Fragment; 4] {
        [self.a.fragment, self.b.fragment, self.c.fragment, self.d.fragment]
    }

    /// Computes D. The closures read and write register `r` of `lane` as `(r, lane)`; a value is the register's
    /// 32 bits, or 64 for `.f64`. Every read comes before the first write, so D may be the registers of C.
    pub fn run(
        &self,
        a: impl Fn(u32, u32) -> u64,
        b: impl Fn(u32, u32) -> u64,
        c: impl Fn(u32, u32) -> u64,
        d: impl FnMut(u32, u32, u64),
    ) {
        match self.a.fragment.element.family() {
            Family::Single => self.accumulate(a, b, c, d, single, single_bits, |x, y, sum: f32| x * y + sum),
            Family::Double => self.accumulate(
                a,
                b,
                c,
                d,
                |_, bits| f64::from_bits(bits),
                |_, v: f64| v.to_bits(),
                |x, y, sum: f64| x.mul_add(y, sum),
            ),
            Family::Integer if self.satfinite => self.accumulate(
                a,
                b,
                c,
                d,
                integer,
                |_, v: i64| u64::from(v.clamp(i32::MIN.into(), i32::MAX.into()) as u32),
                // Exact: a sum of at most 64 products of 16 bits and one number of 32.
                |x, y, sum: i64| x * y + sum,
            ),
            Family::Integer => self.accumulate(
                a,
                b,
                c,
                d,
                |e, bits| integer(e, bits) as i32,
                |_, v: i32| u64::from(v as u32),
                |x, y, sum: i32| x.wrapping_mul(y).wrapping_add(sum),
            ),
            Family::Bit => {
                let xor = self.bit_op == BitOp::Xor;
                self.accumulate(
                    a,
                    b,
                    c,
                    d,
                    |e, bits| integer(e, bits) as i32,
                    |_, v: i32| u64::from(v as u32),
                    |x, y, sum: i32| sum.wrapping_add(if xor { x ^ y } else { x & y }),
                );
            }
        }
    }

    /// The product for one type of number: operands spread out to dense matrices, multiplied, gathered again.
    #[expect(
        clippy::too_many_arguments,
        reason = "four operands, and the three operations of the number type"
    )]
    fn accumulate<T: Copy + Default>(
        &self,
        a: impl Fn(u32, u32) -> u64,
        b: impl Fn(u32, u32) -> u64,
        c: impl Fn(u32, u32) -> u64,
        mut d: impl FnMut(u32, u32, u64),
        decode: impl Fn(Element, u64) -> T,
        encode: impl Fn(Element, T) -> u64,
        fused: impl Fn(T, T, T) -> T,
    ) {
        let left = self.a.spread(a, &decode);
        let right = self.b.spread(b, &decode);
        let mut sums = self.c.spread(c, &decode);
        let (n, k) = (self.c.fragment.cols as usize, self.a.fragment.cols as usize);
        for (row, x) in sums.chunks_exact_mut(n).zip(left.chunks_exact(k)) {
            // Eight columns at a time, a number known to the compiler, so that they stay in vector registers.
            for (tile, eight) in row.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let mut acc = *eight;
                for (x, y) in x.iter().zip(right.as_chunks::<8>().0.iter().skip(tile).step_by(n / 8)) {
                    for (sum, y) in acc.iter_mut().zip(y) {
                        *sum = fused(*x, *y, *sum);
                    }
                }
                *eight = acc;
            }
        }
        let Layout { fragment, places } = &self.d;
        let bits = fragment.element.bits();
        for (i, places) in (0..).zip(places.chunks_exact(fragment.per_register() as usize)) {
            let value = (0..).zip(places).fold(0, |value, (j, place)| {
                value | encode(fragment.element, sums[usize::from(*place)]) << (j * bits)
            });
            d(i / 32, i % 32, value);
        }
    }
}

/// A fragment and its layout as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    fragment: Fragment,
    /// Register by register, lane by lane, element by element: the place in the operand, row by row. Copies
    /// beyond the first are left out.
    places: Box<[u16]>,
}

impl Layout {
    fn new(fragment: Fragment) -> Self {
        let e = fragment.per_register();
        let registers = fragment.rows * fragment.cols / 32 / e;
        let place = |r, lane, j| {
            let (row, col) = fragment.coord(lane, r * e + j);
            (row * fragment.cols + col) as u16
        };
        let elements = move |r, lane| (0..e).map(move |j| place(r, lane, j));
        let lanes = move |r| (0..32).flat_map(move |lane| elements(r, lane));
        Self { fragment, places: (0..registers).flat_map(lanes).collect() }
    }

    /// The operand as a dense matrix, row by row.
    #[inline(always)]
    fn spread<T: Copy + Default>(
        &self,
        registers: impl Fn(u32, u32) -> u64,
        decode: impl Fn(Element, u64) -> T,
    ) -> Vec<T> {
        let mut dense = vec![T::default(); self.places.len()];
        let (e, bits) = (self.fragment.per_register(), self.fragment.element.bits());
        let mask = u64::MAX >> (64 - bits);
        for (i, places) in (0..).zip(self.places.chunks_exact(e as usize)) {
            let value = registers(i / 32, i % 32);
            for (j, place) in (0..).zip(places) {
                dense[usize::from(*place)] = decode(self.fragment.element, value >> (j * bits) & mask);
            }
        }
        dense
    }
}

/// A floating-point element of at most 32 bits; the product of any two factors is exact in `f32`.
#[inline(always)]
fn single(e: Element, bits: u64) -> f32 {
    match e {
        Element::F16 => F16::to_f32(bits as u16),
        Element::Bf16 => Bf16::to_f32(bits as u16),
        Element::E4m3 => half::e4m3_to_f32(bits as u8),
        Element::E5m2 => half::e5m2_to_f32(bits as u8),
        Element::Tf32 => f32::from_bits(bits as u32 & 0xffff_e000),
        _ => f32::from_bits(bits as u32),
    }
}

/// A sum as an element of D.
#[inline(always)]
fn single_bits(e: Element, v: f32) -> u64 {
    match e {
        Element::F16 => u64::from(F16::from_f32(v, Round::Rn)),
        _ => u64::from(super::float::canonical_f32(v).to_bits()),
    }
}

/// An integer element.
#[inline(always)]
fn integer(e: Element, bits: u64) -> i64 {
    match e {
        Element::S8 => i64::from(bits as i8),
        Element::S4 => i64::from((bits as i8) << 4 >> 4),
        Element::S32 => i64::from(bits as i32),
        _ => bits as i64,
    }
}

/// `ldmatrix` and `stmatrix` (PTX ISA, "ldmatrix"): row and column, within an 8×8 matrix of 16-bit elements, of the
/// low and the high half of the register that `lane` holds. Row `r` of matrix `i` lies at the address that lane
/// `8·i + r` gives.
#[inline(always)]
pub const fn ldmatrix_coord(lane: u32, trans: bool) -> [(u32, u32); 2] {
    let (group, first) = (lane >> 2, (lane & 3) * 2);
    if trans { [(first, group), (first + 1, group)] } else { [(group, first), (group, first + 1)] }
}

#[cfg(test)]
mod tests;
