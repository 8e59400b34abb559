//! The memory quota of a VM (design D11): one page of shared memory, which the daemon and all workers of the VM map.
//!
//! Each worker has a slot and writes what its session holds there; the VM's use is the sum of the slots, so that the
//! daemon takes a dead worker's use away by clearing its slot. A worker that wants more takes the page's lock, adds the
//! slots up, and writes its new use only if the sum stays within the limit: two processes that race can never hold a
//! byte more than the limit, and neither is refused what fits. Giving back needs no lock.
//!
//! The lock is a word that holds the slot's number, and a futex. A worker that dies with it is found out by the daemon,
//! which has waited for the process and opens the lock in its name ([`Quota::clear`]). The daemon itself never takes it
//! and believes nothing that stands here: a worker whose guest has taken it over can spoil its own VM's page, which the
//! audit by NVML shows, and nobody else's.

mod grant;

use crate::page::{Page, Shared};
use grant::Grant;
pub use grant::Question;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sessions of one VM at once.
pub const SLOTS: usize = 1024;
/// How long a worker waits for the lock of its VM's page before it takes the answer to be no: the lock is held for
/// microseconds, unless a worker was stopped with it.
const PATIENCE: Duration = Duration::from_secs(5);
/// No limit.
const NONE: u64 = u64::MAX;

/// What device memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// `cuMemAlloc`, `cuMemAllocPitch`.
    Linear,
    /// Arrays and mipmapped arrays.
    Array,
    /// What pools have reserved.
    Pool,
    /// `cuMemCreate`.
    Physical,
    /// Allocation nodes of graphs.
    Graph,
    /// Other processes' memory, opened here.
    Imported,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Linear, Self::Array, Self::Pool, Self::Physical, Self::Graph, Self::Imported];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Array => "array",
            Self::Pool => "pool",
            Self::Physical => "physical",
            Self::Graph => "graph",
            Self::Imported => "imported",
        }
    }
}

/// The page.
#[derive(Debug)]
#[repr(C)]
pub struct Book {
    /// Bytes that the VM may hold. Written by the daemon.
    limit: AtomicU64,
    /// Streams that the VM may have. Written by the daemon.
    stream_limit: AtomicU64,
    /// 1 where the overhead of contexts counts. Written by the daemon.
    charges_context: AtomicU64,
    /// 0, or the number of the slot whose worker adds up, plus one.
    lock: AtomicU32,
    /// Workers that wait for the lock.
    waiting: AtomicU32,
    /// Slots below this number have been used. Written by the daemon.
    high: AtomicU64,
    /// What it may take of the device.
    grant: Grant,
    slots: [Slot; SLOTS],
}

/// What one session holds. A line of the cache and a half.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// The session, 0 for none. Written by the daemon.
    session: AtomicU64,
    /// Bytes that the guest process has limited itself to.
    own_limit: AtomicU64,
    /// Bytes allocated.
    used: AtomicU64,
    /// Most of them at any time.
    peak: AtomicU64,
    /// Bytes that the worker's contexts hold. Written by the daemon.
    context: AtomicU64,
    /// Streams.
    streams: AtomicU64,
    /// Allocations that were refused for the quota.
    refusals: AtomicU64,
    /// Bytes by [`Kind`].
    kinds: [AtomicU64; Kind::ALL.len()],
}

// SAFETY: `repr(C)`, atomics only.
unsafe impl Shared for Book {
    const NAME: &'static std::ffi::CStr = c"pxos-quota";
}

/// What a session holds, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated.
    pub used: u64,
    /// Most of them at any time.
    pub peak: u64,
    /// Bytes that contexts hold.
    pub context: u64,
    /// Streams.
    pub streams: u64,
    /// Allocations that were refused for the quota.
    pub refusals: u64,
    /// Bytes by [`Kind`].
    pub kinds: [u64; Kind::ALL.len()],
}

