//! Finds the PTX in what the module and library load functions are given: a fatbin, or PTX text.
//!
//! Called by module loading with the bytes of the image (the wrapper that a program holds, and its pointer, are
//! resolved by the caller). The bytes come from an application: every offset and length in them is checked against
//! what is there, and every decompressed size against [`MAX_PTX`], before it is used.

use std::fmt;

use pxos_cudart::image::{Compression, DecompressError};
use thiserror::Error;

/// The most bytes of PTX that one entry may hold; cuBLAS-sized libraries stay below a tenth of it.
pub const MAX_PTX: u64 = 256 << 20;
/// The most entries looked at in one image, far above what any tool writes.
const MAX_ENTRIES: usize = 4096;

const FATBIN_MAGIC: u32 = 0xba55_ed50;
const FATBIN_MAGIC_OLD: u32 = 0x1ee5_5a01;
const WRAPPER_MAGIC: u32 = 0x4662_43b1;
const ELF_MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");
const ARCHIVE_MAGIC: &[u8] = b"!<arch>\n";

/// PTX text out of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxImage {
    /// The text, without terminating NUL.
    pub text: String,
    /// The virtual architecture it was written for, such as 90; 0 if the text does not say.
    pub target_sm: u32,
    /// The identifier of the fatbin entry; mostly empty.
    pub ident: String,
}

/// Why an image yields no PTX.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The image ends before a part that its headers announce.
    #[error("image ends inside {part}: {needs} bytes from offset {at}, {has} there")]
    Truncated {
        /// What was being read.
        part: &'static str,
        /// Offset into the image.
        at: u64,
        /// Bytes announced.
        needs: u64,
        /// Bytes left from `at`.
        has: u64,
    },
    /// The image is neither fatbin, ELF nor text.
    #[error("image of unknown kind, first bytes {first:02x?}")]
    Unknown {
        /// Up to eight bytes from its start.
        first: Vec<u8>,
    },
    /// A kind of image that is recognised but not read here.
    #[error("image is {kind}, which is not supported")]
    Unsupported {
        /// What it is.
        kind: &'static str,
    },
    /// There is no PTX.
    #[error(
        "image holds machine code for {} but no PTX; build with -gencode arch=compute_{capability},code=compute_{capability}",
        List(.targets)
    )]
    NoPtx {
        /// Architectures of the machine code.
        targets: Vec<u32>,
        /// The device's compute capability.
        capability: u32,
    },
    /// There is PTX, but only for devices that this one is not.
    #[error(
        "image holds PTX for {} only, which compute capability {capability} cannot run; build with -gencode arch=compute_{capability},code=compute_{capability}",
        .targets.join(", ")
    )]
    NotForDevice {
        /// Targets of the PTX.
        targets: Vec<String>,
        /// The device's compute capability.
        capability: u32,
    },
    /// A decompressed size beyond the limit.
    #[error("{bytes} bytes of PTX in one entry, more than {MAX_PTX}")]
    TooLarge {
        /// The size announced.
        bytes: u64,
    },
    /// Compressed data that does not decompress to what its header says.
    #[error("{method} data of entry {entry} is damaged: {reason}")]
    Damaged {
        /// Number of the entry, from 0, across containers.
        entry: usize,
        /// The compression.
        method: &'static str,
        /// What the decompressor found.
        reason: String,
    },
    /// The PTX is not text.
    #[error("PTX is not UTF-8 text: {0}")]
    NotText(#[from] std::str::Utf8Error),
}

