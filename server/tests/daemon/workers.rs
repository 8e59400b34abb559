//! Workers that fail, die, hang and lie; the pool that replaces them.

use crate::server::{Guest, Server, hello, is_alive, wait_dead};
use pxos_protocol::admin::Request;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::types::CUresult;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a ping's thread number asks of the fake worker.
const ABORT: u32 = 1001;
const HANG: u32 = 1002;
const GARBAGE_STATS: u32 = 1003;
const GARBAGE_CONTROL: u32 = 1004;
const CLOSE_CONTROL: u32 = 1005;
const EXIT_3: u32 = 1006;

#[test]
fn a_worker_that_dies_takes_its_guest_alone() {
    let server = Server::start(&["--pool-size", "2"]);
    let (mut bystander, mut victim) = (server.begin(), server.begin());
    assert!(bystander.ping(1) && victim.ping(1));
    assert!(!victim.ping(ABORT), "the connection closes");
    server.wait("noticed", |status| status.totals.ended.get("signal") == Some(&1));
    server.wait_log("worker died of SIGABRT (6)");
    assert!(bystander.ping(2));
    let mut victim = server.begin();
    assert!(!victim.ping(EXIT_3));
    server.wait("noticed", |status| status.totals.ended.get("exit") == Some(&1));
    server.wait_log("worker ended with status 3");
    assert!(bystander.ping(3));
    server.wait("refilled", |status| status.pool.warm == 2 && status.sessions.len() == 1);
}

#[test]
fn the_first_moments_of_a_program_are_its_own() {
    let server = Server::start(&["--pool-rest", "600s"]);
    let first = server.begin();
    // Who waits gets a worker all the same, and nobody gets one who does not.
    let second = server.begin();
    let status = server.status().unwrap();
    assert_eq!((status.sessions.len(), status.pool.warm, status.pool.starting), (2, 0, 0));
    drop(first);
    server.wait("ended", |status| status.sessions.len() == 1);
    assert_eq!(server.status().unwrap().pool.starting, 0, "the second has just begun");
    drop(second);
    server.wait("refilled", |status| status.sessions.is_empty() && status.pool.warm == 1);
}

#[test]
fn a_worker_that_lies_harms_nobody() {
    let server = Server::start(&[]);
    let mut bystander = server.begin();
    let mut liar = server.begin();
    assert!(liar.ping(GARBAGE_STATS));
    let status = server.status().unwrap();
    assert_eq!(status.sessions[1].counters.state, "unknown");
    assert_eq!(status.sessions[1].counters.memory_used, u64::MAX);
    liar.ping(GARBAGE_CONTROL);
    server.wait("killed", |status| status.totals.ended.get("wrong") == Some(&1));
    // One that cuts itself off is not left alive.
    let mut loner = server.begin();
    let pid = server.status().unwrap().sessions[1].worker;
    loner.ping(CLOSE_CONTROL);
    wait_dead(pid);
    server.wait("gone", |status| status.sessions.len() == 1);
    assert!(bystander.ping(1));
}

#[test]
fn an_operator_ends_a_session_that_hangs() {
    let server = Server::start(&[]);
    let mut guest = server.begin();
    let session = server.session();
    let hung = std::thread::spawn(move || guest.ping(HANG));
    server.wait("hanging", |status| status.sessions[0].counters.messages_sync == 1);
    let start = Instant::now();
    server.ask(&Request::Kill { id: session.id }).unwrap();
    assert!(!hung.join().unwrap(), "the guest sees the end");
    wait_dead(session.worker);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let status = server.wait("ended", |status| status.sessions.is_empty());
    assert_eq!(status.totals.ended, [("dismissed".to_owned(), 1)].into());
}

#[test]
fn a_warm_worker_that_dies_is_replaced() {
    let server = Server::spawn(&["--driver", "/fake/gone"]);
    server.wait_log("warm worker died: worker died of SIGABRT");
    server.wait("replaced", |status| status.pool.warm == 1 && status.pool.failures == 1);
    assert!(server.begin().ping(1));
}

#[test]
fn without_a_pool_workers_start_on_demand() {
    let server = Server::start(&["--pool-size", "0", "--driver", "/fake/slow"]);
    let mut first = server.begin();
    assert!(first.ping(1));
    assert_eq!(server.status().unwrap().pool.warm, 0);
    // Several at once, each of which waits for a worker of its own.
    let guests: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for guest in &guests {
        guest.hello(&hello());
    }
    for mut guest in guests {
        guest.welcome();
        assert!(guest.ping(1));
    }
    server.wait("empty", |status| status.pool.warm == 0 && status.pool.starting == 0);
}

#[test]
fn a_guest_that_leaves_the_queue_costs_no_worker() {
    let server =
        Server::start(&["--pool-size", "0", "--driver", "/fake/ready", "--pool-wait-timeout", "600ms"]);
    let _first = server.begin();
    assert_eq!(server.status().unwrap().totals.sessions, 1);
    let patient = server.connect();
    patient.hello(&hello());
    drop(patient);
    server.wait("begun or refused", |status| {
        status.totals.sessions + status.totals.refused.values().sum::<u64>() == 2
    });
    server.wait("over", |status| status.sessions.len() == 1);
}

