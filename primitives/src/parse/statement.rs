//! Thread code: statements and blocks.

use super::{Failed, Parsed, Parser};
use crate::ast::{Expr, ExprKind, Identity, Name, Over, Place, Statement, StatementKind, Target};
use crate::diagnostic::Diagnostic;
use crate::lex::Kind;

/// Words that start a thread statement and are handled here; all others are operations, see `check::word`.
const WORDS: [&str; 20] = [
    "THREAD_ID",
    "LOCAL_ID",
    "BLOCK_ID",
    "BLOCK_SIZE",
    "BLOCK_COUNT",
    "LOAD",
    "STORE",
    "LOAD_COALESCED",
    "CALCULATE",
    "COMPARE",
    "IF",
    "FOR",
    "PARALLEL",
    "SYNC_THREADS",
    "REQUIRE",
    "RETURN",
    "ELSE",
    "ELIF",
    "ENDIF",
    "ENDFOR",
];

/// Whether a word belongs into thread code.
pub(super) fn is_word(word: &str) -> bool {
    WORDS.contains(&word) || word.starts_with("ATOMIC_") || crate::check::word::is_operation(word)
}

/// Every word that can start a thread statement, for hints.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().chain(crate::check::word::operations())
}

/// Words that end thread code.
fn ends_code(word: &str) -> bool {
    matches!(
        word,
        "GPU_END"
            | "GPU_KERNEL"
            | "GPU_FUNCTION"
            | "GPU_PARAM"
            | "GPU_SHARED_MEM"
            | "GPU_SHARED"
            | "GPU_LAUNCH"
            | "GPU_CONST"
    )
}

