//! Functions and launches (CUDA driver API, section "Execution control").

use super::{Answer, DefaultStream, In, Out, driver_fns};
use crate::device::attribute::SHARED_PER_BLOCK_OPTIN;
use crate::device::context;
use crate::device::kernel::{self, FUNCTIONS, Function, Settings, Shape};
use crate::device::lab;
use crate::device::module::{Code, Module};
use crate::device::operation::{Launch, Operation};
use crate::exec::Kernel;
use pxos_protocol::types::{
    CUfunc_cache, CUfunction, CUfunction_attribute, CUfunctionLoadingState, CUlaunchAttribute,
    CUlaunchConfig, CUmodule, CUresult, CUsharedconfig, CUstream, launch_attribute,
};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;

driver_fns! {
    /// An attribute of a function.
    ready fn cuFuncGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction) {
        let active = context::current()?;
        value.required()?;
        let target = kernel::target_of(&active, &*live(function)?)?;
        value.put(self::attribute(&target.module.code, target.index, &target.settings, attribute)?)
    }

    /// Sets an attribute of a function.
    ready fn cuFuncSetAttribute(function: CUfunction, attribute: CUfunction_attribute, value: c_int) {
        context::current()?;
        let function = live(function)?;
        let module = loaded(&function)?;
        let change = change(&module.code.program.kernels()[function.index], attribute, value)?;
        function.set(&module, change);
        Ok(())
    }

    /// Sets a function's cache preference, which changes nothing here.
    ready fn cuFuncSetCacheConfig(function: CUfunction, config: CUfunc_cache) {
        context::current()?;
        live(function)?;
        if config > 3 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
    }

    /// Sets a function's bank width of shared memory, which changes nothing.
    ready fn cuFuncSetSharedMemConfig(function: CUfunction, config: CUsharedconfig) {
        context::current()?;
        live(function)?;
        if config > 2 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
    }

    /// A function's module.
    ready fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) {
        module.required()?;
        module.put(loaded(&*live(function)?)?.handle)
    }

    /// A function's name; the text lives as long as the module.
    ready fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) {
        name.required()?;
        let function = live(function)?;
        name.put(loaded(&function)?.code.names[function.index].as_ptr())
    }

    /// Offset and size of a function's parameter.
    ready fn cuFuncGetParamInfo(function: CUfunction, index: usize, offset: *mut usize, size: *mut usize) {
        let function = live(function)?;
        let module = loaded(&function)?;
        give_parameter(&module.code.program.kernels()[function.index], index, offset, size)
    }

    /// Whether a function's code is on the device: always.
    ready fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction) {
        live(function)?;
        state.put(1)
    }

    /// Puts a function's code on the device, where it is.
    ready fn cuFuncLoad(function: CUfunction) {
        live(function).map(drop)
    }

    /// Launches a kernel.
    ready fn cuLaunchKernel / cuLaunchKernel_ptsz(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) |default| {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared: shared,
            cooperative: false,
        };
        launch(function, shape, stream, default, Given { parameters, extra })
    }

    /// Launches a kernel with attributes.
    ready fn cuLaunchKernelEx / cuLaunchKernelEx_ptsz(
        config: *const CUlaunchConfig,
        function: CUfunction,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) |default| {
        let config = config.read()?;
        let (shape, event) = shape_of(&config)?;
        launch(function, shape, config.stream, default, Given { parameters, extra })?;
        match event {
            // Completion of a launch is the nearest to the points that these attributes mean.
            Some(event) => super::event::record_after_launch(event, config.stream, default),
            None => Ok(()),
        }
    }

    /// Launches a kernel whose blocks all run at a time.
    ready fn cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
    ) |default| {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared: shared,
            cooperative: true,
        };
        let extra = Out::from_api(std::ptr::null_mut());
        launch(function, shape, stream, default, Given { parameters, extra })
    }
}

const MAX_THREADS_PER_BLOCK: CUfunction_attribute = 0;
const SHARED_SIZE_BYTES: CUfunction_attribute = 1;
const CONST_SIZE_BYTES: CUfunction_attribute = 2;
const LOCAL_SIZE_BYTES: CUfunction_attribute = 3;
const NUM_REGS: CUfunction_attribute = 4;
const PTX_VERSION: CUfunction_attribute = 5;
const BINARY_VERSION: CUfunction_attribute = 6;
const CACHE_MODE_CA: CUfunction_attribute = 7;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: CUfunction_attribute = 8;
const PREFERRED_SHARED_MEMORY_CARVEOUT: CUfunction_attribute = 9;
const CLUSTER_SIZE_MUST_BE_SET: CUfunction_attribute = 10;
const REQUIRED_CLUSTER_WIDTH: CUfunction_attribute = 11;
const REQUIRED_CLUSTER_DEPTH: CUfunction_attribute = 13;
const NON_PORTABLE_CLUSTER_SIZE_ALLOWED: CUfunction_attribute = 14;
const CLUSTER_SCHEDULING_POLICY_PREFERENCE: CUfunction_attribute = 15;

