//! Stream memory operations (CUDA driver API, section of that name): a stream writes a word, or waits until memory holds one.
//!
//! A waiting stream looks again and again, with pauses, until its condition holds or its context ends or has failed.

use super::{Answer, DefaultStream, Out, driver_fns};
use crate::device::allocation;
use crate::device::context::stream_anywhere;
use pxos_protocol::types::{CUdeviceptr, CUresult, CUstream, CUstreamBatchMemOpParams, stream_mem_op};
use std::ffi::c_uint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

driver_fns! {
    /// Writes 32 bits.
    ready fn cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint) |default| {
        submit(stream, default, vec![Step { address, value: value.into(), flags, wide: false, waits: false }])
    }

    /// Waits for 32 bits.
    ready fn cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint) |default| {
        submit(stream, default, vec![Step { address, value: value.into(), flags, wide: false, waits: true }])
    }

    /// Writes 64 bits.
    ready fn cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz(stream: CUstream, address: CUdeviceptr, value: u64, flags: c_uint) |default| {
        submit(stream, default, vec![Step { address, value, flags, wide: true, waits: false }])
    }

    /// Waits for 64 bits.
    ready fn cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz(stream: CUstream, address: CUdeviceptr, value: u64, flags: c_uint) |default| {
        submit(stream, default, vec![Step { address, value, flags, wide: true, waits: true }])
    }

    /// Several of them, and barriers.
    ready fn cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz(stream: CUstream, count: c_uint, list: *mut CUstreamBatchMemOpParams, flags: c_uint) |default| {
        submit(stream, default, steps(count, list, flags)?)
    }
}

/// Most operations in a batch (CUDA driver API, cuStreamBatchMemOp).
const MOST: c_uint = 256;

/// `CU_STREAM_WAIT_VALUE_FLUSH`: about writes of other PCI devices.
const FLUSH: c_uint = 1 << 30;

/// How long a waiting stream pauses between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// One operation.
#[derive(Clone, Copy, Debug)]
struct Step {
    address: u64,
    value: u64,
    flags: c_uint,
    wide: bool,
    waits: bool,
}

impl Step {
    fn bytes(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    fn check(&self) -> Answer {
        let flags_are_right = if self.waits { self.flags & !FLUSH <= 3 } else { self.flags == 0 };
        if !flags_are_right || !self.address.is_multiple_of(self.bytes()) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        allocation::check(self.address, self.bytes()).map(drop)
    }

    /// Whether what memory holds is what is waited for: cyclically not before, equal, with a common bit, or with not all bits of
    /// either (CUDA driver API, `CUstreamWaitValue_flags`).
    #[expect(clippy::cast_possible_truncation, reason = "operations of 32 bits compare 32 bits")]
    fn holds(&self, memory: u64) -> bool {
        let condition = self.flags & !FLUSH;
        if self.wide {
            match condition {
                0 => memory.wrapping_sub(self.value).cast_signed() >= 0,
                1 => memory == self.value,
                2 => memory & self.value != 0,
                _ => !(memory | self.value) != 0,
            }
        } else {
            let (memory, value) = (memory as u32, self.value as u32);
            match condition {
                0 => memory.wrapping_sub(value).cast_signed() >= 0,
                1 => memory == value,
                2 => memory & value != 0,
                _ => !(memory | value) != 0,
            }
        }
    }

    fn load(&self) -> u64 {
        let at = usize::try_from(self.address).expect("addresses have 64 bits here");
        if self.wide {
            // SAFETY: checked at the call, aligned, and mapped until the work before its end is done.
            unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(at)) }.load(Ordering::Acquire)
        } else {
            // SAFETY: as above.
            unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(at)) }
                .load(Ordering::Acquire)
                .into()
        }
    }

    fn store(&self) {
        let at = usize::try_from(self.address).expect("addresses have 64 bits here");
        if self.wide {
            // SAFETY: as in `load`.
            unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(at)) }
                .store(self.value, Ordering::Release);
        } else {
            let value = u32::try_from(self.value & 0xffff_ffff).expect("masked");
            // SAFETY: as in `load`.
            unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(at)) }
                .store(value, Ordering::Release);
        }
    }
}

/// Appends steps to a stream.
fn submit(stream: CUstream, default: DefaultStream, steps: Vec<Step>) -> Answer {
    let (active, stream) = stream_anywhere(stream, default)?;
    steps.iter().try_for_each(Step::check)?;
    stream.forbid_capture()?;
    let owner = active.share();
    let work = move |status: CUresult| {
        for step in steps {
            if !status.is_success() {
                break;
            }
            if !step.waits {
                step.store();
                continue;
            }
            while !owner.is_ending() && owner.fault.check().is_ok() && !step.holds(step.load()) {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    };
    active.submit(&stream, Vec::new(), Box::new(work));
    Ok(())
}

/// The operations of a batch; a barrier is none here, since a stream's work sees all that was done before it.
fn steps(count: c_uint, list: Out<CUstreamBatchMemOpParams>, flags: c_uint) -> Answer<Vec<Step>> {
    if list.is_null() || count == 0 || count > MOST || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let mut steps = Vec::new();
    for index in 0..count as usize {
        let entry = list.read_at(index)?;
        let (wide, waits) = match entry.operation {
            stream_mem_op::WAIT_VALUE_32 => (false, true),
            stream_mem_op::WRITE_VALUE_32 => (false, false),
            stream_mem_op::WAIT_VALUE_64 => (true, true),
            stream_mem_op::WRITE_VALUE_64 => (true, false),
            stream_mem_op::BARRIER if entry.short_flags <= 1 => continue,
            stream_mem_op::FLUSH_REMOTE_WRITES => return Err(CUresult::ERROR_NOT_SUPPORTED),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        steps.push(Step { address: entry.address, value: entry.value, flags: entry.flags, wide, waits });
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(value: u64, flags: c_uint, wide: bool) -> Step {
        Step { address: 0, value, flags, wide, waits: true }
    }

    #[test]
    fn conditions_are_those_of_the_manual() {
        assert!(step(5, 0, false).holds(5) && step(5, 0, false).holds(6) && !step(5, 0, false).holds(4));
        // Cyclic: a counter that has wrapped is beyond.
        assert!(step(0xffff_fffe, 0, false).holds(1) && !step(1, 0, false).holds(0xffff_fffe));
        assert!(step(0xffff_fffe, 0, true).holds(0xffff_ffff) && !step(0xffff_fffe, 0, true).holds(1));
        assert!(step(5, 1, false).holds(1 << 32 | 5) && !step(5, 1, true).holds(1 << 32 | 5));
        assert!(step(6, 2, false).holds(4) && !step(6, 2, false).holds(9));
        assert!(step(0, 3, false).holds(1) && !step(0xffff_ff00, 3, false).holds(0xff));
    }
}
