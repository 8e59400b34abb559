//! A guest that turns hostile after a good hello: its own session ends with a clear word or goes on with errors; nothing else
//! happens, least of all to its worker's memory, to the server, or to the guest beside it.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::random::Random;
use pxos_harness::{Fixture, Guest, Incoming, Server, is_on_a_gpu, probe, process};
use pxos_protocol::api::{Class, ROWS};
use pxos_protocol::frame::{self, FLAG_PER_THREAD, FLAG_REPLY, HEADER, Header, MAX_PAYLOAD};
use pxos_protocol::types::{GuestHandle, HandleKind};

/// Fails if a session of this server ended in another way than these: above all by a signal to its worker.
fn assert_ends(server: &Server, allowed: &[&str]) {
    let ended = server.status().totals.ended;
    for reason in ended.keys() {
        assert!(allowed.contains(&reason.as_str()), "sessions ended as {ended:?}\n{}", server.log());
    }
}

fn unknown_ops() -> impl Iterator<Item = u16> {
    let known = |op: &u16| ROWS.iter().any(|row| row.number == *op);
    [98, 99, 4095, 9999, 0x7fff, 0xffff].into_iter().filter(move |op| !known(op))
}

#[test]
fn a_frame_that_is_none_ends_the_session_with_a_word() {
    let server = Fixture::new().arg("--pool-size=2").start();
    let mut neighbour = server.begin();
    let mut oversized = Header::new(frame::control::PING);
    oversized.length = u32::try_from(MAX_PAYLOAD + 8).unwrap();
    let mut ragged = Header::new(frame::control::PING);
    ragged.length = 12;
    let cases: [(&str, Vec<u8>, &str); 3] = [
        ("another magic", vec![0xee; 64], "magic"),
        ("an oversized frame", oversized.to_bytes().to_vec(), "1048584 bytes"),
        ("a length that is no multiple of eight", ragged.to_bytes().to_vec(), "12 bytes"),
    ];
    for (what, bytes, word) in cases {
        let mut guest = server.begin();
        assert!(guest.is_served());
        guest.send_bytes(&bytes);
        let said = guest.until_closed().unwrap_or_else(|| panic!("{what}: closed without a word"));
        assert!(said.contains(word), "{what}: '{word}' is not in: {said}");
    }
    for op in unknown_ops() {
        let mut guest = server.begin();
        guest.post(op, 0, |_| {});
        let said = guest.until_closed().expect("a word");
        assert!(said.contains(&format!("unknown op {op}")), "{said}");
    }
    assert!(neighbour.is_served());
    assert_ends(&server, &["malformed"]);
    drop(neighbour);
    let _ = server.settled();
}

#[test]
fn a_frame_that_stops_ends_the_session_when_the_guest_goes() {
    let server = Fixture::new().start();
    let before = server.settled();
    let mut header = Header::new(frame::control::PING);
    header.length = 4096;
    let whole = [header.to_bytes().to_vec(), vec![0; 4096]].concat();
    for length in [1, HEADER - 1, HEADER, HEADER + 100, whole.len() - 1] {
        let mut guest = server.begin();
        assert!(guest.is_served());
        guest.send_bytes(&whole[..length]);
        drop(guest);
    }
    server.assert_settles_as(&before);
    assert_ends(&server, &["lost"]);
}

#[test]
fn frames_that_only_a_server_sends_are_refused() {
    let server = Fixture::new().arg("--pool-size=2").start();
    use frame::control as c;
    for op in [c::HELLO, c::WELCOME, c::REFUSAL, c::REPLY, c::DATA, c::OUTPUT, c::CALLBACK, c::STATUS_REPLY] {
        let mut guest = server.begin();
        guest.post(op, 0, |writer| writer.put([0_u64; 8]));
        let _ = guest.until_closed();
    }
    let _ = server.settled();
    assert_ends(&server, &["malformed"]);
}

/// A payload that a correct guest would never send, of plausible parts: handles dead and alive, addresses, counts.
fn garbage(random: &mut Random, context: u64) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 => {
            let length = random.below(64) * 8;
            random.bytes(length)
        }
        2 => vec![0; random.below(40) * 8],
        3 => vec![0xff; random.below(40) * 8],
        _ => {
            let words = 1 + random.below(24);
            let word = |random: &mut Random| match random.below(6) {
                0 => context,
                1 | 2 => {
                    let kind = HandleKind::ALL[random.below(HandleKind::ALL.len())] as u8;
                    let slot = u32::try_from(random.below(3)).expect("below three");
                    GuestHandle { kind, generation: u16::try_from(random.below(2)).expect("below two"), slot }
                        .encode()
                }
                3 => random.below(100) as u64,
                _ => random.nasty(),
            };
            std::iter::repeat_with(|| word(random).to_le_bytes()).take(words).flatten().collect()
        }
    }
}

