//! Branches, returns, barriers of the block and what ends a thread (PTX ISA section "Control Flow", "bar").

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, Successors, Symbol, V};
use crate::exec::aux::{BarrierSite, Data, Reduce};
use crate::exec::fault::FaultKind;
use crate::exec::op::{BarrierWait, Cx, Exec, FULL, Flow, Inst, Lanes, Mask, common, lane, read_pred};
use crate::exec::special::Value;
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// An instruction that is nothing but its flow.
macro_rules! flow_only {
    ($name:ident, $flow:expr) => {
        struct $name;
        impl Exec for $name {
            #[inline(always)]
            unsafe fn exec(_: &mut Cx<'_>, _: &Inst, _: Mask) -> Flow {
                $flow
            }
        }
    };
}
flow_only!(Jump, Flow::Branch);
flow_only!(Return, Flow::Return);
flow_only!(Exit, Flow::Exit);
flow_only!(Pause, Flow::Yield);
flow_only!(Stack, Flow::Stack);

/// `trap`, `brkpt`.
struct Trap;
impl Exec for Trap {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let what = if inst.imm == 0 { "trap" } else { "brkpt" };
        cx.fail(FaultKind::Trap, mask.trailing_zeros() as usize, format!("{what} executed"))
    }
}

/// `brx.idx`: jumps through a table.
struct JumpTable;
impl Exec for JumpTable {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let Data::Jumps(targets) = &cx.aux[inst.aux as usize].data else {
            return cx.fail(FaultKind::IllegalInstruction, 0, "jump table is missing".to_owned());
        };
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            let index = unsafe { lane::<u32>(cx, inst.a, at) };
            match targets.get(index as usize) {
                Some(target) => cx.targets[at] = u64::from(*target),
                None => return cx.fail(FaultKind::InvalidPc, at, format!("brx.idx with index {index}")),
            }
        }
        Flow::BranchMany
    }
}

/// `bar`, `barrier`: notes what to wait for; the block does the rest.
struct Barrier;
impl Exec for Barrier {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        let Data::Barrier(site) = aux.data else {
            return cx.fail(FaultKind::IllegalInstruction, 0, "barrier without a description".to_owned());
        };
        let first = mask.trailing_zeros() as usize;
        // SAFETY: the caller's promise (`OpFn`).
        let (id, threads) = unsafe { (lane::<u32>(cx, inst.a, first), lane::<u32>(cx, inst.b, first)) };
        if id > 15 {
            return cx.fail(FaultKind::IllegalInstruction, first, format!("barrier {id} does not exist"));
        }
        if site.counted && (threads == 0 || !threads.is_multiple_of(32)) {
            let text =
                format!("barrier {id} for {threads} threads, which is not a multiple of the warp size");
            return cx.fail(FaultKind::IllegalInstruction, first, text);
        }
        let votes = match aux.uses.first() {
            // SAFETY: as above.
            Some(slot) => unsafe { read_pred(cx, *slot) ^ if site.negated { FULL } else { 0 } },
            None => 0,
        };
        cx.wait = BarrierWait {
            id,
            threads: site.counted.then_some(threads),
            arrive_only: site.arrive,
            votes: votes & mask,
        };
        Flow::Barrier
    }
}

