//! User objects, the text form of graphs, and the memory that graphs allocate.

use super::super::super::callbacks;
use super::super::super::dispatch::{Answer, Call, done};
use pxos_protocol::types::{CUdevice, CUresult};
use std::ffi::{CString, c_void};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of text in one answer.
const PIECE: usize = 512 << 10;

/// `cuUserObjectCreate`: the number of the function that ends it, references, flags; the answer is the object.
pub(in crate::worker) fn create_object(call: &mut Call<'_>) -> Answer {
    let (number, references, flags): (u64, u32, u32) = (call.get()?, call.get()?, call.get()?);
    call.state.graphs.check_room()?;
    let (destroy, data) = callbacks::ending(call.session, number);
    let mut native = 0;
    // SAFETY: a pointer to a local; the data is a number, and leads nowhere.
    unsafe { call.driver().cuUserObjectCreate(&raw mut native, data, destroy, references, flags)? };
    let id = call.state.graphs.number(super::OBJECT);
    let object = super::Object { native, held: references.into(), in_graphs: 0 };
    call.state.graphs.objects.insert(id, object);
    call.reply().put(id);
    done()
}

/// `cuUserObjectRetain` and `cuUserObjectRelease`: object, references. The handle is good as long as it has a reference that is
/// known here, so that the driver never sees one that it has forgotten.
pub(in crate::worker) fn count_object(call: &mut Call<'_>) -> Answer {
    let (id, references): (u64, u32) = (call.get()?, call.get()?);
    let driver = call.driver();
    let graphs = &mut call.state.graphs;
    let object = graphs.objects.get_mut(&id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    // SAFETY: an object of the session's that has references.
    unsafe {
        if call.header.op == pxos_protocol::api::op::cuUserObjectRetain {
            driver.cuUserObjectRetain(object.native, references)?;
            object.held += u64::from(references);
        } else {
            if object.held < references.into() {
                return Err(CUresult::ERROR_INVALID_VALUE.into());
            }
            driver.cuUserObjectRelease(object.native, references)?;
            graphs.release_object(id, references.into(), 0);
        }
    }
    done()
}

/// `CU_GRAPH_USER_OBJECT_MOVE`: the references are the guest's own so far.
const MOVE: u32 = 1;

/// `cuGraphRetainUserObject`: graph, object, references, flags; `cuGraphReleaseUserObject`: the same without flags.
pub(in crate::worker) fn graph_object(call: &mut Call<'_>) -> Answer {
    let (graph_id, id, references): (u64, u64, u32) = (call.get()?, call.get()?, call.get()?);
    let retains = call.header.op == pxos_protocol::api::op::cuGraphRetainUserObject;
    let flags: u32 = if retains { call.get()? } else { 0 };
    let driver = call.driver();
    let graphs = &mut call.state.graphs;
    let graph = graphs.graphs.get_mut(&graph_id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let object = graphs.objects.get_mut(&id).ok_or(CUresult::ERROR_INVALID_VALUE)?;
    let count = u64::from(references);
    let held = graph.objects.entry(id).or_default();
    if retains {
        if flags & MOVE != 0 && object.held < count {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        // SAFETY: objects of the session's; the object has references.
        unsafe { driver.cuGraphRetainUserObject(graph.native, object.native, references, flags)? };
        *held += count;
        object.in_graphs += count;
        graphs.release_object(id, if flags & MOVE == 0 { 0 } else { count }, 0);
    } else {
        if *held < count {
            return Err(CUresult::ERROR_INVALID_VALUE.into());
        }
        // SAFETY: as above.
        unsafe { driver.cuGraphReleaseUserObject(graph.native, object.native, references)? };
        *held -= count;
        graphs.release_object(id, 0, count);
    }
    done()
}

/// `cuGraphDebugDotPrint`: graph, flags, first byte; the answer is the length of the text and a piece of it.
pub(in crate::worker) fn print(call: &mut Call<'_>) -> Answer {
    let (id, flags): (u64, u32) = (call.get()?, call.get()?);
    let first = call.get_usize()?;
    let graph = call.state.graphs.graph(id)?.native;
    if first == 0 {
        call.state.graphs.text = text(call, graph, flags)?;
    }
    let text = std::mem::take(&mut call.state.graphs.text);
    let piece = text.get(first..).map_or(&[][..], |rest| &rest[..rest.len().min(PIECE)]);
    let mut reply = call.reply();
    reply.put(text.len() as u64);
    reply.put_bytes(piece);
    if first + piece.len() < text.len() {
        call.state.graphs.text = text;
    }
    done()
}

/// Has the driver write a graph's text into a file that is nowhere but in memory.
fn text(call: &Call<'_>, graph: u64, flags: u32) -> Result<Vec<u8>, CUresult> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"pxos-graph".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(CUresult::ERROR_OPERATING_SYSTEM);
    }
    // SAFETY: just made, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let name = CString::new(path.clone()).expect("digits and slashes");
    // SAFETY: a graph of the session's; a C string.
    unsafe { call.driver().cuGraphDebugDotPrint(graph, name.as_ptr(), flags)? };
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut text));
    read.map(|_| text).map_err(|_| CUresult::ERROR_OPERATING_SYSTEM)
}

/// `cuDeviceGetGraphMemAttribute`: device, attribute; the answer is the value.
pub(in crate::worker) fn memory_attribute(call: &mut Call<'_>) -> Answer {
    let (device, attribute): (CUdevice, u32) = (call.get()?, call.get()?);
    let mut value: u64 = 0;
    let pointer: *mut c_void = (&raw mut value).cast();
    // SAFETY: a pointer to a local of the attributes' type, cuuint64_t.
    unsafe { call.driver().cuDeviceGetGraphMemAttribute(device, attribute, pointer)? };
    call.reply().put(value);
    done()
}

/// `cuDeviceSetGraphMemAttribute`: device, attribute, value.
pub(in crate::worker) fn set_memory_attribute(call: &mut Call<'_>) -> Answer {
    let (device, attribute): (CUdevice, u32) = (call.get()?, call.get()?);
    let mut value: u64 = call.get()?;
    let pointer: *mut c_void = (&raw mut value).cast();
    // SAFETY: a pointer to a local of the attributes' type, cuuint64_t.
    unsafe { call.driver().cuDeviceSetGraphMemAttribute(device, attribute, pointer)? };
    done()
}
