//! Launches, attributes of functions, occupancy.

use super::super::dispatch::{Answer, Call, Failed, done};
use super::super::estimate::Key;
use super::super::flight::Place;
use super::super::session::Session;
use super::super::state::State;
use super::module::write_attributes;
use crate::stats::bump;
use pxos_protocol::types::{CUlaunchAttribute, CUlaunchConfig, CUresult, CUstream, launch_attribute};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

/// Most attributes of one launch.
const MAX_ATTRIBUTES: u64 = 64;

/// Behind the last attribute of CUDA 13.0, `CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING`.
const LATER_ATTRIBUTES: u32 = 17;

/// Reads launch attributes, with the events inside them turned into the driver's.
fn attributes(call: &mut Call<'_>, count: u64) -> Result<Vec<CUlaunchAttribute>, Failed> {
    if count > MAX_ATTRIBUTES {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let mut attributes = Vec::new();
    for _ in 0..count {
        let id = call.get()?;
        let value = call.get()?;
        let value = attribute_value(call.state, id, value)?;
        attributes.push(CUlaunchAttribute { id, pad: [0; 4], value });
    }
    Ok(attributes)
}

/// The value of an attribute, with an event inside it turned into the driver's.
pub(super) fn attribute_value(state: &State, id: u32, mut value: [u64; 8]) -> Result<[u64; 8], CUresult> {
    match id {
        launch_attribute::PROGRAMMATIC_EVENT | launch_attribute::LAUNCH_COMPLETION_EVENT => {
            value[0] = state.events.get(value[0])?.native;
        }
        // Its value is a handle that the driver writes to. What a later driver's attributes hold is not known here.
        launch_attribute::DEVICE_UPDATABLE_KERNEL_NODE | LATER_ATTRIBUTES.. => {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        _ => {}
    }
    Ok(value)
}

/// A block that is shorter than the function's parameters, with zeros behind it: whether the driver looks at the length that it is
/// told is its own affair, and what lies behind a frame is not the guest's to see.
pub(super) fn filled_up(block: &[u8], param_bytes: usize) -> Vec<u8> {
    let mut whole = block.to_vec();
    whole.resize(param_bytes.max(block.len()), 0);
    whole
}

/// Two 32-bit numbers of one word.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// `cuLaunchKernel` and its relatives: function, stream, shape, attributes, parameters.
pub(in super::super) fn kernel(call: &mut Call<'_>) -> Answer {
    let raw = call.get()?;
    let stream = call.get_stream()?;
    let first: [u64; 2] = call.get()?;
    let second: [u64; 2] = call.get()?;
    let ((grid_x, grid_y), (grid_z, block_x)) = (halves(first[0]), halves(first[1]));
    let ((block_y, block_z), (shared, attribute_count)) = (halves(second[0]), halves(second[1]));
    let attributes =
        if attribute_count == 0 { Vec::new() } else { attributes(call, attribute_count.into())? };
    let packed = call.get::<u32>()? != 0;
    let block = call.fields.get_bytes()?;
    let place = call.place(stream);
    let session = call.session;
    let state = &mut *call.state;
    let function = state.kernels.get(raw).or_else(|_| state.functions.get(raw))?;
    let mut size = block.len();
    let filled;
    let block = if packed && size < function.param_bytes {
        filled = filled_up(block, function.param_bytes);
        &filled[..]
    } else {
        block
    };
    let mut extra: [*mut c_void; 5] = [
        std::ptr::without_provenance_mut(1),
        block.as_ptr().cast_mut().cast(),
        std::ptr::without_provenance_mut(2),
        (&raw mut size).cast(),
        std::ptr::null_mut(),
    ];
    let (params, extra) = if packed {
        (std::ptr::null_mut(), extra.as_mut_ptr())
    } else {
        // The driver reads each parameter's size from each pointer: the block must hold them all.
        if block.len() < function.param_bytes {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        state.pointers.clear();
        state.pointers.extend(function.offsets.iter().map(|offset| {
            let parameter: *const u8 = block[*offset as usize..].as_ptr();
            parameter.cast_mut().cast::<c_void>()
        }));
        (state.pointers.as_mut_ptr(), std::ptr::null_mut())
    };
    let work = Work {
        function: function.native,
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared,
        stream,
        attributes: &attributes,
        marked: false,
    };
    // SAFETY: handles of this session's; parameter pointers into the frame, of the sizes that the driver itself told.
    unsafe { submit(session, place, &work, params, extra)? };
    done()
}

/// What is launched, in the driver's handles.
pub(super) struct Work<'a> {
    /// The function or kernel.
    pub(super) function: u64,
    /// Blocks.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) block: [u32; 3],
    /// Dynamic shared memory, in bytes.
    pub(super) shared: u32,
    /// The stream.
    pub(super) stream: u64,
    /// Attributes.
    pub(super) attributes: &'a [CUlaunchAttribute],
    /// Whether the guest says that it is urgent.
    pub(super) marked: bool,
}

/// Launches one kernel, when the scheduler lets it: the way that every kernel of a guest takes, whether a CUDA call or a
/// primitive brought it.
///
/// # Safety
/// Function, stream and attributes are this session's. Parameters are what `cuLaunchKernel` takes for the function.
pub(super) unsafe fn submit(
    session: &Arc<Session>,
    place: Place,
    work: &Work<'_>,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<(), Failed> {
    let &Work { function, grid: [x, y, z], block: [u, v, w], shared, stream, attributes, marked } = work;
    let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let shape =
        || Key::launch(function, word(x, y), word(z, u), word(v, w) ^ u64::from(shared).rotate_left(40));
    let driver = &session.driver;
    bump(&session.stats.launches, 1);
    session.gate.command_of(session, place, marked, shape, || {
        if attributes.is_empty() {
            // SAFETY: by this function's contract.
            return unsafe {
                driver.cuLaunchKernel(function, x, y, z, u, v, w, shared, stream, params, extra)
            };
        }
        let config = config(work.grid, work.block, shared, stream, attributes);
        // SAFETY: by this function's contract; a pointer to a local.
        unsafe { driver.cuLaunchKernelEx(&raw const config, function, params, extra) }
    })
}

fn config(
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: u64,
    attributes: &[CUlaunchAttribute],
) -> CUlaunchConfig {
    CUlaunchConfig {
        grid_dim_x: grid[0],
        grid_dim_y: grid[1],
        grid_dim_z: grid[2],
        block_dim_x: block[0],
        block_dim_y: block[1],
        block_dim_z: block[2],
        shared_mem_bytes: shared,
        stream: CUstream(stream),
        attrs: attributes.as_ptr().cast_mut(),
        num_attrs: u32::try_from(attributes.len()).expect("bounded by MAX_ATTRIBUTES"),
    }
}

/// `cuFuncSetAttribute` and `cuKernelSetAttribute`: function, attribute, value, device; the answer is all attributes. The device
/// of a function that is no kernel is that of its module.
pub(in super::super) fn set_attribute(call: &mut Call<'_>) -> Answer {
    let (raw, attribute, value): (u64, u32, c_int) = (call.get()?, call.get()?, call.get()?);
    let device = call.get()?;
    let function = call.state.function(raw)?;
    let (native, is_kernel) = (function.native, function.is_kernel);
    // SAFETY: a function of this session's; the driver checks the device.
    unsafe {
        if is_kernel {
            call.driver().cuKernelSetAttribute(attribute, value, native, device)?;
        } else {
            call.driver().cuFuncSetAttribute(native, attribute, value)?;
        }
    }
    write_attributes(call, native, is_kernel.then_some(device));
    done()
}

/// Occupancy: function, threads, dynamic shared memory, flags.
pub(in super::super) fn occupancy(call: &mut Call<'_>) -> Answer {
    let raw = call.get()?;
    let threads: c_int = call.get()?;
    let shared = call.get_usize()?;
    let flags = call.get()?;
    let native = call.state.function(raw)?.native;
    let mut blocks: c_int = 0;
    // SAFETY: a function of this session's; a pointer to a local.
    unsafe {
        call.driver().cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            &raw mut blocks,
            native,
            threads,
            shared,
            flags,
        )?;
    }
    call.reply().put(blocks);
    done()
}

/// `cuOccupancyAvailableDynamicSMemPerBlock`: function, blocks, threads.
pub(in super::super) fn available_shared(call: &mut Call<'_>) -> Answer {
    let (raw, blocks, threads): (u64, c_int, c_int) = (call.get()?, call.get()?, call.get()?);
    let native = call.state.function(raw)?.native;
    let mut bytes = 0;
    // SAFETY: a function of this session's; a pointer to a local.
    unsafe {
        call.driver().cuOccupancyAvailableDynamicSMemPerBlock(&raw mut bytes, native, blocks, threads)?;
    };
    call.reply().put(bytes as u64);
    done()
}

/// Questions about clusters: function, grid, block, shared memory, attributes.
pub(in super::super) fn clusters(call: &mut Call<'_>) -> Answer {
    let raw = call.get()?;
    let (grid, block, shared): ([u32; 3], [u32; 3], u32) = (call.get()?, call.get()?, call.get()?);
    let attribute_count = call.get()?;
    let attributes = attributes(call, attribute_count)?;
    let native = call.state.function(raw)?.native;
    let config = config(grid, block, shared, 0, &attributes);
    let mut answer: c_int = 0;
    let driver = call.driver();
    // SAFETY: a function of this session's; pointers to locals.
    unsafe {
        if call.header.op == pxos_protocol::api::op::cuOccupancyMaxActiveClusters {
            driver.cuOccupancyMaxActiveClusters(&raw mut answer, native, &raw const config)?;
        } else {
            driver.cuOccupancyMaxPotentialClusterSize(&raw mut answer, native, &raw const config)?;
        }
    }
    call.reply().put(answer);
    done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::Limits;

    #[test]
    fn an_attribute_with_something_unknown_in_it_stays_here() {
        let state = State::new(0, None, &Limits::default());
        let value = [7; 8];
        for id in [0, launch_attribute::COOPERATIVE, launch_attribute::PRIORITY, 16] {
            assert_eq!(attribute_value(&state, id, value), Ok(value), "{id}");
        }
        for id in [launch_attribute::DEVICE_UPDATABLE_KERNEL_NODE, 17, 99, u32::MAX] {
            assert_eq!(attribute_value(&state, id, value), Err(CUresult::ERROR_NOT_SUPPORTED), "{id}");
        }
        assert!(
            attribute_value(&state, launch_attribute::PROGRAMMATIC_EVENT, value).is_err(),
            "no such event"
        );
    }

    #[test]
    fn a_short_block_is_filled_up() {
        assert_eq!(filled_up(&[1, 2], 4), [1, 2, 0, 0]);
        assert_eq!(filled_up(&[1, 2, 3], 2), [1, 2, 3]);
    }
}
