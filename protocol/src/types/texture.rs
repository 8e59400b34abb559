//! Texture, surface and tensor-map descriptions: structures of cuda.h 13.0, sizes asserted, and how the unions among them
//! cross the wire.

use super::{CUarray, CUarray_format, CUdeviceptr, CUmipmappedArray};
use crate::codec::{DecodeError, Plain, Reader, Writer};
use std::ffi::c_uint;

/// A texture object; the driver's value on both sides, because kernels get it as a plain number.
pub type CUtexObject = u64;
/// A surface object, likewise.
pub type CUsurfObject = u64;
/// How coordinates outside a texture are met: 0 wrap, 1 clamp, 2 mirror, 3 border.
pub type CUaddress_mode = u32;
/// How texels are read: 0 the nearest, 1 linearly interpolated.
pub type CUfilter_mode = u32;

/// Texture flags (`CU_TRSF_…`).
pub mod texture_flag {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_TRSF_")]
    pub const READ_AS_INTEGER: u32 = 0x01;
    pub const NORMALIZED_COORDINATES: u32 = 0x02;
    pub const SRGB: u32 = 0x10;
    pub const DISABLE_TRILINEAR_OPTIMIZATION: u32 = 0x20;
    pub const SEAMLESS_CUBEMAP: u32 = 0x40;
}

/// What a texture or surface object reads: a union by `kind`, read by [`Self::resource`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_RESOURCE_DESC {
    /// `CUresourcetype`: 0 array, 1 mipmapped array, 2 linear memory, 3 pitched memory.
    pub kind: u32,
    /// The union's sixteen words.
    pub words: [u64; 16],
    /// Must be zero.
    pub flags: c_uint,
}

/// What a [`CUDA_RESOURCE_DESC`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub enum Resource {
    Array(CUarray),
    MipmappedArray(CUmipmappedArray),
    Linear {
        address: CUdeviceptr,
        format: CUarray_format,
        channels: u32,
        bytes: u64,
    },
    Pitch2D {
        address: CUdeviceptr,
        format: CUarray_format,
        channels: u32,
        width: u64,
        height: u64,
        pitch: u64,
    },
}

/// Two 32-bit fields that lie in one word of the union.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

impl CUDA_RESOURCE_DESC {
    /// The variant, `None` where `kind` names none.
    #[must_use]
    pub fn resource(&self) -> Option<Resource> {
        let [first, second, third, fourth, fifth, ..] = self.words;
        let (format, channels) = halves(second);
        match self.kind {
            0 => Some(Resource::Array(CUarray(first))),
            1 => Some(Resource::MipmappedArray(CUmipmappedArray(first))),
            2 => Some(Resource::Linear { address: first, format, channels, bytes: third }),
            3 => Some(Resource::Pitch2D {
                address: first,
                format,
                channels,
                width: third,
                height: fourth,
                pitch: fifth,
            }),
            _ => None,
        }
    }
}

impl From<Resource> for CUDA_RESOURCE_DESC {
    fn from(resource: Resource) -> Self {
        let mut words = [0; 16];
        let pack = |format: u32, channels: u32| u64::from(format) | u64::from(channels) << 32;
        let kind = match resource {
            Resource::Array(array) => {
                words[0] = array.0;
                0
            }
            Resource::MipmappedArray(array) => {
                words[0] = array.0;
                1
            }
            Resource::Linear { address, format, channels, bytes } => {
                words[..3].copy_from_slice(&[address, pack(format, channels), bytes]);
                2
            }
            Resource::Pitch2D { address, format, channels, width, height, pitch } => {
                words[..5].copy_from_slice(&[address, pack(format, channels), width, height, pitch]);
                3
            }
        };
        Self { kind, words, flags: 0 }
    }
}

impl Resource {
    /// Writes it for the wire.
    pub fn encode(self, writer: &mut Writer<'_>) {
        let description = CUDA_RESOURCE_DESC::from(self);
        writer.put(description.kind);
        for word in &description.words[..5] {
            writer.put(*word);
        }
    }

    /// Reads it from the wire.
    ///
    /// # Errors
    /// [`DecodeError`] where the payload is short or names no variant.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.get()?;
        let mut words = [0; 16];
        for word in &mut words[..5] {
            *word = reader.get()?;
        }
        let description = CUDA_RESOURCE_DESC { kind, words, flags: 0 };
        description.resource().ok_or_else(|| DecodeError::Value(kind.into()))
    }
}

