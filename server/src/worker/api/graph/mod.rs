//! Graphs: the worker's tables, and the rows of the group.
//!
//! The worker gives out the numbers by which the guest knows graphs and nodes, because nodes come to be without the guest's
//! doing (captures, clones, bodies of conditional nodes). A number is never used twice, so a stale one is refused.

pub(in crate::worker) mod build;
pub(in crate::worker) mod capture;
pub(in crate::worker) mod exec;
pub(in crate::worker) mod memory;
mod mirror;
pub(in crate::worker) mod object;
pub(in crate::worker) mod params;
pub(in crate::worker) mod query;

pub(crate) use mirror::Deliveries;
pub(in crate::worker) use mirror::{Use, bury, is_for_known, write};

use crate::driver::Result;
use mirror::{Done, guest_address};
use pxos_protocol::types::{CUgraphNodeParams, CUresult, node_type};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Most graphs, instantiated graphs and user objects at a time, each.
const MAX_OBJECTS: usize = 1 << 20;
/// Most nodes that a guest has names for.
const MAX_NODES: usize = 1 << 24;

/// Numbers look like handles that the guest mints, of these kinds.
const GRAPH: u64 = 0x5800_0000_0000;
const EXEC: u64 = 0x5900_0000_0000;
const NODE: u64 = 0x5a00_0000_0000;
const OBJECT: u64 = 0x5000_0000_0000;

/// A graph.
#[derive(Debug)]
struct Graph {
    native: u64,
    /// Numbers of its nodes that have one.
    nodes: HashSet<u64>,
    /// Graphs inside its nodes.
    parts: Vec<u64>,
    /// The node that it is inside of, 0 for none.
    inside: u64,
    /// Host memory that its nodes use, by node.
    uses: BTreeMap<u64, Vec<Use>>,
    /// What its allocation nodes may take, out of the session's quota.
    promises: Vec<memory::Promise>,
    /// Addresses of its allocation nodes.
    allocations: Vec<u64>,
    /// References to user objects that the guest gave it.
    objects: HashMap<u64, u64>,
}

/// A user object: the driver's handle, and the references that keep the handle valid.
#[derive(Debug)]
struct Object {
    native: u64,
    /// The guest's own.
    held: u64,
    /// Those of graphs that live.
    in_graphs: u64,
}

/// A node.
#[derive(Clone, Copy, Debug)]
struct Node {
    native: u64,
    graph: u64,
    /// Whether the guest named its kernel as a kernel, not as a function.
    by_kernel: bool,
}

/// An instantiated graph.
#[derive(Debug)]
struct Exec {
    native: u64,
    /// The graph that it was made of.
    graph: u64,
    /// What its allocation nodes allocate: each launch makes it memory that the guest may free.
    allocations: Vec<u64>,
    /// What they may take.
    promises: Vec<memory::Promise>,
    uses: BTreeMap<u64, Vec<Use>>,
    /// Those that it writes.
    writes: Arc<Vec<Use>>,
    /// The end of its last launch, and the context of the event.
    done: Option<(Arc<Done>, u64)>,
}

/// A capture under way: its graph is the driver's until it has ended (CUDA driver API, cuStreamGetCaptureInfo).
#[derive(Clone, Copy, Debug)]
struct Capture {
    graph: u64,
    /// Whether the graph was the guest's before, and will be so when the capture fails.
    guests: bool,
}

/// All that a session has.
#[derive(Debug, Default)]
pub(crate) struct Graphs {
    graphs: HashMap<u64, Graph>,
    nodes: HashMap<u64, Node>,
    execs: HashMap<u64, Exec>,
    objects: HashMap<u64, Object>,
    /// Handles of conditional nodes, and the graphs that they were made for.
    conditionals: HashMap<u64, u64>,
    graph_ids: HashMap<u64, u64>,
    node_ids: HashMap<u64, u64>,
    /// Text of the graph that is being printed.
    text: Vec<u8>,
    /// Functions that the driver made of kernels, by kernel.
    functions: HashMap<u64, u64>,
    next: u64,
    memory: memory::Memory,
    /// Whether a stream was ever captured.
    has_captured: bool,
    /// What streams capture into, by the driver's stream.
    captures: HashMap<u64, Capture>,
}

impl Graphs {
    fn number(&mut self, kind: u64) -> u64 {
        self.next += 1;
        kind | self.next
    }

