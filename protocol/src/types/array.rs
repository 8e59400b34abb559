//! CUDA arrays and the copies that know rows and planes: structures of cuda.h 13.0, sizes asserted, and what both sides
//! compute from them.

use super::{CUarray, CUarray_format, CUcontext, CUdeviceptr};
use std::ffi::{c_uint, c_void};

/// Kind of memory at one end of a copy.
pub type CUmemorytype = u32;
/// Bytes in host memory.
pub const CU_MEMORYTYPE_HOST: CUmemorytype = 1;
/// Bytes in device memory.
pub const CU_MEMORYTYPE_DEVICE: CUmemorytype = 2;
/// A CUDA array.
pub const CU_MEMORYTYPE_ARRAY: CUmemorytype = 3;
/// Either memory: the address says which.
pub const CU_MEMORYTYPE_UNIFIED: CUmemorytype = 4;

/// Flags of an array (`CUDA_ARRAY3D_…`).
pub mod array_flag {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CUDA_ARRAY3D_")]
    pub const LAYERED: u32 = 0x01;
    pub const SURFACE_LDST: u32 = 0x02;
    pub const CUBEMAP: u32 = 0x04;
    pub const TEXTURE_GATHER: u32 = 0x08;
    pub const DEPTH_TEXTURE: u32 = 0x10;
    pub const COLOR_ATTACHMENT: u32 = 0x20;
    pub const SPARSE: u32 = 0x40;
    pub const DEFERRED_MAPPING: u32 = 0x80;
}

/// Element formats (`CU_AD_FORMAT_…`) that have a channel count of their own: one to four channels of one size.
pub mod array_format {
    #![expect(missing_docs, reason = "the names are CUDA's own, less the prefix CU_AD_FORMAT_")]
    pub const UNSIGNED_INT8: u32 = 0x01;
    pub const UNSIGNED_INT16: u32 = 0x02;
    pub const UNSIGNED_INT32: u32 = 0x03;
    pub const SIGNED_INT8: u32 = 0x08;
    pub const SIGNED_INT16: u32 = 0x09;
    pub const SIGNED_INT32: u32 = 0x0a;
    pub const HALF: u32 = 0x10;
    pub const FLOAT: u32 = 0x20;
}

/// `cuArrayCreate`'s argument.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_ARRAY_DESCRIPTOR {
    pub width: usize,
    pub height: usize,
    pub format: CUarray_format,
    pub num_channels: c_uint,
}

/// `cuArray3DCreate`'s argument.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_ARRAY3D_DESCRIPTOR {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    pub format: CUarray_format,
    pub num_channels: c_uint,
    pub flags: c_uint,
}

impl From<CUDA_ARRAY_DESCRIPTOR> for CUDA_ARRAY3D_DESCRIPTOR {
    fn from(flat: CUDA_ARRAY_DESCRIPTOR) -> Self {
        let CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels } = flat;
        Self { width, height, depth: 0, format, num_channels, flags: 0 }
    }
}

