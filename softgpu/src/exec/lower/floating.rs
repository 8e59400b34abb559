//! Floating-point instructions (PTX ISA sections "Floating-Point", "Half Precision", "Mixed Precision").
//!
//! Round-to-nearest without `.ftz` and `.sat`, what nvcc emits by default, has instances of its own so that the loops over
//! lanes vectorise; other modes travel packed in `Inst::imm`.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "fields of a packed word")]

use std::marker::PhantomData;

use super::modifiers::Modifiers;
use super::{Lower, Result, V};
use crate::exec::op::{
    Cx, Exec, Flow, Inst, Lane, Mask, OpFn, common, conjure, op1, op1i, op2, op2i, op3, slow1i, slow2i,
    slow3i, test_lanes, write_pred,
};
use crate::isa::float::{self, MinMax, Testp};
use crate::isa::half::{self, Bf16, F16, Half};
use crate::isa::{FloatMode, Round, approx};
use crate::ptx::Ty;
use crate::ptx::ast::Instruction;

const ROUNDS: [Round; 5] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp, Round::Rna];

/// Packs a mode into `imm`: bits 0-2 rounding, 3 `.ftz`, 4 `.sat`, 5 `.relu`, 6 `.NaN`, 7 `.xorsign.abs`.
fn pack(mode: FloatMode) -> i64 {
    let round = ROUNDS.iter().position(|round| *round == mode.round).unwrap_or(0);
    i64::try_from(round).unwrap_or(0) | i64::from(mode.ftz) << 3 | i64::from(mode.sat) << 4
}

#[inline(always)]
fn unpack(imm: i64) -> FloatMode {
    FloatMode { round: ROUNDS[(imm & 7) as usize % 5], ftz: imm & 8 != 0, sat: imm & 16 != 0 }
}

#[inline(always)]
fn min_max(imm: i64) -> MinMax {
    MinMax { ftz: imm & 8 != 0, nan: imm & 64 != 0, xorsign_abs: imm & 128 != 0 }
}

/// `testp`.
struct Test<A, F>(PhantomData<(A, F)>);
impl<A: Lane, F: Fn(i64, A) -> bool + Copy> Exec for Test<A, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (f, imm) = (conjure::<F>(), inst.imm);
        let inst = Inst { b: inst.a, ..*inst };
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let bits = test_lanes::<A, A>(
                cx,
                &inst,
                mask,
                #[inline(always)]
                |a, _| f(imm, a),
            );
            write_pred(cx, inst.d, mask, bits);
        }
        Flow::Next
    }
}

fn test<A: Lane, F: Fn(i64, A) -> bool + Copy + 'static>(_: F) -> OpFn {
    common::<Test<A, F>>()
}

const TESTS: [(&str, Testp); 6] = [
    ("finite", Testp::Finite),
    ("infinite", Testp::Infinite),
    ("number", Testp::Number),
    ("notanumber", Testp::NotANumber),
    ("normal", Testp::Normal),
    ("subnormal", Testp::Subnormal),
];

/// The two-operand instruction on halves of one kind.
fn half2<H: Half>(opcode: &str, packed: bool) -> Option<OpFn> {
    Some(match (opcode, packed) {
        ("add", false) => slow2i(|imm, a: u16, b: u16| half::add::<H>(a, b, unpack(imm))),
        ("sub", false) => slow2i(|imm, a: u16, b: u16| half::sub::<H>(a, b, unpack(imm))),
        ("mul", false) => slow2i(|imm, a: u16, b: u16| half::mul::<H>(a, b, unpack(imm))),
        ("min", false) => slow2i(|imm, a: u16, b: u16| half::min::<H>(a, b, min_max(imm))),
        ("max", false) => slow2i(|imm, a: u16, b: u16| half::max::<H>(a, b, min_max(imm))),
        ("add", true) => slow2i(|imm, a, b| half::x2_2(a, b, |a, b| half::add::<H>(a, b, unpack(imm)))),
        ("sub", true) => slow2i(|imm, a, b| half::x2_2(a, b, |a, b| half::sub::<H>(a, b, unpack(imm)))),
        ("mul", true) => slow2i(|imm, a, b| half::x2_2(a, b, |a, b| half::mul::<H>(a, b, unpack(imm)))),
        ("min", true) => slow2i(|imm, a, b| half::x2_2(a, b, |a, b| half::min::<H>(a, b, min_max(imm)))),
        ("max", true) => slow2i(|imm, a, b| half::x2_2(a, b, |a, b| half::max::<H>(a, b, min_max(imm)))),
        _ => return None,
    })
}

