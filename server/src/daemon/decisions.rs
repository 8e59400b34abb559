//! The decision log: what the scheduler decided last, on which device, about whom, and why.
//!
//! While VMs compete there are hundreds of decisions a second, so they are no events of the journal: a ring of their own holds
//! the last [`KEPT`], which is some ten seconds of a contended device.

use crate::scheduler::{Gate, Nanos, Reason, page};
use pxos_protocol::admin;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Decisions kept.
const KEPT: usize = 4096;

/// The last decisions.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    kept: VecDeque<Decision>,
    last: u64,
}

/// A gate that changed.
#[derive(Clone, Debug)]
struct Decision {
    number: u64,
    /// On `CLOCK_MONOTONIC`.
    at: Nanos,
    device: usize,
    vm: Arc<str>,
    gate: Gate,
    reason: Reason,
}

impl Decisions {
    /// Notes one.
    pub(super) fn note(&mut self, at: Nanos, device: usize, vm: &Arc<str>, gate: Gate, reason: Reason) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.last += 1;
        self.kept.push_back(Decision { number: self.last, at, device, vm: Arc::clone(vm), gate, reason });
    }

    /// Those after number `since`, oldest first.
    pub(super) fn after(&self, since: u64) -> Vec<admin::Decision> {
        let (now, wall) = (page::now(), SystemTime::now());
        let report = |decision: &Decision| {
            let ago = Duration::from_nanos(now.saturating_sub(decision.at));
            let time = wall.checked_sub(ago).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let lease = match decision.gate {
                Gate::Open { deadline, .. } => Some(deadline.saturating_sub(decision.at) / 1000),
                Gate::Off | Gate::Free | Gate::Closed => None,
            };
            admin::Decision {
                number: decision.number,
                time: time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                device: decision.device,
                vm: decision.vm.to_string(),
                gate: word(decision.gate).to_owned(),
                lease,
                reason: decision.reason.to_string(),
            }
        };
        self.kept.iter().filter(|decision| decision.number > since).map(report).collect()
    }
}

fn word(gate: Gate) -> &'static str {
    match gate {
        Gate::Off => "off",
        Gate::Free => "free",
        Gate::Open { .. } => "open",
        Gate::Closed => "closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_decisions_are_kept_with_their_numbers() {
        let mut decisions = Decisions::default();
        let red: Arc<str> = "red".into();
        let now = page::now();
        for _ in 0..KEPT {
            decisions.note(now, 0, &red, Gate::Closed, Reason::LeaseEnded);
        }
        decisions.note(
            now,
            1,
            &red,
            Gate::Open { deadline: now + 5_000_000, tell: false },
            Reason::LeastServed,
        );
        let all = decisions.after(0);
        assert_eq!((all.len(), all[0].number), (KEPT, 2), "a gap says that some were missed");
        assert_eq!((all[0].gate.as_str(), all[0].lease), ("closed", None));
        let [last] = &decisions.after(KEPT as u64)[..] else { panic!("one is new") };
        assert_eq!((last.gate.as_str(), last.lease, last.device), ("open", Some(5000), 1));
        assert_eq!((last.vm.as_str(), last.reason.as_str()), ("red", "least served by weight"));
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        assert!(clock.abs_diff(u128::from(last.time)) < 60_000_000, "{last:?}");
    }
}
