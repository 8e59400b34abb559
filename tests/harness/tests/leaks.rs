//! What is made and given back leaves nothing: memory and descriptors of server, worker and guest, and device memory.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, process, sample};

const ROUNDS: &str = "200";

/// What a process may grow over 180 rounds: what an allocator keeps. A leak of one page per round is 720 KiB, of the
/// smallest array far more.
const FLAT: u64 = 6 << 20;

/// What a process holds.
#[derive(Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

fn held(pid: u32) -> Held {
    Held {
        memory: process::anonymous_memory(pid),
        descriptors: process::descriptors(pid).len(),
        threads: process::threads(pid),
    }
}

fn rounds_leave_nothing(way: Way) {
    let server = Fixture::new().start();
    let settled = server.settled();
    let mut guest = server.program(sample("mixedLoad"), way).args([ROUNDS, "watched"]).start();
    guest.wait_for("warm");
    let session = server.session_of(guest.pid());
    let processes = [("server", server.pid()), ("worker", session.worker), ("guest", guest.pid())];
    let before = processes.map(|(_, pid)| held(pid));
    guest.say("go on");
    guest.wait_for("done");
    let after = processes.map(|(_, pid)| held(pid));
    let counters = server.session_of(guest.pid()).counters;
    for (((what, _), before), after) in processes.iter().zip(&before).zip(&after) {
        let grown = after.memory.saturating_sub(before.memory);
        assert!(grown < FLAT, "{way:?}: the {what} grew by {grown} bytes over {ROUNDS} rounds");
        assert!(
            after.descriptors <= before.descriptors,
            "{way:?}: the {what} has {} descriptors, had {}",
            after.descriptors,
            before.descriptors
        );
        assert!(after.threads <= before.threads + 4, "{way:?}: the {what} has {after:?}, had {before:?}");
    }
    assert_eq!(
        counters.memory_used, session.counters.memory_used,
        "{way:?}: device memory is counted that was freed"
    );
    guest.say("end");
    let finished = guest.end();
    assert!(finished.status.success() && finished.stdout.ends_with("PASS\n"), "{finished}");
    server.assert_settles_as(&settled);
}

#[test]
fn two_hundred_rounds_of_everything_leave_nothing_over_shared_memory() {
    rounds_leave_nothing(Way::SharedMemory);
}

#[test]
fn two_hundred_rounds_of_everything_leave_nothing_over_a_socket() {
    rounds_leave_nothing(Way::Socket);
}
