//! Device memory that other processes map: with the first share the whole range moves into an anonymous file, and a share
//! is a part of that file.

use super::{Memory, RangeKind, to_usize};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PAGE: u64 = 4096;

/// Makes an anonymous file of a length, which takes no memory before it is written to.
pub(crate) fn anonymous_file(bytes: u64) -> io::Result<OwnedFd> {
    // SAFETY: the name is a string with a NUL; the descriptor, if it is one, is new and ours.
    let file = unsafe {
        let number = libc::memfd_create(c"pxsoft".as_ptr(), libc::MFD_CLOEXEC);
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(number)
    };
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::ftruncate(file.as_raw_fd(), length) } == 0 {
        Ok(file)
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Memory {
    /// The file that the range is in, and the offset of an address (or 0) in it. The caller has waited for all work on the
    /// device: what is written while the range moves may be lost.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn share(&self, address: Option<u64>) -> io::Result<(&OwnedFd, u64)> {
        let offset = address.map_or(0, |address| address - self.base);
        let state = self.state();
        if let Some(file) = self.file.get() {
            return Ok((file, offset));
        }
        let file = anonymous_file(self.reserved)?;
        for (base, span) in state.spans.iter().filter(|(_, span)| span.kind == RangeKind::Device) {
            let start = base / PAGE * PAGE;
            let end = (base + span.bytes).next_multiple_of(PAGE).min(self.base + self.reserved);
            self.save(&file, start, end)?;
        }
        // Mapped memory keeps what is mapped there.
        let mut at = self.base;
        let kept = state.spans.iter().filter(|(_, span)| span.kind == RangeKind::Reserved);
        let kept: Vec<(u64, u64)> = kept.map(|(base, span)| (*base, base + span.taken)).collect();
        let end = self.base + self.reserved;
        for (start, next) in kept.into_iter().chain([(end, end)]) {
            if start > at && !self.place(&file, at, start) {
                return Err(io::Error::last_os_error());
            }
            at = next;
        }
        Ok((self.file.get_or_init(|| file), offset))
    }

    /// Writes live pages into the file.
    fn save(&self, file: &OwnedFd, mut start: u64, end: u64) -> io::Result<()> {
        while start < end {
            // SAFETY: pages of live spans are readable; the kernel writes nothing here.
            let written = unsafe {
                libc::pwrite(
                    file.as_raw_fd(),
                    std::ptr::with_exposed_provenance(to_usize(start)),
                    to_usize(end - start),
                    libc::off_t::try_from(start - self.base).expect("the file was made with this length"),
                )
            };
            start += u64::try_from(written).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }

    /// Puts pages of the file at their place in the range; false where the system refuses.
    pub(super) fn place(&self, file: &OwnedFd, start: u64, end: u64) -> bool {
        // SAFETY: MAP_FIXED replaces pages of the range that this value owns by the file's, which hold what was there.
        let at = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(to_usize(start)),
                to_usize(end - start),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                libc::off_t::try_from(start - self.base).expect("the file was made with this length"),
            )
        };
        at != libc::MAP_FAILED
    }

    /// Maps a part of another process's range; its address here.
    ///
    /// # Errors
    /// `ENOMEM` without addresses left, else the system's.
    pub(crate) fn open(&self, file: &OwnedFd, offset: u64, bytes: u64) -> io::Result<u64> {
        let (start, length) = pages(offset, bytes);
        let base = self.reserve(length, PAGE, 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        if let Err(error) = self.map_file(base, length, file.as_raw_fd(), start) {
            self.release(base);
            return Err(error);
        }
        self.set_access(base, length, true);
        Ok(base + (offset - start))
    }

    /// Ends [`Memory::open`] of an address and a length.
    pub(crate) fn close(&self, address: u64, bytes: u64) {
        let (start, length) = pages(address, bytes);
        self.unmap(start, length);
        self.release(start);
    }
}

/// The whole pages around a range: first byte and length.
fn pages(start: u64, bytes: u64) -> (u64, u64) {
    let first = start / PAGE * PAGE;
    (first, (start + bytes).next_multiple_of(PAGE) - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_shows_what_was_there_and_what_comes() {
        let [memory, other] = [(); 2].map(|()| Memory::new(1 << 24).unwrap());
        let dropped = memory.alloc(100_000).unwrap();
        let [small, large] = [300, 70_001].map(|bytes| memory.alloc(bytes).unwrap());
        memory.write(small, &[3; 300]).unwrap();
        memory.write(large, &[5; 70_001]).unwrap();
        memory.free(dropped);
        let (file, offset) = memory.share(Some(large)).unwrap();
        let address = other.open(file, offset, 70_001).unwrap();
        let mut seen = vec![0; 70_001];
        other.read(address, &mut seen).unwrap();
        assert!(seen.iter().all(|byte| *byte == 5));
        other.write(address + 70_000, &[6]).unwrap();
        let mut last = [0];
        memory.read(large + 70_000, &mut last).unwrap();
        assert_eq!(last, [6]);
        // Neighbours stay what they were, and what is allocated later can be shared as well, where mapped memory lay too.
        let reserved = memory.reserve(1 << 20, 4096, 0).unwrap();
        memory.release(reserved);
        let late = memory.alloc(2 << 20).unwrap();
        memory.write(late, &[7; 2 << 20]).unwrap();
        let (file, offset) = memory.share(Some(late)).unwrap();
        let opened = other.open(file, offset, 2 << 20).unwrap();
        let mut seen = vec![0; 2 << 20];
        other.read(opened, &mut seen).unwrap();
        assert!(seen.iter().all(|byte| *byte == 7));
        let mut near = [0; 300];
        memory.read(small, &mut near).unwrap();
        assert_eq!(near, [3; 300]);
        other.close(opened, 2 << 20);
        assert!(other.read(opened, &mut [0]).is_err());
        // Freed memory goes back to the system, and reads as zero when it is given out again.
        memory.free(late);
        let again = memory.alloc(2 << 20).unwrap();
        assert_eq!(again, late);
        memory.read(again + 4096, &mut last).unwrap();
        assert_eq!(last, [0]);
    }
}