impl Usage {
    /// Adds another session's.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.used, other.used),
            (&mut self.peak, other.peak),
            (&mut self.context, other.context),
            (&mut self.streams, other.streams),
            (&mut self.refusals, other.refusals),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in self.kinds.iter_mut().zip(other.kinds) {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Slot {
    fn read(&self) -> Usage {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Usage {
            used: get(&self.used),
            peak: get(&self.peak),
            context: get(&self.context),
            streams: get(&self.streams),
            refusals: get(&self.refusals),
            kinds: std::array::from_fn(|kind| get(&self.kinds[kind])),
        }
    }

    fn reset(&self, session: u64, own_limit: u64) {
        for number in [&self.used, &self.peak, &self.context, &self.streams, &self.refusals] {
            number.store(0, Ordering::Relaxed);
        }
        self.kinds.iter().for_each(|number| number.store(0, Ordering::Relaxed));
        self.own_limit.store(own_limit, Ordering::Relaxed);
        self.session.store(session, Ordering::Release);
    }
}

/// The daemon's side of a VM's page.
#[derive(Debug)]
pub struct Quota {
    page: Page<Book>,
    fd: OwnedFd,
    taken: parking_lot::Mutex<Vec<bool>>,
}

impl Quota {
    /// A page without a limit.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create() -> std::io::Result<Self> {
        let (page, fd) = Page::<Book>::create()?;
        page.limit.store(NONE, Ordering::Relaxed);
        page.stream_limit.store(NONE, Ordering::Relaxed);
        page.grant.unlimited();
        Ok(Self { page, fd, taken: parking_lot::Mutex::default() })
    }

    /// The descriptor for a worker.
    #[must_use]
    pub fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// Sets what the VM may hold; it counts from the next allocation on. What it holds already stays.
    pub fn set_limits(&self, memory: Option<u64>, streams: Option<u32>, charges_context: bool) {
        self.page.limit.store(memory.unwrap_or(NONE), Ordering::Relaxed);
        self.page.stream_limit.store(streams.map_or(NONE, u64::from), Ordering::Relaxed);
        self.page.charges_context.store(charges_context.into(), Ordering::Relaxed);
    }

    /// A slot for a session that limits itself to `own_limit`; `None` where there are too many sessions.
    pub fn enter(&self, session: u64, own_limit: Option<u64>) -> Option<usize> {
        let mut taken = self.taken.lock();
        let free = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        if free >= SLOTS {
            return None;
        }
        if free == taken.len() {
            taken.push(false);
        }
        taken[free] = true;
        self.page.slots[free].reset(session, own_limit.unwrap_or(NONE));
        self.page.high.store(taken.len() as u64, Ordering::Release);
        Some(free)
    }

    /// Says what the contexts of a slot's worker hold, by the audit.
    pub fn set_context(&self, slot: usize, bytes: u64) {
        self.page.slots[slot].context.store(bytes, Ordering::Relaxed);
    }

    /// The session of that slot is over and its worker waited for: what it held is free, and so is the lock.
    pub fn clear(&self, slot: usize) -> Usage {
        let mut taken = self.taken.lock();
        let usage = self.page.slots[slot].read();
        self.page.slots[slot].reset(0, NONE);
        let holder = u32::try_from(slot + 1).expect("there are few slots");
        if self.page.lock.compare_exchange(holder, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.page.grant.forget();
            wake(&self.page.lock);
        }
        taken[slot] = false;
        usage
    }

    /// What the session of a slot holds.
    #[must_use]
    pub fn of(&self, slot: usize) -> Usage {
        self.page.slots[slot].read()
    }

    /// What counts of a session's or a VM's use against its limit.
    #[must_use]
    pub fn charged(&self, usage: &Usage) -> u64 {
        let charges = self.page.charges_context.load(Ordering::Relaxed) != 0;
        usage.used.saturating_add(if charges { usage.context } else { 0 })
    }

    /// What all sessions hold.
    #[must_use]
    pub fn total(&self) -> Usage {
        let mut total = Usage::default();
        for (slot, taken) in self.taken.lock().iter().enumerate() {
            if *taken {
                total.add(&self.page.slots[slot].read());
            }
        }
        total
    }
}

/// A worker's side: one slot of its VM's page.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    book: &'static Book,
    slot: &'static Slot,
    number: u32,
    /// Tells apart the threads of this process: the page's lock knows slots only.
    threads: &'static parking_lot::Mutex<()>,
    /// Has the daemon look at questions.
    bell: Option<&'static OwnedFd>,
}

