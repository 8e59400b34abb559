//! Host callbacks (`cuLaunchHostFunc`, `cuStreamAddCallback`): the worker says when one is due, a thread of ours calls it, and
//! the stream goes on when it has returned (CUDA driver API, "Stream management").

use crate::lock;
use crate::session::Session;
use pxos_protocol::frame::{Header, control};
use pxos_protocol::types::{CUhostFn, CUresult, CUstream, CUstreamCallback};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

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
    kept: HashMap<u64, Kept>,
}

/// A function that may be called many times.
#[derive(Debug)]
struct Kept {
    callback: Callback,
    /// How many launches have yet to call it.
    due: u64,
    /// Nobody launches it any more.
    gone: bool,
    /// It is called once at most, and nothing waits for it.
    once: bool,
}

/// A host function of a graph's node; lives as long as a graph or a launch may call it.
#[derive(Debug)]
pub(crate) struct HostFunction {
    session: &'static Session,
    number: u64,
}

impl HostFunction {
    /// Its number on the wire.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// A launch is on its way that will call it.
    pub(crate) fn is_due(&self) {
        let mut state = lock(&self.session.callbacks.state);
        if let Some(kept) = state.kept.get_mut(&self.number) {
            kept.due += 1;
        }
    }
}

impl Drop for HostFunction {
    fn drop(&mut self) {
        let mut state = lock(&self.session.callbacks.state);
        if let Some(kept) = state.kept.get_mut(&self.number) {
            kept.gone = true;
            if kept.due == 0 {
                state.kept.remove(&self.number);
            }
        }
    }
}

impl Callbacks {
    /// Keeps `callback` until the worker asks for it; its number.
    ///
    /// # Errors
    /// `CUDA_ERROR_OPERATING_SYSTEM` where the thread that calls cannot be started.
    pub(crate) fn register(&self, session: &'static Session, callback: Callback) -> Result<u64, CUresult> {
        let mut state = lock(&self.state);
        let number = state.number(session)?;
        state.pending.insert(number, callback);
        Ok(number)
    }

    /// Keeps a function of a graph's node.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub(crate) fn keep(
        &self,
        session: &'static Session,
        callback: Callback,
    ) -> Result<Arc<HostFunction>, CUresult> {
        let mut state = lock(&self.state);
        let number = state.number(session)?;
        state.kept.insert(number, Kept { callback, due: 0, gone: false, once: false });
        Ok(Arc::new(HostFunction { session, number }))
    }

    /// Keeps a function that is called when something ends; no work of a stream waits for it.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub(crate) fn keep_once(&self, session: &'static Session, callback: Callback) -> Result<u64, CUresult> {
        let mut state = lock(&self.state);
        let number = state.number(session)?;
        state.kept.insert(number, Kept { callback, due: 0, gone: false, once: true });
        Ok(number)
    }

    /// Forgets what [`Self::keep_once`] kept.
    pub(crate) fn forget_once(&self, number: u64) {
        lock(&self.state).kept.remove(&number);
    }

    /// The function behind a number of [`Self::keep`].
    pub(crate) fn kept(&self, number: u64) -> Option<Callback> {
        lock(&self.state).kept.get(&number).map(|kept| kept.callback)
    }

    /// Whether host functions are on their way, which may still write to memory that a later copy reads.
    pub(crate) fn are_pending(&self) -> bool {
        let state = lock(&self.state);
        !state.pending.is_empty() || state.kept.values().any(|kept| kept.due > 0)
    }

    /// Forgets a callback that has returned.
    fn forget(&self, number: u64) {
        let mut state = lock(&self.state);
        if state.pending.remove(&number).is_some() {
            return;
        }
        if let Some(kept) = state.kept.get_mut(&number) {
            kept.due = kept.due.saturating_sub(1);
            if kept.once || (kept.gone && kept.due == 0) {
                state.kept.remove(&number);
            }
        }
    }

    fn find(&self, number: u64) -> Option<Callback> {
        let state = lock(&self.state);
        state.pending.get(&number).copied().or_else(|| state.kept.get(&number).map(|kept| kept.callback))
    }
}

impl State {
    /// A new number, and a thread that calls.
    fn number(&mut self, session: &'static Session) -> Result<u64, CUresult> {
        if !self.started {
            if !spawn_quiet("pxos-callback", move || run(session)) {
                return Err(CUresult::ERROR_OPERATING_SYSTEM);
            }
            self.started = true;
        }
        self.next += 1;
        Ok(self.next)
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
        session.graphs.after_callback(session, number);
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

/// Blocks every signal in this thread, so that threads that it starts take none of the application's. Not `SIGSEGV`: a host
/// function may touch managed memory, and waits for it by that signal ([`crate::exclusive`]).
pub(crate) fn block_signals() -> BlockedSignals {
    // SAFETY: signal sets are plain data, filled before they are used.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigdelset(&raw mut all, libc::SIGSEGV);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(due: u64, gone: bool, once: bool) -> Kept {
        Kept { callback: Callback::Host(None, 0), due, gone, once }
    }

    #[test]
    fn a_function_lives_until_the_last_launch_has_called_it() {
        let callbacks = Callbacks::default();
        let keep = |number, one| callbacks.state.lock().unwrap().kept.insert(number, one);
        keep(1, kept(2, true, false));
        keep(2, kept(0, false, true));
        keep(3, kept(1, false, false));
        assert!(callbacks.are_pending());
        callbacks.forget(1);
        assert!(callbacks.kept(1).is_some());
        callbacks.forget(1);
        assert!(callbacks.kept(1).is_none());
        callbacks.forget(2);
        assert!(callbacks.kept(2).is_none(), "called once at most");
        callbacks.forget(3);
        assert!(callbacks.kept(3).is_some(), "its graph may be launched again");
        assert!(!callbacks.are_pending());
    }
}
