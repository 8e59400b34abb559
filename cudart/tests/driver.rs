//! The facts that this crate states as *measured*, asked again of a real libcuda: `PXOS_TEST_DRIVER=libcuda.so.1
//! cargo test -p pxos-cudart --test driver`. Without the variable there is nothing to ask, and the test says so.
//!
//! One test, since it starts before `cuInit` of its process. It uses device 0 and resets its primary context.

mod common;

#[cfg(test)]
mod tests {
    use std::ffi::{CString, c_char, c_void};

    use libloading::Library;
    use pxos_cudart::DeviceIdentity;
    use pxos_cudart::integrity::{Inputs, answer};
    use pxos_cudart::procaddress::{self, EXPORTS, Lookup};
    use pxos_cudart::tables::{TableId, id};

    use super::common::{Contexts, Storage, UNTOUCHED, storage_contract};

    struct Libcuda(Library);

    impl Libcuda {
        /// A symbol as a function of a type `F`, which the caller vouches for.
        fn function<F: Copy>(&self, name: &str) -> F {
            // SAFETY: the tests below name each function with its type in cuda.h.
            unsafe { *self.0.get::<F>(name.as_bytes()).unwrap() }
        }

        fn table(&self, table: TableId) -> (u32, *const c_void) {
            type GetExportTable = unsafe extern "C" fn(*mut *const c_void, *const TableId) -> u32;
            let mut address = std::ptr::dangling();
            // SAFETY: writes to a local.
            let result = unsafe {
                self.function::<GetExportTable>("cuGetExportTable")(&raw mut address, &raw const table)
            };
            (result, address)
        }

        fn slot<F: Copy>(&self, table: TableId, slot: usize) -> F {
            let (result, address) = self.table(table);
            assert_eq!(result, 0);
            // SAFETY: the tests below name slots that are within the measured tables.
            unsafe { address.cast::<F>().add(slot).read() }
        }

        fn attribute(&self, attribute: i32) -> i32 {
            let mut value = 0;
            let get: unsafe extern "C" fn(*mut i32, i32, i32) -> u32 = self.function("cuDeviceGetAttribute");
            // SAFETY: writes to a local.
            assert_eq!(unsafe { get(&raw mut value, attribute, 0) }, 0);
            value
        }

        fn device(&self) -> DeviceIdentity {
            let mut uuid = [0; 16];
            let get: unsafe extern "C" fn(*mut [u8; 16], i32) -> u32 = self.function("cuDeviceGetUuid");
            // SAFETY: writes to a local.
            assert_eq!(unsafe { get(&raw mut uuid, 0) }, 0);
            DeviceIdentity {
                uuid,
                pci_domain: self.attribute(50),
                pci_bus: self.attribute(33),
                pci_device: self.attribute(34),
            }
        }

        fn version(&self) -> i32 {
            let mut version = 0;
            let get: unsafe extern "C" fn(*mut i32) -> u32 = self.function("cuDriverGetVersion");
            // SAFETY: writes to a local.
            assert_eq!(unsafe { get(&raw mut version) }, 0);
            version
        }

        fn current(&self) -> (u32, u64) {
            let mut context = 0x99;
            let get: unsafe extern "C" fn(*mut u64) -> u32 = self.slot(id::TOOLS_TLS, 2);
            // SAFETY: writes to a local.
            (unsafe { get(&raw mut context) }, context)
        }

        fn number(&self, context: u64) -> (u32, u64) {
            let mut number = 99;
            let get: unsafe extern "C" fn(u64, *mut u64) -> u32 = self.slot(id::CONTEXT_AND_STREAM, 4);
            // SAFETY: writes to a local.
            (unsafe { get(context, &raw mut number) }, number)
        }

        fn check(&self, context: u64) -> (u32, u32, usize) {
            let (mut needed, mut unknown) = (7u32, 9usize);
            let get: unsafe extern "C" fn(u64, *mut u32, *mut usize) -> u32 =
                self.slot(id::CONTEXT_CHECKS, 2);
            // SAFETY: writes to locals.
            (unsafe { get(context, &raw mut needed, &raw mut unknown) }, needed, unknown)
        }
    }

    impl Contexts for Libcuda {
        fn primary(&self) -> u64 {
            let mut context = 0;
            let get: unsafe extern "C" fn(*mut u64, i32) -> u32 = self.slot(id::CUDART_INTERFACE, 2);
            // SAFETY: writes to a local.
            assert_eq!(unsafe { get(&raw mut context, 0) }, 0);
            context
        }
        fn retain_primary(&self) {
            let mut context = 0;
            let retain: unsafe extern "C" fn(*mut u64, i32) -> u32 =
                self.function("cuDevicePrimaryCtxRetain");
            // SAFETY: writes to a local.
            assert_eq!(unsafe { retain(&raw mut context, 0) }, 0);
            assert_eq!(context, self.primary());
        }
        fn reset_primary(&self) {
            let reset: unsafe extern "C" fn(i32) -> u32 = self.function("cuDevicePrimaryCtxReset_v2");
            // SAFETY: takes a number.
            assert_eq!(unsafe { reset(0) }, 0);
        }
        fn set_current(&self, context: u64) {
            let set: unsafe extern "C" fn(u64) -> u32 = self.function("cuCtxSetCurrent");
            // SAFETY: takes a handle.
            assert_eq!(unsafe { set(context) }, 0);
        }
        fn create(&self) -> u64 {
            let mut context = 0;
            let create: unsafe extern "C" fn(*mut u64, u32, i32) -> u32 = self.function("cuCtxCreate_v2");
            // SAFETY: writes to a local.
            assert_eq!(unsafe { create(&raw mut context, 0, 0) }, 0);
            context
        }
        fn destroy(&self, context: u64) {
            let destroy: unsafe extern "C" fn(u64) -> u32 = self.function("cuCtxDestroy_v2");
            // SAFETY: takes a handle.
            assert_eq!(unsafe { destroy(context) }, 0);
        }
    }

