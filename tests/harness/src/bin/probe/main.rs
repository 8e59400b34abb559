//! A guest program for scenarios: does what its arguments say, one after the other, and prints a line for each with the
//! result's name. It needs no compiler for CUDA, and links with no libcuda.
//!
//! | arguments | what it does |
//! | --- | --- |
//! | `init` | `cuInit`, the first device's primary context, the module of the kernels |
//! | `alloc BYTES`, `free`, `meminfo` | allocates and keeps, frees the last, asks for free and total memory |
//! | `seen`, `find ADDRESS`, `peer ORDINAL` | lists devices; looks for a PCI address; asks whether device 0 reaches that one |
//! | `fill FUNCTION BYTES`, `drop` | allocates pieces by that function until it is refused; gives all of them back |
//! | `streams COUNT` | makes streams until one is refused, then frees one and makes another |
//! | `allocstorm` | allocates and frees pieces of all sizes for ever, and never minds a refusal |
//! | `sync`, `endless` | synchronises; launches a kernel that never ends |
//! | `share MILLISECONDS`, `graphs MILLISECONDS` | keeps kernels in flight, singly or as graphs of four; prints how many completed |
//! | `captures MILLISECONDS` | as `share`, and captures the stream as soon as its kernels are launched |
//! | `storm COUNT` | launches that many empty kernels; prints how its own memory grew over the second half |
//! | `work` | copies, launches, synchronises and checks, for ever; prints the first error and how often it went well |
//! | `copies COUNT BYTES` | copies out and back and compares |
//! | `items COUNT` | that many times, in a stream and in the default one: writes on the device, fetches, synchronises, compares |
//! | `pinned BYTES` | the same once, from page-locked memory to page-locked memory |
//! | `upload BYTES` | begins a copy to the device from page-locked memory, and does not wait for it |
//! | `stuff BYTES` | copies to the device without ever waiting, that many bytes in all |
//! | `behind` | calls that wait for the device, while a host function that takes a while is under way |
//! | `churn COUNT` | that many threads, one after the other and eight at a time, each using the device |
//! | `nvml WHAT` | asks NVML: `init`, `shutdown`, `memory`, `processes`, `share`, `sensors`, `device`, or every function of the list in a file |
//! | `call NAME` | calls a function with zeros |
//! | `say TEXT`, `read`, `sleep MILLISECONDS` | prints; waits for a line of standard input; waits |
//! | `exec ARGUMENTS…` | becomes this program anew, with the rest of the arguments |
//! | `devices LIBRARY` | ends with 0 if that libcuda initialises and has a device, else with 1 |
#![expect(clippy::print_stdout, reason = "a program for the command line")]

mod attributes;
mod devices;
mod driver;
mod fill;
mod nvml;
mod share;

use driver::{Driver, Status};
use fill::Filled;
use std::ffi::{CString, c_void};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

const KERNELS: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry empty() { ret; }
.visible .entry add(.param .u64 to, .param .u32 amount)
{
    .reg .b64 %a;
    .reg .b32 %x, %y;
    ld.param.u64 %a, [to];
    ld.param.u32 %y, [amount];
    cvta.to.global.u64 %a, %a;
    ld.global.u32 %x, [%a];
    add.u32 %x, %x, %y;
    st.global.u32 [%a], %x;
    ret;
}
.visible .entry endless(.param .u64 flag)
{
    .reg .b64 %a;
    .reg .b32 %x;
    .reg .pred %p;
    ld.param.u64 %a, [flag];
    cvta.to.global.u64 %a, %a;
again:
    ld.volatile.global.u32 %x, [%a];
    setp.eq.u32 %p, %x, 0;
    @%p bra again;
    ret;
}
";

