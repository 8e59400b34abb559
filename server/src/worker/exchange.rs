//! How worker processes of one VM give each other what their guests share: interprocess handles of the driver, and file
//! descriptors of memory.
//!
//! A guest never sees a handle of the driver's: it gets a [`Share`], 64 bytes with a random number that names a file in the
//! VM's own directory (made by the daemon, [`crate::handoff::Assign::exchange`]). A number of another VM names nothing
//! there, so a handle that was guessed, kept or carried over opens nothing. What a file cannot hold, a descriptor, is
//! passed by a thread of the worker that has it, over a socket in the same directory. The daemon removes a session's files
//! when it ends.

use crate::driver::Result;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::transport::descriptors;
use pxos_protocol::types::CUresult;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What a guest holds: [`MAGIC`], the session that gave it, a random number, the kind; the rest is zero.
pub(crate) type Share = [u64; 8];

/// "pxOSshr" and a version.
const MAGIC: u64 = u64::from_le_bytes(*b"pxOSshr1");

/// Most things that a session may share at a time.
const MOST: usize = 1 << 16;

/// How long another worker may take to pass a descriptor: its thread does nothing else.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest file.
const LONGEST: u64 = 4096;

/// What is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Kind {
    /// An allocation (`cuIpcGetMemHandle`).
    Memory = 1,
    /// An event (`cuIpcGetEventHandle`).
    Event = 2,
    /// Physical memory (`cuMemExportToShareableHandle`), with a descriptor.
    Physical = 3,
    /// A pool (`cuMemPoolExportToShareableHandle`), with a descriptor.
    Pool = 4,
    /// An allocation of a pool (`cuMemPoolExportPointer`).
    PoolPointer = 5,
}

/// What another worker needs to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Bytes of memory behind it, which count against whoever opens it.
    pub(crate) bytes: u64,
    /// The driver's handle, or zeros.
    pub(crate) native: [u64; 8],
    /// What else its kind needs.
    pub(crate) extra: [u64; 8],
}

/// Descriptors that others may fetch, by the random number.
type Held = Arc<Mutex<HashMap<[u64; 2], OwnedFd>>>;

/// The VM's directory as one session sees it.
#[derive(Debug)]
pub(crate) struct Exchange {
    place: Option<(PathBuf, u64)>,
    shared: Mutex<HashMap<[u64; 2], Kind>>,
    held: Held,
    serving: OnceLock<bool>,
}

fn failed(error: &io::Error) -> CUresult {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CUresult::ERROR_INVALID_HANDLE,
        _ => CUresult::ERROR_OPERATING_SYSTEM,
    }
}

impl Exchange {
    /// The exchange of `session` in its VM's directory; without one nothing can be shared.
    pub(crate) fn new(directory: Option<PathBuf>, session: u64) -> Self {
        Self {
            place: directory.map(|directory| (directory, session)),
            shared: Mutex::default(),
            held: Held::default(),
            serving: OnceLock::new(),
        }
    }

    fn place(&self) -> Result<&(PathBuf, u64)> {
        self.place.as_ref().ok_or(CUresult::ERROR_NOT_SUPPORTED)
    }

    fn path(&self, session: u64, number: [u64; 2]) -> Result<PathBuf> {
        Ok(self.place()?.0.join(format!("{session:x}.{:016x}{:016x}", number[0], number[1])))
    }

