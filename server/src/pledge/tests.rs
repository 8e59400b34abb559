//! The daemon's decision against real pages and real accounts: exact where one asks after the other, never over and never
//! below a promise where processes race.

use super::*;
use crate::page::Page;
use crate::quota::{Account, Book, Kind};
use proptest::prelude::*;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of each device. Far below [`CHUNK`], so that whoever asks gets all there is, and others take it back.
const DEVICE: u64 = 1000;
const CAPACITY: [u64; 2] = [DEVICE; 2];

fn account(quota: &Quota, session: u64) -> Account {
    let page = Page::<Book>::map(&quota.descriptor().as_fd().try_clone_to_owned().unwrap()).unwrap();
    Account::of(page.leak(), quota.enter(session, None).unwrap()).unwrap()
}

/// VMs on two devices: three share the first.
struct Host {
    quotas: Vec<Quota>,
    minima: Mutex<Vec<u64>>,
    pledges: Mutex<Pledges>,
}

const DEVICES: [&[usize]; 4] = [&[0], &[0], &[0], &[1]];

impl Host {
    fn new(minima: [u64; 4]) -> Self {
        let quotas = DEVICES.map(|_| Quota::create().unwrap()).into();
        let host = Self { quotas, minima: Mutex::new(minima.to_vec()), pledges: Mutex::default() };
        host.settle(true);
        host
    }

    fn settle(&self, changed: bool) {
        let mut pledges = self.pledges.lock().unwrap();
        let minima = self.minima.lock().unwrap().clone();
        let all = self.quotas.iter().zip(minima).zip(DEVICES).zip(1..);
        let parties: Vec<Party<'_>> =
            all.map(|(((quota, minimum), devices), vm)| Party { vm, quota, minimum, devices }).collect();
        pledges.settle(&parties, &CAPACITY, changed);
    }

    /// Runs `work` while somebody answers questions.
    fn answering<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.settle(false);
                    std::thread::yield_now();
                }
            });
            // Also where it panics.
            let _stop = Stop(&over);
            work()
        })
    }
}

/// What a VM could hold beside what the others hold and are promised: the definition.
fn allowed(vm: usize, used: &[u64; 4], minima: &[u64]) -> u64 {
    let beside = |other: &usize| *other != vm && DEVICES[*other] == DEVICES[vm];
    let neighbours = || (0..4).filter(beside);
    if minima[vm] == 0 && neighbours().all(|other| minima[other] == 0) {
        return u64::MAX;
    }
    let claims: u64 = neighbours().map(|other| used[other].max(minima[other])).sum();
    DEVICE.saturating_sub(claims).max(minima[vm])
}

