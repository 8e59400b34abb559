//! Calls (PTX ISA section "call"): direct, through pointers, and to functions of the device runtime.

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, Symbol, V};
use crate::exec::CODE_WINDOW;
use crate::exec::aux::{Builtin, CallSite, Callee, Data, Piece};
use crate::exec::op::{Cx, Exec, Flow, Inst, Lanes, Mask, common, lane};
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// Notes the callee of each lane.
struct Call;
impl Exec for Call {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        let Data::Call(site) = &aux.data else {
            return cx.fail(
                super::super::fault::FaultKind::IllegalInstruction,
                0,
                "call without a site".to_owned(),
            );
        };
        match site.callee {
            Callee::Function(index) => {
                for at in Lanes(mask) {
                    cx.targets[at] = CODE_WINDOW + 16 * index as u64;
                }
            }
            Callee::Pointer => {
                for at in Lanes(mask) {
                    // SAFETY: the caller's promise (`OpFn`).
                    cx.targets[at] = unsafe { lane::<u64>(cx, aux.uses[0], at) };
                }
            }
            Callee::Builtin(_) => {}
        }
        Flow::Call
    }
}

/// The functions that the engine provides.
pub(in crate::exec) fn builtin(name: &str) -> Option<Builtin> {
    Some(match name {
        "vprintf" => Builtin::Vprintf,
        "__assertfail" => Builtin::AssertFail,
        "malloc" => Builtin::Malloc,
        "free" => Builtin::Free,
        "cudaGraphSetConditional" => Builtin::SetConditional,
        _ => Builtin::Device(crate::exec::children::Function::from_name(name)?),
    })
}

impl<'a> Lower<'_, 'a> {
    pub(super) fn call(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        m.flag("uni");
        // [ (returns), ] callee [, (args) [, prototype or targets] ]
        let mut operands = i.operands.iter();
        let mut next = operands.next();
        let mut returns: &[Operand<'a>] = &[];
        if let Some(Operand::Group(list)) = next {
            returns = list;
            next = operands.next();
        }
        let Some(Operand::Name(name)) = next else { return m.error("a function is expected") };
        let mut args: &[Operand<'a>] = &[];
        if let Some(Operand::Group(list)) = operands.next() {
            args = list;
        }
        let mut uses = Vec::new();
        let (callee, formals) = match self.lookup(name) {
            Some(Symbol::Function(index)) => {
                self.out.functions.push(index);
                let signature = self.unit.signature(index);
                (Callee::Function(index), Some(signature))
            }
            Some(Symbol::Register(v, _)) if v.class() == Class::R64 => {
                self.out.indirect_calls = true;
                uses.push(v);
                (Callee::Pointer, None)
            }
            _ => match builtin(name) {
                Some(builtin) => (Callee::Builtin(builtin), None),
                None if name.starts_with("cuda") || name.starts_with("__cuda") => {
                    return self.error(format!(
                        "call of {name}: this function of the device runtime is not supported"
                    ));
                }
                None => return self.error(format!("call of {name}, which is not defined")),
            },
        };
        let (arg_types, return_types) = formals.unwrap_or_default();
        let mut site = CallSite { callee, args: Vec::new(), returns: Vec::new() };
        for (index, arg) in args.iter().enumerate() {
            let piece = match self.call_place(arg) {
                Some(piece) => piece,
                None => {
                    let ty = arg_types.get(index).copied().or_else(|| self.declared(arg));
                    let Some(ty) = ty else { return m.error("the type of an argument is unknown") };
                    let v = self.value(arg, ty)?;
                    let piece = self.scratch(ty);
                    self.store_formal(v, ty, piece.offset);
                    piece
                }
            };
            site.args.push(piece);
        }
        let mut loads = Vec::new();
        for (index, result) in returns.iter().enumerate() {
            let piece = match self.call_place(result) {
                Some(piece) => piece,
                None => {
                    let ty = return_types.get(index).copied().or_else(|| self.declared(result));
                    let Some(ty) = ty else { return m.error("the type of a result is unknown") };
                    let piece = self.scratch(ty);
                    let v = self.target(result, Self::class_of(ty))?;
                    loads.push((Symbol::Register(v, ty), ty, piece.offset));
                    piece
                }
            };
            site.returns.push(piece);
        }
        let aux = AuxLow { uses, data: Data::Call(Box::new(site)), ..AuxLow::default() };
        self.emit_aux(common::<Call>(), V::NONE, [V::NONE; 3], 0, aux);
        for (symbol, ty, offset) in loads {
            self.load_formal(&symbol, ty, offset)?;
        }
        Ok(())
    }

    /// The place of an argument that is a `.param` variable.
    fn call_place(&mut self, operand: &Operand<'a>) -> Option<Piece> {
        let Operand::Name(name) = operand else { return None };
        match self.lookup(name) {
            Some(Symbol::FrameParam { offset, bytes }) => Some(Piece { offset, bytes }),
            _ => None,
        }
    }

    /// A new place in the parameter zone for a value passed in a register.
    fn scratch(&mut self, ty: Ty) -> Piece {
        let bytes = ty.bytes();
        let offset = super::round_up(self.params_end, bytes);
        self.params_end = offset + bytes;
        self.params_most = self.params_most.max(self.params_end);
        Piece { offset, bytes }
    }
}
