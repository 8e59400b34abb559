//! Admission: from an accepted connection to a worker, a probe's answers, or a refusal.
//!
//! One thread for each connection that has no session yet, at most `max_connecting` of them and half of that from one
//! VM, each with a deadline: a guest that says nothing, or says it slowly, holds up nobody. What the guest sends is hostile until it is a session,
//! and then it is its worker's. Exactly the hello is read here, so that nothing behind it can be lost.

use super::bar;
use super::identity::{Admitted, Denied, describe, identify, origin};
use super::process::{Phase, Worker};
use super::session::{Full, Place, Session};
use super::{Daemon, inquiry, refusal::Reason, system, tls};
use crate::config::SharedFile;
use crate::handoff::{Assign, HandoffError, Limits, Memory, SOFTWARE};
use crate::log::printable;
use crate::quota;
use crate::vm::Policy;
use crate::vm::registry::Vm;
use parking_lot::Mutex;
use pxos_protocol::control::{self, Hello, Purpose};
use pxos_protocol::endpoint::Endpoint;
use pxos_protocol::frame::{self, HEADER, Header};
use pxos_protocol::transport::{Peer, Socket, Transport};
use pxos_tls::TlsError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tracing::{info, warn};

/// Longest hello: names and a token.
const HELLO_MAX: u32 = 16 << 10;
/// How long a peer may take to receive an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a peer that sent more than a hello may take to close after its refusal.
const LINGER: Duration = Duration::from_millis(300);
/// How soon a worker has noticed that its guest is gone.
const NOTICED: Duration = Duration::from_millis(100);
/// How long a worker may take to give back its slot of a VM's memory; beyond it a guest goes without.
const GIVEN_BACK: Duration = Duration::from_secs(5);
/// Workers that may die under a guest before it is told.
const TRIES: usize = 3;

/// The beginning of every hello, of whatever version: enough to say which two versions do not agree.
#[derive(Debug, Deserialize)]
struct Prefix {
    version: u32,
    fingerprint: u64,
    software: String,
}

/// Counts connections that are being admitted, by where they come from.
#[derive(Debug, Default)]
pub(super) struct Connecting(Mutex<BTreeMap<String, usize>>);

/// One of them.
struct Waiting {
    daemon: Arc<Daemon>,
    origin: String,
}

impl Waiting {
    /// A place among `most`, of which one origin (a VM, a socket, an address) gets half, so that none keeps others out.
    fn take(daemon: &Arc<Daemon>, origin: String, most: usize) -> Result<Self, Refused> {
        let mut connecting = daemon.connecting.0.lock();
        let (all, of_origin) =
            (connecting.values().sum::<usize>(), connecting.get(&origin).copied().unwrap_or(0));
        if all >= most || of_origin >= most.div_ceil(2) {
            let message = format!(
                "{all} connections wait already, {of_origin} of them from here (max_connecting is {most})"
            );
            return Err(Refused(Reason::Connecting, message));
        }
        *connecting.entry(origin.clone()).or_default() += 1;
        Ok(Self { daemon: Arc::clone(daemon), origin })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut connecting = self.daemon.connecting.0.lock();
        if let Some(count) = connecting.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                connecting.remove(&self.origin);
            }
        }
    }
}

/// Why there is no session, with the line that the guest is told.
pub(super) struct Refused(pub(super) Reason, pub(super) String);

