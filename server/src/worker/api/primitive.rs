//! Primitives: programs of the primitive language, checked and compiled here, and launched as every other kernel.
//!
//! A text is compiled once per session and named by a number from then on; the modules that it becomes are loaded once
//! per context, by the hash of their PTX. Everything that a submission says is an allegation: its arrays must lie in live
//! memory of this process, and what they hold beyond their lengths is out of the kernel's reach.

use super::super::dispatch::{Answer, Call, Failed, Outcome, done};
use super::super::flight::Place;
use super::super::session::Session;
use super::super::state::State;
use super::super::submissions::{Running, Ticket};
use super::launch::{Work, submit};
use super::memory::figures;
use crate::driver::Result;
use pxos_primitives::{
    Arg, Class, Element, Kernel, Options, ParamType, Plan, Program, Request, Target, to_json,
};
use pxos_protocol::control::encode;
use pxos_protocol::primitive::{self as wire, Argument, Completion, DeviceStatus, Findings, Submission};
use pxos_protocol::types::{CUresult, attribute};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Programs that a session keeps compiled; the least recently used goes first.
const MAX_PROGRAMS: usize = 256;

/// Modules that a session keeps loaded.
const MAX_MODULES: usize = 512;

/// A program and when it was last used.
#[derive(Debug)]
struct Held {
    program: Arc<Program>,
    text: Arc<str>,
    used: u64,
}

/// A loaded module.
#[derive(Debug)]
struct Loaded {
    native: u64,
    functions: HashMap<String, u64>,
    used: u64,
}

/// The programs of a session.
#[derive(Debug, Default)]
pub(crate) struct Primitives {
    programs: HashMap<u64, Held>,
    numbers: HashMap<Arc<str>, u64>,
    /// By context, as the guest names it, and hash of the PTX.
    modules: HashMap<(u64, u64), Loaded>,
    last: u64,
    clock: u64,
    options: Options,
}

impl Primitives {
    /// No programs yet. Whether they may leave bounds checks out is the operator's choice.
    pub(crate) fn new(unchecked: bool) -> Self {
        Self { options: Options { allow_unchecked: unchecked, ..Options::default() }, ..Self::default() }
    }

    /// Forgets the modules of a context, which the driver has unloaded with it.
    pub(crate) fn forget_context(&mut self, context: u64) {
        self.modules.retain(|(owner, _), _| *owner != context);
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn program(&mut self, number: u64) -> Option<Arc<Program>> {
        let now = self.tick();
        let held = self.programs.get_mut(&number)?;
        held.used = now;
        Some(Arc::clone(&held.program))
    }

    fn keep(&mut self, text: &str, program: Program) -> (u64, Arc<Program>) {
        if self.programs.len() >= MAX_PROGRAMS
            && let Some(oldest) = self.programs.iter().min_by_key(|(_, held)| held.used).map(|(n, _)| *n)
            && let Some(held) = self.programs.remove(&oldest)
        {
            self.numbers.remove(&held.text);
        }
        self.last += 1;
        let (text, program, used): (Arc<str>, _, _) = (text.into(), Arc::new(program), self.tick());
        self.numbers.insert(Arc::clone(&text), self.last);
        self.programs.insert(self.last, Held { program: Arc::clone(&program), text, used });
        (self.last, program)
    }
}

/// COMPILE_PRIMITIVE: text.
pub(in super::super) fn compile(call: &mut Call<'_>) -> Answer {
    let text = call.fields.get_str()?;
    let primitives = &mut call.state.primitives;
    let compilation = match primitives.numbers.get(text).copied() {
        Some(number) => match primitives.program(number) {
            Some(program) => wire::Compilation::Compiled(describe(number, &program, text)),
            None => return Err(Failed::Call(CUresult::ERROR_UNKNOWN)),
        },
        None => match pxos_primitives::compile(text, &primitives.options) {
            Ok(program) => {
                let (number, program) = primitives.keep(text, program);
                wire::Compilation::Compiled(describe(number, &program, text))
            }
            Err(found) => wire::Compilation::Refused(findings(&found, text)),
        },
    };
    let bytes = encode(&compilation).map_err(|_| CUresult::ERROR_INVALID_SOURCE)?;
    call.reply().put_raw(&bytes);
    done()
}

fn findings(found: &[pxos_primitives::Diagnostic], text: &str) -> Findings {
    let rendered = found.iter().map(|diagnostic| diagnostic.render("primitive", text)).collect();
    Findings { text: rendered, json: to_json(found) }
}

fn describe(number: u64, program: &Program, text: &str) -> wire::Program {
    wire::Program {
        number,
        kernels: program.kernels().iter().map(describe_kernel).collect(),
        distribute: program.distribute(),
        warnings: findings(program.warnings(), text),
    }
}

fn describe_kernel(kernel: &Kernel) -> wire::Kernel {
    let access = kernel.access();
    let own = kernel.elementwise();
    let params = kernel.params().iter().zip(access).zip(own).map(|((param, access), elementwise)| {
        let (element, array) = match param.ty {
            ParamType::Array(element) => (element, true),
            ParamType::Scalar(element) => (element, false),
        };
        wire::Param {
            name: param.name.clone(),
            element: element_on_wire(element),
            array,
            read: access.read,
            written: access.written,
            elementwise,
        }
    });
    wire::Kernel {
        name: kernel.name().to_owned(),
        params: params.collect(),
        divisible: kernel.divisible().is_ok(),
    }
}

const fn element_on_wire(element: Element) -> wire::Element {
    match element {
        Element::Byte => wire::Element::Byte,
        Element::Int => wire::Element::Int,
        Element::Uint => wire::Element::Uint,
        Element::Float => wire::Element::Float,
        Element::Double => wire::Element::Double,
        Element::Half => wire::Element::Half,
        Element::Pixel => wire::Element::Pixel,
    }
}

/// Why a submission did not start.
struct Refusal {
    result: CUresult,
    message: String,
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self { result: CUresult::ERROR_INVALID_VALUE, message: message.into() }
    }

