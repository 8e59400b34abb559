//! What operators do to VMs: the `vm.*` requests of the control socket.

use super::{Daemon, accounts, lines};
use crate::config::layers::Raw;
use crate::config::{parse_identity, parse_name};
use crate::vm::registry::{self, Origin, Vm};
use crate::vm::{Identity, Rule};
use pxos_protocol::admin::{Answer, Reply};
use pxos_protocol::endpoint::Endpoint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::info;

type Values = BTreeMap<String, Value>;

/// All VMs.
pub(super) fn list(daemon: &Daemon) -> Reply {
    Reply::Ok(Answer::Vms(daemon.vms.all().iter().map(|vm| accounts::view(daemon, vm)).collect()))
}

fn find(daemon: &Daemon, name: &str) -> Result<Arc<Vm>, String> {
    daemon.vms.find(name).ok_or_else(|| {
        let names: Vec<String> = daemon.vms.all().iter().map(|vm| vm.name.clone()).collect();
        if names.is_empty() {
            format!("there is no VM '{name}', and no other")
        } else {
            format!("there is no VM '{name}'; there are {}", names.join(", "))
        }
    })
}

/// One VM.
pub(super) fn show(daemon: &Daemon, name: &str) -> Result<Answer, String> {
    let vm = find(daemon, name)?;
    Ok(Answer::Vms(vec![accounts::view(daemon, &vm)]))
}

/// Makes a VM.
pub(super) fn create(
    daemon: &Arc<Daemon>,
    name: &str,
    identity: &Values,
    set: &Values,
) -> Result<Answer, String> {
    let name = parse_name(name)?;
    let identity = match identity.iter().collect::<Vec<_>>().as_slice() {
        [(key, value)] => identity_of(key, value)?,
        _ => return Err("a VM is recognised by exactly one of cid, socket, token and certificate".into()),
    };
    let config = daemon.config();
    let mut rights = config.default.clone();
    rights.policy = crate::vm::Policy::Allow;
    registry::change(&mut rights, &registry::raw(set)?)?;
    let changing = daemon.vms.changing();
    daemon.check_rights(&changing.with(&name, &rights))?;
    if let Identity::Socket(path) = &identity {
        let endpoint = Endpoint::Unix(path.clone());
        if *path == config.control {
            return Err(format!("{} is the control socket, which guests must not reach", path.display()));
        }
        daemon
            .endpoints
            .bind(std::slice::from_ref(&endpoint), config.socket_mode, false)
            .map_err(|errors| lines(&errors))?;
    }
    let vm = changing.create(Rule { name: name.clone(), identity: identity.clone(), rights })?;
    drop(changing);
    daemon.open_endpoints();
    daemon.limits_changed();
    note(daemon, &vm, format!("created, {identity}"));
    Ok(Answer::Done(format!("VM {name} is created, {identity}")))
}

fn identity_of(key: &str, value: &Value) -> Result<Identity, String> {
    let raw = match value {
        Value::String(text) => Raw::Text(text.clone()),
        Value::Number(number) => number.as_i64().map_or(Raw::Other("number"), Raw::Integer),
        _ => return Err(format!("{key}: neither a text nor a number")),
    };
    parse_identity(key, &raw).map_err(|message| format!("{key}: {message}"))
}

/// Changes a VM's rights.
pub(super) fn set(daemon: &Arc<Daemon>, name: &str, values: &Values, check: bool) -> Result<Answer, String> {
    let vm = find(daemon, name)?;
    let changing = daemon.vms.changing();
    let mut rights = vm.rights();
    registry::change(&mut rights, &registry::raw(values)?)?;
    daemon.check_rights(&changing.with(name, &rights))?;
    if check {
        return Ok(Answer::Done(format!("VM {name} can have that")));
    }
    let changes = changing.set(&vm, rights);
    drop(changing);
    daemon.limits_changed();
    if changes.is_empty() {
        return Ok(Answer::Done(format!("VM {name} is as it was")));
    }
    for change in &changes {
        note(daemon, &vm, change.clone());
    }
    Ok(Answer::Done(format!("VM {name}: {}", changes.join(", "))))
}

/// Lets a VM begin no more sessions, or again.
pub(super) fn drain(daemon: &Daemon, name: &str, undo: bool) -> Result<Answer, String> {
    let vm = find(daemon, name)?;
    vm.set_draining(!undo);
    daemon.keep_workers();
    let left = daemon.sessions.of_vm(&vm);
    let text = if undo {
        "begins sessions again".to_owned()
    } else {
        format!("begins no more sessions; {left} stand")
    };
    note(daemon, &vm, text.clone());
    Ok(Answer::Done(format!("VM {name} {text}")))
}

/// Ends all sessions of a VM.
pub(super) fn kill(daemon: &Daemon, name: &str) -> Result<Answer, String> {
    let vm = find(daemon, name)?;
    let ended = daemon.sessions.dismiss_vm(&vm);
    note(daemon, &vm, format!("an operator ends its {ended} sessions"));
    Ok(Answer::Done(format!("{ended} sessions of VM {name} end")))
}

/// Ends all sessions of a VM and forgets it.
pub(super) fn destroy(daemon: &Arc<Daemon>, name: &str) -> Result<Answer, String> {
    let vm = find(daemon, name)?;
    if vm.origin() != Origin::Rule {
        // Between here and its end nothing begins that nobody would know of.
        vm.set_draining(true);
    }
    daemon.vms.destroy(name)?;
    let ended = daemon.sessions.dismiss_vm(&vm);
    daemon.open_endpoints();
    daemon.limits_changed();
    note(daemon, &vm, format!("destroyed, with {ended} sessions"));
    Ok(Answer::Done(format!("VM {name} is destroyed, with {ended} sessions")))
}

fn note(daemon: &Daemon, vm: &Vm, text: String) {
    info!(vm = vm.name, "an operator: {text}");
    daemon.journal.note("vm", Some(&vm.name), None, text);
}
