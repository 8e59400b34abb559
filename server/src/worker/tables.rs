//! The worker's side of handles: a guest's handle is an allegation until this table knows it (design D6).
//!
//! The guest mints `(slot, generation)`, so a lookup is an index and a comparison, without hashing. A handle names one object
//! from its making to its end: were a second filed under it, what is kept about the first would be believed of the second.

use pxos_protocol::types::{CUresult, GuestHandle, HandleKind};
use std::collections::HashMap;

/// How far beyond the end a new slot may lie: threads of a guest that mint at the same time arrive out of order.
const SLACK: usize = 1 << 16;

/// Objects of one kind by the guest's handle.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: HandleKind,
    entries: Vec<Option<(u16, T)>>,
    /// Objects whose slot has another generation by now: two threads of a guest may make one and end one at the same time, and
    /// the making arrive first.
    displaced: HashMap<u64, T>,
}

impl<T> Table<T> {
    /// An empty table.
    pub(crate) fn new(kind: HandleKind) -> Self {
        Self { kind, entries: Vec::new(), displaced: HashMap::new() }
    }

    fn slot(&self, raw: u64) -> Result<GuestHandle, CUresult> {
        let handle = GuestHandle::decode(raw).filter(|handle| handle.kind == self.kind as u8);
        handle.ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Whether an object may be filed under a handle: one of this kind, within reach, that names nothing yet. Asked before the
    /// driver makes the object, so that none is made that nobody can name and nobody counts.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where it may not.
    pub(crate) fn check(&self, raw: u64) -> Result<(), CUresult> {
        let handle = self.slot(raw)?;
        let within_reach = (handle.slot as usize) < self.entries.len() + SLACK;
        if within_reach && self.get(raw).is_err() { Ok(()) } else { Err(CUresult::ERROR_INVALID_HANDLE) }
    }

    /// Files an object under the handle that the guest minted.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn insert(&mut self, raw: u64, object: T) -> Result<(), CUresult> {
        self.check(raw)?;
        let handle = self.slot(raw)?;
        let slot = handle.slot as usize;
        if slot >= self.entries.len() {
            self.entries.resize_with(slot + 1, || None);
        }
        if let Some((generation, before)) = self.entries[slot].replace((handle.generation, object)) {
            self.displaced.insert(GuestHandle { generation, ..handle }.encode(), before);
        }
        Ok(())
    }

    /// The object behind a handle.
    pub(crate) fn get(&self, raw: u64) -> Result<&T, CUresult> {
        let handle = self.slot(raw)?;
        match self.entries.get(handle.slot as usize) {
            Some(Some((generation, object))) if *generation == handle.generation => Ok(object),
            _ => self.displaced.get(&raw).ok_or(CUresult::ERROR_INVALID_HANDLE),
        }
    }

    /// The object behind a handle, to be changed.
    pub(crate) fn get_mut(&mut self, raw: u64) -> Result<&mut T, CUresult> {
        let handle = self.slot(raw)?;
        match self.entries.get_mut(handle.slot as usize) {
            Some(Some((generation, object))) if *generation == handle.generation => Ok(object),
            _ => self.displaced.get_mut(&raw).ok_or(CUresult::ERROR_INVALID_HANDLE),
        }
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, raw: u64) -> Result<T, CUresult> {
        let handle = self.slot(raw)?;
        let entry = self.entries.get_mut(handle.slot as usize);
        let taken = entry.and_then(|entry| entry.take_if(|(generation, _)| *generation == handle.generation));
        let taken = taken.map(|(_, object)| object).or_else(|| self.displaced.remove(&raw));
        taken.ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Some object for which `wanted` says so.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let entries = self.entries.iter().flatten().map(|(_, object)| object);
        entries.chain(self.displaced.values()).find(|object| wanted(object))
    }

    /// Visits every object.
    pub(crate) fn for_each_mut(&mut self, mut visit: impl FnMut(&mut T)) {
        self.entries.iter_mut().flatten().for_each(|(_, object)| visit(object));
        self.displaced.values_mut().for_each(visit);
    }

