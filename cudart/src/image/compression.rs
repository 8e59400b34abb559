//! How the entries of a fatbin are stored, and what they are without that.
//!
//! Called with bytes of a peer: nothing is set aside for a length that the caller's bound or the format forbids.

use std::borrow::Cow;
use std::io::Read;

/// How an entry's payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// One raw LZ4 block.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// Why a payload cannot be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// More than the caller allows.
    #[error("{announced} bytes once decompressed, more than {most}")]
    TooLong {
        /// The size announced.
        announced: u64,
        /// The caller's bound.
        most: u64,
    },
    /// It does not decompress to what its header says.
    #[error("damaged {method} data: {reason}")]
    Damaged {
        /// The compression.
        method: &'static str,
        /// What the decompressor found.
        reason: String,
    },
}

impl Compression {
    /// The payload as it was before it was stored: `announced` bytes of it, if they are not more than `most`. What is
    /// not compressed comes back as it is.
    ///
    /// # Errors
    /// [`DecompressError`] if that is too long, or the payload is not that many bytes compressed in this way.
    pub fn decompress(
        self,
        payload: &[u8],
        announced: u64,
        most: u64,
    ) -> Result<Cow<'_, [u8]>, DecompressError> {
        match self {
            Self::None => Ok(Cow::Borrowed(payload)),
            _ if announced > most => Err(DecompressError::TooLong { announced, most }),
            Self::Lz4 => whole("LZ4", announced, lz4(payload, announced)),
            Self::Zstd => whole("zstd", announced, zstd(payload, announced)),
        }
    }
}

/// The decompressed bytes, if they are as many as announced.
fn whole(
    method: &'static str,
    announced: u64,
    plain: Result<Vec<u8>, String>,
) -> Result<Cow<'static, [u8]>, DecompressError> {
    let reason = match plain {
        Ok(plain) if plain.len() as u64 == announced => return Ok(Cow::Owned(plain)),
        Ok(plain) => format!("{announced} bytes announced, at least {} decompressed", plain.len()),
        Err(reason) => reason,
    };
    Err(DecompressError::Damaged { method, reason })
}

fn zstd(mut payload: &[u8], announced: u64) -> Result<Vec<u8>, String> {
    // A window greater than the whole is of no use; 8 MiB is what every decoder must support (RFC 8878, 3.1.1.1.2).
    let window = announced.max(8 << 20);
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut payload, window);
    let decoder = decoder.map_err(|error| error.to_string())?;
    let mut plain = Vec::new();
    // One byte more than announced, to notice.
    decoder.take(announced.saturating_add(1)).read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

fn lz4(payload: &[u8], announced: u64) -> Result<Vec<u8>, String> {
    // No LZ4 block expands more than this, so a greater size is refused before memory is set aside for it.
    if announced > payload.len() as u64 * 255 + 64 {
        return Err(format!("{announced} bytes out of {}", payload.len()));
    }
    let size = usize::try_from(announced).map_err(|error| error.to_string())?;
    lz4_flex::block::decompress(payload, size).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Compression, DecompressError};

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        let block = lz4_flex::block::compress(&[7; 1000]);
        assert_eq!(Compression::Lz4.decompress(&block, 1000, 1000).unwrap(), &[7; 1000][..]);
        assert_eq!(
            Compression::Lz4.decompress(&block, 1000, 999),
            Err(DecompressError::TooLong { announced: 1000, most: 999 })
        );
        for announced in [0, 999, 1001, 1 << 40] {
            let error = Compression::Lz4.decompress(&block, announced, u64::MAX).unwrap_err();
            assert!(matches!(error, DecompressError::Damaged { method: "LZ4", .. }), "{announced}: {error}");
        }
        let error = Compression::Zstd.decompress(&block, 1000, u64::MAX).unwrap_err();
        assert!(matches!(error, DecompressError::Damaged { method: "zstd", .. }), "{error}");
    }

    #[test]
    fn what_is_not_compressed_is_not_copied() {
        let plain = Compression::None.decompress(b"text", 0, 0).unwrap();
        assert!(matches!(plain, std::borrow::Cow::Borrowed(b"text")));
    }
}
