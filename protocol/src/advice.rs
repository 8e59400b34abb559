//! What an application has advised about managed memory, and where it has last asked for it: kept page by page, told
//! by `cuMemRangeGetAttribute` (CUDA driver API, section "Unified addressing").
//!
//! Shim and software device answer these calls out of this; neither moves a page on account of it.

use crate::types::{CUresult, mem_advise, range_attribute};
use std::collections::BTreeMap;

/// `CU_DEVICE_CPU`: the host as a place for pages.
pub const HOST: i32 = -1;
/// `CU_DEVICE_INVALID`: no place.
pub const NOWHERE: i32 = -2;

/// Pages are what the driver keeps advice about.
const PAGE: u64 = 4096;

/// What holds for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hint {
    read_mostly: bool,
    preferred: i32,
    prefetched: i32,
    /// In the order of the advice.
    accessed_by: Vec<i32>,
}

impl Default for Hint {
    fn default() -> Self {
        Self { read_mostly: false, preferred: NOWHERE, prefetched: NOWHERE, accessed_by: Vec::new() }
    }
}

/// The advice about all managed memory of a process.
#[derive(Debug, Default)]
pub struct Advice {
    /// Runs of pages about which something was said: the first address to the end and the hint.
    runs: BTreeMap<u64, (u64, Hint)>,
}

