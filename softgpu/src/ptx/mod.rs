//! PTX text to syntax tree: the front half of the engine, below [`crate::exec`].
//!
//! [`fn@parse`] knows the shape of the language (directives, declarations, `@p op.mod.mod a, b;`) and
//! nothing of what an instruction means; opcodes and their modifiers are checked in `exec::lower`.
//! Source: PTX ISA 9.0, sections 4 (syntax), 5 (state spaces, types), 7 (ABI) and 11 (directives).

pub mod ast;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod types;

pub use parse::parse;
pub use types::Ty;

/// Where and why a PTX text was refused; lines and columns count from one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ptx line {line}:{column}: {message}")]
pub struct PtxError {
    /// Line of the offending token.
    pub line: u32,
    /// Column of the offending token, in bytes.
    pub column: u32,
    /// What is wrong, lower case.
    pub message: String,
}

impl PtxError {
    /// An error at a position.
    pub fn new(line: u32, column: u32, message: impl Into<String>) -> Self {
        Self { line, column, message: message.into() }
    }
}
