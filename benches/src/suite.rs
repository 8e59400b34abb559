//! The rounds: everything each way, in an order that turns round from one round to the next, so that a machine that gets
//! slower or warmer favours nobody.

use crate::cli::{Cli, Group};
use crate::figures::{Run, Unit};
use crate::process::Running;
use crate::server::Server;
use crate::ways::{Name, Way};
use crate::{Error, program, several};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::path::Path;

/// Rounds of work of one of several processes, before the divisor.
const WORK: u32 = 200;

/// Measures everything that the command line asks for.
pub(crate) fn run(cli: &Cli) -> Result<Run, Error> {
    let program = cli.program.as_deref().ok_or_else(|| Error::Usage("a program is needed".into()))?;
    let program = program.canonicalize().map_err(Error::io(program.display().to_string()))?;
    // As many warm workers as processes come at once: else the others would wait for theirs.
    let pool = match () {
        () if cli.wants(Group::Several) => cli.at_once.max(1),
        () if cli.wants(Group::Idle) => several::BATCH,
        () => 1,
    };
    let mut server = Server::start(cli, pool)?;
    server.settle(pool)?;
    let status = server.status()?;
    let software =
        status.as_ref().map_or_else(|| cli.direct_preload.is_some(), |status| status.driver.software);
    let device = status.and_then(|status| status.devices.into_iter().next()).map(|device| device.name);
    let mut run = Run {
        device: device.unwrap_or_else(|| "unknown device".into()),
        software,
        rounds: cli.rounds,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        figures: Vec::new(),
        failures: Vec::new(),
    };
    let mut ways = Way::all(cli, &server)?;
    let groups = [Group::Start, Group::Calls, Group::Storm, Group::Several, Group::Load];
    let groups: Vec<Group> = groups.into_iter().filter(|group| cli.wants(*group)).collect();
    let idle = cli.wants(Group::Idle);
    let steps = cli.rounds as usize * groups.len() * ways.len() + usize::from(idle);
    let bar = bar(steps);
    for _ in 0..cli.rounds {
        for group in &groups {
            for way in &ways {
                bar.set_message(format!("{group:?} {:?}", way.name));
                if way.is_remote() && *group != Group::Load {
                    server.settle(if *group == Group::Several { pool } else { 1 })?;
                }
                // What was measured stays of worth when something else cannot be.
                if let Err(error) = one(cli, &mut run, *group, way, &program) {
                    run.failures.push(format!("{group:?}, {:?}: {error}", way.name));
                }
                bar.inc(1);
            }
        }
        ways.reverse();
    }
    if idle {
        // Once: it is watched for seconds, and varies little. Only what guests are meant to use: what so many processes cost
        // natively is the driver's affair, and takes a GPU a minute to start.
        for way in ways.iter().filter(|way| way.name == Name::Remoted) {
            bar.set_message(format!("Idle {:?}", way.name));
            if let Err(error) = several::idle(&mut run, way, &program, cli.idle, &server) {
                run.failures.push(format!("Idle, {:?}: {error}\n{}", way.name, server.log_tail()));
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(run)
}

fn one(cli: &Cli, run: &mut Run, group: Group, way: &Way, program: &Path) -> Result<(), Error> {
    let shorter = |count: u32| (count / cli.divisor).max(1);
    match group {
        Group::Start => several::start(run, way, program),
        Group::Storm => several::storm(run, way, program, shorter(cli.storm)),
        Group::Several => several::at_once(run, way, program, cli.at_once, shorter(WORK)),
        Group::Load => several::load(run, way),
        Group::Calls => calls(cli, run, way, program),
        Group::Idle => Ok(()),
    }
}

/// The figures of one process.
fn calls(cli: &Cli, run: &mut Run, way: &Way, program: &Path) -> Result<(), Error> {
    let mut command = way.command(program);
    command.args(["all", &cli.largest.to_string(), &cli.divisor.to_string()]);
    let (text, _) = Running::start(command)?.finish()?;
    for line in program::parse(program, &text)? {
        run.add(&line.name, Unit::Microseconds, way.name, line.value);
    }
    Ok(())
}

fn bar(steps: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps as u64).with_style(style)
}
