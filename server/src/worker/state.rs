//! What the leader keeps of a session: the guest's handles and what they stand for.

use super::api::array::Arrays;
use super::api::graph::Graphs;
use super::api::{green::Green, ipc::Ipc, link::Link, pool::Pools, primitive::Primitives, vmm::Vmm};
use super::fence::Fences;
use super::images::Images;
use super::session::Session;
use super::shared::Areas;
use super::stack::SmallStack;
use super::staging::Upload;
use super::tables::Table;
use crate::driver::Result;
use crate::handoff::Limits;
use crate::quota::Kind;
use pxos_protocol::types::{CU_STREAM_PER_THREAD, CUresult, HandleKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// A context of the guest's.
#[derive(Debug)]
pub(crate) struct Context {
    /// The driver's handle, 0 for a primary context that is not active.
    pub(crate) native: u64,
    /// Ordinal of its device.
    pub(crate) device: i32,
    /// The device's primary context.
    pub(crate) primary: bool,
}

/// An object of one context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    /// The driver's handle.
    pub(crate) native: u64,
    /// The guest's handle of the context, 0 for none.
    pub(crate) context: u64,
}

/// A function or kernel.
#[derive(Debug)]
pub(crate) struct Function {
    /// The driver's handle.
    pub(crate) native: u64,
    /// The guest's handle of the module or library.
    pub(crate) owner: u64,
    /// Whether the owner is a library.
    pub(crate) is_kernel: bool,
    /// Its symbol.
    pub(crate) name: CString,
    /// Offset of each parameter in the guest's block.
    pub(crate) offsets: Vec<u32>,
    /// Bytes of that block.
    pub(crate) param_bytes: usize,
}

/// Memory that went with a context, by what it counts as. It is given back to the quota once the driver has said that the
/// context is gone: late is better than early.
#[derive(Debug)]
#[must_use]
pub(crate) struct Freed([(Kind, u64); 3]);

impl Freed {
    /// Gives it back.
    pub(crate) fn release(self, session: &Session) {
        self.0.into_iter().for_each(|(kind, bytes)| session.ledger.release(kind, bytes));
    }
}

/// Everything that only the leader touches.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) contexts: Table<Context>,
    pub(crate) streams: Table<Owned>,
    pub(crate) events: Table<Owned>,
    pub(crate) modules: Table<Owned>,
    /// Modules that are a library's: the guest's handle of each, and that of its library.
    pub(crate) of_libraries: HashMap<u64, u64>,
    pub(crate) libraries: Table<Owned>,
    pub(crate) functions: Table<Function>,
    pub(crate) kernels: Table<Function>,
    /// Graphs.
    pub(crate) graphs: Graphs,
    /// Native streams that stand for a guest thread's default stream, by thread and context.
    pub(crate) per_thread: HashMap<(u32, u64), u64>,
    /// Device memory by address: bytes and context.
    pub(crate) allocations: HashMap<u64, (u64, u64)>,
    /// Arrays, and the textures and surfaces over them.
    pub(crate) arrays: Arrays,
    /// Memory pools and what was allocated from them.
    pub(crate) pools: Pools,
    /// Virtual memory management.
    pub(crate) vmm: Vmm,
    /// States of the JIT linker.
    pub(crate) links: Table<Link>,
    /// What is shared with other processes of the VM.
    pub(crate) ipc: Ipc,
    /// Green contexts and their resources.
    pub(crate) green: Green,
    /// Programs of the primitive language.
    pub(crate) primitives: Primitives,
    /// Copies that other streams have to wait for.
    pub(crate) fences: Fences,
    /// The warm context, as long as its stack is smaller than the guest believes.
    pub(crate) small_stack: Option<SmallStack>,
    /// Images.
    pub(crate) images: Images,
    /// Page-locked memory through which large copies reach the device.
    pub(crate) upload: Upload,
    /// Memory shared with the guest, where there is any.
    pub(crate) areas: Option<Areas>,
    /// The payload of the answer that is being made.
    pub(crate) reply: Vec<u8>,
    /// Pointers to the parameters of the launch that is being made.
    pub(crate) pointers: Vec<*mut std::ffi::c_void>,
    /// The first device's primary context, made before the guest came and not yet given to it.
    warm: Option<u64>,
    /// Device of the context that is current.
    pub(crate) device: usize,
    /// Highest guest thread seen.
    pub(crate) threads: u32,
}

