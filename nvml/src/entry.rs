//! The exported symbols, expanded from the table; nothing else happens here.
//!
//! `snapshot nvmlDeviceGetCount(deviceCount: *mut c_uint);` becomes
//!
//! ```text
//! #[unsafe(no_mangle)]
//! pub(crate) unsafe extern "C" fn nvmlDeviceGetCount(deviceCount: *mut c_uint) -> nvmlReturn_t {
//!     guard("nvmlDeviceGetCount", || unsafe { api::nvmlDeviceGetCount(deviceCount) })
//! }
//! ```
#![expect(non_snake_case, reason = "the names are NVML's own")]
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "rows of the table may name any of NVML's types")
)]

use crate::table::for_each_nvml_fn;
use crate::types::*;
use crate::{api, facts};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// Runs one call: no panic leaves it, and it is traced where that is asked for (`PXOS_LOG=call`).
fn guard(name: &'static str, body: impl FnOnce() -> Result) -> nvmlReturn_t {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Error::UNKNOWN));
    if tracing() {
        let line = match result {
            Ok(()) => format!("pxos: {name} → Success\n"),
            Err(error) => format!("pxos: {name} → NVML_ERROR_{error:?}\n"),
        };
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
    result.map_or_else(|error| error as nvmlReturn_t, |()| 0)
}

fn tracing() -> bool {
    static TRACING: OnceLock<bool> = OnceLock::new();
    *TRACING.get_or_init(|| {
        std::env::var("PXOS_LOG").is_ok_and(|level| ["call", "trace", "debug"].contains(&&*level))
    })
}

macro_rules! entries {
    ($({ $class:ident $name:ident $reason:tt $params:tt })*) => {
        $(entry! { $class $name $reason $params })*
    };
}

/// One row: a symbol.
macro_rules! entry {
    // The one function that answers no result.
    (local nvmlErrorString () ($result:ident: $t:ty)) => {
        /// NVML: `nvmlErrorString`. Any number has a text.
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn nvmlErrorString($result: $t) -> *const c_char {
            describe($result).unwrap_or(c"Unknown Error").as_ptr()
        }
    };
    (unsupported $name:ident ($reason:literal) ()) => {
        #[doc = concat!("`", stringify!($name), "`: not supported, ", $reason, ".")]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $name() -> nvmlReturn_t {
            guard(stringify!($name), || facts::facts().and(Err(Error::NOT_SUPPORTED)))
        }
    };
    ($class:ident $name:ident () ($($p:ident: $t:ty),*)) => {
        #[doc = concat!("NVML: `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As NVML's manual says of this function's pointers.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($p: $t),*) -> nvmlReturn_t {
            // SAFETY: the caller of NVML keeps its contract, which is the body's.
            guard(stringify!($name), || unsafe { api::$name($($p),*) })
        }
    };
}

for_each_nvml_fn!(entries);
