//! One submission: arrays of the process to the device, the kernel, arrays back; on one device or by ranges on several.

use super::{Failure, Outcome, ended, enter_device, program, ready};
use crate::api;
use crate::callbacks::block_signals;
use crate::session::Session;
use crate::thread;
use pxos_protocol::frame::control;
use pxos_protocol::primitive::{Argument, Completion, Kernel, Param, Program, Submission, WAIT};
use pxos_protocol::types::CUresult;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// Arrays smaller than this in all are not worth a second device: starting a thread and a copy takes about 0.1 ms.
const WORTH_SPLITTING: u64 = 1 << 20;

/// An argument of the caller's.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The parameter that it is for; by position where there is none.
    pub(super) name: Option<String>,
    /// What it is.
    pub(super) value: Value,
}

/// What an argument is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// Bits, in the low bytes.
    Scalar(u64),
    /// Device memory.
    Device { address: u64, length: u64 },
    /// Memory of this process.
    Host {
        /// Its address.
        address: usize,
        length: u64,
        /// What it holds before does not matter.
        only_out: bool,
    },
}

/// How a submission is done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choices {
    /// Threads; 0 for one per element.
    pub(super) elements: u64,
    /// Stream, as CUDA names it.
    pub(super) stream: u64,
    /// Do not wait.
    pub(super) asynchronous: bool,
}

/// What a submission took.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) completion: Completion,
    pub(super) compile: Duration,
    pub(super) to_device: Duration,
    pub(super) launch: Duration,
    pub(super) to_host: Duration,
    pub(super) total: Duration,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) devices: u32,
}

/// Runs a kernel of a text.
///
/// # Safety
/// Host arrays may be read, and written where the kernel writes them, for the time of the call.
pub(super) unsafe fn submit(
    text: &[u8],
    kernel: Option<&str>,
    given: &[Given],
    choices: &Choices,
) -> Outcome<Report> {
    let start = Instant::now();
    let session = ready()?;
    let mut retried = false;
    loop {
        let program = program::compile(session, text)?;
        let compile = start.elapsed();
        let (index, kernel) = program::kernel(&program, kernel)?;
        let values = order(kernel, given)?;
        let job = Job { session, program: &program, index, kernel, values: &values, choices };
        // SAFETY: by this function's contract.
        match unsafe { job.run() } {
            // The worker keeps the programs that were used last.
            Err(failure) if failure.result == CUresult::ERROR_NOT_FOUND && !retried => {
                retried = true;
                program::forget(text);
            }
            Err(failure) => return Err(failure),
            Ok(report) => return Ok(Report { compile, total: start.elapsed(), ..report }),
        }
    }
}

/// The arguments in the order of the parameters, checked against them.
fn order(kernel: &Kernel, given: &[Given]) -> Outcome<Vec<Value>> {
    let names = || kernel.params.iter().map(|param| param.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut values: Vec<Option<Value>> = vec![None; kernel.params.len()];
    for (position, argument) in given.iter().enumerate() {
        let at = match &argument.name {
            Some(name) => kernel.params.iter().position(|param| param.name == *name).ok_or_else(|| {
                Failure::invalid(format!(
                    "kernel `{}` has no parameter `{name}`; it has {}",
                    kernel.name,
                    names()
                ))
            })?,
            None => position,
        };
        let slot = values.get_mut(at).ok_or_else(|| {
            Failure::invalid(format!(
                "kernel `{}` takes {} arguments, not {}: {}",
                kernel.name,
                kernel.params.len(),
                given.len(),
                names()
            ))
        })?;
        let param = &kernel.params[at];
        if slot.replace(argument.value).is_some() {
            return Err(Failure::invalid(format!("`{}` is given twice", param.name)));
        }
        match (param.array, argument.value) {
            (true, Value::Scalar(_)) => {
                let what = param.element.name();
                return Err(Failure::invalid(format!("`{}` is {what}[], not one value", param.name)));
            }
            (false, Value::Device { .. } | Value::Host { .. }) => {
                let what = param.element.name();
                return Err(Failure::invalid(format!("`{}` is one {what}, not an array", param.name)));
            }
            _ => {}
        }
    }
    let missing = |(value, param): (Option<Value>, &Param)| {
        value.ok_or_else(|| {
            Failure::invalid(format!("`{}` of kernel `{}` is missing", param.name, kernel.name))
        })
    };
    values.into_iter().zip(&kernel.params).map(missing).collect()
}

/// One kernel with its arguments.
struct Job<'a> {
    session: &'static Session,
    program: &'a Program,
    index: usize,
    kernel: &'a Kernel,
    values: &'a [Value],
    choices: &'a Choices,
}

