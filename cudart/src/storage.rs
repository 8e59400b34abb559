//! CONTEXT_LOCAL_STORAGE: what the runtime keeps per context, as a map from (context, key) to a value with a
//! destructor. Private to the process; nothing of it ever leaves it.
//!
//! The runtime calls [`get`] at the start of *every* runtime call, so a hit must cost a few nanoseconds: each thread
//! remembers its last few answers, and a global epoch, raised by everything that removes an entry, says whether they
//! still hold. Misses are never remembered, and a value never changes while its entry lives ([`put`] refuses an
//! existing key, measured), so adding an entry needs no new epoch.
//!
//! Contexts are handles that this module does not check: the driver of 580 stores under any handle, also that of a
//! context that is not active (measured). A context of 0 or -1 means the calling thread's current one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::driver;
use crate::result::{
    ERROR_CONTEXT_IS_DESTROYED, ERROR_INVALID_CONTEXT, ERROR_INVALID_HANDLE, ERROR_NOT_INITIALIZED,
};

/// Called with context, key and value when the context that holds an entry goes away; not by [`delete`].
pub type Destructor = unsafe extern "C" fn(context: *mut c_void, key: *mut c_void, value: *mut c_void);

#[derive(Debug)]
struct Entry {
    key: usize,
    value: usize,
    destructor: Option<Destructor>,
}

/// Per context its entries in the order they were put. A context holds one entry per copy of the runtime in the
/// process, a handful at most, so a walk beats a map.
static ENTRIES: RwLock<BTreeMap<u64, Vec<Entry>>> = RwLock::new(BTreeMap::new());

/// Raised under the write lock of `ENTRIES` by whatever makes a remembered answer wrong.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// One remembered answer. Epoch 0 is never current.
#[derive(Clone, Copy)]
struct Remembered {
    epoch: u64,
    context: u64,
    key: usize,
    value: usize,
}

/// Remembered answers per thread: as many as copies of the runtime that a big process interleaves (libtorch, cuBLAS,
/// cuFFT, cuSOLVER, NCCL, … each bring their own).
const WAYS: usize = 8;

thread_local! {
    static REMEMBERED: [Cell<Remembered>; WAYS] =
        const { [const { Cell::new(Remembered { epoch: 0, context: 0, key: 0, value: 0 }) }; WAYS] };
}

/// Where a key is remembered. Keys are addresses of objects in different libraries: the low bits are alignment.
fn way(key: usize) -> usize {
    (key >> 4 ^ key >> 9 ^ key >> 16) % WAYS
}

/// The value stored under a key in a context (0 or -1: the current one).
///
/// # Errors
/// `ERROR_INVALID_HANDLE` if there is no such entry, `ERROR_INVALID_CONTEXT` if no context, or one that is not
/// active, is current, `ERROR_NOT_INITIALIZED` and `ERROR_DEINITIALIZED` before and after the driver's life (all
/// measured).
#[inline]
pub fn get(context: u64, key: usize) -> Result<usize, u32> {
    let named = match context {
        0 | CURRENT => driver::installed().ok_or(ERROR_NOT_INITIALIZED)?.current_context(),
        explicit => explicit,
    };
    // Acquire pairs with the release in `forget_cached`: a thread that was told of a removal sees its epoch.
    let epoch = EPOCH.load(Ordering::Acquire);
    let remembered = REMEMBERED.try_with(|ways| ways[way(key)].get());
    if let Ok(hit) = remembered
        && hit.epoch == epoch
        && hit.context == named
        && hit.key == key
    {
        return Ok(hit.value);
    }
    look_up(context, named, key)
}

