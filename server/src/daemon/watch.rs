//! Watching one worker from its start to its end: one thread, which sleeps until the worker speaks or dies.
//!
//! Whatever a worker does, it ends here: one that is not ready in time, says what it may not say, or stays although its
//! control socket is closed, is killed; and every one is waited for.

use super::process::{Phase, Worker};
use super::session::Session;
use super::{Daemon, Event, system};
use crate::handoff::{self, EndReason, FromWorker};
use crate::vm::gpus;
use pxos_protocol::admin::Usage;
use pxos_protocol::control::Snapshot;
use pxos_protocol::transport::descriptors::is_unix;
use pxos_protocol::transport::{Socket, Transport};
use pxos_protocol::types::attribute;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long a worker may take to end once its control socket is closed: time for a word to its guest.
const DISMISSED: Duration = Duration::from_secs(1);
/// How long a worker may take to end once it said that it does: the driver gives back all memory.
const ENDING: Duration = Duration::from_secs(10);

/// Watches `worker` in a thread of its own.
pub(super) fn spawn(daemon: &Arc<Daemon>, worker: Arc<Worker>, child: Child) {
    let daemon = Arc::clone(daemon);
    let name = format!("worker-{}", worker.pid);
    let other = Arc::clone(&worker);
    let spawned = super::spawn_thread(name, move || watch(&daemon, &worker, child));
    if let Err(error) = spawned {
        // Nobody would ever wait for it; its death by this is seen by nobody but the kernel.
        warn!(worker = other.pid, %error, "no thread to watch a worker; it is killed");
        other.kill();
    }
}

/// What a worker said that matters after its death.
#[derive(Debug, Default)]
struct Said {
    failed: Option<String>,
    ended: Option<(EndReason, String)>,
    wrong: Option<String>,
}

fn watch(daemon: &Arc<Daemon>, worker: &Arc<Worker>, mut child: Child) {
    let mut said = Said::default();
    let start_timeout = daemon.config().pool.start_timeout;
    let mut deadline = Some(Instant::now() + start_timeout);
    let mut listening = true;
    loop {
        let control = if listening { worker.control().as_fd() } else { worker.process() };
        let ready = system::poll([worker.process(), control], deadline);
        let [dead, speaks] = ready.unwrap_or([true, false]);
        if listening && speaks {
            match hear(daemon, worker, &mut said) {
                Heard::Ready => deadline = None,
                Heard::Last => deadline = Some(Instant::now() + ENDING),
                Heard::Closed => {
                    listening = false;
                    deadline = Some(Instant::now() + DISMISSED);
                }
                Heard::Wrong => {
                    listening = false;
                    worker.kill();
                    deadline = None;
                }
            }
        } else if dead {
            break;
        } else if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            if *worker.phase.lock() == Phase::Starting && said.failed.is_none() {
                said.failed = Some(format!("the worker was not ready within {start_timeout:?}"));
            }
            worker.kill();
            deadline = None;
        }
    }
    system::kill_group(worker.pid);
    match child.wait() {
        Ok(status) => finish(daemon, worker, said, status),
        Err(error) => {
            warn!(worker = worker.pid, %error, "a worker cannot be waited for");
            finish(daemon, worker, said, ExitStatus::from_raw(0));
        }
    }
}

enum Heard {
    Ready,
    Last,
    Closed,
    Wrong,
}

fn hear(daemon: &Arc<Daemon>, worker: &Arc<Worker>, said: &mut Said) -> Heard {
    let phase = *worker.phase.lock();
    match (handoff::receive::<FromWorker>(worker.control()), phase) {
        (Ok(None), _) => Heard::Closed,
        (Ok(Some((FromWorker::Ready { snapshot, .. }, _))), Phase::Starting) => {
            let seen: Vec<String> =
                (0..snapshot.devices.len()).map(|at| gpus::uuid_of(&snapshot, at)).collect();
            if let Some(wanted) = worker.visible.0.as_deref()
                && wanted != seen.join(",")
            {
                // Whatever the driver makes of the variable: a VM sees its own devices or none.
                said.failed = Some(format!("it sees {} where it is to see {wanted}", seen.join(",")));
                return Heard::Wrong;
            }
            info!(worker = worker.pid, devices = snapshot.devices.len(), visible = %worker.visible, "worker is warm");
            if !snapshot.software {
                let overhead = daemon.nvml.memory_of(worker.pid).unwrap_or(0);
                worker.overhead.store(overhead, Ordering::Relaxed);
            }
            let exposed = reaches_host_memory(&snapshot);
            let outcome = daemon.pool.ready(worker, snapshot);
            if exposed && outcome.is_some() {
                warn!(
                    "kernels on this device reach all memory of their worker, which is not what docs/threat-model.md takes for \
                     granted: load nvidia-uvm with uvm_disable_hmm=1"
                );
            }
            daemon.tell(outcome.map(Event::Driver));
            Heard::Ready
        }
        (Ok(Some((FromWorker::Failed { message }, _))), Phase::Starting) => {
            said.failed = Some(crate::log::printable(&message, 500));
            Heard::Last
        }
        (Ok(Some((FromWorker::Ended { reason, message }, _))), Phase::Assigned(_))
            if said.ended.is_none() =>
        {
            said.ended = Some((reason, crate::log::printable(&message, 500)));
            Heard::Last
        }
        (Ok(Some(_)), Phase::Gone) => Heard::Closed,
        (Ok(Some(_)), phase) => {
            said.wrong = Some(format!("it said what it may not say ({phase:?})"));
            Heard::Wrong
        }
        (Err(error), _) => {
            said.wrong = Some(error.to_string());
            Heard::Wrong
        }
    }
}

