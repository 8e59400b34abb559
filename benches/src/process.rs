//! Processes: one that is run to its end, one that is watched while it runs, and what a family of them costs.

use crate::Error;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// After this long a program hangs: nothing here takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(600);

/// A program that runs, killed with its group when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: PathBuf,
    begun: Instant,
    child: Child,
    output: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
    errors: tempfile::NamedTempFile,
}

impl Running {
    /// Starts it, with pipes at its standard input and output.
    pub(crate) fn start(mut command: Command) -> Result<Self, Error> {
        let name = PathBuf::from(command.get_program());
        let failed = || Error::io(format!("running {}", name.display()));
        let errors = tempfile::NamedTempFile::new().map_err(failed())?;
        let sink = errors.reopen().map_err(failed())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(sink).process_group(0);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(failed())?;
        let output = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let input = child.stdin.take();
        Ok(Self { name, begun, child, output, input, errors })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its next line; seconds since it was started.
    pub(crate) fn line(&mut self) -> Result<(String, f64), Error> {
        let mut line = String::new();
        let read = self
            .output
            .read_line(&mut line)
            .map_err(Error::io(format!("reading {}", self.name.display())))?;
        let seconds = self.begun.elapsed().as_secs_f64();
        if read == 0 {
            return Err(self.complaint("it ended where a line was expected"));
        }
        Ok((line.trim_end().to_owned(), seconds))
    }

    /// Writes a line to its standard input.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        let Some(input) = &mut self.input else { return Ok(()) };
        input.write_all(b"\n").map_err(Error::io(format!("writing to {}", self.name.display())))
    }

    /// Closes its standard input, waits for its end: what it printed since the last line, and seconds since it was started.
    pub(crate) fn finish(mut self) -> Result<(String, f64), Error> {
        drop(self.input.take());
        let failed = || Error::io(format!("running {}", self.name.display()));
        let mut text = String::new();
        // The end of its output is its own end, or as good as that: it prints from one process.
        self.output.read_to_string(&mut text).map_err(failed())?;
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(failed())? {
                break status;
            }
            if self.begun.elapsed() > LIMIT {
                return Err(self.complaint(&format!("it has not ended after {LIMIT:?}")));
            }
            std::thread::sleep(Duration::from_micros(100));
        };
        let seconds = self.begun.elapsed().as_secs_f64();
        if !status.success() {
            return Err(self.complaint(&status.to_string()));
        }
        Ok((text, seconds))
    }

    fn complaint(&self, why: &str) -> Error {
        let said = fs::read(self.errors.path()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let said: String = last.into_iter().rev().fold(String::new(), |text, line| text + "\n    " + line);
        Error::program(&self.name, format!("{why}{said}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_group(&self.child, libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end and throws its output away; seconds.
pub(crate) fn time(mut command: Command) -> Result<f64, Error> {
    let name = PathBuf::from(command.get_program());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().map_err(Error::io(format!("running {}", name.display())))?;
    let seconds = begun.elapsed().as_secs_f64();
    if status.success() { Ok(seconds) } else { Err(Error::program(&name, status.to_string())) }
}

/// Sends a signal to the process group that `child` leads. The child must not have been waited for yet.
#[expect(unsafe_code, reason = "the standard library can only kill one process, not its group")]
pub(crate) fn signal_group(child: &Child, signal: libc::c_int) {
    let Ok(group) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: kill has no memory effects; the child has not been waited for, so the id is still its own.
    let _ = unsafe { libc::kill(-group, signal) };
}

/// Processor seconds that `roots` and all their descendants have used so far, those that have ended left out.
pub(crate) fn processor_seconds(roots: &[u32]) -> Result<f64, Error> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc").map_err(Error::io("/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end at any moment.
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(stat) = parse_stat(&text) {
            stats.insert(pid, stat);
        }
    }
    let family = family(roots, &stats);
    let ticks: u64 = family.iter().filter_map(|pid| stats.get(pid)).map(|stat| stat.ticks).sum();
    Ok(seconds_of(ticks))
}

#[expect(unsafe_code, reason = "the standard library does not tell the length of a clock tick")]
#[expect(clippy::cast_precision_loss, reason = "ticks of a run stay far below 2^52")]
fn seconds_of(ticks: u64) -> f64 {
    // SAFETY: a plain call.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    ticks as f64 / per_second as f64
}

/// Of `/proc/PID/stat`: the parent, and user and system time together (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // State is field 3 of the manual and 0 here.
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: number(11)? + number(12)? })
}

fn family(roots: &[u32], stats: &HashMap<u32, Stat>) -> HashSet<u32> {
    let mut family: HashSet<u32> = roots.iter().copied().collect();
    loop {
        let before = family.len();
        let children = stats.iter().filter(|(_, stat)| family.contains(&stat.parent)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_and_the_end_are_seen() {
        let mut running = Running::start(shell("echo one; read x; echo two; echo three")).unwrap();
        let (line, seconds) = running.line().unwrap();
        assert_eq!(line, "one");
        let (rest, end) = running.finish().unwrap();
        assert_eq!(rest, "two\nthree\n");
        assert!(end >= seconds && end < 60.0);
    }

    #[test]
    fn a_failure_comes_with_what_it_said() {
        let error =
            Running::start(shell("echo because >&2; exit 3")).unwrap().finish().unwrap_err().to_string();
        assert!(error.contains("because") && error.contains('3'), "{error}");
        let error = Running::start(shell("exit 0")).unwrap().line().unwrap_err().to_string();
        assert!(error.contains("line was expected"), "{error}");
        assert!(time(shell("exit 1")).is_err());
        assert!(time(shell("exit 0")).unwrap() < 60.0);
    }

    #[test]
    fn a_dropped_program_is_killed_with_its_children() {
        let mut running = Running::start(shell("sleep 60 & echo $!; wait")).unwrap();
        let (child, _) = running.line().unwrap();
        drop(running);
        let begun = Instant::now();
        while fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn stat_is_read_by_the_manual() {
        let text = "7 (a) b) S 5 7 7 0 -1 4194304 1 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { parent: 5, ticks: 42 }));
        assert_eq!(parse_stat("nonsense"), None);
        let stats = HashMap::from([
            (2, Stat { parent: 1, ticks: 1 }),
            (3, Stat { parent: 2, ticks: 1 }),
            (4, Stat { parent: 9, ticks: 1 }),
        ]);
        assert_eq!(family(&[2], &stats), HashSet::from([2, 3]));
    }

    #[test]
    fn busy_processes_cost_more_than_idle_ones() {
        let busy = Running::start(shell("echo; while :; do :; done")).unwrap();
        let idle = Running::start(shell("echo; read x")).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let (busy_cost, idle_cost) =
            (processor_seconds(&[busy.pid()]).unwrap(), processor_seconds(&[idle.pid()]).unwrap());
        assert!(busy_cost > idle_cost, "{busy_cost} {idle_cost}");
    }
}
