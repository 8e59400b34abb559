//! The audit of memory by NVML: what the GPU's own management library says that a worker's process holds. It sees what no
//! ledger does, the overhead of contexts and modules, and it is no worker's word.
//!
//! The library is opened when the first worker of a real driver is ready; where there is none, there is no audit.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;
use tracing::{info, warn};

/// `nvmlProcessInfo_t` of version 2 and 3 of the calls (nvml.h of CUDA 11 and later).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

const _: () = assert!(size_of::<ProcessInfo>() == 24);

/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// What NVML says where it does not know the memory of a process (`NVML_VALUE_NOT_AVAILABLE`).
const UNKNOWN: c_ulonglong = c_ulonglong::MAX;
/// Processes of one device that are looked at.
const MOST: usize = 1024;

type Init = unsafe extern "C" fn() -> c_int;
type Count = unsafe extern "C" fn(*mut c_uint) -> c_int;
type ByIndex = unsafe extern "C" fn(c_uint, *mut *mut c_void) -> c_int;
type Processes = unsafe extern "C" fn(*mut c_void, *mut c_uint, *mut ProcessInfo) -> c_int;

/// NVML, open and initialised.
#[derive(Debug)]
struct Nvml {
    processes: Processes,
    /// Handles of all devices, as numbers.
    devices: Vec<usize>,
    _library: libloading::Library,
}

/// The audit.
#[derive(Debug, Default)]
pub(super) struct Audit {
    nvml: OnceLock<Option<Nvml>>,
}

impl Audit {
    /// Bytes that the process holds on all devices; `None` where NVML does not know it, or is not there.
    pub(super) fn memory_of(&self, pid: u32) -> Option<u64> {
        self.nvml.get_or_init(|| open("libnvidia-ml.so.1")).as_ref()?.memory_of(pid)
    }
}

fn open(name: &str) -> Option<Nvml> {
    // SAFETY: the system's library of that name, whose constructors do nothing but set itself up.
    let library = match unsafe { libloading::Library::new(name) } {
        Ok(library) => library,
        Err(error) => {
            info!(%error, "no NVML: the memory of workers is not audited");
            return None;
        }
    };
    match initialise(&library) {
        Ok((processes, devices)) => Some(Nvml { processes, devices, _library: library }),
        Err(error) => {
            warn!("NVML cannot be used, the memory of workers is not audited: {error}");
            None
        }
    }
}

fn initialise(library: &libloading::Library) -> Result<(Processes, Vec<usize>), String> {
    let missing = |error: libloading::Error| error.to_string();
    let done = |status: c_int, what: &str| {
        if status == SUCCESS { Ok(()) } else { Err(format!("{what} answers {status}")) }
    };
    // SAFETY: the functions of NVML of these names have these signatures (nvml.h); pointers lead to locals.
    unsafe {
        let init = library.get::<Init>(c"nvmlInit_v2").map_err(missing)?;
        let count = library.get::<Count>(c"nvmlDeviceGetCount_v2").map_err(missing)?;
        let by_index = library.get::<ByIndex>(c"nvmlDeviceGetHandleByIndex_v2").map_err(missing)?;
        let processes =
            library.get::<Processes>(c"nvmlDeviceGetComputeRunningProcesses_v3").map_err(missing)?;
        done(init(), "nvmlInit_v2")?;
        let mut number = 0;
        done(count(&raw mut number), "nvmlDeviceGetCount_v2")?;
        let mut devices = Vec::new();
        for index in 0..number {
            let mut device = std::ptr::null_mut();
            done(by_index(index, &raw mut device), "nvmlDeviceGetHandleByIndex_v2")?;
            devices.push(device.expose_provenance());
        }
        Ok((*processes, devices))
    }
}

impl Nvml {
    fn memory_of(&self, pid: u32) -> Option<u64> {
        let mut sum = None;
        for device in &self.devices {
            let mut found = vec![ProcessInfo::default(); MOST];
            let mut count = c_uint::try_from(MOST).expect("a small number");
            let device = std::ptr::with_exposed_provenance_mut(*device);
            // SAFETY: a device of this library's, and a buffer of the length given.
            let status = unsafe { (self.processes)(device, &raw mut count, found.as_mut_ptr()) };
            if status != SUCCESS {
                continue;
            }
            for process in found
                .iter()
                .take(count as usize)
                .filter(|process| process.pid == pid && process.used != UNKNOWN)
            {
                sum = Some(sum.unwrap_or(0_u64).saturating_add(process.used));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_there_is_no_audit() {
        assert!(open("libno-such-nvml.so.1").is_none());
        // One that is there and is no NVML is told, not believed.
        assert!(open("libc.so.6").is_none());
    }
}
