//! Statements: assignment on every way, control flow, stores, atomics.

use super::expression::is_literal;
use super::lower::{Binding, Checked, Lower};
use super::word::{Operation, operation};
use crate::ast::{self, Identity, Name, Over, Place, Statement, StatementKind, Target};
use crate::diagnostic::{Diagnostic, Span};
use crate::ir::{ArrayRef, Atomic, AtomicOp, Expr, ExprKind, NO_SITE, Special, Stmt, TRUSTED_SITE, UnaryOp};
use crate::types::{Element, Scalar};

/// Blocks within blocks after functions are expanded; bounds the recursion of everything behind.
const MAX_DEPTH: usize = 128;

impl Lower<'_> {
    /// Lowers statements into a list of their own.
    fn nested(&mut self, body: &[Statement]) -> Vec<Stmt> {
        if self.depth >= MAX_DEPTH {
            if let Some(first) = body.first() {
                let message =
                    format!("blocks are nested deeper than {MAX_DEPTH} levels once functions are expanded");
                self.diagnostics.push(Diagnostic::error("nesting", first.span, message));
            }
            return Vec::new();
        }
        self.depth += 1;
        let before = std::mem::take(&mut self.out);
        for statement in body {
            // Reported where it happened; the next statement is checked for itself.
            let _ = self.statement(statement);
        }
        self.depth -= 1;
        std::mem::replace(&mut self.out, before)
    }

    pub(crate) fn statement(&mut self, statement: &Statement) -> Checked<()> {
        if self.diagnostics.full() || self.overflow {
            return Err(super::lower::Failed);
        }
        self.count(statement.span)?;
        if !self.trusted() {
            self.line = statement.span.line;
        }
        match &statement.kind {
            StatementKind::Identity(identity, target) => {
                let value = match identity {
                    Identity::Thread => Expr::special(Special::Thread),
                    Identity::Local => Expr::special(Special::Local),
                    Identity::Block => Expr::special(Special::Block),
                    Identity::BlockSize => Expr::int(self.unit.block.cast_signed()),
                    Identity::BlockCount => Expr::special(Special::Blocks),
                };
                self.assign(target, value, false)
            }
            StatementKind::Assign(target, value) => self.assignment(target, value),
            StatementKind::Word { word, operands, target, extra } => {
                self.word(word, operands, target.as_ref(), extra, statement.span)
            }
            StatementKind::Store { value, place } => {
                let (array, index) = self.element(place)?;
                let element = self.unit.element(array);
                let value = self.stored(value, element, place)?;
                self.store(array, index, value, place.array.span)
            }
            StatementKind::LoadRange { array, from, to, into } => self.load_range(array, from, to, into),
            StatementKind::Atomic { op, place, values, target } => {
                self.atomic(op, place, values, target.as_ref())
            }
            StatementKind::If { arms, otherwise } => self.conditional(arms, otherwise.as_deref()),
            StatementKind::For { var, from, to, step, body } => {
                self.counted(var, from, to, step.as_ref(), body)
            }
            StatementKind::ParallelFor { var, over, body } => {
                self.parallel(var.as_ref(), over, body, statement.span)
            }
            StatementKind::Sync => {
                self.emit(Stmt::Barrier { line: statement.span.line, column: statement.span.column });
                Ok(())
            }
            StatementKind::Require(condition) => self.require(condition),
            StatementKind::Return(_) => Err(self.error(
                Diagnostic::error(
                    "syntax",
                    statement.span,
                    "RETURN stands at the end of a GPU_FUNCTION only",
                )
                .hint("in a kernel, put what follows under an IF"),
            )),
        }
    }

    fn assignment(&mut self, target: &Name, value: &ast::Expr) -> Checked<()> {
        // A literal takes the type that its variable already has.
        if let Some(Binding::Var(var)) = self.lookup(&target.text)
            && is_literal(value)
        {
            let ty = self.unit.vars[var as usize].ty;
            let value = self.expression_as(value, ty, &format!("`{}`", target.text))?;
            return self.assign(target, value, false);
        }
        let lowered = self.expression(value);
        match lowered {
            Ok(lowered) => self.assign(target, lowered, is_literal(value)),
            Err(failed) => {
                // The name exists from here on, so that its uses are no further mistakes.
                if self.lookup(&target.text).is_none()
                    && let Ok(var) = self.target(target, Scalar::Float)
                {
                    self.assigned[var as usize] = true;
                    self.mistaken.insert(var);
                    self.frame().names.insert(target.text.clone(), Binding::Var(var));
                }
                Err(failed)
            }
        }
    }

    fn word(
        &mut self,
        word: &Name,
        operands: &[ast::Expr],
        target: Option<&Target>,
        extra: &[ast::Expr],
        span: Span,
    ) -> Checked<()> {
        let Some(operation) = operation(&word.text) else {
            return Err(self.error(super::word::unknown(word)));
        };
        if !extra.is_empty() && !matches!(operation, Operation::Whole(_)) {
            return Err(self.fail("syntax", extra[0].span, format!("`{}` has no DIMS", word.text)));
        }
        let (least, most) = match operation {
            Operation::Binary(_) => (2, 2),
            Operation::Not => (1, 1),
            Operation::Function(_, least, most) => (least, most),
            Operation::Whole(_) => {
                return Err(self.error(
                    Diagnostic::error(
                        "whole-kernel",
                        span,
                        format!("`{}` is a whole kernel's work", word.text),
                    )
                    .hint("make it the only statement of a kernel of its own"),
                ));
            }
        };
        if !(least..=most).contains(&operands.len()) {
            let expected = if least == most {
                format!("{least} operands")
            } else {
                format!("{least} to {most} operands")
            };
            return Err(self.wrong_count(&word.text, span, &expected, operands.len()));
        }
        let Some(target) = target else {
            return Err(self.error(
                Diagnostic::error("syntax", span, format!("the result of `{}` goes nowhere", word.text))
                    .expected(&["→"])
                    .hint(format!("name it: `{} … → result`", word.text)),
            ));
        };
        let value = match operation {
            Operation::Binary(op) => self.arithmetic(op, &operands[0], &operands[1], span),
            Operation::Not => self.invert(&operands[0]),
            Operation::Function(function, ..) => self.apply(word, function, operands, span),
            Operation::Whole(_) => unreachable!("handled above"),
        };
        match target {
            Target::Name(name) => match value {
                // Within PARALLEL FOR the name of an array means its element.
                Ok(value)
                    if self.frames.last().is_some_and(|f| f.element.is_some())
                        && matches!(self.resolve(&name.text), Some(Binding::Array(_))) =>
                {
                    let place = Place { array: name.clone(), index: None };
                    self.store_value(value, &place)
                }
                Ok(value) => self.assign(name, value, false),
                Err(failed) => {
                    if self.lookup(&name.text).is_none()
                        && let Ok(var) = self.target(name, Scalar::Float)
                    {
                        self.assigned[var as usize] = true;
                        self.mistaken.insert(var);
                    }
                    Err(failed)
                }
            },
            Target::Place(place) => self.store_value(value?, place),
        }
    }

    fn invert(&mut self, operand: &ast::Expr) -> Checked<Expr> {
        let value = self.expression(operand)?;
        match value.ty {
            Scalar::Bool => Ok(Expr::unary(UnaryOp::Not, value)),
            ty if ty.is_integer() => Ok(Expr::unary(UnaryOp::Invert, value)),
            ty => Err(self.fail("type", operand.span, format!("NOT of a {}", ty.name()))),
        }
    }

    /// The array and index of a place.
    fn element(&mut self, place: &Place) -> Checked<(ArrayRef, Expr)> {
        let array = self.array(&place.array)?;
        let index = match (&place.index, self.frames.last().and_then(|frame| frame.element.clone())) {
            (Some(index), _) => self.index(index)?,
            (None, Some(index)) => index,
            (None, None) => {
                return Err(self.error(
                    Diagnostic::error(
                        "type",
                        place.array.span,
                        format!("`{}` is an array; which element?", place.array.text),
                    )
                    .expected(&["["])
                    .hint(format!(
                        "write `{0}[index]`; to append, take a slot first: `ATOMIC_ADD count[0] 1 → slot`",
                        place.array.text
                    )),
                ));
            }
        };
        Ok((array, index))
    }

    /// The value that a store writes, in the element's value type.
    fn stored(&mut self, value: &ast::Expr, element: Element, place: &Place) -> Checked<Expr> {
        let what = format!("`{}`", place.array.text);
        if is_literal(value) {
            return self.expression_as(value, element.value(), &what);
        }
        let value_span = value.span;
        let value = self.expression(value)?;
        self.as_element(value, element, value_span, &what)
    }

    fn as_element(&mut self, value: Expr, element: Element, span: Span, what: &str) -> Checked<Expr> {
        if element == Element::Byte && value.ty == Scalar::Uint {
            return Ok(value.bits(Scalar::Int));
        }
        self.convert(value, false, element.value(), span, what)
    }

    fn store_value(&mut self, value: Expr, place: &Place) -> Checked<()> {
        let (array, index) = self.element(place)?;
        let element = self.unit.element(array);
        let value = self.as_element(value, element, place.array.span, &format!("`{}`", place.array.text))?;
        self.store(array, index, value, place.array.span)
    }

    fn store(&mut self, array: ArrayRef, index: Expr, value: Expr, span: Span) -> Checked<()> {
        if matches!(array, ArrayRef::Table(_)) {
            let message =
                format!("`{}` is a GPU_CONST table and cannot be written", self.unit.array_name(array));
            return Err(self.fail("assign", span, message));
        }
        let (site, line) = (if self.trusted() { TRUSTED_SITE } else { NO_SITE }, self.line);
        self.emit(Stmt::Store { array, index, value, site, line });
        Ok(())
    }

    fn atomic(
        &mut self,
        op: &Name,
        place: &Place,
        values: &[ast::Expr],
        target: Option<&Name>,
    ) -> Checked<()> {
        let kind = match op.text.as_str() {
            "ATOMIC_ADD" => AtomicOp::Add,
            "ATOMIC_MIN" => AtomicOp::Min,
            "ATOMIC_MAX" => AtomicOp::Max,
            "ATOMIC_AND" => AtomicOp::And,
            "ATOMIC_OR" => AtomicOp::Or,
            "ATOMIC_XOR" => AtomicOp::Xor,
            "ATOMIC_EXCH" => AtomicOp::Exchange,
            "ATOMIC_CAS" => AtomicOp::CompareExchange,
            _ => {
                let words =
                    ["ADD", "MIN", "MAX", "AND", "OR", "XOR", "EXCH", "CAS"].map(|w| format!("ATOMIC_{w}"));
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let message = format!("`{}` is no atomic operation", op.text);
                return Err(
                    self.error(Diagnostic::error("unknown-statement", op.span, message).expected(&words))
                );
            }
        };
        let (array, index) = self.element(place)?;
        let element = self.unit.element(array);
        let allowed = !matches!(array, ArrayRef::Table(_))
            && match element {
                Element::Int | Element::Uint => true,
                Element::Float => matches!(kind, AtomicOp::Add | AtomicOp::Exchange),
                Element::Double => kind == AtomicOp::Add,
                Element::Byte | Element::Half | Element::Pixel => false,
            };
        if !allowed {
            let message = format!("`{}` is not defined for {} elements", op.text, element.name());
            return Err(self.error(
                Diagnostic::error("type", place.array.span, message)
                    .hint("int and uint have all atomics, float ADD and EXCH, double ADD"),
            ));
        }
        let wanted = if kind == AtomicOp::CompareExchange { 2 } else { 1 };
        if values.len() != wanted {
            let expected = if wanted == 2 { "a compared and a new value" } else { "one value" };
            return Err(self.wrong_count(&op.text, op.span, expected, values.len()));
        }
        let mut lowered = Vec::new();
        for value in values {
            lowered.push(self.expression_as(value, element.value(), "the value")?);
        }
        let value = lowered.pop().expect("counted above");
        let compare = lowered.pop();
        let old = match target {
            Some(name) => {
                let var = self.target(name, element.value())?;
                if self.unit.vars[var as usize].ty != element.value() {
                    let message = format!("`{}` is {}", name.text, self.unit.vars[var as usize].ty.name());
                    return Err(self.fail("type", name.span, message));
                }
                self.assigned[var as usize] = true;
                Some(var)
            }
            None => None,
        };
        let (site, line) = (NO_SITE, self.line);
        self.emit(Stmt::Atomic(Box::new(Atomic { op: kind, old, array, index, value, compare, site, line })));
        Ok(())
    }

    fn conditional(
        &mut self,
        arms: &[(ast::Expr, Vec<Statement>)],
        otherwise: Option<&[Statement]>,
    ) -> Checked<()> {
        // Each further arm is an IF within the ELSE of the one before it.
        let mut stack = Vec::new();
        let mut results: Vec<(Vec<bool>, u32)> = Vec::new();
        for (condition, body) in arms {
            let line = condition.span.line;
            self.line = if self.trusted() { self.line } else { line };
            let condition = self.condition(condition).unwrap_or_else(|_| Expr::bool(true));
            let before = self.assigned.clone();
            let then = self.nested(body);
            results.push((std::mem::replace(&mut self.assigned, before), line));
            self.assigned.resize(self.unit.vars.len(), false);
            stack.push((condition, then, line, std::mem::take(&mut self.out)));
        }
        let before = self.assigned.clone();
        let mut rest = otherwise.map(|body| self.nested(body)).unwrap_or_default();
        let mut after = std::mem::replace(&mut self.assigned, before);
        after.resize(self.unit.vars.len(), false);
        let mut lines = Vec::new();
        for (mut assigned, line) in results {
            assigned.resize(self.unit.vars.len(), false);
            for (var, (merged, here)) in after.iter_mut().zip(&assigned).enumerate() {
                if *merged != *here {
                    lines.push((u32::try_from(var).expect("operations are bounded"), line));
                    *merged = false;
                }
            }
        }
        self.assigned = after;
        for (var, line) in lines {
            self.frame().partial.entry(var).or_insert(line);
        }
        for (condition, then, line, mut out) in stack.into_iter().rev() {
            out.push(Stmt::If { condition, then, otherwise: rest, line });
            rest = out;
        }
        self.out = rest;
        Ok(())
    }

    fn counter(&mut self, name: &Name) -> Checked<u32> {
        if self.lookup(&name.text).is_some() && !matches!(self.lookup(&name.text), Some(Binding::Counter(_)))
        {
            let message = format!("`{}` already names something else", name.text);
            return Err(self.fail("duplicate", name.span, message));
        }
        Ok(self.new_var(&name.text, Scalar::Int))
    }

    fn counted(
        &mut self,
        name: &Name,
        from: &ast::Expr,
        to: &ast::Expr,
        step: Option<&ast::Expr>,
        body: &[Statement],
    ) -> Checked<()> {
        let from = self.expression_as(from, Scalar::Int, "the loop's start");
        let to = self.expression_as(to, Scalar::Int, "the loop's end");
        let step = match step {
            None => Ok(Expr::int(1)),
            Some(step) => {
                let span = step.span;
                self.expression_as(step, Scalar::Int, "the step").and_then(|step| match step.constant_int() {
                    Some(1..) => Ok(step),
                    Some(_) => Err(self.error(
                        Diagnostic::error("step", span, "a step is positive")
                            .hint("count upwards and use `last - i` inside of the loop"),
                    )),
                    None => {
                        let step = self.temporary(step);
                        self.emit(Stmt::Require {
                            condition: Expr::compare(crate::ir::CompareOp::Gt, step.clone(), Expr::int(0)),
                            site: NO_SITE,
                            line: self.line,
                        });
                        Ok(step)
                    }
                })
            }
        };
        let var = self.counter(name)?;
        let shadowed = self.frame().names.insert(name.text.clone(), Binding::Counter(var));
        let runs = match (&from, &to) {
            (Ok(from), Ok(to)) => {
                matches!((from.constant_int(), to.constant_int()), (Some(a), Some(b)) if a < b)
            }
            _ => true,
        };
        let before = self.assigned.clone();
        self.assigned[var as usize] = true;
        let line = self.line;
        let body = self.nested(body);
        self.leave_loop(before, runs, line);
        self.assigned[var as usize] = false;
        match shadowed {
            Some(binding) => self.frame().names.insert(name.text.clone(), binding),
            None => self.frame().names.remove(&name.text),
        };
        let (from, to, step) = (from?, to?, step?);
        let to = self.reusable_bound(to);
        self.emit(Stmt::For { var, from, to, step, body, line });
        Ok(())
    }

    /// The bound of a loop is computed once, before it.
    fn reusable_bound(&mut self, to: Expr) -> Expr {
        match to.kind {
            ExprKind::Const(_) | ExprKind::Scalar(_) | ExprKind::Len(_) | ExprKind::Special(_) => to,
            _ => self.temporary(to),
        }
    }

    /// What a loop assigns has no value after it unless it runs at least once.
    fn leave_loop(&mut self, before: Vec<bool>, runs: bool, line: u32) {
        if runs {
            return;
        }
        let after = std::mem::replace(&mut self.assigned, before);
        self.assigned.resize(after.len(), false);
        for (var, assigned) in after.iter().enumerate() {
            if *assigned && !self.assigned[var] {
                let var = u32::try_from(var).expect("operations are bounded");
                self.frame().partial.entry(var).or_insert(line);
            }
        }
    }

    fn parallel(&mut self, name: Option<&Name>, over: &Over, body: &[Statement], span: Span) -> Checked<()> {
        if self.frames.last().is_some_and(|frame| frame.element.is_some()) {
            return Err(self.error(
                Diagnostic::error("nesting", span, "PARALLEL FOR within PARALLEL FOR")
                    .hint("use FOR for the inner loop"),
            ));
        }
        let (from, to) = match over {
            Over::Array(array) => {
                let array = self.array(array)?;
                (Expr::int(0), self.length(array))
            }
            Over::Range(from, to) => {
                let from = self.expression_as(from, Scalar::Int, "the loop's start")?;
                let to = self.expression_as(to, Scalar::Int, "the loop's end")?;
                (from, self.reusable_bound(to))
            }
        };
        let first = Expr::binary(crate::ir::BinaryOp::Add, Expr::special(Special::Thread), from);
        let var = match (name, over) {
            (Some(name), Over::Range(..)) => self.counter(name)?,
            _ => self.new_var("index", Scalar::Int),
        };
        let before = self.assigned.clone();
        self.assigned[var as usize] = true;
        let index = Expr::var(Scalar::Int, var);
        let line = self.line;
        let outer = std::mem::take(&mut self.out);
        match (name, over) {
            (Some(name), Over::Array(array)) => {
                if let Ok(array) = self.array(array) {
                    let value = self.load(array, index.clone());
                    // Reported where it happened.
                    let _ = self.assign(name, value, false);
                }
            }
            (Some(name), Over::Range(..)) => {
                self.frame().names.insert(name.text.clone(), Binding::Counter(var));
            }
            (None, _) => {}
        }
        self.frame().element = Some(index);
        let statements = self.nested(body);
        self.out.extend(statements);
        let body = std::mem::replace(&mut self.out, outer);
        self.frame().element = None;
        self.leave_loop(before, false, line);
        self.emit(Stmt::For { var, from: first, to, step: Expr::special(Special::Threads), body, line });
        Ok(())
    }

    /// `LOAD_COALESCED a[from:to] → buffer`.
    fn load_range(&mut self, array: &Name, from: &ast::Expr, to: &ast::Expr, into: &Name) -> Checked<()> {
        let source = self.array(array)?;
        let target = self.array(into)?;
        let ArrayRef::Shared(shared) = target else {
            return Err(self.error(
                Diagnostic::error("type", into.span, format!("`{}` is not shared memory", into.text)).hint(
                    format!(
                        "declare it: `GPU_SHARED_MEM {} {} 256`",
                        into.text,
                        self.unit.element(source).name()
                    ),
                ),
            ));
        };
        let (read, written) = (self.unit.element(source), self.unit.element(target));
        if read.value() != written.value() {
            let message =
                format!("`{}` holds {}, `{}` holds {}", array.text, read.name(), into.text, written.name());
            return Err(self.error(Diagnostic::error("type", into.span, message).hint(format!(
                "declare it: `GPU_SHARED_MEM {} {} …`",
                into.text,
                read.name()
            ))));
        }
        let Some(count) = range_length(from, to).filter(|count| *count > 0) else {
            return Err(self.error(
                Diagnostic::error(
                    "range",
                    from.span,
                    "the length of the range must be a constant above zero",
                )
                .hint("write the end as the start plus a number, as in `data[tid:tid+256]`"),
            ));
        };
        let length = self.unit.shared[shared as usize].length;
        if count > u64::from(length) {
            let message = format!("the range has {count} elements, `{}` has room for {length}", into.text);
            return Err(self.fail("bounds", into.span, message));
        }
        let span = from.span;
        let from = self.index(from)?;
        let count = u32::try_from(count).expect("at most the shared memory's length");
        self.emit(Stmt::LoadRange {
            array: source,
            from,
            count,
            shared,
            line: span.line,
            column: span.column,
        });
        Ok(())
    }
}

/// `to - from`, when that is a constant of the text.
fn range_length(from: &ast::Expr, to: &ast::Expr) -> Option<u64> {
    if let (ast::ExprKind::Int(a, _), ast::ExprKind::Int(b, _)) = (&from.kind, &to.kind) {
        return b.checked_sub(*a);
    }
    match &to.kind {
        ast::ExprKind::Binary(ast::Binary::Add, start, length) if same(start, from) => match length.kind {
            ast::ExprKind::Int(value, _) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

/// Whether two expressions are written alike.
fn same(a: &ast::Expr, b: &ast::Expr) -> bool {
    use ast::ExprKind as K;
    match (&a.kind, &b.kind) {
        (K::Int(x, _), K::Int(y, _)) => x == y,
        (K::Name(x), K::Name(y)) => x == y,
        (K::Unary(f, x), K::Unary(g, y)) => f == g && same(x, y),
        (K::Binary(f, x, y), K::Binary(g, u, v)) => f == g && same(x, u) && same(y, v),
        _ => false,
    }
}
