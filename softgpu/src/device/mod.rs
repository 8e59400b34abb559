//! The software device: what the driver API manages. Engines run on it and know nothing of the API above.
//!
//! [`platform`] is the process's one set of devices, made by `cuInit`; each [`Device`] has its memory and its primary
//! context; a [`context::Context`] has streams, events, modules and allocations. Nothing here exists, and no thread
//! runs, before `cuInit`, and nothing of it is touched in the child of a fork.

pub(crate) mod allocation;
pub(crate) mod array;
pub(crate) mod attribute;
pub(crate) mod capture;
pub(crate) mod conditional;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod graph;
mod graph_run;
pub(crate) mod ipc;
pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod marker;
pub mod memory;
pub(crate) mod module;
pub(crate) mod operation;
pub(crate) mod physical;
pub(crate) mod pool;
mod sampling;
mod shared_point;
pub(crate) mod stream;
pub(crate) mod table;
pub mod texture;
pub(crate) mod user_object;
mod visible;

use context::Context;
use memory::Memory;
use pxos_protocol::types::{CUdevice, CUmemoryPool, CUresult};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// All devices of the process.
#[derive(Debug)]
pub(crate) struct Platform {
    devices: Vec<Arc<Device>>,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its number in this process.
    pub(crate) ordinal: CUdevice,
    /// Its number among all devices, of which `CUDA_VISIBLE_DEVICES` shows the process some.
    pub(crate) board: i32,
    /// Its memory.
    pub(crate) memory: Memory,
    /// How many multiprocessors it claims to have.
    pub(crate) multiprocessors: i32,
    /// The fault that a kernel caused, 0 for none. It outlives the context: no new one can be made on this device
    /// until the process ends (measured).
    fault: AtomicU32,
    /// The primary context: its handle never changes, whether it is active or not (measured).
    primary: OnceLock<Arc<Context>>,
    /// The pool that stream-ordered allocations come from when none is named, and the one it was at first.
    pools: Mutex<Pools>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pools {
    original: CUmemoryPool,
    current: CUmemoryPool,
}

impl Device {
    /// The primary context, active or not.
    pub(crate) fn primary(&self) -> Arc<Context> {
        Arc::clone(self.primary.get().expect("made with the device"))
    }

    /// The fault that made the device unusable to this process.
    pub(crate) fn fault(&self) -> Result<(), CUresult> {
        CUresult(self.fault.load(Ordering::Acquire)).ok()
    }

