//! Every sample program, directly and remoted each way, with equal exit code, output and files.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{
    Driver, Fixture, Way, contract_probes, driver_under_test, is_on_a_gpu, sample, samples, tool,
};
use std::path::Path;
use std::process::Command;

/// What a program sees otherwise without shared memory, by design: managed and mapped memory need memory at one address on both
/// sides.
const SHARED_MEMORY_ONLY: [&str; 6] =
    ["managedMemory", "relocatable", "systemAtomics", "zeroCopy", "deviceQuery", "rowsMemory"];

/// Runs `pxos-samples` over all samples but these, remoted with these variables.
fn compare(without: &[&str], remote_env: &[&str]) {
    let driver = driver_under_test().argument();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda-samples/samples.toml");
    let mut runner = Command::new(tool("pxos-samples"));
    runner.arg(samples()).arg("--args-file").arg(list).arg("--skip").arg("contract/*");
    runner.arg("--remote-preload").arg(tool("libpxshim.so"));
    runner.arg("--start-server").arg(tool("pxos-server"));
    runner.args(["--server-arg=--driver", &format!("--server-arg={driver}"), "--repeat-native"]);
    match driver_under_test() {
        Driver::Auto if is_on_a_gpu() => {}
        Driver::Path(path) => {
            runner.arg("--direct-preload").arg(path);
        }
        _ => {
            runner.arg("--direct-preload").arg(tool("libpxsoft.so"));
        }
    }
    for name in without {
        runner.arg("--skip").arg(name);
    }
    for variable in remote_env {
        runner.arg("--remote-env").arg(variable);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PXOS_") {
            runner.env_remove(name);
        }
    }
    let output = runner.output().expect("pxos-samples can be started");
    let table = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a sample is worse remoted than directly:\n{table}\n{errors}");
    // "fails both" is no success either, nor is "better": our own samples pass directly on every device of ours.
    let failing: Vec<&str> = table
        .lines()
        .filter(|line| [" fails both", " better"].iter().any(|verdict| line.ends_with(verdict)))
        .collect();
    assert!(failing.is_empty(), "samples fail directly: {failing:#?}\n{table}");
}

#[test]
fn every_sample_is_the_same_over_shared_memory() {
    compare(&[], &[]);
}

#[test]
fn every_sample_is_the_same_over_a_socket() {
    compare(&SHARED_MEMORY_ONLY, &["PXOS_SHARED_MEMORY=0"]);
}

#[test]
fn what_a_socket_cannot_carry_is_said_beforehand() {
    let server = Fixture::new().start();
    for name in ["managedMemory", "relocatable", "systemAtomics", "zeroCopy"] {
        let finished = server.program(sample(name), Way::Socket).run();
        assert_eq!(finished.code(), Some(2), "the program does not see that the device cannot: {finished}");
    }
    let lines = |way| -> Vec<String> {
        let finished = server.program(sample("deviceQuery"), way).passes();
        let told =
            // CAN_MAP_HOST_MEMORY, MANAGED_MEMORY.
            finished.stdout.lines().filter(|line| {
                !["managed", "host:", "attribute 19 ", "attribute 83 "].iter().any(|word| line.contains(word))
            });
        told.map(str::to_owned).collect()
    };
    assert_eq!(lines(Way::Socket), lines(Way::Direct));
}

#[test]
fn some_samples_are_the_same_over_tcp() {
    let server = Fixture::new().tcp().start();
    for name in ["vectorAdd", "asyncCopies", "streams", "printf", "multiThread", "callbacks"] {
        let direct = server.direct(sample(name)).passes();
        let remoted = server.program(sample(name), Way::Tcp).passes();
        let lines = |text: &str| {
            text.lines().filter(|l| !l.starts_with("time:")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(&remoted.stdout), lines(&direct.stdout), "{name}");
    }
}

#[test]
fn host_functions_return_while_the_driver_waits_for_them() {
    let server = Fixture::new().env("PXSOFT_LAZY_LOADING", "1").start();
    for way in [Way::Direct, Way::SharedMemory, Way::Socket] {
        for program in ["callbacks", "hostFunctions"] {
            server.program(sample(program), way).passes();
        }
    }
}

#[test]
fn conditional_nodes_run_where_the_driver_has_them() {
    // The program passes on drivers without them, too; softgpu is none of those.
    let server = Fixture::new().start();
    for way in [Way::Direct, Way::SharedMemory, Way::Socket] {
        let lines = server.program(sample("graphConditional"), way).passes().stdout;
        for line in [
            "case 3: 8 turns, marks 111",
            "round 2: 5 turns, 2 odd, 3 even",
            "captured: 3 turns, marks 1 and 1",
        ] {
            assert!(lines.contains(line), "{way:?}: {line} is missing in\n{lines}");
        }
    }
}

/// The runtimes that programs may be linked with: what the contract says, not what happens to be installed.
const STATIC: [&str; 7] = ["12.9", "13.0", "13.1", "13.2", "13.3", "13.4", "13.5"];
const SHARED: [&str; 11] =
    ["11.8", "12.0", "12.4", "12.8", "12.9", "13.0", "13.1", "13.2", "13.3", "13.4", "13.5"];

#[test]
fn a_program_of_every_runtime_runs() {
    let server = Fixture::new().arg("--pool-size=2").start();
    let before = server.settled();
    let probes = contract_probes();
    let named = |kind: &str, versions: &[&str]| -> Vec<_> {
        versions.iter().map(|version| probes.join(format!("contractProbe-{kind}-{version}"))).collect()
    };
    for path in named("static", &STATIC).into_iter().chain(named("shared", &SHARED)) {
        assert!(path.exists(), "{} is missing: run `make contract`", path.display());
        // The runtime that it was linked with, not what the machine has of the same major version.
        let direct = server.direct(&path).env("LD_LIBRARY_PATH", "").passes();
        for way in [Way::SharedMemory, Way::Socket] {
            let remoted = server.program(&path, way).env("LD_LIBRARY_PATH", "").passes();
            assert_eq!(remoted.stdout, direct.stdout, "{} {way:?}", path.display());
            assert!(remoted.stdout.ends_with("PASS\n"), "{remoted}");
            assert_eq!(remoted.stderr, "", "{} {way:?}", path.display());
        }
    }
    server.assert_settles_as(&before);
}
