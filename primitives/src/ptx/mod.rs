//! PTX out: a kernel's units to one module text, without any compiler.
//!
//! Shape of an entry: parameters and thread numbers that are needed are read once, the guard lets the exact number of
//! threads run, then comes the body; code that reports a fault stands at the end, out of the way. Values are numbered
//! as they are made, so that nothing is computed twice where one computation dominates the other.
//!
//! Names: entries are `px_` plus the kernel's name, so that no name of a program is a word of PTX.
//! Source: PTX ISA 7.0; `.target sm_75`, the oldest that CUDA 13 still compiles for.

mod check;
mod statement;
mod value;

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::ir::{ArrayRef, SiteId, Special, Unit, VarId};
use crate::layout::{Hidden, Layout};
use crate::types::{Element, ParamType, Scalar};

/// What of a unit's checks is left out, and which divisors come with precomputed reciprocals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    /// By site number: no check is needed.
    pub(crate) proven: Vec<bool>,
    /// Divisions by positive parameters are multiplications.
    pub(crate) reciprocal: bool,
    /// The threads fill their blocks, so that none has to be kept out.
    pub(crate) full: bool,
}

/// The symbol of a unit's entry.
pub(crate) fn entry_name(unit: &Unit) -> String {
    format!("px_{}", unit.name)
}

/// One module with an entry per unit.
pub(crate) fn module(units: &[(&Unit, &Variant)]) -> String {
    let mut out = String::from(".version 7.0\n.target sm_75\n.address_size 64\n");
    for (number, (unit, _)) in units.iter().enumerate() {
        for table in &unit.tables {
            let _ = write!(
                out,
                "\n.const .align 16 {} {}[{}] = {{",
                storage(table.element),
                table_name(number, &table.name),
                table.bits.len()
            );
            for (index, bits) in table.bits.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                let _ = write!(out, "{separator}{bits}");
            }
            out.push_str("};\n");
        }
    }
    for (number, (unit, variant)) in units.iter().enumerate() {
        out.push('\n');
        out.push_str(&Emitter::new(unit, variant, number).entry());
    }
    out
}

fn table_name(unit: usize, name: &str) -> String {
    format!("px_table{unit}_{name}")
}

/// The untyped storage type of an element.
fn storage(element: Element) -> &'static str {
    match element {
        Element::Byte => ".b8",
        Element::Half => ".b16",
        Element::Int | Element::Uint | Element::Float | Element::Pixel => ".b32",
        Element::Double => ".b64",
    }
}

/// Register classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Pred,
    Half,
    Word,
    Float,
    Long,
    Double,
}

impl Class {
    const ALL: [Self; 6] = [Self::Pred, Self::Half, Self::Word, Self::Float, Self::Long, Self::Double];

    fn of(ty: Scalar) -> Self {
        match ty {
            Scalar::Bool => Self::Pred,
            Scalar::Int | Scalar::Uint | Scalar::Pixel => Self::Word,
            Scalar::Float => Self::Float,
            Scalar::Double => Self::Double,
        }
    }

    /// Prefix of its registers, and the type they are declared with.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pred => ("%p", ".pred"),
            Self::Half => ("%h", ".b16"),
            Self::Word => ("%r", ".b32"),
            Self::Float => ("%f", ".f32"),
            Self::Long => ("%rd", ".b64"),
            Self::Double => ("%fd", ".f64"),
        }
    }
}

/// An operand: how it is written, and what identifies its value.
#[derive(Debug, Clone)]
struct Operand {
    text: String,
    key: String,
}

impl Operand {
    fn fixed(text: String) -> Self {
        Self { key: text.clone(), text }
    }
}

/// Where a fault is reported.
struct FaultBlock {
    label: String,
    line: u32,
    /// Kind in the low byte, array above it; see [`crate::fault`].
    code: u32,
    index: String,
    length: String,
}

