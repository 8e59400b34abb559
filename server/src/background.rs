//! The background, as init scripts want it: who starts the daemon waits until guests are let in, or learns that it failed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the process that was started has to do.
#[derive(Debug)]
pub enum Side {
    /// Wait for the other: whether guests are let in by now.
    Starter(bool),
    /// Be the daemon, and say when guests are let in.
    Daemon(Waiting),
}

/// Somebody who waits for [`Waiting::ready`].
#[derive(Debug)]
pub struct Waiting(File);

/// Leaves the terminal: a session of its own, `/` as folder, no stdin and no stdout. Stderr stays until
/// [`Waiting::ready`], so that what goes wrong at the start is seen.
///
/// # Errors
/// The operating system's.
///
/// # Safety
/// The process has one thread.
pub unsafe fn enter() -> io::Result<Side> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let [mut read, write] = ends.map(|fd| unsafe { File::from(OwnedFd::from_raw_fd(fd)) });
    // SAFETY: the only thread, by this function's contract, so that no lock is held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            // SAFETY: no arguments.
            unsafe { libc::setsid() };
            std::env::set_current_dir("/")?;
            take_place(&File::open("/dev/null")?, 0)?;
            take_place(&File::options().write(true).open("/dev/null")?, 1)?;
            Ok(Side::Daemon(Waiting(write)))
        }
        _ => {
            drop(write);
            // One byte, or the end where the daemon has died.
            Ok(Side::Starter(matches!(read.read(&mut [0]), Ok(1))))
        }
    }
}

impl Waiting {
    /// Guests are let in: who waits may go. Where `silent`, stderr ends here.
    pub fn ready(mut self, silent: bool) {
        if silent && let Ok(null) = File::options().write(true).open("/dev/null") {
            let _ = take_place(&null, 2);
        }
        // Somebody who has gone needs no answer.
        let _ = self.0.write_all(b"r");
    }
}

/// Puts a file in the place of a descriptor.
pub(crate) fn take_place(file: &File, fd: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers, of an open descriptor and of one that is meant to be replaced.
    if unsafe { libc::dup2(file.as_raw_fd(), fd) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A file with this process's id, gone with the value.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, over what a dead server may have left.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(path: &Path) -> io::Result<Self> {
        // Whole or not at all: an init script may read it at any time.
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        std::fs::write(&draft, format!("{}\n", std::process::id()))?;
        std::fs::rename(&draft, path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_names_this_process_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, "99999999\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
