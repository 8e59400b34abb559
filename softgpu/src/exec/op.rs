//! The shape of an executable instruction, and the loops over lanes that every arithmetic instruction shares.
//!
//! An instruction is a function pointer and operand slots. Slots count in elements of three register files: 32-bit
//! lanes (also 8- and 16-bit values, zero-extended), 64-bit lanes and predicates (one bit per lane). Constants,
//! parameters and most special registers live in slots too, so that every operand is a slot.
//! Invariant: a function writes only the lanes of its mask.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "registers are wider than some of the values that they hold"
)]

use std::marker::PhantomData;
use std::sync::OnceLock;

use super::WARP;
use super::aux::Aux;
use super::block::Barriers;
use super::fault::FaultKind;
use super::launch::Job;
use crate::device::memory::{HostView, Memory};

/// Lanes, one bit each.
pub(super) type Mask = u32;
/// All lanes.
pub(super) const FULL: Mask = u32::MAX;

/// What the warp does after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Goes on with the next instruction.
    Next,
    /// The masked lanes jump to `imm`.
    Branch,
    /// The masked lanes jump to `Cx::targets`.
    BranchMany,
    /// The masked lanes call the functions in `Cx::targets`.
    Call,
    /// The masked lanes return.
    Return,
    /// The masked lanes end.
    Exit,
    /// The masked lanes wait at the barrier described in `Cx::wait`.
    Barrier,
    /// The masked lanes wait for the other lanes of `Cx::wait_mask`.
    Converge,
    /// The masked lanes allocate `a` bytes of stack, aligned to `imm`, and get their address in `d`
    /// (`code` 0), get the end of the stack (1) or set it to `a` (2).
    Stack,
    /// Goes on, but others should run first (a failed poll).
    Yield,
    /// The masked lanes name different members in `c`: they must be taken apart.
    Members,
    /// `Cx::fault` says what went wrong.
    Fault,
}

/// An instruction's function: context, operands, lanes (never empty).
///
/// # Safety
/// The context's register pointers must be those of the frame the instruction was lowered for.
pub(super) type OpFn = unsafe fn(&mut Cx<'_>, &Inst, Mask) -> Flow;

/// One executable instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inst {
    pub(super) run: OpFn,
    /// Result slot.
    pub(super) d: u32,
    /// Operand slots.
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u32,
    /// Address offset, jump target or packed modifiers.
    pub(super) imm: i64,
    /// 0, or 1 + 2 * predicate slot + negated.
    pub(super) guard: u32,
    /// Index into `Program::aux` for instructions with more operands.
    pub(super) aux: u32,
    /// What an access looks like: bytes, sign, width (`memory_ops::Shape`).
    pub(super) code: u32,
    /// PTX line.
    pub(super) line: u32,
}

/// The lane phase of an instruction that exchanges data among groups at different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// All lanes are here: collect and finish in one go.
    Whole,
    /// Only put this group's values into `Cx::exchange`.
    Collect,
    /// Only take results out of it.
    Finish,
}

/// A fault before its place is put into words.
#[derive(Debug, Clone)]
pub(super) struct RawFault {
    pub(super) kind: FaultKind,
    pub(super) lane: u32,
    pub(super) text: String,
}

/// What a group waits for at a block barrier.
#[derive(Debug, Clone, Copy)]
pub(super) struct BarrierWait {
    pub(super) id: u32,
    pub(super) threads: Option<u32>,
    /// `bar.arrive`: counts but does not wait.
    pub(super) arrive_only: bool,
    /// Lanes whose predicate was true, for `bar.red`.
    pub(super) votes: Mask,
}

/// Everything an instruction can reach: the running warp's registers and memory, the block, the launch.
pub(super) struct Cx<'a> {
    pub(super) r32: *mut u32,
    pub(super) r64: *mut u64,
    pub(super) pr: *mut u32,
    pub(super) local: *mut u8,
    /// Bytes of local memory of each lane, and the distance between two lanes.
    pub(super) local_stride: usize,
    /// Where the running function's frame begins in local memory.
    pub(super) local_base: u32,
    pub(super) shared: *mut u8,
    pub(super) shared_bytes: u32,
    pub(super) params: &'a [u8],
    pub(super) memory: &'a Memory,
    pub(super) view: HostView,
    pub(super) job: &'a Job<'a>,
    pub(super) aux: &'a [Aux],
    pub(super) barriers: *mut Barriers,
    /// Index of the warp in its block.
    pub(super) warp: u32,
    /// Lanes of the warp that have not exited.
    pub(super) live: Mask,
    /// Lanes whose carry flag is set.
    pub(super) carry: Mask,
    /// Looks at memory that others may change, since the warp's turn began.
    pub(super) polls: u32,
    pub(super) phase: Phase,
    /// Lanes taking part in the exchange.
    pub(super) participants: Mask,
    pub(super) exchange: [u64; WARP],
    pub(super) votes: Mask,
    pub(super) wait_mask: Mask,
    pub(super) wait: BarrierWait,
    pub(super) targets: [u64; WARP],
    pub(super) block: [u32; 3],
    pub(super) fault: Option<RawFault>,
}

