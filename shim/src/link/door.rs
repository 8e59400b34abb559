//! The socket beside a ring: who sleeps until the ring has something is woken here, and host functions come here to the thread
//! that runs them, which leaves the ring to those who wait for answers. If it read the ring as well, it would be the one that
//! sleeps there, and each answer would have to wake two threads one after the other.

use super::relay::Relay;
use super::source::Patience;
use super::{Link, lock};
use pxos_protocol::frame::{Header, control};
use pxos_protocol::transport::{FrameReader, ReadError};
use pxos_protocol::types::CUresult;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Where those sleep who wait for a ring, and the thread that runs host functions.
#[derive(Debug)]
pub(super) struct Door {
    rung: Relay<Rung>,
    reader: Mutex<FrameReader>,
}

/// Whether it has been rung.
#[derive(Debug, Default)]
struct Rung {
    /// Since somebody who slept until the ring had something was woken.
    sleeper: bool,
    /// Since the thread that runs host functions has looked whether there is a ring that nobody reads.
    keeper: bool,
}

/// A host function that is to be run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) number: u64,
    pub(super) status: u32,
    /// How far the ring has to be read before: what lies there came first.
    pub(super) behind: u64,
}

impl Door {
    /// The door whose frames come through `reader`.
    pub(super) fn new(reader: FrameReader) -> Self {
        Self { rung: Relay::default(), reader: Mutex::new(reader) }
    }

    /// Has all who sleep look again.
    pub(super) fn wake(&self) {
        self.rung.wake();
    }
}

impl Link {
    /// Waits for the next host callback: its number and status. What came before it has been heeded.
    pub(crate) fn wait_callback(&self) -> Result<(u64, u32), CUresult> {
        let alive = || self.check();
        let read = || self.read_one(&|| Patience::Short);
        let next = || lock(&self.callbacks).pop_front();
        let due = match &self.door {
            None => self.incoming.wait(alive, read, |_| next())?,
            Some(door) => {
                let due = loop {
                    let come = |rung: &mut Rung| match next() {
                        Some(due) => Some(Some(due)),
                        None => std::mem::take(&mut rung.keeper).then_some(None),
                    };
                    match door.rung.wait(alive, || self.read_door(door), come)? {
                        Some(due) => break due,
                        // What comes before a host function may need more room than there is.
                        None => self.drain(),
                    }
                };
                let is_read = || (self.read.load(Ordering::Acquire) >= due.behind).then_some(());
                self.incoming.wait(alive, read, |_| is_read())?;
                due
            }
        };
        Ok((due.number, due.status))
    }

    /// Sleeps until the ring's producer has seen that it is parked and has put something into it.
    pub(super) fn sleep(&self) -> Result<(), ReadError> {
        let Some(door) = &self.door else { return Ok(()) };
        let rung = |rung: &mut Rung| std::mem::take(&mut rung.sleeper).then_some(());
        // Why the connection is gone has been said.
        door.rung.wait(|| self.check(), || self.read_door(door), rung).map_err(|_| ReadError::Closed)
    }

    /// Takes what has come beside the ring, unless somebody does.
    pub(super) fn look_at_door(&self) {
        if let Some(door) = &self.door {
            door.rung.read(|| {
                // Now that nobody else can take it.
                let there = {
                    let reader = lock(&door.reader);
                    reader.has_buffered() || reader.socket().is_readable()
                };
                if there {
                    self.read_door(door);
                }
            });
        }
    }

    /// Reads a frame that comes beside the ring.
    fn read_door(&self, door: &Door) {
        let mut reader = lock(&door.reader);
        let read = reader.header().and_then(|header| Ok((header, reader.payload(&header)?)));
        match read {
            Ok((Header { op: control::DOORBELL, .. }, _)) => {
                door.rung.with(|rung| *rung = Rung { sleeper: true, keeper: true });
            }
            Ok((header, payload)) => self.heed(&header, payload),
            Err(error) => {
                drop(reader);
                // The ring may hold why the peer went.
                self.drain();
                self.unreadable(&error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::codec::Writer;
    use pxos_protocol::control::{Refusal, encode};
    use pxos_protocol::transport::ring::{CONTROL, Consumer, Direction, Producer, Push, SharedMemory};
    use pxos_protocol::transport::{Socket, Transport as _};
    use std::io::IoSlice;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    const CAPACITY: usize = 1 << 23;

    /// The server's end of a connection.
    struct Server {
        replies: Producer,
        socket: Socket,
    }

    fn connected() -> (Link, Server) {
        let size = (CONTROL + 2 * CAPACITY) as u64;
        let memory = SharedMemory::map(&SharedMemory::create(size).unwrap(), 0, size, None).unwrap();
        let memory = Arc::new(memory);
        let second = CONTROL + CAPACITY;
        let commands = Producer::new(&memory, Direction::Commands, CONTROL, CAPACITY).unwrap();
        let incoming = Consumer::new(&memory, Direction::Replies, second, CAPACITY).unwrap();
        let replies = Producer::new(&memory, Direction::Replies, second, CAPACITY).unwrap();
        let (theirs, ours) = Socket::pair().unwrap();
        let reader = FrameReader::new(ours.try_clone().unwrap());
        let link = Link::over_rings((commands, incoming), reader, ours);
        // However many processors there are.
        link.source.lock().unwrap().look_for(Duration::from_secs(600));
        (link, Server { replies, socket: theirs })
    }

    impl Server {
        /// Puts an answer into the ring; whether somebody had to be woken.
        fn answer(&mut self, request: u64) -> bool {
            let header = Header { request, ..Header::new(control::REPLY) };
            let Push::Done { wake } = self.replies.push(header, &[]) else { panic!("the ring is empty") };
            if wake {
                self.send(Header::new(control::DOORBELL), &[]);
            }
            wake
        }

        fn call_back(&self, number: u64) {
            let mut payload = Vec::new();
            let mut writer = Writer::new(&mut payload);
            writer.put(number);
            writer.put(self.replies.position());
            writer.put(0_u32);
            self.send(Header::new(control::CALLBACK), &payload);
        }

        fn send(&self, mut header: Header, payload: &[u8]) {
            header.length = u32::try_from(payload.len()).unwrap();
            self.socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]).unwrap();
        }
    }

    /// Waits for an answer; says through `asked` when it has begun to look at the ring for long, or is about to sleep.
    fn wait(link: &Link, request: u64, asked: &AtomicBool, patience: Patience) -> CUresult {
        let answer = link.wait(request, || {
            asked.store(true, Ordering::SeqCst);
            patience
        });
        answer.unwrap().0
    }

    fn until(flag: &AtomicBool) {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_runs_host_functions_does_not_read_the_ring() {
        let (link, mut server) = connected();
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| link.wait_callback());
            // Time to go to sleep.
            std::thread::sleep(Duration::from_millis(20));
            for request in 0..10 {
                let asked = AtomicBool::new(false);
                link.expect(request);
                std::thread::scope(|scope| {
                    let waits = scope.spawn(|| wait(&link, request, &asked, Patience::Long));
                    until(&asked);
                    assert!(!server.answer(request), "who waits looks at the ring");
                    assert_eq!(waits.join().unwrap(), CUresult::SUCCESS);
                });
            }
            server.call_back(7);
            assert_eq!(runs.join().unwrap(), Ok((7, 0)));
        });
    }

