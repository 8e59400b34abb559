//! The built library and the page of docs/ against the table, and the table against what the real library exports.
//!
//! `PXOS_REGENERATE=1 cargo test -p pxos-nvml --test exports` writes `docs/nvml-support.md` again.

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};
    use pxnvml::table::{Class, ROWS, Row};
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    /// What libnvidia-ml.so.1 of driver 580 exports.
    const EXPORTS: &str = include_str!("exports-580.txt");

    /// The library that cargo built for this test.
    fn library() -> PathBuf {
        let test = std::env::current_exe().unwrap();
        let folders = test.ancestors().skip(1).take(2);
        let found = folders.map(|folder| folder.join("libpxnvml.so")).filter(|path| path.exists());
        let built = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap();
        found.max_by_key(built).expect("cargo builds the library before its tests")
    }

    #[test]
    fn every_export_of_the_real_library_has_a_row_and_is_exported() {
        let bytes = std::fs::read(library()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let exported: BTreeSet<&str> = file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition() && symbol.is_global())
            .filter_map(|symbol| symbol.name().ok())
            .collect();
        let wanted: BTreeSet<&str> = EXPORTS.lines().collect();
        let table: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(ROWS.len(), table.len(), "a function stands twice in the table");
        assert!(wanted.len() > 400);
        assert_eq!(wanted, table, "exports of the real library against the table");
        assert_eq!(table, exported, "the table against exports of the built library");
    }

    #[test]
    fn unsupported_rows_say_why() {
        for row in ROWS {
            assert_eq!(row.class == Class::Unsupported, !row.reason.is_empty(), "{}", row.name);
        }
    }

    /// The rows under the table's own headings.
    fn sections() -> Vec<(String, Vec<&'static Row>)> {
        let mut sections: Vec<(String, Vec<&'static Row>)> = Vec::new();
        for line in include_str!("../src/table.rs").lines().map(str::trim) {
            if let Some(title) = line.strip_prefix("// ---- ") {
                sections.push((title.trim_end_matches(['-', ' ']).to_owned(), Vec::new()));
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let class = words.next().unwrap_or_default();
            if !["local", "snapshot", "server", "unsupported"].contains(&class) {
                continue;
            }
            let name = words.next().unwrap_or_default().split('(').next().unwrap_or_default();
            if let Some(row) = ROWS.iter().find(|row| row.name == name) {
                sections.last_mut().expect("a heading comes first").1.push(row);
            }
        }
        let listed: usize = sections.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(listed, ROWS.len(), "a row stands under no heading, or not on a line of its own");
        sections
    }

    fn page() -> String {
        let count = |class: Class| ROWS.iter().filter(|row| row.class == class).count();
        let unsupported = count(Class::Unsupported);
        let mut page = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(page, "{text}").expect("a string takes all");
        line(format_args!("# NVML, function by function\n"));
        line(format_args!("<!-- Written from nvml/src/table.rs by the test exports; do not edit. -->\n"));
        line(format_args!(
            "libnvidia-ml.so.1 of driver 580 exports {} functions. The guest's exports every one. {} are answered,\n\
             {unsupported} are not: these answer `NVML_ERROR_NOT_SUPPORTED` (3) once NVML is initialised. What the answers mean\n\
             in a VM: [nvml.md](nvml.md).\n",
            ROWS.len(),
            ROWS.len() - unsupported,
        ));
        line(format_args!("| class | rows | who answers |\n|---|--:|---|"));
        line(format_args!("| local | {} | the library alone |", count(Class::Local)));
        line(format_args!(
            "| snapshot | {} | what the server said of the devices when NVML was initialised |",
            count(Class::Snapshot)
        ));
        line(format_args!(
            "| server | {} | the server, asked each time; sensors where `guest_sensors` lets guests see them |",
            count(Class::Server)
        ));
        line(format_args!("| — | {unsupported} | nobody, for the reason given |"));
        for (title, rows) in sections() {
            let answered = rows.iter().filter(|row| row.class != Class::Unsupported).count();
            line(format_args!("\n## {title}\n\n{answered} of {} answered.\n", rows.len()));
            line(format_args!("| function | class | |\n|---|---|---|"));
            for row in rows {
                let class = match row.class {
                    Class::Local => "local",
                    Class::Snapshot => "snapshot",
                    Class::Server => "server",
                    Class::Unsupported => "—",
                };
                line(format_args!("| `{}` | {class} | {} |", row.name, row.reason));
            }
        }
        page
    }

    #[test]
    fn the_support_page_is_the_tables() {
        let page = page();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nvml-support.md");
        if std::env::var_os("PXOS_REGENERATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        let differs = page.lines().zip(there.lines()).find(|(new, old)| new != old);
        assert!(
            page == there,
            "docs/nvml-support.md is stale (first difference: {differs:?}); write it again with `make docs`"
        );
    }
}