/// Whether kernels can read and write memory of their process that nobody has given them: heterogeneous memory management, or
/// translation by the processor's page tables.
fn reaches_host_memory(snapshot: &Snapshot) -> bool {
    !snapshot.software
        && snapshot.devices.iter().any(|device| device.attribute(attribute::PAGEABLE_MEMORY_ACCESS) != 0)
}

/// The worker is dead and waited for.
fn finish(daemon: &Arc<Daemon>, worker: &Arc<Worker>, said: Said, status: ExitStatus) {
    let phase = std::mem::replace(&mut *worker.phase.lock(), Phase::Gone);
    daemon.pool.ended(worker);
    let how = said.wrong.clone().unwrap_or_else(|| describe(status));
    match phase {
        Phase::Starting => {
            let message = said.failed.unwrap_or(how);
            if !daemon.is_draining() {
                warn!(worker = worker.pid, "worker failed to start: {message}");
            }
            let outcome = daemon.pool.failed(Some(worker), &worker.visible, &message);
            daemon.tell(outcome.map(Event::Driver));
        }
        Phase::Warm => {
            warn!(worker = worker.pid, "warm worker died: {how}");
            daemon.pool.died(worker, &how);
        }
        Phase::Assigned(id) => end_session(daemon, id, &said, status, &how),
        Phase::Gone => debug!(worker = worker.pid, "spare worker ended"),
    }
    daemon.tell(Some(Event::WorkerEnded));
}

fn end_session(daemon: &Arc<Daemon>, id: u64, said: &Said, status: ExitStatus, how: &str) {
    // Whoever waits for the device need not wait for the rest.
    let gpu_nanos = daemon.scheduling.end(id);
    let (part, connection) = daemon.sessions.take_belongings(id);
    drop(part);
    if let Some(connection) = connection {
        close(&connection);
    }
    let ended = daemon.sessions.end(id, |session| {
        daemon.exchange.end(&session.vm.name, id);
        let usage = Usage { gpu_nanos, ..Usage::default() };
        let held = session.vm.quota.clear(session.slot);
        let (word, detail) = reason(session, said, status, how);
        let counters = session.worker.stats.read();
        daemon.totals.ended(word, &counters);
        daemon.accounts.end(&session.vm.name, &counters, &held, &usage);
        (word, detail, counters)
    });
    let Some((session, (word, detail, counters))) = ended else { return };
    daemon.vms.forget(&session.vm, |vm| daemon.sessions.of_vm(vm) > 0);
    let seconds = session.started.1.elapsed().as_secs_f64();
    let text = format!("{} of {} ends: {word} {detail}", session.program, session.peer);
    daemon.journal.note("session.end", Some(&session.vm.name), Some(id), text.trim_end().to_owned());
    if counters.faults > 0 {
        let text = format!("{} broke {} contexts of its own", session.program, counters.faults);
        daemon.journal.note("fault", Some(&session.vm.name), Some(id), text);
    }
    let calls = counters.messages_sync.saturating_add(counters.messages_async);
    macro_rules! line {
        ($level:ident) => {
            $level!(
                session = id,
                vm = session.vm.name,
                program = session.program,
                worker = session.worker.pid,
                reason = word,
                detail,
                seconds,
                calls,
                launches = counters.launches,
                memory_peak = counters.memory_peak,
                "session ends"
            )
        };
    }
    if matches!(word, "closed" | "dismissed") {
        line!(info);
    } else if let Some(suppressed) = daemon.limits.session_end.pass() {
        if suppressed > 0 {
            warn!(suppressed, "more sessions ended badly");
        }
        line!(warn);
    }
}

/// Reads that [`close`] makes: 16 MiB, four times what a guest's socket buffers.
const LEFT: usize = 1024;

/// Closes a guest's connection; a unix one with nothing unread in it, unless the guest goes on sending. A close over unread
/// bytes is an error at the other end, not an end of the stream, and `vhost-device-vsock` (0.3) keeps such an error to itself:
/// the guest would wait for ever. Over TCP it is the other way round: only that error wakes a guest that waits for room.
fn close(connection: &Socket) {
    connection.close();
    if !is_unix(connection) {
        return;
    }
    let mut scrap = [0; 16 << 10];
    for _ in 0..LEFT {
        if !(connection.is_readable() && matches!(connection.receive(&mut scrap), Ok(1..))) {
            break;
        }
    }
}

/// A word for the status, and what else there is to say.
fn reason<'a>(
    session: &Session,
    said: &'a Said,
    status: ExitStatus,
    how: &'a str,
) -> (&'static str, &'a str) {
    match &said.ended {
        _ if said.wrong.is_some() => ("wrong", how),
        _ if session.dismissed => ("dismissed", how),
        Some((reason, message)) if status.success() || *reason != EndReason::Closed => {
            (word_of(*reason), message)
        }
        _ if status.signal().is_some() => ("signal", how),
        _ if !status.success() => ("exit", how),
        _ => ("closed", ""),
    }
}

fn word_of(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Closed => "closed",
        EndReason::Lost => "lost",
        EndReason::Malformed => "malformed",
        EndReason::Host => "host",
        EndReason::Daemon => "dismissed",
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            let core = if status.core_dumped() { ", core dumped" } else { "" };
            format!("worker died of {name} ({signal}){core}")
        }
        (None, Some(code)) => format!("worker ended with status {code}"),
        (None, None) => "worker ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_described() {
        assert_eq!(describe(ExitStatus::from_raw(0)), "worker ended with status 0");
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "worker ended with status 3");
        assert_eq!(describe(ExitStatus::from_raw(9)), "worker died of SIGKILL (9)");
        assert_eq!(describe(ExitStatus::from_raw(11 | 0x80)), "worker died of SIGSEGV (11), core dumped");
    }
}
