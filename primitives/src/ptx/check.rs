//! Checks: of indices against lengths, of divisors, of what a program requires.
//!
//! Accesses of one straight piece of code that nothing else can be seen between are checked together, before the first
//! of them: one branch, and one comparison for each end of a range of neighbours. Where that fails, the checks are made
//! one after another, out of the way, so that line and index are those of the first access that is wrong.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::{Class, Emitter, FaultBlock, Operand, SlowChecks};
use crate::fault::code;
use crate::ir::{ArrayRef, BinaryOp, Expr, ExprKind, SiteId, SiteKind, Stmt, TRUSTED_SITE, VarId};
use crate::types::Scalar;

/// Offsets up to this many elements are folded into the address; see [`crate::facts::MAX_LENGTH`].
const MOST_OFFSET: i64 = 4096;

/// Accesses that are checked together: their indices take registers from the first access to the last.
const MOST_TOGETHER: usize = 8;

/// An access whose check this code carries.
struct Access<'a> {
    site: SiteId,
    array: ArrayRef,
    index: &'a Expr,
}

/// One comparison with a length: an index as a value and a constant.
#[derive(Clone)]
pub(super) struct Place {
    base: Operand,
    offset: i64,
    length: Operand,
}

impl Place {
    fn key(&self) -> String {
        format!("checked {} + {} below {}", self.base.key, self.offset, self.length.key)
    }

    fn group(&self) -> String {
        format!("{} below {}", self.base.key, self.length.key)
    }
}

