//! Page-locked memory that stands for memory of the guest's in copy nodes, where the two share none.
//!
//! The guest sends what a graph reads before it launches it; what a graph has written goes to the guest before the answer to
//! the next call that synchronises, and before a host function that may look at it. While results are on their way the mirror
//! is newer than the guest's memory, so what the guest sends then is not taken.

use super::super::super::dispatch::{Call, Failed};
use super::super::super::session::Session;
use super::Graphs;
use crate::driver::Result;
use crate::stats::add;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::frame::{BULK_CHUNK, Header, control};
use pxos_protocol::types::CUresult;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most memory of all mirrors: a guest that needs more shares memory with the worker.
const MAX_BYTES: u64 = 4 << 30;

/// `CU_MEMHOSTALLOC_PORTABLE`: good in every context.
const PORTABLE: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What nothing uses any more, to be given back where waiting for the device harms nobody: freeing page-locked memory waits
/// for all work, and work may wait for a host function whose end the leader must take.
static GRAVE: Mutex<Grave> = Mutex::new(Grave { memory: Vec::new(), events: Vec::new() });
/// Bytes of all mirrors.
static BYTES: AtomicU64 = AtomicU64::new(0);
/// All mirrors, by the guest's number. Not in the leader's hands: a host function may have to write them while it stands still.
static MIRRORS: Mutex<BTreeMap<u64, Weak<Mirror>>> = Mutex::new(BTreeMap::new());

struct Grave {
    memory: Vec<usize>,
    events: Vec<u64>,
}

/// Gives back what nothing uses any more. Not for the leader.
pub(in crate::worker) fn bury(session: &Session) {
    let (memory, events) = {
        let mut grave = lock(&GRAVE);
        (std::mem::take(&mut grave.memory), std::mem::take(&mut grave.events))
    };
    for event in events {
        // SAFETY: an event of ours that nothing names any more.
        let _ = unsafe { session.driver.cuEventDestroy_v2(event) };
    }
    for address in memory {
        // SAFETY: from cuMemHostAlloc, and no node leads to it any more; the driver waits for launches that do.
        let _ = unsafe { session.driver.cuMemFreeHost(std::ptr::with_exposed_provenance_mut(address)) };
    }
}

/// Memory that stands for a range of the guest's.
#[derive(Debug)]
pub(super) struct Mirror {
    id: u64,
    /// Where it is in the guest.
    guest: u64,
    memory: *mut u8,
    bytes: usize,
    /// Launches whose results are on their way.
    pending: AtomicU32,
}

// SAFETY: memory that is only read and written through raw copies, whichever thread does it.
unsafe impl Send for Mirror {}
// SAFETY: as above.
unsafe impl Sync for Mirror {}

impl Mirror {
    fn hold_back(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    fn let_through(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        lock(&GRAVE).memory.push(self.memory.expose_provenance());
    }
}

/// The event behind a launch.
#[derive(Debug)]
pub(super) struct Done(u64);

impl Done {
    /// A new event of the current context.
    pub(super) fn new(session: &Session) -> Result<Arc<Self>> {
        let mut event = 0;
        // SAFETY: a pointer to a local.
        unsafe { session.driver.cuEventCreate(&raw mut event, DISABLE_TIMING)? };
        Ok(Arc::new(Self(event)))
    }

    /// Records it.
    pub(super) fn record(&self, session: &Session, stream: u64) -> Result {
        // SAFETY: an event of ours, a stream of the session's.
        unsafe { session.driver.cuEventRecord(self.0, stream) }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        lock(&GRAVE).events.push(self.0);
    }
}

/// What a copy node does to a mirror.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Use {
    mirror: Arc<Mirror>,
    offset: usize,
    width: usize,
    pitch: usize,
    height: usize,
    slice: usize,
    depth: usize,
    pub(super) writes: bool,
}

impl Use {
    /// The memory's address for the node.
    pub(super) fn address(&self) -> *mut c_void {
        // SAFETY: the offset was checked to lie within the memory.
        unsafe { self.mirror.memory.add(self.offset) }.cast()
    }

    /// Sends the bytes of one piece.
    fn send(&self, session: &Session, offset: usize, length: usize) {
        let mut buffer = vec![0; length.min(BULK_CHUNK)];
        for start in (0..length).step_by(BULK_CHUNK) {
            let piece = BULK_CHUNK.min(length - start);
            // SAFETY: within the memory, as checked when the use was made; the device may write at the same time, in which case
            // these bytes are sent again when it is done.
            unsafe {
                let from = self.mirror.memory.add(offset + start);
                std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), piece);
            }
            let mut header = Header::new(control::DATA);
            header.request = self.mirror.id;
            let mut prefix = Vec::with_capacity(16);
            let mut writer = Writer::new(&mut prefix);
            writer.put((offset + start) as u64);
            writer.put(piece as u64);
            session.send(header, &[&prefix, &buffer[..piece]]);
        }
        add(&session.stats.copy_bytes_to_host, length as u64);
    }

    /// Sends all that the node writes, and nothing between its rows.
    fn deliver(&self, session: &Session) {
        if self.pitch == self.width && (self.depth == 1 || self.slice == self.pitch * self.height) {
            return self.send(session, self.offset, self.width * self.height * self.depth);
        }
        for z in 0..self.depth {
            for y in 0..self.height {
                self.send(session, self.offset + z * self.slice + y * self.pitch, self.width);
            }
        }
    }
}

