//! Syntax tree of a PTX module. Names and modifiers borrow from the text.

use super::Ty;

/// A whole `.ptx` text.
#[derive(Debug, Clone)]
pub struct Module<'a> {
    /// `.version major.minor`.
    pub version: (u32, u32),
    /// `.target` words, the first being `sm_NN`.
    pub target: Vec<&'a str>,
    /// `.address_size`, 64 for everything the engine takes.
    pub address_size: u32,
    /// Module-scope variables.
    pub variables: Vec<Variable<'a>>,
    /// Kernels and device functions, definitions and prototypes alike, in text order.
    pub functions: Vec<Function<'a>>,
    /// `.alias new, old;`
    pub aliases: Vec<(&'a str, &'a str)>,
}

/// Visibility of a symbol (ISA section 11.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Linkage {
    /// Known in its own module only.
    #[default]
    Internal,
    /// `.visible`.
    Visible,
    /// `.extern`: defined elsewhere.
    Extern,
    /// `.weak`.
    Weak,
    /// `.common`.
    Common,
}

/// A state space in which a variable may be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are PTX's own names")]
pub enum Space {
    Reg,
    Global,
    Const,
    Shared,
    Local,
    Param,
    /// `.tex`, an old spelling of `.global .texref`.
    Tex,
}

/// A declared variable (not a register).
#[derive(Debug, Clone)]
pub struct Variable<'a> {
    /// Visibility.
    pub linkage: Linkage,
    /// State space.
    pub space: Space,
    /// Element type.
    pub ty: Ty,
    /// `.v2`/`.v4`: elements in a vector, else 1.
    pub vector: u32,
    /// `.align`, or the natural alignment.
    pub align: u32,
    /// Name.
    pub name: &'a str,
    /// Array dimensions; `None` for `[]`. Empty for a scalar.
    pub dims: Vec<Option<u64>>,
    /// Initial value.
    pub init: Option<Init<'a>>,
    /// `.attribute(.managed)`.
    pub managed: bool,
    /// Line of the name.
    pub line: u32,
    /// Column of the name.
    pub column: u32,
}

impl Variable<'_> {
    /// Size in bytes; `None` when an array has no length (`extern .shared x[]`).
    pub fn bytes(&self) -> Option<u64> {
        let element = u64::from(self.ty.bytes()) * u64::from(self.vector);
        self.dims.iter().try_fold(element, |size, dim| size.checked_mul((*dim)?))
    }
}

/// Initialiser of a variable (ISA section 5.4.4).
#[derive(Debug, Clone)]
pub enum Init<'a> {
    /// A number.
    Number(Number),
    /// The address of a symbol; `generic` when written `generic(x)`; `mask` when written `0xFF00(x)`.
    Address {
        /// Symbol.
        name: &'a str,
        /// Bytes added.
        offset: i64,
        /// Whether the generic address is meant.
        generic: bool,
        /// The byte of the address that is meant, as a mask.
        mask: Option<u64>,
        /// Line, for messages.
        line: u32,
        /// Column, for messages.
        column: u32,
    },
    /// `{ a, b, … }`
    List(Vec<Self>),
}

/// A numeric literal or constant expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// An integer, two's complement in 64 bits.
    Int(u64),
    /// `0f` and eight hexadecimal digits.
    F32(u32),
    /// `0d` and sixteen, or a decimal fraction.
    F64(u64),
}

/// A kernel or a device function.
#[derive(Debug, Clone)]
pub struct Function<'a> {
    /// `.entry` rather than `.func`.
    pub entry: bool,
    /// Visibility.
    pub linkage: Linkage,
    /// Name.
    pub name: &'a str,
    /// Return parameters.
    pub returns: Vec<Variable<'a>>,
    /// Parameters.
    pub params: Vec<Variable<'a>>,
    /// `.maxntid`.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_ctas_per_sm: Option<u32>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// `.reqnctapercluster`.
    pub required_cluster: Option<[u32; 3]>,
    /// `.maxclusterrank`.
    pub max_cluster_rank: Option<u32>,
    /// `.explicitcluster`.
    pub explicit_cluster: bool,
    /// Statements; `None` for a prototype.
    pub body: Option<Vec<Statement<'a>>>,
    /// Line of the name.
    pub line: u32,
    /// Column of the name.
    pub column: u32,
}

/// One statement of a function body.
#[derive(Debug, Clone)]
pub enum Statement<'a> {
    /// `name:`
    Label {
        /// Name.
        name: &'a str,
        /// Line.
        line: u32,
        /// Column.
        column: u32,
    },
    /// `.reg .ty a, b<10>;`
    Registers {
        /// Type.
        ty: Ty,
        /// Vector width, 1 for a scalar.
        vector: u32,
        /// Names, with the count of a range `name<count>`.
        names: Vec<(&'a str, Option<u32>)>,
    },
    /// A variable in `.local`, `.shared`, `.param`, or a static in `.global`/`.const`.
    Variable(Variable<'a>),
    /// `{ … }`: a scope of names.
    Block(Vec<Self>),
    /// `label: .branchtargets a, b;`
    BranchTargets {
        /// The label before it.
        name: &'a str,
        /// Target labels in index order.
        targets: Vec<&'a str>,
        /// Line.
        line: u32,
    },
    /// `label: .calltargets f, g;`
    CallTargets {
        /// The label before it.
        name: &'a str,
    },
    /// `label: .callprototype (…) _ (…);`
    CallPrototype {
        /// The label before it.
        name: &'a str,
        /// Return parameters.
        returns: Vec<Variable<'a>>,
        /// Parameters.
        params: Vec<Variable<'a>>,
    },
    /// An instruction.
    Instruction(Instruction<'a>),
}

/// An instruction: `@guard opcode.modifier… operands;`
#[derive(Debug, Clone)]
pub struct Instruction<'a> {
    /// Guard predicate and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// First word.
    pub opcode: &'a str,
    /// Words after dots, in order.
    pub modifiers: Vec<&'a str>,
    /// Operands, in order.
    pub operands: Vec<Operand<'a>>,
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl Instruction<'_> {
    /// The opcode with its modifiers, as written.
    pub fn spelled(&self) -> String {
        let mut text = self.opcode.to_owned();
        for modifier in &self.modifiers {
            text.push('.');
            text.push_str(modifier);
        }
        text
    }
}

/// What an address in brackets starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Base<'a> {
    /// A register or a symbol.
    Name(&'a str),
    /// An absolute number.
    Number(u64),
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand<'a> {
    /// A register, symbol, label or function.
    Name(&'a str),
    /// `%tid.x`, `%v.y`.
    Member(&'a str, &'a str),
    /// A number.
    Number(Number),
    /// `!p`.
    Not(&'a str),
    /// `symbol+offset` outside brackets.
    Offset(&'a str, i64),
    /// `[base+offset]`.
    Address {
        /// Register, symbol or number.
        base: Base<'a>,
        /// Bytes added.
        offset: i64,
    },
    /// `[name, a, {b, c}]`: texture, surface and tensor operands.
    Handle(Vec<Self>),
    /// `{a, b}`.
    Vector(Vec<Self>),
    /// `p|q`.
    Pair(Box<Self>, Box<Self>),
    /// `_`.
    Sink,
    /// `(a, b)`: argument lists of a call.
    Group(Vec<Self>),
}
