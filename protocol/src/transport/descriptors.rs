//! Descriptors and credentials over unix sockets: how the daemon hands a connection to a worker, and how a guest on the
//! same host gets the shared memory of its session.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// Space for the control message of [`MAX_DESCRIPTORS`] descriptors, aligned as `cmsghdr` wants.
#[repr(C, align(8))]
struct ControlSpace([u8; 64]);

/// Sends `bytes` with `descriptors` beside them. The receiver gets descriptors of its own.
///
/// # Errors
/// The operating system's; `InvalidInput` for more than [`MAX_DESCRIPTORS`].
pub fn send(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let data_length = u32::try_from(size_of_val(descriptors)).expect("bounded above");
    let mut control = ControlSpace([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero message header is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        message.msg_control = (&raw mut control.0).cast();
        // SAFETY: pure arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(data_length) } as usize;
        // SAFETY: the control buffer holds one header and eight descriptors (16 + 32 bytes of 64).
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_length) as usize;
            std::ptr::copy_nonoverlapping(
                descriptors.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(header),
                data_length as usize,
            );
        }
    }
    // SAFETY: the message and everything that it names outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::WriteZero, "message was cut")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Receives into `bytes`: how many came, and the descriptors beside them (closed on exec).
///
/// # Errors
/// The operating system's.
pub fn receive(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = ControlSpace([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero message header is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.0).cast();
    message.msg_controllen = size_of::<ControlSpace>();
    let received = loop {
        // SAFETY: the message and everything that it names outlive the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(received) {
            Ok(received) => break received,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled the control buffer; the macros walk it within `msg_controllen`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a header inside the control buffer.
        let (level, kind, length) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let count = (length - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors behind the header, which are ours from now on.
                descriptors.push(unsafe {
                    let data = libc::CMSG_DATA(header).cast::<RawFd>();
                    OwnedFd::from_raw_fd(data.add(index).read_unaligned())
                });
            }
        }
        // SAFETY: as for the first.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok((received, descriptors))
}

/// Process and user id of the peer of a unix socket.
#[must_use]
pub fn peer_credentials(socket: &impl AsRawFd) -> (Option<u32>, Option<u32>) {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).expect("a ucred is small");
    // SAFETY: the buffer is a `ucred` of the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result == 0 { (u32::try_from(credentials.pid).ok(), Some(credentials.uid)) } else { (None, None) }
}

/// Whether a socket is a unix socket, over which descriptors can travel.
#[must_use]
pub fn is_unix(socket: &impl AsRawFd) -> bool {
    domain(socket) == Some(libc::AF_UNIX)
}

/// Whether a socket is a vsock socket.
#[must_use]
pub fn is_vsock(socket: &impl AsRawFd) -> bool {
    domain(socket) == Some(libc::AF_VSOCK)
}

fn domain(socket: &impl AsRawFd) -> Option<libc::c_int> {
    let mut domain: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is small");
    // SAFETY: the buffer is an int of the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_travels() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut pipe, mut far) = UnixStream::pair().unwrap();
        send(&one, b"here", &[far.as_raw_fd()]).unwrap();
        let mut bytes = [0; 16];
        let (count, descriptors) = receive(&other, &mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"here");
        assert_eq!(descriptors.len(), 1);
        let mut received = UnixStream::from(descriptors.into_iter().next().unwrap());
        received.write_all(b"x").unwrap();
        far.write_all(b"y").unwrap();
        let mut two = [0; 2];
        pipe.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"xy");
        assert!(is_unix(&one));
        assert_eq!(peer_credentials(&one).0, Some(std::process::id()));
    }
}
