//! Contexts: a [`Context`] is what a handle names, for as long as the handle lives; an [`Active`] is what a context
//! holds between its making and its destruction: streams, memory, modules, the sticky fault. A created context is
//! active for its whole life; the primary context of a device is so between retain and the last release or a reset,
//! any number of times, always under the same handle (measured).
//!
//! The stack of current contexts is per thread (CUDA driver API, "Context management").

use super::capture::{self, Capture};
use super::graph::Body;
use super::marker::Marker;
use super::module::Module;
use super::operation::Operation;
use super::stream::{FaultCell, Kind, Stream, Streams, Turn, Work, in_callback};
use super::table::Table;
use super::{Device, allocation, array, event, module, platform, texture};
use crate::api::DefaultStream;
use pxos_protocol::types::{
    CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUcontext, CUgraphNode, CUlibrary, CUresult, CUstream,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

/// What a context handle names.
#[derive(Debug)]
pub(crate) struct Context {
    /// Its handle.
    pub(crate) handle: CUcontext,
    /// `cuCtxGetId`.
    pub(crate) id: u64,
    /// The device it is on.
    pub(crate) device: Arc<Device>,
    /// Whether it is the device's primary context.
    pub(crate) is_primary: bool,
    /// Scheduling and other flags.
    pub(crate) flags: AtomicU32,
    /// How often it was retained (primary) or attached (created).
    uses: Mutex<u32>,
    active: RwLock<Option<Arc<Active>>>,
}

/// What an active context holds.
#[derive(Debug)]
pub(crate) struct Active {
    /// The handle of its context.
    pub(crate) handle: CUcontext,
    /// The device it is on.
    pub(crate) device: Arc<Device>,
    /// Tells this life of the context from others, unique in the process.
    pub(crate) life: u64,
    /// The sticky fault.
    pub(crate) fault: Arc<FaultCell>,
    /// Limits, cache preference and the like.
    pub(crate) settings: Mutex<Settings>,
    /// The module that each library has in this context, made when first asked for.
    pub(crate) libraries: Mutex<HashMap<CUlibrary, Arc<Module>>>,
    /// Memory that kernels have allocated, with its length.
    pub(crate) heap: Mutex<HashMap<u64, u64>>,
    streams: Mutex<Streams>,
    printed: Mutex<Vec<u8>>,
    ending: AtomicBool,
    this: Weak<Self>,
}

/// What the `cuCtxSet…` functions change. Defaults are those of an H200 (measured).
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `CU_LIMIT_STACK_SIZE`.
    pub(crate) stack: usize,
    /// `CU_LIMIT_PRINTF_FIFO_SIZE`.
    pub(crate) printf: usize,
    /// `CU_LIMIT_MALLOC_HEAP_SIZE`.
    pub(crate) heap: usize,
    /// `CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT`.
    pub(crate) pending_launches: usize,
    /// `CU_LIMIT_MAX_L2_FETCH_GRANULARITY`.
    pub(crate) l2_granularity: usize,
    /// `CU_LIMIT_PERSISTING_L2_CACHE_SIZE`.
    pub(crate) l2_persisting: usize,
    /// `CUfunc_cache`.
    pub(crate) cache: u32,
    /// `CUsharedconfig`.
    pub(crate) shared: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stack: 1024,
            printf: 8_650_752,
            heap: 8 << 20,
            pending_launches: 2048,
            l2_granularity: 64,
            l2_persisting: 11_796_480,
            cache: 0,
            shared: 1,
        }
    }
}

/// Every context of the process, the primary ones included.
pub(crate) static CONTEXTS: Table<CUcontext, Context> = Table::new();
/// Every created stream.
pub(crate) static STREAMS: Table<CUstream, Stream> = Table::new();

/// Numbers for contexts and streams; unique, and never zero.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `CU_CTX_MAP_HOST`: always on for a primary context (measured).
pub(crate) const MAP_HOST: u32 = 8;

impl Context {
    fn new(device: &Arc<Device>, is_primary: bool, flags: u32) -> Result<Arc<Self>, CUresult> {
        let (_, context) = CONTEXTS.insert_with(|handle| Self {
            handle,
            id: next_id(),
            device: Arc::clone(device),
            is_primary,
            flags: AtomicU32::new(flags),
            uses: Mutex::new(0),
            active: RwLock::new(None),
        })?;
        Ok(context)
    }

