//! What is known about values without running: who has the same value ([`Stride`]), and between which bounds it
//! lies ([`Interval`]).
//!
//! The same evaluation runs twice: when a program is checked, with the arguments unknown, and when a launch is
//! planned, with the arguments known. A check that the first proves is in no variant of the code; a check that the
//! second proves is left out of the variant which that launch runs.

use crate::ir::{BinaryOp, CompareOp, Def, Expr, ExprKind, Guards, Special, UnaryOp, Unit, VarId};
use crate::types::{ParamType, Scalar};

/// How a value differs among the threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stride {
    /// The same for all threads of a block; for all of the launch when true.
    Uniform(bool),
    /// By this much from one thread to the next.
    Step(i64),
    /// By a multiple of something that the launch decides.
    Scaled,
    /// In no known way.
    Free,
}

/// Bounds of an integer value, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

const INT: Interval = Interval { low: i32::MIN as i64, high: i32::MAX as i64 };
const UINT: Interval = Interval { low: 0, high: u32::MAX as i64 };

impl Interval {
    pub(crate) const fn exact(value: i64) -> Self {
        Self { low: value, high: value }
    }

    const fn new(low: i64, high: i64) -> Self {
        Self { low, high }
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub(crate) const fn inside(self, low: i64, high: i64) -> bool {
        self.is_empty() || (self.low >= low && self.high <= high)
    }

    fn meet(self, other: Self) -> Self {
        Self::new(self.low.max(other.low), self.high.min(other.high))
    }

    fn join(self, other: Self) -> Self {
        Self::new(self.low.min(other.low), self.high.max(other.high))
    }
}

/// What a launch is given, as far as it decides integer values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Value of each scalar integer parameter; bounds of all when nothing is known.
    pub(crate) scalars: Vec<Option<i64>>,
    /// Length of each array parameter.
    pub(crate) lengths: Vec<Option<i64>>,
    /// Number of the first thread and of those that run.
    pub(crate) first: i64,
    pub(crate) threads: Option<i64>,
}

/// Array lengths are below this, so that an element's offset within an index never overflows.
pub(crate) const MAX_LENGTH: i64 = (1 << 31) - 8192;

/// Evaluates expressions of a unit.
pub(crate) struct Facts<'a> {
    unit: &'a Unit,
    known: Option<&'a Known>,
}

/// Bounds that conditions put on variables and on the thread's number.
#[derive(Debug, Default, Clone)]
pub(crate) struct Refinement {
    vars: Vec<(VarId, Interval)>,
    specials: Vec<(Special, Interval)>,
    budget: u32,
}

/// Steps that the evaluation of one site may take; beyond it nothing is known.
const BUDGET: u32 = 20_000;

impl<'a> Facts<'a> {
    pub(crate) fn new(unit: &'a Unit) -> Self {
        Self { unit, known: None }
    }

    pub(crate) fn with(unit: &'a Unit, known: &'a Known) -> Self {
        Self { unit, known: Some(known) }
    }

    // ---- who has the same value ---------------------------------------------------------------

    /// How the value differs among threads. Variables count by their one definition; see
    /// [`crate::check::uniform`] for control flow.
    pub(crate) fn stride(&self, expr: &Expr) -> Stride {
        self.stride_within(expr, &mut BUDGET.clone())
    }

