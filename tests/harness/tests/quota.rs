//! The memory of a session is bounded on the host: what is over the limit is refused, and the guest sees the limit everywhere.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, is_on_a_gpu, probe};
use pxos_protocol::api::op;

const LIMIT: u64 = 64 << 20;

#[test]
fn an_allocation_over_the_limit_is_refused() {
    let server = Fixture::new().arg("--default-memory-max=64M").start();
    for way in [Way::SharedMemory, Way::Socket] {
        let finished = server
            .program(probe(), way)
            .args([
                "init", "alloc", "33554432", "alloc", "33554433", "meminfo", "alloc", "33554432", "alloc",
                "1", "free", "alloc", "1",
            ])
            .passes();
        let lines: Vec<&str> = finished.stdout.lines().collect();
        assert_eq!(
            lines[..3],
            ["init CUDA_SUCCESS", "alloc CUDA_SUCCESS", "alloc CUDA_ERROR_OUT_OF_MEMORY"],
            "{way:?}"
        );
        let info: Vec<u64> =
            lines[3].split(' ').skip(2).map(|number| number.parse().expect("a number")).collect();
        assert_eq!(info[1], LIMIT, "{way:?}: the guest is shown the limit as all the memory there is");
        assert!(info[0] <= LIMIT / 2, "{way:?}: free is {}", info[0]);
        assert_eq!(
            lines[4..],
            [
                "alloc CUDA_SUCCESS",
                "alloc CUDA_ERROR_OUT_OF_MEMORY",
                "free CUDA_SUCCESS",
                "alloc CUDA_SUCCESS"
            ],
            "{way:?}"
        );
    }
}

#[test]
fn a_limit_is_all_of_a_vms_processes_together() {
    let server = Fixture::new().arg("--default-memory-max=64M").arg("--pool-size=2").start();
    let mut first = server.guest(probe()).args(["init", "alloc", "62914560", "say", "full", "read"]).start();
    first.wait_for("say full");
    let second =
        server.guest(probe()).args(["init", "alloc", "6291456", "alloc", "4194304", "meminfo"]).passes();
    assert!(
        second
            .stdout
            .contains("alloc CUDA_ERROR_OUT_OF_MEMORY\nalloc CUDA_SUCCESS\nmeminfo CUDA_SUCCESS 0 67108864"),
        "{second}"
    );
    let counters = server.session_of(first.pid()).counters;
    assert_eq!((counters.memory_limit, counters.memory_used), (LIMIT, 62_914_560));
    first.say("end");
    let _ = first.end();
}

#[test]
fn a_guest_that_does_not_keep_to_the_shim_is_held_to_it_too() {
    let server = Fixture::new().arg("--default-memory-max=64M").start();
    let mut guest = server.begin();
    let context = guest.retain();
    let mut granted = 0_u64;
    for bytes in [48_u64 << 20, 48 << 20, 16 << 20, 1, u64::MAX, u64::MAX - (48 << 20), 1 << 63] {
        let (result, _) =
            guest.call(op::cuMemAlloc_v2, context, |writer| writer.put(bytes)).expect("an answer");
        granted += if result == 0 { bytes } else { 0 };
        assert!(granted <= LIMIT, "{granted} bytes were granted");
    }
    assert_eq!(granted, LIMIT);
    assert_eq!(server.session().counters.memory_used, LIMIT);
}

#[test]
fn a_device_that_is_full_refuses_as_well() {
    if is_on_a_gpu() {
        return pxos_harness::skipped("the GPU belongs to others as well: it is not to be filled");
    }
    let server = Fixture::new().start();
    let finished = server.guest(probe()).args(["init", "alloc", "4000000000000", "alloc", "1000"]).passes();
    assert!(finished.stdout.ends_with("alloc CUDA_ERROR_OUT_OF_MEMORY\nalloc CUDA_SUCCESS\n"), "{finished}");
}
