//! Memory of atomics that the daemon shares with its workers: a memfd, sealed against resizing (a worker that cut it would
//! else kill the daemon with SIGBUS), mapped by both sides. All zero at first.

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What may lie in a page.
///
/// # Safety
/// The type is `repr(C)` and consists of atomics of 32 or 64 bits and nothing else, so that any bytes are a value of it and
/// another process may change it at any time.
pub unsafe trait Shared: Sync + 'static {
    /// The name of its memfd, for those who look at `/proc/*/maps`.
    const NAME: &'static CStr;
}

/// This process's mapping of a page; unmapped when it goes.
#[derive(Debug)]
pub struct Page<T: Shared> {
    address: *const T,
    of: PhantomData<T>,
}

// SAFETY: the page holds nothing but atomics.
unsafe impl<T: Shared> Send for Page<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Page<T> {}

impl<T: Shared> Page<T> {
    /// A new page and the descriptor to give to a worker (closed on exec unless that is undone).
    ///
    /// # Errors
    /// The operating system's.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(T::NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = libc::off_t::try_from(size_of::<T>()).expect("the page is small");
        // SAFETY: plain calls on our descriptor.
        let result = unsafe { libc::ftruncate(fd.as_raw_fd(), size) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: as above.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((Self::map(&fd)?, fd))
    }

    /// Maps a page that another process made.
    ///
    /// # Errors
    /// The operating system's; `InvalidData` where the descriptor is of another size.
    pub fn map(fd: &OwnedFd) -> io::Result<Self> {
        // SAFETY: an all-zero stat is valid, and the call fills it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and the buffer is a `stat`.
        if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if usize::try_from(stat.st_size) != Ok(size_of::<T>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared page has another size"));
        }
        // SAFETY: a fresh shared mapping of a descriptor of exactly that size; the address is the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: address.cast(), of: PhantomData })
    }

    /// The page for as long as the process lives.
    #[must_use]
    pub fn leak(self) -> &'static T {
        let address = self.address;
        #[expect(clippy::mem_forget, reason = "the mapping stays for the life of the process")]
        std::mem::forget(self);
        // SAFETY: the mapping is never unmapped, since the page was not dropped.
        unsafe { &*address }
    }
}

impl<T: Shared> std::ops::Deref for Page<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for as long as `self` lives, page-aligned, sealed against shrinking, and all-zero bytes as
        // well as any others are valid atomics (`Shared`).
        unsafe { &*self.address }
    }
}

impl<T: Shared> Drop for Page<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.address.cast_mut().cast(), size_of::<T>()) };
    }
}
