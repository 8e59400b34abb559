//! A directory for each VM, in which the workers of its guest processes share interprocess handles ([`crate::worker`]'s
//! exchange). The daemon makes it, hands its path to each worker of that VM and to no other, and clears away what a session
//! leaves behind.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use tracing::warn;

/// All VMs' directories, below one beside the control socket; none where that could not be made.
#[derive(Debug)]
pub(super) struct Exchange {
    root: Option<PathBuf>,
    vms: Mutex<HashMap<String, PathBuf>>,
}

impl Exchange {
    /// Makes the directory beside `control`; what a daemon before this one left there goes.
    pub(super) fn new(control: &Path) -> Self {
        let mut name = OsString::from(control);
        name.push(".exchange");
        let root = PathBuf::from(name);
        let made = clear(&root).and_then(|()| DirBuilder::new().mode(0o700).create(&root));
        let root = match made {
            Ok(()) => Some(root),
            Err(error) => {
                warn!(path = %root.display(), %error, "guests cannot share memory between processes: no directory for it");
                None
            }
        };
        Self { root, vms: Mutex::default() }
    }

    /// The directory of a VM. Numbered, so that a VM's name is no path.
    pub(super) fn of(&self, vm: &str) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let mut vms = self.vms.lock();
        if let Some(path) = vms.get(vm) {
            return Some(path.clone());
        }
        let path = root.join(vms.len().to_string());
        DirBuilder::new().mode(0o700).create(&path).ok()?;
        vms.insert(vm.to_owned(), path.clone());
        Some(path)
    }

    /// Removes what a session left.
    pub(super) fn end(&self, vm: &str, session: u64) {
        let Some(path) = self.vms.lock().get(vm).cloned() else { return };
        let prefix = format!("{session:x}.");
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Removes everything, at the daemon's end.
    pub(super) fn remove(&self) {
        if let Some(root) = &self.root {
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

/// Removes a directory of ours; anything else there is somebody else's.
fn clear(root: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(root) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // SAFETY: no arguments.
    let ours = found.is_dir() && found.uid() == unsafe { libc::geteuid() };
    if ours { std::fs::remove_dir_all(root) } else { Err(io::ErrorKind::AlreadyExists.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vm_has_its_own_and_sessions_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control.sock");
        let exchange = Exchange::new(&control);
        let (red, blue) = (exchange.of("red").unwrap(), exchange.of("../../blue").unwrap());
        assert_ne!(red, blue);
        assert_eq!(exchange.of("red").unwrap(), red);
        assert!(blue.starts_with(directory.path().join("control.sock.exchange")));
        std::fs::write(red.join("1f.abc"), "").unwrap();
        std::fs::write(red.join("1.abc"), "").unwrap();
        exchange.end("red", 1);
        assert!(red.join("1f.abc").exists() && !red.join("1.abc").exists());
        // The next daemon begins afresh.
        drop(exchange);
        let exchange = Exchange::new(&control);
        assert!(!red.exists());
        exchange.remove();
        assert!(!directory.path().join("control.sock.exchange").exists());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("c");
        std::os::unix::fs::symlink("/", directory.path().join("c.exchange")).unwrap();
        let exchange = Exchange::new(&control);
        assert!(exchange.of("red").is_none());
        assert!(Path::new("/").exists());
    }
}
