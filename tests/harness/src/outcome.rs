//! A scenario that cannot run says so, loudly and where it is found afterwards.

use std::io::Write;

/// Says that the scenario which calls this is skipped, and why: on standard error, and as a line of the file that `PXOS_SKIPS`
/// names, which `make test` shows at its end. The scenario returns after it.
pub fn skipped(reason: &str) {
    let scenario = std::thread::current().name().unwrap_or("a scenario").to_owned();
    eprintln!("SKIPPED {scenario}: {reason}");
    if let Some(path) = std::env::var_os("PXOS_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        writeln!(file, "SKIPPED {scenario}: {reason}").expect("a line of a log can be written");
    }
}
