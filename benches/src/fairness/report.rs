//! The table, of at most 80 columns, and the JSON file.

use super::Row;
use super::guests::Setting;
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
        let beside = outcome.sum.map_or_else(String::new, |sum| format!(", the other {:.1}", sum * 100.0));
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
pub(crate) fn summary(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let shared =
        |row: &&Row| row.way == "leasefq" && row.outcome.jain.is_some() && row.outcome.shares.len() > 1;
    let worst = |of: fn(&Row) -> Option<f64>, least: bool| {
        let values = rows.iter().filter(shared).filter_map(of);
        if least { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) }
    };
    writeln!(out)?;
    if let (Some(second), Some(whole), Some(jain)) = (
        worst(|row| row.outcome.error_second, false),
        worst(|row| row.outcome.error, false),
        worst(|row| row.outcome.jain, true),
    ) {
        writeln!(
            out,
            "leasefq, worst of all cases: {:.1} points in a second, {:.1} over the whole, Jain {jain:.4}",
            second * 100.0,
            whole * 100.0
        )?;
    }
    for fifo in rows.iter().filter(|row| row.way == "fifo" && row.case.starts_with("alone")) {
        let ours = rows.iter().find(|row| row.way == "leasefq" && row.case == fifo.case);
        if let (Some(fifo_sum), Some(sum)) = (fifo.outcome.sum, ours.and_then(|row| row.outcome.sum)) {
            writeln!(out, "{}: leasefq has {:.2} % of fifo's throughput", fifo.case, sum / fifo_sum * 100.0)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct File<'a> {
    software: bool,
    iterations_per_microsecond: &'a str,
    rows: &'a [Row],
}

/// Writes everything.
pub(crate) fn json(path: &Path, setting: &Setting, rows: &[Row]) -> Result<(), Error> {
    let file = File { software: setting.soft, iterations_per_microsecond: &setting.iterations, rows };
    let text = serde_json::to_string_pretty(&file).expect("numbers and text");
    fs::write(path, text + "\n").map_err(Error::io(path.display().to_string()))
}
