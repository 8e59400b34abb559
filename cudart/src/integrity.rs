//! The answer of the INTEGRITY_CHECK table: a keyed hash by which the runtime decides whether it talks to a driver
//! that it knows, and without which every runtime call returns `cudaErrorSoftwareValidityNotEstablished` (103).
//!
//! The hash is HMAC (RFC 2104) with MD2 (RFC 1319) over facts that both sides know: versions, process and thread,
//! addresses of the tables as handed out, the time, and the identity of every device. Pure functions; the caller
//! gathers the inputs in the process that the runtime runs in.

use crate::driver::DeviceIdentity;

/// What goes into one answer. Addresses are those the runtime was given, not those of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// What `cuDriverGetVersion` answers.
    pub driver_version: u32,
    /// The runtime's version plus 0, 1 or 2, as it passed it.
    pub runtime_version: u32,
    /// The process id.
    pub process: u32,
    /// The low 32 bits of `pthread_self()`.
    pub thread: u32,
    /// Address of the CUDART_INTERFACE table.
    pub interface_table: u64,
    /// Address of the INTEGRITY_CHECK table.
    pub integrity_table: u64,
    /// Address stored in slot 1 of the INTEGRITY_CHECK table.
    pub integrity_function: u64,
    /// The time that the runtime passed, in seconds since 1970.
    pub unix_seconds: u64,
    /// All devices, in order.
    pub devices: &'a [DeviceIdentity],
}

/// The 16 bytes to answer.
///
/// The runtime asks three times, with its version plus 0, 1 and 2. The last digits 0 and 1 have fixed answers, all
/// others the hash (measured for the last digits 0 to 9).
#[must_use]
pub fn answer(inputs: &Inputs<'_>) -> [u8; 16] {
    match inputs.runtime_version % 10 {
        0 => FIXED_ANSWERS[0],
        1 => FIXED_ANSWERS[1],
        _ => hmac_md2(&KEY, &message(inputs)),
    }
}

