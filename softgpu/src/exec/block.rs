//! A thread block: its warps, shared memory and barriers.

#![expect(clippy::cast_possible_truncation, reason = "warps and lanes are few")]

use super::WARP;
use super::launch::Job;
use super::op::{BarrierWait, Cx, FULL, Mask, Phase};
use super::warp::{Warp, WarpState};

/// The barrier id that stands for `barrier.cluster`, beside the block's own 16.
pub(super) const CLUSTER_BARRIER: u32 = 16;
/// Warp-instructions that a warp runs before the next one gets its turn.
const WARP_SLICE: u32 = 1 << 14;

/// One named barrier.
#[derive(Debug, Clone, Default)]
struct Barrier {
    /// Lanes of each warp that have arrived in this phase.
    arrived: Vec<Mask>,
    pending: bool,
    threads: Option<u32>,
    /// Lanes of each warp that voted true, for `bar.red`.
    voted: Vec<Mask>,
    /// Phases completed.
    generation: u32,
    /// Outcome of the last two phases: true votes, and votes in all.
    results: [(u32, u32); 2],
}

/// The barriers of a block.
#[derive(Debug)]
pub(super) struct Barriers {
    list: Vec<Barrier>,
    /// Lanes of each warp that have not exited.
    live: Vec<Mask>,
}

impl Barriers {
    fn new(live: Vec<Mask>) -> Self {
        Self { list: vec![Barrier::default(); 17], live }
    }

    /// Counts an arrival; returns the phase to wait for.
    pub(super) fn arrive(&mut self, warp: u32, mask: Mask, wait: BarrierWait) -> u32 {
        let warps = self.live.len();
        let barrier = &mut self.list[wait.id as usize];
        if !barrier.pending {
            barrier.pending = true;
            barrier.arrived.clear();
            barrier.arrived.resize(warps, 0);
            barrier.voted.clear();
            barrier.voted.resize(warps, 0);
        }
        barrier.threads = wait.threads;
        barrier.arrived[warp as usize] |= mask;
        barrier.voted[warp as usize] |= wait.votes;
        let generation = barrier.generation;
        self.settle(wait.id as usize);
        generation
    }

    /// Lanes of a warp have exited.
    pub(super) fn exit(&mut self, warp: u32, live: Mask) {
        self.live[warp as usize] = live;
        for id in 0..self.list.len() {
            if self.list[id].pending {
                self.settle(id);
            }
        }
    }

    /// Completes a barrier's phase when everyone it waits for has arrived.
    fn settle(&mut self, id: usize) {
        let barrier = &mut self.list[id];
        let complete = match barrier.threads {
            // Threads that have exited count as arrived.
            None => barrier.arrived.iter().zip(&self.live).all(|(arrived, live)| live & !arrived == 0),
            // A warp counts as a whole once all its live lanes are there.
            Some(threads) => {
                let count = |(arrived, live): (&Mask, &Mask)| match arrived {
                    0 => 0,
                    arrived if live & !arrived == 0 => 32,
                    arrived => arrived.count_ones(),
                };
                barrier.arrived.iter().zip(&self.live).map(count).sum::<u32>() >= threads
            }
        };
        if complete {
            let votes = barrier.voted.iter().map(|mask| mask.count_ones()).sum();
            let total = barrier.arrived.iter().map(|mask| mask.count_ones()).sum();
            barrier.results[barrier.generation as usize & 1] = (votes, total);
            barrier.generation = barrier.generation.wrapping_add(1);
            barrier.pending = false;
        }
    }

    /// Whether a phase is over; its true votes and votes in all.
    pub(super) fn passed(&self, id: u32, generation: u32) -> Option<(u32, u32)> {
        let barrier = &self.list[id as usize];
        (barrier.generation != generation).then(|| barrier.results[generation as usize & 1])
    }
}

/// Why a block stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockState {
    Done,
    /// Has work to do.
    Ready,
    /// All its threads wait for something outside of it.
    Polling,
    Fault,
}

