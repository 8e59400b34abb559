//! Where the things under test lie: binaries and libraries in cargo's target folder, sample programs in `out/samples`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Which libcuda the server is told to use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Driver {
    /// What `PXOS_TEST_DRIVER` says, softgpu if it says nothing.
    #[default]
    UnderTest,
    /// softgpu, whatever the environment says.
    Soft,
    /// The GPU's driver where there is one, else softgpu.
    Auto,
    /// This one.
    Path(PathBuf),
}

impl Driver {
    /// What the server's `--driver` is.
    #[must_use]
    pub fn argument(&self) -> String {
        match self {
            Self::UnderTest => driver_under_test().argument(),
            Self::Soft => "soft".into(),
            Self::Auto => "auto".into(),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

/// What `PXOS_TEST_DRIVER` says: never [`Driver::UnderTest`].
#[must_use]
pub fn driver_under_test() -> Driver {
    match std::env::var("PXOS_TEST_DRIVER").unwrap_or_default().as_str() {
        "" | "soft" => Driver::Soft,
        "auto" => Driver::Auto,
        path => Driver::Path(path.into()),
    }
}

/// Whether scenarios run on a GPU: the driver under test is not softgpu, and a real libcuda can be opened.
#[must_use]
pub fn is_on_a_gpu() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match driver_under_test() {
        Driver::Auto => has_device(Path::new("libcuda.so.1")),
        Driver::Path(path) => path != library("libpxsoft.so") && has_device(&path),
        Driver::Soft | Driver::UnderTest => false,
    })
}

/// Whether a libcuda is there and initialises, tried in a process of its own.
fn has_device(library: &Path) -> bool {
    let tried =
        std::process::Command::new(probe()).arg("devices").arg(library).env_remove("LD_PRELOAD").output();
    tried.is_ok_and(|output| output.status.success())
}

/// Where the binaries under test lie.
fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("PXOS_BIN_DIR") {
        return PathBuf::from(directory);
    }
    // A test is TARGET/PROFILE/deps/name-hash; what it tests is TARGET/PROFILE/name.
    let own = std::env::current_exe().expect("a process knows its own path");
    let deps = own.parent().expect("a file lies in a folder");
    let profile =
        if deps.ends_with("deps") { deps.parent().expect("deps lies in a profile's folder") } else { deps };
    profile.to_owned()
}

fn existing(path: PathBuf, remedy: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: {remedy}", path.display());
    path
}

/// A library under test, such as `libpxshim.so`.
pub(crate) fn library(name: &str) -> PathBuf {
    existing(directory().join(name), "run `make build` (cargo build --workspace), or set PXOS_BIN_DIR")
}

/// A program under test, such as `pxos-server`.
pub(crate) fn binary(name: &str) -> PathBuf {
    library(name)
}

/// The guest program of this crate, which calls the driver API as it is told to; see `src/bin/probe`.
#[must_use]
pub fn probe() -> PathBuf {
    binary("pxos-probe")
}

/// A program or library under test.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    library(name)
}

/// The folder of the contract probes: one small program, linked with every CUDA runtime.
#[must_use]
pub fn contract_probes() -> PathBuf {
    existing(samples().join("contract"), "run `make contract`")
}

/// The folder of the sample programs.
#[must_use]
pub fn samples() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../out/samples");
    let folder = std::env::var_os("PXOS_SAMPLES_DIR").map_or_else(default, PathBuf::from);
    existing(folder, "run `make programs`, or set PXOS_SAMPLES_DIR")
        .canonicalize()
        .expect("an existing folder has a path")
}

/// A sample program: one of `tests/cuda-samples`, built by nvcc.
#[must_use]
pub fn sample(name: &str) -> PathBuf {
    existing(samples().join(name), "run `make programs`, or set PXOS_SAMPLES_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_what_the_server_is_told() {
        assert_eq!(Driver::Soft.argument(), "soft");
        assert_eq!(Driver::Auto.argument(), "auto");
        assert_eq!(Driver::Path("/opt/libcuda.so".into()).argument(), "/opt/libcuda.so");
        assert_ne!(driver_under_test(), Driver::UnderTest);
    }
}
