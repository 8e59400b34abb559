//! Host memory that copy nodes read and write.
//!
//! Memory that the guest shares with the worker has the same address on both sides and needs none of this. Any other range is
//! mirrored: the worker keeps page-locked memory of the same length, to which the node's pointer leads. The guest sends what
//! the graph reads before each launch, and the worker sends what the graph has written before it answers the next call that
//! synchronises, so that a program finds its results where and when it does natively.

use super::{Exec, Graphs, Held};
use crate::allocations::Allocation;
use crate::api::Result;
use crate::call::{call, garbled};
use crate::lock;
use crate::session::Session;
use pxos_protocol::api::op;
use pxos_protocol::codec::Writer;
use pxos_protocol::frame::control;
use pxos_protocol::types::{CUDA_MEMCPY3D, CUresult};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

/// Bytes of one message; each is copied into the queue, so that the memory may change as soon as the launch has returned.
const PIECE: usize = 256 << 10;

/// How many uses linger; a program that ends more graphs than that without synchronising once is not after their results.
const LINGERING: usize = 1024;

/// `CU_MEMORYTYPE_*`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// How an end of a copy travels.
const END_MIRROR: u32 = 1;
const END_DEVICE: u32 = 2;
const END_ARRAY: u32 = 3;
const END_SHARED: u32 = 5;

/// Where the worker has this memory, if it has.
pub(super) fn shared_address(session: &Session, address: u64, bytes: u64) -> Option<u64> {
    let range = session.allocations.find(address).filter(|range| range.bytes_from(address) >= bytes)?;
    session.arena.as_ref()?;
    range.shared_address(address)
}

/// A range of host memory that the worker has a mirror of.
#[derive(Debug)]
pub(crate) struct Mirror {
    session: &'static Session,
    /// Its number, under which its bytes come back.
    id: u64,
    address: u64,
    bytes: u64,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.session.link.forget_landing(self.id);
    }
}

/// What one end of a copy does to a mirror.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    mirror: Arc<Mirror>,
    offset: u64,
    span: u64,
    writes: bool,
}

impl Use {
    /// Whether the graph reads it.
    pub(super) fn is_source(&self) -> bool {
        !self.writes
    }
}

/// Mirrors by first address, for ranges that are used more than once.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    by_address: Mutex<BTreeMap<u64, Vec<Weak<Mirror>>>>,
    /// Held from reading memory to queueing what was read, so that the last to read is the last to arrive.
    pushing: Mutex<()>,
    /// What ended executable graphs used, the latest last: launches of theirs may still bring bytes.
    lingering: Mutex<VecDeque<Use>>,
}

impl Mirrors {
    /// A mirror that holds a range, and where the range lies in it.
    fn find(&self, session: &'static Session, address: u64, span: u64) -> (Arc<Mirror>, u64) {
        let mut by_address = lock(&self.by_address);
        for (base, mirrors) in by_address.range_mut(..=address).rev().take(8) {
            mirrors.retain(|mirror| mirror.strong_count() > 0);
            let offset = address - base;
            let mut live = mirrors.iter().filter_map(Weak::upgrade);
            if let Some(mirror) = live.find(|mirror| offset + span <= mirror.bytes) {
                return (mirror, offset);
            }
        }
        by_address.retain(|_, mirrors| !mirrors.is_empty());
        let mirror = Arc::new(Mirror { session, id: session.next_request(), address, bytes: span });
        by_address.entry(address).or_default().push(Arc::downgrade(&mirror));
        let length = usize::try_from(span).expect("a host range");
        // SAFETY: the application gave the range to a copy node, which writes to it for as long as it lives; bytes come only
        // after a launch of such a node.
        unsafe { session.link.land(mirror.id, pointer(address), length) };
        (mirror, 0)
    }

    /// Keeps what an ended graph used.
    pub(super) fn linger(&self, uses: Vec<Use>) {
        let mut lingering = lock(&self.lingering);
        lingering.extend(uses);
        let many = lingering.len().saturating_sub(LINGERING);
        lingering.drain(..many);
    }

