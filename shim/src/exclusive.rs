//! The device's exclusive access to managed memory while kernels make system-scope atomics in it (decision 0020).
//!
//! Managed memory lies on the host, and where the bus carries no atomics (`HOST_NATIVE_ATOMIC_SUPPORTED` is 0) an update that
//! host and kernel make on one word at the same time gets lost. So the host has no rights to managed memory from the launch of
//! such a kernel until it is complete: a thread that touches it faults and waits ([`fault`]). A device without
//! `CONCURRENT_MANAGED_ACCESS`, which the guest is told to have, owns managed memory in the same way, and a program that
//! touches it then ends (CUDA C++ programming guide, "GPU Exclusive Access To Managed Memory").
//!
//! `launch` → [`concerns`] → [`submit`]: rights are taken, then the launch is sent, and behind it in the stream a word that the
//! device writes ([`slots`]). Rights come back when a call has waited for work ([`settle`]), or in the fault. Where host and
//! kernel wait for each other's words neither comes: then managed memory stays open to both from there on.
//!
//! What a fault needs is behind a lock whose holder takes no signals and touches no managed memory ([`guarded`]).

mod fault;
mod guarded;
mod ranges;
mod slots;

use crate::call::garbled;
use crate::log::{self, Level};
use crate::objects::{Context, Function};
use crate::session::Session;
use crate::{lock, thread};
use guarded::Guarded;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::frame::{FLAG_REPLY, control};
use pxos_protocol::types::attribute::HOST_NATIVE_ATOMIC_SUPPORTED;
use pxos_protocol::types::{CU_STREAM_PER_THREAD, CUresult};
use ranges::{Place, Ranges};
use slots::{Slots, Stream, Taken};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;

/// How long one fault, or one launch, waits for a kernel before host and kernel are taken to wait for each other. Over the bus a
/// kernel makes some two million atomics a second: that of NVIDIA's systemWideAtomics takes 3.5 s (measured on an H200).
const PATIENCE: Duration = Duration::from_secs(10);

/// For so long a fault looks at the words without a pause, as a synchronisation does: a small kernel takes 10 us.
const EAGER: Duration = Duration::from_micros(100);

/// From one look to the next thereafter.
const LOOK: Duration = Duration::from_micros(30);

/// What faults look at.
#[derive(Debug)]
struct State {
    ranges: Ranges,
    slots: Slots,
}

static STATE: Guarded<State> = Guarded::new(State { ranges: Ranges::new(), slots: Slots::new() });

/// Live managed allocations.
static MANAGED: AtomicUsize = AtomicUsize::new(0);
/// Whether the host has no rights to some of them: what calls that have waited ask.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether some graph has such a kernel. Which one is not followed.
static GRAPHS: AtomicBool = AtomicBool::new(false);
/// Threads that wait in a fault: new kernels let them pass.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Why rights are not taken any more, or [`NOTHING`].
static END: AtomicU8 = AtomicU8::new(NOTHING);
/// Whether that was said.
static TOLD: AtomicBool = AtomicBool::new(false);

const NOTHING: u8 = 0;
/// Host and kernel seem to wait for each other.
const MUTUAL: u8 = 1;
/// The program has replaced the handler of `SIGSEGV` too often.
const HANDLER: u8 = 2;

/// Who launches: one thread at a time, so that numbers grow in the order of each stream.
#[derive(Debug)]
struct Launches {
    /// The page of words of each context.
    pages: BTreeMap<u64, u64>,
    number: u32,
}

static LAUNCHES: Mutex<Launches> = Mutex::new(Launches { pages: BTreeMap::new(), number: 0 });

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits"))
}

/// Managed memory was allocated.
pub(crate) fn add(base: u64, bytes: u64) {
    STATE.with(|state| state.ranges.add(base, bytes));
    MANAGED.fetch_add(1, Ordering::Relaxed);
}