/// How rows lie in a mirror, as the guest says.
#[derive(Clone, Copy)]
struct Shape {
    offset: usize,
    pitch: usize,
    rows: usize,
}

impl Shape {
    /// Bytes from plane to plane, where a copy of `extent` lies within a mirror of `bytes`; `None` where it does not.
    fn slice(self, [width, height, depth]: [usize; 3], bytes: usize) -> Option<usize> {
        let Self { offset, pitch, rows } = self;
        let slice = pitch.checked_mul(rows)?;
        let last = depth.checked_sub(1)?.checked_mul(slice)?;
        let span = last.checked_add(height.checked_sub(1)?.checked_mul(pitch)?)?.checked_add(width)?;
        let fits = offset.checked_add(span)? <= bytes && width <= pitch && height <= rows;
        (fits && span > 0).then_some(slice)
    }
}

impl Graphs {
    /// A use of a mirror as the guest describes it (mirror, its address and length, offset, pitch, rows of a slice), checked
    /// against the mirror's length.
    pub(super) fn read_use(
        call: &mut Call<'_>,
        extent: [usize; 3],
        writes: bool,
    ) -> std::result::Result<(Use, usize, usize), Failed> {
        let (id, guest): (u64, u64) = (call.get()?, call.get()?);
        let (bytes, offset) = (call.get_usize()?, call.get_usize()?);
        let (pitch, rows) = (call.get_usize()?, call.get_usize()?);
        let [width, height, depth] = extent;
        let slice =
            Shape { offset, pitch, rows }.slice(extent, bytes).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let mirror = Self::mirror(call, id, guest, bytes)?;
        Ok((Use { mirror, offset, width, pitch, height, slice, depth, writes }, pitch, rows))
    }

    fn mirror(call: &mut Call<'_>, id: u64, guest: u64, bytes: usize) -> Result<Arc<Mirror>> {
        if let Some(mirror) = find(id) {
            let same = mirror.bytes == bytes && mirror.guest == guest;
            return if same { Ok(mirror) } else { Err(CUresult::ERROR_INVALID_VALUE) };
        }
        if BYTES.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64) > MAX_BYTES {
            BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
            return Err(CUresult::ERROR_OUT_OF_MEMORY);
        }
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: a pointer to a local.
        let made = unsafe { call.session.driver.cuMemHostAlloc(&raw mut address, bytes, PORTABLE) };
        if let Err(error) = made {
            BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
            return Err(error);
        }
        // The driver's memory is not always empty, and unwritten parts may be sent.
        // SAFETY: just made, of that length.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        let mirror =
            Arc::new(Mirror { id, guest, memory: address.cast(), bytes, pending: AtomicU32::new(0) });
        let mut mirrors = lock(&MIRRORS);
        mirrors.retain(|_, mirror| mirror.strong_count() > 0);
        mirrors.insert(id, Arc::downgrade(&mirror));
        Ok(mirror)
    }
}

/// The guest's address for an address of the worker's in a node.
pub(super) fn guest_address(address: *const c_void) -> Option<u64> {
    let address = address.addr();
    let mirrors: Vec<_> = lock(&MIRRORS).values().filter_map(Weak::upgrade).collect();
    mirrors.iter().find_map(|mirror| {
        let offset = address.checked_sub(mirror.memory.addr())?;
        (offset < mirror.bytes).then(|| mirror.guest + offset as u64)
    })
}

fn find(id: u64) -> Option<Arc<Mirror>> {
    lock(&MIRRORS).get(&id).and_then(Weak::upgrade)
}

/// Whether a [`write()`] is for a mirror that is there.
pub(in crate::worker) fn is_for_known(payload: &[u8]) -> bool {
    Reader::new(payload).get().is_ok_and(|id| find(id).is_some())
}

/// Bytes of the guest's memory: mirror, offset, whether a host function has run, bytes.
pub(in crate::worker) fn write(session: &Session, mut fields: Reader<'_>) -> std::result::Result<(), Failed> {
    let id: u64 = fields.get()?;
    let offset =
        usize::try_from(fields.get::<u64>()?).map_err(|_| Failed::Call(CUresult::ERROR_INVALID_VALUE))?;
    let after_call = fields.get::<u32>()? != 0;
    let bytes = fields.get_bytes()?;
    // One that the graph has dropped meanwhile.
    let Some(mirror) = find(id) else { return Ok(()) };
    if offset.checked_add(bytes.len()).is_none_or(|end| end > mirror.bytes) {
        return Err(CUresult::ERROR_INVALID_VALUE.into());
    }
    if after_call || mirror.pending.load(Ordering::Acquire) == 0 {
        // SAFETY: within the memory, checked above. Launches that still read it find what the guest has there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mirror.memory.add(offset), bytes.len()) };
        add(&session.stats.copy_bytes_to_device, bytes.len() as u64);
    }
    Ok(())
}

