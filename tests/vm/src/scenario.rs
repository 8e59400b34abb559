//! What the tests and `pxos-vm` do with machines.

use crate::{Parts, Plan, Vm, payload};
use pxos_harness::{Driver, Fixture, Server, probe, sample, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that both guests run at once: copies, launches, shared memory of a block, streams, output of the device.
pub const PROGRAMS: &[&str] = &["vectorAdd", "matrixMul", "reduction", "streams", "printf"];

/// Device memory of the first guest's sessions, and of the second's, in MiB.
const QUOTA: [u64; 2] = [512, 1024];

/// What a program in the guest is started with.
pub const SHIM: &str = "LD_PRELOAD=/payload/libpxshim.so";

/// Machines, their folder, and what they run.
#[derive(Debug)]
pub struct Stage {
    /// What machines are made of.
    pub parts: Parts,
    /// What they run.
    pub payload: PathBuf,
    folder: tempfile::TempDir,
    shared: tempfile::TempDir,
}

impl Stage {
    /// Packs everything that scenarios run in guests.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub fn set() -> Result<Self, String> {
        let parts = Parts::find()?;
        // Paths of unix sockets have 107 characters at most.
        let folder = tempfile::Builder::new().prefix("pxvm").tempdir().map_err(|error| error.to_string())?;
        let payload = match std::env::var_os("PXOS_VM_PAYLOAD") {
            Some(path) => path.into(),
            None => {
                let path = folder.path().join("payload.cpio");
                let mut files = files();
                files.push(sends(folder.path())?);
                payload::build(&files, &path).map_err(|error| format!("the payload: {error}"))?;
                path
            }
        };
        let shared = tempfile::Builder::new().prefix("pxvm").tempdir_in("/dev/shm");
        Ok(Self { parts, payload, folder, shared: shared.map_err(|error| error.to_string())? })
    }

    /// Where sockets of machines lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's argument for a machine's vsock.
    #[must_use]
    pub fn listen(&self, name: &str) -> String {
        format!("--listen={}", Vm::endpoint(self.folder(), name))
    }

    /// A file for the memory that a machine shares, of `size` bytes.
    #[must_use]
    pub fn memory(&self, name: &str, size: u64) -> PathBuf {
        let path = self.shared.path().join(name);
        let file = std::fs::File::create(&path).expect("/dev/shm takes files");
        file.set_len(size).expect("a file can grow");
        path
    }

    /// Boots a machine.
    #[must_use]
    pub fn boot(&self, plan: Plan) -> Vm {
        Vm::boot(&self.parts, &self.payload, self.folder(), plan)
    }
}

/// The library that watches what a program sends (`tests/vm/sends.c`), built into `folder`.
fn sends(folder: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sends.c");
    let library = folder.join("libsends.so");
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .map_err(|error| format!("no C compiler: {error}"))?;
    if done.status.success() { Ok(library) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// What guests get.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let own = ["libpxshim.so", "pxctl"].map(tool);
    own.into_iter()
        .chain([probe()])
        .chain(PROGRAMS.iter().chain(&["zeroCopy"]).map(|name| sample(name)))
        .collect()
}

/// Two guests at once against one server: their programs print what they print on the device itself, each VM is who its socket
/// says it is, has its own quota, and cannot reach the other.
pub fn two_guests(stage: &Stage, driver: Driver) {
    if matches!(driver, Driver::Auto) {
        // Beside a GPU that cannot be used, a test on this CPU would say nothing.
        assert!(pxos_harness::is_on_a_gpu(), "no GPU can be used here (driver auto)");
    }
    let rules = format!(
        "[[vm]]\nname = \"red\"\nmemory_max = \"{}M\"\n[[vm]]\nname = \"blue\"\nmemory_max = \"{}M\"",
        QUOTA[0], QUOTA[1]
    );
    let server = Fixture::new()
        .driver(driver)
        .arg(&stage.listen("red"))
        .arg(&stage.listen("blue"))
        .arg("--pool-size=2")
        .configuration(&rules)
        .start();
    let vms = [stage.boot(Plan::new("red", 3)), stage.boot(Plan::new("blue", 4))];
    for vm in &vms {
        vm.wait_up();
    }
    for program in PROGRAMS {
        let expected = server.direct(sample(program)).passes().stdout;
        let both = vms.each_ref().map(|vm| vm.begin(&format!("{SHIM} /payload/{program}")));
        for (vm, token) in vms.iter().zip(both) {
            assert_eq!(vm.end(token).good().trim_end(), expected.trim_end(), "{program}");
        }
    }
    who_is_who(&server, &vms);
    quota(&vms);
    let [red, blue] = &vms;
    for (vm, cid) in [(red, 4), (blue, 3)] {
        let ran = vm.run(&format!("PXOS_SERVER=vsock:{cid}:9700 {SHIM} /payload/pxos-probe init 2>&1"));
        assert!(
            ran.output.contains("init CUDA_ERROR_NO_DEVICE"),
            "a guest reaches the other: {}",
            ran.output
        );
    }
    for vm in vms {
        vm.power_off();
    }
    let status = server.wait("no session", |status| status.sessions.is_empty());
    assert_eq!(status.totals.ended.keys().collect::<Vec<_>>(), ["closed"], "{:?}", status.totals.ended);
}

/// While a program runs in each, the status tells them apart.
fn who_is_who(server: &Server, vms: &[Vm; 2]) {
    let both = vms.each_ref().map(|vm| vm.begin(&format!("{SHIM} /payload/pxos-probe init sleep 1500")));
    let status = server.wait("two sessions", |status| status.sessions.len() == 2);
    let mut names: Vec<&str> = status.sessions.iter().map(|session| session.vm.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["blue", "red"]);
    for session in &status.sessions {
        assert!(session.peer.starts_with(&format!("vm:{}=", session.vm)), "{}", session.peer);
    }
    for (vm, token) in vms.iter().zip(both) {
        let _ = vm.end(token).good();
    }
}

/// Each guest is told its own quota, and gets no more.
fn quota(vms: &[Vm; 2]) {
    for (vm, quota) in vms.iter().zip(QUOTA) {
        let (more, less) = ((quota + 1) << 20, (quota / 2) << 20);
        let output = vm
            .run(&format!(
                "{SHIM} /payload/pxos-probe init meminfo alloc {more} alloc {less} alloc {less} alloc {less}"
            ))
            .good();
        let lines: Vec<&str> = output.lines().collect();
        let total: u64 = lines[1].rsplit(' ').next().and_then(|total| total.parse().ok()).expect("a number");
        assert!(total <= quota << 20, "{output}");
        assert_eq!(lines[2], "alloc CUDA_ERROR_OUT_OF_MEMORY", "{output}");
        assert_eq!(lines[3], "alloc CUDA_SUCCESS", "{output}");
        assert_eq!(lines[5], "alloc CUDA_ERROR_OUT_OF_MEMORY", "{output}");
    }
}
