//! The order of things (design D4): one thread at a time, the *leader*, takes frames and runs them in program order. A call
//! that blocks is prepared in its turn; then the leader lets go of the lead and waits for the driver itself: it has become
//! the lane of the guest thread that waits for the answer.
//!
//! Over a socket another thread takes the lead at once and blocks in `read`. Over shared memory letting go costs no wake-up:
//! the ring is marked as unread, so that whoever puts a frame into it rings the doorbell, and one thread, the *watcher*,
//! sleeps at the doorbell and leads when it rings. A guest with one thread is served by one thread all the time.
//!
//! Any call may wait inside the driver, or at the gate, for everything that the device has to do: freeing memory, a launch whose
//! function is loaded by it (CUDA programming guide, "Lazy Loading") or that finds no room in its queue. If a host function is
//! among that, the guest's word that it has returned lies behind that call. So where there are host functions, a *deputy* takes
//! frames while the leader stands still: it heeds that word, and what the function has written for copies of its graph, and keeps
//! the rest in order.

use super::api::graph;
use super::callbacks::Callbacks;
use super::dispatch::{self, Failed, Later, Outcome};
use super::gate::Gate;
use super::ledger::Ledger;
use super::output::Output;
use super::session::{Fatal, Session, Sink};
use super::shared::{Areas, Shared as SharedMemory};
use super::stack::SmallStack;
use super::state::State;
use crate::driver::Driver;
use crate::handoff::{Assign, EndReason};
use crate::stats::{Stats, add, bump, count};
use pxos_protocol::codec::Reader;
use pxos_protocol::control::Snapshot;
use pxos_protocol::frame::{HEADER, Header, control};
use pxos_protocol::transport::ring::{Consumer, RingError};
use pxos_protocol::transport::{FrameReader, ReadError, Socket};
use pxos_protocol::types::CUresult;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Most lanes: guest threads that wait at the same time. Beyond it calls are run in the leader's turn.
const MAX_LANES: usize = 1024;

/// How long the lanes may take to see that the guest is gone before it is seen for them.
const HELD_UP: Duration = Duration::from_secs(1);

/// Most bytes of frames that the deputy keeps for the leader: half a million launches. A ring holds far less, and what the deputy
/// has taken out of it still counts there.
const MAX_BACKLOG: usize = 64 << 20;

/// How long the leader may stand still while the deputy can keep no more, which over a socket may be for ever.
const OVERRUN: Duration = Duration::from_secs(30);

/// How often the deputy looks, while the guest runs a host function, whether the leader stands still.
const DEPUTY: Duration = Duration::from_micros(100);

/// How long the leader looks at an empty ring before it sleeps: longer than a guest takes from one call to the next.
const SPIN: Duration = Duration::from_micros(100);

/// The same where processors are too few to let one spin.
const SPIN_FEW: Duration = Duration::from_micros(5);

/// Where frames come from.
enum Source {
    Socket(FrameReader),
    Ring(Consumer),
}

/// Where frames are taken: by the leader, and by the deputy while the leader stands still.
struct Inlet {
    source: Source,
    /// Frames that the deputy has taken, in order.
    backlog: VecDeque<(Header, Vec<u8>)>,
    /// Frames that it has heeded, for the leader to count.
    heeded: Vec<Header>,
    /// Bytes of both.
    kept: usize,
    /// Whether the leader is about to run a frame that comes before whatever the deputy would heed.
    in_hand: bool,
}

/// What the leader holds.
struct Leader {
    state: State,
    /// The payload of the frame that it runs.
    payload: Vec<u8>,
    ended: bool,
}

struct Shared {
    session: Arc<Session>,
    leader: Mutex<Leader>,
    inlet: Mutex<Inlet>,
    /// Frames that the leader has run: as long as it stays the same, the leader stands still.
    frames: AtomicU64,
    /// The doorbell of a ring; unused over a socket.
    doorbell: Option<Doorbell>,
    /// Threads that wait for their turn to lead or to watch.
    waiting: AtomicUsize,
    /// All lanes.
    lanes: AtomicUsize,
    spin: Duration,
    end: Mutex<Option<(EndReason, String)>>,
    ended: Condvar,
}

