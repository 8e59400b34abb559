//! Shows the results: a table of at most 80 columns, and a JSON file with everything.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::cli::Mode;
use crate::compare::Verdict;
use crate::run::{End, Outcome};
use crate::scratch::Written;
use crate::suite::SampleResult;

/// Width of the table and of the lines below it.
const WIDTH: usize = 80;
/// Width of the first column.
const NAME: usize = 30;
/// Of an output stream at most this many bytes go into the JSON file.
const JSON_TEXT: usize = 64 << 10;

/// Writes the table, the reasons of all verdicts that are worse, and the totals.
pub(crate) fn table(out: &mut impl Write, mode: Mode, results: &[SampleResult]) -> io::Result<()> {
    writeln!(
        out,
        "{:<NAME$} {:>5} {:>6} {:>8} {:>8} {:>6}  verdict",
        "sample", "exit", "remote", "direct s", "remote s", "ratio"
    )?;
    for result in results {
        let end = |run: &Option<Outcome>| run.as_ref().map_or_else(|| "-".to_owned(), |run| run.end.short());
        let wall = |run: &Option<Outcome>| {
            run.as_ref().map_or_else(|| "-".to_owned(), |run| format!("{:.3}", run.wall))
        };
        let line = format!(
            "{:<NAME$} {:>5} {:>6} {:>8} {:>8} {:>6}  {}",
            shorten(&result.title, NAME),
            end(&result.direct),
            end(&result.remote),
            wall(&result.direct),
            wall(&result.remote),
            result.ratio().map_or_else(
                || "-".to_owned(),
                |ratio| if ratio < 1000.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
            ),
            result.verdict.short()
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    for result in results.iter().filter(|result| result.verdict.is_worse()) {
        writeln!(out, "\n{}: {}", result.title, result.verdict.short())?;
        if let Some(detail) = &result.detail {
            writeln!(out, "    {}", shorten(detail, 4 * WIDTH))?;
        }
        let shown = result.remote.as_ref().or(result.direct.as_ref());
        for stream in shown.iter().flat_map(|run| [("stdout", &run.stdout), ("stderr", &run.stderr)]) {
            let text = String::from_utf8_lossy(stream.1);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(3)..] {
                writeln!(out, "    {}: {}", stream.0, shorten(line, WIDTH - 12))?;
            }
        }
    }
    let totals = totals(results);
    let parts: Vec<String> = totals.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    writeln!(out, "\n{} samples, {}: {}", results.len(), mode_name(mode), parts.join(", "))?;
    if let Some(mean) = mean_ratio(results) {
        writeln!(out, "remoted over direct, geometric mean of wall times: {mean:.2}")?;
    }
    Ok(())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Direct => "direct",
        Mode::Remote => "remoted",
        Mode::Both => "direct and remoted",
    }
}

fn totals(results: &[SampleResult]) -> BTreeMap<&'static str, usize> {
    let mut totals = BTreeMap::new();
    for result in results {
        *totals.entry(result.verdict.short()).or_insert(0) += 1;
    }
    totals
}

/// The geometric mean of the ratios of samples that succeeded both ways.
fn mean_ratio(results: &[SampleResult]) -> Option<f64> {
    let succeeded = |run: &Option<Outcome>| run.as_ref().is_some_and(|run| run.end.is_success());
    let (mut sum, mut count) = (0.0, 0.0);
    for ratio in results
        .iter()
        .filter(|r| succeeded(&r.direct) && succeeded(&r.remote))
        .filter_map(SampleResult::ratio)
    {
        sum += ratio.ln();
        count += 1.0;
    }
    (count > 0.0).then(|| (sum / count).exp())
}

/// At most `width` characters; the end of a text that is too long is replaced by `…`.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    mode: Mode,
    worse: usize,
    totals: BTreeMap<&'static str, usize>,
    mean_ratio: Option<f64>,
    samples: Vec<SampleReport<'a>>,
}

