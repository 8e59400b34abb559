//! What is kept of the samples that were run: the records of a report, and the report's file.
//!
//! A report is written anew after every sample, so that a run that is cut short leaves what it has seen; `--resume`
//! goes on from it, `--against` takes its direct runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cli::Mode;
use crate::compare::Verdict;
use crate::run::{End, Outcome};
use crate::scratch::Written;

/// Of an output stream at most this many bytes are kept in a report.
const TEXT: usize = 64 << 10;

/// What came of one sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Path below the folder.
    pub(crate) name: String,
    /// Arguments.
    pub(crate) args: Vec<String>,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// Whether the verdict makes the runner's exit code 1.
    pub(crate) worse: bool,
    /// Why, in one line.
    pub(crate) detail: Option<String>,
    /// The first difference between two direct runs, if they differed.
    #[serde(default)]
    pub(crate) varies: Option<String>,
    /// Wall time remoted over direct, if both are there.
    pub(crate) ratio: Option<f64>,
    /// The first direct run.
    pub(crate) direct: Option<RunRecord>,
    /// The remoted run.
    pub(crate) remote: Option<RunRecord>,
}

impl Record {
    /// Name and arguments.
    pub(crate) fn title(&self) -> String {
        title(&self.name, &self.args)
    }
}

/// Name and arguments as one text.
pub(crate) fn title(name: &str, args: &[String]) -> String {
    std::iter::once(name).chain(args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// One run of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// How it ended.
    pub(crate) end: End,
    /// Seconds from start to end.
    pub(crate) wall_s: f64,
    /// Standard output, or its beginning.
    pub(crate) stdout: String,
    /// Whether standard output was longer than what is kept of it.
    #[serde(default)]
    pub(crate) cut: bool,
    /// Standard error, or its beginning.
    pub(crate) stderr: String,
    /// The folder that it ran in.
    #[serde(default)]
    pub(crate) scratch: String,
    /// Files it wrote, by path below its folder.
    pub(crate) written: BTreeMap<String, Written>,
}

impl RunRecord {
    /// What is kept of a run.
    pub(crate) fn new(run: &Outcome) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT)]).into_owned();
        Self {
            end: run.end.clone(),
            wall_s: run.wall,
            stdout: text(&run.stdout),
            cut: run.cut || run.stdout.len() > TEXT,
            stderr: text(&run.stderr),
            scratch: run.scratch.clone(),
            written: run.written.clone(),
        }
    }

    /// The run again, as far as it was kept.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            end: self.end.clone(),
            wall: self.wall_s,
            stdout: self.stdout.clone().into_bytes(),
            cut: self.cut,
            stderr: self.stderr.clone().into_bytes(),
            written: self.written.clone(),
            scratch: self.scratch.clone(),
        }
    }
}

/// A report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    version: u32,
    mode: Mode,
    worse: usize,
    totals: BTreeMap<String, usize>,
    mean_ratio: Option<f64>,
    /// The samples, in order of name.
    pub(crate) samples: Vec<Record>,
}

impl Report {
    /// A report of these records.
    pub(crate) fn new(mode: Mode, samples: Vec<Record>) -> Self {
        let worse = samples.iter().filter(|record| record.worse).count();
        let (totals, mean_ratio) = (totals(&samples), mean_ratio(&samples));
        Self { version: 1, mode, worse, totals, mean_ratio, samples }
    }

    /// Reads a report.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(path.display().to_string()))?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Settings { path: path.display().to_string(), message: error.to_string() })
    }

    /// Writes the report beside `path` and puts it in its place, so that there is a whole one at any time.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text =
            serde_json::to_string_pretty(self).expect("the report has string keys and finite numbers");
        text.push('\n');
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        fs::write(&new, text).map_err(Error::io(new.display().to_string()))?;
        fs::rename(&new, path).map_err(Error::io(path.display().to_string()))
    }

    /// The record of a sample.
    pub(crate) fn find(&self, name: &str, args: &[String]) -> Option<&Record> {
        self.samples.iter().find(|record| record.name == name && record.args == args)
    }
}

/// How often each verdict came.
pub(crate) fn totals(records: &[Record]) -> BTreeMap<String, usize> {
    let mut totals = BTreeMap::new();
    for record in records {
        *totals.entry(record.verdict.short().to_owned()).or_insert(0) += 1;
    }
    totals
}

/// The geometric mean of the ratios of samples that succeeded both ways.
pub(crate) fn mean_ratio(records: &[Record]) -> Option<f64> {
    let succeeded = |run: &Option<RunRecord>| run.as_ref().is_some_and(|run| run.end.is_success());
    let (mut sum, mut count) = (0.0, 0.0);
    for ratio in records
        .iter()
        .filter(|record| succeeded(&record.direct) && succeeded(&record.remote))
        .filter_map(|record| record.ratio)
    {
        sum += ratio.ln();
        count += 1.0;
    }
    (count > 0.0).then(|| (sum / count).exp())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn run(end: End, wall_s: f64) -> RunRecord {
        RunRecord {
            end,
            wall_s,
            stdout: "last words\n".into(),
            cut: false,
            stderr: String::new(),
            scratch: String::new(),
            written: BTreeMap::new(),
        }
    }

    /// Three records: the same, worse, failing both ways.
    pub(crate) fn records() -> Vec<Record> {
        let record = |name: &str, direct: End, remote: End, verdict: Verdict| Record {
            name: name.into(),
            args: vec![],
            verdict,
            worse: verdict.is_worse(),
            detail: Some("a reason that is long ".repeat(30)),
            varies: None,
            ratio: Some(2.0),
            direct: Some(run(direct, 0.5)),
            remote: Some(run(remote, 1.0)),
        };
        vec![
            record("short", End::Exit(0), End::Exit(0), Verdict::Same),
            record(
                "a_very_long_folder_name/and_a_long_sample_name --with arguments",
                End::Exit(0),
                End::Signal(11),
                Verdict::WorseExit,
            ),
            record("other", End::TimedOut, End::TimedOut, Verdict::FailsBoth),
        ]
    }

    #[test]
    fn a_report_says_everything_and_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        Report::new(Mode::Both, records()).write(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["worse"], 1);
        assert_eq!(value["samples"][0]["verdict"], "same");
        assert_eq!(value["samples"][0]["ratio"], 2.0);
        assert_eq!(value["samples"][1]["remote"]["end"]["signal"], 11);
        assert_eq!(value["samples"][2]["direct"]["end"], "timed_out");
        assert_eq!(value["samples"][0]["direct"]["stdout"], "last words\n");
        let back = Report::read(&path).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), value);
        assert_eq!(back.find("other", &[]).unwrap().verdict, Verdict::FailsBoth);
        assert!(back.find("other", &["x".into()]).is_none());
    }

    #[test]
    fn a_long_output_is_cut_and_said_to_be() {
        let outcome = |stdout: Vec<u8>| Outcome { stdout, ..run(End::Exit(0), 1.0).outcome() };
        assert!(!RunRecord::new(&outcome(vec![b'x'; TEXT])).cut);
        let record = RunRecord::new(&outcome(vec![b'x'; TEXT + 1]));
        assert!(record.cut && record.outcome().cut && record.stdout.len() == TEXT);
    }
}
