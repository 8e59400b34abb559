//! Frames out of a stream of bytes.

use super::{Socket, Transport};
use crate::frame::{FrameError, HEADER, Header, MAX_PAYLOAD};
use std::io;
use std::os::fd::OwnedFd;

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed between two frames.
    #[error("peer closed the connection")]
    Closed,
    /// The peer closed inside a frame.
    #[error("peer closed the connection inside a frame")]
    Torn,
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The operating system's.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames from a socket, many per system call where the peer has coalesced them.
#[derive(Debug)]
pub struct FrameReader {
    socket: Socket,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Whether bulk data went by last. More of it is likely to follow, and what is read ahead of it would be copied twice.
    bulk: bool,
}

/// What is taken for bulk data.
const BULK: usize = 64 << 10;

/// How much is read at once where bulk data is likely: a few small frames.
const AHEAD: usize = 4 << 10;

impl FrameReader {
    /// Reads frames of at most [`MAX_PAYLOAD`] from `socket`.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            buffer: vec![0; HEADER + MAX_PAYLOAD + (64 << 10)].into(),
            start: 0,
            end: 0,
            bulk: false,
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, to change how it waits.
    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Reads what is there, and the descriptors beside it: for the first frame of a server on the same host.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no more use then.
    pub fn fill_with_descriptors(&mut self) -> Result<Vec<OwnedFd>, ReadError> {
        let (count, beside) = super::descriptors::receive(&self.socket, &mut self.buffer[self.end..])?;
        if count == 0 {
            return Err(ReadError::Closed);
        }
        self.end += count;
        Ok(beside)
    }

    /// Whether a frame, or part of one, has been read already.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.end > self.start
    }

    /// The next header; its payload follows by [`Self::payload`] or [`Self::payload_into`].
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no more use then.
    pub fn header(&mut self) -> Result<Header, ReadError> {
        let closed = if self.end == self.start { ReadError::Closed } else { ReadError::Torn };
        self.fill(HEADER, closed)?;
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.buffer[self.start..self.start + HEADER]);
        self.start += HEADER;
        Ok(Header::from_bytes(&bytes)?)
    }

    /// The payload of the header that was read last.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no more use then.
    pub fn payload(&mut self, header: &Header) -> Result<&[u8], ReadError> {
        let length = header.length as usize;
        self.bulk = false;
        self.fill(length, ReadError::Torn)?;
        let payload = &self.buffer[self.start..self.start + length];
        self.start += length;
        Ok(payload)
    }

    /// Takes `destination.len()` bytes of the payload straight to where they belong.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no more use then.
    pub fn payload_into(&mut self, destination: &mut [u8]) -> Result<(), ReadError> {
        self.bulk = destination.len() >= BULK;
        let buffered = destination.len().min(self.end - self.start);
        let (now, mut later) = destination.split_at_mut(buffered);
        now.copy_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        while !later.is_empty() {
            match self.socket.receive(later)? {
                0 => return Err(ReadError::Torn),
                count => later = &mut later[count..],
            }
        }
        Ok(())
    }

    /// Makes sure that `count` bytes lie in the buffer.
    fn fill(&mut self, count: usize, mut closed: ReadError) -> Result<(), ReadError> {
        if self.end - self.start >= count {
            return Ok(());
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + count > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let most =
            if self.bulk { self.buffer.len().min(self.end + count.max(AHEAD)) } else { self.buffer.len() };
        while self.end - self.start < count {
            match self.socket.receive(&mut self.buffer[self.end..most])? {
                0 => return Err(closed),
                count => self.end += count,
            }
            closed = ReadError::Torn;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::control;
    use std::io::IoSlice;

    fn frame(op: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = Header::new(op);
        header.length = u32::try_from(payload.len()).unwrap();
        [&header.to_bytes()[..], payload].concat()
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let (one, other) = Socket::pair().unwrap();
        let mut bytes = Vec::new();
        for size in [0, 8, 64, 4096, 0, 100_000] {
            bytes.extend(frame(control::PING, &vec![7; size]));
        }
        let writer = std::thread::spawn(move || {
            for piece in bytes.chunks(1000) {
                one.send_all(&mut [IoSlice::new(piece)]).unwrap();
            }
        });
        let mut reader = FrameReader::new(other);
        for size in [0, 8, 64, 4096, 0, 100_000] {
            let header = reader.header().unwrap();
            assert_eq!(header.length, size);
            assert!(reader.payload(&header).unwrap().iter().all(|byte| *byte == 7));
        }
        writer.join().unwrap();
        assert!(matches!(reader.header(), Err(ReadError::Closed)));
    }

    #[test]
    fn bulk_data_goes_where_it_belongs_and_small_frames_between_it_are_whole() {
        let (one, other) = Socket::pair().unwrap();
        let sizes = [8, 500_000, 8, 100_000, 300_000, 0, 4096, 70_000, 8];
        let bytes_of =
            |size: usize| (0..size).map(|at| (at * 7 + size).to_le_bytes()[0]).collect::<Vec<u8>>();
        let writer = std::thread::spawn(move || {
            for size in sizes {
                one.send_all(&mut [IoSlice::new(&frame(control::DATA, &bytes_of(size)))]).unwrap();
            }
        });
        let mut reader = FrameReader::new(other);
        let mut from_buffer = 0;
        for size in sizes {
            let header = reader.header().unwrap();
            assert_eq!(header.length as usize, size);
            if size < BULK {
                assert_eq!(reader.payload(&header).unwrap(), bytes_of(size));
                continue;
            }
            let mut place = vec![0; size];
            if reader.bulk {
                from_buffer += reader.end - reader.start;
            }
            reader.payload_into(&mut place).unwrap();
            assert_eq!(place, bytes_of(size));
        }
        assert!(from_buffer <= AHEAD, "{from_buffer} bytes behind bulk data were copied twice");
        writer.join().unwrap();
        assert!(matches!(reader.header(), Err(ReadError::Closed)));
    }

    #[test]
    fn a_torn_frame_is_told_from_a_closed_stream() {
        let (one, other) = Socket::pair().unwrap();
        let bytes = frame(control::PING, &[0; 64]);
        one.send_all(&mut [IoSlice::new(&bytes[..50])]).unwrap();
        drop(one);
        let mut reader = FrameReader::new(other);
        let header = reader.header().unwrap();
        assert!(matches!(reader.payload(&header), Err(ReadError::Torn)));
    }
}