    fn of(result: CUresult, what: &str) -> Self {
        Self { result, message: format!("{what}: {result}") }
    }
}

/// SUBMIT_PRIMITIVE: [`Submission`].
pub(in super::super) fn run(call: &mut Call<'_>) -> Answer {
    let submission = Submission::read(&mut call.fields)?;
    let raw = submission.stream;
    let stream = call.state.stream(call.session, raw, call.header.thread, call.header.context)?;
    call.state.fences.pass(call.session, stream);
    let ticket = match start(call.session, call.state, call.header.context, &submission, stream) {
        Ok(ticket) => ticket,
        Err(Refusal { result, message }) => {
            let completion = Completion { result: result.0, message, ..Completion::default() };
            completion.write(&mut call.reply());
            return done();
        }
    };
    if submission.flags & wire::WAIT == 0 {
        let completion = call.session.submissions.file(ticket);
        completion.write(&mut call.reply());
        return done();
    }
    Ok(Outcome::Later(Box::new(move |session, reply| {
        let completion = session.submissions.finish(session, ticket);
        completion.write(&mut pxos_protocol::codec::Writer::new(reply));
        Ok(())
    })))
}

/// Checks a submission and puts its launches into the stream.
fn start(
    session: &Arc<Session>,
    state: &mut State,
    context: u64,
    submission: &Submission,
    stream: u64,
) -> std::result::Result<Ticket, Refusal> {
    let program = state.primitives.program(submission.program).ok_or_else(|| Refusal {
        result: CUresult::ERROR_NOT_FOUND,
        message: format!("there is no program {}; it was compiled too long ago", submission.program),
    })?;
    if program.target() == Target::Cpu {
        return Err(Refusal::invalid("the program says GPU_TARGET cpu: run it where it was written"));
    }
    let index = usize::try_from(submission.kernel).unwrap_or(usize::MAX);
    let kernel = program.kernels().get(index).ok_or_else(|| {
        Refusal::invalid(format!("the program has {} kernels, no number {index}", program.kernels().len()))
    })?;
    let args = arguments(session, state, kernel, &submission.arguments)?;
    let ticket = session
        .submissions
        .open(session, context, stream)
        .map_err(|(result, what)| Refusal::of(result, what))?;
    let request = Request {
        elements: (submission.elements != 0).then_some(submission.elements),
        first: submission.first,
        fault_record: ticket.record(),
    };
    let urgent = kernel.class() == Class::LatencyCritical;
    let started = kernel
        .plan(&args, &request)
        .map_err(|error| Refusal::invalid(error.to_string()))
        .and_then(|plan| launch(session, state, context, (&plan, urgent), &ticket).map(|()| plan));
    match started {
        Ok(plan) => Ok(ticket.started(Running { program: Arc::clone(&program), kernel: index }, &plan)),
        Err(refusal) => {
            session.submissions.abandon(session, &ticket);
            Err(refusal)
        }
    }
}

