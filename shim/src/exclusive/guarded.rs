//! A lock that a signal handler may take: its holder takes no signals, so that none can find it held by its own thread, and
//! holds it for a moment only.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

/// A value behind such a lock. Whoever holds it must not fault: `SIGSEGV` waits, too.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    held: AtomicBool,
    /// The signals that the holder blocked before.
    mask: UnsafeCell<MaybeUninit<libc::sigset_t>>,
    value: UnsafeCell<T>,
}

// SAFETY: both cells are touched by the holder only.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// A value that nobody holds.
    pub(super) const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            mask: UnsafeCell::new(MaybeUninit::uninit()),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `body` with the value.
    pub(super) fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        self.acquire();
        // SAFETY: acquired above.
        let result = body(unsafe { self.value() });
        self.release();
        result
    }

    /// Takes the lock, until [`Self::release`] on the same thread.
    pub(super) fn acquire(&self) {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both have room for a set; the first is filled before it is read.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        // Acquire and release order what holders do.
        while self.held.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // The holder may have to get the processor first.
            std::thread::yield_now();
        }
        // SAFETY: this thread is the holder.
        unsafe { self.mask.get().write(before) };
    }

    /// Lets go of it.
    pub(super) fn release(&self) {
        // SAFETY: this thread is the holder.
        let before = unsafe { self.mask.get().read() };
        self.held.store(false, Ordering::Release);
        // SAFETY: a set that `acquire` has got of the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }

    /// The value.
    ///
    /// # Safety
    /// The caller holds the lock, and has no other reference.
    #[expect(clippy::mut_from_ref, reason = "the lock is what makes it the only one")]
    pub(super) unsafe fn value(&self) -> &mut T {
        // SAFETY: by this function's contract.
        unsafe { &mut *self.value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(signal: libc::c_int) -> bool {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: room for a set, which the call fills.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr());
            libc::sigismember(set.as_ptr(), signal) == 1
        }
    }

    #[test]
    fn one_thread_holds_it_and_takes_no_signals_meanwhile() {
        static COUNT: Guarded<u64> = Guarded::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        COUNT.with(|count| *count += 1);
                    }
                });
            }
        });
        assert!(!blocks(libc::SIGALRM));
        assert!(COUNT.with(|_| blocks(libc::SIGALRM)));
        assert!(!blocks(libc::SIGALRM));
        assert_eq!(COUNT.with(|count| *count), 8000);
    }
}
