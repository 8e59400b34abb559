//! The part of the device that a VM may take while other VMs are promised some of it (`memory_min`).
//!
//! A VM's page then says how many bytes it has been *granted*, and its workers take no more without asking: they write
//! what they want the VM to hold, ring the daemon's bell, and wait for its answer. The daemon alone adds up over VMs
//! ([`crate::pledge`]), so that no VM's workers see another's page. Where nobody is promised anything, everything is
//! granted and nobody asks.
//!
//! The daemon takes back what a VM does not use while that VM's workers run. Who takes memory writes its use and then reads
//! the grant again; who takes a grant back writes the grant and then reads the use again. In whatever order these four
//! happen, one of the two sees the other: the worker gives the memory back and asks, or the daemon leaves the grant. This
//! needs one order of all four, hence `SeqCst`.

use super::{Account, Kind, NONE, OverQuota, PATIENCE, Quota, wait, wake};
use crate::scheduler::page::ring;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// How often a worker asks anew because what it was granted was taken back before it was used: each time, another VM has
/// got it in its turn.
const TRIES: usize = 100;

/// What a VM's page says of it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Grant {
    /// Bytes that the VM's sessions may hold together without asking. Written by the daemon.
    granted: AtomicU64,
    /// Bytes that a worker wants them to hold, 0 for none. Written by the worker that has the page's lock.
    wanted: AtomicU64,
    /// Bytes that they could hold, as of the last answer. Written by the daemon.
    ceiling: AtomicU64,
    /// 1 where workers have to ask whatever is granted, since more is promised than can be had. Written by the daemon.
    owing: AtomicU32,
    /// Number of the last question. Written by the worker that has the page's lock.
    asked: AtomicU32,
    /// Number of the last question that is answered. Written by the daemon.
    answered: AtomicU32,
}

impl Grant {
    pub(super) fn unlimited(&self) {
        self.granted.store(NONE, Ordering::SeqCst);
    }

    /// The worker that has asked is dead.
    pub(super) fn forget(&self) {
        self.wanted.store(0, Ordering::SeqCst);
    }
}

/// What a worker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    number: u32,
    /// Bytes that it wants its VM to hold; 0 where it only asks how many there are to be had.
    pub wanted: u64,
}

impl Quota {
    /// The question that is not answered yet.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        let grant = &self.page.grant;
        let number = grant.asked.load(Ordering::SeqCst);
        (number != grant.answered.load(Ordering::SeqCst))
            .then(|| Question { number, wanted: grant.wanted.load(Ordering::SeqCst) })
    }

    /// Answers: what the VM could hold; what it may is [`Self::grant`]ed before.
    pub fn answer(&self, question: Question, ceiling: u64) {
        let grant = &self.page.grant;
        grant.ceiling.store(ceiling, Ordering::SeqCst);
        grant.answered.store(question.number, Ordering::SeqCst);
        wake(&grant.answered);
    }

    /// Grants the VM so many bytes; `None` for as many as there are.
    pub fn grant(&self, bytes: Option<u64>) {
        self.page.grant.granted.store(bytes.unwrap_or(NONE), Ordering::SeqCst);
    }

    /// Says whether its workers have to ask whatever is granted.
    pub fn set_owing(&self, owing: bool) {
        self.page.grant.owing.store(owing.into(), Ordering::SeqCst);
    }

    /// What the VM holds, or is about to take of what it was granted.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        let held = self.held();
        held.max(self.page.grant.wanted.load(Ordering::SeqCst))
    }

    /// What the VM holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        let taken = self.taken.lock();
        let slots = self.page.slots.iter().zip(&*taken).filter(|(_, taken)| **taken);
        slots.map(|(slot, _)| slot.used.load(Ordering::SeqCst)).fold(0, u64::saturating_add)
    }
}

impl Account {
    /// Takes `bytes` of what the VM is granted, and asks for more where that is not enough. Under the page's lock.
    pub(super) fn take(&self, kind: Kind, bytes: u64) -> Result<(), OverQuota> {
        let grant = &self.book.grant;
        let mut asked = false;
        let mut taken = Err(OverQuota);
        for _ in 0..TRIES {
            let after = self.held().checked_add(bytes).ok_or(OverQuota)?;
            if after > grant.granted.load(Ordering::SeqCst) || grant.owing.load(Ordering::SeqCst) != 0 {
                asked = true;
                if self.ask(after).is_err() || after > grant.granted.load(Ordering::SeqCst) {
                    break;
                }
            }
            if self.add_within(kind, bytes) {
                taken = Ok(());
                break;
            }
        }
        if asked {
            grant.wanted.store(0, Ordering::SeqCst);
        }
        taken
    }

