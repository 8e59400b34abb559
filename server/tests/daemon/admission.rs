//! Who gets in, who does not, and that nobody holds up anybody.

use crate::server::{Guest, Server, hello};
use pxos_protocol::control::{Hello, Purpose};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::transport::Transport;
use pxos_protocol::types::CUresult;
use std::io::{IoSlice, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn a_guest_gets_a_worker_and_the_status_shows_it() {
    let server = Server::start(&[]);
    let mut guest = server.connect();
    guest.hello(&hello());
    let welcome = guest.welcome();
    assert_eq!(welcome.vm, format!("unix:{}", server.at("guest.sock").display()));
    assert!(guest.ping(1) && guest.ping(2));
    let session = server.session();
    assert_eq!((session.id, session.pid, session.program.as_str()), (welcome.session, 4711, "vector_add"));
    assert_eq!(session.counters.messages_sync, 2);
    assert_eq!(session.counters.calls, [("cuCtxSynchronize".to_owned(), 2)].into());
    assert_eq!(session.counters.state, "serving");
    assert!(session.peer.contains(&format!("pid {}", std::process::id())), "{}", session.peer);
    let status = server.wait("refilled", |status| status.pool.warm == 1);
    assert_eq!(status.pool.memory, 527 << 20);
    assert_eq!(status.devices[0].compute_capability, (9, 0));
    assert_eq!(status.devices[0].uuid, "GPU-abababab-abab-abab-abab-abababababab");
    assert!(status.driver.software && status.driver.fallback.is_none());
    drop(guest);
    let status = server.wait("ended", |status| status.sessions.is_empty());
    assert_eq!(status.totals.ended, [("closed".to_owned(), 1)].into());
    assert_eq!(status.totals.messages_sync, 2);
}

#[test]
fn a_probe_learns_who_it_is_without_a_worker() {
    let server = Server::start(&["--default-memory-max", "1G"]);
    let mut probe = server.connect();
    probe.hello(&Hello { purpose: Purpose::Probe, ..hello() });
    let welcome = probe.welcome();
    assert_eq!(welcome.session, 0);
    assert!(welcome.vm.starts_with("unix:"));
    assert_eq!(welcome.snapshot.devices[0].total_memory, 1 << 30);
    for thread in 0..20 {
        assert!(probe.ping(thread));
    }
    let status = server.status().unwrap();
    assert_eq!((status.totals.probes, status.totals.sessions, status.pool.warm), (1, 0, 1));
    probe.send(Header::new(frame::control::IMAGE), &[]);
    probe.assert_closed();
}

#[test]
fn another_version_is_refused_by_both_names() {
    let server = Server::start(&[]);
    let mut guest = server.connect();
    guest.hello(&Hello { version: 99, ..hello() });
    let refusal = guest.refusal();
    assert_eq!(refusal.result, CUresult::ERROR_SYSTEM_DRIVER_MISMATCH.0);
    assert!(refusal.message.contains("0.0.1-test speaks wire version 99"), "{}", refusal.message);
    assert!(refusal.message.contains(&format!("speaks {}", frame::VERSION)), "{}", refusal.message);
    let mut guest = server.connect();
    guest.hello(&Hello { fingerprint: 1, ..hello() });
    assert!(guest.refusal().message.contains("API table 0000000000000001"));
    assert_eq!(server.status().unwrap().totals.refused, [("version".to_owned(), 2)].into());
    server.wait_log("wire version 99");
}

#[test]
fn what_is_no_hello_is_refused() {
    let server = Server::start(&[]);
    let mut guest = server.connect();
    guest.socket.send_all(&mut [IoSlice::new(&[b'x'; 100])]).unwrap();
    assert!(guest.refusal().message.contains("not the magic"));
    let mut guest = server.connect();
    guest.send(Header::new(frame::control::PING), &[]);
    assert!(guest.refusal().message.contains("not a hello"));
    // A frame right behind the hello: nobody may speak before the welcome.
    let mut guest = server.connect();
    let payload = pxos_protocol::control::encode(&hello()).unwrap();
    let mut header = Header::new(frame::control::HELLO);
    header.length = u32::try_from(payload.len()).unwrap();
    let ping = Header::new(frame::control::PING).to_bytes();
    guest
        .socket
        .send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(&payload), IoSlice::new(&ping)])
        .unwrap();
    assert!(guest.refusal().message.contains("behind the hello"));
    drop(server.connect());
    let status = server.wait("counted", |status| status.totals.refused.contains_key("closed"));
    assert_eq!(status.totals.refused["malformed"], 3);
    assert!(server.begin().ping(1));
}

#[test]
fn slow_and_silent_guests_hold_up_nobody() {
    let server = Server::start(&["--hello-timeout", "1s", "--max-connecting", "80"]);
    let silent: Vec<Guest> = (0..30).map(|_| server.connect()).collect();
    let mut slow = server.connect();
    slow.socket.send_all(&mut [IoSlice::new(&Header::new(frame::control::HELLO).to_bytes()[..10])]).unwrap();
    let start = Instant::now();
    assert!(server.begin().ping(1));
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    let refusal = slow.refusal();
    assert!(refusal.message.contains("no hello came in time"), "{}", refusal.message);
    for mut guest in silent {
        guest.refusal();
    }
    let status = server.status().unwrap();
    assert_eq!(status.totals.refused["timeout"], 31);
    assert!(server.begin().ping(1));
}

