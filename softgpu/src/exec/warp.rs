//! A warp: 32 lanes in groups that share a program counter.
//!
//! Lanes that diverge form groups; the group with the deepest call and the lowest program counter runs first,
//! and groups at the same place merge, so that lanes reconverge where paths join. A group that runs long while
//! others wait, or that polls memory, gives way, so that lanes which wait for each other (spin locks) progress.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "program counters and slots are 32-bit numbers held in wider ones"
)]

mod calls;
mod converge;

use std::rc::Rc;

use super::WARP;
use super::aux::{Data, Reduce};
use super::fault::FaultKind;
use super::launch::{ConstantPlace, Job};
use super::op::{Cx, FULL, Flow, Inst, Lanes, Mask, set_lane, write_pred};

/// Instructions that a group runs while other groups of the warp could run too.
const GROUP_SLICE: u32 = 1 << 10;
/// Polls of memory after which a warp is taken to wait for others.
const POLLS: u32 = 16;
/// Most calls inside each other, whatever their frames' size.
const MAX_DEPTH: u32 = 4096;

/// A slot of 32 lanes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Lanes32([u32; WARP]);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Lanes64([u64; WARP]);

/// Where a function's registers and local variables begin, in slots and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bases {
    r32: u32,
    r64: u32,
    preds: u32,
    local: u32,
}

/// The caller of a running function.
#[derive(Debug)]
struct Frame {
    parent: Option<Rc<Self>>,
    depth: u32,
    /// The caller's function and registers.
    function: u32,
    bases: Bases,
    stack: u32,
    /// Where it goes on, and the call that it made.
    return_pc: u32,
    call: u32,
}

/// What a group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Waits for a phase of a block barrier.
    Barrier {
        id: u32,
        generation: u32,
    },
    /// Waits until the lanes of a mask execute the same kind of instruction.
    Converge {
        need: Mask,
    },
}

#[derive(Debug, Clone)]
struct Group {
    pc: u32,
    mask: Mask,
    function: u32,
    bases: Bases,
    /// Bytes of stack behind the frame that `alloca` has taken.
    stack: u32,
    frames: Option<Rc<Frame>>,
    state: State,
    /// When it last ran, for turns.
    turn: u64,
}

impl Group {
    fn depth(&self) -> u32 {
        self.frames.as_ref().map_or(0, |frame| frame.depth)
    }

    /// Whether another group has the same calls behind it.
    fn same_frames(&self, other: &Self) -> bool {
        let (mut a, mut b) = (&self.frames, &other.frames);
        loop {
            match (a, b) {
                (None, None) => return true,
                (Some(x), Some(y)) => {
                    if Rc::ptr_eq(x, y) {
                        return true;
                    }
                    if x.return_pc != y.return_pc || x.depth != y.depth || x.bases != y.bases {
                        return false;
                    }
                    (a, b) = (&x.parent, &y.parent);
                }
                _ => return false,
            }
        }
    }
}

/// Why a warp stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WarpState {
    Done,
    Ready,
    /// Runs, but only to look whether something has changed.
    Polling,
    /// Waits for other warps.
    Blocked,
    Fault,
}

/// A warp in execution; its storage is reused for one block after another.
#[derive(Debug)]
pub(super) struct Warp {
    pub(super) index: u32,
    r32: Vec<Lanes32>,
    r64: Vec<Lanes64>,
    preds: Vec<Mask>,
    local: Vec<u128>,
    /// Bytes of local memory per lane.
    stride: usize,
    groups: Vec<Group>,
    live: Mask,
    carry: Mask,
    turn: u64,
    /// Warp-instructions executed in all.
    pub(super) executed: u64,
    /// Thread-instructions not yet reported.
    pub(super) thread_instructions: u64,
}

impl Warp {
    /// Makes a warp of a launch: registers of the kernel's frame, with the constants that hold for every block.
    pub(super) fn new(job: &Job<'_>, index: u32) -> Self {
        let code = &job.program.functions[job.function];
        let stride = (code.frame_bytes as usize).next_multiple_of(16);
        let mut warp = Self {
            index,
            r32: vec![Lanes32([0; WARP]); code.sizes.r32 as usize],
            r64: vec![Lanes64([0; WARP]); code.sizes.r64 as usize],
            preds: vec![0; code.sizes.preds as usize],
            local: vec![0; stride * WARP / 16],
            stride,
            groups: Vec::new(),
            live: 0,
            carry: 0,
            turn: 0,
            executed: 0,
            thread_instructions: 0,
        };
        warp.set_constants(job, job.function, Bases::default(), [0; 3], FULL, ConstantPlace::All);
        warp
    }