    fn stride_within(&self, expr: &Expr, budget: &mut u32) -> Stride {
        if *budget == 0 {
            return Stride::Free;
        }
        *budget -= 1;
        match &expr.kind {
            ExprKind::Const(_) | ExprKind::Scalar(_) | ExprKind::Len(_) => Stride::Uniform(true),
            ExprKind::Special(Special::Thread | Special::Local) => Stride::Step(1),
            ExprKind::Special(Special::Block) => Stride::Uniform(false),
            ExprKind::Special(Special::Blocks | Special::Threads) => Stride::Uniform(true),
            ExprKind::Var(var) => match &self.unit.vars[*var as usize].def {
                Def::Once(value) => self.stride_within(value, budget),
                // In one turn of the loop, threads differ as their starts do.
                Def::Loop(three) => match self.stride_within(&three[2], budget) {
                    Stride::Uniform(_) => self.stride_within(&three[0], budget),
                    _ => Stride::Free,
                },
                _ => Stride::Free,
            },
            ExprKind::Bits(inner) => self.stride_within(inner, budget),
            ExprKind::Binary(op, a, b) => {
                let (x, y) = (self.stride_within(a, budget), self.stride_within(b, budget));
                combine(*op, x, y, a, b)
            }
            ExprKind::Fma(three) => {
                let product = combine(
                    BinaryOp::Mul,
                    self.stride_within(&three[0], budget),
                    self.stride_within(&three[1], budget),
                    &three[0],
                    &three[1],
                );
                combine(BinaryOp::Add, product, self.stride_within(&three[2], budget), &three[0], &three[2])
            }
            _ => {
                let mut all = true;
                let mut launch = true;
                for operand in expr.operands() {
                    match self.stride_within(operand, budget) {
                        Stride::Uniform(whole) => launch &= whole,
                        _ => all = false,
                    }
                }
                if all { Stride::Uniform(launch) } else { Stride::Free }
            }
        }
    }

    // ---- between which bounds -----------------------------------------------------------------

    /// The bounds of an integer expression under conditions that hold.
    pub(crate) fn interval(&self, expr: &Expr, guards: &Guards) -> Interval {
        let mut refinement = Refinement { budget: BUDGET, ..Refinement::default() };
        let mut chain = Vec::new();
        let mut at = Some(guards);
        while let Some(guards) = at {
            chain.extend(&guards.condition);
            at = guards.outer.as_deref();
        }
        // Outer conditions first: inner ones may speak of what they bound.
        for (condition, holds) in chain.into_iter().rev() {
            self.refine(condition, *holds, &mut refinement);
        }
        self.eval(expr, &mut refinement)
    }

    /// Takes in a condition that holds, or does not.
    fn refine(&self, condition: &Expr, holds: bool, refinement: &mut Refinement) {
        match &condition.kind {
            ExprKind::Var(var) => {
                if let Def::Once(value) = &self.unit.vars[*var as usize].def {
                    self.refine(value, holds, refinement);
                }
            }
            ExprKind::Unary(UnaryOp::Not, inner) => self.refine(inner, !holds, refinement),
            ExprKind::Binary(BinaryOp::And, a, b) if holds => {
                self.refine(a, true, refinement);
                self.refine(b, true, refinement);
            }
            ExprKind::Binary(BinaryOp::Or, a, b) if !holds => {
                self.refine(a, false, refinement);
                self.refine(b, false, refinement);
            }
            ExprKind::Compare(op, a, b) if a.ty == Scalar::Int => {
                let op = if holds { *op } else { opposite(*op) };
                self.bound(a, op, b, refinement);
                self.bound(b, mirrored(op), a, refinement);
            }
            _ => {}
        }
    }

    /// `target op other` holds: narrows what is known of `target`.
    fn bound(&self, target: &Expr, op: CompareOp, other: &Expr, refinement: &mut Refinement) {
        let limit = self.eval(other, refinement);
        if limit.is_empty() {
            return;
        }
        let narrowed = match op {
            CompareOp::Lt => Interval::new(i64::from(i32::MIN), limit.high - 1),
            CompareOp::Le => Interval::new(i64::from(i32::MIN), limit.high),
            CompareOp::Gt => Interval::new(limit.low + 1, i64::from(i32::MAX)),
            CompareOp::Ge => Interval::new(limit.low, i64::from(i32::MAX)),
            CompareOp::Eq => limit,
            CompareOp::Ne => return,
        };
        self.narrow(target, narrowed, refinement);
    }

