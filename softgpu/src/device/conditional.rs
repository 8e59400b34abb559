//! Conditional nodes of graphs: values that kernels set, and what runs for which value (CUDA C++ programming guide,
//! "Conditional graph nodes").

use super::graph::Graph;
use pxos_protocol::types::{CUgraph, CUgraphConditionalHandle, CUresult};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A value that kernels set and one node looks at. It lives as long as the graph it was made for, or a node, or an
/// executable graph with that node.
#[derive(Debug)]
pub(crate) struct Conditional {
    /// What the application and its kernels call it.
    pub(crate) handle: CUgraphConditionalHandle,
    value: AtomicU32,
    /// What each launch of the graph begins with.
    default: Option<u32>,
    /// Whether a node has it; no other one may.
    taken: AtomicBool,
}

/// What decides whether and which graph runs (`CUgraphConditionalNodeType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first graph for values other than zero, the second (if there is one) for zero.
    If,
    /// Its graph again and again while the value is not zero.
    While,
    /// The graph whose number is the value, if there is one.
    Switch,
}

/// A conditional node.
#[derive(Debug)]
pub(crate) struct ConditionalNode {
    /// What it looks at.
    pub(crate) value: Arc<Conditional>,
    /// How it decides.
    pub(crate) kind: Kind,
    /// The graphs that it runs.
    pub(crate) bodies: Vec<Arc<Graph>>,
    /// Their handles, for the application to read as long as the node lives.
    pub(crate) handles: Box<[CUgraph]>,
}

/// The values of the process. Handles are never used twice.
static VALUES: Mutex<Option<HashMap<CUgraphConditionalHandle, Weak<Conditional>>>> = Mutex::new(None);

fn values<T>(with: impl FnOnce(&mut HashMap<CUgraphConditionalHandle, Weak<Conditional>>) -> T) -> T {
    with(VALUES.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

impl Conditional {
    /// Makes a value.
    pub(crate) fn create(default: Option<u32>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let handle = NEXT.fetch_add(1, Ordering::Relaxed);
        let (value, taken) = (AtomicU32::new(default.unwrap_or(0)), AtomicBool::new(false));
        let made = Arc::new(Self { handle, value, default, taken });
        values(|all| all.insert(handle, Arc::downgrade(&made)));
        made
    }

    /// The live value of a handle.
    pub(crate) fn find(handle: CUgraphConditionalHandle) -> Option<Arc<Self>> {
        values(|all| all.get(&handle)?.upgrade())
    }

    /// Begins a launch.
    pub(crate) fn reset(&self) {
        if let Some(default) = self.default {
            self.set(default);
        }
    }

    /// Sets it, from a kernel.
    pub(crate) fn set(&self, value: u32) {
        // Release: what the kernel wrote before is there for whatever the value lets run.
        self.value.store(value, Ordering::Release);
    }

    fn now(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }
}

impl Drop for Conditional {
    fn drop(&mut self) {
        values(|all| all.remove(&self.handle));
    }
}

impl ConditionalNode {
    /// A node with so many empty graphs.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for a value that another node has, and a number of graphs that its kind does not have;
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create(value: Arc<Conditional>, kind: Kind, size: u32) -> Result<Self, CUresult> {
        let allowed = match kind {
            Kind::If => (1..=2).contains(&size),
            Kind::While => size == 1,
            Kind::Switch => size > 0,
        };
        if !allowed || value.taken.swap(true, Ordering::Relaxed) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Ok(Self::of(value, kind, (0..size).map(|_| Graph::create()).collect::<Result<_, _>>()?))
    }

    fn of(value: Arc<Conditional>, kind: Kind, bodies: Vec<Arc<Graph>>) -> Self {
        let handles = bodies.iter().map(|body| body.handle).collect();
        Self { value, kind, bodies, handles }
    }

    /// A node that looks at the same value, with copies of its graphs.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn duplicate(&self) -> Result<Self, CUresult> {
        let bodies = self.bodies.iter().map(|body| body.duplicate()).collect::<Result<_, _>>()?;
        Ok(Self::of(Arc::clone(&self.value), self.kind, bodies))
    }

    /// Which of its graphs is to be run now.
    pub(crate) fn choice(&self) -> Option<usize> {
        let value = self.value.now();
        let index = match self.kind {
            Kind::If => usize::from(value == 0),
            Kind::While if value == 0 => return None,
            Kind::While => 0,
            Kind::Switch => value as usize,
        };
        (index < self.bodies.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_decides() {
        let value = Conditional::create(Some(3));
        let node = ConditionalNode::create(Arc::clone(&value), Kind::Switch, 3).unwrap();
        assert_eq!(node.choice(), None, "no fourth graph");
        value.set(2);
        assert_eq!(node.choice(), Some(2));
        value.reset();
        assert_eq!(value.now(), 3);
        let again = ConditionalNode::create(Arc::clone(&value), Kind::If, 1);
        assert_eq!(again.err(), Some(CUresult::ERROR_INVALID_VALUE), "a second node");
        for (kind, size, at_zero, else_) in
            [(Kind::If, 1, None, Some(0)), (Kind::If, 2, Some(1), Some(0)), (Kind::While, 1, None, Some(0))]
        {
            let value = Conditional::create(None);
            let node = ConditionalNode::create(Arc::clone(&value), kind, size).unwrap();
            assert_eq!(node.choice(), at_zero, "{kind:?} of {size}");
            value.set(7);
            assert_eq!(node.choice(), else_, "{kind:?} of {size}");
        }
    }

    #[test]
    fn a_value_ends_with_its_owners() {
        let value = Conditional::create(None);
        let handle = value.handle;
        let node = ConditionalNode::create(Arc::clone(&value), Kind::While, 1).unwrap();
        drop(value);
        assert!(Conditional::find(handle).is_some());
        drop(node);
        assert!(Conditional::find(handle).is_none());
    }
}
