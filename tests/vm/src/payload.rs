//! What a guest runs: programs, the shim, and the libraries that they need, as an uncompressed cpio archive ("newc") behind the
//! base initramfs; the kernel unpacks both.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packs `files` into `/payload` of the guest, and every library that the dynamic linker would load for them at its own path.
///
/// # Errors
/// The operating system's.
pub fn build(files: &[PathBuf], out: &Path) -> io::Result<()> {
    let mut archive = Archive { bytes: Vec::new(), number: 1, folders: BTreeSet::new() };
    archive.folder(Path::new("/payload"));
    let mut libraries = BTreeSet::new();
    for file in files {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        archive.file(&Path::new("/payload").join(name), &stripped(file)?);
        libraries.extend(closure(file)?);
    }
    for library in libraries {
        archive.file(&library, &fs::read(&library)?);
    }
    archive.entry("TRAILER!!!", 0, &[]);
    fs::File::create(out)?.write_all(&archive.bytes)
}

/// A file without its debugging sections, which take most of a debug build and all of a guest's patience.
fn stripped(file: &Path) -> io::Result<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new()?;
    let done = Command::new("strip").arg("-o").arg(copy.path()).arg("--strip-unneeded").arg(file).output();
    match done {
        Ok(output) if output.status.success() => fs::read(copy.path()),
        _ => fs::read(file),
    }
}

/// The libraries of a program, as the dynamic linker resolves them here, and the linker itself; none for a script.
fn closure(file: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(file).env_remove("LD_PRELOAD").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let path = |line: &str| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        line.split(" (").next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path).filter(|path| path.exists()).collect())
}

struct Archive {
    bytes: Vec<u8>,
    number: u32,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn folder(&mut self, path: &Path) {
        if path.parent().is_none() || !self.folders.insert(path.to_owned()) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.entry(&name(path), 0o040_755, &[]);
    }

    fn file(&mut self, path: &Path, contents: &[u8]) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.entry(&name(path), 0o100_755, contents);
    }

    /// One entry: a header of numbers in hexadecimal, the name, the contents, each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let (size, named) = (contents.len(), name.len() + 1);
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{named:08x}{:08x}",
            self.number, 0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.number += 1;
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Writes the initramfs: base, padded, then payload.
///
/// # Errors
/// The operating system's.
pub fn join(base: &Path, payload: &Path, out: &Path) -> io::Result<()> {
    let mut bytes = fs::read(base)?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(fs::read(payload)?);
    fs::write(out, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hello.sh");
        fs::write(&program, "#!/bin/sh\necho hello\n").unwrap();
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let out = folder.path().join("payload.cpio");
        build(&[program, shell.clone()], &out).unwrap();
        let bytes = fs::read(&out).unwrap();
        assert!(bytes.len().is_multiple_of(4));
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with("070701") && text.contains("payload/hello.sh") && text.contains("echo hello")
        );
        assert!(text.contains("TRAILER!!!"));
        assert!(closure(&shell).unwrap().iter().all(|library| text.contains(&name(library))));
    }
}
