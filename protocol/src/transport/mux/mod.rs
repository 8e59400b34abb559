//! Many connections over one stream of bytes: the virtio-serial port of a VM, which only one process may open.
//!
//! In the guest one process has the port and listens on a unix socket ([`serve_guest`]); every connection there is a *channel*.
//! The server is at the other end ([`serve_host`]), and gets each channel as a connected socket. Each side may have
//! [`WINDOW`] bytes of a channel under way that the other has not passed on, so that a channel that nobody reads holds up
//! no other, and no side ever holds more than that for it.

mod record;

use super::Socket;
use record::{Input, Item, Kind, MOST_DATA, Mark, RECORD, Record, marker};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Bytes of a channel that may be under way each way.
const WINDOW: u32 = 256 << 10;
/// Most channels at once.
pub const MAX_CHANNELS: usize = 64;
/// Bytes that wait for the port above which no more are made.
const HIGH_WATER: usize = 512 << 10;
/// How long a guest waits before it looks again whether the host has come, and before it asks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Guest,
    Host,
}

/// One connection.
#[derive(Debug)]
struct Channel {
    socket: UnixStream,
    /// What came for it and it has not taken; at most [`WINDOW`].
    pending: VecDeque<u8>,
    /// Bytes that may be sent to the other side.
    credit: u32,
    /// Bytes passed on whose credit has not been given back.
    owed: u32,
    /// The other side has closed it: what is pending is the last.
    ending: bool,
}

/// Both ends of the port do the same with records; they differ in who begins.
#[derive(Debug)]
struct Mux {
    role: Role,
    input: Input,
    out: VecDeque<u8>,
    epoch: u64,
    channels: BTreeMap<u32, Channel>,
    last: u32,
    /// Channels that the other side has opened and nobody has taken; at most [`MAX_CHANNELS`], however often it closes them and
    /// begins again, since each is a descriptor.
    opened: Vec<UnixStream>,
}

/// The other side sent what it never sends.
#[derive(Debug)]
struct Broken;

impl Mux {
    fn new(role: Role) -> Self {
        Self {
            role,
            input: Input::default(),
            out: VecDeque::new(),
            epoch: 0,
            channels: BTreeMap::new(),
            last: 0,
            opened: Vec::new(),
        }
    }

    /// As [`Self::restart`], where the other side may be inside a record, whose data would swallow a marker: as many zeros go
    /// before it as a record can hold, behind which they are no record.
    fn restart_unknown(&mut self) -> io::Result<()> {
        self.restart()?;
        let marker: Vec<u8> = self.out.drain(..).collect();
        self.out.extend([0; RECORD + MOST_DATA]);
        self.out.extend(marker);
        Ok(())
    }

    /// Forgets everything and says so to the other side: the guest begins an epoch, the host asks for one.
    fn restart(&mut self) -> io::Result<()> {
        self.channels.clear();
        self.opened.clear();
        self.out.clear();
        self.last = 0;
        self.input.epoch = None;
        match self.role {
            Role::Guest => {
                let mut number = [0; 8];
                std::fs::File::open("/dev/urandom")?.read_exact(&mut number)?;
                self.epoch = u64::from_le_bytes(number);
                self.out.extend(marker(Mark::Begin, self.epoch));
            }
            Role::Host => self.out.extend(marker(Mark::Again, 0)),
        }
        Ok(())
    }

    fn push(&mut self, kind: Kind, channel: u32, value: u32, data: &[u8]) {
        #[expect(clippy::cast_possible_truncation, reason = "records name the lower half")]
        let record = Record { kind, channel, epoch: self.epoch as u32, value };
        self.out.extend(record.to_bytes());
        self.out.extend(data);
    }

    /// Whether both sides agree on an epoch.
    fn is_ready(&self) -> bool {
        self.input.epoch.is_some()
    }

    /// A new channel for a connection of the guest's.
    fn open(&mut self, socket: UnixStream) -> io::Result<()> {
        if !self.is_ready() || self.channels.len() >= MAX_CHANNELS {
            return Ok(()); // closed: the caller's end sees it
        }
        self.last += 1;
        self.push(Kind::Open, self.last, 0, &[]);
        self.enter(self.last, socket)
    }

    fn enter(&mut self, id: u32, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let channel = Channel { socket, pending: VecDeque::new(), credit: WINDOW, owed: 0, ending: false };
        self.channels.insert(id, channel);
        Ok(())
    }