    /// Every version at which a row of the table changes, one below, and the ends.
    fn versions() -> Vec<i32> {
        let mut versions: Vec<i32> =
            (0..=13).flat_map(|major| (0..10).map(move |minor| 1000 * major + 10 * minor)).collect();
        versions.extend([-1, 1, 1999, 3019, 6999, 11999, 12999, 13001, 99999]);
        versions
    }

    fn proc_addresses(libcuda: &Libcuda) {
        type GetProcAddress = unsafe extern "C" fn(*const c_char, *mut usize, i32, u64, *mut i32) -> u32;
        let get: GetProcAddress = libcuda.function("cuGetProcAddress_v2");
        let driver = libcuda.version();
        let names = procaddress::names().chain(EXPORTS.iter().copied()).chain(["", "cuNope"]);
        for name in names {
            let c_name = CString::new(name).unwrap();
            for version in versions() {
                for flags in [0, 1, 2, 3, 4] {
                    let (mut address, mut status) = (UNTOUCHED, 77);
                    // SAFETY: writes to locals.
                    let result =
                        unsafe { get(c_name.as_ptr(), &raw mut address, version, flags, &raw mut status) };
                    let expected = match procaddress::lookup_under(driver, name, version, flags) {
                        Lookup::Found(symbol) => (0, libcuda.function(symbol), 0),
                        Lookup::NotFound => (0, 0, 1),
                        Lookup::VersionNotSufficient => (0, 0, 2),
                        Lookup::Invalid => (1, UNTOUCHED, 77),
                    };
                    assert_eq!((result, address, status), expected, "{name:?} {version} {flags}");
                }
            }
        }
    }

    fn integrity(libcuda: &Libcuda) {
        type Check = unsafe extern "C" fn(u32, u64, *mut [u8; 16]) -> u32;
        let check: Check = libcuda.slot(id::INTEGRITY_CHECK, 1);
        let devices = [libcuda.device()];
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        for runtime_version in 13000..13010 {
            let mut bytes = [0; 16];
            // SAFETY: writes to a local.
            assert_eq!(unsafe { check(runtime_version, 0x64a3_65ee, &raw mut bytes) }, 0);
            let expected = answer(&Inputs {
                driver_version: libcuda.version().cast_unsigned(),
                runtime_version,
                process: std::process::id(),
                thread: u32::try_from(thread & 0xffff_ffff).unwrap(),
                interface_table: libcuda.table(id::CUDART_INTERFACE).1.addr() as u64,
                integrity_table: libcuda.table(id::INTEGRITY_CHECK).1.addr() as u64,
                integrity_function: libcuda.slot::<usize>(id::INTEGRITY_CHECK, 1) as u64,
                unix_seconds: 0x64a3_65ee,
                devices: &devices,
            });
            assert_eq!(bytes, expected, "{runtime_version}");
        }
    }

    #[test]
    fn a_real_driver_does_what_this_crate_says() {
        let Ok(path) = std::env::var("PXOS_TEST_DRIVER") else {
            println!("skipped: PXOS_TEST_DRIVER is neither `auto` nor the path of a libcuda");
            return;
        };
        let path = if path == "auto" { "libcuda.so.1".to_owned() } else { path };
        // SAFETY: running its initialisers is what loading a driver means.
        let libcuda = Libcuda(unsafe { Library::new(path) }.unwrap());

        for (table, bytes) in [
            (id::CUDART_INTERFACE, 104),
            (id::TOOLS_RUNTIME_CALLBACK_HOOKS, 56),
            (id::TOOLS_TLS, 24),
            (id::INTEGRITY_CHECK, 24),
            (id::CONTEXT_CHECKS, 120),
            (id::CONTEXT_AND_STREAM, 744),
            (id::MODULE_FUNCTIONS, 792),
            (id::CUBLASLT, 136),
        ] {
            assert_eq!(libcuda.slot::<usize>(table, 0), bytes, "{table:02x?}");
        }
        assert_eq!(libcuda.table([0; 16]), (1, std::ptr::null()));

        // SAFETY: the storage table.
        let storage = unsafe { Storage::at(libcuda.table(id::CONTEXT_LOCAL_STORAGE).1) };
        assert_eq!(storage.get(0, 0x10), (3, UNTOUCHED));
        assert_eq!(libcuda.current(), (3, 0x99));
        assert_eq!(libcuda.number(0), (0, 0));
        assert_eq!(libcuda.check(0), (3, 7, 9));

        let init: unsafe extern "C" fn(u32) -> u32 = libcuda.function("cuInit");
        // SAFETY: takes a number.
        assert_eq!(unsafe { init(0) }, 0);
        assert_eq!(libcuda.current(), (0, 0));
        assert_eq!(libcuda.number(0), (0, 0));
        assert_eq!(libcuda.check(0), (201, 7, 9));

        proc_addresses(&libcuda);
        integrity(&libcuda);
        storage_contract(storage, &libcuda);

        libcuda.retain_primary();
        libcuda.set_current(libcuda.primary());
        assert_eq!(libcuda.current(), (0, libcuda.primary()));
        assert_eq!(libcuda.check(0), (0, 0, 9));
        let (result, number) = libcuda.number(libcuda.primary());
        assert!(result == 0 && number != 0);
        assert_eq!(libcuda.number(0), (0, 0));
    }
}