/// The arguments as the planner takes them: every array lies whole in one live allocation.
fn arguments(
    session: &Session,
    state: &State,
    kernel: &Kernel,
    arguments: &[Argument],
) -> std::result::Result<Vec<Arg>, Refusal> {
    let mut args = Vec::with_capacity(arguments.len());
    for (position, argument) in arguments.iter().enumerate() {
        args.push(match *argument {
            Argument::Scalar(bits) => Arg::Scalar(bits),
            Argument::Array { address, length } => {
                if let Some(param) = kernel.params().get(position)
                    && let ParamType::Array(element) = param.ty
                {
                    let bytes = length.checked_mul(element.bytes() as u64);
                    let live = bytes.is_some_and(|bytes| is_live(session, state, address, bytes));
                    if !live {
                        return Err(Refusal::invalid(format!(
                            "`{}` is said to be {length} elements of {} at {address:#x}: that is not memory of this process",
                            param.name,
                            element.name()
                        )));
                    }
                }
                Arg::Array { address, length }
            }
        });
    }
    Ok(args)
}

/// Whether a range lies in one live allocation of this worker's process, which is this guest's alone.
fn is_live(session: &Session, state: &State, address: u64, bytes: u64) -> bool {
    let Some(end) = address.checked_add(bytes) else { return false };
    if bytes == 0 || state.is_shared(address, bytes) {
        return true;
    }
    let (mut base, mut size) = (0, 0);
    // SAFETY: pointers to locals; the driver looks the address up.
    let found = unsafe { session.driver.cuMemGetAddressRange_v2(&raw mut base, &raw mut size, address) };
    found.is_ok() && base <= address && base.checked_add(size as u64).is_some_and(|limit| end <= limit)
}

/// Puts the launches of a plan into the ticket's stream, between its events.
fn launch(
    session: &Arc<Session>,
    state: &mut State,
    context: u64,
    (plan, urgent): (&Plan, bool),
    ticket: &Ticket,
) -> std::result::Result<(), Refusal> {
    let mut functions = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let found = function(session, state, context, plan, &step.entry);
        functions.push(found.map_err(|result| Refusal::of(result, "the kernel could not be loaded"))?);
    }
    let failed = |result| Refusal::of(result, "the kernel could not be launched");
    ticket.begin(session).map_err(failed)?;
    let place = Place { device: state.device, context: Session::current(), stream: ticket.stream() };
    for (step, function) in plan.steps.iter().zip(functions) {
        let mut size = step.params.len();
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            step.params.as_ptr().cast_mut().cast(),
            std::ptr::without_provenance_mut(2),
            (&raw mut size).cast(),
            std::ptr::null_mut(),
        ];
        let work = Work {
            function,
            grid: step.grid,
            block: step.block,
            shared: 0,
            stream: ticket.stream(),
            attributes: &[],
            marked: urgent,
        };
        // SAFETY: a function of this session's; its parameter block, laid out as its module says.
        let submitted = unsafe { submit(session, place, &work, std::ptr::null_mut(), extra.as_mut_ptr()) };
        submitted.map_err(|why| match why {
            Failed::Call(result) => failed(result),
            // The session ends, and nobody reads the answer.
            Failed::Session(_) => failed(CUresult::ERROR_DEVICE_UNAVAILABLE),
        })?;
    }
    ticket.end(session, plan.checks.1 > 0).map_err(failed)
}

