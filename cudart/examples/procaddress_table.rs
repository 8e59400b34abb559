//! Writes `src/procaddress/table.rs` again, from any libcuda: asks its `cuGetProcAddress_v2` for every name, version
//! and kind of default stream, and resolves the answers to exported symbols.
//!
//! `cargo run -p pxos-cudart --example procaddress_table -- libcuda.so.1 > cudart/src/procaddress/table.rs`
//!
//! Names come from the committed list of exports, so a newer libcuda needs that list renewed first.

#![expect(clippy::print_stdout, reason = "the table is the output")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::{CString, c_char};

use libloading::Library;
use pxos_cudart::procaddress::EXPORTS;

type GetProcAddress = unsafe extern "C" fn(*const c_char, *mut usize, i32, u64, *mut i32) -> u32;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a libcuda is needed")?;
    // SAFETY: running its initialisers is what loading a driver means.
    let libcuda = unsafe { Library::new(path) }?;
    // SAFETY: the function's type in cuda.h.
    let ask = unsafe { libcuda.get::<GetProcAddress>(b"cuGetProcAddress_v2") }?;
    // SAFETY: the function's type in cuda.h.
    let version_of = unsafe { libcuda.get::<unsafe extern "C" fn(*mut i32) -> u32>(b"cuDriverGetVersion") }?;
    let mut driver_version = 0;
    // SAFETY: writes to a local.
    if unsafe { version_of(&raw mut driver_version) } != 0 {
        return Err("cuDriverGetVersion failed".into());
    }

    let mut symbols: BTreeMap<usize, &'static str> = BTreeMap::new();
    for symbol in EXPORTS {
        // SAFETY: only the address is used.
        if let Ok(function) = unsafe { libcuda.get::<usize>(symbol.as_bytes()) } {
            // Two names of one function: the first, which is the shorter one, stands for both.
            symbols.entry(*function).or_insert(symbol);
        }
    }

    println!("{HEADER}");
    let versions = (2000..=driver_version).step_by(10);
    for name in EXPORTS.iter().map(|symbol| base(symbol)).collect::<BTreeSet<_>>() {
        let c_name = CString::new(name)?;
        let changes = |flags: u64| {
            let mut rows: Vec<(i32, &str)> = Vec::new();
            for version in versions.clone() {
                let (mut address, mut status) = (0, 0);
                // SAFETY: writes to locals.
                let result =
                    unsafe { ask(c_name.as_ptr(), &raw mut address, version, flags, &raw mut status) };
                if let (0, Some(symbol)) = (result, symbols.get(&address))
                    && rows.last().is_none_or(|(_, last)| last != symbol)
                {
                    rows.push((version, symbol));
                }
            }
            rows
        };
        let (legacy, per_thread) = (changes(0), changes(2));
        if legacy.is_empty() {
            continue;
        }
        let second = if legacy == per_thread { "SAME".to_owned() } else { format!("&{per_thread:?}") };
        println!("    Row {{ name: {name:?}, legacy: &{legacy:?}, per_thread: {second} }},");
    }
    println!("];");
    Ok(())
}

const HEADER: &str = r#"//! Which exported symbol stands for which driver function, from which version on. Generated; do not edit.
//!
//! One row per function, sorted by name: for the legacy default stream the versions from which a new symbol applies,
//! then the same for the per-thread default stream where that differs. Measured on driver 580.159.04 (CUDA 13.0) by
//! asking `cuGetProcAddress_v2` for every version; `cargo run -p pxos-cudart --example procaddress_table` writes
//! this file again from any libcuda.

use super::{Row, SAME};

/// Sorted by name.
#[rustfmt::skip]
pub(super) static ROWS: &[Row] = &["#;

/// The name that `cuGetProcAddress` knows an exported symbol by.
fn base(symbol: &str) -> &str {
    let symbol = symbol.strip_suffix("_ptsz").or_else(|| symbol.strip_suffix("_ptds")).unwrap_or(symbol);
    match symbol.rsplit_once("_v") {
        Some((base, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => symbol,
    }
}
