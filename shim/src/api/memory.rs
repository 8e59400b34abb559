//! Device memory, page-locked host memory, memset.

use super::{Result, enter, put, stream_argument};
use crate::allocations::{Allocation, Kind};
use crate::call::{call, garbled, post};
use crate::memory::is_private;
use crate::session::{Session, session};
use pxos_protocol::api::op;
use pxos_protocol::types::{CUdeviceptr, CUresult, CUstream};
use std::ffi::{c_uint, c_void};

const HOST_ALLOC_FLAGS: c_uint = 7;
const HOST_REGISTER_FLAGS: c_uint = 15;
const PAGE: u64 = 4096;

/// Gives blocks that were only parked back to the host; whether there were any.
pub(super) fn free_parked(session: &'static Session, context: u64) -> Result<bool> {
    let blocks = session.parked.take_all(context);
    for address in &blocks {
        session.post(op::cuMemFree_v2, |writer| writer.put(*address))?;
    }
    Ok(!blocks.is_empty())
}

pub(crate) unsafe fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Result {
    let (session, context) = enter()?;
    free_parked(session, context.handle)?;
    let reply = call(op::cuMemGetInfo_v2, |_| {})?;
    let mut fields = reply.reader();
    for pointer in [free, total] {
        let value: u64 = fields.get().map_err(garbled)?;
        if !pointer.is_null() {
            // SAFETY: not null, and writable by the entry point's contract.
            unsafe { pointer.write(usize::try_from(value).unwrap_or(usize::MAX)) };
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize) -> Result {
    let (session, context) = enter()?;
    if dptr.is_null() || bytesize == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = match session.parked.take(bytesize as u64, context.handle) {
        Some(address) => address,
        None => {
            let ask = || call(op::cuMemAlloc_v2, |writer| writer.put(bytesize as u64));
            let reply = match ask() {
                Err(CUresult::ERROR_OUT_OF_MEMORY) if free_parked(session, context.handle)? => ask()?,
                answer => answer?,
            };
            reply.reader().get().map_err(garbled)?
        }
    };
    session.allocations.insert(Kind::Device, address, bytesize as u64, context.handle, context.device, 0);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(dptr, address) }
}

pub(crate) unsafe fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pPitch: *mut usize,
    WidthInBytes: usize,
    Height: usize,
    ElementSizeBytes: c_uint,
) -> Result {
    let (session, context) = enter()?;
    let sizes_are_right = WidthInBytes > 0 && Height > 0 && matches!(ElementSizeBytes, 4 | 8 | 16);
    if dptr.is_null() || pPitch.is_null() || !sizes_are_right {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(op::cuMemAllocPitch_v2, |writer| {
        writer.put(WidthInBytes as u64);
        writer.put(Height as u64);
        writer.put(ElementSizeBytes);
    })?;
    let mut fields = reply.reader();
    let address: u64 = fields.get().map_err(garbled)?;
    let pitch: u64 = fields.get().map_err(garbled)?;
    let size = pitch.saturating_mul(Height as u64);
    session.allocations.insert(Kind::Device, address, size, context.handle, context.device, 0);
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe {
        put(pPitch, usize::try_from(pitch).unwrap_or(usize::MAX))?;
        put(dptr, address)
    }
}

pub(crate) unsafe fn cuMemFree_v2(dptr: CUdeviceptr) -> Result {
    let session = session()?;
    session.check()?;
    if dptr == 0 {
        return Ok(());
    }
    let range = session
        .allocations
        .remove(dptr, |range| matches!(range.kind, Kind::Device | Kind::Managed | Kind::Pool));
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if range.kind == Kind::Managed {
        super::managed::forget(session, range.base, range.size);
        return free_host(session, &range);
    }
    if range.kind == Kind::Pool {
        return post(op::cuMemFree_v2, |writer| writer.put(dptr));
    }
    // Freeing waits for work that uses the memory; where there is none, the block can be given out again at once.
    let idle = session.contexts.get(range.context).is_some_and(|context| context.work.is_complete());
    if idle && session.parked.park(&range) {
        return Ok(());
    }
    post(op::cuMemFree_v2, |writer| writer.put(dptr))
}

/// Page-locked memory of `size` bytes: from the arena where there is one, so that the device reads and writes it directly, at
/// the same address. Over a socket it is ordinary memory: copies from and to it are carried either way.
pub(super) fn allocate_host(
    session: &Session,
    kind: Kind,
    size: usize,
    flags: c_uint,
    context: u64,
    device: i32,
) -> Result<*mut c_void> {
    let length = (size as u64).checked_next_multiple_of(PAGE).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
    let address = match &session.arena {
        Some(arena) => {
            let address = arena.allocate(length).ok_or(CUresult::ERROR_OUT_OF_MEMORY)?;
            let pinned = session.call(op::cuMemHostAlloc, |writer| {
                writer.put(address);
                writer.put(length);
            });
            if let Err(error) = pinned {
                arena.free(address, length);
                return Err(error);
            }
            std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("a host address"))
        }
        None => map_anonymous(length)?,
    };
    let base = address.expose_provenance() as u64;
    session.allocations.insert(kind, base, size as u64, context, device, flags);
    if session.arena.is_some() {
        session.allocations.share(base, base);
    }
    Ok(address)
}

