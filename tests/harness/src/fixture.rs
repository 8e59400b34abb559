//! A server of the scenario's own: real processes on sockets that nobody else knows, gone with the scenario.

use crate::artifacts::{Driver, binary, library};
use crate::process;
use crate::program::{Finished, Program, tail};
use crate::wire::Guest;
use pxos_protocol::admin::{Answer, Reply, Request, Session, Status};
use pxos_protocol::endpoint::Endpoint;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything takes on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What TCP guests show; [`Way::Tcp`] does.
const TOKEN: &str = "a-token-for-scenarios-only";

/// How a guest program reaches its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not remoted: on the driver under test itself.
    Direct,
    /// Through a unix socket, with shared memory beside it.
    SharedMemory,
    /// Through a unix socket alone.
    Socket,
    /// Through TCP on this host, with a token. The fixture needs [`Fixture::tcp`].
    Tcp,
}

impl Way {
    /// The ways that are remoted.
    pub const REMOTED: [Self; 3] = [Self::SharedMemory, Self::Socket, Self::Tcp];
}

/// A server that has not been started: built up, then [`Fixture::start`]ed.
#[derive(Debug, Default)]
pub struct Fixture {
    driver: Driver,
    args: Vec<String>,
    configuration: String,
    names: Vec<(&'static str, &'static str)>,
    tcp: bool,
    environment: Vec<(String, String)>,
}

impl Fixture {
    /// A server with the driver under test and defaults for all else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the driver.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Adds an argument of the server.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds lines to its configuration file.
    #[must_use]
    pub fn configuration(mut self, lines: &str) -> Self {
        self.configuration += lines;
        self.configuration += "\n";
        self
    }

    /// Sets an environment variable of the server and its workers.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces a word of the configuration by the path that a name has in the server's folder.
    #[must_use]
    pub fn replacing(mut self, word: &'static str, name: &'static str) -> Self {
        self.names.push((word, name));
        self
    }

    /// Also listens on TCP, on this host alone.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Starts it and waits until it lets guests in and its pool is full.
    #[must_use]
    pub fn start(self) -> Server {
        let directory =
            tempfile::Builder::new().prefix("pxos-").tempdir().expect("a temporary folder can be made");
        let address = self.tcp.then(|| {
            // The port is free now; that somebody takes it within milliseconds would be a strange accident.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
            format!("tcp:{}", listener.local_addr().expect("a listener has an address"))
        });
        let mut args = self.args;
        if let Some(address) = &address {
            args.extend(["--listen", address, "--tcp-token", TOKEN].map(str::to_owned));
        }
        args.extend(["--driver".to_owned(), self.driver.argument()]);
        let mut configuration = self.configuration;
        for (word, name) in self.names {
            configuration = configuration.replace(word, &directory.path().join(name).display().to_string());
        }
        fs::write(directory.path().join("server.toml"), &configuration).expect("the folder takes files");
        let environment = self.environment;
        let mut server = Server { child: None, directory, args, address, driver: self.driver, environment };
        server.start();
        server
    }
}

/// What a server holds when nobody uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Descriptors of the daemon, by kind.
    pub descriptors: BTreeMap<String, usize>,
    /// Processes of the daemon: its warm workers.
    pub workers: usize,
    /// Threads of the daemon.
    pub threads: usize,
}

/// A server that runs; its end is the end of all that it started.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    directory: TempDir,
    args: Vec<String>,
    address: Option<String>,
    driver: Driver,
    environment: Vec<(String, String)>,
}

