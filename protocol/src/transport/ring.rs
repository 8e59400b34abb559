//! The shared-memory transport (design D8): a ring of frames each way, in memory that both processes map; a socket beside it
//! is the doorbell and tells when the peer is gone.
//!
//! One ring has one producer and one consumer. Frames lie in it whole: one that does not fit before the end is preceded by
//! filler. Each side keeps its own index to itself and publishes a copy; what it reads of the peer is checked, and a frame is
//! copied out before it is looked at, so that a hostile peer can only hurt itself. The consumer spins for a while, then
//! says that it sleeps; the producer that finds it sleeping rings the doorbell once.

use super::words::Words;
use crate::frame::{FrameError, HEADER, Header, MAX_PAYLOAD};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Length of the control words in front of the two rings.
pub const CONTROL: usize = 4096;

/// Bytes of the ring of commands that the guest leaves free for frames of [`Header::may_use_reserve`]: the driver may wait in
/// what lies before them until they have come.
pub const RESERVE: usize = 2 << 20;

/// Op of filler.
const FILLER: u16 = 0;

#[cfg(not(loom))]
const _: () = assert!(2 * size_of::<Words>() <= CONTROL);

/// Memory that two processes map; unmapped when the last part of it goes.
#[derive(Debug)]
pub struct SharedMemory {
    address: *mut u8,
    size: usize,
}

// SAFETY: the mapping is plain memory; who reads and writes what is the business of those who hold parts of it.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// New zeroed memory of `size` bytes, sealed against resizing so that no peer can make the other fault, and the
    /// descriptor by which the peer maps it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(size: u64) -> io::Result<OwnedFd> {
        // SAFETY: the name is a C string.
        let fd = unsafe {
            libc::memfd_create(c"pxos-shared".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: plain calls on our own descriptor.
        let sized = unsafe {
            libc::ftruncate(fd.as_raw_fd(), length) == 0
                && libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) == 0
        };
        if sized { Ok(fd) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps `size` bytes from `offset` of a descriptor, at `address` if one is given and free.
    ///
    /// # Errors
    /// The operating system's; `InvalidData` where the memory is shorter than that.
    pub fn map(fd: &OwnedFd, offset: u64, size: u64, address: Option<u64>) -> io::Result<Self> {
        let too_short =
            || io::Error::new(io::ErrorKind::InvalidData, "the shared memory is shorter than it should be");
        // SAFETY: an all-zero stat is valid, and the call fills it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a buffer of the right type.
        if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let end = offset.checked_add(size).ok_or_else(too_short)?;
        if u64::try_from(stat.st_size).is_ok_and(|length| length < end) {
            return Err(too_short());
        }
        let length = usize::try_from(size).map_err(|_| too_short())?;
        let wanted = usize::try_from(address.unwrap_or(0)).map_err(|_| too_short())?;
        let fixed = if address.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
        // SAFETY: a fresh shared mapping; at a fixed address only where nothing is mapped.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(wanted),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE | fixed,
                fd.as_raw_fd(),
                libc::off_t::try_from(offset).map_err(|_| too_short())?,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Self { address: mapped.cast(), size: length };
        if address.is_some_and(|address| mapped.expose_provenance() as u64 != address) {
            // A kernel before 4.17 takes the address for a hint.
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "the address is taken"));
        }
        Ok(memory)
    }

    /// Asks for huge pages: the device then copies at its full speed (on a host whose
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `advise`; others ignore it).
    pub fn prefer_huge_pages(&self) {
        // SAFETY: advice about our own mapping.
        unsafe { libc::madvise(self.address.cast(), self.size, libc::MADV_HUGEPAGE) };
    }

    /// First byte.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; whoever holds a part of it holds `self`.
        unsafe { libc::munmap(self.address.cast(), self.size) };
    }
}

/// Which of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Guest to server.
    Commands,
    /// Server to guest.
    Replies,
}

/// Where a ring lies.
#[derive(Debug, Clone)]
struct Ring {
    memory: Arc<SharedMemory>,
    words: usize,
    data: usize,
    capacity: u64,
}

