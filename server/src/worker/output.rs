//! What the device prints. A driver writes it when something synchronises, and what has come is sent to the guest before the
//! reply of the call that synchronised.
//!
//! What kernels print goes through the C library's `stdout` (measured: driver 580 does no more than that), which is a stream of
//! ours, so that looking whether something has come costs no system call. Assertions and faults go to stderr; descriptors 1 and
//! 2 are files in memory, which are looked at when something has failed and before host functions.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Read so far, after which a file is emptied: a guest that prints for days costs no memory.
const EMPTY_ABOVE: u64 = 1 << 20;

/// Most that is kept between two synchronisations, to which nobody forces a guest; natively what is printed is seen at launches
/// as well (CUDA programming guide, "Formatted output"), but a guest that reads no answers cannot be sent any.
const MOST: usize = 64 << 20;

/// Bytes in a piece.
const PIECE: usize = 32 << 10;

/// One of the two streams.
#[derive(Debug)]
struct Captured {
    file: File,
    number: u64,
    read: u64,
}

/// What has come through the C library's `stdout`: in any thread of the driver's.
#[derive(Debug, Default)]
struct Printed {
    kept: Mutex<Kept>,
    /// Whether there is anything.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Bytes that there was no room for.
    lost: usize,
}

static PRINTED: Printed =
    Printed { kept: Mutex::new(Kept { bytes: Vec::new(), lost: 0 }), any: AtomicBool::new(false) };

/// Both streams.
#[derive(Debug)]
pub(crate) struct Output {
    streams: [Captured; 2],
    buffer: Box<[u8]>,
}

/// `cookie_io_functions_t` of the C library.
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    static mut stdout: *mut libc::FILE;
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: CookieFunctions) -> *mut libc::FILE;
}

/// Takes what is written to `stdout`.
unsafe extern "C" fn take_printed(_: *mut c_void, bytes: *const c_char, count: usize) -> isize {
    // SAFETY: the C library passes a buffer of that length.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    PRINTED.put(bytes);
    count.cast_signed()
}

impl Printed {
    fn put(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes.len() + bytes.len() <= MOST {
            kept.bytes.extend_from_slice(bytes);
        } else {
            kept.lost += bytes.len();
        }
        self.any.store(true, Ordering::Release);
    }

    /// Puts a stream that ends here in the place of the C library's `stdout`. Without a buffer: what is printed is here at once.
    fn replace_stdout() -> io::Result<()> {
        let functions = CookieFunctions { read: None, write: Some(take_printed), seek: None, close: None };
        // SAFETY: a mode that is a C string, functions that live as long as the process. The worker has one thread yet, so that
        // nobody is using the stream that is replaced; it is not closed, since libraries may hold it.
        unsafe {
            let stream = fopencookie(std::ptr::null_mut(), c"w".as_ptr(), functions);
            if stream.is_null() {
                return Err(io::Error::last_os_error());
            }
            libc::setvbuf(stream, std::ptr::null_mut(), libc::_IONBF, 0);
            stdout = stream;
        }
        Ok(())
    }

    fn drain(&self, send: &mut impl FnMut(u64, &[u8])) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let Kept { bytes, lost } = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            self.any.store(false, Ordering::Relaxed);
            std::mem::take(&mut *kept)
        };
        bytes.chunks(PIECE).for_each(|piece| send(1, piece));
        if lost > 0 {
            let line =
                format!("pxos: {lost} bytes that kernels printed since the last synchronisation are lost\n");
            send(2, line.as_bytes());
        }
    }
}

impl Output {
    /// Puts what is of ours in the place of `stdout` and of descriptors 1 and 2; the old stderr comes back, for the log. Before
    /// there is a second thread.
    pub(crate) fn capture() -> io::Result<(Self, File)> {
        // SAFETY: duplicating an open descriptor; the copy is ours.
        let log = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 3) };
        if log < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let log = unsafe { File::from_raw_fd(log) };
        let buffer = vec![0; PIECE].into_boxed_slice();
        Printed::replace_stdout()?;
        Ok((Self { streams: [Captured::take(1)?, Captured::take(2)?], buffer }, log))
    }

    /// Hands what was printed since the last time to `send`, as (1 or 2, bytes), in pieces that fit into a frame. This is part
    /// of every synchronisation, and each file a system call: they are looked at only if `errors`.
    pub(crate) fn drain(&mut self, errors: bool, mut send: impl FnMut(u64, &[u8])) {
        PRINTED.drain(&mut send);
        if errors {
            for stream in &mut self.streams {
                stream.drain(&mut self.buffer, &mut send);
            }
        }
    }
}

impl Captured {
    fn take(number: c_int) -> io::Result<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_comes_whole_and_once() {
        let printed = Printed::default();
        let collect = || {
            let mut got: Vec<(u64, Vec<u8>)> = Vec::new();
            printed.drain(&mut |stream, bytes| got.push((stream, bytes.to_vec())));
            got
        };
        assert!(collect().is_empty());
        let long = vec![7; PIECE + 1];
        printed.put(b"a\n");
        printed.put(&long);
        let got = collect();
        assert!(got.iter().all(|(stream, piece)| *stream == 1 && piece.len() <= PIECE));
        let all: Vec<u8> = got.into_iter().flat_map(|(_, piece)| piece).collect();
        assert_eq!(all, [&b"a\n"[..], &long].concat());
        assert!(collect().is_empty());
    }

    #[test]
    fn what_is_kept_has_a_limit_that_is_told() {
        let printed = Printed::default();
        printed.put(&vec![1; MOST]);
        printed.put(b"more");
        let (mut kept, mut told) = (0, String::new());
        printed.drain(&mut |stream, bytes| match stream {
            1 => kept += bytes.len(),
            _ => told.push_str(std::str::from_utf8(bytes).unwrap()),
        });
        assert_eq!((kept, told.contains(" 4 bytes ")), (MOST, true));
        printed.put(b"again");
        printed.drain(&mut |stream, bytes| assert_eq!((stream, bytes), (1, &b"again"[..])));
    }
}
