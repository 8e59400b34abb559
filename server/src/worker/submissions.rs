//! Submissions of primitives under way: their events, their fault records, and how they ended.
//!
//! A thread that leaves an array writes the launch's fault record, which lies in device memory; behind the launches the
//! stream copies it to page-locked memory, so that the host reads it without asking the device. Records are zero when
//! nobody uses them. Leader and lanes share this table.

use super::session::Session;
use crate::driver::Result;
use pxos_primitives::{FAULT_RECORD_BYTES, FaultKind, Plan, Program};
use pxos_protocol::primitive::Completion;
use pxos_protocol::types::CUresult;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Submissions under way at once in one context: as many as have a record.
const RECORDS: usize = 64;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// What runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The program.
    pub(crate) program: Arc<Program>,
    /// Index of its kernel.
    pub(crate) kernel: usize,
}

/// A record and the events that go with it.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The guest's handle of the context.
    context: u64,
    /// Which making of that context's records it is from.
    generation: u64,
    device: u64,
    /// Address of its copy in page-locked memory.
    host: usize,
    start: u64,
    end: u64,
    /// A stream of the worker's own in that context, in which records are cleared: the submission's may be gone by then.
    cleaner: u64,
}

/// One submission.
#[derive(Debug)]
pub(crate) struct Ticket {
    slot: Slot,
    stream: u64,
    running: Option<Running>,
    elements: u64,
    checks: [u32; 2],
    number: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// Free slots by context, and the making they are from.
    free: HashMap<u64, (u64, Vec<Slot>)>,
    filed: HashMap<u64, Ticket>,
    last: u64,
    generations: u64,
}

/// All submissions of a session.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    table: Mutex<Table>,
}

impl Ticket {
    /// Device address of its fault record.
    pub(crate) fn record(&self) -> u64 {
        self.slot.device
    }

    /// The guest's handle of its context, which has to be current when it is concluded.
    pub(crate) fn context(&self) -> u64 {
        self.slot.context
    }

    /// Its stream, good in the call that submits it.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// Marks where its launches begin.
    pub(crate) fn begin(&self, session: &Session) -> Result {
        // SAFETY: an event of ours, a stream of this session's.
        unsafe { session.driver.cuEventRecord(self.slot.start, self.stream) }
    }

    /// Marks where its launches end; the record is copied before, where it can have been written.
    pub(crate) fn end(&self, session: &Session, checked: bool) -> Result {
        let host: *mut c_void = std::ptr::with_exposed_provenance_mut(self.slot.host);
        // SAFETY: a record of ours in page-locked memory that lives as long as the worker, an event of ours.
        unsafe {
            if checked {
                session.driver.cuMemcpyDtoHAsync_v2(
                    host,
                    self.slot.device,
                    FAULT_RECORD_BYTES,
                    self.stream,
                )?;
            }
            session.driver.cuEventRecord(self.slot.end, self.stream)
        }
    }

    /// Notes what it is.
    pub(crate) fn started(mut self, running: Running, plan: &Plan) -> Self {
        let count = |checks: usize| u32::try_from(checks).unwrap_or(u32::MAX);
        self.running = Some(running);
        self.elements = plan.elements;
        self.checks = [count(plan.checks.0), count(plan.checks.1)];
        self
    }

    /// The record as it came back.
    fn read(&self) -> [u8; FAULT_RECORD_BYTES] {
        let host: *const [u8; FAULT_RECORD_BYTES] = std::ptr::with_exposed_provenance(self.slot.host);
        // SAFETY: memory of ours of that size, which the device has done writing: the end event has happened.
        unsafe { host.read_volatile() }
    }

    /// Makes the record zero again, on both sides.
    fn clear(&self, session: &Session) -> Result {
        let host: *mut [u8; FAULT_RECORD_BYTES] = std::ptr::with_exposed_provenance_mut(self.slot.host);
        // SAFETY: memory of ours that nobody else uses while the ticket lives; a stream of ours, in the context that is current.
        unsafe {
            host.write_volatile([0; FAULT_RECORD_BYTES]);
            session.driver.cuMemsetD8Async(self.slot.device, 0, FAULT_RECORD_BYTES, self.slot.cleaner)?;
            session.driver.cuStreamSynchronize(self.slot.cleaner)
        }
    }

    fn completion(&self, result: CUresult) -> Completion {
        Completion {
            number: self.number,
            result: result.0,
            elements: self.elements,
            checks: self.checks,
            ..Completion::default()
        }
    }
}

