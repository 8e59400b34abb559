//! Batches of copies (`cuMemcpyBatchAsync`, `cuMemcpy3DBatchAsync`): structures of cuda.h 13.0, sizes asserted, and what they
//! mean in the words of single copies.

use super::{CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_UNIFIED, CUDA_MEMCPY3D, CUarray, CUmemLocation, CUresult};
use std::ffi::c_uint;

/// `CU_MEMCPY_SRC_ACCESS_ORDER_…`: when the source of a copy may be read.
pub mod src_access_order {
    /// In the order of the stream.
    pub const STREAM: u32 = 1;
    /// Before the call returns.
    pub const DURING_API_CALL: u32 = 2;
    /// At any time.
    pub const ANY: u32 = 3;
}

/// Attributes of copies within a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUmemcpyAttributes {
    pub src_access_order: u32,
    pub src_loc_hint: CUmemLocation,
    pub dst_loc_hint: CUmemLocation,
    pub flags: c_uint,
}

/// The source access order of each of `count` copies: those of `attributes[k]` begin at copy `starts[k]`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where the starts do not begin at 0 and ascend below `count`, or an order is none.
pub fn access_orders(
    attributes: &[CUmemcpyAttributes],
    starts: &[usize],
    count: usize,
) -> Result<Vec<u32>, CUresult> {
    let orders_are_known = attributes.iter().all(|attributes| (1..=3).contains(&attributes.src_access_order));
    let starts_ascend = starts.first() == Some(&0) && starts.is_sorted_by(|a, b| a < b);
    if !orders_are_known || !starts_ascend || starts.last().is_none_or(|last| *last >= count) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let ends = starts[1..].iter().copied().chain([count]);
    let runs = attributes.iter().zip(starts.iter().zip(ends));
    Ok(runs
        .flat_map(|(attributes, (start, end))| std::iter::repeat_n(attributes.src_access_order, end - start))
        .collect())
}

/// One end of a copy in a batch: a union by `kind` (1 pointer, 2 array), read by [`Self::operand`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemcpy3DOperand {
    /// `CUmemcpy3DOperandType`.
    pub kind: u32,
    /// The union's four words.
    pub words: [u64; 4],
}

/// What a [`CUmemcpy3DOperand`] says, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub enum BatchOperand {
    Pointer { address: u64, row_length: usize, layer_height: usize },
    Array { array: CUarray, offset: [usize; 3] },
}

impl CUmemcpy3DOperand {
    /// The variant, `None` where `kind` names none.
    #[must_use]
    pub fn operand(&self) -> Option<BatchOperand> {
        let [first, rest @ ..] = self.words;
        let size = |index: usize| usize::try_from(rest[index]).ok();
        match self.kind {
            1 => Some(BatchOperand::Pointer { address: first, row_length: size(0)?, layer_height: size(1)? }),
            2 => Some(BatchOperand::Array { array: CUarray(first), offset: [size(0)?, size(1)?, size(2)?] }),
            _ => None,
        }
    }
}

/// One end in bytes: kind, address, array, offset, pitch, rows.
struct End {
    kind: u32,
    address: u64,
    array: CUarray,
    at: [usize; 3],
    pitch: usize,
    rows: usize,
}

impl BatchOperand {
    /// `None` where rows or layers are shorter than the copy, or a size is no number.
    fn end(&self, element: usize, [width, height]: [usize; 2]) -> Option<End> {
        match *self {
            Self::Pointer { address, row_length, layer_height } => {
                // "When either of these values is zero, that aspect is considered to be tightly packed."
                let row = if row_length == 0 { width } else { row_length };
                let rows = if layer_height == 0 { height } else { layer_height };
                (row >= width && rows >= height).then_some(())?;
                let pitch = row.checked_mul(element)?;
                Some(End {
                    kind: CU_MEMORYTYPE_UNIFIED,
                    address,
                    array: CUarray::NULL,
                    at: [0; 3],
                    pitch,
                    rows,
                })
            }
            Self::Array { array, offset: [x, y, z] } => {
                let at = [x.checked_mul(element)?, y, z];
                Some(End { kind: CU_MEMORYTYPE_ARRAY, address: 0, array, at, pitch: 0, rows: 0 })
            }
        }
    }
}

/// One copy of `cuMemcpy3DBatchAsync`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMCPY3D_BATCH_OP {
    pub src: CUmemcpy3DOperand,
    pub dst: CUmemcpy3DOperand,
    pub extent: [usize; 3],
    pub src_access_order: u32,
    pub flags: c_uint,
}

