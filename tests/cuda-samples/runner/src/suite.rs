//! Chooses the samples and runs them, several at a time if asked, with a progress bar on a terminal.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;
use crate::cli::Cli;
use crate::compare::{self, Judgement, Verdict};
use crate::discover;
use crate::run::{self, Outcome, Task};
use crate::server::Server;
use crate::settings::{Resolved, Settings, is_timeout};

/// One program with one list of arguments.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Path below the folder.
    pub(crate) name: String,
    /// Absolute path.
    program: PathBuf,
    /// Arguments of this run.
    pub(crate) args: Vec<String>,
    settings: Resolved,
}

impl Sample {
    /// Name and arguments.
    pub(crate) fn title(&self) -> String {
        std::iter::once(self.name.as_str())
            .chain(self.args.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What came of one sample.
#[derive(Debug)]
pub(crate) struct SampleResult {
    /// Name and arguments.
    pub(crate) title: String,
    /// Path below the folder.
    pub(crate) name: String,
    /// Arguments.
    pub(crate) args: Vec<String>,
    /// The first direct run.
    pub(crate) direct: Option<Outcome>,
    /// The remoted run.
    pub(crate) remote: Option<Outcome>,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// Why, in one line.
    pub(crate) detail: Option<String>,
}

impl SampleResult {
    /// Wall time remoted over direct, if both are there.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (direct, remote) = (self.direct.as_ref()?.wall, self.remote.as_ref()?.wall);
        (direct > 0.0).then(|| remote / direct)
    }
}

/// The samples that the command line asks for, in order of name.
pub(crate) fn select(cli: &Cli) -> Result<Vec<Sample>, Error> {
    let folder = cli.folder.as_deref().ok_or_else(|| Error::Usage("a folder is needed".into()))?;
    let folder = folder.canonicalize().map_err(Error::io(folder.display().to_string()))?;
    let settings = cli.args_file.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    if !is_timeout(cli.timeout) {
        return Err(Error::Usage(format!("--timeout {} is not a number of seconds above zero", cli.timeout)));
    }
    let mut samples = Vec::new();
    for path in discover::programs(&folder)? {
        let name = path.display().to_string();
        if !cli.only.is_empty() && !discover::matches(&cli.only, &name) || discover::matches(&cli.skip, &name)
        {
            continue;
        }
        let settings = settings.resolve(&name, cli.timeout);
        for args in &settings.runs {
            samples.push(Sample {
                name: name.clone(),
                program: folder.join(&path),
                args: args.clone(),
                settings: settings.clone(),
            });
        }
    }
    if samples.is_empty() { Err(Error::NoSamples(folder.display().to_string())) } else { Ok(samples) }
}

/// How samples are run in the two modes: libraries and environments, resolved once.
struct Ways<'a> {
    cli: &'a Cli,
    direct_preload: Option<PathBuf>,
    remote_preload: Option<PathBuf>,
    direct_env: Vec<(String, String)>,
    remote_env: Vec<(String, String)>,
}

impl<'a> Ways<'a> {
    fn new(cli: &'a Cli, server: Option<&Server>) -> Result<Self, Error> {
        let absolute = |path: &Option<PathBuf>| {
            path.as_deref().map(|p| p.canonicalize().map_err(Error::io(p.display().to_string()))).transpose()
        };
        let common = pairs(&cli.env)?;
        let mut remote_env = common.clone();
        if let Some(server) = server {
            remote_env.push(("PXOS_SERVER".into(), server.address.clone()));
        }
        remote_env.extend(pairs(&cli.remote_env)?);
        let mut direct_env = common;
        direct_env.extend(pairs(&cli.direct_env)?);
        Ok(Self {
            cli,
            direct_preload: absolute(&cli.direct_preload)?,
            remote_preload: absolute(&cli.remote_preload)?,
            direct_env,
            remote_env,
        })
    }

    fn run(&self, sample: &Sample, remote: bool) -> Result<Outcome, Error> {
        let (preload, env) = if remote {
            (self.remote_preload.as_deref(), &self.remote_env)
        } else {
            (self.direct_preload.as_deref(), &self.direct_env)
        };
        let mut env = env.clone();
        env.extend(sample.settings.env.clone());
        run::run(&Task {
            program: &sample.program,
            args: &sample.args,
            preload,
            env: &env,
            timeout: Duration::from_secs_f64(sample.settings.timeout),
        })
    }

