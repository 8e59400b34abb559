//! Which kernels of an image make system-scope atomics: read-modify-write operations that the CPU and other devices
//! must see as one step (PTX `atom.sys` and `red.sys`; CUDA C++ `atomicAdd_system` and `cuda::atomic`).
//!
//! For a machine whose bus carries no atomics: there the guest's CPU has to be kept away from managed memory while
//! such a kernel runs. Where an image does not tell enough, too many kernels are named rather than too few; too few
//! only where there is no code to read, or none that is understood.
//!
//! The image comes from a peer. Decompression is bounded for an entry and for an image, and the work grows no faster
//! than the length of the image and of what it decompresses to.

mod ptx;
mod sass;

use std::collections::BTreeSet;

use super::compression::Compression;
use super::fatbin::{Entry, EntryKind, entries};
use super::{ImageError, Kind, kind_of};

/// The kernels of an image that make system-scope atomics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemAtomics {
    /// Their symbols.
    kernels: BTreeSet<String>,
    /// Every kernel has to be taken for one of them, and `kernels` is empty.
    everywhere: bool,
}

impl SystemAtomics {
    /// Whether the kernel with that symbol makes system-scope atomics. Also true of a kernel that only shares its
    /// image with a device function that makes them, since calls are not followed.
    #[must_use]
    pub fn of(&self, kernel: &str) -> bool {
        self.everywhere || self.kernels.contains(kernel)
    }

    /// Whether any kernel does.
    #[must_use]
    pub fn any(&self) -> bool {
        self.everywhere || !self.kernels.is_empty()
    }

    /// Adds a place where such an atomic was found.
    fn add(&mut self, place: Place<'_>) {
        match place {
            _ if self.everywhere => {}
            Place::Kernel(symbol) if self.kernels.len() < MAX_KERNELS => {
                self.kernels.insert(String::from_utf8_lossy(symbol).into_owned());
            }
            Place::Kernel(_) | Place::Function => {
                self.everywhere = true;
                self.kernels.clear();
            }
        }
    }
}

/// What an instruction belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// The kernel with that symbol.
    Kernel(&'a [u8]),
    /// A device function outside any kernel. Which kernels reach it is not found out: a call may go through a
    /// pointer.
    Function,
}

/// Finds the kernels of a fatbin, an ELF object or PTX text that make system-scope atomics. Of a fatbin those entries
/// count that the driver may run on devices of `architectures` (times ten, e.g. 90 for `sm_90`): machine code of the
/// device's major version and no later minor one, or PTX where there is none (CUDA C++ programming guide, "Binary
/// Compatibility" and "PTX Compatibility"). Libraries have entries for half a dozen architectures, which take seconds to
/// decompress. Without `architectures` all entries count.
///
/// An entry that is damaged, or machine code for an architecture before `sm_70`, adds nothing; one that is too long
/// to be decompressed stands for all kernels. Intermediate code for the link at run time is not looked at: what comes
/// of it is an image of its own.
///
/// # Errors
/// [`ImageError`] if the bytes are no image, or if the headers of the image itself contradict each other or lead
/// outside it.
pub fn system_atomics(image: &[u8], architectures: &[u32]) -> Result<SystemAtomics, ImageError> {
    let mut found = SystemAtomics::default();
    match kind_of(image)? {
        Kind::Fatbin => find_in_fatbin(image, architectures, &mut found)?,
        Kind::Elf => sass::find(image, &mut found)?,
        Kind::Ptx => ptx::find(image, &mut found),
    }
    Ok(found)
}

/// Whether a device of an architecture can run an entry's machine code.
fn is_machine_code_for(entry: &Entry<'_>, architecture: u32) -> bool {
    entry.kind == EntryKind::Elf
        && entry.architecture / 10 == architecture / 10
        && entry.architecture <= architecture
}

fn find_in_fatbin(fatbin: &[u8], architectures: &[u32], found: &mut SystemAtomics) -> Result<(), ImageError> {
    let mut compiled: Vec<u32> = Vec::new();
    for entry in entries(fatbin)? {
        let entry = entry?;
        compiled.extend(architectures.iter().filter(|device| is_machine_code_for(&entry, **device)));
    }
    let may_run = |entry: &Entry<'_>| match entry.kind {
        EntryKind::Other(_) => false,
        _ if architectures.is_empty() => true,
        EntryKind::Elf => architectures.iter().any(|device| is_machine_code_for(entry, *device)),
        EntryKind::Ptx => architectures.iter().any(|device| !compiled.contains(device)),
    };
    let mut budget = MAX_DECOMPRESSED;
    for entry in entries(fatbin)? {
        let entry = entry?;
        if !may_run(&entry) {
            continue;
        }
        if entry.compression != Compression::None {
            let cost = ENTRY_COST.saturating_add(entry.decompressed_len);
            if entry.decompressed_len > MAX_ENTRY || cost > budget {
                found.add(Place::Function);
                continue;
            }
            // Paid also for what turns out to be damaged.
            budget -= cost;
        }
        let Ok(image) = entry.image(MAX_ENTRY) else { continue };
        if entry.kind == EntryKind::Ptx {
            ptx::find(&image, found);
        } else {
            // Damage in here is not the fatbin's: its other entries are as good as they were.
            let _ = sass::find(&image, found);
        }
    }
    Ok(())
}

