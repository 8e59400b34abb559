//! pxos-server: arguments, configuration, log, and then the daemon; or, where the daemon started it, a worker.

use pxos_server::args::{Mode, parse};
use pxos_server::config::Config;
use pxos_server::{daemon, log, worker};
use std::process::ExitCode;

/// The configuration is wrong (`EX_CONFIG` of sysexits.h): starting again does not help.
const BAD_CONFIGURATION: u8 = 78;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "answers to the command line; the log is not open yet"
)]
fn main() -> ExitCode {
    let mode = match parse() {
        Ok(mode) => mode,
        Err(message) => {
            eprintln!("pxos-server: {message}");
            return ExitCode::FAILURE;
        }
    };
    let (sources, only_check) = match mode {
        Mode::Worker { start, log } => {
            log::init(log);
            return worker::run(start);
        }
        Mode::Daemon { sources, only_check } => (sources, only_check),
    };
    match Config::load(&sources) {
        Ok(config) if only_check => {
            let read =
                config.file.as_ref().map_or_else(|| "no file".into(), |file| file.display().to_string());
            println!("the configuration is good ({read})");
            ExitCode::SUCCESS
        }
        Ok(config) => {
            log::init(config.log);
            daemon::run(config, &sources)
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}
