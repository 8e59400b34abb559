//! What is wrong with a text, where, what was expected there, and what to do about it.

use std::fmt::Write as _;

use serde::Serialize;

/// A stretch of one line; lines and columns count from one, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Span {
    /// Line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Columns covered, at least one.
    pub length: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`; stays on the line of `self`.
    pub(crate) fn to(self, other: Self) -> Self {
        if other.line != self.line || other.column < self.column {
            return self;
        }
        Self { length: other.column + other.length - self.column, ..self }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The program is refused.
    Error,
    /// The program runs, but probably slower than it could, or not as meant.
    Warning,
}

/// One finding about a program text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A short name that never changes, such as `unknown-name`.
    pub code: &'static str,
    /// What is wrong, with the names and values.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// What could have stood there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            expected: Vec::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    #[must_use]
    pub(crate) fn expected(mut self, expected: &[&str]) -> Self {
        self.expected = expected.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The finding for a terminal: message, the line of `text`, a caret under it, expectation and hint.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Span { line, mut column, mut length } = self.span;
        let mut out = format!("{file}:{line}:{column}: {kind}: {} [{}]\n", self.message, self.code);
        if let Some(source) = text.lines().nth(line.saturating_sub(1) as usize) {
            if (column, length) == (1, 1) && source.starts_with(char::is_whitespace) {
                // The finding is about the line, and what stands there begins further on.
                let blanks = source.chars().take_while(|c| c.is_whitespace()).count();
                column = u32::try_from(blanks).unwrap_or(0).saturating_add(1);
                length = u32::try_from(source.trim().chars().count()).unwrap_or(1);
            }
            // A line of a megabyte is not shown in full.
            let start = (column as usize).saturating_sub(60);
            let shown: String =
                source.chars().skip(start).take(100).map(|c| if c == '\t' { ' ' } else { c }).collect();
            let indent = (column as usize).saturating_sub(1 + start);
            let carets = (length as usize).clamp(1, 100usize.saturating_sub(indent).max(1));
            let _ = writeln!(out, "{line:>5} | {shown}");
            let _ = writeln!(out, "      | {}{}", " ".repeat(indent), "^".repeat(carets));
        }
        if !self.expected.is_empty() {
            let _ = writeln!(out, "      = expected {}", self.expected.join(" or "));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "      = hint: {hint}");
        }
        out
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}:{}: {}", self.span.line, self.span.column, self.message)
    }
}

/// Diagnostics as one JSON array, for editors: `severity`, `code`, `message`, `line`, `column`, `length`, and
/// `expected` and `hint` where there are any.
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> String {
    serde_json::to_string_pretty(diagnostics).expect("plain data has a JSON form")
}

/// Collects findings up to a limit.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    list: Vec<Diagnostic>,
    limit: usize,
    left_out: usize,
    errors: usize,
}

impl Diagnostics {
    pub(crate) fn new(limit: usize) -> Self {
        Self { list: Vec::new(), limit, left_out: 0, errors: 0 }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        // One place is reported once: what follows from a mistake is not a second one.
        if self
            .list
            .iter()
            .rev()
            .take(8)
            .any(|d| d.span == diagnostic.span && d.severity == diagnostic.severity)
        {
            return;
        }
        if self.list.len() < self.limit {
            self.list.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether so much is wrong that looking further would only cost time.
    pub(crate) fn full(&self) -> bool {
        self.left_out > 0
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| (d.span.line, d.span.column));
        if self.left_out > 0 {
            let span = self.list.last().map_or_else(Span::default, |d| d.span);
            self.list.push(Diagnostic::error(
                "too-many-errors",
                span,
                format!("the program was left here: it has more than {} errors", self.limit),
            ));
        }
        self.list
    }
}

/// The word of `words` that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    words
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let found = Diagnostic::error("x", Span { line: 2, column: 6, length: 3 }, "no").hint("do");
        let text = found.render("f.px", "a\nLOAD abc → d\n");
        assert!(text.contains("    2 | LOAD abc → d\n      |      ^^^\n"), "{text}");
        assert!(text.contains("hint: do"));
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        assert_eq!(nearest("LAOD", ["LOAD", "STORE"]), Some("LOAD"));
        assert_eq!(nearest("COMPRESS", ["LOAD", "STORE"]), None);
    }
}
