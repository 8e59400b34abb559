//! `pxos-samples`: runs built CUDA programs directly and remoted, and compares what they do.
//!
//! The flow is `cli` → `discover` (which programs) → `settings` (with which arguments) → `suite` (runs them; `server`
//! starts a server of its own if asked; `scratch` gives each run its own copy of the program's folder; `run` starts
//! one process) → `compare` (a verdict per sample, with `mask` and `varying` for what may differ) → `record` (JSON,
//! after every sample) → `report` (the table).
//! The exit code is 0 if no verdict is worse than direct, 1 if one is, 2 if the runner itself could not work, 3 if
//! samples are left because `--budget` was used up.

#![deny(unsafe_code)]

mod cli;
mod compare;
mod discover;
mod mask;
mod record;
mod report;
mod run;
mod scratch;
mod server;
mod settings;
mod suite;
mod varying;

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
        Ok(code) => code,
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "pxos-samples: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the command line asks.
fn start(cli: &cli::Cli) -> Result<ExitCode, Error> {
    let mut out = io::stdout().lock();
    let written = Error::io("standard output");
    if cli.list_masks {
        return mask::describe(&mut out).map_err(written).map(|()| ExitCode::SUCCESS);
    }
    if let (Some(report), Some(path)) = (&cli.note_varying, &cli.varying) {
        let mut list = varying::Varying::read(path)?;
        let added = list.add(&record::Report::read(report)?);
        list.write(path)?;
        return writeln!(out, "{added} added").map_err(written).map(|()| ExitCode::SUCCESS);
    }
    let samples = suite::select(cli)?;
    if cli.list {
        for sample in &samples {
            writeln!(out, "{}", sample.title()).map_err(Error::io("standard output"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let suite::Results { records, left } = suite::run(cli, &samples)?;
    report::table(&mut out, cli.mode, &records).map_err(Error::io("standard output"))?;
    if left > 0 {
        writeln!(out, "{left} samples were not started in time; go on with --resume").map_err(written)?;
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::from(u8::from(records.iter().any(|record| record.worse))))
}
