//! `cvt` and `cvt.pack` (PTX ISA section "Data Movement and Conversion Instructions: cvt").

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fields of a packed word, and conversions that drop bits"
)]

use std::marker::PhantomData;

use super::modifiers::Modifiers;
use super::operands::Truncate;
use super::{Class, Lower, Result, V};
use crate::exec::op::{
    Cx, Exec, Flow, Inst, Lane, Lanes, Mask, OpFn, common, lane, op1, set_lane, slow1, slow1i, slow2i, slow3i,
};
use crate::isa::Round;
use crate::isa::cvt::{self, CvtMode, Num};
use crate::isa::half::{F16, Half};
use crate::ptx::Ty;
use crate::ptx::ast::Instruction;

const NUMS: [(Ty, Num); 15] = [
    (Ty::U8, Num::U8),
    (Ty::U16, Num::U16),
    (Ty::U32, Num::U32),
    (Ty::U64, Num::U64),
    (Ty::S8, Num::S8),
    (Ty::S16, Num::S16),
    (Ty::S32, Num::S32),
    (Ty::S64, Num::S64),
    (Ty::F16, Num::F16),
    (Ty::Bf16, Num::Bf16),
    (Ty::Tf32, Num::Tf32),
    (Ty::F32, Num::F32),
    (Ty::F64, Num::F64),
    (Ty::E4m3, Num::E4m3),
    (Ty::E5m2, Num::E5m2),
];

const ROUNDS: [Round; 5] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp, Round::Rna];

/// Packs types and mode into `imm`.
fn pack(to: usize, from: usize, mode: CvtMode) -> i64 {
    let round = ROUNDS.iter().position(|round| *round == mode.round).unwrap_or(0);
    let flags = [mode.integral, mode.ftz, mode.sat, mode.relu, mode.satfinite];
    let bits = flags.iter().enumerate().fold(0usize, |sum, (at, flag)| sum | usize::from(*flag) << at);
    i64::try_from(to | from << 4 | round << 8 | bits << 12).unwrap_or(0)
}

fn unpack(imm: i64) -> (Num, Num, CvtMode) {
    let at = |shift: u32| (imm >> shift & 15) as usize;
    let mode = CvtMode {
        round: ROUNDS[at(8) % 5],
        integral: imm >> 12 & 1 != 0,
        ftz: imm >> 13 & 1 != 0,
        sat: imm >> 14 & 1 != 0,
        relu: imm >> 15 & 1 != 0,
        satfinite: imm >> 16 & 1 != 0,
    };
    (NUMS[at(0) % 15].1, NUMS[at(4) % 15].1, mode)
}

/// Any scalar conversion; `WIDTH` is that of the destination register.
struct Convert<S, D, const WIDTH: u32>(PhantomData<(S, D)>);
impl<S: Lane + Into<u64>, D: Lane + Truncate, const WIDTH: u32> Exec for Convert<S, D, WIDTH> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (to, from, mode) = unpack(inst.imm);
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe {
                let bits = cvt::convert(to, from, mode, lane::<S>(cx, inst.a, at).into());
                let bits = if WIDTH < 32 { bits & ((1 << WIDTH) - 1) } else { bits };
                set_lane(cx, inst.d, at, D::truncate(bits));
            }
        }
        Flow::Next
    }
}

fn num(ty: Ty) -> Option<usize> {
    let ty = match ty {
        Ty::B8 => Ty::U8,
        Ty::B16 => Ty::U16,
        Ty::B32 => Ty::U32,
        Ty::B64 => Ty::U64,
        ty => ty,
    };
    NUMS.iter().position(|(name, _)| *name == ty)
}

