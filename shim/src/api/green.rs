//! Green contexts. A resource's public numbers are the driver's; in the part that only the driver reads stands the number under
//! which the server keeps the driver's own.

use super::stream::stream_context;
use super::{Result, put};
use crate::call::{call, garbled};
use crate::handles::HandleTable;
use crate::objects::{Context, Progress, Stream};
use crate::session::{Session, session};
use crate::thread;
use pxos_protocol::api::op;
use pxos_protocol::codec::Reader;
use pxos_protocol::types::{
    CUcontext, CUdevResource, CUdevResourceDesc, CUdevResourceType, CUdevice, CUevent, CUgreenCtx, CUresult,
    CUstream, HandleKind,
};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Marks a resource of ours.
const MAGIC: [u8; 8] = *b"pxOSpart";

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

/// `CU_GREEN_CTX_DEFAULT_STREAM`: required.
const DEFAULT_STREAM: c_uint = 1;

/// Most parts of a split.
const MAX_GROUPS: c_uint = 4096;

/// A green context and the context that goes with it.
#[derive(Debug)]
pub(crate) struct GreenContext {
    handle: u64,
    context: u64,
}

/// All green contexts.
#[derive(Debug)]
pub(crate) struct Greens(HandleTable<GreenContext>);

impl Default for Greens {
    fn default() -> Self {
        Self(HandleTable::new(HandleKind::GreenContext))
    }
}

impl Greens {
    /// The green context that a context belongs to.
    pub(crate) fn of_context(&self, context: u64) -> Option<u64> {
        let found = AtomicU64::new(0);
        self.0.for_each(|green| {
            if green.context == context {
                found.store(green.handle, Ordering::Relaxed);
            }
        });
        Some(found.into_inner()).filter(|handle| *handle != 0)
    }
}

fn live(session: &Session, green: CUgreenCtx) -> Result<Arc<GreenContext>> {
    session.greens.0.get(green.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)
}

/// Reads one resource of an answer.
fn read(fields: &mut Reader<'_>) -> Result<CUdevResource> {
    let mut resource = CUdevResource::INVALID;
    let mut next = || fields.get::<u32>().map_err(garbled);
    resource.kind = next()?;
    resource.sm_count = next()?;
    resource.min_sm_partition_size = next()?;
    resource.sm_coscheduled_alignment = next()?;
    let number: u64 = fields.get().map_err(garbled)?;
    if resource.kind != 0 {
        resource.internal[..8].copy_from_slice(&MAGIC);
        resource.internal[8..16].copy_from_slice(&number.to_le_bytes());
    }
    Ok(resource)
}

/// The number under which the server keeps a resource that the application has.
fn number_of(resource: &CUdevResource) -> Result<u64> {
    let (words, _) = resource.internal.as_chunks::<8>();
    if resource.kind == 0 || words[0] != MAGIC {
        return Err(CUresult::ERROR_INVALID_RESOURCE_TYPE);
    }
    Ok(u64::from_le_bytes(words[1]))
}

/// Asks for a resource of a device or context.
///
/// # Safety
/// `resource` is null or writable.
unsafe fn resource_of(
    number: u16,
    whose: u64,
    resource: *mut CUdevResource,
    kind: CUdevResourceType,
) -> Result {
    if resource.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let reply = call(number, |writer| {
        writer.put(whose);
        writer.put(kind);
    })?;
    let mut fields = reply.reader();
    let _count: u64 = fields.get().map_err(garbled)?;
    // SAFETY: by this function's contract.
    unsafe { put(resource, read(&mut fields)?) }
}

pub(crate) unsafe fn cuDeviceGetDevResource(
    device: CUdevice,
    resource: *mut CUdevResource,
    kind: CUdevResourceType,
) -> Result {
    super::device::device(session()?, device)?;
    let whose = u64::from(device.cast_unsigned());
    // SAFETY: the entry point's contract.
    unsafe { resource_of(op::cuDeviceGetDevResource, whose, resource, kind) }
}

