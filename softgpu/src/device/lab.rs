//! A model of time, for trying out schedulers without a GPU: kernels and copies occupy the device for as long as the model
//! says, whatever they take to run here, and all processes that share the lab share the device.
//!
//! | variable | meaning |
//! |---|---|
//! | `PXSOFT_BLOCK_US` | a kernel takes this many microseconds per block (a fraction is possible) |
//! | `PXSOFT_KERNEL_US` | and this many by itself |
//! | `PXSOFT_LAUNCH_US` | the call that launches it takes its caller this long, before the kernel is there |
//! | `PXSOFT_MIB_US` | a copy between host and device takes this many microseconds per MiB; each direction has an engine, which takes whole copies, first come, first served |
//! | `PXSOFT_LAB` | the file through which processes share the device; without it each process has its own |
//! | `PXSOFT_SLICE_US` | processes take turns after this much of a kernel, as a driver that slices; 0 (the default is 1000) is first come, first served |
//!
//! The model is a timeline: each slice reserves the next stretch of it with a compare-and-swap in the shared file, and ends
//! when the clock has come to its end. A sleeper is late by what the machine makes it; up to [`LATE`] of that is taken back from
//! the next slice of the same stream, so that a busy device is busy, and an idle one is idle.

use super::kernel::Shape;
use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most lateness that is taken back: the timers and the processor time of a small, loaded machine.
const LATE: u64 = 2_000_000;
/// What follows a slice within this time was there when it ended.
const AT_ONCE: u64 = 200_000;
/// Devices of a lab.
const DEVICES: usize = 64;
/// Timelines of a lab: of each device's kernels, then of its copies in either direction.
const TIMELINES: usize = 3 * DEVICES;

thread_local! {
    /// When this stream's thread woke from its last slice, and how late that was.
    static WOKE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

struct Lab {
    per_block: f64,
    per_kernel: f64,
    per_launch: f64,
    per_mib: f64,
    slice: u64,
    /// Of each timeline, until when it is occupied, on `CLOCK_MONOTONIC`.
    busy_until: &'static [AtomicU64],
}

static LAB: OnceLock<Option<Lab>> = OnceLock::new();

fn number(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

fn make() -> Option<Lab> {
    let times = ["PXSOFT_BLOCK_US", "PXSOFT_KERNEL_US", "PXSOFT_LAUNCH_US", "PXSOFT_MIB_US"].map(number);
    if times.iter().all(Option::is_none) {
        return None;
    }
    let [per_block, per_kernel, per_launch, per_mib] = times.map(Option::unwrap_or_default);
    let shared = std::env::var_os("PXSOFT_LAB").and_then(|path| map(&path));
    let busy_until = shared.unwrap_or_else(|| {
        let own: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(TIMELINES).collect();
        own.leak()
    });
    let slice = number("PXSOFT_SLICE_US").unwrap_or(1000.0);
    Some(Lab { per_block, per_kernel, per_launch, per_mib, slice: nanos(slice), busy_until })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative; the cast saturates"
)]
fn nanos(microseconds: f64) -> u64 {
    (microseconds * 1e3) as u64
}

/// Maps the file that the processes share; it stays mapped for the life of the process.
fn map(path: &std::ffi::OsStr) -> Option<&'static [AtomicU64]> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).ok()?;
    let bytes = TIMELINES * size_of::<AtomicU64>();
    file.set_len(bytes as u64).ok()?;
    // SAFETY: a fresh shared mapping of a file of that length; the address is the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped for the life of the process, page-aligned, and any bytes are valid atomics.
    Some(unsafe { std::slice::from_raw_parts(address.cast(), TIMELINES) })
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a local; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Keeps the caller for as long as the model says that launching takes.
pub(crate) fn launch() {
    let per_launch = LAB.get_or_init(make).as_ref().map_or(0.0, |lab| lab.per_launch);
    if per_launch > 0.0 {
        std::thread::sleep(Duration::from_nanos(nanos(per_launch)));
    }
}

/// Occupies the device for as long as the model says that a kernel takes.
pub(crate) fn occupy(board: i32, shape: &Shape) {
    let Some(lab) = LAB.get_or_init(make) else { return };
    let blocks: f64 = shape.grid.iter().map(|size| f64::from(*size)).product();
    lab.pass(timeline(board), nanos(lab.per_kernel + lab.per_block * blocks), lab.slice);
}

/// Occupies the engine of a direction for as long as the model says that a copy takes, and makes the copy meanwhile.
pub(crate) fn occupy_engine(board: i32, to_device: bool, bytes: u64, copy: impl FnOnce()) {
    let Some(lab) = LAB.get_or_init(make) else { return copy() };
    let busy_until = &lab.busy_until[DEVICES * (1 + usize::from(to_device)) + timeline(board)];
    let end = reserve(busy_until, now(), nanos(lab.per_mib * bytes as f64 / f64::from(1 << 20)));
    copy();
    std::thread::sleep(Duration::from_nanos(end.saturating_sub(now())));
}

/// Whether copies take time, and it is worth while to see which those are.
pub(crate) fn times_copies() -> bool {
    LAB.get_or_init(make).as_ref().is_some_and(|lab| lab.per_mib > 0.0)
}

/// Which of the lab's devices a board is: the same one in every process, whatever its ordinal there.
fn timeline(board: i32) -> usize {
    usize::try_from(board).unwrap_or(0) % DEVICES
}

/// Reserves the next `length` of a timeline from `earliest` on; when it ends.
fn reserve(busy_until: &AtomicU64, earliest: u64, length: u64) -> u64 {
    let mut seen = busy_until.load(Ordering::Relaxed);
    loop {
        let end = seen.max(earliest) + length;
        match busy_until.compare_exchange_weak(seen, end, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return end,
            Err(other) => seen = other,
        }
    }
}

impl Lab {
    /// Reserves the next `left` nanoseconds of a timeline in slices of that length (0 for one piece), and sleeps them away.
    fn pass(&self, timeline: usize, mut left: u64, slice: u64) {
        let busy_until = &self.busy_until[timeline];
        while left > 0 {
            let piece = if slice == 0 { left } else { left.min(slice) };
            left -= piece;
            let (woke, late) = WOKE.take();
            let at_once = now().saturating_sub(woke) < AT_ONCE;
            let late = if at_once { late.min(LATE) } else { 0 };
            let end = reserve(busy_until, now().saturating_sub(late), piece);
            let wait = end.saturating_sub(now());
            if wait > 0 {
                std::thread::sleep(Duration::from_nanos(wait));
            }
            let woke = now();
            WOKE.set((woke, woke.saturating_sub(end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_timeline_for_all_who_map_it() {
        let path = std::env::temp_dir().join(format!("pxsoft-lab-{}", std::process::id()));
        let (one, other) = (map(path.as_os_str()).unwrap(), map(path.as_os_str()).unwrap());
        one[3].store(77, Ordering::Relaxed);
        assert_eq!(other[3].load(Ordering::Relaxed), 77);
        assert_eq!((one.len(), nanos(1.5)), (TIMELINES, 1500));
        std::fs::remove_file(path).unwrap();
    }
}
