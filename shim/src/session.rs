//! The session of this process: made by the first `cuInit`, never undone, poisoned in a forked child.

use crate::allocations::{Allocations, ParkedBlocks};
use crate::api::{Captures, Graphs, Greens, Links, Opened, Pools, Vmm};
use crate::arrays::Arrays;
use crate::callbacks::Callbacks;
use crate::handles::HandleTable;
use crate::link::Link;
use crate::lock;
use crate::log::{self, Level};
use crate::managed_variables::ManagedVariables;
use crate::memory::{Arena, Shared, Staging};
use crate::objects::{Context, Event, Function, Module, Progress, Stream};
use crate::watch::watch;
use pxos_guest::config::Config;
use pxos_protocol::control::{Hello, Purpose, Refusal, SharedLayout, Snapshot, Welcome, decode, encode};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{Header, VERSION, control};
use pxos_protocol::transport::{FrameReader, Socket, Transport, bar};
use pxos_protocol::types::{CUresult, HandleKind, attribute};
use std::collections::HashSet;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;

/// How long the server may take to greet: it may have to start a worker, whose driver takes about 0.4 s to initialise,
/// several at once on a busy host.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// Descriptors of ours have numbers from here on, where the process may have so many.
const HIGH: libc::c_int = 512;

/// Bytes under way on a socket: eight chunks of bulk data.
const SOCKET_BUFFER: u32 = 4 << 20;

/// Everything that this process shares with its worker.
#[derive(Debug)]
pub(crate) struct Session {
    /// The connection.
    pub(crate) link: Link,
    /// What does not change.
    pub(crate) snapshot: Snapshot,
    /// Where copies of pageable memory pass, where memory is shared with the server.
    pub(crate) staging: Option<Staging>,
    /// Where page-locked memory comes from, where memory is shared with the server at one address.
    pub(crate) arena: Option<Arena>,
    /// Live contexts.
    pub(crate) contexts: HandleTable<Context>,
    /// Each device's primary context, whose handle never changes.
    pub(crate) primaries: Vec<Arc<Context>>,
    /// Live streams.
    pub(crate) streams: HandleTable<Stream>,
    /// Live events.
    pub(crate) events: HandleTable<Event>,
    /// Live modules.
    pub(crate) modules: HandleTable<Module>,
    /// Live libraries.
    pub(crate) libraries: HandleTable<Module>,
    /// Functions of modules.
    pub(crate) functions: HandleTable<Function>,
    /// Kernels of libraries.
    pub(crate) kernels: HandleTable<Function>,
    /// Memory.
    pub(crate) allocations: Allocations,
    /// Memory pools.
    pub(crate) pools: Pools,
    /// Virtual memory management.
    pub(crate) vmm: Vmm,
    /// Other processes' memory that is open here.
    pub(crate) opened: Opened,
    /// States of the JIT linker.
    pub(crate) links: Links,
    /// Green contexts.
    pub(crate) greens: Greens,
    /// Blocks that were freed while the device was idle.
    pub(crate) parked: ParkedBlocks,
    /// Arrays, and the textures and surfaces over them.
    pub(crate) arrays: Arrays,
    /// Host callbacks.
    pub(crate) callbacks: Callbacks,
    /// Graphs.
    pub(crate) graphs: Graphs,
    /// Streams that are being captured.
    pub(crate) captures: Captures,
    /// What was advised about managed memory.
    pub(crate) advice: Mutex<pxos_protocol::advice::Advice>,
    /// Managed variables of modules.
    pub(crate) managed_variables: ManagedVariables,
    /// Hashes of the images that the worker has.
    pub(crate) images: Mutex<HashSet<[u64; 2]>>,
    /// The error that a fault left: every call answers it from then on.
    pub(crate) sticky: AtomicU32,
    /// Whether a stream was ever made that does not wait for the default stream.
    pub(crate) has_free_streams: AtomicBool,
    /// Whether the VM may have so many streams only, so that the host is asked for each.
    pub(crate) bounds_streams: bool,
    next_request: AtomicU64,
    next_context_id: AtomicU64,
}

