//! Comparisons and selections (PTX ISA section "Comparison and Selection Instructions").

#![expect(clippy::cast_sign_loss, reason = "fields of a packed word")]

use std::marker::PhantomData;

use super::logic::pred_op;
use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::exec::op::{
    Cx, Exec, FULL, Flow, Inst, Lane, Lanes, Mask, OpFn, common, conjure, op1, op2, pick, read_pred,
    set_lane, test_lanes, write_pred,
};
use crate::isa::compare::{self, BoolOp, Cmp};
use crate::isa::half::{Bf16, F16, Half};
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

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
pub(super) fn slow_setp<A: Lane, F: Fn(i64, A, A) -> bool + Copy + 'static>(_: F) -> OpFn {
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

impl<'a> Lower<'_, 'a> {
    /// `setp`, `set`.
    pub(super) fn comparison(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
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

    /// `selp`.
    pub(super) fn selp(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
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
}

/// The test of `slct` on a float: `-0` counts as zero, NaN selects the second.
pub(super) fn slct(imm: i64, c: f32) -> bool {
    let c = if imm != 0 { crate::isa::float::ftz_f32(c) } else { c };
    c >= 0.0
}
