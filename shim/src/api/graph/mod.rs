//! Graphs: built node by node or captured, instantiated, launched.
//!
//! The worker's driver holds the graphs; the guest knows them by numbers that the worker gives out and never uses twice.
//! Building is answered call by call, so that each error comes from the very call as natively; launching is one message
//! that nobody waits for. What the guest keeps of a graph is what only it can do: the functions of host nodes, the host memory
//! that copy nodes read and write ([`mirror`]), and the memory behind pointers that `…GetParams` handed out.

mod build;
mod exec;
mod mirror;
mod nodes;
mod object;
mod params;
mod query;

pub(crate) use build::*;
pub(crate) use exec::*;
pub(crate) use mirror::{Use, captured_copy};
pub(crate) use nodes::*;
pub(crate) use object::*;
pub(crate) use query::*;

use super::Result;
use crate::call::{call, garbled};
use crate::callbacks::{Callback, HostFunction};
use crate::lock;
use crate::objects::Event;
use crate::session::Session;
use params::Kept;
use pxos_protocol::api::op;
use pxos_protocol::codec::Reader;
use pxos_protocol::types::{CUgraph, CUgraphExec, CUresult};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Every graph of the session.
#[derive(Debug, Default)]
pub(crate) struct Graphs {
    graphs: RwLock<HashMap<u64, Arc<Graph>>>,
    execs: RwLock<HashMap<u64, Arc<Exec>>>,
    mirrors: mirror::Mirrors,
}

/// What a node needs of the guest when it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Host memory that it copies from or to.
    pub(crate) uses: Vec<Use>,
    /// Functions that it calls.
    pub(crate) functions: Vec<Arc<HostFunction>>,
    /// Events that it records.
    pub(crate) events: Vec<Arc<Event>>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.functions.is_empty() && self.events.is_empty()
    }

    fn extend(&mut self, other: &Self) {
        self.uses.extend(other.uses.iter().cloned());
        self.functions.extend(other.functions.iter().cloned());
        self.events.extend(other.events.iter().cloned());
    }
}

/// Memory of an allocation node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocated {
    address: u64,
    bytes: u64,
    context: u64,
    device: i32,
}

impl Allocated {
    /// Makes it memory that the guest knows, unless it is.
    fn appear(&self, session: &Session) {
        if session.allocations.find(self.address).is_none() {
            let Self { address, bytes, context, device } = *self;
            session.allocations.insert(crate::allocations::Kind::Pool, address, bytes, context, device, 0);
        }
    }
}

/// A graph.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Its number.
    pub(crate) id: u64,
    /// What its nodes need, by node; only those that need something.
    held: Mutex<BTreeMap<u64, Held>>,
    /// Graphs inside nodes of this one.
    parts: Mutex<Vec<u64>>,
    /// Memory that `…GetParams` handed out, by node.
    kept: Mutex<HashMap<u64, Kept>>,
    /// What its allocation nodes allocate.
    allocations: Mutex<Vec<Allocated>>,
}

impl Graph {
    /// Replaces what a node needs.
    pub(crate) fn hold(&self, node: u64, held: Held) {
        let mut all = lock(&self.held);
        if held.is_empty() {
            all.remove(&node);
        } else {
            all.insert(node, held);
        }
    }

