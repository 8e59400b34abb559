//! The daemon's life: start, signals, reload, end; and that it costs nothing while nothing happens.

use crate::server::{Guest, PATIENCE, Server, hello, is_alive, wait_dead};
use pxos_protocol::endpoint::Endpoint;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const HANG: u32 = 1002;

#[test]
fn sigterm_lets_sessions_end() {
    let mut server = Server::start(&["--drain-timeout", "20s"]);
    let mut guest = server.begin();
    server.signal(libc::SIGTERM);
    server.wait("draining", |status| status.server.state == "draining");
    assert!(!server.at("guest.sock").exists(), "nobody else comes in");
    assert!(guest.ping(1), "the session goes on");
    drop(guest);
    assert_eq!(server.end().code(), Some(0));
    assert!(!server.at("control.sock").exists());
    assert!(server.log().contains("pxos-server ends"));
}

#[test]
fn sigterm_ends_those_that_do_not() {
    let mut server = Server::start(&["--drain-timeout", "300ms"]);
    let mut guest = server.begin();
    let worker = server.session().worker;
    let hung = std::thread::spawn(move || guest.ping(HANG));
    server.wait("hanging", |status| status.sessions[0].counters.messages_sync == 1);
    let start = Instant::now();
    server.signal(libc::SIGINT);
    assert_eq!(server.end().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(6));
    wait_dead(worker);
    assert!(!hung.join().unwrap());
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let _guest = server.begin();
    let worker = server.session().worker;
    server.signal(libc::SIGTERM);
    server.wait("draining", |status| status.server.state == "draining");
    server.signal(libc::SIGTERM);
    let start = Instant::now();
    assert_eq!(server.end().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    wait_dead(worker);
}

#[test]
fn a_server_that_still_starts_can_be_ended() {
    let mut server = Server::spawn(&["--driver", "/fake/silent"]);
    server.wait("starting", |status| status.server.state == "starting" && status.pool.starting == 1);
    assert!(
        Guest::connect(&Endpoint::Unix(server.at("guest.sock")))
            .reader
            .socket()
            .wait_readable(Duration::from_millis(50))
            .is_ok_and(|readable| !readable)
    );
    server.signal(libc::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn sighup_changes_all_or_nothing() {
    let server = Server::start(&[]);
    let extra = server.at("extra.sock");
    let file = server.at("server.toml");
    let rule = format!("[[vm]]\nname = \"extra\"\nsocket = \"{}\"\n", extra.display());
    std::fs::write(&file, format!("max_sessions = 1\n[pool]\nsize = 3\n{rule}")).unwrap();
    server.signal(libc::SIGHUP);
    server.wait("refilled", |status| status.pool.warm == 3 && status.pool.size == 3);
    for line in [
        "changed: max_sessions: 128 -> 1",
        "changed: pool.size: 1 -> 3",
        "changed: vm extra: nothing -> socket",
    ] {
        server.wait_log(line);
    }
    let mut guest = Guest::connect(&Endpoint::Unix(extra.clone()));
    guest.hello(&hello());
    assert_eq!(guest.welcome().vm, "extra");
    let mut second = server.connect();
    second.hello(&hello());
    assert!(second.refusal().message.contains("max_sessions"));

    // Wrong in two places: nothing changes, and both are named.
    std::fs::write(&file, "max_sessions = 0\n[pool]\nsize = 1\nsise = 1\n").unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("the configuration is not changed");
    assert!(server.log().contains("1:16: max_sessions: 0 is less than 1"), "{}", server.log());
    assert!(server.log().contains("'pool.sise' is no setting"));
    assert_eq!(server.status().unwrap().pool.size, 3);

    // An endpoint that cannot be bound: nothing changes either.
    std::fs::write(&file, "[pool]\nsize = 2\n[[vm]]\nname = \"x\"\nsocket = \"/nonexistent/place/x.sock\"\n")
        .unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("cannot listen at unix:/nonexistent/place/x.sock");
    assert_eq!(server.status().unwrap().pool.size, 3);
    assert!(extra.exists() && guest.ping(1));

    // The rule goes, its session stays, and what only a restart changes is named.
    std::fs::write(&file, "socket_mode = \"0600\"\n").unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("changes with the next start only: socket_mode: 0660 -> 0600");
    server.wait("shrunk", |status| status.pool.warm == 1 && status.listeners.len() == 1);
    assert!(!extra.exists());
    assert!(guest.ping(1));
    assert!(server.begin().ping(1));
}

#[test]
fn two_servers_do_not_take_each_others_sockets() {
    let first = Server::start(&[]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args(["--config", &first.at("server.toml").display().to_string()])
        .args(["--control", &first.at("control.sock").display().to_string()])
        .args(["--listen", &format!("unix:{}", first.at("other.sock").display())])
        .args(["--driver", "/fake/ready"])
        .stderr(log.reopen().unwrap())
        .status()
        .unwrap();
    assert_eq!(second.code(), Some(1));
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("another server listens there"), "{text}");
    assert!(first.begin().ping(1));
    assert!(first.status().is_some());
}

#[test]
fn a_bad_configuration_is_told_whole_and_ends_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(&file, "drvier = \"soft\"\n[pool]\nsize = \"many\"\n").unwrap();
    for check in [true, false] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pxos-server"));
        command.args(["--config", &file.display().to_string(), "--max-sessions", "none"]);
        if check {
            command.arg("--check-config");
        }
        let output = command.env("PXOS_LOG_LEVEL", "loud").output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8(output.stderr).unwrap();
        let file = file.display();
        for line in [
            format!("{file}:1:1: 'drvier' is no setting; 'driver' perhaps?"),
            format!("{file}:3:8: pool.size: 'many' is not a whole number"),
            "--max-sessions: max_sessions: 'none' is not a whole number".to_owned(),
            "PXOS_LOG_LEVEL: log.level: 'loud' is not one of error, warn, info, debug, trace".to_owned(),
        ] {
            assert!(text.contains(&line), "'{line}' is not in:\n{text}");
        }
    }
    std::fs::write(&file, "").unwrap();
    let good = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args(["--check-config", "--config", &file.display().to_string()])
        .output()
        .unwrap();
    assert!(good.status.success());
    assert!(String::from_utf8(good.stdout).unwrap().contains("is good"));
}

#[test]
fn an_idle_daemon_does_nothing() {
    let server = Server::start(&[]);
    let mut guest = server.begin();
    assert!(guest.ping(1));
    server.wait("settled", |status| status.pool.warm == 1);
    std::thread::sleep(Duration::from_millis(300));
    let before = switches(server.child.id());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(switches(server.child.id()), before, "no thread was awake for two seconds");
    assert!(guest.ping(1));
}

/// Times that the threads of a process were scheduled, all together.
fn switches(pid: u32) -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            sum += line.rsplit(char::is_whitespace).next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

#[test]
fn systemd_is_told() {
    use std::os::unix::net::UnixDatagram;
    let directory = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args([
            "--config",
            "/dev/null",
            "--control",
            &at("c.sock"),
            "--listen",
            &format!("unix:{}", at("g.sock")),
        ])
        .args([
            "--driver",
            "/fake/ready",
            "--worker-program",
            &crate::server::fake_worker().display().to_string(),
        ])
        .env("NOTIFY_SOCKET", at("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stderr(std::fs::File::create(at("log")).unwrap())
        .spawn()
        .unwrap();
    let receive = |wanted: &str| {
        let start = Instant::now();
        loop {
            let mut bytes = [0; 512];
            let count = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "never {wanted}");
        }
    };
    let ready = receive("READY=1");
    assert!(ready.contains("STATUS=driver /fake/ready (this CPU)"), "{ready}");
    receive("WATCHDOG=1");
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: plain numbers; the child has not been waited for.
    unsafe { libc::kill(pid, libc::SIGHUP) };
    assert!(receive("RELOADING=1").contains("MONOTONIC_USEC="));
    receive("READY=1");
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    receive("STOPPING=1");
    assert!(child.wait().unwrap().success());
    assert!(Path::new(&at("log")).exists() && !is_alive(child.id()));
}

#[test]
fn the_log_is_json_where_that_is_asked() {
    let server = Server::start(&["--log-format", "json"]);
    let mut guest = server.begin();
    assert!(guest.ping(1));
    drop(guest);
    server.wait_log("session ends");
    let log = server.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let ends = lines.iter().find(|line| line["message"] == "session ends").unwrap();
    assert_eq!((ends["session"].as_u64(), ends["reason"].as_str()), (Some(1), Some("closed")));
}

#[test]
fn the_journal_gets_priorities_instead_of_times() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let log = std::fs::File::create(at("log")).unwrap();
    let meta = log.metadata().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args([
            "--config",
            "/dev/null",
            "--control",
            &at("c.sock"),
            "--listen",
            &format!("unix:{}", at("g.sock")),
        ])
        .args([
            "--driver",
            "/fake/fail",
            "--worker-program",
            &crate::server::fake_worker().display().to_string(),
        ])
        .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
        .stderr(log)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(at("log")).unwrap();
    assert!(log.starts_with("<6>pxos-server starts version="), "{log}");
    assert!(log.contains("\n<4>worker failed to start"), "{log}");
    assert!(log.contains("\n<3>no driver can be used"), "{log}");
}

/// The arguments of a server in a directory, with workers that only pretend.
fn arguments(directory: &Path, driver: &str) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    let endpoint = format!("unix:{}", at("g.sock"));
    let worker = crate::server::fake_worker().display().to_string();
    let control = at("c.sock");
    ["--config", "/dev/null", "--control", &control, "--listen", &endpoint, "--driver", driver]
        .into_iter()
        .chain(["--worker-program", &worker])
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_background_is_entered_once_guests_are_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let [log, pid_file] = ["server.log", "pid"].map(|name| directory.path().join(name));
    let start = |driver: &str| {
        Command::new(env!("CARGO_BIN_EXE_pxos-server"))
            .args(arguments(directory.path(), driver))
            .arg("--daemonize")
            .args(["--pidfile", "pid"]) // relative to where it is started
            .arg("--log-output")
            .arg(&log)
            .current_dir(directory.path())
            .output()
            .unwrap()
    };
    let failed = start("/fake/fail");
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(said.contains("did not start") && said.contains("server.log"), "{said}");
    assert!(std::fs::read_to_string(&log).unwrap().contains("no driver can be used"));
    assert!(!pid_file.exists());

    let started = start("/fake/ready");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    assert!(directory.path().join("g.sock").exists(), "guests are let in by now");
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    // SAFETY: plain numbers; the process is this test's own grandchild.
    assert_eq!(unsafe { libc::getsid(pid) }, pid, "a session of its own");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    assert!(std::fs::read_to_string(&log).unwrap().contains("ready: guests are let in"));
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let start = Instant::now();
    while pid_file.exists() || is_alive(u32::try_from(pid).unwrap()) {
        assert!(start.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_log_file_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let [log, moved] = ["server.log", "server.log.1"].map(|name| directory.path().join(name));
    let mut child = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args(arguments(directory.path(), "/fake/ready"))
        .arg("--log-output")
        .arg(&log)
        .spawn()
        .unwrap();
    let wait = |path: &Path, text: &str| {
        let start = Instant::now();
        while !std::fs::read_to_string(path).is_ok_and(|log| log.contains(text)) {
            assert!(start.elapsed() < PATIENCE, "never '{text}'");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let pid = i32::try_from(child.id()).unwrap();
    wait(&log, "ready: guests are let in");
    for signal in [libc::SIGUSR1, libc::SIGHUP] {
        std::fs::rename(&log, &moved).unwrap();
        // SAFETY: plain numbers; the child has not been waited for.
        unsafe { libc::kill(pid, signal) };
        wait(&log, "the log goes on here");
    }
    wait(&log, "configuration is read again");
    assert!(!std::fs::read_to_string(&moved).unwrap().contains("configuration is read again"));
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert!(child.wait().unwrap().success());
    wait(&log, "pxos-server ends");
}

#[test]
fn syslog_gets_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.sock");
    let system = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    system.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pxos-server"))
        .args(arguments(directory.path(), "/fake/ready"))
        .args(["--log-output", &format!("syslog:{}", path.display())])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    loop {
        let mut bytes = [0; 1024];
        let count = system.recv(&mut bytes).unwrap();
        let line = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert!(line.starts_with(&format!("<30>pxos-server[{pid}]: ")) || line.starts_with("<28>"), "{line}");
        if line.contains("ready: guests are let in") {
            break;
        }
    }
    // SAFETY: plain numbers; the child has not been waited for.
    unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGTERM) };
    assert!(child.wait().unwrap().success());
}