/// Checks made one after another, where one of them is known to fail.
struct SlowChecks {
    label: String,
    places: Vec<(SiteId, check::Place)>,
}

struct Emitter<'a> {
    unit: &'a Unit,
    variant: &'a Variant,
    number: usize,
    layout: Layout,
    /// Reads of parameters and special registers, made on demand, before everything else.
    prologue: String,
    /// Values made in the prologue.
    global: HashMap<String, Operand>,
    body: String,
    counts: [u32; 6],
    labels: u32,
    /// Values at hand, by the instruction that made them; one table per nested block.
    values: Vec<HashMap<String, Operand>>,
    /// Register of each variable.
    vars: Vec<Option<Operand>>,
    /// How often a variable of several definitions has changed.
    versions: Vec<u32>,
    faults: Vec<FaultBlock>,
    slow: Vec<SlowChecks>,
}

impl<'a> Emitter<'a> {
    fn new(unit: &'a Unit, variant: &'a Variant, number: usize) -> Self {
        Self {
            unit,
            variant,
            number,
            layout: Layout::of(unit),
            prologue: String::new(),
            global: HashMap::new(),
            body: String::new(),
            counts: [0; 6],
            labels: 0,
            values: vec![HashMap::new()],
            vars: vec![None; unit.vars.len()],
            versions: vec![0; unit.vars.len()],
            faults: Vec::new(),
            slow: Vec::new(),
        }
    }

    fn entry(mut self) -> String {
        let name = entry_name(self.unit);
        if !self.unit.whole_blocks && !self.variant.full {
            // Exactly as many threads as elements run; blocks are full otherwise.
            let thread = self.number_in_grid();
            let threads = self.hidden(Hidden::Threads);
            let outside = self.fresh(Class::Pred);
            self.line(&format!("setp.ge.u32 {outside}, {}, {};", thread.text, threads.text));
            self.line(&format!("@{outside} bra $done;"));
        }
        let unit = self.unit;
        self.block(&unit.body);
        self.body.push_str("$done:\n\tret;\n");
        self.slow_blocks();
        self.fault_blocks();

        let mut out = format!(".visible .entry {name}(\n");
        let slots = self.layout.slots.clone();
        for (index, slot) in slots.iter().enumerate() {
            let ty = match slot.bytes {
                1 => ".u8",
                2 => ".b16",
                4 => ".b32",
                _ => ".b64",
            };
            let comma = if index + 1 == slots.len() { "" } else { "," };
            let _ = writeln!(out, "\t.param {ty} {name}_{index}{comma}");
        }
        let _ = writeln!(out, ")\n.maxntid {}, 1, 1\n{{", self.unit.block);
        for class in Class::ALL {
            let count = self.counts[class as usize];
            if count > 0 {
                let (prefix, ty) = class.names();
                let _ = writeln!(out, "\t.reg {ty} \t{prefix}<{}>;", count + 1);
            }
        }
        for (index, shared) in self.unit.shared.iter().enumerate() {
            let bytes = shared.length as usize * shared.element.bytes();
            let _ = writeln!(out, "\t.shared .align 16 .b8 px_shared{}_{index}[{bytes}];", self.number);
        }
        out.push('\n');
        out.push_str(&self.prologue);
        out.push_str(&self.body);
        out.push_str("}\n");
        out
    }

    fn line(&mut self, text: &str) {
        self.body.push('\t');
        self.body.push_str(text);
        self.body.push('\n');
    }

    fn prologue_line(&mut self, text: &str) {
        self.prologue.push('\t');
        self.prologue.push_str(text);
        self.prologue.push('\n');
    }

    fn label(&mut self, what: &str) -> String {
        self.labels += 1;
        format!("${what}_{}", self.labels)
    }

    fn fresh(&mut self, class: Class) -> String {
        let slot = &mut self.counts[class as usize];
        *slot += 1;
        format!("{}{slot}", class.names().0)
    }

