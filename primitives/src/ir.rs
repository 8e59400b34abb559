//! The typed form between checker and back ends: structured control flow over pure expressions.
//!
//! Invariants that [`crate::check`] establishes: every variable is assigned before it is read; operand types agree;
//! an expression has no effect and cannot fault, because loads, divisor checks and stores are statements before it;
//! a loop variable is changed by its loop alone.

use std::sync::Arc;

use crate::types::{Element, ParamType, Scalar};

/// A variable of a unit.
pub(crate) type VarId = u32;

/// What a [`Unit`] can address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ArrayRef {
    Param(u32),
    Shared(u32),
    Table(u32),
}

/// A pure expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr {
    pub(crate) ty: Scalar,
    pub(crate) kind: ExprKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ExprKind {
    /// The value's bits, by type.
    Const(u64),
    Var(VarId),
    Special(Special),
    /// A scalar parameter.
    Scalar(u32),
    /// Elements of an array parameter, as `int`.
    Len(u32),
    Unary(UnaryOp, Box<Expr>),
    /// Both operands have the result's type, but for the count of a shift.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    Compare(CompareOp, Box<Expr>, Box<Expr>),
    /// `a * b + c` with one rounding (wrapping for integers).
    Fma(Box<[Expr; 3]>),
    /// Condition, then, else.
    Select(Box<[Expr; 3]>),
    /// Conversion from the operand's type to this one.
    Cast(Box<Expr>),
    /// The operand's bits as this type.
    Bits(Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    /// The thread's number in the launch.
    Thread,
    /// The thread's number in its block.
    Local,
    /// The block's number.
    Block,
    /// Blocks of the launch.
    Blocks,
    /// Threads that run.
    Threads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum UnaryOp {
    Neg,
    /// Of a bool.
    Not,
    /// Of an integer's bits.
    Invert,
    Abs,
    Sqrt,
    Floor,
    Ceil,
    /// To nearest, ties to even.
    Round,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    /// By a count of `int`; 32 and more gives zero.
    Shl,
    /// By a count of `int`; 32 and more gives the sign.
    Shr,
    /// Of a `uint`'s bits, to the right.
    Rotr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CompareOp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
}

/// Number of a place that may fault, in [`Unit::sites`].
pub(crate) type SiteId = u32;
/// Of a statement not yet numbered, or that needs no check.
pub(crate) const NO_SITE: SiteId = u32::MAX;
/// Of a statement of the compiler's own library, which has checked its arguments once.
pub(crate) const TRUSTED_SITE: SiteId = u32::MAX - 1;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stmt {
    Assign {
        var: VarId,
        value: Expr,
    },
    Load {
        var: VarId,
        array: ArrayRef,
        index: Expr,
        site: SiteId,
        line: u32,
    },
    Store {
        array: ArrayRef,
        index: Expr,
        value: Expr,
        site: SiteId,
        line: u32,
    },
    Atomic(Box<Atomic>),
    /// Faults when the divisor is zero.
    Divisor {
        value: Expr,
        site: SiteId,
        line: u32,
    },
    /// Faults when the condition is false.
    Require {
        condition: Expr,
        site: SiteId,
        line: u32,
    },
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
        line: u32,
    },
    /// `var` from `from` while below `to`; `step` is positive.
    For {
        var: VarId,
        from: Expr,
        to: Expr,
        step: Expr,
        body: Vec<Self>,
        line: u32,
    },
    Barrier {
        line: u32,
        column: u32,
    },
    /// The block copies `count` elements from `from` on into shared memory; expanded by `check::expand`.
    LoadRange {
        array: ArrayRef,
        from: Expr,
        count: u32,
        shared: u32,
        line: u32,
        column: u32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Atomic {
    pub(crate) op: AtomicOp,
    pub(crate) old: Option<VarId>,
    pub(crate) array: ArrayRef,
    pub(crate) index: Expr,
    pub(crate) value: Expr,
    /// For [`AtomicOp::CompareExchange`]: what must be there.
    pub(crate) compare: Option<Expr>,
    pub(crate) site: SiteId,
    pub(crate) line: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) ty: Scalar,
    pub(crate) def: Def,
}

/// How a variable gets its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Def {
    /// By one assignment.
    Once(Expr),
    /// By one load.
    Loaded(Element),
    /// By a loop: from, to, step.
    Loop(Box<[Expr; 3]>),
    /// By several, or an atomic.
    Many,
    /// Not (yet) at all.
    None,
}

#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) length: u32,
}

/// A constant array.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) element: Element,
    /// Each element's bits as stored.
    pub(crate) bits: Vec<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) ty: ParamType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SiteKind {
    Load(ArrayRef),
    Store(ArrayRef),
    Atomic(ArrayRef),
    Divisor,
    Require,
}

/// A place where a thread may fault.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) kind: SiteKind,
    pub(crate) line: u32,
    /// The index, the divisor, or the required condition.
    pub(crate) value: Expr,
    /// What holds when it is reached: conditions and whether they are true.
    pub(crate) guards: Arc<Guards>,
    /// Cannot fault whatever the arguments are.
    pub(crate) proven: bool,
}

