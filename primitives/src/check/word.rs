//! The operations that are written as a word before their operands, and the words that are refused with a reason.

use crate::ast::Name;
use crate::diagnostic::{Diagnostic, nearest};
use crate::ir::BinaryOp;

/// What an operation word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Of two operands, as the operator.
    Binary(BinaryOp),
    /// NOT: of a bool or of bits.
    Not,
    /// A call of the function with these many operands at least and at most.
    Function(&'static str, usize, usize),
    /// A statement that makes up a whole kernel.
    Whole(Whole),
}

/// A statement that all threads of a launch, or several launches, do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whole {
    Matmul,
    Sort,
    AesBlock,
    AesCtr,
    Sha256,
}

const OPERATIONS: [(&str, Operation); 52] = [
    ("ADD", Operation::Binary(BinaryOp::Add)),
    ("SUB", Operation::Binary(BinaryOp::Sub)),
    ("MUL", Operation::Binary(BinaryOp::Mul)),
    ("DIV", Operation::Binary(BinaryOp::Div)),
    ("MOD", Operation::Binary(BinaryOp::Rem)),
    ("MIN", Operation::Function("min", 2, 2)),
    ("MAX", Operation::Function("max", 2, 2)),
    ("AND", Operation::Binary(BinaryOp::And)),
    ("OR", Operation::Binary(BinaryOp::Or)),
    ("XOR", Operation::Binary(BinaryOp::Xor)),
    ("SHL", Operation::Binary(BinaryOp::Shl)),
    ("SHR", Operation::Binary(BinaryOp::Shr)),
    ("NOT", Operation::Not),
    ("ROTR", Operation::Function("rotr", 2, 2)),
    ("FMA", Operation::Function("fma", 3, 3)),
    ("MAD", Operation::Function("fma", 3, 3)),
    ("NEG", Operation::Function("neg", 1, 1)),
    ("ABS", Operation::Function("abs", 1, 1)),
    ("SQRT", Operation::Function("sqrt", 1, 1)),
    ("RSQRT", Operation::Function("rsqrt", 1, 1)),
    ("FLOOR", Operation::Function("floor", 1, 1)),
    ("CEIL", Operation::Function("ceil", 1, 1)),
    ("ROUND", Operation::Function("round", 1, 1)),
    ("SELECT", Operation::Function("select", 3, 3)),
    ("CLAMP", Operation::Function("clamp", 3, 3)),
    ("LERP", Operation::Function("lerp", 3, 3)),
    ("POW", Operation::Function("pow", 2, 2)),
    ("EXP", Operation::Function("exp", 1, 1)),
    ("LOG", Operation::Function("log", 1, 1)),
    ("SIN", Operation::Function("sin", 1, 1)),
    ("COS", Operation::Function("cos", 1, 1)),
    ("TANH", Operation::Function("tanh", 1, 1)),
    ("SIGMOID", Operation::Function("sigmoid", 1, 1)),
    ("RELU", Operation::Function("relu", 1, 1)),
    ("INT", Operation::Function("int", 1, 1)),
    ("UINT", Operation::Function("uint", 1, 1)),
    ("FLOAT", Operation::Function("float", 1, 1)),
    ("DOUBLE", Operation::Function("double", 1, 1)),
    ("PIXEL", Operation::Function("pixel", 3, 4)),
    ("LUMA", Operation::Function("luma", 1, 1)),
    ("LENGTH", Operation::Function("len", 1, 1)),
    ("COLOR_CORRECT", Operation::Function("color_correct", 1, 4)),
    ("APPLY_KERNEL", Operation::Function("apply_kernel", 4, 6)),
    ("SOBEL_FILTER", Operation::Function("sobel", 3, 5)),
    ("PARALLEL_MATMUL", Operation::Whole(Whole::Matmul)),
    ("MATMUL", Operation::Whole(Whole::Matmul)),
    ("SORT", Operation::Whole(Whole::Sort)),
    ("PARALLEL_SORT", Operation::Whole(Whole::Sort)),
    ("AES_BLOCK", Operation::Whole(Whole::AesBlock)),
    ("AES_CTR", Operation::Whole(Whole::AesCtr)),
    ("SHA256", Operation::Whole(Whole::Sha256)),
    ("MATRIX_MULTIPLY", Operation::Whole(Whole::Matmul)),
];

/// What a word means, when it is an operation.
pub(crate) fn operation(word: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|(name, _)| *name == word).map(|(_, operation)| *operation)
}

/// Whether a word is an operation.
pub(crate) fn is_operation(word: &str) -> bool {
    operation(word).is_some()
}

/// All operation words.
pub(crate) fn operations() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(word, _)| *word)
}

/// Why a word that appears in texts about the language has no meaning.
fn refused(word: &str) -> Option<&'static str> {
    Some(match word {
        "COMPRESS" | "PARALLEL_COMPRESS" | "DECOMPRESS" => {
            "there is no compressor: its output is not a fixed function of position, so threads cannot place it"
        }
        "PARALLEL_DCT" | "ENCODE" => "there is no video encoder; write the transform with FOR and ADD/MUL",
        "TRANSFORM" | "PROCESS" | "UPDATE" | "CALCULATE_PIXEL" | "CALCULATE_FORCE" => {
            "it names no operation: say what is computed, or define a GPU_FUNCTION and CALCULATE with it"
        }
        "AES_ROUND" => "single rounds are no operation; encrypt whole arrays with `AES_BLOCK data key → out`",
        "ENCRYPT" | "ENCRYPT_AES" | "AES_ENCRYPT" => "write `AES_CTR data key counter → out`",
        "LOOKUP" => "write `LOAD table[index] → value`",
        "BILINEAR_SAMPLE" => "there is no sampler; use LERP between loaded pixels",
        "WARP_REDUCE" | "BLOCK_REDUCE" => "reduce through shared memory and SYNC_THREADS, or with ATOMIC_ADD",
        "WHILE" | "LOOP" | "REPEAT" | "GOTO" => "loops have bounds: `FOR i IN 0..n:`",
        "BREAK" | "CONTINUE" => "put the rest of the loop's body under an IF",
        "PRINT" | "PRINTF" => "threads cannot print; store the value into an array",
        "READ_FILE" | "WRITE_FILE" | "VALIDATE" => "it runs on the CPU: put it outside of the kernel",
        _ => return None,
    })
}

/// The finding about a word that starts no statement.
pub(crate) fn unknown(word: &Name) -> Diagnostic {
    let message = format!("`{}` is no statement", word.text);
    let found = Diagnostic::error("unknown-statement", word.span, message);
    if let Some(reason) = refused(&word.text) {
        return found.hint(reason);
    }
    match nearest(&word.text, crate::parse::words()) {
        Some(near) => found.hint(format!("did you mean `{near}`?")),
        None => found
            .hint("statements are listed in docs/primitives.md; new operations are made with GPU_FUNCTION"),
    }
}
