//! Expressions, by precedence: OR, AND, NOT, comparison, `|`, `^`, `&`, shifts, sums, products, signs, subscripts.

use super::{Failed, MAX_PARTS, Parsed, Parser};
use crate::ast::{Binary, Expr, ExprKind, Name, Unary};
use crate::diagnostic::{Diagnostic, Span};
use crate::lex::{Kind, Token};

const LEVEL_NOT: u8 = 3;
const LEVEL_COMPARISON: u8 = 4;

/// The operator at a token and how tightly it binds.
fn operator(token: &Token) -> Option<(Binary, u8)> {
    Some(match &token.kind {
        Kind::Word(word) => match word.as_str() {
            "OR" => (Binary::Or, 1),
            "AND" => (Binary::And, 2),
            "MOD" => (Binary::Mod, 10),
            _ => return None,
        },
        Kind::Mark(mark) => match *mark {
            "||" => (Binary::Or, 1),
            "&&" => (Binary::And, 2),
            "<" => (Binary::Less, LEVEL_COMPARISON),
            "<=" => (Binary::LessEqual, LEVEL_COMPARISON),
            ">" => (Binary::Greater, LEVEL_COMPARISON),
            ">=" => (Binary::GreaterEqual, LEVEL_COMPARISON),
            "==" => (Binary::Equal, LEVEL_COMPARISON),
            "!=" => (Binary::NotEqual, LEVEL_COMPARISON),
            "|" => (Binary::BitOr, 5),
            "^" => (Binary::BitXor, 6),
            "&" => (Binary::BitAnd, 7),
            "<<" => (Binary::Shl, 8),
            ">>" => (Binary::Shr, 8),
            "+" => (Binary::Add, 9),
            "-" => (Binary::Sub, 9),
            "*" => (Binary::Mul, 10),
            "/" => (Binary::Div, 10),
            "%" => (Binary::Mod, 10),
            _ => return None,
        },
        _ => return None,
    })
}

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        self.parts = 0;
        self.binary(1)
    }

    /// One operand of a statement such as `ADD a b → c`: no operators outside parentheses but a sign.
    pub(super) fn operand(&mut self) -> Parsed<Expr> {
        self.parts = 0;
        // `f (a)` is two operands here, `f(a)` a call.
        self.apart = true;
        let operand = self.unary();
        self.apart = false;
        let operand = operand?;
        if let Some((_, level)) = self.peek().and_then(operator)
            && level != 9
        {
            return Err(self.unexpected_hint(
                &["another operand", "→"],
                "put a computed operand into parentheses, as in `ADD (a * b) c → d`",
            ));
        }
        Ok(operand)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= self.options.max_nesting {
            let message = format!("nested deeper than {} levels", self.options.max_nesting);
            self.report(
                Diagnostic::error("nesting", self.place(), message)
                    .hint("give a part of it a name with CALCULATE"),
            );
            return Err(Failed);
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn binary(&mut self, level: u8) -> Parsed<Expr> {
        let mut left = if level <= LEVEL_NOT && self.is_not() {
            let span = self.place();
            self.at += 1;
            let operand = self.deeper(|p| p.binary(LEVEL_NOT))?;
            Expr { span: span.to(operand.span), kind: ExprKind::Unary(Unary::Not, Box::new(operand)) }
        } else {
            self.unary()?
        };
        let mut compared = false;
        while let Some((op, binds)) = self.peek().and_then(operator).filter(|(_, binds)| *binds >= level) {
            if binds == LEVEL_COMPARISON {
                if compared {
                    return Err(self.unexpected_hint(
                        &["AND", "the end of the comparison"],
                        "comparisons do not chain: write `a < b AND b < c`",
                    ));
                }
                compared = true;
            }
            self.part()?;
            self.at += 1;
            let right = self.deeper(|p| p.binary(binds + 1))?;
            let span = left.span.to(right.span);
            left = Expr { span, kind: ExprKind::Binary(op, Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn is_not(&self) -> bool {
        self.word() == Some("NOT") || self.is_mark("!")
    }

    fn part(&mut self) -> Parsed<()> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let message = format!("the expression has more than {MAX_PARTS} parts");
            return Err(self.report(
                Diagnostic::error("nesting", self.place(), message)
                    .hint("give a part of it a name with CALCULATE"),
            ));
        }
        Ok(())
    }

    fn unary(&mut self) -> Parsed<Expr> {
        self.part()?;
        let span = self.place();
        let op = match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark("-")) => Unary::Negative,
            Some(Kind::Mark("~")) => Unary::Invert,
            Some(Kind::Mark("+")) => {
                self.at += 1;
                return self.deeper(Self::unary);
            }
            _ => return self.postfix(),
        };
        self.at += 1;
        let operand = self.deeper(Self::unary)?;
        Ok(Expr { span: span.to(operand.span), kind: ExprKind::Unary(op, Box::new(operand)) })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        let mut fields = 0;
        while self.is_mark(".") {
            self.at += 1;
            fields += 1;
            let field = self.name("a field such as r, g, b, a")?;
            if fields > 4 {
                return Err(self.report(Diagnostic::error(
                    "nesting",
                    field.span,
                    "a value has no fields of fields",
                )));
            }
            let span = expr.span.to(field.span);
            expr = Expr { span, kind: ExprKind::Field(Box::new(expr), field) };
        }
        Ok(expr)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let Some(token) = self.peek() else {
            return Err(self.unexpected(&["a value"]));
        };
        let span = token.span;
        let kind = match token.kind.clone() {
            Kind::Int(value, unsigned) => {
                self.at += 1;
                ExprKind::Int(value, unsigned)
            }
            Kind::Float(value, double) => {
                self.at += 1;
                ExprKind::Float(value, double)
            }
            Kind::Mark("(") => {
                self.at += 1;
                self.apart = false;
                let inner = self.deeper(|p| p.binary(1))?;
                self.expect_mark(")")?;
                return Ok(inner);
            }
            Kind::Word(word) if word == "TRUE" || word == "FALSE" => {
                self.at += 1;
                ExprKind::Bool(word == "TRUE")
            }
            Kind::Word(word) if !matches!(word.as_str(), "AND" | "OR" | "NOT") => {
                self.at += 1;
                let name = Name { text: word, span };
                return self.named(name);
            }
            _ => return Err(self.unexpected(&["a value"])),
        };
        Ok(Expr { span, kind })
    }

    /// A name, a call or an element.
    fn named(&mut self, name: Name) -> Parsed<Expr> {
        let span = name.span;
        let apart = std::mem::take(&mut self.apart);
        if apart && self.before().column + self.before().length != self.place().column {
            return Ok(Expr { span, kind: ExprKind::Name(name.text) });
        }
        if self.is_mark("(") {
            self.at += 1;
            let mut arguments = Vec::new();
            if !self.eat_mark(")") {
                loop {
                    arguments.push(self.deeper(|p| p.binary(1))?);
                    if self.eat_mark(")") {
                        break;
                    }
                    if !self.eat_mark(",") {
                        return Err(self.unexpected(&[",", ")"]));
                    }
                }
            }
            let span = span.to(self.before());
            return Ok(Expr { span, kind: ExprKind::Call(name, arguments) });
        }
        if self.is_mark("[") {
            self.at += 1;
            let index = self.deeper(|p| p.binary(1))?;
            self.expect_mark("]")?;
            let span = span.to(self.before());
            return Ok(Expr { span, kind: ExprKind::Index(name, Box::new(index)) });
        }
        Ok(Expr { span, kind: ExprKind::Name(name.text) })
    }

    /// The place of the token just read.
    fn before(&self) -> Span {
        self.at
            .checked_sub(1)
            .and_then(|at| self.lines.get(self.line)?.tokens.get(at))
            .map_or_else(Span::default, |token| token.span)
    }
}
