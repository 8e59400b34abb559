//! Fragments of matrices in memory: wmma.load and wmma.store (PTX ISA section "Warp-Level Matrix Instructions").

#![expect(clippy::cast_possible_truncation, reason = "registers and lanes are few, and stores drop bits")]

use super::matrix::{MatrixOp, description, register_ty, whole_warp};
use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::exec::WARP;
use crate::exec::aux::Data;
use crate::exec::memory_ops::{SpaceName, deposit, refuse, withdraw};
use crate::exec::op::{Cx, Exec, FULL, Flow, Inst, Lane, Lanes, Mask, OpFn, lane, pick};
use crate::exec::place::{GenericPlace, GlobalPlace, Place, SharedPlace, aligned};
use crate::exec::special::Value;
use crate::isa::matrix::{Element, Fragment, Operand as Role, Shape};
use crate::ptx::Ty;
use crate::ptx::ast::Instruction;

/// Where the elements of a fragment lie among the lines of its matrix: the rows, or the columns of one that is stored column by
/// column.
#[derive(Debug, Clone)]
pub(in crate::exec) struct Lines {
    /// Lines, and bytes of each.
    count: usize,
    bytes: u32,
    /// Register by register, lane by lane, element by element, without further copies.
    places: Box<[At]>,
    /// The same for each four lanes, where these hold consecutive elements.
    stretches: Option<Box<[At]>>,
}

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    line: u8,
    byte: u16,
}

impl Lines {
    /// Those of a fragment; none where elements share a byte.
    fn new(fragment: Fragment, row_major: bool) -> Option<Self> {
        let width = fragment.element().bits() / 8;
        let (lines, length) =
            if row_major { (fragment.rows(), fragment.cols()) } else { (fragment.cols(), fragment.rows()) };
        if width == 0 || lines > WARP as u32 {
            return None;
        }
        let per = fragment.per_register();
        let registers = fragment.rows() * fragment.cols() / (WARP as u32 * per);
        let place = |register: u32, lane: u32, part: u32| {
            let (row, col) = fragment.coord(lane, register * per + part);
            let (line, along) = if row_major { (row, col) } else { (col, row) };
            At { line: line as u8, byte: (along * width) as u16 }
        };
        let elements = |register| {
            (0..WARP as u32).flat_map(move |lane| (0..per).map(move |part| place(register, lane, part)))
        };
        let places: Box<[At]> = (0..registers).flat_map(elements).collect();
        let stretch = |four: &[At]| {
            let follows = |(index, at): (usize, &At)| {
                at.line == four[0].line
                    && u32::from(at.byte) == u32::from(four[0].byte) + index as u32 * width
            };
            four.iter().enumerate().all(follows).then_some(four[0])
        };
        let stretches = places.chunks_exact(4 * per as usize).map(stretch).collect();
        Some(Self { count: lines as usize, bytes: length * width, places, stretches })
    }

    /// Where the lines begin, if all lanes mean the same matrix and may access the whole of it.
    #[inline(always)]
    unsafe fn locate<P: Place>(
        &self,
        cx: &mut Cx<'_>,
        inst: &Inst,
        mask: Mask,
        width: u32,
    ) -> Option<[*mut u8; WARP]> {
        // SAFETY: the caller's promise (`OpFn`).
        let (base, stride) = unsafe { (lane::<u64>(cx, inst.a, 0), lane::<u32>(cx, inst.b, 0)) };
        let mut differs = base & u64::from(width - 1);
        for at in 0..WARP {
            // SAFETY: as above.
            differs |= unsafe {
                lane::<u64>(cx, inst.a, at) ^ base | u64::from(lane::<u32>(cx, inst.b, at) ^ stride)
            };
        }
        if differs != 0 || mask != FULL {
            return None;
        }
        let mut lines = [std::ptr::null_mut(); WARP];
        let between = u64::from(stride) * u64::from(width);
        for (index, line) in (0..).zip(&mut lines[..self.count]) {
            *line = P::span(cx, base.wrapping_add(index * between), self.bytes)?;
        }
        Some(lines)
    }
}

