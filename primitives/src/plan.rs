//! From arguments to launches: how many threads, which module, and the bytes of every parameter.

use std::sync::Arc;

use crate::facts::{Facts, Known, MAX_LENGTH, Stride};
use crate::intrinsics::Extra;
use crate::ir::{ArrayRef, Stmt, Unit, visit_statements};
use crate::layout::{Hidden, Layout, reciprocal};
use crate::program::{Kernel, Module};
use crate::ptx::{Variant, entry_name};
use crate::types::{Element, ParamType};

/// One argument of a kernel on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An array in device memory.
    Array {
        /// Its device address, aligned to an element.
        address: u64,
        /// Its elements.
        length: u64,
    },
    /// A scalar's bits, in the low bytes: two's complement, IEEE 754, or RGBA with red lowest.
    Scalar(u64),
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Scalar(u64::from(value.cast_unsigned()))
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Scalar(u64::from(value))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Scalar(u64::from(value.to_bits()))
    }
}

impl From<f64> for Arg {
    fn from(value: f64) -> Self {
        Self::Scalar(value.to_bits())
    }
}

/// What to launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Threads that do the work; by default one for each element of what the kernel goes over.
    pub elements: Option<u64>,
    /// The first thread's number, for a part of a distributed kernel.
    pub first: u64,
    /// Device address of a zeroed fault record, [`crate::FAULT_RECORD_BYTES`] long, 8-byte aligned.
    pub fault_record: u64,
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Symbol of the entry in the plan's module.
    pub entry: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// The parameter buffer, for `CU_LAUNCH_PARAM_BUFFER_POINTER`.
    pub params: Vec<u8>,
    /// Offset and bytes of each parameter within it, for `kernelParams`.
    pub slots: Vec<(usize, usize)>,
}

/// What runs a kernel once: launches of one module, one after another on one stream.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The module, specialised to what these arguments prove.
    pub module: Arc<Module>,
    /// The launches, in order.
    pub steps: Vec<Step>,
    /// Threads that do the work.
    pub elements: u64,
    /// Places that may fault, and those of them whose check this module carries.
    pub checks: (usize, usize),
}

/// Why arguments do not fit a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Another number of arguments.
    #[error("kernel `{kernel}` takes {expected} arguments, not {found}")]
    Count {
        /// The kernel.
        kernel: String,
        /// Its parameters.
        expected: usize,
        /// Arguments given.
        found: usize,
    },
    /// An array for a scalar or the other way round.
    #[error("`{param}` of kernel `{kernel}` is {expected}")]
    Kind {
        /// The kernel.
        kernel: String,
        /// The parameter.
        param: String,
        /// Its type.
        expected: String,
    },
    /// An array too long to be indexed with an `int`.
    #[error("`{param}` has {length} elements; at most {MAX_LENGTH} can be indexed")]
    Length {
        /// The parameter.
        param: String,
        /// Its elements.
        length: u64,
    },
    /// An address that no element can have.
    #[error("`{param}` is at {address:#x}, which is not a multiple of {bytes}")]
    Misaligned {
        /// The parameter.
        param: String,
        /// Its address.
        address: u64,
        /// Bytes of an element.
        bytes: usize,
    },
    /// More threads than can be numbered.
    #[error("{elements} threads from number {first} on are more than can be numbered")]
    Threads {
        /// Threads asked for.
        elements: u64,
        /// The first one's number.
        first: u64,
    },
    /// Loops that could keep the device for good.
    #[error(
        "a thread of kernel `{kernel}` may take {turns} turns of its loops with these arguments, {threads} threads in all; \
         at most {} turns of a thread and {} of a launch are allowed",
        human(MAX_TURNS),
        human(MAX_LAUNCH_TURNS)
    )]
    Endless {
        /// The kernel.
        kernel: String,
        /// Most turns of one thread, in words.
        turns: String,
        /// Threads.
        threads: u64,
    },
    /// A launch in parts of a kernel that cannot be split.
    #[error("kernel `{kernel}` cannot be split: {reason}")]
    NotDivisible {
        /// The kernel.
        kernel: String,
        /// Why.
        reason: &'static str,
    },
    /// A whole kernel's work whose arrays do not fit together.
    #[error("kernel `{kernel}`: {reason}")]
    Shape {
        /// The kernel.
        kernel: String,
        /// What does not fit.
        reason: String,
    },
}

/// What a kernel may do with an array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// Read what it held before.
    pub read: bool,
    /// Write it.
    pub written: bool,
}

/// Turns of loops that one thread may take: a turn takes a few nanoseconds, so this is about a minute.
const MAX_TURNS: u64 = 1 << 34;

/// Turns that all threads of a launch may take together: minutes on a large GPU.
const MAX_LAUNCH_TURNS: u64 = 1 << 50;

