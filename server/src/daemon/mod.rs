//! The daemon: listens, admits guests, keeps workers warm, hands each guest process to one, and watches them.
//!
//! It never talks to a driver and never holds a guest's bytes beyond its hello; workers do both. The main thread owns the
//! daemon's life ([`run`]): it waits for [`Event`]s and does nothing else. All other threads sleep in the kernel, so that
//! an idle daemon costs no CPU.

mod accounts;
mod admin;
mod admit;
mod bar;
mod decisions;
mod devices;
mod driver;
mod exchange;
mod identity;
mod inquiry;
mod journal;
mod listen;
mod metrics;
mod monitor;
mod nvml;
mod pledges;
mod pool;
mod process;
mod refusal;
mod scheduling;
mod serial;
mod session;
mod system;
mod tls;
mod totals;
mod usage;
mod vms;
mod watch;

use crate::background::Waiting;
use crate::config::{Config, LogOutput, Sources};
use crate::log::{self, Limited};
use crate::vm::Identity;
use crate::vm::registry::Registry;
use parking_lot::RwLock;
use pxos_protocol::endpoint::Endpoint;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tracing::{error, info, warn};

/// Threads of the daemon need little stack: the deepest thing they do is to read JSON of bounded depth.
const STACK: usize = 512 << 10;
/// How long sessions may take to tell their guests of the end once the time to drain is over.
const DISMISSAL: Duration = Duration::from_secs(2);
/// The configuration is wrong (`EX_CONFIG` of sysexits.h): starting again does not help.
pub const BAD_CONFIGURATION: u8 = 78;
/// How long killed workers may take to be gone: the driver may hold them for a while.
const REAPING: Duration = Duration::from_secs(10);

/// What all threads share.
#[derive(Debug)]
struct Daemon {
    config: RwLock<Arc<Config>>,
    life: AtomicU8,
    pool: pool::Pool,
    sessions: session::Sessions,
    scheduling: scheduling::Scheduling,
    pledging: pledges::Pledging,
    vms: Registry,
    nvml: nvml::Nvml,
    accounts: accounts::Accounts,
    journal: journal::Journal,
    endpoints: listen::Endpoints,
    connecting: admit::Connecting,
    exchange: exchange::Exchange,
    tls: tls::Tls,
    bars: bar::Bars,
    totals: totals::Totals,
    limits: LogLimits,
    started: (SystemTime, Instant),
    /// A number that no other start of a daemon has, by chance.
    instance: u64,
    events: Sender<Event>,
}

/// Limits on what others can make the daemon write to the log.
#[derive(Debug)]
struct LogLimits {
    accept: Limited,
    session_end: Limited,
    bar: Limited,
    refusal: [Limited; refusal::Reason::ALL.len()],
}

/// What the main thread waits for.
#[derive(Debug)]
enum Event {
    /// A signal.
    Signal(i32),
    /// The choice of the driver is settled.
    Driver(pool::Outcome),
    /// A worker is dead and waited for.
    WorkerEnded,
}

/// Stages of the daemon's life; `Daemon::life` holds one as a number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Life {
    Starting,
    Running,
    Draining,
}

impl Daemon {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    fn is_draining(&self) -> bool {
        self.life.load(Ordering::Relaxed) == Life::Draining as u8
    }

    fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Relaxed);
    }

    fn state(&self) -> &'static str {
        match self.life.load(Ordering::Relaxed) {
            0 => "starting",
            1 => "running",
            _ => "draining",
        }
    }

    /// Wakes the main thread, if there is something to tell.
    fn tell(&self, event: Option<Event>) {
        if let Some(event) = event {
            // The receiver is gone only when the process ends.
            let _ = self.events.send(event);
        }
    }

    /// Listens at the endpoints of the configuration and of the VMs, and at no others.
    fn open_endpoints(self: &Arc<Self>) {
        let mut wanted = self.config().listen.clone();
        for rule in self.vms.rules() {
            if let Identity::Socket(path) = rule.identity {
                wanted.push(Endpoint::Unix(path));
            }
        }
        self.endpoints.keep(&wanted);
        if self.life.load(Ordering::Relaxed) == Life::Running as u8 {
            self.endpoints.start(self);
        }
    }

    /// Some VM's limits are others now. Memory and streams count from the next allocation on, for the workers read them where
    /// they stand; promises of memory from now on; devices from the next session on; shares from the scheduler's next decision, which comes at once.
    fn limits_changed(&self) {
        self.keep_workers();
        self.pledging.changed(self);
        self.scheduling.decide_now();
    }

    fn launch(&self) -> process::Launch {
        let config = self.config();
        process::Launch {
            program: config.worker_program.clone().unwrap_or_else(|| "/proc/self/exe".into()),
            devices: config.devices.clone(),
            log: config.log.clone(),
        }
    }
}