fn live(function: CUfunction) -> Answer<Arc<Function>> {
    FUNCTIONS.get(function)
}

fn loaded(function: &Function) -> Answer<Arc<Module>> {
    function.module.upgrade().ok_or(CUresult::ERROR_INVALID_HANDLE)
}

/// The value of an attribute of a kernel.
pub(crate) fn attribute(
    code: &Code,
    index: usize,
    settings: &Settings,
    attribute: CUfunction_attribute,
) -> Answer<c_int> {
    let kernel = &code.program.kernels()[index];
    let small = |number: u64| c_int::try_from(number).unwrap_or(c_int::MAX);
    Ok(match attribute {
        MAX_THREADS_PER_BLOCK => small(kernel::max_threads(kernel).into()),
        SHARED_SIZE_BYTES => small(kernel.static_shared.into()),
        CONST_SIZE_BYTES => small(code.constant_bytes()),
        LOCAL_SIZE_BYTES => small(kernel.local_bytes.into()),
        NUM_REGS => small(kernel.registers.into()),
        PTX_VERSION => code.ptx_version,
        BINARY_VERSION => 90,
        CACHE_MODE_CA | CLUSTER_SIZE_MUST_BE_SET => 0,
        MAX_DYNAMIC_SHARED_SIZE_BYTES => small(kernel::max_dynamic_shared(kernel, settings).into()),
        PREFERRED_SHARED_MEMORY_CARVEOUT => settings.carveout,
        REQUIRED_CLUSTER_WIDTH..=REQUIRED_CLUSTER_DEPTH => {
            settings.cluster[(attribute - REQUIRED_CLUSTER_WIDTH) as usize]
        }
        NON_PORTABLE_CLUSTER_SIZE_ALLOWED => settings.non_portable_cluster,
        CLUSTER_SCHEDULING_POLICY_PREFERENCE => settings.cluster_policy,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    })
}

/// How setting an attribute changes the settings.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for an attribute that cannot be set and a value that it cannot have (measured).
pub(crate) fn change(
    kernel: &Kernel,
    attribute: CUfunction_attribute,
    value: c_int,
) -> Answer<impl FnOnce(&mut Settings) + use<>> {
    let room = SHARED_PER_BLOCK_OPTIN.saturating_sub(kernel.static_shared);
    let valid = match attribute {
        MAX_DYNAMIC_SHARED_SIZE_BYTES => u32::try_from(value).is_ok_and(|bytes| bytes <= room),
        PREFERRED_SHARED_MEMORY_CARVEOUT => (-1..=100).contains(&value),
        REQUIRED_CLUSTER_WIDTH..=REQUIRED_CLUSTER_DEPTH => value >= 0,
        NON_PORTABLE_CLUSTER_SIZE_ALLOWED => matches!(value, 0 | 1),
        CLUSTER_SCHEDULING_POLICY_PREFERENCE => (0..=2).contains(&value),
        _ => false,
    };
    if !valid {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(move |settings: &mut Settings| match attribute {
        MAX_DYNAMIC_SHARED_SIZE_BYTES => settings.dynamic_shared = Some(value.unsigned_abs()),
        PREFERRED_SHARED_MEMORY_CARVEOUT => settings.carveout = value,
        NON_PORTABLE_CLUSTER_SIZE_ALLOWED => settings.non_portable_cluster = value,
        CLUSTER_SCHEDULING_POLICY_PREFERENCE => settings.cluster_policy = value,
        _ => settings.cluster[(attribute - REQUIRED_CLUSTER_WIDTH) as usize] = value,
    })
}

/// Writes where a parameter is in the parameter buffer.
pub(crate) fn give_parameter(kernel: &Kernel, index: usize, offset: Out<usize>, size: Out<usize>) -> Answer {
    let parameter = kernel.params.get(index).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    offset.put(parameter.offset as usize)?;
    size.put_if_wanted(parameter.size as usize);
    Ok(())
}

/// The two ways to give parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    /// One pointer per parameter.
    pub(crate) parameters: Out<*mut c_void>,
    /// Or a buffer of all.
    pub(crate) extra: Out<*mut c_void>,
}

impl Given {
    /// Copies the parameters into one buffer.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for none where some are needed and for both ways at a time,
    /// `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES` for a buffer longer than the parameters (all measured).
    pub(crate) fn collect(self, kernel: &Kernel) -> Answer<Vec<u8>> {
        let mut buffer = vec![0u8; kernel.param_bytes as usize];
        if !self.extra.is_null() {
            if !self.parameters.is_null() {
                return Err(CUresult::ERROR_INVALID_VALUE);
            }
            self.read_extra(&mut buffer)?;
            return Ok(buffer);
        }
        if kernel.params.is_empty() {
            return Ok(buffer);
        }
        for (index, parameter) in kernel.params.iter().enumerate() {
            let from = In::<u8>::from_api(self.parameters.read_at(index)?.cast());
            let start = parameter.offset as usize;
            let place =
                buffer.get_mut(start..start + parameter.size as usize).ok_or(CUresult::ERROR_UNKNOWN)?;
            copy_out(from, place)?;
        }
        Ok(buffer)
    }