impl Submissions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for a submission in the context that is current.
    ///
    /// # Errors
    /// The driver's answer and what could not be made.
    pub(crate) fn open(
        &self,
        session: &Session,
        context: u64,
        stream: u64,
    ) -> Result<Ticket, (CUresult, &'static str)> {
        let known = self.table().free.contains_key(&context);
        if !known {
            let generation = {
                let mut table = self.table();
                table.generations += 1;
                table.generations
            };
            let slots = make_slots(session, context, generation)
                .map_err(|result| (result, "no memory for fault records"))?;
            self.table().free.insert(context, (generation, slots));
        }
        let slot = self.table().free.get_mut(&context).and_then(|(_, slots)| slots.pop());
        let slot = slot.ok_or((
            CUresult::ERROR_LAUNCH_OUT_OF_RESOURCES,
            "64 submissions are under way or have not been asked about",
        ))?;
        Ok(Ticket { slot, stream, running: None, elements: 0, checks: [0; 2], number: 0 })
    }

    /// Takes back the ticket of a submission that was not launched, or only in part.
    pub(crate) fn abandon(&self, session: &Session, ticket: &Ticket) {
        // What was launched of it may still write the record.
        // SAFETY: a stream of this session's.
        let idle = unsafe { session.driver.cuStreamSynchronize(ticket.stream) };
        if idle.is_ok() && ticket.clear(session).is_ok() {
            self.give_back(ticket.slot);
        }
    }

    fn give_back(&self, slot: Slot) {
        let mut table = self.table();
        if let Some((generation, slots)) = table.free.get_mut(&slot.context)
            && *generation == slot.generation
        {
            slots.push(slot);
        }
    }

    /// Forgets the records of a context, which went with it.
    pub(crate) fn forget_context(&self, context: u64) {
        let mut table = self.table();
        table.free.remove(&context);
        table.filed.retain(|_, ticket| ticket.slot.context != context);
    }

    /// Files a submission that the guest will ask about.
    pub(crate) fn file(&self, mut ticket: Ticket) -> Completion {
        let mut table = self.table();
        table.last += 1;
        ticket.number = table.last;
        let completion = ticket.completion(CUresult::ERROR_NOT_READY);
        table.filed.insert(ticket.number, ticket);
        completion
    }

    /// Takes a filed submission out of the table.
    pub(crate) fn take(&self, number: u64) -> Option<Ticket> {
        self.table().filed.remove(&number)
    }

    /// Submissions that are filed.
    pub(crate) fn running(&self) -> u64 {
        self.table().filed.len() as u64
    }

    /// How a submission stands; filed again where it is still under way.
    pub(crate) fn poll(&self, session: &Session, ticket: Ticket) -> Completion {
        // SAFETY: an event of ours.
        match unsafe { session.driver.cuEventQuery(ticket.slot.end) } {
            Err(CUresult::ERROR_NOT_READY) => {
                let completion = ticket.completion(CUresult::ERROR_NOT_READY);
                self.table().filed.insert(ticket.number, ticket);
                completion
            }
            ended => self.conclude(session, ticket, ended),
        }
    }

    /// Waits for a submission.
    pub(crate) fn finish(&self, session: &Session, ticket: Ticket) -> Completion {
        // SAFETY: an event of ours.
        let ended = unsafe { session.driver.cuEventSynchronize(ticket.slot.end) };
        self.conclude(session, ticket, ended)
    }

    /// How a submission ended.
    fn conclude(&self, session: &Session, mut ticket: Ticket, ended: Result) -> Completion {
        ticket.number = 0;
        if let Err(result) = ended {
            // The context is broken: record and events go with it.
            let mut completion = ticket.completion(result);
            completion.message = format!("the device failed: {result}");
            return completion;
        }
        let mut completion = ticket.completion(CUresult::SUCCESS);
        // SAFETY: events of ours that have happened, a pointer to a local.
        let timed = unsafe {
            session.driver.cuEventElapsedTime(
                &raw mut completion.milliseconds,
                ticket.slot.start,
                ticket.slot.end,
            )
        };
        if timed.is_err() {
            completion.milliseconds = 0.0;
        }
        let fault = match &ticket.running {
            Some(running) if ticket.checks[1] > 0 => {
                running.program.kernels().get(running.kernel).and_then(|kernel| kernel.fault(&ticket.read()))
            }
            _ => None,
        };
        let Some(fault) = fault else {
            self.give_back(ticket.slot);
            return completion;
        };
        completion.result = match fault.kind {
            FaultKind::Load | FaultKind::Store | FaultKind::Atomic => CUresult::ERROR_ILLEGAL_ADDRESS,
            FaultKind::Division | FaultKind::Require => CUresult::ERROR_LAUNCH_FAILED,
        }
        .0;
        completion.line = fault.line;
        completion.index = fault.index;
        completion.message = fault.message;
        if ticket.clear(session).is_ok() {
            self.give_back(ticket.slot);
        }
        completion
    }
}

/// The records of a context and two events for each.
fn make_slots(session: &Session, context: u64, generation: u64) -> Result<Vec<Slot>> {
    let driver = &session.driver;
    let bytes = RECORDS * FAULT_RECORD_BYTES;
    let (mut device, mut host): (u64, *mut c_void) = (0, std::ptr::null_mut());
    // SAFETY: pointers to locals; fresh memory of that size, on the host (portable: it outlives the context) and on the
    // device.
    unsafe {
        driver.cuMemHostAlloc(&raw mut host, bytes, 1)?;
        host.cast::<u8>().write_bytes(0, bytes);
        driver.cuMemAlloc_v2(&raw mut device, bytes)?;
        driver.cuMemsetD8Async(device, 0, bytes, 0)?;
        driver.cuStreamSynchronize(0)?;
    }
    let mut cleaner = 0;
    // SAFETY: a pointer to a local.
    unsafe { driver.cuStreamCreateWithPriority(&raw mut cleaner, NON_BLOCKING, 0)? };
    let mut slots = Vec::with_capacity(RECORDS);
    for index in 0..RECORDS {
        let (mut start, mut end) = (0, 0);
        // SAFETY: pointers to locals.
        unsafe {
            driver.cuEventCreate(&raw mut start, 0)?;
            driver.cuEventCreate(&raw mut end, 0)?;
        }
        slots.push(Slot {
            context,
            generation,
            device: device + (index * FAULT_RECORD_BYTES) as u64,
            host: host.expose_provenance() + index * FAULT_RECORD_BYTES,
            start,
            end,
            cleaner,
        });
    }
    Ok(slots)
}
