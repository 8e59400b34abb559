//! CUDA arrays: rows, planes and layers of elements in device memory that has no address for the application. Here they
//! are plain rows, 512 bytes apart at least, so that every copy is one of rows and planes.

use super::attribute::PITCH;
use super::context::Active;
use super::table::Table;
use super::{Device, platform};
use pxos_protocol::types::{
    CUDA_ARRAY3D_DESCRIPTOR, CUarray, CUdevice, CUmipmappedArray, CUresult, array_flag, array_format,
};
use std::sync::Arc;

/// An array, or a level of a mipmapped one.
#[derive(Debug)]
pub(crate) struct Array {
    /// Its handle.
    pub(crate) handle: CUarray,
    /// What it was made as.
    pub(crate) descriptor: CUDA_ARRAY3D_DESCRIPTOR,
    /// Where its elements are.
    pub(crate) image: Image,
    /// The life of its context.
    life: u64,
    device: CUdevice,
    /// Whether the memory is a mipmapped array's, and goes with that.
    is_level: bool,
}

/// A mipmapped array.
#[derive(Debug)]
pub(crate) struct MipmappedArray {
    /// Its handle.
    pub(crate) handle: CUmipmappedArray,
    /// Its levels, the largest first.
    pub(crate) levels: Vec<Arc<Array>>,
    life: u64,
}

/// Elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image {
    /// The first element.
    pub(crate) address: u64,
    /// Bytes from one row to the next, at least those of a row; of linear memory those that there are.
    pub(crate) pitch: u64,
    /// Bytes from one plane or layer to the next.
    pub(crate) plane: u64,
    /// Elements of a row, rows, and planes or layers; at least one each.
    pub(crate) size: [u32; 3],
    /// `CUarray_format`.
    pub(crate) format: u32,
    /// Channels of an element.
    pub(crate) channels: u32,
    /// Whether the planes are layers.
    pub(crate) layered: bool,
}

/// Every array of the process.
pub(crate) static ARRAYS: Table<CUarray, Array> = Table::new();
/// Every mipmapped array of the process.
pub(crate) static MIPMAPS: Table<CUmipmappedArray, MipmappedArray> = Table::new();

/// Bytes of a channel of the formats that count their channels.
pub(crate) fn channel_bytes(format: u32) -> Option<u32> {
    match format {
        array_format::UNSIGNED_INT8 | array_format::SIGNED_INT8 => Some(1),
        array_format::UNSIGNED_INT16 | array_format::SIGNED_INT16 | array_format::HALF => Some(2),
        array_format::UNSIGNED_INT32 | array_format::SIGNED_INT32 | array_format::FLOAT => Some(4),
        _ => None,
    }
}

impl Image {
    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> u32 {
        channel_bytes(self.format).unwrap_or(1) * self.channels
    }

    /// Bytes of all rows.
    fn bytes(&self) -> Option<u64> {
        self.plane.checked_mul(u64::from(self.size[2]))
    }
}

/// The shape of an array.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for sizes and formats that no array has, `CUDA_ERROR_NOT_SUPPORTED` for formats and flags
/// that this device does not have.
fn lay_out(descriptor: &CUDA_ARRAY3D_DESCRIPTOR) -> Result<Image, CUresult> {
    let invalid = CUresult::ERROR_INVALID_VALUE;
    if descriptor.width == 0 || !matches!(descriptor.num_channels, 1 | 2 | 4) {
        return Err(invalid);
    }
    let unsupported = array_flag::SPARSE | array_flag::DEFERRED_MAPPING | array_flag::DEPTH_TEXTURE;
    if descriptor.flags & unsupported != 0 {
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    }
    let channel = channel_bytes(descriptor.format).ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    let layered = descriptor.flags & (array_flag::LAYERED | array_flag::CUBEMAP) != 0;
    if descriptor.flags & array_flag::CUBEMAP != 0
        && (descriptor.width != descriptor.height
            || !descriptor.depth.is_multiple_of(6)
            || descriptor.depth == 0)
    {
        return Err(invalid);
    }
    let side =
        |side: usize, most: u32| u32::try_from(side.max(1)).ok().filter(|side| *side <= most).ok_or(invalid);
    let size =
        [side(descriptor.width, 131_072)?, side(descriptor.height, 65_536)?, side(descriptor.depth, 16_384)?];
    let row = u64::from(size[0]) * u64::from(channel * descriptor.num_channels);
    let pitch = row.next_multiple_of(PITCH);
    let plane = pitch * u64::from(size[1]);
    Ok(Image {
        address: 0,
        pitch,
        plane,
        size,
        format: descriptor.format,
        channels: descriptor.num_channels,
        layered,
    })
}

/// Allocates zeroed memory for an image.
fn allocate(active: &Active, bytes: u64) -> Result<u64, CUresult> {
    let memory = &active.device.memory;
    let retry = || {
        active.wait();
        memory.alloc(bytes)
    };
    let address = memory.alloc(bytes).or_else(retry).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    memory.fill(address, &[0], bytes).map_err(|_| CUresult::ERROR_UNKNOWN)?;
    Ok(address)
}

