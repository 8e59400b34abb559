//! System-scope atomics in PTX text.
//!
//! Not a parser: the text is cut into words, and of those only the directives that begin a kernel or function, the
//! braces, and the opcodes are looked at. What `ptxas` accepts was tried with that of CUDA 13.0: the modifiers of an
//! opcode come in any order and may be set apart by white space and comments, comments do not nest, and strings span
//! lines and know no escapes.

use super::{Place, SystemAtomics};

/// Adds the kernels of the text, which may be followed by NUL bytes.
pub(super) fn find(text: &[u8], found: &mut SystemAtomics) {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    // Most images end here.
    if !text.windows(4).any(|bytes| bytes == b".sys") {
        return;
    }
    let mut scope = Scope::Module;
    let mut depth = 0usize;
    let mut instruction = Instruction::default();
    for token in (Tokens { rest: text }) {
        if let Token::Word(word) = token {
            if !word.starts_with(b".") {
                conclude(&mut instruction, &mut scope, found);
            }
            if depth == 0 {
                scope = scope.after(word);
            } else {
                instruction.extend(word);
            }
            continue;
        }
        conclude(&mut instruction, &mut scope, found);
        match token {
            Token::Mark(b'{') => depth += 1,
            Token::Mark(b'}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    scope = Scope::Module;
                }
            }
            // A declaration without a body.
            Token::Mark(b';') if depth == 0 => scope = Scope::Module,
            _ => {}
        }
    }
}

/// Ends an instruction's opcode. After a body's first such atomic the rest of it is of no interest, and belongs to
/// nothing: its name may be long, and must not be copied for each.
fn conclude(instruction: &mut Instruction, scope: &mut Scope<'_>, found: &mut SystemAtomics) {
    if !std::mem::take(instruction).is_system_atomic() {
        return;
    }
    match std::mem::replace(scope, Scope::Module) {
        Scope::Kernel(symbol) => found.add(Place::Kernel(symbol)),
        Scope::Function => found.add(Place::Function),
        Scope::Module | Scope::Entry => {}
    }
}

/// What the text belongs to.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// Nothing smaller than the module.
    Module,
    /// A kernel whose name is still to come.
    Entry,
    /// The kernel of that name, from there on (PTX ISA, "Kernel and Function Directives: .entry").
    Kernel(&'a [u8]),
    /// A device function (likewise `.func`).
    Function,
}

impl<'a> Scope<'a> {
    /// The scope after a word that is in no body.
    fn after(self, word: &'a [u8]) -> Self {
        match (self, word) {
            (_, b".entry") => Self::Entry,
            (_, b".func") => Self::Function,
            (Self::Entry, name) if !name.starts_with(b".") => Self::Kernel(name),
            _ => self,
        }
    }
}

/// What matters of an opcode and its modifiers.
#[derive(Debug, Default)]
struct Instruction {
    /// `atom`, `red`, `red.async` or `multimem.red`. No other opcode has a part of one of these names.
    atomic: bool,
    /// Of system scope; without a modifier it is that of the device (PTX ISA, "atom").
    system: bool,
    /// In shared memory, which no CPU sees.
    shared: bool,
}

impl Instruction {
    fn extend(&mut self, word: &[u8]) {
        for part in word.split(|byte| *byte == b'.') {
            match part {
                b"atom" | b"red" => self.atomic = true,
                b"sys" => self.system = true,
                _ if part.starts_with(b"shared") => self.shared = true,
                _ => {}
            }
        }
    }

    fn is_system_atomic(&self) -> bool {
        self.atomic && self.system && !self.shared
    }
}

/// A piece of the text that is neither white space, comment nor string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// An identifier, number, opcode or directive, with all that hangs on it by dots.
    Word(&'a [u8]),
    /// Any other character.
    Mark(u8),
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let [first, after @ ..] = self.rest else { return None };
            self.rest = match (first, after) {
                (b'/', [b'/', comment @ ..]) => behind(comment, b"\n"),
                (b'/', [b'*', comment @ ..]) => behind(comment, b"*/"),
                (b'"', string) => behind(string, b"\""),
                _ if first.is_ascii_whitespace() => after,
                _ => break,
            };
        }
        let (token, rest) = match word_len(self.rest) {
            0 => (Token::Mark(self.rest[0]), &self.rest[1..]),
            len => (Token::Word(&self.rest[..len]), &self.rest[len..]),
        };
        self.rest = rest;
        Some(token)
    }
}

/// What follows the first occurrence of the end; nothing if there is none.
fn behind<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|bytes| bytes == end);
    at.map_or(&[], |at| &text[at + end.len()..])
}

