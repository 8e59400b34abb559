//! The connection: frames out in program order, frames in to whoever waits for them.
//!
//! Out: over shared memory every frame goes straight into a ring that the worker reads. Over a socket calls that nobody waits
//! for are appended to a queue that a flusher thread writes, many per system call; a call that waits writes the queue itself.
//! In: there is no reader thread. Of the threads that wait, one reads and hands the others theirs ([`Relay`]). Over shared memory
//! there are two things to read: the ring, and the socket beside it, the *door*, where whoever sleeps is woken. Host functions
//! come to the door: the thread that runs them sleeps there and leaves the ring to those who wait for answers.

mod door;
mod relay;
mod source;

use crate::lock;
use crate::log::{self, Level};
use door::{Door, Due};
use pxos_protocol::codec::Reader;
use pxos_protocol::control::{Refusal, decode};
use pxos_protocol::frame::{HEADER, Header, control};
use pxos_protocol::transport::ring::{Consumer, Producer, Push, RESERVE};
use pxos_protocol::transport::{FrameReader, ReadError, Socket, Transport};
use pxos_protocol::types::CUresult;
use relay::Relay;
pub(crate) use source::Patience;
use source::Source;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Queued bytes above which the caller writes them itself: backpressure, so that a program that launches faster than
/// the server takes does not grow.
const HIGH_WATER: usize = 256 << 10;

/// How often the flusher looks again before it sleeps; about 20 µs, several times the gap between two launches of a
/// busy program.
const FLUSHER_SPINS: u32 = 400;

/// How often a full ring is looked at before its writer sleeps in between.
const FULL_SPINS: u32 = 64;

/// How long the writer of a full ring sleeps: the worker takes some twenty launches in that time.
const FULL_RING: Duration = Duration::from_micros(50);

/// How often it looks before it sees to what has come.
const FULL_LOOK: u32 = 64;

/// How often the writer of a full ring looks, some seconds in all, before it asks whether there still is a server.
const FULL_LONG: u32 = 50_000;

/// What calls answer when the connection is gone: the worker died, the server was stopped, or a frame was wrong.
pub(crate) const LOST: CUresult = CUresult::ERROR_DEVICE_UNAVAILABLE;

/// The connection of this process.
#[derive(Debug)]
pub(crate) struct Link {
    out: Out,
    incoming: Relay<Incoming>,
    source: Mutex<Source>,
    /// Bytes of the ring whose frames have been read and heeded.
    read: AtomicU64,
    door: Option<Door>,
    callbacks: Mutex<VecDeque<Due>>,
    /// Not zero once the connection is gone: the `CUresult` of every further call.
    dead: AtomicU32,
}

/// The way out.
#[derive(Debug)]
enum Out {
    Socket(SocketOut),
    Ring(RingOut),
}

/// Over a socket: a queue, and a thread that writes it.
#[derive(Debug)]
struct SocketOut {
    queue: Mutex<Vec<u8>>,
    queued: AtomicUsize,
    flusher: Mutex<FlusherState>,
    flusher_wake: Condvar,
    flusher_parked: AtomicBool,
    writer: Mutex<Writer>,
}

/// Over shared memory: the ring is the queue, and the worker reads it by itself.
#[derive(Debug)]
struct RingOut {
    producer: Mutex<Producer>,
    /// Frames that wait for room, one at a time, so that a large one gets what comes free: but not those that may use the reserve.
    queue: Mutex<()>,
    queued: AtomicUsize,
    doorbell: Socket,
}

#[derive(Debug, Default)]
struct FlusherState {
    started: bool,
}

#[derive(Debug)]
struct Writer {
    socket: Socket,
    spare: Vec<u8>,
}

/// What has come and what is awaited.
#[derive(Debug, Default)]
struct Incoming {
    /// By request. As many as threads and chunks are under way: few enough to be looked through.
    replies: Vec<(u64, Slot)>,
    landings: Vec<(u64, Landing)>,
}

#[derive(Debug)]
enum Slot {
    Awaited,
    Here(CUresult, Vec<u8>),
}

