//! Every row of the table that allocates device memory keeps to the quota: a guest gets what fits, to the last piece, is
//! refused by the very call, and has given everything back when it frees or ends.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, probe};
use std::collections::BTreeMap;

/// The quota: a multiple of the largest unit that a driver allocates in (a pool's portion, 32 MiB).
const LIMIT: u64 = 128 << 20;
const PORTION: u64 = 32 << 20;

/// How the probe takes memory, with the size of a piece and how much of the quota a piece takes.
const WAYS: &[(&str, u64, u64)] = &[
    ("cuMemAlloc_v2", 8 << 20, 8 << 20),
    ("cuMemAllocPitch_v2", 8 << 20, 8 << 20),
    ("cuArrayCreate_v2", 8 << 20, 8 << 20),
    ("cuArray3DCreate_v2", 8 << 20, 8 << 20),
    ("cuMipmappedArrayCreate", 8 << 20, 8 << 20),
    ("cuMemCreate", 8 << 20, 8 << 20),
    // The memory, and the import of it.
    ("cuMemImportFromShareableHandle", 8 << 20, 16 << 20),
    ("cuMemAllocAsync", PORTION / 4, PORTION / 4),
    ("cuMemAllocAsync_ptsz", PORTION / 4, PORTION / 4),
    // Each from a pool of its own.
    ("cuMemAllocFromPoolAsync", 8 << 20, PORTION),
    ("cuMemAllocFromPoolAsync_ptsz", 8 << 20, PORTION),
    ("cuGraphAddMemAllocNode", 8 << 20, 8 << 20),
    // cuMemAllocAsync while the stream is captured.
    ("capture", 8 << 20, 8 << 20),
];

/// Rows that look like allocations and are tested by another name, or take no device memory.
const OTHERS: &[(&str, &str)] = &[
    ("cuArrayGetPlane", "a part of an array that counts as a whole"),
    ("cuMipmappedArrayGetLevel", "a part of an array that counts as a whole"),
    ("cuTexRefGetAddress_v2", "a question"),
    ("cuTexRefGetArray", "a question"),
    ("cuTexRefGetMipmappedArray", "a question"),
    ("cuSurfRefGetArray", "a question"),
    ("cuMemGetAddressRange_v2", "a question"),
    ("cuMemPrefetchBatchAsync", "managed memory lies in the arena, on the host"),
    ("cuMemPrefetchBatchAsync_ptsz", "managed memory lies in the arena, on the host"),
    ("cuMemDiscardBatchAsync", "managed memory lies in the arena, on the host"),
    ("cuMemDiscardBatchAsync_ptsz", "managed memory lies in the arena, on the host"),
    ("cuMemDiscardAndPrefetchBatchAsync", "managed memory lies in the arena, on the host"),
    ("cuMemDiscardAndPrefetchBatchAsync_ptsz", "managed memory lies in the arena, on the host"),
    ("cuModuleGetGlobal_v2", "a question"),
    ("cuLibraryGetGlobal", "a question"),
    ("cuLibraryGetManaged", "a question"),
    ("cuMemHostGetDevicePointer_v2", "a question"),
    ("cuGraphMemFreeNodeGetParams", "a question"),
    ("cuGraphMemAllocNodeGetParams", "a question"),
    ("cuDeviceGetMemPool", "a question"),
    ("cuDeviceGetDefaultMemPool", "a question"),
    ("cuMemGetDefaultMemPool", "a question"),
    ("cuMemGetMemPool", "a question"),
    ("cuMemGetAllocationGranularity", "a question"),
    ("cuMemGetAllocationPropertiesFromHandle", "a question"),
    ("cuMemPoolCreate", "an empty pool; what is allocated from it counts"),
    ("cuMemPoolImportFromShareableHandle", "a pool of another process; what is opened from it counts"),
    ("cuMemRetainAllocationHandle", "another reference to memory that counts"),
    ("cuMemAddressReserve", "addresses without memory"),
    ("cuMemAllocHost", "host memory"),
    ("cuMemAllocHost_v2", "host memory"),
    ("cuMemHostAlloc", "host memory"),
    ("cuMemAllocManaged", "host memory that the device reaches"),
    ("cuIpcOpenMemHandle", "the form of CUDA 4.0 of the next"),
    ("cuIpcOpenMemHandle_v2", "needs two processes: the sample ipc"),
    ("cuMemPoolImportPointer", "needs two processes: the sample ipc"),
    ("cuGraphAddNode", "the general form of cuGraphAddMemAllocNode, the same call to the server"),
    ("cuGraphAddNode_v2", "the general form of cuGraphAddMemAllocNode, the same call to the server"),
    ("cuMemcpyBatchAsync", "copies"),
    ("cuMemcpyBatchAsync_ptsz", "copies"),
    ("cuMemcpyBatchAsync_v2", "copies"),
    ("cuMemcpyBatchAsync_v2_ptsz", "copies"),
];

macro_rules! signatures {
    ($({ $class:ident $number:literal $name:ident ($($twin:ident)?) ($($reason:literal)?) ($($params:tt)*) })*) => {
        /// Rows that are carried, with their parameters as text.
        const SIGNATURES: &[(&str, Option<&str>, &str, &str)] =
            &[$((stringify!($name), [$(Some(stringify!($twin)),)? None][0], stringify!($class), stringify!($($params)*))),*];
    };
}
pxos_protocol::for_each_driver_fn!(signatures);

