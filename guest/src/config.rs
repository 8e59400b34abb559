//! Where the server is: `PXOS_SERVER`, then `/etc/pxos/client.toml`, then unix:/run/pxos-gpu.sock, then vsock 2:9700.

use pxos_protocol::endpoint::{DEFAULT_VSOCK_PORT, Endpoint};
use pxos_protocol::transport::VSOCK_SEND;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const FILE: &str = "/etc/pxos/client.toml";
const SOCKET: &str = "/run/pxos-gpu.sock";

/// `/etc/pxos/client.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// An endpoint.
    server: Option<String>,
    /// A token for a server that asks for one.
    token: Option<String>,
    /// Bytes of one send over vsock; 0 for no limit.
    vsock_send: Option<usize>,
}

/// Where to try, in order, and what to show there.
#[derive(Debug)]
pub struct Config {
    /// Endpoints in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// The token.
    pub token: Option<String>,
    /// Whether memory may be shared with a server on this host; `PXOS_SHARED_MEMORY=0` says no.
    pub shared_memory: bool,
    /// Bytes of device memory that this process limits itself to, `PXOS_MEMORY_MAX`: a number, or one with `K`, `M`, `G`.
    pub memory_max: Option<u64>,
    /// Most bytes of one send over vsock ([`VSOCK_SEND`] says why there is a limit); 0 for no limit.
    pub vsock_send: usize,
    /// The file of the VM's shared memory, where `PXOS_BAR` names it: for containers within a VM that do not see `/sys`.
    pub bar: Option<PathBuf>,
    /// What is wrong with the settings; connecting goes on with what is right.
    pub problems: Vec<String>,
}

impl Config {
    /// Reads environment and file.
    #[must_use]
    pub fn load() -> Self {
        let shared_memory = std::env::var_os("PXOS_SHARED_MEMORY").is_none_or(|value| value != "0");
        let parts = (std::env::var("PXOS_SERVER").ok(), std::env::var("PXOS_TOKEN").ok());
        let mut config = Self { shared_memory, ..Self::from_parts(parts.0, parts.1, Path::new(FILE)) };
        config.bar = std::env::var_os("PXOS_BAR").filter(|path| !path.is_empty()).map(PathBuf::from);
        match std::env::var("PXOS_MEMORY_MAX").ok().map(|text| bytes(&text).ok_or(text)) {
            Some(Ok(limit)) => config.memory_max = Some(limit),
            Some(Err(text)) => {
                config.problems.push(format!("PXOS_MEMORY_MAX: '{text}' is not a size such as 512M or 4G"));
            }
            None => {}
        }
        if let Ok(text) = std::env::var("PXOS_VSOCK_SEND") {
            match text.parse() {
                Ok(bytes) => config.vsock_send = bytes,
                Err(_) => config.problems.push(format!("PXOS_VSOCK_SEND: '{text}' is not a number of bytes")),
            }
        }
        config
    }

    fn from_parts(server: Option<String>, token: Option<String>, path: &Path) -> Self {
        let mut config = Self {
            endpoints: Vec::new(),
            token,
            shared_memory: true,
            memory_max: None,
            vsock_send: VSOCK_SEND,
            bar: None,
            problems: Vec::new(),
        };
        if let Some(text) = server.filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(endpoint) => config.endpoints.push(endpoint),
                Err(error) => config.problems.push(format!("PXOS_SERVER: {error}")),
            }
            // Who names a server means that one: falling back to another would hide the mistake.
            return config;
        }
        if let Ok(text) = std::fs::read_to_string(path) {
            match toml::from_str::<File>(&text) {
                Ok(file) => {
                    config.token = config.token.or(file.token);
                    config.vsock_send = file.vsock_send.unwrap_or(config.vsock_send);
                    match file.server.map(|text| text.parse()) {
                        Some(Ok(endpoint)) => {
                            config.endpoints.push(endpoint);
                            return config;
                        }
                        Some(Err(error)) => config.problems.push(format!("{}: {error}", path.display())),
                        None => {}
                    }
                }
                Err(error) => config.problems.push(format!("{}: {}", path.display(), error.message())),
            }
        }
        // The socket first: whether it is there is known at once, while a vsock port at which nobody listens costs 2 s.
        config.endpoints.push(Endpoint::Unix(PathBuf::from(SOCKET)));
        config.endpoints.push(Endpoint::Vsock { cid: 2, port: DEFAULT_VSOCK_PORT });
        config
    }
}

/// An amount of memory: bytes, or a number with `K`, `M`, `G` or `T` (powers of 1024), as the server's configuration
/// takes it.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("64M"), Some(64 << 20));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        assert_eq!(bytes("4096"), Some(4096));
        for wrong in ["", "0", "-1", "1.5G", "M", "9999999999T", "1X"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_environment_wins_and_is_final() {
        let config = Config::from_parts(Some("unix:/x".into()), None, Path::new("/nonexistent"));
        assert_eq!(config.endpoints, [Endpoint::Unix("/x".into())]);
        let config = Config::from_parts(Some("nonsense".into()), None, Path::new("/nonexistent"));
        assert!(config.endpoints.is_empty() && config.problems.len() == 1);
    }

    #[test]
    fn without_settings_the_socket_then_vsock() {
        let config = Config::from_parts(None, None, Path::new("/nonexistent"));
        let shown: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["unix:/run/pxos-gpu.sock", "vsock:2:9700"]);
    }

    #[test]
    fn the_file_is_read_and_its_mistakes_are_told() {
        let path = std::env::temp_dir().join(format!("pxos-client-{}.toml", std::process::id()));
        std::fs::write(&path, "server = \"tcp:127.0.0.1:9\"\ntoken = \"t\"\nvsock_send = 0\n").unwrap();
        let config = Config::from_parts(None, None, &path);
        assert_eq!(config.endpoints, [Endpoint::Tcp("127.0.0.1:9".into())]);
        assert_eq!((config.token.as_deref(), config.vsock_send), (Some("t"), 0));
        std::fs::write(&path, "sever = \"tcp:127.0.0.1:9\"\n").unwrap();
        assert_eq!(Config::from_parts(None, None, &path).problems.len(), 1);
        std::fs::remove_file(&path).unwrap();
    }
}
