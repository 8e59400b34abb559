//! Asking a server as a guest would, without a session: a connection of purpose *probe*. It costs no worker; the daemon
//! answers it itself, a bounded number of questions in a bounded time, so a connection is made for a question and closed.

use pxos_protocol::control::{self, Hello, Purpose, Refusal, Welcome};
use pxos_protocol::frame::{self, Header};
use pxos_protocol::monitor::VmUse;
use pxos_protocol::transport::{FrameReader, ReadError, Socket, Transport};
use std::io::{self, IoSlice};
use std::time::Duration;

/// How long an answer may take: the daemon answers from memory.
const ANSWER: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InquiryError {
    /// The server says why not.
    #[error("refused: {}", .0.message)]
    Refused(Refusal),
    /// Something is there that does not speak like a pxOS server, or the connection broke.
    #[error("{0}")]
    Strange(String),
}

/// A connection that has been welcomed.
#[derive(Debug)]
pub struct Inquiry {
    reader: FrameReader,
    socket: Socket,
    welcome: Welcome,
    request: u64,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Name of the program, for the server's log.
    pub program: String,
    /// A token for a server that asks for one.
    pub token: Option<String>,
    /// Bytes of device memory that the process limits itself to.
    pub memory_max: Option<u64>,
}

impl Inquiry {
    /// Says hello on a fresh connection.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub fn begin(socket: Socket, asker: &Asker) -> Result<Self, InquiryError> {
        socket.set_receive_timeout(Some(ANSWER)).map_err(broken)?;
        socket.set_send_timeout(Some(ANSWER)).map_err(broken)?;
        let hello = Hello {
            version: frame::VERSION,
            fingerprint: pxos_protocol::fingerprint(),
            software: env!("CARGO_PKG_VERSION").into(),
            purpose: Purpose::Probe,
            pid: std::process::id(),
            program: asker.program.clone(),
            token: asker.token.clone(),
            shared_memory: false,
            bar: false,
            memory_max: asker.memory_max,
        };
        let payload = control::encode(&hello).map_err(strange)?;
        send(&socket, Header::new(frame::control::HELLO), &payload)?;
        let mut reader = FrameReader::new(socket.try_clone().map_err(broken)?);
        let header = reader.header().map_err(unread)?;
        let payload = reader.payload(&header).map_err(unread)?;
        match header.op {
            frame::control::WELCOME => {
                let welcome = control::decode(payload).map_err(strange)?;
                Ok(Self { reader, socket, welcome, request: 0 })
            }
            frame::control::REFUSAL => Err(InquiryError::Refused(control::decode(payload).map_err(strange)?)),
            op => Err(InquiryError::Strange(format!("it answers a hello with op {op}"))),
        }
    }

    /// What the server said to the hello: who the guest is, and its devices.
    #[must_use]
    pub fn into_welcome(self) -> Welcome {
        self.welcome
    }

    /// Waits for the answer to nothing.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub fn ping(&mut self) -> Result<(), InquiryError> {
        self.ask(frame::control::PING).map(drop)
    }

    /// How this guest's VM uses its devices now.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub fn vm_use(&mut self) -> Result<VmUse, InquiryError> {
        control::decode(self.ask(frame::control::QUERY_VM)?).map_err(strange)
    }

    fn ask(&mut self, op: u16) -> Result<&[u8], InquiryError> {
        self.request += 1;
        send(&self.socket, Header { request: self.request, ..Header::new(op) }, &[])?;
        let reply = self.reader.header().map_err(unread)?;
        if (reply.op, reply.request) != (frame::control::REPLY, self.request) {
            return Err(InquiryError::Strange(format!("it answers op {op} with op {}", reply.op)));
        }
        self.reader.payload(&reply).map_err(unread)
    }
}

fn strange(error: impl std::fmt::Display) -> InquiryError {
    InquiryError::Strange(error.to_string())
}

fn broken(error: io::Error) -> InquiryError {
    strange(error)
}

fn unread(error: ReadError) -> InquiryError {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
            InquiryError::Strange(format!("no answer within {ANSWER:?}"))
        }
        other => strange(other),
    }
}

fn send(socket: &Socket, mut header: Header, payload: &[u8]) -> Result<(), InquiryError> {
    header.length = u32::try_from(payload.len()).map_err(strange)?;
    socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]).map_err(broken)
}