#[test]
fn every_row_that_may_allocate_has_a_case() {
    const RESULTS: [&str; 5] =
        ["CUdeviceptr", "CUarray", "CUmipmappedArray", "CUmemGenericAllocationHandle", "CUmemoryPool"];
    let mut known: BTreeMap<&str, bool> = WAYS
        .iter()
        .map(|(name, ..)| *name)
        .chain(OTHERS.iter().map(|(name, _)| *name))
        .map(|name| (name, false))
        .collect();
    let mut missing = Vec::new();
    for (name, twin, class, params) in SIGNATURES {
        let params = params.replace(' ', "");
        let gives = RESULTS.iter().any(|result| {
            params.contains(&format!("*mut{result},")) || params.ends_with(&format!("*mut{result}"))
        });
        let looks = gives || name.contains("Alloc") || name.starts_with("cuGraphAddNode");
        if *class == "unsupported" || !looks {
            continue;
        }
        for name in [Some(*name), *twin].into_iter().flatten() {
            match known.get_mut(name) {
                Some(seen) => *seen = true,
                None => missing.push(name),
            }
        }
    }
    let stale: Vec<&str> =
        known.into_iter().filter(|(name, seen)| !seen && *name != "capture").map(|(name, _)| name).collect();
    assert!(stale.is_empty(), "{stale:?} are no rows that may allocate");
    assert!(missing.is_empty(), "no case for {missing:?}: they may allocate device memory beyond the quota");
}

#[test]
fn every_way_to_allocate_ends_at_the_quota() {
    let server = Fixture::new().configuration("[default]\nmemory_max = \"128M\"").start();
    for (name, piece, takes) in WAYS {
        let fill = ["fill", name, &piece.to_string()];
        let mut guest = server
            .program(probe(), Way::SharedMemory)
            .args(["init"])
            .args(fill)
            .args(["say", "full", "read", "drop", "say", "empty", "read"])
            .args(fill)
            .args(["meminfo", "drop", "meminfo"])
            .start();
        guest.wait_for("say full");
        let full = server.session_of(guest.pid()).counters;
        assert_eq!(full.memory_used, LIMIT, "{name}: what fits is given, to the byte");
        assert_eq!(full.memory_peak, LIMIT, "{name}: never more");
        guest.say("go on");
        guest.wait_for("say empty");
        let empty = server.session_of(guest.pid()).counters;
        // Pools may keep what they have; everybody else gets it when it is needed.
        let kept = if name.contains("Async") { LIMIT } else { 0 };
        assert!(empty.memory_used <= kept, "{name}: {} bytes stay", empty.memory_used);
        guest.say("go on");
        let finished = guest.end();
        let refused = format!("fill {name} CUDA_ERROR_OUT_OF_MEMORY after {}\n", LIMIT / takes);
        assert_eq!(finished.stdout.matches(&refused).count(), 2, "{name}: {finished}");
        assert!(finished.stdout.contains(&format!("meminfo CUDA_SUCCESS 0 {LIMIT}\n")), "{name}: {finished}");
        assert!(
            finished.stdout.ends_with(&format!("meminfo CUDA_SUCCESS {LIMIT} {LIMIT}\n")),
            "{name}: {finished}"
        );
    }
    server.wait("empty", |status| status.sessions.is_empty());
}

#[test]
fn two_processes_that_race_get_the_quota_between_them() {
    let server =
        Fixture::new().arg("--pool-size=2").configuration("[default]\nmemory_max = \"128M\"").start();
    let race = |bytes: &str| {
        let start = || {
            server
                .guest(probe())
                .args(["init", "say", "ready", "read", "fill", "cuMemAlloc_v2", bytes, "say", "full", "read"])
                .start()
        };
        let mut guests = [start(), start()];
        guests.iter().for_each(|guest| guest.wait_for("say ready"));
        guests.iter_mut().for_each(|guest| guest.say("go"));
        guests.iter().for_each(|guest| guest.wait_for("say full"));
        let held: Vec<u64> =
            guests.iter().map(|guest| server.session_of(guest.pid()).counters.memory_used).collect();
        assert_eq!(held.iter().sum::<u64>(), LIMIT, "{held:?}: neither a byte over nor refused what fits");
        // One ends, one is killed: both leave nothing.
        let [mut first, second] = guests;
        first.say("end");
        let _ = first.end();
        pxos_harness::process::kill(second.pid());
        let _ = second.end();
        server.wait("empty", |status| status.sessions.is_empty());
    };
    for bytes in ["262144", "65536", "1048576"] {
        race(bytes);
    }
}

#[test]
fn a_guest_may_lower_its_limit_and_never_raise_it() {
    let server = Fixture::new().configuration("[default]\nmemory_max = \"128M\"").start();
    for (asked, limit) in [("64M", 64_u64 << 20), ("1G", LIMIT)] {
        let finished = server
            .guest(probe())
            .env("PXOS_MEMORY_MAX", asked)
            .args(["init", "meminfo", "fill", "cuMemAlloc_v2", "8388608"])
            .passes();
        assert!(finished.stdout.contains(&format!("meminfo CUDA_SUCCESS {limit} {limit}\n")), "{finished}");
        let refused = format!("CUDA_ERROR_OUT_OF_MEMORY after {}\n", limit / (8 << 20));
        assert!(finished.stdout.ends_with(&refused), "{asked}: {finished}");
        // The next must not find this one's memory still held.
        server.wait("empty", |status| status.sessions.is_empty());
    }
}