pub(crate) unsafe fn cuCtxGetDevResource(
    hCtx: CUcontext,
    resource: *mut CUdevResource,
    kind: CUdevResourceType,
) -> Result {
    let session = session()?;
    let context = match hCtx {
        CUcontext::NULL => super::current(session)?,
        context => session.contexts.get(context.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?,
    };
    // SAFETY: the entry point's contract.
    unsafe { resource_of(op::cuCtxGetDevResource, context.handle, resource, kind) }
}

pub(crate) unsafe fn cuGreenCtxGetDevResource(
    hCtx: CUgreenCtx,
    resource: *mut CUdevResource,
    kind: CUdevResourceType,
) -> Result {
    let green = live(session()?, hCtx)?;
    // SAFETY: the entry point's contract.
    unsafe { resource_of(op::cuGreenCtxGetDevResource, green.handle, resource, kind) }
}

pub(crate) unsafe fn cuDevSmResourceSplitByCount(
    result: *mut CUdevResource,
    nbGroups: *mut c_uint,
    input: *const CUdevResource,
    remaining: *mut CUdevResource,
    useFlags: c_uint,
    minCount: c_uint,
) -> Result {
    // SAFETY: null or a resource, by the entry point's contract.
    let input = number_of(unsafe { input.as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?)?;
    // SAFETY: null or a number, by the entry point's contract.
    let groups = unsafe { nbGroups.as_mut() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let counted_only = result.is_null();
    let wanted = if counted_only { 0 } else { (*groups).min(MAX_GROUPS) };
    let reply = call(op::cuDevSmResourceSplitByCount, |writer| {
        writer.put(input);
        writer.put(wanted);
        writer.put(u32::from(counted_only));
        writer.put(useFlags);
        writer.put(minCount);
    })?;
    let mut fields = reply.reader();
    let count: u64 = fields.get().map_err(garbled)?;
    let parts = count.saturating_sub(1).min(wanted.into());
    for index in 0..usize::try_from(parts).unwrap_or(0) {
        let part = read(&mut fields)?;
        // SAFETY: room for the number of groups that the application gave, which is no less than `wanted`.
        unsafe { result.add(index).write(part) };
    }
    let rest = read(&mut fields)?;
    *groups = fields.get().map_err(garbled)?;
    if remaining.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(remaining, rest) }
}

pub(crate) unsafe fn cuDevResourceGenerateDesc(
    phDesc: *mut CUdevResourceDesc,
    resources: *mut CUdevResource,
    nbResources: c_uint,
) -> Result {
    if phDesc.is_null() || resources.is_null() || nbResources == 0 || nbResources > MAX_GROUPS {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // SAFETY: that many entries, by the entry point's contract.
    let list = unsafe { std::slice::from_raw_parts(resources.cast_const(), nbResources as usize) };
    let numbers = list.iter().map(number_of).collect::<Result<Vec<_>>>()?;
    let reply = call(op::cuDevResourceGenerateDesc, |writer| {
        writer.put(nbResources);
        numbers.iter().for_each(|number| writer.put(*number));
    })?;
    let descriptor: u64 = reply.reader().get().map_err(garbled)?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phDesc, descriptor) }
}

pub(crate) unsafe fn cuGreenCtxCreate(
    phCtx: *mut CUgreenCtx,
    desc: CUdevResourceDesc,
    dev: CUdevice,
    flags: c_uint,
) -> Result {
    let session = session()?;
    super::device::device(session, dev)?;
    if phCtx.is_null() || desc == 0 || flags != DEFAULT_STREAM {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let id = session.next_context_id();
    let context = session.contexts.mint(|handle| Context {
        handle,
        device: dev,
        id,
        primary: false,
        flags: AtomicU32::new(0),
        retained: AtomicU32::new(1),
        cache_config: AtomicU32::new(0),
        shared_config: AtomicU32::new(0),
        work: Progress::default(),
        legacy: Progress::default(),
        legacy_waited: AtomicU64::new(0),
        lives: AtomicU64::new(0),
        next_stream_id: AtomicU64::new(3),
    })?;
    let green = session.greens.0.mint(|handle| GreenContext { handle, context: context.handle })?;
    let made = session.call(op::cuGreenCtxCreate, |writer| {
        writer.put(green.handle);
        writer.put(context.handle);
        writer.put(desc);
        writer.put(dev);
        writer.put(flags);
    });
    if let Err(error) = made {
        session.greens.0.remove(green.handle);
        session.contexts.remove(context.handle);
        return Err(error);
    }
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phCtx, CUgreenCtx(green.handle)) }
}

