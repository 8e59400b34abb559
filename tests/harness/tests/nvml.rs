//! NVML in the guest: the VM's memory, processes and share as CUDA and the operator see them, and nothing of other VMs.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Program, Running, Server, Way, hello, is_on_a_gpu, probe, tool};
use pxos_protocol::control::{self, Hello, Purpose};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::monitor::VmUse;
use std::path::Path;

const LIMIT: u64 = 64 << 20;

/// A guest that has NVML beside the shim.
fn with_nvml(program: Program) -> Program {
    let [shim, nvml] = ["libpxshim.so", "libpxnvml.so"].map(|name| tool(name).display().to_string());
    program.env("LD_PRELOAD", format!("{shim}:{nvml}"))
}

fn guest(server: &Server) -> Program {
    with_nvml(server.guest(probe()))
}

/// The rest of the line of standard output that begins so, the `nth` of them.
fn said(output: &str, start: &str, nth: usize) -> String {
    let mut lines = output.lines().filter_map(|line| line.strip_prefix(start));
    lines
        .nth(nth)
        .unwrap_or_else(|| panic!("no line {nth} begins with '{start}' in\n{output}"))
        .trim()
        .to_owned()
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// A second VM: a socket of its own, by a rule.
fn two_vms() -> Server {
    Fixture::new()
        .arg("--default-memory-max=64M")
        .arg("--pool-size=2")
        .configuration("[[vm]]\nname = \"other\"\nsocket = \"OTHER\"\nmemory_max = \"32M\"\n")
        .replacing("OTHER", "other.sock")
        .start()
}

fn of_other_vm(server: &Server) -> Program {
    with_nvml(server.guest(probe())).env("PXOS_SERVER", Endpoint::Unix(server.at("other.sock")).to_string())
}

#[test]
fn memory_is_the_quota_and_agrees_with_cuda() {
    let server = Fixture::new().arg("--default-memory-max=64M").tcp().start();
    for way in Way::REMOTED {
        let finished = with_nvml(server.program(probe(), way))
            .args(["init", "nvml", "init", "nvml", "memory", "meminfo"])
            .args(["alloc", "33554432", "nvml", "memory", "meminfo"])
            .args(["alloc", "1000", "nvml", "memory", "meminfo"])
            .args(["free", "free", "meminfo", "nvml", "memory"])
            .args(["nvml", "device"])
            .passes();
        let output = &finished.stdout;
        for step in 0..4 {
            let memory = numbers(&said(output, "nvml ", step + 1));
            let info = numbers(&said(output, "meminfo CUDA_SUCCESS ", step));
            assert_eq!(memory.len(), 3, "{way:?}: {output}");
            assert_eq!((memory[0], memory[1]), (LIMIT, info[0]), "{way:?}, step {step}: {output}");
            assert_eq!((info[1], memory[2]), (LIMIT, LIMIT - info[0]), "{way:?}, step {step}: {output}");
        }
        let free = |step| numbers(&said(output, "meminfo CUDA_SUCCESS ", step))[0];
        assert_eq!(free(0) - free(1), 32 << 20, "{way:?}");
        assert!(free(1) > free(2) && free(3) == free(0), "{way:?}: {output}");
        let device = said(output, "nvml ", 5);
        assert!(device.ends_with("name same, uuid same, bus same"), "{way:?}: {device}");
    }
    // A process that lowers its own limit is shown that one.
    let finished = guest(&server)
        .env("PXOS_MEMORY_MAX", "16M")
        .args(["init", "alloc", "1048576", "nvml", "init", "nvml", "memory", "meminfo"])
        .passes();
    let memory = numbers(&said(&finished.stdout, "nvml ", 1));
    let info = numbers(&said(&finished.stdout, "meminfo CUDA_SUCCESS ", 0));
    assert_eq!((memory[0], memory[1]), (16 << 20, info[0]), "{finished}");
    assert_eq!(info[1], 16 << 20);
}

/// Starts a guest that holds so many bytes until it reads a line.
fn holding(program: Program, bytes: u64) -> Running {
    let running = program
        .args([
            "init",
            "alloc",
            &bytes.to_string(),
            "say",
            "held",
            "read",
            "nvml",
            "init",
            "nvml",
            "processes",
            "nvml",
            "memory",
            "say",
            "seen",
            "read",
        ])
        .start();
    running.wait_for("say held");
    running
}

#[test]
fn processes_are_those_of_the_vm_by_their_numbers_in_the_guest() {
    let server = two_vms();
    let mut one = holding(guest(&server), 8 << 20);
    let mut two = holding(guest(&server), 4 << 20);
    let mut other = holding(of_other_vm(&server), 16 << 20);
    for guest in [&mut one, &mut two, &mut other] {
        guest.say("look");
        guest.wait_for("say seen");
    }
    let list = |guest: &Running| {
        let mut list: Vec<(u32, u64)> = said(&guest.stdout(), "nvml ", 1)
            .split(' ')
            .map(|pair| pair.split_once(':').expect("a pair"))
            .map(|(pid, bytes)| (pid.parse().expect("a number"), bytes.parse().expect("a number")))
            .collect();
        list.sort_unstable();
        list
    };
    let mut both = vec![(one.pid(), 8 << 20), (two.pid(), 4 << 20)];
    both.sort_unstable();
    assert_eq!(list(&one), both);
    assert_eq!(list(&two), both);
    assert_eq!(list(&other), [(other.pid(), 16 << 20)], "what another VM does is not seen");
    assert_eq!(numbers(&said(&one.stdout(), "nvml ", 2)), [LIMIT, LIMIT - (12 << 20), 12 << 20]);
    assert_eq!(numbers(&said(&other.stdout(), "nvml ", 2)), [32 << 20, 16 << 20, 16 << 20]);
    for mut guest in [one, two, other] {
        guest.say("end");
        assert!(guest.end().status.success());
    }
    server.wait("no session", |status| status.sessions.is_empty());
    // Who only looks needs no session and no worker, and sees that all is free.
    let before = server.status().totals;
    let finished = guest(&server).args(["nvml", "init", "nvml", "memory", "nvml", "processes"]).passes();
    let after = server.status().totals;
    assert_eq!(numbers(&said(&finished.stdout, "nvml ", 1)), [LIMIT, LIMIT, 0]);
    assert_eq!(said(&finished.stdout, "nvml ", 2), "");
    assert_eq!(after.sessions, before.sessions);
    assert!(after.probes > before.probes);
}

#[test]
fn a_share_is_the_vms_own() {
    let server = two_vms();
    let busy = guest(&server).args(["init", "say", "busy", "share", "60000"]).start();
    busy.wait_for("say busy");
    let ask = |program: Program| {
        let finished = program.args(["init", "nvml", "init", "nvml", "share"]).passes();
        numbers(&said(&finished.stdout, "nvml ", 1))
    };
    let beside = ask(guest(&server));
    assert!((1..=100).contains(&beside[0]), "the VM's other process keeps the device busy: {beside:?}");
    assert_eq!(beside[1], 0, "and this one does not");
    assert_eq!(ask(of_other_vm(&server)), [0, 0], "another VM's work is not seen");
    busy.signal(9);
}

#[test]
fn sensors_are_seen_where_the_operator_says_so() {
    let ask = |server: &Server| {
        let finished = guest(server).args(["nvml", "init", "nvml", "sensors"]).passes();
        said(&finished.stdout, "nvml ", 1)
    };
    let server = Fixture::new().start();
    let line = ask(&server);
    assert!(line.starts_with("error-3 error-3 error-3 "), "not by default: {line}");
    let server = Fixture::new().arg("--guest-sensors=true").start();
    let line = ask(&server);
    let [temperature, power, clock, highest] = numbers(&line)[..] else { panic!("sensors: {line}") };
    assert!((1..120).contains(&temperature), "{line}");
    assert!(power > 1000, "milliwatts: {line}");
    assert!((1..=highest).contains(&clock), "{line}");
    if !is_on_a_gpu() {
        assert_eq!((clock, highest), (1000, 1000), "softgpu's attribute CLOCK_RATE is 1 GHz");
    }
}

#[test]
fn every_function_survives_zeros_and_says_when_it_was_not_initialised() {
    let server = Fixture::new().start();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nvml/tests/exports-580.txt");
    let list = list.canonicalize().expect("the list is there").display().to_string();
    let finished = guest(&server).args(["nvml", "memory"]).run();
    assert!(finished.stdout.contains("nvmlDeviceGetHandleByIndex_v2 answers 1"), "{finished}");
    let finished =
        guest(&server).args(["nvml", "init", "nvml", &list, "nvml", "memory", "nvml", "shutdown"]).passes();
    let line = said(&finished.stdout, "nvml ", 1);
    // The three ways to initialise need no pointer; all others refuse a null one.
    assert_eq!(line, "402 called, success: nvmlInit nvmlInit_v2 nvmlInitWithFlags", "{finished}");
    assert_eq!(numbers(&said(&finished.stdout, "nvml ", 2)).len(), 3);
}

#[test]
fn without_a_server_programs_are_told_that_there_is_no_driver() {
    let server = Fixture::new().start();
    let finished = guest(&server).env("PXOS_SERVER", "unix:/nonexistent").args(["nvml", "init"]).passes();
    assert_eq!(said(&finished.stdout, "nvml ", 0), "9", "NVML_ERROR_DRIVER_NOT_LOADED");
}

#[test]
fn questions_are_answered_to_probes_only_and_a_bounded_number_of_them() {
    let server = two_vms();
    let question = |request| Header { request, ..Header::new(frame::control::QUERY_VM) };
    let probe = || {
        let mut guest = server.connect();
        guest.say_hello(&Hello { purpose: Purpose::Probe, ..hello() });
        assert_eq!(guest.welcome().session, 0);
        guest
    };
    let mut neighbour = server.begin();

    // What is asked is answered, for the asker's VM.
    let mut good = probe();
    assert!(good.send(question(1), &[]));
    let pxos_harness::Incoming::Frame(header, payload) = good.receive() else { panic!("no answer") };
    assert_eq!((header.op, header.request), (frame::control::REPLY, 1));
    let vm_use: VmUse = control::decode(&payload).expect("an answer");
    assert_eq!(vm_use.devices[0].total, LIMIT);
    assert_eq!(vm_use.processes.len(), 1, "the neighbour is of the same VM");

    // A question with a payload, and anything else, ends the connection.
    for (op, payload) in [(frame::control::QUERY_VM, [0_u8; 8]), (frame::control::QUERY_STATUS, [0; 8])] {
        let mut bad = probe();
        assert!(bad.send(Header::new(op), &payload));
        assert_eq!(bad.receive(), pxos_harness::Incoming::Closed);
    }

    // So do too many; none of them is answered late.
    let mut curious = probe();
    let mut answered = 0;
    for request in 0..1100 {
        if !curious.send(question(request), &[]) {
            break;
        }
        match curious.receive() {
            pxos_harness::Incoming::Frame(header, _) if header.op == frame::control::REPLY => answered += 1,
            pxos_harness::Incoming::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=1000).contains(&answered), "{answered} questions were answered");

    // A session may not ask: its worker knows nothing of the VM's other processes.
    let mut session = server.begin();
    assert!(session.send(question(1), &[]));
    assert!(matches!(session.receive(), pxos_harness::Incoming::Refused(..)), "op 80 is none of a session's");
    assert!(neighbour.is_served());
}
