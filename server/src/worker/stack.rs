//! The stack of a context's threads, which is the larger part of what an idle context costs: local memory for all threads that
//! the device can hold. A warm worker has it small, and makes it what the driver gives by default before it loads the first
//! module; measured on an H200 (driver 580): 527 MiB with 1 KiB for each thread, 329 MiB with 256 bytes.

use super::session::Session;
use crate::driver::{Driver, Result};
use pxos_protocol::types::CUlimit;

/// `CU_LIMIT_STACK_SIZE`.
const STACK_SIZE: CUlimit = 0;

/// Bytes for each thread while nothing is loaded.
const SMALL: usize = 256;

/// A context whose stack is smaller than the guest believes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmallStack {
    /// The driver's handle of the context.
    context: u64,
    /// What the guest believes, in bytes.
    whole: usize,
}

impl SmallStack {
    /// Makes the stack of the current context small; `None` where the driver does not want to.
    pub(super) fn make(driver: &Driver, context: u64) -> Option<Self> {
        let mut whole = 0;
        // SAFETY: a pointer to a local.
        unsafe { driver.cuCtxGetLimit(&raw mut whole, STACK_SIZE) }.ok()?;
        // SAFETY: a plain call.
        (whole > SMALL).then(|| unsafe { driver.cuCtxSetLimit(STACK_SIZE, SMALL) })?.ok()?;
        Some(Self { context, whole })
    }

    /// Whether it is that of this context.
    pub(super) fn is_of(self, context: u64) -> bool {
        self.context == context
    }

    /// What the guest is told of a limit, where that is not what the driver says.
    pub(super) fn tells(self, context: u64, limit: CUlimit) -> Option<usize> {
        (self.context == context && limit == STACK_SIZE).then_some(self.whole)
    }

    /// Gives the stack its size; the context that is current stays so.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY`, as whatever needs the memory.
    pub(super) fn grow(self, session: &Session) -> Result {
        let before = Session::current();
        session.enter(self.context)?;
        // SAFETY: a plain call.
        let grown = unsafe { session.driver.cuCtxSetLimit(STACK_SIZE, self.whole) };
        if before != u64::MAX {
            session.enter(before)?;
        }
        grown
    }
}
