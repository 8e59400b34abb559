//! The stats page: counters of one worker in memory that the daemon reads, so that a status costs the worker nothing.
//!
//! It is shared memory ([`crate::page`]).
//! The worker adds to it with relaxed atomics; the daemon reads it with [`Stats::read`] at any time. To the daemon every
//! number is an allegation: nothing but reports is made of it.

use crate::page;
use pxos_protocol::admin::{Counters, LastError};
use pxos_protocol::api::{NUMBERS, ROWS};
use pxos_protocol::frame::control;
use pxos_protocol::types::CUresult;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ops below are no functions of the driver ([`control`]).
const FIRST_ROW: u16 = 100;

/// The page. All zero at first. Every field is one number of 64 bits, so that a torn read cannot happen.
#[derive(Debug)]
#[repr(C)]
pub struct Stats {
    /// What the worker is doing: a [`State`].
    pub state: AtomicU64,
    /// Calls that the guest awaits the answer of (frames with [`pxos_protocol::frame::FLAG_REPLY`]).
    pub messages_sync: AtomicU64,
    /// Calls that nobody awaits.
    pub messages_async: AtomicU64,
    /// Replies sent.
    pub replies: AtomicU64,
    /// Bytes received from the guest, headers included.
    pub bytes_in: AtomicU64,
    /// Bytes sent to the guest, headers included.
    pub bytes_out: AtomicU64,
    /// Bytes that came over the socket.
    pub socket_bytes_in: AtomicU64,
    /// Bytes that went over the socket.
    pub socket_bytes_out: AtomicU64,
    /// Bytes that came through shared memory, in rings, staging area and arena.
    pub shared_bytes_in: AtomicU64,
    /// Bytes that went through shared memory.
    pub shared_bytes_out: AtomicU64,
    /// Kernel launches, graph launches counted as one each.
    pub launches: AtomicU64,
    /// Bytes that the guest copied to the device.
    pub copy_bytes_to_device: AtomicU64,
    /// Bytes that the guest copied from the device.
    pub copy_bytes_to_host: AtomicU64,
    /// Device memory that the session's allocations hold, in bytes.
    pub memory_used: AtomicU64,
    /// Most of it that the session ever held, in bytes.
    pub memory_peak: AtomicU64,
    /// Device memory held times time, in bytes times milliseconds, up to `memory_since`.
    pub memory_byte_millis: AtomicU64,
    /// When `memory_used` changed last, in milliseconds of `CLOCK_MONOTONIC`; 0 for never.
    pub memory_since: AtomicU64,
    /// Device memory that the worker's contexts and modules hold, in bytes.
    pub context_bytes: AtomicU64,
    /// Wire number of the last call.
    pub last_op: AtomicU64,
    /// Last `CUresult` that was not success in the lower 32 bits, the wire number of its call above them; 0 for none.
    pub last_error: AtomicU64,
    /// Calls that the driver answered with an error.
    pub errors: AtomicU64,
    /// Frames that could not be read as what they claimed to be; the session ends with the first.
    pub decode_errors: AtomicU64,
    /// Sticky errors: a context of the session is broken (an illegal address, for instance).
    pub faults: AtomicU64,
    /// Threads of the guest process that have called.
    pub threads: AtomicU64,
    /// Calls of functions that are not carried.
    pub unsupported_calls: AtomicU64,
    /// Calls by wire number: `calls[pxos_protocol::api::op::cuMemAlloc_v2 as usize]`.
    pub calls: [AtomicU64; NUMBERS],
    /// Those of them that the guest awaits the answer of.
    pub awaited: [AtomicU64; NUMBERS],
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Opening the driver.
    Starting = 0,
    /// Waiting for a session.
    Warm = 1,
    /// Serving a session.
    Serving = 2,
    /// Giving back what the session held.
    Ending = 3,
    /// A number that is none of these.
    Unknown = u64::MAX,
}

