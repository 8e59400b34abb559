//! The functions of one kind of node each: all are forms of adding, setting and asking for parameters of any kind.

use super::build::{add, set};
use super::params::ask;
use crate::api::{Result, put};
use crate::session::session;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_CHILD_GRAPH_NODE_PARAMS, CUDA_HOST_NODE_PARAMS,
    CUDA_KERNEL_NODE_PARAMS_v1, CUDA_KERNEL_NODE_PARAMS_v2, CUDA_MEM_ALLOC_NODE_PARAMS,
    CUDA_MEMCPY_NODE_PARAMS, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS_v2,
    CUattributeValue, CUcontext, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode,
    CUgraphNodeParams, CUkernel, CUkernelNodeAttrID, CUresult, node_type,
};
use std::ptr::null;

/// What a structure of the application's becomes.
trait Parameters: Copy {
    fn of_any_kind(self, ctx: CUcontext) -> CUgraphNodeParams;
}

impl Parameters for CUDA_KERNEL_NODE_PARAMS_v2 {
    fn of_any_kind(self, _ctx: CUcontext) -> CUgraphNodeParams {
        let mut params = CUgraphNodeParams::new(node_type::KERNEL);
        params.body.kernel = self;
        params
    }
}

impl Parameters for CUDA_KERNEL_NODE_PARAMS_v1 {
    fn of_any_kind(self, ctx: CUcontext) -> CUgraphNodeParams {
        let Self { func, grid_dim, block_dim, shared_mem_bytes, kernel_params, extra } = self;
        let (kern, ctx2) = (CUkernel::NULL, CUcontext::NULL);
        CUDA_KERNEL_NODE_PARAMS_v2 {
            func,
            grid_dim,
            block_dim,
            shared_mem_bytes,
            kernel_params,
            extra,
            kern,
            ctx: ctx2,
        }
        .of_any_kind(ctx)
    }
}

impl Parameters for CUDA_MEMCPY3D {
    fn of_any_kind(self, ctx: CUcontext) -> CUgraphNodeParams {
        let mut params = CUgraphNodeParams::new(node_type::MEMCPY);
        params.body.memcpy =
            CUDA_MEMCPY_NODE_PARAMS { flags: 0, reserved: 0, copy_ctx: ctx, copy_params: self };
        params
    }
}

impl Parameters for CUDA_MEMSET_NODE_PARAMS {
    fn of_any_kind(self, ctx: CUcontext) -> CUgraphNodeParams {
        let mut params = CUgraphNodeParams::new(node_type::MEMSET);
        params.body.memset = CUDA_MEMSET_NODE_PARAMS_v2 { memset: self, ctx };
        params
    }
}

impl Parameters for CUDA_HOST_NODE_PARAMS {
    fn of_any_kind(self, _ctx: CUcontext) -> CUgraphNodeParams {
        let mut params = CUgraphNodeParams::new(node_type::HOST);
        params.body.host = self;
        params
    }
}

impl Parameters for CUDA_BATCH_MEM_OP_NODE_PARAMS {
    fn of_any_kind(self, _ctx: CUcontext) -> CUgraphNodeParams {
        let mut params = CUgraphNodeParams::new(node_type::BATCH_MEM_OP);
        params.body.mem_op = self;
        params
    }
}

/// Reads a structure of the application's.
///
/// # Safety
/// The pointer is null or leads to one.
unsafe fn read<T: Parameters>(params: *const T, ctx: CUcontext) -> Result<CUgraphNodeParams> {
    // SAFETY: by this function's contract.
    let params = unsafe { params.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok(params.of_any_kind(ctx))
}

fn child(graph: CUgraph) -> CUgraphNodeParams {
    let mut params = CUgraphNodeParams::new(node_type::GRAPH);
    params.body.graph = CUDA_CHILD_GRAPH_NODE_PARAMS { graph, ownership: 0 };
    params
}

fn event_of(kind: u32, event: CUevent) -> CUgraphNodeParams {
    let mut params = CUgraphNodeParams::new(kind);
    params.body.event = event;
    params
}

/// The context that a function names beside its structure, if it names one.
macro_rules! context {
    () => {
        CUcontext::NULL
    };
    ($ctx:ident) => {
        $ctx
    };
}

/// Functions that add a node with the parameters of a structure; those of a copy or a memset name a context beside it.
macro_rules! adds {
    ($($name:ident($type:ty $(, $ctx:ident)?);)*) => { $(
        pub(crate) unsafe fn $name(
            phGraphNode: *mut CUgraphNode,
            hGraph: CUgraph,
            dependencies: *const CUgraphNode,
            numDependencies: usize,
            nodeParams: *const $type,
            $($ctx: CUcontext,)?
        ) -> Result {
            let context = context!($($ctx)?);
            // SAFETY: the entry point's contract.
            unsafe {
                let mut params = read(nodeParams, context)?;
                add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut params)
            }
        }
    )* };
}

