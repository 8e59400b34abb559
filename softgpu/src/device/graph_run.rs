//! One launch of an executable graph: its nodes as steps, one after the other.

use super::conditional::{Conditional, ConditionalNode, Kind};
use super::context::Active;
use super::graph::{Body, ExecNode, in_order};
use super::marker::Marker;
use super::operation::Operation;
use super::user_object::Reference;
use pxos_protocol::types::CUresult;
use std::sync::Arc;

/// One launch of an executable graph.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) steps: Vec<Step>,
    /// Values that begin with a default.
    pub(super) conditionals: Vec<Arc<Conditional>>,
    /// The launch before it.
    pub(crate) after: Option<Arc<Marker>>,
    /// Reached at its end.
    pub(crate) marker: Arc<Marker>,
    /// User objects that live until then.
    pub(super) _objects: Vec<Reference>,
}

/// What one node does in a launch.
#[derive(Debug)]
pub(super) enum Step {
    Do(Operation),
    Wait(Arc<Marker>),
    Reach(Arc<Marker>),
    /// Decides when its turn comes; the steps of its graphs are made each time that they run.
    Choose(Arc<ConditionalNode>),
}

/// The operations of nodes in this moment: waits take the recordings that events have now, and records give them new
/// ones.
pub(super) fn steps(nodes: &[ExecNode]) -> Vec<Step> {
    let mut steps = Vec::new();
    for node in nodes.iter().filter(|node| node.enabled) {
        match &node.body {
            Body::Kernel(kernel) => steps.push(Step::Do(Operation::Kernel(kernel.launch.clone()))),
            Body::Copy(copy, _) => steps.push(Step::Do(Operation::Copy(*copy))),
            Body::Fill(fill) => steps.push(Step::Do(Operation::Fill(fill.clone()))),
            Body::Host(call) => steps.push(Step::Do(Operation::Host(*call))),
            Body::Child(graph) => steps.extend(self::steps(&in_order(graph.nodes()))),
            Body::Conditional(node) => steps.push(Step::Choose(Arc::clone(node))),
            Body::Wait(event) => steps.extend(event.marker().map(Step::Wait)),
            Body::Record(event) => {
                let marker = Marker::new();
                event.record(Arc::clone(&marker));
                steps.push(Step::Reach(marker));
            }
            Body::Empty | Body::Allocate(_) | Body::Free(_) => {}
        }
    }
    steps
}

/// The values of a graph's conditional nodes, however deep.
pub(super) fn conditionals(bodies: &[Body]) -> Vec<Arc<Conditional>> {
    let mut found = Vec::new();
    for body in bodies {
        let graphs = match body {
            Body::Child(graph) => std::slice::from_ref(graph),
            Body::Conditional(node) => {
                found.push(Arc::clone(&node.value));
                &node.bodies[..]
            }
            _ => continue,
        };
        for graph in graphs {
            let inner: Vec<_> = graph.nodes().into_iter().map(|node| node.body).collect();
            found.extend(conditionals(&inner));
        }
    }
    found
}

impl Run {
    /// Runs the nodes.
    ///
    /// # Errors
    /// The first fault of a kernel.
    pub(crate) fn execute(self, active: &Active) -> Result<(), CUresult> {
        self.conditionals.iter().for_each(|value| value.reset());
        let result = take(self.steps, active);
        self.marker.reach();
        result
    }
}

/// Takes steps; after a fault only what others wait for.
fn take(steps: Vec<Step>, active: &Active) -> Result<(), CUresult> {
    let mut result = Ok(());
    for step in steps {
        match step {
            Step::Do(operation) if result.is_ok() => result = operation.run(active),
            Step::Choose(node) if result.is_ok() => result = choose(&node, active),
            Step::Do(_) | Step::Choose(_) => {}
            Step::Wait(marker) => marker.wait(),
            Step::Reach(marker) => marker.reach(),
        }
    }
    result
}

/// Runs what a conditional node's value asks for.
fn choose(node: &ConditionalNode, active: &Active) -> Result<(), CUresult> {
    // A loop ends with its context, too: nothing could change its value any more.
    while !active.is_ending()
        && active.fault.check().is_ok()
        && let Some(index) = node.choice()
    {
        take(steps(&in_order(node.bodies[index].nodes())), active)?;
        if node.kind != Kind::While {
            break;
        }
    }
    Ok(())
}
