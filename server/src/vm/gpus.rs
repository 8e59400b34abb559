//! Which devices a VM sees: `gpus` of its rule.
//!
//! What an operator writes names devices by number, UUID or PCI address; what it means is known once a worker has found
//! the devices ([`Gpus::resolve`]). A worker of a VM that does not see all is started with `CUDA_VISIBLE_DEVICES` and so
//! opens no other: the driver itself knows of none, by whatever name or handle, and numbers them from 0 in the order of the
//! list. Devices are named by UUID there ([`visible`]), since numbers depend on `CUDA_DEVICE_ORDER`.

use pxos_protocol::control::Snapshot;
use std::fmt;
use std::str::FromStr;

/// Most devices that one may name.
const MOST: usize = 64;

/// Devices that a VM sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gpus {
    /// All that the server has.
    #[default]
    All,
    /// These, numbered from 0 in this order.
    These(Vec<Gpu>),
}

/// One device, as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// Its number among the server's devices, as the status shows it.
    Number(usize),
    /// Its UUID with `GPU-` or `MIG-`, or a beginning of it that no other device has; in lower case behind that.
    Uuid(String),
    /// Its PCI address: domain, bus, device and function.
    Pci([u32; 4]),
}

impl Gpus {
    /// The numbers of the devices among the server's, in the VM's order.
    ///
    /// # Errors
    /// A device that there is not, or that is named twice.
    pub fn resolve(&self, snapshot: &Snapshot) -> Result<Vec<usize>, String> {
        let Self::These(gpus) = self else { return Ok((0..snapshot.devices.len()).collect()) };
        let mut devices: Vec<usize> = Vec::with_capacity(gpus.len());
        for gpu in gpus {
            let device = gpu.find(snapshot)?;
            if devices.contains(&device) {
                return Err(format!("gpus: {gpu} is device {device}, which is in the list already"));
            }
            devices.push(device);
        }
        Ok(devices)
    }
}

impl Gpu {
    fn find(&self, snapshot: &Snapshot) -> Result<usize, String> {
        let is = |index: usize| match self {
            Self::Number(number) => index == *number,
            Self::Uuid(uuid) => uuid_of(snapshot, index).starts_with(uuid.as_str()),
            Self::Pci(address) => parse_pci(&snapshot.devices[index].pci_bus_id) == Some(*address),
        };
        let mut found = (0..snapshot.devices.len()).filter(|index| is(*index));
        match (found.next(), found.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => Err(format!("gpus: more than one device is {self}")),
            (None, _) => Err(format!(
                "gpus: there is no device {self}; the server has {} of them (pxctl status names them)",
                snapshot.devices.len()
            )),
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Pci([domain, bus, device, function]) => {
                write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
            }
        }
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(gpus) => {
                let words: Vec<String> = gpus.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}

impl FromStr for Gpu {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let word = word.trim();
        if let Ok(number) = word.parse() {
            return Ok(Self::Number(number));
        }
        for prefix in ["GPU-", "MIG-"] {
            if let Some(id) = word.strip_prefix(prefix)
                && !id.is_empty()
                && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            {
                return Ok(Self::Uuid(format!("{prefix}{}", id.to_ascii_lowercase())));
            }
        }
        parse_pci(word).map(Self::Pci).ok_or_else(|| {
            format!(
                "'{word}' is no device: neither a number, nor a UUID that begins with GPU- or MIG-, nor a PCI address \
                 such as 0000:1b:00.0"
            )
        })
    }
}

impl FromStr for Gpus {
    type Err = String;

    /// `all`, or devices with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let gpus = text.split(',').map(str::parse).collect::<Result<Vec<Gpu>, _>>()?;
        if gpus.len() > MOST {
            return Err(format!("{} devices are more than {MOST}", gpus.len()));
        }
        Ok(Self::These(gpus))
    }
}

/// `[domain:]bus:device[.function]`, hexadecimal, as `cuDeviceGetPCIBusId` and lspci write it.
fn parse_pci(text: &str) -> Option<[u32; 4]> {
    let hex = |part: &str| u32::from_str_radix(part, 16).ok();
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => (0, hex(bus)?, rest),
        [domain, bus, rest] => (hex(domain)?, hex(bus)?, rest),
        _ => return None,
    };
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    Some([domain, bus, hex(device)?, hex(function)?])
}

