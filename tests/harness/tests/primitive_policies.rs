//! What the operator lets primitives do, and what hostile ones cannot do to anybody else.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Driver, Fixture, Program, Server, probe, process, tool};
use pxos_protocol::control::decode;
use pxos_protocol::frame::control;
use pxos_protocol::primitive::Compilation;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const MILLION: usize = 1_000_000;

/// A server with VMs of these names and limits.
fn with_vms(folder: &TempDir, vms: &[(&str, &str)], fixture: Fixture) -> Server {
    let rules = vms.iter().fold(fixture, |fixture, (name, limits)| {
        let socket = folder.path().join(name);
        fixture
            .configuration(&format!("[[vm]]\nname = \"{name}\"\nsocket = \"{}\"\n{limits}", socket.display()))
    });
    rules.start()
}

/// A program in one of them.
fn guest(server: &Server, folder: &TempDir, vm: &str, program: PathBuf) -> Program {
    server.guest(program).env("PXOS_SERVER", format!("unix:{}", folder.path().join(vm).display()))
}

/// A shell that has the device open as file 3, and asks for a line of answer.
fn shell(server: &Server, folder: &TempDir, vm: &str, script: &str) -> Program {
    let ask = "ask() { echo \"$1\" >&3; read -r answer <&3; echo \"$answer\"; }";
    let script = format!("exec 3<>/dev/pxos_gpu0\n{ask}\n{script}");
    guest(server, folder, vm, "/bin/bash".into()).args(["-c", &script])
}

const UNCHECKED: &str = "GPU_KERNEL copy UNCHECKED\nGPU_PARAM a int[]\nGPU_PARAM o int[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    \
                         THREAD_ID -> t\n    IF t < n:\n        LOAD a[t] -> x\n        STORE x -> o[t]\nGPU_END";

#[test]
fn checks_stay_unless_the_operator_lets_a_vm_leave_them_out() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let vms = [("strict", ""), ("trusted", "unchecked = \"allow\"\n"), ("refused", "unchecked = \"deny\"\n")];
    let script = format!("ask '{UNCHECKED}'\nask 'RUN copy a=[1,2,3] o=[0,0,0] n=3'");
    let lines = |server: &Server, vm: &str| -> Vec<serde_json::Value> {
        let told = shell(server, &folder, vm, &script).passes().stdout;
        told.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let is_refused = |answers: &[serde_json::Value]| {
        let found = &answers[0]["diagnostics"][0];
        assert_eq!(answers[0]["status"], 300, "{answers:?}");
        assert_eq!((&found["code"], &found["line"]), (&"policy".into(), &1.into()), "{found}");
        assert!(found["message"].as_str().is_some_and(|m| m == "UNCHECKED is not allowed here"), "{found}");
        assert_ne!(answers[1]["status"], 0, "{answers:?}");
    };
    let runs = |answers: &[serde_json::Value]| {
        assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&0.into(), &0.into()), "{answers:?}");
        assert_eq!(answers[1]["results"]["o"], serde_json::json!([1, 2, 3]), "{answers:?}");
    };
    let server = with_vms(&folder, &vms, Fixture::new());
    is_refused(&lines(&server, "strict"));
    runs(&lines(&server, "trusted"));
    // What holds for a VM can be changed; a process that begins later has it.
    let set = server.pxctl(&["vm", "set", "strict", "unchecked=allow"]);
    assert!(set.status.success(), "{set}");
    runs(&lines(&server, "strict"));
    assert!(server.pxctl(&["vm", "show", "strict"]).stdout.contains("unchecked         allow"));
    drop(server);
    // The default holds for each rule that says nothing else.
    let server = with_vms(&folder, &vms, Fixture::new().arg("--default-unchecked=allow"));
    runs(&lines(&server, "strict"));
    is_refused(&lines(&server, "refused"));
}

