//! The doctor: looks at everything that has to be right for CUDA to work in a guest, on the host or in the guest, and
//! says what is wrong and what to do. A module for each check; [`CHECKS`] is their order.

mod driver;
pub(crate) mod library;
mod machine;
mod operator;
mod preload;
pub(crate) mod program;
mod server;
mod settings;
mod shim;

use crate::units::wrap;
use pxos_protocol::endpoint::Endpoint;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as one would wish, or not for everybody.
    Warn,
    /// CUDA does not work because of it.
    Fail,
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check's name.
    pub(crate) check: &'static str,
    /// How good it is.
    pub(crate) level: Level,
    /// What it is.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

/// What all checks know.
#[derive(Debug)]
pub(crate) struct Context {
    /// Which side this is.
    pub(crate) role: Role,
    /// The server's control socket.
    pub(crate) control: PathBuf,
    /// Where the shim would look for the server.
    pub(crate) settings: settings::Settings,
}

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Where pxos-server runs or should run.
    Host,
    /// Where programs use it.
    Guest,
}

/// Collects findings of one check.
#[derive(Debug)]
pub(crate) struct Findings {
    check: &'static str,
    list: Vec<Finding>,
}

impl Findings {
    /// All is well with this.
    pub(crate) fn ok(&mut self, text: impl Into<String>) {
        self.push(Level::Ok, text.into(), None);
    }

    /// This could be better.
    pub(crate) fn warn(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.push(Level::Warn, text.into(), Some(remedy.into()));
    }

    /// This has to change.
    pub(crate) fn fail(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.push(Level::Fail, text.into(), Some(remedy.into()));
    }

    fn push(&mut self, level: Level, text: String, remedy: Option<String>) {
        self.list.push(Finding { check: self.check, level, text, remedy });
    }
}

type Check = fn(&Context, &mut Findings);

/// Every check, in the order in which a call of a program passes what they look at.
const CHECKS: &[(&str, Check)] = &[
    ("machine", machine::check),
    ("settings", settings::check),
    ("preload", preload::check),
    ("shim", shim::check),
    ("server", server::check),
    ("operator", operator::check),
    ("driver", driver::check),
    (PROGRAM, program::check),
];

/// The check that needs all others to be right.
const PROGRAM: &str = "program";

/// Runs all checks and tells what they found; fails where one of them failed.
#[expect(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) fn run(control: &Path, server: Option<Endpoint>, json: bool) -> ExitCode {
    let settings = settings::Settings::load(server);
    let context = Context { role: role(control), control: control.to_owned(), settings };
    let mut all = Vec::new();
    for (name, check) in CHECKS {
        let mut findings = Findings { check: name, list: Vec::new() };
        if *name == PROGRAM && all.iter().any(|finding: &Finding| finding.level == Level::Fail) {
            continue;
        }
        check(&context, &mut findings);
        if !json {
            // As they come: a check may take seconds.
            print!("{}", findings.list.iter().map(render).collect::<String>());
        }
        all.extend(findings.list);
    }
    let failed = all.iter().any(|finding| finding.level == Level::Fail);
    if json {
        let report = serde_json::json!({ "role": context.role, "ok": !failed, "findings": all });
        println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
    } else {
        println!("{}", summary(&all));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A host has a server, or the files of one.
fn role(control: &Path) -> Role {
    let server = library::beside(&["."], "pxos-server").is_some()
        || Path::new("/usr/bin/pxos-server").exists()
        || Path::new("/usr/local/bin/pxos-server").exists();
    let is_host = control.exists() || server || Path::new(pxos_protocol::admin::DEFAULT_CONFIG).exists();
    if is_host { Role::Host } else { Role::Guest }
}

fn render(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let mut out = String::new();
    let mut label = format!("{level:<5} {:<9}", finding.check);
    for line in wrap(&finding.text, 64) {
        out.push_str(&format!("{label} {line}\n"));
        label = " ".repeat(15);
    }
    let mut arrow = "->";
    for line in finding.remedy.iter().flat_map(|remedy| wrap(remedy, 61)) {
        out.push_str(&format!("{label} {arrow} {line}\n"));
        arrow = "  ";
    }
    out
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("it works, with {warnings} to look at"),
        (failures, warnings) => format!("{failures} wrong, {warnings} to look at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_fits_a_terminal_with_its_remedy() {
        let mut findings = Findings { check: "operator", list: Vec::new() };
        findings.ok("short");
        findings.fail("a long story ".repeat(12), "do this and that ".repeat(9));
        let text: String = findings.list.iter().map(render).collect();
        assert!(text.starts_with("ok    operator  short\nFAIL  operator  a long story"), "{text}");
        assert!(text.contains("-> do this and that"));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(summary(&findings.list), "1 wrong, 0 to look at");
        assert_eq!(summary(&findings.list[..1]), "all is well");
    }
}
