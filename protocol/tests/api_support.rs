//! The table against what a libcuda must have: every export, every name that runtimes look up, every request that they
//! make; and the pages that are written from the sources: `docs/api-support.md` from the table, `docs/wire-calls.md` from
//! the worker's half of its hand-written rows.
//!
//! `PXOS_REGENERATE=1 cargo test -p pxos-protocol --test api_support` writes both again.

#[cfg(test)]
mod tests {
    use pxos_cudart::procaddress::{EXPORTS, Lookup, PER_THREAD_DEFAULT_STREAM, RAW_DLSYM, lookup, names};
    use pxos_protocol::api::{Class, ROWS, Row};
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    /// Every symbol of the table: rows and their twins.
    fn symbols() -> BTreeSet<&'static str> {
        ROWS.iter().flat_map(|row| [Some(row.name), row.twin]).flatten().collect()
    }

    /// Every CUDA version that a symbol may begin with.
    fn versions() -> impl Iterator<Item = i32> {
        (1000..=13000).step_by(10)
    }

    #[test]
    fn every_export_of_libcuda_has_a_row_and_no_row_is_invented() {
        let exports: BTreeSet<&str> = EXPORTS.iter().copied().collect();
        let symbols = symbols();
        let missing: Vec<_> = exports.difference(&symbols).collect();
        assert!(missing.is_empty(), "exported by libcuda 13.0, without a row: {missing:?}");
        let invented: Vec<_> = symbols.difference(&exports).collect();
        assert!(invented.is_empty(), "in the table, not exported by libcuda 13.0: {invented:?}");
        let count = ROWS.iter().map(|row| 1 + usize::from(row.twin.is_some())).sum::<usize>();
        assert_eq!(count, symbols.len(), "a symbol stands twice in the table");
    }

    #[test]
    fn every_name_that_old_runtimes_look_up_by_dlsym_has_a_row() {
        let symbols = symbols();
        let missing: Vec<_> = RAW_DLSYM.iter().filter(|name| !symbols.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// One "name version flags" line of a recorded list.
    fn request(line: &str) -> (String, i32, u64) {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, version, flags] = words[..] else { panic!("'{line}' is no request") };
        let name = if name == "''" { String::new() } else { name.to_owned() };
        (name, version.parse().unwrap(), flags.parse().unwrap())
    }

    #[test]
    fn every_request_of_a_runtime_leads_to_a_symbol_of_the_table_or_is_a_known_miss() {
        let symbols = symbols();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cudart/tests/data/requests");
        let (mut lists, mut found) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let (name, version, flags) = request(line);
                match lookup(&name, version, flags) {
                    Lookup::Found(symbol) => {
                        assert!(symbols.contains(symbol), "{}: {line} leads to {symbol}", path.display());
                        found += 1;
                    }
                    // Newer than driver 13.0, as the runtime learns there, too.
                    Lookup::Invalid => assert!(version > 13000, "{}: {line}", path.display()),
                    // A probe with an empty name, and one name that a runtime spells with a suffix.
                    Lookup::NotFound => {
                        let known = name.is_empty() || name == "cuGraphInstantiateWithParams_ptsz";
                        assert!(known, "{}: {line}", path.display());
                    }
                    Lookup::VersionNotSufficient => panic!("{}: {line}", path.display()),
                }
            }
            lists += 1;
        }
        assert!(lists >= 11 && found > 4000, "{lists} lists, {found} requests");
    }

    #[test]
    fn a_per_thread_symbol_is_the_twin_of_the_row_whose_body_it_runs() {
        for row in ROWS {
            let Some(twin) = row.twin else { continue };
            let suffixes = ["_ptsz", "_ptds"];
            assert!(
                suffixes.iter().any(|suffix| twin == format!("{}{suffix}", row.name)),
                "{twin} at {}",
                row.name
            );
        }
        let twins: BTreeMap<&str, &str> = ROWS.iter().filter_map(|row| Some((row.name, row.twin?))).collect();
        for name in names() {
            for version in versions() {
                let flags = PER_THREAD_DEFAULT_STREAM;
                let (Lookup::Found(legacy), Lookup::Found(own)) =
                    (lookup(name, version, 0), lookup(name, version, flags))
                else {
                    continue;
                };
                let twin = twins.get(legacy) == Some(&own);
                assert!(
                    legacy == own || twin,
                    "{own} stands for {legacy} from {version} on, but is not its twin"
                );
            }
        }
    }

    /// The CUDA version from which `cuGetProcAddress` hands out each symbol.
    fn since() -> BTreeMap<&'static str, i32> {
        let mut since = BTreeMap::new();
        for name in names() {
            for flags in [0, PER_THREAD_DEFAULT_STREAM] {
                for version in versions() {
                    if let Lookup::Found(symbol) = lookup(name, version, flags) {
                        since.entry(symbol).or_insert(version);
                    }
                }
            }
        }
        since
    }

    /// The rows under the table's own headings.
    fn sections() -> Vec<(String, Vec<&'static Row>)> {
        let source = include_str!("../src/api.rs");
        let mut sections: Vec<(String, Vec<&'static Row>)> = Vec::new();
        for line in source.lines().map(str::trim) {
            if let Some(title) = line.strip_prefix("// ---- ") {
                sections.push((title.trim_end_matches(['-', ' ']).to_owned(), Vec::new()));
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let class = words.next().unwrap_or_default();
            if !matches!(class, "local" | "custom" | "forward" | "async" | "unsupported") {
                continue;
            }
            let Some(Ok(number)) = words.next().map(str::parse::<u16>) else { continue };
            if let Some(row) = ROWS.iter().find(|row| row.number == number) {
                sections.last_mut().expect("a heading comes first").1.push(row);
            }
        }
        let listed: usize = sections.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(listed, ROWS.len(), "a row stands under no heading, or not on a line of its own");
        sections
    }

    fn answered_by(row: &Row) -> &'static str {
        match row.class {
            Class::Local => "guest",
            Class::Custom | Class::Forward | Class::Async => "host",
            Class::Unsupported => "—",
        }
    }

    /// The programs that call each row, as the scenario `coverage` has seen it.
    fn tests() -> BTreeMap<String, Vec<String>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/harness/tests/rows.toml");
        toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn page() -> String {
        let since = since();
        let tests = tests();
        let count = |class: Class| ROWS.iter().filter(|row| row.class == class).count();
        let unsupported = count(Class::Unsupported);
        let twins = ROWS.iter().filter(|row| row.twin.is_some()).count();
        let guest = count(Class::Local);
        let host = count(Class::Custom) + count(Class::Forward) + count(Class::Async);
        let mut page = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(page, "{text}").expect("a string takes all");
        line(format_args!("# The driver API, function by function\n"));
        line(format_args!(
            "<!-- Written from protocol/src/api.rs by the test api_support; do not edit. -->\n"
        ));
        line(format_args!(
            "libcuda of CUDA 13.0 exports {} driver functions: {} rows of the table, {twins} of them with a second symbol\n\
             for per-thread default streams. The shim exports every one. {} are carried, {unsupported} are not: these answer\n\
             `CUDA_ERROR_NOT_SUPPORTED` (801), are counted in `pxctl status`, and named in the shim's log with the reason\n\
             given here.\n",
            EXPORTS.len(),
            ROWS.len(),
            ROWS.len() - unsupported,
        ));
        line(format_args!("| answered by | rows | |\n|---|--:|---|"));
        line(format_args!("| guest | {guest} | the shim alone, from what it knows |"));
        line(format_args!(
            "| host | {host} | shim and server: the host's driver; what has no result is not waited for |"
        ));
        line(format_args!("| — | {unsupported} | nobody |"));
        line(format_args!(
            "\n*Number* is the wire's opcode. *Since* is the CUDA version from which `cuGetProcAddress` hands out the symbol.\n\
             A suffix in parentheses is the second symbol's. *Tests* are programs of tests/cuda-samples that call the function\n\
             in the test suite, two at most."
        ));
        for (title, rows) in sections() {
            let carried = rows.iter().filter(|row| row.class != Class::Unsupported).count();
            line(format_args!("\n## {title}\n\n{carried} of {} carried.\n", rows.len()));
            line(format_args!(
                "| number | function | since | answered by | tests | |\n|--:|---|--:|---|---|---|"
            ));
            for row in rows {
                let twin = row.twin.and_then(|twin| twin.strip_prefix(row.name)).unwrap_or_default();
                let twin = if twin.is_empty() { String::new() } else { format!(" (`{twin}`)") };
                let since = since.get(row.name);
                let since =
                    since.map_or_else(String::new, |since| format!("{}.{}", since / 1000, since % 1000 / 10));
                let (number, name, reason) = (row.number, row.name, row.reason);
                let tests = tests.get(name).map_or_else(String::new, |names| names.join(", "));
                line(format_args!(
                    "| {number} | `{name}`{twin} | {since} | {} | {tests} | {reason} |",
                    answered_by(row)
                ));
            }
        }
        page
    }

    /// What the worker says of the payload of each call that it takes: the comments of its functions.
    fn calls_page() -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src/worker/api");
        let entries = |folder: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        // A group is a file, or a folder of files.
        let group = |path: PathBuf| if path.is_dir() { entries(&path) } else { vec![path] };
        let mut files: Vec<PathBuf> = entries(&folder).into_iter().flat_map(group).collect();
        files.sort();
        let mut page = String::from(
            "# Payloads of hand-written calls\n\n\
             <!-- Written from server/src/worker/api/ by the test api_support; do not edit. -->\n\n\
             What each call that is not plain parameters carries, as the worker reads it: fields in this order, each padded to\n\
             eight bytes; handles are the guest's. See [wire-format.md](wire-format.md).\n",
        );
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let head: Vec<&str> =
                text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
            let (mut comment, mut calls) = (String::new(), Vec::new());
            for line in text.lines() {
                if let Some(more) = line.strip_prefix("/// ") {
                    comment = if comment.is_empty() { more.to_owned() } else { format!("{comment} {more}") };
                    continue;
                }
                // Attributes stand between a comment and its function.
                if line.starts_with("#[") || line.starts_with("    reason =") || line == ")]" {
                    continue;
                }
                let said = std::mem::take(&mut comment);
                let is_call = ["pub(in super::super) fn ", "pub(in crate::worker) fn "]
                    .iter()
                    .any(|start| line.starts_with(start));
                if is_call && line.contains("call: &mut Call") {
                    assert!(!said.is_empty(), "{}: a call without a comment: {line}", file.display());
                    calls.push(said.replace("[`", "`").replace("`]", "`"));
                }
            }
            if !calls.is_empty() {
                let name =
                    file.strip_prefix(&folder).unwrap().with_extension("").to_string_lossy().into_owned();
                let title = head.join(" ").replace("[`", "`").replace("`]", "`");
                writeln!(page, "\n## {name}\n\n{title}\n").expect("a string takes all");
                calls.iter().for_each(|call| writeln!(page, "- {call}").expect("a string takes all"));
            }
        }
        page
    }

    /// Fails where a page of docs/ is not what the sources say; writes it where that is asked for.
    fn check(name: &str, page: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("PXOS_REGENERATE").is_some() {
            std::fs::write(&path, page).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        let differs = page.lines().zip(there.lines()).find(|(new, old)| new != old);
        assert!(
            page == there,
            "docs/{name} is stale (first difference: {differs:?}); write it again with \
             PXOS_REGENERATE=1 cargo test -p pxos-protocol --test api_support"
        );
    }

    #[test]
    fn the_support_page_is_the_tables() {
        check("api-support.md", &page());
    }

    #[test]
    fn the_page_of_calls_is_the_workers() {
        check("wire-calls.md", &calls_page());
    }
}
