//! The memory that a worker shares with a guest, of its own where a descriptor can reach the guest, or a slot of the memory of
//! the VM's device: rings for frames, a staging area for copies of pageable
//! memory, and the arena in which the guest's page-locked memory lies at one address on both sides (designs D8 and D9).
//!
//! The worker's own is made and registered with the driver before any guest comes. Pages of the arena exist only once they are touched.

use crate::driver::{Driver, Result};
use pxos_protocol::control::{STAGING_SLOT, SharedLayout};
use pxos_protocol::transport::bar;
use pxos_protocol::transport::ring::{CONTROL, Consumer, Direction, Producer, SharedMemory};
use pxos_protocol::types::CUresult;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Commands in flight: some 40,000 launches.
const COMMANDS: u64 = 8 << 20;
/// Replies in flight.
const REPLIES: u64 = 8 << 20;
/// Slots of the staging area: 32 MiB, enough for four copying threads to keep the DMA engine busy (measured).
const SLOTS: u64 = 16;
/// Length of the arena: address space, not memory.
const ARENA: u64 = 64 << 30;
/// Where both sides map the arena: an address that neither the loader nor the kernel uses by itself.
const ARENA_ADDRESS: u64 = 0x3000_0000_0000;

/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// `CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP`.
const PORTABLE_MAPPED: u32 = 3;

/// The worker's mapping.
#[derive(Debug)]
pub(super) struct Shared {
    fd: OwnedFd,
    /// Where things lie.
    pub(super) layout: SharedLayout,
    rings: Arc<SharedMemory>,
    staging: SharedMemory,
    arena: SharedMemory,
}

impl Shared {
    /// Makes memory of the worker's own, and has the driver lock the staging area into memory.
    pub(super) fn create(driver: &Driver) -> io::Result<Self> {
        let control = CONTROL as u64;
        let staging = control + COMMANDS + REPLIES;
        // Where file and address agree in their place within a huge page, one can be mapped.
        let arena = (staging + SLOTS * STAGING_SLOT).next_multiple_of(HUGE_PAGE);
        let layout = SharedLayout {
            bar: None,
            base: 0,
            size: arena + ARENA,
            commands: COMMANDS,
            replies: REPLIES,
            staging,
            staging_length: SLOTS * STAGING_SLOT,
            arena,
            arena_length: ARENA,
            arena_address: ARENA_ADDRESS,
        };
        Self::map(driver, SharedMemory::create(layout.size)?, layout)
    }

    /// A slot of the memory of the VM's device, in place of the worker's own, whose addresses it takes.
    pub(super) fn in_slot(
        driver: &Driver,
        fd: OwnedFd,
        id: [u64; 2],
        base: u64,
        length: u64,
    ) -> io::Result<Self> {
        Self::map(driver, fd, bar::layout(id, base, length, ARENA_ADDRESS))
    }

    fn map(driver: &Driver, fd: OwnedFd, layout: SharedLayout) -> io::Result<Self> {
        let part =
            |offset: u64, length, address| SharedMemory::map(&fd, layout.base + offset, length, address);
        let rings = Arc::new(part(0, layout.staging, None)?);
        let staging = part(layout.staging, layout.staging_length, None)?;
        let arena = part(layout.arena, layout.arena_length, Some(layout.arena_address))?;
        arena.prefer_huge_pages();
        // SAFETY: memory of ours that stays mapped for the life of the worker.
        unsafe { driver.cuMemHostRegister_v2(staging.address().cast(), staging.size(), PORTABLE_MAPPED) }
            .map_err(|error| io::Error::other(format!("cuMemHostRegister answers {error}")))?;
        Ok(Self { fd, layout, rings, staging, arena })
    }

    /// Gives the memory back, and its addresses with it.
    pub(super) fn give_up(self, driver: &Driver) {
        // SAFETY: registered by `map`; nothing has used it yet.
        let unlocked = unsafe { driver.cuMemHostUnregister(self.staging.address().cast()) };
        if unlocked.is_err() {
            // The driver still has it: it must stay mapped.
            #[expect(clippy::mem_forget, reason = "the driver has these pages")]
            std::mem::forget(self.staging);
        }
    }

    /// The descriptor that the guest gets; none where it has the memory already.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.layout.bar.is_none().then(|| self.fd.as_raw_fd())
    }

    /// The worker's ends of the two rings.
    pub(super) fn rings(&self) -> io::Result<(Consumer, Producer)> {
        let (commands, replies) =
            (usize::try_from(self.layout.commands), usize::try_from(self.layout.replies));
        let (commands, replies) = (commands.expect("fits"), replies.expect("fits"));
        Ok((
            Consumer::new(&self.rings, Direction::Commands, CONTROL, commands)?,
            Producer::new(&self.rings, Direction::Replies, CONTROL + commands, replies)?,
        ))
    }
}

