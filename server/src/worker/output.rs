//! What the device prints. A driver writes it to the process's own stdout and stderr when something synchronises; here
//! those are files in memory, and what has come is sent to the guest before the reply of the call that synchronised.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Read so far, after which a file is emptied: a guest that prints for days costs no memory.
const EMPTY_ABOVE: u64 = 1 << 20;

/// Bytes in a piece.
const PIECE: usize = 32 << 10;

/// One of the two streams.
#[derive(Debug)]
struct Captured {
    file: File,
    number: u64,
    read: u64,
}

/// Both streams.
#[derive(Debug)]
pub(crate) struct Output {
    streams: [Captured; 2],
    buffer: Box<[u8]>,
}

unsafe extern "C" {
    static stdout: *mut libc::FILE;
}

impl Output {
    /// Puts files in memory in the place of descriptors 1 and 2; the old stderr comes back, for the log.
    pub(crate) fn capture() -> io::Result<(Self, File)> {
        // SAFETY: duplicating an open descriptor; the copy is ours.
        let log = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 3) };
        if log < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let log = unsafe { File::from_raw_fd(log) };
        let buffer = vec![0; PIECE].into_boxed_slice();
        Ok((Self { streams: [Captured::take(1)?, Captured::take(2)?], buffer }, log))
    }

    /// Hands what was printed since the last time to `send`, as (1 or 2, bytes), in pieces that fit into a frame. This is part
    /// of every synchronisation, and each stream a system call: stderr, where assertions and faults are reported, is looked at
    /// only if asked for.
    pub(crate) fn drain(&mut self, errors: bool, mut send: impl FnMut(u64, &[u8])) {
        // SAFETY: the C library's stream lives as long as the process.
        unsafe { libc::fflush(stdout) };
        let [plain, error] = &mut self.streams;
        plain.drain(&mut self.buffer, &mut send);
        if errors {
            error.drain(&mut self.buffer, &mut send);
        }
    }
}

impl Captured {
    fn take(number: libc::c_int) -> io::Result<Self> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"pxos-output".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // Appending, so that emptying the file needs no agreement with the writer.
        // SAFETY: plain calls on our own descriptors.
        let done = unsafe {
            libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) == 0
                && libc::dup2(file.as_raw_fd(), number) >= 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, number: u64::from(number.unsigned_abs()), read: 0 })
    }

    fn drain(&mut self, buffer: &mut [u8], send: &mut impl FnMut(u64, &[u8])) {
        while let Ok(count @ 1..) = self.file.read_at(buffer, self.read) {
            send(self.number, &buffer[..count]);
            self.read += count as u64;
        }
        if self.read > EMPTY_ABOVE && self.file.set_len(0).is_ok() {
            self.read = 0;
        }
    }
}
