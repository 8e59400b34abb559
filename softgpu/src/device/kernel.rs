//! Functions, kernels and libraries, and how a kernel is run: from a checked launch to the engine and back to the
//! context's faults and printed text.

use super::attribute::{
    BLOCKS_PER_MULTIPROCESSOR, MAX_THREADS, REGISTERS, SHARED_PER_BLOCK, SHARED_PER_BLOCK_OPTIN,
    SHARED_PER_MULTIPROCESSOR, SHARED_RESERVED, THREADS_PER_MULTIPROCESSOR,
};
use super::conditional::Conditional;
use super::context::Active;
use super::module::{self, Code, Module};
use super::table::Table;
use crate::exec::{self, Fault, FaultKind, Host, Kernel, Launch};
use pxos_protocol::types::{CUdevice, CUfunction, CUkernel, CUlibrary, CUresult, Handle};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// What an application sets of a function or kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// `MAX_DYNAMIC_SHARED_SIZE_BYTES`, where it was set.
    pub(crate) dynamic_shared: Option<u32>,
    /// `PREFERRED_SHARED_MEMORY_CARVEOUT`.
    pub(crate) carveout: i32,
    /// `REQUIRED_CLUSTER_WIDTH`, `_HEIGHT`, `_DEPTH`.
    pub(crate) cluster: [i32; 3],
    /// `NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
    pub(crate) non_portable_cluster: i32,
    /// `CLUSTER_SCHEDULING_POLICY_PREFERENCE`.
    pub(crate) cluster_policy: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dynamic_shared: None,
            carveout: -1,
            cluster: [0; 3],
            non_portable_cluster: 0,
            cluster_policy: 0,
        }
    }
}

/// A function: a kernel of a module.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its handle.
    pub(crate) handle: CUfunction,
    /// The module, while it is loaded.
    pub(crate) module: Weak<Module>,
    /// Which kernel of the code.
    pub(crate) index: usize,
    /// What was set of it; `None` until then, where the library's kernel counts (measured).
    settings: Mutex<Option<Settings>>,
}

/// A kernel of a library.
#[derive(Debug)]
pub(crate) struct LibraryKernel {
    /// Its handle.
    pub(crate) handle: CUkernel,
    /// The library, while it is loaded.
    pub(crate) library: Weak<Library>,
    /// Which kernel of the code.
    pub(crate) index: usize,
    settings: Mutex<HashMap<CUdevice, Settings>>,
}

/// A library: code that belongs to no context.
#[derive(Debug)]
pub(crate) struct Library {
    /// Its handle.
    pub(crate) handle: CUlibrary,
    /// The code, or why it cannot be used: loading is lazy, so that this surfaces at the first use (measured).
    pub(crate) code: Result<Arc<Code>, CUresult>,
    /// Its kernels, in the code's order.
    pub(crate) kernels: Vec<Arc<LibraryKernel>>,
    /// Where its managed variables are; placed when first needed.
    managed: OnceLock<Vec<Option<u64>>>,
}

/// Every function of the process.
pub(crate) static FUNCTIONS: Table<CUfunction, Function> = Table::new();
/// Every library of the process.
pub(crate) static LIBRARIES: Table<CUlibrary, Library> = Table::new();
/// Every kernel of the process.
pub(crate) static KERNELS: Table<CUkernel, LibraryKernel> = Table::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Function {
    /// The function of a module's kernel.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create(module: &Arc<Module>, index: usize) -> Result<Arc<Self>, CUresult> {
        let (_, function) = FUNCTIONS.insert_with(|handle| Self {
            handle,
            module: Arc::downgrade(module),
            index,
            settings: Mutex::new(None),
        })?;
        Ok(function)
    }

    fn settings(&self, module: &Module) -> Settings {
        let own = *lock(&self.settings);
        own.unwrap_or_else(|| {
            let library = LIBRARIES.find(module.library);
            let kernel = library.and_then(|library| library.kernels.get(self.index).cloned());
            match (kernel, module.owner.upgrade()) {
                (Some(kernel), Some(active)) => kernel.settings(active.device.ordinal),
                _ => Settings::default(),
            }
        })
    }

    /// Changes its settings.
    pub(crate) fn set(&self, module: &Module, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings(module);
        change(&mut settings);
        *lock(&self.settings) = Some(settings);
    }
}

