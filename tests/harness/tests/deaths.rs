//! Sudden death, in the middle of a call: of a guest, of a worker, of the server. Nobody hangs, nothing is left, others go on.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Running, Server, Way, probe, process};
use std::time::Duration;

/// The longest that anybody may wait for what cannot come any more.
const PROMPT: Duration = Duration::from_secs(5);

const LOST: &str = "CUDA_ERROR_DEVICE_UNAVAILABLE";

fn fixture() -> Server {
    Fixture::new().arg("--pool-size=2").tcp().start()
}

/// A guest that works and notices if it is disturbed.
fn neighbour(server: &Server) -> Running {
    let neighbour = server.guest(probe()).args(["init", "work"]).start();
    neighbour.wait_for("working");
    neighbour
}

fn assert_undisturbed(server: &Server, neighbour: &Running) {
    let calls = || server.session_of(neighbour.pid()).counters.messages_async;
    let before = calls();
    server.wait("the neighbour going on", |_| calls() > before + 10);
    assert!(!neighbour.stdout().contains("after"), "the neighbour met an error: {}", neighbour.stdout());
}

/// A guest in a synchronisation that never ends.
fn stuck(server: &Server, way: Way) -> Running {
    let guest = server.program(probe(), way).args(["init", "endless", "say", "waiting", "sync"]).start();
    guest.wait_for("say waiting");
    // From printing to waiting it is a moment.
    server.wait("the call under way", |status| {
        status
            .sessions
            .iter()
            .any(|s| s.pid == guest.pid() && s.counters.last_op.as_deref() == Some("cuCtxSynchronize"))
    });
    guest
}

#[test]
fn a_guest_that_is_killed_leaves_nothing() {
    let server = fixture();
    let before = server.settled();
    let neighbour = neighbour(&server);
    for way in Way::REMOTED {
        let guest = stuck(&server, way);
        let worker = server.session_of(guest.pid()).worker;
        guest.signal(libc::SIGKILL);
        assert!(
            process::is_gone_within(worker, PROMPT),
            "{way:?}: its worker stays\n{}",
            process::stacks(worker)
        );
    }
    assert_undisturbed(&server, &neighbour);
    drop(neighbour);
    server.assert_settles_as(&before);
}

#[test]
fn a_guest_that_is_killed_while_its_worker_waits_inside_the_driver_leaves_nothing() {
    let server = fixture();
    let before = server.settled();
    for way in Way::REMOTED {
        // Freeing memory waits for the kernel that never ends; nobody awaits the free, so it is done in the worker's own turn.
        let guest = server
            .program(probe(), way)
            .args(["init", "alloc", "4096", "endless", "free", "say", "waiting", "meminfo"])
            .start();
        guest.wait_for("say waiting");
        std::thread::sleep(Duration::from_millis(100));
        let worker = server.session_of(guest.pid()).worker;
        guest.signal(libc::SIGKILL);
        assert!(
            process::is_gone_within(worker, PROMPT),
            "{way:?}: its worker stays\n{}",
            process::stacks(worker)
        );
    }
    server.assert_settles_as(&before);
}

#[test]
fn a_guest_that_is_killed_while_it_launches_leaves_nothing() {
    let server = fixture();
    let before = server.settled();
    for way in Way::REMOTED {
        for delay in [0, 3, 30] {
            let guest =
                server.program(probe(), way).args(["init", "say", "go", "storm", "1000000000"]).start();
            guest.wait_for("say go");
            std::thread::sleep(Duration::from_millis(delay));
            let worker = server.session_of(guest.pid()).worker;
            guest.signal(libc::SIGKILL);
            assert!(
                process::is_gone_within(worker, PROMPT),
                "{way:?}: its worker stays\n{}",
                process::stacks(worker)
            );
        }
    }
    server.assert_settles_as(&before);
}

