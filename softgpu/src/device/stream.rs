//! Streams: work in order, on a thread of its own as soon as there is some.
//!
//! Every piece of work has a [`Marker`] and a list of markers to wait for first. A stream's queue keeps its own
//! order; the order between the legacy default stream and the blocking streams of a context is made by
//! [`Streams::implicit`] under the context's lock, at submission. Since a piece of work only ever waits for work that
//! was submitted before it, there is no cycle.

use super::capture::Captured;
use super::context::Active;
use super::marker::Marker;
use pxos_protocol::types::{CUattributeValue, CUgraphNode, CUresult, CUstream};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How a stream stands to the legacy default stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is the legacy default stream.
    Legacy,
    /// A thread's default stream; ordered with the legacy one.
    PerThread,
    /// Made without `CU_STREAM_NON_BLOCKING`; ordered with the legacy one.
    Blocking,
    /// Made with `CU_STREAM_NON_BLOCKING`.
    NonBlocking,
}

/// A piece of work; gets the context's fault at the time it runs, and answers with one of its own.
pub(crate) type Work = Box<dyn FnOnce(CUresult) -> Result<(), CUresult> + Send>;

/// A context's sticky fault; 0 for none. The first one stays.
#[derive(Debug, Default)]
pub(crate) struct FaultCell(AtomicU32);

impl FaultCell {
    /// The fault, as what a call answers.
    pub(crate) fn check(&self) -> Result<(), CUresult> {
        self.now().ok()
    }

    /// The fault, or success.
    pub(crate) fn now(&self) -> CUresult {
        CUresult(self.0.load(Ordering::Acquire))
    }

