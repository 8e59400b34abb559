//! The scheduler's thread: it joins the decisions of [`crate::scheduler`] with the pages of the workers.
//!
//! It sleeps until a worker rings its bell or a lease ends, reads all pages, decides for each device, and writes the gates
//! that change. Where one VM alone works, nobody rings and it does not run at all.

use super::Daemon;
use super::decisions::Decisions;
use crate::page::Page;
use crate::scheduler::copies::Copies;
use crate::scheduler::page::{self, DEVICES, Direction, Slots};
use crate::scheduler::{Gate, Nanos, Observation, Policy, Report, Scheduler, Share, Tuning, VmId};
use crate::vm::Tier;
use crate::vm::registry::Vm;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tracing::trace;

/// Workers that ring more often than this are looked at less often: the time between two decisions, at least.
const LEAST: Nanos = 5_000;

/// What the thread and the others share.
#[derive(Debug)]
pub(super) struct Scheduling {
    bell: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tuning: Tuning,
    max_kernel: Duration,
    guests: BTreeMap<u64, Guest>,
    devices: Vec<Device>,
    decisions: Decisions,
}

/// A session, as the scheduler sees it.
#[derive(Debug)]
struct Guest {
    vm: Arc<Vm>,
    /// The VM's name, for the decision log.
    name: Arc<str>,
    /// The worker's page; its slots are in the order of the worker's devices.
    slots: Page<Slots>,
    /// The worker's devices, by their numbers among the server's.
    devices: Vec<usize>,
    bell: Arc<OwnedFd>,
    /// What was charged and copied when it was last looked at, by device.
    seen: Vec<(Nanos, [u64; 2])>,
    /// How long it has waited for its turns, by device.
    waits: [Wait; DEVICES],
}

/// How long a session has waited at a gate.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    since: Option<Nanos>,
    total: Nanos,
}

impl Wait {
    /// It waits now, or does not. Who begins to wait rings, and a gate that opens ends it.
    fn look(&mut self, now: Nanos, waiting: bool) {
        match (self.since, waiting) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.total = self.total.saturating_add(now.saturating_sub(since));
                self.since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// So far.
    fn until(&self, now: Nanos) -> Nanos {
        self.total.saturating_add(self.since.map_or(0, |since| now.saturating_sub(since)))
    }
}

/// What a session does at the devices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    /// Commands in flight.
    pub(super) in_flight: u64,
    /// Whether it waits for its turn.
    pub(super) waiting: bool,
    /// Nanoseconds that it has waited.
    pub(super) waited: Nanos,
}

#[derive(Debug)]
struct Device {
    compute: Scheduler,
    copies: [Copies; 2],
    /// Whether somebody has used it. Most hosts have fewer devices than the pages have slots, and deciding about those that
    /// nobody uses would be most of the time between one lease and the next.
    used: bool,
}

const DIRECTIONS: [Direction; 2] = [Direction::ToDevice, Direction::ToHost];

