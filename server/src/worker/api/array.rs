//! Arrays and mipmapped arrays: the host's objects behind the guest's handles, counted against its limit.

use super::super::dispatch::{Answer, Call, Failed, done};
use super::super::session::Session;
use super::super::tables::Table;
use crate::driver::{Driver, Result};
use crate::quota::Kind;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::types::{
    CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY_SPARSE_PROPERTIES, CUDA_ARRAY3D_DESCRIPTOR, CUresult,
    HandleKind, array_flag,
};
use std::cell::Cell;
use std::collections::HashMap;

/// An array, a level of a mipmapped array, a plane of an array, or a mipmapped array.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Array {
    /// The driver's handle.
    pub(crate) native: u64,
    /// The guest's handle of the context.
    pub(crate) context: u64,
    /// The guest's handle.
    handle: u64,
    /// The guest's handle of the array that this is a part of, 0 for one that stands for itself.
    parent: u64,
    /// Bytes counted against the session's limit; 0 for a part.
    bytes: u64,
}

impl Array {
    /// A part of it, which goes with it and with its context, whatever context is current. A part of a part is one of the whole.
    fn part(self, native: u64, handle: u64) -> Self {
        let parent = if self.parent == 0 { self.handle } else { self.parent };
        Self { native, context: self.context, handle, parent, bytes: 0 }
    }
}

/// All arrays of a session, and what refers to them.
#[derive(Debug)]
pub(crate) struct Arrays {
    /// Arrays, levels and planes.
    pub(crate) arrays: Table<Array>,
    /// Mipmapped arrays.
    pub(crate) mipmapped: Table<Array>,
    /// Texture and surface references.
    pub(crate) references: Table<super::texture_reference::Reference>,
    /// Texture objects and the contexts they are of.
    pub(crate) textures: HashMap<u64, u64>,
    /// Surface objects, likewise.
    pub(crate) surfaces: HashMap<u64, u64>,
}

impl Default for Arrays {
    fn default() -> Self {
        Self {
            arrays: Table::new(HandleKind::Array),
            mipmapped: Table::new(HandleKind::MipmappedArray),
            references: Table::new(HandleKind::TextureReference),
            textures: HashMap::new(),
            surfaces: HashMap::new(),
        }
    }
}

impl Arrays {
    /// Forgets everything of a context; how many bytes that frees.
    pub(crate) fn forget_context(&mut self, raw: u64) -> u64 {
        let freed = Cell::new(0);
        let dead = |array: &Array| {
            let dead = array.context == raw;
            freed.set(freed.get() + if dead { array.bytes } else { 0 });
            dead
        };
        self.arrays.forget(dead);
        self.mipmapped.forget(dead);
        self.references.forget(|reference| reference.context == raw);
        self.textures.retain(|_, context| *context != raw);
        self.surfaces.retain(|_, context| *context != raw);
        freed.get()
    }

    /// What was made in one context is another's from now on.
    pub(crate) fn pass_on(&mut self, from: u64, to: u64) {
        for table in [&mut self.arrays, &mut self.mipmapped] {
            table.for_each_mut(|array| {
                if array.context == from {
                    array.context = to;
                }
            });
        }
    }

    /// The guest's handle of an array by the driver's.
    pub(crate) fn handle_of(&self, native: u64) -> Option<u64> {
        self.arrays.find(|array| array.native == native).map(|array| array.handle)
    }

    /// The guest's handle of a mipmapped array by the driver's.
    pub(super) fn mipmapped_of(&self, native: u64) -> Option<u64> {
        self.mipmapped.find(|array| array.native == native).map(|array| array.handle)
    }
}

fn descriptor(call: &mut Call<'_>) -> std::result::Result<CUDA_ARRAY3D_DESCRIPTOR, Failed> {
    Ok(CUDA_ARRAY3D_DESCRIPTOR {
        width: call.get_usize()?,
        height: call.get_usize()?,
        depth: call.get_usize()?,
        format: call.get()?,
        num_channels: call.get()?,
        flags: call.get()?,
    })
}

fn put_descriptor(writer: &mut Writer<'_>, descriptor: &CUDA_ARRAY3D_DESCRIPTOR) {
    for side in [descriptor.width, descriptor.height, descriptor.depth] {
        writer.put(side as u64);
    }
    for number in [descriptor.format, descriptor.num_channels, descriptor.flags] {
        writer.put(number);
    }
}

/// Makes an array of the driver's; more than zero levels ask for a mipmapped one.
fn make(driver: &Driver, descriptor: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) -> Result<u64> {
    let mut native = 0;
    // SAFETY: pointers to locals.
    unsafe {
        if levels == 0 {
            driver.cuArray3DCreate_v2(&raw mut native, descriptor)?;
        } else {
            driver.cuMipmappedArrayCreate(&raw mut native, descriptor, levels)?;
        }
    }
    Ok(native)
}

fn destroy_native(driver: &Driver, native: u64, mipmapped: bool) -> Result {
    // SAFETY: an array of ours, used no more.
    unsafe { if mipmapped { driver.cuMipmappedArrayDestroy(native) } else { driver.cuArrayDestroy(native) } }
}

