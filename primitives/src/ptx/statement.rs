//! Statements to instructions and branches.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::check::split;
use super::{Class, Emitter, Operand};
use crate::facts::Facts;
use crate::ir::{
    ArrayRef, Atomic, AtomicOp, BinaryOp, Def, Expr, ExprKind, Guards, SiteId, Stmt, TRUSTED_SITE, VarId,
};
use crate::types::{Element, Scalar};

/// A store that two arms of an IF have in common.
struct SharedStore<'a> {
    array: ArrayRef,
    index: &'a Expr,
    site: SiteId,
    then: &'a Expr,
    otherwise: &'a Expr,
    /// The register that gets the value of the arm that runs.
    chosen: String,
}

impl Emitter<'_> {
    pub(super) fn block(&mut self, body: &[Stmt]) {
        let mut looked_at = 0;
        for (number, stmt) in body.iter().enumerate() {
            if number >= looked_at {
                looked_at = number + self.check_ahead(&body[number..]);
            }
            self.statement(stmt);
        }
    }

    /// A block whose values are not at hand after it.
    fn nested(&mut self, body: &[Stmt]) {
        self.values.push(HashMap::new());
        self.block(body);
        self.values.pop();
    }

    /// A variable has a new value.
    fn changed(&mut self, var: VarId) {
        self.versions[var as usize] += 1;
    }

    /// Variables that a block assigns may have changed.
    fn forget(&mut self, body: &[Stmt]) {
        let mut targets = Vec::new();
        crate::ir::visit_statements(body, &mut |stmt| targets.extend(stmt.target()));
        for var in targets {
            self.changed(var);
        }
    }

    fn statement(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Assign { var, value } => {
                if matches!(self.unit.vars[*var as usize].def, Def::Once(_)) {
                    // The one definition: the variable is the value's register.
                    let held = self.expr(value);
                    let held = if held.key == held.text {
                        held
                    } else {
                        // A copy of something that goes on changing.
                        let register = self.fresh(Class::of(value.ty));
                        self.expr_into(value, &register);
                        Operand::fixed(register)
                    };
                    self.vars[*var as usize] = Some(held);
                } else {
                    let home = self.home(*var);
                    self.expr_into(value, &home.text);
                    self.changed(*var);
                }
            }
            Stmt::Load { var, array, index, site, .. } => {
                self.check(*site, *array, index);
                let home = self.home(*var);
                self.load(&home.text, *array, index, *site);
                self.changed(*var);
            }
            Stmt::Store { array, index, value, site, .. } => {
                let value = self.expr(value);
                self.check(*site, *array, index);
                self.store(*array, index, &value, *site);
            }
            Stmt::Atomic(atomic) => self.atomic(atomic),
            Stmt::Divisor { value, site, .. } => self.divisor(value, *site),
            Stmt::Require { condition, site, .. } => self.require(condition, *site),
            Stmt::If { condition, then, otherwise, .. } => self.conditional(condition, then, otherwise),
            Stmt::For { var, from, to, step, body, .. } => self.counted(*var, from, to, step, body),
            Stmt::Barrier { .. } => self.line("bar.sync 0;"),
            Stmt::LoadRange { .. } => unreachable!("expanded by the checker"),
        }
    }

    // ---- memory -----------------------------------------------------------------------------------

    /// The state space of an array, and an element's address as it stands between brackets.
    fn address(&mut self, array: ArrayRef, index: &Expr, site: SiteId) -> (&'static str, String) {
        let bytes = i64::try_from(self.unit.element(array).bytes()).expect("small");
        let (space, wide) = match array {
            ArrayRef::Param(_) => ("global", true),
            ArrayRef::Shared(_) => ("shared", false),
            ArrayRef::Table(_) => ("const", true),
        };
        if let Some(place) = self.beside(array, index, site) {
            return (space, place);
        }
        let (index, offset) = split(index);
        let offset = offset * bytes;
        let plus = |text: &str| match offset {
            0 => text.to_owned(),
            _ => format!("{text}+{offset}"),
        };
        let Some(index) = index else {
            return match array {
                ArrayRef::Param(_) => (space, plus(&self.base(array).text)),
                _ => (space, plus(&self.symbol(array))),
            };
        };
        let at = self.register(&index);
        let address = if wide {
            self.element(array, &at)
        } else if bytes == 1 {
            let base = self.base(array);
            self.value(Class::Word, format!("add.s32 {}, {}", at.key, base.key), |r| {
                format!("add.s32 {r}, {}, {};", at.text, base.text)
            })
        } else {
            let base = self.base(array);
            self.value(Class::Word, format!("mad.lo.s32 {}, {bytes}, {}", at.key, base.key), |r| {
                format!("mad.lo.s32 {r}, {}, {bytes}, {};", at.text, base.text)
            })
        };
        (space, plus(&address.text))
    }

    /// The 64-bit address of an element. A product and a sum: ptxas makes one instruction of them, and two of `mad.wide`.
    fn element(&mut self, array: ArrayRef, at: &Operand) -> Operand {
        let base = self.base(array);
        let bytes = self.unit.element(array).bytes();
        let offset = if bytes == 1 {
            self.value(Class::Long, format!("cvt.s64.s32 {}", at.key), |r| {
                format!("cvt.s64.s32 {r}, {};", at.text)
            })
        } else {
            self.value(Class::Long, format!("mul.wide.s32 {}, {bytes}", at.key), |r| {
                format!("mul.wide.s32 {r}, {}, {bytes};", at.text)
            })
        };
        self.value(Class::Long, element_key(&base, &offset), |r| {
            format!("add.s64 {r}, {}, {};", base.text, offset.text)
        })
    }

    /// The address of `a[i + j]` or `a[i - j]` where that of `a[i]` is at hand: so far from it.
    ///
    /// In 64 bits this is the same only if the sum of 32 bits did not wrap. It has not, because the access is known to
    /// be in bounds and `i` not to be negative: what wraps then is negative.
    fn beside(&mut self, array: ArrayRef, index: &Expr, site: SiteId) -> Option<String> {
        let ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) = &index.kind else { return None };
        let in_bounds = site != TRUSTED_SITE && !self.unit.unchecked;
        let bytes = i64::try_from(self.unit.element(array).bytes()).expect("small");
        let offset = a.constant_int().or_else(|| b.constant_int());
        if !in_bounds
            || !matches!(array, ArrayRef::Param(_))
            || index.ty != Scalar::Int
            || bytes == 1
            || offset.is_some()
        {
            return None;
        }
        if *op == BinaryOp::Sub {
            return self.near_address(array, a, b, -bytes);
        }
        self.near_address(array, a, b, bytes).or_else(|| self.near_address(array, b, a, bytes))
    }

    /// The address `step` bytes times `j` from that of `a[i]`, where that is at hand and `i` is not negative.
    fn near_address(&mut self, array: ArrayRef, i: &Expr, j: &Expr, step: i64) -> Option<String> {
        let none = Guards { outer: None, condition: None };
        if Facts::new(self.unit).interval(i, &none).low < 0 {
            return None;
        }
        let bytes = self.unit.element(array).bytes();
        let (i, base) = (self.register(i), self.base(array));
        let offset = Operand::fixed(self.at_hand(&format!("mul.wide.s32 {}, {bytes}", i.key))?.text);
        let near = self.at_hand(&element_key(&base, &offset))?;
        let j = self.register(j);
        let distance = self.value(Class::Long, format!("mul.wide.s32 {}, {step}", j.key), |r| {
            format!("mul.wide.s32 {r}, {}, {step};", j.text)
        });
        let address = self.value(Class::Long, element_key(&near, &distance), |r| {
            format!("add.s64 {r}, {}, {};", near.text, distance.text)
        });
        Some(address.text)
    }

    fn load(&mut self, register: &str, array: ArrayRef, index: &Expr, site: SiteId) {
        let (space, address) = self.address(array, index, site);
        let ty = match self.unit.element(array) {
            Element::Byte => "u8",
            Element::Half => {
                let raw = self.fresh(Class::Half);
                self.line(&format!("ld.{space}.b16 {raw}, [{address}];"));
                self.line(&format!("cvt.f32.f16 {register}, {raw};"));
                return;
            }
            Element::Float => "f32",
            Element::Double => "f64",
            Element::Int | Element::Uint | Element::Pixel => "b32",
        };
        self.line(&format!("ld.{space}.{ty} {register}, [{address}];"));
    }

    fn store(&mut self, array: ArrayRef, index: &Expr, value: &Operand, site: SiteId) {
        let (space, address) = self.address(array, index, site);
        let ty = match self.unit.element(array) {
            Element::Byte => "u8",
            Element::Half => {
                let raw = self.value(Class::Half, format!("cvt.rn.f16.f32 {}", value.key), |r| {
                    format!("cvt.rn.f16.f32 {r}, {};", value.text)
                });
                self.line(&format!("st.{space}.b16 [{address}], {};", raw.text));
                return;
            }
            Element::Float => "f32",
            Element::Double => "f64",
            Element::Int | Element::Uint | Element::Pixel => "b32",
        };
        self.line(&format!("st.{space}.{ty} [{address}], {};", value.text));
    }

    fn atomic(&mut self, atomic: &Atomic) {
        let value = self.expr(&atomic.value);
        let compare = atomic.compare.as_ref().map(|compare| self.expr(compare));
        self.check(atomic.site, atomic.array, &atomic.index);
        let element = self.unit.element(atomic.array);
        let (space, address) = self.address(atomic.array, &atomic.index, atomic.site);
        let number = match element {
            Element::Int => "s32",
            Element::Uint => "u32",
            Element::Float => "f32",
            _ => "f64",
        };
        let op = match atomic.op {
            // Two's complement sums are the same for both.
            AtomicOp::Add if element == Element::Int => "add.u32".to_owned(),
            AtomicOp::Add => format!("add.{number}"),
            AtomicOp::Min => format!("min.{number}"),
            AtomicOp::Max => format!("max.{number}"),
            AtomicOp::And => "and.b32".to_owned(),
            AtomicOp::Or => "or.b32".to_owned(),
            AtomicOp::Xor => "xor.b32".to_owned(),
            AtomicOp::Exchange => "exch.b32".to_owned(),
            AtomicOp::CompareExchange => "cas.b32".to_owned(),
        };
        let operands = match compare {
            Some(compare) => format!("{}, {}", compare.text, value.text),
            None => value.text,
        };
        let old = atomic.old.map(|var| (var, self.home(var)));
        let used = old.as_ref().map(|(_, home)| home.text.clone());
        // `red` is the form without an old value; it has no exchange.
        let reduces = !matches!(atomic.op, AtomicOp::Exchange | AtomicOp::CompareExchange);
        match used {
            None if reduces => self.line(&format!("red.{space}.{op} [{address}], {operands};")),
            used => {
                let class = Class::of(element.value());
                let register = used.unwrap_or_else(|| self.fresh(class));
                // Exchange of floats works on bits.
                if op == "exch.b32" && element == Element::Float {
                    let (raw, old) = (self.fresh(Class::Word), self.fresh(Class::Word));
                    self.line(&format!("mov.b32 {raw}, {operands};"));
                    self.line(&format!("atom.{space}.exch.b32 {old}, [{address}], {raw};"));
                    self.line(&format!("mov.b32 {register}, {old};"));
                } else {
                    self.line(&format!("atom.{space}.{op} {register}, [{address}], {operands};"));
                }
            }
        }
        if let Some((var, _)) = old {
            self.changed(var);
        }
    }

    // ---- control flow -------------------------------------------------------------------------------

    fn conditional(&mut self, condition: &Expr, then: &[Stmt], otherwise: &[Stmt]) {
        let condition = self.expr(condition);
        let end = self.label("end");
        let shared = self.shared_store(then, otherwise);
        let (then, otherwise) = match &shared {
            Some(_) => (&then[..then.len() - 1], &otherwise[..otherwise.len() - 1]),
            None => (then, otherwise),
        };
        // What is there already is put in place beforehand, and one branch is spared.
        if let Some(shared) =
            shared.as_ref().filter(|shared| otherwise.is_empty() && is_leaf(shared.otherwise))
        {
            self.expr_into(shared.otherwise, &shared.chosen);
        }
        let early = otherwise.is_empty() && shared.as_ref().is_none_or(|shared| is_leaf(shared.otherwise));
        let other = if early { end.clone() } else { self.label("else") };
        self.line(&format!("@!{} bra {other};", condition.text));
        self.arm(then, shared.as_ref().map(|shared| (shared.then, shared.chosen.as_str())));
        if !early {
            self.line(&format!("bra {end};"));
            let _ = writeln!(self.body, "{other}:");
            self.arm(otherwise, shared.as_ref().map(|shared| (shared.otherwise, shared.chosen.as_str())));
        }
        let _ = writeln!(self.body, "{end}:");
        if let Some(SharedStore { array, index, site, chosen, .. }) = shared {
            self.store(array, index, &Operand::fixed(chosen), site);
        }
    }

    /// One arm of an IF, and the value that it leaves for a store behind it.
    fn arm(&mut self, body: &[Stmt], left: Option<(&Expr, &str)>) {
        self.values.push(HashMap::new());
        self.block(body);
        if let Some((value, register)) = left {
            self.expr_into(value, register);
        }
        self.values.pop();
        self.forget(body);
    }

    /// The store that both arms of an IF end with, to the same element and without a check: it can stand behind them.
    fn shared_store<'b>(&mut self, then: &'b [Stmt], otherwise: &'b [Stmt]) -> Option<SharedStore<'b>> {
        let (
            Stmt::Store { array, index, value, site, .. },
            Stmt::Store { array: array2, index: index2, value: value2, site: site2, .. },
        ) = (then.last()?, otherwise.last()?)
        else {
            return None;
        };
        if array != array2 || index != index2 || !self.skipped(*site) || !self.skipped(*site2) {
            return None;
        }
        let mut changed = HashSet::new();
        for arm in [then, otherwise] {
            crate::ir::visit_statements(arm, &mut |stmt| changed.extend(stmt.target()));
        }
        let mut fixed = true;
        index.visit(&mut |e| fixed &= !matches!(e.kind, ExprKind::Var(var) if changed.contains(&var)));
        if !fixed {
            return None;
        }
        let chosen = self.fresh(Class::of(self.unit.element(*array).value()));
        Some(SharedStore { array: *array, index, site: *site, then: value, otherwise: value2, chosen })
    }

    fn counted(&mut self, var: VarId, from: &Expr, to: &Expr, step: &Expr, body: &[Stmt]) {
        let home = self.home(var);
        let first = self.expr(from);
        let (last, by) = (self.expr(to), self.expr(step));
        let (start, end) = (self.label("loop"), self.label("end"));
        self.line(&format!("mov.b32 {}, {};", home.text, first.text));
        let runs = matches!((from.constant_int(), to.constant_int()), (Some(a), Some(b)) if a < b);
        if !runs {
            let done = self.fresh(Class::Pred);
            self.line(&format!("setp.ge.s32 {done}, {}, {};", home.text, last.text));
            self.line(&format!("@{done} bra {end};"));
        }
        self.changed(var);
        self.forget(body);
        let _ = writeln!(self.body, "{start}:");
        self.nested(body);
        self.forget(body);
        let again = self.fresh(Class::Pred);
        if step.constant_int() == Some(1) {
            self.line(&format!("add.s32 {0}, {0}, 1;", home.text));
            self.line(&format!("setp.lt.s32 {again}, {}, {};", home.text, last.text));
        } else {
            // What is left is compared, so that the sum cannot wrap past the end.
            let left = self.fresh(Class::Word);
            self.line(&format!("sub.s32 {left}, {}, {};", last.text, home.text));
            self.line(&format!("setp.gt.u32 {again}, {left}, {};", by.text));
            self.line(&format!("add.s32 {0}, {0}, {1};", home.text, by.text));
        }
        self.line(&format!("@{again} bra {start};"));
        let _ = writeln!(self.body, "{end}:");
        self.changed(var);
    }
}

/// Whether an expression needs no instruction but a move.
fn is_leaf(expr: &Expr) -> bool {
    matches!(
        expr.kind,
        ExprKind::Const(_) | ExprKind::Var(_) | ExprKind::Special(_) | ExprKind::Scalar(_) | ExprKind::Len(_)
    )
}

/// What identifies the sum of an address and a distance in bytes.
fn element_key(base: &Operand, distance: &Operand) -> String {
    format!("add.s64 {}, {}", base.key, distance.key)
}
