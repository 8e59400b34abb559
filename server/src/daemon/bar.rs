//! Memory of VMs' devices ([`pxos_protocol::transport::bar`]): a file for each VM, cut into slots, one for each session at a time.
//!
//! The file is opened when the VM's first guest process comes, so that it does not matter whether VMM or server was there
//! first; a file that was made anew is opened anew. What was in a slot is cleared before its next owner gets it and when its
//! owner's worker is gone.

use crate::config::SharedFile;
use crate::handoff::Memory;
use parking_lot::Mutex;
use pxos_protocol::transport::bar::{Partition, write_header};
use pxos_protocol::transport::ring::SharedMemory;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// All VMs' memory.
#[derive(Debug, Default)]
pub(super) struct Bars {
    vms: Mutex<HashMap<String, Arc<Bar>>>,
}

/// One file.
#[derive(Debug)]
struct Bar {
    fd: OwnedFd,
    /// Device and number of the file, and its size.
    file: (u64, u64, u64),
    id: [u64; 2],
    cut: Partition,
    taken: Mutex<Vec<bool>>,
}

/// A slot that a session has; cleared and free again when this goes.
#[derive(Debug)]
pub(super) struct Slot {
    bar: Arc<Bar>,
    number: u64,
}

/// Why there is no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSlot {
    /// Other sessions have them.
    #[error("all {0} slots of its VM's shared memory are taken")]
    Taken(usize),
    /// The file cannot be used.
    #[error("{0}: {1}")]
    File(String, String),
}

impl Bars {
    /// A slot of a VM's memory, cleared.
    pub(super) fn take(&self, shared: &SharedFile) -> Result<Slot, NoSlot> {
        let file = |error: String| NoSlot::File(shared.path.display().to_string(), error);
        let bar = self.open(shared).map_err(file)?;
        let mut taken = bar.taken.lock();
        let free = taken.iter().position(|taken| !taken);
        let index = free.ok_or(NoSlot::Taken(taken.len()))?;
        let number = index as u64;
        bar.clear(number).map_err(|error| file(error.to_string()))?;
        taken[index] = true;
        drop(taken);
        Ok(Slot { bar, number })
    }

    fn open(&self, shared: &SharedFile) -> Result<Arc<Bar>, String> {
        let told = |error: io::Error| error.to_string();
        let file = File::options().read(true).write(true).open(&shared.path).map_err(told)?;
        let found = file.metadata().map_err(told)?;
        if !found.is_file() {
            return Err("it is no file".into());
        }
        let file_id = (found.dev(), found.ino(), found.len());
        let cut = Partition::new(found.len(), shared.slots)?;
        let mut vms = self.vms.lock();
        let same_file = |bar: &Bar| (bar.file.0, bar.file.1) == (file_id.0, file_id.1);
        if let Some((other, _)) = vms.iter().find(|(vm, bar)| **vm != shared.vm && same_file(bar)) {
            return Err(format!("it is the memory of VM '{other}'"));
        }
        if let Some(bar) = vms.get(&shared.vm).filter(|bar| bar.file == file_id) {
            // Slots are not moved under those who have them.
            if bar.cut == cut || bar.taken.lock().contains(&true) {
                return Ok(Arc::clone(bar));
            }
        }
        let fd = OwnedFd::from(file);
        let id = random().map_err(told)?;
        write_header(&fd, id).map_err(told)?;
        let slots = usize::try_from(cut.slots).expect("few");
        let bar = Arc::new(Bar { fd, file: file_id, id, cut, taken: Mutex::new(vec![false; slots]) });
        vms.insert(shared.vm.clone(), Arc::clone(&bar));
        Ok(bar)
    }
}

impl Bar {
    /// Makes a slot all zero: its pages go back to the system, and are zero when they come again.
    fn clear(&self, slot: u64) -> io::Result<()> {
        let number = |value: u64| libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        let (base, length) = (number(self.cut.base(slot))?, number(self.cut.length)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain numbers and a descriptor of ours.
        if unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, base, length) } == 0 {
            return Ok(());
        }
        // A file system without holes: written over.
        let memory = SharedMemory::map(&self.fd, self.cut.base(slot), self.cut.length, None)?;
        // SAFETY: the mapping's own length. The guest may write meanwhile, to its own harm.
        unsafe { std::ptr::write_bytes(memory.address(), 0, memory.size()) };
        Ok(())
    }
}

