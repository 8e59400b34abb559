//! Instructions in which the lanes of a warp exchange data or meet (PTX ISA: shfl, vote, match, redux, elect,
//! activemask, bar.warp.sync).
//!
//! Each first sees whether all lanes of its member mask are here; if not it asks the warp to wait
//! ([`Flow::Converge`]). The warp runs it again when they are: at once if all came to the same place, else in the two
//! phases of [`Phase`].

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "lanes are few, and exchanges keep 32 bits in 64"
)]

use std::marker::PhantomData;

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::exec::WARP;
use crate::exec::op::{
    Cx, Exec, FULL, Flow, Inst, Lanes, Mask, OpFn, Phase, common, lane, read_pred, set_lane, write_pred,
};
use crate::exec::special::Value;
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// The outcome of asking whether the lanes of a member mask are here.
enum Meeting {
    /// Not yet, or not for all with the same mask: the instruction returns this.
    Wait(Flow),
    Collect,
    /// Results can be computed; `true` if the values of this group must be collected first.
    Finish(bool),
}

/// Asks whether everyone is here. Without `.sync` the executing lanes are everyone.
#[inline(always)]
unsafe fn meet(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Meeting {
    match cx.phase {
        Phase::Collect => Meeting::Collect,
        Phase::Finish => Meeting::Finish(false),
        Phase::Whole => {
            if inst.code & SYNC != 0 {
                // SAFETY: the caller's promise (`OpFn`).
                let member = unsafe { lane::<u32>(cx, inst.c, mask.trailing_zeros() as usize) };
                if inst.code & FIXED == 0 {
                    // SAFETY: as above.
                    let same = |at: usize| unsafe { lane::<u32>(cx, inst.c, at) } == member;
                    if !Lanes(mask).all(same) {
                        return Meeting::Wait(Flow::Members);
                    }
                }
                if member & cx.live & !mask != 0 {
                    cx.wait_mask = member;
                    return Meeting::Wait(Flow::Converge);
                }
            }
            cx.participants = mask;
            Meeting::Finish(true)
        }
    }
}

/// `Inst::code`: the member mask is in operand `c`.
const SYNC: u32 = 1;
/// `Inst::code`: the member mask is a number, the same for all lanes.
const FIXED: u32 = 8;
/// `Inst::code`: a predicate result is in `defs[0]`.
const PRED: u32 = 2;
/// `Inst::code`: the source predicate is negated.
const NEGATED: u32 = 4;

/// `shfl`: source `a`, lane operand `b`, mask of members `c`, clamp and segment mask in `uses[0]`; `imm` is the mode.
struct Shfl;
impl Exec for Shfl {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let mut source = [0u32; WARP];
            match meet(cx, inst, mask) {
                Meeting::Wait(flow) => return flow,
                Meeting::Collect => {
                    for at in Lanes(mask) {
                        cx.exchange[at] = u64::from(lane::<u32>(cx, inst.a, at));
                    }
                    return Flow::Next;
                }
                Meeting::Finish(true) => {
                    // Lanes that do not take part hold what their register holds, as on a GPU.
                    for (at, value) in source.iter_mut().enumerate() {
                        *value = lane::<u32>(cx, inst.a, at);
                    }
                }
                Meeting::Finish(false) => {
                    for (value, from) in source.iter_mut().zip(&cx.exchange) {
                        *value = *from as u32;
                    }
                }
            }
            let aux = &cx.aux[inst.aux as usize];
            let mut within = 0;
            for at in Lanes(mask) {
                let b = lane::<u32>(cx, inst.b, at) & 31;
                let c = lane::<u32>(cx, aux.uses[0], at);
                let this = at as u32;
                let segment = c >> 8 & 31;
                let last = (this & segment) | (c & 31 & !segment);
                let (from, inside) = match inst.imm {
                    0 => (this.wrapping_sub(b), this as i32 - b as i32 >= last as i32),
                    1 => (this + b, this + b <= last),
                    2 => (this ^ b, this ^ b <= last),
                    _ => {
                        let from = (this & segment) | (b & !segment);
                        (from, from <= last)
                    }
                };
                let from = if inside { from } else { this };
                set_lane(cx, inst.d, at, source[from as usize & 31]);
                within |= u32::from(inside) << at;
            }
            if inst.code & PRED != 0 {
                write_pred(cx, aux.defs[0], mask, within);
            }
        }
        Flow::Next
    }
}

