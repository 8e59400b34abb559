//! Parameters of nodes: from the wire to the driver's structures and back. Every handle is looked up, every count bounded, and
//! no pointer of the guest's gets into a structure.

use super::super::super::dispatch::{Answer, Call, Failed, done};
use super::super::super::state::State;
use super::{Graphs, Use, guest_address};
use crate::driver::Driver;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_CHILD_GRAPH_NODE_PARAMS, CUDA_CONDITIONAL_NODE_PARAMS,
    CUDA_HOST_NODE_PARAMS, CUDA_KERNEL_NODE_PARAMS_v2, CUDA_MEM_ALLOC_NODE_PARAMS, CUDA_MEMCPY_NODE_PARAMS,
    CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS_v2, CUcontext, CUevent, CUfunction,
    CUgraph, CUgraphNodeParams, CUkernel, CUmemAccessDesc, CUmemLocation, CUmemPoolProps, CUresult,
    node_type,
};
use std::ffi::c_void;

/// Most memory operations of a node (CUDA driver API, cuStreamBatchMemOp: 256).
const MAX_OPERATIONS: usize = 256;
/// Most access descriptors of an allocation node.
const MAX_ACCESS: usize = 64;
/// Most graphs of a conditional node.
const MAX_BODIES: u32 = 4096;

/// How an end of a copy travels, and `CU_MEMORYTYPE_*`, which they follow.
const END_MIRROR: u32 = 1;
const END_DEVICE: u32 = 2;
const END_ARRAY: u32 = 3;
const END_SHARED: u32 = 5;
const HOST: u32 = 1;

/// Parameters in the driver's form, with the memory that they lead to.
pub(super) struct Decoded {
    pub(super) native: CUgraphNodeParams,
    /// Host memory that the node uses.
    pub(super) uses: Vec<Use>,
    /// Bytes that it allocates.
    pub(super) allocates: u64,
    _block: Vec<u8>,
    _pointers: Vec<*mut c_void>,
    _size: Box<usize>,
    _access: Vec<CUmemAccessDesc>,
    _operations: Vec<[u64; 6]>,
}

impl Decoded {
    fn new(kind: u32) -> Self {
        Self {
            native: CUgraphNodeParams::new(kind),
            uses: Vec::new(),
            allocates: 0,
            _block: Vec::new(),
            _pointers: Vec::new(),
            _size: Box::new(0),
            _access: Vec::new(),
            _operations: Vec::new(),
        }
    }

    /// Refuses parameters of a node that allocates: what such a node may take was counted when it was made.
    pub(super) fn refuse_allocation(&self) -> Read<()> {
        if self.native.kind == node_type::MEM_ALLOC {
            Err(CUresult::ERROR_INVALID_VALUE.into())
        } else {
            Ok(())
        }
    }
}

type Read<T> = Result<T, Failed>;

/// The next field, a context; the driver's handle.
fn context(call: &mut Call<'_>) -> Read<CUcontext> {
    let raw = call.get()?;
    let context = call.state.contexts.get(raw).map_err(|_| CUresult::ERROR_INVALID_CONTEXT)?;
    match context.native {
        0 => Err(CUresult::ERROR_INVALID_CONTEXT.into()),
        native => Ok(CUcontext(native)),
    }
}