    /// Puts the lanes at the kernel's entry.
    pub(super) fn start(&mut self, job: &Job<'_>, block: [u32; 3], live: Mask) {
        self.set_constants(job, job.function, Bases::default(), block, FULL, ConstantPlace::PerBlock);
        self.live = live;
        self.carry = 0;
        self.groups.clear();
        self.groups.push(Group {
            pc: job.program.functions[job.function].entry,
            mask: live,
            function: u32::try_from(job.function).expect("few functions"),
            bases: Bases::default(),
            stack: 0,
            frames: None,
            state: State::Ready,
            turn: 0,
        });
    }

    pub(super) fn done(&self) -> bool {
        self.groups.is_empty()
    }

    /// Line of an instruction that a lane waits at.
    pub(super) fn waiting_line(&self, job: &Job<'_>) -> u32 {
        self.groups
            .first()
            .and_then(|group| job.program.code.get(group.pc as usize))
            .map_or(0, |inst| inst.line)
    }

    /// Sets a function's constant slots for the masked lanes.
    fn set_constants(
        &mut self,
        job: &Job<'_>,
        function: usize,
        bases: Bases,
        block: [u32; 3],
        mask: Mask,
        place: ConstantPlace,
    ) {
        for constant in job.constants(function, place) {
            if !constant.value.differs_in_warp() {
                // One value for all lanes.
                let value = job.constant(constant.value, self.index, 0, block);
                match constant.class {
                    super::lower::Class::R32 => {
                        let slot = &mut self.r32[(bases.r32 + constant.element / 32) as usize].0;
                        Lanes(mask).for_each(|lane| slot[lane] = value as u32);
                    }
                    super::lower::Class::R64 => {
                        let slot = &mut self.r64[(bases.r64 + constant.element / 32) as usize].0;
                        Lanes(mask).for_each(|lane| slot[lane] = value);
                    }
                    super::lower::Class::Pred => {}
                }
                continue;
            }
            match constant.class {
                super::lower::Class::R32 => {
                    let slot = &mut self.r32[(bases.r32 + constant.element / 32) as usize].0;
                    for lane in Lanes(mask) {
                        slot[lane] = job.constant(constant.value, self.index, lane, block) as u32;
                    }
                }
                super::lower::Class::R64 => {
                    let slot = &mut self.r64[(bases.r64 + constant.element / 32) as usize].0;
                    for lane in Lanes(mask) {
                        slot[lane] = job.constant(constant.value, self.index, lane, block);
                    }
                }
                super::lower::Class::Pred => {}
            }
        }
    }

    /// Points the context at a group's frame.
    fn enter(&mut self, cx: &mut Cx<'_>, bases: Bases) {
        cx.r32 = self.r32.as_mut_ptr().wrapping_add(bases.r32 as usize).cast();
        cx.r64 = self.r64.as_mut_ptr().wrapping_add(bases.r64 as usize).cast();
        cx.pr = self.preds.as_mut_ptr().wrapping_add(bases.preds as usize);
        cx.local = self.local.as_mut_ptr().cast();
        cx.local_stride = self.stride;
        cx.local_base = bases.local;
    }

    /// Runs until the budget is used or no group can go on.
    pub(super) fn run(&mut self, job: &Job<'_>, cx: &mut Cx<'_>, budget: u32) -> WarpState {
        if self.groups.is_empty() {
            return WarpState::Done;
        }
        cx.warp = self.index;
        cx.live = self.live;
        cx.carry = self.carry;
        cx.polls = 0;
        let mut left = budget;
        let mut polled = false;
        let state = loop {
            if self.groups.is_empty() {
                break WarpState::Done;
            }
            if self.groups.iter().any(|group| group.state != State::Ready) {
                self.wake(cx);
                if self.converge(cx).is_err() {
                    break WarpState::Fault;
                }
            }
            let Some(at) = self.select(polled) else { break WarpState::Blocked };
            if left == 0 {
                break if polled { WarpState::Polling } else { WarpState::Ready };
            }
            let group = self.groups.swap_remove(at);
            let slice = if self.groups.is_empty() { left } else { left.min(GROUP_SLICE) };
            let (used, fine) = self.run_group(job, cx, group, slice);
            left = left.saturating_sub(used);
            if !fine {
                break WarpState::Fault;
            }
            polled = cx.polls > POLLS;
            if polled {
                cx.polls = 0;
                if self.groups.iter().filter(|group| group.state == State::Ready).count() < 2 {
                    break WarpState::Polling;
                }
                left = left.saturating_sub(GROUP_SLICE);
            }
        };
        self.live = cx.live;
        self.carry = cx.carry;
        state
    }