/// The conditions around a place, innermost first.
#[derive(Debug)]
pub(crate) struct Guards {
    pub(crate) outer: Option<Arc<Self>>,
    pub(crate) condition: Option<(Expr, bool)>,
}

/// One entry point: what a launch runs.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) shared: Vec<Shared>,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) vars: Vec<Var>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) sites: Vec<Site>,
    pub(crate) block: u32,
    /// Threads of a block work together, so that all of them must run.
    pub(crate) whole_blocks: bool,
    /// Leave bounds checks out.
    pub(crate) unchecked: bool,
    /// The thread number starts at a parameter, so that a launch can do a part.
    pub(crate) offset: bool,
}

impl Unit {
    pub(crate) fn element(&self, array: ArrayRef) -> Element {
        match array {
            ArrayRef::Param(index) => match self.params[index as usize].ty {
                ParamType::Array(element) | ParamType::Scalar(element) => element,
            },
            ArrayRef::Shared(index) => self.shared[index as usize].element,
            ArrayRef::Table(index) => self.tables[index as usize].element,
        }
    }

    pub(crate) fn array_name(&self, array: ArrayRef) -> &str {
        match array {
            ArrayRef::Param(index) => &self.params[index as usize].name,
            ArrayRef::Shared(index) => &self.shared[index as usize].name,
            ArrayRef::Table(index) => &self.tables[index as usize].name,
        }
    }

    /// The length, where it is part of the program.
    pub(crate) fn fixed_length(&self, array: ArrayRef) -> Option<u32> {
        match array {
            ArrayRef::Param(_) => None,
            ArrayRef::Shared(index) => Some(self.shared[index as usize].length),
            ArrayRef::Table(index) => u32::try_from(self.tables[index as usize].bits.len()).ok(),
        }
    }
}

impl Expr {
    pub(crate) fn new(ty: Scalar, kind: ExprKind) -> Self {
        Self { ty, kind }
    }

    pub(crate) fn int(value: i32) -> Self {
        Self::new(Scalar::Int, ExprKind::Const(u64::from(value.cast_unsigned())))
    }

    pub(crate) fn uint(value: u32) -> Self {
        Self::new(Scalar::Uint, ExprKind::Const(u64::from(value)))
    }

    pub(crate) fn float(value: f32) -> Self {
        Self::new(Scalar::Float, ExprKind::Const(u64::from(value.to_bits())))
    }

    pub(crate) fn bool(value: bool) -> Self {
        Self::new(Scalar::Bool, ExprKind::Const(u64::from(value)))
    }

    pub(crate) fn var(ty: Scalar, var: VarId) -> Self {
        Self::new(ty, ExprKind::Var(var))
    }

    pub(crate) fn special(special: Special) -> Self {
        Self::new(Scalar::Int, ExprKind::Special(special))
    }

    pub(crate) fn unary(op: UnaryOp, operand: Self) -> Self {
        let ty = operand.ty;
        if let ExprKind::Const(bits) = operand.kind {
            return Self::new(ty, ExprKind::Const(crate::arith::unary(op, ty, bits)));
        }
        Self::new(ty, ExprKind::Unary(op, Box::new(operand)))
    }

    /// A binary operation; constants are folded with the semantics of a run.
    pub(crate) fn binary(op: BinaryOp, left: Self, right: Self) -> Self {
        let ty = left.ty;
        if let (ExprKind::Const(a), ExprKind::Const(b)) = (&left.kind, &right.kind) {
            return Self::new(ty, ExprKind::Const(crate::arith::binary(op, ty, *a, *b)));
        }
        if ty.is_integer() {
            let zero = |e: &Self| e.kind == ExprKind::Const(0);
            let one = |e: &Self| e.kind == ExprKind::Const(1);
            match op {
                BinaryOp::Add | BinaryOp::Or | BinaryOp::Xor if zero(&left) => return right,
                BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Or
                | BinaryOp::Xor
                | BinaryOp::Shl
                | BinaryOp::Shr
                    if zero(&right) =>
                {
                    return left;
                }
                BinaryOp::Mul | BinaryOp::Div if one(&right) => return left,
                BinaryOp::Mul if one(&left) => return right,
                _ => {}
            }
        }
        Self::new(ty, ExprKind::Binary(op, Box::new(left), Box::new(right)))
    }

    pub(crate) fn compare(op: CompareOp, left: Self, right: Self) -> Self {
        if let (ExprKind::Const(a), ExprKind::Const(b)) = (&left.kind, &right.kind) {
            return Self::bool(crate::arith::compare(op, left.ty, *a, *b));
        }
        Self::new(Scalar::Bool, ExprKind::Compare(op, Box::new(left), Box::new(right)))
    }

    pub(crate) fn cast(self, ty: Scalar) -> Self {
        if self.ty == ty {
            return self;
        }
        if let ExprKind::Const(bits) = self.kind {
            return Self::new(ty, ExprKind::Const(crate::arith::cast(self.ty, ty, bits)));
        }
        Self::new(ty, ExprKind::Cast(Box::new(self)))
    }

