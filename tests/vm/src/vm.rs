//! A machine that runs: QEMU, and beside it the device process that carries its vsock. Both end with the value.

use crate::console::{Console, Ran, result};
use crate::parts::Parts;
use crate::payload;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything takes in an emulated processor on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the device process may take to make its socket.
const DEVICE: Duration = Duration::from_secs(10);

/// What a machine has.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, here and at the server.
    pub name: String,
    /// Its context id.
    pub cid: u32,
    /// Its memory in MiB.
    pub memory: u32,
    /// Whether it has a vsock device.
    pub vsock: bool,
    /// Whether it has a virtio port `pxos.gpu.0`.
    pub serial: bool,
    /// The file behind an ivshmem device, and its size in bytes (a power of two).
    pub shared: Option<(PathBuf, u64)>,
}

impl Plan {
    /// A machine with vsock and nothing else.
    #[must_use]
    pub fn new(name: &str, cid: u32) -> Self {
        Self { name: name.to_owned(), cid, memory: 256, vsock: true, serial: false, shared: None }
    }
}

/// A machine.
#[derive(Debug)]
pub struct Vm {
    plan: Plan,
    parts: Parts,
    folder: PathBuf,
    device: Option<Child>,
    qemu: Child,
    console: Console,
    tokens: AtomicU32,
}

