//! What the control socket of the server speaks: one JSON [`Request`] per line, one JSON [`Reply`] per line.
//!
//! Operators only; guests never reach that socket. Fields are only ever added: a reader ignores those that it does not
//! know, and every field of a later version has a default.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where the server answers, unless it was told another path.
pub const DEFAULT_CONTROL: &str = "/run/pxos/control.sock";

/// Where the server's configuration lies, unless it was told another path.
pub const DEFAULT_CONFIG: &str = "/etc/pxos/server.toml";

/// Longest request, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", deny_unknown_fields)]
pub enum Request {
    /// Everything that the server knows of itself: [`Answer::Status`].
    #[serde(rename = "status")]
    Status {},
    /// Ends a session: [`Answer::Done`].
    #[serde(rename = "session.kill")]
    Kill {
        /// Number of the session.
        id: u64,
    },
    /// All VMs: [`Answer::Vms`].
    #[serde(rename = "vm.list")]
    VmList {},
    /// One VM: [`Answer::Vms`] with that one.
    #[serde(rename = "vm.show")]
    VmShow {
        /// Its name.
        name: String,
    },
    /// Makes a VM that no configuration names; it lasts as long as the daemon: [`Answer::Done`].
    #[serde(rename = "vm.create")]
    VmCreate {
        /// Its name.
        name: String,
        /// How it is recognised: exactly one of `cid`, `socket`, `token` and `certificate`.
        identity: BTreeMap<String, Value>,
        /// As in [`Request::VmSet`]; the default's where nothing is said.
        #[serde(default)]
        set: BTreeMap<String, Value>,
    },
    /// Changes rights of a VM, all or none: [`Answer::Done`].
    #[serde(rename = "vm.set")]
    VmSet {
        /// Its name.
        name: String,
        /// Values as a configuration writes them, by the names of the keys of a `[[vm]]` rule.
        set: BTreeMap<String, Value>,
        /// Only says whether they are good.
        #[serde(default)]
        check: bool,
    },
    /// Lets a VM begin no more sessions, or lets it again: [`Answer::Done`].
    #[serde(rename = "vm.drain")]
    VmDrain {
        /// Its name.
        name: String,
        /// Whether it is let again.
        #[serde(default)]
        undo: bool,
    },
    /// Ends all sessions of a VM: [`Answer::Done`].
    #[serde(rename = "vm.kill")]
    VmKill {
        /// Its name.
        name: String,
    },
    /// Ends all sessions of a VM and forgets it, unless the configuration names it: [`Answer::Done`].
    #[serde(rename = "vm.destroy")]
    VmDestroy {
        /// Its name.
        name: String,
    },
    /// What happened: an [`Answer::Event`] on a line each, then [`Answer::Done`].
    #[serde(rename = "events")]
    Events {
        /// Only events after this number.
        #[serde(default)]
        since: u64,
        /// Goes on with what happens, until the operator closes the connection.
        #[serde(default)]
        follow: bool,
    },
    /// What the scheduler decided last: [`Answer::Decisions`].
    #[serde(rename = "decisions")]
    Decisions {
        /// Only decisions after this number.
        #[serde(default)]
        since: u64,
    },
    /// What each VM has used: [`Answer::Accounting`].
    #[serde(rename = "accounting")]
    Accounting {},
}

/// What the server answers: `{"ok": …}` or `{"error": "…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The request was carried out.
    Ok(Answer),
    /// It was not; one line that says why.
    Error(String),
}

/// Results of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Of [`Request::Status`].
    Status(Box<Status>),
    /// Of [`Request::VmList`] and [`Request::VmShow`].
    Vms(Vec<Vm>),
    /// Of [`Request::Events`].
    Event(Event),
    /// Of [`Request::Decisions`], oldest first.
    Decisions(Vec<Decision>),
    /// Of [`Request::Accounting`].
    Accounting(Vec<Account>),
    /// Of a request that only does something: what was done, one line.
    Done(String),
}

/// The state of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon itself.
    pub server: Server,
    /// The libcuda that the workers use.
    pub driver: Driver,
    /// Devices of that libcuda, in the order of their ordinals.
    pub devices: Vec<Device>,
    /// Where guests connect.
    pub listeners: Vec<Listener>,
    /// Workers that wait for a session.
    pub pool: Pool,
    /// Sessions, oldest first.
    pub sessions: Vec<Session>,
    /// Since the daemon started.
    pub totals: Totals,
}

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Version of the software.
    pub software: String,
    /// Version of the wire format.
    pub wire: u32,
    /// [`crate::fingerprint`] as 16 hexadecimal digits: guests must have the same.
    pub fingerprint: String,
    /// Process id.
    pub pid: u32,
    /// `starting`, `running` or `draining`.
    pub state: String,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// Seconds since the start.
    pub uptime: u64,
    /// The configuration file that was read, where there was one.
    pub config: Option<PathBuf>,
    /// Where `pxctl advise` asks for advice, and which model there; empty for nowhere.
    #[serde(default)]
    pub advisor: (String, String),
}

