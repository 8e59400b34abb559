//! Properties of the decision, against the simulated device.

use super::simulate::{Simulation, Workload};
use super::{
    Allowance, Gate, MILLISECOND, Nanos, Observation, Policy, QUANTUM_MOST, Reason, Scheduler, Share, Tuning,
    VmId, WINDOW, YIELD_AFTER,
};
use crate::vm::Tier;
use proptest::prelude::*;

const SECOND: Nanos = 1_000 * MILLISECOND;

fn busy(weight: u32, kernel: Nanos) -> (Share, Workload) {
    (Share::of(weight), Workload::busy(kernel))
}

/// Shares of what all got between two moments.
fn shares(simulation: &Simulation, vms: usize, from: Nanos, until: Nanos) -> Vec<f64> {
    let service: Vec<f64> = (0..vms).map(|vm| simulation.service(vm as VmId, from, until) as f64).collect();
    let all: f64 = service.iter().sum();
    service.iter().map(|service| service / all).collect()
}

/// The greatest share error in any second.
fn share_error(simulation: &Simulation, weights: &[u32], from: Nanos, until: Nanos) -> f64 {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut worst: f64 = 0.0;
    let mut start = from;
    while start + SECOND <= until {
        for (share, weight) in shares(simulation, weights.len(), start, start + SECOND).iter().zip(weights) {
            worst = worst.max((share - f64::from(*weight) / sum).abs());
        }
        start += SECOND / 10;
    }
    worst
}

#[test]
fn two_to_eight_guests_get_their_shares_in_every_second() {
    let kernels = [200_000, 2 * MILLISECOND, 20 * MILLISECOND];
    for weights in
        [vec![1, 1], vec![1, 2], vec![1, 9], vec![30, 70], vec![1; 4], vec![1, 2, 3, 4], vec![1; 8]]
    {
        for kernel in kernels {
            let guests = weights.iter().map(|weight| busy(*weight, kernel)).collect();
            let mut simulation = Simulation::new(Tuning::default(), guests);
            // What an H200 takes to turn from one process to another, by what its throughput lacks with kernels of 20 ms.
            simulation.switch = 150_000;
            simulation.run(6 * SECOND);
            // What was overdrawn before the kernels' lengths were known is paid back in the first two seconds.
            let error = share_error(&simulation, &weights, 2 * SECOND, 6 * SECOND);
            assert!(error <= 0.02, "{weights:?} {kernel} {error}");
            // Two equal ones take turns: never more than one kernel apart.
            assert!(weights != [1, 1] || error <= 0.011, "{kernel} {error}");
            let busy = simulation.busy as f64 / (6 * SECOND) as f64;
            assert!(busy >= 0.95, "{weights:?} {kernel}: busy {busy}");
        }
    }
}

#[test]
fn mixed_kernels_get_their_shares() {
    let kernels = [200_000, 2 * MILLISECOND, 20 * MILLISECOND];
    let mut simulation = Simulation::new(Tuning::default(), kernels.map(|kernel| busy(100, kernel)).to_vec());
    simulation.run(6 * SECOND);
    let error = share_error(&simulation, &[1, 1, 1], SECOND, 6 * SECOND);
    assert!(error <= 0.03, "{error}");
    // Each guest has all three lengths; where a parameter says how long one function works, nobody can tell which comes next.
    for weights in [vec![1, 1], vec![1, 2], vec![1, 9], vec![30, 70], vec![1; 4], vec![1; 8]] {
        for blind in [false, true] {
            let workload = Workload { kernels: kernels.to_vec(), blind, ..Workload::busy(0) };
            let guests = weights.iter().map(|weight| (Share::of(*weight), workload.clone())).collect();
            let mut simulation = Simulation::new(Tuning::default(), guests);
            simulation.switch = 150_000;
            simulation.run(6 * SECOND);
            let error = share_error(&simulation, &weights, SECOND, 6 * SECOND);
            assert!(error <= 0.02, "{weights:?}, blind: {blind}: {error}");
        }
    }
}

