//! Interprocess handles. What the application passes to another process, 64 bytes or a file descriptor, holds a number that the
//! server gave; the server finds behind it what a process of the same VM has shared, and nothing else.
//!
//! Two processes agree on an order by means that this library does not see, a pipe for example: whatever another process may
//! rely on has reached the driver when the call returns, and so every call here is answered.

use super::event::INTERPROCESS;
use super::{Result, enter, put};
use crate::allocations::Kind;
use crate::call::garbled;
use crate::lock;
use crate::objects::{Event, Progress};
use crate::session::session;
use pxos_protocol::api::op;
use pxos_protocol::types::{CUdeviceptr, CUevent, CUipcEventHandle, CUipcMemHandle, CUresult};
use std::collections::HashMap;
use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// What the server gives for something that is shared.
pub(crate) type Share = [u64; 8];

/// Memory of other processes that is open here: base and how often it was opened, by the address that the application has.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<HashMap<u64, (u64, u64)>>);

/// `CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`: what an event of another process is.
const EVENT_FLAGS: u32 = 2 | 4;
const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;

/// A file descriptor that stands for a share: the application may pass it to another process as it would the driver's.
pub(super) fn descriptor_of(share: Share) -> Result<c_int> {
    // SAFETY: a C string.
    let number =
        unsafe { libc::memfd_create(c"pxos-share".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if number < 0 {
        return Err(CUresult::ERROR_OPERATING_SYSTEM);
    }
    // SAFETY: a descriptor that was just made.
    let file = unsafe { File::from_raw_fd(number) };
    let bytes: Vec<u8> = share.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.write_all_at(&bytes, 0).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(number, libc::F_ADD_SEALS, seals) };
    Ok(file.into_raw_fd())
}

/// The share that a file descriptor of the application's stands for.
pub(super) fn share_of(number: usize) -> Result<Share> {
    let number = RawFd::try_from(number & 0xffff_ffff).ok().filter(|number| *number >= 0);
    let number = number.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: borrowed for this call; an application that gives a closed one gets an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let file = File::from(descriptor.try_clone_to_owned().map_err(|_| CUresult::ERROR_INVALID_VALUE)?);
    let mut bytes = [0; 64];
    file.read_exact_at(&mut bytes, 0).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|index| u64::from_le_bytes(words[index])))
}

fn words(bytes: [u8; 64]) -> Share {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(words[index]))
}

pub(crate) unsafe fn cuIpcGetEventHandle(pHandle: *mut CUipcEventHandle, event: CUevent) -> Result {
    let session = session()?;
    let event = session.events.get(event.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if pHandle.is_null() || event.flags & INTERPROCESS == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuIpcGetEventHandle, |writer| writer.put(event.handle))?;
    let share: Share = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and 64 writable bytes by the entry point's contract.
    unsafe { pHandle.cast::<Share>().write_unaligned(share) };
    Ok(())
}

pub(crate) unsafe fn cuIpcOpenEventHandle(phEvent: *mut CUevent, handle: CUipcEventHandle) -> Result {
    let (session, context) = enter()?;
    if phEvent.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let owner = context.handle;
    // Whether it was ever recorded only its maker knows, so the driver is asked every time.
    let event = session.events.mint(|handle| Event {
        handle,
        context: owner,
        flags: EVENT_FLAGS,
        recorded: AtomicBool::new(true),
        records: Progress::default(),
    })?;
    let opened = session.call(op::cuIpcOpenEventHandle, |writer| {
        writer.put(event.handle);
        writer.put(words(handle.reserved));
    });
    if let Err(error) = opened {
        session.events.remove(event.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phEvent, CUevent(event.handle)) }
}

pub(crate) unsafe fn cuIpcGetMemHandle(pHandle: *mut CUipcMemHandle, dptr: CUdeviceptr) -> Result {
    let (session, _) = enter()?;
    let range =
        session.allocations.find(dptr).filter(|range| matches!(range.kind, Kind::Device | Kind::Global));
    if pHandle.is_null() || range.is_none() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuIpcGetMemHandle, |writer| writer.put(dptr))?;
    let share: Share = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and 64 writable bytes by the entry point's contract.
    unsafe { pHandle.cast::<Share>().write_unaligned(share) };
    Ok(())
}

pub(crate) unsafe fn cuIpcOpenMemHandle(
    pdptr: *mut CUdeviceptr,
    handle: CUipcMemHandle,
    Flags: c_uint,
) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuIpcOpenMemHandle_v2(pdptr, handle, Flags) }
}

pub(crate) unsafe fn cuIpcOpenMemHandle_v2(
    pdptr: *mut CUdeviceptr,
    handle: CUipcMemHandle,
    Flags: c_uint,
) -> Result {
    let (session, context) = enter()?;
    if pdptr.is_null() || Flags & !LAZY_ENABLE_PEER_ACCESS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = session.call(op::cuIpcOpenMemHandle_v2, |writer| {
        writer.put(words(handle.reserved));
        writer.put(Flags);
    })?;
    let mut fields = reply.reader();
    let mut next = || fields.get::<u64>().map_err(garbled);
    let (address, base, size) = (next()?, next()?, next()?);
    let mut opened = lock(&session.opened.0);
    let known = session.allocations.find(address).is_some_and(|range| range.kind == Kind::Opened);
    let entry = opened.entry(address).or_insert((base, 0));
    // A context that ended took its open memory with it.
    entry.1 = if known { entry.1 + 1 } else { 1 };
    if !known {
        session.allocations.insert(Kind::Opened, base, size, context.handle, context.device, 0);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pdptr, address) }
}

pub(crate) unsafe fn cuIpcCloseMemHandle(dptr: CUdeviceptr) -> Result {
    let session = session()?;
    let mut opened = lock(&session.opened.0);
    let (base, times) = opened.get_mut(&dptr).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    *times -= 1;
    if *times == 0 {
        session.allocations.remove(*base, |range| range.kind == Kind::Opened);
        opened.remove(&dptr);
    }
    session.call(op::cuIpcCloseMemHandle, |writer| writer.put(dptr)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_descriptor_keeps_what_it_stands_for() {
        let share = [1, 2, 3, 4, 5, 6, 7, u64::MAX];
        let number = descriptor_of(share).unwrap();
        assert_eq!(share_of(usize::try_from(number).unwrap()), Ok(share));
        // SAFETY: the descriptor that was just made.
        let owned = unsafe { OwnedFd::from_raw_fd(number) };
        assert!(File::from(owned).write_all_at(b"x", 0).is_err());
        let empty = File::open("/dev/null").unwrap().into_raw_fd();
        assert_eq!(share_of(usize::try_from(empty).unwrap()), Err(CUresult::ERROR_INVALID_VALUE));
        assert_eq!(share_of(usize::MAX), Err(CUresult::ERROR_INVALID_VALUE));
        assert_eq!(share_of(1_000_000), Err(CUresult::ERROR_INVALID_VALUE));
    }
}
