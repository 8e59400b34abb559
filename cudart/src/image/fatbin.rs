//! Fatbin containers: their length, and the entries in them.
//!
//! A header of 16 bytes (magic, version 1, header size, bytes of all entries) is followed by entries, each with a
//! header of at least 64 bytes and a payload rounded up to 8. Flags carry bits of unknown meaning, so that single bits
//! are tested and never the whole.

use std::borrow::Cow;

use super::compression::{Compression, DecompressError};
use super::source::Source;
use super::{FATBIN_MAGIC, ImageError};

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// PTX text.
    Ptx,
    /// A cubin.
    Elf,
    /// Something else, e.g. code for link-time optimisation, by its number.
    Other(u16),
}

/// One image in a fatbin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is once it is decompressed.
    pub kind: EntryKind,
    /// For PTX the PTX version as (major, minor), e.g. (9, 0).
    pub version: (u16, u16),
    /// The architecture times ten, e.g. 90 for `sm_90` or `compute_90`.
    pub architecture: u32,
    /// All flags: 0x1 64-bit addresses, 0x2 debug information, 0x2000 LZ4, 0x8000 zstd, and others.
    pub flags: u64,
    /// How the payload is stored.
    pub compression: Compression,
    /// The stored bytes: of a compressed payload exactly the compressed ones, otherwise with padding.
    pub payload: &'a [u8],
    /// Bytes after decompression; the payload's own length if it is not compressed.
    pub decompressed_len: u64,
    /// Options that the driver's compiler is to be given for this PTX; empty if there are none.
    pub options: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The image itself, which may be followed by padding, if it is not longer than `most`. An image that is not
    /// compressed is as long as it is.
    ///
    /// # Errors
    /// [`DecompressError`] if it is longer, or damaged.
    pub fn image(&self, most: u64) -> Result<Cow<'a, [u8]>, DecompressError> {
        self.compression.decompress(self.payload, self.decompressed_len, most)
    }
}

/// The length of the container at the source's start. Reads only its header.
pub(super) fn length(source: &impl Source) -> Result<u64, ImageError> {
    let version = source.u16(4)?;
    if version != 1 {
        return Err(ImageError::Damaged { what: "fatbin version", value: version.into() });
    }
    let header = source.u16(6)?;
    if header < HEADER {
        return Err(ImageError::Damaged { what: "fatbin header size", value: header.into() });
    }
    let body = source.u64(8)?;
    body.checked_add(header.into()).ok_or(ImageError::Damaged { what: "fatbin size", value: body })
}

/// The entries of the container at the start of the bytes, in order. After an error there are no more.
///
/// # Errors
/// [`ImageError`] if the bytes are no fatbin or do not hold all of it.
pub fn entries(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Entry<'_>, ImageError>>, ImageError> {
    let magic = super::magic(&bytes)?;
    if magic != FATBIN_MAGIC {
        return Err(ImageError::UnknownMagic(magic));
    }
    let len = super::length_of(bytes, super::Kind::Fatbin)?;
    let header = usize::from(bytes.u16(6)?);
    let mut rest = &bytes[header..len];
    Ok(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        Some(match entry(rest) {
            Ok((entry, taken)) => {
                rest = &rest[taken..];
                Ok(entry)
            }
            Err(error) => {
                rest = &[];
                Err(error)
            }
        })
    }))
}

/// The first entry of the bytes, and how many it takes.
fn entry(bytes: &[u8]) -> Result<(Entry<'_>, usize), ImageError> {
    let header = bytes.u32(4)?;
    let stored = bytes.u64(8)?;
    let header_len = index(header.into());
    if header_len < ENTRY_HEADER {
        return Err(ImageError::Damaged { what: "fatbin entry header size", value: header.into() });
    }
    let end = header_len.saturating_add(index(stored));
    let payload =
        bytes.get(header_len..end).ok_or(ImageError::Truncated { needed: end, available: bytes.len() })?;

    let flags = bytes.u64(40)?;
    let compressed = bytes.u32(16)?;
    let compression = match compressed {
        0 => Compression::None,
        _ if flags & ZSTD != 0 => Compression::Zstd,
        _ if flags & LZ4 != 0 => Compression::Lz4,
        _ => return Err(ImageError::Damaged { what: "flags of a compressed fatbin entry", value: flags }),
    };
    let (payload, decompressed_len) = match compression {
        Compression::None => (payload, stored),
        _ => {
            let exact = index(compressed.into());
            let exact = payload
                .get(..exact)
                .ok_or(ImageError::Truncated { needed: exact, available: payload.len() })?;
            (exact, bytes.u64(56)?)
        }
    };
    let kind = match bytes.u16(0)? {
        1 => EntryKind::Ptx,
        2 => EntryKind::Elf,
        other => EntryKind::Other(other),
    };
    let entry = Entry {
        kind,
        version: (bytes.u16(26)?, bytes.u16(24)?),
        architecture: bytes.u32(28)?,
        flags,
        compression,
        payload,
        decompressed_len,
        options: options(&bytes[..header_len])?,
    };
    Ok((entry, end))
}

/// The options that an entry's header points at.
fn options(header: &[u8]) -> Result<&[u8], ImageError> {
    let at = index(header.u32(20)?.into());
    if at == 0 {
        return Ok(&[]);
    }
    let offset = index(header.u32(at)?.into());
    let end = offset.saturating_add(index(header.u32(at.saturating_add(4))?.into()));
    let text =
        header.get(offset..end).ok_or(ImageError::Truncated { needed: end, available: header.len() })?;
    let padding = text.iter().rev().take_while(|byte| **byte == 0).count();
    Ok(&text[..text.len() - padding])
}

/// A length or offset as an index; what does not fit lies outside every slice anyway.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

const HEADER: u16 = 16;
const ENTRY_HEADER: usize = 64;
const LZ4: u64 = 0x2000;
const ZSTD: u64 = 0x8000;