/// Admits a connection in a thread of its own.
pub(super) fn spawn(daemon: &Arc<Daemon>, endpoint: &Endpoint, socket: Socket, peer: Peer) {
    daemon.totals.connection();
    let from = describe(endpoint, &peer);
    let slot = match Waiting::take(daemon, origin(endpoint, &peer), daemon.config().max_connecting) {
        Ok(slot) => slot,
        Err(refused) => return refuse(daemon, &socket, &from, &refused, false),
    };
    let endpoint = endpoint.clone();
    let admit = move || {
        let daemon = Arc::clone(&slot.daemon);
        let deadline = Instant::now() + daemon.config().hello_timeout;
        let (socket, peer) = match (&endpoint, peer) {
            (Endpoint::Tls(_), Peer::Tcp { address }) => {
                match tls::accept(&daemon, socket, address, deadline) {
                    Ok(accepted) => accepted,
                    // TLS has told the guest what it can tell.
                    Err(error) => return note(&daemon, &from, &of_tls(&error)),
                }
            }
            (_, peer) => (socket, peer),
        };
        if let Err(refused) = admit(&daemon, &endpoint, (&socket, deadline), &peer, &from) {
            refuse(&daemon, &socket, &from, &refused, true);
        }
    };
    if let Err(error) = super::spawn_thread("admit".into(), admit)
        && daemon.limits.accept.pass().is_some()
    {
        warn!(%error, "no thread for a connection; it is closed");
    }
}

fn of_tls(error: &TlsError) -> Refused {
    let reason = match error {
        TlsError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Reason::Timeout,
        TlsError::Io(_) => Reason::Closed,
        TlsError::File { .. } | TlsError::Settings(_) | TlsError::Peer(_) => Reason::Denied,
    };
    Refused(reason, format!("TLS: {error}"))
}

fn admit(
    daemon: &Arc<Daemon>,
    endpoint: &Endpoint,
    (socket, deadline): (&Socket, Instant),
    peer: &Peer,
    from: &str,
) -> Result<(), Refused> {
    let config = daemon.config();
    socket.set_send_timeout(Some(ANSWER_TIMEOUT)).map_err(|error| malformed(&error))?;
    let hello = read_hello(socket, deadline)?;
    if daemon.is_draining() {
        return Err(Refused(Reason::Draining, "the server is shutting down".into()));
    }
    let admitted = identify(&config, &daemon.vms.rules(), endpoint, peer, hello.token.as_deref())
        .map_err(|denied| Refused(Reason::Denied, denied.to_string()))?;
    let known = daemon.vms.find(&admitted.vm);
    // A stranger whom an operator denied stays denied as long as the daemon lives.
    let rights = known.as_ref().map_or_else(|| admitted.rights.clone(), |vm| vm.rights());
    if rights.policy == Policy::Deny {
        return Err(Refused(Reason::Denied, Denied::Policy(admitted.vm).to_string()));
    }
    match hello.purpose {
        Purpose::Probe => inquiry::probe(daemon, socket, &hello, &admitted.vm, &rights),
        Purpose::Session => {
            let place = reserve(daemon, &admitted, config.max_sessions)?;
            let shared = share(daemon, endpoint, &admitted.vm, &hello);
            begin(daemon, socket, &place, (hello, shared), from, config.pool.wait_timeout)
        }
    }
}

/// A place for a session of the guest's VM, which is entered in the registry from then on.
fn reserve<'a>(daemon: &'a Arc<Daemon>, admitted: &Admitted, most: usize) -> Result<Place<'a>, Refused> {
    loop {
        let vm = daemon
            .vms
            .find_or_stranger(&admitted.vm, &admitted.rights)
            .map_err(|error| Refused(Reason::Full, format!("no memory for the VM's quota: {error}")))?;
        let place = daemon.sessions.reserve(&vm, most).map_err(|full| {
            let reason = match full {
                Full::Draining(_) => Reason::Draining,
                Full::Server(_) | Full::Vm(..) => Reason::Full,
            };
            Refused(reason, full.to_string())
        })?;
        // A stranger goes with its last session, which may have been just now: two of one name would be two quotas.
        if daemon.vms.find(&vm.name).is_some_and(|found| found.number == vm.number) {
            return Ok(place);
        }
    }
}

