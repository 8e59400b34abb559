//! Where an image's bytes come from: this process's memory, without a known end, or a slice.
//!
//! The parsers above read through [`Source`] only, by offset, so that they are the same for both and cannot read
//! outside either. Offsets and lengths are the image's own allegations until a read at them succeeds.

use super::{ImageError, MAX_LEN, Span};

/// Bytes that can be read by offset.
pub(super) trait Source {
    /// Fills the buffer from the offset on, or fails.
    fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), ImageError>;

    /// The length of the text at the start, with the NUL byte that ends it.
    fn text_len(&self) -> Result<usize, ImageError>;

    fn u16(&self, offset: usize) -> Result<u16, ImageError> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&self, offset: usize) -> Result<u32, ImageError> {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&self, offset: usize) -> Result<u64, ImageError> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Source for &[u8] {
    fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), ImageError> {
        let end = offset.saturating_add(buffer.len());
        let bytes =
            self.get(offset..end).ok_or(ImageError::Truncated { needed: end, available: self.len() })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn text_len(&self) -> Result<usize, ImageError> {
        let nul = self.iter().position(|byte| *byte == 0);
        nul.map(|at| at + 1).ok_or_else(|| ImageError::Truncated {
            needed: self.len().saturating_add(1),
            available: self.len(),
        })
    }
}

/// Memory of this process from an address on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    start: *const u8,
}

impl Memory {
    pub(super) fn at(start: *const u8) -> Result<Self, ImageError> {
        if start.is_null() { Err(ImageError::Null) } else { Ok(Self { start }) }
    }

    /// The span of that many bytes, after a look at whether its last byte can be read.
    pub(super) fn span(&self, len: usize) -> Result<Span, ImageError> {
        if let Some(last) = len.checked_sub(1) {
            self.read(last, &mut [0])?;
        }
        Ok(Span { pointer: self.start, len })
    }

    fn unreadable(&self, offset: usize, len: usize) -> ImageError {
        ImageError::Unreadable { address: self.start.addr().wrapping_add(offset), len }
    }
}

impl Source for Memory {
    /// Copies with `process_vm_readv` on this very process, which answers EFAULT where a load would fault.
    fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), ImageError> {
        if self.start.addr().checked_add(offset).and_then(|from| from.checked_add(buffer.len())).is_none() {
            return Err(self.unreadable(offset, buffer.len()));
        }
        let from = self.start.wrapping_add(offset);
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let remote = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: buffer.len() };
        // SAFETY: has no preconditions.
        let process = unsafe { libc::getpid() };
        // SAFETY: `local` is the caller's buffer, writable for its length; `remote` is only read, by the kernel, which
        // checks every page of it.
        let copied = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
        if usize::try_from(copied) == Ok(buffer.len()) {
            return Ok(());
        }
        // A sandbox may forbid the call. Then the promise of `inspect`'s caller, that the image is complete, has to do.
        let error = std::io::Error::last_os_error().raw_os_error();
        if copied < 0 && matches!(error, Some(libc::EPERM | libc::ENOSYS | libc::EACCES)) {
            // SAFETY: `inspect`'s caller promises a complete image, and the offset was derived from its headers.
            unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) };
            return Ok(());
        }
        Err(self.unreadable(offset, buffer.len()))
    }

    /// Looks for the NUL byte in chunks that end at page boundaries, so that a text at the end of a mapping is read
    /// no further than its last page.
    fn text_len(&self) -> Result<usize, ImageError> {
        const CHUNK: usize = 4096;
        let mut chunk = [0; CHUNK];
        let mut len = 0;
        while len as u64 <= MAX_LEN {
            let to_boundary = CHUNK - self.start.addr().wrapping_add(len) % CHUNK;
            let part = &mut chunk[..to_boundary];
            self.read(len, part)?;
            if let Some(nul) = part.iter().position(|byte| *byte == 0) {
                return Ok(len + nul + 1);
            }
            len += to_boundary;
        }
        Err(ImageError::TooLong(len as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::{ImageError, Memory, Source};

    /// Two pages of which the second cannot be read.
    struct Edge {
        start: *mut u8,
    }

    impl Edge {
        const PAGE: usize = 4096;

        fn new() -> Self {
            // SAFETY: asks for new memory, wherever there is some.
            let start = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    2 * Self::PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(start, libc::MAP_FAILED);
            // SAFETY: the second page of the mapping made above.
            let result = unsafe { libc::mprotect(start.byte_add(Self::PAGE), Self::PAGE, libc::PROT_NONE) };
            assert_eq!(result, 0);
            Self { start: start.cast() }
        }

        /// Puts the bytes against the edge.
        fn with(bytes: &[u8]) -> (Self, *const u8) {
            let edge = Self::new();
            let at = edge.start.wrapping_add(Self::PAGE - bytes.len());
            // SAFETY: within the first page of the mapping.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
            (edge, at)
        }
    }

    impl Drop for Edge {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `new`, which nothing else refers to.
            unsafe { libc::munmap(self.start.cast(), 2 * Self::PAGE) };
        }
    }

    #[test]
    fn reads_up_to_the_edge_of_a_mapping_and_not_beyond() {
        let (_edge, at) = Edge::with(&[1, 2, 3, 4]);
        let memory = Memory::at(at).unwrap();
        assert_eq!(memory.u32(0), Ok(0x0403_0201));
        assert_eq!(memory.u64(0), Err(ImageError::Unreadable { address: at.addr(), len: 8 }));
        assert_eq!(memory.span(4).unwrap().len, 4);
        assert!(memory.span(5).is_err());
    }

    #[test]
    fn text_at_the_edge_of_a_mapping_is_measured() {
        let (_edge, at) = Edge::with(b".version 9.0\0");
        assert_eq!(Memory::at(at).unwrap().text_len(), Ok(13));
        let (_edge, at) = Edge::with(b".version 9.0");
        assert!(matches!(Memory::at(at).unwrap().text_len(), Err(ImageError::Unreadable { .. })));
    }

    #[test]
    fn offsets_that_wrap_around_are_refused() {
        let (_edge, at) = Edge::with(&[0; 8]);
        let memory = Memory::at(at).unwrap();
        assert!(memory.u32(usize::MAX - 1).is_err());
        assert!((&[0u8; 8][..]).u32(usize::MAX - 1).is_err());
    }

    #[test]
    fn slices_end_where_they_end() {
        let slice: &[u8] = &[1, 0, 0, 0];
        assert_eq!(slice.u32(0), Ok(1));
        assert_eq!(slice.u16(3), Err(ImageError::Truncated { needed: 5, available: 4 }));
        assert_eq!((&b"ab\0c"[..]).text_len(), Ok(3));
        assert!((&b"abc"[..]).text_len().is_err());
    }
}
