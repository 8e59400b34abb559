//! What stands outside of thread code: kernels, functions, tables, and the statements that run on the CPU.

use super::{Parsed, Parser};
use crate::ast::{self, Function, Host, Kernel, Param, Shared};
use crate::diagnostic::{Diagnostic, nearest};
use crate::types::{Element, ParamType};

const WORDS: [&str; 12] = [
    "GPU_KERNEL",
    "GPU_FUNCTION",
    "GPU_CONST",
    "GPU_LAUNCH",
    "GPU_SYNC",
    "GPU_TARGET",
    "GPU_DISTRIBUTE",
    "READ_FILE",
    "WRITE_FILE",
    "VALIDATE",
    "GPU_PARAM",
    "GPU_END",
];

/// Words of the language's documents that have no meaning here, and why.
fn refused(word: &str) -> Option<&'static str> {
    Some(match word {
        "COMPRESS" | "PARALLEL_COMPRESS" | "DECOMPRESS" => {
            "no compressor is part of the language: it is not a data-parallel statement with one defined result"
        }
        "ENCRYPT" => "name the cipher inside a kernel: `AES_CTR data key counter → out`",
        "READ_VIDEO" | "SEND_NETWORK" | "RECEIVE_NETWORK" => {
            "the CPU side reads and writes files only (READ_FILE, WRITE_FILE)"
        }
        "GPU_ALLOC" | "GPU_FREE" | "GPU_COPY_TO_GPU" | "GPU_COPY_FROM_GPU" => {
            "memory is managed for you; a buffer is made by READ_FILE or passed by the caller"
        }
        "GPU_SELECT" => "use `GPU_DISTRIBUTE strategy=range` to use several GPUs",
        "WRITE" | "CALL" | "DEFINE" => "machine code primitives are another language; this one computes",
        _ => return None,
    })
}

