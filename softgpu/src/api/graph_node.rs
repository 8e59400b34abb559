//! Nodes of graphs (CUDA driver API, section "Graph management": adding nodes, their parameters, and those of
//! executable graphs).

use super::capture::nodes;
use super::execution::Given;
use super::graph::{CUgraphEdgeData, find, graph_memory, live, live_exec};
use super::{Answer, In, Out, conditional, copy as api_copy, driver_fns};
use crate::device::allocation;
use crate::device::context;
use crate::device::event::EVENTS;
use crate::device::graph::{Body, CopyGiven, KernelNode};
use crate::device::kernel::{self, Shape};
use crate::device::operation::{Fill, HostCall, Launch};
use pxos_protocol::types::{
    CUDA_MEMCPY3D, CUcontext, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUhostFn,
    CUkernel, CUmemAccessDesc, CUmemPoolProps, CUresult,
};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// Adds a kernel.
    ready fn cuGraphAddKernelNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, parameters: *const CUDA_KERNEL_NODE_PARAMS_v1) {
        add(node, graph, after, count, || kernel_body(&parameters.read()?.into()))
    }

    /// Adds a kernel.
    ready fn cuGraphAddKernelNode_v2(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, parameters: *const CUDA_KERNEL_NODE_PARAMS) {
        add(node, graph, after, count, || kernel_body(&parameters.read()?))
    }

    /// The parameters of a kernel node.
    ready fn cuGraphKernelNodeGetParams(node: CUgraphNode, parameters: *mut CUDA_KERNEL_NODE_PARAMS_v1) {
        parameters.required()?;
        parameters.put(kernel_parameters(node)?.first)
    }

    /// The parameters of a kernel node.
    ready fn cuGraphKernelNodeGetParams_v2(node: CUgraphNode, parameters: *mut CUDA_KERNEL_NODE_PARAMS) {
        parameters.required()?;
        parameters.put(kernel_parameters(node)?)
    }

    /// Sets the parameters of a kernel node.
    ready fn cuGraphKernelNodeSetParams(node: CUgraphNode, parameters: *const CUDA_KERNEL_NODE_PARAMS_v1) {
        set(node, kernel_body(&parameters.read()?.into())?)
    }

    /// Sets the parameters of a kernel node.
    ready fn cuGraphKernelNodeSetParams_v2(node: CUgraphNode, parameters: *const CUDA_KERNEL_NODE_PARAMS) {
        set(node, kernel_body(&parameters.read()?)?)
    }

    /// Sets the parameters of a kernel node of an executable graph.
    ready fn cuGraphExecKernelNodeSetParams(exec: CUgraphExec, node: CUgraphNode, parameters: *const CUDA_KERNEL_NODE_PARAMS_v1) {
        live_exec(exec)?.set(node, kernel_body(&parameters.read()?.into())?)
    }

    /// Sets the parameters of a kernel node of an executable graph.
    ready fn cuGraphExecKernelNodeSetParams_v2(exec: CUgraphExec, node: CUgraphNode, parameters: *const CUDA_KERNEL_NODE_PARAMS) {
        live_exec(exec)?.set(node, kernel_body(&parameters.read()?)?)
    }

    /// Adds a copy.
    ready fn cuGraphAddMemcpyNode(
        node: *mut CUgraphNode,
        graph: CUgraph,
        after: *const CUgraphNode,
        count: usize,
        parameters: *const CUDA_MEMCPY3D,
        _context: CUcontext,
    ) {
        add(node, graph, after, count, || copy_body(parameters.read()?))
    }

    /// The parameters of a copy.
    ready fn cuGraphMemcpyNodeGetParams(node: CUgraphNode, parameters: *mut CUDA_MEMCPY3D) {
        parameters.required()?;
        match find(node)?.1.body {
            Body::Copy(_, given) => parameters.put(given.0),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// Sets the parameters of a copy.
    ready fn cuGraphMemcpyNodeSetParams(node: CUgraphNode, parameters: *const CUDA_MEMCPY3D) {
        set(node, copy_body(parameters.read()?)?)
    }

    /// Sets the parameters of a copy of an executable graph.
    ready fn cuGraphExecMemcpyNodeSetParams(exec: CUgraphExec, node: CUgraphNode, parameters: *const CUDA_MEMCPY3D, _context: CUcontext) {
        live_exec(exec)?.set(node, copy_body(parameters.read()?)?)
    }

    /// Adds a fill.
    ready fn cuGraphAddMemsetNode(
        node: *mut CUgraphNode,
        graph: CUgraph,
        after: *const CUgraphNode,
        count: usize,
        parameters: *const CUDA_MEMSET_NODE_PARAMS,
        _context: CUcontext,
    ) {
        add(node, graph, after, count, || fill_body(&parameters.read()?))
    }

    /// The parameters of a fill.
    ready fn cuGraphMemsetNodeGetParams(node: CUgraphNode, parameters: *mut CUDA_MEMSET_NODE_PARAMS) {
        parameters.required()?;
        let Body::Fill(fill) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        let mut value = [0; 4];
        value[..fill.value.len()].copy_from_slice(&fill.value);
        let size = |number: u64| usize::try_from(number).expect("addresses have 64 bits here");
        parameters.put(CUDA_MEMSET_NODE_PARAMS {
            dst: fill.address,
            pitch: size(fill.pitch),
            value: u32::from_le_bytes(value),
            element_size: c_uint::try_from(fill.value.len()).expect("at most 4"),
            width: size(fill.width),
            height: size(fill.height),
        })
    }

    /// Sets the parameters of a fill.
    ready fn cuGraphMemsetNodeSetParams(node: CUgraphNode, parameters: *const CUDA_MEMSET_NODE_PARAMS) {
        set(node, fill_body(&parameters.read()?)?)
    }

    /// Sets the parameters of a fill of an executable graph.
    ready fn cuGraphExecMemsetNodeSetParams(exec: CUgraphExec, node: CUgraphNode, parameters: *const CUDA_MEMSET_NODE_PARAMS, _context: CUcontext) {
        live_exec(exec)?.set(node, fill_body(&parameters.read()?)?)
    }

    /// Adds a host function.
    ready fn cuGraphAddHostNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, parameters: *const CUDA_HOST_NODE_PARAMS) {
        add(node, graph, after, count, || host_body(&parameters.read()?))
    }

    /// The parameters of a host function.
    ready fn cuGraphHostNodeGetParams(node: CUgraphNode, parameters: *mut CUDA_HOST_NODE_PARAMS) {
        parameters.required()?;
        let Body::Host(call) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        parameters.put(CUDA_HOST_NODE_PARAMS { function: Some(call.function), user_data: call.data })
    }

    /// Sets the parameters of a host function.
    ready fn cuGraphHostNodeSetParams(node: CUgraphNode, parameters: *const CUDA_HOST_NODE_PARAMS) {
        set(node, host_body(&parameters.read()?)?)
    }

    /// Sets the parameters of a host function of an executable graph.
    ready fn cuGraphExecHostNodeSetParams(exec: CUgraphExec, node: CUgraphNode, parameters: *const CUDA_HOST_NODE_PARAMS) {
        live_exec(exec)?.set(node, host_body(&parameters.read()?)?)
    }

    /// Adds a copy of a graph.
    ready fn cuGraphAddChildGraphNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, child: CUgraph) {
        add(node, graph, after, count, || Ok(Body::Child(live(child)?.duplicate()?)))
    }

    /// The graph of such a node.
    ready fn cuGraphChildGraphNodeGetGraph(node: CUgraphNode, graph: *mut CUgraph) {
        graph.required()?;
        let Body::Child(child) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        graph.put(child.handle)
    }

    /// Changes the graph of such a node of an executable graph.
    ready fn cuGraphExecChildGraphNodeSetParams(exec: CUgraphExec, node: CUgraphNode, child: CUgraph) {
        let child = live(child)?.duplicate()?;
        live_exec(exec)?.set(node, Body::Child(child))
    }

    /// Adds a node that does nothing.
    ready fn cuGraphAddEmptyNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize) {
        add(node, graph, after, count, || Ok(Body::Empty))
    }

    /// Adds a recording of an event.
    ready fn cuGraphAddEventRecordNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, event: CUevent) {
        add(node, graph, after, count, || Ok(Body::Record(EVENTS.get(event)?)))
    }

    /// The event of a recording.
    ready fn cuGraphEventRecordNodeGetEvent(node: CUgraphNode, event: *mut CUevent) {
        event.required()?;
        let Body::Record(found) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        event.put(found.handle)
    }

    /// Changes the event of a recording.
    ready fn cuGraphEventRecordNodeSetEvent(node: CUgraphNode, event: CUevent) {
        set(node, Body::Record(EVENTS.get(event)?))
    }

    /// Changes the event of a recording of an executable graph.
    ready fn cuGraphExecEventRecordNodeSetEvent(exec: CUgraphExec, node: CUgraphNode, event: CUevent) {
        live_exec(exec)?.set(node, Body::Record(EVENTS.get(event)?))
    }

    /// Adds a wait for an event.
    ready fn cuGraphAddEventWaitNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, event: CUevent) {
        add(node, graph, after, count, || Ok(Body::Wait(EVENTS.get(event)?)))
    }

    /// The event of a wait.
    ready fn cuGraphEventWaitNodeGetEvent(node: CUgraphNode, event: *mut CUevent) {
        event.required()?;
        let Body::Wait(found) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        event.put(found.handle)
    }

    /// Changes the event of a wait.
    ready fn cuGraphEventWaitNodeSetEvent(node: CUgraphNode, event: CUevent) {
        set(node, Body::Wait(EVENTS.get(event)?))
    }

    /// Changes the event of a wait of an executable graph.
    ready fn cuGraphExecEventWaitNodeSetEvent(exec: CUgraphExec, node: CUgraphNode, event: CUevent) {
        live_exec(exec)?.set(node, Body::Wait(EVENTS.get(event)?))
    }

    /// Adds an allocation.
    ready fn cuGraphAddMemAllocNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, parameters: *mut CUDA_MEM_ALLOC_NODE_PARAMS) {
        let mut given = parameters.read()?;
        let memory = graph_memory(&*context::current()?, given.bytesize as u64)?;
        given.dptr = memory.address;
        add(node, graph, after, count, || Ok(Body::Allocate(memory)))?;
        parameters.put(given)
    }

    /// The parameters of an allocation.
    ready fn cuGraphMemAllocNodeGetParams(node: CUgraphNode, parameters: *mut CUDA_MEM_ALLOC_NODE_PARAMS) {
        parameters.required()?;
        let Body::Allocate(memory) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        // SAFETY: numbers and null pointers: all bytes zero are a value of it.
        let mut given: CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { std::mem::zeroed() };
        given.bytesize = usize::try_from(memory.bytes).expect("addresses have 64 bits here");
        given.dptr = memory.address;
        parameters.put(given)
    }

    /// Adds a free of what another node allocated.
    ready fn cuGraphAddMemFreeNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, address: CUdeviceptr) {
        add(node, graph, after, count, || {
            allocation::starting_at(address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
            Ok(Body::Free(address))
        })
    }

    /// What a free frees.
    ready fn cuGraphMemFreeNodeGetParams(node: CUgraphNode, address: *mut CUdeviceptr) {
        address.required()?;
        let Body::Free(freed) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
        address.put(freed)
    }

    /// What kind of node a node is.
    ready fn cuGraphNodeGetType(node: CUgraphNode, kind: *mut c_uint) {
        kind.required()?;
        kind.put(match find(node)?.1.body {
            Body::Kernel(_) => KERNEL,
            Body::Copy(..) => MEMCPY,
            Body::Fill(_) => MEMSET,
            Body::Host(_) => HOST,
            Body::Child(_) => GRAPH,
            Body::Conditional(_) => CONDITIONAL,
            Body::Empty => EMPTY,
            Body::Wait(_) => WAIT_EVENT,
            Body::Record(_) => EVENT_RECORD,
            Body::Allocate(_) => MEM_ALLOC,
            Body::Free(_) => MEM_FREE,
        })
    }

    /// Adds a node of any kind.
    ready fn cuGraphAddNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, parameters: *mut CUgraphNodeParams) {
        add(node, graph, after, count, || any_body(parameters))
    }

    /// Adds a node of any kind.
    ready fn cuGraphAddNode_v2(
        node: *mut CUgraphNode,
        graph: CUgraph,
        after: *const CUgraphNode,
        _edges: *const CUgraphEdgeData,
        count: usize,
        parameters: *mut CUgraphNodeParams,
    ) {
        add(node, graph, after, count, || any_body(parameters))
    }

    /// Sets the parameters of a node of any kind.
    ready fn cuGraphNodeSetParams(node: CUgraphNode, parameters: *mut CUgraphNodeParams) {
        set(node, any_body(parameters)?)
    }

    /// Sets the parameters of a node of any kind of an executable graph.
    ready fn cuGraphExecNodeSetParams(exec: CUgraphExec, node: CUgraphNode, parameters: *mut CUgraphNodeParams) {
        live_exec(exec)?.set(node, any_body(parameters)?)
    }
}

