//! Chooses the samples and runs them, several at a time if asked, with a progress bar on a terminal.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;
use crate::cli::{Cli, Mode};
use crate::compare::{self, Judgement, Verdict};
use crate::discover;
use crate::record::{self, Record, Report, RunRecord};
use crate::run::{self, Outcome, Task};
use crate::server::Server;
use crate::settings::{Resolved, Settings, is_timeout};
use crate::varying::Varying;

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
        record::title(&self.name, &self.args)
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
    let varying = cli.varying.as_deref().map(Varying::read).transpose()?.unwrap_or_default();
    let mut samples = Vec::new();
    for path in discover::programs(&folder)? {
        let name = path.display().to_string();
        if !cli.only.is_empty() && !discover::matches(&cli.only, &name) || discover::matches(&cli.skip, &name)
        {
            continue;
        }
        let mut settings = settings.resolve(&name, cli.timeout);
        settings.varies = varying.reason(&name).map(str::to_owned);
        for args in &settings.runs {
            samples.push(Sample {
                name: name.clone(),
                program: folder.join(&path),
                args: args.clone(),
                settings: settings.clone(),
            });
        }
    }
    if samples.is_empty() {
        return Err(Error::NoSamples(folder.display().to_string()));
    }
    let Some(text) = &cli.shard else { return Ok(samples) };
    let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let Some((part, of)) = parts.filter(|(part, of): &(usize, usize)| (1..=*of).contains(part)) else {
        return Err(Error::Usage(format!("--shard {text} is not I/N with I from 1 to N")));
    };
    Ok(samples.into_iter().skip(part - 1).step_by(of).collect())
}

