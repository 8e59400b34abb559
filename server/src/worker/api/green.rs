//! Green contexts: parts of a device. What the driver keeps inside a resource stays here: the guest's structure holds the
//! public numbers and a number of ours, which is looked up.

use super::super::dispatch::{Answer, Call, Failed, done};
use super::super::state::{Context, Owned};
use super::super::tables::Table;
use pxos_protocol::api::op;
use pxos_protocol::types::{CUdevResource, CUresult, HandleKind};
use std::collections::HashMap;

/// Most resources, and most descriptors, that a session may hold: they are never given back.
const MOST: usize = 1 << 14;
/// Most parts of one split.
const MAX_GROUPS: u32 = 4096;

/// A green context.
#[derive(Debug)]
struct GreenContext {
    native: u64,
}

/// Everything of a session.
#[derive(Debug)]
pub(crate) struct Green {
    table: Table<GreenContext>,
    /// Green contexts by the context that goes with each.
    by_context: HashMap<u64, u64>,
    resources: Vec<CUdevResource>,
    descriptors: Vec<u64>,
}

impl Default for Green {
    fn default() -> Self {
        Self {
            table: Table::new(HandleKind::GreenContext),
            by_context: HashMap::new(),
            resources: Vec::new(),
            descriptors: Vec::new(),
        }
    }
}

impl Green {
    /// Whether a context is a green context's.
    pub(super) fn is_of_green(&self, context: u64) -> bool {
        self.by_context.contains_key(&context)
    }

    /// The driver's handle of a green context, whose context is the one that the guest says.
    fn native(&self, green: u64, context: u64) -> Result<u64, CUresult> {
        let native = self.table.get(green)?.native;
        if self.by_context.get(&context) == Some(&green) {
            Ok(native)
        } else {
            Err(CUresult::ERROR_INVALID_CONTEXT)
        }
    }

    /// The number under which a resource is kept; equal ones share it.
    fn keep(&mut self, resource: CUdevResource) -> Result<u64, CUresult> {
        let same = |kept: &CUdevResource| {
            kept.kind == resource.kind
                && kept.internal == resource.internal
                && kept.sm_count == resource.sm_count
                && kept.oversize == resource.oversize
        };
        if let Some(index) = self.resources.iter().position(same) {
            return Ok(index as u64);
        }
        if self.resources.len() >= MOST {
            return Err(CUresult::ERROR_OUT_OF_MEMORY);
        }
        self.resources.push(resource);
        Ok(self.resources.len() as u64 - 1)
    }

    fn resource(&self, number: u64) -> Result<CUdevResource, CUresult> {
        let index = usize::try_from(number).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
        self.resources.get(index).copied().ok_or(CUresult::ERROR_INVALID_VALUE)
    }
}

/// Writes what the guest sees of a resource: kind, count, smallest part, alignment, our number.
fn write(call: &mut Call<'_>, list: &[CUdevResource]) -> Result<(), Failed> {
    let mut numbers = Vec::new();
    for resource in list {
        numbers.push(if resource.kind == 0 { u64::MAX } else { call.state.green.keep(*resource)? });
    }
    let mut reply = call.reply();
    reply.put(list.len() as u64);
    for (resource, number) in list.iter().zip(numbers) {
        reply.put(resource.kind);
        reply.put(resource.sm_count);
        reply.put(resource.min_sm_partition_size);
        reply.put(resource.sm_coscheduled_alignment);
        reply.put(number);
    }
    Ok(())
}

/// `cuDeviceGetDevResource`, `cuCtxGetDevResource`, `cuGreenCtxGetDevResource`: whose, kind.
pub(in super::super) fn resource(call: &mut Call<'_>) -> Answer {
    let (whose, kind): (u64, u32) = (call.get()?, call.get()?);
    let mut resource = CUdevResource::INVALID;
    let driver = call.driver();
    match call.header.op {
        op::cuDeviceGetDevResource => {
            let device = i32::try_from(whose).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
            // SAFETY: a pointer to a local.
            unsafe { driver.cuDeviceGetDevResource(device, &raw mut resource, kind)? };
        }
        op::cuCtxGetDevResource => {
            call.state.enter(call.session, whose)?;
            let native = call.state.contexts.get(whose)?.native;
            // SAFETY: a context of this session's; a pointer to a local.
            unsafe { driver.cuCtxGetDevResource(native, &raw mut resource, kind)? };
        }
        _ => {
            let native = call.state.green.table.get(whose)?.native;
            // SAFETY: a green context of this session's; a pointer to a local.
            unsafe { driver.cuGreenCtxGetDevResource(native, &raw mut resource, kind)? };
        }
    }
    write(call, &[resource])?;
    done()
}

