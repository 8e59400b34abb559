//! `atom` and `red`: read-modify-write per lane, lowest lane first.
//!
//! Global memory is shared with other threads of the pool and with the host, so it takes the CPU's atomics;
//! shared and local memory belong to the one thread that runs the block.
//!
//! With `PXSOFT_BUS_ATOMICS=0` the bus to the host's memory carries no atomics, as that of a GPU may not: one of system scope is
//! then a load, a pause and a store, so that what the host does meanwhile gets lost. Threads of the device still take turns.

#![expect(clippy::cast_possible_truncation, reason = "registers are wider than the values that they hold")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::aux::Data;
use super::fault::FaultKind;
use super::memory_ops::{
    Addr, AddrName, Frame, Reg32, Reg64, Shape, SpaceName, deposit, fetch, instance, put, refuse, withdraw,
};
use super::op::{Cx, Exec, Flow, Inst, Lanes, Mask, OpFn, common, lane, set_lane};
use super::place::{GenericPlace, GlobalPlace, LocalPlace, ParamPlace, Place, SharedPlace, aligned};
use crate::isa::atomic::{AtomOp, AtomType, apply, cas};

/// `d = [a]; [a] = op(d, b[, c])`; without a result register `d` is scratch.
struct Atomic<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for Atomic<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let Data::Atomic { op, ty, system } = cx.aux[inst.aux as usize].data else {
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
                let old = if P::PRIVATE {
                    update_alone(to, op, ty, b, c, bytes)
                } else if system && is_over_bus(cx, to) {
                    in_turn(|| update_slowly(to, op, ty, b, c, bytes))
                } else {
                    update(to, op, ty, b, c, bytes)
                };
                let old = if bytes == 2 { old & 0xffff } else { old };
                deposit(cx, inst.d, at, width, old);
            }
        }
        Flow::Next
    }
}

/// One update of memory that no other thread reaches; the value before it.
#[inline(always)]
unsafe fn update_alone(to: *mut u8, op: Option<AtomOp>, ty: AtomType, b: u64, c: u64, bytes: u32) -> u64 {
    // SAFETY: the caller has located an aligned value of `bytes` bytes.
    unsafe {
        if bytes == 4 && op == Some(AtomOp::Add) && matches!(ty, AtomType::U32 | AtomType::S32) {
            let cell = to.cast::<u32>();
            let old = cell.read();
            cell.write(old.wrapping_add(b as u32));
            return u64::from(old);
        }
        let old = fetch(to, Shape { bytes, signed: false, width: 64 });
        let new = match op {
            None => {
                let mask = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
                cas(old, b & mask, c)
            }
            Some(op) => apply(op, ty, old, b).unwrap_or(old),
        };
        put(to, bytes, new);
        old
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
                        let next =
                            |old: u32| Some(apply(op, ty, u64::from(old), b).map_or(old, |new| new as u32));
                        u64::from(cell.fetch_update(order, order, next).unwrap_or_else(|old| old))
                    }
                }
            }
            8 => {
                let cell = AtomicU64::from_ptr(to.cast());
                match (op, ty) {
                    (None, _) => cell.compare_exchange(b, c, order, order).unwrap_or_else(|old| old),
                    (Some(AtomOp::Add), AtomType::U64 | AtomType::S64 | AtomType::B64) => {
                        cell.fetch_add(b, order)
                    }
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

/// Whether the bus to the host's memory carries no atomics.
fn bus_lacks_atomics() -> bool {
    static LACKS: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("PXSOFT_BUS_ATOMICS").is_some_and(|value| value == "0"));
    *LACKS
}

/// Whether an atomic of system scope would have to go over such a bus.
fn is_over_bus(cx: &Cx<'_>, to: *mut u8) -> bool {
    bus_lacks_atomics() && !cx.memory.owns(to.expose_provenance() as u64)
}

/// Runs an update that threads of the device make one at a time.
fn in_turn<T>(update: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    update()
}

/// As [`update_alone`], with time between load and store.
unsafe fn update_slowly(to: *mut u8, op: Option<AtomOp>, ty: AtomType, b: u64, c: u64, bytes: u32) -> u64 {
    // SAFETY: the caller has located an aligned value of `bytes` bytes, here and below.
    let old = unsafe { fetch(to, Shape { bytes, signed: false, width: 64 }) };
    pause();
    let mut value = old.to_ne_bytes();
    // SAFETY: a value of at most eight bytes.
    let found = unsafe { update_alone(value.as_mut_ptr(), op, ty, b, c, bytes) };
    // SAFETY: as above.
    unsafe { put(to, bytes, u64::from_ne_bytes(value)) };
    found
}

/// About a microsecond, as a way over the bus and back takes.
fn pause() {
    for _ in 0..50 {
        std::hint::spin_loop();
    }
}

/// Vector `red`/`atom` (`.v2`, `.v4`): each element is its own atomic; elements in `uses`, results in `defs`.
struct AtomicVector<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for AtomicVector<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        let Data::Atomic { op, ty, system } = aux.data else {
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
                let slowly = system && is_over_bus(cx, to);
                for (index, slot) in aux.uses.iter().enumerate() {
                    let b = withdraw(cx, *slot, at, width);
                    let to = to.add(index * each as usize);
                    let old = if slowly {
                        in_turn(|| update_slowly(to, op, ty, b, 0, each))
                    } else {
                        update(to, op, ty, b, 0, each)
                    };
                    if let Some(slot) = aux.defs.get(index) {
                        deposit(cx, *slot, at, width, old);
                    }
                }
            }
        }
        Flow::Next
    }
}

