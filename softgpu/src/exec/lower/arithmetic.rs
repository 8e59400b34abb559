//! Integer arithmetic (PTX ISA sections "Integer Arithmetic", "Extended-Precision Integer Arithmetic"), bit
//! counting and field instructions.

use std::marker::PhantomData;

use super::{Lower, Result, V};
use crate::exec::op::{
    Cx, Exec, Flow, Inst, Lane, Lanes, Mask, OpFn, common, lane, op1, op2, op3, set_lane, slow1, slow2,
    slow3, slow3i,
};
use crate::isa::int;
use crate::ptx::Ty;
use crate::ptx::ast::Instruction;

use super::modifiers::Modifiers;

/// Types of instructions that exist for 32 bits (and 64) only.
macro_rules! words {
    ($ty:expr, |$t:ident| $e:expr) => {
        match $ty {
            Ty::U32 | Ty::B32 => {
                type $t = u32;
                Some($e)
            }
            Ty::S32 => {
                type $t = i32;
                Some($e)
            }
            Ty::U64 | Ty::B64 => {
                type $t = u64;
                Some($e)
            }
            Ty::S64 => {
                type $t = i64;
                Some($e)
            }
            _ => None,
        }
    };
}

/// Types of 16 bits.
macro_rules! shorts {
    ($ty:expr, |$t:ident| $e:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => {
                type $t = u16;
                Some($e)
            }
            Ty::S16 => {
                type $t = i16;
                Some($e)
            }
            _ => None,
        }
    };
}

/// Instantiates an expression for the integer type of a specifier.
macro_rules! ints {
    ($ty:expr, |$t:ident| $e:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => {
                type $t = u16;
                Some($e)
            }
            Ty::S16 => {
                type $t = i16;
                Some($e)
            }
            _ => words!($ty, |$t| $e),
        }
    };
}

/// The same where the sign does not matter; `$fast` for 32 and 64 bits, `$slow` for 16.
macro_rules! widths {
    ($ty:expr, |$t:ident| $fast:expr, $slow:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 | Ty::S16 => {
                type $t = u16;
                Some($slow)
            }
            Ty::U32 | Ty::B32 | Ty::S32 => {
                type $t = u32;
                Some($fast)
            }
            Ty::U64 | Ty::B64 | Ty::S64 => {
                type $t = u64;
                Some($fast)
            }
            _ => None,
        }
    };
}
pub(super) use widths;

/// `d = f(a, b, c, carry in)` with the carry flag: bit 0 of `imm` reads it, bit 1 writes it.
struct Carry<T, F>(PhantomData<(T, F)>);
impl<T: Lane, F: Fn(T, T, T, bool) -> (T, bool) + Copy> Exec for Carry<T, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = crate::exec::op::conjure::<F>();
        let carry_in = if inst.imm & 1 != 0 { cx.carry } else { 0 };
        let mut carry_out = 0;
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe {
                let (a, b, c) = (lane(cx, inst.a, at), lane(cx, inst.b, at), lane(cx, inst.c, at));
                let (value, carry) = f(a, b, c, carry_in >> at & 1 != 0);
                set_lane(cx, inst.d, at, value);
                carry_out |= u32::from(carry) << at;
            }
        }
        if inst.imm & 2 != 0 {
            cx.carry = (cx.carry & !mask) | carry_out;
        }
        Flow::Next
    }
}

fn carry<T: Lane, F: Fn(T, T, T, bool) -> (T, bool) + Copy + 'static>(_: F) -> OpFn {
    common::<Carry<T, F>>()
}

/// The result's type of a widening multiplication.
fn wide(ty: Ty) -> Option<Ty> {
    Some(match ty {
        Ty::U16 => Ty::U32,
        Ty::S16 => Ty::S32,
        Ty::U32 => Ty::U64,
        Ty::S32 => Ty::S64,
        _ => return None,
    })
}

