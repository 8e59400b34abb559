//! Statements that run on the CPU: files, validation, launches. They run in the process that holds the program, for
//! a guest the guest's own; the server never opens a file for one.

use std::collections::HashMap;
use std::path::Path;

use crate::arith::half_to_float;
use crate::ast;
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::program::{HostStatement, Kernel, Program, Target};
use crate::types::Element;

/// The statements of a text outside of its kernels.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    pub(crate) statements: Vec<HostStatement>,
    pub(crate) target: Target,
    pub(crate) distribute: bool,
}

/// Checks the statements outside of kernels.
pub(crate) fn check(program: &ast::Program, diagnostics: &mut Diagnostics) -> Statements {
    let mut made = Statements::default();
    let mut known: Vec<&str> = Vec::new();
    for host in &program.host {
        match host {
            ast::Host::Read { path, into, element } => {
                known.push(&into.text);
                let (path, into) = (path.clone(), into.text.clone());
                made.statements.push(HostStatement::ReadFile { path, into, element: *element });
            }
            ast::Host::Write { from, path } => {
                made.statements
                    .push(HostStatement::WriteFile { from: from.text.clone(), path: path.clone() });
            }
            ast::Host::Validate { name, status } => {
                let status = status.as_ref().map(|status| status.text.clone());
                made.statements.push(HostStatement::Validate { name: name.text.clone(), status });
            }
            ast::Host::Launch { kernel, blocks, threads } => {
                let names = program.kernels.iter().map(|kernel| kernel.name.text.as_str());
                if names.clone().all(|name| name != kernel.text) {
                    let message = format!("there is no kernel `{}`", kernel.text);
                    let found = Diagnostic::error("unknown-kernel", kernel.span, message);
                    diagnostics.push(match nearest(&kernel.text, names) {
                        Some(near) => found.hint(format!("did you mean `{near}`?")),
                        None => found,
                    });
                }
                let elements =
                    blocks.map(|blocks| blocks.saturating_mul(threads.map_or(256, |(threads, _)| threads)));
                made.statements.push(HostStatement::Launch { kernel: kernel.text.clone(), elements });
            }
            ast::Host::Sync => made.statements.push(HostStatement::Sync),
            ast::Host::Target(name) => match name.text.to_ascii_lowercase().as_str() {
                "auto" => made.target = Target::Auto,
                "cpu" => made.target = Target::Cpu,
                "gpu" => made.target = Target::Gpu,
                _ => {
                    let message = format!("`{}` is no target", name.text);
                    diagnostics.push(
                        Diagnostic::error("syntax", name.span, message).expected(&["auto", "cpu", "gpu"]),
                    );
                }
            },
            ast::Host::Distribute(name) => match name.text.to_ascii_lowercase().as_str() {
                "auto" | "range" => made.distribute = true,
                "none" => made.distribute = false,
                _ => {
                    let message = format!("`{}` is no strategy", name.text);
                    diagnostics.push(
                        Diagnostic::error("syntax", name.span, message).expected(&["auto", "range", "none"]),
                    );
                }
            },
        }
    }
    made
}

/// A named array of a running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// What its elements are.
    pub element: Element,
    /// Their bytes, little-endian.
    pub bytes: Vec<u8>,
}

/// What a name stands for while the statements of a program run.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An array.
    Buffer(Buffer),
    /// A number; becomes the type of the parameter that it is passed for.
    Number(f64),
}

/// The names of a running program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workspace {
    /// Each name's value.
    pub values: HashMap<String, Value>,
}

/// Runs a kernel wherever it decides to.
pub trait Executor {
    /// Runs `kernel` on the named values of the workspace and leaves the results there.
    ///
    /// # Errors
    /// Why it did not complete, in words.
    fn launch(
        &mut self,
        kernel: &Kernel,
        elements: Option<u64>,
        workspace: &mut Workspace,
    ) -> Result<(), String>;

    /// Waits for all launches.
    ///
    /// # Errors
    /// What went wrong in one of them, in words.
    fn sync(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Why the statements of a program did not complete.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: String,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A file that is not whole elements.
    #[error("{path} has {bytes} bytes, which are no whole elements of {element}")]
    Partial {
        /// The file.
        path: String,
        /// Its bytes.
        bytes: usize,
        /// The elements' type.
        element: &'static str,
    },
    /// A name that stands for nothing, or for a number.
    #[error("there is no buffer `{0}`")]
    NoBuffer(String),
    /// A kernel did not complete.
    #[error("kernel `{kernel}`: {message}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// Why.
        message: String,
    },
}

/// Runs the statements of a program in order; file names are relative to `directory`.
///
/// # Errors
/// [`HostError`] of the first statement that fails; what ran before has happened.
pub fn run_statements(
    program: &Program,
    directory: &Path,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
) -> Result<(), HostError> {
    for statement in program.statements() {
        match statement {
            HostStatement::ReadFile { path, into, element } => {
                let bytes = std::fs::read(directory.join(path))
                    .map_err(|source| HostError::File { path: path.clone(), source })?;
                if bytes.len() % element.bytes() != 0 {
                    let (path, bytes) = (path.clone(), bytes.len());
                    return Err(HostError::Partial { path, bytes, element: element.name() });
                }
                workspace.values.insert(into.clone(), Value::Buffer(Buffer { element: *element, bytes }));
            }
            HostStatement::WriteFile { from, path } => {
                let Some(Value::Buffer(buffer)) = workspace.values.get(from) else {
                    return Err(HostError::NoBuffer(from.clone()));
                };
                std::fs::write(directory.join(path), &buffer.bytes)
                    .map_err(|source| HostError::File { path: path.clone(), source })?;
            }
            HostStatement::Validate { name, status } => {
                let Some(Value::Buffer(buffer)) = workspace.values.get(name) else {
                    return Err(HostError::NoBuffer(name.clone()));
                };
                let valid = is_valid(buffer);
                if let Some(status) = status {
                    workspace.values.insert(status.clone(), Value::Number(f64::from(u8::from(valid))));
                } else if !valid {
                    let message = format!("`{name}` is empty or holds a NaN");
                    return Err(HostError::Launch { kernel: "VALIDATE".to_owned(), message });
                }
            }
            HostStatement::Launch { kernel, elements } => {
                let fail = |message| HostError::Launch { kernel: kernel.clone(), message };
                let found = program.kernel(kernel).expect("checked by the compiler");
                executor.launch(found, *elements, workspace).map_err(fail)?;
            }
            HostStatement::Sync => {
                let fail = |message| HostError::Launch { kernel: "GPU_SYNC".to_owned(), message };
                executor.sync().map_err(fail)?;
            }
        }
    }
    Ok(())
}

/// Not empty, and no NaN where NaNs are possible.
fn is_valid(buffer: &Buffer) -> bool {
    let number = |chunk: &[u8]| match chunk {
        [a, b] => f64::from(half_to_float(u16::from_le_bytes([*a, *b]))),
        [a, b, c, d] => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
        _ => chunk.try_into().map_or(0.0, f64::from_le_bytes),
    };
    let floating = matches!(buffer.element, Element::Half | Element::Float | Element::Double);
    let mut elements = buffer.bytes.chunks_exact(buffer.element.bytes());
    !buffer.bytes.is_empty() && (!floating || elements.all(|chunk| !number(chunk).is_nan()))
}