adds! {
    cuGraphAddKernelNode(CUDA_KERNEL_NODE_PARAMS_v1);
    cuGraphAddKernelNode_v2(CUDA_KERNEL_NODE_PARAMS_v2);
    cuGraphAddMemcpyNode(CUDA_MEMCPY3D, ctx);
    cuGraphAddMemsetNode(CUDA_MEMSET_NODE_PARAMS, ctx);
    cuGraphAddHostNode(CUDA_HOST_NODE_PARAMS);
    cuGraphAddBatchMemOpNode(CUDA_BATCH_MEM_OP_NODE_PARAMS);
}

/// Functions that replace a node's parameters by those of a structure.
macro_rules! sets {
    ($($name:ident($type:ty);)*) => { $(
        pub(crate) unsafe fn $name(hNode: CUgraphNode, nodeParams: *const $type) -> Result {
            // SAFETY: the entry point's contract.
            unsafe { set(None, hNode, &read(nodeParams, CUcontext::NULL)?) }
        }
    )* };
}

sets! {
    cuGraphKernelNodeSetParams(CUDA_KERNEL_NODE_PARAMS_v1);
    cuGraphKernelNodeSetParams_v2(CUDA_KERNEL_NODE_PARAMS_v2);
    cuGraphMemcpyNodeSetParams(CUDA_MEMCPY3D);
    cuGraphMemsetNodeSetParams(CUDA_MEMSET_NODE_PARAMS);
    cuGraphHostNodeSetParams(CUDA_HOST_NODE_PARAMS);
    cuGraphBatchMemOpNodeSetParams(CUDA_BATCH_MEM_OP_NODE_PARAMS);
}

/// The same for a node of an instantiated graph.
macro_rules! exec_sets {
    ($($name:ident($type:ty $(, $ctx:ident)?);)*) => { $(
        pub(crate) unsafe fn $name(
            hGraphExec: CUgraphExec,
            hNode: CUgraphNode,
            nodeParams: *const $type,
            $($ctx: CUcontext,)?
        ) -> Result {
            let context = context!($($ctx)?);
            // SAFETY: the entry point's contract.
            unsafe { set(Some(hGraphExec), hNode, &read(nodeParams, context)?) }
        }
    )* };
}

exec_sets! {
    cuGraphExecKernelNodeSetParams(CUDA_KERNEL_NODE_PARAMS_v1);
    cuGraphExecKernelNodeSetParams_v2(CUDA_KERNEL_NODE_PARAMS_v2);
    cuGraphExecMemcpyNodeSetParams(CUDA_MEMCPY3D, ctx);
    cuGraphExecMemsetNodeSetParams(CUDA_MEMSET_NODE_PARAMS, ctx);
    cuGraphExecHostNodeSetParams(CUDA_HOST_NODE_PARAMS);
    cuGraphExecBatchMemOpNodeSetParams(CUDA_BATCH_MEM_OP_NODE_PARAMS);
}

/// Functions that ask for a node's parameters.
macro_rules! gets {
    ($($name:ident($kind:ident, $type:ty, |$params:ident| $value:expr);)*) => { $(
        pub(crate) unsafe fn $name(hNode: CUgraphNode, nodeParams: *mut $type) -> Result {
            if nodeParams.is_null() {
                return Err(CUresult::ERROR_INVALID_VALUE);
            }
            let $params = ask(session()?, hNode, node_type::$kind)?;
            // SAFETY: the member of the kind that was asked for; not null, and writable by the entry point's contract.
            unsafe { put(nodeParams, $value) }
        }
    )* };
}

gets! {
    cuGraphKernelNodeGetParams(KERNEL, CUDA_KERNEL_NODE_PARAMS_v1, |params| first_version(params.body.kernel));
    cuGraphKernelNodeGetParams_v2(KERNEL, CUDA_KERNEL_NODE_PARAMS_v2, |params| params.body.kernel);
    cuGraphMemcpyNodeGetParams(MEMCPY, CUDA_MEMCPY3D, |params| params.body.memcpy.copy_params);
    cuGraphMemsetNodeGetParams(MEMSET, CUDA_MEMSET_NODE_PARAMS, |params| params.body.memset.memset);
    cuGraphHostNodeGetParams(HOST, CUDA_HOST_NODE_PARAMS, |params| params.body.host);
    cuGraphBatchMemOpNodeGetParams(BATCH_MEM_OP, CUDA_BATCH_MEM_OP_NODE_PARAMS, |params| params.body.mem_op);
    cuGraphMemAllocNodeGetParams(MEM_ALLOC, CUDA_MEM_ALLOC_NODE_PARAMS, |params| params.body.alloc);
    cuGraphMemFreeNodeGetParams(MEM_FREE, CUdeviceptr, |params| params.body.free);
    cuGraphChildGraphNodeGetGraph(GRAPH, CUgraph, |params| params.body.graph.graph);
    cuGraphEventRecordNodeGetEvent(EVENT_RECORD, CUevent, |params| params.body.event);
    cuGraphEventWaitNodeGetEvent(WAIT_EVENT, CUevent, |params| params.body.event);
}

