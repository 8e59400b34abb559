//! A client of the control socket.

use pxos_protocol::admin::{Answer, Reply, Request, Status};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: the server answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the control socket.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ControlError {
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
    pub(crate) fn connect(path: &Path) -> Result<Self, ControlError> {
        let stream =
            UnixStream::connect(path).map_err(|error| ControlError::Connect(path.to_owned(), error))?;
        let set =
            || stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
        set().map_err(|error| ControlError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        let mut line = serde_json::to_string(request).expect("requests are plain");
        line.push('\n');
        let mut answer = String::new();
        let io = |error| ControlError::Io(self.path.clone(), error);
        self.stream.get_mut().write_all(line.as_bytes()).map_err(io)?;
        let count = self.stream.read_line(&mut answer).map_err(io)?;
        if count == 0 {
            return Err(io(ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(|error| ControlError::Answer(error.to_string()))? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(why) => Err(ControlError::Refused(why)),
        }
    }

    /// Asks for the status.
    pub(crate) fn status(&mut self) -> Result<Status, ControlError> {
        match self.ask(&Request::Status {})? {
            Answer::Status(status) => Ok(*status),
            Answer::Done(done) => Err(ControlError::Answer(done)),
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
