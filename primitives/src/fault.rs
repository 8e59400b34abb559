//! Faults of running kernels: how generated code writes them down, and what they say.
//!
//! A thread that would reach outside of an array writes the fault record, if it is the first, and ends; the access
//! does not happen and the other threads go on. It does not trap: a trap ends the whole context, with everything else
//! that the guest process has in it, and the record could not be read any more.

use serde::Serialize;

use crate::ir::{ArrayRef, SiteKind};

/// Bytes of a fault record; zero before a launch, in device memory, 8-byte aligned.
pub const FAULT_RECORD_BYTES: usize = 32;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A load outside of an array (as `CUDA_ERROR_ILLEGAL_ADDRESS`).
    Load,
    /// A store outside of an array (as `CUDA_ERROR_ILLEGAL_ADDRESS`).
    Store,
    /// An atomic operation outside of an array (as `CUDA_ERROR_ILLEGAL_ADDRESS`).
    Atomic,
    /// A whole number was divided by zero.
    Division,
    /// A `REQUIRE` did not hold.
    Require,
}

/// A fault: the first one that a launch met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// Line of the program text.
    pub line: u32,
    /// The array's name, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// The index.
    pub index: i64,
    /// The array's length.
    pub length: u64,
    /// The thread's number.
    pub thread: u64,
    /// All of it in words.
    pub message: String,
}

/// A fault as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawFault {
    pub(crate) unit: u32,
    pub(crate) line: u32,
    pub(crate) code: u32,
    pub(crate) index: i32,
    pub(crate) length: u32,
    pub(crate) thread: u32,
}

/// Kind and array in one number: the kind in the low byte, the array's space in the next, its number above.
pub(crate) fn code(kind: SiteKind) -> u32 {
    let of = |array: ArrayRef| match array {
        ArrayRef::Param(index) => index << 16,
        ArrayRef::Shared(index) => 1 << 8 | index << 16,
        ArrayRef::Table(index) => 2 << 8 | index << 16,
    };
    match kind {
        SiteKind::Load(array) => 1 | of(array),
        SiteKind::Store(array) => 2 | of(array),
        SiteKind::Atomic(array) => 3 | of(array),
        SiteKind::Divisor => 4,
        SiteKind::Require => 5,
    }
}

impl RawFault {
    /// Reads a record: the state, then unit, line, code, index, length, thread, each 32 bits.
    pub(crate) fn decode(record: &[u8; FAULT_RECORD_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            u32::from_le_bytes([record[at * 4], record[at * 4 + 1], record[at * 4 + 2], record[at * 4 + 3]])
        };
        (word(0) != 0).then(|| Self {
            unit: word(1),
            line: word(2),
            code: word(3),
            index: word(4).cast_signed(),
            length: word(5),
            thread: word(6),
        })
    }
}