    fn graph(&self, id: u64) -> Result<&Graph> {
        self.graphs.get(&id).ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    fn graph_mut(&mut self, id: u64) -> Result<&mut Graph> {
        self.graphs.get_mut(&id).ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    fn node(&self, id: u64) -> Result<Node> {
        self.nodes.get(&id).copied().ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    fn exec(&self, id: u64) -> Result<&Exec> {
        self.execs.get(&id).ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// Whether there is room for one more of everything.
    fn check_room(&self) -> Result {
        let objects = self.graphs.len().max(self.execs.len()).max(self.objects.len());
        if objects < MAX_OBJECTS && self.nodes.len() < MAX_NODES {
            Ok(())
        } else {
            Err(CUresult::ERROR_OUT_OF_MEMORY)
        }
    }

    /// The number of a graph of the driver's; `inside` names the node that holds it.
    fn graph_id(&mut self, native: u64, inside: u64) -> u64 {
        if let Some(id) = self.graph_ids.get(&native) {
            return *id;
        }
        let id = self.number(GRAPH);
        let (nodes, parts, uses) = (HashSet::new(), Vec::new(), BTreeMap::new());
        self.graphs.insert(
            id,
            Graph {
                native,
                nodes,
                parts,
                inside,
                uses,
                promises: Vec::new(),
                allocations: Vec::new(),
                objects: HashMap::new(),
            },
        );
        self.graph_ids.insert(native, id);
        if let Some(outer) =
            self.nodes.get(&inside).map(|node| node.graph).and_then(|graph| self.graphs.get_mut(&graph))
        {
            outer.parts.push(id);
        }
        id
    }

    /// The number of a node of the driver's, 0 for none.
    fn node_id(&mut self, native: u64, graph: u64) -> u64 {
        if native == 0 {
            return 0;
        }
        if let Some(id) = self.node_ids.get(&native) {
            return *id;
        }
        let id = self.number(NODE);
        self.nodes.insert(id, Node { native, graph, by_kernel: false });
        self.node_ids.insert(native, id);
        if let Some(graph) = self.graphs.get_mut(&graph) {
            graph.nodes.insert(id);
        }
        id
    }

    /// Whether a stream may be captured: none is before the first capture has begun.
    pub(crate) fn may_capture(&self) -> bool {
        self.has_captured
    }

    /// Notes that a stream captures into a graph.
    fn capture(&mut self, stream: u64, graph: u64, guests: bool) {
        self.has_captured = true;
        self.captures.insert(stream, Capture { graph, guests });
    }

    /// Whether a stream captures into a graph.
    fn is_captured(&self, graph: u64) -> bool {
        self.captures.values().any(|capture| capture.graph == graph)
    }

    /// A stream's capture has come to nothing, and the driver has destroyed what was its own; how many bytes of promises end
    /// with it.
    pub(crate) fn abandon_capture(&mut self, stream: u64) -> u64 {
        let own = self.captures.remove(&stream).filter(|capture| !capture.guests);
        own.map_or(0, |capture| self.forget_graph(capture.graph))
    }

    /// Forgets a node, and the graphs inside it.
    fn forget_node(&mut self, id: u64) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.node_ids.remove(&node.native);
        let mut inside = Vec::new();
        if let Some(graph) = self.graphs.get_mut(&node.graph) {
            graph.nodes.remove(&id);
            graph.uses.remove(&id);
            inside.clone_from(&graph.parts);
        }
        for part in inside {
            if self.graphs.get(&part).is_some_and(|part| part.inside == id) {
                self.forget_graph(part);
                if let Some(graph) = self.graphs.get_mut(&node.graph) {
                    graph.parts.retain(|other| *other != part);
                }
            }
        }
    }

    /// Forgets a graph with its nodes and the graphs inside them; how many bytes of promises end with them.
    fn forget_graph(&mut self, id: u64) -> u64 {
        let Some(graph) = self.graphs.remove(&id) else { return 0 };
        self.graph_ids.remove(&graph.native);
        for node in graph.nodes {
            if let Some(node) = self.nodes.remove(&node) {
                self.node_ids.remove(&node.native);
            }
        }
        for (object, references) in graph.objects {
            self.release_object(object, 0, references);
        }
        if !self.conditionals.is_empty() {
            self.conditionals.retain(|_, of| *of != id);
        }
        memory::ending(graph.promises)
            + graph.parts.into_iter().map(|part| self.forget_graph(part)).sum::<u64>()
    }

    /// Takes references of an object away; one without any is forgotten.
    fn release_object(&mut self, id: u64, held: u64, in_graphs: u64) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.held -= held.min(object.held);
            object.in_graphs -= in_graphs.min(object.in_graphs);
            if object.held == 0 && object.in_graphs == 0 {
                self.objects.remove(&id);
            }
        }
    }

    /// The host memory that a graph uses, that of graphs inside it included.
    fn collect(&self, id: u64) -> BTreeMap<u64, Vec<Use>> {
        let Some(graph) = self.graphs.get(&id) else { return BTreeMap::new() };
        let mut all = graph.uses.clone();
        for part in &graph.parts {
            for (node, uses) in self.collect(*part) {
                all.entry(node).or_default().extend(uses);
            }
        }
        all
    }

    /// The addresses that a graph allocates, those of graphs inside it included.
    fn allocations(&self, id: u64) -> Vec<u64> {
        let Some(graph) = self.graphs.get(&id) else { return Vec::new() };
        let inside = graph.parts.iter().flat_map(|part| self.allocations(*part));
        graph.allocations.iter().copied().chain(inside).collect()
    }

    /// Notes how the guest named a node's kernel.
    fn note_kernel(&mut self, node: u64, params: &CUgraphNodeParams) {
        if params.kind == node_type::KERNEL
            && let Some(node) = self.nodes.get_mut(&node)
        {
            // SAFETY: the member of the kind.
            node.by_kernel = unsafe { params.body.kernel }.func.is_null();
        }
    }

    fn collect_flat(&self, id: u64) -> Vec<Use> {
        self.collect(id).into_values().flatten().collect()
    }
}

/// Replaces what a node uses.
fn replace(all: &mut BTreeMap<u64, Vec<Use>>, node: u64, uses: Vec<Use>) {
    if uses.is_empty() {
        all.remove(&node);
    } else {
        all.insert(node, uses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_go_with_their_graph() {
        let mut graphs = Graphs::default();
        let graph = graphs.graph_id(0x1000, 0);
        assert_eq!(graphs.graph_id(0x1000, 0), graph);
        let node = graphs.node_id(0x2000, graph);
        assert_eq!(graphs.node_id(0x2000, graph), node);
        assert_eq!(graphs.node_id(0, graph), 0);
        let body = graphs.graph_id(0x3000, node);
        let inner = graphs.node_id(0x4000, body);
        assert!(graphs.node(inner).is_ok());
        graphs.graph_mut(body).unwrap().promises = vec![Arc::new(7), Arc::new(5)];
        let exec = graphs.promises(graph).pop();
        assert_eq!(graphs.forget_graph(graph), 7, "what an executable graph has, too, lives on");
        assert_eq!(memory::ending(exec.into_iter().collect()), 5);
        assert!(graphs.node(node).is_err() && graphs.node(inner).is_err() && graphs.graph(body).is_err());
        // The driver may use the address again: that is another graph.
        assert_ne!(graphs.graph_id(0x1000, 0), graph);
    }

    #[test]
    fn a_capture_that_fails_takes_the_drivers_graph_along() {
        let mut graphs = Graphs::default();
        let (own, guests) = (graphs.graph_id(0x1000, 0), graphs.graph_id(0x1010, 0));
        graphs.capture(1, own, false);
        graphs.capture(2, guests, true);
        graphs.graph_mut(own).unwrap().promises = vec![Arc::new(7)];
        assert!(graphs.is_captured(own) && graphs.is_captured(guests));
        assert_eq!(
            (graphs.abandon_capture(1), graphs.abandon_capture(2), graphs.abandon_capture(3)),
            (7, 0, 0)
        );
        assert!(graphs.graph(own).is_err() && graphs.graph(guests).is_ok() && !graphs.is_captured(guests));
    }

    #[test]
    fn a_destroyed_node_takes_its_bodies_along() {
        let mut graphs = Graphs::default();
        let graph = graphs.graph_id(0x1000, 0);
        let (first, second) = (graphs.node_id(0x2000, graph), graphs.node_id(0x2010, graph));
        let (body, other) = (graphs.graph_id(0x3000, first), graphs.graph_id(0x3010, second));
        graphs.forget_node(first);
        assert!(graphs.graph(body).is_err());
        assert!(graphs.graph(other).is_ok() && graphs.node(second).is_ok());
    }
}
