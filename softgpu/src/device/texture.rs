//! Texture and surface objects, and how they read and write (CUDA C++ programming guide, "Texture fetching"; PTX ISA,
//! "Texture instructions").
//!
//! Engines look an object up by its value ([`find`]) and read and write through it; objects are made by the driver API.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "levels become numbers, after they were brought into range"
)]

use super::array::{Array, Image, MipmappedArray};
use super::sampling::{Texel, cube_face, face_coordinates, pointer, sample_plane, texel};
use pxos_protocol::types::{
    CUDA_RESOURCE_DESC, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, array_format, texture_flag,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// The shape that an instruction takes a texture or surface to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PTX's own: .1d .2d .3d .a1d .a2d .cube .acube")]
pub enum Geometry {
    D1,
    D2,
    D3,
    A1,
    A2,
    Cube,
    CubeArray,
}

/// Where to read; unused coordinates are zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinate {
    /// In texels, or from 0 to 1 for normalised objects.
    Float([f32; 3]),
    /// Texel numbers.
    Int([i32; 3]),
}

/// A read through a texture object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fetch {
    /// The shape.
    pub geometry: Geometry,
    /// The layer, for shapes that have layers.
    pub layer: u32,
    /// The place.
    pub at: Coordinate,
    /// The level of a mipmapped array; `None` for the first.
    pub level: Option<f32>,
    /// The component of `tld4`, which gives that of four neighbouring texels.
    pub gather: Option<u8>,
}

/// A read or write through a surface object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The shape.
    pub geometry: Geometry,
    /// The layer, for shapes that have layers.
    pub layer: u32,
    /// Byte in the row, row, plane.
    pub at: [i32; 3],
    /// What happens outside.
    pub clamp: Clamp,
}

/// What happens to an access outside a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// The kernel faults.
    Trap,
    /// The nearest place inside is meant.
    Clamp,
    /// Reads give zero, writes do nothing.
    Zero,
}

/// A property that a kernel can ask for (PTX ISA, `txq` and `suq`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PTX's own")]
pub enum Query {
    Width,
    Height,
    Depth,
    ChannelDataType,
    ChannelOrder,
    NormalizedCoords,
    ArraySize,
    NumMipmapLevels,
    FilterMode,
    AddrMode(u8),
}

/// What an object refers to, kept alive by it.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An array.
    Array(Arc<Array>),
    /// A mipmapped array, of which some levels count.
    Mipmap(Arc<MipmappedArray>, usize, usize),
    /// Elements in linear memory.
    Linear(Image),
}

/// A texture or surface object.
#[derive(Debug)]
pub(crate) struct Object {
    /// The life of its context.
    pub(crate) life: u64,
    /// What it reads.
    pub(crate) source: Source,
    /// How it reads; `None` for a surface.
    pub(crate) texture: Option<CUDA_TEXTURE_DESC>,
    /// As the application described it.
    pub(crate) resource: CUDA_RESOURCE_DESC,
    /// As the application described it.
    pub(crate) view: Option<CUDA_RESOURCE_VIEW_DESC>,
    /// The layers that count: the first, and how many.
    pub(crate) layers: Option<(u32, u32)>,
    /// Format and channels under which a view reads elements, instead of their own.
    pub(crate) seen_as: Option<(u32, u32)>,
}

// SAFETY: the description holds numbers only; whatever pointers it was made from are not followed.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

static OBJECTS: LazyLock<RwLock<HashMap<u64, Arc<Object>>>> = LazyLock::new(RwLock::default);

/// Adds an object; gives its value.
pub(crate) fn insert(object: Object) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let value = NEXT.fetch_add(1, Ordering::Relaxed);
    OBJECTS.write().unwrap_or_else(PoisonError::into_inner).insert(value, Arc::new(object));
    value
}

/// The object with a value.
pub(crate) fn find(value: u64) -> Option<Arc<Object>> {
    OBJECTS.read().unwrap_or_else(PoisonError::into_inner).get(&value).cloned()
}

/// Ends an object.
pub(crate) fn remove(value: u64) -> bool {
    OBJECTS.write().unwrap_or_else(PoisonError::into_inner).remove(&value).is_some()
}

/// Ends the objects of a context that goes.
pub(crate) fn forget_life(life: u64) {
    OBJECTS.write().unwrap_or_else(PoisonError::into_inner).retain(|_, object| object.life != life);
}