/// Looks at what the configuration names, as the start does.
///
/// # Errors
/// What is wrong with it.
pub fn check(config: &Config) -> Result<(), String> {
    tls::load(config).map(drop)
}

/// Runs the daemon until it is told to end, and tells who waits for it when guests are let in. The log is open.
pub fn run(config: Config, sources: &Sources, waiting: &mut Option<Waiting>) -> ExitCode {
    info!(version = crate::handoff::SOFTWARE, pid = std::process::id(), "pxos-server starts");
    let (events, inbox) = channel();
    match start(config, events.clone()) {
        Ok(daemon) => {
            if let Err(failure) = forward_signals(events) {
                error!("signals cannot be handled: {failure}");
                return ExitCode::FAILURE;
            }
            let code = live(&daemon, &inbox, sources, waiting);
            daemon.endpoints.keep(&[]);
            let _ = std::fs::remove_file(&daemon.config().control);
            daemon.exchange.remove();
            info!("pxos-server ends");
            code
        }
        Err(message) => {
            error!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Binds everything and starts all threads; nothing is accepted before there is a driver.
fn start(config: Config, events: Sender<Event>) -> Result<Arc<Daemon>, String> {
    system::set_private_umask();
    system::raise_file_limit();
    let (candidates, missing) = driver::candidates(&config.driver)?;
    let control = admin::bind(&config.control, config.control_mode).map_err(|error| {
        format!(
            "cannot make the control socket {} (--control names another): {error}",
            config.control.display()
        )
    })?;
    let daemon = Arc::new(Daemon {
        pool: pool::Pool::new(&config.pool, candidates, missing),
        life: AtomicU8::new(Life::Starting as u8),
        sessions: session::Sessions::default(),
        scheduling: scheduling::Scheduling::new(config.tuning(), config.scheduler.max_kernel)
            .map_err(|error| format!("the scheduler cannot be set up: {error}"))?,
        pledging: pledges::Pledging::new().map_err(|error| format!("no bell for workers: {error}"))?,
        vms: Registry::default(),
        nvml: nvml::Nvml::default(),
        accounts: accounts::Accounts::default(),
        journal: journal::Journal::default(),
        endpoints: listen::Endpoints::default(),
        connecting: admit::Connecting::default(),
        exchange: exchange::Exchange::new(&config.control),
        tls: tls::Tls::new(tls::load(&config)?),
        bars: bar::Bars::default(),
        totals: totals::Totals::default(),
        limits: LogLimits {
            accept: Limited::new(),
            session_end: Limited::new(),
            bar: Limited::new(),
            refusal: std::array::from_fn(|_| Limited::new()),
        },
        started: (SystemTime::now(), Instant::now()),
        instance: RandomState::new().build_hasher().finish(),
        config: RwLock::new(Arc::new(config)),
        events,
    });
    let config = daemon.config();
    daemon
        .vms
        .changing()
        .load(&config, |_| false)
        .map_err(|error| format!("no memory for the VMs' quotas: {error}"))?;
    daemon
        .endpoints
        .bind(&config.listen, config.socket_mode, config.listen_is_default)
        .map_err(|errors| lines(&errors))?;
    admin::serve(&daemon, control).map_err(|error| format!("cannot serve the control socket: {error}"))?;
    let scheduled = Arc::clone(&daemon);
    spawn_thread("scheduler".into(), move || scheduling::run(&scheduled))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let pledging = Arc::clone(&daemon);
    spawn_thread("pledges".into(), move || pledges::run(&pledging))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    if let Some(address) = config.metrics {
        metrics::serve(&daemon, address).map_err(|error| {
            format!("cannot serve metrics at {address} (--metrics-listen names another): {error}")
        })?;
    }
    let pool = Arc::clone(&daemon);
    // Never ends before the process does, because the workers die with this thread.
    let forever = move || {
        pool.pool.run(
            || pool.launch(),
            |worker, child| watch::spawn(&pool, worker, child),
            |outcome| pool.tell(Some(Event::Driver(outcome))),
        );
        loop {
            std::thread::park();
        }
    };
    spawn_thread("pool".into(), forever).map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(daemon)
}

/// The main thread: one event after the other.
fn live(
    daemon: &Arc<Daemon>,
    inbox: &Receiver<Event>,
    sources: &Sources,
    waiting: &mut Option<Waiting>,
) -> ExitCode {
    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
    let mut stage = Stage::Living;
    loop {
        let deadline = match stage {
            Stage::Living => None,
            Stage::Draining(deadline) | Stage::Dismissing(deadline) | Stage::Reaping(deadline) => {
                Some(deadline)
            }
        };
        let event = next(inbox, deadline, watchdog);
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        match event {
            Some(Event::Signal(SIGHUP)) if stage == Stage::Living => {
                open_log_anew();
                reload(daemon, sources);
            }
            Some(Event::Signal(SIGUSR1)) => open_log_anew(),
            Some(Event::Signal(SIGTERM | SIGINT)) if stage == Stage::Living => stage = drain(daemon),
            Some(Event::Signal(SIGTERM | SIGINT)) => {
                warn!("told to end again: sessions are killed");
                stage = reap(daemon);
            }
            Some(Event::Driver(pool::Outcome::Decided { driver, fallback })) if stage == Stage::Living => {
                if let Err(message) = open(daemon, &driver, fallback.as_deref()) {
                    error!("{message}");
                    return ExitCode::from(BAD_CONFIGURATION);
                }
                if let Some(waiting) = waiting.take() {
                    waiting.ready(!matches!(daemon.config().log.output, LogOutput::File(_)));
                }
            }
            Some(Event::Driver(pool::Outcome::Hopeless(message))) if stage == Stage::Living => {
                error!("no driver can be used: {message}");
                return ExitCode::FAILURE;
            }
            Some(_) => {}
            None => stage = next_stage(daemon, stage),
        }
        if stage != Stage::Living && is_over(daemon) {
            return ExitCode::SUCCESS;
        }
        if let Stage::Reaping(deadline) = stage
            && Instant::now() >= deadline
        {
            error!(
                sessions = daemon.sessions.count(),
                "killed workers are still there; the kernel has to end them"
            );
            return ExitCode::SUCCESS;
        }
    }
}

/// Where the main thread is; each stage of the end has a deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Living,
    /// Sessions may end by themselves.
    Draining(Instant),
    /// Workers were told to end.
    Dismissing(Instant),
    /// Workers were killed.
    Reaping(Instant),
}

/// The next event, or `None` where the deadline or the watchdog's time has come.
fn next(inbox: &Receiver<Event>, deadline: Option<Instant>, watchdog: Option<Duration>) -> Option<Event> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    match [left, watchdog].into_iter().flatten().min() {
        None => inbox.recv().ok(),
        Some(timeout) => inbox.recv_timeout(timeout).ok(),
    }
}

/// There is a driver: guests may come.
///
/// # Errors
/// That the configuration gives VMs what the devices do not have.
fn open(daemon: &Arc<Daemon>, driver: &std::path::Path, fallback: Option<&str>) -> Result<(), String> {
    if let Some(why) = fallback {
        shout(&format!(
            "NO GPU IS USED. {why}\n\
             CUDA programs of guests run on this machine's CPU instead ({}), slowly.\n\
             driver = \"soft\" says that this is meant; driver = \"PATH\" names the right libcuda.",
            driver.display()
        ));
        warn!(driver = %driver.display(), reason = why, "no GPU is used: guests' programs run on this CPU");
    }
    let snapshot = daemon.pool.snapshot();
    let software = snapshot.as_ref().is_some_and(|snapshot| snapshot.software);
    info!(driver = %driver.display(), software, "driver is ready");
    let devices = snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.devices);
    for (number, device) in devices.iter().enumerate() {
        let gib = format_args!("{:.1} GiB", gib(device.total_memory));
        info!(number, name = device.name, memory = %gib, pci = device.pci_bus_id, "device found");
    }
    // Nobody can change rights between this and the state in which they are checked as they change.
    let changing = daemon.vms.changing();
    daemon.check_standing(&changing)?;
    for rule in daemon.vms.rules() {
        let limits = crate::config::limits::differences(&crate::vm::Limits::default(), &rule.rights.limits);
        let limits: Vec<String> = limits.iter().map(|line| format!("{} {}", line.key, line.new)).collect();
        let limits = if limits.is_empty() { "none".into() } else { limits.join(", ") };
        let (policy, gpus) = (rule.rights.policy.name(), rule.rights.gpus);
        info!(vm = rule.name, identity = %rule.identity, policy, %gpus, limits, "VM known");
    }
    drop(changing);
    daemon.limits_changed();
    daemon.set_life(Life::Running);
    daemon.endpoints.start(daemon);
    info!(devices = devices.len(), vms = daemon.vms.rules().len(), "ready: guests are let in");
    let status = format!("driver {}{}", driver.display(), if software { " (this CPU)" } else { "" });
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    Ok(())
}