/// The UUID of a device as text: `GPU-` or, for a part of one, `MIG-`, and 32 digits in five groups.
#[must_use]
pub fn uuid_of(snapshot: &Snapshot, index: usize) -> String {
    let device = &snapshot.devices[index];
    // The two differ where the device is a part of one (CUDA driver API, `cuDeviceGetUuid_v2`).
    let is_part = device.uuid_v2 != device.uuid;
    let (mut text, bytes) =
        if is_part { ("MIG".to_owned(), device.uuid_v2) } else { ("GPU".to_owned(), device.uuid) };
    for (index, byte) in bytes.iter().enumerate() {
        let dash = if [0, 4, 6, 8, 10].contains(&index) { "-" } else { "" };
        text += &format!("{dash}{byte:02x}");
    }
    text
}

/// What `CUDA_VISIBLE_DEVICES` has to say for a worker that is to see these devices of the server's, in this order; `None`
/// where that is all of them as they are.
#[must_use]
pub fn visible(snapshot: &Snapshot, devices: &[usize]) -> Option<String> {
    if devices.iter().copied().eq(0..snapshot.devices.len()) {
        return None;
    }
    let uuids: Vec<String> = devices.iter().map(|index| uuid_of(snapshot, *index)).collect();
    Some(uuids.join(","))
}

/// What a guest may know that sees these devices of the server's, in this order.
#[must_use]
pub fn narrow(snapshot: &Snapshot, devices: &[usize]) -> Snapshot {
    let mut narrowed = snapshot.clone();
    narrowed.devices = devices
        .iter()
        .map(|index| {
            let mut device = snapshot.devices[*index].clone();
            device.peers =
                devices.iter().map(|peer| device.peers.get(*peer).copied().unwrap_or(false)).collect();
            device
        })
        .collect();
    narrowed
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pxos_protocol::control::Device;

    /// A server with that many devices of so many bytes each, of which all reach each other.
    pub(crate) fn snapshot(count: u8, bytes: u64) -> Snapshot {
        let device = |number: u8| Device {
            name: format!("device {number}"),
            uuid: [number + 1; 16],
            uuid_v2: [number + 1; 16],
            luid: None,
            total_memory: bytes,
            pci_bus_id: format!("0000:{:02X}:00.0", number + 10),
            attributes: Vec::new(),
            peers: (0..count).map(|peer| peer != number).collect(),
            priorities: (0, 0),
            limits: Vec::new(),
            context_api_version: 0,
            exec_affinity: false,
        };
        Snapshot {
            driver_version: 13000,
            loading_mode: 2,
            devices: (0..count).map(device).collect(),
            error_strings: Vec::new(),
            software: true,
        }
    }

    #[test]
    fn devices_are_named_by_number_uuid_and_address() {
        let snapshot = snapshot(3, 1);
        let resolve = |text: &str| text.parse::<Gpus>().and_then(|gpus| gpus.resolve(&snapshot));
        assert_eq!(resolve("all"), Ok(vec![0, 1, 2]));
        assert_eq!(resolve("2,0"), Ok(vec![2, 0]));
        assert_eq!(resolve("GPU-02"), Ok(vec![1]));
        assert_eq!(resolve("GPU-03030303-0303-0303-0303-030303030303, 0000:0a:00.0"), Ok(vec![2, 0]));
        assert_eq!(resolve("0B:00"), Ok(vec![1]));
        assert!(resolve("3").unwrap_err().contains("there is no device 3; the server has 3"));
        assert!(resolve("GPU-0").unwrap_err().contains("more than one device is GPU-0"));
        assert!(resolve("1,0000:0b:00.0").unwrap_err().contains("in the list already"));
        for wrong in ["", "0,", "nvidia0", "GPU-", "-1", "0:0:0:0", "MIG-x"] {
            assert!(wrong.parse::<Gpus>().is_err(), "{wrong}");
        }
        for text in ["all", "2,0", "GPU-02,0000:0a:00.0"] {
            assert_eq!(text.parse::<Gpus>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_part_of_the_devices_is_renumbered() {
        let snapshot = snapshot(3, 1);
        assert_eq!(visible(&snapshot, &[0, 1, 2]), None);
        assert_eq!(
            visible(&snapshot, &[2, 0]).unwrap(),
            "GPU-03030303-0303-0303-0303-030303030303,GPU-01010101-0101-0101-0101-010101010101"
        );
        assert!(visible(&snapshot, &[1, 0, 2]).is_some(), "another order is another numbering");
        let narrowed = narrow(&snapshot, &[2, 0]);
        let names: Vec<&str> = narrowed.devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["device 2", "device 0"]);
        assert_eq!(narrowed.devices[0].peers, [false, true]);
        assert_eq!(narrowed.devices[1].peers, [true, false]);
        let mut parts = snapshot.clone();
        parts.devices[1].uuid_v2 = [9; 16];
        assert!(uuid_of(&parts, 1).starts_with("MIG-09090909-0909-"));
    }
}
