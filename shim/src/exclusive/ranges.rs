//! The ranges of managed memory, and which of them the host has no rights to.

use super::{PAGE, pointer};
use std::collections::BTreeMap;

/// Ranges by their first address, in whole pages.
#[derive(Debug)]
pub(super) struct Ranges(BTreeMap<u64, Range>);

#[derive(Debug)]
struct Range {
    bytes: u64,
    /// Whether the host has no rights to it.
    taken: bool,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Managed memory that the host has no rights to.
    Taken,
    /// Managed memory that it may use.
    Open,
    /// No managed memory.
    Elsewhere,
}

impl Ranges {
    /// None.
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a range, which the host may use until the next [`Self::take`].
    pub(super) fn add(&mut self, base: u64, bytes: u64) {
        self.0.insert(base, Range { bytes: bytes.next_multiple_of(PAGE), taken: false });
    }

    /// Forgets a range, to which the host has its rights from now on; whether it was known.
    pub(super) fn remove(&mut self, base: u64) -> bool {
        let Some(range) = self.0.remove(&base) else { return false };
        if range.taken {
            protect(base, range.bytes, libc::PROT_READ | libc::PROT_WRITE);
        }
        true
    }

    /// What an address belongs to.
    pub(super) fn place(&self, address: u64) -> Place {
        match self.0.range(..=address).next_back() {
            Some((base, range)) if address - base < range.bytes => {
                if range.taken {
                    Place::Taken
                } else {
                    Place::Open
                }
            }
            _ => Place::Elsewhere,
        }
    }

    /// Takes the host's rights to all ranges. A range whose mapping the system cannot split (it bounds their number) stays
    /// open.
    pub(super) fn take(&mut self) {
        self.change(true);
    }

    /// Gives the host its rights to all ranges. Allocates nothing.
    pub(super) fn give_back(&mut self) {
        self.change(false);
    }

    /// Sets the rights to all ranges, with one call for those that lie side by side.
    fn change(&mut self, take: bool) {
        let protection = if take { libc::PROT_NONE } else { libc::PROT_READ | libc::PROT_WRITE };
        let mut next = 0;
        while let Some((base, end)) = self.run(next, take) {
            let done = protect(base, end - base, protection);
            self.0.range_mut(base..end).for_each(|(_, range)| range.taken = take && done);
            next = end;
        }
    }

    /// The first ranges side by side, from `from` on, whose rights are still to be changed: where they begin and end.
    fn run(&self, from: u64, take: bool) -> Option<(u64, u64)> {
        let mut left = self.0.range(from..).filter(|(_, range)| range.taken != take);
        let (base, first) = left.next()?;
        let mut end = base + first.bytes;
        for (next, range) in left {
            if *next != end {
                break;
            }
            end += range.bytes;
        }
        Some((*base, end))
    }
}

/// Sets the rights of this process to a range; whether the system does it.
fn protect(base: u64, bytes: u64, protection: libc::c_int) -> bool {
    let Ok(bytes) = usize::try_from(bytes) else { return false };
    // SAFETY: whole pages of the arena that a managed allocation has, whose mapping stays.
    unsafe { libc::mprotect(pointer(base).cast(), bytes, protection) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of our own, never given back.
    fn pages(count: u64) -> u64 {
        let bytes = usize::try_from(count * PAGE).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at.expose_provenance() as u64
    }

    /// Whether this process may write to a page, as the kernel sees it.
    fn is_open(address: u64) -> bool {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors, which are closed; the kernel looks at the address itself.
        unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            assert_eq!(libc::write(pipe[1], [0_u8].as_ptr().cast(), 1), 1);
            let read = libc::read(pipe[0], pointer(address).cast(), 1);
            pipe.iter().for_each(|end| assert_eq!(libc::close(*end), 0));
            read == 1
        }
    }

    #[test]
    fn rights_are_taken_from_managed_memory_only() {
        let base = pages(6);
        let at = |page: u64| base + page * PAGE;
        let mut ranges = Ranges::new();
        // Two side by side, one apart, and a page of somebody else's between.
        ranges.add(at(0), 2 * PAGE);
        ranges.add(at(2), 100);
        ranges.add(at(4), PAGE);
        ranges.take();
        let open: Vec<bool> = (0..6).map(|page| is_open(at(page))).collect();
        assert_eq!(open, [false, false, false, true, false, true]);
        assert_eq!(ranges.place(at(3) - 1), Place::Taken);
        assert_eq!(ranges.place(at(3)), Place::Elsewhere);
        // What is allocated meanwhile is open until rights are taken again.
        ranges.add(at(5), PAGE);
        assert_eq!(ranges.place(at(5)), Place::Open);
        ranges.take();
        assert!(!is_open(at(5)));
        // What is freed is open at once.
        assert!(ranges.remove(at(2)) && !ranges.remove(at(2)));
        assert!(is_open(at(2)) && !is_open(at(1)));
        ranges.give_back();
        assert!((0..6).all(|page| is_open(at(page))));
        assert_eq!(ranges.place(at(0)), Place::Open);
    }

    #[test]
    fn a_range_that_cannot_be_closed_stays_open() {
        let mut ranges = Ranges::new();
        // No mapping at all.
        ranges.add(0x2fff_2000_0000, PAGE);
        ranges.take();
        assert_eq!(ranges.place(0x2fff_2000_0000), Place::Open);
    }
}
