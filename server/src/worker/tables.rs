//! The worker's side of handles: a guest's handle is an allegation until this table knows it (design D6).
//!
//! The guest mints `(slot, generation)`, so a lookup is an index and a comparison, without hashing.

use pxos_protocol::types::{CUresult, GuestHandle, HandleKind};

/// How far beyond the end a new slot may lie: threads of a guest that mint at the same time arrive out of order.
const SLACK: usize = 1 << 16;

/// Objects of one kind by the guest's handle.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: HandleKind,
    entries: Vec<Option<(u16, T)>>,
}

impl<T> Table<T> {
    /// An empty table.
    pub(crate) fn new(kind: HandleKind) -> Self {
        Self { kind, entries: Vec::new() }
    }

    fn slot(&self, raw: u64) -> Result<GuestHandle, CUresult> {
        let handle = GuestHandle::decode(raw).filter(|handle| handle.kind == self.kind as u8);
        handle.ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Files an object under the handle that the guest minted; what was there before comes back.
    pub(crate) fn insert(&mut self, raw: u64, object: T) -> Result<Option<T>, CUresult> {
        let handle = self.slot(raw)?;
        let slot = handle.slot as usize;
        if slot >= self.entries.len() {
            if slot >= self.entries.len() + SLACK {
                return Err(CUresult::ERROR_INVALID_HANDLE);
            }
            self.entries.resize_with(slot + 1, || None);
        }
        Ok(self.entries[slot].replace((handle.generation, object)).map(|(_, object)| object))
    }

    /// The object behind a handle.
    pub(crate) fn get(&self, raw: u64) -> Result<&T, CUresult> {
        let handle = self.slot(raw)?;
        match self.entries.get(handle.slot as usize) {
            Some(Some((generation, object))) if *generation == handle.generation => Ok(object),
            _ => Err(CUresult::ERROR_INVALID_HANDLE),
        }
    }

    /// The object behind a handle, to be changed.
    pub(crate) fn get_mut(&mut self, raw: u64) -> Result<&mut T, CUresult> {
        let handle = self.slot(raw)?;
        match self.entries.get_mut(handle.slot as usize) {
            Some(Some((generation, object))) if *generation == handle.generation => Ok(object),
            _ => Err(CUresult::ERROR_INVALID_HANDLE),
        }
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, raw: u64) -> Result<T, CUresult> {
        self.get(raw)?;
        let handle = self.slot(raw)?;
        self.entries[handle.slot as usize]
            .take()
            .map(|(_, object)| object)
            .ok_or(CUresult::ERROR_INVALID_HANDLE)
    }

    /// Some object for which `wanted` says so.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        self.entries.iter().flatten().map(|(_, object)| object).find(|object| wanted(object))
    }

    /// Visits every object.
    pub(crate) fn for_each_mut(&mut self, mut visit: impl FnMut(&mut T)) {
        self.entries.iter_mut().flatten().for_each(|(_, object)| visit(object));
    }

    /// The guest's handle of some object for which `wanted` says so.
    pub(crate) fn find_raw(&self, wanted: impl Fn(&T) -> bool) -> Option<u64> {
        (0..).zip(&self.entries).find_map(|(slot, entry)| {
            let (generation, object) = entry.as_ref()?;
            let handle = GuestHandle { kind: self.kind as u8, generation: *generation, slot };
            wanted(object).then(|| handle.encode())
        })
    }

    /// Forgets every object for which `dead` says so.
    pub(crate) fn forget(&mut self, dead: impl Fn(&T) -> bool) {
        for entry in &mut self.entries {
            entry.take_if(|(_, object)| dead(object));
        }
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
}
