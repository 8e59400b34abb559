//! Loads, stores, atomics, address conversions and fences (PTX ISA section "Data Movement", "Parallel
//! Synchronization": atom, red, fence).

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "address arithmetic drops bits")]

use std::marker::PhantomData;

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, Symbol, V};
use crate::exec::aux::Data;
use crate::exec::memory_ops::{self, AddrName, Shape, SpaceName};
use crate::exec::op::{Cx, Exec, Flow, Inst, Lane, Mask, common, op1, op1i, op2, test_lanes, write_pred};
use crate::exec::special::Value;
use crate::exec::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES, WINDOWS, atomic_ops};
use crate::isa::atomic::{AtomOp, AtomType, apply};
use crate::ptx::Ty;
use crate::ptx::ast::{Base, Instruction, Operand};

/// A lowered address operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) name: AddrName,
    pub(super) register: V,
    pub(super) offset: i64,
    pub(super) in_params: bool,
}

/// Modifiers that say where data should be cached; they do not change what an access does.
fn cache_hint(name: &str) -> bool {
    matches!(name, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc" | "unified")
        || name.starts_with("L1::")
        || name.starts_with("L2::")
        || name.starts_with("level::")
}

fn scope(name: &str) -> bool {
    matches!(name, "cta" | "cluster" | "gpu" | "sys")
}

/// `fence`, `membar`: orders this thread's accesses before and after.
struct Fence;
impl Exec for Fence {
    unsafe fn exec(_: &mut Cx<'_>, _: &Inst, _: Mask) -> Flow {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Flow::Next
    }
}

/// Follows accesses by which a thread waits for another: lets others run when they repeat.
struct Poll;
impl Exec for Poll {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, _: &Inst, _: Mask) -> Flow {
        cx.polls += 1;
        Flow::Next
    }
}

/// `isspacep`: `imm` is the window's start, `code` 1 for global.
struct IsSpace<A>(PhantomData<A>);
impl<A: Lane + Into<u64>> Exec for IsSpace<A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (window, global) = (inst.imm.cast_unsigned(), inst.code == 1);
        let inst = Inst { b: inst.a, ..*inst };
        // SAFETY: the caller's promise (`OpFn`).
        unsafe {
            let bits = test_lanes::<A, A>(
                cx,
                &inst,
                mask,
                #[inline(always)]
                |a, _| {
                    let a: u64 = a.into();
                    if global { a < WINDOWS } else { a.wrapping_sub(window) < WINDOW_BYTES }
                },
            );
            write_pred(cx, inst.d, mask, bits);
        }
        Flow::Next
    }
}