pub(crate) unsafe fn cuGreenCtxDestroy(hCtx: CUgreenCtx) -> Result {
    let session = session()?;
    let green = session.greens.0.remove(hCtx.0).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let Some(context) = session.contexts.get(green.context) else { return Ok(()) };
    super::context::end(session, &context, op::cuGreenCtxDestroy, false)?;
    context.retained.store(0, Ordering::Release);
    session.contexts.remove(context.handle);
    if thread::current_context() == context.handle {
        thread::pop();
    }
    Ok(())
}

pub(crate) unsafe fn cuCtxFromGreenCtx(pContext: *mut CUcontext, hCtx: CUgreenCtx) -> Result {
    let green = live(session()?, hCtx)?;
    // SAFETY: the entry point's contract.
    unsafe { put(pContext, CUcontext(green.context)) }
}

pub(crate) unsafe fn cuGreenCtxGetId(greenCtx: CUgreenCtx, greenCtxId: *mut u64) -> Result {
    let session = session()?;
    let green = live(session, greenCtx)?;
    let context = session.contexts.get(green.context).ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?;
    // SAFETY: the entry point's contract.
    unsafe { put(greenCtxId, context.id) }
}

pub(crate) unsafe fn cuStreamGetGreenCtx(hStream: CUstream, phCtx: *mut CUgreenCtx) -> Result {
    let session = session()?;
    let green = session.greens.of_context(stream_context(session, hStream)?);
    // SAFETY: the entry point's contract.
    unsafe { put(phCtx, green.map_or(CUgreenCtx::NULL, CUgreenCtx)) }
}

pub(crate) unsafe fn cuGreenCtxStreamCreate(
    phStream: *mut CUstream,
    greenCtx: CUgreenCtx,
    flags: c_uint,
    priority: c_int,
) -> Result {
    let session = session()?;
    let green = live(session, greenCtx)?;
    if phStream.is_null() || flags != NON_BLOCKING {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let context = session.contexts.get(green.context).ok_or(CUresult::ERROR_CONTEXT_IS_DESTROYED)?;
    let (least, greatest) = super::device::device(session, context.device)?.priorities;
    let priority = priority.clamp(greatest.min(least), least.max(greatest));
    let id = context.next_stream_id.fetch_add(1, Ordering::Relaxed);
    let owner = context.handle;
    let stream = session.streams.mint(|handle| Stream {
        handle,
        context: owner,
        flags,
        priority,
        id,
        work: Progress::default(),
    })?;
    super::stream::announce(session, &stream, op::cuGreenCtxStreamCreate, |writer| {
        writer.put(green.handle);
        writer.put(owner);
        writer.put(stream.handle);
        writer.put(flags);
        writer.put(priority);
    })?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(phStream, CUstream(stream.handle)) }
}

/// `cuGreenCtxRecordEvent` and `cuGreenCtxWaitEvent`.
fn event(number: u16, green: CUgreenCtx, event: CUevent) -> Result {
    let session = session()?;
    let green = live(session, green)?;
    let event = session.events.get(event.0).ok_or(CUresult::ERROR_INVALID_HANDLE)?;
    if number == op::cuGreenCtxRecordEvent {
        event.record();
    } else if !event.recorded.load(Ordering::Acquire) {
        return Ok(());
    }
    session.post(number, |writer| {
        writer.put(green.handle);
        writer.put(event.handle);
    })
}

pub(crate) unsafe fn cuGreenCtxRecordEvent(hCtx: CUgreenCtx, hEvent: CUevent) -> Result {
    event(op::cuGreenCtxRecordEvent, hCtx, hEvent)
}

pub(crate) unsafe fn cuGreenCtxWaitEvent(hCtx: CUgreenCtx, hEvent: CUevent) -> Result {
    event(op::cuGreenCtxWaitEvent, hCtx, hEvent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_ours_or_none() {
        assert_eq!(number_of(&CUdevResource::INVALID), Err(CUresult::ERROR_INVALID_RESOURCE_TYPE));
        let mut bytes = Vec::new();
        let mut writer = pxos_protocol::codec::Writer::new(&mut bytes);
        for word in [1_u32, 132, 8, 8] {
            writer.put(word);
        }
        writer.put(5_u64);
        let mut resource = read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((resource.sm_count, number_of(&resource)), (132, Ok(5)));
        resource.internal[0] ^= 1;
        assert!(number_of(&resource).is_err());
    }
}
