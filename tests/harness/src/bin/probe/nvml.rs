//! What NVML says, beside what the driver API says of the same.

use super::driver::{Driver, find, open};
use std::ffi::{CStr, c_uint, c_ulonglong, c_void};
use std::fmt::Write as _;

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    instances: [c_uint; 2],
}

/// NVML, opened by the name that programs know it by.
pub(crate) struct Nvml(*mut c_void);

/// A function of up to four words, which is how far the functions that are called here go.
type Call = unsafe extern "C" fn(usize, usize, usize, usize) -> u32;

impl Nvml {
    /// Opens it.
    pub(crate) fn open() -> Result<Self, String> {
        open("libnvidia-ml.so.1").map(Self)
    }

    fn call(&self, name: &str, words: [usize; 4]) -> Result<u32, String> {
        let address = find(self.0, &format!("{name}\0"))?;
        // SAFETY: functions of C that take up to four words, and ignore words that are too many.
        let call = unsafe { std::mem::transmute::<*mut c_void, Call>(address) };
        // SAFETY: pointers among the words lead to locals of the callers here.
        Ok(unsafe { call(words[0], words[1], words[2], words[3]) })
    }

    /// A call that has to succeed.
    fn done(&self, name: &str, words: [usize; 4]) -> Result<(), String> {
        match self.call(name, words)? {
            0 => Ok(()),
            error => Err(format!("{name} answers {error}")),
        }
    }

    fn device(&self) -> Result<usize, String> {
        let mut device = 0_usize;
        self.done("nvmlDeviceGetHandleByIndex_v2", [0, (&raw mut device) as usize, 0, 0])?;
        Ok(device)
    }

    /// Does one thing; what its line says.
    pub(crate) fn run(&self, what: &str, driver: &Driver) -> Result<String, String> {
        match what {
            "init" => Ok(self.call("nvmlInit_v2", [0; 4])?.to_string()),
            "shutdown" => Ok(self.call("nvmlShutdown", [0; 4])?.to_string()),
            "memory" => self.memory(),
            "processes" => self.processes(),
            "share" => self.share(),
            "sensors" => self.sensors(),
            "device" => self.identity(driver),
            list if list.starts_with('/') => self.all(list),
            other => Err(format!("nvml {other}: no such thing")),
        }
    }

    /// Total, free and used bytes, which both versions of the call have to agree on.
    fn memory(&self) -> Result<String, String> {
        let device = self.device()?;
        let mut one = [0_u64; 3];
        let mut two = [0x0200_0028_u64, 0, 0, 0, 0];
        self.done("nvmlDeviceGetMemoryInfo", [device, one.as_mut_ptr() as usize, 0, 0])?;
        self.done("nvmlDeviceGetMemoryInfo_v2", [device, two.as_mut_ptr() as usize, 0, 0])?;
        if (one[0], one[1], one[2], 0) != (two[1], two[3], two[4], two[2]) {
            return Err(format!("version 1 says {one:?}, version 2 {two:?}"));
        }
        Ok(format!("{} {} {}", one[0], one[1], one[2]))
    }

