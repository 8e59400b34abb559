//! Who a guest is and what it may do: decided from the endpoint it arrived at, what the kernel says of its peer, and for
//! TCP and TLS its token or certificate (design D13). Pure: no clock, no I/O.

use crate::config::Config;
use crate::vm::{Identity, Policy, Rights, Rule};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::Peer;

/// A guest that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Its VM: a rule's name, or one made of the connection, which no rule can have.
    pub(super) vm: String,
    /// What it may do.
    pub(super) rights: Rights,
}

/// Why a guest may not connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// A rule or the default says so.
    #[error("VM '{0}' may not use this server's devices")]
    Policy(String),
    /// TCP or TLS without a token, or with one that is nobody's.
    #[error("a connection over {0} needs a token that the server knows")]
    Token(&'static str),
}

/// Decides by `rules`, each with the rights that it gives now.
pub(super) fn identify(
    config: &Config,
    rules: &[Rule],
    endpoint: &Endpoint,
    peer: &Peer,
    token: Option<&str>,
) -> Result<Admitted, Denied> {
    let is = |vm: &&Rule| match (&vm.identity, peer, endpoint) {
        (Identity::Cid(wanted), Peer::Vsock { cid }, _) => wanted == cid,
        (Identity::Socket(wanted), Peer::Unix { .. }, Endpoint::Unix(path)) => wanted == path,
        (Identity::Endpoint, Peer::Unix { .. }, endpoint) => endpoint.vm() == Some(&vm.name),
        (Identity::Token(wanted), Peer::Tcp { .. } | Peer::Tls { .. }, _) => {
            token.is_some_and(|token| same(token, wanted))
        }
        (Identity::Certificate(wanted), Peer::Tls { names, .. }, _) => names.contains(wanted),
        _ => false,
    };
    let admitted = match rules.iter().find(is) {
        Some(vm) => Admitted { vm: vm.name.clone(), rights: vm.rights.clone() },
        None => {
            let vm = match peer {
                Peer::Vsock { cid } => format!("vsock:{cid}"),
                Peer::Unix { .. } => endpoint.vm().map_or_else(|| endpoint.to_string(), str::to_owned),
                Peer::Tcp { .. } => "tcp".to_owned(),
                Peer::Tls { names, .. } => {
                    names.first().map_or_else(|| "tls".into(), |name| format!("tls:{name}"))
                }
            };
            // Of the others the kernel tells who they are, and a certificate does.
            let unknown = match peer {
                Peer::Tcp { .. } => Some("TCP"),
                Peer::Tls { names, .. } if names.is_empty() => Some("TLS"),
                _ => None,
            };
            if let Some(way) = unknown.filter(|_| !config.tcp.anonymous) {
                let known = config.tcp.token.as_deref();
                if !known.zip(token).is_some_and(|(known, token)| same(token, known)) {
                    return Err(Denied::Token(way));
                }
            }
            Admitted { vm, rights: config.default.clone() }
        }
    };
    match admitted.rights.policy {
        Policy::Allow => Ok(admitted),
        Policy::Deny => Err(Denied::Policy(admitted.vm)),
    }
}

/// What connections of one guest have in common, before it is known who it is.
pub(super) fn origin(endpoint: &Endpoint, peer: &Peer) -> String {
    match peer {
        Peer::Unix { .. } => endpoint.vm().map_or_else(|| endpoint.to_string(), |name| format!("vm:{name}")),
        Peer::Vsock { cid } => format!("vsock:{cid}"),
        Peer::Tcp { address } | Peer::Tls { address, .. } => {
            address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned()
        }
    }
}

/// The peer, for the log and the status.
pub(super) fn describe(endpoint: &Endpoint, peer: &Peer) -> String {
    match peer {
        // The process behind the socket is the VMM, whatever runs in the VM.
        Peer::Unix { .. } if endpoint.vm().is_some() => endpoint.to_string(),
        Peer::Unix { pid: Some(pid), uid: Some(uid) } => format!("{endpoint} pid {pid} uid {uid}"),
        Peer::Unix { .. } => endpoint.to_string(),
        Peer::Vsock { cid } => format!("vsock cid {cid}"),
        Peer::Tls { address, .. } => format!("tls {address}"),
        Peer::Tcp { address } if matches!(endpoint, Endpoint::Tls(_)) => format!("tls {address}"),
        Peer::Tcp { address } => format!("tcp {address}"),
    }
}

