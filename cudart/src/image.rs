//! What a module load was given: the kind of image behind a bare pointer, and how many bytes it has.
//!
//! The driver API passes images without a length (`cuModuleLoadData`, `cuLibraryLoadData`, …); whoever wants to carry
//! one elsewhere must find its end from its own headers. [`inspect`] does so in the process that owns the memory;
//! [`kind_of`] and [`length_of`] do the same over bytes that came from a peer, and never read outside them.
//!
//! A *wrapper* is what nvcc puts into an executable and the runtime passes to `cuLibraryLoadData`: 24 bytes that point
//! at a fatbin. A *fatbin* is a container of images for several architectures. One fatbin ends where its header says,
//! also if another one follows at once: the driver loads nothing of a second one (measured), and in an executable or
//! library the next one belongs to the next wrapper.

mod atomics;
mod compression;
mod elf;
mod fatbin;
mod params;
mod source;

use std::ffi::c_void;

pub use atomics::{SystemAtomics, system_atomics};
pub use compression::{Compression, DecompressError};
pub use fatbin::{Entry, EntryKind, entries};
pub use params::{KernelParams, Param, kernel_params};
use source::{Memory, Source};

use crate::result::{ERROR_INVALID_IMAGE, ERROR_INVALID_VALUE};

/// What an image is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container of images (magic 0xBA55ED50).
    Fatbin,
    /// A cubin or other ELF object.
    Elf,
    /// PTX text that ends with a NUL byte.
    Ptx,
}

/// Bytes somewhere in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where they start.
    pub pointer: *const u8,
    /// How many they are; for PTX with the NUL byte that ends it.
    pub len: usize,
}

/// An image as a load call was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What the bytes are; never the wrapper itself.
    pub kind: Kind,
    /// The bytes.
    pub span: Span,
    /// The wrapper that pointed at them, if there was one.
    pub wrapper: Option<Wrapper>,
}

/// What a wrapper says beside the place of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapper {
    /// 1, or 2 for device code that was linked at build time (`-rdc=true`, `-dlto`).
    pub version: u32,
    /// Of version 2: the fatbins from before the link. The driver runs the linked image, not these.
    pub unlinked: Vec<Span>,
}

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A null pointer for an image.
    #[error("null pointer for an image")]
    Null,
    /// The memory that the image must occupy cannot be read.
    #[error("{len} bytes at {address:#x} of an image cannot be read")]
    Unreadable {
        /// Where the image's own headers point.
        address: usize,
        /// How many bytes were wanted there.
        len: usize,
    },
    /// Bytes from a peer end before the image does.
    #[error("image needs {needed} bytes and {available} are there")]
    Truncated {
        /// Where the image ends.
        needed: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// A static library, which the driver takes only through `cuLinkAddData`.
    #[error("image is an archive; only a linker takes those")]
    Archive,
    /// The fatbin format before CUDA 4, with magic 0x1EE55A01.
    #[error("image is a fatbin of the format before cuda 4")]
    OldFatbin,
    /// The first bytes belong to nothing known.
    #[error("image begins with {0:02x?}, which is neither a wrapper, fatbin, elf nor ptx")]
    UnknownMagic([u8; 4]),
    /// A wrapper whose version is neither 1 nor 2.
    #[error("fatbin wrapper of version {0}")]
    WrapperVersion(u32),
    /// A wrapper inside of a wrapper, or one where bytes of a peer were expected.
    #[error("fatbin wrapper where an image was expected")]
    UnexpectedWrapper,
    /// A header field contradicts the format or another field.
    #[error("damaged image: {what} is {value:#x}")]
    Damaged {
        /// Which field, in the words of its format.
        what: &'static str,
        /// What it says.
        value: u64,
    },
    /// Longer than [`MAX_LEN`].
    #[error("image of {0} bytes is longer than {MAX_LEN}")]
    TooLong(u64),
}

impl ImageError {
    /// The `CUresult` of a load call with such an image.
    #[must_use]
    pub fn result(&self) -> u32 {
        match self {
            Self::Null => ERROR_INVALID_VALUE,
            _ => ERROR_INVALID_IMAGE,
        }
    }
}

/// The longest image that is believed. Images lie in the data sections of objects, whose relocations reach 2 GiB.
pub const MAX_LEN: u64 = 2 << 30;

/// The most un-linked fatbins that a wrapper's list is followed for: one per translation unit of a program.
const MAX_UNLINKED: usize = 1 << 16;

