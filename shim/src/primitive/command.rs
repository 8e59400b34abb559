//! Requests of the stub protocol, and the same and more as lines of text.
//!
//! A line is a command and its operands: `NOP`, `VECTOR_ADD [n]`, `STATUS`, `ALLOC bytes`, `FREE address`, and
//! `RUN kernel name=value …` for a kernel of the program that was written last. A value is a number, a list `[1,2,3]`, or
//! `@address:length` in device memory. Each is answered by one line of JSON, whose `status` is a `CUresult`.

use super::run::{Choices, Given, Report, Value, submit};
use super::{Failure, Outcome, program, ready, status};
use crate::api;
use pxos_protocol::primitive::{DeviceStatus, Element, Kernel, Param};
use pxos_protocol::types::CUresult;
use serde_json::{Value as Json, json};
use std::ffi::c_void;

/// Commands of the stub protocol.
const NOP: u16 = 0;
const VECTOR_ADD: u16 = 1;
const QUERY_STATUS: u16 = 2;

/// Elements that VECTOR_ADD adds where the request brings none.
const ELEMENTS: usize = 1024;

/// Most elements of one list, and of VECTOR_ADD.
const MAX_LIST: usize = 1 << 20;

/// The kernel of VECTOR_ADD, which is the language's first example.
const PROGRAM: &str = include_str!("../../../primitives/examples/vector_add.px");

/// A request, laid out as C lays it out (24 bytes).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Request {
    pub(super) cmd: u16,
    pub(super) flags: u16,
    pub(super) id: u32,
    pub(super) data_len: u32,
    pub(super) data_ptr: u64,
}

/// A response (268 bytes).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Response {
    pub(super) id: u32,
    pub(super) status: i32,
    pub(super) data_len: u32,
    pub(super) data: [u8; 256],
}

impl Request {
    /// Bytes of a request.
    pub(super) const BYTES: usize = size_of::<Self>();

    /// Reads one as it came over the file.
    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let data_ptr = u64::from(word(16)) | u64::from(word(20)) << 32;
        Self { cmd: half(0), flags: half(2), id: word(4), data_len: word(8), data_ptr }
    }
}

impl Response {
    /// The bytes that go over the file.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let head = [self.id.to_le_bytes(), self.status.to_le_bytes(), self.data_len.to_le_bytes()];
        [head.as_flattened(), &self.data].concat()
    }

    fn new(id: u32, status: i32, text: &str) -> Self {
        let mut data = [0; 256];
        let mut length = text.len().min(data.len() - 1);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        data[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self { id, status, data_len: u32::try_from(length).unwrap_or(0), data }
    }
}

/// Answers a request.
pub(super) fn answer(request: &Request) -> Response {
    let id = request.id;
    let outcome = match request.cmd {
        _ if request.flags != 0 => return Response::new(id, -libc::EINVAL, "Invalid flags"),
        NOP => ready().map(|_| "NOP command successful".to_owned()),
        VECTOR_ADD if request.data_len == 0 => add_own(ELEMENTS),
        VECTOR_ADD => match add_given(request) {
            Ok(outcome) => outcome,
            Err(errno) => {
                let why = "The data must be three arrays of floats of the same length, in this process";
                return Response::new(id, -errno, why);
            }
        },
        QUERY_STATUS => status().map(|status| describe(&status)),
        _ => return Response::new(id, -libc::EINVAL, "Invalid command"),
    };
    match outcome {
        Ok(text) => Response::new(id, 0, &text),
        Err(failure) => Response::new(id, errno(failure.result), &failure.message),
    }
}

fn errno(result: CUresult) -> i32 {
    -match result {
        CUresult::ERROR_NO_DEVICE | CUresult::ERROR_NOT_INITIALIZED => libc::ENODEV,
        CUresult::ERROR_OUT_OF_MEMORY => libc::ENOMEM,
        CUresult::ERROR_INVALID_VALUE => libc::EINVAL,
        CUresult::ERROR_ILLEGAL_ADDRESS => libc::EFAULT,
        _ => libc::EIO,
    }
}

fn describe(status: &DeviceStatus) -> String {
    let [major, minor] = status.capability;
    let gib = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let gib = bytes as f64 / f64::from(1 << 30);
        gib
    };
    format!(
        "GPU: {}, compute capability {major}.{minor}, {} multiprocessors, {:.1} of {:.1} GiB free, {} submissions running",
        status.name,
        status.multiprocessors,
        gib(status.free),
        gib(status.total),
        status.running
    )
}