    #[test]
    fn who_sleeps_is_woken_whoever_stands_at_the_door() {
        let (link, mut server) = connected();
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| (link.wait_callback(), link.wait_callback()));
            for request in 0..10 {
                if request == 5 {
                    // From here on the other one stands there first.
                    server.call_back(1);
                }
                let asked = AtomicBool::new(false);
                link.expect(request);
                std::thread::scope(|scope| {
                    let waits = scope.spawn(|| wait(&link, request, &asked, Patience::Short));
                    until(&asked);
                    std::thread::sleep(Duration::from_millis(5));
                    server.answer(request);
                    assert_eq!(waits.join().unwrap(), CUresult::SUCCESS);
                });
            }
            server.call_back(2);
            assert_eq!(runs.join().unwrap(), (Ok((1, 0)), Ok((2, 0))));
        });
    }

    #[test]
    fn what_came_before_a_host_function_is_heeded_before_it_runs() {
        let (link, mut server) = connected();
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer outlives the link's use of it.
        unsafe { link.land(3, bytes.as_mut_ptr(), bytes.len()) };
        let mut payload = Vec::new();
        let mut writer = Writer::new(&mut payload);
        writer.put(0_u64);
        writer.put(8_u64);
        let header = Header { request: 3, ..Header::new(control::DATA) };
        assert_ne!(server.replies.push(header, &[&payload, &[5; 8]]), Push::Full);
        server.call_back(9);
        assert_eq!(link.wait_callback(), Ok((9, 0)));
        // SAFETY: written by this thread.
        assert_eq!(unsafe { std::ptr::read_volatile(&raw const bytes) }, [5; 8]);
    }

    #[test]
    fn a_full_ring_is_emptied_before_a_host_function() {
        let (link, mut server) = connected();
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| link.wait_callback());
            let header = Header { request: 1, ..Header::new(control::DATA) };
            let mut full = false;
            for _ in 0..3 * CAPACITY / (512 << 10) {
                while server.replies.push(header, &[&[0; 512 << 10]]) == Push::Full {
                    full = true;
                    server.send(Header::new(control::DOORBELL), &[]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            assert!(full);
            server.call_back(4);
            assert_eq!(runs.join().unwrap(), Ok((4, 0)));
        });
    }

    #[test]
    fn who_looks_at_the_door_does_not_stay() {
        let (link, server) = connected();
        link.look_at_door();
        server.call_back(2);
        link.look_at_door();
        link.look_at_door();
        assert_eq!(link.wait_callback(), Ok((2, 0)));
    }

    #[test]
    fn why_the_server_went_is_read_first() {
        let (link, mut server) = connected();
        let refusal = Refusal { result: CUresult::ERROR_LAUNCH_TIMEOUT.0, message: "too long".into() };
        let said = server.replies.push(Header::new(control::REFUSAL), &[&encode(&refusal).unwrap()]);
        assert_eq!(said, Push::Done { wake: false }, "nobody waits for it");
        drop(server);
        assert_eq!(link.wait_callback(), Err(CUresult::ERROR_LAUNCH_TIMEOUT));
    }

    #[test]
    fn whoever_sleeps_hears_that_the_server_is_gone() {
        let (link, server) = connected();
        link.expect(1);
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| link.wait_callback());
            let waits = scope.spawn(|| link.wait(1, || Patience::Short));
            std::thread::sleep(Duration::from_millis(20));
            drop(server);
            assert_eq!(runs.join().unwrap(), Err(super::super::LOST));
            assert_eq!(waits.join().unwrap().map(|_| ()), Err(super::super::LOST));
        });
    }
}
