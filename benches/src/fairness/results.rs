//! What the guests' lines say.

use serde::Serialize;
use std::collections::BTreeMap;

/// A window of the guest program, in nanoseconds.
const WINDOW: u64 = 100_000_000;
/// Windows of a second.
const SECOND: usize = 10;

/// The lines of one guest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Kernel time in microseconds by window.
    windows: BTreeMap<u64, f64>,
    /// First and last completion, and kernel time in between.
    edge: Option<(u64, u64, f64)>,
    took: Vec<f64>,
    ran: Vec<(u64, u64)>,
}

/// What came out. Fractions are of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Outcome {
    /// What each got of what all got.
    pub(crate) shares: Vec<f64>,
    /// What each is due.
    pub(crate) due: Vec<f64>,
    /// Greatest difference between the two in any second, and over the whole time.
    pub(crate) error_second: Option<f64>,
    pub(crate) error: Option<f64>,
    /// Jain's index over what each got by its weight.
    pub(crate) jain: Option<f64>,
    /// Kernel time of all by time that passed.
    pub(crate) sum: Option<f64>,
    /// Microseconds: half of all are below the first, 99 of 100 below the second.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// How many those are of.
    pub(crate) count: usize,
}

impl Said {
    /// Reads lines; those that are none of the program's are left out.
    pub(crate) fn read(text: &str) -> Self {
        let mut said = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let word = words.next();
            let numbers: Vec<&str> = words.collect();
            let whole = |index: usize| numbers.get(index)?.parse::<u64>().ok();
            let number = |index: usize| numbers.get(index)?.parse::<f64>().ok();
            match word {
                Some("window") => said.windows.extend(whole(0).zip(number(1))),
                Some("edge") => {
                    said.edge =
                        whole(0).zip(whole(1)).zip(number(2)).map(|((from, to), sum)| (from, to, sum));
                }
                Some("ran") => said.ran.extend(whole(0).zip(whole(1))),
                Some("took") => said.took = numbers.iter().filter_map(|text| text.parse().ok()).collect(),
                _ => {}
            }
        }
        said
    }

    fn between(&self, from: u64, until: u64) -> f64 {
        self.windows.range(from..until).map(|(_, time)| time).sum()
    }
}

/// The windows in which all worked, the first seconds left out.
fn common(said: &[Said], warm_up: u32) -> Option<(u64, u64)> {
    let mut from = 0;
    let mut until = u64::MAX;
    for one in said {
        let (first, last, _) = one.edge?;
        from = from.max(first.next_multiple_of(WINDOW));
        until = until.min(last / WINDOW * WINDOW);
    }
    from += u64::from(warm_up) * 1_000_000_000;
    (from + SECOND as u64 * WINDOW <= until).then_some((from, until))
}

/// Shares by weight.
pub(crate) fn shares(said: &[Said], weights: &[f64], warm_up: u32) -> Option<Outcome> {
    let (from, until) = common(said, warm_up)?;
    let all: f64 = weights.iter().sum();
    let due: Vec<f64> = weights.iter().map(|weight| weight / all).collect();
    let got = |from: u64, until: u64| -> (Vec<f64>, f64) {
        let times: Vec<f64> = said.iter().map(|one| one.between(from, until)).collect();
        let sum: f64 = times.iter().sum();
        (times.iter().map(|time| time / sum.max(1e-9)).collect(), sum)
    };
    let error = |shares: &[f64]| {
        shares.iter().zip(&due).map(|(share, due)| (share - due).abs()).fold(0.0_f64, f64::max)
    };
    let mut worst = 0.0_f64;
    let mut start = from;
    while start + SECOND as u64 * WINDOW <= until {
        worst = worst.max(error(&got(start, start + SECOND as u64 * WINDOW).0));
        start += WINDOW;
    }
    let (shares, sum) = got(from, until);
    let by_weight: Vec<f64> = shares.iter().zip(weights).map(|(share, weight)| share / weight).collect();
    let total: f64 = by_weight.iter().sum();
    let squares: f64 = by_weight.iter().map(|value| value * value).sum();
    Some(Outcome {
        error: Some(error(&shares)),
        error_second: Some(worst),
        jain: Some(total * total / (f64::from(u32::try_from(said.len()).ok()?) * squares)),
        sum: Some(sum * 1e3 / (until - from) as f64),
        shares,
        due,
        ..Outcome::default()
    })
}

/// The first guest's part of the device against its cap.
pub(crate) fn cap(said: &[Said], percent: f64, warm_up: u32) -> Option<Outcome> {
    let (from, until) = common(said, warm_up)?;
    let part = |one: &Said, from: u64, until: u64| one.between(from, until) * 1e3 / (until - from) as f64;
    let due = percent / 100.0;
    let mut worst = 0.0_f64;
    let mut start = from;
    while start + SECOND as u64 * WINDOW <= until {
        worst = worst.max((part(&said[0], start, start + SECOND as u64 * WINDOW) - due).abs());
        start += WINDOW;
    }
    let shares: Vec<f64> = said.iter().map(|one| part(one, from, until)).collect();
    Some(Outcome {
        error: Some((shares[0] - due).abs()),
        error_second: Some(worst),
        sum: Some(shares.iter().sum()),
        shares,
        due: vec![due],
        ..Outcome::default()
    })
}

