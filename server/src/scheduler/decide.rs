//! The decision for one device: start-time fair queueing of leases.
//!
//! Each VM has a *tag*: the device time that it has had, divided by its weight. The lease goes to the least tag among those
//! that wait. Virtual time is the tag of whoever was chosen last; a VM that comes back from idleness starts there, so that
//! idling earns nothing. What is charged is what was measured, when it is known; until then the estimate stands in.

use super::bucket::Bucket;
use super::{
    Allowance, DEBT_MOST, DISENGAGE, Gate, HANDOVER, MICROSECOND, MILLISECOND, Nanos, Observation, PATIENCE,
    Policy, QUANTUM_LEAST, QUANTUM_MOST, Reason, Share, Tuning, Verdict, VmId, YIELD_AFTER,
};
use crate::vm::Tier;
use std::collections::BTreeMap;

/// Tags are nanoseconds times this, divided by the weight: the greatest weight, so that none is rounded away.
const SCALE: u128 = 10_000;

/// The most that one observation can claim: a minute.
const CLAIM_MOST: Nanos = 60_000_000_000;

/// Device time within which two VMs have had the same.
const TIE: Nanos = MILLISECOND;

/// How soon it is worth while to look again at what should nearly be complete.
const LOOK_LEAST: Nanos = 10 * MICROSECOND;

/// Limits of the histogram of waits, in microseconds: each class twice the one before, the last without limit.
pub const WAITS: usize = 20;

/// The scheduler of one device.
#[derive(Debug)]
pub struct Scheduler {
    tuning: Tuning,
    vms: BTreeMap<VmId, Entity>,
    lease: Option<Lease>,
    /// The tag of whoever was chosen last.
    virtual_time: u128,
    turns: u64,
    now: Nanos,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    vm: VmId,
    since: Nanos,
    deadline: Nanos,
}

/// What is kept of a VM.
#[derive(Debug)]
struct Entity {
    share: Share,
    seen: Observation,
    gate: Gate,
    reason: Reason,
    tag: u128,
    cap: Option<Bucket>,
    budget: Bucket,
    /// What it has in flight may have gone first because of a mark: it is charged to the budget.
    raised: bool,
    /// The turn in which it was last chosen.
    served: u64,
    /// When it last had anything to do with the device; `None` for never.
    last_active: Option<Nanos>,
    /// When the others stop waiting for what it has in flight.
    drain_by: Nanos,
    waiting_since: Option<Nanos>,
    /// Time with work in flight since the last charge, and that time divided by how many processes had some.
    busy: [Nanos; 2],
    report: Report,
}

/// What a VM has had of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Device time, in nanoseconds: what the policy charged.
    pub charged: Nanos,
    /// Leases.
    pub leases: u64,
    /// Time at the closed gate, in nanoseconds.
    pub waited: Nanos,
    /// Waits by length: class `n` is below `2^n` microseconds, the last one everything above.
    pub waits: [u64; WAITS],
    /// Whether it waits now.
    pub waiting: bool,
    /// Commands in flight, where it is measured.
    pub in_flight: u32,
    /// Its gate.
    pub gate: Gate,
    /// Why.
    pub reason: Reason,
}

impl Entity {
    fn new(share: Share, tuning: &Tuning, tag: u128, now: Nanos) -> Self {
        Self {
            share,
            seen: Observation::default(),
            gate: Gate::Closed,
            reason: Reason::default(),
            tag,
            cap: share.cap.map(|cap| Bucket::new(cap, now)),
            budget: Bucket::new(tuning.latency_budget, now),
            raised: false,
            served: 0,
            last_active: None,
            drain_by: 0,
            waiting_since: None,
            busy: [0; 2],
            report: Report::default(),
        }
    }

    fn weight(&self) -> u128 {
        self.share.weight.max(1).into()
    }

