//! Statements to instructions and branches.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Class, Emitter, FaultBlock, Operand};
use crate::fault::code;
use crate::ir::{
    ArrayRef, Atomic, AtomicOp, BinaryOp, Def, Expr, ExprKind, SiteId, SiteKind, Stmt, TRUSTED_SITE, VarId,
};
use crate::types::{Element, Scalar};

/// Offsets up to this many elements are folded into the address; see [`crate::facts::MAX_LENGTH`].
const MOST_OFFSET: i64 = 4096;

impl Emitter<'_> {
    pub(super) fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
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
                self.load(&home.text, *array, index);
                self.changed(*var);
            }
            Stmt::Store { array, index, value, site, .. } => {
                let value = self.expr(value);
                self.check(*site, *array, index);
                self.store(*array, index, &value);
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

    // ---- checks ---------------------------------------------------------------------------------

    /// Whether a site's check is left out.
    fn skipped(&self, site: SiteId) -> bool {
        if site == TRUSTED_SITE {
            return true;
        }
        let known = &self.unit.sites[site as usize];
        let optional = self.unit.unchecked && known.kind != SiteKind::Require;
        optional || known.proven || self.variant.proven.get(site as usize).copied().unwrap_or(false)
    }

    fn fault(&mut self, site: SiteId, index: &Operand, length: &Operand) -> String {
        let label = self.label("fault");
        let known = &self.unit.sites[site as usize];
        self.faults.push(FaultBlock {
            label: label.clone(),
            line: known.line,
            code: code(known.kind),
            index: index.text.clone(),
            length: length.text.clone(),
        });
        label
    }

    /// Leaves for the fault block unless 0 <= index < length: one unsigned comparison.
    fn check(&mut self, site: SiteId, array: ArrayRef, index: &Expr) {
        if self.skipped(site) {
            return;
        }
        let at = self.expr(index);
        let length = self.length(array);
        let key = format!("checked {} {}", at.key, length.key);
        if self.values.iter().any(|table| table.contains_key(&key)) {
            return;
        }
        let outside = self.fresh(Class::Pred);
        let label = self.fault(site, &at, &length);
        self.line(&format!("setp.ge.u32 {outside}, {}, {};", at.text, length.text));
        self.line(&format!("@{outside} bra {label};"));
        self.values.last_mut().expect("never empty").insert(key, at);
    }

    fn divisor(&mut self, value: &Expr, site: SiteId) {
        if self.skipped(site) {
            return;
        }
        let divisor = self.expr(value);
        let key = format!("nonzero {}", divisor.key);
        if self.values.iter().any(|table| table.contains_key(&key)) {
            return;
        }
        let zero = self.fresh(Class::Pred);
        let label = self.fault(site, &Operand::fixed("0".to_owned()), &Operand::fixed("0".to_owned()));
        self.line(&format!("setp.eq.b32 {zero}, {}, 0;", divisor.text));
        self.line(&format!("@{zero} bra {label};"));
        self.values.last_mut().expect("never empty").insert(key, divisor);
    }

    fn require(&mut self, condition: &Expr, site: SiteId) {
        if self.skipped(site) {
            return;
        }
        let condition = self.expr(condition);
        let label = self.fault(site, &Operand::fixed("0".to_owned()), &Operand::fixed("0".to_owned()));
        self.line(&format!("@!{} bra {label};", condition.text));
    }

    // ---- memory -----------------------------------------------------------------------------------

    /// The state space of an array, and an element's address as it stands between brackets.
    fn address(&mut self, array: ArrayRef, index: &Expr) -> (&'static str, String) {
        let bytes = i64::try_from(self.unit.element(array).bytes()).expect("small");
        let (space, wide) = match array {
            ArrayRef::Param(_) => ("global", true),
            ArrayRef::Shared(_) => ("shared", false),
            ArrayRef::Table(_) => ("const", true),
        };
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
        let base = self.base(array);
        let address = match (wide, bytes) {
            (true, 1) => {
                let long = self.value(Class::Long, format!("cvt.s64.s32 {}", at.key), |r| {
                    format!("cvt.s64.s32 {r}, {};", at.text)
                });
                self.value(Class::Long, format!("add.s64 {}, {}", long.key, base.key), |r| {
                    format!("add.s64 {r}, {}, {};", long.text, base.text)
                })
            }
            (true, _) => {
                self.value(Class::Long, format!("mad.wide.s32 {}, {bytes}, {}", at.key, base.key), |r| {
                    format!("mad.wide.s32 {r}, {}, {bytes}, {};", at.text, base.text)
                })
            }
            (false, 1) => self.value(Class::Word, format!("add.s32 {}, {}", at.key, base.key), |r| {
                format!("add.s32 {r}, {}, {};", at.text, base.text)
            }),
            (false, _) => {
                self.value(Class::Word, format!("mad.lo.s32 {}, {bytes}, {}", at.key, base.key), |r| {
                    format!("mad.lo.s32 {r}, {}, {bytes}, {};", at.text, base.text)
                })
            }
        };
        (space, plus(&address.text))
    }

    fn load(&mut self, register: &str, array: ArrayRef, index: &Expr) {
        let (space, address) = self.address(array, index);
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

    fn store(&mut self, array: ArrayRef, index: &Expr, value: &Operand) {
        let (space, address) = self.address(array, index);
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
        let (space, address) = self.address(atomic.array, &atomic.index);
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
        let other = if otherwise.is_empty() { end.clone() } else { self.label("else") };
        self.line(&format!("@!{} bra {other};", condition.text));
        self.nested(then);
        self.forget(then);
        if !otherwise.is_empty() {
            self.line(&format!("bra {end};"));
            let _ = writeln!(self.body, "{other}:");
            self.nested(otherwise);
            self.forget(otherwise);
        }
        let _ = writeln!(self.body, "{end}:");
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

/// An index as a value plus a small constant.
fn split(index: &Expr) -> (Option<Expr>, i64) {
    if let Some(value) = index.constant_int() {
        if value.abs() <= MOST_OFFSET {
            return (None, value);
        }
    } else if let ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) = &index.kind
        && index.ty == Scalar::Int
    {
        for (base, offset) in [(a, b), (b, a)] {
            let sub = *op == BinaryOp::Sub;
            if let Some(value) = offset.constant_int().filter(|v| v.abs() <= MOST_OFFSET)
                && (!sub || std::ptr::eq(&raw const **offset, &raw const **b))
            {
                return (Some((**base).clone()), if sub { -value } else { value });
            }
        }
    }
    (Some(index.clone()), 0)
}