static SESSION: OnceLock<Session> = OnceLock::new();
static CONNECTING: Mutex<()> = Mutex::new(());
static FORKED: AtomicBool = AtomicBool::new(false);

/// The session.
///
/// # Errors
/// `CUDA_ERROR_NOT_INITIALIZED` before `cuInit`, and for ever in a child that was forked after it (as natively).
#[inline]
pub(crate) fn session() -> Result<&'static Session, CUresult> {
    // Relaxed: set in the only thread of the child, before anything else runs there.
    if FORKED.load(Ordering::Relaxed) {
        return Err(CUresult::ERROR_NOT_INITIALIZED);
    }
    SESSION.get().ok_or(CUresult::ERROR_NOT_INITIALIZED)
}

/// The session if there is one in this process.
pub(crate) fn existing() -> Option<&'static Session> {
    session().ok()
}

/// Connects, unless this process is connected already.
///
/// # Errors
/// `CUDA_ERROR_NO_DEVICE` where no server can be reached, what the server says where it refuses.
pub(crate) fn initialise() -> Result<&'static Session, CUresult> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(CUresult::ERROR_NOT_INITIALIZED);
    }
    if let Some(session) = SESSION.get() {
        return Ok(session);
    }
    let _one_at_a_time = lock(&CONNECTING);
    if let Some(session) = SESSION.get() {
        return Ok(session);
    }
    let session = connect()?;
    static AT_FORK: Once = Once::new();
    AT_FORK.call_once(|| {
        // SAFETY: the child's handler only stores to atomics and sets rights of pages, which is allowed there.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child));
        };
    });
    let session = SESSION.get_or_init(|| session);
    session.link.arm_flusher();
    Ok(session)
}

extern "C" fn before_fork() {
    crate::exclusive::before_fork();
}

extern "C" fn after_fork_parent() {
    crate::exclusive::after_fork_parent();
}

extern "C" fn after_fork_child() {
    FORKED.store(true, Ordering::Relaxed);
    crate::exclusive::after_fork_child();
    crate::primitive::after_fork_child();
    pxos_cudart::after_fork_child();
}

fn connect() -> Result<Session, CUresult> {
    let config = Config::load();
    let mut tried = config.problems.clone();
    for endpoint in &config.endpoints {
        let bars = match &config.bar {
            _ if !config.shared_memory => Vec::new(),
            Some(path) => vec![path.clone()],
            None => bar::candidates(),
        };
        let mut greeted = greet(endpoint, &config, &bars);
        if let Err(GreetError::NoMemory(reason)) = &greeted {
            log::line(
                Level::Warn,
                format_args!("the VM's shared memory is not used, which is slower: {reason}"),
            );
            greeted = greet(endpoint, &config, &[]);
        }
        match greeted {
            Ok(Greeted { reader, socket, welcome, memory }) => {
                log::line(
                    Level::Info,
                    format_args!(
                        "connected to {endpoint}, session {} of VM '{}': {}",
                        welcome.session,
                        welcome.vm,
                        devices(&welcome.snapshot)
                    ),
                );
                let mut session = Session::open(reader, socket, welcome.snapshot, memory)?;
                session.bounds_streams = welcome.bounds_streams;
                return Ok(session);
            }
            Err(GreetError::Refused(refusal)) => {
                log::line(Level::Error, format_args!("{endpoint} refuses: {}", refusal.message));
                let result = CUresult(refusal.result);
                return Err(if result.is_success() { CUresult::ERROR_NO_DEVICE } else { result });
            }
            Err(GreetError::Failed(reason) | GreetError::NoMemory(reason)) => {
                tried.push(format!("{endpoint}: {reason}"));
            }
        }
    }
    log::line(
        Level::Error,
        format_args!(
            "no pxos-server reached ({}); start pxos-server on the host, or set PXOS_SERVER=unix:/path or \
             vsock:CID:PORT; `pxctl doctor` finds out more",
            tried.join("; ")
        ),
    );
    Err(CUresult::ERROR_NO_DEVICE)
}

