//! Servers and guest processes.

use super::Asked;
use super::cases::{Case, Does, Guest, Sought, VMS};
use super::results::{self, Outcome, Said};
use crate::Error;
use crate::process::{Running, signal_group};
use pxos_client::Control;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Workers that wait: as many as the largest case has guests.
const POOL: usize = 8;
/// How long a server may take to start, or to have its workers warm.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longer than a case: a worker that is made ready meanwhile makes a context, which stalls the device for milliseconds.
const REST: &str = "--pool-rest=30s";
/// How long a kernel may take where that is limited: longer than any here but the one that never ends.
const MAX_KERNEL: &str = "--scheduler-max-kernel=300ms";
/// What comes before the measured time: clocks, estimates, and who owes whom.
const WARM_UP: u32 = 1;

/// How guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Plain processes on the driver.
    Native,
    /// Through a server that schedules nothing.
    Fifo,
    /// Through a server that does.
    LeaseFq,
    /// The same, and kernels may not take longer than [`MAX_KERNEL`].
    Guarded,
}

impl Way {
    /// For the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Fifo => "fifo",
            Self::LeaseFq => "leasefq",
            Self::Guarded => "guarded",
        }
    }

    /// What its server is told.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Native => &[],
            Self::Fifo => &["--scheduler-policy=fifo", REST],
            Self::LeaseFq => &["--scheduler-policy=leasefq", REST],
            Self::Guarded => &["--scheduler-policy=leasefq", MAX_KERNEL],
        }
    }
}

/// What all runs share.
#[derive(Debug)]
pub(crate) struct Setting {
    program: PathBuf,
    bin: PathBuf,
    pub(crate) soft: bool,
    server_arg: Vec<String>,
    folder: TempDir,
    /// Iterations of the kernel's loop in a microsecond; 0 for the model of time.
    pub(crate) iterations: String,
}

/// A server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    control: PathBuf,
}

