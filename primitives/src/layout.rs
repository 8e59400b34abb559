//! The machine parameters of an entry: what its kernel declares, then what the launcher adds. Part of the contract
//! between the generated code and whoever launches it.
//!
//! Order: the declared parameters (a pointer for an array, the value for a scalar); the length of each array; the
//! number of threads that run; the first thread's number, where a launch may do a part; a multiplier and a shift for
//! each parameter that divides; the address of the fault record.

use crate::ir::{BinaryOp, Expr, ExprKind, Unit, visit_statements};
use crate::types::{ParamType, Scalar};

/// A parameter that the launcher adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hidden {
    /// Elements of an array parameter.
    Length(u32),
    Threads,
    First,
    /// For division by a scalar parameter: `n / d == (n * multiplier) >> shift`, for n below 2^31.
    Multiplier(u32),
    Shift(u32),
    Fault,
}

/// Where a parameter lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) hidden: Option<Hidden>,
}

/// All parameters of an entry, in order.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) slots: Vec<Slot>,
}

impl Layout {
    pub(crate) fn of(unit: &Unit) -> Self {
        let mut layout = Self { slots: Vec::new() };
        for param in &unit.params {
            let bytes = match param.ty {
                ParamType::Array(_) => 8,
                ParamType::Scalar(element) => element.bytes(),
            };
            layout.push(bytes, None);
        }
        for (index, param) in unit.params.iter().enumerate() {
            if matches!(param.ty, ParamType::Array(_)) {
                layout.push(4, Some(Hidden::Length(u32::try_from(index).expect("parameters are bounded"))));
            }
        }
        layout.push(4, Some(Hidden::Threads));
        if unit.offset {
            layout.push(4, Some(Hidden::First));
        }
        for index in divisors(unit) {
            layout.push(4, Some(Hidden::Multiplier(index)));
            layout.push(4, Some(Hidden::Shift(index)));
        }
        layout.push(8, Some(Hidden::Fault));
        layout
    }

    fn push(&mut self, bytes: usize, hidden: Option<Hidden>) {
        let offset = self.bytes().next_multiple_of(bytes);
        self.slots.push(Slot { offset, bytes, hidden });
    }

    /// Bytes of the parameter buffer.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.offset + slot.bytes)
    }

    /// The slot of a hidden parameter.
    pub(crate) fn hidden(&self, hidden: Hidden) -> usize {
        self.slots
            .iter()
            .position(|slot| slot.hidden == Some(hidden))
            .expect("the layout was made of this unit")
    }

    /// Whether a scalar parameter comes with a multiplier.
    pub(crate) fn has_reciprocal(&self, index: u32) -> bool {
        self.slots.iter().any(|slot| slot.hidden == Some(Hidden::Multiplier(index)))
    }
}

/// Scalar parameters that divide an integer somewhere.
fn divisors(unit: &Unit) -> Vec<u32> {
    let mut found = Vec::new();
    let mut look = |expr: &Expr| {
        if let ExprKind::Binary(BinaryOp::Div | BinaryOp::Rem, _, divisor) = &expr.kind
            && expr.ty == Scalar::Int
            && let ExprKind::Scalar(index) = divisor.kind
            && !found.contains(&index)
        {
            found.push(index);
        }
    };
    visit_statements(&unit.body, &mut |stmt| {
        for expr in stmt.expressions() {
            expr.visit(&mut look);
        }
    });
    found
}

/// The multiplier and shift for a positive divisor (Granlund and Montgomery, "Division by invariant integers using
/// multiplication", for numerators of 31 bits, where the multiplier fits into 32).
pub(crate) fn reciprocal(divisor: i32) -> Option<(u32, u32)> {
    let divisor = u64::try_from(divisor).ok().filter(|d| *d > 0)?;
    let bits = 64 - (divisor - 1).leading_zeros().min(64);
    let multiplier = (1u64 << (31 + bits)).div_ceil(divisor);
    Some((u32::try_from(multiplier).ok()?, 31 + bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplication_divides_exactly() {
        let divisors = (1..2000).chain([i32::MAX, i32::MAX - 1, 1 << 30, (1 << 30) + 1, 640, 1_000_003]);
        for d in divisors {
            let (m, s) = reciprocal(d).unwrap();
            let top = i32::MAX as u64;
            let near = u64::try_from(d).unwrap();
            for n in [
                0,
                1,
                near - 1,
                near,
                near + 1,
                2 * near - 1,
                top / near * near - 1,
                top / near * near,
                top,
                top - 1,
                12_345_678,
            ] {
                if n <= top {
                    assert_eq!((n * u64::from(m)) >> s, n / near, "{n} / {d}");
                }
            }
        }
        assert_eq!(reciprocal(0), None);
        assert_eq!(reciprocal(-3), None);
    }
}