/// A number in words, as a power of ten where it is large.
fn human(number: u64) -> String {
    match number {
        u64::MAX => "more than 10^19".to_owned(),
        0..1_000_000 => number.to_string(),
        number => format!("about 10^{}", number.ilog10()),
    }
}

/// An argument as the planner sees it: on a GPU or in host memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) bits: u64,
    pub(crate) length: u64,
}

impl Kernel {
    /// Threads that a launch with these lengths has by default: one for each element that threads go over.
    ///
    /// # Errors
    /// [`PlanError`] when the arguments do not fit the kernel.
    pub fn elements(&self, args: &[Arg]) -> Result<u64, PlanError> {
        let operands = self.operands(args)?;
        Ok(default_elements(&self.stages[0].unit, &operands))
    }

    /// Everything that a GPU needs to run the kernel once.
    ///
    /// # Errors
    /// [`PlanError`] when the arguments do not fit the kernel.
    pub fn plan(&self, args: &[Arg], request: &Request) -> Result<Plan, PlanError> {
        let operands = self.operands(args)?;
        for (param, arg) in self.params.iter().zip(args) {
            if let (ParamType::Array(element), Arg::Array { address, .. }) = (param.ty, *arg)
                && !address.is_multiple_of(element.bytes() as u64)
            {
                return Err(PlanError::Misaligned {
                    param: param.name.clone(),
                    address,
                    bytes: element.bytes(),
                });
            }
        }
        if request.first != 0 && !self.stages[0].unit.offset {
            let reason = "the program has no GPU_DISTRIBUTE";
            return Err(PlanError::NotDivisible { kernel: self.name.clone(), reason });
        }
        let launches = self.launches(&operands, request)?;
        self.check_turns(&launches)?;
        let mut variants: Vec<Option<Variant>> = vec![None; self.stages.len()];
        for launch in &launches {
            let unit = &self.stages[launch.stage].unit;
            let variant = specialise(unit, &launch.known(unit));
            let slot = &mut variants[launch.stage];
            *slot = Some(match slot.take() {
                None => variant,
                // A stage that is launched several times leaves out what all its launches prove.
                Some(other) => Variant {
                    proven: other.proven.iter().zip(&variant.proven).map(|(a, b)| *a && *b).collect(),
                    reciprocal: other.reciprocal && variant.reciprocal,
                    full: other.full && variant.full,
                },
            });
        }
        let mut variants: Vec<Variant> = variants.into_iter().map(Option::unwrap_or_default).collect();
        if !self.may_specialise(&variants) {
            variants = vec![Variant::default(); self.stages.len()];
        }
        let sites: usize = self.stages.iter().map(|stage| stage.unit.sites.len()).sum();
        let carried = self
            .stages
            .iter()
            .zip(&variants)
            .flat_map(|(stage, variant)| {
                stage.unit.sites.iter().enumerate().map(move |(i, site)| {
                    !stage.unit.unchecked && !site.proven && !variant.proven.get(i).copied().unwrap_or(false)
                })
            })
            .filter(|carried| *carried)
            .count();
        let elements = launches.first().map_or(0, |launch| launch.elements);
        let steps = launches.iter().map(|launch| launch.step(self, request.fault_record)).collect();
        Ok(Plan { module: self.module(variants), steps, elements, checks: (sites, carried) })
    }

