//! The exported functions of `shim/include/pxos.h`. Each answers a `CUresult`; no panic leaves it.

use super::run::{Choices, Given, Report, Value, submit};
use super::{Failure, Outcome, command, program, query, ready, status};
use crate::api;
use pxos_protocol::types::CUresult;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const SCALAR: u32 = 0;
const HOST: u32 = 1;
const DEVICE: u32 = 2;
/// Flag of an argument: what the array holds before does not matter.
const OUT: u32 = 1;
/// Flag of a submission: do not wait.
const ASYNC: u32 = 1;

/// `px_argument`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PxArgument {
    name: *const c_char,
    kind: u32,
    flags: u32,
    data: *mut c_void,
    value: u64,
    length: u64,
}

/// `px_options`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PxOptions {
    elements: u64,
    stream: u64,
    flags: u32,
    reserved: u32,
}

/// `px_report`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PxReport {
    result: c_int,
    line: u32,
    index: i64,
    submission: u64,
    elements: u64,
    checks: u32,
    checks_left: u32,
    devices: u32,
    reserved: u32,
    bytes_in: u64,
    bytes_out: u64,
    compile_ms: f64,
    to_device_ms: f64,
    launch_ms: f64,
    kernel_ms: f64,
    to_host_ms: f64,
    total_ms: f64,
    message: [u8; 1024],
}

/// `px_device_status`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PxDeviceStatus {
    name: [u8; 128],
    capability_major: c_int,
    capability_minor: c_int,
    multiprocessors: c_int,
    software: c_int,
    free: u64,
    total: u64,
    programs: u64,
    running: u64,
}

/// As much of `text` as fits, at a character's end, and a zero.
fn fill(target: &mut [u8], text: &str) {
    let mut length = text.len().min(target.len() - 1);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    target[..length].copy_from_slice(&text.as_bytes()[..length]);
    target[length..].fill(0);
}

fn guarded(body: impl FnOnce() -> CUresult) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or(CUresult::ERROR_UNKNOWN);
    c_int::try_from(result.0).unwrap_or(c_int::MAX)
}

/// Runs a call of CUDA's once the session stands.
fn plain(body: impl FnOnce() -> Result<(), CUresult>) -> c_int {
    guarded(|| ready().map_err(|failure| failure.result).and_then(|_| body()).into())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// # Safety
/// `report` is null or may be written.
unsafe fn write_report(report: *mut PxReport, outcome: Outcome<Report>) -> CUresult {
    let (result, told, message) = match outcome {
        Ok(told) => (CUresult(told.completion.result), told, String::new()),
        Err(failure) => {
            let told = Report { completion: *failure.completion, ..Report::default() };
            (failure.result, told, failure.message)
        }
    };
    if report.is_null() {
        return result;
    }
    let mut written = PxReport {
        result: c_int::try_from(result.0).unwrap_or(c_int::MAX),
        line: told.completion.line,
        index: told.completion.index,
        submission: told.completion.number,
        elements: told.completion.elements,
        checks: told.completion.checks[0],
        checks_left: told.completion.checks[1],
        devices: told.devices,
        reserved: 0,
        bytes_in: told.bytes_in,
        bytes_out: told.bytes_out,
        compile_ms: milliseconds(told.compile),
        to_device_ms: milliseconds(told.to_device),
        launch_ms: milliseconds(told.launch),
        kernel_ms: f64::from(told.completion.milliseconds),
        to_host_ms: milliseconds(told.to_host),
        total_ms: milliseconds(told.total),
        message: [0; 1024],
    };
    fill(&mut written.message, &message);
    // SAFETY: not null, and writable by this function's contract.
    unsafe { report.write(written) };
    result
}

/// # Safety
/// `text` is null or `length` bytes that may be read.
unsafe fn bytes<'a>(text: *const c_char, length: usize) -> Outcome<&'a [u8]> {
    if text.is_null() || isize::try_from(length).is_err() {
        return Err(Failure::invalid("the text is a null pointer, or longer than memory"));
    }
    // SAFETY: not null, and readable by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(text.cast(), length) })
}

/// # Safety
/// `name` is null or a C string.
unsafe fn name<'a>(name: *const c_char) -> Outcome<Option<&'a str>> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, a C string by this function's contract.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map(Some).map_err(|_| Failure::invalid("a name is not UTF-8"))
}

/// # Safety
/// As the header says of `px_argument`.
unsafe fn given(arguments: *const PxArgument, count: usize) -> Outcome<Vec<Given>> {
    if count > 64 || (arguments.is_null() && count > 0) {
        return Err(Failure::invalid("the arguments are a null pointer, or more than 64"));
    }
    let mut list = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: within the caller's array.
        let argument = unsafe { &*arguments.add(index) };
        // SAFETY: null or a C string, as the header says.
        let name = unsafe { name(argument.name)? }.map(str::to_owned);
        let value = match argument.kind {
            SCALAR => Value::Scalar(argument.value),
            DEVICE => Value::Device { address: argument.value, length: argument.length },
            HOST => Value::Host {
                address: argument.data.expose_provenance(),
                length: argument.length,
                only_out: argument.flags & OUT != 0,
            },
            kind => return Err(Failure::invalid(format!("argument {index} is of no kind: {kind}"))),
        };
        list.push(Given { name, value });
    }
    Ok(list)
}

