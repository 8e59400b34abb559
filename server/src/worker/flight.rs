//! Work in flight on one device: batches of commands between two timing events, and what they took.
//!
//! Events are recorded in the stream of the commands themselves, so that they create no order that was not there. Where the
//! stream still has work of the batch before, that one's end is this one's beginning: one event a batch. What is charged is
//! the union of all streams' batches on the context's own clock.

use super::estimate::{Cost, Estimates, Key};
use super::session::Session;
use crate::driver::Result;
use crate::scheduler::{HANDOVER, MICROSECOND, MILLISECOND, Nanos};
use pxos_protocol::types::CUresult;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A batch is closed when this much is in it, as estimated.
const BATCH: Nanos = 250 * MICROSECOND;
/// Or this many commands.
const BATCH_COMMANDS: u32 = 8;
/// What a command is taken for of which nothing is known.
pub(super) const UNKNOWN: Cost = Cost::of(200 * MICROSECOND);
/// How often completions are looked for, at least and at most.
const NAPS: [Nanos; 2] = [20 * MICROSECOND, 500 * MICROSECOND];
/// At most, where nobody can tell when the next one is due.
const NAP_UNSURE: Nanos = 100 * MICROSECOND;
/// A batch of this much is not known precisely enough for the next gate to open before it is seen to be complete.
const LONG: Nanos = 4 * MILLISECOND;
/// Estimates are right within this part of them.
const PRECISION: Nanos = 32;
/// The longest that the device is taken to need before the first command of a lease begins.
const LAG_MOST: Nanos = MILLISECOND;

/// A timing event of the worker's.
#[derive(Debug)]
pub(super) struct Event(pub(super) u64);

/// Where a command goes, in the driver's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Ordinal of the device.
    pub(crate) device: usize,
    /// Context.
    pub(crate) context: u64,
    /// Stream.
    pub(crate) stream: u64,
}

/// Commands of one stream.
#[derive(Debug)]
struct Batch {
    place: Place,
    begin: Arc<Event>,
    end: Option<Arc<Event>>,
    commands: u32,
    estimate: Nanos,
    /// What it may take, where commands of its kind are not all alike.
    at_most: Nanos,
    /// Whether one of them has never been measured.
    unknown: bool,
    /// What they are, if all are the same.
    key: Option<Key>,
    submitted: Nanos,
    /// Whether it begins a lease on a device without work of this worker.
    first: bool,
}

/// How much faster the host's clock may be than the device's: more than crystals differ.
const DRIFT: f64 = 1e-4;

/// A clock by which events of one context are placed: the last end that was seen, and when that was.
#[derive(Debug)]
struct Clock {
    reference: Arc<Event>,
    at: f64,
    covered: f64,
    /// What to add for the host's clock: the least by which an end was seen after it happened. Ends are seen late, so that the
    /// least is what is nearest.
    offset: f64,
}

impl Clock {
    /// When what ended at `at` ended, on the host's clock; it has just been seen.
    fn seen(&mut self, passed: f64, now: Nanos) -> Nanos {
        self.offset = (now as f64 - self.at).min(self.offset + passed.max(0.0) * DRIFT);
        nanos(self.at + self.offset).min(now)
    }
}

/// Everything in flight on a device.
#[derive(Debug, Default)]
pub(super) struct Flight {
    batches: VecDeque<Batch>,
    clocks: HashMap<u64, Clock>,
    /// Events that are free, by context.
    free: HashMap<u64, Vec<Arc<Event>>>,
    /// When the oldest batch became the oldest, or begins on the device, as far as that is known.
    head_since: Nanos,
    /// How long the device takes until the first command of a lease begins: it turns from another process. A moving average.
    lag: Nanos,
    /// Commands let through in the lease with this deadline.
    pub(super) lease: (u64, u64),
    /// Since when nothing is in flight.
    pub(super) dry_since: Nanos,
    /// Whether the daemon knows.
    pub(super) told: bool,
    /// Whether the daemon knows that what is in flight is nearly complete.
    pub(super) told_nearly: bool,
    /// Completions seen.
    pub(super) completions: u64,
}