impl<'a> Lower<'_, 'a> {
    /// Lowers an integer instruction; false when the opcode or its type belongs elsewhere.
    pub(super) fn arithmetic(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        if m.any_float() {
            return Ok(false);
        }
        match i.opcode {
            "add" | "sub" | "addc" | "subc" => self.add_sub(i, m)?,
            "mul" | "mad" | "madc" => self.mul_mad(i, m)?,
            "div" | "rem" | "min" | "max" => self.two(i, m)?,
            "abs" | "neg" => {
                let ty = m.ty()?;
                let run = match i.opcode {
                    "abs" => ints!(ty, |T| slow1(|a: T| int::abs(a))),
                    _ => widths!(ty, |T| op1(|a: T| int::neg(a)), slow1(|a: T| int::neg(a))),
                };
                self.simple(i, m, run, ty, &[ty])?;
            }
            "sad" => {
                let ty = m.ty()?;
                let run = ints!(ty, |T| slow3(|a: T, b: T, c: T| int::sad(a, b, c)));
                self.simple(i, m, run, ty, &[ty, ty, ty])?;
            }
            "mul24" | "mad24" => self.mul24(i, m)?,
            "popc" | "clz" | "bfind" => {
                let shift = m.flag("shiftamt");
                let ty = m.ty()?;
                let run = match (i.opcode, shift) {
                    ("popc", false) => words!(ty, |T| slow1(|a: T| int::popc(a))),
                    ("clz", false) => words!(ty, |T| slow1(|a: T| int::clz(a))),
                    ("bfind", false) => words!(ty, |T| slow1(|a: T| int::bfind(a))),
                    ("bfind", true) => words!(ty, |T| slow1(|a: T| int::bfind_shiftamt(a))),
                    _ => None,
                };
                self.simple(i, m, run, Ty::U32, &[ty])?;
            }
            "brev" => {
                let ty = m.ty()?;
                let run = words!(ty, |T| slow1(|a: T| int::brev(a)));
                self.simple(i, m, run, ty, &[ty])?;
            }
            "bfe" => {
                let ty = m.ty()?;
                let run = words!(ty, |T| slow3(|a: T, b: u32, c: u32| int::bfe(a, b & 0xff, c & 0xff)));
                self.simple(i, m, run, ty, &[ty, Ty::U32, Ty::U32])?;
            }
            "bfi" => self.bfi(i, m)?,
            "bmsk" => {
                let mode = m.one_of(&["clamp", "wrap"]);
                let ty = m.ty()?;
                let run = match mode {
                    Some("clamp") => Some(slow2(int::bmsk_clamp)),
                    _ => Some(slow2(int::bmsk_wrap)),
                };
                self.simple(i, m, run, ty, &[Ty::B32, Ty::B32])?;
            }
            "szext" => {
                let mode = m.one_of(&["clamp", "wrap"]);
                let ty = m.ty()?;
                let run = match (mode, ty) {
                    (Some("clamp"), Ty::S32) => Some(slow2(|a: i32, b: u32| int::szext_clamp(a, b))),
                    (Some("clamp"), Ty::U32) => Some(slow2(|a: u32, b: u32| int::szext_clamp(a, b))),
                    (_, Ty::S32) => Some(slow2(|a: i32, b: u32| int::szext_wrap(a, b))),
                    (_, Ty::U32) => Some(slow2(|a: u32, b: u32| int::szext_wrap(a, b))),
                    _ => None,
                };
                self.simple(i, m, run, ty, &[ty, Ty::U32])?;
            }
            "fns" => {
                let ty = m.ty()?;
                let run = Some(slow3(|a: u32, b: u32, c: i32| int::fns(a, b, c)));
                self.simple(i, m, run, ty, &[Ty::B32, Ty::B32, Ty::S32])?;
            }
            "dp4a" | "dp2a" => {
                let half = m.one_of(&["lo", "hi"]);
                let (x, y) = (m.ty()?, m.ty()?);
                let imm =
                    i64::from(x.signed()) | i64::from(y.signed()) << 1 | i64::from(half == Some("hi")) << 2;
                let run = match i.opcode {
                    "dp4a" => {
                        slow3i(|imm, a: u32, b: u32, c: u32| int::dp4a(a, imm & 1 != 0, b, imm & 2 != 0, c))
                    }
                    _ => slow3i(|imm, a: u32, b: u32, c: u32| {
                        int::dp2a(a, imm & 1 != 0, b, imm & 2 != 0, c, imm & 4 != 0)
                    }),
                };
                self.operand_count(i, 4, 4)?;
                let d = self.dst(i, 0, Ty::B32)?;
                let abc = [self.src(i, 1, Ty::B32)?, self.src(i, 2, Ty::B32)?, self.src(i, 3, Ty::B32)?];
                self.emit(run, d, abc, imm);
            }
            "vabsdiff4" | "vadd4" | "vsub4" | "vavrg4" | "vmin4" | "vmax4" => self.video(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Emits `d = run(sources)` with operand types; `run` is `None` where the type does not fit the opcode.
    pub(super) fn simple(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        run: Option<OpFn>,
        d: Ty,
        sources: &[Ty],
    ) -> Result<()> {
        let Some(run) = run else { return m.error("this type is not supported") };
        self.operand_count(i, sources.len() + 1, sources.len() + 1)?;
        let mut abc = [V::NONE; 3];
        for (index, ty) in sources.iter().enumerate() {
            abc[index] = self.src(i, index + 1, *ty)?;
        }
        let d = self.dst(i, 0, d)?;
        self.emit(run, d, abc, 0);
        Ok(())
    }

    fn add_sub(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let (sat, cc) = (m.flag("sat"), m.flag("cc"));
        let ty = m.ty()?;
        let carries = i.opcode.ends_with('c');
        let add = i.opcode.starts_with("add");
        if cc || carries {
            let run = if add {
                words!(ty, |T| carry::<T, _>(|a, b, _, c| int::addc(a, b, c)))
            } else {
                words!(ty, |T| carry::<T, _>(|a, b, _, c| int::subc(a, b, c)))
            };
            return self.carrying(i, m, run, ty, carries, cc);
        }
        let run = match (add, sat, ty) {
            (true, true, Ty::S32) => Some(slow2(int::add_sat_s32)),
            (false, true, Ty::S32) => Some(slow2(int::sub_sat_s32)),
            (_, true, _) => None,
            (true, false, Ty::U16x2 | Ty::S16x2) => Some(slow2(int::add_x2)),
            (true, false, _) => {
                widths!(ty, |T| op2(|a: T, b: T| int::add(a, b)), slow2(|a: T, b: T| int::add(a, b)))
            }
            (false, false, _) => {
                widths!(ty, |T| op2(|a: T, b: T| int::sub(a, b)), slow2(|a: T, b: T| int::sub(a, b)))
            }
        };
        self.simple(i, m, run, ty, &[ty, ty])
    }

    /// Emits an instruction of the carry chain.
    fn carrying(
        &mut self,
        i: &Instruction<'a>,
        m: &Modifiers<'_, 'a>,
        run: Option<OpFn>,
        ty: Ty,
        reads: bool,
        writes: bool,
    ) -> Result<()> {
        let before = self.out.code.len();
        let sources = vec![ty; i.operands.len().saturating_sub(1)];
        if !(2..=3).contains(&sources.len()) {
            return m.error("wrong number of operands");
        }
        self.simple(i, m, run, ty, &sources)?;
        debug_assert!(self.out.code.len() > before);
        let low = self.out.code.last_mut().expect("emitted above");
        low.imm = i64::from(reads) | i64::from(writes) << 1;
        if low.c.is_none() {
            low.c = low.a;
        }
        Ok(())
    }

    fn mul_mad(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let mode = m.one_of(&["lo", "hi", "wide"]);
        let (sat, cc) = (m.flag("sat"), m.flag("cc"));
        let ty = m.ty()?;
        let carries = i.opcode == "madc";
        if cc || carries {
            let run = match mode {
                Some("hi") => words!(ty, |T| carry::<T, _>(int::madc_hi)),
                _ => words!(ty, |T| carry::<T, _>(int::madc_lo)),
            };
            return self.carrying(i, m, run, ty, carries, cc);
        }
        let mul = i.opcode == "mul";
        if mode == Some("wide") {
            let run = match (ty, mul) {
                (Ty::U16, true) => slow2(|a: u16, b: u16| int::mul_wide(a, b)),
                (Ty::S16, true) => slow2(|a: i16, b: i16| int::mul_wide(a, b)),
                (Ty::U32, true) => op2(int::mul_wide::<u32>),
                (Ty::S32, true) => op2(int::mul_wide::<i32>),
                (Ty::U16, false) => slow3(|a: u16, b: u16, c: u32| int::mad_wide(a, b, c)),
                (Ty::S16, false) => slow3(|a: i16, b: i16, c: i32| int::mad_wide(a, b, c)),
                (Ty::U32, false) => op3(|a: u32, b: u32, c: u64| int::mad_wide(a, b, c)),
                (Ty::S32, false) => op3(|a: i32, b: i32, c: i64| int::mad_wide(a, b, c)),
                _ => return m.error("this type cannot be widened"),
            };
            let out = wide(ty).unwrap_or(ty);
            return if mul {
                self.simple(i, m, Some(run), out, &[ty, ty])
            } else {
                self.simple(i, m, Some(run), out, &[ty, ty, out])
            };
        }
        let hi = match mode {
            Some("hi") => true,
            Some(_) => false,
            None => return m.error("one of .lo, .hi and .wide is missing"),
        };
        if mul {
            let run = if hi {
                ints!(ty, |T| slow2(|a: T, b: T| int::mul_hi(a, b)))
            } else {
                widths!(ty, |T| op2(|a: T, b: T| int::mul_lo(a, b)), slow2(|a: T, b: T| int::mul_lo(a, b)))
            };
            return self.simple(i, m, run.filter(|_| !sat), ty, &[ty, ty]);
        }
        let run = match (hi, sat) {
            (true, true) if ty == Ty::S32 => Some(slow3(int::mad_hi_sat_s32)),
            (true, false) => ints!(ty, |T| slow3(|a: T, b: T, c: T| int::mad_hi(a, b, c))),
            (false, false) => widths!(
                ty,
                |T| op3(|a: T, b: T, c: T| int::mad_lo(a, b, c)),
                slow3(|a: T, b: T, c: T| int::mad_lo(a, b, c))
            ),
            _ => None,
        };
        self.simple(i, m, run, ty, &[ty, ty, ty])
    }

    fn two(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let relu = m.flag("relu");
        let ty = m.ty()?;
        let run = match (i.opcode, relu, ty) {
            ("min", true, Ty::S32) => Some(slow2(int::min_relu_s32)),
            ("max", true, Ty::S32) => Some(slow2(int::max_relu_s32)),
            ("min", true, Ty::S16x2) => Some(slow2(int::min_relu_s16x2)),
            ("max", true, Ty::S16x2) => Some(slow2(int::max_relu_s16x2)),
            (_, true, _) => None,
            ("min", _, Ty::U16x2) => Some(slow2(int::min_u16x2)),
            ("max", _, Ty::U16x2) => Some(slow2(int::max_u16x2)),
            ("min", _, Ty::S16x2) => Some(slow2(int::min_s16x2)),
            ("max", _, Ty::S16x2) => Some(slow2(int::max_s16x2)),
            ("min", ..) => words!(ty, |T| op2(|a: T, b: T| int::min(a, b)))
                .or_else(|| shorts!(ty, |T| slow2(|a: T, b: T| int::min(a, b)))),
            ("max", ..) => words!(ty, |T| op2(|a: T, b: T| int::max(a, b)))
                .or_else(|| shorts!(ty, |T| slow2(|a: T, b: T| int::max(a, b)))),
            ("div", ..) => ints!(ty, |T| slow2(|a: T, b: T| int::div(a, b))),
            _ => ints!(ty, |T| slow2(|a: T, b: T| int::rem(a, b))),
        };
        self.simple(i, m, run, ty, &[ty, ty])
    }

    fn mul24(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let hi = m.one_of(&["lo", "hi"]) == Some("hi");
        let sat = m.flag("sat");
        let ty = m.ty()?;
        let run = match (i.opcode, hi, sat, ty) {
            ("mul24", false, false, Ty::U32) => slow2(|a: u32, b: u32| int::mul24_lo(a, b)),
            ("mul24", false, false, Ty::S32) => slow2(|a: i32, b: i32| int::mul24_lo(a, b)),
            ("mul24", true, false, Ty::U32) => slow2(|a: u32, b: u32| int::mul24_hi(a, b)),
            ("mul24", true, false, Ty::S32) => slow2(|a: i32, b: i32| int::mul24_hi(a, b)),
            ("mad24", false, false, Ty::U32) => slow3(|a: u32, b: u32, c: u32| int::mad24_lo(a, b, c)),
            ("mad24", false, false, Ty::S32) => slow3(|a: i32, b: i32, c: i32| int::mad24_lo(a, b, c)),
            ("mad24", true, false, Ty::U32) => slow3(|a: u32, b: u32, c: u32| int::mad24_hi(a, b, c)),
            ("mad24", true, false, Ty::S32) => slow3(|a: i32, b: i32, c: i32| int::mad24_hi(a, b, c)),
            ("mad24", true, true, Ty::S32) => slow3(int::mad24_hi_sat_s32),
            _ => return m.error("this combination of modifiers does not exist"),
        };
        let sources = vec![ty; if i.opcode == "mul24" { 2 } else { 3 }];
        self.simple(i, m, Some(run), ty, &sources)
    }

    /// `bfi d, a, b, pos, len`: the position and length are packed into one operand when both are numbers,
    /// else combined by a helper instruction.
    fn bfi(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let ty = m.ty()?;
        self.operand_count(i, 5, 5)?;
        let pos = self.src(i, 3, Ty::U32)?;
        let len = self.src(i, 4, Ty::U32)?;
        let both = self.fresh(super::Class::R32);
        self.emit(slow2(|pos: u32, len: u32| (pos & 0xff) | (len & 0xff) << 8), both, [pos, len, V::NONE], 0);
        let run = match ty {
            Ty::B32 => slow3(|a: u32, b: u32, c: u32| int::bfi(a, b, c & 0xff, c >> 8)),
            Ty::B64 => slow3(|a: u64, b: u64, c: u32| int::bfi(a, b, c & 0xff, c >> 8)),
            _ => return m.error("this type is not supported"),
        };
        let abc = [self.src(i, 1, ty)?, self.src(i, 2, ty)?, both];
        let d = self.dst(i, 0, ty)?;
        self.emit(run, d, abc, 0);
        Ok(())
    }

    /// SIMD video instructions on four bytes with default selectors and an optional `.add` of the lanes.
    fn video(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let (d, a, b) = (m.ty()?, m.ty()?, m.ty()?);
        let (sat, add) = (m.flag("sat"), m.flag("add"));
        let code: i64 = match i.opcode {
            "vabsdiff4" => 0,
            "vadd4" => 1,
            "vsub4" => 2,
            "vavrg4" => 3,
            "vmin4" => 4,
            _ => 5,
        };
        for ty in [d, a, b] {
            if !matches!(ty, Ty::U32 | Ty::S32) {
                return m.error("types are .u32 or .s32");
            }
        }
        let imm = code
            | i64::from(a.signed()) << 4
            | i64::from(b.signed()) << 5
            | i64::from(d.signed()) << 6
            | i64::from(sat) << 7
            | i64::from(add) << 8;
        self.operand_count(i, 4, 4)?;
        let abc = [self.src(i, 1, Ty::B32)?, self.src(i, 2, Ty::B32)?, self.src(i, 3, Ty::B32)?];
        let out = self.dst(i, 0, Ty::B32)?;
        self.emit(slow3i(video4), out, abc, imm);
        Ok(())
    }
}

/// One SIMD video instruction on bytes; `imm` as packed by `Lower::video`.
fn video4(imm: i64, a: u32, b: u32, c: u32) -> u32 {
    let byte = |word: u32, index: u32, signed: bool| -> i32 {
        let value = (word >> (8 * index)).to_le_bytes()[0];
        if signed { i32::from(value.cast_signed()) } else { i32::from(value) }
    };
    let mut sum = c;
    let mut packed = 0;
    for index in 0..4 {
        let (x, y) = (byte(a, index, imm & 16 != 0), byte(b, index, imm & 32 != 0));
        let mut value = match imm & 15 {
            0 => (x - y).abs(),
            1 => x + y,
            2 => x - y,
            3 => (x + y + i32::from(x + y >= 0)) >> 1,
            4 => x.min(y),
            _ => x.max(y),
        };
        if imm & 128 != 0 {
            value = if imm & 64 != 0 { value.clamp(-128, 127) } else { value.clamp(0, 255) };
        }
        sum = sum.wrapping_add_signed(value);
        packed |= (value.cast_unsigned() & 0xff) << (8 * index);
    }
    if imm & 256 != 0 { sum } else { packed }
}

/// `d = a` for a type's registers.
pub(super) fn identity(ty: Ty) -> Option<OpFn> {
    Some(match Lower::class_of(ty) {
        super::Class::R32 => op1(|a: u32| a),
        super::Class::R64 => op1(|a: u64| a),
        super::Class::Pred => return None,
    })
}

/// Shifts, generic over the operand's type.
pub(super) fn shift(left: bool, ty: Ty) -> Option<OpFn> {
    if left {
        widths!(ty, |T| op2(|a: T, n: u32| int::shl(a, n)), slow2(|a: T, n: u32| int::shl(a, n)))
    } else {
        words!(ty, |T| op2(|a: T, n: u32| int::shr(a, n)))
            .or_else(|| shorts!(ty, |T| slow2(|a: T, n: u32| int::shr(a, n))))
    }
}
