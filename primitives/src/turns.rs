//! How many turns the loops of a thread can take at most. Loops have bounds, but bounds may be arguments, or loaded.

use std::sync::Arc;

use crate::facts::{Facts, Known};
use crate::ir::{Guards, Stmt, Unit};

/// Most turns of one thread with these arguments.
pub(crate) fn most(unit: &Unit, known: &Known) -> u64 {
    let root = Arc::new(Guards { outer: None, condition: None });
    of_body(&unit.body, &Facts::with(unit, known), &root)
}

fn of_body(body: &[Stmt], facts: &Facts<'_>, guards: &Arc<Guards>) -> u64 {
    let mut turns: u64 = 0;
    for stmt in body {
        turns = turns.saturating_add(match stmt {
            Stmt::If { condition, then, otherwise, .. } => {
                let arm = |holds: bool| {
                    let condition = Some((condition.clone(), holds));
                    Arc::new(Guards { outer: Some(Arc::clone(guards)), condition })
                };
                let then = if has_loop(then) { of_body(then, facts, &arm(true)) } else { 0 };
                let otherwise = if has_loop(otherwise) { of_body(otherwise, facts, &arm(false)) } else { 0 };
                then.max(otherwise)
            }
            Stmt::For { from, to, step, body, .. } => {
                let (from, to) = (facts.interval(from, guards), facts.interval(to, guards));
                let step = facts.interval(step, guards).low.max(1);
                if from.is_empty() || to.is_empty() {
                    continue;
                }
                let span = u64::try_from(to.high.saturating_sub(from.low)).unwrap_or(0);
                let inner = if has_loop(body) { of_body(body, facts, guards) } else { 0 };
                span.div_ceil(step.unsigned_abs()).saturating_mul(inner.saturating_add(1))
            }
            _ => 0,
        });
    }
    turns
}

fn has_loop(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::For { .. } => true,
        Stmt::If { then, otherwise, .. } => has_loop(then) || has_loop(otherwise),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::{Arg, Options, PlanError, Request, compile};

    fn plan(body: &str, n: i32) -> Result<(), PlanError> {
        let text = format!(
            "GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    CALCULATE x = 0\n{body}\
             \x20   STORE x → o[0]\nGPU_END\n"
        );
        let program = compile(&text, &Options::default()).unwrap();
        let args = [Arg::Array { address: 4096, length: 10 }, Arg::from(n)];
        program.kernels()[0].plan(&args, &Request::default()).map(|_| ())
    }

    #[test]
    fn loops_are_refused_by_what_their_arguments_make_of_them() {
        let two = "    FOR i IN 0..n:\n        FOR j IN i..n:\n            CALCULATE x = x ^ j\n";
        assert_eq!(plan(two, 100_000), Ok(()));
        let refused = plan(two, i32::MAX).unwrap_err();
        assert!(refused.to_string().contains("about 10^18 turns"), "{refused}");
        let one = "    FOR i IN 0..n:\n        CALCULATE x = x ^ i\n";
        assert_eq!(plan(one, i32::MAX), Ok(()));
        assert_eq!(plan(two, -5), Ok(()));
    }

    #[test]
    fn a_bound_that_is_loaded_counts_as_the_largest_unless_it_is_cut() {
        let loaded = "    LOAD o[1] → m\n    FOR i IN 0..m:\n        FOR j IN 0..m:\n            CALCULATE x = x ^ j\n";
        assert!(matches!(plan(loaded, 1), Err(PlanError::Endless { .. })));
        assert_eq!(plan(&loaded.replace("0..m", "0..min(m, 1000)"), 1), Ok(()));
        let guarded = format!(
            "    LOAD o[1] → m\n    IF m < 1000:\n{}",
            loaded.lines().skip(1).map(|l| format!("    {l}\n")).collect::<String>()
        );
        assert_eq!(plan(&guarded, 1), Ok(()));
    }
}
