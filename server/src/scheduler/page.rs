//! The page that a worker shares with the daemon: the worker's gates, and what it does behind them.
//!
//! The worker reads one word before it hands a command to the driver, and parks on it (`futex(2)`) where it says *closed*;
//! no message passes. What it does, it writes beside that word; the daemon reads it when it decides. The bell is an event
//! descriptor by which the worker has the daemon look: when it begins to wait, has run dry or nearly drained.
//!
//! One slot is one device. To the daemon, every number in it is an
//! allegation of a process that a guest may have taken over: [`Slot::read`] bounds what it takes, and a lie is one about the
//! worker's own VM.

use super::{Gate, HANDOVER, Nanos, Observation};
use crate::page::Shared;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Devices that a page has slots for; those beyond share the last one.
pub const DEVICES: usize = 16;

/// Directions of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the device.
    ToDevice = 0,
    /// To the host.
    ToHost = 1,
}

/// Values of [`Slot::gate`].
pub mod gate {
    /// Nothing is scheduled.
    pub const OFF: u32 = 0;
    /// Wide open, with a limit on what is in flight.
    pub const FREE: u32 = 1;
    /// Open until the deadline, and measured.
    pub const OPEN: u32 = 2;
    /// As [`OPEN`]; the daemon wants to hear of each command that finds the device without work of this worker.
    pub const OPEN_TELL: u32 = 3;
    /// Closed.
    pub const CLOSED: u32 = 4;
}

/// What a worker and the daemon share about one device.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// The gate of compute work: a value of [`gate`]. The daemon writes it; the worker may close it.
    pub gate: AtomicU32,
    /// Gates of the two directions of copies: 0 for open, 1 for closed. Written by the daemon.
    pub copy_gates: [AtomicU32; 2],
    /// Threads of the worker that wait at [`Self::gate`].
    pub waiting: AtomicU32,
    /// Those that wait at [`Self::copy_gates`].
    pub copy_waiting: [AtomicU32; 2],
    /// Commands let through and not known to be complete, where they are measured.
    pub in_flight: AtomicU32,
    /// 1 where the worker has closed its gate because its lease is used up.
    pub stopped: AtomicU32,
    /// Commands that the guest has marked as urgent and that wait at [`Self::gate`].
    pub marked_waiting: AtomicU32,
    /// 1 where one of those in flight was.
    pub marked_in_flight: AtomicU32,
    /// When the lease ends, on `CLOCK_MONOTONIC` in nanoseconds. Written by the daemon.
    pub deadline: AtomicU64,
    /// How long a kernel may take in nanoseconds, 0 for no limit. Written by the daemon.
    pub max_kernel: AtomicU64,
    /// When all in flight will be complete, as estimated; the clock is that of `deadline`.
    pub done_at: AtomicU64,
    /// The same if each takes as long as the longest of its kind, and long ones a little longer than that.
    pub done_by: AtomicU64,
    /// Device time of what is in flight and not charged yet, as estimated, in nanoseconds.
    pub pending: AtomicU64,
    /// Device time measured so far, in nanoseconds.
    pub charged: AtomicU64,
    /// Device time of commands behind a wide open gate, as estimated, in nanoseconds.
    pub estimated: AtomicU64,
    /// Compute commands let through.
    pub commands: AtomicU64,
    /// Bytes copied in each direction.
    pub copied: [AtomicU64; 2],
}

/// The page.
#[derive(Debug)]
#[repr(C)]
pub struct Slots {
    /// By device.
    pub slots: [Slot; DEVICES],
}

/// Now, on `CLOCK_MONOTONIC`, which all processes of the host share.
#[must_use]
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a local; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Sleeps while `word` is `value`, for at most `most`.
pub fn wait(word: &AtomicU32, value: u32, most: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(most.subsec_nanos()),
    };
    // Shared between processes, so not FUTEX_PRIVATE_FLAG.
    // SAFETY: an aligned word that outlives the call, and a pointer to a local.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time);
    }
}

