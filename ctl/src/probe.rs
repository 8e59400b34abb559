//! Asking a server as a guest would, without a session: who am I, what may I use, how far is it.

use pxos_guest::inquiry::{Asker, Inquiry, InquiryError};
use pxos_protocol::control::{Refusal, Welcome};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::Socket;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long connecting may take: a vsock device without a listener behind it takes two seconds to say so.
const CONNECT: Duration = Duration::from_secs(4);
/// Pings; the median of so few is good enough to tell microseconds from milliseconds.
const PINGS: usize = 51;

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

impl From<InquiryError> for ProbeError {
    fn from(error: InquiryError) -> Self {
        match error {
            InquiryError::Refused(refusal) => Self::Refused(refusal),
            InquiryError::Strange(reason) => Self::Strange(reason),
        }
    }
}

/// Connects, says hello, and pings.
pub(crate) fn probe(endpoint: &Endpoint, token: Option<String>) -> Result<Probed, ProbeError> {
    let asker = Asker { program: "pxctl".into(), token, memory_max: None };
    let mut inquiry = Inquiry::begin(connect(endpoint)?, &asker)?;
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let start = Instant::now();
        inquiry.ping()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(Probed { welcome: inquiry.into_welcome(), ping: times[times.len() / 2] })
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
