//! Texture and surface objects (CUDA driver API, sections "Texture object management" and "Surface object management").

use super::{Answer, driver_fns};
use crate::device::allocation;
use crate::device::array::{ARRAYS, Image, MIPMAPS, channel_bytes};
use crate::device::context;
use crate::device::texture::{self, Object, Source};
use pxos_protocol::types::{
    CUDA_RESOURCE_DESC, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, CUarray, CUmipmappedArray, CUresult,
    CUsurfObject, CUtexObject, Resource, array_format, texture_flag,
};
use std::sync::Arc;

driver_fns! {
    /// Makes a texture object.
    ready fn cuTexObjectCreate(
        object: *mut CUtexObject,
        resource: *const CUDA_RESOURCE_DESC,
        texture: *const CUDA_TEXTURE_DESC,
        view: *const CUDA_RESOURCE_VIEW_DESC,
    ) {
        let active = context::current()?;
        object.required()?;
        let (resource, how) = (resource.read()?, texture.read()?);
        let view = if view.is_null() { None } else { Some(view.read()?) };
        let (source, layers) = source(&resource, view.as_ref())?;
        let seen_as = seen_as(view.as_ref(), &source)?;
        check(&how, &source, seen_as)?;
        let texture = Some(how);
        object.put(texture::insert(Object { life: active.life, source, texture, resource, view, layers, seen_as }))
    }

    /// Destroys a texture object.
    ready fn cuTexObjectDestroy(object: CUtexObject) {
        let active = context::current()?;
        if object == 0 {
            return Ok(());
        }
        live(object, true)?;
        // Kernels before this call may still read through it.
        active.wait();
        texture::remove(object);
        Ok(())
    }

    /// What a texture object reads.
    ready fn cuTexObjectGetResourceDesc(resource: *mut CUDA_RESOURCE_DESC, object: CUtexObject) {
        resource.required()?;
        resource.put(live(object, true)?.resource)
    }

    /// How a texture object reads.
    ready fn cuTexObjectGetTextureDesc(texture: *mut CUDA_TEXTURE_DESC, object: CUtexObject) {
        texture.required()?;
        texture.put(live(object, true)?.texture.ok_or(CUresult::ERROR_INVALID_VALUE)?)
    }

    /// Which part a texture object reads; nothing is written where it was made without such (measured on an H200, driver 580;
    /// the manual says `CUDA_ERROR_INVALID_VALUE`).
    ready fn cuTexObjectGetResourceViewDesc(view: *mut CUDA_RESOURCE_VIEW_DESC, object: CUtexObject) {
        view.required()?;
        live(object, true)?.view.map_or(Ok(()), |known| view.put(known))
    }

    /// Makes a surface object of an array, be it made for that or not (measured on an H200, driver 580).
    ready fn cuSurfObjectCreate(object: *mut CUsurfObject, resource: *const CUDA_RESOURCE_DESC) {
        let active = context::current()?;
        object.required()?;
        let resource = resource.read()?;
        let Some(Resource::Array(array)) = resource.resource() else { return Err(CUresult::ERROR_INVALID_VALUE) };
        let array = ARRAYS.get(array)?;
        let source = Source::Array(array);
        let (life, texture, view, layers, seen_as) = (active.life, None, None, None, None);
        object.put(texture::insert(Object { life, source, texture, resource, view, layers, seen_as }))
    }

    /// Destroys a surface object.
    ready fn cuSurfObjectDestroy(object: CUsurfObject) {
        let active = context::current()?;
        if object == 0 {
            return Ok(());
        }
        live(object, false)?;
        active.wait();
        texture::remove(object);
        Ok(())
    }

    /// What a surface object reads and writes.
    ready fn cuSurfObjectGetResourceDesc(resource: *mut CUDA_RESOURCE_DESC, object: CUsurfObject) {
        resource.required()?;
        resource.put(live(object, false)?.resource)
    }
}

