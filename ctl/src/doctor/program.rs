//! A program: whether a vector add runs on the device as programs of this machine would run it, and how fast bytes pass.

use super::{Context, Findings, library};
use libloading::Library;
use serde::{Deserialize, Serialize};
use std::ffi::{c_int, c_uint, c_void};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the copies that are timed: enough to fill every buffer on the way several times over.
const COPY: usize = 16 << 20;
/// How long the whole may take, over an emulated processor's vsock too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What copies took.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// Seconds for [`COPY`] bytes to the device.
    to_device: f64,
    /// Seconds for as many to the host.
    to_host: f64,
}

/// Runs it. To be called where nothing that it needs was found to be wrong.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    let Some(shim) = library::find("libpxshim.so") else { return };
    match child(context, &["gpu-test", "vector_add"]) {
        Ok(output) => findings.ok(format!("a vector add runs: {}", output.trim())),
        Err(error) => {
            return findings.fail(
                format!("a vector add does not run: {error}"),
                "the server's log names this session and says more; PXOS_LOG=debug says what the shim did",
            );
        }
    }
    let measured = child(context, &["measure", &shim.display().to_string()])
        .and_then(|output| serde_json::from_str::<Measured>(&output).map_err(|error| error.to_string()));
    match measured {
        Ok(Measured { to_device, to_host }) => {
            let rate = |seconds: f64| COPY as f64 / 1e6 / seconds.max(1e-9);
            findings.ok(format!(
                "copies of 16 MiB pageable memory: {:.0} MB/s to the device, {:.0} MB/s to the host",
                rate(to_device),
                rate(to_host)
            ));
        }
        Err(error) => {
            findings.warn(format!("copies cannot be timed: {error}"), "the server's log says more");
        }
    }
}

/// This program again, as a program of this machine that uses CUDA; what it printed.
fn child(context: &Context, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(args).env_remove("LD_PRELOAD").arg0("pxctl");
    if let Some(endpoint) =
        context.settings.endpoints.first().filter(|_| context.settings.endpoints.len() == 1)
    {
        command.env("PXOS_SERVER", endpoint.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("no process for it: {error}"))?;
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
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().last().map_or_else(|| output.status.to_string(), str::to_owned))
}

/// In that other process: times copies through the driver API of `library`, and answers on stdout.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answer to the process that started this one"
)]
pub(crate) fn answer(library: &Path) -> ExitCode {
    match measure(library) {
        Ok(measured) => {
            println!("{}", serde_json::to_string(&measured).expect("plain data"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(path: &Path) -> Result<Measured, String> {
    // SAFETY: loading runs the library's constructors; that is what this process is for.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    let did = |call: &str, result: c_uint| {
        if result == 0 { Ok(()) } else { Err(format!("{call} answers {result}")) }
    };
    macro_rules! call {
        ($name:literal, ($($type:ty),*), ($($argument:expr),*)) => {{
            // SAFETY: the signature is that of the CUDA driver API manual.
            let function = unsafe { library.get::<unsafe extern "C" fn($($type),*) -> c_uint>($name) };
            let function = function.map_err(|error| error.to_string())?;
            // SAFETY: pointers are to this frame's values, and lengths are theirs.
            let result = unsafe { function($($argument),*) };
            did(std::str::from_utf8($name).unwrap_or_default(), result)?;
        }};
    }
    let (mut context, mut device_memory) = (std::ptr::null_mut::<c_void>(), 0u64);
    call!(b"cuInit", (c_uint), (0));
    call!(b"cuDevicePrimaryCtxRetain", (*mut *mut c_void, c_int), (&raw mut context, 0));
    call!(b"cuCtxSetCurrent", (*mut c_void), (context));
    call!(b"cuMemAlloc_v2", (*mut u64, usize), (&raw mut device_memory, COPY));
    let mut bytes = vec![1u8; COPY];
    let (mut to_device, mut to_host) = (f64::MAX, f64::MAX);
    // The first of two makes what is made once.
    for _ in 0..2 {
        let start = Instant::now();
        call!(b"cuMemcpyHtoD_v2", (u64, *const c_void, usize), (device_memory, bytes.as_ptr().cast(), COPY));
        call!(b"cuCtxSynchronize", (), ());
        to_device = to_device.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        call!(
            b"cuMemcpyDtoH_v2",
            (*mut c_void, u64, usize),
            (bytes.as_mut_ptr().cast(), device_memory, COPY)
        );
        to_host = to_host.min(start.elapsed().as_secs_f64());
    }
    call!(b"cuMemFree_v2", (u64), (device_memory));
    Ok(Measured { to_device, to_host })
}
