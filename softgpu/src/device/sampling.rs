//! How texels are read: address modes, filtering, formats (CUDA C++ programming guide, "Texture fetching"). Called by
//! [`super::texture`] with an image and a place; pure but for the reads of the image's memory.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates become texel numbers, and channels take as many bits as the format has"
)]

use super::array::{Image, channel_bytes};
use pxos_protocol::types::{CUDA_TEXTURE_DESC, array_format, texture_flag};

/// Four channels of a texel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Texel {
    Float([f32; 4]),
    Bits([u32; 4]),
}

impl Texel {
    /// The bits of the four channels.
    pub(super) fn bits(self) -> [u32; 4] {
        match self {
            Self::Float(channels) => channels.map(f32::to_bits),
            Self::Bits(channels) => channels,
        }
    }

    /// A mixture with another texel, floats only.
    pub(super) fn mix(&self, other: &Self, part: f32) -> Self {
        match (self, other) {
            (Self::Float(near), Self::Float(far)) => {
                Self::Float(std::array::from_fn(|channel| near[channel] * (1.0 - part) + far[channel] * part))
            }
            _ => *self,
        }
    }
}

/// A texel number on one side, after address modes: inside, or the border.
pub(super) type Index = Option<u32>;

/// The face of a cube that a direction meets, and where (CUDA C++ programming guide, "Cubemap textures").
pub(super) fn cube_face(direction: [f32; 3]) -> (u32, f32, f32) {
    let [x, y, z] = direction;
    let (ax, ay, az) = (x.abs(), y.abs(), z.abs());
    let face = if ax >= ay && ax >= az {
        if x >= 0.0 { 0 } else { 1 }
    } else if ay >= az {
        if y >= 0.0 { 2 } else { 3 }
    } else if z >= 0.0 {
        4
    } else {
        5
    };
    let (s, t) = face_coordinates(face, direction);
    (face, s, t)
}

/// Where a direction meets the plane of a face, from 0 to 1 on the face.
pub(super) fn face_coordinates(face: u32, [x, y, z]: [f32; 3]) -> (f32, f32) {
    let (major, s, t) = match face {
        0 => (x, -z, -y),
        1 => (x, z, -y),
        2 => (y, x, z),
        3 => (y, x, -z),
        4 => (z, x, -y),
        _ => (z, -x, -y),
    };
    let major = major.abs();
    (f32::midpoint(s / major, 1.0), f32::midpoint(t / major, 1.0))
}

/// Reads one to three sides of an image at a place; `layer` fixes the third.
#[inline]
pub(super) fn sample_plane(
    how: &CUDA_TEXTURE_DESC,
    image: &Image,
    at: [f32; 3],
    sides: usize,
    layer: Index,
    gather: Option<u8>,
    normalised: bool,
) -> Texel {
    let linear = how.filter_mode == 1 || gather.is_some();
    // Per side: two neighbouring texels and the weight of the second.
    let mut near = [Some(0), Some(0), layer];
    let mut far = near;
    let mut weight = [0.0f32; 3];
    for side in 0..sides {
        let size = image.size[side];
        let mode =
            if normalised || how.address_mode[side] == BORDER { how.address_mode[side] } else { CLAMP };
        (near[side], far[side], weight[side]) = neighbours(at[side], size, mode, normalised, linear);
    }
    if let Some(component) = gather {
        let channel =
            |x: Index, y: Index| texel(how, image, [x, y, near[2]]).bits()[usize::from(component & 3)];
        let corners = [
            channel(near[0], far[1]),
            channel(far[0], far[1]),
            channel(far[0], near[1]),
            channel(near[0], near[1]),
        ];
        return match texel(how, image, near) {
            Texel::Float(_) => Texel::Float(corners.map(f32::from_bits)),
            Texel::Bits(_) => Texel::Bits(corners),
        };
    }
    if !linear {
        return texel(how, image, near);
    }
    if weight == [0.0; 3] {
        // At the middle of a texel: what the sum below comes to.
        return match texel(how, image, near) {
            Texel::Float(channels) => Texel::Float(channels.map(|channel| 0.0 + channel)),
            bits @ Texel::Bits(_) => bits,
        };
    }
    let mut sum = [0.0f64; 4];
    for (corner, share) in shares(weight, sides).into_iter().enumerate().take(1 << sides) {
        if share == 0.0 {
            continue;
        }
        let side = |side: usize| if corner >> side & 1 == 1 { far[side] } else { near[side] };
        match texel(how, image, std::array::from_fn(side)) {
            Texel::Float(channels) => {
                sum.iter_mut().zip(channels).for_each(|(sum, channel)| *sum += share * f64::from(channel));
            }
            // Integers are not filtered.
            bits @ Texel::Bits(_) => return bits,
        }
    }
    Texel::Float(sum.map(|channel| channel as f32))
}