    /// The register that an instruction gives, made unless the same one is at hand. `key` names operands by value,
    /// `text` by register; both have `{}` in place of the result.
    fn value(&mut self, class: Class, key: String, text: impl FnOnce(&str) -> String) -> Operand {
        for table in self.values.iter().rev() {
            if let Some(found) = table.get(&key) {
                return found.clone();
            }
        }
        let register = self.fresh(class);
        let text = text(&register);
        self.line(&text);
        let operand = Operand::fixed(register);
        self.values.last_mut().expect("the outermost table is never popped").insert(key, operand.clone());
        operand
    }

    /// As [`Emitter::value`], for what is the same for the whole entry.
    fn global(&mut self, class: Class, key: &str, text: impl FnOnce(&str) -> String) -> Operand {
        if let Some(found) = self.global.get(key) {
            return found.clone();
        }
        let register = self.fresh(class);
        let text = text(&register);
        self.prologue_line(&text);
        let operand = Operand::fixed(register);
        self.global.insert(key.to_owned(), operand.clone());
        operand
    }

    fn param_symbol(&self, slot: usize) -> String {
        format!("{}_{slot}", entry_name(self.unit))
    }

    /// A hidden parameter's value.
    fn hidden(&mut self, hidden: Hidden) -> Operand {
        let slot = self.layout.hidden(hidden);
        let symbol = self.param_symbol(slot);
        let wide = self.layout.slots[slot].bytes == 8;
        let (class, ty) = if wide { (Class::Long, "u64") } else { (Class::Word, "u32") };
        self.global(class, &format!("hidden {slot}"), |r| format!("ld.param.{ty} {r}, [{symbol}];"))
    }

    /// A scalar parameter's value.
    fn scalar(&mut self, index: u32) -> Operand {
        let symbol = self.param_symbol(index as usize);
        let ParamType::Scalar(element) = self.unit.params[index as usize].ty else {
            unreachable!("a scalar expression names a scalar parameter");
        };
        let key = format!("scalar {index}");
        match element {
            Element::Byte => self.global(Class::Word, &key, |r| format!("ld.param.u8 {r}, [{symbol}];")),
            Element::Half => {
                let raw = self.global(Class::Half, &format!("half {index}"), |r| {
                    format!("ld.param.b16 {r}, [{symbol}];")
                });
                self.global(Class::Float, &key, |r| format!("cvt.f32.f16 {r}, {};", raw.text))
            }
            Element::Float => self.global(Class::Float, &key, |r| format!("ld.param.f32 {r}, [{symbol}];")),
            Element::Double => self.global(Class::Double, &key, |r| format!("ld.param.f64 {r}, [{symbol}];")),
            Element::Int | Element::Uint | Element::Pixel => {
                self.global(Class::Word, &key, |r| format!("ld.param.b32 {r}, [{symbol}];"))
            }
        }
    }

    /// Where an array starts: an address in its own state space.
    fn base(&mut self, array: ArrayRef) -> Operand {
        match array {
            ArrayRef::Param(index) => {
                let symbol = self.param_symbol(index as usize);
                let generic = self.global(Class::Long, &format!("pointer {index}"), |r| {
                    format!("ld.param.u64 {r}, [{symbol}];")
                });
                self.global(Class::Long, &format!("base {index}"), |r| {
                    format!("cvta.to.global.u64 {r}, {};", generic.text)
                })
            }
            ArrayRef::Shared(_) => {
                let symbol = self.symbol(array);
                self.global(Class::Word, &format!("address {symbol}"), |r| format!("mov.u32 {r}, {symbol};"))
            }
            ArrayRef::Table(_) => {
                let symbol = self.symbol(array);
                self.global(Class::Long, &format!("address {symbol}"), |r| format!("mov.u64 {r}, {symbol};"))
            }
        }
    }

