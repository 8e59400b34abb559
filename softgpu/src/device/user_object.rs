//! User objects: things of the application's that live as long as it or a graph refers to them (CUDA driver API,
//! `cuUserObjectCreate`). A reference of a graph's is a value, so that copies and launches hold theirs without saying so.

use pxos_protocol::types::{CUresult, CUuserObject};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object.
#[derive(Debug)]
pub(crate) struct UserObject {
    handle: CUuserObject,
    destroy: unsafe extern "C" fn(*mut c_void),
    data: usize,
    references: AtomicU64,
}

/// One reference that a graph, an executable graph or a launch holds.
#[derive(Debug)]
pub(crate) struct Reference(Arc<UserObject>);

static OBJECTS: Mutex<Option<HashMap<CUuserObject, Arc<UserObject>>>> = Mutex::new(None);

fn objects() -> MutexGuard<'static, Option<HashMap<CUuserObject, Arc<UserObject>>>> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an object with some references of the application's.
pub(crate) fn create(
    data: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
    references: u32,
) -> CUuserObject {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: the number only has to be unique. It is no address, and no handle of another kind.
    let handle = CUuserObject(0x6000_0000_0000 | NEXT.fetch_add(1, Ordering::Relaxed));
    let (data, references) = (data.expose_provenance(), AtomicU64::new(references.into()));
    let object = Arc::new(UserObject { handle, destroy, data, references });
    objects().get_or_insert_default().insert(handle, object);
    handle
}

/// The object of a handle that has references.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`.
pub(crate) fn live(handle: CUuserObject) -> Result<Arc<UserObject>, CUresult> {
    objects().as_ref().and_then(|all| all.get(&handle).cloned()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

impl UserObject {
    /// Adds references.
    pub(crate) fn retain(&self, count: u64) {
        self.references.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes references away; with the last one the application's function is called.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for more than there are.
    pub(crate) fn release(&self, count: u64) -> Result<(), CUresult> {
        let less = |references: u64| references.checked_sub(count);
        let before = self.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if before.map_err(|_| CUresult::ERROR_INVALID_VALUE)? == count && count > 0 {
            if let Some(all) = objects().as_mut() {
                all.remove(&self.handle);
            }
            // SAFETY: the application gave the function for exactly this call, and its data with it.
            unsafe { (self.destroy)(std::ptr::with_exposed_provenance_mut(self.data)) };
        }
        Ok(())
    }

    /// A reference for a graph.
    pub(crate) fn refer(self: &Arc<Self>) -> Reference {
        self.retain(1);
        Reference(Arc::clone(self))
    }
}

impl Reference {
    /// A reference that the application had, taken over.
    pub(crate) fn adopt(object: &Arc<UserObject>) -> Self {
        Self(Arc::clone(object))
    }

    /// Whether it is one to this object.
    pub(crate) fn is_to(&self, object: &Arc<UserObject>) -> bool {
        Arc::ptr_eq(&self.0, object)
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        self.0.refer()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // It cannot fail: this reference is one of them.
        let _ = self.0.release(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn end(data: *mut c_void) {
        ENDED.fetch_add(data.addr(), Ordering::SeqCst);
    }

    #[test]
    fn the_last_reference_ends_it() {
        let handle = create(std::ptr::without_provenance_mut(7), end, 2);
        let object = live(handle).unwrap();
        let first = object.refer();
        let second = first.clone();
        assert!(object.release(3).is_ok());
        assert_eq!(ENDED.load(Ordering::SeqCst), 0);
        assert_eq!(object.release(2), Err(CUresult::ERROR_INVALID_VALUE));
        let _second = std::mem::ManuallyDrop::new(second);
        drop(first);
        assert_eq!(ENDED.load(Ordering::SeqCst), 7);
        assert!(live(handle).is_err());
    }
}