// SAFETY: the raw pointers are scratch space, empty between calls.
unsafe impl Send for State {}

impl State {
    /// The state of a new session within its limits; `warm` is the context that the worker holds already.
    pub(crate) fn new(warm: u64, small_stack: Option<SmallStack>, limits: &Limits) -> Self {
        Self {
            contexts: Table::new(HandleKind::Context),
            streams: Table::new(HandleKind::Stream),
            events: Table::new(HandleKind::Event),
            modules: Table::new(HandleKind::Module),
            of_libraries: HashMap::new(),
            libraries: Table::new(HandleKind::Library),
            functions: Table::new(HandleKind::Function),
            kernels: Table::new(HandleKind::Kernel),
            graphs: Graphs::default(),
            per_thread: HashMap::new(),
            allocations: HashMap::new(),
            arrays: Arrays::default(),
            pools: Pools::default(),
            vmm: Vmm::default(),
            links: Table::new(HandleKind::LinkState),
            ipc: Ipc::default(),
            green: Green::default(),
            primitives: Primitives::new(limits.unchecked),
            fences: Fences::default(),
            small_stack,
            images: Images::default(),
            upload: Upload::default(),
            areas: None,
            reply: Vec::new(),
            pointers: Vec::new(),
            warm: (warm != 0).then_some(warm),
            device: 0,
            threads: 0,
        }
    }

    /// Makes the guest's context current on this thread; a primary context that was reset comes back to life, as it
    /// does natively at its next use.
    pub(crate) fn enter(&mut self, session: &Session, raw: u64) -> Result {
        if raw == 0 {
            return session.enter(0);
        }
        let context = self.contexts.get_mut(raw).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
        if context.native == 0 {
            context.native = match self.warm.take().filter(|_| context.device == 0) {
                Some(warm) => warm,
                None => {
                    let mut native = 0;
                    // SAFETY: a pointer to a local.
                    unsafe { session.driver.cuDevicePrimaryCtxRetain(&raw mut native, context.device)? };
                    native
                }
            };
        }
        self.device = usize::try_from(context.device).unwrap_or(0);
        session.enter(context.native)
    }

    /// Makes some context current where the guest's thread has none: kernels of a library can be asked for without one
    /// (CUDA driver API, "Library management"), but the driver answers questions about them only in one.
    pub(crate) fn enter_any(&mut self, session: &Session, raw: u64) -> Result {
        if raw != 0 {
            return self.enter(session, raw);
        }
        if let Some(context) = self.contexts.find(|context| context.native != 0) {
            return session.enter(context.native);
        }
        if self.warm.is_none() {
            let mut native = 0;
            // SAFETY: a pointer to a local.
            unsafe { session.driver.cuDevicePrimaryCtxRetain(&raw mut native, 0)? };
            self.warm = Some(native);
        }
        session.enter(self.warm.unwrap_or(0))
    }

    /// Gives the warm context the stack that the guest believes it to have, before anything is loaded that could use it.
    pub(crate) fn grow_stack(&mut self, session: &Session) -> Result {
        self.small_stack.take().map_or(Ok(()), |small| small.grow(session))
    }

