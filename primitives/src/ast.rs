//! What [`crate::parse`] makes of a text: the program as it was written, with places.

use crate::diagnostic::Span;
use crate::types::{Element, ParamType};

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A whole text.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) functions: Vec<Function>,
    pub(crate) constants: Vec<ConstantTable>,
    pub(crate) host: Vec<Host>,
}

/// `GPU_KERNEL … GPU_END`.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: Name,
    pub(crate) attributes: Vec<Name>,
    pub(crate) params: Vec<Param>,
    pub(crate) shared: Vec<Shared>,
    pub(crate) block: Option<(u64, Span)>,
    pub(crate) body: Vec<Statement>,
}

/// `GPU_PARAM name type`, or a function's parameter.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: Name,
    pub(crate) ty: ParamType,
}

/// `GPU_SHARED_MEM name [type] size`.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Name,
    pub(crate) element: Element,
    pub(crate) length: u64,
}

/// `GPU_CONST name type value value …`.
#[derive(Debug)]
pub(crate) struct ConstantTable {
    pub(crate) name: Name,
    pub(crate) element: Element,
    pub(crate) values: Vec<Expr>,
}

/// `GPU_FUNCTION name(…) → type: … GPU_END`.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Name,
    pub(crate) params: Vec<Param>,
    pub(crate) result: Element,
    pub(crate) body: Vec<Statement>,
    /// Part of the compiler's own library: its accesses are guarded by `REQUIRE` instead of one check each.
    pub(crate) trusted: bool,
}

/// A statement that runs on the CPU, between kernels.
#[derive(Debug)]
pub(crate) enum Host {
    /// `READ_FILE path INTO name [AS type]`.
    Read { path: String, into: Name, element: Element },
    /// `WRITE_FILE name TO path`.
    Write { from: Name, path: String },
    /// `VALIDATE name [→ status]`.
    Validate { name: Name, status: Option<Name> },
    /// `GPU_LAUNCH kernel [BLOCKS n] [THREADS n]`.
    Launch { kernel: Name, blocks: Option<u64>, threads: Option<(u64, Span)> },
    /// `GPU_SYNC`.
    Sync,
    /// `GPU_TARGET auto|cpu|gpu`.
    Target(Name),
    /// `GPU_DISTRIBUTE strategy=auto|range|none`.
    Distribute(Name),
}

/// A statement of a thread.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) span: Span,
    pub(crate) kind: StatementKind,
}

#[derive(Debug)]
pub(crate) enum StatementKind {
    /// `THREAD_ID → v` and its like.
    Identity(Identity, Name),
    /// `CALCULATE v = e`, `LOAD e → v`.
    Assign(Name, Expr),
    /// `WORD a b → v`; the word decides what it means.
    Word {
        word: Name,
        operands: Vec<Expr>,
        target: Option<Target>,
        extra: Vec<Expr>,
    },
    /// `COMPARE a < b → v` is an assignment; `STORE e → place`.
    Store {
        value: Expr,
        place: Place,
    },
    /// `LOAD_COALESCED a[from:to] → buffer`.
    LoadRange {
        array: Name,
        from: Expr,
        to: Expr,
        into: Name,
    },
    /// `ATOMIC_x place value [value] [→ v]`.
    Atomic {
        op: Name,
        place: Place,
        values: Vec<Expr>,
        target: Option<Name>,
    },
    If {
        arms: Vec<(Expr, Vec<Statement>)>,
        otherwise: Option<Vec<Statement>>,
    },
    For {
        var: Name,
        from: Expr,
        to: Expr,
        step: Option<Expr>,
        body: Vec<Statement>,
    },
    /// `PARALLEL FOR [x IN] array:` or `PARALLEL FOR i IN a..b:`.
    ParallelFor {
        var: Option<Name>,
        over: Over,
        body: Vec<Statement>,
    },
    Sync,
    Require(Expr),
    Return(Expr),
}

/// What PARALLEL FOR goes over.
#[derive(Debug)]
pub(crate) enum Over {
    Array(Name),
    Range(Expr, Expr),
}

/// What a result goes to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Name(Name),
    Place(Place),
}

/// `array[index]`, or `array` alone where a loop supplies the index.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) array: Name,
    pub(crate) index: Option<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Thread,
    Local,
    Block,
    BlockSize,
    BlockCount,
}

/// An expression.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) kind: ExprKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Int(u64, bool),
    Float(f64, bool),
    Bool(bool),
    Name(String),
    Index(Name, Box<Expr>),
    Field(Box<Expr>, Name),
    Call(Name, Vec<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unary {
    Negative,
    Not,
    Invert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    And,
    Or,
}
