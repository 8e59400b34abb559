//! `pxos-bench fairness`: how several guests share a device, by `leasefq`, by `fifo`, and as plain processes.
//!
//! Every way runs the same program (`benches/pxshare.cu`) for the same time. A guest's kernels are work of a length that is
//! calibrated alone, natively, at the beginning; what a guest gets is the length of the kernels that it completes. The flow
//! is [`cases`] (what is run) → [`guests`] (servers and processes) → [`results`] (what their lines say) → [`report`].

mod cases;
mod guests;
mod report;
mod results;
mod verdict;

use crate::Error;
use cases::Case;
use guests::{Setting, Way};
use results::Outcome;
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The command line of `pxos-bench fairness`.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// The guest program (out/benches/pxshare).
    program: PathBuf,
    /// The folder with pxos-server, libpxshim.so and libpxsoft.so.
    #[arg(long, value_name = "FOLDER")]
    bin: PathBuf,
    /// Run on softgpu, with its model of time, rather than on this machine's GPU.
    #[arg(long)]
    soft: bool,
    /// Fewer cases, for less time.
    #[arg(long)]
    quick: bool,
    /// What a good guest gets beside bad ones, and nothing else.
    #[arg(long)]
    neighbours: bool,
    /// Begin no further case after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// Only cases whose name contains this; repeat for more.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Seconds that are measured of each case, at least 2; one more is spent before.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..))]
    seconds: Option<u32>,
    /// Write everything that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A further argument for the servers; repeat for more.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    server_arg: Vec<String>,
}

/// One case, one way.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    way: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Measures everything; whether all of it could be.
pub(crate) fn run(asked: &Asked) -> Result<bool, Error> {
    let begun = Instant::now();
    let setting = Setting::new(asked)?;
    let seconds = asked.seconds.unwrap_or(3);
    let cases = if asked.neighbours { cases::neighbours() } else { cases::all(asked.quick) };
    let is_late = || asked.within.is_some_and(|within| begun.elapsed() > Duration::from_secs(within));
    let wanted =
        |case: &Case| asked.only.is_empty() || asked.only.iter().any(|text| case.name.contains(text));
    let mut rows = Vec::new();
    let mut complete = true;
    let mut out = io::stdout().lock();
    let failed = || Error::io("standard output");
    report::head(&mut out, &setting).map_err(failed())?;
    // What is measured for its own sake comes first; what it is compared with may be left out where time is short.
    for way in [Way::LeaseFq, Way::Guarded, Way::Fifo, Way::Native] {
        let runs = |case: &&Case| case.ways.contains(&way) && wanted(case) && !(asked.soft && case.needs_gpu);
        if is_late() || !cases.iter().any(|case| runs(&case)) {
            continue;
        }
        let server = setting.serve(way)?;
        for case in cases.iter().filter(runs) {
            if is_late() {
                complete = false;
                writeln!(out, "{} ({}): left out, no time is left", case.name, way.name())
                    .map_err(failed())?;
                continue;
            }
            match setting.measure(server.as_ref(), case, seconds) {
                Ok(outcome) => {
                    let row = Row { case: case.name.clone(), way: way.name(), outcome };
                    report::line(&mut out, &row).map_err(failed())?;
                    rows.push(row);
                }
                Err(error) => {
                    complete = false;
                    writeln!(out, "{} ({}): {error}", case.name, way.name()).map_err(failed())?;
                }
            }
            out.flush().map_err(failed())?;
        }
        // Whatever happens to the rest, this much is kept.
        if let Some(path) = &asked.json {
            report::json(path, &setting, &rows, &verdict::all(&rows))?;
        }
    }
    report::summary(&mut out, &verdict::all(&rows)).map_err(failed())?;
    Ok(complete)
}