/// How samples are run in the two modes: libraries and environments, resolved once.
struct Ways<'a> {
    cli: &'a Cli,
    direct_preload: Option<PathBuf>,
    remote_preload: Option<PathBuf>,
    direct_env: Vec<(String, String)>,
    remote_env: Vec<(String, String)>,
    renames: Vec<(String, String)>,
    /// Where direct runs come from that do not happen now.
    against: Option<Report>,
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
            renames: pairs(&cli.rename)?,
            against: cli.against.as_deref().map(Report::read).transpose()?,
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
    fn sample(&self, sample: &Sample) -> Result<Record, Error> {
        let skipped =
            |reason: String| Ok(Self::record(sample, [None, None], None, (Verdict::Skipped, Some(reason))));
        if let Some(reason) = &sample.settings.skip {
            return skipped(reason.clone());
        }
        let (mut direct, mut varies) = (None, None);
        if let Some(report) = &self.against {
            let earlier = report.find(&sample.name, &sample.args);
            let Some((record, run)) = earlier.and_then(|record| Some((record, record.direct.as_ref()?)))
            else {
                return skipped("the report has no direct run of it".into());
            };
            direct = Some(run.outcome());
            varies.clone_from(&record.varies);
        } else if self.cli.direct() {
            let first = self.run(sample, false)?;
            if self.cli.repeat_native {
                varies = compare::varies(&first, &self.run(sample, false)?, &sample.settings);
            }
            direct = Some(first);
        }
        let remote = self.cli.remote().then(|| self.run(sample, true)).transpose()?;
        let judgement = match (&direct, &remote) {
            (Some(direct), Some(remote)) => {
                let [direct, remote] = [direct, remote].map(|run| self.renamed(run));
                compare::pair(&direct, varies.as_deref(), &remote, &sample.settings)
            }
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
        Ok(Self::record(sample, [direct, remote], varies, judgement))
    }

    fn record(
        sample: &Sample,
        [direct, remote]: [Option<Outcome>; 2],
        varies: Option<String>,
        (verdict, detail): Judgement,
    ) -> Record {
        let ratio = match (&direct, &remote) {
            (Some(direct), Some(remote)) if direct.wall > 0.0 => Some(remote.wall / direct.wall),
            _ => None,
        };
        Record {
            name: sample.name.clone(),
            args: sample.args.clone(),
            verdict,
            worse: verdict.is_worse(),
            detail,
            varies,
            ratio,
            direct: direct.as_ref().map(RunRecord::new),
            remote: remote.as_ref().map(RunRecord::new),
        }
    }

    /// A run whose output has the names that `--rename` asks for.
    fn renamed(&self, run: &Outcome) -> Outcome {
        let mut run = run.clone();
        for (from, to) in &self.renames {
            run.stdout = String::from_utf8_lossy(&run.stdout).replace(from, to).into_bytes();
        }
        run
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

/// What came of a run of the runner.
#[derive(Debug)]
pub(crate) struct Results {
    /// What was seen, in order of name; with `--resume` also what the report had before.
    pub(crate) records: Vec<Record>,
    /// Samples that were not started because the time was over.
    pub(crate) left: usize,
}

/// The records so far, and the file that they are in.
struct Book<'a> {
    cli: &'a Cli,
    samples: &'a [Sample],
    records: Mutex<Vec<Record>>,
}

impl<'a> Book<'a> {
    fn open(cli: &'a Cli, samples: &'a [Sample]) -> Result<Self, Error> {
        let earlier = match &cli.json {
            Some(path) if cli.resume && path.exists() => Report::read(path)?.samples,
            _ => Vec::new(),
        };
        Ok(Self { cli, samples, records: Mutex::new(earlier) })
    }

    fn has(&self, sample: &Sample) -> bool {
        let records = self.records.lock().expect("no thread panics with the lock held");
        records.iter().any(|record| record.name == sample.name && record.args == sample.args)
    }

    fn add(&self, record: Record) -> Result<(), Error> {
        let mut records = self.records.lock().expect("no thread panics with the lock held");
        records.push(record);
        // The runs of a sample in the order of the args file.
        let run = |record: &Record| {
            self.samples.iter().position(|sample| sample.name == record.name && sample.args == record.args)
        };
        records.sort_by_cached_key(|record| (record.name.clone(), run(record)));
        match &self.cli.json {
            Some(path) => Report::new(self.cli.mode, records.clone()).write(path),
            None => Ok(()),
        }
    }
}

/// Runs the samples.
pub(crate) fn run(cli: &Cli, samples: &[Sample]) -> Result<Results, Error> {
    if cli.remote() && cli.remote_preload.is_none() && cli.remote_env.is_empty() {
        return Err(Error::Usage(
            "remoted runs need --remote-preload (or --remote-env, or use --mode direct)".into(),
        ));
    }
    if cli.start_server.is_some() && !cli.remote() {
        return Err(Error::Usage("--start-server makes no sense with --mode direct".into()));
    }
    if cli.against.is_some() && cli.mode != Mode::Both {
        return Err(Error::Usage("--against compares: it needs --mode both".into()));
    }
    if let Some(folder) = &cli.keep {
        fs::create_dir_all(folder).map_err(Error::io(folder.display().to_string()))?;
    }
    let begun = Instant::now();
    let over = || cli.budget.is_some_and(|budget| begun.elapsed().as_secs_f64() >= budget);
    let book = Book::open(cli, samples)?;
    let mut server = match &cli.start_server {
        Some(program) => {
            let program = program.canonicalize().map_err(Error::io(program.display().to_string()))?;
            Some(Server::start(&program, &cli.server_arg, &cli.server_address, cli.keep.as_deref())?)
        }
        None => None,
    };
    let ways = Ways::new(cli, server.as_ref())?;
    // Those that run alone come last: before them all others would have to wait.
    let mut order: Vec<&Sample> = samples.iter().filter(|sample| !book.has(sample)).collect();
    order.sort_by_key(|sample| sample.settings.alone);
    let progress = Progress::new(order.len());
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stop = AtomicBool::new(false);
    let device = RwLock::new(());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.clamp(1, order.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && !over() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(sample) = order.get(index) else { break };
                    progress.begin(&sample.name);
                    let locked = "no thread panics with the lock held";
                    let result = if sample.settings.alone {
                        let _device = device.write().expect(locked);
                        ways.sample(sample)
                    } else {
                        let _device = device.read().expect(locked);
                        ways.sample(sample)
                    };
                    let result = result.and_then(|record| {
                        progress.end(&record);
                        book.add(record)
                    });
                    match result {
                        Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            failure.lock().expect(locked).get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    progress.finish();
    if let Some(error) = failure.into_inner().expect("no thread panics with the lock held") {
        return Err(error);
    }
    if let Some(server) = &mut server {
        server.check()?;
    }
    let records = book.records.into_inner().expect("no thread panics with the lock held");
    Ok(Results { records, left: order.len() - done.into_inner() })
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

    fn end(&self, result: &Record) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            if result.worse {
                bar.println(format!("{}: {}", result.title(), result.verdict.short()));
            }
            bar.inc(1);
        } else {
            // Progress is for people; nobody reading it is no reason to stop.
            let _ = writeln!(
                io::stderr(),
                "[{done}/{}] {}: {}",
                self.total,
                result.title(),
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