impl Cx<'_> {
    /// Notes a fault of a lane.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&mut self, kind: FaultKind, lane: usize, text: String) -> Flow {
        self.fault = Some(RawFault { kind, lane: u32::try_from(lane).unwrap_or(0), text });
        Flow::Fault
    }
}

/// The lanes of a mask, lowest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes(pub(super) Mask);

impl Iterator for Lanes {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let lane = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(lane)
    }
}

/// A type that lanes of a register file can be read as.
pub(super) trait Lane: Copy + Default + 'static {
    /// What the register file holds.
    type Repr: Copy + Default + 'static;
    /// First lane of a slot.
    fn slot(cx: &Cx<'_>, slot: u32) -> *mut Self::Repr;
    fn read(repr: Self::Repr) -> Self;
    fn write(self) -> Self::Repr;
}

macro_rules! lane32 {
    ($ty:ty, |$r:ident| $read:expr, |$v:ident| $write:expr) => {
        impl Lane for $ty {
            type Repr = u32;
            #[inline(always)]
            fn slot(cx: &Cx<'_>, slot: u32) -> *mut u32 {
                cx.r32.wrapping_add(slot as usize)
            }
            #[inline(always)]
            fn read($r: u32) -> Self {
                $read
            }
            #[inline(always)]
            fn write(self) -> u32 {
                let $v = self;
                $write
            }
        }
    };
}

macro_rules! lane64 {
    ($ty:ty, |$r:ident| $read:expr, |$v:ident| $write:expr) => {
        impl Lane for $ty {
            type Repr = u64;
            #[inline(always)]
            fn slot(cx: &Cx<'_>, slot: u32) -> *mut u64 {
                cx.r64.wrapping_add(slot as usize)
            }
            #[inline(always)]
            fn read($r: u64) -> Self {
                $read
            }
            #[inline(always)]
            fn write(self) -> u64 {
                let $v = self;
                $write
            }
        }
    };
}

lane32!(u8, |r| r as u8, |v| u32::from(v));
lane32!(i8, |r| r as u8 as i8, |v| u32::from(v as u8));
lane32!(u16, |r| r as u16, |v| u32::from(v));
lane32!(i16, |r| r as u16 as i16, |v| u32::from(v as u16));
lane32!(u32, |r| r, |v| v);
lane32!(i32, |r| r.cast_signed(), |v| v.cast_unsigned());
lane32!(f32, |r| f32::from_bits(r), |v| v.to_bits());
lane64!(u64, |r| r, |v| v);
lane64!(i64, |r| r.cast_signed(), |v| v.cast_unsigned());
lane64!(f64, |r| f64::from_bits(r), |v| v.to_bits());

/// One instruction's body, instantiated for each set of CPU features.
pub(super) trait Exec {
    /// # Safety
    /// As for [`OpFn`].
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow;
}

