//! Parameters of nodes: from the application's structures to the wire and back.

use super::mirror::write_copy;
use super::{Allocated, Graph, Graphs, Held};
use crate::api::execution::{self, Shape};
use crate::api::{Result, current};
use crate::call::{call, garbled};
use crate::callbacks::Callback;
use crate::session::Session;
use crate::{exclusive, lock};
use pxos_protocol::api::op;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::types::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS, CUDA_KERNEL_NODE_PARAMS_v2,
    CUDA_MEM_ALLOC_NODE_PARAMS, CUDA_MEMCPY_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS_v2,
    CUcontext, CUevent, CUfunction, CUgraph, CUgraphNode, CUgraphNodeParams, CUkernel, CUmemAccessDesc,
    CUmemLocation, CUmemPoolProps, CUresult, CUstreamBatchMemOpParams, node_type,
};
use std::ffi::c_void;
use std::sync::Arc;

/// Most memory operations of a node (CUDA driver API, cuStreamBatchMemOp: 256).
const MAX_OPERATIONS: usize = 256;
/// Most access descriptors of an allocation node; there are no more GPUs in a machine.
const MAX_ACCESS: usize = 64;
/// Most graphs of a conditional node.
pub(super) const MAX_BODIES: u32 = 4096;

/// Memory to which pointers in parameters lead that were handed out.
#[derive(Debug)]
#[expect(dead_code, reason = "kept alive for the application, which reads it")]
pub(super) enum Kept {
    /// Values of a kernel's parameters, and a pointer to each.
    Kernel(Box<[u64]>, Pointers),
    /// Access descriptors.
    Access(Box<[CUmemAccessDesc]>),
    /// Memory operations.
    Operations(Box<[Operation]>),
    /// Graphs of a conditional node.
    Bodies(Box<[CUgraph]>),
}

/// A memory operation as it travels.
type Operation = [u64; 6];
const _: () = assert!(size_of::<Operation>() == size_of::<CUstreamBatchMemOpParams>());

/// Pointers into memory beside them.
#[derive(Debug)]
#[expect(dead_code, reason = "kept alive for the application, which reads it")]
pub(super) struct Pointers(Box<[*mut c_void]>);

// SAFETY: the pointers are only handed out, never followed here.
unsafe impl Send for Pointers {}