impl Server {
    /// Waits until all workers of the pool are warm: one that starts meanwhile would be measured as well.
    fn rest(&self) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let status = Control::connect(&self.control).and_then(|mut control| control.status());
            match status {
                Ok(status) if status.pool.warm >= POOL && status.pool.starting == 0 => return Ok(()),
                Err(error) if begun.elapsed() > START_LIMIT => {
                    return Err(Error::Server(format!("its control socket: {error}")));
                }
                Ok(_) if begun.elapsed() > START_LIMIT => {
                    return Err(Error::Server("its workers do not become ready".into()));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        signal_group(&self.child, libc::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(15) {
                signal_group(&self.child, libc::SIGKILL);
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Setting {
    /// Calibrates.
    pub(crate) fn new(asked: &Asked) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("pxos-fairness-")
            .tempdir()
            .map_err(Error::io("making a folder"))?;
        let bin = fs::canonicalize(&asked.bin).map_err(Error::io(asked.bin.display().to_string()))?;
        let mut setting = Self {
            program: asked.program.clone(),
            bin,
            soft: asked.soft,
            server_arg: asked.server_arg.clone(),
            folder,
            iterations: "0".into(),
        };
        if !setting.soft {
            let mut command = setting.command(None, "a1");
            command.arg("calibrate");
            let (said, _) = Running::start(command)?.finish()?;
            setting.iterations = said.trim().to_owned();
        }
        Ok(setting)
    }

    /// The guest program, natively or in a VM of a server.
    fn command(&self, server: Option<&Server>, vm: &str) -> Command {
        let mut command = Command::new(&self.program);
        self.model(&mut command);
        match server {
            Some(server) => {
                let socket = server.folder.join(format!("{vm}.sock"));
                command.env("PXOS_SERVER", format!("unix:{}", socket.display()));
                command.env("LD_PRELOAD", self.bin.join("libpxshim.so"));
            }
            None if self.soft => {
                command.env("LD_PRELOAD", self.bin.join("libpxsoft.so"));
            }
            None => {}
        }
        command
    }

    /// softgpu's model of time: one device for all processes, sliced as a driver does it.
    fn model(&self, command: &mut Command) {
        if self.soft {
            command.env("PXSOFT_LAB", self.folder.path().join("lab"));
            command.envs([("PXSOFT_BLOCK_US", "100"), ("PXSOFT_SLICE_US", "1000"), ("PXSOFT_THREADS", "1")]);
        }
    }

    /// Starts the server of a way, if it has one.
    pub(crate) fn serve(&self, way: Way) -> Result<Option<Server>, Error> {
        if way == Way::Native {
            return Ok(None);
        }
        let folder = self.folder.path().join(way.name());
        fs::create_dir(&folder).map_err(Error::io(folder.display().to_string()))?;
        let mut rules = String::new();
        for (name, limits) in VMS {
            let socket = folder.join(format!("{name}.sock"));
            // Writing to a string cannot fail.
            let _ = writeln!(rules, "[[vm]]\nname = \"{name}\"\nsocket = \"{}\"\n{limits}", socket.display());
        }
        let config = folder.join("server.toml");
        fs::write(&config, format!("listen = []\n{rules}"))
            .map_err(Error::io(config.display().to_string()))?;
        let log = File::create(folder.join("log")).map_err(Error::io("the server's log"))?;
        let program = self.bin.join("pxos-server");
        let control = folder.join("control.sock");
        let mut command = Command::new(&program);
        self.model(&mut command);
        command
            .arg("--config")
            .arg(&config)
            .arg("--control")
            .arg(&control)
            .args(["--pool-size", &POOL.to_string()])
            .args(way.arguments())
            .args(if self.soft { &["--driver", "soft"][..] } else { &[] })
            .args(&self.server_arg)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(Error::io("the server's log"))?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn().map_err(Error::io(format!("starting {}", program.display())))?;
        let mut server = Server { child, folder, control };
        let begun = Instant::now();
        let last = server.folder.join("fast.sock");
        while std::os::unix::net::UnixStream::connect(&last).is_err() {
            let ended = server.child.try_wait().map_err(Error::io("waiting for the server"))?;
            if ended.is_some() || begun.elapsed() > START_LIMIT {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                return Err(Error::Server(format!("it does not listen\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }

    /// Runs a case.
    pub(crate) fn measure(
        &self,
        server: Option<&Server>,
        case: &Case,
        seconds: u32,
    ) -> Result<Outcome, Error> {
        if let Some(server) = server {
            server.rest()?;
        }
        let mut running = Vec::new();
        for guest in &case.guests {
            let mut command = self.command(server, &guest.vm);
            command.args(self.arguments(guest, seconds + WARM_UP));
            running.push(Running::start(command)?);
        }
        for guest in &mut running {
            guest.line()?;
        }
        for guest in &mut running {
            guest.go()?;
        }
        let mut said = Vec::new();
        for guest in running {
            said.push(Said::read(&guest.finish()?.0));
        }
        let weights: Vec<f64> = case.guests.iter().map(|guest| f64::from(guest.weight)).collect();
        let outcome = match case.sought {
            Sought::Shares => results::shares(&said, &weights, WARM_UP),
            Sought::Cap(cap) => results::cap(&said, cap, WARM_UP),
            Sought::Latency => results::latency(&said, WARM_UP),
            Sought::Neighbour => results::neighbour(&said, WARM_UP),
            Sought::Handover => results::handover(&said),
        };
        outcome.ok_or_else(|| Error::program(&self.program, "it printed too little to measure anything"))
    }

    fn arguments(&self, guest: &Guest, seconds: u32) -> Vec<String> {
        let seconds = seconds.to_string();
        let words: Vec<&str> = match &guest.does {
            Does::Busy(kernels) => vec!["busy", &self.iterations, kernels, &seconds],
            Does::Graph(kernel, nodes) => vec!["graph", &self.iterations, kernel, &seconds, nodes],
            Does::Gemm(side) => vec!["gemm", side, &seconds],
            Does::Steady(kernel) => vec!["steady", &self.iterations, kernel, &seconds],
            Does::Bad(what) => vec!["bad", what, &seconds],
            Does::Trace(kernel) => vec!["trace", &self.iterations, kernel, &seconds],
            Does::Latency(pause) => vec!["latency", &self.iterations, "50", pause, &seconds],
        };
        words.into_iter().map(str::to_owned).collect()
    }
}
