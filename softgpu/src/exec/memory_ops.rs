//! Loads and stores in every state space, with their checks.
//!
//! Data races between device threads are the device program's: accesses are plain loads and stores through raw
//! pointers into memory to which no Rust reference exists. A fault names the first lane that caused it.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "accesses cut registers to the size of the element"
)]

use std::marker::PhantomData;

use super::WARP;
use super::fault::FaultKind;
use super::op::{Cx, Exec, FULL, Flow, Inst, Lane, Lanes, Mask, OpFn, common, lane, pick, set_lane};
use super::place::{Bad, GenericPlace, GlobalPlace, LocalPlace, ParamPlace, Place, SharedPlace, aligned};

/// How the address is written.
pub(super) trait Addr: 'static {
    /// # Safety
    /// As for [`super::op::OpFn`].
    unsafe fn get(cx: &Cx<'_>, inst: &Inst, lane: usize) -> u64;
}

/// `[64-bit register + imm]`.
pub(super) struct Reg64;
impl Addr for Reg64 {
    #[inline(always)]
    unsafe fn get(cx: &Cx<'_>, inst: &Inst, at: usize) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { lane::<u64>(cx, inst.a, at) }.wrapping_add_signed(inst.imm)
    }
}

/// `[32-bit register + imm]`.
pub(super) struct Reg32;
impl Addr for Reg32 {
    #[inline(always)]
    unsafe fn get(cx: &Cx<'_>, inst: &Inst, at: usize) -> u64 {
        // SAFETY: the caller's promise.
        u64::from(unsafe { lane::<u32>(cx, inst.a, at) }.wrapping_add(inst.imm as u32))
    }
}

/// `[variable of the frame + imm]`.
pub(super) struct Frame;
impl Addr for Frame {
    #[inline(always)]
    unsafe fn get(cx: &Cx<'_>, inst: &Inst, _: usize) -> u64 {
        u64::from(cx.local_base).wrapping_add_signed(inst.imm)
    }
}

/// An access, packed into `Inst::code`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// 1, 2, 4, 8 (each element).
    pub(super) bytes: u32,
    pub(super) signed: bool,
    /// Bits of the register: 8, 16, 32, 64.
    pub(super) width: u32,
}

impl Shape {
    pub(super) fn pack(self) -> u32 {
        self.bytes | u32::from(self.signed) << 8 | self.width << 16
    }

    #[inline(always)]
    fn unpack(code: u32) -> Self {
        Self { bytes: code & 0xff, signed: code & 0x100 != 0, width: code >> 16 }
    }
}

/// Reports an access that failed.
#[cold]
#[inline(never)]
pub(super) fn refuse(cx: &mut Cx<'_>, bad: Bad, what: &str, space: &str, lane: usize, bytes: u32) -> Flow {
    let Bad { kind, address } = bad;
    let why = match kind {
        FaultKind::MisalignedAddress => "is misaligned",
        _ => "is not accessible",
    };
    cx.fail(kind, lane, format!("{what} of {bytes} bytes in {space} memory: address {address:#x} {why}"))
}

/// The pointer to lane 0's element when all lanes access consecutive elements.
#[inline(always)]
unsafe fn consecutive<P: Place, A: Addr>(cx: &mut Cx<'_>, inst: &Inst, bytes: u32) -> Option<*mut u8> {
    // SAFETY: the caller's promise (`OpFn`).
    let first = unsafe { A::get(cx, inst, 0) };
    let mut differs = first & u64::from(bytes - 1);
    let mut wanted = first;
    for at in 0..WARP {
        // SAFETY: as above.
        differs |= unsafe { A::get(cx, inst, at) } ^ wanted;
        wanted = wanted.wrapping_add(u64::from(bytes));
    }
    if differs != 0 {
        return None;
    }
    P::span(cx, first, bytes * WARP as u32)
}

