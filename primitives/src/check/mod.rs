//! The checker: syntax to typed units, with every error at once.
//!
//! Flow: [`check`] binds functions and tables, lowers each kernel (`lower`, `statement`, `expression`, `builtin`),
//! runs the passes of `expand`, numbers and proves the places that may fault (`sites`), simplifies indices (`linear`), and looks for barriers under
//! divergence (`uniform`). A kernel whose one statement is a whole kernel's work is made by [`crate::intrinsics`].

mod builtin;
mod expand;
mod expression;
mod linear;
mod lower;
pub(crate) mod sites;
mod statement;
pub(crate) mod uniform;
pub(crate) mod word;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use lower::Library;

use crate::ast::{self, Name, StatementKind};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::intrinsics::{self, Schedule, Stage};
use crate::ir::{Shared, Table, Unit};
use crate::options::Options;
use crate::program::{Class, Kernel, Param};
use crate::types::{Element, Scalar};

/// What a program's kernels became.
pub(crate) fn check(
    program: &ast::Program,
    prelude: &ast::Program,
    options: &Options,
    offset: bool,
    diagnostics: &mut Diagnostics,
) -> Vec<Kernel> {
    let mut functions = HashMap::new();
    for function in prelude.functions.iter().chain(&program.functions) {
        let name = function.name.text.as_str();
        let replaced = functions.insert(name, function);
        if replaced.is_some_and(|replaced| !replaced.trusted) {
            let message = format!("there are two functions `{name}`");
            diagnostics.push(Diagnostic::error("duplicate", function.name.span, message));
        }
    }
    let mut tables: HashMap<&str, Arc<Table>> = HashMap::new();
    for table in prelude.constants.iter().chain(&program.constants) {
        if let Some(made) = make_table(table, diagnostics)
            && tables.insert(&table.name.text, Arc::new(made)).is_some()
        {
            let message = format!("there are two tables `{}`", table.name.text);
            diagnostics.push(Diagnostic::error("duplicate", table.name.span, message));
        }
    }
    let library = Library { functions, tables };
    check_functions(program, &library, options, diagnostics);
    let mut kernels: Vec<Kernel> = Vec::new();
    for kernel in &program.kernels {
        if diagnostics.full() {
            break;
        }
        if kernels.iter().any(|other| other.name == kernel.name.text) {
            let message = format!("there are two kernels `{}`", kernel.name.text);
            diagnostics.push(Diagnostic::error("duplicate", kernel.name.span, message));
            continue;
        }
        let block = launch_block(program, kernel, options, diagnostics);
        kernels.extend(check_kernel(kernel, block, &library, options, offset, diagnostics));
    }
    kernels
}

/// A function that no kernel calls is checked as well, with values of its parameters' types.
fn check_functions(
    program: &ast::Program,
    library: &Library<'_>,
    options: &Options,
    diagnostics: &mut Diagnostics,
) {
    for function in &program.functions {
        if diagnostics.full() {
            return;
        }
        let unit = empty_unit(&function.name.text, options.block_size);
        let mut lower = lower::Lower::new(library, options, diagnostics, unit);
        let arguments: Vec<ast::Expr> = function
            .params
            .iter()
            .map(|param| ast::Expr {
                span: param.name.span,
                kind: ast::ExprKind::Name(param.name.text.clone()),
            })
            .collect();
        lower.unit.params = params(&function.params)
            .into_iter()
            .map(|p| crate::ir::Param { name: p.name, ty: p.ty })
            .collect();
        lower.bind_params(&function.params);
        // What is wrong has been reported.
        let _ = lower.call(&function.name, &arguments, function.name.span);
    }
}