/// The libcuda in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// As configured: `auto`, `soft` or a path.
    pub configured: String,
    /// What is opened: a path, or a name that the dynamic linker resolves. `None` until it is decided.
    pub path: Option<PathBuf>,
    /// As `cuDriverGetVersion` answers (13000 is 13.0), once a worker was ready.
    pub version: Option<i32>,
    /// Whether kernels run on this machine's CPU.
    pub software: bool,
    /// Why it is not the GPU's, where `auto` fell back.
    pub fallback: Option<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Ordinal.
    pub ordinal: usize,
    /// Name.
    pub name: String,
    /// `GPU-` (of a part of a device, `MIG-`) and the UUID.
    pub uuid: String,
    /// Domain, bus, device and function, such as `0000:1B:00.0`.
    #[serde(default)]
    pub pci: String,
    /// Bytes of its memory that VMs are promised (`memory_min`).
    #[serde(default)]
    pub promised: u64,
    /// Bytes of device memory.
    pub total_memory: u64,
    /// Major and minor compute capability.
    pub compute_capability: (i32, i32),
}

/// Where guests connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The endpoint.
    pub endpoint: String,
    /// Connections accepted there.
    pub accepted: u64,
    /// Why nobody can connect, where nobody can.
    pub error: Option<String>,
}

/// Workers that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// How many should wait, for all lists of devices together.
    pub size: usize,
    /// How many do.
    pub warm: usize,
    /// How many are being started.
    pub starting: usize,
    /// Guests that wait for one.
    pub waiting: usize,
    /// Bytes of device memory that the waiting ones hold.
    pub memory: u64,
    /// Workers that died or failed before they were ready.
    pub failures: u64,
    /// What the last of these said.
    pub last_failure: Option<String>,
}

/// A session: one guest process and its worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Number, as in the log.
    pub id: u64,
    /// The VM.
    pub vm: String,
    /// Name of the program in the guest, as it says.
    pub program: String,
    /// Its process id there, as it says.
    pub pid: u32,
    /// Where it connected from, as the host's kernel says.
    pub peer: String,
    /// Version of its shim, as it says.
    pub software: String,
    /// Process id of the worker on the host.
    pub worker: u32,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// Seconds since the start.
    pub uptime: u64,
    /// Memory that guest and worker share: `none`, `memfd`, or `bar slot N`.
    #[serde(default)]
    pub shared_memory: String,
    /// What the worker counts.
    pub counters: Counters,
    /// Its time on the devices.
    #[serde(default)]
    pub usage: Usage,
    /// Its devices by their ordinals in [`Status::devices`], in the order in which it sees them.
    #[serde(default)]
    pub gpus: Vec<usize>,
    /// Bytes of device memory that NVML says the worker holds, contexts included; `null` where there is no NVML.
    #[serde(default)]
    pub audited: Option<u64>,
}

/// What a worker counts, each number read by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// `starting`, `warm`, `serving`, `ending` or `unknown`.
    pub state: String,
    /// Calls whose answer the guest awaited.
    pub messages_sync: u64,
    /// Calls that nobody awaited.
    pub messages_async: u64,
    /// Replies sent.
    pub replies: u64,
    /// Bytes received from the guest.
    pub bytes_in: u64,
    /// Bytes sent to the guest.
    pub bytes_out: u64,
    /// Bytes that came over the socket: of every frame, or of doorbells alone.
    pub socket_bytes_in: u64,
    /// Bytes that went over the socket.
    pub socket_bytes_out: u64,
    /// Bytes that came through shared memory: frames, and copies to the device.
    pub shared_bytes_in: u64,
    /// Bytes that went through shared memory.
    pub shared_bytes_out: u64,
    /// Kernel and graph launches.
    pub launches: u64,
    /// Bytes copied to the device.
    pub copy_bytes_to_device: u64,
    /// Bytes copied from the device.
    pub copy_bytes_to_host: u64,
    /// Bytes of device memory allocated.
    pub memory_used: u64,
    /// Most bytes of it at any time.
    pub memory_peak: u64,
    /// Bytes of it that may be allocated, 0 for no limit.
    pub memory_limit: u64,
    /// Bytes that contexts and modules hold.
    pub context_bytes: u64,
    /// Bytes of device memory held, times seconds.
    pub memory_byte_seconds: f64,
    /// The last call.
    pub last_op: Option<String>,
    /// The last call that failed.
    pub last_error: Option<LastError>,
    /// Calls that failed.
    pub errors: u64,
    /// Frames that were not what they claimed.
    pub decode_errors: u64,
    /// Broken contexts.
    pub faults: u64,
    /// Guest threads that called.
    pub threads: u64,
    /// Calls of functions that are not carried.
    pub unsupported_calls: u64,
    /// Calls by function, where there were any.
    pub calls: BTreeMap<String, u64>,
    /// Those of them whose answer the guest awaited.
    pub awaited: BTreeMap<String, u64>,
}

/// An error that a call answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// The `CUresult`.
    pub result: u32,
    /// Its C name, where it has one.
    pub name: Option<String>,
    /// The function, where the worker named one of the table.
    pub function: Option<String>,
}

