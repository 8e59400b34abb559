//! Occupancy: asked of the driver once per function and shape, then answered from memory (a training step asks 21 times).

use super::execution::function;
use super::{Result, enter, put};
use crate::call::{call, garbled};
use crate::lock;
use crate::objects::Function;
use crate::session::Session;
use pxos_protocol::api::op;
use pxos_protocol::types::attribute as attr;
use pxos_protocol::types::{CUfunction, CUlaunchConfig, CUoccupancyB2DSize, CUresult};
use std::ffi::{c_int, c_uint};

/// Blocks that are resident on one multiprocessor.
pub(super) fn blocks(
    session: &Session,
    function: &Function,
    threads: u32,
    shared: u64,
    flags: u32,
) -> Result<i32> {
    let threads = i32::try_from(threads).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    if threads <= 0 || flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let key = (threads, shared, flags);
    let mut known = lock(&function.occupancy);
    if let Some(blocks) = known.get(&key) {
        return Ok(*blocks);
    }
    let reply = session.call(op::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, |writer| {
        writer.put(function.handle);
        writer.put(threads);
        writer.put(shared);
        writer.put(flags);
    })?;
    let blocks = reply.reader().get().map_err(garbled)?;
    known.insert(key, blocks);
    Ok(blocks)
}

pub(crate) unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    numBlocks: *mut c_int,
    func: CUfunction,
    blockSize: c_int,
    dynamicSMemSize: usize,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe {
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, 0)
    }
}

pub(crate) unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    numBlocks: *mut c_int,
    func: CUfunction,
    blockSize: c_int,
    dynamicSMemSize: usize,
    flags: c_uint,
) -> Result {
    let (session, _) = enter()?;
    let function = function(session, func)?;
    let threads = u32::try_from(blockSize).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: the entry point's contract.
    unsafe { put(numBlocks, blocks(session, &function, threads, dynamicSMemSize as u64, flags)?) }
}

pub(crate) unsafe fn cuOccupancyMaxPotentialBlockSize(
    minGridSize: *mut c_int,
    blockSize: *mut c_int,
    func: CUfunction,
    blockSizeToDynamicSMemSize: CUoccupancyB2DSize,
    dynamicSMemSize: usize,
    blockSizeLimit: c_int,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe {
        cuOccupancyMaxPotentialBlockSizeWithFlags(
            minGridSize,
            blockSize,
            func,
            blockSizeToDynamicSMemSize,
            dynamicSMemSize,
            blockSizeLimit,
            0,
        )
    }
}

pub(crate) unsafe fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    minGridSize: *mut c_int,
    blockSize: *mut c_int,
    func: CUfunction,
    blockSizeToDynamicSMemSize: CUoccupancyB2DSize,
    dynamicSMemSize: usize,
    blockSizeLimit: c_int,
    flags: c_uint,
) -> Result {
    let (session, context) = enter()?;
    let function = function(session, func)?;
    let device = super::device::device(session, context.device)?;
    let warp = device.attribute(attr::WARP_SIZE).max(1);
    let most = function
        .attribute(context.device, 0)
        .unwrap_or_else(|| device.attribute(attr::MAX_THREADS_PER_BLOCK));
    let most = if blockSizeLimit > 0 { most.min(blockSizeLimit) } else { most };
    let threads_per_multiprocessor = device.attribute(attr::MAX_THREADS_PER_MULTIPROCESSOR);
    // The function that says how much shared memory a block size needs is the guest's, so the search runs here: the
    // largest number of resident threads wins, among equals the larger block.
    let (mut best_threads, mut best) = (0, (0, 0));
    let mut size = (most + warp - 1) / warp * warp;
    while size > 0 {
        let threads = size.min(most);
        let shared = match blockSizeToDynamicSMemSize {
            // SAFETY: the application gave the function for just this.
            Some(shared) => unsafe { shared(threads) },
            None => dynamicSMemSize,
        };
        let count = u32::try_from(threads).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        let resident = blocks(session, &function, count, shared as u64, flags)?;
        if resident * threads > best_threads {
            best_threads = resident * threads;
            best = (threads, resident);
        }
        if best_threads == threads_per_multiprocessor {
            break;
        }
        size -= warp;
    }
    // SAFETY: the entry point's contract.
    unsafe {
        put(minGridSize, best.1 * device.attribute(attr::MULTIPROCESSOR_COUNT))?;
        put(blockSize, best.0)
    }
}

pub(crate) unsafe fn cuOccupancyAvailableDynamicSMemPerBlock(
    dynamicSmemSize: *mut usize,
    func: CUfunction,
    numBlocks: c_int,
    blockSize: c_int,
) -> Result {
    let (session, _) = enter()?;
    let function = function(session, func)?;
    let reply = call(op::cuOccupancyAvailableDynamicSMemPerBlock, |writer| {
        writer.put(function.handle);
        writer.put(numBlocks);
        writer.put(blockSize);
    })?;
    let bytes: u64 = reply.reader().get().map_err(garbled)?;
    // SAFETY: the entry point's contract.
    unsafe { put(dynamicSmemSize, usize::try_from(bytes).unwrap_or(usize::MAX)) }
}

/// Asks a question about a launch configuration.
unsafe fn of_config(
    opcode: u16,
    answer: *mut c_int,
    func: CUfunction,
    config: *const CUlaunchConfig,
) -> Result {
    let (session, _) = enter()?;
    let function = function(session, func)?;
    // SAFETY: null or a configuration, by the entry point's contract.
    let config = unsafe { config.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let count = config.num_attrs as usize;
    let attributes = if count == 0 || config.attrs.is_null() {
        &[]
    } else {
        // SAFETY: that many entries, by the entry point's contract.
        unsafe { std::slice::from_raw_parts(config.attrs, count.min(64)) }
    };
    let reply = call(opcode, |writer| {
        writer.put(function.handle);
        writer.put([config.grid_dim_x, config.grid_dim_y, config.grid_dim_z]);
        writer.put([config.block_dim_x, config.block_dim_y, config.block_dim_z]);
        writer.put(config.shared_mem_bytes);
        writer.put(attributes.len() as u64);
        for attribute in attributes {
            writer.put(attribute.id);
            writer.put(attribute.value);
        }
    })?;
    // SAFETY: the entry point's contract.
    unsafe { put(answer, reply.reader().get().map_err(garbled)?) }
}

pub(crate) unsafe fn cuOccupancyMaxPotentialClusterSize(
    clusterSize: *mut c_int,
    func: CUfunction,
    config: *const CUlaunchConfig,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { of_config(op::cuOccupancyMaxPotentialClusterSize, clusterSize, func, config) }
}

pub(crate) unsafe fn cuOccupancyMaxActiveClusters(
    numClusters: *mut c_int,
    func: CUfunction,
    config: *const CUlaunchConfig,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { of_config(op::cuOccupancyMaxActiveClusters, numClusters, func, config) }
}