#[test]
fn alone_is_free_and_a_newcomer_is_served_at_once() {
    let mut late = Workload::busy(MILLISECOND);
    late.from = SECOND;
    let guests = vec![busy(100, MILLISECOND), (Share::of(100), late)];
    let mut simulation = Simulation::new(Tuning::default(), guests);
    simulation.run(SECOND);
    assert_eq!(simulation.reasons.get("alone"), Some(&1));
    assert_eq!(simulation.reasons.len(), 1, "{:?}", simulation.reasons);
    simulation.run(2 * SECOND);
    assert!(simulation.service(1, SECOND, SECOND + 50 * MILLISECOND) > 0);
    let halves = shares(&simulation, 2, SECOND + 100 * MILLISECOND, 2 * SECOND);
    assert!((halves[0] - 0.5).abs() < 0.02, "{halves:?}");
}

#[test]
fn a_change_of_weight_counts_within_100_ms() {
    let mut simulation =
        Simulation::new(Tuning::default(), vec![busy(100, MILLISECOND), busy(100, MILLISECOND)]);
    simulation.change(SECOND, 1, Share::of(300));
    simulation.run(2 * SECOND);
    let before = shares(&simulation, 2, 500 * MILLISECOND, SECOND);
    let after = shares(&simulation, 2, SECOND + 100 * MILLISECOND, 2 * SECOND);
    assert!((before[1] - 0.5).abs() < 0.02 && (after[1] - 0.75).abs() < 0.02, "{before:?} {after:?}");
}

#[test]
fn who_goes_leaves_all_to_the_others() {
    let mut leaving = Workload::busy(MILLISECOND);
    leaving.until = SECOND;
    let mut simulation = Simulation::new(
        Tuning::default(),
        vec![busy(100, MILLISECOND), (Share::of(900), leaving), busy(100, MILLISECOND)],
    );
    simulation.run(2 * SECOND);
    let after = shares(&simulation, 3, SECOND + 100 * MILLISECOND, 2 * SECOND);
    assert!((after[0] - 0.5).abs() < 0.02 && after[1] == 0.0, "{after:?}");
}

#[test]
fn caps_hold_alone_and_beside_others() {
    for percent in [10, 25, 50] {
        for kernel in [200_000, 2 * MILLISECOND, 20 * MILLISECOND] {
            for others in [0, 1] {
                let cap = Allowance { quota: percent * MILLISECOND, period: 100 * MILLISECOND };
                let capped = Share { cap: Some(cap), ..Share::of(10_000) };
                let mut guests = vec![(capped, Workload::busy(kernel))];
                guests.extend(std::iter::repeat_n(busy(100, MILLISECOND), others));
                let mut simulation = Simulation::new(Tuning::default(), guests);
                simulation.run(6 * SECOND);
                let part = |from, until| simulation.service(0, from, until) as f64 / (until - from) as f64;
                for start in (10..50).map(|tenth| tenth * SECOND / 10) {
                    let had = part(start, start + SECOND);
                    let error = (had - percent as f64 / 100.0).abs();
                    assert!(error <= 0.02, "{percent} % of {kernel}, {others} others, from {start}: {had}");
                }
                let had = part(SECOND, 6 * SECOND);
                if others == 1 {
                    let rest = simulation.service(1, SECOND, 6 * SECOND) as f64 / (5 * SECOND) as f64;
                    assert!(rest + had > 0.93, "what a cap leaves is used: {rest} + {had}");
                }
            }
        }
    }
}

#[test]
fn the_latency_tier_goes_first_within_its_budget() {
    let latency = Share { tier: Tier::Latency, ..Share::of(100) };
    let mut simulation = Simulation::new(
        Tuning::default(),
        vec![(latency, Workload::periodic(50_000, 2 * MILLISECOND)), busy(100, 500_000)],
    );
    simulation.run(3 * SECOND);
    let latencies = simulation.latencies(0, SECOND);
    let p99 = latencies[latencies.len() * 99 / 100];
    // The driver's slices: half the speed beside what is in flight.
    assert!(p99 <= 150_000, "p99 {p99}");
    assert!(simulation.service(1, SECOND, 3 * SECOND) > 2 * SECOND * 85 / 100);
    // A batch job in the latency tier gets its budget, and beyond it what it is due.
    let mut simulation = Simulation::new(
        Tuning::default(),
        vec![(latency, Workload::busy(MILLISECOND)), busy(300, MILLISECOND)],
    );
    simulation.run(3 * SECOND);
    let halves = shares(&simulation, 2, SECOND, 3 * SECOND);
    assert!(halves[0] < 0.5, "{halves:?}");
}

