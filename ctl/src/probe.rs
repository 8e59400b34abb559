//! Asking a server as a guest would, without a session: who am I, what may I use, how far is it.

use pxos_protocol::control::{self, Hello, Purpose, Refusal, Welcome};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::transport::{FrameReader, ReadError, Socket, Transport};
use std::io::{self, IoSlice};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long connecting may take: a vsock device without a listener behind it takes two seconds to say so.
const CONNECT: Duration = Duration::from_secs(4);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Pings; the median of so few is good enough to tell microseconds from milliseconds.
const PINGS: u64 = 51;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Probed {
    /// Its welcome.
    pub(crate) welcome: Welcome,
    /// Median time of a ping.
    pub(crate) ping: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ProbeError {
    /// Nobody is there.
    Connect(io::Error),
    /// The server says why not.
    Refused(Refusal),
    /// Something is there that does not speak like a pxOS server.
    Strange(String),
}

/// Connects, says hello, and pings.
pub(crate) fn probe(endpoint: &Endpoint, token: Option<String>) -> Result<Probed, ProbeError> {
    let socket = connect(endpoint)?;
    let strange = |error: &dyn std::fmt::Display| ProbeError::Strange(error.to_string());
    socket.set_receive_timeout(Some(ANSWER)).map_err(|error| strange(&error))?;
    socket.set_send_timeout(Some(ANSWER)).map_err(|error| strange(&error))?;
    let hello = Hello {
        version: frame::VERSION,
        fingerprint: pxos_protocol::fingerprint(),
        software: env!("CARGO_PKG_VERSION").into(),
        purpose: Purpose::Probe,
        pid: std::process::id(),
        program: "pxctl".into(),
        token,
        shared_memory: false,
        bar: false,
        memory_max: None,
    };
    let payload = control::encode(&hello).map_err(|error| strange(&error))?;
    send(&socket, Header::new(frame::control::HELLO), &payload).map_err(|error| strange(&error))?;
    let mut reader = FrameReader::new(socket.try_clone().map_err(|error| strange(&error))?);
    let header = reader.header().map_err(|error| strange(&told(&error)))?;
    let payload = reader.payload(&header).map_err(|error| strange(&told(&error)))?;
    let welcome: Welcome = match header.op {
        frame::control::WELCOME => control::decode(payload).map_err(|error| strange(&error))?,
        frame::control::REFUSAL => {
            return Err(ProbeError::Refused(control::decode(payload).map_err(|error| strange(&error))?));
        }
        op => return Err(ProbeError::Strange(format!("it answers a hello with op {op}"))),
    };
    let mut times = Vec::new();
    for request in 1..=PINGS {
        let start = Instant::now();
        send(&socket, Header { request, ..Header::new(frame::control::PING) }, &[])
            .map_err(|error| strange(&error))?;
        let reply = reader.header().map_err(|error| strange(&told(&error)))?;
        if (reply.op, reply.request) != (frame::control::REPLY, request) {
            return Err(ProbeError::Strange(format!("it answers a ping with op {}", reply.op)));
        }
        times.push(start.elapsed());
    }
    times.sort();
    Ok(Probed { welcome, ping: times[times.len() / 2] })
}

fn told(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
            format!("no answer within {ANSWER:?}")
        }
        other => other.to_string(),
    }
}

fn send(socket: &Socket, mut header: Header, payload: &[u8]) -> io::Result<()> {
    header.length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)])
}

/// Connects, in a thread, because the system's own patience can be minutes.
fn connect(endpoint: &Endpoint) -> Result<Socket, ProbeError> {
    let (sender, receiver) = channel();
    let endpoint = endpoint.clone();
    std::thread::spawn(move || sender.send(Socket::connect(&endpoint)));
    match receiver.recv_timeout(CONNECT) {
        Ok(result) => result.map_err(ProbeError::Connect),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(ProbeError::Connect(io::Error::new(io::ErrorKind::TimedOut, "nobody answers")))
        }
    }
}
