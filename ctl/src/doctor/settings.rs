//! Settings: where the shim looks for the server, and whether the files that say so can be read.

use super::{Context, Findings, Role, library};
use pxos_protocol::endpoint::{DEFAULT_VSOCK_PORT, Endpoint};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// The shim's file.
const FILE: &str = "/etc/pxos/client.toml";
/// Where the shim looks first.
const SOCKET: &str = "/run/pxos-gpu.sock";

/// Where the shim looks for the server: as the shim itself decides it.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// In this order.
    pub(crate) endpoints: Vec<Endpoint>,
    /// What it shows there.
    pub(crate) token: Option<String>,
    source: &'static str,
    problems: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    token: Option<String>,
    /// The shim's alone; here only so that it is known.
    #[serde(rename = "vsock_send")]
    _vsock_send: Option<usize>,
}

impl Settings {
    /// Reads environment and file; `named` wins over both.
    pub(crate) fn load(named: Option<Endpoint>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        Self::from_parts(named, variable("PXOS_SERVER"), variable("PXOS_TOKEN"), Path::new(FILE))
    }

    fn from_parts(
        named: Option<Endpoint>,
        server: Option<String>,
        token: Option<String>,
        path: &Path,
    ) -> Self {
        let mut settings = Self { token, ..Self::default() };
        let file = settings.read(path);
        settings.token = settings.token.or(file.token);
        let asked = [("--server", named.map(Ok)), ("PXOS_SERVER", server.map(|text| text.parse()))];
        for (source, endpoint) in asked.into_iter().chain([(FILE, file.server.map(|text| text.parse()))]) {
            let Some(endpoint) = endpoint else { continue };
            settings.source = source;
            match endpoint {
                Ok(endpoint) => settings.endpoints.push(endpoint),
                Err(error) => settings.problems.push(format!("{source}: {error}")),
            }
            return settings;
        }
        settings.source = "the default";
        settings.endpoints.push(Endpoint::Unix(SOCKET.into()));
        settings.endpoints.push(Endpoint::Vsock { cid: 2, port: DEFAULT_VSOCK_PORT });
        settings
    }

    fn read(&mut self, path: &Path) -> File {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.problems.push(format!("{}: {error}", path.display()));
                }
                return File::default();
            }
        };
        toml::from_str(&text).unwrap_or_else(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            self.problems.push(format!("{}:{line}: {}", path.display(), error.message()));
            File::default()
        })
    }
}

/// Tells where the shim looks, and lets the server check its own file.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    let settings = &context.settings;
    for problem in &settings.problems {
        findings.fail(
            problem.clone(),
            "write server = \"vsock:2:9700\" (or unix:/path) and, where it is asked for, token = \"...\"",
        );
    }
    if !settings.endpoints.is_empty() {
        let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
        findings.ok(format!(
            "programs look for the server at {} ({})",
            endpoints.join(", then "),
            settings.source
        ));
    }
    if context.role == Role::Host {
        check_server_file(findings);
    }
}

fn check_server_file(findings: &mut Findings) {
    let Some(server) = library::beside(&["."], "pxos-server").or_else(|| {
        ["/usr/bin/pxos-server", "/usr/local/bin/pxos-server"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists())
            .map(Path::to_owned)
    }) else {
        return findings.warn("pxos-server is not beside pxctl and not in /usr/bin", "install it");
    };
    match Command::new(&server).arg("--check-config").output() {
        Ok(output) if output.status.success() => {
            findings.ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Ok(output) => {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                findings.fail(line, "correct it; pxos-server --check-config tells the same");
            }
        }
        Err(error) => findings.fail(format!("{}: {error}", server.display()), "install pxos-server again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(settings: &Settings) -> Vec<String> {
        settings.endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_shims_order_is_kept() {
        let none = Path::new("/nonexistent/client.toml");
        let settings = Settings::from_parts(None, None, None, none);
        assert_eq!(endpoints(&settings), ["unix:/run/pxos-gpu.sock", "vsock:2:9700"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "server = \"unix:/file\"\ntoken = \"t\"\n").unwrap();
        let settings = Settings::from_parts(None, None, None, file.path());
        assert_eq!((endpoints(&settings), settings.token.as_deref()), (vec!["unix:/file".into()], Some("t")));
        let settings = Settings::from_parts(None, Some("unix:/variable".into()), None, file.path());
        assert_eq!(endpoints(&settings), ["unix:/variable"]);
        let named = Some("unix:/named".parse().unwrap());
        let settings = Settings::from_parts(named, Some("unix:/variable".into()), None, file.path());
        assert_eq!(endpoints(&settings), ["unix:/named"]);
    }

    #[test]
    fn mistakes_are_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\nsever = \"unix:/file\"\n").unwrap();
        let settings = Settings::from_parts(None, None, None, file.path());
        assert!(settings.problems[0].contains(":2: unknown field `sever`"), "{:?}", settings.problems);
        let settings = Settings::from_parts(None, Some("nonsense".into()), None, Path::new("/nonexistent"));
        assert!(settings.endpoints.is_empty() && settings.problems[0].starts_with("PXOS_SERVER: 'nonsense'"));
    }
}