const KERNEL: c_uint = 0;
const MEMCPY: c_uint = 1;
const MEMSET: c_uint = 2;
const HOST: c_uint = 3;
const GRAPH: c_uint = 4;
const EMPTY: c_uint = 5;
const WAIT_EVENT: c_uint = 6;
const EVENT_RECORD: c_uint = 7;
const MEM_ALLOC: c_uint = 10;
const MEM_FREE: c_uint = 11;
const CONDITIONAL: c_uint = 13;

/// A kernel node's parameters as they were up to CUDA 11 (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the driver's own names")]
pub struct CUDA_KERNEL_NODE_PARAMS_v1 {
    pub func: CUfunction,
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared_mem_bytes: c_uint,
    pub kernel_params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

/// A kernel node's parameters (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the driver's own names")]
pub struct CUDA_KERNEL_NODE_PARAMS {
    pub first: CUDA_KERNEL_NODE_PARAMS_v1,
    pub kern: CUkernel,
    pub ctx: CUcontext,
}

impl From<CUDA_KERNEL_NODE_PARAMS_v1> for CUDA_KERNEL_NODE_PARAMS {
    fn from(first: CUDA_KERNEL_NODE_PARAMS_v1) -> Self {
        Self { first, kern: CUkernel::NULL, ctx: CUcontext::NULL }
    }
}

/// A fill's parameters (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the driver's own names")]
pub struct CUDA_MEMSET_NODE_PARAMS {
    pub dst: CUdeviceptr,
    pub pitch: usize,
    pub value: c_uint,
    pub element_size: c_uint,
    pub width: usize,
    pub height: usize,
}

/// A host function's parameters (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the driver's own names")]
pub struct CUDA_HOST_NODE_PARAMS {
    pub function: CUhostFn,
    pub user_data: *mut c_void,
}

/// An allocation's parameters (cuda.h 13.0).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the driver's own names")]
pub struct CUDA_MEM_ALLOC_NODE_PARAMS {
    pub pool_props: CUmemPoolProps,
    pub access_descs: *const CUmemAccessDesc,
    pub access_desc_count: usize,
    pub bytesize: usize,
    pub dptr: CUdeviceptr,
}

/// Any node's parameters (cuda.h 13.0): a union by kind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUgraphNodeParams {
    /// `CUgraphNodeType`.
    pub kind: c_uint,
    /// Zero.
    pub reserved: [c_int; 3],
    /// The union.
    pub words: [u64; 29],
    /// Zero.
    pub reserved2: u64,
}

