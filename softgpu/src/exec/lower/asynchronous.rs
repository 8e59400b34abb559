//! Asynchronous copies, mbarriers and addresses in a cluster (PTX ISA: cp.async, cp.async.bulk, mbarrier, mapa).
//!
//! Copies are done at once, so waiting for them is nothing; an mbarrier is a word in shared memory that the block's one
//! thread updates. Clusters have one block, hence `shared::cluster` addresses are `shared::cta` addresses.

#![expect(clippy::cast_possible_truncation, reason = "fields of a packed word")]

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::exec::fault::FaultKind;
use crate::exec::memory_ops::{SpaceName, refuse};
use crate::exec::op::{
    Cx, Exec, Flow, Inst, Lanes, Mask, common, lane, op1, read_pred, set_lane, write_pred,
};
use crate::exec::place::{GlobalPlace, Place, SharedPlace, aligned};
use crate::exec::special::Value;
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// The 64-bit state of an mbarrier: arrivals pending in this phase, arrivals expected in each phase, bytes of
/// asynchronous copies outstanding (signed), and the parity of the phase. The layout is the engine's own; programs
/// only hand it around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    pending: u32,
    expected: u32,
    bytes: i32,
    phase: bool,
}

impl State {
    fn unpack(word: u64) -> Self {
        Self {
            pending: (word & 0xf_ffff) as u32,
            expected: (word >> 20 & 0xf_ffff) as u32,
            bytes: ((word >> 40 & 0x7f_ffff) << 41).cast_signed().wrapping_shr(41) as i32,
            phase: word >> 63 != 0,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.pending & 0xf_ffff)
            | u64::from(self.expected & 0xf_ffff) << 20
            | (u64::from(self.bytes.cast_unsigned()) & 0x7f_ffff) << 40
            | u64::from(self.phase) << 63
    }

    /// Ends the phase if nothing is outstanding.
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase = !self.phase;
            self.pending = self.expected;
        }
    }
}

/// What an mbarrier instruction does; in `Inst::imm`.
const INIT: i64 = 0;
const INVAL: i64 = 1;
const ARRIVE: i64 = 2;
const ARRIVE_DROP: i64 = 3;
const EXPECT_TX: i64 = 4;
const COMPLETE_TX: i64 = 5;
const TEST_STATE: i64 = 6;
const TEST_PARITY: i64 = 7;
const PENDING: i64 = 8;
const ARRIVE_EXPECT_TX: i64 = 9;
const ARRIVE_NO_COMPLETE: i64 = 10;

/// `mbarrier.*`: address `a` (64-bit offset), count or parity `b`, state `c`; result `d` (state) or `defs[0]` (predicate).
struct Mbarrier;
impl Exec for Mbarrier {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let mut done = 0;
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = shared_offset(lane::<u64>(cx, inst.a, at));
                let word = match aligned::<SharedPlace>(cx, at, address, 8) {
                    Ok(word) => word.cast::<u64>(),
                    Err(bad) => return refuse(cx, bad, "mbarrier", SharedPlace::NAME, at, 8),
                };
                let count = lane::<u32>(cx, inst.b, at);
                let mut state = State::unpack(word.read());
                let before = state.pack();
                match inst.imm {
                    INIT => state = State { pending: count, expected: count, bytes: 0, phase: false },
                    INVAL => state = State { pending: 0, expected: 0, bytes: 0, phase: false },
                    EXPECT_TX => state.bytes += count.cast_signed(),
                    COMPLETE_TX => {
                        state.bytes -= count.cast_signed();
                        state.settle();
                    }
                    ARRIVE | ARRIVE_DROP | ARRIVE_EXPECT_TX | ARRIVE_NO_COMPLETE => {
                        let arrivals = if inst.imm == ARRIVE_EXPECT_TX { 1 } else { count };
                        if inst.imm == ARRIVE_EXPECT_TX {
                            state.bytes += count.cast_signed();
                        }
                        if arrivals > state.pending {
                            let text =
                                format!("mbarrier: {arrivals} arrivals where {} are pending", state.pending);
                            return cx.fail(FaultKind::IllegalInstruction, at, text);
                        }
                        state.pending -= arrivals;
                        if inst.imm == ARRIVE_DROP {
                            state.expected -= arrivals.min(state.expected);
                        }
                        if inst.imm != ARRIVE_NO_COMPLETE {
                            state.settle();
                        }
                        set_lane(cx, inst.d, at, before);
                    }
                    TEST_STATE => {
                        let then = State::unpack(lane::<u64>(cx, inst.c, at));
                        done |= u32::from(then.phase != state.phase) << at;
                    }
                    TEST_PARITY => done |= u32::from((count & 1 != 0) != state.phase) << at,
                    _ => {}
                }
                word.write(state.pack());
            }
        }
        if matches!(inst.imm, TEST_STATE | TEST_PARITY) {
            // SAFETY: as above.
            unsafe { write_pred(cx, cx.aux[inst.aux as usize].defs[0], mask, done) };
            if done != mask {
                return Flow::Yield;
            }
        }
        Flow::Next
    }
}

