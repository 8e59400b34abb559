//! Stream memory operations: values that a stream waits for and writes, without a kernel.

use super::super::dispatch::{Answer, Call, done};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUresult, CUstreamBatchMemOpParams};

/// Most operations in a batch (CUDA driver API, cuStreamBatchMemOp: 256).
const MOST: u64 = 256;

/// A single operation: stream, address, value, flags. The address is the driver's to check: it is one of the guest's own
/// context or none.
pub(in super::super) fn single(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let (address, value, flags): (u64, u64, u32) = (call.get()?, call.get()?, call.get()?);
    let driver = call.driver();
    let short = u32::try_from(value & 0xffff_ffff).expect("masked");
    // SAFETY: a stream of this session's; device addresses, which the driver checks.
    unsafe {
        match call.header.op {
            op::cuStreamWriteValue32 => driver.cuStreamWriteValue32(stream, address, short, flags)?,
            op::cuStreamWriteValue32_v2 => driver.cuStreamWriteValue32_v2(stream, address, short, flags)?,
            op::cuStreamWaitValue32 => driver.cuStreamWaitValue32(stream, address, short, flags)?,
            op::cuStreamWaitValue32_v2 => driver.cuStreamWaitValue32_v2(stream, address, short, flags)?,
            op::cuStreamWriteValue64 => driver.cuStreamWriteValue64(stream, address, value, flags)?,
            op::cuStreamWriteValue64_v2 => driver.cuStreamWriteValue64_v2(stream, address, value, flags)?,
            op::cuStreamWaitValue64 => driver.cuStreamWaitValue64(stream, address, value, flags)?,
            op::cuStreamWaitValue64_v2 => driver.cuStreamWaitValue64_v2(stream, address, value, flags)?,
            _ => return Err(CUresult::ERROR_NOT_SUPPORTED.into()),
        }
    }
    done()
}

/// A batch: stream, flags, count, and for each operation its number, short flags, address, value, flags.
pub(in super::super) fn batch(call: &mut Call<'_>) -> Answer {
    let stream = call.get_stream()?;
    let (flags, count): (u32, u64) = (call.get()?, call.get()?);
    if count > MOST {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(CUstreamBatchMemOpParams {
            operation: call.get()?,
            short_flags: call.get()?,
            address: call.get()?,
            value: call.get()?,
            flags: call.get()?,
            ..CUstreamBatchMemOpParams::default()
        });
    }
    let count = u32::try_from(count).expect("bounded by MOST");
    let driver = call.driver();
    // SAFETY: a stream of this session's; an array of `count` entries with device addresses, which the driver checks.
    unsafe {
        if call.header.op == op::cuStreamBatchMemOp {
            driver.cuStreamBatchMemOp(stream, count, list.as_mut_ptr(), flags)?;
        } else {
            driver.cuStreamBatchMemOp_v2(stream, count, list.as_mut_ptr(), flags)?;
        }
    }
    done()
}
