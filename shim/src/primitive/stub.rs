//! `/dev/pxos_gpu0` and `/dev/vgpu_stub`: files that exist only where this library is preloaded.
//!
//! Opening one gives the end of a pair of sockets, whose other end a thread of this library serves; so reading, writing,
//! polling, duplicating and closing are the kernel's own, and no other file pays for it. Only the functions that open
//! are interposed, and those that ask about files ([`super::files`]): they ask the C library first, and look at the name
//! where that has failed.

use super::command::{Conversation, Request, answer};
use crate::callbacks::spawn_quiet;
use crate::session::out_of_the_way;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// Longest text that one message may have: that of a program.
const MAX_MESSAGE: usize = pxos_protocol::primitive::MAX_TEXT;

/// Most openings at once.
const MAX_OPEN: usize = 64;

/// The served ends, so that a forked child can close its copies.
static SERVED: [AtomicI32; MAX_OPEN] = [const { AtomicI32::new(-1) }; MAX_OPEN];

/// The inodes of the other ends, by which a descriptor of ours is known; 0 for none.
static INODES: [AtomicU64; MAX_OPEN] = [const { AtomicU64::new(0) }; MAX_OPEN];

/// Whether an inode of a socket is that of an open file of ours.
pub(super) fn is_open(inode: u64) -> bool {
    inode != 0 && INODES.iter().any(|open| open.load(Ordering::Relaxed) == inode)
}

/// In a forked child: its copies of the served ends would keep a conversation open that nobody answers.
pub(crate) fn after_fork_child() {
    for slot in &SERVED {
        let fd = slot.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: this process's copy, which nobody uses; closing is allowed in a forked child.
            unsafe { libc::close(fd) };
        }
    }
}

/// Whether a path is one of the files.
///
/// # Safety
/// `path` is null or a C string.
pub(super) unsafe fn is_stub(path: *const c_char) -> bool {
    if path.is_null() {
        return false;
    }
    // SAFETY: by this function's contract.
    let path = unsafe { CStr::from_ptr(path) };
    matches!(path.to_bytes(), b"/dev/pxos_gpu0" | b"/dev/vgpu_stub")
}

pub(super) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(super) fn set_errno(value: c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = value };
}

/// Opens a file of ours; -1 and errno where that fails.
pub(super) fn open_stub(flags: c_int) -> c_int {
    match serve(flags) {
        Ok(fd) => fd,
        Err(error) => {
            set_errno(error);
            -1
        }
    }
}

fn serve(flags: c_int) -> Result<RawFd, c_int> {
    // A program finds out here, as it would from a driver, that there is no device.
    super::ready().map_err(|_| libc::ENODEV)?;
    let (theirs, ours) = UnixStream::pair().map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
    let ours = UnixStream::from(out_of_the_way(ours.into()));
    let free = SERVED.iter().zip(&INODES).find(|(slot, _)| {
        slot.compare_exchange(-1, ours.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    });
    let Some((slot, inode)) = free else { return Err(libc::EMFILE) };
    inode.store(inode_of(&theirs), Ordering::Relaxed);
    let fd = theirs.into_raw_fd();
    // SAFETY: a descriptor of ours.
    unsafe {
        if flags & libc::O_CLOEXEC == 0 {
            libc::fcntl(fd, libc::F_SETFD, 0);
        }
        if flags & libc::O_NONBLOCK != 0 {
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        }
    }
    let served = spawn_quiet("pxos-stub", move || {
        talk(&ours);
        inode.store(0, Ordering::Relaxed);
        slot.store(-1, Ordering::Relaxed);
        drop(ours);
    });
    if served {
        return Ok(fd);
    }
    inode.store(0, Ordering::Relaxed);
    slot.store(-1, Ordering::Relaxed);
    // SAFETY: a descriptor of ours, which nobody has seen.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Err(libc::EAGAIN)
}

/// The number that a socket's duplicates share; 0 where it cannot be told.
fn inode_of(socket: &UnixStream) -> u64 {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut told: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor of ours, and room for the answer.
    if unsafe { libc::fstat(socket.as_raw_fd(), &raw mut told) } == 0 { told.st_ino } else { 0 }
}

/// Answers until the other end is closed.
fn talk(mut socket: &UnixStream) {
    let mut framing = Framing::default();
    let mut conversation = Conversation::default();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        for message in framing.take(&buffer[..count]) {
            let bytes = match message {
                Message::Request(request) => answer(&request).to_bytes(),
                Message::Program(text) => conversation.program(text).into_bytes(),
                Message::Line(line) => conversation.line(&line).into_bytes(),
                Message::TooLong => {
                    let message = format!(
                        "{{\"status\":300,\"message\":\"a message has at most {MAX_MESSAGE} bytes\"}}"
                    );
                    message.into_bytes()
                }
            };
            let end: &[u8] = if matches!(bytes.first(), Some(b'{')) { b"\n" } else { b"" };
            // std sends with MSG_NOSIGNAL: a reader that has gone is an error here, not a signal.
            if socket.write_all(&[&bytes, end].concat()).is_err() {
                return;
            }
        }
    }
}

