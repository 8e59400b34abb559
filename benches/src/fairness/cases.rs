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
    /// Graphs of so many kernels of this length.
    Graph(&'static str, &'static str),
    /// Products of matrices of this side, by cuBLAS.
    Gemm(&'static str),
    /// A kernel of 50 µs, then a pause of so many microseconds, or of a length between two.
    Latency(&'static str),
    /// Kernels of this length, one after the other.
    Steady(&'static str),
    /// What a bad neighbour does.
    Bad(&'static str),
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
    /// The first guest's part of the device, and its latencies.
    Neighbour,
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

/// VMs that the servers know: name, and what stands in their rule. Those with a cap would get more by weight.
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
    ("cap10", "gpu_max = \"10%\"\nweight = 900"),
    ("cap25", "gpu_max = \"25%\"\nweight = 900"),
    ("cap50", "gpu_max = \"50%\"\nweight = 900"),
    ("bad", "memory_max = \"2G\"\nmax_processes = 6"),
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
        cases.push(shares("alone", &[("a1", 1)], kernel, &every));
        cases.push(shares("1:1", &[("a1", 1), ("b1", 1)], kernel, &every));
        if !quick {
            cases.push(shares("1:2", &[("a1", 1), ("w2", 2)], kernel, &ours));
        }
        cases.push(shares("1:9", &[("a1", 1), ("w9", 9)], kernel, &ours));
        cases.push(shares("30:70", &[("w30", 3), ("w70", 7)], kernel, &ours));
    }
    let eight = ["a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1"].map(|vm| (vm, 1));
    for kernel in if quick { &[MIDDLE] } else { kernels } {
        cases.push(shares("4 equal", &eight[..4], kernel, &ours));
    }
    for kernel in if quick { &[] } else { kernels } {
        cases.push(shares("8 equal", &eight, kernel, if *kernel == MIDDLE { &every } else { &ours }));
    }
    let mut unlike = shares("unlike", &[("a1", 1)], SHORT, if quick { &ours } else { &every });
    unlike.guests.push(busy("b1", 1, LONG));
    unlike.name = "1:1, 0.2 beside 20 ms".into();
    cases.push(unlike);
    for (vm, cap) in [("cap10", 10.0), ("cap25", 25.0), ("cap50", 50.0)] {
        cases.push(capped(vm, cap, Does::Busy(MIDDLE), false));
        if !quick {
            cases.push(capped(vm, cap, Does::Busy(SHORT), true));
        }
    }
    cases.push(capped("cap10", 10.0, Does::Graph(SHORT, "32"), false));
    cases.push(capped("cap25", 25.0, Does::Graph(SHORT, "4"), false));
    cases.push(capped("cap25", 25.0, Does::Gemm("4096"), false));
    // A pause of 2 ms ends when a slice of the driver's does, so that who natively comes then hardly waits for it.
    let (even, uneven) = ("2000", "1000-4000");
    for (name, pause, beside) in [
        ("alone", even, None),
        ("beside 0.5 ms", even, Some("500")),
        ("beside 20 ms", even, Some(LONG)),
        ("uneven, beside 0.5 ms", uneven, Some("500")),
        ("uneven, beside 20 ms", uneven, Some(LONG)),
    ] {
        let fast = Guest { vm: "fast".into(), weight: 1, does: Does::Latency(pause) };
        let mut guests = vec![fast];
        guests.extend(beside.map(|kernel| busy("a1", 1, kernel)));
        let name = format!("latency, {name}");
        cases.push(Case { name, guests, sought: Sought::Latency, ways: every.to_vec(), needs_gpu: false });
    }
    let guests = ["a1", "b1"].map(|vm| Guest { vm: vm.into(), weight: 1, does: Does::Trace("500") }).to_vec();
    let name = "hand-over, 0.5 ms".to_owned();
    cases.push(Case { name, guests, sought: Sought::Handover, ways: ours.to_vec(), needs_gpu: true });
    cases
}

/// A good guest beside bad ones.
pub(crate) fn neighbours() -> Vec<Case> {
    let case = |what: Option<&'static str>| {
        let mut guests = vec![Guest { vm: "a1".into(), weight: 1, does: Does::Steady("500") }];
        guests.extend(what.map(|what| Guest { vm: "bad".into(), weight: 1, does: Does::Bad(what) }));
        let name = format!("beside {}", what.unwrap_or("nobody"));
        Case { name, guests, sought: Sought::Neighbour, ways: vec![Way::Guarded], needs_gpu: false }
    };
    let bad = ["endless", "trap", "illegal", "allocations", "flood", "stalled", "forks"];
    std::iter::once(None).chain(bad.map(Some)).map(case).collect()
}

fn capped(vm: &str, cap: f64, does: Does, beside: bool) -> Case {
    let what = match (&does, beside) {
        (Does::Graph(_, nodes), _) => format!("graphs of {nodes}"),
        (Does::Gemm(_), _) => "cuBLAS".into(),
        (_, true) => "beside 2 ms".into(),
        _ => "alone".into(),
    };
    let needs_gpu = matches!(does, Does::Gemm(_));
    let name = format!("cap {cap:.0} %, {what}");
    let mut guests = vec![Guest { vm: vm.to_owned(), weight: 1, does }];
    if beside {
        guests.push(busy("a1", 1, MIDDLE));
    }
    Case { name, guests, sought: Sought::Cap(cap), ways: vec![Way::LeaseFq], needs_gpu }
}