#[test]
fn the_idle_tier_gets_what_nobody_wants() {
    let idle = Share { tier: Tier::Idle, ..Share::of(10_000) };
    let mut simulation =
        Simulation::new(Tuning::default(), vec![(idle, Workload::busy(MILLISECOND)), busy(1, MILLISECOND)]);
    simulation.run(2 * SECOND);
    let parts = shares(&simulation, 2, 100 * MILLISECOND, 2 * SECOND);
    assert!(parts[0] < 0.01, "{parts:?}");
    let periodic = (Share::of(1), Workload::periodic(MILLISECOND, 20 * MILLISECOND));
    let mut simulation =
        Simulation::new(Tuning::default(), vec![(idle, Workload::busy(MILLISECOND)), periodic]);
    simulation.run(2 * SECOND);
    let parts = shares(&simulation, 2, 100 * MILLISECOND, 2 * SECOND);
    assert!(parts[0] > 0.85, "{parts:?}");
}

#[test]
fn an_endless_kernel_starves_nobody_and_is_charged() {
    let mut guests = vec![busy(100, 3_600 * SECOND), busy(100, MILLISECOND)];
    guests[0].1.from = 500 * MILLISECOND;
    let mut simulation = Simulation::new(Tuning::default(), guests);
    simulation.run(3 * SECOND);
    // The driver slices between the two: half is what there is to have.
    let had = simulation.service(1, SECOND, 3 * SECOND) as f64 / (2 * SECOND) as f64;
    assert!(had > 0.45, "{had}");
    assert!(simulation.longest_gap(1, 3 * SECOND) < 50 * MILLISECOND);
    assert!(simulation.reasons.contains_key("overrun"));
    // One that ends after all is charged its part of the time in which both ran.
    let mut simulation =
        Simulation::new(Tuning::default(), vec![busy(100, 2 * SECOND), busy(100, MILLISECOND)]);
    simulation.run(10 * SECOND);
    let charged = simulation.scheduler.report(0).unwrap().charged;
    assert!(charged > 3 * SECOND && charged < 6 * SECOND, "{charged}");
}

#[test]
fn fifo_opens_everything_and_round_robin_knows_no_weight() {
    let tuning = Tuning { policy: Policy::Fifo, ..Tuning::default() };
    let mut scheduler = Scheduler::new(tuning);
    scheduler.set(0, 1, Share::of(1));
    assert_eq!(scheduler.decide(0).gates, [(1, Gate::Off, Reason::Policy(Policy::Fifo))]);
    let tuning = Tuning { policy: Policy::RoundRobin, ..Tuning::default() };
    let mut simulation = Simulation::new(tuning, vec![busy(1, MILLISECOND), busy(9, MILLISECOND)]);
    simulation.run(2 * SECOND);
    let halves = shares(&simulation, 2, SECOND, 2 * SECOND);
    assert!((halves[0] - 0.5).abs() < 0.02, "{halves:?}");
}

#[test]
fn a_holder_that_dies_frees_the_device_at_once() {
    let mut scheduler = Scheduler::new(Tuning::default());
    let waits = Observation { waiting: true, ..Observation::default() };
    let runs = Observation {
        in_flight: 2,
        processes: 1,
        remaining: MILLISECOND,
        pending: MILLISECOND,
        ..Observation::default()
    };
    for vm in [1, 2] {
        scheduler.set(0, vm, Share::of(100));
        scheduler.observe(0, vm, waits);
    }
    let opened = scheduler.decide(0).gates;
    let [(holder, Gate::Open { .. }, _)] = opened[..] else { panic!("{opened:?}") };
    scheduler.observe(1000, holder, runs);
    assert!(scheduler.decide(1000).gates.is_empty());
    scheduler.remove(2000, holder);
    scheduler.observe(2000, 3 - holder, waits);
    let opened = scheduler.decide(2000).gates;
    assert!(
        matches!(opened[..], [(vm, Gate::Open { .. } | Gate::Free, _)] if vm == 3 - holder),
        "{opened:?}"
    );
}

