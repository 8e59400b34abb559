//! What the shim and the server must agree on: the table of driver functions, how parameters cross, frames, limits and
//! transports. No policy lives here, and nothing in it trusts a byte that came from the other side.

pub mod admin;
pub mod advice;
pub mod api;
pub mod codec;
pub mod control;
pub mod endpoint;
pub mod frame;
pub mod monitor;
pub mod param;
pub mod primitive;
pub mod transport;
pub mod types;

/// A hash (FNV-1a) of the table and the wire version: two builds that would misunderstand each other differ in it.
#[must_use]
pub fn fingerprint() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    mix(&frame::VERSION.to_le_bytes());
    for row in api::ROWS {
        mix(&row.number.to_le_bytes());
        mix(row.name.as_bytes());
        mix(&[row.class as u8]);
    }
    hash
}