/// `vote`: source predicate in `uses[0]`; `imm` 0 ballot, 1 all, 2 any, 3 uni. Ballots go to `d`, others to `defs[0]`.
struct Vote;
impl Exec for Vote {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let votes = (read_pred(cx, aux.uses[0]) ^ if inst.code & NEGATED != 0 { FULL } else { 0 }) & mask;
            match meet(cx, inst, mask) {
                Meeting::Wait(flow) => return flow,
                Meeting::Collect => {
                    cx.votes |= votes;
                    return Flow::Next;
                }
                Meeting::Finish(true) => cx.votes = votes,
                Meeting::Finish(false) => {}
            }
            let votes = cx.votes;
            let all = votes == cx.participants;
            let truth = match inst.imm {
                0 => {
                    if mask == FULL {
                        *inst_slot(cx, inst.d) = [votes; WARP];
                    } else {
                        Lanes(mask).for_each(|at| set_lane(cx, inst.d, at, votes));
                    }
                    return Flow::Next;
                }
                1 => all,
                2 => votes != 0,
                _ => all || votes == 0,
            };
            write_pred(cx, aux.defs[0], mask, if truth { FULL } else { 0 });
        }
        Flow::Next
    }
}

/// A 32-bit slot as a whole.
unsafe fn inst_slot<'c>(cx: &'c mut Cx<'_>, slot: u32) -> &'c mut [u32; WARP] {
    // SAFETY: slots have 32 lanes (`OpFn`), and nothing else refers to them while the context is borrowed.
    unsafe { &mut *cx.r32.add(slot as usize).cast() }
}

/// `match`: value `a`; `imm` 0 any, 1 all.
struct Match<T>(PhantomData<T>);
impl<T: crate::exec::op::Lane + Into<u64>> Exec for Match<T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let meeting = meet(cx, inst, mask);
            if let Meeting::Wait(flow) = meeting {
                return flow;
            }
            if !matches!(meeting, Meeting::Finish(false)) {
                for at in Lanes(mask) {
                    cx.exchange[at] = lane::<T>(cx, inst.a, at).into();
                }
            }
            if matches!(meeting, Meeting::Collect) {
                return Flow::Next;
            }
            let everyone = cx.participants;
            let exchange = cx.exchange;
            let same = |value: u64| {
                Lanes(everyone).filter(|at| exchange[*at] == value).fold(0u32, |m, at| m | 1 << at)
            };
            if inst.imm == 0 {
                for at in Lanes(mask) {
                    set_lane(cx, inst.d, at, same(exchange[at]));
                }
                return Flow::Next;
            }
            let first = exchange[everyone.trailing_zeros() as usize & 31];
            let all = same(first) == everyone;
            for at in Lanes(mask) {
                set_lane(cx, inst.d, at, if all { everyone } else { 0 });
            }
            if inst.code & PRED != 0 {
                write_pred(cx, cx.aux[inst.aux as usize].defs[0], mask, if all { FULL } else { 0 });
            }
        }
        Flow::Next
    }
}

