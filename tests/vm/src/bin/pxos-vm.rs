//! Runs the scenarios of real guests on a machine without a toolchain: what `tests/vm/gpu.sh` packs and starts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

use clap::{Parser, Subcommand};
use pxos_harness::{Fixture, driver_under_test};
use pxos_vm::{Plan, payload, scenario};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Real guests against one pxos-server
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Packs shim and programs, with their libraries, for guests
    Payload {
        /// The archive
        out: PathBuf,
    },
    /// Boots two guests and runs programs in both; PXOS_TEST_DRIVER names the driver
    TwoGuests,
    /// Boots one guest beside a server and runs commands of its shell
    Run {
        /// The commands
        commands: Vec<String>,
    },
}

/// Memory that the guest of `run` shares.
const MEMORY: u64 = 256 << 20;

fn stage() -> Option<scenario::Stage> {
    scenario::Stage::set().map_err(|error| eprintln!("pxos-vm: {error}")).ok()
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Payload { out } => {
            if let Err(error) = payload::build(&scenario::files(), &out) {
                eprintln!("pxos-vm: {}: {error}", out.display());
                return ExitCode::FAILURE;
            }
        }
        Command::Run { commands } => {
            let Some(stage) = stage() else { return ExitCode::FAILURE };
            let memory = stage.memory("red", MEMORY);
            let server = Fixture::new()
                .arg(&stage.listen("red"))
                .arg(&format!("--shared=red={}", memory.display()))
                .start();
            let vm = stage.boot(Plan { shared: Some((memory, MEMORY)), ..Plan::new("red", 3) });
            println!("up after {} s", vm.wait_up());
            for command in commands {
                let ran = vm.run(&command);
                println!("$ {command}\n{}[{}]", ran.output, ran.status);
            }
            vm.power_off();
            print!("{}", server.log());
        }
        Command::TwoGuests => {
            let Some(stage) = stage() else { return ExitCode::FAILURE };
            let start = Instant::now();
            // A failure panics, with its reason, and so ends with another status.
            scenario::two_guests(&stage, driver_under_test());
            println!(
                "two guests ({}), {} programs each, on driver {}: good, {:.1} s",
                stage.parts.accel,
                scenario::PROGRAMS.len(),
                driver_under_test().argument(),
                start.elapsed().as_secs_f64()
            );
        }
    }
    ExitCode::SUCCESS
}