/// Nanoseconds between two events.
fn between(session: &Session, from: &Event, to: &Event) -> Option<f64> {
    let mut milliseconds = 0.0_f32;
    // SAFETY: events of the worker's own, and a pointer to a local.
    unsafe { session.driver.cuEventElapsedTime(&raw mut milliseconds, from.0, to.0) }.ok()?;
    Some(f64::from(milliseconds) * 1e6)
}

/// Whether an event has been reached, or never will be.
fn is_over(session: &Session, event: &Event) -> bool {
    // SAFETY: an event of the worker's own.
    let state = unsafe { session.driver.cuEventQuery(event.0) };
    state != Err(CUresult::ERROR_NOT_READY)
}

impl Flight {
    /// Commands in flight.
    pub(super) fn commands(&self) -> u32 {
        self.batches.iter().map(|batch| batch.commands).sum()
    }

    /// In what time it is worth looking whether the oldest batch is complete: when it should be; around that time, as precisely
    /// as estimates are, again and again; and the later it is, the less often. Where nobody can tell when that is, in an eighth of
    /// the time that has passed.
    pub(super) fn look_in(&self, now: Nanos) -> Nanos {
        let Some(head) = self.batches.front() else { return NAPS[1] };
        let due = self.head_since + head.estimate;
        let precision = head.estimate / PRECISION;
        let wait = if due > now {
            (due - now).saturating_sub(precision)
        } else {
            (now - due).saturating_sub(precision) / 4
        };
        let passed = now.saturating_sub(self.head_since);
        let wait = if head.at_most > head.estimate { wait.min(passed / 8).min(NAP_UNSURE) } else { wait };
        wait.clamp(NAPS[0], NAPS[1])
    }

    /// Whether something is in flight of which nobody knows how long it takes.
    pub(super) fn has_unknown(&self) -> bool {
        self.batches.iter().any(|batch| batch.unknown)
    }

    /// Device time in flight, as estimated, some of which may be over.
    pub(super) fn estimate(&self) -> Nanos {
        self.batches.iter().map(|batch| batch.estimate).sum()
    }

    /// When all will be complete, as estimated.
    pub(super) fn done_at(&self) -> Nanos {
        self.head_since + self.estimate()
    }

    /// When all will be complete if each takes as long as the longest of its kind, and long ones a little longer: who opens the
    /// next gate while a long kernel still runs has the driver interrupt it.
    pub(super) fn done_by(&self) -> Nanos {
        let at_most =
            |batch: &Batch| batch.at_most + if batch.at_most < LONG { 0 } else { batch.at_most / PRECISION };
        self.head_since + self.batches.iter().map(at_most).sum::<Nanos>()
    }

    /// Whether what is in flight is nearly complete, and not overdue.
    pub(super) fn is_nearly_done(&self, now: Nanos) -> bool {
        let done_by = self.done_by();
        self.batches.is_empty() || (done_by > now && done_by - now <= HANDOVER)
    }

    /// How long the oldest batch has been the oldest.
    pub(super) fn head_age(&self, now: Nanos) -> Nanos {
        if self.batches.is_empty() { 0 } else { now.saturating_sub(self.head_since) }
    }

    /// Whether there is a batch without an end.
    pub(super) fn has_open(&self) -> bool {
        self.batches.back().is_some_and(|batch| batch.end.is_none())
    }

    fn event(&mut self, session: &Session, context: u64) -> Result<Arc<Event>> {
        if let Some(event) = self.free.get_mut(&context).and_then(Vec::pop) {
            return Ok(event);
        }
        let mut event = 0;
        // With timing, which is what flags of zero mean.
        // SAFETY: a pointer to a local.
        unsafe { session.driver.cuEventCreate(&raw mut event, 0)? };
        Ok(Arc::new(Event(event)))
    }

