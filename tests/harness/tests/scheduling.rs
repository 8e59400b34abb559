//! How VMs share a device: shares, caps, and what a guest that dies, hangs or floods does to its neighbour. On softgpu with its
//! model of time (one device for all workers, a kernel takes a millisecond), so that the figures mean something.
//!
//! Bounds are wide: the machine may be small and busy. The narrow ones are properties of the decision, tested against a
//! simulated device, and measurements on a GPU (docs/scheduling.md).
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Driver, Fixture, Program, Server, probe, process};
use pxos_protocol::admin::Decision;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROMPT: Duration = Duration::from_secs(5);

/// A server with VMs of these names and limits.
struct Shared {
    server: Server,
    folder: TempDir,
}

impl Shared {
    fn start(vms: &[(&str, &str)], args: &[&str]) -> Self {
        Self::start_in(&[], vms, args)
    }

    /// The same, with variables of the model of time.
    fn start_in(model: &[(&str, &str)], vms: &[(&str, &str)], args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let lab = folder.path().join("lab");
        let mut fixture = Fixture::new()
            .driver(Driver::Soft)
            .arg("--pool-size=3")
            .env("PXSOFT_LAB", &lab.display().to_string())
            .env("PXSOFT_KERNEL_US", "1000")
            .env("PXSOFT_THREADS", "1");
        for (name, value) in model {
            fixture = fixture.env(name, value);
        }
        for arg in args {
            fixture = fixture.arg(arg);
        }
        for (name, limits) in vms {
            let socket = folder.path().join(name);
            let rule = format!("[[vm]]\nname = \"{name}\"\nsocket = \"{}\"\n{limits}", socket.display());
            fixture = fixture.configuration(&rule);
        }
        Self { server: fixture.start(), folder }
    }

    fn guest(&self, vm: &str) -> Program {
        let socket = self.folder.path().join(vm);
        self.server.guest(probe()).env("PXOS_SERVER", format!("unix:{}", socket.display()))
    }

    /// Kernels that each guest completes in the same time.
    fn completed(&self, guests: &[(&str, &str)], milliseconds: &str) -> Vec<f64> {
        let start = |(vm, what): &(&str, &str)| {
            let guest =
                self.guest(vm).args(["init", "share", "1", "say", "ready", "read", what, milliseconds]);
            let guest = guest.start();
            guest.wait_for("say ready");
            guest
        };
        let mut running: Vec<_> = guests.iter().map(start).collect();
        running.iter_mut().for_each(|guest| guest.say("go"));
        let line = |stdout: &str, what: &str| -> f64 {
            let last = stdout.lines().rev().find_map(|line| line.strip_prefix(what));
            last.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("no figure in {stdout}"))
        };
        let finished = running.into_iter().zip(guests);
        finished.map(|(guest, (_, what))| line(&guest.end().stdout, what)).collect()
    }
}

#[test]
fn shares_go_by_weight() {
    let shared = Shared::start(&[("one", "weight = 100"), ("three", "weight = 300")], &[]);
    let completed = shared.completed(&[("one", "share"), ("three", "share")], "4000");
    let share = completed[1] / (completed[0] + completed[1]);
    assert!((0.65..0.85).contains(&share), "{completed:?}");
}

#[test]
fn who_is_slow_to_launch_keeps_its_lease() {
    // A launch takes five times as long as an empty queue may before a lease is given back.
    let model = [("PXSOFT_KERNEL_US", "1000"), ("PXSOFT_LAUNCH_US", "500")];
    let shared = Shared::start_in(&model, &[("one", ""), ("other", "")], &[]);
    let guests = ["one", "other"].map(|vm| {
        let guest = shared.guest(vm).args(["init", "share", "60000"]).start();
        guest.wait_for("init CUDA_SUCCESS");
        guest
    });
    std::thread::sleep(Duration::from_secs(3));
    let decisions = shared.server.pxctl(&["decisions", "--last", "4096", "--json"]);
    let decisions: Vec<Decision> = serde_json::from_str(&decisions.stdout).expect("JSON");
    let leases: Vec<_> = decisions.windows(2).filter(|pair| pair[0].gate == "open").collect();
    assert!(leases.len() > 20, "{decisions:#?}");
    // The server looks when the other one's last kernel has ended, before the first launch is over.
    let lost = leases.iter().filter(|pair| {
        let [open, next] = **pair else { return false };
        next.vm == open.vm && next.reason == "had nothing to do" && next.time - open.time < 500
    });
    assert_eq!(lost.count(), 0, "{decisions:#?}");
    guests.iter().for_each(|guest| guest.signal(libc::SIGKILL));
}