    /// The primary context of a new device; not active.
    pub(crate) fn primary(device: &Arc<Device>) -> Arc<Self> {
        Self::new(device, true, 0).expect("there are more slots than devices")
    }

    /// A created context, active from the start.
    ///
    /// # Errors
    /// The fault that made the device unusable.
    pub(crate) fn create(device: &Arc<Device>, flags: u32) -> Result<Arc<Self>, CUresult> {
        device.fault()?;
        let context = Self::new(device, false, flags)?;
        *lock(&context.uses) = 1;
        context.activate();
        Ok(context)
    }

    /// Its resources, while it is active.
    pub(crate) fn active(&self) -> Option<Arc<Active>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn activate(&self) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if active.is_none() {
            *active = Some(Active::new(self));
        }
    }

    /// Ends the active life, if there is one: waits for its work, prints what kernels printed, tells the runtime, and
    /// frees everything.
    fn deactivate(&self) {
        let Some(active) = self.active() else { return };
        active.ending.store(true, Ordering::Relaxed);
        active.wait();
        active.flush();
        if self.is_primary {
            pxos_cudart::storage::context_reset(self.handle.0);
        } else {
            pxos_cudart::storage::context_destroyed(self.handle.0);
        }
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = None;
        active.free_everything();
    }

    /// Retains the primary context, activating it if needed.
    ///
    /// # Errors
    /// The fault that made the device unusable, unless the context is still active with it.
    pub(crate) fn retain(&self) -> Result<(), CUresult> {
        let mut uses = lock(&self.uses);
        if self.active().is_none() {
            self.device.fault()?;
            self.activate();
        }
        *uses += 1;
        Ok(())
    }

    /// Releases the primary context; the last time, it ends.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_CONTEXT` if it is not retained (measured).
    pub(crate) fn release(&self) -> Result<(), CUresult> {
        let mut uses = lock(&self.uses);
        *uses = uses.checked_sub(1).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
        let last = *uses == 0;
        drop(uses);
        if last {
            self.deactivate();
        }
        Ok(())
    }

    /// Ends the primary context whoever retains it; their releases still count (measured).
    pub(crate) fn reset(&self) {
        self.deactivate();
    }

    /// Attaches to a context (`cuCtxAttach`).
    pub(crate) fn attach(&self) {
        *lock(&self.uses) += 1;
    }

    /// Detaches from a context; the last time, it is destroyed, or released if it is a primary one (measured).
    ///
    /// # Errors
    /// As for [`Context::release`].
    pub(crate) fn detach(&self) -> Result<(), CUresult> {
        if self.is_primary {
            return self.release();
        }
        let mut uses = lock(&self.uses);
        *uses = uses.saturating_sub(1);
        let last = *uses == 0;
        drop(uses);
        if last {
            self.destroy();
        }
        Ok(())
    }

    /// Destroys a created context: its handle dies, and it leaves the top of the calling thread's stack.
    pub(crate) fn destroy(&self) {
        if CONTEXTS.remove(self.handle).is_none() {
            return;
        }
        self.deactivate();
        OWN.with(|own| own.stack.borrow_mut().pop_if(|top| top.handle == self.handle));
    }
}

impl Active {
    fn new(context: &Context) -> Arc<Self> {
        let fault: Arc<FaultCell> = Arc::default();
        let life = next_id();
        Arc::new_cyclic(|this| {
            let legacy = Arc::new(Stream::new(
                CU_STREAM_LEGACY,
                next_id(),
                Kind::Legacy,
                0,
                life,
                Weak::clone(this),
                Arc::clone(&fault),
            ));
            Self {
                handle: context.handle,
                device: Arc::clone(&context.device),
                life,
                fault,
                settings: Mutex::default(),
                libraries: Mutex::default(),
                heap: Mutex::default(),
                streams: Mutex::new(Streams { legacy, others: Vec::new() }),
                printed: Mutex::default(),
                ending: AtomicBool::new(false),
                this: Weak::clone(this),
            }
        })
    }

    /// Another reference to this.
    pub(crate) fn share(&self) -> Arc<Self> {
        self.this.upgrade().expect("somebody holds a reference to call this")
    }