/// Runs a kernel of a program.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_submit_primitive(
    text: *const c_char,
    text_length: usize,
    kernel: *const c_char,
    arguments: *const PxArgument,
    count: usize,
    options: *const PxOptions,
    report: *mut PxReport,
) -> c_int {
    guarded(|| {
        let run = || {
            // SAFETY: as the header says of these pointers.
            let (text, kernel, given) =
                unsafe { (bytes(text, text_length)?, name(kernel)?, given(arguments, count)?) };
            let choices = if options.is_null() {
                Choices::default()
            } else {
                // SAFETY: not null, readable as the header says.
                let options = unsafe { &*options };
                Choices {
                    elements: options.elements,
                    stream: options.stream,
                    asynchronous: options.flags & ASYNC != 0,
                }
            };
            // SAFETY: host arrays are readable and writable, as the header says.
            unsafe { submit(text, kernel, &given, &choices) }
        };
        let outcome = run();
        // SAFETY: null or writable, as the header says.
        unsafe { write_report(report, outcome) }
    })
}

/// Waits for a submission, or asks how it stands.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_query_submission(
    submission: u64,
    wait: c_int,
    report: *mut PxReport,
) -> c_int {
    guarded(|| {
        let outcome = query(submission, wait != 0).map(|completion| Report {
            completion,
            devices: 1,
            ..Report::default()
        });
        // SAFETY: null or writable, as the header says.
        unsafe { write_report(report, outcome) }
    })
}

/// Checks and compiles a program; describes it, or what is wrong with it, in JSON.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_compile_primitive(
    text: *const c_char,
    text_length: usize,
    json: *mut c_char,
    json_size: *mut usize,
) -> c_int {
    guarded(|| {
        let compile = || {
            // SAFETY: as the header says of these pointers.
            let text = unsafe { bytes(text, text_length)? };
            Ok(program::to_json(&*program::compile(ready()?, text)?))
        };
        let (result, told) = match compile() {
            Ok(told) => (CUresult::SUCCESS, told),
            Err(Failure { result, message, json, .. }) if json.is_empty() => (result, message),
            Err(failure) => (failure.result, failure.json),
        };
        if json_size.is_null() {
            return result;
        }
        // SAFETY: not null; as the header says.
        let room = unsafe { json_size.replace(told.len() + 1) };
        if !json.is_null() && room > 0 {
            // SAFETY: `room` bytes that may be written, as the header says.
            fill(unsafe { std::slice::from_raw_parts_mut(json.cast(), room) }, &told);
        }
        result
    })
}

/// Allocates device memory.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_alloc(bytes: usize, address: *mut u64) -> c_int {
    // SAFETY: null or writable, as the header says.
    plain(|| unsafe { api::cuMemAlloc_v2(address, bytes) })
}

/// Frees device memory.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn px_free(address: u64) -> c_int {
    // SAFETY: it dereferences nothing.
    plain(|| unsafe { api::cuMemFree_v2(address) })
}

/// Copies to device memory.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_copy_to_device(address: u64, data: *const c_void, bytes: usize) -> c_int {
    // SAFETY: readable, as the header says.
    plain(|| unsafe { api::cuMemcpyHtoD_v2(address, data, bytes) })
}

/// Copies from device memory.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_copy_to_host(data: *mut c_void, address: u64, bytes: usize) -> c_int {
    // SAFETY: writable, as the header says.
    plain(|| unsafe { api::cuMemcpyDtoH_v2(data, address, bytes) })
}

/// Tells of the current device.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_query_status(told: *mut PxDeviceStatus) -> c_int {
    guarded(|| {
        let status = match status() {
            Ok(status) => status,
            Err(failure) => return failure.result,
        };
        if told.is_null() {
            return CUresult::ERROR_INVALID_VALUE;
        }
        let mut written = PxDeviceStatus {
            name: [0; 128],
            capability_major: status.capability[0],
            capability_minor: status.capability[1],
            multiprocessors: status.multiprocessors,
            software: c_int::from(status.software),
            free: status.free,
            total: status.total,
            programs: status.programs,
            running: status.running,
        };
        fill(&mut written.name, &status.name);
        // SAFETY: not null, and writable as the header says.
        unsafe { told.write(written) };
        CUresult::SUCCESS
    })
}

/// Answers a request of the stub protocol.
///
/// # Safety
/// As `pxos.h` says of its pointers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn px_command(
    request: *const command::Request,
    response: *mut command::Response,
) -> c_int {
    guarded(|| {
        if request.is_null() || response.is_null() {
            return CUresult::ERROR_INVALID_VALUE;
        }
        // SAFETY: not null, and readable as the header says.
        let request = unsafe { request.read() };
        let answer = command::answer(&request);
        // SAFETY: not null, and writable as the header says.
        unsafe { response.write(answer) };
        CUresult::SUCCESS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character() {
        let mut target = [7; 4];
        fill(&mut target, "aé→");
        assert_eq!(&target, &[b'a', 0xc3, 0xa9, 0]);
        fill(&mut target, "→→");
        assert_eq!(&target, &[0xe2, 0x86, 0x92, 0]);
    }
}