impl Vm {
    /// The folder of a machine's sockets, made below `folder`.
    fn place(folder: &Path, name: &str) -> PathBuf {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).expect("a folder can be made");
        place
    }

    /// The server's endpoint for a machine's vsock device: known before it boots.
    #[must_use]
    pub fn endpoint(folder: &Path, name: &str) -> String {
        format!("vm:{name}={}", Self::place(folder, name).join("vsock").display())
    }

    /// The server's endpoint for a machine's virtio port.
    #[must_use]
    pub fn serial_endpoint(folder: &Path, name: &str) -> String {
        format!("serial:{name}={}", Self::place(folder, name).join("gpu.sock").display())
    }

    /// Starts a machine whose sockets lie below `folder`; [`Self::wait_up`] waits for it.
    #[must_use]
    pub fn boot(parts: &Parts, payload: &Path, folder: &Path, plan: Plan) -> Self {
        let folder = Self::place(folder, &plan.name);
        payload::join(&parts.base, payload, &folder.join("initrd")).expect("an initramfs can be written");
        let device = plan.vsock.then(|| start_device(parts, &folder, &plan));
        let mut qemu = start_qemu(parts, &folder, &plan);
        let (input, output) = (qemu.stdin.take(), qemu.stdout.take());
        let console = Console::new(input.expect("a pipe"), output.expect("a pipe"));
        Self { plan, parts: parts.clone(), folder, device, qemu, console, tokens: AtomicU32::new(1) }
    }

    /// Waits until the guest takes commands; how long it has been up.
    pub fn wait_up(&self) -> f64 {
        let up = |text: &str| {
            let (_, rest) = text.split_once("PXVM-UP ")?;
            rest.split_once('\n').and_then(|(line, _)| line.split(' ').next()?.parse().ok())
        };
        self.or_panic(self.console.wait("boot", PATIENCE, up))
    }

    fn or_panic<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| {
            let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            panic!("{}: {error}\nQEMU: {}\nvsock: {}", self.plan.name, read("qemu.log"), read("device.log"))
        })
    }

    /// Begins a command of the guest's shell; [`Self::end`] waits for its end. One command runs at a time.
    #[must_use]
    pub fn begin(&self, command: &str) -> u32 {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.console.type_line(&format!("{token} {command}"));
        token
    }

    /// Waits for the end of a command.
    #[must_use]
    pub fn end(&self, token: u32) -> Ran {
        self.or_panic(self.console.wait("command", PATIENCE, |text| result(text, token)))
    }

    /// Runs a command of the guest's shell.
    #[must_use]
    pub fn run(&self, command: &str) -> Ran {
        self.end(self.begin(command))
    }

    /// Waits until the guest has printed a text.
    pub fn wait_printed(&self, wanted: &str) {
        self.or_panic(self.console.wait(wanted, PATIENCE, |text| text.contains(wanted).then_some(())));
    }

    /// What the guest has printed so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// Turns it off, as its own system would, and waits until it is gone.
    pub fn power_off(mut self) {
        self.console.type_line("off");
        self.or_panic(
            self.console.wait("power off", PATIENCE, |text| text.contains("PXVM-OFF").then_some(())),
        );
        let start = Instant::now();
        while self.qemu.try_wait().expect("a child can be asked").is_none() {
            assert!(start.elapsed() < PATIENCE, "{}: QEMU does not end", self.plan.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills QEMU, as a crash would; the device process stays. [`Self::boot_again`] starts another.
    pub fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// Boots anew after [`Self::kill`].
    pub fn boot_again(&mut self) {
        let mut qemu = start_qemu(&self.parts, &self.folder, &self.plan);
        let (input, output) = (qemu.stdin.take(), qemu.stdout.take());
        self.console = Console::new(input.expect("a pipe"), output.expect("a pipe"));
        self.qemu = qemu;
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        for child in self.device.iter_mut().chain([&mut self.qemu]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn log(folder: &Path, name: &str) -> File {
    File::options().create(true).append(true).open(folder.join(name)).expect("a log can be made")
}

fn start_device(parts: &Parts, folder: &Path, plan: &Plan) -> Child {
    let socket = folder.join("vhost");
    let _ = std::fs::remove_file(&socket);
    let child = Command::new(&parts.vsock_device)
        .args(device_arguments(folder, plan).iter().flat_map(|(option, value)| [*option, value]))
        .stdin(Stdio::null())
        .stdout(log(folder, "device.log"))
        .stderr(log(folder, "device.log"))
        .spawn()
        .expect("vhost-device-vsock can be started");
    let start = Instant::now();
    while !socket.exists() {
        assert!(start.elapsed() < DEVICE, "vhost-device-vsock makes no socket");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The device process's command line; docs/guests.md has the same.
fn device_arguments(folder: &Path, plan: &Plan) -> [(&'static str, String); 4] {
    [
        ("--guest-cid", plan.cid.to_string()),
        ("--socket", folder.join("vhost").display().to_string()),
        ("--uds-path", folder.join("vsock").display().to_string()),
        ("--tx-buffer-size", "262144".into()),
    ]
}

/// What a machine is made of, for QEMU's command line; docs/guests.md has the same.
fn devices(folder: &Path, plan: &Plan) -> Vec<(&'static str, String)> {
    let Plan { memory, .. } = plan;
    let mut devices = Vec::new();
    if plan.vsock {
        // The device process reads the guest's memory itself, so that has to be a file that both map.
        devices.push(("-object", format!("memory-backend-memfd,id=memory,size={memory}M,share=on")));
        devices.push(("-machine", "pc,memory-backend=memory".into()));
        devices.push(("-chardev", format!("socket,id=vsock,path={}", folder.join("vhost").display())));
        devices.push(("-device", "vhost-user-vsock-pci,chardev=vsock".into()));
    } else {
        devices.push(("-machine", "pc".into()));
    }
    if plan.serial {
        let socket = folder.join("gpu.sock");
        devices.push(("-device", "virtio-serial-pci".into()));
        devices.push(("-chardev", format!("socket,id=gpu,path={},server=on,wait=off", socket.display())));
        devices.push(("-device", "virtserialport,chardev=gpu,name=pxos.gpu.0".into()));
    }
    if let Some((path, size)) = &plan.shared {
        let backend =
            format!("memory-backend-file,id=shared,size={size},share=on,mem-path={}", path.display());
        devices.push(("-object", backend));
        devices.push(("-device", "ivshmem-plain,memdev=shared".into()));
    }
    devices
}

fn start_qemu(parts: &Parts, folder: &Path, plan: &Plan) -> Child {
    let mut command = Command::new(&parts.qemu);
    command
        .args(["-nodefaults", "-nographic", "-no-reboot", "-smp", "1"])
        .args(["-accel", &parts.accel, "-cpu", if parts.accel == "kvm" { "host" } else { "max" }])
        .args(["-m", &plan.memory.to_string()])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(folder.join("initrd"))
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet nokaslr mitigations=off cryptomgr.notests no_timer_check",
        ]);
    for (option, value) in devices(folder, plan) {
        command.args([option, &value]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log(folder, "qemu.log"));
    command.spawn().expect("QEMU can be started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_command_lines_that_are_run() {
        let guide = include_str!("../../../docs/guests.md");
        let shared = Some((PathBuf::from("/dev/shm/vm3"), 512 << 20));
        let plans = [
            Plan { shared, ..Plan::new("red", 3) },
            Plan { vsock: false, serial: true, ..Plan::new("red", 3) },
        ];
        for (option, value) in plans.iter().flat_map(|plan| devices(Path::new("/run/vm3"), plan)) {
            // Sizes and places are everybody's own.
            let own =
                |part: &str| ["size=", "path=", "mem-path="].into_iter().find(|own| part.starts_with(own));
            let line = guide.lines().find(|line| {
                let mut parts = value.split(',').map(|part| own(part).unwrap_or(part));
                line.contains(option) && parts.all(|part| line.contains(part))
            });
            assert!(line.is_some(), "docs/guests.md has no line with {option} {value}");
        }
        let line = guide.lines().find(|line| line.trim().starts_with("vhost-device-vsock "));
        let line = line.expect("docs/guests.md starts the device process");
        for (option, value) in device_arguments(Path::new("/run/vm3"), &plans[0]) {
            let own = value.starts_with("/run/vm3");
            let wanted = if own { format!("{option} /run/vm3.") } else { format!("{option} {value}") };
            assert!(line.contains(&wanted), "no {wanted} in {line}");
        }
    }
}