impl CUDA_ARRAY3D_DESCRIPTOR {
    /// The same without depth and flags, as `cuArrayGetDescriptor` gives it.
    #[must_use]
    pub fn flat(&self) -> CUDA_ARRAY_DESCRIPTOR {
        let Self { width, height, format, num_channels, .. } = *self;
        CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels }
    }

    /// Bytes of an element, where the format is one whose elements stand for themselves; `None` for block-compressed
    /// and video formats.
    #[must_use]
    pub fn element_bytes(&self) -> Option<u64> {
        let channel = match self.format {
            array_format::UNSIGNED_INT8 | array_format::SIGNED_INT8 => 1,
            array_format::UNSIGNED_INT16 | array_format::SIGNED_INT16 | array_format::HALF => 2,
            array_format::UNSIGNED_INT32 | array_format::SIGNED_INT32 | array_format::FLOAT => 4,
            // UNORM and SNORM: INT8X1, X2, X4, INT16X1, X2, X4, twice.
            format @ 0xc0..=0xcb => {
                let place = (format - 0xc0) % 6;
                return Some([1, 2, 4, 2, 4, 8][place as usize]);
            }
            // UNORM_INT_101010_2
            0x50 => return Some(4),
            _ => return None,
        };
        matches!(self.num_channels, 1 | 2 | 4).then(|| channel * u64::from(self.num_channels))
    }

    /// Bytes of a row, rows, and planes or layers, each at least one; `None` where [`Self::element_bytes`] is.
    #[must_use]
    pub fn extent(&self) -> Option<[u64; 3]> {
        let row = (self.width as u64).checked_mul(self.element_bytes()?)?;
        Some([row, self.height.max(1) as u64, self.depth.max(1) as u64])
    }

    /// How large level `level` of a mipmapped array of this size is: every side that is not a number of layers halves,
    /// down to one.
    #[must_use]
    pub fn level(&self, level: u32) -> Self {
        let halved = |side: usize| if side == 0 { 0 } else { side.checked_shr(level).unwrap_or(0).max(1) };
        let layers = self.flags & (array_flag::LAYERED | array_flag::CUBEMAP) != 0;
        Self {
            width: halved(self.width),
            height: halved(self.height),
            depth: if layers { self.depth } else { halved(self.depth) },
            ..*self
        }
    }
}

/// How a sparse array is tiled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_ARRAY_SPARSE_PROPERTIES {
    pub tile_extent: [c_uint; 3],
    pub miptail_first_level: c_uint,
    pub miptail_size: u64,
    pub flags: c_uint,
    pub reserved: [c_uint; 4],
}

/// How much memory an array needs that is mapped later.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_ARRAY_MEMORY_REQUIREMENTS {
    pub size: usize,
    pub alignment: usize,
    pub reserved: [c_uint; 4],
}

/// `cuMemcpy2D`'s argument.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMCPY2D {
    pub src_x_in_bytes: usize,
    pub src_y: usize,
    pub src_memory_type: CUmemorytype,
    pub src_host: *const c_void,
    pub src_device: CUdeviceptr,
    pub src_array: CUarray,
    pub src_pitch: usize,
    pub dst_x_in_bytes: usize,
    pub dst_y: usize,
    pub dst_memory_type: CUmemorytype,
    pub dst_host: *mut c_void,
    pub dst_device: CUdeviceptr,
    pub dst_array: CUarray,
    pub dst_pitch: usize,
    pub width_in_bytes: usize,
    pub height: usize,
}

/// `cuMemcpy3D`'s argument.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMCPY3D {
    pub src_x_in_bytes: usize,
    pub src_y: usize,
    pub src_z: usize,
    pub src_lod: usize,
    pub src_memory_type: CUmemorytype,
    pub src_host: *const c_void,
    pub src_device: CUdeviceptr,
    pub src_array: CUarray,
    pub reserved0: *mut c_void,
    pub src_pitch: usize,
    pub src_height: usize,
    pub dst_x_in_bytes: usize,
    pub dst_y: usize,
    pub dst_z: usize,
    pub dst_lod: usize,
    pub dst_memory_type: CUmemorytype,
    pub dst_host: *mut c_void,
    pub dst_device: CUdeviceptr,
    pub dst_array: CUarray,
    pub reserved1: *mut c_void,
    pub dst_pitch: usize,
    pub dst_height: usize,
    pub width_in_bytes: usize,
    pub height: usize,
    pub depth: usize,
}

