//! One guest program: how it is started, what came of it, and its end if it hangs.

use crate::process;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a program may take unless its scenario says otherwise: far more than any needs on a slow machine with a software device.
const LIMIT: Duration = Duration::from_secs(120);

/// A program that has not been started.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: PathBuf,
    limit: Duration,
    also_dump: Vec<u32>,
}

impl Program {
    /// A program whose output is kept in `folder`; it gets nothing of this process's `PXOS_…` and `LD_PRELOAD`.
    #[must_use]
    pub fn new(path: PathBuf, folder: PathBuf) -> Self {
        Self { path, args: Vec::new(), env: Vec::new(), folder, limit: LIMIT, also_dump: Vec::new() }
    }

    /// Processes that are shown with it if it hangs.
    pub(crate) fn dumping(mut self, pids: Vec<u32>) -> Self {
        self.also_dump = pids;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets how long it may take before it counts as hanging.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(self) -> Finished {
        let limit = self.limit;
        self.start().end_within(limit)
    }

    /// Runs it to its end, which has to be success.
    pub fn passes(self) -> Finished {
        let finished = self.run();
        assert!(finished.status.success(), "{finished}");
        finished
    }

    /// Starts it.
    #[must_use]
    pub fn start(self) -> Running {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let at = |name: &str| self.folder.join(format!("{name}-{number}"));
        let (output, errors, work) = (at("stdout"), at("stderr"), at("work"));
        fs::create_dir(&work).expect("the fixture's folder takes folders");
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("PXOS_") || name_text.starts_with("LD_") {
                command.env_remove(&name);
            }
        }
        command
            .args(&self.args)
            .envs(self.env)
            .current_dir(&work)
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("the fixture's folder takes files"))
            .stderr(File::create(&errors).expect("the fixture's folder takes files"))
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        Running {
            name: format!("{} {:?}", self.path.display(), self.args),
            child,
            output,
            errors,
            work,
            limit: self.limit,
            started: Instant::now(),
            also_dump: self.also_dump,
            ended: false,
        }
    }
}

/// A program that runs; killed with all its children when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    work: PathBuf,
    limit: Duration,
    started: Instant,
    also_dump: Vec<u32>,
    ended: bool,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.work
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.output)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.errors)
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("standard input is a pipe");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the program reads its standard input");
    }

    /// Waits until its standard output holds a text.
    pub fn wait_for(&self, text: &str) {
        while !self.stdout().contains(text) {
            let late = self.started.elapsed() > self.limit;
            if late || !process::is_alive(self.pid()) && !self.stdout().contains(text) {
                panic!(
                    "{} {} without '{text}'\n{}",
                    self.name,
                    if late { "hangs" } else { "ended" },
                    self.describe(late)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        process::signal(i32::try_from(self.pid()).expect("process ids are small"), signal);
    }

    /// Waits for its end by itself, at most its limit.
    #[must_use]
    pub fn end(self) -> Finished {
        let limit = self.limit;
        self.end_within(limit)
    }

    /// Waits for its end by itself: one that takes longer than `limit` from now hangs, which fails the scenario with a
    /// picture of where it and its server stand.
    #[must_use]
    pub fn end_within(mut self, limit: Duration) -> Finished {
        drop(self.child.stdin.take());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.ended = true;
                // What it left behind in its group goes with it.
                self.kill_group();
                return Finished {
                    name: self.name.clone(),
                    status,
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                    wall: self.started.elapsed(),
                    waited: start.elapsed(),
                };
            }
            if start.elapsed() > limit {
                let picture = self.describe(true);
                panic!("{} hangs: not ended after {limit:?}\n{picture}", self.name);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn describe(&self, with_stacks: bool) -> String {
        let mut text = format!("stdout:\n{}\nstderr:\n{}\n", tail(&self.stdout()), tail(&self.stderr()));
        if with_stacks {
            for pid in std::iter::once(self.pid()).chain(self.also_dump.iter().copied()) {
                text += &process::stacks(pid);
                for child in process::children(pid) {
                    if child != self.pid() {
                        text += &process::stacks(child);
                    }
                }
            }
        }
        text
    }

    fn kill_group(&self) {
        process::signal(-i32::try_from(self.pid()).expect("process ids are small"), libc::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The last lines: enough to see what went wrong.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// What came of a program.
#[derive(Debug)]
pub struct Finished {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub wall: Duration,
    /// How long its end was waited for.
    pub waited: Duration,
}

impl Finished {
    /// Its exit code, if it was not a signal that ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        write!(f, "{}: {end}\nstdout:\n{}\nstderr:\n{}", self.name, tail(&self.stdout), tail(&self.stderr))
    }
}
