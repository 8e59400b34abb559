//! What is made and given back leaves nothing: memory and descriptors of server, worker and guest, and device memory.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, process, sample};
use std::time::{Duration, Instant};

const ROUNDS: &str = "200";

/// What a process may grow over 180 rounds: what an allocator keeps. A leak of one page per round is 720 KiB, of the
/// smallest array far more.
const FLAT: u64 = 6 << 20;

/// Threads that a process may have more: a worker's lanes start when calls first block at a time.
const LANES: usize = 4;

/// After that it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Waits until a process holds what it held before; threads that have nothing to do end a moment later.
fn settles(what: &str, pid: u32, before: &Held) {
    let begun = Instant::now();
    loop {
        let now = held(pid);
        let flat = now.memory.saturating_sub(before.memory) < FLAT
            && now.descriptors <= before.descriptors
            && now.threads <= before.threads + LANES;
        if flat {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} holds {now:?} after {ROUNDS} rounds, held {before:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rounds_leave_nothing(way: Way) {
    let server = Fixture::new().arg("--pool-rest=0s").start();
    let settled = server.settled();
    let mut guest = server.program(sample("mixedLoad"), way).args([ROUNDS, "watched"]).start();
    guest.wait_for("warm");
    let session = server.session_of(guest.pid());
    // The next worker is one of the server's possessions.
    server.wait("the next worker", |status| status.pool.warm == 1 && status.pool.starting == 0);
    let processes = [("server", server.pid()), ("worker", session.worker), ("guest", guest.pid())];
    let before = processes.map(|(_, pid)| held(pid));
    guest.say("go on");
    guest.wait_for("done");
    for ((what, pid), before) in processes.iter().zip(&before) {
        settles(&format!("{way:?}: the {what}"), *pid, before);
    }
    let counters = server.session_of(guest.pid()).counters;
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