impl Default for CUDA_MEMCPY3D {
    fn default() -> Self {
        Self {
            src_x_in_bytes: 0,
            src_y: 0,
            src_z: 0,
            src_lod: 0,
            src_memory_type: 0,
            src_host: std::ptr::null(),
            src_device: 0,
            src_array: CUarray::NULL,
            reserved0: std::ptr::null_mut(),
            src_pitch: 0,
            src_height: 0,
            dst_x_in_bytes: 0,
            dst_y: 0,
            dst_z: 0,
            dst_lod: 0,
            dst_memory_type: 0,
            dst_host: std::ptr::null_mut(),
            dst_device: 0,
            dst_array: CUarray::NULL,
            reserved1: std::ptr::null_mut(),
            dst_pitch: 0,
            dst_height: 0,
            width_in_bytes: 0,
            height: 0,
            depth: 0,
        }
    }
}

impl From<CUDA_MEMCPY2D> for CUDA_MEMCPY3D {
    /// A rectangle is a box of one plane.
    fn from(flat: CUDA_MEMCPY2D) -> Self {
        Self {
            src_x_in_bytes: flat.src_x_in_bytes,
            src_y: flat.src_y,
            src_memory_type: flat.src_memory_type,
            src_host: flat.src_host,
            src_device: flat.src_device,
            src_array: flat.src_array,
            src_pitch: flat.src_pitch,
            dst_x_in_bytes: flat.dst_x_in_bytes,
            dst_y: flat.dst_y,
            dst_memory_type: flat.dst_memory_type,
            dst_host: flat.dst_host,
            dst_device: flat.dst_device,
            dst_array: flat.dst_array,
            dst_pitch: flat.dst_pitch,
            width_in_bytes: flat.width_in_bytes,
            height: flat.height,
            depth: 1,
            ..Self::default()
        }
    }
}

/// `cuMemcpy3DPeer`'s argument: `CUDA_MEMCPY3D` with a context where that has a reserved word.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "field names are CUDA's own")]
pub struct CUDA_MEMCPY3D_PEER {
    pub src_x_in_bytes: usize,
    pub src_y: usize,
    pub src_z: usize,
    pub src_lod: usize,
    pub src_memory_type: CUmemorytype,
    pub src_host: *const c_void,
    pub src_device: CUdeviceptr,
    pub src_array: CUarray,
    pub src_context: CUcontext,
    pub src_pitch: usize,
    pub src_height: usize,
    pub dst_x_in_bytes: usize,
    pub dst_y: usize,
    pub dst_z: usize,
    pub dst_lod: usize,
    pub dst_memory_type: CUmemorytype,
    pub dst_host: *mut c_void,
    pub dst_device: CUdeviceptr,
    pub dst_array: CUarray,
    pub dst_context: CUcontext,
    pub dst_pitch: usize,
    pub dst_height: usize,
    pub width_in_bytes: usize,
    pub height: usize,
    pub depth: usize,
}

impl From<CUDA_MEMCPY3D_PEER> for CUDA_MEMCPY3D {
    fn from(peer: CUDA_MEMCPY3D_PEER) -> Self {
        Self {
            src_x_in_bytes: peer.src_x_in_bytes,
            src_y: peer.src_y,
            src_z: peer.src_z,
            src_lod: peer.src_lod,
            src_memory_type: peer.src_memory_type,
            src_host: peer.src_host,
            src_device: peer.src_device,
            src_array: peer.src_array,
            reserved0: std::ptr::null_mut(),
            src_pitch: peer.src_pitch,
            src_height: peer.src_height,
            dst_x_in_bytes: peer.dst_x_in_bytes,
            dst_y: peer.dst_y,
            dst_z: peer.dst_z,
            dst_lod: peer.dst_lod,
            dst_memory_type: peer.dst_memory_type,
            dst_host: peer.dst_host,
            dst_device: peer.dst_device,
            dst_array: peer.dst_array,
            reserved1: std::ptr::null_mut(),
            dst_pitch: peer.dst_pitch,
            dst_height: peer.dst_height,
            width_in_bytes: peer.width_in_bytes,
            height: peer.height,
            depth: peer.depth,
        }
    }
}