    /// What this context's settings are.
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// The stream that a handle names in a call made in this context.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` for a dead handle and for a stream of another context.
    pub(crate) fn stream(&self, handle: CUstream, default: DefaultStream) -> Result<Arc<Stream>, CUresult> {
        let named = match (handle, default) {
            (CUstream::NULL, DefaultStream::Legacy) => CU_STREAM_LEGACY,
            (CUstream::NULL, DefaultStream::PerThread) => CU_STREAM_PER_THREAD,
            _ => handle,
        };
        match named {
            CU_STREAM_LEGACY => Ok(self.legacy()),
            CU_STREAM_PER_THREAD => Ok(self.per_thread()),
            _ => STREAMS.get(named).and_then(|stream| {
                if stream.life == self.life { Ok(stream) } else { Err(CUresult::ERROR_INVALID_HANDLE) }
            }),
        }
    }

    /// The legacy default stream.
    pub(crate) fn legacy(&self) -> Arc<Stream> {
        Arc::clone(&lock(&self.streams).legacy)
    }

    /// The calling thread's default stream, made when first asked for.
    fn per_thread(&self) -> Arc<Stream> {
        tidy_at_exit();
        OWN.with(|own| {
            let mut streams = own.streams.borrow_mut();
            if let Some(stream) = streams.iter().find(|stream| stream.life == self.life) {
                return Arc::clone(stream);
            }
            streams.retain(|stream| stream.owner.strong_count() > 0);
            let stream = Arc::new(self.new_stream(CU_STREAM_PER_THREAD, Kind::PerThread, 0));
            lock(&self.streams).others.push(Arc::clone(&stream));
            streams.push(Arc::clone(&stream));
            stream
        })
    }

