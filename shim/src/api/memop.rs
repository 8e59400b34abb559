//! Stream memory operations. None is answered; what the device does not support, and an address that is none, is refused here.

use super::{Result, enter, stream_argument};
use crate::session::Session;
use pxos_protocol::api::op;
use pxos_protocol::types::attribute::{
    CAN_FLUSH_REMOTE_WRITES, CAN_USE_64_BIT_STREAM_MEM_OPS, CAN_USE_64_BIT_STREAM_MEM_OPS_V1,
    CAN_USE_STREAM_MEM_OPS_V1, CAN_USE_STREAM_WAIT_VALUE_NOR,
};
use pxos_protocol::types::{
    CUdevice, CUdeviceptr, CUresult, CUstream, CUstreamBatchMemOpParams, stream_mem_op,
};
use std::ffi::c_uint;

/// Most operations in a batch (CUDA driver API, cuStreamBatchMemOp).
const MOST: c_uint = 256;

const WAIT_NOR: c_uint = 3;
const WAIT_FLUSH: c_uint = 1 << 30;
const WRITE_NO_MEMORY_BARRIER: c_uint = 1;

/// What is asked of one operation.
struct Operation {
    address: CUdeviceptr,
    flags: c_uint,
    wide: bool,
    waits: bool,
    /// The interface before CUDA 11.7, which a driver has only where its operator says so.
    old: bool,
}

impl Operation {
    /// Refuses what the driver refuses at once; where the device sees the address.
    fn check(&self, session: &Session, device: CUdevice) -> Result<CUdeviceptr> {
        let device = super::device::device(session, device)?;
        let can = |attribute| device.attribute(attribute) != 0;
        let wide = if self.old { CAN_USE_64_BIT_STREAM_MEM_OPS_V1 } else { CAN_USE_64_BIT_STREAM_MEM_OPS };
        if (self.old && !can(CAN_USE_STREAM_MEM_OPS_V1)) || (self.wide && !can(wide)) {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let flags_are_right = if self.waits {
            let flush = self.flags & WAIT_FLUSH != 0;
            let condition = self.flags & !WAIT_FLUSH;
            if (flush && !can(CAN_FLUSH_REMOTE_WRITES))
                || (condition == WAIT_NOR && !can(CAN_USE_STREAM_WAIT_VALUE_NOR))
            {
                return Err(CUresult::ERROR_NOT_SUPPORTED);
            }
            condition <= WAIT_NOR
        } else {
            // "This flag is not supported in the v2 API."
            self.flags & !(if self.old { WRITE_NO_MEMORY_BARRIER } else { 0 }) == 0
        };
        let bytes = if self.wide { 8 } else { 4 };
        let range =
            session.allocations.find(self.address).filter(|range| range.bytes_from(self.address) >= bytes);
        let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if !flags_are_right || !self.address.is_multiple_of(bytes) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if range.is_host() && range.shared == 0 {
            return Err(super::pool::refuse(
                "stream memory operations on host memory need shared memory with the server, which this connection does not \
                 have",
            ));
        }
        Ok(range.shared_address(self.address).unwrap_or(self.address))
    }
}

/// Checks one operation and sends it.
fn single(number: u16, operation: &Operation, stream: CUstream, value: u64) -> Result {
    let (session, context) = enter()?;
    let stream = stream_argument(session, stream.0)?;
    let address = operation.check(session, context.device)?;
    session.post(number, |writer| {
        writer.put(stream);
        writer.put(address);
        writer.put(value);
        writer.put(operation.flags);
    })
}

macro_rules! operations {
    ($($name:ident $type:ty, wide $wide:literal waits $waits:literal old $old:literal;)*) => { $(
        pub(crate) unsafe fn $name(stream: CUstream, addr: CUdeviceptr, value: $type, flags: c_uint) -> Result {
            let operation = Operation { address: addr, flags, wide: $wide, waits: $waits, old: $old };
            single(op::$name, &operation, stream, value.into())
        }
    )* };
}

operations! {
    cuStreamWriteValue32 u32, wide false waits false old true;
    cuStreamWriteValue32_v2 u32, wide false waits false old false;
    cuStreamWaitValue32 u32, wide false waits true old true;
    cuStreamWaitValue32_v2 u32, wide false waits true old false;
    cuStreamWriteValue64 u64, wide true waits false old true;
    cuStreamWriteValue64_v2 u64, wide true waits false old false;
    cuStreamWaitValue64 u64, wide true waits true old true;
    cuStreamWaitValue64_v2 u64, wide true waits true old false;
}

/// Checks a batch and sends it.
///
/// # Safety
/// `list` has `count` entries.
unsafe fn batch(
    number: u16,
    stream: CUstream,
    count: c_uint,
    list: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Result {
    let (session, context) = enter()?;
    let stream = stream_argument(session, stream.0)?;
    if list.is_null() || count == 0 || count > MOST || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: by this function's contract.
    let list = unsafe { std::slice::from_raw_parts(list.cast_const(), count as usize) };
    let old = number == op::cuStreamBatchMemOp;
    let mut addresses = Vec::with_capacity(list.len());
    for entry in list {
        addresses.push(0);
        let (wide, waits) = match entry.operation {
            stream_mem_op::WAIT_VALUE_32 => (false, true),
            stream_mem_op::WRITE_VALUE_32 => (false, false),
            stream_mem_op::WAIT_VALUE_64 => (true, true),
            stream_mem_op::WRITE_VALUE_64 => (true, false),
            stream_mem_op::FLUSH_REMOTE_WRITES => {
                let device = super::device::device(session, context.device)?;
                if device.attribute(CAN_FLUSH_REMOTE_WRITES) == 0 {
                    return Err(CUresult::ERROR_NOT_SUPPORTED);
                }
                continue;
            }
            stream_mem_op::BARRIER if !old && entry.short_flags <= 1 => continue,
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        let operation = Operation { address: entry.address, flags: entry.flags, wide, waits, old };
        *addresses.last_mut().expect("pushed above") = operation.check(session, context.device)?;
    }
    session.post(number, |writer| {
        writer.put(stream);
        writer.put(flags);
        writer.put(u64::from(count));
        for (entry, address) in list.iter().zip(addresses) {
            let is_short =
                matches!(entry.operation, stream_mem_op::BARRIER | stream_mem_op::FLUSH_REMOTE_WRITES);
            // Of a union's members only the one that the operation names was ever written.
            let long = if is_short { CUstreamBatchMemOpParams::default() } else { *entry };
            writer.put(entry.operation);
            writer.put(if is_short { entry.short_flags } else { 0 });
            writer.put(address);
            writer.put(long.value);
            writer.put(long.flags);
        }
    })
}

pub(crate) unsafe fn cuStreamBatchMemOp(
    stream: CUstream,
    count: c_uint,
    paramArray: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { batch(op::cuStreamBatchMemOp, stream, count, paramArray, flags) }
}

pub(crate) unsafe fn cuStreamBatchMemOp_v2(
    stream: CUstream,
    count: c_uint,
    paramArray: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { batch(op::cuStreamBatchMemOp_v2, stream, count, paramArray, flags) }
}
