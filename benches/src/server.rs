//! The server that remoted runs use: one of our own on a private socket, or one that runs already.

use crate::Error;
use crate::cli::Cli;
use crate::process::signal_group;
use pxos_protocol::admin::{Answer, Reply, Request, Status};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A real driver needs some hundred milliseconds to start; a hundred workers on a loaded machine much more.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Time for the server to end its workers after SIGTERM; its own limit for that is 10 s by default.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long a server without a control socket is given to have a worker warm again.
const BLIND_PAUSE: Duration = Duration::from_secs(2);

/// A server, or none of ours.
#[derive(Debug)]
pub(crate) struct Server {
    own: Option<Own>,
    control: Option<PathBuf>,
}

/// One that we started; stopped when dropped.
#[derive(Debug)]
struct Own {
    child: Child,
    folder: TempDir,
    log: PathBuf,
}

impl Server {
    /// Starts a server if the command line asks for one, with `pool` warm workers, and waits until guests can connect.
    pub(crate) fn start(cli: &Cli, pool: u32) -> Result<Self, Error> {
        let Some(program) = &cli.start_server else {
            return Ok(Self { own: None, control: cli.control.clone() });
        };
        let folder = tempfile::Builder::new()
            .prefix("pxos-bench-")
            .tempdir()
            .map_err(Error::io("making a folder for the server"))?;
        let (socket, control) = (folder.path().join("gpu.sock"), folder.path().join("control.sock"));
        let log = folder.path().join("server.log");
        let file = File::create(&log).map_err(Error::io(log.display().to_string()))?;
        let copy = file.try_clone().map_err(Error::io(log.display().to_string()))?;
        let child = Command::new(program)
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--control")
            .arg(&control)
            .args(["--pool-size", &pool.to_string(), "--max-sessions", "4096", "--max-connecting", "4096"])
            .args(["--pool-wait-timeout", "120s"])
            .args(&cli.server_arg)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {}", program.display())))?;
        let mut own = Own { child, folder, log };
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            own.check()?;
            if begun.elapsed() > START_LIMIT {
                return Err(Error::Server(format!(
                    "no connection after {START_LIMIT:?}\n{}",
                    own.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { own: Some(own), control: Some(control) })
    }

    /// What `PXOS_SERVER` must be, where that is not left to the environment.
    pub(crate) fn address(&self) -> Option<String> {
        self.own.as_ref().map(|own| format!("unix:{}", own.folder.path().join("gpu.sock").display()))
    }

    /// The process id of a server of our own.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.child.id())
    }

    /// The end of the log of a server of our own.
    pub(crate) fn log_tail(&self) -> String {
        self.own.as_ref().map(Own::log_tail).unwrap_or_default()
    }

    /// What the server says of itself, where it can be asked.
    pub(crate) fn status(&self) -> Result<Option<Status>, Error> {
        self.control.as_deref().map(ask).transpose()
    }

    /// Waits until `workers` are warm and nobody is served, so that runs do not disturb each other.
    pub(crate) fn settle(&mut self, workers: u32) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            if let Some(own) = &mut self.own {
                own.check()?;
            }
            let Some(status) = self.status()? else {
                std::thread::sleep(BLIND_PAUSE);
                return Ok(());
            };
            let enough = (workers as usize).min(status.pool.size);
            // A worker that is being started takes processor time from whoever is measured.
            if status.pool.warm >= enough && status.pool.starting == 0 && status.sessions.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > START_LIMIT {
                return Err(Error::Server(format!(
                    "{} of {enough} workers are warm and {} sessions still run after {START_LIMIT:?}",
                    status.pool.warm,
                    status.sessions.len()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One request to a control socket.
fn ask(path: &Path) -> Result<Status, Error> {
    let what = || format!("asking {}", path.display());
    let wrong = |why: String| Error::Server(format!("{}: {why}", what()));
    let mut stream = UnixStream::connect(path).map_err(Error::io(what()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(Error::io(what()))?;
    let mut line = serde_json::to_string(&Request::Status {}).map_err(|error| wrong(error.to_string()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(Error::io(what()))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(Error::io(what()))?;
    match serde_json::from_str(&answer) {
        Ok(Reply::Ok(Answer::Status(status))) => Ok(*status),
        Ok(other) => Err(wrong(format!("unexpected answer {other:?}"))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

impl Own {
    fn check(&mut self) -> Result<(), Error> {
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

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the folder is removed in any case.
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
    }
}
