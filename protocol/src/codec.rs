//! Reading and writing the payload of a call: little endian, every field aligned to its size within eight bytes, no
//! allocation, and every length bounded before it is believed.

use crate::frame::MAX_PAYLOAD;

/// Why a payload could not be read. The peer is to blame: its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload ends inside a field.
    #[error("payload ends at byte {have} where {need} more are needed")]
    Truncated {
        /// Bytes that are left.
        have: usize,
        /// Bytes that the field takes.
        need: usize,
    },
    /// A count or length is larger than anything a correct peer sends.
    #[error("length {claimed} is over the limit of {limit}")]
    TooLong {
        /// What the peer claims.
        claimed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// A field holds a value that no correct peer sends.
    #[error("field holds the impossible value {0:#x}")]
    Value(u64),
}

/// Plain data: any bit pattern of its size is a value, and it has no padding.
///
/// # Safety
/// The implementor guarantees just that.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),*) => { $(
        // SAFETY: integers, floats and transparent wrappers of them have no padding and no invalid pattern.
        unsafe impl Plain for $type {}
    )* };
}

plain!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64);
plain!(crate::types::CUresult, crate::types::CUuuid, crate::types::CUdevprop);
plain!([u32; 3], [u64; 2], [u64; 8], [u8; 16]);

/// Appends fields to a buffer that its owner reuses from call to call.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes into `buffer`, which is emptied first.
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        Self { buffer }
    }

    /// Appends one plain value, padded to a multiple of eight bytes so that the next field is aligned.
    pub fn put<T: Plain>(&mut self, value: T) {
        // SAFETY: `Plain` values have no padding, so all their bytes are initialised.
        let bytes =
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(&value).cast::<u8>(), size_of::<T>()) };
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends a length and that many bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends bytes without a length; the reader knows it from elsewhere.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends `length` zero bytes, to be filled in place.
    pub fn reserve(&mut self, length: usize) -> &mut [u8] {
        let start = self.buffer.len();
        self.buffer.resize(start + length.next_multiple_of(8), 0);
        &mut self.buffer[start..start + length]
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn pad(&mut self) {
        let padded = self.buffer.len().next_multiple_of(8);
        self.buffer.resize(padded, 0);
    }
}

/// Reads fields from a payload in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `payload`.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Takes one plain value.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where the payload ends before it.
    pub fn get<T: Plain>(&mut self) -> Result<T, DecodeError> {
        let bytes = self.get_raw(size_of::<T>())?;
        // SAFETY: `bytes` holds `size_of::<T>()` bytes, any pattern is a value of a `Plain` type, and the read is
        // unaligned.
        Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    /// Takes a length and that many bytes, borrowed from the payload.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] where the length is over [`MAX_PAYLOAD`], [`DecodeError::Truncated`] where fewer follow.
    pub fn get_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let claimed: u64 = self.get()?;
        let limit = MAX_PAYLOAD as u64;
        let length = usize::try_from(claimed).ok().filter(|length| *length <= MAX_PAYLOAD);
        self.get_raw(length.ok_or(DecodeError::TooLong { claimed, limit })?)
    }

    /// Takes a length and that many bytes of text.
    ///
    /// # Errors
    /// As [`Self::get_bytes`], and [`DecodeError::Text`] where they are not UTF-8.
    pub fn get_str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.get_bytes()?).map_err(|_| DecodeError::Text)
    }

    /// Takes `length` bytes and the padding behind them.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn get_raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated { have: self.rest.len(), need: length };
        let bytes = self.rest.get(..length).ok_or(truncated)?;
        let padded = length.checked_next_multiple_of(8).ok_or(truncated)?;
        self.rest = self.rest.get(padded..).unwrap_or(&[]);
        Ok(bytes)
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_written() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer);
        writer.put(7_u8);
        writer.put_bytes(b"hello");
        writer.put(-3_i32);
        writer.put(u64::MAX);
        writer.put_raw(&[1, 2, 3]);
        let mut reader = Reader::new(&buffer);
        assert_eq!(reader.get::<u8>(), Ok(7));
        assert_eq!(reader.get_bytes(), Ok(&b"hello"[..]));
        assert_eq!(reader.get::<i32>(), Ok(-3));
        assert_eq!(reader.get::<u64>(), Ok(u64::MAX));
        assert_eq!(reader.get_raw(3), Ok(&[1, 2, 3][..]));
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        let mut buffer = Vec::new();
        Writer::new(&mut buffer).put(1_u64 << 40);
        assert!(matches!(Reader::new(&buffer).get_bytes(), Err(DecodeError::TooLong { .. })));
        Writer::new(&mut buffer).put(64_u64);
        assert!(matches!(
            Reader::new(&buffer).get_bytes(),
            Err(DecodeError::Truncated { have: 0, need: 64 })
        ));
        assert!(Reader::new(&[1, 2, 3]).get::<u64>().is_err());
        assert!(Reader::new(&[]).get_raw(usize::MAX).is_err());
    }
}
