//! Launches: one kernel over a grid, on the calling thread and the pool's.

#![expect(clippy::cast_possible_truncation, reason = "lanes, threads and parameters are few")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::WARP;
use super::block::{Block, BlockState};
use super::children::Children;
use super::fault::{Fault, FaultKind};
use super::host::Host;
use super::op::{BarrierWait, Cx, Phase, RawFault};
use super::pool;
use super::program::{Constant, Kernel, Program};
use super::special::{RESERVED_SHARED, Special, Value};
use crate::device::memory::{HostView, Memory};

/// Warp-instructions that a block runs before its thread looks at other blocks.
const BLOCK_SLICE: u32 = 1 << 18;
/// The same while it is open whether the launch is worth waking other threads for.
const FIRST_SLICE: u32 = 1 << 12;
/// Thread-instructions that a small launch executes before it asks for help: some tens of microseconds, as long as
/// waking a thread takes.
const ALONE: u64 = 1 << 16;
/// Blocks of one launch that a thread keeps in flight when they wait for each other, unless the launch is
/// cooperative, for which all must be.
const MAX_RESIDENT: usize = 64;

/// A kernel launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The loaded module.
    pub program: &'a Program,
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// Device address of each of [`Program::globals`].
    pub symbols: &'a [u64],
    /// Blocks in each dimension.
    pub grid: [u32; 3],
    /// Threads of a block in each dimension.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// `cuLaunchCooperativeKernel`: all blocks run at once.
    pub cooperative: bool,
    /// How many kernels launched each other down to this one; 0 for one that the host launches.
    pub depth: u32,
    /// The parameter buffer, laid out as [`Kernel::params`] says.
    pub params: &'a [u8],
}

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaunchReport {
    /// Instructions executed, summed over threads.
    pub instructions: u64,
    /// Blocks executed.
    pub blocks: u64,
}

/// Which of a function's constants are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConstantPlace {
    All,
    /// Those that change from block to block.
    PerBlock,
}

/// A launch in progress, shared by the threads that work on it.
pub(super) struct Job<'a> {
    pub(super) program: &'a Program,
    pub(super) function: usize,
    kernel: &'a Kernel,
    symbols: &'a [u64],
    params: &'a [u8],
    pub(super) memory: &'a Memory,
    pub(super) host: &'a dyn Host,
    pub(super) grid: [u32; 3],
    block: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
    dynamic_shared: u32,
    pub(super) stack_limit: u32,
    /// Memory that a cooperative grid synchronises through.
    workspace: u64,
    id: u64,
    cooperative: bool,
    pub(super) depth: u32,
    per_block: Vec<Vec<Constant>>,
    blocks: u64,
    next: AtomicU64,
    finished: AtomicU64,
    stop: AtomicBool,
    instructions: AtomicU64,
    fault: Mutex<Option<Fault>>,
    /// What its threads have launched.
    pub(super) children: Mutex<Children>,
    /// Pool threads inside [`Job::work`].
    workers: Mutex<u32>,
    idle: Condvar,
}

