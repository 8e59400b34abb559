//! TLS: a guest that reaches the server over a network is who its certificate says, and nobody without one gets in. The
//! commands that make certificates and the server's settings are those of docs/guests.md, as they stand there.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Program, Server, probe, skipped, tool};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The guide, which has the commands.
const GUIDE: &str = include_str!("../../../docs/guests.md");

/// Certificates for the host and for some VMs, made by the guide's own commands in a folder of their own.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Result<Self, String> {
        if !Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
            return Err("no openssl (apt install openssl)".into());
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let commands = block("openssl req -x509");
        assert!(commands.contains("gpu-host") && commands.contains("for vm in red"), "{commands}");
        run(folder.path(), &commands);
        let more = commands.replace("ca.pem", "other-ca.pem").replace("ca.key", "other-ca.key");
        let more = more.replace("host.", "x.").replace("for vm in red blue", "for vm in stranger");
        let more = more.replace("/CN=pxos", "/CN=another");
        run(folder.path(), &more);
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn run(folder: &Path, commands: &str) {
    let done = Command::new("sh").args(["-ec", commands]).current_dir(folder).output();
    let done = done.expect("a shell can be started");
    assert!(done.status.success(), "{commands}\n{}", String::from_utf8_lossy(&done.stderr));
}

/// The indented block of the guide that holds a text.
fn block(text: &str) -> String {
    let at = GUIDE.find(text).unwrap_or_else(|| panic!("the guide has no '{text}'"));
    let start = GUIDE[..at].rfind("\n\n").expect("a paragraph before it") + 2;
    let block = GUIDE[start..].lines().take_while(|line| line.starts_with("    "));
    block.map(|line| format!("{}\n", &line[4..])).collect()
}

fn free_port() -> u16 {
    // Free now; that somebody takes it within milliseconds would be a strange accident.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a listener has an address").port()
}

/// A server that speaks TLS under these settings, and its port.
fn server(settings: &str) -> (Server, u16) {
    let port = free_port();
    let server =
        Fixture::new().arg(&format!("--listen=tls:127.0.0.1:{port}")).configuration(settings).start();
    (server, port)
}

