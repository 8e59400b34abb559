//! User objects, the text form of graphs, and the memory that graphs allocate.

use super::number;
use crate::api::{Result, enter, put};
use crate::call::{call, garbled};
use crate::callbacks::Callback;
use crate::session::session;
use pxos_protocol::api::op;
use pxos_protocol::types::{CUdevice, CUgraph, CUgraphMem_attribute, CUhostFn, CUresult, CUuserObject};
use std::ffi::{CStr, OsStr, c_char, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;

pub(crate) unsafe fn cuUserObjectCreate(
    object_out: *mut CUuserObject,
    ptr: *mut c_void,
    destroy: CUhostFn,
    initialRefcount: c_uint,
    flags: c_uint,
) -> Result {
    let session = session()?;
    if object_out.is_null() || destroy.is_none() || initialRefcount == 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // The driver counts the references, those of graphs and of launches included, and says when the last is gone.
    let last = session.callbacks.keep_once(session, Callback::Host(destroy, ptr.expose_provenance()))?;
    let reply = call(op::cuUserObjectCreate, |writer| {
        writer.put(last);
        writer.put(initialRefcount);
        writer.put(flags);
    });
    let reply = reply.inspect_err(|_| session.callbacks.forget_once(last))?;
    let object = number(&mut reply.reader())?;
    // SAFETY: not null, and writable by the entry point's contract.
    unsafe { put(object_out, CUuserObject(object)) }
}

pub(crate) unsafe fn cuUserObjectRetain(object: CUuserObject, count: c_uint) -> Result {
    call(op::cuUserObjectRetain, |writer| {
        writer.put(object.0);
        writer.put(count);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuUserObjectRelease(object: CUuserObject, count: c_uint) -> Result {
    call(op::cuUserObjectRelease, |writer| {
        writer.put(object.0);
        writer.put(count);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuGraphRetainUserObject(
    graph: CUgraph,
    object: CUuserObject,
    count: c_uint,
    flags: c_uint,
) -> Result {
    let graph = session()?.graphs.graph(graph)?;
    call(op::cuGraphRetainUserObject, |writer| {
        writer.put(graph.id);
        writer.put(object.0);
        writer.put(count);
        writer.put(flags);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuGraphReleaseUserObject(graph: CUgraph, object: CUuserObject, count: c_uint) -> Result {
    let graph = session()?.graphs.graph(graph)?;
    call(op::cuGraphReleaseUserObject, |writer| {
        writer.put(graph.id);
        writer.put(object.0);
        writer.put(count);
    })
    .map(|_| ())
}

pub(crate) unsafe fn cuGraphDebugDotPrint(hGraph: CUgraph, path: *const c_char, flags: c_uint) -> Result {
    let graph = session()?.graphs.graph(hGraph)?;
    if path.is_null() {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    // The host's driver writes the text, the guest the file.
    let mut text = Vec::new();
    loop {
        let reply = call(op::cuGraphDebugDotPrint, |writer| {
            writer.put(graph.id);
            writer.put(flags);
            writer.put(text.len() as u64);
        })?;
        let mut fields = reply.reader();
        let total: u64 = fields.get().map_err(garbled)?;
        let piece = fields.get_bytes().map_err(garbled)?;
        text.extend_from_slice(piece);
        if piece.is_empty() || text.len() as u64 >= total {
            break;
        }
    }
    // SAFETY: not null, hence a C string by the entry point's contract.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    std::fs::write(path, text).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
}

pub(crate) unsafe fn cuDeviceGraphMemTrim(device: CUdevice) -> Result {
    crate::api::device::device(session()?, device)?;
    call(op::cuDeviceGraphMemTrim, |writer| writer.put(device)).map(drop)
}

pub(crate) unsafe fn cuDeviceGetGraphMemAttribute(
    device: CUdevice,
    attr: CUgraphMem_attribute,
    value: *mut c_void,
) -> Result {
    crate::api::device::device(session()?, device)?;
    let reply = call(op::cuDeviceGetGraphMemAttribute, |writer| {
        writer.put(device);
        writer.put(attr);
    })?;
    let bytes = number(&mut reply.reader())?;
    // Every attribute is a cuuint64_t.
    // SAFETY: the entry point's contract.
    unsafe { put(value.cast::<u64>(), bytes) }
}

pub(crate) unsafe fn cuDeviceSetGraphMemAttribute(
    device: CUdevice,
    attr: CUgraphMem_attribute,
    value: *mut c_void,
) -> Result {
    let (session, _) = enter()?;
    crate::api::device::device(session, device)?;
    // SAFETY: null or a cuuint64_t, by the entry point's contract.
    let value = unsafe { value.cast::<u64>().as_ref() }.ok_or(CUresult::ERROR_INVALID_VALUE)?;
    call(op::cuDeviceSetGraphMemAttribute, |writer| {
        writer.put(device);
        writer.put(attr);
        writer.put(*value);
    })
    .map(|_| ())
}