impl Ring {
    /// A ring of `capacity` bytes whose data begins at `data`.
    fn new(
        memory: &Arc<SharedMemory>,
        direction: Direction,
        data: usize,
        capacity: usize,
    ) -> io::Result<Self> {
        let fits = data.checked_add(capacity).is_some_and(|end| end <= memory.size());
        if !fits
            || !capacity.is_power_of_two()
            || capacity < 4 * (HEADER + MAX_PAYLOAD)
            || !data.is_multiple_of(64)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the layout of the shared memory is impossible",
            ));
        }
        let words = match direction {
            Direction::Commands => 0,
            Direction::Replies => size_of::<Words>(),
        };
        Ok(Self { memory: Arc::clone(memory), words, data, capacity: capacity as u64 })
    }

    fn words(&self) -> &Words {
        // SAFETY: the control page lies at the start of the mapping, which is page-aligned and lives as long as `self`;
        // the words are atomics, for which any bit pattern is valid.
        unsafe { &*self.memory.address().add(self.words).cast::<Words>() }
    }

    /// The byte at a position, and how many follow before the end.
    fn at(&self, position: u64) -> (*mut u8, u64) {
        let offset = position & (self.capacity - 1);
        let index = self.data + usize::try_from(offset).expect("below the capacity");
        // SAFETY: below `data + capacity`, which `new` found within the mapping.
        (unsafe { self.memory.address().add(index) }, self.capacity - offset)
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Producer {
    ring: Ring,
    head: u64,
    tail: u64,
}

/// Whether a frame went into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It did; the consumer sleeps and has to be woken through the doorbell if `wake`.
    Done {
        /// Ring the doorbell.
        wake: bool,
    },
    /// There is no room now.
    Full,
}

impl Producer {
    /// The writing end of a new ring.
    ///
    /// # Errors
    /// `InvalidData` where the ring does not lie in the memory.
    pub fn new(
        memory: &Arc<SharedMemory>,
        direction: Direction,
        data: usize,
        capacity: usize,
    ) -> io::Result<Self> {
        Ok(Self { ring: Ring::new(memory, direction, data, capacity)?, head: 0, tail: 0 })
    }

    /// Bytes produced, of all frames until now.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Appends a frame: header, then the parts one behind the other, padded to eight.
    pub fn push(&mut self, header: Header, parts: &[&[u8]]) -> Push {
        self.push_leaving(0, header, parts)
    }

    /// As [`Self::push`], where so many bytes stay free.
    pub fn push_leaving(&mut self, free: usize, mut header: Header, parts: &[&[u8]]) -> Push {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let padded = length.next_multiple_of(8);
        debug_assert!(padded <= MAX_PAYLOAD, "frames are bounded by their writers");
        header.length = u32::try_from(padded).expect("bounded by MAX_PAYLOAD");
        let need = (HEADER + padded) as u64;
        let (_, until_end) = self.ring.at(self.head);
        let skip = if need > until_end { until_end } else { 0 };
        if !self.has_room(skip + need + free as u64) {
            return Push::Full;
        }
        if skip >= HEADER as u64 {
            let mut filler = Header::new(FILLER);
            filler.length = u32::try_from(skip - HEADER as u64).unwrap_or(0);
            self.write(self.head, &filler.to_bytes());
        }
        self.head += skip;
        self.write(self.head, &header.to_bytes());
        let mut position = self.head + HEADER as u64;
        for part in parts {
            self.write(position, part);
            position += part.len() as u64;
        }
        self.head += need;
        let wake = self.ring.words().publish(self.head);
        Push::Done { wake }
    }

    fn has_room(&mut self, need: u64) -> bool {
        let free = |tail: u64, head: u64, capacity: u64| capacity.checked_sub(head.wrapping_sub(tail));
        if free(self.tail, self.head, self.ring.capacity).is_some_and(|free| free >= need) {
            return true;
        }
        self.tail = self.ring.words().consumed();
        // A tail ahead of the head, or too far behind, is a lie; then there is no room, for ever.
        free(self.tail, self.head, self.ring.capacity).is_some_and(|free| free >= need)
    }

