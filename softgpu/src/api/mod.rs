//! The driver API: what each entry point checks and does, a file per chapter of the CUDA driver API manual.
//!
//! [`driver_fns!`] turns a body written in safe Rust into the exported function (and its per-thread-default-stream
//! twin); below it stand [`crate::device`]'s objects. The order of the checks is the real driver's, measured on an
//! H200 with driver 580: initialisation, current context, sticky fault, arguments.
mod argument;
pub mod array;
pub mod batch;
pub mod capture;
pub mod conditional;
pub mod context;
pub mod copy;
pub mod device;
pub mod error;
pub mod event;
pub mod execution;
pub mod graph;
pub mod graph_node;
pub mod graph_object;
pub mod initialise;
pub mod ipc;
mod jit;
pub mod legacy;
pub mod library;
pub mod link;
pub mod managed;
pub mod memory;
pub mod memset;
pub mod module;
pub mod occupancy;
pub mod pointer;
pub mod pool;
pub mod stream;
pub mod stream_value;
pub mod texture;
pub mod virtual_memory;

use crate::device::platform;
use pxos_protocol::types::CUresult;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

#[cfg(test)]
pub(crate) use argument::Class;
pub(crate) use argument::{Argument, In, Out};

/// What a driver function answers, inside this crate.
pub(crate) type Answer<T = ()> = Result<T, CUresult>;

/// Which stream a zero means: the entry point's name decides (CUDA driver API, "Stream synchronization behavior").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultStream {
    /// `CU_STREAM_LEGACY`.
    Legacy,
    /// `CU_STREAM_PER_THREAD`: the functions ending in `_ptds` and `_ptsz`.
    PerThread,
}

/// When a function may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Also before `cuInit`.
    Early,
    /// Only after `cuInit`, and not in the child of a fork.
    Ready,
}

/// Runs an entry point's body: refuses calls before `cuInit` where the stage says so, and turns a panic into
/// `CUDA_ERROR_UNKNOWN`, because none may cross into C.
pub(crate) fn guard(name: &str, stage: Stage, body: impl FnOnce() -> Answer) -> CUresult {
    let result = catch_unwind(AssertUnwindSafe(|| {
        if stage == Stage::Ready {
            platform()?;
        }
        body()
    }));
    let answer = result.map_or(CUresult::ERROR_UNKNOWN, CUresult::from);
    trace(name, answer);
    answer
}

/// Writes one line per call to standard error where `PXSOFT_TRACE` is set.
fn trace(name: &str, answer: CUresult) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("PXSOFT_TRACE").is_some()) {
        #[expect(clippy::print_stderr, reason = "asked for by the environment")]
        {
            eprintln!("pxsoft: {name} = {}", answer.0);
        }
    }
}

/// Defines entry points: `early fn` and `ready fn` by [`Stage`], `name / twin` where there is a twin, the C
/// parameters as the manual has them, and a body that sees each pointer as [`In`] or [`Out`]. `|default|` before
/// the body names the [`DefaultStream`] of the call.
macro_rules! driver_fns {
    ($($(#[$meta:meta])* $stage:ident fn $name:ident $(/ $twin:ident)? ($($arg:ident: $ty:ty),* $(,)?) $(|$default:ident|)? $body:block)*) => {
        $(
            driver_fns!(@emit [$($meta)*] $stage $name ($($arg: $ty),*) ($($default)?) Legacy $body);
            driver_fns!(@twin ($($twin)?) [$($meta)*] $stage ($($arg: $ty),*) ($($default)?) $body);
        )*

        /// The functions of this chapter by name, with how their arguments are passed.
        #[cfg(test)]
        pub(crate) fn signatures() -> Vec<(&'static str, Vec<$crate::api::Class>)> {
            vec![$((stringify!($name), vec![$($crate::api::Class::of::<$ty>()),*])),*]
        }
    };
    (@twin () $($rest:tt)*) => {};
    (@twin ($twin:ident) [$($meta:meta)*] $stage:ident $args:tt ($default:ident) $body:block) => {
        driver_fns!(@emit [$($meta)*] $stage $twin $args ($default) PerThread $body);
    };
    (@emit [$($meta:meta)*] $stage:ident $name:ident ($($arg:ident: $ty:ty),*) ($($default:ident)?) $which:ident $body:block) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The caller passes what the CUDA driver API manual asks of this function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> pxos_protocol::types::CUresult {
            // SAFETY: the caller of the CUDA API vouches for its pointers.
            $(let $arg = unsafe { $crate::api::Argument::seen($arg) };)*
            $(let $default = $crate::api::DefaultStream::$which;)?
            $crate::api::guard(stringify!($name), driver_fns!(@stage $stage), move || -> $crate::api::Answer { $body })
        }
    };
    (@stage early) => { $crate::api::Stage::Early };
    (@stage ready) => { $crate::api::Stage::Ready };
}
use driver_fns;