impl Advice {
    /// An advice about a range: one of `CU_MEM_ADVISE_*`, for a device or [`HOST`].
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an advice that there is not.
    pub fn advise(&mut self, base: u64, bytes: u64, advice: u32, place: i32) -> Result<(), CUresult> {
        let change: &dyn Fn(&mut Hint) = match advice {
            mem_advise::SET_READ_MOSTLY => &|hint| hint.read_mostly = true,
            mem_advise::UNSET_READ_MOSTLY => &|hint| hint.read_mostly = false,
            mem_advise::SET_PREFERRED_LOCATION => &|hint| hint.preferred = place,
            mem_advise::UNSET_PREFERRED_LOCATION => &|hint| hint.preferred = NOWHERE,
            mem_advise::SET_ACCESSED_BY => &|hint| {
                if !hint.accessed_by.contains(&place) {
                    hint.accessed_by.push(place);
                }
            },
            mem_advise::UNSET_ACCESSED_BY => &|hint| hint.accessed_by.retain(|held| *held != place),
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        self.update(base, bytes, change);
        Ok(())
    }

    /// A range was asked for at a place.
    pub fn prefetch(&mut self, base: u64, bytes: u64, place: i32) {
        self.update(base, bytes, &|hint| hint.prefetched = place);
    }

    /// A range is gone.
    pub fn forget(&mut self, base: u64, bytes: u64) {
        self.update(base, bytes, &|hint| *hint = Hint::default());
    }

    /// Writes one of `CU_MEM_RANGE_ATTRIBUTE_*` of a range; what is true of some of its pages only is not told.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an attribute that there is not, and for room that does not fit it.
    pub fn tell(&self, base: u64, bytes: u64, attribute: u32, room: &mut [i32]) -> Result<(), CUresult> {
        let pages = self.over(base, bytes);
        let same = |of: fn(&Hint) -> i32| {
            let mut places = pages.iter().map(of);
            let first = places.next().unwrap_or(NOWHERE);
            if places.all(|place| place == first) { first } else { NOWHERE }
        };
        // CUmemLocationType: invalid, a device, the host.
        let kind = |place: i32| match place {
            NOWHERE => 0,
            HOST => 2,
            _ => 1,
        };
        let id = |place: i32| place.max(0);
        let preferred = || same(|hint| hint.preferred);
        let prefetched = || same(|hint| hint.prefetched);
        let value = match attribute {
            range_attribute::READ_MOSTLY => i32::from(pages.iter().all(|hint| hint.read_mostly)),
            range_attribute::PREFERRED_LOCATION => preferred(),
            range_attribute::LAST_PREFETCH_LOCATION => prefetched(),
            range_attribute::PREFERRED_LOCATION_TYPE => kind(preferred()),
            range_attribute::PREFERRED_LOCATION_ID => id(preferred()),
            range_attribute::LAST_PREFETCH_LOCATION_TYPE => kind(prefetched()),
            range_attribute::LAST_PREFETCH_LOCATION_ID => id(prefetched()),
            range_attribute::ACCESSED_BY if !room.is_empty() => {
                room.fill(NOWHERE);
                let by_all = |place: &&i32| pages.iter().all(|hint| hint.accessed_by.contains(place));
                let first = pages.first().map_or(&[][..], |hint| &hint.accessed_by);
                for (slot, place) in room.iter_mut().zip(first.iter().filter(by_all)) {
                    *slot = *place;
                }
                return Ok(());
            }
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        match room {
            [only] => {
                *only = value;
                Ok(())
            }
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// The hints of a range's pages, each kind at least once.
    fn over(&self, base: u64, bytes: u64) -> Vec<Hint> {
        let (start, end) = pages(base, bytes);
        let mut found = Vec::new();
        let mut covered = start;
        let before = self.runs.range(..start).next_back().into_iter();
        for (at, (until, hint)) in before.chain(self.runs.range(start..end)) {
            if *until <= start {
                continue;
            }
            if *at > covered {
                found.push(Hint::default());
            }
            covered = *until;
            found.push(hint.clone());
        }
        if covered < end {
            found.push(Hint::default());
        }
        found
    }

    fn update(&mut self, base: u64, bytes: u64, change: &dyn Fn(&mut Hint)) {
        let (start, end) = pages(base, bytes);
        self.split(start);
        self.split(end);
        let inside: Vec<(u64, u64)> =
            self.runs.range(start..end).map(|(at, (until, _))| (*at, *until)).collect();
        let mut at = start;
        let mut parts = Vec::new();
        for (from, until) in inside {
            if from > at {
                parts.push((at, from));
            }
            parts.push((from, until));
            at = until;
        }
        if at < end {
            parts.push((at, end));
        }
        for (from, until) in parts {
            let mut hint = self.runs.remove(&from).map_or_else(Hint::default, |(_, hint)| hint);
            change(&mut hint);
            if hint != Hint::default() {
                self.runs.insert(from, (until, hint));
            }
        }
    }

    /// Makes a run that goes on over an address end there.
    fn split(&mut self, at: u64) {
        let Some((_, (until, hint))) = self.runs.range_mut(..at).next_back() else { return };
        if *until > at {
            let rest = (*until, hint.clone());
            *until = at;
            self.runs.insert(at, rest);
        }
    }
}

/// The pages that a range touches.
fn pages(base: u64, bytes: u64) -> (u64, u64) {
    let end = base.saturating_add(bytes);
    (base / PAGE * PAGE, end.checked_next_multiple_of(PAGE).unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(advice: &Advice, base: u64, bytes: u64, attribute: u32) -> i32 {
        let mut room = [77];
        advice.tell(base, bytes, attribute, &mut room).unwrap();
        room[0]
    }

    #[test]
    fn what_is_true_of_every_page_is_told() {
        let mut advice = Advice::default();
        advice.advise(0x1_0000, 0x4000, mem_advise::SET_READ_MOSTLY, 0).unwrap();
        advice.advise(0x1_0000, 0x2000, mem_advise::SET_PREFERRED_LOCATION, 0).unwrap();
        assert_eq!(one(&advice, 0x1_0000, 0x4000, range_attribute::READ_MOSTLY), 1);
        assert_eq!(one(&advice, 0x1_0000, 0x5000, range_attribute::READ_MOSTLY), 0);
        assert_eq!(one(&advice, 0x1_0000, 0x2000, range_attribute::PREFERRED_LOCATION), 0);
        assert_eq!(one(&advice, 0x1_0000, 0x4000, range_attribute::PREFERRED_LOCATION), NOWHERE);
        assert_eq!(one(&advice, 0x1_1000, 0x1000, range_attribute::PREFERRED_LOCATION_TYPE), 1);
        advice.advise(0x1_1000, 0x1000, mem_advise::UNSET_READ_MOSTLY, 0).unwrap();
        assert_eq!(one(&advice, 0x1_0000, 0x4000, range_attribute::READ_MOSTLY), 0);
        assert_eq!(one(&advice, 0x1_2000, 0x2000, range_attribute::READ_MOSTLY), 1);
        advice.prefetch(0x1_0000, 0x4000, HOST);
        assert_eq!(one(&advice, 0x1_0000, 0x4000, range_attribute::LAST_PREFETCH_LOCATION), HOST);
        advice.forget(0x1_0000, 0x4000);
        assert!(advice.runs.is_empty(), "{advice:?}");
    }

    #[test]
    fn the_accessors_of_every_page_are_listed() {
        let mut advice = Advice::default();
        advice.advise(0, 0x2000, mem_advise::SET_ACCESSED_BY, 0).unwrap();
        advice.advise(0, 0x1000, mem_advise::SET_ACCESSED_BY, HOST).unwrap();
        let mut room = [77; 3];
        advice.tell(0, 0x1000, range_attribute::ACCESSED_BY, &mut room).unwrap();
        assert_eq!(room, [0, HOST, NOWHERE]);
        advice.tell(0, 0x2000, range_attribute::ACCESSED_BY, &mut room).unwrap();
        assert_eq!(room, [0, NOWHERE, NOWHERE]);
        assert!(advice.tell(0, 0x2000, range_attribute::READ_MOSTLY, &mut room).is_err());
        assert!(advice.tell(0, 0x2000, 99, &mut room).is_err());
        assert!(advice.advise(0, 1, 99, 0).is_err());
    }
}