/// A list of architectures in a message.
struct List<'a>(&'a [u32]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no known architecture");
        }
        for (i, sm) in self.0.iter().enumerate() {
            write!(f, "{}sm_{sm}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Length of the fatbin container that begins with `header`, its own header included; `None` if these (at least
/// 16) bytes do not begin one. Lets a caller that holds only a pointer find out how much there is to read.
pub fn fatbin_len(header: &[u8]) -> Option<u64> {
    let r = Bytes(header);
    if r.u32(0)? != FATBIN_MAGIC {
        return None;
    }
    u64::from(r.u16(6)?).checked_add(r.u64(8)?)
}

/// The PTX to run on a device of `compute_capability` (major · 10 + minor): from each fatbin container the entry
/// for the highest architecture that is not above the device's, or the text itself. Containers without suitable
/// PTX are passed over if another one has some.
///
/// # Errors
/// [`ImageError`], if the image is malformed, or none of it is PTX that the device can run.
pub fn ptx_of(image: &[u8], compute_capability: u32) -> Result<Vec<PtxImage>, ImageError> {
    let bytes = Bytes(image);
    match bytes.u32(0) {
        Some(FATBIN_MAGIC) => ptx_of_fatbin(image, compute_capability),
        Some(FATBIN_MAGIC_OLD) => Err(ImageError::Unsupported { kind: "a fatbin of before CUDA 5" }),
        Some(WRAPPER_MAGIC) => Err(ImageError::Unsupported { kind: "a fatbin wrapper without its data" }),
        Some(ELF_MAGIC) => Err(ImageError::NoPtx {
            targets: elf_sm(image).into_iter().collect(),
            capability: compute_capability,
        }),
        _ if image.starts_with(ARCHIVE_MAGIC) => Err(ImageError::Unsupported { kind: "an archive" }),
        _ => ptx_of_text(image, compute_capability).map(|ptx| vec![ptx]),
    }
}

// ---- Text ------------------------------------------------------------------------------------------------

fn ptx_of_text(image: &[u8], capability: u32) -> Result<PtxImage, ImageError> {
    let unknown = || ImageError::Unknown { first: image.iter().take(8).copied().collect() };
    let text = text_of(image).map_err(|_| unknown())?;
    if !text.contains(".version") {
        return Err(unknown());
    }
    let target = Target::of(text);
    if !target.runs_on(capability) {
        return Err(ImageError::NotForDevice { targets: vec![target.name()], capability });
    }
    Ok(PtxImage { text: text.to_owned(), target_sm: target.sm, ident: String::new() })
}

/// The text up to the first NUL.
fn text_of(bytes: &[u8]) -> Result<&str, std::str::Utf8Error> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end])
}

/// The architecture of a `.target` directive (PTX ISA, "PTX Module Directives: .target").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    sm: u32,
    /// `a`, for exactly this architecture; `f`, for its family; or NUL.
    suffix: char,
}

impl Target {
    /// Out of PTX text. Without a target, 0: runs anywhere.
    fn of(text: &str) -> Self {
        let none = Self { sm: 0, suffix: '\0' };
        // Only the first `.target` outside a comment counts; the compiler's own comments precede it.
        let directive = text.lines().map(str::trim_start).find_map(|line| line.strip_prefix(".target"));
        let Some(name) = directive.and_then(|d| d.trim_start().strip_prefix("sm_")) else { return none };
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        let suffix = name[digits..].chars().next().filter(|c| matches!(c, 'a' | 'f')).unwrap_or('\0');
        name[..digits].parse().map_or(none, |sm| Self { sm, suffix })
    }

    fn runs_on(self, capability: u32) -> bool {
        match self.suffix {
            'a' => self.sm == capability,
            'f' => self.sm <= capability && self.sm / 10 == capability / 10,
            _ => self.sm <= capability,
        }
    }

    fn name(self) -> String {
        format!("sm_{}{}", self.sm, self.suffix).trim_end_matches('\0').to_owned()
    }
}

// ---- Containers ------------------------------------------------------------------------------------------

/// An entry of a container.
struct Entry<'a> {
    number: usize,
    kind: u16,
    sm: u32,
    flags: u64,
    /// As stored, padding included where the entry is not compressed.
    payload: &'a [u8],
    decompressed: u64,
    ident: &'a [u8],
}

const KIND_PTX: u16 = 1;
const KIND_ELF: u16 = 2;
const FLAG_OLD_COMPRESSION: u64 = 0x1000;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
/// Set for `compute_90a` and `compute_100f` (measured with nvcc 13.0).
const FLAGS_SPECIFIC: u64 = 0x30_0000;

