//! Host callbacks (`cuLaunchHostFunc`, `cuStreamAddCallback`): the worker says when one is due, a thread of ours calls it, and
//! the stream goes on when it has returned (CUDA driver API, "Stream management").

use crate::session::Session;
use pxos_protocol::frame::{Header, control};
use pxos_protocol::types::{CUhostFn, CUresult, CUstream, CUstreamCallback};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// What to call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Callback {
    /// `cuLaunchHostFunc`.
    Host(CUhostFn, usize),
    /// `cuStreamAddCallback`.
    Stream(CUstreamCallback, CUstream, usize),
}

/// Callbacks that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    next: u64,
    pending: HashMap<u64, Callback>,
}

impl Callbacks {
    /// Keeps `callback` until the worker asks for it; its number.
    ///
    /// # Errors
    /// `CUDA_ERROR_OPERATING_SYSTEM` where the thread that calls cannot be started.
    pub(crate) fn register(&self, session: &'static Session, callback: Callback) -> Result<u64, CUresult> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.started {
            if !spawn_quiet("pxos-callback", move || run(session)) {
                return Err(CUresult::ERROR_OPERATING_SYSTEM);
            }
            state.started = true;
        }
        state.next += 1;
        let number = state.next;
        state.pending.insert(number, callback);
        Ok(number)
    }

    /// Whether host functions are on their way, which may still write to memory that a later copy reads.
    pub(crate) fn are_pending(&self) -> bool {
        !self.state.lock().unwrap_or_else(PoisonError::into_inner).pending.is_empty()
    }

    /// Forgets a callback that has returned.
    fn forget(&self, number: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pending.remove(&number);
    }

    fn find(&self, number: u64) -> Option<Callback> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pending.get(&number).copied()
    }
}

fn run(session: &'static Session) {
    while let Ok((number, status)) = session.link.wait_callback() {
        match session.callbacks.find(number) {
            Some(Callback::Host(Some(function), user_data)) => {
                let user_data: *mut c_void = std::ptr::with_exposed_provenance_mut(user_data);
                // SAFETY: the application gave the function and its data to cuLaunchHostFunc for just this.
                unsafe { function(user_data) };
            }
            Some(Callback::Stream(Some(function), stream, user_data)) => {
                let user_data: *mut c_void = std::ptr::with_exposed_provenance_mut(user_data);
                // SAFETY: the application gave the function and its data to cuStreamAddCallback for just this.
                unsafe { function(stream, CUresult(status), user_data) };
            }
            _ => {}
        }
        session.callbacks.forget(number);
        let mut header = Header::new(control::CALLBACK_DONE);
        header.thread = crate::thread::number();
        if session.link.send(header, &number.to_le_bytes()).is_err() {
            return;
        }
    }
}

/// Signals of this thread while they are blocked; put back when it goes.
pub(crate) struct BlockedSignals(libc::sigset_t);

/// Blocks every signal in this thread, so that threads that it starts take none of the application's.
pub(crate) fn block_signals() -> BlockedSignals {
    // SAFETY: signal sets are plain data, filled before they are used.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        BlockedSignals(before)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the mask that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Starts a thread that takes no signal of the application's. `false` where the system refuses.
pub(crate) fn spawn_quiet(name: &str, body: impl FnOnce() + Send + 'static) -> bool {
    let _signals = block_signals();
    std::thread::Builder::new().name(name.to_owned()).stack_size(8 << 20).spawn(body).is_ok()
}