impl Scheduling {
    /// Schedules nobody yet.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new(tuning: Tuning, max_kernel: Duration) -> io::Result<Self> {
        let device = || Device { compute: Scheduler::new(tuning), copies: Default::default(), used: false };
        let devices = std::iter::repeat_with(device).take(DEVICES).collect();
        let state =
            State { tuning, max_kernel, guests: BTreeMap::new(), devices, decisions: Decisions::default() };
        Ok(Self { bell: page::bell()?, state: Mutex::new(state) })
    }

    /// Takes over what an operator may change while guests run.
    pub(super) fn tune(&self, tuning: Tuning, max_kernel: Duration) {
        let mut state = self.state.lock();
        (state.tuning, state.max_kernel) = (tuning, max_kernel);
        for device in &mut state.devices {
            device.compute.tune(tuning);
        }
        state.show_limits();
        drop(state);
        page::ring(&self.bell);
    }

    /// Adds a session; the descriptors of its page and its bell are for its worker.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn begin(
        &self,
        session: u64,
        vm: &Arc<Vm>,
        devices: &[usize],
    ) -> io::Result<(OwnedFd, Arc<OwnedFd>)> {
        let (slots, fd) = Page::<Slots>::create()?;
        let bell = Arc::new(page::bell()?);
        let mut state = self.state.lock();
        let now = page::now();
        let share = Share::from(vm.effective_limits());
        for (index, device) in state.devices.iter_mut().enumerate() {
            device.compute.set(now, vm.number, share);
            // Another process of the VM may have opened the gate already, and the VM's gate is one.
            let gate = device.compute.report(vm.number).map_or(Gate::Closed, |report| report.gate);
            if let Some(slot) = place(devices, index) {
                slots.slot(slot).put(gate);
            }
        }
        let seen = vec![(0, [0; 2]); DEVICES];
        let devices = devices.to_vec();
        let name = vm.name.as_str().into();
        let guest = Guest {
            vm: Arc::clone(vm),
            name,
            slots,
            devices,
            bell: Arc::clone(&bell),
            seen,
            waits: Default::default(),
        };
        state.guests.insert(session, guest);
        state.show_limits();
        if state.tuning.policy == Policy::Fifo {
            state.decide(now);
        }
        drop(state);
        // The thread has to listen to one more bell.
        page::ring(&self.bell);
        Ok((fd, bell))
    }

    /// Takes a session out; what its VM held for it alone is free at once. Returns its device time in nanoseconds.
    pub(super) fn end(&self, session: u64) -> Nanos {
        let used = self.device_time(session);
        let mut state = self.state.lock();
        let Some(guest) = state.guests.remove(&session) else { return 0 };
        let now = page::now();
        let is_last = !state.guests.values().any(|other| other.vm.number == guest.vm.number);
        for device in state.devices.iter_mut().filter(|_| is_last) {
            device.compute.leave(now, guest.vm.number);
            device.copies.iter_mut().for_each(|copies| copies.remove(guest.vm.number));
        }
        drop(state);
        page::ring(&self.bell);
        used
    }

    /// Decides anew: limits have changed.
    pub(super) fn decide_now(&self) {
        page::ring(&self.bell);
    }

    /// Device time of a session so far in nanoseconds: what was measured, and what was estimated where it was alone.
    pub(super) fn device_time(&self, session: u64) -> Nanos {
        self.device_times(session).iter().map(|(time, _)| *time).fold(0, Nanos::saturating_add)
    }

    /// The same by the number of the device among the server's, and whether something of the session is in flight there.
    pub(super) fn device_times(&self, session: u64) -> [(Nanos, bool); DEVICES] {
        use std::sync::atomic::Ordering::Relaxed;
        let state = self.state.lock();
        let Some(guest) = state.guests.get(&session) else { return [(0, false); DEVICES] };
        let of = |device| {
            let Some(slot) = guest.slot(device) else { return (0, false) };
            let time = slot.charged.load(Relaxed).saturating_add(slot.estimated.load(Relaxed));
            (time, slot.in_flight.load(Relaxed) > 0)
        };
        std::array::from_fn(of)
    }

    /// What a session does at the devices.
    pub(super) fn queue(&self, session: u64) -> Queue {
        use std::sync::atomic::Ordering::Relaxed;
        let state = self.state.lock();
        let Some(guest) = state.guests.get(&session) else { return Queue::default() };
        let slots = || (0..DEVICES).map(|device| guest.slots.slot(device));
        let now = page::now();
        Queue {
            in_flight: slots()
                .map(|slot| u64::from(slot.in_flight.load(Relaxed)))
                .fold(0, u64::saturating_add),
            waiting: slots().any(|slot| slot.waiting.load(Relaxed) > 0),
            waited: guest.waits.iter().map(|wait| wait.until(now)).fold(0, Nanos::saturating_add),
        }
    }

    /// The decision log after number `since`, oldest first.
    pub(super) fn decisions(&self, since: u64) -> Vec<pxos_protocol::admin::Decision> {
        self.state.lock().decisions.after(since)
    }

    /// What a VM has had, and how its gate stands, by device.
    pub(super) fn reports(&self, vm: VmId) -> Vec<Report> {
        let state = self.state.lock();
        state.devices.iter().filter_map(|device| device.compute.report(vm)).collect()
    }

    /// Sleeps until a bell rings or `until`; all bells are silent afterwards.
    fn listen(&self, bells: &[Arc<OwnedFd>], until: Option<Nanos>) {
        let entry = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds = vec![entry(&self.bell)];
        fds.extend(bells.iter().map(|bell| entry(bell)));
        let left = until.map(|until| until.saturating_sub(page::now()).max(LEAST));
        let time = left.map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left / 1_000_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(left % 1_000_000_000).unwrap_or(0),
        });
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
        // SAFETY: as many entries as it says, and a time that outlives the call, or none.
        unsafe { libc::ppoll(fds.as_mut_ptr(), count, time, std::ptr::null()) };
        let mut counter = 0_u64;
        for fd in fds.iter().filter(|fd| fd.revents & libc::POLLIN != 0) {
            // SAFETY: eight bytes into a local, from a descriptor that does not block.
            unsafe { libc::read(fd.fd, (&raw mut counter).cast(), 8) };
        }
    }
}

