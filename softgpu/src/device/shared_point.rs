//! The point of an event that several processes know: two counters in a page that all of them map.
//!
//! A recording takes the next number; who recorded says when it is reached. A process that ends has reached everything.

use super::marker::Marker;
use super::memory::share::anonymous_file;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes of the page.
const PAGE: usize = 4096;
/// How often a waiting process looks whether the one that recorded still lives.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
#[repr(C)]
struct Counters {
    /// The last recording.
    recorded: AtomicU32,
    /// The last one that is reached.
    reached: AtomicU32,
    /// The process that recorded last.
    recorder: AtomicU32,
}

/// The counters as this process maps them.
#[derive(Debug)]
pub(crate) struct SharedPoint {
    counters: NonNull<Counters>,
    file: OwnedFd,
}

// SAFETY: the page holds atomics only, and belongs to this value until it is dropped.
unsafe impl Send for SharedPoint {}
// SAFETY: as above.
unsafe impl Sync for SharedPoint {}

impl SharedPoint {
    /// Counters of an event that was never recorded.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create() -> io::Result<Arc<Self>> {
        Self::open(anonymous_file(PAGE as u64)?)
    }

    /// The counters in another process's file.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(file: OwnedFd) -> io::Result<Arc<Self>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which replaces nothing; the caller's file has a whole page.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        match NonNull::new(at.cast()) {
            Some(counters) if at != libc::MAP_FAILED => Ok(Arc::new(Self { counters, file })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The file that other processes open.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    fn counters(&self) -> &Counters {
        // SAFETY: the page is mapped as long as this value lives; any bytes are valid atomics.
        unsafe { self.counters.as_ref() }
    }

    /// The number of the last recording of any process; 0 for none.
    pub(crate) fn recorded(&self) -> u32 {
        self.counters().recorded.load(Ordering::Acquire)
    }

    /// Notes a recording of this process; its number.
    pub(crate) fn record(self: &Arc<Self>, marker: Arc<Marker>) -> u32 {
        let counters = self.counters();
        counters.recorder.store(std::process::id(), Ordering::Relaxed);
        let number = counters.recorded.fetch_add(1, Ordering::AcqRel) + 1;
        let point = Arc::clone(self);
        std::thread::spawn(move || {
            marker.wait();
            point.reach(number);
        });
        number
    }

    fn reach(&self, number: u32) {
        let reached = &self.counters().reached;
        reached.fetch_max(number, Ordering::AcqRel);
        // SAFETY: the word is mapped; waking has no effect on memory.
        unsafe { libc::syscall(libc::SYS_futex, reached.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }

    /// The point of the last recording of any process; `None` if there was none.
    pub(crate) fn marker(self: &Arc<Self>) -> Option<Arc<Marker>> {
        let number = self.recorded();
        if number == 0 {
            return None;
        }
        if self.counters().reached.load(Ordering::Acquire) >= number {
            return Some(Marker::reached_now());
        }
        let marker = Marker::new();
        let (point, reached) = (Arc::clone(self), Arc::clone(&marker));
        std::thread::spawn(move || {
            point.wait(number);
            reached.reach();
        });
        Some(marker)
    }

    fn wait(&self, number: u32) {
        let counters = self.counters();
        loop {
            let seen = counters.reached.load(Ordering::Acquire);
            if seen >= number || !is_alive(counters.recorder.load(Ordering::Relaxed)) {
                return;
            }
            let pause = libc::timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
            // SAFETY: the word and the time are valid for the call.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    counters.reached.as_ptr(),
                    libc::FUTEX_WAIT,
                    seen,
                    &raw const pause,
                );
            }
        }
    }
}

fn is_alive(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else { return false };
    // SAFETY: signal 0 only asks.
    let answer = unsafe { libc::kill(process, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

impl Drop for SharedPoint {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` and nobody refers to it any more.
        unsafe { libc::munmap(self.counters.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_see_one_recording() {
        let here = SharedPoint::create().unwrap();
        let there = SharedPoint::open(here.file().try_clone().unwrap()).unwrap();
        assert!(there.marker().is_none());
        let marker = Marker::new();
        assert_eq!(here.record(Arc::clone(&marker)), 1);
        let waiting = there.marker().unwrap();
        assert!(!waiting.is_reached());
        marker.reach();
        waiting.wait();
        assert!(there.marker().unwrap().is_reached());
        assert_eq!(there.record(Marker::reached_now()), 2);
        here.marker().unwrap().wait();
    }

    #[test]
    fn a_process_that_is_gone_has_reached_everything() {
        let point = SharedPoint::create().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        point.counters().recorder.store(child.id(), Ordering::Relaxed);
        child.wait().unwrap();
        point.counters().recorded.store(1, Ordering::Relaxed);
        point.marker().unwrap().wait();
    }
}
