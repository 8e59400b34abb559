//! An operator's day: VMs are listed, changed while they run, drained, killed, made and destroyed; limits hold at once.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server, probe};
use pxos_protocol::endpoint::Endpoint;
use std::time::{Duration, Instant};

/// Runs pxctl, which has to succeed.
fn pxctl(server: &Server, args: &[&str]) -> String {
    let finished = server.pxctl(args);
    assert!(finished.status.success(), "pxctl {args:?}: {finished}");
    finished.stdout
}

/// Runs pxctl, which has to fail; what it says.
fn refused(server: &Server, args: &[&str]) -> String {
    let finished = server.pxctl(args);
    assert!(!finished.status.success(), "pxctl {args:?}: {finished}");
    finished.stderr
}

/// The VM of guests at the fixture's own socket.
fn stranger(server: &Server) -> String {
    server.endpoint().to_string()
}

#[test]
fn limits_that_change_count_at_once() {
    let server = Fixture::new().start();
    let vm = stranger(&server);
    let mut guest = server
        .guest(probe())
        .args(["init", "alloc", "8388608", "say", "free", "read", "alloc", "8388608", "meminfo"])
        .args(["say", "bound", "read", "alloc", "8388608", "call", "cuCtxSynchronize"])
        .start();
    guest.wait_for("say free");
    let said = pxctl(&server, &["vm", "set", &vm, "memory.max=12M", "weight=300"]);
    assert!(said.contains("weight: 100 -> 300") && said.contains("memory_max: max -> 12582912"), "{said}");
    let changed = Instant::now();
    guest.say("go on");
    guest.wait_for("say bound");
    assert!(changed.elapsed() < Duration::from_secs(20));
    let said = pxctl(&server, &["vm", "set", &vm, "memory_max=max"]);
    assert!(said.contains("12582912 -> max"), "{said}");
    guest.say("go on");
    let finished = guest.end();
    assert!(
        finished.stdout.contains("alloc CUDA_ERROR_OUT_OF_MEMORY\nmeminfo CUDA_SUCCESS 4194304 12582912\n"),
        "{finished}"
    );
    assert!(
        finished.stdout.ends_with("alloc CUDA_SUCCESS\ncall cuCtxSynchronize CUDA_SUCCESS\n"),
        "{finished}"
    );
    let wrong = refused(&server, &["vm", "set", &vm, "weight=0", "tier=fast", "colour=red"]);
    for part in ["weight: '0' is not a weight", "tier: 'fast' is not one of", "colour: 'colour' is no limit"]
    {
        assert!(wrong.contains(part), "{wrong}");
    }
    let shown = pxctl(&server, &["vm", "show", &vm]);
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["weight", "300"])), "{shown}");
}

#[test]
fn a_vm_is_made_drained_killed_and_destroyed() {
    let server = Fixture::new().start();
    let socket = server.at("red.sock").display().to_string();
    pxctl(
        &server,
        &["vm", "create", "red", &format!("socket={socket}"), "memory.max=64M", "max_processes=1"],
    );
    let at = Endpoint::Unix(server.at("red.sock")).to_string();
    let red = |args: &[&str]| server.guest(probe()).env("PXOS_SERVER", &at).args(args.iter().copied());
    let guest = red(&["init", "say", "here", "read"]).start();
    guest.wait_for("say here");
    let second = red(&["init"]).run();
    assert!(!second.stdout.contains("init CUDA_SUCCESS"), "max_processes is 1: {second}");
    assert!(
        pxctl(&server, &["vm", "list"])
            .lines()
            .any(|line| line.starts_with("red ") && line.contains(" 64.0M "))
    );
    pxctl(&server, &["vm", "drain", "red"]);
    pxctl(&server, &["vm", "set", "red", "max_processes=max"]);
    assert!(!red(&["init"]).run().stdout.contains("init CUDA_SUCCESS"), "drained");
    pxctl(&server, &["vm", "drain", "--undo", "red"]);
    red(&["init"]).passes();
    server.wait("one session", |status| status.sessions.len() == 1);
    assert!(pxctl(&server, &["vm", "kill", "red"]).contains("1 sessions of VM red end"));
    server.wait("no session", |status| status.sessions.is_empty());
    let _ = guest.end();
    assert!(pxctl(&server, &["accounting", "--csv"]).lines().any(|line| line.starts_with("red,")));
    pxctl(&server, &["vm", "destroy", "red"]);
    assert!(!server.at("red.sock").exists(), "its socket goes with it");
    assert!(refused(&server, &["vm", "show", "red"]).contains("there is no VM 'red'"));
    let events = pxctl(&server, &["events", "--once"]);
    for part in ["red: created, socket", "session.begin", "red: an operator ends its 1 sessions", "destroyed"]
    {
        assert!(events.contains(part), "'{part}' is not in\n{events}");
    }
}

