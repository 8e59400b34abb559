//! Attributes of functions and kernels.

use super::{KERNELS, Probe};
use std::ffi::CString;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: u32 = 8;

/// Sets an attribute of a function to one value `count` times, then to another, and back; what it is after each.
pub(crate) fn of_function(probe: &Probe, count: usize) -> String {
    let mut told = Vec::new();
    for (value, times) in [(1024, count), (2048, 1), (1024, 1)] {
        for _ in 0..times {
            // SAFETY: plain values.
            let status = unsafe { (probe.driver.cuFuncSetAttribute)(probe.empty, MAX_DYNAMIC_SHARED, value) };
            if status != 0 {
                return probe.name(status);
            }
        }
        let mut now = 0;
        // SAFETY: a pointer to a local.
        unsafe { (probe.driver.cuFuncGetAttribute)(&raw mut now, MAX_DYNAMIC_SHARED, probe.empty) };
        told.push(now.to_string());
    }
    told.join(" ")
}

/// Sets an attribute of a kernel on the second device, and says what it is on the first and on the second.
pub(crate) fn of_kernel(probe: &Probe) -> Result<String, String> {
    let call = |name: &str, arguments: [u64; 8]| match probe.driver.call(name, arguments)? {
        0 => Ok(()),
        status => Err(format!("{name}: {}", probe.name(status))),
    };
    let image = CString::new(KERNELS).expect("a text without NUL");
    let (mut library, mut kernel, mut told) = (0_u64, 0_u64, [0_i32; 2]);
    let address = |place: *mut u64| place.expose_provenance() as u64;
    let code = image.as_ptr().expose_provenance() as u64;
    call("cuLibraryLoadData", [address(&raw mut library), code, 0, 0, 0, 0, 0, 0])?;
    let name = c"empty".as_ptr().expose_provenance() as u64;
    call("cuLibraryGetKernel", [address(&raw mut kernel), library, name, 0, 0, 0, 0, 0])?;
    call("cuKernelSetAttribute", [MAX_DYNAMIC_SHARED.into(), 2048, kernel, 1, 0, 0, 0, 0])?;
    for (device, told) in (0..).zip(&mut told) {
        let place = (&raw mut *told).expose_provenance() as u64;
        call("cuKernelGetAttribute", [place, MAX_DYNAMIC_SHARED.into(), kernel, device, 0, 0, 0, 0])?;
    }
    Ok(format!("{} {}", told[0], told[1]))
}