/// Moves whole registers between their slots and the lines of a matrix.
///
/// # Safety
/// As for [`OpFn`]; `begin` has what [`Lines::locate`] gave for `lines`, and `slots` are the fragment's.
#[inline(always)]
unsafe fn transfer<W: Lane<Repr = W>, const STORE: bool>(
    cx: &Cx<'_>,
    slots: &[u32],
    lines: &Lines,
    begin: &[*mut u8; WARP],
    per: usize,
) {
    let distinct = lines.places.len() / (WARP * per);
    let register = |index: usize| W::slot(cx, slots[index]).cast::<u8>();
    let size = size_of::<W>();
    let place = |at: At| begin[usize::from(at.line)].wrapping_add(usize::from(at.byte));
    if let Some(stretches) = &lines.stretches {
        for (index, groups) in stretches.chunks_exact(WARP / 4).enumerate() {
            for (group, at) in groups.iter().enumerate() {
                let (memory, lanes) = (place(*at), register(index).wrapping_add(4 * size * group));
                // SAFETY: the line is accessible as a whole, and so are the 32 lanes of the slot.
                unsafe {
                    if STORE {
                        std::ptr::copy_nonoverlapping(lanes, memory, 4 * size);
                    } else {
                        std::ptr::copy_nonoverlapping(memory, lanes, 4 * size);
                    }
                }
            }
        }
    } else {
        let width = size / per;
        for (index, places) in lines.places.chunks_exact(WARP * per).enumerate() {
            for (element, at) in places.iter().enumerate() {
                // Elements of a register follow each other as its bytes do.
                let (memory, part) = (place(*at), register(index).wrapping_add(width * element));
                // SAFETY: as above; both are aligned to the element.
                unsafe {
                    let (from, to) = if STORE { (part, memory) } else { (memory, part) };
                    match width {
                        8 => to.cast::<u64>().write(from.cast::<u64>().read()),
                        4 => to.cast::<u32>().write(from.cast::<u32>().read()),
                        2 => to.cast::<u16>().write(from.cast::<u16>().read()),
                        _ => to.write(from.read()),
                    }
                }
            }
        }
    }
    if !STORE {
        for copy in distinct..slots.len() {
            // SAFETY: two slots of 32 lanes; a list of results does not name one twice.
            unsafe { std::ptr::copy(register(copy % distinct), register(copy), WARP * size) };
        }
    }
}

/// Does the whole access, if its matrix allows it.
#[inline(always)]
unsafe fn whole<P: Place, const STORE: bool>(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> bool {
    let (defs, uses, MatrixOp::Fragment { fragment, lines: Some(lines), .. }) = description(cx, inst) else {
        return false;
    };
    let (bits, slots) = (fragment.element().bits(), if STORE { uses } else { defs });
    // SAFETY: the caller's promise (`OpFn`).
    let Some(begin) = (unsafe { lines.locate::<P>(cx, inst, mask, bits / 8) }) else { return false };
    let per = fragment.per_register() as usize;
    // SAFETY: as above.
    unsafe {
        match bits {
            64 => transfer::<u64, STORE>(cx, slots, lines, &begin, per),
            _ => transfer::<u32, STORE>(cx, slots, lines, &begin, per),
        }
    }
    true
}

/// Calls `f(register, bit, pointer, shift)` for each element of each lane.
unsafe fn each_element<P: Place>(
    cx: &mut Cx<'_>,
    inst: &Inst,
    mask: Mask,
    what: &str,
    mut f: impl FnMut(&Cx<'_>, usize, usize, u32, *mut u8, u32),
) -> Flow {
    let (_, _, MatrixOp::Fragment { fragment, element, row_major, .. }) = description(cx, inst) else {
        return Flow::Next;
    };
    let bits = element.bits();
    let per_register = fragment.per_register();
    for at in Lanes(mask) {
        // SAFETY: the caller's promise (`OpFn`).
        let (base, stride) = unsafe { (lane::<u64>(cx, inst.a, at), u64::from(lane::<u32>(cx, inst.b, at))) };
        for index in 0..fragment.elements() {
            let (row, col) = fragment.coord(at as u32, index);
            let linear = if *row_major {
                u64::from(row) * stride + u64::from(col)
            } else {
                u64::from(col) * stride + u64::from(row)
            };
            let bit = linear * u64::from(bits);
            let bytes = (bits / 8).max(1);
            let pointer = match aligned::<P>(cx, at, base.wrapping_add(bit / 8), bytes) {
                Ok(pointer) => pointer,
                Err(bad) => return refuse(cx, bad, what, P::NAME, at, bytes),
            };
            let register = (index / per_register) as usize;
            f(cx, at, register, index % per_register * bits, pointer, (bit % 8) as u32);
        }
    }
    Flow::Next
}

/// The bits of one element in memory.
unsafe fn fetch_bits(pointer: *const u8, bits: u32, shift: u32) -> u64 {
    // SAFETY: the caller has located an aligned element.
    unsafe {
        match bits {
            64 => pointer.cast::<u64>().read(),
            32 => u64::from(pointer.cast::<u32>().read()),
            16 => u64::from(pointer.cast::<u16>().read()),
            8 => u64::from(pointer.read()),
            bits => u64::from(pointer.read()) >> shift & ((1 << bits) - 1),
        }
    }
}

struct LoadFragment<P>(std::marker::PhantomData<P>);
impl<P: Place> Exec for LoadFragment<P> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        if let Some(flow) = whole_warp(cx, mask) {
            return flow;
        }
        // SAFETY: the caller's promise is passed on.
        if unsafe { whole::<P, false>(cx, inst, mask) } {
            return Flow::Next;
        }
        let (defs, _, MatrixOp::Fragment { element, .. }) = description(cx, inst) else { return Flow::Next };
        let bits = element.bits();
        let width = if bits == 64 { 64 } else { 32 };
        // SAFETY: the caller's promise (`OpFn`); `each_element` hands over located elements.
        unsafe {
            each_element::<P>(cx, inst, mask, "wmma.load", |cx, at, register, bit, pointer, shift| {
                let value = fetch_bits(pointer, bits, shift);
                let old = if bit == 0 { 0 } else { withdraw(cx, defs[register], at, width) };
                deposit(cx, defs[register], at, width, old | value << bit);
            })
        }
    }
}

