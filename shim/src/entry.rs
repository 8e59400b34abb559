//! The exported symbols, expanded from the table; nothing else happens here.
//!
//! `local 111 cuDeviceGetCount(count: *mut c_int);` becomes
//!
//! ```text
//! #[unsafe(no_mangle)]
//! pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
//!     guard("cuDeviceGetCount", 111, || thread::legacy(|| unsafe { api::cuDeviceGetCount(count) }))
//! }
//! ```
//!
//! and a twin's name becomes a second function that runs the same body with the thread's own default stream.

#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "rows of the table may name any of CUDA's types")
)]

use crate::{api, log, thread};
use pxos_protocol::for_each_driver_fn;
use pxos_protocol::types::*;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one call: no panic leaves it, and it is counted where that is asked for.
#[inline]
fn guard(name: &'static str, number: u16, body: impl FnOnce() -> Result<(), CUresult>) -> CUresult {
    let result = catch_unwind(AssertUnwindSafe(|| {
        body()?;
        api::waited(number);
        Ok(())
    }))
    .unwrap_or(Err(CUresult::ERROR_UNKNOWN))
    .into();
    if log::tracing() {
        log::finished(name, number, result);
    }
    result
}

macro_rules! entries {
    ($({ $class:ident $number:literal $name:ident ($($twin:ident)?) $reason:tt $params:tt })*) => {
        $(entry! { $class $number $name ($($twin)?) $reason $params })*

        /// The address of an exported symbol.
        pub(crate) fn address_of(symbol: &str) -> Option<*mut c_void> {
            let address = match symbol {
                $(
                    stringify!($name) => ($name as *const ()).cast_mut().cast(),
                    $(stringify!($twin) => ($twin as *const ()).cast_mut().cast(),)?
                )*
                _ => return None,
            };
            Some(address)
        }
    };
}

/// One row: a symbol, and its twin if it has one.
macro_rules! entry {
    ($class:ident $number:literal $name:ident () $reason:tt $params:tt) => {
        symbol! { $class $number $name $name legacy $reason $params }
    };
    ($class:ident $number:literal $name:ident ($twin:ident) $reason:tt $params:tt) => {
        symbol! { $class $number $name $name legacy $reason $params }
        symbol! { $class $number $name $twin with_per_thread $reason $params }
    };
}

/// One exported symbol, whose body is that of `$name` under the default stream that `$stream` sets.
macro_rules! symbol {
    (unsupported $number:literal $name:ident $symbol:ident $stream:ident ($reason:literal) ()) => {
        #[doc = concat!("`", stringify!($symbol), "`: not supported, ", $reason, ".")]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $symbol() -> CUresult {
            guard(stringify!($symbol), $number, || api::unsupported(stringify!($name), $number, $reason))
        }
    };
    (forward $($rest:tt)*) => { generic! { true $($rest)* } };
    (async $($rest:tt)*) => { generic! { false $($rest)* } };
    ($class:ident $number:literal $name:ident $symbol:ident $stream:ident () ($($p:ident: $t:ty),*)) => {
        #[doc = concat!("CUDA driver API: `", stringify!($symbol), "`.")]
        ///
        /// # Safety
        /// As the CUDA driver API manual says of this function's pointers.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $symbol($($p: $t),*) -> CUresult {
            // SAFETY: the caller of the CUDA API keeps its contract, which is the body's.
            guard(stringify!($symbol), $number, || thread::$stream(|| unsafe { api::$name($($p),*) }))
        }
    };
}

/// A row that says everything: encode each parameter, send, decode each.
macro_rules! generic {
    ($answered:literal $number:literal $name:ident $symbol:ident $stream:ident () ($($p:ident: $k:ty),*)) => {
        #[doc = concat!("CUDA driver API: `", stringify!($symbol), "`.")]
        ///
        /// # Safety
        /// As the CUDA driver API manual says of this function's pointers.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $symbol($($p: <$k as Param>::C),*) -> CUresult {
            guard(stringify!($symbol), $number, || thread::$stream(|| {
                $(<$k as Param>::check($p)?;)*
                api::generic($answered, $number, |_writer| { $(<$k as Param>::encode($p, _writer);)* }, |_reader| {
                    // SAFETY: checked above not to be null; the caller of the CUDA API gave them to be written.
                    $(unsafe { <$k as Param>::decode($p, _reader)? };)*
                    Ok(())
                })
            }))
        }
    };
}

use pxos_protocol::param::{Dev, In, Out, Param};

for_each_driver_fn!(entries);
