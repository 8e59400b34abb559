//! Which devices a VM sees: its own, numbered from 0, and no other by any name. On softgpu with several devices.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Driver, Fixture, Guest, Incoming, Program, Server, hello, probe, tool};
use pxos_protocol::api::op;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::control::{self, Hello, Purpose};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, Header};
use pxos_protocol::monitor::VmUse;

/// `CUDA_ERROR_INVALID_VALUE`, `CUDA_ERROR_INVALID_DEVICE`, `CUDA_ERROR_INVALID_CONTEXT`, `CUDA_ERROR_INVALID_HANDLE`.
const REFUSED: [u32; 4] = [1, 101, 201, 400];

/// A device as the probe shows it: softgpu's PCI bus counts from 1, and the UUID ends with the number.
const SEEN: [&str; 3] = ["0000:01:00.0/0", "0000:02:00.0/1", "0000:03:00.0/2"];

/// What a call's payload is written by.
type Write<'a> = &'a dyn Fn(&mut Writer<'_>);

/// Three devices; red has the second, blue the third and the first.
fn start() -> Server {
    Fixture::new()
        .driver(Driver::Soft)
        .env("PXSOFT_DEVICES", "3")
        .configuration("[[vm]]\nname = \"red\"\nsocket = \"RED\"\ngpus = [1]\n")
        .configuration(
            "[[vm]]\nname = \"blue\"\nsocket = \"BLUE\"\n\
             gpus = [\"GPU-70784f53-2073-6f66-7467-707500000002\", \"0000:01:00.0\"]\n",
        )
        .replacing("RED", "red.sock")
        .replacing("BLUE", "blue.sock")
        .start()
}

fn endpoint(server: &Server, vm: &str) -> Endpoint {
    Endpoint::Unix(server.at(&format!("{vm}.sock")))
}

/// A guest program of a VM, with NVML beside the shim; `guest` is no VM's: it sees all.
fn program(server: &Server, vm: &str) -> Program {
    let [shim, nvml] = ["libpxshim.so", "libpxnvml.so"].map(|name| tool(name).display().to_string());
    let program = server.guest(probe()).env("LD_PRELOAD", format!("{shim}:{nvml}"));
    program.env("PXOS_SERVER", endpoint(server, vm).to_string())
}

fn seen(server: &Server, vm: &str) -> String {
    let finished = program(server, vm).args(["seen"]).passes();
    finished.stdout.trim_start_matches("seen").trim().to_owned()
}

fn pxctl(server: &Server, args: &[&str]) -> String {
    let finished = server.pxctl(args);
    assert!(finished.status.success(), "pxctl {args:?}: {finished}");
    finished.stdout
}

fn refused(server: &Server, args: &[&str]) -> String {
    let finished = server.pxctl(args);
    assert!(!finished.status.success(), "pxctl {args:?}: {finished}");
    finished.stderr
}

#[test]
fn a_vm_sees_its_own_devices_in_its_own_order() {
    let server = start();
    assert_eq!(seen(&server, "guest"), SEEN.join(" "));
    assert_eq!(seen(&server, "red"), SEEN[1]);
    assert_eq!(seen(&server, "blue"), format!("{} {}", SEEN[2], SEEN[0]));
    let finished = program(&server, "red")
        .args(["seen", "find", "0000:02:00.0", "find", "0000:01:00.0", "peer", "1"])
        .args(["init", "alloc", "1048576", "copies", "1", "1000", "nvml", "init", "nvml", "memory"])
        .passes();
    for line in [
        "find CUDA_SUCCESS 0",
        "find CUDA_ERROR_INVALID_DEVICE -1",
        "peer CUDA_ERROR_INVALID_DEVICE",
        "copies CUDA_SUCCESS",
    ] {
        assert!(finished.stdout.contains(line), "'{line}' is not in\n{finished}");
    }
    // A probe, of which NVML and pxctl's doctor are made, is told the same without a worker.
    for (vm, last_bytes) in [("red", &[1][..]), ("blue", &[2, 0])] {
        let mut guest = Guest::connect(&endpoint(&server, vm));
        guest.say_hello(&Hello { purpose: Purpose::Probe, ..hello() });
        let welcome = guest.welcome();
        let uuids: Vec<u8> = welcome.snapshot.devices.iter().map(|device| device.uuid[15]).collect();
        assert_eq!(uuids, last_bytes, "{vm}");
        assert!(welcome.snapshot.devices.iter().all(|device| device.peers.len() == last_bytes.len()));
        assert!(guest.send(Header::new(frame::control::QUERY_VM), &[]));
        let Incoming::Frame(_, payload) = guest.receive() else { panic!("no answer") };
        let vm_use: VmUse = control::decode(&payload).expect("an answer");
        assert_eq!(vm_use.devices.len(), last_bytes.len(), "{vm}");
    }
}

#[test]
fn no_other_device_is_reached_by_hand() {
    let server = start();
    let mut red = Guest::connect(&endpoint(&server, "red")).begin(false);
    let context = red.retain();
    let answer = |guest: &mut Guest, what: u16, context: u64, write: Write<'_>| {
        guest.call(what, context, |writer| write(writer)).expect("the session stands").0
    };
    for device in [1_i32, 2, -1, i32::MAX] {
        let calls: [(u16, Write<'_>); 4] = [
            (op::cuDevicePrimaryCtxRetain, &|writer| {
                writer.put(context + 1);
                writer.put(device);
                writer.put(0_u32);
            }),
            (op::cuCtxCreate_v2, &|writer| {
                writer.put(context + 1);
                writer.put(device);
                writer.put(0_u32);
            }),
            (op::cuDeviceTotalMem_v2, &|writer| writer.put(device)),
            (op::cuMemCreate, &|writer| {
                writer.put(context + 2);
                writer.put(2_u64 << 20);
                // Pinned memory of that device.
                writer.put([1_u64, 0, 1, u64::from(device.cast_unsigned()), 0, 0, 0, 0]);
                writer.put(0_u64);
            }),
        ];
        for (what, write) in calls {
            let status = answer(&mut red, what, context, write);
            assert!(REFUSED.contains(&status), "op {what} with device {device}: {status}");
        }
    }
    // What red shares is not to be had by blue, whose devices are others.
    let (status, payload) =
        red.call(op::cuMemAlloc_v2, context, |writer| writer.put(4096_u64)).expect("an answer");
    assert_eq!(status, 0);
    let address: u64 = Reader::new(&payload).get().expect("an address");
    let (status, share) =
        red.call(op::cuIpcGetMemHandle, context, |writer| writer.put(address)).expect("an answer");
    assert_eq!(status, 0);
    let share: [u64; 8] = Reader::new(&share).get().expect("a share");
    let mut blue = Guest::connect(&endpoint(&server, "blue")).begin(false);
    let of_blue = blue.retain();
    let status = answer(&mut blue, op::cuIpcOpenMemHandle_v2, of_blue, &|writer| {
        writer.put(share);
        writer.put(1_u32);
    });
    assert!(REFUSED.contains(&status), "blue opens red's memory: {status}");
    // And the worker knows of one device, whatever it is told.
    let session = server.session_of_vm("red");
    assert_eq!(session.gpus, [1]);
    let environment = std::fs::read(format!("/proc/{}/environ", session.worker)).expect("our own worker");
    let visible = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"CUDA_VISIBLE_DEVICES="))
        .map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(visible.as_deref(), Some("GPU-70784f53-2073-6f66-7467-707500000001"));
}

