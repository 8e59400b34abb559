//! What all threads of a worker share: the driver, the way back to the guest, the counters.

use super::api::graph::Deliveries;
use super::callbacks::Callbacks;
use super::dispatch::Later;
use super::exchange::Exchange;
use super::gate::Gate;
use super::ledger::Ledger;
use super::output::Output;
use super::serve::Host;
use super::staging::Staging;
use super::submissions::Submissions;
use crate::driver::{Driver, Result};
use crate::handoff::{Assign, EndReason};
use crate::stats::{Stats, add, count};
use pxos_protocol::codec::{DecodeError, Writer};
use pxos_protocol::control::{Refusal, Snapshot, encode};
use pxos_protocol::frame::{HEADER, Header, control};
use pxos_protocol::transport::ring::{Producer, Push};
use pxos_protocol::transport::{Socket, Transport};
use pxos_protocol::types::{CUresult, capture_mode};
use std::cell::Cell;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Why the session ends.
#[derive(Debug)]
pub(crate) enum Fatal {
    /// The guest closed the connection.
    Closed,
    /// The connection broke.
    Lost(String),
    /// The guest sent what no guest sends.
    Malformed(String),
    /// More calls wait behind a host function than are kept.
    Overrun,
}

impl Fatal {
    /// For the daemon and its log.
    pub(crate) fn describe(self) -> (EndReason, String) {
        match self {
            Self::Closed => (EndReason::Closed, String::new()),
            Self::Lost(message) => (EndReason::Lost, message),
            Self::Malformed(message) => (EndReason::Malformed, message),
            Self::Overrun => (EndReason::Host, "more calls wait behind a host function than are kept".into()),
        }
    }
}

impl From<DecodeError> for Fatal {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The way back to the guest.
pub(crate) enum Sink {
    /// A socket that carries every frame.
    Socket(Socket),
    /// A ring in shared memory, and the socket that is its doorbell.
    Ring(Producer, Socket),
}

/// How long a lane sleeps before it looks again whether the guest has read its ring: only a guest that does not read its
/// answers makes anybody wait here.
const FULL_RING: Duration = Duration::from_micros(50);

/// How often it looks before it rings for somebody who empties it.
const FULL_RINGS: u32 = 16;

/// Shared by the leader and the lanes.
pub(crate) struct Session {
    /// The driver.
    pub(crate) driver: Driver,
    /// What the guest was told of the devices.
    pub(crate) snapshot: Snapshot,
    /// What the session holds of its VM's quota.
    pub(crate) ledger: Ledger,
    /// Counters that the daemon reads.
    pub(crate) stats: &'static Stats,
    /// Host callbacks under way.
    pub(crate) callbacks: Callbacks,
    /// What graphs have written for the guest.
    pub(crate) deliveries: Deliveries,
    /// Primitives under way.
    pub(crate) submissions: Submissions,
    /// Page-locked memory for copies to the host.
    pub(crate) staging: Staging,
    sink: Mutex<Sink>,
    ended: AtomicBool,
    /// What other workers of the VM share.
    pub(crate) exchange: Exchange,
    output: Mutex<Output>,
    /// What compute work and copies pass.
    pub(crate) gate: Gate,
    /// An error of a call that nobody waited for; the next call that synchronises answers it (design D5).
    pending: AtomicU32,
}

thread_local! {
    /// The native context that is current on this thread.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread's capture mode is relaxed.
    static RELAXED: Cell<bool> = const { Cell::new(false) };
}

/// Errors that stay with the context (CUDA driver API, "Data types").
fn is_fault(result: CUresult) -> bool {
    matches!(result.0, 214 | 700 | 702 | 710 | 714..=719)
}

/// Errors of stream capture.
fn is_capture_error(result: CUresult) -> bool {
    matches!(result.0, 900..=908)
}

impl Session {
    /// A session for the guest behind `connection`.
    pub(super) fn new(
        host: Host,
        snapshot: Snapshot,
        sink: Sink,
        assign: &Assign,
        callbacks: Callbacks,
    ) -> Self {
        let Host { driver, output, ledger, gate, stats } = host;
        Self {
            driver,
            snapshot,
            ledger,
            stats,
            callbacks,
            deliveries: Deliveries::default(),
            submissions: Submissions::default(),
            staging: Staging::default(),
            sink: Mutex::new(sink),
            ended: AtomicBool::new(false),
            exchange: Exchange::new(assign.exchange.clone(), assign.session),
            output: Mutex::new(output),
            gate,
            pending: AtomicU32::new(0),
        }
    }

    /// Makes a native context current on this thread, unless it is.
    pub(crate) fn enter(&self, native: u64) -> Result {
        if !RELAXED.replace(true) {
            // This thread works for all threads of the guest: what a capture forbids to one of them, the guest decides, and the
            // worker's own doings must not end a capture.
            let mut mode = capture_mode::RELAXED;
            // SAFETY: a pointer to a local.
            let _ = unsafe { self.driver.cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        }
        if CURRENT.get() != native {
            // SAFETY: a context from the worker's own table, or none.
            unsafe { self.driver.cuCtxSetCurrent(native)? };
            CURRENT.set(native);
        }
        Ok(())
    }

    /// The native context that is current on this thread.
    pub(crate) fn current() -> u64 {
        CURRENT.get()
    }

    /// Forgets which context is current on this thread, after the driver has changed it.
    pub(crate) fn left(&self) {
        CURRENT.set(u64::MAX);
    }

    /// The session is over: whoever waits for the guest stops waiting.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.callbacks.end();
        self.gate.end();
    }

