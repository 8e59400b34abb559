//! Execution control: functions, launches, host functions.

use super::module::read_attributes;
use super::{Result, enter, put, stream_argument};
use crate::call::call;
use crate::callbacks::Callback;
use crate::objects::Function;
use crate::session::{Session, session};
use crate::thread;
use crate::{exclusive, lock};
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::attribute as attr;
use pxos_protocol::types::{
    CUfunc_cache, CUfunction, CUfunction_attribute, CUfunctionLoadingState, CUhostFn, CUlaunchAttribute,
    CUlaunchConfig, CUmodule, CUresult, CUsharedconfig, CUstream, launch_attribute,
};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MAX_THREADS_PER_BLOCK: u32 = 0;
const SHARED_SIZE_BYTES: u32 = 1;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: u32 = 8;
const NON_PORTABLE_CLUSTER_SIZE_ALLOWED: u32 = 14;

/// `CU_LAUNCH_PARAM_*` of the `extra` array.
const PARAM_END: usize = 0;
const PARAM_BUFFER_POINTER: usize = 1;
const PARAM_BUFFER_SIZE: usize = 2;

/// Largest parameter buffer (CUDA C++ Programming Guide, "Function parameters": 32,764 bytes since CUDA 12.1).
pub(super) const MAX_PARAM_BYTES: usize = 32_764;

/// Most attributes that one launch carries; CUDA 13.0 has 16.
const MAX_ATTRIBUTES: usize = 64;

/// The live function behind a handle.
pub(super) fn function(session: &Session, raw: CUfunction) -> Result<Arc<Function>> {
    session.function(raw.0).ok_or(CUresult::ERROR_INVALID_HANDLE)
}

pub(crate) unsafe fn cuFuncGetAttribute(
    pi: *mut c_int,
    attrib: CUfunction_attribute,
    hfunc: CUfunction,
) -> Result {
    let session = session()?;
    let context = session.contexts.get(thread::current_context());
    let value = attribute(session, hfunc, context.map_or(0, |context| context.device), attrib)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pi, value) }
}

/// An attribute of a function or kernel on a device.
pub(super) fn attribute(session: &Session, raw: CUfunction, device: i32, attribute: u32) -> Result<i32> {
    function(session, raw)?.attribute(device, attribute).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) unsafe fn cuFuncSetAttribute(
    hfunc: CUfunction,
    attrib: CUfunction_attribute,
    value: c_int,
) -> Result {
    let (_, context) = enter()?;
    set_attribute(hfunc, context.device, attrib, value)
}

/// Sets an attribute of a function or kernel on a device.
pub(super) fn set_attribute(raw: CUfunction, device: i32, attrib: u32, value: c_int) -> Result {
    let (session, context) = enter()?;
    let function = function(session, raw)?;
    let key = (context.handle, context.lives.load(Ordering::Relaxed), device, attrib);
    let mut set = lock(&function.set);
    if set.get(&key) == Some(&value) {
        return Ok(());
    }
    set.remove(&key);
    let reply = call(op::cuFuncSetAttribute, |writer| {
        writer.put(function.handle);
        writer.put(attrib);
        writer.put(value);
        writer.put(device);
    })?;
    let told = read_attributes(&mut reply.reader())?;
    let ordinal = usize::try_from(device).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    for (ours, theirs) in function.attributes.get(ordinal).into_iter().flatten().zip(told) {
        ours.store(theirs, Ordering::Relaxed);
    }
    lock(&function.occupancy).clear();
    set.insert(key, value);
    Ok(())
}