#[test]
fn a_driver_that_fails_ends_the_server_with_its_words() {
    for (driver, words) in [
        ("/fake/fail", "the fake driver fails on purpose"),
        ("/fake/die", "worker died of SIGABRT"),
        ("/fake/garbage", "control message"),
        ("/fake/silent", "was not ready within 300ms"),
    ] {
        let mut server = Server::spawn(&["--driver", driver, "--pool-start-timeout", "300ms"]);
        assert_eq!(server.end().code(), Some(1), "{driver}");
        let log = server.log();
        assert!(log.contains("no driver can be used") && log.contains(driver), "{log}");
        assert!(log.contains(words), "'{words}' is not in {log}");
        assert!(!server.at("guest.sock").exists() && !server.at("control.sock").exists());
    }
}

#[test]
fn auto_falls_back_to_this_cpu_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (bin, lib) = (directory.path().join("bin"), directory.path().join("lib"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&lib).unwrap();
    std::fs::write(lib.join("libpxsoft.so"), "").unwrap();
    let binary = bin.join("pxos-server");
    std::fs::copy(env!("CARGO_BIN_EXE_pxos-server"), &binary).unwrap();
    let server = Server::spawn_binary(&binary, &["--driver", "auto", "--log-level", "error"], directory);
    let status = server.wait("running", |status| status.server.state == "running");
    assert_eq!(status.driver.path.as_deref(), Some(lib.join("libpxsoft.so").as_path()));
    let why = status.driver.fallback.unwrap();
    assert!(why.contains("libcuda.so.1: the fake driver fails on purpose"), "{why}");
    // Whatever the level of the log.
    assert!(server.log().contains("NO GPU IS USED"), "{}", server.log());
    assert!(server.begin().ping(1));
}

#[test]
fn workers_die_with_a_daemon_that_is_killed() {
    let mut server = Server::start(&["--pool-size", "2"]);
    let mut guest = server.begin();
    let worker = server.session().worker;
    server.wait("refilled", |status| status.pool.warm == 2);
    let children = children(server.child.id());
    assert_eq!(children.len(), 3, "{children:?}");
    assert!(children.contains(&worker));
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    for child in children {
        wait_dead(child);
    }
    guest.assert_closed();
}

#[test]
fn nothing_leaks_over_many_sessions() {
    let server = Server::start(&[]);
    let settle = || server.wait("settled", |status| status.sessions.is_empty() && status.pool.warm == 1);
    let count =
        |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", server.child.id())).unwrap().count();
    drop(server.begin());
    settle();
    std::thread::sleep(Duration::from_millis(300));
    let (files, threads) = (count("fd"), count("task"));
    for round in 0..60 {
        match round % 3 {
            0 => drop(server.begin()),
            1 => assert!(!server.begin().ping(ABORT)),
            _ => {
                let mut guest = server.connect();
                guest.hello(&pxos_protocol::control::Hello { version: 2000, ..hello() });
                assert_eq!(guest.refusal().result, CUresult::ERROR_SYSTEM_DRIVER_MISMATCH.0);
            }
        }
    }
    let status = settle();
    assert_eq!((status.totals.sessions, status.totals.refused["version"]), (41, 20));
    let start = Instant::now();
    while count("fd") > files || count("task") > threads {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "files {files} -> {}, threads {threads} -> {}",
            count("fd"),
            count("task")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(children(server.child.id()).len(), 1, "only the warm worker, and no zombie");
    // Twenty crashes and twenty refusals: the log has the first of each and a count.
    assert!(server.log().matches("session ends").count() < 60);
    assert!(server.log().matches("wire version 2000").count() <= 15, "{}", server.log());
}

/// Children of a process, zombies included.
fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(Path::new("/proc").join(entry.file_name()).join("stat"))
        else {
            continue;
        };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if parent == Some(pid) {
            children.push(child);
        }
    }
    assert!(children.iter().all(|child| is_alive(*child)), "a zombie among {children:?}");
    children
}

#[test]
fn a_worker_that_sees_other_devices_than_it_should_serves_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let rule = |name: &str, gpus: &str| {
        format!("[[vm]]\nname = \"{name}\"\nsocket = \"{}\"\ngpus = \"{gpus}\"\n", at(name).display())
    };
    std::fs::write(at("server.toml"), rule("red", "1") + &rule("both", "0,1")).unwrap();
    let [red, both] = ["red", "both"].map(|name| Endpoint::Unix(at(name)));
    let binary = Path::new(env!("CARGO_BIN_EXE_pxos-server"));
    let server = Server::spawn_binary(binary, &["--driver", "/fake/blind"], directory);
    server.wait("running", |status| status.server.state == "running");
    server.wait_log("it sees GPU-abababab-abab-abab-abab-abababababab,GPU-cdcdcdcd-");
    let mut red = Guest::connect(&red);
    red.hello(&hello());
    let refusal = red.refusal();
    assert!(refusal.message.contains("no worker can be started: it sees GPU-"), "{refusal:?}");
    // Who is to see both is served, and all others are.
    for mut guest in [Guest::connect(&both), server.connect()] {
        guest.hello(&hello());
        assert!(guest.welcome().session > 0);
        assert!(guest.ping(1));
    }
    assert_eq!(server.status().unwrap().devices.len(), 2);
}
