//! One order for all: what one thread has launched is done when another has synchronised, and output keeps its place.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, is_on_a_gpu, sample};

fn order_across_threads(name: &str) {
    let server = Fixture::new().tcp().start();
    for way in Way::REMOTED {
        let rounds = if way == Way::Tcp { "1000" } else { "10000" };
        let finished = server.program(sample(name), way).arg(rounds).passes();
        assert!(finished.stdout.contains(&format!("{rounds} rounds, 0 wrong")), "{way:?}: {finished}");
    }
}

#[test]
fn launches_of_one_thread_are_done_when_another_has_synchronised() {
    order_across_threads("orderAcrossThreads");
}

#[test]
fn launches_of_one_thread_are_done_with_default_streams_of_each_thread_own() {
    order_across_threads("orderAcrossThreadsPTDS");
}

#[test]
fn printed_lines_keep_their_place() {
    let server = Fixture::new().start();
    let direct = server.direct(sample("printf")).passes();
    for way in [Way::SharedMemory, Way::Socket] {
        let remoted = server.program(sample("printf"), way).passes();
        assert_eq!(remoted.stdout, direct.stdout, "{way:?}");
        assert_eq!(remoted.stderr, "", "{way:?}");
    }
}

#[test]
fn a_failed_assertion_reaches_the_guest() {
    let server = Fixture::new().start();
    let direct = server.direct(sample("assert")).run();
    for way in [Way::SharedMemory, Way::Socket] {
        let remoted = server.program(sample("assert"), way).run();
        assert_eq!((remoted.code(), &remoted.stdout), (direct.code(), &direct.stdout), "{way:?}");
        // The message goes to standard error, where the order of blocks is the device's own affair.
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        if is_on_a_gpu() {
            assert!(remoted.stderr.contains("Assertion"), "{remoted}");
        } else {
            assert_eq!(lines(&remoted.stderr), lines(&direct.stderr), "{way:?}");
        }
    }
}

#[test]
fn threads_of_one_program_share_a_context() {
    let server = Fixture::new().tcp().start();
    for name in ["multiThread", "multiThreadPTDS"] {
        for way in Way::REMOTED {
            server.program(sample(name), way).args(["12", "20"]).passes();
        }
    }
}
