//! `pxos-bench`: runs one CUDA program natively and remoted in turns, and shows what remoting costs.
//!
//! `pxos-bench fairness` ([`fairness`]) measures how a device is shared. For the rest, the flow is `cli` → `server` (starts one if asked, and asks it how many workers are warm) → `suite` (rounds; each way of
//! running is a `ways::Way`) → `program` (figures that the program prints) and `several` (figures that need more than one
//! process, or a stop-watch outside it) → `figures` (medians, ratios, `targets`) → `report` (table and JSON). The exit code
//! is 0 if everything was measured, 1 if `--check` finds a target missed or a baseline left behind, 2 if something could not
//! be run.

#![deny(unsafe_code)]

mod cli;
mod fairness;
mod figures;
mod process;
mod program;
mod report;
mod server;
mod several;
mod suite;
mod targets;
mod ways;

use clap::Parser;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// What keeps a figure from being measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("server: {0}")]
    Server(String),
    #[error("{0} of the steps failed\n{1}")]
    Failures(usize, String),
    #[error("{program}: {why}")]
    Program { program: String, why: String },
}

impl Error {
    /// Wraps an error of the operating system with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// What a program did wrong.
    pub(crate) fn program(program: &Path, why: impl Into<String>) -> Self {
        Self::Program { program: program.display().to_string(), why: why.into() }
    }
}

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = match &cli.command {
        Some(cli::Command::Fairness(asked)) => fairness::run(asked),
        None => start(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "pxos-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the command line asks; false if `--check` finds something.
fn start(cli: &cli::Cli) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    if cli.targets {
        report::targets(&mut out).map_err(Error::io("standard output"))?;
        return Ok(true);
    }
    let baseline = cli.baseline.as_deref().map(report::read).transpose()?;
    let mut run = suite::run(cli)?;
    if let Some(baseline) = &baseline {
        run.compare(baseline, cli.tolerance);
    }
    report::table(&mut out, &run).map_err(Error::io("standard output"))?;
    if let Some(path) = &cli.json {
        report::json(path, &run)?;
    }
    if !run.failures.is_empty() {
        return Err(Error::Failures(run.failures.len(), run.failures.join("\n")));
    }
    Ok(!cli.check || !run.figures.iter().any(figures::Figure::is_bad))
}
