//! What the guest knows about memory: every range it was given, so that copies find their direction, pointer attributes
//! are answered here and a pointer that is none is refused by the very call.

use crate::lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Device memory from `cuMemAlloc` and its like.
    Device,
    /// A variable of a module.
    Global,
    /// Page-locked host memory from `cuMemHostAlloc`.
    Pinned,
    /// The application's own memory, registered by `cuMemHostRegister`.
    Registered,
    /// Device memory of a memory pool.
    Pool,
    /// Physical memory that is mapped (`cuMemMap`).
    Mapped,
    /// Another process's memory (`cuIpcOpenMemHandle`).
    Opened,
    /// Managed memory from `cuMemAllocManaged`.
    Managed,
    /// A managed variable of a module ([`crate::managed_variables`]): to copies it is the device's.
    ManagedVariable,
}

/// One range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocation {
    /// First address.
    pub(crate) base: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Context that it belongs to, by its handle.
    pub(crate) context: u64,
    /// Ordinal of the device.
    pub(crate) device: i32,
    /// Flags it was made with (`CU_MEMHOSTALLOC_*` for host memory, handle types for memory that can be shared).
    pub(crate) flags: u32,
    /// Where the worker and the device see host memory, 0 where they do not: pinned and managed memory at its own address,
    /// registered memory at that of its mirror in the arena.
    pub(crate) shared: u64,
    /// A number that no other allocation of this process has (`CU_POINTER_ATTRIBUTE_BUFFER_ID`).
    pub(crate) id: u64,
    /// Handle of the pool or of the physical memory that it is of, 0 for other kinds.
    pub(crate) owner: u64,
    /// One past the last address that a copy which begins here may touch: mapped ranges that lie side by side are one.
    end: u64,
}

impl Allocation {
    /// Whether host code may touch it.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Pinned | Kind::Registered | Kind::Managed)
    }

    /// Whether it is managed memory.
    pub(crate) fn is_managed(&self) -> bool {
        matches!(self.kind, Kind::Managed | Kind::ManagedVariable)
    }

    /// Whether it is a variable of a module.
    pub(crate) fn is_variable(&self) -> bool {
        matches!(self.kind, Kind::Global | Kind::ManagedVariable)
    }

    /// Where the worker sees `address`, if it does.
    pub(crate) fn shared_address(&self, address: u64) -> Option<u64> {
        (self.shared != 0).then(|| self.shared + (address - self.base))
    }

    /// Bytes from `address` to the end.
    pub(crate) fn bytes_from(&self, address: u64) -> u64 {
        self.end - address
    }
}

/// All ranges by their first address.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    ranges: RwLock<BTreeMap<u64, Allocation>>,
    next_id: AtomicU64,
}

impl Allocations {
    /// Adds a range.
    pub(crate) fn insert(&self, kind: Kind, base: u64, size: u64, context: u64, device: i32, flags: u32) {
        self.insert_owned(kind, base, size, context, device, flags, 0);
    }

    /// Adds a range of a pool or of physical memory.
    #[expect(clippy::too_many_arguments, reason = "each is a field")]
    pub(crate) fn insert_owned(
        &self,
        kind: Kind,
        base: u64,
        size: u64,
        context: u64,
        device: i32,
        flags: u32,
        owner: u64,
    ) {
        // Relaxed: the number only has to be unique.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let end = base.saturating_add(size);
        let allocation = Allocation { base, size, kind, context, device, flags, shared: 0, id, owner, end };
        self.ranges.write().unwrap_or_else(PoisonError::into_inner).insert(base, allocation);
    }

    /// Says where the worker sees a range of host memory.
    pub(crate) fn share(&self, base: u64, shared: u64) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = ranges.get_mut(&base) {
            range.shared = shared;
        }
    }

    /// The range that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<Allocation> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (_, allocation) = ranges.range(..=address).next_back()?;
        if address - allocation.base >= allocation.size {
            return None;
        }
        let mut found = *allocation;
        if found.kind == Kind::Mapped {
            for (base, next) in ranges.range(found.end..) {
                if *base != found.end || next.kind != Kind::Mapped {
                    break;
                }
                found.end = base + next.size;
            }
        }
        Some(found)
    }

    /// Whether any range lies within `size` bytes from `base`.
    pub(crate) fn touches(&self, base: u64, size: u64) -> bool {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let before =
            ranges.range(..base).next_back().is_some_and(|(_, range)| range.base + range.size > base);
        before || ranges.range(base..base.saturating_add(size)).next().is_some()
    }

    /// Takes out the ranges that cover `size` bytes from `base` without a gap and without reaching beyond, where `accept` agrees
    /// to each; `None` where they do not.
    pub(crate) fn remove_run(
        &self,
        base: u64,
        size: u64,
        accept: impl Fn(&Allocation) -> bool,
    ) -> Option<Vec<Allocation>> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let end = base.checked_add(size)?;
        let mut next = base;
        for (start, range) in ranges.range(base..end) {
            if *start != next || !accept(range) {
                return None;
            }
            next += range.size;
        }
        if next != end || size == 0 {
            return None;
        }
        let bases: Vec<u64> = ranges.range(base..end).map(|(base, _)| *base).collect();
        Some(bases.iter().filter_map(|base| ranges.remove(base)).collect())
    }

    /// Takes out the range that begins at `base`, where `accept` agrees.
    pub(crate) fn remove(&self, base: u64, accept: impl FnOnce(&Allocation) -> bool) -> Option<Allocation> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.get(&base).filter(|allocation| accept(allocation))?;
        ranges.remove(&base)
    }

    /// Takes out every range for which `dead` says so.
    pub(crate) fn remove_all(&self, dead: impl Fn(&Allocation) -> bool) -> Vec<Allocation> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let bases: Vec<u64> = ranges.values().filter(|range| dead(range)).map(|range| range.base).collect();
        bases.iter().filter_map(|base| ranges.remove(base)).collect()
    }
}