impl<'a> Lower<'_, 'a> {
    fn label(&mut self, name: &str) -> Result<u32> {
        match self.lookup(name) {
            Some(Symbol::Label(label)) => Ok(label),
            _ => self.error(format!("{name} is not a label")),
        }
    }

    /// Lowers control flow; false when the opcode belongs elsewhere.
    pub(super) fn control(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "bra" => {
                m.flag("uni");
                let Operand::Name(name) = self.operand(i, 0)? else { return m.error("a label is expected") };
                let label = self.label(name)?;
                let low = self.emit(common::<Jump>(), V::NONE, [V::NONE; 3], 0);
                low.next = Successors::Jump(label);
            }
            "brx" => {
                m.flag("idx");
                m.flag("uni");
                let a = self.src(i, 0, Ty::U32)?;
                let Operand::Name(name) = self.operand(i, 1)? else { return m.error("targets are expected") };
                let Some(Symbol::Targets(names)) = self.lookup(name) else {
                    return self.error(format!("{name} is not a list of targets"));
                };
                let labels = names.iter().map(|name| self.label(name)).collect::<Result<Vec<_>>>()?;
                // The list of jumps is filled in when instructions have their final places.
                let aux = AuxLow { data: Data::Jumps(Vec::new()), ..AuxLow::default() };
                let low = self.emit_aux(common::<JumpTable>(), V::NONE, [a, V::NONE, V::NONE], 0, aux);
                low.next = Successors::Many(labels);
            }
            "ret" => {
                m.flag("uni");
                self.emit_return()?;
            }
            "exit" => {
                self.emit(common::<Exit>(), V::NONE, [V::NONE; 3], 0).next = Successors::End;
            }
            "trap" | "brkpt" => {
                let imm = i64::from(i.opcode == "brkpt");
                self.emit(common::<Trap>(), V::NONE, [V::NONE; 3], imm);
            }
            "call" => self.call(i, m)?,
            "bar" | "barrier" => {
                if m.has("warp") {
                    return Ok(false);
                }
                if m.flag("cluster") {
                    // A cluster has one block: its barrier is that of the block's threads with id 0 of its own.
                    m.drop_if(|name| matches!(name, "aligned" | "acquire" | "release" | "relaxed"));
                    return self.cluster_barrier(m);
                }
                self.barrier(i, m)?;
            }
            "nanosleep" => {
                m.ty()?;
                self.emit(common::<Pause>(), V::NONE, [V::NONE; 3], 0);
            }
            "alloca" => {
                let ty = m.ty()?;
                if ty.bytes() != 8 {
                    return m.error("addresses have 64 bits");
                }
                let align = match i.operands.get(2) {
                    None => 8,
                    Some(Operand::Number(number)) => self.number(*number, Ty::U32)?,
                    Some(_) => return m.error("the alignment must be a number"),
                };
                if !align.is_power_of_two() || align > 1 << 20 {
                    return m.error("the alignment is not a power of two");
                }
                let a = self.src(i, 1, ty)?;
                let d = self.dst(i, 0, ty)?;
                self.emit(common::<Stack>(), d, [a, V::NONE, V::NONE], i64::try_from(align).unwrap_or(8));
            }
            "stacksave" => {
                let ty = m.ty()?;
                let d = self.dst(i, 0, ty)?;
                if ty.bytes() != 8 {
                    return m.error("addresses have 64 bits");
                }
                self.emit(common::<Stack>(), d, [V::NONE; 3], 0).code = 1;
            }
            "stackrestore" => {
                let ty = m.ty()?;
                let a = self.src(i, 0, ty)?;
                if ty.bytes() != 8 {
                    return m.error("addresses have 64 bits");
                }
                self.emit(common::<Stack>(), V::NONE, [a, V::NONE, V::NONE], 0).code = 2;
            }
            // Hints and events without effect on results.
            "pmevent" | "griddepcontrol" | "setmaxnreg" => {
                m.drop_if(|_| true);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `ret`: old-style register results go to their places first; in a kernel it ends the thread.
    pub(super) fn emit_return(&mut self) -> Result<()> {
        if self.entry {
            self.emit(common::<Exit>(), V::NONE, [V::NONE; 3], 0).next = Successors::End;
            return Ok(());
        }
        for (symbol, ty, offset) in self.return_symbols.clone() {
            let Symbol::Register(v, _) = symbol else {
                return self.error("vector results in registers are not supported");
            };
            self.store_formal(v, ty, offset);
        }
        self.emit(common::<Return>(), V::NONE, [V::NONE; 3], 0).next = Successors::End;
        Ok(())
    }

    fn barrier(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        m.flag("cta");
        m.flag("aligned");
        let arrive = m.flag("arrive");
        let red = m.flag("red");
        if !arrive && !red && !m.flag("sync") {
            return m.error("one of .sync, .arrive and .red is missing");
        }
        let reduce = if red {
            match m.one_of(&["popc", "and", "or"]) {
                Some("popc") => Reduce::Popc,
                Some("and") => Reduce::And,
                Some("or") => Reduce::Or,
                _ => return m.error("the reduction is missing"),
            }
        } else {
            Reduce::None
        };
        if red {
            m.ty()?;
        }
        // Operands: [d,] a [, b] [, p].
        let mut at = usize::from(red);
        let a = self.src(i, at, Ty::U32)?;
        at += 1;
        let counted = i.operands.len() > at + usize::from(red);
        let b = if counted {
            at += 1;
            self.src(i, at - 1, Ty::U32)?
        } else {
            self.constant(Class::R32, Value::Bits(0))
        };
        if arrive && !counted {
            return m.error("the number of threads is missing");
        }
        let mut aux = AuxLow::default();
        let mut negated = false;
        let mut d = V::NONE;
        if red {
            let (p, not) = self.predicate(self.operand(i, at)?)?;
            negated = not;
            aux.uses.push(p);
            d = self.dst(i, 0, if reduce == Reduce::Popc { Ty::U32 } else { Ty::Pred })?;
        }
        aux.data = Data::Barrier(BarrierSite { counted, arrive, reduce, negated });
        let low = self.emit_aux(common::<Barrier>(), d, [a, b, V::NONE], 0, aux);
        // The result is written after the wait, lane by lane.
        low.keeps = true;
        Ok(())
    }

    /// `barrier.cluster.arrive` does nothing on its own; `.wait` is where threads meet, at a barrier of its own.
    fn cluster_barrier(&mut self, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        if m.flag("arrive") {
            return Ok(true);
        }
        if !m.flag("wait") {
            return m.error("one of .arrive and .wait is missing");
        }
        let zero = self.constant(Class::R32, Value::Bits(0));
        let id = self.constant(Class::R32, Value::Bits(u64::from(crate::exec::block::CLUSTER_BARRIER)));
        let site = BarrierSite { counted: false, arrive: false, reduce: Reduce::None, negated: false };
        let aux = AuxLow { data: Data::Barrier(site), ..AuxLow::default() };
        self.emit_aux(common::<ClusterBarrier>(), V::NONE, [id, zero, V::NONE], 0, aux);
        Ok(true)
    }
}

/// The wait of a cluster's barrier.
struct ClusterBarrier;
impl Exec for ClusterBarrier {
    unsafe fn exec(cx: &mut Cx<'_>, _: &Inst, _: Mask) -> Flow {
        cx.wait = BarrierWait {
            id: crate::exec::block::CLUSTER_BARRIER,
            threads: None,
            arrive_only: false,
            votes: 0,
        };
        Flow::Barrier
    }
}