    fn narrow(&self, target: &Expr, to: Interval, refinement: &mut Refinement) {
        match &target.kind {
            ExprKind::Var(var) => match self.unit.vars[*var as usize].def {
                Def::Once(_) | Def::Loop(_) | Def::Loaded(_) => {
                    let now = self.eval(target, refinement).meet(to);
                    refinement.vars.push((*var, now));
                }
                Def::Many | Def::None => {}
            },
            ExprKind::Special(special) => {
                let now = self.eval(target, refinement).meet(to);
                refinement.specials.push((*special, now));
            }
            // x + c < y bounds x as well, where the sum cannot wrap.
            ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), inner, by) => {
                if let Some(by) = by.constant_int() {
                    let by = if *op == BinaryOp::Add { by } else { -by };
                    let now = self.eval(inner, refinement);
                    if now.low + by >= INT.low && now.high + by <= INT.high {
                        self.narrow(inner, Interval::new(to.low - by, to.high - by), refinement);
                    }
                }
            }
            _ => {}
        }
    }

    fn eval(&self, expr: &Expr, refinement: &mut Refinement) -> Interval {
        let whole = match expr.ty {
            Scalar::Uint | Scalar::Pixel => UINT,
            Scalar::Bool => Interval::new(0, 1),
            _ => INT,
        };
        if refinement.budget == 0 {
            return whole;
        }
        refinement.budget -= 1;
        let value = match &expr.kind {
            ExprKind::Const(_) => match expr.constant_int() {
                Some(value) => Interval::exact(value),
                None => whole,
            },
            ExprKind::Scalar(index) => match self.known.and_then(|known| known.scalars[*index as usize]) {
                Some(value) => Interval::exact(value),
                None => match self.unit.params[*index as usize].ty {
                    ParamType::Scalar(crate::types::Element::Byte) => Interval::new(0, 255),
                    _ => whole,
                },
            },
            ExprKind::Len(index) => match self.known.and_then(|known| known.lengths[*index as usize]) {
                Some(length) => Interval::exact(length),
                None => Interval::new(0, MAX_LENGTH),
            },
            ExprKind::Special(special) => self.special(*special, refinement),
            ExprKind::Var(var) => self.var(*var, whole, refinement),
            ExprKind::Bits(inner) | ExprKind::Cast(inner)
                if inner.ty.is_integer() || inner.ty == Scalar::Bool =>
            {
                let inner = self.eval(inner, refinement);
                if inner.inside(whole.low, whole.high) { inner } else { whole }
            }
            ExprKind::Compare(op, a, b) if a.ty.is_integer() => {
                let (x, y) = (self.eval(a, refinement), self.eval(b, refinement));
                decide(*op, x, y).map_or(whole, |outcome| Interval::exact(i64::from(outcome)))
            }
            ExprKind::Unary(UnaryOp::Not, inner) => {
                let inner = self.eval(inner, refinement);
                Interval::new(1 - inner.high, 1 - inner.low)
            }
            ExprKind::Binary(BinaryOp::And, a, b) if expr.ty == Scalar::Bool => {
                let (x, y) = (self.eval(a, refinement), self.eval(b, refinement));
                Interval::new(x.low.min(y.low), x.high.min(y.high))
            }
            ExprKind::Binary(BinaryOp::Or, a, b) if expr.ty == Scalar::Bool => {
                let (x, y) = (self.eval(a, refinement), self.eval(b, refinement));
                Interval::new(x.low.max(y.low), x.high.max(y.high))
            }
            ExprKind::Unary(UnaryOp::Neg, inner) => {
                let inner = self.eval(inner, refinement);
                Interval::new(-inner.high, -inner.low)
            }
            ExprKind::Unary(UnaryOp::Abs, inner) => {
                let inner = self.eval(inner, refinement);
                let low =
                    if inner.low <= 0 && inner.high >= 0 { 0 } else { inner.low.abs().min(inner.high.abs()) };
                Interval::new(low, inner.low.abs().max(inner.high.abs()))
            }
            ExprKind::Binary(op, a, b) => {
                let (x, y) = (self.eval(a, refinement), self.eval(b, refinement));
                if x.is_empty() || y.is_empty() {
                    return Interval::new(1, 0);
                }
                arithmetic(*op, x, y).unwrap_or(whole)
            }
            ExprKind::Fma(three) => {
                let [x, y, z] = [0, 1, 2].map(|i| self.eval(&three[i], refinement));
                if x.is_empty() || y.is_empty() || z.is_empty() {
                    return Interval::new(1, 0);
                }
                match arithmetic(BinaryOp::Mul, x, y) {
                    // An intermediate overflow wraps back only if the sum fits; keep it simple and sound.
                    Some(product) if product.inside(whole.low, whole.high) => {
                        Interval::new(product.low + z.low, product.high + z.high)
                    }
                    _ => whole,
                }
            }
            ExprKind::Select(three) => {
                let (x, y) = (self.eval(&three[1], refinement), self.eval(&three[2], refinement));
                x.join(y)
            }
            _ => whole,
        };
        if value.inside(whole.low, whole.high) { value } else { whole }
    }

    fn special(&self, special: Special, refinement: &Refinement) -> Interval {
        let threads = self.known.and_then(|known| known.threads);
        let first = self.known.map_or(0, |known| known.first);
        let block = i64::from(self.unit.block);
        let most = threads.unwrap_or_else(|| i64::from(i32::MAX));
        let mut value = match special {
            Special::Thread => Interval::new(first, (first + most - 1).min(INT.high)),
            Special::Local => Interval::new(0, block - 1),
            Special::Block => Interval::new(0, (most - 1) / block),
            Special::Blocks => match threads {
                Some(threads) => Interval::exact((threads + block - 1) / block),
                None => Interval::new(1, INT.high),
            },
            Special::Threads => match threads {
                Some(threads) => Interval::exact(threads),
                None => Interval::new(1, INT.high),
            },
        };
        for (_, bound) in refinement.specials.iter().filter(|(which, _)| *which == special) {
            value = value.meet(*bound);
        }
        value
    }

    fn var(&self, var: VarId, whole: Interval, refinement: &mut Refinement) -> Interval {
        // The last bound met all before it.
        if let Some((_, bound)) = refinement.vars.iter().rev().find(|(which, _)| *which == var) {
            return *bound;
        }
        match &self.unit.vars[var as usize].def {
            Def::Once(value) => self.eval(value, refinement),
            Def::Loaded(crate::types::Element::Byte) => Interval::new(0, 255),
            Def::Loop(three) => {
                let (from, to) = (self.eval(&three[0], refinement), self.eval(&three[1], refinement));
                Interval::new(from.low, (to.high - 1).max(from.low))
            }
            _ => whole,
        }
    }
}

