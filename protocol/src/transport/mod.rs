//! Moving frames between two processes: stream sockets (unix, vsock, TCP), and descriptors that travel with them.
//!
//! Everything above this module sees a [`Socket`]: a connected stream of bytes, whichever transport it came from. The
//! server hands it from the daemon to a worker process as a bare descriptor.

pub mod bar;
pub mod descriptors;
mod frames;
pub mod mux;
pub mod ring;
mod words;

pub use frames::{FrameReader, ReadError};

use crate::endpoint::Endpoint;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;
use vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Bytes that one system call sends over vsock, unless [`Socket::limit_sends`] says otherwise. Linux 6.17 and the stable
/// kernels that took its changes send more than this as several descriptors, of which some VMMs take only the first: the
/// call then hangs for ever (seen with `vhost-device-vsock` 0.3 and guest kernels 6.12.107 and 7.2; 32 KiB are fine everywhere).
pub const VSOCK_SEND: usize = 32 << 10;

/// A connected stream of bytes.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Most bytes of one system call.
    most: usize,
    /// What to do when nothing has moved for as long as the timeouts say.
    look: Option<Look>,
}

/// Whether it makes sense to wait on.
#[derive(Clone)]
struct Look(Arc<dyn Fn() -> io::Result<()> + Send + Sync>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// A stream of bytes to a peer, whichever transport carries it.
pub trait Transport: Send + Sync {
    /// Reads what is there, at least one byte unless the peer has closed (0).
    ///
    /// # Errors
    /// The operating system's.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all parts, in order, in as few calls as the system allows.
    ///
    /// # Errors
    /// The operating system's; the stream is then out of step and has to be closed.
    fn send_all(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Ends both directions: a blocked reader wakes with 0.
    fn close(&self);
}

impl Socket {
    /// Connects to `endpoint`.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for an endpoint that nobody can connect to (`vsock:any`).
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let fd: OwnedFd = match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path)?.into(),
            Endpoint::Vsock { cid: u32::MAX, .. } => {
                return Err(io::Error::new(ErrorKind::InvalidInput, "a CID is needed to connect"));
            }
            Endpoint::Vsock { cid, port } => VsockStream::connect_with_cid_port(*cid, *port)?.into(),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.into()
            }
            Endpoint::Tls(_) => {
                let how = "pxctl guest-tls connects there, and programs at its socket";
                return Err(io::Error::new(ErrorKind::InvalidInput, how));
            }
            Endpoint::Vm { .. } | Endpoint::Serial { .. } => {
                return Err(io::Error::new(ErrorKind::InvalidInput, "that is an endpoint of servers"));
            }
        };
        Ok(fd.into())
    }

    /// Sends at most `bytes` in one system call; without a limit what the system takes.
    pub fn limit_sends(&mut self, bytes: Option<usize>) {
        self.most = bytes.map_or(usize::MAX, |bytes| bytes.max(1));
    }

    /// Lets reads and writes that have waited for as long as `every` ask `look` whether to wait on; its error is theirs.
    ///
    /// # Errors
    /// The operating system's.
    pub fn watch(
        &mut self,
        every: Duration,
        look: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
    ) -> io::Result<()> {
        self.set_receive_timeout(Some(every))?;
        self.set_send_timeout(Some(every))?;
        self.look = Some(Look(look));
        Ok(())
    }

    /// Whether it makes sense to wait on, where [`Self::watch`] has set somebody to tell.
    ///
    /// # Errors
    /// Why not.
    pub fn look(&self) -> io::Result<()> {
        self.look.as_ref().map_or(Ok(()), |look| (look.0)())
    }

    /// What became of a read or write that the system refused: `Ok` to try again.
    fn refused(&self) -> io::Result<()> {
        let error = io::Error::last_os_error();
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock if self.look.is_some() => self.look(),
            _ => Err(error),
        }
    }

    /// A connected pair, for tests and for processes that inherit one end.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
    }

    /// A second descriptor of the same stream.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, most: self.most, look: self.look.clone() })
    }

    /// Bounds how long one read waits; `None` waits for ever.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(libc::SO_RCVTIMEO, timeout)
    }

    /// Bounds how long one write waits; `None` waits for ever.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(libc::SO_SNDTIMEO, timeout)
    }

    /// Asks for room for `bytes` under way, so that neither side waits for the other after every chunk of bulk data. The
    /// system gives what it allows.
    pub fn set_buffers(&self, bytes: u32) {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is small");
        for (forced, plain) in
            [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)]
        {
            for option in [forced, plain] {
                // SAFETY: the descriptor is ours and open; the value is an int of the length given.
                let result = unsafe {
                    libc::setsockopt(
                        self.fd.as_raw_fd(),
                        libc::SOL_SOCKET,
                        option,
                        (&raw const bytes).cast(),
                        length,
                    )
                };
                if result == 0 {
                    break;
                }
            }
        }
    }

    fn set_timeout(&self, option: libc::c_int, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.unwrap_or_default();
        let value = libc::timeval {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_usec: timeout.subsec_micros().into(),
        };
        let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).expect("a timeval is small");
        // SAFETY: the descriptor is ours and open; the value is a `timeval` of the length given.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(&value).cast(),
                length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether bytes can be read without waiting, or the end. `false` where a signal came between.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.wait_readable(Duration::ZERO).unwrap_or_else(|error| error.kind() != ErrorKind::Interrupted)
    }

    /// Waits until bytes can be read or `timeout` has passed; `false` for the latter.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one `pollfd`, which outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
            0 => Ok(false),
            result if result > 0 => Ok(true),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Transport for Socket {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the buffer is valid for writes of its own length.
            let count = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(count) {
                Ok(count) => return Ok(count),
                Err(_) => self.refused()?,
            }
        }
    }

    fn send_all(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let count = {
                let mut now = [IoSlice::new(&[]); 64];
                let count = take(parts, self.most, &mut now);
                let message = libc::msghdr {
                    msg_name: std::ptr::null_mut(),
                    msg_namelen: 0,
                    msg_iov: now.as_mut_ptr().cast(),
                    msg_iovlen: count,
                    msg_control: std::ptr::null_mut(),
                    msg_controllen: 0,
                    msg_flags: 0,
                };
                // SAFETY: an `IoSlice` has the layout of an `iovec`; the message and what it names outlive the call.
                unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) }
            };
            match usize::try_from(count) {
                Ok(count) => IoSlice::advance_slices(&mut parts, count),
                Err(_) => self.refused()?,
            }
        }
        Ok(())
    }

    fn close(&self) {
        // SAFETY: the descriptor is ours and open.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// The first `most` bytes of `parts`, as parts; how many of these there are.
fn take<'a>(parts: &'a [IoSlice<'_>], most: usize, into: &mut [IoSlice<'a>; 64]) -> usize {
    let (mut left, mut count) = (most, 0);
    for (slot, part) in into.iter_mut().zip(parts) {
        if left == 0 {
            break;
        }
        let length = part.len().min(left);
        *slot = IoSlice::new(&part[..length]);
        (left, count) = (left - length, count + 1);
    }
    count
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        let most = if descriptors::is_vsock(&fd) { VSOCK_SEND } else { usize::MAX };
        Self { fd, most, look: None }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

/// A descriptor that this process was given by number, at exec.
///
/// # Safety
/// The number names an open descriptor that nothing else in this process owns.
#[must_use]
pub unsafe fn inherited(fd: RawFd) -> Socket {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

/// Who is at the other end, as the operating system tells it (design D13): never from the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this host, at the socket with this path.
    Unix {
        /// Process id, where the kernel knows it.
        pid: Option<u32>,
        /// User id, where the kernel knows it.
        uid: Option<u32>,
    },
    /// A VM by its context id.
    Vsock {
        /// Context id.
        cid: u32,
    },
    /// A network address.
    Tcp {
        /// Address and port.
        address: String,
    },
    /// A network address whose TLS handshake is done.
    Tls {
        /// Address and port.
        address: String,
        /// DNS names of the certificate that it showed, which is of an authority that the server trusts; none where the
        /// server asks for no certificates.
        names: Vec<String>,
    },
}

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// Of a unix path, which is removed when the listener goes; also that of a VM's vsock port.
    Unix(UnixListener, std::path::PathBuf),
    /// Of a vsock port.
    Vsock(VsockListener),
    /// Of a TCP port.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `endpoint`. A unix socket that nobody answers at is replaced; one that is alive is not.
    ///
    /// # Errors
    /// The operating system's; `AddrInUse` where another server listens.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Vm { .. } => {
                let path = endpoint.socket().expect("these two have one");
                if UnixStream::connect(&path).is_ok() {
                    return Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there"));
                }
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Ok(Self::Unix(UnixListener::bind(&path)?, path))
            }
            Endpoint::Serial { .. } => {
                Err(io::Error::new(ErrorKind::InvalidInput, "QEMU listens there, not the server"))
            }
            Endpoint::Vsock { cid, port } => {
                let cid = if *cid == u32::MAX { VMADDR_CID_ANY } else { *cid };
                Ok(Self::Vsock(VsockListener::bind(&VsockAddr::new(cid, *port))?))
            }
            Endpoint::Tcp(address) | Endpoint::Tls(address) => Ok(Self::Tcp(TcpListener::bind(address)?)),
        }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system's.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                let (pid, uid) = descriptors::peer_credentials(&stream);
                Ok((OwnedFd::from(stream).into(), Peer::Unix { pid, uid }))
            }
            Self::Vsock(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((OwnedFd::from(stream).into(), Peer::Vsock { cid: address.cid() }))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok((OwnedFd::from(stream).into(), Peer::Tcp { address: address.to_string() }))
            }
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(listener, _) => listener.as_raw_fd(),
            Self::Vsock(listener) => listener.as_raw_fd(),
            Self::Tcp(listener) => listener.as_raw_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_asks_whether_to_wait_on() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (mut one, other) = Socket::pair().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let counting = Arc::clone(&asked);
        let look = move || match counting.fetch_add(1, Ordering::SeqCst) {
            2 => Err(io::Error::new(ErrorKind::ConnectionReset, "gone")),
            _ => Ok(()),
        };
        one.watch(Duration::from_millis(2), Arc::new(look)).unwrap();
        let copy = one.try_clone().unwrap();
        assert_eq!(copy.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        // One that blocks in a write asks as well, and what goes on is whole.
        asked.store(2, Ordering::SeqCst);
        let much = vec![7; 8 << 20];
        assert_eq!(one.send_all(&mut [IoSlice::new(&much)]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let (mut count, mut buffer) = (0, vec![0; 1 << 20]);
            while let Ok(more @ 1..) = other.receive(&mut buffer) {
                count += more;
            }
            count
        });
        assert!(one.send_all(&mut [IoSlice::new(&much)]).is_ok());
        drop((one, copy));
        assert!(reader.join().unwrap() >= much.len());
    }

    #[test]
    fn a_send_is_cut_to_the_limit_and_nothing_is_lost() {
        let (mut one, other) = Socket::pair().unwrap();
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
        one.limit_sends(Some(7));
        let mut parts = [IoSlice::new(&[]); 64];
        let cut = [IoSlice::new(&bytes[..5]), IoSlice::new(&bytes[5..9])];
        assert_eq!(take(&cut, 7, &mut parts), 2);
        assert_eq!((parts[0].len(), parts[1].len()), (5, 2));
        assert_eq!(take(&cut, usize::MAX, &mut parts), 2);
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || {
            let (start, rest) = sent.split_at(3);
            one.send_all(&mut [IoSlice::new(start), IoSlice::new(&[]), IoSlice::new(rest)]).unwrap();
        });
        let (mut received, mut buffer) = (Vec::<u8>::new(), [0; 4096]);
        loop {
            match other.receive(&mut buffer).unwrap() {
                0 => break,
                count => received.extend(&buffer[..count]),
            }
        }
        writer.join().unwrap();
        assert_eq!(received, bytes);
    }
}
