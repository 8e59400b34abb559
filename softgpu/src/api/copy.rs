//! Copies (CUDA driver API, section "Memory management": `cuMemcpy…`).
//!
//! Every form becomes a [`Copy`]: rows and planes of bytes between two addresses. Ranges that the API knows are
//! checked at the call; anything else is pageable host memory, for which copies are synchronous or staged, as the
//! manual's "API synchronization behavior" says.

use super::{Answer, DefaultStream, driver_fns};
use crate::device::allocation::{self, Allocation};
use crate::device::context::{self, Active};
use crate::device::stream::Stream;
use pxos_protocol::types::{CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUcontext, CUdeviceptr, CUresult, CUstream};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

driver_fns! {
    /// Host to device.
    ready fn cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds(to: CUdeviceptr, from: *const c_void, bytes: usize) |default| {
        run(Copy::line(to, from.address(), bytes), Sides::TO_DEVICE, CUstream::NULL, default, true)
    }

    /// Device to host.
    ready fn cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(to: *mut c_void, from: CUdeviceptr, bytes: usize) |default| {
        run(Copy::line(to.address(), from, bytes), Sides::TO_HOST, CUstream::NULL, default, true)
    }

    /// Device to device.
    ready fn cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) |default| {
        run(Copy::line(to, from, bytes), Sides::ON_DEVICE, CUstream::NULL, default, true)
    }

    /// Anything to anything.
    ready fn cuMemcpy / cuMemcpy_ptds(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) |default| {
        run(Copy::line(to, from, bytes), Sides::ANY, CUstream::NULL, default, true)
    }

    /// Host to device, in a stream.
    ready fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream) |default| {
        run(Copy::line(to, from.address(), bytes), Sides::TO_DEVICE, stream, default, false)
    }

    /// Device to host, in a stream.
    ready fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(Copy::line(to.address(), from, bytes), Sides::TO_HOST, stream, default, false)
    }

    /// Device to device, in a stream.
    ready fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(Copy::line(to, from, bytes), Sides::ON_DEVICE, stream, default, false)
    }

    /// Anything to anything, in a stream.
    ready fn cuMemcpyAsync / cuMemcpyAsync_ptsz(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) |default| {
        run(Copy::line(to, from, bytes), Sides::ANY, stream, default, false)
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
        run(Copy::line(to, from, bytes), Sides::ON_DEVICE, CUstream::NULL, default, true)
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
        run(Copy::line(to, from, bytes), Sides::ON_DEVICE, stream, default, false)
    }

    /// A rectangle.
    ready fn cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds(copy: *const CUDA_MEMCPY2D) |default| {
        let (copy, sides) = rectangle(&copy.read()?)?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A rectangle, whatever its alignment.
    ready fn cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds(copy: *const CUDA_MEMCPY2D) |default| {
        let (copy, sides) = rectangle(&copy.read()?)?;
        run(copy, sides, CUstream::NULL, default, true)
    }

    /// A rectangle, in a stream.
    ready fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(copy: *const CUDA_MEMCPY2D, stream: CUstream) |default| {
        let (copy, sides) = rectangle(&copy.read()?)?;
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
struct Sides {
    /// The destination must be known to the API: device memory, or pinned host memory.
    to_device: bool,
    /// So must the source.
    from_device: bool,
}

impl Sides {
    const TO_DEVICE: Self = Self { to_device: true, from_device: false };
    const TO_HOST: Self = Self { to_device: false, from_device: true };
    const ON_DEVICE: Self = Self { to_device: true, from_device: true };
    const ANY: Self = Self { to_device: false, from_device: false };
}

/// Rows of `width` bytes, `height` of them in a plane, `depth` planes.
#[derive(Clone, Copy, Debug)]
struct Copy {
    to: Grid,
    from: Grid,
    width: u64,
    height: u64,
    depth: u64,
}

/// Where the rows of one end lie.
#[derive(Clone, Copy, Debug)]
struct Grid {
    address: u64,
    pitch: u64,
    plane: u64,
}

impl Grid {
    /// One end of a 2D or 3D copy: memory type, addresses, offsets in bytes, rows and planes, pitch and rows per plane.
    fn resolve(
        kind: u32,
        host: u64,
        device: u64,
        (x, y, z): (usize, usize, usize),
        pitch: usize,
        rows: usize,
    ) -> Answer<(Self, bool)> {
        let (address, on_device) = match kind {
            1 => (host, false),
            2 => (device, true),
            4 => (device, false),
            3 => return Err(CUresult::ERROR_NOT_SUPPORTED),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        let (pitch, rows) = (pitch as u64, rows as u64);
        let place = || {
            let plane = pitch.checked_mul(rows)?;
            let start = plane.checked_mul(z as u64)?.checked_add(pitch.checked_mul(y as u64)?)?.checked_add(x as u64)?;
            Some(Self { address: address.checked_add(start)?, pitch, plane })
        };
        Ok((place().ok_or(CUresult::ERROR_INVALID_VALUE)?, on_device))
    }

    /// How many bytes from the first to the last that a copy touches.
    fn extent(&self, copy: &Copy) -> Option<u64> {
        let rows = self.pitch.checked_mul(copy.height - 1)?;
        let planes = self.plane.checked_mul(copy.depth - 1)?;
        rows.checked_add(planes)?.checked_add(copy.width)
    }
}

fn rectangle(given: &CUDA_MEMCPY2D) -> Answer<(Copy, Sides)> {
    let src = (given.src_x_in_bytes, given.src_y, 0);
    let dst = (given.dst_x_in_bytes, given.dst_y, 0);
    let host = given.src_host.addr() as u64;
    let from = Grid::resolve(given.src_memory_type, host, given.src_device, src, given.src_pitch, 1)?;
    let host = given.dst_host.addr() as u64;
    let to = Grid::resolve(given.dst_memory_type, host, given.dst_device, dst, given.dst_pitch, 1)?;
    Copy::checked(to, from, given.width_in_bytes, given.height, 1)
}

fn cuboid(given: &CUDA_MEMCPY3D) -> Answer<(Copy, Sides)> {
    if given.src_lod != 0 || given.dst_lod != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let src = (given.src_x_in_bytes, given.src_y, given.src_z);
    let dst = (given.dst_x_in_bytes, given.dst_y, given.dst_z);
    let host = given.src_host.addr() as u64;
    let from =
        Grid::resolve(given.src_memory_type, host, given.src_device, src, given.src_pitch, given.src_height)?;
    let host = given.dst_host.addr() as u64;
    let to = Grid::resolve(given.dst_memory_type, host, given.dst_device, dst, given.dst_pitch, given.dst_height)?;
    let rows_fit = |rows: usize| given.depth <= 1 || rows >= given.height;
    if !rows_fit(given.src_height) || !rows_fit(given.dst_height) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Copy::checked(to, from, given.width_in_bytes, given.height, given.depth)
}

impl Copy {
    /// A single row.
    fn line(to: u64, from: u64, bytes: usize) -> Self {
        let end = |address| Grid { address, pitch: 0, plane: 0 };
        Self { to: end(to), from: end(from), width: bytes as u64, height: 1, depth: 1 }
    }

    fn checked(
        (to, to_device): (Grid, bool),
        (from, from_device): (Grid, bool),
        width: usize,
        height: usize,
        depth: usize,
    ) -> Answer<(Self, Sides)> {
        let copy = Self { to, from, width: width as u64, height: height as u64, depth: depth as u64 };
        let pitch_fits = |grid: &Grid| height <= 1 || grid.pitch >= copy.width;
        if !copy.is_empty() && (!pitch_fits(&to) || !pitch_fits(&from)) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Ok((copy, Sides { to_device, from_device }))
    }

    fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Checks both ends and tells what the API knows of them.
    fn check(&self, sides: Sides) -> Answer<[Option<Arc<Allocation>>; 2]> {
        let check = |grid: &Grid, known: bool| {
            let extent = grid.extent(self).ok_or(CUresult::ERROR_INVALID_VALUE)?;
            if known {
                allocation::check(grid.address, extent).map(Some)
            } else {
                allocation::check_unified(grid.address, extent)
            }
        };
        Ok([check(&self.to, sides.to_device)?, check(&self.from, sides.from_device)?])
    }

    /// Moves the bytes.
    fn execute(&self) {
        for plane in 0..self.depth {
            for row in 0..self.height {
                let at = |grid: &Grid| grid.address + plane * grid.plane + row * grid.pitch;
                move_bytes(at(&self.to), at(&self.from), self.width);
            }
        }
    }

    /// The bytes of the source, row by row.
    fn gather(&self) -> Vec<u8> {
        let width = usize::try_from(self.width).expect("addresses have 64 bits here");
        let mut bytes = Vec::new();
        for plane in 0..self.depth {
            for row in 0..self.height {
                let from = self.from.address + plane * self.from.plane + row * self.from.pitch;
                let filled = bytes.len();
                bytes.resize(filled + width, 0);
                let to = bytes[filled..].as_mut_ptr().expose_provenance() as u64;
                move_bytes(to, from, self.width);
            }
        }
        bytes
    }

    fn total(&self) -> u64 {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }
}

/// Moves bytes between addresses of this process, which may overlap.
fn move_bytes(to: u64, from: u64, bytes: u64) {
    let size = |number: u64| usize::try_from(number).expect("addresses have 64 bits here");
    let source = std::ptr::with_exposed_provenance::<u8>(size(from));
    let target = std::ptr::with_exposed_provenance_mut::<u8>(size(to));
    // SAFETY: each end was checked at the call to lie in a range that the API knows, whose memory stays mapped until
    // the work submitted before its end is done, or is host memory that the caller vouches for while it waits.
    unsafe { std::ptr::copy(source, target, size(bytes)) }
}

/// Pageable memory up to this size is copied aside so that the call can return at once (CUDA driver API, "API
/// synchronization behavior": 64 KiB).
const STAGED: u64 = 64 << 10;

/// Does a copy, now or in its turn.
fn run(copy: Copy, sides: Sides, stream: CUstream, default: DefaultStream, blocking: bool) -> Answer {
    let active = context::current()?;
    let stream = active.stream(stream, default)?;
    if copy.is_empty() {
        return Ok(());
    }
    let [to, from] = copy.check(sides)?;
    let on_device = |side: &Option<Arc<Allocation>>| side.as_ref().is_some_and(|held| !held.on_host());
    if blocking {
        // Between device memories a copy does not wait for the host, unless the memory asks for it.
        let asked = |side: &Option<Arc<Allocation>>| {
            side.as_ref().is_some_and(|held| held.synchronous.load(Ordering::Relaxed) && held.on_host())
        };
        if on_device(&to) && on_device(&from) && !asked(&to) && !asked(&from) {
            enqueue(&active, &stream, copy);
            return Ok(());
        }
        return now(&active, &stream, &copy, true);
    }
    match (to.is_some(), from.is_some()) {
        (true, true) => enqueue(&active, &stream, copy),
        (true, false) if copy.total() <= STAGED => {
            let bytes = copy.gather();
            let staged = Copy {
                from: Grid {
                    address: 0,
                    pitch: copy.width,
                    plane: copy.width * copy.height,
                },
                ..copy
            };
            let work = move |status: CUresult| {
                if status.is_success() {
                    let address = bytes.as_ptr().expose_provenance() as u64;
                    Copy { from: Grid { address, ..staged.from }, ..staged }.execute();
                }
                Ok(())
            };
            active.submit(&stream, Vec::new(), Box::new(work));
        }
        _ => return now(&active, &stream, &copy, false),
    }
    Ok(())
}

fn enqueue(active: &Active, stream: &Arc<Stream>, copy: Copy) {
    let work = move |status: CUresult| {
        if status.is_success() {
            copy.execute();
        }
        Ok(())
    };
    active.submit(stream, Vec::new(), Box::new(work));
}

/// Copies on the calling thread, in its turn.
fn now(active: &Active, stream: &Arc<Stream>, copy: &Copy, flush: bool) -> Answer {
    active.perform(stream, || {
        if active.fault.now().is_success() {
            copy.execute();
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_planes_land_where_they_should() {
        let source: Vec<u8> = (0..60).collect();
        let mut target = vec![0u8; 200];
        let from = Grid { address: source.as_ptr().expose_provenance() as u64, pitch: 5, plane: 20 };
        let to = Grid { address: target.as_mut_ptr().expose_provenance() as u64, pitch: 10, plane: 60 };
        let copy = Copy { to, from, width: 3, height: 4, depth: 3 };
        copy.execute();
        for plane in 0..3 {
            for row in 0..4 {
                for column in 0..3 {
                    assert_eq!(target[plane * 60 + row * 10 + column], source[plane * 20 + row * 5 + column]);
                }
            }
        }
        assert_eq!(copy.gather().len(), 36);
        assert_eq!(copy.gather()[3..6], source[5..8]);
        assert_eq!(from.extent(&copy), Some(2 * 20 + 3 * 5 + 3));
    }
}
