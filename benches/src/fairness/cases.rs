//! What is run: guests, what they are entitled to, and which ways.

use super::guests::Way;

/// A guest of a case.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// The VM that it is in: a name of [`VMS`].
    pub(crate) vm: String,
    /// Its weight, for what it is due.
    pub(crate) weight: u32,
    /// What it does.
    pub(crate) does: Does,
}

/// What a guest does.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Kernels of these lengths in microseconds, always some in flight.
    Busy(&'static str),
    /// Graphs of kernels of this length.
    Graph(&'static str),
    /// A kernel of 50 µs every 2 ms.
    Latency,
    /// As busy, with the device's own times of each kernel.
    Trace(&'static str),
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sought {
    /// Shares by weight.
    Shares,
    /// The first guest's part of the device, in per cent, against this cap.
    Cap(f64),
    /// The first guest's latencies.
    Latency,
    /// The gap between one guest's last kernel and another's first.
    Handover,
}

/// A case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// For the table.
    pub(crate) name: String,
    /// Who takes part.
    pub(crate) guests: Vec<Guest>,
    /// What is looked for.
    pub(crate) sought: Sought,
    /// Which ways it is run.
    pub(crate) ways: Vec<Way>,
    /// Whether a model of time cannot show it.
    pub(crate) needs_gpu: bool,
}

/// VMs that the servers know: name, and what stands in their rule.
pub(crate) const VMS: &[(&str, &str)] = &[
    ("a1", "weight = 100"),
    ("b1", "weight = 100"),
    ("c1", "weight = 100"),
    ("d1", "weight = 100"),
    ("e1", "weight = 100"),
    ("f1", "weight = 100"),
    ("g1", "weight = 100"),
    ("h1", "weight = 100"),
    ("w2", "weight = 200"),
    ("w9", "weight = 900"),
    ("w30", "weight = 300"),
    ("w70", "weight = 700"),
    ("cap10", "gpu_max = \"10%\""),
    ("cap25", "gpu_max = \"25%\""),
    ("cap50", "gpu_max = \"50%\""),
    ("fast", "tier = \"latency\""),
];

const SHORT: &str = "200";
const MIDDLE: &str = "2000";
const LONG: &str = "20000";
const MIXED: &str = "200,2000,20000";

fn name_of(kernel: &str) -> &'static str {
    match kernel {
        SHORT => "0.2 ms",
        MIDDLE => "2 ms",
        LONG => "20 ms",
        _ => "mixed",
    }
}

fn busy(vm: &str, weight: u32, kernel: &'static str) -> Guest {
    Guest { vm: vm.to_owned(), weight, does: Does::Busy(kernel) }
}

fn shares(name: &str, vms: &[(&str, u32)], kernel: &'static str, ways: &[Way]) -> Case {
    Case {
        name: format!("{name}, {}", name_of(kernel)),
        guests: vms.iter().map(|(vm, weight)| busy(vm, *weight, kernel)).collect(),
        sought: Sought::Shares,
        ways: ways.to_vec(),
        needs_gpu: false,
    }
}

/// All cases.
pub(crate) fn all(quick: bool) -> Vec<Case> {
    let every = [Way::Native, Way::Fifo, Way::LeaseFq];
    let ours = [Way::LeaseFq];
    let kernels: &[&'static str] = if quick { &[SHORT, LONG] } else { &[SHORT, MIDDLE, LONG, MIXED] };
    let mut cases = Vec::new();
    for kernel in kernels {
        let ways: &[Way] = if *kernel == LONG { &[Way::LeaseFq] } else { &[Way::Fifo, Way::LeaseFq] };
        cases.push(shares("alone", &[("a1", 1)], kernel, ways));
        cases.push(shares("1:1", &[("a1", 1), ("b1", 1)], kernel, &every));
        if !quick {
            cases.push(shares("1:2", &[("a1", 1), ("w2", 2)], kernel, &ours));
        }
        cases.push(shares("1:9", &[("a1", 1), ("w9", 9)], kernel, &ours));
        cases.push(shares("30:70", &[("w30", 3), ("w70", 7)], kernel, &ours));
    }
    let eight = ["a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1"].map(|vm| (vm, 1));
    cases.push(shares("4 equal", &eight[..4], MIDDLE, if quick { &ours } else { &every }));
    if !quick {
        cases.push(shares("8 equal", &eight, SHORT, &ours));
        cases.push(shares("8 equal", &eight, MIDDLE, &ours));
    }
    let mut unlike = shares("unlike", &[("a1", 1)], SHORT, &every);
    unlike.guests.push(busy("b1", 1, LONG));
    unlike.name = "1:1, 0.2 beside 20 ms".into();
    cases.push(unlike);
    for (vm, cap) in [("cap10", 10.0), ("cap25", 25.0), ("cap50", 50.0)] {
        if !quick || vm == "cap25" {
            cases.push(capped(vm, cap, Does::Busy(MIDDLE), false));
        }
    }
    cases.push(capped("cap25", 25.0, Does::Graph(SHORT), false));
    cases.push(capped("cap25", 25.0, Does::Busy(SHORT), true));
    for (name, beside) in [("alone", None), ("beside 0.5 ms", Some("500")), ("beside 20 ms", Some(LONG))] {
        let fast = Guest { vm: "fast".into(), weight: 1, does: Does::Latency };
        let mut guests = vec![fast];
        guests.extend(beside.map(|kernel| busy("a1", 1, kernel)));
        let name = format!("latency, {name}");
        let ways = if quick && beside.is_none() { vec![Way::Native, Way::LeaseFq] } else { every.to_vec() };
        cases.push(Case { name, guests, sought: Sought::Latency, ways, needs_gpu: false });
    }
    let guests = ["a1", "b1"].map(|vm| Guest { vm: vm.into(), weight: 1, does: Does::Trace("500") }).to_vec();
    let name = "hand-over, 0.5 ms".to_owned();
    cases.push(Case { name, guests, sought: Sought::Handover, ways: ours.to_vec(), needs_gpu: true });
    cases
}

fn capped(vm: &str, cap: f64, does: Does, beside: bool) -> Case {
    let what = match (&does, beside) {
        (Does::Graph(_), _) => "graphs",
        (_, true) => "beside 2 ms",
        _ => "alone",
    };
    let name = format!("cap {cap:.0} %, {what}");
    let mut guests = vec![Guest { vm: vm.to_owned(), weight: 1, does }];
    if beside {
        guests.push(busy("a1", 1, MIDDLE));
    }
    Case { name, guests, sought: Sought::Cap(cap), ways: vec![Way::LeaseFq], needs_gpu: false }
}
