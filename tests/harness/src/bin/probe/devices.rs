//! Which devices the program sees, and by which names.

use super::Probe;
use std::ffi::CString;

/// All of them, by ordinal: PCI address and the last byte of the UUID.
pub(crate) fn list(probe: &Probe) -> Result<String, String> {
    let mut count = 0;
    // SAFETY: a pointer to a local.
    unsafe {
        (probe.driver.cuInit)(0);
        (probe.driver.cuDeviceGetCount)(&raw mut count);
    }
    let mut words = Vec::new();
    for ordinal in 0..u64::try_from(count).unwrap_or(0) {
        let (mut address, mut uuid) = ([0_u8; 32], [0_u8; 16]);
        let into = |buffer: &mut [u8]| buffer.as_mut_ptr().expose_provenance() as u64;
        call(probe, "cuDeviceGetPCIBusId", [into(&mut address), 32, ordinal])?;
        call(probe, "cuDeviceGetUuid_v2", [into(&mut uuid), ordinal, 0])?;
        let end = address.iter().position(|byte| *byte == 0).unwrap_or(address.len());
        words.push(format!("{}/{}", String::from_utf8_lossy(&address[..end]), uuid[15]));
    }
    Ok(words.join(" "))
}

/// What the driver says to a PCI address, and the ordinal that it gives.
pub(crate) fn find(probe: &Probe, address: &str) -> Result<String, String> {
    let text = CString::new(address).map_err(|error| error.to_string())?;
    let mut ordinal = -1_i32;
    let arguments = [(&raw mut ordinal).expose_provenance() as u64, text.as_ptr().expose_provenance() as u64];
    let status =
        probe.driver.call("cuDeviceGetByPCIBusId", [arguments[0], arguments[1], 0, 0, 0, 0, 0, 0])?;
    Ok(format!("{} {ordinal}", probe.name(status)))
}

/// What the driver says to the question whether device 0 reaches another.
pub(crate) fn peer(probe: &Probe, other: usize) -> Result<String, String> {
    let mut can = 0_i32;
    let answer = (&raw mut can).expose_provenance() as u64;
    let status = probe.driver.call("cuDeviceCanAccessPeer", [answer, 0, other as u64, 0, 0, 0, 0, 0])?;
    Ok(probe.name(status))
}

fn call(probe: &Probe, name: &str, [a, b, c]: [u64; 3]) -> Result<(), String> {
    match probe.driver.call(name, [a, b, c, 0, 0, 0, 0, 0])? {
        0 => Ok(()),
        status => Err(format!("{name} {}", probe.name(status))),
    }
}