/// Wakes all who sleep on `word`.
pub fn wake(word: &AtomicU32) {
    // SAFETY: an aligned word that outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Rings a bell; one that is rung already stays so.
pub fn ring(bell: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight bytes of a local to a descriptor of ours, which does not block.
    unsafe { libc::write(bell.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// A new bell.
///
/// # Errors
/// The operating system's.
pub fn bell() -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Slot {
    /// Puts the gate of compute work, and wakes who waits there. For the daemon.
    pub fn put(&self, gate: Gate) {
        let word = match gate {
            Gate::Off => gate::OFF,
            Gate::Free => gate::FREE,
            Gate::Open { deadline, tell } => {
                self.deadline.store(deadline, Ordering::Relaxed);
                if tell { gate::OPEN_TELL } else { gate::OPEN }
            }
            Gate::Closed => gate::CLOSED,
        };
        self.stopped.store(0, Ordering::Relaxed);
        // Release: who sees the gate open sees its deadline.
        self.gate.store(word, Ordering::Release);
        if word != gate::CLOSED {
            wake(&self.gate);
        }
    }

    /// Puts the gate of a direction of copies. For the daemon.
    pub fn put_copies(&self, direction: Direction, open: bool) {
        let word = &self.copy_gates[direction as usize];
        word.store(u32::from(!open), Ordering::Release);
        if open {
            wake(word);
        }
    }

    /// What the worker does; `charged` counts from the start. For the daemon.
    #[must_use]
    pub fn read(&self, now: Nanos) -> Observation {
        let in_flight = self.in_flight.load(Ordering::Relaxed).min(1 << 20);
        let done_at = self.done_at.load(Ordering::Relaxed);
        let left = self.done_by.load(Ordering::Relaxed).saturating_sub(now);
        // What takes longer than it should costs what it takes.
        let pending = self.pending.load(Ordering::Relaxed).saturating_add(now.saturating_sub(done_at));
        // What should be complete and is not may take as long as it likes.
        let remaining = match (in_flight, left) {
            (0, _) => 0,
            (_, 0) => HANDOVER + 1,
            (_, left) => left,
        };
        Observation {
            waiting: self.waiting.load(Ordering::Acquire) > 0,
            in_flight,
            processes: u32::from(in_flight > 0),
            remaining,
            pending: if in_flight == 0 { 0 } else { pending },
            charged: self.charged.load(Ordering::Relaxed),
            stopped: self.stopped.load(Ordering::Relaxed) != 0,
            marked: self.marked_waiting.load(Ordering::Relaxed) > 0
                || self.marked_in_flight.load(Ordering::Relaxed) > 0,
        }
    }
}

// SAFETY: atomics of 32 and 64 bits and nothing else.
unsafe impl Shared for Slots {
    const NAME: &'static CStr = c"pxos-gate";
}

impl Slots {
    /// The slot of a device.
    #[must_use]
    pub fn slot(&self, device: usize) -> &Slot {
        &self.slots[device.min(DEVICES - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use std::time::Instant;

    #[test]
    fn an_opened_gate_wakes_who_waits_there() {
        let (daemon, fd) = Page::<Slots>::create().unwrap();
        let worker = Page::<Slots>::map(&fd).unwrap();
        daemon.slot(3).put(Gate::Closed);
        let waiter = std::thread::spawn(move || {
            let slot = worker.slot(3);
            let begun = Instant::now();
            while slot.gate.load(Ordering::Acquire) == gate::CLOSED {
                assert!(begun.elapsed() < Duration::from_secs(60));
                wait(&slot.gate, gate::CLOSED, Duration::from_secs(5));
            }
            slot.deadline.load(Ordering::Relaxed)
        });
        std::thread::sleep(Duration::from_millis(20));
        daemon.slot(3).put(Gate::Open { deadline: 77, tell: false });
        assert_eq!(waiter.join().unwrap(), 77);
    }

    #[test]
    fn garbage_is_only_odd_numbers() {
        let (daemon, fd) = Page::<Slots>::create().unwrap();
        let worker = Page::<Slots>::map(&fd).unwrap();
        let slot = worker.slot(usize::MAX);
        slot.in_flight.store(u32::MAX, Ordering::Relaxed);
        slot.charged.store(u64::MAX, Ordering::Relaxed);
        let seen = daemon.slot(DEVICES - 1).read(now());
        assert!(seen.in_flight <= 1 << 20 && seen.processes == 1);
        let bell = bell().unwrap();
        ring(&bell);
        ring(&bell);
    }
}
