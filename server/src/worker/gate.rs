//! The gate in front of the driver: compute work and copies pass it, control calls never do (design D10).
//!
//! The daemon decides ([`crate::scheduler`]); the gate is the word in the shared page that says what holds now:
//!
//! - *off*: nothing is scheduled, and the gate costs the reading of the word.
//! - *free*: the VM is alone. Commands pass; of every two milliseconds' worth one is timed, which teaches what commands cost
//!   and bounds what is in flight.
//! - *open*: a lease. Commands pass within a window and until the deadline, in batches that are measured.
//! - *closed*: whoever comes says that it waits, and parks.
//!
//! One thread, which exists only while there is something to measure, sees completions, writes charges to the page and tells
//! the daemon when the worker has run dry or nearly drained. Streams under capture pass: nothing of theirs is executed.

use super::dispatch::Failed;
use super::estimate::{Cost, Estimates, Key};
use super::flight::{self, Event, Flight, Place, UNKNOWN};
use super::session::{Fatal, Session};
use crate::driver::{Driver, Result};
use crate::scheduler::copies::{SMALL, TELL};
use crate::scheduler::page::{self, Direction, Slot, Slots, gate};
use crate::scheduler::{
    ALONE_WINDOW, MICROSECOND, MILLISECOND, Nanos, WINDOW, WINDOW_COMMANDS, WINDOW_LEAST, YIELD_AFTER,
};
use pxos_protocol::types::{CUresult, CUstreamCaptureStatus, capture_status};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long who is parked sleeps before it looks whether the guest is gone.
const LOOK: Duration = Duration::from_millis(50);
/// Behind a wide open gate, one command of this much work is timed.
const MARK: Nanos = 2 * MILLISECOND;
/// Or one of this many, where what they cost is not known.
const MARK_UNKNOWN: u32 = 32;
/// If nothing completes for this long, the window lets another command pass: what is in flight may be waiting for it.
const STALLED: Duration = Duration::from_millis(10);
/// How long the measuring thread stays without work.
const LINGER: Duration = Duration::from_secs(1);

/// What happens to a session whose kernel takes too long.
type OnTimeout = Box<dyn Fn(&str) + Send + Sync>;

/// The gate of a worker.
pub(crate) struct Gate {
    page: &'static Slots,
    bell: OwnedFd,
    meter: Mutex<Meter>,
    /// Completions, for who waits for room in the window.
    room: Condvar,
    /// Work, for the measuring thread.
    work: Condvar,
    /// Whether some batch has no end yet.
    open: AtomicBool,
    ended: AtomicBool,
    on_timeout: Mutex<Option<OnTimeout>>,
}

#[derive(Default)]
struct Meter {
    estimates: Estimates,
    flights: BTreeMap<usize, Flight>,
    alone: BTreeMap<usize, Alone>,
    /// Whether the measuring thread runs.
    running: bool,
}

/// What is known of a device behind a wide open gate.
#[derive(Default)]
struct Alone {
    marks: VecDeque<Mark>,
    /// Work since the last mark, as estimated, and commands of unknown cost.
    since: Nanos,
    unknown: u32,
    begun: bool,
}

/// A timed command, and the work up to it.
struct Mark {
    context: u64,
    begin: Arc<Event>,
    end: Arc<Event>,
    key: Key,
    work: Nanos,
}

/// Somebody who waits at a gate, or has waited and is on the way to the device: until its command is shown to be in flight, who
/// looked would else take the worker for one with nothing to do.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn at(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A command that may pass.
struct Passed<'a> {
    meter: MutexGuard<'a, Meter>,
    /// What it is taken to cost, where that is known.
    cost: Option<Cost>,
    /// That it has waited.
    waiting: Option<Waiting<'a>>,
}

/// A command that its guest has marked, on its way to the device.
struct Urgent<'a>(&'a Slot);