impl Object {
    /// Reads through a texture object: four channels as bits, floats for textures that are read as such. `None` for an
    /// object that is no texture.
    #[inline]
    pub(crate) fn fetch(&self, fetch: &Fetch) -> Option<[u32; 4]> {
        let how = self.texture.as_ref()?;
        let levels = self.levels();
        if levels == 1 {
            return Some(self.sample(how, 0, fetch).bits());
        }
        let most = levels.saturating_sub(1) as f32;
        let wanted = fetch.level.unwrap_or(0.0) + how.mipmap_level_bias;
        let clamped = wanted.max(how.min_mipmap_level_clamp).min(how.max_mipmap_level_clamp);
        let level = clamped.max(0.0).min(most);
        if how.mipmap_filter_mode != 1 {
            return Some(self.sample(how, (level + 0.5).floor() as usize, fetch).bits());
        }
        // As within a level, the weight has 8 fractional bits.
        let (below, part) = (level.floor(), ((level - level.floor()) * 256.0).round() / 256.0);
        let near = self.sample(how, below as usize, fetch);
        if part == 0.0 {
            return Some(near.bits());
        }
        let far = self.sample(how, below as usize + 1, fetch);
        Some(near.mix(&far, part).bits())
    }

    /// The level that derivatives of the coordinates ask for: one whose texels are as large as a step (PTX ISA, `tex.grad`;
    /// isotropic).
    pub(crate) fn gradient_level(&self, geometry: Geometry, at: [f32; 3], steps: [[f32; 3]; 2]) -> f32 {
        let Some(image) = self.image(0) else { return 0.0 };
        let normalised =
            self.texture.is_some_and(|how| how.flags & texture_flag::NORMALIZED_COORDINATES != 0);
        let cube = matches!(geometry, Geometry::Cube | Geometry::CubeArray);
        let length = |step: [f32; 3]| {
            let step = if cube {
                let (face, s, t) = cube_face(at);
                let moved = face_coordinates(face, std::array::from_fn(|side| at[side] + step[side]));
                [moved.0 - s, moved.1 - t, 0.0]
            } else {
                step
            };
            let scale = |side: usize| if normalised || cube { image.size[side] as f32 } else { 1.0 };
            (0..3).map(|side| (step[side] * scale(side)).powi(2)).sum::<f32>().sqrt()
        };
        length(steps[0]).max(length(steps[1])).log2()
    }