/// Adds two arrays on the device and checks every sum.
fn add_own(count: usize) -> Outcome<String> {
    let series = |scale: f32| -> Vec<f32> {
        (0..count).map(|i| f32::from(u16::try_from(i & 0xffff).unwrap_or(0)) * scale).collect()
    };
    let (a, b) = (series(0.5), series(1.25));
    let mut sums = vec![f32::NAN; count];
    add(&a, &b, &mut sums)?;
    let errors = a.iter().zip(&b).zip(&sums).filter(|((x, y), sum)| **x + **y != **sum).count();
    if errors == 0 {
        return Ok(format!("Vector add passed: {count} elements, 0 errors"));
    }
    let message = format!("Vector add failed: {count} elements, {errors} errors");
    Err(Failure::new(CUresult::ERROR_UNKNOWN, message))
}

fn add(a: &[f32], b: &[f32], sums: &mut [f32]) -> Outcome<Report> {
    let host = |address: usize, length: usize, only_out: bool| Given {
        name: None,
        value: Value::Host { address, length: length as u64, only_out },
    };
    let given = [
        host(a.as_ptr().expose_provenance(), a.len(), false),
        host(b.as_ptr().expose_provenance(), b.len(), false),
        host(sums.as_mut_ptr().expose_provenance(), sums.len(), true),
        Given { name: None, value: Value::Scalar(sums.len() as u64) },
    ];
    // SAFETY: slices that live through the call; the kernel writes the third only.
    unsafe { submit(PROGRAM.as_bytes(), Some("vector_add"), &given, &Choices::default()) }
}

/// Adds the arrays that a request brings: a, b and room for the sums, one behind the other. The error is an errno.
fn add_given(request: &Request) -> Result<Outcome<String>, i32> {
    let bytes = request.data_len as usize;
    let count = bytes / 12;
    if !bytes.is_multiple_of(12) || count > MAX_LIST {
        return Err(libc::EINVAL);
    }
    let mut data = vec![0_f32; count * 3];
    move_memory(request.data_ptr, data.as_mut_ptr().cast(), bytes, false)?;
    let (a, rest) = data.split_at_mut(count);
    let (b, sums) = rest.split_at_mut(count);
    if let Err(failure) = add(a, b, sums) {
        return Ok(Err(failure));
    }
    let to = request.data_ptr + (count * 8) as u64;
    move_memory(to, sums.as_mut_ptr().cast(), count * 4, true)?;
    Ok(Ok(format!("Vector add passed: {count} elements, 0 errors")))
}

/// Copies between a claimed address of this process and a buffer of ours; a bad address is an error, not a crash.
fn move_memory(claimed: u64, buffer: *mut c_void, bytes: usize, write: bool) -> Result<(), i32> {
    let claimed = usize::try_from(claimed).map_err(|_| libc::EFAULT)?;
    let local = libc::iovec { iov_base: buffer, iov_len: bytes };
    let remote = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(claimed), iov_len: bytes };
    // SAFETY: a buffer of that many bytes; the kernel checks the claimed range.
    let moved = unsafe {
        let own = libc::getpid();
        if write {
            libc::process_vm_writev(own, &raw const local, 1, &raw const remote, 1, 0)
        } else {
            libc::process_vm_readv(own, &raw const local, 1, &raw const remote, 1, 0)
        }
    };
    if usize::try_from(moved) == Ok(bytes) { Ok(()) } else { Err(libc::EFAULT) }
}

/// What one opening of the file has said so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    program: Option<Vec<u8>>,
}

impl Conversation {
    /// Answers a program: it is compiled, and the next RUN means it.
    pub(super) fn program(&mut self, text: Vec<u8>) -> String {
        let compiled = ready().and_then(|session| program::compile(session, &text));
        match compiled {
            Ok(compiled) => {
                let described: Json = serde_json::from_str(&program::to_json(&compiled)).unwrap_or_default();
                self.program = Some(text);
                json!({ "status": 0, "compiled": described }).to_string()
            }
            Err(failure) => refusal(&failure),
        }
    }