/// Where the watcher sleeps.
struct Doorbell {
    reader: Mutex<FrameReader>,
    /// For a leader that goes away while frames are there.
    own: OwnedFd,
}

/// How a turn at the lead ends.
enum Turn {
    /// With a call that blocks.
    Later(Header, Later),
    /// With nothing to do.
    Idle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guest's connection, and the memory that is shared with it.
pub(super) struct Guest {
    /// Frames that come over the socket: all of them, or doorbells only.
    pub(super) reader: FrameReader,
    /// The way back.
    pub(super) connection: Socket,
    /// Shared memory, where there is any.
    pub(super) shared: Option<SharedMemory>,
}

/// What a worker has before its guest comes.
pub(super) struct Host {
    /// The driver.
    pub(super) driver: Driver,
    /// What the device prints.
    pub(super) output: Output,
    /// What the session holds of its VM's quota.
    pub(super) ledger: Ledger,
    /// What compute work and copies pass.
    pub(super) gate: Gate,
    /// Counters that the daemon reads.
    pub(super) stats: &'static Stats,
}

/// Serves a guest until it ends; why it did.
pub(super) fn run(
    host: Host,
    (snapshot, context, stack): (Snapshot, u64, Option<SmallStack>),
    guest: Guest,
    assign: &Assign,
) -> (EndReason, String) {
    let Guest { reader, connection, shared } = guest;
    let watched = connection.try_clone().ok();
    let mut state = State::new(context, stack, &assign.limits);
    let (source, sink, doorbell) = match shared {
        None => (Source::Socket(reader), Sink::Socket(connection), None),
        Some(shared) => {
            let (consumer, producer) = match shared.rings() {
                Ok(rings) => rings,
                Err(error) => return (EndReason::Host, error.to_string()),
            };
            // SAFETY: a plain call; the descriptor is ours.
            let own = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            if own < 0 {
                return (EndReason::Host, std::io::Error::last_os_error().to_string());
            }
            // SAFETY: just made, owned by nobody else.
            let own = unsafe { OwnedFd::from_raw_fd(own) };
            state.areas = Some(Areas::new(shared));
            let doorbell = Doorbell { reader: Mutex::new(reader), own };
            (Source::Ring(consumer), Sink::Ring(producer, connection), Some(doorbell))
        }
    };
    let session = Arc::new(Session::new(host, snapshot, sink, assign, Callbacks::default()));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shared = Arc::new(Shared {
        session,
        leader: Mutex::new(Leader { state, payload: Vec::new(), ended: false }),
        inlet: Mutex::new(Inlet {
            source,
            backlog: VecDeque::new(),
            heeded: Vec::new(),
            kept: 0,
            in_hand: false,
        }),
        frames: AtomicU64::new(0),
        doorbell,
        waiting: AtomicUsize::new(0),
        lanes: AtomicUsize::new(0),
        spin: if processors > 2 { SPIN } else { SPIN_FEW },
        end: Mutex::new(None),
        ended: Condvar::new(),
    });
    let late = Arc::downgrade(&shared);
    shared.session.gate.on_timeout(Box::new(move |message| {
        if let Some(shared) = late.upgrade() {
            shared.session.refuse(CUresult::ERROR_LAUNCH_TIMEOUT, message);
            finish(&shared, EndReason::Host, message.to_owned());
        }
    }));
    let late = Arc::downgrade(&shared);
    shared.session.callbacks.on_first(Box::new(move || {
        if let Some(shared) = late.upgrade() {
            spawn_deputy(shared);
        }
    }));
    spawn_lane(&shared);
    if let Some(watched) = watched {
        notice_hangup(&shared, watched);
    }
    let mut end = lock(&shared.end);
    loop {
        if let Some(end) = end.take() {
            return end;
        }
        end = shared.ended.wait(end).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Ends the session when the guest is gone, even if every lane is inside the driver or waits for room in the guest's ring, where
/// nobody would see it: a kernel that never ends must not outlive its guest.
fn notice_hangup(shared: &Arc<Shared>, watched: Socket) {
    let shared = Arc::clone(shared);
    let body = move || {
        let mut poll = libc::pollfd { fd: watched.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        while unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {}
        // Who waits at the gate sees nothing of it.
        shared.session.gate.end();
        // The lanes see it themselves unless they are held up, and know better why the session ends.
        std::thread::sleep(HELD_UP);
        finish(&shared, EndReason::Closed, String::new());
    };
    // Without the thread the session ends as soon as a lane looks.
    let _ = std::thread::Builder::new().name("hangup".into()).spawn(body);
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
    shared.session.end();
    lock(&shared.end).get_or_insert((reason, message));
    shared.ended.notify_all();
}

fn fail(shared: &Shared, fatal: Fatal) {
    let is_overrun = matches!(fatal, Fatal::Overrun);
    let (reason, message) = fatal.describe();
    if is_overrun {
        shared.session.refuse(CUresult::ERROR_LAUNCH_OUT_OF_RESOURCES, &message);
    } else if reason == EndReason::Malformed {
        count(&shared.session.stats.decode_errors);
        shared.session.refuse(CUresult::ERROR_DEVICE_UNAVAILABLE, &message);
    }
    finish(shared, reason, message);
}

/// A thread's life. It is counted as waiting when it starts, by whoever started it.
fn run_lane(shared: &Arc<Shared>) {
    // Whoever has taken a ring of the doorbell must lead next: the leader that announced its sleep may not have let go yet, and
    // there is no second ring.
    let mut rung = false;
    loop {
        let taken = match &shared.doorbell {
            None => Some(lock(&shared.leader)),
            Some(_) if std::mem::take(&mut rung) => Some(lock(&shared.leader)),
            Some(_) => match shared.leader.try_lock() {
                Ok(leader) => Some(leader),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            },
        };
        let Some(mut leader) = taken else {
            if let Err(fatal) = watch(shared) {
                return fail(shared, fatal);
            }
            rung = true;
            continue;
        };
        if leader.ended {
            return;
        }
        shared.waiting.fetch_sub(1, Ordering::SeqCst);
        let turn = lead(shared, &mut leader);
        match turn {
            Ok(Turn::Later(header, later)) => {
                let somebody_follows = shared.waiting.load(Ordering::SeqCst) > 0;
                if !somebody_follows && shared.lanes.load(Ordering::Relaxed) < MAX_LANES {
                    spawn_lane(shared);
                }
                let_go(shared, leader);
                shared.session.finish_later(&header, later);
                shared.waiting.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Turn::Idle) => {
                drop(leader);
                shared.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(fatal) = watch(shared) {
                    return fail(shared, fatal);
                }
                rung = true;
            }
            Err(fatal) => {
                leader.ended = true;
                drop(leader);
                return fail(shared, fatal);
            }
        }
    }
}

/// Gives up the lead. A ring that nobody reads is marked so, or its watcher woken if frames are there already.
fn let_go(shared: &Shared, leader: MutexGuard<'_, Leader>) {
    let mut inlet = lock(&shared.inlet);
    let Inlet { source, backlog, .. } = &mut *inlet;
    let frames_are_there = match source {
        Source::Socket(_) => false,
        // Parking gives back the room of what lies in the backlog.
        Source::Ring(consumer) => !backlog.is_empty() || !consumer.park(),
    };
    drop(inlet);
    drop(leader);
    if frames_are_there && let Some(doorbell) = &shared.doorbell {
        // SAFETY: a plain write of eight bytes to a descriptor of ours.
        unsafe { libc::write(doorbell.own.as_raw_fd(), (&raw const ONE).cast(), 8) };
    }
}

static ONE: u64 = 1;

/// Sleeps at the doorbell of a ring until it rings, or until it is this thread's turn to sleep there.
fn watch(shared: &Shared) -> Result<(), Fatal> {
    let Some(doorbell) = &shared.doorbell else { return Ok(()) };
    let mut reader = lock(&doorbell.reader);
    if lock(&shared.end).is_some() {
        return Err(Fatal::Closed);
    }
    if !reader.has_buffered() {
        let mut fds = [
            libc::pollfd { fd: reader.socket().as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: doorbell.own.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: two entries, which outlive the call.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if fds[1].revents != 0 {
            let mut counter = 0_u64;
            // SAFETY: eight bytes into a local.
            unsafe { libc::read(doorbell.own.as_raw_fd(), (&raw mut counter).cast(), 8) };
            return Ok(());
        }
        if fds[0].revents == 0 {
            return Ok(());
        }
    }
    let header = reader.header()?;
    let length = reader.payload(&header)?.len();
    add(&shared.session.stats.socket_bytes_in, (HEADER + length) as u64);
    Ok(())
}

/// Runs frames until one blocks, or until there are none.
fn lead(shared: &Shared, leader: &mut Leader) -> Result<Turn, Fatal> {
    if let Source::Ring(consumer) = &lock(&shared.inlet).source {
        consumer.unpark();
    }
    loop {
        let Leader { state, payload, .. } = leader;
        let Some(header) = take(shared, payload)? else { return Ok(Turn::Idle) };
        bump(&shared.frames, 1);
        if let Some(turn) = run_frame(&shared.session, state, &header, payload)? {
            return Ok(turn);
        }
    }
}

/// The next frame, its payload in `payload`. `None` where a ring has been empty for a while and is marked as unread.
#[inline]
fn take(shared: &Shared, payload: &mut Vec<u8>) -> Result<Option<Header>, Fatal> {
    loop {
        if let Some(header) = lock(&shared.inlet).ready(&shared.session, payload)? {
            return Ok(Some(header));
        }
        // The deputy must find the inlet free: the driver may wait in this as well.
        let settled = shared.session.gate.settle(&shared.session);
        let mut inlet = lock(&shared.inlet);
        let Inlet { source, backlog, .. } = &mut *inlet;
        if !backlog.is_empty() {
            continue;
        }
        match source {
            Source::Socket(reader) => return read(reader, payload).map(Some),
            Source::Ring(consumer) => {
                if !settled && !spin(consumer, shared.spin) && consumer.park() {
                    return Ok(None);
                }
            }
        }
    }
}

impl Inlet {
    /// The next frame that is there already, its payload in `payload`.
    #[inline]
    fn ready(&mut self, session: &Session, payload: &mut Vec<u8>) -> Result<Option<Header>, Fatal> {
        for header in self.heeded.drain(..) {
            self.kept -= HEADER;
            count_frame(session, &header, matches!(self.source, Source::Ring(_)));
        }
        let taken = if let Some((header, kept)) = self.backlog.pop_front() {
            self.kept -= HEADER + kept.len();
            *payload = kept;
            Some(header)
        } else {
            match &mut self.source {
                Source::Socket(reader) if reader.has_buffered() => Some(read(reader, payload)?),
                Source::Socket(_) => None,
                Source::Ring(consumer) => consumer.next(payload)?,
            }
        };
        self.in_hand = taken.is_some_and(|header| header.op == control::MIRROR_WRITE);
        Ok(taken)
    }

    /// Takes the frames that are there, heeding only the guest's memory for copies of graphs, which a host function may have
    /// written, and the word that it has returned; all others are kept.
    fn attend(&mut self, session: &Session) -> Result<(), Fatal> {
        if self.in_hand {
            // It waits for nothing, and must not be overtaken.
            return Ok(());
        }
        while self.kept < MAX_BACKLOG {
            let mut payload = Vec::new();
            let header = match &mut self.source {
                Source::Socket(reader) => {
                    if !reader.has_buffered()
                        && !reader.socket().wait_readable(Duration::ZERO).unwrap_or(true)
                    {
                        break;
                    }
                    read(reader, &mut payload)?
                }
                Source::Ring(consumer) => match consumer.next_held(&mut payload)? {
                    Some(header) => header,
                    None => break,
                },
            };
            self.kept += HEADER;
            match header.op {
                control::CALLBACK_DONE => dispatch::callback_done(session, &payload)?,
                control::MIRROR_WRITE if graph::is_for_known(&payload) => {
                    match graph::write(session, Reader::new(&payload)) {
                        Err(Failed::Session(fatal)) => return Err(fatal),
                        Err(Failed::Call(error)) => session.finish(&header, Err(error), &[]),
                        Ok(()) => {}
                    }
                }
                _ => {
                    self.kept += payload.len();
                    self.backlog.push_back((header, payload));
                    continue;
                }
            }
            self.heeded.push(header);
        }
        Ok(())
    }
}

/// A frame from a socket, its payload in `payload`: what is large goes there without a stop.
fn read(reader: &mut FrameReader, payload: &mut Vec<u8>) -> Result<Header, Fatal> {
    let header = reader.header()?;
    let length = header.length as usize;
    payload.resize(length, 0);
    reader.payload_into(payload)?;
    Ok(header)
}

/// Starts the deputy, which lives as long as the session.
fn spawn_deputy(shared: Arc<Shared>) {
    let body = move || {
        let callbacks = &shared.session.callbacks;
        let mut full_since = None;
        while callbacks.wait_for_one() {
            let before = shared.frames.load(Ordering::Relaxed);
            std::thread::sleep(DEPUTY);
            if shared.frames.load(Ordering::Relaxed) != before {
                full_since = None;
                continue;
            }
            // Who has it takes frames.
            let Ok(mut inlet) = shared.inlet.try_lock() else { continue };
            let attended = inlet.attend(&shared.session);
            let is_full = inlet.kept >= MAX_BACKLOG;
            drop(inlet);
            if let Err(fatal) = attended {
                return fail(&shared, fatal);
            }
            // Whatever the leader waits for, the word that it needs may lie behind.
            if is_full && full_since.get_or_insert_with(Instant::now).elapsed() > OVERRUN {
                return fail(&shared, Fatal::Overrun);
            }
        }
    };
    // Without the thread the leader hears of it when its call returns.
    let _ = std::thread::Builder::new().name("deputy".into()).spawn(body);
}

/// Looks at an empty ring for a while; whether a frame came.
fn spin(consumer: &Consumer, most: Duration) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if consumer.has_frame() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > most {
            return false;
        }
    }
}

/// Counts a frame that came through a ring (`shared`) or a socket. On the leader: the counters have one writer.
#[inline]
fn count_frame(session: &Session, header: &Header, shared: bool) {
    let stats = session.stats;
    let whole = HEADER as u64 + u64::from(header.length);
    bump(&stats.bytes_in, whole);
    bump(if shared { &stats.shared_bytes_in } else { &stats.socket_bytes_in }, whole);
    stats.note_call(header.op, header.wants_reply());
}

/// Runs one frame; the end of the leader's turn where it blocks.
#[inline]
fn run_frame(
    session: &Arc<Session>,
    state: &mut State,
    header: &Header,
    payload: &[u8],
) -> Result<Option<Turn>, Fatal> {
    count_frame(session, header, state.areas.is_some());
    match dispatch::run(session, state, header, payload)? {
        Outcome::Done(result) => session.finish(header, result, &state.reply),
        Outcome::Later(later) => {
            session.gate.settle(session);
            return Ok(Some(Turn::Later(*header, later)));
        }
    }
    state.reply.clear();
    Ok(None)
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

impl From<RingError> for Fatal {
    fn from(error: RingError) -> Self {
        Self::Malformed(error.to_string())
    }
}