/// Instances for the conversions that programs run in loops; registers as wide as the types.
fn usual(to: Ty, from: Ty, mode: CvtMode, rounded: bool) -> Option<OpFn> {
    let plain = CvtMode { round: Round::Rn, ..CvtMode::default() };
    let toward_zero = CvtMode { round: Round::Rz, integral: true, ..CvtMode::default() };
    if mode == plain {
        return Some(match (to, from) {
            (Ty::U64, Ty::U32) => op1(|a: u32| u64::from(a)),
            (Ty::S64, Ty::S32) => op1(|a: i32| i64::from(a)),
            (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64) => op1(|a: u64| a as u32),
            (Ty::U32 | Ty::S32, Ty::U16) => slow1(|a: u16| u32::from(a)),
            (Ty::U32 | Ty::S32, Ty::S16) => slow1(|a: i16| i32::from(a)),
            (Ty::U16 | Ty::S16, Ty::U32 | Ty::S32) => slow1(|a: u32| a as u16),
            (Ty::U32 | Ty::S32, Ty::U8) => slow1(|a: u8| u32::from(a)),
            (Ty::U32 | Ty::S32, Ty::S8) => slow1(|a: i8| i32::from(a)),
            (Ty::F64, Ty::F32) => op1(|a: f32| f64::from(a)),
            (Ty::F32, Ty::F16) if !rounded => slow1(|a: u16| F16::to_f32(a)),
            (Ty::F32, Ty::S32) => op1(|a: i32| cvt::int_to_f32(a, Round::Rn)),
            (Ty::F32, Ty::U32) => op1(|a: u32| cvt::int_to_f32(a, Round::Rn)),
            (Ty::F64, Ty::S32) => op1(|a: i32| f64::from(a)),
            (Ty::F64, Ty::U32) => slow1(|a: u32| f64::from(a)),
            (Ty::F32, Ty::F64) => op1(|a: f64| cvt::f64_to_f32(a, Round::Rn, false, false)),
            _ => return None,
        });
    }
    if mode == toward_zero {
        return Some(match (to, from) {
            (Ty::S32, Ty::F32) => op1(|a: f32| cvt::f32_to_int::<i32>(a, Round::Rz)),
            (Ty::U32, Ty::F32) => op1(|a: f32| cvt::f32_to_int::<u32>(a, Round::Rz)),
            (Ty::S32, Ty::F64) => slow1(|a: f64| cvt::f64_to_int::<i32>(a, Round::Rz)),
            _ => return None,
        });
    }
    None
}

