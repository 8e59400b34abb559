//! The thread that answers workers who want memory beyond what their VM is granted ([`crate::pledge`]).
//!
//! It sleeps until a worker rings. Who changes VMs settles at once, on a thread of its own ([`Pledging::changed`]), so that a
//! promise holds when it is said to. Everything is read under one lock, which is taken before the tables of sessions and
//! VMs and never while one of them, the pool or a worker's phase is held.

use super::{Daemon, system};
use crate::pledge::{Party, Pledges};
use crate::scheduler::page;
use crate::vm::registry::Vm;
use parking_lot::Mutex;
use pxos_protocol::control::Snapshot;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What VMs are granted, and the bell of the thread.
#[derive(Debug)]
pub(super) struct Pledging {
    bell: OwnedFd,
    pledges: Mutex<Pledges>,
}

/// A VM that has sessions or may have some.
struct Holder {
    vm: Arc<Vm>,
    minimum: u64,
    devices: Vec<usize>,
}

impl Pledging {
    /// Grants nobody anything yet.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: page::bell()?, pledges: Mutex::default() })
    }

    /// The bell, for workers.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// VMs, their devices or their promises are others now.
    pub(super) fn changed(&self, daemon: &Daemon) {
        self.settle(daemon, true);
    }

    fn settle(&self, daemon: &Daemon, changed: bool) {
        let mut pledges = self.pledges.lock();
        with_parties(daemon, |parties, capacity| pledges.settle(parties, capacity, changed));
    }

    /// Bytes that a VM may still take of these devices beside what others are promised, `vm` being `None` before it has its
    /// first session; `None` where nobody is promised any of them.
    pub(super) fn room(&self, daemon: &Daemon, vm: Option<&Vm>, devices: &[usize]) -> Option<u64> {
        let pledges = self.pledges.lock();
        let (number, minimum) = vm.map_or((0, 0), |vm| (vm.number, vm.limits().memory_min));
        let ceiling =
            with_parties(daemon, |parties, capacity| pledges.beside(number, devices, parties, capacity));
        let held = vm.map_or(0, |vm| vm.quota.total().used);
        ceiling.flatten().map(|ceiling| ceiling.max(minimum).saturating_sub(held))
    }
}

/// Bytes of each device that VMs are promised.
pub(super) fn promised(daemon: &Daemon) -> Vec<u64> {
    with_parties(daemon, |parties, capacity| {
        let of = |device| {
            let there = parties.iter().filter(|party| party.devices.contains(&device));
            there.map(|party| party.minimum).fold(0, u64::saturating_add)
        };
        (0..capacity.len()).map(of).collect()
    })
    .unwrap_or_default()
}

/// Runs the thread; never returns.
pub(super) fn run(daemon: &Daemon) {
    let pledging = &daemon.pledging;
    loop {
        if system::poll([pledging.bell.as_fd()], None).is_err() {
            continue;
        }
        let mut counter = 0_u64;
        // Silent before it looks: who rings from now on is looked at again.
        // SAFETY: eight bytes into a local, from a descriptor that does not block.
        unsafe { libc::read(pledging.bell.as_raw_fd(), (&raw mut counter).cast(), 8) };
        pledging.settle(daemon, false);
    }
}

/// Calls `of` with every VM that holds memory, may, or is promised some, and with what each device has for them; `None`
/// while the devices are not known.
fn with_parties<T>(daemon: &Daemon, of: impl FnOnce(&[Party<'_>], &[u64]) -> T) -> Option<T> {
    let snapshot = daemon.pool.snapshot()?;
    let mut capacity: Vec<u64> = snapshot.devices.iter().map(|device| device.total_memory).collect();
    let mut holders: BTreeMap<u64, Holder> = BTreeMap::new();
    for vm in daemon.vms.all() {
        let devices = vm.rights().gpus.resolve(&snapshot).unwrap_or_default();
        let minimum = vm.limits().memory_min;
        holders.insert(vm.number, Holder { vm, minimum, devices });
    }
    // What contexts hold is nobody's to take. It is known where there is NVML.
    let mut contexts: Vec<(usize, u64)> = warm(daemon, &snapshot);
    daemon.sessions.map(|_, session| {
        // A VM that is destroyed is promised nothing, and holds what it holds until its last worker is gone; and one whose
        // devices are others now has sessions on those that it had.
        let empty = || Holder { vm: Arc::clone(&session.vm), minimum: 0, devices: Vec::new() };
        let holder = holders.entry(session.vm.number).or_insert_with(empty);
        for device in &session.devices {
            if !holder.devices.contains(device) {
                holder.devices.push(*device);
            }
        }
        if let Some(first) = session.devices.first() {
            contexts.push((*first, session.vm.quota.of(session.slot).context));
        }
    });
    for (device, bytes) in contexts {
        if let Some(capacity) = capacity.get_mut(device) {
            *capacity = capacity.saturating_sub(bytes);
        }
    }
    let parties: Vec<Party<'_>> = holders
        .iter()
        .map(|(number, holder)| Party {
            vm: *number,
            quota: &holder.vm.quota,
            minimum: holder.minimum,
            devices: &holder.devices,
        })
        .collect();
    Some(of(&parties, &capacity))
}

/// What the contexts of warm workers hold, by device.
fn warm(daemon: &Daemon, snapshot: &Snapshot) -> Vec<(usize, u64)> {
    let of = |worker: &Arc<super::process::Worker>| {
        let gpus = worker.visible.to_string().parse::<crate::vm::gpus::Gpus>().ok()?;
        let first = *gpus.resolve(snapshot).ok()?.first()?;
        Some((first, worker.overhead.load(Ordering::Relaxed)))
    };
    daemon.pool.view().warm.iter().filter_map(of).collect()
}
