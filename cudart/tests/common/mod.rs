//! What the tables do, as a script that runs against any libcuda: the stand-in of `tests/tables.rs`, and the one that
//! `PXOS_TEST_DRIVER` names in `tests/driver.rs`. Every expectation in here was measured on driver 580.159.04.

use std::ffi::c_void;
use std::sync::Mutex;

/// The functions of the storage table.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    put: unsafe extern "C" fn(u64, usize, usize, Option<Destructor>) -> u32,
    delete: unsafe extern "C" fn(u64, usize) -> u32,
    get: unsafe extern "C" fn(*mut usize, u64, usize) -> u32,
}

type Destructor = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void);

impl Storage {
    /// # Safety
    /// `table` is what a libcuda gives for CONTEXT_LOCAL_STORAGE.
    pub(crate) unsafe fn at(table: *const c_void) -> Self {
        // SAFETY: the table begins with these three functions.
        unsafe { table.cast::<Self>().read() }
    }

    pub(crate) fn put(&self, context: u64, key: usize, value: usize) -> u32 {
        // SAFETY: the destructor takes any arguments.
        unsafe { (self.put)(context, key, value, Some(record)) }
    }

    pub(crate) fn put_plain(&self, context: u64, key: usize, value: usize) -> u32 {
        // SAFETY: no destructor is allowed.
        unsafe { (self.put)(context, key, value, None) }
    }

    pub(crate) fn delete(&self, context: u64, key: usize) -> u32 {
        // SAFETY: takes numbers only.
        unsafe { (self.delete)(context, key) }
    }

    /// The result and the value, which starts as `UNTOUCHED`.
    pub(crate) fn get(&self, context: u64, key: usize) -> (u32, usize) {
        let mut value = UNTOUCHED;
        // SAFETY: writes to a local.
        let result = unsafe { (self.get)(&raw mut value, context, key) };
        (result, value)
    }
}

pub(crate) const UNTOUCHED: usize = 0x55;

/// Calls of destructors since last taken: context, key, value.
static DESTROYED: Mutex<Vec<(u64, usize, usize)>> = Mutex::new(Vec::new());

unsafe extern "C" fn record(context: *mut c_void, key: *mut c_void, value: *mut c_void) {
    DESTROYED.lock().expect("no test panics while it holds this").push((
        context.addr() as u64,
        key.addr(),
        value.addr(),
    ));
}

fn destroyed() -> Vec<(u64, usize, usize)> {
    std::mem::take(&mut DESTROYED.lock().expect("no test panics while it holds this"))
}

/// A libcuda's contexts on one device.
pub(crate) trait Contexts {
    /// The handle of the primary context as the runtime first gets it.
    fn primary(&self) -> u64;
    fn retain_primary(&self);
    fn reset_primary(&self);
    fn set_current(&self, context: u64);
    /// Makes a context and makes it current.
    fn create(&self) -> u64;
    fn destroy(&self, context: u64);
}

/// What the storage table does from before the first context on. The primary context is not retained yet.
pub(crate) fn storage_contract(storage: Storage, contexts: &impl Contexts) {
    // Without a current context.
    assert_eq!(storage.get(0, 0x10), (201, UNTOUCHED));
    assert_eq!(storage.put(0, 0x10, 0x20), 201);
    assert_eq!(storage.delete(0, 0x10), 201);

    // A primary context that is not active takes entries by its handle only.
    let primary = contexts.primary();
    assert_eq!(storage.put(primary, 0x11, 0x21), 0);
    assert_eq!(storage.get(primary, 0x11), (0, 0x21));
    assert_eq!(storage.delete(primary, 0x11), 0);
    contexts.set_current(primary);
    assert_eq!(storage.get(0, 0x11), (201, UNTOUCHED));
    assert_eq!(storage.put(0, 0x11, 0x21), 709);
    assert_eq!(storage.delete(0, 0x11), 709);

    // An active one, also as "current".
    contexts.retain_primary();
    contexts.set_current(primary);
    assert_eq!(storage.get(0, 0x10), (400, UNTOUCHED));
    assert_eq!(storage.delete(0, 0x10), 400);
    assert_eq!(storage.put(0, 0x10, 0x20), 0);
    for _ in 0..2 {
        assert_eq!(storage.get(0, 0x10), (0, 0x20));
        assert_eq!(storage.get(primary, 0x10), (0, 0x20));
    }
    assert_eq!(storage.put(0, 0x10, 0x30), 400, "a key that has a value keeps it");
    assert_eq!(storage.get(0, 0x10), (0, 0x20));
    assert_eq!(storage.put(0, 0x12, 0), 0);
    assert_eq!(storage.get(0, 0x12), (0, 0));
    assert_eq!(storage.put(0, 0, 0x31), 0);
    assert_eq!(storage.get(0, 0), (0, 0x31));
    assert_eq!(storage.delete(0, 0x10), 0);
    assert_eq!(storage.get(0, 0x10), (400, UNTOUCHED));
    assert_eq!(destroyed(), [], "delete calls no destructor");

    // Two contexts do not see each other.
    for (key, value) in [(0x40, 0x41), (0x50, 0x51), (0x30, 0x31)] {
        assert_eq!(storage.put(0, key, value), 0);
    }
    assert_eq!(storage.put_plain(0, 0x60, 0x61), 0);
    let second = contexts.create();
    assert_eq!(storage.get(0, 0x40), (400, UNTOUCHED));
    assert_eq!(storage.put(0, 0x40, 0x42), 0);
    assert_eq!(storage.get(0, 0x40), (0, 0x42));
    assert_eq!(storage.get(primary, 0x40), (0, 0x41));
    contexts.destroy(second);
    assert_eq!(destroyed(), [(second, 0x40, 0x42)]);
    assert_eq!(storage.get(second, 0x40), (400, UNTOUCHED));

    // A reset destroys the newest first and leaves a handle that takes entries.
    contexts.set_current(primary);
    assert_eq!(storage.get(0, 0x40), (0, 0x41));
    contexts.reset_primary();
    assert_eq!(
        destroyed(),
        [(0x30, 0x31), (0x50, 0x51), (0x40, 0x41), (0, 0x31), (0x12, 0)]
            .map(|(key, value)| (primary, key, value))
    );
    assert_eq!(storage.get(0, 0x40), (201, UNTOUCHED));
    assert_eq!(storage.get(primary, 0x40), (400, UNTOUCHED));
    assert_eq!(storage.put(primary, 0x40, 0x43), 0);
    assert_eq!(storage.delete(primary, 0x40), 0);
}