    /// Whether it is of the latency tier now: by its tier, or by what its guest has marked, where the operator allows that.
    fn is_latency_tier(&self) -> bool {
        self.share.tier == Tier::Latency || (self.share.marks && self.seen.marked)
    }

    /// Whether it goes before all others now.
    fn is_urgent_tier(&self) -> bool {
        self.is_latency_tier() && self.budget.left(0) > 0
    }

    /// Its tag when what it has in flight will have been charged. A kernel is charged when it ends, and the next lease is
    /// given shortly before: without it, whoever has just run would look as if it had not.
    fn expected_tag(&self, virtual_time: u128) -> u128 {
        self.tag_after(self.seen.pending, virtual_time)
    }

    /// Its tag after a charge: debts are bounded.
    fn tag_after(&self, charge: Nanos, virtual_time: u128) -> u128 {
        let most = virtual_time + u128::from(DEBT_MOST) * SCALE / self.weight();
        (self.tag + u128::from(charge) * SCALE / self.weight()).min(most.max(self.tag))
    }

    /// Whether its cap, if it has one, lets a lease begin.
    fn cap_lets(&self) -> bool {
        self.cap.as_ref().is_none_or(|cap| cap.may_begin(self.seen.pending))
    }

    /// What its cap leaves; as much as it likes where it has none.
    fn cap_left(&self) -> Nanos {
        self.cap.as_ref().map_or(Nanos::MAX, |cap| cap.left(self.seen.pending))
    }

    fn counts(&self, now: Nanos) -> bool {
        self.seen.is_active() || self.last_active.is_some_and(|last| now.saturating_sub(last) < DISENGAGE)
    }

    /// Takes a charge; device time that others had beside it is theirs.
    fn charge(&mut self, measured: Nanos, virtual_time: u128) {
        let [busy, own] = std::mem::take(&mut self.busy);
        let charged = if busy == 0 {
            measured
        } else {
            Nanos::try_from(u128::from(measured) * u128::from(own) / u128::from(busy)).unwrap_or(measured)
        };
        self.tag = self.tag_after(charged, virtual_time);
        if let Some(cap) = &mut self.cap {
            cap.take(charged);
        }
        if self.raised || self.is_latency_tier() {
            self.budget.take(charged);
        }
        self.report.charged = self.report.charged.saturating_add(charged);
    }

    fn note_waiting(&mut self, waiting: bool, now: Nanos) {
        match (waiting, self.waiting_since) {
            (true, None) => self.waiting_since = Some(now),
            (false, Some(since)) => {
                self.waiting_since = None;
                let waited = now.saturating_sub(since);
                self.report.waited += waited;
                let class = (Nanos::BITS - (waited / MICROSECOND).leading_zeros()) as usize;
                self.report.waits[class.min(WAITS - 1)] += 1;
            }
            _ => {}
        }
    }
}

