//! The tables around a stand-in libcuda, called as the runtime and the libraries call them.
//!
//! One test, since it walks the life of one process: before `cuInit`, in use, forked, shut down.

mod common;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::{c_char, c_void};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pxos_cudart::integrity::{Inputs, answer};
    use pxos_cudart::tables::{TableId, export_table, id};
    use pxos_cudart::{DeviceIdentity, Driver, after_fork_child, install, shut_down, storage};

    use super::common::{Contexts, Storage, UNTOUCHED, storage_contract};

    /// A libcuda with one device, whose contexts are numbers.
    struct StandIn {
        retained: AtomicBool,
        destroyed: AtomicBool,
        unsupported: Mutex<Vec<(&'static str, usize)>>,
    }

    static STAND_IN: StandIn = StandIn {
        retained: AtomicBool::new(false),
        destroyed: AtomicBool::new(false),
        unsupported: Mutex::new(Vec::new()),
    };

    thread_local! {
        static CURRENT: Cell<u64> = const { Cell::new(0) };
    }

    const PRIMARY: u64 = 0x1000;
    const CREATED: u64 = 0x2000;
    const DEVICE: DeviceIdentity = DeviceIdentity { uuid: [7; 16], pci_domain: 0, pci_bus: 6, pci_device: 1 };

    impl Driver for StandIn {
        fn driver_version(&self) -> i32 {
            13000
        }
        fn devices(&self) -> Vec<DeviceIdentity> {
            vec![DEVICE]
        }
        fn primary_context(&self, device: i32) -> Result<u64, u32> {
            if device == 0 { Ok(PRIMARY) } else { Err(101) }
        }
        fn current_context(&self) -> u64 {
            CURRENT.get()
        }
        fn context_is_active(&self, context: u64) -> bool {
            match context {
                PRIMARY => self.retained.load(Ordering::Relaxed),
                _ => !self.destroyed.load(Ordering::Relaxed),
            }
        }
        fn context_id(&self, context: u64) -> Result<u64, u32> {
            if self.context_is_active(context) { Ok(context >> 12) } else { Err(709) }
        }
        fn stream_id(&self, _context: u64, stream: u64) -> Result<u64, u32> {
            match stream {
                0 | 1 => Ok(14),
                u64::MAX => Err(400),
                other => Ok(other + 20),
            }
        }
        fn module_load(&self, image: *const c_void) -> Result<u64, u32> {
            if image.is_null() { panic!("the stand-in cannot load a null image") } else { Ok(0x77) }
        }
        fn module_functions(&self, module: u64) -> Result<Vec<u64>, u32> {
            if module == 0x77 { Ok(vec![1, 2, 3]) } else { Err(400) }
        }
        fn function_name(&self, function: u64) -> *const c_char {
            if function == 2 { c"second".as_ptr() } else { std::ptr::null() }
        }
        fn unsupported_slot(&self, table: &'static str, slot: usize) {
            self.unsupported.lock().unwrap().push((table, slot));
        }
    }

    impl Contexts for StandIn {
        fn primary(&self) -> u64 {
            let mut context = 0;
            // SAFETY: the slot's real signature; writes to a local.
            let result = unsafe {
                function::<unsafe extern "C" fn(*mut u64, i32) -> u32>(id::CUDART_INTERFACE, 2)(
                    &raw mut context,
                    0,
                )
            };
            assert_eq!(result, 0);
            context
        }
        fn retain_primary(&self) {
            self.retained.store(true, Ordering::Relaxed);
        }
        fn reset_primary(&self) {
            self.retained.store(false, Ordering::Relaxed);
            storage::context_reset(PRIMARY);
        }
        fn set_current(&self, context: u64) {
            CURRENT.set(context);
        }
        fn create(&self) -> u64 {
            CURRENT.set(CREATED);
            CREATED
        }
        fn destroy(&self, context: u64) {
            self.destroyed.store(true, Ordering::Relaxed);
            storage::context_destroyed(context);
            CURRENT.set(0);
        }
    }

    fn slot(table: TableId, slot: usize) -> *const c_void {
        // SAFETY: the tests name slots that exist.
        unsafe { *export_table(&table).unwrap().cast::<*const c_void>().add(slot) }
    }

    /// A slot as a function of a type `F`, which the caller vouches for.
    fn function<F: Copy>(table: TableId, number: usize) -> F {
        let address = slot(table, number);
        assert_eq!(size_of::<F>(), size_of::<*const c_void>());
        // SAFETY: a function pointer of the caller's type, as big as the slot.
        unsafe { std::mem::transmute_copy(&address) }
    }

    type Number = unsafe extern "C" fn(u64, *mut u64) -> u32;
    type Check = unsafe extern "C" fn(u64, *mut u32, *mut *mut c_void) -> u32;
    type Nullary = unsafe extern "C" fn() -> u32;

    fn current() -> (u32, u64) {
        let mut context = 0x99;
        // SAFETY: the slot's real signature; writes to a local.
        let result =
            unsafe { function::<unsafe extern "C" fn(*mut u64) -> u32>(id::TOOLS_TLS, 2)(&raw mut context) };
        (result, context)
    }

    fn number(context: u64) -> (u32, u64) {
        let mut number = 99;
        // SAFETY: the slot's real signature; writes to a local.
        let result = unsafe { function::<Number>(id::CONTEXT_AND_STREAM, 4)(context, &raw mut number) };
        (result, number)
    }

    fn check(context: u64) -> (u32, u32, usize) {
        let (mut needed, mut unknown) = (7, std::ptr::without_provenance_mut(9));
        // SAFETY: the slot's real signature; writes to locals.
        let result =
            unsafe { function::<Check>(id::CONTEXT_CHECKS, 2)(context, &raw mut needed, &raw mut unknown) };
        (result, needed, unknown.addr())
    }

    fn integrity(version: u32) -> (u32, [u8; 16]) {
        let mut bytes = [0; 16];
        // SAFETY: the slot's real signature; writes to a local.
        let result = unsafe {
            function::<unsafe extern "C" fn(u32, u64, *mut [u8; 16]) -> u32>(id::INTEGRITY_CHECK, 1)(
                version,
                0x64a3_65ee,
                &raw mut bytes,
            )
        };
        (result, bytes)
    }

    #[test]
    fn tables_serve_a_process_from_before_init_to_exit() {
        // SAFETY: the storage table.
        let storage = unsafe { Storage::at(export_table(&id::CONTEXT_LOCAL_STORAGE).unwrap()) };

        // Before cuInit.
        assert_eq!(storage.get(0, 0x10), (3, UNTOUCHED));
        assert_eq!(storage.put(0, 0x10, 0x20), 3);
        assert_eq!(storage.delete(0, 0x10), 3);
        assert_eq!(current(), (3, 0x99));
        assert_eq!(number(0), (0, 0));
        assert_eq!(check(0), (3, 7, 9));
        assert_eq!(integrity(13002).0, 3);

        assert!(install(&STAND_IN));
        assert!(!install(&STAND_IN), "the first driver stays");

        // Without a context.
        assert_eq!(current(), (0, 0));
        assert_eq!(number(0), (0, 0));
        assert_eq!(check(0), (201, 7, 9));
        // SAFETY: slot 3 takes nothing.
        assert_eq!(unsafe { function::<Nullary>(id::CONTEXT_CHECKS, 3)() }, 0);

        primary_contexts();
        integrity_hash();
        callback_buffers();
        modules();
        storage_contract(storage, &STAND_IN);
        streams();
        unsupported();

        STAND_IN.set_current(PRIMARY);
        STAND_IN.retain_primary();
        assert_eq!(current(), (0, PRIMARY));
        assert_eq!(number(PRIMARY), (0, 1));
        assert_eq!(number(0), (0, 0), "null is nobody, also with a current context");
        assert_eq!(check(0), (0, 0, 9));

        // `(CUcontext)-1` is the current one.
        assert_eq!(storage.put(u64::MAX, 0x70, 0x71), 0);
        assert_eq!(storage.get(0, 0x70), (0, 0x71));
        assert_eq!(storage.get(u64::MAX, 0x70), (0, 0x71));

        threads(storage);
        forked(storage);

        assert_eq!(storage.get(0, 0x70), (0, 0x71));
        shut_down();
        assert_eq!(storage.get(0, 0x70), (4, UNTOUCHED));
        assert_eq!(storage.delete(0, 0x70), 4);
        assert_eq!(storage.put(0, 0x80, 0x81), 4);
        assert_eq!(current(), (4, 0x99));
    }

    fn primary_contexts() {
        assert_eq!(STAND_IN.primary(), PRIMARY);
        let mut context = 9;
        // SAFETY: the slot's real signature; writes to a local.
        let result = unsafe {
            function::<unsafe extern "C" fn(*mut u64, i32) -> u32>(id::CUDART_INTERFACE, 2)(
                &raw mut context,
                99,
            )
        };
        assert_eq!((result, context), (101, 9));
        // SAFETY: slot 12 takes nothing.
        assert_eq!(unsafe { function::<Nullary>(id::CUDART_INTERFACE, 12)() }, 0);
    }

    fn integrity_hash() {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        let inputs = Inputs {
            driver_version: 13000,
            runtime_version: 13002,
            process: std::process::id(),
            thread: u32::try_from(thread & 0xffff_ffff).unwrap(),
            interface_table: export_table(&id::CUDART_INTERFACE).unwrap().addr() as u64,
            integrity_table: export_table(&id::INTEGRITY_CHECK).unwrap().addr() as u64,
            integrity_function: slot(id::INTEGRITY_CHECK, 1).addr() as u64,
            unix_seconds: 0x64a3_65ee,
            devices: &[DEVICE],
        };
        assert_eq!(integrity(13002), (0, answer(&inputs)));
        assert_eq!(integrity(13001).1, answer(&Inputs { runtime_version: 13001, ..inputs }));
    }

    fn callback_buffers() {
        type Buffer = unsafe extern "C" fn(*mut *const u8, *mut usize) -> u32;
        for (number, count, bytes) in [(2, 1024, 4096), (6, 14, 14)] {
            let (mut buffer, mut found) = (std::ptr::null(), 0);
            // SAFETY: the slot's real signature; writes to locals.
            let result = unsafe {
                function::<Buffer>(id::TOOLS_RUNTIME_CALLBACK_HOOKS, number)(&raw mut buffer, &raw mut found)
            };
            assert_eq!((result, found), (0, count));
            // SAFETY: the table promises that many bytes.
            let zeros = unsafe { std::slice::from_raw_parts(buffer, bytes) };
            assert!(zeros.iter().all(|byte| *byte == 0));
        }
        for number in [1, 3, 4, 5] {
            // SAFETY: these slots ignore their arguments.
            assert_eq!(unsafe { function::<Nullary>(id::TOOLS_RUNTIME_CALLBACK_HOOKS, number)() }, 0);
        }
    }

    unsafe extern "C" fn collect(opaque: *mut c_void, function: u64, name: *const c_char) {
        assert_eq!(name.is_null(), function != 2);
        // SAFETY: `modules` passes a vector.
        unsafe { (*opaque.cast::<Vec<u64>>()).push(function) };
    }

    fn modules() {
        type Load = unsafe extern "C" fn(*mut u64, *const u8, usize, usize, u32) -> u32;
        type Visit = unsafe extern "C" fn(*mut c_void, u64, *const c_char);
        type Functions = unsafe extern "C" fn(u64, u64, Option<Visit>, *mut c_void, u64, u64) -> u32;
        let load: Load = function(id::CUDART_INTERFACE, 6);
        let mut module = 0;
        // SAFETY: the slot's real signature; the stand-in does not read the image.
        assert_eq!(unsafe { load(&raw mut module, std::ptr::dangling(), 0, 0, 0) }, 0);
        assert_eq!(module, 0x77);
        // SAFETY: as above; the stand-in panics at null, and the panic must not come through.
        assert_eq!(unsafe { load(&raw mut module, std::ptr::null(), 0, 0, 0) }, 999);
        // SAFETY: as above; where to put the module is null.
        assert_eq!(unsafe { load(std::ptr::null_mut(), std::ptr::dangling(), 0, 0, 0) }, 1);

        let functions: Functions = function(id::MODULE_FUNCTIONS, 7);
        let mut seen: Vec<u64> = Vec::new();
        let opaque = (&raw mut seen).cast();
        // SAFETY: the slot's real signature; the visitor gets the vector it expects.
        assert_eq!(unsafe { functions(PRIMARY, module, Some(collect), opaque, module, 0) }, 3);
        assert_eq!(seen, [1, 2, 3]);
        // SAFETY: as above, for a module that does not exist.
        assert_eq!(unsafe { functions(PRIMARY, 5, Some(collect), opaque, 5, 0) }, 0);
        // SAFETY: as above, without a visitor.
        assert_eq!(unsafe { functions(PRIMARY, module, None, opaque, module, 0) }, 0);
        assert_eq!(seen.len(), 3);
    }

    fn streams() {
        type Object = unsafe extern "C" fn(u64, u64, *mut u64) -> u32;
        let object: Object = function(id::CONTEXT_AND_STREAM, 51);
        let number: Object = function(id::CONTEXT_AND_STREAM, 39);
        let of = |context, stream| {
            let (mut found, mut count) = (0, 0);
            // SAFETY: the slot's real signature; writes to a local.
            let result = unsafe { object(context, stream, &raw mut found) };
            if result == 0 {
                // SAFETY: as above, with an object of slot 51.
                assert_eq!(unsafe { number(context, found, &raw mut count) }, 0);
            }
            (result, found, count)
        };
        let (result, legacy, count) = of(PRIMARY, 0);
        assert_eq!((result, count), (0, 14));
        assert_eq!(of(PRIMARY, 1), (0, legacy, 14), "both names of the legacy stream");
        let (_, user, count) = of(PRIMARY, 0x5000);
        assert_eq!(count, 0x5014);
        assert_eq!(of(0, 0x5000), (0, user, 0x5014));
        assert_eq!(of(0, 0).0, 400);
        assert_eq!(of(0, 2).0, 400);
        assert_eq!(of(PRIMARY, u64::MAX).0, 400);
        let mut count = 0;
        // SAFETY: the slot's real signature, with an object that no slot gave.
        assert_eq!(unsafe { number(PRIMARY, 0, &raw mut count) }, 1);
    }

    fn unsupported() {
        STAND_IN.unsupported.lock().unwrap().clear();
        for (table, number) in [
            (id::CUBLASLT, 4),
            (id::CONTEXT_AND_STREAM, 92),
            (id::CONTEXT_AND_STREAM, 95),
            (id::CONTEXT_CHECKS, 16),
            (id::MODULE_FUNCTIONS, 104),
        ] {
            // SAFETY: an unsupported slot ignores its arguments.
            assert_eq!(unsafe { function::<Nullary>(table, number)() }, 801);
        }
        let seen = std::mem::take(&mut *STAND_IN.unsupported.lock().unwrap());
        let (tables, slots): (Vec<&str>, Vec<usize>) = seen.into_iter().unzip();
        assert_eq!(slots, [4, 92, 95, 16, 104]);
        assert!(tables[0].starts_with("CUBLASLT") && tables[4].starts_with("MODULE_FUNCTIONS"), "{tables:?}");
    }

    /// A removal on one thread is seen by another that had remembered the entry.
    fn threads(storage: Storage) {
        let barrier = std::sync::Barrier::new(2);
        assert_eq!(storage.put(PRIMARY, 0x90, 1), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(storage.get(0, 0x90), (201, UNTOUCHED), "contexts are current per thread");
                STAND_IN.set_current(PRIMARY);
                assert_eq!(storage.get(0, 0x90), (0, 1));
                barrier.wait();
                barrier.wait();
                assert_eq!(storage.get(0, 0x90), (0, 2));
            });
            barrier.wait();
            assert_eq!(storage.get(0, 0x90), (0, 1));
            assert_eq!(storage.delete(0, 0x90), 0);
            assert_eq!(storage.put(0, 0x90, 2), 0);
            barrier.wait();
        });
        assert_eq!(storage.delete(0, 0x90), 0);
    }

    /// The child of a fork is answered "not initialized", calls no destructor and hangs on no lock.
    fn forked(storage: Storage) {
        assert_eq!(storage.get(0, 0x70), (0, 0x71));
        // SAFETY: the child calls only what a fork's child may: stores to atomics, and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            after_fork_child();
            shut_down();
            storage::context_destroyed(PRIMARY);
            let seen = [
                storage.get(0, 0x70).0,
                storage.put(0, 0x71, 0),
                storage.delete(0, 0x70),
                current().0,
                integrity(13002).0,
            ];
            // SAFETY: ends the child without its parent's exit handlers.
            unsafe { libc::_exit(i32::from(seen != [3; 5])) };
        }
        let mut status = -1;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}
