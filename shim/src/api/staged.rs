//! Large copies of pageable memory through the staging area: several threads copy between the application's memory and
//! slots while the device copies between other slots and its own.

use super::Result;
use crate::memory::Staging;
use crate::session::Session;
use crate::thread;
use pxos_protocol::control::STAGING_SLOT;
use pxos_protocol::frame::control;
use pxos_protocol::types::CUresult;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Threads that copy, the caller included. Measured on an H200 host: one thread moves 9 GB/s, four 32, eight no more.
const THREADS: usize = 4;

/// Below this many bytes a second thread costs more than it brings (starting one takes about 30 µs, copying 300).
const ALONE: usize = 3 << 20;

/// Smallest chunk: a message and an event cost about 5 µs, as much as the device's copy of 256 KiB.
const MIN_CHUNK: usize = 256 << 10;

/// One copy, cut into chunks that threads take one after the other.
struct Job<'a> {
    session: &'static Session,
    staging: &'a Staging,
    host: usize,
    device: u64,
    stream: u64,
    bytes: usize,
    chunk: usize,
    next: AtomicUsize,
    failed: AtomicU32,
}

/// Copies to the device; returns when the source may be reused.
///
/// # Safety
/// `bytes` at `source` may be read.
pub(super) unsafe fn to_device(
    session: &'static Session,
    staging: &Staging,
    destination: u64,
    source: *const u8,
    bytes: usize,
    stream: u64,
) -> Result {
    Job::new(session, staging, source.expose_provenance(), destination, bytes, stream).run(
        |job, host, device, length| {
            let slot = job.staging.take(job.session)?;
            let from = std::ptr::with_exposed_provenance::<u8>(host);
            // SAFETY: a chunk of the range of this function's contract, into a slot that this thread has taken.
            unsafe { std::ptr::copy_nonoverlapping(from, job.staging.address(slot), length) };
            let sent = job.session.post(control::STAGE_WRITE, |writer| {
                writer.put(device);
                writer.put(job.stream);
                writer.put(slot);
                writer.put(length as u64);
            });
            job.staging.drain(slot);
            sent
        },
    )
}

/// Copies to the host; returns when all is there.
///
/// # Safety
/// `bytes` at `destination` may be written.
pub(super) unsafe fn to_host(
    session: &'static Session,
    staging: &Staging,
    destination: *mut u8,
    source: u64,
    bytes: usize,
    stream: u64,
) -> Result {
    Job::new(session, staging, destination.expose_provenance(), source, bytes, stream).run(
        |job, host, device, length| {
            let slot = job.staging.take(job.session)?;
            let filled = job
                .session
                .post(control::STAGE_READ, |writer| {
                    writer.put(device);
                    writer.put(job.stream);
                    writer.put(slot);
                    writer.put(length as u64);
                })
                .and_then(|()| job.session.call(control::STAGE_WAIT, |writer| writer.put(slot)));
            if filled.is_ok() {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(host);
                // SAFETY: a chunk of the range of this function's contract, from a slot that the device has filled.
                unsafe { std::ptr::copy_nonoverlapping(job.staging.address(slot), to, length) };
            }
            job.staging.give_back(slot);
            filled.map(|_| ())
        },
    )
}

impl<'a> Job<'a> {
    fn new(
        session: &'static Session,
        staging: &'a Staging,
        host: usize,
        device: u64,
        bytes: usize,
        stream: u64,
    ) -> Self {
        let largest = usize::try_from(STAGING_SLOT).expect("slots are small");
        let chunk = (bytes / (2 * THREADS)).next_multiple_of(4096).clamp(MIN_CHUNK, largest);
        let (next, failed) = (AtomicUsize::new(0), AtomicU32::new(0));
        Self { session, staging, host, device, stream, bytes, chunk, next, failed }
    }

    /// Runs `step` for every chunk: host address, device address, length.
    fn run(&self, step: impl Fn(&Self, usize, u64, usize) -> Result + Sync) -> Result {
        let work = || {
            // Relaxed: a counter; what the threads share is ordered by the start and the end of the scope.
            while self.failed.load(Ordering::Relaxed) == 0 {
                let offset = self.next.fetch_add(1, Ordering::Relaxed) * self.chunk;
                if offset >= self.bytes {
                    return;
                }
                let length = self.chunk.min(self.bytes - offset);
                if let Err(error) = step(self, self.host + offset, self.device + offset as u64, length) {
                    let _ = self.failed.compare_exchange(0, error.0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let helpers = if self.bytes <= ALONE { 0 } else { THREADS.min(processors) - 1 };
        if helpers == 0 {
            work();
        } else {
            let identity = thread::identity();
            let signals = crate::callbacks::block_signals();
            std::thread::scope(|scope| {
                for _ in 0..helpers {
                    // A system that gives no thread leaves the work to those there are.
                    let _ = std::thread::Builder::new().name("pxos-copy".into()).spawn_scoped(scope, || {
                        thread::adopt(identity);
                        work();
                    });
                }
                drop(signals);
                work();
            });
        }
        CUresult(self.failed.load(Ordering::Relaxed)).ok()
    }
}
