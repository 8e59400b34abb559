//! Memory of graphs: what their allocation nodes may take counts from the call that makes the node (or captures the
//! allocation) until the last graph and executable graph that has it is gone.
//!
//! The driver takes the memory at a launch and keeps it for the next one until it is told to trim, also when the graph is
//! gone by then. So what counts is the larger of two: what the nodes that live may take, and what the driver says it keeps.

use super::super::super::dispatch::Answer;
use super::super::super::dispatch::{Call, done};
use super::super::super::session::Session;
use super::Graphs;
use crate::driver::Result;
use crate::quota::Kind;
use std::ffi::c_void;
use std::sync::Arc;

/// `CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT`.
const RESERVED: u32 = 2;

/// Bytes that a node may take; they count as long as one of these lives.
pub(super) type Promise = Arc<u64>;

/// What stands in the session's ledger for graphs.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes of all promises.
    promised: u64,
    /// Bytes in the ledger.
    counted: u64,
}

/// Bytes of promises that end with these.
pub(super) fn ending(promises: Vec<Promise>) -> u64 {
    promises.into_iter().filter_map(Arc::into_inner).sum()
}

/// What the driver keeps for graphs on all devices.
fn kept(session: &Session) -> u64 {
    let devices = 0..i32::try_from(session.snapshot.devices.len()).unwrap_or(0);
    let of = |device| {
        let mut bytes = 0_u64;
        let pointer: *mut c_void = (&raw mut bytes).cast();
        // SAFETY: a pointer to a local of the attribute's type, cuuint64_t.
        unsafe { session.driver.cuDeviceGetGraphMemAttribute(device, RESERVED, pointer) }
            .map_or(0, |()| bytes)
    };
    devices.map(of).fold(0, u64::saturating_add)
}

impl Graphs {
    /// Takes a promise out of the session's quota.
    pub(super) fn promise(&mut self, session: &Session, bytes: u64) -> Result<Promise> {
        let bytes = session.ledger.charge(bytes)?;
        let more = |memory: &Memory| {
            memory.promised.checked_add(bytes).map(|after| after.saturating_sub(memory.counted))
        };
        let fits = |graphs: &Self| {
            let more = more(&graphs.memory).unwrap_or(u64::MAX);
            session.ledger.try_reserve(Kind::Graph, more).map(|()| more)
        };
        let taken = match fits(self) {
            Ok(taken) => taken,
            Err(_) => {
                self.trim(session);
                fits(self).map_err(|over| session.ledger.refuse(over))?
            }
        };
        self.memory.counted += taken;
        self.memory.promised += bytes;
        Ok(Arc::new(bytes))
    }

    /// Promises of so many bytes have ended.
    pub(crate) fn lapse(&mut self, session: &Session, bytes: u64) {
        if bytes > 0 {
            self.memory.promised = self.memory.promised.saturating_sub(bytes);
            self.settle(session);
        }
    }

    /// Brings the ledger in line with what the driver keeps.
    pub(super) fn settle(&mut self, session: &Session) {
        if self.memory.counted == 0 && self.memory.promised == 0 {
            return;
        }
        let wanted = self.memory.promised.max(kept(session));
        if wanted > self.memory.counted {
            session.ledger.add(Kind::Graph, wanted - self.memory.counted);
        } else {
            session.ledger.release(Kind::Graph, self.memory.counted - wanted);
        }
        self.memory.counted = wanted;
    }

    /// Has the driver give back what it keeps for no graph that runs.
    pub(crate) fn trim(&mut self, session: &Session) {
        if self.memory.counted == 0 {
            return;
        }
        for device in 0..i32::try_from(session.snapshot.devices.len()).unwrap_or(0) {
            // SAFETY: a plain number.
            let _ = unsafe { session.driver.cuDeviceGraphMemTrim(device) };
        }
        self.settle(session);
    }

    /// The promises of a graph, those of graphs inside it included, once more.
    pub(super) fn promises(&self, id: u64) -> Vec<Promise> {
        let Some(graph) = self.graphs.get(&id) else { return Vec::new() };
        let inside = graph.parts.iter().flat_map(|part| self.promises(*part));
        graph.promises.iter().map(Arc::clone).chain(inside).collect()
    }
}

/// `cuDeviceGraphMemTrim`: device.
pub(in crate::worker) fn trim(call: &mut Call<'_>) -> Answer {
    let device: i32 = call.get()?;
    // SAFETY: a plain number, which the driver checks.
    unsafe { call.driver().cuDeviceGraphMemTrim(device)? };
    call.state.graphs.settle(call.session);
    done()
}

/// An allocation that a stream captures: it takes its memory when the graph is launched. `None` where the stream does not.
pub(in crate::worker::api) fn capture_allocation(
    call: &mut Call<'_>,
    stream: u64,
    bytes: u64,
    allocate: impl FnOnce(&Session) -> Result<u64>,
) -> std::result::Result<Option<u64>, super::super::super::dispatch::Failed> {
    if !call.state.graphs.has_captured {
        return Ok(None);
    }
    let native = super::capture::graph_of(call, stream)?;
    if native == 0 {
        return Ok(None);
    }
    let session = call.session;
    let graphs = &mut call.state.graphs;
    let id = graphs.graph_id(native, 0);
    let promise = graphs.promise(session, bytes)?;
    match allocate(session) {
        Ok(address) => {
            let graph = graphs.graph_mut(id)?;
            graph.promises.push(promise);
            graph.allocations.push(address);
            Ok(Some(address))
        }
        Err(error) => {
            graphs.lapse(session, ending(vec![promise]));
            Err(error.into())
        }
    }
}

/// Whether freeing an address in a stream is part of what the stream captures, into the graph that allocates it.
pub(in crate::worker::api) fn is_captured_free(
    call: &mut Call<'_>,
    stream: u64,
    address: u64,
) -> Result<bool> {
    if !call.state.graphs.has_captured {
        return Ok(false);
    }
    let native = super::capture::graph_of(call, stream)?;
    let graphs = &call.state.graphs;
    let id = graphs.graph_ids.get(&native).filter(|_| native != 0);
    Ok(id.is_some_and(|id| graphs.allocations(*id).contains(&address)))
}
