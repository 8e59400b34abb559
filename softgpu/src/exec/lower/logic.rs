//! Logic, shifts, moves, comparisons and selections.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fields of a packed word, and moves that drop bits"
)]

use std::marker::PhantomData;

use super::arithmetic::{identity, shift, widths};
use super::compare::{slct, slow_setp};
use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, Symbol, V};
use crate::exec::op::{
    Cx, Exec, FULL, Flow, Inst, Lane, Lanes, Mask, OpFn, common, conjure, lane, op1, op2, op3, op3i,
    read_pred, set_lane, slow1, slow2, slow3, slow3i, write_pred,
};
use crate::isa::int;
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// Predicate logic: `d = f(a, b)` on masks.
struct PredOp<F>(PhantomData<F>);
impl<F: Fn(Mask, Mask) -> Mask + Copy> Exec for PredOp<F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let bits = conjure::<F>()(read_pred(cx, inst.a), read_pred(cx, inst.b));
            write_pred(cx, inst.d, mask, bits);
        }
        Flow::Next
    }
}

pub(super) fn pred_op<F: Fn(Mask, Mask) -> Mask + Copy + 'static>(_: F) -> OpFn {
    common::<PredOp<F>>()
}

/// `d = !a` on predicates.
pub(super) fn not_pred() -> OpFn {
    pred_op(|a, _| !a)
}

/// `d = true` or `d = false`.
pub(super) fn constant_pred(value: bool) -> OpFn {
    if value { pred_op(|_, _| FULL) } else { pred_op(|_, _| 0) }
}

/// `mov` between a wide register and its parts; parts of `BITS` bits, low first, in `uses` or `defs`.
struct Pack<T, const BITS: u32>(PhantomData<T>);
impl<T: Lane + Into<u64> + super::operands::Truncate, const BITS: u32> Exec for Pack<T, BITS> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        for at in Lanes(mask) {
            let mut value = 0u64;
            for (index, part) in aux.uses.iter().enumerate() {
                // SAFETY: the caller's promise (`OpFn`).
                let bits = u64::from(unsafe { lane::<u32>(cx, *part, at) });
                value |= bits << (BITS * index as u32);
            }
            // SAFETY: as above.
            unsafe { set_lane(cx, inst.d, at, T::truncate(value)) };
        }
        Flow::Next
    }
}

struct Unpack<T, const BITS: u32>(PhantomData<T>);
impl<T: Lane + Into<u64>, const BITS: u32> Exec for Unpack<T, BITS> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            let value: u64 = unsafe { lane::<T>(cx, inst.a, at) }.into();
            for (index, part) in aux.defs.iter().enumerate() {
                let bits = value >> (BITS * index as u32) & ((1 << BITS) - 1);
                // SAFETY: as above.
                unsafe { set_lane(cx, *part, at, bits as u32) };
            }
        }
        Flow::Next
    }
}

