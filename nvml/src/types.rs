//! NVML's C types under NVML's own names, as nvml.h of CUDA 13 has them; structures with a version word carry the version that
//! is understood here.
#![expect(non_camel_case_types, reason = "the names are NVML's own")]
#![expect(non_snake_case, reason = "the names are NVML's own")]
#![expect(
    dead_code,
    reason = "many fields only programs read, and of many results there is only the text here"
)]

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong};

/// What a call answers: 0, or one of [`Error`].
pub(crate) type nvmlReturn_t = c_int;

macro_rules! errors {
    ($($name:ident = $value:literal $text:literal;)*) => {
        /// `nvmlReturn_t` other than success, by NVML's names without `NVML_ERROR_`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        #[expect(clippy::upper_case_acronyms, reason = "the names are NVML's own")]
        pub(crate) enum Error {
            $($name = $value,)*
        }

        /// What `nvmlErrorString` says of a result; `None` for a number that is no result.
        pub(crate) fn describe(result: nvmlReturn_t) -> Option<&'static std::ffi::CStr> {
            match result {
                0 => Some(c"Success"),
                $($value => Some($text),)*
                _ => None,
            }
        }
    };
}

errors! {
    UNINITIALIZED = 1 c"Uninitialized";
    INVALID_ARGUMENT = 2 c"Invalid Argument";
    NOT_SUPPORTED = 3 c"Not Supported";
    NO_PERMISSION = 4 c"Insufficient Permissions";
    ALREADY_INITIALIZED = 5 c"Already Initialized";
    NOT_FOUND = 6 c"Not Found";
    INSUFFICIENT_SIZE = 7 c"Insufficient Size";
    INSUFFICIENT_POWER = 8 c"Insufficient External Power";
    DRIVER_NOT_LOADED = 9 c"Driver Not Loaded";
    TIMEOUT = 10 c"Timeout";
    IRQ_ISSUE = 11 c"Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12 c"NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13 c"Function Not Found";
    CORRUPTED_INFOROM = 14 c"Corrupted infoROM";
    GPU_IS_LOST = 15 c"GPU is lost";
    RESET_REQUIRED = 16 c"GPU requires reset";
    OPERATING_SYSTEM = 17 c"The operating system has blocked the request";
    LIB_RM_VERSION_MISMATCH = 18 c"Driver/library version mismatch";
    IN_USE = 19 c"In use by another client";
    MEMORY = 20 c"Insufficient Memory";
    NO_DATA = 21 c"No data";
    VGPU_ECC_NOT_SUPPORTED = 22 c"The requested vgpu operation is not available on target device, because ECC is enabled";
    INSUFFICIENT_RESOURCES = 23 c"Insufficient resources";
    FREQ_NOT_SUPPORTED = 24 c"Frequency not supported";
    ARGUMENT_VERSION_MISMATCH = 25 c"The provided version is invalid/unsupported";
    DEPRECATED = 26 c"The requested functionality has been deprecated";
    NOT_READY = 27 c"The system is not ready for the request";
    GPU_NOT_FOUND = 28 c"No GPUs were found";
    INVALID_STATE = 29 c"Resource not in correct state to perform requested operation";
    RESET_TYPE_NOT_SUPPORTED = 30 c"Reset type not supported";
    UNKNOWN = 999 c"Unknown Error";
}

/// What bodies of functions answer.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// `NVML_VALUE_NOT_AVAILABLE` of a number of 64 bits.
pub(crate) const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// `NVML_FEATURE_DISABLED`.
pub(crate) const DISABLED: nvmlEnableState_t = 0;
/// `NVML_FEATURE_ENABLED`.
pub(crate) const ENABLED: nvmlEnableState_t = 1;

/// A device: an address that stands for its number. Programs only hand it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct nvmlDevice_t(pub(crate) *mut std::ffi::c_void);

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct nvmlEventSet_t(pub(crate) *mut std::ffi::c_void);

pub(crate) type nvmlEnableState_t = c_uint;
pub(crate) type nvmlBrandType_t = c_uint;
pub(crate) type nvmlBusType_t = c_uint;
pub(crate) type nvmlClockType_t = c_uint;
pub(crate) type nvmlClockId_t = c_uint;
pub(crate) type nvmlTemperatureThresholds_t = c_uint;
pub(crate) type nvmlTemperatureSensors_t = c_uint;
pub(crate) type nvmlPstates_t = c_uint;
pub(crate) type nvmlComputeMode_t = c_uint;
pub(crate) type nvmlDeviceArchitecture_t = c_uint;
pub(crate) type nvmlGpuTopologyLevel_t = c_uint;
pub(crate) type nvmlGpuP2PStatus_t = c_uint;
pub(crate) type nvmlGpuP2PCapsIndex_t = c_uint;

/// The version word of a structure: its size, and its version in the highest byte (`NVML_STRUCT_VERSION`).
const fn version_word<T>(version: u32) -> c_uint {
    #[expect(clippy::cast_possible_truncation, reason = "structures of NVML are short")]
    let size = size_of::<T>() as u32;
    size | version << 24
}

/// A structure whose first word is its version word, which says how long it is.
///
/// # Safety
/// The implementor is `repr(C)`, begins with that word, and any pattern of bits is a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// The one version that is understood.
    const VERSION: c_uint;
}