/// A VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// `rule`, `operator` or `default`: where its rights come from.
    pub origin: String,
    /// `cid 3`, `socket /path`, `token` or `certificate NAME`; `null` where no rule names it.
    pub identity: Option<String>,
    /// `allow` or `deny`.
    pub policy: String,
    /// Whether it begins no more sessions.
    pub draining: bool,
    /// Which devices it sees, as it was configured: `all`, or numbers, UUIDs and PCI addresses with commas between.
    pub gpus: String,
    /// What it may use.
    pub limits: Limits,
    /// Sessions that stand.
    pub sessions: usize,
    /// Its device memory.
    pub memory: Memory,
    /// Streams.
    pub streams: u64,
    /// Allocations and streams refused for a quota, of sessions that stand.
    pub refusals: u64,
    /// Its time on the devices.
    pub usage: Usage,
    /// Kind of work that it is taken to do.
    pub class: String,
    /// Why.
    pub class_reason: String,
}

/// Device memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What counts against the quota: allocations, and the overhead of contexts where that is charged.
    pub charged: u64,
    /// What may be held, `null` for no limit.
    pub limit: Option<u64>,
    /// What is kept from other VMs for this one: its minimum, less what it holds.
    pub owed: u64,
    /// Overhead of contexts and modules.
    pub context: u64,
    /// Allocations by kind.
    pub kinds: BTreeMap<String, u64>,
}

/// Time on the devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Nanoseconds of device time.
    pub gpu_nanos: u64,
    /// Fraction of the devices' time over the last second or so.
    pub share: f64,
    /// Commands in flight.
    pub queue: u64,
    /// Whether it waits for its turn.
    pub waiting: bool,
    /// Nanoseconds that it has waited for its turn.
    pub wait_nanos: u64,
    /// Turns.
    pub leases: u64,
    /// Waits by length: entry `n` counts those below `2^n` microseconds, the last all others.
    pub waits: Vec<u64>,
    /// Launches a second over the last second or so.
    pub launch_rate: f64,
    /// Bytes copied a second over the last second or so, both directions.
    pub copy_rate: f64,
    /// Why it has its turn or not.
    pub reason: String,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Number; the next event has a greater one.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// `session.begin`, `session.end`, `refused`, `vm`, `reload`, `quota`, `fault`, `decision` or `class`.
    pub kind: String,
    /// The VM that it is about.
    pub vm: Option<String>,
    /// The session that it is about.
    pub session: Option<u64>,
    /// For people; one line.
    pub text: String,
}

/// A gate that the scheduler opened or closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// Number; the next decision has a greater one.
    pub number: u64,
    /// Microseconds since 1970.
    pub time: u64,
    /// The device's ordinal in [`Status::devices`].
    pub device: usize,
    /// The VM.
    pub vm: String,
    /// `off` (nothing is scheduled), `free` (wide open), `open` (for a lease) or `closed`.
    pub gate: String,
    /// Microseconds of the lease, where there is one.
    pub lease: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What a VM has used since the daemon knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// The VM.
    pub vm: String,
    /// Seconds since 1970 at its first session.
    pub since: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Seconds of device time.
    pub gpu_seconds: f64,
    /// Gibibytes of device memory held, times hours.
    pub memory_gib_hours: f64,
    /// Kernel and graph launches.
    pub launches: u64,
    /// Bytes copied to the device.
    pub bytes_to_device: u64,
    /// Bytes copied from the device.
    pub bytes_to_host: u64,
    /// Allocations and streams refused for a quota.
    pub refusals: u64,
    /// Broken contexts.
    pub faults: u64,
    /// Frames that were not what they claimed.
    pub decode_errors: u64,
}

/// What a VM may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Share of a contended device, 1 to 10000.
    pub weight: u32,
    /// `QUOTA PERIOD` in microseconds; the quota may be `max`.
    pub gpu_max: String,
    /// `latency`, `normal` or `idle`.
    pub tier: String,
    /// `realtime`, `interactive`, `throughput`, `batch`, or `auto`.
    pub class: String,
    /// Bytes of device memory, `null` for no limit.
    pub memory_max: Option<u64>,
    /// Bytes of device memory that no other VM can take from it.
    pub memory_min: u64,
    /// Guest processes at once, `null` for no limit.
    pub max_processes: Option<u32>,
    /// Streams at once, `null` for no limit.
    pub max_streams: Option<u32>,
    /// Whether primitives may leave bounds checks out: `allow` or `deny`.
    pub unchecked: String,
    /// Whether primitives marked LATENCY_CRITICAL go with the latency tier: `allow` or `deny`.
    pub latency_critical: String,
}

/// Sums since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Probes answered.
    pub probes: u64,
    /// Hellos refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Sessions ended, by the way in which they ended.
    pub ended: BTreeMap<String, u64>,
    /// Awaited calls of ended sessions.
    pub messages_sync: u64,
    /// Other calls of ended sessions.
    pub messages_async: u64,
    /// Launches of ended sessions.
    pub launches: u64,
    /// Bytes received in ended sessions.
    pub bytes_in: u64,
    /// Bytes sent in ended sessions.
    pub bytes_out: u64,
}
