//! Passes over a lowered unit: how each variable is defined, copies, fused multiply-add, cooperative loads, dead code.

use std::collections::HashMap;

use crate::facts::{Facts, Stride};
use crate::ir::{
    BinaryOp, CompareOp, Def, Expr, ExprKind, Special, Stmt, TRUSTED_SITE, UnaryOp, Unit, Var, VarId,
    visit_statements,
};
use crate::types::Scalar;

/// Brings a unit into the form that the back ends take. Returns the lines of cooperative loads whose start is
/// neither the same for a block nor one apart from thread to thread.
pub(crate) fn finish(unit: &mut Unit) -> Vec<(u32, u32)> {
    define(unit);
    propagate(unit);
    fuse(unit);
    define(unit);
    let bad = ranges(unit);
    sweep(unit);
    define(unit);
    bad
}

/// Fills in [`Def`] of every variable.
pub(crate) fn define(unit: &mut Unit) {
    let mut defs: Vec<Def> = vec![Def::None; unit.vars.len()];
    visit_statements(&unit.body, &mut |stmt| {
        let (var, def) = match stmt {
            Stmt::Assign { var, value } => (*var, Def::Once(value.clone())),
            Stmt::Load { var, array, .. } => (*var, Def::Loaded(unit.element(*array))),
            Stmt::For { var, from, to, step, .. } => {
                (*var, Def::Loop(Box::new([from.clone(), to.clone(), step.clone()])))
            }
            Stmt::Atomic(atomic) => match atomic.old {
                Some(var) => (var, Def::Many),
                None => return,
            },
            _ => return,
        };
        let slot = &mut defs[var as usize];
        *slot = if *slot == Def::None { def } else { Def::Many };
    });
    for (var, def) in unit.vars.iter_mut().zip(defs) {
        var.def = def;
    }
}

/// Replaces variables that are copies of something that never changes.
fn propagate(unit: &mut Unit) {
    let mut copies: HashMap<VarId, Expr> = HashMap::new();
    for (id, var) in unit.vars.iter().enumerate() {
        let Def::Once(value) = &var.def else { continue };
        let stable = match &value.kind {
            ExprKind::Const(_) | ExprKind::Special(_) | ExprKind::Scalar(_) | ExprKind::Len(_) => true,
            // A definition comes before its uses in every turn of a loop, so what is copied is still there.
            ExprKind::Var(source) => matches!(unit.vars[*source as usize].def, Def::Once(_) | Def::Loaded(_)),
            _ => false,
        };
        if stable {
            copies.insert(u32::try_from(id).expect("operations are bounded"), value.clone());
        }
    }
    // Copies of copies: definitions precede uses, so ids only get smaller in practice; bounded in any case.
    let resolve = |mut expr: Expr| {
        for _ in 0..64 {
            match expr.kind {
                ExprKind::Var(var) => match copies.get(&var) {
                    Some(copy) => expr = copy.clone(),
                    None => break,
                },
                _ => break,
            }
        }
        expr
    };
    rewrite(&mut unit.body, &mut |expr| match expr.kind {
        ExprKind::Var(_) => resolve(expr),
        _ => refold(expr),
    });
}

/// Folds what has become constant.
fn refold(expr: Expr) -> Expr {
    match expr.kind {
        ExprKind::Binary(op, a, b) => Expr::binary(op, *a, *b),
        ExprKind::Unary(op, a) => Expr::unary(op, *a),
        ExprKind::Compare(op, a, b) => Expr::compare(op, *a, *b),
        ExprKind::Cast(a) => a.cast(expr.ty),
        ExprKind::Bits(a) => a.bits(expr.ty),
        _ => expr,
    }
}

fn rewrite(body: &mut [Stmt], change: &mut impl FnMut(Expr) -> Expr) {
    for stmt in body {
        for expr in stmt.expressions_mut() {
            let taken = std::mem::replace(expr, Expr::bool(false));
            *expr = taken.map(change);
        }
        match stmt {
            Stmt::If { then, otherwise, .. } => {
                rewrite(then, change);
                rewrite(otherwise, change);
            }
            Stmt::For { body, .. } => rewrite(body, change),
            _ => {}
        }
    }
}

