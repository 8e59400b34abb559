//! The guest's end of a virtio-serial port: the one process that has it, and the socket at which the guest's programs connect.

use pxos_protocol::transport::mux::serve_guest;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The port's name, as QEMU's command line says it.
const NAME: &str = "pxos.gpu.0";
/// Where udev links ports by name.
const LINKS: &str = "/dev/virtio-ports";
/// Where the kernel tells their names.
const CLASS: &str = "/sys/class/virtio-ports";

/// Permissions in octal.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("'{text}' is not a mode such as 0666"))
}

/// Serves until the port fails.
pub(crate) fn run(port: Option<PathBuf>, listen: &Path, mode: u32) -> ExitCode {
    let served = open(port).and_then(|port| {
        let listener = bind(listen, mode)?;
        eprintln!("pxctl: programs of this guest connect at {}", listen.display());
        let told = |ready| {
            eprintln!("pxctl: the server {}", if ready { "is connected" } else { "is not there" });
        };
        serve_guest(&port.into(), &listener, told).map_err(|error| format!("the port fails: {error}"))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pxctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open(port: Option<PathBuf>) -> Result<File, String> {
    let path = port
        .or_else(|| Some(Path::new(LINKS).join(NAME)).filter(|path| path.exists()))
        .or_else(|| named(Path::new(CLASS)))
        .ok_or_else(|| {
            format!("this VM has no virtio port named {NAME} (QEMU: -device virtserialport,chardev=ID,name={NAME})")
        })?;
    File::options().read(true).write(true).open(&path).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            format!("{}: another process has it; one mux serves all programs", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    })
}

/// The device of the port with our name, where udev has made no link.
fn named(class: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(class).ok()?.flatten();
    let ours = entries
        .map(|entry| entry.path())
        .find(|path| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == NAME))?;
    Some(Path::new("/dev").join(ours.file_name()?))
}

/// A socket for the programs of this guest.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<UnixListener, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    if UnixStream::connect(path).is_ok() {
        return Err(format!("{}: somebody serves there already", path.display()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(told)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(told)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", "pxos.gpu.0")] {
            fs::create_dir(folder.path().join(port)).unwrap();
            fs::write(folder.path().join(port).join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(named(folder.path()), Some("/dev/vport1p2".into()));
        assert_eq!(named(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_socket_that_is_served_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let listener = bind(&path, 0o600).unwrap();
        assert!(bind(&path, 0o600).is_err());
        drop(listener);
        assert!(bind(&path, 0o600).is_ok());
        assert_eq!(mode("0660"), Ok(0o660));
        assert!(mode("888").is_err());
    }
}
