//! The table of sessions, and how many there may be.

use super::bar;
use super::process::Worker;
use crate::handoff::Memory;
use crate::stats::State;
use crate::vm::registry::Vm;
use parking_lot::Mutex;
use pxos_protocol::transport::Socket;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

/// A session: one guest process and its worker.
#[derive(Debug)]
pub(super) struct Session {
    /// The VM.
    pub(super) vm: Arc<Vm>,
    /// The program in the guest, fit for a log.
    pub(super) program: String,
    /// Its process id there.
    pub(super) pid: u32,
    /// Version of its shim, fit for a log.
    pub(super) software: String,
    /// Where it came from.
    pub(super) peer: String,
    /// Its slot in the VM's quota.
    pub(super) slot: usize,
    /// Its devices, by their numbers among the server's.
    pub(super) devices: Vec<usize>,
    /// Bytes of device memory that it limits itself to.
    pub(super) own_limit: Option<u64>,
    /// Its worker.
    pub(super) worker: Arc<Worker>,
    /// The memory that it shares with its worker, for the status.
    pub(super) memory: Memory,
    /// Its part of the VM's memory, free again when the session is over and its worker gone.
    pub(super) part: Option<bar::Slot>,
    /// The guest's connection, which the daemon only closes once the worker is gone.
    pub(super) connection: Option<Socket>,
    /// When it began.
    pub(super) started: (SystemTime, Instant),
    /// Whether an operator or the end of the daemon ended it.
    pub(super) dismissed: bool,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<u64, Session>,
    last: u64,
    /// Places given out for sessions that do not stand yet: their numbers and VMs.
    reserved: BTreeMap<u64, Arc<Vm>>,
}

/// A place for a session, which is free again when this goes.
#[derive(Debug)]
pub(super) struct Place<'a> {
    sessions: &'a Sessions,
    /// Number that the session will have.
    pub(super) id: u64,
    /// Its VM.
    pub(super) vm: Arc<Vm>,
}

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// The server has as many as it may.
    #[error("the server has {0} sessions already, as many as it may (max_sessions)")]
    Server(usize),
    /// The VM has.
    #[error("VM '{0}' has {1} sessions already, as many as it may (max_processes)")]
    Vm(String, usize),
    /// An operator drains it.
    #[error("VM '{0}' is drained: it gets no more sessions")]
    Draining(String),
}

