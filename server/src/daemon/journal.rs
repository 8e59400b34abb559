//! What happened lately, for operators who follow it (`pxctl events`): the last events, numbered, and a way to wait.

use parking_lot::{Condvar, Mutex};
use pxos_protocol::admin::Event;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events kept: a follower who is further behind has missed some, which the numbers show.
const KEPT: usize = 4096;

/// The last events.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kept: Mutex<Kept>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    last: u64,
}

impl Journal {
    /// Notes an event.
    pub(super) fn note(&self, kind: &str, vm: Option<&str>, session: Option<u64>, text: String) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut kept = self.kept.lock();
        kept.last += 1;
        let number = kept.last;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Event {
            number,
            time: u64::try_from(time).unwrap_or(u64::MAX),
            kind: kind.to_owned(),
            vm: vm.map(str::to_owned),
            session,
            text,
        });
        drop(kept);
        self.more.notify_all();
    }

    /// Events after number `since`, oldest first.
    pub(super) fn after(&self, since: u64) -> Vec<Event> {
        self.kept.lock().events.iter().filter(|event| event.number > since).cloned().collect()
    }

    /// As [`Self::after`], once there are any; nothing where `patience` is over before.
    pub(super) fn wait(&self, since: u64, patience: Duration) -> Vec<Event> {
        let mut kept = self.kept.lock();
        if kept.last <= since {
            self.more.wait_for(&mut kept, patience);
        }
        drop(kept);
        self.after(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_and_the_oldest_go() {
        let journal = Journal::default();
        for index in 0..KEPT + 3 {
            journal.note("vm", Some("red"), None, index.to_string());
        }
        assert_eq!(journal.after(0).len(), KEPT);
        assert_eq!(journal.after(0)[0].number, 4);
        let last = journal.after(KEPT as u64 + 2);
        assert_eq!((last.len(), last[0].text.as_str()), (1, "4098"));
        assert!(journal.wait(last[0].number, Duration::from_millis(1)).is_empty());
    }
}
