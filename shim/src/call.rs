//! One call: encode, send, and either go on or wait for the answer.

use crate::api::Captures;
use crate::exclusive;
use crate::link::Patience;
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::frame::{FLAG_PER_THREAD, FLAG_REPLY, Header};
use pxos_protocol::types::CUresult;
use std::sync::atomic::Ordering;

/// The payload of an answer.
#[derive(Debug)]
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    /// Reads it.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.0)
    }
}

/// An answer that cannot be read: the peers agreed on a fingerprint, so this is a bug on one side.
pub(crate) fn garbled(error: pxos_protocol::codec::DecodeError) -> CUresult {
    crate::log::line(crate::log::Level::Error, format_args!("the server's answer cannot be read: {error}"));
    CUresult::ERROR_UNKNOWN
}

/// Whether a fault has left its context unusable for good (CUDA driver API, "Data types": the process must be terminated and
/// relaunched).
pub(crate) fn is_sticky(result: CUresult) -> bool {
    matches!(
        result,
        CUresult::ERROR_ECC_UNCORRECTABLE
            | CUresult::ERROR_ILLEGAL_ADDRESS
            | CUresult::ERROR_LAUNCH_TIMEOUT
            | CUresult::ERROR_ASSERT
            | CUresult::ERROR_HARDWARE_STACK_ERROR
            | CUresult::ERROR_ILLEGAL_INSTRUCTION
            | CUresult::ERROR_MISALIGNED_ADDRESS
            | CUresult::ERROR_INVALID_ADDRESS_SPACE
            | CUresult::ERROR_INVALID_PC
            | CUresult::ERROR_LAUNCH_FAILED
    )
}

impl Session {
    /// A header for a call of this thread in its current context.
    pub(crate) fn header(&self, op: u16, flags: u16) -> Header {
        let mut header = Header::new(op);
        header.flags = flags | if thread::per_thread() { FLAG_PER_THREAD } else { 0 };
        header.thread = thread::number();
        header.context = thread::current_context();
        header.request = self.next_request();
        header
    }

    /// Refuses where a fault has already ended the context.
    pub(crate) fn check(&self) -> Result<(), CUresult> {
        // Relaxed: the thread that met the fault stored it before its own call returned.
        CUresult(self.sticky.load(Ordering::Relaxed)).ok()
    }

    /// Sends a call that is not answered.
    pub(crate) fn post(&'static self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<(), CUresult> {
        self.check()?;
        if self.captures.are_active() && !Captures::lets_post(op) {
            return self.call(op, write).map(|_| ());
        }
        let header = self.header(op, 0);
        thread::with_buffer(|buffer| {
            write(&mut Writer::new(buffer));
            self.link.post(header, buffer)
        })
    }

    /// Sends a call and waits for its answer.
    pub(crate) fn call(&self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Reply, CUresult> {
        self.check()?;
        if self.captures.are_active() {
            self.captures.admit(op)?;
        }
        self.call_in(self.header(op, FLAG_REPLY), write)
    }

    /// As [`Self::call`], under a header of the caller's.
    pub(crate) fn call_in(
        &self,
        header: Header,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Reply, CUresult> {
        self.link.expect(header.request);
        thread::with_buffer(|buffer| {
            write(&mut Writer::new(buffer));
            self.link.send(header, buffer)
        })?;
        self.answer(header.request)
    }

    /// How this thread waits: as the flags of its context say (CUDA driver API, `cuCtxCreate`). By default and with
    /// `CU_CTX_SCHED_SPIN` or `_YIELD` the driver polls; with `CU_CTX_SCHED_BLOCKING_SYNC` it sleeps.
    fn patience(&self) -> Patience {
        /// `CU_CTX_SCHED_BLOCKING_SYNC`.
        const BLOCKING_SYNC: u32 = 4;
        match self.contexts.get(thread::current_context()) {
            Some(context) if context.flags.load(Ordering::Relaxed) & BLOCKING_SYNC == 0 => Patience::Long,
            _ => Patience::Short,
        }
    }

    /// Waits for the answer to `request`.
    pub(crate) fn answer(&self, request: u64) -> Result<Reply, CUresult> {
        let answer = self.link.wait(request, || self.patience());
        let (result, payload) = answer.inspect_err(|_| exclusive::abandon())?;
        if is_sticky(result) {
            self.sticky.store(result.0, Ordering::Relaxed);
            exclusive::abandon();
        }
        if self.captures.are_active() {
            self.captures.note_error(result);
        }
        result.ok().map(|()| Reply(payload))
    }
}

/// Sends a call of the current session that is not answered.
pub(crate) fn post(op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<(), CUresult> {
    session()?.post(op, write)
}

/// Sends a call of the current session and waits for its answer.
pub(crate) fn call(op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Reply, CUresult> {
    session()?.call(op, write)
}
