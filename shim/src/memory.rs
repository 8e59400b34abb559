//! Memory that is shared with the worker: the rings, the staging area for copies of pageable memory, and the arena that
//! page-locked allocations come from (designs D8 and D9).

use crate::lock;
use crate::session::Session;
use pxos_protocol::control::{STAGING_SLOT, SharedLayout};
use pxos_protocol::frame::control;
use pxos_protocol::transport::ring::{CONTROL, Consumer, Direction, Producer, SharedMemory};
use pxos_protocol::types::CUresult;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

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
        let part = |offset: u64, length, address| {
            let begin = layout.base.checked_add(offset).ok_or(io::ErrorKind::InvalidData)?;
            SharedMemory::map(fd, begin, length, address)
        };
        let rings = part(0, layout.staging, None)?;
        let staging = Staging::new(part(layout.staging, layout.staging_length, None)?);
        let arena = part(layout.arena, layout.arena_length, Some(layout.arena_address)).ok();
        let arena = match arena {
            Some(memory) => Some({
                memory.prefer_huge_pages();
                Arena::new(memory, layout.arena_address, fd.try_clone()?, layout.base + layout.arena)
            }),
            None => None,
        };
        Ok(Self { layout, rings: Arc::new(rings), staging, arena })
    }

    /// This side's ends of the two rings.
    pub(crate) fn rings(&self) -> io::Result<(Producer, Consumer)> {
        let length =
            |bytes: u64| usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        let (commands, replies) = (length(self.layout.commands)?, length(self.layout.replies)?);
        Ok((
            Producer::new(&self.rings, Direction::Commands, CONTROL, commands)?,
            Consumer::new(&self.rings, Direction::Replies, CONTROL + commands, replies)?,
        ))
    }
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
    fd: OwnedFd,
    /// Where it begins in the file.
    offset: u64,
    free: Mutex<BTreeMap<u64, u64>>,
}

impl Arena {
    fn new(memory: SharedMemory, address: u64, fd: OwnedFd, offset: u64) -> Self {
        let free = BTreeMap::from([(address, memory.size() as u64)]);
        Self { memory, address, fd, offset, free: Mutex::new(free) }
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.memory.size() as u64)
    }

    /// `length` bytes, a multiple of the page size.
    pub(crate) fn allocate(&self, length: u64) -> Option<u64> {
        let mut free = lock(&self.free);
        let (base, size) =
            free.iter().find(|(_, size)| **size >= length).map(|(base, size)| (*base, *size))?;
        free.remove(&base);
        if size > length {
            free.insert(base + length, size - length);
        }
        Some(base)
    }

    /// Moves memory of the application's into the arena, where it stays until [`Self::move_out`]: its pages, at the address
    /// where the application knows them, become pages that the worker maps, too. Whole pages of private memory only; the caller
    /// has checked both.
    ///
    /// # Safety
    /// The range is private memory of this process, and nothing writes to it meanwhile (CUDA driver API, cuMemHostRegister: the
    /// caller owns it).
    pub(crate) unsafe fn move_in(&self, host: u64, length: u64) -> Option<u64> {
        let mirror = self.allocate(length)?;
        let bytes = usize::try_from(length).ok()?;
        let at =
            |address: u64| std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(address).unwrap_or(0));
        let offset = libc::off_t::try_from(self.offset + (mirror - self.address)).ok()?;
        // SAFETY: both ranges are `bytes` long; the mapping replaces pages of the caller's range with others of the same contents.
        let mapped = unsafe {
            std::ptr::copy_nonoverlapping(at(host), at(mirror), bytes);
            libc::mmap(
                at(host).cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                self.fd.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            self.free(mirror, length);
            return None;
        }
        Some(mirror)
    }

    /// Undoes [`Self::move_in`]: the application's range is private memory again, with the contents that it has now.
    ///
    /// # Safety
    /// As there, with the mirror that it gave.
    pub(crate) unsafe fn move_out(&self, host: u64, length: u64, mirror: u64) {
        let Ok(bytes) = usize::try_from(length) else { return };
        let at =
            |address: u64| std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(address).unwrap_or(0));
        // SAFETY: the range is the one that `move_in` mapped; its contents are in the mirror all the while.
        unsafe {
            let mapped = libc::mmap(
                at(host).cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            );
            if mapped == libc::MAP_FAILED {
                // The application's range stays shared, which it cannot tell; the pages are not given out again.
                return;
            }
            std::ptr::copy_nonoverlapping(at(mirror), at(host), bytes);
        }
        self.free(mirror, length);
    }

    /// Gives a range back, and its pages to the system; those of a VM's device stay as they are.
    pub(crate) fn free(&self, address: u64, length: u64) {
        let start = std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("a host address"));
        let bytes = usize::try_from(length).expect("a host size");
        // SAFETY: a range of the mapping that its owner gives back.
        unsafe { libc::madvise(start, bytes, libc::MADV_REMOVE) };
        let mut free = lock(&self.free);
        let (mut base, mut size) = (address, length);
        if let Some((below, below_size)) =
            free.range(..address).next_back().map(|(base, size)| (*base, *size))
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

/// Whether a range is anonymous, private and writable throughout: memory that may be moved without anybody noticing. Memory
/// that other processes or files share may not.
pub(crate) fn is_private(address: u64, length: u64) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return false };
    let end = address + length;
    let mut covered = address;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights), _, _, inode) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some((from, to)) = range.split_once('-') else { continue };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else {
            continue;
        };
        if to <= covered || from > covered {
            continue;
        }
        if !rights.starts_with("rw") || !rights.ends_with('p') || inode != Some("0") {
            return false;
        }
        covered = to;
        if covered >= end {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(size: u64) -> Arena {
        let fd = SharedMemory::create(size).unwrap();
        let memory = SharedMemory::map(&fd, 0, size, None).unwrap();
        let address = memory.address().expose_provenance() as u64;
        Arena::new(memory, address, fd, 0)
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
    fn the_application_s_pages_move_in_and_out() {
        let arena = arena(16 * 4096);
        // SAFETY: a fresh private mapping.
        let own = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * 4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let own: *mut u8 = own.cast();
        let address = own.expose_provenance() as u64;
        assert!(is_private(address, 2 * 4096));
        // SAFETY: within the mapping, which nobody else knows.
        unsafe {
            own.add(5000).write(7);
            let mirror = arena.move_in(address, 2 * 4096).unwrap();
            let there = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(mirror).unwrap());
            assert_eq!(own.add(5000).read_volatile(), 7);
            there.add(5000).write_volatile(8);
            assert_eq!(own.add(5000).read_volatile(), 8);
            assert!(!is_private(address, 2 * 4096));
            arena.move_out(address, 2 * 4096, mirror);
            assert_eq!(own.add(5000).read_volatile(), 8);
            own.add(5000).write_volatile(9);
            assert_eq!(there.add(5000).read_volatile(), 0);
        }
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
        assert!(
            arena.contains(address) && !arena.contains(address - 1) && !arena.contains(address + 4 * 4096)
        );
    }
}