/// Launches whose results the guest has yet to get.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    any: AtomicBool,
    pending: Mutex<Vec<Pending>>,
}

#[derive(Debug)]
struct Pending {
    exec: u64,
    stream: u64,
    done: Arc<Done>,
    /// Whether the event stands behind the launch yet.
    recorded: bool,
    /// Whether an earlier launch's results are still to be sent.
    earlier: bool,
    writes: Arc<Vec<Use>>,
}

impl Deliveries {
    /// A launch is about to be made; a host function of it may run before the launch call returns.
    pub(super) fn expect(&self, exec: u64, stream: u64, done: Arc<Done>, writes: &Arc<Vec<Use>>) {
        let mut pending = lock(&self.pending);
        self.any.store(true, Ordering::Release);
        if let Some(known) =
            pending.iter_mut().find(|known| known.exec == exec && Arc::ptr_eq(&known.writes, writes))
        {
            (known.stream, known.done, known.recorded, known.earlier) = (stream, done, false, true);
            return;
        }
        writes.iter().for_each(|one| one.mirror.hold_back());
        pending.push(Pending {
            exec,
            stream,
            done,
            recorded: false,
            earlier: false,
            writes: Arc::clone(writes),
        });
    }

    /// The launch was made and its event stands behind it, or it failed.
    pub(super) fn launched(&self, exec: u64, recorded: Result) {
        let mut pending = lock(&self.pending);
        pending.retain_mut(|known| {
            if known.exec != exec || known.recorded {
                return true;
            }
            known.recorded = recorded.is_ok() || known.earlier;
            if !known.recorded {
                known.release();
            }
            known.recorded
        });
    }

    /// Sends the results of launches that are complete. Whoever returns from this knows that they are sent.
    pub(crate) fn flush(&self, session: &Session) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut pending = lock(&self.pending);
        pending.retain(|known| {
            // SAFETY: an event of ours.
            let open = !known.recorded
                || unsafe { session.driver.cuEventQuery(known.done.0) } == Err(CUresult::ERROR_NOT_READY);
            if !open {
                known.writes.iter().for_each(|one| one.deliver(session));
                known.release();
            }
            open
        });
        self.any.store(!pending.is_empty(), Ordering::Release);
    }

    /// Sends what launches under way have written so far, before a host function of one of them.
    pub(crate) fn flush_for_call(&self, session: &Session) {
        if self.any.load(Ordering::Acquire) {
            lock(&self.pending)
                .iter()
                .flat_map(|known| known.writes.iter())
                .for_each(|one| one.deliver(session));
        }
    }

    /// What launches in a stream write: a host function behind them may look at it.
    pub(in crate::worker) fn in_stream(&self, stream: u64) -> Vec<Arc<Vec<Use>>> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let pending = lock(&self.pending);
        pending.iter().filter(|known| known.stream == stream).map(|known| Arc::clone(&known.writes)).collect()
    }

    /// Sends what [`Self::in_stream`] found.
    pub(in crate::worker) fn send(&self, session: &Session, found: &[Arc<Vec<Use>>]) {
        let _one_at_a_time = lock(&self.pending);
        found.iter().flat_map(|writes| writes.iter()).for_each(|one| one.deliver(session));
    }
}

impl Pending {
    /// Lets the guest's own writes through again.
    fn release(&self) {
        self.writes.iter().for_each(|one| one.mirror.let_through());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_must_lie_within_its_mirror() {
        let row = Shape { offset: 0, pitch: 100, rows: 1 };
        assert_eq!(row.slice([100, 1, 1], 100), Some(100));
        assert_eq!(row.slice([101, 1, 1], 200), None, "wider than its pitch");
        assert_eq!(row.slice([100, 1, 1], 99), None, "beyond the end");
        assert_eq!(Shape { offset: 1, ..row }.slice([100, 1, 1], 100), None);
        // Two planes of three rows; the last row ends with its width, not with its pitch.
        let planes = Shape { offset: 8, pitch: 64, rows: 4 };
        assert_eq!(planes.slice([10, 3, 2], 8 + 256 + 128 + 10), Some(256));
        assert_eq!(planes.slice([10, 3, 2], 8 + 256 + 128 + 9), None);
        assert_eq!(planes.slice([10, 5, 2], 1 << 20), None, "more rows than a plane has");
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let huge = Shape { offset: usize::MAX, pitch: usize::MAX, rows: usize::MAX };
        assert_eq!(huge.slice([usize::MAX; 3], usize::MAX), None);
        assert_eq!(Shape { offset: 0, pitch: 1, rows: 1 }.slice([0, 0, 0], usize::MAX), None);
        assert_eq!(Shape { offset: usize::MAX, pitch: 1, rows: 1 }.slice([1, 1, 1], usize::MAX), None);
    }
}
