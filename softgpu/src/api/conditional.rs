//! Conditional nodes of graphs (CUDA driver API, section "Graph management").

use super::graph::live;
use super::{Answer, Out, driver_fns};
use crate::device::conditional::{Conditional, ConditionalNode, Kind};
use crate::device::context;
use crate::device::graph::Body;
use pxos_protocol::types::{
    CUDA_CONDITIONAL_NODE_PARAMS, CUcontext, CUgraph, CUgraphConditionalHandle, CUresult,
};
use std::ffi::c_uint;
use std::sync::Arc;

driver_fns! {
    /// Makes a value for a conditional node to look at.
    ready fn cuGraphConditionalHandleCreate(
        handle: *mut CUgraphConditionalHandle,
        graph: CUgraph,
        context: CUcontext,
        value: c_uint,
        flags: c_uint,
    ) {
        handle.required()?;
        let graph = live(graph)?;
        check_context(context)?;
        if flags & !ASSIGN_DEFAULT != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let made = Conditional::create((flags == ASSIGN_DEFAULT).then_some(value));
        handle.put(made.handle)?;
        graph.keep(made);
        Ok(())
    }
}

/// `CU_GRAPH_COND_ASSIGN_DEFAULT`.
const ASSIGN_DEFAULT: c_uint = 1;

/// A context that is named has to be there; null is the current one.
fn check_context(context: CUcontext) -> Answer {
    if context.is_null() { context::current().map(drop) } else { context::named(context).map(drop) }
}

/// A conditional node; the handles of its graphs are told through the parameters.
pub(super) fn body(parameters: Out<CUDA_CONDITIONAL_NODE_PARAMS>) -> Answer<Body> {
    let mut given = parameters.read()?;
    check_context(given.ctx)?;
    let kind = match given.kind {
        0 => Kind::If,
        1 => Kind::While,
        2 => Kind::Switch,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    let value = Conditional::find(given.handle).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let node = Arc::new(ConditionalNode::create(value, kind, given.size)?);
    given.graph_out = node.handles.as_ptr().cast_mut();
    parameters.put(given)?;
    Ok(Body::Conditional(node))
}
