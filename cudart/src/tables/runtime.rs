//! The tables that every CUDA runtime asks for at its first call.
//!
//! Which runtime asks for what (static and shared alike): all of 11.8 to 13.5 need CUDART_INTERFACE,
//! TOOLS_RUNTIME_CALLBACK_HOOKS, TOOLS_TLS, CONTEXT_LOCAL_STORAGE and INTEGRITY_CHECK; CONTEXT_CHECKS is optional from
//! 12.4 and needed from 13.0. An error from a needed table or slot becomes the error of every runtime call.

use std::cell::UnsafeCell;
use std::ffi::c_void;

use super::slot::{CALLABLE, NAMES, Slot, guard, unsupported_table, write};
use crate::driver::driver;
use crate::integrity::{self, Inputs};
use crate::result::{ERROR_INVALID_CONTEXT, ERROR_INVALID_VALUE};
use crate::storage::{self, Destructor};

// Numbers of `NAMES`.
const INTERFACE: usize = 0;
const TLS: usize = 1;
const CHECKS: usize = 2;

// ---- CUDART_INTERFACE --------------------------------------------------------------------------------------------

/// Slots 1, 6 and 7 serve the runtimes up to 11.8, 12 the shared ones from 13.1; slot 2 serves all.
pub(super) static CUDART_INTERFACE: [Slot; CALLABLE] = {
    let mut slots = unsupported_table::<INTERFACE>(13);
    slots[1] = Slot(module_from_wrapper as *const ());
    slots[2] = Slot(primary_context as *const ());
    slots[6] = Slot(load_module as *const ());
    slots[7] = Slot(forget_wrapper as *const ());
    slots[12] = Slot(load_compilers as *const ());
    slots
};

/// Slot 1: loads the module in a fatbin wrapper into the current context.
unsafe extern "C" fn module_from_wrapper(module: *mut u64, wrapper: *const c_void) -> u32 {
    guard(|| {
        let loaded = driver()?.module_load(wrapper)?;
        // SAFETY: the caller of this slot passes where to put the module.
        unsafe { write(module, loaded) }
    })
}

/// Slot 2: the handle of a device's primary context, neither retained nor activated (measured).
unsafe extern "C" fn primary_context(context: *mut u64, device: i32) -> u32 {
    guard(|| {
        let handle = driver()?.primary_context(device)?;
        // SAFETY: the caller of this slot passes where to put the context.
        unsafe { write(context, handle) }
    })
}

/// Slot 6: as slot 1, with three more arguments, which runtime 11.8 passes as zero.
unsafe extern "C" fn load_module(
    module: *mut u64,
    wrapper: *const c_void,
    _unknown: *const c_void,
    _unknown_too: *const c_void,
    _flags: u32,
) -> u32 {
    // SAFETY: the first two arguments are those of slot 1.
    unsafe { module_from_wrapper(module, wrapper) }
}

/// Slot 7: called by runtime 11.8 at exit for each wrapper. Nothing is held per wrapper.
extern "C" fn forget_wrapper(_wrapper: *const c_void) -> u32 {
    0
}

/// Slot 12: loads the compilers (PTX and others). They are loaded where the kernels run, when they are needed.
extern "C" fn load_compilers() -> u32 {
    0
}

// ---- TOOLS_RUNTIME_CALLBACK_HOOKS --------------------------------------------------------------------------------

/// The runtime refuses a size below 56. Slots 1, 3, 4 and 5 bracket the callbacks of tools, which are never enabled.
pub(super) static TOOLS_RUNTIME_CALLBACK_HOOKS: [Slot; 7] = [
    Slot(std::ptr::without_provenance(7 * size_of::<Slot>())),
    Slot(no_callback as *const ()),
    Slot(callback_words as *const ()),
    Slot(no_callback as *const ()),
    Slot(no_callback as *const ()),
    Slot(no_callback as *const ()),
    Slot(callback_bytes as *const ()),
];

extern "C" fn no_callback() -> u32 {
    0
}

/// Memory that the runtime may read and write; all zeros mean "no tool wants callbacks".
#[repr(C, align(64))]
struct Flags<T>(UnsafeCell<T>);

// SAFETY: only the runtime's own code touches the contents, through the pointer it is given; this crate never does.
unsafe impl<T> Sync for Flags<T> {}

/// Four bytes for each of the 1024 things that a tool can subscribe to.
static CALLBACK_WORDS: Flags<[u32; 1024]> = Flags(UnsafeCell::new([0; 1024]));
static CALLBACK_BYTES: Flags<[u8; 14]> = Flags(UnsafeCell::new([0; 14]));

/// Slot 2: where the enable words lie, and how many.
unsafe extern "C" fn callback_words(buffer: *mut *mut c_void, count: *mut usize) -> u32 {
    guard(|| {
        // SAFETY: the caller of this slot passes where to put the address.
        unsafe { write(buffer, CALLBACK_WORDS.0.get().cast()) }?;
        // SAFETY: the caller of this slot passes where to put the count.
        unsafe { write(count, 1024) }
    })
}

