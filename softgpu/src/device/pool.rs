//! Memory pools for stream-ordered allocation.
//!
//! A pool takes device memory in portions and keeps what is freed until it holds more than its release threshold at
//! a synchronisation; an allocation is addressable at once, because the work that may use it comes later in the
//! stream, and its memory is given out again only after the stream has reached the free. Accounting follows an H200
//! (measured): "used" counts the bytes asked for, "reserved" whole portions of 32 MiB.

use super::allocation::{self, Allocation, Origin};
use super::context::Active;
use super::table::Table;
use super::{Device, platform};
use pxos_protocol::types::{CUdevice, CUmemoryPool, CUresult};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What reserved memory is counted in (measured).
const PORTION: u64 = 32 << 20;

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Its handle.
    pub(crate) handle: CUmemoryPool,
    /// The device whose memory it gives out.
    pub(crate) device: CUdevice,
    /// The most it may hold; 0 for as much as there is.
    max: u64,
    account: Mutex<Account>,
    /// Whether other processes may have it, or another one has it.
    pub(crate) sharing: Sharing,
}

/// Whose a pool is.
#[derive(Debug)]
pub(crate) enum Sharing {
    /// This process's alone.
    Private,
    /// This process's, which may show it to others.
    Shareable,
    /// Another process's, whose memory is in this file: nothing is allocated from it here (CUDA driver API,
    /// `cuMemPoolImportFromShareableHandle`).
    Imported(OwnedFd),
}

/// A pool's attributes, and what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// The three `CU_MEMPOOL_ATTR_REUSE_…` wishes, which need no obeying.
    pub(crate) reuse: [u32; 3],
    /// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`.
    pub(crate) threshold: u64,
    /// Bytes in use, and the most there were.
    pub(crate) used: u64,
    /// See `used`.
    pub(crate) used_high: u64,
    /// Bytes reserved, and the most there were.
    pub(crate) reserved: u64,
    /// See `reserved`.
    pub(crate) reserved_high: u64,
}

/// Every pool of the process.
pub(crate) static POOLS: Table<CUmemoryPool, Pool> = Table::new();

impl Pool {
    /// Makes a pool on a device.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` when there are no more handles.
    pub(crate) fn create(device: CUdevice, max: u64, sharing: Sharing) -> Result<CUmemoryPool, CUresult> {
        let account =
            Account { reuse: [1; 3], threshold: 0, used: 0, used_high: 0, reserved: 0, reserved_high: 0 };
        let (handle, _) = POOLS.insert_with(|handle| Self {
            handle,
            device,
            max,
            account: Mutex::new(account),
            sharing,
        })?;
        Ok(handle)
    }

    /// Its attributes and counts.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_device(&self) -> Result<&'static Arc<Device>, CUresult> {
        platform()?.device(self.device)
    }

    /// Allocates; no bytes are none (measured).
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY`.
    pub(crate) fn allocate(&self, active: &Active, bytes: u64) -> Result<u64, CUresult> {
        if matches!(self.sharing, Sharing::Imported(_)) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        if bytes == 0 {
            return Ok(0);
        }
        let device = self.of_device()?;
        let fits = |pool: &Self| pool.max == 0 || pool.account().used.saturating_add(bytes) <= pool.max;
        let attempt = || fits(self).then(|| device.memory.alloc(bytes)).flatten();
        let retry = || {
            // What streams are about to free can be given out again, in their order.
            active.wait();
            attempt()
        };
        let base = attempt().or_else(retry).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
        let mut account = self.account();
        account.used += bytes;
        account.used_high = account.used_high.max(account.used);
        account.reserved = account.reserved.max(account.used.next_multiple_of(PORTION));
        account.reserved_high = account.reserved_high.max(account.reserved);
        drop(account);
        allocation::insert(base, bytes, Origin::Pool(self.handle), self.device, active.handle, active.life);
        Ok(base)
    }

    /// Gives back reserved memory down to a size, as far as it is not in use.
    pub(crate) fn trim(&self, keep: u64) {
        let mut account = self.account();
        let needed = account.used.max(keep).checked_next_multiple_of(PORTION).unwrap_or(u64::MAX);
        account.reserved = account.reserved.min(needed);
    }

    /// What a synchronisation does: gives back what is above the release threshold.
    pub(crate) fn settle(&self) {
        let threshold = self.account().threshold;
        self.trim(threshold);
    }
}

/// Frees memory of a pool; its handle may be dead by now.
pub(crate) fn reclaim(pool: CUmemoryPool, held: &Allocation) {
    if let Ok(device) = platform().and_then(|platform| platform.device(held.device)) {
        device.memory.free(held.base);
    }
    if let Some(pool) = POOLS.find(pool) {
        let mut account = pool.account();
        account.used = account.used.saturating_sub(held.bytes);
        drop(account);
        pool.settle();
    }
}