    /// Whether a launch can be split by ranges of threads, and why not.
    ///
    /// # Errors
    /// The reason why not.
    pub fn divisible(&self) -> Result<(), &'static str> {
        if !self.schedule.is_map() {
            return Err("its threads work together across the whole launch");
        }
        let unit = &self.stages[0].unit;
        if unit.whole_blocks {
            return Err("its threads work together in blocks");
        }
        let mut atomic = false;
        visit_statements(&unit.body, &mut |stmt| atomic |= matches!(stmt, Stmt::Atomic(_)));
        if atomic { Err("its threads share values through atomics") } else { Ok(()) }
    }

    /// For each array parameter, whether every access is at the thread's own number, so that a part of a launch needs
    /// that part of the array only.
    #[must_use]
    pub fn elementwise(&self) -> Vec<bool> {
        let unit = &self.stages[0].unit;
        let mut own: Vec<bool> = self.params.iter().map(|p| matches!(p.ty, ParamType::Array(_))).collect();
        let thread = crate::ir::Expr::special(crate::ir::Special::Thread);
        visit_statements(&unit.body, &mut |stmt| {
            let access = match stmt {
                Stmt::Load { array, index, .. } | Stmt::Store { array, index, .. } => Some((*array, index)),
                Stmt::Atomic(atomic) => Some((atomic.array, &atomic.index)),
                _ => None,
            };
            if let Some((ArrayRef::Param(param), index)) = access
                && *index != thread
            {
                own[param as usize] = false;
            }
        });
        own.iter().map(|own| *own && self.schedule.is_map()).collect()
    }

    /// Refuses loops that could run for hours: nothing ends a kernel but its own end.
    fn check_turns(&self, launches: &[Launch]) -> Result<(), PlanError> {
        for launch in launches {
            let unit = &self.stages[launch.stage].unit;
            let turns = crate::turns::most(unit, &launch.known(unit));
            if turns > MAX_TURNS || turns.saturating_mul(launch.elements) > MAX_LAUNCH_TURNS {
                let (kernel, turns, threads) = (self.name.clone(), human(turns), launch.elements);
                return Err(PlanError::Endless { kernel, turns, threads });
            }
        }
        Ok(())
    }

    /// For each parameter, what the kernel may do with the array.
    #[must_use]
    pub fn access(&self) -> Vec<Access> {
        let mut access = vec![Access::default(); self.params.len()];
        for stage in &self.stages {
            let of = |array: &ArrayRef| match array {
                ArrayRef::Param(index) => match stage.sources[*index as usize] {
                    crate::intrinsics::Source::Param(param) => Some(param),
                    crate::intrinsics::Source::Extra(_) => None,
                },
                _ => None,
            };
            visit_statements(&stage.unit.body, &mut |stmt| match stmt {
                Stmt::Load { array, .. } => {
                    if let Some(param) = of(array) {
                        access[param].read = true;
                    }
                }
                Stmt::Store { array, .. } => {
                    if let Some(param) = of(array) {
                        access[param].written = true;
                    }
                }
                Stmt::Atomic(atomic) => {
                    if let Some(param) = of(&atomic.array) {
                        access[param] = Access { read: true, written: true };
                    }
                }
                _ => {}
            });
        }
        access
    }

    pub(crate) fn operands(&self, args: &[Arg]) -> Result<Vec<Operand>, PlanError> {
        self.check_count(args.len())?;
        let mut operands = Vec::new();
        for (param, arg) in self.params.iter().zip(args) {
            operands.push(match (param.ty, *arg) {
                (ParamType::Array(_), Arg::Array { address, length }) => {
                    check_length(&param.name, length)?;
                    Operand { bits: address, length }
                }
                (ParamType::Scalar(_), Arg::Scalar(bits)) => Operand { bits, length: 0 },
                (expected, _) => return Err(self.wrong_kind(&param.name, expected)),
            });
        }
        Ok(operands)
    }

    pub(crate) fn wrong_kind(&self, param: &str, expected: ParamType) -> PlanError {
        PlanError::Kind { kernel: self.name.clone(), param: param.to_owned(), expected: expected.to_string() }
    }

    pub(crate) fn check_count(&self, found: usize) -> Result<(), PlanError> {
        if found == self.params.len() {
            return Ok(());
        }
        Err(PlanError::Count { kernel: self.name.clone(), expected: self.params.len(), found })
    }

    /// The launches of one run, without their module.
    pub(crate) fn launches(&self, operands: &[Operand], request: &Request) -> Result<Vec<Launch>, PlanError> {
        let mut launches = if self.schedule.is_map() {
            let unit = &self.stages[0].unit;
            let elements = request
                .elements
                .unwrap_or_else(|| default_elements(unit, operands).saturating_sub(request.first));
            vec![Launch {
                stage: 0,
                elements,
                first: request.first,
                extras: Vec::new(),
                operands: Vec::new(),
            }]
        } else {
            self.schedule
                .launches(self, operands)
                .map_err(|reason| PlanError::Shape { kernel: self.name.clone(), reason })?
        };
        launches.retain(|launch| launch.elements > 0);
        for launch in &mut launches {
            let stage = &self.stages[launch.stage];
            let block = u64::from(stage.unit.block);
            if stage.unit.whole_blocks {
                launch.elements = launch.elements.next_multiple_of(block);
            }
            let most = i32::MAX as u64 + 1 - block;
            if launch.elements.checked_add(launch.first).is_none_or(|end| end > most) {
                return Err(PlanError::Threads { elements: launch.elements, first: launch.first });
            }
            launch.operands = stage
                .sources
                .iter()
                .map(|source| match source {
                    crate::intrinsics::Source::Param(index) => operands[*index],
                    crate::intrinsics::Source::Extra(extra) => {
                        Operand { bits: launch.extra(*extra), length: 0 }
                    }
                })
                .collect();
        }
        Ok(launches)
    }
}

pub(crate) fn check_length(param: &str, length: u64) -> Result<(), PlanError> {
    if i64::try_from(length).is_ok_and(|length| length <= MAX_LENGTH) {
        return Ok(());
    }
    Err(PlanError::Length { param: param.to_owned(), length })
}

/// A launch of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) stage: usize,
    pub(crate) elements: u64,
    pub(crate) first: u64,
    /// Values that the schedule computed.
    pub(crate) extras: Vec<(Extra, i32)>,
    /// One per parameter of the stage's unit.
    pub(crate) operands: Vec<Operand>,
}

