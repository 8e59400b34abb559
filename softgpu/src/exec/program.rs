//! A loaded module: kernels, variables and executable code. Immutable, shared among threads.

use std::collections::HashMap;

use super::CODE_WINDOW;
use super::aux::{Aux, Data, Piece};
use super::link::{GlobalDef, Unit};
use super::lower::{self, Class, Successors, Symbol};
use super::op::Inst;
use super::registers::{self, Sizes};
use super::special::{RESERVED_SHARED, Value};
use crate::ptx::ast::{self, Init, Linkage, Number, Space, Variable};
use crate::ptx::{self, PtxError, Ty};

/// Why a module could not be loaded: line, column and message.
pub type LoadError = PtxError;

/// One or more PTX texts, ready to run.
#[derive(Debug)]
pub struct Program {
    /// Kernels in text order.
    pub kernels: Vec<Kernel>,
    /// Module variables that need device memory, in text order.
    pub globals: Vec<Global>,
    /// `.version` of the first text.
    pub version: (u32, u32),
    /// `.target` of the first text, such as `sm_90`.
    pub target: String,
    pub(super) code: Vec<Inst>,
    pub(super) aux: Vec<Aux>,
    pub(super) functions: Vec<Code>,
}

/// A `.entry`.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Name as written, hence mangled.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<KernelParam>,
    /// Bytes of the parameter buffer.
    pub param_bytes: u32,
    /// Bytes of statically declared shared memory.
    pub static_shared: u32,
    /// Bytes of local memory per thread, calls included as far as they are known.
    pub local_bytes: u32,
    /// Registers per thread: an estimate from the most registers live at once, at most 255.
    pub registers: u32,
    /// `.maxntid`.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_blocks_per_multiprocessor: Option<u32>,
    /// `.reqnctapercluster`.
    pub required_cluster: Option<[u32; 3]>,
    /// Whether it reads `%envreg`, as cooperative groups' grid barrier does.
    pub uses_envreg: bool,
    pub(super) function: usize,
    /// Offset of each shared variable, `u32::MAX` for those it cannot reach.
    pub(super) shared_offsets: Vec<u32>,
    /// Offset of dynamic shared memory.
    pub(super) dynamic_offset: u32,
}

/// A kernel parameter's place in the parameter buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelParam {
    /// Bytes from the start.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// Where a variable is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalSpace {
    /// `.global`.
    Global,
    /// `.const`: device memory as well, read only by convention.
    Const,
}

/// A module variable.
#[derive(Debug, Clone)]
pub struct Global {
    /// Name as written.
    pub name: String,
    /// State space.
    pub space: GlobalSpace,
    /// Bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// Initial contents; shorter than `size` when the rest is zero, empty when all is.
    pub init: Vec<u8>,
    /// Addresses to be put into the initial contents.
    pub relocations: Vec<Relocation>,
    /// `.attribute(.managed)`.
    pub managed: bool,
    /// Whether the host can look it up by name (`.visible`, `.weak`, `.common`).
    pub visible: bool,
}

/// A place in a variable that holds (a part of) a variable's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Bytes from the start of the variable.
    pub offset: u64,
    /// Bytes written: 8, 4, 2 or 1.
    pub bytes: u32,
    /// Bits the address is shifted right by first (`0xFF00(x)` takes the second byte).
    pub shift: u32,
    /// Index of the variable whose address is meant.
    pub target: usize,
    /// Added to the address.
    pub addend: i64,
}

impl Relocation {
    /// Writes the relocated bytes into `data`, the variable's contents, given the address of every variable.
    pub fn apply(&self, data: &mut [u8], symbols: &[u64]) {
        let address = symbols[self.target].wrapping_add_signed(self.addend) >> self.shift;
        let at = usize::try_from(self.offset).expect("initialised variables fit into memory");
        let bytes = self.bytes as usize;
        data[at..at + bytes].copy_from_slice(&address.to_le_bytes()[..bytes]);
    }
}

/// A constant slot of a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constant {
    pub(super) class: Class,
    /// First element of the slot.
    pub(super) element: u32,
    pub(super) value: Value,
}

/// A function's code.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) name: String,
    pub(super) entry: u32,
    pub(super) sizes: Sizes,
    pub(super) constants: Vec<Constant>,
    pub(super) frame_bytes: u32,
    pub(super) params: Vec<Piece>,
    pub(super) returns: Vec<Piece>,
}

