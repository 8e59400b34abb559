//! Threads that help with launches.
//!
//! Each launch runs on the thread that asked for it, so launches never wait for each other; the pool's threads help
//! whichever launch has blocks left. Threads start with the first launch that can use them, one fewer than the
//! machine has CPUs, and wait in the pool from then on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::launch::Job;

/// A launch, without its lifetimes; see [`share`].
#[derive(Clone, Copy)]
struct Shared(*const Job<'static>);

// SAFETY: a job is shared by reference among threads: all it refers to is `Sync` (program, memory, host), and what
// changes in it is atomic or locked.
unsafe impl Send for Shared {}

#[derive(Default)]
struct Queue {
    jobs: Vec<Shared>,
    started: bool,
    /// Helpers wanted, when set before the first launch.
    helpers: Option<usize>,
}

impl Queue {
    /// Helpers that there are, or will be.
    fn helper_count(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.helpers.unwrap_or_else(|| cpus().saturating_sub(1))
    }
}

#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

fn pool() -> &'static Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(Arc::default)
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, queue: &mut Queue) {
        queue.started = true;
        for index in 0..queue.helper_count() {
            let pool = Arc::clone(self);
            // A thread that cannot be started is one helper fewer, nothing worse.
            let _ = std::thread::Builder::new().name(format!("pxsoft-{index}")).spawn(move || pool.help());
        }
    }

    fn help(&self) {
        let mut queue = self.queue();
        loop {
            // SAFETY: jobs leave the queue, under its lock, before their launch returns; `enter` is called under that
            // lock too, and the launch waits for all who entered.
            let found = queue.jobs.iter().copied().find(|job| unsafe { (*job.0).enter() });
            let Some(job) = found else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            // SAFETY: entered above.
            unsafe {
                (*job.0).work(None);
                (*job.0).leave();
            }
            queue = self.queue();
            // Others get their turn.
            let turn = usize::from(!queue.jobs.is_empty());
            queue.jobs.rotate_left(turn);
        }
    }
}

/// Sets how many threads help launches; without effect once a launch has run. 0 makes every launch run on its
/// caller's thread alone, block after block, hence the same way each time.
pub fn set_helpers(count: usize) {
    pool().queue().helpers = Some(count);
}

/// Threads that can work on a launch: the helpers and its own.
pub(super) fn threads() -> u64 {
    pool().queue().helper_count() as u64 + 1
}

/// Runs a job on this thread and on those of the pool that are free. Helpers are asked for when the launch has shown
/// to be worth it; for blocks that must run side by side, at once.
pub(super) fn share(job: &Job<'_>) {
    let shared = Shared(std::ptr::from_ref(job).cast());
    // SAFETY: the reference outlives the call; only its name changes.
    let job: &Job<'static> = unsafe { &*shared.0 };
    if job.block_count() == 1 {
        job.work(None);
        return;
    }
    let pool = pool();
    let ask = || {
        {
            let mut queue = pool.queue();
            if !queue.started {
                pool.start(&mut queue);
            }
            queue.jobs.push(shared);
        }
        pool.work.notify_all();
    };
    job.work(Some(&ask));
    pool.queue().jobs.retain(|other| !std::ptr::eq(other.0, shared.0));
    job.wait();
}
