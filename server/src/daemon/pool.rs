//! The pool: workers that have the driver initialised and wait for a session, and the guests that wait for a worker.
//!
//! A worker sees the devices that it was started with, so each set of devices ([`Visible`]) that some VM is to see has
//! workers of its own: `pool.size` of them wait.
//!
//! One thread starts workers (`run`); each worker has a watcher ([`super::watch`]) that tells the pool when it is
//! ready and when it is not. Guests are served in the order in which they came.

use super::driver::Candidate;
use super::process::{Launch, Phase, Visible, Worker};
use crate::config;
use parking_lot::{Condvar, Mutex};
use pxos_protocol::control::Snapshot;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Workers that start at once: initialising the driver is slow, and slower when many do it together.
const STARTING_MAX: usize = 4;
/// After a failure the next worker waits this long, and twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Failures in a row after which guests are told rather than kept waiting.
const HOPELESS: u32 = 3;
/// How often a waiting guest is looked at: one that has gone needs no worker.
const LOOK: Duration = Duration::from_secs(1);

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    size: usize,
    rest: Duration,
    /// Workers that were handed out, and until when their guests are not to be disturbed.
    fresh: Vec<(u32, Instant)>,
    /// Sets of devices for which workers are kept: all, and those of VMs.
    kept: Vec<Visible>,
    closed: bool,
    /// The driver in use, or the one that is being tried.
    driver: Option<Candidate>,
    /// Drivers to try where that one fails before any worker was ready.
    untried: VecDeque<Candidate>,
    /// What the drivers said that failed.
    tried: Vec<String>,
    /// Why there is no other driver to try.
    missing: Option<String>,
    snapshot: Option<Arc<Snapshot>>,
    starting: Vec<Arc<Worker>>,
    /// Workers between the decision to start them and the process.
    launching: Vec<Visible>,
    warm: VecDeque<Arc<Worker>>,
    /// Tickets of guests, and what their workers have to see.
    waiting: VecDeque<(u64, Visible)>,
    next_ticket: u64,
    /// How starts go lately, for each set of devices: one device may be broken, and the others good.
    starts: BTreeMap<Visible, Starts>,
    failures: u64,
    last_failure: Option<String>,
}

#[derive(Debug, Default)]
struct Starts {
    failures_in_row: u32,
    not_before: Option<Instant>,
}

/// What the start of the first worker led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is a driver; `fallback` says why it is not the GPU's where one was hoped for.
    Decided {
        /// The driver's path or name.
        driver: PathBuf,
        /// Why it is not the first choice.
        fallback: Option<String>,
    },
    /// No driver works; one line that says why for each.
    Hopeless(String),
}

/// Why a guest gets no worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoWorker {
    /// The daemon ends.
    #[error("the server is shutting down")]
    Closed,
    /// None was ready in time.
    #[error("no worker became ready within {0:?}")]
    Timeout(Duration),
    /// Workers cannot be started.
    #[error("no worker can be started: {0}")]
    Failing(String),
    /// The guest does not wait any more.
    #[error("the guest has gone")]
    Gone,
}

/// The pool at one moment, for the status.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) size: usize,
    pub(super) warm: Vec<Arc<Worker>>,
    pub(super) starting: usize,
    pub(super) waiting: usize,
    pub(super) failures: u64,
    pub(super) last_failure: Option<String>,
    pub(super) driver: Option<Candidate>,
    pub(super) fallback: Option<String>,
}

impl Pool {
    /// An empty pool that will hold workers of the first of `candidates` that works; `missing` says why there are no more of
    /// these.
    pub(super) fn new(config: &config::Pool, candidates: Vec<Candidate>, missing: Option<String>) -> Self {
        let mut untried = VecDeque::from(candidates);
        let state = State {
            size: config.size,
            rest: config.rest,
            fresh: Vec::new(),
            kept: vec![Visible::ALL],
            closed: false,
            driver: untried.pop_front(),
            untried,
            tried: Vec::new(),
            missing,
            snapshot: None,
            starting: Vec::new(),
            launching: Vec::new(),
            warm: VecDeque::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
            starts: BTreeMap::new(),
            failures: 0,
            last_failure: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Starts workers as long as the pool is open; each is passed to `watch`, and what settles the driver to `tell`. The thread
    /// that calls this must live as long as the workers do.
    pub(super) fn run(
        &self,
        launch: impl Fn() -> Launch,
        watch: impl Fn(Arc<Worker>, Child),
        tell: impl Fn(Outcome),
    ) {
        while let Some((driver, visible)) = self.next_start() {
            match Worker::start(&launch(), &driver, visible.clone()) {
                Ok((worker, child)) => {
                    let worker = Arc::new(worker);
                    let mut state = self.state.lock();
                    state.launched(&visible);
                    state.starting.push(Arc::clone(&worker));
                    if state.closed {
                        worker.kill();
                    }
                    drop(state);
                    watch(worker, child);
                }
                Err(error) => {
                    self.state.lock().launched(&visible);
                    let message = format!("a worker process cannot be started: {error}");
                    if let Some(outcome) = self.failed(None, &visible, &message) {
                        tell(outcome);
                    }
                }
            }
        }
    }

    /// Waits until a worker should be started: the driver that it opens, and the devices that it is to see. `None` once the
    /// pool is closed.
    fn next_start(&self) -> Option<(PathBuf, Visible)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let driver = state.driver.as_ref().map(|driver| driver.path.clone());
            match (state.next(Instant::now()), driver) {
                (Next::Start(visible), Some(driver)) => {
                    state.launching.push(visible.clone());
                    return Some((driver, visible));
                }
                (Next::Wait(time), _) => {
                    self.changed.wait_until(&mut state, time);
                }
                _ => self.changed.wait(&mut state),
            }
        }
    }

