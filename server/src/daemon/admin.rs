//! The control socket: one JSON request per line, one JSON reply per line ([`pxos_protocol::admin`]). Operators only.

use super::admit::least;
use super::session::Session;
use super::{Daemon, accounts, listen, pledges, spawn_thread, system, usage, vms};
use crate::vm::gpus;
use pxos_protocol::admin::{self, Answer, Counters, MAX_REQUEST, Reply, Request, Status};
use pxos_protocol::control::Snapshot;
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::transport::{Listener, Socket};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Operators at once.
const CONNECTIONS: usize = 32;
/// How long one may say nothing.
const IDLE: Duration = Duration::from_secs(300);
/// How often it is looked whether one who follows is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long one may take to receive an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Binds the control socket.
///
/// # Errors
/// The operating system's, `AddrInUse` where another server answers there.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Listener> {
    listen::bind(&Endpoint::Unix(path.to_owned()), mode)
}

/// Answers at the control socket as long as the daemon lives.
pub(super) fn serve(daemon: &Arc<Daemon>, listener: Listener) -> io::Result<()> {
    let daemon = Arc::clone(daemon);
    spawn_thread("control".into(), move || {
        loop {
            match listener.accept() {
                Ok((socket, _)) => accept(&daemon, socket),
                Err(error) => {
                    if daemon.limits.accept.pass().is_some() {
                        warn!(%error, "a connection to the control socket cannot be accepted");
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    })
    .map(drop)
}

fn accept(daemon: &Arc<Daemon>, socket: Socket) {
    struct Open;
    impl Drop for Open {
        fn drop(&mut self) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let others = OPEN.fetch_add(1, Ordering::Relaxed);
    let open = Open;
    let stream = UnixStream::from(OwnedFd::from(socket));
    if others >= CONNECTIONS {
        let _ = write_reply(&stream, &Reply::Error(format!("{CONNECTIONS} operators are connected already")));
        return;
    }
    let daemon = Arc::clone(daemon);
    let result = spawn_thread("operator".into(), move || {
        let _open = open;
        let _ = converse(&daemon, &stream);
    });
    if let Err(error) = result {
        warn!(%error, "no thread for an operator");
    }
}

fn converse(daemon: &Arc<Daemon>, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(SEND_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_REQUEST).expect("small");
        if (&mut reader).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() >= MAX_REQUEST {
            return write_reply(stream, &Reply::Error(format!("a request of more than {MAX_REQUEST} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Events { since, follow }) => {
                tell(daemon, stream, since, follow)?;
                continue;
            }
            Ok(request) => answer(daemon, &request),
            Err(error) => Reply::Error(format!("this is no request: {error}")),
        };
        write_reply(stream, &reply)?;
    }
}

fn write_reply(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn answer(daemon: &Arc<Daemon>, request: &Request) -> Reply {
    let answer = match request {
        Request::Status {} => return Reply::Ok(Answer::Status(Box::new(status(daemon)))),
        Request::Kill { id } if daemon.sessions.dismiss(*id) => {
            info!(session = id, "an operator ends the session");
            Ok(Answer::Done(format!("session {id} ends")))
        }
        Request::Kill { id } => Err(format!("there is no session {id}")),
        Request::VmList {} => return vms::list(daemon),
        Request::VmShow { name } => vms::show(daemon, name),
        Request::VmCreate { name, identity, set } => vms::create(daemon, name, identity, set),
        Request::VmSet { name, set, check } => vms::set(daemon, name, set, *check),
        Request::VmDrain { name, undo } => vms::drain(daemon, name, *undo),
        Request::VmKill { name } => vms::kill(daemon, name),
        Request::VmDestroy { name } => vms::destroy(daemon, name),
        Request::Decisions { since } => Ok(Answer::Decisions(daemon.scheduling.decisions(*since))),
        Request::Accounting {} => Ok(Answer::Accounting(accounts::report(daemon))),
        // Answered by more than one line, before this is reached.
        Request::Events { .. } => Err("events are followed, not answered".into()),
    };
    answer.map_or_else(Reply::Error, Reply::Ok)
}

/// Writes what happened, and goes on with what happens where the operator follows.
fn tell(daemon: &Arc<Daemon>, stream: &UnixStream, mut since: u64, follow: bool) -> io::Result<()> {
    let write = |events: Vec<admin::Event>, since: &mut u64| -> io::Result<()> {
        for event in events {
            *since = event.number;
            write_reply(stream, &Reply::Ok(Answer::Event(event)))?;
        }
        Ok(())
    };
    write(daemon.journal.after(since), &mut since)?;
    while follow && system::unread(stream) == system::Unread::Nothing {
        write(daemon.journal.wait(since, LOOK), &mut since)?;
    }
    write_reply(stream, &Reply::Ok(Answer::Done(format!("up to event {since}"))))
}

/// Everything at this moment.
fn status(daemon: &Arc<Daemon>) -> Status {
    let config = daemon.config();
    let pool = daemon.pool.view();
    let snapshot = daemon.pool.snapshot();
    let promised = pledges::promised(daemon);
    let devices = snapshot
        .iter()
        .flat_map(|snapshot| (0..snapshot.devices.len()).map(|at| device(snapshot, at, &promised)));
    let software = snapshot.as_ref().is_none_or(|snapshot| snapshot.software);
    Status {
        server: admin::Server {
            software: crate::handoff::SOFTWARE.to_owned(),
            wire: pxos_protocol::frame::VERSION,
            fingerprint: format!("{:016x}", pxos_protocol::fingerprint()),
            pid: std::process::id(),
            state: daemon.state().to_owned(),
            started: seconds(daemon.started.0),
            uptime: daemon.started.1.elapsed().as_secs(),
            config: config.file.clone(),
            advisor: (config.advisor.url.clone(), config.advisor.model.clone()),
        },
        driver: admin::Driver {
            configured: config.driver.to_string(),
            path: pool.driver.map(|driver| driver.path),
            version: snapshot.as_ref().map(|snapshot| snapshot.driver_version),
            software: snapshot.as_ref().is_some_and(|snapshot| snapshot.software),
            fallback: pool.fallback,
        },
        devices: devices.collect(),
        listeners: daemon.endpoints.view(),
        pool: admin::Pool {
            size: pool.size,
            warm: pool.warm.len(),
            starting: pool.starting,
            waiting: pool.waiting,
            memory: pool
                .warm
                .iter()
                .map(|worker| worker.stats.context_bytes.load(Ordering::Relaxed))
                .fold(0, u64::saturating_add),
            failures: pool.failures,
            last_failure: pool.last_failure,
        },
        sessions: daemon.sessions.map(|id, session| admin::Session {
            id,
            vm: session.vm.name.clone(),
            program: session.program.clone(),
            pid: session.pid,
            peer: session.peer.clone(),
            software: session.software.clone(),
            worker: session.worker.pid,
            started: seconds(session.started.0),
            uptime: session.started.1.elapsed().as_secs(),
            shared_memory: session.memory.to_string(),
            counters: Counters {
                memory_limit: least(session.vm.limits().memory_max, session.own_limit).unwrap_or(0),
                ..session.worker.stats.read()
            },
            usage: usage::of_session(daemon, id),
            gpus: session.devices.clone(),
            audited: if software { None } else { audit(daemon, session) },
        }),
        totals: daemon.totals.view(),
    }
}

/// What NVML says of a session's worker; what is beyond its allocations is the overhead of its contexts.
fn audit(daemon: &Daemon, session: &Session) -> Option<u64> {
    let held = daemon.nvml.memory_of(session.worker.pid)?;
    let allocated = session.vm.quota.of(session.slot).used;
    session.vm.quota.set_context(session.slot, held.saturating_sub(allocated));
    Some(held)
}

fn device(snapshot: &Snapshot, ordinal: usize, promised: &[u64]) -> admin::Device {
    use pxos_protocol::types::attribute;
    let device = &snapshot.devices[ordinal];
    admin::Device {
        ordinal,
        name: crate::log::printable(&device.name, 64),
        uuid: gpus::uuid_of(snapshot, ordinal),
        pci: crate::log::printable(&device.pci_bus_id, 32),
        promised: promised.get(ordinal).copied().unwrap_or(0),
        total_memory: device.total_memory,
        compute_capability: (
            device.attribute(attribute::COMPUTE_CAPABILITY_MAJOR),
            device.attribute(attribute::COMPUTE_CAPABILITY_MINOR),
        ),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