fn quantiles(mut values: Vec<f64>) -> Option<Outcome> {
    if values.len() < 10 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some(Outcome {
        p50: Some(values[values.len() / 2]),
        p99: Some(values[values.len() * 99 / 100]),
        count: values.len(),
        ..Outcome::default()
    })
}

/// What a good guest gets beside a bad one, and how long its kernels take; all but the first seconds.
pub(crate) fn neighbour(said: &[Said], warm_up: u32) -> Option<Outcome> {
    let good = &said[..1];
    let (from, until) = common(good, warm_up)?;
    let part = good[0].between(from, until) * 1e3 / (until - from) as f64;
    // The first seconds are the same part of the kernels as of the time, or nearly so.
    let (first, last, _) = good[0].edge?;
    let took = &good[0].took;
    let skipped = took.len() as u64 * (from - first) / (last - first).max(1);
    let outcome = quantiles(took.get(usize::try_from(skipped).ok()?..)?.to_vec())?;
    Some(Outcome { shares: vec![part], ..outcome })
}

/// The first guest's latencies; those of the first seconds are left out.
pub(crate) fn latency(said: &[Said], warm_up: u32) -> Option<Outcome> {
    // One every 2 ms.
    let skipped = (warm_up as usize * 500).min(said[0].took.len() / 2);
    let mut outcome = quantiles(said[0].took[skipped..].to_vec())?;
    if let Some((first, last, time)) = said.get(1).and_then(|other| other.edge) {
        outcome.sum = Some(time * 1e3 / (last - first).max(1) as f64);
    }
    Some(outcome)
}

/// The time from one guest's last kernel to another's first, by the device's own timer.
pub(crate) fn handover(said: &[Said]) -> Option<Outcome> {
    let mut ran: Vec<(u64, u64, usize)> = Vec::new();
    for (guest, one) in said.iter().enumerate() {
        // The first ones are before the guests are together.
        ran.extend(one.ran.iter().skip(one.ran.len() / 4).map(|(start, end)| (*start, *end, guest)));
    }
    ran.sort_unstable();
    let from = said.iter().filter_map(|one| one.ran.get(one.ran.len() / 4)).map(|(start, _)| *start).max()?;
    let until = said.iter().filter_map(|one| one.ran.last()).map(|(start, _)| *start).min()?;
    let gaps = ran
        .windows(2)
        .filter(|pair| pair[0].2 != pair[1].2 && pair[0].0 >= from && pair[1].0 <= until)
        .map(|pair| pair[1].0.saturating_sub(pair[0].1) as f64 / 1e3);
    quantiles(gaps.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(per_window: f64) -> Said {
        let mut text = String::from("edge 50000000 6050000000 1\n");
        for window in 0..60 {
            text += &format!("window {} {per_window}\n", window * WINDOW);
        }
        Said::read(&text)
    }

    #[test]
    fn shares_and_jain_are_by_weight() {
        let outcome = shares(&[guest(25_000.0), guest(75_000.0)], &[1.0, 3.0], 1).unwrap();
        assert!(outcome.error.unwrap() < 1e-9 && outcome.error_second.unwrap() < 1e-9);
        assert!((outcome.jain.unwrap() - 1.0).abs() < 1e-9 && (outcome.sum.unwrap() - 1.0).abs() < 1e-9);
        let outcome = shares(&[guest(25_000.0), guest(75_000.0)], &[1.0, 1.0], 1).unwrap();
        assert!((outcome.error.unwrap() - 0.25).abs() < 1e-9);
        assert!((outcome.jain.unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(shares(&[Said::read("nothing")], &[1.0], 1), None);
    }

    #[test]
    fn caps_are_parts_of_the_device() {
        let outcome = cap(&[guest(12_000.0)], 10.0, 1).unwrap();
        assert!((outcome.error.unwrap() - 0.02).abs() < 1e-9);
    }

    #[test]
    fn handovers_are_between_guests_only() {
        let mut said = [Said::default(), Said::default()];
        for turn in 0..100_u64 {
            for kernel in 0..5 {
                let start = 1_000_000 + turn * 1_000_000 + kernel * 100_000;
                said[0].ran.push((start, start + 100_000));
                if kernel < 4 {
                    said[1].ran.push((start + 550_000, start + 650_000));
                }
            }
        }
        let outcome = handover(&said).unwrap();
        assert!((outcome.p50.unwrap() - 50.0).abs() < 1e-9, "{outcome:?}");
    }
}
