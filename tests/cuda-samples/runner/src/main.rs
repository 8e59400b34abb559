//! `pxos-samples`: runs built CUDA programs directly and remoted, and compares what they do.
//!
//! The flow is `cli` → `discover` (which programs) → `settings` (with which arguments) → `suite` (runs them; `server`
//! starts a server of its own if asked; `scratch` gives each run its own copy of the program's folder; `run` starts
//! one process) → `compare` (a verdict per sample, with `mask` for what may differ) → `report` (table and JSON).
//! The exit code is 0 if no verdict is worse than direct, 1 if one is, 2 if the runner itself could not work.

#![deny(unsafe_code)]

mod cli;
mod compare;
mod discover;
mod mask;
mod report;
mod run;
mod scratch;
mod server;
mod settings;
mod suite;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

/// What stops the runner as a whole; a sample that fails is a verdict, not an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{path}: {message}")]
    Settings { path: String, message: String },
    #[error("no programs found below {0}")]
    NoSamples(String),
    #[error("{0}")]
    Usage(String),
    #[error("server: {0}")]
    Server(String),
}

impl Error {
    /// Wraps an error of the operating system with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match start(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "pxos-samples: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the command line asks; true if nothing is worse than direct.
fn start(cli: &cli::Cli) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    if cli.list_masks {
        return mask::describe(&mut out).map_err(Error::io("standard output")).map(|()| true);
    }
    let samples = suite::select(cli)?;
    if cli.list {
        for sample in &samples {
            writeln!(out, "{}", sample.title()).map_err(Error::io("standard output"))?;
        }
        return Ok(true);
    }
    let results = suite::run(cli, &samples)?;
    report::table(&mut out, cli.mode, &results).map_err(Error::io("standard output"))?;
    if let Some(path) = &cli.json {
        report::json(path, cli.mode, &results)?;
    }
    Ok(!results.iter().any(|result| result.verdict.is_worse()))
}
