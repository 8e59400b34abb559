//! Device management (CUDA driver API, sections "Device management" and "Primary context management").

use super::driver_fns;
use crate::device::{attribute, context, platform};
use pxos_protocol::types::attribute as number;
use pxos_protocol::types::{
    CUarray_format, CUcontext, CUdevice, CUdevice_P2PAttribute, CUdevice_attribute, CUdevprop,
    CUexecAffinityType, CUresult, CUuuid,
};
use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::Ordering;

driver_fns! {
    /// The device with an ordinal.
    ready fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) {
        let device = device.required()?;
        device.put(platform()?.device(ordinal)?.ordinal)
    }

    /// How many devices there are.
    ready fn cuDeviceGetCount(count: *mut c_int) {
        let devices = platform()?.devices().len();
        count.put(c_int::try_from(devices).expect("at most 64 devices are made"))
    }

    /// The name of a device, cut to fit.
    ready fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) {
        platform()?.device(dev)?;
        // With NULs up to 63 bytes, and one more (measured).
        name.put_text(&format!("{:\0<63}", attribute::NAME), len)
    }

    /// The UUID of a device.
    ready fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) {
        uuid.put(platform()?.device(dev)?.uuid())
    }

    /// The UUID of a device.
    ready fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) {
        uuid.put(platform()?.device(dev)?.uuid())
    }

    /// The LUID of a device, which only Windows has.
    ready fn cuDeviceGetLuid(_luid: *mut c_char, _mask: *mut c_uint, dev: CUdevice) {
        platform()?.device(dev)?;
        Err(CUresult::ERROR_NOT_SUPPORTED)
    }

    /// The memory of a device in bytes.
    ready fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) {
        let capacity = platform()?.device(dev)?.memory.capacity();
        bytes.put(usize::try_from(capacity).expect("addresses have 64 bits here"))
    }

    /// The memory of a device as the first CUDA had it: at most 4 GiB less a byte.
    ready fn cuDeviceTotalMem(bytes: *mut c_uint, dev: CUdevice) {
        let capacity = platform()?.device(dev)?.memory.capacity();
        bytes.put(c_uint::try_from(capacity).unwrap_or(c_uint::MAX))
    }

    /// The longest one-dimensional texture in linear memory: 4 GiB of elements (measured).
    ready fn cuDeviceGetTexture1DLinearMaxWidth(width: *mut usize, format: CUarray_format, channels: c_uint, dev: CUdevice) {
        platform()?.device(dev)?;
        let element = match format {
            0x01 | 0x08 => 1usize,
            0x02 | 0x09 | 0x10 => 2,
            0x03 | 0x0a | 0x20 => 4,
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        let channels = match channels {
            1 | 2 | 4 => channels as usize,
            _ => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        width.put((1 << 32) / (element * channels))
    }

    /// A device attribute.
    ready fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, dev: CUdevice) {
        let value = value.required()?;
        let answer = platform()?.device(dev)?.attribute(attribute);
        value.put(answer.ok_or(CUresult::ERROR_INVALID_VALUE)?)
    }

    /// Whether contexts may be bound to some of the multiprocessors: no.
    ready fn cuDeviceGetExecAffinitySupport(supported: *mut c_int, _kind: CUexecAffinityType, dev: CUdevice) {
        platform()?.device(dev)?;
        supported.put(0)
    }

    /// The properties that CUDA had before attributes.
    ready fn cuDeviceGetProperties(properties: *mut CUdevprop, dev: CUdevice) {
        let device = platform()?.device(dev)?;
        let get = |attribute| device.attribute(attribute).unwrap_or(0);
        properties.put(CUdevprop {
            max_threads_per_block: get(number::MAX_THREADS_PER_BLOCK),
            max_threads_dim: [get(number::MAX_BLOCK_DIM_X), get(number::MAX_BLOCK_DIM_Y), get(number::MAX_BLOCK_DIM_Z)],
            max_grid_size: [get(number::MAX_GRID_DIM_X), get(number::MAX_GRID_DIM_Y), get(number::MAX_GRID_DIM_Z)],
            shared_mem_per_block: get(number::MAX_SHARED_MEMORY_PER_BLOCK),
            total_constant_memory: get(number::TOTAL_CONSTANT_MEMORY),
            simd_width: get(number::WARP_SIZE),
            mem_pitch: get(number::MAX_PITCH),
            regs_per_block: get(number::MAX_REGISTERS_PER_BLOCK),
            clock_rate: get(number::CLOCK_RATE),
            texture_align: get(number::TEXTURE_ALIGNMENT),
        })
    }

    /// The compute capability.
    ready fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: CUdevice) {
        let device = platform()?.device(dev)?;
        major.put(device.attribute(number::COMPUTE_CAPABILITY_MAJOR).unwrap_or(0))?;
        minor.put(device.attribute(number::COMPUTE_CAPABILITY_MINOR).unwrap_or(0))
    }

    /// The device with a PCI bus id: `[domain:]bus:device[.function]`, hexadecimal.
    ready fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, bus_id: *const c_char) {
        let (dev, text) = (dev.required()?, bus_id.text()?);
        let wanted = parse_bus_id(&text).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let found = platform()?.devices().iter().find(|device| parse_bus_id(&device.pci_bus_id()) == Some(wanted));
        dev.put(found.ok_or(CUresult::ERROR_INVALID_DEVICE)?.ordinal)
    }

    /// The PCI bus id of a device; refused where it does not fit whole (measured).
    ready fn cuDeviceGetPCIBusId(bus_id: *mut c_char, len: c_int, dev: CUdevice) {
        let text = platform()?.device(dev)?.pci_bus_id();
        bus_id.put_text(&text, len)?;
        if usize::try_from(len).is_ok_and(|room| room > text.len()) { Ok(()) } else { Err(CUresult::ERROR_INVALID_VALUE) }
    }

    /// Whether one device reaches another one's memory: no.
    ready fn cuDeviceCanAccessPeer(can: *mut c_int, dev: CUdevice, peer: CUdevice) {
        platform()?.device(dev)?;
        platform()?.device(peer)?;
        can.put(0)
    }

    /// How two devices are linked: not at all.
    ready fn cuDeviceGetP2PAttribute(value: *mut c_int, attribute: CUdevice_P2PAttribute, source: CUdevice, destination: CUdevice) {
        let value = value.required()?;
        platform()?.device(source)?;
        platform()?.device(destination)?;
        if source == destination {
            // Measured.
            return Err(CUresult::ERROR_INVALID_DEVICE);
        }
        if !(1..=5).contains(&attribute) {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        value.put(0)
    }

    /// Retains the primary context, making it active.
    ready fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, dev: CUdevice) {
        let (context, primary) = (context.required()?, platform()?.device(dev)?.primary());
        primary.retain()?;
        context.put(primary.handle)
    }

    /// Releases the primary context.
    ready fn cuDevicePrimaryCtxRelease(dev: CUdevice) {
        platform()?.device(dev)?.primary().release()
    }

    /// Releases the primary context.
    ready fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) {
        platform()?.device(dev)?.primary().release()
    }

    /// Sets the flags of the primary context.
    ready fn cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint) {
        set_flags(dev, flags)
    }

    /// Sets the flags of the primary context.
    ready fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint) {
        set_flags(dev, flags)
    }

    /// The flags of the primary context, and whether it is active.
    ready fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int) {
        let primary = platform()?.device(dev)?.primary();
        let (flags, active) = (flags.required()?, active.required()?);
        flags.put(primary.flags.load(Ordering::Relaxed))?;
        active.put(c_int::from(primary.active().is_some()))
    }

    /// Ends the primary context, whoever retains it.
    ready fn cuDevicePrimaryCtxReset(dev: CUdevice) {
        platform()?.device(dev)?.primary().reset();
        Ok(())
    }

    /// Ends the primary context, whoever retains it.
    ready fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) {
        platform()?.device(dev)?.primary().reset();
        Ok(())
    }

    /// Makes writes of other PCI devices visible; there are none.
    ready fn cuFlushGPUDirectRDMAWrites(_target: c_uint, _scope: c_uint) {
        context::current()?;
        Err(CUresult::ERROR_NOT_SUPPORTED)
    }
}

fn set_flags(dev: CUdevice, flags: c_uint) -> super::Answer {
    let primary = platform()?.device(dev)?.primary();
    super::context::check_flags(flags)?;
    primary.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

/// Domain, bus, device and function of a bus id.
fn parse_bus_id(text: &str) -> Option<[u32; 4]> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_ids_are_read_in_both_forms() {
        assert_eq!(parse_bus_id("0000:0A:00.0"), Some([0, 10, 0, 0]));
        assert_eq!(parse_bus_id("0a:00.0"), Some([0, 10, 0, 0]));
        assert_eq!(parse_bus_id("1:2:3"), Some([1, 2, 3, 0]));
        assert_eq!(parse_bus_id("zzz"), None);
    }
}