/// The older structure has one field for functions and kernels.
fn first_version(params: CUDA_KERNEL_NODE_PARAMS_v2) -> CUDA_KERNEL_NODE_PARAMS_v1 {
    let CUDA_KERNEL_NODE_PARAMS_v2 {
        func,
        grid_dim,
        block_dim,
        shared_mem_bytes,
        kernel_params,
        extra,
        kern,
        ..
    } = params;
    let func = if func.is_null() { CUfunction(kern.0) } else { func };
    CUDA_KERNEL_NODE_PARAMS_v1 { func, grid_dim, block_dim, shared_mem_bytes, kernel_params, extra }
}

pub(crate) unsafe fn cuGraphAddChildGraphNode(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    numDependencies: usize,
    childGraph: CUgraph,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut child(childGraph)) }
}

pub(crate) unsafe fn cuGraphExecChildGraphNodeSetParams(
    hGraphExec: CUgraphExec,
    hNode: CUgraphNode,
    childGraph: CUgraph,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { set(Some(hGraphExec), hNode, &child(childGraph)) }
}

pub(crate) unsafe fn cuGraphAddEmptyNode(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    numDependencies: usize,
) -> Result {
    let mut params = CUgraphNodeParams::new(node_type::EMPTY);
    // SAFETY: the entry point's contract.
    unsafe { add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut params) }
}

/// Functions of nodes that record events or wait for them.
macro_rules! events {
    ($kind:ident $add:ident $set:ident $exec_set:ident) => {
        pub(crate) unsafe fn $add(
            phGraphNode: *mut CUgraphNode,
            hGraph: CUgraph,
            dependencies: *const CUgraphNode,
            numDependencies: usize,
            event: CUevent,
        ) -> Result {
            let mut params = event_of(node_type::$kind, event);
            // SAFETY: the entry point's contract.
            unsafe { add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut params) }
        }

        pub(crate) unsafe fn $set(hNode: CUgraphNode, event: CUevent) -> Result {
            // SAFETY: there is no pointer in it.
            unsafe { set(None, hNode, &event_of(node_type::$kind, event)) }
        }

        pub(crate) unsafe fn $exec_set(
            hGraphExec: CUgraphExec,
            hNode: CUgraphNode,
            event: CUevent,
        ) -> Result {
            // SAFETY: there is no pointer in it.
            unsafe { set(Some(hGraphExec), hNode, &event_of(node_type::$kind, event)) }
        }
    };
}

events! { EVENT_RECORD cuGraphAddEventRecordNode cuGraphEventRecordNodeSetEvent cuGraphExecEventRecordNodeSetEvent }
events! { WAIT_EVENT cuGraphAddEventWaitNode cuGraphEventWaitNodeSetEvent cuGraphExecEventWaitNodeSetEvent }

pub(crate) unsafe fn cuGraphAddMemAllocNode(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    numDependencies: usize,
    nodeParams: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> Result {
    // SAFETY: null or parameters, by the entry point's contract.
    let alloc = unsafe { nodeParams.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut params = CUgraphNodeParams::new(node_type::MEM_ALLOC);
    params.body.alloc = *alloc;
    // SAFETY: the entry point's contract.
    unsafe { add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut params)? };
    // SAFETY: the member of the kind.
    alloc.dptr = unsafe { params.body.alloc.dptr };
    Ok(())
}

pub(crate) unsafe fn cuGraphAddMemFreeNode(
    phGraphNode: *mut CUgraphNode,
    hGraph: CUgraph,
    dependencies: *const CUgraphNode,
    numDependencies: usize,
    dptr: CUdeviceptr,
) -> Result {
    let mut params = CUgraphNodeParams::new(node_type::MEM_FREE);
    params.body.free = dptr;
    // SAFETY: the entry point's contract.
    unsafe { add(phGraphNode, hGraph, dependencies, null(), numDependencies, &mut params) }
}

pub(crate) unsafe fn cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode) -> Result {
    crate::call::call(op::cuGraphKernelNodeCopyAttributes, |writer| {
        writer.put(dst.0);
        writer.put(src.0);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuGraphKernelNodeGetAttribute(
    hNode: CUgraphNode,
    attr: CUkernelNodeAttrID,
    value_out: *mut CUattributeValue,
) -> Result {
    let reply = crate::call::call(op::cuGraphKernelNodeGetAttribute, |writer| {
        writer.put(hNode.0);
        writer.put(attr);
    })?;
    let value = reply.reader().get().map_err(crate::call::garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(value_out, value) }
}

pub(crate) unsafe fn cuGraphKernelNodeSetAttribute(
    hNode: CUgraphNode,
    attr: CUkernelNodeAttrID,
    value: *const CUattributeValue,
) -> Result {
    // SAFETY: null or a value, by the entry point's contract.
    let value = unsafe { value.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    crate::call::call(op::cuGraphKernelNodeSetAttribute, |writer| {
        writer.put(hNode.0);
        writer.put(attr);
        writer.put(*value);
    })
    .map(|_| ())
}