/// The slow half of [`get`]: under the lock, and with every error told apart.
#[cold]
fn look_up(context: u64, named: u64, key: usize) -> Result<usize, u32> {
    let driver = driver::driver()?;
    if named == 0 {
        return Err(ERROR_INVALID_CONTEXT);
    }
    let entries = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    let found = entries.get(&named).and_then(|held| held.iter().find(|entry| entry.key == key));
    let Some(entry) = found else {
        drop(entries);
        let stale = named != context && !driver.context_is_active(named);
        return Err(if stale { ERROR_INVALID_CONTEXT } else { ERROR_INVALID_HANDLE });
    };
    let value = entry.value;
    // Read under the lock that every raise holds, hence the epoch that belongs to this value.
    let epoch = EPOCH.load(Ordering::Acquire);
    drop(entries);
    // A thread whose locals are already gone (an exit handler) just does not remember.
    let _ = REMEMBERED.try_with(|ways| ways[way(key)].set(Remembered { epoch, context: named, key, value }));
    Ok(value)
}

/// Stores a value under a key that has none yet, in a context (0 or -1: the current one).
///
/// # Errors
/// `ERROR_INVALID_HANDLE` if the key has a value there (which stays), `ERROR_INVALID_CONTEXT` without a current
/// context, `ERROR_CONTEXT_IS_DESTROYED` if the current one is not active, and those of the driver's life (all
/// measured).
pub fn put(context: u64, key: usize, value: usize, destructor: Option<Destructor>) -> Result<(), u32> {
    let context = resolve(context)?;
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    let held = entries.entry(context).or_default();
    if held.iter().any(|entry| entry.key == key) {
        return Err(ERROR_INVALID_HANDLE);
    }
    held.push(Entry { key, value, destructor });
    Ok(())
}

/// Removes an entry without calling its destructor.
///
/// # Errors
/// As for [`put`]; `ERROR_INVALID_HANDLE` if there is no such entry.
pub fn delete(context: u64, key: usize) -> Result<(), u32> {
    let context = resolve(context)?;
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    let held = entries.get_mut(&context).ok_or(ERROR_INVALID_HANDLE)?;
    let at = held.iter().position(|entry| entry.key == key).ok_or(ERROR_INVALID_HANDLE)?;
    held.remove(at);
    if held.is_empty() {
        entries.remove(&context);
    }
    forget_cached();
    Ok(())
}

/// A context is being destroyed: drops its entries and calls their destructors, the newest first (measured).
///
/// To be called when the handle still names the context but before anything else reuses it. Destructors run on this
/// thread, without any lock held, and find the entries gone. Does nothing in the child of a fork, nor after
/// [`crate::shut_down`], when the libraries that the destructors belong to may be gone.
pub fn context_destroyed(context: u64) {
    if !driver::is_live() {
        return;
    }
    let removed = {
        let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
        let removed = entries.remove(&context).unwrap_or_default();
        if !removed.is_empty() {
            forget_cached();
        }
        removed
    };
    for entry in removed.into_iter().rev() {
        let Some(destructor) = entry.destructor else { continue };
        // SAFETY: whoever stored the entry through the table gave this function for exactly this call: once, with
        // the entry's own context, key and value, when the context goes away.
        unsafe { destructor(pointer(context), pointer_to(entry.key), pointer_to(entry.value)) };
    }
}

/// A primary context is being reset or released for the last time: as [`context_destroyed`], and the handle stays
/// valid for new entries. An entry that survived here would make the runtime launch functions of the old context.
pub fn context_reset(context: u64) {
    context_destroyed(context);
}

/// Makes every remembered answer of every thread invalid.
pub(crate) fn forget_cached() {
    EPOCH.fetch_add(1, Ordering::Release);
}

/// The context to store in, with the errors that the driver gives for the current one.
fn resolve(context: u64) -> Result<u64, u32> {
    let driver = driver::driver()?;
    if context != 0 && context != CURRENT {
        return Ok(context);
    }
    match driver.current_context() {
        0 => Err(ERROR_INVALID_CONTEXT),
        current if driver.context_is_active(current) => Ok(current),
        _ => Err(ERROR_CONTEXT_IS_DESTROYED),
    }
}

fn pointer(handle: u64) -> *mut c_void {
    pointer_to(usize::try_from(handle).expect("handles are pointers of this 64-bit process"))
}

fn pointer_to(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

/// `(CUcontext)-1`.
const CURRENT: u64 = u64::MAX;
