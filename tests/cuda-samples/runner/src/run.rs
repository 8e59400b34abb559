//! Runs one program once and says how it ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::scratch::{Scratch, Written};

/// Of each output stream at most this much is kept; a program that prints more is compared by its beginning.
const OUTPUT_LIMIT: u64 = 16 << 20;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It had to be killed when its time was over.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
}

impl End {
    /// Whether the code is 0.
    pub(crate) fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }

    /// At most six characters for the table.
    pub(crate) fn short(&self) -> String {
        match self {
            Self::Exit(code) => code.to_string(),
            Self::Signal(signal) => format!("sig{signal}"),
            Self::TimedOut => "time".into(),
            Self::NotStarted(_) => "start".into(),
        }
    }
}

/// Everything seen of one run.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    /// Whether that is only the beginning.
    pub(crate) cut: bool,
    /// Standard error.
    pub(crate) stderr: Vec<u8>,
    /// Files it wrote, by path below its folder.
    pub(crate) written: BTreeMap<String, Written>,
    /// The folder it ran in, which is gone by now; it may stand in the outputs.
    pub(crate) scratch: String,
}

/// What is needed to run a program.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) args: &'a [String],
    /// Library for `LD_PRELOAD`; an inherited one is removed in any case.
    pub(crate) preload: Option<&'a Path>,
    /// Variables to set; applied in order.
    pub(crate) env: &'a [(String, String)],
    /// Time after which it is killed, with all processes it started in its group.
    pub(crate) timeout: Duration,
}

/// Runs the program in a scratch copy of its folder. Errors are the runner's own; the program's are in the outcome.
pub(crate) fn run(task: &Task<'_>) -> Result<Outcome, Error> {
    let folder = task.program.parent().unwrap_or_else(|| Path::new("."));
    let name = task.program.file_name().unwrap_or_default();
    let scratch = Scratch::copy_of(folder)?;
    let outputs = tempfile::tempdir().map_err(Error::io("making a folder for the output"))?;
    let path = |name: &str| outputs.path().join(name);
    let create = |path: PathBuf| File::create(&path).map_err(Error::io(path.display().to_string()));

    let mut command = Command::new(scratch.path().join(name));
    command
        .args(task.args)
        .current_dir(scratch.path())
        .env_remove("LD_PRELOAD")
        .envs(task.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(create(path("stdout"))?)
        .stderr(create(path("stderr"))?)
        .process_group(0);
    if let Some(library) = task.preload {
        command.env("LD_PRELOAD", library);
    }
    let begun = Instant::now();
    let (end, wall) = match command.spawn() {
        Ok(child) => {
            let end =
                wait(child, task.timeout).map_err(Error::io(format!("waiting for {}", name.display())))?;
            (end, begun.elapsed().as_secs_f64())
        }
        Err(error) => (End::NotStarted(error.to_string()), 0.0),
    };
    let stdout = read_limited(&path("stdout"))?;
    Ok(Outcome {
        end,
        wall,
        cut: stdout.len() as u64 == OUTPUT_LIMIT,
        stdout,
        stderr: read_limited(&path("stderr"))?,
        written: scratch.written()?,
        scratch: scratch.path().display().to_string(),
    })
}

/// Waits for a process that leads its own group; kills the group when the time is over.
fn wait(mut child: Child, timeout: Duration) -> std::io::Result<End> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(end_of(status));
        }
        let elapsed = begun.elapsed();
        if elapsed >= timeout {
            signal_group(&child, libc::SIGKILL);
            child.wait()?;
            return Ok(End::TimedOut);
        }
        // Polling at 2 % of the time so far keeps the error of the measured time as small.
        let pause = (elapsed / 50).clamp(Duration::from_micros(100), Duration::from_millis(20));
        std::thread::sleep(pause.min(timeout - elapsed));
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::NotStarted(format!("unknown wait status {status}")),
    }
}

/// Sends a signal to the process group that `child` leads. The child must not have been waited for yet.
#[expect(unsafe_code, reason = "the standard library can only kill one process, not its group")]
pub(crate) fn signal_group(child: &Child, signal: libc::c_int) {
    let Ok(group) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: kill has no memory effects; the child has not been waited for, so the id is still its own.
    let _ = unsafe { libc::kill(-group, signal) };
}

fn read_limited(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let failed = || Error::io(path.display().to_string());
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed())?;
    file.take(OUTPUT_LIMIT).read_to_end(&mut content).map_err(failed())?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(text: &str, args: &[&str], timeout: f64, env: &[(String, String)]) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("sample");
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        run(&Task {
            program: &program,
            args: &args,
            preload: None,
            env,
            timeout: Duration::from_secs_f64(timeout),
        })
        .unwrap()
    }

    #[test]
    fn code_outputs_and_files_are_seen() {
        let env = [("COLOUR".to_owned(), "blue".to_owned())];
        let outcome = script(
            "echo out $1 $COLOUR $LD_PRELOAD; echo err >&2; echo x > made; pwd; exit 3",
            &["a b"],
            20.0,
            &env,
        );
        assert_eq!(outcome.end, End::Exit(3));
        assert_eq!(outcome.stdout, format!("out a b blue\n{}\n", outcome.scratch).into_bytes());
        assert_eq!(outcome.stderr, b"err\n");
        assert_eq!(outcome.written.keys().collect::<Vec<_>>(), ["made"]);
        assert!(outcome.wall > 0.0 && outcome.wall < 20.0);
    }

    #[test]
    fn signals_and_timeouts() {
        assert_eq!(script("kill -9 $$", &[], 20.0, &[]).end, End::Signal(9));
        // The grandchild holds the output open; it must be killed too, or the run would last.
        let begun = Instant::now();
        let outcome = script("echo begun; sleep 30 & sleep 30", &[], 0.5, &[]);
        assert_eq!((outcome.end, outcome.stdout.as_slice()), (End::TimedOut, &b"begun\n"[..]));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_cannot_start_is_an_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("sample");
        fs::write(&program, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let outcome = run(&Task {
            program: &program,
            args: &[],
            preload: None,
            env: &[],
            timeout: Duration::from_secs(5),
        })
        .unwrap();
        assert!(matches!(outcome.end, End::NotStarted(_)), "{:?}", outcome.end);
    }
}
