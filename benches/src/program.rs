//! What the benchmark program prints: `name value unit`, one figure a line.

use crate::Error;
use std::path::Path;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Name of the figure.
    pub(crate) name: String,
    /// Microseconds.
    pub(crate) value: f64,
}

/// Reads every line of `text`.
///
/// # Errors
/// Where a line is none of the program's, or a value is not a time.
pub(crate) fn parse(program: &Path, text: &str) -> Result<Vec<Line>, Error> {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| parse_line(program, line)).collect()
}

/// Reads one line.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_line(program: &Path, line: &str) -> Result<Line, Error> {
    let wrong = || Error::program(program, format!("it printed '{line}', not 'name value us'"));
    let mut words = line.split_ascii_whitespace();
    let (Some(name), Some(value), Some("us"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let value =
        value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0).ok_or_else(wrong)?;
    Ok(Line { name: name.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_figures_or_errors() {
        let program = Path::new("pxbench");
        let lines = parse(program, "first_kernel 1.5e+06 us\n\nlaunch_issue 0.25 us\n").unwrap();
        assert_eq!(lines[0], Line { name: "first_kernel".into(), value: 1_500_000.0 });
        assert_eq!(lines[1].name, "launch_issue");
        for wrong in ["launch_issue", "a b us", "a 1 ms", "a 1 us more", "a nan us", "a -1 us"] {
            assert!(parse(program, wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