/// A context that the application names, 0 for the current one.
fn context(session: &Session, ctx: CUcontext) -> Result<u64> {
    if ctx.is_null() {
        return Ok(current(session)?.handle);
    }
    session.contexts.get(ctx.0).map(|context| context.handle).ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

/// Writes parameters of any kind; what the node needs of the guest comes back.
///
/// # Safety
/// The pointers in the parameters are valid as the CUDA driver API manual says of the kind.
pub(super) unsafe fn write(
    session: &'static Session,
    params: &CUgraphNodeParams,
    writer: &mut Writer<'_>,
) -> Result<Held> {
    let mut held = Held::default();
    writer.put(params.kind);
    // SAFETY: the kind says which member is valid; all are plain data.
    unsafe {
        match params.kind {
            node_type::KERNEL => kernel(session, &params.body.kernel, writer)?,
            node_type::MEMCPY => {
                let memcpy = &params.body.memcpy;
                if memcpy.flags != 0 {
                    return Err(CUresult::ERROR_INVALID_VALUE);
                }
                writer.put(context(session, memcpy.copy_ctx)?);
                write_copy(session, &memcpy.copy_params, &mut held, writer)?;
            }
            node_type::MEMSET => memset(session, &params.body.memset, writer)?,
            node_type::HOST => {
                let host = params.body.host;
                if host.function.is_none() {
                    return Err(CUresult::ERROR_INVALID_VALUE);
                }
                let callback = Callback::Host(host.function, host.user_data.expose_provenance());
                let function = session.callbacks.keep(session, callback)?;
                writer.put(function.number());
                held.functions.push(function);
            }
            node_type::GRAPH => {
                let child = session.graphs.graph(params.body.graph.graph)?;
                writer.put(child.id);
                writer.put(params.body.graph.ownership);
                held = session.graphs.collect_flat(&child);
            }
            node_type::EMPTY => {}
            node_type::WAIT_EVENT | node_type::EVENT_RECORD => {
                let event = session.events.get(params.body.event.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
                if params.kind == node_type::EVENT_RECORD {
                    held.events.push(Arc::clone(&event));
                }
                writer.put(event.handle);
            }
            node_type::MEM_ALLOC => allocation(&params.body.alloc, writer)?,
            node_type::MEM_FREE => writer.put(params.body.free),
            node_type::BATCH_MEM_OP => operations(session, &params.body.mem_op, writer)?,
            node_type::CONDITIONAL => {
                let conditional = &params.body.conditional;
                if conditional.size > MAX_BODIES {
                    return Err(CUresult::ERROR_NOT_SUPPORTED);
                }
                writer.put(conditional.handle);
                writer.put(conditional.kind);
                writer.put(conditional.size);
                writer.put(context(session, conditional.ctx)?);
            }
            node_type::EXT_SEMAS_SIGNAL | node_type::EXT_SEMAS_WAIT => {
                return Err(CUresult::ERROR_NOT_SUPPORTED);
            }
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
    Ok(held)
}

/// # Safety
/// As cuLaunchKernel says of the parameters.
unsafe fn kernel(session: &Session, params: &CUDA_KERNEL_NODE_PARAMS_v2, writer: &mut Writer<'_>) -> Result {
    // "func … kern: Kernel to launch, will only be referenced if func is NULL" (CUDA_KERNEL_NODE_PARAMS).
    let by_kernel = params.func.is_null();
    let raw = if by_kernel { CUfunction(params.kern.0) } else { params.func };
    let function = execution::function(session, raw)?;
    let context = if by_kernel { context(session, params.ctx)? } else { current(session)?.handle };
    let device = session.contexts.get(context).ok_or(CUresult::ERROR_INVALID_CONTEXT)?.device;
    let shape = Shape { grid: params.grid_dim, block: params.block_dim, shared: params.shared_mem_bytes };
    shape.check(session, &function, device)?;
    if exclusive::is_possible() && exclusive::concerns(session, &function, device) {
        exclusive::note_graph();
    }
    // SAFETY: by this function's contract.
    let values = unsafe { execution::params(&function, params.kernel_params, params.extra)? };
    writer.put(function.handle);
    writer.put(u32::from(by_kernel));
    writer.put(context);
    writer.put(shape.grid);
    writer.put(shape.block);
    writer.put(shape.shared);
    // SAFETY: as above; the call is still running.
    unsafe { values.write(&function, writer) };
    Ok(())
}

fn memset(session: &Session, params: &CUDA_MEMSET_NODE_PARAMS_v2, writer: &mut Writer<'_>) -> Result {
    let CUDA_MEMSET_NODE_PARAMS { dst, pitch, value, element_size, width, height } = params.memset;
    let range = session.allocations.find(dst).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let dst = match super::mirror::shared_address(session, dst, 1) {
        Some(shared) => shared,
        // The device cannot reach the guest's memory over a socket, and a graph runs without the guest.
        None if range.is_host() => return Err(CUresult::ERROR_NOT_SUPPORTED),
        None => dst,
    };
    writer.put(context(session, params.ctx)?);
    for word in [dst, pitch as u64, value.into(), element_size.into(), width as u64, height as u64] {
        writer.put(word);
    }
    Ok(())
}

/// # Safety
/// The descriptors are as many as it says.
unsafe fn allocation(params: &CUDA_MEM_ALLOC_NODE_PARAMS, writer: &mut Writer<'_>) -> Result {
    let pool = &params.pool_props;
    let count = params.access_desc_count;
    if count > MAX_ACCESS
        || (count > 0 && params.access_descs.is_null())
        || !pool.win32_security_attributes.is_null()
    {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    for word in [pool.alloc_type, pool.handle_types, pool.location.kind, pool.location.id.cast_unsigned()] {
        writer.put(word);
    }
    writer.put(pool.max_size as u64);
    writer.put(u64::from(pool.usage));
    writer.put(params.bytesize as u64);
    writer.put(count as u64);
    for index in 0..count {
        // SAFETY: as many as the count says, by this function's contract.
        let access = unsafe { params.access_descs.add(index).read() };
        writer.put(access.location.kind);
        writer.put(access.location.id);
        writer.put(access.flags);
    }
    Ok(())
}

/// # Safety
/// The operations are as many as it says.
unsafe fn operations(
    session: &Session,
    params: &CUDA_BATCH_MEM_OP_NODE_PARAMS,
    writer: &mut Writer<'_>,
) -> Result {
    let count = params.count as usize;
    if count > MAX_OPERATIONS || (count > 0 && params.param_array.is_null()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    writer.put(context(session, params.ctx)?);
    writer.put(params.flags);
    writer.put(count as u64);
    for index in 0..count {
        // SAFETY: as many as the count says, by this function's contract.
        let operation = unsafe { params.param_array.cast::<Operation>().add(index).read() };
        operation.into_iter().for_each(|word| writer.put(word));
    }
    Ok(())
}

/// Asks the worker for a node's parameters, of whichever kind it is; memory behind pointers in them lives as long as the node.
pub(super) fn ask(session: &'static Session, node: CUgraphNode, wanted: u32) -> Result<CUgraphNodeParams> {
    let reply = call(op::cuGraphKernelNodeGetParams_v2, |writer| {
        writer.put(node.0);
        writer.put(wanted);
    })?;
    let mut fields = reply.reader();
    let graph: u64 = fields.get().map_err(garbled)?;
    let graph = session.graphs.adopt(graph);
    read(session, &graph, node, wanted, &mut fields)
}

fn read(
    session: &'static Session,
    graph: &Arc<Graph>,
    node: CUgraphNode,
    kind: u32,
    fields: &mut Reader<'_>,
) -> Result<CUgraphNodeParams> {
    let mut params = CUgraphNodeParams::new(kind);
    let kept = match kind {
        node_type::KERNEL => {
            let (kernel, kept) = read_kernel(session, fields)?;
            params.body.kernel = kernel;
            Some(kept)
        }
        node_type::MEMCPY => {
            let copy_params = session.graphs.read_copy(fields)?;
            params.body.memcpy =
                CUDA_MEMCPY_NODE_PARAMS { flags: 0, reserved: 0, copy_ctx: CUcontext::NULL, copy_params };
            None
        }
        node_type::MEMSET => {
            let mut word = || -> Result<u64> { fields.get().map_err(garbled) };
            let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
            let half = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            let memset = CUDA_MEMSET_NODE_PARAMS {
                dst: word()?,
                pitch: size(word()?),
                value: half(word()?),
                element_size: half(word()?),
                width: size(word()?),
                height: size(word()?),
            };
            params.body.memset = CUDA_MEMSET_NODE_PARAMS_v2 { memset, ctx: CUcontext::NULL };
            None
        }
        node_type::HOST => {
            let number: u64 = fields.get().map_err(garbled)?;
            let Some(Callback::Host(function, data)) = session.callbacks.kept(number) else {
                return Err(CUresult::ERROR_INVALID_VALUE);
            };
            let user_data = std::ptr::with_exposed_provenance_mut(data);
            params.body.host = CUDA_HOST_NODE_PARAMS { function, user_data };
            None
        }
        node_type::GRAPH => {
            let child: u64 = fields.get().map_err(garbled)?;
            session.graphs.adopt(child);
            graph.add_part(child);
            params.body.graph.graph = CUgraph(child);
            None
        }
        node_type::WAIT_EVENT | node_type::EVENT_RECORD => {
            params.body.event = CUevent(fields.get().map_err(garbled)?);
            None
        }
        node_type::MEM_ALLOC => {
            let (alloc, kept) = read_allocation(fields)?;
            params.body.alloc = alloc;
            Some(kept)
        }
        node_type::MEM_FREE => {
            params.body.free = fields.get().map_err(garbled)?;
            None
        }
        node_type::BATCH_MEM_OP => {
            let (mem_op, kept) = read_operations(fields)?;
            params.body.mem_op = mem_op;
            Some(kept)
        }
        _ => None,
    };
    if let Some(kept) = kept {
        lock(&graph.kept).insert(node.0, kept);
    }
    Ok(params)
}

fn read_kernel(session: &Session, fields: &mut Reader<'_>) -> Result<(CUDA_KERNEL_NODE_PARAMS_v2, Kept)> {
    let raw: u64 = fields.get().map_err(garbled)?;
    let by_kernel = fields.get::<u32>().map_err(garbled)? != 0;
    let context: u64 = fields.get().map_err(garbled)?;
    let grid_dim = fields.get().map_err(garbled)?;
    let block_dim = fields.get().map_err(garbled)?;
    let shared_mem_bytes = fields.get().map_err(garbled)?;
    let values = fields.get_bytes().map_err(garbled)?;
    let function = execution::function(session, CUfunction(raw))?;
    let mut block = vec![0_u64; values.len().max(function.param_bytes).div_ceil(8)].into_boxed_slice();
    let start: *mut u8 = block.as_mut_ptr().cast();
    // SAFETY: the block holds at least as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
    let mut pointers: Box<[*mut c_void]> = function
        .params
        .iter()
        // SAFETY: offsets lie within the parameters' bytes, which the block holds.
        .map(|(offset, _)| unsafe { start.add(*offset as usize) }.cast())
        .collect();
    let params = CUDA_KERNEL_NODE_PARAMS_v2 {
        func: if by_kernel { CUfunction::NULL } else { CUfunction(raw) },
        grid_dim,
        block_dim,
        shared_mem_bytes,
        kernel_params: if pointers.is_empty() { std::ptr::null_mut() } else { pointers.as_mut_ptr() },
        extra: std::ptr::null_mut(),
        // The runtime names a kernel both ways, and finds it again by this one.
        kern: if function.is_kernel { CUkernel(raw) } else { CUkernel::NULL },
        ctx: CUcontext(if by_kernel { context } else { 0 }),
    };
    Ok((params, Kept::Kernel(block, Pointers(pointers))))
}

fn read_allocation(fields: &mut Reader<'_>) -> Result<(CUDA_MEM_ALLOC_NODE_PARAMS, Kept)> {
    let mut half = || -> Result<u32> { fields.get().map_err(garbled) };
    let [alloc_type, handle_types, location_type, location_id] = [half()?, half()?, half()?, half()?];
    let mut word = || -> Result<usize> {
        let value: u64 = fields.get().map_err(garbled)?;
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    };
    let [max_size, usage, bytesize, dptr, count] = [word()?, word()?, word()?, word()?, word()?];
    let mut access = Vec::new();
    for _ in 0..count.min(MAX_ACCESS) {
        let kind = fields.get().map_err(garbled)?;
        let id = fields.get().map_err(garbled)?;
        let flags = fields.get().map_err(garbled)?;
        access.push(CUmemAccessDesc { location: CUmemLocation { kind, id }, flags });
    }
    let access = access.into_boxed_slice();
    let params = CUDA_MEM_ALLOC_NODE_PARAMS {
        pool_props: CUmemPoolProps {
            alloc_type,
            handle_types,
            location: CUmemLocation { kind: location_type, id: location_id.cast_signed() },
            win32_security_attributes: std::ptr::null_mut(),
            max_size,
            usage: u16::try_from(usage).unwrap_or(0),
            reserved: [0; 54],
        },
        access_descs: if access.is_empty() { std::ptr::null() } else { access.as_ptr() },
        access_desc_count: access.len(),
        bytesize,
        dptr: dptr as u64,
    };
    Ok((params, Kept::Access(access)))
}

fn read_operations(fields: &mut Reader<'_>) -> Result<(CUDA_BATCH_MEM_OP_NODE_PARAMS, Kept)> {
    let context: u64 = fields.get().map_err(garbled)?;
    let flags = fields.get().map_err(garbled)?;
    let count: u64 = fields.get().map_err(garbled)?;
    let count = usize::try_from(count).map_or(MAX_OPERATIONS, |count| count.min(MAX_OPERATIONS));
    let mut operations = vec![[0_u64; 6]; count].into_boxed_slice();
    for word in operations.iter_mut().flatten() {
        *word = fields.get().map_err(garbled)?;
    }
    let params = CUDA_BATCH_MEM_OP_NODE_PARAMS {
        ctx: CUcontext(context),
        count: u32::try_from(count).expect("bounded by MAX_OPERATIONS"),
        param_array: operations.as_mut_ptr().cast(),
        flags,
    };
    Ok((params, Kept::Operations(operations)))
}

impl Graphs {
    /// Notes what came with a new node: memory that it allocates, graphs inside it.
    pub(super) fn note_node(
        &self,
        session: &'static Session,
        graph: &Arc<Graph>,
        node: u64,
        params: &mut CUgraphNodeParams,
        fields: &mut Reader<'_>,
    ) -> Result {
        match params.kind {
            node_type::MEM_ALLOC => {
                let address: u64 = fields.get().map_err(garbled)?;
                let context = current(session)?;
                // SAFETY: the member of the kind.
                let alloc = unsafe { &mut params.body.alloc };
                alloc.dptr = address;
                let device = alloc.pool_props.location.id;
                let allocated =
                    Allocated { address, bytes: alloc.bytesize as u64, context: context.handle, device };
                allocated.appear(session);
                lock(&graph.allocations).push(allocated);
            }
            node_type::CONDITIONAL => {
                // SAFETY: the member of the kind.
                let conditional = unsafe { &mut params.body.conditional };
                let mut bodies = vec![CUgraph::NULL; conditional.size as usize].into_boxed_slice();
                for body in &mut bodies {
                    *body = CUgraph(fields.get().map_err(garbled)?);
                    self.adopt(body.0);
                    graph.add_part(body.0);
                }
                conditional.graph_out = bodies.as_mut_ptr();
                lock(&graph.kept).insert(node, Kept::Bodies(bodies));
            }
            _ => {}
        }
        Ok(())
    }
}