impl State {
    fn show_limits(&self) {
        let limit = Nanos::try_from(self.max_kernel.as_nanos()).unwrap_or(Nanos::MAX);
        for guest in self.guests.values() {
            for device in 0..DEVICES {
                let slot = guest.slots.slot(device);
                slot.max_kernel.store(limit, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    /// Decides for all devices; when to do so again.
    fn decide(&mut self, now: Nanos) -> Option<Nanos> {
        let mut vms: BTreeMap<VmId, Share> = BTreeMap::new();
        for guest in self.guests.values() {
            vms.entry(guest.vm.number).or_insert_with(|| guest.vm.effective_limits().into());
        }
        let mut wake: Option<Nanos> = None;
        for index in 0..self.devices.len() {
            // Without scheduling all gates are open, used or not.
            let used =
                self.tuning.policy == Policy::Fifo || self.guests.values().any(|guest| guest.uses(index));
            self.devices[index].used |= used;
            if !self.devices[index].used {
                continue;
            }
            let next = self.decide_device(now, index, &vms);
            wake = wake.into_iter().chain(next).min();
        }
        wake
    }

    fn decide_device(&mut self, now: Nanos, index: usize, vms: &BTreeMap<VmId, Share>) -> Option<Nanos> {
        let Self { guests, devices, decisions, .. } = self;
        let device = &mut devices[index];
        for (vm, share) in vms {
            device.compute.set(now, *vm, *share);
            let mut all = Observation::default();
            let mut copied = [(0, false); 2];
            for guest in guests.values_mut().filter(|guest| guest.vm.number == *vm) {
                guest.observe(now, index, &mut all, &mut copied);
            }
            device.compute.observe(now, *vm, all);
            for (copies, (bytes, waiting)) in device.copies.iter_mut().zip(copied) {
                copies.set(*vm, share.weight, share.tier == Tier::Latency);
                copies.observe(now, *vm, bytes, waiting);
            }
        }
        let verdict = device.compute.decide(now);
        for (vm, gate, reason) in verdict.gates {
            trace!(device = index, vm, ?gate, reason = reason.word(), "gate");
            if let Some(guest) = guests.values().find(|guest| guest.vm.number == vm) {
                decisions.note(now, index, &guest.name, gate, reason);
            }
            for guest in guests.values_mut().filter(|guest| guest.vm.number == vm) {
                if let Some(slot) = guest.slot(index) {
                    slot.put(gate);
                }
                if gate != Gate::Closed {
                    guest.waits[index].look(now, false);
                }
            }
        }
        let mut wake = verdict.wake_at;
        for (copies, direction) in device.copies.iter_mut().zip(DIRECTIONS) {
            let (changes, next) = copies.decide(now);
            wake = wake.into_iter().chain(next).min();
            for (vm, open) in changes {
                for slot in guests
                    .values()
                    .filter(|guest| guest.vm.number == vm)
                    .filter_map(|guest| guest.slot(index))
                {
                    slot.put_copies(direction, open);
                }
            }
        }
        wake
    }
}

/// Which slot of a worker's page is that of a device of the server's: as many devices have slots as a page has.
fn place(devices: &[usize], number: usize) -> Option<usize> {
    devices.iter().position(|device| (*device).min(DEVICES - 1) == number).map(|slot| slot.min(DEVICES - 1))
}

impl Guest {
    /// The slot of a device of the server's, where the worker sees it.
    fn slot(&self, number: usize) -> Option<&page::Slot> {
        place(&self.devices, number).map(|slot| self.slots.slot(slot))
    }

    /// Whether it waits at a device's gates, or has passed them.
    fn uses(&self, device: usize) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let Some(slot) = self.slot(device) else { return false };
        slot.waiting.load(Relaxed) > 0
            || slot.commands.load(Relaxed) > 0
            || slot.copied.iter().any(|bytes| bytes.load(Relaxed) > 0)
    }

    /// Adds what it does on a device to what its VM does.
    fn observe(&mut self, now: Nanos, device: usize, all: &mut Observation, copied: &mut [(u64, bool); 2]) {
        use std::sync::atomic::Ordering::Relaxed;
        let Some(at) = place(&self.devices, device) else { return };
        let slot = self.slots.slot(at);
        let one = slot.read(now);
        let (charged, bytes) = &mut self.seen[device];
        all.waiting |= one.waiting;
        self.waits[device].look(now, one.waiting);
        all.stopped |= one.stopped;
        all.marked |= one.marked;
        all.in_flight = all.in_flight.saturating_add(one.in_flight);
        all.processes += one.processes;
        all.remaining = all.remaining.max(one.remaining);
        all.pending = all.pending.saturating_add(one.pending);
        all.charged = all.charged.saturating_add(one.charged.saturating_sub(*charged));
        *charged = one.charged;
        for (direction, (sum, waiting)) in copied.iter_mut().enumerate() {
            let now = slot.copied[direction].load(Relaxed);
            *sum = sum.saturating_add(now.saturating_sub(bytes[direction]));
            bytes[direction] = now;
            *waiting |= slot.copy_waiting[direction].load(Relaxed) > 0;
        }
    }
}

/// Runs the thread; never returns.
pub(super) fn run(daemon: &Daemon) {
    // The kernel may otherwise let a sleeper lie for 50 µs more.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
    let scheduling = &daemon.scheduling;
    loop {
        let (bells, wake) = {
            let mut state = scheduling.state.lock();
            let wake = state.decide(page::now());
            let bells: Vec<_> = state.guests.values().map(|guest| Arc::clone(&guest.bell)).collect();
            (bells, wake)
        };
        scheduling.listen(&bells, wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_from_its_beginning_to_its_end_and_while_it_lasts() {
        let mut wait = Wait::default();
        for (now, waiting) in [(10, false), (20, true), (30, true), (50, false), (60, false), (70, true)] {
            wait.look(now, waiting);
        }
        assert_eq!((wait.total, wait.until(75)), (30, 35));
    }

    #[test]
    fn a_worker_has_a_slot_for_each_of_its_devices() {
        assert_eq!([0, 1, 2].map(|number| place(&[2, 0], number)), [Some(1), None, Some(0)]);
        // Devices beyond the last slot share it, on both sides.
        let many: Vec<usize> = (0..DEVICES + 3).collect();
        assert_eq!(place(&many, DEVICES - 1), Some(DEVICES - 1));
        assert_eq!(place(&[DEVICES + 2], DEVICES - 1), Some(0));
    }
}