#[test]
fn lies_of_a_worker_hurt_nobody_else_for_long() {
    let mut scheduler = Scheduler::new(Tuning::default());
    let lies = Observation {
        waiting: true,
        in_flight: u32::MAX,
        processes: 1,
        remaining: Nanos::MAX / 4,
        pending: Nanos::MAX / 4,
        charged: Nanos::MAX / 4,
        stopped: true,
        marked: true,
    };
    let waits = Observation { waiting: true, ..Observation::default() };
    for vm in [1, 2] {
        scheduler.set(0, vm, Share::of(100));
    }
    let (mut now, mut open, mut wait, mut longest) = (0, false, 0, 0);
    for _ in 0..5_000 {
        scheduler.observe(now, 1, lies);
        scheduler.observe(now, 2, Observation { waiting: !open, ..waits });
        for (vm, gate, _) in scheduler.decide(now).gates {
            if vm == 2 {
                open = gate != Gate::Closed;
            }
        }
        now += 100_000;
        wait = if open { 0 } else { wait + 100_000 };
        longest = longest.max(wait);
    }
    assert!(longest < 200 * MILLISECOND, "{longest}");
}

/// One that runs 200 µs every 5 ms, and marks it, beside two that keep the device busy: in what time nine of ten were done,
/// and how often it went first.
fn marked(share: Share) -> (Nanos, u64) {
    let mut workload = Workload::periodic(200_000, 5 * MILLISECOND);
    workload.marked = true;
    let mut simulation = Simulation::new(
        Tuning::default(),
        vec![busy(100, MILLISECOND), busy(100, MILLISECOND), (share, workload)],
    );
    simulation.run(3 * SECOND);
    let first = simulation.reasons.get("latency-tier").copied().unwrap_or(0);
    let latencies = simulation.latencies(2, SECOND);
    (latencies[latencies.len() * 9 / 10], first)
}

#[test]
fn a_mark_counts_where_the_operator_allows_it() {
    let (without, never) = marked(Share::of(100));
    let (with, often) = marked(Share { marks: true, ..Share::of(100) });
    assert_eq!(never, 0, "a guest does not raise itself");
    assert!(often > 100 && with < without, "{with} with, {without} without, {often}");
}

#[test]
fn who_marks_everything_gets_the_budget_and_its_weight_and_no_more() {
    let mut greedy = Workload::busy(MILLISECOND);
    greedy.marked = true;
    let guests = vec![busy(100, MILLISECOND), (Share { marks: true, ..Share::of(100) }, greedy)];
    let mut simulation = Simulation::new(Tuning::default(), guests);
    simulation.run(4 * SECOND);
    let budget = Tuning::default().latency_budget;
    let most = 0.5 + budget.quota as f64 / budget.period as f64;
    let parts = shares(&simulation, 2, SECOND, 4 * SECOND);
    assert!(parts[1] <= most + 0.02, "{parts:?}");
    // As one of the latency tier that the operator has made so.
    let first = vec![
        busy(100, MILLISECOND),
        (Share { tier: Tier::Latency, ..Share::of(100) }, Workload::busy(MILLISECOND)),
    ];
    let mut reference = Simulation::new(Tuning::default(), first);
    reference.run(4 * SECOND);
    let tier = shares(&reference, 2, SECOND, 4 * SECOND);
    assert!((parts[1] - tier[1]).abs() < 0.05, "{parts:?} {tier:?}");
}

#[test]
fn watching_kernels_leaves_shares_as_they_are() {
    let tuning = Tuning { watched: true, ..Tuning::default() };
    let mut late = busy(300, MILLISECOND);
    late.1.from = 500 * MILLISECOND;
    let mut simulation = Simulation::new(tuning, vec![busy(100, MILLISECOND), late]);
    simulation.run(3 * SECOND);
    let parts = shares(&simulation, 2, SECOND, 3 * SECOND);
    assert!((parts[1] - 0.75).abs() < 0.02, "{parts:?}");
}

#[test]
fn limits_that_change_while_a_vm_is_alone_count_at_once() {
    let mut simulation = Simulation::new(Tuning::default(), vec![busy(100, MILLISECOND)]);
    let cap = Allowance { quota: 25 * MILLISECOND, period: 100 * MILLISECOND };
    simulation.change(SECOND, 0, Share { cap: Some(cap), ..Share::of(100) });
    simulation.run(3 * SECOND);
    let before = simulation.service(0, 0, SECOND) as f64 / SECOND as f64;
    let after = simulation.service(0, SECOND + 200 * MILLISECOND, 3 * SECOND) as f64 / (1.8 * SECOND as f64);
    assert!(before > 0.95 && (after - 0.25).abs() < 0.03, "{before} {after}");
}