/// Reads a hello: exactly its bytes, until `deadline`, of a version that is ours.
fn read_hello(socket: &Socket, deadline: Instant) -> Result<Hello, Refused> {
    let mut bytes = [0; HEADER];
    read_exact(socket, &mut bytes, deadline)?;
    let header = Header::from_bytes(&bytes).map_err(|error| malformed(&error))?;
    if header.op != frame::control::HELLO {
        return Err(malformed(&format_args!("the first frame is of op {}, not a hello", header.op)));
    }
    if header.length > HELLO_MAX {
        return Err(malformed(&format_args!("a hello of {} bytes (limit {HELLO_MAX})", header.length)));
    }
    let mut payload = vec![0; header.length as usize];
    read_exact(socket, &mut payload, deadline)?;
    let prefix: Prefix = control::decode(&payload).map_err(|error| malformed(&error))?;
    check_version(&prefix)?;
    let mut hello: Hello = control::decode(&payload).map_err(|error| malformed(&error))?;
    if system::unread(socket) == system::Unread::Bytes {
        return Err(malformed(&"bytes behind the hello, before the welcome"));
    }
    hello.program = printable(&hello.program, 64);
    hello.software = printable(&hello.software, 32);
    Ok(hello)
}

fn check_version(prefix: &Prefix) -> Result<(), Refused> {
    let theirs = printable(&prefix.software, 32);
    if prefix.version != frame::VERSION {
        let message = format!(
            "the guest's pxOS {theirs} speaks wire version {}, this server's pxOS {SOFTWARE} speaks {}; install the \
             same version on both sides",
            prefix.version,
            frame::VERSION
        );
        return Err(Refused(Reason::Version, message));
    }
    let ours = pxos_protocol::fingerprint();
    if prefix.fingerprint != ours {
        let message = format!(
            "the guest's pxOS {theirs} has API table {:016x}, this server's pxOS {SOFTWARE} has {ours:016x}; install \
             the same build on both sides",
            prefix.fingerprint
        );
        return Err(Refused(Reason::Version, message));
    }
    Ok(())
}

/// What was sent is no hello, or not what may follow it.
pub(super) fn malformed(error: &dyn std::fmt::Display) -> Refused {
    Refused(Reason::Malformed, error.to_string())
}

/// Fills `buffer` until `deadline`, and reads no byte more.
pub(super) fn read_exact(socket: &Socket, mut buffer: &mut [u8], deadline: Instant) -> Result<(), Refused> {
    while !buffer.is_empty() {
        match system::poll([socket.as_fd()], Some(deadline)) {
            Ok([true]) => {}
            Ok([false]) => return Err(Refused(Reason::Timeout, "no hello came in time".into())),
            Err(error) => return Err(malformed(&error)),
        }
        match socket.receive(buffer) {
            Ok(0) => return Err(Refused(Reason::Closed, "the connection closed before a hello".into())),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) => return Err(Refused(Reason::Closed, format!("the connection broke: {error}"))),
        }
    }
    Ok(())
}

/// The memory that the guest will share with its worker: a slot of its VM's where there is one and the guest can map it, else
/// the worker's own where a descriptor can reach the guest.
fn share(daemon: &Daemon, endpoint: &Endpoint, vm: &str, hello: &Hello) -> (Memory, Option<bar::Slot>) {
    let config = daemon.config();
    if let Some(shared) = config.shared.iter().find(|shared| hello.bar && shared.vm == vm) {
        match take_part(daemon, shared, vm) {
            Ok(part) => return (part.memory(), Some(part)),
            Err(error) => {
                if let Some(suppressed) = daemon.limits.bar.pass() {
                    warn!(vm, suppressed, "a session has no shared memory: {error}");
                }
            }
        }
    }
    // Behind the sockets of a VM is the VMM, which would get the descriptor and keep it from the guest.
    let reaches = matches!(endpoint, Endpoint::Unix(_)) && hello.shared_memory;
    (if reaches { Memory::Beside } else { Memory::None }, None)
}

