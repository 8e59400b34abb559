//! Storms: launches faster than the device takes them, threads that come and go, programs that come and go. Memory stays flat.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, is_on_a_gpu, probe, process};

/// What a process may grow over a storm: what its bounded queues hold at most, and what an allocator keeps of that. A leak of
/// one small object per launch is more.
const FLAT: u64 = 20 << 20;

fn launches() -> usize {
    if is_on_a_gpu() { 1_000_000 } else { 400_000 }
}

#[test]
fn memory_stays_flat_while_it_rains_launches() {
    let server = Fixture::new().start();
    for way in [Way::SharedMemory, Way::Socket] {
        let count = launches();
        let guest = server
            .program(probe(), way)
            .args([
                "init",
                "storm",
                "20000",
                "say",
                "warm",
                "read",
                "storm",
                &count.to_string(),
                "say",
                "done",
                "read",
            ])
            .start();
        let mut guest = guest;
        guest.wait_for("say warm");
        let worker = server.session_of(guest.pid()).worker;
        let before = [server.pid(), worker].map(process::anonymous_memory);
        guest.say("go");
        guest.wait_for("say done");
        let after = [server.pid(), worker].map(process::anonymous_memory);
        for (what, index) in [("server", 0), ("worker", 1)] {
            let grown = after[index].saturating_sub(before[index]);
            assert!(grown < FLAT, "{way:?}: the {what} grew by {grown} bytes over {count} launches");
        }
        let line =
            guest.stdout().lines().rfind(|line| line.starts_with("storm")).expect("a result").to_owned();
        let grown: i64 = line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(line.starts_with("storm CUDA_SUCCESS"), "{line}");
        assert!(grown < i64::try_from(FLAT).expect("small"), "{way:?}: the guest grew by {grown} bytes");
        let counters = server.session_of(guest.pid()).counters;
        assert_eq!(counters.launches, 20_000 + count as u64, "{way:?}: a launch was lost");
        guest.say("end");
        let finished = guest.end();
        assert!(finished.status.success(), "{finished}");
    }
}

#[test]
fn copies_that_nobody_waits_for_do_not_pile_up() {
    let server = Fixture::new().start();
    for way in [Way::SharedMemory, Way::Socket] {
        let mut guest = server
            .program(probe(), way)
            .args([
                "init",
                "stuff",
                "10000000",
                "say",
                "warm",
                "read",
                "stuff",
                "400000000",
                "say",
                "done",
                "read",
            ])
            .start();
        guest.wait_for("say warm");
        let worker = server.session_of(guest.pid()).worker;
        let before = [server.pid(), worker, guest.pid()].map(process::anonymous_memory);
        guest.say("go");
        guest.wait_for("say done");
        let after = [server.pid(), worker, guest.pid()].map(process::anonymous_memory);
        for (what, index) in [("server", 0), ("worker", 1), ("guest", 2)] {
            let grown = after[index].saturating_sub(before[index]);
            assert!(grown < 2 * FLAT, "{way:?}: the {what} grew by {grown} bytes over 400 MB");
        }
        assert!(!guest.stdout().contains("stuff CUDA_ERROR"), "{}", guest.stdout());
        guest.say("end");
        let _ = guest.end();
    }
}

#[test]
fn threads_that_come_and_go_leave_nothing() {
    let server = Fixture::new().start();
    for way in [Way::SharedMemory, Way::Socket] {
        let mut guest = server
            .program(probe(), way)
            .args([
                "init", "churn", "200", "say", "warm", "read", "churn", "2000", "meminfo", "say", "done",
                "read",
            ])
            .start();
        guest.wait_for("say warm");
        let worker = server.session_of(guest.pid()).worker;
        let processes = [worker, guest.pid()];
        let before = processes.map(process::anonymous_memory);
        let threads = processes.map(process::threads);
        guest.say("go");
        guest.wait_for("say done");
        assert!(guest.stdout().matches("churn CUDA_SUCCESS").count() == 2, "{}", guest.stdout());
        for (what, index) in [("worker", 0), ("guest", 1)] {
            let grown = process::anonymous_memory(processes[index]).saturating_sub(before[index]);
            assert!(grown < FLAT, "{way:?}: the {what} grew by {grown} bytes over 2000 threads");
            let more = process::threads(processes[index]).saturating_sub(threads[index]);
            assert!(more <= 8, "{way:?}: the {what} has {more} threads more than before");
        }
        // Asking for the free memory has also given back blocks that were parked for the next allocation.
        assert_eq!(server.session_of(guest.pid()).counters.memory_used, 0, "what was freed is still counted");
        guest.say("end");
        let _ = guest.end();
    }
}

#[test]
fn programs_that_come_and_go_leave_nothing() {
    let server = Fixture::new().arg("--pool-size=2").start();
    let before = server.settled();
    for _ in 0..20 {
        let running: Vec<_> =
            (0..4).map(|_| server.guest(probe()).args(["init", "copies", "2", "4096"]).start()).collect();
        for guest in running {
            let finished = guest.end();
            assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
        }
    }
    server.assert_settles_as(&before);
    assert_eq!(server.status().totals.ended.get("closed"), Some(&80));
}
