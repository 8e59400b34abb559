//! Graphs: work with its dependencies, built or captured once and launched many times (CUDA driver API, section "Graph
//! management").
//!
//! A [`Graph`] is what the application edits; a [`GraphExec`] is a copy of it that runs. A launch is one piece of work in
//! its stream that runs the nodes one after the other in an order that the dependencies allow.

use super::conditional::{Conditional, ConditionalNode};
use super::event::Event;
use super::graph_run::{self, Run};
use super::marker::Marker;
use super::operation::{Copy, Fill, HostCall, Launch};
use super::table::Table;
use super::user_object::{Reference, UserObject};
use pxos_protocol::types::{
    CUDA_MEMCPY3D, CUattributeValue, CUgraph, CUgraphExec, CUgraphNode, CUkernel, CUresult,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a node does.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Runs a kernel.
    Kernel(Arc<KernelNode>),
    /// Moves bytes; beside it what the application described it as.
    Copy(Copy, Arc<CopyGiven>),
    /// Fills memory; beside it value and element size as the application gave them.
    Fill(Fill),
    /// Calls a host function.
    Host(HostCall),
    /// Runs another graph, of which the node has its own copy.
    Child(Arc<Graph>),
    /// Runs one of its graphs, or none, as a value says that kernels set.
    Conditional(Arc<ConditionalNode>),
    /// Does nothing.
    Empty,
    /// Waits for an event's recording at the time of the launch.
    Wait(Arc<Event>),
    /// Records an event.
    Record(Arc<Event>),
    /// Allocates; the memory is the graph's.
    Allocate(Arc<GraphMemory>),
    /// Frees what another node allocated; the memory stays the graph's until that goes.
    Free(u64),
}

/// A kernel node.
#[derive(Debug)]
pub(crate) struct KernelNode {
    /// The launch.
    pub(crate) launch: Launch,
    /// The handle that the application named the kernel by, and whether that is a [`CUkernel`].
    pub(crate) function: u64,
    /// See `function`.
    pub(crate) kernel: CUkernel,
    /// One pointer per parameter into the launch's buffer, for the application to look at.
    pub(crate) pointers: Vec<usize>,
    /// What was set of it, by launch attribute.
    pub(crate) attributes: BTreeMap<u32, CUattributeValue>,
}

impl KernelNode {
    /// A node of a launch, by the handles that the application named the kernel by.
    pub(crate) fn new(launch: Launch, function: u64, kernel: CUkernel) -> Self {
        let base = launch.parameters.as_ptr().expose_provenance();
        let parameters = &launch.target.kernel().params;
        let pointers = parameters.iter().map(|parameter| base + parameter.offset as usize).collect();
        Self { launch, function, kernel, pointers, attributes: BTreeMap::new() }
    }

    /// A node of the same launch, with parameters of its own.
    pub(crate) fn duplicate(&self) -> Self {
        let attributes = self.attributes.clone();
        Self { attributes, ..Self::new(self.launch.clone(), self.function, self.kernel) }
    }
}

/// A copy as the application described it; the pointers in it are not followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyGiven(pub(crate) CUDA_MEMCPY3D);

// SAFETY: addresses that are only given back to the application.
unsafe impl Send for CopyGiven {}
// SAFETY: as above.
unsafe impl Sync for CopyGiven {}

/// Memory of an allocation node; freed with the last graph that has the node.
#[derive(Debug)]
pub(crate) struct GraphMemory {
    /// The first address.
    pub(crate) address: u64,
    /// As asked for.
    pub(crate) bytes: u64,
}

impl Drop for GraphMemory {
    fn drop(&mut self) {
        if let Some(held) = super::allocation::starting_at(self.address) {
            crate::api::memory::give_back(&held);
        }
    }
}

