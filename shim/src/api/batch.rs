//! Batches of copies. The copies of a batch have no order among themselves, so one after the other is right.

use super::array::array;
use super::copy2d::{Given, run};
use super::{Result, enter, stream_name};
use crate::session::Session;
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::types::{
    BatchOperand, CU_MEMORYTYPE_UNIFIED, CU_STREAM_LEGACY, CUDA_MEMCPY3D_BATCH_OP, CUarray, CUdeviceptr,
    CUmemcpy3DOperand, CUmemcpyAttributes, CUresult, CUstream,
};

/// `CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL`.
const DURING_CALL: u32 = 2;

/// What `failIdx` says of an error that is not of one copy.
const NO_COPY: usize = usize::MAX;

/// An error, and which copy made it.
type Failure = (CUresult, usize);

fn whole(error: CUresult) -> Failure {
    (error, NO_COPY)
}

/// The session, for a stream that a batch may go to.
fn batch_session(stream: CUstream) -> Result<&'static Session> {
    let (session, _) = enter()?;
    // "Must not be legacy NULL stream."
    if stream == CU_STREAM_LEGACY || (stream.is_null() && !thread::per_thread()) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    stream_name(session, stream.0)?;
    Ok(session)
}

/// Source access orders of `count` copies, from attributes that begin at some of them.
///
/// # Safety
/// Both arrays hold `number` entries.
unsafe fn orders(
    attributes: *const CUmemcpyAttributes,
    starts: *const usize,
    number: usize,
    count: usize,
) -> Result<Vec<u32>> {
    if attributes.is_null() || starts.is_null() || number == 0 || number > count {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and that many entries by this function's contract.
    let starts = unsafe { std::slice::from_raw_parts(starts, number) };
    // SAFETY: as above.
    let attributes = unsafe { std::slice::from_raw_parts(attributes, number) };
    let ascending = starts[0] == 0 && starts.is_sorted_by(|a, b| a < b) && starts[number - 1] < count;
    if !ascending || attributes.iter().any(|attributes| !(1..=3).contains(&attributes.src_access_order)) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let ends = starts[1..].iter().copied().chain([count]);
    let runs = attributes.iter().zip(starts.iter().zip(ends));
    Ok(runs
        .flat_map(|(attributes, (start, end))| std::iter::repeat_n(attributes.src_access_order, end - start))
        .collect())
}

/// # Safety
/// As `cuMemcpyBatchAsync` says of its pointers.
unsafe fn copies(
    (targets, sources, sizes, count): (*const CUdeviceptr, *const CUdeviceptr, *const usize, usize),
    (attributes, starts, number): (*const CUmemcpyAttributes, *const usize, usize),
    stream: CUstream,
) -> Result<(), Failure> {
    let session = batch_session(stream).map_err(whole)?;
    if targets.is_null() || sources.is_null() || sizes.is_null() || count == 0 {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    // SAFETY: by this function's contract.
    let orders = unsafe { orders(attributes, starts, number, count) }.map_err(whole)?;
    let mut settle = false;
    for (index, order) in orders.into_iter().enumerate() {
        // SAFETY: `count` entries each, by this function's contract.
        let (target, source, size) =
            unsafe { (targets.add(index).read(), sources.add(index).read(), sizes.add(index).read()) };
        // SAFETY: by this function's contract.
        unsafe { super::cuMemcpyAsync(target, source, size, stream) }.map_err(|error| (error, index))?;
        // Other host memory has been read already.
        settle |= order == DURING_CALL && session.shared_address(source).is_some();
    }
    if settle {
        let stream = stream_name(session, stream.0).map_err(whole)?;
        session.call(op::cuStreamSynchronize, |writer| writer.put(stream)).map_err(whole)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemcpyBatchAsync(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    failIdx: *mut usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { copies((dsts, srcs, sizes, count), (attrs, attrsIdxs, numAttrs), hStream) };
    // SAFETY: null, or writable by the entry point's contract.
    unsafe { tell(done, failIdx) }
}

#[expect(clippy::too_many_arguments, reason = "CUDA's own signature")]
pub(crate) unsafe fn cuMemcpyBatchAsync_v2(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { copies((dsts, srcs, sizes, count), (attrs, attrsIdxs, numAttrs), hStream) };
    done.map_err(|(error, _)| error)
}

/// # Safety
/// The pointer is null or writable.
unsafe fn tell(done: Result<(), Failure>, index: *mut usize) -> Result {
    done.map_err(|(error, failed)| {
        if !index.is_null() {
            // SAFETY: not null, and writable by this function's contract.
            unsafe { index.write(failed) };
        }
        error
    })
}

/// Bytes of an element of an array operand; `None` for a pointer.
fn element(session: &Session, operand: &BatchOperand) -> Result<Option<usize>> {
    match operand {
        BatchOperand::Pointer { .. } => Ok(None),
        BatchOperand::Array { array: handle, .. } => {
            let bytes = array(session, *handle)?.descriptor.element_bytes();
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
            bytes.map(Some).ok_or(CUresult::ERROR_NOT_SUPPORTED)
        }
    }
}

/// An operand in the terms of `cuMemcpy3D`.
fn end(operand: &BatchOperand, element: usize, [width, height]: [usize; 2]) -> Option<Given> {
    let size = |value: u64| usize::try_from(value).ok();
    match *operand {
        BatchOperand::Pointer { address, row_length, layer_height } => {
            // "When either of these values is zero, that aspect is considered to be tightly packed."
            let row = if row_length == 0 { width } else { size(row_length)? };
            let rows = if layer_height == 0 { height } else { size(layer_height)? };
            let fits = row >= width && rows >= height;
            fits.then_some(())?;
            Some(Given::line(CU_MEMORYTYPE_UNIFIED, address).pitched(row.checked_mul(element)?, rows))
        }
        BatchOperand::Array { array: CUarray(handle), offset: [x, y, z] } => {
            let at = [size(x)?.checked_mul(element)?, size(y)?, size(z)?];
            Some(Given::box_of(CUarray(handle), at))
        }
    }
}

/// # Safety
/// Host rows are valid.
unsafe fn copy_box(session: &Session, copy: &CUDA_MEMCPY3D_BATCH_OP, stream: CUstream) -> Result {
    let operand = |side: &CUmemcpy3DOperand| side.operand().ok_or(CUresult::ERROR_INVALID_VALUE);
    let (to, from) = (operand(&copy.dst)?, operand(&copy.src)?);
    let [width, height, depth] = copy.extent;
    if copy.extent.contains(&0) || !(1..=3).contains(&copy.src_access_order) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let element = match (element(session, &to)?, element(session, &from)?) {
        (Some(to), Some(from)) if to != from => return Err(CUresult::ERROR_INVALID_VALUE),
        (Some(bytes), _) | (None, Some(bytes)) => bytes,
        (None, None) => 1,
    };
    let ends = end(&to, element, [width, height]).zip(end(&from, element, [width, height]));
    let (to, from) = ends.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let row = width.checked_mul(element).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let waits = copy.src_access_order == DURING_CALL;
    // SAFETY: by this function's contract.
    unsafe { run(&to, &from, [row, height, depth], stream, waits) }
}

/// # Safety
/// As `cuMemcpy3DBatchAsync` says of its pointers.
unsafe fn boxes(
    count: usize,
    copies: *const CUDA_MEMCPY3D_BATCH_OP,
    flags: u64,
    stream: CUstream,
) -> Result<(), Failure> {
    let session = batch_session(stream).map_err(whole)?;
    if count == 0 || copies.is_null() || flags != 0 {
        return Err(whole(CUresult::ERROR_INVALID_VALUE));
    }
    for index in 0..count {
        // SAFETY: `count` entries, by this function's contract.
        let copy = unsafe { copies.add(index).read() };
        // SAFETY: by this function's contract.
        unsafe { copy_box(session, &copy, stream) }.map_err(|error| (error, index))?;
    }
    Ok(())
}

pub(crate) unsafe fn cuMemcpy3DBatchAsync(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    failIdx: *mut usize,
    flags: u64,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    let done = unsafe { boxes(numOps, opList, flags, hStream) };
    // SAFETY: null, or writable by the entry point's contract.
    unsafe { tell(done, failIdx) }
}

pub(crate) unsafe fn cuMemcpy3DBatchAsync_v2(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: u64,
    hStream: CUstream,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe { boxes(numOps, opList, flags, hStream) }.map_err(|(error, _)| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::types::CUmemLocation;

    fn attributes(order: u32) -> CUmemcpyAttributes {
        let hint = CUmemLocation { kind: 0, id: 0 };
        CUmemcpyAttributes { src_access_order: order, src_loc_hint: hint, dst_loc_hint: hint, flags: 0 }
    }

    fn spread(orders: &[u32], starts: &[usize], count: usize) -> Result<Vec<u32>> {
        let attributes: Vec<CUmemcpyAttributes> = orders.iter().map(|order| attributes(*order)).collect();
        // SAFETY: slices of this test.
        unsafe { super::orders(attributes.as_ptr(), starts.as_ptr(), starts.len(), count) }
    }

    #[test]
    fn attributes_apply_from_their_first_copy_on() {
        assert_eq!(spread(&[1, 3], &[0, 2], 5), Ok(vec![1, 1, 3, 3, 3]));
        assert_eq!(spread(&[2], &[0], 1), Ok(vec![2]));
        for (orders, starts, count) in
            [(&[1_u32, 1][..], &[0_usize, 0][..], 3), (&[1], &[1], 3), (&[0], &[0], 1), (&[1, 1], &[0, 3], 3)]
        {
            assert_eq!(
                spread(orders, starts, count),
                Err(CUresult::ERROR_INVALID_VALUE),
                "{orders:?} {starts:?}"
            );
        }
    }

    #[test]
    fn operands_count_in_elements() {
        let packed = BatchOperand::Pointer { address: 64, row_length: 0, layer_height: 0 };
        let given = end(&packed, 4, [10, 3]).unwrap();
        assert_eq!((given.pitch, given.rows), (40, 3));
        let narrow = BatchOperand::Pointer { address: 64, row_length: 9, layer_height: 0 };
        assert!(end(&narrow, 4, [10, 3]).is_none());
        let inside = BatchOperand::Array { array: CUarray(5), offset: [2, 1, 0] };
        assert_eq!(end(&inside, 8, [10, 3]).unwrap().at, [16, 1, 0]);
    }
}