impl Array {
    /// Makes an array in a context.
    ///
    /// # Errors
    /// Those of its shape, and `CUDA_ERROR_OUT_OF_MEMORY`.
    pub(crate) fn create(active: &Active, descriptor: CUDA_ARRAY3D_DESCRIPTOR) -> Result<CUarray, CUresult> {
        let mut image = lay_out(&descriptor)?;
        image.address = allocate(active, image.bytes().ok_or(CUresult::ERROR_OUT_OF_MEMORY)?)?;
        let (life, device) = (active.life, active.device.ordinal);
        let (handle, _) =
            ARRAYS.insert_with(|handle| Self { handle, descriptor, image, life, device, is_level: false })?;
        Ok(handle)
    }

    /// Destroys an array; a level of a mipmapped one only loses its handle with that.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE`.
    pub(crate) fn destroy(handle: CUarray) -> Result<(), CUresult> {
        if ARRAYS.get(handle)?.is_level {
            return Err(CUresult::ERROR_INVALID_HANDLE);
        }
        let array = ARRAYS.remove(handle).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        array.home()?.memory.free(array.image.address);
        Ok(())
    }

    fn home(&self) -> Result<&'static Arc<Device>, CUresult> {
        platform()?.device(self.device)
    }
}

impl MipmappedArray {
    /// Makes a mipmapped array in a context, of as many levels as asked for and possible.
    ///
    /// # Errors
    /// As for [`Array::create`].
    pub(crate) fn create(
        active: &Active,
        descriptor: CUDA_ARRAY3D_DESCRIPTOR,
        levels: u32,
    ) -> Result<CUmipmappedArray, CUresult> {
        let layers = descriptor.flags & (array_flag::LAYERED | array_flag::CUBEMAP) != 0;
        let longest = descriptor.width.max(descriptor.height).max(if layers { 0 } else { descriptor.depth });
        if longest == 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let levels = levels.clamp(1, longest.ilog2() + 1);
        let (life, device) = (active.life, active.device.ordinal);
        let shapes =
            (0..levels).map(|level| lay_out(&descriptor.level(level))).collect::<Result<Vec<_>, _>>()?;
        let total = shapes.iter().try_fold(0u64, |sum, image| sum.checked_add(image.bytes()?));
        let mut address = allocate(active, total.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?)?;
        let mut made = Vec::new();
        for (level, mut image) in (0..levels).zip(shapes) {
            image.address = address;
            address += image.bytes().unwrap_or(0);
            let descriptor = descriptor.level(level);
            let make = |handle| Array { handle, descriptor, image, life, device, is_level: true };
            made.push(ARRAYS.insert_with(make)?.1);
        }
        let (handle, _) = MIPMAPS.insert_with(|handle| Self { handle, levels: made, life })?;
        Ok(handle)
    }

    /// Destroys it, with its levels.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE`.
    pub(crate) fn destroy(handle: CUmipmappedArray) -> Result<(), CUresult> {
        let mipmap = MIPMAPS.remove(handle).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        for level in &mipmap.levels {
            ARRAYS.remove(level.handle);
        }
        if let Some(first) = mipmap.levels.first() {
            first.home()?.memory.free(first.image.address);
        }
        Ok(())
    }
}

/// Ends the arrays of a context that goes.
pub(crate) fn forget_life(life: u64) {
    for mipmap in MIPMAPS.all().iter().filter(|mipmap| mipmap.life == life) {
        // Another thread may have destroyed it in between, which is as good.
        let _ = MipmappedArray::destroy(mipmap.handle);
    }
    for array in ARRAYS.all().iter().filter(|array| array.life == life) {
        let _ = Array::destroy(array.handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(width: usize, height: usize, depth: usize, flags: u32) -> CUDA_ARRAY3D_DESCRIPTOR {
        CUDA_ARRAY3D_DESCRIPTOR { width, height, depth, format: array_format::FLOAT, num_channels: 2, flags }
    }

    #[test]
    fn rows_are_512_bytes_apart() {
        let image = lay_out(&descriptor(65, 3, 0, 0)).unwrap();
        assert_eq!((image.pitch, image.plane, image.size), (1024, 3072, [65, 3, 1]));
        assert_eq!(image.element_bytes(), 8);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(lay_out(&descriptor(0, 3, 0, 0)).unwrap_err(), CUresult::ERROR_INVALID_VALUE);
        assert_eq!(
            lay_out(&descriptor(4, 3, 6, array_flag::CUBEMAP)).unwrap_err(),
            CUresult::ERROR_INVALID_VALUE
        );
        assert_eq!(
            lay_out(&descriptor(4, 4, 0, array_flag::SPARSE)).unwrap_err(),
            CUresult::ERROR_NOT_SUPPORTED
        );
        let block = CUDA_ARRAY3D_DESCRIPTOR { format: 0x91, ..descriptor(4, 4, 0, 0) };
        assert_eq!(lay_out(&block).unwrap_err(), CUresult::ERROR_NOT_SUPPORTED);
    }
}
