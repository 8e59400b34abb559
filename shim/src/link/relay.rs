//! Waiting for what comes over a connection that has no thread of its own to read it: of the threads that wait one reads and
//! hands the others theirs; when it has what it waits for, the next takes over.

use crate::lock;
use pxos_protocol::types::CUresult;
use std::sync::{Condvar, Mutex, PoisonError};

/// What has come, and who waits.
#[derive(Debug, Default)]
pub(super) struct Relay<T> {
    turn: Mutex<Turn<T>>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Turn<T> {
    reading: bool,
    /// Threads that wait until another has read: telling nobody would be a system call in every call.
    waiting: usize,
    kept: T,
}

impl<T> Relay<T> {
    /// Does something with what has come.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut lock(&self.turn).kept)
    }

    /// Waits until `done` finds what it looks for; `read` reads, where nobody else does, one thing that comes. It must not be
    /// called with anything locked that `read` takes.
    ///
    /// # Errors
    /// Those of `alive`, which is asked before each wait.
    pub(super) fn wait<R>(
        &self,
        alive: impl Fn() -> Result<(), CUresult>,
        read: impl Fn(),
        mut done: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, CUresult> {
        let mut turn = lock(&self.turn);
        loop {
            if let Some(found) = done(&mut turn.kept) {
                return Ok(found);
            }
            alive()?;
            if turn.reading {
                turn.waiting += 1;
                turn = self.arrived.wait(turn).unwrap_or_else(PoisonError::into_inner);
                turn.waiting -= 1;
                continue;
            }
            turn.reading = true;
            drop(turn);
            read();
            turn = lock(&self.turn);
            turn.reading = false;
            if turn.waiting > 0 {
                self.arrived.notify_all();
            }
        }
    }

    /// Reads, unless somebody does.
    pub(super) fn read(&self, read: impl FnOnce()) {
        let mut turn = lock(&self.turn);
        if turn.reading {
            return;
        }
        turn.reading = true;
        drop(turn);
        read();
        lock(&self.turn).reading = false;
        self.arrived.notify_all();
    }

    /// Has all who wait look again.
    pub(super) fn wake(&self) {
        // Whoever has looked and does not wait yet holds it.
        drop(lock(&self.turn));
        self.arrived.notify_all();
    }
}