impl Launch {
    fn extra(&self, which: Extra) -> u64 {
        let value = self.extras.iter().find(|(extra, _)| *extra == which).map_or(0, |(_, value)| *value);
        u64::from(value.cast_unsigned())
    }

    /// What the arguments are, for proofs.
    pub(crate) fn known(&self, unit: &Unit) -> Known {
        let mut known = Known {
            first: i64::try_from(self.first).unwrap_or(0),
            threads: i64::try_from(self.elements).ok(),
            ..Known::default()
        };
        for (param, operand) in unit.params.iter().zip(&self.operands) {
            let low = crate::arith::low(operand.bits);
            let (scalar, length) = match param.ty {
                ParamType::Scalar(Element::Int) => (Some(i64::from(low.cast_signed())), None),
                ParamType::Scalar(Element::Uint) => (Some(i64::from(low)), None),
                ParamType::Scalar(Element::Byte) => (Some(i64::from(low & 255)), None),
                ParamType::Scalar(_) => (None, None),
                ParamType::Array(_) => (None, i64::try_from(operand.length).ok()),
            };
            known.scalars.push(scalar);
            known.lengths.push(length);
        }
        known
    }

    /// Blocks of the launch.
    pub(crate) fn blocks(&self, unit: &Unit) -> u32 {
        u32::try_from(self.elements.div_ceil(u64::from(unit.block))).expect("threads fit into 31 bits")
    }

    fn step(&self, kernel: &Kernel, fault_record: u64) -> Step {
        let unit = &kernel.stages[self.stage].unit;
        let layout = Layout::of(unit);
        let mut params = vec![0u8; layout.bytes()];
        for (index, slot) in layout.slots.iter().enumerate() {
            let low = |value: u64| u64::from(crate::arith::low(value));
            let scalar = |param: u32| crate::arith::int(self.operands[param as usize].bits);
            let value = match slot.hidden {
                None => self.operands[index].bits,
                Some(Hidden::Length(param)) => self.operands[param as usize].length,
                Some(Hidden::Threads) => low(self.elements),
                Some(Hidden::First) => low(self.first),
                Some(Hidden::Multiplier(param)) => reciprocal(scalar(param)).map_or(0, |(m, _)| u64::from(m)),
                Some(Hidden::Shift(param)) => reciprocal(scalar(param)).map_or(0, |(_, s)| u64::from(s)),
                Some(Hidden::Fault) => fault_record,
            };
            params[slot.offset..slot.offset + slot.bytes].copy_from_slice(&value.to_le_bytes()[..slot.bytes]);
        }
        Step {
            entry: entry_name(unit),
            grid: [self.blocks(unit), 1, 1],
            block: [unit.block, 1, 1],
            params,
            slots: layout.slots.iter().map(|slot| (slot.offset, slot.bytes)).collect(),
        }
    }
}

/// What these arguments prove.
fn specialise(unit: &Unit, known: &Known) -> Variant {
    let proven = unit.sites.iter().map(|site| crate::check::sites::proven(unit, site, known)).collect();
    // One flag for all divisors: they are sizes, and positive, or the launch is a mistake.
    let layout = Layout::of(unit);
    let reciprocal = layout.slots.iter().any(|slot| matches!(slot.hidden, Some(Hidden::Multiplier(_))))
        && layout.slots.iter().all(|slot| match slot.hidden {
            Some(Hidden::Multiplier(param)) => known.scalars[param as usize].is_some_and(|value| value > 0),
            _ => true,
        });
    let full = known.threads.is_some_and(|threads| threads % i64::from(unit.block) == 0);
    Variant { proven, reciprocal, full }
}

/// Elements of what threads go over: of the arrays that are written at a place which depends on the thread's number,
/// or else of those that are read so; the longest counts. A place `k` apart from thread to thread counts `1/k`.
fn default_elements(unit: &Unit, operands: &[Operand]) -> u64 {
    let facts = Facts::new(unit);
    let (mut written, mut read) = (None, None);
    visit_statements(&unit.body, &mut |stmt| {
        let (array, index, slot) = match stmt {
            Stmt::Load { array, index, .. } => (*array, index, &mut read),
            Stmt::Store { array, index, .. } => (*array, index, &mut written),
            Stmt::Atomic(atomic) => (atomic.array, &atomic.index, &mut written),
            _ => return,
        };
        if let (ArrayRef::Param(param), Stride::Step(step)) = (array, facts.stride(index)) {
            let length = operands[param as usize].length.div_ceil(step.unsigned_abs().max(1));
            *slot = (*slot).max(Some(length));
        }
    });
    let longest = operands.iter().map(|operand| operand.length).max().unwrap_or(0);
    written.or(read).unwrap_or(longest).max(1)
}
