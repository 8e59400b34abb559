//! What streams and graphs are made of: copies, fills, kernels, host functions, each complete in itself and run as
//! often as wanted.

use super::allocation;
use super::context::Active;
use super::kernel::{self, Shape, Target};
use super::lab;
use super::stream::as_callback;
use pxos_protocol::types::CUresult;
use std::ffi::c_void;

/// One piece of device work.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Moves bytes.
    Copy(Copy),
    /// Moves bytes that were put aside at the call, row by row.
    Staged(Copy, Vec<u8>),
    /// Fills memory.
    Fill(Fill),
    /// Runs a kernel.
    Kernel(Launch),
    /// Calls a host function.
    Host(HostCall),
}

/// A kernel with everything that it needs.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// What runs.
    pub(crate) target: Target,
    /// How large.
    pub(crate) shape: Shape,
    /// The parameter buffer.
    pub(crate) parameters: Vec<u8>,
}

/// A host function and its argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostCall {
    /// The application's function.
    pub(crate) function: unsafe extern "C" fn(*mut c_void),
    /// What it is called with.
    pub(crate) data: *mut c_void,
}

// SAFETY: the application gave both to be used on a thread of the driver.
unsafe impl Send for HostCall {}
// SAFETY: as above.
unsafe impl Sync for HostCall {}

impl Operation {
    /// Does it, unless the context is beyond that.
    ///
    /// # Errors
    /// The fault of a kernel.
    pub(crate) fn run(&self, active: &Active) -> Result<(), CUresult> {
        if active.fault.check().is_err() {
            return Ok(());
        }
        match self {
            Self::Copy(copy) => copy.take_turn(active.device.board),
            Self::Staged(copy, bytes) => {
                lab::occupy_engine(active.device.board, true, copy.total(), || copy.scatter(bytes));
            }
            Self::Fill(fill) => fill.execute(),
            Self::Kernel(launch) => {
                if !active.is_ending() {
                    kernel::run(active, &launch.target, &launch.shape, &launch.parameters)?;
                    lab::occupy(active.device.board, &launch.shape);
                }
            }
            Self::Host(call) => {
                active.flush();
                // SAFETY: the application gave the function for exactly this call, and its data with it.
                as_callback(|| unsafe { (call.function)(call.data) });
            }
        }
        Ok(())
    }
}

/// Rows of `width` bytes, `height` of them in a plane, `depth` planes, from one place to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    /// Destination.
    pub(crate) to: Grid,
    /// Source.
    pub(crate) from: Grid,
    /// Bytes of a row.
    pub(crate) width: u64,
    /// Rows of a plane.
    pub(crate) height: u64,
    /// Planes.
    pub(crate) depth: u64,
}

/// Where the rows of one end of a copy lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    /// The first byte.
    pub(crate) address: u64,
    /// From one row to the next.
    pub(crate) pitch: u64,
    /// From one plane to the next.
    pub(crate) plane: u64,
}

impl Grid {
    /// How many bytes from the first to the last that a copy touches; `None` for more than there are addresses.
    pub(crate) fn extent(&self, copy: &Copy) -> Option<u64> {
        let rows = self.pitch.checked_mul(copy.height - 1)?;
        let planes = self.plane.checked_mul(copy.depth - 1)?;
        rows.checked_add(planes)?.checked_add(copy.width)
    }

    fn row(&self, plane: u64, row: u64) -> u64 {
        self.address + plane * self.plane + row * self.pitch
    }
}

impl Copy {
    /// Whether nothing is to be copied.
    pub(crate) fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// All bytes.
    pub(crate) fn total(&self) -> u64 {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }

    /// Moves the bytes.
    fn execute(&self) {
        self.each_row(|to, from| move_bytes(to, from, self.width));
    }