/// Most bytes of freed blocks that are kept.
const PARKED_BYTES: u64 = 64 << 20;

/// Largest block that is kept: what the driver itself cuts from blocks of its own (2 MiB on an H200, measured).
const PARKED_BLOCK: u64 = 2 << 20;

/// Device memory that was freed while the device was idle and will be given out again for the same size: allocating and
/// freeing in turns then needs no answer from the host. The memory still counts as used by the VM; whoever asks how much is free,
/// or cannot get memory, gives it back first.
#[derive(Debug, Default)]
pub(crate) struct ParkedBlocks {
    blocks: Mutex<Vec<Parked>>,
}

#[derive(Debug)]
struct Parked {
    address: u64,
    size: u64,
    context: u64,
}

impl ParkedBlocks {
    /// Keeps a block, unless it is too large or too much is kept.
    pub(crate) fn park(&self, range: &Allocation) -> bool {
        let mut blocks = lock(&self.blocks);
        let kept: u64 = blocks.iter().map(|block| block.size).sum();
        let fits = range.size <= PARKED_BLOCK && kept + range.size <= PARKED_BYTES;
        if fits {
            blocks.push(Parked { address: range.base, size: range.size, context: range.context });
        }
        fits
    }

    /// A kept block of just this size in this context.
    pub(crate) fn take(&self, size: u64, context: u64) -> Option<u64> {
        let mut blocks = lock(&self.blocks);
        let found = blocks.iter().rposition(|block| block.size == size && block.context == context)?;
        Some(blocks.swap_remove(found).address)
    }

    /// All blocks of a context, to be freed.
    pub(crate) fn take_all(&self, context: u64) -> Vec<u64> {
        let mut blocks = lock(&self.blocks);
        blocks.extract_if(.., |block| block.context == context).map(|block| block.address).collect()
    }

    /// Forgets the blocks of a context that is gone.
    pub(crate) fn forget(&self, context: u64) {
        self.take_all(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_block_fits_only_its_own_size_and_context() {
        let table = Allocations::default();
        table.insert(Kind::Device, 0x1000, 256, 1, 0, 0);
        table.insert(Kind::Device, 0x2000, PARKED_BLOCK + 1, 1, 0, 0);
        let parked = ParkedBlocks::default();
        assert!(parked.park(&table.find(0x1000).unwrap()));
        assert!(!parked.park(&table.find(0x2000).unwrap()));
        assert_eq!(parked.take(255, 1), None);
        assert_eq!(parked.take(256, 2), None);
        assert_eq!(parked.take(256, 1), Some(0x1000));
        assert_eq!(parked.take(256, 1), None);
    }

    #[test]
    fn mapped_ranges_side_by_side_are_one_for_copies_only() {
        let table = Allocations::default();
        for piece in 0..3 {
            table.insert_owned(Kind::Mapped, 0x1000 + piece * 0x100, 0x100, 0, 0, 0, piece);
        }
        table.insert(Kind::Device, 0x1300, 0x100, 1, 0, 0);
        let found = table.find(0x1080).unwrap();
        assert_eq!((found.base, found.size, found.bytes_from(0x1080)), (0x1000, 0x100, 0x280));
        assert_eq!(table.find(0x1300).unwrap().bytes_from(0x1300), 0x100);
        assert!(table.touches(0xff0, 0x11) && table.touches(0x13ff, 1) && !table.touches(0x1400, 0x100));
        let mapped = |range: &Allocation| range.kind == Kind::Mapped;
        for (base, size) in [(0x1000, 0x180), (0x1080, 0x80), (0x1200, 0x200), (0x1000, 0)] {
            assert!(table.remove_run(base, size, mapped).is_none(), "{base:#x}");
        }
        assert_eq!(table.remove_run(0x1000, 0x200, mapped).unwrap().len(), 2);
        assert!(table.find(0x1080).is_none() && table.find(0x1200).is_some());
    }

    #[test]
    fn an_address_finds_its_range() {
        let table = Allocations::default();
        table.insert(Kind::Device, 0x1000, 0x100, 1, 0, 0);
        table.insert(Kind::Pinned, 0x2000, 0x10, 1, 0, 0);
        assert_eq!(table.find(0x10ff).unwrap().base, 0x1000);
        assert!(table.find(0x1100).is_none());
        assert!(table.find(0xfff).is_none());
        assert!(table.find(0x2008).unwrap().is_host());
        assert!(table.remove(0x1001, |_| true).is_none());
        assert!(table.remove(0x1000, |range| range.is_host()).is_none());
        assert!(table.remove(0x1000, |range| !range.is_host()).is_some());
        assert!(table.find(0x1000).is_none());
    }
}
