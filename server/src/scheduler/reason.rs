//! Why a gate is as it is.

use super::{Nanos, Policy};
use std::fmt;

/// Why a gate was opened or closed, for people: the decision log and `pxctl top` show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// It has not asked for the device yet.
    #[default]
    Quiet,
    /// The policy schedules nothing.
    Policy(Policy),
    /// Nobody else wants the device.
    Alone,
    /// Nobody else wants it either, but its time is measured for its cap or for `max_kernel`.
    AloneMeasured,
    /// Of all that wait, it has had least by its weight.
    LeastServed,
    /// It goes before the others, within its budget.
    LatencyTier,
    /// It is its turn.
    Turn,
    /// Nobody of another tier wants the device.
    IdleTier,
    /// Its lease ran out.
    LeaseEnded,
    /// It had nothing to do for a while.
    Yielded,
    /// Its lease was cut short for the latency tier.
    CutForLatency,
    /// Its lease was cut short, since it is of the idle tier and others want the device.
    CutForOthers,
    /// It has used up its `gpu.max` for now.
    Capped,
    /// Its limits or the policy have changed, and its time is measured from now on.
    Remeasured,
    /// Another VM has asked for the device.
    Contended,
    /// What another VM has in flight takes too long: it runs beside it, and the driver slices.
    Overrun {
        /// How long beyond its lease the other one is.
        by: Nanos,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet => f.write_str("has not asked for the device"),
            Self::Policy(policy) => write!(f, "policy = {policy}: nothing is scheduled"),
            Self::Alone => f.write_str("alone"),
            Self::AloneMeasured => f.write_str("alone, and measured"),
            Self::LeastServed => f.write_str("least served by weight"),
            Self::LatencyTier => f.write_str("latency tier, within its budget"),
            Self::Turn => f.write_str("its turn"),
            Self::IdleTier => f.write_str("idle tier, and nobody else wants the device"),
            Self::LeaseEnded => f.write_str("lease used up"),
            Self::Yielded => f.write_str("had nothing to do"),
            Self::CutForLatency => f.write_str("lease cut short for the latency tier"),
            Self::CutForOthers => f.write_str("idle tier, and others want the device"),
            Self::Capped => f.write_str("gpu.max used up"),
            Self::Remeasured => f.write_str("limits have changed: it is measured from now on"),
            Self::Contended => f.write_str("another VM wants the device"),
            Self::Overrun { by } => {
                write!(f, "another VM is {} ms beyond its lease: both run", by / super::MILLISECOND)
            }
        }
    }
}

impl Reason {
    /// A word for metrics and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Policy(_) => "policy",
            Self::Alone => "alone",
            Self::AloneMeasured => "alone-measured",
            Self::LeastServed => "least-served",
            Self::LatencyTier => "latency-tier",
            Self::Turn => "turn",
            Self::IdleTier => "idle-tier",
            Self::LeaseEnded => "lease-ended",
            Self::Yielded => "yielded",
            Self::CutForLatency => "cut-for-latency",
            Self::CutForOthers => "cut-for-others",
            Self::Capped => "capped",
            Self::Remeasured => "remeasured",
            Self::Contended => "contended",
            Self::Overrun { .. } => "overrun",
        }
    }
}