/// Where the bytes of a copy to the host go.
#[derive(Clone, Copy, Debug)]
struct Landing {
    address: usize,
    length: usize,
}

/// Takes what is kept for a request.
fn take<T>(kept: &mut Vec<(u64, T)>, request: u64) {
    if let Some(place) = kept.iter().position(|(of, _)| *of == request) {
        kept.swap_remove(place);
    }
}

impl Link {
    /// Speaks over `socket`, whose greeting is done.
    pub(crate) fn over_socket(reader: FrameReader, socket: Socket) -> Self {
        Self::new(
            Out::Socket(SocketOut {
                queue: Mutex::default(),
                queued: AtomicUsize::new(0),
                flusher: Mutex::default(),
                flusher_wake: Condvar::new(),
                flusher_parked: AtomicBool::new(false),
                writer: Mutex::new(Writer { socket, spare: Vec::new() }),
            }),
            Source::Socket(reader),
            None,
        )
    }

    /// Speaks over two rings; `reader` and `socket` are their door.
    pub(crate) fn over_rings(rings: (Producer, Consumer), reader: FrameReader, socket: Socket) -> Self {
        let (producer, consumer) = rings;
        Self::new(
            Out::Ring(RingOut {
                producer: Mutex::new(producer),
                queue: Mutex::default(),
                queued: AtomicUsize::new(0),
                doorbell: socket,
            }),
            Source::over_ring(consumer),
            Some(Door::new(reader)),
        )
    }

    fn new(out: Out, source: Source, door: Option<Door>) -> Self {
        Self {
            out,
            incoming: Relay::default(),
            source: Mutex::new(source),
            read: AtomicU64::new(0),
            door,
            callbacks: Mutex::default(),
            dead: AtomicU32::new(0),
        }
    }

    /// Whether the connection stands.
    pub(crate) fn check(&self) -> Result<(), CUresult> {
        // Relaxed: a flag that is only ever set; whoever needs more than the flag takes a lock.
        CUresult(self.dead.load(Ordering::Relaxed)).ok()
    }

    /// Appends a frame that nobody waits for. It is on its way within microseconds.
    pub(crate) fn post(&'static self, header: Header, payload: &[u8]) -> Result<(), CUresult> {
        self.check()?;
        match &self.out {
            Out::Ring(ring) => self.push(ring, header, &[payload]),
            Out::Socket(out) => {
                let queued = out.append(header, payload);
                if queued > HIGH_WATER {
                    return self.flush(out, &[]);
                }
                // The flusher announces that it sleeps before it looks at the queue a last time, and we append before we
                // look at the announcement; both with SeqCst, so one of us sees the other.
                if out.flusher_parked.load(Ordering::SeqCst) {
                    self.wake_flusher(out);
                }
                Ok(())
            }
        }
    }

    /// Appends a frame and writes all that is queued.
    pub(crate) fn send(&self, header: Header, payload: &[u8]) -> Result<(), CUresult> {
        self.check()?;
        match &self.out {
            Out::Ring(ring) => self.push(ring, header, &[payload]),
            Out::Socket(out) => {
                out.append(header, payload);
                self.flush(out, &[])
            }
        }
    }

    /// Writes one frame of bulk data: header, a few bytes of fields, then memory of the application.
    pub(crate) fn send_bulk(&self, mut header: Header, fields: &[u8], bytes: &[u8]) -> Result<(), CUresult> {
        self.check()?;
        match &self.out {
            Out::Ring(ring) => self.push(ring, header, &[fields, bytes]),
            Out::Socket(out) => {
                let padding = bytes.len().next_multiple_of(8) - bytes.len();
                let length = fields.len() + bytes.len() + padding;
                header.length = u32::try_from(length).expect("bulk frames are bounded by BULK_CHUNK");
                let header: [u8; HEADER] = header.to_bytes();
                self.flush(out, &[&header, fields, bytes, &[0; 8][..padding]])
            }
        }
    }

