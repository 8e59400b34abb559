//! The configuration: flags over environment over file, parsed once into a typed [`Config`], every mistake reported.
//!
//! [`keys::KEYS`] is the one table of settings: the file's keys, the flags, the environment variables and the help come
//! from it. [`layers`] brings the three sources together with where each value stands; [`value`] turns one value into
//! what it means; this file knows the settings themselves and what they must agree on.

pub mod keys;
pub mod layers;
pub mod limits;
mod value;

use crate::scheduler;
use crate::vm::gpus::Gpus;
use crate::vm::{Identity, Limits, Policy, Rights, Rule};
use layers::{Layers, Origin, Problem, Raw};
pub use layers::{Problems, Sources};
use pxos_protocol::endpoint::Endpoint;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, where there was one.
    pub file: Option<PathBuf>,
    /// Where guests connect: `listen` and the sockets of the VM rules.
    pub listen: Vec<Endpoint>,
    /// Whether somebody asked for these endpoints; a default one that fails is only a warning.
    pub listen_is_default: bool,
    /// Files of memory that VMs share with the server.
    pub shared: Vec<SharedFile>,
    /// Permissions of unix sockets for guests.
    pub socket_mode: u32,
    /// Which libcuda.
    pub driver: DriverChoice,
    /// `CUDA_VISIBLE_DEVICES` of the workers; `None` for all devices.
    pub devices: Option<String>,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Connections that have not said their hello yet, at once.
    pub max_connecting: usize,
    /// How long a hello may take.
    pub hello_timeout: Duration,
    /// How long sessions may go on once the daemon was told to stop.
    pub drain_timeout: Duration,
    /// The control socket.
    pub control: PathBuf,
    /// Its permissions.
    pub control_mode: u32,
    /// Warm workers.
    pub pool: Pool,
    /// How devices are shared.
    pub scheduler: Scheduler,
    /// The log.
    pub log: Log,
    /// What TCP guests must show.
    pub tcp: Tcp,
    /// What the server shows to TLS guests, and they to it.
    pub tls: Tls,
    /// Whether the overhead of contexts counts against the memory quota.
    pub charge_context: bool,
    /// Whether guests see what the devices measure of everybody's work.
    pub guest_sensors: bool,
    /// Whom `pxctl advise` asks.
    pub advisor: Advisor,
    /// Where metrics are served, where they are.
    pub metrics: Option<std::net::SocketAddr>,
    /// For guests that no rule names.
    pub default: Rights,
    /// Rules, in the order of the file.
    pub vms: Vec<Rule>,
    /// What is started as a worker instead of this binary (tests).
    pub worker_program: Option<PathBuf>,
}

/// Which libcuda the workers open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// The GPU's where it works, softgpu otherwise.
    Auto,
    /// softgpu.
    Soft,
    /// This file, or this name if it has no slash.
    Path(PathBuf),
}

/// The pool of warm workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How many wait for a session.
    pub size: usize,
    /// How long a worker may take to become ready.
    pub start_timeout: Duration,
    /// How long a guest waits for a worker when none is warm.
    pub wait_timeout: Duration,
    /// How long after a guest has got its worker the next one is begun, unless somebody waits for it or the guest has ended:
    /// initialising the driver slows down what other processes ask of it.
    pub rest: Duration,
}

/// How devices are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// By which rule.
    pub policy: scheduler::Policy,
    /// A lease of a VM of mean weight.
    pub quantum: Duration,
    /// How long a kernel may take; zero for ever.
    pub max_kernel: Duration,
}

/// An advisor outside; the server itself never asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisor {
    /// Base of an OpenAI-compatible interface, empty for none.
    pub url: String,
    /// The model to ask for.
    pub model: String,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is written.
    pub level: tracing::Level,
    /// How.
    pub format: LogFormat,
    /// Where to.
    pub output: LogOutput,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// What the process was started with.
    Stderr,
    /// The system's log, at this socket.
    Syslog(PathBuf),
    /// A file, whose end it is written to.
    File(PathBuf),
}

/// Where the system's log listens (syslog(3)).
pub const SYSLOG: &str = "/dev/log";