/// Compares secrets in a time that does not tell how far they agree.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const SECRET: &str = "0123456789abcdef";

    fn config(more: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "listen = [\"unix:/run/a.sock\", \"vsock:9700\", \"tcp:127.0.0.1:1\", \"vm:white=/run/w.vsock\", \
             \"vm:other=/run/o.vsock\"]\n{more}\n\
             [[vm]]\nname = \"red\"\ncid = 3\nmax_processes = 2\n\
             [[vm]]\nname = \"blue\"\nsocket = \"/run/blue.sock\"\n\
             [[vm]]\nname = \"green\"\ntoken = \"{SECRET}\"\n\
             [[vm]]\nname = \"white\"\nmax_processes = 1\n\
             [[vm]]\nname = \"black\"\ncid = 5\npolicy = \"deny\"\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: file.path().to_owned(), file_is_named: true, ..Sources::default() };
        Config::load(&sources).unwrap()
    }

    fn name(config: &Config, endpoint: &str, peer: &Peer, token: Option<&str>) -> Result<String, Denied> {
        identify(config, &config.vms, &endpoint.parse().unwrap(), peer, token).map(|admitted| admitted.vm)
    }

    #[test]
    fn the_kernel_says_who_it_is() {
        let config = config("");
        let unix = Peer::Unix { pid: Some(1), uid: Some(0) };
        let vsock = |cid| Peer::Vsock { cid };
        assert_eq!(name(&config, "vsock:9700", &vsock(3), None).unwrap(), "red");
        assert_eq!(name(&config, "vsock:9700", &vsock(4), None).unwrap(), "vsock:4");
        assert_eq!(name(&config, "unix:/run/blue.sock", &unix, None).unwrap(), "blue");
        assert_eq!(name(&config, "unix:/run/a.sock", &unix, None).unwrap(), "unix:/run/a.sock");
        assert_eq!(name(&config, "vsock:9700", &vsock(5), None), Err(Denied::Policy("black".into())));
    }

    #[test]
    fn the_path_of_a_vm_s_own_socket_says_who_it_is() {
        let config = config("");
        let unix = Peer::Unix { pid: Some(1), uid: Some(0) };
        let admitted = |endpoint: &str, token| {
            identify(&config, &config.vms, &endpoint.parse().unwrap(), &unix, token).unwrap()
        };
        let white = admitted("vm:white=/run/w.vsock", Some(SECRET));
        assert_eq!((white.vm.as_str(), white.rights.limits.max_processes), ("white", Some(1)));
        assert_eq!(name(&config, "vm:other=/run/o.vsock", &unix, None).unwrap(), "other");
        assert_eq!(name(&config, "serial:white=/run/w.serial", &unix, None).unwrap(), "white");
        // A rule that is recognised by something else is not recognised by its name.
        assert!(admitted("vm:red=/run/x", None).rights.limits.max_processes.is_none());
    }

    #[test]
    fn a_token_counts_over_tcp_only() {
        let config = config("");
        let tcp = Peer::Tcp { address: "127.0.0.1:5".into() };
        let unix = Peer::Unix { pid: None, uid: None };
        assert_eq!(name(&config, "tcp:127.0.0.1:1", &tcp, Some(SECRET)).unwrap(), "green");
        for token in [None, Some(""), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            assert_eq!(name(&config, "tcp:127.0.0.1:1", &tcp, token), Err(Denied::Token("TCP")), "{token:?}");
        }
        assert_eq!(name(&config, "unix:/run/a.sock", &unix, Some(SECRET)).unwrap(), "unix:/run/a.sock");
        assert_eq!(name(&config, "vsock:9700", &Peer::Vsock { cid: 4 }, Some(SECRET)).unwrap(), "vsock:4");
    }

    #[test]
    fn a_certificate_says_who_it_is_and_a_token_where_there_is_none() {
        let config = config(
            "tls.certificate = \"/c\"\ntls.key = \"/k\"\n[[vm]]\nname = \"violet\"\ncertificate = \"Violet.vm\"\n\
             [[vm]]\nname = \"grey\"\ncertificate = \"grey.vm\"\npolicy = \"deny\"\n",
        );
        let shows = |names: &[&str]| Peer::Tls {
            address: "10.0.0.1:40".into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let endpoint = "tls:0.0.0.0:9701";
        assert_eq!(name(&config, endpoint, &shows(&["violet.vm"]), None).unwrap(), "violet");
        assert_eq!(name(&config, endpoint, &shows(&["other", "violet.vm"]), None).unwrap(), "violet");
        assert_eq!(name(&config, endpoint, &shows(&["grey.vm"]), None), Err(Denied::Policy("grey".into())));
        assert_eq!(name(&config, endpoint, &shows(&["x.vm"]), None).unwrap(), "tls:x.vm");
        assert_eq!(name(&config, endpoint, &shows(&[]), None), Err(Denied::Token("TLS")));
        assert_eq!(name(&config, endpoint, &shows(&[]), Some(SECRET)).unwrap(), "green");
        // A certificate's name is no token's, and a name over TCP is none at all.
        let tcp = Peer::Tcp { address: "127.0.0.1:5".into() };
        assert_eq!(name(&config, "tcp:127.0.0.1:1", &tcp, Some("violet.vm")), Err(Denied::Token("TCP")));
    }

    #[test]
    fn connections_of_one_guest_are_known_before_its_name() {
        let tcp = |address: &str| Peer::Tcp { address: address.into() };
        let endpoint = "tcp:0.0.0.0:1".parse().unwrap();
        assert_eq!(origin(&endpoint, &tcp("10.0.0.1:40")), origin(&endpoint, &tcp("10.0.0.1:41")));
        assert_ne!(origin(&endpoint, &tcp("10.0.0.1:40")), origin(&endpoint, &tcp("10.0.0.2:40")));
        let vsock = "vsock:1".parse().unwrap();
        assert_ne!(origin(&vsock, &Peer::Vsock { cid: 3 }), origin(&vsock, &Peer::Vsock { cid: 4 }));
    }

    #[test]
    fn strangers_get_the_default() {
        let strict = config("default.policy = \"deny\"\ntcp.token = \"another-token-of-mine\"");
        let unix = Peer::Unix { pid: None, uid: None };
        assert!(name(&strict, "unix:/run/a.sock", &unix, None).is_err());
        assert_eq!(name(&strict, "unix:/run/blue.sock", &unix, None).unwrap(), "blue");
        assert_eq!(name(&strict, "vsock:9700", &Peer::Vsock { cid: 3 }, None).unwrap(), "red");
        let tcp = Peer::Tcp { address: "127.0.0.1:5".into() };
        let denied = name(&strict, "tcp:127.0.0.1:1", &tcp, Some("another-token-of-mine"));
        assert_eq!(denied, Err(Denied::Policy("tcp".into())));
        let open = config("tcp.anonymous = true");
        assert_eq!(name(&open, "tcp:127.0.0.1:1", &tcp, None).unwrap(), "tcp");
    }
}
