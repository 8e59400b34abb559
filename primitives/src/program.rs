//! A compiled program: its kernels, and the statements that run on the CPU between them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::fault::{FAULT_RECORD_BYTES, Fault, FaultKind, RawFault};
use crate::intrinsics::{Schedule, Stage};
use crate::ir::ArrayRef;
use crate::ptx::{self, Variant};
use crate::types::{Element, ParamType};

/// How a kernel wants to be scheduled, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing said.
    #[default]
    Default,
    /// `LATENCY_CRITICAL`, `REALTIME`.
    LatencyCritical,
    /// `INTERACTIVE`.
    Interactive,
    /// `THROUGHPUT`.
    Throughput,
    /// `BATCH`.
    Batch,
}

/// Where kernels run, as `GPU_TARGET` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The cost model decides for each statement.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On the GPU.
    Gpu,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: ParamType,
}

/// A statement that runs on the CPU, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum HostStatement {
    /// Reads a file into a buffer. The file is one of the process that runs the program, never one of the host's.
    ReadFile {
        /// The file's name as written.
        path: String,
        /// The buffer's name.
        into: String,
        /// What the buffer's elements are.
        element: Element,
    },
    /// Writes a buffer to a file.
    WriteFile {
        /// The buffer's name.
        from: String,
        /// The file's name as written.
        path: String,
    },
    /// Checks that a buffer exists, is not empty, and holds no NaN; 1 or 0 as a number of that name.
    Validate {
        /// The buffer's name.
        name: String,
        /// The name that the outcome gets.
        status: Option<String>,
    },
    /// Runs a kernel whose parameters are the buffers and numbers of the same names.
    Launch {
        /// The kernel's name.
        kernel: String,
        /// Threads in all, where the text says how many blocks.
        elements: Option<u64>,
    },
    /// Waits for all launches.
    Sync,
}

/// A compiled program.
#[derive(Debug)]
pub struct Program {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) statements: Vec<HostStatement>,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) target: Target,
    pub(crate) distribute: bool,
    pub(crate) hash: u64,
}

impl Program {
    /// The kernels, in the order of the text.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel of that name.
    #[must_use]
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// The statements that run on the CPU, launches included; empty when the text has kernels alone.
    #[must_use]
    pub fn statements(&self) -> &[HostStatement] {
        &self.statements
    }

    /// What the static adviser found: the program runs, but probably slower than it could.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Where kernels run, as `GPU_TARGET` says.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether `GPU_DISTRIBUTE` asks for kernels to be split over several GPUs.
    #[must_use]
    pub fn distribute(&self) -> bool {
        self.distribute
    }

    /// A number that is the same for the same text and options: a cache key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// A kernel, compiled.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) class: Class,
    pub(crate) params: Vec<Param>,
    pub(crate) line: u32,
    pub(crate) stages: Vec<Stage>,
    pub(crate) schedule: Schedule,
    /// Modules made so far, by what they leave out.
    pub(crate) variants: Mutex<HashMap<Vec<Variant>, Arc<Module>>>,
}

/// A PTX text with a key that is its own: equal keys are equal texts.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// The text.
    pub ptx: String,
    /// A hash of the text, for caches of loaded modules.
    pub key: u64,
}

/// Modules that one kernel may have: arguments must not make the compiler work without bound.
const MOST_VARIANTS: usize = 8;

impl Kernel {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it wants to be scheduled.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its parameters, in order.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The line of its header.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Symbols of the entries in its module; one, unless it is a whole kernel's work such as SORT.
    #[must_use]
    pub fn entries(&self) -> Vec<String> {
        self.stages.iter().map(|stage| ptx::entry_name(&stage.unit)).collect()
    }

    /// Threads of a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.stages[0].unit.block
    }

    /// The PTX with every check that could not be proven from the text alone: what runs for any arguments.
    #[must_use]
    pub fn ptx(&self) -> Arc<Module> {
        self.module(vec![Variant::default(); self.stages.len()])
    }

    /// The module that leaves out what the variants say.
    pub(crate) fn module(&self, variants: Vec<Variant>) -> Arc<Module> {
        let mut made = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = made.get(&variants) {
            return Arc::clone(module);
        }
        let units: Vec<_> = self.stages.iter().map(|stage| &stage.unit).zip(&variants).collect();
        let ptx = ptx::module(&units);
        let module = Arc::new(Module { key: hash(ptx.as_bytes()), ptx });
        made.insert(variants, Arc::clone(&module));
        module
    }

    /// Whether another module may be made.
    pub(crate) fn may_specialise(&self, variants: &[Variant]) -> bool {
        let made = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        made.len() < MOST_VARIANTS || made.contains_key(variants)
    }

    /// The fault that a record of [`FAULT_RECORD_BYTES`] bytes tells of, after the launch has completed.
    #[must_use]
    pub fn fault(&self, record: &[u8; FAULT_RECORD_BYTES]) -> Option<Fault> {
        RawFault::decode(record).map(|raw| self.describe(raw))
    }

    /// A fault in words.
    pub(crate) fn describe(&self, raw: RawFault) -> Fault {
        let number = raw.code >> 16;
        let array = match raw.code >> 8 & 0xff {
            0 => ArrayRef::Param(number),
            1 => ArrayRef::Shared(number),
            _ => ArrayRef::Table(number),
        };
        let kind = match raw.code & 0xff {
            1 => FaultKind::Load,
            2 => FaultKind::Store,
            3 => FaultKind::Atomic,
            4 => FaultKind::Division,
            _ => FaultKind::Require,
        };
        let kernel = &self.name;
        // The library's own lines mean nothing to the program's author.
        let line = if self.schedule.is_map() { raw.line } else { self.line };
        let access = matches!(kind, FaultKind::Load | FaultKind::Store | FaultKind::Atomic);
        let name = self.stages.get(raw.unit as usize).filter(|_| access).and_then(|stage| {
            let unit = &stage.unit;
            let known = match array {
                ArrayRef::Param(n) => (n as usize) < unit.params.len(),
                ArrayRef::Shared(n) => (n as usize) < unit.shared.len(),
                ArrayRef::Table(n) => (n as usize) < unit.tables.len(),
            };
            // A record comes from device memory, where the guest can write as well.
            known.then(|| unit.array_name(array).to_owned())
        });
        let (index, length, thread) = (i64::from(raw.index), u64::from(raw.length), u64::from(raw.thread));
        let shown = name.as_deref().unwrap_or("?");
        let what = match kind {
            FaultKind::Load => format!("load of `{shown}[{index}]`, which has {length} elements"),
            FaultKind::Store => format!("store to `{shown}[{index}]`, which has {length} elements"),
            FaultKind::Atomic => format!("atomic on `{shown}[{index}]`, which has {length} elements"),
            FaultKind::Division => "division by zero".to_owned(),
            FaultKind::Require => "a requirement does not hold".to_owned(),
        };
        let message = format!("kernel `{kernel}`, line {line}, thread {thread}: {what}");
        Fault { kind, kernel: kernel.clone(), line, array: name, index, length, thread, message }
    }
}

/// FNV-1a, 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
