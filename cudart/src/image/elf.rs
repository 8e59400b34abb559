//! Just enough of ELF (64 bit, little endian) to find where an object ends and to walk its sections.

use super::ImageError;
use super::source::Source;

pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";

/// The header fields used here. Counts are as the extended numbering gives them.
struct Header {
    programs: Table,
    sections: Table,
    /// Index of the section that holds the sections' names.
    names: usize,
}

/// A table of headers in the file.
#[derive(Clone, Copy)]
struct Table {
    offset: u64,
    entry: u16,
    count: u64,
}

impl Table {
    fn end(&self) -> Result<u64, ImageError> {
        if self.count == 0 {
            return Ok(0);
        }
        end(self.offset, self.count * u64::from(self.entry))
    }

    /// The offset of one header.
    fn at(&self, index: u64) -> Result<usize, ImageError> {
        offset(end(self.offset, index * u64::from(self.entry))?)
    }

    /// Visits every header in order. Reads many at a time, since a read of memory is a system call.
    fn for_each(
        &self,
        source: &impl Source,
        mut visit: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        const BATCH_BYTES: u64 = 1 << 16;
        if self.count == 0 {
            return Ok(());
        }
        let entry = usize::from(self.entry);
        let batch = (BATCH_BYTES / u64::from(self.entry)).max(1);
        let mut buffer = vec![0; offset(batch.min(self.count))? * entry];
        let mut index = 0;
        while index < self.count {
            let headers = batch.min(self.count - index);
            let bytes = &mut buffer[..offset(headers)? * entry];
            source.read(self.at(index)?, bytes)?;
            bytes.chunks_exact(entry).try_for_each(&mut visit)?;
            index += headers;
        }
        Ok(())
    }
}

/// One section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) name: &'a [u8],
    pub(super) bytes: &'a [u8],
}

/// Where the object ends: the furthest end of its headers, tables, sections and segments. No part has a fixed place;
/// compilers are known that put the program headers last.
pub(super) fn length(source: &impl Source) -> Result<u64, ImageError> {
    let header = header(source)?;
    let mut furthest = (HEADER as u64).max(header.programs.end()?).max(header.sections.end()?);
    // A damaged count must not mean millions of reads.
    if furthest > super::MAX_LEN {
        return Err(ImageError::TooLong(furthest));
    }
    header.programs.for_each(source, |program| {
        furthest = furthest.max(end(program.u64(0x08)?, program.u64(0x20)?)?);
        Ok(())
    })?;
    header.sections.for_each(source, |section| {
        if has_bytes(section)? {
            furthest = furthest.max(end(section.u64(0x18)?, section.u64(0x20)?)?);
        }
        Ok(())
    })?;
    Ok(furthest)
}

/// Whether a section header stands for bytes in the file. In relocatable cubins memory without initial contents has
/// types of its own instead of SHT_NOBITS (measured with `nvcc -rdc=true -cubin` of CUDA 13.0).
fn has_bytes(section: &[u8]) -> Result<bool, ImageError> {
    Ok(!matches!(
        section.u32(0x04)?,
        SHT_NULL | SHT_NOBITS | SHT_CUDA_GLOBAL | SHT_CUDA_SHARED | SHT_CUDA_SHARED_RESERVED
    ))
}

/// The sections of a complete object, without those that have no bytes in the file. Their names and bytes together
/// are at most a small multiple of the object, so that a reader of all of them does no more work than that.
pub(super) fn sections(object: &[u8]) -> Result<Vec<Section<'_>>, ImageError> {
    let header = header(&object)?;
    if header.sections.end()? > object.len() as u64 {
        return Err(ImageError::Truncated {
            needed: offset(header.sections.end()?)?,
            available: object.len(),
        });
    }
    let names = match header.names {
        0 => &[][..],
        index => {
            let at = header.sections.at(index as u64)?;
            section_bytes(object, &object[at..at + usize::from(SECTION_HEADER)])?
        }
    };
    let mut sections = Vec::new();
    let mut total = 0;
    header.sections.for_each(&object, |section| {
        if has_bytes(section)? {
            let name = names.get(offset(section.u32(0)?.into())?..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let bytes = section_bytes(object, section)?;
            total += name.len() + bytes.len();
            if total > MAX_SHARED * object.len() {
                return Err(ImageError::Damaged { what: "bytes of all elf sections", value: total as u64 });
            }
            sections.push(Section { name, bytes });
        }
        Ok(())
    })?;
    Ok(sections)
}