fn requirements_of(
    driver: &Driver,
    native: u64,
    mipmapped: bool,
    device: i32,
) -> Result<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
    let mut requirements = CUDA_ARRAY_MEMORY_REQUIREMENTS::default();
    // SAFETY: a pointer to a local, an array of ours.
    unsafe {
        if mipmapped {
            driver.cuMipmappedArrayGetMemoryRequirements(&raw mut requirements, native, device)?;
        } else {
            driver.cuArrayGetMemoryRequirements(&raw mut requirements, native, device)?;
        }
    }
    Ok(requirements)
}

/// How much memory an array takes. The driver says so only of arrays whose memory comes later, so it is asked about one of
/// those, which costs no memory; a driver without them gets a bound: tiles of 64 bytes by 8 rows (CUDA's block-linear
/// layout), every level of a mipmapped array half as large on each side.
fn bytes_of(driver: &Driver, descriptor: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32, device: i32) -> Result<u64> {
    if descriptor.flags & (array_flag::SPARSE | array_flag::DEFERRED_MAPPING) != 0 {
        // Its memory is allocated, and counted, by cuMemCreate.
        return Ok(0);
    }
    let mipmapped = levels > 0;
    let deferred =
        CUDA_ARRAY3D_DESCRIPTOR { flags: descriptor.flags | array_flag::DEFERRED_MAPPING, ..*descriptor };
    if let Ok(native) = make(driver, &deferred, levels) {
        let told = requirements_of(driver, native, mipmapped, device);
        destroy_native(driver, native, mipmapped)?;
        if let Ok(told) = told {
            return Ok(told.size as u64);
        }
    }
    bound(descriptor, levels).ok_or(CUresult::ERROR_OUT_OF_MEMORY)
}

/// See [`bytes_of`]; `None` where the size is no number.
fn bound(descriptor: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) -> Option<u64> {
    let mut total = 0_u64;
    for level in 0..levels.clamp(1, 32) {
        let level = descriptor.level(level);
        // Formats whose elements do not stand for themselves have at most 16 bytes each.
        let element = level.element_bytes().unwrap_or(16);
        let row = (level.width as u64).checked_mul(element)?.checked_next_multiple_of(64)?;
        let rows = (level.height.max(1) as u64).checked_next_multiple_of(8)?;
        let bytes = row.checked_mul(rows)?.checked_mul(level.depth.max(1) as u64)?;
        total = total.checked_add(bytes)?;
    }
    Some(total)
}

fn give_back(session: &Session, bytes: u64) {
    session.ledger.release(Kind::Array, bytes);
}

/// What the driver says of an array.
fn describe(driver: &Driver, native: u64) -> Result<CUDA_ARRAY3D_DESCRIPTOR> {
    let mut told = CUDA_ARRAY3D_DESCRIPTOR::default();
    // SAFETY: a pointer to a local, an array of ours.
    unsafe { driver.cuArray3DGetDescriptor_v2(&raw mut told, native)? };
    Ok(told)
}

fn device_of(call: &Call<'_>) -> i32 {
    call.state.contexts.get(call.header.context).map_or(0, |context| context.device)
}

/// `cuArray3DCreate` and `cuMipmappedArrayCreate`: handle, descriptor, levels (0 for a plain array). The answer is the
/// descriptor as the driver sees it.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let descriptor = descriptor(call)?;
    let levels: u32 = call.get()?;
    let mipmapped = call.header.op == op::cuMipmappedArrayCreate;
    if mipmapped != (levels > 0) {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let (driver, session) = (call.driver(), call.session);
    let table = if mipmapped { &call.state.arrays.mipmapped } else { &call.state.arrays.arrays };
    table.check(handle)?;
    let bytes = bytes_of(driver, &descriptor, levels, device_of(call))?;
    let bytes = session.ledger.charge(bytes)?;
    call.state.reserve(session, Kind::Array, bytes)?;
    let native = match make(driver, &descriptor, levels) {
        Ok(native) => native,
        Err(error) => {
            give_back(session, bytes);
            return Err(error.into());
        }
    };
    let array = Array { native, context: call.header.context, handle, parent: 0, bytes };
    let table = if mipmapped { &mut call.state.arrays.mipmapped } else { &mut call.state.arrays.arrays };
    if let Err(error) = table.insert(handle, array) {
        destroy_native(driver, native, mipmapped)?;
        give_back(session, bytes);
        return Err(error.into());
    }
    let told = if mipmapped { descriptor } else { describe(driver, native)? };
    put_descriptor(&mut call.reply(), &told);
    done()
}

/// `cuArrayDestroy`: handle.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    if call.state.arrays.arrays.get(handle)?.parent != 0 {
        return Err(CUresult::ERROR_INVALID_HANDLE.into());
    }
    let array = call.state.arrays.arrays.remove(handle)?;
    call.state.arrays.arrays.forget(|part| part.parent == handle);
    destroy_native(call.driver(), array.native, false)?;
    give_back(call.session, array.bytes);
    done()
}

