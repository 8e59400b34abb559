//! The order of things (design D4): one thread at a time, the *leader*, takes frames and runs them in program order. A call
//! that blocks is prepared in its turn; then the leader lets another thread lead, and waits for the driver itself: it has
//! become the lane of the guest thread that waits for the answer.

use super::callbacks::Callbacks;
use super::dispatch::{self, Outcome};
use super::output::Output;
use super::session::{Fatal, Session};
use super::state::State;
use crate::driver::Driver;
use crate::handoff::{Assign, EndReason};
use crate::stats::{Stats, add, count};
use pxos_protocol::control::Snapshot;
use pxos_protocol::frame::HEADER;
use pxos_protocol::transport::{FrameReader, ReadError, Socket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most lanes: guest threads that wait at the same time. Beyond it calls are run in the leader's turn.
const MAX_LANES: usize = 1024;

/// What the leader holds.
struct Leader {
    reader: FrameReader,
    state: State,
    ended: bool,
}

struct Shared {
    session: Arc<Session>,
    leader: Mutex<Leader>,
    /// Threads that wait to lead.
    waiting: AtomicUsize,
    /// All lanes.
    lanes: AtomicUsize,
    end: Mutex<Option<(EndReason, String)>>,
    ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the guest behind `reader` until it ends; why it did.
pub(super) fn run(
    driver: Driver,
    (snapshot, context): (Snapshot, u64),
    (reader, connection): (FrameReader, Socket),
    output: Output,
    stats: &'static Stats,
    assign: &Assign,
) -> (EndReason, String) {
    let callbacks = Callbacks::default();
    let session = Arc::new(Session::new(driver, snapshot, connection, output, stats, assign, callbacks));
    let state = State::new(context);
    let shared = Arc::new(Shared {
        session,
        leader: Mutex::new(Leader { reader, state, ended: false }),
        waiting: AtomicUsize::new(0),
        lanes: AtomicUsize::new(0),
        end: Mutex::new(None),
        ended: Condvar::new(),
    });
    spawn_lane(&shared);
    let mut end = lock(&shared.end);
    loop {
        if let Some(end) = end.take() {
            return end;
        }
        end = shared.ended.wait(end).unwrap_or_else(PoisonError::into_inner);
    }
}

fn spawn_lane(shared: &Arc<Shared>) {
    let lane = Arc::clone(shared);
    lane.lanes.fetch_add(1, Ordering::Relaxed);
    lane.waiting.fetch_add(1, Ordering::SeqCst);
    let spawned = std::thread::Builder::new().name("lane".into()).spawn(move || run_lane(&lane));
    if spawned.is_err() {
        shared.waiting.fetch_sub(1, Ordering::SeqCst);
        shared.lanes.fetch_sub(1, Ordering::Relaxed);
        if shared.lanes.load(Ordering::Relaxed) == 0 {
            finish(shared, EndReason::Host, "no thread can be started".into());
        }
    }
}

fn finish(shared: &Shared, reason: EndReason, message: String) {
    shared.session.callbacks.end();
    lock(&shared.end).get_or_insert((reason, message));
    shared.ended.notify_all();
}

fn run_lane(shared: &Arc<Shared>) {
    // Counted as waiting by whoever started it.
    loop {
        let mut leader = lock(&shared.leader);
        shared.waiting.fetch_sub(1, Ordering::SeqCst);
        if leader.ended {
            return;
        }
        match lead(shared, &mut leader) {
            Ok((header, later)) => {
                if shared.waiting.load(Ordering::SeqCst) == 0 && shared.lanes.load(Ordering::Relaxed) < MAX_LANES {
                    spawn_lane(shared);
                }
                drop(leader);
                shared.session.finish_later(&header, later);
            }
            Err(fatal) => {
                leader.ended = true;
                drop(leader);
                let (reason, message) = fatal.describe();
                if reason == EndReason::Malformed {
                    count(&shared.session.stats.decode_errors);
                    shared.session.refuse(&message);
                }
                finish(shared, reason, message);
                return;
            }
        }
        shared.waiting.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs frames until one blocks.
fn lead(shared: &Shared, leader: &mut Leader) -> Result<(pxos_protocol::frame::Header, dispatch::Later), Fatal> {
    let session = &shared.session;
    let Leader { reader, state, .. } = leader;
    loop {
        let header = reader.header()?;
        let payload = reader.payload(&header)?;
        add(&session.stats.bytes_in, (HEADER + payload.len()) as u64);
        session.stats.note_call(header.op);
        count(if header.wants_reply() { &session.stats.messages_sync } else { &session.stats.messages_async });
        match dispatch::run(session, state, &header, payload)? {
            Outcome::Done(result) => session.finish(&header, result, &state.reply),
            Outcome::Later(later) => return Ok((header, later)),
        }
        state.reply.clear();
    }
}

impl From<ReadError> for Fatal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            ReadError::Frame(error) => Self::Malformed(error.to_string()),
            ReadError::Torn | ReadError::Io(_) => Self::Lost(error.to_string()),
        }
    }
}