/// A range of threads.
#[derive(Clone, Copy)]
struct Part {
    first: u64,
    elements: u64,
    /// It is one of several.
    split: bool,
}

/// Device memory that is given back when it goes out of use.
struct Block(u64);

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: an allocation of ours.
        let _ = unsafe { api::cuMemFree_v2(self.0) };
    }
}

/// An array of the process on its way.
struct Staged<'a> {
    param: &'a Param,
    host: usize,
    block: Block,
    /// Bytes that this part goes over.
    range: (u64, u64),
}

impl Job<'_> {
    /// # Safety
    /// As [`submit`].
    unsafe fn run(&self) -> Outcome<Report> {
        let devices = self.session.snapshot.devices.len() as u64;
        let Some(elements) = self.divided(devices) else {
            let part = Part { first: 0, elements: self.choices.elements, split: false };
            // SAFETY: by this function's contract.
            return unsafe { self.part(part) };
        };
        let share = elements.div_ceil(devices);
        let identity = thread::identity();
        let reports = std::thread::scope(|scope| {
            let mut running = Vec::new();
            for device in 0..devices {
                let first = (device * share).min(elements);
                let part = Part { first, elements: share.min(elements - first), split: true };
                let work = move || {
                    thread::adopt(identity);
                    enter_device(i32::try_from(device).unwrap_or(0))?;
                    // SAFETY: by this function's contract; the ranges of parts do not overlap.
                    unsafe { self.part(part) }
                };
                let _signals = block_signals();
                running.push(std::thread::Builder::new().spawn_scoped(scope, work));
            }
            running
                .into_iter()
                .map(|thread| match thread.map(std::thread::ScopedJoinHandle::join) {
                    Ok(Ok(outcome)) => outcome,
                    _ => Err(Failure::new(CUresult::ERROR_OPERATING_SYSTEM, "a thread could not be had")),
                })
                .collect::<Vec<_>>()
        });
        let mut whole = Report::default();
        for report in reports {
            whole.add(&report?);
        }
        Ok(whole)
    }

    /// Threads in all, where the work is to be split over `devices`.
    fn divided(&self, devices: u64) -> Option<u64> {
        if devices < 2 || !self.program.distribute || !self.kernel.divisible || self.choices.asynchronous {
            return None;
        }
        let mut elements = 0;
        let mut bytes = 0;
        for (param, value) in self.kernel.params.iter().zip(self.values) {
            match *value {
                Value::Scalar(_) => {}
                Value::Device { .. } => return None,
                Value::Host { length, .. } => {
                    bytes += length.saturating_mul(param.element.bytes());
                    if param.written && !param.elementwise {
                        return None;
                    }
                    if param.written {
                        elements = elements.max(length);
                    }
                }
            }
        }
        if self.choices.elements > 0 {
            elements = self.choices.elements;
        }
        (elements >= devices && bytes >= WORTH_SPLITTING).then_some(elements)
    }

    /// Runs a range of threads on the current device.
    ///
    /// # Safety
    /// As [`submit`].
    unsafe fn part(&self, part: Part) -> Outcome<Report> {
        if part.split && part.elements == 0 {
            return Ok(Report::default());
        }
        let mut report = Report { devices: 1, ..Report::default() };
        let start = Instant::now();
        let mut staged = Vec::new();
        let mut arguments = Vec::new();
        for (param, value) in self.kernel.params.iter().zip(self.values) {
            arguments.push(match *value {
                Value::Scalar(bits) => Argument::Scalar(bits),
                Value::Device { address, length } => self.device_array(param, address, length)?,
                Value::Host { address, length, only_out } => {
                    // SAFETY: by this function's contract.
                    let array = unsafe { Staged::new(param, address, length, only_out, part, &mut report)? };
                    let on_device = array.block.0;
                    staged.push(array);
                    Argument::Array { address: on_device, length }
                }
            });
        }
        if self.choices.asynchronous && !staged.is_empty() {
            return Err(Failure::invalid("only arrays in device memory can be used without waiting"));
        }
        report.to_device = start.elapsed();
        let begun = Instant::now();
        report.completion = self.launch(part, arguments)?;
        report.launch = begun.elapsed();
        let begun = Instant::now();
        for array in &staged {
            // SAFETY: by this function's contract.
            unsafe { array.bring_back(&mut report)? };
        }
        report.to_host = begun.elapsed();
        Ok(report)
    }

    /// A device pointer of the application's, which must lie in memory that it has not freed.
    fn device_array(&self, param: &Param, address: u64, length: u64) -> Outcome<Argument> {
        let bytes = length.saturating_mul(param.element.bytes());
        let held =
            self.session.allocations.find(address).is_some_and(|range| range.bytes_from(address) >= bytes);
        if bytes > 0 && !held {
            return Err(Failure::invalid(format!(
                "`{}` is said to be {length} elements of {} at {address:#x}: that is not live device memory",
                param.name,
                param.element.name()
            )));
        }
        Ok(Argument::Array { address, length })
    }

    fn launch(&self, part: Part, arguments: Vec<Argument>) -> Outcome<Completion> {
        let stream = api::stream_for_primitive(self.session, self.choices.stream)?;
        let submission = Submission {
            program: self.program.number,
            kernel: self.index as u64,
            stream,
            elements: part.elements,
            first: part.first,
            flags: if self.choices.asynchronous { 0 } else { WAIT },
            arguments,
        };
        let reply = self.session.call(control::SUBMIT_PRIMITIVE, |writer| submission.write(writer))?;
        let completion = Completion::read(&mut reply.reader())
            .map_err(|error| Failure::from(crate::call::garbled(error)))?;
        ended(completion)
    }
}

