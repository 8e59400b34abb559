//! Hellos that are none: each gets a clear refusal or a closed connection, and a guest beside it notices nothing.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::random::Random;
use pxos_harness::{Fixture, Guest, Incoming, Server, hello};
use pxos_protocol::control::{self, Hello};
use pxos_protocol::frame::{self, Header, MAX_PAYLOAD};
use std::time::{Duration, Instant};

/// The refusal that a connection gets: its `CUresult` and message. Nothing else may come.
fn refusal(guest: &mut Guest) -> (u32, String) {
    let refused = match guest.receive() {
        Incoming::Refused(result, message) => (result, message),
        other => panic!("no refusal but {other:?}"),
    };
    assert_eq!(guest.receive(), Incoming::Closed);
    refused
}

/// A server with a guest whose session must survive whatever the scenario does.
fn with_neighbour() -> (Server, Guest) {
    let server = Fixture::new().arg("--hello-timeout=1s").start();
    let neighbour = server.begin();
    (server, neighbour)
}

fn count(server: &Server, reason: &str) -> u64 {
    server.status().totals.refused.get(reason).copied().unwrap_or(0)
}

#[test]
fn another_version_is_told_both_versions() {
    let (server, mut neighbour) = with_neighbour();
    let mut guest = server.connect();
    guest.say_hello(&Hello { version: frame::VERSION + 41, software: "9.8.7".into(), ..hello() });
    let (result, message) = refusal(&mut guest);
    assert_eq!(result, 803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH");
    for word in ["9.8.7", &(frame::VERSION + 41).to_string(), "same version on both sides"] {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
    assert_eq!(count(&server, "version"), 1);
    assert!(neighbour.is_served());
}

#[test]
fn another_table_is_told_both_fingerprints() {
    let (server, mut neighbour) = with_neighbour();
    let mut guest = server.connect();
    guest.say_hello(&Hello { fingerprint: 0xdead_beef, ..hello() });
    let (result, message) = refusal(&mut guest);
    assert_eq!(result, 803);
    assert!(message.contains("00000000deadbeef"), "{message}");
    assert!(message.contains(&format!("{:016x}", pxos_protocol::fingerprint())), "{message}");
    assert!(neighbour.is_served());
}

#[test]
fn what_is_no_hello_is_refused() {
    let (server, mut neighbour) = with_neighbour();
    let mut oversized = Header::new(frame::control::HELLO);
    oversized.length = u32::try_from(MAX_PAYLOAD + 8).unwrap();
    let mut long = Header::new(frame::control::HELLO);
    long.length = 64 << 10;
    let garbage = Random::new(1).bytes(256);
    let mut nonsense = Header::new(frame::control::HELLO);
    nonsense.length = 256;
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "magic"),
        ("zeros", vec![0; 64], "magic"),
        ("an oversized frame", oversized.to_bytes().to_vec(), "payload of 1048584 bytes"),
        ("a hello that is too long", long.to_bytes().to_vec(), "hello of 65536 bytes"),
        ("another op", Header::new(frame::control::PING).to_bytes().to_vec(), "not a hello"),
        ("garbage in a hello", [nonsense.to_bytes().to_vec(), garbage].concat(), ""),
    ];
    for (what, bytes, word) in cases {
        let mut guest = server.connect();
        guest.send_bytes(&bytes);
        let (result, message) = refusal(&mut guest);
        assert_ne!(result, 0, "{what}");
        assert!(message.contains(word), "{what}: '{word}' is not in: {message}");
    }
    assert!(neighbour.is_served());
}

#[test]
fn a_hello_that_stops_is_timed_out() {
    let (server, mut neighbour) = with_neighbour();
    let payload = control::encode(&hello()).unwrap();
    let mut header = Header::new(frame::control::HELLO);
    header.length = u32::try_from(payload.len()).unwrap();
    let whole = [header.to_bytes().to_vec(), payload].concat();
    let start = Instant::now();
    let mut cut: Vec<Guest> = [0, 1, 31, 32, 40, whole.len() - 1]
        .into_iter()
        .map(|length| {
            let guest = server.connect();
            guest.send_bytes(&whole[..length]);
            guest
        })
        .collect();
    for guest in &mut cut {
        let (_, message) = refusal(guest);
        assert!(message.contains("in time"), "{message}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "the timeouts run side by side");
    assert_eq!(count(&server, "timeout"), 6);
    assert!(neighbour.is_served());
}

#[test]
fn connections_that_close_at_once_leave_nothing() {
    let server = Fixture::new().start();
    let before = server.settled();
    for _ in 0..200 {
        drop(server.connect());
    }
    server.assert_settles_as(&before);
}

#[test]
fn random_first_bytes_never_hurt_the_server() {
    let (server, mut neighbour) = with_neighbour();
    let mut random = Random::new(20);
    for _ in 0..100 {
        let mut guest = server.connect();
        let length = 32 + random.below(400);
        guest.send_bytes(&random.bytes(length));
        let (result, _) = refusal(&mut guest);
        assert_ne!(result, 0);
    }
    assert!(neighbour.is_served());
    drop(neighbour);
    let _ = server.settled();
}
