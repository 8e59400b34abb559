//! Copies (CUDA driver API, section "Memory management": `cuMemcpy…`).
//!
//! Every form becomes a [`struct@Copy`]: rows and planes of bytes between two addresses. Ranges that the API knows are
//! checked at the call; anything else is pageable host memory, for which copies are synchronous or staged, as the
//! manual's "API synchronization behavior" says.

use super::{Answer, DefaultStream, driver_fns};
use crate::device::allocation::{self, Allocation};
use crate::device::array::ARRAYS;
use crate::device::context::{self, Active};
use crate::device::operation::{Copy, Grid, Operation};
use crate::device::stream::Stream;
use pxos_protocol::types::{
    CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST, CU_MEMORYTYPE_UNIFIED, CUDA_MEMCPY2D,
    CUDA_MEMCPY3D, CUDA_MEMCPY3D_PEER, CUarray, CUcontext, CUdeviceptr, CUmemorytype, CUresult, CUstream,
};
use std::ffi::c_void;
use std::sync::Arc;

driver_fns! {
    /// Host to device.
    ready fn cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds(to: CUdeviceptr, from: *const c_void, bytes: usize) |default| {
        run(line(to, from.address(), bytes), Sides::TO_DEVICE, CUstream::NULL, default, true)
    }

    /// Device to host.
    ready fn cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(to: *mut c_void, from: CUdeviceptr, bytes: usize) |default| {
        run(line(to.address(), from, bytes), Sides::TO_HOST, CUstream::NULL, default, true)
    }

    /// Device to device.
    ready fn cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) |default| {
        run(line(to, from, bytes), Sides::ON_DEVICE, CUstream::NULL, default, true)
    }

    /// Anything to anything.
    ready fn cuMemcpy / cuMemcpy_ptds(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) |default| {
        run(line(to, from, bytes), Sides::ANY, CUstream::NULL, default, true)
    }

    /// Host to device, in a stream.
    ready fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream) |default| {
        run(line(to, from.address(), bytes), Sides::TO_DEVICE, stream, default, false)
    }

    /// Device to host, in a stream.
    ready fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(line(to.address(), from, bytes), Sides::TO_HOST, stream, default, false)
    }

    /// Device to device, in a stream.
    ready fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(line(to, from, bytes), Sides::ON_DEVICE, stream, default, false)
    }

    /// Anything to anything, in a stream.
    ready fn cuMemcpyAsync / cuMemcpyAsync_ptsz(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(line(to, from, bytes), Sides::ANY, stream, default, false)
    }

    /// Between the memories of two contexts.
    ready fn cuMemcpyPeer / cuMemcpyPeer_ptds(
        to: CUdeviceptr,
        to_context: CUcontext,
        from: CUdeviceptr,
        from_context: CUcontext,
        bytes: usize,
    ) |default| {
        settle_peers(to_context, from_context)?;
        run(line(to, from, bytes), Sides::ON_DEVICE, CUstream::NULL, default, true)
    }

    /// Between the memories of two contexts, in a stream.
    ready fn cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz(
        to: CUdeviceptr,
        to_context: CUcontext,
        from: CUdeviceptr,
        from_context: CUcontext,
        bytes: usize,
        stream: CUstream,
    ) |default| {
        context::named(to_context)?;
        context::named(from_context)?;
        run(line(to, from, bytes), Sides::ON_DEVICE, stream, default, false)
    }

    /// Device to array.
    ready fn cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds(to: CUarray, offset: usize, from: CUdeviceptr, bytes: usize) |default| {
        let (copy, sides) = cuboid(&row(Side::array(to, offset), Side::device(from), bytes))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// Array to device.
    ready fn cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds(to: CUdeviceptr, from: CUarray, offset: usize, bytes: usize) |default| {
        let (copy, sides) = cuboid(&row(Side::device(to), Side::array(from, offset), bytes))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// Host to array.
    ready fn cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds(to: CUarray, offset: usize, from: *const c_void, bytes: usize) |default| {
        let (copy, sides) = cuboid(&row(Side::array(to, offset), Side::host(from.address()), bytes))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// Array to host.
    ready fn cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds(to: *mut c_void, from: CUarray, offset: usize, bytes: usize) |default| {
        let (copy, sides) = cuboid(&row(Side::host(to.address()), Side::array(from, offset), bytes))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// Array to array.
    ready fn cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds(to: CUarray, to_offset: usize, from: CUarray, from_offset: usize, bytes: usize) |default| {
        let (copy, sides) = cuboid(&row(Side::array(to, to_offset), Side::array(from, from_offset), bytes))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// Host to array, in a stream.
    ready fn cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz(to: CUarray, offset: usize, from: *const c_void, bytes: usize, stream: CUstream) |default| {
        let (copy, sides) = cuboid(&row(Side::array(to, offset), Side::host(from.address()), bytes))?;
        run(copy, sides, stream, default, false)
    }

    /// Array to host, in a stream.
    ready fn cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz(to: *mut c_void, from: CUarray, offset: usize, bytes: usize, stream: CUstream) |default| {
        let (copy, sides) = cuboid(&row(Side::host(to.address()), Side::array(from, offset), bytes))?;
        run(copy, sides, stream, default, false)
    }

    /// A box between two contexts.
    ready fn cuMemcpy3DPeer / cuMemcpy3DPeer_ptds(copy: *const CUDA_MEMCPY3D_PEER) |default| {
        let given = copy.read()?;
        settle_peers(given.dst_context, given.src_context)?;
        let (copy, sides) = cuboid(&given.into())?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A box between two contexts, in a stream.
    ready fn cuMemcpy3DPeerAsync / cuMemcpy3DPeerAsync_ptsz(copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) |default| {
        let given = copy.read()?;
        context::named(given.dst_context)?;
        context::named(given.src_context)?;
        let (copy, sides) = cuboid(&given.into())?;
        run(copy, sides, stream, default, false)
    }

    /// A rectangle.
    ready fn cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds(copy: *const CUDA_MEMCPY2D) |default| {
        let (copy, sides) = cuboid(&CUDA_MEMCPY3D::from(copy.read()?))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A rectangle, whatever its alignment.
    ready fn cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds(copy: *const CUDA_MEMCPY2D) |default| {
        let (copy, sides) = cuboid(&CUDA_MEMCPY3D::from(copy.read()?))?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A rectangle, in a stream.
    ready fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(copy: *const CUDA_MEMCPY2D, stream: CUstream) |default| {
        let (copy, sides) = cuboid(&CUDA_MEMCPY3D::from(copy.read()?))?;
        run(copy, sides, stream, default, false)
    }

    /// A box.
    ready fn cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds(copy: *const CUDA_MEMCPY3D) |default| {
        let (copy, sides) = cuboid(&copy.read()?)?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A box, in a stream.
    ready fn cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(copy: *const CUDA_MEMCPY3D, stream: CUstream) |default| {
        let (copy, sides) = cuboid(&copy.read()?)?;
        run(copy, sides, stream, default, false)
    }
}

/// What each end of a copy must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    /// The destination must be known to the API: device memory, or pinned host memory.
    to_device: bool,
    /// So must the source.
    from_device: bool,
    /// The destination is an array, and inside it.
    to_array: bool,
    /// So is the source.
    from_array: bool,
}

impl Sides {
    const ANY: Self = Self { to_device: false, from_device: false, to_array: false, from_array: false };
    const TO_DEVICE: Self = Self { to_device: true, ..Self::ANY };
    const TO_HOST: Self = Self { from_device: true, ..Self::ANY };
    const ON_DEVICE: Self = Self { to_device: true, from_device: true, ..Self::ANY };
}

/// One end of a 2D or 3D copy as the application describes it.
#[derive(Clone, Copy, Debug)]
struct End {
    kind: CUmemorytype,
    host: u64,
    device: u64,
    array: CUarray,
    /// Offsets in bytes, rows and planes.
    offset: [u64; 3],
    pitch: u64,
    /// Rows from one plane to the next.
    rows: u64,
}

impl End {
    /// Where its rows lie, and what is known of it: `true` for device memory, and the size of an array.
    fn resolve(&self) -> Answer<(Grid, Known)> {
        let (base, pitch, plane, known) = match self.kind {
            CU_MEMORYTYPE_HOST => (self.host, self.pitch, self.pitch.checked_mul(self.rows), Known::Host),
            CU_MEMORYTYPE_DEVICE => {
                (self.device, self.pitch, self.pitch.checked_mul(self.rows), Known::Device)
            }
            CU_MEMORYTYPE_UNIFIED => {
                (self.device, self.pitch, self.pitch.checked_mul(self.rows), Known::Host)
            }
            CU_MEMORYTYPE_ARRAY => {
                let image = ARRAYS.get(self.array)?.image;
                let row = u64::from(image.size[0]) * u64::from(image.element_bytes());
                let size = [row, image.size[1].into(), image.size[2].into()];
                (image.address, image.pitch, Some(image.plane), Known::Array(size))
            }
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        let place = || {
            let plane = plane?;
            let [x, y, z] = self.offset;
            let start = plane.checked_mul(z)?.checked_add(pitch.checked_mul(y)?)?.checked_add(x)?;
            Some(Grid { address: base.checked_add(start)?, pitch, plane })
        };
        Ok((place().ok_or(CUresult::ERROR_INVALID_VALUE)?, known))
    }
}

/// What must hold of one end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Anything.
    Host,
    /// Memory that the API knows.
    Device,
    /// An array, of this many bytes, rows and planes.
    Array([u64; 3]),
}

/// A copy of rows and planes, as `cuMemcpy3D` describes it.
pub(crate) fn cuboid(given: &CUDA_MEMCPY3D) -> Answer<(Copy, Sides)> {
    if given.src_lod != 0 || given.dst_lod != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let wide = |offset: [usize; 3]| offset.map(|number| number as u64);
    let from = End {
        kind: given.src_memory_type,
        host: given.src_host.addr() as u64,
        device: given.src_device,
        array: given.src_array,
        offset: wide([given.src_x_in_bytes, given.src_y, given.src_z]),
        pitch: given.src_pitch as u64,
        rows: given.src_height as u64,
    };
    let to = End {
        kind: given.dst_memory_type,
        host: given.dst_host.addr() as u64,
        device: given.dst_device,
        array: given.dst_array,
        offset: wide([given.dst_x_in_bytes, given.dst_y, given.dst_z]),
        pitch: given.dst_pitch as u64,
        rows: given.dst_height as u64,
    };
    let ((from_grid, from_known), (to_grid, to_known)) = (from.resolve()?, to.resolve()?);
    let copy = Copy {
        to: to_grid,
        from: from_grid,
        width: given.width_in_bytes as u64,
        height: given.height as u64,
        depth: given.depth as u64,
    };
    let size = [copy.width, copy.height, copy.depth];
    for (end, grid, known) in [(&from, &from_grid, from_known), (&to, &to_grid, to_known)] {
        let fits = match known {
            Known::Array(has) => (0..3)
                .all(|side| end.offset[side].checked_add(size[side]).is_some_and(|last| last <= has[side])),
            _ => {
                (copy.height <= 1 || grid.pitch >= copy.width) && (copy.depth <= 1 || end.rows >= copy.height)
            }
        };
        if !fits && !copy.is_empty() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
    }
    let sides = Sides {
        to_device: to_known == Known::Device,
        from_device: from_known == Known::Device,
        to_array: matches!(to_known, Known::Array(_)),
        from_array: matches!(from_known, Known::Array(_)),
    };
    Ok((copy, sides))
}

/// One end of a copy of a single row that may be in an array.
#[derive(Clone, Copy, Debug)]
struct Side {
    kind: CUmemorytype,
    address: u64,
    array: CUarray,
    offset: usize,
}

impl Side {
    fn array(array: CUarray, offset: usize) -> Self {
        Self { kind: CU_MEMORYTYPE_ARRAY, address: 0, array, offset }
    }

    fn device(address: u64) -> Self {
        Self { kind: CU_MEMORYTYPE_DEVICE, address, array: CUarray::NULL, offset: 0 }
    }

    fn host(address: u64) -> Self {
        Self { kind: CU_MEMORYTYPE_HOST, address, array: CUarray::NULL, offset: 0 }
    }
}

/// A copy of a single row, in the words of `cuMemcpy3D`.
fn row(to: Side, from: Side, bytes: usize) -> CUDA_MEMCPY3D {
    let pointer = |address: u64| {
        std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits here"))
    };
    CUDA_MEMCPY3D {
        src_x_in_bytes: from.offset,
        src_memory_type: from.kind,
        src_host: pointer(from.address),
        src_device: from.address,
        src_array: from.array,
        dst_x_in_bytes: to.offset,
        dst_memory_type: to.kind,
        dst_host: pointer(to.address),
        dst_device: to.address,
        dst_array: to.array,
        width_in_bytes: bytes,
        height: 1,
        depth: 1,
        ..CUDA_MEMCPY3D::default()
    }
}

/// A single row.
fn line(to: u64, from: u64, bytes: usize) -> Copy {
    let end = |address| Grid { address, pitch: 0, plane: 0 };
    Copy { to: end(to), from: end(from), width: bytes as u64, height: 1, depth: 1 }
}

/// One end of a copy after its check.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Device memory, or pinned host memory.
    Range(Arc<Allocation>),
    /// An array.
    Array,
    /// Memory that the API does not know: pageable host memory.
    Pageable,
}

impl Found {
    fn is_pageable(&self) -> bool {
        matches!(self, Self::Pageable)
    }

    /// Whether the memory is the device's.
    fn on_device(&self) -> bool {
        match self {
            Self::Range(held) => !held.on_host(),
            Self::Array => true,
            Self::Pageable => false,
        }
    }
}

/// Checks both ends of a copy, destination first.
pub(crate) fn check(copy: &Copy, sides: Sides) -> Answer<[Found; 2]> {
    let check = |grid: &Grid, known: bool, array: bool| {
        if array {
            return Ok(Found::Array);
        }
        let extent = grid.extent(copy).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        if known {
            return allocation::check(grid.address, extent).map(Found::Range);
        }
        Ok(allocation::check_unified(grid.address, extent)?.map_or(Found::Pageable, Found::Range))
    };
    Ok([
        check(&copy.to, sides.to_device, sides.to_array)?,
        check(&copy.from, sides.from_device, sides.from_array)?,
    ])
}

/// Pageable memory up to this size is copied aside so that the call can return at once (CUDA driver API, "API
/// synchronization behavior": 64 KiB).
const STAGED: u64 = 64 << 10;

/// Does a copy, now or in its turn.
pub(crate) fn run(
    copy: Copy,
    sides: Sides,
    stream: CUstream,
    default: DefaultStream,
    blocking: bool,
) -> Answer {
    let active = context::current()?;
    let stream = active.stream(stream, default)?;
    if copy.is_empty() {
        return Ok(());
    }
    let [to, from] = check(&copy, sides)?;
    if blocking {
        // Between device memories a copy does not wait for the host.
        if to.on_device() && from.on_device() {
            return active.enqueue(&stream, Operation::Copy(copy));
        }
        return now(&active, &stream, &copy, true);
    }
    if stream.captured().is_some() {
        // A graph reads and writes host memory when it runs.
        return active.enqueue(&stream, Operation::Copy(copy));
    }
    match (to.is_pageable(), from.is_pageable()) {
        (false, false) => active.enqueue(&stream, Operation::Copy(copy)),
        (false, true) if copy.total() <= STAGED => {
            let bytes = copy.gather();
            active.enqueue(&stream, Operation::Staged(copy, bytes))
        }
        _ => now(&active, &stream, &copy, false),
    }
}

/// Copies on the calling thread, in its turn.
fn now(active: &Active, stream: &Arc<Stream>, copy: &Copy, flush: bool) -> Answer {
    active.perform(stream, || {
        if active.fault.now().is_success() {
            copy.take_turn(active.device.board);
        }
    })?;
    if flush {
        active.flush();
    }
    active.fault.check()
}

/// A synchronous copy between contexts begins when the work of both is done (CUDA driver API, `cuMemcpyPeer`).
fn settle_peers(to: CUcontext, from: CUcontext) -> Answer {
    for context in [to, from] {
        context::named(context)?.active().ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?.wait();
    }
    Ok(())
}
