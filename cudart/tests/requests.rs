//! Every request that real CUDA runtimes make of `cuGetProcAddress` (recorded lists under `data/requests`, one
//! "name version flags" per line) gets the answer that driver 13.0 gives.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use pxos_cudart::procaddress::{DRIVER_VERSION, EXPORTS, Lookup, lookup};

    struct Request {
        name: String,
        version: i32,
        flags: u64,
    }

    fn requests(file: &Path) -> Vec<Request> {
        let text = fs::read_to_string(file).unwrap();
        text.lines()
            .map(|line| {
                let [name, version, flags] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let name = if name == "''" { String::new() } else { name.to_owned() };
                Request { name, version: version.parse().unwrap(), flags: flags.parse().unwrap() }
            })
            .collect()
    }

    fn recorded() -> Vec<(String, Vec<Request>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/requests");
        let mut lists: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), requests(&path))
            })
            .collect();
        lists.sort_by(|a, b| a.0.cmp(&b.0));
        lists
    }

    /// Misses of each list: the probe with an empty name, and one name that 12.0 asks for with a suffix.
    fn misses(requests: &[Request]) -> Vec<(&str, Lookup)> {
        requests
            .iter()
            .map(|request| (request, lookup(&request.name, request.version, request.flags)))
            .filter(|(_, found)| !matches!(found, Lookup::Found(_)))
            .map(|(request, found)| (request.name.as_str(), found))
            .collect()
    }

    #[test]
    fn every_runtime_up_to_13_0_finds_all_but_the_known_misses() {
        let mut lists = 0;
        for (file, requests) in recorded() {
            let known: &[(&str, Lookup)] = match file.as_str() {
                "shared_11.8.89.txt" => &[],
                "shared_12.0.146.txt" => &[("cuGraphInstantiateWithParams_ptsz", Lookup::NotFound)],
                "shared_12.4.127.txt"
                | "shared_12.8.90.txt"
                | "static_12.9.79.txt"
                | "static_13.0.96.txt" => &[("", Lookup::NotFound)],
                _ => continue,
            };
            assert!(requests.len() > 380, "{file} has {} requests", requests.len());
            assert_eq!(misses(&requests), known, "{file}");
            lists += 1;
        }
        assert_eq!(lists, 6);
    }

    #[test]
    fn newer_runtimes_are_refused_exactly_what_is_newer_than_the_driver() {
        let mut lists = 0;
        for (file, requests) in recorded() {
            if !["13.1", "13.2", "13.3", "13.4", "13.5"].iter().any(|version| file.contains(version)) {
                continue;
            }
            for request in &requests {
                let expected_invalid = request.version > DRIVER_VERSION;
                match lookup(&request.name, request.version, request.flags) {
                    Lookup::Found(symbol) => assert!(EXPORTS.contains(&symbol), "{symbol}"),
                    Lookup::Invalid => assert!(expected_invalid, "{file}: {}", request.name),
                    miss => assert!(request.name.is_empty(), "{file}: {} {miss:?}", request.name),
                }
            }
            lists += 1;
        }
        assert_eq!(lists, 5);
    }
}