enum GreetError {
    Failed(String),
    /// The part of the VM's memory cannot be mapped; without it there may be a session.
    NoMemory(String),
    Refused(Refusal),
}

/// A server that has answered.
struct Greeted {
    reader: FrameReader,
    socket: Socket,
    welcome: Welcome,
    memory: Option<Shared>,
}

fn greet(endpoint: &Endpoint, config: &Config, bars: &[PathBuf]) -> Result<Greeted, GreetError> {
    let failed = |error: &dyn std::fmt::Display| GreetError::Failed(error.to_string());
    let mut socket =
        Socket::from(out_of_the_way(Socket::connect(endpoint).map_err(|error| failed(&error))?.into()));
    if matches!(endpoint, Endpoint::Vsock { .. }) {
        socket.limit_sends(Some(config.vsock_send).filter(|bytes| *bytes != 0));
    }
    let hello = Hello {
        version: VERSION,
        fingerprint: pxos_protocol::fingerprint(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        purpose: Purpose::Session,
        pid: std::process::id(),
        program: program_name(),
        token: config.token.clone(),
        shared_memory: matches!(endpoint, Endpoint::Unix(_)) && config.shared_memory,
        bar: !bars.is_empty(),
        memory_max: config.memory_max,
    };
    socket.set_buffers(SOCKET_BUFFER);
    let payload = encode(&hello).map_err(|error| failed(&error))?;
    let mut header = Header::new(control::HELLO);
    header.length = u32::try_from(payload.len()).map_err(|error| failed(&error))?;
    let bytes = header.to_bytes();
    socket.send_all(&mut [IoSlice::new(&bytes), IoSlice::new(&payload)]).map_err(|error| failed(&error))?;
    socket.set_receive_timeout(Some(GREETING_TIMEOUT)).map_err(|error| failed(&error))?;
    let clone = socket.try_clone().map_err(|error| failed(&error))?;
    let mut reader = FrameReader::new(Socket::from(out_of_the_way(clone.into())));
    // The first bytes may come with a descriptor beside them.
    let beside = reader.fill_with_descriptors().map_err(|error| failed(&error))?;
    let header = reader.header().map_err(|error| failed(&error))?;
    let payload = reader.payload(&header).map_err(|error| failed(&error))?;
    match header.op {
        control::WELCOME => {
            let welcome: Welcome = decode(payload).map_err(|error| failed(&error))?;
            socket.set_receive_timeout(None).map_err(|error| failed(&error))?;
            if matches!(endpoint, Endpoint::Vsock { .. }) {
                watch([&mut socket, reader.socket_mut()], endpoint, config, welcome.instance)
                    .map_err(|error| failed(&error))?;
            }
            let memory = match (welcome.shared_memory, beside.first()) {
                (Some(layout @ SharedLayout { bar: Some(id), .. }), _) => {
                    let mapped = bar::find(bars, id).and_then(|fd| Shared::map(&fd, layout));
                    Some(mapped.map_err(|error| GreetError::NoMemory(error.to_string()))?)
                }
                (Some(layout), Some(fd)) => Some(Shared::map(fd, layout).map_err(|error| failed(&error))?),
                _ => None,
            };
            Ok(Greeted { reader, socket, welcome, memory })
        }
        control::REFUSAL => Err(decode(payload).map_or_else(|error| failed(&error), GreetError::Refused)),
        op => Err(GreetError::Failed(format!("it answered the hello with op {op}; is this a pxos-server?"))),
    }
}

/// What the server lets this process use, for the log: each device's name and how much of its memory.
fn devices(snapshot: &Snapshot) -> String {
    let shown = |device: &pxos_protocol::control::Device| {
        format!("{} with {} MiB for this VM", device.name, device.total_memory >> 20)
    };
    let devices: Vec<String> = snapshot.devices.iter().map(shown).collect();
    let place = if snapshot.software { ", which is the host's CPU" } else { "" };
    if devices.is_empty() { "no device".into() } else { format!("{}{place}", devices.join(", ")) }
}

/// A descriptor of ours at a number that no program picks for itself: shells put files of theirs at low numbers of their
/// own choice (`exec 3<>file`), whatever is there.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    // SAFETY: duplicates a live descriptor.
    let high = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, HIGH) };
    if high < 0 {
        return fd;
    }
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(high) }
}