    /// Notes a fault.
    pub(crate) fn note(&self, fault: CUresult) {
        // Only the first fault counts, so a failed exchange is as good.
        let _ = self.0.compare_exchange(0, fault.0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its handle; that of the default streams is their special number.
    pub(crate) handle: CUstream,
    /// `cuStreamGetId`.
    pub(crate) id: u64,
    /// How it stands to the legacy default stream.
    pub(crate) kind: Kind,
    /// Lower runs first on a GPU; here it is only remembered.
    pub(crate) priority: i32,
    /// The context that it belongs to, by its life.
    pub(crate) life: u64,
    /// That context, while it is active.
    pub(crate) owner: Weak<Active>,
    fault: Arc<FaultCell>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// For those who wait for room in the queue.
    room: Condvar,
    captured: Mutex<Option<Captured>>,
    /// What `cuStreamSetAttribute` has set, by attribute.
    attributes: Mutex<BTreeMap<u32, CUattributeValue>>,
    /// What `cuStreamGetCaptureInfo` has last given a pointer to.
    dependencies: Mutex<Vec<CUgraphNode>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The last piece of work.
    tail: Option<Arc<Marker>>,
    /// Whether that one is done by the thread that asked for it ([`Stream::take_turn`]) and not in `jobs`.
    tail_outside: bool,
    worker: bool,
    /// Whether the handle is gone, so that no more work will come.
    retired: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("jobs", &self.jobs.len())
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

struct Job {
    after: Vec<Arc<Marker>>,
    marker: Arc<Marker>,
    work: Work,
}

/// Pieces of work that a stream takes before whoever submits more has to wait, as a launch does on a GPU. Without it a program
/// that launches faster than the device works would fill the memory.
const MAX_JOBS: usize = 1024;

/// How long a stream's thread waits for more work before it ends.
const IDLE: Duration = Duration::from_secs(2);

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is running a host function or callback of a stream, where the API is forbidden.
pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// Runs a host function on a stream's thread, with the API forbidden to it.
pub(crate) fn as_callback(run: impl FnOnce()) {
    IN_CALLBACK.set(true);
    run();
    IN_CALLBACK.set(false);
}

impl Stream {
    pub(crate) fn new(
        handle: CUstream,
        id: u64,
        kind: Kind,
        priority: i32,
        life: u64,
        owner: Weak<Active>,
        fault: Arc<FaultCell>,
    ) -> Self {
        Self {
            handle,
            id,
            kind,
            priority,
            life,
            owner,
            fault,
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Condvar::new(),
            captured: Mutex::new(None),
            dependencies: Mutex::default(),
            attributes: Mutex::default(),
        }
    }

    /// The attributes that were set.
    pub(crate) fn attributes(&self) -> MutexGuard<'_, BTreeMap<u32, CUattributeValue>> {
        self.attributes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its part in a capture, if it has one.
    pub(crate) fn captured(&self) -> MutexGuard<'_, Option<Captured>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what a stream under capture cannot do, and makes the capture useless.
    ///
    /// # Errors
    /// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`.
    pub(crate) fn forbid_capture(&self) -> Result<(), CUresult> {
        match &*self.captured() {
            Some(captured) => {
                captured.capture.invalidate();
                Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    /// Keeps nodes where the application may look at them until it asks again.
    pub(crate) fn keep_dependencies(&self, nodes: Vec<CUgraphNode>) -> *const CUgraphNode {
        let mut kept = self.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = nodes;
        kept.as_ptr()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last piece of work, unless it is done.
    pub(crate) fn tail(&self) -> Option<Arc<Marker>> {
        self.queue().tail.clone().filter(|tail| !tail.is_reached())
    }

    /// The handle is gone: the stream's thread ends with the work that is left.
    pub(crate) fn retire(&self) {
        self.queue().retired = true;
        self.wake.notify_one();
    }

    /// Whether all work is done.
    pub(crate) fn is_idle(&self) -> bool {
        self.tail().is_none()
    }

    /// Waits for all work submitted so far.
    pub(crate) fn wait(&self) {
        if let Some(tail) = self.tail() {
            tail.wait();
        }
    }

    /// Waits until the queue takes more.
    pub(crate) fn make_room(&self) {
        let mut queue = self.queue();
        while queue.jobs.len() >= MAX_JOBS && queue.worker {
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Appends work. Called under the context's lock.
    fn push(self: &Arc<Self>, mut after: Vec<Arc<Marker>>, work: Work) -> Arc<Marker> {
        let marker = Marker::new();
        let mut queue = self.queue();
        if queue.tail_outside
            && let Some(tail) = queue.tail.clone()
        {
            after.push(tail);
        }
        after.retain(|marker| !marker.is_reached());
        queue.tail = Some(Arc::clone(&marker));
        queue.tail_outside = false;
        queue.jobs.push_back(Job { after, marker: Arc::clone(&marker), work });
        if queue.worker {
            self.wake.notify_one();
        } else {
            queue.worker = true;
            let stream = Arc::clone(self);
            let spawned =
                std::thread::Builder::new().name("pxsoft-stream".into()).spawn(move || stream.work());
            if spawned.is_err() {
                // No thread to be had: the caller does the work, which keeps the order and loses the overlap.
                queue.worker = false;
                let job = queue.jobs.pop_back();
                drop(queue);
                if let Some(job) = job {
                    job.run(&self.fault);
                }
            }
        }
        marker
    }

    /// Appends a point without work. Called under the context's lock.
    fn mark(self: &Arc<Self>, mut after: Vec<Arc<Marker>>) -> Arc<Marker> {
        after.retain(|marker| !marker.is_reached());
        let idle = after.is_empty() && self.is_idle();
        if idle { Marker::reached_now() } else { self.push(after, Box::new(|_| Ok(()))) }
    }

    /// Makes the calling thread's next deed part of this stream. Called under the context's lock.
    fn take_turn(&self, mut after: Vec<Arc<Marker>>) -> Turn {
        let marker = Marker::new();
        let mut queue = self.queue();
        after.extend(queue.tail.replace(Arc::clone(&marker)));
        queue.tail_outside = true;
        Turn { after, marker }
    }

    /// The body of the stream's thread.
    fn work(self: Arc<Self>) {
        block_signals();
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                if queue.jobs.len() + 1 == MAX_JOBS {
                    self.room.notify_all();
                }
                drop(queue);
                job.run(&self.fault);
                queue = self.queue();
                continue;
            }
            if queue.retired {
                queue.worker = false;
                return;
            }
            let (returned, idle) =
                self.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = returned;
            if idle.timed_out() && queue.jobs.is_empty() {
                queue.worker = false;
                return;
            }
        }
    }
}

impl Job {
    fn run(self, fault: &FaultCell) {
        for marker in &self.after {
            marker.wait();
        }
        let work = self.work;
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || work(fault.now())));
        if let Err(error) = done.unwrap_or(Err(CUresult::ERROR_UNKNOWN)) {
            fault.note(error);
        }
        self.marker.reach();
    }
}

/// The calling thread's place in a stream; given up when dropped.
pub(crate) struct Turn {
    after: Vec<Arc<Marker>>,
    marker: Arc<Marker>,
}

impl Turn {
    /// Waits until it is this thread's turn.
    pub(crate) fn wait(&self) {
        for marker in &self.after {
            marker.wait();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.wait();
        self.marker.reach();
    }
}

/// The streams of a context. Whoever holds the lock around it decides the order of submissions.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The legacy default stream.
    pub(crate) legacy: Arc<Stream>,
    /// All others.
    pub(crate) others: Vec<Arc<Stream>>,
}

impl Streams {
    /// What work in a stream must wait for beside its own stream's work (CUDA driver API, "Stream synchronization
    /// behavior").
    fn implicit(&self, stream: &Stream, after: &mut Vec<Arc<Marker>>) {
        match stream.kind {
            Kind::NonBlocking => {}
            Kind::Legacy => {
                let blocking = self.others.iter().filter(|other| other.kind != Kind::NonBlocking);
                after.extend(blocking.filter_map(|other| other.tail()));
            }
            Kind::Blocking | Kind::PerThread => after.extend(self.legacy.tail()),
        }
    }

    /// Appends work to a stream.
    pub(crate) fn submit(
        &self,
        stream: &Arc<Stream>,
        mut after: Vec<Arc<Marker>>,
        work: Work,
    ) -> Arc<Marker> {
        self.implicit(stream, &mut after);
        stream.push(after, work)
    }

    /// Appends a point to a stream.
    pub(crate) fn mark(&self, stream: &Arc<Stream>, mut after: Vec<Arc<Marker>>) -> Arc<Marker> {
        self.implicit(stream, &mut after);
        stream.mark(after)
    }

    /// Makes the calling thread's next deed part of a stream.
    pub(crate) fn take_turn(&self, stream: &Arc<Stream>) -> Turn {
        let mut after = Vec::new();
        self.implicit(stream, &mut after);
        stream.take_turn(after)
    }

    /// The unfinished work of all streams.
    pub(crate) fn tails(&self) -> Vec<Arc<Marker>> {
        std::iter::once(&self.legacy).chain(&self.others).filter_map(|stream| stream.tail()).collect()
    }
}

/// Keeps the application's signals off this thread.
fn block_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set, which outlives the call that reads it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn stream(kind: Kind) -> Arc<Stream> {
        Arc::new(Stream::new(CUstream(0), 1, kind, 0, 1, Weak::new(), Arc::default()))
    }

    fn streams(others: Vec<Arc<Stream>>) -> Streams {
        Streams { legacy: stream(Kind::Legacy), others }
    }

    #[test]
    fn work_runs_in_order() {
        let one = stream(Kind::Blocking);
        let set = streams(vec![Arc::clone(&one)]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for number in 0..100 {
            let seen = Arc::clone(&seen);
            set.submit(
                &one,
                vec![],
                Box::new(move |_| {
                    seen.lock().unwrap().push(number);
                    Ok(())
                }),
            );
        }
        one.wait();
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert!(one.is_idle());
    }

    #[test]
    fn a_full_queue_makes_its_submitter_wait() {
        let one = stream(Kind::NonBlocking);
        let set = streams(vec![]);
        let (go, gate) = std::sync::mpsc::channel::<()>();
        set.submit(&one, vec![], Box::new(move |_| gate.recv().map_err(|_| CUresult::ERROR_UNKNOWN)));
        let submitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let submitting = scope.spawn(|| {
                for _ in 0..3 * MAX_JOBS {
                    one.make_room();
                    set.submit(&one, vec![], Box::new(|_| Ok(())));
                    submitted.fetch_add(1, Ordering::SeqCst);
                }
            });
            while submitted.load(Ordering::SeqCst) < MAX_JOBS {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            assert!(submitted.load(Ordering::SeqCst) <= MAX_JOBS + 1, "the queue has no end");
            go.send(()).unwrap();
            submitting.join().unwrap();
        });
        one.wait();
        assert!(one.is_idle());
    }

    #[test]
    fn the_legacy_stream_waits_for_blocking_streams_and_they_for_it() {
        let blocking = stream(Kind::Blocking);
        let free = stream(Kind::NonBlocking);
        let set = streams(vec![Arc::clone(&blocking), Arc::clone(&free)]);
        let gate = Marker::new();
        set.submit(&blocking, vec![Arc::clone(&gate)], Box::new(|_| Ok(())));
        let legacy = set.mark(&set.legacy, vec![]);
        let after = set.mark(&blocking, vec![]);
        let beside = set.mark(&free, vec![]);
        assert!(beside.is_reached());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!legacy.is_reached() && !after.is_reached());
        gate.reach();
        after.wait();
        assert!(legacy.is_reached());
    }

    #[test]
    fn a_turn_stands_between_the_work_before_and_after() {
        let one = stream(Kind::Blocking);
        let set = streams(vec![Arc::clone(&one)]);
        let count = Arc::new(AtomicUsize::new(0));
        let add = |count: &Arc<AtomicUsize>| -> Work {
            let count = Arc::clone(count);
            Box::new(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        set.submit(&one, vec![], add(&count));
        let turn = set.take_turn(&one);
        let last = set.submit(&one, vec![], add(&count));
        turn.wait();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(turn);
        last.wait();
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_failure_is_noted_and_told_to_later_work() {
        let one = stream(Kind::Blocking);
        let set = streams(vec![Arc::clone(&one)]);
        set.submit(&one, vec![], Box::new(|_| Err(CUresult::ERROR_ASSERT)));
        let told = Arc::new(Mutex::new(CUresult::SUCCESS));
        let cell = Arc::clone(&told);
        set.submit(
            &one,
            vec![],
            Box::new(move |status| {
                *cell.lock().unwrap() = status;
                Err(CUresult::ERROR_UNKNOWN)
            }),
        );
        one.wait();
        assert_eq!(*told.lock().unwrap(), CUresult::ERROR_ASSERT);
        assert_eq!(one.fault.now(), CUresult::ERROR_ASSERT);
    }
}
