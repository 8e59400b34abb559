//! What a hit in the context storage costs: it is part of every runtime call, and is meant to stay below 20 ns.
//!
//! `cargo bench -p pxos-cudart`

#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::time::Instant;

use pxos_cudart::tables::{export_table, id};
use pxos_cudart::{DeviceIdentity, Driver, install, storage};

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0x1000) };
}

struct OneContext;

impl Driver for OneContext {
    fn driver_version(&self) -> i32 {
        13000
    }
    fn devices(&self) -> Vec<DeviceIdentity> {
        Vec::new()
    }
    fn primary_context(&self, _device: i32) -> Result<u64, u32> {
        Ok(0x1000)
    }
    fn current_context(&self) -> u64 {
        CURRENT.get()
    }
    fn context_id(&self, _context: u64) -> Result<u64, u32> {
        Ok(1)
    }
    fn stream_id(&self, _context: u64, stream: u64) -> Result<u64, u32> {
        Ok(stream)
    }
    fn module_load(&self, _image: *const c_void) -> Result<u64, u32> {
        Err(801)
    }
    fn module_functions(&self, _module: u64) -> Result<Vec<u64>, u32> {
        Err(801)
    }
}

fn main() {
    type Get = unsafe extern "C" fn(*mut usize, u64, usize) -> u32;
    const CALLS: u32 = 20_000_000;

    install(&OneContext);
    let table = export_table(&id::CONTEXT_LOCAL_STORAGE).expect("the table is provided");
    // SAFETY: slot 2 of the storage table has this signature.
    let get: Get = unsafe { table.cast::<Get>().add(2).read() };
    // The keys of several copies of the runtime, as addresses in different libraries.
    let keys: [usize; 3] = [0x7f12_3456_7890, 0x7f12_9abc_def0, 0x7f13_0000_1240];
    for key in keys {
        storage::put(0, key, key ^ 1, None).expect("the key is new");
    }
    for count in 1..=keys.len() {
        let mut value = 0;
        let start = Instant::now();
        for call in 0..CALLS {
            let key = keys[call as usize % count];
            // SAFETY: writes to a local.
            let result = unsafe { get(&raw mut value, black_box(0), black_box(key)) };
            assert_eq!(black_box(result), 0);
        }
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
        println!("hit, {count} keys in turn: {nanoseconds:.1} ns");
    }
}