/// Whether the kernel of `vm` went with the latency tier, beside a VM that keeps the device busy.
fn goes_first(limits: &str, property: &str) -> bool {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let lab = folder.path().join("lab").display().to_string();
    let fixture = Fixture::new()
        .driver(Driver::Soft)
        .arg("--pool-size=2")
        .arg("--log-level=trace")
        .env("PXSOFT_LAB", &lab)
        .env("PXSOFT_KERNEL_US", "1000")
        .env("PXSOFT_THREADS", "1");
    let server = with_vms(&folder, &[("busy", ""), ("marks", limits)], fixture);
    let busy = guest(&server, &folder, "busy", probe())
        .args(["init", "share", "1", "say", "busy", "share", "8000"])
        .start();
    busy.wait_for("say busy");
    let text = format!(
        "GPU_KERNEL k {property}\nGPU_PARAM o int[]\nGPU_THREAD_CODE:\n    THREAD_ID -> t\n    STORE t -> o[t]\nGPU_END"
    );
    let script = format!("ask '{text}'\nfor i in 1 2 3 4 5 6 7 8; do ask 'RUN k o=[9,9,9]'; done");
    let told = shell(&server, &folder, "marks", &script).passes();
    assert_eq!(told.stdout.matches("[0,1,2]").count(), 8, "{told}");
    process::kill(busy.pid());
    server.log().contains("latency-tier")
}

#[test]
fn a_mark_raises_a_submission_only_where_the_operator_allows_it() {
    assert!(goes_first("latency_critical = \"allow\"\n", "LATENCY_CRITICAL"));
    assert!(!goes_first("latency_critical = \"allow\"\n", "BATCH"), "what is not marked goes by weight");
    assert!(
        !goes_first("latency_critical = \"deny\"\n", "LATENCY_CRITICAL"),
        "a guest does not raise itself"
    );
    assert!(!goes_first("", "LATENCY_CRITICAL"), "nor by default");
}

#[test]
fn a_loop_of_minutes_does_not_stop_a_neighbour() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let lab = folder.path().join("lab").display().to_string();
    let fixture = Fixture::new()
        .driver(Driver::Soft)
        .arg("--pool-size=2")
        .env("PXSOFT_LAB", &lab)
        .env("PXSOFT_KERNEL_US", "1000")
        .env("PXSOFT_THREADS", "1");
    let server = with_vms(&folder, &[("bad", ""), ("good", "")], fixture);
    let text = "GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    CALCULATE x = 0\n    FOR i IN 0..n:\n        \
                CALCULATE x = x * 3 + i\n    STORE x -> o[0]\nGPU_END";
    let script =
        format!("ask '{text}'\nask 'RUN k o=[0] n=10'\necho running\nask 'RUN k o=[0] n=2000000000'");
    let bad = shell(&server, &folder, "bad", &script).start();
    bad.wait_for("running");
    let good = guest(&server, &folder, "good", probe()).args(["init", "share", "1500"]).run();
    let line = good.stdout.lines().find_map(|line| line.strip_prefix("share ")).unwrap_or_default();
    assert!(line.parse::<u64>().is_ok_and(|count| count > 100), "{}", good.stdout);
    assert!(bad.stdout().trim_end().ends_with("running"), "it still runs: {}", bad.stdout());
    process::kill(bad.pid());
}

/// Hostile texts that a guest can send whole, each at most as long as a frame may be.
fn texts() -> Vec<String> {
    let kernel =
        |body: &str| format!("GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_THREAD_CODE:\n    {body}\nGPU_END\n");
    let functions: String = (0..60)
        .map(|n| {
            let next = if n == 59 { "1".to_owned() } else { format!("f{0}() + f{0}()", n + 1) };
            format!("GPU_FUNCTION f{n}() -> int:\n    RETURN {next}\nGPU_END\n")
        })
        .collect();
    vec![
        kernel(&"IF 1: ".repeat(100_000)),
        kernel(&"IF 1: ".repeat(40_000)),
        kernel(&"FOR i IN 0..9: ".repeat(17_000)),
        kernel(&format!("STORE {}", "(".repeat(200_000))),
        kernel(&format!("STORE 1{} -> o[0]", " + 1".repeat(60_000))),
        kernel("LOAD o[2147483647 + 4096] -> x"),
        kernel("STORE 1 -> o[-1]"),
        "IF ".repeat(60_000),
        "\u{0}".repeat(1000),
        "\u{1f600}".repeat(50_000),
        functions + &kernel("STORE f0() -> o[0]"),
        "GPU_KERNEL .entry\nGPU_THREAD_CODE:\nGPU_END\n".to_owned(),
        "GPU_KERNEL k\nGPU_PARAM %tid int[]\nGPU_THREAD_CODE:\n    STORE 1 -> o[0]\nGPU_END\n".to_owned(),
    ]
}

