//! Tables of live handles. The guest mints handles itself (design D6), so that creating an object needs no answer and a
//! dead handle is refused by the very call, as natively.

use pxos_protocol::types::{CUresult, GuestHandle, HandleKind};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

/// The live objects of one kind.
#[derive(Debug)]
pub(crate) struct HandleTable<T> {
    kind: HandleKind,
    slots: RwLock<Slots<T>>,
}

#[derive(Debug)]
struct Slots<T> {
    entries: Vec<Entry<T>>,
    /// Slots that can be used again, the longest unused first, so that a stale handle is recognised for as long as
    /// possible.
    free: VecDeque<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u16,
    value: Option<Arc<T>>,
}

impl<T> HandleTable<T> {
    /// An empty table.
    pub(crate) fn new(kind: HandleKind) -> Self {
        Self { kind, slots: RwLock::new(Slots { entries: Vec::new(), free: VecDeque::new() }) }
    }

    /// A new handle for the object that `make` builds, given the handle.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where 2^24 objects of this kind are alive.
    pub(crate) fn mint(&self, make: impl FnOnce(u64) -> T) -> Result<Arc<T>, CUresult> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots.free.pop_front() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(slots.entries.len()).ok().filter(|slot| *slot < GuestHandle::SLOTS);
                slots.entries.push(Entry { generation: 0, value: None });
                slot.ok_or(CUresult::ERROR_OUT_OF_MEMORY)?
            }
        };
        let entry = &mut slots.entries[slot as usize];
        let handle = GuestHandle { kind: self.kind as u8, generation: entry.generation, slot };
        let value = Arc::new(make(handle.encode()));
        entry.value = Some(Arc::clone(&value));
        Ok(value)
    }

    /// The live object behind a handle.
    pub(crate) fn get(&self, raw: u64) -> Option<Arc<T>> {
        let handle = GuestHandle::decode(raw).filter(|handle| handle.kind == self.kind as u8)?;
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entries.get(handle.slot as usize)?;
        entry.value.as_ref().filter(|_| entry.generation == handle.generation).cloned()
    }

    /// Takes an object out of the table; its handle is dead from now on.
    pub(crate) fn remove(&self, raw: u64) -> Option<Arc<T>> {
        let handle = GuestHandle::decode(raw).filter(|handle| handle.kind == self.kind as u8)?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entries.get_mut(handle.slot as usize)?;
        if entry.generation != handle.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        slots.free.push_back(handle.slot);
        Some(value)
    }

    /// Puts another object under a live handle.
    pub(crate) fn replace(&self, raw: u64, value: T) {
        let Some(handle) = GuestHandle::decode(raw) else { return };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = slots.entries.get_mut(handle.slot as usize)
            && entry.generation == handle.generation
        {
            entry.value = Some(Arc::new(value));
        }
    }

    /// Visits every live object.
    pub(crate) fn for_each(&self, visit: impl Fn(&T)) {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.entries.iter().filter_map(|entry| entry.value.as_deref()).for_each(visit);
    }

    /// Takes out every object for which `dead` says so.
    pub(crate) fn remove_all(&self, dead: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slots = &mut *slots;
        let mut removed = Vec::new();
        for (slot, entry) in (0..).zip(&mut slots.entries) {
            if let Some(value) = entry.value.take_if(|value| dead(value)) {
                entry.generation = entry.generation.wrapping_add(1);
                slots.free.push_back(slot);
                removed.push(value);
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_handle_stays_dead_when_its_slot_lives_again() {
        let table = HandleTable::new(HandleKind::Stream);
        let first = table.mint(|raw| raw).unwrap();
        assert_eq!(table.get(*first).as_deref(), Some(&*first));
        assert!(table.remove(*first).is_some());
        let second = table.mint(|raw| raw).unwrap();
        assert_ne!(first, second);
        assert!(table.get(*first).is_none());
        assert!(table.remove(*first).is_none());
        assert!(table.get(*second).is_some());
    }

    #[test]
    fn handles_of_another_kind_are_refused() {
        let streams = HandleTable::new(HandleKind::Stream);
        let events = HandleTable::new(HandleKind::Event);
        let stream = streams.mint(|raw| raw).unwrap();
        let _event = events.mint(|raw| raw).unwrap();
        assert!(events.get(*stream).is_none());
        assert!(streams.get(0).is_none() && streams.get(1).is_none() && streams.get(u64::MAX).is_none());
    }

    #[test]
    fn everything_of_a_context_goes_at_once() {
        let table = HandleTable::new(HandleKind::Event);
        for _ in 0..10 {
            table.mint(|raw| raw).unwrap();
        }
        assert_eq!(table.remove_all(|raw| raw % 2 == 0).len(), 5);
        assert_eq!(table.remove_all(|_| true).len(), 5);
    }
}
