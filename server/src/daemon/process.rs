//! Worker processes: how one is started, and what the daemon holds of it.
//!
//! A worker dies with the daemon (the kernel's parent-death signal, which goes by the *thread* that started it: the
//! pool's thread starts all of them and lives as long as the daemon), inherits nothing but its control socket, its
//! stats page and stderr, and is in a process group of its own, so that a Ctrl-C at the daemon does not reach it.

use super::system;
use crate::config::{Log, LogFormat};
use crate::handoff::{self, Assign, HandoffError, ToWorker};
use crate::stats::Page;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// How long a message to or from a worker may take once it has begun: they are small, and the worker is there.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// What every worker is started with.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The program; this very binary unless a test has another.
    pub(super) program: PathBuf,
    /// `CUDA_VISIBLE_DEVICES` of a worker that sees all of the server's devices.
    pub(super) devices: Option<String>,
    /// The log.
    pub(super) log: Log,
}

/// What the daemon holds of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Process id.
    pub(super) pid: u32,
    /// Which devices it sees.
    pub(super) visible: Visible,
    /// Bytes of device memory that it held before it had a session, as NVML says; 0 where it does not.
    pub(super) overhead: AtomicU64,
    /// Its counters.
    pub(super) stats: Page,
    /// What it is doing, as the daemon sees it. Changes forwards only.
    pub(super) phase: Mutex<Phase>,
    process: OwnedFd,
    control: UnixStream,
}

/// Which devices a worker sees: what `CUDA_VISIBLE_DEVICES` tells it, or all of the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Visible(pub(super) Option<Arc<str>>);

impl Visible {
    /// All of the server's.
    pub(super) const ALL: Self = Self(None);
}

impl std::fmt::Display for Visible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("all"))
    }
}

/// A worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It opens the driver.
    Starting,
    /// It waits for a session.
    Warm,
    /// It serves this session.
    Assigned(u64),
    /// It is dead.
    Gone,
}

impl Worker {
    /// Starts one. To be called from a thread that lives as long as the daemon.
    pub(super) fn start(launch: &Launch, driver: &Path, visible: Visible) -> io::Result<(Self, Child)> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
        control.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
        let (stats, page) = Page::create()?;
        let kept = [theirs.as_raw_fd(), page.as_raw_fd()];
        let daemon = std::process::id();
        let mut command = Command::new(&launch.program);
        command
            .arg0("pxos-server")
            .arg("worker")
            .arg("--control-fd")
            .arg(kept[0].to_string())
            .arg("--stats-fd")
            .arg(kept[1].to_string())
            .arg("--driver")
            .arg(driver)
            .arg("--log-level")
            .arg(launch.log.level.to_string().to_lowercase())
            .arg("--log-format")
            .arg(if launch.log.format == LogFormat::Json { "json" } else { "text" })
            // A shim that is preloaded into the daemon would send the worker's calls back to the daemon.
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        if let Some(devices) = visible.0.as_deref().or(launch.devices.as_deref()) {
            command.env("CUDA_VISIBLE_DEVICES", devices);
        }
        // SAFETY: between fork and exec the closure makes system calls only; it touches no lock and no memory but its own.
        unsafe { command.pre_exec(move || prepare(daemon, kept)) };
        let mut child = command.spawn()?;
        match system::open_process(child.id()) {
            Ok(process) => {
                let phase = Mutex::new(Phase::Starting);
                let overhead = AtomicU64::new(0);
                Ok((Self { pid: child.id(), visible, overhead, stats, phase, process, control }, child))
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Readable once the worker is dead.
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// What it says.
    pub(super) fn control(&self) -> &UnixStream {
        &self.control
    }

    /// Hands it a session: the page and the bell of its gate, the bell and the page of its VM's quota, the guest's connection, whose descriptor the caller
    /// closes afterwards, and behind that the memory of its VM where it has a slot there.
    pub(super) fn assign(
        &self,
        assign: Assign,
        gate: [BorrowedFd<'_>; 2],
        quota: [BorrowedFd<'_>; 2],
        connection: BorrowedFd<'_>,
        memory: Option<BorrowedFd<'_>>,
    ) -> Result<(), HandoffError> {
        let beside: Vec<_> =
            [gate[0], gate[1], quota[0], quota[1], connection].into_iter().chain(memory).collect();
        handoff::send(&self.control, &ToWorker::Assign(assign), &beside)
    }

    /// Asks it to end: its control socket closes. Whoever watches it kills it if it does not.
    pub(super) fn dismiss(&self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    /// Kills it.
    pub(super) fn kill(&self) {
        system::kill(&self.process);
    }
}

/// In the child, before exec.
fn prepare(daemon: u32, kept: [i32; 2]) -> io::Result<()> {
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The daemon may have died before that line.
    // SAFETY: no arguments.
    if u32::try_from(unsafe { libc::getppid() }) != Ok(daemon) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // Everything of ours is closed on exec anyway; this is for what somebody left open in the daemon. Kernels before
    // 5.11 do not know the flag, which is no reason not to start.
    // SAFETY: plain numbers; descriptors are only marked.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for fd in kept {
        // SAFETY: plain numbers; the descriptor is open, and unmarked in this process only.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