/// The shares of the texels around a place, by the weights of the farther ones; bit `n` of a number stands for the farther
/// one on side `n`. In two dimensions they have 8 fractional bits, too, and their sum is one: so the images of NVIDIA's
/// simpleTexture are those of an H200 to the byte. How it rounds in three is not known.
fn shares(weight: [f32; 3], sides: usize) -> [f64; 8] {
    let weight = weight.map(f64::from);
    if sides == 2 {
        let both = (weight[0] * weight[1] * 256.0 + 0.5).floor() / 256.0;
        let [x, y] = [weight[0] - both, weight[1] - both];
        return [1.0 - x - y - both, x, y, both, 0.0, 0.0, 0.0, 0.0];
    }
    let of_side =
        |corner: usize, side: usize| if corner >> side & 1 == 1 { weight[side] } else { 1.0 - weight[side] };
    std::array::from_fn(|corner| (0..sides).map(|side| of_side(corner, side)).product())
}

/// `CU_TR_ADDRESS_MODE_…`.
pub(super) const WRAP: u32 = 0;
/// See [`WRAP`].
pub(super) const CLAMP: u32 = 1;
/// See [`WRAP`].
pub(super) const MIRROR: u32 = 2;
/// See [`WRAP`].
pub(super) const BORDER: u32 = 3;

/// The texels that a coordinate falls between on one side, and the weight of the second, in 8 fractional bits as the
/// hardware has it. Without filtering both are the texel that it falls in.
fn neighbours(at: f32, size: u32, mode: u32, normalised: bool, linear: bool) -> (Index, Index, f32) {
    let extent = size as f32;
    let folded = match mode {
        WRAP if normalised => at - at.floor(),
        MIRROR if normalised => {
            let part = at - at.floor();
            if at.floor().rem_euclid(2.0) == 1.0 { 1.0 - part } else { part }
        }
        _ => at,
    };
    let scaled = if normalised { folded * extent } else { folded };
    let index = |number: f32| {
        // Every texel number is a float; NaN becomes the first.
        if mode == CLAMP && size <= 1 << 24 {
            return Some(number.max(0.0).min(extent - 1.0) as u32);
        }
        let last = i64::from(size) - 1;
        let number = if number.is_nan() { 0 } else { number as i64 };
        let met = match mode {
            WRAP => number.rem_euclid(i64::from(size)),
            BORDER if !(0..=last).contains(&number) => return None,
            _ => number.clamp(0, last),
        };
        u32::try_from(met).ok()
    };
    if !linear {
        // What folding has brought to the very end belongs to the last texel.
        let found = match mode {
            WRAP | MIRROR => index(floor(scaled).min(extent - 1.0)),
            _ => index(floor(scaled)),
        };
        return (found, found, 0.0);
    }
    let shifted = scaled - 0.5;
    let below = floor(shifted);
    let parts = (shifted - below) * 256.0;
    // To the nearest, ties upwards.
    let weight = if parts - floor(parts) < 0.5 { floor(parts) } else { floor(parts) + 1.0 } / 256.0;
    (index(below), index(below + 1.0), weight)
}

/// The next whole number below, without a call of the C library for what textures are read at.
#[inline(always)]
fn floor(x: f32) -> f32 {
    // Beyond 2^23 every float is whole.
    if x.abs() >= 8_388_608.0 || x.is_nan() {
        return x;
    }
    let towards_zero = x as i32 as f32;
    if towards_zero > x { towards_zero - 1.0 } else { towards_zero }
}

