//! Memory that a VM is promised (`memory_min`): what others reserve never cuts into it, and they see that it is not theirs.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Driver, Finished, Fixture, Guest, Incoming, Program, Server, hello, probe};
use pxos_protocol::control::{self, Purpose};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::monitor::VmUse;

const MIB: u64 = 1 << 20;

/// A device of 256 MiB, of which red is promised 96.
fn start() -> Server {
    Fixture::new()
        .driver(Driver::Soft)
        .arg("--pool-size=2")
        .env("PXSOFT_MEMORY", "256")
        .configuration("[[vm]]\nname = \"red\"\nsocket = \"RED\"\nmemory_min = \"96M\"\n")
        .configuration("[[vm]]\nname = \"blue\"\nsocket = \"BLUE\"\n")
        .replacing("RED", "red.sock")
        .replacing("BLUE", "blue.sock")
        .start()
}

fn endpoint(server: &Server, vm: &str) -> Endpoint {
    Endpoint::Unix(server.at(&format!("{vm}.sock")))
}

fn program(server: &Server, vm: &str) -> Program {
    server.guest(probe()).env("PXOS_SERVER", endpoint(server, vm).to_string())
}

fn pxctl(server: &Server, args: &[&str]) -> String {
    let finished = server.pxctl(args);
    assert!(finished.status.success(), "pxctl {args:?}: {finished}");
    finished.stdout
}

/// What `meminfo` said, the `nth` time: free and total MiB.
fn info(finished: &Finished, nth: usize) -> (u64, u64) {
    let mut lines = finished.stdout.lines().filter_map(|line| line.strip_prefix("meminfo CUDA_SUCCESS "));
    let line = lines.nth(nth).unwrap_or_else(|| panic!("no line {nth}: {finished}"));
    let (free, total) = line.split_once(' ').expect("two numbers");
    let mib = |text: &str| text.parse::<u64>().expect("a number") / MIB;
    (mib(free), mib(total))
}

#[test]
fn a_promise_is_kept_from_others_whether_its_vm_is_there_or_not() {
    let server = start();
    let [eighty, eightyone] = [80 * MIB, 81 * MIB].map(|bytes| bytes.to_string());
    let mut blue = program(&server, "blue")
        .args(["init", "meminfo", "alloc", &eighty, "meminfo", "alloc", &eightyone, "alloc", &eighty])
        .args(["meminfo", "say", "full", "read", "alloc", "1", "free", "meminfo"])
        .start();
    blue.wait_for("say full");
    // The whole promise is there, and no more.
    let mut red = program(&server, "red")
        .args([
            "init",
            "meminfo",
            "alloc",
            &(96 * MIB).to_string(),
            "alloc",
            "1",
            "meminfo",
            "say",
            "has",
            "read",
        ])
        .start();
    red.wait_for("say has");
    let status = server.status();
    assert_eq!(status.devices[0].promised, 96 * MIB);
    blue.say("go on");
    let blue = blue.end();
    assert_eq!(
        blue.stdout.lines().filter(|line| line.starts_with("alloc")).collect::<Vec<_>>(),
        [
            "alloc CUDA_SUCCESS",
            "alloc CUDA_ERROR_OUT_OF_MEMORY",
            "alloc CUDA_SUCCESS",
            "alloc CUDA_ERROR_OUT_OF_MEMORY"
        ],
        "{blue}"
    );
    assert_eq!(
        [0, 1, 2, 3].map(|nth| info(&blue, nth)),
        [(160, 256), (80, 256), (0, 256), (80, 256)],
        "{blue}"
    );
    red.say("end");
    let red = red.end();
    assert_eq!([0, 1].map(|nth| info(&red, nth)), [(96, 256), (0, 256)], "{red}");
    assert!(red.stdout.contains("alloc CUDA_SUCCESS\nalloc CUDA_ERROR_OUT_OF_MEMORY\n"), "{red}");
}

#[test]
fn a_vm_may_hold_more_than_its_promise_where_there_is_more() {
    let server = start();
    let finished = program(&server, "red")
        .args(["init", "alloc", &(200 * MIB).to_string(), "meminfo", "alloc", &(57 * MIB).to_string()])
        .passes();
    assert!(finished.stdout.contains("init CUDA_SUCCESS\nalloc CUDA_SUCCESS\n"), "{finished}");
    assert_eq!(info(&finished, 0), (56, 256));
    assert!(finished.stdout.ends_with("alloc CUDA_ERROR_OUT_OF_MEMORY\n"), "{finished}");
}

