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

use std::rc::Rc;

use super::aux::{Callee, Data, Piece, Reduce};
use super::builtins;
use super::fault::FaultKind;
use super::launch::{ConstantPlace, Job};
use super::op::{Cx, FULL, Flow, Inst, Lanes, Mask, Phase, lane, set_lane, write_pred};
use super::{CODE_WINDOW, WARP};

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

    /// Runs an exchange for each set of lanes that name the same members.
    fn members(&mut self, cx: &mut Cx<'_>, group: &Group, inst: &Inst, lanes: Mask) -> bool {
        let mut left = lanes;
        while left != 0 {
            // SAFETY: the context points at the group's frame.
            let member = |at: usize| unsafe { lane::<u32>(cx, inst.c, at) };
            let wanted = member(left.trailing_zeros() as usize);
            let same =
                Lanes(left).filter(|at| member(*at) == wanted).fold(0, |mask: Mask, at| mask | 1 << at);
            left &= !same;
            // SAFETY: as above.
            match unsafe { (inst.run)(cx, inst, same) } {
                Flow::Next => self.put(group, same, group.pc + 1),
                Flow::Converge => {
                    let state = State::Converge { need: cx.wait_mask };
                    self.groups.push(Group { mask: same, state, ..group.clone() });
                }
                _ => return false,
            }
        }
        true
    }

    /// `alloca`, `stacksave`, `stackrestore`: all lanes of a group get the same addresses, for the largest request.
    fn stack(&mut self, job: &Job<'_>, cx: &mut Cx<'_>, mut group: Group, inst: &Inst, lanes: Mask) -> bool {
        let end = group.bases.local + job.program.functions[group.function as usize].frame_bytes;
        // SAFETY: the context points at the group's frame.
        let most =
            |cx: &Cx<'_>| Lanes(lanes).map(|at| unsafe { lane::<u64>(cx, inst.a, at) }).max().unwrap_or(0);
        let address = match inst.code {
            0 => {
                let align = inst.imm.cast_unsigned();
                let start = u64::from(end + group.stack).next_multiple_of(align);
                let top = start.saturating_add(most(cx)).next_multiple_of(8);
                if top > u64::from(job.stack_limit) {
                    let text = format!("alloca needs {top} bytes of stack");
                    cx.fail(FaultKind::StackOverflow, lanes.trailing_zeros() as usize, text);
                    return false;
                }
                self.grow_local(top as usize);
                group.stack = top as u32 - end;
                start
            }
            1 => u64::from(end + group.stack),
            _ => {
                let top = most(cx).clamp(u64::from(end), u64::from(end + group.stack));
                group.stack = top as u32 - end;
                0
            }
        };
        if inst.code < 2 {
            // SAFETY: as above.
            Lanes(lanes).for_each(|at| unsafe { set_lane(cx, inst.d, at, address) });
        }
        let pc = group.pc + 1;
        self.put(&group, lanes, pc);
        true
    }

    fn call(&mut self, job: &Job<'_>, cx: &mut Cx<'_>, group: &Group, inst: &Inst, lanes: Mask) -> bool {
        let Data::Call(site) = &cx.aux[inst.aux as usize].data else { return false };
        if let Callee::Builtin(builtin) = site.callee {
            if !builtins::call(job, cx, site, builtin, lanes) {
                return false;
            }
            self.put(group, lanes, group.pc + 1);
            return true;
        }
        let mut left = lanes;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            let target = cx.targets[lane];
            let same = Lanes(left).filter(|lane| cx.targets[*lane] == target);
            let same = same.fold(0, |mask: Mask, lane| mask | 1 << lane);
            left &= !same;
            let index = target.wrapping_sub(CODE_WINDOW) / 16;
            let known = usize::try_from(index).ok().filter(|at| *at < job.program.functions.len());
            let Some(callee) = known.filter(|_| target >= CODE_WINDOW && target.is_multiple_of(16)) else {
                cx.fail(
                    FaultKind::InvalidPc,
                    lane,
                    format!("call of address {target:#x}, which is no function"),
                );
                return false;
            };
            if !self.push_frame(job, cx, group, inst, (&site.args, callee), same) {
                return false;
            }
        }
        true
    }

    /// Makes a callee's frame for some lanes and puts them at its entry.
    fn push_frame(
        &mut self,
        job: &Job<'_>,
        cx: &mut Cx<'_>,
        group: &Group,
        inst: &Inst,
        (args, callee): (&[Piece], usize),
        lanes: Mask,
    ) -> bool {
        let caller = &job.program.functions[group.function as usize];
        let code = &job.program.functions[callee];
        let depth = group.depth() + 1;
        let bases = Bases {
            r32: group.bases.r32 + caller.sizes.r32,
            r64: group.bases.r64 + caller.sizes.r64,
            preds: group.bases.preds + caller.sizes.preds,
            local: (group.bases.local + caller.frame_bytes + group.stack).next_multiple_of(16),
        };
        let local = bases.local as usize + code.frame_bytes as usize;
        if depth > MAX_DEPTH || local > job.stack_limit as usize {
            let text = format!("call of {} at depth {depth} needs {local} bytes of stack", code.name);
            cx.fail(FaultKind::StackOverflow, lanes.trailing_zeros() as usize, text);
            return false;
        }
        let grow = |have: usize, need: usize| if need > have { need.max(have + have / 2) } else { have };
        let r32 = grow(self.r32.len(), (bases.r32 + code.sizes.r32) as usize);
        self.r32.resize(r32, Lanes32([0; WARP]));
        let r64 = grow(self.r64.len(), (bases.r64 + code.sizes.r64) as usize);
        self.r64.resize(r64, Lanes64([0; WARP]));
        let preds = grow(self.preds.len(), (bases.preds + code.sizes.preds) as usize);
        self.preds.resize(preds, 0);
        self.grow_local(local);
        self.set_constants(job, callee, bases, cx.block, lanes, ConstantPlace::All);
        for (arg, param) in args.iter().zip(&code.params) {
            let bytes = arg.bytes.min(param.bytes) as usize;
            self.copy_local(lanes, group.bases.local + arg.offset, bases.local + param.offset, bytes);
        }
        let frame = Frame {
            parent: group.frames.clone(),
            depth,
            function: group.function,
            bases: group.bases,
            stack: group.stack,
            return_pc: group.pc + 1,
            call: inst.aux,
        };
        self.groups.push(Group {
            pc: code.entry,
            mask: lanes,
            function: u32::try_from(callee).expect("few functions"),
            bases,
            stack: 0,
            frames: Some(Rc::new(frame)),
            state: State::Ready,
            turn: group.turn,
        });
        true
    }

    /// Copies results into the caller's frame.
    fn hand_back(&mut self, cx: &Cx<'_>, group: &Group, frame: &Frame, lanes: Mask) {
        let code = &cx.job.program.functions[group.function as usize];
        let Data::Call(site) = &cx.aux[frame.call as usize].data else { return };
        for (result, place) in code.returns.iter().zip(&site.returns) {
            let bytes = result.bytes.min(place.bytes) as usize;
            self.copy_local(
                lanes,
                group.bases.local + result.offset,
                frame.bases.local + place.offset,
                bytes,
            );
        }
    }

    fn copy_local(&mut self, lanes: Mask, from: u32, to: u32, bytes: usize) {
        let local: *mut u8 = self.local.as_mut_ptr().cast();
        for lane in Lanes(lanes) {
            let base = lane * self.stride;
            debug_assert!(to as usize + bytes <= self.stride && from as usize + bytes <= self.stride);
            // SAFETY: both places lie in frames inside the lane's local memory, which has `stride` bytes; frames
            // of caller and callee do not overlap, and `copy` would not mind.
            unsafe { std::ptr::copy(local.add(base + from as usize), local.add(base + to as usize), bytes) };
        }
    }

    /// Makes every lane's local memory at least this large.
    fn grow_local(&mut self, bytes: usize) {
        if bytes <= self.stride {
            return;
        }
        let stride = bytes.max(self.stride * 2).next_multiple_of(64);
        let mut local = vec![0u128; stride * WARP / 16];
        for lane in 0..WARP {
            let from = lane * self.stride / 16;
            local[lane * stride / 16..][..self.stride / 16]
                .copy_from_slice(&self.local[from..][..self.stride / 16]);
        }
        self.local = local;
        self.stride = stride;
    }

    /// Executes an instruction that lanes have been waiting for each other at, if all are there. An error after
    /// a fault.
    fn converge(&mut self, cx: &mut Cx<'_>) -> Result<(), ()> {
        if !self.groups.iter().any(|group| matches!(group.state, State::Converge { .. })) {
            return Ok(());
        }
        self.merge();
        for at in 0..self.groups.len() {
            let State::Converge { need } = self.groups[at].state else { continue };
            let run = cx.job.program.code[self.groups[at].pc as usize].run;
            let code = &cx.job.program.code;
            // Other groups at the same kind of instruction for the same lanes, wherever it stands in the code.
            let matching: Vec<usize> = (0..self.groups.len())
                .filter(|other| {
                    let group = &self.groups[*other];
                    group.state == State::Converge { need }
                        && std::ptr::fn_addr_eq(code[group.pc as usize].run, run)
                })
                .collect();
            let present = matching.iter().fold(0, |mask, at| mask | self.groups[*at].mask);
            if need & cx.live & !present != 0 {
                continue;
            }
            cx.participants = present;
            let phases: &[Phase] =
                if matching.len() == 1 { &[Phase::Whole] } else { &[Phase::Collect, Phase::Finish] };
            cx.votes = 0;
            for phase in phases {
                cx.phase = *phase;
                for at in &matching {
                    let (bases, pc, mask) =
                        (self.groups[*at].bases, self.groups[*at].pc, self.groups[*at].mask);
                    self.enter(cx, bases);
                    let inst = &code[pc as usize];
                    // SAFETY: the context points at the group's frame.
                    let flow = unsafe { (inst.run)(cx, inst, mask) };
                    if flow != Flow::Next {
                        cx.phase = Phase::Whole;
                        self.report(cx.job, cx, inst.line);
                        return Err(());
                    }
                    self.count(1, mask);
                }
            }
            cx.phase = Phase::Whole;
            for at in matching {
                self.groups[at].pc += 1;
                self.groups[at].state = State::Ready;
            }
        }
        Ok(())
    }
}