/// Slot 6: as slot 2 for 14 bytes.
unsafe extern "C" fn callback_bytes(buffer: *mut *mut c_void, count: *mut usize) -> u32 {
    guard(|| {
        // SAFETY: the caller of this slot passes where to put the address.
        unsafe { write(buffer, CALLBACK_BYTES.0.get().cast()) }?;
        // SAFETY: the caller of this slot passes where to put the count.
        unsafe { write(count, 14) }
    })
}

// ---- TOOLS_TLS ---------------------------------------------------------------------------------------------------

pub(super) static TOOLS_TLS: [Slot; CALLABLE] = {
    let mut slots = unsupported_table::<TLS>(3);
    slots[2] = Slot(current_context as *const ());
    slots
};

/// Slot 2: the current context, null for none (measured).
unsafe extern "C" fn current_context(context: *mut u64) -> u32 {
    guard(|| {
        let current = driver()?.current_context();
        // SAFETY: the caller of this slot passes where to put the context.
        unsafe { write(context, current) }
    })
}

// ---- CONTEXT_LOCAL_STORAGE ---------------------------------------------------------------------------------------

/// No size word: the functions start at slot 0 and a null ends them.
pub(super) static CONTEXT_LOCAL_STORAGE: [Slot; 4] = [
    Slot(storage_put as *const ()),
    Slot(storage_delete as *const ()),
    Slot(storage_get as *const ()),
    Slot::NULL,
];

extern "C" fn storage_put(context: u64, key: usize, value: usize, destructor: Option<Destructor>) -> u32 {
    guard(|| storage::put(context, key, value, destructor))
}

extern "C" fn storage_delete(context: u64, key: usize) -> u32 {
    guard(|| storage::delete(context, key))
}

/// Leaves the value alone on a miss (measured).
unsafe extern "C" fn storage_get(value: *mut usize, context: u64, key: usize) -> u32 {
    guard(|| {
        let found = storage::get(context, key)?;
        // SAFETY: the caller of this slot passes where to put the value.
        unsafe { write(value, found) }
    })
}

// ---- INTEGRITY_CHECK ---------------------------------------------------------------------------------------------

pub(super) static INTEGRITY_CHECK: [Slot; 3] = [
    Slot(std::ptr::without_provenance(3 * size_of::<Slot>())),
    Slot(integrity_answer as *const ()),
    // Of unknown purpose; called by no runtime seen.
    Slot(no_callback as *const ()),
];

/// Slot 1: the hash that tells the runtime that this is a driver. See [`integrity`].
unsafe extern "C" fn integrity_answer(runtime_version: u32, unix_seconds: u64, answer: *mut [u8; 16]) -> u32 {
    guard(|| {
        let driver = driver()?;
        let devices = driver.devices();
        let computed = integrity::answer(&Inputs {
            driver_version: driver.driver_version().cast_unsigned(),
            runtime_version,
            process: std::process::id(),
            thread: low_half_of_thread(),
            interface_table: address(&CUDART_INTERFACE),
            integrity_table: address(&INTEGRITY_CHECK),
            integrity_function: INTEGRITY_CHECK[1].0.addr() as u64,
            unix_seconds,
            devices: &devices,
        });
        // SAFETY: the caller of this slot passes 16 writable bytes.
        unsafe { write(answer, computed) }
    })
}

/// What the runtime hashes as the thread's number.
#[expect(clippy::cast_possible_truncation, reason = "the runtime hashes the low 32 bits")]
fn low_half_of_thread() -> u32 {
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    thread as u32
}

fn address(table: &'static [Slot]) -> u64 {
    table.as_ptr().addr() as u64
}

// ---- CONTEXT_CHECKS ----------------------------------------------------------------------------------------------

pub(super) static CONTEXT_CHECKS: [Slot; CALLABLE] = {
    let mut slots = unsupported_table::<CHECKS>(15);
    slots[2] = Slot(context_check as *const ());
    slots[3] = Slot(no_check as *const ());
    slots
};

/// Slot 2: whether calls in this context (null: the current one) need the runtime's checks. Writes 0 to the first
/// and leaves the second out parameter alone, as the driver does for an ordinary context (measured).
unsafe extern "C" fn context_check(context: u64, needed: *mut u32, _unknown: *mut *mut c_void) -> u32 {
    guard(|| {
        let driver = driver()?;
        if context == 0 && driver.current_context() == 0 {
            return Err(ERROR_INVALID_CONTEXT);
        }
        if needed.is_null() {
            return Err(ERROR_INVALID_VALUE);
        }
        // SAFETY: the caller of this slot passes where to put the flag.
        unsafe { write(needed, 0) }
    })
}

/// Slot 3: answers 0 at any time (measured, also before `cuInit`).
extern "C" fn no_check() -> u32 {
    0
}

const _: () = assert!(INTERFACE < NAMES.len() && TLS < NAMES.len() && CHECKS < NAMES.len());
