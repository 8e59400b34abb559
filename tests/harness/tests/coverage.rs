//! Every row of the table is called by a program of the tests, remoted: none is carried unseen, none crashes.
//!
//! `rows.toml` keeps, for each row, the programs that call it; docs/api-support.md shows them.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Server, Way, probe, sample, samples};
use pxos_protocol::api::{Class, ROWS};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Programs that take a size; a small one calls the same functions.
const ARGUMENTS: [(&str, &[&str]); 5] = [
    ("launchStorm", &["100"]),
    ("orderAcrossThreads", &["10"]),
    ("orderAcrossThreadsPTDS", &["10"]),
    ("multiThread", &["2", "3"]),
    ("multiThreadPTDS", &["2", "3"]),
];

/// The program that calls whatever it is told to; the rows that are not carried are called by it.
const PROBE: &str = "pxos-probe";

/// How many programs are kept for a row.
const KEPT: usize = 2;

fn list() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows.toml")
}

/// The rows that the shim's counters name, in what it wrote at the end of a program and of its children.
fn counted(stderr: &str) -> BTreeSet<&'static str> {
    let names = stderr.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (number, name, end) = (words.next()?, words.next()?, words.next());
        (end.is_none() && number.parse::<u64>().is_ok_and(|count| count > 0)).then_some(name)
    });
    let row = |name: &str| ROWS.iter().find(|row| row.name == name).map(|row| row.name);
    names.filter_map(row).collect()
}

fn called_by(server: &Server, program: &str) -> BTreeSet<&'static str> {
    let given = ARGUMENTS.iter().find(|(name, _)| *name == program).map_or(&[][..], |(_, given)| *given);
    let finished =
        server.program(sample(program), Way::SharedMemory).args(given).env("PXOS_COUNTERS", "1").run();
    // 2: the device cannot do what the program is about.
    assert!(matches!(finished.code(), Some(0 | 2)), "{program}: {finished}");
    counted(&finished.stderr)
}

fn programs() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(samples())
        .expect("the samples are built")
        .map(|entry| entry.expect("a readable folder"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    names
}

/// Which programs call each row.
fn measured(server: &Server) -> BTreeMap<&'static str, Vec<String>> {
    let mut callers: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for program in programs() {
        for row in called_by(server, &program) {
            callers.entry(row).or_default().push(program.clone());
        }
    }
    let uncarried: Vec<&str> =
        ROWS.iter().filter(|row| row.class == Class::Unsupported).map(|row| row.name).collect();
    let calls = uncarried.iter().flat_map(|name| ["call", name]);
    let finished = server.guest(probe()).arg("init").args(calls).env("PXOS_COUNTERS", "1").passes();
    for name in &uncarried {
        let line = format!("call {name} CUDA_ERROR_NOT_SUPPORTED");
        assert!(finished.stdout.contains(&line), "{name} is not refused: {finished}");
    }
    for row in counted(&finished.stderr).into_iter().filter(|row| uncarried.contains(row)) {
        callers.entry(row).or_default().push(PROBE.to_owned());
    }
    callers
}

#[test]
fn every_row_is_called_by_a_program() {
    let server = Fixture::new().start();
    let callers = measured(&server);
    let uncalled: Vec<&str> =
        ROWS.iter().map(|row| row.name).filter(|name| !callers.contains_key(name)).collect();
    assert!(uncalled.is_empty(), "{} rows are called by no program: {uncalled:#?}", uncalled.len());

    if std::env::var_os("PXOS_REGENERATE").is_some() {
        let mut text = String::from(
            "# Which programs call each row of the table: written by the test `coverage` where PXOS_REGENERATE is set.\n\n",
        );
        for row in ROWS {
            let names: Vec<String> =
                callers[row.name].iter().take(KEPT).map(|name| format!("\"{name}\"")).collect();
            text.push_str(&format!("{} = [{}]\n", row.name, names.join(", ")));
        }
        std::fs::write(list(), text).expect("the list can be written");
    }
    let text = std::fs::read_to_string(list()).expect("the list is kept beside this test");
    let kept: BTreeMap<String, Vec<String>> = toml::from_str(&text).expect("the list is TOML");
    for row in ROWS {
        let named = kept.get(row.name).unwrap_or_else(|| panic!("{} is not in rows.toml", row.name));
        let found = named.iter().any(|program| callers[row.name].contains(program));
        assert!(found, "{} is called by {:?}, not by {named:?}", row.name, callers[row.name]);
    }
    assert_eq!(kept.len(), ROWS.len(), "rows.toml names a row that there is not");
}
