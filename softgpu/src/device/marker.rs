//! A point in the work of a stream: not yet reached, or reached at a time. Streams order their work by waiting for
//! markers, and events are named markers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A point that is reached once.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    reached: AtomicBool,
    at: Mutex<Option<Instant>>,
    signal: Condvar,
}

impl Marker {
    /// A point not reached yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A point reached now.
    pub(crate) fn reached_now() -> Arc<Self> {
        let marker = Self::new();
        marker.reach();
        marker
    }

    /// Whether the work before it is done; if so, its effects are visible to the caller.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// When it was reached.
    pub(crate) fn time(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the work before it as done. A second time changes nothing.
    pub(crate) fn reach(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.get_or_insert_with(Instant::now);
        self.reached.store(true, Ordering::Release);
        drop(at);
        self.signal.notify_all();
    }

    /// Waits until it is reached.
    pub(crate) fn wait(&self) {
        if self.is_reached() {
            return;
        }
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        while at.is_none() {
            at = self.signal.wait(at).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_point_is_reached() {
        let marker = Marker::new();
        assert!(!marker.is_reached());
        assert!(marker.time().is_none());
        let other = Arc::clone(&marker);
        let thread = std::thread::spawn(move || other.reach());
        marker.wait();
        thread.join().unwrap();
        assert!(marker.is_reached());
        let time = marker.time().unwrap();
        marker.reach();
        assert_eq!(marker.time().unwrap(), time);
    }
}