/// Sends garbage for each op in turn, for each several times; a session that ends is followed by another.
fn batter(server: &Server, seed: u64, rounds: usize, ops: &[u16]) {
    let mut random = Random::new(seed);
    let mut guest = server.begin();
    let mut context = guest.retain();
    for op in ops {
        for round in 0..rounds {
            let payload = garbage(&mut random, context);
            let flags = if round % 2 == 0 { FLAG_REPLY } else { 0 }
                | if random.below(4) == 0 { FLAG_PER_THREAD } else { 0 };
            let in_context = if random.below(8) == 0 { random.nasty() } else { context };
            let header = Header { flags, ..guest.header(*op, in_context) };
            guest.send(header, &payload);
            let what = || {
                format!(
                    "{} (op {op}, seed {seed}, payload {payload:02x?})",
                    pxos_protocol::api::name_of(*op).unwrap_or("control")
                )
            };
            if !is_served_after(server, &mut guest, what) {
                assert!(!has_crashed(server), "a worker crashed on {}\n{}", what(), server.log());
                guest = server.begin();
                context = guest.retain();
            }
        }
    }
}

/// Whether a worker has died of a signal; waits until the end of the last session is counted.
fn has_crashed(server: &Server) -> bool {
    let status = server.wait("the end of the session", |status| status.sessions.len() <= 1);
    status.totals.ended.contains_key("signal")
}

/// Whether the session stands after a frame; it may end, but not without an end of the stream, and nothing may hang.
fn is_served_after(server: &Server, guest: &mut Guest, what: impl Fn() -> String) -> bool {
    match guest.call(frame::control::PING, 0, |_| {}) {
        Ok(_) => true,
        Err(Incoming::Refused(_, message)) => {
            assert!(!message.is_empty(), "{}: refused without a word", what());
            let _ = guest.until_closed();
            false
        }
        Err(Incoming::Closed) => false,
        Err(other) => {
            let workers = process::children(server.pid()).into_iter().map(process::stacks);
            panic!("{}: {other:?}\n{}", what(), workers.collect::<String>())
        }
    }
}

/// The functions that a guest can ask of the worker.
fn carried() -> Vec<u16> {
    let is_carried = |class: Class| matches!(class, Class::Custom | Class::Forward | Class::Async);
    ROWS.iter().filter(|row| is_carried(row.class)).map(|row| row.number).collect()
}

fn batter_beside_a_neighbour(seed: u64, ops: &[u16]) {
    let server = Fixture::new().arg("--pool-size=4").arg("--log-level=warn").start();
    let neighbour = server.guest(probe()).args(["init", "work"]).start();
    neighbour.wait_for("working");
    let rounds = if is_on_a_gpu() { 2 } else { 8 };
    batter(&server, seed, rounds, ops);
    let status = server.status();
    assert!(
        status.sessions.iter().any(|session| session.pid == neighbour.pid()),
        "the neighbour lost its session"
    );
    assert!(!neighbour.stdout().contains("after"), "the neighbour met an error: {}", neighbour.stdout());
    assert_ends(&server, &["malformed", "closed"]);
    drop(neighbour);
    let _ = server.settled();
}

#[test]
fn garbage_for_every_function_is_survived() {
    batter_beside_a_neighbour(1, &carried());
}

#[test]
fn garbage_in_another_order_is_survived() {
    let mut ops = carried();
    let mut random = Random::new(99);
    for index in (1..ops.len()).rev() {
        ops.swap(index, random.below(index + 1));
    }
    batter_beside_a_neighbour(2, &ops);
}

#[test]
fn garbage_in_control_frames_is_survived() {
    let ops: Vec<u16> = (frame::control::HELLO..=frame::control::COPY + 4).cycle().take(200).collect();
    batter_beside_a_neighbour(3, &ops);
}

#[test]
fn unsupported_functions_are_answered_and_unknown_ones_end_the_session() {
    let server = Fixture::new().start();
    let mut guest = server.begin();
    let context = guest.retain();
    for row in ROWS.iter().filter(|row| row.class == Class::Unsupported) {
        guest.post(row.number, context, |_| {});
    }
    assert!(guest.is_served());
    let counters = server.session().counters;
    assert_eq!(
        counters.unsupported_calls,
        ROWS.iter().filter(|row| row.class == Class::Unsupported).count() as u64
    );
}
