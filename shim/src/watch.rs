//! A server that is gone without a word: some VMMs keep a connection's reset to themselves (seen with `vhost-device-vsock`
//! 0.3, where the server is killed while it has bytes unread), and the guest would wait for ever.
//!
//! So a thread that has waited for long over vsock asks the server who it is, over a connection of its own. Only another
//! server's answer ends the session: one that does not answer may be draining, and a call may take for ever.

use crate::lock;
use pxos_guest::config::Config;
use pxos_protocol::control::{Hello, Purpose, Welcome, decode, encode};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{Header, VERSION, control};
use pxos_protocol::transport::{FrameReader, Socket, Transport};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a thread waits before it asks: longer than almost every call takes.
const FIRST: Duration = Duration::from_secs(5);
/// How often it asks at most, however long it waits.
const RARELY: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// When to ask next.
#[derive(Debug)]
struct Pace {
    last: Instant,
    pause: Duration,
}

impl Pace {
    /// Whether it is time to ask, where somebody has waited for a while. The pauses of one wait become longer; the next wait
    /// begins anew.
    fn is_time(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.last);
        if since > 2 * self.pause.max(FIRST) {
            self.pause = Duration::ZERO;
        }
        if since < self.pause {
            return false;
        }
        self.last = now;
        self.pause = (2 * self.pause).clamp(FIRST, RARELY);
        true
    }
}

/// Has whoever waits at `socket` ask whether the server of this session, whose number is `instance`, still is the one that
/// answers at `endpoint`.
pub(crate) fn watch(
    sockets: [&mut Socket; 2],
    endpoint: &Endpoint,
    config: &Config,
    instance: u64,
) -> io::Result<()> {
    let hello = Hello {
        version: VERSION,
        fingerprint: pxos_protocol::fingerprint(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        purpose: Purpose::Probe,
        pid: std::process::id(),
        program: crate::session::program_name(),
        token: config.token.clone(),
        shared_memory: false,
        bar: false,
        memory_max: None,
    };
    let pace = Mutex::new(Pace { last: Instant::now(), pause: Duration::ZERO });
    let endpoint = endpoint.clone();
    let look = Arc::new(move || {
        if !lock(&pace).is_time(Instant::now()) {
            return Ok(());
        }
        match ask(&endpoint, &hello) {
            Some(other) if other != instance => Err(io::Error::new(
                ErrorKind::ConnectionReset,
                "the server was started anew, and this session ended with the one before it",
            )),
            _ => Ok(()),
        }
    });
    for socket in sockets {
        socket.watch(FIRST, look.clone())?;
    }
    Ok(())
}

/// The number of the server that answers now, if one does.
fn ask(endpoint: &Endpoint, hello: &Hello) -> Option<u64> {
    let socket = Socket::connect(endpoint).ok()?;
    socket.set_receive_timeout(Some(ANSWER)).ok()?;
    socket.set_send_timeout(Some(ANSWER)).ok()?;
    let payload = encode(hello).ok()?;
    let mut header = Header::new(control::HELLO);
    header.length = u32::try_from(payload.len()).ok()?;
    socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(&payload)]).ok()?;
    let mut reader = FrameReader::new(socket);
    let header = reader.header().ok().filter(|header| header.op == control::WELCOME)?;
    let welcome: Welcome = decode(reader.payload(&header).ok()?).ok()?;
    Some(welcome.instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_asks_more_and_more_rarely_and_the_next_begins_anew() {
        let start = Instant::now();
        let mut pace = Pace { last: start, pause: Duration::ZERO };
        let mut asked = Vec::new();
        for seconds in (5..=300).step_by(5) {
            if pace.is_time(start + Duration::from_secs(seconds)) {
                asked.push(seconds);
            }
        }
        assert_eq!(asked, [5, 10, 20, 40, 80, 140, 200, 260]);
        assert!(pace.is_time(start + Duration::from_secs(500)));
        assert!(pace.is_time(start + Duration::from_secs(505)));
    }
}
