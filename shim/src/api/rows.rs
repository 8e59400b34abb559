//! Rows and planes of the application's memory, gathered and scattered: how host memory that the worker cannot reach
//! takes part in copies that know a pitch or an array.
//!
//! A copy is cut into slabs, whole planes where they fit, else whole rows, else pieces of a row, that follow one another in
//! the stream.

use pxos_protocol::types::Place;

/// One end of a copy in linear memory: a row every `pitch` bytes, a plane every `rows` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    /// First byte of the first row.
    pub(super) address: u64,
    /// Bytes from row to row.
    pub(super) pitch: u64,
    /// Rows from plane to plane.
    pub(super) rows: u64,
}

impl Linear {
    /// The same from another byte, row and plane on.
    pub(super) fn moved(&self, [x, y, z]: [u64; 3]) -> Self {
        let offset = (z * self.rows + y) * self.pitch + x;
        Self { address: self.address + offset, ..*self }
    }

    fn row(&self, y: u64, z: u64) -> *mut u8 {
        let address = self.moved([0, y, z]).address;
        std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("a host address"))
    }
}

/// A part of a copy: where it begins within the whole, and how much it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slab {
    /// Bytes, rows, planes before it.
    pub(super) at: [u64; 3],
    /// Bytes, rows, planes of it.
    pub(super) extent: [u64; 3],
}

impl Slab {
    /// All its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.extent.iter().product()
    }
}

/// Cuts a copy into slabs of at most `limit` bytes (at least 16, so that no element is cut), in order.
pub(super) fn slabs(extent: [u64; 3], limit: u64) -> impl Iterator<Item = Slab> {
    let [width, height, depth] = extent;
    let step = if width > limit {
        [limit & !15, 1, 1]
    } else if width * height > limit {
        [width, limit / width, 1]
    } else {
        [width, height, limit / (width * height)]
    };
    let starts = |whole: u64, step: u64| (0..whole).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    starts(depth, step[2]).flat_map(move |z| {
        starts(height, step[1]).flat_map(move |y| {
            starts(width, step[0]).map(move |x| Slab {
                at: [x, y, z],
                extent: [step[0].min(width - x), step[1].min(height - y), step[2].min(depth - z)],
            })
        })
    })
}

/// A host size of something that lies in memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("what lies in memory has a size")
}

/// Copies a slab's rows to `packed`, without gaps.
///
/// # Safety
/// The rows of the slab may be read, and `packed` written for all its bytes.
pub(super) unsafe fn gather(from: &Linear, slab: &Slab, packed: *mut u8) {
    let from = from.moved(slab.at);
    let [width, height, depth] = slab.extent;
    for z in 0..depth {
        for y in 0..height {
            let offset = size((z * height + y) * width);
            // SAFETY: a row of the slab, and its place in the buffer of all of them.
            unsafe { std::ptr::copy_nonoverlapping(from.row(y, z), packed.add(offset), size(width)) };
        }
    }
}

/// Copies `packed` to a slab's rows.
///
/// # Safety
/// The rows of the slab may be written, and `packed` read for all its bytes.
pub(super) unsafe fn scatter(to: &Linear, slab: &Slab, packed: *const u8) {
    let to = to.moved(slab.at);
    let [width, height, depth] = slab.extent;
    for z in 0..depth {
        for y in 0..height {
            let offset = size((z * height + y) * width);
            // SAFETY: a row of the slab, and its place in the buffer of all of them.
            unsafe { std::ptr::copy_nonoverlapping(packed.add(offset), to.row(y, z), size(width)) };
        }
    }
}

/// Copies rows from host memory to host memory.
///
/// # Safety
/// All rows of both ends are valid.
pub(super) unsafe fn across(to: &Linear, from: &Linear, [width, height, depth]: [u64; 3]) {
    for z in 0..depth {
        for y in 0..height {
            // SAFETY: a row of each end; they may overlap.
            unsafe { std::ptr::copy(from.row(y, z), to.row(y, z), size(width)) };
        }
    }
}

