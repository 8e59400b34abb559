//! The tables behind `cuGetExportTable`: undocumented functions that the CUDA runtime and the CUDA libraries call.
//!
//! A table is an array of 8-byte slots; slot 0 is the table's size in bytes, the others are functions. (The storage
//! table has no size word and ends with a null slot.) Sizes are those of driver 580.159.04 (measured), since that is
//! the version a libcuda around this crate speaks; behind each published size lie more callable slots, because newer
//! runtimes do not look at the size of a table before they call into it. A slot whose meaning is unknown answers
//! `CUDA_ERROR_NOT_SUPPORTED` and tells [`crate::Driver::unsupported_slot`].
//!
//! Tables are statics: their addresses are stable, may be taken before `cuInit`, and are part of the integrity hash.

mod libraries;
mod runtime;
mod slot;

use std::ffi::c_void;

use crate::result::{ERROR_INVALID_VALUE, SUCCESS};
use slot::Slot;

/// The bytes of a `CUuuid` that names a table.
pub type TableId = [u8; 16];

/// Names of the tables that are provided, and of the one that must not be.
pub mod id {
    use super::TableId;

    /// What the runtime needs of each device and, up to 11.8, for each module. 104 bytes.
    pub const CUDART_INTERFACE: TableId = bytes(0x6bd5fb6c5bf4e74a8987d93912fd9df9);
    /// Buffers of flags by which tools ask for callbacks. 56 bytes.
    pub const TOOLS_RUNTIME_CALLBACK_HOOKS: TableId = bytes(0xa094798c2e742e7493f20800200c0a66);
    /// The current context; cuBLAS asks. 24 bytes.
    pub const TOOLS_TLS: TableId = bytes(0x42d85a8123f6cb478298f6e78a3aecdc);
    /// See [`crate::storage`]. Without a size word.
    pub const CONTEXT_LOCAL_STORAGE: TableId = bytes(0xc693336e1121df11a8c368f355d89593);
    /// See [`crate::integrity`]. 24 bytes.
    pub const INTEGRITY_CHECK: TableId = bytes(0xd4082055bde6704b8d34ba123c66e1f2);
    /// Whether a context needs checks by the runtime. 120 bytes.
    pub const CONTEXT_CHECKS: TableId = bytes(0x263e88607cd2614392f6bbd5006dfa7e);
    /// Context and stream numbers; cuBLAS, cuFFT and runtimes from 13.4 ask. 744 bytes.
    pub const CONTEXT_AND_STREAM: TableId = bytes(0x21318c60971432488ca641ff7324c8f2);
    /// The functions of a module; cuFFT asks and looks at the size. 792 bytes.
    pub const MODULE_FUNCTIONS: TableId = bytes(0x6e163fbeb958444d835ce182aff1991e);
    /// Of unknown purpose; cuBLASLt crashes without it and accepts any error from it. 136 bytes.
    pub const CUBLASLT: TableId = bytes(0x1734dc26800d47458726c0f1e7dd8bca);
    /// By which a driver tells the runtime that it needs no bootstrap. Must be refused: this one does need it.
    pub const CUDART_SKIP_INIT: TableId = bytes(0xf8cff95121468b4eb9e2fb469e7c0dd9);

    /// The 16 bytes of a UUID written as one number in reading order.
    const fn bytes(uuid: u128) -> TableId {
        uuid.to_be_bytes()
    }
}

/// The table of that name, at an address that never changes.
///
/// # Errors
/// `ERROR_INVALID_VALUE` for [`id::CUDART_SKIP_INIT`] and for every table that is not provided here, as the real
/// driver answers for one that it does not know (measured). The caller must then write a null table, never leave
/// success with a null one.
pub fn export_table(table: &TableId) -> Result<*const c_void, u32> {
    let slots: &'static [Slot] = match *table {
        id::CUDART_INTERFACE => &runtime::CUDART_INTERFACE,
        id::TOOLS_RUNTIME_CALLBACK_HOOKS => &runtime::TOOLS_RUNTIME_CALLBACK_HOOKS,
        id::TOOLS_TLS => &runtime::TOOLS_TLS,
        id::CONTEXT_LOCAL_STORAGE => &runtime::CONTEXT_LOCAL_STORAGE,
        id::INTEGRITY_CHECK => &runtime::INTEGRITY_CHECK,
        id::CONTEXT_CHECKS => &runtime::CONTEXT_CHECKS,
        id::CONTEXT_AND_STREAM => &libraries::CONTEXT_AND_STREAM,
        id::MODULE_FUNCTIONS => &libraries::MODULE_FUNCTIONS,
        id::CUBLASLT => &libraries::CUBLASLT,
        _ => return Err(ERROR_INVALID_VALUE),
    };
    Ok(slots.as_ptr().cast())
}