    fn write(&self, position: u64, bytes: &[u8]) {
        let (to, _) = self.ring.at(position);
        // SAFETY: `push` made sure that the whole frame lies before the end, in room that the consumer has given back. A
        // peer that reads it meanwhile reads garbage of its own making.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}

/// Why a ring cannot be read on. The peer is to blame: its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The index is impossible.
    #[error("ring index {head} is impossible after {tail}")]
    Index {
        /// What the peer claims to have produced.
        head: u64,
        /// What was consumed.
        tail: u64,
    },
    /// No frame where one should begin.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame goes beyond what was produced, or beyond the end.
    #[error("frame of {0} bytes goes beyond its ring")]
    Beyond(u64),
}

/// The consumer says how far it has read once this part of the capacity is free, and whenever it has read all: the word lies
/// on a line that a producer with a full ring keeps looking at, and writing it for every frame costs some 100 ns a launch
/// (profile of an H200's host).
const GIVE_BACK: u64 = 16;

/// The reading end.
#[derive(Debug)]
pub struct Consumer {
    ring: Ring,
    tail: u64,
    head: u64,
    /// What the producer knows of `tail`.
    told: u64,
}

impl Consumer {
    /// The reading end of a new ring.
    ///
    /// # Errors
    /// `InvalidData` where the ring does not lie in the memory.
    pub fn new(
        memory: &Arc<SharedMemory>,
        direction: Direction,
        data: usize,
        capacity: usize,
    ) -> io::Result<Self> {
        Ok(Self { ring: Ring::new(memory, direction, data, capacity)?, tail: 0, head: 0, told: 0 })
    }

    /// Bytes read, of all frames until now.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Whether a frame is there.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        self.head != self.tail || self.ring.words().produced() != self.tail
    }

    /// Takes the next frame, if one is there: its header; its payload replaces the contents of `payload`.
    ///
    /// # Errors
    /// [`RingError`]; the ring is of no more use then.
    pub fn next(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>, RingError> {
        let taken = self.take(payload)?;
        if taken.is_none() || self.tail.wrapping_sub(self.told) >= self.ring.capacity / GIVE_BACK {
            self.give_back();
        }
        Ok(taken)
    }

    /// As [`Self::next`], but the room stays taken until that is called again: the frame has yet to be run. Of the whole,
    /// [`RESERVE`] bytes are given back nevertheless.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_held(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>, RingError> {
        let taken = self.take(payload)?;
        let free = self.ring.capacity.saturating_sub(self.head.wrapping_sub(self.told));
        let missing = (RESERVE as u64).saturating_sub(free).min(self.tail.wrapping_sub(self.told));
        if missing > 0 {
            self.told = self.told.wrapping_add(missing);
            self.ring.words().give_back(self.told);
        }
        Ok(taken)
    }