/// Threads of a block: as GPU_BLOCK or GPU_LAUNCH say, else the default.
fn launch_block(
    program: &ast::Program,
    kernel: &ast::Kernel,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> u32 {
    let launched = program.host.iter().find_map(|host| match host {
        ast::Host::Launch { kernel: name, threads, .. } if name.text == kernel.name.text => *threads,
        _ => None,
    });
    match kernel.block.or(launched) {
        None => options.block_size,
        Some((threads @ 1..=1024, _)) => u32::try_from(threads).expect("at most 1024"),
        Some((threads, span)) => {
            let message = format!("a block has 1 to 1024 threads, not {threads}");
            diagnostics.push(Diagnostic::error("block-size", span, message));
            options.block_size
        }
    }
}

fn params(list: &[ast::Param]) -> Vec<Param> {
    list.iter().map(|param| Param { name: param.name.text.clone(), ty: param.ty }).collect()
}

fn empty_unit(name: &str, block: u32) -> Unit {
    Unit {
        name: name.to_owned(),
        params: Vec::new(),
        shared: Vec::new(),
        tables: Vec::new(),
        vars: Vec::new(),
        body: Vec::new(),
        sites: Vec::new(),
        block,
        whole_blocks: false,
        unchecked: false,
        offset: false,
    }
}

fn check_kernel(
    kernel: &ast::Kernel,
    block: u32,
    library: &Library<'_>,
    options: &Options,
    offset: bool,
    diagnostics: &mut Diagnostics,
) -> Option<Kernel> {
    let errors = diagnostics.errors();
    let (class, unchecked) = attributes(&kernel.attributes, options, diagnostics);
    if kernel.params.len() > options.max_params {
        let message = format!(
            "the kernel has {} parameters; at most {} are allowed",
            kernel.params.len(),
            options.max_params
        );
        diagnostics.push(Diagnostic::error("too-large", kernel.name.span, message));
        return None;
    }
    let mut work = kernel.body.iter().filter(|s| !matches!(s.kind, StatementKind::Identity(..)));
    let whole = match (work.next(), work.next()) {
        (Some(statement), None) => match &statement.kind {
            StatementKind::Word { word, operands, target, extra } => match word::operation(&word.text) {
                Some(word::Operation::Whole(whole)) => {
                    Some((whole, word, operands, target.as_ref(), extra, statement.span))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let mut made = Kernel {
        name: kernel.name.text.clone(),
        class,
        params: params(&kernel.params),
        line: kernel.name.span.line,
        stages: Vec::new(),
        schedule: Schedule::Map,
        variants: std::sync::Mutex::default(),
    };
    if let Some((whole, word, operands, target, extra, span)) = whole {
        let request = intrinsics::Request { kernel: &made, whole, word, operands, target, extra, span };
        let (stages, schedule) = intrinsics::build(&request, diagnostics)?;
        made.stages = stages;
        made.schedule = schedule;
        return (diagnostics.errors() == errors).then_some(made);
    }
    let mut unit = empty_unit(&kernel.name.text, block);
    unit.params = made.params.iter().map(|p| crate::ir::Param { name: p.name.clone(), ty: p.ty }).collect();
    unit.unchecked = unchecked || options.unchecked;
    unit.offset = offset;
    shared(&mut unit, kernel, options, diagnostics);
    let mut lower = lower::Lower::new(library, options, diagnostics, unit);
    lower.bind_params(&kernel.params);
    bind_shared(&mut lower, kernel);
    for statement in &kernel.body {
        // Reported where it happened; the next statement is checked for itself.
        let _ = lower.statement(statement);
    }
    let mut unit = lower.unit;
    unit.body = lower.out;
    if diagnostics.errors() != errors {
        return None;
    }
    finish(&mut unit, diagnostics);
    if diagnostics.errors() != errors {
        return None;
    }
    let sources = (0..unit.params.len()).map(intrinsics::Source::Param).collect();
    made.stages = vec![Stage { unit, sources }];
    Some(made)
}

/// The passes behind lowering.
fn finish(unit: &mut Unit, diagnostics: &mut Diagnostics) {
    let mut barrier = !unit.shared.is_empty();
    crate::ir::visit_statements(&unit.body, &mut |stmt| {
        barrier |= matches!(stmt, crate::ir::Stmt::Barrier { .. });
    });
    unit.whole_blocks = barrier;
    for (line, column) in expand::finish(unit) {
        let span = Span { line, column, length: 1 };
        diagnostics.push(
            Diagnostic::error(
                "range",
                span,
                "the range must start at the same place for all threads of a block",
            )
            .hint("start it at THREAD_ID, or at a value made of BLOCK_ID and parameters"),
        );
    }
    sites::number(unit, diagnostics);
    linear::simplify(unit);
    // Definitions stay where they are known: the proofs go by them.
    expand::sweep(unit);
    uniform::barriers(unit, diagnostics);
}

fn attributes(attributes: &[Name], options: &Options, diagnostics: &mut Diagnostics) -> (Class, bool) {
    let mut class = Class::Default;
    let mut unchecked = false;
    for attribute in attributes {
        match attribute.text.as_str() {
            "LATENCY_CRITICAL" | "REALTIME" => class = Class::LatencyCritical,
            "INTERACTIVE" => class = Class::Interactive,
            "THROUGHPUT" => class = Class::Throughput,
            "BATCH" => class = Class::Batch,
            "UNCHECKED" if options.allow_unchecked => unchecked = true,
            "UNCHECKED" => diagnostics.push(
                Diagnostic::error("policy", attribute.span, "UNCHECKED is not allowed here")
                    .hint("the operator's policy decides; checks that can be proven cost nothing"),
            ),
            other => diagnostics.push(
                Diagnostic::error("syntax", attribute.span, format!("`{other}` is no property of a kernel"))
                    .expected(&["LATENCY_CRITICAL", "INTERACTIVE", "THROUGHPUT", "BATCH", "UNCHECKED"]),
            ),
        }
    }
    (class, unchecked)
}

fn shared(unit: &mut Unit, kernel: &ast::Kernel, options: &Options, diagnostics: &mut Diagnostics) {
    let mut total = 0u64;
    for shared in &kernel.shared {
        let bytes = shared.length.saturating_mul(shared.element.bytes() as u64).next_multiple_of(16);
        total = total.saturating_add(bytes);
        if shared.length == 0 {
            let message = format!("`{}` has no elements", shared.name.text);
            diagnostics.push(Diagnostic::error("bounds", shared.name.span, message));
        }
        if total > options.max_shared as u64 {
            let message = format!(
                "the block's shared memory is {total} bytes with `{}`; at most {} are allowed",
                shared.name.text, options.max_shared
            );
            diagnostics.push(Diagnostic::error("shared-memory", shared.name.span, message));
            return;
        }
        unit.shared.push(Shared {
            name: shared.name.text.clone(),
            element: shared.element,
            length: u32::try_from(shared.length).expect("below the limit of shared memory"),
        });
    }
}

fn bind_shared(lower: &mut lower::Lower<'_>, kernel: &ast::Kernel) {
    for (index, shared) in kernel.shared.iter().enumerate() {
        let number = u32::try_from(index).expect("shared memory is bounded");
        let binding = lower::Binding::Array(crate::ir::ArrayRef::Shared(number));
        if lower.frame().names.insert(shared.name.text.clone(), binding).is_some() {
            let message = format!("`{}` already names something else", shared.name.text);
            lower.fail("duplicate", shared.name.span, message);
        }
    }
}

/// The stored bits of a constant table.
fn make_table(table: &ast::ConstantTable, diagnostics: &mut Diagnostics) -> Option<Table> {
    // What a kernel's constant bank holds, in 32-bit elements.
    const MOST: usize = 16_384;
    let mut bits = Vec::new();
    if table.values.is_empty() || table.values.len() > MOST {
        let message =
            format!("`{}` has {} values; 1 to {MOST} are allowed", table.name.text, table.values.len());
        diagnostics.push(Diagnostic::error("table", table.name.span, message));
        return None;
    }
    for value in &table.values {
        match table_value(value, table.element) {
            Some(value) => bits.push(value),
            None => {
                let message = format!("this is no {} constant", table.element.name());
                diagnostics.push(Diagnostic::error("table", value.span, message).expected(&["a number"]));
                return None;
            }
        }
    }
    Some(Table { name: table.name.text.clone(), element: table.element, bits })
}

fn table_value(value: &ast::Expr, element: Element) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, reason = "the lexer allows 32 bits")]
    fn number(value: &ast::Expr) -> Option<(f64, bool)> {
        match &value.kind {
            ast::ExprKind::Int(value, _) => Some((*value as f64, true)),
            ast::ExprKind::Float(value, _) => Some((*value, false)),
            ast::ExprKind::Unary(ast::Unary::Negative, inner) => {
                number(inner).map(|(value, whole)| (-value, whole))
            }
            _ => None,
        }
    }
    let (value, whole) = number(value)?;
    let ty = if element == Element::Pixel { Scalar::Uint } else { element.value() };
    let crate::ir::ExprKind::Const(bits) = expression::constant(value, whole, ty)?.kind else { return None };
    Some(match element {
        Element::Byte => (0.0..256.0).contains(&value).then_some(bits)?,
        Element::Half => u64::from(crate::arith::float_to_half(crate::arith::float(bits))),
        _ => bits,
    })
}

/// Compiles the text of an intrinsic: one kernel per unit, checks left to its own REQUIREs. Units whose names begin with
/// `entry` begin with `name` instead.
pub(crate) fn compile_trusted(text: &str, entry: &str, name: &str) -> Vec<Unit> {
    let options = Options {
        max_text: usize::MAX,
        max_operations: 1_000_000,
        max_params: 64,
        unchecked: true,
        allow_unchecked: true,
        ..Options::default()
    };
    let mut diagnostics = Diagnostics::new(8);
    let program = crate::parse::parse(text, &options, true, &mut diagnostics);
    let kernels = check(&program, intrinsics::prelude(), &options, false, &mut diagnostics);
    let found = diagnostics.finish();
    assert!(found.is_empty(), "an intrinsic's own text is wrong: {found:?}\n{text}");
    let units = kernels.into_iter().flat_map(|kernel| kernel.stages).map(|stage| stage.unit);
    let renamed = |unit: Unit| match unit.name.strip_prefix(entry) {
        Some(suffix) => Unit { name: format!("{name}{suffix}"), ..unit },
        None => unit,
    };
    units.map(renamed).collect()
}