/// The architecture that an object's code is for, e.g. 90 for `sm_90`; none if it is not for a CUDA device.
pub(super) fn cuda_architecture(object: &[u8]) -> Result<Option<u32>, ImageError> {
    header(&object)?;
    if object.u16(0x12)? != EM_CUDA {
        return Ok(None);
    }
    let flags = object.u32(0x30)?;
    // Measured: ABI 0x33 of CUDA 12 for architectures before sm_100, and 0x41 of CUDA 13 and of all later ones.
    Ok(Some(if object[7] < ABI_WIDE_ARCHITECTURE { flags & 0xff } else { flags >> 8 & 0xffff }))
}

/// The bytes of the section with that header.
fn section_bytes<'a>(object: &'a [u8], section: &[u8]) -> Result<&'a [u8], ImageError> {
    let start = section.u64(0x18)?;
    let needed = offset(end(start, section.u64(0x20)?)?)?;
    object.get(offset(start)?..needed).ok_or(ImageError::Truncated { needed, available: object.len() })
}

fn header(source: &impl Source) -> Result<Header, ImageError> {
    let mut ident = [0; 16];
    source.read(0, &mut ident)?;
    if ident[..4] != MAGIC {
        return Err(ImageError::UnknownMagic([ident[0], ident[1], ident[2], ident[3]]));
    }
    if ident[4] != ELFCLASS64 {
        return Err(ImageError::Damaged { what: "elf class", value: ident[4].into() });
    }
    if ident[5] != ELFDATA2LSB {
        return Err(ImageError::Damaged { what: "elf byte order", value: ident[5].into() });
    }
    let mut programs =
        Table { offset: source.u64(0x20)?, entry: source.u16(0x36)?, count: source.u16(0x38)?.into() };
    let mut sections =
        Table { offset: source.u64(0x28)?, entry: source.u16(0x3a)?, count: source.u16(0x3c)?.into() };
    let mut names = u64::from(source.u16(0x3e)?);

    // Counts that do not fit 16 bits are in the first section header (System V ABI, "ELF Header").
    if sections.offset == 0 {
        sections.count = 0;
    } else {
        let first = offset(sections.offset)?;
        if sections.count == 0 {
            sections.count = source.u64(first.saturating_add(0x20))?;
        }
        if names == SHN_XINDEX {
            names = source.u32(first.saturating_add(0x28))?.into();
        }
        if programs.count == PN_XNUM {
            programs.count = source.u32(first.saturating_add(0x2c))?.into();
        }
    }
    check(&programs, PROGRAM_HEADER, "elf program header size")?;
    check(&sections, SECTION_HEADER, "elf section header size")?;
    if names != 0 && names >= sections.count {
        return Err(ImageError::Damaged { what: "elf section name index", value: names });
    }
    Ok(Header { programs, sections, names: offset(names)? })
}

/// A table must have headers of at least the ABI's size, and a count that a file of `MAX_LEN` can have.
fn check(table: &Table, least: u16, what: &'static str) -> Result<(), ImageError> {
    if table.count == 0 {
        return Ok(());
    }
    if table.entry < least {
        return Err(ImageError::Damaged { what, value: table.entry.into() });
    }
    if table.count > super::MAX_LEN / u64::from(least) {
        return Err(ImageError::Damaged { what: "elf header count", value: table.count });
    }
    Ok(())
}

fn end(start: u64, len: u64) -> Result<u64, ImageError> {
    match start.checked_add(len) {
        Some(end) if end <= super::MAX_LEN => Ok(end),
        Some(end) => Err(ImageError::TooLong(end)),
        None => Err(ImageError::Damaged { what: "elf offset", value: start }),
    }
}

fn offset(value: u64) -> Result<usize, ImageError> {
    usize::try_from(value).map_err(|_| ImageError::TooLong(value))
}

/// How often the sections may take the object's length. From `sm_100` on some share their bytes with those named
/// `.nv.merc.…`, and a name may be the tail of another.
const MAX_SHARED: usize = 4;

const HEADER: usize = 64;
const PROGRAM_HEADER: u16 = 56;
const SECTION_HEADER: u16 = 64;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const EM_CUDA: u16 = 190;
const ABI_WIDE_ARCHITECTURE: u8 = 0x41;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;
/// `.nv.global`; `.nv.global.init` has another type.
const SHT_CUDA_GLOBAL: u32 = 0x7000_0007;
/// `.nv.shared.<kernel>`.
const SHT_CUDA_SHARED: u32 = 0x7000_000a;
/// `.nv.shared.reserved.<number>`.
const SHT_CUDA_SHARED_RESERVED: u32 = 0x7000_0015;
const SHN_XINDEX: u64 = 0xffff;
const PN_XNUM: u64 = 0xffff;