    /// A worker says that it is ready. Returns an outcome if it is the first.
    pub(super) fn ready(&self, worker: &Arc<Worker>, snapshot: Snapshot) -> Option<Outcome> {
        let mut state = self.state.lock();
        state.starting.retain(|other| other.pid != worker.pid);
        state.starts.remove(&worker.visible);
        let first = state.snapshot.is_none();
        if worker.visible == Visible::ALL {
            state.snapshot = Some(Arc::new(snapshot));
        }
        if state.closed {
            worker.kill();
        } else {
            *worker.phase.lock() = Phase::Warm;
            state.warm.push_back(Arc::clone(worker));
        }
        self.changed.notify_all();
        first.then(|| Outcome::Decided {
            driver: state.driver.as_ref().expect("a worker started with it").path.clone(),
            fallback: state.fallback(),
        })
    }

    /// A worker died or failed before it was ready (`None`: before it was a process). Returns an outcome if that settles
    /// the choice of the driver.
    pub(super) fn failed(
        &self,
        worker: Option<&Worker>,
        visible: &Visible,
        message: &str,
    ) -> Option<Outcome> {
        let mut state = self.state.lock();
        if let Some(worker) = worker {
            state.starting.retain(|other| other.pid != worker.pid);
        }
        self.changed.notify_all();
        if state.closed {
            return None;
        }
        state.failures += 1;
        state.last_failure = Some(message.to_owned());
        if state.snapshot.is_some() {
            let starts = state.starts.entry(visible.clone()).or_default();
            starts.failures_in_row += 1;
            let pause = FIRST_PAUSE * 2u32.saturating_pow((starts.failures_in_row - 1).min(10));
            starts.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
            return None;
        }
        // Nothing was ever ready (and one starts at a time until then): the driver is not to be used.
        let name = state.driver.take().map(|driver| driver.path.display().to_string()).unwrap_or_default();
        let names_it = message.contains(&name);
        state.tried.push(if names_it { message.to_owned() } else { format!("{name}: {message}") });
        state.driver = state.untried.pop_front();
        if state.driver.is_none() {
            state.closed = true;
            let missing = state.missing.take();
            state.tried.extend(missing);
            return Some(Outcome::Hopeless(state.tried.join("; ")));
        }
        None
    }

    /// A worker that was ready died before it had a session.
    pub(super) fn died(&self, worker: &Worker, message: &str) {
        let mut state = self.state.lock();
        state.warm.retain(|other| other.pid != worker.pid);
        state.failures += 1;
        state.last_failure = Some(message.to_owned());
        // If the next one dies as well, it is not at once.
        state.starts.entry(worker.visible.clone()).or_default().not_before = Some(Instant::now() + LOOK);
        self.changed.notify_all();
    }

    /// A warm worker that sees these devices, as soon as there is one for this guest, whom `gone` says to have given up.
    pub(super) fn take(
        &self,
        visible: &Visible,
        timeout: Duration,
        gone: impl Fn() -> bool,
    ) -> Result<Arc<Worker>, NoWorker> {
        let mut state = self.state.lock();
        let deadline = Instant::now() + timeout;
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back((ticket, visible.clone()));
        self.changed.notify_all();
        let result = loop {
            if state.closed {
                break Err(NoWorker::Closed);
            }
            let first = state.waiting.iter().find(|(_, other)| other == visible).map(|(first, _)| *first);
            if first == Some(ticket)
                && let Some(at) = state.warm.iter().position(|worker| worker.visible == *visible)
                && let Some(worker) = state.warm.remove(at)
            {
                let until = Instant::now() + state.rest;
                state.fresh.push((worker.pid, until));
                break Ok(worker);
            }
            if state.starts.get(visible).is_some_and(|starts| starts.failures_in_row >= HOPELESS) {
                break Err(NoWorker::Failing(state.last_failure.clone().unwrap_or_default()));
            }
            let now = Instant::now();
            if now >= deadline {
                break Err(NoWorker::Timeout(timeout));
            }
            if self.changed.wait_until(&mut state, deadline.min(now + LOOK)).timed_out() && gone() {
                break Err(NoWorker::Gone);
            }
        };
        state.waiting.retain(|(other, _)| *other != ticket);
        // The next in the queue may have a worker waiting for it, and the pool one to start.
        self.changed.notify_all();
        result
    }