/// `pxctl guest-tls`, as a guest runs it.
struct Carrier {
    child: Child,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Carrier {
    fn start(certificates: &Certificates, port: u16, shows: Option<&str>, name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let socket = folder.path().join("gpu.sock");
        let mut command = Command::new(tool("pxctl"));
        command
            .args(["guest-tls", "--server", &format!("127.0.0.1:{port}"), "--name", name, "--ca"])
            .arg(certificates.path("ca.pem"))
            .arg("--listen")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("the folder takes files"));
        if let Some(vm) = shows {
            command.arg("--certificate").arg(certificates.path(&format!("{vm}.pem")));
            command.arg("--key").arg(certificates.path(&format!("{vm}.key")));
        }
        let child = command.spawn().expect("pxctl can be started");
        let start = Instant::now();
        let log = folder.path().join("log");
        // The socket's name is there before anybody listens.
        while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("connect at")) {
            assert!(start.elapsed() < Duration::from_secs(30), "pxctl guest-tls does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket, folder }
    }

    /// A program of this guest.
    fn program(&self, program: &Path) -> Program {
        Program::new(program.to_owned(), self.folder.path().to_owned())
            .env("LD_PRELOAD", tool("libpxshim.so"))
            .env("PXOS_SERVER", format!("unix:{}", self.socket.display()))
    }

    /// Runs the probe, which must be refused with this result; what the guest is told.
    fn is_refused(&self, result: &str) -> String {
        let ran = self.program(&probe()).arg("init").run();
        assert!(ran.stdout.contains(&format!("init {result}")), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The guide's settings, with certificates where the test has them and a quota that softgpu has room for.
fn settings(certificates: &Certificates) -> String {
    let settings = block("listen = [\"tls:");
    for part in ["policy = \"deny\"", "client_ca", "certificate = \"red\"", "memory_max = \"8G\""] {
        assert!(settings.contains(part), "no {part} in {settings}");
    }
    let folder = format!("{}/", certificates.0.path().display());
    settings.replace("/etc/pxos/", &folder).replace("\"8G\"", "\"64M\"")
}

#[test]
fn a_guest_is_who_its_certificate_says() {
    let certificates = match Certificates::make() {
        Ok(certificates) => certificates,
        Err(reason) => return skipped(&reason),
    };
    let (server, port) = server(&settings(&certificates));
    let before = server.settled();

    let red = Carrier::start(&certificates, port, Some("red"), "gpu-host");
    let ran = red.program(&probe()).args(["init", "copies", "3", "3000000", "meminfo"]).run();
    assert!(ran.stdout.contains("copies CUDA_SUCCESS"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(&format!("{}", 64 << 20)), "its own quota: {}", ran.stdout);
    server.wait_log("vm=\"red\"");
    server.wait_log("from=\"tls 127.0.0.1:");
    // What a program is when it dies in the middle, the server sees.
    let dying = red.program(&probe()).args(["init", "sleep", "60000"]).start();
    assert_eq!(server.session().vm, "red");
    dying.signal(libc::SIGKILL);
    server.wait("no session", |status| status.sessions.is_empty());

    // Another VM's certificate is good, and lets nobody in whom no rule names.
    let blue = Carrier::start(&certificates, port, Some("blue"), "gpu-host");
    let told = blue.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("VM 'tls:blue' may not use this server's devices"), "{told}");

    // Of an authority that the server does not know; without one.
    let stranger = Carrier::start(&certificates, port, Some("stranger"), "gpu-host");
    let told = stranger.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("does not take this VM") && told.contains("UnknownCA"), "{told}");
    let nobody = Carrier::start(&certificates, port, None, "gpu-host");
    let told = nobody.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("CertificateRequired"), "{told}");
    server.wait_log("refused: TLS: peer sent no certificates");
    // Programs that go while they are told do not take the carrier with them.
    for _ in 0..5 {
        let running = stranger.program(&probe()).arg("init").start();
        running.signal(libc::SIGKILL);
        let _ = running.end();
    }
    let told = stranger.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("UnknownCA"), "{told}");
    // A server that is not the one that the guest means.
    let elsewhere = Carrier::start(&certificates, port, Some("red"), "another-host");
    let told = elsewhere.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("not valid for name"), "{told}");
    // A program that knows no TLS.
    let ran = server.guest(probe()).env("PXOS_SERVER", format!("tcp:127.0.0.1:{port}")).arg("init").run();
    assert!(!ran.stdout.contains("CUDA_SUCCESS"), "{}", ran.stdout);
    server.assert_settles_as(&before);
}

#[test]
fn a_token_does_where_no_certificates_are_asked_for() {
    let certificates = match Certificates::make() {
        Ok(certificates) => certificates,
        Err(reason) => return skipped(&reason),
    };
    let path = |name: &str| certificates.path(name).display().to_string();
    let (server, port) = server(&format!(
        "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[[vm]]\nname = \"green\"\ntoken = \"0123456789abcdef\"\n",
        path("host.pem"),
        path("host.key"),
    ));
    let carrier = Carrier::start(&certificates, port, None, "gpu-host");
    let ran = carrier.program(&probe()).env("PXOS_TOKEN", "0123456789abcdef").arg("init").run();
    assert!(ran.stdout.contains("init CUDA_SUCCESS"), "{}{}", ran.stdout, ran.stderr);
    server.wait_log("vm=\"green\"");
    let told = carrier.is_refused("CUDA_ERROR_NOT_PERMITTED");
    assert!(told.contains("a connection over TLS needs a token"), "{told}");
}

#[test]
fn nothing_that_is_not_encrypted_leaves_this_host() {
    for (endpoint, wanted) in [
        ("tcp:0.0.0.0:9700", "nothing encrypts TCP: say tls:0.0.0.0:9700"),
        ("tls:0.0.0.0:9701", "needs tls.certificate and tls.key"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ran = Program::new(tool("pxos-server"), folder.path().to_owned())
            .args(["--config", "/dev/null", "--check-config", "--tcp-token", "0123456789abcdef", "--listen"])
            .arg(endpoint)
            .run();
        assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
    }
}
