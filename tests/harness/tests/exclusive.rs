//! Atomics that host and kernels make on the same words of managed memory, over a bus that carries none (decision 0020).
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server, Way, process, sample};
use std::time::Duration;

/// A kernel for which the host waits is given up after 10 s; the rest is for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(40);

const WARNING: &str = "they seem to wait for each other";

/// Every line of the program.
const LINES: &str = "host and kernel: exact\n\
    two streams: exact\n\
    launch after launch: exact\n\
    another thread: exact\n\
    a host function: exact\n\
    a captured graph: exact\n\
    a graph of nodes: exact\n\
    the host beside a kernel without them\n\
    with a handler of the program's: exact\n\
    without it again: exact\n\
    faults of the program's own\n\
    host and kernel waited for each other\n\
    PASS\n";

/// A server whose device reaches the host's memory over a bus without atomics. A GPU has the bus that it has.
fn fixture() -> Server {
    Fixture::new().env("PXSOFT_BUS_ATOMICS", "0").start()
}

#[test]
fn no_update_is_lost_and_who_waits_for_each_other_goes_on() {
    let server = fixture();
    let before = server.settled();
    let finished = server.program(sample("systemAtomics"), Way::SharedMemory).passes();
    assert_eq!(finished.stdout, LINES, "{finished}");
    let warnings: Vec<&str> = finished.stderr.lines().collect();
    assert!(
        matches!(warnings[..], [line] if line.starts_with("pxos: ") && line.contains(WARNING)),
        "{finished}"
    );
    server.assert_settles_as(&before);
}

#[test]
fn a_kernel_that_fails_while_the_host_waits_is_an_error() {
    let server = fixture();
    let finished =
        server.program(sample("systemAtomics"), Way::SharedMemory).arg("trap").limit(GIVEN_UP).passes();
    assert_eq!(finished.stdout, "waiting\nthe kernel has failed\n", "{finished}");
    assert!(!finished.stderr.contains(WARNING), "it did not wait for the host: {finished}");
}

#[test]
fn a_worker_that_is_killed_while_the_host_waits_is_an_error() {
    let server = fixture();
    let before = server.settled();
    let guest = server.program(sample("systemAtomics"), Way::SharedMemory).arg("endless").start();
    guest.wait_for("waiting");
    process::kill(server.session_of(guest.pid()).worker);
    let finished = guest.end_within(GIVEN_UP);
    assert_eq!(finished.stdout, "waiting\nthe kernel has failed\n", "{finished}");
    server.assert_settles_as(&before);
}
