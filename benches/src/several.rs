//! Figures that need more than one process, or a stop-watch outside the program.

use crate::Error;
use crate::figures::{Run, Unit};
use crate::process::{Running, processor_seconds, time};
use crate::program::{parse, parse_line};
use crate::server::Server;
use crate::ways::{Name, Way};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long idle processes are watched.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// What they are given to come to rest: the longest that anything here spins is far below.
const REST: Duration = Duration::from_secs(1);

/// Idle processes that are started together: as many workers start at once.
pub(crate) const BATCH: u32 = 4;

/// Runs of a trivial program for one value.
const LOADS: usize = 40;

fn microseconds(seconds: f64) -> f64 {
    seconds * 1e6
}

/// From exec to the first kernel's end, and to the program's own.
pub(crate) fn start(run: &mut Run, way: &Way, program: &Path) -> Result<(), Error> {
    let mut command = way.command(program);
    command.arg("start");
    let mut running = Running::start(command)?;
    let (line, seconds) = running.line()?;
    parse_line(program, &line)?;
    run.add("exec_first_kernel", Unit::Microseconds, way.name, microseconds(seconds));
    let (_, end) = running.finish()?;
    run.add("exec_exit", Unit::Microseconds, way.name, microseconds(end));
    Ok(())
}

/// A storm of launches.
pub(crate) fn storm(run: &mut Run, way: &Way, program: &Path, launches: u32) -> Result<(), Error> {
    let mut command = way.command(program);
    command.args(["storm", &launches.to_string()]);
    let (text, _) = Running::start(command)?.finish()?;
    for line in parse(program, &text)?.iter().filter(|line| line.name == "storm") {
        run.add("storm", Unit::Microseconds, way.name, line.value);
    }
    Ok(())
}

/// `count` processes that work at the same time, from the start of the first to the end of the last.
pub(crate) fn at_once(
    run: &mut Run,
    way: &Way,
    program: &Path,
    count: u32,
    rounds: u32,
) -> Result<(), Error> {
    let begun = Instant::now();
    let running: Vec<Running> = (0..count)
        .map(|_| {
            let mut command = way.command(program);
            command.args(["work", &rounds.to_string()]);
            Running::start(command)
        })
        .collect::<Result<_, _>>()?;
    for running in running {
        running.finish()?;
    }
    let value = microseconds(begun.elapsed().as_secs_f64());
    run.add(&format!("at_once_{count}"), Unit::Microseconds, way.name, value);
    Ok(())
}

/// What `count` processes cost that have a context and do nothing: theirs, the server's and the workers' time.
pub(crate) fn idle(
    run: &mut Run,
    way: &Way,
    program: &Path,
    count: u32,
    server: &Server,
) -> Result<(), Error> {
    let mut all = Vec::new();
    while all.len() < count as usize {
        let batch: Vec<Running> = (all.len()..count as usize)
            .take(BATCH as usize)
            .map(|_| {
                let mut command = way.command(program);
                command.arg("idle");
                Running::start(command)
            })
            .collect::<Result<_, _>>()?;
        for mut running in batch {
            running.line()?;
            all.push(running);
        }
    }
    let begun = Instant::now();
    while way.is_remote() && server.status()?.is_some_and(|status| status.pool.starting > 0) {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(Error::Server("workers are still being started after a minute".into()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(REST);
    let mut roots: Vec<u32> = all.iter().map(Running::pid).collect();
    roots.extend(server.pid().filter(|_| way.is_remote()));
    let (before, watched) = (processor_seconds(&roots)?, Instant::now());
    std::thread::sleep(IDLE_TIME);
    let used = (processor_seconds(&roots)? - before).max(0.0);
    let percent = 100.0 * used / watched.elapsed().as_secs_f64();
    run.add(&format!("idle_{count}"), Unit::Percent, way.name, percent);
    for running in all {
        running.finish()?;
    }
    Ok(())
}

/// What loading the library costs a program that never calls CUDA; natively nothing is loaded.
pub(crate) fn load(run: &mut Run, way: &Way) -> Result<(), Error> {
    let program = ["/bin/true", "/usr/bin/true"].map(Path::new).into_iter().find(|path| path.exists());
    let program =
        program.ok_or_else(|| Error::Usage("there is no /bin/true to load the library into".into()))?;
    let mut times = Vec::with_capacity(LOADS);
    for _ in 0..LOADS {
        let command = if way.name == Name::Native {
            let mut plain = Command::new(program);
            plain.env_remove("LD_PRELOAD").stdin(Stdio::null());
            plain
        } else {
            way.command(program)
        };
        times.push(time(command)?);
    }
    times.sort_by(f64::total_cmp);
    run.add("library_load_true", Unit::Microseconds, way.name, microseconds(times[LOADS / 2]));
    Ok(())
}
