//! The table, of at most 80 columns, and the JSON file.

use super::Row;
use super::guests::Setting;
use super::verdict::Verdict;
use crate::Error;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Before the first row.
pub(crate) fn head(out: &mut impl Write, setting: &Setting) -> io::Result<()> {
    let device = if setting.soft { "softgpu with a model of time" } else { "this machine's GPU" };
    writeln!(out, "How guests share {device}; all in per cent but p50 and p99, in microseconds\n")?;
    writeln!(
        out,
        "{:<24} {:<8} {:<16} {:>6} {:>5} {:>6} {:>5}",
        "case", "way", "shares", "err 1s", "err", "Jain", "sum"
    )
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value * 100.0))
}

/// One row.
pub(crate) fn line(out: &mut impl Write, row: &Row) -> io::Result<()> {
    let outcome = &row.outcome;
    if let (Some(p50), Some(p99)) = (outcome.p50, outcome.p99) {
        let of_device = |what: &str, part: &f64| format!(", {what} {:.1}", part * 100.0);
        let beside = outcome.sum.iter().map(|sum| of_device("the other", sum));
        let own = outcome.shares.iter().map(|part| of_device("got", part));
        let beside: String = beside.chain(own).collect();
        return writeln!(
            out,
            "{:<24} {:<8} p50 {p50:.0}, p99 {p99:.0} of {}{beside}",
            row.case, row.way, outcome.count
        );
    }
    let shares: Vec<String> =
        outcome.shares.iter().take(4).map(|share| format!("{:.0}", share * 100.0)).collect();
    let more = if outcome.shares.len() > 4 { "…" } else { "" };
    let jain = outcome.jain.map_or_else(|| "-".to_owned(), |jain| format!("{jain:.4}"));
    writeln!(
        out,
        "{:<24} {:<8} {:<16} {:>6} {:>5} {jain:>6} {:>5}",
        row.case,
        row.way,
        shares.join(" ") + more,
        percent(outcome.error_second),
        percent(outcome.error),
        percent(outcome.sum)
    )
}

/// What the rows say together.
pub(crate) fn summary(out: &mut impl Write, verdicts: &[Verdict]) -> io::Result<()> {
    writeln!(out)?;
    for verdict in verdicts {
        let word = if verdict.holds { "holds" } else { "missed" };
        writeln!(out, "{word:<7} {}: {}", verdict.what, verdict.measured)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct File<'a> {
    software: bool,
    iterations_per_microsecond: &'a str,
    rows: &'a [Row],
    verdicts: &'a [Verdict],
}

/// Writes everything.
pub(crate) fn json(path: &Path, setting: &Setting, rows: &[Row], verdicts: &[Verdict]) -> Result<(), Error> {
    let file =
        File { software: setting.soft, iterations_per_microsecond: &setting.iterations, rows, verdicts };
    let text = serde_json::to_string_pretty(&file).expect("numbers and text");
    fs::write(path, text + "\n").map_err(Error::io(path.display().to_string()))
}
