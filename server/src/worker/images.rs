//! Images that the guest has sent, by their hash: sent once, loaded as often as it likes.

use super::session::Fatal;
use memmap2::{Advice, MmapMut, MmapOptions};
use pxos_cudart::image::{SystemAtomics, system_atomics};
use pxos_protocol::codec::Reader;
use pxos_protocol::types::CUresult;
use std::collections::HashMap;
use std::ffi::c_void;

/// Most bytes of images that a session may keep here; cuBLAS and cuDNN together stay below half of it.
const MAX_TOTAL: u64 = 4 << 30;

/// Images from here on lie in pages of their own.
const LARGE: usize = 1 << 20;

/// One image, as far as it has come.
#[derive(Debug)]
struct Image {
    memory: Memory,
    filled: usize,
}

/// Room for a whole image. A claimed length costs nothing: pages are there when bytes come.
#[derive(Debug)]
enum Memory {
    Small(Box<[u8]>),
    /// In huge pages where the kernel has them: 200 MB in small ones are 50,000 faults.
    Large(MmapMut),
}

impl Image {
    fn new(total: usize) -> std::io::Result<Self> {
        if total < LARGE {
            return Ok(Self { memory: Memory::Small(vec![0; total].into()), filled: 0 });
        }
        let memory = MmapOptions::new().len(total).no_reserve_swap().map_anon()?;
        // Only a wish.
        let _ = memory.advise(Advice::HugePage);
        Ok(Self { memory: Memory::Large(memory), filled: 0 })
    }

    /// Takes the next bytes; `false` where there are too many.
    fn append(&mut self, chunk: &[u8]) -> bool {
        let memory: &mut [u8] = match &mut self.memory {
            Memory::Small(memory) => memory,
            Memory::Large(memory) => memory,
        };
        let Some(room) = memory.get_mut(self.filled..).and_then(|room| room.get_mut(..chunk.len())) else {
            return false;
        };
        room.copy_from_slice(chunk);
        self.filled += chunk.len();
        true
    }

    /// All of it, once it is there.
    fn whole(&self) -> Option<&[u8]> {
        let memory: &[u8] = match &self.memory {
            Memory::Small(memory) => memory,
            Memory::Large(memory) => memory,
        };
        (self.filled == memory.len()).then_some(memory)
    }
}

/// What a load call of the driver's is given: an image by itself, or a wrapper that names the images from before its
/// device code was linked, too.
#[derive(Debug)]
pub(super) enum Loadable<'a> {
    /// An image.
    Bare(&'a [u8]),
    /// A wrapper.
    Wrapped(Box<Wrapper>),
}

impl Loadable<'_> {
    /// The pointer for the driver, good while this value is.
    pub(super) fn as_ptr(&self) -> *const c_void {
        match self {
            Self::Bare(bytes) => bytes.as_ptr().cast(),
            Self::Wrapped(wrapper) => (&raw const **wrapper).cast(),
        }
    }
}

/// The wrapper that nvcc writes around an image (`fatbinary_section.h` of the toolkit), of version 2: with a
/// null-terminated list of images from before the link.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Wrapper {
    magic: [u8; 4],
    version: u32,
    image: *const u8,
    unlinked: *const *const u8,
    list: Vec<*const u8>,
}

/// All images of a session.
#[derive(Debug, Default)]
pub(super) struct Images {
    by_hash: HashMap<[u64; 2], Image>,
    total: u64,
    /// Images that a module or library may run code of, by the guest's handle: the one it was loaded from, and those from
    /// before its link.
    loaded: HashMap<u64, Vec<[u64; 2]>>,
    /// Which kernels of an image make system-scope atomics, once that was asked.
    atomics: HashMap<[u64; 2], SystemAtomics>,
}

