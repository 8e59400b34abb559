//! pxctl: what a pxOS server is doing, its VMs and their rights, and a doctor for both sides.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod accounting;
mod advise;
mod decisions;
mod doctor;
mod mux;
mod primitive;
mod probe;
mod status;
mod tls;
mod top;
mod units;
mod vm;

use clap::{Parser, Subcommand};
use pxos_client::{Control, ControlError};
use pxos_protocol::admin::{DEFAULT_CONTROL, Event, Request};
use pxos_protocol::endpoint::Endpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Shows and controls a pxOS server, and finds out why CUDA does not work in a VM.
#[derive(Debug, Parser)]
#[command(name = "pxctl", version)]
struct Args {
    /// The server's control socket
    #[arg(long, global = true, env = "PXOS_CONTROL", default_value = DEFAULT_CONTROL, value_name = "PATH")]
    control: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the server, its devices and its sessions
    Status {
        /// As JSON, with everything
        #[arg(long)]
        json: bool,
        /// With the functions that each session called
        #[arg(long)]
        calls: bool,
    },
    /// Shows what VMs and their processes use, for ever or once
    Top(top::Args),
    /// Lists, shows, makes and changes VMs
    #[command(subcommand)]
    Vm(vm::Command),
    /// Shows what happened, and what happens
    Events {
        /// As JSON, an event on a line
        #[arg(long)]
        json: bool,
        /// Ends with the last event that happened instead of waiting for more
        #[arg(long)]
        once: bool,
        /// Only events after this number
        #[arg(long, default_value_t = 0, value_name = "NUMBER")]
        since: u64,
    },
    /// Shows what the scheduler decided last, and why
    Decisions(decisions::Args),
    /// Shows what each VM has used since the server started
    Accounting(accounting::Args),
    /// Says, from what was measured, what to change about VMs
    Advise(advise::Args),
    /// Ends a session: the guest process sees a CUDA error
    Kill {
        /// Number of the session
        session: u64,
    },
    /// Looks for what keeps CUDA from working, on the host or in a guest
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// The server to ask, instead of the one that the shim would use
        #[arg(long, value_name = "ENDPOINT")]
        server: Option<Endpoint>,
    },
    /// Checks, compiles, runs and measures programs of the primitive language
    Primitive {
        /// What is done
        #[command(subcommand)]
        command: primitive::Command,
    },
    /// Sends the GPU one request: nop, vector_add or status
    GpuTest {
        /// The request
        command: String,
    },
    /// In a VM without vsock: carries the connections of this guest's programs over a virtio-serial port
    GuestMux {
        /// The port's device; by default the one whose name is pxos.gpu.0
        #[arg(long, value_name = "PATH")]
        port: Option<PathBuf>,
        /// The socket at which programs connect, which is where they look first
        #[arg(long, default_value = "/run/pxos-gpu.sock", value_name = "PATH")]
        listen: PathBuf,
        /// Its permissions, octal
        #[arg(long, default_value = "0666", value_name = "MODE", value_parser = mux::mode)]
        mode: u32,
    },
    /// In a VM that reaches the host by a network alone: carries the connections of this guest's programs over TLS
    GuestTls(tls::Args),
    /// Times copies through a libcuda, for the doctor
    #[command(hide = true)]
    Measure {
        /// The library
        library: PathBuf,
    },
    /// Loads a library in a process of its own, for the doctor
    #[command(hide = true)]
    OpenLibrary {
        /// Whether to call cuInit
        #[arg(long)]
        init: bool,
        /// A path, or a name for the dynamic linker
        library: PathBuf,
    },
}

/// Why a command did not do what it should.
#[derive(Debug)]
enum Failure {
    Control(ControlError),
    Other(String),
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control(error) => error.fmt(f),
            Self::Other(message) => f.write_str(message),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // What carries other programs' connections outlives any of them.
    if !matches!(args.command, Command::GuestMux { .. } | Command::GuestTls(_)) {
        // As other programs of the command line: `pxctl status | head` ends quietly.
        // SAFETY: nothing else runs yet; the default action is a valid handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let path = &args.control;
    let result = match args.command {
        Command::Primitive { command } => return told(primitive::execute(command)),
        Command::GpuTest { command } => return told(primitive::gpu_test(&command)),
        Command::GuestMux { port, listen, mode } => return mux::run(port, &listen, mode),
        Command::GuestTls(args) => return tls::run(&args),
        Command::Status { json, calls } => show_status(path, json, calls),
        Command::Top(args) => top::run(path, &args),
        Command::Vm(command) => vm::run(path, command),
        Command::Events { json, once, since } => events(path, json, !once, since),
        Command::Decisions(args) => decisions::run(path, &args),
        Command::Accounting(args) => accounting::run(path, &args),
        Command::Advise(args) => advise::run(path, &args),
        Command::Kill { session } => act(path, &Request::Kill { id: session }),
        Command::Doctor { json, server } => return doctor::run(path, server, json),
        Command::Measure { library } => return doctor::program::answer(&library),
        Command::OpenLibrary { init, library } => return doctor::library::answer(&library, init),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pxctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn told(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("pxctl: {error}");
        ExitCode::FAILURE
    })
}

/// Has something done, and says what.
fn act(path: &Path, request: &Request) -> Result<(), Failure> {
    println!("{}", Control::connect(path)?.act(request)?);
    Ok(())
}

fn json(value: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("reports have string keys only"));
}

fn show_status(path: &Path, as_json: bool, calls: bool) -> Result<(), Failure> {
    let status = Control::connect(path)?.status()?;
    if as_json {
        json(&status);
    } else {
        print!("{}", status::render(&status, calls));
    }
    Ok(())
}

fn events(path: &Path, as_json: bool, follow: bool, since: u64) -> Result<(), Failure> {
    let each = |event: Event| {
        if as_json {
            println!("{}", serde_json::to_string(&event).expect("an event is plain"));
        } else {
            println!("{}", line(&event));
        }
        true
    };
    Ok(Control::connect(path)?.events(since, follow, each)?)
}

/// An event for people: when (UTC), what, whom it is about.
fn line(event: &Event) -> String {
    let seconds = event.time / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let vm = event.vm.as_deref().unwrap_or("-");
    let session = event.session.map_or_else(String::new, |session| format!(" #{session}"));
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03} {:<13} {vm}{session}: {}",
        seconds % 60,
        event.time % 1000,
        event.kind,
        event.text
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            number: 1,
            time: 3_723_004,
            kind: "vm".into(),
            vm: Some("red".into()),
            session: Some(3),
            text: "weight: 1 -> 2".into(),
        };
        assert_eq!(line(&event), "01:02:03.004 vm            red #3: weight: 1 -> 2");
    }
}