impl LibraryKernel {
    /// What was set of it for a device.
    pub(crate) fn settings(&self, device: CUdevice) -> Settings {
        lock(&self.settings).get(&device).copied().unwrap_or_default()
    }

    /// Changes its settings for a device.
    pub(crate) fn set(&self, device: CUdevice, change: impl FnOnce(&mut Settings)) {
        change(lock(&self.settings).entry(device).or_default());
    }
}

impl Library {
    /// Makes a library of code, or of the reason why there is none.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create(code: Result<Arc<Code>, CUresult>) -> Result<CUlibrary, CUresult> {
        let count = code.as_ref().map_or(0, |code| code.program.kernels().len());
        let (handle, _) = LIBRARIES.insert_shared_with(|handle| {
            Arc::new_cyclic(|library| {
                let kernel = |index| {
                    let make = |handle| {
                        let settings = Mutex::default();
                        LibraryKernel { handle, library: Weak::clone(library), index, settings }
                    };
                    KERNELS.insert_with(make).ok().map(|(_, kernel)| kernel)
                };
                Self {
                    handle,
                    code,
                    kernels: (0..count).filter_map(kernel).collect(),
                    managed: OnceLock::new(),
                }
            })
        })?;
        Ok(handle)
    }

    /// Where its managed variables are, as the program numbers its variables.
    ///
    /// # Errors
    /// What is wrong with the code, or what placing them fails with.
    pub(crate) fn managed(&self) -> Result<&[Option<u64>], CUresult> {
        static PLACING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = lock(&PLACING);
        if let Some(placed) = self.managed.get() {
            return Ok(placed);
        }
        let placed = module::place_managed(&self.code.as_ref().map_err(|error| *error)?.program)?;
        Ok(self.managed.get_or_init(|| placed))
    }

    /// Frees its managed variables. The caller has waited for the work that uses them.
    pub(crate) fn free_managed(&self) {
        let placed = self.managed.get().into_iter().flatten().flatten();
        for held in placed.filter_map(|address| super::allocation::starting_at(*address)) {
            crate::api::memory::give_back(&held);
        }
    }

    /// Its module in a context, made when first asked for.
    ///
    /// # Errors
    /// What is wrong with the code, or what loading it fails with.
    pub(crate) fn module(&self, active: &Arc<Active>) -> Result<Arc<Module>, CUresult> {
        let code = self.code.clone()?;
        let managed = self.managed()?;
        let mut modules = lock(&active.libraries);
        if let Some(module) = modules.get(&self.handle) {
            return Ok(Arc::clone(module));
        }
        let module = module::load(active, code, self.handle, managed)?;
        modules.insert(self.handle, Arc::clone(&module));
        Ok(module)
    }
}

/// A kernel ready to be asked about or run in a context.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The code in the context.
    pub(crate) module: Arc<Module>,
    /// Which kernel of it.
    pub(crate) index: usize,
    /// What was set of it.
    pub(crate) settings: Settings,
}

/// What a `CUfunction` argument of a launch or occupancy function names: a function, or a kernel in its place (CUDA
/// driver API, `cuLaunchKernel`).
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE`, or what making the kernel's module fails with.
pub(crate) fn target(active: &Arc<Active>, function: CUfunction) -> Result<Target, CUresult> {
    if let Some(function) = FUNCTIONS.find(function) {
        return target_of(active, &function);
    }
    let kernel = KERNELS.get(CUkernel::from_raw(function.raw()))?;
    let library = kernel.library.upgrade().ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let module = library.module(active)?;
    let settings = kernel.settings(active.device.ordinal);
    Ok(Target { module, index: kernel.index, settings })
}

/// A function in its own context, which must be the given one.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` otherwise.
pub(crate) fn target_of(active: &Active, function: &Function) -> Result<Target, CUresult> {
    let module = function.module.upgrade().filter(|module| module.life == active.life);
    let module = module.ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let settings = function.settings(&module);
    Ok(Target { module, index: function.index, settings })
}

