//! Carrying bytes between a TLS connection and a plain socket: one thread, which sleeps in poll(2), and holds at most what one
//! read brought in each direction.

use crate::TlsError;
use rustls::Connection;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes that one read takes from the plain side: a few records.
const PIECE: usize = 64 << 10;
/// How long the peer may take to close once we have: until then its last bytes must not be answered by a reset, which would
/// destroy ours.
const LINGER: Duration = Duration::from_secs(1);

/// How long a peer may take to take more of what is left for it once our side has closed: one that does not read would keep
/// the thread, and the daemon's descriptors, for as long as it likes.
const GONE: Duration = Duration::from_secs(5);

/// How carrying ended.
#[derive(Debug)]
pub struct Carried {
    /// Whether any byte came out of the connection: if none did, its user can still be told why.
    pub delivered: bool,
    /// What went wrong, where something did; a side that closes is nothing wrong.
    pub error: Option<TlsError>,
}

/// Shakes hands until `deadline`.
pub(crate) fn handshake(tls: &mut Connection, stream: &TcpStream, deadline: Instant) -> Result<(), TlsError> {
    stream.set_nonblocking(true)?;
    while tls.is_handshaking() || tls.wants_write() {
        if tls.wants_write() {
            match tls.write_tls(&mut &*stream) {
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let events = if tls.wants_write() { libc::POLLOUT } else { libc::POLLIN };
        if left.is_zero() || poll(&mut [(stream.as_raw_fd(), events)], Some(left))? == 0 {
            return Err(io::Error::new(ErrorKind::TimedOut, "the TLS handshake was not done in time").into());
        }
        if !tls.wants_write() {
            receive(tls, stream)?;
        }
    }
    Ok(())
}

/// Takes what has come; whether the peer goes on. Where what came is not acceptable, the peer is told.
fn receive(tls: &mut Connection, stream: &TcpStream) -> Result<bool, TlsError> {
    match tls.read_tls(&mut &*stream) {
        Ok(0) if tls.is_handshaking() => {
            let reason = "the peer closed during the TLS handshake";
            Err(io::Error::new(ErrorKind::UnexpectedEof, reason).into())
        }
        Ok(count) => {
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut &*stream);
                return Err(error.into());
            }
            Ok(count > 0)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Carries bytes both ways until one side closes; what that side sent before is delivered. The connection is closed then;
/// the plain socket is the caller's to close.
#[must_use]
pub fn carry(mut tls: Connection, stream: &TcpStream, plain: &UnixStream) -> Carried {
    keep_alive(stream);
    // A piece is encrypted at once, and the next is read when it has gone.
    tls.set_buffer_limit(None);
    let mut delivered = false;
    let error = both_ways(&mut tls, stream, plain, &mut delivered).err();
    tls.send_close_notify();
    let _ = finish(&mut tls, stream);
    Carried { delivered, error }
}

fn both_ways(
    tls: &mut Connection,
    stream: &TcpStream,
    plain: &UnixStream,
    delivered: &mut bool,
) -> Result<(), TlsError> {
    stream.set_nonblocking(true)?;
    plain.set_nonblocking(true)?;
    let mut piece = vec![0; PIECE];
    // Decrypted, and not yet taken by the plain side.
    let mut waiting: Vec<u8> = Vec::new();
    let (mut peer_goes_on, mut peer_takes, mut plain_takes) = (true, true, true);
    // Whether the plain side has closed, as far as is known while nothing is read from it.
    let mut plain_is_gone = false;
    loop {
        if waiting.is_empty() && plain_takes {
            match tls.reader().read(&mut piece) {
                // A farewell; the end without one shows as an error, and is no more than an end here: frames have lengths.
                Ok(0) => peer_goes_on = false,
                Ok(count) => waiting.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => peer_goes_on = false,
                Err(error) => return Err(error.into()),
            }
        }
        if (waiting.is_empty() && !peer_goes_on) || !(peer_takes || plain_takes) {
            return Ok(());
        }
        let (mut of_stream, mut of_plain) = (0, 0);
        if waiting.is_empty() && plain_takes {
            of_stream |= libc::POLLIN;
        }
        if !tls.wants_write() {
            of_plain |= libc::POLLIN;
        } else if peer_takes {
            of_stream |= libc::POLLOUT;
        }
        if !waiting.is_empty() {
            of_plain |= libc::POLLOUT;
        }
        if of_plain == 0 && !plain_is_gone {
            of_plain = libc::POLLRDHUP;
        }
        let mut wanted = [(stream.as_raw_fd(), of_stream), (plain.as_raw_fd(), of_plain)];
        if poll(&mut wanted, plain_is_gone.then_some(GONE))? == 0 {
            return Ok(());
        }
        let [(_, at_stream), (_, at_plain)] = wanted;
        plain_is_gone |= of_plain == libc::POLLRDHUP && at_plain != 0;
        if at_plain != 0 && of_plain & libc::POLLOUT != 0 {
            match (&*plain).write(&waiting) {
                Ok(count) => {
                    waiting.drain(..count);
                    *delivered = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It has closed. What it said last is still to be carried.
                Err(_) => {
                    waiting.clear();
                    plain_takes = false;
                }
            }
        }
        if at_plain != 0 && of_plain & libc::POLLIN != 0 {
            match (&*plain).read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => tls.writer().write_all(&piece[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok(()),
            }
        }
        if at_stream != 0 && of_stream & libc::POLLIN != 0 {
            peer_goes_on = receive(tls, stream)?;
        }
        if tls.wants_write() && peer_takes {
            match tls.write_tls(&mut &*stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It has closed. What it said last, and why, is still to be read.
                Err(_) => peer_takes = false,
            }
        }
    }
}

/// Has the system find out, within two minutes, that a peer which says nothing is gone without a word.
fn keep_alive(stream: &TcpStream) {
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
    ];
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is small");
    for (level, option, value) in options {
        let value: libc::c_int = value;
        // SAFETY: the descriptor is open; the value is an int of the length given. Where it is refused, the peer's death
        // is noticed by the next write.
        unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    }
}

/// Sends what is left, says farewell, and waits a moment for the peer's.
fn finish(tls: &mut Connection, stream: &TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + LINGER;
    let left = || deadline.saturating_duration_since(Instant::now());
    while tls.wants_write() {
        match tls.write_tls(&mut &*stream) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if poll(&mut [(stream.as_raw_fd(), libc::POLLOUT)], Some(left()))? == 0 {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut rest = [0; 4096];
    while !left().is_zero() && poll(&mut [(stream.as_raw_fd(), libc::POLLIN)], Some(left()))? > 0 {
        match (&*stream).read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the events wanted of each descriptor, and puts those that are there in their place; how many have any. One of
/// which nothing is wanted is not looked at, not even for its end.
fn poll(wanted: &mut [(RawFd, libc::c_short)], timeout: Option<Duration>) -> io::Result<libc::c_int> {
    let entry = |&(fd, events): &(RawFd, libc::c_short)| {
        let fd = if events == 0 { -1 } else { fd };
        libc::pollfd { fd, events, revents: 0 }
    };
    let mut polled: Vec<libc::pollfd> = wanted.iter().map(entry).collect();
    let count = libc::nfds_t::try_from(polled.len()).expect("two");
    let milliseconds = timeout.map_or(-1, |timeout| {
        // Rounded up: a wait that ends before its deadline would spin.
        i32::try_from((timeout + Duration::from_micros(999)).as_millis()).unwrap_or(i32::MAX)
    });
    let ready = loop {
        // SAFETY: an array of `count` entries, which outlives the call.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, milliseconds) };
        if ready >= 0 {
            break ready;
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    };
    for (wanted, polled) in wanted.iter_mut().zip(&polled) {
        wanted.1 = polled.revents;
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Acceptor, Connector, Identity};
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A certificate authority, and certificates of it, as openssl makes them; `None` where there is no openssl.
    fn certificates(folder: &Path) -> Option<()> {
        let openssl = |line: &str| {
            let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().ok()?;
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
            Some(())
        };
        for authority in ["ca", "other"] {
            openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ))?;
        }
        for (name, authority) in [("host", "ca"), ("red", "ca"), ("stranger", "other")] {
            openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} \
                 -addext subjectAltName=DNS:{name} -addext basicConstraints=CA:FALSE -CA {authority}.pem \
                 -CAkey {authority}.key -keyout {name}.key -out {name}.pem"
            ))?;
        }
        Some(())
    }

    struct Files(PathBuf);

    impl Files {
        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// What the server makes of a guest that shows this certificate, and what the guest gets back of what it sent.
        fn meet(
            &self,
            guest: Option<&str>,
            name: &str,
        ) -> (Result<Vec<String>, String>, Result<Vec<u8>, String>) {
            let [certificate, key] = ["host.pem", "host.key"].map(|file| self.path(file));
            let own = Identity { certificate: &certificate, key: &key };
            let acceptor = Acceptor::load(own, Some(&self.path("ca.pem"))).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let accepted = acceptor.accept(&stream, deadline).map_err(|error| error.to_string())?;
                let (ours, echo) = UnixStream::pair().unwrap();
                let echoing = std::thread::spawn(move || {
                    let mut piece = vec![0; 100_000];
                    while let Ok(count @ 1..) = (&echo).read(&mut piece) {
                        (&echo).write_all(&piece[..count]).unwrap();
                    }
                });
                let carried = carry(accepted.connection, &stream, &ours);
                drop(ours);
                echoing.join().unwrap();
                assert!(carried.error.is_none(), "{:?}", carried.error);
                Ok(accepted.names)
            });
            let [certificate, key] =
                ["pem", "key"].map(|kind| self.path(&format!("{}.{kind}", guest.unwrap_or("none"))));
            let own = guest.map(|_| Identity { certificate: &certificate, key: &key });
            let connector = Connector::load(&self.path("ca.pem"), name, own).unwrap();
            let stream = TcpStream::connect(address).unwrap();
            let got =
                connector.connect(&stream, deadline).map_err(|error| error.to_string()).and_then(|tls| {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    let carrying = std::thread::spawn(move || carry(tls, &stream, &ours));
                    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
                    let sending = theirs.try_clone().unwrap();
                    let bytes = sent.clone();
                    let sender = std::thread::spawn(move || (&sending).write_all(&bytes).is_ok());
                    let mut received = vec![0; sent.len()];
                    let whole = (&theirs).read_exact(&mut received).is_ok();
                    drop(theirs);
                    sender.join().unwrap();
                    let carried = carrying.join().unwrap();
                    assert_eq!(carried.delivered, whole);
                    if whole && received == sent {
                        return Ok(received);
                    }
                    Err(carried.error.map_or_else(|| "closed".into(), |error| error.to_string()))
                });
            (server.join().unwrap(), got)
        }
    }

    /// Has a server carry for a guest that says and reads nothing, after `plain` has done as it likes with the other end; how long
    /// that takes, at most until the guest is dropped after 20 s.
    fn carry_for(files: &Files, plain: impl FnOnce(UnixStream)) -> Duration {
        let [certificate, key] = ["host.pem", "host.key"].map(|file| files.path(file));
        let acceptor = Acceptor::load(Identity { certificate: &certificate, key: &key }, None).unwrap();
        let connector = Connector::load(&files.path("ca.pem"), "host", None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        std::thread::spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            let _tls = connector.connect(&stream, deadline).unwrap();
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        });
        let (stream, _) = listener.accept().unwrap();
        let connection = acceptor.accept(&stream, deadline).unwrap().connection;
        let (ours, theirs) = UnixStream::pair().unwrap();
        plain(theirs);
        let begun = Instant::now();
        let _ = carry(connection, &stream, &ours);
        begun.elapsed()
    }

    #[test]
    fn a_peer_that_does_not_read_is_left() {
        let folder = tempfile::tempdir().unwrap();
        if certificates(folder.path()).is_none() {
            return; // as above
        }
        let files = Files(folder.path().to_owned());
        // It does not read what the session has sent, which is more than the system buffers, before it ended.
        let stuff = |plain: UnixStream| {
            std::thread::spawn(move || {
                plain.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                while (&plain).write_all(&[0; 65536]).is_ok() {}
            });
        };
        let took = carry_for(&files, stuff);
        assert!(took < 3 * GONE, "a peer that does not read holds the thread for {took:?}");
    }

    #[test]
    fn the_right_certificate_gets_through_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        if certificates(folder.path()).is_none() {
            return; // no openssl here; the scenarios of TLS say that they are skipped
        }
        let files = Files(folder.path().to_owned());
        let (names, echo) = files.meet(Some("red"), "host");
        assert_eq!((names, echo.map(|bytes| bytes.len())), (Ok(vec!["red".into()]), Ok(1 << 20)));
        let (server, guest) = files.meet(None, "host");
        assert_eq!(server, Err("peer sent no certificates".into()));
        assert!(guest.unwrap_err().contains("CertificateRequired"));
        let (server, guest) = files.meet(Some("stranger"), "host");
        assert!(server.unwrap_err().contains("UnknownIssuer"));
        assert!(guest.unwrap_err().contains("UnknownCA"));
        // A server that is not the one that the guest means.
        let (_, guest) = files.meet(Some("red"), "elsewhere");
        assert!(guest.unwrap_err().contains("not valid for name"));
    }
}
