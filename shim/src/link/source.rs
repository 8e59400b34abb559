//! Where frames come from, and how a thread waits for them.

use pxos_protocol::frame::Header;
use pxos_protocol::transport::ring::Consumer;
use pxos_protocol::transport::{FrameReader, ReadError};
use std::time::{Duration, Instant};

/// How long a waiting thread looks at an empty ring before it sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spin {
    /// Without a pause, whoever waits and for whatever: longer than most kernels and copies take.
    short: Duration,
    /// After that, giving way to other threads, for who waits for the device and may: waking up takes 10 to 100 µs, which shows
    /// in what takes a few milliseconds. The driver's own wait never sleeps unless it is asked to.
    long: Duration,
}

const SPIN: Spin = Spin { short: Duration::from_micros(100), long: Duration::from_millis(10) };

/// The same where processors are too few to let one spin.
const SPIN_FEW: Spin = Spin { short: Duration::from_micros(5), long: Duration::ZERO };

/// Whether a thread looks for an answer for long before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It sleeps early: it may wait for ever, or is to use little processor time.
    Short,
    /// It looks for some milliseconds.
    Long,
}

/// How long what the peer said before it went may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The way in.
#[derive(Debug)]
pub(super) enum Source {
    Socket(FrameReader),
    Ring { consumer: Consumer, payload: Vec<u8>, read: usize, spin: Spin },
}

impl Source {
    /// Frames come through a ring.
    pub(super) fn over_ring(consumer: Consumer) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spin = if processors > 2 { SPIN } else { SPIN_FEW };
        Self::Ring { consumer, payload: Vec::new(), read: 0, spin }
    }

    /// Bytes of a ring that have been read; nothing for a socket.
    pub(super) fn position(&self) -> u64 {
        match self {
            Self::Socket(_) => 0,
            Self::Ring { consumer, .. } => consumer.position(),
        }
    }

    /// Says that a ring is read again, after [`Self::header`] has parked it.
    pub(super) fn unpark(&self) {
        if let Self::Ring { consumer, .. } = self {
            consumer.unpark();
        }
    }

    /// Has who waits for the device look at a ring for so long.
    #[cfg(test)]
    pub(super) fn look_for(&mut self, long: Duration) {
        if let Self::Ring { spin, .. } = self {
            *spin = Spin { short: Duration::ZERO, long };
        }
    }

    /// Whether there is more. Of a socket, whether the peer said more before it went: one that has closed is seen at once; one that
    /// has not, because our end of the connection broke and some VMM keeps that to itself, is not waited for.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Socket(reader) => {
                reader.has_buffered() || reader.socket().wait_readable(LAST_WORDS).unwrap_or(true)
            }
            Self::Ring { consumer, .. } => consumer.has_frame(),
        }
    }

    /// Waits for the next frame; `patience` is asked once it has not come within [`SPIN`]. `None` where a ring is parked: its
    /// producer rings at the door when it has put a frame into it.
    pub(super) fn header(&mut self, patience: &dyn Fn() -> Patience) -> Result<Option<Header>, ReadError> {
        let Self::Ring { consumer, payload, read, spin } = self else {
            let Self::Socket(reader) = self else { unreachable!("there are two kinds") };
            return reader.header().map(Some);
        };
        *read = 0;
        let (mut start, mut long) = (None, None);
        loop {
            match consumer.next(payload) {
                Ok(Some(header)) => return Ok(Some(header)),
                Ok(None) => {}
                Err(error) => return Err(ReadError::Io(std::io::Error::other(error))),
            }
            let start = start.get_or_insert_with(Instant::now);
            for _ in 0..64 {
                if consumer.has_frame() {
                    break;
                }
                std::hint::spin_loop();
            }
            let waited = start.elapsed();
            if waited < spin.short {
                continue;
            }
            if waited < spin.long && *long.get_or_insert_with(|| matches!(patience(), Patience::Long)) {
                std::thread::yield_now();
                continue;
            }
            if consumer.park() {
                return Ok(None);
            }
        }
    }

    /// The payload of the header that was read last.
    pub(super) fn payload(&mut self, header: &Header) -> Result<&[u8], ReadError> {
        match self {
            Self::Socket(reader) => reader.payload(header),
            Self::Ring { payload, .. } => Ok(payload),
        }
    }

    /// Takes the next bytes of the payload to where they belong.
    pub(super) fn payload_into(&mut self, destination: &mut [u8]) -> Result<(), ReadError> {
        match self {
            Self::Socket(reader) => reader.payload_into(destination),
            Self::Ring { payload, read, .. } => {
                let bytes = payload.get(*read..*read + destination.len()).ok_or(ReadError::Torn)?;
                destination.copy_from_slice(bytes);
                *read += destination.len();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::frame::control;
    use pxos_protocol::transport::ring::{CONTROL, Direction, Producer, Push, SharedMemory};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const CAPACITY: usize = 1 << 23;

    /// Whether a patient or impatient reader is there for a frame that comes long after it has begun to wait.
    fn is_there(patience: Patience) -> bool {
        let size = (CONTROL + CAPACITY) as u64;
        let memory = SharedMemory::map(&SharedMemory::create(size).unwrap(), 0, size, None).unwrap();
        let memory = Arc::new(memory);
        let mut producer = Producer::new(&memory, Direction::Replies, CONTROL, CAPACITY).unwrap();
        let consumer = Consumer::new(&memory, Direction::Replies, CONTROL, CAPACITY).unwrap();
        let spin = Spin { short: Duration::ZERO, long: Duration::from_secs(600) };
        let mut source = Source::Ring { consumer, payload: Vec::new(), read: 0, spin };
        let asked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                source.header(&|| {
                    asked.store(true, Ordering::SeqCst);
                    patience
                })
            });
            while !asked.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            // Time to give up, which on a busy machine may be too little.
            std::thread::sleep(Duration::from_millis(20));
            let Push::Done { wake } = producer.push(Header::new(control::REPLY), &[]) else {
                panic!("the ring is empty");
            };
            let found = waits.join().unwrap().unwrap();
            assert_eq!(found.is_none(), wake, "who is not there has to be woken");
            found.is_some()
        })
    }

    #[test]
    fn who_is_patient_does_not_sleep() {
        assert!(is_there(Patience::Long));
        assert!((0..50).any(|_| !is_there(Patience::Short)));
    }
}