    /// Takes bytes that came from the port.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.extend(bytes);
        while let Some(item) = self.input.next() {
            match item {
                Item::Lost => self.restart_unknown()?,
                Item::Marker(mark, epoch) => self.mark(mark, epoch)?,
                Item::Record(record, data) => {
                    if self.record(record, data).is_err() {
                        self.restart_unknown()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn mark(&mut self, mark: Mark, epoch: u64) -> io::Result<()> {
        match (self.role, mark) {
            (Role::Host, Mark::Begin) => {
                self.channels.clear();
                self.opened.clear();
                self.out.clear();
                self.last = 0;
                self.epoch = epoch;
                self.input.epoch = Some(epoch);
                self.out.extend(marker(Mark::Begun, epoch));
            }
            (Role::Guest, Mark::Begun) if epoch == self.epoch => self.input.epoch = Some(epoch),
            (Role::Guest, Mark::Again) => self.restart()?,
            // Of an epoch before this one; or what only the other side sends.
            _ => {}
        }
        Ok(())
    }

    fn record(&mut self, record: Record, data: Vec<u8>) -> Result<(), Broken> {
        let Record { kind, channel: id, value, .. } = record;
        if kind == Kind::Open {
            return self.opened(id);
        }
        if id == 0 || id > self.last {
            return Err(Broken);
        }
        // A channel that is no longer here was closed on this side, which the other does not know yet.
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        match kind {
            Kind::Data => {
                let unacknowledged = channel.pending.len() + channel.owed as usize;
                if channel.ending || unacknowledged + data.len() > WINDOW as usize {
                    return Err(Broken);
                }
                channel.pending.extend(data);
                self.deliver(id);
            }
            Kind::Credit => {
                let credit = channel.credit.checked_add(value).filter(|credit| *credit <= WINDOW);
                channel.credit = credit.ok_or(Broken)?;
            }
            Kind::Close | Kind::Open => {
                channel.ending = true;
                self.deliver(id);
            }
        }
        Ok(())
    }

    /// The guest has opened a channel: the server gets one end of a pair.
    fn opened(&mut self, id: u32) -> Result<(), Broken> {
        if self.role == Role::Guest || id != self.last.wrapping_add(1) {
            return Err(Broken);
        }
        self.last = id;
        let has_room = self.channels.len().max(self.opened.len()) < MAX_CHANNELS;
        let pair = if has_room { UnixStream::pair().ok() } else { None };
        let entered = pair.and_then(|(ours, theirs)| {
            self.enter(id, ours).ok()?;
            self.opened.push(theirs);
            Some(())
        });
        if entered.is_none() {
            self.push(Kind::Close, id, 0, &[]);
        }
        Ok(())
    }

    /// Gives a channel what came for it, as much as it takes.
    fn deliver(&mut self, id: u32) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        while !channel.pending.is_empty() {
            match channel.socket.write(channel.pending.as_slices().0) {
                Ok(count) => {
                    channel.pending.drain(..count);
                    channel.owed += u32::try_from(count).unwrap_or(WINDOW);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(id),
            }
        }
        if channel.ending && channel.pending.is_empty() {
            self.channels.remove(&id);
            return;
        }
        // Not for every few bytes: the other side goes on while half of the window is open.
        if channel.owed >= WINDOW / 4 || (channel.owed > 0 && channel.pending.is_empty()) {
            let owed = std::mem::take(&mut channel.owed);
            self.push(Kind::Credit, id, owed, &[]);
        }
    }

    /// Sends what a channel has to say.
    fn collect(&mut self, id: u32, buffer: &mut [u8]) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let most = buffer.len().min(MOST_DATA).min(channel.credit as usize);
        match channel.socket.read(&mut buffer[..most]) {
            Ok(0) => self.close(id),
            Ok(count) => {
                let length = u32::try_from(count).expect("bounded by MOST_DATA");
                channel.credit -= length;
                self.push(Kind::Data, id, length, &buffer[..count]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(id),
        }
    }

    /// This side of a channel is gone.
    fn close(&mut self, id: u32) {
        let known = self.channels.remove(&id).is_some_and(|channel| !channel.ending);
        if known {
            self.push(Kind::Close, id, 0, &[]);
        }
    }

    /// Writes to the port what waits for it.
    fn write(&mut self, port: &OwnedFd) -> io::Result<()> {
        while !self.out.is_empty() {
            let bytes = self.out.as_slices().0;
            // SAFETY: a buffer of the length given.
            let count = unsafe { libc::write(port.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
            match usize::try_from(count) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(_) => return would_block(io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    /// Reads from the port; whether it has ended.
    fn read(&mut self, port: &OwnedFd, buffer: &mut [u8]) -> io::Result<bool> {
        // SAFETY: a buffer of the length given.
        let count = unsafe { libc::read(port.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(count) {
            Ok(0) => Ok(true),
            Ok(count) => self.take(&buffer[..count]).map(|()| false),
            Err(_) => would_block(io::Error::last_os_error()).map(|()| false),
        }
    }

    /// Waits, and does what can be done. What happened on the port and on `beside`.
    fn turn(
        &mut self,
        port: &OwnedFd,
        beside: BorrowedFd<'_>,
        timeout: Option<Duration>,
        buffer: &mut [u8],
    ) -> io::Result<Turn> {
        let mut port_events = if self.out.is_empty() { 0 } else { libc::POLLOUT };
        // A guest always reads, so that a host that waits for it can go on.
        if self.role == Role::Guest || self.out.len() < HIGH_WATER {
            port_events |= libc::POLLIN;
        }
        let entry = |fd: i32, events| libc::pollfd { fd, events, revents: 0 };
        let mut fds = vec![entry(port.as_raw_fd(), port_events), entry(beside.as_raw_fd(), libc::POLLIN)];
        let full = self.out.len() >= HIGH_WATER;
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        for channel in self.channels.values() {
            let reads = channel.credit > 0 && !full && !channel.ending;
            let events = (if reads { libc::POLLIN } else { 0 })
                | (if channel.pending.is_empty() { 0 } else { libc::POLLOUT });
            // A channel that has nothing to do is not looked at: its hang-up would be told over and over.
            fds.push(entry(if events == 0 { -1 } else { channel.socket.as_raw_fd() }, events));
        }
        let milliseconds =
            timeout.map_or(-1, |timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        let count = libc::nfds_t::try_from(fds.len()).expect("few");
        // SAFETY: as many entries as given, which outlive the call.
        if unsafe { libc::poll(fds.as_mut_ptr(), count, milliseconds) } < 0 {
            return would_block(io::Error::last_os_error()).map(|()| Turn::default());
        }
        let mut turn = Turn { beside: fds[1].revents != 0, ..Turn::default() };
        for (id, fd) in ids.into_iter().zip(&fds[2..]) {
            if fd.revents & libc::POLLOUT != 0 {
                self.deliver(id);
            }
            if fd.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0
                && fd.events & libc::POLLIN != 0
            {
                self.collect(id, buffer);
            }
        }
        if fds[0].revents & libc::POLLIN != 0 {
            turn.ended = self.read(port, buffer)?;
        } else if fds[0].revents & (libc::POLLHUP | libc::POLLERR) != 0 {
            turn.ended = true;
        }
        if !turn.ended {
            self.write(port)?;
        }
        Ok(turn)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Nobody is at the other end of the port.
    ended: bool,
    /// What stands beside the port is readable.
    beside: bool,
}

fn would_block(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// Makes a descriptor non-blocking.
fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: plain calls on a descriptor of ours.
    let set = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Carries every connection to `listener` over `port`, for ever. `told` hears when the host comes and goes.
///
/// # Errors
/// The operating system's, where the port itself fails.
pub fn serve_guest(port: &OwnedFd, listener: &UnixListener, mut told: impl FnMut(bool)) -> io::Result<()> {
    set_nonblocking(port)?;
    listener.set_nonblocking(true)?;
    let mut mux = Mux::new(Role::Guest);
    let mut buffer = vec![0; 64 << 10];
    let mut ready = false;
    mux.restart_unknown()?;
    loop {
        let timeout = if mux.is_ready() { None } else { Some(PAUSE) };
        let turn = mux.turn(port, listener.as_fd(), timeout, &mut buffer)?;
        if turn.beside
            && let Ok((socket, _)) = listener.accept()
        {
            mux.open(socket)?;
        }
        if turn.ended {
            // Nobody at the host: what was under way is lost, and the port tells so over and over.
            mux.restart_unknown()?;
            std::thread::sleep(PAUSE);
        } else if !mux.is_ready() && mux.out.is_empty() {
            // The marker may have gone to a host that has gone since.
            mux.out.extend(marker(Mark::Begin, mux.epoch));
        }
        if ready != mux.is_ready() {
            ready = mux.is_ready();
            told(ready);
        }
    }
}

/// Carries channels of the guest behind `port` until the VMM closes it or `stop` is readable; each one that the guest opens is
/// given to `open`.
///
/// # Errors
/// The operating system's.
pub fn serve_host(port: &OwnedFd, stop: BorrowedFd<'_>, mut open: impl FnMut(Socket)) -> io::Result<()> {
    set_nonblocking(port)?;
    let mut mux = Mux::new(Role::Host);
    let mut buffer = vec![0; 64 << 10];
    mux.restart_unknown()?;
    loop {
        let turn = mux.turn(port, stop, None, &mut buffer)?;
        if turn.ended || turn.beside {
            return Ok(());
        }
        for socket in std::mem::take(&mut mux.opened) {
            open(OwnedFd::from(socket).into());
        }
    }
}

#[cfg(test)]
mod tests;
