//! Control messages: rare, typed, bincode with serde, bounded. Hello, the device snapshot, refusals.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest control message.
const LIMIT: usize = crate::frame::MAX_PAYLOAD;

/// Why a control message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The bytes are not such a message.
    #[error("control message cannot be read: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The message does not fit.
    #[error("control message cannot be written: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// The bytes of a control message, padded to eight.
///
/// # Errors
/// Where the message is over the limit.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, ControlError> {
    let mut bytes = bincode::serde::encode_to_vec(message, config())?;
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Ok(bytes)
}

/// Reads a control message from the start of `bytes`.
///
/// # Errors
/// Where the bytes are no such message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    Ok(bincode::serde::decode_from_slice(bytes, config())?.0)
}

/// What the guest says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::frame::VERSION`].
    pub version: u32,
    /// [`crate::fingerprint`]: a hash of the table.
    pub fingerprint: u64,
    /// Version of the software, for the log.
    pub software: String,
    /// What this connection is for.
    pub purpose: Purpose,
    /// Process id in the guest, for the log and the status.
    pub pid: u32,
    /// Name of the program, for the log and the status.
    pub program: String,
    /// A token, where the transport does not say who speaks (TCP).
    pub token: Option<String>,
    /// Whether the guest can map memory that comes with the socket.
    pub shared_memory: bool,
    /// Whether the guest has a device whose memory it can map ([`crate::transport::bar`]).
    pub bar: bool,
    /// Bytes of device memory that the guest limits itself to, within what the server lets it have.
    pub memory_max: Option<u64>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A process that calls CUDA: gets a worker.
    Session,
    /// pxctl's doctor, and NVML: asks who it is, what it may use and how that is used, gets no worker.
    Probe,
}

/// What the server answers to a good hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Version of the server's software.
    pub software: String,
    /// Number of the session in the server's log.
    pub session: u64,
    /// The VM that the server takes this guest for.
    pub vm: String,
    /// What the guest may know about the devices.
    pub snapshot: Snapshot,
    /// Layout of the shared memory of this session, where there is any.
    pub shared_memory: Option<SharedLayout>,
    /// Whether the number of streams is bounded, so that making one has to be asked for.
    pub bounds_streams: bool,
    /// The server's number, another each time that one starts: a guest whose connection is silent learns from a probe's
    /// welcome that its server is gone.
    pub instance: u64,
}

/// Where things lie in the shared memory of a session; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLayout {
    /// The id of the device's memory of which this session has a part; `None` for memory of its own that came with the socket.
    pub bar: Option<[u64; 2]>,
    /// Where the session's part begins; all other offsets count from here.
    pub base: u64,
    /// Length of that part.
    pub size: u64,
    /// Length of the command ring (a power of two), which follows one page of control words.
    pub commands: u64,
    /// Length of the reply ring (a power of two), behind the command ring.
    pub replies: u64,
    /// Offset of the staging area for copies of pageable memory.
    pub staging: u64,
    /// Length of the staging area.
    pub staging_length: u64,
    /// Offset of the arena of pinned allocations.
    pub arena: u64,
    /// Length of the arena.
    pub arena_length: u64,
    /// Address at which both sides map the arena, so that a pinned address means the same on both (design D9).
    pub arena_address: u64,
}

/// Bytes of one slot of the staging area: large enough that a slot's message and event vanish beside its DMA (about 38 µs
/// on an H200), small enough that copying and DMA of neighbouring slots overlap.
pub const STAGING_SLOT: u64 = 2 << 20;

/// Everything about the devices that does not change (design D7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// As `cuDriverGetVersion` answers.
    pub driver_version: i32,
    /// As `cuModuleGetLoadingMode` answers.
    pub loading_mode: u32,
    /// The VM's devices in the order of their ordinals.
    pub devices: Vec<Device>,
    /// The driver's wording for each error number.
    pub error_strings: Vec<(u32, String)>,
    /// Whether the device is this machine's CPU.
    pub software: bool,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// As `cuDeviceGetName` answers.
    pub name: String,
    /// As `cuDeviceGetUuid` answers.
    pub uuid: [u8; 16],
    /// As `cuDeviceGetUuid_v2` answers.
    pub uuid_v2: [u8; 16],
    /// As `cuDeviceGetLuid` answers, where it does.
    pub luid: Option<([u8; 8], u32)>,
    /// As `cuDeviceTotalMem` answers (bytes), within the VM's quota.
    pub total_memory: u64,
    /// As `cuDeviceGetPCIBusId` answers.
    pub pci_bus_id: String,
    /// As `cuDeviceGetAttribute` answers, indexed by attribute; `None` where it refuses.
    pub attributes: Vec<Option<i32>>,
    /// As `cuDeviceCanAccessPeer` answers for each other device.
    pub peers: Vec<bool>,
    /// As `cuCtxGetStreamPriorityRange` answers: least and greatest.
    pub priorities: (i32, i32),
    /// As `cuCtxGetLimit` answers in a new context, indexed by limit; `None` where it refuses.
    pub limits: Vec<Option<u64>>,
    /// As `cuCtxGetApiVersion` answers.
    pub context_api_version: u32,
    /// As `cuDeviceGetExecAffinitySupport` answers for the SM count.
    pub exec_affinity: bool,
}

impl Device {
    /// The value of an attribute, zero where the driver does not know it.
    #[must_use]
    pub fn attribute(&self, attribute: u32) -> i32 {
        self.attributes.get(attribute as usize).copied().flatten().unwrap_or(0)
    }
}

/// Why there is no session, or why it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The `CUresult` that calls answer from now on.
    pub result: u32,
    /// For people; one line.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_nonsense_does_not_panic() {
        let hello = Hello {
            version: 1,
            fingerprint: 2,
            software: "0.1.0".into(),
            purpose: Purpose::Session,
            pid: 3,
            program: "app".into(),
            token: None,
            shared_memory: true,
            bar: false,
            memory_max: Some(1 << 20),
        };
        let bytes = encode(&hello).unwrap();
        assert_eq!(decode::<Hello>(&bytes).unwrap(), hello);
        for cut in 0..bytes.len().min(40) {
            let _ = decode::<Hello>(&bytes[..cut]);
        }
        assert!(decode::<Hello>(&[0xff; 64]).is_err());
    }
}
