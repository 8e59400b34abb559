//! `pxctl decisions`: the scheduler's decision log.

use crate::units::fit;
use crate::{Failure, json};
use pxos_client::Control;
use pxos_protocol::admin::Decision;
use std::fmt::Write;
use std::path::Path;

/// What to show, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those about this VM
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,
    /// At most so many, the last ones
    #[arg(long, default_value_t = 40, value_name = "COUNT")]
    last: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(crate) fn run(path: &Path, args: &Args) -> Result<(), Failure> {
    let mut decisions = Control::connect(path)?.decisions(0)?;
    decisions.retain(|decision| args.vm.as_ref().is_none_or(|vm| decision.vm == *vm));
    let decisions = &decisions[decisions.len().saturating_sub(args.last)..];
    if args.json {
        json(&decisions);
    } else {
        print!("{}", table(decisions));
    }
    Ok(())
}

/// The list, in 80 columns where reasons are short; times count from the first.
fn table(decisions: &[Decision]) -> String {
    let Some(first) = decisions.first() else { return "nothing was decided\n".to_owned() };
    let mut out =
        format!("{:>11} {:>3} {:<16} {:<6} {:>8} {}\n", "AFTER", "DEV", "VM", "GATE", "LEASE", "REASON");
    for decision in decisions {
        let after = decision.time.saturating_sub(first.time);
        let milliseconds = |micros: u64| format!("{}.{:03}ms", micros / 1000, micros % 1000);
        let lease = decision.lease.map_or_else(|| "-".to_owned(), milliseconds);
        let _ = writeln!(
            out,
            "{:>11} {:>3} {:<16} {:<6} {lease:>8} {}",
            milliseconds(after),
            decision.device,
            fit(&decision.vm, 16),
            decision.gate,
            decision.reason,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_first() {
        let one = Decision {
            time: 1_000_000,
            vm: "red".into(),
            gate: "open".into(),
            lease: Some(5000),
            reason: "least served by weight".into(),
            ..Decision::default()
        };
        let other = Decision { time: 1_012_345, gate: "closed".into(), lease: None, ..one.clone() };
        let text = table(&[one, other]);
        assert!(
            text.contains("    0.000ms   0 red              open    5.000ms least served by weight\n"),
            "{text}"
        );
        assert!(text.contains("   12.345ms   0 red              closed        - least"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(table(&[]), "nothing was decided\n");
    }
}