    /// Moves the bytes, on the engine of its direction if one of its ends is the host's and the model knows of copies.
    pub(crate) fn take_turn(&self, device: i32) {
        if !lab::times_copies() {
            return self.execute();
        }
        let is_device = |address| allocation::find(address).is_some_and(|found| !found.on_host());
        let (to, from) = (is_device(self.to.address), is_device(self.from.address));
        if to == from {
            return self.execute();
        }
        lab::occupy_engine(device, to, self.total(), || self.execute());
    }

    /// The bytes of the source, row by row.
    pub(crate) fn gather(&self) -> Vec<u8> {
        let width = to_usize(self.width);
        let mut bytes = Vec::new();
        self.each_row(|_, from| {
            let filled = bytes.len();
            bytes.resize(filled + width, 0);
            move_bytes(bytes[filled..].as_mut_ptr().expose_provenance() as u64, from, self.width);
        });
        bytes
    }

    /// Writes what [`Copy::gather`] gave to the destination.
    fn scatter(&self, bytes: &[u8]) {
        let mut rows = bytes.chunks(to_usize(self.width));
        self.each_row(|to, _| {
            let row = rows.next().expect("gathered by the same copy");
            move_bytes(to, row.as_ptr().expose_provenance() as u64, self.width);
        });
    }

    fn each_row(&self, mut visit: impl FnMut(u64, u64)) {
        for plane in 0..self.depth {
            for row in 0..self.height {
                visit(self.to.row(plane, row), self.from.row(plane, row));
            }
        }
    }
}

/// Rows of equal elements.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    /// The first byte.
    pub(crate) address: u64,
    /// From one row to the next.
    pub(crate) pitch: u64,
    /// The element: 1, 2 or 4 bytes.
    pub(crate) value: Vec<u8>,
    /// Elements of a row.
    pub(crate) width: u64,
    /// Rows.
    pub(crate) height: u64,
}

impl Fill {
    fn execute(&self) {
        for row in 0..self.height {
            fill(self.address + row * self.pitch, &self.value, to_usize(self.width));
        }
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("addresses have 64 bits here")
}

/// Moves bytes between addresses of this process, which may overlap.
fn move_bytes(to: u64, from: u64, bytes: u64) {
    let source = std::ptr::with_exposed_provenance::<u8>(to_usize(from));
    let target = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(to));
    // SAFETY: each end was checked at the call to lie in a range that the API knows, whose memory stays mapped until
    // the work submitted before its end is done, or is host memory that the caller vouches for while it waits.
    unsafe { std::ptr::copy(source, target, to_usize(bytes)) }
}

/// Writes a value many times.
fn fill(to: u64, value: &[u8], count: usize) {
    let target = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(to));
    if let [byte] = value {
        // SAFETY: the range was checked at the call, and stays mapped until the work before its end is done.
        unsafe { target.write_bytes(*byte, count) };
        return;
    }
    for index in 0..count {
        // SAFETY: as above; `index` is below `count`.
        unsafe { target.add(index * value.len()).copy_from_nonoverlapping(value.as_ptr(), value.len()) };
    }
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
        let check = |target: &[u8]| {
            for (plane, row, column) in (0..36).map(|i| (i / 12, i / 3 % 4, i % 3)) {
                assert_eq!(target[plane * 60 + row * 10 + column], source[plane * 20 + row * 5 + column]);
            }
        };
        check(&target);
        let bytes = copy.gather();
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[3..6], source[5..8]);
        target.fill(0);
        copy.scatter(&bytes);
        check(&target);
        assert_eq!(from.extent(&copy), Some(2 * 20 + 3 * 5 + 3));
    }

    #[test]
    fn fills_keep_to_their_rows() {
        let mut target = vec![0u8; 40];
        let address = target.as_mut_ptr().expose_provenance() as u64;
        Fill { address, pitch: 12, value: vec![1, 2, 3, 4], width: 2, height: 3 }.execute();
        for (index, byte) in target.iter().enumerate() {
            let want =
                if index % 12 < 8 && index < 32 { u8::try_from(index % 12 % 4 + 1).unwrap() } else { 0 };
            assert_eq!(*byte, want, "{index}");
        }
    }
}