/// `redux`: `imm` 0 add, 1 and, 2 or, 3 xor, 4 unsigned min, 5 unsigned max, 6 signed min, 7 signed max.
struct Redux;
impl Exec for Redux {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let meeting = meet(cx, inst, mask);
            if let Meeting::Wait(flow) = meeting {
                return flow;
            }
            if !matches!(meeting, Meeting::Finish(false)) {
                for at in Lanes(mask) {
                    cx.exchange[at] = u64::from(lane::<u32>(cx, inst.a, at));
                }
            }
            if matches!(meeting, Meeting::Collect) {
                return Flow::Next;
            }
            let values = Lanes(cx.participants).map(|at| cx.exchange[at] as u32);
            let signed = |a: u32, b: u32, max: bool| {
                let (a, b) = (a.cast_signed(), b.cast_signed());
                if max { a.max(b) } else { a.min(b) }.cast_unsigned()
            };
            let result = values.reduce(|a, b| match inst.imm {
                0 => a.wrapping_add(b),
                1 => a & b,
                2 => a | b,
                3 => a ^ b,
                4 => a.min(b),
                5 => a.max(b),
                6 => signed(a, b, false),
                _ => signed(a, b, true),
            });
            for at in Lanes(mask) {
                set_lane(cx, inst.d, at, result.unwrap_or(0));
            }
        }
        Flow::Next
    }
}

/// `elect`: the lowest lane.
struct Elect;
impl Exec for Elect {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            match meet(cx, inst, mask) {
                Meeting::Wait(flow) => return flow,
                Meeting::Collect => return Flow::Next,
                Meeting::Finish(_) => {}
            }
            let leader = cx.participants.trailing_zeros();
            for at in Lanes(mask) {
                set_lane(cx, inst.d, at, leader);
            }
            if inst.code & PRED != 0 {
                write_pred(cx, cx.aux[inst.aux as usize].defs[0], mask, 1 << (leader & 31));
            }
        }
        Flow::Next
    }
}

/// `bar.warp.sync`.
struct WarpBarrier;
impl Exec for WarpBarrier {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        match unsafe { meet(cx, inst, mask) } {
            Meeting::Wait(flow) => flow,
            _ => Flow::Next,
        }
    }
}

/// `activemask`.
struct ActiveMask;
impl Exec for ActiveMask {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { set_lane(cx, inst.d, at, mask) };
        }
        Flow::Next
    }
}

