//! Operands that do not fit into an instruction: vectors, calls, jump tables, matrix shapes.

use crate::isa::atomic::{AtomOp, AtomType};

/// More operands of an instruction, as slots after register allocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Aux {
    /// Slots written.
    pub(super) defs: Vec<u32>,
    /// Slots read.
    pub(super) uses: Vec<u32>,
    pub(super) data: Data,
}

/// What an instruction needs besides slots.
#[derive(Debug, Clone, Default)]
pub(super) enum Data {
    #[default]
    None,
    /// Jump targets, as instruction indices.
    Jumps(Vec<u32>),
    Call(Box<CallSite>),
    Atomic {
        op: Option<AtomOp>,
        ty: AtomType,
        /// Of the whole system, which includes the host ([`super::atomic_ops`]).
        system: bool,
    },
    Barrier(BarrierSite),
    Matrix(Box<super::lower::matrix::MatrixOp>),
    Texture(Box<super::lower::texture::TextureOp>),
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function of the program.
    Function(usize),
    /// The function whose address each lane holds in `uses[0]`.
    Pointer,
    Builtin(Builtin),
}

/// Functions of the device runtime that the engine provides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    Vprintf,
    AssertFail,
    Malloc,
    Free,
    /// Sets the value that a conditional node of a graph looks at.
    SetConditional,
    /// A function of the device runtime that launches kernels from kernels.
    Device(super::children::Function),
}

/// A piece of the caller's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// A call instruction.
#[derive(Debug, Clone)]
pub(super) struct CallSite {
    pub(super) callee: Callee,
    pub(super) args: Vec<Piece>,
    pub(super) returns: Vec<Piece>,
}

/// What a barrier instruction does besides waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reduce {
    None,
    Popc,
    And,
    Or,
}

/// A `bar`/`barrier` instruction: operands are slots in `Inst::a` (id) and `Inst::b` (threads).
#[derive(Debug, Clone, Copy)]
pub(super) struct BarrierSite {
    pub(super) counted: bool,
    pub(super) arrive: bool,
    pub(super) reduce: Reduce,
    /// Predicate slot in `uses[0]`; negated when set.
    pub(super) negated: bool,
}