/// The driver's handle of an entry of a plan's module, loaded into the context at its first use.
fn function(session: &Session, state: &mut State, context: u64, plan: &Plan, entry: &str) -> Result<u64> {
    let primitives = &mut state.primitives;
    let now = primitives.tick();
    let key = (context, plan.module.key);
    if !primitives.modules.contains_key(&key) {
        if primitives.modules.len() >= MAX_MODULES {
            unload_oldest(session, primitives, context)?;
        }
        let text = CString::new(plan.module.ptx.as_str()).map_err(|_| CUresult::ERROR_INVALID_PTX)?;
        let mut native = 0;
        // SAFETY: a pointer to a local, PTX that ends in a zero, no options.
        unsafe {
            session.driver.cuModuleLoadDataEx(
                &raw mut native,
                text.as_ptr().cast(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )?;
        }
        primitives.modules.insert(key, Loaded { native, functions: HashMap::new(), used: now });
    }
    let loaded = primitives.modules.get_mut(&key).ok_or(CUresult::ERROR_UNKNOWN)?;
    loaded.used = now;
    if let Some(native) = loaded.functions.get(entry) {
        return Ok(*native);
    }
    let name = CString::new(entry).map_err(|_| CUresult::ERROR_NOT_FOUND)?;
    let mut native = 0;
    // SAFETY: a module of this session's, a pointer to a local, a C string.
    unsafe { session.driver.cuModuleGetFunction(&raw mut native, loaded.native, name.as_ptr())? };
    loaded.functions.insert(entry.to_owned(), native);
    Ok(native)
}

/// Makes room for a module at the expense of the one that was not used for longest, of the context that is current.
fn unload_oldest(session: &Session, primitives: &mut Primitives, context: u64) -> Result {
    let own = primitives.modules.iter().filter(|((owner, _), _)| *owner == context);
    let Some(oldest) = own.min_by_key(|(_, loaded)| loaded.used).map(|(key, _)| *key) else {
        return Err(CUresult::ERROR_OUT_OF_MEMORY);
    };
    if let Some(loaded) = primitives.modules.remove(&oldest) {
        // SAFETY: a module of ours, taken out of the table; nothing of it runs once the context is idle.
        unsafe {
            session.driver.cuCtxSynchronize()?;
            session.driver.cuModuleUnload(loaded.native)?;
        }
    }
    Ok(())
}

/// QUERY_STATUS: number, whether to wait. Number 0 is the device.
pub(in super::super) fn status(call: &mut Call<'_>) -> Answer {
    let (number, wait): (u64, u64) = (call.get()?, call.get()?);
    if number == 0 {
        let status = device(call)?;
        let bytes = encode(&status).map_err(|_| CUresult::ERROR_UNKNOWN)?;
        call.reply().put_raw(&bytes);
        return done();
    }
    let Some(ticket) = call.session.submissions.take(number) else {
        let message = format!("there is no submission {number} under way");
        let completion = Completion { result: CUresult::ERROR_NOT_FOUND.0, message, ..Completion::default() };
        completion.write(&mut call.reply());
        return done();
    };
    call.state.enter(call.session, ticket.context())?;
    if wait == 0 {
        let completion = call.session.submissions.poll(call.session, ticket);
        completion.write(&mut call.reply());
        return done();
    }
    Ok(Outcome::Later(Box::new(move |session, reply| {
        let completion = session.submissions.finish(session, ticket);
        completion.write(&mut pxos_protocol::codec::Writer::new(reply));
        Ok(())
    })))
}

fn device(call: &mut Call<'_>) -> std::result::Result<DeviceStatus, Failed> {
    let (free, total) = figures(call)?;
    let ordinal = call.state.contexts.get(call.header.context)?.device;
    let snapshot = &call.session.snapshot;
    let device = usize::try_from(ordinal).ok().and_then(|ordinal| snapshot.devices.get(ordinal));
    let device = device.ok_or(CUresult::ERROR_INVALID_DEVICE)?;
    let told = |attribute: u32| device.attributes.get(attribute as usize).copied().flatten().unwrap_or(0);
    Ok(DeviceStatus {
        name: device.name.clone(),
        capability: [told(attribute::COMPUTE_CAPABILITY_MAJOR), told(attribute::COMPUTE_CAPABILITY_MINOR)],
        multiprocessors: told(attribute::MULTIPROCESSOR_COUNT),
        free,
        total,
        programs: call.state.primitives.programs.len() as u64,
        running: call.session.submissions.running(),
        software: snapshot.software,
    })
}