#[test]
fn promises_change_while_guests_run_and_are_shown() {
    let server = start();
    let mut blue = program(&server, "blue")
        .args([
            "init",
            "alloc",
            &(100 * MIB).to_string(),
            "say",
            "held",
            "read",
            "meminfo",
            "say",
            "more",
            "read",
        ])
        .args(["meminfo", "say", "none", "read", "meminfo"])
        .start();
    blue.wait_for("say held");
    for (set, wrong) in [
        ("memory.min=257M", "device 0 has 268435456 bytes, and VMs are promised"),
        ("memory.min=x", "is not an amount of memory"),
        ("memory.min=max", "is not an amount of memory"),
    ] {
        let finished = server.pxctl(&["vm", "set", "red", set]);
        assert!(!finished.status.success() && finished.stderr.contains(wrong), "{set}: {finished}");
    }
    let finished = server.pxctl(&["vm", "set", "red", "memory.min=64M", "memory.max=32M"]);
    assert!(finished.stderr.contains("more than its memory_max"), "{finished}");
    // 256 - 150 are left to blue.
    let said = pxctl(&server, &["vm", "set", "red", "memory.min=150M"]);
    assert!(said.contains("memory_min: 100663296 -> 157286400"), "{said}");
    blue.say("go on");
    blue.wait_for("say more");
    // More than can be had now: what blue holds stays.
    pxctl(&server, &["vm", "set", "red", "memory.min=200M"]);
    let top = pxctl(&server, &["top", "--once"]);
    let line =
        |name: &str| top.lines().find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default();
    assert!(top.contains("OWED") && line("red ").contains(" 200M "), "{top}");
    let shown = pxctl(&server, &["vm", "show", "red"]);
    assert!(shown.contains("memory.min        200 MiB, 200 MiB of it owed\n"), "{shown}");
    let status = pxctl(&server, &["status"]);
    let words: Vec<&str> = status.split_whitespace().collect();
    assert!(words.join(" ").contains("200 MiB promised to VMs"), "{status}");
    blue.say("go on");
    blue.wait_for("say none");
    pxctl(&server, &["vm", "set", "red", "memory.min=0"]);
    assert!(!pxctl(&server, &["top", "--once"]).contains("OWED"));
    blue.say("go on");
    let blue = blue.end();
    assert_eq!([0, 1, 2].map(|nth| info(&blue, nth)), [(6, 256), (0, 256), (156, 256)], "{blue}");
}

#[test]
fn a_reload_refuses_promises_that_cannot_be_kept() {
    let server = start();
    let rules = std::fs::read_to_string(server.at("server.toml")).expect("the fixture wrote it");
    let both = rules.replace("blue.sock\"\n", "blue.sock\"\nmemory_min = \"161M\"\n");
    std::fs::write(server.at("server.toml"), &both).expect("the folder takes files");
    server.signal(libc::SIGHUP);
    server.wait_log("VMs are promised 269484032 of them: red 100663296, blue 168820736");
    server.wait_log("the configuration is not changed");
    let fits = both.replace("161M", "160M");
    std::fs::write(server.at("server.toml"), fits).expect("the folder takes files");
    server.signal(libc::SIGHUP);
    server.wait_log("changed: memory_min: 0 -> 167772160");
    assert_eq!(server.status().devices[0].promised, 256 * MIB);
    // A VM that nobody has promised anything has nothing left.
    let finished = server.guest(probe()).args(["init", "meminfo", "alloc", "1"]).passes();
    assert_eq!(info(&finished, 0), (0, 256));
    assert!(finished.stdout.ends_with("alloc CUDA_ERROR_OUT_OF_MEMORY\n"), "{finished}");
}

#[test]
fn vms_that_race_fill_the_device_and_no_more() {
    let server = start();
    // Blue and strangers allocate for ever, and never mind a refusal; red's processes come and go and always get theirs.
    let storms = [
        program(&server, "blue").args(["init", "allocstorm"]).start(),
        server.guest(probe()).args(["init", "allocstorm"]).start(),
    ];
    storms.iter().for_each(|storm| storm.wait_for("storming"));
    for _ in 0..4 {
        let halves = [0, 1].map(|_| {
            let half = (47 * MIB).to_string();
            program(&server, "red")
                .args([
                    "init", "alloc", &half, "free", "alloc", &half, "free", "alloc", &half, "copies", "2",
                    "100000",
                ])
                .start()
        });
        for half in halves {
            let finished = half.end();
            assert_eq!(finished.stdout.matches("alloc CUDA_SUCCESS").count(), 3, "{finished}");
        }
        let held: u64 = server.status().sessions.iter().map(|session| session.counters.memory_used).sum();
        assert!(held <= 256 * MIB, "{held} bytes are held");
    }
    drop(storms);
    server.wait("empty", |status| status.sessions.is_empty());
    let finished = program(&server, "red").args(["init", "meminfo"]).passes();
    assert_eq!(info(&finished, 0), (256, 256), "what the dead held is free");
}

#[test]
fn nvml_tells_the_same() {
    let server = start();
    let mut blue = program(&server, "blue")
        .args(["init", "alloc", &(40 * MIB).to_string(), "say", "held", "read"])
        .start();
    blue.wait_for("say held");
    // The last is no VM's socket, and nobody has come there yet.
    for (vm, free) in [("blue", 120), ("red", 216), ("guest", 120)] {
        let mut guest = Guest::connect(&endpoint(&server, vm));
        guest.say_hello(&control::Hello { purpose: Purpose::Probe, ..hello() });
        let _ = guest.welcome();
        assert!(guest.send(Header::new(frame::control::QUERY_VM), &[]));
        let Incoming::Frame(_, payload) = guest.receive() else { panic!("no answer") };
        let vm_use: VmUse = control::decode(&payload).expect("an answer");
        assert_eq!((vm_use.devices[0].free / MIB, vm_use.devices[0].total / MIB), (free, 256), "{vm}");
    }
    blue.say("end");
    let _ = blue.end();
}
