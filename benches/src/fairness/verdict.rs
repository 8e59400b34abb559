//! What is promised of sharing, and whether the rows keep it.

use super::Row;
use serde::Serialize;

/// Greatest share or cap error in a second, in points.
const POINTS: f64 = 0.02;
/// Jain's index, at least.
const JAIN: f64 = 0.99;
/// What all guests together complete of what one alone does, at least.
const SUM: f64 = 0.95;
/// What a guest that is alone completes of what it does without scheduling, at least.
const ALONE: f64 = 0.99;
/// p99 of the latency tenant, against its p99 alone, at most.
const LATENCY: f64 = 1.10;
/// p99 of a hand-over in microseconds, at most.
const HANDOVER: f64 = 1_000.0;

/// One promise.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What is promised.
    pub(crate) what: String,
    /// The figure that is worst for it, and where it was.
    pub(crate) measured: String,
    /// Whether the promise is kept.
    pub(crate) holds: bool,
}

/// Whether a case is one of several guests with shares by weight.
fn is_shared(row: &&Row) -> bool {
    row.way == "leasefq" && row.outcome.jain.is_some() && row.outcome.shares.len() > 1
}

fn is_capped(row: &&Row) -> bool {
    row.case.starts_with("cap ")
}

/// The row of a case and a way.
fn row<'a>(rows: &'a [Row], case: &str, way: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.case == case && row.way == way)
}

/// The greatest of what a function says of rows.
fn worst<'a>(
    rows: impl Iterator<Item = &'a Row>,
    of: impl Fn(&Row) -> Option<f64>,
) -> Option<(f64, &'a str)> {
    rows.filter_map(|row| Some((of(row)?, row.case.as_str()))).max_by(|one, other| one.0.total_cmp(&other.0))
}

/// What several guests complete together, of what one does alone with the same kernels on the same device without us.
fn sum_of_alone(rows: &[Row], shared: &Row) -> Option<f64> {
    let kernel = shared.case.split_once(", ")?.1;
    let alone = row(rows, &format!("alone, {kernel}"), "native")
        .or_else(|| row(rows, &format!("alone, {kernel}"), "leasefq"))?;
    Some(shared.outcome.sum? / alone.outcome.sum?)
}

/// All promises of which the rows say anything.
pub(crate) fn all(rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut say = |what: &str, found: Option<(String, bool)>| {
        verdicts.extend(found.map(|(measured, holds)| Verdict { what: what.to_owned(), measured, holds }));
    };
    let points = |(error, case): (f64, &str)| (format!("{:.1} ({case})", error * 100.0), error <= POINTS);
    let shared = || rows.iter().filter(is_shared);
    say(
        "share error in any second, at most 2 points",
        worst(shared(), |row| row.outcome.error_second).map(points),
    );
    let jain = worst(shared(), |row| row.outcome.jain.map(|jain| 1.0 - jain));
    say(
        "Jain, at least 0.99",
        jain.map(|(lack, case)| (format!("{:.4} ({case})", 1.0 - lack), 1.0 - lack >= JAIN)),
    );
    let lack = worst(shared(), |row| sum_of_alone(rows, row).map(|sum| 1.0 - sum));
    say(
        "summed throughput, at least 95 % of alone",
        lack.map(|(lack, case)| (format!("{:.1} % ({case})", (1.0 - lack) * 100.0), 1.0 - lack >= SUM)),
    );
    let alone = rows.iter().filter(|row| row.way == "leasefq" && row.case.starts_with("alone"));
    let cost =
        worst(alone, |ours| Some(1.0 - ours.outcome.sum? / row(rows, &ours.case, "fifo")?.outcome.sum?));
    say(
        "cost for one that is alone, at most 1 % of fifo",
        cost.map(|(cost, case)| (format!("{:.2} % ({case})", cost * 100.0), 1.0 - cost >= ALONE)),
    );
    say(
        "cap error in any second, at most 2 points",
        worst(rows.iter().filter(is_capped), |row| row.outcome.error_second).map(points),
    );
    for beside in ["latency, beside 0.5 ms", "latency, beside 20 ms"] {
        let ratio = |way: &str| {
            let p99 = |case: &str| row(rows, case, way)?.outcome.p99;
            Some(p99(beside)? / p99("latency, alone")?)
        };
        let others =
            ["fifo", "native"].into_iter().filter_map(|way| Some(format!("; {way} {:.2} x", ratio(way)?)));
        say(
            &format!("{beside}: p99 at most 1.10 x alone"),
            ratio("leasefq").map(|own| (format!("{own:.2} x{}", others.collect::<String>()), own <= LATENCY)),
        );
    }
    let handover = rows.iter().find(|row| row.case.starts_with("hand-over"));
    let quantiles = handover.and_then(|row| row.outcome.p50.zip(row.outcome.p99));
    say(
        "hand-over, p99 at most 1 ms",
        quantiles.map(|(p50, p99)| (format!("p50 {p50:.0} us, p99 {p99:.0} us"), p99 <= HANDOVER)),
    );
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::results::Outcome;

    fn shares(case: &str, way: &'static str, sum: f64, error: f64, guests: usize) -> Row {
        let outcome = Outcome {
            shares: vec![1.0; guests],
            sum: Some(sum),
            error_second: Some(error),
            jain: Some(0.999),
            ..Outcome::default()
        };
        Row { case: case.to_owned(), way, outcome }
    }

    #[test]
    fn the_worst_row_decides() {
        let rows = [
            shares("alone, 2 ms", "native", 0.99, 0.0, 1),
            shares("alone, 2 ms", "fifo", 0.99, 0.0, 1),
            shares("alone, 2 ms", "leasefq", 0.97, 0.0, 1),
            shares("1:1, 2 ms", "leasefq", 0.98, 0.01, 2),
            shares("1:9, 2 ms", "leasefq", 0.93, 0.03, 2),
            shares("1:1, 2 ms", "native", 0.5, 0.5, 2),
        ];
        let verdicts = all(&rows);
        let find = |what: &str| verdicts.iter().find(|one| one.what.starts_with(what)).unwrap();
        assert_eq!(
            (find("share error").holds, find("share error").measured.as_str()),
            (false, "3.0 (1:9, 2 ms)")
        );
        assert!(find("Jain").holds);
        assert_eq!(find("summed").measured, "93.9 % (1:9, 2 ms)");
        assert!(!find("summed").holds && !find("cost").holds);
        assert!(!verdicts.iter().any(|one| one.what.starts_with("cap") || one.what.starts_with("hand")));
    }
}
