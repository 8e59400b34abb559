//! The server as its operator sees it: on the host, over the control socket.

use super::{Context, Findings, Role};
use pxos_client::{Control, ControlError};
use pxos_protocol::admin::Status;
use std::io::ErrorKind;

/// Asks for the status and looks for what is wrong in it.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    if context.role == Role::Guest {
        return;
    }
    let asked = Control::connect(&context.control).and_then(|mut control| control.status());
    match asked {
        Ok(status) => judge(&status, findings),
        Err(ControlError::Connect(path, error)) if error.kind() == ErrorKind::PermissionDenied => findings
            .warn(
                format!("{} is closed to this user", path.display()),
                "run pxctl doctor as root to see how the server is",
            ),
        Err(error) => {
            findings.fail(error.to_string(), "systemctl start pxos-server; its log says why it ended");
        }
    }
}

fn judge(status: &Status, findings: &mut Findings) {
    let server = &status.server;
    let sessions = status.sessions.len();
    findings.ok(format!("pxos-server {} is {}, with {sessions} sessions", server.software, server.state));
    let ours = format!("{:016x}", pxos_protocol::fingerprint());
    if server.fingerprint != ours {
        findings.warn(
            format!("this pxctl has API table {ours}, the server {}", server.fingerprint),
            "they are of different builds; install both again",
        );
    }
    if let Some(fallback) = &status.driver.fallback {
        findings.warn(
            format!("the server uses no GPU: {fallback}"),
            "driver = \"PATH\" in server.toml names the libcuda to use; driver = \"soft\" says that this is meant",
        );
    }
    for listener in &status.listeners {
        if let Some(error) = &listener.error {
            findings.warn(
                format!("guests cannot reach {}: {error}", listener.endpoint),
                "take it out of listen in server.toml, or see to it that it can be used",
            );
        }
    }
    if let Some(failure) = &status.pool.last_failure {
        findings.warn(
            format!("{} workers failed, the last: {failure}", status.pool.failures),
            "the server's log, and dmesg for a GPU, say more",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use pxos_protocol::admin::{Driver, Listener, Pool, Server, Totals};

    #[test]
    fn what_is_wrong_in_a_status_is_found() {
        let mut status = Status {
            server: Server {
                software: "0.1.0".into(),
                wire: 1,
                fingerprint: format!("{:016x}", pxos_protocol::fingerprint()),
                pid: 1,
                state: "running".into(),
                started: 0,
                uptime: 0,
                config: None,
                advisor: Default::default(),
            },
            driver: Driver {
                configured: "auto".into(),
                path: None,
                version: None,
                software: false,
                fallback: None,
            },
            devices: vec![],
            listeners: vec![Listener { endpoint: "vsock:any:9700".into(), accepted: 0, error: None }],
            pool: Pool {
                size: 1,
                warm: 1,
                starting: 0,
                waiting: 0,
                memory: 0,
                failures: 0,
                last_failure: None,
            },
            sessions: vec![],
            totals: Totals::default(),
        };
        let judged = |status: &Status| {
            let mut findings = Findings { check: "operator", list: Vec::new() };
            judge(status, &mut findings);
            findings.list.iter().filter(|finding| finding.level == Level::Warn).count()
        };
        assert_eq!(judged(&status), 0);
        status.server.fingerprint = "0".into();
        status.driver.fallback = Some("no libcuda".into());
        status.listeners[0].error = Some("no device".into());
        status.pool.last_failure = Some("it died".into());
        assert_eq!(judged(&status), 4);
    }
}
