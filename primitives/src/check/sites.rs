//! Numbers the places that may fault and proves what can be proven without arguments.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::facts::{Facts, Interval, Known};
use crate::ir::{ArrayRef, Expr, Guards, NO_SITE, Site, SiteId, SiteKind, Stmt, Unit};

/// Numbers the sites of a unit; reports accesses that are out of bounds whatever the arguments are.
pub(crate) fn number(unit: &mut Unit, diagnostics: &mut Diagnostics) {
    let mut body = std::mem::take(&mut unit.body);
    let mut sites = Vec::new();
    let root = Arc::new(Guards { outer: None, condition: None });
    walk(&mut body, &root, &mut sites);
    unit.body = body;
    let facts = Facts::new(unit);
    for site in &mut sites {
        let (value, length) = bounds(&facts, unit, site, None);
        site.proven = holds(site.kind, value, length);
        if let SiteKind::Load(array) | SiteKind::Store(array) | SiteKind::Atomic(array) = site.kind
            && !value.is_empty()
            && (value.high < 0 || value.low >= length.high)
        {
            let span = Span { line: site.line, column: 1, length: 1 };
            let name = unit.array_name(array);
            let what = if value.low == value.high {
                format!("index {} of `{name}` is out of bounds", value.low)
            } else {
                format!("the index of `{name}` is from {} to {}: out of bounds", value.low, value.high)
            };
            let found = Diagnostic::error("bounds", span, what);
            diagnostics.push(match unit.fixed_length(array) {
                Some(length) => found.hint(format!("`{name}` has {length} elements, numbered from 0")),
                None => found.hint("indices start at 0"),
            });
        }
    }
    unit.sites = sites;
}

/// Whether a site cannot fault with these arguments.
pub(crate) fn proven(unit: &Unit, site: &Site, known: &Known) -> bool {
    if site.proven {
        return true;
    }
    let facts = Facts::with(unit, known);
    let (value, length) = bounds(&facts, unit, site, Some(known));
    holds(site.kind, value, length)
}

fn bounds(facts: &Facts<'_>, unit: &Unit, site: &Site, known: Option<&Known>) -> (Interval, Interval) {
    let value = facts.interval(&site.value, &site.guards);
    let length = match site.kind {
        SiteKind::Load(array) | SiteKind::Store(array) | SiteKind::Atomic(array) => {
            match (array, unit.fixed_length(array)) {
                (_, Some(length)) => Interval::exact(i64::from(length)),
                (ArrayRef::Param(index), None) => match known.and_then(|known| known.lengths[index as usize])
                {
                    Some(length) => Interval::exact(length),
                    None => Interval { low: 0, high: crate::facts::MAX_LENGTH },
                },
                (_, None) => Interval { low: 0, high: 0 },
            }
        }
        SiteKind::Divisor | SiteKind::Require => Interval::exact(0),
    };
    (value, length)
}

fn holds(kind: SiteKind, value: Interval, length: Interval) -> bool {
    match kind {
        SiteKind::Load(_) | SiteKind::Store(_) | SiteKind::Atomic(_) => value.inside(0, length.low - 1),
        SiteKind::Divisor => value.low > 0 || value.high < 0,
        SiteKind::Require => value.low == 1,
    }
}

fn walk(body: &mut [Stmt], guards: &Arc<Guards>, sites: &mut Vec<Site>) {
    for stmt in body {
        let mut add = |kind: SiteKind, value: &Expr, line: u32, site: &mut SiteId| {
            if *site == NO_SITE {
                *site = SiteId::try_from(sites.len()).expect("operations are bounded");
                sites.push(Site {
                    kind,
                    line,
                    value: value.clone(),
                    guards: Arc::clone(guards),
                    proven: false,
                });
            }
        };
        match stmt {
            Stmt::Load { array, index, site, line, .. } => add(SiteKind::Load(*array), index, *line, site),
            Stmt::Store { array, index, site, line, .. } => add(SiteKind::Store(*array), index, *line, site),
            Stmt::Atomic(atomic) => {
                let atomic = &mut **atomic;
                add(SiteKind::Atomic(atomic.array), &atomic.index, atomic.line, &mut atomic.site);
            }
            Stmt::Divisor { value, site, line } => add(SiteKind::Divisor, value, *line, site),
            Stmt::Require { condition, site, line } => add(SiteKind::Require, condition, *line, site),
            Stmt::If { condition, then, otherwise, .. } => {
                let arm = |holds: bool| {
                    Arc::new(Guards {
                        outer: Some(Arc::clone(guards)),
                        condition: Some((condition.clone(), holds)),
                    })
                };
                walk(then, &arm(true), sites);
                walk(otherwise, &arm(false), sites);
            }
            Stmt::For { body, .. } => walk(body, guards, sites),
            _ => {}
        }
    }
}
