//! A guest that scribbles over the memory it shares with its worker: only its own session suffers.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::random::Random;
use pxos_harness::{Fixture, Guest, Server, probe};
use pxos_protocol::control::SharedLayout;
use pxos_protocol::frame::{self, FLAG_REPLY, HEADER, Header, MAX_PAYLOAD};
use pxos_protocol::transport::ring::{CONTROL, Push, SharedMemory};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Offset of the word that says how much the guest has written.
const COMMANDS_HEAD: usize = 0;
/// Offset of the word that says how much the worker has taken.
const COMMANDS_TAIL: usize = 64;
/// Offset of the word that says how much of the answers the guest has taken: behind the three words of the other ring.
const REPLIES_TAIL: usize = 3 * 64 + 64;

fn fixture() -> Server {
    Fixture::new().arg("--pool-size=2").start()
}

fn begin(server: &Server) -> (Guest, SharedMemory, SharedLayout) {
    let guest = server.connect().begin(true);
    let layout = guest.layout();
    let rings = guest.map(0, layout.staging);
    (guest, rings, layout)
}

fn assert_no_worker_crashed(server: &Server) {
    let ended = server.status().totals.ended;
    assert!(
        ended.keys().all(|reason| ["malformed", "closed", "lost"].contains(&reason.as_str())),
        "{ended:?}\n{}",
        server.log()
    );
}

#[test]
fn a_ring_works_by_hand() {
    let server = fixture();
    let (mut guest, _rings, _) = begin(&server);
    let mut commands = guest.commands();
    for _ in 0..1000 {
        let header = Header { flags: FLAG_REPLY, ..guest.header(frame::control::PING, 0) };
        assert!(matches!(commands.push(header, &[]), Push::Done { .. }));
        guest.ring();
    }
    server
        .wait("taken", |status| status.sessions.iter().any(|session| session.counters.messages_sync == 1000));
    guest.shut();
    let _ = server.settled();
}

#[test]
fn impossible_indices_end_the_session_with_a_word() {
    let server = fixture();
    let mut neighbour = server.begin();
    for head in [u64::MAX, 7, 1 << 40, (8 << 20) + 8, u64::MAX - 7] {
        let (mut guest, rings, _) = begin(&server);
        Guest::scribble(&rings, COMMANDS_HEAD, &head.to_le_bytes());
        guest.ring();
        // The word itself may go into the ring, which by hand is not read.
        let _ = guest.until_closed();
        server.wait_log(&format!("ring index {head} is impossible"));
    }
    assert!(neighbour.is_served());
    drop(neighbour);
    let _ = server.settled();
    assert_no_worker_crashed(&server);
}

#[test]
fn frames_that_are_none_end_the_session() {
    let server = fixture();
    let mut beyond = Header::new(frame::control::PING);
    beyond.length = 4096;
    let mut oversized = Header::new(frame::control::PING);
    oversized.length = u32::try_from(MAX_PAYLOAD + 8).unwrap();
    let mut filler = Header::new(0);
    filler.length = u32::MAX;
    for (what, bytes, word) in [
        ("zeros of another magic", vec![0xee; HEADER], "not the magic"),
        ("a payload beyond what was written", beyond.to_bytes().to_vec(), "frame of 4128 bytes goes beyond"),
        ("an oversized payload", oversized.to_bytes().to_vec(), "payload of 1048584 bytes"),
        (
            "filler to the end of the ring, of which nothing was written",
            filler.to_bytes().to_vec(),
            "goes beyond its ring",
        ),
        ("an unknown op", Header::new(4444).to_bytes().to_vec(), "unknown op 4444"),
        ("half a header", beyond.to_bytes()[..16].to_vec(), "frame of 32 bytes goes beyond"),
    ] {
        let (mut guest, rings, _) = begin(&server);
        let ended = server.log().len();
        Guest::scribble(&rings, CONTROL, &bytes);
        Guest::scribble(&rings, COMMANDS_HEAD, &(bytes.len() as u64).to_le_bytes());
        guest.ring();
        let _ = guest.until_closed();
        server.wait("the end of the session", |_| server.log()[ended..].contains("session ends"));
        assert!(server.log()[ended..].contains(word), "{what}: '{word}' is not in the log\n{}", server.log());
    }
    let _ = server.settled();
    assert_no_worker_crashed(&server);
    assert_eq!(server.status().totals.ended.get("malformed"), Some(&6));
}

#[test]
fn answers_that_are_never_taken_do_not_outlive_the_guest() {
    let server = fixture();
    let before = server.settled();
    let (mut guest, rings, layout) = begin(&server);
    let worker = server.session().worker;
    // The guest claims to have taken more answers than there are: for the worker the ring is full, for ever.
    Guest::scribble(&rings, REPLIES_TAIL, &u64::MAX.to_le_bytes());
    let mut commands = guest.commands();
    for _ in 0..layout.replies / HEADER as u64 + 1000 {
        let header = Header { flags: FLAG_REPLY, ..guest.header(frame::control::PING, 0) };
        match commands.push(header, &[]) {
            Push::Done { wake: true } => {
                guest.ring();
            }
            Push::Done { wake: false } => {}
            Push::Full => break,
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    guest.shut();
    drop(guest);
    assert!(
        pxos_harness::process::is_gone_within(worker, Duration::from_secs(5)),
        "a worker waits for room in the ring of a guest that is gone\n{}",
        pxos_harness::process::stacks(worker)
    );
    server.assert_settles_as(&before);
}

#[test]
fn indices_that_move_under_the_worker_are_survived() {
    let server = fixture();
    let neighbour = server.guest(probe()).args(["init", "work"]).start();
    neighbour.wait_for("working");
    let mut random = Random::new(5);
    for _ in 0..30 {
        let (mut guest, rings, layout) = begin(&server);
        let mut commands = guest.commands();
        for _ in 0..200 {
            let header = Header { flags: FLAG_REPLY, ..guest.header(frame::control::PING, 0) };
            let _ = commands.push(header, &[]);
            if random.below(4) == 0 {
                let offset = [COMMANDS_HEAD, COMMANDS_TAIL, REPLIES_TAIL, 128, 192][random.below(5)];
                Guest::scribble(&rings, offset, &random.nasty().to_le_bytes());
            }
            if random.below(4) == 0 {
                let offset = CONTROL + random.below(usize::try_from(layout.commands).unwrap() - 64);
                let bytes = random.bytes(64);
                Guest::scribble(&rings, offset, &bytes);
            }
            if random.below(3) == 0 && !guest.ring() {
                break;
            }
        }
        guest.shut();
    }
    assert!(!neighbour.stdout().contains("after"), "the neighbour met an error: {}", neighbour.stdout());
    drop(neighbour);
    let _ = server.settled();
    assert_no_worker_crashed(&server);
}

#[test]
fn shared_memory_cannot_be_cut_under_the_worker() {
    let server = fixture();
    let (guest, _rings, layout) = begin(&server);
    let fd = guest.shared_descriptor().as_raw_fd();
    for size in [0, 4096, layout.size + 4096] {
        // SAFETY: plain values.
        let cut = unsafe { libc::ftruncate(fd, libc::off_t::try_from(size).unwrap()) };
        assert_eq!(cut, -1, "the memory of the worker was resized to {size}");
    }
}
