//! Indices that take a number apart and put it together again: `(t / w) * w + t % w` is `t`, and the element above it
//! in a grid of rows is `t - w`. Programs name pixels by row and column, and neighbours by changes of both; behind this
//! pass an index depends on the division only where it must.
//!
//! All arithmetic is that of 32 bits that wrap, in which sums and products may be taken apart in any order; the
//! identity itself holds for every divisor but zero, which a check before it refuses. Proofs of bounds keep the index
//! as it was written: what rows and columns tell about it is in that form.

use crate::ir::{BinaryOp, Def, Expr, ExprKind, Stmt, UnaryOp, Unit};
use crate::types::Scalar;

/// Parts of an expression that are looked at; a larger one stays as it is.
const MOST_PARTS: u32 = 256;
/// Terms of a sum that are worth writing out.
const MOST_TERMS: usize = 4;

/// A sum of terms plus a constant, modulo 2^32.
#[derive(Debug, Clone, Default)]
struct Sum {
    terms: Vec<Term>,
    constant: i64,
}

/// A number times one or two values.
#[derive(Debug, Clone)]
struct Term {
    times: i64,
    factors: Vec<Expr>,
}

/// Rewrites the indices of a unit.
pub(super) fn simplify(unit: &mut Unit) {
    let mut body = std::mem::take(&mut unit.body);
    simplify_block(&mut body, unit);
    unit.body = body;
}

fn simplify_block(body: &mut [Stmt], unit: &Unit) {
    for stmt in body {
        let index = match stmt {
            Stmt::Load { index, .. } | Stmt::Store { index, .. } => index,
            Stmt::Atomic(atomic) => &mut atomic.index,
            Stmt::If { then, otherwise, .. } => {
                simplify_block(then, unit);
                simplify_block(otherwise, unit);
                continue;
            }
            Stmt::For { body, .. } => {
                simplify_block(body, unit);
                continue;
            }
            _ => continue,
        };
        if let Some(better) = simpler(index, unit) {
            *index = better;
        }
    }
}

/// The index with divisions undone, where that is possible.
fn simpler(index: &Expr, unit: &Unit) -> Option<Expr> {
    let mut expand = Expansion { unit, left: MOST_PARTS };
    let mut sum = expand.sum(index)?;
    let mut better = false;
    while expand.recombine(&mut sum)? {
        better = true;
    }
    (better && sum.terms.len() <= MOST_TERMS).then(|| sum.expr())
}

struct Expansion<'a> {
    unit: &'a Unit,
    left: u32,
}

