//! The list of samples whose output varies from one direct run to the next.
//!
//! ```toml
//! [sample]
//! asyncAPI = "line 5: `CPU executed 51733 iterations …`, then `CPU executed 51240 iterations …`"
//! ```
//!
//! A difference between direct and remoted is only excused for a sample that is listed, or whose two direct runs of
//! the same run of the runner (`--repeat-native`) differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::record::Report;

/// Most characters of a reason.
const REASON: usize = 200;

/// The list: a sample's path below the folder, or its last part, and what differed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Varying {
    #[serde(default)]
    sample: BTreeMap<String, String>,
    /// What stands in the file before the list.
    #[serde(skip)]
    heading: String,
}

impl Varying {
    /// Reads a list.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(path.display().to_string()))?;
        let list: Self = toml::from_str(&text).map_err(|error| Error::Settings {
            path: path.display().to_string(),
            message: error.to_string(),
        })?;
        let heading = text.lines().take_while(|line| !line.starts_with('['));
        Ok(Self { heading: heading.map(|line| format!("{line}\n")).collect(), ..list })
    }

    /// What varies in a sample, if it is listed.
    pub(crate) fn reason(&self, name: &str) -> Option<&str> {
        self.sample.get(name).or_else(|| self.sample.get(last(name))).map(String::as_str)
    }

    /// Adds the samples whose two direct runs differed in a report; says how many were new.
    pub(crate) fn add(&mut self, report: &Report) -> usize {
        let before = self.sample.len();
        for record in &report.samples {
            if let Some(difference) = &record.varies
                && self.reason(&record.name).is_none()
            {
                let reason = difference.chars().take(REASON).collect();
                self.sample.insert(last(&record.name).to_owned(), reason);
            }
        }
        self.sample.len() - before
    }

    /// Writes the list, in order of name, below its heading.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = format!("{}[sample]\n", self.heading);
        for (name, reason) in &self.sample {
            // A TOML string is quoted as JSON's is, as far as printable text goes.
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            writeln!(text, "{} = {}", quoted(name), quoted(reason)).expect("a String takes everything");
        }
        fs::write(path, text).map_err(Error::io(path.display().to_string()))
    }
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Mode;
    use crate::record::tests::records;

    #[test]
    fn what_two_direct_runs_show_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varying.toml");
        fs::write(&path, "# Why.\n\n[sample]\nb = \"known\"\n").unwrap();
        let mut list = Varying::read(&path).unwrap();
        let mut records = records();
        records[0].name = "folder/b".into();
        records[0].varies = Some("other".into());
        records[2].varies = Some("line 1: direct `\"\\\u{1}\t`, again `2`".into());
        assert_eq!(list.add(&Report::new(Mode::Both, records)), 1);
        list.write(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("# Why.\n\n[sample]\n\"b\" = \"known\"\n"));
        let list = Varying::read(&path).unwrap();
        assert_eq!(list.reason("x/b"), Some("known"));
        assert_eq!(list.reason("other"), Some("line 1: direct `\"\\\u{1}\t`, again `2`"));
        assert_eq!(list.reason("short"), None);
        fs::write(&path, "[samples]\n").unwrap();
        assert!(Varying::read(&path).is_err());
    }
}
