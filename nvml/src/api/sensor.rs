//! Temperature, power and clocks: facts of the board, and what the device measures where the operator lets guests see it.

use super::{known, put, versioned};
use crate::facts::{Known, device, facts};
use crate::live;
use crate::types::{
    ENABLED, Error, Result, nvmlClockId_t, nvmlClockType_t, nvmlDevice_t, nvmlEnableState_t,
    nvmlFieldValue_t, nvmlPstates_t, nvmlTemperature_t, nvmlTemperatureSensors_t,
    nvmlTemperatureThresholds_t,
};
use pxos_protocol::monitor::Sensors;
use pxos_protocol::types::attribute;
use std::ffi::{c_int, c_longlong, c_uint, c_ulonglong};
use std::time::{SystemTime, UNIX_EPOCH};

/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: nvmlTemperatureSensors_t = 0;
/// Temperature thresholds that NVML knows, up to the last.
const THRESHOLDS: u32 = 8;
/// `NVML_CLOCK_ID_CURRENT`, and `NVML_CLOCK_ID_CUSTOMER_BOOST_MAX`, the last.
const CLOCK_ID_CURRENT: nvmlClockId_t = 0;
const CLOCK_ID_LAST: nvmlClockId_t = 3;
/// `NVML_VALUE_TYPE_UNSIGNED_INT` and `NVML_VALUE_TYPE_UNSIGNED_LONG_LONG`.
const UNSIGNED_INT: c_uint = 1;
const UNSIGNED_LONG_LONG: c_uint = 3;

fn sensors(handle: nvmlDevice_t) -> Result<Sensors> {
    let place = device(handle)?.place;
    known(live::lately(facts()?)?.devices[place].sensors.clone())
}

/// Writes what `of` finds among the sensors.
///
/// # Safety
/// `to` is null or can be written.
unsafe fn put_sensor<T>(handle: nvmlDevice_t, to: *mut T, of: impl FnOnce(&Sensors) -> Option<T>) -> Result {
    let value = known(of(&sensors(handle)?))?;
    // SAFETY: the caller's.
    unsafe { put(to, value) }
}

/// Writes what `of` finds among the facts of the board.
///
/// # Safety
/// `to` is null or can be written.
unsafe fn put_fact<T>(handle: nvmlDevice_t, to: *mut T, of: impl FnOnce(&Known) -> Option<T>) -> Result {
    let value = known(of(device(handle)?))?;
    // SAFETY: the caller's.
    unsafe { put(to, value) }
}

macro_rules! sensor_functions {
    ($($name:ident $type:ty, $of:expr;)*) => { $(
        pub(crate) unsafe fn $name(handle: nvmlDevice_t, to: *mut $type) -> Result {
            // SAFETY: the entry point's contract.
            unsafe { put_sensor(handle, to, $of) }
        }
    )* };
}

sensor_functions! {
    nvmlDeviceGetFanSpeed c_uint, |sensors| sensors.fan;
    nvmlDeviceGetPowerUsage c_uint, |sensors| sensors.power;
    nvmlDeviceGetPowerManagementLimit c_uint, |sensors| sensors.power_limit;
    nvmlDeviceGetEnforcedPowerLimit c_uint, |sensors| sensors.power_limit;
    nvmlDeviceGetPowerManagementMode nvmlEnableState_t, |sensors| sensors.power.map(|_| ENABLED);
    nvmlDeviceGetTotalEnergyConsumption c_ulonglong, |sensors| sensors.energy;
    nvmlDeviceGetPerformanceState nvmlPstates_t, |sensors| sensors.performance_state;
    nvmlDeviceGetPowerState nvmlPstates_t, |sensors| sensors.performance_state;
    nvmlDeviceGetCurrentClocksThrottleReasons c_ulonglong, |sensors| sensors.clock_reasons;
    nvmlDeviceGetCurrentClocksEventReasons c_ulonglong, |sensors| sensors.clock_reasons;
    nvmlDeviceGetCurrPcieLinkGeneration c_uint, |sensors| sensors.pcie[0];
    nvmlDeviceGetCurrPcieLinkWidth c_uint, |sensors| sensors.pcie[1];
}

macro_rules! fact_functions {
    ($($name:ident $type:ty, $of:expr;)*) => { $(
        pub(crate) unsafe fn $name(handle: nvmlDevice_t, to: *mut $type) -> Result {
            // SAFETY: the entry point's contract.
            unsafe { put_fact(handle, to, $of) }
        }
    )* };
}

fact_functions! {
    nvmlDeviceGetMaxPcieLinkGeneration c_uint, |known| known.board.pcie[0];
    nvmlDeviceGetGpuMaxPcieLinkGeneration c_uint, |known| known.board.pcie[0];
    nvmlDeviceGetMaxPcieLinkWidth c_uint, |known| known.board.pcie[1];
    nvmlDeviceGetPowerManagementDefaultLimit c_uint, |known| known.board.power_limits[0];
}

pub(crate) unsafe fn nvmlDeviceGetPowerManagementLimitConstraints(
    handle: nvmlDevice_t,
    least: *mut c_uint,
    most: *mut c_uint,
) -> Result {
    // SAFETY: the entry point's contract.
    unsafe {
        put_fact(handle, least, |known| known.board.power_limits[1])?;
        put_fact(handle, most, |known| known.board.power_limits[2])
    }
}

