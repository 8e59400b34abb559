//! LD_PRELOAD reaches every child process: shells, pipes and tools under the shim behave as without it.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server};

/// Runs a line in a shell, with the shim preloaded or without.
fn shell(server: &Server, line: &str, preloaded: bool) -> (Option<i32>, String, String) {
    let program =
        if preloaded { server.guest("/bin/sh") } else { server.direct("/bin/sh").env("LD_PRELOAD", "") };
    let finished = program.args(["-c", line]).run();
    (finished.code(), finished.stdout, finished.stderr)
}

#[test]
fn shells_and_pipes_cannot_tell() {
    let server = Fixture::new().start();
    let before = server.status().totals.connections;
    for line in [
        "ls / | cat | sort -r",
        "echo one; false",
        "(exit 7)",
        "for i in 1 2 3; do echo $i; done | wc -l",
        "kill -TERM $$",
        "cat /nonexistent",
        "x=$(printf 'a%.0s' 1 2 3); echo $x",
        "sh -c 'sh -c \"echo deep\"'",
        "yes | head -n 3",
    ] {
        assert_eq!(shell(&server, line, true), shell(&server, line, false), "{line}");
    }
    assert_eq!(server.status().totals.connections, before);
}

#[test]
fn loading_opens_nothing_and_starts_nothing() {
    let server = Fixture::new().start();
    for line in [
        "ls /proc/self/fd | wc -l",
        "grep Threads /proc/self/status",
        "grep SigCgt /proc/self/status",
        "grep -E 'SigBlk|SigIgn' /proc/self/status",
    ] {
        assert_eq!(shell(&server, line, true), shell(&server, line, false), "{line}");
    }
}