#[derive(Serialize)]
struct SampleReport<'a> {
    name: &'a str,
    args: &'a [String],
    verdict: Verdict,
    worse: bool,
    detail: Option<&'a str>,
    ratio: Option<f64>,
    direct: Option<RunReport<'a>>,
    remote: Option<RunReport<'a>>,
}

#[derive(Serialize)]
struct RunReport<'a> {
    end: &'a End,
    wall_s: f64,
    stdout: String,
    stderr: String,
    written: &'a BTreeMap<String, Written>,
}

impl<'a> RunReport<'a> {
    fn new(run: &'a Outcome) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(JSON_TEXT)]).into_owned();
        Self {
            end: &run.end,
            wall_s: run.wall,
            stdout: text(&run.stdout),
            stderr: text(&run.stderr),
            written: &run.written,
        }
    }
}

/// Writes the JSON report.
pub(crate) fn json(path: &Path, mode: Mode, results: &[SampleResult]) -> Result<(), Error> {
    let report = Report {
        version: 1,
        mode,
        worse: results.iter().filter(|result| result.verdict.is_worse()).count(),
        totals: totals(results),
        mean_ratio: mean_ratio(results),
        samples: results
            .iter()
            .map(|result| SampleReport {
                name: &result.name,
                args: &result.args,
                verdict: result.verdict,
                worse: result.verdict.is_worse(),
                detail: result.detail.as_deref(),
                ratio: result.ratio(),
                direct: result.direct.as_ref().map(RunReport::new),
                remote: result.remote.as_ref().map(RunReport::new),
            })
            .collect(),
    };
    let mut text =
        serde_json::to_string_pretty(&report).expect("the report has string keys and finite numbers");
    text.push('\n');
    fs::write(path, text).map_err(Error::io(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: End, wall: f64) -> Outcome {
        Outcome {
            end,
            wall,
            stdout: b"last words\n".to_vec(),
            stderr: vec![],
            written: BTreeMap::new(),
            scratch: String::new(),
        }
    }

    fn results() -> Vec<SampleResult> {
        let result = |title: &str, direct: End, remote: Option<End>, verdict| SampleResult {
            title: title.into(),
            name: title.into(),
            args: vec![],
            direct: Some(outcome(direct, 0.5)),
            remote: remote.map(|end| outcome(end, 1.0)),
            verdict,
            detail: Some("a reason that is long ".repeat(30)),
        };
        vec![
            result("short", End::Exit(0), Some(End::Exit(0)), Verdict::Same),
            result(
                "a_very_long_folder_name/and_a_long_sample_name --with arguments",
                End::Exit(0),
                Some(End::Signal(11)),
                Verdict::WorseExit,
            ),
            result("other", End::TimedOut, Some(End::TimedOut), Verdict::FailsBoth),
        ]
    }

    #[test]
    fn the_table_fits_into_80_columns() {
        let mut out = Vec::new();
        table(&mut out, Mode::Both, &results()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().take(4).collect();
        assert!(rows.iter().all(|row| row.chars().count() <= WIDTH), "{text}");
        assert!(rows[1].ends_with("0.500    1.000   2.00  same"), "{text}");
        assert!(rows[2].contains("sig11") && rows[2].ends_with("EXIT"), "{text}");
        assert!(text.contains("3 samples, direct and remoted: 1 EXIT, 1 fails both, 1 same"), "{text}");
        assert!(text.contains("geometric mean of wall times: 2.00"), "{text}");
        assert!(text.contains("stdout: last words"), "{text}");
    }

    #[test]
    fn the_json_report_says_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        json(&path, Mode::Both, &results()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["worse"], 1);
        assert_eq!(value["samples"][0]["verdict"], "same");
        assert_eq!(value["samples"][0]["ratio"], 2.0);
        assert_eq!(value["samples"][1]["remote"]["end"]["signal"], 11);
        assert_eq!(value["samples"][2]["direct"]["end"], "timed_out");
        assert_eq!(value["samples"][0]["direct"]["stdout"], "last words\n");
    }
}