#[test]
fn a_guest_whose_worker_is_killed_gets_an_error() {
    let server = fixture();
    let before = server.settled();
    let neighbour = neighbour(&server);
    for way in Way::REMOTED {
        let guest = stuck(&server, way);
        process::kill(server.session_of(guest.pid()).worker);
        let finished = guest.end_within(PROMPT);
        assert!(finished.stdout.contains(&format!("sync {LOST}")), "{way:?}: {finished}");
        assert!(finished.stderr.contains("pxos: "), "{way:?}: no line says why: {finished}");
    }
    assert_undisturbed(&server, &neighbour);
    drop(neighbour);
    server.assert_settles_as(&before);
    assert_eq!(server.status().totals.ended.get("signal"), Some(&3));
}

/// A guest's worker is killed in the midst of `work`, a while after it began: the guest is told, over every transport.
fn assert_told(work: &str, a_while: impl Fn(u32)) {
    let server = fixture();
    for way in Way::REMOTED {
        let guest = server.program(probe(), way).args(["init", "say", "go", work, "1000000000"]).start();
        guest.wait_for("say go");
        let worker = server.session_of(guest.pid()).worker;
        a_while(worker);
        process::kill(worker);
        let finished = guest.end_within(PROMPT);
        assert!(finished.stdout.contains(&format!("{work} {LOST}")), "{way:?}: {finished}");
    }
    let _ = server.settled();
}

#[test]
fn a_guest_whose_worker_is_killed_while_it_launches_gets_an_error() {
    assert_told("storm", |_| std::thread::sleep(Duration::from_millis(20)));
}

#[test]
fn a_guest_that_waits_for_room_learns_that_its_worker_is_gone() {
    assert_told("storm", |worker| {
        process::signal(i32::try_from(worker).expect("a pid"), libc::SIGSTOP);
        // Long enough for everything between the two to fill.
        std::thread::sleep(Duration::from_secs(1));
    });
}

#[test]
fn every_thread_of_a_guest_learns_that_its_worker_is_gone() {
    assert_told("churn", |_| std::thread::sleep(Duration::from_millis(50)));
}

#[test]
fn guests_of_a_server_that_is_killed_get_an_error_and_new_ones_a_new_server() {
    let mut server = fixture();
    let guests = Way::REMOTED.map(|way| stuck(&server, way));
    let working = neighbour(&server);
    let workers = process::children(server.pid());
    server.signal(libc::SIGKILL);
    for guest in guests {
        let finished = guest.end_within(PROMPT);
        assert!(finished.stdout.contains(&format!("sync {LOST}")), "{finished}");
    }
    let finished = working.end_within(PROMPT);
    assert!(finished.stdout.contains(&format!("work {LOST}")), "{finished}");
    for worker in workers {
        assert!(
            process::is_gone_within(worker, PROMPT),
            "a worker outlived its server\n{}",
            process::stacks(worker)
        );
    }
    server.restart();
    let finished = server.guest(probe()).args(["init", "copies", "3", "100000"]).passes();
    assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
}

#[test]
fn a_server_that_is_told_to_end_gives_its_guests_time_and_then_an_error() {
    let mut server = Fixture::new().arg("--drain-timeout=1s").start();
    let guest = stuck(&server, Way::SharedMemory);
    server.signal(libc::SIGTERM);
    let finished = guest.end_within(PROMPT);
    assert!(finished.stdout.contains("sync CUDA_ERROR_"), "{finished}");
    assert!(server.end().success());
}

#[test]
fn a_session_that_an_operator_ends_is_told_so() {
    let server = fixture();
    let before = server.settled();
    for way in Way::REMOTED {
        let guest = stuck(&server, way);
        server.dismiss(server.session_of(guest.pid()).id);
        let finished = guest.end_within(PROMPT);
        assert!(finished.stdout.contains("sync CUDA_ERROR_"), "{way:?}: {finished}");
        assert!(finished.stderr.contains("pxos: "), "{way:?}: no line says why: {finished}");
    }
    server.assert_settles_as(&before);
}

#[test]
fn a_warm_worker_that_is_killed_is_replaced() {
    let server = fixture();
    let before = server.settled();
    for worker in process::children(server.pid()) {
        process::kill(worker);
        assert!(process::is_gone_within(worker, PROMPT));
    }
    server.assert_settles_as(&before);
    server.guest(probe()).args(["init", "sync"]).passes();
}
