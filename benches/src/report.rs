//! Shows what was measured: a table of at most 80 columns, and a JSON file with every value.

use crate::Error;
use crate::figures::{Figure, Run, Unit};
use crate::targets::{Limit, TARGETS, Target};
use crate::ways::Name;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Width of the first column.
const NAME: usize = 24;

/// Writes the table.
pub(crate) fn table(out: &mut impl Write, run: &Run) -> io::Result<()> {
    let kind = if run.software { "a software device" } else { "GPU" };
    writeln!(
        out,
        "{} ({kind}), {} processors, medians of {} rounds",
        run.device, run.processors, run.rounds
    )?;
    writeln!(
        out,
        "{:<NAME$} {:>9} {:>9} {:>6} {:>7} {:>8}",
        "figure", "native", "remoted", "ratio", "socket", "target"
    )?;
    for figure in &run.figures {
        let value =
            |way| figure.median(way).map_or_else(|| "-".to_owned(), |value| shown(value, figure.unit));
        let (target, mark) = aim(figure, Name::Remoted);
        let line = format!(
            "{:<NAME$} {:>9} {:>9} {:>6} {:>7} {target:>8} {mark}",
            figure.name,
            value(Name::Native),
            value(Name::Remoted),
            ratio(figure, Name::Remoted),
            ratio(figure, Name::Socket)
        );
        writeln!(out, "{}", line.trim_end())?;
        let (target, mark) = aim(figure, Name::Socket);
        if figure.median(Name::Socket).is_some() && !(target.is_empty() && mark.is_empty()) {
            let line = format!(
                "{:<NAME$} {:>35} {target:>8} {mark}",
                "  over the socket",
                ratio(figure, Name::Socket)
            );
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    let judged: Vec<bool> = run
        .figures
        .iter()
        .flat_map(|figure| {
            [Name::Remoted, Name::Socket].map(|way| figure.target(way).and_then(|(_, met)| met))
        })
        .flatten()
        .collect();
    let hits = judged.iter().filter(|met| **met).count();
    writeln!(out, "\nratio: remoted / native, less is better. Targets: {hits} of {} hit.", judged.len())?;
    if run.software {
        writeln!(out, "Most targets are for a GPU and say nothing about this device.")?;
    }
    Ok(())
}

/// Target and mark.
fn aim(figure: &Figure, way: Name) -> (String, String) {
    let grown = figure.grown.get(&way).map(|times| format!("x{times:.1}"));
    let Some((target, met)) = figure.target(way) else { return (String::new(), grown.unwrap_or_default()) };
    let mark = match met {
        Some(true) => "hit",
        Some(false) => "MISS",
        None => "",
    };
    (limit(target, figure.unit), grown.unwrap_or_else(|| mark.to_owned()))
}

fn limit(target: &Target, unit: Unit) -> String {
    match target.limit {
        Limit::Ratio(most) => format!("<={most:.2}"),
        Limit::Adds(most) => format!("+{}", shown(most, unit)),
        Limit::Value(most) => format!("<={}", shown(most, unit)),
    }
}

fn ratio(figure: &Figure, way: Name) -> String {
    match (figure.unit, figure.ratio(way)) {
        (Unit::Microseconds, Some(ratio)) if ratio < 100.0 => format!("{ratio:.2}"),
        (Unit::Microseconds, Some(ratio)) => format!("{ratio:.0}"),
        _ => "-".to_owned(),
    }
}

/// Three digits and a unit.
fn shown(value: f64, unit: Unit) -> String {
    if unit == Unit::Percent {
        return format!("{value:.2} %");
    }
    let (value, unit) = match value {
        _ if value < 1.0 => (value * 1e3, "ns"),
        _ if value < 1e3 => (value, "us"),
        _ if value < 1e6 => (value / 1e3, "ms"),
        _ => (value / 1e6, "s"),
    };
    match value {
        _ if value < 9.995 => format!("{value:.2} {unit}"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// Writes the targets.
pub(crate) fn targets(out: &mut impl Write) -> io::Result<()> {
    for target in TARGETS {
        let unit = if matches!(target.limit, Limit::Value(_)) { Unit::Percent } else { Unit::Microseconds };
        let socket = if target.way == Name::Socket { " (socket)" } else { "" };
        writeln!(
            out,
            "{:<33} {:>9}  {}",
            format!("{}{socket}", target.figure),
            limit(target, unit),
            target.reason
        )?;
    }
    Ok(())
}

/// A figure in the JSON file: its samples, and what follows from them for people who read it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    ratio: Option<f64>,
    socket_ratio: Option<f64>,
    target_met: Option<bool>,
    socket_target_met: Option<bool>,
}

/// Writes everything.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn json(path: &Path, run: &Run) -> Result<(), Error> {
    let figures: Vec<Shown<'_>> = run
        .figures
        .iter()
        .map(|figure| Shown {
            figure,
            ratio: figure.ratio(Name::Remoted),
            socket_ratio: figure.ratio(Name::Socket),
            target_met: figure.target(Name::Remoted).and_then(|(_, met)| met),
            socket_target_met: figure.target(Name::Socket).and_then(|(_, met)| met),
        })
        .collect();
    let value = serde_json::json!({
        "device": run.device,
        "software": run.software,
        "rounds": run.rounds,
        "processors": run.processors,
        "figures": figures,
    });
    let text = serde_json::to_string_pretty(&value).map_err(|error| Error::Usage(error.to_string()))?;
    fs::write(path, text + "\n").map_err(Error::io(path.display().to_string()))
}

/// Reads what [`json`] wrote.
///
/// # Errors
/// Where the file is no such file.
pub(crate) fn read(path: &Path) -> Result<Run, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(path.display().to_string()))?;
    serde_json::from_str(&text).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::run;

    #[test]
    fn the_table_fits_a_terminal_and_says_hit_or_miss() {
        let mut measured = run("launch_issue", &[2.0], &[0.2], false);
        measured.add("event_query", Unit::Microseconds, Name::Native, 1.0);
        measured.add("event_query", Unit::Microseconds, Name::Remoted, 13.3);
        for (way, value) in [(Name::Native, 29e3), (Name::Remoted, 9e3), (Name::Socket, 54e3)] {
            measured.add("h2d_pageable_256MiB", Unit::Microseconds, way, value);
        }
        measured.add("idle_100", Unit::Percent, Name::Remoted, 0.4);
        let mut text = Vec::new();
        table(&mut text, &measured).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("launch_issue").ends_with("<=0.30 hit"), "{text}");
        assert!(line("event_query").ends_with("<=1.00 MISS"), "{text}");
        assert!(line("  over the socket").ends_with("1.86   <=2.50 hit"), "{text}");
        assert!(line("idle_100").ends_with("hit"), "{text}");
        assert!(text.contains("4 of 5 hit"), "{text}");
    }

    #[test]
    fn times_have_three_digits() {
        for (value, text) in [
            (0.0634, "63.4 ns"),
            (0.634, "634 ns"),
            (9.999, "10.0 us"),
            (1234.0, "1.23 ms"),
            (4.5e6, "4.50 s"),
        ] {
            assert_eq!(shown(value, Unit::Microseconds), text);
        }
        assert_eq!(shown(0.4, Unit::Percent), "0.40 %");
    }

    #[test]
    fn a_file_comes_back_as_written() {
        let measured = run("launch_issue", &[2.0, 3.0], &[0.2, 0.1], false);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        json(&path, &measured).unwrap();
        assert_eq!(read(&path).unwrap(), measured);
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn every_target_is_listed() {
        let mut text = Vec::new();
        targets(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap().lines().count(), TARGETS.len());
    }
}
