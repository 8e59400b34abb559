//! The server as a guest sees it: reachable, of the same version, willing, and what it offers.

use super::{Context, Findings};
use crate::probe::{ProbeError, Probed, probe};
use crate::units::bytes;
use pxos_protocol::control::Refusal;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::types::{CUresult, attribute};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Asks at each endpoint until one answers, as the shim does.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    let endpoints = &context.settings.endpoints;
    let mut silent: Vec<(String, String)> = Vec::new();
    for endpoint in endpoints {
        match probe(endpoint, context.settings.token.clone()) {
            Ok(probed) => {
                for (text, _) in silent {
                    findings.warn(
                        text,
                        format!("PXOS_SERVER={endpoint} saves programs the time of trying this first"),
                    );
                }
                return describe(endpoint, &probed, findings);
            }
            Err(ProbeError::Connect(error)) => {
                silent.push((format!("{endpoint}: {error}"), remedy(endpoint, error.kind())));
            }
            Err(ProbeError::Refused(refusal)) => return refused(endpoint, &refusal, findings),
            Err(ProbeError::Strange(error)) => {
                return findings.fail(
                    format!("{endpoint}: {error}"),
                    "is it a pxos-server, and alive? its log says what it made of this",
                );
            }
        }
    }
    for (text, remedy) in silent {
        findings.fail(text, remedy);
    }
}

fn describe(endpoint: &Endpoint, probed: &Probed, findings: &mut Findings) {
    let welcome = &probed.welcome;
    let microseconds = probed.ping.as_micros();
    findings.ok(format!(
        "{endpoint}: pxos-server {} answers in {microseconds} µs and takes this for VM '{}'",
        welcome.software, welcome.vm
    ));
    let snapshot = &welcome.snapshot;
    if snapshot.devices.is_empty() {
        findings.fail("the server has no device for this VM", "look at pxctl status on the host");
    }
    for (ordinal, device) in snapshot.devices.iter().enumerate() {
        let major = device.attribute(attribute::COMPUTE_CAPABILITY_MAJOR);
        let minor = device.attribute(attribute::COMPUTE_CAPABILITY_MINOR);
        let memory = bytes(device.total_memory);
        findings.ok(format!("device {ordinal}: {}, sm_{major}{minor}, {memory} for this VM", device.name));
    }
    if snapshot.software {
        findings.warn(
            "the server has no GPU: kernels run on the host's CPU, slowly",
            "on the host: pxctl status says why; driver = \"PATH\" in server.toml names the libcuda to use",
        );
    }
}

fn refused(endpoint: &Endpoint, refusal: &Refusal, findings: &mut Findings) {
    let remedy = match CUresult(refusal.result) {
        CUresult::ERROR_SYSTEM_DRIVER_MISMATCH => {
            "install the same version of pxOS on the host and in the guest"
        }
        CUresult::ERROR_NOT_PERMITTED => {
            "on the host, a [[vm]] rule in server.toml lets this VM in; over TCP, set PXOS_TOKEN to its token"
        }
        CUresult::ERROR_DEVICE_UNAVAILABLE => {
            "end sessions (pxctl status, pxctl kill) or raise the limit in server.toml"
        }
        CUresult::ERROR_SYSTEM_NOT_READY => "wait a moment; the server's log says what it waits for",
        _ => "the server's log says more",
    };
    findings.fail(format!("{endpoint} refuses: {}", refusal.message), remedy);
}

fn remedy(endpoint: &Endpoint, kind: ErrorKind) -> String {
    match (endpoint, kind) {
        (Endpoint::Unix(path), ErrorKind::PermissionDenied) => format!(
            "{}; join the group, or set socket_mode in server.toml",
            owner(path).unwrap_or_else(|| "a directory on the way is closed to this user".into())
        ),
        (Endpoint::Unix(_), ErrorKind::NotFound) => "start pxos-server on this host, or set PXOS_SERVER".into(),
        (Endpoint::Unix(_), ErrorKind::ConnectionRefused) => "pxos-server has ended; start it again".into(),
        (Endpoint::Vsock { .. }, _) => {
            "start pxos-server on the host, with a vsock endpoint of this port (or vm:NAME=/path for the socket of this VM's device); is there a vsock device in the VM?".into()
        }
        (Endpoint::Tcp(_), _) => "start pxos-server there with this endpoint in listen, and open the port".into(),
        (Endpoint::Tls(_), _) => {
            "run pxctl guest-tls --server HOST:PORT … in this guest, and leave PXOS_SERVER unset: programs find its socket".into()
        }
        _ => "start pxos-server, or set PXOS_SERVER".into(),
    }
}

/// Who may use a socket.
fn owner(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    Some(format!(
        "it belongs to user {} and group {}, mode {:04o}",
        meta.uid(),
        meta.gid(),
        meta.mode() & 0o7777
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn refusals_have_remedies() {
        let mut findings = Findings { check: "server", list: Vec::new() };
        let endpoint = "unix:/x".parse().unwrap();
        for result in [803, 800, 46, 802, 999] {
            refused(&endpoint, &Refusal { result, message: "because".into() }, &mut findings);
        }
        let remedies: std::collections::BTreeSet<_> =
            findings.list.iter().map(|finding| finding.remedy.clone()).collect();
        assert_eq!(remedies.len(), 5);
        assert!(findings.list.iter().all(|finding| finding.level == Level::Fail));
    }

    #[test]
    fn a_closed_socket_names_its_owner() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let endpoint = Endpoint::Unix(file.path().to_owned());
        let text = remedy(&endpoint, ErrorKind::PermissionDenied);
        assert!(text.contains("mode 0600") && text.contains("socket_mode"), "{text}");
    }
}