impl<'a> Lower<'_, 'a> {
    /// Lowers logic, moves, comparisons and selections; false when the opcode belongs elsewhere.
    pub(super) fn logic(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "and" | "or" | "xor" | "not" | "cnot" => self.bitwise(i, m)?,
            "shl" | "shr" => {
                let ty = m.ty()?;
                self.simple(i, m, shift(i.opcode == "shl", ty), ty, &[ty, Ty::U32])?;
            }
            "shf" => {
                let left = m.one_of(&["l", "r"]) == Some("l");
                let wrap = m.one_of(&["wrap", "clamp"]) == Some("wrap");
                let ty = m.ty()?;
                let run = match (left, wrap) {
                    (true, true) => op3(int::shf_l_wrap),
                    (true, false) => op3(int::shf_l_clamp),
                    (false, true) => op3(int::shf_r_wrap),
                    (false, false) => op3(int::shf_r_clamp),
                };
                self.simple(i, m, Some(run), ty, &[Ty::B32, Ty::B32, Ty::U32])?;
            }
            "lop3" => self.lop3(i, m)?,
            "prmt" => {
                let mode = m.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
                let ty = m.ty()?;
                let run = match mode {
                    None => op3(|a, b, c| int::prmt(a, b, c, int::Prmt::Default)),
                    Some("f4e") => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::F4e)),
                    Some("b4e") => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::B4e)),
                    Some("rc8") => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::Rc8)),
                    Some("ecl") => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::Ecl)),
                    Some("ecr") => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::Ecr)),
                    Some(_) => slow3(|a, b, c| int::prmt(a, b, c, int::Prmt::Rc16)),
                };
                self.simple(i, m, Some(run), ty, &[Ty::B32, Ty::B32, Ty::B32])?;
            }
            "setp" | "set" => self.comparison(i, m)?,
            "selp" => self.selp(i, m)?,
            "slct" => {
                let ftz = m.flag("ftz");
                let (ty, test) = (m.ty()?, m.ty()?);
                let run = match (Self::class_of(ty), test) {
                    (Class::R32, Ty::S32) => slow3(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
                    (Class::R64, Ty::S32) => slow3(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
                    (Class::R32, Ty::F32) => {
                        slow3i(|imm, a: u32, b: u32, c: f32| if slct(imm, c) { a } else { b })
                    }
                    (Class::R64, Ty::F32) => {
                        slow3i(|imm, a: u64, b: u64, c: f32| if slct(imm, c) { a } else { b })
                    }
                    _ => return m.error("this type is not supported"),
                };
                self.simple(i, m, Some(run), ty, &[ty, ty, test])?;
                self.out.code.last_mut().expect("emitted above").imm = i64::from(ftz);
            }
            "mov" => self.mov(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bitwise(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let ty = m.ty()?;
        if ty == Ty::Pred {
            let run = match i.opcode {
                "and" => pred_op(|a, b| a & b),
                "or" => pred_op(|a, b| a | b),
                "xor" => pred_op(|a, b| a ^ b),
                "not" => not_pred(),
                _ => return m.error("this type is not supported"),
            };
            let a = self.src(i, 1, ty)?;
            let b = if i.opcode == "not" { V::NONE } else { self.src(i, 2, ty)? };
            let d = self.dst(i, 0, ty)?;
            self.emit(run, d, [a, b, V::NONE], 0);
            return Ok(());
        }
        if !matches!(ty, Ty::B16 | Ty::B32 | Ty::B64) {
            return m.error("this type is not supported");
        }
        let run = match i.opcode {
            "and" => widths!(ty, |T| op2(|a: T, b: T| a & b), slow2(|a: T, b: T| a & b)),
            "or" => widths!(ty, |T| op2(|a: T, b: T| a | b), slow2(|a: T, b: T| a | b)),
            "xor" => widths!(ty, |T| op2(|a: T, b: T| a ^ b), slow2(|a: T, b: T| a ^ b)),
            "not" => widths!(ty, |T| op1(|a: T| !a), slow1(|a: T| !a)),
            _ => widths!(ty, |T| slow1(|a: T| T::from(a == 0)), slow1(|a: T| T::from(a == 0))),
        };
        let sources = vec![ty; if matches!(i.opcode, "not" | "cnot") { 1 } else { 2 }];
        self.simple(i, m, run, ty, &sources)
    }

    fn lop3(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let combine = m.one_of(&["and", "or"]);
        let ty = m.ty()?;
        if ty != Ty::B32 {
            return m.error("this type is not supported");
        }
        let (d_operand, pred) = match self.operand(i, 0)?.clone() {
            Operand::Pair(d, p) => (*d, Some(*p)),
            other => (other, None),
        };
        let Operand::Number(table) = self.operand(i, 4)?.clone() else {
            return m.error("the table must be a number");
        };
        let table = self.number(table, Ty::U8)?;
        let abc = [self.src(i, 1, ty)?, self.src(i, 2, ty)?, self.src(i, 3, ty)?];
        let d = self.target(&d_operand, Class::R32)?;
        let imm = i64::try_from(table).unwrap_or(0);
        self.emit(op3i(|imm, a: u32, b: u32, c: u32| int::lop3(a, b, c, imm as u8)), d, abc, imm);
        if let Some(pred) = pred {
            let p = self.target(&pred, Class::Pred)?;
            let (q, negated) = self.predicate(self.operand(i, 5)?)?;
            let zero = self.constant(Class::R32, crate::exec::special::Value::Bits(0));
            let how = if combine == Some("and") { 1 } else { 2 };
            let imm = 1 | how << 8 | i64::from(negated) << 10;
            self.emit(slow_setp(|_, a: u32, b: u32| a != b), p, [d, zero, q], imm);
        }
        Ok(())
    }

    fn mov(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let ty = m.ty()?;
        self.operand_count(i, 2, 2)?;
        let (d, s) = (self.operand(i, 0)?.clone(), self.operand(i, 1)?.clone());
        match (&d, &s) {
            _ if ty == Ty::B128 => return self.mov_wide(&d, &s),
            (Operand::Vector(parts), _) => {
                let from = self.value(&s, ty)?;
                let each = ty.bytes() * 8 / u32::try_from(parts.len().max(1)).unwrap_or(1);
                if each == 32 && ty.bytes() == 8 {
                    // The common case of splitting a 64-bit register, as two vector loops.
                    let runs = [op1(|a: u64| a as u32), op1(|a: u64| (a >> 32) as u32)];
                    for (part, run) in parts.iter().zip(runs) {
                        if *part != Operand::Sink {
                            let d = self.target(part, Class::R32)?;
                            self.emit(run, d, [from, V::NONE, V::NONE], 0);
                        }
                    }
                    return Ok(());
                }
                let run = match (ty.bytes(), each) {
                    (8, 16) => common::<Unpack<u64, 16>>(),
                    (4, 16) => common::<Unpack<u32, 16>>(),
                    (4, 8) => common::<Unpack<u32, 8>>(),
                    (2, 8) => common::<Unpack<u32, 8>>(),
                    _ => return m.error("a vector of this width is not supported"),
                };
                let defs = parts.iter().map(|part| self.target(part, Class::R32)).collect::<Result<_>>()?;
                self.emit_aux(
                    run,
                    V::NONE,
                    [from, V::NONE, V::NONE],
                    0,
                    AuxLow { defs, ..AuxLow::default() },
                );
            }
            (_, Operand::Vector(parts)) => {
                let each = ty.bytes() * 8 / u32::try_from(parts.len().max(1)).unwrap_or(1);
                let part_ty = match each {
                    32 => Ty::B32,
                    16 => Ty::B16,
                    8 => Ty::B8,
                    _ => return m.error("a vector of this width is not supported"),
                };
                let uses: Vec<V> =
                    parts.iter().map(|part| self.value(part, part_ty)).collect::<Result<_>>()?;
                let to = self.target(&d, Self::class_of(ty))?;
                if each == 32 && ty.bytes() == 8 {
                    let run = op2(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32);
                    self.emit(run, to, [uses[0], uses[1], V::NONE], 0);
                    return Ok(());
                }
                let run = match (ty.bytes(), each) {
                    (8, 16) => common::<Pack<u64, 16>>(),
                    (4, 16) => common::<Pack<u32, 16>>(),
                    (4 | 2, 8) => common::<Pack<u32, 8>>(),
                    _ => return m.error("a vector of this width is not supported"),
                };
                self.emit_aux(run, to, [V::NONE; 3], 0, AuxLow { uses, ..AuxLow::default() });
            }
            _ if ty == Ty::Pred => {
                let from = self.value(&s, ty)?;
                let to = self.target(&d, Class::Pred)?;
                self.emit(pred_op(|a, _| a), to, [from, V::NONE, V::NONE], 0);
            }
            _ => {
                let from = self.value(&s, ty)?;
                let to = self.target(&d, Self::class_of(ty))?;
                let Some(run) = identity(ty) else { return m.error("this type is not supported") };
                self.emit(run, to, [from, V::NONE, V::NONE], 0);
            }
        }
        Ok(())
    }

    /// The halves of a `.b128` operand: a register, or a pair in braces.
    pub(super) fn wide(&mut self, operand: &Operand<'a>, target: bool) -> Result<[V; 2]> {
        match operand {
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Wide(low, high)) => Ok([low, high]),
                _ => self.error(format!("{name} is not a .b128 register")),
            },
            Operand::Vector(list) if list.len() == 2 && target => {
                Ok([self.target(&list[0], Class::R64)?, self.target(&list[1], Class::R64)?])
            }
            Operand::Vector(list) if list.len() == 2 => {
                Ok([self.value(&list[0], Ty::B64)?, self.value(&list[1], Ty::B64)?])
            }
            _ => self.error("a .b128 operand is expected"),
        }
    }

    fn mov_wide(&mut self, d: &Operand<'a>, s: &Operand<'a>) -> Result<()> {
        let from = self.wide(s, false)?;
        let to = self.wide(d, true)?;
        // `mov.b128 {lo, hi}, x` may swap halves of one register only through a copy.
        let low = self.fresh(Class::R64);
        self.emit(op1(|a: u64| a), low, [from[0], V::NONE, V::NONE], 0);
        self.emit(op1(|a: u64| a), to[1], [from[1], V::NONE, V::NONE], 0);
        self.emit(op1(|a: u64| a), to[0], [low, V::NONE, V::NONE], 0);
        Ok(())
    }
}