impl Slot {
    /// For the worker.
    pub(super) fn memory(&self) -> Memory {
        let Bar { id, cut, .. } = &*self.bar;
        Memory::Slot { id: *id, slot: self.number, base: cut.base(self.number), length: cut.length }
    }

    /// The file.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bar.fd.as_fd()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // It is cleared again before it is given to anybody; a failure is told then.
        let _ = self.bar.clear(self.number);
        if let Some(taken) = usize::try_from(self.number).ok().and_then(|index| {
            let mut all = self.bar.taken.lock();
            all.get_mut(index).map(std::mem::take)
        }) {
            debug_assert!(taken, "a slot is freed once");
        }
    }
}

fn random() -> io::Result<[u64; 2]> {
    let mut id = [0_u64; 2];
    // SAFETY: a buffer of sixteen bytes.
    let filled = unsafe { libc::getrandom(id.as_mut_ptr().cast(), 16, 0) };
    if filled == 16 { Ok(id) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn shared(vm: &str, path: &Path) -> SharedFile {
        SharedFile { vm: vm.into(), path: path.into(), slots: Some(2) }
    }

    fn make(path: &Path, size: u64) -> File {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path).unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn slots_are_cleared_between_owners_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red");
        let file = make(&path, 64 << 20);
        let (bars, red) = (Bars::default(), shared("red", &path));
        let first = bars.take(&red).unwrap();
        let second = bars.take(&red).unwrap();
        assert!(bars.take(&red).unwrap_err().to_string().contains("all 2 slots"));
        let Memory::Slot { id, slot, base, length } = first.memory() else { panic!("a slot") };
        let Memory::Slot { id: same, base: other, .. } = second.memory() else { panic!("a slot") };
        assert!(id == same && slot == 0 && other == base + length);
        file.write_all_at(b"secret", base).unwrap();
        file.write_all_at(b"mine", other).unwrap();
        let mut bytes = [1; 6];
        drop(first);
        file.read_exact_at(&mut bytes, base).unwrap();
        assert_eq!(bytes, [0; 6]);
        // Written after its owner is gone, by a process of the guest that still maps it.
        file.write_all_at(b"left", base).unwrap();
        let third = bars.take(&red).unwrap();
        file.read_exact_at(&mut bytes, base).unwrap();
        assert_eq!((bytes, third.number), ([0; 6], 0));
        file.read_exact_at(&mut bytes[..4], other).unwrap();
        assert_eq!(&bytes[..4], b"mine", "another's slot is left alone");
    }

    #[test]
    fn a_file_that_is_not_good_gives_no_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red");
        let bars = Bars::default();
        assert!(bars.take(&shared("red", &path)).unwrap_err().to_string().contains("red: No such file"));
        make(&path, 40 << 20);
        assert!(bars.take(&shared("red", &path)).unwrap_err().to_string().contains("too few"));
        assert!(bars.take(&shared("red", folder.path())).is_err());
        make(&path, (64 << 20) + 17);
        let slot = bars.take(&shared("red", &path)).unwrap();
        assert!(bars.take(&shared("blue", &path)).unwrap_err().to_string().contains("memory of VM 'red'"));
        let link = folder.path().join("blue");
        std::fs::hard_link(&path, &link).unwrap();
        assert!(bars.take(&shared("blue", &link)).unwrap_err().to_string().contains("memory of VM 'red'"));
        drop(slot);
    }

    #[test]
    fn a_file_made_anew_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red");
        make(&path, 64 << 20);
        let (bars, red) = (Bars::default(), shared("red", &path));
        let old = bars.take(&red).unwrap();
        // While a slot is in use, the cut stays.
        let coarse = SharedFile { slots: Some(1), ..red.clone() };
        assert_eq!(bars.take(&coarse).unwrap().number, 1);
        std::fs::remove_file(&path).unwrap();
        make(&path, 64 << 20);
        let new = bars.take(&red).unwrap();
        assert_eq!(new.number, 0);
        assert_ne!(format!("{:?}", old.memory()), format!("{:?}", new.memory()));
        drop((old, new));
        let Memory::Slot { length, .. } = bars.take(&coarse).unwrap().memory() else { panic!("a slot") };
        assert!(length > 32 << 20);
    }
}
