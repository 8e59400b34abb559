//! Copies of one direction: fair queueing of bytes.
//!
//! A copy engine takes turns among processes by itself, whoever they belong to. So nobody needs a lease here: a VM that is
//! further ahead of the others than [`LAG`] by its weight waits until they have caught up or want no more. A VM of the latency
//! tier never waits. Copies of up to [`SMALL`] bytes are counted, but never wait.

use super::{MILLISECOND, Nanos, VmId};
use std::collections::BTreeMap;

/// Bytes after which a worker tells of its copies: some 300 µs of a copy engine.
pub const TELL: u64 = 16 << 20;
/// How far a VM of mean weight may be ahead, in bytes.
const LAG: u64 = 2 * TELL;
/// Copies that wait for nobody: parameters and flags, and what the driver stages by itself.
pub const SMALL: u64 = 64 << 10;
/// Who has not copied for this long wants no more.
const IDLE: Nanos = 10 * MILLISECOND;
/// Tags are bytes times this, divided by the weight.
const SCALE: u128 = 10_000;

/// The scheduler of one direction of one device.
#[derive(Debug, Default)]
pub struct Copies {
    vms: BTreeMap<VmId, Copier>,
    floor: u128,
}

#[derive(Debug)]
struct Copier {
    weight: u32,
    first: bool,
    tag: u128,
    last: Option<Nanos>,
    waiting: bool,
    open: bool,
}

impl Copier {
    fn wants(&self, now: Nanos) -> bool {
        self.waiting || self.last.is_some_and(|last| now.saturating_sub(last) < IDLE)
    }
}

impl Copies {
    /// Adds a VM or changes its weight; `first` for the latency tier.
    pub fn set(&mut self, vm: VmId, weight: u32, first: bool) {
        let tag = self.floor;
        let new = || Copier { weight, first, tag, last: None, waiting: false, open: true };
        let copier = self.vms.entry(vm).or_insert_with(new);
        (copier.weight, copier.first) = (weight.max(1), first);
    }

    /// Takes a VM out.
    pub fn remove(&mut self, vm: VmId) {
        self.vms.remove(&vm);
    }

    /// What a VM has copied since it was last observed, and whether somebody of it waits.
    pub fn observe(&mut self, now: Nanos, vm: VmId, bytes: u64, waiting: bool) {
        let floor = self.floor;
        let Some(copier) = self.vms.get_mut(&vm) else { return };
        if !copier.wants(now) && (bytes > 0 || waiting) {
            copier.tag = copier.tag.max(floor);
        }
        copier.tag += u128::from(bytes) * SCALE / u128::from(copier.weight.max(1));
        if bytes > 0 {
            copier.last = Some(now);
        }
        copier.waiting = waiting;
    }

    /// Which gates change (`true` for open), and when to decide again.
    pub fn decide(&mut self, now: Nanos) -> (Vec<(VmId, bool)>, Option<Nanos>) {
        let wanting = || self.vms.values().filter(|copier| copier.wants(now));
        let (count, weights) = wanting()
            .fold((0_u128, 0_u128), |(count, sum), copier| (count + 1, sum + u128::from(copier.weight)));
        let floor = wanting().map(|copier| copier.tag).min();
        self.floor = self.floor.max(floor.unwrap_or(0));
        // A VM's lead is bounded in bytes by its part of the mean weight, which in tags is the same for all.
        let lead = u128::from(LAG) * SCALE * count.max(1) / weights.max(1);
        let mut changes = Vec::new();
        for (vm, copier) in &mut self.vms {
            let ahead = count > 1 && floor.is_some_and(|floor| copier.tag > floor + lead);
            let open = copier.first || !ahead;
            if copier.open != open {
                copier.open = open;
                changes.push((*vm, open));
            }
        }
        let closed = self.vms.values().any(|copier| !copier.open);
        let quiet = self.vms.values().filter(|copier| copier.wants(now)).filter_map(|copier| copier.last);
        let wake = closed.then(|| quiet.map(|last| last + IDLE).filter(|time| *time > now).min()).flatten();
        (changes, wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Copies for as long as `open`; what each has copied after `rounds` of one engine that takes turns.
    fn run(weights: &[u32], rounds: u64) -> Vec<u64> {
        let mut copies = Copies::default();
        let mut open = vec![true; weights.len()];
        let mut done = vec![0; weights.len()];
        for (vm, weight) in weights.iter().enumerate() {
            copies.set(vm as VmId, *weight, false);
        }
        let mut now = 0;
        for _ in 0..rounds {
            for vm in 0..weights.len() {
                if open[vm] {
                    done[vm] += TELL;
                    now += 300_000;
                }
                copies.observe(now, vm as VmId, if open[vm] { TELL } else { 0 }, !open[vm]);
            }
            for (vm, now_open) in copies.decide(now).0 {
                open[usize::try_from(vm).unwrap()] = now_open;
            }
        }
        done
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn bytes_go_by_weight(weights in prop::collection::vec(1_u32..=100, 2..16)) {
            let done = run(&weights, 3_000);
            let (sum, all): (u32, u64) = (weights.iter().sum(), done.iter().sum());
            for (weight, bytes) in weights.iter().zip(&done) {
                let due = all as f64 * f64::from(*weight) / f64::from(sum);
                let lead = LAG as f64 * weights.len() as f64 * f64::from(*weight) / f64::from(sum);
                prop_assert!((*bytes as f64 - due).abs() <= 2.0 * (lead + 2.0 * TELL as f64), "{weights:?} {done:?}");
            }
        }
    }

    #[test]
    fn who_wants_no_more_holds_up_nobody() {
        let mut copies = Copies::default();
        copies.set(1, 100, false);
        copies.set(2, 100, false);
        copies.observe(0, 1, 10 * LAG, false);
        assert_eq!(copies.decide(0), (vec![], None), "alone");
        copies.observe(1, 2, 1, false);
        assert_eq!(copies.decide(1).0, [], "what one copied alone is not held against it");
        copies.observe(1, 1, 3 * LAG, false);
        let (changes, wake) = copies.decide(1);
        assert_eq!(changes, [(1, false)]);
        copies.observe(2, 1, 0, true);
        assert!(copies.decide(2).0.is_empty());
        let wake = wake.unwrap();
        assert!(wake <= 1 + IDLE);
        copies.observe(1 + IDLE, 1, 0, true);
        assert_eq!(copies.decide(1 + IDLE).0, [(1, true)]);
    }

    #[test]
    fn the_latency_tier_does_not_wait() {
        let mut copies = Copies::default();
        copies.set(1, 1, true);
        copies.set(2, 100, false);
        copies.observe(0, 2, 1, false);
        copies.observe(0, 1, 100 * LAG, false);
        assert!(copies.decide(0).0.is_empty());
    }
}