#[test]
fn without_scheduling_weights_mean_nothing() {
    let vms = [("one", "weight = 100"), ("three", "weight = 300")];
    let shared = Shared::start(&vms, &["--scheduler-policy=fifo"]);
    let completed = shared.completed(&[("one", "share"), ("three", "share")], "3000");
    let share = completed[1] / (completed[0] + completed[1]);
    assert!((0.4..0.6).contains(&share), "{completed:?}");
}

#[test]
fn a_cap_holds_alone_and_graphs_do_not_get_around_it() {
    let vms = [("tenth", "gpu_max = \"10%\""), ("quarter", "gpu_max = \"25%\"")];
    let shared = Shared::start(&vms, &[]);
    for (vm, percent) in [("tenth", 10.0), ("quarter", 25.0)] {
        for what in ["share", "graphs"] {
            let completed = shared.completed(&[(vm, what)], "4000")[0];
            // A kernel is a millisecond of the device, so 40 are one per cent of four seconds. A busy machine may make them
            // fewer; two points more than the cap are too many on any.
            let part = completed / 40.0;
            assert!((percent / 2.0..percent + 2.0).contains(&part), "{vm}, {what}: {part} %");
        }
    }
}

#[test]
fn a_capture_behind_kernels_of_its_stream_stays_whole_beside_a_neighbour() {
    // Kernels are so short that several of them are measured together.
    let shared = Shared::start_in(&[("PXSOFT_KERNEL_US", "20")], &[("one", ""), ("other", "")], &[]);
    let completed = shared.completed(&[("one", "captures"), ("other", "share")], "3000");
    assert!(completed[0] > 40.0, "{completed:?}");
}

#[test]
fn a_large_copy_does_not_hold_up_a_neighbours_small_ones() {
    // 96 MiB take two seconds of an engine that takes whole copies, first come, first served.
    let shared = Shared::start_in(&[("PXSOFT_MIB_US", "24000")], &[("large", ""), ("small", "")], &[]);
    let mut small = shared.guest("small").args(["init", "copies", "1", "100000", "say", "ready", "read"]);
    // The large one is on its way to the device by then.
    small = small.args(["sleep", "300", "copies", "3", "100000", "say", "copied"]);
    let mut small = small.start();
    small.wait_for("say ready");
    let large =
        shared.guest("large").args(["init", "upload", "100663296", "say", "begun", "sync", "say", "over"]);
    let large = large.start();
    large.wait_for("say begun");
    small.say("go");
    small.wait_for("say copied");
    assert!(!large.stdout().contains("say over"), "three small copies waited for the whole of a large one");
    let (small, large) = (small.end(), large.end());
    assert!(small.stdout.contains("copies CUDA_SUCCESS\nsay copied"), "{small}");
    assert!(large.stdout.contains("upload CUDA_SUCCESS\nsay begun\nsync CUDA_SUCCESS\n"), "{large}");
}

#[test]
fn an_endless_kernel_does_not_stop_a_neighbour() {
    let shared = Shared::start(&[("bad", ""), ("good", "")], &[]);
    let bad = shared.guest("bad").args(["init", "endless", "say", "waiting", "sync"]).start();
    bad.wait_for("say waiting");
    let good = shared.guest("good").args(["init", "share", "1500"]).run();
    let line = good.stdout.lines().find_map(|line| line.strip_prefix("share ")).unwrap_or_default();
    assert!(line.parse::<u64>().is_ok_and(|count| count > 100), "{}", good.stdout);
}