/// `mbarrier.pending_count d, state`.
struct PendingCount;
impl Exec for PendingCount {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { set_lane(cx, inst.d, at, State::unpack(lane::<u64>(cx, inst.a, at)).pending) };
        }
        Flow::Next
    }
}

/// Shared addresses may come as offsets or as generic addresses in the window.
fn shared_offset(address: u64) -> u64 {
    use crate::exec::{SHARED_WINDOW, WINDOW_BYTES};
    if (SHARED_WINDOW..SHARED_WINDOW + WINDOW_BYTES).contains(&address) {
        address - SHARED_WINDOW
    } else {
        address
    }
}

/// Copies between spaces: to `a`, from `b`, `uses[0]` bytes of which the first `uses[1]` are read and the rest is zero;
/// `code` 1: the predicate in `uses[2]` says that nothing is read; `imm` is the alignment.
struct Copy<T, F>(std::marker::PhantomData<(T, F)>);
impl<T: Place, F: Place> Exec for Copy<T, F> {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); both places are checked for all bytes they are used for.
            unsafe {
                let (to, from) = (lane::<u64>(cx, inst.a, at), lane::<u64>(cx, inst.b, at));
                let bytes = lane::<u32>(cx, aux.uses[0], at);
                let mut read = lane::<u32>(cx, aux.uses[1], at).min(bytes);
                if inst.code == 1 && (read_pred(cx, aux.uses[2]) >> at & 1 != 0) {
                    read = 0;
                }
                if bytes == 0 {
                    continue;
                }
                let align = inst.imm.cast_unsigned() - 1;
                if (to | from) & align != 0 {
                    let bad = crate::exec::place::Bad {
                        kind: FaultKind::MisalignedAddress,
                        address: if to & align != 0 { to } else { from },
                    };
                    return refuse(cx, bad, "cp.async", "global or shared", at, bytes);
                }
                let target = match T::locate(cx, at, to, bytes) {
                    Ok(target) => target,
                    Err(bad) => return refuse(cx, bad, "cp.async to", T::NAME, at, bytes),
                };
                if read > 0 {
                    match F::locate(cx, at, from, read) {
                        Ok(source) => std::ptr::copy(source, target, read as usize),
                        Err(bad) => return refuse(cx, bad, "cp.async from", F::NAME, at, read),
                    }
                }
                std::ptr::write_bytes(target.add(read as usize), 0, (bytes - read) as usize);
            }
        }
        Flow::Next
    }
}