impl Sessions {
    /// Reserves a place.
    pub(super) fn reserve(&self, vm: &Arc<Vm>, most: usize) -> Result<Place<'_>, Full> {
        let mut table = self.table.lock();
        if vm.is_draining() {
            return Err(Full::Draining(vm.name.clone()));
        }
        let all = table.sessions.len() + table.reserved.len();
        if all >= most {
            return Err(Full::Server(all));
        }
        let of_vm = table.of_vm(vm);
        if vm.limits().max_processes.is_some_and(|most| of_vm >= most as usize) {
            return Err(Full::Vm(vm.name.clone(), of_vm));
        }
        table.last += 1;
        let id = table.last;
        table.reserved.insert(id, Arc::clone(vm));
        Ok(Place { sessions: self, id, vm: Arc::clone(vm) })
    }

    /// Enters a session under its number; its place is no longer reserved, but taken.
    pub(super) fn begin(&self, id: u64, session: Session) {
        let mut table = self.table.lock();
        table.reserved.remove(&id);
        table.sessions.insert(id, session);
    }

    /// Takes back what [`Self::begin`] did: the session found no worker yet. Gives back its part of the VM's memory.
    pub(super) fn take_back(&self, id: u64) -> Option<bar::Slot> {
        let mut table = self.table.lock();
        let session = table.sessions.remove(&id)?;
        table.reserved.insert(id, session.vm);
        session.part
    }

    /// Takes from a session whose worker is gone its part of the VM's memory, so that it is free before the session is, and the
    /// guest's connection.
    pub(super) fn take_belongings(&self, id: u64) -> (Option<bar::Slot>, Option<Socket>) {
        let mut table = self.table.lock();
        let Some(session) = table.sessions.get_mut(&id) else { return (None, None) };
        (session.part.take(), session.connection.take())
    }

    /// Whether a session of the VM that has a part of its memory is ending, or gives the part back at this moment.
    pub(super) fn gives_back_part(&self, vm: &str) -> bool {
        let ending = |session: &Session| {
            matches!(session.memory, Memory::Slot { .. })
                && session.vm.name == vm
                && (session.part.is_none()
                    || session.worker.stats.state.load(Ordering::Relaxed) == State::Ending as u64)
        };
        self.table.lock().sessions.values().any(ending)
    }

    /// Takes a session out, after `count` has counted it: nobody sees it neither here nor there.
    pub(super) fn end<T>(&self, id: u64, count: impl FnOnce(&Session) -> T) -> Option<(Session, T)> {
        let mut table = self.table.lock();
        let counted = count(table.sessions.get(&id)?);
        table.sessions.remove(&id).map(|session| (session, counted))
    }

    /// Ends a session from here; whether there is one of that number.
    pub(super) fn dismiss(&self, id: u64) -> bool {
        self.table.lock().sessions.get_mut(&id).map(dismiss).is_some()
    }

    /// Ends all sessions of a VM from here; how many there were.
    pub(super) fn dismiss_vm(&self, vm: &Vm) -> usize {
        let mut table = self.table.lock();
        let mut count = 0;
        for session in table.sessions.values_mut().filter(|session| session.vm.number == vm.number) {
            count += 1;
            dismiss(session);
        }
        count
    }

    /// How many sessions a VM has, those that begin included.
    pub(super) fn of_vm(&self, vm: &Vm) -> usize {
        self.table.lock().of_vm(vm)
    }

    /// Ends all sessions from here.
    pub(super) fn dismiss_all(&self) {
        self.table.lock().sessions.values_mut().for_each(dismiss);
    }

    /// Kills all workers of sessions.
    pub(super) fn kill_all(&self) {
        for session in self.table.lock().sessions.values_mut() {
            session.dismissed = true;
            session.worker.kill();
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.table.lock().sessions.len()
    }

    /// Something of each, oldest first.
    pub(super) fn map<T>(&self, mut of: impl FnMut(u64, &Session) -> T) -> Vec<T> {
        self.table.lock().sessions.iter().map(|(id, session)| of(*id, session)).collect()
    }
}

impl Table {
    fn of_vm(&self, vm: &Vm) -> usize {
        let standing = self.sessions.values().filter(|session| session.vm.number == vm.number).count();
        standing + self.reserved.values().filter(|other| other.number == vm.number).count()
    }
}

fn dismiss(session: &mut Session) {
    session.dismissed = true;
    session.worker.dismiss();
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.sessions.table.lock().reserved.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Limits, Rights};

    #[test]
    fn places_are_bounded_and_come_back() {
        let sessions = Sessions::default();
        let registry = crate::vm::registry::Registry::default();
        let two_at_most =
            Rights { limits: Limits { max_processes: Some(2), ..Limits::default() }, ..Rights::default() };
        let red = registry.find_or_stranger("red", &two_at_most).unwrap();
        let blue = registry.find_or_stranger("blue", &Rights::default()).unwrap();
        let one = sessions.reserve(&red, 3).unwrap();
        let two = sessions.reserve(&red, 3).unwrap();
        assert!(two.id > one.id);
        assert_eq!(sessions.reserve(&red, 3).unwrap_err(), Full::Vm("red".into(), 2));
        let three = sessions.reserve(&blue, 3).unwrap();
        assert_eq!(sessions.reserve(&blue, 3).unwrap_err(), Full::Server(3));
        drop((one, three));
        blue.set_draining(true);
        assert_eq!(sessions.reserve(&blue, 3).unwrap_err(), Full::Draining("blue".into()));
        let four = sessions.reserve(&red, 3).unwrap();
        assert!(four.id > two.id);
        assert_eq!(sessions.of_vm(&red), 2);
        drop((two, four));
        assert!(sessions.table.lock().reserved.is_empty());
        assert!(!sessions.dismiss(1));
    }
}