    /// The driver's stream for a stream of the wire: 0 is the legacy default stream, 2 that of the guest's thread.
    pub(crate) fn stream(&mut self, session: &Session, raw: u64, thread: u32, context: u64) -> Result<u64> {
        if raw == 0 {
            return Ok(0);
        }
        if raw != CU_STREAM_PER_THREAD.0 {
            return self.streams.get(raw).map(|stream| stream.native);
        }
        if let Some(native) = self.per_thread.get(&(thread, context)) {
            return Ok(*native);
        }
        session.ledger.open_stream()?;
        let mut native = 0;
        // A blocking stream: the per-thread default stream synchronises with the legacy one (CUDA driver API, "Stream
        // synchronization behavior").
        // SAFETY: a pointer to a local.
        let made = unsafe { session.driver.cuStreamCreateWithPriority(&raw mut native, 0, 0) };
        if let Err(error) = made {
            session.ledger.close_streams(1);
            return Err(error);
        }
        self.per_thread.insert((thread, context), native);
        Ok(native)
    }

    /// A function or kernel by the guest's handle: one space for both.
    pub(crate) fn function(&self, raw: u64) -> Result<&Function> {
        self.kernels.get(raw).or_else(|_| self.functions.get(raw))
    }

    /// Whether a range of host memory is one that the guest shares, locked for the device.
    pub(crate) fn is_shared(&self, address: u64, bytes: u64) -> bool {
        self.areas.as_ref().is_some_and(|areas| areas.is_pinned(address, bytes))
    }

    /// Takes `bytes` out of the quota, at the expense of memory that pools and graphs keep unused where it must be: the
    /// driver does the same where the device runs out.
    pub(crate) fn reserve(&mut self, session: &Session, kind: Kind, bytes: u64) -> Result {
        if bytes == 0 || session.ledger.try_reserve(kind, bytes).is_ok() {
            return Ok(());
        }
        self.pools.recount(session);
        if session.ledger.try_reserve(kind, bytes).is_ok() {
            return Ok(());
        }
        self.pools.trim(session);
        self.graphs.trim(session);
        session.ledger.reserve(kind, bytes)
    }

    /// What was allocated in one context is another's from now on.
    pub(crate) fn pass_on(&mut self, from: u64, to: u64) {
        self.allocations.values_mut().filter(|(_, of)| *of == from).for_each(|(_, of)| *of = to);
        self.arrays.pass_on(from, to);
    }

    /// Forgets everything that goes with a context.
    pub(crate) fn forget_context(&mut self, session: &Session, raw: u64) -> Freed {
        let Self { modules, functions, .. } = self;
        functions.forget(|function| {
            !function.is_kernel && modules.get(function.owner).is_ok_and(|module| module.context == raw)
        });
        let closed = RefCell::new(Vec::new());
        self.streams.forget(|stream| {
            let dead = stream.context == raw;
            closed.borrow_mut().extend(dead.then_some(stream.native));
            dead
        });
        let mut closed = closed.into_inner();
        closed
            .extend(self.per_thread.extract_if(|(_, context), _| *context == raw).map(|(_, native)| native));
        session.ledger.close_streams(closed.len());
        let ended = closed.into_iter().map(|stream| self.graphs.abandon_capture(stream)).sum();
        self.graphs.lapse(session, ended);
        self.events.forget(|event| event.context == raw);
        self.modules.forget(|module| module.context == raw);
        let Self { modules, of_libraries, libraries, images, .. } = self;
        of_libraries.retain(|module, _| modules.get(*module).is_ok());
        images.retain(|owner| modules.get(owner).is_ok() || libraries.get(owner).is_ok());
        let arrays = self.arrays.forget_context(raw);
        let mut freed = 0;
        self.allocations.retain(|_, (bytes, context)| {
            freed += if *context == raw { *bytes } else { 0 };
            *context != raw
        });
        self.links.forget(|link| link.context == raw);
        self.fences.forget_context(raw);
        self.primitives.forget_context(raw);
        session.submissions.forget_context(raw);
        let imported = self.ipc.forget_context(raw);
        self.upload.forget();
        if let Some(areas) = &mut self.areas {
            areas.forget();
        }
        Freed([(Kind::Array, arrays), (Kind::Linear, freed), (Kind::Imported, imported)])
    }
}
