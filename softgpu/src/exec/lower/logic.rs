//! Logic, shifts, moves, comparisons and selections.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fields of a packed word, and moves that drop bits"
)]

use std::marker::PhantomData;

use super::arithmetic::{identity, shift, widths};
use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, Symbol, V};
use crate::exec::op::{
    Cx, Exec, FULL, Flow, Inst, Lane, Lanes, Mask, OpFn, common, conjure, lane, op1, op2, op3, op3i, pick,
    read_pred, set_lane, slow1, slow2, slow3, slow3i, test_lanes, write_pred,
};
use crate::isa::compare::{self, BoolOp, Cmp};
use crate::isa::half::{Bf16, F16, Half};
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

fn pred_op<F: Fn(Mask, Mask) -> Mask + Copy + 'static>(_: F) -> OpFn {
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

/// How the outcome of a comparison is combined; packed into `Inst::imm`.
/// Bits 0-7 operator, 8-9 combination (0 none, 1 and, 2 or, 3 xor), 10 negated predicate, 11 second result,
/// 12 `.ftz`; bits 32.. the slot of the second result.
fn combine(imm: i64, bits: Mask, other: Mask) -> (Mask, Mask) {
    let other = if imm & 0x400 != 0 { !other } else { other };
    let with = |bits: Mask| match imm >> 8 & 3 {
        0 => bits,
        1 => bits & other,
        2 => bits | other,
        _ => bits ^ other,
    };
    (with(bits), with(!bits))
}

/// `setp`: `d[, second] = cmp(a, b) [op c]`.
struct Setp<A, F>(PhantomData<(A, F)>);
impl<A: Lane, F: Fn(i64, A, A) -> bool + Copy> Exec for Setp<A, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = conjure::<F>();
        let imm = inst.imm;
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let bits = test_lanes::<A, A>(
                cx,
                inst,
                mask,
                #[inline(always)]
                |a, b| f(imm, a, b),
            );
            if imm & 0xf00 == 0 {
                write_pred(cx, inst.d, mask, bits);
                return Flow::Next;
            }
            let other = if imm & 0x300 != 0 { read_pred(cx, inst.c) } else { 0 };
            let (first, second) = combine(imm, bits, other);
            write_pred(cx, inst.d, mask, first);
            if imm & 0x800 != 0 {
                write_pred(cx, cx.aux[inst.aux as usize].defs[0], mask, second);
            }
        }
        Flow::Next
    }
}

fn setp<A: Lane, F: Fn(i64, A, A) -> bool + Copy + 'static>(_: F) -> OpFn {
    pick::<Setp<A, F>>()
}

/// As [`setp`], with one instance for all CPUs.
fn slow_setp<A: Lane, F: Fn(i64, A, A) -> bool + Copy + 'static>(_: F) -> OpFn {
    common::<Setp<A, F>>()
}

/// `set`: as `setp`; true is the number in `code`: all ones, or 1.0.
struct Set<A, F>(PhantomData<(A, F)>);
impl<A: Lane, F: Fn(i64, A, A) -> bool + Copy> Exec for Set<A, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = conjure::<F>();
        let imm = inst.imm;
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let bits = test_lanes::<A, A>(
                cx,
                inst,
                mask,
                #[inline(always)]
                |a, b| f(imm, a, b),
            );
            let other = if imm & 0x300 != 0 { read_pred(cx, inst.c) } else { 0 };
            let (bits, _) = combine(imm, bits, other);
            for at in Lanes(mask) {
                set_lane(cx, inst.d, at, if bits >> at & 1 != 0 { inst.code } else { 0 });
            }
        }
        Flow::Next
    }
}

fn set<A: Lane, F: Fn(i64, A, A) -> bool + Copy + 'static>(_: F) -> OpFn {
    common::<Set<A, F>>()
}