#[test]
fn devices_change_for_sessions_that_begin_later() {
    let server = start();
    let mut before = program(&server, "red").args(["init", "say", "here", "read", "seen"]).start();
    before.wait_for("say here");
    let said = pxctl(&server, &["vm", "set", "red", "gpus=2,0"]);
    assert!(said.contains("gpus: 1 -> 2,0"), "{said}");
    assert_eq!(seen(&server, "red"), format!("{} {}", SEEN[2], SEEN[0]));
    assert_eq!(server.session_of_vm("red").gpus, [1]);
    before.say("go on");
    assert!(before.end().stdout.contains(&format!("seen {}\n", SEEN[1])), "it keeps what it began with");
    assert!(pxctl(&server, &["vm", "show", "red"]).contains("gpus              2,0\n"));
    assert!(pxctl(&server, &["vm", "list"]).lines().any(|line| line.contains(" 2,0 ")));
    // What is not there is refused, by whatever way; nothing changes.
    let wrong = refused(&server, &["vm", "set", "red", "gpus=3", "weight=200"]);
    assert!(wrong.contains("there is no device 3; the server has 3"), "{wrong}");
    let socket = format!("socket={}", server.at("green.sock").display());
    let wrong = refused(&server, &["vm", "create", "green", &socket, "gpus=0,0000:01:00.0"]);
    assert!(wrong.contains("which is in the list already"), "{wrong}");
    assert!(!server.at("green.sock").exists());
    pxctl(&server, &["vm", "create", "green", &socket, "gpus=0000:03:00.0,0"]);
    assert_eq!(seen(&server, "green"), format!("{} {}", SEEN[2], SEEN[0]));
    pxctl(&server, &["vm", "destroy", "green"]);
    let rules = std::fs::read_to_string(server.at("server.toml")).expect("the fixture wrote it");
    std::fs::write(server.at("server.toml"), rules.replace("gpus = [1]", "gpus = [\"GPU-7777\"]")).unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("there is no device GPU-7777");
    server.wait_log("the configuration is not changed");
    assert!(pxctl(&server, &["vm", "show", "red"]).contains("gpus              2,0\n"));
    std::fs::write(server.at("server.toml"), rules.replace("gpus = [1]", "gpus = \"all\"")).unwrap();
    server.signal(libc::SIGHUP);
    server.wait_log("changed: gpus: 2,0 -> all");
    assert_eq!(seen(&server, "red"), SEEN.join(" "));
    // Workers wait for what VMs see now: for all devices, and for blue's.
    let status = server.wait("two workers", |status| status.pool.size == 2 && status.pool.warm == 2);
    assert_eq!(
        status.devices.len(),
        3,
        "a worker that sees fewer devices does not change what the server has"
    );
}