impl Parser<'_> {
    /// The lines deeper than `parent`; all up to GPU_END when there is no parent.
    pub(super) fn block(&mut self, parent: Option<u32>) -> Vec<Statement> {
        let mut statements = Vec::new();
        let mut own = None;
        while !self.done() {
            self.at = 0;
            let indent = self.lines[self.line].indent;
            if parent.is_some_and(|parent| indent <= parent) || self.word().is_some_and(ends_code) {
                break;
            }
            let expected = *own.get_or_insert(indent);
            if indent != expected {
                let what = if indent > expected { "deeper than" } else { "not as deep as" };
                self.report(
                    Diagnostic::error("indentation", self.place(), format!("this line is {what} its block"))
                        .hint(format!("the block's lines start in column {}", expected + 1)),
                );
            }
            let line = self.line;
            if let Ok(statement) = self.statement() {
                statements.push(statement);
            } else if self.line == line {
                self.recover();
            }
        }
        statements
    }

    /// Goes to the next line; when the failed one opened a block, parses that for its own mistakes.
    fn recover(&mut self) {
        let line = &self.lines[self.line];
        let indent = line.indent;
        let opens = matches!(line.tokens.last().map(|t| &t.kind), Some(Kind::Mark(":")));
        self.next_line();
        if opens && !self.done() && self.lines[self.line].indent > indent {
            if self.depth < self.options.max_nesting {
                self.depth += 1;
                self.block(Some(indent));
                self.depth -= 1;
            } else {
                self.skip_block(indent);
            }
        }
        // The other branches of a failed IF are no mistakes of their own.
        if opens
            && !self.done()
            && self.lines[self.line].indent == indent
            && matches!(self.word(), Some("ELSE" | "ELIF" | "ENDIF" | "ENDFOR"))
            && self.recovering < 256
        {
            self.recovering += 1;
            self.recover();
            self.recovering -= 1;
        }
    }

    fn skip_block(&mut self, indent: u32) {
        while !self.done() && self.lines[self.line].indent > indent {
            self.next_line();
        }
    }

    /// What follows a colon: the rest of the line, or the deeper lines.
    fn body(&mut self, indent: u32) -> Parsed<Vec<Statement>> {
        self.expect_mark(":")?;
        if self.depth >= self.options.max_nesting {
            let message = format!("blocks are nested deeper than {} levels", self.options.max_nesting);
            self.report(
                Diagnostic::error("nesting", self.place(), message).hint("move a part into a GPU_FUNCTION"),
            );
            self.next_line();
            self.skip_block(indent);
            return Err(Failed);
        }
        self.depth += 1;
        let body = if self.at_end() {
            self.next_line();
            let body = self.block(Some(indent));
            if body.is_empty() && self.diagnostics.errors() == 0 {
                let span = self.lines[self.line - 1].end;
                self.report(
                    Diagnostic::error("indentation", span, "the block is empty")
                        .hint("the lines of a block start further right than its first line"),
                );
            }
            Ok(body)
        } else {
            self.statement().map(|statement| vec![statement])
        };
        self.depth -= 1;
        body
    }

    /// One statement with its blocks; leaves the cursor at the start of the next line.
    fn statement(&mut self) -> Parsed<Statement> {
        let indent = self.lines[self.line].indent;
        let start = self.place();
        let Some(word) = self.word().map(str::to_owned) else {
            return Err(self.unexpected(&["a statement"]));
        };
        self.at += 1;
        let kind = match word.as_str() {
            "IF" => return self.conditional(indent).map(|kind| Statement { span: start, kind }),
            "FOR" => return self.counted(indent).map(|kind| Statement { span: start, kind }),
            "PARALLEL" => return self.parallel(indent).map(|kind| Statement { span: start, kind }),
            "THREAD_ID" => self.identity(Identity::Thread)?,
            "LOCAL_ID" => self.identity(Identity::Local)?,
            "BLOCK_ID" => self.identity(Identity::Block)?,
            "BLOCK_SIZE" => self.identity(Identity::BlockSize)?,
            "BLOCK_COUNT" => self.identity(Identity::BlockCount)?,
            "LOAD" => {
                let value = self.expression()?;
                self.expect_mark("->")?;
                let target = self.name("a variable")?;
                if !matches!(value.kind, ExprKind::Index(..) | ExprKind::Name(_)) {
                    return Err(self.report(
                        Diagnostic::error(
                            "syntax",
                            value.span,
                            "LOAD takes an element, as in `LOAD a[i] → x`",
                        )
                        .hint("use CALCULATE for a computed value"),
                    ));
                }
                StatementKind::Assign(target, value)
            }
            "STORE" => {
                let value = self.expression()?;
                self.expect_mark("->")?;
                StatementKind::Store { value, place: self.array_place()? }
            }
            "CALCULATE" | "SET" => self.calculate()?,
            "COMPARE" => {
                let value = self.expression()?;
                self.expect_mark("->")?;
                StatementKind::Assign(self.name("a variable")?, value)
            }
            "LOAD_COALESCED" => self.load_range()?,
            "SYNC_THREADS" => StatementKind::Sync,
            "REQUIRE" => StatementKind::Require(self.expression()?),
            "RETURN" => StatementKind::Return(self.expression()?),
            "ELSE" | "ELIF" | "ENDIF" | "ENDFOR" | "END_IF" | "END_FOR" => {
                return Err(self.report(
                    Diagnostic::error("syntax", start, format!("`{word}` belongs to no block"))
                        .hint("it stands in the same column as its IF or FOR"),
                ));
            }
            _ if word.starts_with("ATOMIC_") => self.atomic(Name { text: word, span: start })?,
            _ => self.operation(Name { text: word, span: start })?,
        };
        self.expect_end()?;
        self.next_line();
        Ok(Statement { span: start, kind })
    }

    fn identity(&mut self, identity: Identity) -> Parsed<StatementKind> {
        self.expect_mark("->")?;
        Ok(StatementKind::Identity(identity, self.name("a variable")?))
    }

    /// `CALCULATE x = e` or `CALCULATE e → x`.
    fn calculate(&mut self) -> Parsed<StatementKind> {
        if matches!(self.peek_after().map(|t| &t.kind), Some(Kind::Mark("="))) {
            let target = self.name("a variable")?;
            self.at += 1;
            return Ok(StatementKind::Assign(target, self.expression()?));
        }
        let value = self.expression()?;
        if !self.eat_mark("->") {
            return Err(self.unexpected(&["=", "→"]));
        }
        Ok(StatementKind::Assign(self.name("a variable")?, value))
    }

    fn array_place(&mut self) -> Parsed<Place> {
        let array = self.name("an array")?;
        let index = if self.eat_mark("[") {
            let index = self.expression()?;
            self.expect_mark("]")?;
            Some(index)
        } else {
            None
        };
        Ok(Place { array, index })
    }

    /// `a[from:to] → buffer`.
    fn load_range(&mut self) -> Parsed<StatementKind> {
        let array = self.name("an array")?;
        self.expect_mark("[")?;
        let from = self.expression()?;
        self.expect_mark(":")?;
        let to = self.expression()?;
        self.expect_mark("]")?;
        self.expect_mark("->")?;
        Ok(StatementKind::LoadRange { array, from, to, into: self.name("a shared memory name")? })
    }

    /// `ATOMIC_ADD a[i] v → old`.
    fn atomic(&mut self, op: Name) -> Parsed<StatementKind> {
        let place = self.array_place()?;
        let mut values = Vec::new();
        while !self.at_end() && !self.is_mark("->") && values.len() < 4 {
            values.push(self.operand()?);
        }
        let target = if self.eat_mark("->") { Some(self.name("a variable")?) } else { None };
        Ok(StatementKind::Atomic { op, place, values, target })
    }

    /// `WORD operands [→ target] [more operands]`.
    fn operation(&mut self, word: Name) -> Parsed<StatementKind> {
        if self.is_mark("=") {
            let hint = format!("write `CALCULATE {} = …`", word.text);
            return Err(self.unexpected_hint(&["a statement"], &hint));
        }
        if !crate::check::word::is_operation(&word.text) {
            return Err(self.report(crate::check::word::unknown(&word)));
        }
        let mut operands = Vec::new();
        while !self.at_end() && !self.is_mark("->") && operands.len() < 16 {
            if self.is_size() {
                operands.push(self.size()?);
            } else {
                operands.push(self.operand()?);
            }
        }
        let mut target = None;
        let mut extra = Vec::new();
        if self.eat_mark("->") {
            let place = self.array_place()?;
            target = Some(match place.index {
                None => Target::Name(place.array),
                Some(_) => Target::Place(place),
            });
            if self.eat_word("DIMS") {
                while !self.at_end() && extra.len() < 4 {
                    extra.push(self.operand()?);
                }
            }
        }
        Ok(StatementKind::Word { word, operands, target, extra })
    }

    /// `5x5`, written in one.
    fn is_size(&self) -> bool {
        match (self.peek(), self.peek_after()) {
            (Some(a), Some(b)) => {
                matches!(a.kind, Kind::Int(..))
                    && a.end == b.start
                    && matches!(&b.kind, Kind::Word(w) if w.strip_prefix('x').is_some_and(|n| n.parse::<u32>().is_ok()))
            }
            _ => false,
        }
    }

    fn size(&mut self) -> Parsed<Expr> {
        let (value, span) = self.whole("a size")?;
        let name = self.name("a size")?;
        if name.text[1..].parse() != Ok(value) {
            return Err(self.report(Diagnostic::error(
                "syntax",
                span.to(name.span),
                "only square windows are supported",
            )));
        }
        Ok(Expr { span: span.to(name.span), kind: ExprKind::Int(value, false) })
    }

    fn conditional(&mut self, indent: u32) -> Parsed<StatementKind> {
        let mut arms = Vec::new();
        let mut otherwise = None;
        let condition = self.expression()?;
        arms.push((condition, self.body(indent)?));
        while !self.done() && self.at == 0 && self.lines[self.line].indent == indent {
            if self.eat_word("ELIF") || (self.word() == Some("ELSE") && self.follows_if()) {
                let condition = self.expression()?;
                // Each branch is an IF within the ELSE before it, and counts as one level.
                self.depth += arms.len();
                let body = self.body(indent);
                self.depth -= arms.len();
                arms.push((condition, body?));
            } else if self.eat_word("ELSE") {
                otherwise = Some(self.body(indent)?);
                break;
            } else {
                break;
            }
        }
        self.end_word(indent, &["ENDIF", "END_IF"]);
        Ok(StatementKind::If { arms, otherwise })
    }

    /// Steps over `ELSE IF`.
    fn follows_if(&mut self) -> bool {
        let found = matches!(self.peek_after().map(|t| &t.kind), Some(Kind::Word(w)) if w == "IF");
        self.at += if found { 2 } else { 0 };
        found
    }

    /// Steps over a closing word in the column of its opening one.
    fn end_word(&mut self, indent: u32, words: &[&str]) {
        if !self.done()
            && self.at == 0
            && self.lines[self.line].indent == indent
            && self.lines[self.line].tokens.len() == 1
            && self.word().is_some_and(|word| words.contains(&word))
        {
            self.next_line();
        }
    }

    fn enter_loop(&mut self) -> Parsed<()> {
        if self.loops >= self.options.max_loop_nesting {
            let message = format!("loops are nested deeper than {} levels", self.options.max_loop_nesting);
            return Err(self.report(Diagnostic::error("nesting", self.place(), message)));
        }
        self.loops += 1;
        Ok(())
    }

    /// `FOR i IN a..b [STEP s]:`.
    fn counted(&mut self, indent: u32) -> Parsed<StatementKind> {
        let var = self.name("a loop variable")?;
        if !self.eat_word("IN") {
            return Err(self.unexpected_hint(&["IN"], "loops have bounds: `FOR i IN 0..n:`"));
        }
        let from = self.expression()?;
        self.expect_mark("..")?;
        let to = self.expression()?;
        let step = if self.eat_word("STEP") { Some(self.expression()?) } else { None };
        self.enter_loop()?;
        let body = self.body(indent);
        self.loops -= 1;
        let body = body?;
        self.end_word(indent, &["ENDFOR", "END_FOR"]);
        Ok(StatementKind::For { var, from, to, step, body })
    }

    /// `PARALLEL FOR a:`, `PARALLEL FOR x IN a:`, `PARALLEL FOR i IN 0..n:`.
    fn parallel(&mut self, indent: u32) -> Parsed<StatementKind> {
        if !self.eat_word("FOR") {
            return Err(self.unexpected(&["FOR"]));
        }
        let first = self.name("an array or a loop variable")?;
        let (var, over) = if self.eat_word("IN") {
            let start = self.expression()?;
            if self.eat_mark("..") {
                let end = self.expression()?;
                (Some(first), Over::Range(start, end))
            } else if let ExprKind::Name(text) = start.kind {
                (Some(first), Over::Array(Name { text, span: start.span }))
            } else {
                return Err(self.unexpected(&[".."]));
            }
        } else {
            (None, Over::Array(first))
        };
        self.enter_loop()?;
        let body = self.body(indent);
        self.loops -= 1;
        let body = body?;
        self.end_word(indent, &["ENDFOR", "END_FOR"]);
        Ok(StatementKind::ParallelFor { var, over, body })
    }
}
