//! pxctl as an operator and a guest's user see it: the real binary, against a server that this test plays.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]
#![expect(clippy::unwrap_used, reason = "a test's own helpers")]

use pxos_protocol::admin::{Answer, Driver, Pool, Reply, Request, Server, Status, Totals};
use pxos_protocol::control::{self, Hello, Purpose, Refusal, Snapshot, Welcome};
use pxos_protocol::frame::{self, Header};
use pxos_protocol::transport::{FrameReader, Socket, Transport};
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

fn pxctl(control: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pxctl"))
        .arg("--control")
        .arg(control)
        .args(args)
        .env_remove("LD_PRELOAD")
        .env_remove("PXOS_SERVER")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn status() -> Status {
    Status {
        server: Server {
            software: "7.7.7".into(),
            wire: 1,
            fingerprint: format!("{:016x}", pxos_protocol::fingerprint()),
            pid: 1,
            state: "running".into(),
            started: 0,
            uptime: 5,
            config: None,
            advisor: (String::new(), String::new()),
        },
        driver: Driver {
            configured: "auto".into(),
            path: Some("libcuda.so.1".into()),
            version: Some(13000),
            software: false,
            fallback: None,
        },
        devices: vec![],
        listeners: vec![],
        pool: Pool { size: 1, warm: 1, starting: 0, waiting: 0, memory: 0, failures: 0, last_failure: None },
        sessions: vec![],
        totals: Totals::default(),
    }
}

/// Answers at a control socket: the status, and that session 5 is ended but no other.
fn operate(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let reply = match serde_json::from_str(&line).unwrap() {
                Request::Status {} => Reply::Ok(Answer::Status(Box::new(status()))),
                Request::Kill { id: 5 } => Reply::Ok(Answer::Done("session 5 ends".into())),
                Request::Kill { id } => Reply::Error(format!("there is no session {id}")),
                other => Reply::Error(format!("{other:?} is not played here")),
            };
            stream.write_all(format!("{}\n", serde_json::to_string(&reply).unwrap()).as_bytes()).unwrap();
        }
    });
}

fn send(socket: &Socket, mut header: Header, payload: &[u8]) {
    header.length = u32::try_from(payload.len()).unwrap();
    let _ = socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]);
}

/// Answers probes, or refuses them with this result.
fn serve(path: &Path, refuse: Option<u32>) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: UnixStream = stream.unwrap();
            let socket = Socket::from(OwnedFd::from(stream));
            let mut reader = FrameReader::new(socket.try_clone().unwrap());
            let header = reader.header().unwrap();
            let hello: Hello = control::decode(reader.payload(&header).unwrap()).unwrap();
            assert_eq!((header.op, hello.purpose), (frame::control::HELLO, Purpose::Probe));
            if let Some(result) = refuse {
                let refusal = Refusal { result, message: "VM 'red' is not wanted".into() };
                send(&socket, Header::new(frame::control::REFUSAL), &control::encode(&refusal).unwrap());
                continue;
            }
            let snapshot = Snapshot {
                driver_version: 13000,
                loading_mode: 2,
                devices: vec![],
                error_strings: vec![],
                software: true,
            };
            let welcome = Welcome {
                software: "7.7.7".into(),
                session: 0,
                vm: "red".into(),
                snapshot,
                shared_memory: None,
                bounds_streams: false,
                instance: 1,
            };
            send(&socket, Header::new(frame::control::WELCOME), &control::encode(&welcome).unwrap());
            while let Ok(ping) = reader.header() {
                assert_eq!(ping.op, frame::control::PING);
                send(&socket, Header { request: ping.request, ..Header::new(frame::control::REPLY) }, &[]);
            }
        }
    });
}

#[test]
fn the_status_is_shown_and_given_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    operate(&path);
    let shown = pxctl(&path, &["status"]);
    assert!(shown.status.success());
    assert!(text(&shown.stdout).contains("server    7.7.7 running"), "{}", text(&shown.stdout));
    let json = pxctl(&path, &["status", "--json"]);
    assert_eq!(serde_json::from_slice::<Status>(&json.stdout).unwrap(), status());
}

#[test]
fn a_session_is_ended_or_it_is_said_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    operate(&path);
    let done = pxctl(&path, &["kill", "5"]);
    assert!(done.status.success());
    assert_eq!(text(&done.stdout), "session 5 ends\n");
    let failed = pxctl(&path, &["kill", "6"]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(text(&failed.stderr), "pxctl: there is no session 6\n");
    let absent = pxctl(&directory.path().join("none.sock"), &["status"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("is pxos-server running?"));
}

#[derive(serde::Deserialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, serde::Deserialize)]
struct Finding {
    check: String,
    level: String,
    text: String,
    remedy: Option<String>,
}

fn doctor(control: &Path, server: &str) -> (Option<i32>, Report) {
    let output = pxctl(control, &["doctor", "--json", "--server", server]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr)));
    (output.status.code(), report)
}

fn find<'a>(report: &'a Report, check: &str, level: &str, part: &str) -> &'a Finding {
    let found = report
        .findings
        .iter()
        .find(|finding| finding.check == check && finding.level == level && finding.text.contains(part));
    found.unwrap_or_else(|| panic!("no {level} of {check} with '{part}' in {:#?}", report.findings))
}

#[test]
fn the_doctor_finds_what_a_server_says() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    operate(&control);
    let willing = directory.path().join("willing.sock");
    serve(&willing, None);
    let (status, report) = doctor(&control, &format!("unix:{}", willing.display()));
    find(&report, "server", "ok", "takes this for VM 'red'");
    find(&report, "server", "warn", "kernels run on the host's CPU");
    find(&report, "operator", "ok", "7.7.7 is running");
    find(&report, "driver", "ok", "the running server uses libcuda.so.1");
    // A server without devices is of no use.
    find(&report, "server", "fail", "no device");
    assert_eq!((status, report.ok), (Some(1), false));

    let unwilling = directory.path().join("unwilling.sock");
    serve(&unwilling, Some(800));
    let (status, report) = doctor(&control, &format!("unix:{}", unwilling.display()));
    let finding = find(&report, "server", "fail", "VM 'red' is not wanted");
    assert!(finding.remedy.as_ref().unwrap().contains("[[vm]]"));
    assert_eq!(status, Some(1));

    let (status, report) = doctor(&control, &format!("unix:{}/none.sock", directory.path().display()));
    find(&report, "server", "fail", "No such file");
    assert_eq!(status, Some(1));
}

#[test]
fn the_doctor_tells_people_in_80_columns() {
    let directory = tempfile::tempdir().unwrap();
    let output =
        pxctl(&directory.path().join("none.sock"), &["doctor", "--server", "unix:/nonexistent/x.sock"]);
    let report = text(&output.stdout);
    assert!(report.contains("FAIL  server    unix:/nonexistent/x.sock"), "{report}");
    assert!(report.contains("-> start pxos-server"), "{report}");
    assert!(report.lines().all(|line| line.chars().count() <= 80), "{report}");
    assert_eq!(output.status.code(), Some(1));
}