struct StoreFragment<P>(std::marker::PhantomData<P>);
impl<P: Place> Exec for StoreFragment<P> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        if let Some(flow) = whole_warp(cx, mask) {
            return flow;
        }
        // SAFETY: the caller's promise is passed on.
        if unsafe { whole::<P, true>(cx, inst, mask) } {
            return Flow::Next;
        }
        let (_, uses, MatrixOp::Fragment { element, .. }) = description(cx, inst) else { return Flow::Next };
        let bits = element.bits();
        let width = if bits == 64 { 64 } else { 32 };
        // SAFETY: the caller's promise (`OpFn`); `each_element` hands over located elements, of 16 bits and more for results.
        unsafe {
            each_element::<P>(cx, inst, mask, "wmma.store", |cx, at, register, bit, pointer, _| {
                let value = withdraw(cx, uses[register], at, width) >> bit;
                match bits {
                    64 => pointer.cast::<u64>().write(value),
                    32 => pointer.cast::<u32>().write(value as u32),
                    _ => pointer.cast::<u16>().write(value as u16),
                }
            })
        }
    }
}

impl<'a> Lower<'_, 'a> {
    pub(super) fn fragment_access(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let store = m.flag("store");
        if !store && !m.flag("load") {
            return m.error("one of .load, .store and .mma is missing");
        }
        let role = match m.one_of(&["a", "b", "c", "d"]) {
            Some("a") => Role::A,
            Some("b") => Role::B,
            Some(_) => Role::C,
            None => return m.error("the matrix is missing"),
        };
        let row_major = m.one_of(&["row", "col"]) == Some("row");
        let Some(shape) = m.take(Shape::parse) else { return m.error("the shape is missing") };
        let space = self.space(m);
        let Some(element) = m.take(Element::parse) else { return m.error("the element type is missing") };
        let Some(fragment) = Fragment::wmma(shape, role, element) else {
            return m.error("this shape is not supported for this type");
        };
        let at = usize::from(!store);
        let a = self.address_value(self.operand(i, at)?, space)?;
        let natural = if row_major { fragment.cols() } else { fragment.rows() };
        let stride = if i.operands.len() > 2 {
            self.src(i, 2, Ty::U32)?
        } else {
            self.constant(Class::R32, Value::Bits(u64::from(natural)))
        };
        let ty = register_ty(element);
        let list = self.elements(self.operand(i, 1 - at)?);
        if list.len() != fragment.registers() as usize {
            return m.error("the number of registers does not fit the shape");
        }
        let mut aux = AuxLow {
            data: Data::Matrix(Box::new(MatrixOp::Fragment {
                fragment,
                element,
                row_major,
                lines: Lines::new(fragment, row_major),
            })),
            ..AuxLow::default()
        };
        let run: OpFn = match (store, space) {
            (false, SpaceName::Global) => pick::<LoadFragment<GlobalPlace>>(),
            (false, SpaceName::Shared) => pick::<LoadFragment<SharedPlace>>(),
            (false, SpaceName::Generic) => pick::<LoadFragment<GenericPlace>>(),
            (true, SpaceName::Global) => pick::<StoreFragment<GlobalPlace>>(),
            (true, SpaceName::Shared) => pick::<StoreFragment<SharedPlace>>(),
            (true, SpaceName::Generic) => pick::<StoreFragment<GenericPlace>>(),
            _ => return m.error("this state space is not supported"),
        };
        for operand in &list {
            if store {
                aux.uses.push(self.value(operand, ty)?);
            } else {
                aux.defs.push(self.target(operand, Self::class_of(ty))?);
            }
        }
        self.emit_aux(run, V::NONE, [a, stride, V::NONE], 0, aux);
        Ok(())
    }
}
