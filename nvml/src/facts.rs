//! What does not change while NVML is initialised: how the server is reached, and what it said of the devices.
//!
//! Programs initialise and shut down as often as they like, from any thread, and fork in between. So there is no lock here
//! that a forked child could find taken: the facts are published by one pointer and never freed; who initialises again and is
//! told the same keeps the first.

use crate::types::{Error, Result, nvmlDevice_t};
use pxos_guest::config::Config;
use pxos_guest::inquiry::{Asker, Inquiry, InquiryError};
use pxos_protocol::control::Device;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::monitor::{Board, VmUse};
use pxos_protocol::transport::Socket;
use pxos_protocol::types::CUresult;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

/// Devices that have a handle.
const MOST: usize = 64;

/// Places whose addresses are the handles of devices, by NVML's index; what lies there means nothing.
static HANDLES: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];

/// How often NVML is initialised.
static INITIALISED: AtomicU32 = AtomicU32::new(0);

/// The facts, once there are any.
static FACTS: AtomicPtr<Facts> = AtomicPtr::new(std::ptr::null_mut());

/// How to reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    endpoint: Endpoint,
    token: Option<String>,
    memory_max: Option<u64>,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    way: Way,
    /// Version of CUDA that the driver is for: 13000.
    pub(crate) cuda: i32,
    /// Version of the host's driver.
    pub(crate) driver: String,
    /// Devices by NVML's index: in the order of their PCI bus ids, whatever order CUDA gives them.
    pub(crate) devices: Vec<Known>,
}

/// A device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// NVML's index.
    pub(crate) index: usize,
    /// Its place among the server's devices.
    pub(crate) place: usize,
    /// As the driver API tells.
    pub(crate) device: Device,
    /// As the host's NVML tells.
    pub(crate) board: Board,
    /// Where it is on the host's bus.
    pub(crate) address: Address,
}

/// A place on a PCI bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// Domain.
    pub(crate) domain: u32,
    /// Bus.
    pub(crate) bus: u32,
    /// Device.
    pub(crate) device: u32,
}

impl Address {
    /// Reads `[domain:]bus:device[.function]`, hexadecimal.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (place, function) = text.rsplit_once('.').unwrap_or((text, "0"));
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        number(function)?;
        let parts: Vec<&str> = place.split(':').collect();
        match parts[..] {
            [domain, bus, device] => {
                Some(Self { domain: number(domain)?, bus: number(bus)?, device: number(device)? })
            }
            [bus, device] => Some(Self { domain: 0, bus: number(bus)?, device: number(device)? }),
            _ => None,
        }
    }
}

impl Known {
    /// The handle that programs have.
    pub(crate) fn handle(&self) -> nvmlDevice_t {
        nvmlDevice_t(HANDLES[self.index].as_ptr().cast())
    }

