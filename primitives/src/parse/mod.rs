//! Tokens to [`crate::ast`]: recursive descent over lines, one mistake per line reported, then on with the next line.
//!
//! Invariant: recursion is bounded. Blocks and parentheses nest to [`Options::max_nesting`], an expression has at most
//! [`MAX_PARTS`] parts; whatever is deeper is skipped without descending into it.

mod expression;
mod statement;
mod toplevel;

use crate::ast;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::lex::{Kind, Line, Token, lines};
use crate::options::Options;

/// Operands and operators of one expression.
pub(crate) const MAX_PARTS: usize = 512;

/// The parse of one construct failed; why has been reported.
#[derive(Debug)]
pub(crate) struct Failed;

pub(crate) use statement::words;

pub(crate) type Parsed<T> = Result<T, Failed>;

/// Parses a program text.
pub(crate) fn parse(
    text: &str,
    options: &Options,
    trusted: bool,
    diagnostics: &mut Diagnostics,
) -> ast::Program {
    let lines = lines(text, diagnostics);
    let mut parser = Parser {
        text,
        lines,
        line: 0,
        at: 0,
        depth: 0,
        loops: 0,
        parts: 0,
        recovering: 0,
        apart: false,
        options,
        trusted,
        diagnostics,
    };
    parser.program()
}

struct Parser<'a> {
    text: &'a str,
    lines: Vec<Line>,
    /// Index of the current line, and of the next token in it.
    line: usize,
    at: usize,
    /// Blocks or parentheses around this place.
    depth: usize,
    loops: usize,
    parts: usize,
    recovering: usize,
    /// Whether a blank separates operands.
    apart: bool,
    options: &'a Options,
    trusted: bool,
    diagnostics: &'a mut Diagnostics,
}

