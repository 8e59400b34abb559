//! What each VM has used, and how fast it uses it now.
//!
//! Nobody ticks: a worker counts into its page, and what it counted is added up when somebody asks and when its session
//! ends. Rates are taken between two looks that are at least [`LEAST_WINDOW`] apart. What a worker says is an allegation;
//! sums saturate.

use super::Daemon;
use super::session::Session;
use crate::classify::{Classified, Features};
use crate::quota;
use crate::vm::registry::Vm;
use parking_lot::Mutex;
use pxos_protocol::admin::{self, Account, Counters, Usage};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Shortest time over which a rate is taken.
const LEAST_WINDOW: Duration = Duration::from_millis(250);

/// Sums of one VM, or of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Device time in nanoseconds.
    pub(super) gpu_nanos: u64,
    /// Bytes of device memory times seconds.
    pub(super) memory_byte_seconds: f64,
    /// Launches.
    pub(super) launches: u64,
    /// Bytes copied, to the device and from it.
    pub(super) copied: [u64; 2],
    /// Bytes on the wire, from the guest and to it.
    pub(super) wire: [u64; 2],
    /// Refusals for a quota.
    pub(super) refusals: u64,
    /// Broken contexts.
    pub(super) faults: u64,
    /// Frames that were not what they claimed.
    pub(super) decode_errors: u64,
    /// Synchronising calls.
    pub(super) synchronisations: u64,
}

impl Sums {
    fn of(counters: &Counters, refusals: u64, usage: &Usage) -> Self {
        Self {
            gpu_nanos: usage.gpu_nanos,
            memory_byte_seconds: counters.memory_byte_seconds,
            launches: counters.launches,
            copied: [counters.copy_bytes_to_device, counters.copy_bytes_to_host],
            wire: [counters.bytes_in, counters.bytes_out],
            refusals,
            faults: counters.faults,
            decode_errors: counters.decode_errors,
            synchronisations: counters.messages_sync,
        }
    }

    fn add(&mut self, other: &Self) {
        let ([copied_to, copied_from], [wire_from, wire_to]) = (&mut self.copied, &mut self.wire);
        for (sum, more) in [
            (&mut self.gpu_nanos, other.gpu_nanos),
            (&mut self.launches, other.launches),
            (copied_to, other.copied[0]),
            (copied_from, other.copied[1]),
            (wire_from, other.wire[0]),
            (wire_to, other.wire[1]),
            (&mut self.refusals, other.refusals),
            (&mut self.faults, other.faults),
            (&mut self.decode_errors, other.decode_errors),
            (&mut self.synchronisations, other.synchronisations),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.memory_byte_seconds += other.memory_byte_seconds;
    }
}

/// One VM's history.
#[derive(Debug, Default)]
struct History {
    since: u64,
    sessions: u64,
    ended: Sums,
    look: Option<Look>,
    rates: Rates,
    classified: Classified,
    /// What the scheduler decided last, as it was seen.
    decision: String,
}

/// What a look saw.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    sums: Sums,
}

/// What happened between the last two looks, a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    /// Fraction of device time.
    pub(super) share: f64,
    /// Launches.
    pub(super) launches: f64,
    /// Bytes copied.
    pub(super) copied: f64,
}

/// All VMs' histories, by name: a VM that goes and comes again goes on.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    table: Mutex<BTreeMap<String, History>>,
}

/// A VM as it is seen now.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Since the daemon knows it.
    pub(super) sums: Sums,
    /// Lately.
    pub(super) rates: Rates,
    /// What kind of work it does.
    pub(super) classified: Classified,
    /// What is new since the last look, by the kind of event.
    news: Vec<(&'static str, String)>,
}

impl Accounts {
    /// A session of the VM begins.
    pub(super) fn begin(&self, vm: &str) {
        let mut table = self.table.lock();
        let history = table.entry(vm.to_owned()).or_default();
        if history.sessions == 0 {
            history.since = seconds();
        }
        history.sessions += 1;
    }

