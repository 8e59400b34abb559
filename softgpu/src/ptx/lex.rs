//! Lexer: text to tokens with positions. Comments and preprocessor-style lines are dropped here.

use super::PtxError;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `name`, `%r1`, `$L__BB0_1`.
    Name,
    /// `.word`, text without the dot; may hold `::`.
    Dot,
    /// Integer or float literal, as written.
    Number,
    /// `"…"`, text without quotes.
    Text,
    /// One character, or `<<`, `>>` and the like as single characters in sequence.
    Punct(u8),
    /// After the last token.
    End,
}

/// A token with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) line: u32,
    pub(super) column: u32,
}

fn name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%')
}

fn name_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

/// Splits a text into tokens; the last one is [`Kind::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>, PtxError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 4);
    let mut at = 0;
    let mut line = 1u32;
    let mut line_start = 0;
    let column_of = |at: usize, line_start: usize| u32::try_from(at - line_start + 1).unwrap_or(u32::MAX);
    while at < bytes.len() {
        let byte = bytes[at];
        let next = bytes.get(at + 1).copied().unwrap_or(0);
        let column = column_of(at, line_start);
        match byte {
            // A NUL ends the text: cuModuleLoadData takes a C string.
            0 => break,
            b'\n' => {
                at += 1;
                line += 1;
                line_start = at;
                continue;
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'/' if next == b'/' => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if next == b'*' => {
                let (start_line, start_column) = (line, column);
                at += 2;
                loop {
                    match bytes.get(at) {
                        None => return Err(PtxError::new(start_line, start_column, "comment without end")),
                        Some(b'*') if bytes.get(at + 1) == Some(&b'/') => {
                            at += 2;
                            break;
                        }
                        Some(b'\n') => {
                            at += 1;
                            line += 1;
                            line_start = at;
                        }
                        Some(_) => at += 1,
                    }
                }
                continue;
            }
            // Preprocessor lines (`# 1 "file"`) are left by some front ends.
            b'#' => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            _ => {}
        }
        let start = at;
        let kind = if name_start(byte) {
            at += 1;
            while at < bytes.len() && name_part(bytes[at]) {
                at += 1;
            }
            Kind::Name
        } else if byte.is_ascii_digit() {
            at = number_end(bytes, at);
            Kind::Number
        } else if byte == b'.' && (name_part(next) || next == b'%') {
            at += 1;
            while at < bytes.len() {
                if name_part(bytes[at]) {
                    at += 1;
                } else if bytes[at] == b':'
                    && bytes.get(at + 1) == Some(&b':')
                    && bytes.get(at + 2).is_some_and(|b| name_part(*b))
                {
                    at += 2;
                } else {
                    break;
                }
            }
            Kind::Dot
        } else if byte == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                if bytes[at] == b'\\' {
                    at += 1;
                }
                if bytes.get(at) == Some(&b'\n') {
                    return Err(PtxError::new(line, column, "string without end"));
                }
                at += 1;
            }
            if at >= bytes.len() {
                return Err(PtxError::new(line, column, "string without end"));
            }
            at += 1;
            Kind::Text
        } else if byte.is_ascii_punctuation() {
            at += 1;
            Kind::Punct(byte)
        } else {
            let shown = text[at..].chars().next().unwrap_or('?');
            return Err(PtxError::new(line, column, format!("character {shown:?} is not part of ptx")));
        };
        let text = match kind {
            Kind::Dot => &text[start + 1..at],
            Kind::Text => &text[start + 1..at - 1],
            _ => &text[start..at],
        };
        tokens.push(Token { kind, text, line, column });
    }
    tokens.push(Token {
        kind: Kind::End,
        text: "",
        line,
        column: column_of(at.min(bytes.len()), line_start),
    });
    Ok(tokens)
}

/// End of the number that starts at `at`: hex, octal, binary, decimal, `0f…`, `0d…`, `1.5e-3`.
fn number_end(bytes: &[u8], mut at: usize) -> usize {
    let prefixed = bytes[at] == b'0'
        && matches!(bytes.get(at + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D' | b'b' | b'B'));
    at += 1;
    while at < bytes.len() && bytes[at].is_ascii_alphanumeric() {
        at += 1;
        let exponent = !prefixed && matches!(bytes[at - 1], b'e' | b'E');
        if exponent && matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
    }
    if !prefixed && bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1;
        while at < bytes.len() && bytes[at].is_ascii_alphanumeric() {
            at += 1;
            if matches!(bytes[at - 1], b'e' | b'E') && matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_an_instruction() {
        let tokens = lex("@!%p1 ld.global.L2::128B.f32 %f1, [%rd1+-4]; // c\n").unwrap();
        let texts: Vec<_> = tokens.iter().map(|t| t.text).collect();
        assert_eq!(
            texts,
            [
                "@", "!", "%p1", "ld", "global", "L2::128B", "f32", "%f1", ",", "[", "%rd1", "+", "-", "4",
                "]", ";", ""
            ]
        );
        assert_eq!(tokens[4].kind, Kind::Dot);
    }

    #[test]
    fn positions_count_from_one_and_survive_comments() {
        let tokens = lex("/* a\n b */ x\n  y").unwrap();
        assert_eq!((tokens[0].line, tokens[0].column), (2, 7));
        assert_eq!((tokens[1].line, tokens[1].column), (3, 3));
    }

    #[test]
    fn numbers_in_all_spellings_are_one_token() {
        for text in ["0x1FU", "0f3F800000", "0d3FF0000000000000", "12", "1.5e-3", "0b101", "017"] {
            let tokens = lex(text).unwrap();
            assert_eq!(tokens.len(), 2, "{text}");
            assert_eq!(tokens[0].text, text);
        }
    }

    #[test]
    fn strange_characters_are_refused_with_their_place() {
        let error = lex("mov\n  é").unwrap_err();
        assert_eq!((error.line, error.column), (2, 3));
        assert!(lex("\"abc").is_err());
        assert!(lex("/* abc").is_err());
    }
}
