//! What kind of work a VM does, found out from what it is measured to do. Pure: numbers in, a class and a reason out.
//!
//! The features are those of one look: how much of the device it used (duty), how long a launch took on average, how often
//! it synchronised, how much it copied. A class holds until another one was seen several looks in a row (hysteresis), so
//! that a pause does not make a batch job an interactive one.

use crate::vm::{Class, Limits, Tier};
use std::time::Duration;

/// Looks in a row that must agree before the class changes.
const PERSISTENCE: u32 = 3;
/// Duty from which a VM keeps the device busy.
const BUSY: f64 = 0.5;
/// Duty below which it hardly uses the device.
const LIGHT: f64 = 0.2;
/// Average kernel, in microseconds, up to which it is short: a hundredth of what people notice.
const SHORT: f64 = 500.0;
/// Average kernel, in microseconds, from which it is long: longer than a lease.
const LONG: f64 = 5_000.0;
/// Launches a second from which short work comes regularly.
const REGULAR: f64 = 50.0;
/// Share of a PCIe 5 link (55 GB/s, measured) from which copies keep a VM busy, in bytes a second.
const COPIES: f64 = 5e9;

/// What was measured over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Fraction of the window that the device worked for it.
    pub duty: f64,
    /// Average device time of a launch in microseconds; 0 without launches.
    pub kernel_micros: f64,
    /// Launches a second.
    pub launch_rate: f64,
    /// Awaited calls for each launch: how often somebody waits for a result.
    pub waits_per_launch: f64,
    /// Bytes copied a second.
    pub copy_rate: f64,
}

impl Features {
    /// The features of a window from the differences of its counters.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a classification, not an account")]
    pub fn between(gpu_nanos: u64, launches: u64, copied: u64, awaited: u64, window: Duration) -> Self {
        let seconds = window.as_secs_f64().max(1e-3);
        let per_launch = |amount: f64| if launches == 0 { 0.0 } else { amount / launches as f64 };
        Self {
            duty: gpu_nanos as f64 / 1e9 / seconds,
            kernel_micros: per_launch(gpu_nanos as f64 / 1e3),
            launch_rate: launches as f64 / seconds,
            waits_per_launch: per_launch(awaited as f64),
            copy_rate: copied as f64 / seconds,
        }
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.launch_rate == 0.0 && self.copy_rate == 0.0 && self.duty == 0.0
    }
}

/// The class that the features of one window speak for, and why.
#[must_use]
pub fn classify(features: &Features) -> (Class, String) {
    let Features { duty, kernel_micros, launch_rate, copy_rate, .. } = *features;
    let percent = duty * 100.0;
    if duty >= BUSY && kernel_micros >= LONG {
        return (
            Class::Batch,
            format!(
                "kernels of {:.1} ms on average keep the device busy {percent:.0} % of the time",
                kernel_micros / 1e3
            ),
        );
    }
    if duty >= BUSY {
        return (
            Class::Throughput,
            format!(
                "short kernels ({kernel_micros:.0} µs on average) keep the device busy {percent:.0} % of the time"
            ),
        );
    }
    if copy_rate >= COPIES {
        return (Class::Throughput, format!("copies {:.1} GB a second", copy_rate / 1e9));
    }
    if duty < LIGHT && kernel_micros <= SHORT && launch_rate >= REGULAR {
        return (
            Class::Realtime,
            format!(
                "{launch_rate:.0} short launches a second ({kernel_micros:.0} µs on average), {percent:.0} % of the device"
            ),
        );
    }
    (Class::Interactive, format!("bursts: {launch_rate:.0} launches a second, {percent:.0} % of the device"))
}

/// A class with hysteresis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    class: Option<Class>,
    reason: String,
    candidate: Option<Class>,
    agreed: u32,
    last: Features,
}

impl Classified {
    /// Takes the features of another window; whether the class changed.
    pub fn observe(&mut self, features: &Features) -> bool {
        if features.is_idle() {
            // Who does nothing gives no sign of what it does.
            return false;
        }
        self.last = *features;
        let (class, reason) = classify(features);
        if self.class == Some(class) {
            self.reason = reason;
            self.candidate = None;
            return false;
        }
        self.agreed = if self.candidate == Some(class) { self.agreed + 1 } else { 1 };
        self.candidate = Some(class);
        // The first look decides at once: any class is better than none.
        if self.class.is_some() && self.agreed < PERSISTENCE {
            return false;
        }
        self.class = Some(class);
        self.reason = reason;
        self.candidate = None;
        true
    }

    /// The class, where there is one yet.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        self.class
    }

    /// Its word, or `unknown`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.class.map_or("unknown", Class::name)
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        if self.class.is_none() { "nothing was measured yet" } else { &self.reason }
    }

    /// What was measured last.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.last
    }
}

/// Limits with the preset of a class: a realtime VM goes first within the latency tier's budget (20 % of the device), a batch VM
/// yields whenever anybody else wants the device. A tier that the operator chose stays.
#[must_use]
pub fn preset(limits: Limits, class: Option<Class>) -> Limits {
    match (class, limits.tier) {
        (Some(Class::Realtime), Tier::Normal) => Limits { tier: Tier::Latency, ..limits },
        (Some(Class::Batch), Tier::Normal) => Limits { tier: Tier::Idle, ..limits },
        _ => limits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn class(gpu_millis: u64, launches: u64, copied: u64) -> Class {
        classify(&Features::between(gpu_millis * 1_000_000, launches, copied, launches, SECOND)).0
    }

    #[test]
    fn each_kind_of_work_is_known_by_its_features() {
        assert_eq!(class(25, 500, 0), Class::Realtime); // 50 µs every 2 ms
        assert_eq!(class(900, 45, 0), Class::Batch); // 20 ms each
        assert_eq!(class(900, 9000, 0), Class::Throughput); // 100 µs each
        assert_eq!(class(50, 100, 20_000_000_000), Class::Throughput);
        assert_eq!(class(100, 5, 1000), Class::Interactive);
        assert_eq!(class(300, 300, 0), Class::Interactive);
    }

    #[test]
    fn a_class_changes_only_when_it_lasts() {
        let batch = Features::between(900_000_000, 45, 0, 45, SECOND);
        let realtime = Features::between(25_000_000, 500, 0, 500, SECOND);
        let mut classified = Classified::default();
        assert_eq!(classified.name(), "unknown");
        assert!(classified.observe(&batch));
        assert!(!classified.observe(&realtime) && !classified.observe(&realtime));
        assert!(!classified.observe(&batch), "back before it lasted");
        assert!(!classified.observe(&Features::default()), "idle says nothing");
        assert_eq!(classified.class(), Some(Class::Batch));
        assert!(classified.reason().contains("20.0 ms"), "{}", classified.reason());
        assert!(!classified.observe(&realtime) && !classified.observe(&realtime));
        assert!(classified.observe(&realtime));
        assert_eq!(classified.class(), Some(Class::Realtime));
        assert!(!classified.observe(&realtime));
    }

    #[test]
    fn presets_respect_the_operator() {
        let limits = Limits::default();
        assert_eq!(preset(limits, Some(Class::Realtime)).tier, Tier::Latency);
        assert_eq!(preset(limits, Some(Class::Batch)).tier, Tier::Idle);
        assert_eq!(preset(limits, Some(Class::Throughput)), limits);
        let chosen = Limits { tier: Tier::Latency, ..limits };
        assert_eq!(preset(chosen, Some(Class::Batch)), chosen);
    }
}
