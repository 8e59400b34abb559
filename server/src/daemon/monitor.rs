//! What a guest may know of its VM's use of the devices: the answer to QUERY_VM, of which NVML in the guest is made.
//!
//! Everything comes from the daemon's own books, so that a question costs no worker and no driver: the VM's quota, the
//! scheduler's pages, the host's NVML. Only the asking VM's sessions are looked at. Sensors tell of all VMs' work, so an
//! operator has to allow them.

use super::Daemon;
use super::admit::least;
use crate::scheduler::page;
use pxos_protocol::control::{self, Hello, Snapshot};
use pxos_protocol::monitor::{Board, DeviceTime, DeviceUse, ProcessUse, Sensors, VmUse};
use pxos_protocol::types::attribute;

/// Version that softgpu's driver is given: the first of the branch whose driver API it speaks (CUDA 13.0).
const SOFTWARE_DRIVER: &str = "580.00";

/// Who asks.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    /// The VM, by name: it need not have a session yet.
    pub(super) vm: &'a str,
    /// Bytes of device memory that it may hold.
    pub(super) limit: Option<u64>,
    /// Its devices, by their numbers among the server's, in the order of the snapshot.
    pub(super) devices: &'a [usize],
    /// What it said first.
    pub(super) hello: &'a Hello,
}

/// How the asker's VM uses its devices, which are those of the snapshot, now.
pub(super) fn vm_use(daemon: &Daemon, snapshot: &Snapshot, asker: &Asker<'_>) -> VmUse {
    let vm = daemon.vms.find(asker.vm);
    let limit = vm.as_ref().map_or(asker.limit, |vm| vm.limits().memory_max);
    let held = vm.as_ref().map_or(0, |vm| vm.quota.charged(&vm.quota.total()));
    let number = vm.as_ref().map(|vm| vm.number);
    let mut own_used = 0_u64;
    let processes: Vec<ProcessUse> = daemon
        .sessions
        .map(|id, session| {
            if Some(session.vm.number) != number {
                return None;
            }
            let held = session.vm.quota.of(session.slot);
            if session.pid == asker.hello.pid {
                own_used = own_used.saturating_add(held.used);
            }
            let times = daemon.scheduling.device_times(id);
            let times = asker.devices.iter().map(|number| {
                let (nanos, in_flight) = times.get(*number).copied().unwrap_or_default();
                DeviceTime { nanos, in_flight }
            });
            Some(ProcessUse {
                session: id,
                pid: session.pid,
                program: session.program.clone(),
                memory: session.vm.quota.charged(&held),
                devices: times.collect(),
            })
        })
        .into_iter()
        .flatten()
        .collect();
    let own = asker.hello.memory_max;
    let room = daemon.pledging.room(daemon, vm.as_deref(), asker.devices);
    let sensors = daemon.config().guest_sensors;
    let device = |(index, device): (usize, &control::Device)| {
        let on_host = if snapshot.software { None } else { daemon.nvml.free(device.uuid) };
        let free_on_device = on_host.unwrap_or_else(|| device.total_memory.saturating_sub(held));
        let left_to = |limit: Option<u64>, used| limit.map(|limit: u64| limit.saturating_sub(used));
        let busy =
            || processes.iter().any(|process| process.devices.get(index).is_some_and(|time| time.in_flight));
        DeviceUse {
            total: least(Some(device.total_memory), least(limit, own)).unwrap_or(0),
            free: [Some(free_on_device), left_to(limit, held), left_to(own, own_used), room]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(0),
            board: board(daemon, snapshot.software, device),
            sensors: sensors.then(|| measured(daemon, snapshot.software, device, busy())).flatten(),
        }
    };
    let driver = if snapshot.software { Some(SOFTWARE_DRIVER.to_owned()) } else { daemon.nvml.driver() };
    VmUse {
        now: page::now(),
        driver: driver.unwrap_or_default(),
        devices: snapshot.devices.iter().enumerate().map(device).collect(),
        processes,
    }
}

/// Clocks of a device by its attributes, which are in kHz.
fn clocks(device: &control::Device) -> [Option<u32>; 4] {
    let mhz = |number| u32::try_from(device.attribute(number) / 1000).ok().filter(|mhz| *mhz > 0);
    let (processors, memory) = (mhz(attribute::CLOCK_RATE), mhz(attribute::MEMORY_CLOCK_RATE));
    [processors, processors, memory, None]
}

fn board(daemon: &Daemon, software: bool, device: &control::Device) -> Board {
    let known = if software { None } else { daemon.nvml.board(device.uuid) };
    known.unwrap_or_else(|| Board { max_clocks: clocks(device), ..Board::default() })
}

/// What the device measures. softgpu measures nothing: it is modelled as a board that is at one of two points, idle or at
/// work for this VM, with the clocks of its attributes.
fn measured(daemon: &Daemon, software: bool, device: &control::Device, busy: bool) -> Option<Sensors> {
    if !software {
        return daemon.nvml.sensors(device.uuid);
    }
    let (temperature, power, state) = if busy { (60, 250_000, 0) } else { (30, 50_000, 8) };
    Some(Sensors {
        temperature: Some(temperature),
        power: Some(power),
        power_limit: Some(300_000),
        performance_state: Some(state),
        clocks: clocks(device),
        ..Sensors::default()
    })
}
