//! Matrix instructions: wmma, mma.sync, ldmatrix, stmatrix, movmatrix (PTX ISA section "Warp-Level Matrix
//! Instructions"). All lanes of the warp must come to the same one.

#![expect(clippy::cast_possible_truncation, reason = "registers and lanes are few, and stores drop bits")]

use super::fragment::Lines;
use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::exec::aux::Data;
use crate::exec::fault::FaultKind;
use crate::exec::memory_ops::{SpaceName, deposit, refuse, withdraw};
use crate::exec::op::{Cx, Exec, Flow, Inst, Lane, Lanes, Mask, Phase, common, lane, pick, set_lane};
use crate::exec::place::{Place, SharedPlace, aligned};
use crate::isa::matrix::{BitOp, Element, Fragment, Mma, Shape, ldmatrix_coord};
use crate::isa::product::Register;
use crate::ptx::Ty;
use crate::ptx::ast::{Instruction, Operand};

/// What a matrix instruction needs besides registers.
#[derive(Debug, Clone)]
pub(in crate::exec) enum MatrixOp {
    /// D = A·B + C: registers of A, B and C one after the other in `uses`, how many A and B have.
    Mma { mma: Mma, a: usize, b: usize, wide: bool },
    /// Load or store of a fragment.
    Fragment { fragment: Fragment, element: Element, row_major: bool, lines: Option<Lines> },
    /// 8×8 matrices of 16 bits.
    Small { trans: bool },
}

/// Waits for the whole warp; `None` when it is here.
#[inline(always)]
pub(super) fn whole_warp(cx: &mut Cx<'_>, mask: Mask) -> Option<Flow> {
    if cx.phase != Phase::Whole {
        let text = "the lanes of the warp execute a matrix instruction at different places".to_owned();
        return Some(cx.fail(FaultKind::IllegalInstruction, mask.trailing_zeros() as usize, text));
    }
    if cx.live & !mask != 0 {
        cx.wait_mask = cx.live;
        return Some(Flow::Converge);
    }
    None
}

/// The description of the instruction.
pub(super) fn description<'c>(cx: &Cx<'c>, inst: &Inst) -> (&'c [u32], &'c [u32], &'c MatrixOp) {
    let aux = &cx.aux[inst.aux as usize];
    match &aux.data {
        Data::Matrix(op) => (&aux.defs, &aux.uses, op),
        _ => (&aux.defs, &aux.uses, &MatrixOp::Small { trans: false }),
    }
}

struct Multiply;
impl Exec for Multiply {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        if let Some(flow) = whole_warp(cx, mask) {
            return flow;
        }
        let (defs, uses, MatrixOp::Mma { mma, a, b, wide }) = description(cx, inst) else {
            return Flow::Next;
        };
        let width = if *wide { 64 } else { 32 };
        let cx = &*cx;
        let read = |slots: &[u32], register: u32, lane: u32| {
            // SAFETY: the caller's promise (`OpFn`); registers and lanes come from the fragment's layout.
            unsafe { withdraw(cx, slots[register as usize], lane as usize, width) }
        };
        let (a_slots, rest) = uses.split_at(*a);
        let (b_slots, c_slots) = rest.split_at(*b);
        let done = if *wide {
            // SAFETY: the caller's promise (`OpFn`): slots have 32 lanes.
            let read = |slot: u32| unsafe { u64::slot(cx, slot).cast::<Register<u64>>().read() };
            mma.run_whole_wide(
                |at| read(a_slots[at]),
                |at| read(b_slots[at]),
                |at| read(c_slots[at]),
                // SAFETY: as above.
                |at, register| unsafe { u64::slot(cx, defs[at]).cast::<Register<u64>>().write(register) },
            )
        } else {
            // SAFETY: as above.
            let read = |slot: u32| unsafe { u32::slot(cx, slot).cast::<Register<u32>>().read() };
            mma.run_whole(
                |at| read(a_slots[at]),
                |at| read(b_slots[at]),
                |at| read(c_slots[at]),
                // SAFETY: as above.
                |at, register| unsafe { u32::slot(cx, defs[at]).cast::<Register<u32>>().write(register) },
            )
        };
        if done {
            return Flow::Next;
        }
        mma.run(
            |register, lane| read(a_slots, register, lane),
            |register, lane| read(b_slots, register, lane),
            |register, lane| read(c_slots, register, lane),
            // SAFETY: as above.
            |register, lane, value| unsafe {
                deposit(cx, defs[register as usize], lane as usize, width, value);
            },
        );
        Flow::Next
    }
}