#[test]
fn hostile_texts_end_in_errors_and_other_guests_feel_nothing() {
    let server = Fixture::new().arg("--pool-size=2").start();
    // Somebody else computes all the while, and checks what comes back.
    let other = server
        .guest("/bin/bash")
        .args([
            "-c",
            "exec 3<>/dev/pxos_gpu0; n=0; while ! [ -e stop ]; do echo 'VECTOR_ADD 1000' >&3; read -r answer <&3; \
             case \"$answer\" in *'1000 elements, 0 errors'*) n=$((n + 1)); [ $n = 1 ] && echo begun;; *) echo \"wrong: $answer\";; esac; \
             done; echo \"$n were right\"",
        ])
        .start();
    other.wait_for("begun");
    let mut guest = server.begin();
    let context = guest.retain();
    for text in texts() {
        let start: String = text.chars().take(80).collect();
        let (result, payload) = guest
            .call(control::COMPILE_PRIMITIVE, context, |writer| writer.put_bytes(text.as_bytes()))
            .unwrap_or_else(|incoming| panic!("{start}: {incoming:?}"));
        assert_eq!(result, 0, "{start}");
        match decode(&payload) {
            Ok(Compilation::Refused(found)) => assert!(found.text.contains("error"), "{start}"),
            other => panic!("{start}: {other:?}"),
        }
    }
    assert!(guest.is_served(), "an error is all that became of it");
    // A frame of ten megabytes is none; nor is a field that says it is longer than it is. Each ends its own session.
    let long = format!("GPU_KERNEL k\nGPU_THREAD_CODE:\n{}GPU_END\n", "IF 1:\n".repeat(2 * MILLION));
    assert!(long.len() >= 10 << 20);
    for lie in [false, true] {
        let mut hostile = server.begin();
        let context = hostile.retain();
        // The worker may close before all is sent.
        let _ = hostile.post(control::COMPILE_PRIMITIVE, context, |writer| {
            if lie { writer.put(1_u64 << 40) } else { writer.put_bytes(long.as_bytes()) }
        });
        assert!(hostile.until_closed().is_some(), "{lie}");
    }
    // Through the device file and the command line it is an error that says what is wrong, in little memory.
    let file = other.folder().join("long.px");
    std::fs::write(&file, &long).expect("it can be written");
    let script = format!(
        "exec 3<>/dev/pxos_gpu0; (cat {}; echo NOP) >&3 & read -r a <&3; read -r b <&3; echo \"$a\"; echo \"$b\"",
        file.display()
    );
    let told = server.guest("/bin/bash").args(["-c", &script]).passes().stdout;
    let answers: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(answers[0]["message"], "a message has at most 262144 bytes", "{told}");
    assert_eq!(answers[1]["message"], "NOP command successful", "{told}");
    for (name, text) in [
        ("long", long.clone()),
        ("deep", format!("GPU_KERNEL k\nGPU_THREAD_CODE:\n    {}", "IF 1: ".repeat(MILLION))),
    ] {
        std::fs::write(&file, text).expect("it can be written");
        let check =
            format!("ulimit -v 400000; exec {} primitive check {}", tool("pxctl").display(), file.display());
        let told = server.direct("/bin/bash").args(["-c", &check]).run();
        assert!(
            told.code() == Some(1) && told.stderr.contains("a program has at most 262144"),
            "{name}: {told}"
        );
    }
    assert!(guest.is_served());
    std::fs::write(other.folder().join("stop"), "").expect("it can be written");
    let told = other.end_within(Duration::from_secs(60)).stdout;
    assert!(!told.contains("wrong") && told.ends_with(" were right\n"), "{told}");
}
