//! Shows the results as a table of at most 80 columns.

use std::io::{self, Write};

use crate::cli::Mode;
use crate::record::{Record, RunRecord, mean_ratio, totals};

/// Width of the table and of the lines below it.
const WIDTH: usize = 80;
/// Width of the first column.
const NAME: usize = 30;

/// Writes the table, the reasons of all verdicts that are worse, and the totals.
pub(crate) fn table(out: &mut impl Write, mode: Mode, results: &[Record]) -> io::Result<()> {
    writeln!(
        out,
        "{:<NAME$} {:>5} {:>6} {:>8} {:>8} {:>6}  verdict",
        "sample", "exit", "remote", "direct s", "remote s", "ratio"
    )?;
    for result in results {
        let end =
            |run: &Option<RunRecord>| run.as_ref().map_or_else(|| "-".to_owned(), |run| run.end.short());
        let wall = |run: &Option<RunRecord>| {
            run.as_ref().map_or_else(|| "-".to_owned(), |run| format!("{:.3}", run.wall_s))
        };
        let line = format!(
            "{:<NAME$} {:>5} {:>6} {:>8} {:>8} {:>6}  {}",
            shorten(&result.title(), NAME),
            end(&result.direct),
            end(&result.remote),
            wall(&result.direct),
            wall(&result.remote),
            result.ratio.map_or_else(
                || "-".to_owned(),
                |ratio| if ratio < 1000.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
            ),
            result.verdict.short()
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    for result in results.iter().filter(|result| result.worse) {
        writeln!(out, "\n{}: {}", result.title(), result.verdict.short())?;
        if let Some(detail) = &result.detail {
            writeln!(out, "    {}", shorten(detail, 4 * WIDTH))?;
        }
        let shown = result.remote.as_ref().or(result.direct.as_ref());
        for stream in shown.iter().flat_map(|run| [("stdout", &run.stdout), ("stderr", &run.stderr)]) {
            let lines: Vec<&str> = stream.1.lines().collect();
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

/// At most `width` characters; the end of a text that is too long is replaced by `…`.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::records;

    #[test]
    fn the_table_fits_into_80_columns() {
        let mut out = Vec::new();
        table(&mut out, Mode::Both, &records()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().take(4).collect();
        assert!(rows.iter().all(|row| row.chars().count() <= WIDTH), "{text}");
        assert!(rows[1].ends_with("0.500    1.000   2.00  same"), "{text}");
        assert!(rows[2].contains("sig11") && rows[2].ends_with("EXIT"), "{text}");
        assert!(text.contains("3 samples, direct and remoted: 1 EXIT, 1 fails both, 1 same"), "{text}");
        assert!(text.contains("geometric mean of wall times: 2.00"), "{text}");
        assert!(text.contains("stdout: last words"), "{text}");
    }
}