/// Bytes in units of 1024³, for people.
fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// After a log file was moved away, or in case it was.
fn open_log_anew() {
    match log::reopen() {
        Ok(true) => info!("the log goes on here"),
        Ok(false) => {}
        Err(error) => error!("the log cannot be opened anew, and goes on in the old file: {error}"),
    }
}

/// Says something on stderr that nobody overlooks, whatever the log's level and form.
#[expect(
    clippy::print_stderr,
    reason = "an operator at the terminal must see this even where the log goes elsewhere"
)]
fn shout(text: &str) {
    let rule = "*".repeat(76);
    eprintln!("{rule}");
    for line in text.lines() {
        eprintln!("* {line}");
    }
    eprintln!("{rule}");
}

fn drain(daemon: &Arc<Daemon>) -> Stage {
    let timeout = daemon.config().drain_timeout;
    let sessions = daemon.sessions.count();
    info!(sessions, "told to end: no more guests are let in, and sessions have {timeout:?} to end");
    notify(&[NotifyState::Stopping]);
    daemon.set_life(Life::Draining);
    daemon.endpoints.keep(&[]);
    daemon.pool.close();
    Stage::Draining(Instant::now() + timeout)
}

/// The deadline of `stage` has come, or merely the watchdog's time.
fn next_stage(daemon: &Arc<Daemon>, stage: Stage) -> Stage {
    match stage {
        Stage::Draining(deadline) if Instant::now() >= deadline => {
            warn!(sessions = daemon.sessions.count(), "sessions are ended");
            daemon.sessions.dismiss_all();
            Stage::Dismissing(Instant::now() + DISMISSAL)
        }
        Stage::Dismissing(deadline) if Instant::now() >= deadline => reap(daemon),
        stage => stage,
    }
}

