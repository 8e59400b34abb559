//! Memory that VMs are promised (`memory_min`), and what is left for the others: who may take how much of a device.
//!
//! Each VM that may hold memory of a device of which some VM is promised a part is *granted* so many bytes
//! ([`crate::quota`]); it never holds more, and is never granted less than its promise. A VM's *claim* on its devices is what
//! it is granted. The claims on a device are never more than the device has, but where more was held already when a promise
//! was made: what is held is not taken away. As long as that is so, its VMs are *owing*: they ask for all that they take, and
//! what they free in the meantime is gone.
//!
//! A VM's quota is kept for all of its devices together, so a VM that sees several counts on each of them with all it
//! holds. A VM that is promised memory sees one.
//!
//! Nothing here knows a clock or a thread. [`Pledges::settle`] is called whenever somebody asks and whenever VMs change; only what
//! is written here is believed of a VM's page, and what a page says is bounded by it.

use crate::quota::Quota;
use std::collections::{BTreeMap, BTreeSet};

/// A VM that asks for memory beyond what it is granted gets this much more, where it is to be had, so that it need not ask for
/// each small allocation.
const CHUNK: u64 = 64 << 20;

/// A VM that may hold device memory.
#[derive(Clone, Debug)]
pub struct Party<'a> {
    /// Its number.
    pub vm: u64,
    /// Its page.
    pub quota: &'a Quota,
    /// Bytes that it is promised.
    pub minimum: u64,
    /// Devices on which it may hold memory.
    pub devices: &'a [usize],
}

/// What VMs are granted.
#[derive(Debug, Default)]
pub struct Pledges {
    /// By the VM's number. Who is not here may take what there is.
    granted: BTreeMap<u64, u64>,
}

impl Pledges {
    /// Answers what workers ask; where `changed`, VMs, their devices or their promises are others than last time.
    /// `capacity` are the bytes that all VMs together may hold of each device.
    pub fn settle(&mut self, parties: &[Party<'_>], capacity: &[u64], changed: bool) {
        let promised = promised(parties);
        self.granted.retain(|vm, _| parties.iter().any(|party| party.vm == *vm));
        let is_bound = |party: &&Party<'_>| party.devices.iter().any(|device| promised.contains(device));
        for party in parties.iter().filter(|party| !is_bound(party)) {
            self.granted.remove(&party.vm);
            party.quota.grant(None);
            party.quota.set_owing(false);
        }
        let bound: Vec<&Party<'_>> = parties.iter().filter(is_bound).collect();
        if changed || bound.iter().any(|party| !self.granted.contains_key(&party.vm)) {
            // First what nobody uses comes back, then promises are given.
            bound.iter().for_each(|party| self.reclaim(party, capacity, Quota::claimed));
            bound.iter().for_each(|party| self.raise(party, party.minimum));
        }
        for party in parties {
            let Some(question) = party.quota.question() else { continue };
            if is_bound(&party) && self.is_over(party, &bound, capacity, &promised) {
                // What it has freed since is owed to others. Its other workers wait for the one that asks.
                self.reclaim(party, capacity, Quota::held);
            }
            if is_bound(&party) && question.wanted > self.of(party) {
                if question.wanted > self.room(party, &bound, capacity, &promised) {
                    let others = bound.iter().filter(|other| other.vm != party.vm);
                    others.for_each(|other| self.reclaim(other, capacity, Quota::claimed));
                }
                let room = self.room(party, &bound, capacity, &promised);
                if question.wanted <= room {
                    self.raise(party, question.wanted.saturating_add(CHUNK).min(room));
                }
            }
            let ceiling = self.beside(party.vm, party.devices, parties, capacity);
            let ceiling = ceiling.map_or(u64::MAX, |ceiling| ceiling.max(party.minimum));
            party.quota.answer(question, ceiling);
        }
        for party in &bound {
            party.quota.set_owing(self.is_over(party, &bound, capacity, &promised));
        }
    }

    /// Bytes that a VM could hold on these devices now if it asked for them, beyond its own promise or not; `None` where
    /// nobody is promised any of them. The VM need not be one of the parties: it has not come yet.
    #[must_use]
    pub fn beside(&self, vm: u64, devices: &[usize], parties: &[Party<'_>], capacity: &[u64]) -> Option<u64> {
        let promised = promised(parties);
        let of = |other: &Party<'_>| {
            let claimed = other.quota.claimed().min(self.of(other));
            claimed.max(other.minimum)
        };
        left(vm, devices, &parties.iter(), capacity, &promised, of)
    }

    /// What a VM is granted.
    fn of(&self, party: &Party<'_>) -> u64 {
        self.granted.get(&party.vm).copied().unwrap_or(u64::MAX)
    }

    /// What a VM may be granted beside the others.
    fn room(
        &self,
        party: &Party<'_>,
        bound: &[&Party<'_>],
        capacity: &[u64],
        promised: &BTreeSet<usize>,
    ) -> u64 {
        let others = bound.iter().copied();
        left(party.vm, party.devices, &others, capacity, promised, |other| self.of(other)).unwrap_or(u64::MAX)
    }

    /// Whether more is granted than there is of a promised device that a VM sees.
    fn is_over(
        &self,
        party: &Party<'_>,
        bound: &[&Party<'_>],
        capacity: &[u64],
        promised: &BTreeSet<usize>,
    ) -> bool {
        self.room(party, bound, capacity, promised) < self.of(party)
    }

    /// Grants at least so much.
    fn raise(&mut self, party: &Party<'_>, bytes: u64) {
        let granted = self.granted.entry(party.vm).or_insert(0);
        if *granted < bytes {
            *granted = bytes;
            party.quota.grant(Some(bytes));
        }
    }

    /// Takes back what a VM is granted and neither claims nor is promised.
    fn reclaim(&mut self, party: &Party<'_>, capacity: &[u64], claim: impl Fn(&Quota) -> u64) {
        let before = self.granted.get(&party.vm).copied();
        // A page that lies claims a whole device at most, which its workers could have filled as well.
        let most =
            party.devices.iter().filter_map(|device| capacity.get(*device)).max().copied().unwrap_or(0);
        let most = before.unwrap_or_else(|| most.max(party.minimum));
        let needed = || claim(party.quota).max(party.minimum).min(most);
        let low = needed();
        if before == Some(low) {
            return;
        }
        party.quota.grant(Some(low));
        // Who has taken some of it before it could see that has it.
        let granted = needed().max(low);
        if granted > low {
            party.quota.grant(Some(granted));
        }
        self.granted.insert(party.vm, granted);
    }
}

/// Devices of which somebody is promised a part.
fn promised(parties: &[Party<'_>]) -> BTreeSet<usize> {
    parties.iter().filter(|party| party.minimum > 0).flat_map(|party| party.devices.iter().copied()).collect()
}

/// What the others' claims leave of the promised devices that a VM sees; `None` where it sees none.
fn left<'a>(
    vm: u64,
    devices: &[usize],
    others: &(impl Iterator<Item = &'a Party<'a>> + Clone),
    capacity: &[u64],
    promised: &BTreeSet<usize>,
    claim: impl Fn(&Party<'_>) -> u64,
) -> Option<u64> {
    let of_device = |device: &usize| {
        let others = others.clone().filter(|other| other.vm != vm && other.devices.contains(device));
        let taken = others.map(&claim).fold(0, u64::saturating_add);
        capacity.get(*device).copied().unwrap_or(0).saturating_sub(taken)
    };
    devices.iter().filter(|device| promised.contains(device)).map(of_device).min()
}

#[cfg(test)]
mod tests;
