//! Page-locked memory of the worker's own, through which bulk data passes where guest and worker share no memory: the
//! driver's DMA engines read and write it at full speed, and a copy goes on while the next chunk travels.

use super::session::Session;
use crate::driver::Result;
use pxos_protocol::frame::BULK_CHUNK;
use pxos_protocol::types::CUresult;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// `CU_MEMHOSTALLOC_PORTABLE`: good in every context.
const PORTABLE: u32 = 1;

/// Chunks in the way to the device: 16 MiB, twice what one guest thread has under way at a time.
const UPLOAD_CHUNKS: usize = 32;

/// Buffers that are kept for copies to the host.
const KEPT: usize = 16;

/// A chunk of page-locked memory; kept for the life of the worker, whose end frees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer(*mut u8);

// SAFETY: plain memory, handed from thread to thread with its contents.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(session: &Session) -> Result<Self> {
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: a pointer to a local.
        unsafe { session.driver.cuMemHostAlloc(&raw mut address, BULK_CHUNK, PORTABLE)? };
        Ok(Self(address.cast()))
    }

    /// Where it starts.
    pub(crate) fn address(self) -> *mut c_void {
        self.0.cast()
    }

    /// Its first bytes.
    ///
    /// # Safety
    /// No copy of the driver's is writing to them.
    pub(crate) unsafe fn bytes<'a>(self, length: usize) -> &'a [u8] {
        // SAFETY: `BULK_CHUNK` bytes that are never freed; nobody writes, by this function's contract.
        unsafe { std::slice::from_raw_parts(self.0, length.min(BULK_CHUNK)) }
    }
}

/// Buffers for copies to the host, taken and given back by lanes.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    free: Mutex<Vec<Buffer>>,
}

impl Staging {
    /// A buffer of [`BULK_CHUNK`] bytes.
    pub(crate) fn take(&self, session: &Session) -> Result<Buffer> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| Buffer::new(session), Ok)
    }

    /// Gives a buffer back.
    pub(crate) fn give_back(&self, session: &Session, buffer: Buffer) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        } else {
            // SAFETY: from cuMemHostAlloc, and no copy uses it any more.
            let _ = unsafe { session.driver.cuMemFreeHost(buffer.address()) };
        }
    }
}

/// The way to the device: chunks in the order of their copies.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    free: Vec<Buffer>,
    /// Buffers whose copies are under way, with the event that says when they are done.
    busy: VecDeque<(Buffer, u64)>,
}

impl Upload {
    /// Copies `bytes` to the device through a buffer. Returns when they lie in the buffer and the copy is in the stream;
    /// waits only where all buffers are in use.
    pub(crate) fn copy(&mut self, session: &Session, to: u64, bytes: &[u8], stream: u64) -> Result {
        let buffer = self.buffer(session)?;
        // SAFETY: a buffer holds `BULK_CHUNK` bytes, the caller's frame no more, and no copy uses the buffer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.0, bytes.len().min(BULK_CHUNK)) };
        let mut event = 0;
        let driver = &session.driver;
        // CU_EVENT_DISABLE_TIMING
        // SAFETY: pointers to locals, the buffer above, a stream of the worker's tables; the range at `to` is checked by the
        // driver.
        let copied = unsafe {
            driver
                .cuEventCreate(&raw mut event, 2)
                .and_then(|()| driver.cuMemcpyHtoDAsync_v2(to, buffer.address(), bytes.len(), stream))
                .and_then(|()| driver.cuEventRecord(event, stream))
        };
        match copied {
            Ok(()) => self.busy.push_back((buffer, event)),
            Err(_) => self.free.push(buffer),
        }
        copied
    }

    fn buffer(&mut self, session: &Session) -> Result<Buffer> {
        while let Some((buffer, event)) = self.busy.front().copied() {
            // SAFETY: an event of ours.
            let state = unsafe { session.driver.cuEventQuery(event) };
            if state == Err(CUresult::ERROR_NOT_READY) {
                break;
            }
            // Done, or its context is gone.
            self.retire(session, buffer, event);
        }
        if let Some(buffer) = self.free.pop() {
            return Ok(buffer);
        }
        if self.busy.len() < UPLOAD_CHUNKS {
            return Buffer::new(session);
        }
        let (buffer, event) = self.busy.front().copied().expect("buffers are in use");
        // SAFETY: an event of ours.
        let _ = unsafe { session.driver.cuEventSynchronize(event) };
        self.retire(session, buffer, event);
        self.free.pop().ok_or(CUresult::ERROR_OUT_OF_MEMORY)
    }

    fn retire(&mut self, session: &Session, buffer: Buffer, event: u64) {
        // SAFETY: an event of ours, used no more.
        let _ = unsafe { session.driver.cuEventDestroy_v2(event) };
        self.busy.pop_front();
        self.free.push(buffer);
    }

    /// Forgets events whose context is gone; its copies are over.
    pub(crate) fn forget(&mut self) {
        self.free.extend(self.busy.drain(..).map(|(buffer, _)| buffer));
    }
}