impl<'a> Staged<'a> {
    /// Room on the device, filled with what this part may read.
    ///
    /// # Safety
    /// The array may be read.
    unsafe fn new(
        param: &'a Param,
        host: usize,
        length: u64,
        only_out: bool,
        part: Part,
        report: &mut Report,
    ) -> Outcome<Self> {
        let size = param.element.bytes();
        let whole = length.checked_mul(size).filter(|bytes| isize::try_from(*bytes).is_ok());
        let whole =
            whole.ok_or_else(|| Failure::invalid(format!("`{}` is longer than memory", param.name)))?;
        if host == 0 && whole > 0 {
            return Err(Failure::invalid(format!("`{}` is a null pointer", param.name)));
        }
        let mut address = 0;
        // SAFETY: a pointer to a local.
        unsafe { api::cuMemAlloc_v2(&raw mut address, usize::try_from(whole.max(1)).unwrap_or(usize::MAX))? };
        let block = Block(address);
        let range = if part.split && param.elementwise {
            let from = part.first.min(length);
            (from * size, (part.first + part.elements).min(length) * size)
        } else {
            (0, whole)
        };
        let array = Self { param, host, block, range };
        // What the kernel does not write must come back as it was, so an array that it only writes is copied as well.
        if (param.read || !only_out) && array.bytes() > 0 {
            let from: *const u8 = std::ptr::with_exposed_provenance(host + array.offset());
            // SAFETY: within the caller's array; our own memory on the device.
            unsafe { api::cuMemcpyHtoD_v2(address + range.0, from.cast(), array.bytes())? };
            report.bytes_in += range.1 - range.0;
        }
        Ok(array)
    }

    fn offset(&self) -> usize {
        usize::try_from(self.range.0).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.range.1 - self.range.0).unwrap_or(usize::MAX)
    }

    /// Copies what the kernel may have written to the process.
    ///
    /// # Safety
    /// The array may be written.
    unsafe fn bring_back(&self, report: &mut Report) -> Outcome<()> {
        if self.param.written && self.bytes() > 0 {
            let to: *mut c_void = std::ptr::with_exposed_provenance_mut(self.host + self.offset());
            // SAFETY: within the caller's array, by this function's contract.
            unsafe { api::cuMemcpyDtoH_v2(to, self.block.0 + self.range.0, self.bytes())? };
            report.bytes_out += self.range.1 - self.range.0;
        }
        Ok(())
    }
}

impl Report {
    /// Takes in what ran beside it: times are the longest, counts add up.
    fn add(&mut self, other: &Self) {
        self.completion.elements += other.completion.elements;
        self.completion.milliseconds = self.completion.milliseconds.max(other.completion.milliseconds);
        self.completion.checks = other.completion.checks;
        self.to_device = self.to_device.max(other.to_device);
        self.launch = self.launch.max(other.launch);
        self.to_host = self.to_host.max(other.to_host);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.devices += other.devices;
    }
}
