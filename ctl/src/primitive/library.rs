//! libpxshim.so, loaded into this process: the functions of `shim/include/pxos.h` that are used here.

use crate::doctor;
use pxos_primitives::Kernel;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;

/// `px_request`.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Request {
    pub(super) cmd: u16,
    pub(super) flags: u16,
    pub(super) id: u32,
    pub(super) data_len: u32,
    pub(super) data_ptr: u64,
}

/// `px_response`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Response {
    id: u32,
    pub(super) status: i32,
    data_len: u32,
    data: [u8; 256],
}

impl Response {
    /// Its text.
    pub(super) fn text(&self) -> String {
        let length = (self.data_len as usize).min(self.data.len());
        String::from_utf8_lossy(&self.data[..length]).into_owned()
    }
}

/// `px_argument`.
#[repr(C)]
struct Argument {
    name: *const c_char,
    kind: u32,
    flags: u32,
    data: *mut c_void,
    value: u64,
    length: u64,
}

/// `px_options`.
#[derive(Default)]
#[repr(C)]
struct Options {
    elements: u64,
    stream: u64,
    flags: u32,
    reserved: u32,
}

/// `px_report`.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Report {
    pub(super) result: i32,
    line: u32,
    index: i64,
    submission: u64,
    pub(super) elements: u64,
    pub(super) checks: u32,
    pub(super) checks_left: u32,
    pub(super) devices: u32,
    reserved: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) compile_ms: f64,
    pub(super) to_device_ms: f64,
    pub(super) launch_ms: f64,
    pub(super) kernel_ms: f64,
    pub(super) to_host_ms: f64,
    pub(super) total_ms: f64,
    message: [u8; 1024],
}

impl Default for Report {
    fn default() -> Self {
        // SAFETY: numbers and bytes, of which zero is a value.
        unsafe { std::mem::zeroed() }
    }
}

/// `px_device_status`.
#[repr(C)]
struct DeviceStatus {
    name: [u8; 128],
    capability: [i32; 2],
    multiprocessors: i32,
    software: i32,
    free: u64,
    total: u64,
    programs: u64,
    running: u64,
}

type Submit = unsafe extern "C" fn(
    *const c_char,
    usize,
    *const c_char,
    *const Argument,
    usize,
    *const Options,
    *mut Report,
) -> c_int;

/// An argument in this process.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// An array's bytes.
    Array(&'a mut [u8], usize),
    /// A scalar's bits.
    Scalar(u64),
}

/// The library.
pub(super) struct Library {
    library: libloading::Library,
    path: PathBuf,
}

fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Library {
    /// Loads it: `PXOS_SHIM`, else beside this program, else from the library directories.
    pub(super) fn open() -> Result<Self, String> {
        let chosen = std::env::var_os("PXOS_SHIM").map(PathBuf::from);
        let path = chosen.or_else(|| doctor::library::find("libpxshim.so")).ok_or_else(|| {
            "libpxshim.so is neither beside pxctl nor in the library directories; set PXOS_SHIM to its path".to_owned()
        })?;
        // SAFETY: loading the shim does nothing; the operator chose the library.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { library, path })
    }

    fn symbol<T: Copy>(&self, name: &str) -> Result<T, String> {
        // SAFETY: functions of pxos.h, by the types that it gives them.
        let found = unsafe { self.library.get::<T>(name) };
        found.map(|symbol| *symbol).map_err(|_| {
            format!("{} lacks {name}: it is no libpxshim.so of this version", self.path.display())
        })
    }

    /// Sends a request of the stub protocol.
    pub(super) fn command(&self, request: &Request) -> Result<Response, String> {
        let command: unsafe extern "C" fn(*const Request, *mut Response) -> c_int =
            self.symbol("px_command")?;
        let mut response = Response { id: 0, status: 0, data_len: 0, data: [0; 256] };
        // SAFETY: pointers to locals of the header's layouts.
        let result = unsafe { command(request, &raw mut response) };
        if result != 0 || response.id != request.id {
            return Err(format!("the device did not answer: CUDA error {result}"));
        }
        Ok(response)
    }

    /// Name of the device, and whether it is the host's CPU.
    pub(super) fn device(&self) -> Result<(String, bool), String> {
        let query: unsafe extern "C" fn(*mut DeviceStatus) -> c_int = self.symbol("px_query_status")?;
        // SAFETY: numbers and bytes, of which zero is a value.
        let mut status: DeviceStatus = unsafe { std::mem::zeroed() };
        // SAFETY: a pointer to a local of the header's layout.
        let result = unsafe { query(&raw mut status) };
        if result != 0 {
            return Err(format!("no GPU: CUDA error {result}; `pxctl doctor` finds out why"));
        }
        Ok((text_of(&status.name), status.software != 0))
    }

    /// Runs a kernel.
    pub(super) fn submit(
        &self,
        text: &str,
        kernel: &Kernel,
        values: &mut [Value<'_>],
        elements: Option<u64>,
    ) -> Result<Report, String> {
        let submit: Submit = self.symbol("px_submit_primitive")?;
        let name = CString::new(kernel.name()).map_err(|error| error.to_string())?;
        let arguments: Vec<Argument> = values
            .iter_mut()
            .map(|value| match value {
                Value::Scalar(bits) => Argument {
                    name: std::ptr::null(),
                    kind: 0,
                    flags: 0,
                    data: std::ptr::null_mut(),
                    value: *bits,
                    length: 0,
                },
                Value::Array(bytes, size) => Argument {
                    name: std::ptr::null(),
                    kind: 1,
                    flags: 0,
                    data: bytes.as_mut_ptr().cast(),
                    value: 0,
                    length: (bytes.len() / *size) as u64,
                },
            })
            .collect();
        let options = Options { elements: elements.unwrap_or(0), ..Options::default() };
        let mut report = Report::default();
        // SAFETY: pointers to locals of the header's layouts; arrays that live through the call.
        let result = unsafe {
            submit(
                text.as_ptr().cast(),
                text.len(),
                name.as_ptr(),
                arguments.as_ptr(),
                arguments.len(),
                &raw const options,
                &raw mut report,
            )
        };
        if result == 0 {
            return Ok(report);
        }
        let message = text_of(&report.message);
        Err(if message.is_empty() { format!("CUDA error {result}") } else { message })
    }
}