/// The most bytes that one entry may decompress to, since they are all in memory at once. The largest known one takes
/// 160 MB (of NCCL 2.32).
const MAX_ENTRY: u64 = 512 << 20;

/// The most bytes that all entries of a fatbin may decompress to: some seconds of work. The largest known one takes
/// 830 MB (likewise).
const MAX_DECOMPRESSED: u64 = 2 << 30;

/// What an entry costs beside its bytes, in bytes: setting up a decompressor. Bounds their number.
const ENTRY_COST: u64 = 64 << 10;

/// The most kernels that are told apart, so that a small image cannot decompress to names without end.
const MAX_KERNELS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, proptest};

    use super::{ImageError, MAX_KERNELS, Place, SystemAtomics, system_atomics};

    const PROGBITS: u32 = 1;
    const SHARED: u32 = 0x7000_000a;

    /// REDG.E.ADD.STRONG.SYS desc[UR4][R2.64], R5 of sm_90, and the same with STRONG.GPU.
    const SYSTEM: [u64; 2] = [0x0000_0005_0200_798e, 0x002f_e200_0c11_4184];
    const DEVICE: [u64; 2] = [0x0000_0005_0200_798e, 0x002f_e200_0c10_e184];

    fn code(instructions: &[[u64; 2]]) -> Vec<u8> {
        instructions.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A cubin with sections of these names, types and contents. The header is followed by the sections' bytes, and
    /// these by the section headers: the empty one, that of the names, and the others.
    fn elf(architecture: u32, sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\x41".to_vec();
        bytes.resize(64, 0);
        let mut names = vec![0];
        let mut headers = vec![[0; 64]];
        let header = |name: usize, kind: u32, offset: usize, len: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            header
        };
        for (name, kind, content) in sections {
            headers.push(header(names.len(), *kind, bytes.len(), content.len()));
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            if *kind == PROGBITS {
                bytes.extend_from_slice(content);
            }
        }
        headers.insert(1, header(0, 3, bytes.len(), names.len()));
        bytes.extend(names);
        let table = bytes.len() as u64;
        bytes.extend_from_slice(headers.as_flattened());
        bytes[0x12..0x14].copy_from_slice(&190u16.to_le_bytes());
        bytes[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        bytes[0x30..0x34].copy_from_slice(&(architecture << 8 | 4).to_le_bytes());
        bytes[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        bytes[0x3e] = 1;
        bytes
    }

    /// A cubin with a kernel that makes system-scope atomics, one that does not, and a function without.
    fn cubin() -> Vec<u8> {
        elf(
            90,
            &[
                (".text.loud", PROGBITS, &code(&[DEVICE, SYSTEM])),
                (".text.quiet", PROGBITS, &code(&[DEVICE, DEVICE])),
                (".text.function", PROGBITS, &code(&[DEVICE])),
                (".nv.constant0.loud", PROGBITS, &[0; 8]),
                (".nv.constant0.quiet", PROGBITS, &[0; 8]),
            ],
        )
    }

    const TEXT: &[u8] = b".version 9.0\n.entry text() { red.sys.add.u32 [%rd1], 1; }\n\0";

    /// An entry: its kind, flags, size once decompressed, and payload.
    type Entry<'a> = (u16, u64, u64, &'a [u8]);

    fn fatbin(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, flags, len, payload) in entries {
            let mut header = [0; 64];
            let stored = payload.len().next_multiple_of(8);
            header[..2].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&64u32.to_le_bytes());
            header[8..16].copy_from_slice(&(stored as u64).to_le_bytes());
            if *flags != 0 {
                header[16..20].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            }
            header[40..48].copy_from_slice(&flags.to_le_bytes());
            header[56..64].copy_from_slice(&len.to_le_bytes());
            body.extend(header);
            body.extend_from_slice(payload);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let header = [0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
        [&header[..], &(body.len() as u64).to_le_bytes(), &body].concat()
    }

    const PTX: u16 = 1;
    const ELF: u16 = 2;
    const LTO: u16 = 8;
    const LZ4: u64 = 0x2000;
    const ZSTD: u64 = 0x8000;

    #[test]
    fn kernels_of_a_cubin_are_told_apart() {
        let found = system_atomics(&cubin(), &[]).unwrap();
        assert!(found.any() && found.of("loud"));
        assert!(!found.of("quiet") && !found.of("function"));
    }

    #[test]
    fn a_function_of_its_own_counts_for_every_kernel() {
        let image = elf(
            90,
            &[
                (".text.function", PROGBITS, &code(&[SYSTEM])),
                (".text.kernel", PROGBITS, &code(&[DEVICE])),
                (".nv.constant0.kernel", PROGBITS, &[0; 8]),
            ],
        );
        assert!(system_atomics(&image, &[]).unwrap().of("kernel"));
    }

    #[test]
    fn code_of_other_architectures_and_machines_is_not_read() {
        for architecture in [52, 61] {
            let image = elf(architecture, &[(".text.kernel", PROGBITS, &code(&[SYSTEM]))]);
            assert_eq!(system_atomics(&image, &[]), Ok(SystemAtomics::default()));
        }
        let mut image = cubin();
        image[0x12] = 62;
        assert_eq!(system_atomics(&image, &[]), Ok(SystemAtomics::default()));
        // Of the older ABI, with the architecture in the lowest byte.
        let mut image = cubin();
        image[7] = 0x33;
        image[0x30..0x34].copy_from_slice(&0x005a_055a_u32.to_le_bytes());
        assert!(system_atomics(&image, &[]).unwrap().of("loud"));
    }

    #[test]
    fn shared_memory_of_a_relocatable_cubin_takes_no_bytes() {
        let image = elf(
            90,
            &[
                (".nv.shared.kernel", SHARED, &[0; 1 << 16]),
                (".text.kernel", PROGBITS, &code(&[SYSTEM])),
                (".nv.constant0.kernel", PROGBITS, &[0; 8]),
            ],
        );
        assert_eq!(super::super::length_of(&image, super::Kind::Elf), Ok(image.len()));
        assert!(system_atomics(&image, &[]).unwrap().of("kernel"));
    }

    #[test]
    fn all_entries_of_a_fatbin_count() {
        let cubin = cubin();
        let block = lz4_flex::block::compress(&cubin);
        let image =
            fatbin(&[(LTO, 0, 0, b"BC\xc0\xde"), (ELF, LZ4, cubin.len() as u64, &block), (PTX, 0, 0, TEXT)]);
        let found = system_atomics(&image, &[]).unwrap();
        assert!(found.of("loud") && found.of("text") && !found.of("quiet"));
    }

    #[test]
    fn of_a_fatbin_what_the_device_runs_counts() {
        let with = |symbol: &str, architecture: u32| {
            let (text, constants) = (format!(".text.{symbol}"), format!(".nv.constant0.{symbol}"));
            let code = code(&[SYSTEM]);
            elf(architecture, &[(text.as_str(), PROGBITS, &code), (constants.as_str(), PROGBITS, &[0; 8])])
        };
        let (old, new, next) = (with("old", 80), with("new", 90), with("next", 100));
        let mut image =
            fatbin(&[(ELF, 0, 0, &old), (ELF, 0, 0, &new), (ELF, 0, 0, &next), (PTX, 0, 0, TEXT)]);
        let mut at = 16;
        for architecture in [80_u32, 90, 100, 90] {
            image[at + 28..at + 32].copy_from_slice(&architecture.to_le_bytes());
            at +=
                64 + usize::try_from(u64::from_le_bytes(image[at + 8..at + 16].try_into().unwrap())).unwrap();
        }
        let found = |architectures: &[u32]| {
            let found = system_atomics(&image, architectures).unwrap();
            ["old", "new", "next", "text"].map(|kernel| found.of(kernel))
        };
        assert_eq!(found(&[90]), [false, true, false, false]);
        assert_eq!(found(&[86]), [true, false, false, false], "of the same major version");
        assert_eq!(found(&[120]), [false, false, false, true], "compiled from PTX");
        assert_eq!(found(&[75]), [false, false, false, true], "cubins are not for older devices");
        assert_eq!(found(&[90, 100]), [false, true, true, false]);
        assert_eq!(found(&[]), [true; 4]);
    }

    #[test]
    fn a_damaged_entry_says_nothing_about_the_others() {
        let cubin = cubin();
        let block = lz4_flex::block::compress(TEXT);
        let good: Entry<'_> = (PTX, LZ4, TEXT.len() as u64, &block);
        let damaged: [Entry<'_>; 5] = [
            (ELF, 0, 0, &cubin[..100]),
            (ELF, LZ4, 1 << 20, &block),
            (ELF, LZ4, TEXT.len() as u64, &block[..block.len() - 8]),
            (ELF, ZSTD, TEXT.len() as u64, &block),
            (ELF, 0, 0, b""),
        ];
        for entry in damaged {
            assert_eq!(system_atomics(&fatbin(&[entry]), &[]), Ok(SystemAtomics::default()));
            assert!(system_atomics(&fatbin(&[entry, good]), &[]).unwrap().of("text"));
        }
        // But a container that ends too early is no container.
        let image = fatbin(&[good]);
        assert!(matches!(system_atomics(&image[..image.len() - 8], &[]), Err(ImageError::Truncated { .. })));
    }

    #[test]
    fn what_is_too_long_to_look_at_counts_for_every_kernel() {
        for announced in [1 << 30, u64::MAX] {
            let found = system_atomics(&fatbin(&[(ELF, ZSTD, announced, b"never looked at")]), &[]).unwrap();
            assert!(found.of("kernel"), "{announced}");
        }
    }

    #[test]
    fn names_are_not_kept_without_end() {
        let mut found = SystemAtomics::default();
        for kernel in 0..=MAX_KERNELS {
            assert!(!found.of("other"));
            found.add(Place::Kernel(kernel.to_string().as_bytes()));
        }
        found.add(Place::Kernel(b"one more"));
        assert_eq!(found, SystemAtomics { kernels: [].into(), everywhere: true });
        assert!(found.of("0") && found.of("other"));
    }

    #[test]
    fn headers_that_lead_nowhere_are_errors() {
        let good = cubin();
        for len in 4..good.len() {
            let _ = system_atomics(&good[..len], &[]).unwrap_err();
        }
        let table = usize::from(u16::from_le_bytes([good[0x28], good[0x29]]));
        let text = table + 2 * 64;
        // Where, how many bytes, and what: the section table, its count and entry size, the names, a section.
        let damage: [(usize, usize, u64); 9] = [
            (0x28, 8, 1 << 40),
            (0x28, 8, u64::MAX),
            (0x3a, 2, 1),
            (0x3c, 2, 0xff00),
            (0x3e, 2, 100),
            (text + 0x18, 8, 1 << 30),
            (text + 0x18, 8, u64::MAX),
            (text + 0x20, 8, u64::MAX),
            (table + 64 + 0x20, 8, 1 << 20),
        ];
        for (at, len, value) in damage {
            let mut image = good.clone();
            image[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            let _ = system_atomics(&image, &[]).unwrap_err();
        }
        // A name that leads nowhere is none.
        let mut image = good;
        image[text..text + 4].copy_from_slice(&[0xff; 4]);
        assert!(!system_atomics(&image, &[]).unwrap().any());
    }

    #[test]
    fn sections_over_each_other_are_not_all_read() {
        let section: (_, _, &[u8]) = (".text.kernel", PROGBITS, &[0; 4096]);
        let mut image = elf(90, &[section; 60]);
        let table = usize::try_from(u64::from_le_bytes(image[0x28..0x30].try_into().unwrap())).unwrap();
        let whole = image.len() as u64;
        for section in image[table..].chunks_exact_mut(64).skip(2) {
            section[0x18..0x20].fill(0);
            section[0x20..0x28].copy_from_slice(&whole.to_le_bytes());
        }
        let error = system_atomics(&image, &[]).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { what: "bytes of all elf sections", .. }), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in 0usize..4) {
            let magics: [&[u8]; 4] = [
                b"\x7fELF\x02\x01\x01\x41",
                &[0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0],
                b".entry k{atom.sys",
                b"",
            ];
            let _ = system_atomics(&[magics[magic], &bytes].concat(), &[]);
        }

        #[test]
        fn damaged_images_are_survived(
            in_fatbin in any::<bool>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let cubin = cubin();
            let block = lz4_flex::block::compress(&cubin);
            let mut image = if in_fatbin {
                fatbin(&[(PTX, 0, 0, TEXT), (ELF, LZ4, cubin.len() as u64, &block), (ELF, ZSTD, 100, &block)])
            } else {
                cubin
            };
            for (at, value) in damage {
                let at = at.index(image.len());
                image[at] = value;
            }
            let _ = system_atomics(&image, &[]);
            let _ = system_atomics(&image[..cut.index(image.len())], &[]);
        }

        #[test]
        fn any_text_is_survived(text in "[ \n./*\"{};:a-z$]{0,80}(atom|red)?[.](sys)?[ -~]{0,40}") {
            let _ = system_atomics(format!(".entry k{{{text}").as_bytes(), &[]);
        }
    }
}
