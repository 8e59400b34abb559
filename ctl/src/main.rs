//! pxctl: what a pxOS server is doing, an end to a session, and a doctor for both sides.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

mod control;
mod doctor;
mod mux;
mod primitive;
mod probe;
mod status;
mod units;

use clap::{Parser, Subcommand};
use control::Control;
use pxos_protocol::admin::{Answer, DEFAULT_CONTROL, Request};
use pxos_protocol::endpoint::Endpoint;
use std::path::PathBuf;
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

fn main() -> ExitCode {
    // As other programs of the command line: `pxctl status | head` ends quietly.
    // SAFETY: nothing else runs yet; the default action is a valid handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args = Args::parse();
    let result = match args.command {
        Command::Primitive { command } => return told(primitive::execute(command)),
        Command::GpuTest { command } => return told(primitive::gpu_test(&command)),
        Command::Status { json, calls } => show_status(&args.control, json, calls),
        Command::Kill { session } => kill(&args.control, session),
        Command::Doctor { json, server } => Ok(doctor::run(&args.control, server, json)),
        Command::GuestMux { port, listen, mode } => return mux::run(port, &listen, mode),
        Command::OpenLibrary { init, library } => Ok(doctor::library::answer(&library, init)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("pxctl: {error}");
        ExitCode::FAILURE
    })
}

fn told(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("pxctl: {error}");
        ExitCode::FAILURE
    })
}

fn show_status(path: &std::path::Path, json: bool, calls: bool) -> Result<ExitCode, control::ControlError> {
    let status = Control::connect(path)?.status()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status).expect("a status has string keys only"));
    } else {
        print!("{}", status::render(&status, calls));
    }
    Ok(ExitCode::SUCCESS)
}

fn kill(path: &std::path::Path, id: u64) -> Result<ExitCode, control::ControlError> {
    if let Answer::Done(done) = Control::connect(path)?.ask(&Request::Kill { id })? {
        println!("{done}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