    /// Answers a line.
    pub(super) fn line(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or("").to_ascii_uppercase();
        let operands: Vec<&str> = words.collect();
        match self.run(&command, &operands) {
            Ok(answer) => answer.to_string(),
            Err(failure) => refusal(&failure),
        }
    }

    fn run(&self, command: &str, operands: &[&str]) -> Outcome<Json> {
        match (command, operands) {
            ("NOP", []) => {
                ready()?;
                Ok(json!({ "status": 0, "message": "NOP command successful" }))
            }
            ("VECTOR_ADD", []) => Ok(json!({ "status": 0, "message": add_own(ELEMENTS)? })),
            ("VECTOR_ADD", [count]) => {
                let count = number(count)?;
                let count = usize::try_from(count).ok().filter(|count| (1..=MAX_LIST).contains(count));
                let count = count.ok_or_else(|| Failure::invalid(format!("1 to {MAX_LIST} elements")))?;
                Ok(json!({ "status": 0, "message": add_own(count)? }))
            }
            ("STATUS" | "QUERY_STATUS", []) => {
                let status = status()?;
                Ok(json!({
                    "status": 0, "message": describe(&status), "name": status.name, "free": status.free,
                    "total": status.total, "multiprocessors": status.multiprocessors, "running": status.running,
                    "software": status.software
                }))
            }
            ("ALLOC", [bytes]) => {
                ready()?;
                let bytes = usize::try_from(number(bytes)?).unwrap_or(usize::MAX);
                let mut address = 0;
                // SAFETY: a pointer to a local.
                unsafe { api::cuMemAlloc_v2(&raw mut address, bytes)? };
                Ok(json!({ "status": 0, "address": format!("{address:#x}") }))
            }
            ("FREE", [address]) => {
                ready()?;
                // SAFETY: it dereferences nothing.
                unsafe { api::cuMemFree_v2(number(address)?)? };
                Ok(json!({ "status": 0 }))
            }
            ("RUN", [kernel, values @ ..]) => self.run_kernel(kernel, values),
            _ => Err(Failure::invalid(
                "Invalid command: NOP, VECTOR_ADD [n], STATUS, ALLOC bytes, FREE address, RUN kernel name=value … or a program",
            )),
        }
    }

    fn run_kernel(&self, name: &str, values: &[&str]) -> Outcome<Json> {
        let text = self.program.as_ref();
        let text = text.ok_or_else(|| Failure::invalid("no program was written to this file yet"))?;
        let compiled = program::compile(ready()?, text)?;
        let (_, kernel) = program::kernel(&compiled, Some(name))?;
        let mut lists: Vec<(&Param, Vec<u8>)> = Vec::new();
        let mut given = Vec::new();
        for value in values {
            let (name, value) = value
                .split_once('=')
                .ok_or_else(|| Failure::invalid(format!("`{value}` is not name=value")))?;
            given.push(Given { name: Some(name.to_owned()), value: parse(kernel, name, value, &mut lists)? });
        }
        // SAFETY: lists live through the call, and nothing else points to them.
        let report = unsafe { submit(text, Some(name), &given, &Choices::default())? };
        let results: serde_json::Map<String, Json> = lists
            .iter()
            .filter(|(param, _)| param.written)
            .map(|(param, bytes)| (param.name.clone(), to_list(param.element, bytes)))
            .collect();
        Ok(json!({
            "status": 0, "elements": report.completion.elements, "kernel_ms": report.completion.milliseconds,
            "total_ms": report.total.as_secs_f64() * 1e3, "results": results
        }))
    }
}

fn refusal(failure: &Failure) -> String {
    let mut answer = json!({ "status": failure.result.0, "message": failure.message });
    if failure.completion.line > 0 {
        answer["line"] = failure.completion.line.into();
        answer["index"] = failure.completion.index.into();
    }
    if let Ok(diagnostics) = serde_json::from_str::<Json>(&failure.json) {
        answer["diagnostics"] = diagnostics;
    }
    answer.to_string()
}

fn number(text: &str) -> Outcome<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Failure::invalid(format!("`{text}` is not a whole number")))
}

