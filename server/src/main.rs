//! pxos-server: arguments, configuration, log, and then the daemon; or, where the daemon started it, a worker.

use pxos_server::args::{Mode, parse};
use pxos_server::background::{self, PidFile, Side, Waiting};
use pxos_server::config::{Config, LogOutput, SYSLOG, Sources};
use pxos_server::daemon::BAD_CONFIGURATION;
use pxos_server::{daemon, log, worker};
use std::path::Path;
use std::process::ExitCode;

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
    let (sources, only_check, daemonize, pid_file) = match mode {
        Mode::Worker { start, log } => {
            return match log::init(&log) {
                Ok(()) => worker::run(start),
                Err(_) => ExitCode::FAILURE, // its log is stderr, which cannot fail to be opened
            };
        }
        Mode::Daemon { sources, only_check, daemonize, pid_file } => {
            (sources, only_check, daemonize, pid_file)
        }
    };
    match Config::load(&sources) {
        Ok(config) if only_check => {
            if let Err(problem) = daemon::check(&config) {
                eprintln!("{problem}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
            let read =
                config.file.as_ref().map_or_else(|| "no file".into(), |file| file.display().to_string());
            println!("the configuration is good ({read})");
            ExitCode::SUCCESS
        }
        Ok(config) if !daemonize => run(config, &sources, pid_file.as_deref(), None),
        Ok(mut config) => {
            // Nobody reads the background's stderr.
            if config.log.output == LogOutput::Stderr {
                config.log.output = LogOutput::Syslog(SYSLOG.into());
            }
            // SAFETY: nothing has started a thread yet.
            match unsafe { background::enter() } {
                Ok(Side::Starter(true)) => ExitCode::SUCCESS,
                Ok(Side::Starter(false)) => {
                    eprintln!("pxos-server: it did not start; its log ({}) says why", config.log.output);
                    ExitCode::FAILURE
                }
                Ok(Side::Daemon(waiting)) => run(config, &sources, pid_file.as_deref(), Some(waiting)),
                Err(error) => {
                    eprintln!("pxos-server: it cannot go into the background: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// The daemon, in the background where somebody waits for it there.
#[expect(clippy::print_stderr, reason = "without a log there is nowhere else to say it")]
fn run(config: Config, sources: &Sources, pid_file: Option<&Path>, mut waiting: Option<Waiting>) -> ExitCode {
    let begun = log::init(&config.log)
        .map_err(|error| format!("the log {} cannot be opened: {error}", config.log.output))
        .and_then(|()| {
            let written = pid_file.map(|path| {
                PidFile::write(path).map_err(|error| format!("{} cannot be written: {error}", path.display()))
            });
            written.transpose()
        });
    match begun {
        // The file goes before who waits hears of the end.
        Ok(_pid_file) => daemon::run(config, sources, &mut waiting),
        Err(message) => {
            eprintln!("pxos-server: {message}");
            ExitCode::FAILURE
        }
    }
}
