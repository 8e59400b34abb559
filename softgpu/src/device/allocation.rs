//! What memory the application holds: every range that the API handed out or was told of, by address, for all
//! devices of the process (addresses are unified: no two ranges overlap).

use pxos_protocol::types::{CUcontext, CUdevice, CUmemoryPool, CUresult};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Where a range came from, which decides how it may be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `cuMemAlloc` and `cuMemAllocPitch`.
    Device,
    /// `cuMemAllocAsync` and `cuMemAllocFromPoolAsync`.
    Pool(CUmemoryPool),
    /// A variable of a module.
    Module,
    /// `cuMemAllocHost` and `cuMemHostAlloc`, with the flags as `cuMemHostGetFlags` tells them.
    HostAllocated(u32),
    /// `cuMemHostRegister`, with the flags.
    HostRegistered(u32),
    /// `cuMemAllocManaged`, with the flags (`CU_MEM_ATTACH_GLOBAL` or `_HOST`).
    Managed(u32),
    /// Physical memory mapped by `cuMemMap`.
    Mapped,
    /// An allocation node of a graph.
    Graph,
    /// Memory of another process: by `cuIpcOpenMemHandle`, or an allocation of its pool.
    Opened {
        /// Whether it is of a pool.
        pooled: bool,
    },
}

/// One range.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// First address.
    pub(crate) base: u64,
    /// Length as asked for.
    pub(crate) bytes: u64,
    /// Where it came from.
    pub(crate) origin: Origin,
    /// The device it is on, or of the context that it was made in.
    pub(crate) device: CUdevice,
    /// The context it was made in.
    pub(crate) context: CUcontext,
    /// Which life of that context: a primary context has several.
    pub(crate) life: u64,
    /// Unique in the process.
    pub(crate) buffer: u64,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
    pub(crate) synchronous: AtomicBool,
    /// Whether it may be touched; only mapped memory may ever not.
    pub(crate) accessible: AtomicBool,
}

impl Allocation {
    /// Whether the range lies on the host.
    pub(crate) fn on_host(&self) -> bool {
        matches!(self.origin, Origin::HostAllocated(_) | Origin::HostRegistered(_))
    }

    /// Whether `bytes` from `address` on are inside.
    pub(crate) fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.base && bytes <= self.bytes && address - self.base <= self.bytes - bytes
    }
}

static ALLOCATIONS: RwLock<BTreeMap<u64, Arc<Allocation>>> = RwLock::new(BTreeMap::new());

/// Notes a range.
pub(crate) fn insert(
    base: u64,
    bytes: u64,
    origin: Origin,
    device: CUdevice,
    context: CUcontext,
    life: u64,
) -> Arc<Allocation> {
    static BUFFERS: AtomicU64 = AtomicU64::new(1);
    let allocation = Arc::new(Allocation {
        base,
        bytes,
        origin,
        device,
        context,
        life,
        buffer: BUFFERS.fetch_add(1, Ordering::Relaxed),
        synchronous: AtomicBool::new(!matches!(origin, Origin::HostAllocated(_) | Origin::HostRegistered(_))),
        accessible: AtomicBool::new(true),
    });
    ALLOCATIONS.write().unwrap_or_else(PoisonError::into_inner).insert(base, Arc::clone(&allocation));
    allocation
}

/// The range that an address lies in.
pub(crate) fn find(address: u64) -> Option<Arc<Allocation>> {
    let all = ALLOCATIONS.read().unwrap_or_else(PoisonError::into_inner);
    let (_, allocation) = all.range(..=address).next_back()?;
    (address - allocation.base < allocation.bytes).then(|| Arc::clone(allocation))
}

/// The range that starts at an address.
pub(crate) fn starting_at(base: u64) -> Option<Arc<Allocation>> {
    ALLOCATIONS.read().unwrap_or_else(PoisonError::into_inner).get(&base).cloned()
}

/// Whether any of these bytes are in a range.
pub(crate) fn overlaps(base: u64, bytes: u64) -> bool {
    let all = ALLOCATIONS.read().unwrap_or_else(PoisonError::into_inner);
    let end = base.saturating_add(bytes);
    all.range(..end).next_back().is_some_and(|(_, last)| last.base + last.bytes > base)
}

/// Forgets the range that starts at an address, if it is the given one; two threads that free the same range at a
/// time get one `true`.
pub(crate) fn remove(allocation: &Arc<Allocation>) -> bool {
    let mut all = ALLOCATIONS.write().unwrap_or_else(PoisonError::into_inner);
    match all.get(&allocation.base) {
        Some(held) if Arc::ptr_eq(held, allocation) => all.remove(&allocation.base).is_some(),
        _ => false,
    }
}

/// The ranges of one life of a context, or of any other choice.
pub(crate) fn select(wanted: impl Fn(&Allocation) -> bool) -> Vec<Arc<Allocation>> {
    let all = ALLOCATIONS.read().unwrap_or_else(PoisonError::into_inner);
    all.values().filter(|allocation| wanted(allocation)).cloned().collect()
}

/// Checks that a device address range can be copied from or to: inside one range that the API knows, or inside mapped
/// ranges that touch.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` (measured).
pub(crate) fn check(address: u64, bytes: u64) -> Result<Arc<Allocation>, CUresult> {
    let found = find(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let end = address.checked_add(bytes).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if found.origin != Origin::Mapped {
        return if found.holds(address, bytes) { Ok(found) } else { Err(CUresult::ERROR_INVALID_VALUE) };
    }
    let mut part = Arc::clone(&found);
    loop {
        if !part.accessible.load(Ordering::Relaxed) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if part.base + part.bytes >= end {
            return Ok(found);
        }
        let next = starting_at(part.base + part.bytes).filter(|next| next.origin == Origin::Mapped);
        part = next.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    }
}

/// Checks a range that may be unknown to the API (pageable host memory): `None` then. One that begins in a known
/// range must end in it.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where it does not, or for null.
pub(crate) fn check_unified(address: u64, bytes: u64) -> Result<Option<Arc<Allocation>>, CUresult> {
    match find(address) {
        Some(_) => check(address, bytes).map(Some),
        None if address != 0 => Ok(None),
        None => Err(CUresult::ERROR_INVALID_VALUE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_any_address_inside() {
        let base = 0x4000_0000_0000;
        let made = insert(base, 1000, Origin::Device, 0, CUcontext(1), 1);
        assert!(Arc::ptr_eq(&find(base + 999).unwrap(), &made));
        assert!(find(base + 1000).is_none());
        assert!(check(base + 500, 500).is_ok());
        assert_eq!(check(base + 500, 501).unwrap_err(), CUresult::ERROR_INVALID_VALUE);
        assert_eq!(check(base, u64::MAX).unwrap_err(), CUresult::ERROR_INVALID_VALUE);
        assert!(overlaps(base + 999, 5) && overlaps(base - 5, 6));
        assert!(!overlaps(base + 1000, 5) && !overlaps(base - 5, 5));
        assert!(remove(&made) && !remove(&made));
        assert!(find(base).is_none());
    }

    #[test]
    fn unknown_memory_is_pageable_host_memory() {
        assert!(check_unified(0x7000, 8).unwrap().is_none());
        assert!(check_unified(0, 8).is_err());
    }
}
