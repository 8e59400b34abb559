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
}

impl FrameReader {
    /// Reads frames of at most [`MAX_PAYLOAD`] from `socket`.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self { socket, buffer: vec![0; HEADER + MAX_PAYLOAD + (64 << 10)].into(), start: 0, end: 0 }
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
        while self.end - self.start < count {
            match self.socket.receive(&mut self.buffer[self.end..])? {
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