/// A node of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its handle.
    pub(crate) handle: CUgraphNode,
    /// What it does.
    pub(crate) body: Body,
    /// The nodes before it.
    pub(crate) after: Vec<CUgraphNode>,
    /// The node of the graph that this one's graph was cloned from.
    pub(crate) original: CUgraphNode,
}

/// A graph.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Its handle.
    pub(crate) handle: CUgraph,
    nodes: Mutex<Vec<Node>>,
    /// User objects that it keeps alive.
    objects: Mutex<Vec<Reference>>,
    /// Values for conditional nodes that were made for it.
    conditionals: Mutex<Vec<Arc<Conditional>>>,
    this: Weak<Self>,
}

/// An executable graph.
#[derive(Debug)]
pub(crate) struct GraphExec {
    /// The flags that it was made with.
    pub(crate) flags: u64,
    state: Mutex<ExecState>,
    /// User objects that it keeps alive.
    objects: Vec<Reference>,
}

#[derive(Debug)]
struct ExecState {
    nodes: Vec<ExecNode>,
    /// The values of its conditional nodes, however deep.
    conditionals: Vec<Arc<Conditional>>,
    /// The last launch: one launch of an executable graph runs at a time.
    last: Option<Arc<Marker>>,
}

/// A node of an executable graph.
#[derive(Debug, Clone)]
pub(super) struct ExecNode {
    /// The node that it was made from.
    node: CUgraphNode,
    pub(super) body: Body,
    after: Vec<CUgraphNode>,
    pub(super) enabled: bool,
}

/// Every graph of the process.
pub(crate) static GRAPHS: Table<CUgraph, Graph> = Table::new();
/// Every executable graph of the process.
pub(crate) static EXECS: Table<CUgraphExec, GraphExec> = Table::new();
/// The graph of every node of the process.
pub(crate) static NODES: Table<CUgraphNode, Weak<Graph>> = Table::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;

