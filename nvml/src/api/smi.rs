//! The table of functions that `nvidia-smi` asks for beside NVML's exports (`nvmlInternalGetExportTable`). No header describes
//! it. Seen from outside, with nvidia-smi 550: without the table it refuses to run ("mismatch in versions"); a slot that is
//! null, or beyond the length that the table gives itself, it does without, and shows `N/A`; three slots list the processes of
//! a device, each a function of a device, the number of entries that there is room for, and the entries.
//!
//! All other slots are null here.

use super::process::{NO_INSTANCE, processes};
use super::{put, put_list};
use crate::facts::{device, facts};
use crate::live;
use crate::types::{Error, Result, nvmlDevice_t, nvmlReturn_t};
use std::ffi::{c_uint, c_ulonglong, c_void};
use std::panic::catch_unwind;

/// The table's id.
const ID: [u8; 16] =
    [0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e, 0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4];
/// Slots, more than any that was seen to be used; the length comes before them.
const SLOTS: usize = 511;
/// Processes that compute, those with graphics, those of MPS.
const COMPUTE: usize = 212;
/// See [`COMPUTE`].
const GRAPHICS: usize = 213;
/// See [`COMPUTE`].
const MPS: usize = 214;
/// Longest list that is asked for, with room to spare: a caller that means another function by the slot is not written to.
const MOST: c_uint = 4096;

/// A process as these lists have it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Process {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
    unknown: c_ulonglong,
    name: [u8; 4096],
}

const _: () = assert!(size_of::<Process>() == 4128);

type List = unsafe extern "C" fn(nvmlDevice_t, *mut c_uint, *mut Process) -> nvmlReturn_t;

/// The table: its length in bytes, where others' first slot would be, then slots that are null or functions.
#[repr(C)]
struct Table {
    length: usize,
    slots: [Option<List>; SLOTS],
}

static TABLE: Table = {
    let mut slots: [Option<List>; SLOTS] = [None; SLOTS];
    slots[COMPUTE] = Some(compute_processes);
    slots[GRAPHICS] = Some(no_processes);
    slots[MPS] = Some(no_processes);
    Table { length: size_of::<Table>(), slots }
};

pub(crate) unsafe fn nvmlInternalGetExportTable(table: *mut *const c_void, id: *const [u8; 16]) -> Result {
    if id.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: not null; the entry point's contract.
    let found = unsafe { id.read() } == ID;
    let address = if found { (&raw const TABLE).cast() } else { std::ptr::null() };
    // SAFETY: the entry point's contract.
    unsafe { put(table, address)? };
    if found { Ok(()) } else { Err(Error::NOT_FOUND) }
}

/// Answers of slots: no panic leaves them.
fn guard(body: impl FnOnce() -> Result + std::panic::UnwindSafe) -> nvmlReturn_t {
    catch_unwind(body).unwrap_or(Err(Error::UNKNOWN)).map_or_else(|error| error as nvmlReturn_t, |()| 0)
}

/// Fails unless these are arguments of such a list.
///
/// # Safety
/// `count` is null or can be read.
unsafe fn check(handle: nvmlDevice_t, count: *const c_uint) -> Result {
    device(handle)?;
    // SAFETY: the caller's.
    if count.is_null() || unsafe { count.read() } > MOST { Err(Error::INVALID_ARGUMENT) } else { Ok(()) }
}

unsafe extern "C" fn compute_processes(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut Process,
) -> nvmlReturn_t {
    guard(|| {
        // SAFETY: `nvidia-smi` passes what was seen.
        unsafe { check(handle, count)? };
        let programs = live::lately(facts()?)?;
        let name_of = |pid: c_uint| {
            let program = programs.processes.iter().find(|process| process.pid == pid);
            super::system::command_of(pid).or_else(|| Some(program?.program.clone())).unwrap_or_default()
        };
        let list = processes(handle)?.into_iter().map(|(pid, used)| Process {
            pid,
            used,
            gpu_instance: NO_INSTANCE,
            compute_instance: NO_INSTANCE,
            unknown: 0,
            name: super::text_array(&name_of(pid)),
        });
        // SAFETY: as above.
        unsafe { put_list(count, to, list.collect()) }
    })
}

unsafe extern "C" fn no_processes(
    handle: nvmlDevice_t,
    count: *mut c_uint,
    _to: *mut Process,
) -> nvmlReturn_t {
    guard(|| {
        // SAFETY: `nvidia-smi` passes what was seen.
        unsafe { check(handle, count)? };
        // SAFETY: as above.
        unsafe { put(count, 0) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_its_id_and_three_functions() {
        let mut table = std::ptr::null();
        // SAFETY: pointers to locals.
        unsafe {
            assert_eq!(nvmlInternalGetExportTable(&raw mut table, &ID), Ok(()));
            assert!(!table.is_null());
            assert_eq!(nvmlInternalGetExportTable(&raw mut table, &[1; 16]), Err(Error::NOT_FOUND));
            assert!(table.is_null());
        }
        assert_eq!(TABLE.slots.iter().filter(|slot| slot.is_some()).count(), 3);
        // SAFETY: refused before anything is read.
        let result = unsafe {
            compute_processes(nvmlDevice_t(std::ptr::null_mut()), std::ptr::null_mut(), std::ptr::null_mut())
        };
        assert_eq!(result, Error::UNINITIALIZED as nvmlReturn_t);
    }
}