/// `ldmatrix`: lane 8m+r has the address of row r of matrix m; `stmatrix` likewise (`imm` 1).
struct SmallMatrices;
impl Exec for SmallMatrices {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        if let Some(flow) = whole_warp(cx, mask) {
            return flow;
        }
        let (defs, uses, MatrixOp::Small { trans }) = description(cx, inst) else { return Flow::Next };
        let store = inst.imm == 1;
        let registers = if store { uses } else { defs };
        // Addresses before results: they may share a register file slot only across instructions, but be plain.
        let mut rows = [std::ptr::null_mut::<u8>(); 32];
        for (at, row) in rows.iter_mut().enumerate().take(registers.len() * 8) {
            // SAFETY: the caller's promise (`OpFn`).
            let address = unsafe { lane::<u64>(cx, inst.a, at) };
            *row = match aligned::<SharedPlace>(cx, at, address, 16) {
                Ok(row) => row,
                Err(bad) => return refuse(cx, bad, "ldmatrix or stmatrix", SharedPlace::NAME, at, 16),
            };
        }
        for (matrix, slot) in registers.iter().enumerate() {
            for at in Lanes(mask) {
                let coords = ldmatrix_coord(at as u32, *trans);
                // SAFETY: rows of 16 bytes have been located; coordinates are below 8.
                unsafe {
                    let place = |(row, col): (u32, u32)| {
                        rows[matrix * 8 + row as usize].cast::<u16>().add(col as usize)
                    };
                    if store {
                        let value = lane::<u32>(cx, *slot, at);
                        place(coords[0]).write(value as u16);
                        place(coords[1]).write((value >> 16) as u16);
                    } else {
                        let (low, high) = (place(coords[0]).read(), place(coords[1]).read());
                        set_lane(cx, *slot, at, u32::from(low) | u32::from(high) << 16);
                    }
                }
            }
        }
        Flow::Next
    }
}

/// `movmatrix.trans`: the transpose of the matrix that the lanes hold.
struct Transpose;
impl Exec for Transpose {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        if let Some(flow) = whole_warp(cx, mask) {
            return flow;
        }
        let mut dense = [[0u16; 8]; 8];
        for at in 0..32 {
            // SAFETY: the caller's promise (`OpFn`).
            let value = unsafe { lane::<u32>(cx, inst.a, at) };
            let [(r0, c0), (r1, c1)] = ldmatrix_coord(at as u32, false);
            dense[r0 as usize][c0 as usize] = value as u16;
            dense[r1 as usize][c1 as usize] = (value >> 16) as u16;
        }
        for at in Lanes(mask) {
            let [low, high] = ldmatrix_coord(at as u32, true).map(|(r, c)| dense[r as usize][c as usize]);
            // SAFETY: as above.
            unsafe { set_lane(cx, inst.d, at, u32::from(low) | u32::from(high) << 16) };
        }
        Flow::Next
    }
}

/// The register type of an element's fragment.
pub(super) fn register_ty(element: Element) -> Ty {
    if element.bits() == 64 { Ty::B64 } else { Ty::B32 }
}

