//! Comparison operators of `setp`, `set` and `slct`'s kin (PTX ISA, "Comparison and Selection Instructions" and
//! "Comparisons").
//!
//! Pure. Half-precision numbers compare by their exact `f32` value.

use std::cmp::Ordering;

use super::float::ftz_f32;
use super::int::Int;

/// A comparison operator, for integers and floating-point numbers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// `.eq`: equal; for floats, false with a NaN.
    Eq,
    /// `.ne`: not equal; for floats, false with a NaN.
    Ne,
    /// `.lt`: less; for floats, false with a NaN.
    Lt,
    /// `.le`: less or equal; for floats, false with a NaN.
    Le,
    /// `.gt`: greater; for floats, false with a NaN.
    Gt,
    /// `.ge`: greater or equal; for floats, false with a NaN.
    Ge,
    /// `.lo`: lower, unsigned.
    Lo,
    /// `.ls`: lower or same, unsigned.
    Ls,
    /// `.hi`: higher, unsigned.
    Hi,
    /// `.hs`: higher or same, unsigned.
    Hs,
    /// `.equ`: equal or unordered.
    Equ,
    /// `.neu`: not equal or unordered.
    Neu,
    /// `.ltu`: less or unordered.
    Ltu,
    /// `.leu`: less, equal or unordered.
    Leu,
    /// `.gtu`: greater or unordered.
    Gtu,
    /// `.geu`: greater, equal or unordered.
    Geu,
    /// `.num`: both are numbers.
    Num,
    /// `.nan`: one is a NaN.
    Nan,
}

impl Cmp {
    /// The operator that a modifier names (without the dot).
    pub fn parse(modifier: &str) -> Option<Self> {
        Some(match modifier {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "lo" => Self::Lo,
            "ls" => Self::Ls,
            "hi" => Self::Hi,
            "hs" => Self::Hs,
            "equ" => Self::Equ,
            "neu" => Self::Neu,
            "ltu" => Self::Ltu,
            "leu" => Self::Leu,
            "gtu" => Self::Gtu,
            "geu" => Self::Geu,
            "num" => Self::Num,
            "nan" => Self::Nan,
            _ => return None,
        })
    }

    /// The operator's answer for an ordering; `None` is unordered.
    #[inline(always)]
    fn holds(self, order: Option<Ordering>) -> bool {
        use Ordering::{Equal, Greater, Less};
        match self {
            Self::Eq => order == Some(Equal),
            Self::Ne => matches!(order, Some(Less | Greater)),
            Self::Lt | Self::Lo => order == Some(Less),
            Self::Le | Self::Ls => matches!(order, Some(Less | Equal)),
            Self::Gt | Self::Hi => order == Some(Greater),
            Self::Ge | Self::Hs => matches!(order, Some(Greater | Equal)),
            Self::Equ => matches!(order, None | Some(Equal)),
            Self::Neu => order != Some(Equal),
            Self::Ltu => matches!(order, None | Some(Less)),
            Self::Leu => order != Some(Greater),
            Self::Gtu => matches!(order, None | Some(Greater)),
            Self::Geu => order != Some(Less),
            Self::Num => order.is_some(),
            Self::Nan => order.is_none(),
        }
    }
}

/// Compares integers (PTX ISA, "setp"). `.lo .ls .hi .hs` compare the bits as unsigned numbers whatever `T` is.
#[inline(always)]
pub fn int<T: Int>(op: Cmp, a: T, b: T) -> bool {
    match op {
        Cmp::Eq | Cmp::Equ => a == b,
        Cmp::Ne | Cmp::Neu => a != b,
        Cmp::Lt | Cmp::Ltu => a < b,
        Cmp::Le | Cmp::Leu => a <= b,
        Cmp::Gt | Cmp::Gtu => a > b,
        Cmp::Ge | Cmp::Geu => a >= b,
        Cmp::Lo | Cmp::Ls | Cmp::Hi | Cmp::Hs => op.holds(Some(a.unsigned_cmp(b))),
        Cmp::Num => true,
        Cmp::Nan => false,
    }
}

/// Compares single-precision numbers (PTX ISA, "setp"); with `ftz`, subnormal inputs count as zero.
#[inline(always)]
pub fn f32(op: Cmp, a: f32, b: f32, ftz: bool) -> bool {
    let (a, b) = if ftz { (ftz_f32(a), ftz_f32(b)) } else { (a, b) };
    ordered(op, a, b)
}

/// Compares double-precision numbers (PTX ISA, "setp").
#[inline(always)]
pub fn f64(op: Cmp, a: f64, b: f64) -> bool {
    ordered(op, a, b)
}

