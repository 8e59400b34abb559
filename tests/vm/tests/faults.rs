//! What happens to guests, VMMs, workers and servers in the course of a year, to real guests within a minute.
//! `tests/vm/repeat.sh` does it again and again.

#[cfg(test)]
mod tests {
    use pxos_harness::{Fixture, Server, process, skipped};
    use pxos_vm::scenario::{SHIM, Stage};
    use pxos_vm::{Plan, Vm};
    use std::time::Duration;

    /// Seconds that a machine stands still; 30 and more are the same, and take longer.
    fn pause() -> Duration {
        let seconds = std::env::var("PXOS_VM_PAUSE").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
        Duration::from_secs(seconds)
    }

    /// Starts a program that works for ever, and waits until it does.
    fn start_work(vm: &Vm, log: &str) {
        let command = format!(
            "({SHIM} /payload/pxos-probe init work > /tmp/{log} 2>&1 &); until grep -q working /tmp/{log}; do sleep 0.1; done"
        );
        let _ = vm.run(&command).good();
    }

    /// Waits for the end of such a program; what it printed last.
    fn end_of_work(vm: &Vm, log: &str) -> String {
        let command = format!("until grep -q after /tmp/{log}; do sleep 0.1; done; cat /tmp/{log}");
        vm.run(&command).good()
    }

    /// A program that must succeed: the server serves this guest.
    fn is_served(vm: &Vm) -> bool {
        let ran = vm.run(&format!("{SHIM} /payload/pxos-probe init copies 2 100000"));
        ran.output.contains("copies CUDA_SUCCESS")
    }

    fn worker_of(server: &Server, vm: &str) -> (u64, u32) {
        let status =
            server.wait("its session", |status| status.sessions.iter().any(|session| session.vm == vm));
        let session = status.sessions.into_iter().find(|session| session.vm == vm).expect("waited for");
        (session.counters.messages_sync, session.worker)
    }

    fn signal(pid: u32, number: i32) {
        process::signal(i32::try_from(pid).expect("process ids are small"), number);
    }

    /// As [`SHIM`], with what the program sends watched.
    const WATCHED: &str = "LD_PRELOAD='/payload/libsends.so /payload/libpxshim.so'";

    /// Bytes at which a process dies: within, at the end of and behind the header of its hello, the hello, the first calls, and
    /// in the middle of bulk data.
    const DEATHS: [u32; 18] =
        [0, 1, 31, 32, 33, 40, 64, 100, 160, 200, 256, 300, 500, 1000, 5000, 32_769, 100_000, 333_333];

    #[test]
    fn what_a_transport_must_bear() {
        let stage = match Stage::set() {
            Ok(stage) => stage,
            Err(reason) => return skipped(&reason),
        };
        let mut server = Fixture::new().arg(&stage.listen("red")).arg("--pool-size=2").start();
        let red = stage.boot(Plan::new("red", 3));
        red.wait_up();
        let before = server.settled();

        // No call sends more than a VMM takes that knows only one descriptor per packet, whatever is copied.
        let largest = |variables: &str| {
            let ran =
                red.run(&format!("{variables} {WATCHED} /payload/pxos-probe init copies 2 3000000 2>&1"));
            assert!(ran.output.contains("copies CUDA_SUCCESS"), "{}", ran.output);
            let (_, rest) = ran.output.split_once("sends most ").expect("the library tells");
            let mut numbers = rest.split(" of ").map(|text| text.trim().parse::<u64>().expect("a number"));
            let (most, all) = (numbers.next().expect("two"), numbers.next().expect("two"));
            assert!(all > 6_000_000, "what was copied was sent: {}", ran.output);
            most
        };
        let most = largest("");
        assert!(most <= 32 << 10 && most > 16 << 10, "{most}");
        let most = largest("PXOS_VSOCK_SEND=4096");
        assert!(most <= 4096 && most > 2048, "{most}");

        // A port at which nobody listens is no device, and no hang.
        let ran = red.run(&format!("PXOS_SERVER=vsock:2:9999 {SHIM} /payload/pxos-probe init 2>&1"));
        assert!(ran.output.contains("init CUDA_ERROR_NO_DEVICE"), "{}", ran.output);
        assert!(ran.output.contains("vsock:2:9999: "), "it says what it tried: {}", ran.output);

        // A guest that closes for writing only: the VMM may keep that to itself, so nothing may wait for it.
        for bytes in [0, 200, 100_000] {
            let command = "init copies 2 300000 2>&1";
            let ran = red.run(&format!("SENDS_HALF_CLOSE={bytes} {WATCHED} /payload/pxos-probe {command}"));
            assert!(!ran.output.contains("copies CUDA_SUCCESS"), "{bytes}: {}", ran.output);
            server.wait("its session is over", |status| status.sessions.is_empty());
        }
        assert!(is_served(&red));

        // Processes that die at every kind of byte.
        for bytes in DEATHS {
            let ran = red
                .run(&format!("SENDS_DIE={bytes} {WATCHED} /payload/pxos-probe init copies 2 300000 2>&1"));
            assert_eq!(ran.status, 9, "{bytes}: {}", ran.output);
            assert!(ran.output.contains(&format!("sends died at {bytes}")), "{}", ran.output);
        }
        server.wait("no session", |status| status.sessions.is_empty());
        assert!(is_served(&red));
        server.assert_settles_as(&before);

        // A server that is killed with a call unread, whose reset the VMM keeps to itself.
        start_work(&red, "w");
        let (_, worker) = worker_of(&server, "red");
        signal(worker, libc::SIGSTOP);
        let unread = |count: u64| {
            server.status().sessions.iter().any(|session| session.counters.messages_sync == count)
        };
        let (mut last, mut same) = (0, 0);
        while same < 5 {
            std::thread::sleep(Duration::from_millis(100));
            if unread(last) {
                same += 1;
            } else {
                (last, same) = (worker_of(&server, "red").0, 0);
            }
        }
        server.signal(libc::SIGKILL);
        server.restart();
        let said = end_of_work(&red, "w");
        assert!(said.contains("work CUDA_ERROR_DEVICE_UNAVAILABLE after"), "{said}");
        assert!(is_served(&red), "a new program finds the new server");
        red.power_off();
        server.wait("no session", |status| status.sessions.is_empty());
    }