impl Emitter<'_> {
    /// Whether a site's check is left out.
    pub(super) fn skipped(&self, site: SiteId) -> bool {
        if site == TRUSTED_SITE {
            return true;
        }
        let known = &self.unit.sites[site as usize];
        let optional = self.unit.unchecked && known.kind != SiteKind::Require;
        optional || known.proven || self.variant.proven.get(site as usize).copied().unwrap_or(false)
    }

    /// A value that has been made in a block around here.
    pub(super) fn at_hand(&self, key: &str) -> Option<Operand> {
        self.values.iter().rev().find_map(|table| table.get(key)).cloned()
    }

    fn remember(&mut self, key: String, value: Operand) {
        self.values.last_mut().expect("the outermost table is never popped").insert(key, value);
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

    /// Where an access goes.
    fn place(&mut self, array: ArrayRef, index: &Expr) -> Place {
        let length = self.length(array);
        match split(index) {
            (Some(base), offset) => Place { base: self.expr(&base), offset, length },
            (None, _) => Place { base: self.expr(index), offset: 0, length },
        }
    }

    /// The index itself.
    fn index_of(&mut self, place: &Place) -> Operand {
        let Place { base, offset, .. } = place;
        if *offset == 0 {
            return base.clone();
        }
        self.value(Class::Word, format!("add.s32 {}, {offset}", base.key), |r| {
            format!("add.s32 {r}, {}, {offset};", base.text)
        })
    }

    /// Leaves for the fault block unless 0 <= index < length: one unsigned comparison.
    pub(super) fn check(&mut self, site: SiteId, array: ArrayRef, index: &Expr) {
        if self.skipped(site) {
            return;
        }
        let place = self.place(array, index);
        if self.at_hand(&place.key()).is_some() {
            return;
        }
        let at = self.index_of(&place);
        let outside = self.fresh(Class::Pred);
        let label = self.fault(site, &at, &place.length);
        self.line(&format!("setp.ge.u32 {outside}, {}, {};", at.text, place.length.text));
        self.line(&format!("@{outside} bra {label};"));
        self.remember(place.key(), at);
    }

    /// Checks the accesses at the beginning of these statements together, where there are several. Returns how many
    /// statements have been looked at.
    pub(super) fn check_ahead(&mut self, statements: &[Stmt]) -> usize {
        let (accesses, covered) = self.together(statements);
        let mut places: Vec<(SiteId, Place)> = Vec::new();
        if accesses.len() > 1 {
            for access in accesses {
                let place = self.place(access.array, access.index);
                let key = place.key();
                if self.at_hand(&key).is_none() && places.iter().all(|(_, other)| other.key() != key) {
                    places.push((access.site, place));
                }
            }
        }
        if places.len() > 1 {
            self.check_places(places);
        }
        covered
    }

    /// Accesses that may be checked where the first of them is: what stands between them changes nothing that another
    /// thread or the host could see, cannot fail, and does not make their indices.
    fn together<'b>(&self, statements: &'b [Stmt]) -> (Vec<Access<'b>>, usize) {
        let mut accesses = Vec::new();
        let mut changed: HashSet<VarId> = HashSet::new();
        for (covered, stmt) in statements.iter().enumerate() {
            let (access, last) = match stmt {
                Stmt::Load { array, index, site, .. } => (Some((*site, *array, index)), false),
                Stmt::Store { array, index, site, .. } => (Some((*site, *array, index)), true),
                Stmt::Atomic(atomic) => (Some((atomic.site, atomic.array, &atomic.index)), true),
                Stmt::Assign { .. } => (None, false),
                Stmt::Divisor { site, .. } | Stmt::Require { site, .. } if self.skipped(*site) => {
                    (None, false)
                }
                _ => return (accesses, covered.max(1)),
            };
            if let Some((site, array, index)) = access
                && !self.skipped(site)
            {
                let mut made_here = false;
                index.visit(&mut |e| {
                    made_here |= matches!(e.kind, ExprKind::Var(var) if changed.contains(&var));
                });
                if made_here || accesses.len() == MOST_TOGETHER {
                    return (accesses, covered.max(1));
                }
                accesses.push(Access { site, array, index });
            }
            if last {
                return (accesses, covered + 1);
            }
            changed.extend(stmt.target());
        }
        (accesses, statements.len())
    }

    /// One branch for several places. Of places that differ by a constant, the lowest and the highest are compared:
    /// constants and lengths are such that what lies between them is in bounds when both are.
    fn check_places(&mut self, places: Vec<(SiteId, Place)>) {
        let mut ends: Vec<(Place, Place)> = Vec::new();
        let mut groups: HashMap<String, usize> = HashMap::new();
        for (_, place) in &places {
            let group = *groups.entry(place.group()).or_insert(ends.len());
            match ends.get_mut(group) {
                None => ends.push((place.clone(), place.clone())),
                Some((low, _)) if place.offset < low.offset => *low = place.clone(),
                Some((_, high)) if place.offset > high.offset => *high = place.clone(),
                Some(_) => {}
            }
        }
        let mut outside: Option<String> = None;
        for (low, high) in ends {
            let two = low.offset != high.offset;
            for end in [Some(low), two.then_some(high)].into_iter().flatten() {
                let at = self.index_of(&end);
                let one = self.fresh(Class::Pred);
                self.line(&format!("setp.ge.u32 {one}, {}, {};", at.text, end.length.text));
                outside = Some(match outside {
                    None => one,
                    Some(other) => {
                        let either = self.fresh(Class::Pred);
                        self.line(&format!("or.pred {either}, {other}, {one};"));
                        either
                    }
                });
            }
        }
        let label = self.label("slow");
        let outside = outside.expect("there are places");
        self.line(&format!("@{outside} bra {label};"));
        for (_, place) in &places {
            self.remember(place.key(), place.base.clone());
        }
        self.slow.push(SlowChecks { label, places });
    }

    /// The checks one after another, for the thread that found one of them to fail.
    pub(super) fn slow_blocks(&mut self) {
        for SlowChecks { label, places } in std::mem::take(&mut self.slow) {
            let _ = writeln!(self.body, "{label}:");
            let last = places.len() - 1;
            for (number, (site, place)) in places.into_iter().enumerate() {
                let at = if place.offset == 0 {
                    place.base
                } else {
                    let at = self.fresh(Class::Word);
                    self.line(&format!("add.s32 {at}, {}, {};", place.base.text, place.offset));
                    Operand::fixed(at)
                };
                let fault = self.fault(site, &at, &place.length);
                if number == last {
                    self.line(&format!("bra {fault};"));
                } else {
                    let outside = self.fresh(Class::Pred);
                    self.line(&format!("setp.ge.u32 {outside}, {}, {};", at.text, place.length.text));
                    self.line(&format!("@{outside} bra {fault};"));
                }
            }
        }
    }

    pub(super) fn divisor(&mut self, value: &Expr, site: SiteId) {
        if self.skipped(site) {
            return;
        }
        let divisor = self.expr(value);
        let key = format!("nonzero {}", divisor.key);
        if self.at_hand(&key).is_some() {
            return;
        }
        let zero = self.fresh(Class::Pred);
        let label = self.fault(site, &Operand::fixed("0".to_owned()), &Operand::fixed("0".to_owned()));
        self.line(&format!("setp.eq.b32 {zero}, {}, 0;", divisor.text));
        self.line(&format!("@{zero} bra {label};"));
        self.remember(key, divisor);
    }

    pub(super) fn require(&mut self, condition: &Expr, site: SiteId) {
        if self.skipped(site) {
            return;
        }
        let condition = self.expr(condition);
        let label = self.fault(site, &Operand::fixed("0".to_owned()), &Operand::fixed("0".to_owned()));
        self.line(&format!("@!{} bra {label};", condition.text));
    }
}

/// An index as a value plus a small constant.
pub(super) fn split(index: &Expr) -> (Option<Expr>, i64) {
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