impl<'a> Lower<'_, 'a> {
    /// Lowers `cvt`; false for other opcodes.
    pub(super) fn convert(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        if i.opcode != "cvt" {
            return Ok(false);
        }
        if m.flag("pack") {
            self.cvt_pack(i, m)?;
            return Ok(true);
        }
        let integral = m.take(|name| {
            Some(match name {
                "rni" => Round::Rn,
                "rzi" => Round::Rz,
                "rmi" => Round::Rm,
                "rpi" => Round::Rp,
                _ => return None,
            })
        });
        let round = m.round();
        let mode = CvtMode {
            round: integral.or(round).unwrap_or_default(),
            integral: integral.is_some(),
            ftz: m.flag("ftz"),
            sat: m.flag("sat"),
            relu: m.flag("relu"),
            satfinite: m.flag("satfinite"),
        };
        let (to, from) = (m.ty()?, m.ty()?);
        let packed = |ty| matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2);
        if packed(to) || packed(from) {
            self.cvt_packed(i, m, to, from, mode)?;
            return Ok(true);
        }
        self.operand_count(i, 2, 2)?;
        let (Some(to_num), Some(from_num)) = (num(to), num(from)) else {
            return m.error("these types are not supported");
        };
        // Registers may be wider than the types (ISA section "Operand Size Exceeding Instruction-Type Size").
        let source = self.operand(i, 1)?;
        let source_ty = self.declared(source).unwrap_or(from);
        let target = self.operand(i, 0)?;
        let target_ty = self.declared(target).unwrap_or(to);
        if source_ty.bytes() < from.bytes() || target_ty.bytes() < to.bytes() {
            return m.error("a register is narrower than its type");
        }
        let (s_class, d_class) = (Self::class_of(source_ty), Self::class_of(target_ty));
        let a = self.value(source, if s_class == Class::R64 { widest(from) } else { from })?;
        let d = self.target(target, d_class)?;
        let exact =
            target_ty.bytes() == to.bytes() || (d_class == Class::R32 && to.bytes() < 4 && !to.signed());
        if exact
            && s_class == Self::class_of(from)
            && let Some(run) = usual(to, from, mode, round.is_some() || integral.is_some())
        {
            self.emit(run, d, [a, V::NONE, V::NONE], 0);
            return Ok(true);
        }
        let width = target_ty.bytes() * 8;
        let run = match (s_class, d_class, width) {
            (Class::R32, Class::R32, 8) => common::<Convert<u32, u32, 8>>(),
            (Class::R32, Class::R32, 16) => common::<Convert<u32, u32, 16>>(),
            (Class::R32, Class::R32, _) => common::<Convert<u32, u32, 32>>(),
            (Class::R32, Class::R64, _) => common::<Convert<u32, u64, 64>>(),
            (Class::R64, Class::R32, 8) => common::<Convert<u64, u32, 8>>(),
            (Class::R64, Class::R32, 16) => common::<Convert<u64, u32, 16>>(),
            (Class::R64, Class::R32, _) => common::<Convert<u64, u32, 32>>(),
            (Class::R64, Class::R64, _) => common::<Convert<u64, u64, 64>>(),
            _ => return m.error("a predicate cannot be converted"),
        };
        self.emit(run, d, [a, V::NONE, V::NONE], pack(to_num, from_num, mode));
        Ok(true)
    }

    /// Conversions to and from packed pairs.
    fn cvt_packed(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        to: Ty,
        from: Ty,
        mode: CvtMode,
    ) -> Result<()> {
        let element = |ty| {
            num(match ty {
                Ty::F16x2 => Ty::F16,
                Ty::Bf16x2 => Ty::Bf16,
                Ty::E4m3x2 => Ty::E4m3,
                Ty::E5m2x2 => Ty::E5m2,
                ty => ty,
            })
        };
        let (Some(to_num), Some(from_num)) = (element(to), element(from)) else {
            return m.error("these types are not supported");
        };
        let imm = pack(to_num, from_num, mode);
        let d = self.dst(i, 0, if to.bytes() == 2 { Ty::B16 } else { Ty::B32 })?;
        match (to, from) {
            (_, Ty::F32) => {
                self.operand_count(i, 3, 3)?;
                let (a, b) = (self.src(i, 1, Ty::F32)?, self.src(i, 2, Ty::F32)?);
                let run = slow2i(|imm, a: f32, b: f32| {
                    let (to, _, mode) = unpack(imm);
                    cvt::convert_x2(to, mode, a, b).unwrap_or(0)
                });
                self.emit(run, d, [a, b, V::NONE], imm);
            }
            (Ty::E4m3x2 | Ty::E5m2x2, Ty::F16x2) => {
                self.operand_count(i, 2, 2)?;
                let a = self.src(i, 1, Ty::B32)?;
                let run = slow1i(|imm, a: u32| {
                    let (to, _, mode) = unpack(imm);
                    cvt::f16x2_to_fp8x2(to, mode, a).unwrap_or(0)
                });
                self.emit(run, d, [a, V::NONE, V::NONE], imm);
            }
            (Ty::F16x2, Ty::E4m3x2 | Ty::E5m2x2) => {
                self.operand_count(i, 2, 2)?;
                let a = self.src(i, 1, Ty::B16)?;
                let run = slow1i(|imm, a: u16| {
                    let (_, from, mode) = unpack(imm);
                    cvt::fp8x2_to_f16x2(from, mode, a).unwrap_or(0)
                });
                self.emit(run, d, [a, V::NONE, V::NONE], imm);
            }
            _ => return m.error("these types are not supported"),
        }
        Ok(())
    }

    /// `cvt.pack.sat.convertType.abType[.cType] d, a, b[, c]`.
    fn cvt_pack(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        if !m.flag("sat") {
            return m.error(".sat is missing");
        }
        let narrow = m.take(|name| {
            Some(match name {
                "u16" => (16, false),
                "s16" => (16, true),
                "u8" => (8, false),
                "s8" => (8, true),
                "u4" => (4, false),
                "s4" => (4, true),
                "u2" => (2, false),
                "s2" => (2, true),
                _ => return None,
            })
        });
        let Some((width, signed)) = narrow else { return m.error("the narrow type is missing") };
        if m.ty()? != Ty::S32 {
            return m.error("sources are .s32");
        }
        let third = m.maybe_ty().is_some();
        self.operand_count(i, if third { 4 } else { 3 }, if third { 4 } else { 3 })?;
        let (a, b) = (self.src(i, 1, Ty::S32)?, self.src(i, 2, Ty::S32)?);
        let c = if third {
            self.src(i, 3, Ty::B32)?
        } else {
            self.constant(Class::R32, crate::exec::special::Value::Bits(0))
        };
        let d = self.dst(i, 0, Ty::B32)?;
        let run =
            slow3i(|imm, a: i32, b: i32, c: u32| cvt::pack((imm & 0xff) as u32, imm & 0x100 != 0, a, b, c));
        self.emit(run, d, [a, b, c], width | i64::from(signed) << 8);
        Ok(())
    }
}

/// The 64-bit type of the same kind, for a source register that is wider than the type.
fn widest(ty: Ty) -> Ty {
    if ty.bytes() == 8 { ty } else { Ty::B64 }
}