impl Expansion<'_> {
    fn count(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    /// The expression as a sum. `None` where it is too large to look at.
    fn sum(&mut self, expr: &Expr) -> Option<Sum> {
        self.count()?;
        if let Some(value) = expr.constant_int() {
            return Some(Sum { terms: Vec::new(), constant: wrap(value) });
        }
        let mut sum = Sum::default();
        match &expr.kind {
            ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
                sum = self.sum(a)?;
                let other = self.sum(b)?;
                sum.add(&other, if *op == BinaryOp::Add { 1 } else { -1 });
            }
            ExprKind::Unary(UnaryOp::Neg, inner) => {
                let inner = self.sum(inner)?;
                sum.add(&inner, -1);
            }
            ExprKind::Binary(BinaryOp::Mul, a, b) => sum = self.product(a, b)?,
            ExprKind::Fma(three) => {
                sum = self.product(&three[0], &three[1])?;
                let other = self.sum(&three[2])?;
                sum.add(&other, 1);
            }
            ExprKind::Var(_) => match self.definition(expr)? {
                Some(value) => sum = self.sum(&value)?,
                None => sum.push(1, vec![expr.clone()]),
            },
            _ => {
                let whole = self.resolve(expr)?;
                sum.push(1, vec![whole]);
            }
        }
        Some(sum)
    }

    fn product(&mut self, a: &Expr, b: &Expr) -> Option<Sum> {
        let (a, b) = (self.sum(a)?, self.sum(b)?);
        let mut sum = Sum { terms: Vec::new(), constant: wrap(a.constant.wrapping_mul(b.constant)) };
        for term in &a.terms {
            sum.push(term.times.wrapping_mul(b.constant), term.factors.clone());
            for other in &b.terms {
                self.count()?;
                let factors: Vec<Expr> = term.factors.iter().chain(&other.factors).cloned().collect();
                if factors.len() > 2 {
                    return None;
                }
                sum.push(term.times.wrapping_mul(other.times), factors);
            }
        }
        for other in &b.terms {
            sum.push(other.times.wrapping_mul(a.constant), other.factors.clone());
        }
        Some(sum)
    }

    /// What a variable stands for, where that is the same whenever it is asked for.
    fn definition(&mut self, expr: &Expr) -> Option<Option<Expr>> {
        let ExprKind::Var(var) = expr.kind else { return Some(None) };
        let Def::Once(value) = &self.unit.vars[var as usize].def else { return Some(None) };
        let (value, unit) = (value.clone(), self.unit);
        Some(stable(&value, unit, &mut self.left)?.then_some(value))
    }

    /// The expression with its variables replaced by what they stand for, so that equal values look equal.
    fn resolve(&mut self, expr: &Expr) -> Option<Expr> {
        self.count()?;
        if let Some(value) = self.definition(expr)? {
            return self.resolve(&value);
        }
        let kind = match &expr.kind {
            ExprKind::Binary(op, a, b) => {
                ExprKind::Binary(*op, Box::new(self.resolve(a)?), Box::new(self.resolve(b)?))
            }
            other => other.clone(),
        };
        Some(Expr::new(expr.ty, kind))
    }

    /// Replaces one `c * (a / w) * w + c * (a % w)` by `c * a`.
    fn recombine(&mut self, sum: &mut Sum) -> Option<bool> {
        for (at, rest) in sum.terms.iter().enumerate() {
            let [Expr { kind: ExprKind::Binary(BinaryOp::Rem, a, w), ty: Scalar::Int }] = &rest.factors[..]
            else {
                continue;
            };
            let (a, w, times) = ((**a).clone(), (**w).clone(), rest.times);
            let quotient = Expr::new(
                Scalar::Int,
                ExprKind::Binary(BinaryOp::Div, Box::new(a.clone()), Box::new(w.clone())),
            );
            let whole = match w.constant_int() {
                Some(constant) => Term { times: wrap(times.wrapping_mul(constant)), factors: vec![quotient] },
                None => Term { times, factors: vec![quotient, w] },
            };
            let Some(other) = sum.terms.iter().position(|term| term.is(&whole)) else { continue };
            sum.terms.remove(at.max(other));
            sum.terms.remove(at.min(other));
            let numerator = self.sum(&a)?;
            sum.add(&numerator, times);
            return Some(true);
        }
        Some(false)
    }
}

/// Whether a value is made of what never changes for a thread. `None` where it is too large to tell.
fn stable(expr: &Expr, unit: &Unit, left: &mut u32) -> Option<bool> {
    *left = left.checked_sub(1)?;
    match &expr.kind {
        ExprKind::Const(_) | ExprKind::Special(_) | ExprKind::Scalar(_) | ExprKind::Len(_) => Some(true),
        ExprKind::Var(var) => match &unit.vars[*var as usize].def {
            Def::Once(value) => stable(value, unit, left),
            _ => Some(false),
        },
        _ => {
            for operand in expr.operands() {
                if !stable(operand, unit, left)? {
                    return Some(false);
                }
            }
            Some(true)
        }
    }
}

/// The 32-bit number that is the same modulo 2^32.
fn wrap(value: i64) -> i64 {
    i64::from(crate::arith::low(value.cast_unsigned()).cast_signed())
}

impl Term {
    fn same_factors(&self, other: &[Expr]) -> bool {
        match (&self.factors[..], other) {
            ([a], [b]) => a == b,
            ([a, b], [c, d]) => (a == c && b == d) || (a == d && b == c),
            _ => false,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.times == other.times && self.same_factors(&other.factors)
    }

    /// The term without its sign.
    fn expr(&self) -> Expr {
        let mut factors = self.factors.iter().cloned();
        let first = factors.next().expect("a term has a factor");
        let product = factors.fold(first, |a, b| Expr::binary(BinaryOp::Mul, a, b));
        match i32::try_from(self.times.abs()) {
            Ok(times) => Expr::binary(BinaryOp::Mul, product, Expr::int(times)),
            // -2^31 is its own negative.
            Err(_) => Expr::binary(BinaryOp::Mul, product, Expr::int(i32::MIN)),
        }
    }
}

impl Sum {
    fn push(&mut self, times: i64, factors: Vec<Expr>) {
        let times = wrap(times);
        if let Some(at) = self.terms.iter().position(|term| term.same_factors(&factors)) {
            self.terms[at].times = wrap(self.terms[at].times + times);
            if self.terms[at].times == 0 {
                self.terms.remove(at);
            }
        } else if times != 0 {
            self.terms.push(Term { times, factors });
        }
    }

