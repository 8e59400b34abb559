//! What the shim keeps of each object that the application made: enough to answer what does not change and to refuse what
//! native CUDA would refuse at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// How much was put into a queue, and up to where it is known to be done: what was once seen complete is not asked again.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    submitted: AtomicU64,
    completed: AtomicU64,
}

impl Progress {
    /// Something was put into the queue.
    pub(crate) fn submit(&self) {
        // Relaxed: another thread that must see this has been told by the application, with ordering of its own.
        self.submitted.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the queue ends now; to be taken before the host is asked.
    pub(crate) fn end(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    /// The host has said that everything up to `end` is done.
    pub(crate) fn complete(&self, end: u64) {
        self.completed.fetch_max(end, Ordering::Relaxed);
    }

    /// Whether everything is known to be done.
    pub(crate) fn is_complete(&self) -> bool {
        self.completed.load(Ordering::Relaxed) == self.submitted.load(Ordering::Relaxed)
    }
}

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    /// Its handle.
    pub(crate) handle: u64,
    /// Ordinal of its device.
    pub(crate) device: i32,
    /// `cuCtxGetId`: unique in the process.
    pub(crate) id: u64,
    /// The device's primary context.
    pub(crate) primary: bool,
    /// Flags it was made with.
    pub(crate) flags: AtomicU32,
    /// How often the primary context is retained; 1 for others until they are destroyed.
    pub(crate) retained: AtomicU32,
    /// Cache preference, which only this process reads back.
    pub(crate) cache_config: AtomicU32,
    /// Shared memory bank width, likewise.
    pub(crate) shared_config: AtomicU32,
    /// What was put into any of its streams.
    pub(crate) work: Progress,
    /// What was put into its legacy default stream.
    pub(crate) legacy: Progress,
    /// Where [`Self::work`] ended when the legacy stream, and with it every stream that it waits for, was last seen idle.
    pub(crate) legacy_waited: AtomicU64,
    /// Next stream id within the context.
    pub(crate) next_stream_id: AtomicU64,
    /// How often it was reset or destroyed: what was set up in it before counts no more.
    pub(crate) lives: AtomicU64,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its handle.
    pub(crate) handle: u64,
    /// Its context's handle.
    pub(crate) context: u64,
    /// `CU_STREAM_*` flags.
    pub(crate) flags: u32,
    /// Priority, clamped to the device's range.
    pub(crate) priority: i32,
    /// `cuStreamGetId`.
    pub(crate) id: u64,
    /// What was put into it.
    pub(crate) work: Progress,
}

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its handle.
    pub(crate) handle: u64,
    /// Its context's handle.
    pub(crate) context: u64,
    /// `CU_EVENT_*` flags.
    pub(crate) flags: u32,
    /// Whether it was ever recorded; an event that was not is complete.
    pub(crate) recorded: AtomicBool,
    /// Its records.
    pub(crate) records: Progress,
}

impl Event {
    /// The event is recorded, or will be by a launch that names it.
    pub(crate) fn record(&self) {
        self.records.submit();
        self.recorded.store(true, Ordering::Release);
    }
}

/// Where functions and variables come from.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its handle.
    pub(crate) handle: u64,
    /// Context, 0 for a library, which is of none.
    pub(crate) context: u64,
    /// Functions or kernels by name, resolved once.
    pub(crate) functions: Mutex<HashMap<String, u64>>,
    /// Variables by name and context: address and bytes.
    pub(crate) globals: Mutex<HashMap<(String, u64), (u64, u64)>>,
    /// All names, once enumerated.
    pub(crate) names: Mutex<Option<Vec<String>>>,
    /// Modules of a library by context.
    pub(crate) modules: Mutex<HashMap<u64, u64>>,
}

/// How many function attributes CUDA 13.0 has.
pub(crate) const FUNCTION_ATTRIBUTES: usize = 16;

/// Attributes of a function, indexed by attribute; `i32::MIN` where the driver refuses.
pub(crate) type FunctionAttributes = [AtomicI32; FUNCTION_ATTRIBUTES];

/// A function of a module, or a kernel of a library: one handle space for both.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its handle.
    pub(crate) handle: u64,
    /// NUL-terminated, as `cuFuncGetName` hands it out.
    pub(crate) name: std::ffi::CString,
    /// The module or library.
    pub(crate) owner: u64,
    /// Whether the owner is a library.
    pub(crate) is_kernel: bool,
    /// Context of the module, 0 for a kernel.
    pub(crate) context: u64,
    /// Offset and size of each parameter.
    pub(crate) params: Vec<(u32, u32)>,
    /// Bytes that hold all parameters.
    pub(crate) param_bytes: usize,
    /// `cuKernelGetAttribute` of each device. A function of a module is of one device, and told alike for all.
    pub(crate) attributes: Box<[FunctionAttributes]>,
    /// What the launch interface of CUDA 3 keeps of it.
    pub(crate) legacy: Mutex<crate::api::Legacy>,
    /// Whether it makes system-scope atomics, once known ([`crate::exclusive`]).
    pub(crate) system_atomics: AtomicU8,
    /// Occupancy answers by what was asked.
    pub(crate) occupancy: Mutex<HashMap<(i32, u64, u32), i32>>,
    /// Attributes as they were last set, by context, its life, device and attribute. Libraries set the same one before every
    /// launch.
    pub(crate) set: Mutex<HashMap<(u64, u64, i32, u32), i32>>,
}

impl Function {
    /// An attribute on a device as last told by the driver.
    pub(crate) fn attribute(&self, device: i32, attribute: u32) -> Option<i32> {
        let attributes = usize::try_from(device).ok().and_then(|device| self.attributes.get(device))?;
        let value = attributes.get(attribute as usize)?.load(Ordering::Relaxed);
        (value != i32::MIN).then_some(value)
    }
}