impl std::fmt::Display for LogOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Syslog(path) if path.as_os_str() == SYSLOG => f.write_str("syslog"),
            Self::Syslog(path) => write!(f, "syslog:{}", path.display()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object on a line.
    Json,
}

/// TCP, which does not say who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// A token for guests that no rule names, over TLS as well.
    pub token: Option<String>,
    /// Whether a guest without a token is let in.
    pub anonymous: bool,
}

/// Files of TLS, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The authority whose certificates guests must show; without it they are asked for none.
    pub client_ca: Option<PathBuf>,
}

/// The file behind the memory of a VM's device (QEMU's `ivshmem-plain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFile {
    /// The VM.
    pub vm: String,
    /// The file.
    pub path: PathBuf,
    /// How many sessions share it; `None` for as many as fit.
    pub slots: Option<u64>,
}

impl std::fmt::Display for SharedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slots = self.slots.map_or_else(String::new, |slots| format!(":{slots}"));
        write!(f, "{}{slots}={}", self.vm, self.path.display())
    }
}

impl Config {
    /// Reads the sources.
    ///
    /// # Errors
    /// Every mistake in them, together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut layers = Layers::read(sources);
        let listen_is_default = !layers.has("listen");
        let listen: Vec<(Origin, Endpoint)> = layers.list("listen", value::endpoint);
        let shared: Vec<(Origin, SharedFile)> = layers.list("shared", value::shared);
        let default = default_rights(&mut layers);
        let vms = vms(&mut layers, &default, &listen);
        let mut config = Self {
            file: layers.file.clone(),
            listen: listen.iter().map(|(_, endpoint)| endpoint.clone()).collect(),
            listen_is_default,
            shared: shared.iter().map(|(_, file)| file.clone()).collect(),
            socket_mode: layers.take("socket_mode", value::mode),
            driver: layers.take("driver", value::driver),
            devices: layers.take("devices", value::devices),
            max_sessions: layers.take("max_sessions", value::count),
            max_connecting: layers.take("max_connecting", value::count),
            hello_timeout: layers.take("hello_timeout", value::duration),
            drain_timeout: layers.take("drain_timeout", value::duration_or_zero),
            control: layers.take("control", value::path),
            control_mode: layers.take("control_mode", value::mode),
            pool: Pool {
                size: layers.take("pool.size", value::count_or_zero),
                start_timeout: layers.take("pool.start_timeout", value::duration),
                wait_timeout: layers.take("pool.wait_timeout", value::duration),
                rest: layers.take("pool.rest", value::duration_or_zero),
            },
            scheduler: Scheduler {
                policy: layers.take("scheduler.policy", value::scheduling),
                quantum: layers.take("scheduler.quantum", value::quantum),
                max_kernel: layers.take("scheduler.max_kernel", value::duration_or_zero),
            },
            log: Log {
                level: layers.take("log.level", value::level),
                format: layers.take("log.format", value::format),
                output: layers.take("log.output", value::output),
            },
            tcp: Tcp {
                token: layers.take("tcp.token", value::optional_token),
                anonymous: layers.take("tcp.anonymous", value::boolean),
            },
            tls: Tls {
                certificate: layers.take("tls.certificate", value::optional_path),
                key: layers.take("tls.key", value::optional_path),
                client_ca: layers.take("tls.client_ca", value::optional_path),
            },
            charge_context: layers.take("charge_context", value::boolean),
            guest_sensors: layers.take("guest_sensors", value::boolean),
            advisor: Advisor {
                url: layers.take("advisor.url", value::url),
                model: layers.take("advisor.model", value::word),
            },
            metrics: layers.take("metrics.listen", value::address),
            default,
            vms: vms.iter().map(|(_, vm)| vm.clone()).collect(),
            worker_program: sources.worker_program.clone(),
        };
        let problems = &mut layers.problems;
        config.check_endpoints(&listen, problems);
        check_vms(&vms, problems);
        check_shared(&shared, problems);
        config.listen_at_rules();
        if config.listen.is_empty() && layers.problems.is_empty() {
            let message =
                "listen: nobody can connect: there is neither an endpoint nor a [[vm]] with a socket";
            layers.problems.push(Problem::new(layers.origin("listen"), message.to_owned()));
        }
        if layers.problems.is_empty() { Ok(config) } else { Err(Problems(layers.problems)) }
    }

    /// What the scheduler decides by.
    #[must_use]
    pub fn tuning(&self) -> scheduler::Tuning {
        scheduler::Tuning {
            policy: self.scheduler.policy,
            quantum: u64::try_from(self.scheduler.quantum.as_nanos()).unwrap_or(scheduler::QUANTUM_MOST),
            watched: !self.scheduler.max_kernel.is_zero(),
            ..scheduler::Tuning::default()
        }
    }

    fn check_endpoints(&self, listen: &[(Origin, Endpoint)], problems: &mut Vec<Problem>) {
        for (at, (origin, endpoint)) in listen.iter().enumerate() {
            let mut problem = |message: String| problems.push(Problem::new(origin.clone(), message));
            if listen[..at].iter().any(|(_, other)| other == endpoint) {
                problem(format!("listen: {endpoint} is named twice"));
            }
            match endpoint {
                endpoint if endpoint.socket().as_ref() == Some(&self.control) => {
                    problem(format!("listen: {endpoint} is the control socket, which guests must not reach"));
                }
                Endpoint::Unix(path) if !path.is_absolute() => {
                    problem(format!("listen: {endpoint} is not an absolute path"));
                }
                Endpoint::Tcp(address) | Endpoint::Tls(address) => {
                    let encrypted = matches!(endpoint, Endpoint::Tls(_));
                    if !encrypted && !is_loopback(address) {
                        problem(format!(
                            "listen: {endpoint} is not a loopback address, and nothing encrypts TCP: say tls:{address}"
                        ));
                    }
                    if encrypted && (self.tls.certificate.is_none() || self.tls.key.is_none()) {
                        problem(format!("listen: {endpoint} needs tls.certificate and tls.key"));
                    }
                    let token = self.vms.iter().any(|vm| matches!(vm.identity, Identity::Token(_)));
                    let certificates = encrypted && self.tls.client_ca.is_some();
                    if !certificates && !token && self.tcp.token.is_none() && !self.tcp.anonymous {
                        problem(format!(
                            "listen: {endpoint} needs a token, in tcp.token or in a [[vm]] rule (or say tcp.anonymous = true){}",
                            if encrypted { ", or tls.client_ca" } else { "" }
                        ));
                    }
                }
                _ => {}
            }
        }
    }

    /// Adds the sockets of the rules to the endpoints.
    fn listen_at_rules(&mut self) {
        for vm in &self.vms {
            if let Identity::Socket(path) = &vm.identity {
                let endpoint = Endpoint::Unix(path.clone());
                if !self.listen.contains(&endpoint) {
                    self.listen.push(endpoint);
                }
            }
        }
    }

    /// The settings as text, by key; secrets as whether there is one, beside what tells two of them apart.
    #[must_use]
    pub fn lines(&self) -> BTreeMap<String, (String, String)> {
        let mut lines = BTreeMap::new();
        let mut plain = |key: &str, text: String| lines.insert(key.to_owned(), (text.clone(), text));
        let endpoints: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        plain("listen", endpoints.join(" "));
        let shared: Vec<String> = self.shared.iter().map(ToString::to_string).collect();
        plain("shared", shared.join(" "));
        plain("socket_mode", format!("{:04o}", self.socket_mode));
        plain("driver", self.driver.to_string());
        plain("devices", self.devices.clone().unwrap_or_else(|| "all".into()));
        plain("max_sessions", self.max_sessions.to_string());
        plain("max_connecting", self.max_connecting.to_string());
        plain("hello_timeout", format!("{:?}", self.hello_timeout));
        plain("drain_timeout", format!("{:?}", self.drain_timeout));
        plain("control", self.control.display().to_string());
        plain("control_mode", format!("{:04o}", self.control_mode));
        plain("pool.size", self.pool.size.to_string());
        plain("pool.start_timeout", format!("{:?}", self.pool.start_timeout));
        plain("pool.wait_timeout", format!("{:?}", self.pool.wait_timeout));
        plain("pool.rest", format!("{:?}", self.pool.rest));
        plain("scheduler.policy", self.scheduler.policy.to_string());
        plain("scheduler.quantum", format!("{:?}", self.scheduler.quantum));
        plain("scheduler.max_kernel", format!("{:?}", self.scheduler.max_kernel));
        plain("log.level", self.log.level.to_string().to_lowercase());
        plain("log.format", format!("{:?}", self.log.format).to_lowercase());
        plain("log.output", self.log.output.to_string());
        let file = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string())
        };
        plain("tls.certificate", file(&self.tls.certificate));
        plain("tls.key", file(&self.tls.key));
        plain("tls.client_ca", file(&self.tls.client_ca));
        plain("tcp.anonymous", self.tcp.anonymous.to_string());
        plain("charge_context", self.charge_context.to_string());
        plain("guest_sensors", self.guest_sensors.to_string());
        plain("advisor.url", self.advisor.url.clone());
        plain("advisor.model", self.advisor.model.clone());
        plain("metrics.listen", self.metrics.map_or_else(|| "none".into(), |address| address.to_string()));
        plain("default.policy", self.default.policy.name().to_owned());
        plain("default.gpus", self.default.gpus.to_string());
        for (key, in_default) in keys::LIMITS.iter().filter_map(|key| Some((key, key.in_default?))) {
            plain(in_default, limits::text(&self.default.limits, key.name));
        }
        let token = if self.tcp.token.is_some() { "set" } else { "none" };
        lines.insert("tcp.token".into(), (token.into(), format!("{:?}", self.tcp.token)));
        for vm in &self.vms {
            let text = format!("{}, {}", vm.identity, rights_text(&vm.rights));
            let secret = match &vm.identity {
                Identity::Token(token) => token.as_str(),
                Identity::Cid(_) | Identity::Socket(_) | Identity::Certificate(_) | Identity::Endpoint => "",
            };
            lines.insert(format!("vm {}", vm.name), (text.clone(), format!("{text} {secret}")));
        }
        lines
    }

    /// What differs in `new`: a line each. The second list names the settings that only a restart changes.
    #[must_use]
    pub fn differences(&self, new: &Self) -> (Vec<String>, Vec<String>) {
        let (old_lines, new_lines) = (self.lines(), new.lines());
        let mut changed = Vec::new();
        let mut restart = Vec::new();
        let all: std::collections::BTreeSet<&String> = old_lines.keys().chain(new_lines.keys()).collect();
        for key in all {
            let (old, new) = (old_lines.get(key), new_lines.get(key));
            if old.map(|line| &line.1) == new.map(|line| &line.1) {
                continue;
            }
            let shown = |line: Option<&(String, String)>| line.map_or("nothing", |line| &line.0).to_owned();
            let text = format!("{key}: {} -> {}", shown(old), shown(new));
            if keys::KEYS.iter().any(|row| row.name == key && !row.reloads) {
                restart.push(text);
            } else {
                changed.push(text);
            }
        }
        (changed, restart)
    }
}