fn half1<H: Half>(opcode: &str, packed: bool) -> Option<OpFn> {
    Some(match (opcode, packed) {
        ("neg", false) => slow1i(|imm, a: u16| half::neg::<H>(a, imm & 8 != 0)),
        ("abs", false) => slow1i(|imm, a: u16| half::abs::<H>(a, imm & 8 != 0)),
        ("ex2", false) => slow1i(|imm, a: u16| half::ex2_approx::<H>(a, imm & 8 != 0)),
        ("tanh", false) => slow1i(|_, a: u16| half::tanh_approx::<H>(a)),
        ("neg", true) => slow1i(|imm, a| half::x2_1(a, |a| half::neg::<H>(a, imm & 8 != 0))),
        ("abs", true) => slow1i(|imm, a| half::x2_1(a, |a| half::abs::<H>(a, imm & 8 != 0))),
        ("ex2", true) => slow1i(|imm, a| half::x2_1(a, |a| half::ex2_approx::<H>(a, imm & 8 != 0))),
        ("tanh", true) => slow1i(|_, a| half::x2_1(a, half::tanh_approx::<H>)),
        _ => return None,
    })
}

fn half_fma<H: Half>(packed: bool) -> OpFn {
    if packed {
        slow3i(|imm, a, b, c| {
            half::x2_3(a, b, c, |a, b, c| half::fma::<H>(a, b, c, unpack(imm), imm & 32 != 0))
        })
    } else {
        slow3i(|imm, a: u16, b: u16, c: u16| half::fma::<H>(a, b, c, unpack(imm), imm & 32 != 0))
    }
}

/// Two singles in one 64-bit register.
fn pair(a: u64, b: u64, c: u64, f: impl Fn(f32, f32, f32) -> f32) -> u64 {
    let half = |v: u64, at: u32| f32::from_bits((v >> at) as u32);
    let low = f(half(a, 0), half(b, 0), half(c, 0)).to_bits();
    let high = f(half(a, 32), half(b, 32), half(c, 32)).to_bits();
    u64::from(low) | u64::from(high) << 32
}