/// Reads parameters of any kind.
pub(super) fn read(call: &mut Call<'_>) -> Read<Decoded> {
    let kind: u32 = call.get()?;
    let mut decoded = Decoded::new(kind);
    match kind {
        node_type::KERNEL => kernel(call, &mut decoded)?,
        node_type::MEMCPY => {
            let copy_ctx = context(call)?;
            let copy_params = copy(call, &mut decoded.uses)?;
            decoded.native.body.memcpy =
                CUDA_MEMCPY_NODE_PARAMS { flags: 0, reserved: 0, copy_ctx, copy_params };
        }
        node_type::MEMSET => {
            let ctx = context(call)?;
            let memset = CUDA_MEMSET_NODE_PARAMS {
                dst: call.get()?,
                pitch: call.get_usize()?,
                value: half(call)?,
                element_size: half(call)?,
                width: call.get_usize()?,
                height: call.get_usize()?,
            };
            decoded.native.body.memset = CUDA_MEMSET_NODE_PARAMS_v2 { memset, ctx };
        }
        node_type::HOST => {
            let number: u64 = call.get()?;
            let (function, user_data) = super::super::super::callbacks::kept(call.session, number);
            decoded.native.body.host = CUDA_HOST_NODE_PARAMS { function: Some(function), user_data };
        }
        node_type::GRAPH => {
            let (child, ownership): (u64, u32) = (call.get()?, call.get()?);
            let graph = CUgraph(call.state.graphs.graph(child)?.native);
            decoded.native.body.graph = CUDA_CHILD_GRAPH_NODE_PARAMS { graph, ownership };
            decoded.uses = call.state.graphs.collect_flat(child);
        }
        node_type::EMPTY => {}
        node_type::WAIT_EVENT | node_type::EVENT_RECORD => {
            let event = call.get()?;
            decoded.native.body.event = CUevent(call.state.events.get(event)?.native);
        }
        node_type::MEM_ALLOC => allocation(call, &mut decoded)?,
        node_type::MEM_FREE => decoded.native.body.free = call.get()?,
        node_type::BATCH_MEM_OP => operations(call, &mut decoded)?,
        node_type::CONDITIONAL => {
            let (handle, kind, size): (u64, u32, u32) = (call.get()?, call.get()?, call.get()?);
            if size > MAX_BODIES {
                return Err(CUresult::ERROR_NOT_SUPPORTED.into());
            }
            if !call.state.graphs.conditionals.contains_key(&handle) {
                return Err(CUresult::ERROR_INVALID_VALUE.into());
            }
            let (graph_out, ctx) = (std::ptr::null_mut(), context(call)?);
            decoded.native.body.conditional =
                CUDA_CONDITIONAL_NODE_PARAMS { handle, kind, size, graph_out, ctx };
        }
        _ => return Err(CUresult::ERROR_INVALID_VALUE.into()),
    }
    Ok(decoded)
}

/// A word that must fit into 32 bits.
fn half(call: &mut Call<'_>) -> Read<u32> {
    Ok(u32::try_from(call.get::<u64>()?).map_err(|_| CUresult::ERROR_INVALID_VALUE)?)
}

