//! Sums since the daemon started.

use super::refusal::Reason;
use parking_lot::Mutex;
use pxos_protocol::admin::{self, Counters};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Totals {
    connections: AtomicU64,
    sessions: AtomicU64,
    probes: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    ended: Mutex<Ended>,
}

/// Of sessions that ended.
#[derive(Debug, Default)]
struct Ended {
    by_reason: BTreeMap<&'static str, u64>,
    sums: admin::Totals,
}

impl Totals {
    /// A connection was accepted.
    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A session began.
    pub(super) fn session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// It did not, after all.
    pub(super) fn no_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// A probe was answered.
    pub(super) fn probe(&self) {
        self.probes.fetch_add(1, Ordering::Relaxed);
    }

    /// A hello was refused.
    pub(super) fn refused(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A session ended; what its worker counted may be anything.
    pub(super) fn ended(&self, reason: &'static str, counters: &Counters) {
        let mut ended = self.ended.lock();
        *ended.by_reason.entry(reason).or_default() += 1;
        let sums = &mut ended.sums;
        for (sum, more) in [
            (&mut sums.messages_sync, counters.messages_sync),
            (&mut sums.messages_async, counters.messages_async),
            (&mut sums.launches, counters.launches),
            (&mut sums.bytes_in, counters.bytes_in),
            (&mut sums.bytes_out, counters.bytes_out),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// Now.
    pub(super) fn view(&self) -> admin::Totals {
        let ended = self.ended.lock();
        let refused = Reason::ALL
            .into_iter()
            .map(|reason| (reason.name().to_owned(), self.refused[reason as usize].load(Ordering::Relaxed)));
        admin::Totals {
            connections: self.connections.load(Ordering::Relaxed),
            sessions: self.sessions.load(Ordering::Relaxed),
            probes: self.probes.load(Ordering::Relaxed),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            ended: ended.by_reason.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            ..ended.sums.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_grow_and_do_not_overflow() {
        let totals = Totals::default();
        totals.connection();
        totals.session();
        totals.probe();
        totals.refused(Reason::Version);
        let counters = Counters { messages_sync: u64::MAX, launches: 2, ..Counters::default() };
        totals.ended("closed", &counters);
        totals.ended("closed", &counters);
        let view = totals.view();
        assert_eq!((view.connections, view.sessions, view.probes), (1, 1, 1));
        assert_eq!(view.refused, [("version".to_owned(), 1)].into());
        assert_eq!(view.ended, [("closed".to_owned(), 2)].into());
        assert_eq!((view.messages_sync, view.launches), (u64::MAX, 4));
    }
}