#[derive(Clone, Debug)]
enum Step {
    /// A VM takes so many bytes, and may look before how many there are.
    Take(usize, u64, bool),
    Free(usize),
    Promise(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, 1..500_u64, any::<bool>()).prop_map(|(vm, bytes, looks)| Step::Take(vm, bytes, looks)),
        3 => (0..4_usize).prop_map(Step::Free),
        1 => (0..3_usize, 0..500_u64).prop_map(|(vm, bytes)| Step::Promise(vm, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn who_asks_gets_what_is_neither_held_nor_promised_and_no_more(
        first in prop::array::uniform3(0..330_u64),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut minima = [first[0], first[1], first[2], 0];
        let host = Host::new(minima);
        let accounts: Vec<Account> = host.quotas.iter().zip(1..).map(|(quota, at)| account(quota, at)).collect();
        let mut used = [0_u64; 4];
        let mut held: [Vec<u64>; 4] = Default::default();
        host.answering(|| {
            for step in steps {
                match step {
                    Step::Take(vm, bytes, looks) => {
                        let may = allowed(vm, &used, &minima);
                        let free = may.saturating_sub(used[vm]);
                        if looks && may != u64::MAX {
                            prop_assert_eq!(accounts[vm].free(), Some(free), "{:?} {:?}", used, minima);
                        }
                        let taken = accounts[vm].reserve(Kind::Linear, bytes).is_ok();
                        prop_assert_eq!(taken, used[vm] + bytes <= may, "{} of {}: {:?} {:?}", bytes, may, used, minima);
                        if taken {
                            used[vm] += bytes;
                            held[vm].push(bytes);
                        }
                    }
                    Step::Free(vm) => {
                        if let Some(bytes) = held[vm].pop() {
                            accounts[vm].release(Kind::Linear, bytes);
                            used[vm] -= bytes;
                        }
                    }
                    Step::Promise(vm, bytes) => {
                        let others: u64 = minima.iter().sum::<u64>() - minima[vm];
                        minima[vm] = bytes.min(DEVICE - others.min(DEVICE));
                        *host.minima.lock().unwrap() = minima.to_vec();
                        host.settle(true);
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn without_promises_nobody_asks() {
    let host = Host::new([0; 4]);
    // Nobody answers here.
    let alone = account(&host.quotas[0], 1);
    assert_eq!(alone.reserve(Kind::Linear, u64::MAX - 1), Ok(()));
    assert_eq!((alone.free(), host.quotas[0].question()), (None, None));
    // The neighbours of the other device are none of its.
    *host.minima.lock().unwrap() = vec![0, 0, 0, 10];
    host.settle(true);
    assert_eq!(alone.free(), None);
}

#[test]
fn what_is_held_when_a_promise_is_made_stays_and_is_owed() {
    let host = Host::new([0; 4]);
    let (holder, late) = (account(&host.quotas[0], 1), account(&host.quotas[1], 2));
    holder.reserve(Kind::Linear, 900).unwrap();
    *host.minima.lock().unwrap() = vec![0, 400, 0, 0];
    host.settle(true);
    host.answering(|| {
        // What is freed is owed, and not its holder's any more, whether it looks or not.
        holder.release(Kind::Linear, 10);
        assert!(holder.reserve(Kind::Linear, 10).is_err(), "290 bytes of the promise are owed");
        assert_eq!(holder.free(), Some(0));
        holder.release(Kind::Linear, 340);
        assert_eq!(holder.reserve(Kind::Linear, 50), Ok(()));
        assert_eq!(holder.free(), Some(0));
        // Never more than it could have by now, though it held more.
        assert!(holder.reserve(Kind::Linear, 1).is_err());
        assert_eq!(late.reserve(Kind::Linear, 400), Ok(()));
        assert!(late.reserve(Kind::Linear, 1).is_err());
    });
}

#[test]
fn what_is_taken_while_a_grant_is_taken_back_stays_granted() {
    let quota = Quota::create().unwrap();
    let worker = account(&quota, 1);
    let party = Party { vm: 1, quota: &quota, minimum: 0, devices: &[0] };
    let mut pledges = Pledges::default();
    pledges.raise(&party, 100);
    // The worker takes some of it between the daemon's first look and the new grant, of which it sees nothing.
    let first = std::cell::Cell::new(true);
    pledges.reclaim(&party, &CAPACITY, |quota| {
        let claimed = quota.claimed();
        if first.replace(false) {
            assert_eq!(worker.reserve(Kind::Linear, 60), Ok(()));
        }
        claimed
    });
    assert_eq!((pledges.of(&party), quota.held()), (60, 60));
}

#[test]
fn a_page_that_lies_takes_nothing_that_is_promised() {
    let host = Host::new([0, 400, 0, 0]);
    let (liar, honest) = (account(&host.quotas[0], 1), account(&host.quotas[1], 2));
    // Its worker belongs to its guest: it writes that it holds everything.
    liar.add(Kind::Linear, u64::MAX / 2);
    host.settle(true);
    host.answering(|| assert_eq!(honest.reserve(Kind::Linear, 400), Ok(())));
}

/// Numbers that processes share.
fn shared() -> &'static [AtomicU64; 4] {
    // SAFETY: fresh memory, shared with the children, for the life of the process.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED);
    // SAFETY: page-aligned zeros, which are atomics.
    unsafe { &*address.cast() }
}

/// What a child does: takes 150 bytes, which its VM is promised where `promised`, tries for more where `greedy`, and gives all
/// back. Its exit code says what was wrong.
fn child(account: &Account, device: &AtomicU64, promised: bool, greedy: bool) -> i32 {
    let hold = |bytes: u64| device.fetch_add(bytes, Ordering::SeqCst) + bytes <= DEVICE;
    let drop = |bytes: u64| {
        device.fetch_sub(bytes, Ordering::SeqCst);
        account.release(Kind::Linear, bytes);
    };
    for _ in 0..5000 {
        let has = account.reserve(Kind::Linear, 150).is_ok();
        if !has && promised {
            return 1;
        }
        if has && !hold(150) {
            return 2;
        }
        if greedy && account.reserve(Kind::Pool, 400).is_ok() {
            if !hold(400) {
                return 3;
            }
            drop(400);
        }
        if has {
            drop(150);
        }
    }
    0
}

#[test]
fn vms_that_race_never_hold_too_much_and_are_never_refused_their_promise() {
    // Two processes of the first VM take what it is promised between them. The second has one, which takes more where there
    // is more: where a VM holds more than its promise, its next process may be refused. The third is promised nothing.
    let host = Host::new([300, 150, 0, 0]);
    let device = &shared()[0];
    let processes = [(0, true, false), (0, true, false), (1, true, true), (2, false, true), (2, false, true)];
    let accounts = processes.map(|process| (process, account(&host.quotas[process.0], 1)));
    let children: Vec<i32> = accounts
        .iter()
        .map(|((_, promised, greedy), account)| {
            // SAFETY: the child touches shared pages and its own memory, allocates nothing, and ends by `_exit`.
            match unsafe { libc::fork() } {
                0 => {
                    // Where the test fails, nobody answers any more.
                    // SAFETY: plain numbers.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                    let wrong = child(account, device, *promised, *greedy);
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(wrong) }
                }
                child => child,
            }
        })
        .collect();
    host.answering(|| {
        for child in children {
            let mut status = 0;
            // SAFETY: a child of ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status >> 8, 0, "1: refused what was promised, 2 and 3: more than the device has");
            assert_eq!(status, 0);
        }
    });
    assert_eq!(device.load(Ordering::SeqCst), 0);
    assert!(host.quotas.iter().all(|quota| quota.total().used == 0));
}
