//! Copies that natively would have been awaited: work that is put into another stream afterwards must find their bytes, though
//! nobody has waited for them.
//!
//! A small copy to the device travels with its message and is not awaited (design D5). The stream it goes into is then *fenced*:
//! an event is recorded behind the copy, and every other stream waits for that event before the next work that it is given. An
//! event that is found complete is forgotten, so that most streams never wait for any.

use super::gate::is_capturing;
use super::session::Session;
use crate::driver::Result;
use pxos_protocol::types::CUresult;
use std::collections::HashMap;

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

/// Most streams that a session may fence, each of which costs an event: beyond it the copy is waited for.
const MOST: usize = 256;

/// A fenced stream.
#[derive(Debug)]
struct Fence {
    event: u64,
    stream: u64,
    /// Streams that wait for it already.
    passed: Vec<u64>,
}

/// The fences of a session.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// Events by context (the guest's name for it) and stream.
    events: HashMap<(u64, u64), u64>,
    /// Those whose event was not seen complete yet.
    up: Vec<Fence>,
}

impl Fences {
    /// Has all other streams wait for what this stream holds.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn raise(&mut self, session: &Session, context: u64, stream: u64) -> Result {
        let driver = &session.driver;
        let key = (context, stream);
        if !self.events.contains_key(&key) {
            if self.events.len() >= MOST {
                // SAFETY: a stream of this session's.
                return unsafe { driver.cuStreamSynchronize(stream) };
            }
            let mut event = 0;
            // SAFETY: a pointer to a local.
            unsafe { driver.cuEventCreate(&raw mut event, DISABLE_TIMING)? };
            self.events.insert(key, event);
        }
        let event = self.events[&key];
        // SAFETY: an event and a stream of this session's, of one context.
        unsafe { driver.cuEventRecord(event, stream)? };
        self.up.retain(|fence| fence.event != event);
        self.up.push(Fence { event, stream, passed: Vec::new() });
        Ok(())
    }

    /// Has a stream that is about to be used wait for what it must.
    #[inline]
    pub(crate) fn pass(&mut self, session: &Session, stream: u64) {
        if !self.up.is_empty() {
            self.wait(session, stream);
        }
    }

    #[cold]
    fn wait(&mut self, session: &Session, stream: u64) {
        let driver = &session.driver;
        self.up.retain_mut(|fence| {
            if fence.stream == stream || fence.passed.contains(&stream) {
                return true;
            }
            // SAFETY: an event of this session's. Whatever is wrong with it is told by the next call that synchronises.
            if unsafe { driver.cuEventQuery(fence.event) } != Err(CUresult::ERROR_NOT_READY) {
                return false;
            }
            // A capture may not depend on work outside of it; what it becomes waits when it is launched.
            if !is_capturing(session, stream) {
                // SAFETY: handles of this session's.
                let _ = unsafe { driver.cuStreamWaitEvent(stream, fence.event, 0) };
                fence.passed.push(stream);
            }
            true
        });
    }

    /// A stream is gone: another may get its name. Fenced are default streams only, which stay.
    pub(crate) fn forget_stream(&mut self, stream: u64) {
        for fence in &mut self.up {
            fence.passed.retain(|passed| *passed != stream);
        }
    }

    /// A context is gone, and its events with it.
    pub(crate) fn forget_context(&mut self, context: u64) {
        let of_it = self.events.extract_if(|(other, _), _| *other == context);
        let gone: Vec<u64> = of_it.map(|(_, event)| event).collect();
        self.up.retain(|fence| !gone.contains(&fence.event));
    }
}