    /// The guest's handle of some object for which `wanted` says so.
    pub(crate) fn find_raw(&self, wanted: impl Fn(&T) -> bool) -> Option<u64> {
        let found = (0..).zip(&self.entries).find_map(|(slot, entry)| {
            let (generation, object) = entry.as_ref()?;
            let handle = GuestHandle { kind: self.kind as u8, generation: *generation, slot };
            wanted(object).then(|| handle.encode())
        });
        found.or_else(|| self.displaced.iter().find(|(_, object)| wanted(object)).map(|(raw, _)| *raw))
    }

    /// Forgets every object for which `dead` says so.
    pub(crate) fn forget(&mut self, dead: impl Fn(&T) -> bool) {
        for entry in &mut self.entries {
            entry.take_if(|(_, object)| dead(object));
        }
        self.displaced.retain(|_, object| !dead(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(slot: u32, generation: u16) -> u64 {
        GuestHandle { kind: HandleKind::Event as u8, generation, slot }.encode()
    }

    #[test]
    fn garbage_is_no_handle() {
        let mut table = Table::new(HandleKind::Event);
        table.insert(raw(0, 0), 'a').unwrap();
        for garbage in [0, 1, 2, u64::MAX, raw(0, 1), raw(1, 0), 0x7fff_0000_0000] {
            assert_eq!(table.get(garbage), Err(CUresult::ERROR_INVALID_HANDLE), "{garbage:#x}");
            assert!(table.remove(garbage).is_err());
        }
        let stream = GuestHandle { kind: HandleKind::Stream as u8, generation: 0, slot: 0 }.encode();
        assert!(table.get(stream).is_err());
        assert_eq!(table.get(raw(0, 0)), Ok(&'a'));
    }

    #[test]
    fn a_slot_far_away_costs_no_memory() {
        let mut table = Table::new(HandleKind::Event);
        assert!(table.insert(raw(GuestHandle::SLOTS - 1, 0), 'a').is_err());
        assert!(table.insert(raw(10, 0), 'a').is_ok());
    }

    #[test]
    fn generations_tell_the_dead_from_the_living() {
        let mut table = Table::new(HandleKind::Event);
        table.insert(raw(3, 0), 'a').unwrap();
        assert_eq!(table.remove(raw(3, 0)), Ok('a'));
        table.insert(raw(3, 1), 'b').unwrap();
        assert!(table.get(raw(3, 0)).is_err());
        table.forget(|object| *object == 'b');
        assert!(table.get(raw(3, 1)).is_err());
    }

    #[test]
    fn a_handle_names_one_object() {
        let mut table = Table::new(HandleKind::Event);
        table.insert(raw(3, 0), 'a').unwrap();
        assert_eq!(table.check(raw(3, 0)), Err(CUresult::ERROR_INVALID_HANDLE));
        assert_eq!(table.insert(raw(3, 0), 'b'), Err(CUresult::ERROR_INVALID_HANDLE));
        assert_eq!(table.get(raw(3, 0)), Ok(&'a'));
        // The slot's next generation was made before the last one was ended: both are there.
        table.insert(raw(3, 1), 'b').unwrap();
        assert_eq!((table.get(raw(3, 0)), table.get(raw(3, 1))), (Ok(&'a'), Ok(&'b')));
        assert!(table.insert(raw(3, 0), 'c').is_err());
        assert_eq!(table.find_raw(|object| *object == 'a'), Some(raw(3, 0)));
        assert_eq!(table.remove(raw(3, 0)), Ok('a'));
        assert_eq!(
            (table.remove(raw(3, 0)), table.get(raw(3, 1))),
            (Err(CUresult::ERROR_INVALID_HANDLE), Ok(&'b'))
        );
        table.insert(raw(3, 0), 'c').unwrap();
        table.forget(|object| *object == 'b');
        assert_eq!(
            (table.get(raw(3, 0)), table.get(raw(3, 1))),
            (Ok(&'c'), Err(CUresult::ERROR_INVALID_HANDLE))
        );
    }
}
