//! Figures: what was measured, each way, and what follows from it.

use crate::targets::{self, Limit, Target};
use crate::ways::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Microseconds.
    Microseconds,
    /// Percent of one processor.
    Percent,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Its name.
    pub(crate) name: String,
    /// What its values are.
    pub(crate) unit: Unit,
    /// One value a round, for each way of running.
    pub(crate) samples: BTreeMap<Name, Vec<f64>>,
    /// Whether targets for a GPU say nothing about this run.
    pub(crate) software: bool,
    /// By how much each ratio has grown over its baseline, where that is too much.
    #[serde(default)]
    pub(crate) grown: BTreeMap<Name, f64>,
}

impl Figure {
    /// The median of one way of running.
    pub(crate) fn median(&self, way: Name) -> Option<f64> {
        let mut values = self.samples.get(&way)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            length if length % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    /// The median of one way of running over the native one.
    pub(crate) fn ratio(&self, way: Name) -> Option<f64> {
        let (native, median) = (self.median(Name::Native)?, self.median(way)?);
        (native > 0.0).then(|| median / native)
    }

    /// What is aimed at, and whether it is reached (`None` where that cannot be said).
    pub(crate) fn target(&self, way: Name) -> Option<(&'static Target, Option<bool>)> {
        let target = targets::of(&self.name, way)?;
        let speaks = target.everywhere || !self.software;
        // A value that stands for itself is compared with nothing.
        let native =
            self.median(Name::Native).or_else(|| matches!(target.limit, Limit::Value(_)).then_some(0.0));
        let met = native.zip(self.median(way)).filter(|_| speaks);
        Some((target, met.map(|(native, median)| target.limit.is_met(native, median))))
    }

    /// Whether a target is missed or a baseline left behind.
    pub(crate) fn is_bad(&self) -> bool {
        let missed = |way| self.target(way).is_some_and(|(_, met)| met == Some(false));
        missed(Name::Remoted) || missed(Name::Socket) || !self.grown.is_empty()
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What ran the kernels of remoted programs, as far as the server says.
    pub(crate) device: String,
    /// Whether that is a processor and no GPU.
    pub(crate) software: bool,
    /// Rounds.
    pub(crate) rounds: u32,
    /// Processors of this machine.
    pub(crate) processors: usize,
    /// The figures, in the order in which they were first seen.
    pub(crate) figures: Vec<Figure>,
    /// What could not be measured, and why.
    #[serde(default)]
    pub(crate) failures: Vec<String>,
}

impl Run {
    /// Adds a value.
    pub(crate) fn add(&mut self, name: &str, unit: Unit, way: Name, value: f64) {
        let index = self.figures.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            self.figures.push(Figure {
                name: name.to_owned(),
                unit,
                samples: BTreeMap::new(),
                software: self.software,
                grown: BTreeMap::new(),
            });
            self.figures.len() - 1
        });
        self.figures[index].samples.entry(way).or_default().push(value);
    }

    /// Marks ratios that have grown by more than `tolerance` since `baseline`.
    pub(crate) fn compare(&mut self, baseline: &Self, tolerance: f64) {
        for figure in &mut self.figures {
            let Some(before) = baseline.figures.iter().find(|other| other.name == figure.name) else {
                continue;
            };
            for way in [Name::Remoted, Name::Socket] {
                let Some((now, then)) = figure.ratio(way).zip(before.ratio(way)) else { continue };
                if now > then * (1.0 + tolerance) {
                    figure.grown.insert(way, now / then);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with one figure.
    pub(crate) fn run(name: &str, native: &[f64], remoted: &[f64], software: bool) -> Run {
        let mut run = Run {
            device: "a device".into(),
            software,
            rounds: 3,
            processors: 2,
            figures: Vec::new(),
            failures: Vec::new(),
        };
        for (way, values) in [(Name::Native, native), (Name::Remoted, remoted)] {
            values.iter().for_each(|value| run.add(name, Unit::Microseconds, way, *value));
        }
        run
    }

    #[test]
    fn medians_and_ratios() {
        let figure = &run("launch_issue", &[3.0, 1.0, 2.0], &[1.0, 0.2], false).figures[0];
        assert_eq!(figure.median(Name::Native), Some(2.0));
        assert_eq!(figure.median(Name::Remoted), Some(0.6));
        assert_eq!(figure.ratio(Name::Remoted), Some(0.3));
        assert_eq!(figure.ratio(Name::Socket), None);
        assert_eq!(figure.target(Name::Remoted).unwrap().1, Some(true));
    }

    #[test]
    fn a_miss_is_bad_on_a_gpu_only() {
        assert!(run("launch_issue", &[1.0], &[2.0], false).figures[0].is_bad());
        assert!(!run("launch_issue", &[1.0], &[2.0], true).figures[0].is_bad());
        assert!(!run("launch_issue", &[1.0], &[0.1], false).figures[0].is_bad());
        assert!(run("library_load_true", &[1.0], &[2000.0], true).figures[0].is_bad());
        assert!(!run("no_target", &[1.0], &[2000.0], false).figures[0].is_bad());
    }

    #[test]
    fn a_ratio_that_grew_is_marked() {
        let baseline = run("x", &[1.0], &[1.0], true);
        let mut now = run("x", &[1.0], &[1.4], true);
        now.compare(&baseline, 0.5);
        assert!(now.figures[0].grown.is_empty());
        now.compare(&baseline, 0.3);
        assert!(now.figures[0].is_bad());
    }
}
