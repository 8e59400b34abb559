//! What each function does, a file for each group of the table; here what they share.
#![expect(non_snake_case, reason = "the names are NVML's own")]

mod device;
mod event;
mod memory;
mod process;
mod sensor;
mod smi;
mod system;
mod topology;

pub(crate) use device::*;
pub(crate) use event::*;
pub(crate) use memory::*;
pub(crate) use process::*;
pub(crate) use sensor::*;
pub(crate) use smi::nvmlInternalGetExportTable;
pub(crate) use system::*;
pub(crate) use topology::*;

use crate::types::{Error, Result, Versioned};
use std::ffi::{c_char, c_uint};

/// Writes where the program wants an answer.
///
/// # Safety
/// `to` is null or can be written.
unsafe fn put<T>(to: *mut T, value: T) -> Result {
    if to.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: the caller's.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes text with its end, if all of it fits.
///
/// # Safety
/// `to` is null, or as many bytes as `length` says can be written.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Result {
    if to.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(Error::INSUFFICIENT_SIZE);
    }
    // SAFETY: text and end fit, as compared above; the buffer is the caller's.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Text with its end in an array of fixed length; what does not fit is cut.
fn text_array<const N: usize>(text: &str) -> [u8; N] {
    let mut array = [0; N];
    let fits = text.len().min(N.saturating_sub(1));
    array[..fits].copy_from_slice(&text.as_bytes()[..fits]);
    array
}

/// Reads a structure whose version word says that it is the one meant, and so as long.
///
/// # Safety
/// `from` is null, or leads to a structure as long as its first word says.
unsafe fn versioned<T: Versioned>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: every such structure has its word, whatever its version.
    let word = unsafe { from.cast::<c_uint>().read() };
    if word != T::VERSION {
        return Err(Error::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: as long as `T`, by its own word; any bits are a `T`.
    Ok(unsafe { from.read() })
}

/// Writes a list into the program's array; with too short an array only how long the list is.
///
/// # Safety
/// `count` is null or can be written; `to` is null, or as many elements as `count` says can be written.
unsafe fn put_list<T>(count: *mut c_uint, to: *mut T, list: Vec<T>) -> Result {
    if count.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: not null, the caller's.
    let room = unsafe { count.read() } as usize;
    // SAFETY: as above.
    unsafe { count.write(c_uint::try_from(list.len()).unwrap_or(c_uint::MAX)) };
    if list.len() > room {
        return Err(Error::INSUFFICIENT_SIZE);
    }
    if to.is_null() && !list.is_empty() {
        return Err(Error::INVALID_ARGUMENT);
    }
    for (index, element) in list.into_iter().enumerate() {
        // SAFETY: fewer than there is room for, by the caller's count.
        unsafe { to.add(index).write(element) };
    }
    Ok(())
}

/// What is not known on this device.
fn known<T>(value: Option<T>) -> Result<T> {
    value.ok_or(Error::NOT_SUPPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::nvmlMemory_v2_t;

    #[test]
    fn text_fits_with_its_end_or_not_at_all() {
        let mut buffer = [1_i8; 8];
        // SAFETY: the buffer is as long as is said.
        unsafe {
            assert_eq!(put_text(buffer.as_mut_ptr(), 4, "abcd"), Err(Error::INSUFFICIENT_SIZE));
            assert_eq!(buffer, [1; 8]);
            assert_eq!(put_text(buffer.as_mut_ptr(), 5, "abcd"), Ok(()));
            assert_eq!(put_text(std::ptr::null_mut(), 5, "abcd"), Err(Error::INVALID_ARGUMENT));
        }
        assert_eq!(buffer[3..6], [b'd'.cast_signed(), 0, 1]);
        assert_eq!(text_array::<4>("abcdef"), *b"abc\0");
    }

    #[test]
    fn a_structure_of_another_version_is_left_alone() {
        let mut memory =
            nvmlMemory_v2_t { version: nvmlMemory_v2_t::VERSION, total: 1, reserved: 2, free: 3, used: 4 };
        // SAFETY: structures of this test.
        unsafe {
            assert_eq!(versioned(&raw const memory).map(|memory| memory.used), Ok(4));
            for word in [0, 2, 40, 0x0100_0018, 0x0300_0028] {
                memory.version = word;
                assert_eq!(versioned(&raw const memory).err(), Some(Error::ARGUMENT_VERSION_MISMATCH));
            }
            // A program of another version may have no more than the word.
            let word = 0x0100_0004_u32;
            assert!(versioned((&raw const word).cast::<nvmlMemory_v2_t>()).is_err());
            assert_eq!(versioned::<nvmlMemory_v2_t>(std::ptr::null()).err(), Some(Error::INVALID_ARGUMENT));
        }
    }

    #[test]
    fn a_list_never_runs_over() {
        let mut room = [7_u32; 3];
        let mut count = 1;
        // SAFETY: as many elements as the count says.
        unsafe {
            assert_eq!(
                put_list(&raw mut count, room.as_mut_ptr(), vec![1, 2]),
                Err(Error::INSUFFICIENT_SIZE)
            );
            assert_eq!((count, room), (2, [7; 3]));
            assert_eq!(put_list(&raw mut count, room.as_mut_ptr(), vec![1, 2]), Ok(()));
            assert_eq!((count, room), (2, [1, 2, 7]));
            count = 0;
            assert_eq!(put_list::<u32>(&raw mut count, std::ptr::null_mut(), vec![]), Ok(()));
            assert_eq!(
                put_list(&raw mut count, std::ptr::null_mut(), vec![1]),
                Err(Error::INSUFFICIENT_SIZE)
            );
            assert_eq!(put_list(&raw mut count, std::ptr::null_mut(), vec![1]), Err(Error::INVALID_ARGUMENT));
        }
    }
}
