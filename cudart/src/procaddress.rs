//! Which exported symbol `cuGetProcAddress` hands out for a name, a version and flags.
//!
//! A pure lookup in a generated table; the libcuda turns the symbol into its own address. The rules, all measured:
//!
//! * A name is the function's without `_v2`, `_ptsz` or `_ptds`; with one of them it is not found.
//! * The symbol is the one with the highest version that is not above the requested one, compared as unsigned.
//! * A version above the driver's own (as signed numbers) and any flag beyond the lowest two are invalid, whatever
//!   the name; nothing is written then.
//! * Flag 2 asks for the per-thread default stream; 0 and 1 mean the legacy one; 3 is as 2.

mod exports;
mod table;

pub use exports::{EXPORTS, RAW_DLSYM};

/// The driver version that the table belongs to, and above which requests are invalid.
pub const DRIVER_VERSION: i32 = 13000;

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
pub const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// The outcome of a lookup, and what the two versions of `cuGetProcAddress` make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Write the address of this exported symbol; success, status 0.
    Found(&'static str),
    /// No function of that name. `_v2`: success, null, status 1. First version: `CUDA_ERROR_NOT_FOUND` (500), nothing
    /// written.
    NotFound,
    /// The function appeared in a later version. `_v2`: success, null, status 2. First version: as `NotFound`.
    VersionNotSufficient,
    /// `CUDA_ERROR_INVALID_VALUE` from either, nothing written.
    Invalid,
}

/// Looks a function up for a driver of [`DRIVER_VERSION`].
#[must_use]
pub fn lookup(name: &str, version: i32, flags: u64) -> Lookup {
    lookup_under(DRIVER_VERSION, name, version, flags)
}

/// Looks a function up for a libcuda that calls itself `driver_version`: nothing above it is handed out.
#[must_use]
pub fn lookup_under(driver_version: i32, name: &str, version: i32, flags: u64) -> Lookup {
    if version > driver_version || flags > FLAGS {
        return Lookup::Invalid;
    }
    let Ok(at) = table::ROWS.binary_search_by(|row| row.name.cmp(name)) else {
        return Lookup::NotFound;
    };
    let row = &table::ROWS[at];
    let per_thread = flags & PER_THREAD_DEFAULT_STREAM != 0 && !row.per_thread.is_empty();
    let symbols = if per_thread { row.per_thread } else { row.legacy };
    // A negative version is a high one here, and not above the driver's there (measured).
    let version = version.cast_unsigned().min(driver_version.cast_unsigned());
    match symbols.iter().rev().find(|(from, _)| from.cast_unsigned() <= version) {
        Some((_, symbol)) => Lookup::Found(symbol),
        None => Lookup::VersionNotSufficient,
    }
}

/// The names that [`lookup`] knows, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    table::ROWS.iter().map(|row| row.name)
}

/// All flags there are: legacy (1) and per-thread (2) default stream.
const FLAGS: u64 = 3;

/// One function: from which version on which symbol, ascending.
#[derive(Debug)]
struct Row {
    name: &'static str,
    legacy: &'static [(i32, &'static str)],
    /// [`SAME`] where the default stream makes no difference.
    per_thread: &'static [(i32, &'static str)],
}

const SAME: &[(i32, &str)] = &[];

#[cfg(test)]
mod tests {
    use super::Lookup::{Found, Invalid, NotFound, VersionNotSufficient};
    use super::{EXPORTS, RAW_DLSYM, lookup, lookup_under, table};

    #[test]
    fn rows_are_sorted_and_hand_out_only_exports() {
        assert!(table::ROWS.is_sorted_by(|a, b| a.name < b.name));
        assert!(EXPORTS.is_sorted_by(|a, b| a < b));
        assert!(RAW_DLSYM.is_sorted_by(|a, b| a < b));
        for row in table::ROWS {
            assert!(!row.legacy.is_empty(), "{}", row.name);
            for symbols in [row.legacy, row.per_thread] {
                assert!(symbols.is_sorted_by(|a, b| a.0 < b.0), "{}", row.name);
                for (_, symbol) in symbols {
                    assert!(EXPORTS.binary_search(symbol).is_ok(), "{symbol}");
                    assert!(symbol.starts_with(row.name), "{symbol} for {}", row.name);
                }
            }
        }
        for symbol in RAW_DLSYM {
            assert!(EXPORTS.binary_search(symbol).is_ok(), "{symbol}");
        }
    }

    #[test]
    fn every_export_but_three_is_handed_out() {
        let mut left: std::collections::BTreeSet<&str> = EXPORTS.iter().copied().collect();
        for row in table::ROWS {
            for (_, symbol) in row.legacy.iter().chain(row.per_thread) {
                left.remove(symbol);
            }
        }
        assert_eq!(
            left.into_iter().collect::<Vec<_>>(),
            ["cuEGLApiInit", "cuMemGetAttribute", "cuMemGetAttribute_v2"]
        );
    }

    /// Each line was answered so by the measured driver.
    #[test]
    fn lookups_are_those_of_the_measured_driver() {
        for (name, version, flags, expected) in [
            ("cuLaunchKernel", 13000, 0, Found("cuLaunchKernel")),
            ("cuLaunchKernel", 13000, 1, Found("cuLaunchKernel")),
            ("cuLaunchKernel", 13000, 2, Found("cuLaunchKernel_ptsz")),
            ("cuLaunchKernel", 13000, 3, Found("cuLaunchKernel_ptsz")),
            ("cuLaunchKernel", 13000, 4, Invalid),
            ("cuLaunchKernel", 13000, 1 << 32, Invalid),
            ("cuLaunchKernel", 13001, 0, Invalid),
            ("cuLaunchKernel", 6999, 0, Found("cuLaunchKernel")),
            ("cuLaunchKernel", 6999, 2, VersionNotSufficient),
            ("cuLaunchKernel", 3999, 0, VersionNotSufficient),
            ("cuLaunchKernel", 0, 0, VersionNotSufficient),
            ("cuLaunchKernel", -1, 2, Found("cuLaunchKernel_ptsz")),
            ("cuCtxGetDevice", 13000, 0, Found("cuCtxGetDevice_v2")),
            ("cuCtxGetDevice", 12999, 0, Found("cuCtxGetDevice")),
            ("cuCtxGetDevice", -1, 0, Found("cuCtxGetDevice_v2")),
            ("cuMemAlloc", 2000, 0, Found("cuMemAlloc")),
            ("cuMemAlloc", 3999, 2, Found("cuMemAlloc_v2")),
            ("cuMemAlloc_v2", 13000, 0, NotFound),
            ("cuGraphInstantiate", 7000, 0, VersionNotSufficient),
            ("cuGraphInstantiate", 12085, 0, Found("cuGraphInstantiate_v2")),
            ("cuGetProcAddress", 11030, 0, Found("cuGetProcAddress")),
            ("cuGetProcAddress", 12000, 0, Found("cuGetProcAddress_v2")),
            ("", 0, 0, NotFound),
            ("", 14000, 0, Invalid),
            ("", 7000, 4, Invalid),
        ] {
            assert_eq!(lookup(name, version, flags), expected, "{name} {version} {flags}");
        }
    }

    #[test]
    fn an_older_driver_hands_out_nothing_newer() {
        assert_eq!(lookup_under(12080, "cuCtxGetDevice", 13000, 0), Invalid);
        assert_eq!(lookup_under(12080, "cuCtxGetDevice", 12080, 0), Found("cuCtxGetDevice"));
        assert_eq!(lookup_under(12080, "cuCtxGetDevice", -1, 0), Found("cuCtxGetDevice"));
    }
}