/// `cuDevSmResourceSplitByCount`: resource, groups wanted, whether they are wanted or only counted, flags, smallest; the number
/// of groups comes back, then the groups and what remains.
pub(in super::super) fn split(call: &mut Call<'_>) -> Answer {
    let (input, mut groups): (u64, u32) = (call.get()?, call.get()?);
    let (counted_only, flags, smallest): (u32, u32, u32) = (call.get()?, call.get()?, call.get()?);
    if groups > MAX_GROUPS || (groups == 0 && counted_only == 0) {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let input = call.state.green.resource(input)?;
    let mut list = vec![CUdevResource::INVALID; groups as usize];
    let mut remaining = CUdevResource::INVALID;
    let result = if counted_only == 0 { list.as_mut_ptr() } else { std::ptr::null_mut() };
    // SAFETY: room for `groups` entries, or null to count; pointers to locals, the input as the driver made it.
    unsafe {
        call.driver().cuDevSmResourceSplitByCount(
            result,
            &raw mut groups,
            &raw const input,
            &raw mut remaining,
            flags,
            smallest,
        )?;
    }
    list.truncate(if counted_only == 0 { groups as usize } else { 0 });
    list.push(remaining);
    write(call, &list)?;
    let mut tail = Vec::new();
    pxos_protocol::codec::Writer::new(&mut tail).put(groups);
    call.state.reply.extend_from_slice(&tail);
    done()
}

/// `cuDevResourceGenerateDesc`: count, resources; our number of the descriptor comes back.
pub(in super::super) fn describe(call: &mut Call<'_>) -> Answer {
    let count: u32 = call.get()?;
    // None at all takes the driver to a null pointer (measured on an H200, driver 580).
    if count == 0 || count > MAX_GROUPS || call.state.green.descriptors.len() >= MOST {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    let mut list = Vec::new();
    for _ in 0..count {
        let number = call.get()?;
        list.push(call.state.green.resource(number)?);
    }
    let mut native = 0;
    // SAFETY: an array of `count` entries as the driver made them; a pointer to a local.
    unsafe { call.driver().cuDevResourceGenerateDesc(&raw mut native, list.as_mut_ptr(), count)? };
    call.state.green.descriptors.push(native);
    let number = call.state.green.descriptors.len() as u64;
    call.reply().put(number);
    done()
}

/// `cuGreenCtxCreate`: handle, handle of its context, descriptor, device, flags.
pub(in super::super) fn create(call: &mut Call<'_>) -> Answer {
    let (handle, context): (u64, u64) = (call.get()?, call.get()?);
    let (descriptor, device, flags): (u64, i32, u32) = (call.get()?, call.get()?, call.get()?);
    call.state.green.table.check(handle)?;
    call.state.contexts.check(context)?;
    let index = usize::try_from(descriptor.wrapping_sub(1)).map_err(|_| CUresult::ERROR_INVALID_VALUE)?;
    let descriptor = *call.state.green.descriptors.get(index).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let (mut native, mut native_context) = (0, 0);
    let driver = call.driver();
    // SAFETY: a descriptor of this session's; pointers to locals.
    unsafe {
        driver.cuGreenCtxCreate(&raw mut native, descriptor, device, flags)?;
        driver.cuCtxFromGreenCtx(&raw mut native_context, native)?;
    }
    call.state.green.table.insert(handle, GreenContext { native })?;
    call.state.green.by_context.insert(context, handle);
    call.state.contexts.insert(context, Context { native: native_context, device, primary: false })?;
    done()
}

/// `cuGreenCtxDestroy`: handle of its context, as of every context that ends.
pub(in super::super) fn destroy(call: &mut Call<'_>) -> Answer {
    let context = call.get()?;
    let handle = call.state.green.by_context.remove(&context).ok_or(CUresult::ERROR_INVALID_CONTEXT)?;
    let green = call.state.green.table.remove(handle)?;
    if let Ok(known) = call.state.contexts.get(context) {
        call.session.gate.forget_context(known.native);
        // Its memory is the primary context's, which does not end with it (CUDA driver API, "Green Contexts").
        let device = known.device;
        let primary = call.state.contexts.find_raw(|context| context.primary && context.device == device);
        call.state.pass_on(context, primary.unwrap_or(0));
    }
    let freed = call.state.forget_context(call.session, context);
    let _ = call.state.contexts.remove(context);
    call.session.left();
    // SAFETY: a green context of this session's, taken out of the table.
    unsafe { call.driver().cuGreenCtxDestroy(green.native)? };
    freed.release(call.session);
    done()
}

/// `cuGreenCtxRecordEvent` and `cuGreenCtxWaitEvent`: handle, event.
pub(in super::super) fn event(call: &mut Call<'_>) -> Answer {
    let (handle, event) = (call.get()?, call.get()?);
    let native = call.state.green.table.get(handle)?.native;
    let event = call.state.events.get(event)?.native;
    let driver = call.driver();
    // SAFETY: a green context and an event of this session's.
    unsafe {
        if call.header.op == op::cuGreenCtxRecordEvent {
            driver.cuGreenCtxRecordEvent(native, event)?;
        } else {
            driver.cuGreenCtxWaitEvent(native, event)?;
        }
    }
    done()
}

/// `cuGreenCtxStreamCreate`: green context, its context, handle, flags, priority.
pub(in super::super) fn stream(call: &mut Call<'_>) -> Answer {
    let (green, context, handle): (u64, u64, u64) = (call.get()?, call.get()?, call.get()?);
    let (flags, priority): (u32, i32) = (call.get()?, call.get()?);
    // A stream goes with its context: filed under another it would be found when it is gone.
    let green = call.state.green.native(green, context)?;
    call.state.streams.check(handle)?;
    call.session.ledger.open_stream()?;
    let mut native = 0;
    // SAFETY: a green context of this session's; a pointer to a local.
    let made = unsafe { call.driver().cuGreenCtxStreamCreate(&raw mut native, green, flags, priority) };
    super::stream::file(call, handle, made.map(|()| Owned { native, context }))
}