/// A slot of the VM's memory. The last owner's worker may still be giving back what it held, since its guest was faster to start
/// the next program: that is waited for.
fn take_part(daemon: &Daemon, shared: &SharedFile, vm: &str) -> Result<bar::Slot, bar::NoSlot> {
    let start = Instant::now();
    loop {
        // Asked first: what is given back in between is free by the time that it is taken.
        let waits = start.elapsed() < NOTICED
            || (start.elapsed() < GIVEN_BACK && daemon.sessions.gives_back_part(vm));
        match daemon.bars.take(shared) {
            Err(bar::NoSlot::Taken(_)) if waits => std::thread::sleep(Duration::from_millis(5)),
            taken => return taken,
        }
    }
}

/// Hands the connection to a warm worker.
fn begin(
    daemon: &Arc<Daemon>,
    socket: &Socket,
    place: &Place<'_>,
    (mut hello, (memory, mut part)): (Hello, (Memory, Option<bar::Slot>)),
    from: &str,
    timeout: Duration,
) -> Result<(), Refused> {
    hello.token = None;
    let vm = &place.vm;
    // What holds at this moment holds for the whole session.
    let rights = vm.rights();
    let devices = daemon.devices_of(&rights).map_err(|message| Refused(Reason::NoWorker, message))?;
    let limits = rights.limits;
    let own = hello.memory_max;
    let slot = vm.quota.enter(place.id, own).map(|number| Slot { vm: Arc::clone(vm), number, kept: false });
    let mut slot = slot.ok_or_else(|| {
        Refused(Reason::Full, format!("VM '{}' has {} sessions, more than any may", vm.name, quota::SLOTS))
    })?;
    // Before its worker can take memory: others may be promised some of what it sees.
    daemon.pledging.changed(daemon);
    socket.set_send_timeout(None).map_err(|error| malformed(&error))?;
    let deadline = Instant::now() + timeout;
    for _ in 0..TRIES {
        let gone = || system::unread(socket) == system::Unread::End;
        let left = deadline.saturating_duration_since(Instant::now());
        let worker = daemon.pool.take(&devices.visible, left, gone).map_err(|error| {
            use super::pool::NoWorker;
            let reason = match error {
                NoWorker::Closed => Reason::Draining,
                NoWorker::Gone => Reason::Closed,
                NoWorker::Timeout(_) | NoWorker::Failing(_) => Reason::NoWorker,
            };
            Refused(reason, error.to_string())
        })?;
        let assign = Assign {
            session: place.id,
            vm: vm.name.clone(),
            hello: hello.clone(),
            peer: from.to_owned(),
            software: SOFTWARE.to_owned(),
            instance: daemon.instance,
            slot: slot.number,
            limits: Limits {
                memory_max: least(limits.memory_max, own),
                bounds_streams: limits.max_streams.is_some(),
                unchecked: limits.unchecked,
            },
            memory,
            exchange: daemon.exchange.of(&vm.name),
        };
        if hand_over(daemon, &worker, vm, (assign, &devices.numbers), (socket, &mut part)) {
            slot.kept = true;
            // Its context is there, and its devices are known by it, whatever its VM may see by now.
            daemon.pledging.changed(daemon);
            info!(
                session = place.id,
                vm = vm.name,
                program = hello.program,
                pid = hello.pid,
                from,
                software = hello.software,
                worker = worker.pid,
                memory = %memory,
                gpus = %devices.visible,
                memory_max = crate::config::limits::text(&limits, "memory_max"),
                weight = limits.weight,
                "session begins"
            );
            let text = format!("{} (pid {}) of {from} begins", hello.program, hello.pid);
            daemon.journal.note("session.begin", Some(&vm.name), Some(place.id), text);
            return Ok(());
        }
    }
    Err(Refused(Reason::NoWorker, format!("{TRIES} workers died before they took the session")))
}

/// A slot of a VM's quota, which is free again when this goes, unless a session has it.
struct Slot {
    vm: Arc<Vm>,
    number: usize,
    kept: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.kept {
            self.vm.quota.clear(self.number);
        }
    }
}

