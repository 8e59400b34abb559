//! A worker: the process that owns one guest process's CUDA context.
//!
//! It opens the driver and makes a primary context before any guest comes (design D3), waits for the daemon to hand it a
//! connection, and replays that guest's calls in order ([`serve`]) until the connection ends. Then the process ends, and the
//! operating system and the driver take everything back.

mod api;
mod callbacks;
mod dispatch;
pub(crate) mod estimate;
mod exchange;
mod fence;
mod flight;
mod gate;
mod images;
mod ledger;
mod output;
mod serve;
mod session;
mod shared;
mod snapshot;
mod stack;
mod staging;
mod state;
mod submissions;
mod tables;

use crate::driver::Driver;
use crate::handoff::{self, Assign, EndReason, FromWorker, Memory, ToWorker};
use crate::page::Page;
use crate::quota::{Account, Book};
use crate::scheduler::page::Slots;
use crate::stats::{State, Stats};
use gate::Gate;
use ledger::{Ledger, Rounding};
use output::Output;
use pxos_protocol::control::{Snapshot, Welcome, encode};
use pxos_protocol::frame::{Header, control};
use pxos_protocol::transport::{FrameReader, Socket, Transport, descriptors};
use pxos_protocol::types::{CUdevice_attribute, attribute};
use shared::Shared;
use stack::SmallStack;
use std::io::{IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Bytes under way on a guest's socket: eight chunks of bulk data.
const SOCKET_BUFFER: u32 = 4 << 20;

/// Attributes that are not the device's but the guest's: what the memory that it shares with its worker can do (design D9), and
/// engines that are not carried.
const TOLD_OTHERWISE: &[(CUdevice_attribute, i32)] = &[
    (attribute::CONCURRENT_MANAGED_ACCESS, 0),
    (attribute::CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 0),
    (attribute::PAGEABLE_MEMORY_ACCESS, 0),
    (attribute::PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 0),
    (attribute::MEM_DECOMPRESS_ALGORITHM_MASK, 0),
    (attribute::MEM_DECOMPRESS_MAXIMUM_LENGTH, 0),
];

/// What a worker starts with.
#[derive(Debug)]
pub struct Start {
    /// The daemon's socket ([`crate::handoff`]).
    pub control: UnixStream,
    /// The page that the daemon reads.
    pub stats: &'static Stats,
    /// The libcuda to open.
    pub driver: PathBuf,
}

/// Serves one session.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "a worker serves once: what it starts with is used up")]
pub fn run(start: Start) -> ExitCode {
    match warm_up_and_serve(&start) {
        Ok(Some((reason, message))) => {
            start.stats.set_state(State::Ending);
            let _ = handoff::send(&start.control, &FromWorker::Ended { reason, message }, &[]);
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = handoff::send(&start.control, &FromWorker::Failed { message }, &[]);
            ExitCode::FAILURE
        }
    }
}

fn warm_up_and_serve(start: &Start) -> Result<Option<(EndReason, String)>, String> {
    let (output, mut log) =
        Output::capture().map_err(|error| format!("output cannot be captured: {error}"))?;
    let driver = Driver::open(&start.driver).map_err(|error| error.to_string())?;
    let (snapshot, context) = snapshot::take(&driver).map_err(|error| error.to_string())?;
    let rounding = Rounding::measure(&driver);
    let memory = match Shared::create(&driver) {
        Ok(memory) => Some(memory),
        Err(error) => {
            let _ =
                writeln!(log, "no shared memory: {error}; guests on this host are served over their socket");
            None
        }
    };
    let stack = SmallStack::make(&driver, context);
    let ready = FromWorker::Ready { snapshot: snapshot.clone(), pid: std::process::id() };
    handoff::send(&start.control, &ready, &[]).map_err(|error| error.to_string())?;
    start.stats.set_state(State::Warm);
    let Some((ToWorker::Assign(assign), mut beside)) =
        handoff::receive(&start.control).map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let file = if matches!(assign.memory, Memory::Slot { .. }) { beside.pop() } else { None };
    let connection = Socket::from(beside.pop().ok_or("the daemon sent no connection")?);
    let quota = beside.pop().ok_or("the daemon sent no quota")?;
    let pledges = beside.pop().ok_or("the daemon sent no bell of the quota")?;
    let bell = beside.pop().ok_or("the daemon sent no bell")?;
    let slots = beside.pop().ok_or("the daemon sent no gate")?;
    let slots = Page::<Slots>::map(&slots).map_err(|error| format!("the gate cannot be mapped: {error}"))?;
    let gate = Gate::new(slots.leak(), bell);
    let book = Page::<Book>::map(&quota).map_err(|error| format!("the quota cannot be mapped: {error}"))?;
    let account = Account::of(book.leak(), assign.slot).ok_or("the daemon named no slot of the quota")?;
    let account = account.with_bell(pledges);
    let ledger = Ledger::new(account, rounding, start.stats);
    connection.set_buffers(SOCKET_BUFFER);
    start.stats.set_state(State::Serving);
    let reader = FrameReader::new(connection.try_clone().map_err(|error| error.to_string())?);
    let memory = match (assign.memory, file) {
        (Memory::Beside, _) => memory.filter(|_| descriptors::is_unix(&connection)),
        (Memory::Slot { id, base, length, .. }, Some(file)) => {
            if let Some(own) = memory {
                own.give_up(&driver);
            }
            let slot = Shared::in_slot(&driver, file, id, base, length);
            slot.map_err(|error| writeln!(log, "the slot of the VM's memory cannot be used: {error}")).ok()
        }
        _ => None,
    };
    if let Err(error) = greet(&connection, &assign, snapshot.clone(), memory.as_ref()) {
        return Ok(Some((EndReason::Lost, error)));
    }
    let guest = serve::Guest { reader, connection, shared: memory };
    let host = serve::Host { driver, output, ledger, gate, stats: start.stats };
    let ended = serve::run(host, (snapshot, context, stack), guest, &assign);
    Ok(Some(ended))
}

fn greet(
    connection: &Socket,
    assign: &Assign,
    mut snapshot: Snapshot,
    memory: Option<&Shared>,
) -> Result<(), String> {
    for device in &mut snapshot.devices {
        for (attribute, value) in TOLD_OTHERWISE {
            if let Some(slot) = device.attributes.get_mut(*attribute as usize) {
                *slot = slot.map(|_| *value);
            }
        }
    }
    if let Some(limit) = assign.limits.memory_max {
        for device in &mut snapshot.devices {
            device.total_memory = device.total_memory.min(limit);
        }
    }
    let welcome = Welcome {
        software: assign.software.clone(),
        session: assign.session,
        vm: assign.vm.clone(),
        snapshot,
        shared_memory: memory.map(|memory| memory.layout),
        bounds_streams: assign.limits.bounds_streams,
        instance: assign.instance,
    };
    let payload = encode(&welcome).map_err(|error| error.to_string())?;
    let mut header = Header::new(control::WELCOME);
    header.length = u32::try_from(payload.len()).map_err(|error| error.to_string())?;
    let frame = [&header.to_bytes()[..], &payload].concat();
    let sent = match memory.and_then(Shared::descriptor) {
        Some(descriptor) => descriptors::send(connection, &frame, &[descriptor]),
        None => connection.send_all(&mut [IoSlice::new(&frame)]),
    };
    sent.map_err(|error| error.to_string())
}
