//! What other processes may open: allocations, events and pools, by 64 bytes or a descriptor (CUDA driver API, `cuIpc…` and
//! pools). A handle names a descriptor of the process that shares; it is opened through `/proc`, so that only processes
//! that the system lets look at each other can share, and nothing is left when one ends.

use super::allocation::{self, Allocation, Origin};
use super::context::{Active, CONTEXTS};
use super::platform;
use pxos_protocol::types::{CUdevice, CUresult};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A handle: what it is of, process and descriptor, the file's number, and the part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    what: u64,
    process: u32,
    descriptor: u32,
    inode: u64,
    offset: u64,
    bytes: u64,
}

/// What a handle is of: "memory", "event", "pointer" as numbers that nothing else has.
pub(crate) const MEMORY: u64 = u64::from_le_bytes(*b"pxsoft-m");
/// See [`MEMORY`].
pub(crate) const EVENT: u64 = u64::from_le_bytes(*b"pxsoft-e");
/// See [`MEMORY`].
pub(crate) const POINTER: u64 = u64::from_le_bytes(*b"pxsoft-p");

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;

impl Share {
    /// A share of a part of a file of this process.
    ///
    /// # Errors
    /// `CUDA_ERROR_OPERATING_SYSTEM`.
    pub(crate) fn of(what: u64, file: &OwnedFd, offset: u64, bytes: u64) -> Result<Self, CUresult> {
        Ok(Self {
            what,
            process: std::process::id(),
            descriptor: file.as_raw_fd().cast_unsigned(),
            inode: inode(file)?,
            offset,
            bytes,
        })
    }

    /// As the application passes it on.
    pub(crate) fn bytes(self) -> [u8; 64] {
        let place = u64::from(self.process) << 32 | u64::from(self.descriptor);
        let mut bytes = [0; 64];
        for (to, word) in
            bytes.chunks_exact_mut(8).zip([self.what, place, self.inode, self.offset, self.bytes])
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the application gives, if it is a share of this kind.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE`.
    pub(crate) fn read(bytes: &[u8; 64], what: u64) -> Result<Self, CUresult> {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let [process, descriptor] = [word(1) >> 32, word(1) & u64::from(u32::MAX)];
        let narrow = |number: u64| u32::try_from(number).map_err(|_| INVALID);
        let share = Self {
            what: word(0),
            process: narrow(process)?,
            descriptor: narrow(descriptor)?,
            inode: word(2),
            offset: word(3),
            bytes: word(4),
        };
        let fits = share.bytes > 0 && share.offset.checked_add(share.bytes).is_some();
        if share.what == what && fits { Ok(share) } else { Err(INVALID) }
    }

    /// The file of the process that shares.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` when it is not there, or another one.
    pub(crate) fn open(&self) -> Result<OwnedFd, CUresult> {
        let path = format!("/proc/{}/fd/{}", self.process, self.descriptor);
        let file = File::options().read(true).write(true).open(path).map_err(|_| INVALID)?;
        let file = OwnedFd::from(file);
        self.check(&file)?;
        Ok(file)
    }

    /// Whether a file is the one that is meant, and long enough.
    fn check(&self, file: &OwnedFd) -> Result<(), CUresult> {
        let length = metadata(file)?.len();
        let fits = self.offset.checked_add(self.bytes).is_some_and(|end| end <= length);
        if inode(file)? == self.inode && fits { Ok(()) } else { Err(INVALID) }
    }
}

fn metadata(file: &OwnedFd) -> Result<std::fs::Metadata, CUresult> {
    let system = |_| CUresult::ERROR_OPERATING_SYSTEM;
    File::from(file.try_clone().map_err(system)?).metadata().map_err(system)
}

fn inode(file: &OwnedFd) -> Result<u64, CUresult> {
    Ok(metadata(file)?.ino())
}

/// A share of an allocation.
///
/// # Errors
/// `CUDA_ERROR_OPERATING_SYSTEM`.
pub(crate) fn share(held: &Allocation, what: u64) -> Result<Share, CUresult> {
    let (file, offset) = of_device(held.device, Some(held.base))?;
    Share::of(what, file, offset, held.bytes)
}

/// The file that a device's memory is in.
///
/// # Errors
/// `CUDA_ERROR_OPERATING_SYSTEM`.
pub(crate) fn file_of(ordinal: CUdevice) -> Result<OwnedFd, CUresult> {
    let (file, _) = of_device(ordinal, None)?;
    file.try_clone().map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
}

fn of_device(ordinal: CUdevice, address: Option<u64>) -> Result<(&'static OwnedFd, u64), CUresult> {
    let memory = &platform()?.device(ordinal)?.memory;
    // Nothing may be written while the device's memory moves into a file.
    for context in CONTEXTS.all() {
        if let Some(active) = context.active().filter(|active| active.device.ordinal == ordinal) {
            active.wait();
        }
    }
    memory.share(address).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
}

/// Memory of other processes that is open here, by address: file, offset and how often.
type Opened = HashMap<u64, (u64, u64, u32)>;

static OPENED: LazyLock<Mutex<Opened>> = LazyLock::new(Mutex::default);

fn opened() -> MutexGuard<'static, Opened> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a share of memory; a second time it has the same address.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for what is no share, `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn open(active: &Arc<Active>, bytes: &[u8; 64]) -> Result<u64, CUresult> {
    let share = Share::read(bytes, MEMORY)?;
    let mut opened = opened();
    let same = |(_, (inode, offset, _)): &(&u64, &mut (u64, u64, u32))| {
        (*inode, *offset) == (share.inode, share.offset)
    };
    if let Some((address, (_, _, times))) = opened.iter_mut().find(same) {
        *times += 1;
        return Ok(*address);
    }
    let address = map(active, &share, &share.open()?, false)?;
    opened.insert(address, (share.inode, share.offset, 1));
    Ok(address)
}

