//! `atom` and `red`: read-modify-write per lane, lowest lane first.
//!
//! Global memory is shared with other threads of the pool and with the host, so it takes the CPU's atomics;
//! shared and local memory belong to the one thread that runs the block.

#![expect(clippy::cast_possible_truncation, reason = "registers are wider than the values that they hold")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::aux::Data;
use super::fault::FaultKind;
use super::memory_ops::{
    Addr, AddrName, Frame, GenericPlace, GlobalPlace, LocalPlace, ParamPlace, Place, Reg32, Reg64, SharedPlace,
    SpaceName, aligned, deposit, instance, refuse, withdraw,
};
use super::op::{Cx, Exec, Flow, Inst, Lanes, Mask, OpFn, lane, common, set_lane};
use crate::isa::atomic::{AtomOp, AtomType, apply, cas};

/// `d = [a]; [a] = op(d, b[, c])`; without a result register `d` is scratch.
struct Atomic<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for Atomic<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let Data::Atomic { op, ty } = cx.aux[inst.aux as usize].data else {
            return cx.fail(FaultKind::IllegalInstruction, 0, "atomic without an operation".to_owned());
        };
        let bytes = ty.size() as u32;
        let width = if bytes == 8 { 64 } else { 32 };
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = A::get(cx, inst, at);
                let to = match aligned::<P>(cx, at, address, bytes) {
                    Ok(to) => to,
                    Err(bad) => return refuse(cx, bad, "atomic", P::NAME, at, bytes),
                };
                let b = withdraw(cx, inst.b, at, width);
                let c = if op.is_none() { withdraw(cx, inst.c, at, width) } else { 0 };
                let old = update(to, op, ty, b, c, bytes);
                let old = if bytes == 2 { old & 0xffff } else { old };
                deposit(cx, inst.d, at, width, old);
            }
        }
        Flow::Next
    }
}

/// One atomic update; the value before it.
#[inline(always)]
unsafe fn update(to: *mut u8, op: Option<AtomOp>, ty: AtomType, b: u64, c: u64, bytes: u32) -> u64 {
    let order = Ordering::SeqCst;
    // SAFETY: the caller has located an aligned value of `bytes` bytes; all accesses that may race with this one
    // are raw or atomic.
    unsafe {
        match bytes {
            4 => {
                let cell = AtomicU32::from_ptr(to.cast());
                let b32 = b as u32;
                match (op, ty) {
                    (None, _) => {
                        let result = cell.compare_exchange(b32, c as u32, order, order);
                        u64::from(result.unwrap_or_else(|old| old))
                    }
                    (Some(AtomOp::Add), AtomType::U32 | AtomType::S32 | AtomType::B32) => {
                        u64::from(cell.fetch_add(b32, order))
                    }
                    (Some(AtomOp::And), _) => u64::from(cell.fetch_and(b32, order)),
                    (Some(AtomOp::Or), _) => u64::from(cell.fetch_or(b32, order)),
                    (Some(AtomOp::Xor), _) => u64::from(cell.fetch_xor(b32, order)),
                    (Some(AtomOp::Exch), _) => u64::from(cell.swap(b32, order)),
                    (Some(op), _) => {
                        let next = |old: u32| Some(apply(op, ty, u64::from(old), b).map_or(old, |new| new as u32));
                        u64::from(cell.fetch_update(order, order, next).unwrap_or_else(|old| old))
                    }
                }
            }
            8 => {
                let cell = AtomicU64::from_ptr(to.cast());
                match (op, ty) {
                    (None, _) => cell.compare_exchange(b, c, order, order).unwrap_or_else(|old| old),
                    (Some(AtomOp::Add), AtomType::U64 | AtomType::S64 | AtomType::B64) => cell.fetch_add(b, order),
                    (Some(AtomOp::And), _) => cell.fetch_and(b, order),
                    (Some(AtomOp::Or), _) => cell.fetch_or(b, order),
                    (Some(AtomOp::Xor), _) => cell.fetch_xor(b, order),
                    (Some(AtomOp::Exch), _) => cell.swap(b, order),
                    (Some(op), _) => {
                        let next = |old: u64| Some(apply(op, ty, old, b).unwrap_or(old));
                        cell.fetch_update(order, order, next).unwrap_or_else(|old| old)
                    }
                }
            }
            _ => {
                let cell = AtomicU16::from_ptr(to.cast());
                let next = |old: u16| {
                    let wide = u64::from(old);
                    Some(match op {
                        None => cas(wide, b & 0xffff, c & 0xffff),
                        Some(op) => apply(op, ty, wide, b).unwrap_or(wide),
                    } as u16)
                };
                u64::from(cell.fetch_update(order, order, next).unwrap_or_else(|old| old))
            }
        }
    }
}

/// Vector `red`/`atom` (`.v2`, `.v4`): each element is its own atomic; elements in `uses`, results in `defs`.
struct AtomicVector<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for AtomicVector<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        let Data::Atomic { op, ty } = aux.data else {
            return cx.fail(FaultKind::IllegalInstruction, 0, "atomic without an operation".to_owned());
        };
        let each = ty.size() as u32;
        let width = if each == 8 { 64 } else { 32 };
        let bytes = each * aux.uses.len() as u32;
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer for the whole vector.
            unsafe {
                let address = A::get(cx, inst, at);
                let to = match aligned::<P>(cx, at, address, bytes) {
                    Ok(to) => to,
                    Err(bad) => return refuse(cx, bad, "atomic", P::NAME, at, bytes),
                };
                for (index, slot) in aux.uses.iter().enumerate() {
                    let b = withdraw(cx, *slot, at, width);
                    let old = update(to.add(index * each as usize), op, ty, b, 0, each);
                    if let Some(slot) = aux.defs.get(index) {
                        deposit(cx, *slot, at, width, old);
                    }
                }
            }
        }
        Flow::Next
    }
}

/// 128-bit exchange and compare-and-swap: low halves in `uses[0]`, `uses[2]`, high halves after them; results in `defs`.
/// The CPU's 16-byte compare-exchange is not reachable from safe features everywhere, so these take a lock that all of them share.
struct AtomicWide<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for AtomicWide<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let aux = &cx.aux[inst.aux as usize];
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = A::get(cx, inst, at);
                let to = match aligned::<P>(cx, at, address, 16) {
                    Ok(to) => to.cast::<[u64; 2]>(),
                    Err(bad) => return refuse(cx, bad, "atomic", P::NAME, at, 16),
                };
                let value = |index: usize| lane::<u64>(cx, aux.uses[index], at);
                let guard = LOCK.lock();
                let old = to.read();
                if aux.uses.len() == 2 {
                    to.write([value(0), value(1)]);
                } else if old == [value(0), value(1)] {
                    to.write([value(2), value(3)]);
                }
                drop(guard);
                set_lane(cx, aux.defs[0], at, old[0]);
                set_lane(cx, aux.defs[1], at, old[1]);
            }
        }
        Flow::Next
    }
}

/// The instance for a space and a way to write the address.
pub(super) fn atomic(space: SpaceName, addr: AddrName) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            common::<Atomic<$p, $a>>()
        };
    }
    instance!(space, addr, with)
}

/// As [`atomic`], for vectors.
pub(super) fn atomic_vector(space: SpaceName, addr: AddrName) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            common::<AtomicVector<$p, $a>>()
        };
    }
    instance!(space, addr, with)
}

/// As [`atomic`], for 128 bits.
pub(super) fn atomic_wide(space: SpaceName, addr: AddrName) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            common::<AtomicWide<$p, $a>>()
        };
    }
    instance!(space, addr, with)
}
