//! PTX instruction semantics as pure functions over scalar values: what one lane computes, given its operands.
//!
//! Called by the warp interpreter, which loops over lanes; everything here is free of state, of memory and of
//! unsafe code, and small enough to be inlined, so that such loops vectorise. Results follow the PTX ISA where it
//! speaks, and an sm_90 device where it leaves the choice open (marked "measured").

pub mod approx;
pub mod atomic;
pub mod compare;
pub mod cvt;
mod exact;
pub mod float;
pub mod half;
pub mod int;
pub mod matrix;
pub mod product;

/// A rounding modifier (PTX ISA, "Rounding Modifiers"). The integer forms `.rni .rzi .rmi .rpi` use the same
/// values; which is meant follows from the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Round {
    /// `.rn`, `.rni`: to nearest, ties to even.
    #[default]
    Rn,
    /// `.rz`, `.rzi`: towards zero.
    Rz,
    /// `.rm`, `.rmi`: towards negative infinity.
    Rm,
    /// `.rp`, `.rpi`: towards positive infinity.
    Rp,
    /// `.rna`: to nearest, ties away from zero (`cvt.rna.tf32.f32`).
    Rna,
}

/// The modifiers of a floating-point instruction: rounding, `.ftz` and `.sat`.
///
/// Pass a constant (such as [`FloatMode::RN`]) where a loop should be specialised for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FloatMode {
    /// Rounding of the exact result.
    pub round: Round,
    /// `.ftz`: subnormal inputs and results become zero of the same sign.
    pub ftz: bool,
    /// `.sat`: the result is clamped to `[0, 1]`, NaN to `+0`.
    pub sat: bool,
}

impl FloatMode {
    /// `.rn` alone.
    pub const RN: Self = Self { round: Round::Rn, ftz: false, sat: false };
    /// `.rn.ftz`.
    pub const RN_FTZ: Self = Self { round: Round::Rn, ftz: true, sat: false };
}

#[cfg(test)]
mod device_tests;