/// The smaller of two limits.
pub(super) fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// Whether the worker took it, and with it its part of the VM's memory. Under the phase's lock, so that its watcher sees either no session or all of it.
fn hand_over(
    daemon: &Arc<Daemon>,
    worker: &Arc<Worker>,
    vm: &Arc<Vm>,
    (assign, devices): (Assign, &[usize]),
    (socket, part): (&Socket, &mut Option<bar::Slot>),
) -> bool {
    let mut phase = worker.phase.lock();
    if *phase != Phase::Warm {
        return false;
    }
    let id = assign.session;
    // The worker gets descriptors of its own, whether or not the session takes ours.
    let file = part.as_ref().map(|part| part.fd().try_clone_to_owned()).transpose();
    let Ok(file) = file else { return false };
    let session = Session {
        memory: assign.memory,
        part: part.take(),
        connection: socket.try_clone().ok(),
        vm: Arc::clone(vm),
        program: assign.hello.program.clone(),
        pid: assign.hello.pid,
        software: assign.hello.software.clone(),
        peer: assign.peer.clone(),
        slot: assign.slot,
        devices: devices.to_vec(),
        own_limit: assign.hello.memory_max,
        worker: Arc::clone(worker),
        started: (SystemTime::now(), Instant::now()),
        dismissed: false,
    };
    daemon.sessions.begin(id, session);
    // Before the worker says its welcome: who has a session sees that it is counted.
    daemon.totals.session();
    daemon.accounts.begin(&vm.name);
    vm.quota.set_context(assign.slot, worker.overhead.load(Ordering::Relaxed));
    let gate = daemon.scheduling.begin(id, vm, devices).map_err(HandoffError::from);
    let assigned = gate.and_then(|(page, bell)| {
        let gate = [page.as_fd(), bell.as_fd()];
        let quota = [daemon.pledging.bell(), vm.quota.descriptor()];
        worker.assign(assign, gate, quota, socket.as_fd(), file.as_ref().map(AsFd::as_fd))
    });
    match assigned {
        Ok(()) => {
            *phase = Phase::Assigned(id);
            true
        }
        Err(error) => {
            warn!(worker = worker.pid, %error, "a warm worker takes no session; it is killed");
            daemon.totals.no_session();
            *part = daemon.sessions.take_back(id);
            daemon.scheduling.end(id);
            *phase = Phase::Gone;
            worker.kill();
            false
        }
    }
}

/// Sends a frame.
pub(super) fn send(socket: &Socket, mut header: Header, payload: &[u8]) -> io::Result<()> {
    header.length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    socket.send_all(&mut [IoSlice::new(&header.to_bytes()), IoSlice::new(payload)])
}

/// Counts and logs.
fn note(daemon: &Arc<Daemon>, from: &str, Refused(reason, message): &Refused) {
    daemon.totals.refused(*reason);
    if let Some(suppressed) = daemon.limits.refusal[*reason as usize].pass() {
        warn!(from, reason = reason.name(), suppressed, "refused: {message}");
        daemon.journal.note("refused", None, None, format!("{from}: {}: {message}", reason.name()));
    }
}

