//! A guest that asks and never reads: its worker waits with bounded memory, everybody else goes on, and its end is the end.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, probe, process};
use pxos_protocol::api::op;
use pxos_protocol::frame::{self, FLAG_REPLY, Header};
use std::sync::mpsc;
use std::time::Duration;

/// What a worker may grow while its guest reads nothing: its buffers, not the guest's requests.
const GROWTH: u64 = 64 << 20;

#[test]
fn answers_that_nobody_reads_cost_no_memory() {
    let server = Fixture::new().start();
    let before = server.settled();
    let guest = server.begin();
    let worker = server.session().worker;
    let memory = process::anonymous_memory(worker);
    let (sent, done) = mpsc::channel();
    let socket = guest.sending();
    // Two million questions; the kernel's buffers hold some thousand, then this thread waits as the worker does.
    let asking = std::thread::spawn(move || {
        for request in 1..2_000_000 {
            let header =
                Header { flags: FLAG_REPLY, thread: 1, request, ..Header::new(frame::control::PING) };
            if !socket.send(header, &[]) {
                break;
            }
        }
        let _ = sent.send(());
    });
    assert!(done.recv_timeout(Duration::from_secs(1)).is_err(), "two million answers were taken by nobody");
    let grown = process::anonymous_memory(worker).saturating_sub(memory);
    assert!(grown < GROWTH, "the worker grew by {grown} bytes");
    let finished = server.guest(probe()).args(["init", "copies", "5", "100000"]).passes();
    assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
    guest.shut();
    assert!(process::is_gone_within(worker, Duration::from_secs(5)), "{}", process::stacks(worker));
    asking.join().unwrap();
    drop(guest);
    server.assert_settles_as(&before);
}

#[test]
fn copies_that_nobody_reads_cost_no_memory() {
    const BYTES: u64 = 256 << 20;
    let server = Fixture::new().start();
    let before = server.settled();
    let mut guest = server.begin();
    let context = guest.retain();
    let worker = server.session().worker;
    let answer = guest.call(op::cuMemAlloc_v2, context, |writer| writer.put(BYTES)).unwrap();
    assert_eq!(answer.0, 0);
    let address = u64::from_le_bytes(answer.1[..8].try_into().unwrap());
    let memory = process::anonymous_memory(worker);
    for thread in 1..=3 {
        let mut payload = Vec::new();
        let mut writer = pxos_protocol::codec::Writer::new(&mut payload);
        writer.put(address);
        writer.put(0_u64);
        writer.put(BYTES);
        let header = Header { flags: FLAG_REPLY, thread, ..guest.header(op::cuMemcpyDtoHAsync_v2, context) };
        assert!(guest.send(header, &payload));
    }
    std::thread::sleep(Duration::from_millis(500));
    // Device memory of a software device is the worker's own: what was allocated may have come to life.
    let grown = process::anonymous_memory(worker).saturating_sub(memory);
    assert!(grown < BYTES + GROWTH, "the worker grew by {grown} bytes");
    let finished = server.guest(probe()).args(["init", "sync"]).passes();
    assert!(finished.stdout.contains("sync CUDA_SUCCESS"), "{finished}");
    guest.shut();
    assert!(process::is_gone_within(worker, Duration::from_secs(5)), "{}", process::stacks(worker));
    drop(guest);
    server.assert_settles_as(&before);
}

#[test]
fn a_guest_that_is_stopped_disturbs_nobody() {
    let server = Fixture::new().arg("--pool-size=2").start();
    let before = server.settled();
    let stopped = server.guest(probe()).args(["init", "say", "go", "storm", "1000000000"]).start();
    stopped.wait_for("say go");
    stopped.signal(libc::SIGSTOP);
    let finished = server.guest(probe()).args(["init", "copies", "20", "1000000"]).passes();
    assert!(finished.stdout.contains("copies CUDA_SUCCESS"), "{finished}");
    stopped.signal(libc::SIGKILL);
    drop(stopped);
    server.assert_settles_as(&before);
}