/// Offset 0 of a space in which all 32 addresses are aligned and in bounds.
#[inline(always)]
unsafe fn within<P: Place, A: Addr>(cx: &mut Cx<'_>, inst: &Inst, bytes: u32) -> Option<*mut u8> {
    let (mut highest, mut bits) = (0, 0);
    for at in 0..WARP {
        // SAFETY: the caller's promise (`OpFn`).
        let address = unsafe { A::get(cx, inst, at) };
        highest = address.max(highest);
        bits |= address;
    }
    if bits & u64::from(bytes - 1) != 0 {
        return None;
    }
    P::window(cx, highest, bytes)
}

/// Loads of elements as wide as their register.
struct Load<P, A, T>(PhantomData<(P, A, T)>);
impl<P: Place, A: Addr, T: Lane<Repr = T>> Exec for Load<P, A, T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let bytes = size_of::<T>() as u32;
        // SAFETY: the caller's promise (`OpFn`); pointers come from `span` and `locate`, which have checked them.
        unsafe {
            if mask == FULL
                && let Some(from) = consecutive::<P, A>(cx, inst, bytes)
            {
                std::ptr::copy_nonoverlapping(from.cast::<T>(), T::slot(cx, inst.d), WARP);
                return Flow::Next;
            }
            if mask == FULL
                && let Some(base) = within::<P, A>(cx, inst, bytes)
            {
                for at in 0..WARP {
                    let from = base.add(A::get(cx, inst, at) as usize);
                    set_lane(cx, inst.d, at, from.cast::<T>().read());
                }
                return Flow::Next;
            }
            for at in Lanes(mask) {
                let address = A::get(cx, inst, at);
                match aligned::<P>(cx, at, address, bytes) {
                    Ok(from) => set_lane(cx, inst.d, at, from.cast::<T>().read()),
                    Err(bad) => return refuse(cx, bad, "load", P::NAME, at, bytes),
                }
            }
        }
        Flow::Next
    }
}

/// Reads one element, extended to 64 bits.
#[inline(always)]
pub(super) unsafe fn fetch(from: *const u8, shape: Shape) -> u64 {
    // SAFETY: the caller has located `shape.bytes` aligned bytes.
    unsafe {
        match (shape.bytes, shape.signed) {
            (1, false) => u64::from(from.read()),
            (1, true) => i64::from(from.cast::<i8>().read()).cast_unsigned(),
            (2, false) => u64::from(from.cast::<u16>().read()),
            (2, true) => i64::from(from.cast::<i16>().read()).cast_unsigned(),
            (4, false) => u64::from(from.cast::<u32>().read()),
            (4, true) => i64::from(from.cast::<i32>().read()).cast_unsigned(),
            _ => from.cast::<u64>().read(),
        }
    }
}

/// Writes one register lane, cut to the register's width.
#[inline(always)]
pub(super) unsafe fn deposit(cx: &Cx<'_>, slot: u32, at: usize, width: u32, value: u64) {
    // SAFETY: the caller's promise (`OpFn`).
    unsafe {
        match width {
            64 => set_lane(cx, slot, at, value),
            32 => set_lane(cx, slot, at, value as u32),
            16 => set_lane(cx, slot, at, value as u16),
            _ => set_lane(cx, slot, at, value as u8),
        }
    }
}

/// Reads one register lane.
#[inline(always)]
pub(super) unsafe fn withdraw(cx: &Cx<'_>, slot: u32, at: usize, width: u32) -> u64 {
    // SAFETY: the caller's promise (`OpFn`).
    unsafe { if width == 64 { lane::<u64>(cx, slot, at) } else { u64::from(lane::<u32>(cx, slot, at)) } }
}

/// Loads of one element into a register that may be wider.
struct LoadAny<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for LoadAny<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let shape = Shape::unpack(inst.code);
        // SAFETY: the caller's promise (`OpFn`); `consecutive` has checked the pointer.
        unsafe {
            if mask == FULL
                && let Some(from) = consecutive::<P, A>(cx, inst, shape.bytes)
            {
                for at in 0..WARP {
                    let value = fetch(from.add(at * shape.bytes as usize), shape);
                    deposit(cx, inst.d, at, shape.width, value);
                }
                return Flow::Next;
            }
        }
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = A::get(cx, inst, at);
                match aligned::<P>(cx, at, address, shape.bytes) {
                    Ok(from) => deposit(cx, inst.d, at, shape.width, fetch(from, shape)),
                    Err(bad) => return refuse(cx, bad, "load", P::NAME, at, shape.bytes),
                }
            }
        }
        Flow::Next
    }
}

