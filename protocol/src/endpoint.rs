//! Where a server listens and a guest connects: `unix:/path`, `vsock:CID:PORT` (or `vsock:PORT` to listen), `tcp:HOST:PORT`.

use std::path::PathBuf;

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
    /// A TCP address; for tests and loopback only, with a token.
    Tcp(String),
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no endpoint: {reason}; write unix:/path, vsock:CID:PORT or tcp:HOST:PORT")]
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
            "tcp"
                if rest
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Self::Tcp(rest.to_owned()))
            }
            "tcp" => Err(error("a TCP address is HOST:PORT")),
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        for text in
            ["unix:/run/pxos-gpu.sock", "vsock:2:9700", "vsock:any:9700", "tcp:127.0.0.1:9700", "tcp:[::1]:1"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("vsock:9700".parse(), Ok(Endpoint::Vsock { cid: u32::MAX, port: 9700 }));
    }

    #[test]
    fn nonsense_says_what_is_wrong() {
        for text in ["", "unix:", "vsock:x:1", "vsock:2:", "tcp:host", "tcp::1", "http://x", "/run/x"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("no endpoint"), "{error}");
        }
    }
}