/// A value of a RUN line; a list's bytes are kept in `lists`.
fn parse<'a>(
    kernel: &'a Kernel,
    name: &str,
    text: &str,
    lists: &mut Vec<(&'a Param, Vec<u8>)>,
) -> Outcome<Value> {
    let param = kernel.params.iter().find(|param| param.name == name);
    let param = param
        .ok_or_else(|| Failure::invalid(format!("kernel `{}` has no parameter `{name}`", kernel.name)))?;
    if let Some(place) = text.strip_prefix('@') {
        let (address, length) = place
            .split_once(':')
            .ok_or_else(|| Failure::invalid(format!("`{text}` is not @address:length")))?;
        return Ok(Value::Device { address: number(address)?, length: number(length)? });
    }
    let wrong = || Failure::invalid(format!("`{text}` is not what `{name}` takes: {}", param.element.name()));
    let values: Vec<f64> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|_| wrong())?
    } else {
        vec![text.parse().map_err(|_| wrong())?]
    };
    if values.len() > MAX_LIST || param.element == Element::Half {
        return Err(Failure::invalid(format!(
            "`{name}`: a list has at most {MAX_LIST} values, and half is passed as memory only"
        )));
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| to_bytes(param.element, *value)).collect();
    if !text.starts_with('[') {
        let mut bits = [0; 8];
        bits[..bytes.len()].copy_from_slice(&bytes);
        return Ok(Value::Scalar(u64::from_le_bytes(bits)));
    }
    let address = bytes.as_ptr().expose_provenance();
    // The bytes stay where they are when their vector moves.
    lists.push((param, bytes));
    Ok(Value::Host { address, length: values.len() as u64, only_out: false })
}

#[expect(clippy::cast_possible_truncation, reason = "a number becomes what the parameter holds, saturating")]
#[expect(clippy::cast_sign_loss, reason = "as above")]
fn to_bytes(element: Element, value: f64) -> Vec<u8> {
    match element {
        Element::Byte => vec![value as u8],
        Element::Int => (value as i32).to_le_bytes().to_vec(),
        Element::Uint | Element::Pixel => (value as u32).to_le_bytes().to_vec(),
        Element::Float => (value as f32).to_le_bytes().to_vec(),
        Element::Double => value.to_le_bytes().to_vec(),
        Element::Half => vec![0; 2],
    }
}

fn to_list(element: Element, bytes: &[u8]) -> Json {
    let word = |chunk: &[u8]| u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    let size = usize::try_from(element.bytes()).unwrap_or(1);
    let value = |chunk: &[u8]| match element {
        Element::Byte => json!(chunk[0]),
        Element::Int => json!(word(chunk).cast_signed()),
        Element::Float => json!(f32::from_bits(word(chunk))),
        Element::Double => json!(f64::from_le_bytes(chunk.try_into().unwrap_or_default())),
        _ => json!(word(chunk)),
    };
    bytes.chunks_exact(size).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_those_of_c() {
        assert_eq!((Request::BYTES, size_of::<Response>()), (24, 268));
        let mut bytes = [0; Request::BYTES];
        bytes[..12].copy_from_slice(&[1, 0, 2, 0, 7, 0, 0, 0, 12, 0, 0, 0]);
        bytes[16..].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
        let request = Request::from_bytes(&bytes);
        assert_eq!((request.cmd, request.flags, request.id, request.data_len), (1, 2, 7, 12));
        assert_eq!(request.data_ptr, 0x1234_5678_9abc_def0);
        assert_eq!(Response::new(9, -22, "no").to_bytes().len(), 268);
    }

    #[test]
    fn what_is_no_command_is_invalid() {
        let answer = answer(&Request { cmd: 99, id: 5, ..Request::default() });
        assert_eq!((answer.id, answer.status), (5, -libc::EINVAL));
        assert_eq!(&answer.data[..answer.data_len as usize], b"Invalid command");
    }

    #[test]
    fn a_claimed_address_is_not_believed() {
        let request = Request { cmd: VECTOR_ADD, data_len: 12, data_ptr: 8, ..Request::default() };
        assert_eq!(add_given(&request), Err(libc::EFAULT));
        let request = Request { cmd: VECTOR_ADD, data_len: 13, data_ptr: 8, ..Request::default() };
        assert_eq!(add_given(&request), Err(libc::EINVAL));
    }

    #[test]
    fn numbers_become_what_the_array_holds() {
        assert_eq!(to_bytes(Element::Int, -3.0), (-3_i32).to_le_bytes());
        assert_eq!(to_bytes(Element::Byte, 300.0), [255]);
        assert_eq!(to_list(Element::Float, &1.5_f32.to_le_bytes()), json!([1.5]));
    }
}
