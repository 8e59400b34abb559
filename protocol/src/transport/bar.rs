//! Memory that a VM shares with the server beside its socket: the BAR of QEMU's `ivshmem-plain`, a file on the host.
//!
//! The server cuts it into slots of one length, one for each session at a time, behind a header page with a random id; the
//! guest is told id and slot in its WELCOME, and finds the device whose header has the id. The server believes nothing that
//! stands in the file, its own header included: the guest can write all of it. It is memory of the VM as a whole: processes of
//! one guest that may open the device can read each other's slots.

use super::ring::{CONTROL, SharedMemory};
use crate::control::{STAGING_SLOT, SharedLayout};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// First word of the header: "pxOSbar1".
const MAGIC: u64 = u64::from_le_bytes(*b"pxOSbar1");
/// Length of the header page.
const HEADER: u64 = 4096;
/// Slots begin and end at multiples of this, so that huge pages fit.
const STEP: u64 = 2 << 20;
/// Length of each ring of a slot: the least that a ring of frames may have.
const RING: u64 = 8 << 20;
/// Most slots of the staging area within a slot, as on the server's own host.
const MOST_STAGING: u64 = 16;
/// Least length of a slot: rings, two slots of staging, and a little arena.
pub const MIN_SLOT: u64 = 24 << 20;
/// Length of slots where nobody says how many there are: 64 MiB of pinned memory and what goes with it.
const USUAL_SLOT: u64 = 126 << 20;
/// Most slots.
pub const MAX_SLOTS: u64 = 64;

/// QEMU's `ivshmem`, as sysfs writes it.
const VENDOR: &str = "0x1af4";
const DEVICE: &str = "0x1110";
/// The same in `/proc/bus/pci/devices`.
const IN_PROC: &str = "1af41110";

/// How a file of shared memory is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number of slots.
    pub slots: u64,
    /// Bytes of each.
    pub length: u64,
}

impl Partition {
    /// Cuts `size` bytes into `slots`, or into as many of the usual length as fit.
    ///
    /// # Errors
    /// Why it cannot be cut so.
    pub fn new(size: u64, slots: Option<u64>) -> Result<Self, String> {
        let room = size.saturating_sub(STEP);
        let slots = slots.unwrap_or_else(|| (room / USUAL_SLOT).clamp(1, MAX_SLOTS));
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(format!("{slots} slots are not 1 to {MAX_SLOTS}"));
        }
        let length = room / slots / STEP * STEP;
        if length < MIN_SLOT {
            let need = STEP + slots * MIN_SLOT;
            return Err(format!("{size} bytes are too few for {slots} slot(s), which take {need}"));
        }
        Ok(Self { slots, length })
    }

    /// Where a slot begins.
    #[must_use]
    pub fn base(&self, slot: u64) -> u64 {
        STEP + slot * self.length
    }
}

/// What lies where in a slot of `length` bytes at `base`.
#[must_use]
pub fn layout(id: [u64; 2], base: u64, length: u64, arena_address: u64) -> SharedLayout {
    let staging = CONTROL as u64 + 2 * RING;
    let staging_length = (length / 8 / STAGING_SLOT).clamp(2, MOST_STAGING) * STAGING_SLOT;
    let arena = (staging + staging_length).next_multiple_of(STEP);
    SharedLayout {
        bar: Some(id),
        base,
        size: length,
        commands: RING,
        replies: RING,
        staging,
        staging_length,
        arena,
        arena_length: length - arena,
        arena_address,
    }
}

/// Writes the header page of a file of shared memory.
///
/// # Errors
/// The operating system's; `InvalidData` where the file is too short.
pub fn write_header(fd: &OwnedFd, id: [u64; 2]) -> io::Result<()> {
    let page = SharedMemory::map(fd, 0, HEADER, None)?;
    for (at, word) in [MAGIC, id[0], id[1]].into_iter().enumerate() {
        // SAFETY: within the page, and aligned.
        unsafe { page.address().cast::<u64>().add(at).write_volatile(word) };
    }
    Ok(())
}