pub(crate) fn program_name() -> String {
    let name =
        std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.unwrap_or_default()
}

impl Session {
    fn open(
        reader: FrameReader,
        socket: Socket,
        snapshot: Snapshot,
        memory: Option<Shared>,
    ) -> Result<Self, CUresult> {
        let Some(memory) = memory else {
            return Self::new(Link::over_socket(reader, socket), snapshot, None, None);
        };
        let rings = memory.rings().map_err(|error| {
            log::line(Level::Error, format_args!("the server's shared memory cannot be used: {error}"));
            CUresult::ERROR_OPERATING_SYSTEM
        })?;
        let Shared { staging, arena, .. } = memory;
        Self::new(Link::over_rings(rings, reader, socket), snapshot, Some(staging), arena)
    }

    fn new(
        link: Link,
        mut snapshot: Snapshot,
        staging: Option<Staging>,
        arena: Option<Arena>,
    ) -> Result<Self, CUresult> {
        if arena.is_none() {
            // Without memory at one address the device cannot reach the guest's: programs that ask are told so.
            for device in &mut snapshot.devices {
                for attribute in [attribute::MANAGED_MEMORY, attribute::CAN_MAP_HOST_MEMORY] {
                    if let Some(slot) = device.attributes.get_mut(attribute as usize) {
                        *slot = slot.map(|_| 0);
                    }
                }
            }
        }
        let contexts = HandleTable::new(HandleKind::Context);
        let next_context_id = AtomicU64::new(1);
        let primaries = (0..)
            .zip(&snapshot.devices)
            .map(|(device, _)| {
                let id = next_context_id.fetch_add(1, Ordering::Relaxed);
                contexts.mint(|handle| Context {
                    handle,
                    device,
                    id,
                    primary: true,
                    flags: AtomicU32::new(0),
                    retained: AtomicU32::new(0),
                    cache_config: AtomicU32::new(0),
                    shared_config: AtomicU32::new(0),
                    work: Progress::default(),
                    legacy: Progress::default(),
                    legacy_waited: AtomicU64::new(0),
                    lives: AtomicU64::new(0),
                    next_stream_id: AtomicU64::new(3),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            link,
            snapshot,
            staging,
            arena,
            contexts,
            primaries,
            streams: HandleTable::new(HandleKind::Stream),
            events: HandleTable::new(HandleKind::Event),
            modules: HandleTable::new(HandleKind::Module),
            libraries: HandleTable::new(HandleKind::Library),
            functions: HandleTable::new(HandleKind::Function),
            kernels: HandleTable::new(HandleKind::Kernel),
            allocations: Allocations::default(),
            pools: Pools::default(),
            vmm: Vmm::default(),
            opened: Opened::default(),
            links: Links::default(),
            greens: Greens::default(),
            parked: ParkedBlocks::default(),
            arrays: Arrays::default(),
            callbacks: Callbacks::default(),
            graphs: Graphs::default(),
            captures: Captures::default(),
            advice: Mutex::default(),
            managed_variables: ManagedVariables::default(),
            images: Mutex::default(),
            sticky: AtomicU32::new(0),
            has_free_streams: AtomicBool::new(false),
            bounds_streams: false,
            next_request: AtomicU64::new(1),
            next_context_id,
        })
    }

    /// A number for the next call.
    pub(crate) fn next_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for the next context.
    pub(crate) fn next_context_id(&self) -> u64 {
        self.next_context_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the worker and the device see host memory at `address`, if they do.
    pub(crate) fn shared_address(&self, address: u64) -> Option<u64> {
        self.arena.as_ref()?;
        self.allocations.find(address)?.shared_address(address)
    }

    /// A function or a kernel: the two share one space (measured: cudart 13 launches kernels as functions).
    pub(crate) fn function(&self, raw: u64) -> Option<Arc<Function>> {
        self.kernels.get(raw).or_else(|| self.functions.get(raw))
    }
}
