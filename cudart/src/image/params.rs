//! The parameters of the kernels in a cubin, from its `.nv.info.<kernel>` sections.
//!
//! A fallback: a driver from 12.4 on tells the same through `cuFuncGetParamInfo`, and for the image that it really
//! picked. The offsets depend on the architecture (an over-aligned parameter is placed by its absolute address in the
//! constant bank), so those of one cubin say nothing about another's.

use super::ImageError;
use super::elf;
use super::source::Source;

/// One parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Bytes from the start of the parameter buffer.
    pub offset: u16,
    /// Bytes.
    pub size: u16,
}

/// The parameters of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelParams {
    /// The kernel's symbol.
    pub kernel: String,
    /// In the order of the kernel's declaration; none for a kernel without parameters.
    pub params: Vec<Param>,
}

/// The parameters of every kernel in a cubin, sorted by name. Device functions that were compiled separately appear
/// as kernels without parameters.
///
/// # Errors
/// [`ImageError`] if the bytes are no complete ELF object, or if its records contradict each other. Never panics and
/// allocates no more than a small multiple of the input.
pub fn kernel_params(elf: &[u8]) -> Result<Vec<KernelParams>, ImageError> {
    let mut kernels = Vec::new();
    for section in elf::sections(elf)? {
        let Some(kernel) = section.name.strip_prefix(b".nv.info.") else { continue };
        let kernel = String::from_utf8_lossy(kernel).into_owned();
        kernels.push(KernelParams { kernel, params: params(section.bytes)? });
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    Ok(kernels)
}

/// The parameters that the records of one section describe. Records come in any order (nvcc: last parameter first).
fn params(mut records: &[u8]) -> Result<Vec<Param>, ImageError> {
    let mut found: Vec<(u16, Param)> = Vec::new();
    while !records.is_empty() {
        let [format, attribute, ..] = *records else { return Err(damaged_record(records)) };
        let value = records.u16(2)?;
        let body = if format == SIZED { usize::from(value) } else { 0 };
        let end = 4 + body;
        let content =
            records.get(4..end).ok_or(ImageError::Truncated { needed: end, available: records.len() })?;
        if format == SIZED && matches!(attribute, KPARAM_INFO | KPARAM_INFO_V2) {
            if content.len() != 12 {
                return Err(ImageError::Damaged {
                    what: "size of a parameter record",
                    value: content.len() as u64,
                });
            }
            let size = if attribute == KPARAM_INFO {
                // 14 bits behind alignment, space and bank.
                u16::try_from(content.u32(8)? >> 18).expect("14 bits")
            } else {
                content.u16(8)?
            };
            found.push((content.u16(4)?, Param { offset: content.u16(6)?, size }));
        }
        records = &records[end..];
    }
    found.sort_by_key(|(ordinal, _)| *ordinal);
    for (expected, (ordinal, _)) in found.iter().enumerate() {
        if usize::from(*ordinal) != expected {
            return Err(ImageError::Damaged { what: "ordinal of a parameter", value: (*ordinal).into() });
        }
    }
    Ok(found.into_iter().map(|(_, param)| param).collect())
}

fn damaged_record(records: &[u8]) -> ImageError {
    ImageError::Truncated { needed: 4, available: records.len() }
}

/// The record's third and fourth byte say how many bytes follow; in every other format they are its value.
const SIZED: u8 = 4;
/// EIATTR_KPARAM_INFO: index, ordinal, offset, packed alignment, space, bank and size.
const KPARAM_INFO: u8 = 0x17;
/// EIATTR_KPARAM_INFO_V2: the same with a 16-bit size; used for all parameters of a kernel that has a large one.
const KPARAM_INFO_V2: u8 = 0x45;
