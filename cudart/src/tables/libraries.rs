//! The tables that CUDA libraries (cuBLAS, cuBLASLt, cuFFT) and runtimes from 13.4 ask for beyond those of the runtime.

use std::ffi::{c_char, c_void};

use super::slot::{CALLABLE, Slot, guard, unsupported_table, write};
use crate::driver::driver;
use crate::result::{ERROR_INVALID_HANDLE, ERROR_INVALID_VALUE};

// Numbers of `super::slot::NAMES`.
const STREAMS: usize = 3;
const FUNCTIONS: usize = 4;
const LT: usize = 5;

// ---- 21318c60 ----------------------------------------------------------------------------------------------------

/// Without slot 4, cuBLAS answers NOT_SUPPORTED to every product; with the numbers of 51 and 39 it tells streams
/// apart for its workspaces, so these must differ where streams do.
pub(super) static CONTEXT_AND_STREAM: [Slot; CALLABLE] = {
    let mut slots = unsupported_table::<STREAMS>(93);
    slots[4] = Slot(context_number as *const ());
    slots[39] = Slot(stream_number as *const ());
    slots[51] = Slot(stream_object as *const ());
    slots
};

/// Slot 4: the number of a context as `cuCtxGetId` gives it. Zero, and still success, for null, before `cuInit` and
/// for a context that is not active (all measured): it never fails.
unsafe extern "C" fn context_number(context: u64, number: *mut u64) -> u32 {
    guard(|| {
        let known = match driver() {
            Ok(driver) if context != 0 => driver.context_id(context).unwrap_or(0),
            _ => 0,
        };
        // SAFETY: the caller of this slot passes where to put the number.
        unsafe { write(number, known) }
    })
}

/// Slot 51: an opaque object for a stream, of use only in slot 39. The legacy default stream has one object under
/// both its handles; a default stream needs the context named (measured).
///
/// The real driver's object is its stream structure. This one is the stream's number in disguise: nothing to free,
/// and no library has been seen to look into it.
unsafe extern "C" fn stream_object(context: u64, stream: u64, object: *mut u64) -> u32 {
    guard(|| {
        let driver = driver()?;
        if context == 0 && stream <= LAST_DEFAULT_STREAM {
            return Err(ERROR_INVALID_HANDLE);
        }
        let number = driver.stream_id(context, stream)?;
        // SAFETY: the caller of this slot passes where to put the object.
        unsafe { write(object, disguise(number)) }
    })
}

/// Slot 39: the number of a stream, as `cuStreamGetId` gives it (measured), from its object.
unsafe extern "C" fn stream_number(_context: u64, object: u64, number: *mut u64) -> u32 {
    guard(|| {
        driver()?;
        let known = reveal(object).ok_or(ERROR_INVALID_VALUE)?;
        // SAFETY: the caller of this slot passes where to put the number.
        unsafe { write(number, known) }
    })
}

/// `CU_STREAM_PER_THREAD`; 0 and 1 are the legacy default stream.
const LAST_DEFAULT_STREAM: u64 = 2;

/// Turns a stream's number into an object: never null, and not a number that a caller might take for a handle.
/// Numbers count up from 1 for each process, so that the top bits are free.
fn disguise(number: u64) -> u64 {
    number << 4 | OBJECT_TAG
}

fn reveal(object: u64) -> Option<u64> {
    (object & 0xf == OBJECT_TAG).then_some(object >> 4)
}

const OBJECT_TAG: u64 = 8;

// ---- 6e163fbe ----------------------------------------------------------------------------------------------------

/// cuFFT wants a published size of at least 56, and calls slot 7 after each module load.
pub(super) static MODULE_FUNCTIONS: [Slot; CALLABLE] = {
    let mut slots = unsupported_table::<FUNCTIONS>(99);
    slots[7] = Slot(enumerate_functions as *const ());
    slots
};

/// What slot 7 calls for each function. The third argument is the function's name (measured); cuFFT also accepts null.
type Visitor = unsafe extern "C" fn(opaque: *mut c_void, function: u64, name: *const c_char);

/// Slot 7: calls the visitor for each kernel of a module and returns how many there were (measured); 0 on an error,
/// which cuFFT answers with `CUFFT_INTERNAL_ERROR`.
unsafe extern "C" fn enumerate_functions(
    _context: u64,
    module: u64,
    visitor: Option<Visitor>,
    opaque: *mut c_void,
    _module_again: u64,
    _flags: u64,
) -> u32 {
    let mut count = 0;
    guard(|| {
        let visitor = visitor.ok_or(ERROR_INVALID_VALUE)?;
        let driver = driver()?;
        for function in driver.module_functions(module)? {
            let name = driver.function_name(function);
            // SAFETY: the caller of this slot passes a visitor for exactly this call.
            unsafe { visitor(opaque, function, name) };
            count += 1;
        }
        Ok(())
    });
    count
}

// ---- 1734dc26 ----------------------------------------------------------------------------------------------------

/// cuBLASLt asks for slot 4 and goes on with its defaults at any error; the real one gives two pointers into driver
/// data whose meaning is unknown.
pub(super) static CUBLASLT: [Slot; CALLABLE] = unsupported_table::<LT>(17);

#[cfg(test)]
mod tests {
    use super::{disguise, reveal};

    #[test]
    fn objects_reveal_their_streams_and_nothing_else() {
        for number in [0, 1, 2, 14, u64::from(u32::MAX)] {
            assert_eq!(reveal(disguise(number)), Some(number));
            assert_ne!(disguise(number), 0);
        }
        assert_eq!(reveal(0), None);
        assert_eq!(reveal(1), None);
    }
}
