//! Two real guests against one server.

#[cfg(test)]
mod tests {
    use pxos_harness::{Driver, Fixture, sample, skipped};
    use pxos_vm::scenario::{self, SHIM, Stage};
    use pxos_vm::{Plan, Vm};

    /// Bytes of a copy that counters show.
    const COPY: u64 = 64 << 20;
    /// Memory that the machine shares: two slots, each with room for two such buffers.
    const SHARED: u64 = 512 << 20;

    #[test]
    fn two_guests_run_programs_at_once_and_know_nothing_of_each_other() {
        match Stage::set() {
            Ok(stage) => scenario::two_guests(&stage, Driver::UnderTest),
            Err(reason) => skipped(&reason),
        }
    }

    #[test]
    fn memory_of_a_device_carries_what_the_socket_does_not() {
        let stage = match Stage::set() {
            Ok(stage) => stage,
            Err(reason) => return skipped(&reason),
        };
        let memory = stage.memory("red", SHARED);
        let server = Fixture::new()
            .arg(&stage.listen("red"))
            .arg(&format!("--shared=red:2={}", memory.display()))
            .arg("--pool-size=2")
            .start();
        let vm = stage.boot(Plan { shared: Some((memory, SHARED)), ..Plan::new("red", 3) });
        vm.wait_up();
        // As a user without rights: the device's file alone is open to all.
        let probe = |more: &str, commands: &str| {
            format!("su user -c '{more} {SHIM} /payload/pxos-probe init {commands} sleep 2500'")
        };
        let counters = |vm: &Vm, command: &str, bytes: u64| {
            let token = vm.begin(command);
            let status = server.wait("the copies", |status| {
                let all = status.sessions.iter().map(|session| &session.counters);
                all.clone().count() > 0
                    && all
                        .clone()
                        .all(|counters| counters.shared_bytes_out + counters.socket_bytes_out >= bytes)
            });
            assert!(vm.end(token).good().contains("CUDA_SUCCESS"));
            let _ = server.settled();
            status.sessions
        };
        let sessions = counters(&vm, &probe("", &format!("pinned {COPY}")), COPY);
        assert_eq!(sessions[0].shared_memory, "bar slot 0");
        let through = &sessions[0].counters;
        assert!(through.shared_bytes_in >= COPY && through.shared_bytes_out >= COPY, "{through:?}");
        assert!(through.socket_bytes_in + through.socket_bytes_out < 64 << 10, "{through:?}");
        // The same without it, so that these counters are known to count.
        let sessions = counters(&vm, &probe("PXOS_SHARED_MEMORY=0", &format!("pinned {}", 4 << 20)), 4 << 20);
        let over = &sessions[0].counters;
        assert_eq!((sessions[0].shared_memory.as_str(), over.shared_bytes_in), ("none", 0));
        assert!(over.socket_bytes_in >= 4 << 20 && over.socket_bytes_out >= 4 << 20, "{over:?}");
        // Two processes at once, and a program whose kernels read host memory where it lies.
        let expected = server.direct(sample("zeroCopy")).passes().stdout;
        let both = format!(
            "su user -c '{SHIM} /payload/zeroCopy' > /tmp/a & {SHIM} /payload/zeroCopy > /tmp/b; wait; cat /tmp/a /tmp/b"
        );
        assert_eq!(vm.run(&both).good().trim_end(), format!("{expected}{expected}").trim_end());
        vm.power_off();
    }

    #[test]
    fn a_virtio_port_carries_many_processes_and_outlives_any_of_them() {
        let stage = match Stage::set() {
            Ok(stage) => stage,
            Err(reason) => return skipped(&reason),
        };
        let memory = stage.memory("red", SHARED);
        let mut server = Fixture::new()
            .arg(&format!("--listen={}", Vm::serial_endpoint(stage.folder(), "red")))
            .arg(&format!("--shared=red:2={}", memory.display()))
            .arg("--pool-size=2")
            .start();
        let plan = Plan { vsock: false, serial: true, shared: Some((memory, SHARED)), ..Plan::new("red", 3) };
        let vm = stage.boot(plan);
        vm.wait_up();
        let start_mux = "rm -f /tmp/mux; (pxctl guest-mux > /tmp/mux 2>&1 &); until grep -q 'is connected' /tmp/mux; do sleep 0.1; done";
        let _ = vm.run(start_mux).good();
        assert_eq!(vm.run("pxctl guest-mux 2>&1").status, 1, "a second mux has no port");
        let expected = server.direct(sample("vectorAdd")).passes().stdout;
        // Beside a process that has a slot of the memory, one that has everything over the port; and one that dies at any byte.
        let probe = format!("{SHIM} /payload/pxos-probe init");
        let over = format!("PXOS_SHARED_MEMORY=0 {probe}");
        let three = format!(
            "{probe} copies 3 300000 > /tmp/a & {over} copies 3 300000 > /tmp/b & \
             {over} copies 1000 300000 & victim=$!; sleep 1; kill -9 $victim; wait; cat /tmp/a /tmp/b"
        );
        let output = vm.run(&three).good();
        assert_eq!(output.matches("copies CUDA_SUCCESS").count(), 2, "{output}");
        let _ = server.settled();
        assert_eq!(vm.run(&format!("{SHIM} /payload/vectorAdd")).good().trim_end(), expected.trim_end());
        // The mux dies in the middle of what it carries, and another takes its place.
        let killed = format!(
            "({over} copies 1000 300000 > /tmp/a 2>&1 &); sleep 1; kill -9 $(ps | grep '[g]uest-mux' | sed 's/^ *//;s/ .*//'); {start_mux}"
        );
        let _ = vm.run(&killed).good();
        assert_eq!(vm.run(&format!("{SHIM} /payload/vectorAdd")).good().trim_end(), expected.trim_end());
        // The server dies, and another takes its place.
        server.restart();
        let again =
            format!("until {over} copies 1 10 > /tmp/c 2>&1; do sleep 0.2; done; {SHIM} /payload/vectorAdd");
        assert_eq!(vm.run(&again).good().trim_end(), expected.trim_end());
        server.wait("no session", |status| status.sessions.is_empty());
        assert!(server.log().contains("from=\"serial:red="), "{}", server.log());
        vm.power_off();
    }
}
