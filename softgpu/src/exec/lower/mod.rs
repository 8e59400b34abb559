//! Lowering: the statements of one function to a flat list of instructions over virtual registers.
//!
//! Each opcode family has its file; a modifier that the family does not take is an error that names the
//! instruction and its line, so that nothing is executed by guesswork.

mod arithmetic;
mod asynchronous;
mod call;
mod compare;
mod control;
mod convert;
mod floating;
mod fragment;
mod logic;
pub(super) mod matrix;
mod memory;
mod modifiers;
mod operands;
pub(super) mod texture;
mod warp;

use std::collections::HashMap;

use super::aux::Data;
use super::link::Unit;
use super::op::OpFn;
use super::special::Value;
use crate::ptx::ast::{self, Instruction, Space, Statement, Variable};
use crate::ptx::{PtxError, Ty};
use modifiers::Modifiers;

pub(super) type Result<T, E = PtxError> = std::result::Result<T, E>;

/// The register file a virtual register belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    R32 = 0,
    R64 = 1,
    Pred = 2,
}

/// A virtual register, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct V(u32);

impl V {
    pub(super) const NONE: Self = Self(u32::MAX);

    fn new(class: Class, index: u32) -> Self {
        Self((class as u32) << 30 | index)
    }

    pub(super) fn class(self) -> Class {
        match self.0 >> 30 {
            0 => Class::R32,
            1 => Class::R64,
            _ => Class::Pred,
        }
    }

    pub(super) fn index(self) -> u32 {
        self.0 & 0x3fff_ffff
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Where an instruction may go besides the next one; labels are indices into `Function::labels`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Successors {
    Fall,
    Jump(u32),
    Many(Vec<u32>),
    End,
}

/// An instruction before register allocation.
#[derive(Debug, Clone)]
pub(super) struct Low {
    pub(super) run: OpFn,
    pub(super) d: V,
    pub(super) a: V,
    pub(super) b: V,
    pub(super) c: V,
    pub(super) imm: i64,
    pub(super) guard: Option<(V, bool)>,
    /// Index into `Function::aux`.
    pub(super) aux: Option<u32>,
    pub(super) next: Successors,
    /// Definitions may keep old lanes or are read as well.
    pub(super) keeps: bool,
    /// `imm` counts from the start of the parameter zone of the frame.
    pub(super) in_params: bool,
    pub(super) code: u32,
    pub(super) line: u32,
}

/// Operands beyond an instruction's own, before register allocation.
#[derive(Debug, Clone, Default)]
pub(super) struct AuxLow {
    pub(super) defs: Vec<V>,
    pub(super) uses: Vec<V>,
    pub(super) data: Data,
}

/// A lowered function.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) code: Vec<Low>,
    pub(super) aux: Vec<AuxLow>,
    /// Instruction index of each label.
    pub(super) labels: Vec<u32>,
    /// Virtual registers of each class.
    pub(super) registers: [u32; 3],
    /// Registers with a fixed value.
    pub(super) constants: Vec<(V, Value)>,
    /// Bytes of `.local` variables in the frame, before the parameter zone.
    pub(super) local_bytes: u32,
    /// Bytes of the whole frame.
    pub(super) frame_bytes: u32,
    /// Places of formal parameters in the frame (device functions only).
    pub(super) params: Vec<super::aux::Piece>,
    /// Places of return parameters.
    pub(super) returns: Vec<super::aux::Piece>,
    /// Shared variables and functions it names, for the kernels' shared memory layout.
    pub(super) shared: Vec<usize>,
    pub(super) functions: Vec<usize>,
    pub(super) indirect_calls: bool,
    pub(super) dynamic_shared: bool,
    pub(super) uses_envreg: bool,
    pub(super) uses_reserved_shared: bool,
}

/// What a name means inside a function.
#[derive(Debug, Clone)]
pub(super) enum Symbol<'a> {
    Register(V, Ty),
    /// `.b128`: low and high half.
    Wide(V, V),
    /// `.reg .v4 .f32 v`: elements.
    Elements(Vec<V>),
    /// Registers `prefix0` to `prefix<count-1>`; the first has this index in its class.
    Range {
        first: V,
        ty: Ty,
        count: u32,
    },
    Label(u32),
    Targets(Vec<&'a str>),
    Prototype,
    /// Offset in the frame's local variables.
    Local(u32),
    /// Offset in the frame's parameter zone, and size.
    FrameParam {
        offset: u32,
        bytes: u32,
    },
    /// Offset in the kernel's parameter buffer.
    KernelParam {
        offset: u32,
    },
    Shared(usize),
    DynamicShared,
    Global(usize),
    Function(usize),
}

/// Lowers one function.
pub(super) struct Lower<'u, 'a> {
    pub(super) unit: &'u mut Unit<'a>,
    module: usize,
    entry: bool,
    scopes: Vec<HashMap<&'a str, Symbol<'a>>>,
    out: Function<'a>,
    constants: HashMap<(Class, Value), V>,
    /// Free space in the frame: local variables and parameter zone.
    locals_end: u32,
    params_end: u32,
    params_most: u32,
    return_symbols: Vec<(Symbol<'a>, Ty, u32)>,
    line: u32,
    column: u32,
    guard: Option<(V, bool)>,
}

/// Bytes of local memory that a thread has (CUDA C++ programming guide, "Technical Specifications": 512 KB).
const MAX_LOCAL: u32 = 512 << 10;

fn round_up(value: u32, align: u32) -> u32 {
    value.next_multiple_of(align.max(1))
}

/// Lowers a function that has a body.
pub(super) fn function<'a>(
    unit: &mut Unit<'a>,
    module: usize,
    ast: &ast::Function<'a>,
) -> Result<Function<'a>> {
    let out = Function {
        name: ast.name,
        code: Vec::new(),
        aux: Vec::new(),
        labels: Vec::new(),
        registers: [0; 3],
        constants: Vec::new(),
        local_bytes: 0,
        frame_bytes: 0,
        params: Vec::new(),
        returns: Vec::new(),
        shared: Vec::new(),
        functions: Vec::new(),
        indirect_calls: false,
        dynamic_shared: false,
        uses_envreg: false,
        uses_reserved_shared: false,
    };
    let mut lower = Lower {
        unit,
        module,
        entry: ast.entry,
        scopes: vec![HashMap::new()],
        out,
        constants: HashMap::new(),
        locals_end: 0,
        params_end: 0,
        params_most: 0,
        return_symbols: Vec::new(),
        line: ast.line,
        column: ast.column,
        guard: None,
    };
    lower.parameters(ast)?;
    lower.block(ast.body.as_deref().unwrap_or(&[]))?;
    lower.finish()
}