    /// A session of the VM has ended with these numbers.
    pub(super) fn end(&self, vm: &str, counters: &Counters, held: &quota::Usage, usage: &Usage) {
        let mut table = self.table.lock();
        table.entry(vm.to_owned()).or_default().ended.add(&Sums::of(counters, held.refusals, usage));
    }

    /// Looks at a VM whose standing sessions have these numbers.
    fn look(&self, vm: &str, standing: &[Sums], decision: &str) -> Seen {
        let mut table = self.table.lock();
        let history = table.entry(vm.to_owned()).or_default();
        let mut sums = history.ended.clone();
        standing.iter().for_each(|more| sums.add(more));
        let now = Instant::now();
        let mut news = Vec::new();
        match &history.look {
            Some(last) if now - last.at < LEAST_WINDOW => {}
            Some(last) => {
                let window = now - last.at;
                history.rates = rates(&last.sums, &sums, window);
                let features = Features::between(
                    sums.gpu_nanos.saturating_sub(last.sums.gpu_nanos),
                    sums.launches.saturating_sub(last.sums.launches),
                    copied(&sums).saturating_sub(copied(&last.sums)),
                    sums.synchronisations.saturating_sub(last.sums.synchronisations),
                    window,
                );
                if history.classified.observe(&features) {
                    let text = format!("{}: {}", history.classified.name(), history.classified.reason());
                    news.push(("class", text));
                }
                let refused = sums.refusals.saturating_sub(last.sums.refusals);
                if refused > 0 {
                    news.push(("quota", format!("{refused} allocations or streams were refused")));
                }
                if history.decision != decision && !decision.is_empty() {
                    decision.clone_into(&mut history.decision);
                    news.push(("decision", decision.to_owned()));
                }
                history.look = Some(Look { at: now, sums: sums.clone() });
            }
            None => history.look = Some(Look { at: now, sums: sums.clone() }),
        }
        Seen { sums, rates: history.rates, classified: history.classified.clone(), news }
    }

    /// What each VM has used, with what its standing sessions have used so far.
    pub(super) fn report(&self, standing: &BTreeMap<String, Sums>) -> Vec<Account> {
        let table = self.table.lock();
        let report = |(vm, history): (&String, &History)| {
            let mut sums = history.ended.clone();
            if let Some(more) = standing.get(vm) {
                sums.add(more);
            }
            Account {
                vm: vm.clone(),
                since: history.since,
                sessions: history.sessions,
                gpu_seconds: nanos(sums.gpu_nanos),
                memory_gib_hours: sums.memory_byte_seconds / f64::from(1 << 30) / 3600.0,
                launches: sums.launches,
                bytes_to_device: sums.copied[0],
                bytes_to_host: sums.copied[1],
                refusals: sums.refusals,
                faults: sums.faults,
                decode_errors: sums.decode_errors,
            }
        };
        table.iter().filter(|(_, history)| history.sessions > 0).map(report).collect()
    }
}

fn copied(sums: &Sums) -> u64 {
    sums.copied[0].saturating_add(sums.copied[1])
}