    /// Puts a frame into the ring; waits while there is no room (backpressure).
    fn push(&self, ring: &RingOut, header: Header, parts: &[&[u8]]) -> Result<(), CUresult> {
        let may_use_reserve = header.may_use_reserve();
        let push = || {
            let free = if may_use_reserve { 0 } else { RESERVE };
            lock(&ring.producer).push_leaving(free, header, parts)
        };
        // Relaxed: whoever comes a little early only takes a turn.
        let at_once = may_use_reserve || ring.queued.load(Ordering::Relaxed) == 0;
        let wake = match at_once.then(push) {
            Some(Push::Done { wake }) => wake,
            _ if may_use_reserve => self.push_when_there_is_room(ring, push)?,
            _ => {
                ring.queued.fetch_add(1, Ordering::Relaxed);
                let turn = lock(&ring.queue);
                let pushed = self.push_when_there_is_room(ring, push);
                drop(turn);
                ring.queued.fetch_sub(1, Ordering::Relaxed);
                pushed?
            }
        };
        if wake {
            let bytes = Header::new(control::DOORBELL).to_bytes();
            if let Err(error) = ring.doorbell.send_all(&mut [IoSlice::new(&bytes)]) {
                return Err(self.broken(&error));
            }
        }
        Ok(())
    }

    /// Tries until there is room; whether the worker has to be woken.
    #[cold]
    fn push_when_there_is_room(&self, ring: &RingOut, push: impl Fn() -> Push) -> Result<bool, CUresult> {
        let mut tries = 0_u32;
        loop {
            if let Push::Done { wake } = push() {
                return Ok(wake);
            }
            tries += 1;
            if tries < FULL_SPINS {
                std::hint::spin_loop();
                continue;
            }
            std::thread::sleep(FULL_RING);
            if tries.is_multiple_of(FULL_LOOK) {
                // The worker may wait for room in the other ring, where nobody waits for an answer now.
                self.drain();
                // A worker that died leaves a ring that stays full: its socket tells.
                self.look_at_door();
            }
            // A server that is gone does not tell everywhere.
            if tries.is_multiple_of(FULL_LONG)
                && let Err(error) = ring.doorbell.look()
            {
                return Err(self.broken(&error));
            }
            self.check()?;
        }
    }

    /// The connection cannot be written. The peer may have said why before it closed: that is read first.
    fn broken(&self, error: &std::io::Error) -> CUresult {
        self.drain();
        self.lost(format_args!("the connection to the server failed: {error}"))
    }

    /// Writes all that is queued and then `parts`, which are not copied: whole frames of bulk data.
    fn flush(&self, out: &SocketOut, parts: &[&[u8]]) -> Result<(), CUresult> {
        let mut writer = lock(&out.writer);
        let spare = std::mem::take(&mut writer.spare);
        let queued = {
            let mut queue = lock(&out.queue);
            out.queued.store(0, Ordering::SeqCst);
            std::mem::replace(&mut *queue, spare)
        };
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(1 + parts.len());
        if !queued.is_empty() {
            slices.push(IoSlice::new(&queued));
        }
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let result = if slices.is_empty() { Ok(()) } else { writer.socket.send_all(&mut slices) };
        drop(slices);
        writer.spare = queued;
        writer.spare.clear();
        drop(writer);
        result.map_err(|error| self.broken(&error))
    }

    fn wake_flusher(&'static self, out: &'static SocketOut) {
        let mut state = lock(&out.flusher);
        if state.started {
            out.flusher_wake.notify_one();
            return;
        }
        state.started = true;
        if !crate::callbacks::spawn_quiet("pxos-flush", move || self.run_flusher(out)) {
            // Without a thread every call writes its own frame: slower, but right.
            state.started = false;
            drop(state);
            let _ = self.flush(out, &[]);
        }
    }

