//! Memory that is shared with the worker: the rings, the staging area for copies of pageable memory, and the arena that
//! page-locked allocations come from (designs D8 and D9).

use crate::session::Session;
use pxos_protocol::control::{STAGING_SLOT, SharedLayout};
use pxos_protocol::frame::control;
use pxos_protocol::transport::ring::{CONTROL, Consumer, Direction, Producer, SharedMemory};
use pxos_protocol::types::CUresult;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Everything that came with the server's greeting.
#[derive(Debug)]
pub(crate) struct Shared {
    layout: SharedLayout,
    rings: Arc<SharedMemory>,
    /// The staging area.
    pub(crate) staging: Staging,
    /// The arena, unless its address is taken in this process.
    pub(crate) arena: Option<Arena>,
}

impl Shared {
    /// Maps the parts.
    pub(crate) fn map(fd: &OwnedFd, layout: SharedLayout) -> io::Result<Self> {
        let rings = SharedMemory::map(fd, 0, layout.staging, None)?;
        let staging = Staging::new(SharedMemory::map(fd, layout.staging, layout.staging_length, None)?);
        let arena = SharedMemory::map(fd, layout.arena, layout.arena_length, Some(layout.arena_address));
        let arena = arena.ok().map(|memory| Arena::new(memory, layout.arena_address));
        Ok(Self { layout, rings: Arc::new(rings), staging, arena })
    }

    /// This side's ends of the two rings.
    pub(crate) fn rings(&self) -> io::Result<(Producer, Consumer)> {
        let length = |bytes: u64| usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        let (commands, replies) = (length(self.layout.commands)?, length(self.layout.replies)?);
        Ok((
            Producer::new(&self.rings, Direction::Commands, CONTROL, commands)?,
            Consumer::new(&self.rings, Direction::Replies, CONTROL + commands, replies)?,
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The staging area: slots through which copies of pageable memory pass.
#[derive(Debug)]
pub(crate) struct Staging {
    memory: SharedMemory,
    slots: Mutex<Slots>,
    freed: Condvar,
}

#[derive(Debug)]
struct Slots {
    free: Vec<u64>,
    /// Slots that the device still reads, the longest first.
    draining: VecDeque<u64>,
}

impl Staging {
    fn new(memory: SharedMemory) -> Self {
        let free = (0..memory.size() as u64 / STAGING_SLOT).rev().collect();
        Self { memory, slots: Mutex::new(Slots { free, draining: VecDeque::new() }), freed: Condvar::new() }
    }

    /// A slot that nobody uses.
    ///
    /// # Errors
    /// What a copy that has to be awaited for it answers.
    pub(crate) fn take(&self, session: &Session) -> Result<u64, CUresult> {
        let mut slots = lock(&self.slots);
        loop {
            if let Some(slot) = slots.free.pop() {
                return Ok(slot);
            }
            if let Some(slot) = slots.draining.pop_front() {
                drop(slots);
                let waited = session.call(control::STAGE_WAIT, |writer| writer.put(slot));
                return match waited {
                    Ok(_) => Ok(slot),
                    Err(error) => {
                        self.give_back(slot);
                        Err(error)
                    }
                };
            }
            slots = self.freed.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A slot is free again.
    pub(crate) fn give_back(&self, slot: u64) {
        lock(&self.slots).free.push(slot);
        self.freed.notify_one();
    }

    /// A slot is free again when the device has read it.
    pub(crate) fn drain(&self, slot: u64) {
        lock(&self.slots).draining.push_back(slot);
        self.freed.notify_one();
    }

    /// The memory of a slot, which the caller has taken.
    pub(crate) fn address(&self, slot: u64) -> *mut u8 {
        let offset = usize::try_from(slot * STAGING_SLOT).expect("within the area");
        debug_assert!(offset < self.memory.size(), "slots are numbered by this area");
        // SAFETY: slots lie within the mapping.
        unsafe { self.memory.address().add(offset) }
    }
}

/// Page-locked memory by address: first fit over a map of free ranges.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: SharedMemory,
    address: u64,
    free: Mutex<BTreeMap<u64, u64>>,
}

impl Arena {
    fn new(memory: SharedMemory, address: u64) -> Self {
        let free = BTreeMap::from([(address, memory.size() as u64)]);
        Self { memory, address, free: Mutex::new(free) }
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.memory.size() as u64)
    }

    /// `length` bytes, a multiple of the page size.
    pub(crate) fn allocate(&self, length: u64) -> Option<u64> {
        let mut free = lock(&self.free);
        let (base, size) = free.iter().find(|(_, size)| **size >= length).map(|(base, size)| (*base, *size))?;
        free.remove(&base);
        if size > length {
            free.insert(base + length, size - length);
        }
        Some(base)
    }

    /// Gives a range back, and its pages to the system.
    pub(crate) fn free(&self, address: u64, length: u64) {
        let start = std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("a host address"));
        let bytes = usize::try_from(length).expect("a host size");
        // SAFETY: a range of the mapping that its owner gives back.
        unsafe { libc::madvise(start, bytes, libc::MADV_REMOVE) };
        let mut free = lock(&self.free);
        let (mut base, mut size) = (address, length);
        if let Some((below, below_size)) = free.range(..address).next_back().map(|(base, size)| (*base, *size))
            && below + below_size == address
        {
            free.remove(&below);
            (base, size) = (below, below_size + size);
        }
        if let Some(above) = free.remove(&(address + length)) {
            size += above;
        }
        free.insert(base, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(size: u64) -> Arena {
        let fd = SharedMemory::create(size).unwrap();
        let memory = SharedMemory::map(&fd, 0, size, None).unwrap();
        let address = memory.address().expose_provenance() as u64;
        Arena::new(memory, address)
    }

    #[test]
    fn freed_ranges_grow_together_again() {
        let arena = arena(16 * 4096);
        let ranges: Vec<u64> = (0..4).map(|_| arena.allocate(4 * 4096).unwrap()).collect();
        assert!(arena.allocate(4096).is_none());
        for index in [1, 3, 0, 2] {
            arena.free(ranges[index], 4 * 4096);
        }
        assert_eq!(lock(&arena.free).len(), 1);
        assert_eq!(arena.allocate(16 * 4096), Some(ranges[0]));
    }

    #[test]
    fn freed_memory_is_zero_again() {
        let arena = arena(4 * 4096);
        let address = arena.allocate(4096).unwrap();
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(address).unwrap());
        // SAFETY: just allocated.
        unsafe { pointer.write(7) };
        arena.free(address, 4096);
        assert_eq!(arena.allocate(4096), Some(address));
        // SAFETY: allocated again.
        assert_eq!(unsafe { pointer.read() }, 0);
        assert!(arena.contains(address) && !arena.contains(address - 1) && !arena.contains(address + 4 * 4096));
    }
}
