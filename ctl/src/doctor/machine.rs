//! The machine: kernel, vsock, by which most guests reach their host, and memory that a VM shares with it.

use super::{Context, Findings, Role};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::bar;

/// The CID of a host (`VMADDR_CID_HOST`), and of a machine without a vsock device (`VMADDR_CID_ANY`).
const HOST: u32 = 2;
const NONE: u32 = u32::MAX;

/// Looks at the kernel and at /dev/vsock.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let side = match context.role {
        Role::Host => "the host's side: a server, or its files, are here",
        Role::Guest => "the guest's side: no server is here",
    };
    findings.ok(format!("Linux {}, {}; {side}", release.trim(), std::env::consts::ARCH));
    let wanted = context.settings.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Vsock { .. }));
    let cid = vsock::get_local_cid();
    match (cid, context.role) {
        (Ok(HOST), Role::Host) => findings.ok("/dev/vsock: guests can reach this host (CID 2)"),
        (Ok(cid), _) if cid != NONE && cid != HOST => findings.ok(format!("/dev/vsock: this machine has CID {cid}")),
        (_, Role::Host) => findings.warn(
            "no vsock for guests: the kernel's vhost_vsock is not loaded",
            "modprobe vhost_vsock; or give each VM a vsock device of its VMM's own and name its socket in a [[vm]] rule",
        ),
        (Ok(_), Role::Guest) if wanted => findings.warn(
            "/dev/vsock is there, but this VM has no vsock device",
            "give the VM a vsock device (vhost-vsock-pci,guest-cid=N for QEMU)",
        ),
        (Err(error), Role::Guest) if wanted => findings.warn(
            format!("/dev/vsock: {error}"),
            "modprobe vmw_vsock_virtio_transport, and give the VM a vsock device",
        ),
        (_, Role::Guest) => findings.ok("no vsock here, and none is asked for"),
    }
    if context.role == Role::Guest {
        check_memory(findings);
    }
}

/// Looks at the VM's ivshmem devices.
fn check_memory(findings: &mut Findings) {
    let open = bar::candidates();
    for path in bar::devices() {
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len()) >> 20;
        let what = format!("memory shared with the host: {}, {size} MiB", path.display());
        if open.contains(&path) {
            findings.ok(what);
        } else {
            findings.warn(
                format!("{what}, which this user may not open: copies go through the socket"),
                format!("chmod 666 {}; the package pxos-guest has a udev rule for it", path.display()),
            );
        }
    }
}