    /// Sends the present contents of ranges. The worker keeps what it has where that is newer than the guest's, which is so
    /// from a launch until its results have come back; `after_call` says that a host function has seen them.
    pub(super) fn push(&self, session: &'static Session, uses: &[Use], after_call: bool) -> Result {
        let _one_at_a_time = lock(&self.pushing);
        for one in uses {
            let start = one.mirror.address + one.offset;
            let mut done = 0;
            while done < one.span {
                let length = (one.span - done).min(PIECE as u64);
                let from = pointer(start + done).cast_const();
                // SAFETY: memory that the application gave to a copy node, valid while the graph is launched.
                let bytes =
                    unsafe { std::slice::from_raw_parts(from, usize::try_from(length).expect("a piece")) };
                session.post(control::MIRROR_WRITE, |writer| {
                    writer.put(one.mirror.id);
                    writer.put(one.offset + done);
                    writer.put(u32::from(after_call));
                    writer.put_bytes(bytes);
                })?;
                done += length;
            }
        }
        Ok(())
    }
}

impl Exec {
    /// Makes the worker ready for a launch of a graph that needs the guest.
    pub(super) fn prepare(&self, session: &'static Session, stream: u64) -> Result {
        if !self.holds.load(Ordering::Acquire) {
            return Ok(());
        }
        let held: Vec<Held> = lock(&self.held).values().cloned().collect();
        let functions = held.iter().flat_map(|held| &held.functions);
        // What a graph with host functions writes is delivered before each of them runs, finished or not: the mirror must
        // hold what the guest has there.
        let primes = functions.clone().next().is_some() && !self.primed.swap(true, Ordering::Relaxed);
        let uses: Vec<Use> = held
            .iter()
            .flat_map(|held| &held.uses)
            .filter(|one| primes || one.is_source())
            .cloned()
            .collect();
        if !uses.is_empty() {
            if session.callbacks.are_pending() && !primes {
                // A host function before this launch may still write what the graph reads.
                call(op::cuStreamSynchronize, |writer| writer.put(stream))?;
            }
            session.graphs.mirrors.push(session, &uses, false)?;
        }
        functions.for_each(|function| function.is_due());
        // What is known of their last recording holds no longer.
        held.iter().flat_map(|held| &held.events).for_each(|event| event.record());
        Ok(())
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("addresses have 64 bits"))
}

/// One end of a copy, before it is known whose memory it is.
struct End {
    kind: u32,
    address: u64,
    array: u64,
    position: [u64; 3],
    pitch: u64,
    height: u64,
}

impl End {
    /// Writes it; a mirror that it needs goes to `held`.
    fn write(
        &self,
        session: &'static Session,
        extent: [u64; 3],
        writes: bool,
        held: &mut Held,
        writer: &mut Writer<'_>,
    ) -> Result {
        let invalid = CUresult::ERROR_INVALID_VALUE;
        let is_device = match self.kind {
            ARRAY => {
                writer.put(END_ARRAY);
                writer.put(self.array);
                self.position.into_iter().for_each(|value| writer.put(value));
                return Ok(());
            }
            HOST | DEVICE | UNIFIED => {
                let range = session.allocations.find(self.address);
                range.map_or(self.kind == DEVICE, |range: Allocation| !range.is_host())
            }
            _ => return Err(invalid),
        };
        if self.address == 0 {
            return Err(invalid);
        }
        let [width, height, depth] = extent;
        let pitch = if self.pitch == 0 { width } else { self.pitch };
        let rows = if self.height == 0 { height } else { self.height };
        if is_device {
            writer.put(END_DEVICE);
            writer.put(self.address);
            self.position.into_iter().for_each(|value| writer.put(value));
            writer.put(self.pitch);
            writer.put(self.height);
            return Ok(());
        }
        let slice = pitch.checked_mul(rows).ok_or(invalid)?;
        let [x, y, z] = self.position;
        let before = || {
            let start = z.checked_mul(slice)?.checked_add(y.checked_mul(pitch)?)?.checked_add(x)?;
            let last = depth.checked_sub(1)?.checked_mul(slice)?;
            let span = last.checked_add(height.checked_sub(1)?.checked_mul(pitch)?)?.checked_add(width)?;
            Some((self.address.checked_add(start)?, span))
        };
        let (start, span) = before().ok_or(invalid)?;
        if let Some(shared) = shared_address(session, start, span) {
            writer.put(END_SHARED);
            writer.put(shared);
        } else {
            let (mirror, offset) = session.graphs.mirrors.find(session, start, span);
            writer.put(END_MIRROR);
            writer.put(mirror.id);
            writer.put(mirror.address);
            writer.put(mirror.bytes);
            writer.put(offset);
            held.uses.push(Use { mirror, offset, span, writes });
        }
        writer.put(pitch);
        writer.put(rows);
        Ok(())
    }
}

