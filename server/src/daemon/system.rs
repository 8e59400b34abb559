//! The few system calls that the daemon needs and the standard library does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Waits until one of the descriptors has something to say (data, an end, an error) or `deadline` has come; which of
/// them, in their order. `None` waits for ever.
pub(super) fn poll<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let count = libc::nfds_t::try_from(N).expect("a few");
    loop {
        let timeout = deadline.map_or(-1, |deadline| {
            // Rounded up: a wait that ends before its deadline would spin.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
        });
        // SAFETY: an array of `count` entries that outlives the call.
        if unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) } >= 0 {
            return Ok(polled.map(|fd| fd.revents != 0));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A descriptor of a child that has not been waited for; readable once it is dead.
pub(super) fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    match i32::try_from(fd) {
        // SAFETY: the call made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kills the process; one that is dead already stays dead. Never hits another that was given the same id.
pub(super) fn kill(process: &OwnedFd) {
    // SAFETY: plain numbers and no siginfo.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<u8>(),
            0,
        );
    }
}

/// Kills what a dead but not yet awaited process left in the group of its own.
pub(super) fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: plain numbers.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
}

/// Makes calls on a listening socket return instead of waiting.
pub(super) fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain numbers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What a peer has sent that nobody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing; the connection stands.
    Nothing,
    /// Some bytes.
    Bytes,
    /// It has closed, or the connection broke.
    End,
}

/// Looks without taking and without waiting.
pub(super) fn unread(socket: &impl AsRawFd) -> Unread {
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            (&raw mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    match count {
        0 => Unread::End,
        1.. => Unread::Bytes,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Unread::Nothing,
        _ => Unread::End,
    }
}

/// Lets this process have as many open files as its hard limit allows: three for each session.
pub(super) fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a buffer of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// New files and sockets belong to this user alone until they are given their mode.
pub(super) fn set_private_umask() {
    // SAFETY: a plain number.
    unsafe { libc::umask(0o077) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn polling_tells_which_and_when() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let (silent, _far) = UnixStream::pair().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        assert_eq!(poll([other.as_fd(), silent.as_fd()], soon()).unwrap(), [false, false]);
        assert_eq!(unread(&other), Unread::Nothing);
        one.write_all(b"x").unwrap();
        assert_eq!(poll([other.as_fd(), silent.as_fd()], None).unwrap(), [true, false]);
        assert_eq!(unread(&other), Unread::Bytes);
        drop(one);
        assert_eq!(unread(&silent), Unread::Nothing);
    }

    #[test]
    fn a_process_is_seen_to_die() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = open_process(child.id()).unwrap();
        assert_eq!(poll([process.as_fd()], Some(Instant::now())).unwrap(), [false]);
        kill(&process);
        assert_eq!(poll([process.as_fd()], None).unwrap(), [true]);
        assert!(!child.wait().unwrap().success());
        kill(&process);
    }
}
