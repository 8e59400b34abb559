//! Error handling (CUDA driver API, section "Error handling"). The texts are the real driver's, so that a program
//! that prints them prints the same (measured, driver 580).

use super::driver_fns;
use pxos_protocol::types::CUresult;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

driver_fns! {
    /// The name of an error number.
    early fn cuGetErrorName(error: CUresult, text: *mut *const c_char) {
        let found = names().iter().find(|(number, _)| *number == error).map(|(_, name)| name.as_ptr());
        text.put(found.unwrap_or(std::ptr::null()))?;
        found.map(drop).ok_or(CUresult::ERROR_INVALID_VALUE)
    }

    /// The description of an error number.
    early fn cuGetErrorString(error: CUresult, text: *mut *const c_char) {
        let found = TEXTS.iter().find(|(number, _)| *number == error.0).map(|(_, text)| text.as_ptr());
        text.put(found.unwrap_or(std::ptr::null()))?;
        found.map(drop).ok_or(CUresult::ERROR_INVALID_VALUE)
    }
}

/// Says on standard error what the user of the library should know; at most a few times per process.
pub(crate) fn report(message: &str) {
    #[expect(clippy::print_stderr, reason = "a library without a log; only for what makes a program fail")]
    {
        eprintln!("pxsoft: {message}");
    }
}

/// The names as C strings, made once.
fn names() -> &'static [(CUresult, std::ffi::CString)] {
    static NAMES: OnceLock<Vec<(CUresult, std::ffi::CString)>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let c_string = |name: &str| std::ffi::CString::new(name).expect("names hold no NUL");
        CUresult::ALL.iter().map(|(name, number)| (*number, c_string(name))).collect()
    })
}

