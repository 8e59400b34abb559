//! The primitive language: small kernels as text, checked, compiled to PTX or CUDA C, or run on the CPU.
//!
//! A guest may submit such a text instead of making CUDA calls; it is hostile input, and everything here is bounded:
//! text, nesting, operations, memory. The language is described in `docs/primitives.md`.
//!
//! Flow: [`compile`] → `lex` → `parse` (syntax, `ast`) → `check` (types and proofs, `ir`) → [`Kernel`]; then either
//! [`Kernel::plan`] → `ptx` (text and launches for a GPU), or [`Kernel::run_on_cpu`] → `cpu`, or [`emit_cuda`].

mod advise;
mod arith;
mod ast;
mod check;
mod cost;
mod cpu;
mod cuda;
mod diagnostic;
mod facts;
mod fault;
mod host;
mod intrinsics;
mod ir;
mod layout;
mod lex;
mod options;
mod parse;
mod plan;
mod program;
mod ptx;
mod turns;
mod types;

pub use cost::{Decision, Machine, Place, Prediction, Rate, Work};
pub use cpu::{CpuArg, CpuError, CpuOptions, CpuReport};
pub use cuda::emit_cuda;
pub use diagnostic::{Diagnostic, Severity, Span, to_json};
pub use fault::{FAULT_RECORD_BYTES, Fault, FaultKind};
pub use host::{Buffer, Executor, HostError, Value, Workspace, run_statements};
pub use options::Options;
pub use plan::{Access, Arg, Plan, PlanError, Request, Step};
pub use program::{Class, HostStatement, Kernel, Module, Param, Program, Target};
pub use types::{Element, ParamType, Scalar};

use diagnostic::Diagnostics;

/// The bits of a `half`, rounded to nearest even.
#[must_use]
pub fn half_bits(value: f32) -> u16 {
    arith::float_to_half(value)
}

/// The value of a `half`'s bits.
#[must_use]
pub fn half_value(bits: u16) -> f32 {
    arith::half_to_float(bits)
}

/// Stack of the thread that compiles: nesting is bounded, and this is more than the bounds can use in any build.
const STACK: usize = 32 << 20;

/// Compiles a program text.
///
/// # Errors
/// Every error of the text, up to [`Options::max_diagnostics`], in the order of the text; with them the warnings.
pub fn compile(text: &str, options: &Options) -> Result<Program, Vec<Diagnostic>> {
    if text.len() > options.max_text {
        let message =
            format!("the program has {} bytes; at most {} are allowed", text.len(), options.max_text);
        let span = Span { line: 1, column: 1, length: 1 };
        return Err(vec![Diagnostic::error("too-large", span, message)]);
    }
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(STACK).name("px-compile".to_owned());
        match compiler.spawn_scoped(scope, || compile_here(text, options)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => {
                let message = format!("no thread to compile with: {error}");
                Err(vec![Diagnostic::error("resources", Span { line: 1, column: 1, length: 1 }, message)])
            }
        }
    })
}

fn compile_here(text: &str, options: &Options) -> Result<Program, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::new(options.max_diagnostics);
    let syntax = parse::parse(text, options, false, &mut diagnostics);
    let host = host::check(&syntax, &mut diagnostics);
    let kernels = check::check(&syntax, intrinsics::prelude(), options, host.distribute, &mut diagnostics);
    if diagnostics.errors() == 0 && kernels.is_empty() && host.statements.is_empty() {
        let span = Span { line: 1, column: 1, length: 1 };
        diagnostics.push(
            Diagnostic::error("empty", span, "the text has no kernel and no statement")
                .expected(&["GPU_KERNEL"]),
        );
    }
    if diagnostics.errors() == 0 {
        advise::advise(&kernels, &mut diagnostics);
        if host.distribute {
            for kernel in &kernels {
                if let Err(reason) = kernel.divisible() {
                    let span = Span { line: kernel.line, column: 1, length: 1 };
                    let message =
                        format!("`{}` runs on one GPU whatever GPU_DISTRIBUTE says: {reason}", kernel.name);
                    diagnostics.push(Diagnostic::warning("not-divisible", span, message));
                }
            }
        }
    }
    let errors = diagnostics.errors();
    let found = diagnostics.finish();
    if errors > 0 {
        return Err(found);
    }
    let mut key = format!("{options:?}").into_bytes();
    key.extend_from_slice(text.as_bytes());
    Ok(Program {
        kernels,
        statements: host.statements,
        warnings: found,
        target: host.target,
        distribute: host.distribute,
        hash: program::hash(&key),
    })
}
