//! Initialisation, version, entry points (CUDA driver API, sections "Initialization", "Version management" and
//! "Driver entry point access"), and the bridge to what the CUDA runtime asks beside the public API.

use super::{Answer, driver_fns, error};
use crate::device::{context, initialise, platform};
use crate::entry;
use pxos_cudart::procaddress::{Lookup, lookup};
use pxos_cudart::{DeviceIdentity, Driver};
use pxos_protocol::types::{
    CUcontext, CUdriverProcAddressQueryResult, CUmodule, CUresult, CUstream, CUuuid, attribute,
};
use std::ffi::{c_char, c_int, c_uint, c_void};

/// The version of CUDA that this library speaks.
pub(crate) const DRIVER_VERSION: c_int = 13000;

driver_fns! {
    /// Makes the devices.
    early fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        initialise()?;
        pxos_cudart::install(&Bridge);
        Ok(())
    }

    /// The version of CUDA that this library speaks.
    early fn cuDriverGetVersion(version: *mut c_int) {
        version.put(DRIVER_VERSION)
    }

    /// The address of a function; its first form, which knows only "found" and "not found".
    early fn cuGetProcAddress(symbol: *const c_char, pfn: *mut *mut c_void, version: c_int, flags: u64) {
        let (symbol, pfn) = (symbol.text()?, pfn.required()?);
        match lookup(&symbol, version, flags) {
            Lookup::Found(name) => pfn.put(entry::address(name).ok_or(CUresult::ERROR_NOT_FOUND)?.cast_mut()),
            Lookup::NotFound | Lookup::VersionNotSufficient => Err(CUresult::ERROR_NOT_FOUND),
            Lookup::Invalid => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// The address of a function.
    early fn cuGetProcAddress_v2(
        symbol: *const c_char,
        pfn: *mut *mut c_void,
        version: c_int,
        flags: u64,
        status: *mut CUdriverProcAddressQueryResult,
    ) {
        let (symbol, pfn) = (symbol.text()?, pfn.required()?);
        let (address, found) = match lookup(&symbol, version, flags) {
            Lookup::Found(name) => entry::address(name).map_or((std::ptr::null(), 1), |address| (address, 0)),
            Lookup::NotFound => (std::ptr::null(), 1),
            Lookup::VersionNotSufficient => (std::ptr::null(), 2),
            Lookup::Invalid => return Err(CUresult::ERROR_INVALID_VALUE),
        };
        status.put_if_wanted(found);
        pfn.put(address.cast_mut())
    }

    /// A table of functions that no public header describes.
    early fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) {
        // SAFETY: both pointers are the caller's, null or valid as for this function.
        CUresult(unsafe { pxos_cudart::tables::get_export_table(table.raw(), id.raw().cast()) }).ok()
    }

    /// Starts the old profiler; there is none.
    ready fn cuProfilerInitialize(_config: *const c_char, _output: *const c_char, _mode: c_uint) {
        Err(CUresult::ERROR_NOT_SUPPORTED)
    }

    /// Begins the part that a profiler should see.
    ready fn cuProfilerStart() {
        context::current().map(drop)
    }

    /// Ends it.
    ready fn cuProfilerStop() {
        context::current().map(drop)
    }
}

/// What the CUDA runtime's tables ask of this library.
#[derive(Debug)]
struct Bridge;

fn number<T>(answer: Answer<T>) -> Result<T, u32> {
    answer.map_err(|error| error.0)
}

impl Driver for Bridge {
    fn driver_version(&self) -> i32 {
        DRIVER_VERSION
    }

    fn devices(&self) -> Vec<DeviceIdentity> {
        let Ok(platform) = platform() else { return Vec::new() };
        let identity = |device: &std::sync::Arc<crate::device::Device>| DeviceIdentity {
            uuid: device.uuid().bytes,
            pci_domain: device.attribute(attribute::PCI_DOMAIN_ID).unwrap_or(0),
            pci_bus: device.attribute(attribute::PCI_BUS_ID).unwrap_or(0),
            pci_device: device.attribute(attribute::PCI_DEVICE_ID).unwrap_or(0),
        };
        platform.devices().iter().map(identity).collect()
    }

    fn primary_context(&self, device: i32) -> Result<u64, u32> {
        number(platform().and_then(|platform| Ok(platform.device(device)?.primary().handle.0)))
    }

    fn current_context(&self) -> u64 {
        context::top_handle().0
    }

    fn context_is_active(&self, context: u64) -> bool {
        context::named(CUcontext(context)).is_ok_and(|context| context.active().is_some())
    }

    fn context_id(&self, context: u64) -> Result<u64, u32> {
        number(super::context::id_of(CUcontext(context)))
    }

    fn stream_id(&self, context: u64, stream: u64) -> Result<u64, u32> {
        number(super::stream::id_in(CUcontext(context), CUstream(stream)))
    }

    fn module_load(&self, image: *const c_void) -> Result<u64, u32> {
        number(super::module::load_pointer(image).map(|module| module.0))
    }

    fn module_functions(&self, module: u64) -> Result<Vec<u64>, u32> {
        number(super::module::functions_of(CUmodule(module)))
    }

    fn unsupported_slot(&self, table: &'static str, slot: usize) {
        error::report(&format!("the CUDA runtime called {table}[{slot}], which is not implemented"));
    }
}