impl Images {
    /// Takes a chunk: hash, total length, offset, bytes.
    pub(super) fn receive(&mut self, payload: &[u8]) -> Result<(), Fatal> {
        let mut fields = Reader::new(payload);
        let hash: [u64; 2] = fields.get()?;
        let total: u64 = fields.get()?;
        let offset: u64 = fields.get()?;
        let chunk = fields.get_bytes()?;
        if offset == 0 && !self.by_hash.contains_key(&hash) {
            if self.total.saturating_add(total) > MAX_TOTAL {
                return Err(Fatal::Malformed(format!("images of more than {MAX_TOTAL} bytes")));
            }
            self.total += total;
            let total = usize::try_from(total).map_err(|_| Fatal::Malformed("image length".into()))?;
            let image = Image::new(total)
                .map_err(|error| Fatal::Lost(format!("an image of {total} bytes: {error}")))?;
            self.by_hash.insert(hash, image);
        }
        let image =
            self.by_hash.get_mut(&hash).ok_or_else(|| Fatal::Malformed("image without a start".into()))?;
        if offset != image.filled as u64 || !image.append(chunk) {
            return Err(Fatal::Malformed("image chunks out of order".into()));
        }
        Ok(())
    }

    /// The image of a load call: the linked one, and the others if it has to be linked anew.
    pub(super) fn loadable(&self, hash: [u64; 2], unlinked: &[[u64; 2]]) -> Result<Loadable<'_>, CUresult> {
        let image = self.complete(hash)?;
        if unlinked.is_empty() {
            return Ok(Loadable::Bare(image));
        }
        let images = unlinked.iter().map(|hash| Ok(self.complete(*hash)?.as_ptr()));
        let mut list = images.collect::<Result<Vec<_>, CUresult>>()?;
        list.push(std::ptr::null());
        let (magic, image) = (pxos_cudart::image::WRAPPER_MAGIC, image.as_ptr());
        Ok(Loadable::Wrapped(Box::new(Wrapper { magic, version: 2, image, unlinked: list.as_ptr(), list })))
    }

    /// A complete image of any kind, which the driver is given with its length.
    pub(super) fn whole(&self, hash: [u64; 2]) -> Result<&[u8], CUresult> {
        self.by_hash.get(&hash).and_then(Image::whole).ok_or(CUresult::ERROR_INVALID_IMAGE)
    }

    /// A complete image whose own headers agree with its length: the driver will not read beyond its end.
    pub(super) fn complete(&self, hash: [u64; 2]) -> Result<&[u8], CUresult> {
        let bytes = self.whole(hash)?;
        let length = pxos_cudart::image::kind_of(bytes)
            .and_then(|kind| pxos_cudart::image::length_of(bytes, kind))
            .map_err(|error| CUresult(error.result()))?;
        if length > bytes.len() { Err(CUresult::ERROR_INVALID_IMAGE) } else { Ok(bytes) }
    }

    /// A module or library was loaded.
    pub(super) fn loaded(&mut self, owner: u64, hash: [u64; 2], unlinked: Vec<[u64; 2]>) {
        let mut hashes = unlinked;
        hashes.push(hash);
        self.loaded.insert(owner, hashes);
    }

    /// It is no more.
    pub(super) fn unloaded(&mut self, owner: u64) {
        self.loaded.remove(&owner);
    }

    /// Only these are still loaded.
    pub(super) fn retain(&mut self, lives: impl Fn(u64) -> bool) {
        self.loaded.retain(|owner, _| lives(*owner));
    }

    /// Whether a kernel of a module or library makes system-scope atomics on devices of these architectures (times ten, as
    /// 90 for `sm_90`), which are always the same ones. An image that cannot be read makes none.
    ///
    /// The first question about an image reads all of it: once in its life, and only for programs with managed memory
    /// (decision 0020).
    pub(super) fn makes_system_atomics(&mut self, owner: u64, kernel: &str, architectures: &[u32]) -> bool {
        let Self { by_hash, loaded, atomics, .. } = self;
        loaded.get(&owner).into_iter().flatten().any(|hash| {
            let known = atomics.entry(*hash).or_insert_with(|| {
                let image = by_hash.get(hash).and_then(Image::whole);
                image.and_then(|image| system_atomics(image, architectures).ok()).unwrap_or_default()
            });
            known.of(kernel)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::codec::Writer;

    fn chunk(hash: [u64; 2], total: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer);
        writer.put(hash);
        writer.put(total);
        writer.put(offset);
        writer.put_bytes(bytes);
        buffer
    }

    #[test]
    fn an_image_is_whole_or_not_there() {
        let mut images = Images::default();
        let text = b".version 9.0\n.target sm_90\n.address_size 64\n\0";
        images.receive(&chunk([1, 2], text.len() as u64, 0, &text[..10])).unwrap();
        assert!(images.complete([1, 2]).is_err());
        images.receive(&chunk([1, 2], text.len() as u64, 10, &text[10..])).unwrap();
        assert_eq!(images.complete([1, 2]).unwrap(), text);
        assert!(images.complete([3, 4]).is_err());
    }

    #[test]
    fn a_wrapper_names_the_images_from_before_the_link() {
        let mut images = Images::default();
        let text = b".version 9.0\n.target sm_90\n.address_size 64\n\0";
        for hash in [[1, 2], [3, 4]] {
            images.receive(&chunk(hash, text.len() as u64, 0, text)).unwrap();
        }
        assert!(images.loadable([1, 2], &[[3, 4], [5, 6]]).is_err());
        let loadable = images.loadable([1, 2], &[[3, 4], [1, 2]]).unwrap();
        // SAFETY: the wrapper and what it points at live.
        let found = unsafe { pxos_cudart::image::inspect(loadable.as_ptr()) }.unwrap();
        assert_eq!(found.wrapper.unwrap().unlinked.len(), 2);
    }

    #[test]
    fn kernels_of_what_is_loaded_are_told_apart() {
        let mut images = Images::default();
        let text = b".version 9.0\n.target sm_90\n.address_size 64\n\
            .visible .entry add(.param .u64 p) { .reg .b64 %rd<2>; ld.param.u64 %rd1, [p]; \
            red.sys.global.add.u32 [%rd1], 1; ret; }\n\
            .visible .entry plain(.param .u64 p) { .reg .b64 %rd<2>; ld.param.u64 %rd1, [p]; \
            red.global.add.u32 [%rd1], 1; ret; }\n\0";
        images.receive(&chunk([1, 2], text.len() as u64, 0, text)).unwrap();
        images.receive(&chunk([3, 4], 4, 0, b"none")).unwrap();
        images.loaded(7, [1, 2], Vec::new());
        images.loaded(8, [3, 4], vec![[1, 2]]);
        images.loaded(9, [3, 4], vec![[5, 6]]);
        for owner in [7, 8] {
            assert!(images.makes_system_atomics(owner, "add", &[90]), "{owner}");
            assert!(!images.makes_system_atomics(owner, "plain", &[90]), "{owner}");
        }
        assert!(
            !images.makes_system_atomics(9, "add", &[90]),
            "an image that is none, and one that never came"
        );
        assert!(!images.makes_system_atomics(10, "add", &[90]), "nothing of that name");
        images.unloaded(7);
        images.retain(|owner| owner != 8);
        assert!(
            !images.makes_system_atomics(7, "add", &[90]) && !images.makes_system_atomics(8, "add", &[90])
        );
    }

    #[test]
    fn claims_end_the_session_not_the_server() {
        let mut images = Images::default();
        assert!(images.receive(&chunk([1, 2], u64::MAX, 0, b"x")).is_err());
        assert!(images.receive(&chunk([1, 2], 10, 5, b"x")).is_err());
        images.receive(&chunk([1, 2], 2, 0, b"x")).unwrap();
        assert!(images.receive(&chunk([1, 2], 2, 1, b"long")).is_err());
        assert!(images.receive(b"").is_err());
    }
}