/// `cuMipmappedArrayDestroy`: handle.
pub(in super::super) fn destroy_mipmapped(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let array = call.state.arrays.mipmapped.remove(handle)?;
    call.state.arrays.arrays.forget(|part| part.parent == handle);
    destroy_native(call.driver(), array.native, true)?;
    give_back(call.session, array.bytes);
    done()
}

/// `cuMipmappedArrayGetLevel` and `cuArrayGetPlane`: whole, handle for the part, number. The answer is its descriptor.
pub(in super::super) fn part(call: &mut Call<'_>) -> Answer {
    let (parent, handle): (u64, u64) = (call.get()?, call.get()?);
    let number = call.get()?;
    let driver = call.driver();
    let mut native = 0;
    let whole;
    // SAFETY: an array of this session's; a pointer to a local.
    unsafe {
        if call.header.op == op::cuMipmappedArrayGetLevel {
            whole = *call.state.arrays.mipmapped.get(parent)?;
            driver.cuMipmappedArrayGetLevel(&raw mut native, whole.native, number)?;
        } else {
            whole = *call.state.arrays.arrays.get(parent)?;
            driver.cuArrayGetPlane(&raw mut native, whole.native, number)?;
        }
    }
    let told = describe(driver, native)?;
    call.state.arrays.arrays.insert(handle, whole.part(native, handle))?;
    put_descriptor(&mut call.reply(), &told);
    done()
}

/// `cuArrayGetMemoryRequirements` and that of mipmapped arrays: handle, device.
pub(in super::super) fn requirements(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let device = call.get()?;
    let mipmapped = call.header.op == op::cuMipmappedArrayGetMemoryRequirements;
    let table = if mipmapped { &call.state.arrays.mipmapped } else { &call.state.arrays.arrays };
    let told = requirements_of(call.driver(), table.get(handle)?.native, mipmapped, device)?;
    let mut reply = call.reply();
    reply.put(told.size as u64);
    reply.put(told.alignment as u64);
    done()
}

/// `cuArrayGetSparseProperties` and that of mipmapped arrays: handle.
pub(in super::super) fn sparse(call: &mut Call<'_>) -> Answer {
    let handle = call.get()?;
    let mut told = CUDA_ARRAY_SPARSE_PROPERTIES::default();
    let driver = call.driver();
    // SAFETY: an array of this session's; a pointer to a local.
    unsafe {
        if call.header.op == op::cuMipmappedArrayGetSparseProperties {
            let native = call.state.arrays.mipmapped.get(handle)?.native;
            driver.cuMipmappedArrayGetSparseProperties(&raw mut told, native)?;
        } else {
            let native = call.state.arrays.arrays.get(handle)?.native;
            driver.cuArrayGetSparseProperties(&raw mut told, native)?;
        }
    }
    let mut reply = call.reply();
    reply.put(told.tile_extent);
    reply.put(told.miptail_first_level);
    reply.put(told.miptail_size);
    reply.put(told.flags);
    done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::types::{GuestHandle, array_format};

    #[test]
    fn the_bound_covers_whole_tiles_of_every_level() {
        let plane = CUDA_ARRAY3D_DESCRIPTOR {
            width: 100,
            height: 20,
            depth: 0,
            format: array_format::FLOAT,
            num_channels: 1,
            flags: 0,
        };
        assert_eq!(bound(&plane, 0), Some(448 * 24));
        // 100 x 20, 50 x 10, 25 x 5 floats.
        assert_eq!(bound(&plane, 3), Some(448 * 24 + 256 * 16 + 128 * 8));
        assert_eq!(bound(&CUDA_ARRAY3D_DESCRIPTOR { width: usize::MAX, ..plane }, 0), None);
    }

    #[test]
    fn a_part_goes_with_the_whole() {
        let whole = Array { native: 1, context: 7, handle: 10, parent: 0, bytes: 100 };
        let level = whole.part(2, 11);
        let plane = level.part(3, 12);
        for part in [level, plane] {
            assert_eq!((part.context, part.parent, part.bytes), (7, 10, 0));
        }
    }

    #[test]
    fn a_context_takes_its_arrays_with_it() {
        let mut arrays = Arrays::default();
        for slot in 0..4_u32 {
            let handle = GuestHandle { kind: HandleKind::Array as u8, generation: 0, slot }.encode();
            let array = Array {
                native: u64::from(slot) + 1,
                context: u64::from(slot % 2),
                handle,
                parent: 0,
                bytes: 100,
            };
            arrays.arrays.insert(handle, array).unwrap();
            assert_eq!(arrays.handle_of(array.native), Some(handle));
        }
        arrays.textures.insert(7, 1);
        assert_eq!(arrays.forget_context(1), 200);
        assert!(arrays.textures.is_empty());
        assert_eq!(arrays.handle_of(2), None);
        assert!(arrays.handle_of(1).is_some());
        assert_eq!(arrays.forget_context(1), 0);
    }
}