/// `setp` with an instance for each operator that programs use in loops.
macro_rules! each_operator {
    ($cmp:expr, $with:ident, $t:ty, $f:expr) => {
        match $cmp {
            Cmp::Eq => $with(|_, a: $t, b: $t| $f(Cmp::Eq, a, b)),
            Cmp::Ne => $with(|_, a: $t, b: $t| $f(Cmp::Ne, a, b)),
            Cmp::Lt => $with(|_, a: $t, b: $t| $f(Cmp::Lt, a, b)),
            Cmp::Le => $with(|_, a: $t, b: $t| $f(Cmp::Le, a, b)),
            Cmp::Gt => $with(|_, a: $t, b: $t| $f(Cmp::Gt, a, b)),
            Cmp::Ge => $with(|_, a: $t, b: $t| $f(Cmp::Ge, a, b)),
            _ => slow_setp(|imm, a: $t, b: $t| $f(comparison(imm), a, b)),
        }
    };
}

/// The instance of `setp` for a type and an operator.
fn comparing(ty: Ty, cmp: Cmp) -> Option<OpFn> {
    let equality = matches!(cmp, Cmp::Eq | Cmp::Ne);
    Some(match ty {
        Ty::S32 if !equality => each_operator!(cmp, setp, i32, compare::int),
        Ty::U32 | Ty::B32 | Ty::S32 => each_operator!(cmp, setp, u32, compare::int),
        Ty::F32 => each_operator!(cmp, setp, f32, |op, a, b| compare::f32(op, a, b, false)),
        Ty::S64 if !equality => each_operator!(cmp, slow_setp, i64, compare::int),
        Ty::U64 | Ty::B64 | Ty::S64 => each_operator!(cmp, slow_setp, u64, compare::int),
        Ty::F64 => each_operator!(cmp, slow_setp, f64, compare::f64),
        Ty::U16 | Ty::B16 => slow_setp(|imm, a: u16, b: u16| compare::int(comparison(imm), a, b)),
        Ty::S16 => slow_setp(|imm, a: i16, b: i16| compare::int(comparison(imm), a, b)),
        Ty::F16 => slow_setp(|imm, a: u16, b: u16| halves::<F16>(imm, a, b)),
        Ty::Bf16 => slow_setp(|imm, a: u16, b: u16| halves::<Bf16>(imm, a, b)),
        _ => return None,
    })
}

/// `set` with the operator in `imm`.
fn any_comparison(ty: Ty) -> Option<OpFn> {
    Some(match ty {
        Ty::U16 | Ty::B16 => set(|imm, a: u16, b: u16| compare::int(comparison(imm), a, b)),
        Ty::S16 => set(|imm, a: i16, b: i16| compare::int(comparison(imm), a, b)),
        Ty::U32 | Ty::B32 => set(|imm, a: u32, b: u32| compare::int(comparison(imm), a, b)),
        Ty::S32 => set(|imm, a: i32, b: i32| compare::int(comparison(imm), a, b)),
        Ty::U64 | Ty::B64 => set(|imm, a: u64, b: u64| compare::int(comparison(imm), a, b)),
        Ty::S64 => set(|imm, a: i64, b: i64| compare::int(comparison(imm), a, b)),
        Ty::F64 => set(|imm, a: f64, b: f64| compare::f64(comparison(imm), a, b)),
        Ty::F32 => set(|imm, a: f32, b: f32| compare::f32(comparison(imm), a, b, false)),
        Ty::F16 => set(|imm, a: u16, b: u16| halves::<F16>(imm, a, b)),
        Ty::Bf16 => set(|imm, a: u16, b: u16| halves::<Bf16>(imm, a, b)),
        _ => return None,
    })
}

const COMPARISONS: [Cmp; 18] = [
    Cmp::Eq,
    Cmp::Ne,
    Cmp::Lt,
    Cmp::Le,
    Cmp::Gt,
    Cmp::Ge,
    Cmp::Lo,
    Cmp::Ls,
    Cmp::Hi,
    Cmp::Hs,
    Cmp::Equ,
    Cmp::Neu,
    Cmp::Ltu,
    Cmp::Leu,
    Cmp::Gtu,
    Cmp::Geu,
    Cmp::Num,
    Cmp::Nan,
];

