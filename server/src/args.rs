//! The command line: the daemon's settings ([`crate::config::keys`]), and the worker mode that the daemon alone uses.

use crate::config::keys::{KEYS, command};
use crate::config::{Log, LogFormat, LogOutput, Sources};
use crate::stats::Stats;
use crate::worker::Start;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// What this process is to be.
#[derive(Debug)]
pub enum Mode {
    /// The daemon.
    Daemon {
        /// Where its settings come from.
        sources: Sources,
        /// Whether it only says if they are good.
        only_check: bool,
        /// Whether it goes into the background.
        daemonize: bool,
        /// Where its process id is to be found.
        pid_file: Option<PathBuf>,
    },
    /// A worker of the daemon that started it.
    Worker {
        /// What it starts with.
        start: Start,
        /// Its log.
        log: Log,
    },
}

/// Reads the command line and the environment. Ends the process where the command line is wrong or asks for help.
///
/// # Errors
/// In the worker mode, where the daemon's descriptors are not what they must be: one line.
pub fn parse() -> Result<Mode, String> {
    let matches = command().subcommand(worker_command()).get_matches();
    if let Some(worker) = matches.subcommand_matches("worker") {
        let start =
            start(worker).map_err(|error| format!("the worker mode is for the daemon alone: {error}"))?;
        return Ok(Mode::Worker { start, log: log(worker) });
    }
    // The background's folder is another.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let mut sources = sources(&matches);
    sources.file = absolute(sources.file);
    sources.worker_program = sources.worker_program.map(absolute);
    Ok(Mode::Daemon {
        sources,
        only_check: matches.get_flag("check-config"),
        daemonize: matches.get_flag("daemonize"),
        pid_file: matches.get_one::<String>("pidfile").map(PathBuf::from).map(absolute),
    })
}

fn sources(matches: &ArgMatches) -> Sources {
    let file = matches.get_one::<String>("config").map(PathBuf::from);
    let mut sources = Sources {
        file_is_named: file.is_some(),
        file: file.unwrap_or_else(|| pxos_protocol::admin::DEFAULT_CONFIG.into()),
        worker_program: matches.get_one::<String>("worker-program").map(PathBuf::from),
        ..Sources::default()
    };
    for key in KEYS {
        if let Some(values) = matches.get_many::<String>(key.name) {
            sources.flags.insert(key.name, values.cloned().collect());
        }
        // An empty variable is how many a unit file says "none".
        if let Some(value) = std::env::var(key.variable()).ok().filter(|value| !value.is_empty()) {
            sources.environment.insert(key.name, value);
        }
    }
    sources
}

fn worker_command() -> Command {
    let number = |name| Arg::new(name).long(name).required(true).value_parser(value_parser!(i32).range(3..));
    Command::new("worker")
        .hide(true)
        .arg(number("control-fd"))
        .arg(number("stats-fd"))
        .arg(Arg::new("driver").long("driver").required(true).value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("log-level").long("log-level").default_value("info"))
        .arg(Arg::new("log-format").long("log-format").default_value("text"))
}

fn start(matches: &ArgMatches) -> io::Result<Start> {
    let number = |name| *matches.get_one::<i32>(name).expect("clap requires it");
    let (control, stats) = (inherit(number("control-fd"))?, inherit(number("stats-fd"))?);
    let control = UnixStream::from(control);
    control.local_addr()?; // a descriptor that is no socket answers an error
    Ok(Start {
        control,
        stats: Stats::inherit(&stats)?,
        driver: matches.get_one::<PathBuf>("driver").expect("clap requires it").clone(),
    })
}

/// Takes a descriptor that the daemon left open over exec, and does not leave it open over another.
fn inherit(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a descriptor that is not open answers an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and at the start of the process nothing but the daemon's own descriptors is.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The daemon writes these itself; anything else is as if it were absent.
fn log(matches: &ArgMatches) -> Log {
    let text = |name| matches.get_one::<String>(name).map_or("", String::as_str);
    Log {
        level: text("log-level").parse().unwrap_or(tracing::Level::INFO),
        format: if text("log-format") == "json" { LogFormat::Json } else { LogFormat::Text },
        // The daemon's, whatever that is.
        output: LogOutput::Stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_reach_the_sources() {
        let matches = command()
            .subcommand(worker_command())
            .try_get_matches_from([
                "pxos-server",
                "--listen",
                "unix:/a",
                "--listen",
                "unix:/b",
                "--pool-size",
                "3",
            ])
            .unwrap();
        let sources = sources(&matches);
        assert_eq!(sources.flags["listen"], ["unix:/a", "unix:/b"]);
        assert_eq!(sources.flags["pool.size"], ["3"]);
        assert!(!sources.file_is_named);
    }

    #[test]
    fn a_worker_wants_real_descriptors() {
        let parse = |control: &str| {
            worker_command().try_get_matches_from([
                "worker",
                "--control-fd",
                control,
                "--stats-fd",
                "9999",
                "--driver",
                "x",
            ])
        };
        assert!(parse("2").is_err(), "standard error is no control socket");
        assert!(start(&parse("9998").unwrap()).is_err());
    }
}
