//! Instructions at which lanes wait for each other.

use super::{Group, State, Warp};
use crate::exec::op::{Cx, Flow, Inst, Lanes, Mask, Phase, lane};

impl Warp {
    /// Runs an exchange for each set of lanes that name the same members.
    pub(super) fn members(&mut self, cx: &mut Cx<'_>, group: &Group, inst: &Inst, lanes: Mask) -> bool {
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

    /// Executes an instruction that lanes have been waiting for each other at, if all are there. An error after
    /// a fault.
    pub(super) fn converge(&mut self, cx: &mut Cx<'_>) -> Result<(), ()> {
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