/// How a texture object reads its resource.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_TEXTURE_DESC {
    pub address_mode: [CUaddress_mode; 3],
    pub filter_mode: CUfilter_mode,
    pub flags: c_uint,
    pub max_anisotropy: c_uint,
    pub mipmap_filter_mode: CUfilter_mode,
    pub mipmap_level_bias: f32,
    pub min_mipmap_level_clamp: f32,
    pub max_mipmap_level_clamp: f32,
    pub border_color: [f32; 4],
    pub reserved: [i32; 12],
}

// SAFETY: 104 bytes of 32-bit numbers: no padding and no invalid pattern.
unsafe impl Plain for CUDA_TEXTURE_DESC {}

/// A part of a resource, read under another format.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_RESOURCE_VIEW_DESC {
    pub format: u32,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    pub first_mipmap_level: c_uint,
    pub last_mipmap_level: c_uint,
    pub first_layer: c_uint,
    pub last_layer: c_uint,
    pub reserved: [c_uint; 16],
}

impl CUDA_RESOURCE_VIEW_DESC {
    /// Writes it for the wire.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.put(u64::from(self.format));
        for size in [self.width, self.height, self.depth] {
            writer.put(size as u64);
        }
        for number in [self.first_mipmap_level, self.last_mipmap_level, self.first_layer, self.last_layer] {
            writer.put(number);
        }
    }

    /// Reads it from the wire.
    ///
    /// # Errors
    /// [`DecodeError`] where the payload is short.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut size = || -> Result<usize, DecodeError> {
            let value: u64 = reader.get()?;
            usize::try_from(value).map_err(|_| DecodeError::Value(value))
        };
        let format = size()?;
        let (width, height, depth) = (size()?, size()?, size()?);
        Ok(Self {
            format: u32::try_from(format).map_err(|_| DecodeError::Value(format as u64))?,
            width,
            height,
            depth,
            first_mipmap_level: reader.get()?,
            last_mipmap_level: reader.get()?,
            first_layer: reader.get()?,
            last_layer: reader.get()?,
            reserved: [0; 16],
        })
    }
}

/// A tensor map: 128 bytes that only the driver and the device understand.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CUtensorMap {
    /// The bytes.
    pub opaque: [u64; 16],
}

// SAFETY: sixteen words of any value.
unsafe impl Plain for CUtensorMap {}

/// Most dimensions of a tensor that a tensor map describes.
pub const MAX_TENSOR_RANK: usize = 5;

const _: () = {
    assert!(size_of::<CUDA_RESOURCE_DESC>() == 144);
    assert!(std::mem::offset_of!(CUDA_RESOURCE_DESC, flags) == 136);
    assert!(size_of::<CUDA_TEXTURE_DESC>() == 104);
    assert!(std::mem::offset_of!(CUDA_TEXTURE_DESC, border_color) == 40);
    assert!(size_of::<CUDA_RESOURCE_VIEW_DESC>() == 112);
    assert!(std::mem::offset_of!(CUDA_RESOURCE_VIEW_DESC, last_layer) == 44);
    assert!(size_of::<CUtensorMap>() == 128 && align_of::<CUtensorMap>() == 128);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_cross_as_they_are() {
        let resources = [
            Resource::Array(CUarray(0x1234)),
            Resource::MipmappedArray(CUmipmappedArray(9)),
            Resource::Linear { address: 0x7000, format: 0x20, channels: 4, bytes: 1 << 33 },
            Resource::Pitch2D { address: 1 << 40, format: 3, channels: 2, width: 5, height: 6, pitch: 512 },
        ];
        for resource in resources {
            assert_eq!(CUDA_RESOURCE_DESC::from(resource).resource(), Some(resource));
            let mut buffer = Vec::new();
            resource.encode(&mut Writer::new(&mut buffer));
            assert_eq!(Resource::decode(&mut Reader::new(&buffer)), Ok(resource));
        }
    }

    #[test]
    fn nonsense_is_no_resource() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer);
        for word in [7_u64; 6] {
            writer.put(word);
        }
        assert_eq!(Resource::decode(&mut Reader::new(&buffer)), Err(DecodeError::Value(7)));
        assert!(Resource::decode(&mut Reader::new(&buffer[..24])).is_err());
    }

    #[test]
    fn views_cross_as_they_are() {
        let view = CUDA_RESOURCE_VIEW_DESC {
            format: 0x16,
            width: 64,
            height: 32,
            depth: 3,
            first_mipmap_level: 1,
            last_mipmap_level: 4,
            first_layer: 2,
            last_layer: 5,
            reserved: [0; 16],
        };
        let mut buffer = Vec::new();
        view.encode(&mut Writer::new(&mut buffer));
        assert_eq!(CUDA_RESOURCE_VIEW_DESC::decode(&mut Reader::new(&buffer)), Ok(view));
    }
}