pub(crate) unsafe fn nvmlDeviceGetTemperatureThreshold(
    handle: nvmlDevice_t,
    kind: nvmlTemperatureThresholds_t,
    to: *mut c_uint,
) -> Result {
    if kind >= THRESHOLDS {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: the entry point's contract.
    unsafe { put_fact(handle, to, |known| known.board.thresholds.get(kind as usize).copied().flatten()) }
}

pub(crate) unsafe fn nvmlDeviceGetTemperature(
    handle: nvmlDevice_t,
    sensor: nvmlTemperatureSensors_t,
    to: *mut c_uint,
) -> Result {
    if sensor != TEMPERATURE_GPU {
        return Err(Error::INVALID_ARGUMENT);
    }
    // SAFETY: the entry point's contract.
    unsafe { put_sensor(handle, to, |sensors| sensors.temperature) }
}

pub(crate) unsafe fn nvmlDeviceGetTemperatureV(handle: nvmlDevice_t, to: *mut nvmlTemperature_t) -> Result {
    // SAFETY: the entry point's contract.
    let asked = unsafe { versioned(to)? };
    if asked.sensorType != TEMPERATURE_GPU {
        return Err(Error::INVALID_ARGUMENT);
    }
    let degrees = known(sensors(handle)?.temperature)?;
    let temperature = c_int::try_from(degrees).unwrap_or(c_int::MAX);
    // SAFETY: the entry point's contract.
    unsafe { put(to, nvmlTemperature_t { temperature, ..asked }) }
}

pub(crate) unsafe fn nvmlDeviceGetClockInfo(
    handle: nvmlDevice_t,
    kind: nvmlClockType_t,
    to: *mut c_uint,
) -> Result {
    let kind = clock(kind)?;
    // SAFETY: the entry point's contract.
    unsafe { put_sensor(handle, to, |sensors| sensors.clocks[kind]) }
}

pub(crate) unsafe fn nvmlDeviceGetMaxClockInfo(
    handle: nvmlDevice_t,
    kind: nvmlClockType_t,
    to: *mut c_uint,
) -> Result {
    let kind = clock(kind)?;
    // SAFETY: the entry point's contract.
    unsafe { put_fact(handle, to, |known| known.board.max_clocks[kind]) }
}

pub(crate) unsafe fn nvmlDeviceGetClock(
    handle: nvmlDevice_t,
    kind: nvmlClockType_t,
    id: nvmlClockId_t,
    to: *mut c_uint,
) -> Result {
    match id {
        // SAFETY: the entry point's contract.
        CLOCK_ID_CURRENT => unsafe { nvmlDeviceGetClockInfo(handle, kind, to) },
        1..=CLOCK_ID_LAST => device(handle).and(Err(Error::NOT_SUPPORTED)),
        _ => Err(Error::INVALID_ARGUMENT),
    }
}

fn clock(kind: nvmlClockType_t) -> Result<usize> {
    Some(kind as usize).filter(|kind| *kind < 4).ok_or(Error::INVALID_ARGUMENT)
}

/// A field's type and bits, by its number (`NVML_FI_DEV_*`).
fn field(handle: nvmlDevice_t, id: c_uint) -> Result<(c_uint, u64)> {
    let int = |value: Option<u32>| Ok((UNSIGNED_INT, u64::from(known(value)?)));
    let known_device = device(handle)?;
    let limit = |index: usize| int(known_device.board.power_limits[index]);
    match id {
        // ECC now, and after the next reset.
        1 | 2 => int(u32::try_from(known_device.device.attribute(attribute::ECC_ENABLED)).ok()),
        82 => int(sensors(handle)?.memory_temperature),
        83 | 191 => Ok((UNSIGNED_LONG_LONG, known(sensors(handle)?.energy)?)),
        // Over a second, and now: the host's NVML is asked for one of the two.
        185 | 186 => int(sensors(handle)?.power),
        187 => limit(1),
        188 => limit(2),
        189 => limit(0),
        190 | 192 => int(sensors(handle)?.power_limit),
        _ => Err(Error::NOT_SUPPORTED),
    }
}

pub(crate) unsafe fn nvmlDeviceGetFieldValues(
    handle: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> Result {
    device(handle)?;
    let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(Error::INVALID_ARGUMENT)?;
    if values.is_null() {
        return Err(Error::INVALID_ARGUMENT);
    }
    for index in 0..count {
        // SAFETY: the entry point's contract: as many values as it says.
        let at = unsafe { values.add(index) };
        // SAFETY: as above.
        let mut value = unsafe { at.read() };
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        value.timestamp = c_longlong::try_from(micros).unwrap_or(0);
        value.latencyUsec = 0;
        match field(handle, value.fieldId) {
            Ok((kind, bits)) => (value.valueType, value.value, value.nvmlReturn) = (kind, bits, 0),
            Err(error) => value.nvmlReturn = error as c_int,
        }
        // SAFETY: as above.
        unsafe { at.write(value) };
    }
    Ok(())
}
