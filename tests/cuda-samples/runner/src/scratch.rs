//! The folder in which one run happens: a copy of the program's own folder, so that what it writes can be compared
//! and does not reach the original.
//!
//! Programs and shared libraries are linked (they are large and nobody writes to them), other files are copied, and
//! subfolders are copied unless they hold programs of their own, which are other samples.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher as _;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::Error;
use crate::discover::{is_ignored_folder, is_program, programs};

/// Files larger than this are compared by their bytes only, not as masked text.
const TEXT_LIMIT: u64 = 4 << 20;

/// Size and time of change: enough to see that a program wrote a file.
type Stamp = (u64, i64, i64);

/// A run's own copy of the program's folder. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    before: BTreeMap<PathBuf, Stamp>,
}

/// What a run left in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Bytes, or nothing if the run removed the file.
    pub(crate) size: Option<u64>,
    /// A hash of the bytes.
    digest: u64,
    /// The content if it is text and not too long.
    #[serde(skip)]
    pub(crate) text: Option<Vec<u8>>,
}

impl Written {
    /// Whether the bytes are the same, as far as size and hash can tell.
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        (self.size, self.digest) == (other.size, other.digest)
    }
}

impl Scratch {
    /// Copies `source`, the folder of a program.
    pub(crate) fn copy_of(source: &Path) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("pxos-samples-")
            .tempdir()
            .map_err(Error::io("making a scratch folder"))?;
        copy(source, folder.path(), true)?;
        let mut scratch = Self { folder, before: BTreeMap::new() };
        scratch.before = scratch.stamps()?;
        Ok(scratch)
    }

    /// Where the run happens.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The files that changed since the copy was made, by path.
    pub(crate) fn written(&self) -> Result<BTreeMap<String, Written>, Error> {
        let now = self.stamps()?;
        let mut written = BTreeMap::new();
        for (path, stamp) in &now {
            if self.before.get(path) != Some(stamp) {
                written.insert(path.display().to_string(), read(&self.path().join(path))?);
            }
        }
        for path in self.before.keys().filter(|path| !now.contains_key(*path)) {
            written.insert(path.display().to_string(), Written { size: None, digest: 0, text: None });
        }
        Ok(written)
    }

    fn stamps(&self) -> Result<BTreeMap<PathBuf, Stamp>, Error> {
        let mut stamps = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let folder = self.path().join(&below);
            for entry in fs::read_dir(&folder).map_err(Error::io(folder.display().to_string()))? {
                let entry = entry.map_err(Error::io(folder.display().to_string()))?;
                let relative = below.join(entry.file_name());
                // Of a link, the link itself; special files (sockets, pipes) have no content to compare.
                let data = entry.metadata().map_err(Error::io(relative.display().to_string()))?;
                if data.is_dir() {
                    folders.push(relative);
                } else if data.is_file() || data.is_symlink() {
                    stamps.insert(relative, (data.len(), data.mtime(), data.mtime_nsec()));
                }
            }
        }
        Ok(stamps)
    }
}

/// Copies a folder's content. `top` is the program's own folder: there, subfolders with programs are left out.
fn copy(from: &Path, to: &Path, top: bool) -> Result<(), Error> {
    let failed = |path: &Path| Error::io(format!("copying {}", path.display()));
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let source = entry.path();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().map_err(failed(&source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            if is_ignored_folder(&source) || top && !programs(&source)?.is_empty() {
                continue;
            }
            fs::create_dir(&target).map_err(failed(&source))?;
            copy(&source, &target, false)?;
        } else if kind.is_symlink() || is_program(&source) || name.ends_with(".so") || name.contains(".so.") {
            let Ok(absolute) = source.canonicalize() else { continue };
            symlink(absolute, &target).map_err(failed(&source))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(failed(&source))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Written, Error> {
    let failed = || Error::io(format!("reading {}", path.display()));
    if path.is_symlink() {
        let target = fs::read_link(path).map_err(failed())?;
        let text = target.display().to_string().into_bytes();
        return Ok(Written { size: Some(text.len() as u64), digest: digest(&text), text: Some(text) });
    }
    let mut file = fs::File::open(path).map_err(failed())?;
    let size = file.metadata().map_err(failed())?.len();
    let (mut hasher, mut buffer, mut kept) = (DefaultHasher::new(), vec![0; 1 << 16], Vec::new());
    loop {
        let length = file.read(&mut buffer).map_err(failed())?;
        if length == 0 {
            break;
        }
        hasher.write(&buffer[..length]);
        if size <= TEXT_LIMIT {
            kept.extend_from_slice(&buffer[..length]);
        }
    }
    let text =
        (size <= TEXT_LIMIT && !kept.contains(&0) && std::str::from_utf8(&kept).is_ok()).then_some(kept);
    Ok(Written { size: Some(size), digest: hasher.finish(), text })
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_copy_is_private_and_changes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text, mode) in [
            ("sample", "#!/bin/sh\n", 0o755),
            ("input", "in", 0o644),
            ("data/deep/more", "m", 0o644),
            ("other/program", "#!/bin/sh\n", 0o755),
        ] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let scratch = Scratch::copy_of(dir.path()).unwrap();
        let inside = |name: &str| scratch.path().join(name);
        assert!(inside("sample").is_symlink() && inside("sample").exists());
        assert_eq!(fs::read(inside("data/deep/more")).unwrap(), b"m");
        assert!(!inside("other").exists());
        assert!(scratch.written().unwrap().is_empty());

        fs::write(inside("input"), "changed").unwrap();
        fs::write(inside("data/new"), [0, 1, 2]).unwrap();
        fs::remove_file(inside("data/deep/more")).unwrap();
        let written = scratch.written().unwrap();
        assert_eq!(written.keys().collect::<Vec<_>>(), ["data/deep/more", "data/new", "input"]);
        assert_eq!(written["input"].text.as_deref(), Some(&b"changed"[..]));
        assert_eq!((written["data/new"].size, &written["data/new"].text), (Some(3), &None));
        assert_eq!(written["data/deep/more"].size, None);
        assert_eq!(fs::read(at("input")).unwrap(), b"in");

        let again = Scratch::copy_of(dir.path()).unwrap();
        fs::write(again.path().join("data/new"), [0, 1, 2]).unwrap();
        assert_eq!(again.written().unwrap()["data/new"], written["data/new"]);
        fs::write(again.path().join("data/new"), [0, 1, 3]).unwrap();
        assert_ne!(again.written().unwrap()["data/new"], written["data/new"]);
    }
}