fn map_anonymous(length: u64) -> Result<*mut c_void> {
    let length = usize::try_from(length).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED { Err(CUresult::ERROR_OUT_OF_MEMORY) } else { Ok(address) }
}

/// Gives host memory back that is taken out of the table; work that may still use it is over afterwards, as natively.
fn free_host(session: &Session, range: &Allocation) -> Result {
    if range.kind == Kind::Registered {
        return unregister(session, range);
    }
    if range.kind == Kind::Managed {
        crate::exclusive::remove(range.base);
    }
    let length = range.size.next_multiple_of(PAGE);
    if let Some(arena) = session.arena.as_ref().filter(|arena| arena.contains(range.base)) {
        let freed = session.call(op::cuMemFreeHost, |writer| writer.put(range.base));
        arena.free(range.base, length);
        return freed.map(|_| ());
    }
    let synchronised = session.call(op::cuCtxSynchronize, |_| {});
    let address = std::ptr::with_exposed_provenance_mut(usize::try_from(range.base).expect("a host address"));
    // SAFETY: mapped by `map_anonymous` with this length, and taken out of the table by the caller, so freed once.
    unsafe { libc::munmap(address, usize::try_from(length).expect("a host size")) };
    synchronised.map(|_| ())
}

/// Gives back the host memory among `ranges`, which a context took with it.
pub(crate) fn release_host(session: &Session, ranges: &[Allocation]) {
    for range in ranges.iter().filter(|range| range.is_host()) {
        let _ = free_host(session, range);
    }
}

pub(crate) unsafe fn cuMemHostAlloc(pp: *mut *mut c_void, bytesize: usize, Flags: c_uint) -> Result {
    let (session, context) = enter()?;
    if pp.is_null() || bytesize == 0 || Flags & !HOST_ALLOC_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = allocate_host(session, Kind::Pinned, bytesize, Flags, context.handle, context.device)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(pp, address) }
}

pub(crate) unsafe fn cuMemAllocHost_v2(pp: *mut *mut c_void, bytesize: usize) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuMemHostAlloc(pp, bytesize, 0) }
}

pub(crate) unsafe fn cuMemAllocHost(pp: *mut *mut c_void, bytesize: c_uint) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuMemHostAlloc(pp, bytesize as usize, 0) }
}

pub(crate) unsafe fn cuMemFreeHost(p: *mut c_void) -> Result {
    let session = session()?;
    let base = p.expose_provenance() as u64;
    let range = session.allocations.remove(base, |range| range.kind == Kind::Pinned);
    let range = range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    match free_host(session, &range) {
        Err(error) if crate::call::is_sticky(error) => Err(error),
        _ => Ok(()),
    }
}