    #[test]
    fn guests_outlive_what_happens_to_others() {
        let stage = match Stage::set() {
            Ok(stage) => stage,
            Err(reason) => return skipped(&reason),
        };
        let mut server =
            Fixture::new().arg(&stage.listen("red")).arg(&stage.listen("blue")).arg("--pool-size=2").start();
        let mut red = stage.boot(Plan::new("red", 3));
        let blue = stage.boot(Plan::new("blue", 4));
        red.wait_up();
        blue.wait_up();
        start_work(&red, "w");
        start_work(&blue, "w");
        let works_on = |vm: &str| {
            let (before, _) = worker_of(&server, vm);
            server.wait("work goes on", |status| {
                status
                    .sessions
                    .iter()
                    .any(|session| session.vm == vm && session.counters.messages_sync > before + 10)
            });
        };

        // The VMM crashes and comes back; the device process stays.
        red.kill();
        server.wait("the dead guest's session is over", |status| status.sessions.len() == 1);
        works_on("blue");
        red.boot_again();
        red.wait_up();
        assert!(is_served(&red));

        // A machine stands still while its program works, and goes on.
        signal(blue.pid(), libc::SIGSTOP);
        std::thread::sleep(pause());
        assert!(is_served(&red), "another is not held up");
        let (_, worker) = worker_of(&server, "blue");
        signal(blue.pid(), libc::SIGCONT);
        works_on("blue");
        assert_eq!(worker_of(&server, "blue").1, worker, "the session is the same");

        // A worker stands still, and goes on.
        signal(worker, libc::SIGSTOP);
        assert!(is_served(&red), "another is not held up");
        signal(worker, libc::SIGCONT);
        works_on("blue");

        // It stands still, and dies so.
        signal(worker, libc::SIGSTOP);
        signal(worker, libc::SIGKILL);
        let said = end_of_work(&blue, "w");
        assert!(said.contains("work CUDA_ERROR_DEVICE_UNAVAILABLE after"), "{said}");
        assert!(is_served(&blue), "the next program gets another worker");

        // The server dies and comes back while programs run.
        let told = "until [ -f /tmp/go ]; do sleep 0.1; done; echo go";
        let waits = "/payload/pxos-probe init say up read copies 1 100 > /tmp/v 2>&1";
        let wait = |vm: &Vm| {
            vm.run(&format!("(({told}) | {SHIM} {waits} &); until grep -q up /tmp/v; do sleep 0.1; done"))
        };
        let _ = (wait(&red).good(), wait(&blue).good());
        server.signal(libc::SIGKILL);
        server.restart();
        for vm in [&red, &blue] {
            let said =
                vm.run(": > /tmp/go; until grep -q copies /tmp/v; do sleep 0.1; done; cat /tmp/v").good();
            assert!(said.contains("copies CUDA_ERROR_DEVICE_UNAVAILABLE"), "{said}");
            assert!(is_served(vm), "a new program finds the new server");
        }
        red.power_off();
        blue.power_off();
        server.wait("no session", |status| status.sessions.is_empty());
    }
}