    fn read_extra(self, buffer: &mut [u8]) -> Answer {
        /// `CU_LAUNCH_PARAM_BUFFER_POINTER`.
        const POINTER: usize = 1;
        /// `CU_LAUNCH_PARAM_BUFFER_SIZE`.
        const SIZE: usize = 2;
        let mut from = In::<u8>::from_api(std::ptr::null());
        let mut size = None;
        for index in (0..).step_by(2) {
            let value = |index| self.extra.read_at(index);
            match value(index)?.addr() {
                0 => break,
                POINTER => from = In::from_api(value(index + 1)?.cast()),
                SIZE => size = Some(In::<usize>::from_api(value(index + 1)?.cast()).read()?),
                _ => return Err(CUresult::ERROR_INVALID_VALUE),
            }
        }
        let size = size.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let place = buffer.get_mut(..size).ok_or(CUresult::ERROR_LAUNCH_OUT_OF_RESOURCES)?;
        if size > 0 { copy_out(from, place) } else { Ok(()) }
    }
}

/// Copies bytes that the caller of the API gave.
fn copy_out(from: In<u8>, to: &mut [u8]) -> Answer {
    if from.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, hence valid for the parameter's bytes by the contract of the launch functions.
    unsafe { std::ptr::copy_nonoverlapping(from.raw(), to.as_mut_ptr(), to.len()) };
    Ok(())
}

/// What a configuration asks for, and the event that it wants recorded.
pub(crate) fn shape_of(config: &CUlaunchConfig) -> Answer<(Shape, Option<pxos_protocol::types::CUevent>)> {
    let mut shape = Shape {
        grid: [config.grid_dim_x, config.grid_dim_y, config.grid_dim_z],
        block: [config.block_dim_x, config.block_dim_y, config.block_dim_z],
        dynamic_shared: config.shared_mem_bytes,
        cooperative: false,
    };
    let mut event = None;
    let attributes = In::<CUlaunchAttribute>::from_api(config.attrs);
    for index in 0..config.num_attrs as usize {
        let attribute = attributes.read_at(index)?;
        match attribute.id {
            launch_attribute::COOPERATIVE => shape.cooperative = low_half(attribute.value[0]) != 0,
            launch_attribute::CLUSTER_DIMENSION => {
                let first = attribute.value[0];
                check_cluster(&shape, [low_half(first), high_half(first), low_half(attribute.value[1])])?;
            }
            launch_attribute::PROGRAMMATIC_EVENT | launch_attribute::LAUNCH_COMPLETION_EVENT => {
                event =
                    Some(pxos_protocol::types::CUevent(attribute.value[0])).filter(|event| !event.is_null());
            }
            launch_attribute::DEVICE_UPDATABLE_KERNEL_NODE if attribute.value[0] != 0 => {
                return Err(CUresult::ERROR_NOT_SUPPORTED);
            }
            // Hints about caches, priorities and overlap.
            0..=LAST_ATTRIBUTE => {}
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        }
    }
    Ok((shape, event))
}

/// The last launch attribute of CUDA 13.0.
const LAST_ATTRIBUTE: u32 = 17;

#[expect(clippy::cast_possible_truncation, reason = "takes the half that the layout has there")]
fn low_half(word: u64) -> u32 {
    word as u32
}

fn high_half(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Clusters of one block are any kernel; larger ones must divide the grid and have at most 8 blocks (measured), and
/// are then beyond this device.
fn check_cluster(shape: &Shape, cluster: [u32; 3]) -> Answer {
    let blocks: u64 = cluster.iter().map(|size| u64::from(*size)).product();
    if blocks <= 1 {
        return Ok(());
    }
    let divides =
        shape.grid.iter().zip(cluster).all(|(grid, cluster)| cluster != 0 && grid.is_multiple_of(cluster));
    if !divides || blocks > 8 {
        return Err(CUresult::ERROR_INVALID_CLUSTER_SIZE);
    }
    super::error::report("thread block clusters are not supported");
    Err(CUresult::ERROR_NOT_SUPPORTED)
}

/// Checks a launch and appends it to its stream.
pub(crate) fn launch(
    function: CUfunction,
    shape: Shape,
    stream: CUstream,
    default: DefaultStream,
    given: Given,
) -> Answer {
    let active = context::current()?;
    let target = kernel::target(&active, function)?;
    let stream = active.stream(stream, default)?;
    target.check(&shape, active.device.multiprocessors)?;
    let parameters = given.collect(target.kernel())?;
    target.module.load(target.index, &active);
    lab::launch();
    active.enqueue(&stream, Operation::Kernel(Launch { target, shape, parameters }))
}