impl<'a> Lower<'_, 'a> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(PtxError::new(self.line, self.column, message))
    }

    /// The layout of a kernel's parameters is the program's business; here they get names.
    fn parameters(&mut self, ast: &ast::Function<'a>) -> Result<()> {
        if ast.entry {
            let mut end = 0u32;
            for param in &ast.params {
                let (offset, bytes) = super::program::place_param(param, end)?;
                end = offset + bytes;
                self.declare(param.name, Symbol::KernelParam { offset });
            }
            return Ok(());
        }
        for (list, returns) in [(&ast.params, false), (&ast.returns, true)] {
            for param in list {
                let piece = self.frame_param(param)?;
                if returns {
                    self.out.returns.push(piece);
                } else {
                    self.out.params.push(piece);
                }
                if param.space == Space::Reg {
                    let symbol = self.new_register(param.ty, 1)?;
                    self.declare(param.name, symbol.clone());
                    if returns {
                        self.return_symbols.push((symbol, param.ty, piece.offset));
                    } else {
                        self.load_formal(&symbol, param.ty, piece.offset)?;
                    }
                } else {
                    self.declare(param.name, Symbol::FrameParam { offset: piece.offset, bytes: piece.bytes });
                }
            }
        }
        Ok(())
    }

    /// Gives a parameter a place in the parameter zone.
    fn frame_param(&mut self, param: &Variable<'a>) -> Result<super::aux::Piece> {
        let bytes =
            param.bytes().and_then(|bytes| u32::try_from(bytes).ok()).filter(|bytes| *bytes < 1 << 24);
        let Some(bytes) = bytes else {
            return self.error(format!("parameter {} has no usable size", param.name));
        };
        let offset = round_up(self.params_end, param.align);
        self.params_end = offset + bytes;
        if self.params_end > MAX_LOCAL {
            return self.error(format!("{}: more than {MAX_LOCAL} bytes of parameters", param.name));
        }
        self.params_most = self.params_most.max(self.params_end);
        Ok(super::aux::Piece { offset, bytes })
    }

    fn declare(&mut self, name: &'a str, symbol: Symbol<'a>) {
        self.scopes.last_mut().expect("there is always a scope").insert(name, symbol);
    }

    /// The symbol a name stands for, innermost scope first, then the module.
    fn lookup(&mut self, name: &str) -> Option<Symbol<'a>> {
        for scope in self.scopes.iter().rev() {
            if let Some(symbol) = scope.get(name)
                && !matches!(symbol, Symbol::Range { .. })
            {
                return Some(symbol.clone());
            }
            // A name of a range: some prefix, then the number.
            let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            for split in 1..=digits {
                let (prefix, number) = name.split_at(name.len() - split);
                if let Some(Symbol::Range { first, ty, count }) = scope.get(prefix)
                    && let Ok(number) = number.parse::<u32>()
                    && number < *count
                {
                    if *ty == Ty::B128 {
                        let low = V::new(first.class(), first.index() + 2 * number);
                        return Some(Symbol::Wide(
                            low,
                            V::new(first.class(), first.index() + 2 * number + 1),
                        ));
                    }
                    return Some(Symbol::Register(V::new(first.class(), first.index() + number), *ty));
                }
            }
        }
        self.unit.symbol(self.module, name)
    }

    fn class_of(ty: Ty) -> Class {
        match ty {
            Ty::Pred => Class::Pred,
            _ if ty.bytes() >= 8 => Class::R64,
            _ => Class::R32,
        }
    }

    fn fresh(&mut self, class: Class) -> V {
        let next = &mut self.out.registers[class as usize];
        *next += 1;
        V::new(class, *next - 1)
    }

    fn new_register(&mut self, ty: Ty, vector: u32) -> Result<Symbol<'a>> {
        if matches!(ty, Ty::Texref | Ty::Samplerref | Ty::Surfref) {
            return self.error("registers of texture, sampler or surface reference type are not supported");
        }
        if vector > 1 {
            let elements = (0..vector).map(|_| self.fresh(Self::class_of(ty))).collect();
            return Ok(Symbol::Elements(elements));
        }
        if ty == Ty::B128 {
            return Ok(Symbol::Wide(self.fresh(Class::R64), self.fresh(Class::R64)));
        }
        Ok(Symbol::Register(self.fresh(Self::class_of(ty)), ty))
    }

    /// A register that holds a fixed value.
    fn constant(&mut self, class: Class, value: Value) -> V {
        if let Some(v) = self.constants.get(&(class, value)) {
            return *v;
        }
        let v = self.fresh(class);
        self.constants.insert((class, value), v);
        self.out.constants.push((v, value));
        v
    }

    fn block(&mut self, statements: &[Statement<'a>]) -> Result<()> {
        // Labels are known in their whole scope, before and after their place.
        for statement in statements {
            match statement {
                Statement::Label { name, .. } => {
                    let label = u32::try_from(self.out.labels.len()).unwrap_or(u32::MAX);
                    self.out.labels.push(u32::MAX);
                    self.declare(name, Symbol::Label(label));
                }
                Statement::BranchTargets { name, targets, .. } => {
                    self.declare(name, Symbol::Targets(targets.clone()));
                }
                Statement::CallPrototype { name, .. } | Statement::CallTargets { name } => {
                    self.declare(name, Symbol::Prototype);
                }
                _ => {}
            }
        }
        for statement in statements {
            self.statement(statement)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement<'a>) -> Result<()> {
        match statement {
            Statement::Label { name, line, column } => {
                (self.line, self.column) = (*line, *column);
                let Some(Symbol::Label(label)) =
                    self.scopes.last().and_then(|scope| scope.get(name)).cloned()
                else {
                    return self.error(format!("label {name} clashes with another name"));
                };
                if self.out.labels[label as usize] != u32::MAX {
                    return self.error(format!("label {name} is defined twice"));
                }
                self.out.labels[label as usize] = u32::try_from(self.out.code.len()).unwrap_or(u32::MAX);
            }
            Statement::Registers { ty, vector, names } => {
                for (name, count) in names {
                    let symbol = match count {
                        None => self.new_register(*ty, *vector)?,
                        Some(count) => self.range(name, *ty, *vector, *count)?,
                    };
                    self.declare(name, symbol);
                }
            }
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Block(inner) => {
                self.scopes.push(HashMap::new());
                let params_end = self.params_end;
                self.block(inner)?;
                self.params_end = params_end;
                self.scopes.pop();
            }
            Statement::BranchTargets { .. }
            | Statement::CallTargets { .. }
            | Statement::CallPrototype { .. } => {}
            Statement::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn range(&mut self, name: &str, ty: Ty, vector: u32, count: u32) -> Result<Symbol<'a>> {
        if vector > 1 {
            return self.error(format!("range {name}<{count}> of vector registers is not supported"));
        }
        let class = Self::class_of(ty);
        let each = if ty == Ty::B128 { 2 } else { 1 };
        let next = &mut self.out.registers[class as usize];
        let first = V::new(class, *next);
        match count.checked_mul(each).and_then(|n| next.checked_add(n)).filter(|n| *n < 1 << 24) {
            Some(end) => *next = end,
            None => return self.error(format!("register range {name}<{count}> is too large")),
        }
        Ok(Symbol::Range { first, ty, count })
    }

    fn variable(&mut self, variable: &Variable<'a>) -> Result<()> {
        (self.line, self.column) = (variable.line, variable.column);
        let symbol = match variable.space {
            Space::Local => {
                let bytes = variable.bytes().and_then(|b| u32::try_from(b).ok()).filter(|b| *b < 1 << 28);
                let Some(bytes) = bytes else {
                    return self.error(format!("local variable {} has no usable size", variable.name));
                };
                let offset = round_up(self.locals_end, variable.align);
                self.locals_end = offset + bytes;
                if self.locals_end > MAX_LOCAL {
                    return self
                        .error(format!("{}: more than {MAX_LOCAL} bytes of local memory", variable.name));
                }
                Symbol::Local(offset)
            }
            Space::Param => {
                let piece = self.frame_param(variable)?;
                Symbol::FrameParam { offset: piece.offset, bytes: piece.bytes }
            }
            _ => self.unit.add_variable(self.module, variable, false)?,
        };
        self.declare(variable.name, symbol);
        Ok(())
    }

    fn instruction(&mut self, instruction: &Instruction<'a>) -> Result<()> {
        (self.line, self.column) = (instruction.line, instruction.column);
        self.guard = match instruction.guard {
            None => None,
            Some((name, negated)) => match self.lookup(name) {
                Some(Symbol::Register(v, Ty::Pred)) => Some((v, negated)),
                _ => return self.error(format!("guard {name} is not a predicate register")),
            },
        };
        let mut modifiers = Modifiers::new(instruction);
        let known = self.arithmetic(instruction, &mut modifiers)?
            || self.logic(instruction, &mut modifiers)?
            || self.floating(instruction, &mut modifiers)?
            || self.convert(instruction, &mut modifiers)?
            || self.memory(instruction, &mut modifiers)?
            || self.control(instruction, &mut modifiers)?
            || self.warp(instruction, &mut modifiers)?
            || self.matrix(instruction, &mut modifiers)?
            || self.texture(instruction, &mut modifiers)?;
        if !known {
            return self.unsupported(instruction);
        }
        modifiers.finish()
    }

    /// The error for an instruction the engine lacks.
    fn unsupported<T>(&self, instruction: &Instruction<'a>) -> Result<T> {
        self.error(format!("instruction {} is not supported (in {})", instruction.spelled(), self.out.name))
    }

    fn emit(&mut self, run: OpFn, d: V, operands: [V; 3], imm: i64) -> &mut Low {
        self.out.code.push(Low {
            run,
            d,
            a: operands[0],
            b: operands[1],
            c: operands[2],
            imm,
            guard: self.guard,
            aux: None,
            next: Successors::Fall,
            keeps: false,
            in_params: false,
            code: 0,
            line: self.line,
        });
        self.out.code.last_mut().expect("pushed above")
    }

    fn emit_aux(&mut self, run: OpFn, d: V, operands: [V; 3], imm: i64, aux: AuxLow) -> &mut Low {
        let index = u32::try_from(self.out.aux.len()).unwrap_or(u32::MAX);
        self.out.aux.push(aux);
        let low = self.emit(run, d, operands, imm);
        low.aux = Some(index);
        low
    }

    fn finish(mut self) -> Result<Function<'a>> {
        // Falling off the end of a function returns.
        self.guard = None;
        self.emit_return()?;
        if let Some(label) = self.out.labels.iter().position(|at| *at == u32::MAX) {
            return self.error(format!("label number {label} has no place"));
        }
        let local_bytes = round_up(self.locals_end, 16);
        for low in &mut self.out.code {
            if low.in_params {
                low.imm += i64::from(local_bytes);
            }
        }
        for aux in &mut self.out.aux {
            if let Data::Call(call) = &mut aux.data {
                for piece in call.args.iter_mut().chain(&mut call.returns) {
                    piece.offset += local_bytes;
                }
            }
        }
        for piece in self.out.params.iter_mut().chain(&mut self.out.returns) {
            piece.offset += local_bytes;
        }
        self.out.local_bytes = local_bytes;
        self.out.frame_bytes = round_up(local_bytes + self.params_most, 16);
        Ok(self.out)
    }
}