    /// Adds `bytes`, unless what was granted has been taken back at this moment, since nobody used it yet; whether they stay.
    fn add_within(&self, kind: Kind, bytes: u64) -> bool {
        self.slot.used.fetch_add(bytes, Ordering::SeqCst);
        let granted = self.book.grant.granted.load(Ordering::SeqCst);
        let stays = granted == NONE || self.held() <= granted;
        if stays {
            self.note(kind, bytes);
        } else {
            self.slot.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        stays
    }

    /// Bytes that the VM may still take of what others are not promised; `None` where nobody is promised any.
    pub(super) fn room(&self) -> Option<u64> {
        let grant = &self.book.grant;
        if grant.granted.load(Ordering::SeqCst) == NONE {
            return None;
        }
        let asked = self.locked(|| self.ask(0)).unwrap_or(Err(OverQuota));
        let ceiling = match asked {
            Ok(()) => grant.ceiling.load(Ordering::SeqCst),
            Err(OverQuota) => grant.granted.load(Ordering::SeqCst),
        };
        Some(ceiling.saturating_sub(self.held()))
    }

    /// Whether the VM holds more than it is granted.
    pub(super) fn is_beyond_grant(&self) -> bool {
        self.held() > self.book.grant.granted.load(Ordering::SeqCst)
    }

    fn held(&self) -> u64 {
        self.sum_of(|slot, _| slot.used.load(Ordering::SeqCst))
    }

    /// Asks the daemon and waits for its answer. Under the page's lock, so that one asks at a time.
    fn ask(&self, wanted: u64) -> Result<(), OverQuota> {
        let grant = &self.book.grant;
        grant.wanted.store(wanted, Ordering::SeqCst);
        let number = grant.asked.load(Ordering::SeqCst).wrapping_add(1);
        grant.asked.store(number, Ordering::SeqCst);
        if let Some(bell) = self.bell {
            ring(bell);
        }
        let start = Instant::now();
        loop {
            let answered = grant.answered.load(Ordering::SeqCst);
            if answered == number {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(OverQuota);
            }
            wait(&grant.answered, answered);
        }
    }

    /// The account with the bell that has the daemon look at questions.
    #[must_use]
    pub fn with_bell(self, bell: OwnedFd) -> Self {
        Self { bell: Some(Box::leak(Box::new(bell))), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use crate::quota::Book;
    use std::os::fd::AsFd;

    fn account(quota: &Quota) -> Account {
        let fd = quota.descriptor().as_fd().try_clone_to_owned().unwrap();
        Account::of(Page::<Book>::map(&fd).unwrap().leak(), quota.enter(1, None).unwrap()).unwrap()
    }

    #[test]
    fn what_is_taken_back_between_a_look_and_the_taking_is_not_held() {
        let quota = Quota::create().unwrap();
        let account = account(&quota);
        quota.grant(Some(100));
        assert!(account.add_within(Kind::Linear, 40));
        // The worker has seen 100; the daemon has seen that 40 are used.
        quota.grant(Some(40));
        assert!(!account.add_within(Kind::Linear, 60));
        assert_eq!((quota.total().used, quota.total().peak, quota.total().kinds[0]), (40, 40, 40));
        assert!(!account.is_beyond_grant());
        quota.grant(Some(39));
        assert!(account.is_beyond_grant());
    }

    #[test]
    fn what_a_dead_worker_wanted_is_nobodys() {
        let quota = Quota::create().unwrap();
        let dead = account(&quota);
        quota.grant(Some(0));
        std::thread::scope(|scope| {
            // It dies while it asks, with the lock: nobody answers.
            let asking = scope.spawn(|| dead.reserve(Kind::Linear, 10));
            while quota.question().is_none() {
                std::thread::yield_now();
            }
            assert_eq!((quota.question().unwrap().wanted, quota.claimed()), (10, 10));
            quota.clear(0);
            assert_eq!(quota.claimed(), 0);
            // The thread that stands for it goes on, and is refused.
            quota.answer(quota.question().unwrap(), 0);
            assert_eq!(asking.join().unwrap(), Err(OverQuota));
        });
    }
}
