//! The launch interface of CUDA 3 (CUDA driver API, section "Execution Control \[DEPRECATED\]"): a function keeps its block shape
//! and its parameters from call to call.

use super::execution::{Given, launch};
use super::{Answer, DefaultStream, In, Out, driver_fns};
use crate::device::context;
use crate::device::kernel::{FUNCTIONS, Shape};
use pxos_protocol::types::{CUfunction, CUresult, CUstream};
use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex, PoisonError};

driver_fns! {
    /// Sets the block shape of a function's launches.
    ready fn cuFuncSetBlockShape(function: CUfunction, x: c_int, y: c_int, z: c_int) {
        let block = [extent(x)?, extent(y)?, extent(z)?];
        change(function, |kept| {
            kept.block = block;
            Ok(())
        })
    }

    /// Sets their dynamic shared memory.
    ready fn cuFuncSetSharedSize(function: CUfunction, bytes: c_uint) {
        change(function, |kept| {
            kept.shared = bytes;
            Ok(())
        })
    }

    /// Sets how many bytes their parameters take.
    ready fn cuParamSetSize(function: CUfunction, bytes: c_uint) {
        change(function, |kept| {
            if bytes as usize > MOST {
                return Err(CUresult::ERROR_INVALID_VALUE);
            }
            kept.parameters.resize(bytes as usize, 0);
            Ok(())
        })
    }

    /// Sets a parameter of four bytes.
    ready fn cuParamSeti(function: CUfunction, offset: c_int, value: c_uint) {
        set(function, offset, &value.to_ne_bytes())
    }

    /// Sets a parameter of type `float`.
    ready fn cuParamSetf(function: CUfunction, offset: c_int, value: f32) {
        set(function, offset, &value.to_ne_bytes())
    }

    /// Sets a parameter of any size.
    ready fn cuParamSetv(function: CUfunction, offset: c_int, pointer: *mut c_void, bytes: c_uint) {
        let first = In::<u8>::from_api(pointer.required()?.raw().cast_const().cast());
        if bytes as usize > MOST {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let value = (0..bytes as usize).map(|index| first.read_at(index)).collect::<Answer<Vec<u8>>>()?;
        set(function, offset, &value)
    }

    /// Launches one block.
    ready fn cuLaunch(function: CUfunction) {
        start(function, [1, 1], CUstream::NULL)
    }

    /// Launches a grid.
    ready fn cuLaunchGrid(function: CUfunction, width: c_int, height: c_int) {
        start(function, [width, height], CUstream::NULL)
    }

    /// Launches a grid in a stream.
    ready fn cuLaunchGridAsync(function: CUfunction, width: c_int, height: c_int, stream: CUstream) {
        start(function, [width, height], stream)
    }
}

/// Most bytes of parameters (CUDA C++ Programming Guide, "Function parameters").
const MOST: usize = 32_764;

/// What a function keeps.
#[derive(Debug, Default)]
struct Kept {
    block: [u32; 3],
    shared: u32,
    parameters: Vec<u8>,
}

static KEPT: LazyLock<Mutex<HashMap<CUfunction, Kept>>> = LazyLock::new(Mutex::default);

fn extent(value: c_int) -> Answer<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0).ok_or(CUresult::ERROR_INVALID_VALUE)
}

fn change(function: CUfunction, change: impl FnOnce(&mut Kept) -> Answer) -> Answer {
    context::current()?;
    FUNCTIONS.get(function)?;
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    change(all.entry(function).or_default())
}

fn set(function: CUfunction, offset: c_int, bytes: &[u8]) -> Answer {
    change(function, |kept| {
        let start = usize::try_from(offset).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let end =
            start.checked_add(bytes.len()).filter(|end| *end <= MOST).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if kept.parameters.len() < end {
            kept.parameters.resize(end, 0);
        }
        kept.parameters[start..end].copy_from_slice(bytes);
        Ok(())
    })
}

fn start(function: CUfunction, grid: [c_int; 2], stream: CUstream) -> Answer {
    let grid = [extent(grid[0])?, extent(grid[1])?, 1];
    let all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = all.get(&function).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let mut size = kept.parameters.len();
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
    let mut extra: [*mut c_void; 5] = [
        std::ptr::without_provenance_mut(1),
        kept.parameters.as_ptr().cast_mut().cast(),
        std::ptr::without_provenance_mut(2),
        (&raw mut size).cast(),
        std::ptr::null_mut(),
    ];
    let shape = Shape { grid, block: kept.block, dynamic_shared: kept.shared, cooperative: false };
    let given =
        Given { parameters: Out::from_api(std::ptr::null_mut()), extra: Out::from_api(extra.as_mut_ptr()) };
    launch(function, shape, stream, DefaultStream::Legacy, given)
}