/// Reads a vector of 2 to 32 aligned bytes. Up to 16 bytes are one access of the CPU: programs rely on a GPU's being so
/// (a flag and the value that it guards, in one vector), although the PTX memory model promises it per element only.
#[inline(always)]
unsafe fn take(from: *const u8, bytes: u32) -> [u64; 4] {
    let mut data = [0u64; 4];
    // SAFETY: the caller has located `bytes` bytes, aligned to their number.
    unsafe {
        match bytes {
            16 => copy16(from, data.as_mut_ptr().cast()),
            8 => data[0] = from.cast::<u64>().read(),
            4 => data[0] = u64::from(from.cast::<u32>().read()),
            2 => data[0] = u64::from(from.cast::<u16>().read()),
            _ => {
                copy16(from, data.as_mut_ptr().cast());
                copy16(from.add(16), data.as_mut_ptr().add(2).cast());
            }
        }
    }
    data
}

/// Writes a vector; see [`take`].
#[inline(always)]
unsafe fn give(to: *mut u8, bytes: u32, data: &[u64; 4]) {
    // SAFETY: as in `take`.
    unsafe {
        match bytes {
            16 => copy16(data.as_ptr().cast(), to),
            8 => to.cast::<u64>().write(data[0]),
            4 => to.cast::<u32>().write(data[0] as u32),
            2 => to.cast::<u16>().write(data[0] as u16),
            _ => {
                copy16(data.as_ptr().cast(), to);
                copy16(data.as_ptr().add(2).cast(), to.add(16));
            }
        }
    }
}

/// Writes the two or four words of a vector, out of registers: written to memory first and then read as a whole, they would
/// have to be waited for.
#[inline(always)]
unsafe fn give_words(to: *mut u8, words: [u32; 4], count: usize) {
    let pair = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
    // SAFETY: as in `take`; `count` is 2 or 4.
    unsafe {
        if count == 2 {
            return to.cast::<u64>().write(pair(0));
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_set_epi64x, _mm_storeu_si128};
            _mm_storeu_si128(to.cast(), _mm_set_epi64x(pair(2).cast_signed(), pair(0).cast_signed()));
        }
        #[cfg(not(target_arch = "x86_64"))]
        to.cast::<u128>().write_unaligned(u128::from(pair(0)) | u128::from(pair(2)) << 64);
    }
}

/// Copies 16 bytes in one piece; the device side is aligned to 16.
#[inline(always)]
unsafe fn copy16(from: *const u8, to: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller has located both; unaligned instructions on an aligned address are as indivisible.
    unsafe {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_storeu_si128};
        _mm_storeu_si128(to.cast(), _mm_loadu_si128(from.cast()));
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller has located both.
    unsafe {
        to.cast::<u128>().write_unaligned(from.cast::<u128>().read_unaligned());
    }
}

/// Vector loads: registers in `defs`.
struct LoadVector<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for LoadVector<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let shape = Shape::unpack(inst.code);
        let aux = &cx.aux[inst.aux as usize];
        let count = aux.defs.len();
        let bytes = shape.bytes * count as u32;
        let first = if mask == FULL {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { consecutive::<P, A>(cx, inst, bytes) }
        } else {
            None
        };
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `consecutive` or `aligned` has checked the pointer for the whole vector.
            unsafe {
                let from = match first {
                    Some(first) => first.add(at * bytes as usize),
                    None => {
                        let address = A::get(cx, inst, at);
                        match aligned::<P>(cx, at, address, bytes) {
                            Ok(from) => from,
                            Err(bad) => return refuse(cx, bad, "load", P::NAME, at, bytes),
                        }
                    }
                };
                let data = take(from, bytes);
                if shape.bytes == 4 && shape.width == 32 {
                    for (index, slot) in aux.defs.iter().enumerate() {
                        set_lane(cx, *slot, at, data.as_ptr().cast::<u32>().add(index).read());
                    }
                } else {
                    for (index, slot) in aux.defs.iter().enumerate() {
                        let value =
                            fetch(data.as_ptr().cast::<u8>().add(index * shape.bytes as usize), shape);
                        deposit(cx, *slot, at, shape.width, value);
                    }
                }
            }
        }
        Flow::Next
    }
}