/// What the leader keeps of the shared memory.
#[derive(Debug)]
pub(crate) struct Areas {
    shared: Shared,
    /// The event behind the last copy of each slot, 0 for none.
    events: Vec<u64>,
    /// Registered ranges of the arena: first address and length.
    pinned: BTreeMap<u64, u64>,
}

impl Areas {
    pub(super) fn new(shared: Shared) -> Self {
        let slots = usize::try_from(shared.layout.staging_length / STAGING_SLOT).expect("few");
        Self { shared, events: vec![0; slots], pinned: BTreeMap::new() }
    }

    /// The memory of a slot, for a copy of `length` bytes.
    pub(super) fn slot(&self, slot: u64, length: u64) -> Result<*mut c_void> {
        if slot >= self.events.len() as u64 || length > STAGING_SLOT {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let offset = usize::try_from(slot * STAGING_SLOT).expect("fits");
        // SAFETY: below the number of slots, so within the staging area.
        Ok(unsafe { self.shared.staging.address().add(offset) }.cast())
    }

    /// Marks the end of a slot's copy in its stream.
    pub(super) fn mark(&mut self, driver: &Driver, slot: u64, stream: u64) -> Result {
        let event = &mut self.events[usize::try_from(slot).expect("checked by `slot`")];
        // An event belongs to the context of its stream, which may be another than last time: each copy has its own.
        if *event != 0 {
            // SAFETY: an event of ours; the driver keeps it until it is complete.
            let _ = unsafe { driver.cuEventDestroy_v2(std::mem::take(event)) };
        }
        // CU_EVENT_DISABLE_TIMING
        // SAFETY: a pointer to an entry of ours, a stream of the session's.
        unsafe {
            driver.cuEventCreate(&raw mut *event, 2)?;
            driver.cuEventRecord(*event, stream)
        }
    }

    /// The event behind a slot's last copy, 0 for none.
    pub(super) fn event(&self, slot: u64) -> Result<u64> {
        let event = usize::try_from(slot).ok().and_then(|slot| self.events.get(slot));
        event.copied().ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// Forgets events whose context is gone.
    pub(super) fn forget(&mut self) {
        self.events.fill(0);
    }

    /// Locks a range of the arena into memory and maps it for the device.
    pub(super) fn pin(&mut self, driver: &Driver, address: u64, length: u64) -> Result {
        let layout = &self.shared.layout;
        let offset = address.checked_sub(layout.arena_address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let inside = offset.checked_add(length).is_some_and(|end| end <= layout.arena_length);
        if !inside
            || length == 0
            || !(address | length).is_multiple_of(4096)
            || self.overlaps(address, length)
        {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let offset = usize::try_from(offset).expect("within the arena");
        // SAFETY: within the arena.
        let start = unsafe { self.shared.arena.address().add(offset) };
        let bytes = usize::try_from(length).expect("within the arena");
        // SAFETY: memory of ours, mapped for the life of the worker; ranges do not overlap.
        unsafe { driver.cuMemHostRegister_v2(start.cast(), bytes, PORTABLE_MAPPED)? };
        self.pinned.insert(address, length);
        Ok(())
    }

    /// Takes a range out; the driver has still to unregister it.
    pub(super) fn unpin(&mut self, address: u64) -> Result<*mut c_void> {
        self.pinned.remove(&address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let address = usize::try_from(address).expect("within the arena");
        Ok(std::ptr::with_exposed_provenance_mut(address))
    }

    /// Whether a copy may read or write a range on the host's side.
    pub(super) fn is_pinned(&self, address: u64, length: u64) -> bool {
        let range = self.pinned.range(..=address).next_back();
        range.is_some_and(|(base, size)| (address - base).checked_add(length).is_some_and(|end| end <= *size))
    }

    /// Whether a range touches the arena's addresses at all.
    pub(super) fn is_arena(&self, address: u64) -> bool {
        let layout = &self.shared.layout;
        (layout.arena_address..layout.arena_address + layout.arena_length).contains(&address)
    }

    fn overlaps(&self, address: u64, length: u64) -> bool {
        let below = self.pinned.range(..address + length).next_back();
        below.is_some_and(|(base, size)| base + size > address)
    }
}
