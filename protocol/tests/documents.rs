//! The documents against the sources: links lead somewhere, functions that ARCHITECTURE.md names exist, and so do the tests
//! that SPECIFICATION.md names.

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

    #[test]
    fn every_link_to_a_file_of_ours_leads_to_one() {
        let mut documents = Vec::new();
        files(&root(), ".md", &mut documents);
        assert!(documents.len() > 20);
        let mut wrong = Vec::new();
        for document in &documents {
            let text = fs::read_to_string(document).unwrap();
            for (_, target) in links(&text) {
                let file = target.split('#').next().unwrap();
                let elsewhere = target.contains("://") || file.is_empty() || file.contains(' ');
                if !elsewhere && !document.parent().unwrap().join(file).exists() {
                    wrong.push(format!("{}: {target}", document.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
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
        let crates = ["protocol", "cudart", "guest", "shim", "nvml", "server", "softgpu"];
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
            let found = all.iter().filter(|(file, _)| in_crate(file)).any(|(_, source)| {
                defines(source, last)
                    || ((last.starts_with("cu") || last.starts_with("nvml")) && listed(source, last))
            });
            // A crate's module is a file.
            let module =
                all.iter().any(|(file, _)| file.file_stem().is_some_and(|stem| stem == last.as_str()));
            if !found && !module {
                missing.push(path.join("::"));
            }
            named += 1;
        }
        assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:#?}");
        assert!(named > 80, "{named}");
    }
}
