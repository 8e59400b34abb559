//! Memory of a VM's device beside the VM's socket: slots for its sessions, and what a guest that means harm can do with it. The
//! socket and the file are those that a VMM would hold; the same runs in a real guest in tests/vm.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Guest, Program, Server, probe, sample};
use pxos_protocol::endpoint::Endpoint;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes of a pinned copy.
const COPY: u64 = 64 << 20;

/// A server, the folder of its VM's socket, and the file of its memory.
struct Vm {
    server: Server,
    _folder: tempfile::TempDir,
    socket: PathBuf,
    memory: PathBuf,
}

impl Vm {
    fn with(size: u64, slots: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("pxbar").tempdir_in("/dev/shm").expect("/dev/shm takes folders");
        let (socket, memory) = (folder.path().join("vsock"), folder.path().join("memory"));
        let file = File::create(&memory).expect("the folder takes files");
        file.set_len(size).expect("a file can grow");
        let server = Fixture::new()
            .arg(&format!("--listen=vm:red={}", socket.display()))
            .arg(&format!("--shared=red{slots}={}", memory.display()))
            .arg("--pool-size=3")
            .start();
        let socket = folder.path().join("vsock_9700");
        Self { server, _folder: folder, socket, memory }
    }

    /// A program that sees the VM's socket and memory as it would in the guest.
    fn program(&self, path: PathBuf) -> Program {
        self.server
            .guest(path)
            .env("PXOS_SERVER", format!("unix:{}", self.socket.display()))
            .env("PXOS_BAR", &self.memory)
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.memory).expect("the file is there")
    }

    /// A guest by hand.
    fn begin(&self) -> Guest {
        Guest::connect(&Endpoint::Unix(self.socket.clone())).begin_in(OwnedFd::from(self.file()))
    }
}

#[test]
fn a_pinned_copy_goes_through_the_memory_and_not_over_the_socket() {
    let vm = Vm::with(512 << 20, ":2");
    let mut running = vm.program(probe()).args(["init", "pinned", &COPY.to_string(), "read"]).start();
    running.wait_for("pinned CUDA_SUCCESS");
    let session = vm.server.session();
    assert_eq!((session.vm.as_str(), session.shared_memory.as_str()), ("red", "bar slot 0"));
    let counters = session.counters;
    assert!(counters.shared_bytes_in >= COPY && counters.shared_bytes_out >= COPY, "{counters:?}");
    assert!(counters.socket_bytes_in < 64 << 10 && counters.socket_bytes_out < 64 << 10, "{counters:?}");
    running.say("");
    assert!(running.end().status.success());
}

#[test]
fn programs_run_in_slots_at_once_and_beyond_them_over_the_socket() {
    let vm = Vm::with(256 << 20, "");
    let expected = vm.server.direct(sample("vectorAdd")).passes().stdout;
    let mut holding: Vec<_> =
        (0..3).map(|_| vm.program(probe()).args(["init", "say", "up", "read"]).start()).collect();
    for running in &mut holding {
        running.wait_for("say up");
    }
    let status = vm.server.wait("three sessions", |status| status.sessions.len() == 3);
    let mut memories: Vec<&str> =
        status.sessions.iter().map(|session| session.shared_memory.as_str()).collect();
    memories.sort_unstable();
    assert_eq!(memories, ["bar slot 0", "bar slot 1", "none"]);
    assert_eq!(vm.program(sample("vectorAdd")).passes().stdout, expected);
    for mut running in holding {
        running.say("");
        assert!(running.end().status.success());
    }
    let _ = vm.server.settled();
    let both: Vec<_> = (0..2).map(|_| vm.program(sample("zeroCopy")).start()).collect();
    for running in both {
        let finished = running.end();
        assert!(finished.status.success(), "{finished}");
    }
}

#[test]
fn a_slot_s_next_owner_finds_nothing_of_the_last() {
    let vm = Vm::with(64 << 20, ":1");
    let base = vm.begin().layout().base;
    let _ = vm.server.settled();
    // A process of the guest that still maps it writes behind the end of its session.
    vm.file().write_all_at(&[7; 4096], base).unwrap();
    let next = vm.begin();
    assert_eq!(next.layout().base, base);
    let mut bytes = [1; 4096];
    vm.file().read_exact_at(&mut bytes, base).unwrap();
    // The worker's own words: that it sleeps at an empty ring.
    assert!(bytes.iter().filter(|byte| **byte != 0).count() <= 2, "something is left");
}

#[test]
fn a_guest_that_lies_in_its_slot_loses_its_own_session_alone() {
    let vm = Vm::with(256 << 20, ":4");
    let mut neighbour =
        vm.program(probe()).args(["init", "say", "up", "read", "copies", "3", "100000"]).start();
    neighbour.wait_for("say up");
    for head in [u64::MAX, 7, 1 << 40, (8 << 20) + 8] {
        let mut guest = vm.begin();
        let rings = guest.map(0, guest.layout().staging);
        Guest::scribble(&rings, 0, &head.to_le_bytes());
        guest.ring();
        let _ = guest.until_closed();
        vm.server.wait_log(&format!("ring index {head} is impossible"));
    }
    // All of the header page, which the server does not read.
    vm.file().write_all_at(&[0xff; 4096], 0).unwrap();
    neighbour.say("");
    let finished = neighbour.end();
    assert!(finished.status.success() && finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
    let _ = vm.server.settled();
    // A guest that does not find the header goes over the socket.
    let finished = vm.program(probe()).args(["init", "copies", "2", "100000"]).passes();
    assert!(finished.stderr.contains("shared memory is not used"), "{finished}");
}

#[test]
fn memory_that_is_too_short_costs_speed_and_nothing_else() {
    let vm = Vm::with(8 << 20, "");
    let finished = vm.program(probe()).args(["init", "copies", "2", "3000000"]).passes();
    assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
    vm.server.wait_log("too few");
    // The guest's end is shorter than the server says.
    let vm = Vm::with(64 << 20, ":1");
    drop(vm.begin());
    let _ = vm.server.settled();
    let mut header = [0; 4096];
    vm.file().read_exact_at(&mut header, 0).unwrap();
    let short = vm.memory.with_file_name("short");
    std::fs::write(&short, header).unwrap();
    let finished =
        vm.program(probe()).env("PXOS_BAR", &short).args(["init", "copies", "2", "3000000"]).passes();
    assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
    assert!(finished.stderr.contains("shorter than it should be"), "{finished}");
}

#[test]
fn one_program_after_the_other_gets_the_one_slot() {
    let vm = Vm::with(64 << 20, ":1");
    for _ in 0..10 {
        let finished = vm.program(sample("zeroCopy")).passes();
        assert!(!finished.stderr.contains("shared memory"), "{finished}");
    }
    assert!(!vm.server.log().contains("memory=none"), "{}", vm.server.log());
}