impl CUDA_MEMCPY3D_BATCH_OP {
    /// The same in the words of `cuMemcpy3D`; `element` gives the bytes of an array's element.
    ///
    /// # Errors
    /// What `element` answers, and `CUDA_ERROR_INVALID_VALUE` for sizes, kinds and orders that there are not.
    pub fn as_copy(
        &self,
        element: impl Fn(CUarray) -> Result<usize, CUresult>,
    ) -> Result<CUDA_MEMCPY3D, CUresult> {
        let invalid = CUresult::ERROR_INVALID_VALUE;
        let (to, from) = (self.dst.operand().ok_or(invalid)?, self.src.operand().ok_or(invalid)?);
        let [width, height, depth] = self.extent;
        if self.extent.contains(&0) || !(1..=3).contains(&self.src_access_order) {
            return Err(invalid);
        }
        let bytes = |operand: &BatchOperand| match operand {
            BatchOperand::Pointer { .. } => Ok(None),
            BatchOperand::Array { array, .. } => element(*array).map(Some),
        };
        // "For pointer-to-pointer copies, the element size is considered to be 1."
        let element = match (bytes(&to)?, bytes(&from)?) {
            (Some(to), Some(from)) if to != from => return Err(invalid),
            (to, from) => to.or(from).unwrap_or(1),
        };
        let ends = to.end(element, [width, height]).zip(from.end(element, [width, height]));
        let (to, from) = ends.ok_or(invalid)?;
        Ok(CUDA_MEMCPY3D {
            src_x_in_bytes: from.at[0],
            src_y: from.at[1],
            src_z: from.at[2],
            src_memory_type: from.kind,
            src_device: from.address,
            src_array: from.array,
            src_pitch: from.pitch,
            src_height: from.rows,
            dst_x_in_bytes: to.at[0],
            dst_y: to.at[1],
            dst_z: to.at[2],
            dst_memory_type: to.kind,
            dst_device: to.address,
            dst_array: to.array,
            dst_pitch: to.pitch,
            dst_height: to.rows,
            width_in_bytes: width.checked_mul(element).ok_or(invalid)?,
            height,
            depth,
            ..CUDA_MEMCPY3D::default()
        })
    }
}

const _: () = {
    assert!(size_of::<CUmemcpyAttributes>() == 24);
    assert!(size_of::<CUmemcpy3DOperand>() == 40);
    assert!(size_of::<CUDA_MEMCPY3D_BATCH_OP>() == 112);
    assert!(std::mem::offset_of!(CUDA_MEMCPY3D_BATCH_OP, src_access_order) == 104);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(orders: &[u32], starts: &[usize], count: usize) -> Result<Vec<u32>, CUresult> {
        let hint = CUmemLocation { kind: 0, id: 0 };
        let of = |order: &u32| CUmemcpyAttributes {
            src_access_order: *order,
            src_loc_hint: hint,
            dst_loc_hint: hint,
            flags: 0,
        };
        access_orders(&orders.iter().map(of).collect::<Vec<_>>(), starts, count)
    }

    #[test]
    fn attributes_apply_from_their_first_copy_on() {
        assert_eq!(spread(&[1, 3], &[0, 2], 5), Ok(vec![1, 1, 3, 3, 3]));
        assert_eq!(spread(&[2], &[0], 1), Ok(vec![2]));
        for (orders, starts, count) in [
            (&[1_u32, 1][..], &[0_usize, 0][..], 3),
            (&[1], &[1], 3),
            (&[0], &[0], 1),
            (&[1, 1], &[0, 3], 3),
            (&[], &[], 3),
        ] {
            assert_eq!(
                spread(orders, starts, count),
                Err(CUresult::ERROR_INVALID_VALUE),
                "{orders:?} {starts:?}"
            );
        }
    }

    fn pointer(address: u64, row: u64, layer: u64) -> CUmemcpy3DOperand {
        CUmemcpy3DOperand { kind: 1, words: [address, row, layer, 0] }
    }

    fn batch(dst: CUmemcpy3DOperand, src: CUmemcpy3DOperand) -> CUDA_MEMCPY3D_BATCH_OP {
        CUDA_MEMCPY3D_BATCH_OP { src, dst, extent: [10, 3, 2], src_access_order: 1, flags: 0 }
    }

    #[test]
    fn operands_count_in_elements() {
        let array = CUmemcpy3DOperand { kind: 2, words: [5, 2, 1, 0] };
        let copy = batch(array, pointer(64, 0, 0)).as_copy(|_| Ok(8)).unwrap();
        assert_eq!((copy.src_pitch, copy.src_height, copy.width_in_bytes), (80, 3, 80));
        assert_eq!((copy.dst_array, copy.dst_x_in_bytes, copy.dst_y, copy.depth), (CUarray(5), 16, 1, 2));
        let plain = batch(pointer(1, 12, 4), pointer(2, 0, 0)).as_copy(|_| Ok(8)).unwrap();
        assert_eq!((plain.dst_pitch, plain.dst_height, plain.width_in_bytes), (12, 4, 10));
        assert!(batch(pointer(1, 9, 0), pointer(2, 0, 0)).as_copy(|_| Ok(1)).is_err());
        let other = CUmemcpy3DOperand { kind: 2, words: [6, 0, 0, 0] };
        let differ = |array: CUarray| Ok(if array.0 == 5 { 8 } else { 4 });
        assert!(batch(array, other).as_copy(differ).is_err());
        assert!(batch(CUmemcpy3DOperand { kind: 3, words: [0; 4] }, array).as_copy(|_| Ok(8)).is_err());
    }
}
