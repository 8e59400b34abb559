//! What the server counts is what happened: messages of each kind, functions by name, memory.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server, Way, probe, sample};
use pxos_protocol::admin::Counters;
use pxos_protocol::api::{Class, ROWS};

/// The counters of a guest that has done this and waits.
fn counters_after(server: &Server, way: Way, commands: &[&str]) -> Counters {
    let mut guest = server.program(probe(), way).args(commands).args(["sync", "say", "done", "read"]).start();
    guest.wait_for("say done");
    let counters = server.session_of(guest.pid()).counters;
    guest.say("end");
    let finished = guest.end();
    assert!(finished.status.success() && !finished.stdout.contains("CUDA_ERROR"), "{finished}");
    counters
}

#[test]
fn a_launch_is_not_answered() {
    let server = Fixture::new().start();
    for way in [Way::SharedMemory, Way::Socket] {
        let some = counters_after(&server, way, &["init", "storm", "1000"]);
        let more = counters_after(&server, way, &["init", "storm", "3000"]);
        assert_eq!((some.launches, more.launches), (1000, 3000), "{way:?}");
        assert_eq!(more.messages_async - some.messages_async, 2000, "{way:?}: a launch is one message");
        assert_eq!(more.messages_sync, some.messages_sync, "{way:?}: no launch is awaited");
        assert_eq!(some.replies, some.messages_sync, "{way:?}: every awaited call is answered once");
        let named: u64 = some.awaited.values().sum();
        assert_eq!(named, some.messages_sync, "{way:?}: {:?}", some.awaited);
        assert!(
            some.awaited.contains_key("cuCtxSynchronize") && !some.awaited.contains_key("cuLaunchKernel")
        );
        assert_eq!(some.calls.get("cuLaunchKernel"), Some(&1000), "{way:?}");
        assert_eq!(some.unsupported_calls + some.errors + some.decode_errors + some.faults, 0, "{way:?}");
    }
}

#[test]
fn what_needs_no_answer_gets_none() {
    let server = Fixture::new().start();
    let nothing = counters_after(&server, Way::SharedMemory, &["init"]);
    // A round of churn: a stream made and destroyed, memory, a small copy each way, a launch, a synchronisation.
    let once = counters_after(&server, Way::SharedMemory, &["init", "churn", "1"]);
    let awaited = once.messages_sync - nothing.messages_sync;
    // Allocation, the copy back and the synchronisation; nothing else has a result that the guest cannot know.
    assert!(awaited <= 3, "{awaited} awaited calls: {:?}, without: {:?}", once.calls, nothing.calls);
}

#[test]
fn a_number_from_the_device_is_one_answer() {
    let server = Fixture::new().start();
    for way in [Way::SharedMemory, Way::Socket] {
        let some = counters_after(&server, way, &["init", "items", "10"]);
        let more = counters_after(&server, way, &["init", "items", "30"]);
        // The copy waits for its stream; the synchronisation behind it has nothing to ask. Two streams, twenty rounds.
        assert_eq!(more.messages_sync - some.messages_sync, 40, "{way:?}: {:?}", more.awaited);
        assert_eq!(more.awaited.get("cuStreamSynchronize"), None, "{way:?}: {:?}", more.awaited);
    }
}

#[test]
fn an_attribute_that_a_function_has_is_not_set_again() {
    let server = Fixture::new().start();
    let some = counters_after(&server, Way::SharedMemory, &["init", "attributes", "1"]);
    let more = counters_after(&server, Way::SharedMemory, &["init", "attributes", "50"]);
    assert_eq!(some.awaited.get("cuFuncSetAttribute"), Some(&3), "each change is one: {:?}", some.awaited);
    assert_eq!(more.awaited.get("cuFuncSetAttribute"), Some(&3), "{:?}", more.awaited);
    let finished = server.guest(probe()).args(["init", "attributes", "50"]).run();
    assert!(finished.stdout.contains("attributes 1024 2048 1024"), "{finished}");
}