    /// Notes a fault; the first one stays.
    pub(crate) fn note_fault(&self, fault: CUresult) {
        // Only the first fault counts, so a failed exchange is as good.
        let _ = self.fault.compare_exchange(0, fault.0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The pool that the device was made with.
    pub(crate) fn original_pool(&self) -> CUmemoryPool {
        self.pools().original
    }

    /// The pool that allocations come from now.
    pub(crate) fn current_pool(&self) -> CUmemoryPool {
        self.pools().current
    }

    /// Changes it.
    pub(crate) fn set_current_pool(&self, pool: CUmemoryPool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).current = pool;
    }

    fn pools(&self) -> Pools {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platform {
    /// Every device, by ordinal.
    pub(crate) fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// The device with a number, or `CUDA_ERROR_INVALID_DEVICE`.
    pub(crate) fn device(&self, ordinal: CUdevice) -> Result<&Arc<Device>, CUresult> {
        let index = usize::try_from(ordinal).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
        self.devices.get(index).ok_or(CUresult::ERROR_INVALID_DEVICE)
    }
}

static PLATFORM: OnceLock<Result<Platform, CUresult>> = OnceLock::new();

/// `LIVE`, `FORKED` or `ENDED`; publishes no other memory.
static PHASE: AtomicU8 = AtomicU8::new(LIVE);
const LIVE: u8 = 0;
const FORKED: u8 = 1;
const ENDED: u8 = 2;

/// The process's devices.
///
/// # Errors
/// `CUDA_ERROR_NOT_INITIALIZED` before `cuInit` and in the child of a fork, `CUDA_ERROR_DEINITIALIZED` once the process
/// is past this library's exit handler, or what `cuInit` failed with.
pub(crate) fn platform() -> Result<&'static Platform, CUresult> {
    match PHASE.load(Ordering::Relaxed) {
        LIVE => {}
        ENDED => return Err(CUresult::ERROR_DEINITIALIZED),
        _ => return Err(CUresult::ERROR_NOT_INITIALIZED),
    }
    match PLATFORM.get() {
        Some(Ok(platform)) => Ok(platform),
        Some(Err(_)) | None => Err(CUresult::ERROR_NOT_INITIALIZED),
    }
}

/// Makes the devices, once: `PXSOFT_DEVICES` of them (default 1), each with `PXSOFT_MEMORY` MiB (default 4096) and
/// `PXSOFT_MULTIPROCESSORS` multiprocessors (default 16); of these, `CUDA_VISIBLE_DEVICES` says which the process sees.
///
/// # Errors
/// `CUDA_ERROR_NO_DEVICE` where none is left, `CUDA_ERROR_OUT_OF_MEMORY` when their addresses cannot be reserved,
/// `CUDA_ERROR_NOT_INITIALIZED` in the child of a fork.
pub(crate) fn initialise() -> Result<&'static Platform, CUresult> {
    if PHASE.load(Ordering::Relaxed) == LIVE {
        let made = PLATFORM.get_or_init(|| {
            let platform = make()?;
            // SAFETY: the handlers are plain functions that touch atomics only.
            unsafe {
                libc::pthread_atfork(None, None, Some(forked));
                libc::atexit(ended);
            }
            Ok(platform)
        });
        if let Err(error) = made {
            return Err(*error);
        }
    }
    let platform = platform()?;
    if let Some(threads) =
        std::env::var("PXSOFT_THREADS").ok().and_then(|text| text.trim().parse::<usize>().ok())
    {
        crate::exec::set_helpers(threads.saturating_sub(1));
    }
    // The primary contexts and pools refer to their device, so they are made after it; whoever comes first does it.
    for device in &platform.devices {
        device.primary.get_or_init(|| Context::primary(device));
        let mut pools = device.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.original.is_null() {
            let pool = pool::Pool::create(device.ordinal, 0, pool::Sharing::Private)?;
            *pools = Pools { original: pool, current: pool };
        }
    }
    Ok(platform)
}

fn make() -> Result<Platform, CUresult> {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(default)
    };
    let count = i32::try_from(number("PXSOFT_DEVICES", 1)).unwrap_or(1).min(64);
    let wanted = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let boards = visible::boards(count, wanted.as_deref());
    if boards.is_empty() {
        return Err(CUresult::ERROR_NO_DEVICE);
    }
    let bytes = number("PXSOFT_MEMORY", 4096).max(1).saturating_mul(1 << 20);
    let multiprocessors = i32::try_from(number("PXSOFT_MULTIPROCESSORS", 16)).unwrap_or(16).clamp(1, 1024);
    let devices = (0..)
        .zip(boards)
        .map(|(ordinal, board)| {
            let memory = Memory::new(bytes).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
            Ok(Arc::new(Device {
                ordinal,
                board,
                memory,
                multiprocessors,
                fault: AtomicU32::new(0),
                primary: OnceLock::new(),
                pools: Mutex::default(),
            }))
        })
        .collect::<Result<_, CUresult>>()?;
    Ok(Platform { devices })
}

extern "C" fn forked() {
    PHASE.store(FORKED, Ordering::Relaxed);
    pxos_cudart::after_fork_child();
}

extern "C" fn ended() {
    // A forked child that exits stays forked.
    let _ = PHASE.compare_exchange(LIVE, ENDED, Ordering::Relaxed, Ordering::Relaxed);
    pxos_cudart::shut_down();
}