    /// The UUID as NVML writes it.
    pub(crate) fn uuid(&self) -> String {
        let hex = |range: std::ops::Range<usize>| -> String {
            self.device.uuid[range].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        format!("GPU-{}", [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-"))
    }
}

/// The facts.
///
/// # Errors
/// That NVML is not initialised.
pub(crate) fn facts() -> Result<&'static Facts> {
    if INITIALISED.load(Ordering::Acquire) == 0 {
        return Err(Error::UNINITIALIZED);
    }
    let facts = FACTS.load(Ordering::Acquire);
    // SAFETY: either null or what `initialise` has leaked, which nobody changes.
    unsafe { facts.as_ref() }.ok_or(Error::UNINITIALIZED)
}

/// The device that a handle stands for.
///
/// # Errors
/// That NVML is not initialised, or that this is no handle.
pub(crate) fn device(handle: nvmlDevice_t) -> Result<&'static Known> {
    let facts = facts()?;
    facts.devices.iter().find(|known| known.handle() == handle).ok_or(Error::INVALID_ARGUMENT)
}

/// Initialises once more.
pub(crate) fn initialise() -> Result {
    if INITIALISED.load(Ordering::Acquire) == 0 {
        let fresh = greet()?;
        let known = FACTS.load(Ordering::Acquire);
        // SAFETY: either null or what was leaked below.
        if unsafe { known.as_ref() } != Some(&fresh) {
            FACTS.store(Box::into_raw(Box::new(fresh)), Ordering::Release);
        }
    }
    INITIALISED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Takes one initialisation back.
pub(crate) fn shut_down() -> Result {
    let less = |count: u32| count.checked_sub(1);
    INITIALISED
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        .map(drop)
        .map_err(|_| Error::UNINITIALIZED)
}

/// Asks how the VM uses its devices now.
pub(crate) fn ask(facts: &Facts) -> Result<VmUse> {
    // A server that is gone is, to programs, a device that has fallen off its bus.
    let lost = |_: std::io::Error| Error::GPU_IS_LOST;
    let socket = Socket::connect(&facts.way.endpoint).map_err(lost)?;
    let answer = Inquiry::begin(socket, &facts.way.asker()).and_then(|mut inquiry| inquiry.vm_use());
    let mut answer = answer.map_err(|error| why(&error).unwrap_or(Error::GPU_IS_LOST))?;
    // A server that was started again with fewer devices tells of fewer; bodies may rely on each having its place.
    let places = facts.devices.iter().map(|known| known.place + 1).max().unwrap_or(0);
    if answer.devices.len() < places {
        answer.devices.resize_with(places, Default::default);
    }
    Ok(answer)
}

impl Way {
    fn asker(&self) -> Asker {
        let name = std::env::current_exe().ok();
        let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Asker { program: name.unwrap_or_default(), token: self.token.clone(), memory_max: self.memory_max }
    }
}

/// What a refusal is in NVML's words; `None` where nothing was refused.
fn why(error: &InquiryError) -> Option<Error> {
    let InquiryError::Refused(refusal) = error else { return None };
    Some(match CUresult(refusal.result) {
        CUresult::ERROR_SYSTEM_DRIVER_MISMATCH => Error::LIB_RM_VERSION_MISMATCH,
        CUresult::ERROR_NOT_PERMITTED => Error::NO_PERMISSION,
        CUresult::ERROR_DEVICE_UNAVAILABLE => Error::INSUFFICIENT_RESOURCES,
        CUresult::ERROR_SYSTEM_NOT_READY => Error::NOT_READY,
        _ => Error::UNKNOWN,
    })
}

/// Finds the server as the shim does, and takes down what it says.
fn greet() -> Result<Facts> {
    let config = Config::load();
    for endpoint in config.endpoints {
        let Ok(socket) = Socket::connect(&endpoint) else { continue };
        let way = Way { endpoint, token: config.token.clone(), memory_max: config.memory_max };
        let mut inquiry = match Inquiry::begin(socket, &way.asker()) {
            Ok(inquiry) => inquiry,
            Err(error) => match why(&error) {
                Some(error) => return Err(error),
                None => continue,
            },
        };
        let vm_use = inquiry.vm_use().map_err(|error| why(&error).unwrap_or(Error::DRIVER_NOT_LOADED))?;
        return Ok(Facts::new(way, inquiry.into_welcome().snapshot, vm_use));
    }
    Err(Error::DRIVER_NOT_LOADED)
}

impl Facts {
    fn new(way: Way, snapshot: pxos_protocol::control::Snapshot, vm_use: VmUse) -> Self {
        let mut boards = vm_use.devices.into_iter().map(|device| device.board);
        let mut devices: Vec<Known> = snapshot
            .devices
            .into_iter()
            .take(MOST)
            .enumerate()
            .map(|(place, device)| Known {
                index: 0,
                place,
                address: Address::parse(&device.pci_bus_id).unwrap_or_default(),
                board: boards.next().unwrap_or_default(),
                device,
            })
            .collect();
        devices.sort_by_key(|known| (known.address, known.place));
        for (index, known) in devices.iter_mut().enumerate() {
            known.index = index;
        }
        Self { way, cuda: snapshot.driver_version, driver: vm_use.driver, devices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(pci_bus_id: &str) -> Device {
        Device {
            name: "a device".into(),
            uuid: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255],
            uuid_v2: [0; 16],
            luid: None,
            total_memory: 1 << 30,
            pci_bus_id: pci_bus_id.into(),
            attributes: Vec::new(),
            peers: Vec::new(),
            priorities: (0, 0),
            limits: Vec::new(),
            context_api_version: 0,
            exec_affinity: false,
        }
    }

    #[test]
    fn devices_are_in_the_order_of_their_bus_ids() {
        let snapshot = pxos_protocol::control::Snapshot {
            driver_version: 13000,
            loading_mode: 2,
            devices: vec![device("0000:C1:00.0"), device("0000:0A:00.0"), device("nonsense")],
            error_strings: Vec::new(),
            software: true,
        };
        let way = Way { endpoint: Endpoint::Unix("/x".into()), token: None, memory_max: None };
        let facts = Facts::new(way, snapshot, VmUse::default());
        let places: Vec<usize> = facts.devices.iter().map(|known| known.place).collect();
        assert_eq!(places, [2, 1, 0]);
        assert_eq!(facts.devices[1].uuid(), "GPU-00010203-0405-0607-0809-0a0b0c0d0eff");
        let handles: Vec<_> = facts.devices.iter().map(|known| known.handle().0 as usize).collect();
        assert!(handles[0] != handles[1] && handles[1] != handles[2]);
    }

    #[test]
    fn bus_ids_come_in_several_forms() {
        let wanted = Some(Address { domain: 0, bus: 0x3b, device: 0 });
        for text in ["0000:3B:00.0", "00000000:3b:00.0", "3B:00", "3b:0.0", " 0000:3B:00.0 "] {
            assert_eq!(Address::parse(text), wanted, "{text}");
        }
        for text in ["", "3B", "x:y", "0:0:0:0", "0000:3B:00.z"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_initialised_cannot_be_shut_down() {
        assert_eq!(facts().err(), Some(Error::UNINITIALIZED));
        assert_eq!(shut_down(), Err(Error::UNINITIALIZED));
        assert_eq!(super::device(nvmlDevice_t(std::ptr::null_mut())).err(), Some(Error::UNINITIALIZED));
    }
}