/// Counts, logs and tells. Where bytes may lie unread it waits a moment for the peer to close, because a close before
/// that can cost the peer the message.
fn refuse(daemon: &Arc<Daemon>, socket: &Socket, from: &str, refused: &Refused, linger: bool) {
    note(daemon, from, refused);
    let Refused(reason, message) = refused;
    if matches!(reason, Reason::Closed) {
        return;
    }
    let refusal = control::Refusal { result: reason.result().0, message: message.clone() };
    let _ = socket.set_send_timeout(Some(ANSWER_TIMEOUT));
    let Ok(payload) = control::encode(&refusal) else { return };
    let linger = linger && *reason == Reason::Malformed;
    if send(socket, Header::new(frame::control::REFUSAL), &payload).is_err() || !linger {
        return;
    }
    let deadline = Instant::now() + LINGER;
    let mut rest = [0; 4096];
    for _ in 0..16 {
        match system::poll([socket.as_fd()], Some(deadline)) {
            Ok([true]) if matches!(socket.receive(&mut rest), Ok(1..)) => {}
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: frame::VERSION,
            fingerprint: pxos_protocol::fingerprint(),
            software: "9.9.9".into(),
            purpose: Purpose::Session,
            pid: 1,
            program: "app\u{1b}[2J".into(),
            token: None,
            shared_memory: false,
            bar: false,
            memory_max: None,
        }
    }

    fn frame_of(hello: &Hello) -> Vec<u8> {
        let payload = control::encode(hello).unwrap();
        let mut header = Header::new(frame::control::HELLO);
        header.length = u32::try_from(payload.len()).unwrap();
        [&header.to_bytes()[..], &payload].concat()
    }

    fn read(bytes: &[u8], close: bool) -> Result<Hello, (Reason, String)> {
        let (ours, theirs) = Socket::pair().unwrap();
        theirs.send_all(&mut [IoSlice::new(bytes)]).unwrap();
        let theirs = (!close).then_some(theirs);
        let deadline = Instant::now() + Duration::from_millis(30);
        let result = read_hello(&ours, deadline).map_err(|Refused(reason, message)| (reason, message));
        drop(theirs);
        result
    }

    #[test]
    fn a_good_hello_is_read_and_made_fit_for_a_log() {
        let hello = read(&frame_of(&hello()), false).unwrap();
        assert_eq!(hello.program, "app?[2J");
    }

    #[test]
    fn versions_that_differ_are_both_named() {
        let (reason, message) = read(&frame_of(&Hello { version: 77, ..hello() }), false).unwrap_err();
        assert_eq!(reason, Reason::Version);
        assert!(message.contains("9.9.9 speaks wire version 77"), "{message}");
        assert!(message.contains(&format!("{SOFTWARE} speaks {}", frame::VERSION)), "{message}");
        let (reason, message) = read(&frame_of(&Hello { fingerprint: 0xabc, ..hello() }), false).unwrap_err();
        assert_eq!(reason, Reason::Version);
        assert!(message.contains("0000000000000abc") && message.contains("9.9.9"), "{message}");
        // A version whose hello goes on differently is still told which version it is.
        let other = control::encode(&(78u32, 5u64, "78.0".to_owned(), [0xffu8; 3])).unwrap();
        let mut header = Header::new(frame::control::HELLO);
        header.length = u32::try_from(other.len()).unwrap();
        let (reason, message) = read(&[&header.to_bytes()[..], &other].concat(), false).unwrap_err();
        assert_eq!(reason, Reason::Version, "{message}");
    }

    #[test]
    fn everything_else_is_refused_for_what_it_is() {
        let good = frame_of(&hello());
        let reason = |bytes: &[u8], close| read(bytes, close).unwrap_err().0;
        assert_eq!(reason(b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n", false), Reason::Malformed);
        assert_eq!(reason(&[0; 64], false), Reason::Malformed);
        assert_eq!(reason(&good[..20], false), Reason::Timeout);
        assert_eq!(reason(&good[..good.len() - 8], false), Reason::Timeout);
        assert_eq!(reason(&good[..good.len() - 8], true), Reason::Closed);
        assert_eq!(reason(&[], true), Reason::Closed);
        assert_eq!(reason(&[&good[..], &[0; 32]].concat(), false), Reason::Malformed);
        let mut ping = Header::new(frame::control::PING);
        assert_eq!(reason(&ping.to_bytes(), false), Reason::Malformed);
        ping.op = frame::control::HELLO;
        ping.length = HELLO_MAX + 8;
        assert_eq!(reason(&ping.to_bytes(), false), Reason::Malformed);
        // A string that claims to be longer than everything.
        let mut lying = good;
        lying[HEADER + 12..HEADER + 20].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(reason(&lying, false), Reason::Malformed);
    }
}
