//! What the args file says about samples: arguments, timeouts, masks.
//!
//! ```toml
//! [default]                       # for every sample that does not say otherwise
//! timeout = 120.0                 # seconds
//! mask_lines = ["host:"]          # standard output lines that contain this are not compared
//!
//! [sample.launchStorm]            # a sample's path below the folder, or its last part
//! args = ["1000"]
//! [sample.multiThread]
//! runs = [["2", "5"], ["8", "50"]]  # several runs with different arguments
//! [sample.simpleAssert]
//! unordered = true                # lines may come in any order
//! [sample.uvmlite]
//! skip = "needs a file that is not there"
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::Error;

/// What can be said about one sample. Everything is optional; `[default]` has the same fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleSettings {
    /// Arguments of the one run.
    args: Option<Vec<String>>,
    /// Arguments of several runs; goes before `args`.
    runs: Option<Vec<Vec<String>>>,
    /// Seconds until a run is ended.
    timeout: Option<f64>,
    /// Exit codes that mean "waived" (NVIDIA's samples use 2).
    waive: Option<Vec<i32>>,
    /// Lines of standard output that contain one of these are not compared.
    mask_lines: Option<Vec<String>>,
    /// Numbers with a decimal point are not compared (tables of measurements without units).
    mask_decimals: Option<bool>,
    /// Lines of standard output may come in any order.
    unordered: Option<bool>,
    /// Written files whose name matches are not compared.
    ignore_files: Option<Vec<String>>,
    /// Environment variables.
    env: Option<BTreeMap<String, String>>,
    /// No other sample runs beside it: it fills the device, or prints what others change.
    alone: Option<bool>,
    /// Why the sample is not run.
    skip: Option<String>,
}

/// The args file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    default: SampleSettings,
    #[serde(default)]
    sample: BTreeMap<String, SampleSettings>,
}

/// One sample's settings with all defaults filled in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolved {
    /// One list of arguments per run, at least one.
    pub(crate) runs: Vec<Vec<String>>,
    /// Seconds until a run is ended.
    pub(crate) timeout: f64,
    /// Exit codes that mean "waived".
    pub(crate) waive: Vec<i32>,
    /// Lines of standard output that contain one of these are not compared.
    pub(crate) mask_lines: Vec<String>,
    /// Numbers with a decimal point are not compared.
    pub(crate) mask_decimals: bool,
    /// Lines may come in any order.
    pub(crate) unordered: bool,
    /// Written files that are not compared.
    pub(crate) ignore_files: Vec<String>,
    /// Environment variables.
    pub(crate) env: BTreeMap<String, String>,
    /// No other sample runs beside it.
    pub(crate) alone: bool,
    /// Why the sample is not run.
    pub(crate) skip: Option<String>,
    /// What varies in it from one direct run to the next, according to the list of `--varying`.
    pub(crate) varies: Option<String>,
}

/// Whether a timeout in seconds can be used; a year is more than anybody waits.
pub(crate) fn is_timeout(seconds: f64) -> bool {
    seconds > 0.0 && seconds <= 366.0 * 86400.0
}

impl Settings {
    /// Reads an args file; a name ending in `.json` is JSON, everything else TOML. Unknown keys are refused.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(path.display().to_string()))?;
        let parsed = if path.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        let settings: Self =
            parsed.map_err(|message| Error::Settings { path: path.display().to_string(), message })?;
        let named = settings.sample.iter().map(|(name, sample)| (format!("sample.{name}"), sample));
        for (name, sample) in named.chain([("default".to_owned(), &settings.default)]) {
            if let Some(timeout) = sample.timeout.filter(|&timeout| !is_timeout(timeout)) {
                return Err(Error::Settings {
                    path: path.display().to_string(),
                    message: format!("{name}: timeout {timeout} is not a number of seconds above zero"),
                });
            }
        }
        Ok(settings)
    }

    /// The settings of one sample: its own, else those of `[default]`, else `timeout` and nothing.
    /// Lists of masks and the environment add up; everything else replaces.
    pub(crate) fn resolve(&self, name: &str, timeout: f64) -> Resolved {
        let last = name.rsplit('/').next().unwrap_or(name);
        let none = SampleSettings::default();
        let own = self.sample.get(name).or_else(|| self.sample.get(last)).unwrap_or(&none);
        let base = &self.default;
        let joined = |a: &Option<Vec<String>>, b: &Option<Vec<String>>| {
            a.iter().chain(b.iter()).flatten().cloned().collect::<Vec<_>>()
        };
        let runs = match (&own.runs, own.args.as_ref().or(base.args.as_ref())) {
            (Some(runs), _) if !runs.is_empty() => runs.clone(),
            (_, Some(args)) => vec![args.clone()],
            (_, None) => vec![Vec::new()],
        };
        let mut env = base.env.clone().unwrap_or_default();
        env.extend(own.env.clone().unwrap_or_default());
        Resolved {
            runs,
            timeout: own.timeout.or(base.timeout).unwrap_or(timeout),
            waive: own.waive.clone().or_else(|| base.waive.clone()).unwrap_or_else(|| vec![2]),
            mask_lines: joined(&base.mask_lines, &own.mask_lines),
            mask_decimals: own.mask_decimals.or(base.mask_decimals).unwrap_or(false),
            unordered: own.unordered.or(base.unordered).unwrap_or(false),
            ignore_files: joined(&base.ignore_files, &own.ignore_files),
            env,
            alone: own.alone.or(base.alone).unwrap_or(false),
            varies: None,
            skip: own.skip.clone().or_else(|| base.skip.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Settings, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = read(
            "a.toml",
            "[default]\ntimeout = 9.0\nmask_lines = ['host:']\n[sample.storm]\nargs = ['5']\nmask_lines = ['x']\nenv = { A = '1' }\n\
             [sample.'dir/two']\nruns = [['1'], ['2', '3']]\ntimeout = 1.5\nwaive = [3]\nunordered = true\nskip = 'why'\n",
        )
        .unwrap();
        let json = read(
            "a.json",
            r#"{"default": {"timeout": 9.0, "mask_lines": ["host:"]},
                "sample": {"storm": {"args": ["5"], "mask_lines": ["x"], "env": {"A": "1"}},
                           "dir/two": {"runs": [["1"], ["2", "3"]], "timeout": 1.5, "waive": [3], "unordered": true, "skip": "why"}}}"#,
        )
        .unwrap();
        for settings in [toml, json] {
            let storm = settings.resolve("somewhere/storm", 120.0);
            assert_eq!(storm.runs, [["5"]]);
            assert_eq!((storm.timeout, storm.waive.as_slice(), storm.unordered), (9.0, &[2][..], false));
            assert_eq!(storm.mask_lines, ["host:", "x"]);
            assert_eq!(storm.env["A"], "1");
            let two = settings.resolve("dir/two", 120.0);
            assert_eq!(two.runs, [vec!["1"], vec!["2", "3"]]);
            assert_eq!((two.timeout, two.waive.as_slice(), two.unordered), (1.5, &[3][..], true));
            assert_eq!(two.skip.as_deref(), Some("why"));
            let other = settings.resolve("other", 120.0);
            assert_eq!((other.runs.len(), other.runs[0].len(), other.timeout), (1, 0, 9.0));
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            read("a.toml", "[sample.x]\narguments = []\n").unwrap_err().to_string().contains("arguments")
        );
        assert!(read("a.toml", "[sample.x]\ntimeout = -1.0\n").unwrap_err().to_string().contains("sample.x"));
        assert!(read("a.json", "{").is_err());
    }
}
