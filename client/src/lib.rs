//! A client of a pxOS server's control socket (docs/control.md): what `pxctl` does, for programs.
//!
//! ```no_run
//! use pxos_client::Control;
//!
//! let mut control = Control::connect("/run/pxos/control.sock".as_ref())?;
//! control.set("red", [("weight", "300"), ("memory.max", "8G")])?;
//! for vm in control.vms()? {
//!     println!("{} holds {} bytes", vm.name, vm.memory.charged);
//! }
//! # Ok::<(), pxos_client::ControlError>(())
//! ```
#![forbid(unsafe_code)]

pub use pxos_protocol::admin;

use pxos_protocol::admin::{Account, Answer, Decision, Event, Reply, Request, Status, Vm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: the server answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the control socket.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody is there.
    Connect(PathBuf, io::Error),
    /// The connection broke.
    Io(PathBuf, io::Error),
    /// The answer is none that this pxctl knows.
    Answer(String),
    /// The server says why not.
    Refused(String),
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(path, error) => {
                let path = path.display();
                let remedy = match error.kind() {
                    ErrorKind::NotFound => "is pxos-server running? --control names another socket",
                    ErrorKind::ConnectionRefused => "pxos-server has ended; start it again",
                    ErrorKind::PermissionDenied => "only its owner may use it; try as root",
                    _ => "is pxos-server running?",
                };
                write!(f, "cannot reach the server at {path}: {error} ({remedy})")
            }
            Self::Io(path, error) => write!(f, "no answer from {}: {error}", path.display()),
            Self::Answer(error) => {
                write!(f, "the server's answer cannot be read: {error} (is it of another version?)")
            }
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ControlError {}

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// [`ControlError`]: nobody is there.
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        let stream =
            UnixStream::connect(path).map_err(|error| ControlError::Connect(path.to_owned(), error))?;
        let set =
            || stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
        set().map_err(|error| ControlError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks, and takes the first line of the answer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        self.write(request)?;
        self.read()
    }

    fn write(&mut self, request: &Request) -> Result<(), ControlError> {
        let mut line =
            serde_json::to_string(request).map_err(|error| ControlError::Answer(error.to_string()))?;
        line.push('\n');
        let written = self.stream.get_mut().write_all(line.as_bytes());
        written.map_err(|error| ControlError::Io(self.path.clone(), error))
    }

    fn read(&mut self) -> Result<Answer, ControlError> {
        let mut answer = String::new();
        let io = |error| ControlError::Io(self.path.clone(), error);
        let count = self.stream.read_line(&mut answer).map_err(io)?;
        if count == 0 {
            return Err(io(ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(|error| ControlError::Answer(error.to_string()))? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(why) => Err(ControlError::Refused(why)),
        }
    }

    fn other(answer: Answer) -> ControlError {
        let name = match answer {
            Answer::Done(done) => done,
            other => format!("{other:?}").chars().take(60).collect(),
        };
        ControlError::Answer(name)
    }

    /// Everything that the server knows of itself.
    ///
    /// # Errors
    /// [`ControlError`], as for every request.
    pub fn status(&mut self) -> Result<Status, ControlError> {
        match self.ask(&Request::Status {})? {
            Answer::Status(status) => Ok(*status),
            other => Err(Self::other(other)),
        }
    }

    /// Asks for something to be done; one line that says what was.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn act(&mut self, request: &Request) -> Result<String, ControlError> {
        match self.ask(request)? {
            Answer::Done(done) => Ok(done),
            other => Err(Self::other(other)),
        }
    }

    /// All VMs.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn vms(&mut self) -> Result<Vec<Vm>, ControlError> {
        match self.ask(&Request::VmList {})? {
            Answer::Vms(vms) => Ok(vms),
            other => Err(Self::other(other)),
        }
    }

    /// One VM.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn vm(&mut self, name: &str) -> Result<Vm, ControlError> {
        match self.ask(&Request::VmShow { name: name.to_owned() })? {
            Answer::Vms(vms) if vms.len() == 1 => Ok(vms.into_iter().next().unwrap_or_default()),
            other => Err(Self::other(other)),
        }
    }

    /// Changes rights of a VM, by the names of the keys of a `[[vm]]` rule: all of them, or none.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn set<'a>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<String, ControlError> {
        let set: BTreeMap<String, Value> =
            values.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        self.act(&Request::VmSet { name: name.to_owned(), set, check: false })
    }

    /// What the scheduler decided after decision number `since`, oldest first; the server keeps the last 4096.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn decisions(&mut self, since: u64) -> Result<Vec<Decision>, ControlError> {
        match self.ask(&Request::Decisions { since })? {
            Answer::Decisions(decisions) => Ok(decisions),
            other => Err(Self::other(other)),
        }
    }

    /// What each VM has used.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn accounting(&mut self) -> Result<Vec<Account>, ControlError> {
        match self.ask(&Request::Accounting {})? {
            Answer::Accounting(accounts) => Ok(accounts),
            other => Err(Self::other(other)),
        }
    }

    /// What happened after event number `since`, and with `follow` what happens from then on, until `each` says that it is
    /// enough or the server ends.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn events(
        mut self,
        since: u64,
        follow: bool,
        mut each: impl FnMut(Event) -> bool,
    ) -> Result<(), ControlError> {
        self.write(&Request::Events { since, follow })?;
        if follow {
            let set = self.stream.get_ref().set_read_timeout(None);
            set.map_err(|error| ControlError::Io(self.path.clone(), error))?;
        }
        loop {
            match self.read()? {
                Answer::Event(event) => {
                    if !each(event) {
                        return Ok(());
                    }
                }
                Answer::Done(_) => return Ok(()),
                other => return Err(Self::other(other)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_absent_server_is_told_with_a_remedy() {
        let error = Control::connect(Path::new("/nonexistent/control.sock")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/control.sock") && error.contains("--control"), "{error}");
    }

    #[test]
    fn answers_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for answer in
                ["{\"error\":\"no such session\"}\n", "{\"ok\":{\"done\":\"so be it\"}}\n", "what?\n"]
            {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert_eq!(line, "{\"op\":\"session.kill\",\"id\":7}\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut control = Control::connect(&path).unwrap();
        let kill = Request::Kill { id: 7 };
        assert!(matches!(control.ask(&kill), Err(ControlError::Refused(why)) if why == "no such session"));
        assert_eq!(control.ask(&kill).unwrap(), Answer::Done("so be it".into()));
        assert!(matches!(control.ask(&kill), Err(ControlError::Answer(_))));
        server.join().unwrap();
        assert!(matches!(control.ask(&kill), Err(ControlError::Io(..))));
    }
}
