//! A device and its guests, simulated: what [`super::Scheduler`] is tested against.
//!
//! The device runs the heads of all processes' queues at once, each at its part of the speed, as a driver that slices does.
//! The workers follow the rules of the gate: a window inside a lease, an estimate learnt per kind of command, a message when
//! they wait, run dry or have nearly drained. A command is charged when it is complete, as events between commands have it.
//! Nothing is random but the workloads.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are non-negative and far below 2^53 ns, which is 104 days"
)]

use super::{
    ALONE_WINDOW, Gate, HANDOVER, MICROSECOND, Nanos, Observation, Reason, Scheduler, Share, Tuning, VmId,
    WINDOW, WINDOW_COMMANDS, WINDOW_LEAST, YIELD_AFTER,
};
use crate::worker::estimate::{Cost, Estimates, Key};
use std::collections::{BTreeMap, VecDeque};

/// What a wake-up from the daemon to a worker or back takes.
const MESSAGE: Nanos = 20 * MICROSECOND;

/// What a guest does, for ever.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Lengths of its kernels, in turn.
    pub(super) kernels: Vec<Nanos>,
    /// Kernels after which it waits for all of them.
    pub(super) burst: u32,
    /// Then it does nothing for this long.
    pub(super) pause: Nanos,
    /// Whether its kernels are one function's in one shape, so that nobody can tell a long one from a short one.
    pub(super) blind: bool,
    /// Whether it marks all of it as urgent.
    pub(super) marked: bool,
    /// When it comes.
    pub(super) from: Nanos,
    /// When it goes.
    pub(super) until: Nanos,
}

impl Workload {
    /// Always something to do.
    pub(super) fn busy(kernel: Nanos) -> Self {
        Self {
            kernels: vec![kernel],
            burst: u32::MAX,
            pause: 0,
            blind: false,
            marked: false,
            from: 0,
            until: Nanos::MAX,
        }
    }

    /// What a kernel of this length is known by.
    fn key(&self, length: Nanos) -> Key {
        Key::launch(if self.blind { 0 } else { length }, 0, 0, 0)
    }

    /// A kernel, then a pause.
    pub(super) fn periodic(kernel: Nanos, pause: Nanos) -> Self {
        Self {
            kernels: vec![kernel],
            burst: 1,
            pause,
            blind: false,
            marked: false,
            from: 0,
            until: Nanos::MAX,
        }
    }
}

#[derive(Debug)]
struct Command {
    length: Nanos,
    /// Time of the device that it has had, which others may have had beside it.
    had: Nanos,
    left: f64,
    cost: Cost,
    /// Nobody knew how long it takes.
    unknown: bool,
    /// When it was asked for.
    asked: Nanos,
}

#[derive(Debug)]
struct Guest {
    workload: Workload,
    gate: Gate,
    queue: VecDeque<Command>,
    next: usize,
    in_burst: u32,
    resume: Nanos,
    asked: Option<Nanos>,
    estimates: Estimates,
    charged: Nanos,
    waiting: bool,
    stopped: bool,
    fed_in_lease: bool,
    dry_since: Option<Nanos>,
    told_dry: bool,
    gone: bool,
    /// Completed kernels: when, and how long they are.
    done: Vec<(Nanos, Nanos)>,
    /// From asking to completion of each.
    latencies: Vec<Nanos>,
}

/// The whole.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) scheduler: Scheduler,
    guests: BTreeMap<VmId, Guest>,
    now: Nanos,
    /// Gates on their way to the workers.
    messages: VecDeque<(Nanos, VmId, Gate)>,
    /// When the daemon looks next.
    look: Option<Nanos>,
    /// The longest time in one piece during which somebody waited for the device and it did nothing.
    pub(super) longest_idle: Nanos,
    idle: Nanos,
    pub(super) busy: Nanos,
    /// What the device takes from one guest's kernel to another's.
    pub(super) switch: Nanos,
    /// Whose kernel ran last, and how long the device still takes to turn from it.
    on_device: (Option<VmId>, Nanos),
    pub(super) reasons: BTreeMap<&'static str, u64>,
    changes: Vec<(Nanos, VmId, Share)>,
}

