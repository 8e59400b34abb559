//! Which libcuda the workers open: what `auto` and `soft` stand for on this machine.

use crate::config::DriverChoice;
use std::path::{Path, PathBuf};

/// The real driver's library, as the dynamic linker finds it.
const LIBCUDA: &str = "libcuda.so.1";
/// The libcuda whose device is this CPU.
const SOFTGPU: &str = "libpxsoft.so";

/// Something that may serve as libcuda.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// A path, or a name for the dynamic linker.
    pub(super) path: PathBuf,
    /// Whether taking it means that there is no GPU though one was hoped for.
    pub(super) is_fallback: bool,
}

/// What to try, in order (the first that a worker can initialise is taken), and why there is no more of it.
///
/// # Errors
/// Where there is nothing to try: one line.
pub(super) fn candidates(choice: &DriverChoice) -> Result<(Vec<Candidate>, Option<String>), String> {
    let places = places();
    let soft = || find(&places, SOFTGPU).ok_or_else(|| missing(&places));
    match choice {
        DriverChoice::Path(path) => Ok((vec![Candidate { path: path.clone(), is_fallback: false }], None)),
        DriverChoice::Soft => Ok((vec![Candidate { path: soft()?, is_fallback: false }], None)),
        DriverChoice::Auto => {
            let gpu = Candidate { path: LIBCUDA.into(), is_fallback: false };
            // Without softgpu the GPU's driver may still do.
            Ok(match soft() {
                Ok(path) => (vec![gpu, Candidate { path, is_fallback: true }], None),
                Err(missing) => (vec![gpu], Some(missing)),
            })
        }
    }
}

fn missing(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    format!("{SOFTGPU} is in none of {}", places.join(", "))
}

fn find(places: &[PathBuf], name: &str) -> Option<PathBuf> {
    places.iter().map(|place| place.join(name)).find(|path| path.is_file())
}

/// Where libraries of pxOS lie: beside the binary, in the lib directory of the same prefix, in the system's.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Ok(binary) = std::env::current_exe()
        && let Some(directory) = binary.parent()
    {
        places.push(directory.to_owned());
        if let Some(prefix) = directory.parent() {
            places.extend(["lib", "lib/pxos", "lib64", "lib64/pxos"].map(|lib| prefix.join(lib)));
        }
    }
    let system = [
        "/usr/local/lib/pxos",
        "/usr/lib/pxos",
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ];
    for place in system.map(Path::new) {
        if !places.iter().any(|other| other == place) {
            places.push(place.to_owned());
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_where_it_lies() {
        let directory = tempfile::tempdir().unwrap();
        let places = [directory.path().join("none"), directory.path().to_owned()];
        assert_eq!(find(&places, SOFTGPU), None);
        std::fs::write(directory.path().join(SOFTGPU), "").unwrap();
        assert_eq!(find(&places, SOFTGPU), Some(directory.path().join(SOFTGPU)));
        assert!(missing(&places).contains("none"));
    }

    #[test]
    fn a_named_driver_is_the_only_candidate() {
        let (candidates, missing) = candidates(&DriverChoice::Path("/opt/libcuda.so".into())).unwrap();
        assert_eq!(missing, None);
        assert_eq!(candidates, [Candidate { path: "/opt/libcuda.so".into(), is_fallback: false }]);
        assert!(places().len() > 5);
    }
}
