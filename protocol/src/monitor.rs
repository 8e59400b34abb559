//! How a VM uses its devices: what a guest may ask without a session (QUERY_VM), and NVML in the guest is made of.
//!
//! Nothing in it tells of another VM, but what the device's own sensors tell of everybody's work, which an operator has to
//! allow (`guest_sensors`). `None` stands for what the host does not know or does not tell.

use serde::{Deserialize, Serialize};

/// The answer to QUERY_VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmUse {
    /// When this was read: nanoseconds of a clock of the host's that only goes forward.
    pub now: u64,
    /// The host driver's version, as NVML names it (`580.95.05`); empty where the host does not know.
    pub driver: String,
    /// The VM's devices, in the order of the snapshot.
    pub devices: Vec<DeviceUse>,
    /// The VM's processes that have a session, oldest first.
    pub processes: Vec<ProcessUse>,
}

/// One device, as this VM uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// Bytes that the VM may hold, as `cuMemGetInfo` answers.
    pub total: u64,
    /// Bytes that it may still take, as `cuMemGetInfo` answers.
    pub free: u64,
    /// What does not change.
    pub board: Board,
    /// What the device measures, where the operator lets guests see it.
    pub sensors: Option<Sensors>,
}

/// One process of the VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Number of its session.
    pub session: u64,
    /// Its process id in the guest, as it said itself.
    pub pid: u32,
    /// Name of its program, as it said itself.
    pub program: String,
    /// Bytes of device memory that it holds of the VM's quota, on all devices together.
    pub memory: u64,
    /// Its time on each device, in the order of the snapshot.
    pub devices: Vec<DeviceTime>,
}

/// What a process has had of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTime {
    /// Device time since its session began, in nanoseconds.
    pub nanos: u64,
    /// Whether something of it is under way.
    pub in_flight: bool,
}

/// Numbers for graphics, multiprocessors, memory and video, in NVML's order (`nvmlClockType_t`), in MHz.
pub type Clocks = [Option<u32>; 4];

/// Facts of a board that the driver API does not tell, from the host's NVML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// PCI device and vendor (`nvmlPciInfo_t::pciDeviceId`).
    pub pci_device: Option<u32>,
    /// PCI subsystem (`nvmlPciInfo_t::pciSubSystemId`).
    pub pci_subsystem: Option<u32>,
    /// `nvmlBrandType_t`.
    pub brand: Option<u32>,
    /// Version of the VBIOS.
    pub vbios: Option<String>,
    /// The board's part number, which all boards of the kind share.
    pub part_number: Option<String>,
    /// Highest clocks.
    pub max_clocks: Clocks,
    /// Degrees Celsius by `nvmlTemperatureThresholds_t`: shutdown, slowdown, memory at most, device at most.
    pub thresholds: [Option<u32>; 4],
    /// Milliwatts that the board's limit is by default, at least and at most.
    pub power_limits: [Option<u32>; 3],
    /// Highest PCIe generation and width of the link.
    pub pcie: [Option<u32>; 2],
}

/// What the device measures: of everybody's work on it together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensors {
    /// Degrees Celsius of the device.
    pub temperature: Option<u32>,
    /// Degrees Celsius of its memory.
    pub memory_temperature: Option<u32>,
    /// Percent of the fan's speed.
    pub fan: Option<u32>,
    /// Milliwatts.
    pub power: Option<u32>,
    /// Milliwatts that the device is held to now.
    pub power_limit: Option<u32>,
    /// Millijoules since the driver was loaded.
    pub energy: Option<u64>,
    /// Clocks now.
    pub clocks: Clocks,
    /// Performance state, 0 for the highest.
    pub performance_state: Option<u32>,
    /// Why clocks are lower than they could be (`nvmlClocksEventReasons`).
    pub clock_reasons: Option<u64>,
    /// PCIe generation and width of the link now.
    pub pcie: [Option<u32>; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{decode, encode};

    #[test]
    fn an_answer_comes_back_and_the_largest_fits_a_frame() {
        let process = ProcessUse {
            session: u64::MAX,
            pid: u32::MAX,
            program: "x".repeat(64),
            memory: u64::MAX,
            devices: vec![DeviceTime { nanos: u64::MAX, in_flight: true }; 16],
        };
        let sensors = Sensors { power: Some(70_000), ..Sensors::default() };
        let device = DeviceUse { sensors: Some(sensors), ..DeviceUse::default() };
        // As many sessions as one VM may have, on as many devices as are scheduled.
        let all = VmUse { processes: vec![process; 1024], devices: vec![device; 16], ..VmUse::default() };
        let bytes = encode(&all).unwrap();
        assert_eq!(decode::<VmUse>(&bytes).unwrap(), all);
        for cut in 0..200 {
            assert!(decode::<VmUse>(&bytes[..cut]).is_err());
        }
        assert!(decode::<VmUse>(&[0xff; 256]).is_err());
    }
}
