//! The host's NVML: what the GPU's own management library says of devices and processes.
//!
//! Two use it. The audit of memory asks what a worker's process holds: that sees what no ledger does, the overhead of
//! contexts and modules, and is no worker's word. [`super::monitor`] asks for facts of boards and, where the operator lets
//! guests see them, for sensors. The library is opened when it is first asked; where there is none, all answers are `None`.

use parking_lot::Mutex;
use pxos_protocol::monitor::{Board, Sensors};
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
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

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct MemoryInfo {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlPciInfo_t` of version 3 of the call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PciInfo {
    bus_id_legacy: [u8; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device: c_uint,
    pci_subsystem: c_uint,
    bus_id: [[u8; 16]; 2],
}

const _: () = assert!(size_of::<PciInfo>() == 68);

/// `nvmlFieldValue_t`; the value is a union, of which the least significant word is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency: i64,
    kind: c_uint,
    status: c_int,
    value: u64,
}

const _: () = assert!(size_of::<FieldValue>() == 40);

/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// What NVML says where it does not know the memory of a process (`NVML_VALUE_NOT_AVAILABLE`).
const UNKNOWN: c_ulonglong = c_ulonglong::MAX;
/// `NVML_FI_DEV_MEMORY_TEMP`.
const MEMORY_TEMPERATURE: c_uint = 82;
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// Processes of one device that are looked at.
const MOST: usize = 1024;
/// How old sensors' readings may be: guests that ask all the time cost the host a reading this often, and see the load of
/// others no finer.
const FRESH: Duration = Duration::from_millis(100);

type Handle = *mut c_void;
type Init = unsafe extern "C" fn() -> c_int;
type Count = unsafe extern "C" fn(*mut c_uint) -> c_int;
type ByIndex = unsafe extern "C" fn(c_uint, *mut Handle) -> c_int;
type Processes = unsafe extern "C" fn(Handle, *mut c_uint, *mut ProcessInfo) -> c_int;
type Text = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_int;
type Number = unsafe extern "C" fn(Handle, *mut c_uint) -> c_int;
type Long = unsafe extern "C" fn(Handle, *mut c_ulonglong) -> c_int;
type Indexed = unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_int;
type Pair = unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> c_int;
type Pci = unsafe extern "C" fn(Handle, *mut PciInfo) -> c_int;
type Memory = unsafe extern "C" fn(Handle, *mut MemoryInfo) -> c_int;
type Fields = unsafe extern "C" fn(Handle, c_int, *mut FieldValue) -> c_int;
type SystemText = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;

/// NVML, open and initialised.
#[derive(Debug)]
struct Open {
    processes: Processes,
    devices: Vec<Device>,
    driver: String,
    library: libloading::Library,
}

/// A device of it.
#[derive(Debug)]
struct Device {
    /// Its handle, as a number.
    handle: usize,
    uuid: [u8; 16],
    board: Board,
    sensors: Mutex<Option<(Instant, Sensors)>>,
}

/// The host's NVML.
#[derive(Debug, Default)]
pub(super) struct Nvml(OnceLock<Option<Open>>);

impl Nvml {
    fn open(&self) -> Option<&Open> {
        self.0.get_or_init(|| open("libnvidia-ml.so.1")).as_ref()
    }

    /// Bytes that the process holds on all devices; `None` where NVML does not know it, or is not there.
    pub(super) fn memory_of(&self, pid: u32) -> Option<u64> {
        self.open()?.memory_of(pid)
    }

    /// Version of the driver.
    pub(super) fn driver(&self) -> Option<String> {
        Some(self.open()?.driver.clone()).filter(|driver| !driver.is_empty())
    }

    /// Facts of the device with that UUID.
    pub(super) fn board(&self, uuid: [u8; 16]) -> Option<Board> {
        self.open()?.device(uuid).map(|device| device.board.clone())
    }

    /// Bytes of its memory that nobody holds.
    pub(super) fn free(&self, uuid: [u8; 16]) -> Option<u64> {
        let open = self.open()?;
        open.free(open.device(uuid)?)
    }

    /// What it measures, not older than [`FRESH`].
    pub(super) fn sensors(&self, uuid: [u8; 16]) -> Option<Sensors> {
        let open = self.open()?;
        let device = open.device(uuid)?;
        let mut last = device.sensors.lock();
        if let Some((at, sensors)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(sensors.clone());
        }
        let sensors = open.sensors(device);
        *last = Some((Instant::now(), sensors.clone()));
        Some(sensors)
    }
}

fn open(name: &str) -> Option<Open> {
    // SAFETY: the system's library of that name, whose constructors do nothing but set itself up.
    let library = match unsafe { libloading::Library::new(name) } {
        Ok(library) => library,
        Err(error) => {
            info!(%error, "no NVML: the memory of workers is not audited, guests see no sensors");
            return None;
        }
    };
    match initialise(library) {
        Ok(open) => Some(open),
        Err(error) => {
            warn!("NVML cannot be used, the memory of workers is not audited: {error}");
            None
        }
    }
}

fn initialise(library: libloading::Library) -> Result<Open, String> {
    let missing = |error: libloading::Error| error.to_string();
    let done = |status: c_int, what: &str| {
        if status == SUCCESS { Ok(()) } else { Err(format!("{what} answers {status}")) }
    };
    let mut handles = Vec::new();
    // SAFETY: the functions of NVML of these names have these signatures (nvml.h); pointers lead to locals.
    let processes = unsafe {
        let init = library.get::<Init>(c"nvmlInit_v2").map_err(missing)?;
        let count = library.get::<Count>(c"nvmlDeviceGetCount_v2").map_err(missing)?;
        let by_index = library.get::<ByIndex>(c"nvmlDeviceGetHandleByIndex_v2").map_err(missing)?;
        let processes =
            library.get::<Processes>(c"nvmlDeviceGetComputeRunningProcesses_v3").map_err(missing)?;
        done(init(), "nvmlInit_v2")?;
        let mut number = 0;
        done(count(&raw mut number), "nvmlDeviceGetCount_v2")?;
        for index in 0..number {
            let mut device = std::ptr::null_mut();
            done(by_index(index, &raw mut device), "nvmlDeviceGetHandleByIndex_v2")?;
            handles.push(device.expose_provenance());
        }
        *processes
    };
    let mut open = Open { processes, devices: Vec::new(), driver: String::new(), library };
    open.driver = open.driver_version();
    open.devices = handles.into_iter().map(|handle| open.describe(handle)).collect();
    Ok(open)
}

/// The bytes of `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; zeros where it is none.
fn uuid(text: &str) -> [u8; 16] {
    let digits: Vec<u8> = text.trim_start_matches("GPU-").bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    bytes
}

/// Text up to its end, fit for a guest's screen.
fn until_end(buffer: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(buffer).unwrap_or_default();
    crate::log::printable(&text.to_string_lossy(), 96)
}

impl Open {
    fn device(&self, uuid: [u8; 16]) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid)
    }

    /// A function of the library, where it has one of that name.
    ///
    /// # Safety
    /// The function of that name has the signature `F`.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the caller's.
        unsafe { self.library.get::<F>(name) }.ok().map(|symbol| *symbol)
    }

    fn driver_version(&self) -> String {
        let mut buffer = [0_u8; 96];
        // SAFETY: its signature in nvml.h.
        let Some(call) = (unsafe { self.function::<SystemText>(c"nvmlSystemGetDriverVersion") }) else {
            return String::new();
        };
        // SAFETY: a buffer of the length given.
        let status = unsafe { call(buffer.as_mut_ptr().cast(), 80) };
        if status == SUCCESS { until_end(&buffer) } else { String::new() }
    }

    /// Asks a function that writes one number.
    fn number(&self, handle: usize, name: &CStr) -> Option<u32> {
        let mut value = 0;
        // SAFETY: only names of functions of this signature are given here.
        let call = unsafe { self.function::<Number>(name) }?;
        // SAFETY: a device of this library's, and a pointer to a local.
        let status = unsafe { call(std::ptr::with_exposed_provenance_mut(handle), &raw mut value) };
        (status == SUCCESS).then_some(value)
    }

    /// Asks a function that writes one number of 64 bits.
    fn long(&self, handle: usize, name: &CStr) -> Option<u64> {
        let mut value = 0;
        // SAFETY: only names of functions of this signature are given here.
        let call = unsafe { self.function::<Long>(name) }?;
        // SAFETY: as above.
        let status = unsafe { call(std::ptr::with_exposed_provenance_mut(handle), &raw mut value) };
        (status == SUCCESS).then_some(value)
    }

    /// Asks a function that takes a kind and writes one number.
    fn indexed(&self, handle: usize, name: &CStr, index: c_uint) -> Option<u32> {
        let mut value = 0;
        // SAFETY: only names of functions of this signature are given here.
        let call = unsafe { self.function::<Indexed>(name) }?;
        // SAFETY: as above.
        let status = unsafe { call(std::ptr::with_exposed_provenance_mut(handle), index, &raw mut value) };
        (status == SUCCESS).then_some(value)
    }

    fn text(&self, handle: usize, name: &CStr) -> Option<String> {
        let mut buffer = [0_u8; 97];
        // SAFETY: only names of functions of this signature are given here.
        let call = unsafe { self.function::<Text>(name) }?;
        // SAFETY: a device of this library's, and a buffer of at least the length given.
        let status =
            unsafe { call(std::ptr::with_exposed_provenance_mut(handle), buffer.as_mut_ptr().cast(), 96) };
        (status == SUCCESS).then(|| until_end(&buffer))
    }

    fn describe(&self, handle: usize) -> Device {
        let device = std::ptr::with_exposed_provenance_mut(handle);
        let mut pci = PciInfo::default();
        // SAFETY: its signature in nvml.h, a device of this library's, a pointer to a local.
        let has_pci = unsafe { self.function::<Pci>(c"nvmlDeviceGetPciInfo_v3") }
            .is_some_and(|call| unsafe { call(device, &raw mut pci) } == SUCCESS);
        let (mut least, mut most) = (0, 0);
        // SAFETY: as above.
        let has_limits = unsafe { self.function::<Pair>(c"nvmlDeviceGetPowerManagementLimitConstraints") }
            .is_some_and(|call| unsafe { call(device, &raw mut least, &raw mut most) } == SUCCESS);
        let board = Board {
            pci_device: has_pci.then_some(pci.pci_device),
            pci_subsystem: has_pci.then_some(pci.pci_subsystem),
            brand: self.number(handle, c"nvmlDeviceGetBrand"),
            vbios: self.text(handle, c"nvmlDeviceGetVbiosVersion"),
            part_number: self.text(handle, c"nvmlDeviceGetBoardPartNumber"),
            max_clocks: [0, 1, 2, 3].map(|kind| self.indexed(handle, c"nvmlDeviceGetMaxClockInfo", kind)),
            thresholds: [0, 1, 2, 3]
                .map(|kind| self.indexed(handle, c"nvmlDeviceGetTemperatureThreshold", kind)),
            power_limits: [
                self.number(handle, c"nvmlDeviceGetPowerManagementDefaultLimit"),
                has_limits.then_some(least),
                has_limits.then_some(most),
            ],
            pcie: [
                self.number(handle, c"nvmlDeviceGetMaxPcieLinkGeneration"),
                self.number(handle, c"nvmlDeviceGetMaxPcieLinkWidth"),
            ],
        };
        let uuid = self.text(handle, c"nvmlDeviceGetUUID").map_or([0; 16], |text| uuid(&text));
        Device { handle, uuid, board, sensors: Mutex::default() }
    }

    fn free(&self, device: &Device) -> Option<u64> {
        let mut memory = MemoryInfo::default();
        // SAFETY: its signature in nvml.h.
        let call = unsafe { self.function::<Memory>(c"nvmlDeviceGetMemoryInfo") }?;
        // SAFETY: a device of this library's, a pointer to a local.
        let status = unsafe { call(std::ptr::with_exposed_provenance_mut(device.handle), &raw mut memory) };
        (status == SUCCESS).then_some(memory.free)
    }

    fn sensors(&self, device: &Device) -> Sensors {
        let handle = device.handle;
        Sensors {
            temperature: self.indexed(handle, c"nvmlDeviceGetTemperature", TEMPERATURE_GPU),
            memory_temperature: self.memory_temperature(handle),
            fan: self.number(handle, c"nvmlDeviceGetFanSpeed"),
            power: self.number(handle, c"nvmlDeviceGetPowerUsage"),
            power_limit: self.number(handle, c"nvmlDeviceGetEnforcedPowerLimit"),
            energy: self.long(handle, c"nvmlDeviceGetTotalEnergyConsumption"),
            clocks: [0, 1, 2, 3].map(|kind| self.indexed(handle, c"nvmlDeviceGetClockInfo", kind)),
            performance_state: self.number(handle, c"nvmlDeviceGetPerformanceState"),
            clock_reasons: self.long(handle, c"nvmlDeviceGetCurrentClocksThrottleReasons"),
            pcie: [
                self.number(handle, c"nvmlDeviceGetCurrPcieLinkGeneration"),
                self.number(handle, c"nvmlDeviceGetCurrPcieLinkWidth"),
            ],
        }
    }

    fn memory_temperature(&self, handle: usize) -> Option<u32> {
        let mut field = FieldValue { field: MEMORY_TEMPERATURE, ..FieldValue::default() };
        // SAFETY: its signature in nvml.h.
        let call = unsafe { self.function::<Fields>(c"nvmlDeviceGetFieldValues") }?;
        // SAFETY: a device of this library's, and one field.
        let status = unsafe { call(std::ptr::with_exposed_provenance_mut(handle), 1, &raw mut field) };
        let read = status == SUCCESS && field.status == SUCCESS;
        read.then(|| u32::try_from(field.value & u64::from(u32::MAX)).unwrap_or(0))
    }

    fn memory_of(&self, pid: u32) -> Option<u64> {
        let mut sum = None;
        for device in &self.devices {
            let mut found = vec![ProcessInfo::default(); MOST];
            let mut count = c_uint::try_from(MOST).expect("a small number");
            let device = std::ptr::with_exposed_provenance_mut(device.handle);
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
    fn without_the_library_there_is_no_answer() {
        assert!(open("libno-such-nvml.so.1").is_none());
        // One that is there and is no NVML is told, not believed.
        assert!(open("libc.so.6").is_none());
    }

    #[test]
    fn a_uuid_is_read_as_nvml_writes_it() {
        let bytes = uuid("GPU-00010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(uuid(""), [0; 16]);
    }
}