/// The body of the entry point `cuGetExportTable`: writes the table, or null with an error. Needs no `cuInit`.
///
/// # Safety
/// As the caller of `cuGetExportTable` promises: `table` is null or may be written, `id` is null or names 16 bytes.
pub unsafe fn get_export_table(table: *mut *const c_void, id: *const TableId) -> u32 {
    if table.is_null() || id.is_null() {
        return ERROR_INVALID_VALUE;
    }
    // SAFETY: not null, and then readable by this function's contract; a byte array has no alignment.
    let id = unsafe { id.read() };
    let (address, result) = match export_table(&id) {
        Ok(address) => (address, SUCCESS),
        Err(error) => (std::ptr::null(), error),
    };
    // SAFETY: not null, and then writable by this function's contract.
    unsafe { table.write(address) };
    result
}

#[cfg(test)]
mod tests {
    use super::{export_table, get_export_table, id};
    use crate::result::{ERROR_INVALID_VALUE, SUCCESS};

    #[test]
    fn published_sizes_are_those_of_the_measured_driver() {
        for (table, bytes) in [
            (id::CUDART_INTERFACE, 104),
            (id::TOOLS_RUNTIME_CALLBACK_HOOKS, 56),
            (id::TOOLS_TLS, 24),
            (id::INTEGRITY_CHECK, 24),
            (id::CONTEXT_CHECKS, 120),
            (id::CONTEXT_AND_STREAM, 744),
            (id::MODULE_FUNCTIONS, 792),
            (id::CUBLASLT, 136),
        ] {
            let words = export_table(&table).unwrap().cast::<usize>();
            // SAFETY: every table has its size word.
            assert_eq!(unsafe { *words }, bytes, "{table:02x?}");
            for slot in 1..bytes / 8 {
                // SAFETY: within the published size.
                assert_ne!(unsafe { *words.add(slot) }, 0, "{table:02x?} slot {slot}");
            }
        }
    }

    #[test]
    fn ids_are_in_reading_order() {
        assert_eq!(id::CUDART_INTERFACE[..4], [0x6b, 0xd5, 0xfb, 0x6c]);
        assert_eq!(id::CUBLASLT[14..], [0x8b, 0xca]);
    }

    #[test]
    fn addresses_are_stable_and_distinct() {
        let first = export_table(&id::INTEGRITY_CHECK).unwrap();
        assert_eq!(first, export_table(&id::INTEGRITY_CHECK).unwrap());
        assert_ne!(first, export_table(&id::TOOLS_TLS).unwrap());
    }

    #[test]
    fn unknown_and_forbidden_tables_are_null_with_an_error() {
        for table in [id::CUDART_SKIP_INIT, [0; 16], [0xff; 16]] {
            let mut address = std::ptr::dangling();
            // SAFETY: both point at locals.
            let result = unsafe { get_export_table(&raw mut address, &raw const table) };
            assert_eq!((result, address.is_null()), (ERROR_INVALID_VALUE, true));
        }
    }

    #[test]
    fn null_arguments_are_refused() {
        let mut address = std::ptr::null();
        let table = id::TOOLS_TLS;
        // SAFETY: null is allowed by the contract.
        let result = unsafe { get_export_table(&raw mut address, std::ptr::null()) };
        assert_eq!(result, ERROR_INVALID_VALUE);
        // SAFETY: null is allowed by the contract.
        let result = unsafe { get_export_table(std::ptr::null_mut(), &raw const table) };
        assert_eq!(result, ERROR_INVALID_VALUE);
        // SAFETY: both point at readable and writable memory.
        let result = unsafe { get_export_table(&raw mut address, &raw const table) };
        assert_eq!((result, address), (SUCCESS, export_table(&id::TOOLS_TLS).unwrap()));
    }
}
