//! Initialisation, version, errors, entry points: everything here is answered in the guest.

use super::{Result, put};
use crate::lock;
use crate::session::{Session, existing, initialise, session};
use pxos_cudart::procaddress::{DRIVER_VERSION, Lookup, lookup};
use pxos_cudart::{DeviceIdentity, tables};
use pxos_protocol::types::attribute::{PCI_BUS_ID, PCI_DEVICE_ID, PCI_DOMAIN_ID};
use pxos_protocol::types::{CUdriverProcAddressQueryResult, CUresult, CUuuid};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};

pub(crate) unsafe fn cuInit(Flags: c_uint) -> Result {
    if Flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let session = initialise()?;
    pxos_cudart::install(&Contract);
    if session.snapshot.devices.is_empty() { Err(CUresult::ERROR_NO_DEVICE) } else { Ok(()) }
}

pub(crate) unsafe fn cuDriverGetVersion(driverVersion: *mut c_int) -> Result {
    // Asked before cuInit by cudart 13.1 and later; the version is part of what this library is.
    // SAFETY: the entry point's contract.
    unsafe { put(driverVersion, DRIVER_VERSION) }
}

/// Texts that live as long as the process, made once per error number.
fn error_text(error: CUresult, string: bool) -> Option<*const c_char> {
    static TEXTS: Mutex<Option<HashMap<(u32, bool), CString>>> = Mutex::new(None);
    let name = error.name()?;
    let text = if string {
        let known = existing().and_then(|session| {
            let strings = &session.snapshot.error_strings;
            strings.iter().find(|(number, _)| *number == error.0).map(|(_, text)| text.clone())
        });
        known.unwrap_or_else(|| plain_wording(name))
    } else {
        name.to_owned()
    };
    let mut texts = lock(&TEXTS);
    let texts = texts.get_or_insert_default();
    // An entry is never replaced, so that a pointer once handed out stays valid.
    let text = texts.entry((error.0, string)).or_insert_with(|| CString::new(text).unwrap_or_default());
    Some(text.as_ptr())
}

/// What an error is called before a server has told the driver's own wording.
fn plain_wording(name: &str) -> String {
    match name {
        "CUDA_SUCCESS" => "no error".into(),
        "CUDA_ERROR_INVALID_VALUE" => "invalid argument".into(),
        "CUDA_ERROR_NOT_INITIALIZED" => "initialization error".into(),
        "CUDA_ERROR_NO_DEVICE" => "no CUDA-capable device is detected".into(),
        name => name.trim_start_matches("CUDA_ERROR_").to_lowercase().replace('_', " "),
    }
}