impl Simulation {
    pub(super) fn new(tuning: Tuning, guests: Vec<(Share, Workload)>) -> Self {
        let mut scheduler = Scheduler::new(tuning);
        let guests = guests.into_iter().enumerate().map(|(index, (share, workload))| {
            let vm = index as VmId;
            scheduler.set(0, vm, share);
            (vm, Guest::new(workload))
        });
        let guests = guests.collect();
        Self {
            scheduler,
            guests,
            now: 0,
            messages: VecDeque::new(),
            look: Some(0),
            longest_idle: 0,
            idle: 0,
            busy: 0,
            switch: 0,
            on_device: (None, 0),
            reasons: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Changes a share at a time to come; in order of time.
    pub(super) fn change(&mut self, at: Nanos, vm: VmId, share: Share) {
        self.changes.push((at, vm, share));
    }

    /// Lets it run.
    pub(super) fn run(&mut self, until: Nanos) {
        while self.now < until {
            self.deliver();
            self.feed();
            self.watch();
            if self.look.is_some_and(|look| look <= self.now) {
                self.decide();
                continue;
            }
            let next = self.next_event().unwrap_or(until).min(until).max(self.now + 1);
            self.pass(next - self.now);
        }
    }

    fn ask_daemon(&mut self, at: Nanos) {
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }

    fn deliver(&mut self) {
        while let Some((at, vm, gate)) = self.messages.front().copied() {
            if at > self.now {
                break;
            }
            self.messages.pop_front();
            if let Some(guest) = self.guests.get_mut(&vm) {
                guest.gate = gate;
                guest.fed_in_lease = false;
                guest.stopped = false;
                guest.told_dry = false;
                guest.dry_since = guest.queue.is_empty().then_some(self.now);
            }
        }
        while let Some((at, vm, share)) = self.changes.first().copied() {
            if at > self.now {
                break;
            }
            self.changes.remove(0);
            self.scheduler.set(self.now, vm, share);
            self.ask_daemon(self.now);
        }
    }

    fn feed(&mut self) {
        let now = self.now;
        let mut ask = false;
        for (vm, guest) in &mut self.guests {
            if !guest.gone && now >= guest.workload.until {
                guest.gone = true;
                guest.queue.clear();
                self.scheduler.remove(now, *vm);
                ask = true;
            }
            if !guest.gone {
                ask |= guest.feed(now);
            }
        }
        if ask {
            self.ask_daemon(now + MESSAGE);
        }
    }

    /// Workers tell when they have run dry, or have nearly drained behind a closed gate.
    fn watch(&mut self) {
        let now = self.now;
        let mut ask = false;
        for guest in self.guests.values_mut().filter(|guest| guest.gate != Gate::Free && !guest.told_dry) {
            let dry = guest.dry_since.is_some_and(|since| now >= since + YIELD_AFTER);
            let drained = guest.gate == Gate::Closed && guest.remaining() <= HANDOVER;
            if dry || drained {
                guest.told_dry = true;
                ask = true;
            }
        }
        if ask {
            self.ask_daemon(now + MESSAGE);
        }
    }

    fn decide(&mut self) {
        let now = self.now;
        self.look = None;
        for (vm, guest) in self.guests.iter_mut().filter(|(_, guest)| !guest.gone) {
            let measured = guest.gate != Gate::Free;
            let in_flight = if measured { u32::try_from(guest.queue.len()).unwrap() } else { 0 };
            let seen = Observation {
                waiting: guest.waiting,
                in_flight,
                processes: u32::from(in_flight > 0),
                remaining: if measured { guest.remaining() } else { 0 },
                pending: if measured { guest.pending() } else { 0 },
                charged: std::mem::take(&mut guest.charged),
                stopped: guest.stopped,
                marked: guest.workload.marked && (guest.waiting || in_flight > 0),
            };
            self.scheduler.observe(now, *vm, seen);
        }
        let verdict = self.scheduler.decide(now);
        for (vm, gate, reason) in verdict.gates {
            self.messages.push_back((now + MESSAGE, vm, gate));
            *self.reasons.entry(Reason::word(reason)).or_default() += 1;
        }
        if let Some(at) = verdict.wake_at {
            self.ask_daemon(at.max(now + 1));
        }
    }

    fn active(&self) -> usize {
        self.guests.values().filter(|guest| !guest.queue.is_empty()).count()
    }

    fn next_event(&self) -> Option<Nanos> {
        let active = self.active() as f64;
        let mut times: Vec<Nanos> = self.look.into_iter().collect();
        times.extend(self.messages.front().map(|(at, ..)| *at));
        times.extend(self.changes.first().map(|(at, ..)| *at));
        for guest in self.guests.values().filter(|guest| !guest.gone) {
            if let Some(head) = guest.queue.front() {
                times.push(self.now + self.on_device.1 + (head.left * active).ceil() as Nanos);
                if guest.gate == Gate::Closed && !guest.told_dry {
                    let excess = guest.remaining().saturating_sub(HANDOVER);
                    // What is overdue is one nanosecond from being nearly done, for as long as it likes.
                    times.extend((excess > 1).then(|| self.now + excess));
                }
            }
            times.extend(guest.dry_since.filter(|_| !guest.told_dry).map(|since| since + YIELD_AFTER));
            times.push(guest.resume);
            times.push(guest.workload.from);
            times.push(guest.workload.until);
        }
        times.into_iter().filter(|time| *time > self.now).min()
    }

    fn pass(&mut self, time: Nanos) {
        let active = self.active();
        let wanted = self.guests.values().any(|guest| guest.waiting);
        self.idle = if active == 0 && wanted { self.idle + time } else { 0 };
        self.longest_idle = self.longest_idle.max(self.idle);
        if active > 0 {
            self.busy += time;
        }
        self.now += time;
        let ran = time - self.turn(active, time);
        let (now, part) = (self.now, ran as f64 / active.max(1) as f64);
        for guest in self.guests.values_mut() {
            let Some(head) = guest.queue.front_mut() else { continue };
            head.left -= part;
            // Event time is wall time.
            head.had += ran;
            if head.left < 0.5 {
                let command = guest.queue.pop_front().unwrap();
                guest.charged += if guest.gate == Gate::Free { 0 } else { command.had };
                guest.complete(now, &command);
            }
        }
    }

    /// Turns from one guest to another, which only takes time where one has the device for itself; how much of `time`.
    fn turn(&mut self, active: usize, time: Nanos) -> Nanos {
        if active != 1 {
            return 0;
        }
        let runs = self.guests.iter().find(|(_, guest)| !guest.queue.is_empty()).map(|(vm, _)| *vm);
        if runs != self.on_device.0 {
            self.on_device = (runs, self.switch);
        }
        let turning = self.on_device.1.min(time);
        self.on_device.1 -= turning;
        self.busy -= turning;
        turning
    }

    /// Device time of a VM's kernels between two moments; one that lies across counts for the part that is in between.
    pub(super) fn service(&self, vm: VmId, from: Nanos, until: Nanos) -> Nanos {
        let part = |(end, length): &(Nanos, Nanos)| {
            (*end).min(until).saturating_sub(end.saturating_sub(*length).max(from))
        };
        // They lie in the order of their ends, one after the other.
        let done = &self.guests[&vm].done;
        let first = done.partition_point(|(end, _)| *end <= from);
        let after = done.partition_point(|(end, _)| *end < until);
        done[first..(after + 1).min(done.len())].iter().map(part).sum()
    }

    /// From asking to completion of a VM's kernels, shortest first, those before `from` left out.
    pub(super) fn latencies(&self, vm: VmId, from: Nanos) -> Vec<Nanos> {
        let guest = &self.guests[&vm];
        let late = guest.done.iter().zip(&guest.latencies).filter(|((at, _), _)| *at >= from);
        let mut latencies: Vec<Nanos> = late.map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        latencies
    }

    /// The longest time in which a VM that has something to do completed nothing.
    pub(super) fn longest_gap(&self, vm: VmId, until: Nanos) -> Nanos {
        let mut last = self.guests[&vm].workload.from;
        let mut longest = 0;
        for at in self.guests[&vm].done.iter().map(|(at, _)| *at).chain([until]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}

impl Guest {
    fn new(workload: Workload) -> Self {
        Self {
            gate: Gate::Closed,
            queue: VecDeque::new(),
            next: 0,
            in_burst: 0,
            resume: workload.from,
            asked: None,
            estimates: Estimates::default(),
            charged: 0,
            waiting: false,
            stopped: false,
            fed_in_lease: false,
            dry_since: Some(0),
            told_dry: true,
            gone: false,
            done: Vec::new(),
            latencies: Vec::new(),
            workload,
        }
    }

    /// Until all is complete, each command as long as `length` says.
    fn left(&self, length: impl Fn(Cost) -> Nanos) -> Nanos {
        self.queue
            .iter()
            .map(|command| {
                let done = command.length - (command.left.max(0.0) as Nanos).min(command.length);
                // A command that takes longer than it should is not nearly done.
                let length = length(command.cost);
                if done > length { HANDOVER + 1 } else { length - done }
            })
            .sum()
    }

    fn remaining(&self) -> Nanos {
        self.left(Cost::at_most)
    }

    fn pending(&self) -> Nanos {
        self.queue.iter().map(|command| command.cost.mean.max(command.had)).sum()
    }

    fn may_feed(&mut self, now: Nanos, estimate: Nanos, unknown: bool) -> bool {
        let in_flight = self.left(|cost| cost.mean);
        let count = u32::try_from(self.queue.len()).unwrap();
        match self.gate {
            Gate::Off => true,
            Gate::Free => in_flight < ALONE_WINDOW,
            Gate::Closed => {
                self.waiting = true;
                false
            }
            Gate::Open { deadline, .. } => {
                if count >= WINDOW_LEAST && (in_flight + estimate > WINDOW || count >= WINDOW_COMMANDS) {
                    return false;
                }
                if count > 0 && (unknown || self.queue.iter().any(|command| command.unknown)) {
                    return false;
                }
                if self.fed_in_lease && now + in_flight >= deadline {
                    self.stopped = true;
                    self.waiting = true;
                    self.gate = Gate::Closed;
                    return false;
                }
                true
            }
        }
    }

    /// Lets through what the gate lets through; whether the daemon must know.
    fn feed(&mut self, now: Nanos) -> bool {
        let was_waiting = self.waiting;
        let mut tell = false;
        while now >= self.resume && self.in_burst < self.workload.burst {
            let asked = *self.asked.get_or_insert(now);
            let length = self.workload.kernels[self.next % self.workload.kernels.len()];
            let known = self.estimates.of(self.workload.key(length)).0;
            let (cost, unknown) = (known.unwrap_or(Cost::of(200 * MICROSECOND)), known.is_none());
            if !self.may_feed(now, cost.mean, unknown) {
                break;
            }
            tell |= self.queue.is_empty() && matches!(self.gate, Gate::Open { tell: true, .. });
            self.waiting = false;
            self.fed_in_lease = true;
            self.asked = None;
            self.next += 1;
            self.in_burst = self.in_burst.saturating_add(u32::from(self.workload.burst != u32::MAX));
            self.queue.push_back(Command { length, had: 0, left: length as f64, cost, unknown, asked });
            self.dry_since = None;
            self.told_dry = false;
        }
        tell || (self.waiting && !was_waiting)
    }

    fn complete(&mut self, now: Nanos, command: &Command) {
        self.done.push((now, command.length));
        self.latencies.push(now - command.asked);
        self.estimates.learn(self.workload.key(command.length), command.length);
        if self.queue.is_empty() {
            self.dry_since = Some(now);
            self.told_dry = false;
            if self.in_burst >= self.workload.burst {
                self.in_burst = 0;
                self.resume = now + self.workload.pause;
            }
        }
    }
}