/// What `cuGetErrorString` says.
const TEXTS: &[(u32, &CStr)] = &[
    (0, c"no error"),
    (1, c"invalid argument"),
    (2, c"out of memory"),
    (3, c"initialization error"),
    (4, c"driver shutting down"),
    (5, c"profiler disabled while using external profiling tool"),
    (6, c"profiler not initialized: call cudaProfilerInitialize()"),
    (7, c"profiler already started"),
    (8, c"profiler already stopped"),
    (34, c"CUDA driver is a stub library"),
    (36, c"API call is not supported in the installed CUDA driver"),
    (46, c"CUDA-capable device(s) is/are busy or unavailable"),
    (100, c"no CUDA-capable device is detected"),
    (101, c"invalid device ordinal"),
    (102, c"device doesn't have valid Grid license"),
    (200, c"device kernel image is invalid"),
    (201, c"invalid device context"),
    (202, c"context already current"),
    (205, c"mapping of buffer object failed"),
    (206, c"unmapping of buffer object failed"),
    (207, c"array is mapped"),
    (208, c"resource already mapped"),
    (209, c"no kernel image is available for execution on the device"),
    (210, c"resource already acquired"),
    (211, c"resource not mapped"),
    (212, c"resource not mapped as array"),
    (213, c"resource not mapped as pointer"),
    (214, c"uncorrectable ECC error encountered"),
    (215, c"limit is not supported on this architecture"),
    (216, c"exclusive-thread device already in use by a different thread"),
    (217, c"peer access is not supported between these two devices"),
    (218, c"a PTX JIT compilation failed"),
    (219, c"invalid OpenGL or DirectX context"),
    (220, c"uncorrectable NVLink error detected during the execution"),
    (221, c"PTX JIT compiler library not found"),
    (222, c"the provided PTX was compiled with an unsupported toolchain."),
    (223, c"PTX JIT compilation was disabled"),
    (224, c"the provided execution affinity is not supported"),
    (225, c"the provided PTX contains unsupported call to cudaDeviceSynchronize"),
    (226, c"Invalid access of peer GPU memory over nvlink or a hardware error"),
    (300, c"device kernel image is invalid"),
    (301, c"file not found"),
    (302, c"shared object symbol not found"),
    (303, c"shared object initialization failed"),
    (304, c"OS call failed or operation not supported on this OS"),
    (400, c"invalid resource handle"),
    (401, c"the operation cannot be performed in the present state"),
    (402, c"attempted introspection would be semantically lossy"),
    (500, c"named symbol not found"),
    (600, c"device not ready"),
    (700, c"an illegal memory access was encountered"),
    (701, c"too many resources requested for launch"),
    (702, c"the launch timed out and was terminated"),
    (703, c"launch uses incompatible texturing mode"),
    (704, c"peer access is already enabled"),
    (705, c"peer access has not been enabled"),
    (708, c"cannot set while device is active in this process"),
    (709, c"context is destroyed"),
    (710, c"device-side assert triggered"),
    (711, c"peer mapping resources exhausted"),
    (712, c"part or all of the requested memory range is already mapped"),
    (713, c"pointer does not correspond to a registered memory region"),
    (714, c"hardware stack error"),
    (715, c"an illegal instruction was encountered"),
    (716, c"misaligned address"),
    (717, c"operation not supported on global/shared address space"),
    (718, c"invalid program counter"),
    (719, c"unspecified launch failure"),
    (720, c"too many blocks in cooperative launch"),
    (721, c"tensor memory not completely freed"),
    (800, c"operation not permitted"),
    (801, c"operation not supported"),
    (802, c"system not yet initialized"),
    (803, c"system has unsupported display driver / cuda driver combination"),
    (804, c"forward compatibility was attempted on non supported HW"),
    (805, c"MPS client failed to connect to the MPS control daemon or the MPS server"),
    (806, c"the remote procedural call between the MPS server and the MPS client failed"),
    (807, c"MPS server is not ready to accept new MPS client requests"),
    (808, c"the hardware resources required to create MPS client have been exhausted"),
    (809, c"the hardware resources required to support device connections have been exhausted"),
    (810, c"the MPS client has been terminated by the server"),
    (811, c"is using CUDA Dynamic Parallelism, but the current configuration, like MPS, does not support it"),
    (812, c"unsupported interaction between different versions of CUDA Dynamic Parallelism"),
    (900, c"operation not permitted when stream is capturing"),
    (901, c"operation failed due to a previous error during capture"),
    (902, c"operation would result in a merge of separate capture sequences"),
    (903, c"capture was not ended in the same stream as it began"),
    (904, c"capturing stream has unjoined work"),
    (905, c"dependency created on uncaptured work in another stream"),
    (906, c"operation would make the legacy stream depend on a capturing blocking stream"),
    (907, c"operation not permitted on an event last recorded in a capturing stream"),
    (908, c"attempt to terminate a thread-local capture sequence from another thread"),
    (909, c"wait operation timed out"),
    (910, c"the graph update was not performed because it included changes which violated constraints specific to instantiated graph update"),
    (911, c"an async error has occured in external entity outside of CUDA"),
    (912, c"a kernel launch error has occurred due to cluster misconfiguration"),
    (913, c"the function handle is not loaded when calling an API that requires a loaded function"),
    (914, c"one or more resources passed in are not valid resource types for the operation"),
    (915, c"one or more resources are insufficient or non-applicable for the operation"),
    (916, c"an error happened during the key rotation sequence"),
    (999, c"unknown error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_name_and_a_text() {
        for (name, number) in CUresult::ALL {
            assert!(TEXTS.iter().any(|(known, _)| *known == number.0), "{name}");
        }
        assert_eq!(TEXTS.len(), CUresult::ALL.len());
        let mut text = std::ptr::null();
        // SAFETY: the pointer is to a local.
        assert_eq!(unsafe { cuGetErrorString(CUresult(46), &raw mut text) }, CUresult::SUCCESS);
        // SAFETY: just written.
        let text = unsafe { CStr::from_ptr(text) };
        assert_eq!(text.to_str().unwrap(), "CUDA-capable device(s) is/are busy or unavailable");
        let mut text = std::ptr::dangling();
        // SAFETY: the pointer is to a local.
        assert_eq!(unsafe { cuGetErrorName(CUresult(12345), &raw mut text) }, CUresult::ERROR_INVALID_VALUE);
        assert!(text.is_null());
    }
}
