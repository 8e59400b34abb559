//! What a session holds of its VM's quota ([`crate::quota`]), and how much memory an allocation really takes.

use crate::driver::{Driver, Result};
use crate::quota::{Account, Kind, OverQuota};
use crate::stats::Stats;
use pxos_protocol::types::CUresult;

/// What the driver rounds allocations up to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounding {
    /// Small allocations share a block, each at a multiple of this.
    small: u64,
    /// Large ones have blocks of this size to themselves.
    block: u64,
}

/// Where measuring fails: what an H200's driver does (measured).
const UNKNOWN: Rounding = Rounding { small: 512, block: 2 << 20 };

/// Pools grow by portions of this size (measured on an H200, and what softgpu does).
const PORTION: u64 = 32 << 20;

impl Rounding {
    /// Asks the driver in the way that there is: by allocating. Others may allocate at the same time, so two equal answers
    /// are wanted.
    pub(crate) fn measure(driver: &Driver) -> Self {
        let mut last = None;
        for _ in 0..6 {
            let Ok(one) = Self::measure_once(driver) else { return UNKNOWN };
            if last == Some(one) {
                return one;
            }
            last = Some(one);
        }
        UNKNOWN
    }

    fn measure_once(driver: &Driver) -> Result<Self> {
        let free = || {
            let (mut free, mut total) = (0, 0);
            // SAFETY: pointers to locals.
            unsafe { driver.cuMemGetInfo_v2(&raw mut free, &raw mut total)? };
            Ok::<u64, CUresult>(free as u64)
        };
        let allocate = |bytes: u64| {
            let mut address = 0;
            let bytes = usize::try_from(bytes).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
            // SAFETY: a pointer to a local.
            unsafe { driver.cuMemAlloc_v2(&raw mut address, bytes)? };
            Ok::<u64, CUresult>(address)
        };
        // The first makes the driver take what it keeps for small ones.
        let mut addresses = vec![allocate(1)?];
        let measured = (|| {
            let before = free()?;
            addresses.push(allocate(1)?);
            let after_small = free()?;
            addresses.push(allocate(1)?);
            let before_large = free()?;
            let large = (4 << 20) + 1;
            addresses.push(allocate(large)?);
            let taken = before_large.saturating_sub(free()?);
            let apart = addresses[2].abs_diff(addresses[1]);
            let small = match before.saturating_sub(after_small) {
                0 => apart,
                alone => alone.min(apart),
            };
            Ok::<Self, CUresult>(Self { small, block: taken.saturating_sub(large - 1) })
        })();
        for address in addresses {
            // SAFETY: just allocated, used by nobody.
            let _ = unsafe { driver.cuMemFree_v2(address) };
        }
        measured.and_then(Self::plausible)
    }

    fn plausible(self) -> Result<Self> {
        let good = |bytes: u64, least: u64| bytes.is_power_of_two() && (least..=32 << 20).contains(&bytes);
        if good(self.small, 1) && good(self.block, self.small) {
            Ok(self)
        } else {
            Err(CUresult::ERROR_UNKNOWN)
        }
    }

    /// What an allocation of `bytes` takes; `None` where that is no number.
    pub(crate) fn of(self, bytes: u64) -> Option<u64> {
        let unit = if bytes > self.block / 2 { self.block } else { self.small };
        bytes.checked_next_multiple_of(unit)
    }
}

/// A session's entries in its VM's quota.
#[derive(Debug)]
pub(crate) struct Ledger {
    account: Account,
    rounding: Rounding,
    stats: &'static Stats,
}

impl Ledger {
    /// The ledger of the session that has `account`.
    pub(crate) fn new(account: Account, rounding: Rounding, stats: &'static Stats) -> Self {
        let ledger = Self { account, rounding, stats };
        ledger.report();
        ledger
    }