/// There is not that much left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota;

impl Account {
    /// The slot of that number, which no other account of this process may be of; `None` where the page has none.
    #[must_use]
    pub fn of(book: &'static Book, slot: usize) -> Option<Self> {
        let number = u32::try_from(slot).ok()? + 1;
        let slot = book.slots.get(slot)?;
        // As the page, it stays for the life of the process.
        Some(Self { book, slot, number, threads: Box::leak(Box::default()), bell: None })
    }

    /// An account of nobody's, without a limit: for a worker that is not told of one.
    #[must_use]
    pub fn alone() -> Option<Self> {
        let (page, _) = Page::<Book>::create().ok()?;
        page.limit.store(NONE, Ordering::Relaxed);
        page.stream_limit.store(NONE, Ordering::Relaxed);
        page.grant.unlimited();
        page.high.store(1, Ordering::Relaxed);
        page.slots[0].own_limit.store(NONE, Ordering::Relaxed);
        Self::of(page.leak(), 0)
    }

    /// Takes `bytes` for `kind`, before the driver is asked.
    ///
    /// # Errors
    /// That the VM, or the process by its own wish, may not hold so much.
    pub fn reserve(&self, kind: Kind, bytes: u64) -> Result<(), OverQuota> {
        let taken = self.locked(|| {
            let own = self.slot.used.load(Ordering::Relaxed);
            let sum = self.sum_of(|slot, charges| {
                let context = if charges { slot.context.load(Ordering::Relaxed) } else { 0 };
                slot.used.load(Ordering::Relaxed).saturating_add(context)
            });
            let fits = |used: u64, limit: u64| used.checked_add(bytes).is_some_and(|after| after <= limit);
            let limit = self.book.limit.load(Ordering::Relaxed);
            if !fits(sum, limit) || !fits(own, self.slot.own_limit.load(Ordering::Relaxed)) {
                return Err(OverQuota);
            }
            self.take(kind, bytes)
        });
        taken.unwrap_or(Err(OverQuota))
    }