    pub(crate) fn select(condition: Self, then: Self, otherwise: Self) -> Self {
        Self::new(then.ty, ExprKind::Select(Box::new([condition, then, otherwise])))
    }

    pub(crate) fn bits(self, ty: Scalar) -> Self {
        if self.ty == ty {
            return self;
        }
        match self.kind {
            ExprKind::Const(_) => Self::new(ty, self.kind),
            ExprKind::Bits(inner) if inner.ty == ty => *inner,
            _ => Self::new(ty, ExprKind::Bits(Box::new(self))),
        }
    }

    pub(crate) fn constant_int(&self) -> Option<i64> {
        match (self.ty, &self.kind) {
            (Scalar::Int, ExprKind::Const(bits)) => Some(i64::from(crate::arith::low(*bits).cast_signed())),
            (Scalar::Uint, ExprKind::Const(bits)) => Some(i64::from(crate::arith::low(*bits))),
            _ => None,
        }
    }

    /// Direct operands.
    pub(crate) fn operands(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Const(_)
            | ExprKind::Var(_)
            | ExprKind::Special(_)
            | ExprKind::Scalar(_)
            | ExprKind::Len(_) => Vec::new(),
            ExprKind::Unary(_, a) | ExprKind::Cast(a) | ExprKind::Bits(a) => vec![a],
            ExprKind::Binary(_, a, b) | ExprKind::Compare(_, a, b) => vec![a, b],
            ExprKind::Fma(three) | ExprKind::Select(three) => three.iter().collect(),
        }
    }

    /// Rebuilds the expression with its operands changed, bottom up.
    pub(crate) fn map(self, change: &mut impl FnMut(Self) -> Self) -> Self {
        let ty = self.ty;
        let mut boxed = |e: Box<Self>| Box::new((*e).map(change));
        let kind = match self.kind {
            ExprKind::Unary(op, a) => ExprKind::Unary(op, boxed(a)),
            ExprKind::Cast(a) => ExprKind::Cast(boxed(a)),
            ExprKind::Bits(a) => ExprKind::Bits(boxed(a)),
            ExprKind::Binary(op, a, b) => ExprKind::Binary(op, boxed(a), boxed(b)),
            ExprKind::Compare(op, a, b) => ExprKind::Compare(op, boxed(a), boxed(b)),
            ExprKind::Fma(three) => ExprKind::Fma(Box::new((*three).map(|e| e.map(change)))),
            ExprKind::Select(three) => ExprKind::Select(Box::new((*three).map(|e| e.map(change)))),
            leaf => leaf,
        };
        change(Self { ty, kind })
    }

    /// Visits the expression and all below it.
    pub(crate) fn visit(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        for operand in self.operands() {
            operand.visit(visit);
        }
    }
}

/// Visits every statement, outer ones first.
pub(crate) fn visit_statements<'a>(body: &'a [Stmt], visit: &mut impl FnMut(&'a Stmt)) {
    for stmt in body {
        visit(stmt);
        match stmt {
            Stmt::If { then, otherwise, .. } => {
                visit_statements(then, visit);
                visit_statements(otherwise, visit);
            }
            Stmt::For { body, .. } => visit_statements(body, visit),
            _ => {}
        }
    }
}

impl Stmt {
    /// The expressions that it evaluates itself.
    pub(crate) fn expressions(&self) -> Vec<&Expr> {
        match self {
            Self::Assign { value, .. } | Self::Divisor { value, .. } => vec![value],
            Self::Require { condition, .. } | Self::If { condition, .. } => vec![condition],
            Self::Load { index, .. } => vec![index],
            Self::Store { index, value, .. } => vec![index, value],
            Self::Atomic(atomic) => {
                let mut list = vec![&atomic.index, &atomic.value];
                list.extend(&atomic.compare);
                list
            }
            Self::For { from, to, step, .. } => vec![from, to, step],
            Self::Barrier { .. } => Vec::new(),
            Self::LoadRange { from, .. } => vec![from],
        }
    }

    /// As [`Stmt::expressions`], to be changed.
    pub(crate) fn expressions_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::Assign { value, .. } | Self::Divisor { value, .. } => vec![value],
            Self::Require { condition, .. } | Self::If { condition, .. } => vec![condition],
            Self::Load { index, .. } => vec![index],
            Self::Store { index, value, .. } => vec![index, value],
            Self::Atomic(atomic) => {
                let atomic = &mut **atomic;
                let mut list = vec![&mut atomic.index, &mut atomic.value];
                list.extend(&mut atomic.compare);
                list
            }
            Self::For { from, to, step, .. } => vec![from, to, step],
            Self::Barrier { .. } => Vec::new(),
            Self::LoadRange { from, .. } => vec![from],
        }
    }

    /// The variable that it assigns itself.
    pub(crate) fn target(&self) -> Option<VarId> {
        match self {
            Self::Assign { var, .. } | Self::Load { var, .. } | Self::For { var, .. } => Some(*var),
            Self::Atomic(atomic) => atomic.old,
            _ => None,
        }
    }
}