/// One texel, or the border's colour.
#[inline]
pub(super) fn texel(how: &CUDA_TEXTURE_DESC, image: &Image, place: [Index; 3]) -> Texel {
    let as_integer = how.flags & texture_flag::READ_AS_INTEGER != 0;
    let channel_size = channel_bytes(image.format).unwrap_or(1);
    let float_format = matches!(image.format, array_format::FLOAT | array_format::HALF);
    let as_float = float_format || !as_integer && channel_size < 4;
    let [Some(x), Some(y), Some(z)] = place else {
        return if as_float { Texel::Float(how.border_color) } else { Texel::Bits([0; 4]) };
    };
    let in_row = u64::from(x) * u64::from(image.element_bytes());
    let is_there = in_row + u64::from(image.element_bytes()) <= image.pitch;
    let at = image.address + u64::from(z) * image.plane + u64::from(y) * image.pitch + in_row;
    let read = |channel: u32| {
        if !is_there {
            return 0;
        }
        let from = pointer(at + u64::from(channel * channel_size));
        // SAFETY: inside the image, whose memory the object keeps, or which the application keeps while kernels use it;
        // device memory stays mapped in any case.
        unsafe {
            match channel_size {
                4 => from.cast::<u32>().read_unaligned(),
                2 => u32::from(from.cast::<u16>().read_unaligned()),
                _ => u32::from(from.read()),
            }
        }
    };
    if as_float {
        let mut channels = [0.0, 0.0, 0.0, 1.0];
        for (index, channel) in (0..image.channels).zip(&mut channels) {
            *channel = to_float(image.format, read(index));
            if how.flags & texture_flag::SRGB != 0 && index < 3 && channel_size == 1 {
                *channel = from_srgb(*channel);
            }
        }
        return Texel::Float(channels);
    }
    let mut channels = [0, 0, 0, 1];
    for (index, channel) in (0..image.channels).zip(&mut channels) {
        *channel = extend(image.format, read(index));
    }
    Texel::Bits(channels)
}

/// A channel as a float: small integers from 0 or -1 to 1.
fn to_float(format: u32, bits: u32) -> f32 {
    match format {
        array_format::UNSIGNED_INT8 => f32::from(bits as u8) / 255.0,
        array_format::UNSIGNED_INT16 => f32::from(bits as u16) / 65535.0,
        array_format::SIGNED_INT8 => (f32::from((bits as u8).cast_signed()) / 127.0).max(-1.0),
        array_format::SIGNED_INT16 => (f32::from((bits as u16).cast_signed()) / 32767.0).max(-1.0),
        array_format::HALF => from_half(bits as u16),
        _ => f32::from_bits(bits),
    }
}

/// An integer channel in 32 bits.
fn extend(format: u32, bits: u32) -> u32 {
    match format {
        array_format::SIGNED_INT8 => i32::from((bits as u8).cast_signed()).cast_unsigned(),
        array_format::SIGNED_INT16 => i32::from((bits as u16).cast_signed()).cast_unsigned(),
        _ => bits,
    }
}

/// A half-precision number, exactly.
fn from_half(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13);
    // The exponent's bias differs by 112; infinities and NaNs keep all ones.
    let value = if bits & 0x7c00 == 0x7c00 {
        f32::from_bits(magnitude.to_bits() | 0x7f80_0000)
    } else {
        magnitude * f32::from_bits((127 + 112) << 23)
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

fn from_srgb(value: f32) -> f32 {
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// An address as a pointer.
pub(super) fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_four_texels_have_eight_bits_and_are_one_together() {
        for (x, y) in (0..256_u16).flat_map(|x| (0..256_u16).map(move |y| (x, y))) {
            let found = shares([f32::from(x) / 256.0, f32::from(y) / 256.0, 0.0], 2);
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{x} {y}");
            assert!(found.iter().all(|share| *share >= 0.0 && (share * 256.0).fract() == 0.0), "{x} {y}");
        }
        // 3/256 of each side: the corner's own 9/65536 are nearer to nothing than to 1/256.
        assert_eq!(
            shares([3.0 / 256.0, 3.0 / 256.0, 0.0], 2).map(|share| share * 256.0)[..4],
            [250.0, 3.0, 3.0, 0.0]
        );
        assert_eq!(shares([0.5, 0.0, 0.0], 1)[..2], [0.5, 0.5]);
        assert_eq!(shares([0.5; 3], 3), [0.125; 8]);
    }

    #[test]
    fn halves_are_exact() {
        for (bits, want) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 2f32.powi(-24)), (0, 0.0)]
        {
            assert_eq!(from_half(bits), want);
        }
        assert!(from_half(0x7c00).is_infinite() && from_half(0x7e00).is_nan());
    }

    #[test]
    fn faces_of_a_cube() {
        assert_eq!(cube_face([1.0, 0.0, 0.0]), (0, 0.5, 0.5));
        assert_eq!(cube_face([0.0, -2.0, 0.0]).0, 3);
        assert_eq!(cube_face([0.1, 0.2, -3.0]).0, 5);
    }
}