/// Runs a kernel to its end.
///
/// # Errors
/// The first [`Fault`]; memory then holds whatever has been written so far.
pub fn run(launch: &Launch<'_>, memory: &Memory, host: &dyn Host) -> Result<LaunchReport, Fault> {
    let invalid = |message: String| Fault { kind: FaultKind::InvalidLaunch, message };
    let Some(kernel) = launch.program.kernels().get(launch.kernel) else {
        return Err(invalid(format!("kernel {} does not exist", launch.kernel)));
    };
    if launch.symbols.len() != launch.program.globals().len() {
        return Err(invalid(format!("{} symbol addresses were given", launch.symbols.len())));
    }
    if launch.params.len() < kernel.param_bytes as usize {
        return Err(invalid(format!(
            "kernel {} takes {} bytes of parameters, got {}",
            kernel.name,
            kernel.param_bytes,
            launch.params.len()
        )));
    }
    let threads =
        launch.block.iter().try_fold(1u32, |product, n| product.checked_mul(*n)).unwrap_or(u32::MAX);
    let blocks = launch.grid.iter().try_fold(1u64, |product, n| product.checked_mul(u64::from(*n)));
    let (Some(blocks), 1..=1024) = (blocks.filter(|blocks| *blocks > 0), threads) else {
        return Err(invalid(format!("grid {:?} of blocks {:?}", launch.grid, launch.block)));
    };
    let Some(shared_bytes) =
        kernel.dynamic_offset.checked_add(launch.dynamic_shared).filter(|b| *b < 1 << 30)
    else {
        return Err(invalid(format!("{} bytes of dynamic shared memory", launch.dynamic_shared)));
    };
    let workspace = if kernel.uses_envreg { workspace(memory, threads, blocks)? } else { 0 };
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let changes = |constant: &&Constant| {
        matches!(constant.value, Value::Special(Special::Ctaid(_) | Special::ClusterId(_) | Special::SmId))
    };
    let job = Job {
        program: launch.program,
        function: kernel.function,
        kernel,
        symbols: launch.symbols,
        params: launch.params,
        memory,
        host,
        grid: launch.grid,
        block: launch.block,
        threads,
        shared_bytes,
        dynamic_shared: launch.dynamic_shared,
        stack_limit: host.stack_limit(),
        workspace,
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        cooperative: launch.cooperative,
        depth: launch.depth,
        per_block: vec![
            launch.program.functions[kernel.function].constants.iter().filter(changes).copied().collect(),
        ],
        blocks,
        next: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        instructions: AtomicU64::new(0),
        fault: Mutex::new(None),
        children: Mutex::default(),
        workers: Mutex::new(0),
        idle: Condvar::new(),
    };
    pool::share(&job);
    if workspace != 0 {
        memory.free(workspace);
    }
    let fault = job.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut report = LaunchReport { instructions: job.instructions.load(Ordering::Relaxed), blocks };
    // What a grid has launched runs when it has ended and belongs to it (CUDA C++ programming guide, "Dynamic
    // parallelism": a grid is complete when its children are; work of one stream keeps its order).
    let children = std::mem::take(&mut *job.children.lock().unwrap_or_else(PoisonError::into_inner));
    for child in children.in_order() {
        let done = child.run(launch, memory, host)?;
        report.instructions += done.instructions;
        report.blocks += done.blocks;
    }
    Ok(report)
}

/// What cooperative groups expects behind `%envreg1` and `%envreg2`: the size of the workspace, then a barrier counter
/// (cooperative_groups.h of the toolkit), all zero but the size.
fn workspace(memory: &Memory, _threads: u32, _blocks: u64) -> Result<u64, Fault> {
    const BYTES: u64 = 256;
    let out_of_memory = || Fault {
        kind: FaultKind::InvalidLaunch,
        message: "no device memory for the grid's barrier".to_owned(),
    };
    let address = memory.alloc(BYTES).ok_or_else(out_of_memory)?;
    let mut bytes = [0u8; BYTES as usize];
    bytes[..4].copy_from_slice(&256u32.to_le_bytes());
    memory.write(address, &bytes).map_err(|_| out_of_memory())?;
    Ok(address)
}

impl<'a> Job<'a> {
    /// A function's constants.
    pub(super) fn constants(&self, function: usize, place: ConstantPlace) -> &[Constant] {
        match place {
            ConstantPlace::All => &self.program.functions[function].constants,
            ConstantPlace::PerBlock => &self.per_block[0],
        }
    }

