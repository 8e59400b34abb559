//! How copies of rows and planes cross the wire: one form for every function that knows an array or a pitch.
//!
//! The guest has resolved the application's structure: offsets of linear memory are part of the address, and host memory
//! that the host cannot reach is the frame's own bytes, rows without gaps.

use super::CUarray;
use crate::codec::{DecodeError, Reader, Writer};
use crate::frame::MAX_PAYLOAD;

/// Where one end of a copy lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the frame (to the device) or in the answer (to the host): rows and planes without gaps.
    Payload,
    /// At a device address; a row every `pitch` bytes, a plane every `rows` rows.
    #[expect(missing_docs, reason = "described above")]
    Device { address: u64, pitch: u64, rows: u64 },
    /// In page-locked memory that lies at one address on both sides, likewise.
    #[expect(missing_docs, reason = "described above")]
    Pinned { address: u64, pitch: u64, rows: u64 },
    /// In a slot of the staging area, without gaps.
    #[expect(missing_docs, reason = "described above")]
    Staged { slot: u64 },
    /// In an array, from this byte of a row, row and plane on.
    #[expect(missing_docs, reason = "described above")]
    Array { array: CUarray, at: [u64; 3] },
}

impl Place {
    fn encode(self, writer: &mut Writer<'_>) {
        let (kind, fields) = match self {
            Self::Payload => (0_u32, [0; 4]),
            Self::Device { address, pitch, rows } => (1, [address, pitch, rows, 0]),
            Self::Pinned { address, pitch, rows } => (2, [address, pitch, rows, 0]),
            Self::Array { array, at: [x, y, z] } => (3, [array.0, x, y, z]),
            Self::Staged { slot } => (4, [slot, 0, 0, 0]),
        };
        writer.put(kind);
        fields.into_iter().for_each(|field| writer.put(field));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind: u32 = reader.get()?;
        let mut fields = [0_u64; 4];
        for field in &mut fields {
            *field = reader.get()?;
        }
        let [first, second, third, fourth] = fields;
        match kind {
            0 => Ok(Self::Payload),
            1 => Ok(Self::Device { address: first, pitch: second, rows: third }),
            2 => Ok(Self::Pinned { address: first, pitch: second, rows: third }),
            3 => Ok(Self::Array { array: CUarray(first), at: [second, third, fourth] }),
            4 => Ok(Self::Staged { slot: first }),
            other => Err(DecodeError::Value(other.into())),
        }
    }
}

/// A copy of `extent[1]` rows of `extent[0]` bytes in each of `extent[2]` planes; none of them is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxCopy {
    /// Where the bytes go.
    pub to: Place,
    /// Where they come from.
    pub from: Place,
    /// Bytes, rows, planes.
    pub extent: [u64; 3],
}

impl BoxCopy {
    /// Writes it for the wire.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        self.extent.into_iter().for_each(|side| writer.put(side));
        self.to.encode(writer);
        self.from.encode(writer);
    }

    /// Reads it from the wire. A copy with bytes in a frame has no more of them than a frame holds, and not both ends
    /// there.
    ///
    /// # Errors
    /// [`DecodeError`] where the payload is short, or says what no correct guest says.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut extent = [0; 3];
        for side in &mut extent {
            *side = reader.get()?;
        }
        let copy = Self { extent, to: Place::decode(reader)?, from: Place::decode(reader)? };
        if extent.contains(&0) {
            return Err(DecodeError::Value(0));
        }
        match [copy.to, copy.from].iter().filter(|place| **place == Place::Payload).count() {
            0 => {}
            1 => {
                let (claimed, limit) = (copy.bytes().unwrap_or(u64::MAX), MAX_PAYLOAD as u64);
                if claimed > limit {
                    return Err(DecodeError::TooLong { claimed, limit });
                }
            }
            _ => return Err(DecodeError::Value(0)),
        }
        Ok(copy)
    }

    /// All bytes that it moves; `None` where that is no number.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let [width, height, depth] = self.extent;
        width.checked_mul(height)?.checked_mul(depth)
    }

    /// From the first byte of a linear end to the last: how much memory must lie behind its address. `None` where that is no
    /// number, or where rows or planes lie over each other: the last of them need not be where the copy ends then.
    #[must_use]
    pub fn reach(&self, pitch: u64, rows: u64) -> Option<u64> {
        let [width, height, depth] = self.extent;
        if pitch < width || (depth > 1 && rows < height) {
            return None;
        }
        let planes = pitch.checked_mul(rows)?.checked_mul(depth - 1)?;
        pitch.checked_mul(height - 1)?.checked_add(planes)?.checked_add(width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(copy: &BoxCopy) -> Result<BoxCopy, DecodeError> {
        let mut buffer = Vec::new();
        copy.encode(&mut Writer::new(&mut buffer));
        BoxCopy::decode(&mut Reader::new(&buffer))
    }

    #[test]
    fn copies_cross_as_they_are() {
        let places = [
            Place::Payload,
            Place::Device { address: 0x7f00, pitch: 512, rows: 9 },
            Place::Pinned { address: 0x3000_0000_1000, pitch: 64, rows: 3 },
            Place::Staged { slot: 11 },
            Place::Array { array: CUarray(0x5c00_0000_0001), at: [8, 1, 2] },
        ];
        for to in places {
            for from in places.into_iter().filter(|from| *from != Place::Payload || to != Place::Payload) {
                let copy = BoxCopy { to, from, extent: [60, 7, 3] };
                assert_eq!(crossed(&copy), Ok(copy));
            }
        }
    }

    #[test]
    fn what_no_guest_says_is_refused() {
        let device = Place::Device { address: 1, pitch: 1, rows: 1 };
        let refused = |to, from, extent| crossed(&BoxCopy { to, from, extent }).is_err();
        assert!(refused(Place::Payload, Place::Payload, [1, 1, 1]));
        assert!(refused(Place::Payload, device, [1 << 40, 1 << 40, 1]));
        assert!(refused(device, Place::Payload, [MAX_PAYLOAD as u64 + 1, 1, 1]));
        assert!(refused(device, device, [1, 0, 1]));
        assert!(!refused(device, device, [1 << 40, 1 << 40, 1]));
    }

    #[test]
    fn reach_ends_with_the_last_byte() {
        let copy = BoxCopy { to: Place::Payload, from: Place::Payload, extent: [3, 4, 2] };
        assert_eq!(copy.reach(10, 6), Some(60 + 30 + 3));
        assert_eq!(copy.reach(u64::MAX, 6), None);
    }

    #[test]
    fn rows_that_lie_over_each_other_reach_nowhere() {
        let copy = BoxCopy { to: Place::Payload, from: Place::Payload, extent: [4096, 256, 2] };
        assert_eq!(copy.reach(0, 0), None);
        assert_eq!(copy.reach(4095, 256), None);
        assert_eq!(copy.reach(4096, 255), None);
        let plane = BoxCopy { extent: [4096, 256, 1], ..copy };
        assert_eq!(plane.reach(4096, 0), Some(4096 * 256));
    }
}
