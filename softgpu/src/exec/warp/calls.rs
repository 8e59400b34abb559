//! Calls, frames and the stack of local memory.

use std::rc::Rc;

use super::{Bases, Frame, Group, Lanes32, Lanes64, MAX_DEPTH, State, Warp};
use crate::exec::aux::{Callee, Data, Piece};
use crate::exec::builtins;
use crate::exec::fault::FaultKind;
use crate::exec::launch::{ConstantPlace, Job};
use crate::exec::op::{Cx, Inst, Lanes, Mask, lane, set_lane};
use crate::exec::{CODE_WINDOW, WARP};

impl Warp {
    /// `alloca`, `stacksave`, `stackrestore`: all lanes of a group get the same addresses, for the largest request.
    pub(super) fn stack(
        &mut self,
        job: &Job<'_>,
        cx: &mut Cx<'_>,
        mut group: Group,
        inst: &Inst,
        lanes: Mask,
    ) -> bool {
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

    pub(super) fn call(
        &mut self,
        job: &Job<'_>,
        cx: &mut Cx<'_>,
        group: &Group,
        inst: &Inst,
        lanes: Mask,
    ) -> bool {
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
    pub(super) fn hand_back(&mut self, cx: &Cx<'_>, group: &Group, frame: &Frame, lanes: Mask) {
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
}