/// The hashed message: everything little endian and packed, 48 bytes and 28 for each device.
fn message(inputs: &Inputs<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + 28 * inputs.devices.len());
    for word in [inputs.driver_version, inputs.runtime_version, inputs.process, inputs.thread] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for word in
        [inputs.interface_table, inputs.integrity_table, inputs.integrity_function, inputs.unix_seconds]
    {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for device in inputs.devices {
        out.extend_from_slice(&device.uuid);
        for word in [device.pci_domain, device.pci_bus, device.pci_device] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    out
}

/// HMAC with MD2, for a key of at most one block (16 bytes).
fn hmac_md2(key: &[u8; BLOCK], message: &[u8]) -> [u8; 16] {
    let inner = md2(&[&key.map(|byte| byte ^ 0x36), message]);
    md2(&[&key.map(|byte| byte ^ 0x5c), &inner])
}

/// MD2 of the concatenation of the parts.
fn md2(parts: &[&[u8]]) -> [u8; 16] {
    let mut input: Vec<u8> = parts.concat();
    // Padding: n bytes of value n, so that there is always at least one (RFC 1319 section 3.1).
    let padding = BLOCK - input.len() % BLOCK;
    let filler = u8::try_from(padding).expect("padding is at most 16");
    input.resize(input.len() + padding, filler);

    let mut checksum = [0u8; BLOCK];
    let mut last = 0u8;
    let mut state = [0u8; 48];
    for block in input.chunks_exact(BLOCK) {
        for (sum, byte) in checksum.iter_mut().zip(block) {
            *sum ^= PI_SUBSTITUTION[usize::from(byte ^ last)];
            last = *sum;
        }
        compress(&mut state, block);
    }
    compress(&mut state, &checksum);

    let mut digest = [0u8; 16];
    digest.copy_from_slice(&state[..16]);
    digest
}

/// One block into the 48-byte state (RFC 1319 section 3.4).
fn compress(state: &mut [u8; 48], block: &[u8]) {
    for (i, byte) in block.iter().enumerate() {
        state[16 + i] = *byte;
        state[32 + i] = state[i] ^ byte;
    }
    let mut carried = 0u8;
    for round in 0..18u8 {
        for byte in state.iter_mut() {
            *byte ^= PI_SUBSTITUTION[usize::from(carried)];
            carried = *byte;
        }
        carried = carried.wrapping_add(round);
    }
}

const BLOCK: usize = 16;

/// The key that runtimes 11.6 to 13.5 use.
const KEY: [u8; BLOCK] =
    [0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52, 0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f];

/// The answers for a version that ends in 0 and in 1.
const FIXED_ANSWERS: [[u8; 16]; 2] = [
    [0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x33, 0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e],
    [0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x18, 0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e],
];

/// The "random" permutation of 0 to 255 that RFC 1319 constructs from the digits of pi.
#[rustfmt::skip]
const PI_SUBSTITUTION: [u8; 256] = [
    41, 46, 67, 201, 162, 216, 124, 1, 61, 54, 84, 161, 236, 240, 6, 19,
    98, 167, 5, 243, 192, 199, 115, 140, 152, 147, 43, 217, 188, 76, 130, 202,
    30, 155, 87, 60, 253, 212, 224, 22, 103, 66, 111, 24, 138, 23, 229, 18,
    190, 78, 196, 214, 218, 158, 222, 73, 160, 251, 245, 142, 187, 47, 238, 122,
    169, 104, 121, 145, 21, 178, 7, 63, 148, 194, 16, 137, 11, 34, 95, 33,
    128, 127, 93, 154, 90, 144, 50, 39, 53, 62, 204, 231, 191, 247, 151, 3,
    255, 25, 48, 179, 72, 165, 181, 209, 215, 94, 146, 42, 172, 86, 170, 198,
    79, 184, 56, 210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4, 241,
    69, 157, 112, 89, 100, 113, 135, 32, 134, 91, 207, 101, 230, 45, 168, 2,
    27, 96, 37, 173, 174, 176, 185, 246, 28, 70, 97, 105, 52, 64, 126, 15,
    85, 71, 163, 35, 221, 81, 175, 58, 195, 92, 249, 206, 186, 197, 234, 38,
    44, 83, 13, 110, 133, 40, 132, 9, 211, 223, 205, 244, 65, 129, 77, 82,
    106, 220, 55, 200, 108, 193, 171, 250, 36, 225, 123, 8, 12, 189, 177, 74,
    120, 136, 149, 139, 227, 99, 232, 109, 233, 203, 213, 254, 59, 0, 29, 57,
    242, 239, 183, 14, 102, 88, 208, 228, 166, 119, 114, 248, 235, 117, 75, 10,
    49, 68, 80, 180, 143, 237, 31, 26, 219, 153, 141, 51, 159, 17, 131, 20,
];

#[cfg(test)]
mod tests {
    use super::{DeviceIdentity, Inputs, PI_SUBSTITUTION, answer, hmac_md2, md2};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn md2_gives_the_digests_of_rfc_1319() {
        let suite = [
            ("", "8350e5a3e24c153df2275c9f80692773"),
            ("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1"),
            ("abc", "da853b0d3f88d99b30283a69e6ded6bb"),
            ("message digest", "ab4f496bfb2a530b219ff33031fe06b0"),
            ("abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "da33def2a42df13975352846c30338cd",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "d5976f79d83d3a0dc9806c3c66f3efd8",
            ),
        ];
        for (text, digest) in suite {
            assert_eq!(hex(&md2(&[text.as_bytes()])), digest, "{text:?}");
        }
    }

    #[test]
    fn md2_of_parts_is_md2_of_their_concatenation() {
        assert_eq!(md2(&[b"ab", b"", b"c"]), md2(&[b"abc"]));
    }

    #[test]
    fn substitution_is_a_permutation() {
        let mut seen = [false; 256];
        for byte in PI_SUBSTITUTION {
            assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "{byte} appears twice");
        }
    }

    #[test]
    fn hmac_depends_on_key_and_message() {
        let base = hmac_md2(&[1; 16], b"message");
        assert_ne!(base, hmac_md2(&[2; 16], b"message"));
        assert_ne!(base, hmac_md2(&[1; 16], b"messagf"));
    }

    /// A published vector (ZLUDA's tests), recorded from a driver that called itself 12.2.
    fn published() -> (Inputs<'static>, &'static str) {
        const DEVICES: &[DeviceIdentity] = &[DeviceIdentity {
            uuid: [
                0x67, 0x22, 0xcb, 0xcf, 0xc6, 0x61, 0xf2, 0x92, 0x74, 0xd6, 0xed, 0x23, 0x2a, 0x32, 0x13,
                0x1c,
            ],
            pci_domain: 0,
            pci_bus: 4,
            pci_device: 0,
        }];
        let inputs = Inputs {
            driver_version: 12020,
            runtime_version: 0x2b4a,
            process: 0x4d08,
            thread: 0x2b78,
            interface_table: 0x7ff8_c807_17f0,
            integrity_table: 0x7ff8_c825_e4b0,
            integrity_function: 0x7ff8_c7dd_0ad0,
            unix_seconds: 0x64a3_65ee,
            devices: DEVICES,
        };
        (inputs, "7a7014f22846c3a784cdbf423331f1ea")
    }

    #[test]
    fn answer_gives_the_published_vector() {
        let (inputs, expected) = published();
        assert_eq!(hex(&answer(&inputs)), expected);
    }

    #[test]
    fn every_input_changes_the_answer() {
        let (inputs, expected) = published();
        let mut other = inputs.devices[0];
        other.pci_bus = 5;
        let others = [other];
        for changed in [
            Inputs { driver_version: 12030, ..inputs },
            Inputs { runtime_version: 0x2b4b, ..inputs },
            Inputs { process: 1, ..inputs },
            Inputs { thread: 1, ..inputs },
            Inputs { interface_table: 8, ..inputs },
            Inputs { integrity_table: 8, ..inputs },
            Inputs { integrity_function: 8, ..inputs },
            Inputs { unix_seconds: 0, ..inputs },
            Inputs { devices: &[], ..inputs },
            Inputs { devices: &others, ..inputs },
        ] {
            assert_ne!(hex(&answer(&changed)), expected, "{changed:?}");
        }
    }

    #[test]
    fn versions_ending_in_0_and_1_have_fixed_answers() {
        let (inputs, _) = published();
        let zero = answer(&Inputs { runtime_version: 13000, ..inputs });
        assert_eq!(hex(&zero), "5c67cb031c184133e8d14c1faa83d38e");
        assert_eq!(zero, answer(&Inputs { runtime_version: 11080, devices: &[], ..inputs }));
        let one = answer(&Inputs { runtime_version: 13001, ..inputs });
        assert_eq!(hex(&one), "5c67cb031c184118e8d14c1faa83d38e");
    }
}