/// The operator packed into `imm`.
#[inline(always)]
fn comparison(imm: i64) -> Cmp {
    COMPARISONS[(imm & 0xff) as usize % COMPARISONS.len()]
}

fn halves<H: Half>(imm: i64, a: u16, b: u16) -> bool {
    compare::f32(comparison(imm), flushed::<H>(imm, a), flushed::<H>(imm, b), false)
}

fn flushed<H: Half>(imm: i64, a: u16) -> f32 {
    let a = if imm & 0x1000 != 0 { crate::isa::half::ftz::<H>(a) } else { a };
    H::to_f32(a)
}

/// `selp`: `d = c ? a : b`.
struct Selp<T>(PhantomData<T>);
impl<T: Lane> Exec for Selp<T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (a, b, d) = (T::slot(cx, inst.a), T::slot(cx, inst.b), T::slot(cx, inst.d));
        // SAFETY: the caller's promise (`OpFn`); chunks are read before they are written (`op::lanes`).
        unsafe {
            let choose = read_pred(cx, inst.c);
            if mask == FULL {
                for chunk in (0..32).step_by(8) {
                    let mut out = [T::Repr::default(); 8];
                    for (at, out) in out.iter_mut().enumerate() {
                        let (x, y) = (*a.add(chunk + at), *b.add(chunk + at));
                        *out = if choose & (1 << (chunk + at)) != 0 { x } else { y };
                    }
                    for (at, out) in out.iter().enumerate() {
                        *d.add(chunk + at) = *out;
                    }
                }
            } else {
                for at in Lanes(mask) {
                    *d.add(at) = if choose >> at & 1 != 0 { *a.add(at) } else { *b.add(at) };
                }
            }
        }
        Flow::Next
    }
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

    fn comparison(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let Some(cmp) = m.take(Cmp::parse) else { return m.error("a comparison is missing") };
        let how = m.take(|name| {
            Some(match name {
                "and" => BoolOp::And,
                "or" => BoolOp::Or,
                "xor" => BoolOp::Xor,
                _ => return None,
            })
        });
        let ftz = m.flag("ftz");
        let out = if i.opcode == "set" { Some(m.ty()?) } else { None };
        let ty = m.ty()?;
        let code = COMPARISONS.iter().position(|c| *c == cmp).unwrap_or(0);
        let mut imm = i64::try_from(code).unwrap_or(0) | i64::from(ftz) << 12;
        self.operand_count(i, if how.is_some() { 4 } else { 3 }, if how.is_some() { 4 } else { 3 })?;
        let mut c = V::NONE;
        if let Some(how) = how {
            let (p, negated) = self.predicate(self.operand(i, 3)?)?;
            c = p;
            imm |= match how {
                BoolOp::And => 0x100,
                BoolOp::Or => 0x200,
                BoolOp::Xor => 0x300,
            } | i64::from(negated) << 10;
        }
        if matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
            return self.packed_comparison(i, m, ty, out, c, imm);
        }
        let (a, b) = (self.src(i, 1, ty)?, self.src(i, 2, ty)?);
        if let Some(out) = out {
            let yes = match out {
                Ty::U32 | Ty::S32 => u32::MAX,
                Ty::U16 | Ty::S16 => 0xffff,
                Ty::F32 => 1f32.to_bits(),
                Ty::F16 => 0x3c00,
                Ty::Bf16 => 0x3f80,
                _ => return m.error("the result's type is not supported"),
            };
            let run = if ftz && ty == Ty::F32 {
                Some(set(|imm, a: f32, b: f32| compare::f32(comparison(imm), a, b, true)))
            } else {
                any_comparison(ty)
            };
            let Some(run) = run else { return m.error("this type is not supported") };
            let d = self.dst(i, 0, out)?;
            self.emit(run, d, [a, b, c], imm).code = yes;
            return Ok(());
        }
        let run = if ftz && ty == Ty::F32 {
            Some(slow_setp(|imm, a: f32, b: f32| compare::f32(comparison(imm), a, b, true)))
        } else {
            comparing(ty, cmp)
        };
        let Some(run) = run else { return m.error("this type is not supported") };
        match self.operand(i, 0)?.clone() {
            Operand::Pair(p, q) => {
                let p = self.target(&p, Class::Pred)?;
                let q = self.target(&q, Class::Pred)?;
                let aux = AuxLow { defs: vec![q], ..AuxLow::default() };
                self.emit_aux(run, p, [a, b, c], imm | 0x800, aux);
            }
            p => {
                let p = self.target(&p, Class::Pred)?;
                self.emit(run, p, [a, b, c], imm);
            }
        }
        Ok(())
    }

    /// Comparisons of two packed halves: `setp d|p`, or `set` with a packed result.
    fn packed_comparison(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        ty: Ty,
        out: Option<Ty>,
        c: V,
        imm: i64,
    ) -> Result<()> {
        let (a, b) = (self.src(i, 1, ty)?, self.src(i, 2, ty)?);
        let upper = |lower: &mut Self, v: V| {
            let d = lower.fresh(Class::R32);
            lower.emit(op1(|a: u32| a >> 16), d, [v, V::NONE, V::NONE], 0);
            d
        };
        let run = match ty {
            Ty::F16x2 => slow_setp(|imm, a: u16, b: u16| halves::<F16>(imm, a, b)),
            _ => slow_setp(|imm, a: u16, b: u16| halves::<Bf16>(imm, a, b)),
        };
        let (a_up, b_up) = (upper(self, a), upper(self, b));
        let (low, high) = match (out, self.operand(i, 0)?.clone()) {
            (None, Operand::Pair(p, q)) => (self.target(&p, Class::Pred)?, self.target(&q, Class::Pred)?),
            (None, _) => return m.error("two predicates are expected as p|q"),
            (Some(_), _) => (self.fresh(Class::Pred), self.fresh(Class::Pred)),
        };
        // The first result may be the predicate operand of the second.
        let first = if low == c { self.fresh(Class::Pred) } else { low };
        self.emit(run, first, [a, b, c], imm);
        self.emit(run, high, [a_up, b_up, c], imm);
        if first != low {
            self.emit(pred_op(|a, _| a), low, [first, V::NONE, V::NONE], 0);
        }
        let Some(out) = out else { return Ok(()) };
        let one: u64 = match out {
            Ty::F16x2 => 0x3c00,
            Ty::Bf16x2 => 0x3f80,
            Ty::U32 | Ty::S32 | Ty::B32 => 0xffff,
            _ => return m.error("the result's type is not supported"),
        };
        let bits =
            |lower: &mut Self, value| lower.constant(Class::R32, crate::exec::special::Value::Bits(value));
        let (zero, yes, yes_up) = (bits(self, 0), bits(self, one), bits(self, one << 16));
        let d = self.dst(i, 0, Ty::B32)?;
        let (x, y) = (self.fresh(Class::R32), self.fresh(Class::R32));
        self.emit(pick::<Selp<u32>>(), x, [yes, zero, low], 0);
        self.emit(pick::<Selp<u32>>(), y, [yes_up, zero, high], 0);
        self.emit(op2(|a: u32, b: u32| a | b), d, [x, y, V::NONE], 0);
        Ok(())
    }

    fn selp(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let ty = m.ty()?;
        self.operand_count(i, 4, 4)?;
        let (p, negated) = self.predicate(self.operand(i, 3)?)?;
        let (mut a, mut b) = (self.src(i, 1, ty)?, self.src(i, 2, ty)?);
        if negated {
            (a, b) = (b, a);
        }
        let run = match Self::class_of(ty) {
            Class::R32 => pick::<Selp<u32>>(),
            Class::R64 => pick::<Selp<u64>>(),
            Class::Pred => return m.error("this type is not supported"),
        };
        let d = self.dst(i, 0, ty)?;
        self.emit(run, d, [a, b, p], 0);
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

/// The test of `slct` on a float: `-0` counts as zero, NaN selects the second.
fn slct(imm: i64, c: f32) -> bool {
    let c = if imm != 0 { crate::isa::float::ftz_f32(c) } else { c };
    c >= 0.0
}