/// Stores of elements as wide as their register; the value is in `b`.
struct Store<P, A, T>(PhantomData<(P, A, T)>);
impl<P: Place, A: Addr, T: Lane<Repr = T>> Exec for Store<P, A, T> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let bytes = size_of::<T>() as u32;
        // SAFETY: the caller's promise (`OpFn`); pointers come from `span` and `locate`, which have checked them.
        unsafe {
            if mask == FULL
                && let Some(to) = consecutive::<P, A>(cx, inst, bytes)
            {
                std::ptr::copy_nonoverlapping(T::slot(cx, inst.b), to.cast::<T>(), WARP);
                return Flow::Next;
            }
            if mask == FULL
                && let Some(base) = within::<P, A>(cx, inst, bytes)
            {
                for at in 0..WARP {
                    let to = base.add(A::get(cx, inst, at) as usize);
                    to.cast::<T>().write(lane(cx, inst.b, at));
                }
                return Flow::Next;
            }
            for at in Lanes(mask) {
                let address = A::get(cx, inst, at);
                match aligned::<P>(cx, at, address, bytes) {
                    Ok(to) => to.cast::<T>().write(lane(cx, inst.b, at)),
                    Err(bad) => return refuse(cx, bad, "store", P::NAME, at, bytes),
                }
            }
        }
        Flow::Next
    }
}

#[inline(always)]
pub(super) unsafe fn put(to: *mut u8, bytes: u32, value: u64) {
    // SAFETY: the caller has located `bytes` aligned bytes.
    unsafe {
        match bytes {
            1 => to.write(value as u8),
            2 => to.cast::<u16>().write(value as u16),
            4 => to.cast::<u32>().write(value as u32),
            _ => to.cast::<u64>().write(value),
        }
    }
}

/// Stores of the low part of a register.
struct StoreAny<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for StoreAny<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let shape = Shape::unpack(inst.code);
        // SAFETY: the caller's promise (`OpFn`); `consecutive` has checked the pointer.
        unsafe {
            if mask == FULL
                && let Some(to) = consecutive::<P, A>(cx, inst, shape.bytes)
            {
                for at in 0..WARP {
                    let value = withdraw(cx, inst.b, at, shape.width);
                    put(to.add(at * shape.bytes as usize), shape.bytes, value);
                }
                return Flow::Next;
            }
        }
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `aligned` has checked the pointer.
            unsafe {
                let address = A::get(cx, inst, at);
                match aligned::<P>(cx, at, address, shape.bytes) {
                    Ok(to) => put(to, shape.bytes, withdraw(cx, inst.b, at, shape.width)),
                    Err(bad) => return refuse(cx, bad, "store", P::NAME, at, shape.bytes),
                }
            }
        }
        Flow::Next
    }
}

