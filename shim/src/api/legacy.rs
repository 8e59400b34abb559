//! The launch interface of CUDA 3: shape and parameters are set one by one on the function, which keeps them for its launches.
//! All of it is the guest's own state; a launch sends it as any other.

use super::execution::{MAX_PARAM_BYTES, Shape, function, launch_packed};
use super::{Result, enter};
use crate::lock;
use crate::session::session;
use pxos_protocol::types::{CUfunction, CUresult, CUstream, CUtexref};
use std::ffi::{c_int, c_uint, c_void};

/// `CU_PARAM_TR_DEFAULT`.
const PARAM_TR_DEFAULT: c_int = -1;

/// What a function keeps.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    block: [u32; 3],
    shared: u32,
    params: Vec<u8>,
}

/// Changes what a function keeps.
fn change(raw: CUfunction, change: impl FnOnce(&mut Legacy) -> Result) -> Result {
    let function = function(session()?, raw)?;
    let mut legacy = lock(&function.legacy);
    change(&mut legacy)
}

pub(crate) unsafe fn cuFuncSetBlockShape(hfunc: CUfunction, x: c_int, y: c_int, z: c_int) -> Result {
    let extent = |value: c_int| u32::try_from(value).ok().filter(|value| *value > 0);
    let (Some(x), Some(y), Some(z)) = (extent(x), extent(y), extent(z)) else {
        return Err(CUresult::ERROR_INVALID_VALUE);
    };
    change(hfunc, |legacy| {
        legacy.block = [x, y, z];
        Ok(())
    })
}

pub(crate) unsafe fn cuFuncSetSharedSize(hfunc: CUfunction, bytes: c_uint) -> Result {
    change(hfunc, |legacy| {
        legacy.shared = bytes;
        Ok(())
    })
}

pub(crate) unsafe fn cuParamSetSize(hfunc: CUfunction, numbytes: c_uint) -> Result {
    change(hfunc, |legacy| {
        let bytes = numbytes as usize;
        if bytes > MAX_PARAM_BYTES {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        legacy.params.resize(bytes, 0);
        Ok(())
    })
}

/// Puts bytes at an offset of the parameters, which grow to hold them: cuParamSetSize may come later.
fn set(raw: CUfunction, offset: c_int, bytes: &[u8]) -> Result {
    change(raw, |legacy| {
        let start = usize::try_from(offset).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= MAX_PARAM_BYTES);
        let end = end.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if legacy.params.len() < end {
            legacy.params.resize(end, 0);
        }
        legacy.params[start..end].copy_from_slice(bytes);
        Ok(())
    })
}

pub(crate) unsafe fn cuParamSeti(hfunc: CUfunction, offset: c_int, value: c_uint) -> Result {
    set(hfunc, offset, &value.to_ne_bytes())
}

pub(crate) unsafe fn cuParamSetf(hfunc: CUfunction, offset: c_int, value: f32) -> Result {
    set(hfunc, offset, &value.to_ne_bytes())
}

pub(crate) unsafe fn cuParamSetv(
    hfunc: CUfunction,
    offset: c_int,
    ptr: *mut c_void,
    numbytes: c_uint,
) -> Result {
    if ptr.is_null() || numbytes as usize > MAX_PARAM_BYTES {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and `numbytes` readable bytes by the entry point's contract.
    let bytes = unsafe { std::slice::from_raw_parts(ptr.cast_const().cast::<u8>(), numbytes as usize) };
    set(hfunc, offset, bytes)
}

/// Names a texture reference that a launch reads. Every reference of a function's module is there anyway, so that there is
/// nothing to keep; only the default unit exists (CUDA driver API, cuParamSetTexRef).
pub(crate) unsafe fn cuParamSetTexRef(hfunc: CUfunction, texunit: c_int, hTexRef: CUtexref) -> Result {
    if texunit != PARAM_TR_DEFAULT || hTexRef.0 == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    change(hfunc, |_| Ok(()))
}

/// Launches with what the function keeps.
fn launch(raw: CUfunction, grid: [c_int; 2], stream: CUstream) -> Result {
    let (session, _) = enter()?;
    let function = function(session, raw)?;
    let extent = |value: c_int| u32::try_from(value).map_err(|_| CUresult::ERROR_INVALID_VALUE);
    let legacy = lock(&function.legacy);
    let shape =
        Shape { grid: [extent(grid[0])?, extent(grid[1])?, 1], block: legacy.block, shared: legacy.shared };
    if legacy.params.len() < function.param_bytes {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    launch_packed(raw, shape, stream, &legacy.params[..function.param_bytes])
}

pub(crate) unsafe fn cuLaunch(f: CUfunction) -> Result {
    launch(f, [1, 1], CUstream::NULL)
}

pub(crate) unsafe fn cuLaunchGrid(f: CUfunction, grid_width: c_int, grid_height: c_int) -> Result {
    launch(f, [grid_width, grid_height], CUstream::NULL)
}

pub(crate) unsafe fn cuLaunchGridAsync(
    f: CUfunction,
    grid_width: c_int,
    grid_height: c_int,
    hStream: CUstream,
) -> Result {
    launch(f, [grid_width, grid_height], hStream)
}
