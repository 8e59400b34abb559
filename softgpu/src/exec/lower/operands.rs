//! Operands to virtual registers.

use super::{Class, Lower, Result, Symbol, V};
use crate::exec::special::{Special, Value};
use crate::exec::{CODE_WINDOW, op};
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Number, Operand};

impl<'a> Lower<'_, 'a> {
    /// The operand at an index, which must exist.
    pub(super) fn operand<'i>(&self, i: &'i Instruction<'a>, index: usize) -> Result<&'i Operand<'a>> {
        match i.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.error(format!("instruction {} lacks operand {}", i.spelled(), index + 1)),
        }
    }

    /// Refuses more operands than an instruction has.
    pub(super) fn operand_count(&self, i: &Instruction<'a>, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&i.operands.len()) {
            return Ok(());
        }
        self.error(format!("instruction {} has {} operands", i.spelled(), i.operands.len()))
    }

    /// A source operand of a type.
    pub(super) fn src(&mut self, i: &Instruction<'a>, index: usize, ty: Ty) -> Result<V> {
        let operand = self.operand(i, index)?.clone();
        self.value(&operand, ty)
    }

    /// A source operand, register or constant, in the class of `ty`.
    pub(super) fn value(&mut self, operand: &Operand<'a>, ty: Ty) -> Result<V> {
        let class = Self::class_of(ty);
        match operand {
            Operand::Number(number) => {
                let bits = self.number(*number, ty)?;
                if class == Class::Pred {
                    let d = self.fresh(class);
                    self.emit(super::logic::constant_pred(bits != 0), d, [V::NONE; 3], 0);
                    return Ok(d);
                }
                Ok(self.constant(class, Value::Bits(bits)))
            }
            Operand::Not(_) if class == Class::Pred => {
                let (v, _) = self.predicate(operand)?;
                let d = self.fresh(Class::Pred);
                self.emit(super::logic::not_pred(), d, [v, V::NONE, V::NONE], 0);
                Ok(d)
            }
            Operand::Name(name) | Operand::Offset(name, _) => {
                let offset = if let Operand::Offset(_, offset) = operand { *offset } else { 0 };
                match self.lookup(name) {
                    Some(Symbol::Register(v, _)) if offset == 0 => self.checked(v, class, name),
                    Some(symbol) => self.symbol_address(&symbol, name, offset, class),
                    None => self.special(name, "", class),
                }
            }
            Operand::Member(name, member) => match self.lookup(name) {
                Some(Symbol::Elements(elements)) => {
                    let at = match *member {
                        "x" | "r" => 0,
                        "y" | "g" => 1,
                        "z" | "b" => 2,
                        "w" | "a" => 3,
                        _ => usize::MAX,
                    };
                    match elements.get(at) {
                        Some(v) => self.checked(*v, class, name),
                        None => self.error(format!("{name} has no element {member}")),
                    }
                }
                Some(_) => self.error(format!("{name} is not a vector")),
                None => self.special(name, member, class),
            },
            _ => self.error("operand has a shape this instruction does not take"),
        }
    }

    fn checked(&self, v: V, class: Class, name: &str) -> Result<V> {
        if v.class() == class {
            return Ok(v);
        }
        self.error(format!("register {name} does not have the width of the instruction's type"))
    }

    /// Bits of a literal as a value of a type.
    pub(super) fn number(&self, number: Number, ty: Ty) -> Result<u64> {
        let bits = match (number, ty) {
            (Number::Int(value), _) => value,
            (Number::F32(bits), Ty::F64) => f64::from(f32::from_bits(bits)).to_bits(),
            (Number::F32(bits), _) => u64::from(bits),
            #[expect(clippy::cast_possible_truncation, reason = "a literal of a narrower type rounds")]
            (Number::F64(bits), Ty::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            (Number::F64(bits), _) => bits,
        };
        Ok(match ty.bytes() {
            1 => bits & 0xff,
            2 => bits & 0xffff,
            4 => bits & 0xffff_ffff,
            _ => bits,
        })
    }

    /// The address (or offset) that a symbol stands for as a value.
    fn symbol_address(&mut self, symbol: &Symbol<'a>, name: &str, offset: i64, class: Class) -> Result<V> {
        let value = match symbol {
            Symbol::Global(index) => Value::Global { index: *index, offset },
            Symbol::Shared(index) => {
                self.out.shared.push(*index);
                Value::Shared { index: *index, offset }
            }
            Symbol::DynamicShared => {
                self.out.dynamic_shared = true;
                Value::DynamicShared { offset }
            }
            Symbol::KernelParam { offset: at } => Value::Bits(u64::from(*at).wrapping_add_signed(offset)),
            Symbol::Function(index) => {
                self.out.functions.push(*index);
                Value::Bits(CODE_WINDOW + 16 * *index as u64)
            }
            Symbol::Local(at) | Symbol::FrameParam { offset: at, .. } => {
                let in_params = matches!(symbol, Symbol::FrameParam { .. });
                let d = self.fresh(class);
                let run = match class {
                    Class::R32 => op::common::<FrameAddress<u32>>(),
                    _ => op::common::<FrameAddress<u64>>(),
                };
                let low = self.emit(run, d, [V::NONE; 3], i64::from(*at) + offset);
                low.in_params = in_params;
                return Ok(d);
            }
            _ => return self.error(format!("{name} cannot be used as a value")),
        };
        if class == Class::Pred {
            return self.error(format!("{name} is not a predicate"));
        }
        Ok(self.constant(class, value))
    }

    fn special(&mut self, name: &str, member: &str, class: Class) -> Result<V> {
        if name == "WARP_SZ" {
            return Ok(self.constant(class, Value::Bits(32)));
        }
        if let Some((special, _)) = Special::from_name(name, member)
            && class != Class::Pred
        {
            if matches!(special, Special::EnvReg(_)) {
                self.out.uses_envreg = true;
            }
            self.out.uses_reserved_shared |= Special::is_reserved_shared(name);
            return Ok(self.constant(class, Value::Special(special)));
        }
        // Clocks change while a thread runs.
        let run = match (name, class) {
            ("%clock" | "%clock_hi", Class::R32) => op::common::<Clock<u32>>(),
            ("%clock64" | "%globaltimer", Class::R64) => op::common::<Clock<u64>>(),
            ("%globaltimer_lo" | "%globaltimer_hi", Class::R32) => op::common::<Clock<u32>>(),
            _ => {
                let dot = if member.is_empty() { "" } else { "." };
                return self.error(format!("unknown name {name}{dot}{member}"));
            }
        };
        let code = match name {
            "%clock" | "%clock64" => 0,
            "%clock_hi" => 1,
            "%globaltimer" | "%globaltimer_lo" => 2,
            _ => 3,
        };
        let d = self.fresh(class);
        self.emit(run, d, [V::NONE; 3], code);
        Ok(d)
    }

    /// A predicate operand and whether it is negated.
    pub(super) fn predicate(&mut self, operand: &Operand<'a>) -> Result<(V, bool)> {
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            _ => return self.error("a predicate is expected"),
        };
        match self.lookup(name) {
            Some(Symbol::Register(v, Ty::Pred)) => Ok((v, negated)),
            _ => self.error(format!("{name} is not a predicate register")),
        }
    }

    /// The destination at an index, in the class of `ty`.
    pub(super) fn dst(&mut self, i: &Instruction<'a>, index: usize, ty: Ty) -> Result<V> {
        let operand = self.operand(i, index)?.clone();
        self.target(&operand, Self::class_of(ty))
    }

    /// A destination register; `_` gets a register nobody reads.
    pub(super) fn target(&mut self, operand: &Operand<'a>, class: Class) -> Result<V> {
        match operand {
            Operand::Sink => Ok(self.fresh(class)),
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Register(v, _)) => self.checked(v, class, name),
                _ => self.error(format!("{name} is not a register")),
            },
            Operand::Member(..) => self.value(operand, if class == Class::R64 { Ty::B64 } else { Ty::B32 }),
            _ => self.error("a destination register is expected"),
        }
    }

    /// Registers of any class with the type they were declared with.
    pub(super) fn register(&mut self, operand: &Operand<'a>) -> Option<(V, Ty)> {
        match operand {
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Register(v, ty)) => Some((v, ty)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The declared type of an operand that is a register.
    pub(super) fn declared(&mut self, operand: &Operand<'a>) -> Option<Ty> {
        self.register(operand).map(|(_, ty)| ty)
    }

    /// The operands of `{…}`, or the operand itself; a vector register stands for its elements.
    pub(super) fn elements(&mut self, operand: &Operand<'a>) -> Vec<Operand<'a>> {
        const NAMES: [&str; 4] = ["x", "y", "z", "w"];
        match operand {
            Operand::Vector(list) => list.clone(),
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Elements(elements)) => {
                    elements.iter().zip(NAMES).map(|(_, member)| Operand::Member(name, member)).collect()
                }
                _ => vec![operand.clone()],
            },
            _ => vec![operand.clone()],
        }
    }
}

