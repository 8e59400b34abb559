//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// Which ways each sample is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Only directly: on the host's driver, or on the library of --direct-preload.
    Direct,
    /// Only remoted: with the library of --remote-preload.
    Remote,
    /// Both, compared.
    Both,
}

/// Runs built CUDA programs directly and remoted and compares exit code, standard output and written files.
///
/// Exit code: 0 if nothing is worse than direct, 1 if something is, 2 if the runner could not work, 3 if --budget was
/// used up before all samples had run.
#[derive(Debug, Parser)]
#[command(name = "pxos-samples", version)]
pub(crate) struct Cli {
    /// Folder with built programs; executables in its subfolders count too.
    #[arg(required_unless_present_any = ["list_masks", "note_varying"])]
    pub(crate) folder: Option<PathBuf>,

    /// Which ways to run each sample.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) mode: Mode,

    /// Preload this library for direct runs (a software device's libcuda); without it the host's driver is used.
    #[arg(long, value_name = "LIB")]
    pub(crate) direct_preload: Option<PathBuf>,

    /// Preload this library for remoted runs (libpxshim.so).
    #[arg(long, value_name = "LIB")]
    pub(crate) remote_preload: Option<PathBuf>,

    /// Start this server on a private unix socket before the first sample and stop it after the last. Without it the
    /// samples inherit PXOS_SERVER.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) start_server: Option<PathBuf>,

    /// A further argument for the server; repeat for more. It gets `--listen unix:{socket} --control
    /// {dir}/control.sock` before these, unless one of them contains `{socket}`, the path of the private socket;
    /// `{dir}` is its folder.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_arg: Vec<String>,

    /// What PXOS_SERVER is set to when the runner started the server.
    #[arg(long, value_name = "ADDRESS", default_value = "unix:{socket}")]
    pub(crate) server_address: String,

    /// An environment variable for every run, NAME=VALUE; repeat for more.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,

    /// An environment variable for direct runs only.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) direct_env: Vec<String>,

    /// An environment variable for remoted runs only.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) remote_env: Vec<String>,

    /// Run only samples whose name (path below the folder, or its last part) matches; repeat for more. `*`, `?`.
    #[arg(long, value_name = "GLOB")]
    pub(crate) only: Vec<String>,

    /// Leave out samples whose name matches; repeat for more.
    #[arg(long, value_name = "GLOB")]
    pub(crate) skip: Vec<String>,

    /// Arguments, timeouts and masks per sample (TOML, or JSON if the name ends in .json).
    #[arg(long, value_name = "FILE")]
    pub(crate) args_file: Option<PathBuf>,

    /// Seconds after which a run is ended, unless the args file says otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    pub(crate) timeout: f64,

    /// Run each sample directly twice, to find those whose own output varies.
    #[arg(long)]
    pub(crate) repeat_native: bool,

    /// The list of samples whose output varies from one direct run to the next (TOML). A difference between direct
    /// and remoted is excused only for these, and for those that --repeat-native shows to vary.
    #[arg(long, value_name = "FILE")]
    pub(crate) varying: Option<PathBuf>,

    /// Run nothing: add to the list of --varying the samples whose two direct runs differed in this report.
    #[arg(long, value_name = "REPORT", requires = "varying")]
    pub(crate) note_varying: Option<PathBuf>,

    /// Take the direct runs from this report (--json of another run) instead of running them: what runs now is held
    /// against another machine's device. Samples that the report lacks are skipped.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["direct_preload", "direct_env", "repeat_native"])]
    pub(crate) against: Option<PathBuf>,

    /// Write FROM as TO in every output before it is compared, FROM=TO; repeat for more. For names of devices.
    #[arg(long, value_name = "FROM=TO")]
    pub(crate) rename: Vec<String>,

    /// Samples run at the same time; all runs of one sample happen one after the other, and those that the args file
    /// calls `alone` have the device to themselves. Times are only comparable with 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) jobs: usize,

    /// Run only the I-th of N parts of the samples: I/N, from 1/N to N/N.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,

    /// Start no sample when this many seconds are over.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) budget: Option<f64>,

    /// Write a report with everything that was seen; it is written after every sample.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Go on from the report of --json: its samples are not run again, and stay in it.
    #[arg(long, requires = "json")]
    pub(crate) resume: bool,

    /// Keep standard output and error of every run, and the server's log, in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,

    /// Only list the samples that would run.
    #[arg(long)]
    pub(crate) list: bool,

    /// Only show which differences in standard output are masked.
    #[arg(long)]
    pub(crate) list_masks: bool,
}

impl Cli {
    /// Whether direct runs are wanted.
    pub(crate) fn direct(&self) -> bool {
        self.mode != Mode::Remote && self.against.is_none()
    }

    /// Whether remoted runs are wanted.
    pub(crate) fn remote(&self) -> bool {
        self.mode != Mode::Direct
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from([
            "pxos-samples",
            "d",
            "--mode",
            "remote",
            "--server-arg",
            "--listen",
            "--server-arg",
            "x",
        ]);
        assert_eq!(cli.server_arg, ["--listen", "x"]);
        assert!(cli.remote() && !cli.direct());
        assert!(Cli::try_parse_from(["pxos-samples"]).is_err());
        assert!(Cli::try_parse_from(["pxos-samples", "--list-masks"]).is_ok());
        assert!(Cli::try_parse_from(["pxos-samples", "--note-varying", "r", "--varying", "v"]).is_ok());
        assert!(Cli::try_parse_from(["pxos-samples", "--note-varying", "r"]).is_err());
        assert!(Cli::try_parse_from(["pxos-samples", "d", "--resume"]).is_err());
    }
}