/// 128-bit exchange and compare-and-swap: low halves in `uses[0]`, `uses[2]`, high halves after them; results in
/// `defs`.
struct AtomicWide<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for AtomicWide<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let aux = &cx.aux[inst.aux as usize];
        let system = matches!(aux.data, Data::Atomic { system: true, .. });
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = A::get(cx, inst, at);
                let to = match aligned::<P>(cx, at, address, 16) {
                    Ok(to) => to.cast::<[u64; 2]>(),
                    Err(bad) => return refuse(cx, bad, "atomic", P::NAME, at, 16),
                };
                let value = |index: usize| lane::<u64>(cx, aux.uses[index], at);
                let next = |old: [u64; 2]| match aux.uses.len() {
                    2 => Some([value(0), value(1)]),
                    _ => (old == [value(0), value(1)]).then(|| [value(2), value(3)]),
                };
                let old = if system && is_over_bus(cx, to.cast()) {
                    in_turn(|| {
                        let old = to.read();
                        pause();
                        to.write(next(old).unwrap_or(old));
                        old
                    })
                } else {
                    update16(to, next)
                };
                set_lane(cx, aux.defs[0], at, old[0]);
                set_lane(cx, aux.defs[1], at, old[1]);
            }
        }
        Flow::Next
    }
}

/// Replaces 16 aligned bytes by what `next` makes of them, until that has happened in one step or `next` has nothing
/// to put there; the value before.
unsafe fn update16(to: *mut [u64; 2], next: impl Fn([u64; 2]) -> Option<[u64; 2]>) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("cmpxchg16b") {
        // SAFETY: the caller has located 16 aligned bytes. A torn first guess only costs a round.
        let mut old = unsafe { to.read() };
        loop {
            // Without a new value the old one is written back, which proves that it was there as a whole.
            let new = next(old).unwrap_or(old);
            // SAFETY: as above; the CPU has the instruction.
            let found = unsafe { exchange16(to, old, new) };
            if found == old {
                return old;
            }
            old = found;
        }
    }
    // Without such an instruction all of these take one lock.
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock();
    // SAFETY: the caller has located 16 aligned bytes.
    unsafe {
        let old = to.read();
        if let Some(new) = next(old) {
            to.write(new);
        }
        drop(guard);
        old
    }
}

/// `lock cmpxchg16b`: the value found, which is `old` if `new` has been written. In assembly, since the intrinsic becomes
/// a call into a library where the feature is not part of the whole build.
#[cfg(target_arch = "x86_64")]
unsafe fn exchange16(to: *mut [u64; 2], old: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    let (mut low, mut high) = (old[0], old[1]);
    // SAFETY: the caller has located 16 aligned bytes and asked the CPU for the instruction; `rbx`, which the
    // instruction takes and the compiler keeps for itself, is restored.
    unsafe {
        std::arch::asm!(
            "xchg {new_low}, rbx",
            "lock cmpxchg16b xmmword ptr [rdi]",
            "mov rbx, {new_low}",
            new_low = inout(reg) new[0] => _,
            in("rdi") to,
            in("rcx") new[1],
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    [low, high]
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