impl<'a> Lower<'_, 'a> {
    /// Lowers matrix instructions; false when the opcode belongs elsewhere.
    pub(super) fn matrix(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "wmma" => {
                m.flag("sync");
                m.flag("aligned");
                if m.flag("mma") {
                    self.multiply(i, m, true)?;
                } else {
                    self.fragment_access(i, m)?;
                }
            }
            "mma" => {
                if m.has("sp") || m.has("sp::ordered_metadata") || m.has("block_scale") {
                    return self.unsupported(i);
                }
                m.flag("sync");
                m.flag("aligned");
                self.multiply(i, m, false)?;
            }
            "ldmatrix" | "stmatrix" => self.small(i, m)?,
            "movmatrix" => {
                m.drop_if(|name| matches!(name, "sync" | "aligned" | "m8n8" | "trans"));
                if m.ty()? != Ty::B16 {
                    return m.error("only .b16 exists");
                }
                let a = self.src(i, 1, Ty::B32)?;
                let d = self.dst(i, 0, Ty::B32)?;
                self.emit(common::<Transpose>(), d, [a, V::NONE, V::NONE], 0);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn multiply(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>, wmma: bool) -> Result<()> {
        let satfinite = m.flag("satfinite");
        let and = m.flag("and");
        let bit = m.flag("xor") || and;
        m.flag("popc");
        m.drop_if(|name| matches!(name, "rn" | "kind::f8f6f4"));
        let layouts: Vec<&str> = std::iter::from_fn(|| m.one_of(&["row", "col"])).collect();
        let Some(shape) = m.take(Shape::parse) else { return m.error("the shape is missing") };
        let types: Vec<Element> = std::iter::from_fn(|| m.take(Element::parse)).collect();
        let types = match types[..] {
            [d, a, b, c] => [d, a, b, c],
            [d, c] if wmma => [d, Element::F16, Element::F16, c],
            _ => return m.error("the element types are not understood"),
        };
        if !wmma && layouts != ["row", "col"] {
            return m.error("only .row.col is supported");
        }
        let made = if wmma { Mma::wmma(shape, types) } else { Mma::mma_sync(shape, types) };
        let Some(mma) = made else { return m.error("this shape is not supported for these types") };
        let mut mma = mma.satfinite(satfinite);
        if bit {
            mma = mma.bit_op(if and { BitOp::And } else { BitOp::Xor });
        }
        let fragments = mma.fragments();
        let ty = register_ty(types[0]);
        let mut uses = Vec::new();
        for (index, fragment) in fragments.iter().take(3).enumerate() {
            let list = self.elements(self.operand(i, index + 1)?);
            if list.len() != fragment.registers() as usize {
                return m.error("the number of registers does not fit the shape");
            }
            for operand in &list {
                uses.push(self.value(operand, ty)?);
            }
        }
        let list = self.elements(self.operand(i, 0)?);
        if list.len() != fragments[3].registers() as usize {
            return m.error("the number of registers does not fit the shape");
        }
        let defs =
            list.iter().map(|operand| self.target(operand, Self::class_of(ty))).collect::<Result<_>>()?;
        let op = MatrixOp::Mma {
            mma,
            a: fragments[0].registers() as usize,
            b: fragments[1].registers() as usize,
            wide: ty == Ty::B64,
        };
        let aux = AuxLow { defs, uses, data: Data::Matrix(Box::new(op)) };
        self.emit_aux(pick::<Multiply>(), V::NONE, [V::NONE; 3], 0, aux);
        Ok(())
    }

    fn small(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let store = i.opcode == "stmatrix";
        m.flag("sync");
        m.flag("aligned");
        if !m.flag("m8n8") {
            return self.unsupported(i);
        }
        let count = match m.one_of(&["x1", "x2", "x4"]) {
            Some("x2") => 2,
            Some("x4") => 4,
            _ => 1,
        };
        let trans = m.flag("trans");
        m.drop_if(|name| name.starts_with("shared"));
        if m.ty()? != Ty::B16 {
            return self.unsupported(i);
        }
        let at = usize::from(!store);
        let address: &Operand<'a> = self.operand(i, at)?;
        let a = self.address_value(address, SpaceName::Shared)?;
        let list = self.elements(self.operand(i, 1 - at)?);
        if list.len() != count {
            return m.error("the number of registers does not fit");
        }
        let mut aux = AuxLow { data: Data::Matrix(Box::new(MatrixOp::Small { trans })), ..AuxLow::default() };
        for operand in &list {
            if store {
                aux.uses.push(self.value(operand, Ty::B32)?);
            } else {
                aux.defs.push(self.target(operand, Class::R32)?);
            }
        }
        self.emit_aux(common::<SmallMatrices>(), V::NONE, [a, V::NONE, V::NONE], i64::from(store), aux);
        Ok(())
    }
}
