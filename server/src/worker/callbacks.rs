//! Host callbacks: the driver's thread waits here while the guest runs the function, so that the stream waits too.

use super::api::graph::Use;
use super::session::Session;
use crate::driver::HostFn;
use pxos_protocol::types::CUresult;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// What the first callback does before it is told to the guest.
type OnFirst = Box<dyn FnOnce() + Send>;

/// Callbacks that the guest is running.
#[derive(Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
    changed: Condvar,
    /// For who waits that there is one.
    asked: Condvar,
    on_first: Mutex<Option<OnFirst>>,
}

#[derive(Debug, Default)]
struct State {
    /// By number: how often it was asked for, and how often it has returned. A graph that runs in two streams may ask twice.
    under_way: HashMap<u64, (u64, u64)>,
    /// Whether somebody waits that there is one.
    awaited: bool,
    ended: bool,
}

/// One callback on its way through a stream.
pub(crate) struct Ticket {
    session: Arc<Session>,
    number: u64,
    /// What graphs before it in the stream have written, which it may look at.
    before: Vec<Arc<Vec<Use>>>,
}

impl Ticket {
    /// A pointer for the driver, which gives it back to one of the functions below exactly once.
    pub(crate) fn into_user_data(
        session: &Arc<Session>,
        number: u64,
        before: Vec<Arc<Vec<Use>>>,
    ) -> *mut c_void {
        Box::into_raw(Box::new(Self { session: Arc::clone(session), number, before })).cast()
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
        self.session.deliveries.send(&self.session, &self.before);
        call_guest(&self.session, self.number, status);
    }
}

/// Has the guest run a function, and waits until it has.
fn call_guest(session: &Session, number: u64, status: CUresult) {
    let callbacks = &session.callbacks;
    let mut state = callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.ended {
        return;
    }
    let asked = state.under_way.entry(number).or_default();
    asked.0 += 1;
    let turn = asked.0;
    if std::mem::take(&mut state.awaited) {
        callbacks.asked.notify_all();
    }
    drop(state);
    if let Some(first) = callbacks.on_first.lock().unwrap_or_else(PoisonError::into_inner).take() {
        first();
    }
    ask_guest(session, number, status);
    let mut state = callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    // The guest runs functions one after another, so the one that asked first is answered first.
    while state.under_way.get(&number).is_some_and(|(_, returned)| *returned < turn) && !state.ended {
        state = callbacks.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if state.under_way.get(&number).is_some_and(|(asked, returned)| asked == returned) {
        state.under_way.remove(&number);
    }
}

fn ask_guest(session: &Session, number: u64, status: CUresult) {
    // What the device printed before the callback belongs before what the callback prints.
    session.send_output(true);
    session.send_callback(number, status);
}

impl Callbacks {
    /// What to do when the guest is asked to run one for the first time.
    pub(crate) fn on_first(&self, start: OnFirst) {
        *self.on_first.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }

    /// Waits until the guest has been asked to run one and has not said that it returned; false when the session is over.
    pub(crate) fn wait_for_one(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.under_way.is_empty() && !state.ended {
            state.awaited = true;
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.ended
    }

    /// The guest has run that callback.
    pub(crate) fn done(&self, number: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, returned)) = state.under_way.get_mut(&number) {
            *returned = asked.min(&mut (*returned + 1)).to_owned();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The session is over: nobody will run callbacks any more.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
        self.asked.notify_all();
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

/// The session of this worker, for functions that the driver calls as often as it likes and that own nothing: what they are
/// given is a number.
static SESSION: OnceLock<Arc<Session>> = OnceLock::new();

/// A host function of a graph's node, and what the driver is to give it.
pub(crate) fn kept(session: &Arc<Session>, number: u64) -> (HostFn, *mut c_void) {
    SESSION.get_or_init(|| Arc::clone(session));
    (kept_function, std::ptr::without_provenance_mut(usize::try_from(number).unwrap_or(usize::MAX)))
}

/// The function that the driver calls when a user object has no reference any more.
pub(crate) fn ending(session: &Arc<Session>, number: u64) -> (HostFn, *mut c_void) {
    let (_, data) = kept(session, number);
    (ended_object, data)
}

unsafe extern "C" fn kept_function(user_data: *mut c_void) {
    if let Some(session) = SESSION.get() {
        session.deliveries.flush_for_call(session);
        call_guest(session, user_data.addr() as u64, CUresult::SUCCESS);
    }
}

unsafe extern "C" fn ended_object(user_data: *mut c_void) {
    // It may be called within a call of the leader's: nobody waits for the guest here.
    if let Some(session) = SESSION.get() {
        ask_guest(session, user_data.addr() as u64, CUresult::SUCCESS);
    }
}