fn combine(op: BinaryOp, x: Stride, y: Stride, a: &Expr, b: &Expr) -> Stride {
    use Stride::{Free, Scaled, Step, Uniform};
    if let (Uniform(p), Uniform(q)) = (x, y) {
        return Uniform(p && q);
    }
    match (op, x, y) {
        (BinaryOp::Add | BinaryOp::Sub, Step(s), Uniform(_)) => Step(s),
        (BinaryOp::Add | BinaryOp::Sub, Scaled, Uniform(_)) | (BinaryOp::Add, Uniform(_), Scaled) => Scaled,
        (BinaryOp::Add, Uniform(_), Step(s)) => Step(s),
        (BinaryOp::Sub, Uniform(_), Step(s)) => Step(-s),
        (BinaryOp::Add, Step(s), Step(t)) => step(s + t),
        (BinaryOp::Sub, Step(s), Step(t)) => step(s - t),
        (BinaryOp::Mul, Step(s), Uniform(_)) => {
            b.constant_int().map_or(Scaled, |c| step(s.saturating_mul(c)))
        }
        (BinaryOp::Mul, Uniform(_), Step(s)) => {
            a.constant_int().map_or(Scaled, |c| step(s.saturating_mul(c)))
        }
        (BinaryOp::Mul, Scaled, Uniform(_)) | (BinaryOp::Mul, Uniform(_), Scaled) => Scaled,
        (BinaryOp::Shl, Step(s), Uniform(_)) => match b.constant_int() {
            Some(c @ 0..=30) => step(s << c),
            _ => Scaled,
        },
        _ => Free,
    }
}