impl<'a> Lower<'_, 'a> {
    /// Lowers asynchronous copies and mbarriers; false when the opcode belongs elsewhere.
    pub(super) fn asynchronous(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "cp" => self.cp(i, m)?,
            "mbarrier" => self.mbarrier(i, m)?,
            "mapa" => {
                // Only rank 0 exists.
                m.drop_if(|name| name.starts_with("shared"));
                let ty = m.ty()?;
                let a = self.src(i, 1, ty)?;
                let d = self.dst(i, 0, ty)?;
                let run = if ty.bytes() == 8 { op1(|a: u64| a) } else { op1(|a: u32| a) };
                self.emit(run, d, [a, V::NONE, V::NONE], 0);
            }
            "getctarank" => {
                m.drop_if(|name| name.starts_with("shared"));
                m.ty()?;
                let d = self.dst(i, 0, Ty::U32)?;
                let zero = self.constant(Class::R32, Value::Bits(0));
                self.emit(op1(|a: u32| a), d, [zero, V::NONE, V::NONE], 0);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn cp(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        if !m.flag("async") || m.has("reduce") || m.has("tensor") {
            return self.unsupported(i);
        }
        if m.flag("commit_group") || m.flag("wait_group") || m.flag("wait_all") {
            // Everything has been copied already.
            m.drop_if(|name| matches!(name, "bulk" | "read"));
            return Ok(());
        }
        if m.flag("mbarrier") {
            return self.cp_arrive(i, m);
        }
        if m.flag("bulk") {
            return self.cp_bulk(i, m);
        }
        m.drop_if(|name| matches!(name, "ca" | "cg") || name.starts_with("L2::") || name.starts_with("L1::"));
        m.drop_if(|name| matches!(name, "shared" | "shared::cta" | "global"));
        self.operand_count(i, 3, 5)?;
        let to = self.address_value(self.operand(i, 0)?, SpaceName::Shared)?;
        let from = self.address_value(self.operand(i, 1)?, SpaceName::Global)?;
        let Operand::Number(size) = *self.operand(i, 2)? else { return m.error("the size must be a number") };
        let size = self.number(size, Ty::U32)?;
        if !matches!(size, 4 | 8 | 16) {
            return m.error("the size must be 4, 8 or 16");
        }
        let bytes = self.constant(Class::R32, Value::Bits(size));
        let mut uses = vec![bytes, bytes];
        let mut code = 0;
        if let Some(extra) = i.operands.get(3) {
            // The bytes to read, a predicate to read none, or a cache policy (64 bits).
            match self.declared(extra) {
                Some(Ty::Pred) => {
                    let p = self.value(extra, Ty::Pred)?;
                    uses.push(p);
                    code = 1;
                }
                Some(ty) if ty.bytes() == 8 => {}
                _ if matches!(extra, Operand::Not(_)) => {
                    let p = self.value(extra, Ty::Pred)?;
                    uses.push(p);
                    code = 1;
                }
                _ => uses[1] = self.value(extra, Ty::U32)?,
            }
        }
        let aux = AuxLow { uses, ..AuxLow::default() };
        let imm = i64::try_from(size).unwrap_or(4);
        self.emit_aux(common::<Copy<SharedPlace, GlobalPlace>>(), V::NONE, [to, from, V::NONE], imm, aux)
            .code = code;
        Ok(())
    }

    /// `cp.async.mbarrier.arrive[.noinc]`: the copies are complete, so the arrival happens now; without `.noinc` it was
    /// announced by the same instruction and changes nothing.
    fn cp_arrive(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        m.flag("arrive");
        let no_increment = m.flag("noinc");
        m.drop_if(|name| name.starts_with("shared"));
        m.ty()?;
        if no_increment {
            let a = self.address_value(self.operand(i, 0)?, SpaceName::Shared)?;
            let one = self.constant(Class::R32, Value::Bits(1));
            let d = self.fresh(Class::R64);
            self.emit_aux(common::<Mbarrier>(), d, [a, one, V::NONE], ARRIVE, AuxLow::default());
        }
        Ok(())
    }

    /// `cp.async.bulk` without tensors: shared from global with an mbarrier, or global from shared.
    fn cp_bulk(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        if m.flag("prefetch") {
            m.drop_if(|_| true);
            return Ok(());
        }
        if m.has("multicast::cluster") {
            return self.unsupported(i);
        }
        let to_shared = m.take(|name| match name {
            "shared::cluster" | "shared::cta" => Some(true),
            "global" => Some(false),
            _ => None,
        });
        let from_shared = m.take(|name| match name {
            "shared::cta" => Some(true),
            "global" => Some(false),
            _ => None,
        });
        m.drop_if(|name| name.starts_with("L2::"));
        let barrier = m.flag("mbarrier::complete_tx::bytes");
        m.flag("bulk_group");
        let run = match (to_shared, from_shared) {
            (Some(true), Some(false)) => common::<Copy<SharedPlace, GlobalPlace>>(),
            (Some(true), Some(true)) => common::<Copy<SharedPlace, SharedPlace>>(),
            (Some(false), Some(true)) => common::<Copy<GlobalPlace, SharedPlace>>(),
            _ => return self.unsupported(i),
        };
        let space = |shared| if shared { SpaceName::Shared } else { SpaceName::Global };
        let to = self.address_value(self.operand(i, 0)?, space(to_shared == Some(true)))?;
        let from = self.address_value(self.operand(i, 1)?, space(from_shared == Some(true)))?;
        let bytes = self.src(i, 2, Ty::U32)?;
        let aux = AuxLow { uses: vec![bytes, bytes], ..AuxLow::default() };
        self.emit_aux(run, V::NONE, [to, from, V::NONE], 16, aux);
        if barrier {
            let a = self.address_value(self.operand(i, 3)?, SpaceName::Shared)?;
            let aux = AuxLow::default();
            self.emit_aux(common::<Mbarrier>(), V::NONE, [a, bytes, V::NONE], COMPLETE_TX, aux);
        }
        Ok(())
    }

    fn mbarrier(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let what = m.one_of(&[
            "init",
            "inval",
            "arrive",
            "arrive_drop",
            "expect_tx",
            "complete_tx",
            "test_wait",
            "try_wait",
            "pending_count",
        ]);
        let expect = matches!(what, Some("arrive" | "arrive_drop")) && m.flag("expect_tx");
        let no_complete = m.flag("noComplete");
        let parity = m.flag("parity");
        m.drop_if(|name| {
            name.starts_with("shared")
                || matches!(name, "acquire" | "release" | "relaxed" | "cta" | "cluster" | "sem" | "scope")
        });
        if m.ty()? != Ty::B64 {
            return m.error("mbarriers are .b64");
        }
        let Some(what) = what else { return m.error("the operation is missing") };
        if what == "pending_count" {
            let a = self.src(i, 1, Ty::B64)?;
            let d = self.dst(i, 0, Ty::U32)?;
            self.emit(common::<PendingCount>(), d, [a, V::NONE, V::NONE], PENDING);
            return Ok(());
        }
        let one = self.constant(Class::R32, Value::Bits(1));
        let run = common::<Mbarrier>();
        match what {
            "init" | "inval" | "expect_tx" | "complete_tx" => {
                let a = self.address_value(self.operand(i, 0)?, SpaceName::Shared)?;
                let b = if what == "inval" { one } else { self.src(i, 1, Ty::U32)? };
                let imm = match what {
                    "init" => INIT,
                    "inval" => INVAL,
                    "expect_tx" => EXPECT_TX,
                    _ => COMPLETE_TX,
                };
                self.emit_aux(run, V::NONE, [a, b, V::NONE], imm, AuxLow::default());
            }
            "arrive" | "arrive_drop" => {
                if expect && what == "arrive_drop" {
                    return self.unsupported(i);
                }
                // The state result may be left out (`_`, or no operand at all for a remote barrier).
                let has_result = !matches!(self.operand(i, 0)?, Operand::Address { .. });
                let at = usize::from(has_result);
                let a = self.address_value(self.operand(i, at)?, SpaceName::Shared)?;
                let b = if i.operands.len() > at + 1 { self.src(i, at + 1, Ty::U32)? } else { one };
                let d = if has_result { self.dst(i, 0, Ty::B64)? } else { self.fresh(Class::R64) };
                let imm = match (what, expect, no_complete) {
                    (_, true, _) => ARRIVE_EXPECT_TX,
                    (_, _, true) => ARRIVE_NO_COMPLETE,
                    ("arrive", ..) => ARRIVE,
                    _ => ARRIVE_DROP,
                };
                self.emit_aux(run, d, [a, b, V::NONE], imm, AuxLow::default());
            }
            _ => {
                let a = self.address_value(self.operand(i, 1)?, SpaceName::Shared)?;
                let p = self.dst(i, 0, Ty::Pred)?;
                let aux = AuxLow { defs: vec![p], ..AuxLow::default() };
                if parity {
                    let b = self.src(i, 2, Ty::U32)?;
                    self.emit_aux(run, V::NONE, [a, b, V::NONE], TEST_PARITY, aux);
                } else {
                    let c = self.src(i, 2, Ty::B64)?;
                    self.emit_aux(run, V::NONE, [a, one, c], TEST_STATE, aux);
                }
            }
        }
        Ok(())
    }
}
