//! LeaseFQ: who may use a device now (design D10).
//!
//! Weighted fair queueing over measured device time. A VM that is alone is left alone: its gate is wide open. As soon as
//! two want the device, its time goes out in *leases* of a few milliseconds, one VM at a time, to whoever has had least of
//! it by its weight. Without MPS the driver never runs kernels of two processes at the same moment, so that an exclusive
//! lease costs no overlap, and whose the time was is known.
//!
//! [`Scheduler`] is the decision for one device: a state machine without clock and without I/O, which is told what the VMs
//! do ([`Observation`]) and says which gates open and close ([`Verdict`]) and why ([`Reason`]). [`copies`] decides the same
//! for the two directions of copies. [`page`] is the memory through which a worker sees its gate; the daemon's thread joins
//! the two. Times are nanoseconds of one monotonic clock.

mod bucket;
pub mod copies;
mod decide;
pub mod page;
mod reason;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod tests;

pub use decide::{Report, Scheduler, WAITS};
pub use reason::Reason;

use crate::vm;
use std::fmt;
use std::str::FromStr;

/// Nanoseconds.
pub type Nanos = u64;

/// A VM, by a number that no other VM of this daemon has ([`vm::registry::Vm::number`]).
pub type VmId = u64;

/// A microsecond.
pub const MICROSECOND: Nanos = 1_000;
/// A millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// How the device is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By weight, tier and cap, over measured time.
    #[default]
    LeaseFq,
    /// Not at all: every command goes to the driver as it comes. The baseline.
    Fifo,
    /// Leases of equal length in turn, whatever they were used for. The other baseline.
    RoundRobin,
}

impl Policy {
    /// Its word in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaseFq => "leasefq",
            Self::Fifo => "fifo",
            Self::RoundRobin => "rr",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::LeaseFq, Self::Fifo, Self::RoundRobin]
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| format!("'{text}' is not leasefq, fifo or rr"))
    }
}

/// An amount of device time in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Device time.
    pub quota: Nanos,
    /// In this much time.
    pub period: Nanos,
}

/// What a VM is entitled to, as the decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Against the other VMs' weights; at least 1.
    pub weight: u32,
    /// Whom it goes before.
    pub tier: vm::Tier,
    /// Hard cap.
    pub cap: Option<Allowance>,
    /// Whether work that its guest has marked goes with the latency tier, within the same budget.
    pub marks: bool,
}

impl Share {
    /// A share of the normal tier without a cap.
    #[must_use]
    pub const fn of(weight: u32) -> Self {
        Self { weight, tier: vm::Tier::Normal, cap: None, marks: false }
    }
}

impl From<vm::Limits> for Share {
    fn from(limits: vm::Limits) -> Self {
        let cap = limits.gpu_max.quota.map(|quota| Allowance {
            quota: quota * MICROSECOND,
            period: limits.gpu_max.period * MICROSECOND,
        });
        Self { weight: limits.weight.max(1), tier: limits.tier, cap, marks: limits.latency_critical }
    }
}

/// What an operator may turn, and what was measured to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How the device is shared.
    pub policy: Policy,
    /// A lease of a VM of mean weight.
    pub quantum: Nanos,
    /// What the latency tier may use before all others; beyond it, it is as the normal tier.
    pub latency_budget: Allowance,
    /// Whether kernels are watched for how long they take, which a wide open gate would not allow.
    pub watched: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            policy: Policy::LeaseFq,
            // With 5 ms, what turning from one to another takes leaves 94 to 95 % of the device (measured on an H200).
            quantum: 10 * MILLISECOND,
            // A fifth of the device: a tenant of short kernels is below it, a batch job in the wrong tier soon is not.
            latency_budget: Allowance { quota: 20 * MILLISECOND, period: 100 * MILLISECOND },
            watched: false,
        }
    }
}

/// The shortest lease: below it, handing over costs more than a few per cent.
pub const QUANTUM_LEAST: Nanos = MILLISECOND;
/// The longest lease: what a newcomer may have to wait for.
pub const QUANTUM_MOST: Nanos = 20 * MILLISECOND;
/// An empty queue for this long gives the lease back: longer than a guest takes from one call to the next.
pub const YIELD_AFTER: Nanos = 100 * MICROSECOND;
/// With this much left in flight the next gate opens: what its first launch takes to reach the device, which is a timer of the
/// daemon's, a wake-up of the worker's and a call of the driver's. The device then still takes 140 µs to turn from one process
/// to another, and begins with that when the first has nothing more (measured on an H200, driver 580): a gate that opens sooner
/// gains nothing, and the driver slices between the two.
pub const HANDOVER: Nanos = 100 * MICROSECOND;
/// Most device time in flight inside a lease, as estimated.
pub const WINDOW: Nanos = MILLISECOND;
/// Most commands in flight inside a lease.
pub const WINDOW_COMMANDS: u32 = 16;
/// Fewest, so that the device never waits for the next one.
pub const WINDOW_LEAST: u32 = 2;
/// Most device time that waits behind what a VM that is alone runs: what a newcomer may have to share the device with at first.
pub const ALONE_WINDOW: Nanos = 20 * MILLISECOND;
/// How long a VM without work still counts as one that wants the device.
pub const DISENGAGE: Nanos = 50 * MILLISECOND;
/// Most device time that a VM can owe the others.
pub const DEBT_MOST: Nanos = 200 * MILLISECOND;
/// The longest that others wait for what a VM has in flight because it is expected to take long.
pub const PATIENCE: Nanos = 100 * MILLISECOND;

/// What a VM does on the device, all its processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Somebody waits at the gate.
    pub waiting: bool,
    /// Commands that were let through and are not known to be complete.
    pub in_flight: u32,
    /// How many of its processes have such commands.
    pub processes: u32,
    /// Device time until they are complete if each takes as long as the longest of its kind; more than [`HANDOVER`] for a
    /// command that takes longer than that.
    pub remaining: Nanos,
    /// Device time that they will have been charged when they are complete: what they have had so far, and what remains.
    pub pending: Nanos,
    /// Device time measured since the last observation.
    pub charged: Nanos,
    /// The gate was closed from inside, because the lease is used up.
    pub stopped: bool,
    /// Of what waits or is in flight, something was marked by the guest as urgent.
    pub marked: bool,
}

impl Observation {
    /// Whether it has anything to do with the device.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.waiting || self.in_flight > 0
    }
}

/// A VM's gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// There is no scheduling.
    Off,
    /// Wide open, for one who is alone.
    Free,
    /// Open until the deadline, with a window, measured.
    Open {
        /// When the lease ends.
        deadline: Nanos,
        /// Whether the daemon wants to know of each command that finds the queue empty.
        tell: bool,
    },
    /// Closed: who comes waits, and says so.
    #[default]
    Closed,
}

/// What a decision changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Gates that change, and why.
    pub gates: Vec<(VmId, Gate, Reason)>,
    /// When to decide again though nothing was observed; `None` where nothing will change by itself.
    pub wake_at: Option<Nanos>,
}
