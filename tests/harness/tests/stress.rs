//! Two guests that do everything that can be made and given back, for a while, beside programs that come, end and are killed:
//! all results right, and nothing left of memory, descriptors, threads, processes and quotas. `make stress` takes ten minutes,
//! the test suite half a minute for each transport.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]
#![expect(clippy::print_stdout, reason = "how much was done is what a run of ten minutes is read for")]

use pxos_harness::{Fixture, Running, Server, Way, process, sample};
use pxos_protocol::admin::Vm;
use pxos_protocol::endpoint::Endpoint;
use std::time::{Duration, Instant};

/// What a process may grow after the first tenth of the time: what an allocator keeps.
const FLAT: u64 = 8 << 20;

/// Threads that a process may have more: a worker's lanes start when calls first block at a time.
const LANES: usize = 4;

/// Beyond the time that it was given, a guest hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// Of memory each VM has this much, so that every allocation passes a quota.
const QUOTA: &str = "2G";

/// Programs that come and go beside the two, each with results that it checks.
const SHORT: [(&str, &[&str]); 7] = [
    ("vectorAdd", &[]),
    ("reduction", &[]),
    ("multiThread", &["4", "10"]),
    ("streams", &[]),
    ("graphMemory", &[]),
    ("pools", &[]),
    ("histogram", &[]),
];

/// Every so many of them is killed while it works.
const KILLED: usize = 5;

fn seconds() -> u64 {
    let text = std::env::var("PXOS_STRESS_SECONDS").unwrap_or_else(|_| "30".into());
    text.parse().expect("PXOS_STRESS_SECONDS is a number of seconds")
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

fn held(pid: u32) -> Held {
    Held {
        memory: process::anonymous_memory(pid),
        descriptors: process::descriptors(pid).len(),
        threads: process::threads(pid),
    }
}

/// One that runs all the time.
struct Guest {
    running: Running,
    worker: u32,
    before: [Held; 2],
    memory_used: u64,
}

impl Guest {
    fn start(server: &Server, way: Way, vm: &str) -> Running {
        let time = seconds();
        server
            .program(sample("mixedLoad"), way)
            .env("PXOS_SERVER", Endpoint::Unix(server.at(vm)).to_string())
            .args([&format!("{time}s"), "watched"])
            .limit(Duration::from_secs(time) + PATIENCE)
            .start()
    }

    fn warm(server: &Server, mut running: Running) -> Self {
        running.wait_for("warm");
        let session = server.session_of(running.pid());
        let before = [held(running.pid()), held(session.worker)];
        running.say("go on");
        Self { running, worker: session.worker, before, memory_used: session.counters.memory_used }
    }

    fn finish(mut self, server: &Server) {
        self.running.wait_for("done");
        for (what, pid, before) in
            [("guest", self.running.pid(), self.before[0]), ("worker", self.worker, self.before[1])]
        {
            settles(what, pid, before);
        }
        let counters = server.session_of(self.running.pid()).counters;
        assert_eq!(counters.memory_used, self.memory_used, "device memory is counted that was freed");
        self.running.say("end");
        let finished = self.running.end();
        assert!(finished.status.success() && finished.stdout.ends_with("PASS\n"), "{finished}");
        let rounds = finished.stdout.lines().find(|line| line.ends_with("rounds"));
        println!("{}", rounds.unwrap_or("no rounds"));
    }
}

/// Waits until a process holds what it held; threads that have nothing to do end a moment later.
fn settles(what: &str, pid: u32, before: Held) {
    let begun = Instant::now();
    loop {
        let now = held(pid);
        let flat = now.memory.saturating_sub(before.memory) < FLAT
            && now.descriptors <= before.descriptors
            && now.threads <= before.threads + LANES;
        if flat {
            return println!("{what}: {before:?}, then {now:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the {what} holds {now:?}, held {before:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Programs that come and go, until a time; how many ended by themselves and how many were killed.
fn come_and_go(server: &Server, way: Way, until: Instant) -> [usize; 2] {
    let mut count = [0; 2];
    for turn in 0.. {
        if Instant::now() >= until {
            break;
        }
        let vm = if turn % 2 == 0 { "one" } else { "two" };
        let (name, args) = SHORT[turn % SHORT.len()];
        let program = server
            .program(sample(name), way)
            .env("PXOS_SERVER", Endpoint::Unix(server.at(vm)).to_string())
            .args(args.iter().copied());
        let killed = turn % KILLED == KILLED - 1;
        if killed {
            let running = program.start();
            // Anywhere between its start and its end.
            std::thread::sleep(Duration::from_millis(20 + 37 * (turn as u64 % 11)));
            running.signal(libc::SIGKILL);
            let _ = running.end();
        } else {
            let finished = program.passes();
            assert!(finished.stdout.ends_with("PASS\n"), "{finished}");
        }
        count[usize::from(killed)] += 1;
    }
    count
}

fn stress(way: Way) {
    let rule = |name: &str, word: &str| {
        format!("[[vm]]\nname = \"{name}\"\nsocket = \"{word}\"\nmemory_max = \"{QUOTA}\"")
    };
    let server = Fixture::new()
        .arg("--pool-size=2")
        .configuration(&rule("one", "FIRST"))
        .configuration(&rule("two", "SECOND"))
        .replacing("FIRST", "one")
        .replacing("SECOND", "two")
        .start();
    let settled = server.settled();
    let end = Instant::now() + Duration::from_secs(seconds());
    let guests = ["one", "two"].map(|vm| Guest::start(&server, way, vm));
    let guests = guests.map(|running| Guest::warm(&server, running));
    // The daemon has accounts and a journal, whose first entries are no leak.
    let _ = come_and_go(&server, way, Instant::now() + Duration::from_secs(seconds() / 10));
    let before = held(server.pid());
    let [ended, killed] = come_and_go(&server, way, end);
    guests.into_iter().for_each(|guest| guest.finish(&server));
    server.assert_settles_as(&settled);
    // What both have at the end: the pool is as full as at the beginning.
    let after = held(server.pid());
    assert!(after.memory.saturating_sub(before.memory) < FLAT, "the server holds {after:?}, held {before:?}");
    println!("server: {before:?}, then {after:?}; {ended} programs ended and {killed} were killed beside it");
    for vm in vms(&server).iter().filter(|vm| ["one", "two"].contains(&vm.name.as_str())) {
        assert_eq!((vm.memory.charged, vm.sessions, vm.streams), (0, 0, 0), "{vm:?}");
    }
}

fn vms(server: &Server) -> Vec<Vm> {
    let listed = server.pxctl(&["vm", "list", "--json"]);
    assert!(listed.status.success(), "{listed}");
    serde_json::from_str(&listed.stdout).expect("a list of VMs")
}

#[test]
fn two_guests_leave_nothing_over_shared_memory() {
    stress(Way::SharedMemory);
}

#[test]
fn two_guests_leave_nothing_over_a_socket() {
    stress(Way::Socket);
}
