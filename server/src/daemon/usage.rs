//! Device time and turns of VMs and sessions, as the scheduler measures and grants them.

use super::Daemon;
use super::session::Session;
use crate::vm::registry::Vm;
use pxos_protocol::admin::Usage;

/// A session's time on the devices.
pub(super) fn of_session(_daemon: &Daemon, _session: &Session) -> Usage {
    Usage::default()
}

/// A VM's turns: what is common to all its sessions.
pub(super) fn of_vm(_daemon: &Daemon, _vm: &Vm) -> Usage {
    Usage::default()
}
