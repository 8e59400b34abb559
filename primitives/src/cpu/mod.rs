//! The CPU executor: a kernel on this machine's cores, with the results that a GPU gives.
//!
//! Blocks are handed out to threads. The threads of a block run in lockstep, one operation over all of them at a time
//! (`lanes`), with a mask where control flow divides them (`block`); so a barrier needs no waiting, and an
//! operation costs one dispatch per block. Results equal a GPU's bit for bit as far as the program has no races and
//! sums no floats through atomics; NaNs are NaNs, whatever their bits.

mod block;
mod lanes;
mod memory;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Fault, RawFault};
use crate::plan::{Launch, Operand, PlanError, Request};
use crate::program::Kernel;
use crate::types::ParamType;
use block::Block;
use memory::Memory;

/// An argument in host memory.
#[derive(Debug)]
pub enum CpuArg<'a> {
    /// An array's bytes, little-endian; whole elements.
    Array(&'a mut [u8]),
    /// A scalar's bits, as [`crate::Arg::Scalar`].
    Scalar(u64),
}

/// How a run on the CPU is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions<'a> {
    /// Threads; as many as there are processors when zero.
    pub threads: usize,
    /// Threads of the kernel that do the work; by default one for each element of what it goes over.
    pub elements: Option<u64>,
    /// Ends the run soon after it becomes true.
    pub cancel: Option<&'a AtomicBool>,
    /// Ends the run soon after this time.
    pub limit: Option<Duration>,
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuReport {
    /// Threads of the kernel that did the work.
    pub elements: u64,
    /// Threads of this machine that took part.
    pub threads: usize,
    /// Time from start to end.
    pub duration: Duration,
}

/// Why a run did not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The arguments do not fit the kernel.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An array that is not whole elements.
    #[error("`{param}` has {bytes} bytes, which are no whole elements of {size}")]
    Partial {
        /// The parameter.
        param: String,
        /// Bytes given.
        bytes: usize,
        /// Bytes of an element.
        size: usize,
    },
    /// A thread faulted; arrays hold what was written so far.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The caller ended the run, or its time was over; arrays hold what was written so far.
    #[error("kernel `{kernel}` was stopped after {milliseconds} ms")]
    Stopped {
        /// The kernel.
        kernel: String,
        /// Time that it ran.
        milliseconds: u128,
    },
}

/// Why a block ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Fault(RawFault),
    Stopped,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
struct Watch<'a> {
    cancel: Option<&'a AtomicBool>,
    end: Option<Instant>,
    /// Another thread has met an end.
    over: &'a AtomicBool,
}

impl Watch<'_> {
    fn stopped(&self) -> bool {
        self.over.load(Ordering::Relaxed)
            || self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
            || self.end.is_some_and(|end| Instant::now() >= end)
    }
}

impl Kernel {
    /// Runs the kernel on this machine's cores.
    ///
    /// # Errors
    /// [`CpuError`]; arrays may have been written to by then, unless the arguments themselves were wrong.
    pub fn run_on_cpu(
        &self,
        args: &mut [CpuArg<'_>],
        options: &CpuOptions<'_>,
    ) -> Result<CpuReport, CpuError> {
        let start = Instant::now();
        let operands = self.host_operands(args)?;
        let request = Request { elements: options.elements, ..Request::default() };
        let launches = self.launches(&operands, &request)?;
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 { available } else { options.threads };
        let memories: Vec<Option<Memory<'_>>> = self
            .params
            .iter()
            .zip(args.iter_mut())
            .map(|(param, arg)| match (param.ty, arg) {
                (ParamType::Array(element), CpuArg::Array(bytes)) => Some(Memory::new(element, bytes)),
                _ => None,
            })
            .collect();
        let over = AtomicBool::new(false);
        let watch =
            Watch { cancel: options.cancel, end: options.limit.map(|limit| start + limit), over: &over };
        let mut outcome = Ok(());
        for launch in &launches {
            outcome = self.launch_on_cpu(launch, &memories, threads, watch);
            if outcome.is_err() {
                break;
            }
        }
        for memory in memories.into_iter().flatten() {
            memory.finish();
        }
        let elements = launches.first().map_or(0, |launch| launch.elements);
        match outcome {
            Ok(()) => Ok(CpuReport { elements, threads, duration: start.elapsed() }),
            Err(Halt::Fault(raw)) => Err(CpuError::Fault(self.describe(raw))),
            Err(Halt::Stopped) => Err(CpuError::Stopped {
                kernel: self.name.clone(),
                milliseconds: start.elapsed().as_millis(),
            }),
        }
    }

    fn host_operands(&self, args: &[CpuArg<'_>]) -> Result<Vec<Operand>, CpuError> {
        self.check_count(args.len())?;
        let mut operands = Vec::new();
        for (param, arg) in self.params.iter().zip(args) {
            operands.push(match (param.ty, arg) {
                (ParamType::Array(element), CpuArg::Array(bytes)) => {
                    let size = element.bytes();
                    if bytes.len() % size != 0 {
                        return Err(CpuError::Partial {
                            param: param.name.clone(),
                            bytes: bytes.len(),
                            size,
                        });
                    }
                    let length = (bytes.len() / size) as u64;
                    crate::plan::check_length(&param.name, length)?;
                    Operand { bits: 0, length }
                }
                (ParamType::Scalar(_), CpuArg::Scalar(bits)) => Operand { bits: *bits, length: 0 },
                (expected, _) => return Err(self.wrong_kind(&param.name, expected).into()),
            });
        }
        Ok(operands)
    }

    fn launch_on_cpu(
        &self,
        launch: &Launch,
        memories: &[Option<Memory<'_>>],
        threads: usize,
        watch: Watch<'_>,
    ) -> Result<(), Halt> {
        let stage = &self.stages[launch.stage];
        let unit = &stage.unit;
        let arrays: Vec<Option<&Memory<'_>>> = stage
            .sources
            .iter()
            .map(|source| match source {
                crate::intrinsics::Source::Param(index) => memories[*index].as_ref(),
                crate::intrinsics::Source::Extra(_) => None,
            })
            .collect();
        let blocks = u64::from(launch.blocks(unit));
        let next = AtomicU64::new(0);
        // A few blocks at a time: short launches spread, long ones do not fight over the counter.
        let share = (blocks / (threads as u64 * 8)).clamp(1, 64);
        let first: Mutex<Option<Halt>> = Mutex::new(None);
        let work = || {
            let mut block = Block::new(unit, launch.stage, &arrays, &launch.operands, launch, watch);
            loop {
                let start = next.fetch_add(share, Ordering::Relaxed);
                if start >= blocks {
                    return;
                }
                for number in start..(start + share).min(blocks) {
                    if let Err(halt) = block.run(number) {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                        // A fault says more than being stopped for it.
                        if !matches!(*first, Some(Halt::Fault(_))) {
                            *first = Some(halt);
                        }
                        watch.over.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        let helpers =
            threads.min(usize::try_from(blocks.div_ceil(share)).unwrap_or(usize::MAX)).saturating_sub(1);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                // Without a further thread the work is done by those that there are.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(halt) => Err(halt),
            None => Ok(()),
        }
    }
}