    /// Numbers and bytes of all processes.
    fn processes(&self) -> Result<String, String> {
        let device = self.device()?;
        let mut list = [ProcessInfo::default(); 16];
        let mut count: c_uint = 16;
        let words = [device, (&raw mut count) as usize, list.as_mut_ptr() as usize, 0];
        self.done("nvmlDeviceGetComputeRunningProcesses_v3", words)?;
        let mut line = String::new();
        for process in &list[..count as usize] {
            write!(line, "{}:{} ", process.pid, process.used).map_err(|error| error.to_string())?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// Percent of device time of the VM and of this process.
    fn share(&self) -> Result<String, String> {
        let device = self.device()?;
        let mut rates = [0_u32; 2];
        self.done("nvmlDeviceGetUtilizationRates", [device, rates.as_mut_ptr() as usize, 0, 0])?;
        // `nvmlProcessUtilizationSample_t`: number, time, then shares of 32 bits.
        let mut samples = [[0_u64; 4]; 16];
        let mut count: c_uint = 16;
        let words = [device, samples.as_mut_ptr() as usize, (&raw mut count) as usize, 0];
        self.done("nvmlDeviceGetProcessUtilization", words)?;
        let number = |word: u64| word & u64::from(u32::MAX);
        let own = samples[..count as usize]
            .iter()
            .find(|sample| number(sample[0]) == u64::from(std::process::id()));
        Ok(format!("{} {}", rates[0], own.map_or(0, |sample| number(sample[2]))))
    }

    /// Temperature, power and clock, or the errors that stand for them.
    fn sensors(&self) -> Result<String, String> {
        let device = self.device()?;
        let mut line = String::new();
        for (name, has_kind) in [
            ("nvmlDeviceGetTemperature", true),
            ("nvmlDeviceGetPowerUsage", false),
            ("nvmlDeviceGetClockInfo", true),
            ("nvmlDeviceGetMaxClockInfo", true),
        ] {
            let mut value: c_uint = 0;
            let to = (&raw mut value) as usize;
            let status = self.call(name, if has_kind { [device, 0, to, 0] } else { [device, to, 0, 0] })?;
            let word = if status == 0 { value.to_string() } else { format!("error-{status}") };
            write!(line, "{word} ").map_err(|error| error.to_string())?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// Name, UUID, bus id and compute capability by NVML, and then by the driver API.
    fn identity(&self, driver: &Driver) -> Result<String, String> {
        let device = self.device()?;
        let text = |name: &str| -> Result<String, String> {
            let mut buffer = [0_i8; 96];
            self.done(name, [device, buffer.as_mut_ptr() as usize, 96, 0])?;
            Ok(until_end(&buffer))
        };
        let mut pci = [0_u8; 68];
        self.done("nvmlDeviceGetPciInfo_v3", [device, pci.as_mut_ptr() as usize, 0, 0])?;
        // The bus id in the form of the driver API has four digits of the domain.
        let bus = String::from_utf8_lossy(&pci[40..52]).into_owned();
        let (name, uuid) = (text("nvmlDeviceGetName")?, text("nvmlDeviceGetUUID")?);

        let mut buffer = [0_i8; 96];
        let mut bytes = [0_u8; 16];
        let own = |call: &str, words: [u64; 8]| match driver.call(call, words)? {
            0 => Ok(()),
            error => Err(format!("{call} answers {}", driver.name(error))),
        };
        own("cuDeviceGetName", [buffer.as_mut_ptr() as u64, 96, 0, 0, 0, 0, 0, 0])?;
        let own_name = until_end(&buffer);
        own("cuDeviceGetUuid", [bytes.as_mut_ptr() as u64, 0, 0, 0, 0, 0, 0, 0])?;
        own("cuDeviceGetPCIBusId", [buffer.as_mut_ptr() as u64, 96, 0, 0, 0, 0, 0, 0])?;
        let own_bus = until_end(&buffer);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let same =
            |one: &str, other: &str| if one.eq_ignore_ascii_case(other) { "same" } else { "DIFFERENT" };
        Ok(format!(
            "{name}, {uuid}, {bus}: name {}, uuid {}, bus {}",
            same(&name, &own_name),
            same(&uuid.replace("GPU-", "").replace('-', ""), &digits),
            same(&bus, &own_bus)
        ))
    }

    /// Calls every function of a list with zeros; how many there were, and how many answered success.
    fn all(&self, list: &str) -> Result<String, String> {
        let names = std::fs::read_to_string(list).map_err(|error| error.to_string())?;
        let (mut count, mut good) = (0, Vec::new());
        for name in names.lines().filter(|name| !["nvmlErrorString", "nvmlShutdown"].contains(name)) {
            if self.call(name, [0; 4])? == 0 {
                good.push(name);
            }
            count += 1;
        }
        Ok(format!("{count} called, success: {}", good.join(" ")))
    }
}

fn until_end(buffer: &[i8]) -> String {
    // SAFETY: a buffer that was zero and is longer than any of the texts.
    unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned()
}