/// The length of the word at the start of the text.
fn word_len(text: &[u8]) -> usize {
    let mut len = 0;
    loop {
        match text[len..] {
            [byte, ..] if byte.is_ascii_alphanumeric() || b"_$%.".contains(&byte) => len += 1,
            // As in `shared::cluster`; a single colon ends a label.
            [b':', b':', ..] => len += 2,
            _ => return len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemAtomics;
    use super::find;

    /// What is found in a module with these kernels and functions.
    fn found(text: &str) -> SystemAtomics {
        let mut found = SystemAtomics::default();
        find(format!(".version 9.0\n.target sm_90\n.address_size 64\n{text}").as_bytes(), &mut found);
        found
    }

    /// Whether a kernel with that body counts.
    fn counts(body: &str) -> bool {
        let found =
            found(&format!(".visible .entry k(.param .u64 p)\n.maxntid 128, 1, 1\n{{\n{body}\nret;\n}}"));
        assert!(found.of("k") == found.any() && found.of("other") == found.everywhere, "{body}");
        found.of("k")
    }

    #[test]
    fn forms_that_ptxas_accepts_count() {
        for body in [
            "atom.sys.add.u32 %r1, [%rd1], 1;",
            "atom.acq_rel.sys.global.cas.b64 %rd3, [%rd1], %rd2, %rd4;",
            "atom.global.v4.f32.sys.add {%f1,%f2,%f3,%f4}, [%rd1], {%f5,%f6,%f7,%f8};",
            "red.relaxed.sys.global.add.f64 [%rd1], %fd1;",
            "red.async.mmio.release.sys.global.add.u32 [%rd1], 5;",
            "multimem.red.relaxed.sys.global.add.u32 [%rd1], %r1;",
            "@!%p1 atom.sys.add.u32 %r1, [%rd1], 1;",
            "$L1:atom.sys.add.u32 %r1, [%rd1], 1;",
            "{ .reg .u32 t; atom.sys.add.u32 t, [%rd1], 1; }",
            "atom .global\n.sys // why not\n.add .u32 %r1, [%rd1], 1;",
            "atom/**/.sys/* */.add.u32 %r1, [%rd1], 1;",
            "/* /* */ red.sys.add.u32 [%rd1], 1; // */",
            ".pragma \"a\\\"; red.sys.add.u32 [%rd1], 1; // \"",
            "call f, (%r1)\n;red.sys.add.u32 [%rd1], 1",
        ] {
            assert!(counts(body), "{body}");
        }
    }

    #[test]
    fn nothing_else_counts() {
        for body in [
            "atom.add.u32 %r1, [%rd1], 1; membar.sys;",
            "atom.gpu.global.add.u32 %r1, [%rd1], 1; fence.acq_rel.sys;",
            "ld.acquire.sys.global.u32 %r1, [%rd1]; atom.cluster.add.u32 %r1, [%rd1], 1;",
            "st.release.sys.global.u32 [%rd1], %r1; red.cta.add.u32 [%rd1], 1;",
            "multimem.ld_reduce.relaxed.sys.global.add.u32 %r1, [%rd1];",
            "atom.sys.shared.add.u32 %r1, [x], 1; red.relaxed.sys.shared::cluster.add.u32 [%r2], 1;",
            "redux.sync.add.u32 %r1, %r2, %r3; membar.sys;",
            "// atom.sys.add.u32 %r1, [%rd1], 1;",
            "/* atom.sys.add.u32 %r1, [%rd1], 1;\n// */",
            ".pragma \"\natom.sys.add.u32 %r1, [%rd1], 1;\";",
            "mov.u32 %r1, atom; ld.sys.u32 red, [%rd1];",
        ] {
            assert!(!counts(body), "{body}");
        }
    }

    #[test]
    fn an_atomic_belongs_to_the_kernel_around_it() {
        let found = found(
            ".global .align 4 .b8 table[8] = {1, 2, 3, 4};\n.extern .func (.param .b32 r) f(.param .b32 a);\n\
             .entry before;\n.entry before(){ red.gpu.add.u32 [%rd1], 1; }\n\
             .weak .entry _Z2inPi(.param .u64 a) .minnctapersm 1 { { red.sys.add.u32 [%rd1], 1; } }\n\
             .entry after{ membar.sys; }\n.section .debug_str { .b8 97 }\nred.sys.add.u32 [%rd1], 1;",
        );
        assert!(found.of("_Z2inPi"));
        assert!(!found.of("before") && !found.of("after") && !found.of("table"));
    }

    #[test]
    fn a_function_counts_for_every_kernel() {
        let function = ".visible .func (.param .b32 r) f(.param .u64 a)\n{ red.sys.add.u32 [%rd1], 1; }\n";
        let found = found(&format!("{function}.entry k() {{ ret; }}"));
        assert!(found.of("k") && found.any());
    }

    #[test]
    fn text_ends_with_its_first_nul() {
        assert!(!found(".entry k(){\0 red.sys.add.u32 [%rd1], 1; }").any());
        assert!(found(".entry k(){ red.sys.add.u32 [%rd1], 1; }\0\0\0").any());
    }

    #[test]
    fn text_may_end_anywhere() {
        let text =
            ".entry k(.param .u64 a){ /* */ \"\" shared::cta: { red.sys.add.u32 [%rd1], 1; } } // .sys\n";
        for end in 0..text.len() {
            let _ = found(&text[..end]);
            let _ = found(&format!(".sys {}", &text[end..]));
        }
    }
}
