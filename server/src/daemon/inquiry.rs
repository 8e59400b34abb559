//! A probe: a connection that asks who it is and how its VM uses the devices, and gets no worker (pxctl's doctor, NVML).

use super::admit::{Refused, malformed, read_exact, send};
use super::devices::Devices;
use super::refusal::Reason;
use super::{Daemon, monitor};
use crate::handoff::SOFTWARE;
use crate::vm::{Rights, gpus};
use pxos_protocol::control::{self, Hello, Welcome};
use pxos_protocol::frame::{self, HEADER, Header};
use pxos_protocol::monitor::VmUse;
use pxos_protocol::transport::Socket;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Questions that a probe may send, and how long it may last.
const PROBE_QUESTIONS: usize = 1000;
/// See [`PROBE_QUESTIONS`].
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a probe: the welcome, then its questions.
pub(super) fn probe(
    daemon: &Arc<Daemon>,
    socket: &Socket,
    hello: &Hello,
    vm: &str,
    rights: &Rights,
) -> Result<(), Refused> {
    let snapshot = daemon.pool.snapshot();
    let snapshot = snapshot.ok_or_else(|| Refused(Reason::NoWorker, "no worker was ever ready".into()))?;
    let limits = &rights.limits;
    let devices = Devices::of(rights, &snapshot).map_err(|message| Refused(Reason::NoWorker, message))?;
    let snapshot = gpus::narrow(&snapshot, &devices.numbers);
    let mut narrowed = snapshot.clone();
    if let Some(memory_max) = limits.memory_max {
        for device in &mut narrowed.devices {
            device.total_memory = device.total_memory.min(memory_max);
        }
    }
    let welcome = Welcome {
        software: SOFTWARE.to_owned(),
        session: 0,
        vm: vm.to_owned(),
        snapshot: narrowed,
        shared_memory: None,
        bounds_streams: limits.max_streams.is_some(),
        instance: daemon.instance,
    };
    let payload = control::encode(&welcome).map_err(|error| malformed(&error))?;
    daemon.totals.probe();
    // A probe that breaks off is no refusal: it has been answered.
    if send(socket, Header::new(frame::control::WELCOME), &payload).is_ok() {
        let asker = monitor::Asker { vm, limit: limits.memory_max, devices: &devices.numbers, hello };
        let vm_use = || monitor::vm_use(daemon, &snapshot, &asker);
        let _ = answer_questions(socket, Instant::now() + PROBE_TIMEOUT, &vm_use);
    }
    Ok(())
}

fn answer_questions(socket: &Socket, deadline: Instant, vm_use: &dyn Fn() -> VmUse) -> Result<(), Refused> {
    for _ in 0..PROBE_QUESTIONS {
        let mut bytes = [0; HEADER];
        read_exact(socket, &mut bytes, deadline)?;
        let asked = Header::from_bytes(&bytes).map_err(|error| malformed(&error))?;
        let answer = match (asked.op, asked.length) {
            (frame::control::PING, 0) => Vec::new(),
            (frame::control::QUERY_VM, 0) => control::encode(&vm_use()).map_err(|error| malformed(&error))?,
            _ => return Err(malformed(&"a probe may only ping and ask for its VM's use")),
        };
        let reply =
            Header { thread: asked.thread, request: asked.request, ..Header::new(frame::control::REPLY) };
        send(socket, reply, &answer).map_err(|error| malformed(&error))?;
    }
    Ok(())
}
