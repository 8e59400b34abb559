//! A guest that speaks the wire format by hand, well or badly.

use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::control::{self, Hello, Purpose, Refusal, SharedLayout, Welcome};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, FLAG_REPLY, Header};
use pxos_protocol::transport::ring::{CONTROL, Direction, Producer, SharedMemory};
use pxos_protocol::transport::{FrameReader, ReadError, Socket, Transport};
use pxos_protocol::types::{GuestHandle, HandleKind};
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::fixture::PATIENCE;

/// A good hello.
#[must_use]
pub fn hello() -> Hello {
    Hello {
        version: frame::VERSION,
        fingerprint: pxos_protocol::fingerprint(),
        software: env!("CARGO_PKG_VERSION").into(),
        purpose: Purpose::Session,
        pid: std::process::id(),
        program: "by-hand".into(),
        token: None,
        shared_memory: false,
        bar: false,
        memory_max: None,
    }
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame.
    Frame(Header, Vec<u8>),
    /// The session was refused, or is over: the `CUresult` and why.
    Refused(u32, String),
    /// The connection is closed.
    Closed,
    /// Nothing came for as long as [`PATIENCE`]: the server hangs.
    Silent,
}

/// A connected guest.
#[derive(Debug)]
pub struct Guest {
    socket: Socket,
    reader: FrameReader,
    layout: Option<SharedLayout>,
    shared: Vec<OwnedFd>,
    request: u64,
}

impl Guest {
    /// Connects, and says nothing yet. No read waits longer than [`PATIENCE`].
    #[must_use]
    pub fn connect(endpoint: &Endpoint) -> Self {
        let socket = Socket::connect(endpoint).unwrap_or_else(|error| panic!("{endpoint}: {error}"));
        socket.set_receive_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        socket.set_send_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let reader = FrameReader::new(socket.try_clone().expect("a descriptor can be copied"));
        Self { socket, reader, layout: None, shared: Vec::new(), request: 0 }
    }

    /// Says a good hello and takes the welcome; with shared memory where `shared_memory`.
    #[must_use]
    pub fn begin(mut self, shared_memory: bool) -> Self {
        self.say_hello(&Hello { shared_memory, ..hello() });
        let welcome = self.welcome();
        assert!(welcome.session > 0);
        assert_eq!(
            welcome.shared_memory.is_some(),
            shared_memory,
            "shared memory was asked for: {shared_memory}"
        );
        self
    }

    /// Says a good hello as a guest whose VM has shared memory in `file`, and takes the welcome.
    #[must_use]
    pub fn begin_in(mut self, file: OwnedFd) -> Self {
        self.say_hello(&Hello { bar: true, ..hello() });
        let welcome = self.welcome();
        assert!(welcome.shared_memory.is_some_and(|layout| layout.bar.is_some()), "the session has no slot");
        self.shared = vec![file];
        self
    }

    /// Says a hello.
    pub fn say_hello(&self, hello: &Hello) {
        let payload = control::encode(hello).expect("a hello is small");
        assert!(self.send(Header::new(frame::control::HELLO), &payload), "the hello could not be sent");
    }

    /// Takes the welcome.
    pub fn welcome(&mut self) -> Welcome {
        let beside = self.reader.fill_with_descriptors().expect("the server answers a good hello");
        self.shared.extend(beside);
        match self.receive() {
            Incoming::Frame(header, payload) if header.op == frame::control::WELCOME => {
                let welcome: Welcome = control::decode(&payload).expect("a welcome");
                self.layout = welcome.shared_memory;
                welcome
            }
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// A second guest over the same connection, for a thread that only sends.
    #[must_use]
    pub fn sending(&self) -> Self {
        let socket = self.socket.try_clone().expect("a descriptor can be copied");
        let reader = FrameReader::new(self.socket.try_clone().expect("a descriptor can be copied"));
        Self { socket, reader, layout: None, shared: Vec::new(), request: 0 }
    }

    /// Sends bytes as they are; whether they could be sent.
    pub fn send_bytes(&self, bytes: &[u8]) -> bool {
        self.socket.send_all(&mut [IoSlice::new(bytes)]).is_ok()
    }

    /// Sends a frame; whether it could be sent.
    pub fn send(&self, mut header: Header, payload: &[u8]) -> bool {
        header.length = u32::try_from(payload.len()).expect("a payload is bounded");
        self.socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]).is_ok()
    }

    /// Takes what comes next.
    pub fn receive(&mut self) -> Incoming {
        let header = match self.reader.header() {
            Ok(header) => header,
            Err(error) => return end(&error),
        };
        let payload = match self.reader.payload(&header) {
            Ok(payload) => payload.to_vec(),
            Err(error) => return end(&error),
        };
        if header.op == frame::control::REFUSAL {
            let refusal: Refusal = control::decode(&payload).expect("a refusal");
            return Incoming::Refused(refusal.result, refusal.message);
        }
        Incoming::Frame(header, payload)
    }

    /// A header for a call of thread 1 in `context`.
    pub fn header(&mut self, op: u16, context: u64) -> Header {
        self.request += 1;
        Header { thread: 1, context, request: self.request, ..Header::new(op) }
    }

