//! What a machine is made of: QEMU, a kernel, the base of an initramfs, and the device process that carries vsock.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Found parts.
#[derive(Clone, Debug)]
pub struct Parts {
    /// QEMU's program.
    pub qemu: PathBuf,
    /// `vhost-device-vsock`.
    pub vsock_device: PathBuf,
    /// A Linux kernel.
    pub kernel: PathBuf,
    /// Our init with busybox and modules, compressed.
    pub base: PathBuf,
    /// QEMU's `-accel`.
    pub accel: String,
}

impl Parts {
    /// Looks for them.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn find() -> Result<Self, String> {
        let qemu = std::env::var_os("PXOS_QEMU").map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from);
        let answers =
            Command::new(&qemu).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !answers.is_ok_and(|status| status.success()) {
            return Err(format!("no QEMU: {} does not run (apt install qemu-system-x86)", qemu.display()));
        }
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.toolchain/vm");
        let folder = std::env::var_os("PXOS_VM_PARTS").map_or_else(default, PathBuf::from);
        let part = |name: &str| {
            let path = folder.join(name);
            if path.exists() {
                Ok(path)
            } else {
                Err(format!("{} is missing: run `make vm`", path.display()))
            }
        };
        Ok(Self {
            qemu,
            vsock_device: part("bin/vhost-device-vsock")?,
            kernel: part("vmlinuz")?,
            base: part("base.cpio.gz")?,
            accel: std::env::var("PXOS_VM_ACCEL").unwrap_or_else(|_| accel().to_owned()),
        })
    }
}

/// KVM where the processor's own virtualisation is behind it: others, such as a KVM that interprets (PVM), do not run an
/// ordinary kernel.
fn accel() -> &'static str {
    let own = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"].iter().any(|path| Path::new(path).exists());
    let usable = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if own && usable { "kvm" } else { "tcg" }
}