    fn take(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>, RingError> {
        loop {
            if self.head == self.tail {
                self.head = self.ring.words().produced();
                if self.head == self.tail {
                    return Ok(None);
                }
            }
            let there = self.head.wrapping_sub(self.tail);
            if there > self.ring.capacity || !there.is_multiple_of(8) {
                return Err(RingError::Index { head: self.head, tail: self.tail });
            }
            let (from, until_end) = self.ring.at(self.tail);
            if until_end < HEADER as u64 {
                // Too little room for even a filler's header.
                self.advance(until_end, there)?;
                continue;
            }
            let mut bytes = [0; HEADER];
            if there < HEADER as u64 {
                return Err(RingError::Beyond(HEADER as u64));
            }
            // SAFETY: `HEADER` bytes before the end of the ring. The copy is what is looked at, whatever the peer does.
            unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), HEADER) };
            if u16::from_le_bytes([bytes[2], bytes[3]]) == FILLER {
                self.advance(until_end, there)?;
                continue;
            }
            let header = Header::from_bytes(&bytes)?;
            let length = header.length as usize;
            let whole = (HEADER + length) as u64;
            if whole > until_end || whole > there {
                return Err(RingError::Beyond(whole));
            }
            payload.clear();
            payload.reserve(length);
            // SAFETY: `length` bytes behind the header lie before the end of the ring; the vector has room for them.
            unsafe {
                std::ptr::copy_nonoverlapping(from.add(HEADER), payload.as_mut_ptr(), length);
                payload.set_len(length);
            }
            self.advance(whole, there)?;
            if self.head != self.tail {
                self.prefetch();
            }
            return Ok(Some(header));
        }
    }

    /// Has the processor fetch the next frame from the producer's cache while this one is worked on: it saves some 100 ns per
    /// launch (measured).
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            let (next, until_end) = self.ring.at(self.tail);
            for line in 0..3 {
                if line * 64 < until_end {
                    let offset = usize::try_from(line * 64).unwrap_or(0);
                    // SAFETY: before the end of the ring; and a prefetch never faults.
                    unsafe {
                        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                        _mm_prefetch::<_MM_HINT_T0>(next.add(offset).cast());
                    }
                }
            }
        }
    }

    fn advance(&mut self, bytes: u64, there: u64) -> Result<(), RingError> {
        if bytes > there {
            return Err(RingError::Beyond(bytes));
        }
        self.tail += bytes;
        Ok(())
    }

    fn give_back(&mut self) {
        if self.told != self.tail {
            self.told = self.tail;
            self.ring.words().give_back(self.tail);
        }
    }

    /// Says that the consumer is about to sleep. `false` where a frame has come meanwhile and it must not.
    #[must_use]
    pub fn park(&mut self) -> bool {
        self.give_back();
        self.ring.words().park(self.tail)
    }

    /// Says that the consumer is awake.
    pub fn unpark(&self) {
        self.ring.words().unpark();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: usize = 1 << 23;

    fn memory() -> Arc<SharedMemory> {
        let size = (CONTROL + CAPACITY) as u64;
        let fd = SharedMemory::create(size).unwrap();
        Arc::new(SharedMemory::map(&fd, 0, size, None).unwrap())
    }

    fn pair() -> (Producer, Consumer, Arc<SharedMemory>) {
        let memory = memory();
        let producer = Producer::new(&memory, Direction::Commands, CONTROL, CAPACITY).unwrap();
        let consumer = Consumer::new(&memory, Direction::Commands, CONTROL, CAPACITY).unwrap();
        (producer, consumer, memory)
    }

    fn header(request: u64) -> Header {
        Header { request, ..Header::new(100) }
    }

    #[test]
    fn frames_wrap_whole() {
        let (mut producer, mut consumer, _memory) = pair();
        let mut payload = Vec::new();
        for (request, size) in
            [700_000_usize, 8, 900_000, 0, 1 << 20].into_iter().cycle().take(100).enumerate()
        {
            let bytes = vec![u8::try_from(request).unwrap(); size];
            assert_ne!(
                producer.push(header(request as u64), &[&bytes[..size / 2], &bytes[size / 2..]]),
                Push::Full
            );
            let taken = consumer.next(&mut payload).unwrap().unwrap();
            assert_eq!(taken.request, request as u64);
            assert_eq!(payload.len(), size.next_multiple_of(8));
            assert_eq!(&payload[..size], &bytes[..]);
        }
        assert!(consumer.next(&mut payload).unwrap().is_none());
    }

    #[test]
    fn the_reserve_is_there_until_what_was_held_is_run() {
        let (mut producer, mut consumer, _memory) = pair();
        let (bytes, mut payload) = (vec![1; 64 << 10], Vec::new());
        let fill = |producer: &mut Producer| {
            let mut pushed = 0_usize;
            while producer.push_leaving(RESERVE, header(0), &[&bytes]) != Push::Full {
                pushed += 1;
            }
            pushed
        };
        let most = (CAPACITY - RESERVE) / bytes.len();
        let first = fill(&mut producer);
        assert!(first <= most && first + 2 >= most, "{first}");
        let mut held = 0;
        // However often what needs the reserve comes, and whoever else tries.
        for _ in 0..3 * RESERVE / (64 << 10) {
            assert_ne!(producer.push(header(1), &[&vec![2; 64 << 10]]), Push::Full);
            while consumer.next_held(&mut payload).unwrap().is_some() {
                held += 1;
            }
            assert_eq!(fill(&mut producer), 0, "held frames take room");
        }
        assert_eq!(held, first + 3 * RESERVE / (64 << 10));
        assert!(consumer.next(&mut payload).unwrap().is_none());
        assert!(fill(&mut producer) + 2 >= most, "all is given back");
    }

    #[test]
    fn a_full_ring_takes_no_more_until_it_is_read() {
        let (mut producer, mut consumer, _memory) = pair();
        let bytes = vec![1; 1 << 20];
        let mut pushed = 0;
        while producer.push(header(pushed), &[&bytes]) != Push::Full {
            pushed += 1;
        }
        assert!((6..8).contains(&pushed));
        consumer.next(&mut Vec::new()).unwrap().unwrap();
        assert_ne!(producer.push(header(pushed), &[&bytes[..8]]), Push::Full);
    }

    #[test]
    fn a_lying_producer_is_found_out() {
        for claim in [1, 7, 9, CAPACITY as u64 + 8, u64::MAX, 16] {
            let (_producer, mut consumer, _memory) = pair();
            consumer.ring.words().lie(Some(claim), None);
            assert!(consumer.next(&mut Vec::new()).is_err(), "{claim}");
        }
        // A header that claims more than was produced.
        let (mut producer, mut consumer, memory) = pair();
        let _ = producer.push(header(1), &[&[0; 64]]);
        // SAFETY: within the mapping.
        unsafe { memory.address().add(CONTROL + 8).cast::<u32>().write(1 << 19) };
        assert!(matches!(consumer.next(&mut Vec::new()), Err(RingError::Beyond(_))));
    }

    #[test]
    fn a_lying_consumer_gets_no_room() {
        let (mut producer, consumer, _memory) = pair();
        let bytes = vec![1; 1 << 20];
        for lie in [u64::MAX, 1 << 40] {
            while producer.push(header(0), &[&bytes]) != Push::Full {}
            consumer.ring.words().lie(None, Some(lie));
            assert_eq!(producer.push(header(0), &[&bytes]), Push::Full);
        }
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        let (mut producer, mut consumer, _memory) = pair();
        assert!(consumer.park());
        assert_eq!(producer.push(header(1), &[]), Push::Done { wake: true });
        assert_eq!(producer.push(header(2), &[]), Push::Done { wake: false });
        assert!(!consumer.park());
        consumer.next(&mut Vec::new()).unwrap().unwrap();
        consumer.next(&mut Vec::new()).unwrap().unwrap();
        assert!(consumer.park());
        consumer.unpark();
        assert_eq!(producer.push(header(3), &[]), Push::Done { wake: false });
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        let (mut producer, mut consumer, _memory) = pair();
        let (bell, rung) = std::sync::mpsc::channel();
        const FRAMES: u64 = 200_000;
        let writer = std::thread::spawn(move || {
            for request in 0..FRAMES {
                loop {
                    match producer.push(header(request), &[&request.to_le_bytes()]) {
                        Push::Done { wake } => {
                            if wake {
                                bell.send(()).unwrap();
                            }
                            break;
                        }
                        Push::Full => std::thread::yield_now(),
                    }
                }
            }
        });
        let mut payload = Vec::new();
        let mut expected = 0;
        while expected < FRAMES {
            match consumer.next(&mut payload).unwrap() {
                Some(header) => {
                    assert_eq!(header.request, expected);
                    assert_eq!(payload, expected.to_le_bytes());
                    expected += 1;
                }
                // A lost wake-up would hang here, and time out.
                None if consumer.park() => {
                    rung.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
                }
                None => {}
            }
        }
        writer.join().unwrap();
    }

    proptest! {
        #[test]
        fn garbage_in_the_ring_is_an_error_not_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..256), head in 0_u64..512) {
            let (_producer, mut consumer, memory) = pair();
            for (index, byte) in bytes.iter().enumerate() {
                // SAFETY: within the mapping.
                unsafe { memory.address().add(CONTROL + index).write(*byte) };
            }
            consumer.ring.words().lie(Some(head), None);
            let mut payload = Vec::new();
            for _ in 0..64 {
                match consumer.next(&mut payload) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
