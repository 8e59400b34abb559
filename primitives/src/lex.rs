//! Text to lines of tokens: the first step, below [`crate::parse`].
//!
//! The language is made of lines; blocks are marked by indentation. A comment starts with `#` or `//`.

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// Letters of a name: what fits into a PTX symbol with a prefix and stays readable in a message.
const MAX_NAME: usize = 64;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Word(String),
    /// A whole number, and whether it ends with `u`.
    Int(u64, bool),
    /// A number with a point or an exponent, and whether it ends with `d`.
    Float(f64, bool),
    /// Text between quotes.
    Text(String),
    /// Punctuation; arrows are `->`.
    Mark(&'static str),
}

/// A token with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// Bytes in the text, for words such as file names that are made of several tokens.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A line that is not empty.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Columns of white space before it.
    pub(crate) indent: u32,
    pub(crate) tokens: Vec<Token>,
    /// The column after the last token.
    pub(crate) end: Span,
}

/// Longest first, so that `<=` is not read as `<`.
const MARKS: [&str; 30] = [
    "..", "->", "<=", ">=", "==", "!=", "<<", ">>", "&&", "||", "+", "-", "*", "/", "%", "<", ">", "=", "(",
    ")", "[", "]", ",", ":", ".", "&", "|", "^", "~", "!",
];

/// Splits a text into lines of tokens; what is no token is reported and skipped.
pub(crate) fn lines(text: &str, diagnostics: &mut Diagnostics) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut offset = 0;
    for (index, source) in text.split('\n').enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut lexer = Lexer { source, offset, number, at: 0, column: 1, tokens: Vec::new() };
        offset += source.len() + 1;
        let indent = lexer.indent();
        lexer.run(diagnostics);
        if let Some(last) = lexer.tokens.last() {
            let end = Span { line: number, column: last.span.column + last.span.length, length: 1 };
            lines.push(Line { indent, tokens: lexer.tokens, end });
        }
        if diagnostics.full() {
            break;
        }
    }
    lines
}