/// Zeroed memory aligned for every access that shared memory takes.
#[derive(Debug, Default)]
struct Bytes(Vec<[u128; 8]>);

/// A block in execution. Reused for one block after another of the same launch.
#[derive(Debug)]
pub(super) struct Block {
    warps: Vec<Warp>,
    shared: Bytes,
    barriers: Barriers,
    index: [u32; 3],
    next: usize,
}

impl Block {
    /// Makes the warps of a launch's blocks.
    pub(super) fn new(job: &Job<'_>) -> Self {
        let threads = job.threads;
        let warps = threads.div_ceil(WARP as u32);
        Self {
            warps: (0..warps).map(|warp| Warp::new(job, warp)).collect(),
            shared: Bytes(vec![[0; 8]; job.shared_bytes.div_ceil(128) as usize + 1]),
            barriers: Barriers::new(Vec::new()),
            index: [0; 3],
            next: 0,
        }
    }

    /// Starts a block of the grid.
    pub(super) fn start(&mut self, job: &Job<'_>, index: u64) {
        let [x, y, _] = job.grid.map(u64::from);
        let narrow = |value: u64| u32::try_from(value).expect("below the grid's dimensions");
        self.index = [narrow(index % x), narrow(index / x % y), narrow(index / (x * y))];
        let threads = job.threads;
        let live = (0..self.warps.len() as u32)
            .map(|warp| match threads - warp * 32 {
                left @ 0..32 => (1 << left) - 1,
                _ => FULL,
            })
            .collect::<Vec<Mask>>();
        for (warp, live) in self.warps.iter_mut().zip(&live) {
            warp.start(job, self.index, *live);
        }
        self.barriers = Barriers::new(live);
        self.next = 0;
    }

    /// Runs warps in turn until the budget (in warp-instructions) is used, or nothing can be done.
    pub(super) fn run(&mut self, job: &Job<'_>, cx: &mut Cx<'_>, mut budget: u32) -> BlockState {
        cx.shared = self.shared.0.as_mut_ptr().cast();
        cx.shared_bytes = job.shared_bytes;
        cx.block = self.index;
        cx.barriers = &raw mut self.barriers;
        cx.phase = Phase::Whole;
        loop {
            let mut done = true;
            let mut progress = false;
            let mut ready = false;
            let mut polling = false;
            for _ in 0..self.warps.len() {
                let at = self.next;
                self.next = (self.next + 1) % self.warps.len();
                let before = self.warps[at].executed;
                let state = self.warps[at].run(job, cx, WARP_SLICE.min(budget.max(1)));
                let used = u32::try_from(self.warps[at].executed - before).unwrap_or(u32::MAX);
                budget = budget.saturating_sub(used);
                progress |= used > 0;
                match state {
                    WarpState::Done => {}
                    WarpState::Fault => return BlockState::Fault,
                    WarpState::Ready => (done, ready) = (false, true),
                    WarpState::Polling => (done, polling) = (false, true),
                    WarpState::Blocked => done = false,
                }
            }
            if done {
                return BlockState::Done;
            }
            if !progress {
                return self.deadlock(cx);
            }
            if polling && !ready {
                return BlockState::Polling;
            }
            if budget == 0 {
                return BlockState::Ready;
            }
        }
    }

    /// No warp can go on.
    fn deadlock(&self, cx: &mut Cx<'_>) -> BlockState {
        let stuck = self.warps.iter().find(|warp| !warp.done());
        let (warp, line) = stuck.map_or((0, 0), |warp| (warp.index, warp.waiting_line(cx.job)));
        cx.warp = warp;
        cx.fail(
            super::FaultKind::Deadlock,
            0,
            format!("no thread of the block can go on; warp {warp} waits at line {line} for threads that never come"),
        );
        BlockState::Fault
    }

    /// Thread-instructions executed since the last call.
    pub(super) fn take_executed(&mut self) -> u64 {
        self.warps.iter_mut().map(|warp| std::mem::take(&mut warp.thread_instructions)).sum()
    }
}
