//! Host callbacks: the driver's thread waits here while the guest runs the function, so that the stream waits too.

use super::session::Session;
use pxos_protocol::codec::Writer;
use pxos_protocol::frame::{Header, control};
use pxos_protocol::types::CUresult;
use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Callbacks that the guest is running.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
    changed: Condvar,
    /// Callbacks in streams, run or not.
    tickets: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashSet<u64>,
    ended: bool,
}

/// One callback on its way through a stream.
pub(crate) struct Ticket {
    session: Arc<Session>,
    number: u64,
}

impl Ticket {
    /// A pointer for the driver, which gives it back to one of the functions below exactly once.
    pub(crate) fn into_user_data(session: &Arc<Session>, number: u64) -> *mut c_void {
        session.callbacks.tickets.fetch_add(1, Ordering::AcqRel);
        Box::into_raw(Box::new(Self { session: Arc::clone(session), number })).cast()
    }

    /// Takes back a pointer that the driver will not use.
    ///
    /// # Safety
    /// The pointer is from [`Self::into_user_data`] and was not given to the driver.
    pub(crate) unsafe fn reclaim(user_data: *mut c_void) {
        // SAFETY: by this function's contract.
        drop(unsafe { Box::from_raw(user_data.cast::<Self>()) });
    }

    fn run(&self, status: CUresult) {
        let callbacks = &self.session.callbacks;
        let mut state = callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return;
        }
        state.under_way.insert(self.number);
        drop(state);
        let mut payload = Vec::new();
        let mut writer = Writer::new(&mut payload);
        writer.put(self.number);
        writer.put(status.0);
        // What the device printed before the callback belongs before what the callback prints.
        self.session.send_output();
        self.session.send(Header::new(control::CALLBACK), &[&payload]);
        let mut state = callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.under_way.contains(&self.number) && !state.ended {
            state = callbacks.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.callbacks.tickets.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Callbacks {
    /// Whether any callback is in a stream: then a call that waits for the device may wait for the guest.
    pub(crate) fn are_pending(&self) -> bool {
        self.tickets.load(Ordering::Acquire) > 0
    }

    /// The guest has run that callback.
    pub(crate) fn done(&self, number: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).under_way.remove(&number);
        self.changed.notify_all();
    }

    /// The session is over: nobody will run callbacks any more.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }
}

/// Called by the driver for `cuLaunchHostFunc`.
pub(crate) unsafe extern "C" fn host_function(user_data: *mut c_void) {
    // SAFETY: the pointer of `into_user_data`, given back once.
    let ticket = unsafe { Box::from_raw(user_data.cast::<Ticket>()) };
    ticket.run(CUresult::SUCCESS);
}

/// Called by the driver for `cuStreamAddCallback`.
pub(crate) unsafe extern "C" fn stream_callback(_stream: u64, status: CUresult, user_data: *mut c_void) {
    // SAFETY: the pointer of `into_user_data`, given back once.
    let ticket = unsafe { Box::from_raw(user_data.cast::<Ticket>()) };
    ticket.run(status);
}
