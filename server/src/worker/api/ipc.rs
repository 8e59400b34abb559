//! Interprocess handles between the processes of one VM. The driver's own handles go from worker to worker through the VM's
//! exchange; a guest sees only numbers that are looked up there.

use super::super::dispatch::{Answer, Call, Outcome, done};
use super::super::exchange::{Kind, Record, Share};
use super::super::state::{Owned, State};
use super::pool::{bytes, words};
use crate::quota::Kind as QuotaKind;
use pxos_protocol::types::{CUipcEventHandle, CUipcMemHandle, CUresult};
use std::collections::HashMap;

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`.
const LAZY_ENABLE_PEER_ACCESS: u32 = 1;

/// Everything of a session.
#[derive(Debug, Default)]
pub(crate) struct Ipc {
    /// Memory of other processes: bytes, how often it was opened, context.
    opened: HashMap<u64, (u64, u64, u64)>,
    /// What this session shares, by address or event.
    shared: HashMap<u64, Share>,
}

impl Ipc {
    /// Forgets memory that goes with a context; its bytes.
    pub(crate) fn forget_context(&mut self, context: u64) -> u64 {
        let mut freed = 0;
        self.opened.retain(|_, (bytes, _, of)| {
            freed += if *of == context { *bytes } else { 0 };
            *of != context
        });
        freed
    }
}

/// `cuIpcGetMemHandle`: address; the share comes back.
pub(in super::super) fn memory_handle(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let session = call.session;
    let driver = call.driver();
    let mut native = CUipcMemHandle { reserved: [0; 64] };
    let (mut base, mut size) = (0, 0_usize);
    // SAFETY: pointers to locals; the driver checks the address.
    unsafe {
        driver.cuIpcGetMemHandle(&raw mut native, address)?;
        driver.cuMemGetAddressRange_v2(&raw mut base, &raw mut size, address)?;
    }
    if let Some(share) = call.state.ipc.shared.get(&base) {
        // The driver's handle of an allocation does not change, but the allocation at an address may.
        if session
            .exchange
            .find(Kind::Memory, share)
            .is_ok_and(|record| record.native == words(native.reserved))
        {
            let share = *share;
            call.reply().put(share);
            return done();
        }
        session.exchange.withdraw(share);
    }
    let record = Record { bytes: size as u64, native: words(native.reserved), extra: [0; 8] };
    let share = session.exchange.publish(Kind::Memory, &record)?;
    call.state.ipc.shared.insert(base, share);
    call.reply().put(share);
    done()
}

/// `cuIpcOpenMemHandle`: share, flags; address and bytes come back.
pub(in super::super) fn open_memory(call: &mut Call<'_>) -> Answer {
    let (share, flags): (Share, u32) = (call.get()?, call.get()?);
    let session = call.session;
    let record = session.exchange.find(Kind::Memory, &share)?;
    let driver = call.driver();
    // The memory outlives the process that made it for as long as this one holds it, so it counts here as well.
    call.state.reserve(session, QuotaKind::Imported, record.bytes)?;
    let State { ipc, .. } = call.state;
    let native = CUipcMemHandle { reserved: bytes(record.native) };
    let (mut address, mut base, mut size) = (0, 0, 0_usize);
    // SAFETY: pointers to locals; a handle that the driver gave to another worker of this VM.
    let opened = unsafe {
        driver
            .cuIpcOpenMemHandle_v2(&raw mut address, native, flags & LAZY_ENABLE_PEER_ACCESS)
            .and_then(|()| driver.cuMemGetAddressRange_v2(&raw mut base, &raw mut size, address))
    };
    let known = ipc.opened.get_mut(&address);
    if let Some((_, times, _)) = known {
        // Opened before: the same address, counted once.
        *times += u64::from(opened.is_ok());
    } else if opened.is_ok() {
        ipc.opened.insert(address, (record.bytes, 1, call.header.context));
        let mut reply = call.reply();
        reply.put(address);
        reply.put(base);
        reply.put(size as u64);
        return done();
    }
    session.ledger.release(QuotaKind::Imported, record.bytes);
    opened?;
    let mut reply = call.reply();
    reply.put(address);
    reply.put(base);
    reply.put(size as u64);
    done()
}

/// `cuIpcCloseMemHandle`: address.
pub(in super::super) fn close_memory(call: &mut Call<'_>) -> Answer {
    let address: u64 = call.get()?;
    let (bytes, times, _) = call.state.ipc.opened.get_mut(&address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let bytes = *bytes;
    *times -= 1;
    let last = *times == 0;
    if last {
        call.state.ipc.opened.remove(&address);
    }
    // Closing may wait for the device.
    Ok(Outcome::Later(Box::new(move |session, _| {
        // SAFETY: an address that this session has opened and, this time, not closed yet.
        unsafe { session.driver.cuIpcCloseMemHandle(address)? };
        if last {
            session.ledger.release(QuotaKind::Imported, bytes);
        }
        Ok(())
    })))
}

/// `cuIpcGetEventHandle`: event; the share comes back.
pub(in super::super) fn event_handle(call: &mut Call<'_>) -> Answer {
    let event: u64 = call.get()?;
    let native_event = call.state.events.get(event)?.native;
    let mut native = CUipcEventHandle { reserved: [0; 64] };
    // SAFETY: an event of this session's; a pointer to a local.
    unsafe { call.driver().cuIpcGetEventHandle(&raw mut native, native_event)? };
    if let Some(share) = call.state.ipc.shared.get(&event).copied() {
        call.reply().put(share);
        return done();
    }
    let record = Record { bytes: 0, native: words(native.reserved), extra: [0; 8] };
    let share = call.session.exchange.publish(Kind::Event, &record)?;
    call.state.ipc.shared.insert(event, share);
    call.reply().put(share);
    done()
}

/// `cuIpcOpenEventHandle`: handle, share.
pub(in super::super) fn open_event(call: &mut Call<'_>) -> Answer {
    let (handle, share): (u64, Share) = (call.get()?, call.get()?);
    call.state.events.check(handle)?;
    let record = call.session.exchange.find(Kind::Event, &share)?;
    let native = CUipcEventHandle { reserved: bytes(record.native) };
    let mut event = 0;
    // SAFETY: a pointer to a local; a handle that the driver gave to another worker of this VM.
    unsafe { call.driver().cuIpcOpenEventHandle(&raw mut event, native)? };
    call.state.events.insert(handle, Owned { native: event, context: call.header.context })?;
    done()
}