    /// Frees groups whose barrier has been passed, and hands them the results of reductions.
    fn wake(&mut self, cx: &mut Cx<'_>) {
        for at in 0..self.groups.len() {
            let State::Barrier { id, generation } = self.groups[at].state else { continue };
            // SAFETY: the block set the pointer for as long as its warps run, and nothing else refers to the barriers meanwhile.
            let passed = unsafe { (*cx.barriers).passed(id, generation) };
            let Some((votes, total)) = passed else { continue };
            let (bases, mask, pc) = (self.groups[at].bases, self.groups[at].mask, self.groups[at].pc);
            let inst = &cx.job.program.code[pc as usize];
            if let Data::Barrier(site) = cx.aux[inst.aux as usize].data
                && site.reduce != Reduce::None
                && id < super::block::CLUSTER_BARRIER
            {
                self.enter(cx, bases);
                let truth = match site.reduce {
                    Reduce::And => votes == total,
                    _ => votes != 0,
                };
                // SAFETY: the context points at the frame of the barrier instruction.
                unsafe {
                    if site.reduce == Reduce::Popc {
                        Lanes(mask).for_each(|lane| set_lane(cx, inst.d, lane, votes));
                    } else {
                        write_pred(cx, inst.d, mask, if truth { FULL } else { 0 });
                    }
                }
            }
            let group = &mut self.groups[at];
            group.pc += 1;
            group.state = State::Ready;
        }
    }

    /// Merges ready groups at the same place, then chooses which one runs: normally the deepest and lowest, the
    /// one that waited longest when `turn` is set or the usual one has had its share.
    fn select(&mut self, polled: bool) -> Option<usize> {
        if self.groups.len() == 1 {
            return (self.groups[0].state == State::Ready).then_some(0);
        }
        self.merge();
        let ready = |group: &&Group| group.state == State::Ready;
        let first = (0..self.groups.len())
            .filter(|at| ready(&&self.groups[*at]))
            .min_by_key(|at| (std::cmp::Reverse(self.groups[*at].depth()), self.groups[*at].pc))?;
        let oldest = (0..self.groups.len())
            .filter(|at| ready(&&self.groups[*at]))
            .min_by_key(|at| self.groups[*at].turn)?;
        // Turns count slices: a group that others have kept waiting for many slices goes first.
        let starved = self.turn.saturating_sub(self.groups[oldest].turn) > 64;
        Some(if polled || starved { oldest } else { first })
    }

    fn merge(&mut self) {
        let mut at = 0;
        while at < self.groups.len() {
            let mut other = at + 1;
            while other < self.groups.len() {
                let (a, b) = (&self.groups[at], &self.groups[other]);
                if a.pc == b.pc && a.state == b.state && a.bases == b.bases && a.same_frames(b) {
                    let gone = self.groups.swap_remove(other);
                    let group = &mut self.groups[at];
                    group.mask |= gone.mask;
                    group.turn = group.turn.min(gone.turn);
                    group.stack = group.stack.max(gone.stack);
                } else {
                    other += 1;
                }
            }
            at += 1;
        }
    }

    /// The lowest program counter ahead of `pc` where another group could be joined.
    fn meeting_point(&self, group: &Group) -> u32 {
        let ahead = |other: &&Group| {
            other.state == State::Ready && other.pc > group.pc && other.depth() == group.depth()
        };
        self.groups.iter().filter(ahead).map(|other| other.pc).min().unwrap_or(u32::MAX)
    }

    /// Runs one group until it meets another, splits, waits, ends or has used its slice. Returns the instructions
    /// used, and false after a fault.
    fn run_group(&mut self, job: &Job<'_>, cx: &mut Cx<'_>, mut group: Group, slice: u32) -> (u32, bool) {
        self.enter(cx, group.bases);
        let alone = self.groups.is_empty();
        let mut meeting = if alone { u32::MAX } else { self.meeting_point(&group) };
        let code = &job.program.code[..];
        let mut used = 0;
        let mask = group.mask;
        let mut pc = group.pc;
        self.turn += 1;
        group.turn = self.turn;
        let outcome = loop {
            if used >= slice || pc == meeting {
                break Ok(());
            }
            let inst = &code[pc as usize];
            let mut lanes = mask;
            if inst.guard != 0 {
                // SAFETY: predicate slots of the running frame are in bounds.
                let bits = unsafe { *cx.pr.add((inst.guard - 1) as usize / 2) };
                lanes &= if inst.guard & 1 != 0 { bits } else { !bits };
                if lanes == 0 {
                    pc += 1;
                    used += 1;
                    continue;
                }
            }
            used += 1;
            // SAFETY: `enter` pointed the context at the frame that this code belongs to.
            let flow = unsafe { (inst.run)(cx, inst, lanes) };
            match flow {
                Flow::Next => pc += 1,
                Flow::Branch if lanes == mask => {
                    let back = inst.imm as u32 <= pc;
                    pc = inst.imm as u32;
                    if !alone {
                        group.pc = pc;
                        if !back {
                            // Others may be behind now.
                            break Ok(());
                        }
                        meeting = self.meeting_point(&group);
                    }
                }
                Flow::Fault => break Err(inst),
                _ => {
                    group.pc = pc;
                    if !self.leave(job, cx, group, inst, lanes, flow) {
                        self.count(used, mask);
                        let line = inst.line;
                        self.report(job, cx, line);
                        return (used, false);
                    }
                    self.count(used, mask);
                    return (used, true);
                }
            }
        };
        self.count(used, mask);
        match outcome {
            Ok(()) => {
                group.pc = pc;
                self.groups.push(group);
                (used, true)
            }
            Err(inst) => {
                self.report(job, cx, inst.line);
                (used, false)
            }
        }
    }