/// Contracts `a * b + c` to one operation, also when the product has a name that is used just there.
fn fuse(unit: &mut Unit) {
    let mut uses: HashMap<VarId, u32> = HashMap::new();
    visit_statements(&unit.body, &mut |stmt| {
        for expr in stmt.expressions() {
            expr.visit(&mut |e| {
                if let ExprKind::Var(var) = e.kind {
                    *uses.entry(var).or_default() += 1;
                }
            });
        }
    });
    let vars = unit.vars.clone();
    let mut body = std::mem::take(&mut unit.body);
    fuse_block(&mut body, &vars, &uses);
    unit.body = body;
}

fn fuse_block(body: &mut [Stmt], vars: &[Var], uses: &HashMap<VarId, u32>) {
    // Products of this very block that may move down to their one use: nothing they read is ever assigned again.
    let mut products: HashMap<VarId, Expr> = HashMap::new();
    for stmt in body {
        for expr in stmt.expressions_mut() {
            let taken = std::mem::replace(expr, Expr::bool(false));
            *expr = taken.map(&mut |e| contract(e, &products));
        }
        match stmt {
            Stmt::Assign { var, value } => {
                let once = matches!(vars[*var as usize].def, Def::Once(_)) && uses.get(var) == Some(&1);
                let product = matches!(value.kind, ExprKind::Binary(BinaryOp::Mul, ..));
                let mut fixed = true;
                value.visit(&mut |e| {
                    if let ExprKind::Var(var) = e.kind {
                        fixed &= matches!(vars[var as usize].def, Def::Once(_) | Def::Loaded(_));
                    }
                });
                if once && product && fixed {
                    products.insert(*var, value.clone());
                }
            }
            Stmt::If { then, otherwise, .. } => {
                fuse_block(then, vars, uses);
                fuse_block(otherwise, vars, uses);
            }
            Stmt::For { body, .. } => fuse_block(body, vars, uses),
            _ => {}
        }
    }
}

fn contract(expr: Expr, products: &HashMap<VarId, Expr>) -> Expr {
    let ty = expr.ty;
    let ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) = expr.kind else { return expr };
    if !ty.is_number() {
        return Expr::new(ty, ExprKind::Binary(op, a, b));
    }
    let factors = |e: &Expr| -> Option<(Expr, Expr)> {
        match &e.kind {
            ExprKind::Binary(BinaryOp::Mul, x, y) => Some(((**x).clone(), (**y).clone())),
            ExprKind::Var(var) => match &products.get(var)?.kind {
                ExprKind::Binary(BinaryOp::Mul, x, y) => Some(((**x).clone(), (**y).clone())),
                _ => None,
            },
            _ => None,
        }
    };
    let fma = |x: Expr, y: Expr, z: Expr| Expr::new(ty, ExprKind::Fma(Box::new([x, y, z])));
    let negative = |e: Expr| Expr::unary(UnaryOp::Neg, e);
    match op {
        BinaryOp::Add => {
            if let Some((x, y)) = factors(&a) {
                return fma(x, y, *b);
            }
            if let Some((x, y)) = factors(&b) {
                return fma(x, y, *a);
            }
        }
        // The negative of a uint is the same bits.
        _ => {
            if let Some((x, y)) = factors(&b) {
                return fma(negative(x), y, *a);
            }
            if let Some((x, y)) = factors(&a) {
                return fma(x, y, negative(*b));
            }
        }
    }
    Expr::new(ty, ExprKind::Binary(op, a, b))
}

/// Expands cooperative loads into a loop of the block's threads; elements past the array's end are zero.
fn ranges(unit: &mut Unit) -> Vec<(u32, u32)> {
    let mut bad = Vec::new();
    let mut body = std::mem::take(&mut unit.body);
    expand_block(&mut body, unit, &mut bad);
    unit.body = body;
    bad
}