#[test]
fn a_tier_that_changes_takes_its_privilege_with_it() {
    let latency = Share { tier: Tier::Latency, ..Share::of(100) };
    let guests = vec![(latency, Workload::busy(100_000)), busy(100, MILLISECOND)];
    let mut simulation = Simulation::new(Tuning::default(), guests);
    simulation.change(100 * MILLISECOND, 0, Share::of(100));
    simulation.run(3 * SECOND);
    let halves = shares(&simulation, 2, SECOND, 3 * SECOND);
    assert!((halves[0] - 0.5).abs() < 0.03, "{halves:?}");
}

#[test]
fn a_policy_that_changes_opens_and_closes_gates() {
    let mut scheduler = Scheduler::new(Tuning { policy: Policy::Fifo, ..Tuning::default() });
    scheduler.set(0, 1, Share::of(1));
    assert_eq!(scheduler.decide(0).gates[0].1, Gate::Off);
    scheduler.tune(Tuning::default());
    assert_eq!(scheduler.decide(1).gates[0].1, Gate::Closed);
    scheduler.tune(Tuning { policy: Policy::Fifo, ..Tuning::default() });
    assert_eq!(scheduler.decide(2).gates[0].1, Gate::Off);
}

fn guest() -> impl Strategy<Value = (u32, Nanos)> {
    (1_u32..=100, prop_oneof![Just(50_000), Just(200_000), Just(MILLISECOND), Just(5 * MILLISECOND)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// SFQ(D) with D = 1: two VMs that always want the device differ in normalised service by at most
    /// `2 (c_i / w_i + c_j / w_j)`, where `c` is what one turn may take: quantum, window and the longest kernel.
    #[test]
    fn the_share_bound_holds(guests in prop::collection::vec(guest(), 2..64)) {
        let made = guests.iter().map(|(weight, kernel)| busy(*weight, *kernel)).collect();
        let mut simulation = Simulation::new(Tuning::default(), made);
        let until = 3 * SECOND;
        simulation.run(until);
        let from = SECOND / 2;
        let service = |vm: usize| simulation.service(vm as VmId, from, until) as f64;
        let cost = |kernel: Nanos| (QUANTUM_MOST + WINDOW + 2 * kernel) as f64;
        for (i, (w_i, k_i)) in guests.iter().enumerate() {
            for (j, (w_j, k_j)) in guests.iter().enumerate().skip(i + 1) {
                let (w_i, w_j) = (f64::from(*w_i), f64::from(*w_j));
                let difference = (service(i) / w_i - service(j) / w_j).abs();
                let bound = 2.0 * (cost(*k_i) / w_i + cost(*k_j) / w_j);
                prop_assert!(difference <= bound, "{i} {j}: {difference} > {bound}");
            }
        }
        let busy = simulation.busy as f64 / until as f64;
        prop_assert!(busy > 0.93, "busy {busy}");
    }

    /// Whatever the others do, whoever wants the device gets it within a round; and it does not idle while wanted.
    #[test]
    fn nobody_starves_and_nothing_is_wasted(
        guests in prop::collection::vec((guest(), 1_u32..20, 0_u64..5 * MILLISECOND, 0_u64..SECOND / 2), 2..10),
    ) {
        let made: Vec<_> = guests
            .iter()
            .map(|((weight, kernel), burst, pause, from)| {
                let workload = Workload { burst: *burst, pause: *pause, from: *from, ..Workload::busy(*kernel) };
                (Share::of(*weight), workload)
            })
            .collect();
        let mut simulation = Simulation::new(Tuning::default(), made);
        let until = SECOND;
        simulation.run(until);
        let weights: u64 = guests.iter().map(|((weight, _), ..)| u64::from(*weight)).sum();
        for (vm, ((weight, kernel), _, pause, _)) in guests.iter().enumerate() {
            let round = (QUANTUM_MOST + 2 * WINDOW + 2 * kernel) * (weights / u64::from(*weight) + guests.len() as u64);
            let gap = simulation.longest_gap(vm as VmId, until);
            prop_assert!(gap <= 2 * round + pause, "{vm}: {gap} > {round}");
        }
        // No longer than it takes to see that a queue is empty, and some messages of 20 µs.
        let idle = simulation.longest_idle;
        prop_assert!(idle <= 2 * YIELD_AFTER + 200_000, "{idle} ns idle while somebody waits");
    }
}