    /// A worker is no more: its guest is disturbed by nothing.
    pub(super) fn ended(&self, worker: &Worker) {
        let mut state = self.state.lock();
        let before = state.fresh.len();
        state.fresh.retain(|(pid, _)| *pid != worker.pid);
        if state.fresh.len() < before {
            self.changed.notify_all();
        }
    }

    /// Changes how many workers wait for each set of devices, those that are too many end, and how long they are not replaced.
    pub(super) fn set(&self, config: &config::Pool) {
        let mut state = self.state.lock();
        (state.size, state.rest) = (config.size, config.rest);
        state.trim();
        self.changed.notify_all();
    }

    /// Says which sets of devices VMs are to see; workers wait for each of them, and for all devices.
    pub(super) fn keep(&self, mut sets: Vec<Visible>) {
        sets.push(Visible::ALL);
        sets.sort();
        sets.dedup();
        let mut state = self.state.lock();
        if state.kept != sets {
            state.kept = sets;
            state.trim();
            self.changed.notify_all();
        }
    }

    /// Ends the pool: no more workers, and those without a session are killed. Guests that wait are told.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for worker in &state.starting {
            worker.kill();
        }
        for worker in &state.warm {
            *worker.phase.lock() = Phase::Gone;
            worker.kill();
        }
        state.warm.clear();
        self.changed.notify_all();
    }

    /// What the driver says of its devices, once a worker was ready.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.state.lock().snapshot.clone()
    }

    /// Now.
    pub(super) fn view(&self) -> View {
        let state = self.state.lock();
        View {
            size: state.size * state.kept.len(),
            warm: state.warm.iter().cloned().collect(),
            starting: state.starting.len() + state.launching.len(),
            waiting: state.waiting.len(),
            failures: state.failures,
            last_failure: state.last_failure.clone(),
            driver: state.driver.clone().filter(|_| state.snapshot.is_some()),
            fallback: state.fallback(),
        }
    }
}

/// What the thread that starts workers does next.
enum Next {
    /// It starts one that sees these devices.
    Start(Visible),
    /// It waits until then: the last one failed, or a guest has just begun.
    Wait(Instant),
    /// It waits until something changes.
    Nothing,
}

impl State {
    /// Which worker should be started: guests that wait come first. Nobody waits for the others, so these begin when no guest
    /// is in its first moments.
    fn next(&mut self, now: Instant) -> Next {
        self.fresh.retain(|(_, until)| *until > now);
        let quiet = self.fresh.iter().map(|(_, until)| *until).max();
        let starting = self.starting.len() + self.launching.len();
        if self.snapshot.is_none() {
            // One finds out whether the driver works.
            return if starting == 0 { Next::Start(Visible::ALL) } else { Next::Nothing };
        }
        if starting >= STARTING_MAX {
            return Next::Nothing;
        }
        let mut next = Next::Nothing;
        for visible in self.waiting.iter().map(|(_, visible)| visible).chain(&self.kept) {
            let waiting = self.waiting.iter().filter(|(_, other)| other == visible).count();
            let kept = if self.kept.contains(visible) { self.size } else { 0 };
            let there = self.of(visible);
            if there >= waiting + kept {
                continue;
            }
            let quiet = quiet.filter(|_| there >= waiting);
            match self.starts.get(visible).and_then(|starts| starts.not_before).max(quiet) {
                Some(time) if time > now => {
                    next = match next {
                        Next::Wait(other) => Next::Wait(other.min(time)),
                        _ => Next::Wait(time),
                    };
                }
                _ => return Next::Start(visible.clone()),
            }
        }
        next
    }

    /// Workers that see these devices and are warm, or will be.
    fn of(&self, visible: &Visible) -> usize {
        let workers = self.starting.iter().chain(&self.warm);
        workers.filter(|worker| worker.visible == *visible).count()
            + self.launching.iter().filter(|other| *other == visible).count()
    }

    /// A worker is started, or could not be.
    fn launched(&mut self, visible: &Visible) {
        if let Some(at) = self.launching.iter().position(|other| other == visible) {
            self.launching.swap_remove(at);
        }
    }

    /// Ends warm workers that are too many.
    fn trim(&mut self) {
        let mut kept: BTreeMap<Visible, usize> = BTreeMap::new();
        let Self { warm, kept: sets, size, .. } = self;
        warm.retain(|worker| {
            let count = kept.entry(worker.visible.clone()).or_default();
            *count += 1;
            let stays = sets.contains(&worker.visible) && *count <= *size;
            if !stays {
                // Gone at once for the pool; its watcher reaps it.
                *worker.phase.lock() = Phase::Gone;
                worker.kill();
            }
            stays
        });
    }

    fn fallback(&self) -> Option<String> {
        let is_fallback = self.driver.as_ref().is_some_and(|driver| driver.is_fallback);
        is_fallback.then(|| self.tried.join("; "))
    }
}