impl Server {
    fn start(&mut self) {
        let log =
            File::options().create(true).append(true).open(self.at("log")).expect("the folder takes files");
        let mut command = Command::new(binary("pxos-server"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PXOS_") || text.starts_with("LD_PRELOAD") {
                command.env_remove(&name);
            }
        }
        command
            .arg("--config")
            .arg(self.at("server.toml"))
            .arg("--control")
            .arg(self.at("control.sock"))
            .arg(format!("--listen=unix:{}", self.at("guest.sock").display()))
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("pxos-server can be started"));
        self.wait("ready", |status| {
            status.server.state == "running"
                && status.pool.starting == 0
                && status.pool.warm >= status.pool.size
        });
    }

    /// Starts it again, as before and on the same sockets, after it has ended.
    pub fn restart(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.start();
    }

    /// A path in its folder.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Process id of the daemon.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server was started").id()
    }

    /// Its log so far, its workers' lines included.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.at("log")).unwrap_or_default()).into_owned()
    }

    /// Waits until its log holds a text.
    pub fn wait_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "'{text}' is not in the log:\n{}", tail(&self.log()));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its unix socket for guests.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.at("guest.sock"))
    }

    /// Its TCP endpoint, where the fixture asked for one.
    #[must_use]
    pub fn tcp_endpoint(&self) -> Endpoint {
        self.address.as_ref().expect("the fixture has TCP").parse().expect("the fixture wrote it")
    }

    /// A program that is not remoted: on the driver under test.
    #[must_use]
    pub fn direct(&self, program: impl AsRef<Path>) -> Program {
        self.program(program, Way::Direct)
    }

    /// A remoted program, with shared memory.
    #[must_use]
    pub fn guest(&self, program: impl AsRef<Path>) -> Program {
        self.program(program, Way::SharedMemory)
    }

    /// A program that reaches its device this way.
    #[must_use]
    pub fn program(&self, program: impl AsRef<Path>, way: Way) -> Program {
        let folder = self.directory.path().to_owned();
        let new = Program::new(program.as_ref().to_owned(), folder).dumping(vec![self.pid()]);
        let remoted = |endpoint: Endpoint| {
            let shim = library("libpxshim.so");
            Program::new(program.as_ref().to_owned(), self.directory.path().to_owned())
                .dumping(vec![self.pid()])
                .env("LD_PRELOAD", shim)
                .env("PXOS_SERVER", endpoint.to_string())
        };
        match way {
            Way::Direct => match self.direct_driver() {
                Some(path) => new.env("LD_PRELOAD", path),
                None => new,
            },
            Way::SharedMemory => remoted(self.endpoint()),
            Way::Socket => remoted(self.endpoint()).env("PXOS_SHARED_MEMORY", "0"),
            Way::Tcp => remoted(self.tcp_endpoint()).env("PXOS_TOKEN", TOKEN),
        }
    }

    /// What direct runs preload: nothing where the system's libcuda is meant.
    fn direct_driver(&self) -> Option<PathBuf> {
        let driver =
            if self.driver == Driver::UnderTest { crate::driver_under_test() } else { self.driver.clone() };
        match driver {
            Driver::Soft | Driver::UnderTest => Some(library("libpxsoft.so")),
            Driver::Auto if crate::is_on_a_gpu() => None,
            Driver::Auto => Some(library("libpxsoft.so")),
            Driver::Path(path) => Some(path),
        }
    }

    /// Asks over the control socket.
    fn ask(&self, request: &Request) -> Option<Reply> {
        let mut stream = UnixStream::connect(self.at("control.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let line = serde_json::to_string(request).expect("a request is JSON");
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// Its status; it has to answer.
    #[must_use]
    pub fn status(&self) -> Status {
        self.try_status().unwrap_or_else(|| panic!("the server does not answer\nlog:\n{}", tail(&self.log())))
    }

    /// Its status, if it answers.
    fn try_status(&self) -> Option<Status> {
        match self.ask(&Request::Status {})? {
            Reply::Ok(Answer::Status(status)) => Some(*status),
            other => panic!("the status is {other:?}"),
        }
    }

    /// Ends a session, as an operator would.
    pub fn dismiss(&self, id: u64) {
        let reply = self.ask(&Request::Kill { id });
        assert!(matches!(reply, Some(Reply::Ok(Answer::Done(_)))), "{reply:?}");
    }

    /// Runs pxctl against it.
    #[must_use]
    pub fn pxctl(&self, args: &[&str]) -> Finished {
        let folder = self.directory.path().to_owned();
        Program::new(binary("pxctl"), folder).arg("--control").arg(self.at("control.sock")).args(args).run()
    }

    /// Waits until the status is as wanted.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            match self.try_status() {
                Some(status) if wanted(&status) => return status,
                status => assert!(
                    start.elapsed() < PATIENCE && process::is_alive(self.pid()),
                    "never {what}: {status:#?}\nlog:\n{}",
                    tail(&self.log())
                ),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until exactly one session stands, and gives it.
    #[must_use]
    pub fn session(&self) -> Session {
        self.wait("one session", |status| status.sessions.len() == 1).sessions.remove(0)
    }

    /// The session of a guest process.
    #[must_use]
    pub fn session_of(&self, pid: u32) -> Session {
        let status = self.wait("the guest's session", |status| status.sessions.iter().any(|s| s.pid == pid));
        status.sessions.into_iter().find(|session| session.pid == pid).expect("waited for")
    }

    /// The session of a VM that has one.
    #[must_use]
    pub fn session_of_vm(&self, vm: &str) -> Session {
        let status = self.wait("the VM's session", |status| status.sessions.iter().any(|s| s.vm == vm));
        status.sessions.into_iter().find(|session| session.vm == vm).expect("waited for")
    }

    /// What it holds when nobody uses it. Waits until no session stands, its pool is full and dead workers are buried; fails
    /// where that does not come, as it would after a leak of processes.
    #[must_use]
    pub fn settled(&self) -> Settled {
        self.wait("settled", |status| {
            status.sessions.is_empty()
                && status.pool.starting == 0
                && status.pool.waiting == 0
                && status.pool.warm == status.pool.size
                && process::children(self.pid()).len() == status.pool.warm
        });
        // The connection that asked for the status is open for a moment longer.
        let mut held = self.held();
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(25));
            let again = self.held();
            if again == held {
                break;
            }
            held = again;
        }
        held
    }

    fn held(&self) -> Settled {
        Settled {
            descriptors: process::descriptor_kinds(self.pid()),
            workers: process::children(self.pid()).len(),
            threads: process::threads(self.pid()),
        }
    }

    /// Fails unless it comes to hold just what it held before: nothing has leaked, neither descriptors nor processes. Device
    /// memory belongs to a worker and goes with its process.
    pub fn assert_settles_as(&self, before: &Settled) {
        let start = Instant::now();
        let _ = self.settled();
        // Threads that admit and control connections may take a moment to close.
        while self.held() != *before {
            if start.elapsed() > PATIENCE {
                let after = self.held();
                panic!("leaked: before {before:#?}, after {after:#?}\nlog:\n{}", tail(&self.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Connects a guest that speaks by hand.
    #[must_use]
    pub fn connect(&self) -> Guest {
        Guest::connect(&self.endpoint())
    }

    /// Connects such a guest and begins its session, without shared memory.
    #[must_use]
    pub fn begin(&self) -> Guest {
        self.connect().begin(false)
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: i32) {
        process::signal(i32::try_from(self.pid()).expect("process ids are small"), signal);
    }

    /// Waits for the daemon's end.
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return status;
            }
            if start.elapsed() > PATIENCE {
                panic!("the server does not end\n{}log:\n{}", process::stacks(self.pid()), tail(&self.log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if std::thread::panicking() {
            eprintln!("server log:\n{}", tail(&self.log()));
        }
        let workers = process::children(child.id());
        let _ = child.kill();
        let _ = child.wait();
        let survivors: Vec<u32> = workers
            .into_iter()
            .filter(|pid| !process::is_gone_within(*pid, Duration::from_secs(5)))
            .collect();
        for pid in &survivors {
            process::kill(*pid);
        }
        assert!(
            survivors.is_empty() || std::thread::panicking(),
            "workers {survivors:?} outlived their server"
        );
    }
}
