//! Constant expressions and literals (PTX ISA section 4.5).

use super::{MAX_DEPTH, Parser, Result};
use crate::ptx::ast::Number;
use crate::ptx::lex::Kind;

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Number> {
        self.binary(0)
    }

    /// Precedence climbing over C's integer operators (ISA section 4.5).
    fn binary(&mut self, least: u8) -> Result<Number> {
        let mut left = self.unary()?;
        loop {
            let token = self.peek();
            let Kind::Punct(first) = token.kind else { return Ok(left) };
            let double = self.peek_at(1).kind == Kind::Punct(first);
            let (precedence, width) = match first {
                b'*' | b'/' | b'%' => (5, 1),
                b'+' | b'-' => (4, 1),
                b'<' | b'>' if double => (3, 2),
                b'&' if !double => (2, 1),
                b'^' => (1, 1),
                b'|' if !double => (0, 1),
                _ => return Ok(left),
            };
            if precedence < least {
                return Ok(left);
            }
            self.at += width;
            let right = self.binary(precedence + 1)?;
            let (Number::Int(a), Number::Int(b)) = (left, right) else {
                return self.error(token, "integers in a constant expression");
            };
            let value = match first {
                b'*' => a.wrapping_mul(b),
                b'/' | b'%' if b == 0 => return self.error(token, "a divisor other than zero"),
                b'/' => a.cast_signed().wrapping_div(b.cast_signed()).cast_unsigned(),
                b'%' => a.cast_signed().wrapping_rem(b.cast_signed()).cast_unsigned(),
                b'+' => a.wrapping_add(b),
                b'-' => a.wrapping_sub(b),
                b'<' => a.checked_shl(u32::try_from(b).unwrap_or(64)).unwrap_or(0),
                b'>' => a.checked_shr(u32::try_from(b).unwrap_or(64)).unwrap_or(0),
                b'&' => a & b,
                b'^' => a ^ b,
                _ => a | b,
            };
            left = Number::Int(value);
        }
    }

    pub(super) fn unary(&mut self) -> Result<Number> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.peek(), "a shorter expression");
        }
        let value = self.unary_inner();
        self.depth -= 1;
        value
    }

    fn unary_inner(&mut self) -> Result<Number> {
        let token = self.next();
        match token.kind {
            Kind::Punct(b'-') => Ok(match self.unary()? {
                Number::Int(value) => Number::Int(value.wrapping_neg()),
                Number::F32(bits) => Number::F32(bits ^ 0x8000_0000),
                Number::F64(bits) => Number::F64(bits ^ (1 << 63)),
            }),
            Kind::Punct(b'+') => self.unary(),
            Kind::Punct(b'~') => match self.unary()? {
                Number::Int(value) => Ok(Number::Int(!value)),
                _ => self.error(token, "an integer after `~`"),
            },
            Kind::Punct(b'!') => match self.unary()? {
                Number::Int(value) => Ok(Number::Int(u64::from(value == 0))),
                _ => self.error(token, "an integer after `!`"),
            },
            Kind::Punct(b'(') => {
                // Casts `(.s64)` change nothing in 64-bit two's complement.
                if self.peek().kind == Kind::Dot {
                    self.at += 1;
                    self.expect(b')')?;
                    return self.unary();
                }
                let value = self.expression()?;
                self.expect(b')')?;
                Ok(value)
            }
            Kind::Number => match number(token.text) {
                Some(value) => Ok(value),
                None => self.error(token, "a number"),
            },
            _ => self.error(token, "a number"),
        }
    }
}

/// The value of a literal.
fn number(text: &str) -> Option<Number> {
    let rest = text.strip_prefix('0').unwrap_or("");
    if let Some(hex) = rest.strip_prefix(['f', 'F']) {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Number::F32)).flatten();
    }
    if let Some(hex) = rest.strip_prefix(['d', 'D']) {
        return (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok().map(Number::F64)).flatten();
    }
    let digits = text.strip_suffix(['u', 'U']).unwrap_or(text);
    let rest = digits.strip_prefix('0').unwrap_or("");
    let value = if let Some(hex) = rest.strip_prefix(['x', 'X']) {
        u64::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = rest.strip_prefix(['b', 'B']) {
        u64::from_str_radix(binary, 2).ok()
    } else if digits.contains(['.', 'e', 'E']) {
        return text.parse::<f64>().ok().map(|value| Number::F64(value.to_bits()));
    } else if !rest.is_empty() {
        u64::from_str_radix(rest, 8).ok()
    } else {
        digits.parse().ok()
    };
    value.map(Number::Int)
}