    /// Sends a call that is not answered; whether it could be sent.
    pub fn post(&mut self, op: u16, context: u64, write: impl FnOnce(&mut Writer<'_>)) -> bool {
        let header = self.header(op, context);
        let mut payload = Vec::new();
        write(&mut Writer::new(&mut payload));
        self.send(header, &payload)
    }

    /// Sends a call and takes its answer: the `CUresult` and the payload, or how the session ended instead.
    ///
    /// # Errors
    /// What came instead.
    pub fn call(
        &mut self,
        op: u16,
        context: u64,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(u32, Vec<u8>), Incoming> {
        let header = Header { flags: FLAG_REPLY, ..self.header(op, context) };
        let mut payload = Vec::new();
        write(&mut Writer::new(&mut payload));
        self.send(header, &payload);
        self.answer(header.request)
    }

    /// Takes the answer to a request; other frames before it are skipped.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn answer(&mut self, request: u64) -> Result<(u32, Vec<u8>), Incoming> {
        loop {
            match self.receive() {
                Incoming::Frame(header, payload) if header.op == frame::control::REPLY => {
                    if header.request == request {
                        let result = header.context & u64::from(u32::MAX);
                        return Ok((u32::try_from(result).expect("masked"), payload));
                    }
                }
                // A host function is due, which this guest has none of: it has returned at once.
                Incoming::Frame(header, payload) if header.op == frame::control::CALLBACK => {
                    let number: u64 = Reader::new(&payload).get().unwrap_or(0);
                    self.post(frame::control::CALLBACK_DONE, 0, |writer| writer.put(number));
                }
                Incoming::Frame(..) => {}
                end => return Err(end),
            }
        }
    }

    /// Pings; whether the session still stands.
    pub fn is_served(&mut self) -> bool {
        self.call(frame::control::PING, 0, |_| {}).is_ok()
    }

    /// Makes the first device's primary context this session's, and gives its handle.
    pub fn retain(&mut self) -> u64 {
        let context = handle(HandleKind::Context, 0);
        let answer = self.call(pxos_protocol::api::op::cuDevicePrimaryCtxRetain, 0, |writer| {
            writer.put(context);
            writer.put(0_i32);
            writer.put(0_u32);
        });
        assert_eq!(answer.map(|(result, _)| result), Ok(0));
        context
    }

    /// The layout of the shared memory that came with the welcome.
    #[must_use]
    pub fn layout(&self) -> SharedLayout {
        self.layout.expect("the session has shared memory")
    }

    /// Maps a part of the session's shared memory.
    #[must_use]
    pub fn map(&self, offset: u64, size: u64) -> SharedMemory {
        SharedMemory::map(self.shared_descriptor(), self.layout().base + offset, size, None)
            .expect("the server's memory can be mapped")
    }

    /// Writes over shared memory, as a guest may that means harm.
    pub fn scribble(memory: &SharedMemory, offset: usize, bytes: &[u8]) {
        assert!(
            offset.checked_add(bytes.len()).is_some_and(|end| end <= memory.size()),
            "beyond the mapping"
        );
        // SAFETY: within the mapping, which both sides may write at any time; nothing here keeps a reference into it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.address().add(offset), bytes.len()) };
    }

    /// The descriptor of the shared memory.
    #[must_use]
    pub fn shared_descriptor(&self) -> &OwnedFd {
        self.shared.first().expect("a descriptor came with the welcome")
    }

    /// The writing end of the command ring.
    #[must_use]
    pub fn commands(&self) -> Producer {
        let layout = self.layout();
        let capacity = usize::try_from(layout.commands).expect("a ring fits into memory");
        let memory = Arc::new(self.map(0, layout.staging));
        Producer::new(&memory, Direction::Commands, CONTROL, capacity)
            .expect("the layout is the server's own")
    }

    /// Rings the doorbell of the command ring; whether it could be rung.
    pub fn ring(&self) -> bool {
        self.send(Header::new(frame::control::DOORBELL), &[])
    }

    /// Waits until the server closes the connection, and says what it said before; fails where it does not close.
    pub fn until_closed(&mut self) -> Option<String> {
        let mut said = None;
        for _ in 0..1_000_000 {
            match self.receive() {
                Incoming::Closed => return said,
                Incoming::Refused(_, message) => said = Some(message),
                Incoming::Silent => panic!("the server neither answers nor closes"),
                Incoming::Frame(..) => {}
            }
        }
        panic!("the server goes on for a million frames");
    }

    /// Ends this side's writing: the server sees the end of the stream.
    pub fn shut(&self) {
        self.socket.close();
    }
}

/// How a read that failed is told: a peer that closed with bytes unread makes it a reset, which is as good as an end.
fn end(error: &ReadError) -> Incoming {
    match error {
        ReadError::Closed => Incoming::Closed,
        ReadError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Incoming::Closed,
        ReadError::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => Incoming::Silent,
        error => panic!("the server sent no frame: {error}"),
    }
}

/// A guest's handle: the first use of a slot.
pub(crate) fn handle(kind: HandleKind, slot: u32) -> u64 {
    GuestHandle { kind: kind as u8, generation: 0, slot }.encode()
}