unsafe fn plain<E: Exec>(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
    // SAFETY: the caller's promise is passed on.
    unsafe { E::exec(cx, inst, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
unsafe fn fast<E: Exec>(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
    // SAFETY: the caller's promise is passed on; `pick` has asked the CPU for the features.
    unsafe { E::exec(cx, inst, mask) }
}

/// The best instance of a body for this CPU.
pub(super) fn pick<E: Exec>() -> OpFn {
    #[cfg(target_arch = "x86_64")]
    {
        static FAST: OnceLock<bool> = OnceLock::new();
        let fast_cpu = *FAST.get_or_init(|| {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt")
                && is_x86_feature_detected!("f16c")
        });
        if fast_cpu {
            return fast::<E>;
        }
    }
    plain::<E>
}

/// The instance of a body that every CPU can run, for instructions too rare or too irregular to gain from more.
pub(super) fn common<E: Exec>() -> OpFn {
    plain::<E>
}

/// Makes a value of a zero-sized type of which one has existed.
#[inline(always)]
pub(super) fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "operations carry no state") };
    // SAFETY: a zero-sized, copyable type; `op1` and its like were given a value of it, so it is inhabited.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// Runs `f(imm, a, b, c)` for the lanes of a mask.
#[inline(always)]
unsafe fn lanes<A: Lane, B: Lane, C: Lane, R: Lane>(
    cx: &Cx<'_>,
    inst: &Inst,
    mask: Mask,
    f: impl Fn(A, B, C) -> R,
) -> Flow {
    let (a, b, c) = (A::slot(cx, inst.a), B::slot(cx, inst.b), C::slot(cx, inst.c));
    let d = R::slot(cx, inst.d);
    if mask == FULL {
        // In chunks whose operands are all read before the results are written: the compiler may then use vector
        // registers although `d` may be one of the operands.
        for chunk in (0..WARP).step_by(8) {
            let mut out = [R::default(); 8];
            for (lane, out) in out.iter_mut().enumerate() {
                // SAFETY: slots have 32 lanes (`OpFn`).
                let (a, b, c) = unsafe { (*a.add(chunk + lane), *b.add(chunk + lane), *c.add(chunk + lane)) };
                *out = f(A::read(a), B::read(b), C::read(c));
            }
            for (lane, out) in out.iter().enumerate() {
                // SAFETY: as above.
                unsafe { *d.add(chunk + lane) = out.write() };
            }
        }
    } else {
        for lane in Lanes(mask) {
            // SAFETY: as above.
            unsafe {
                *d.add(lane) = f(A::read(*a.add(lane)), B::read(*b.add(lane)), C::read(*c.add(lane))).write();
            };
        }
    }
    Flow::Next
}

struct Op1<A, R, F>(PhantomData<(A, R, F)>);
impl<A: Lane, R: Lane, F: Fn(i64, A) -> R + Copy> Exec for Op1<A, R, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = conjure::<F>();
        let imm = inst.imm;
        let inst = Inst { b: inst.a, c: inst.a, ..*inst };
        // SAFETY: the caller's promise is passed on.
        unsafe {
            lanes(
                cx,
                &inst,
                mask,
                #[inline(always)]
                |a: A, _: A, _: A| f(imm, a),
            )
        }
    }
}

struct Op2<A, B, R, F>(PhantomData<(A, B, R, F)>);
impl<A: Lane, B: Lane, R: Lane, F: Fn(i64, A, B) -> R + Copy> Exec for Op2<A, B, R, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = conjure::<F>();
        let imm = inst.imm;
        let inst = Inst { c: inst.a, ..*inst };
        // SAFETY: the caller's promise is passed on.
        unsafe {
            lanes(
                cx,
                &inst,
                mask,
                #[inline(always)]
                |a: A, b: B, _: A| f(imm, a, b),
            )
        }
    }
}

struct Op3<A, B, C, R, F>(PhantomData<(A, B, C, R, F)>);
impl<A: Lane, B: Lane, C: Lane, R: Lane, F: Fn(i64, A, B, C) -> R + Copy> Exec for Op3<A, B, C, R, F> {
    #[inline(always)]
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let f = conjure::<F>();
        let imm = inst.imm;
        // SAFETY: the caller's promise is passed on.
        unsafe {
            lanes(
                cx,
                inst,
                mask,
                #[inline(always)]
                |a: A, b: B, c: C| f(imm, a, b, c),
            )
        }
    }
}

/// `d = f(a)`.
pub(super) fn op1<A: Lane, R: Lane, F: Fn(A) -> R + Copy + 'static>(_: F) -> OpFn {
    op1i(
        #[inline(always)]
        |_, a: A| conjure::<F>()(a),
    )
}

/// `d = f(imm, a)`.
pub(super) fn op1i<A: Lane, R: Lane, F: Fn(i64, A) -> R + Copy + 'static>(_: F) -> OpFn {
    pick::<Op1<A, R, F>>()
}

/// `d = f(a, b)`.
pub(super) fn op2<A: Lane, B: Lane, R: Lane, F: Fn(A, B) -> R + Copy + 'static>(_: F) -> OpFn {
    op2i(
        #[inline(always)]
        |_, a: A, b: B| conjure::<F>()(a, b),
    )
}

/// `d = f(imm, a, b)`.
pub(super) fn op2i<A: Lane, B: Lane, R: Lane, F: Fn(i64, A, B) -> R + Copy + 'static>(_: F) -> OpFn {
    pick::<Op2<A, B, R, F>>()
}

/// `d = f(a, b, c)`.
pub(super) fn op3<A: Lane, B: Lane, C: Lane, R: Lane, F: Fn(A, B, C) -> R + Copy + 'static>(_: F) -> OpFn {
    op3i(
        #[inline(always)]
        |_, a: A, b: B, c: C| conjure::<F>()(a, b, c),
    )
}