fn expand_block(body: &mut Vec<Stmt>, unit: &mut Unit, bad: &mut Vec<(u32, u32)>) {
    for stmt in std::mem::take(body) {
        match stmt {
            Stmt::If { condition, mut then, mut otherwise, line } => {
                expand_block(&mut then, unit, bad);
                expand_block(&mut otherwise, unit, bad);
                body.push(Stmt::If { condition, then, otherwise, line });
            }
            Stmt::For { var, from, to, step, body: mut inner, line } => {
                expand_block(&mut inner, unit, bad);
                body.push(Stmt::For { var, from, to, step, body: inner, line });
            }
            Stmt::LoadRange { array, from, count, shared, line, column } => {
                let start = match Facts::new(unit).stride(&from) {
                    Stride::Uniform(_) => from,
                    // The start of the block's first thread.
                    Stride::Step(1) => Expr::binary(BinaryOp::Sub, from, Expr::special(Special::Local)),
                    _ => {
                        bad.push((line, column));
                        from
                    }
                };
                let mut var = |ty: Scalar| {
                    unit.vars.push(Var { name: String::new(), ty, def: Def::None });
                    u32::try_from(unit.vars.len() - 1).expect("operations are bounded")
                };
                let (base, counter, at) = (var(Scalar::Int), var(Scalar::Int), var(Scalar::Int));
                let ty = unit.element(array).value();
                unit.vars.push(Var { name: String::new(), ty, def: Def::None });
                let value = u32::try_from(unit.vars.len() - 1).expect("operations are bounded");
                let int = |var| Expr::var(Scalar::Int, var);
                let length = match unit.fixed_length(array) {
                    Some(length) => Expr::uint(length),
                    None => match array {
                        crate::ir::ArrayRef::Param(index) => Expr::new(Scalar::Int, ExprKind::Len(index)),
                        _ => unreachable!("only parameters have open lengths"),
                    }
                    .bits(Scalar::Uint),
                };
                let target = crate::ir::ArrayRef::Shared(shared);
                let site = TRUSTED_SITE;
                let inner = vec![
                    Stmt::Assign { var: at, value: Expr::binary(BinaryOp::Add, int(base), int(counter)) },
                    Stmt::If {
                        condition: Expr::compare(CompareOp::Lt, int(at).bits(Scalar::Uint), length),
                        then: vec![
                            Stmt::Load { var: value, array, index: int(at), site, line },
                            Stmt::Store {
                                array: target,
                                index: int(counter),
                                value: Expr::var(ty, value),
                                site,
                                line,
                            },
                        ],
                        otherwise: vec![Stmt::Store {
                            array: target,
                            index: int(counter),
                            value: Expr::new(ty, ExprKind::Const(0)),
                            site,
                            line,
                        }],
                        line,
                    },
                ];
                body.push(Stmt::Assign { var: base, value: start });
                body.push(Stmt::For {
                    var: counter,
                    from: Expr::special(Special::Local),
                    to: Expr::int(count.cast_signed()),
                    step: Expr::int(unit.block.cast_signed()),
                    body: inner,
                    line,
                });
            }
            other => body.push(other),
        }
    }
}

/// Drops assignments that nothing reads, and loops and branches that are left with nothing in them.
pub(super) fn sweep(unit: &mut Unit) {
    // Each round can only make more of them useless; a few rounds take the chains that occur.
    for _ in 0..8 {
        let mut read = vec![false; unit.vars.len()];
        visit_statements(&unit.body, &mut |stmt| {
            for expr in stmt.expressions() {
                expr.visit(&mut |e| {
                    if let ExprKind::Var(var) = e.kind {
                        read[var as usize] = true;
                    }
                });
            }
        });
        let mut changed = false;
        sweep_block(&mut unit.body, &read, &mut changed);
        if !changed {
            return;
        }
    }
}

fn sweep_block(body: &mut Vec<Stmt>, read: &[bool], changed: &mut bool) {
    let before = body.len();
    body.retain_mut(|stmt| match stmt {
        Stmt::Assign { var, .. } => read[*var as usize],
        Stmt::If { then, otherwise, .. } => {
            sweep_block(then, read, changed);
            sweep_block(otherwise, read, changed);
            !then.is_empty() || !otherwise.is_empty()
        }
        Stmt::For { body, .. } => {
            sweep_block(body, read, changed);
            !body.is_empty()
        }
        Stmt::Divisor { value, .. } => !matches!(value.kind, ExprKind::Const(bits) if bits != 0),
        _ => true,
    });
    *changed |= body.len() != before;
}
