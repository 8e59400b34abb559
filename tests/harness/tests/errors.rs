//! Wrong calls get the answers that a real GPU's driver gives: directly, and remoted each way.
//!
//! The program `errorTable` makes the calls; `errors-580.toml` keeps the answers.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Way, sample};
use std::collections::BTreeMap;
use std::path::Path;

/// What the driver of a real GPU answers.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The version of that driver, and where the answers come from.
    driver: String,
    source: String,
    /// The answer to each call: a `CUresult`, or "crash".
    codes: BTreeMap<String, toml::Value>,
    /// Why a call has no answer that could be compared.
    unspecified: BTreeMap<String, String>,
}

impl Expected {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors-580.toml");
        let text = std::fs::read_to_string(path).expect("the answers are kept beside this test");
        toml::from_str(&text).expect("the answers are TOML of the form above")
    }

    /// Lines of the program that say something else.
    fn differences(&self, output: &str) -> Vec<String> {
        let told: BTreeMap<&str, &str> = output.lines().filter_map(|line| line.split_once(": ")).collect();
        let mut found = Vec::new();
        for (call, code) in &self.codes {
            let want = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
            match told.get(call.as_str()) {
                Some(got) if *got == want => {}
                got => found.push(format!("{call}: {}, not {want}", got.unwrap_or(&"nothing"))),
            }
        }
        let known = |call: &str| self.codes.contains_key(call) || self.unspecified.contains_key(call);
        found.extend(told.keys().filter(|call| !known(call)).map(|call| format!("{call}: not in the table")));
        found
    }
}

fn every_answer_is_the_driver_s(way: Way) {
    let expected = Expected::load();
    assert!(expected.codes.len() >= 60, "only {} calls", expected.codes.len());
    let server = Fixture::new().start();
    let before = server.settled();
    let finished = server.program(sample("errorTable"), way).run();
    assert!(finished.status.success() && finished.stdout.ends_with("PASS\n"), "{finished}");
    let differences = expected.differences(&finished.stdout);
    let (driver, source) = (&expected.driver, &expected.source);
    assert!(differences.is_empty(), "not as driver {driver} ({source}): {differences:#?}");
    server.assert_settles_as(&before);
}

#[test]
fn wrong_calls_are_answered_as_natively_when_made_directly() {
    every_answer_is_the_driver_s(Way::Direct);
}

#[test]
fn wrong_calls_are_answered_as_natively_over_shared_memory() {
    every_answer_is_the_driver_s(Way::SharedMemory);
}

#[test]
fn wrong_calls_are_answered_as_natively_over_a_socket() {
    every_answer_is_the_driver_s(Way::Socket);
}