/// Finds out what a load call was given.
///
/// Headers are read with a system call that fails on memory that is not mapped, and the image's last byte is tried
/// likewise, so that a damaged length becomes an error instead of a fault.
///
/// # Safety
/// As the caller of `cuModuleLoadData` or `cuLibraryLoadData` promises: the pointer is null or points at a complete
/// image (or a wrapper around one) that stays unchanged during this call.
///
/// # Errors
/// [`ImageError`] if it is no image, or one whose headers contradict themselves or lead outside readable memory.
pub unsafe fn inspect(pointer: *const c_void) -> Result<Image, ImageError> {
    let start = Memory::at(pointer.cast())?;
    if magic(&start)? != WRAPPER_MAGIC {
        return image_at(start, None);
    }
    let version = start.u32(4)?;
    let data = start.u64(8)?;
    let extra = start.u64(16)?;
    let unlinked = match version {
        // `extra` is the name of a file to use instead; always null in what nvcc writes.
        1 => Vec::new(),
        2 => unlinked(extra)?,
        other => return Err(ImageError::WrapperVersion(other)),
    };
    image_at(memory_at(data)?, Some(Wrapper { version, unlinked }))
}

/// The image at an address that is no wrapper.
fn image_at(start: Memory, wrapper: Option<Wrapper>) -> Result<Image, ImageError> {
    let kind = kind_at(&start)?;
    let len = length_at(&start, kind)?;
    Ok(Image { kind, span: start.span(len)?, wrapper })
}

/// The null-terminated list of fatbins that a wrapper of version 2 points at.
fn unlinked(list: u64) -> Result<Vec<Span>, ImageError> {
    let mut spans = Vec::new();
    if list == 0 {
        return Ok(spans);
    }
    let list = memory_at(list)?;
    loop {
        let address = list.u64(8 * spans.len())?;
        if address == 0 {
            return Ok(spans);
        }
        if spans.len() == MAX_UNLINKED {
            return Err(ImageError::Damaged {
                what: "count of un-linked fatbins",
                value: MAX_UNLINKED as u64,
            });
        }
        let start = memory_at(address)?;
        let kind = kind_at(&start)?;
        let len = length_at(&start, kind)?;
        spans.push(start.span(len)?);
    }
}

fn memory_at(address: u64) -> Result<Memory, ImageError> {
    let address = usize::try_from(address).expect("this process has 64-bit pointers");
    Memory::at(std::ptr::with_exposed_provenance(address))
}

/// What kind of image the bytes begin with.
///
/// # Errors
/// [`ImageError`] for anything but a fatbin, an ELF object or text.
pub fn kind_of(bytes: &[u8]) -> Result<Kind, ImageError> {
    kind_at(&bytes)
}

/// How many of the bytes the image at their start takes, if it is of that kind.
///
/// # Errors
/// [`ImageError`] if it is of another kind, damaged, or longer than the bytes.
pub fn length_of(bytes: &[u8], kind: Kind) -> Result<usize, ImageError> {
    let found = kind_of(bytes)?;
    if found != kind {
        return Err(ImageError::Damaged { what: "kind", value: found as u64 });
    }
    let len = length_at(&bytes, kind)?;
    if len > bytes.len() {
        return Err(ImageError::Truncated { needed: len, available: bytes.len() });
    }
    Ok(len)
}

fn kind_at(source: &impl Source) -> Result<Kind, ImageError> {
    let magic = magic(source)?;
    match magic {
        FATBIN_MAGIC => Ok(Kind::Fatbin),
        elf::MAGIC => Ok(Kind::Elf),
        OLD_FATBIN_MAGIC => Err(ImageError::OldFatbin),
        ARCHIVE_MAGIC => Err(ImageError::Archive),
        WRAPPER_MAGIC => Err(ImageError::UnexpectedWrapper),
        [first, ..] if is_text(first) => Ok(Kind::Ptx),
        _ => Err(ImageError::UnknownMagic(magic)),
    }
}

/// The first four bytes, which every image has: the shortest text is ".version …".
fn magic(source: &impl Source) -> Result<[u8; 4], ImageError> {
    let mut magic = [0; 4];
    source.read(0, &mut magic)?;
    Ok(magic)
}

/// Whether PTX can begin with this byte: a directive, a comment, white space, or a byte order mark.
fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace() || byte == 0xef
}

fn length_at(source: &impl Source, kind: Kind) -> Result<usize, ImageError> {
    let len = match kind {
        Kind::Fatbin => fatbin::length(source)?,
        Kind::Elf => elf::length(source)?,
        Kind::Ptx => source.text_len()? as u64,
    };
    if len > MAX_LEN {
        return Err(ImageError::TooLong(len));
    }
    Ok(usize::try_from(len).expect("at most MAX_LEN"))
}

/// The first word of a wrapper (`fatbinary_section.h` of the toolkit).
pub const WRAPPER_MAGIC: [u8; 4] = 0x4662_43b1u32.to_le_bytes();
const FATBIN_MAGIC: [u8; 4] = 0xba55_ed50u32.to_le_bytes();
const OLD_FATBIN_MAGIC: [u8; 4] = 0x1ee5_5a01u32.to_le_bytes();
const ARCHIVE_MAGIC: [u8; 4] = *b"!<ar";