/// What was written.
#[derive(Debug)]
enum Message {
    Request(Request),
    Program(Vec<u8>),
    Line(String),
    TooLong,
}

/// Cuts what is written into messages. A request has a byte that no text has among its first two, since its command is
/// below 256; text is taken by lines, and lines of a program up to the end of its kernel.
#[derive(Debug, Default)]
struct Framing {
    pending: Vec<u8>,
    program: Vec<u8>,
    in_kernel: bool,
    /// A message was too long: what is left of it is thrown away up to this end.
    skipping: bool,
}

const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e)
}

impl Framing {
    fn take(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.pending.extend_from_slice(bytes);
        let mut messages = Vec::new();
        loop {
            // Within a program there are no requests.
            let head = &self.pending[..self.pending.len().min(2)];
            let binary = self.program.is_empty() && !self.skipping && head.iter().any(|byte| !is_text(*byte));
            if binary {
                let Some(request) = self.pending.first_chunk() else { return messages };
                messages.push(Message::Request(Request::from_bytes(request)));
                self.pending.drain(..Request::BYTES);
                continue;
            }
            let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') else {
                if self.pending.len() > MAX_MESSAGE {
                    self.pending.clear();
                    if !self.skipping {
                        messages.push(Message::TooLong);
                    }
                    self.skipping = true;
                }
                return messages;
            };
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            messages.extend(self.line(&line));
        }
    }

    fn line(&mut self, line: &[u8]) -> Option<Message> {
        let text = String::from_utf8_lossy(line);
        let word = text.split_whitespace().next().unwrap_or("");
        let ends = word == "GPU_END" && (self.in_kernel || self.skipping);
        if self.skipping {
            // A program that was too long ends where its kernel does, a line with itself.
            self.skipping = self.in_kernel && !ends;
            self.in_kernel &= !ends;
            return None;
        }
        if self.program.is_empty() {
            if word.is_empty() {
                return None;
            }
            if !(word.starts_with("GPU_") || word.starts_with('#') || word.starts_with("//")) {
                return Some(Message::Line(text.trim().to_owned()));
            }
        }
        self.in_kernel |= word == "GPU_KERNEL";
        if self.program.len() + line.len() > MAX_MESSAGE {
            self.program.clear();
            self.skipping = self.in_kernel && !ends;
            return Some(Message::TooLong);
        }
        self.program.extend_from_slice(line);
        if !ends {
            return None;
        }
        self.in_kernel = false;
        Some(Message::Program(std::mem::take(&mut self.program)))
    }
}

/// The C library's own function of a name, looked up once.
pub(super) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(super) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub(super) fn get(&self) -> Option<*mut c_void> {
        // Relaxed: the address is the same for whoever looks it up.
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: a C string; the answer is null or a function.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.found.store(found, Ordering::Relaxed);
        }
        (!found.is_null()).then_some(found)
    }
}