/// Opens an allocation of a pool whose file this is.
///
/// # Errors
/// As for [`open`].
pub(crate) fn open_pointer(active: &Arc<Active>, file: &OwnedFd, bytes: &[u8; 64]) -> Result<u64, CUresult> {
    let share = Share::read(bytes, POINTER)?;
    share.check(file)?;
    map(active, &share, file, true)
}

fn map(active: &Arc<Active>, share: &Share, file: &OwnedFd, pooled: bool) -> Result<u64, CUresult> {
    let memory = &active.device.memory;
    let address = memory.open(file, share.offset, share.bytes).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
    let origin = Origin::Opened { pooled };
    allocation::insert(address, share.bytes, origin, active.device.ordinal, active.handle, active.life);
    Ok(address)
}

/// Gives one opening back; true for the last one, after which the allocation is to be released.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for anything that is not open.
pub(crate) fn close(address: u64) -> Result<bool, CUresult> {
    let mut opened = opened();
    let (_, _, times) = opened.get_mut(&address).ok_or(INVALID)?;
    *times -= 1;
    Ok(*times == 0)
}

/// Takes opened memory away, for good.
pub(crate) fn forget(held: &Allocation) {
    opened().remove(&held.base);
    if let Ok(device) = platform().and_then(|platform| platform.device(held.device)) {
        device.memory.close(held.base, held.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::share::anonymous_file;

    #[test]
    fn a_share_is_opened_by_what_it_says_and_by_nothing_else() {
        let file = anonymous_file(8192).unwrap();
        let share = Share::of(MEMORY, &file, 4096, 100).unwrap();
        let bytes = share.bytes();
        assert_eq!(Share::read(&bytes, MEMORY), Ok(share));
        assert_eq!(inode(&share.open().unwrap()), inode(&file));
        assert!(Share::read(&bytes, EVENT).is_err());
        assert!(Share::read(&[0; 64], MEMORY).is_err());
        let other = Share { inode: share.inode ^ 1, ..share };
        let long = Share { bytes: 4097, ..share };
        let wide = Share { offset: u64::MAX, ..share };
        for wrong in [other, long, wide, Share { descriptor: 1 << 30, ..share }] {
            assert!(wrong.open().is_err());
        }
        assert!(Share::read(&wide.bytes(), MEMORY).is_err());
    }
}