/// Offset and size of a kernel parameter that follows `end` bytes.
pub(super) fn place_param(param: &Variable<'_>, end: u32) -> Result<(u32, u32), PtxError> {
    let fail =
        || PtxError::new(param.line, param.column, format!("parameter {} has no usable size", param.name));
    let bytes = param.bytes().and_then(|bytes| u32::try_from(bytes).ok()).ok_or_else(fail)?;
    let offset = end.checked_next_multiple_of(param.align.max(1)).ok_or_else(fail)?;
    if offset.checked_add(bytes).is_none_or(|end| end > 32764) {
        return Err(fail());
    }
    Ok((offset, bytes))
}

impl Program {
    /// Loads one PTX text.
    ///
    /// # Errors
    /// The first thing that is not PTX, or that the engine does not support, with its place.
    pub fn compile(ptx: &str) -> Result<Self, LoadError> {
        Self::compile_all(&[ptx])
    }

    /// Loads several PTX texts that refer to each other.
    ///
    /// # Errors
    /// As [`Program::compile`], with the place within the text at fault; also names that are defined twice or not at all.
    pub fn compile_all(texts: &[&str]) -> Result<Self, LoadError> {
        let modules = texts.iter().map(|text| ptx::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut unit = Unit::new(&modules)?;
        let mut lowered = Vec::new();
        for index in 0..unit.functions.len() {
            let (module, at) = (unit.functions[index].module, unit.functions[index].index);
            lowered.push(lower::function(&mut unit, module, &modules[module].functions[at])?);
        }
        let mut program = Self {
            kernels: Vec::new(),
            globals: Vec::new(),
            version: modules.first().map_or((0, 0), |module| module.version),
            target: modules
                .first()
                .and_then(|module| module.target.first())
                .copied()
                .unwrap_or("")
                .to_owned(),
            code: Vec::new(),
            aux: Vec::new(),
            functions: Vec::new(),
        };
        for function in &lowered {
            program.place(function);
        }
        for index in 0..unit.functions.len() {
            if unit.functions[index].entry && unit.chosen(index) {
                let definition = &unit.functions[index];
                let ast = &modules[definition.module].functions[definition.index];
                let kernel = program.kernel(&unit, &lowered, index, ast)?;
                program.kernels.push(kernel);
            }
        }
        for definition in &unit.globals {
            program.globals.push(global(&unit, definition)?);
        }
        Ok(program)
    }

    /// Kernels in text order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Module variables that need device memory, in text order.
    pub fn globals(&self) -> &[Global] {
        &self.globals
    }

    /// The whole initial contents of a variable, given the address of every variable.
    pub fn initial(&self, global: &Global, symbols: &[u64]) -> Vec<u8> {
        let mut bytes = global.init.clone();
        bytes.resize(usize::try_from(global.size).expect("variables fit into memory"), 0);
        for relocation in &global.relocations {
            relocation.apply(&mut bytes, symbols);
        }
        bytes
    }

    /// The index of a kernel.
    pub fn kernel_index(&self, name: &str) -> Option<usize> {
        self.kernels.iter().position(|kernel| kernel.name == name)
    }

    /// Gives a lowered function registers and a place in the code.
    fn place(&mut self, function: &lower::Function<'_>) {
        let allocation = registers::allocate(function);
        let base = u32::try_from(self.code.len()).expect("programs have fewer than 2^32 instructions");
        let aux_base = u32::try_from(self.aux.len()).expect("programs have fewer than 2^32 instructions");
        let element = |v| allocation.element(v);
        let target = |label: u32| base + function.labels[label as usize];
        let mut jumps = HashMap::new();
        for low in &function.code {
            let mut imm = low.imm;
            match &low.next {
                Successors::Jump(label) => imm = i64::from(target(*label)),
                Successors::Many(labels) => {
                    if let Some(aux) = low.aux {
                        jumps.insert(aux, labels.iter().map(|label| target(*label)).collect::<Vec<_>>());
                    }
                }
                Successors::Fall | Successors::End => {}
            }
            self.code.push(Inst {
                run: low.run,
                d: element(low.d),
                a: element(low.a),
                b: element(low.b),
                c: element(low.c),
                imm,
                guard: low.guard.map_or(0, |(v, negated)| 1 + 2 * element(v) + u32::from(negated)),
                aux: aux_base + low.aux.unwrap_or(0),
                code: low.code,
                line: low.line,
            });
        }
        for (index, aux) in (0u32..).zip(&function.aux) {
            let data = match jumps.remove(&index) {
                Some(targets) => Data::Jumps(targets),
                None => aux.data.clone(),
            };
            self.aux.push(Aux {
                defs: aux.defs.iter().map(|v| element(*v)).collect(),
                uses: aux.uses.iter().map(|v| element(*v)).collect(),
                data,
            });
        }
        let constants = function.constants.iter();
        self.functions.push(Code {
            name: function.name.to_owned(),
            entry: base,
            sizes: allocation.sizes,
            constants: constants
                .map(|(v, value)| Constant { class: v.class(), element: element(*v), value: *value })
                .collect(),
            frame_bytes: function.frame_bytes,
            params: function.params.clone(),
            returns: function.returns.clone(),
        });
    }

    fn kernel(
        &self,
        unit: &Unit<'_>,
        lowered: &[lower::Function<'_>],
        index: usize,
        ast: &ast::Function<'_>,
    ) -> Result<Kernel, LoadError> {
        let mut params = Vec::new();
        let mut end = 0;
        for param in &ast.params {
            let (offset, size) = place_param(param, end)?;
            end = offset + size;
            params.push(KernelParam { offset, size, align: param.align });
        }
        // Everything the kernel may call.
        let mut reached = vec![false; lowered.len()];
        let mut work = vec![index];
        while let Some(at) = work.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            // A kernel that is named is launched, not called.
            let called = lowered[at].functions.iter().filter(|function| !unit.functions[**function].entry);
            work.extend(called);
            if lowered[at].indirect_calls {
                work.extend((0..lowered.len()).filter(|other| !unit.functions[*other].entry));
            }
        }
        let reached: Vec<&lower::Function<'_>> =
            lowered.iter().zip(reached).filter_map(|(function, yes)| yes.then_some(function)).collect();
        let mut offsets = vec![u32::MAX; unit.shared.len()];
        let mut shared: Vec<usize> =
            reached.iter().flat_map(|function| function.shared.iter().copied()).collect();
        shared.sort_unstable();
        shared.dedup();
        let reserved =
            if reached.iter().any(|function| function.uses_reserved_shared) { RESERVED_SHARED } else { 0 };
        let mut bytes = reserved;
        for variable in shared {
            let definition = unit.shared[variable];
            let offset = bytes.checked_next_multiple_of(definition.align.max(1));
            let end =
                offset.and_then(|offset| offset.checked_add(definition.bytes)).filter(|end| *end < 1 << 30);
            let (Some(offset), Some(end)) = (offset, end) else {
                return Err(PtxError::new(
                    ast.line,
                    ast.column,
                    format!("{}: too much shared memory", ast.name),
                ));
            };
            offsets[variable] = offset;
            bytes = end;
        }
        let sizes = |function: &lower::Function<'_>| {
            let code = self.functions.iter().find(|code| code.name == function.name);
            code.map_or(0, |code| code.sizes.r32 + 2 * code.sizes.r64 - constant_registers(code))
        };
        let registers = reached.iter().map(|function| sizes(function)).max().unwrap_or(0) + 8;
        let local_bytes = reached.iter().map(|function| function.frame_bytes).sum();
        Ok(Kernel {
            name: ast.name.to_owned(),
            params,
            param_bytes: end,
            static_shared: bytes - reserved,
            local_bytes,
            registers: registers.next_multiple_of(2).min(ast.max_registers.unwrap_or(255).clamp(16, 255)),
            max_threads: ast.max_threads,
            required_threads: ast.required_threads,
            min_blocks_per_multiprocessor: ast.min_ctas_per_sm,
            required_cluster: ast.required_cluster,
            uses_envreg: reached.iter().any(|function| function.uses_envreg),
            function: index,
            shared_offsets: offsets,
            dynamic_offset: bytes.next_multiple_of(unit.dynamic_align),
        })
    }
}