#[test]
fn a_guest_that_is_denied_gets_no_device_and_a_reload_lets_it_in() {
    let server = Fixture::new().configuration("[default]\npolicy = \"deny\"").start();
    let denied = server.guest(probe()).args(["init"]).run();
    assert!(
        denied.stdout.contains("init CUDA_ERROR_NO_DEVICE") || denied.stdout.contains("init CUDA_ERROR_"),
        "{denied}"
    );
    assert!(!denied.stdout.contains("CUDA_SUCCESS"), "{denied}");
    std::fs::write(
        server.at("server.toml"),
        "[default]\npolicy = \"allow\"\nmemory_max = \"32M\"\nweight = 0\n",
    )
    .unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("the configuration is not changed");
    assert!(!server.guest(probe()).args(["init"]).run().stdout.contains("CUDA_SUCCESS"), "all or nothing");
    std::fs::write(server.at("server.toml"), "[default]\npolicy = \"allow\"\nmemory_max = \"32M\"\n")
        .unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("changed: default.policy: deny -> allow");
    server.wait_log("changed: default.memory_max: max -> 33554432");
    let finished = server.guest(probe()).args(["init", "meminfo"]).passes();
    assert!(finished.stdout.contains("meminfo CUDA_SUCCESS 33554432 33554432"), "{finished}");
}

#[test]
fn streams_are_bounded_where_the_vm_says_so() {
    let server = Fixture::new().configuration("[default]\nmax_streams = 3").start();
    let finished = server.guest(probe()).args(["init", "streams", "5"]).passes();
    assert!(
        finished.stdout.ends_with("streams CUDA_ERROR_OUT_OF_MEMORY after 3, again CUDA_SUCCESS\n"),
        "{finished}"
    );
    server.wait("empty", |status| status.sessions.is_empty());
}

#[test]
fn a_fork_bomb_of_cuda_processes_ends_at_the_limit_and_harms_no_neighbour() {
    let server = Fixture::new()
        .arg("--pool-size=2")
        .configuration("[default]\nmax_processes = 3\n[[vm]]\nname = \"neighbour\"\nsocket = \"NEIGHBOUR\"\n")
        .replacing("NEIGHBOUR", "neighbour.sock")
        .start();
    let bombs: Vec<_> =
        (0..12).map(|_| server.guest(probe()).args(["init", "say", "in", "read"]).start()).collect();
    let standing = server.wait("three", |status| status.sessions.len() == 3);
    assert_eq!(standing.sessions.len(), 3);
    let at = Endpoint::Unix(server.at("neighbour.sock")).to_string();
    server.guest(probe()).env("PXOS_SERVER", at).args(["init", "copies", "3", "100000"]).passes();
    server.wait("the others refused", |status| status.totals.refused.get("full").copied().unwrap_or(0) >= 9);
    assert_eq!(server.status().sessions.iter().filter(|session| session.vm != "neighbour").count(), 3);
    drop(bombs);
    server.wait("empty", |status| status.sessions.is_empty());
}

#[test]
fn an_allocation_storm_of_one_vm_leaves_the_other_its_memory() {
    let server = Fixture::new()
        .arg("--pool-size=2")
        .configuration(
            "[default]\nmemory_max = \"64M\"\n[[vm]]\nname = \"neighbour\"\nsocket = \"NEIGHBOUR\"\n",
        )
        .replacing("NEIGHBOUR", "neighbour.sock")
        .start();
    let storm = server.guest(probe()).args(["init", "allocstorm"]).start();
    storm.wait_for("storming");
    let at = Endpoint::Unix(server.at("neighbour.sock")).to_string();
    let finished = server
        .guest(probe())
        .env("PXOS_SERVER", at)
        .args(["init", "alloc", "62914560", "copies", "3", "100000"])
        .passes();
    assert!(finished.stdout.contains("alloc CUDA_SUCCESS\ncopies CUDA_SUCCESS"), "{finished}");
    let refusals = pxctl(&server, &["vm", "show", &stranger(&server)]);
    assert!(!refusals.contains("refused       0\n"), "{refusals}");
    drop(storm);
    server.wait("empty", |status| status.sessions.is_empty());
}