    fn add(&mut self, other: &Self, times: i64) {
        self.constant = wrap(self.constant.wrapping_add(other.constant.wrapping_mul(times)));
        for term in &other.terms {
            self.push(term.times.wrapping_mul(times), term.factors.clone());
        }
    }

    /// What is added first, then what is taken away, the constant last: there back ends look for an offset.
    fn expr(&self) -> Expr {
        let (plus, minus): (Vec<&Term>, Vec<&Term>) = self.terms.iter().partition(|term| term.times > 0);
        let mut made: Option<Expr> = None;
        for term in plus {
            made = Some(match made {
                None => term.expr(),
                Some(sum) => Expr::binary(BinaryOp::Add, sum, term.expr()),
            });
        }
        for term in minus {
            made = Some(match made {
                None => Expr::unary(UnaryOp::Neg, term.expr()),
                Some(sum) => Expr::binary(BinaryOp::Sub, sum, term.expr()),
            });
        }
        let constant = i32::try_from(self.constant).expect("kept within 32 bits");
        match made {
            None => Expr::int(constant),
            Some(sum) if constant < 0 && constant != i32::MIN => {
                Expr::binary(BinaryOp::Sub, sum, Expr::int(-constant))
            }
            Some(sum) => Expr::binary(BinaryOp::Add, sum, Expr::int(constant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::{ArrayRef, Expr, ExprKind, Special, Stmt, visit_statements};
    use crate::options::Options;

    /// The indices at which a kernel with a thread number `t`, its column `x` and its row `y` reads `a`.
    fn indices(reads: &[&str]) -> Vec<Expr> {
        use std::fmt::Write as _;
        let mut text = "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM w int\nGPU_PARAM v int\n\
                        GPU_THREAD_CODE:\n    THREAD_ID → t\n    CALCULATE x = t % w\n    CALCULATE y = t / w\n"
            .to_owned();
        for (number, read) in reads.iter().enumerate() {
            let _ = write!(text, "    LOAD a[{read}] → l{number}\n    STORE l{number} → o[{number}]\n");
        }
        text.push_str("GPU_END\n");
        let program = crate::compile(&text, &Options::default()).unwrap_or_else(|found| panic!("{found:?}"));
        let mut found = Vec::new();
        visit_statements(&program.kernels()[0].stages[0].unit.body, &mut |stmt| {
            if let Stmt::Load { array: ArrayRef::Param(0), index, .. } = stmt {
                found.push(index.clone());
            }
        });
        found
    }

    fn divides(expr: &Expr) -> bool {
        let mut divides = false;
        expr.visit(&mut |e| {
            divides |= matches!(e.kind, ExprKind::Var(_) | ExprKind::Binary(super::BinaryOp::Div, ..));
        });
        divides
    }

    #[test]
    fn what_was_divided_is_put_together() {
        let t = Expr::special(Special::Thread);
        assert_eq!(
            indices(&["y * w + x", "x + w * y", "(t / 640) * 640 + t % 640", "2 * (y * w + x) - t"]),
            vec![t.clone(); 4]
        );
        let found =
            indices(&["(y - 1) * w + x", "y * w + x + w - 3", "(y + 2) * w + (x - 1)", "y * w - w + x + 1"]);
        for index in &found {
            assert!(!divides(index), "{index:?}");
        }
        let w = Expr::new(super::Scalar::Int, ExprKind::Scalar(2));
        assert_eq!(found[0], Expr::binary(super::BinaryOp::Sub, t, w));
    }

    #[test]
    fn what_is_something_else_stays() {
        for index in indices(&["y * v + x", "y * w - x", "x * w + y", "(t / v) * w + t % w", "2 * y * w + x"])
        {
            assert!(divides(&index), "{index:?}");
        }
    }
}
