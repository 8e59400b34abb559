//! A guest's life: fork, exec, every way out, several at once; each a session of its own, none left behind.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, probe, sample};
use std::time::Duration;

#[test]
fn a_fork_is_as_native() {
    let server = Fixture::new().tcp().arg("--pool-size=2").start();
    let before = server.settled();
    let direct = server.direct(sample("forkSafety")).passes();
    for way in Way::REMOTED {
        assert_eq!(server.program(sample("forkSafety"), way).passes().stdout, direct.stdout, "{way:?}");
    }
    server.assert_settles_as(&before);
}

#[test]
fn every_way_out_is_as_native() {
    let server = Fixture::new().tcp().arg("--pool-size=2").start();
    let before = server.settled();
    for way in Way::REMOTED {
        server.program(sample("exitPaths"), way).passes();
    }
    server.assert_settles_as(&before);
}

#[test]
fn a_program_that_becomes_another_gets_a_session_of_its_own() {
    let server = Fixture::new().start();
    let before = server.settled();
    for way in [Way::SharedMemory, Way::Socket] {
        let finished = server
            .program(probe(), way)
            .args([
                "init", "alloc", "1000000", "storm", "100", "exec", "say", "anew", "init", "copies", "3",
                "70000",
            ])
            .passes();
        assert!(finished.stdout.contains("say anew\ninit CUDA_SUCCESS\ncopies CUDA_SUCCESS\n"), "{finished}");
    }
    server.assert_settles_as(&before);
    assert_eq!(server.status().totals.sessions, 4);
}

#[test]
fn calls_that_wait_for_a_host_function_do_not_keep_it_from_ending() {
    let server = Fixture::new().tcp().start();
    for way in [Way::Direct, Way::SharedMemory, Way::Socket, Way::Tcp] {
        let finished =
            server.program(probe(), way).args(["init", "behind"]).limit(Duration::from_secs(20)).passes();
        assert!(finished.stdout.contains("behind CUDA_SUCCESS"), "{way:?}: {finished}");
    }
}

#[test]
fn several_guests_at_once_do_not_meet() {
    let server = Fixture::new().arg("--pool-size=2").tcp().start();
    let before = server.settled();
    let running: Vec<_> =
        [Way::SharedMemory, Way::Socket, Way::Tcp, Way::SharedMemory, Way::Socket, Way::SharedMemory]
            .into_iter()
            .map(|way| {
                server
                    .program(probe(), way)
                    .args(["init", "copies", "40", "300000", "churn", "40", "storm", "5000"])
                    .start()
            })
            .collect();
    server.wait("all at once", |status| status.sessions.len() >= 3 || status.totals.sessions >= 6);
    for guest in running {
        let finished = guest.end();
        assert_eq!(finished.stdout.matches("CUDA_SUCCESS").count(), 4, "{finished}");
    }
    server.assert_settles_as(&before);
}

#[test]
fn a_fault_stays_with_its_guest() {
    let server = Fixture::new().arg("--pool-size=2").start();
    let neighbour = server.guest(probe()).args(["init", "work"]).start();
    neighbour.wait_for("working");
    for _ in 0..3 {
        let _ = server.guest(sample("assert")).run();
    }
    assert!(!neighbour.stdout().contains("after"), "the neighbour met an error: {}", neighbour.stdout());
    assert!(server.status().sessions.iter().any(|session| session.pid == neighbour.pid()));
}

#[test]
fn a_full_server_says_so() {
    let server = Fixture::new().arg("--max-sessions=1").start();
    let mut first = server.guest(probe()).args(["init", "say", "in", "read"]).start();
    first.wait_for("say in");
    let second = server.guest(probe()).args(["init"]).passes();
    assert_eq!(second.stdout, "init CUDA_ERROR_DEVICE_UNAVAILABLE\n");
    assert!(second.stderr.contains("refuses"), "{second}");
    first.say("out");
    assert!(first.end().status.success());
    let _ = server.settled();
    assert_eq!(server.guest(probe()).args(["init"]).passes().stdout, "init CUDA_SUCCESS\n");
}

#[test]
fn a_guest_without_the_token_is_refused() {
    let server = Fixture::new().tcp().start();
    for token in ["", "a-token-of-somebody-else"] {
        let finished = server.program(probe(), Way::Tcp).env("PXOS_TOKEN", token).args(["init"]).passes();
        assert_eq!(finished.stdout, "init CUDA_ERROR_NOT_PERMITTED\n", "{finished}");
    }
}
