//! What is aimed at, one row a target, with its reason. docs/performance.md says for each whether it is reached and what
//! bounds it.

use crate::ways::Name;

/// One aim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Name of the figure.
    pub(crate) figure: &'static str,
    /// The way of running that it is about.
    pub(crate) way: Name,
    /// The limit.
    pub(crate) limit: Limit,
    /// Whether it holds on a software device, too.
    pub(crate) everywhere: bool,
    /// Why this much.
    pub(crate) reason: &'static str,
}

/// What may not be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// The median over the native one.
    Ratio(f64),
    /// The median less the native one, in microseconds.
    Adds(f64),
    /// The median itself, in the figure's unit.
    Value(f64),
}

impl Limit {
    /// Whether medians of a figure stay within it.
    pub(crate) fn is_met(self, native: f64, median: f64) -> bool {
        match self {
            Self::Ratio(most) => median <= most * native,
            Self::Adds(most) => median - native <= most,
            Self::Value(most) => median <= most,
        }
    }
}

const fn ratio(figure: &'static str, most: f64, reason: &'static str) -> Target {
    Target { figure, way: Name::Remoted, limit: Limit::Ratio(most), everywhere: false, reason }
}

/// 95 % of native throughput, as a ratio of times.
const THROUGHPUT: f64 = 1.0 / 0.95;
/// 97 % of native bandwidth.
const BANDWIDTH: f64 = 1.0 / 0.97;
/// 40 % of native bandwidth.
const SOCKET: f64 = 1.0 / 0.4;

const FIRE: &str = "nothing is awaited: a launch is a few stores into a ring";
const REPLAY: &str =
    "the worker issues what the program would: its own cost per command must vanish beside the driver's";
const ONE_WAY: &str = "two hand-overs between processors beside what the driver takes";
const QUERY: &str = "the answer lies in memory that the worker writes";
const ZERO_COPY: &str = "the device reads the program's own memory: one message, no copy";
const THREADS: &str = "several threads copy where the driver uses one";
const SOCKETS: &str = "every byte passes the kernel twice";

/// All aims, in the order of the figures.
pub(crate) const TARGETS: &[Target] = &[
    ratio(
        "exec_first_kernel",
        0.25,
        "the worker has initialised the driver and made the context before the program starts",
    ),
    ratio("launch_issue", 0.30, FIRE),
    ratio("launch_throughput_1", THROUGHPUT, REPLAY),
    ratio("graph_launch_throughput", THROUGHPUT, REPLAY),
    ratio("storm", THROUGHPUT, REPLAY),
    ratio("launch_sync", 1.35, ONE_WAY),
    ratio("h2d_pageable_4B", 1.5, ONE_WAY),
    ratio("d2h_pageable_4B", 1.5, ONE_WAY),
    ratio("h2d_pinned_4B", 1.5, ONE_WAY),
    ratio("d2h_pinned_4B", 1.5, ONE_WAY),
    ratio("h2d_pageable_256MiB", 0.5, THREADS),
    ratio("d2h_pageable_256MiB", 1.0 / 1.3, THREADS),
    ratio("h2d_pinned_256MiB", BANDWIDTH, ZERO_COPY),
    ratio("d2h_pinned_256MiB", BANDWIDTH, ZERO_COPY),
    Target { way: Name::Socket, ..ratio("h2d_pageable_256MiB", SOCKET, SOCKETS) },
    Target { way: Name::Socket, ..ratio("d2h_pageable_256MiB", SOCKET, SOCKETS) },
    ratio("event_query", 1.0, QUERY),
    ratio("stream_query", 1.0, QUERY),
    ratio("malloc_free_1MiB", 1.1, "an allocation waits for the driver's answer, a free does not"),
    Target {
        figure: "idle_100",
        way: Name::Remoted,
        limit: Limit::Value(1.0),
        everywhere: true,
        reason: "who has nothing to do sleeps in the kernel",
    },
    Target {
        figure: "library_load_true",
        way: Name::Remoted,
        limit: Limit::Adds(1000.0),
        everywhere: true,
        reason: "LD_PRELOAD reaches every child process, shells included",
    },
];

/// The aim for a figure run one way.
pub(crate) fn of(figure: &str, way: Name) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.figure == figure && target.way == way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_one_target_for_each_way() {
        for (index, target) in TARGETS.iter().enumerate() {
            let again = TARGETS[index + 1..]
                .iter()
                .any(|other| (other.figure, other.way) == (target.figure, target.way));
            assert!(!again, "{} twice", target.figure);
            assert!(!target.reason.is_empty());
        }
    }

    #[test]
    fn limits_are_inclusive() {
        assert!(Limit::Ratio(0.5).is_met(4.0, 2.0) && !Limit::Ratio(0.5).is_met(4.0, 2.1));
        assert!(Limit::Adds(1.0).is_met(4.0, 5.0) && !Limit::Adds(1.0).is_met(4.0, 5.1));
        assert!(Limit::Value(1.0).is_met(9.0, 1.0) && !Limit::Value(1.0).is_met(9.0, 1.1));
    }
}