    /// Writes one frame to the guest. A guest that is gone is noticed by the leader or the watcher.
    pub(crate) fn send(&self, mut header: Header, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let padded = length.next_multiple_of(8);
        header.length = u32::try_from(padded).expect("frames to the guest are bounded");
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = (HEADER + padded) as u64;
        let mut tries = 0_u32;
        let sent = match &mut *sink {
            Sink::Socket(socket) => {
                add(&self.stats.socket_bytes_out, whole);
                send_over(socket, header, parts, padded - length)
            }
            Sink::Ring(producer, doorbell) => loop {
                match producer.push(header, parts) {
                    Push::Done { wake: false } => {
                        add(&self.stats.shared_bytes_out, whole);
                        break true;
                    }
                    Push::Done { wake: true } => {
                        add(&self.stats.shared_bytes_out, whole);
                        add(&self.stats.socket_bytes_out, HEADER as u64);
                        break send_over(doorbell, Header::new(control::DOORBELL), &[], 0);
                    }
                    Push::Full if self.ended.load(Ordering::Relaxed) => break false,
                    Push::Full => {
                        std::thread::sleep(FULL_RING);
                        tries += 1;
                        // Of the guest's threads none may wait for an answer now; one that runs host functions sees to it.
                        // It is told again: whoever reads may stop before there is room.
                        if tries >= FULL_RINGS && tries.is_power_of_two() {
                            send_over(doorbell, Header::new(control::DOORBELL), &[], 0);
                        }
                    }
                }
            },
        };
        drop(sink);
        if sent {
            add(&self.stats.bytes_out, whole);
        }
    }

    /// Asks the guest to run a host function. It comes over the socket even where there is a ring: there a thread of the guest's
    /// sleeps that runs it, and nobody who waits for an answer is disturbed. What the ring holds comes before it.
    pub(crate) fn send_callback(&self, number: u64, status: CUresult) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, behind) = match &mut *sink {
            Sink::Socket(socket) => (socket, 0),
            Sink::Ring(producer, socket) => (socket, producer.position()),
        };
        let mut payload = Vec::new();
        let mut writer = Writer::new(&mut payload);
        writer.put(number);
        writer.put(behind);
        writer.put(status.0);
        let mut header = Header::new(control::CALLBACK);
        header.length = u32::try_from(payload.len()).expect("three fields");
        if send_over(socket, header, &[&payload], 0) {
            let whole = (HEADER + payload.len()) as u64;
            add(&self.stats.socket_bytes_out, whole);
            add(&self.stats.bytes_out, whole);
        }
    }

    /// Ends a call: answers it if the guest waits, keeps its error for later if not.
    pub(crate) fn finish(&self, header: &Header, result: Result, reply: &[u8]) {
        let mut code = CUresult::from(result);
        if !code.is_success() && code != CUresult::ERROR_NOT_READY {
            self.stats.note_error(header.op, code.0);
            if is_fault(code) {
                count(&self.stats.faults);
            }
        }
        if !header.wants_reply() {
            // A capture that an error has ended says so when it is ended.
            if !code.is_success() && !is_fault(code) && !is_capture_error(code) {
                // The first error is the one that explains the others.
                let _ = self.pending.compare_exchange(0, code.0, Ordering::Relaxed, Ordering::Relaxed);
            }
            return;
        }
        if super::dispatch::synchronises(header.op) {
            self.deliveries.flush(self);
            let failed = !code.is_success() && code != CUresult::ERROR_NOT_READY;
            self.send_output(failed || header.op == control::PING);
            let pending = CUresult(self.pending.swap(0, Ordering::Relaxed));
            if code.is_success() {
                code = pending;
            }
        }
        let mut answer = Header::new(control::REPLY);
        answer.thread = header.thread;
        answer.request = header.request;
        answer.context = code.0.into();
        self.send(answer, &[reply]);
        count(&self.stats.replies);
    }

    /// Runs what a call left for its lane, and ends the call.
    pub(crate) fn finish_later(&self, header: &Header, later: Later) {
        let mut reply = Vec::new();
        let result = later(self, &mut reply);
        self.finish(header, result, &reply);
    }

    /// Sends what the device has printed, with what went to stderr if `errors`.
    pub(crate) fn send_output(&self, errors: bool) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut prefix = Vec::new();
        output.drain(errors, |stream, bytes| {
            let mut writer = Writer::new(&mut prefix);
            writer.put(stream);
            writer.put(bytes.len() as u64);
            self.send(Header::new(control::OUTPUT), &[&prefix, bytes]);
        });
    }

    /// Tells the guest why its session is over.
    pub(crate) fn refuse(&self, result: CUresult, message: &str) {
        let refusal =
            Refusal { result: result.0, message: format!("the server ended the session: {message}") };
        if let Ok(payload) = encode(&refusal) {
            self.send(Header::new(control::REFUSAL), &[&payload]);
        }
    }
}

/// Writes a frame to a socket in one system call.
fn send_over(socket: &Socket, header: Header, parts: &[&[u8]], padding: usize) -> bool {
    let bytes = header.to_bytes();
    let zeros = [0; 8];
    let mut slices = [IoSlice::new(&[]); 8];
    slices[0] = IoSlice::new(&bytes);
    for (slice, part) in slices[1..7].iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    slices[7] = IoSlice::new(&zeros[..padding]);
    socket.send_all(&mut slices).is_ok()
}
