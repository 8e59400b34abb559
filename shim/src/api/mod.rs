//! The bodies behind the entry points, a file per group of the CUDA driver API manual. Each answers `Err` with the
//! `CUresult` that native CUDA would give for the same mistake, as far as that can be known here.
#![expect(non_snake_case, reason = "functions and parameters carry CUDA's own names")]

mod array;
mod batch;
mod capture;
mod context;
mod copy;
mod copy1d;
mod copy2d;
mod device;
mod driver;
mod event;
mod execution;
mod graph;
mod green;
mod ipc;
mod legacy;
mod library;
mod link;
mod managed;
mod memop;
mod memory;
mod module;
mod occupancy;
mod peer;
mod pointer;
mod pool;
mod rows;
mod staged;
mod stream;
mod texture;
mod texture_reference;
mod vmm;

pub(crate) use array::*;
pub(crate) use batch::*;
pub(crate) use capture::*;
pub(crate) use context::*;
pub(crate) use copy::*;
pub(crate) use copy1d::*;
pub(crate) use copy2d::*;
pub(crate) use device::*;
pub(crate) use driver::*;
pub(crate) use event::*;
pub(crate) use execution::*;
pub(crate) use graph::*;
pub(crate) use green::*;
pub(crate) use ipc::*;
pub(crate) use legacy::*;
pub(crate) use library::*;
pub(crate) use link::*;
pub(crate) use managed::*;
pub(crate) use memop::*;
pub(crate) use memory::*;
pub(crate) use module::*;
pub(crate) use occupancy::*;
pub(crate) use peer::*;
pub(crate) use pointer::*;
pub(crate) use pool::*;
pub(crate) use stream::*;
pub(crate) use texture::*;
pub(crate) use texture_reference::*;
pub(crate) use vmm::*;

use crate::call::{call, garbled, post};
use crate::objects::Context;
use crate::session::{Session, session};
use crate::{log, thread};
use pxos_protocol::codec::{DecodeError, Reader, Writer};
use pxos_protocol::types::{CU_STREAM_LEGACY, CU_STREAM_PER_THREAD, CUresult};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a body answers.
pub(crate) type Result<T = (), E = CUresult> = std::result::Result<T, E>;

/// A row of class `unsupported`.
pub(crate) fn unsupported(name: &'static str, number: u16, reason: &'static str) -> Result {
    log::unsupported(name, number, reason);
    if let Some(session) = crate::session::existing() {
        // Only so that the server's status names it.
        let _ = session.post(number, |_| {});
    }
    Err(CUresult::ERROR_NOT_SUPPORTED)
}

/// A call has succeeded: if it has waited for the device, what host and device both name is fetched, and the host may have
/// managed memory again.
#[inline]
pub(crate) fn waited(number: u16) {
    if !crate::managed_variables::waits(number) {
        return;
    }
    crate::exclusive::settle();
    if let Some(session) = crate::session::existing()
        && session.managed_variables.exist()
    {
        session.managed_variables.receive(session, number);
    }
}

/// A row of class `forward` (answered) or `async`.
pub(crate) fn generic(
    answered: bool,
    number: u16,
    encode: impl FnOnce(&mut Writer<'_>),
    decode: impl FnOnce(&mut Reader<'_>) -> Result<(), DecodeError>,
) -> Result {
    if !answered {
        return post(number, encode);
    }
    let reply = call(number, encode)?;
    decode(&mut reply.reader()).map_err(garbled)
}

/// Writes a result through a pointer of the application's.
///
/// # Safety
/// The pointer is null, or the caller of the CUDA API gave it to be written.
unsafe fn put<T>(pointer: *mut T, value: T) -> Result {
    if pointer.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and writable by this function's contract.
    unsafe { pointer.write(value) };
    Ok(())
}

/// The current context, which must be alive.
fn current(session: &Session) -> Result<Arc<Context>> {
    let raw = thread::current_context();
    if raw == 0 {
        return Err(CUresult::ERROR_INVALID_CONTEXT);
    }
    let context = session.contexts.get(raw).ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?;
    if context.retained.load(Ordering::Relaxed) == 0 {
        return Err(if context.primary {
            CUresult::ERROR_CONTEXT_IS_DESTROYED
        } else {
            CUresult::ERROR_INVALID_CONTEXT
        });
    }
    Ok(context)
}

/// The session and the current context.
fn enter() -> Result<(&'static Session, Arc<Context>)> {
    let session = session()?;
    session.check()?;
    let context = current(session)?;
    Ok((session, context))
}

/// A stream that something is put into, as it goes over the wire; the work is counted.
fn stream_argument(session: &'static Session, raw: u64) -> Result<u64> {
    let stream = stream_name(session, raw)?;
    session.managed_variables.send(session)?;
    let current = thread::current_context();
    if let Some(created) = session.streams.get(stream) {
        created.work.submit();
        if created.context != current
            && let Some(owner) = session.contexts.get(created.context)
        {
            owner.work.submit();
        }
    }
    if let Some(context) = session.contexts.get(current) {
        context.work.submit();
        if stream == 0 {
            context.legacy.submit();
        }
    }
    session.captures.note_stream(stream);
    Ok(stream)
}

/// The stream of a primitive, as it goes over the wire; the work is counted.
pub(crate) fn stream_for_primitive(session: &'static Session, raw: u64) -> Result<u64> {
    let stream = stream_argument(session, raw)?;
    if session.captures.are_active() && thread::stream_captures() {
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(stream)
}

/// A stream as it goes over the wire: 0 stands for the legacy default stream, 2 for the thread's own, anything else is
/// a live handle.
fn stream_name(session: &Session, raw: u64) -> Result<u64> {
    match raw {
        0 if thread::per_thread() => Ok(CU_STREAM_PER_THREAD.0),
        0 => Ok(0),
        raw if raw == CU_STREAM_LEGACY.0 => Ok(0),
        raw if raw == CU_STREAM_PER_THREAD.0 => Ok(raw),
        raw if session.streams.get(raw).is_some() => Ok(raw),
        _ => Err(CUresult::ERROR_INVALID_HANDLE),
    }
}
