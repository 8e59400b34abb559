//! A server that lives as long as the runner needs it, on a unix socket nobody else knows.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Error;
use crate::run::signal_group;

/// A real driver needs some hundred milliseconds to start; a loaded machine much more.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Time for the server to end its workers after SIGTERM; its own limit for that is 10 s by default.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the server is told besides the user's arguments, unless these speak of the socket.
const STANDARD: [&str; 4] = ["--listen", "unix:{socket}", "--control", "{dir}/control.sock"];

/// A running server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    log: PathBuf,
    /// What `PXOS_SERVER` must be.
    pub(crate) address: String,
}

impl Server {
    /// Starts `program` with `STANDARD` and `args` (`{socket}` and `{dir}` replaced) and waits until its socket accepts connections.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        address: &str,
        keep: Option<&Path>,
    ) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("pxos-server-")
            .tempdir()
            .map_err(Error::io("making a folder for the server"))?;
        let socket = folder.path().join("server.sock");
        let fill = |text: &str| {
            text.replace("{socket}", &socket.display().to_string())
                .replace("{dir}", &folder.path().display().to_string())
        };
        let own = if args.iter().any(|arg| arg.contains("{socket}")) { &[][..] } else { &STANDARD[..] };
        let log = keep.unwrap_or_else(|| folder.path()).join("server.log");
        let file = File::create(&log).map_err(Error::io(log.display().to_string()))?;
        let copy = file.try_clone().map_err(Error::io(log.display().to_string()))?;
        let child = Command::new(program)
            .args(own.iter().copied().chain(args.iter().map(String::as_str)).map(fill))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {}", program.display())))?;
        let mut server = Self { child, address: fill(address), log, folder };
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            server.check()?;
            if begun.elapsed() > START_LIMIT {
                return Err(Error::Server(format!(
                    "no connection on {} after {} s\n{}",
                    socket.display(),
                    START_LIMIT.as_secs(),
                    server.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// An error if the server has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait().map_err(Error::io("waiting for the server"))? {
            Some(status) => Err(Error::Server(format!("ended early: {status}\n{}", self.log_tail()))),
            None => Ok(()),
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the folder is removed in any case.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        signal_group(&self.child, libc::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > STOP_LIMIT {
                signal_group(&self.child, libc::SIGKILL);
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        debug_assert!(self.folder.path().exists(), "the socket's folder outlives the server");
    }
}
