//! Where a server listens and a guest connects: `unix:/path`, `vsock:CID:PORT` (or `vsock:PORT` to listen), `tcp:HOST:PORT`;
//! and for a server alone `tls:HOST:PORT`, and the sockets that a VMM keeps for one VM: `vm:NAME=/path` and `serial:NAME=/path`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The vsock port of a pxOS server where none is named.
pub const DEFAULT_VSOCK_PORT: u32 = 9700;

/// An address of one of the transports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A vsock port; the CID is that of the host (2) for a guest, any (`u32::MAX`) for a listener.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A TCP address; on this host only, with a token.
    Tcp(String),
    /// A TCP address at which a server speaks TLS. In a guest `pxctl guest-tls` connects there, for all programs.
    Tls(String),
    /// The unix socket of one VM's vsock device, as Firecracker, Cloud Hypervisor and `vhost-device-vsock` have it: what the
    /// guest connects to at port P of CID 2 arrives at the path with `_P` behind it.
    Vm {
        /// The VM.
        name: String,
        /// The device's `uds_path`, without a port.
        path: PathBuf,
        /// Port at which the guest connects.
        port: u32,
    },
    /// The unix socket at which QEMU serves the chardev of one VM's `virtserialport`: the server connects to it.
    Serial {
        /// The VM.
        name: String,
        /// The chardev's path.
        path: PathBuf,
    },
}

impl Endpoint {
    /// The VM whose own endpoint this is.
    #[must_use]
    pub fn vm(&self) -> Option<&str> {
        match self {
            Self::Vm { name, .. } | Self::Serial { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The unix socket that a server makes for this endpoint, if it makes one.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(path.clone()),
            Self::Vm { path, port, .. } => {
                let mut name = OsString::from(path);
                name.push(format!("_{port}"));
                Some(name.into())
            }
            _ => None,
        }
    }
}

/// Whether a text is `HOST:PORT`.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Whether a text can name a VM: no character that the names of unnamed guests (`vsock:3`) have, none that harms a log.
#[must_use]
pub fn is_vm_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(good)
}

/// A VM's name and a path of its own.
///
/// # Errors
/// What is wrong with them.
pub fn named_path(name: &str, path: &str) -> Result<(String, PathBuf), &'static str> {
    if !is_vm_name(name) {
        return Err("a VM's name has 1 to 64 letters, digits, dots, dashes and underscores");
    }
    if !Path::new(path).is_absolute() {
        return Err("the path is not absolute");
    }
    Ok((name.to_owned(), path.into()))
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no endpoint: {reason}; write unix:/path, vsock:CID:PORT or tcp:HOST:PORT (a server also takes \
     tls:HOST:PORT, vm:NAME=/path and serial:NAME=/path)"
)]
pub struct EndpointError {
    text: String,
    reason: &'static str,
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = |reason| EndpointError { text: text.to_owned(), reason };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| error("it names no transport"))?;
        match scheme {
            "unix" if rest.is_empty() => Err(error("the path is missing")),
            "unix" => Ok(Self::Unix(rest.into())),
            "vsock" => {
                let (cid, port) = rest.split_once(':').unwrap_or(("any", rest));
                let cid = match cid {
                    "any" | "" => u32::MAX,
                    number => number.parse().map_err(|_| error("the CID is not a number"))?,
                };
                let port = port.parse().map_err(|_| error("the port is not a number"))?;
                Ok(Self::Vsock { cid, port })
            }
            "tcp" | "tls" if !is_address(rest) => Err(error("a TCP address is HOST:PORT")),
            "tcp" => Ok(Self::Tcp(rest.to_owned())),
            "tls" => Ok(Self::Tls(rest.to_owned())),
            "vm" => {
                let (name, path) = rest.split_once('=').ok_or_else(|| error("it is not vm:NAME=/path"))?;
                let (name, port) = match name.split_once(':') {
                    Some((name, port)) => {
                        (name, port.parse().map_err(|_| error("the port is not a number"))?)
                    }
                    None => (name, DEFAULT_VSOCK_PORT),
                };
                let (name, path) = named_path(name, path).map_err(error)?;
                Ok(Self::Vm { name, path, port })
            }
            "serial" => {
                let (name, path) =
                    rest.split_once('=').ok_or_else(|| error("it is not serial:NAME=/path"))?;
                let (name, path) = named_path(name, path).map_err(error)?;
                Ok(Self::Serial { name, path })
            }
            _ => Err(error("the transport is unknown")),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: u32::MAX, port } => write!(f, "vsock:any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
            Self::Vm { name, path, port: DEFAULT_VSOCK_PORT } => write!(f, "vm:{name}={}", path.display()),
            Self::Vm { name, path, port } => write!(f, "vm:{name}:{port}={}", path.display()),
            Self::Serial { name, path } => write!(f, "serial:{name}={}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        for text in [
            "unix:/run/pxos-gpu.sock",
            "vsock:2:9700",
            "vsock:any:9700",
            "tcp:127.0.0.1:9700",
            "tcp:[::1]:1",
            "tls:host.example:9701",
            "vm:red=/run/vm3.vsock",
            "vm:red:52=/run/a=c.vsock",
            "serial:blue.2=/run/pxos-gpu.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("vsock:9700".parse(), Ok(Endpoint::Vsock { cid: u32::MAX, port: 9700 }));
    }

    #[test]
    fn the_socket_of_a_vsock_port_has_the_port_behind_it() {
        let endpoint: Endpoint = "vm:red=/run/vm3.vsock".parse().unwrap();
        assert_eq!(endpoint.socket(), Some("/run/vm3.vsock_9700".into()));
        assert_eq!(endpoint.vm(), Some("red"));
        let endpoint: Endpoint = "serial:red=/run/a.sock".parse().unwrap();
        assert_eq!((endpoint.socket(), endpoint.vm()), (None, Some("red")));
    }

    #[test]
    fn nonsense_says_what_is_wrong() {
        for text in [
            "",
            "unix:",
            "vsock:x:1",
            "vsock:2:",
            "tcp:host",
            "tcp::1",
            "tls:host:x",
            "http://x",
            "/run/x",
            "vm:/run/x",
            "vm:a b=/x",
            "vm:=/x",
            "vm:red=x",
            "vm:red:y=/x",
            "serial:red",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("no endpoint"), "{error}");
        }
    }
}