impl Graph {
    /// An empty graph.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create() -> Result<Arc<Self>, CUresult> {
        let make = |handle| {
            Arc::new_cyclic(|this| Self {
                handle,
                nodes: Mutex::default(),
                objects: Mutex::default(),
                conditionals: Mutex::default(),
                this: Weak::clone(this),
            })
        };
        Ok(GRAPHS.insert_shared_with(make)?.1)
    }

    /// Keeps a value for a conditional node.
    pub(crate) fn keep(&self, value: Arc<Conditional>) {
        lock(&self.conditionals).push(value);
    }

    /// Takes references to a user object.
    pub(crate) fn refer(&self, references: impl Iterator<Item = Reference>) {
        lock(&self.objects).extend(references);
    }

    /// Gives references to a user object back.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for more than it has.
    pub(crate) fn release(&self, object: &Arc<UserObject>, count: usize) -> Result<(), CUresult> {
        let mut objects = lock(&self.objects);
        let mine: Vec<_> =
            (0..objects.len()).filter(|index| objects[*index].is_to(object)).take(count).collect();
        if mine.len() < count {
            return Err(INVALID);
        }
        let gone: Vec<_> = mine.into_iter().rev().map(|index| objects.remove(index)).collect();
        // The object's end is the application's code: not under the lock.
        drop(objects);
        drop(gone);
        Ok(())
    }

    /// Its nodes in the order that they were added.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        lock(&self.nodes).clone()
    }

    /// Adds a node.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for dependencies that are no nodes of this graph, or named twice.
    pub(crate) fn add(&self, body: Body, after: Vec<CUgraphNode>) -> Result<CUgraphNode, CUresult> {
        let mut nodes = lock(&self.nodes);
        let known = |wanted: &CUgraphNode| nodes.iter().any(|node| node.handle == *wanted);
        let repeated = (1..after.len()).any(|index| after[..index].contains(&after[index]));
        if !after.iter().all(known) || repeated {
            return Err(INVALID);
        }
        let (handle, _) = NODES.insert_with(|_| Weak::clone(&self.this))?;
        nodes.push(Node { handle, body, after, original: CUgraphNode::NULL });
        Ok(handle)
    }

    /// One of its nodes.
    pub(crate) fn node(&self, handle: CUgraphNode) -> Option<Node> {
        lock(&self.nodes).iter().find(|node| node.handle == handle).cloned()
    }

    /// Changes one of its nodes.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a node of another graph.
    pub(crate) fn change<T>(
        &self,
        handle: CUgraphNode,
        change: impl FnOnce(&mut Node) -> Result<T, CUresult>,
    ) -> Result<T, CUresult> {
        let mut nodes = lock(&self.nodes);
        change(nodes.iter_mut().find(|node| node.handle == handle).ok_or(INVALID)?)
    }

    /// Adds a dependency.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for nodes of another graph, a dependency that is there, and one that closes a circle.
    pub(crate) fn connect(&self, from: CUgraphNode, to: CUgraphNode) -> Result<(), CUresult> {
        let mut nodes = lock(&self.nodes);
        let both = [from, to].iter().all(|wanted| nodes.iter().any(|node| node.handle == *wanted));
        if !both || from == to || reaches(&nodes, to, from) {
            return Err(INVALID);
        }
        let target = nodes.iter_mut().find(|node| node.handle == to).ok_or(INVALID)?;
        if target.after.contains(&from) {
            return Err(INVALID);
        }
        target.after.push(from);
        Ok(())
    }

    /// Whether a node is another, or comes before it, however far.
    pub(crate) fn precedes(&self, first: CUgraphNode, last: CUgraphNode) -> bool {
        reaches(&lock(&self.nodes), first, last)
    }

    /// Takes a dependency away.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` where there is none.
    pub(crate) fn disconnect(&self, from: CUgraphNode, to: CUgraphNode) -> Result<(), CUresult> {
        self.change(to, |node| {
            let index = node.after.iter().position(|before| *before == from).ok_or(INVALID)?;
            node.after.remove(index);
            Ok(())
        })
    }

    /// Takes a node away, with its dependencies.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a node of another graph.
    pub(crate) fn remove(&self, handle: CUgraphNode) -> Result<(), CUresult> {
        let mut nodes = lock(&self.nodes);
        let index = nodes.iter().position(|node| node.handle == handle).ok_or(INVALID)?;
        nodes.remove(index);
        for node in nodes.iter_mut() {
            node.after.retain(|before| *before != handle);
        }
        NODES.remove(handle);
        Ok(())
    }

    /// A copy with nodes of its own.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn duplicate(&self) -> Result<Arc<Self>, CUresult> {
        let copy = Self::create()?;
        let mut names = HashMap::new();
        let originals = self.nodes();
        let mut nodes = Vec::with_capacity(originals.len());
        for node in &originals {
            let (handle, _) = NODES.insert_with(|_| Weak::clone(&copy.this))?;
            names.insert(node.handle, handle);
            let body = match &node.body {
                Body::Child(child) => Body::Child(child.duplicate()?),
                Body::Conditional(node) => Body::Conditional(Arc::new(node.duplicate()?)),
                other => other.clone(),
            };
            nodes.push(Node { handle, body, after: Vec::new(), original: node.handle });
        }
        for (node, original) in nodes.iter_mut().zip(&originals) {
            node.after = original.after.iter().filter_map(|before| names.get(before).copied()).collect();
        }
        *lock(&copy.nodes) = nodes;
        *lock(&copy.objects) = lock(&self.objects).clone();
        Ok(copy)
    }

    /// Ends a graph, its nodes and the graphs inside it.
    pub(crate) fn destroy(&self) {
        GRAPHS.remove(self.handle);
        let objects = std::mem::take(&mut *lock(&self.objects));
        drop(objects);
        for node in std::mem::take(&mut *lock(&self.nodes)) {
            NODES.remove(node.handle);
            match node.body {
                Body::Child(child) => child.destroy(),
                Body::Conditional(node) => node.bodies.iter().for_each(|body| body.destroy()),
                _ => {}
            }
        }
        lock(&self.conditionals).clear();
    }
}