impl<'a> Lower<'_, 'a> {
    /// Lowers warp-level instructions; false when the opcode belongs elsewhere.
    pub(super) fn warp(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "shfl" => self.shfl(i, m)?,
            "vote" => self.vote(i, m)?,
            "match" => {
                let all = m.one_of(&["any", "all"]) == Some("all");
                m.flag("sync");
                let ty = m.ty()?;
                let run = match ty {
                    Ty::B32 => common::<Match<u32>>(),
                    Ty::B64 => common::<Match<u64>>(),
                    _ => return m.error("this type is not supported"),
                };
                let a = self.src(i, 1, ty)?;
                let member = self.src(i, 2, Ty::B32)?;
                self.paired(
                    i,
                    run,
                    [a, V::NONE, member],
                    i64::from(all),
                    AuxLow::default(),
                    self.members(i, 2)?,
                )?;
            }
            "redux" => {
                m.flag("sync");
                let op = m.one_of(&["add", "and", "or", "xor", "min", "max"]);
                let ty = m.ty()?;
                let imm = match (op, ty) {
                    (Some("add"), Ty::U32 | Ty::S32) => 0,
                    (Some("and"), Ty::B32) => 1,
                    (Some("or"), Ty::B32) => 2,
                    (Some("xor"), Ty::B32) => 3,
                    (Some("min"), Ty::U32) => 4,
                    (Some("max"), Ty::U32) => 5,
                    (Some("min"), Ty::S32) => 6,
                    (Some("max"), Ty::S32) => 7,
                    _ => return m.error("this operation does not exist for this type"),
                };
                let a = self.src(i, 1, ty)?;
                let member = self.src(i, 2, Ty::B32)?;
                let d = self.dst(i, 0, ty)?;
                let code = self.members(i, 2)?;
                self.emit(common::<Redux>(), d, [a, V::NONE, member], imm).code = code;
            }
            "elect" => {
                m.flag("sync");
                let member = self.src(i, 1, Ty::B32)?;
                let code = self.members(i, 1)?;
                self.paired(i, common::<Elect>(), [V::NONE, V::NONE, member], 0, AuxLow::default(), code)?;
            }
            "activemask" => {
                m.ty()?;
                let d = self.dst(i, 0, Ty::B32)?;
                self.emit(common::<ActiveMask>(), d, [V::NONE; 3], 0);
            }
            "bar" | "barrier" => {
                m.flag("warp");
                m.flag("sync");
                let member = self.src(i, 0, Ty::B32)?;
                let code = self.members(i, 0)?;
                self.emit(common::<WarpBarrier>(), V::NONE, [V::NONE, V::NONE, member], 0).code = code;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The code of a member mask operand.
    fn members(&self, i: &Instruction<'a>, index: usize) -> Result<u32> {
        Ok(if matches!(self.operand(i, index)?, Operand::Number(_)) { SYNC | FIXED } else { SYNC })
    }

    /// Emits an instruction whose destination is `d` or `d|p`.
    fn paired(
        &mut self,
        i: &Instruction<'a>,
        run: OpFn,
        operands: [V; 3],
        imm: i64,
        mut aux: AuxLow,
        mut code: u32,
    ) -> Result<()> {
        let d = match self.operand(i, 0)?.clone() {
            Operand::Pair(d, p) => {
                aux.defs.push(self.target(&p, Class::Pred)?);
                code |= PRED;
                self.target(&d, Class::R32)?
            }
            d => self.target(&d, Class::R32)?,
        };
        self.emit_aux(run, d, operands, imm, aux).code = code;
        Ok(())
    }

    fn shfl(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let sync = m.flag("sync");
        let mode = match m.one_of(&["up", "down", "bfly", "idx"]) {
            Some("up") => 0,
            Some("down") => 1,
            Some("bfly") => 2,
            Some("idx") => 3,
            _ => return m.error("the mode is missing"),
        };
        if m.ty()? != Ty::B32 {
            return m.error("only .b32 exists");
        }
        self.operand_count(i, 4 + usize::from(sync), 4 + usize::from(sync))?;
        let (a, b, c) = (self.src(i, 1, Ty::B32)?, self.src(i, 2, Ty::B32)?, self.src(i, 3, Ty::B32)?);
        let member = if sync { self.src(i, 4, Ty::B32)? } else { a };
        let aux = AuxLow { uses: vec![c], ..AuxLow::default() };
        let code = if sync { self.members(i, 4)? } else { 0 };
        self.paired(i, common::<Shfl>(), [a, b, member], mode, aux, code)
    }

    fn vote(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let sync = m.flag("sync");
        let mode = match m.one_of(&["ballot", "all", "any", "uni"]) {
            Some("ballot") => 0,
            Some("all") => 1,
            Some("any") => 2,
            Some("uni") => 3,
            _ => return m.error("the mode is missing"),
        };
        let ty = m.ty()?;
        self.operand_count(i, 2 + usize::from(sync), 2 + usize::from(sync))?;
        let (p, negated) = self.predicate(self.operand(i, 1)?)?;
        let member = if sync {
            self.src(i, 2, Ty::B32)?
        } else {
            self.constant(Class::R32, Value::Bits(u64::from(FULL)))
        };
        let mut aux = AuxLow { uses: vec![p], ..AuxLow::default() };
        let mut d = V::NONE;
        match (mode, ty) {
            (0, Ty::B32) => d = self.dst(i, 0, ty)?,
            (1..=3, Ty::Pred) => aux.defs.push(self.dst(i, 0, ty)?),
            _ => return m.error("the type does not fit the mode"),
        }
        let code = if sync { self.members(i, 2)? } else { 0 } | if negated { NEGATED } else { 0 };
        self.emit_aux(common::<Vote>(), d, [V::NONE, V::NONE, member], mode, aux).code = code;
        Ok(())
    }
}