    /// What an allocation of `bytes` takes.
    pub(crate) fn charge(&self, bytes: u64) -> Result<u64> {
        self.rounding.of(bytes).ok_or(CUresult::ERROR_OUT_OF_MEMORY)
    }

    /// Takes `bytes`, before the driver is asked; the caller looks for memory to give back where there is not that much.
    pub(crate) fn try_reserve(&self, kind: Kind, bytes: u64) -> std::result::Result<(), OverQuota> {
        let taken = self.account.reserve(kind, bytes);
        self.report();
        taken
    }

    /// Takes `bytes`, before the driver is asked.
    pub(crate) fn reserve(&self, kind: Kind, bytes: u64) -> Result {
        self.try_reserve(kind, bytes).map_err(|over| self.refuse(over))
    }

    /// What the guest is answered where there is not that much.
    pub(crate) fn refuse(&self, OverQuota: OverQuota) -> CUresult {
        self.account.refused();
        CUresult::ERROR_OUT_OF_MEMORY
    }

    /// Notes `bytes` that the driver has taken already.
    pub(crate) fn add(&self, kind: Kind, bytes: u64) {
        self.account.add(kind, bytes);
        self.report();
    }

    /// Gives `bytes` back.
    pub(crate) fn release(&self, kind: Kind, bytes: u64) {
        if bytes > 0 {
            self.account.release(kind, bytes);
            self.report();
        }
    }

    /// Whether the session, or its VM, holds more than it may.
    pub(crate) fn is_over(&self) -> bool {
        self.account.is_over()
    }

    /// Bytes that the session may hold, and those that it still may take; `None` for no limit.
    pub(crate) fn limits(&self) -> (Option<u64>, Option<u64>) {
        (self.account.limit(), self.account.free())
    }

    /// Takes a stream.
    pub(crate) fn open_stream(&self) -> Result {
        self.account.open_stream().map_err(|over| self.refuse(over))
    }

    /// Gives streams back.
    pub(crate) fn close_streams(&self, count: usize) {
        self.account.close_streams(count as u64);
    }

    /// The daemon's page says the same.
    fn report(&self) {
        let (used, peak) = self.account.used();
        self.stats.set_memory(used, peak);
    }
}

/// By how much a pool will grow that has `reserved` bytes, of which `used` are in use, when it gives out `bytes` more.
pub(crate) fn growth(used: u64, reserved: u64, bytes: u64) -> Result<u64> {
    let after = used.checked_add(bytes).and_then(|after| after.checked_next_multiple_of(PORTION));
    after.map(|after| after.saturating_sub(reserved)).ok_or(CUresult::ERROR_OUT_OF_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_take_what_the_driver_rounds_them_to() {
        assert_eq!(
            [1, 512, 513, 1 << 20].map(|bytes| UNKNOWN.of(bytes)),
            [512, 512, 1024, 1 << 20].map(Some)
        );
        assert_eq!(UNKNOWN.of((1 << 20) + 1), Some(2 << 20));
        assert_eq!(UNKNOWN.of((2 << 20) + 1), Some(4 << 20));
        assert_eq!(UNKNOWN.of(u64::MAX), None);
        let soft = Rounding { small: 256, block: 256 };
        assert_eq!([1, 257, 4 << 20].map(|bytes| soft.of(bytes)), [256, 512, 4 << 20].map(Some));
        assert!(Rounding { small: 512, block: 3 << 20 }.plausible().is_err());
        assert!(Rounding { small: 0, block: 0 }.plausible().is_err());
    }

    #[test]
    fn pools_grow_by_portions() {
        assert_eq!(growth(0, 0, 1), Ok(PORTION));
        assert_eq!(growth(PORTION / 2, PORTION, PORTION / 2), Ok(0));
        assert_eq!(growth(PORTION, PORTION, 1), Ok(PORTION));
        assert_eq!(growth(0, 2 * PORTION, 1), Ok(0));
        assert!(growth(1, 0, u64::MAX).is_err());
    }
}