fn read_header(fd: &OwnedFd) -> io::Result<Option<[u64; 2]>> {
    let page = SharedMemory::map(fd, 0, HEADER, None)?;
    // SAFETY: within the page, and aligned.
    let word = |at: usize| unsafe { page.address().cast::<u64>().add(at).read_volatile() };
    Ok((word(0) == MAGIC).then(|| [word(1), word(2)]))
}

/// Where the kernel lists PCI devices.
const DEVICES: &str = "/sys/bus/pci/devices";

/// Devices of this machine that could be such memory and may be opened by this process.
#[must_use]
pub fn candidates() -> Vec<PathBuf> {
    // One file names all devices; only where one of them fits is it worth to look further.
    if fs::read_to_string("/proc/bus/pci/devices").is_ok_and(|devices| !devices.contains(IN_PROC)) {
        return Vec::new();
    }
    candidates_below(Path::new(DEVICES))
}

/// Devices of this machine that could be such memory, whoever may open them.
#[must_use]
pub fn devices() -> Vec<PathBuf> {
    devices_below(Path::new(DEVICES))
}

fn candidates_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = devices_below(folder);
    found.retain(|path| open(path).is_ok());
    found
}

fn devices_below(folder: &Path) -> Vec<PathBuf> {
    let is = |path: &Path, name: &str, value: &str| {
        fs::read_to_string(path.join(name)).is_ok_and(|text| text.trim() == value)
    };
    let fits = |path: &PathBuf| is(path, "vendor", VENDOR) && is(path, "device", DEVICE);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(fits).map(|path| path.join("resource2")).collect();
    found.sort();
    found
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open(path)?.into())
}

/// The one of `candidates` whose header has this id.
///
/// # Errors
/// `NotFound` where none has.
pub fn find(candidates: &[PathBuf], id: [u64; 2]) -> io::Result<OwnedFd> {
    for path in candidates {
        let Ok(fd) = open(path) else { continue };
        if matches!(read_header(&fd), Ok(Some(found)) if found == id) {
            return Ok(fd);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no device of this VM holds the memory that the server named",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_apart_within_the_file() {
        for (size, slots) in [
            (64 << 20, Some(1)),
            (64 << 20, Some(2)),
            (256 << 20, None),
            (1 << 30, None),
            (1 << 36, Some(64)),
        ] {
            let cut = Partition::new(size, slots).unwrap();
            assert!(slots.is_none_or(|slots| slots == cut.slots));
            for slot in 0..cut.slots {
                let base = cut.base(slot);
                assert!(base.is_multiple_of(STEP) && base + cut.length <= size);
                assert!(slot == 0 || cut.base(slot - 1) + cut.length <= base);
                let layout = layout([1, 2], base, cut.length, 0);
                assert!(layout.staging + layout.staging_length <= layout.arena);
                assert_eq!(layout.arena + layout.arena_length, layout.size);
                assert!(layout.arena_length >= STEP);
            }
        }
        assert_eq!(Partition::new(256 << 20, None).unwrap().slots, 2);
    }

    #[test]
    fn what_is_too_short_is_not_cut() {
        for (size, slots) in [
            (0, None),
            (4096, None),
            (25 << 20, None),
            (64 << 20, Some(3)),
            (1 << 30, Some(0)),
            (1 << 40, Some(65)),
        ] {
            assert!(Partition::new(size, slots).is_err(), "{size} {slots:?}");
        }
    }

    #[test]
    fn the_device_is_found_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        for (name, device, word) in [("a", "0x1110", 1), ("b", "0x1110", 2), ("c", "0x1000", 3)] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("vendor"), "0x1af4\n").unwrap();
            fs::write(path.join("device"), format!("{device}\n")).unwrap();
            fs::write(path.join("resource2"), vec![0; 8192]).unwrap();
            write_header(&open(&path.join("resource2")).unwrap(), [word, 7]).unwrap();
        }
        // Another use of the same kind of device.
        fs::create_dir(folder.path().join("d")).unwrap();
        let found = candidates_below(folder.path());
        assert_eq!(found.len(), 2);
        assert!(find(&found, [2, 7]).is_ok());
        assert_eq!(find(&found, [3, 7]).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(folder.path().join("a/resource2"), "short").unwrap();
        assert!(find(&found, [1, 7]).is_err());
    }
}