    /// Notes that the guest was refused memory for its quota.
    pub fn refused(&self) {
        self.slot.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes `bytes` that the driver has taken already, whatever the limit.
    pub fn add(&self, kind: Kind, bytes: u64) {
        self.slot.used.fetch_add(bytes, Ordering::Relaxed);
        self.note(kind, bytes);
    }

    /// What goes with `bytes` that are in the sum already.
    fn note(&self, kind: Kind, bytes: u64) {
        self.slot.kinds[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        self.slot.peak.fetch_max(self.slot.used.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub fn release(&self, kind: Kind, bytes: u64) {
        self.slot.kinds[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.slot.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes a stream.
    ///
    /// # Errors
    /// That the VM has as many as it may.
    pub fn open_stream(&self) -> Result<(), OverQuota> {
        let limit = self.book.stream_limit.load(Ordering::Relaxed);
        if limit == NONE {
            self.slot.streams.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let taken = self.locked(|| {
            if self.sum_of(|slot, _| slot.streams.load(Ordering::Relaxed)) >= limit {
                return Err(OverQuota);
            }
            self.slot.streams.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        taken.unwrap_or(Err(OverQuota))
    }

    /// Gives streams back.
    pub fn close_streams(&self, count: u64) {
        self.slot.streams.fetch_sub(count, Ordering::Relaxed);
    }

    /// What this session holds: bytes allocated, and the most of them at any time.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (self.slot.used.load(Ordering::Relaxed), self.slot.peak.load(Ordering::Relaxed))
    }

    /// Whether the session holds more than it may: a limit was lowered, or the driver took more than was asked for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        (self.left() == Some(0) || self.is_beyond_grant()) && self.reserve(Kind::Linear, 0).is_err()
    }

    /// Bytes that the session may hold, `None` for no limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let limit = self.book.limit.load(Ordering::Relaxed).min(self.slot.own_limit.load(Ordering::Relaxed));
        (limit != NONE).then_some(limit)
    }

    /// Bytes that the session may still take within its limits and of what no other VM is promised, `None` for no limit.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        self.left().into_iter().chain(self.room()).min()
    }

    /// Bytes that the session may still take within its limits, `None` for no limit.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        let sum = self.sum_of(|slot, charges| {
            let context = if charges { slot.context.load(Ordering::Relaxed) } else { 0 };
            slot.used.load(Ordering::Relaxed).saturating_add(context)
        });
        let left = |limit: u64, used: u64| if limit == NONE { NONE } else { limit.saturating_sub(used) };
        let of_vm = left(self.book.limit.load(Ordering::Relaxed), sum);
        let own = left(self.slot.own_limit.load(Ordering::Relaxed), self.slot.used.load(Ordering::Relaxed));
        let least = of_vm.min(own);
        (least != NONE).then_some(least)
    }

    fn sum_of(&self, of: impl Fn(&Slot, bool) -> u64) -> u64 {
        let charges = self.book.charges_context.load(Ordering::Relaxed) != 0;
        let high = usize::try_from(self.book.high.load(Ordering::Acquire)).unwrap_or(SLOTS).min(SLOTS);
        self.book.slots[..high].iter().map(|slot| of(slot, charges)).fold(0, u64::saturating_add)
    }

    /// Runs `work` while no other worker of the VM does; `None` where the lock does not come free.
    fn locked<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _threads = self.threads.lock();
        let lock = &self.book.lock;
        let start = Instant::now();
        let mut tries = 0_u32;
        while lock.compare_exchange_weak(0, self.number, Ordering::Acquire, Ordering::Relaxed).is_err() {
            tries += 1;
            if tries < 100 {
                std::hint::spin_loop();
                continue;
            }
            if start.elapsed() > PATIENCE {
                return None;
            }
            self.book.waiting.fetch_add(1, Ordering::SeqCst);
            let held = lock.load(Ordering::SeqCst);
            if held != 0 {
                wait(lock, held);
            }
            self.book.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        let result = work();
        // Not a plain store: had the daemon taken this process for dead, the lock would be another's by now.
        let _ = lock.compare_exchange(self.number, 0, Ordering::SeqCst, Ordering::Relaxed);
        if self.book.waiting.load(Ordering::SeqCst) > 0 {
            wake(lock);
        }
        Some(result)
    }
}

/// Sleeps while the word has this value, 10 ms at most.
fn wait(word: &AtomicU32, value: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    // SAFETY: a word of shared memory that stays mapped, and a time on the stack.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time);
    }
}

fn wake(word: &AtomicU32) {
    // SAFETY: a word of shared memory that stays mapped.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(quota: &Quota) -> &'static Book {
        Page::<Book>::map(&quota.fd.try_clone().unwrap()).unwrap().leak()
    }

    fn account(quota: &Quota, session: u64) -> (usize, Account) {
        let slot = quota.enter(session, None).unwrap();
        (slot, Account::of(book(quota), slot).unwrap())
    }

    #[test]
    fn the_sum_of_all_processes_is_bounded_to_the_byte() {
        let quota = Quota::create().unwrap();
        quota.set_limits(Some(100), None, false);
        let (one, first) = account(&quota, 1);
        let (_, second) = account(&quota, 2);
        assert_eq!(first.reserve(Kind::Linear, 60), Ok(()));
        assert_eq!(second.reserve(Kind::Pool, 41), Err(OverQuota));
        assert_eq!(second.reserve(Kind::Pool, 40), Ok(()));
        assert_eq!(second.reserve(Kind::Linear, 1), Err(OverQuota));
        assert_eq!(second.reserve(Kind::Linear, u64::MAX), Err(OverQuota));
        assert_eq!((first.left(), first.limit()), (Some(0), Some(100)));
        second.release(Kind::Pool, 10);
        assert_eq!(first.reserve(Kind::Array, 10), Ok(()));
        assert_eq!(quota.total().used, 100);
        // A limit that is lowered refuses, and takes nothing away.
        quota.set_limits(Some(50), None, false);
        assert!(first.is_over());
        assert_eq!(first.reserve(Kind::Linear, 0), Err(OverQuota));
        // The end of a process frees what it held.
        let held = quota.clear(one);
        assert_eq!((held.used, held.peak, held.kinds[Kind::Array as usize]), (70, 70, 10));
        assert_eq!(quota.total().used, 30);
        assert_eq!(second.left(), Some(20));
    }