    /// Shares something.
    pub(crate) fn publish(&self, kind: Kind, record: &Record) -> Result<Share> {
        let session = self.place()?.1;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.len() >= MOST {
            return Err(CUresult::ERROR_OUT_OF_MEMORY);
        }
        let number = random().map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.put(kind as u64);
        writer.put(record.bytes);
        writer.put(record.native);
        writer.put(record.extra);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(session, number)?);
        file.and_then(|mut file| file.write_all(&bytes)).map_err(|error| failed(&error))?;
        shared.insert(number, kind);
        Ok([MAGIC, session, number[0], number[1], kind as u64, 0, 0, 0])
    }

    /// Shares something that a descriptor stands for.
    pub(crate) fn publish_descriptor(
        &self,
        kind: Kind,
        record: &Record,
        descriptor: OwnedFd,
    ) -> Result<Share> {
        if !self.serves()? {
            return Err(CUresult::ERROR_OPERATING_SYSTEM);
        }
        let share = self.publish(kind, record)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert([share[2], share[3]], descriptor);
        Ok(share)
    }

    /// Ends the sharing; whoever has opened it keeps it.
    pub(crate) fn withdraw(&self, share: &Share) {
        let number = [share[2], share[3]];
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Ok(path) = self.path(share[1], number) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// What a guest's share stands for, if a session of its own VM gave it and has not withdrawn it.
    pub(crate) fn find(&self, kind: Kind, share: &Share) -> Result<Record> {
        if share[0] != MAGIC || share[4] != kind as u64 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let file = File::open(self.path(share[1], [share[2], share[3]])?).map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        let mut fields = Reader::new(&bytes);
        let mut read = || {
            let kind: u64 = fields.get()?;
            Ok((kind, Record { bytes: fields.get()?, native: fields.get()?, extra: fields.get()? }))
        };
        let read: std::result::Result<_, pxos_protocol::codec::DecodeError> = read();
        match read {
            Ok((number, record)) if number == kind as u64 => Ok(record),
            _ => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// As [`Self::find`], with the descriptor.
    pub(crate) fn fetch(&self, kind: Kind, share: &Share) -> Result<(Record, OwnedFd)> {
        let record = self.find(kind, share)?;
        let number = [share[2], share[3]];
        if let Some(descriptor) = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&number) {
            let descriptor = descriptor.try_clone().map_err(|error| failed(&error))?;
            return Ok((record, descriptor));
        }
        let fetch = || {
            let (_directory, path) = self.socket(share[1])?;
            let mut socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            let [low, high] = number.map(u64::to_le_bytes);
            socket.write_all(&[low, high].concat())?;
            let mut byte = [0];
            let (_, mut beside) = descriptors::receive(&socket, &mut byte)?;
            beside.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        Ok((record, fetch().map_err(|error: io::Error| failed(&error))?))
    }

    /// A session's socket, by a path that is short enough for one; the descriptor keeps the path good.
    fn socket(&self, session: u64) -> io::Result<(File, PathBuf)> {
        let (directory, _) = self.place.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let directory = File::open(directory)?;
        let path = format!("/proc/self/fd/{}/{session:x}.socket", directory.as_raw_fd());
        Ok((directory, path.into()))
    }

    /// Starts the thread that passes descriptors, once.
    fn serves(&self) -> Result<bool> {
        let session = self.place()?.1;
        Ok(*self.serving.get_or_init(|| {
            let listener = self.socket(session).and_then(|(_directory, path)| UnixListener::bind(path));
            let Ok(listener) = listener else { return false };
            let held = Arc::clone(&self.held);
            let serve = move || {
                for socket in listener.incoming().flatten() {
                    let _ = pass(&held, socket);
                }
            };
            std::thread::Builder::new().name("exchange".into()).spawn(serve).is_ok()
        }))
    }
}

/// Passes the descriptor whose number the other worker says.
fn pass(held: &Held, mut socket: UnixStream) -> io::Result<()> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let mut number = [0; 16];
    socket.read_exact(&mut number)?;
    let (halves, _) = number.as_chunks::<8>();
    let number = [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])];
    let held = held.lock().unwrap_or_else(PoisonError::into_inner);
    match held.get(&number) {
        Some(descriptor) => descriptors::send(&socket, &[0], &[descriptor.as_raw_fd()]),
        None => Ok(()),
    }
}

fn random() -> io::Result<[u64; 2]> {
    let mut number = [0_u64; 2];
    // SAFETY: a buffer of sixteen bytes.
    let filled = unsafe { libc::getrandom(number.as_mut_ptr().cast(), 16, 0) };
    if filled == 16 { Ok(number) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { bytes: 4096, native: [1, 2, 3, 4, 5, 6, 7, 8], extra: [9; 8] }
    }

    #[test]
    fn a_share_opens_in_its_own_vm_only() {
        let (red, blue) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let giver = Exchange::new(Some(red.path().into()), 7);
        let taker = Exchange::new(Some(red.path().into()), 8);
        let stranger = Exchange::new(Some(blue.path().into()), 9);
        let share = giver.publish(Kind::Memory, &record()).unwrap();
        assert_eq!(taker.find(Kind::Memory, &share), Ok(record()));
        assert_eq!(taker.find(Kind::Event, &share), Err(CUresult::ERROR_INVALID_VALUE));
        assert_eq!(stranger.find(Kind::Memory, &share), Err(CUresult::ERROR_INVALID_HANDLE));
        let mut forged = share;
        forged[2] ^= 1;
        assert_eq!(taker.find(Kind::Memory, &forged), Err(CUresult::ERROR_INVALID_HANDLE));
        forged[0] = 0;
        assert_eq!(taker.find(Kind::Memory, &forged), Err(CUresult::ERROR_INVALID_VALUE));
        giver.withdraw(&share);
        assert_eq!(taker.find(Kind::Memory, &share), Err(CUresult::ERROR_INVALID_HANDLE));
        assert!(std::fs::read_dir(red.path()).unwrap().next().is_none());
        let alone = Exchange::new(None, 1);
        assert_eq!(alone.publish(Kind::Memory, &record()), Err(CUresult::ERROR_NOT_SUPPORTED));
    }

    #[test]
    fn a_descriptor_is_passed_to_who_knows_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let giver = Exchange::new(Some(directory.path().into()), 0x11);
        let taker = Exchange::new(Some(directory.path().into()), 0x12);
        let (ours, mut far) = UnixStream::pair().unwrap();
        let share = giver.publish_descriptor(Kind::Physical, &record(), ours.into()).unwrap();
        for exchange in [&taker, &giver] {
            let (told, descriptor) = exchange.fetch(Kind::Physical, &share).unwrap();
            assert_eq!(told, record());
            UnixStream::from(descriptor).write_all(b"x").unwrap();
            let mut byte = [0];
            far.read_exact(&mut byte).unwrap();
        }
        giver.withdraw(&share);
        assert!(taker.fetch(Kind::Physical, &share).is_err());
    }
}