/// Whether one node comes before another, however far.
fn reaches(nodes: &[Node], from: CUgraphNode, to: CUgraphNode) -> bool {
    let mut open = vec![to];
    let mut seen = Vec::new();
    while let Some(next) = open.pop() {
        if next == from {
            return true;
        }
        if !seen.contains(&next) {
            seen.push(next);
            open.extend(
                nodes.iter().find(|node| node.handle == next).into_iter().flat_map(|node| &node.after),
            );
        }
    }
    false
}

/// Nodes of a graph in an order that their dependencies allow. Dependencies never close a circle ([`Graph::connect`]).
pub(super) fn in_order(nodes: Vec<Node>) -> Vec<ExecNode> {
    let mut left = nodes;
    let mut done = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let before = left.len();
        let (ready, waiting): (Vec<_>, Vec<_>) = left.into_iter().partition(|node| {
            node.after.iter().all(|before| done.iter().any(|done: &ExecNode| done.node == *before))
        });
        let exec =
            |node: Node| ExecNode { node: node.handle, body: node.body, after: node.after, enabled: true };
        done.extend(ready.into_iter().map(exec));
        left = waiting;
        assert!(left.len() < before, "dependencies have a circle");
    }
    done
}

impl GraphExec {
    /// Makes an executable copy of a graph.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create(graph: &Graph, flags: u64) -> Result<CUgraphExec, CUresult> {
        let nodes = in_order(freeze(graph.nodes())?);
        let conditionals = conditionals(&nodes);
        let state = Mutex::new(ExecState { nodes, conditionals, last: None });
        let objects = lock(&graph.objects).clone();
        let (handle, _) = EXECS.insert_with(|_| Self { flags, state, objects })?;
        Ok(handle)
    }

    /// Changes what a node does.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a node that the graph did not have, and for another kind of node.
    pub(crate) fn set(&self, node: CUgraphNode, body: Body) -> Result<(), CUresult> {
        let mut state = lock(&self.state);
        let found = state.nodes.iter_mut().find(|own| own.node == node).ok_or(INVALID)?;
        if std::mem::discriminant(&found.body) != std::mem::discriminant(&body) {
            return Err(INVALID);
        }
        found.body = body;
        Ok(())
    }

    /// Whether a node is to be run.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a node that the graph did not have.
    pub(crate) fn is_enabled(&self, node: CUgraphNode) -> Result<bool, CUresult> {
        let state = lock(&self.state);
        Ok(state.nodes.iter().find(|own| own.node == node).ok_or(INVALID)?.enabled)
    }

    /// Sets whether a node is to be run: only kernels, copies and fills may be left out.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE`.
    pub(crate) fn enable(&self, node: CUgraphNode, enabled: bool) -> Result<(), CUresult> {
        let mut state = lock(&self.state);
        let found = state.nodes.iter_mut().find(|own| own.node == node).ok_or(INVALID)?;
        if !matches!(found.body, Body::Kernel(_) | Body::Copy(..) | Body::Fill(_)) {
            return Err(INVALID);
        }
        found.enabled = enabled;
        Ok(())
    }

    /// Takes over what the nodes of a graph of the same form do.
    ///
    /// # Errors
    /// The node that has no counterpart (null where their numbers differ).
    pub(crate) fn update(&self, graph: &Graph) -> Result<(), CUgraphNode> {
        let nodes = freeze(graph.nodes()).map_err(|_| CUgraphNode::NULL)?;
        let new = in_order(nodes);
        let mut state = lock(&self.state);
        if new.len() != state.nodes.len() {
            return Err(CUgraphNode::NULL);
        }
        // The same form: node by node in order, with dependencies on the same places.
        let places = |nodes: &[ExecNode], node: &ExecNode| {
            let place = |before: &CUgraphNode| nodes.iter().position(|other| other.node == *before);
            let mut places: Vec<_> = node.after.iter().map(place).collect();
            places.sort_unstable();
            places
        };
        for (old, fresh) in state.nodes.iter().zip(&new) {
            let same_kind = std::mem::discriminant(&old.body) == std::mem::discriminant(&fresh.body);
            if !same_kind || places(&state.nodes, old) != places(&new, fresh) {
                return Err(fresh.node);
            }
        }
        for (old, fresh) in state.nodes.iter_mut().zip(new) {
            old.body = fresh.body;
        }
        state.conditionals = conditionals(&state.nodes);
        Ok(())
    }

    /// The operations of a launch in this moment: waits take the recordings that events have now, and records give them
    /// new ones.
    pub(crate) fn prepare(&self) -> Run {
        let state = lock(&self.state);
        let steps = graph_run::steps(&state.nodes);
        let conditionals = state.conditionals.clone();
        let marker = Marker::new();
        let after = state.last.clone();
        Run { steps, conditionals, after, marker, _objects: self.objects.clone() }
    }

    /// Notes a launch, for the next one to wait for.
    pub(crate) fn note(&self, marker: &Arc<Marker>) {
        lock(&self.state).last = Some(Arc::clone(marker));
    }
}

