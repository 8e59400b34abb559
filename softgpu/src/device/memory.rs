//! Device memory: one reserved range of virtual addresses, and the host ranges a kernel may also touch.
//!
//! Every access a kernel makes is checked against what is live. For device memory a table holds, for each
//! 256-byte chunk of the range, how many of its bytes are live, so a check is one lock-free load; natural
//! alignment keeps an access inside one chunk. Host ranges (pinned, mapped and registered memory, whose device
//! address equals the host address) are few and looked up in a snapshot that a generation number keeps fresh.
//! Invariants: pages of the range are readable and writable once they have been live and stay so until the whole
//! range goes, hence an access that races with a free reads stale bytes or zeros but never faults the process.

#![expect(clippy::cast_possible_truncation, reason = "the engine runs on 64-bit machines only")]

pub(crate) mod share;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where the range is placed when the kernel allows it: far from what programs map themselves.
const ADDRESS_HINT: usize = 0x2000_0000_0000;
/// Bytes per entry of the table, and the alignment of every allocation.
const CHUNK: u64 = 256;
/// Dead bytes behind each allocation, so that running off its end is noticed.
const GAP: u64 = 256;
/// Freed memory of at least this size is given back to the system at once.
const DECOMMIT: u64 = 64 << 10;

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// Allocated device memory.
    Device,
    /// Addresses reserved by [`Memory::reserve`], mapped or not.
    Reserved,
    /// A registered host range.
    Host,
}

/// Why an access was refused; the address is the first byte that is not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address {address:#x} is not in live device or registered host memory")]
pub struct AccessError {
    /// The first address that is not live (or the start of the access, for host ranges).
    pub address: u64,
}

#[derive(Debug, Clone, Copy)]
struct HostRange {
    base: u64,
    bytes: u64,
}

/// A snapshot of the host ranges, one per interpreter thread.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    generation: u64,
    ranges: Arc<[HostRange]>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    /// What the caller asked for.
    bytes: u64,
    /// What is taken from the range, gap included.
    taken: u64,
    kind: RangeKind,
}

#[derive(Debug, Default)]
struct State {
    /// Taken address spans by base.
    spans: BTreeMap<u64, Span>,
    /// Free address spans by base.
    free: BTreeMap<u64, u64>,
    host: BTreeMap<u64, u64>,
    view: Arc<[HostRange]>,
}

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    base: u64,
    /// Bytes of address space reserved.
    reserved: u64,
    capacity: u64,
    /// Live bytes of each chunk, 0..=256.
    table: NonNull<AtomicU16>,
    used: AtomicU64,
    generation: AtomicU64,
    state: Mutex<State>,
    /// The file that the range is in, once something of it is shared.
    file: OnceLock<OwnedFd>,
}

// SAFETY: `table` points to a mapping owned by this value and holds atomics only.
unsafe impl Send for Memory {}
// SAFETY: shared access goes through atomics and the mutex.
unsafe impl Sync for Memory {}

