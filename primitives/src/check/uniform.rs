//! Barriers under divergence: a barrier must be reached by all threads of a block or by none.

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::ir::{ArrayRef, Expr, ExprKind, Special, Stmt, Unit};

/// Reports barriers that only some threads of a block may reach.
pub(crate) fn barriers(unit: &Unit, diagnostics: &mut Diagnostics) {
    let varying = varying(unit);
    walk(&unit.body, &varying, None, diagnostics);
}

/// Which variables may differ within a block, by value or because not all threads assign them.
pub(crate) fn varying(unit: &Unit) -> Vec<bool> {
    let mut varying = vec![false; unit.vars.len()];
    // Grows only, one pass after another until nothing changes: at most one variable per pass in theory, a few in
    // practice; what is left after that counts as differing.
    for _ in 0..32 {
        let before = varying.clone();
        mark(&unit.body, false, &mut varying);
        if varying == before {
            return varying;
        }
    }
    vec![true; unit.vars.len()]
}

/// Whether a value may differ within a block.
pub(crate) fn differs(expr: &Expr, varying: &[bool]) -> bool {
    let mut found = false;
    expr.visit(&mut |e| {
        found |= match e.kind {
            ExprKind::Var(var) => varying[var as usize],
            ExprKind::Special(special) => matches!(special, Special::Thread | Special::Local),
            _ => false,
        };
    });
    found
}

fn mark(body: &[Stmt], divergent: bool, varying: &mut [bool]) {
    for stmt in body {
        match stmt {
            Stmt::Assign { var, value } => varying[*var as usize] |= divergent || differs(value, varying),
            // Memory may change between the loads of two threads; a table does not.
            Stmt::Load { var, array, index, .. } => {
                varying[*var as usize] |=
                    divergent || !matches!(array, ArrayRef::Table(_)) || differs(index, varying);
            }
            Stmt::Atomic(atomic) => {
                if let Some(var) = atomic.old {
                    varying[var as usize] = true;
                }
            }
            Stmt::If { condition, then, otherwise, .. } => {
                let inside = divergent || differs(condition, varying);
                mark(then, inside, varying);
                mark(otherwise, inside, varying);
            }
            Stmt::For { var, from, to, step, body, .. } => {
                let inside = divergent || [from, to, step].iter().any(|e| differs(e, varying));
                varying[*var as usize] |= inside;
                mark(body, inside, varying);
            }
            _ => {}
        }
    }
}

fn walk(body: &[Stmt], varying: &[bool], cause: Option<(&str, u32)>, diagnostics: &mut Diagnostics) {
    for stmt in body {
        match stmt {
            Stmt::Barrier { line, column } => {
                if let Some((what, at)) = cause {
                    let span = Span { line: *line, column: *column, length: 12 };
                    let message = format!(
                        "not all threads of a block reach this barrier: the {what} in line {at} differs among them"
                    );
                    diagnostics.push(
                        Diagnostic::error("divergent-barrier", span, message)
                            .hint(format!("move SYNC_THREADS out of the {what}")),
                    );
                }
            }
            Stmt::If { condition, then, otherwise, line } => {
                let cause = cause.or_else(|| differs(condition, varying).then_some(("IF", *line)));
                walk(then, varying, cause, diagnostics);
                walk(otherwise, varying, cause, diagnostics);
            }
            Stmt::For { from, to, step, body, line, .. } => {
                let differs = [from, to, step].iter().any(|e| differs(e, varying));
                let cause = cause.or_else(|| differs.then_some(("FOR", *line)));
                walk(body, varying, cause, diagnostics);
            }
            _ => {}
        }
    }
}