    /// All runs of one sample, and the verdict.
    fn sample(&self, sample: &Sample) -> Result<SampleResult, Error> {
        let result = |direct, remote, (verdict, detail): Judgement| SampleResult {
            title: sample.title(),
            name: sample.name.clone(),
            args: sample.args.clone(),
            direct,
            remote,
            verdict,
            detail,
        };
        if let Some(reason) = &sample.settings.skip {
            return Ok(result(None, None, (Verdict::Skipped, Some(reason.clone()))));
        }
        let direct = self.cli.direct().then(|| self.run(sample, false)).transpose()?;
        let again =
            (self.cli.direct() && self.cli.repeat_native).then(|| self.run(sample, false)).transpose()?;
        let remote = self.cli.remote().then(|| self.run(sample, true)).transpose()?;
        let judgement = match (&direct, &remote) {
            (Some(direct), Some(remote)) => compare::pair(direct, again.as_ref(), remote, &sample.settings),
            (Some(run), None) | (None, Some(run)) => compare::single(run, &sample.settings),
            (None, None) => (Verdict::Skipped, None),
        };
        if let Some(folder) = &self.cli.keep {
            let stem = sample.title().replace(['/', ' '], "_");
            for (way, run) in [("direct", &direct), ("remote", &remote)] {
                if let Some(run) = run {
                    keep(folder, &format!("{stem}.{way}.out"), &run.stdout)?;
                    keep(folder, &format!("{stem}.{way}.err"), &run.stderr)?;
                }
            }
        }
        Ok(result(direct, remote, judgement))
    }
}

fn keep(folder: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = folder.join(name);
    fs::write(&path, content).map_err(Error::io(path.display().to_string()))
}

/// Splits NAME=VALUE.
fn pairs(texts: &[String]) -> Result<Vec<(String, String)>, Error> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::Usage(format!("'{text}' is not NAME=VALUE"))),
        })
        .collect()
}

/// Runs the samples; results come in the order of the samples.
pub(crate) fn run(cli: &Cli, samples: &[Sample]) -> Result<Vec<SampleResult>, Error> {
    if cli.remote() && cli.remote_preload.is_none() && cli.remote_env.is_empty() {
        return Err(Error::Usage(
            "remoted runs need --remote-preload (or --remote-env, or use --mode direct)".into(),
        ));
    }
    if cli.start_server.is_some() && !cli.remote() {
        return Err(Error::Usage("--start-server makes no sense with --mode direct".into()));
    }
    if let Some(folder) = &cli.keep {
        fs::create_dir_all(folder).map_err(Error::io(folder.display().to_string()))?;
    }
    let mut server = match &cli.start_server {
        Some(program) => {
            let program = program.canonicalize().map_err(Error::io(program.display().to_string()))?;
            Some(Server::start(&program, &cli.server_arg, &cli.server_address, cli.keep.as_deref())?)
        }
        None => None,
    };
    let ways = Ways::new(cli, server.as_ref())?;
    let progress = Progress::new(samples.len());
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let results: Mutex<Vec<Option<Result<SampleResult, Error>>>> =
        Mutex::new(samples.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.clamp(1, samples.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(sample) = samples.get(index) else { break };
                    progress.begin(&sample.name);
                    let result = ways.sample(sample);
                    match &result {
                        Ok(result) => progress.end(result),
                        Err(_) => stop.store(true, Ordering::Relaxed),
                    }
                    results.lock().expect("no thread panics with the lock held")[index] = Some(result);
                }
            });
        }
    });
    progress.finish();
    let results = results.into_inner().expect("no thread panics with the lock held");
    let results = results.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    if let Some(server) = &mut server {
        server.check()?;
    }
    Ok(results)
}

/// A bar on a terminal, a line per sample elsewhere; both on standard error.
struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: AtomicUsize,
}

impl Progress {
    fn new(total: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}")
                .expect("the template is a constant");
            ProgressBar::new(total as u64).with_style(style)
        });
        Self { bar, total, done: AtomicUsize::new(0) }
    }

    fn begin(&self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    fn end(&self, result: &SampleResult) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            if result.verdict.is_worse() {
                bar.println(format!("{}: {}", result.title, result.verdict.short()));
            }
            bar.inc(1);
        } else {
            // Progress is for people; nobody reading it is no reason to stop.
            let _ = writeln!(
                io::stderr(),
                "[{done}/{}] {}: {}",
                self.total,
                result.title,
                result.verdict.short()
            );
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