/// The size of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub(crate) dynamic_shared: u32,
    /// Whether all blocks must run at a time.
    pub(crate) cooperative: bool,
}

/// The largest grid.
const MAX_GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];
/// The largest block.
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];

impl Target {
    /// The kernel.
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.module.code.program.kernels()[self.index]
    }

    /// The handle of the function that it is in its context; zero if there are no more handles.
    pub(crate) fn handle(&self) -> u64 {
        self.module
            .functions()
            .ok()
            .and_then(|functions| functions.get(self.index))
            .map_or(0, |found| found.handle.0)
    }

    /// The most threads of a block: `.maxntid` where there is one.
    pub(crate) fn max_threads(&self) -> u32 {
        max_threads(self.kernel())
    }

    /// The most dynamic shared memory of a block.
    pub(crate) fn max_dynamic_shared(&self) -> u32 {
        max_dynamic_shared(self.kernel(), &self.settings)
    }

    /// Checks a launch as the driver does at the call.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a size that is zero or beyond a limit of the device or the kernel;
    /// `CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE` for a cooperative grid that does not fit (all measured).
    pub(crate) fn check(&self, shape: &Shape, multiprocessors: i32) -> Result<(), CUresult> {
        let within = |sizes: &[u32; 3], most: [u32; 3]| {
            sizes.iter().zip(most).all(|(size, most)| (1..=most).contains(size))
        };
        if !within(&shape.grid, MAX_GRID) || !within(&shape.block, MAX_BLOCK) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let threads: u32 = shape.block.iter().product();
        let kernel = self.kernel();
        let required_differs = kernel.required_threads.is_some_and(|required| required != shape.block);
        if threads > self.max_threads() || required_differs || shape.dynamic_shared > self.launchable_shared()
        {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if shape.cooperative {
            let blocks: u64 = shape.grid.iter().map(|size| u64::from(*size)).product();
            let resident = u64::from(self.resident_blocks(threads, shape.dynamic_shared));
            if blocks > resident * u64::from(multiprocessors.unsigned_abs()) {
                return Err(CUresult::ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }

    /// The most dynamic shared memory that a launch may ask for. Without a set limit that is 48 KiB, whatever the
    /// kernel's static shared memory is (measured), as long as both together fit.
    fn launchable_shared(&self) -> u32 {
        let room = SHARED_PER_BLOCK_OPTIN.saturating_sub(self.kernel().static_shared);
        self.settings.dynamic_shared.unwrap_or(0).max(SHARED_PER_BLOCK).min(room)
    }

    /// How many blocks of a size fit on a multiprocessor (CUDA C++ programming guide, "Multiprocessor level": the
    /// least of what threads, registers, shared memory and the number of blocks allow; checked against an H200).
    pub(crate) fn resident_blocks(&self, threads: u32, dynamic_shared: u32) -> u32 {
        let kernel = self.kernel();
        if threads == 0 || threads > MAX_THREADS || dynamic_shared > self.max_dynamic_shared() {
            return 0;
        }
        let warps = threads.div_ceil(32);
        let by_threads = THREADS_PER_MULTIPROCESSOR / 32 / warps;
        let shared = (kernel.static_shared + dynamic_shared + SHARED_RESERVED).next_multiple_of(128);
        let by_shared = SHARED_PER_MULTIPROCESSOR / shared;
        // Registers are given to warps in units of 256; each of the four schedulers has a quarter of them.
        let per_warp = (kernel.registers.max(1) * 32).next_multiple_of(256);
        let by_registers = (REGISTERS / 4 / per_warp * 4) / warps;
        BLOCKS_PER_MULTIPROCESSOR.min(by_threads).min(by_shared).min(by_registers)
    }
}

/// The most threads of a block of a kernel.
pub(crate) fn max_threads(kernel: &Kernel) -> u32 {
    let bound = kernel.max_threads.map(|sizes| sizes.iter().product::<u32>());
    bound.map_or(MAX_THREADS, |bound| bound.min(MAX_THREADS))
}

/// The most dynamic shared memory of a block of a kernel.
pub(crate) fn max_dynamic_shared(kernel: &Kernel, settings: &Settings) -> u32 {
    settings.dynamic_shared.unwrap_or_else(|| SHARED_PER_BLOCK.saturating_sub(kernel.static_shared))
}

/// What a running kernel asks of its context.
struct KernelHost<'a> {
    active: &'a Active,
    heap: u64,
    stack: u32,
}

impl Host for KernelHost<'_> {
    fn print(&self, text: &[u8]) {
        self.active.print(text);
    }

    fn malloc(&self, bytes: u64) -> u64 {
        let mut heap = lock(&self.active.heap);
        let held: u64 = heap.values().sum();
        if bytes == 0 || held.saturating_add(bytes) > self.heap {
            return 0;
        }
        let Some(address) = self.active.device.memory.alloc(bytes) else { return 0 };
        heap.insert(address, bytes);
        address
    }

    fn free(&self, address: u64) {
        if lock(&self.active.heap).remove(&address).is_some() {
            self.active.device.memory.free(address);
        }
    }

    fn set_conditional(&self, handle: u64, value: u32) -> bool {
        Conditional::find(handle).map(|found| found.set(value)).is_some()
    }

    fn multiprocessors(&self) -> u32 {
        self.active.device.multiprocessors.unsigned_abs()
    }

    fn stack_limit(&self) -> u32 {
        self.stack
    }
}

/// Runs a kernel to its end on the calling thread, and notes what became of it.
///
/// # Errors
/// The fault of the kernel, which by then is its context's.
pub(crate) fn run(
    active: &Active,
    target: &Target,
    shape: &Shape,
    parameters: &[u8],
) -> Result<(), CUresult> {
    let launch = Launch {
        program: &target.module.code.program,
        kernel: target.index,
        symbols: &target.module.symbols,
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        cooperative: shape.cooperative,
        depth: 0,
        params: parameters,
    };
    let settings = active.settings().clone();
    // A frame of this machine is not one of a GPU: the application's limit is taken for a sixteenth of ours.
    let stack =
        u32::try_from(settings.stack.saturating_mul(16)).unwrap_or(u32::MAX).clamp(256 << 10, 8 << 20);
    let host = KernelHost { active, heap: settings.heap as u64, stack };
    match exec::run(&launch, &active.device.memory, &host) {
        Ok(_) => Ok(()),
        Err(fault) => {
            let error = fault_result(&fault);
            tell(&fault);
            active.note_fault(error);
            Err(error)
        }
    }
}

/// The error that a fault becomes.
fn fault_result(fault: &Fault) -> CUresult {
    match fault.kind {
        FaultKind::IllegalAddress => CUresult::ERROR_ILLEGAL_ADDRESS,
        FaultKind::MisalignedAddress => CUresult::ERROR_MISALIGNED_ADDRESS,
        FaultKind::IllegalInstruction => CUresult::ERROR_ILLEGAL_INSTRUCTION,
        FaultKind::Assert => CUresult::ERROR_ASSERT,
        FaultKind::InvalidPc => CUresult::ERROR_INVALID_PC,
        FaultKind::InvalidAddressSpace => CUresult::ERROR_INVALID_ADDRESS_SPACE,
        FaultKind::Deadlock => CUresult::ERROR_LAUNCH_TIMEOUT,
        FaultKind::InvalidLaunch => CUresult::ERROR_INVALID_VALUE,
        FaultKind::Trap | FaultKind::StackOverflow | FaultKind::Cancelled => CUresult::ERROR_LAUNCH_FAILED,
    }
}

/// Says on standard error what a GPU cannot say: where a kernel went wrong. An assertion's text is CUDA's own.
fn tell(fault: &Fault) {
    #[expect(clippy::print_stderr, reason = "a failed assertion is reported there by CUDA itself")]
    if fault.kind == FaultKind::Assert {
        eprintln!("{}", fault.message);
    } else if std::env::var_os("PXSOFT_QUIET").is_none() {
        eprintln!("pxsoft: {}", fault.message);
    }
}