struct Lexer<'a> {
    source: &'a str,
    offset: usize,
    number: u32,
    at: usize,
    column: u32,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.column = self.column.saturating_add(1);
        Some(c)
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.advance();
        }
        start
    }

    /// Columns before the first character; a tab goes to the next multiple of eight.
    fn indent(&mut self) -> u32 {
        let mut columns = 0u32;
        while let Some(c) = self.peek() {
            columns = match c {
                ' ' => columns.saturating_add(1),
                '\t' => (columns / 8).saturating_add(1).saturating_mul(8),
                _ => break,
            };
            self.advance();
        }
        columns
    }

    fn push(&mut self, kind: Kind, start: usize, column: u32) {
        let length = (self.column - column).max(1);
        self.tokens.push(Token {
            kind,
            span: Span { line: self.number, column, length },
            start: self.offset + start,
            end: self.offset + self.at,
        });
    }

    fn run(&mut self, diagnostics: &mut Diagnostics) {
        while let Some(c) = self.peek() {
            let (start, column) = (self.at, self.column);
            if c.is_whitespace() || c == '\u{feff}' {
                self.advance();
            } else if c == '#' || self.rest().starts_with("//") {
                return;
            } else if c == '→' {
                self.advance();
                self.push(Kind::Mark("->"), start, column);
            } else if c.is_ascii_alphabetic() || c == '_' {
                self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                let word = self.source[start..self.at].to_owned();
                let long = word.len() > MAX_NAME;
                self.push(Kind::Word(word), start, column);
                if long {
                    let span = self.tokens.last().expect("just pushed").span;
                    diagnostics.push(Diagnostic::error(
                        "long-name",
                        span,
                        format!("a name has {} letters; at most {MAX_NAME} are allowed", span.length),
                    ));
                }
            } else if c.is_ascii_digit() {
                self.figure(start, column, diagnostics);
            } else if c == '"' {
                self.text(start, column, diagnostics);
            } else if let Some(mark) = MARKS.iter().find(|mark| self.rest().starts_with(**mark)) {
                for _ in 0..mark.len() {
                    self.advance();
                }
                self.push(Kind::Mark(mark), start, column);
            } else {
                // One report for a run of them.
                self.take_while(|c| {
                    !c.is_ascii() || !(c.is_ascii_alphanumeric() || c == ' ' || c == '"' || c == '_')
                });
                let span = Span { line: self.number, column, length: (self.column - column).max(1) };
                let shown: String = c.escape_debug().collect();
                diagnostics.push(
                    Diagnostic::error(
                        "unknown-character",
                        span,
                        format!("`{shown}` is no part of the language"),
                    )
                    .hint("names are made of A-Z, a-z, 0-9 and _; an arrow is → or ->"),
                );
                if self.at == start {
                    self.advance();
                }
            }
            if diagnostics.full() {
                return;
            }
        }
    }

    fn text(&mut self, start: usize, column: u32, diagnostics: &mut Diagnostics) {
        self.advance();
        let from = self.take_while(|c| c != '"');
        let text = self.source[from..self.at].to_owned();
        if self.advance().is_none() {
            let span = Span { line: self.number, column, length: (self.column - column).max(1) };
            diagnostics.push(
                Diagnostic::error("open-text", span, "the text has no closing quote").expected(&["\""]),
            );
        }
        self.push(Kind::Text(text), start, column);
    }

    fn figure(&mut self, start: usize, column: u32, diagnostics: &mut Diagnostics) {
        let rest = self.rest();
        let radix = match rest.as_bytes() {
            [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => 16,
            [b'0', b'b' | b'B', b'0' | b'1', ..] => 2,
            _ => 10,
        };
        let mut floating = false;
        if radix == 10 {
            self.take_while(|c| c.is_ascii_digit() || c == '_');
            // `0..n` is a range, `1.5` a number.
            let mut after = self.rest().chars();
            if after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()) {
                floating = true;
                self.advance();
                self.take_while(|c| c.is_ascii_digit() || c == '_');
            }
            let mut after = self.rest().chars();
            if matches!(after.next(), Some('e' | 'E')) {
                let next = after.next();
                let signed = matches!(next, Some('+' | '-'));
                let digit = if signed { after.next() } else { next };
                if digit.is_some_and(|c| c.is_ascii_digit()) {
                    floating = true;
                    self.advance();
                    if signed {
                        self.advance();
                    }
                    self.take_while(|c| c.is_ascii_digit());
                }
            }
        } else {
            self.advance();
            self.advance();
            self.take_while(|c| c.is_digit(radix) || c == '_');
        }
        let digits: String = self.source[start..self.at].chars().filter(|c| *c != '_').collect();
        let suffix = self.suffix(radix);
        let kind = if floating || matches!(suffix, Some('f' | 'd')) {
            Kind::Float(digits.parse().unwrap_or(f64::INFINITY), suffix == Some('d'))
        } else {
            let digits = if radix == 10 { &digits[..] } else { &digits[2..] };
            match u64::from_str_radix(digits, radix) {
                Ok(value) if value <= u64::from(u32::MAX) => Kind::Int(value, suffix == Some('u')),
                _ => {
                    let span = Span { line: self.number, column, length: (self.column - column).max(1) };
                    diagnostics.push(
                        Diagnostic::error("large-number", span, "the number does not fit into 32 bits")
                            .hint("integers are 32 bits wide; write it with a point for a float"),
                    );
                    Kind::Int(0, false)
                }
            }
        };
        self.push(kind, start, column);
    }

    /// One of `u`, `f`, `d` behind a number, when no other letter follows.
    fn suffix(&mut self, radix: u32) -> Option<char> {
        let mut after = self.rest().chars();
        let c = after.next().map(|c| c.to_ascii_lowercase()).filter(|c| matches!(c, 'u' | 'f' | 'd'))?;
        if after.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') || (radix != 10 && c != 'u') {
            return None;
        }
        self.advance();
        Some(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut diagnostics = Diagnostics::new(10);
        let kinds =
            lines(text, &mut diagnostics).into_iter().flat_map(|l| l.tokens).map(|t| t.kind).collect();
        assert_eq!(diagnostics.errors(), 0, "{:?}", diagnostics.finish());
        kinds
    }

    #[test]
    fn numbers_ranges_and_sizes() {
        assert_eq!(kinds("0..1000"), [Kind::Int(0, false), Kind::Mark(".."), Kind::Int(1000, false)]);
        assert_eq!(
            kinds("1.5 2e3 0x1Fu 3d"),
            [
                Kind::Float(1.5, false),
                Kind::Float(2000.0, false),
                Kind::Int(31, true),
                Kind::Float(3.0, true)
            ]
        );
        assert_eq!(kinds("5x5"), [Kind::Int(5, false), Kind::Word("x5".into())]);
    }

    #[test]
    fn both_arrows_are_one_token_and_columns_count_characters() {
        let mut diagnostics = Diagnostics::new(10);
        let lines = lines("  a → b # c\n\n//x\nd -> e", &mut diagnostics);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].indent, lines[1].end.line), (2, 4));
        assert_eq!(lines[0].tokens[2].span, Span { line: 1, column: 7, length: 1 });
        assert_eq!(lines[0].tokens[1].kind, lines[1].tokens[1].kind);
    }

    #[test]
    fn strange_characters_are_reported_once_per_run() {
        let mut diagnostics = Diagnostics::new(10);
        lines("a @@@@ b\n\"open", &mut diagnostics);
        assert_eq!(diagnostics.finish().len(), 2);
    }
}
