//! Shared libraries: where they lie, what they call themselves, and whether they load. Loading happens in a process of
//! its own, which a library may crash or hold up without harm.

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use serde::{Deserialize, Serialize};
use std::ffi::{c_int, c_uint};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long loading and initialising may take: eight GPUs take several seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where libraries of pxOS are installed, after those beside the binary.
const SYSTEM: [&str; 6] = [
    "/usr/local/lib/pxos",
    "/usr/lib/pxos",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// `cuDriverGetVersion`, `cuDeviceGetCount`.
type GiveInt = unsafe extern "C" fn(*mut c_int) -> c_uint;
/// `cuInit`.
type Init = unsafe extern "C" fn(c_uint) -> c_uint;

/// What a library that was loaded says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The file that the dynamic linker took.
    pub(crate) path: Option<PathBuf>,
    /// As `cuDriverGetVersion` answers, where there is that function.
    pub(crate) version: Option<i32>,
    /// As `cuInit` answers, where it was called.
    pub(crate) init: Option<u32>,
    /// As `cuDeviceGetCount` answers after that.
    pub(crate) devices: Option<i32>,
}

/// A file in one of the directories, which are given relative to that of this program.
pub(crate) fn beside(directories: &[&str], name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?;
    directories.iter().map(|relative| directory.join(relative).join(name)).find(|path| path.is_file())
}

/// A library of pxOS: beside this program, in the lib directory of its prefix, or installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    beside(&[".", "../lib", "../lib/pxos", "../lib64", "../lib64/pxos"], name).or_else(|| {
        SYSTEM.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
    })
}

/// The name that a shared library gives itself (`DT_SONAME`), if any.
///
/// # Errors
/// Where the file is no shared library for this machine: one line.
pub(crate) fn soname(path: &Path) -> Result<Option<String>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let broken = |error: object::read::Error| format!("it is no ELF file of 64 bits: {error}");
    let header = elf::FileHeader64::<object::Endianness>::parse(&*bytes).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_type(endian) != elf::ET_DYN {
        return Err("it is an ELF file, but no shared library".into());
    }
    if header.e_machine(endian) != elf::EM_X86_64 && cfg!(target_arch = "x86_64") {
        return Err("it is for another kind of processor".into());
    }
    let segments = header.program_headers(endian, &*bytes).map_err(broken)?;
    let mut name = None;
    let mut strings = None;
    for segment in segments {
        for entry in segment.dynamic(endian, &*bytes).map_err(broken)?.unwrap_or_default() {
            match entry.tag(endian) {
                elf::DT_SONAME => name = entry.val32(endian),
                elf::DT_STRTAB => strings = Some(entry.d_val(endian)),
                _ => {}
            }
        }
    }
    let (Some(name), Some(strings)) = (name, strings) else { return Ok(None) };
    let data = segments.iter().find_map(|segment| {
        segment.data_range(endian, &*bytes, strings, u64::from(name) + 1).ok().flatten().map(|_| segment)
    });
    let table = data
        .and_then(|segment| {
            let start = strings.checked_sub(segment.p_vaddr(endian))?;
            segment.data(endian, &*bytes).ok()?.get(usize::try_from(start).ok()?..)
        })
        .ok_or("its string table is outside the file")?;
    let text = table.get(name as usize..).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// Whether a file is a shim of ours, whatever it is called.
pub(crate) fn is_shim(path: &Path) -> bool {
    // The name of the variable that every build of the shim asks for.
    std::fs::read(path).is_ok_and(|bytes| bytes.windows(11).any(|part| part == b"PXOS_SERVER"))
}

/// Loads a library in another process; with `init`, calls `cuInit` there.
///
/// # Errors
/// What the dynamic linker says, or how the process ended.
pub(crate) fn open(library: &Path, init: bool) -> Result<Opened, String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("open-library").arg(library).env_remove("LD_PRELOAD");
    if init {
        command.arg("--init");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("no process to load it in: {error}"))?;
    let start = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it does not come back within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("it disturbs its process: {error}"));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(match text.trim() {
        "" => format!("its process ends with {}", output.status),
        text => text.to_owned(),
    })
}

/// In that other process: loads, and answers on stdout.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answer to the process that started this one"
)]
pub(crate) fn answer(library: &Path, init: bool) -> ExitCode {
    // SAFETY: loading runs the library's constructors; that is what this process is for.
    let loaded = match unsafe { libloading::Library::new(library) } {
        Ok(loaded) => loaded,
        Err(error) => {
            // The linker's own words are the source of the error.
            let words =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            eprintln!("{words}");
            return ExitCode::FAILURE;
        }
    };
    let mut opened = Opened { path: None, version: None, init: None, devices: None };
    // SAFETY: the signature is that of the CUDA driver API manual (version management).
    let version = unsafe { loaded.get::<GiveInt>(b"cuDriverGetVersion") };
    // SAFETY: likewise (initialization).
    let start = unsafe { loaded.get::<Init>(b"cuInit") };
    // SAFETY: likewise (device management).
    let count = unsafe { loaded.get::<GiveInt>(b"cuDeviceGetCount") };
    let ask = |function: GiveInt| {
        let mut number = 0;
        // SAFETY: it writes one int.
        (unsafe { function(&raw mut number) } == 0).then_some(number)
    };
    if let Ok(version) = version {
        opened.path = file_of(*version as *const libc::c_void);
        opened.version = if init { ask(*version) } else { None };
    }
    if let (true, Ok(start)) = (init, start) {
        // SAFETY: the only flags that are defined are none.
        opened.init = Some(unsafe { start(0) });
    }
    if let (Some(0), Ok(count)) = (opened.init, count) {
        opened.devices = ask(*count);
    }
    println!("{}", serde_json::to_string(&opened).expect("plain data"));
    ExitCode::SUCCESS
}

/// The file that an address was loaded from.
fn file_of(address: *const libc::c_void) -> Option<PathBuf> {
    // SAFETY: an all-zero `Dl_info` is valid.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for; the buffer is a `Dl_info`.
    if unsafe { libc::dladdr(address, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, which stands as long as the library is loaded.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(std::ffi::OsStr::new(name.to_str().ok()?));
    Some(path.canonicalize().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_names_itself() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .find(|path| path.contains("libc.so.6"));
        assert_eq!(soname(Path::new(libc.unwrap())), Ok(Some("libc.so.6".into())));
        assert!(!is_shim(Path::new(libc.unwrap())));
    }

    #[test]
    fn what_is_no_library_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        assert!(soname(file.path()).unwrap_err().contains("no ELF file"));
        assert!(soname(Path::new("/nonexistent")).is_err());
        std::fs::write(file.path(), "..PXOS_SERVER..").unwrap();
        assert!(is_shim(file.path()));
    }
}
