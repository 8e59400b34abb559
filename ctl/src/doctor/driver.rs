//! The host's driver: libcuda, the device nodes of the kernel's part, and softgpu.

use super::{Context, Findings, Role, library};
use pxos_client::Control;
use pxos_protocol::types::CUresult;
use std::fs::OpenOptions;
use std::path::Path;

const LIBCUDA: &str = "libcuda.so.1";
const SOFTGPU: &str = "libpxsoft.so";

/// Looks for a libcuda that works, on the host.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    if context.role == Role::Guest {
        return;
    }
    let gpu = check_libcuda(findings);
    let soft = check_softgpu(findings);
    let status = Control::connect(&context.control).and_then(|mut control| control.status());
    if let Some(path) = status.ok().and_then(|status| status.driver.path) {
        findings.ok(format!("the running server uses {}", path.display()));
    } else if !gpu && !soft {
        findings.fail(
            "there is neither a working libcuda.so.1 nor softgpu: the server cannot start",
            "install the NVIDIA driver, or libpxsoft.so beside pxos-server",
        );
    }
}

/// Whether the GPU's driver works.
fn check_libcuda(findings: &mut Findings) -> bool {
    check_nodes(findings);
    match library::open(Path::new(LIBCUDA), true) {
        Err(error) => {
            findings
                .warn(format!("no GPU driver: {error}"), "install NVIDIA's driver, if this host has a GPU");
            false
        }
        Ok(opened) => {
            let place =
                opened.path.as_deref().map_or_else(|| LIBCUDA.into(), |path| path.display().to_string());
            if opened.path.as_deref().is_some_and(library::is_shim) {
                findings.warn(
                    format!("{LIBCUDA} on this host is pxOS's own shim ({place}), which the server does not use"),
                    "on a host with a GPU set driver in server.toml to the real libcuda, or remove pxos-guest",
                );
                return false;
            }
            let version = opened.version.unwrap_or_default();
            let version = format!("{}.{}", version / 1000, version % 1000 / 10);
            match (opened.init, opened.devices) {
                (Some(0), Some(devices)) if devices > 0 => {
                    findings.ok(format!("{place}: CUDA {version}, {devices} devices"));
                    true
                }
                (Some(0), _) => {
                    findings.warn(
                        format!("{place}: CUDA {version}, but no device"),
                        "is the GPU passed to a VM?",
                    );
                    false
                }
                (result, _) => {
                    let result = CUresult(result.unwrap_or(999));
                    findings.warn(
                        format!("{place}: CUDA {version}, but cuInit answers {result}"),
                        "nvidia-smi and dmesg say more; the kernel's module must be of the library's version",
                    );
                    false
                }
            }
        }
    }
}

/// The nodes by which libcuda reaches the kernel's part of the driver.
fn check_nodes(findings: &mut Findings) {
    if !Path::new("/dev/nvidiactl").exists() {
        return; // no such driver; what follows says so
    }
    let names = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm"];
    let mut good = Vec::new();
    for name in names {
        match OpenOptions::new().read(true).write(true).open(name) {
            Ok(_) => good.push(name),
            Err(error) => findings.warn(
                format!("{name}: {error}"),
                "nvidia-modprobe -u -c 0 makes the nodes; the server's user must be able to open them",
            ),
        }
    }
    if good.len() == names.len() {
        findings.ok(format!("{} can be opened", names.join(", ")));
    }
}

/// Whether softgpu works.
fn check_softgpu(findings: &mut Findings) -> bool {
    let Some(path) = library::find(SOFTGPU) else {
        findings.ok(format!("{SOFTGPU} is not installed; it is for hosts without a GPU"));
        return false;
    };
    match library::open(&path, true) {
        Ok(opened) if opened.init == Some(0) => {
            findings.ok(format!("{} works, for hosts without a GPU", path.display()));
            true
        }
        Ok(opened) => {
            let result = CUresult(opened.init.unwrap_or(999));
            findings.warn(format!("{}: cuInit answers {result}", path.display()), "install it again");
            false
        }
        Err(error) => {
            findings.warn(format!("{}: {error}", path.display()), "install it again");
            false
        }
    }
}