impl<'a> Lower<'_, 'a> {
    /// Takes the state space; generic when none is given.
    pub(super) fn space(&mut self, m: &mut Modifiers<'_, 'a>) -> SpaceName {
        let entry = self.entry;
        m.take(|name| {
            Some(match name {
                "global" | "const" => SpaceName::Global,
                "shared" | "shared::cta" | "shared::cluster" => SpaceName::Shared,
                "local" => SpaceName::Local,
                "param" if !entry => SpaceName::Local,
                "param::func" => SpaceName::Local,
                "param" | "param::entry" => SpaceName::Param,
                _ => return None,
            })
        })
        .unwrap_or(SpaceName::Generic)
    }

    /// Lowers `[base+offset]` in a space, with a register of the width that the space's instances take: 32 bits for
    /// shared memory, else 64.
    pub(super) fn address(&mut self, operand: &Operand<'a>, space: SpaceName) -> Result<Address> {
        let address = self.any_address(operand, space)?;
        let wanted = if space == SpaceName::Shared { AddrName::Reg32 } else { AddrName::Reg64 };
        if address.name == wanted || address.name == AddrName::Frame {
            return Ok(address);
        }
        let (run, class) = match address.name {
            AddrName::Reg32 => (op1i(|imm, a: u32| u64::from(a.wrapping_add(imm as u32))), Class::R64),
            // An offset beyond 32 bits stays out of bounds.
            _ => (op1i(|imm, a: u64| u32::try_from(a.wrapping_add_signed(imm)).unwrap_or(!15)), Class::R32),
        };
        let d = self.fresh(class);
        self.emit(run, d, [address.register, V::NONE, V::NONE], address.offset);
        Ok(Address { name: wanted, register: d, offset: 0, in_params: false })
    }

    /// Lowers `[base+offset]` as written.
    fn any_address(&mut self, operand: &Operand<'a>, space: SpaceName) -> Result<Address> {
        let (base, offset) = match operand {
            Operand::Address { base, offset } => (*base, *offset),
            _ => return self.error("an address in brackets is expected"),
        };
        let plain = |name, register, offset| Ok(Address { name, register, offset, in_params: false });
        let name = match base {
            Base::Number(number) => {
                let v = self.constant(Class::R64, Value::Bits(number));
                return plain(AddrName::Reg64, v, offset);
            }
            Base::Name(name) => name,
        };
        let wrong = format!("{name} does not lie in the state space of the instruction");
        match self.lookup(name) {
            Some(Symbol::Register(v, _)) => match v.class() {
                Class::R64 => plain(AddrName::Reg64, v, offset),
                Class::R32 => plain(AddrName::Reg32, v, offset),
                Class::Pred => self.error(format!("{name} is a predicate")),
            },
            Some(Symbol::Global(index)) => {
                if !matches!(space, SpaceName::Global | SpaceName::Generic) {
                    return self.error(wrong);
                }
                let v = self.constant(Class::R64, Value::Global { index, offset });
                plain(AddrName::Reg64, v, 0)
            }
            Some(symbol @ (Symbol::Shared(_) | Symbol::DynamicShared)) => {
                if space != SpaceName::Shared {
                    return self.error(wrong);
                }
                let value = match symbol {
                    Symbol::Shared(index) => {
                        self.out.shared.push(index);
                        Value::Shared { index, offset }
                    }
                    _ => {
                        self.out.dynamic_shared = true;
                        Value::DynamicShared { offset }
                    }
                };
                let v = self.constant(Class::R32, value);
                plain(AddrName::Reg32, v, 0)
            }
            Some(Symbol::Local(at)) if space == SpaceName::Local => {
                plain(AddrName::Frame, V::NONE, i64::from(at) + offset)
            }
            // In a kernel, `.param` also names the arguments of the calls it makes.
            Some(Symbol::FrameParam { offset: at, .. })
                if matches!(space, SpaceName::Local | SpaceName::Param) =>
            {
                Ok(Address {
                    name: AddrName::Frame,
                    register: V::NONE,
                    offset: i64::from(at) + offset,
                    in_params: true,
                })
            }
            Some(Symbol::KernelParam { offset: at }) if space == SpaceName::Param => {
                let v = self.constant(Class::R64, Value::Bits(u64::from(at)));
                plain(AddrName::Reg64, v, offset)
            }
            Some(_) => self.error(wrong),
            None => self.error(format!("unknown name {name}")),
        }
    }

    /// The address as a 64-bit register, offset included; for instructions with several addresses.
    pub(super) fn address_value(&mut self, operand: &Operand<'a>, space: SpaceName) -> Result<V> {
        let address = self.any_address(operand, space)?;
        if address.name == AddrName::Frame {
            return self.error("variables of the frame cannot be used here");
        }
        if address.name == AddrName::Reg64 && address.offset == 0 {
            return Ok(address.register);
        }
        let d = self.fresh(Class::R64);
        let run = match address.name {
            AddrName::Reg64 => op1i(|imm, a: u64| a.wrapping_add_signed(imm)),
            _ => op1i(|imm, a: u32| u64::from(a.wrapping_add(imm as u32))),
        };
        self.emit(run, d, [address.register, V::NONE, V::NONE], address.offset);
        Ok(d)
    }

    /// Lowers memory instructions; false when the opcode belongs elsewhere.
    pub(super) fn memory(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "ld" | "ldu" => self.load(i, m)?,
            "st" => self.store(i, m)?,
            "atom" | "red" => {
                if m.flag("async") {
                    return Ok(false);
                }
                self.atomic(i, m)?;
            }
            "cvta" => self.cvta(i, m)?,
            "isspacep" => self.isspacep(i, m)?,
            "membar" | "fence" => {
                // `fence.proxy.*`, `.mbarrier_init`, `.acquire` …: all are no stronger than what is done here.
                m.drop_if(|name| {
                    scope(name)
                        || matches!(
                            name,
                            "gl" | "sc" | "acq_rel" | "acquire" | "release" | "proxy" | "alias" | "async"
                        )
                        || name.starts_with("async")
                        || name.starts_with("mbarrier_init")
                        || name.starts_with("sync_restrict")
                        || matches!(name, "global" | "shared::cta" | "shared::cluster")
                });
                self.emit(common::<Fence>(), V::NONE, [V::NONE; 3], 0);
            }
            "prefetch" | "prefetchu" | "applypriority" | "discard" | "createpolicy" => {
                if i.opcode == "createpolicy" {
                    // A policy is an opaque number that only hints take.
                    m.drop_if(|_| true);
                    let d = self.dst(i, 0, Ty::B64)?;
                    let zero = self.constant(Class::R64, Value::Bits(0));
                    self.emit(op1(|a: u64| a), d, [zero, V::NONE, V::NONE], 0);
                    return Ok(true);
                }
                m.drop_if(|name| {
                    cache_hint(name) || matches!(name, "global" | "local" | "L1" | "L2" | "tensormap")
                });
            }
            _ => return self.asynchronous(i, m),
        }
        Ok(true)
    }

    /// Registers of a load's result or a store's value: elements, with the register's width.
    fn data_shape(&mut self, elements: &[Operand<'a>], ty: Ty, m: &Modifiers<'_, 'a>) -> Result<Shape> {
        let mut width = ty.bytes().max(1) * 8;
        for element in elements {
            if let Some(declared) = self.declared(element) {
                if declared == Ty::Pred || declared.bytes() < ty.bytes() {
                    return m.error("a register is narrower than the type");
                }
                width = declared.bytes() * 8;
                break;
            }
        }
        Ok(Shape { bytes: ty.bytes(), signed: ty.signed(), width })
    }

    fn load(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let acquire = m.flag("acquire");
        let polls = acquire || m.has("volatile") || m.has("relaxed");
        let space = self.space(m);
        let vector = m.one_of(&["v2", "v4", "v8"]);
        m.drop_if(|name| {
            cache_hint(name) || scope(name) || matches!(name, "weak" | "volatile" | "relaxed" | "mmio")
        });
        let ty = m.ty()?;
        // A trailing operand is a cache policy.
        self.operand_count(i, 2, 3)?;
        let address = self.address(self.operand(i, 1)?, space)?;
        let target = self.operand(i, 0)?;
        let elements = self.elements(target);
        let wanted = vector.map_or(1, |name| usize::from(name.as_bytes()[1] - b'0'));
        if ty == Ty::B128 {
            let to = if wanted == 1 {
                self.wide(target, true)?
            } else {
                return m.error("vectors of .b128 are not supported");
            };
            let aux = AuxLow { defs: to.to_vec(), ..AuxLow::default() };
            let shape = Shape { bytes: 8, signed: false, width: 64 };
            self.emit_load(space, address, shape, aux);
            return Ok(());
        }
        if elements.len() != wanted {
            return m.error("the number of registers does not fit the vector");
        }
        let shape = self.data_shape(&elements, ty, m)?;
        let class = if shape.width == 64 { Class::R64 } else { Class::R32 };
        let targets: Vec<V> = elements.iter().map(|e| self.target(e, class)).collect::<Result<_>>()?;
        if space == SpaceName::Param && self.load_params(i, &targets, shape)? {
            return Ok(());
        }
        let space = if address.name == AddrName::Frame { SpaceName::Local } else { space };
        if let [target] = targets[..] {
            let low = self.emit(
                memory_ops::load(space, address.name, shape),
                target,
                [address.register, V::NONE, V::NONE],
                address.offset,
            );
            low.code = shape.pack();
            low.in_params = address.in_params;
        } else {
            self.emit_load(space, address, shape, AuxLow { defs: targets, ..AuxLow::default() });
        }
        if acquire && !cfg!(target_arch = "x86_64") {
            self.emit(common::<Fence>(), V::NONE, [V::NONE; 3], 0);
        }
        if polls {
            self.emit(common::<Poll>(), V::NONE, [V::NONE; 3], 0);
        }
        Ok(())
    }

    fn emit_load(&mut self, space: SpaceName, address: Address, shape: Shape, aux: AuxLow) {
        let space = if address.name == AddrName::Frame { SpaceName::Local } else { space };
        let run = memory_ops::load_vector(space, address.name);
        let low = self.emit_aux(run, V::NONE, [address.register, V::NONE, V::NONE], address.offset, aux);
        low.code = shape.pack();
        low.in_params = address.in_params;
    }

    /// `ld.param` of a kernel at a known place: the value is a constant of the launch.
    fn load_params(&mut self, i: &Instruction<'a>, targets: &[V], shape: Shape) -> Result<bool> {
        let Operand::Address { base: Base::Name(name), offset } = *self.operand(i, 1)? else {
            return Ok(false);
        };
        let Some(Symbol::KernelParam { offset: at }) = self.lookup(name) else { return Ok(false) };
        if shape.width < 32 && shape.signed {
            return Ok(false);
        }
        let Some(start) = i64::from(at).checked_add(offset).and_then(|at| u32::try_from(at).ok()) else {
            return self.error("the address lies outside the parameters");
        };
        if !start.is_multiple_of(shape.bytes) {
            return Ok(false);
        }
        let mut from = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let value = Value::Param {
                offset: start + shape.bytes * u32::try_from(index).unwrap_or(0),
                bytes: shape.bytes,
                signed: shape.signed,
            };
            from.push(self.constant(target.class(), value));
        }
        for (target, from) in targets.iter().zip(from) {
            let run = if target.class() == Class::R64 { op1(|a: u64| a) } else { op1(|a: u32| a) };
            self.emit(run, *target, [from, V::NONE, V::NONE], 0);
        }
        Ok(true)
    }

    /// Reads a formal parameter into a register (old-style functions with `.reg` parameters).
    pub(super) fn load_formal(&mut self, symbol: &Symbol<'a>, ty: Ty, offset: u32) -> Result<()> {
        let Symbol::Register(v, _) = *symbol else {
            return self.error("vector and .b128 parameters in registers are not supported");
        };
        if ty == Ty::Pred {
            return self.error("predicate parameters are not supported");
        }
        let shape = Shape { bytes: ty.bytes(), signed: false, width: ty.bytes() * 8 };
        let run = memory_ops::load(SpaceName::Local, AddrName::Frame, shape);
        let low = self.emit(run, v, [V::NONE; 3], i64::from(offset));
        low.code = shape.pack();
        low.in_params = true;
        Ok(())
    }

    /// Writes a register (or constant) into a place of the parameter zone.
    pub(super) fn store_formal(&mut self, v: V, ty: Ty, offset: u32) {
        let shape =
            Shape { bytes: ty.bytes(), signed: false, width: if v.class() == Class::R64 { 64 } else { 32 } };
        let run = memory_ops::store(SpaceName::Local, AddrName::Frame, shape);
        let low = self.emit(run, V::NONE, [V::NONE, v, V::NONE], i64::from(offset));
        low.code = shape.pack();
        low.in_params = true;
    }

    fn store(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        if m.has("async") || m.has("bulk") {
            return self.unsupported(i);
        }
        let release = m.flag("release");
        let space = self.space(m);
        let vector = m.one_of(&["v2", "v4", "v8"]);
        m.drop_if(|name| {
            cache_hint(name) || scope(name) || matches!(name, "weak" | "volatile" | "relaxed" | "mmio")
        });
        let ty = m.ty()?;
        self.operand_count(i, 2, 3)?;
        let address = self.address(self.operand(i, 0)?, space)?;
        if space == SpaceName::Param && address.name != AddrName::Frame {
            return m.error("kernel parameters cannot be written");
        }
        let space = if address.name == AddrName::Frame { SpaceName::Local } else { space };
        if release && !cfg!(target_arch = "x86_64") {
            self.emit(common::<Fence>(), V::NONE, [V::NONE; 3], 0);
        }
        let source = self.operand(i, 1)?;
        let elements = self.elements(source);
        let wanted = vector.map_or(1, |name| usize::from(name.as_bytes()[1] - b'0'));
        let (uses, shape) = if ty == Ty::B128 {
            (self.wide(source, false)?.to_vec(), Shape { bytes: 8, signed: false, width: 64 })
        } else {
            if elements.len() != wanted {
                return m.error("the number of registers does not fit the vector");
            }
            let shape = self.data_shape(&elements, ty, m)?;
            let register_ty = if shape.width == 64 && ty.bytes() < 8 { Ty::B64 } else { ty };
            let uses = elements.iter().map(|e| self.value(e, register_ty)).collect::<Result<Vec<_>>>()?;
            (uses, shape)
        };
        if let [value] = uses[..] {
            let run = memory_ops::store(space, address.name, shape);
            let low = self.emit(run, V::NONE, [address.register, value, V::NONE], address.offset);
            low.code = shape.pack();
            low.in_params = address.in_params;
        } else {
            let run = memory_ops::store_vector(space, address.name);
            let aux = AuxLow { uses, ..AuxLow::default() };
            let low = self.emit_aux(run, V::NONE, [address.register, V::NONE, V::NONE], address.offset, aux);
            low.code = shape.pack();
            low.in_params = address.in_params;
        }
        Ok(())
    }

    fn atomic(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let red = i.opcode == "red";
        let space = self.space(m);
        let system = m.flag("sys");
        m.drop_if(|name| {
            scope(name)
                || cache_hint(name)
                || matches!(name, "relaxed" | "acquire" | "release" | "acq_rel" | "sc" | "noftz")
        });
        let vector = m.one_of(&["v2", "v4", "v8"]);
        let op = m.take(|name| {
            Some(match name {
                "and" => Some(AtomOp::And),
                "or" => Some(AtomOp::Or),
                "xor" => Some(AtomOp::Xor),
                "exch" => Some(AtomOp::Exch),
                "add" => Some(AtomOp::Add),
                "inc" => Some(AtomOp::Inc),
                "dec" => Some(AtomOp::Dec),
                "min" => Some(AtomOp::Min),
                "max" => Some(AtomOp::Max),
                "cas" => None,
                _ => return None,
            })
        });
        let Some(op) = op else { return m.error("the operation is missing") };
        let ty = m.ty()?;
        if space == SpaceName::Param {
            return m.error("parameters have no atomics");
        }
        let at = usize::from(!red);
        let address = self.address(self.operand(i, at)?, space)?;
        if address.name == AddrName::Frame {
            return m.error("local variables have no atomics");
        }
        let operands = [address.register, V::NONE, V::NONE];
        if ty == Ty::B128 {
            let target = self.operand(i, 0)?;
            let to = self.wide(target, true)?;
            let mut uses = self.wide(self.operand(i, at + 1)?, false)?.to_vec();
            match op {
                None => uses.extend(self.wide(self.operand(i, at + 2)?, false)?),
                Some(AtomOp::Exch) => {}
                Some(_) => return m.error("this operation does not exist for .b128"),
            }
            // Neither operation nor type are looked at.
            let data = Data::Atomic { op, ty: AtomType::B64, system };
            let aux = AuxLow { defs: to.to_vec(), uses, data };
            self.emit_aux(
                atomic_ops::atomic_wide(space, address.name),
                V::NONE,
                operands,
                address.offset,
                aux,
            );
            return Ok(());
        }
        let Some(atom_ty) = atom_type(ty) else { return m.error("this type is not supported") };
        if op.is_some_and(|op| apply(op, atom_ty, 0, 0).is_none()) {
            return m.error("this operation does not exist for this type");
        }
        let data = Data::Atomic { op, ty: atom_ty, system };
        if vector.is_some() {
            let elements = self.elements(self.operand(i, at + 1)?);
            let uses = elements.iter().map(|e| self.value(e, ty)).collect::<Result<Vec<_>>>()?;
            let defs = if red {
                Vec::new()
            } else {
                let elements = self.elements(self.operand(i, 0)?);
                elements.iter().map(|e| self.target(e, Self::class_of(ty))).collect::<Result<Vec<_>>>()?
            };
            let aux = AuxLow { defs, uses, data };
            self.emit_aux(
                atomic_ops::atomic_vector(space, address.name),
                V::NONE,
                operands,
                address.offset,
                aux,
            );
            return Ok(());
        }
        let b = self.src(i, at + 1, ty)?;
        let c = if op.is_none() { self.src(i, at + 2, ty)? } else { V::NONE };
        let d = if red { self.fresh(Self::class_of(ty)) } else { self.dst(i, 0, ty)? };
        let run = atomic_ops::atomic(space, address.name);
        let aux = AuxLow { data, ..AuxLow::default() };
        self.emit_aux(run, d, [address.register, b, c], address.offset, aux);
        if !red && matches!(op, None | Some(AtomOp::Exch)) {
            self.emit(common::<Poll>(), V::NONE, [V::NONE; 3], 0);
        }
        Ok(())
    }

    fn cvta(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let to = m.flag("to");
        let window = m.take(|name| {
            Some(match name {
                "global" | "const" => 0,
                "shared" | "shared::cta" | "shared::cluster" => SHARED_WINDOW,
                "local" => LOCAL_WINDOW,
                "param" | "param::entry" => PARAM_WINDOW,
                _ => return None,
            })
        });
        let Some(window) = window else { return m.error("the state space is missing") };
        let ty = m.ty()?;
        if ty != Ty::U64 && ty != Ty::B64 {
            return m.error("addresses have 64 bits");
        }
        let a = self.src(i, 1, ty)?;
        let d = self.dst(i, 0, ty)?;
        if window == 0 {
            self.emit(op1(|a: u64| a), d, [a, V::NONE, V::NONE], 0);
            return Ok(());
        }
        let window = self.constant(Class::R64, Value::Bits(window));
        let run = if to {
            op2(|a: u64, w: u64| a.wrapping_sub(w))
        } else {
            op2(|a: u64, w: u64| a.wrapping_add(w))
        };
        self.emit(run, d, [a, window, V::NONE], 0);
        Ok(())
    }

    fn isspacep(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let window = m.take(|name| {
            Some(match name {
                "global" => (0, 1),
                // Constants lie among the global addresses: the question cannot be answered from the address.
                "const" => (WINDOWS + (4 << 40), 0),
                "shared" | "shared::cta" | "shared::cluster" => (SHARED_WINDOW, 0),
                "local" => (LOCAL_WINDOW, 0),
                "param" | "param::entry" => (PARAM_WINDOW, 0),
                _ => return None,
            })
        });
        let Some((window, code)) = window else { return m.error("the state space is missing") };
        let a = self.src(i, 1, Ty::U64)?;
        let d = self.dst(i, 0, Ty::Pred)?;
        let low =
            self.emit(common::<IsSpace<u64>>(), d, [a, V::NONE, V::NONE], i64::try_from(window).unwrap_or(0));
        low.code = code;
        Ok(())
    }
}

fn atom_type(ty: Ty) -> Option<AtomType> {
    Some(match ty {
        Ty::B16 => AtomType::B16,
        Ty::B32 => AtomType::B32,
        Ty::B64 => AtomType::B64,
        Ty::U32 => AtomType::U32,
        Ty::U64 => AtomType::U64,
        Ty::S32 => AtomType::S32,
        Ty::S64 => AtomType::S64,
        Ty::F16 => AtomType::F16,
        Ty::F16x2 => AtomType::F16x2,
        Ty::Bf16 => AtomType::Bf16,
        Ty::Bf16x2 => AtomType::Bf16x2,
        Ty::F32 => AtomType::F32,
        Ty::F64 => AtomType::F64,
        _ => return None,
    })
}