impl State {
    fn of(number: u64) -> Self {
        [Self::Starting, Self::Warm, Self::Serving, Self::Ending]
            .into_iter()
            .find(|state| *state as u64 == number)
            .unwrap_or(Self::Unknown)
    }

    /// One word, as the status shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Warm => "warm",
            Self::Serving => "serving",
            Self::Ending => "ending",
            Self::Unknown => "unknown",
        }
    }
}

/// Milliseconds on a clock that all processes of the host share.
fn monotonic_millis() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a buffer of the right type; the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds `amount` to a counter that only one thread at a time writes: the worker's leader, whose lock orders them. A locked
/// addition takes ten times as long, and the leader counts several times a call.
#[inline]
pub fn bump(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Adds `amount`.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Stats {
    /// Maps the page that the daemon passed by descriptor, for as long as the process lives.
    ///
    /// # Errors
    /// The operating system's; `InvalidData` where the descriptor is of another size.
    pub fn inherit(fd: &OwnedFd) -> io::Result<&'static Self> {
        Ok(Page::map(fd)?.leak())
    }

    /// Says what the worker is doing.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u64, Ordering::Relaxed);
    }

    /// Notes an error of `op`.
    pub fn note_error(&self, op: u16, result: u32) {
        count(&self.errors);
        self.last_error.store(u64::from(op) << 32 | u64::from(result), Ordering::Relaxed);
    }

    /// Counts a call of `op`, which the guest awaits or not, on the worker's leader; a number outside the table is not counted
    /// by name.
    #[inline]
    pub fn note_call(&self, op: u16, awaited: bool) {
        self.last_op.store(op.into(), Ordering::Relaxed);
        let count = |counters: &[AtomicU64; NUMBERS]| {
            if let Some(counter) = counters.get(usize::from(op)) {
                bump(counter, 1);
            }
        };
        count(&self.calls);
        if awaited {
            bump(&self.messages_sync, 1);
            count(&self.awaited);
        } else {
            bump(&self.messages_async, 1);
        }
    }

    /// Says how much memory the session holds from now on, and how much at most.
    pub fn set_memory(&self, used: u64, peak: u64) {
        let now = monotonic_millis();
        let since = self.memory_since.swap(now, Ordering::Relaxed);
        let before = self.memory_used.swap(used, Ordering::Relaxed);
        if since != 0 {
            add(&self.memory_byte_millis, before.saturating_mul(now.saturating_sub(since)));
        }
        self.memory_peak.store(peak, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "an account is good to a millionth")]
    fn memory_byte_seconds(&self) -> f64 {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let since = get(&self.memory_since);
        let running = if since == 0 { 0 } else { monotonic_millis().saturating_sub(since) };
        (get(&self.memory_byte_millis) as f64 + get(&self.memory_used) as f64 * running as f64) / 1e3
    }

    /// Everything at this moment.
    #[must_use]
    pub fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name =
            |number: u64| u16::try_from(number).ok().and_then(pxos_protocol::api::name_of).map(str::to_owned);
        let last_error = get(&self.last_error);
        let by_function = |counters: &[AtomicU64; NUMBERS]| {
            let functions = ROWS.iter().map(|row| (row.number, row.name.to_owned()));
            // Copies, for instance, are ops of our own; one without a name is told by its number.
            let ours = (1..FIRST_ROW).map(|op| {
                (op, control::name_of(op).map_or_else(|| format!("control op {op}"), str::to_owned))
            });
            functions
                .chain(ours)
                .map(|(op, name)| (name, get(&counters[usize::from(op)])))
                .filter(|(_, calls)| *calls != 0)
                .collect()
        };
        Counters {
            state: State::of(get(&self.state)).name().to_owned(),
            messages_sync: get(&self.messages_sync),
            messages_async: get(&self.messages_async),
            replies: get(&self.replies),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            socket_bytes_in: get(&self.socket_bytes_in),
            socket_bytes_out: get(&self.socket_bytes_out),
            shared_bytes_in: get(&self.shared_bytes_in),
            shared_bytes_out: get(&self.shared_bytes_out),
            launches: get(&self.launches),
            copy_bytes_to_device: get(&self.copy_bytes_to_device),
            copy_bytes_to_host: get(&self.copy_bytes_to_host),
            memory_used: get(&self.memory_used),
            memory_peak: get(&self.memory_peak),
            memory_limit: 0, // the daemon knows
            context_bytes: get(&self.context_bytes),
            memory_byte_seconds: self.memory_byte_seconds(),
            last_op: name(get(&self.last_op)),
            last_error: (last_error != 0).then(|| {
                let result = u32::try_from(last_error & 0xffff_ffff).expect("32 bits");
                let known = CUresult(result).name().map(str::to_owned);
                LastError { result, name: known, function: name(last_error >> 32) }
            }),
            errors: get(&self.errors),
            decode_errors: get(&self.decode_errors),
            faults: get(&self.faults),
            threads: get(&self.threads),
            unsupported_calls: get(&self.unsupported_calls),
            calls: by_function(&self.calls),
            awaited: by_function(&self.awaited),
        }
    }
}