    /// Adds a graph inside one of its nodes.
    fn add_part(&self, part: u64) {
        let mut parts = lock(&self.parts);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
}

/// An instantiated graph.
#[derive(Debug)]
pub(crate) struct Exec {
    /// Its number.
    pub(crate) id: u64,
    held: Mutex<BTreeMap<u64, Held>>,
    /// Whether `held` has anything, so that most launches look no further.
    holds: AtomicBool,
    /// Whether the worker has had the contents of the memory that the graph writes.
    primed: AtomicBool,
    /// What each launch allocates.
    allocations: Vec<Allocated>,
}

impl Exec {
    fn hold(&self, node: u64, held: Held) {
        let mut all = lock(&self.held);
        if held.is_empty() {
            all.remove(&node);
        } else {
            all.insert(node, held);
        }
        self.holds.store(!all.is_empty(), Ordering::Release);
        self.primed.store(false, Ordering::Relaxed);
    }
}

impl Graphs {
    /// The live graph behind a handle.
    pub(crate) fn graph(&self, handle: CUgraph) -> Result<Arc<Graph>> {
        let graphs = self.graphs.read().unwrap_or_else(PoisonError::into_inner);
        graphs.get(&handle.0).cloned().ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// The live executable graph behind a handle.
    pub(crate) fn exec(&self, handle: CUgraphExec) -> Result<Arc<Exec>> {
        let execs = self.execs.read().unwrap_or_else(PoisonError::into_inner);
        execs.get(&handle.0).cloned().ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// The graph of a number that the worker told, known from now on.
    pub(crate) fn adopt(&self, id: u64) -> Arc<Graph> {
        let mut graphs = self.graphs.write().unwrap_or_else(PoisonError::into_inner);
        let graph = graphs.entry(id).or_insert_with(|| {
            Arc::new(Graph {
                id,
                held: Mutex::default(),
                parts: Mutex::default(),
                kept: Mutex::default(),
                allocations: Mutex::default(),
            })
        });
        Arc::clone(graph)
    }

    /// Forgets a graph and the graphs inside its nodes.
    pub(crate) fn forget(&self, id: u64) -> Option<Arc<Graph>> {
        let graph = self.graphs.write().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        let parts = std::mem::take(&mut *lock(&graph.parts));
        for part in parts {
            self.forget(part);
        }
        Some(graph)
    }

    /// All that a graph needs, that of its parts included.
    fn collect(&self, graph: &Graph) -> BTreeMap<u64, Held> {
        let mut all = lock(&graph.held).clone();
        let parts = lock(&graph.parts).clone();
        for part in parts.into_iter().filter_map(|part| self.graph(CUgraph(part)).ok()) {
            for (node, held) in self.collect(&part) {
                all.entry(node).or_default().extend(&held);
            }
        }
        all
    }

    /// As [`Self::collect`], for one node that stands for all of the graph.
    fn collect_flat(&self, graph: &Graph) -> Held {
        let mut flat = Held::default();
        self.collect(graph).values().for_each(|held| flat.extend(held));
        flat
    }

    /// All that a graph allocates, its parts included.
    fn allocations(&self, graph: &Graph) -> Vec<Allocated> {
        let mut all = lock(&graph.allocations).clone();
        let parts = lock(&graph.parts).clone();
        for part in parts.into_iter().filter_map(|part| self.graph(CUgraph(part)).ok()) {
            all.extend(self.allocations(&part));
        }
        all
    }

    fn add_exec(&self, id: u64, graph: &Graph) {
        let held = self.collect(graph);
        let (holds, primed) = (AtomicBool::new(!held.is_empty()), AtomicBool::new(false));
        let exec = Exec { id, held: Mutex::new(held), holds, primed, allocations: self.allocations(graph) };
        self.execs.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(exec));
    }

    /// A host function has returned: what it wrote into memory that its graph copies from goes to the worker.
    pub(crate) fn after_callback(&self, session: &'static Session, number: u64) {
        let execs: Vec<_> =
            self.execs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for exec in execs.iter().filter(|exec| exec.holds.load(Ordering::Acquire)) {
            let held = lock(&exec.held);
            let calls =
                held.values().flat_map(|held| &held.functions).any(|function| function.number() == number);
            let uses: Vec<Use> =
                held.values().flat_map(|held| &held.uses).filter(|one| one.is_source()).cloned().collect();
            drop(held);
            if calls && !uses.is_empty() {
                let _ = self.mirrors.push(session, &uses, true);
            }
        }
    }
}

/// Captures a host function.
pub(crate) fn captured_function(session: &'static Session, callback: Callback, stream: u64) -> Result {
    if matches!(callback, Callback::Stream(..)) {
        // "cuStreamAddCallback … callbacks cannot be captured" (CUDA driver API, cuStreamAddCallback: "not supported").
        return Err(CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    let function = session.callbacks.keep(session, callback)?;
    let reply = call(op::cuGraphAddHostNode, |writer| {
        writer.put(stream);
        writer.put(function.number());
    })?;
    let node = number(&mut reply.reader())?;
    session.captures.hold(session, stream, node, Held { functions: vec![function], ..Held::default() });
    Ok(())
}

/// Reads one number of an answer.
fn number(reader: &mut Reader<'_>) -> Result<u64> {
    reader.get().map_err(garbled)
}