    /// Reads through a surface object into `out`, whose length is that of the access. `None` for a place outside
    /// where that faults.
    pub(crate) fn load(&self, access: &Access, out: &mut [u8]) -> Option<()> {
        match self.place(access, out.len()) {
            Place::At(address) => {
                // SAFETY: inside the memory of an array that the object keeps, whose pages stay mapped.
                unsafe { pointer(address).copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
                Some(())
            }
            Place::Nowhere => {
                out.fill(0);
                Some(())
            }
            Place::Fault => None,
        }
    }

    /// Writes `data` through a surface object. `None` as for [`Self::load`].
    pub(crate) fn store(&self, access: &Access, data: &[u8]) -> Option<()> {
        match self.place(access, data.len()) {
            Place::At(address) => {
                // SAFETY: as in `load`.
                unsafe { pointer(address).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
                Some(())
            }
            Place::Nowhere => Some(()),
            Place::Fault => None,
        }
    }
}

/// A property of an object; `None` for a value that is no object.
pub fn query(object: u64, what: Query) -> Option<u32> {
    let object = find(object)?;
    let image = object.image(0)?;
    let how = object.texture.unwrap_or_default();
    Some(match what {
        Query::Width => image.size[0],
        Query::Height => image.size[1],
        Query::Depth if image.layered => 1,
        Query::Depth => image.size[2],
        Query::ArraySize if image.layered => image.size[2],
        Query::ArraySize => 1,
        Query::NumMipmapLevels => u32::try_from(object.levels()).unwrap_or(u32::MAX),
        Query::NormalizedCoords => u32::from(how.flags & texture_flag::NORMALIZED_COORDINATES != 0),
        Query::FilterMode => how.filter_mode,
        Query::AddrMode(side) => how.address_mode.get(usize::from(side)).copied().unwrap_or(0),
        // The numbers of OpenCL, as PTX has them.
        Query::ChannelOrder => match image.channels {
            1 => 0x10b0,
            2 => 0x10b2,
            _ => 0x10b5,
        },
        Query::ChannelDataType => match image.format {
            array_format::SIGNED_INT8 => 0x10d7,
            array_format::SIGNED_INT16 => 0x10d8,
            array_format::SIGNED_INT32 => 0x10d9,
            array_format::UNSIGNED_INT8 => 0x10da,
            array_format::UNSIGNED_INT16 => 0x10db,
            array_format::UNSIGNED_INT32 => 0x10dc,
            array_format::HALF => 0x10dd,
            _ => 0x10de,
        },
    })
}

enum Place {
    At(u64),
    Nowhere,
    Fault,
}

impl Object {
    fn levels(&self) -> usize {
        if let Source::Mipmap(_, first, last) = &self.source { last - first + 1 } else { 1 }
    }

    fn image(&self, level: usize) -> Option<Image> {
        let image = match &self.source {
            Source::Array(array) => array.image,
            Source::Linear(image) => *image,
            Source::Mipmap(mipmap, first, last) => mipmap.levels.get((first + level).min(*last))?.image,
        };
        let (format, channels) = self.seen_as.unwrap_or((image.format, image.channels));
        Some(Image { format, channels, ..image })
    }

    /// Reads at a place of a level.
    #[inline]
    fn sample(&self, how: &CUDA_TEXTURE_DESC, level: usize, fetch: &Fetch) -> Texel {
        let Some(image) = self.image(level) else { return Texel::Bits([0; 4]) };
        let (first, count) = self.layers.unwrap_or((0, image.size[2]));
        let layer_of = |layer: u32| Some(first + layer.min(count.saturating_sub(1)));
        match (fetch.geometry, fetch.at) {
            (Geometry::Cube | Geometry::CubeArray, Coordinate::Float(at)) => {
                let (face, s, t) = cube_face(at);
                let layer = layer_of(fetch.layer * 6 + face);
                // A face's own edge is met as by clamping.
                let how = CUDA_TEXTURE_DESC { address_mode: [1; 3], ..*how };
                sample_plane(&how, &image, [s, t, 0.0], 2, layer, fetch.gather, true)
            }
            (geometry, Coordinate::Float(at)) => {
                let normalised = how.flags & texture_flag::NORMALIZED_COORDINATES != 0;
                let (sides, layer) = match geometry {
                    Geometry::D1 => (1, layer_of(0)),
                    Geometry::A1 => (1, layer_of(fetch.layer)),
                    Geometry::D2 => (2, layer_of(0)),
                    Geometry::A2 => (2, layer_of(fetch.layer)),
                    _ => (3, None),
                };
                sample_plane(how, &image, at, sides, layer, fetch.gather, normalised)
            }
            (geometry, Coordinate::Int([x, y, z])) => {
                let inside = |at: i32, side: u32| u32::try_from(at).ok().filter(|at| *at < side);
                let layer = match geometry {
                    Geometry::A1 | Geometry::A2 => layer_of(fetch.layer),
                    Geometry::D3 => inside(z, image.size[2]),
                    _ => layer_of(0),
                };
                let row = if matches!(geometry, Geometry::D1 | Geometry::A1) {
                    Some(0)
                } else {
                    inside(y, image.size[1])
                };
                texel(how, &image, [inside(x, image.size[0]), row, layer])
            }
        }
    }

    /// Where a surface access goes.
    fn place(&self, access: &Access, bytes: usize) -> Place {
        let Some(image) = self.image(0) else { return Place::Fault };
        let row_bytes = i64::from(image.size[0]) * i64::from(image.element_bytes());
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let [x, y, z] = access.at.map(i64::from);
        let (y, z) = match access.geometry {
            Geometry::D1 => (0, 0),
            Geometry::A1 => (0, i64::from(access.layer)),
            Geometry::D2 => (y, 0),
            Geometry::A2 | Geometry::Cube | Geometry::CubeArray => (y, i64::from(access.layer)),
            Geometry::D3 => (y, z),
        };
        let most = [row_bytes - bytes, i64::from(image.size[1]) - 1, i64::from(image.size[2]) - 1];
        let outside = [x, y, z].iter().zip(most).any(|(at, most)| *at < 0 || *at > most);
        let at = match access.clamp {
            _ if !outside => [x, y, z],
            Clamp::Trap => return Place::Fault,
            Clamp::Zero => return Place::Nowhere,
            Clamp::Clamp if most[0] < 0 => return Place::Nowhere,
            Clamp::Clamp => std::array::from_fn(|side| [x, y, z][side].clamp(0, most[side])),
        };
        let [x, y, z] = at.map(i64::cast_unsigned);
        Place::At(image.address + z * image.plane + y * image.pitch + x)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampling::{BORDER, CLAMP, MIRROR, WRAP};
    use super::*;

    fn line(texels: &[f32]) -> Image {
        Image {
            address: texels.as_ptr().expose_provenance() as u64,
            pitch: 512,
            plane: 512,
            size: [u32::try_from(texels.len()).unwrap(), 1, 1],
            format: array_format::FLOAT,
            channels: 1,
            layered: false,
        }
    }

    fn read(texels: &[f32], mode: u32, filter: u32, normalised: bool, x: f32) -> f32 {
        read_image(line(texels), mode, filter, normalised, x)
    }

    fn read_image(image: Image, mode: u32, filter: u32, normalised: bool, x: f32) -> f32 {
        let how = CUDA_TEXTURE_DESC {
            address_mode: [mode; 3],
            filter_mode: filter,
            flags: if normalised { texture_flag::NORMALIZED_COORDINATES } else { 0 },
            border_color: [-1.0; 4],
            ..CUDA_TEXTURE_DESC::default()
        };
        let object = Object {
            life: 1,
            source: Source::Linear(image),
            texture: Some(how),
            resource: CUDA_RESOURCE_DESC { kind: 2, words: [0; 16], flags: 0 },
            view: None,
            layers: None,
            seen_as: None,
        };
        let value = insert(object);
        let at = Coordinate::Float([x, 0.0, 0.0]);
        let fetch = Fetch { geometry: Geometry::D1, layer: 0, at, level: None, gather: None };
        let bits = find(value).unwrap().fetch(&fetch).unwrap();
        assert!(remove(value));
        f32::from_bits(bits[0])
    }

    #[test]
    fn address_modes() {
        let texels = [10.0, 20.0, 30.0, 40.0];
        for (mode, x, want) in [
            (CLAMP, -0.3, 10.0),
            (CLAMP, 1.3, 40.0),
            (BORDER, -0.1, -1.0),
            (BORDER, 0.3, 20.0),
            (WRAP, -0.1, 40.0),
            (WRAP, 1.3, 20.0),
            (MIRROR, -0.1, 10.0),
            (MIRROR, 1.3, 30.0),
            (MIRROR, 2.3, 20.0),
        ] {
            assert_eq!(read(&texels, mode, 0, true, x), want, "mode {mode} at {x}");
        }
        // Without normalised coordinates there is no wrapping.
        assert_eq!(read(&texels, WRAP, 0, false, 5.5), 40.0);
    }

    #[test]
    fn linear_filtering_weighs_in_256ths() {
        let texels = [0.0, 100.0];
        assert_eq!(read(&texels, CLAMP, 1, false, 0.5), 0.0);
        assert_eq!(read(&texels, CLAMP, 1, false, 1.0), 50.0);
        assert_eq!(read(&texels, CLAMP, 1, false, 1.25), 75.0);
        assert_eq!(read(&texels, CLAMP, 1, false, 9.0), 100.0);
        assert_eq!(read(&texels, CLAMP, 1, false, 0.5 + 0.001), 0.0);
    }

    #[test]
    fn behind_the_memory_of_a_linear_texture_there_is_nothing() {
        let texels = [10.0, 20.0];
        let image = Image { size: [4, 1, 1], pitch: 8, ..line(&texels) };
        assert_eq!(read_image(image, CLAMP, 0, false, 1.5), 20.0);
        assert_eq!(read_image(image, CLAMP, 0, false, 2.5), 0.0);
        assert_eq!(read_image(image, CLAMP, 0, false, 9.0), 0.0);
    }

    #[test]
    fn unknown_objects_are_told() {
        assert!(find(u64::MAX).is_none());
        assert_eq!(query(u64::MAX, Query::Width), None);
    }

    #[test]
    fn derivatives_choose_the_level_whose_texels_they_span() {
        let texels = [0.0; 64];
        let object = |flags: u32| Object {
            life: 1,
            source: Source::Linear(line(&texels)),
            texture: Some(CUDA_TEXTURE_DESC { flags, ..CUDA_TEXTURE_DESC::default() }),
            resource: CUDA_RESOURCE_DESC { kind: 2, words: [0; 16], flags: 0 },
            view: None,
            layers: None,
            seen_as: None,
        };
        let level = |flags: u32, dx: f32, dy: f32| {
            object(flags).gradient_level(Geometry::D1, [0.0; 3], [[dx, 0.0, 0.0], [dy, 0.0, 0.0]])
        };
        assert_eq!(level(0, 4.0, 1.0), 2.0);
        assert_eq!(level(texture_flag::NORMALIZED_COORDINATES, 1.0 / 64.0, 0.125), 3.0);
    }
}