fn kernel(call: &mut Call<'_>, decoded: &mut Decoded) -> Read<()> {
    let raw = call.get()?;
    let by_kernel = call.get::<u32>()? != 0;
    let ctx = context(call)?;
    let (grid_dim, block_dim): ([u32; 3], [u32; 3]) = (call.get()?, call.get()?);
    let shared_mem_bytes = call.get()?;
    let packed = call.get::<u32>()? != 0;
    let mut block = call.fields.get_bytes()?.to_vec();
    let function = call.state.function(raw)?;
    let size = block.len();
    if packed {
        block = super::super::launch::filled_up(&block, function.param_bytes);
    }
    let mut native = function.native;
    if by_kernel && !function.is_kernel {
        return Err(CUresult::ERROR_INVALID_HANDLE.into());
    }
    if function.is_kernel && !by_kernel {
        // The guest's handles of a kernel and of the function made of it are one.
        // SAFETY: a kernel of the session's; a pointer to a local.
        unsafe { call.driver().cuKernelGetFunction(&raw mut native, function.native)? };
    }
    let start: *mut u8 = block.as_ptr().cast_mut();
    let (mut kernel_params, mut extra) = (std::ptr::null_mut(), std::ptr::null_mut());
    if packed {
        *decoded._size = size;
        decoded._pointers = vec![
            std::ptr::without_provenance_mut(1),
            start.cast(),
            std::ptr::without_provenance_mut(2),
            (&raw mut *decoded._size).cast(),
            std::ptr::null_mut(),
        ];
        extra = decoded._pointers.as_mut_ptr();
    } else {
        // The driver reads each parameter's size from each pointer: the block must hold them all.
        if block.len() < function.param_bytes {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        // SAFETY: offsets lie within the parameters' bytes, which the block holds.
        let pointer = |offset: &u32| unsafe { start.add(*offset as usize) }.cast();
        decoded._pointers = function.offsets.iter().map(pointer).collect();
        kernel_params = decoded._pointers.as_mut_ptr();
    }
    decoded._block = block;
    decoded.native.body.kernel = CUDA_KERNEL_NODE_PARAMS_v2 {
        func: if by_kernel { CUfunction::NULL } else { CUfunction(native) },
        grid_dim,
        block_dim,
        shared_mem_bytes,
        kernel_params,
        extra,
        kern: if by_kernel { CUkernel(native) } else { CUkernel::NULL },
        ctx: if by_kernel { ctx } else { CUcontext::NULL },
    };
    Ok(())
}

/// One end of a copy.
struct End {
    kind: u32,
    /// An address of the worker's or the device's, or an array of the driver's.
    address: u64,
    position: [usize; 3],
    pitch: usize,
    height: usize,
}

fn end(call: &mut Call<'_>, extent: [usize; 3], writes: bool, uses: &mut Vec<Use>) -> Read<End> {
    let kind: u32 = call.get()?;
    match kind {
        END_MIRROR => {
            let (one, pitch, height) = Graphs::read_use(call, extent, writes)?;
            let address = one.address().expose_provenance() as u64;
            uses.push(one);
            Ok(End { kind: HOST, address, position: [0; 3], pitch, height })
        }
        END_SHARED => {
            let address: u64 = call.get()?;
            let (pitch, height) = (call.get_usize()?, call.get_usize()?);
            let [width, rows, depth] = extent;
            let span = || {
                let last = depth.checked_sub(1)?.checked_mul(pitch.checked_mul(height)?)?;
                last.checked_add(rows.checked_sub(1)?.checked_mul(pitch)?)?.checked_add(width)
            };
            let span = span().ok_or(CUresult::ERROR_INVALID_VALUE)?;
            if !call.state.is_shared(address, span as u64) || width > pitch || rows > height {
                return Err(CUresult::ERROR_INVALID_VALUE.into());
            }
            Ok(End { kind: HOST, address, position: [0; 3], pitch, height })
        }
        END_DEVICE => {
            let address = call.get()?;
            let position = [call.get_usize()?, call.get_usize()?, call.get_usize()?];
            Ok(End { kind, address, position, pitch: call.get_usize()?, height: call.get_usize()? })
        }
        END_ARRAY => {
            let array = call.get()?;
            let position = [call.get_usize()?, call.get_usize()?, call.get_usize()?];
            Ok(End {
                kind,
                address: call.state.arrays.arrays.get(array)?.native,
                position,
                pitch: 0,
                height: 0,
            })
        }
        _ => Err(CUresult::ERROR_INVALID_VALUE.into()),
    }
}

/// A copy: extent, source, destination.
pub(super) fn copy(call: &mut Call<'_>, uses: &mut Vec<Use>) -> Read<CUDA_MEMCPY3D> {
    let extent = [call.get_usize()?, call.get_usize()?, call.get_usize()?];
    let from = end(call, extent, false, uses)?;
    let to = end(call, extent, true, uses)?;
    let host = |end: &End| -> *mut c_void {
        let address = if end.kind == HOST { end.address } else { 0 };
        std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits"))
    };
    let of = |end: &End, kind| if end.kind == kind { end.address } else { 0 };
    Ok(CUDA_MEMCPY3D {
        src_memory_type: from.kind,
        src_host: host(&from).cast_const(),
        src_device: of(&from, END_DEVICE),
        src_array: pxos_protocol::types::CUarray(of(&from, END_ARRAY)),
        src_x_in_bytes: from.position[0],
        src_y: from.position[1],
        src_z: from.position[2],
        src_pitch: from.pitch,
        src_height: from.height,
        dst_memory_type: to.kind,
        dst_host: host(&to),
        dst_device: of(&to, END_DEVICE),
        dst_array: pxos_protocol::types::CUarray(of(&to, END_ARRAY)),
        dst_x_in_bytes: to.position[0],
        dst_y: to.position[1],
        dst_z: to.position[2],
        dst_pitch: to.pitch,
        dst_height: to.height,
        width_in_bytes: extent[0],
        height: extent[1],
        depth: extent[2],
        ..CUDA_MEMCPY3D::default()
    })
}

fn allocation(call: &mut Call<'_>, decoded: &mut Decoded) -> Read<()> {
    let (alloc_type, handle_types, location_type, location): (u32, u32, u32, u32) =
        (call.get()?, call.get()?, call.get()?, call.get()?);
    let (max_size, usage) = (call.get_usize()?, call.get::<u64>()?);
    let (bytesize, count) = (call.get_usize()?, call.get_usize()?);
    if count > MAX_ACCESS {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    for _ in 0..count {
        let (kind, id, flags) = (call.get()?, call.get()?, call.get()?);
        decoded._access.push(CUmemAccessDesc { location: CUmemLocation { kind, id }, flags });
    }
    decoded.allocates = bytesize as u64;
    decoded.native.body.alloc = CUDA_MEM_ALLOC_NODE_PARAMS {
        pool_props: CUmemPoolProps {
            alloc_type,
            handle_types,
            location: CUmemLocation { kind: location_type, id: location.cast_signed() },
            win32_security_attributes: std::ptr::null_mut(),
            max_size,
            usage: u16::try_from(usage).map_err(|_| CUresult::ERROR_INVALID_VALUE)?,
            reserved: [0; 54],
        },
        access_descs: if count == 0 { std::ptr::null() } else { decoded._access.as_ptr() },
        access_desc_count: count,
        bytesize,
        dptr: 0,
    };
    Ok(())
}

fn operations(call: &mut Call<'_>, decoded: &mut Decoded) -> Read<()> {
    let ctx = context(call)?;
    let flags = call.get()?;
    let count = call.get_usize()?;
    if count > MAX_OPERATIONS {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    for _ in 0..count {
        let mut words = [0; 6];
        for word in &mut words {
            *word = call.get()?;
        }
        decoded._operations.push(words);
    }
    decoded.native.body.mem_op = CUDA_BATCH_MEM_OP_NODE_PARAMS {
        ctx,
        count: u32::try_from(count).expect("bounded by MAX_OPERATIONS"),
        param_array: decoded._operations.as_mut_ptr().cast(),
        flags,
    };
    Ok(())
}

/// `…GetParams`: node, the kind that is asked for. The answer is the node's graph and what the kind has.
pub(in crate::worker) fn get(call: &mut Call<'_>) -> Answer {
    let (id, kind): (u64, u32) = (call.get()?, call.get()?);
    let node = call.state.graphs.node(id)?;
    let driver = call.driver();
    let mut payload = Vec::new();
    let mut writer = Writer::new(&mut payload);
    writer.put(node.graph);
    let mut params = CUgraphNodeParams::new(kind);
    // SAFETY: pointers to members of a local, of the types that the functions write.
    unsafe {
        let body = &raw mut params.body;
        match kind {
            node_type::KERNEL => {
                driver.cuGraphKernelNodeGetParams_v2(node.native, &raw mut (*body).kernel)?;
            }
            node_type::MEMCPY => {
                driver.cuGraphMemcpyNodeGetParams(node.native, &raw mut (*body).memcpy.copy_params)?;
            }
            node_type::MEMSET => {
                driver.cuGraphMemsetNodeGetParams(node.native, &raw mut (*body).memset.memset)?;
            }
            node_type::HOST => driver.cuGraphHostNodeGetParams(node.native, &raw mut (*body).host)?,
            node_type::GRAPH => {
                driver.cuGraphChildGraphNodeGetGraph(node.native, &raw mut (*body).graph.graph)?;
            }
            node_type::EVENT_RECORD => {
                driver.cuGraphEventRecordNodeGetEvent(node.native, &raw mut (*body).event)?;
            }
            node_type::WAIT_EVENT => {
                driver.cuGraphEventWaitNodeGetEvent(node.native, &raw mut (*body).event)?;
            }
            node_type::MEM_ALLOC => {
                driver.cuGraphMemAllocNodeGetParams(node.native, &raw mut (*body).alloc)?;
            }
            node_type::MEM_FREE => driver.cuGraphMemFreeNodeGetParams(node.native, &raw mut (*body).free)?,
            node_type::BATCH_MEM_OP => {
                driver.cuGraphBatchMemOpNodeGetParams(node.native, &raw mut (*body).mem_op)?;
            }
            _ => return Err(CUresult::ERROR_INVALID_VALUE.into()),
        }
    }
    // SAFETY: the member that the driver has written.
    unsafe {
        match kind {
            node_type::KERNEL => {
                put_kernel(call.state, driver, node.by_kernel, &params.body.kernel, &mut writer)?;
            }
            node_type::MEMCPY => put_copy(call.state, &params.body.memcpy.copy_params, &mut writer),
            node_type::MEMSET => {
                let memset = params.body.memset.memset;
                let (value, element) = (memset.value.into(), memset.element_size.into());
                let (pitch, width, height) = (memset.pitch as u64, memset.width as u64, memset.height as u64);
                [memset.dst, pitch, value, element, width, height]
                    .into_iter()
                    .for_each(|word| writer.put(word));
            }
            node_type::HOST => writer.put(params.body.host.user_data.addr() as u64),
            node_type::GRAPH => {
                let child = params.body.graph.graph.0;
                writer.put(call.state.graphs.graph_id(child, id));
            }
            node_type::EVENT_RECORD | node_type::WAIT_EVENT => {
                let native = params.body.event.0;
                writer.put(call.state.events.find_raw(|event| event.native == native).unwrap_or(0));
            }
            node_type::MEM_ALLOC => put_allocation(&params.body.alloc, &mut writer),
            node_type::MEM_FREE => writer.put(params.body.free),
            _ => put_operations(call.state, &params.body.mem_op, &mut writer),
        }
    }
    call.state.reply = payload;
    done()
}

/// The guest's handle for a function or kernel of the driver's: what a kernel was launched as may come back as the function
/// that the driver made of it.
fn function(state: &mut State, driver: &Driver, native: u64) -> Option<u64> {
    let State { functions, kernels, graphs, .. } = state;
    let direct = functions.find_raw(|function| function.native == native);
    if let Some(raw) = direct.or_else(|| kernels.find_raw(|kernel| kernel.native == native)) {
        return Some(raw);
    }
    kernels.find_raw(|kernel| {
        let made = graphs.functions.get(&kernel.native).copied().unwrap_or_else(|| {
            let mut function = 0;
            // SAFETY: a kernel of the session's; a pointer to a local.
            let _ = unsafe { driver.cuKernelGetFunction(&raw mut function, kernel.native) };
            function
        });
        made == native
    })
}

/// # Safety
/// The driver has written the parameters, so that its pointers lead to values of the function's parameters.
unsafe fn put_kernel(
    state: &mut State,
    driver: &Driver,
    by_kernel: bool,
    params: &CUDA_KERNEL_NODE_PARAMS_v2,
    writer: &mut Writer<'_>,
) -> Read<()> {
    let native = if params.func.is_null() { params.kern.0 } else { params.func.0 };
    let raw = function(state, driver, native).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    let context = state.contexts.find_raw(|context| context.native == params.ctx.0).unwrap_or(0);
    let function = state.function(raw)?;
    writer.put(raw);
    writer.put(u32::from(by_kernel));
    writer.put(context);
    writer.put(params.grid_dim);
    writer.put(params.block_dim);
    writer.put(params.shared_mem_bytes);
    writer.put(function.param_bytes as u64);
    let block = writer.reserve(function.param_bytes);
    if params.kernel_params.is_null() {
        return Ok(());
    }
    for (index, offset) in function.offsets.iter().enumerate() {
        let (mut at, mut size) = (0, 0);
        // SAFETY: a function or kernel of the session's; pointers to locals.
        unsafe {
            if function.is_kernel {
                driver.cuKernelGetParamInfo(function.native, index, &raw mut at, &raw mut size)?;
            } else {
                driver.cuFuncGetParamInfo(function.native, index, &raw mut at, &raw mut size)?;
            }
        }
        let room = block.get_mut(*offset as usize..).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        // SAFETY: one pointer per parameter, by this function's contract.
        let value: *const u8 = unsafe { params.kernel_params.add(index).read() }.cast();
        // SAFETY: each leads to a value of the parameter's size; the block holds all parameters.
        unsafe { std::ptr::copy_nonoverlapping(value, room.as_mut_ptr(), size.min(room.len())) };
    }
    Ok(())
}

fn put_copy(state: &State, copy: &CUDA_MEMCPY3D, writer: &mut Writer<'_>) {
    for extent in [copy.width_in_bytes, copy.height, copy.depth] {
        writer.put(extent as u64);
    }
    let host = |address: *const c_void| guest_address(address).unwrap_or_else(|| address.addr() as u64);
    let array = |native| state.arrays.handle_of(native).unwrap_or(0);
    let source = match copy.src_memory_type {
        HOST => host(copy.src_host),
        END_ARRAY => array(copy.src_array.0),
        _ => copy.src_device,
    };
    let destination = match copy.dst_memory_type {
        HOST => host(copy.dst_host),
        END_ARRAY => array(copy.dst_array.0),
        _ => copy.dst_device,
    };
    let mut end = |kind: u32, address: u64, rest: [usize; 5]| {
        writer.put(u64::from(kind));
        writer.put(address);
        rest.into_iter().for_each(|value| writer.put(value as u64));
    };
    let rest = [copy.src_x_in_bytes, copy.src_y, copy.src_z, copy.src_pitch, copy.src_height];
    end(copy.src_memory_type, source, rest);
    let rest = [copy.dst_x_in_bytes, copy.dst_y, copy.dst_z, copy.dst_pitch, copy.dst_height];
    end(copy.dst_memory_type, destination, rest);
}

/// # Safety
/// The driver has written the parameters.
unsafe fn put_allocation(params: &CUDA_MEM_ALLOC_NODE_PARAMS, writer: &mut Writer<'_>) {
    let pool = &params.pool_props;
    for word in [pool.alloc_type, pool.handle_types, pool.location.kind, pool.location.id.cast_unsigned()] {
        writer.put(word);
    }
    let count = if params.access_descs.is_null() { 0 } else { params.access_desc_count.min(MAX_ACCESS) };
    let (max_size, usage) = (pool.max_size as u64, u64::from(pool.usage));
    for word in [max_size, usage, params.bytesize as u64, params.dptr, count as u64] {
        writer.put(word);
    }
    for index in 0..count {
        // SAFETY: as many as the driver says, by this function's contract.
        let access = unsafe { params.access_descs.add(index).read() };
        writer.put(access.location.kind);
        writer.put(access.location.id);
        writer.put(access.flags);
    }
}

/// # Safety
/// The driver has written the parameters.
unsafe fn put_operations(state: &State, params: &CUDA_BATCH_MEM_OP_NODE_PARAMS, writer: &mut Writer<'_>) {
    writer.put(state.contexts.find_raw(|context| context.native == params.ctx.0).unwrap_or(0));
    writer.put(params.flags);
    let count = if params.param_array.is_null() { 0 } else { (params.count as usize).min(MAX_OPERATIONS) };
    writer.put(count as u64);
    for index in 0..count {
        // SAFETY: as many as the driver says, by this function's contract.
        let operation = unsafe { params.param_array.cast::<[u64; 6]>().add(index).read() };
        operation.into_iter().for_each(|word| writer.put(word));
    }
}