#[test]
fn a_kernel_that_takes_too_long_ends_its_own_process_only() {
    let shared = Shared::start(&[("bad", ""), ("good", "")], &["--scheduler-max-kernel=500ms"]);
    let good = shared.guest("good").args(["init", "share", "3000"]).start();
    let bad = shared.guest("bad").args(["init", "endless", "sync", "sync"]).run();
    let timeouts = bad.stdout.matches("CUDA_ERROR_LAUNCH_TIMEOUT").count();
    assert_eq!(timeouts, 2, "{}", bad.stdout);
    let good = good.end().stdout;
    assert!(good.lines().any(|line| line.starts_with("share ")), "{good}");
}

#[test]
fn a_lease_holder_that_is_killed_frees_the_device() {
    let shared = Shared::start(&[("dies", "weight = 10000"), ("lives", "weight = 1")], &[]);
    let dies = shared.guest("dies").args(["init", "say", "go", "share", "60000"]).start();
    dies.wait_for("say go");
    let lives = shared.guest("lives").args(["init", "say", "go", "share", "1000", "share", "1000"]).start();
    lives.wait_for("share");
    let worker = shared.server.session_of(dies.pid()).worker;
    process::kill(worker);
    let stdout = lives.end().stdout;
    let counts: Vec<u64> =
        stdout.lines().filter_map(|line| line.strip_prefix("share ")?.parse().ok()).collect();
    assert!(counts.len() == 2 && counts[1] > 300, "{stdout}");
}

#[test]
fn a_guest_that_dies_at_a_closed_gate_leaves_nothing() {
    let shared = Shared::start(&[("bad", "gpu_max = \"1000 1000000\"")], &[]);
    let before = shared.server.settled();
    let bad = shared.guest("bad").args(["init", "say", "go", "share", "600000"]).start();
    bad.wait_for("say go");
    // A thousandth of the device: it has used that up, and waits for a long time.
    std::thread::sleep(Duration::from_millis(500));
    let worker = shared.server.session_of(bad.pid()).worker;
    bad.signal(libc::SIGKILL);
    assert!(process::is_gone_within(worker, PROMPT), "its worker stays\n{}", process::stacks(worker));
    shared.server.assert_settles_as(&before);
}

#[test]
fn limits_that_change_hold_within_a_tenth_of_a_second() {
    let shared = Shared::start(&[("alone", "")], &[]);
    let guest = shared.guest("alone").args(["init", "say", "go", "share", "60000"]).start();
    guest.wait_for("say go");
    let nanos = || shared.server.session_of(guest.pid()).usage.gpu_nanos;
    let part = |milliseconds: u64| {
        let (start, before) = (Instant::now(), nanos());
        std::thread::sleep(Duration::from_millis(milliseconds));
        (nanos() - before) as f64 / start.elapsed().as_nanos() as f64
    };
    let set = |cap: &str| {
        let finished = shared.server.pxctl(&["vm", "set", "alone", cap]);
        assert!(finished.status.success(), "{finished}");
        // The promise; then it is measured whether it holds.
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(part(500) > 0.5, "it has the device to itself");
    set("gpu.max=5%");
    let capped = part(1000);
    assert!(capped < 0.08, "{:.1} % of the device beside a cap of 5 %", capped * 100.0);
    set("gpu.max=max");
    let free = part(500);
    assert!(free > 0.4, "{:.1} % of the device", free * 100.0);
    // The log says why, with the lease that was given.
    let decisions = shared.server.pxctl(&["decisions", "--vm", "alone", "--last", "4096", "--json"]);
    let decisions: Vec<Decision> = serde_json::from_str(&decisions.stdout).expect("JSON");
    for reason in ["gpu.max used up", "alone"] {
        assert!(decisions.iter().any(|decision| decision.reason == reason), "'{reason}' in {decisions:#?}");
    }
    assert!(decisions.windows(2).all(|pair| pair[0].number < pair[1].number && pair[0].time <= pair[1].time));
    assert!(decisions.iter().all(|decision| decision.vm == "alone" && decision.device == 0));
    assert!(decisions.iter().any(|decision| decision.gate == "open" && decision.lease.is_some()));
    guest.signal(libc::SIGKILL);
}
