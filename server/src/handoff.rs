//! What the daemon and a worker process say to each other, over the unix socket that the worker inherits.
//!
//! A message is a length of four bytes (little endian) and that many bytes of [`pxos_protocol::control::encode`].
//! Descriptors travel beside the length. Order: worker `Ready` (or `Failed`), daemon `Assign` with the guest's
//! connection, worker `Ended` where it can still say so. After `Assign` the worker answers the guest itself,
//! beginning with WELCOME. The daemon believes nothing that a worker says after `Assign`: its guest may have taken it over.

use pxos_protocol::control::{self, ControlError, Hello, Snapshot};
use pxos_protocol::transport::descriptors;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Longest message, in bytes: a snapshot of sixteen devices is below 64 KiB.
pub const LIMIT: usize = 1 << 20;

/// Version of the software on both sides of the handoff, which are one binary.
pub const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// What a worker tells the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The driver is initialised and a primary context stands: the worker is warm and waits for a session.
    Ready {
        /// What the driver says of its devices, before any quota.
        snapshot: Snapshot,
        /// The worker's own process id; the daemon goes by the id that it started.
        pid: u32,
    },
    /// The driver cannot be used; the worker ends.
    Failed {
        /// For people; one line.
        message: String,
    },
    /// The session is over and the worker ends.
    Ended {
        /// Whose doing it was.
        reason: EndReason,
        /// For people; one line, may be empty.
        message: String,
    },
}

/// Why a session ended, as its worker saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The guest closed its connection between two frames.
    Closed,
    /// The connection broke, or was closed inside a frame.
    Lost,
    /// The guest sent what no guest may send.
    Malformed,
    /// The driver or the operating system failed.
    Host,
    /// The daemon closed the control socket.
    Daemon,
}

/// What the daemon tells a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Serve this session; beside it the page and the bell of the gate, the quota's bell and its page, the guest's connection, and the
    /// memory of the VM's device where the session has a slot there.
    Assign(Assign),
}

/// A session, as the daemon admitted it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assign {
    /// Number of the session: in the log, the status and the WELCOME.
    pub session: u64,
    /// The VM that the guest is taken for.
    pub vm: String,
    /// The guest's hello, version and fingerprint checked. Its token is removed.
    pub hello: Hello,
    /// Where the guest came from, for the log: `unix:/path pid 12`, `vsock cid 3`, `tcp 127.0.0.1:4000`.
    pub peer: String,
    /// [`SOFTWARE`], for the WELCOME.
    pub software: String,
    /// The daemon's number, for the WELCOME.
    pub instance: u64,
    /// Its slot in its VM's quota, whose page is the first descriptor beside the message; the connection is the second.
    pub slot: usize,
    /// What the session may use.
    pub limits: Limits,
    /// The memory that it shares with its guest.
    pub memory: Memory,
    /// The VM's directory in which its workers share interprocess handles; `None` where there is none.
    pub exchange: Option<PathBuf>,
}

/// Which memory guest and worker share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// None: every frame goes over the socket.
    None,
    /// The worker's own, whose descriptor goes to the guest beside the welcome.
    Beside,
    /// A slot of the memory of the VM's device ([`pxos_protocol::transport::bar`]), whose descriptor lies behind the connection
    /// beside the message.
    Slot {
        /// The memory's id.
        id: [u64; 2],
        /// Number of the slot.
        slot: u64,
        /// Where it begins.
        base: u64,
        /// Its length.
        length: u64,
    },
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Beside => f.write_str("memfd"),
            Self::Slot { slot, .. } => write!(f, "bar slot {slot}"),
        }
    }
}

/// What a session may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Device memory in bytes at the beginning, `None` for no limit; what holds later stands in the quota's page.
    pub memory_max: Option<u64>,
    /// Whether the VM's streams were bounded when the session began.
    pub bounds_streams: bool,
    /// Whether primitives may leave their bounds checks out.
    pub unchecked: bool,
}

/// Why a message did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The operating system's.
    #[error("control socket failed: {0}")]
    Io(#[from] io::Error),
    /// The message is none of ours.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The length is over [`LIMIT`].
    #[error("control message claims {0} bytes (limit {LIMIT})")]
    Length(usize),
}

/// Sends a message with descriptors beside it; the sender keeps its own.
///
/// # Errors
/// [`HandoffError`]; the socket is of no more use then.
pub fn send<T: Serialize>(
    mut control: &UnixStream,
    message: &T,
    beside: &[BorrowedFd<'_>],
) -> Result<(), HandoffError> {
    let bytes = control::encode(message)?;
    let length = u32::try_from(bytes.len()).map_err(|_| HandoffError::Length(bytes.len()))?;
    let raw: Vec<RawFd> = beside.iter().map(AsRawFd::as_raw_fd).collect();
    descriptors::send(control, &length.to_le_bytes(), &raw)?;
    control.write_all(&bytes)?;
    Ok(())
}

/// Waits for the next message and the descriptors beside it; `None` where the peer has closed between two messages.
///
/// # Errors
/// [`HandoffError`]; the socket is of no more use then.
pub fn receive<T: DeserializeOwned>(
    mut control: &UnixStream,
) -> Result<Option<(T, Vec<OwnedFd>)>, HandoffError> {
    let mut length = [0; 4];
    let (mut count, mut beside) = descriptors::receive(control, &mut length)?;
    if count == 0 {
        return Ok(None);
    }
    while count < length.len() {
        let (more, others) = descriptors::receive(control, &mut length[count..])?;
        if more == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        count += more;
        beside.extend(others);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LIMIT {
        return Err(HandoffError::Length(length));
    }
    let mut bytes = vec![0; length];
    control.read_exact(&mut bytes)?;
    Ok(Some((control::decode(&bytes)?, beside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::control::Purpose;
    use std::os::fd::AsFd;

    fn assign() -> ToWorker {
        ToWorker::Assign(Assign {
            session: 7,
            vm: "red".into(),
            hello: Hello {
                version: 1,
                fingerprint: 2,
                software: "0.1.0".into(),
                purpose: Purpose::Session,
                pid: 3,
                program: "app".into(),
                token: None,
                shared_memory: false,
                bar: false,
                memory_max: None,
            },
            peer: "vsock cid 3".into(),
            software: SOFTWARE.into(),
            instance: 9,
            slot: 0,
            limits: Limits { memory_max: Some(1 << 30), bounds_streams: false, unchecked: false },
            memory: Memory::Beside,
            exchange: Some("/run/x".into()),
        })
    }

    #[test]
    fn a_session_and_its_connection_arrive_together() {
        let (daemon, worker) = UnixStream::pair().unwrap();
        let (guest, mut far) = UnixStream::pair().unwrap();
        send(&daemon, &assign(), &[guest.as_fd()]).unwrap();
        drop((daemon, guest));
        let (message, mut beside) = receive::<ToWorker>(&worker).unwrap().unwrap();
        assert_eq!(message, assign());
        assert_eq!(beside.len(), 1);
        let mut connection = UnixStream::from(beside.pop().unwrap());
        connection.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(receive::<ToWorker>(&worker).unwrap().is_none());
    }

    #[test]
    fn claims_are_bounded_and_nonsense_is_an_error() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(receive::<FromWorker>(&other), Err(HandoffError::Length(_))));
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert!(matches!(receive::<FromWorker>(&other), Err(HandoffError::Control(_))));
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&[8, 0]).unwrap();
        drop(one);
        assert!(matches!(receive::<FromWorker>(&other), Err(HandoffError::Io(_))));
    }
}