/// The object of a value, which must be a texture, or else a surface.
fn live(object: u64, is_texture: bool) -> Answer<Arc<Object>> {
    let found = texture::find(object).filter(|found| found.texture.is_some() == is_texture);
    found.ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// What a description refers to, and the layers that a view leaves of it.
fn source(
    resource: &CUDA_RESOURCE_DESC,
    view: Option<&CUDA_RESOURCE_VIEW_DESC>,
) -> Answer<(Source, Option<(u32, u32)>)> {
    let invalid = CUresult::ERROR_INVALID_VALUE;
    if resource.flags != 0 {
        return Err(invalid);
    }
    let layers = |most: u32| match view {
        // The depth of a layered array is its layers, of which a view has to speak (measured on an H200, driver 580).
        Some(view) if view.depth != most as usize => Err(invalid),
        Some(view) if view.first_layer > view.last_layer || view.last_layer >= most => Err(invalid),
        Some(view) => Ok(Some((view.first_layer, view.last_layer - view.first_layer + 1))),
        None => Ok(None),
    };
    match resource.resource().ok_or(invalid)? {
        Resource::Array(CUarray(0)) | Resource::MipmappedArray(CUmipmappedArray(0)) => Err(invalid),
        Resource::Array(array) => {
            let array = ARRAYS.get(array)?;
            let layers = if array.image.layered { layers(array.image.size[2])? } else { None };
            Ok((Source::Array(array), layers))
        }
        Resource::MipmappedArray(mipmap) => {
            let mipmap = MIPMAPS.get(mipmap)?;
            let last = mipmap.levels.len() - 1;
            let (from, to) = match view {
                Some(view) => (view.first_mipmap_level as usize, view.last_mipmap_level as usize),
                None => (0, last),
            };
            let first = mipmap.levels.get(from).filter(|_| from <= to && to <= last).ok_or(invalid)?;
            let layers = if first.image.layered { layers(first.image.size[2])? } else { None };
            Ok((Source::Mipmap(Arc::clone(&mipmap), from, to), layers))
        }
        Resource::Linear { address, format, channels, bytes } => {
            let element = element(format, channels)?;
            // A texture may be longer than the allocation that it begins in (NVIDIA's sample convolutionFFT2D makes one on a
            // GPU); what lies behind the end reads as zero here.
            let held = allocation::find(address).ok_or(invalid)?;
            allocation::check(address, 1)?;
            let there = bytes.min(held.base + held.bytes - address);
            let width = u32::try_from(bytes / u64::from(element)).map_err(|_| invalid)?;
            let image = Image {
                address,
                pitch: there,
                plane: bytes,
                size: [width, 1, 1],
                format,
                channels,
                layered: false,
            };
            if width == 0 { Err(invalid) } else { Ok((Source::Linear(image), None)) }
        }
        Resource::Pitch2D { address, format, channels, width, height, pitch } => {
            let row = width.checked_mul(element(format, channels)?.into()).ok_or(invalid)?;
            let rows = height.checked_sub(1).and_then(|rows| rows.checked_mul(pitch)).ok_or(invalid)?;
            allocation::check(address, rows.checked_add(row).ok_or(invalid)?)?;
            let side = |side: u64| {
                u32::try_from(side).ok().filter(|side| (1..=131_072).contains(side)).ok_or(invalid)
            };
            let size = [side(width)?, side(height)?, 1];
            let plane = pitch.checked_mul(height).ok_or(invalid)?;
            if pitch < row || !pitch.is_multiple_of(32) {
                return Err(invalid);
            }
            Ok((
                Source::Linear(Image { address, pitch, plane, size, format, channels, layered: false }),
                None,
            ))
        }
    }
}

fn element(format: u32, channels: u32) -> Answer<u32> {
    let channel = channel_bytes(format).filter(|_| matches!(channels, 1 | 2 | 4));
    Ok(channel.ok_or(CUresult::ERROR_INVALID_VALUE)? * channels)
}

/// The format and channels under which a view reads, where that is another than the array's own; elements must be of the
/// same size.
fn seen_as(view: Option<&CUDA_RESOURCE_VIEW_DESC>, source: &Source) -> Answer<Option<(u32, u32)>> {
    let Some(view) = view.filter(|view| view.format != 0) else { return Ok(None) };
    // CUresourceViewFormat: 1X8, 2X8, 4X8 of each of these in turn, then block-compressed ones.
    const FORMATS: [u32; 8] = [
        array_format::UNSIGNED_INT8,
        array_format::SIGNED_INT8,
        array_format::UNSIGNED_INT16,
        array_format::SIGNED_INT16,
        array_format::UNSIGNED_INT32,
        array_format::SIGNED_INT32,
        array_format::HALF,
        array_format::FLOAT,
    ];
    let place = view.format as usize - 1;
    let Some(format) = FORMATS.get(place / 3) else {
        super::error::report("texture views under a block-compressed format are not supported");
        return Err(CUresult::ERROR_NOT_SUPPORTED);
    };
    let channels = 1 << (place % 3);
    let image = match source {
        Source::Array(array) => array.image,
        Source::Mipmap(mipmap, first, _) => mipmap.levels[*first].image,
        Source::Linear(_) => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    let same_size = element(*format, channels)? == image.element_bytes();
    if same_size { Ok(Some((*format, channels))) } else { Err(CUresult::ERROR_INVALID_VALUE) }
}

/// Refuses filters and modes that there are not, and filtering of integers.
fn check(how: &CUDA_TEXTURE_DESC, source: &Source, seen_as: Option<(u32, u32)>) -> Answer {
    let modes =
        how.address_mode.iter().all(|mode| *mode <= 3) && how.filter_mode <= 1 && how.mipmap_filter_mode <= 1;
    let format = match source {
        Source::Array(array) => array.image.format,
        Source::Mipmap(mipmap, first, _) => mipmap.levels[*first].image.format,
        Source::Linear(image) => image.format,
    };
    let as_float = match seen_as.map_or(format, |(format, _)| format) {
        array_format::FLOAT | array_format::HALF => true,
        array_format::UNSIGNED_INT32 | array_format::SIGNED_INT32 => false,
        _ => how.flags & texture_flag::READ_AS_INTEGER == 0,
    };
    if !modes || how.filter_mode == 1 && !as_float { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
}