    #[test]
    fn a_process_may_limit_itself_and_contexts_count_where_they_are_to() {
        let quota = Quota::create().unwrap();
        quota.set_limits(Some(1000), Some(2), true);
        let slot = quota.enter(7, Some(100)).unwrap();
        let account = Account::of(book(&quota), slot).unwrap();
        assert_eq!((account.limit(), account.left()), (Some(100), Some(100)));
        assert_eq!(account.reserve(Kind::Linear, 101), Err(OverQuota));
        let (of_other, other) = self::account(&quota, 8);
        quota.set_context(of_other, 950);
        assert_eq!(account.left(), Some(50));
        assert_eq!(account.reserve(Kind::Linear, 51), Err(OverQuota));
        quota.set_limits(Some(1000), Some(2), false);
        assert_eq!(account.left(), Some(100));
        assert_eq!((account.open_stream(), other.open_stream()), (Ok(()), Ok(())));
        assert_eq!(account.open_stream(), Err(OverQuota));
        other.close_streams(1);
        assert_eq!(account.open_stream(), Ok(()));
    }

    #[test]
    fn a_worker_that_dies_with_the_lock_holds_up_nobody() {
        let quota = Quota::create().unwrap();
        quota.set_limits(Some(100), None, false);
        let (dead, _) = account(&quota, 1);
        let (_, living) = account(&quota, 2);
        quota.page.lock.store(u32::try_from(dead + 1).unwrap(), Ordering::Relaxed);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| living.reserve(Kind::Linear, 100));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!waiting.is_finished());
            quota.clear(dead);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn an_account_that_waits_holds_up_no_other() {
        let (stuck, free) = (Quota::create().unwrap(), Quota::create().unwrap());
        let (_, waits) = account(&stuck, 1);
        let (dead, _) = account(&stuck, 2);
        let (_, other) = account(&free, 3);
        stuck.page.lock.store(u32::try_from(dead + 1).unwrap(), Ordering::Relaxed);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waits.reserve(Kind::Linear, 1));
            while stuck.page.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            // A process that was forked now would find everything locked that this thread holds.
            let start = Instant::now();
            assert_eq!(other.reserve(Kind::Linear, 1), Ok(()));
            let took = start.elapsed();
            stuck.clear(dead);
            assert_eq!(waiting.join().unwrap(), Ok(()));
            assert!(took < PATIENCE / 2, "{took:?}");
        });
    }

    #[test]
    fn processes_that_race_never_hold_more_and_are_never_refused_what_fits() {
        // Real processes: threads of one would be told apart by more than the page.
        let quota = Quota::create().unwrap();
        quota.set_limits(Some(1000), None, false);
        let accounts: Vec<Account> = (1..=4).map(|session| account(&quota, session).1).collect();
        let children: Vec<i32> = accounts
            .iter()
            .map(|account| {
                // SAFETY: the child calls nothing but this page's functions, which allocate nothing, and `_exit`.
                match unsafe { libc::fork() } {
                    0 => {
                        let mut wrong = 0;
                        for _ in 0..20_000 {
                            // Four times 250 is what fits, whoever comes first.
                            if account.reserve(Kind::Linear, 250).is_err() {
                                wrong = 1;
                            }
                            if account.reserve(Kind::Linear, 751).is_ok() {
                                wrong = 2;
                            }
                            account.release(Kind::Linear, 250);
                        }
                        // SAFETY: ends the child.
                        unsafe { libc::_exit(wrong) }
                    }
                    child => child,
                }
            })
            .collect();
        for child in children {
            let mut status = 0;
            // SAFETY: a child of ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "1: refused what fits, 2: given too much (in the second byte)");
        }
        assert_eq!(quota.total().used, 0);
    }
}