fn step(by: i64) -> Stride {
    // Terms that cancel leave what is the same for the block at least.
    if by == 0 { Stride::Uniform(false) } else { Stride::Step(by) }
}

/// Bounds of a result computed without wrapping; `None` when nothing better than the type is known.
fn arithmetic(op: BinaryOp, x: Interval, y: Interval) -> Option<Interval> {
    let corners = |f: fn(i64, i64) -> i64| {
        let all = [f(x.low, y.low), f(x.low, y.high), f(x.high, y.low), f(x.high, y.high)];
        Interval::new(*all.iter().min().expect("four"), *all.iter().max().expect("four"))
    };
    Some(match op {
        BinaryOp::Add => Interval::new(x.low + y.low, x.high + y.high),
        BinaryOp::Sub => Interval::new(x.low - y.high, x.high - y.low),
        BinaryOp::Mul => corners(i64::saturating_mul),
        BinaryOp::Min => Interval::new(x.low.min(y.low), x.high.min(y.high)),
        BinaryOp::Max => Interval::new(x.low.max(y.low), x.high.max(y.high)),
        BinaryOp::Div if y.low > 0 || y.high < 0 => corners(|a, b| a / b),
        BinaryOp::Rem if y.low > 0 => {
            let most = y.high - 1;
            Interval::new(
                if x.low < 0 { -most } else { 0 }.max(x.low.min(0)),
                if x.high > 0 { most.min(x.high) } else { 0 },
            )
        }
        BinaryOp::And if x.low >= 0 || y.low >= 0 => {
            let limit = match (x.low >= 0, y.low >= 0) {
                (true, true) => x.high.min(y.high),
                (true, false) => x.high,
                _ => y.high,
            };
            Interval::new(0, limit)
        }
        BinaryOp::Shr if x.low >= 0 && y.low >= 0 && y.high < 32 => {
            Interval::new(x.low >> y.high, x.high >> y.low)
        }
        BinaryOp::Shl if x.low >= 0 && y.low >= 0 && y.high < 31 => {
            Interval::new(x.low << y.low, x.high << y.high)
        }
        BinaryOp::Or | BinaryOp::Xor if x.low >= 0 && y.low >= 0 => {
            let bits = 64 - (x.high | y.high).leading_zeros();
            Interval::new(0, (1i64 << bits) - 1)
        }
        _ => return None,
    })
}

/// The outcome of a comparison that bounds decide.
fn decide(op: CompareOp, x: Interval, y: Interval) -> Option<bool> {
    if x.is_empty() || y.is_empty() {
        return None;
    }
    let (below, not_above) = (x.high < y.low, x.high <= y.low);
    let (above, not_below) = (x.low > y.high, x.low >= y.high);
    match op {
        CompareOp::Lt if below => Some(true),
        CompareOp::Lt if not_below => Some(false),
        CompareOp::Le if not_above => Some(true),
        CompareOp::Le if above => Some(false),
        CompareOp::Gt if above => Some(true),
        CompareOp::Gt if not_above => Some(false),
        CompareOp::Ge if not_below => Some(true),
        CompareOp::Ge if below => Some(false),
        CompareOp::Eq if below || above => Some(false),
        CompareOp::Ne if below || above => Some(true),
        _ => None,
    }
}

fn opposite(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Ge,
        CompareOp::Le => CompareOp::Gt,
        CompareOp::Gt => CompareOp::Le,
        CompareOp::Ge => CompareOp::Lt,
        CompareOp::Eq => CompareOp::Ne,
        CompareOp::Ne => CompareOp::Eq,
    }
}

fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::Le => CompareOp::Ge,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::Ge => CompareOp::Le,
        same => same,
    }
}
