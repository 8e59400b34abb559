//! Finds built programs in a folder, in the layout of this repository or of a build tree of NVIDIA's samples.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// Folders of a build system, which hold programs that are not samples.
const IGNORED_FOLDERS: [&str; 3] = ["CMakeFiles", "_deps", "Testing"];

/// Endings of executable files that are not samples.
const IGNORED_ENDINGS: [&str; 12] =
    [".so", ".sh", ".py", ".pl", ".cmake", ".o", ".a", ".txt", ".ptx", ".cubin", ".fatbin", ".bat"];

/// Programs below `folder`, as sorted paths relative to it.
pub(crate) fn programs(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    walk(folder, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).map_err(Error::io(folder.display().to_string()))? {
        let entry = entry.map_err(Error::io(folder.display().to_string()))?;
        let relative = below.join(entry.file_name());
        let kind = entry.file_type().map_err(Error::io(relative.display().to_string()))?;
        if kind.is_dir() {
            if !is_ignored_folder(&relative) {
                walk(root, &relative, found)?;
            }
        } else if is_program(&entry.path()) {
            found.push(relative);
        }
    }
    Ok(())
}

/// Whether a folder belongs to a build system or is hidden.
pub(crate) fn is_ignored_folder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || IGNORED_FOLDERS.contains(&name.as_ref())
}

/// Whether a file can be started as a sample: executable, an ELF program or a script with `#!`, and not a library.
pub(crate) fn is_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains(".so.") || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return false;
    }
    let executable =
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    let mut start = [0; 4];
    executable
        && fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && (start == *b"\x7fELF" || start.starts_with(b"#!"))
}

/// Whether `text` matches a pattern of literal characters, `*` (any run) and `?` (any one character).
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Whether a sample's name, or the last part of it, matches one of the patterns.
pub(crate) fn matches(patterns: &[String], name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    patterns.iter().any(|pattern| glob(pattern, name) || glob(pattern, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, content: &[u8], mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        file(&at("vectorAdd"), b"\x7fELF....", 0o755);
        file(&at("0_Introduction/asyncAPI/asyncAPI"), b"#!/bin/sh\n", 0o755);
        file(&at("probe-static-13.0"), b"\x7fELF....", 0o755);
        file(&at("libhelper.so"), b"\x7fELF....", 0o755);
        file(&at("libcudart.so.13"), b"\x7fELF....", 0o755);
        file(&at("data.bin"), b"\x7fELF....", 0o644);
        file(&at("run.sh"), b"#!/bin/sh\n", 0o755);
        file(&at("notes"), b"text", 0o755);
        file(&at("CMakeFiles/3.25/a.out"), b"\x7fELF....", 0o755);
        file(&at(".build/tool"), b"\x7fELF....", 0o755);
        let found: Vec<_> =
            programs(dir.path()).unwrap().into_iter().map(|p| p.display().to_string()).collect();
        assert_eq!(found, ["0_Introduction/asyncAPI/asyncAPI", "probe-static-13.0", "vectorAdd"]);
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("vectorAdd", "vectorAdd", true),
            ("vector*", "vectorAdd", true),
            ("*Add", "vectorAdd", true),
            ("v*A*d", "vectorAdd", true),
            ("vector", "vectorAdd", false),
            ("*sort", "vectorAdd", false),
            ("vectorAd?", "vectorAdd", true),
            ("?", "", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-d", false),
            ("0_*/asyncAPI", "0_Introduction/asyncAPI", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} on {text}");
        }
        assert!(matches(&["async*".into()], "0_Introduction/asyncAPI/asyncAPI"));
        assert!(!matches(&[], "x"));
    }
}