    /// An event, recorded behind what is in the stream; the context is current.
    pub(super) fn record(&mut self, session: &Session, place: Place) -> Result<Arc<Event>> {
        let event = self.event(session, place.context)?;
        // SAFETY: an event of the worker's own, and a stream of the session's, both of the current context.
        match unsafe { session.driver.cuEventRecord(event.0, place.stream) } {
            Ok(()) => Ok(event),
            Err(error) => {
                self.recycle(place.context, event);
                Err(error)
            }
        }
    }

    /// Takes an event back that nobody else holds.
    pub(super) fn recycle(&mut self, context: u64, event: Arc<Event>) {
        if Arc::strong_count(&event) == 1 {
            self.free.entry(context).or_default().push(event);
        }
    }

    /// Runs a command as part of a batch. Without events, which a driver may refuse, it runs unmeasured.
    pub(super) fn submit(
        &mut self,
        session: &Session,
        (place, key, cost): (Place, Key, Option<Cost>),
        (now, single): (Nanos, bool),
        launch: impl FnOnce() -> Result,
    ) -> Result {
        if self.batches.back().is_some_and(|batch| batch.end.is_none() && batch.place != place) {
            self.close(session);
            session.enter(place.context)?;
        }
        let begun = if self.has_open() { None } else { self.begin(session, place).ok() };
        let launched = launch();
        if launched.is_err() {
            if let Some(begin) = begun {
                self.recycle(place.context, begin);
            }
            return launched;
        }
        if let Some(begin) = begun {
            let first = self.batches.is_empty() && self.lease.1 == 0;
            if self.batches.is_empty() {
                self.head_since = now + if first { self.lag } else { 0 };
            }
            self.batches.push_back(Batch {
                place,
                begin,
                end: None,
                commands: 0,
                estimate: 0,
                at_most: 0,
                unknown: false,
                key: Some(key),
                submitted: now,
                first,
            });
        }
        let Some(batch) = self.batches.back_mut().filter(|batch| batch.end.is_none()) else { return Ok(()) };
        batch.commands += 1;
        batch.estimate += cost.unwrap_or(UNKNOWN).mean;
        batch.at_most += cost.unwrap_or(UNKNOWN).at_most();
        batch.unknown |= cost.is_none();
        if batch.key != Some(key) {
            batch.key = None;
        }
        (self.told, self.told_nearly) = (false, false);
        // An event in the legacy stream waits for the blocking streams, and they for it: it must directly follow its command.
        let full = batch.estimate >= BATCH || batch.commands >= BATCH_COMMANDS || batch.unknown;
        if full || single || place.stream == 0 {
            self.close(session);
        }
        Ok(())
    }

    fn begin(&mut self, session: &Session, place: Place) -> Result<Arc<Event>> {
        let before = self.batches.iter().rev().find(|batch| batch.place == place);
        if let Some(end) = before.and_then(|batch| batch.end.clone())
            && !is_over(session, &end)
        {
            return Ok(end);
        }
        self.record(session, place)
    }

    /// Ends the batch that has no end yet.
    pub(super) fn close(&mut self, session: &Session) {
        let Some(batch) = self.batches.back().filter(|batch| batch.end.is_none()) else { return };
        let place = batch.place;
        if session.enter(place.context).is_err() {
            self.batches.pop_back();
            return;
        }
        match self.record(session, place) {
            Ok(end) => {
                if let Some(batch) = self.batches.back_mut() {
                    batch.end = Some(end);
                }
            }
            // Its context is broken: it is not measured.
            Err(_) => {
                self.batches.pop_back();
            }
        }
    }