/// `d = f(imm, a, b, c)`.
pub(super) fn op3i<A: Lane, B: Lane, C: Lane, R: Lane, F: Fn(i64, A, B, C) -> R + Copy + 'static>(
    _: F,
) -> OpFn {
    pick::<Op3<A, B, C, R, F>>()
}

/// As [`op1`], with one instance for all CPUs.
pub(super) fn slow1<A: Lane, R: Lane, F: Fn(A) -> R + Copy + 'static>(_: F) -> OpFn {
    slow1i(
        #[inline(always)]
        |_, a: A| conjure::<F>()(a),
    )
}

/// As [`op2`], with one instance for all CPUs.
pub(super) fn slow2<A: Lane, B: Lane, R: Lane, F: Fn(A, B) -> R + Copy + 'static>(_: F) -> OpFn {
    slow2i(
        #[inline(always)]
        |_, a: A, b: B| conjure::<F>()(a, b),
    )
}

/// As [`op3`], with one instance for all CPUs.
pub(super) fn slow3<A: Lane, B: Lane, C: Lane, R: Lane, F: Fn(A, B, C) -> R + Copy + 'static>(_: F) -> OpFn {
    slow3i(
        #[inline(always)]
        |_, a: A, b: B, c: C| conjure::<F>()(a, b, c),
    )
}

/// As [`op1i`], with one instance for all CPUs.
pub(super) fn slow1i<A: Lane, R: Lane, F: Fn(i64, A) -> R + Copy + 'static>(_: F) -> OpFn {
    common::<Op1<A, R, F>>()
}

/// As [`op2i`], with one instance for all CPUs.
pub(super) fn slow2i<A: Lane, B: Lane, R: Lane, F: Fn(i64, A, B) -> R + Copy + 'static>(_: F) -> OpFn {
    common::<Op2<A, B, R, F>>()
}

/// As [`op3i`], with one instance for all CPUs.
pub(super) fn slow3i<A: Lane, B: Lane, C: Lane, R: Lane, F: Fn(i64, A, B, C) -> R + Copy + 'static>(
    _: F,
) -> OpFn {
    common::<Op3<A, B, C, R, F>>()
}

/// The bits of the lanes for which `f` holds; lanes outside the mask may be set or not.
#[inline(always)]
pub(super) unsafe fn test_lanes<A: Lane, B: Lane>(
    cx: &Cx<'_>,
    inst: &Inst,
    mask: Mask,
    f: impl Fn(A, B) -> bool,
) -> Mask {
    let (a, b) = (A::slot(cx, inst.a), B::slot(cx, inst.b));
    let mut out = 0u32;
    if mask == FULL {
        for lane in 0..WARP {
            // SAFETY: slots have 32 lanes (`OpFn`).
            let (a, b) = unsafe { (*a.add(lane), *b.add(lane)) };
            out |= u32::from(f(A::read(a), B::read(b))) << lane;
        }
    } else {
        for lane in Lanes(mask) {
            // SAFETY: as above.
            let (a, b) = unsafe { (*a.add(lane), *b.add(lane)) };
            out |= u32::from(f(A::read(a), B::read(b))) << lane;
        }
    }
    out
}

/// Writes the masked bits of a predicate.
#[inline(always)]
pub(super) unsafe fn write_pred(cx: &Cx<'_>, slot: u32, mask: Mask, bits: Mask) {
    // SAFETY: predicate slots are one word each (`OpFn`).
    unsafe {
        let at = cx.pr.add(slot as usize);
        *at = (*at & !mask) | (bits & mask);
    }
}

/// Reads a predicate.
#[inline(always)]
pub(super) unsafe fn read_pred(cx: &Cx<'_>, slot: u32) -> Mask {
    // SAFETY: predicate slots are one word each (`OpFn`).
    unsafe { *cx.pr.add(slot as usize) }
}

/// The value of one lane.
#[inline(always)]
pub(super) unsafe fn lane<T: Lane>(cx: &Cx<'_>, slot: u32, lane: usize) -> T {
    // SAFETY: slots have 32 lanes (`OpFn`).
    T::read(unsafe { *T::slot(cx, slot).add(lane) })
}

/// Sets the value of one lane.
#[inline(always)]
pub(super) unsafe fn set_lane<T: Lane>(cx: &Cx<'_>, slot: u32, lane: usize, value: T) {
    // SAFETY: slots have 32 lanes (`OpFn`).
    unsafe { *T::slot(cx, slot).add(lane) = value.write() };
}