impl<'a> Urgent<'a> {
    fn at(slot: &'a Slot) -> Self {
        slot.marked_waiting.fetch_add(1, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.marked_waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a stream's commands: run, or made part of a graph. The legacy stream is never captured, and a driver that
/// cannot say cannot be used for capture: the guest's every question about one is answered by it.
pub(super) fn capture_status_of(driver: &Driver, stream: u64) -> Result<CUstreamCaptureStatus> {
    use std::ptr::null_mut;
    let (mut status, null) = (capture_status::NONE, null_mut());
    if stream == 0 {
        return Ok(status);
    }
    // SAFETY: a stream of the session's; a pointer to a local, and optional ones that are null.
    let told = unsafe {
        driver.cuStreamGetCaptureInfo_v3(
            stream,
            &raw mut status,
            null,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
        )
    };
    if told == Err(CUresult::ERROR_NOT_SUPPORTED) { Ok(capture_status::NONE) } else { told.map(|()| status) }
}

/// Whether commands of a stream become part of a graph.
pub(super) fn is_capturing(session: &Session, stream: u64) -> bool {
    capture_status_of(&session.driver, stream).is_ok_and(|status| status != capture_status::NONE)
}

impl Gate {
    /// The gate of the page and bell that the daemon passed.
    pub(super) fn new(page: &'static Slots, bell: OwnedFd) -> Self {
        Self {
            page,
            bell,
            meter: Mutex::default(),
            room: Condvar::new(),
            work: Condvar::new(),
            open: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            on_timeout: Mutex::new(None),
        }
    }

    /// What to do when a kernel takes longer than it may.
    pub(super) fn on_timeout(&self, act: OnTimeout) {
        *lock(&self.on_timeout) = Some(act);
    }

    /// The session is over: nobody waits any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.room.notify_all();
        self.work.notify_all();
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Runs a command of the compute engines: now, or when the gate lets it.
    #[inline]
    pub(crate) fn command(
        &self,
        session: &Arc<Session>,
        place: Place,
        key: impl FnOnce() -> Key,
        launch: impl FnOnce() -> Result,
    ) -> std::result::Result<(), Failed> {
        self.command_of(session, place, false, key, launch)
    }

    /// As [`Gate::command`]. What its guest has `marked` as urgent tells the daemon so while it waits and runs; what
    /// becomes of that is the operator's choice.
    #[inline]
    pub(crate) fn command_of(
        &self,
        session: &Arc<Session>,
        place: Place,
        marked: bool,
        key: impl FnOnce() -> Key,
        launch: impl FnOnce() -> Result,
    ) -> std::result::Result<(), Failed> {
        let slot = self.page.slot(place.device);
        match slot.gate.load(Ordering::Acquire) {
            gate::OFF => launch()?,
            gate::FREE => self.run_alone(session, slot, place, key(), launch)?,
            _ if is_capturing(session, place.stream) => launch()?,
            _ => self.run_measured(session, slot, (place, marked), key(), launch)?,
        }
        Ok(())
    }

    /// Behind a wide open gate.
    fn run_alone(
        &self,
        session: &Session,
        slot: &Slot,
        place: Place,
        key: Key,
        launch: impl FnOnce() -> Result,
    ) -> Result {
        let mut guard = lock(&self.meter);
        let meter = &mut *guard;
        let (known, exact) = meter.estimates.of(key);
        let estimate = known.unwrap_or(UNKNOWN).mean;
        let alone = meter.alone.entry(place.device).or_default();
        alone.since += estimate;
        alone.unknown += u32::from(!exact);
        crate::stats::bump(&slot.commands, 1);
        crate::stats::bump(&slot.estimated, estimate);
        let first = !alone.begun && !exact;
        if alone.since < MARK && alone.unknown < MARK_UNKNOWN && !first {
            return launch();
        }
        alone.begun = true;
        if is_capturing(session, place.stream) {
            return launch();
        }
        let flight = meter.flights.entry(place.device).or_default();
        let begin = flight.record(session, place);
        launch()?;
        if let Ok(begin) = begin
            && let Ok(end) = flight.record(session, place)
        {
            let work = std::mem::take(&mut alone.since);
            alone.unknown = 0;
            alone.marks.push_back(Mark { context: place.context, begin, end, key, work });
        }
        self.wait_for_marks(session, slot, place.device, guard);
        Ok(())
    }

    /// Learns from marks that are reached, and forgets them.
    fn retire_marks(session: &Session, meter: &mut Meter, device: usize) {
        let Some(alone) = meter.alone.get_mut(&device) else { return };
        let flight = meter.flights.entry(device).or_default();
        while let Some(mark) = alone.marks.front()
            && flight::is_reached(session, &mark.end)
        {
            let Some(Mark { context, begin, end, key, .. }) = alone.marks.pop_front() else { break };
            if let Some(took) = flight::sample(session, &begin, &end) {
                meter.estimates.learn(key, took);
            }
            flight.recycle(context, begin);
            flight.recycle(context, end);
        }
    }

    /// Retires marks that are reached, and waits while too much lies before the device.
    fn wait_for_marks<'a>(
        &'a self,
        session: &Session,
        slot: &Slot,
        device: usize,
        mut guard: MutexGuard<'a, Meter>,
    ) {
        let mut waited = Duration::ZERO;
        loop {
            Self::retire_marks(session, &mut guard, device);
            let alone = guard.alone.get(&device);
            // Behind the oldest, which runs: where that takes as long as the window, another one has to wait behind it.
            let work: Nanos = alone.map_or(0, |alone| alone.marks.iter().skip(1).map(|mark| mark.work).sum());
            let free = slot.gate.load(Ordering::Relaxed) == gate::FREE;
            if work < ALONE_WINDOW || !free || self.has_ended() || waited > 2 * STALLED {
                return;
            }
            drop(guard);
            let nap = Duration::from_micros(100);
            std::thread::sleep(nap);
            waited += nap;
            guard = lock(&self.meter);
        }
    }

    /// Within a lease, or waiting for one.
    fn run_measured(
        &self,
        session: &Arc<Session>,
        slot: &Slot,
        (place, marked): (Place, bool),
        key: Key,
        launch: impl FnOnce() -> Result,
    ) -> std::result::Result<(), Failed> {
        let urgent = marked.then(|| Urgent::at(slot));
        let Passed { mut meter, cost, waiting } = self.pass(session, slot, place.device, key)?;
        // Ending another context's batch has made that one current.
        session.enter(place.context)?;
        let word = slot.gate.load(Ordering::Acquire);
        let tell = word == gate::OPEN_TELL;
        let single = tell || slot.max_kernel.load(Ordering::Relaxed) != 0;
        let flight = meter.flights.entry(place.device).or_default();
        let was_dry = flight.commands() == 0;
        let now = page::now();
        let launched = flight.submit(session, (place, key, cost), (now, single), launch);
        flight.lease.1 += 1;
        crate::stats::bump(&slot.commands, 1);
        if urgent.is_some() {
            slot.marked_in_flight.store(1, Ordering::Relaxed);
        }
        drop(urgent);
        self.open.store(flight.has_open(), Ordering::Relaxed);
        publish(slot, flight);
        drop(waiting);
        let start = !meter.running;
        if start {
            meter.running = true;
            self.start(session, &mut meter);
        }
        drop(meter);
        if was_dry {
            self.work.notify_all();
            if tell {
                page::ring(&self.bell);
            }
        }
        Ok(launched?)
    }

    /// Waits until a command may pass.
    fn pass<'a>(
        &'a self,
        session: &Session,
        slot: &'a Slot,
        device: usize,
        key: Key,
    ) -> std::result::Result<Passed<'a>, Failed> {
        let mut meter = lock(&self.meter);
        let mut stalled = false;
        let mut waiting = None;
        loop {
            if self.has_ended() {
                return Err(Failed::Session(Fatal::Closed));
            }
            // What was seen while the VM was alone tells what its commands cost now.
            Self::retire_marks(session, &mut meter, device);
            let cost = meter.estimates.of(key).0;
            let flight = meter.flights.entry(device).or_default();
            let word = slot.gate.load(Ordering::Acquire);
            if word == gate::CLOSED {
                flight.close(session);
                publish(slot, flight);
                drop(meter);
                waiting = Some(self.park(&slot.gate, gate::CLOSED, &slot.waiting));
                meter = lock(&self.meter);
                continue;
            }
            if word == gate::OFF || word == gate::FREE {
                return Ok(Passed { meter, cost, waiting });
            }
            let deadline = slot.deadline.load(Ordering::Relaxed);
            if flight.lease.0 != deadline {
                flight.lease = (deadline, 0);
            }
            let (count, work) = (flight.commands(), flight.estimate());
            // What nobody has seen yet may be a graph of seconds: it goes alone, so that one is the most that is overdrawn.
            let has_room = match cost {
                Some(cost) if !flight.has_unknown() => {
                    count < WINDOW_LEAST || (count < WINDOW_COMMANDS && work + cost.mean <= WINDOW)
                }
                _ => count == 0,
            };
            if !has_room && !stalled {
                waiting = None;
                flight.close(session);
                self.open.store(false, Ordering::Relaxed);
                let before = flight.completions;
                self.work.notify_all();
                let (guard, timeout) =
                    self.room.wait_timeout(meter, STALLED).unwrap_or_else(PoisonError::into_inner);
                meter = guard;
                let after = meter.flights.get(&device).map_or(0, |flight| flight.completions);
                stalled = timeout.timed_out() && before == after;
                continue;
            }
            if flight.lease.1 > 0 && page::now().max(flight.done_at()) >= deadline {
                // Used up: the daemon need not close it.
                let closed =
                    slot.gate.compare_exchange(word, gate::CLOSED, Ordering::AcqRel, Ordering::Relaxed);
                if closed.is_ok() {
                    slot.stopped.store(1, Ordering::Release);
                }
                continue;
            }
            return Ok(Passed { meter, cost, waiting });
        }
    }