    fn count(&mut self, used: u32, mask: Mask) {
        self.executed += u64::from(used);
        self.thread_instructions += u64::from(used) * u64::from(mask.count_ones());
    }

    fn report(&self, job: &Job<'_>, cx: &mut Cx<'_>, line: u32) {
        if let Some(raw) = cx.fault.take() {
            job.report(&raw, self.index, cx.block, line);
        }
    }

    /// Puts lanes of a group elsewhere.
    fn put(&mut self, group: &Group, mask: Mask, pc: u32) {
        if mask != 0 {
            self.groups.push(Group { mask, pc, ..group.clone() });
        }
    }

    /// Handles an instruction that does more than go on; false after a fault.
    fn leave(
        &mut self,
        job: &Job<'_>,
        cx: &mut Cx<'_>,
        group: Group,
        inst: &Inst,
        lanes: Mask,
        flow: Flow,
    ) -> bool {
        let pc = group.pc;
        let rest = group.mask & !lanes;
        match flow {
            Flow::Branch => {
                self.put(&group, rest, pc + 1);
                self.put(&group, lanes, inst.imm as u32);
            }
            Flow::BranchMany => {
                self.put(&group, rest, pc + 1);
                let mut left = lanes;
                while left != 0 {
                    let target = cx.targets[left.trailing_zeros() as usize];
                    let same = Lanes(left).filter(|lane| cx.targets[*lane] == target);
                    let same = same.fold(0, |mask: Mask, lane| mask | 1 << lane);
                    self.put(&group, same, target as u32);
                    left &= !same;
                }
            }
            Flow::Exit => {
                self.put(&group, rest, pc + 1);
                cx.live &= !lanes;
                // SAFETY: as in `wake`.
                unsafe { (*cx.barriers).exit(self.index, cx.live) };
            }
            Flow::Yield => {
                cx.polls += POLLS + 1;
                self.put(&group, group.mask, pc + 1);
            }
            Flow::Barrier => {
                self.put(&group, rest, pc + 1);
                let wait = cx.wait;
                // SAFETY: as in `wake`.
                let generation = unsafe { (*cx.barriers).arrive(self.index, lanes, wait) };
                if wait.arrive_only {
                    self.put(&group, lanes, pc + 1);
                } else {
                    let state = State::Barrier { id: wait.id, generation };
                    self.groups.push(Group { mask: lanes, state, ..group });
                }
            }
            Flow::Converge => {
                self.put(&group, rest, pc + 1);
                let state = State::Converge { need: cx.wait_mask };
                self.groups.push(Group { mask: lanes, state, ..group });
            }
            Flow::Members => {
                self.put(&group, rest, pc + 1);
                return self.members(cx, &group, inst, lanes);
            }
            Flow::Stack => {
                self.put(&group, rest, pc + 1);
                return self.stack(job, cx, group, inst, lanes);
            }
            Flow::Call => {
                self.put(&group, rest, pc + 1);
                return self.call(job, cx, &group, inst, lanes);
            }
            Flow::Return => {
                self.put(&group, rest, pc + 1);
                let Some(frame) = group.frames.clone() else {
                    // A device function entered without a call cannot be.
                    cx.fail(FaultKind::InvalidPc, 0, "return without a call".to_owned());
                    return false;
                };
                self.hand_back(cx, &group, &frame, lanes);
                self.groups.push(Group {
                    pc: frame.return_pc,
                    mask: lanes,
                    function: frame.function,
                    bases: frame.bases,
                    stack: frame.stack,
                    frames: frame.parent.clone(),
                    state: State::Ready,
                    turn: group.turn,
                });
            }
            Flow::Next | Flow::Fault => {}
        }
        true
    }
}
