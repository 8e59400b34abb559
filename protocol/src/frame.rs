//! Frames: what travels on a transport. A frame is a header of 32 bytes and a payload padded to eight.
//!
//! Guest to server: calls, in program order of the whole process, and a few control frames. Server to guest: replies,
//! data, output of the device, callbacks. The first frame each way is a hello, which says who speaks which version.

/// First word of every frame: a byte stream that has lost its step is seen at once.
pub const MAGIC: u16 = 0x5870;

/// Version of the wire format. History: 1, the first; 2, primitives, a guest may limit itself in its hello, the welcome says
/// whether streams are bounded, and shared memory may be part of a device's; 3, probes may ask how their VM uses its devices,
/// and the welcome says which start of the server it is from; 4, attributes of kernels are set for a device; 5, a guest may ask
/// which kernels make system-scope atomics; 6, host functions are asked for beside a ring.
pub const VERSION: u32 = 6;

/// Longest payload. Bulk data travels in chunks of at most [`BULK_CHUNK`], so that neither side ever has to hold
/// more than this for a peer that does not read.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Bulk data in one frame: large enough that per-frame cost (about 2 µs of system calls) vanishes beside the copy,
/// small enough that copying and DMA of neighbouring chunks overlap.
pub const BULK_CHUNK: usize = 512 << 10;

/// Length of a header.
pub const HEADER: usize = 32;

/// The reply to this call is awaited.
pub const FLAG_REPLY: u16 = 1;
/// The default stream of this call is the calling thread's own.
pub const FLAG_PER_THREAD: u16 = 2;
/// More frames of the same answer follow.
pub const FLAG_MORE: u16 = 4;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u16,
    /// Number of a row of the table, or of [`control`].
    pub op: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// Zero.
    pub spare: u16,
    /// Bytes of payload, a multiple of eight, at most [`MAX_PAYLOAD`].
    pub length: u32,
    /// Guest thread, counted from 1 in the order of first calls; in replies the thread that is answered.
    pub thread: u32,
    /// Current context of that thread, as the guest's handle; in replies the result in the lower half.
    pub context: u64,
    /// Number of the call, ascending; a reply repeats it.
    pub request: u64,
}

/// Why bytes are no frame. The peer is to blame: its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another magic.
    #[error("frame begins with {0:#06x}, not the magic {MAGIC:#06x}")]
    Magic(u16),
    /// A payload over the limit, or not a multiple of eight.
    #[error("frame of op {op} claims a payload of {length} bytes (limit {MAX_PAYLOAD}, in steps of 8)")]
    Length {
        /// The op.
        op: u16,
        /// The claim.
        length: u32,
    },
}

impl Header {
    /// A header for `op`.
    #[must_use]
    pub fn new(op: u16) -> Self {
        Self { magic: MAGIC, op, ..Self::default() }
    }

    /// The bytes that travel.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..2].copy_from_slice(&self.magic.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.op.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.spare.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.thread.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.context.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.request.to_le_bytes());
        bytes
    }

    /// Reads a header and checks what can be checked without knowing the op.
    ///
    /// # Errors
    /// [`FrameError`] where the magic or the length is wrong.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = Self {
            magic: u16_at(0),
            op: u16_at(2),
            flags: u16_at(4),
            spare: u16_at(6),
            length: u32_at(8),
            thread: u32_at(12),
            context: u64_at(16),
            request: u64_at(24),
        };
        if header.magic != MAGIC {
            return Err(FrameError::Magic(header.magic));
        }
        if header.length as usize > MAX_PAYLOAD || !header.length.is_multiple_of(8) {
            return Err(FrameError::Length { op: header.op, length: header.length });
        }
        Ok(header)
    }

    /// Whether the sender waits for a reply.
    #[must_use]
    pub fn wants_reply(&self) -> bool {
        self.flags & FLAG_REPLY != 0
    }

    /// Whether the frame may fill the reserve of a ring ([`crate::transport::ring::RESERVE`]): what a host function ends with, for
    /// which the device may wait, and with it a call that lies before the frame.
    #[must_use]
    pub fn may_use_reserve(&self) -> bool {
        matches!(self.op, control::CALLBACK_DONE | control::MIRROR_WRITE)
    }
}