    fn run_flusher(&self, out: &SocketOut) {
        loop {
            for _ in 0..FLUSHER_SPINS {
                if out.queued.load(Ordering::SeqCst) > 0 && self.flush(out, &[]).is_err() {
                    return;
                }
                std::hint::spin_loop();
                std::thread::yield_now();
            }
            let mut state = lock(&out.flusher);
            out.flusher_parked.store(true, Ordering::SeqCst);
            while out.queued.load(Ordering::SeqCst) == 0 {
                state = out.flusher_wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            out.flusher_parked.store(false, Ordering::SeqCst);
        }
    }

    /// Makes the first [`Self::post`] start the flusher.
    pub(crate) fn arm_flusher(&self) {
        if let Out::Socket(out) = &self.out {
            out.flusher_parked.store(true, Ordering::SeqCst);
        }
    }

    /// Announces that the answer to `request` is awaited; before the call is sent.
    pub(crate) fn expect(&self, request: u64) {
        self.incoming.with(|incoming| incoming.replies.push((request, Slot::Awaited)));
    }

    /// Announces where the bytes of `request` go; before the call is sent.
    ///
    /// # Safety
    /// The range is valid for writes until the call is answered.
    pub(crate) unsafe fn land(&self, request: u64, address: *mut u8, length: usize) {
        let landing = Landing { address: address.addr(), length };
        self.incoming.with(|incoming| incoming.landings.push((request, landing)));
    }

    /// Forgets where bytes of `request` would go.
    pub(crate) fn forget_landing(&self, request: u64) {
        self.incoming.with(|incoming| take(&mut incoming.landings, request));
    }

    /// Waits for the answer to `request`, which the device may have to work for: `patience` says whether to look for it for long.
    pub(crate) fn wait(
        &self,
        request: u64,
        patience: impl Fn() -> Patience,
    ) -> Result<(CUresult, Vec<u8>), CUresult> {
        let alive = || self.check();
        let answer = self.incoming.wait(
            alive,
            || self.read_one(&patience),
            |incoming| {
                let place = incoming.replies.iter().position(|(of, _)| *of == request)?;
                match incoming.replies[place].1 {
                    Slot::Awaited => None,
                    Slot::Here(..) => {
                        take(&mut incoming.landings, request);
                        Some(incoming.replies.swap_remove(place).1)
                    }
                }
            },
        );
        match answer {
            Ok(Slot::Here(result, payload)) => Ok((result, payload)),
            Ok(Slot::Awaited) => unreachable!("only answers are taken"),
            Err(error) => {
                self.incoming.with(|incoming| {
                    take(&mut incoming.replies, request);
                    take(&mut incoming.landings, request);
                });
                Err(error)
            }
        }
    }

    /// Reads what is there, unless somebody reads: what the peer said before it went, or what it has no room for otherwise.
    fn drain(&self) {
        self.incoming.read(|| {
            while self.check().is_ok() && lock(&self.source).has_more() {
                self.read_one(&|| Patience::Short);
            }
        });
    }

    fn read_one(&self, patience: &dyn Fn() -> Patience) {
        let mut source = lock(&self.source);
        match self.read_frame(&mut source, patience) {
            // Release: who sees it sees what the frames have brought.
            Ok(()) => self.read.store(source.position(), Ordering::Release),
            Err(error) => self.unreadable(&error),
        }
    }

    fn unreadable(&self, error: &ReadError) {
        match error {
            ReadError::Closed => self.lost(format_args!("the server closed the connection")),
            error => self.lost(format_args!("{error}")),
        };
    }

    fn read_frame(&self, reader: &mut Source, patience: &dyn Fn() -> Patience) -> Result<(), ReadError> {
        let header = loop {
            match reader.header(patience)? {
                Some(header) => break header,
                None => {
                    self.sleep()?;
                    reader.unpark();
                }
            }
        };
        match header.op {
            control::REPLY => {
                let payload = reader.payload(&header)?.to_vec();
                #[expect(clippy::cast_possible_truncation, reason = "the result is the lower half")]
                let result = CUresult(header.context as u32);
                self.incoming.with(|incoming| {
                    let asked = incoming.replies.iter_mut().find(|(request, _)| *request == header.request);
                    if let Some((_, slot)) = asked {
                        *slot = Slot::Here(result, payload);
                    }
                });
            }
            control::DATA => self.read_data(reader, &header)?,
            control::OUTPUT => {
                let payload = reader.payload(&header)?;
                let mut fields = Reader::new(payload);
                if let (Ok(stream), Ok(bytes)) = (fields.get::<u64>(), fields.get_bytes()) {
                    print(stream, bytes);
                }
            }
            _ => {
                let payload = reader.payload(&header)?;
                self.heed(&header, payload);
            }
        }
        Ok(())
    }

    /// What may come beside a ring as well as through a socket.
    fn heed(&self, header: &Header, payload: &[u8]) {
        match header.op {
            control::CALLBACK => {
                let mut fields = Reader::new(payload);
                if let (Ok(number), Ok(behind), Ok(status)) = (fields.get(), fields.get(), fields.get()) {
                    lock(&self.callbacks).push_back(Due { number, status, behind });
                }
            }
            control::REFUSAL => {
                let refusal = decode::<Refusal>(payload).unwrap_or_else(|error| Refusal {
                    result: LOST.0,
                    message: format!("the server ended the session for an unreadable reason ({error})"),
                });
                self.fail(CUresult(refusal.result), format_args!("{}", refusal.message));
            }
            _ => {
                log::line(Level::Warn, format_args!("the server sent an unknown frame of op {}", header.op));
            }
        }
    }

    /// Bytes of a copy go straight to where the application wants them.
    fn read_data(&self, reader: &mut Source, header: &Header) -> Result<(), ReadError> {
        let mut prefix = [0; 16];
        if header.length < 16 {
            reader.payload(header)?;
            return Ok(());
        }
        reader.payload_into(&mut prefix)?;
        let mut fields = Reader::new(&prefix);
        let offset = usize::try_from(fields.get::<u64>().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let length = usize::try_from(fields.get::<u64>().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let rest = header.length as usize - 16;
        let landing = self.incoming.with(|incoming| {
            let asked = incoming.landings.iter().find(|(request, _)| *request == header.request);
            asked.map(|(_, landing)| *landing)
        });
        let fits = landing.filter(|landing| {
            length <= rest && offset.checked_add(length).is_some_and(|end| end <= landing.length)
        });
        let mut padding = rest;
        if let Some(landing) = fits {
            let address = std::ptr::with_exposed_provenance_mut::<u8>(landing.address + offset);
            // SAFETY: `land`'s caller promised the range, and offset and length were checked against it.
            reader.payload_into(unsafe { std::slice::from_raw_parts_mut(address, length) })?;
            padding -= length;
        }
        // Padding, or bytes that nobody waits for.
        let mut scrap = [0; 4096];
        while padding > 0 {
            let piece = padding.min(scrap.len());
            reader.payload_into(&mut scrap[..piece])?;
            padding -= piece;
        }
        Ok(())
    }

    fn lost(&self, why: std::fmt::Arguments<'_>) -> CUresult {
        self.fail(LOST, why);
        CUresult(self.dead.load(Ordering::Relaxed))
    }

    /// Marks the connection as gone, with one line that says why.
    fn fail(&self, result: CUresult, why: std::fmt::Arguments<'_>) {
        let code = if result.is_success() { LOST.0 } else { result.0 };
        if self.dead.compare_exchange(0, code, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            log::line(Level::Error, format_args!("{why}; CUDA calls answer {} from now on", CUresult(code)));
        }
        self.incoming.wake();
        if let Some(door) = &self.door {
            door.wake();
        }
    }
}

impl SocketOut {
    fn append(&self, mut header: Header, payload: &[u8]) -> usize {
        debug_assert!(payload.len().is_multiple_of(8), "payloads are padded by their writer");
        header.length = u32::try_from(payload.len()).expect("payloads are bounded by MAX_PAYLOAD");
        let mut queue = lock(&self.queue);
        queue.extend_from_slice(&header.to_bytes());
        queue.extend_from_slice(payload);
        let queued = queue.len();
        self.queued.store(queued, Ordering::SeqCst);
        queued
    }
}

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
}

/// Prints what the device printed through the C library's streams, so that it keeps its place among the program's own lines.
fn print(stream: u64, bytes: &[u8]) {
    // SAFETY: the C library's streams live as long as the process.
    let file = unsafe { if stream == 2 { stderr } else { stdout } };
    // SAFETY: a valid stream, and a buffer of the length given.
    unsafe { libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), file) };
}