/// Maps anonymous memory without reserving swap for it.
fn map(hint: usize, bytes: usize, protection: libc::c_int) -> std::io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous mapping without MAP_FIXED replaces nothing.
    let at = unsafe { libc::mmap(std::ptr::without_provenance_mut(hint), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    Ok(at.expose_provenance())
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the engine runs on 64-bit machines")
}

impl Memory {
    /// Reserves address space for `capacity` bytes of device memory (rounded up to 64 KiB); nothing is committed yet.
    ///
    /// # Errors
    /// The system's, when it refuses the reservation.
    pub fn new(capacity: u64) -> std::io::Result<Self> {
        let too_big = || std::io::Error::from_raw_os_error(libc::ENOMEM);
        let capacity = capacity.checked_next_multiple_of(64 << 10).ok_or_else(too_big)?;
        // Room for gaps, fragments and reserved addresses that are not mapped.
        let reserved = capacity.checked_mul(4).and_then(|b| b.checked_add(1 << 30)).ok_or_else(too_big)?;
        let length = usize::try_from(reserved).map_err(|_| too_big())?;
        let base = map(ADDRESS_HINT, length, libc::PROT_NONE)? as u64;
        let entries = length / to_usize(CHUNK) * size_of::<AtomicU16>();
        let table = match map(0, entries, libc::PROT_READ | libc::PROT_WRITE) {
            Ok(table) => std::ptr::with_exposed_provenance_mut::<AtomicU16>(table),
            Err(error) => {
                // SAFETY: the mapping was made above and nobody knows of it yet.
                unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(to_usize(base)), length) };
                return Err(error);
            }
        };
        let state = State { free: BTreeMap::from([(base, reserved)]), ..State::default() };
        Ok(Self {
            base,
            reserved,
            capacity,
            table: NonNull::new(table).expect("mmap does not return null without MAP_FIXED"),
            used: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            state: Mutex::new(state),
            file: OnceLock::new(),
        })
    }

    /// Bytes that can be allocated in all.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes allocated or mapped now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `taken` bytes of addresses at a multiple of `align`, at `hint` if that is free.
    fn take_span(&self, state: &mut State, taken: u64, align: u64, hint: u64) -> Option<u64> {
        let fits = |(&base, &bytes): (&u64, &u64)| {
            let at = base.checked_next_multiple_of(align)?;
            (at.checked_add(taken)? <= base + bytes).then_some((base, bytes, at))
        };
        let hinted = state
            .free
            .range(..=hint)
            .next_back()
            .filter(|(base, bytes)| {
                hint != 0 && hint.is_multiple_of(align) && hint + taken <= **base + **bytes
            })
            .map(|(base, bytes)| (*base, *bytes, hint));
        let (base, bytes, at) = hinted.or_else(|| state.free.iter().find_map(fits))?;
        state.free.remove(&base);
        if at > base {
            state.free.insert(base, at - base);
        }
        let rest = base + bytes - (at + taken);
        if rest > 0 {
            state.free.insert(at + taken, rest);
        }
        Some(at)
    }

    fn give_span(state: &mut State, mut base: u64, mut bytes: u64) {
        if let Some((&before, &size)) = state.free.range(..base).next_back()
            && before + size == base
        {
            state.free.remove(&before);
            base = before;
            bytes += size;
        }
        if let Some(size) = state.free.remove(&(base + bytes)) {
            bytes += size;
        }
        state.free.insert(base, bytes);
    }

    /// Counts bytes against the capacity.
    fn charge(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.capacity)
            })
            .is_ok()
    }

    /// Makes pages of the range accessible.
    fn commit(&self, base: u64, bytes: u64) -> bool {
        let page = 4096;
        let start = base / page * page;
        let end = (base + bytes).next_multiple_of(page).min(self.base + self.reserved);
        if let Some(file) = self.file.get() {
            return self.place(file, start, end);
        }
        // SAFETY: the pages lie inside the range this value has reserved.
        let status = unsafe {
            libc::mprotect(
                std::ptr::with_exposed_provenance_mut(to_usize(start)),
                to_usize(end - start),
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        status == 0
    }

    /// Sets how many bytes are live from `base` (a multiple of the chunk) on.
    fn set_live(&self, base: u64, bytes: u64, live: bool) {
        let first = to_usize((base - self.base) / CHUNK);
        let count = to_usize(bytes.div_ceil(CHUNK));
        for index in 0..count {
            let left = bytes - index as u64 * CHUNK;
            let value = if live { u16::try_from(left.min(CHUNK)).expect("at most 256") } else { 0 };
            self.entry(first + index).store(value, Ordering::Release);
        }
    }

    fn entry(&self, index: usize) -> &AtomicU16 {
        debug_assert!((index as u64) < self.reserved / CHUNK);
        // SAFETY: the table has one entry per chunk of the range and callers stay inside the range; the mapping
        // lives as long as `self`.
        unsafe { &*self.table.as_ptr().add(index) }
    }

    /// Allocates `bytes` of device memory, 256-byte aligned; `None` when it does not fit. Contents are undefined.
    pub fn alloc(&self, bytes: u64) -> Option<u64> {
        let rounded = bytes.checked_next_multiple_of(CHUNK).filter(|b| *b > 0)?;
        if !self.charge(rounded) {
            return None;
        }
        let mut state = self.state();
        let taken = rounded + GAP;
        let Some(base) = self.take_span(&mut state, taken, CHUNK, 0) else {
            self.used.fetch_sub(rounded, Ordering::Relaxed);
            return None;
        };
        if !self.commit(base, rounded) {
            Self::give_span(&mut state, base, taken);
            self.used.fetch_sub(rounded, Ordering::Relaxed);
            return None;
        }
        state.spans.insert(base, Span { bytes, taken, kind: RangeKind::Device });
        self.set_live(base, bytes, true);
        Some(base)
    }

    /// Frees an allocation; false when `addr` is not the start of one.
    pub fn free(&self, addr: u64) -> bool {
        let mut state = self.state();
        match state.spans.get(&addr) {
            Some(span) if span.kind == RangeKind::Device => {}
            _ => return false,
        }
        let span = state.spans.remove(&addr).expect("looked up above");
        self.set_live(addr, span.bytes, false);
        self.decommit(addr, span.bytes);
        self.used.fetch_sub(span.taken - GAP, Ordering::Relaxed);
        Self::give_span(&mut state, addr, span.taken);
        true
    }

    /// Gives whole pages back to the system; they read as zero afterwards.
    fn decommit(&self, base: u64, bytes: u64) {
        let start = base.next_multiple_of(4096);
        let end = (base + bytes) / 4096 * 4096;
        if bytes >= DECOMMIT && end > start {
            // Of a shared mapping only this takes the pages themselves.
            let advice = if self.file.get().is_some() { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
            // SAFETY: the pages lie inside one allocation of the range, which is no longer live.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(to_usize(start)),
                    to_usize(end - start),
                    advice,
                );
            }
        }
    }

    /// Reserves addresses without memory behind them (virtual memory management, `cuMemAddressReserve`).
    /// `align` is a power of two of at least 256; `hint` 0 means anywhere.
    pub fn reserve(&self, bytes: u64, align: u64, hint: u64) -> Option<u64> {
        let rounded = bytes.checked_next_multiple_of(4096).filter(|b| *b > 0)?;
        let mut state = self.state();
        let base = self.take_span(&mut state, rounded, align.max(4096), hint)?;
        state.spans.insert(base, Span { bytes: rounded, taken: rounded, kind: RangeKind::Reserved });
        Some(base)
    }

    /// Gives reserved addresses back; false when `addr` is not the start of a reservation.
    pub fn release(&self, addr: u64) -> bool {
        let mut state = self.state();
        match state.spans.get(&addr) {
            Some(span) if span.kind == RangeKind::Reserved => {}
            _ => return false,
        }
        let span = state.spans.remove(&addr).expect("looked up above");
        self.set_live(addr, span.bytes, false);
        Self::give_span(&mut state, addr, span.taken);
        true
    }

    /// Maps a file (a memfd that stands for physical memory) at reserved addresses and makes them live.
    /// Everything is in multiples of 4096. The caller accounts for the bytes with [`Memory::charge_physical`].
    ///
    /// # Errors
    /// `EINVAL` when the addresses are not reserved, else the system's error.
    pub fn map_file(&self, addr: u64, bytes: u64, fd: libc::c_int, offset: u64) -> std::io::Result<()> {
        let state = self.state();
        let invalid = || std::io::Error::from_raw_os_error(libc::EINVAL);
        let inside = state.spans.range(..=addr).next_back().is_some_and(|(base, span)| {
            span.kind == RangeKind::Reserved
                && addr.checked_add(bytes).is_some_and(|end| end <= base + span.bytes)
        });
        if !inside || bytes == 0 || !(addr | bytes | offset).is_multiple_of(4096) {
            return Err(invalid());
        }
        // SAFETY: MAP_FIXED replaces pages of the range that this value owns and the caller has reserved.
        let at = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(to_usize(addr)),
                to_usize(bytes),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                fd,
                libc::off_t::try_from(offset).map_err(|_| invalid())?,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }

    /// Sets whether mapped addresses may be accessed (`cuMemSetAccess`); multiples of 4096 inside a reservation.
    pub fn set_access(&self, addr: u64, bytes: u64, live: bool) -> bool {
        let state = self.state();
        let inside = state.spans.range(..=addr).next_back().is_some_and(|(base, span)| {
            span.kind == RangeKind::Reserved
                && addr.checked_add(bytes).is_some_and(|end| end <= base + span.bytes)
        });
        if inside && (addr | bytes).is_multiple_of(4096) {
            self.set_live(addr, bytes, live);
        }
        inside
    }

    /// Takes mapped pages away: they are dead, and fresh anonymous pages take their place.
    pub fn unmap(&self, addr: u64, bytes: u64) -> bool {
        if !self.set_access(addr, bytes, false) {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: MAP_FIXED replaces pages of the range that this value owns, inside a reservation. They stay
        // accessible so that a kernel still running there does not fault the process.
        let at = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(to_usize(addr)),
                to_usize(bytes),
                protection,
                flags,
                -1,
                0,
            )
        };
        at != libc::MAP_FAILED
    }

    /// Counts physical memory made elsewhere against the capacity; false when it does not fit.
    pub fn charge_physical(&self, bytes: u64) -> bool {
        self.charge(bytes)
    }

    /// Takes back what [`Memory::charge_physical`] counted.
    pub fn release_physical(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets kernels access a host range at its own address. False for an empty range or one that overlaps another.
    pub fn register_host(&self, ptr: u64, bytes: u64) -> bool {
        let Some(end) = ptr.checked_add(bytes).filter(|_| ptr != 0 && bytes != 0) else { return false };
        let mut state = self.state();
        let before = state.host.range(..end).next_back();
        if before.is_some_and(|(base, size)| base + size > ptr) {
            return false;
        }
        state.host.insert(ptr, bytes);
        self.publish(&mut state);
        true
    }

    /// Ends [`Memory::register_host`]; false when `ptr` is not the start of a registered range.
    pub fn unregister_host(&self, ptr: u64) -> bool {
        let mut state = self.state();
        let found = state.host.remove(&ptr).is_some();
        if found {
            self.publish(&mut state);
        }
        found
    }

    fn publish(&self, state: &mut State) {
        state.view =
            state.host.iter().map(|(base, bytes)| HostRange { base: *base, bytes: *bytes }).collect();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The live range or reservation an address lies in: base, length in bytes as asked for, and kind.
    pub fn range_of(&self, addr: u64) -> Option<(u64, u64, RangeKind)> {
        let state = self.state();
        let within = |base: u64, bytes: u64| addr - base < bytes;
        if let Some((base, span)) = state.spans.range(..=addr).next_back()
            && within(*base, span.bytes)
        {
            return Some((*base, span.bytes, span.kind));
        }
        let (base, bytes) = state.host.range((Bound::Unbounded, Bound::Included(addr))).next_back()?;
        within(*base, *bytes).then_some((*base, *bytes, RangeKind::Host))
    }

    /// Whether the address is in the reserved range, live or not.
    pub fn owns(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.base) < self.reserved
    }

    /// Checks an access of `bytes` (1 or more) and returns where it is. The hot path of loads and stores.
    ///
    /// # Errors
    /// [`AccessError`] when a byte of it is not live.
    #[inline]
    pub fn check(&self, view: &mut HostView, addr: u64, bytes: u64) -> Result<*mut u8, AccessError> {
        let offset = addr.wrapping_sub(self.base);
        if offset < self.reserved {
            let live = u64::from(self.entry((offset / CHUNK) as usize).load(Ordering::Relaxed));
            let end = offset % CHUNK + bytes;
            if end <= live {
                return Ok(std::ptr::with_exposed_provenance_mut(addr as usize));
            }
            return self.check_long(addr, bytes);
        }
        self.check_host(view, addr, bytes)
    }

    /// An access that spans chunks: every chunk but the last is full.
    #[cold]
    #[inline(never)]
    fn check_long(&self, addr: u64, bytes: u64) -> Result<*mut u8, AccessError> {
        let mut offset = addr - self.base;
        let end = offset.checked_add(bytes).ok_or(AccessError { address: addr })?;
        if end > self.reserved {
            return Err(AccessError { address: self.base + self.reserved });
        }
        while offset < end {
            let live = u64::from(self.entry(to_usize(offset / CHUNK)).load(Ordering::Relaxed));
            let chunk = offset / CHUNK * CHUNK;
            if chunk + live < end.min(chunk + CHUNK) {
                return Err(AccessError { address: self.base + (chunk + live).max(offset) });
            }
            offset = chunk + CHUNK;
        }
        Ok(std::ptr::with_exposed_provenance_mut(to_usize(addr)))
    }

    #[inline(never)]
    fn check_host(&self, view: &mut HostView, addr: u64, bytes: u64) -> Result<*mut u8, AccessError> {
        let generation = self.generation.load(Ordering::Acquire);
        if view.generation != generation {
            let state = self.state();
            view.ranges = Arc::clone(&state.view);
            view.generation = self.generation.load(Ordering::Acquire);
        }
        let after = view.ranges.partition_point(|range| range.base <= addr);
        let range = after.checked_sub(1).map(|index| view.ranges[index]);
        match range {
            Some(range) if addr - range.base < range.bytes && bytes <= range.bytes - (addr - range.base) => {
                Ok(std::ptr::with_exposed_provenance_mut(to_usize(addr)))
            }
            _ => Err(AccessError { address: addr }),
        }
    }

    /// Checks an access outside a kernel.
    fn locate(&self, addr: u64, bytes: u64) -> Result<*mut u8, AccessError> {
        self.check(&mut HostView::default(), addr, bytes)
    }

    /// Copies live memory out.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied then.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), AccessError> {
        if out.is_empty() {
            return Ok(());
        }
        let from = self.locate(addr, out.len() as u64)?;
        // SAFETY: the range is live, hence mapped; `out` is host memory of the caller, distinct from it unless the
        // caller registered it, for which `copy` (memmove) is right too.
        unsafe { std::ptr::copy(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies into live memory.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied then.
    pub fn write(&self, addr: u64, data: &[u8]) -> Result<(), AccessError> {
        if data.is_empty() {
            return Ok(());
        }
        let to = self.locate(addr, data.len() as u64)?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy(data.as_ptr(), to, data.len()) };
        Ok(())
    }

    /// Copies between live ranges, which may overlap.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied then.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), AccessError> {
        if bytes == 0 {
            return Ok(());
        }
        let source = self.locate(from, bytes)?;
        let target = self.locate(to, bytes)?;
        // SAFETY: both ranges are live, hence mapped.
        unsafe { std::ptr::copy(source, target, to_usize(bytes)) };
        Ok(())
    }

    /// Fills live memory with copies of `pattern` (1, 2 or 4 bytes for memsets; any length works).
    ///
    /// # Errors
    /// [`AccessError`]; nothing is written then.
    pub fn fill(&self, addr: u64, pattern: &[u8], count: u64) -> Result<(), AccessError> {
        let Some(bytes) = count.checked_mul(pattern.len() as u64) else {
            return Err(AccessError { address: addr });
        };
        if bytes == 0 {
            return Ok(());
        }
        let to = self.locate(addr, bytes)?;
        if let [byte] = pattern {
            // SAFETY: the range is live, hence mapped.
            unsafe { std::ptr::write_bytes(to, *byte, to_usize(bytes)) };
            return Ok(());
        }
        for index in 0..to_usize(count) {
            // SAFETY: `index * pattern.len()` stays below `bytes`.
            unsafe {
                std::ptr::copy_nonoverlapping(pattern.as_ptr(), to.add(index * pattern.len()), pattern.len());
            }
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let entries = to_usize(self.reserved / CHUNK) * size_of::<AtomicU16>();
        // SAFETY: both mappings were made by `new` and belong to this value alone.
        unsafe {
            libc::munmap(self.table.as_ptr().cast(), entries);
            libc::munmap(std::ptr::with_exposed_provenance_mut(to_usize(self.base)), to_usize(self.reserved));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alloc_is_aligned_bounded_and_counted() {
        let memory = Memory::new(1 << 20).unwrap();
        let a = memory.alloc(100).unwrap();
        let b = memory.alloc(1000).unwrap();
        assert!(a.is_multiple_of(256) && b.is_multiple_of(256) && b >= a + 512);
        assert_eq!(memory.used(), 256 + 1024);
        assert!(memory.alloc(1 << 20).is_none());
        assert!(memory.alloc(0).is_none());
        assert!(memory.alloc(u64::MAX).is_none());
        assert!(memory.free(a) && !memory.free(a) && !memory.free(b + 4));
        assert_eq!(memory.range_of(b + 999), Some((b, 1000, RangeKind::Device)));
        assert_eq!(memory.range_of(b + 1000), None);
    }

    #[test]
    fn access_is_exact_to_the_byte() {
        let memory = Memory::new(1 << 20).unwrap();
        let a = memory.alloc(1001).unwrap();
        memory.write(a, &[7; 1001]).unwrap();
        let mut out = [0; 1001];
        memory.read(a, &mut out).unwrap();
        assert_eq!(out, [7; 1001]);
        assert_eq!(memory.read(a, &mut [0; 1002]), Err(AccessError { address: a + 1001 }));
        assert_eq!(memory.read(a - 1, &mut [0; 1]), Err(AccessError { address: a - 1 }));
        assert!(memory.write(a + 998, &[0; 4]).is_err());
        memory.free(a);
        assert_eq!(memory.write(a, &[1]), Err(AccessError { address: a }));
        assert!(memory.read(0x1234, &mut [0]).is_err());
    }

    #[test]
    fn freed_addresses_join_and_are_used_again() {
        let memory = Memory::new(1 << 20).unwrap();
        let all: Vec<u64> = (0..64).map(|_| memory.alloc(4096).unwrap()).collect();
        for addr in all.iter().rev() {
            assert!(memory.free(*addr));
        }
        assert_eq!(memory.used(), 0);
        assert_eq!(memory.alloc(1 << 20), Some(all[0]));
    }

    #[test]
    fn host_ranges_come_and_go() {
        let memory = Memory::new(1 << 20).unwrap();
        let host = [1u8; 100];
        let addr = host.as_ptr().expose_provenance() as u64;
        let mut view = HostView::default();
        assert!(memory.check(&mut view, addr, 4).is_err());
        assert!(memory.register_host(addr, 100));
        assert!(!memory.register_host(addr + 50, 100));
        assert!(memory.check(&mut view, addr + 96, 4).is_ok());
        assert!(memory.check(&mut view, addr + 97, 4).is_err());
        assert_eq!(memory.range_of(addr + 5), Some((addr, 100, RangeKind::Host)));
        assert!(memory.unregister_host(addr));
        assert!(memory.check(&mut view, addr, 4).is_err());
    }

    #[test]
    fn fill_writes_patterns() {
        let memory = Memory::new(1 << 20).unwrap();
        let a = memory.alloc(16).unwrap();
        memory.fill(a, &[1, 2, 3, 4], 4).unwrap();
        let mut out = [0; 16];
        memory.read(a, &mut out).unwrap();
        assert_eq!(out[12..], [1, 2, 3, 4]);
        assert!(memory.fill(a, &[0], 17).is_err());
        assert!(memory.fill(a, &[0, 1], u64::MAX).is_err());
    }

    #[test]
    fn reserved_addresses_are_dead_until_mapped() {
        let memory = Memory::new(4 << 20).unwrap();
        // SAFETY: plain system calls on a new descriptor.
        let fd = unsafe {
            let fd = libc::memfd_create(c"test".as_ptr(), 0);
            assert_eq!(libc::ftruncate(fd, 8192), 0);
            fd
        };
        let a = memory.reserve(2 << 20, 2 << 20, 0).unwrap();
        assert!(a.is_multiple_of(2 << 20));
        assert!(memory.write(a, &[1]).is_err());
        memory.map_file(a, 8192, fd, 0).unwrap();
        assert!(memory.write(a, &[1]).is_err());
        assert!(memory.set_access(a, 8192, true));
        // The same physical pages a second time.
        memory.map_file(a + 8192, 8192, fd, 0).unwrap();
        assert!(memory.set_access(a + 8192, 8192, true));
        memory.write(a + 5, &[42]).unwrap();
        let mut out = [0];
        memory.read(a + 8192 + 5, &mut out).unwrap();
        assert_eq!(out, [42]);
        assert!(memory.unmap(a, 8192));
        assert!(memory.read(a, &mut out).is_err());
        assert!(memory.map_file(a + (2 << 20), 4096, fd, 0).is_err());
        assert!(memory.release(a) && !memory.release(a));
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(fd) };
    }
}