    fn new_stream(&self, handle: CUstream, kind: Kind, priority: i32) -> Stream {
        let owner = Weak::clone(&self.this);
        Stream::new(handle, next_id(), kind, priority, self.life, owner, Arc::clone(&self.fault))
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create_stream(&self, kind: Kind, priority: i32) -> Result<CUstream, CUresult> {
        let (handle, stream) = STREAMS.insert_with(|handle| self.new_stream(handle, kind, priority))?;
        lock(&self.streams).others.push(stream);
        Ok(handle)
    }

    /// Ends a stream's handle; its work goes on (CUDA driver API, `cuStreamDestroy`).
    pub(crate) fn retire_stream(&self, stream: &Arc<Stream>) {
        stream.retire();
        if stream.is_idle() {
            lock(&self.streams).others.retain(|other| !Arc::ptr_eq(other, stream));
        } else {
            // Still to be waited for by synchronisation; swept with the next stream that goes.
            let mut streams = lock(&self.streams);
            streams.others.retain(|other| {
                other.kind == Kind::PerThread || STREAMS.find(other.handle).is_some() || !other.is_idle()
            });
        }
    }

    /// Appends work to a stream of this context; waits where the stream has as much as it takes.
    pub(crate) fn submit(&self, stream: &Arc<Stream>, after: Vec<Arc<Marker>>, work: Work) -> Arc<Marker> {
        // Before the lock: what is under way may need it.
        stream.make_room();
        lock(&self.streams).submit(stream, after, work)
    }

    /// Appends a point to a stream of this context.
    pub(crate) fn mark(&self, stream: &Arc<Stream>, after: Vec<Arc<Marker>>) -> Arc<Marker> {
        lock(&self.streams).mark(stream, after)
    }

    /// A point behind the work of all streams.
    pub(crate) fn mark_all(&self) -> Arc<Marker> {
        let streams = lock(&self.streams);
        let tails = streams.tails();
        streams.mark(&streams.legacy, tails)
    }

    /// Makes further work of every stream wait for a point.
    pub(crate) fn hold_all(&self, marker: &Arc<Marker>) {
        let streams = lock(&self.streams);
        for stream in std::iter::once(&streams.legacy).chain(&streams.others) {
            streams.mark(stream, vec![Arc::clone(marker)]);
        }
    }

    /// Appends an operation to a stream of this context, or to the graph that the stream is captured into.
    ///
    /// # Errors
    /// Those of a capture that this disturbs or cannot be part of.
    pub(crate) fn enqueue(&self, stream: &Arc<Stream>, operation: Operation) -> Result<(), CUresult> {
        if self.capture_as(stream, || capture::body(operation.clone()))?.is_some() {
            return Ok(());
        }
        let owner = self.share();
        self.submit(stream, Vec::new(), Box::new(move |_| operation.run(&owner)));
        Ok(())
    }

    /// Adds a node where a stream is being captured; `None` where it is not.
    ///
    /// # Errors
    /// As for [`Active::enqueue`].
    pub(crate) fn capture_as(
        &self,
        stream: &Stream,
        body: impl FnOnce() -> Body,
    ) -> Result<Option<CUgraphNode>, CUresult> {
        if stream.kind == Kind::Legacy {
            capture::check_legacy(self)?;
        }
        stream.captured().as_mut().map(|captured| captured.add(body())).transpose()
    }

    /// The captures that blocking streams of this context take part in.
    pub(crate) fn blocking_captures(&self) -> Vec<Arc<Capture>> {
        let streams = lock(&self.streams);
        let blocking = streams.others.iter().filter(|stream| stream.kind != Kind::NonBlocking);
        blocking
            .filter_map(|stream| stream.captured().as_ref().map(|part| Arc::clone(&part.capture)))
            .collect()
    }

    /// Takes all streams of this context out of a capture.
    pub(crate) fn leave_capture(&self, id: u64) {
        for stream in &lock(&self.streams).others {
            stream.captured().take_if(|part| part.capture.id == id);
        }
    }

    /// Does something now, in its turn in a stream, on the calling thread.
    ///
    /// # Errors
    /// Those of a capture, which cannot hold what happens at once.
    pub(crate) fn perform<T>(&self, stream: &Arc<Stream>, deed: impl FnOnce() -> T) -> Result<T, CUresult> {
        stream.forbid_capture()?;
        if stream.kind == Kind::Legacy {
            capture::check_legacy(self)?;
            capture::check_unsafe_call()?;
        }
        let turn: Turn = lock(&self.streams).take_turn(stream);
        turn.wait();
        Ok(deed())
    }

    /// Waits for all work submitted so far.
    pub(crate) fn wait(&self) {
        let tails = lock(&self.streams).tails();
        for tail in tails {
            tail.wait();
        }
    }

    /// `cuCtxSynchronize`: waits for all work, prints what kernels printed.
    ///
    /// # Errors
    /// The sticky fault; `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED` while a stream is being captured.
    pub(crate) fn synchronise(&self) -> Result<(), CUresult> {
        for stream in &lock(&self.streams).others {
            stream.forbid_capture()?;
        }
        self.wait();
        self.flush();
        self.fault.check()
    }

    /// Whether the context is being destroyed, so that kernels should not start device memory games any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Notes a fault of a kernel: in this context, and on the device for those to come.
    pub(crate) fn note_fault(&self, fault: CUresult) {
        self.fault.note(fault);
        self.device.note_fault(fault);
    }

    /// Takes what a kernel printed.
    pub(crate) fn print(&self, text: &[u8]) {
        lock(&self.printed).extend_from_slice(text);
    }

    /// Writes what kernels have printed to the C library's standard output, whose buffer the application's own
    /// output goes through (CUDA C++ programming guide, "Formatted output": at synchronising calls).
    pub(crate) fn flush(&self) {
        let text = std::mem::take(&mut *lock(&self.printed));
        if text.is_empty() {
            return;
        }
        // SAFETY: the C library's stream is open as long as the application has not closed it, and the buffer is
        // ours; a static of the C library that is only read.
        unsafe {
            libc::fwrite(text.as_ptr().cast(), 1, text.len(), stdout);
        }
    }

    /// Frees what the application did not: modules, events, streams and memory of this life.
    fn free_everything(&self) {
        lock(&self.libraries).clear();
        module::forget_life(self.life);
        event::forget_life(self.life);
        texture::forget_life(self.life);
        array::forget_life(self.life);
        for stream in STREAMS.all() {
            if stream.life == self.life {
                STREAMS.remove(stream.handle);
            }
        }
        for address in lock(&self.heap).drain().map(|(address, _)| address) {
            self.device.memory.free(address);
        }
        for held in allocation::select(|held| held.life == self.life) {
            crate::api::memory::give_back(&held);
        }
        lock(&self.streams).others.clear();
    }
}

unsafe extern "C" {
    /// The C library's standard output.
    static stdout: *mut libc::FILE;
}

/// What belongs to a thread. Without a destructor, because the runtime calls the driver from exit handlers, which run
/// when the main thread's locals with destructors are gone; [`Tidy`] empties it for the other threads.
struct Own {
    /// The contexts pushed by this thread, the current one last.
    stack: RefCell<Vec<Arc<Context>>>,
    /// The thread's default streams, one per context.
    streams: RefCell<Vec<Arc<Stream>>>,
}

struct Tidy;

thread_local! {
    static OWN: ManuallyDrop<Own> = const {
        ManuallyDrop::new(Own { stack: RefCell::new(Vec::new()), streams: RefCell::new(Vec::new()) })
    };
    static TIDY: Tidy = const { Tidy };
}

/// Has this thread's own things given back when it ends.
fn tidy_at_exit() {
    // A thread that is ending already keeps what it takes from here on; that is a few bytes.
    let _ = TIDY.try_with(|_| ());
}

impl Drop for Tidy {
    fn drop(&mut self) {
        // SAFETY: both calls only ask for numbers.
        let is_main = unsafe { libc::gettid() == libc::getpid() };
        if is_main || platform().is_err() {
            return;
        }
        OWN.with(|own| {
            own.stack.take();
            for stream in own.streams.take() {
                if let Some(owner) = stream.owner.upgrade() {
                    stream.wait();
                    lock(&owner.streams).others.retain(|other| !Arc::ptr_eq(other, &stream));
                }
            }
        });
    }
}

/// The context that a handle names.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT` for null and dead handles.
pub(crate) fn named(handle: CUcontext) -> Result<Arc<Context>, CUresult> {
    CONTEXTS.find(handle).ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

/// The calling thread's current context, active or not.
pub(crate) fn top() -> Option<Arc<Context>> {
    OWN.with(|own| own.stack.borrow().last().cloned())
}

/// The handle of the calling thread's current context; null for none.
pub(crate) fn top_handle() -> CUcontext {
    OWN.with(|own| own.stack.borrow().last().map_or(CUcontext::NULL, |context| context.handle))
}

/// Makes a context the current one on top of the others.
pub(crate) fn push(context: Arc<Context>) {
    tidy_at_exit();
    OWN.with(|own| own.stack.borrow_mut().push(context));
}

/// Takes the current context off the stack.
pub(crate) fn pop() -> Option<Arc<Context>> {
    OWN.with(|own| own.stack.borrow_mut().pop())
}

/// The resources of the current context, whether or not a fault has struck it.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT` for no context, `CUDA_ERROR_CONTEXT_IS_DESTROYED` for one that is not active
/// (measured), `CUDA_ERROR_NOT_PERMITTED` in a stream's callback.
pub(crate) fn current_even_faulted() -> Result<Arc<Active>, CUresult> {
    if in_callback() {
        return Err(CUresult::ERROR_NOT_PERMITTED);
    }
    let context = top().ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    context.active().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)
}

/// The resources of the current context.
///
/// # Errors
/// Those of [`current_even_faulted`], and the context's sticky fault.
pub(crate) fn current() -> Result<Arc<Active>, CUresult> {
    let active = current_even_faulted()?;
    active.fault.check()?;
    Ok(active)
}

/// A stream and the context that it belongs to, for the functions that take a stream of any context.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` for a dead handle, those of [`current`] for a default stream, the sticky fault of the
/// stream's context.
pub(crate) fn stream_anywhere(
    handle: CUstream,
    default: DefaultStream,
) -> Result<(Arc<Active>, Arc<Stream>), CUresult> {
    if handle.0 <= CU_STREAM_PER_THREAD.0 {
        let active = current()?;
        let stream = active.stream(handle, default)?;
        return Ok((active, stream));
    }
    if in_callback() {
        return Err(CUresult::ERROR_NOT_PERMITTED);
    }
    let stream = STREAMS.get(handle)?;
    let active = stream.owner.upgrade().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?;
    active.fault.check()?;
    Ok((active, stream))
}