const _: () = {
    assert!(size_of::<CUDA_KERNEL_NODE_PARAMS_v1>() == 56);
    assert!(size_of::<CUDA_KERNEL_NODE_PARAMS>() == 72);
    assert!(size_of::<CUDA_MEMSET_NODE_PARAMS>() == 40);
    assert!(size_of::<CUDA_MEM_ALLOC_NODE_PARAMS>() == 120);
    assert!(size_of::<CUgraphNodeParams>() == 256);
};

fn add(
    node: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    body: impl FnOnce() -> Answer<Body>,
) -> Answer {
    node.required()?;
    let graph = live(graph)?;
    let after = nodes(after, count)?;
    node.put(graph.add(body()?, after)?)
}

/// Changes what a node does; its kind stays.
fn set(node: CUgraphNode, body: Body) -> Answer {
    let (graph, _) = find(node)?;
    graph.change(node, |node| {
        if std::mem::discriminant(&node.body) != std::mem::discriminant(&body) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        node.body = body;
        Ok(())
    })
}

fn kernel_body(given: &CUDA_KERNEL_NODE_PARAMS) -> Answer<Body> {
    let active = context::current()?;
    let first = &given.first;
    let named = if first.func.is_null() { CUfunction(given.kern.0) } else { first.func };
    let target = kernel::target(&active, named)?;
    let shape = Shape {
        grid: first.grid,
        block: first.block,
        dynamic_shared: first.shared_mem_bytes,
        cooperative: false,
    };
    target.check(&shape, active.device.multiprocessors)?;
    let parameters =
        Given { parameters: Out::from_api(first.kernel_params), extra: Out::from_api(first.extra) };
    let parameters = parameters.collect(target.kernel())?;
    let launch = Launch { target, shape, parameters };
    Ok(Body::Kernel(Arc::new(KernelNode::new(launch, first.func.0, given.kern))))
}