/// Opens through the C library, or one of our files where that has none of the name. With `O_CREAT` the name is looked at
/// first: the C library would make an ordinary file.
///
/// # Safety
/// As `open(2)` says of `path`.
unsafe fn opened(path: *const c_char, flags: c_int, native: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: by this function's contract.
    if flags & libc::O_CREAT != 0 && unsafe { is_stub(path) } {
        return open_stub(flags);
    }
    let fd = native();
    if fd >= 0 {
        return fd;
    }
    let why = errno();
    // The kernel has read the path: it is a C string.
    // SAFETY: by the line above.
    if why == libc::ENOENT && unsafe { is_stub(path) } {
        return open_stub(flags);
    }
    set_errno(why);
    fd
}

macro_rules! interposed {
    ($($name:ident ($($dir:ident)?) $(, $mode:ident)?;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(
                $($dir: c_int,)? path: *const c_char, flags: c_int $(, $mode: libc::mode_t)?
            ) -> c_int {
                type Function = unsafe extern "C" fn(
                    $(arg_type!($dir),)? *const c_char, c_int $(, mode_type!($mode))?
                ) -> c_int;
                static NEXT: Next = Next::new(
                    // SAFETY: it ends in the one zero that it has.
                    unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                );
                let native = || {
                    let Some(address) = NEXT.get() else {
                        set_errno(libc::ENOSYS);
                        return -1;
                    };
                    // SAFETY: the C library's function of this name; a mode is passed as any integer is.
                    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
                    // SAFETY: the caller keeps its contract.
                    unsafe { function($($dir,)? path, flags $(, $mode)?) }
                };
                // SAFETY: the caller keeps the contract.
                unsafe { opened(path, flags, native) }
            }
        )*
    };
}

macro_rules! arg_type {
    ($dir:ident) => {
        c_int
    };
}

macro_rules! mode_type {
    ($mode:ident) => {
        libc::mode_t
    };
}

interposed! {
    open (), mode;
    open64 (), mode;
    openat (dir), mode;
    openat64 (dir), mode;
    __open_2 ();
    __open64_2 ();
    __openat_2 (dir);
    __openat64_2 (dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(pieces: &[&[u8]]) -> Vec<String> {
        let mut framing = Framing::default();
        pieces
            .iter()
            .flat_map(|piece| framing.take(piece))
            .map(|message| match message {
                Message::Request(request) => format!("request {}", request.cmd),
                Message::Program(text) => format!("program {}", String::from_utf8(text).unwrap()),
                Message::Line(line) => format!("line {line}"),
                Message::TooLong => "too long".to_owned(),
            })
            .collect()
    }

    #[test]
    fn requests_lines_and_programs_are_told_apart() {
        let mut request = [0; 24];
        request[0] = 99;
        let program = b"# a\nGPU_FUNCTION f() \xe2\x86\x92 int:\n RETURN 1\nGPU_END\nGPU_KERNEL k\nGPU_THREAD_CODE:\nGPU_END\n";
        let found = framed(&[b"NO", b"P\n\n", &request[..1], &request[1..], program, b"STATUS\n"]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(
            (found[0].as_str(), found[1].as_str(), found[3].as_str()),
            ("line NOP", "request 99", "line STATUS")
        );
        assert_eq!(found[2], format!("program {}", std::str::from_utf8(program).unwrap()));
    }

    #[test]
    fn what_is_too_long_is_refused_once_and_the_next_message_is_heard() {
        let long = vec![b'x'; MAX_MESSAGE + 5];
        assert_eq!(framed(&[&long, &long, b"\nNOP\n"]), ["too long", "line NOP"]);
        let line = [vec![b'#'; 1000], b"\n".to_vec()].concat();
        let program = [b"GPU_KERNEL k\n".to_vec(), line.repeat(300), b"GPU_END\nNOP\n".to_vec()].concat();
        assert_eq!(framed(&[&program]), ["too long", "line NOP"]);
    }
}