#[test]
fn an_attribute_of_a_kernel_is_of_one_device() {
    if pxos_harness::is_on_a_gpu() {
        return pxos_harness::skipped("two devices are softgpu's");
    }
    let server = Fixture::new().env("PXSOFT_DEVICES", "2").start();
    let remoted = server.guest(probe()).args(["init", "kernels"]).run();
    assert!(remoted.stdout.contains("kernels 49152 2048\n"), "{remoted}");
}

#[test]
fn start_up_awaits_few_answers() {
    let server = Fixture::new().start();
    let counters = counters_after(&server, Way::SharedMemory, &["init"]);
    // The module and its functions' layouts, and the final synchronisation. What does not change came with the welcome.
    assert!(
        counters.messages_sync <= 6,
        "{} awaited calls to start: {:?}",
        counters.messages_sync,
        counters.calls
    );
}

#[test]
fn an_unsupported_function_is_named_everywhere() {
    let server = Fixture::new().start();
    let row = ROWS.iter().find(|row| row.class == Class::Unsupported).expect("not everything is supported");
    let mut guest = server
        .guest(probe())
        .env("PXOS_LOG", "warn")
        .args(["init", "call", row.name, "call", row.name, "sync", "say", "done", "read"])
        .start();
    guest.wait_for("say done");
    let line = format!("call {} CUDA_ERROR_NOT_SUPPORTED\n", row.name);
    assert_eq!(guest.stdout().matches(&line).count(), 2, "{}", guest.stdout());
    assert!(guest.stderr().contains(row.name), "the guest's log does not name it: {}", guest.stderr());
    let counters = server.session_of(guest.pid()).counters;
    assert!(counters.unsupported_calls >= 1, "{counters:?}");
    assert!(counters.calls.contains_key(row.name), "{:?}", counters.calls);
    let status = server.pxctl(&["status", "--calls"]);
    assert!(status.stdout.contains(row.name), "{status}");
    let json = server.pxctl(&["status", "--json"]);
    assert!(json.stdout.contains("\"unsupported_calls\"") && json.stdout.contains(row.name), "{json}");
    guest.say("end");
    let _ = guest.end();
}

#[test]
fn counters_of_the_dead_are_kept() {
    let server = Fixture::new().start();
    server.guest(sample("vectorAdd")).passes();
    let _ = server.settled();
    let totals = server.status().totals;
    assert_eq!((totals.sessions, totals.launches, totals.ended.get("closed")), (1, 1, Some(&1)));
    assert!(
        totals.messages_sync > 0 && totals.messages_async > 0 && totals.bytes_in > 0 && totals.bytes_out > 0,
        "{totals:?}"
    );
}

#[test]
fn the_shim_counts_and_traces_on_request() {
    let server = Fixture::new().start();
    let finished = server
        .guest(probe())
        .env("PXOS_LOG", "call")
        .env("PXOS_COUNTERS", "1")
        .args(["init", "storm", "7"])
        .passes();
    assert_eq!(finished.stderr.matches("pxos: cuLaunchKernel").count(), 7, "{finished}");
    let counted = finished
        .stderr
        .lines()
        .any(|line| line.contains("cuLaunchKernel") && line.contains('7') && !line.contains('→'));
    assert!(counted, "{finished}");
}

#[test]
fn pxctl_shows_a_session() {
    let server = Fixture::new().start();
    let mut guest =
        server.guest(probe()).args(["init", "alloc", "4194304", "sync", "say", "done", "read"]).start();
    guest.wait_for("say done");
    let session = server.session_of(guest.pid());
    assert_eq!((session.program.as_str(), session.counters.memory_used), ("pxos-probe", 4 << 20));
    let status = server.pxctl(&["status"]);
    for word in ["pxos-probe", "running", &guest.pid().to_string()] {
        assert!(status.stdout.contains(word), "'{word}' is not in: {status}");
    }
    guest.say("end");
    let _ = guest.end();
}