fn kernel_parameters(node: CUgraphNode) -> Answer<CUDA_KERNEL_NODE_PARAMS> {
    let Body::Kernel(kernel) = find(node)?.1.body else { return Err(CUresult::ERROR_INVALID_VALUE) };
    let shape = &kernel.launch.shape;
    Ok(CUDA_KERNEL_NODE_PARAMS {
        first: CUDA_KERNEL_NODE_PARAMS_v1 {
            func: CUfunction(kernel.function),
            grid: shape.grid,
            block: shape.block,
            shared_mem_bytes: shape.dynamic_shared,
            // Valid until the node changes or goes (CUDA driver API, `cuGraphKernelNodeGetParams`).
            kernel_params: kernel.pointers.as_ptr().cast_mut().cast(),
            extra: std::ptr::null_mut(),
        },
        kern: kernel.kernel,
        ctx: CUcontext::NULL,
    })
}

fn copy_body(given: CUDA_MEMCPY3D) -> Answer<Body> {
    context::current()?;
    let (copy, sides) = api_copy::cuboid(&given)?;
    if copy.is_empty() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    api_copy::check(&copy, sides)?;
    Ok(Body::Copy(copy, Arc::new(CopyGiven(given))))
}

fn fill_body(given: &CUDA_MEMSET_NODE_PARAMS) -> Answer<Body> {
    context::current()?;
    let element = given.element_size as usize;
    if !matches!(element, 1 | 2 | 4) || given.width == 0 || given.height == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let row = given.width.checked_mul(element);
    let above = (given.height - 1).checked_mul(given.pitch);
    let extent = row.zip(above).and_then(|(row, above)| row.checked_add(above));
    allocation::check(given.dst, extent.ok_or(CUresult::ERROR_INVALID_VALUE)? as u64)?;
    Ok(Body::Fill(Fill {
        address: given.dst,
        pitch: given.pitch as u64,
        value: given.value.to_le_bytes()[..element].to_vec(),
        width: given.width as u64,
        height: given.height as u64,
    }))
}