pub(crate) unsafe fn cuFuncSetCacheConfig(hfunc: CUfunction, config: CUfunc_cache) -> Result {
    function(session()?, hfunc)?;
    // A preference that devices since Volta do not follow (CUDA driver API, cuFuncSetCacheConfig).
    if config > 3 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

pub(crate) unsafe fn cuFuncSetSharedMemConfig(hfunc: CUfunction, config: CUsharedconfig) -> Result {
    function(session()?, hfunc)?;
    if config > 2 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

pub(crate) unsafe fn cuFuncGetModule(hmod: *mut CUmodule, hfunc: CUfunction) -> Result {
    let session = session()?;
    let function = function(session, hfunc)?;
    // SAFETY: the entry point's contract.
    unsafe { put(hmod, CUmodule(super::library::module_of_function(session, &function)?)) }
}

pub(crate) unsafe fn cuFuncGetName(name: *mut *const c_char, hfunc: CUfunction) -> Result {
    let function = function(session()?, hfunc)?;
    // The text lives as long as the function, as natively.
    // SAFETY: the entry point's contract.
    unsafe { put(name, function.name.as_ptr()) }
}

pub(crate) unsafe fn cuFuncGetParamInfo(
    func: CUfunction,
    paramIndex: usize,
    paramOffset: *mut usize,
    paramSize: *mut usize,
) -> Result {
    let function = function(session()?, func)?;
    let (offset, size) = function.params.get(paramIndex).copied().ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { put(paramOffset, offset as usize)? };
    if paramSize.is_null() {
        return Ok(());
    }
    // SAFETY: the entry point's contract.
    unsafe { put(paramSize, size as usize) }
}

pub(crate) unsafe fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction) -> Result {
    self::function(session()?, function)?;
    // Asking for its layout has loaded it.
    // SAFETY: the entry point's contract.
    unsafe { put(state, 1) }
}

pub(crate) unsafe fn cuFuncLoad(function: CUfunction) -> Result {
    self::function(session()?, function).map(|_| ())
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Blocks.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub(super) shared: u32,
}

impl Shape {
    /// Refuses what a native launch refuses at once; the codes are measured on an H200, driver 580.
    pub(super) fn check(&self, session: &Session, function: &Function, ordinal: i32) -> Result {
        let device = super::device::device(session, ordinal)?;
        let limit = |attribute| u32::try_from(device.attribute(attribute)).unwrap_or(0);
        let grid = [limit(attr::MAX_GRID_DIM_X), limit(attr::MAX_GRID_DIM_Y), limit(attr::MAX_GRID_DIM_Z)];
        let block =
            [limit(attr::MAX_BLOCK_DIM_X), limit(attr::MAX_BLOCK_DIM_Y), limit(attr::MAX_BLOCK_DIM_Z)];
        let fits = |asked: &[u32; 3], most: &[u32; 3]| {
            asked.iter().zip(most).all(|(asked, most)| (1..=*most).contains(asked))
        };
        if !fits(&self.grid, &grid) || !fits(&self.block, &block) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let threads: u64 = self.block.iter().map(|extent| u64::from(*extent)).product();
        let most =
            function.attribute(ordinal, MAX_THREADS_PER_BLOCK).and_then(|most| u64::try_from(most).ok());
        if threads > most.unwrap_or_else(|| limit(attr::MAX_THREADS_PER_BLOCK).into()) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let fixed = function
            .attribute(ordinal, SHARED_SIZE_BYTES)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(0);
        let dynamic = function
            .attribute(ordinal, MAX_DYNAMIC_SHARED_SIZE_BYTES)
            .and_then(|bytes| u32::try_from(bytes).ok());
        let dynamic =
            dynamic.unwrap_or_else(|| limit(attr::MAX_SHARED_MEMORY_PER_BLOCK).saturating_sub(fixed));
        if self.shared > dynamic {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Ok(())
    }
}

/// Where a launch's parameters come from.
pub(super) enum Params {
    /// One pointer per parameter.
    Each(*mut *mut c_void),
    /// One buffer with all of them.
    Packed(*const u8, usize),
}

/// Sorts out `kernelParams` and `extra` (CUDA driver API, cuLaunchKernel).
///
/// # Safety
/// As cuLaunchKernel says of the two.
pub(super) unsafe fn params(
    function: &Function,
    kernel_params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Params> {
    if extra.is_null() {
        if kernel_params.is_null() && !function.params.is_empty() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        return Ok(Params::Each(kernel_params));
    }
    if !kernel_params.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut buffer: *const u8 = std::ptr::null();
    let mut size = 0;
    for pair in 0.. {
        // SAFETY: the array goes on until PARAM_END, by this function's contract; what follows it is not read.
        let name = unsafe { extra.add(2 * pair).read() }.addr();
        if name == PARAM_END {
            break;
        }
        // SAFETY: every name but the end is followed by a value.
        let value = unsafe { extra.add(2 * pair + 1).read() };
        match name {
            PARAM_BUFFER_POINTER => buffer = value.cast_const().cast(),
            // SAFETY: the value of this name points to a size.
            PARAM_BUFFER_SIZE if !value.is_null() => size = unsafe { value.cast::<usize>().read() },
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
    if size > MAX_PARAM_BYTES || (buffer.is_null() && size > 0) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(Params::Packed(buffer, size))
}

impl Params {
    /// Writes the parameters, each at the offset that the driver gives it.
    ///
    /// # Safety
    /// The pointers are those of a launch call that is still running.
    pub(super) unsafe fn write(&self, function: &Function, writer: &mut Writer<'_>) {
        match self {
            Self::Packed(buffer, size) => {
                writer.put(1_u32);
                let bytes: &[u8] = match *size {
                    0 => &[],
                    // SAFETY: the application gave that many bytes.
                    size => unsafe { std::slice::from_raw_parts(*buffer, size) },
                };
                writer.put_bytes(bytes);
            }
            Self::Each(pointers) => {
                writer.put(0_u32);
                writer.put(function.param_bytes as u64);
                let block = writer.reserve(function.param_bytes);
                for (index, (offset, size)) in function.params.iter().enumerate() {
                    let (offset, size) = (*offset as usize, *size as usize);
                    // SAFETY: one pointer per parameter, each to a value of the parameter's size (cuLaunchKernel).
                    let value: *const u8 = unsafe { pointers.add(index).read() }.cast_const().cast();
                    // SAFETY: as above; `param_bytes` is the end of the last parameter.
                    unsafe { std::ptr::copy_nonoverlapping(value, block[offset..].as_mut_ptr(), size) };
                }
            }
        }
    }
}

/// Sends a launch.
///
/// # Safety
/// As cuLaunchKernel says of its pointers.
unsafe fn launch(
    raw: CUfunction,
    shape: Shape,
    stream: CUstream,
    kernel_params: *mut *mut c_void,
    extra: *mut *mut c_void,
    attributes: &[CUlaunchAttribute],
) -> Result {
    let (session, context) = enter()?;
    let function = function(session, raw)?;
    let stream = stream_argument(session, stream.0)?;
    shape.check(session, &function, context.device)?;
    if !function.is_kernel && function.context != context.handle {
        return Err(CUresult::ERROR_INVALID_HANDLE);
    }
    // SAFETY: by this function's contract.
    let params = unsafe { params(&function, kernel_params, extra)? };
    let count = u32::try_from(attributes.len()).expect("bounded by MAX_ATTRIBUTES");
    let write = |writer: &mut Writer<'_>| {
        writer.put(function.handle);
        writer.put(stream);
        writer.put([shape.grid[0], shape.grid[1], shape.grid[2], shape.block[0]].map(u64::from).packed());
        writer.put([shape.block[1], shape.block[2], shape.shared, count].map(u64::from).packed());
        for attribute in attributes {
            writer.put(attribute.id);
            writer.put(attribute.value);
        }
        // SAFETY: the launch call is still running.
        unsafe { params.write(&function, writer) };
    };
    if exclusive::is_possible() && exclusive::concerns(session, &function, context.device) {
        return exclusive::submit(session, &context, stream, op::cuLaunchKernel, write);
    }
    session.post(op::cuLaunchKernel, write)
}

/// Sends a launch whose parameters lie in one buffer.
pub(super) fn launch_packed(raw: CUfunction, shape: Shape, stream: CUstream, params: &[u8]) -> Result {
    let mut size = params.len();
    let mut extra = [
        std::ptr::without_provenance_mut(PARAM_BUFFER_POINTER),
        params.as_ptr().cast_mut().cast(),
        std::ptr::without_provenance_mut(PARAM_BUFFER_SIZE),
        (&raw mut size).cast(),
        std::ptr::without_provenance_mut(PARAM_END),
    ];
    // SAFETY: the array is as cuLaunchKernel wants it; what it points to outlives the call.
    unsafe { launch(raw, shape, stream, std::ptr::null_mut(), extra.as_mut_ptr(), &[]) }
}

/// Four 32-bit numbers in two words.
trait Packed {
    fn packed(self) -> [u64; 2];
}

impl Packed for [u64; 4] {
    fn packed(self) -> [u64; 2] {
        [self[0] | self[1] << 32, self[2] | self[3] << 32]
    }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLaunchKernel(
    f: CUfunction,
    gridDimX: c_uint,
    gridDimY: c_uint,
    gridDimZ: c_uint,
    blockDimX: c_uint,
    blockDimY: c_uint,
    blockDimZ: c_uint,
    sharedMemBytes: c_uint,
    hStream: CUstream,
    kernelParams: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result {
    let shape = Shape {
        grid: [gridDimX, gridDimY, gridDimZ],
        block: [blockDimX, blockDimY, blockDimZ],
        shared: sharedMemBytes,
    };
    // SAFETY: the entry point's contract.
    unsafe { launch(f, shape, hStream, kernelParams, extra, &[]) }
}

/// The attributes of a launch, with handles inside them checked.
///
/// # Safety
/// As cuLaunchKernelEx says of the configuration.
unsafe fn attributes<'a>(session: &Session, config: &CUlaunchConfig) -> Result<&'a [CUlaunchAttribute]> {
    let count = config.num_attrs as usize;
    if count == 0 {
        return Ok(&[]);
    }
    if config.attrs.is_null() || count > MAX_ATTRIBUTES {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: that many entries, by this function's contract.
    let attributes = unsafe { std::slice::from_raw_parts(config.attrs, count) };
    for attribute in attributes {
        match attribute.id {
            launch_attribute::PROGRAMMATIC_EVENT | launch_attribute::LAUNCH_COMPLETION_EVENT => {
                let event = session.events.get(attribute.value[0]).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
                event.record();
            }
            launch_attribute::DEVICE_UPDATABLE_KERNEL_NODE => return Err(CUresult::ERROR_NOT_SUPPORTED),
            _ => {}
        }
    }
    Ok(attributes)
}

/// Refuses clusters that do not divide the grid or have more blocks than a function may have: 8, or 16 where the function
/// says that it may run on fewer devices (CUDA C++ programming guide, "Thread block clusters").
fn check_clusters(
    shape: &Shape,
    function: &Function,
    device: i32,
    attributes: &[CUlaunchAttribute],
) -> Result {
    for attribute in attributes.iter().filter(|held| held.id == launch_attribute::CLUSTER_DIMENSION) {
        let [x, y] = [attribute.value[0] & 0xffff_ffff, attribute.value[0] >> 32];
        let cluster = [x, y, attribute.value[1] & 0xffff_ffff];
        let most =
            if function.attribute(device, NON_PORTABLE_CLUSTER_SIZE_ALLOWED) == Some(1) { 16 } else { 8 };
        let blocks = cluster.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let divides =
            |(grid, cluster): (&u32, &u64)| *cluster != 0 && u64::from(*grid).is_multiple_of(*cluster);
        let is_one = blocks.is_some_and(|blocks| blocks <= 1);
        if !is_one
            && (blocks.is_none_or(|blocks| blocks > most) || !shape.grid.iter().zip(&cluster).all(divides))
        {
            return Err(CUresult::ERROR_INVALID_CLUSTER_SIZE);
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    f: CUfunction,
    kernelParams: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result {
    let (session, context) = enter()?;
    // SAFETY: null or a configuration, by the entry point's contract.
    let config = unsafe { config.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let shape = Shape {
        grid: [config.grid_dim_x, config.grid_dim_y, config.grid_dim_z],
        block: [config.block_dim_x, config.block_dim_y, config.block_dim_z],
        shared: config.shared_mem_bytes,
    };
    // SAFETY: the entry point's contract.
    unsafe {
        let attributes = attributes(session, config)?;
        check_clusters(&shape, &*function(session, f)?, context.device, attributes)?;
        launch(f, shape, config.stream, kernelParams, extra, attributes)
    }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuLaunchCooperativeKernel(
    f: CUfunction,
    gridDimX: c_uint,
    gridDimY: c_uint,
    gridDimZ: c_uint,
    blockDimX: c_uint,
    blockDimY: c_uint,
    blockDimZ: c_uint,
    sharedMemBytes: c_uint,
    hStream: CUstream,
    kernelParams: *mut *mut c_void,
) -> Result {
    let (session, context) = enter()?;
    let function = function(session, f)?;
    let shape = Shape {
        grid: [gridDimX, gridDimY, gridDimZ],
        block: [blockDimX, blockDimY, blockDimZ],
        shared: sharedMemBytes,
    };
    let device = super::device::device(session, context.device)?;
    shape.check(session, &function, context.device)?;
    // All blocks must be resident at once (CUDA driver API, cuLaunchCooperativeKernel).
    let threads = shape.block.iter().product::<u32>();
    let per_multiprocessor = super::occupancy::blocks(session, &function, threads, sharedMemBytes.into(), 0)?;
    let resident = i64::from(per_multiprocessor) * i64::from(device.attribute(attr::MULTIPROCESSOR_COUNT));
    let asked: i128 = shape.grid.iter().map(|extent| i128::from(*extent)).product();
    if asked > resident.into() {
        return Err(CUresult::ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    let cooperative =
        CUlaunchAttribute { id: launch_attribute::COOPERATIVE, pad: [0; 4], value: [1, 0, 0, 0, 0, 0, 0, 0] };
    // SAFETY: the entry point's contract.
    unsafe { launch(f, shape, hStream, kernelParams, std::ptr::null_mut(), &[cooperative]) }
}

pub(crate) unsafe fn cuLaunchHostFunc(
    hStream: CUstream,
    function: CUhostFn,
    userData: *mut c_void,
) -> Result {
    if function.is_none() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    super::stream::enqueue_callback(hStream, Callback::Host(function, userData.expose_provenance()))
}
