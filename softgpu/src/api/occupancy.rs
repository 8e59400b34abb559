//! Occupancy (CUDA driver API, section "Occupancy"). The numbers are those of an H200 for the same kernel, registers
//! aside (measured).

use super::{Answer, driver_fns, execution};
use crate::device::attribute::SHARED_PER_MULTIPROCESSOR;
use crate::device::context;
use crate::device::kernel::{self, Target};
use pxos_protocol::types::{CUfunction, CUlaunchConfig, CUoccupancyB2DSize, CUresult};
use std::ffi::{c_int, c_uint};

driver_fns! {
    /// How many blocks of a size fit on a multiprocessor.
    ready fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: CUfunction, block_size: c_int, shared: usize) {
        let (_, target) = target(function)?;
        blocks.required()?;
        blocks.put(resident(&target, block_size, shared)?)
    }

    /// How many blocks of a size fit on a multiprocessor.
    ready fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: CUfunction,
        block_size: c_int,
        shared: usize,
        flags: c_uint,
    ) {
        let (_, target) = target(function)?;
        blocks.required()?;
        check_flags(flags)?;
        blocks.put(resident(&target, block_size, shared)?)
    }

    /// The block size with the most threads on the device, and the grid that fills it.
    ready fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: CUfunction,
        sizes: CUoccupancyB2DSize,
        shared: usize,
        limit: c_int,
    ) {
        let (best, best_grid) = best(function, sizes, shared, limit)?;
        grid.put(best_grid)?;
        block.put(best)
    }

    /// The block size with the most threads on the device, and the grid that fills it.
    ready fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int,
        block: *mut c_int,
        function: CUfunction,
        sizes: CUoccupancyB2DSize,
        shared: usize,
        limit: c_int,
        flags: c_uint,
    ) {
        check_flags(flags)?;
        let (best, best_grid) = best(function, sizes, shared, limit)?;
        grid.put(best_grid)?;
        block.put(best)
    }

    /// How much dynamic shared memory each of some blocks on a multiprocessor may have.
    ready fn cuOccupancyAvailableDynamicSMemPerBlock(shared: *mut usize, function: CUfunction, blocks: c_int, block_size: c_int) {
        let (_, target) = target(function)?;
        shared.required()?;
        let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if u32::try_from(resident(&target, block_size, 0)?).unwrap_or(0) < blocks {
            shared.put(0)?;
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let share = SHARED_PER_MULTIPROCESSOR / blocks / 128 * 128;
        let room = share.saturating_sub(target.kernel().static_shared);
        shared.put(room.min(target.max_dynamic_shared()) as usize)
    }

    /// The largest cluster: one block, since this device has no clusters.
    ready fn cuOccupancyMaxPotentialClusterSize(size: *mut c_int, function: CUfunction, config: *const CUlaunchConfig) {
        target(function)?;
        execution::shape_of(&config.read()?)?;
        size.put(1)
    }

    /// How many clusters fit on the device.
    ready fn cuOccupancyMaxActiveClusters(count: *mut c_int, function: CUfunction, config: *const CUlaunchConfig) {
        let (multiprocessors, target) = target(function)?;
        let (shape, _) = execution::shape_of(&config.read()?)?;
        let threads = shape.block.iter().product();
        let blocks = c_int::try_from(target.resident_blocks(threads, shape.dynamic_shared)).unwrap_or(0);
        count.put(blocks * multiprocessors)
    }
}

/// `CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE` is the only flag.
fn check_flags(flags: c_uint) -> Answer {
    if flags > 1 { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

fn target(function: CUfunction) -> Answer<(c_int, Target)> {
    let active = context::current()?;
    Ok((active.device.multiprocessors, kernel::target(&active, function)?))
}

fn resident(target: &Target, block_size: c_int, shared: usize) -> Answer<c_int> {
    let threads = u32::try_from(block_size).ok().filter(|threads| *threads > 0);
    let threads = threads.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let shared = u32::try_from(shared).unwrap_or(u32::MAX);
    Ok(c_int::try_from(target.resident_blocks(threads, shared)).unwrap_or(0))
}

fn best(
    function: CUfunction,
    sizes: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
) -> Answer<(c_int, c_int)> {
    let (multiprocessors, target) = target(function)?;
    let most = c_int::try_from(target.max_threads()).unwrap_or(c_int::MAX);
    let most = if limit > 0 { most.min(limit) } else { most };
    let mut found = (0, 0, 0);
    // From the largest block down, so that of equals the largest wins (measured).
    let mut size = (most + 31) / 32 * 32;
    while size > 0 {
        let block = size.min(most);
        let dynamic = match sizes {
            // SAFETY: the application gave the function for exactly this call.
            Some(sizes) => unsafe { sizes(block) },
            None => shared,
        };
        let blocks = resident(&target, block, dynamic)?;
        if blocks * block > found.0 {
            found = (blocks * block, block, blocks);
        }
        size -= 32;
    }
    Ok((found.1, found.2 * multiprocessors))
}