fn conditionals(nodes: &[ExecNode]) -> Vec<Arc<Conditional>> {
    let bodies: Vec<_> = nodes.iter().map(|node| node.body.clone()).collect();
    graph_run::conditionals(&bodies)
}

/// A copy of nodes whose child graphs are copies too, so that later edits do not reach them.
fn freeze(nodes: Vec<Node>) -> Result<Vec<Node>, CUresult> {
    nodes
        .into_iter()
        .map(|mut node| {
            // The copies need no names of their own.
            match &node.body {
                Body::Child(child) => {
                    let copy = child.duplicate()?;
                    GRAPHS.remove(copy.handle);
                    node.body = Body::Child(copy);
                }
                Body::Conditional(conditional) => {
                    let copy = conditional.duplicate()?;
                    copy.bodies.iter().for_each(|body| drop(GRAPHS.remove(body.handle)));
                    node.body = Body::Conditional(Arc::new(copy));
                }
                _ => {}
            }
            Ok(node)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_run_after_what_they_depend_on() {
        let graph = Graph::create().unwrap();
        let last = graph.add(Body::Empty, vec![]).unwrap();
        let middle = graph.add(Body::Empty, vec![]).unwrap();
        let first = graph.add(Body::Empty, vec![]).unwrap();
        graph.connect(middle, last).unwrap();
        graph.connect(first, middle).unwrap();
        assert_eq!(graph.connect(last, first), Err(INVALID), "a circle");
        assert_eq!(graph.connect(first, middle), Err(INVALID), "twice");
        let order: Vec<_> = in_order(graph.nodes()).iter().map(|node| node.node).collect();
        assert_eq!(order, [first, middle, last]);
        graph.disconnect(first, middle).unwrap();
        graph.remove(middle).unwrap();
        assert_eq!(graph.nodes().len(), 2);
        assert!(graph.node(last).unwrap().after.is_empty());
        graph.destroy();
        assert!(NODES.find(first).is_none() && GRAPHS.find(graph.handle).is_none());
    }

    #[test]
    fn a_copy_has_nodes_of_its_own() {
        let graph = Graph::create().unwrap();
        let first = graph.add(Body::Empty, vec![]).unwrap();
        graph.add(Body::Empty, vec![first]).unwrap();
        let copy = graph.duplicate().unwrap();
        let nodes = copy.nodes();
        assert_eq!(nodes[1].after, [nodes[0].handle]);
        assert_eq!(nodes[0].original, first);
        assert_ne!(nodes[0].handle, first);
        assert_eq!(copy.add(Body::Empty, vec![first]), Err(INVALID));
        graph.destroy();
        copy.destroy();
    }
}