fn host_body(given: &CUDA_HOST_NODE_PARAMS) -> Answer<Body> {
    let function = given.function.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    Ok(Body::Host(HostCall { function, data: given.user_data }))
}

fn any_body(parameters: Out<CUgraphNodeParams>) -> Answer<Body> {
    let mut given = parameters.read()?;
    let first = given.words[0];
    let union = given.words.as_ptr();
    Ok(match given.kind {
        KERNEL => kernel_body(&In::from_api(union.cast::<CUDA_KERNEL_NODE_PARAMS>()).read()?)?,
        // Flags and context come before the copy itself.
        MEMCPY => copy_body(In::from_api(union.wrapping_add(2).cast::<CUDA_MEMCPY3D>()).read()?)?,
        MEMSET => fill_body(&In::from_api(union.cast::<CUDA_MEMSET_NODE_PARAMS>()).read()?)?,
        HOST => host_body(&In::from_api(union.cast::<CUDA_HOST_NODE_PARAMS>()).read()?)?,
        GRAPH => Body::Child(live(CUgraph(first))?.duplicate()?),
        EMPTY => Body::Empty,
        WAIT_EVENT => Body::Wait(EVENTS.get(CUevent(first))?),
        EVENT_RECORD => Body::Record(EVENTS.get(CUevent(first))?),
        MEM_ALLOC => {
            let mut wish = In::from_api(union.cast::<CUDA_MEM_ALLOC_NODE_PARAMS>()).read()?;
            let memory = graph_memory(&*context::current()?, wish.bytesize as u64)?;
            wish.dptr = memory.address;
            Out::from_api(given.words.as_mut_ptr().cast::<CUDA_MEM_ALLOC_NODE_PARAMS>()).put(wish)?;
            parameters.put(given)?;
            Body::Allocate(memory)
        }
        MEM_FREE => Body::Free(first),
        CONDITIONAL => {
            let body = conditional::body(Out::from_api(given.words.as_mut_ptr().cast()))?;
            parameters.put(given)?;
            body
        }
        _ => return Err(CUresult::ERROR_NOT_SUPPORTED),
    })
}