fn rates(old: &Sums, new: &Sums, window: Duration) -> Rates {
    let seconds = window.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    Rates {
        share: rate(old.gpu_nanos, new.gpu_nanos) / 1e9,
        launches: rate(old.launches, new.launches),
        copied: rate(copied(old), copied(new)),
    }
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a number for people")]
pub(super) fn nanos(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a session has used.
pub(super) fn of_session(daemon: &Daemon, id: u64, session: &Session) -> Sums {
    let held = session.vm.quota.of(session.slot);
    Sums::of(&session.worker.stats.read(), held.refusals, &super::usage::of_session(daemon, id))
}

/// What the standing sessions of each VM have used, a list for each VM.
pub(super) fn standing(daemon: &Daemon) -> BTreeMap<String, Vec<Sums>> {
    let mut all: BTreeMap<String, Vec<Sums>> = BTreeMap::new();
    for (vm, sums) in
        daemon.sessions.map(|id, session| (session.vm.name.clone(), of_session(daemon, id, session)))
    {
        all.entry(vm).or_default().push(sums);
    }
    all
}

/// What each VM has used so far.
pub(super) fn report(daemon: &Daemon) -> Vec<Account> {
    let standing = standing(daemon).into_iter().map(|(vm, list)| {
        let mut sums = Sums::default();
        list.iter().for_each(|more| sums.add(more));
        (vm, sums)
    });
    daemon.accounts.report(&standing.collect())
}

/// Looks at a VM.
pub(super) fn look(daemon: &Daemon, vm: &Vm) -> Seen {
    let standing = daemon
        .sessions
        .map(|id, session| (session.vm.number == vm.number).then(|| of_session(daemon, id, session)));
    let standing: Vec<Sums> = standing.into_iter().flatten().collect();
    let seen = daemon.accounts.look(&vm.name, &standing, &super::usage::of_vm(daemon, vm).reason);
    for (kind, text) in &seen.news {
        daemon.journal.note(kind, Some(&vm.name), None, text.clone());
    }
    seen
}

/// A VM for a report.
pub(super) fn view(daemon: &Daemon, vm: &Vm) -> admin::Vm {
    let rights = vm.rights();
    let held = vm.quota.total();
    let seen = look(daemon, vm);
    let (class, class_reason) = match rights.limits.class {
        Some(class) => (class.name().to_owned(), "pinned by the operator".to_owned()),
        None => (seen.classified.name().to_owned(), seen.classified.reason().to_owned()),
    };
    let usage = super::usage::of_vm(daemon, vm);
    admin::Vm {
        name: vm.name.clone(),
        origin: vm.origin().name().to_owned(),
        identity: vm.identity().map(|identity| identity.to_string()),
        policy: rights.policy.name().to_owned(),
        draining: vm.is_draining(),
        gpus: rights.gpus.to_string(),
        limits: rights.limits.into(),
        sessions: daemon.sessions.of_vm(vm),
        memory: admin::Memory {
            charged: vm.quota.charged(&held),
            limit: rights.limits.memory_max,
            owed: rights.limits.memory_min.saturating_sub(held.used),
            context: held.context,
            kinds: kinds(&held),
        },
        streams: held.streams,
        refusals: held.refusals,
        usage: Usage {
            gpu_nanos: seen.sums.gpu_nanos,
            share: seen.rates.share,
            launch_rate: seen.rates.launches,
            copy_rate: seen.rates.copied,
            ..usage
        },
        class,
        class_reason,
    }
}

/// Bytes by the kinds' words.
pub(super) fn kinds(held: &quota::Usage) -> BTreeMap<String, u64> {
    let pairs = quota::Kind::ALL.into_iter().zip(held.kinds);
    pairs.map(|(kind, bytes)| (kind.name().to_owned(), bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_and_what_stands_are_added_up_once() {
        let accounts = Accounts::default();
        accounts.begin("red");
        accounts.begin("red");
        let counters = Counters { launches: 10, copy_bytes_to_host: 7, ..Counters::default() };
        let usage = Usage { gpu_nanos: 1_500_000_000, ..Usage::default() };
        accounts.end("red", &counters, &quota::Usage { refusals: 2, ..quota::Usage::default() }, &usage);
        let standing = Sums { launches: 5, gpu_nanos: 500_000_000, ..Sums::default() };
        let report = accounts.report(&[("red".to_owned(), standing.clone())].into());
        assert_eq!((report[0].sessions, report[0].launches, report[0].refusals), (2, 15, 2));
        assert!((report[0].gpu_seconds - 2.0).abs() < 1e-9);
        assert_eq!(accounts.look("red", &[standing], "").sums.launches, 15);
        // Garbage of a worker does not overflow.
        let garbage = Sums { launches: u64::MAX, ..Sums::default() };
        assert_eq!(accounts.look("red", &[garbage], "").sums.launches, u64::MAX);
    }
}
