//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Runs a CUDA program natively and remoted in turns, and shows medians and ratios.
///
/// Exit code: 0 if everything was measured, 1 if --check finds a miss, 2 if something could not be run.
#[derive(Debug, Parser)]
#[command(
    name = "pxos-bench",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// Another measurement.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The benchmark program (out/benches/pxbench).
    #[arg(required_unless_present = "targets")]
    pub(crate) program: Option<PathBuf>,

    /// Preload this library for native runs (a software device's libcuda); without it the host's driver is used.
    #[arg(long, value_name = "LIB")]
    pub(crate) direct_preload: Option<PathBuf>,

    /// Preload this library for remoted runs (libpxshim.so).
    #[arg(long, value_name = "LIB", required_unless_present = "targets")]
    pub(crate) remote_preload: Option<PathBuf>,

    /// Start this server on a private unix socket. Without it the program inherits PXOS_SERVER.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) start_server: Option<PathBuf>,

    /// A further argument for that server; repeat for more.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_arg: Vec<String>,

    /// The control socket of a server that runs already: workers are waited for where they must be warm.
    #[arg(long, value_name = "PATH", conflicts_with = "start_server")]
    pub(crate) control: Option<PathBuf>,

    /// Also run without shared memory, over the socket alone.
    #[arg(long)]
    pub(crate) socket_only: bool,

    /// How often everything is run, each way.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Largest copy in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) largest: u32,

    /// Make the loops shorter by this factor: for a software device.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) divisor: u32,

    /// Launches of the storm, before the divisor.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) storm: u32,

    /// Processes that work at the same time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) at_once: u32,

    /// Processes that are connected and idle.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) idle: u32,

    /// Leave out figures of this group; repeat for more.
    #[arg(long, value_enum, value_name = "GROUP")]
    pub(crate) skip: Vec<Group>,

    /// Run only figures of this group; repeat for more.
    #[arg(long, value_enum, value_name = "GROUP")]
    pub(crate) only: Vec<Group>,

    /// Write everything that was measured.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Compare with an earlier --json file: a ratio that has grown beyond the tolerance is marked.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// How much a ratio may grow over its baseline; 0.5 is by half.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    pub(crate) tolerance: f64,

    /// End with 1 if a target is missed, or a baseline left behind.
    #[arg(long)]
    pub(crate) check: bool,

    /// Only show the targets and their reasons.
    #[arg(long)]
    pub(crate) targets: bool,
}

/// Other measurements than that of one program's calls.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Measures how guests share a device: shares, caps, latency, hand-over, and what scheduling costs.
    Fairness(crate::fairness::Asked),
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Figures that one process prints: launches, copies, memory, events.
    Calls,
    /// From exec to the first kernel.
    Start,
    /// A storm of empty launches.
    Storm,
    /// Several processes at once.
    Several,
    /// What connected processes cost that do nothing.
    Idle,
    /// What loading the library costs a program that never calls CUDA.
    Load,
}

impl Cli {
    /// Whether figures of `group` are wanted.
    pub(crate) fn wants(&self, group: Group) -> bool {
        (self.only.is_empty() || self.only.contains(&group)) && !self.skip.contains(&group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["pxos-bench"]).is_err());
        assert!(Cli::try_parse_from(["pxos-bench", "--targets"]).is_ok());
        let common = ["pxos-bench", "p", "--remote-preload", "l"];
        let cli = Cli::try_parse_from(common.iter().chain(&["--only", "start", "--only", "idle"])).unwrap();
        assert!(cli.wants(Group::Start) && cli.wants(Group::Idle) && !cli.wants(Group::Calls));
        let cli = Cli::try_parse_from(common.iter().chain(&["--skip", "idle"])).unwrap();
        assert!(cli.wants(Group::Calls) && !cli.wants(Group::Idle));
        assert!(Cli::try_parse_from(common.iter().chain(&["--rounds", "0"])).is_err());
    }
}
