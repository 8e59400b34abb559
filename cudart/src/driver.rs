//! The libcuda around this crate, as the export tables see it, and its life: installed, shut down, or forked away.
//!
//! Invariants: the driver is installed at most once per process and never removed; a phase only ever moves away from
//! `LIVE`. Everything here is atomics, so that a fork in the middle of any call leaves a usable state in the child.

use std::ffi::{c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::result::{ERROR_DEINITIALIZED, ERROR_NOT_INITIALIZED};
use crate::storage;

/// What the integrity answer says about one device.
///
/// These must be the values that the libcuda's public functions give for the same device, since the runtime computes
/// the same hash from those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// What `cuDeviceGetUuid` (the first version, not `_v2`) answers.
    pub uuid: [u8; 16],
    /// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID` (50).
    pub pci_domain: i32,
    /// `CU_DEVICE_ATTRIBUTE_PCI_BUS_ID` (33).
    pub pci_bus: i32,
    /// `CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID` (34).
    pub pci_device: i32,
}

/// What the export tables ask of the libcuda around them.
///
/// Handles are the C handles as numbers; errors are `CUresult` numbers and reach the caller unchanged. Methods are
/// called on application threads, many at a time, and must not block on this crate's functions. A panic in a method
/// is stopped at the C boundary and answered with `CUDA_ERROR_UNKNOWN`.
pub trait Driver: Sync + 'static {
    /// What `cuDriverGetVersion` answers, e.g. 13000.
    fn driver_version(&self) -> i32;

    /// The devices in the order of `cuDeviceGet`, as many as `cuDeviceGetCount` says.
    fn devices(&self) -> Vec<DeviceIdentity>;

    /// The handle of the device's primary context, without retaining or activating it. `cuDevicePrimaryCtxRetain`
    /// must later give the same handle, and `cuCtxSetCurrent` must accept it before that (the runtime does so).
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_DEVICE` (101) for an ordinal out of range (measured).
    fn primary_context(&self, device: i32) -> Result<u64, u32>;

    /// The calling thread's current context, 0 for none. Called in every runtime call: a read of a thread local.
    fn current_context(&self) -> u64;

    /// Whether a context can be worked in: false for a primary context that is not (or no longer) retained, and for
    /// one that was destroyed. Asked only where the answer changes an error.
    fn context_is_active(&self, _context: u64) -> bool {
        true
    }

    /// What `cuCtxGetId` gives for a context; 0 asks for the current one.
    ///
    /// # Errors
    /// Those of `cuCtxGetId`.
    fn context_id(&self, context: u64) -> Result<u64, u32>;

    /// What `cuStreamGetId` gives for a stream of a context (0 = current). Streams 0, 1 and 2 are the default ones.
    ///
    /// # Errors
    /// Those of `cuStreamGetId`.
    fn stream_id(&self, context: u64, stream: u64) -> Result<u64, u32>;

    /// Loads a module into the current context from what `cuModuleLoadData` accepts, or from the wrapper around it
    /// ([`crate::image::inspect`] tells them apart). The CUDA runtime 11.x loads its kernels this way.
    ///
    /// # Errors
    /// Those of `cuModuleLoadData`.
    fn module_load(&self, image: *const c_void) -> Result<u64, u32>;

    /// The kernels of a module, as handles that every function of the driver API accepts as a `CUfunction`.
    ///
    /// # Errors
    /// Those of `cuModuleEnumerateFunctions`.
    fn module_functions(&self, module: u64) -> Result<Vec<u64>, u32>;

    /// The name of one of those kernels, as `cuFuncGetName` gives it: a C string that lives as long as its module; null
    /// where the libcuda cannot tell.
    fn function_name(&self, _function: u64) -> *const c_char {
        std::ptr::null()
    }

    /// Told of each call to a table slot that is not implemented, so that the program's failure can be explained.
    /// The caller gets `CUDA_ERROR_NOT_SUPPORTED`.
    fn unsupported_slot(&self, _table: &'static str, _slot: usize) {}
}

static DRIVER: OnceLock<&'static dyn Driver> = OnceLock::new();

/// `LIVE`, `SHUT_DOWN` or `FORKED`. `Relaxed` throughout: it publishes no other memory.
static PHASE: AtomicU8 = AtomicU8::new(LIVE);
const LIVE: u8 = 0;
const SHUT_DOWN: u8 = 1;
const FORKED: u8 = 2;

/// Gives the tables the driver to ask, at the end of a successful `cuInit`.
///
/// Until then the tables can be requested and called, and answer `CUDA_ERROR_NOT_INITIALIZED` as the real ones do.
/// The first driver stays for the life of the process; returns false if there was one already.
pub fn install(driver: &'static dyn Driver) -> bool {
    DRIVER.set(driver).is_ok()
}

/// The driver's own exit handler ran: from now on the tables answer `CUDA_ERROR_DEINITIALIZED`, which the runtime's
/// later teardown (storage delete, library unload, primary context release) takes for "nothing left to do".
pub fn shut_down() {
    // A forked child that exits stays forked: the first phase to be left wins.
    let _ = PHASE.compare_exchange(LIVE, SHUT_DOWN, Ordering::Relaxed, Ordering::Relaxed);
    storage::forget_cached();
}

/// Poisons the tables in the child of a fork: they answer `CUDA_ERROR_NOT_INITIALIZED` from now on, and no
/// destructor of the parent's entries runs. Only stores to atomics, hence safe in a `pthread_atfork` child handler.
pub fn after_fork_child() {
    PHASE.store(FORKED, Ordering::Relaxed);
    storage::forget_cached();
}

/// The installed driver, or why there is none to ask.
pub(crate) fn driver() -> Result<&'static dyn Driver, u32> {
    match PHASE.load(Ordering::Relaxed) {
        LIVE => installed().ok_or(ERROR_NOT_INITIALIZED),
        SHUT_DOWN => Err(ERROR_DEINITIALIZED),
        _ => Err(ERROR_NOT_INITIALIZED),
    }
}

/// The installed driver in whatever phase the process is.
#[inline]
pub(crate) fn installed() -> Option<&'static dyn Driver> {
    DRIVER.get().copied()
}

/// Whether the process is neither past the driver's exit handler nor the child of a fork. In a child, a lock may be held
/// by a thread that it does not have.
pub(crate) fn is_live() -> bool {
    PHASE.load(Ordering::Relaxed) == LIVE
}