/// Vector stores: registers in `uses`.
struct StoreVector<P, A>(PhantomData<(P, A)>);
impl<P: Place, A: Addr> Exec for StoreVector<P, A> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let shape = Shape::unpack(inst.code);
        let aux = &cx.aux[inst.aux as usize];
        let bytes = shape.bytes * aux.uses.len() as u32;
        let first = if mask == FULL {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { consecutive::<P, A>(cx, inst, bytes) }
        } else {
            None
        };
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`); `consecutive` or `aligned` has checked the pointer for the whole vector.
            unsafe {
                let to = match first {
                    Some(first) => first.add(at * bytes as usize),
                    None => {
                        let address = A::get(cx, inst, at);
                        match aligned::<P>(cx, at, address, bytes) {
                            Ok(to) => to,
                            Err(bad) => return refuse(cx, bad, "store", P::NAME, at, bytes),
                        }
                    }
                };
                if shape.bytes == 4
                    && shape.width == 32
                    && let count @ (2 | 4) = aux.uses.len()
                {
                    let word = |index: usize| lane::<u32>(cx, aux.uses[index & (count - 1)], at);
                    give_words(to, [word(0), word(1), word(2), word(3)], count);
                    continue;
                }
                let mut data = [0u64; 4];
                for (index, slot) in aux.uses.iter().enumerate() {
                    let value = withdraw(cx, *slot, at, shape.width);
                    put(data.as_mut_ptr().cast::<u8>().add(index * shape.bytes as usize), shape.bytes, value);
                }
                give(to, bytes, &data);
            }
        }
        Flow::Next
    }
}

/// A state space as lowering names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpaceName {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// How an address is written, as lowering names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddrName {
    Reg64,
    Reg32,
    Frame,
}

/// Calls `$f!(Place, Addr)` for names. Lowering has made registers of the width that the space takes.
macro_rules! instance {
    ($space:expr, $addr:expr, $f:ident) => {
        match ($space, $addr) {
            (_, AddrName::Frame) => $f!(LocalPlace, Frame),
            (SpaceName::Global, _) => $f!(GlobalPlace, Reg64),
            (SpaceName::Shared, _) => $f!(SharedPlace, Reg32),
            (SpaceName::Local, _) => $f!(LocalPlace, Reg64),
            (SpaceName::Param, _) => $f!(ParamPlace, Reg64),
            (SpaceName::Generic, _) => $f!(GenericPlace, Reg64),
        }
    };
}
pub(super) use instance;

fn instance_of<E: Exec, P: Place>() -> OpFn {
    if P::HOT { pick::<E>() } else { common::<E>() }
}

/// A load of one element.
pub(super) fn load(space: SpaceName, addr: AddrName, shape: Shape) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            match (shape.bytes, shape.width) {
                (4, 32) => instance_of::<Load<$p, $a, u32>, $p>(),
                (8, 64) => instance_of::<Load<$p, $a, u64>, $p>(),
                _ => common::<LoadAny<$p, $a>>(),
            }
        };
    }
    instance!(space, addr, with)
}

/// A load of several elements.
pub(super) fn load_vector(space: SpaceName, addr: AddrName) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            common::<LoadVector<$p, $a>>()
        };
    }
    instance!(space, addr, with)
}

/// A store of one element.
pub(super) fn store(space: SpaceName, addr: AddrName, shape: Shape) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            match (shape.bytes, shape.width) {
                (4, 32) => instance_of::<Store<$p, $a, u32>, $p>(),
                (8, 64) => instance_of::<Store<$p, $a, u64>, $p>(),
                _ => common::<StoreAny<$p, $a>>(),
            }
        };
    }
    instance!(space, addr, with)
}

/// A store of several elements.
pub(super) fn store_vector(space: SpaceName, addr: AddrName) -> OpFn {
    macro_rules! with {
        ($p:ty, $a:ty) => {
            common::<StoreVector<$p, $a>>()
        };
    }
    instance!(space, addr, with)
}

/// Writes bytes to a generic address.
pub(super) fn write_bytes(cx: &mut Cx<'_>, lane: usize, address: u64, bytes: &[u8]) -> Result<(), Bad> {
    for (index, byte) in bytes.iter().enumerate() {
        let to = GenericPlace::locate(cx, lane, address.wrapping_add(index as u64), 1)?;
        // SAFETY: `locate` has checked the byte.
        unsafe { to.write(*byte) };
    }
    Ok(())
}

/// Copies `bytes` from generic memory of a lane, for the runtime functions.
pub(super) fn read_bytes(cx: &mut Cx<'_>, lane: usize, address: u64, out: &mut [u8]) -> Result<(), Bad> {
    for (index, byte) in out.iter_mut().enumerate() {
        let from = GenericPlace::locate(cx, lane, address.wrapping_add(index as u64), 1)?;
        // SAFETY: `locate` has checked the byte.
        *byte = unsafe { from.read() };
    }
    Ok(())
}