impl Scheduler {
    /// A device that nobody uses.
    #[must_use]
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            vms: BTreeMap::new(),
            lease: None,
            virtual_time: 0,
            turns: 0,
            now: 0,
            verdict: Verdict::default(),
        }
    }

    /// Changes how the device is shared.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
        self.lease = None;
        for entity in self.vms.values_mut() {
            if entity.budget.allowance() != tuning.latency_budget {
                entity.budget = Bucket::new(tuning.latency_budget, self.now);
            }
        }
    }

    /// Adds a VM, or changes what one is entitled to. What it has used so far stays used.
    pub fn set(&mut self, now: Nanos, vm: VmId, share: Share) {
        self.advance(now);
        let (tuning, virtual_time) = (self.tuning, self.virtual_time);
        let entity = self.vms.entry(vm).or_insert_with(|| Entity::new(share, &tuning, virtual_time, now));
        if entity.share == share {
            return;
        }
        if entity.share.cap != share.cap {
            entity.cap = share.cap.map(|cap| Bucket::new(cap, now));
        }
        // Debts and credits are kept in device time, not in virtual time.
        let ahead = entity.tag.saturating_sub(virtual_time) * entity.weight();
        entity.share = share;
        if entity.tag > virtual_time {
            entity.tag = virtual_time + ahead / entity.weight();
        }
    }

    /// Takes a VM out; what it held is free at once.
    pub fn remove(&mut self, now: Nanos, vm: VmId) {
        self.advance(now);
        self.vms.remove(&vm);
        if self.lease.is_some_and(|lease| lease.vm == vm) {
            self.lease = None;
        }
    }

    /// A VM has nothing to do with the device any more; what it held is free at once, what it owes it still owes.
    pub fn leave(&mut self, now: Nanos, vm: VmId) {
        self.advance(now);
        if self.lease.is_some_and(|lease| lease.vm == vm) {
            self.lease = None;
        }
        if let Some(entity) = self.vms.get_mut(&vm) {
            entity.note_waiting(false, now);
            entity.seen = Observation::default();
            entity.last_active = None;
            (entity.gate, entity.reason) = (Gate::Closed, Reason::Quiet);
        }
    }

    /// What a VM does now. `charged` counts from its last observation on.
    pub fn observe(&mut self, now: Nanos, vm: VmId, seen: Observation) {
        self.advance(now);
        // What a worker says may be a lie: bounded, it is one about itself.
        let seen = Observation {
            charged: seen.charged.min(CLAIM_MOST),
            remaining: seen.remaining.min(CLAIM_MOST),
            pending: seen.pending.min(CLAIM_MOST),
            processes: seen.processes.min(seen.in_flight),
            ..seen
        };
        let virtual_time = self.virtual_time;
        let holds = self.lease.is_some_and(|lease| lease.vm == vm);
        let Some(entity) = self.vms.get_mut(&vm) else { return };
        if seen.is_active() && !entity.seen.is_active() && !holds {
            // Back from idleness, which earned nothing.
            entity.tag = entity.tag.max(virtual_time);
        }
        if seen.charged > 0 {
            entity.charge(seen.charged, virtual_time);
        }
        if seen.is_active() || seen.charged > 0 {
            entity.last_active = Some(now);
        }
        entity.raised &= seen.marked || seen.in_flight > 0;
        entity.note_waiting(seen.waiting, now);
        entity.seen = Observation { charged: 0, ..seen };
    }

    /// What a VM has had so far.
    #[must_use]
    pub fn report(&self, vm: VmId) -> Option<Report> {
        let entity = self.vms.get(&vm)?;
        Some(Report {
            waiting: entity.seen.waiting,
            in_flight: entity.seen.in_flight,
            gate: entity.gate,
            reason: entity.reason,
            ..entity.report.clone()
        })
    }

    /// Decides. All VMs have been observed at this time.
    pub fn decide(&mut self, now: Nanos) -> Verdict {
        self.advance(now);
        for entity in self.vms.values_mut() {
            entity.budget.fill(now);
            if let Some(cap) = &mut entity.cap {
                cap.fill(now);
            }
        }
        if self.tuning.policy == Policy::Fifo {
            self.lease = None;
            for vm in self.ids() {
                self.put(vm, Gate::Off, Reason::Policy(Policy::Fifo));
            }
        } else if !self.leave_alone(now) {
            self.close_strays();
            let urgent = self.open_for_latency(now);
            self.end_lease(now, urgent);
            if !urgent {
                self.begin_lease(now);
            }
            self.plan(now);
        }
        std::mem::take(&mut self.verdict)
    }

    /// Lets time go on: who had work in flight meanwhile shared the device with the others that had.
    fn advance(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let processes: u64 = self.vms.values().map(|entity| u64::from(entity.seen.processes)).sum();
        for entity in self.vms.values_mut().filter(|entity| entity.seen.processes > 0) {
            entity.busy[0] += elapsed;
            entity.busy[1] += elapsed / processes.max(1);
        }
    }

    fn ids(&self) -> Vec<VmId> {
        self.vms.keys().copied().collect()
    }

    /// Puts a gate, if it is not so already.
    fn put(&mut self, vm: VmId, gate: Gate, reason: Reason) {
        let patience = 2 * self.tuning.quantum;
        let now = self.now;
        let Some(entity) = self.vms.get_mut(&vm) else { return };
        // A gate that was closed from inside is opened anew even where the lease goes on.
        if entity.gate == gate && !(entity.seen.stopped && gate != Gate::Closed) {
            return;
        }
        if gate == Gate::Closed {
            entity.drain_by = now + entity.seen.remaining.min(PATIENCE) + patience;
        }
        entity.gate = gate;
        entity.reason = reason;
        self.verdict.gates.push((vm, gate, reason));
    }

    /// Closes gates that were opened for another reason than holds now: who stands there asks anew.
    fn close_strays(&mut self) {
        let leasefq = self.tuning.policy == Policy::LeaseFq;
        for vm in self.ids() {
            let entity = &self.vms[&vm];
            let leased = self.lease.is_some_and(|lease| lease.vm == vm);
            let first = leasefq && entity.is_urgent_tier();
            if matches!(entity.gate, Gate::Open { .. }) && !leased && !first {
                self.put(vm, Gate::Closed, Reason::Contended);
            }
        }
    }

    /// Closes gates behind which nothing is measured, where a changed limit or policy wants it measured.
    fn close_unmeasured(&mut self) {
        for vm in self.ids() {
            let entity = &self.vms[&vm];
            let measure = entity.cap.is_some() || self.tuning.watched;
            if entity.gate == Gate::Off || (entity.gate == Gate::Free && measure) {
                self.put(vm, Gate::Closed, Reason::Remeasured);
            }
        }
    }

    /// Opens the gate of a VM that is alone, and closes all others. Whether there is nothing else to decide.
    fn leave_alone(&mut self, now: Nanos) -> bool {
        self.close_unmeasured();
        let wanting: Vec<VmId> =
            self.vms.iter().filter(|(_, entity)| entity.counts(now)).map(|(vm, _)| *vm).collect();
        // What runs behind a wide open gate is not measured, so it is taken to go on until it has shown otherwise.
        let free = self.vms.iter().find(|(_, entity)| entity.gate == Gate::Free).map(|(vm, _)| *vm);
        if let Some(free) = free
            && wanting.iter().any(|vm| *vm != free)
            && let Some(entity) = self.vms.get_mut(&free)
        {
            entity.last_active = Some(now);
            entity.tag = entity.tag.max(self.virtual_time);
            self.put(free, Gate::Closed, Reason::Contended);
            return false;
        }
        let [alone] = wanting[..] else {
            // Nobody: all stays as it is, so that whoever was alone finds its gate open.
            return wanting.is_empty();
        };
        let entity = &self.vms[&alone];
        if entity.cap.is_some() {
            return false;
        }
        self.lease = None;
        let (gate, reason) = if self.tuning.watched {
            (Gate::Open { deadline: Nanos::MAX, tell: false }, Reason::AloneMeasured)
        } else {
            (Gate::Free, Reason::Alone)
        };
        for vm in self.ids().into_iter().filter(|vm| *vm != alone) {
            self.put(vm, Gate::Closed, Reason::Quiet);
        }
        self.put(alone, gate, reason);
        true
    }

    /// Opens the gates of the latency tier as far as its budgets go; whether one of it has anything to do.
    fn open_for_latency(&mut self, now: Nanos) -> bool {
        if self.tuning.policy != Policy::LeaseFq {
            return false;
        }
        let mut urgent = false;
        for vm in self.ids() {
            let entity = &self.vms[&vm];
            if !entity.is_latency_tier() || !entity.cap_lets() {
                continue;
            }
            let leased = self.lease.is_some_and(|lease| lease.vm == vm);
            if entity.is_urgent_tier() {
                urgent |= entity.seen.is_active();
                if leased {
                    self.lease = None;
                }
                self.put(vm, Gate::Open { deadline: Nanos::MAX, tell: true }, Reason::LatencyTier);
                if let Some(entity) = self.vms.get_mut(&vm) {
                    entity.raised |= entity.share.tier != Tier::Latency;
                }
            } else if !leased && matches!(entity.gate, Gate::Open { .. }) {
                self.put(vm, Gate::Closed, Reason::LeaseEnded);
            }
        }
        let _ = now;
        urgent
    }

    /// Whether somebody other than `vm` waits for a lease and may have one.
    fn others_wait(&self, vm: VmId) -> bool {
        self.vms.iter().any(|(other, entity)| *other != vm && self.is_candidate(entity))
    }

    fn is_candidate(&self, entity: &Entity) -> bool {
        let leasefq = self.tuning.policy == Policy::LeaseFq;
        entity.seen.waiting && (!leasefq || !entity.is_urgent_tier() && entity.cap_lets())
    }

    /// Whether a VM of another tier than the idle one wants the device.
    fn is_wanted(&self) -> bool {
        self.vms.values().any(|entity| {
            let wants = entity.seen.in_flight > 0 || (entity.seen.waiting && entity.cap_lets());
            entity.share.tier != Tier::Idle && wants
        })
    }

    fn end_lease(&mut self, now: Nanos, urgent: bool) {
        let Some(lease) = self.lease else { return };
        let Some(entity) = self.vms.get(&lease.vm) else {
            self.lease = None;
            return;
        };
        let leasefq = self.tuning.policy == Policy::LeaseFq;
        let others = self.others_wait(lease.vm);
        let last = entity.last_active.unwrap_or(0).max(lease.since);
        let reason = if leasefq && entity.cap_left() == 0 {
            Reason::Capped
        } else if urgent {
            Reason::CutForLatency
        } else if leasefq && entity.share.tier == Tier::Idle && self.is_wanted() {
            Reason::CutForOthers
        } else if entity.seen.stopped || now >= lease.deadline {
            if !others && entity.seen.is_active() {
                return self.grant(now, lease.vm, Reason::LeastServed);
            }
            Reason::LeaseEnded
        } else if others && !entity.seen.is_active() && now.saturating_sub(last) >= YIELD_AFTER {
            Reason::Yielded
        } else {
            return;
        };
        self.lease = None;
        self.put(lease.vm, Gate::Closed, reason);
    }

    fn begin_lease(&mut self, now: Nanos) {
        if self.lease.is_some() {
            return;
        }
        let leasefq = self.tuning.policy == Policy::LeaseFq;
        let wanted = self.is_wanted();
        let candidates = self.vms.iter().filter(|(_, entity)| {
            self.is_candidate(entity) && !(leasefq && entity.share.tier == Tier::Idle && wanted)
        });
        let chosen = if leasefq {
            candidates.min_by_key(|(_, entity)| (self.claim(entity), entity.served))
        } else {
            candidates.min_by_key(|(_, entity)| (u128::from(entity.served), 0))
        };
        let Some((vm, entity)) = chosen.map(|(vm, entity)| (*vm, entity)) else { return };
        let tier = entity.share.tier;
        let mut reason = match (leasefq, tier) {
            (false, _) => Reason::Turn,
            (true, Tier::Idle) => Reason::IdleTier,
            (true, _) => Reason::LeastServed,
        };
        for (other, entity) in &self.vms {
            if *other == vm || !Self::blocks(entity) {
                continue;
            }
            if now < entity.drain_by {
                return;
            }
            reason = Reason::Overrun { by: now - entity.drain_by + 2 * self.tuning.quantum };
        }
        self.grant(now, vm, reason);
    }

    /// By what the lease is given: the tag as expected. Of two that have had the same, but for what cannot be measured, it is the
    /// other's turn: with long kernels, two of one VM in a row are a share error of points.
    fn claim(&self, entity: &Entity) -> u128 {
        let again = entity.served == self.turns;
        let margin = if again { u128::from(TIE) * SCALE / entity.weight() } else { 0 };
        entity.expected_tag(self.virtual_time) + margin
    }

    /// Whether others wait until what it has in flight is nearly done.
    fn blocks(entity: &Entity) -> bool {
        entity.gate == Gate::Closed && entity.seen.in_flight > 0 && entity.seen.remaining > HANDOVER
    }

    fn grant(&mut self, now: Nanos, vm: VmId, reason: Reason) {
        let quantum = self.quantum(now, vm);
        self.turns += 1;
        let Some(entity) = self.vms.get_mut(&vm) else { return };
        self.virtual_time = self.virtual_time.max(entity.tag);
        entity.served = self.turns;
        entity.report.leases += 1;
        let left = if self.tuning.policy == Policy::LeaseFq { entity.cap_left().max(1) } else { Nanos::MAX };
        let deadline = now + quantum.min(left);
        self.lease = Some(Lease { vm, since: now, deadline });
        self.put(vm, Gate::Open { deadline, tell: false }, reason);
    }

    /// A lease in proportion to the weight, so that a round gives each what it is due.
    fn quantum(&self, now: Nanos, vm: VmId) -> Nanos {
        if self.tuning.policy != Policy::LeaseFq {
            return self.tuning.quantum;
        }
        let (mut count, mut sum) = (0, 0);
        for (_, entity) in self.vms.iter().filter(|(other, entity)| **other == vm || entity.counts(now)) {
            count += 1;
            sum += entity.weight();
        }
        let own = self.vms.get(&vm).map_or(1, Entity::weight);
        let quantum = u128::from(self.tuning.quantum) * own * count / sum.max(1);
        Nanos::try_from(quantum).unwrap_or(QUANTUM_MOST).clamp(QUANTUM_LEAST, QUANTUM_MOST)
    }

    /// When to decide again by itself.
    fn plan(&mut self, now: Nanos) {
        let mut times: Vec<Nanos> = Vec::new();
        if let Some(lease) = self.lease {
            times.push(lease.deadline);
            if self.others_wait(lease.vm)
                && let Some(entity) = self.vms.get(&lease.vm)
                && !entity.seen.is_active()
            {
                times.push(entity.last_active.unwrap_or(0).max(lease.since) + YIELD_AFTER);
            }
        }
        for entity in self.vms.values() {
            if Self::blocks(entity) && self.lease.is_none() {
                times.push(entity.drain_by);
                // Whoever is overdue tells of its end; for who is not, nobody has to.
                if entity.seen.remaining > HANDOVER + 1 {
                    times.push(now + (entity.seen.remaining - HANDOVER).max(LOOK_LEAST));
                }
            }
            if let Some(cap) = entity.cap.as_ref().filter(|_| entity.seen.waiting && !entity.cap_lets()) {
                times.push(cap.begins_at(entity.seen.pending));
            }
            if entity.is_latency_tier() {
                let left = entity.budget.left(0);
                if left == 0 {
                    times.push(entity.budget.begins_at(0));
                } else if entity.seen.is_active() {
                    times.push(now + left.clamp(QUANTUM_LEAST, self.tuning.quantum));
                }
            }
            if !entity.seen.is_active()
                && let Some(last) = entity.last_active
                && now < last + DISENGAGE
            {
                times.push(last + DISENGAGE);
            }
        }
        self.verdict.wake_at = times.into_iter().filter(|time| *time > now).min();
    }

    /// The budget that each VM of the latency tier has.
    #[must_use]
    pub fn latency_budget(&self) -> Allowance {
        self.tuning.latency_budget
    }
}