impl std::fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Soft => f.write_str("soft"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Rights on a line: the policy, and what differs from having no limit.
fn rights_text(rights: &Rights) -> String {
    let mut text = rights.policy.name().to_owned();
    if rights.gpus != Gpus::All {
        text += &format!(", gpus {}", rights.gpus);
    }
    for line in limits::differences(&Limits::default(), &rights.limits) {
        text += &format!(", {} {}", line.key, line.new);
    }
    text
}

/// Which devices a VM sees, as an operator writes it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_gpus(raw: &Raw) -> Result<Gpus, String> {
    value::gpus(raw)
}

/// Whether a VM may connect, as an operator writes it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_policy(raw: &Raw) -> Result<Policy, String> {
    value::policy(raw)
}

/// A VM's name, as an operator writes it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(name: &str) -> Result<String, String> {
    value::vm_name(&Raw::Text(name.to_owned()))
}

/// A VM's identity, as an operator writes it: `cid=3`, `socket=/path`, `token=…`, `certificate=name`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_identity(key: &str, raw: &Raw) -> Result<Identity, String> {
    match key {
        "cid" => value::cid(raw).map(Identity::Cid),
        "socket" => value::absolute_path(raw).map(Identity::Socket),
        "token" => value::token(raw).map(Identity::Token),
        "certificate" => value::dns_name(raw).map(Identity::Certificate),
        _ => Err(format!("'{key}' is none of cid, socket, token and certificate")),
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What holds for guests that no rule names, and for rules that do not say otherwise.
fn default_rights(layers: &mut Layers) -> Rights {
    let mut limits = Limits::default();
    for (key, in_default) in keys::LIMITS.iter().filter_map(|key| Some((key, key.in_default?))) {
        let set = |raw: &Raw| {
            let mut limits = Limits::default();
            limits::set(&mut limits, key.name, raw).map(|()| limits)
        };
        let parsed = layers.take_with(in_default, set);
        limits::copy(&parsed, &mut limits, key.name);
    }
    Rights {
        policy: layers.take("default.policy", value::policy),
        gpus: layers.take("default.gpus", value::gpus),
        limits,
    }
}

fn vms(layers: &mut Layers, default: &Rights, listen: &[(Origin, Endpoint)]) -> Vec<(Origin, Rule)> {
    let mut vms = Vec::new();
    for mut table in std::mem::take(&mut layers.vms) {
        let origin = table.origin.clone();
        let problems = &mut layers.problems;
        let name = table.take("name", value::vm_name, problems);
        let cid = table.take("cid", value::cid, problems).map(Identity::Cid);
        let socket = table.take("socket", value::absolute_path, problems).map(Identity::Socket);
        let token = table.take("token", value::token, problems).map(Identity::Token);
        let certificate = table.take("certificate", value::dns_name, problems).map(Identity::Certificate);
        // A VM with a rule of its own may connect unless the rule says otherwise, whatever holds for strangers.
        let policy = table.take("policy", value::policy, problems).unwrap_or(Policy::Allow);
        let gpus = table.take("gpus", value::gpus, problems).unwrap_or_else(|| default.gpus.clone());
        let mut limits = default.limits;
        for key in keys::LIMITS {
            table.take_with(key.name, |raw| limits::set(&mut limits, key.name, raw), problems);
        }
        let rights = Rights { policy, gpus, limits };
        if let Err(message) = rights.check() {
            problems.push(Problem::new(origin.clone(), format!("vm: {message}")));
        }
        let named = ["cid", "socket", "token", "certificate"].iter().filter(|key| table.had(key)).count();
        let mut problem =
            |message: &str| problems.push(Problem::new(origin.clone(), format!("vm: {message}")));
        if !table.had("name") {
            problem("a rule needs a name");
        }
        let own = listen.iter().any(|(_, endpoint)| name.is_some() && endpoint.vm() == name.as_deref());
        if named + usize::from(own) != 1 {
            problem(
                "a rule needs exactly one of cid, socket, token, certificate, and an endpoint of its own in listen \
                 (vm:NAME=/path, serial:NAME=/path), by which the VM is recognised",
            );
            continue;
        }
        let identity = cid.or(socket).or(token).or(certificate).or_else(|| own.then_some(Identity::Endpoint));
        if let (Some(name), Some(identity)) = (name, identity) {
            vms.push((origin, Rule { name, identity, rights }));
        }
    }
    vms
}

fn check_vms(vms: &[(Origin, Rule)], problems: &mut Vec<Problem>) {
    for (at, (origin, vm)) in vms.iter().enumerate() {
        for (_, other) in &vms[..at] {
            let same = if other.name == vm.name {
                "name"
            } else if other.identity == vm.identity && vm.identity != Identity::Endpoint {
                "identity"
            } else {
                continue;
            };
            let message =
                format!("vm: '{}' has the same {same} as the rule '{}' before it", vm.name, other.name);
            problems.push(Problem::new(origin.clone(), message));
        }
    }
}

fn check_shared(shared: &[(Origin, SharedFile)], problems: &mut Vec<Problem>) {
    for (at, (origin, file)) in shared.iter().enumerate() {
        let before = &shared[..at];
        if before.iter().any(|(_, other)| other.vm == file.vm) {
            let message = format!("shared: VM '{}' has memory twice", file.vm);
            problems.push(Problem::new(origin.clone(), message));
        } else if let Some((_, other)) = before.iter().find(|(_, other)| other.path == file.path) {
            let message =
                format!("shared: {} is the memory of VM '{}' already", file.path.display(), other.vm);
            problems.push(Problem::new(origin.clone(), message));
        }
    }
}

#[cfg(test)]
mod tests;