    /// Takes out what is complete, and returns what it took.
    pub(super) fn collect(&mut self, session: &Session, estimates: &mut Estimates, now: Nanos) -> Nanos {
        let mut charged = 0;
        let mut busy: Vec<Place> = Vec::new();
        let mut index = 0;
        while let Some(batch) = self.batches.get(index) {
            let over = match &batch.end {
                Some(end) if !busy.contains(&batch.place) => {
                    // Without a context, elapsed times are refused; one that is gone took its events with it.
                    session.enter(batch.place.context).is_err() || is_over(session, end)
                }
                _ => false,
            };
            if !over {
                busy.push(batch.place);
                index += 1;
                continue;
            }
            let Some(batch) = self.batches.remove(index) else { break };
            self.completions += 1;
            let (added, ended) = self.charge(session, estimates, batch, now);
            if index == 0 {
                // The next began when this one ended, not when that was seen.
                self.head_since = self.batches.front().map_or(now, |next| next.submitted.max(ended));
            }
            charged += added;
        }
        if self.batches.is_empty() && charged > 0 {
            self.dry_since = now;
        }
        charged
    }

    /// What a complete batch adds to the union, and when it ended.
    fn charge(
        &mut self,
        session: &Session,
        estimates: &mut Estimates,
        batch: Batch,
        now: Nanos,
    ) -> (Nanos, Nanos) {
        let Batch { place, begin, end, commands, key, submitted, first, .. } = batch;
        let Some(end) = end else { return (0, now) };
        let clock = self.clocks.entry(place.context).or_insert_with(|| Clock {
            reference: Arc::clone(&begin),
            at: 0.0,
            covered: 0.0,
            offset: f64::INFINITY,
        });
        let from = if Arc::ptr_eq(&clock.reference, &begin) {
            Some(0.0)
        } else {
            between(session, &clock.reference, &begin)
        };
        let (Some(from), Some(length)) = (from, between(session, &begin, &end)) else {
            return (0, now);
        };
        let (from, to) = (clock.at + from, clock.at + from + length);
        let added = (to - from.max(clock.covered)).max(0.0);
        clock.covered = clock.covered.max(to);
        let old = std::mem::replace(&mut clock.reference, Arc::clone(&end));
        let passed = to - clock.at;
        clock.at = to;
        let ended = clock.seen(passed, now);
        if first {
            let lag = ended.saturating_sub(nanos(length)).saturating_sub(submitted).min(LAG_MOST);
            self.lag = self.lag - self.lag / 4 + lag / 4;
        }
        if let Some(key) = key {
            estimates.learn(key, nanos(length / f64::from(commands.max(1))));
        }
        for event in [old, begin, end] {
            self.recycle(place.context, event);
        }
        (nanos(added), ended)
    }

    /// Forgets everything in a context, whose events die with it.
    pub(super) fn forget(&mut self, context: u64) {
        self.batches.retain(|batch| batch.place.context != context);
        self.clocks.remove(&context);
        self.free.remove(&context);
    }
}

/// How long a command between two events took, once the second has been reached.
pub(super) fn sample(session: &Session, begin: &Event, end: &Event) -> Option<Nanos> {
    between(session, begin, end).map(nanos)
}

/// As [`is_over`], for marks.
pub(super) fn is_reached(session: &Session, event: &Event) -> bool {
    is_over(session, event)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and far below 2^64"
)]
fn nanos(value: f64) -> Nanos {
    value.max(0.0) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_seen_late_is_placed_where_it_was() {
        let reference = Arc::new(Event(0));
        let mut clock = Clock { reference, at: 0.0, covered: 0.0, offset: f64::INFINITY };
        let mut seen = |at: f64, now: Nanos| {
            let passed = at - clock.at;
            clock.at = at;
            clock.seen(passed, now)
        };
        assert_eq!(seen(1_000.0, 1_051_000), 1_051_000, "nothing is known yet");
        assert_eq!(seen(201_000.0, 1_221_000), 1_221_000, "seen sooner than the first");
        let late = seen(401_000.0, 1_921_000);
        assert_eq!(late, 1_421_020, "200 us after the second; clocks may drift by 20 ns in that time");
        assert_eq!(seen(601_000.0, 1_601_000), 1_601_000, "and never after it was seen");
    }
}