    /// A thread's place in its block.
    pub(super) fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let index = warp * WARP as u32 + lane;
        let [x, y, _] = self.block;
        [index % x, index / x % y, index / (x * y)]
    }

    /// The value of a constant for a thread.
    pub(super) fn constant(&self, value: Value, warp: u32, lane: usize, block: [u32; 3]) -> u64 {
        match value {
            Value::Bits(bits) => bits,
            Value::Global { index, offset } => self.symbols[index].wrapping_add_signed(offset),
            Value::Param { offset, bytes, signed } => self.param(offset as usize, bytes as usize, signed),
            Value::Shared { index, offset } => {
                u64::from(self.kernel.shared_offsets[index]).wrapping_add_signed(offset)
            }
            Value::DynamicShared { offset } => {
                u64::from(self.kernel.dynamic_offset).wrapping_add_signed(offset)
            }
            Value::Special(special) => self.special(special, warp, lane as u32, block),
        }
    }

    fn param(&self, offset: usize, bytes: usize, signed: bool) -> u64 {
        let mut value = [0u8; 8];
        let Some(from) = self.params.get(offset..offset + bytes) else { return 0 };
        value[..bytes].copy_from_slice(from);
        let value = u64::from_le_bytes(value);
        let unused = 64 - 8 * bytes as u32;
        if signed { (value.cast_signed() << unused >> unused).cast_unsigned() } else { value }
    }

    fn special(&self, special: Special, warp: u32, lane: u32, block: [u32; 3]) -> u64 {
        let one = 1u64 << lane;
        let all = u64::from(u32::MAX);
        match special {
            Special::Tid(dim) => u64::from(self.thread(warp, lane)[dim]),
            Special::Ntid(dim) => u64::from(self.block[dim]),
            Special::Ctaid(dim) | Special::ClusterId(dim) => u64::from(block[dim]),
            Special::Nctaid(dim) | Special::NclusterId(dim) => u64::from(self.grid[dim]),
            Special::LaneId => u64::from(lane),
            Special::WarpId => u64::from(warp),
            Special::NwarpId => u64::from(self.threads.div_ceil(WARP as u32)),
            Special::NsmId => u64::from(self.host.multiprocessors()),
            Special::SmId => {
                let [x, y, _] = self.grid.map(u64::from);
                let [bx, by, bz] = block.map(u64::from);
                (bx + x * (by + y * bz)) % u64::from(self.host.multiprocessors().max(1))
            }
            Special::GridId => self.id,
            Special::LanemaskEq => one,
            Special::LanemaskLe => (one << 1) - 1,
            Special::LanemaskLt => one - 1,
            Special::LanemaskGe => all & !(one - 1),
            Special::LanemaskGt => all & !((one << 1) - 1),
            Special::DynamicSmem => u64::from(self.dynamic_shared),
            Special::TotalSmem => u64::from(self.shared_bytes),
            Special::ReservedEnd => u64::from(RESERVED_SHARED),
            Special::ReservedOne => u64::from(RESERVED_SHARED / 2),
            Special::EnvReg(1) => self.workspace >> 32,
            Special::EnvReg(2) => self.workspace & all,
            Special::EnvReg(_) | Special::Zero => 0,
            Special::One => 1,
        }
    }

    /// Puts a fault into words and stops the launch.
    pub(super) fn report(&self, raw: &RawFault, warp: u32, block: [u32; 3], line: u32) {
        let [tx, ty, tz] = self.thread(warp, raw.lane);
        let [bx, by, bz] = block;
        let message = match raw.kind {
            FaultKind::Assert => raw.text.clone(),
            _ => format!(
                "kernel {}, block ({bx},{by},{bz}), thread ({tx},{ty},{tz}), ptx line {line}: {}",
                self.kernel.name, raw.text
            ),
        };
        self.stop_with(Fault { kind: raw.kind, message });
    }

    fn stop_with(&self, fault: Fault) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        self.stop.store(true, Ordering::Release);
    }

    fn cancelled(&self) -> bool {
        if self.stop.load(Ordering::Acquire) {
            return true;
        }
        if self.host.cancelled() {
            let message = format!("kernel {} was cancelled", self.kernel.name);
            self.stop_with(Fault { kind: FaultKind::Cancelled, message });
            return true;
        }
        false
    }

    /// Whether blocks are left that nobody has started.
    pub(super) fn has_work(&self) -> bool {
        !self.stop.load(Ordering::Acquire) && self.next.load(Ordering::Relaxed) < self.blocks
    }

    /// Blocks in all.
    pub(super) fn block_count(&self) -> u64 {
        self.blocks
    }

    fn take(&self) -> Option<u64> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.blocks && !self.stop.load(Ordering::Acquire)).then_some(index)
    }

    /// Runs blocks on this thread until none is left to start and those it started have ended. Calls `ask` once
    /// when there turns out to be work for more than one thread.
    pub(super) fn work(&'a self, mut ask: Option<&dyn Fn()>) {
        let mut cx = Cx {
            r32: std::ptr::null_mut(),
            r64: std::ptr::null_mut(),
            pr: std::ptr::null_mut(),
            local: std::ptr::null_mut(),
            local_stride: 0,
            local_base: 0,
            shared: std::ptr::null_mut(),
            shared_bytes: 0,
            params: self.params,
            memory: self.memory,
            view: HostView::default(),
            job: self,
            aux: &self.program.aux,
            barriers: std::ptr::null_mut(),
            warp: 0,
            live: 0,
            carry: 0,
            polls: 0,
            phase: Phase::Whole,
            participants: 0,
            exchange: [0; WARP],
            votes: 0,
            wait_mask: 0,
            wait: BarrierWait { id: 0, threads: None, arrive_only: false, votes: 0 },
            targets: [0; WARP],
            block: [0; 3],
            fault: None,
        };
        let mut running: Vec<Block> = Vec::new();
        let mut spare: Vec<Block> = Vec::new();
        let limit = if self.cooperative { usize::MAX } else { MAX_RESIDENT };
        let mut wants_more = true;
        let mut idle_passes = 0u32;
        let mut executed = 0;
        // Of a cooperative launch a thread starts its part at once, and more when those wait for others.
        let part = self.blocks.div_ceil(pool::threads()).max(1);
        loop {
            if wants_more
                && running.len() < limit
                && let Some(index) = self.take()
            {
                let mut block = spare.pop().unwrap_or_else(|| Block::new(self));
                block.start(self, index);
                running.push(block);
                if self.cooperative && (running.len() as u64) < part && self.has_work() {
                    continue;
                }
            }
            if running.is_empty() {
                break;
            }
            if self.cancelled() {
                break;
            }
            if (executed > ALONE || self.cooperative)
                && let Some(ask) = ask.take_if(|_| self.has_work())
            {
                ask();
            }
            let slice = if ask.is_some() { FIRST_SLICE } else { BLOCK_SLICE };
            wants_more = true;
            let mut idle = true;
            let mut at = 0;
            while at < running.len() {
                let state = running[at].run(self, &mut cx, slice);
                let thread_instructions = running[at].take_executed();
                executed += thread_instructions;
                self.instructions.fetch_add(thread_instructions, Ordering::Relaxed);
                idle &= state == BlockState::Polling;
                match state {
                    BlockState::Done => {
                        spare.push(running.swap_remove(at));
                        self.finished.fetch_add(1, Ordering::Relaxed);
                    }
                    BlockState::Ready => {
                        // It computes: starting another one beside it would only cost cache.
                        wants_more = false;
                        at += 1;
                    }
                    BlockState::Polling => at += 1,
                    BlockState::Fault => {
                        if let Some(raw) = cx.fault.take() {
                            self.report(&raw, cx.warp, cx.block, 0);
                        }
                        self.stop.store(true, Ordering::Release);
                        return;
                    }
                }
            }
            // Whoever all blocks here wait for may need this CPU.
            idle_passes = if idle { idle_passes + 1 } else { 0 };
            if idle_passes > 1000 {
                std::thread::sleep(std::time::Duration::from_micros(50));
            } else if idle {
                std::thread::yield_now();
            }
        }
    }

    /// A pool thread comes; false when the launch has no work for it.
    pub(super) fn enter(&self) -> bool {
        if !self.has_work() {
            return false;
        }
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        true
    }

    /// A pool thread goes.
    pub(super) fn leave(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        *workers -= 1;
        if *workers == 0 {
            self.idle.notify_all();
        }
    }

    /// Waits until no pool thread works on the launch any more.
    pub(super) fn wait(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        while *workers > 0 {
            workers = self.idle.wait(workers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
