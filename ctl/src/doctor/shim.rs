//! The shim: whether it is here, answers to the name by which programs look for the driver, and loads.

use super::{Context, Findings, Role, library};

/// The name by which programs and the CUDA runtime look for the driver.
const SONAME: &str = "libcuda.so.1";

/// Looks for libpxshim.so.
pub(super) fn check(context: &Context, findings: &mut Findings) {
    let Some(path) = library::find("libpxshim.so") else {
        let text = "libpxshim.so is neither beside pxctl nor in the library directories";
        return match context.role {
            Role::Guest => findings.fail(text, "install it, or name it by its whole path in LD_PRELOAD"),
            Role::Host => findings.ok(format!("{text}; only guests need it")),
        };
    };
    let place = path.display();
    match library::soname(&path) {
        Err(error) => return findings.fail(format!("{place}: {error}"), "install libpxshim.so again"),
        Ok(Some(name)) if name == SONAME => {}
        Ok(name) => {
            let name = name.unwrap_or_else(|| "nothing".into());
            findings.fail(
                format!(
                    "{place} calls itself {name}, not {SONAME}: programs would not take it for the driver"
                ),
                "build it with the workspace's own build script, or install it again",
            );
        }
    }
    match library::open(&path, false) {
        Ok(_) => findings.ok(format!("{place} loads, as {SONAME}")),
        Err(error) => findings.fail(
            format!("{place} does not load: {error}"),
            "a library or symbol that it names is missing: is this system older than the one it was built on?",
        ),
    }
}