fn constant_registers(code: &Code) -> u32 {
    let words = |constant: &Constant| match constant.class {
        Class::R32 => 1,
        Class::R64 => 2,
        Class::Pred => 0,
    };
    code.constants.iter().map(words).sum()
}

/// Turns a variable's initialiser into bytes and relocations.
fn global(unit: &Unit<'_>, definition: &GlobalDef<'_>) -> Result<Global, LoadError> {
    let variable = &definition.variable;
    let mut global = Global {
        name: variable.name.to_owned(),
        space: if variable.space == Space::Const { GlobalSpace::Const } else { GlobalSpace::Global },
        size: definition.bytes,
        align: u64::from(variable.align.max(1)),
        init: Vec::new(),
        relocations: Vec::new(),
        managed: variable.managed,
        visible: variable.linkage != Linkage::Internal,
    };
    if let Some(init) = &variable.init {
        let mut dims: Vec<u64> = variable.dims.iter().map(|dim| dim.unwrap_or(1)).collect();
        if variable.vector > 1 {
            dims.push(u64::from(variable.vector));
        }
        let mut at = 0;
        initialise(unit, definition, init, &dims, &mut at, &mut global)?;
    }
    Ok(global)
}

/// Writes one initialiser at `*at` and advances it past the space of its dimensions.
fn initialise(
    unit: &Unit<'_>,
    definition: &GlobalDef<'_>,
    init: &Init<'_>,
    dims: &[u64],
    at: &mut u64,
    global: &mut Global,
) -> Result<(), LoadError> {
    let variable = &definition.variable;
    let fail = |line: u32, column: u32, text: String| PtxError::new(line, column, text);
    let ty = variable.ty;
    let each = u64::from(ty.bytes());
    let room = |at: u64, global: &mut Global| {
        if at + each > definition.bytes {
            return Err(fail(
                variable.line,
                variable.column,
                format!("{} has too many initial values", variable.name),
            ));
        }
        let end = usize::try_from(at + each).unwrap_or(usize::MAX);
        if global.init.len() < end {
            global.init.resize(end, 0);
        }
        Ok(end)
    };
    match init {
        Init::List(list) => {
            let inner = dims.get(1..).unwrap_or(&[]);
            let start = *at;
            let size = dims.iter().product::<u64>() * each;
            for item in list {
                // Inner braces may be left out, as in C.
                let below = if matches!(item, Init::List(_)) { inner } else { &[] };
                initialise(unit, definition, item, below, at, global)?;
            }
            if !dims.is_empty() {
                *at = (start + size).max(*at);
            }
        }
        Init::Number(number) => {
            let bits = match (*number, ty) {
                (Number::Int(value), _) => value,
                (Number::F32(bits), Ty::F64) => f64::from(f32::from_bits(bits)).to_bits(),
                (Number::F32(bits), _) => u64::from(bits),
                #[expect(clippy::cast_possible_truncation, reason = "a literal of a narrower type rounds")]
                (Number::F64(bits), Ty::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
                (Number::F64(bits), _) => bits,
            };
            let end = room(*at, global)?;
            let bytes = usize::try_from(each).unwrap_or(8).min(8);
            let start = end - usize::try_from(each).unwrap_or(8);
            global.init[start..start + bytes].copy_from_slice(&bits.to_le_bytes()[..bytes]);
            *at += each;
        }
        Init::Address { name, offset, mask, line, column, .. } => {
            let shift = mask.map_or(0, u64::trailing_zeros);
            let bytes = if mask.is_some() { 1 } else { ty.bytes() };
            let end = room(*at, global)?;
            match unit.symbol(definition.module, name) {
                Some(Symbol::Global(target)) => {
                    global.relocations.push(Relocation {
                        offset: *at,
                        bytes,
                        shift,
                        target,
                        addend: *offset,
                    });
                }
                Some(Symbol::Function(index)) => {
                    let address = (CODE_WINDOW + 16 * index as u64) >> shift;
                    let start = end - usize::try_from(each).unwrap_or(8);
                    let bytes = bytes as usize;
                    global.init[start..start + bytes].copy_from_slice(&address.to_le_bytes()[..bytes]);
                }
                Some(_) => {
                    return Err(fail(
                        *line,
                        *column,
                        format!("{name} has no address that is fixed when loading"),
                    ));
                }
                None => return Err(fail(*line, *column, format!("{name} is not defined"))),
            }
            *at += each;
        }
    }
    Ok(())
}