impl Parser<'_> {
    pub(super) fn program(&mut self) -> ast::Program {
        let mut program = ast::Program::default();
        while !self.done() {
            self.at = 0;
            let line = self.line;
            // Whatever fails has been reported; the next line is a fresh start.
            let _ = self.item(&mut program);
            if self.line == line {
                self.next_line();
            }
            if program.kernels.len() + program.functions.len() + program.constants.len()
                > self.options.max_kernels
            {
                let message = format!("more than {} kernels, functions and tables", self.options.max_kernels);
                self.report(Diagnostic::error("too-many-kernels", self.place(), message));
                break;
            }
            if program.host.len() > 1024 {
                self.report(Diagnostic::error(
                    "too-many-statements",
                    self.place(),
                    "more than 1024 CPU statements",
                ));
                break;
            }
        }
        program
    }

    fn item(&mut self, program: &mut ast::Program) -> Parsed<()> {
        let Some(word) = self.word().map(str::to_owned) else {
            return Err(self.unexpected(&["GPU_KERNEL", "a statement"]));
        };
        let place = self.place();
        self.at += 1;
        match word.as_str() {
            "GPU_KERNEL" => {
                let kernel = self.kernel()?;
                program.kernels.push(kernel);
                return Ok(());
            }
            "GPU_FUNCTION" => {
                let function = self.function()?;
                program.functions.push(function);
                return Ok(());
            }
            "GPU_CONST" => {
                let table = self.table()?;
                program.constants.push(table);
                return Ok(());
            }
            "READ_FILE" => {
                let path = self.path()?;
                if !self.eat_word("INTO") {
                    return Err(self.unexpected(&["INTO"]));
                }
                let into = self.name("a buffer name")?;
                let element = if self.eat_word("AS") {
                    match self.ty()? {
                        ParamType::Array(element) | ParamType::Scalar(element) => element,
                    }
                } else {
                    Element::Byte
                };
                program.host.push(Host::Read { path, into, element });
            }
            "WRITE_FILE" => {
                let from = self.name("a buffer name")?;
                if !self.eat_word("TO") && !self.eat_mark("->") {
                    return Err(self.unexpected(&["TO"]));
                }
                let path = self.path()?;
                program.host.push(Host::Write { from, path });
            }
            "VALIDATE" => {
                let name = self.name("a buffer name")?;
                let status = if self.eat_mark("->") { Some(self.name("a name")?) } else { None };
                program.host.push(Host::Validate { name, status });
            }
            "GPU_LAUNCH" => {
                let kernel = self.name("a kernel name")?;
                let (mut blocks, mut threads) = (None, None);
                while !self.at_end() {
                    if self.eat_word("BLOCKS") {
                        blocks = Some(self.whole("a number of blocks")?.0);
                    } else if self.eat_word("THREADS") {
                        threads = Some(self.whole("a number of threads")?);
                    } else {
                        return Err(self.unexpected(&["BLOCKS", "THREADS"]));
                    }
                }
                program.host.push(Host::Launch { kernel, blocks, threads });
            }
            "GPU_SYNC" => program.host.push(Host::Sync),
            "GPU_TARGET" => {
                let target = self.name("auto, cpu or gpu")?;
                program.host.push(Host::Target(target));
            }
            "GPU_DISTRIBUTE" => {
                if self.eat_word("strategy") && !self.eat_mark("=") {
                    return Err(self.unexpected(&["="]));
                }
                let strategy = self.name("auto, range or none")?;
                program.host.push(Host::Distribute(strategy));
            }
            _ => {
                let found =
                    Diagnostic::error("unknown-statement", place, format!("`{word}` is no statement here"));
                let found = match (refused(&word), nearest(&word, WORDS)) {
                    (Some(reason), _) => found.hint(reason),
                    (None, Some(near)) => found.hint(format!("did you mean `{near}`?")),
                    (None, None) if super::statement::is_word(&word) => {
                        found.hint("thread statements stand between GPU_THREAD_CODE: and GPU_END")
                    }
                    (None, None) => found.expected(&["GPU_KERNEL", "GPU_FUNCTION", "READ_FILE"]),
                };
                return Err(self.report(found));
            }
        }
        self.expect_end()?;
        self.next_line();
        Ok(())
    }

    /// `float`, `float[]` or `float*`.
    fn ty(&mut self) -> Parsed<ParamType> {
        let place = self.place();
        let name = self.name("a type")?;
        let Some(element) = Element::from_name(&name.text) else {
            let names = Element::ALL.map(Element::name);
            let found = Diagnostic::error("unknown-type", place, format!("`{}` is no type", name.text))
                .expected(&names);
            let found = match nearest(&name.text, names) {
                Some(near) => found.hint(format!("did you mean `{near}`?")),
                None if matches!(name.text.as_str(), "long" | "ulong" | "int64" | "i64" | "u64") => {
                    found.hint("integers are 32 bits wide")
                }
                None => found,
            };
            return Err(self.report(found));
        };
        if self.eat_mark("*") {
            return Ok(ParamType::Array(element));
        }
        if self.eat_mark("[") {
            self.expect_mark("]")?;
            return Ok(ParamType::Array(element));
        }
        Ok(ParamType::Scalar(element))
    }

    fn kernel(&mut self) -> Parsed<Kernel> {
        let name = self.name("a kernel name");
        let mut attributes = Vec::new();
        while let Some(word) = self.word() {
            attributes.push(ast::Name { text: word.to_owned(), span: self.place() });
            self.at += 1;
        }
        let _ = self.expect_end();
        let header = self.line;
        self.next_line();
        let mut kernel = Kernel {
            name: name
                .unwrap_or_else(|_| ast::Name { text: "unnamed".to_owned(), span: self.lines[header].end }),
            attributes,
            params: Vec::new(),
            shared: Vec::new(),
            block: None,
            body: Vec::new(),
        };
        let mut code = false;
        while !self.done() {
            self.at = 0;
            match self.word().unwrap_or("") {
                "GPU_END" => {
                    self.at = 1;
                    let _ = self.expect_end();
                    self.next_line();
                    if !code {
                        let message = format!("kernel `{}` has no GPU_THREAD_CODE:", kernel.name.text);
                        self.report(
                            Diagnostic::error("syntax", kernel.name.span, message)
                                .expected(&["GPU_THREAD_CODE:"]),
                        );
                    }
                    return Ok(kernel);
                }
                "GPU_KERNEL" | "GPU_FUNCTION" | "READ_FILE" | "WRITE_FILE" | "GPU_LAUNCH" => break,
                "GPU_THREAD_CODE" => {
                    code = true;
                    self.at = 1;
                    let _ = self.expect_mark(":").and_then(|()| self.expect_end());
                    self.next_line();
                    kernel.body.extend(self.block(None));
                }
                _ => {
                    let _ = self.declaration(&mut kernel);
                    self.next_line();
                }
            }
        }
        let message = format!("kernel `{}` has no GPU_END", kernel.name.text);
        self.report(Diagnostic::error("syntax", kernel.name.span, message).expected(&["GPU_END"]));
        Ok(kernel)
    }

    fn declaration(&mut self, kernel: &mut Kernel) -> Parsed<()> {
        let word = self.word().unwrap_or("").to_owned();
        let place = self.place();
        self.at += 1;
        match word.as_str() {
            "GPU_PARAM" => {
                let name = self.name("a parameter name")?;
                let ty = self.ty()?;
                kernel.params.push(Param { name, ty });
            }
            "GPU_SHARED_MEM" | "GPU_SHARED" => {
                let name = self.name("a name for the shared memory")?;
                let element = match self.word() {
                    Some(_) => match self.ty()? {
                        ParamType::Array(element) | ParamType::Scalar(element) => element,
                    },
                    None => Element::Float,
                };
                let mut length = 1u64;
                loop {
                    length = length.saturating_mul(self.whole("a number of elements")?.0);
                    if !self.eat_mark("*") {
                        break;
                    }
                }
                kernel.shared.push(Shared { name, element, length });
            }
            "GPU_BLOCK" | "GPU_BLOCK_SIZE" => kernel.block = Some(self.whole("a number of threads")?),
            "GPU_TARGET" | "GPU_DISTRIBUTE" => {
                return Err(self.report(
                    Diagnostic::error("syntax", place, format!("`{word}` does not belong into a kernel"))
                        .hint("it holds for the whole program: put it before GPU_KERNEL"),
                ));
            }
            _ => {
                self.at -= 1;
                if super::statement::is_word(&word) {
                    return Err(self.unexpected_hint(
                        &["GPU_THREAD_CODE:"],
                        "what a thread does comes after a line `GPU_THREAD_CODE:`",
                    ));
                }
                return Err(self.unexpected(&["GPU_PARAM", "GPU_SHARED_MEM", "GPU_THREAD_CODE:"]));
            }
        }
        self.expect_end()
    }

    /// `GPU_FUNCTION name(x int, y int) → pixel:` up to `GPU_END`.
    fn function(&mut self) -> Parsed<Function> {
        let header = self.function_header();
        self.next_line();
        let body = self.block(None);
        if self.word() == Some("GPU_END") {
            self.next_line();
        } else {
            self.report(
                Diagnostic::error("syntax", self.place(), "the function has no GPU_END")
                    .expected(&["GPU_END"]),
            );
        }
        let (name, params, result) = header?;
        Ok(Function { name, params, result, body, trusted: self.trusted })
    }

    fn function_header(&mut self) -> Parsed<(ast::Name, Vec<Param>, Element)> {
        let name = self.name("a function name")?;
        self.expect_mark("(")?;
        let mut params = Vec::new();
        if !self.eat_mark(")") {
            loop {
                let name = self.name("a parameter name")?;
                let ty = self.ty()?;
                params.push(Param { name, ty });
                if self.eat_mark(")") {
                    break;
                }
                if !self.eat_mark(",") {
                    return Err(self.unexpected(&[",", ")"]));
                }
            }
        }
        self.expect_mark("->")?;
        let place = self.place();
        let ParamType::Scalar(result) = self.ty()? else {
            return Err(self.report(Diagnostic::error(
                "type",
                place,
                "a function returns one value, not an array",
            )));
        };
        self.expect_mark(":")?;
        self.expect_end()?;
        Ok((name, params, result))
    }

    /// `GPU_CONST name type[] v v v`; goes on on indented lines.
    fn table(&mut self) -> Parsed<ast::ConstantTable> {
        let name = self.name("a table name")?;
        let (ParamType::Array(element) | ParamType::Scalar(element)) = self.ty()?;
        let mut values = Vec::new();
        let indent = self.lines[self.line].indent;
        loop {
            while !self.at_end() {
                values.push(self.operand()?);
                self.eat_mark(",");
            }
            self.next_line();
            if self.done() || self.lines[self.line].indent <= indent {
                break;
            }
        }
        Ok(ast::ConstantTable { name, element, values })
    }
}