pub(crate) unsafe fn cuGetErrorString(error: CUresult, pStr: *mut *const c_char) -> Result {
    let text = error_text(error, true);
    // SAFETY: the entry point's contract.
    unsafe { put(pStr, text.unwrap_or(std::ptr::null())) }?;
    text.map(|_| ()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

pub(crate) unsafe fn cuGetErrorName(error: CUresult, pStr: *mut *const c_char) -> Result {
    let text = error_text(error, false);
    // SAFETY: the entry point's contract.
    unsafe { put(pStr, text.unwrap_or(std::ptr::null())) }?;
    text.map(|_| ()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// Looks `symbol` up and gives its address.
unsafe fn proc_address(symbol: *const c_char, version: c_int, flags: u64) -> Result<(Lookup, *mut c_void)> {
    if symbol.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and a C string by the entry point's contract.
    let name = unsafe { CStr::from_ptr(symbol) }.to_string_lossy();
    let found = lookup(&name, version, flags);
    let address = match found {
        Lookup::Found(symbol) => crate::entry::address_of(symbol),
        _ => None,
    };
    Ok((found, address.unwrap_or(std::ptr::null_mut())))
}

pub(crate) unsafe fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: c_int,
    flags: u64,
) -> Result {
    // SAFETY: the entry point's contract.
    let (found, address) = unsafe { proc_address(symbol, cudaVersion, flags)? };
    match found {
        // SAFETY: the entry point's contract.
        Lookup::Found(_) if !address.is_null() => unsafe { put(pfn, address) },
        Lookup::Invalid => Err(CUresult::ERROR_INVALID_VALUE),
        _ => Err(CUresult::ERROR_NOT_FOUND),
    }
}

pub(crate) unsafe fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: c_int,
    flags: u64,
    symbolStatus: *mut CUdriverProcAddressQueryResult,
) -> Result {
    // SAFETY: the entry point's contract.
    let (found, address) = unsafe { proc_address(symbol, cudaVersion, flags)? };
    let status = match found {
        Lookup::Found(_) if !address.is_null() => 0,
        Lookup::Invalid => return Err(CUresult::ERROR_INVALID_VALUE),
        Lookup::VersionNotSufficient => 2,
        _ => 1,
    };
    if !symbolStatus.is_null() {
        // SAFETY: not null, and writable by the entry point's contract.
        unsafe { symbolStatus.write(status) };
    }
    // SAFETY: the entry point's contract.
    unsafe { put(pfn, address) }
}

pub(crate) unsafe fn cuGetExportTable(
    ppExportTable: *mut *const c_void,
    pExportTableId: *const CUuuid,
) -> Result {
    // SAFETY: the entry point's contract is that function's.
    CUresult(unsafe { tables::get_export_table(ppExportTable, pExportTableId.cast()) }).ok()
}

pub(crate) unsafe fn cuProfilerStart() -> Result {
    session().map(|_| ())
}

pub(crate) unsafe fn cuProfilerStop() -> Result {
    session().map(|_| ())
}

pub(crate) unsafe fn cuProfilerInitialize(
    _configFile: *const c_char,
    _outputFile: *const c_char,
    _outputMode: u32,
) -> Result {
    // As on a real driver since CUDA 11: there is nothing to initialise.
    session()?;
    Err(CUresult::ERROR_NOT_SUPPORTED)
}

/// What the export tables ask of this library.
struct Contract;

fn of_session<T>(ask: impl FnOnce(&'static Session) -> Result<T>) -> std::result::Result<T, u32> {
    session().and_then(ask).map_err(|error| error.0)
}

impl pxos_cudart::Driver for Contract {
    fn driver_version(&self) -> i32 {
        DRIVER_VERSION
    }

    fn devices(&self) -> Vec<DeviceIdentity> {
        let devices = session().map(|session| session.snapshot.devices.as_slice()).unwrap_or_default();
        devices
            .iter()
            .map(|device| DeviceIdentity {
                uuid: device.uuid,
                pci_domain: device.attribute(PCI_DOMAIN_ID),
                pci_bus: device.attribute(PCI_BUS_ID),
                pci_device: device.attribute(PCI_DEVICE_ID),
            })
            .collect()
    }

    fn primary_context(&self, device: i32) -> std::result::Result<u64, u32> {
        of_session(|session| super::device::primary(session, device).map(|context| context.handle))
    }

    fn current_context(&self) -> u64 {
        crate::thread::current_context()
    }

    fn context_is_active(&self, context: u64) -> bool {
        let alive = session().ok().and_then(|session| session.contexts.get(context));
        alive.is_some_and(|context| context.retained.load(Ordering::Relaxed) > 0)
    }

    fn context_id(&self, context: u64) -> std::result::Result<u64, u32> {
        of_session(|session| {
            let raw = if context == 0 { crate::thread::current_context() } else { context };
            match raw {
                0 => Ok(0),
                raw => {
                    session.contexts.get(raw).map(|context| context.id).ok_or(CUresult::ERROR_INVALID_CONTEXT)
                }
            }
        })
    }

    fn stream_id(&self, _context: u64, stream: u64) -> std::result::Result<u64, u32> {
        of_session(|session| super::stream::stream_id(session, stream))
    }

    fn module_load(&self, image: *const c_void) -> std::result::Result<u64, u32> {
        // SAFETY: the tables' caller gives what cuModuleLoadData accepts.
        of_session(|session| unsafe { super::module::load(session, image, &[]) })
    }

    fn module_functions(&self, module: u64) -> std::result::Result<Vec<u64>, u32> {
        of_session(|session| super::module::functions(session, module))
    }

    fn unsupported_slot(&self, table: &'static str, slot: usize) {
        static SAID: OnceLock<()> = OnceLock::new();
        SAID.get_or_init(|| {
            crate::log::line(
                crate::log::Level::Warn,
                format_args!("slot {slot} of the table {table} is not supported"),
            );
        });
    }
}