#[test]
fn a_server_does_not_start_with_devices_that_it_does_not_have() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (rule, wrong) in
        [("gpus = [1]", "there is no device 1"), ("memory_min = \"5G\"", "promised 5368709120")]
    {
        std::fs::write(
            at("server.toml"),
            format!("[[vm]]\nname = \"red\"\nsocket = \"{}\"\n{rule}\n", at("red")),
        )
        .expect("the folder takes files");
        let output = std::process::Command::new(tool("pxos-server"))
            .args(["--config", &at("server.toml"), "--control", &at("control.sock"), "--driver", "soft"])
            .args(["--listen", &format!("unix:{}", at("guest.sock"))])
            .env_remove("PXSOFT_DEVICES")
            .output()
            .expect("the server can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(wrong), "{said}");
    }
}

#[test]
fn vms_on_devices_of_their_own_do_not_wait_for_each_other() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = Fixture::new()
        .driver(Driver::Soft)
        .env("PXSOFT_DEVICES", "2")
        .env("PXSOFT_LAB", &folder.path().join("lab").display().to_string())
        .env("PXSOFT_KERNEL_US", "2000")
        .env("PXSOFT_THREADS", "1")
        .configuration("[[vm]]\nname = \"red\"\nsocket = \"RED\"\ngpus = [1]\n")
        .configuration("[[vm]]\nname = \"blue\"\nsocket = \"BLUE\"\ngpus = [0]\n")
        .replacing("RED", "red.sock")
        .replacing("BLUE", "blue.sock")
        .start();
    let mut guests = ["red", "blue"].map(|vm| {
        let guest = program(&server, vm)
            .args(["init", "share", "1", "say", "ready", "read", "share", "3000"])
            .start();
        guest.wait_for("say ready");
        guest
    });
    guests.iter_mut().for_each(|guest| guest.say("go"));
    let completed = guests.map(|guest| {
        let finished = guest.end();
        let last = finished.stdout.lines().rev().find_map(|line| line.strip_prefix("share "));
        last.and_then(|count| count.parse::<f64>().ok()).expect("a figure")
    });
    // On one device each would get half of it, which is 750.
    assert!(completed.iter().all(|count| *count > 900.0), "{completed:?}");
    let waited = pxctl(&server, &["vm", "list", "--json"]);
    assert!(!waited.contains("lease used up"), "{waited}");
}