/// Where a slab lies within a place that is not the application's pageable memory.
pub(super) fn part(place: Place, slab: &Slab) -> Place {
    let [x, y, z] = slab.at;
    match place {
        Place::Device { address, pitch, rows } => {
            let Linear { address, pitch, rows } = Linear { address, pitch, rows }.moved(slab.at);
            Place::Device { address, pitch, rows }
        }
        Place::Pinned { address, pitch, rows } => {
            let Linear { address, pitch, rows } = Linear { address, pitch, rows }.moved(slab.at);
            Place::Pinned { address, pitch, rows }
        }
        Place::Array { array, at } => Place::Array { array, at: [at[0] + x, at[1] + y, at[2] + z] },
        packed @ (Place::Payload | Place::Staged { .. }) => packed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(extent: [u64; 3], limit: u64) -> Vec<Slab> {
        let mut seen = vec![0_u8; size(extent.iter().product())];
        let slabs: Vec<Slab> = slabs(extent, limit).collect();
        for slab in &slabs {
            assert!(slab.bytes() <= limit && slab.bytes() > 0, "{slab:?}");
            for z in 0..slab.extent[2] {
                for y in 0..slab.extent[1] {
                    for x in 0..slab.extent[0] {
                        let [at_x, at_y, at_z] = slab.at;
                        seen[size(((at_z + z) * extent[1] + at_y + y) * extent[0] + at_x + x)] += 1;
                    }
                }
            }
        }
        assert!(seen.iter().all(|count| *count == 1), "{extent:?} in {limit}");
        slabs
    }

    #[test]
    fn slabs_cover_everything_once() {
        assert_eq!(covered([7, 5, 3], 1000).len(), 1);
        assert_eq!(covered([7, 5, 3], 70).len(), 2);
        assert_eq!(covered([7, 5, 3], 35).len(), 3);
        assert_eq!(covered([7, 5, 3], 20).len(), 9);
        assert_eq!(covered([100, 2, 2], 40).len(), 16);
        assert_eq!(covered([1, 1, 1], 16).len(), 1);
    }

    #[test]
    fn rows_come_back_where_they_were() {
        let source: Vec<u8> = (0..240).collect();
        let mut target = vec![255_u8; 400];
        let from = Linear { address: source.as_ptr().expose_provenance() as u64, pitch: 10, rows: 8 };
        let to = Linear { address: target.as_mut_ptr().expose_provenance() as u64, pitch: 16, rows: 8 };
        let extent = [6, 5, 3];
        for slab in slabs(extent, 24) {
            let mut packed = vec![0_u8; size(slab.bytes())];
            // SAFETY: buffers of this test, larger than the copy.
            unsafe {
                gather(&from, &slab, packed.as_mut_ptr());
                scatter(&to, &slab, packed.as_ptr());
            }
        }
        let mut direct = vec![255_u8; 400];
        let other = Linear { address: direct.as_mut_ptr().expose_provenance() as u64, ..to };
        // SAFETY: as above.
        unsafe { across(&other, &from, extent) };
        assert_eq!(target, direct);
        assert_eq!(target[(2 * 8 + 4) * 16 + 5], source[(2 * 8 + 4) * 10 + 5]);
        assert_eq!(target[6], 255);
    }

    #[test]
    fn a_slab_of_an_array_begins_where_it_lies() {
        let slab = Slab { at: [32, 2, 1], extent: [16, 1, 1] };
        let array = pxos_protocol::types::CUarray(9);
        assert_eq!(
            part(Place::Array { array, at: [4, 5, 6] }, &slab),
            Place::Array { array, at: [36, 7, 7] }
        );
        assert_eq!(
            part(Place::Device { address: 1000, pitch: 100, rows: 10 }, &slab),
            Place::Device { address: 1000 + 1000 + 200 + 32, pitch: 100, rows: 10 }
        );
    }
}