impl CUDA_MEMCPY3D {
    /// The same copy between two contexts.
    #[must_use]
    pub fn between(self, dst_context: CUcontext, src_context: CUcontext) -> CUDA_MEMCPY3D_PEER {
        CUDA_MEMCPY3D_PEER {
            src_x_in_bytes: self.src_x_in_bytes,
            src_y: self.src_y,
            src_z: self.src_z,
            src_lod: self.src_lod,
            src_memory_type: self.src_memory_type,
            src_host: self.src_host,
            src_device: self.src_device,
            src_array: self.src_array,
            src_context,
            src_pitch: self.src_pitch,
            src_height: self.src_height,
            dst_x_in_bytes: self.dst_x_in_bytes,
            dst_y: self.dst_y,
            dst_z: self.dst_z,
            dst_lod: self.dst_lod,
            dst_memory_type: self.dst_memory_type,
            dst_host: self.dst_host,
            dst_device: self.dst_device,
            dst_array: self.dst_array,
            dst_context,
            dst_pitch: self.dst_pitch,
            dst_height: self.dst_height,
            width_in_bytes: self.width_in_bytes,
            height: self.height,
            depth: self.depth,
        }
    }
}

const _: () = {
    assert!(size_of::<CUDA_ARRAY_DESCRIPTOR>() == 24);
    assert!(size_of::<CUDA_ARRAY3D_DESCRIPTOR>() == 40);
    assert!(size_of::<CUDA_ARRAY_SPARSE_PROPERTIES>() == 48);
    assert!(size_of::<CUDA_ARRAY_MEMORY_REQUIREMENTS>() == 32);
    assert!(size_of::<CUDA_MEMCPY2D>() == 128);
    assert!(size_of::<CUDA_MEMCPY3D>() == 200);
    assert!(size_of::<CUDA_MEMCPY3D_PEER>() == 200);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(format: u32, channels: u32) -> CUDA_ARRAY3D_DESCRIPTOR {
        CUDA_ARRAY3D_DESCRIPTOR { width: 20, height: 7, depth: 6, format, num_channels: channels, flags: 0 }
    }

    #[test]
    fn elements_have_the_size_of_their_channels() {
        assert_eq!(descriptor(array_format::FLOAT, 4).element_bytes(), Some(16));
        assert_eq!(descriptor(array_format::HALF, 2).element_bytes(), Some(4));
        assert_eq!(descriptor(array_format::UNSIGNED_INT8, 3).element_bytes(), None);
        assert_eq!(descriptor(0xc5, 4).element_bytes(), Some(8));
        assert_eq!(descriptor(0xc6, 1).element_bytes(), Some(1));
        assert_eq!(descriptor(0x91, 4).element_bytes(), None);
        assert_eq!(descriptor(array_format::FLOAT, 1).extent(), Some([80, 7, 6]));
    }

    #[test]
    fn levels_halve_but_layers_stay() {
        let volume = descriptor(array_format::FLOAT, 1).level(2);
        assert_eq!((volume.width, volume.height, volume.depth), (5, 1, 1));
        let layered =
            CUDA_ARRAY3D_DESCRIPTOR { flags: array_flag::LAYERED, ..descriptor(array_format::FLOAT, 1) };
        assert_eq!(layered.level(1).depth, 6);
        let line = CUDA_ARRAY3D_DESCRIPTOR { height: 0, depth: 0, ..descriptor(array_format::FLOAT, 1) };
        assert_eq!((line.level(40).width, line.level(40).height), (1, 0));
    }

    #[test]
    fn a_peer_copy_is_a_copy_with_contexts() {
        let copy = CUDA_MEMCPY3D {
            src_z: 3,
            dst_pitch: 9,
            depth: 4,
            src_array: CUarray(77),
            ..CUDA_MEMCPY3D::default()
        };
        let back = CUDA_MEMCPY3D::from(copy.between(CUcontext(1), CUcontext(2)));
        assert_eq!((back.src_z, back.dst_pitch, back.depth, back.src_array), (3, 9, 4, CUarray(77)));
    }
}