fn ptx_of_fatbin(image: &[u8], capability: u32) -> Result<Vec<PtxImage>, ImageError> {
    let (mut found, mut machine_code, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    if fatbin_len(image).is_none() {
        return Err(ImageError::Unsupported { kind: "a fatbin without a whole header" });
    }
    let mut at = 0;
    let mut count = 0;
    // Containers follow one another; whatever does not begin one ends the image.
    while let Some(length) = image.get(at..).and_then(fatbin_len) {
        let container = slice(image, at as u64, length, "a fatbin container")?;
        let entries = entries(image, at, container, &mut count)?;
        machine_code.extend(entries.iter().filter(|e| e.kind == KIND_ELF).map(|e| e.sm));
        let mut ptx: Vec<_> = entries.iter().filter(|e| e.kind == KIND_PTX).collect();
        // Best first; of one architecture, plain PTX before that which uses its special instructions.
        ptx.sort_by_key(|e| (std::cmp::Reverse(e.sm), e.flags & FLAGS_SPECIFIC));
        for entry in ptx {
            if entry.sm > capability {
                refused.push(format!("sm_{}", entry.sm));
                continue;
            }
            let text = entry.text()?;
            let target = Target::of(&text);
            if target.runs_on(capability) {
                let ident = String::from_utf8_lossy(entry.ident).into_owned();
                found.push(PtxImage { text, target_sm: entry.sm, ident });
                break;
            }
            refused.push(target.name());
        }
        at += container.len();
    }
    if !found.is_empty() {
        Ok(found)
    } else if refused.is_empty() {
        machine_code.sort_unstable();
        machine_code.dedup();
        Err(ImageError::NoPtx { targets: machine_code, capability })
    } else {
        Err(ImageError::NotForDevice { targets: refused, capability })
    }
}

/// The entries of one container, which begins at `start` of the image.
fn entries<'a>(
    image: &[u8],
    start: usize,
    container: &'a [u8],
    count: &mut usize,
) -> Result<Vec<Entry<'a>>, ImageError> {
    let header_size = Bytes(container).u16(6).map_or(0, usize::from);
    if header_size < 16 {
        return Err(ImageError::Unsupported { kind: "a fatbin with a header of unknown size" });
    }
    let mut all = Vec::new();
    let mut at = header_size;
    while at < container.len() {
        if *count == MAX_ENTRIES {
            return Err(ImageError::Unsupported { kind: "a fatbin of more than 4096 entries" });
        }
        let truncated = |part, needs| ImageError::Truncated {
            part,
            at: (start + at) as u64,
            needs,
            has: (image.len() - start - at) as u64,
        };
        let rest = Bytes(&container[at..]);
        let (Some(kind), Some(header), Some(stored)) = (rest.u16(0), rest.u32(4), rest.u64(8)) else {
            return Err(truncated("an entry's header", 64));
        };
        let header = header as usize;
        let fields = if header >= 64 { rest.0.get(..header) } else { None }.map(Bytes);
        let fields = fields.ok_or_else(|| truncated("an entry's header", header.max(64) as u64))?;
        // Read within `header >= 64` bytes, so that the answers cannot fail; 0 would be refused below anyway.
        let u32_at = |offset| fields.u32(offset).unwrap_or(0);
        let payload = usize::try_from(stored).ok().and_then(|n| rest.0.get(header..header.checked_add(n)?));
        let payload = payload.ok_or_else(|| truncated("an entry", stored))?;
        let compressed = u32_at(16) as usize;
        let exact = if compressed == 0 { payload } else { payload.get(..compressed).unwrap_or(payload) };
        let (ident, ident_length) = (u32_at(32) as usize, u32_at(36) as usize);
        all.push(Entry {
            number: *count,
            kind,
            sm: u32_at(28),
            flags: fields.u64(40).unwrap_or(0),
            payload: exact,
            decompressed: fields.u64(56).unwrap_or(0),
            ident: ident.checked_add(ident_length).and_then(|end| fields.0.get(ident..end)).unwrap_or(&[]),
        });
        *count += 1;
        at += header + payload.len();
    }
    Ok(all)
}

impl Entry<'_> {
    /// The PTX text, decompressed.
    fn text(&self) -> Result<String, ImageError> {
        let compression = if self.flags & FLAG_ZSTD != 0 {
            Compression::Zstd
        } else if self.flags & FLAG_LZ4 != 0 {
            Compression::Lz4
        } else if self.flags & FLAG_OLD_COMPRESSION != 0 {
            return Err(ImageError::Unsupported {
                kind: "a fatbin compressed by a toolkit of before CUDA 11",
            });
        } else {
            Compression::None
        };
        let plain =
            compression.decompress(self.payload, self.decompressed, MAX_PTX).map_err(
                |error| match error {
                    DecompressError::TooLong { announced, .. } => ImageError::TooLarge { bytes: announced },
                    DecompressError::Damaged { method, reason } => {
                        ImageError::Damaged { entry: self.number, method, reason }
                    }
                },
            )?;
        Ok(text_of(&plain)?.to_owned())
    }
}

/// The architecture of a cubin, from its ELF flags; `None` if the header is not whole. The byte that holds it
/// depends on the version of the ABI (measured: 0x41 from CUDA 13 on, 0x33 before).
fn elf_sm(image: &[u8]) -> Option<u32> {
    let flags = Bytes(image).u32(48)?;
    Some(if *image.get(7)? >= 0x41 { flags >> 8 & 0xffff } else { flags & 0xff })
}

// ---- Bytes -----------------------------------------------------------------------------------------------

/// Little-endian fields at offsets; `None` past the end.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }
    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }
    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// `length` bytes of the image from `at`, which lies within it.
fn slice<'a>(image: &'a [u8], at: u64, length: u64, part: &'static str) -> Result<&'a [u8], ImageError> {
    let has = image.len() as u64 - at;
    let error = ImageError::Truncated { part, at, needs: length, has };
    let (Ok(at), Ok(length)) = (usize::try_from(at), usize::try_from(length)) else { return Err(error) };
    at.checked_add(length).and_then(|end| image.get(at..end)).filter(|c| c.len() >= 16).ok_or(error)
}

#[cfg(test)]
mod tests;
