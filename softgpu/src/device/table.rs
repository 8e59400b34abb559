//! Handles: the numbers that C sees for contexts, streams, events and the rest, and the objects behind them.
//!
//! A handle is never dereferenced. It holds its kind, its slot and the slot's generation, so that a handle of
//! another kind, of a destroyed object or out of thin air is told from a live one, whatever the application passes.

use pxos_protocol::types::{CUresult, Handle};
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

/// Layout of a handle: bits 44–47 a tag, 40–43 the kind, 24–39 the generation, 0–23 the slot. The tag differs from
/// that of the shim's guest handles, so that a program that mixes the two libraries up is refused.
const TAG: u64 = 0b0110;
const SLOTS: usize = 1 << 24;

/// The live objects of one kind.
#[derive(Debug)]
pub(crate) struct Table<H, T> {
    slots: RwLock<Slots<T>>,
    kind: PhantomData<fn() -> H>,
}

#[derive(Debug)]
struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u16,
    object: Option<Arc<T>>,
}

impl<H: Handle, T> Table<H, T> {
    /// No objects.
    pub(crate) const fn new() -> Self {
        Self { slots: RwLock::new(Slots { entries: Vec::new(), free: Vec::new() }), kind: PhantomData }
    }

    /// Adds an object that knows its own handle.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when all slots are taken.
    pub(crate) fn insert_with(&self, make: impl FnOnce(H) -> T) -> Result<(H, Arc<T>), CUresult> {
        self.insert_shared_with(|handle| Arc::new(make(handle)))
    }

    /// Adds an object that knows its own handle and refers to itself.
    ///
    /// # Errors
    /// As for [`Table::insert_with`].
    pub(crate) fn insert_shared_with(&self, make: impl FnOnce(H) -> Arc<T>) -> Result<(H, Arc<T>), CUresult> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let index = match slots.free.pop() {
            Some(index) => index,
            None if slots.entries.len() < SLOTS => {
                slots.entries.push(Slot { generation: 0, object: None });
                slots.entries.len() - 1
            }
            None => return Err(CUresult::ERROR_OUT_OF_MEMORY),
        };
        let entry = &mut slots.entries[index];
        let handle = H::from_raw(
            TAG << 44 | u64::from(H::KIND as u8) << 40 | u64::from(entry.generation) << 24 | index as u64,
        );
        let object = make(handle);
        entry.object = Some(Arc::clone(&object));
        Ok((handle, object))
    }

    /// The live object behind a handle.
    pub(crate) fn find(&self, handle: H) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entries.get(index)?;
        if entry.generation == generation { entry.object.clone() } else { None }
    }

    /// The live object behind a handle, or `CUDA_ERROR_INVALID_HANDLE`.
    pub(crate) fn get(&self, handle: H) -> Result<Arc<T>, CUresult> {
        self.find(handle).ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Ends a handle's life and gives back its object, or `None` where it was not alive.
    pub(crate) fn remove(&self, handle: H) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entries.get_mut(index)?;
        if entry.generation != generation {
            return None;
        }
        let object = entry.object.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        slots.free.push(index);
        Some(object)
    }

    /// Every live object, for the few operations that concern all of them.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.entries.iter().filter_map(|entry| entry.object.clone()).collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
    fn parts(handle: H) -> Option<(usize, u16)> {
        let raw = handle.raw();
        let ours = raw >> 44 == TAG && (raw >> 40) as u8 & 0xf == H::KIND as u8;
        ours.then_some(((raw & (SLOTS as u64 - 1)) as usize, (raw >> 24) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::types::{CUevent, CUstream};

    #[test]
    fn a_dead_handle_is_told_from_the_one_that_took_its_slot() {
        let table: Table<CUstream, u32> = Table::new();
        let (first, _) = table.insert_with(|_| 1).unwrap();
        assert_eq!(*table.get(first).unwrap(), 1);
        assert_eq!(*table.remove(first).unwrap(), 1);
        assert!(table.remove(first).is_none());
        let (second, _) = table.insert_with(|_| 2).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get(first).unwrap_err(), CUresult::ERROR_INVALID_HANDLE);
        assert_eq!(*table.get(second).unwrap(), 2);
    }

    #[test]
    fn kinds_do_not_mix() {
        let streams: Table<CUstream, u32> = Table::new();
        let events: Table<CUevent, u32> = Table::new();
        let (stream, _) = streams.insert_with(|_| 1).unwrap();
        events.insert_with(|_| 1).unwrap();
        assert!(events.find(CUevent(stream.0)).is_none());
        for raw in [0, 1, 2, u64::MAX, 0x7fff_0000_1000] {
            assert!(streams.find(CUstream(raw)).is_none(), "{raw:#x}");
        }
    }
}