/// Writes a copy: its extent and its ends.
pub(super) fn write_copy(
    session: &'static Session,
    copy: &CUDA_MEMCPY3D,
    held: &mut Held,
    writer: &mut Writer<'_>,
) -> Result {
    let extent = [copy.width_in_bytes, copy.height, copy.depth].map(|value| value as u64);
    if extent.contains(&0) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    let address = |kind, host: u64, device| if kind == HOST { host } else { device };
    let source = End {
        kind: copy.src_memory_type,
        address: address(copy.src_memory_type, copy.src_host.expose_provenance() as u64, copy.src_device),
        array: copy.src_array.0,
        position: [copy.src_x_in_bytes, copy.src_y, copy.src_z].map(|value| value as u64),
        pitch: copy.src_pitch as u64,
        height: copy.src_height as u64,
    };
    let destination = End {
        kind: copy.dst_memory_type,
        address: address(copy.dst_memory_type, copy.dst_host.expose_provenance() as u64, copy.dst_device),
        array: copy.dst_array.0,
        position: [copy.dst_x_in_bytes, copy.dst_y, copy.dst_z].map(|value| value as u64),
        pitch: copy.dst_pitch as u64,
        height: copy.dst_height as u64,
    };
    extent.into_iter().for_each(|value| writer.put(value));
    source.write(session, extent, false, held, writer)?;
    destination.write(session, extent, true, held, writer)
}

/// Captures a copy of which at least one end is host memory that the worker does not share.
pub(crate) fn captured_copy(session: &'static Session, copy: &CUDA_MEMCPY3D, stream: u64) -> Result {
    let mut held = Held::default();
    let mut bytes = Vec::new();
    write_copy(session, copy, &mut held, &mut Writer::new(&mut bytes))?;
    let reply = call(op::cuGraphAddMemcpyNode, |writer| {
        writer.put(stream);
        writer.put_raw(&bytes);
    })?;
    let node: u64 = reply.reader().get().map_err(garbled)?;
    session.captures.hold(session, stream, node, held);
    Ok(())
}

impl Graphs {
    /// A copy as the worker describes it, with the guest's addresses.
    pub(super) fn read_copy(&self, reader: &mut pxos_protocol::codec::Reader<'_>) -> Result<CUDA_MEMCPY3D> {
        let mut word = || -> Result<u64> { reader.get().map_err(garbled) };
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let mut copy = CUDA_MEMCPY3D {
            width_in_bytes: size(word()?),
            height: size(word()?),
            depth: size(word()?),
            ..CUDA_MEMCPY3D::default()
        };
        for is_source in [true, false] {
            let (kind, address) = (word()?, word()?);
            let [x, y, z, pitch, height] = [word()?, word()?, word()?, word()?, word()?].map(size);
            let kind = u32::try_from(kind).unwrap_or(0);
            let (memory, device, array) = match kind {
                ARRAY => (0, 0, address),
                DEVICE => (0, address, 0),
                _ => (address, 0, 0),
            };
            let host = pointer(memory);
            if is_source {
                (copy.src_memory_type, copy.src_host, copy.src_device) =
                    (kind, host.cast_const().cast(), device);
                copy.src_array.0 = array;
                (copy.src_x_in_bytes, copy.src_y, copy.src_z, copy.src_pitch, copy.src_height) =
                    (x, y, z, pitch, height);
            } else {
                (copy.dst_memory_type, copy.dst_host, copy.dst_device) = (kind, host.cast(), device);
                copy.dst_array.0 = array;
                (copy.dst_x_in_bytes, copy.dst_y, copy.dst_z, copy.dst_pitch, copy.dst_height) =
                    (x, y, z, pitch, height);
            }
        }
        Ok(copy)
    }
}