pub(crate) unsafe fn cuMemHostRegister(p: *mut c_void, bytesize: usize, Flags: c_uint) -> Result {
    // SAFETY: the contract is the same.
    unsafe { cuMemHostRegister_v2(p, bytesize, Flags) }
}

pub(crate) unsafe fn cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, Flags: c_uint) -> Result {
    let (session, context) = enter()?;
    if p.is_null() || bytesize == 0 || Flags & !HOST_REGISTER_FLAGS != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let base = p.expose_provenance() as u64;
    let last = base.checked_add(bytesize as u64 - 1).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if session.allocations.find(base).is_some() || session.allocations.find(last).is_some() {
        return Err(CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    session.allocations.insert(
        Kind::Registered,
        base,
        bytesize as u64,
        context.handle,
        context.device,
        Flags,
    );
    if let Some(arena) = &session.arena {
        let length = bytesize as u64;
        // Memory that cannot be moved is carried as pageable memory is: slower, but right.
        if (base | length).is_multiple_of(PAGE) && is_private(base, length) {
            // SAFETY: private memory, checked above; the application owns it and does not write to it while it registers it.
            if let Some(mirror) = unsafe { arena.move_in(base, length) } {
                let pinned = call(op::cuMemHostAlloc, |writer| {
                    writer.put(mirror);
                    writer.put(length);
                });
                if let Err(error) = pinned {
                    // SAFETY: moved in above.
                    unsafe { arena.move_out(base, length, mirror) };
                    session.allocations.remove(base, |_| true);
                    return Err(error);
                }
                session.allocations.share(base, mirror);
            }
        }
    }
    Ok(())
}

/// Makes registered memory the application's own again.
fn unregister(session: &Session, range: &Allocation) -> Result {
    let (Some(arena), true) = (&session.arena, range.shared != 0) else { return Ok(()) };
    let unpinned = session.call(op::cuMemFreeHost, |writer| writer.put(range.shared));
    // SAFETY: moved in by cuMemHostRegister, and taken out of the table by the caller.
    unsafe { arena.move_out(range.base, range.size, range.shared) };
    unpinned.map(|_| ())
}

pub(crate) unsafe fn cuMemHostUnregister(p: *mut c_void) -> Result {
    let session = session()?;
    let base = p.expose_provenance() as u64;
    let range = session.allocations.remove(base, |range| range.kind == Kind::Registered);
    free_host(session, &range.ok_or(CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED)?)
}

pub(crate) unsafe fn cuMemHostGetDevicePointer_v2(
    pdptr: *mut CUdeviceptr,
    p: *mut c_void,
    Flags: c_uint,
) -> Result {
    let session = session()?;
    let address = p.expose_provenance() as u64;
    let range = session.allocations.find(address).filter(Allocation::is_host);
    range.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    if Flags != 0 || pdptr.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if let Some(shared) = session.shared_address(address) {
        // SAFETY: not null, and writable by the entry point's contract.
        return unsafe { put(pdptr, shared) };
    }
    // A kernel cannot reach the guest's memory over a socket; saying so beats a pointer that faults.
    crate::log::line(
        crate::log::Level::Warn,
        format_args!(
            "mapped host memory needs shared memory with the server, which this connection does not have"
        ),
    );
    Err(CUresult::ERROR_NOT_SUPPORTED)
}

pub(crate) unsafe fn cuMemHostGetFlags(pFlags: *mut c_uint, p: *mut c_void) -> Result {
    let session = session()?;
    let range = session.allocations.find(p.expose_provenance() as u64).filter(Allocation::is_host);
    let flags = range.ok_or(CUresult::ERROR_INVALID_VALUE)?.flags;
    // With unified addressing every allocation is portable and mapped (measured).
    // SAFETY: the entry point's contract.
    unsafe { put(pFlags, flags | 2) }
}

/// A memset of `height` rows of `width` elements.
struct Fill {
    address: CUdeviceptr,
    pitch: usize,
    value: u32,
    element: u32,
    width: usize,
    height: usize,
}

impl Fill {
    /// Sends it to a stream.
    fn send(&self, stream: CUstream) -> Result {
        let (session, _) = enter()?;
        let stream = stream_argument(session, stream.0)?;
        if self.width == 0 || self.height == 0 {
            return Ok(());
        }
        let row = (self.width as u64).checked_mul(self.element.into());
        let rows = (self.pitch as u64).checked_mul(self.height as u64 - 1);
        let bytes = row
            .zip(rows)
            .and_then(|(row, rows)| row.checked_add(rows))
            .ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let range = session.allocations.find(self.address).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let aligned = self.address.is_multiple_of(self.element.into());
        let pitch_holds = self.height == 1 || row.is_some_and(|row| row <= self.pitch as u64);
        if bytes > range.bytes_from(self.address) || !aligned || !pitch_holds {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let shared = range.shared_address(self.address);
        if range.is_host() && shared.is_none() {
            // The guest's own memory: the device cannot reach it over a socket, this thread can.
            call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
            self.fill_host();
            return Ok(());
        }
        session.post(op::cuMemsetD2D32Async, |writer| {
            writer.put(shared.unwrap_or(self.address));
            writer.put(self.pitch as u64);
            writer.put(self.value);
            writer.put(self.element);
            writer.put(self.width as u64);
            writer.put(self.height as u64);
            writer.put(stream);
        })
    }

    fn fill_host(&self) {
        let pattern = self.value.to_le_bytes();
        let element = self.element as usize;
        for row in 0..self.height {
            let start = usize::try_from(self.address).expect("a host address") + row * self.pitch;
            for index in 0..self.width {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(start + index * element);
                // SAFETY: within a live host allocation, checked by `send`.
                unsafe { std::ptr::copy_nonoverlapping(pattern.as_ptr(), to, element) };
            }
        }
    }
}

macro_rules! memsets {
    ($($plain:ident $stream:ident $pitched:ident $pitched_stream:ident $type:ty;)*) => { $(
        pub(crate) unsafe fn $plain(dstDevice: CUdeviceptr, value: $type, N: usize) -> Result {
            // SAFETY: the contract is the same.
            unsafe { $stream(dstDevice, value, N, CUstream::NULL) }
        }

        pub(crate) unsafe fn $stream(dstDevice: CUdeviceptr, value: $type, N: usize, hStream: CUstream) -> Result {
            let element = u32::try_from(size_of::<$type>()).expect("elements are small");
            Fill { address: dstDevice, pitch: 0, value: value.into(), element, width: N, height: 1 }.send(hStream)
        }

        pub(crate) unsafe fn $pitched(
            dstDevice: CUdeviceptr,
            dstPitch: usize,
            value: $type,
            Width: usize,
            Height: usize,
        ) -> Result {
            // SAFETY: the contract is the same.
            unsafe { $pitched_stream(dstDevice, dstPitch, value, Width, Height, CUstream::NULL) }
        }

        pub(crate) unsafe fn $pitched_stream(
            dstDevice: CUdeviceptr,
            dstPitch: usize,
            value: $type,
            Width: usize,
            Height: usize,
            hStream: CUstream,
        ) -> Result {
            let element = u32::try_from(size_of::<$type>()).expect("elements are small");
            Fill { address: dstDevice, pitch: dstPitch, value: value.into(), element, width: Width, height: Height }
                .send(hStream)
        }
    )* };
}

memsets! {
    cuMemsetD8_v2 cuMemsetD8Async cuMemsetD2D8_v2 cuMemsetD2D8Async u8;
    cuMemsetD16_v2 cuMemsetD16Async cuMemsetD2D16_v2 cuMemsetD2D16Async u16;
    cuMemsetD32_v2 cuMemsetD32Async cuMemsetD2D32_v2 cuMemsetD2D32Async c_uint;
}