fn reap(daemon: &Arc<Daemon>) -> Stage {
    daemon.sessions.kill_all();
    Stage::Reaping(Instant::now() + REAPING)
}

/// Whether nothing runs any more.
fn is_over(daemon: &Arc<Daemon>) -> bool {
    daemon.sessions.count() == 0
}

/// Reads the configuration again: all of it, or nothing if anything in it is wrong.
fn reload(daemon: &Arc<Daemon>, sources: &Sources) {
    let now = NotifyState::monotonic_usec_now().ok();
    notify(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
    match try_reload(daemon, sources) {
        Ok(()) => {
            info!("configuration is read again");
            daemon.journal.note("reload", None, None, "the configuration is read again".into());
        }
        Err(message) => {
            for line in message.lines() {
                error!("{line}");
            }
            error!("the configuration is not changed");
            daemon.journal.note("reload", None, None, format!("the configuration is not changed: {message}"));
        }
    }
    notify(&[NotifyState::Ready]);
}

fn try_reload(daemon: &Arc<Daemon>, sources: &Sources) -> Result<(), String> {
    let old = daemon.config();
    let mut new = Config::load(sources).map_err(|problems| problems.to_string())?;
    let (changed, restart) = old.differences(&new);
    // What only a start can change stays.
    (new.socket_mode, new.control_mode) = (old.socket_mode, old.control_mode);
    (new.driver, new.devices, new.control) = (old.driver.clone(), old.devices.clone(), old.control.clone());
    (new.log.format, new.log.output) = (old.log.format, old.log.output.clone());
    if new.listen.iter().any(|endpoint| endpoint.socket().as_ref() == Some(&new.control)) {
        return Err(format!("{} is the control socket, which guests must not reach", new.control.display()));
    }
    let acceptor = tls::load(&new)?;
    let busy = |name: &str| daemon.vms.find(name).is_some_and(|vm| daemon.sessions.of_vm(&vm) > 0);
    let busy: BTreeSet<String> =
        daemon.vms.all().iter().map(|vm| vm.name.clone()).filter(|name| busy(name)).collect();
    let busy = |name: &str| busy.contains(name);
    let changing = daemon.vms.changing();
    daemon.check_rights(&changing.plan(&new, busy))?;
    daemon
        .endpoints
        .bind(&new.listen, new.socket_mode, new.listen_is_default)
        .map_err(|errors| lines(&errors))?;
    daemon.tls.replace(acceptor);
    log::set_level(new.log.level);
    for line in changed {
        info!("changed: {line}");
    }
    for line in restart {
        warn!("changes with the next start only: {line}");
    }
    let new = Arc::new(new);
    *daemon.config.write() = Arc::clone(&new);
    let changes = changing.load(&new, busy).map_err(|error| error.to_string())?;
    drop(changing);
    for change in changes {
        info!(vm = change.vm, "changed: {}", change.text);
        daemon.journal.note("vm", Some(&change.vm), None, change.text);
    }
    daemon.open_endpoints();
    daemon.limits_changed();
    daemon.scheduling.tune(new.tuning(), new.scheduler.max_kernel);
    daemon.pool.set(&new.pool);
    Ok(())
}

fn lines<T: std::fmt::Display>(errors: &[T]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn forward_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    spawn_thread("signals".into(), move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })
    .map(drop)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told");
    }
}

fn spawn_thread(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // The kernel keeps 15 characters of a name.
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(body)
}