#[test]
fn waiting_connections_are_bounded_and_one_origin_cannot_take_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| Endpoint::Unix(directory.path().join(name));
    let (hostile, other) = (at("guest.sock"), at("other.sock"));
    let server = Server::spawn_binary(
        env!("CARGO_BIN_EXE_pxos-server").as_ref(),
        &[
            "--listen",
            &hostile.to_string(),
            "--listen",
            &other.to_string(),
            "--hello-timeout",
            "20s",
            "--max-connecting",
            "4",
        ],
        directory,
    );
    server.wait("running", |status| status.server.state == "running");
    let silent: Vec<Guest> = (0..2).map(|_| server.connect()).collect();
    // Accepted in order, so that the third finds two before it.
    let refusal = server.connect().refusal();
    assert_eq!(refusal.result, CUresult::ERROR_DEVICE_UNAVAILABLE.0);
    assert!(refusal.message.contains("2 of them from here (max_connecting is 4)"), "{}", refusal.message);
    let mut guest = Guest::connect(&other);
    guest.hello(&hello());
    assert_eq!(guest.welcome().vm, other.to_string());
    drop(silent);
    server.wait("room", |status| status.totals.refused.get("closed") == Some(&2));
    assert!(server.begin().ping(1));
}

#[test]
fn sessions_are_bounded() {
    let server = Server::start(&["--max-sessions", "2"]);
    let (one, _two) = (server.begin(), server.begin());
    let mut third = server.connect();
    third.hello(&hello());
    let refusal = third.refusal();
    assert_eq!(refusal.result, CUresult::ERROR_DEVICE_UNAVAILABLE.0);
    assert!(refusal.message.contains("2 sessions already"), "{}", refusal.message);
    drop(one);
    server.wait("room", |status| status.sessions.len() == 1);
    assert!(server.begin().ping(1));
}

#[test]
fn rules_decide_by_socket_and_token() {
    let directory = tempfile::tempdir().unwrap();
    let blue = directory.path().join("blue.sock");
    let black = directory.path().join("black.sock");
    let text = format!(
        "socket_mode = \"0640\"\ndefault.policy = \"deny\"\n\
         [[vm]]\nname = \"blue\"\nsocket = \"{}\"\nmax_processes = 1\nmemory_max = \"2G\"\n\
         [[vm]]\nname = \"black\"\nsocket = \"{}\"\npolicy = \"deny\"\n\
         [[vm]]\nname = \"green\"\ntoken = \"a-token-of-some-length\"\n",
        blue.display(),
        black.display()
    );
    std::fs::write(directory.path().join("server.toml"), text).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = format!("tcp:127.0.0.1:{port}");
    let open = format!("unix:{}", directory.path().join("guest.sock").display());
    let server = Server::spawn_binary(
        env!("CARGO_BIN_EXE_pxos-server").as_ref(),
        &["--listen", &tcp, "--listen", &open],
        directory,
    );
    server.wait("running", |status| status.server.state == "running");
    assert_eq!(std::fs::metadata(&blue).unwrap().permissions().mode() & 0o777, 0o640);

    let mut guest = Guest::connect(&Endpoint::Unix(blue.clone()));
    guest.hello(&hello());
    assert_eq!(guest.welcome().vm, "blue");
    assert_eq!(server.session().counters.memory_limit, 2 << 30);
    let mut second = Guest::connect(&Endpoint::Unix(blue));
    second.hello(&hello());
    assert!(second.refusal().message.contains("VM 'blue' has 1 sessions already"));
    let mut denied = Guest::connect(&Endpoint::Unix(black));
    denied.hello(&hello());
    let refusal = denied.refusal();
    assert_eq!(refusal.result, CUresult::ERROR_NOT_PERMITTED.0);
    assert!(refusal.message.contains("'black'"), "{}", refusal.message);
    let mut stranger = server.connect();
    stranger.hello(&hello());
    assert!(stranger.refusal().message.contains("may not use"));

    let tcp: Endpoint = tcp.parse().unwrap();
    for token in [None, Some("a-token-of-some-lengtH".to_owned())] {
        let mut guest = Guest::connect(&tcp);
        guest.hello(&Hello { token, ..hello() });
        assert!(guest.refusal().message.contains("token"));
    }
    let mut guest = Guest::connect(&tcp);
    guest.hello(&Hello { token: Some("a-token-of-some-length".into()), ..hello() });
    assert_eq!(guest.welcome().vm, "green");
    assert_eq!(server.status().unwrap().totals.refused["denied"], 4);
    assert!(!server.log().contains("a-token-of"), "secrets are not logged");
}

#[test]
fn operators_get_answers_and_errors() {
    use pxos_protocol::admin::{Reply, Request};
    let server = Server::start(&[]);
    let mode = std::fs::metadata(server.at("control.sock")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    for (line, wanted) in [
        ("{\"op\":\"dance\"}", "unknown variant"),
        ("status", "no request"),
        ("{\"op\":\"session.kill\"}", "missing field `id`"),
        ("{\"op\":\"status\",\"more\":1}", "no request"),
    ] {
        match server.ask_line(line) {
            Some(Reply::Error(error)) => assert!(error.contains(wanted), "{line}: {error}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    assert_eq!(server.ask(&Request::Kill { id: 77 }), Some(Reply::Error("there is no session 77".into())));
    // A request without an end does not fill the memory.
    let mut endless = std::os::unix::net::UnixStream::connect(server.at("control.sock")).unwrap();
    let _ = endless.write_all(&vec![b' '; 200 << 10]);
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&endless), &mut answer).unwrap();
    assert!(answer.contains("more than"), "{answer}");
    assert!(server.status().is_some());
}