/// Managed memory is about to be freed: its pages will be others'.
pub(crate) fn remove(base: u64) {
    if STATE.with(|state| state.ranges.remove(base)) {
        MANAGED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether any launch may concern managed memory: what every launch asks.
#[inline]
pub(crate) fn is_possible() -> bool {
    // Relaxed: who launches a kernel on managed memory has learnt of it by something that orders.
    MANAGED.load(Ordering::Relaxed) != 0
}

/// Whether a launch of this function on a device excludes the host.
pub(crate) fn concerns(session: &Session, function: &Function, device: i32) -> bool {
    is_wanted(session, device) && makes_system_atomics(session, function)
}

/// Whether a launch of a graph on a device excludes the host.
pub(crate) fn graphs_concern(session: &Session, device: i32) -> bool {
    GRAPHS.load(Ordering::Relaxed) && is_wanted(session, device)
}

/// A graph has got such a kernel.
pub(crate) fn note_graph() {
    GRAPHS.store(true, Ordering::Relaxed);
}

/// Whether the device's atomics need it, and rights are still taken.
fn is_wanted(session: &Session, device: i32) -> bool {
    if END.load(Ordering::Relaxed) != NOTHING {
        tell();
        return false;
    }
    let device = usize::try_from(device).ok().and_then(|device| session.snapshot.devices.get(device));
    device.is_some_and(|device| device.attribute(HOST_NATIVE_ATOMIC_SUPPORTED) == 0)
}

/// Whether a function makes system-scope atomics: the worker, which has the image, is asked once.
fn makes_system_atomics(session: &Session, function: &Function) -> bool {
    const NO: u8 = 1;
    const YES: u8 = 2;
    // Relaxed: the answer is always the same.
    match function.system_atomics.load(Ordering::Relaxed) {
        NO => return false,
        YES => return true,
        _ => {}
    }
    let answer = session.call(control::SYSTEM_ATOMICS, |writer| {
        writer.put(function.handle);
        writer.put(u64::from(function.is_kernel));
    });
    // An error is the launch's to meet.
    let Ok(makes) = answer.and_then(|reply| reply.reader().get::<u64>().map_err(garbled)) else {
        return false;
    };
    function.system_atomics.store(if makes == 0 { NO } else { YES }, Ordering::Relaxed);
    makes != 0
}

/// Sends a launch that excludes the host from managed memory until it is complete.
///
/// # Errors
/// Those of sending it.
pub(crate) fn submit(
    session: &'static Session,
    context: &Context,
    stream: u64,
    number: u16,
    write: impl FnOnce(&mut Writer<'_>),
) -> Result<(), CUresult> {
    if session.captures.is_capturing(stream) {
        note_graph();
        return session.post(number, write);
    }
    // Parameters may lie in managed memory: they are read before the host loses it.
    let mut call = Vec::new();
    write(&mut Writer::new(&mut call));
    let launch = || session.post(number, |writer| writer.put_raw(&call));
    let_others_pass();
    let mut launches = lock(&LAUNCHES);
    if !fault::install() {
        end(HANDLER);
    }
    let Some(taken) = launches.take(session, context, stream)? else {
        drop(launches);
        tell();
        return launch();
    };
    let sent = launch().and_then(|()| {
        session.post(op::cuStreamWriteValue32_v2, |writer| {
            writer.put(stream);
            writer.put(taken.word);
            writer.put(u64::from(launches.number));
            writer.put(0_u32);
        })
    });
    if sent.is_err() {
        STATE.with(|state| state.slots.undo(&taken));
        settle();
    }
    sent
}

impl Launches {
    /// Takes a slot for a launch into a stream, and the host's rights; `None` where rights are not taken any more.
    fn take(&mut self, session: &Session, context: &Context, stream: u64) -> Result<Option<Taken>, CUresult> {
        let page = match self.pages.get(&context.handle) {
            Some(page) => *page,
            None => {
                let page = lock_page(session)?;
                self.pages.insert(context.handle, page);
                page
            }
        };
        let thread = if stream == CU_STREAM_PER_THREAD.0 { thread::number() } else { 0 };
        let stream: Stream = (context.handle, stream, thread);
        self.number = self.number.wrapping_add(1);
        let start = Instant::now();
        while END.load(Ordering::Relaxed) == NOTHING {
            let taken = STATE.with(|state| {
                let taken = state.slots.take(stream, page, self.number)?;
                // SeqCst: a fault that ends it all looks after it has stored.
                TAKEN.store(true, Ordering::SeqCst);
                state.ranges.take();
                Some(taken)
            });
            if taken.is_some() {
                return Ok(taken);
            }
            if start.elapsed() > PATIENCE {
                end(MUTUAL);
            }
            std::thread::sleep(LOOK);
        }
        Ok(None)
    }
}

/// A page for the words of a context's slots: memory of ours, which the application does not see. Asked for past the captures
/// under way: they forbid allocations of the application's.
fn lock_page(session: &Session) -> Result<u64, CUresult> {
    let arena = session.arena.as_ref().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let page = arena.allocate(PAGE).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let locked = session.call_in(session.header(op::cuMemHostAlloc, FLAG_REPLY), |writer| {
        writer.put(page);
        writer.put(PAGE);
    });
    locked.map(|_| page).inspect_err(|_| arena.free(page, PAGE))
}

/// Lets threads pass that wait in a fault: kernel after kernel would keep them there. Once nothing keeps them any more it is a
/// matter of moments, unless a thread has left its fault by `siglongjmp`, which nobody sees.
fn let_others_pass() {
    const MOMENTS: u32 = 32;
    let start = Instant::now();
    let mut moments = 0;
    while WAITING.load(Ordering::Relaxed) != 0 && start.elapsed() < PATIENCE && moments < MOMENTS {
        moments += u32::from(STATE.with(State::open_if_complete));
        std::thread::sleep(LOOK);
    }
}

/// A call has waited for work: where every kernel is complete, the host has its rights again.
pub(crate) fn settle() {
    if TAKEN.load(Ordering::Relaxed) {
        STATE.with(State::open_if_complete);
    }
    tell();
}

/// The session's work will not complete any more: after a fault of a kernel, or the end of the connection.
pub(crate) fn abandon() {
    if TAKEN.load(Ordering::Relaxed) {
        STATE.with(|state| {
            state.slots.clear();
            state.open();
        });
    }
}

/// A context has ended, and its managed memory with it.
pub(crate) fn context_ended(session: &Session, context: u64) {
    let Some(page) = lock(&LAUNCHES).pages.remove(&context) else { return };
    // Waits for the kernels.
    let _ = session.call(op::cuMemFreeHost, |writer| writer.put(page));
    STATE.with(|state| {
        state.slots.forget(context);
        state.open_if_complete();
    });
    if let Some(arena) = &session.arena {
        arena.free(page, PAGE);
    }
}

/// Rights are not taken any more from now on.
fn end(reason: u8) {
    // The first reason counts.
    let _ = END.compare_exchange(NOTHING, reason, Ordering::SeqCst, Ordering::Relaxed);
    STATE.with(State::open);
}

/// Says once why rights are not taken any more; not from within a fault.
fn tell() {
    let reason = END.load(Ordering::Relaxed);
    if reason == NOTHING || TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    let what = if reason == MUTUAL {
        "the host has waited for 10 s for managed memory in which a kernel makes system-scope atomics: they seem to wait for each other"
    } else {
        "the program keeps replacing the handler of SIGSEGV, by which it waits for kernels with system-scope atomics"
    };
    log::line(
        Level::Warn,
        format_args!(
            "{what}; from now on such atomics may be lost where host and kernel make them at the same time"
        ),
    );
}

impl State {
    /// Gives the host its rights.
    fn open(&mut self) {
        self.ranges.give_back();
        TAKEN.store(false, Ordering::SeqCst);
    }

    /// The same if every kernel is complete; whether they are.
    fn open_if_complete(&mut self) -> bool {
        let complete = self.slots.are_complete();
        if complete {
            self.open();
        }
        complete
    }
}

/// The host has faulted at an address. Whether it may try again: that was managed memory, and it has its rights now. Runs in a
/// signal handler.
fn wait_for(address: u64) -> bool {
    /// What came of one look.
    enum Look {
        Pass,
        NotOurs,
        Wait,
    }
    let look = || {
        STATE.with(|state| match state.ranges.place(address) {
            Place::Elsewhere => Look::NotOurs,
            // Another thread has got the rights back meanwhile.
            Place::Open => Look::Pass,
            Place::Taken if state.open_if_complete() => Look::Pass,
            Place::Taken => Look::Wait,
        })
    };
    match look() {
        Look::Pass => return true,
        Look::NotOurs => return false,
        Look::Wait => {}
    }
    let pending = || STATE.with(|state| state.slots.pending());
    let mut awaited = pending();
    WAITING.fetch_add(1, Ordering::Relaxed);
    let mut start = Instant::now();
    let passes = loop {
        if start.elapsed() < EAGER {
            std::thread::yield_now();
        } else {
            std::thread::sleep(LOOK);
        }
        match look() {
            Look::Pass => break true,
            Look::NotOurs => break false,
            // Other kernels than those at the beginning: these are getting on.
            Look::Wait if !STATE.with(|state| state.slots.hold(&awaited)) => {
                (awaited, start) = (pending(), Instant::now());
            }
            Look::Wait if start.elapsed() > PATIENCE => {
                end(MUTUAL);
                break true;
            }
            Look::Wait => {}
        }
    };
    WAITING.fetch_sub(1, Ordering::Relaxed);
    passes
}

/// Before a fork: the child must find the lock free.
pub(crate) fn before_fork() {
    STATE.acquire();
}

/// After a fork, in the parent.
pub(crate) fn after_fork_parent() {
    STATE.release();
}

/// After a fork, in the child: it has no session, and nobody tells it when a kernel is complete.
pub(crate) fn after_fork_child() {
    // Relaxed, here and below: the only thread there is.
    WAITING.store(0, Ordering::Relaxed);
    // SAFETY: `before_fork` has acquired it, on this thread.
    let state = unsafe { STATE.value() };
    state.slots.clear();
    state.open();
    STATE.release();
}