macro_rules! versioned {
    ($($name:ident $version:literal $size:literal;)*) => { $(
        // SAFETY: `repr(C)` with the word first; numbers, bytes and pointers, which are not followed unchecked.
        unsafe impl Versioned for $name {
            const VERSION: c_uint = version_word::<Self>($version);
        }
        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

versioned! {
    nvmlMemory_v2_t 2 40;
    nvmlPciInfoExt_t 1 64;
    nvmlUUID_t 1 52;
    nvmlTemperature_t 1 12;
    nvmlSystemDriverBranchInfo_t 1 84;
    nvmlProcessDetailList_t 1 24;
    nvmlProcessesUtilizationInfo_t 1 24;
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

structs! {
    /// Memory, version 1.
    nvmlMemory_t 24 { total: c_ulonglong, free: c_ulonglong, used: c_ulonglong, }
    /// Memory, version 2.
    nvmlMemory_v2_t 40 {
        version: c_uint, total: c_ulonglong, reserved: c_ulonglong, free: c_ulonglong, used: c_ulonglong,
    }
    /// PCI ids of `nvmlDeviceGetPciInfo_v3`. Version 1 of the call knows it up to `pciDeviceId`, version 2 up to `pciSubSystemId`.
    nvmlPciInfo_t 68 {
        busIdLegacy: [u8; 16], domain: c_uint, bus: c_uint, device: c_uint, pciDeviceId: c_uint,
        pciSubSystemId: c_uint, busId: [u8; 32],
    }
    /// PCI ids with the class of the device.
    nvmlPciInfoExt_t 64 {
        version: c_uint, domain: c_uint, bus: c_uint, device: c_uint, pciDeviceId: c_uint, pciSubSystemId: c_uint,
        baseClass: c_uint, subClass: c_uint, busId: [u8; 32],
    }
    /// A UUID as text (type 1) or as bytes (type 2).
    nvmlUUID_t 52 { version: c_uint, kind: c_uint, value: [u8; 41], }
    /// Percent of the time.
    nvmlUtilization_t 8 { gpu: c_uint, memory: c_uint, }
    /// A process, version 1.
    nvmlProcessInfo_v1_t 16 { pid: c_uint, usedGpuMemory: c_ulonglong, }
    /// A process, versions 2 and 3 of the call.
    nvmlProcessInfo_t 24 {
        pid: c_uint, usedGpuMemory: c_ulonglong, gpuInstanceId: c_uint, computeInstanceId: c_uint,
    }
    /// A process of a detailed list.
    nvmlProcessDetail_t 32 {
        pid: c_uint, usedGpuMemory: c_ulonglong, gpuInstanceId: c_uint, computeInstanceId: c_uint,
        usedGpuCcProtectedMemory: c_ulonglong,
    }
    /// The list; the program brings the array.
    nvmlProcessDetailList_t 24 {
        version: c_uint, mode: c_uint, numProcArrayEntries: c_uint, procArray: *mut nvmlProcessDetail_t,
    }
    /// What a process had of the device.
    nvmlProcessUtilizationSample_t 32 {
        pid: c_uint, timeStamp: c_ulonglong, smUtil: c_uint, memUtil: c_uint, encUtil: c_uint, decUtil: c_uint,
    }
    /// The same, with the engines of newer devices.
    nvmlProcessUtilizationInfo_t 40 {
        timeStamp: c_ulonglong, pid: c_uint, smUtil: c_uint, memUtil: c_uint, encUtil: c_uint, decUtil: c_uint,
        jpgUtil: c_uint, ofaUtil: c_uint,
    }
    /// The list; the program brings the array.
    nvmlProcessesUtilizationInfo_t 24 {
        version: c_uint, processSamplesCount: c_uint, lastSeenTimeStamp: c_ulonglong,
        procUtilArray: *mut nvmlProcessUtilizationInfo_t,
    }
    /// A temperature.
    nvmlTemperature_t 12 { version: c_uint, sensorType: c_uint, temperature: c_int, }
    /// The branch of the driver.
    nvmlSystemDriverBranchInfo_t 84 { version: c_uint, branch: [c_char; 80], }
    /// Firmware of a host interface card, of which there is none.
    nvmlHwbcEntry_t 36 { hwbcId: c_uint, firmwareVersion: [c_char; 32], }
    /// An event, of which there is none.
    nvmlEventData_t 32 {
        device: nvmlDevice_t, eventType: c_ulonglong, eventData: c_ulonglong, gpuInstanceId: c_uint,
        computeInstanceId: c_uint,
    }
    /// A value that is asked for by number; `value` is a union.
    nvmlFieldValue_t 40 {
        fieldId: c_uint, scopeId: c_uint, timestamp: c_longlong, latencyUsec: c_longlong, valueType: c_uint,
        nvmlReturn: nvmlReturn_t, value: u64,
    }
}

/// Version 2 is what version 3 of the call takes, too.
pub(crate) type nvmlProcessInfo_v2_t = nvmlProcessInfo_t;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_words_are_nvmls() {
        // As programs compiled with nvml.h of CUDA 13 have them.
        assert_eq!(nvmlMemory_v2_t::VERSION, 0x0200_0028);
        assert_eq!(nvmlPciInfoExt_t::VERSION, 0x0100_0040);
        assert_eq!(nvmlUUID_t::VERSION, 0x0100_0034);
        assert_eq!(nvmlProcessDetailList_t::VERSION, 0x0100_0018);
        assert_eq!(nvmlSystemDriverBranchInfo_t::VERSION, 0x0100_0054);
    }

    #[test]
    fn results_have_texts() {
        assert_eq!(describe(0), Some(c"Success"));
        assert_eq!(describe(Error::NOT_SUPPORTED as i32), Some(c"Not Supported"));
        assert_eq!(describe(31), None);
    }
}