/// What the commands share.
struct Probe {
    driver: Driver,
    context: u64,
    empty: u64,
    add: u64,
    endless: u64,
    kept: Vec<u64>,
    filled: Filled,
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    args.reverse();
    if args.last().is_some_and(|arg| arg == "devices") {
        return if args.first().is_some_and(|library| has_device(library)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let driver = match Driver::open("libcuda.so.1") {
        Ok(driver) => driver,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut probe = Probe {
        driver,
        context: 0,
        empty: 0,
        add: 0,
        endless: 0,
        kept: Vec::new(),
        filled: Filled::default(),
    };
    while let Some(command) = args.pop() {
        match probe.run(&command, &mut args) {
            Ok(line) => println!("{command} {line}"),
            Err(error) => {
                println!("{command}: {error}");
                return ExitCode::from(2);
            }
        }
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}

fn has_device(library: &str) -> bool {
    let Ok(driver) = Driver::open(library) else { return false };
    let mut count = 0;
    // SAFETY: a pointer to a local.
    unsafe { (driver.cuInit)(0) == 0 && (driver.cuDeviceGetCount)(&raw mut count) == 0 && count > 0 }
}

fn text(args: &mut Vec<String>) -> Result<String, String> {
    args.pop().ok_or_else(|| "an argument is missing".into())
}

fn number(args: &mut Vec<String>) -> Result<usize, String> {
    let text = text(args)?;
    text.parse().map_err(|error| format!("'{text}': {error}"))
}

/// This process's own memory, without what it shares.
fn memory() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap_or(0) << 10
}

impl Probe {
    fn name(&self, status: Status) -> String {
        self.driver.name(status)
    }

    /// Runs one command; what its line says.
    fn run(&mut self, command: &str, args: &mut Vec<String>) -> Result<String, String> {
        Ok(match command {
            "init" => {
                let status = self.init();
                self.name(status)
            }
            "alloc" => {
                let (bytes, mut address) = (number(args)?, 0);
                // SAFETY: a pointer to a local.
                let status = unsafe { (self.driver.cuMemAlloc_v2)(&raw mut address, bytes) };
                if status == 0 {
                    self.kept.push(address);
                }
                self.name(status)
            }
            "free" => {
                let address = self.kept.pop().ok_or("nothing is allocated")?;
                // SAFETY: plain values.
                self.name(unsafe { (self.driver.cuMemFree_v2)(address) })
            }
            "meminfo" => {
                let (mut free, mut total) = (0, 0);
                // SAFETY: pointers to locals.
                let status = unsafe { (self.driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
                format!("{} {free} {total}", self.name(status))
            }
            "seen" => devices::list(self)?,
            "find" => devices::find(self, &text(args)?)?,
            "peer" => devices::peer(self, number(args)?)?,
            "streams" => self.streams(number(args)?),
            "allocstorm" => self.allocation_storm(),
            "fill" => self.filled.fill(&self.driver, &text(args)?, number(args)? as u64)?,
            "drop" => {
                let status = self.filled.release(&self.driver)?;
                self.name(status)
            }
            // SAFETY: a plain call.
            "sync" => self.name(unsafe { (self.driver.cuCtxSynchronize)() }),
            "endless" => self.name(self.endless()),
            "share" => share::run(self, number(args)?, share::What::Kernels)?,
            "graphs" => share::run(self, number(args)?, share::What::Graphs)?,
            "captures" => share::run(self, number(args)?, share::What::Captures)?,
            "attributes" => attributes::of_function(self, number(args)?),
            "kernels" => attributes::of_kernel(self)?,
            "storm" => self.storm(number(args)?),
            "work" => self.work(),
            "copies" => self.copies(number(args)?, number(args)?),
            "items" => self.items(number(args)?),
            "pinned" => self.pinned(number(args)?),
            "upload" => self.upload(number(args)?)?,
            "stuff" => self.stuff(number(args)?),
            "behind" => self.behind(),
            "churn" => self.churn(number(args)?),
            "nvml" => nvml::Nvml::open()?.run(&text(args)?, &self.driver)?,
            "call" => {
                let name = text(args)?;
                format!("{name} {}", self.name(self.driver.call(&name, [0; 8])?))
            }
            "say" => text(args)?,
            "read" => {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
                line.trim().to_owned()
            }
            "sleep" => {
                std::thread::sleep(Duration::from_millis(number(args)? as u64));
                String::new()
            }
            "exec" => {
                args.reverse();
                let error = std::process::Command::new("/proc/self/exe").args(&*args).exec();
                return Err(error.to_string());
            }
            _ => return Err("no such command".into()),
        })
    }

    fn init(&mut self) -> Status {
        let driver = &self.driver;
        let image = CString::new(KERNELS).expect("a text without NUL");
        let mut module = 0;
        // SAFETY: pointers to fields and locals, C strings.
        unsafe {
            let mut status = (driver.cuInit)(0);
            if status == 0 {
                status = (driver.cuDevicePrimaryCtxRetain)(&raw mut self.context, 0);
            }
            if status == 0 {
                status = (driver.cuCtxSetCurrent)(self.context);
            }
            if status == 0 {
                status = (driver.cuModuleLoadData)(&raw mut module, image.as_ptr().cast());
            }
            for (name, function) in
                [(c"empty", &mut self.empty), (c"add", &mut self.add), (c"endless", &mut self.endless)]
            {
                if status == 0 {
                    status = (driver.cuModuleGetFunction)(function, module, name.as_ptr());
                }
            }
            status
        }
    }

    fn launch(&self, function: u64, parameters: &mut [*mut c_void]) -> Status {
        let extra = std::ptr::null_mut();
        // SAFETY: parameters of the types that the kernel has.
        unsafe {
            (self.driver.cuLaunchKernel)(function, 1, 1, 1, 1, 1, 1, 0, 0, parameters.as_mut_ptr(), extra)
        }
    }

    fn endless(&self) -> Status {
        let mut flag = 0_u64;
        // SAFETY: a pointer to a local; plain values.
        let status = unsafe {
            match (self.driver.cuMemAlloc_v2)(&raw mut flag, 4) {
                0 => (self.driver.cuMemsetD8_v2)(flag, 0, 4),
                status => status,
            }
        };
        if status == 0 { self.launch(self.endless, &mut [(&raw mut flag).cast()]) } else { status }
    }

    fn streams(&self, count: usize) -> String {
        let mut made = Vec::new();
        // SAFETY: pointers to locals; streams that were made here.
        unsafe {
            for _ in 0..count {
                let mut stream = 0_u64;
                let status = (self.driver.cuStreamCreate)(&raw mut stream, 1);
                if status != 0 {
                    let count = made.len();
                    if let Some(last) = made.pop() {
                        (self.driver.cuStreamDestroy_v2)(last);
                    }
                    let again = (self.driver.cuStreamCreate)(&raw mut stream, 1);
                    return format!("{} after {count}, again {}", self.name(status), self.name(again));
                }
                made.push(stream);
            }
        }
        format!("{count} made")
    }

    fn allocation_storm(&self) -> ! {
        let mut held = std::collections::VecDeque::new();
        for round in 0_usize.. {
            let (mut address, bytes) = (0_u64, 1 << (round * 7 % 27));
            // SAFETY: a pointer to a local; an allocation of ours.
            unsafe {
                if (self.driver.cuMemAlloc_v2)(&raw mut address, bytes) == 0 {
                    held.push_back(address);
                } else if let Some(oldest) = held.pop_front() {
                    (self.driver.cuMemFree_v2)(oldest);
                }
            }
            if round == 2000 {
                println!("storming");
                let _ = std::io::stdout().flush();
            }
        }
        unreachable!("the numbers do not end")
    }

    fn storm(&self, count: usize) -> String {
        let mut middle = 0;
        for index in 0..count {
            let status = self.launch(self.empty, &mut []);
            if status != 0 {
                return format!("{} after {index}", self.name(status));
            }
            if index == count / 2 {
                middle = memory();
            }
        }
        let grown = memory() - middle;
        // SAFETY: a plain call.
        format!("{} grown {grown}", self.name(unsafe { (self.driver.cuCtxSynchronize)() }))
    }

    fn work(&self) -> String {
        let mut address = 0_u64;
        // SAFETY: a pointer to a local.
        let mut status = unsafe { (self.driver.cuMemAlloc_v2)(&raw mut address, 4096) };
        let mut rounds = 0_u32;
        while status == 0 {
            status = self.round(address, rounds);
            rounds += 1;
            if rounds == 20 {
                println!("working");
                let _ = std::io::stdout().flush();
            }
        }
        format!("{} after {rounds}", self.name(status))
    }

    /// Copies a number to the device, adds three there, and looks at what comes back.
    fn round(&self, mut address: u64, number: u32) -> Status {
        let (mut amount, mut back) = (3_u32, 0_u32);
        // SAFETY: pointers to locals of the sizes given.
        unsafe {
            let status = (self.driver.cuMemcpyHtoD_v2)(address, (&raw const number).cast(), 4);
            if status != 0 {
                return status;
            }
            let status = self.launch(self.add, &mut [(&raw mut address).cast(), (&raw mut amount).cast()]);
            if status != 0 {
                return status;
            }
            let status = (self.driver.cuMemcpyDtoH_v2)((&raw mut back).cast(), address, 4);
            if status == 0 && back != number.wrapping_add(3) { 999 } else { status }
        }
    }

    fn copies(&self, count: usize, bytes: usize) -> String {
        let mut address = 0_u64;
        // SAFETY: a pointer to a local.
        let mut status = unsafe { (self.driver.cuMemAlloc_v2)(&raw mut address, bytes) };
        let mut out: Vec<u8> = (0..=250_u8).cycle().take(bytes).collect();
        let mut back = vec![0_u8; bytes];
        for round in 0..count {
            if status != 0 {
                return format!("{} after {round}", self.name(status));
            }
            out.rotate_right(7.min(bytes));
            // SAFETY: buffers of the length given.
            status = unsafe {
                match (self.driver.cuMemcpyHtoD_v2)(address, out.as_ptr().cast(), bytes) {
                    0 => (self.driver.cuMemcpyDtoH_v2)(back.as_mut_ptr().cast(), address, bytes),
                    status => status,
                }
            };
            if status == 0 && back != out {
                return format!("differs in round {round}");
            }
        }
        if status == 0 {
            // SAFETY: an allocation of ours.
            status = unsafe { (self.driver.cuMemFree_v2)(address) };
        }
        self.name(status)
    }

    /// One number at a time from the device, and a synchronisation behind it: what `item()` of an array library does.
    fn items(&self, count: usize) -> String {
        let driver = &self.driver;
        let (mut address, mut stream) = (0_u64, 0_u64);
        // SAFETY: pointers to locals.
        let mut status = unsafe {
            match (driver.cuMemAlloc_v2)(&raw mut address, 256) {
                0 => (driver.cuStreamCreate)(&raw mut stream, 1),
                status => status,
            }
        };
        for round in 0..count {
            for stream in [0, stream] {
                let wanted = u8::try_from(round % 256).expect("below 256");
                let mut found = 0_u8;
                if status != 0 {
                    return format!("{} in round {round}", self.name(status));
                }
                // SAFETY: an allocation of 256 bytes, a local that lives past the synchronisation.
                unsafe {
                    for next in [
                        (driver.cuMemsetD8Async)(address, wanted, 256, stream),
                        (driver.cuMemcpyDtoHAsync_v2)((&raw mut found).cast(), address + 255, 1, stream),
                        (driver.cuStreamSynchronize)(stream),
                    ] {
                        status = status.max(next);
                    }
                }
                if status == 0 && found != wanted {
                    return format!("differs in round {round}");
                }
            }
        }
        self.name(status)
    }

    fn pinned(&self, bytes: usize) -> String {
        let driver = &self.driver;
        let (mut device, mut out, mut back) = (0_u64, std::ptr::null_mut(), std::ptr::null_mut());
        let words = bytes / size_of::<u64>();
        let value = |index: usize| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SAFETY: pointers to locals; both buffers have `bytes` bytes once they are allocated.
        let status = unsafe {
            let mut steps = [0; 5];
            steps[0] = (driver.cuMemAlloc_v2)(&raw mut device, bytes);
            steps[1] = (driver.cuMemHostAlloc)(&raw mut out, bytes, 0);
            steps[2] = (driver.cuMemHostAlloc)(&raw mut back, bytes, 0);
            if let Some(failed) = steps.into_iter().find(|status| *status != 0) {
                return self.name(failed);
            }
            for index in 0..words {
                out.cast::<u64>().add(index).write(value(index));
            }
            steps[3] = (driver.cuMemcpyHtoD_v2)(device, out, bytes);
            steps[4] = (driver.cuMemcpyDtoH_v2)(back, device, bytes);
            steps.into_iter().find(|status| *status != 0).unwrap_or(0)
        };
        // SAFETY: as above.
        let differs =
            (0..words).find(|index| unsafe { back.cast::<u64>().add(*index).read() } != value(*index));
        if let Some(index) = differs {
            return format!("{} differs at word {index}", self.name(status));
        }
        // SAFETY: allocated above, and no longer used.
        let freed = unsafe {
            [(driver.cuMemFreeHost)(out), (driver.cuMemFreeHost)(back), (driver.cuMemFree_v2)(device)]
        };
        self.name(freed.into_iter().find(|status| *status != 0).unwrap_or(status))
    }

    fn upload(&self, bytes: usize) -> Result<String, String> {
        let (mut device, mut host) = (0_u64, std::ptr::null_mut());
        // SAFETY: pointers to locals.
        let status = unsafe {
            match (self.driver.cuMemAlloc_v2)(&raw mut device, bytes) {
                0 => (self.driver.cuMemHostAlloc)(&raw mut host, bytes, 0),
                status => status,
            }
        };
        if status != 0 {
            return Ok(self.name(status));
        }
        let arguments = [device, host.expose_provenance() as u64, bytes as u64, 0, 0, 0, 0, 0];
        Ok(self.name(self.driver.call("cuMemcpyHtoDAsync_v2", arguments)?))
    }

    fn stuff(&self, bytes: usize) -> String {
        const PIECE: usize = 32 << 10;
        let mut address = 0_u64;
        // SAFETY: a pointer to a local.
        let mut status = unsafe { (self.driver.cuMemAlloc_v2)(&raw mut address, PIECE) };
        let piece = vec![1_u8; PIECE];
        for _ in 0..bytes / PIECE {
            if status == 0 {
                // SAFETY: a buffer of the length given, which lives until the synchronisation.
                status =
                    unsafe { (self.driver.cuMemcpyHtoDAsync_v2)(address, piece.as_ptr().cast(), PIECE, 0) };
            }
        }
        if status == 0 {
            // SAFETY: a plain call.
            status = unsafe { (self.driver.cuCtxSynchronize)() };
        }
        self.name(status)
    }

    /// Puts a host function before each of the calls that wait for the device by themselves.
    fn behind(&self) -> String {
        extern "C" fn pause(_: *mut c_void) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let driver = &self.driver;
        let image = CString::new(KERNELS).expect("a text without NUL");
        let (mut address, mut module) = (0_u64, 0_u64);
        let mut steps: Vec<(&str, Status)> = Vec::new();
        // SAFETY: pointers to locals, C strings, handles that the calls before gave; the function ignores its data.
        unsafe {
            let later = || (driver.cuLaunchHostFunc)(0, pause, std::ptr::null_mut());
            steps.push(("alloc", (driver.cuMemAlloc_v2)(&raw mut address, 1 << 20)));
            steps.push(("load", (driver.cuModuleLoadData)(&raw mut module, image.as_ptr().cast())));
            steps.push(("function", later()));
            steps.push(("free", (driver.cuMemFree_v2)(address)));
            steps.push(("function", later()));
            steps.push(("unload", (driver.cuModuleUnload)(module)));
            steps.push(("function", later()));
            steps.push(("alloc", (driver.cuMemAlloc_v2)(&raw mut address, 1 << 20)));
            steps.push(("set", (driver.cuMemsetD8_v2)(address, 1, 1 << 20)));
            steps.push(("free", (driver.cuMemFree_v2)(address)));
            steps.push(("synchronise", (driver.cuCtxSynchronize)()));
        }
        match steps.into_iter().find(|(_, status)| *status != 0) {
            Some((step, status)) => format!("{} from {step}", self.name(status)),
            None => self.name(0),
        }
    }

    fn churn(&self, count: usize) -> String {
        for batch in 0..count.div_ceil(8) {
            let failed = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..8.min(count - batch * 8)).map(|_| scope.spawn(|| self.thread())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or(999)).find(|status| *status != 0)
            });
            if let Some(status) = failed {
                return format!("{} in batch {batch}", self.name(status));
            }
        }
        self.name(0)
    }

    /// What a thread that lives for a moment does: a stream, memory, the round trip, and nothing left behind.
    fn thread(&self) -> Status {
        let (mut stream, mut address) = (0_u64, 0_u64);
        let driver = &self.driver;
        // SAFETY: pointers to locals; handles that the calls before gave.
        unsafe {
            for status in [
                (driver.cuCtxSetCurrent)(self.context),
                (driver.cuStreamCreate)(&raw mut stream, 1),
                (driver.cuMemAlloc_v2)(&raw mut address, 256),
                self.round(address, 5),
                (driver.cuStreamSynchronize)(stream),
                (driver.cuStreamDestroy_v2)(stream),
                (driver.cuMemFree_v2)(address),
            ] {
                if status != 0 {
                    return status;
                }
            }
        }
        0
    }
}