    /// The symbol of shared memory or of a table.
    fn symbol(&self, array: ArrayRef) -> String {
        match array {
            ArrayRef::Param(index) => self.param_symbol(index as usize),
            ArrayRef::Shared(index) => format!("px_shared{}_{index}", self.number),
            ArrayRef::Table(index) => table_name(self.number, &self.unit.tables[index as usize].name),
        }
    }

    fn length(&mut self, array: ArrayRef) -> Operand {
        match (array, self.unit.fixed_length(array)) {
            (_, Some(length)) => Operand::fixed(length.to_string()),
            (ArrayRef::Param(index), None) => self.hidden(Hidden::Length(index)),
            (_, None) => unreachable!("only parameters have open lengths"),
        }
    }

    fn special(&mut self, special: Special) -> Operand {
        match special {
            Special::Local => self.global(Class::Word, "tid", |r| format!("mov.u32 {r}, %tid.x;")),
            Special::Block => self.global(Class::Word, "ctaid", |r| format!("mov.u32 {r}, %ctaid.x;")),
            Special::Blocks => self.global(Class::Word, "nctaid", |r| format!("mov.u32 {r}, %nctaid.x;")),
            Special::Threads => self.hidden(Hidden::Threads),
            Special::Thread => {
                let thread = self.number_in_grid();
                if !self.unit.offset {
                    return thread;
                }
                let first = self.hidden(Hidden::First);
                self.global(Class::Word, "thread", |r| {
                    format!("add.s32 {r}, {}, {};", thread.text, first.text)
                })
            }
        }
    }

    /// The thread's number within this launch.
    fn number_in_grid(&mut self) -> Operand {
        let block = self.special(Special::Block);
        let local = self.special(Special::Local);
        let size = self.unit.block;
        self.global(Class::Word, "grid thread", |r| {
            format!("mad.lo.s32 {r}, {}, {size}, {};", block.text, local.text)
        })
    }

    /// The register that a variable of several definitions lives in.
    fn home(&mut self, var: VarId) -> Operand {
        if let Some(operand) = &self.vars[var as usize] {
            return operand.clone();
        }
        let register = self.fresh(Class::of(self.unit.vars[var as usize].ty));
        let operand = Operand::fixed(register);
        self.vars[var as usize] = Some(operand.clone());
        operand
    }

    fn fault_blocks(&mut self) {
        if self.faults.is_empty() {
            return;
        }
        // Registers of the common part: line, kind and array, index, length.
        let registers: Vec<String> = (0..4).map(|_| self.fresh(Class::Word)).collect();
        for fault in std::mem::take(&mut self.faults) {
            let _ = writeln!(self.body, "{}:", fault.label);
            self.line(&format!("mov.b32 {}, {};", registers[0], fault.line));
            self.line(&format!("mov.b32 {}, {};", registers[1], fault.code));
            self.line(&format!("mov.b32 {}, {};", registers[2], fault.index));
            self.line(&format!("mov.b32 {}, {};", registers[3], fault.length));
            self.line("bra $fault;");
        }
        let record = self.hidden(Hidden::Fault);
        let thread = self.special(Special::Thread);
        let record =
            self.global(Class::Long, "fault record", |r| format!("cvta.to.global.u64 {r}, {};", record.text));
        let (taken, mine) = (self.fresh(Class::Word), self.fresh(Class::Pred));
        self.body.push_str("$fault:\n");
        self.line(&format!("atom.global.cas.b32 {taken}, [{}], 0, 1;", record.text));
        self.line(&format!("setp.ne.b32 {mine}, {taken}, 0;"));
        self.line(&format!("@{mine} bra $done;"));
        let unit = self.number;
        self.line(&format!("st.global.b32 [{}+4], {unit};", record.text));
        for (register, offset) in registers.iter().zip([8, 12, 16, 20]) {
            self.line(&format!("st.global.b32 [{}+{offset}], {register};", record.text));
        }
        self.line(&format!("st.global.b32 [{}+24], {};", record.text, thread.text));
        self.line("bra $done;");
    }
}
