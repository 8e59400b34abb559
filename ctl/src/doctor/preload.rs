//! `LD_PRELOAD`: the dynamic linker says little about an entry that it cannot use, so this does.

use super::{Context, Findings, library};
use std::path::Path;

/// A list that holds for every program of the machine.
const FOR_ALL: &str = "/etc/ld.so.preload";

/// Looks at the variable of this process, which is that of programs started from the same place.
pub(super) fn check(_: &Context, findings: &mut Findings) {
    let variable = std::env::var("LD_PRELOAD").unwrap_or_default();
    if entries(&variable).next().is_none() {
        let found = library::open(Path::new("libcuda.so.1"), false).ok().and_then(|opened| opened.path);
        findings.ok(match found.filter(|path| library::is_shim(path)) {
            Some(path) => format!("programs find the shim as libcuda.so.1 ({})", path.display()),
            None => match library::find("libpxshim.so") {
                Some(path) => format!("programs are started as LD_PRELOAD={} ./app", path.display()),
                None => "LD_PRELOAD is not set here".into(),
            },
        });
    }
    for entry in entries(&variable) {
        check_entry(entry, findings);
    }
    if std::fs::read_to_string(FOR_ALL).is_ok_and(|text| text.contains("pxshim")) {
        findings.warn(
            format!("{FOR_ALL} loads the shim into every program of this machine"),
            "take it out; LD_PRELOAD, or the shim as libcuda.so.1 in the library path, serves those that need it",
        );
    }
}

/// The linker takes spaces and colons as separators (ld.so(8)).
fn entries(variable: &str) -> impl Iterator<Item = &str> {
    variable.split([' ', ':']).filter(|entry| !entry.is_empty())
}

fn check_entry(entry: &str, findings: &mut Findings) {
    let path = Path::new(entry);
    if !entry.contains('/') {
        return findings
            .ok(format!("LD_PRELOAD names {entry}, which the linker looks up in its directories"));
    }
    match library::soname(path) {
        Err(error) => findings.fail(
            format!("LD_PRELOAD names {entry}: {error}; the linker goes on without it"),
            "name the libpxshim.so that is installed",
        ),
        Ok(_) if path.is_relative() => findings.warn(
            format!("LD_PRELOAD names {entry}, which depends on the directory that a program starts in"),
            "name it with its whole path",
        ),
        Ok(_) => findings.ok(format!("LD_PRELOAD names {entry}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn entries_are_apart_by_spaces_and_colons() {
        assert_eq!(entries(" a.so:/b.so  c.so:").collect::<Vec<_>>(), ["a.so", "/b.so", "c.so"]);
    }

    #[test]
    fn an_entry_that_is_not_there_fails() {
        let mut findings = Findings { check: "preload", list: Vec::new() };
        check_entry("/nonexistent/libpxshim.so", &mut findings);
        check_entry("libpxshim.so", &mut findings);
        assert_eq!(
            findings.list.iter().map(|finding| finding.level).collect::<Vec<_>>(),
            [Level::Fail, Level::Ok]
        );
    }
}
