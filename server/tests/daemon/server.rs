//! A real `pxos-server` in a directory of its own, with workers that need no driver, and guests that speak to it.

use pxos_protocol::admin::{Answer, Reply, Request, Session, Status};
use pxos_protocol::control::{self, Hello, Purpose, Refusal, Welcome};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::transport::{FrameReader, ReadError, Socket, Transport};
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The fake worker, which cargo builds with the tests.
pub fn fake_worker() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pxos-server")).with_file_name("examples").join("fake_worker");
    assert!(path.exists(), "{} is missing: build the examples", path.display());
    path
}

/// A server that is running.
pub struct Server {
    pub child: Child,
    pub directory: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it lets guests in.
    pub fn start(args: &[&str]) -> Self {
        let server = Self::spawn(args);
        server.wait("running", |status| status.server.state == "running" && status.pool.starting == 0);
        server
    }

    /// Starts one.
    pub fn spawn(args: &[&str]) -> Self {
        Self::spawn_binary(Path::new(env!("CARGO_BIN_EXE_pxos-server")), args, tempfile::tempdir().unwrap())
    }

    /// Starts one of a binary elsewhere.
    pub fn spawn_binary(binary: &Path, args: &[&str], directory: tempfile::TempDir) -> Self {
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut command = Command::new(binary);
        if !Path::new(&at("server.toml")).exists() {
            std::fs::write(at("server.toml"), "").unwrap();
        }
        command
            .args(["--config", &at("server.toml"), "--control", &at("control.sock")])
            .args(["--worker-program", &fake_worker().display().to_string()])
            .args(args)
            .env("FAKE_GONE_ONCE", at("once"))
            .stderr(std::fs::File::create(at("log")).unwrap())
            .stdout(Stdio::null());
        if !args.contains(&"--listen") && !args.contains(&"--no-listen") {
            command.args(["--listen", &format!("unix:{}", at("guest.sock"))]);
        }
        if !args.contains(&"--driver") {
            command.args(["--driver", "/fake/ready"]);
        }
        Self { child: command.spawn().unwrap(), directory }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// The control socket's answer to a line.
    pub fn ask_line(&self, line: &str) -> Option<Reply> {
        let mut stream = UnixStream::connect(self.at("control.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        Some(serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    pub fn ask(&self, request: &Request) -> Option<Reply> {
        self.ask_line(&serde_json::to_string(request).unwrap())
    }

    pub fn status(&self) -> Option<Status> {
        match self.ask(&Request::Status {})? {
            Reply::Ok(Answer::Status(status)) => Some(*status),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the status is as wanted.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.status();
            match status {
                Some(status) if wanted(&status) => return status,
                status if start.elapsed() > PATIENCE => {
                    panic!("never {what}: {status:#?}\nlog:\n{}", self.log())
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The only session.
    pub fn session(&self) -> Session {
        let mut status = self.status().unwrap();
        assert_eq!(status.sessions.len(), 1, "{:?}", status.sessions);
        status.sessions.remove(0)
    }

    pub fn wait_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "'{text}' is not in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: plain numbers; the child has not been waited for.
        unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) };
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects a guest.
    pub fn connect(&self) -> Guest {
        Guest::connect(&Endpoint::Unix(self.at("guest.sock")))
    }

    /// Connects a guest and begins a session.
    pub fn begin(&self) -> Guest {
        let mut guest = self.connect();
        guest.hello(&hello());
        let welcome = guest.welcome();
        assert!(welcome.session > 0);
        guest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A good hello.
pub fn hello() -> Hello {
    Hello {
        version: frame::VERSION,
        fingerprint: pxos_protocol::fingerprint(),
        software: "0.0.1-test".into(),
        purpose: Purpose::Session,
        pid: 4711,
        program: "vector_add".into(),
        token: None,
        shared_memory: false,
        bar: false,
        memory_max: None,
    }
}

/// What a guest holds.
pub struct Guest {
    pub socket: Socket,
    pub reader: FrameReader,
}

impl Guest {
    pub fn connect(endpoint: &Endpoint) -> Self {
        let socket = Socket::connect(endpoint).unwrap();
        socket.set_receive_timeout(Some(PATIENCE)).unwrap();
        let reader = FrameReader::new(socket.try_clone().unwrap());
        Self { socket, reader }
    }

    pub fn send(&self, mut header: Header, payload: &[u8]) {
        header.length = u32::try_from(payload.len()).unwrap();
        self.socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)]).unwrap();
    }

    pub fn hello(&self, hello: &Hello) {
        self.send(Header::new(frame::control::HELLO), &control::encode(hello).unwrap());
    }

    fn next(&mut self, op: u16) -> Vec<u8> {
        let header = self.reader.header().unwrap();
        let payload = self.reader.payload(&header).unwrap().to_vec();
        if header.op == frame::control::REFUSAL && op != header.op {
            panic!("refused: {:?}", control::decode::<Refusal>(&payload));
        }
        assert_eq!(header.op, op);
        payload
    }

    pub fn welcome(&mut self) -> Welcome {
        control::decode(&self.next(frame::control::WELCOME)).unwrap()
    }

    pub fn refusal(&mut self) -> Refusal {
        let refusal = control::decode(&self.next(frame::control::REFUSAL)).unwrap();
        self.assert_closed();
        refusal
    }

    /// Pings as guest thread `thread`; whether a reply came.
    pub fn ping(&mut self, thread: u32) -> bool {
        self.send(Header { thread, request: 9, ..Header::new(frame::control::PING) }, &[]);
        match self.reader.header() {
            Ok(reply) => {
                assert_eq!((reply.op, reply.thread, reply.request), (frame::control::REPLY, thread, 9));
                true
            }
            Err(ReadError::Closed | ReadError::Io(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn assert_closed(&mut self) {
        // A peer that closed with bytes unread makes this a reset, which is as good.
        match self.reader.header() {
            Err(ReadError::Closed) => {}
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("not closed: {other:?}"),
        }
    }
}

/// Whether a process with this id exists (a zombie does not count).
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Waits until a process is gone.
pub fn wait_dead(pid: u32) {
    let start = Instant::now();
    while is_alive(pid) {
        assert!(start.elapsed() < PATIENCE, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}
