//! Batches of copies (CUDA driver API, section "Memory management": `cuMemcpyBatchAsync`, `cuMemcpy3DBatchAsync`). The copies
//! of a batch have no order among themselves; here they are done one after the other.

use super::copy::{cuboid, run};
use super::{Answer, DefaultStream, In, Out, driver_fns};
use crate::device::array::ARRAYS;
use crate::device::context;
use pxos_protocol::types::{
    CU_MEMORYTYPE_UNIFIED, CU_STREAM_LEGACY, CUDA_MEMCPY3D, CUDA_MEMCPY3D_BATCH_OP, CUarray, CUdeviceptr,
    CUmemcpyAttributes, CUresult, CUstream, access_orders, src_access_order,
};

driver_fns! {
    /// Copies between addresses, as CUDA 12 has it.
    ready fn cuMemcpyBatchAsync / cuMemcpyBatchAsync_ptsz(
        to: *mut CUdeviceptr,
        from: *mut CUdeviceptr,
        sizes: *mut usize,
        count: usize,
        attributes: *mut CUmemcpyAttributes,
        starts: *mut usize,
        number: usize,
        failed: *mut usize,
        stream: CUstream,
    ) |default| {
        tell(lines((to, from, sizes, count), (attributes, starts, number), stream, default), failed)
    }

    /// Copies between addresses.
    ready fn cuMemcpyBatchAsync_v2 / cuMemcpyBatchAsync_v2_ptsz(
        to: *mut CUdeviceptr,
        from: *mut CUdeviceptr,
        sizes: *mut usize,
        count: usize,
        attributes: *mut CUmemcpyAttributes,
        starts: *mut usize,
        number: usize,
        stream: CUstream,
    ) |default| {
        lines((to, from, sizes, count), (attributes, starts, number), stream, default).map_err(|(error, _)| error)
    }

    /// Boxes, as CUDA 12 has it.
    ready fn cuMemcpy3DBatchAsync / cuMemcpy3DBatchAsync_ptsz(
        count: usize,
        copies: *mut CUDA_MEMCPY3D_BATCH_OP,
        failed: *mut usize,
        flags: u64,
        stream: CUstream,
    ) |default| {
        tell(boxes(count, copies, flags, stream, default), failed)
    }

    /// Boxes.
    ready fn cuMemcpy3DBatchAsync_v2 / cuMemcpy3DBatchAsync_v2_ptsz(
        count: usize,
        copies: *mut CUDA_MEMCPY3D_BATCH_OP,
        flags: u64,
        stream: CUstream,
    ) |default| {
        boxes(count, copies, flags, stream, default).map_err(|(error, _)| error)
    }
}

/// An error, and which copy made it; `usize::MAX` for none.
type Failure = (CUresult, usize);

fn whole(error: CUresult) -> Failure {
    (error, usize::MAX)
}

fn tell(done: Result<(), Failure>, failed: Out<usize>) -> Answer {
    done.map_err(|(error, index)| {
        failed.put_if_wanted(index);
        error
    })
}

/// A batch does not go to the legacy default stream.
fn check_stream(stream: CUstream, default: DefaultStream) -> Answer {
    context::current()?;
    let is_legacy = stream == CU_STREAM_LEGACY || stream.is_null() && default == DefaultStream::Legacy;
    if is_legacy { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}

/// Does one copy; a source that must have been read when the call returns is waited for.
fn one(copy: &CUDA_MEMCPY3D, order: u32, stream: CUstream, default: DefaultStream) -> Answer {
    let (copy, sides) = cuboid(copy)?;
    run(copy, sides, stream, default, order == src_access_order::DURING_API_CALL)
}

fn lines(
    (to, from, sizes, count): (Out<CUdeviceptr>, Out<CUdeviceptr>, Out<usize>, usize),
    (attributes, starts, number): (Out<CUmemcpyAttributes>, Out<usize>, usize),
    stream: CUstream,
    default: DefaultStream,
) -> Result<(), Failure> {
    check_stream(stream, default).map_err(whole)?;
    if count == 0 || number > count {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    let attributes =
        (0..number).map(|index| attributes.read_at(index)).collect::<Answer<Vec<_>>>().map_err(whole)?;
    let starts = (0..number).map(|index| starts.read_at(index)).collect::<Answer<Vec<_>>>().map_err(whole)?;
    for (index, order) in access_orders(&attributes, &starts, count).map_err(whole)?.into_iter().enumerate() {
        let read = |list: Out<CUdeviceptr>| list.read_at(index).map_err(whole);
        let copy = CUDA_MEMCPY3D {
            src_memory_type: CU_MEMORYTYPE_UNIFIED,
            src_device: read(from)?,
            dst_memory_type: CU_MEMORYTYPE_UNIFIED,
            dst_device: read(to)?,
            width_in_bytes: sizes.read_at(index).map_err(whole)?,
            height: 1,
            depth: 1,
            ..CUDA_MEMCPY3D::default()
        };
        one(&copy, order, stream, default).map_err(|error| (error, index))?;
    }
    Ok(())
}

fn boxes(
    count: usize,
    copies: Out<CUDA_MEMCPY3D_BATCH_OP>,
    flags: u64,
    stream: CUstream,
    default: DefaultStream,
) -> Result<(), Failure> {
    check_stream(stream, default).map_err(whole)?;
    if count == 0 || flags != 0 {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    for index in 0..count {
        let given = In::from_api(copies.raw().cast_const()).read_at(index).map_err(whole)?;
        let copy = given.as_copy(element).map_err(|error| (error, index))?;
        one(&copy, given.src_access_order, stream, default).map_err(|error| (error, index))?;
    }
    Ok(())
}

/// Bytes of an array's element.
fn element(array: CUarray) -> Answer<usize> {
    let bytes = ARRAYS.get(array)?.image.element_bytes();
    usize::try_from(bytes).map_err(|_| CUresult::ERROR_INVALID_VALUE)
}