impl<'a> Lower<'_, 'a> {
    /// Lowers floating-point arithmetic; false when the opcode belongs elsewhere.
    pub(super) fn floating(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "add" | "sub" | "mul" | "min" | "max" | "div" => self.float_two(i, m)?,
            "fma" | "mad" => self.fma(i, m)?,
            "neg" | "abs" | "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "ex2" | "lg2" | "tanh" => {
                self.float_one(i, m)?;
            }
            "copysign" => {
                let ty = m.ty()?;
                let run = match ty {
                    Ty::F32 => Some(op2(float::copysign_f32)),
                    Ty::F64 => Some(op2(float::copysign_f64)),
                    _ => None,
                };
                self.simple(i, m, run, ty, &[ty, ty])?;
            }
            "testp" => {
                let kind = m.take(|name| TESTS.iter().position(|(test, _)| *test == name));
                let Some(kind) = kind else { return m.error("the property is missing") };
                let ty = m.ty()?;
                let run = match ty {
                    Ty::F32 => Some(test(|imm, a: f32| float::testp_f32(TESTS[imm as usize % 6].1, a))),
                    Ty::F64 => Some(test(|imm, a: f64| float::testp_f64(TESTS[imm as usize % 6].1, a))),
                    _ => None,
                };
                self.simple(i, m, run, Ty::Pred, &[ty])?;
                self.out.code.last_mut().expect("emitted above").imm = i64::try_from(kind).unwrap_or(0);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Emits a float instruction whose mode travels in `imm`.
    fn moded(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        run: Option<OpFn>,
        tys: &[Ty],
        imm: i64,
    ) -> Result<()> {
        self.simple(i, m, run, tys[0], &tys[1..])?;
        self.out.code.last_mut().expect("emitted above").imm = imm;
        Ok(())
    }

    fn float_two(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let (approx_, full) = (m.flag("approx"), m.flag("full"));
        let nan = m.flag("NaN");
        let (xorsign, abs) = (m.flag("xorsign"), m.flag("abs"));
        let mode = m.float_mode();
        let ty = m.ty()?;
        let plain = mode == FloatMode::RN;
        let mut imm = pack(mode) | i64::from(nan) << 6 | i64::from(xorsign && abs) << 7;
        if let Some(from) = m.maybe_ty() {
            return self.mixed(i, m, ty, from, mode);
        }
        let run = match (ty, i.opcode) {
            (Ty::F32, "add") if plain => Some(op2(|a, b| float::add_f32(a, b, FloatMode::RN))),
            (Ty::F32, "sub") if plain => Some(op2(|a, b| float::sub_f32(a, b, FloatMode::RN))),
            (Ty::F32, "mul") if plain => Some(op2(|a, b| float::mul_f32(a, b, FloatMode::RN))),
            (Ty::F32, "add") if mode == FloatMode::RN_FTZ => {
                Some(op2(|a, b| float::add_f32(a, b, FloatMode::RN_FTZ)))
            }
            (Ty::F32, "sub") if mode == FloatMode::RN_FTZ => {
                Some(op2(|a, b| float::sub_f32(a, b, FloatMode::RN_FTZ)))
            }
            (Ty::F32, "mul") if mode == FloatMode::RN_FTZ => {
                Some(op2(|a, b| float::mul_f32(a, b, FloatMode::RN_FTZ)))
            }
            (Ty::F32, "add") => Some(slow2i(|imm, a, b| float::add_f32(a, b, unpack(imm)))),
            (Ty::F32, "sub") => Some(slow2i(|imm, a, b| float::sub_f32(a, b, unpack(imm)))),
            (Ty::F32, "mul") => Some(slow2i(|imm, a, b| float::mul_f32(a, b, unpack(imm)))),
            (Ty::F32, "div") if approx_ => {
                Some(slow2i(|imm, a, b| approx::div_approx_f32(a, b, imm & 8 != 0)))
            }
            (Ty::F32, "div") if full => Some(slow2i(|imm, a, b| approx::div_full_f32(a, b, imm & 8 != 0))),
            (Ty::F32, "div") if plain => Some(op2(|a, b| float::div_f32(a, b, FloatMode::RN))),
            (Ty::F32, "div") => Some(slow2i(|imm, a, b| float::div_f32(a, b, unpack(imm)))),
            (Ty::F32, "min") => Some(op2i(|imm, a, b| float::min_f32(a, b, min_max(imm)))),
            (Ty::F32, "max") => Some(op2i(|imm, a, b| float::max_f32(a, b, min_max(imm)))),
            (Ty::F64, "add") if plain => Some(op2(|a, b| float::add_f64(a, b, Round::Rn))),
            (Ty::F64, "sub") if plain => Some(op2(|a, b| float::sub_f64(a, b, Round::Rn))),
            (Ty::F64, "mul") if plain => Some(op2(|a, b| float::mul_f64(a, b, Round::Rn))),
            (Ty::F64, "div") if plain => Some(op2(|a, b| float::div_f64(a, b, Round::Rn))),
            (Ty::F64, "add") => Some(slow2i(|imm, a, b| float::add_f64(a, b, unpack(imm).round))),
            (Ty::F64, "sub") => Some(slow2i(|imm, a, b| float::sub_f64(a, b, unpack(imm).round))),
            (Ty::F64, "mul") => Some(slow2i(|imm, a, b| float::mul_f64(a, b, unpack(imm).round))),
            (Ty::F64, "div") => Some(slow2i(|imm, a, b| float::div_f64(a, b, unpack(imm).round))),
            (Ty::F64, "min") => Some(op2(float::min_f64)),
            (Ty::F64, "max") => Some(op2(float::max_f64)),
            (Ty::F16, opcode) => half2::<F16>(opcode, false),
            (Ty::F16x2, opcode) => half2::<F16>(opcode, true),
            (Ty::Bf16, opcode) => half2::<Bf16>(opcode, false),
            (Ty::Bf16x2, opcode) => half2::<Bf16>(opcode, true),
            (Ty::F32x2, "add") => {
                Some(slow2i(|imm, a, b| pair(a, b, b, |a, b, _| float::add_f32(a, b, unpack(imm)))))
            }
            (Ty::F32x2, "sub") => {
                Some(slow2i(|imm, a, b| pair(a, b, b, |a, b, _| float::sub_f32(a, b, unpack(imm)))))
            }
            (Ty::F32x2, "mul") => {
                Some(slow2i(|imm, a, b| pair(a, b, b, |a, b, _| float::mul_f32(a, b, unpack(imm)))))
            }
            _ => None,
        };
        if xorsign != abs {
            return m.error(".xorsign and .abs go together");
        }
        if ty == Ty::F64 && (mode.ftz || mode.sat || nan) {
            return m.error("modifiers do not fit .f64");
        }
        if matches!(i.opcode, "min" | "max") && i.operands.len() == 4 {
            // Three inputs: two instructions of two.
            let run = run.filter(|_| ty == Ty::F32);
            let Some(run) = run else { return m.error("three inputs are not supported for this type") };
            let (a, b, c) = (self.src(i, 1, ty)?, self.src(i, 2, ty)?, self.src(i, 3, ty)?);
            let t = self.fresh(super::Class::R32);
            let d = self.dst(i, 0, ty)?;
            imm &= !128;
            self.emit(run, t, [a, b, V::NONE], imm);
            self.emit(run, d, [t, c, V::NONE], imm);
            return Ok(());
        }
        self.moded(i, m, run, &[ty, ty, ty], imm)
    }

    /// `add.f32.f16 d, a, c` and `fma.f32.bf16`: narrower inputs, single precision result.
    fn mixed(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        to: Ty,
        from: Ty,
        mode: FloatMode,
    ) -> Result<()> {
        let run = match (to, from, i.opcode) {
            (Ty::F32, Ty::F16, "add") => {
                slow2i(|imm, a: u16, b: f32| float::add_f32(F16::to_f32(a), b, unpack(imm)))
            }
            (Ty::F32, Ty::Bf16, "add") => {
                slow2i(|imm, a: u16, b: f32| float::add_f32(Bf16::to_f32(a), b, unpack(imm)))
            }
            (Ty::F32, Ty::F16, "sub") => {
                slow2i(|imm, a: u16, b: f32| float::sub_f32(F16::to_f32(a), b, unpack(imm)))
            }
            (Ty::F32, Ty::Bf16, "sub") => {
                slow2i(|imm, a: u16, b: f32| float::sub_f32(Bf16::to_f32(a), b, unpack(imm)))
            }
            (Ty::F32, Ty::F16, "fma") => slow3i(|imm, a: u16, b: u16, c: f32| {
                float::fma_f32(F16::to_f32(a), F16::to_f32(b), c, unpack(imm))
            }),
            (Ty::F32, Ty::Bf16, "fma") => slow3i(|imm, a: u16, b: u16, c: f32| {
                float::fma_f32(Bf16::to_f32(a), Bf16::to_f32(b), c, unpack(imm))
            }),
            _ => return m.error("these types are not supported"),
        };
        let tys: &[Ty] = if i.opcode == "fma" { &[to, from, from, to] } else { &[to, from, to] };
        self.moded(i, m, Some(run), tys, pack(mode))
    }

    fn fma(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let relu = m.flag("relu");
        let mode = m.float_mode();
        let ty = m.ty()?;
        if let Some(from) = m.maybe_ty() {
            return self.mixed(i, m, ty, from, mode);
        }
        let run = match ty {
            Ty::F32 if mode == FloatMode::RN => op3(|a, b, c| float::fma_f32(a, b, c, FloatMode::RN)),
            Ty::F32 if mode == FloatMode::RN_FTZ => op3(|a, b, c| float::fma_f32(a, b, c, FloatMode::RN_FTZ)),
            Ty::F32 => slow3i(|imm, a, b, c| float::fma_f32(a, b, c, unpack(imm))),
            Ty::F64 if mode == FloatMode::RN => op3(|a, b, c| float::fma_f64(a, b, c, Round::Rn)),
            Ty::F64 => slow3i(|imm, a, b, c| float::fma_f64(a, b, c, unpack(imm).round)),
            Ty::F16 => half_fma::<F16>(false),
            Ty::F16x2 => half_fma::<F16>(true),
            Ty::Bf16 => half_fma::<Bf16>(false),
            Ty::Bf16x2 => half_fma::<Bf16>(true),
            Ty::F32x2 => slow3i(|imm, a, b, c| pair(a, b, c, |a, b, c| float::fma_f32(a, b, c, unpack(imm)))),
            _ => return m.error("this type is not supported"),
        };
        if relu && !matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) {
            return m.error(".relu does not fit this type");
        }
        self.moded(i, m, Some(run), &[ty; 4], pack(mode) | i64::from(relu) << 5)
    }

    fn float_one(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let approximate = m.flag("approx");
        let mode = m.float_mode();
        let ty = m.ty()?;
        let run = match (ty, i.opcode, approximate) {
            (Ty::F32, "neg", _) => Some(op1i(|imm, a| float::neg_f32(a, imm & 8 != 0))),
            (Ty::F32, "abs", _) => Some(op1i(|imm, a| float::abs_f32(a, imm & 8 != 0))),
            (Ty::F64, "neg", _) => Some(op1(float::neg_f64)),
            (Ty::F64, "abs", _) => Some(op1(float::abs_f64)),
            (Ty::F32, "rcp", true) => Some(slow1i(|imm, a| approx::rcp_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "rcp", false) => Some(slow1i(|imm, a| float::rcp_f32(a, unpack(imm)))),
            (Ty::F64, "rcp", true) if mode.ftz => Some(op1(approx::rcp_approx_ftz_f64)),
            (Ty::F64, "rcp", false) => Some(slow1i(|imm, a| float::rcp_f64(a, unpack(imm).round))),
            (Ty::F32, "sqrt", true) => Some(slow1i(|imm, a| approx::sqrt_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "sqrt", false) => Some(slow1i(|imm, a| float::sqrt_f32(a, unpack(imm)))),
            (Ty::F64, "sqrt", false) => Some(slow1i(|imm, a| float::sqrt_f64(a, unpack(imm).round))),
            (Ty::F32, "rsqrt", _) => Some(slow1i(|imm, a| approx::rsqrt_approx_f32(a, imm & 8 != 0))),
            (Ty::F64, "rsqrt", _) => Some(slow1i(|imm, a| approx::rsqrt_approx_f64(a, imm & 8 != 0))),
            (Ty::F32, "sin", _) => Some(slow1i(|imm, a| approx::sin_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "cos", _) => Some(slow1i(|imm, a| approx::cos_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "ex2", _) => Some(slow1i(|imm, a| approx::ex2_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "lg2", _) => Some(slow1i(|imm, a| approx::lg2_approx_f32(a, imm & 8 != 0))),
            (Ty::F32, "tanh", _) => Some(op1(approx::tanh_approx_f32)),
            (Ty::F16, opcode, _) => half1::<F16>(opcode, false),
            (Ty::F16x2, opcode, _) => half1::<F16>(opcode, true),
            (Ty::Bf16, opcode, _) => half1::<Bf16>(opcode, false),
            (Ty::Bf16x2, opcode, _) => half1::<Bf16>(opcode, true),
            _ => None,
        };
        if mode.sat {
            return m.error("modifier .sat is not supported");
        }
        self.moded(i, m, run, &[ty, ty], pack(mode))
    }
}