    /// Sleeps at a closed gate.
    fn park<'a>(&self, word: &AtomicU32, closed: u32, count: &'a AtomicU32) -> Waiting<'a> {
        let waiting = Waiting::at(count);
        page::ring(&self.bell);
        while word.load(Ordering::Acquire) == closed && !self.has_ended() {
            page::wait(word, closed, LOOK);
        }
        waiting
    }

    /// Whether no other VM wants a device, as far as the daemon knows, or nothing is scheduled.
    pub(crate) fn is_wide_open(&self, device: usize) -> bool {
        matches!(self.page.slot(device).gate.load(Ordering::Relaxed), gate::OFF | gate::FREE)
    }

    /// Runs a copy of a direction: now, or when the gate lets it. Called by the leader and by lanes.
    pub(crate) fn copy(
        &self,
        session: &Session,
        place: Place,
        direction: Direction,
        bytes: u64,
        copy: impl FnOnce() -> Result,
    ) -> Result {
        let slot = self.page.slot(place.device);
        if slot.gate.load(Ordering::Relaxed) == gate::OFF {
            return copy();
        }
        let word = &slot.copy_gates[direction as usize];
        if bytes > SMALL && word.load(Ordering::Acquire) != 0 && !is_capturing(session, place.stream) {
            drop(self.park(word, 1, &slot.copy_waiting[direction as usize]));
            if self.has_ended() {
                return Err(CUresult::ERROR_DEINITIALIZED);
            }
        }
        let before = slot.copied[direction as usize].fetch_add(bytes, Ordering::Relaxed);
        if before / TELL != before.wrapping_add(bytes) / TELL {
            page::ring(&self.bell);
        }
        copy()
    }

    /// Ends batches, because the guest has nothing more to run for now, or waits; whether there was one.
    #[inline]
    pub(super) fn settle(&self, session: &Session) -> bool {
        let open = self.open.load(Ordering::Relaxed);
        if open {
            self.settle_open(session);
        }
        open
    }

    #[cold]
    fn settle_open(&self, session: &Session) {
        let current = Session::current();
        let mut meter = lock(&self.meter);
        meter.flights.values_mut().for_each(|flight| flight.close(session));
        self.open.store(false, Ordering::Relaxed);
        drop(meter);
        // What is left of the call runs in its own context.
        let _ = session.enter(current);
        self.work.notify_all();
    }

    /// A context is about to end, and the worker's events with it.
    pub(super) fn forget_context(&self, context: u64) {
        let mut meter = lock(&self.meter);
        for (device, flight) in &mut meter.flights {
            flight.forget(context);
            publish(self.page.slot(*device), flight);
        }
        for alone in meter.alone.values_mut() {
            alone.marks.retain(|mark| mark.context != context);
        }
        self.open.store(meter.flights.values().any(Flight::has_open), Ordering::Relaxed);
    }

    fn start(&self, session: &Arc<Session>, meter: &mut Meter) {
        let session = Arc::clone(session);
        let body = move || session.gate.measure(&session);
        // Without the thread nothing completes as far as anybody knows: the window then lets a command pass now and then.
        meter.running = std::thread::Builder::new().name("meter".into()).spawn(body).is_ok();
    }

    /// The measuring thread.
    fn measure(&self, session: &Session) {
        // The kernel may otherwise let a sleeper lie for 50 µs more.
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
        let mut meter = lock(&self.meter);
        while !self.has_ended() {
            match self.look(session, &mut meter) {
                Some(nap) => {
                    drop(meter);
                    std::thread::sleep(Duration::from_nanos(nap));
                    meter = lock(&self.meter);
                }
                None => {
                    let (guard, timeout) =
                        self.work.wait_timeout(meter, LINGER).unwrap_or_else(PoisonError::into_inner);
                    meter = guard;
                    if timeout.timed_out() && meter.flights.values().all(|flight| flight.commands() == 0) {
                        break;
                    }
                }
            }
        }
        meter.running = false;
    }

    /// Looks at everything in flight; how long until it is worth looking again, `None` where nothing is.
    fn look(&self, session: &Session, meter: &mut Meter) -> Option<Nanos> {
        // A context may have ended since, and another have its handle.
        session.left();
        let now = page::now();
        let mut nap: Option<Nanos> = None;
        let Meter { estimates, flights, .. } = meter;
        for (device, flight) in flights {
            let slot = self.page.slot(*device);
            let before = flight.completions;
            let charged = flight.collect(session, estimates, now);
            if flight.completions != before {
                crate::stats::add(&slot.charged, charged);
                publish(slot, flight);
                self.room.notify_all();
            }
            self.tell(slot, flight, now);
            let limit = slot.max_kernel.load(Ordering::Relaxed);
            if limit != 0 && flight.head_age(now) > limit {
                self.time_out(limit);
            }
            let wait = if flight.commands() == 0 {
                if flight.told {
                    continue;
                }
                (flight.dry_since + YIELD_AFTER).saturating_sub(now).max(MICROSECOND)
            } else {
                flight.look_in(now)
            };
            nap = Some(nap.unwrap_or(Nanos::MAX).min(wait));
        }
        nap
    }

    /// Tells the daemon what it waits for.
    fn tell(&self, slot: &Slot, flight: &mut Flight, now: Nanos) {
        if flight.told {
            return;
        }
        let closed = slot.gate.load(Ordering::Acquire) == gate::CLOSED;
        let dry = flight.commands() == 0 && now >= flight.dry_since + YIELD_AFTER;
        if dry || (closed && flight.is_nearly_done(now)) {
            // What is nearly done is told again when it is done, if it was not seen to be.
            flight.told = flight.commands() == 0;
            if flight.told || !std::mem::replace(&mut flight.told_nearly, true) {
                page::ring(&self.bell);
            }
        }
    }

    fn time_out(&self, limit: Nanos) {
        if let Some(act) = lock(&self.on_timeout).take() {
            act(&format!("a kernel took longer than max_kernel ({} ms)", limit / MILLISECOND));
        }
    }
}

/// Shows the daemon what is in flight.
fn publish(slot: &Slot, flight: &Flight) {
    slot.done_at.store(flight.done_at(), Ordering::Relaxed);
    slot.done_by.store(flight.done_by(), Ordering::Relaxed);
    slot.pending.store(flight.estimate(), Ordering::Relaxed);
    if flight.commands() == 0 {
        slot.marked_in_flight.store(0, Ordering::Relaxed);
    }
    slot.in_flight.store(flight.commands(), Ordering::Release);
}
