//! Primitives: kernels as text, submitted beside CUDA calls in the same session.
//!
//! [`entry`] holds the exported `px_*` functions (`shim/include/pxos.h`), [`stub`] the files `/dev/pxos_gpu0` and
//! `/dev/vgpu_stub`, which [`files`] lets programs find, and whose lines and requests [`command`] answers. All end in [`run::submit`]: arrays to the device, one
//! SUBMIT_PRIMITIVE, arrays back. The text is compiled by the worker, once.

mod command;
mod entry;
mod files;
mod program;
mod run;
mod stub;

pub(crate) use stub::after_fork_child;

use crate::api;
use crate::lock;
use crate::session::{Session, initialise};
use crate::thread;
use pxos_protocol::control::decode;
use pxos_protocol::frame::control;
use pxos_protocol::primitive::{Completion, DeviceStatus};
use pxos_protocol::types::{CUcontext, CUresult};
use std::ffi::c_int;
use std::sync::Mutex;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq)]
struct Failure {
    result: CUresult,
    message: String,
    /// What the fault record or the compiler says beyond the message.
    completion: Box<Completion>,
    /// Diagnostics as JSON, where the text was refused.
    json: String,
}

impl Failure {
    fn new(result: CUresult, message: impl Into<String>) -> Self {
        Self { result, message: message.into(), completion: Box::default(), json: String::new() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(CUresult::ERROR_INVALID_VALUE, message)
    }
}

impl From<CUresult> for Failure {
    fn from(result: CUresult) -> Self {
        let message = match result {
            CUresult::ERROR_NO_DEVICE => {
                "no pxos-server was reached; `pxctl doctor` finds out why".to_owned()
            }
            CUresult::ERROR_OUT_OF_MEMORY => "no device memory is left within this VM's limit".to_owned(),
            result => result.to_string(),
        };
        Self::new(result, message)
    }
}

type Outcome<T> = Result<T, Failure>;

/// Handles of the primary contexts that primitives have retained, by device.
static RETAINED: Mutex<Vec<(c_int, u64)>> = Mutex::new(Vec::new());

/// The session, connected where it is not yet, with a context that is current on this thread: the application's own, or
/// the first device's primary context.
fn ready() -> Outcome<&'static Session> {
    let session = initialise()?;
    session.check()?;
    if thread::current_context() == 0 {
        enter_device(0)?;
    }
    Ok(session)
}

/// Makes a device's primary context current on this thread.
fn enter_device(device: c_int) -> Outcome<()> {
    let mut retained = lock(&RETAINED);
    let known = retained.iter().find(|(ordinal, _)| *ordinal == device).map(|(_, handle)| *handle);
    let handle = match known {
        Some(handle) => handle,
        None => {
            let mut context = CUcontext::NULL;
            // SAFETY: a pointer to a local.
            unsafe { api::cuDevicePrimaryCtxRetain(&raw mut context, device)? };
            retained.push((device, context.0));
            context.0
        }
    };
    drop(retained);
    // SAFETY: it dereferences nothing.
    unsafe { api::cuCtxSetCurrent(CUcontext(handle))? };
    Ok(())
}

/// How a submission stands, or how it ended.
fn query(number: u64, wait: bool) -> Outcome<Completion> {
    let session = ready()?;
    if number == 0 {
        return Err(Failure::invalid("submissions are numbered from 1"));
    }
    let reply = session.call(control::QUERY_STATUS, |writer| {
        writer.put(number);
        writer.put(u64::from(wait));
    })?;
    let completion =
        Completion::read(&mut reply.reader()).map_err(|error| Failure::from(crate::call::garbled(error)))?;
    ended(completion)
}

/// A completion that is none of a failure.
fn ended(completion: Completion) -> Outcome<Completion> {
    let result = CUresult(completion.result);
    if result.is_success() || result == CUresult::ERROR_NOT_READY {
        return Ok(completion);
    }
    let message = completion.message.clone();
    Err(Failure { result, message, completion: Box::new(completion), json: String::new() })
}

/// The current device.
fn status() -> Outcome<DeviceStatus> {
    let session = ready()?;
    let reply = session.call(control::QUERY_STATUS, |writer| {
        writer.put(0_u64);
        writer.put(0_u64);
    })?;
    decode(reply.reader().rest()).map_err(|error| Failure::new(CUresult::ERROR_UNKNOWN, error.to_string()))
}