/// Ops that are no driver function: 1 to 99.
pub mod control {
    /// Guest: first frame; payload [`crate::control::Hello`].
    pub const HELLO: u16 = 1;
    /// Server: the session stands; payload [`crate::control::Welcome`].
    pub const WELCOME: u16 = 2;
    /// Server: the session is refused or over; payload [`crate::control::Refusal`].
    pub const REFUSAL: u16 = 3;
    /// Server: the answer to a call; `context` holds the result, the payload what the op says.
    pub const REPLY: u16 = 4;
    /// Server: bytes that a copy to the host brings: u64 offset within the copy, then the bytes; `request` is the copy's.
    pub const DATA: u16 = 5;
    /// Server: what the device printed: u64 1 (stdout) or 2 (stderr), then the bytes.
    pub const OUTPUT: u16 = 6;
    /// Server: a host callback is due: u64 its number, u64 how many bytes of the ring come before it, u64 status. It comes
    /// through the socket.
    pub const CALLBACK: u16 = 7;
    /// Guest: that callback has returned: u64 its number.
    pub const CALLBACK_DONE: u16 = 8;
    /// Guest: part of an image: u64×2 hash, u64 total, u64 offset, bytes.
    pub const IMAGE: u16 = 9;
    /// Guest: bytes for the device: u64 address, u64 stream, u64 flags, bytes.
    pub const WRITE: u16 = 10;
    /// Guest: nothing; a reply proves that all before it was taken.
    pub const PING: u16 = 11;
    /// Guest: asks for the server's status as JSON (pxctl).
    pub const STATUS: u16 = 12;
    /// Server: the status, JSON in UTF-8, in one or more frames ([`super::FLAG_MORE`]).
    pub const STATUS_REPLY: u16 = 13;
    /// Either side of a shared-memory transport: look at the ring (the socket is its doorbell).
    pub const DOORBELL: u16 = 14;
    /// Guest: a slot of the staging area holds bytes for the device: u64 address, u64 stream, u64 slot, u64 length.
    pub const STAGE_WRITE: u16 = 16;
    /// Guest: fill a slot of the staging area from the device: u64 address, u64 stream, u64 slot, u64 length.
    pub const STAGE_READ: u16 = 17;
    /// Guest: the reply says that the device is done with a slot: u64 slot.
    pub const STAGE_WAIT: u16 = 18;
    /// Guest: a copy of which at least one end lies in the arena: u64 to, u64 from, u64 length, u64 stream. A reply, where
    /// one is asked for, says that the stream is done with it.
    pub const COPY: u16 = 19;
    /// Guest: what is put into any stream from here on comes after what this stream holds by now: u64 stream.
    pub const FENCE: u16 = 20;
    /// Guest: whether a function makes system-scope atomics: u64 function, u64 1 for a kernel of a library; the reply is a
    /// u64, 1 if it does.
    pub const SYSTEM_ATOMICS: u16 = 21;
    /// Guest: bytes of its own memory that copy nodes of graphs read: u64 mirror, u64 offset, u64 1 after a host
    /// function, bytes.
    pub const MIRROR_WRITE: u16 = 40;
    /// Guest: checks and compiles a program of the primitive language: its text; the reply is
    /// [`crate::primitive::Compilation`].
    pub const COMPILE_PRIMITIVE: u16 = 60;
    /// Guest: runs a kernel of a compiled program: [`crate::primitive::Submission`]; the reply is
    /// [`crate::primitive::Completion`].
    pub const SUBMIT_PRIMITIVE: u16 = 61;
    /// Guest: device memory for primitives: u64 bytes; the reply is the u64 address. As `cuMemAlloc`.
    pub const ALLOC_MEMORY: u16 = 62;
    /// Guest: gives it back: u64 address. As `cuMemFree`.
    pub const FREE_MEMORY: u16 = 63;
    /// Guest: how a submission stands: u64 its number, u64 1 to wait for it; the reply is
    /// [`crate::primitive::Completion`]. Number 0 asks for the device: [`crate::primitive::DeviceStatus`].
    pub const QUERY_STATUS: u16 = 64;
    /// Guest, on a connection of purpose *probe*: how its VM uses the devices; the reply is [`crate::monitor::VmUse`].
    pub const QUERY_VM: u16 = 80;

    /// The name of an op that a guest may send in numbers, for counters.
    #[must_use]
    pub fn name_of(op: u16) -> Option<&'static str> {
        Some(match op {
            CALLBACK_DONE => "CALLBACK_DONE",
            IMAGE => "IMAGE",
            WRITE => "WRITE",
            PING => "PING",
            STAGE_WRITE => "STAGE_WRITE",
            STAGE_READ => "STAGE_READ",
            STAGE_WAIT => "STAGE_WAIT",
            COPY => "COPY",
            FENCE => "FENCE",
            SYSTEM_ATOMICS => "SYSTEM_ATOMICS",
            MIRROR_WRITE => "MIRROR_WRITE",
            COMPILE_PRIMITIVE => "COMPILE_PRIMITIVE",
            SUBMIT_PRIMITIVE => "SUBMIT_PRIMITIVE",
            ALLOC_MEMORY => "ALLOC_MEMORY",
            FREE_MEMORY => "FREE_MEMORY",
            QUERY_STATUS => "QUERY_STATUS",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let header = Header {
            magic: MAGIC,
            op: 245,
            flags: FLAG_REPLY | FLAG_PER_THREAD,
            spare: 0,
            length: 4096,
            thread: 3,
            context: 0x5100_0000_0001,
            request: 99,
        };
        assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Header::from_bytes(&[0; HEADER]), Err(FrameError::Magic(0)));
        let mut header = Header::new(1);
        header.length = u32::try_from(MAX_PAYLOAD + 8).unwrap();
        assert!(Header::from_bytes(&header.to_bytes()).is_err());
        header.length = 4;
        assert!(Header::from_bytes(&header.to_bytes()).is_err());
    }
}