impl Parser<'_> {
    fn done(&self) -> bool {
        self.line >= self.lines.len() || self.diagnostics.full()
    }

    fn peek(&self) -> Option<&Token> {
        self.lines.get(self.line)?.tokens.get(self.at)
    }

    fn peek_after(&self) -> Option<&Token> {
        self.lines.get(self.line)?.tokens.get(self.at + 1)
    }

    /// Where the next token is, or would be.
    fn place(&self) -> Span {
        match self.peek() {
            Some(token) => token.span,
            None => self
                .lines
                .get(self.line)
                .or_else(|| self.lines.last())
                .map_or_else(Span::default, |line| line.end),
        }
    }

    fn next_line(&mut self) {
        self.line += 1;
        self.at = 0;
    }

    fn word(&self) -> Option<&str> {
        match &self.peek()?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Token { kind: Kind::Mark(found), .. }) if *found == mark)
    }

    fn eat_mark(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn at_end(&self) -> bool {
        self.peek().is_none()
    }

    /// The next token in words, for a message.
    fn found(&self) -> String {
        match self.peek().map(|token| &token.kind) {
            None => "the end of the line".to_owned(),
            Some(Kind::Word(word)) => format!("`{word}`"),
            Some(Kind::Int(value, _)) => format!("`{value}`"),
            Some(Kind::Float(value, _)) => format!("`{value}`"),
            Some(Kind::Text(_)) => "a text in quotes".to_owned(),
            Some(Kind::Mark("->")) => "`→`".to_owned(),
            Some(Kind::Mark(mark)) => format!("`{mark}`"),
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) -> Failed {
        self.diagnostics.push(diagnostic);
        Failed
    }

    /// Reports that something else stands here.
    fn unexpected(&mut self, expected: &[&str]) -> Failed {
        let message = format!("expected {}, found {}", expected.join(" or "), self.found());
        self.report(Diagnostic::error("syntax", self.place(), message).expected(expected))
    }

    fn unexpected_hint(&mut self, expected: &[&str], hint: &str) -> Failed {
        let message = format!("expected {}, found {}", expected.join(" or "), self.found());
        self.report(Diagnostic::error("syntax", self.place(), message).expected(expected).hint(hint))
    }

    fn expect_mark(&mut self, mark: &'static str) -> Parsed<()> {
        if self.eat_mark(mark) {
            return Ok(());
        }
        Err(self.unexpected(&[if mark == "->" { "→" } else { mark }]))
    }

    fn name(&mut self, what: &str) -> Parsed<ast::Name> {
        if let Some(Token { kind: Kind::Word(word), span, .. }) = self.peek() {
            let name = ast::Name { text: word.clone(), span: *span };
            self.at += 1;
            if !matches!(name.text.as_str(), "AND" | "OR" | "NOT" | "TRUE" | "FALSE") {
                return Ok(name);
            }
            self.at -= 1;
        }
        Err(self.unexpected(&[what]))
    }

    fn whole(&mut self, what: &str) -> Parsed<(u64, Span)> {
        match self.peek() {
            Some(Token { kind: Kind::Int(value, _), span, .. }) => {
                let found = (*value, *span);
                self.at += 1;
                Ok(found)
            }
            _ => Err(self.unexpected(&[what])),
        }
    }

    /// A statement ends where its line ends.
    fn expect_end(&mut self) -> Parsed<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected(&["the end of the line"])) }
    }

    /// A file name: a text in quotes, or everything up to the next blank.
    fn path(&mut self) -> Parsed<String> {
        let Some(first) = self.peek() else { return Err(self.unexpected(&["a file name"])) };
        if let Kind::Text(text) = &first.kind {
            let path = text.clone();
            self.at += 1;
            return Ok(path);
        }
        let (start, mut end) = (first.start, first.end);
        self.at += 1;
        while let Some(token) = self.peek().filter(|token| token.start == end) {
            end = token.end;
            self.at += 1;
        }
        Ok(self.text[start..end].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> (ast::Program, Vec<Diagnostic>) {
        let mut diagnostics = Diagnostics::new(50);
        let program = parse(text, &Options::default(), false, &mut diagnostics);
        (program, diagnostics.finish())
    }

    #[test]
    fn every_error_of_a_text_is_reported_with_its_line() {
        let (program, found) = parse_text(
            "GPU_KERNEL k\nGPU_PARAM a float[\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID tid\n    IF tid < :\n        \
             LOAD a[tid → x\n    STORE 1 → a[0]\nGPU_END\n",
        );
        let lines: Vec<u32> = found.iter().map(|d| d.span.line).collect();
        assert_eq!(lines, [2, 5, 6, 7], "{found:#?}");
        assert_eq!(program.kernels.len(), 1);
        assert!(found[1].expected.iter().any(|e| e == "→"));
    }

    #[test]
    fn blocks_end_by_indentation_or_by_word() {
        let (program, found) = parse_text(
            "GPU_KERNEL k\nGPU_THREAD_CODE:\n  IF 1 < 2:\n    SYNC_THREADS\n  ELIF 2 < 3:\n    SYNC_THREADS\n  ELSE:\n    \
             SYNC_THREADS\n  ENDIF\n  FOR i IN 0..4: SYNC_THREADS\n  SYNC_THREADS\n  GPU_END\n",
        );
        assert!(found.is_empty(), "{found:#?}");
        assert_eq!(program.kernels[0].body.len(), 3);
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let mut text = "GPU_KERNEL k\nGPU_THREAD_CODE:\n ".to_owned();
        text.push_str(&"IF 1 < 2: ".repeat(20_000));
        text.push_str("\n  CALCULATE x = ");
        text.push_str(&"(".repeat(20_000));
        text.push_str("\n CALCULATE x = 1");
        text.push_str(&" + 1".repeat(20_000));
        text.push_str("\n CALCULATE x = ");
        text.push_str(&"- ".repeat(20_000));
        let (_, found) = parse_text(&text);
        assert!(found.iter().filter(|d| d.code == "nesting").count() >= 2, "{found:#?}");
    }
}