/// `d = frame + imm`: the address of a variable in the running function's frame.
struct FrameAddress<T>(std::marker::PhantomData<T>);
impl<T: op::Lane + TryFrom<u64>> op::Exec for FrameAddress<T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut op::Cx<'_>, inst: &op::Inst, mask: op::Mask) -> op::Flow {
        let address = u64::from(cx.local_base).wrapping_add_signed(inst.imm);
        let value = T::try_from(address).unwrap_or_default();
        for lane in op::Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { op::set_lane(cx, inst.d, lane, value) };
        }
        op::Flow::Next
    }
}

/// `d = a clock`: 0 cycles, 1 their high word, 2 nanoseconds, 3 their high word.
struct Clock<T>(std::marker::PhantomData<T>);
impl<T: op::Lane + Truncate> op::Exec for Clock<T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut op::Cx<'_>, inst: &op::Inst, mask: op::Mask) -> op::Flow {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let value = if inst.imm & 1 == 0 { nanos } else { nanos >> 32 };
        for lane in op::Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { op::set_lane(cx, inst.d, lane, T::truncate(value)) };
        }
        op::Flow::Next
    }
}

/// The low bits of a 64-bit value.
pub(super) trait Truncate {
    fn truncate(value: u64) -> Self;
}
impl Truncate for u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    fn truncate(value: u64) -> Self {
        value as Self
    }
}
impl Truncate for u64 {
    fn truncate(value: u64) -> Self {
        value
    }
}