/// The float operators in forms that compile to single comparisons.
#[inline(always)]
fn ordered<T: PartialOrd + Copy>(op: Cmp, a: T, b: T) -> bool {
    match op {
        Cmp::Eq => a == b,
        // Not `!=`, which holds for a NaN.
        Cmp::Ne => (a < b) | (a > b),
        Cmp::Lt | Cmp::Lo => a < b,
        Cmp::Le | Cmp::Ls => a <= b,
        Cmp::Gt | Cmp::Hi => a > b,
        Cmp::Ge | Cmp::Hs => a >= b,
        Cmp::Neu => a != b,
        Cmp::Equ | Cmp::Ltu | Cmp::Leu | Cmp::Gtu | Cmp::Geu | Cmp::Num | Cmp::Nan => {
            op.holds(a.partial_cmp(&b))
        }
    }
}

/// The Boolean operator by which `setp` and `set` combine their result with a predicate (PTX ISA, "setp").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoolOp {
    /// `.and`.
    And,
    /// `.or`.
    Or,
    /// `.xor`.
    Xor,
}

/// Combines the outcome of a comparison with the predicate operand.
#[inline(always)]
pub fn combine(op: BoolOp, a: bool, b: bool) -> bool {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, Cmp); 18] = [
        ("eq", Cmp::Eq),
        ("ne", Cmp::Ne),
        ("lt", Cmp::Lt),
        ("le", Cmp::Le),
        ("gt", Cmp::Gt),
        ("ge", Cmp::Ge),
        ("lo", Cmp::Lo),
        ("ls", Cmp::Ls),
        ("hi", Cmp::Hi),
        ("hs", Cmp::Hs),
        ("equ", Cmp::Equ),
        ("neu", Cmp::Neu),
        ("ltu", Cmp::Ltu),
        ("leu", Cmp::Leu),
        ("gtu", Cmp::Gtu),
        ("geu", Cmp::Geu),
        ("num", Cmp::Num),
        ("nan", Cmp::Nan),
    ];

    #[test]
    fn names_parse_to_their_operators() {
        for (name, op) in ALL {
            assert_eq!(Cmp::parse(name), Some(op));
        }
        assert_eq!(Cmp::parse("lessthan"), None);
    }

    #[test]
    fn unsigned_operators_ignore_the_sign() {
        assert!(int(Cmp::Lt, -1i32, 1));
        assert!(!int(Cmp::Lo, -1i32, 1));
        assert!(int(Cmp::Hi, -1i64, 1));
        assert!(int(Cmp::Hs, i16::MIN, i16::MAX));
        assert!(int(Cmp::Ls, 5u64, 5));
    }

    /// The truth table of PTX ISA, "Floating Point Comparisons": for less, equal, greater and unordered pairs.
    #[test]
    fn float_operators_follow_the_table() {
        let pairs = [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (f32::NAN, 2.0)];
        let table = [
            (Cmp::Eq, [false, true, false, false]),
            (Cmp::Ne, [true, false, true, false]),
            (Cmp::Lt, [true, false, false, false]),
            (Cmp::Le, [true, true, false, false]),
            (Cmp::Gt, [false, false, true, false]),
            (Cmp::Ge, [false, true, true, false]),
            (Cmp::Equ, [false, true, false, true]),
            (Cmp::Neu, [true, false, true, true]),
            (Cmp::Ltu, [true, false, false, true]),
            (Cmp::Leu, [true, true, false, true]),
            (Cmp::Gtu, [false, false, true, true]),
            (Cmp::Geu, [false, true, true, true]),
            (Cmp::Num, [true, true, true, false]),
            (Cmp::Nan, [false, false, false, true]),
        ];
        for (op, expected) in table {
            for ((a, b), want) in pairs.iter().zip(expected) {
                assert_eq!(f32(op, *a, *b, false), want, "{op:?} {a} {b}");
                assert_eq!(f64(op, f64::from(*a), f64::from(*b)), want, "{op:?} {a} {b}");
                // The same answer through the general rule.
                assert_eq!(op.holds(a.partial_cmp(b)), want, "{op:?} {a} {b}");
            }
        }
    }

    #[test]
    fn ftz_makes_subnormals_equal_to_zero() {
        let tiny = f32::from_bits(1);
        assert!(f32(Cmp::Gt, tiny, 0.0, false));
        assert!(f32(Cmp::Eq, tiny, 0.0, true));
        assert!(f32(Cmp::Eq, tiny, -tiny, true));
    }

    #[test]
    fn combiners() {
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(combine(BoolOp::And, a, b), a && b);
            assert_eq!(combine(BoolOp::Or, a, b), a || b);
            assert_eq!(combine(BoolOp::Xor, a, b), a != b);
        }
    }
}
