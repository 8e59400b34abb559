//! The documents against the sources: links lead somewhere, functions that ARCHITECTURE.md names exist, and so do the tests
//! that SPECIFICATION.md names, and the targets of the Makefile and the scripts that any page tells to run; and the other way
//! round, what an operator or a peer may meet is on the page where it is looked for.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// Files below a folder with this ending, build outputs left out.
    fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.')
                    && !["target", "out", "data", "__pycache__"].contains(&name.as_str())
                {
                    files(&path, ending, found);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }

    /// Text and target of every inline link.
    fn links(text: &str) -> Vec<(String, String)> {
        let mut links = Vec::new();
        for (at, _) in text.match_indices("](") {
            let before = &text[..at];
            let label = before.rfind('[').map_or("", |start| &before[start + 1..]);
            if let Some(end) = text[at + 2..].find(')') {
                links.push((label.to_owned(), text[at + 2..at + 2 + end].to_owned()));
            }
        }
        links
    }

    /// Every document with its text.
    fn documents() -> Vec<(PathBuf, String)> {
        let mut documents = Vec::new();
        files(&root(), ".md", &mut documents);
        assert!(documents.len() > 20);
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        };
        documents.into_iter().map(read).collect()
    }

    /// Whether a document has a heading of this anchor: its words in lower case, dashes between them.
    fn has_heading(text: &str, anchor: &str) -> bool {
        let of = |heading: &str| -> String {
            let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            words.chars().filter(|&c| c.is_alphanumeric() || c == '-' || c == '_').collect()
        };
        text.lines().any(|line| line.starts_with('#') && of(line) == anchor)
    }

    #[test]
    fn every_link_to_a_file_of_ours_leads_to_one() {
        let mut wrong = Vec::new();
        for (document, text) in &documents() {
            for (_, target) in links(text) {
                let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
                if target.contains("://") || file.contains(' ') {
                    continue;
                }
                let path = match file {
                    "" => document.clone(),
                    file => document.parent().unwrap().join(file),
                };
                let leads = path.exists()
                    && (anchor.is_empty() || has_heading(&fs::read_to_string(&path).unwrap(), anchor));
                if !leads {
                    wrong.push(format!("{}: {target}", document.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_target_and_script_that_a_document_names_exists() {
        let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
        let is_target = |name: &str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
        let (mut wrong, mut named) = (Vec::new(), 0);
        for (document, text) in &documents() {
            // In blocks of code and between backticks: a word that is told to run.
            let code = text
                .lines()
                .filter(|line| line.starts_with("    "))
                .chain(text.split('`').skip(1).step_by(2));
            for line in code {
                let told = line.split(" #").next().unwrap_or_default();
                let words: Vec<&str> = told.split([' ', '=', '(']).collect();
                let targets = words.windows(2).filter(|pair| pair[0] == "make" && !pair[1].starts_with('-'));
                let targets = targets.map(|pair| pair[1].trim_end_matches(|c: char| !c.is_alphanumeric()));
                for target in targets.filter(|name| !name.is_empty()) {
                    named += 1;
                    if !is_target(target) {
                        wrong.push(format!("{}: make {target}", document.display()));
                    }
                }
                let scripts = words.iter().filter(|word| {
                    word.ends_with(".sh") && (word.starts_with("tools/") || word.starts_with("tests/"))
                });
                for script in scripts {
                    named += 1;
                    if !root().join(script).exists() {
                        wrong.push(format!("{}: {script}", document.display()));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(named > 30, "{named}");
    }

    fn read(path: &str) -> String {
        fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What stands behind each `start` in a source, up to where the word ends.
    fn words_behind<'a>(source: &'a str, start: &str) -> Vec<&'a str> {
        let at = source.match_indices(start).map(|(at, found)| &source[at + found.len()..]);
        at.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
    }

    #[test]
    fn every_control_op_and_the_version_are_in_the_wire_format() {
        let (source, page) = (read("protocol/src/frame.rs"), read("docs/wire-format.md"));
        let ops = source.split_once("pub mod control {").unwrap().1;
        let names = words_behind(ops, "pub const ");
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let number = words_behind(ops, &format!("pub const {name}: u16 = "))[0];
            let has = |line: &str, wanted: &str| line.split([' ', '|', ',']).any(|word| word == wanted);
            let row = page.lines().find(|line| line.starts_with('|') && has(line, name));
            assert!(row.is_some_and(|row| has(row, number)), "{name} is {number}: {row:?}");
        }
        let version = words_behind(&source, "pub const VERSION: u32 = ")[0];
        assert!(page.contains(&format!(": version {version}.")), "the page is of version {version}");
        assert!(page.contains(&format!("\n| {version} | ")), "its history ends with version {version}");
    }

    #[test]
    fn every_field_of_the_control_socket_is_on_its_page() {
        let (source, page) = (read("protocol/src/admin.rs"), read("docs/control.md"));
        let fields = source.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'));
        let fields: Vec<&str> = fields.map(|(name, _)| name).collect();
        assert!(fields.len() > 80, "{fields:?}");
        let forms = |name: &str| [format!("`{name}`"), format!("`{name}[]`"), format!(".{name}`")];
        let on_page = |name: &&str| forms(name).iter().any(|form| page.contains(form));
        let missing: Vec<&str> = fields.into_iter().filter(|name| !on_page(name)).collect();
        assert!(missing.is_empty(), "not in docs/control.md: {missing:?}");
    }

    #[test]
    fn every_metric_and_every_variable_of_a_guest_is_on_its_page() {
        let (metrics, page) = (read("server/src/daemon/metrics.rs"), read("docs/operations.md"));
        let names = [words_behind(&metrics, "\"vm_"), words_behind(&metrics, "\"process_")].concat();
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            assert!(page.contains(&format!("_{name}")), "_{name} is not in docs/operations.md");
        }
        let guide = read("docs/guests.md");
        let (mut sources, mut variables) = (Vec::new(), 0);
        for name in ["shim", "guest", "nvml", "ctl"] {
            files(&root().join(name).join("src"), ".rs", &mut sources);
        }
        for path in sources {
            let source = fs::read_to_string(&path).unwrap();
            for name in words_behind(&source, "\"PXOS_") {
                variables += 1;
                // The operator's own are with the commands that they belong to.
                let known = ["CONTROL", "ADVISOR_KEY"].contains(&name);
                assert!(
                    known || guide.contains(&format!("`PXOS_{name}`")),
                    "PXOS_{name} of {}",
                    path.display()
                );
            }
        }
        assert!(variables > 15, "{variables}");
    }

    #[test]
    fn every_test_that_the_specification_names_exists() {
        let text = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
        let mut named = 0;
        for (label, file) in links(&text) {
            let Some(test) = label.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
                continue;
            };
            let source = fs::read_to_string(root().join(&file)).unwrap();
            assert!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
            named += 1;
        }
        assert!(named > 30, "{named}");
    }

    /// Whether `source` defines something of this name, a field included.
    fn defines(source: &str, name: &str) -> bool {
        let word = |start: &str| {
            let wanted = format!("{start}{name}");
            let found = source.match_indices(&wanted);
            found
                .map(|(at, whole)| source[at + whole.len()..].chars().next())
                .any(|next| next.is_none_or(|next| !next.is_alphanumeric() && next != '_'))
        };
        let field = source.contains(&format!(" {name}: "));
        field || ["fn ", "struct ", "enum ", "type ", "macro_rules! ", "mod "].iter().any(|start| word(start))
    }

    /// Whether a type (or trait) of the name `owner` has something of the name `name` in `source`.
    fn has_member(source: &str, owner: &str, name: &str) -> bool {
        let is_word =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == owner);
        if !source.contains(owner) {
            return false;
        }
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            let begins = ["impl", "struct ", "enum ", "trait "].iter().any(|start| line.contains(start));
            if begins && !line.starts_with(' ') && line.ends_with('{') && is_word(line) {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
                if defines(&block.join("\n"), name) {
                    return true;
                }
            }
        }
        false
    }

    /// Names with `::` in ARCHITECTURE.md: `shim::api::memory::cuMemAlloc_v2`, `Session::send`.
    fn paths(text: &str) -> Vec<Vec<String>> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        text.split(|c| !is_part(c))
            .filter(|word| word.contains("::"))
            .map(|word| {
                word.split("::").map(|part| part.replace(':', "")).filter(|part| !part.is_empty()).collect()
            })
            .collect()
    }

    #[test]
    fn every_function_that_the_architecture_names_exists() {
        let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
        let crates = ["protocol", "cudart", "guest", "shim", "nvml", "server", "softgpu", "primitives"];
        let mut sources = Vec::new();
        for name in crates {
            files(&root().join(name).join("src"), ".rs", &mut sources);
        }
        let mut all: Vec<(PathBuf, String)> = sources
            .into_iter()
            .map(|path| {
                let source = fs::read_to_string(&path).unwrap();
                (path, source)
            })
            .collect();
        // Entry points, driver methods and memsets are expanded from lists.
        let listed = |source: &str, name: &str| {
            source.contains(&format!("{name} ")) || source.contains(&format!("{name}("))
        };
        all.sort();
        let (mut missing, mut named) = (Vec::new(), 0);
        for path in paths(&text) {
            let last = path.last().expect("a name has parts");
            let in_crate = |file: &Path| {
                let whose = path.first().filter(|first| crates.contains(&first.as_str()));
                whose.is_none_or(|whose| file.starts_with(root().join(whose)))
            };
            let owner = path.len().checked_sub(2).map(|at| path[at].as_str());
            let owner = owner.filter(|name| name.starts_with(char::is_uppercase));
            let is_of_an_api = last.starts_with("cu") || last.starts_with("nvml");
            let found = all.iter().filter(|(file, _)| in_crate(file)).any(|(_, source)| match owner {
                Some(owner) if !is_of_an_api => has_member(source, owner, last),
                _ => defines(source, last) || (is_of_an_api && listed(source, last)),
            });
            // A crate's module is a file.
            let module = owner.is_none()
                && all.iter().any(|(file, _)| file.file_stem().is_some_and(|stem| stem == last.as_str()));
            if !found && !module {
                missing.push(path.join("::"));
            }
            named += 1;
        }
        assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:#?}");
        assert!(named > 80, "{named}");
    }
}