// SAFETY: `repr(C)`, atomics only.
unsafe impl page::Shared for Stats {
    const NAME: &'static std::ffi::CStr = c"pxos-stats";
}

/// The daemon's mapping of a page.
pub type Page = page::Page<Stats>;

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::api::op;
    use std::os::fd::AsRawFd;

    #[test]
    fn both_sides_see_the_counters() {
        let (page, fd) = Page::create().unwrap();
        let worker = Stats::inherit(&fd).unwrap();
        worker.set_state(State::Serving);
        worker.note_call(op::cuMemAlloc_v2, true);
        worker.note_call(op::cuMemAlloc_v2, false);
        worker.note_error(op::cuMemAlloc_v2, 2);
        add(&worker.bytes_in, 4096);
        let read = page.read();
        assert_eq!(read.state, "serving");
        assert_eq!(read.calls, [("cuMemAlloc_v2".to_owned(), 2)].into());
        assert_eq!(read.awaited, [("cuMemAlloc_v2".to_owned(), 1)].into());
        assert_eq!((read.messages_sync, read.messages_async), (1, 1));
        assert_eq!(read.last_op.as_deref(), Some("cuMemAlloc_v2"));
        let error = read.last_error.unwrap();
        assert_eq!((error.result, error.name.as_deref()), (2, Some("CUDA_ERROR_OUT_OF_MEMORY")));
        assert_eq!(error.function.as_deref(), Some("cuMemAlloc_v2"));
        assert_eq!(read.bytes_in, 4096);
    }

    #[test]
    fn garbage_from_a_worker_is_only_odd_numbers() {
        let (page, fd) = Page::create().unwrap();
        let worker = Stats::inherit(&fd).unwrap();
        let all = std::ptr::from_ref(worker).cast::<AtomicU64>();
        for index in 0..size_of::<Stats>() / 8 {
            // SAFETY: the page is an array of atomics of that many.
            unsafe { &*all.add(index) }.store(u64::MAX, Ordering::Relaxed);
        }
        worker.note_call(u16::MAX, true);
        let read = page.read();
        assert_eq!(read.state, "unknown");
        assert_eq!(read.calls.len(), ROWS.len() + usize::from(FIRST_ROW) - 1);
        assert!(serde_json::to_string(&read).is_ok());
    }

    #[test]
    fn the_page_cannot_be_cut() {
        let (_page, fd) = Page::create().unwrap();
        // SAFETY: a plain call on an open descriptor.
        assert_ne!(unsafe { libc::ftruncate(fd.as_raw_fd(), 0) }, 0);
        let other = std::fs::File::open("/dev/null").unwrap().into();
        assert!(Page::map(&other).is_err());
    }
}
