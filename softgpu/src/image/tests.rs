//! Images as nvcc 13.0 writes them (`tests/fatbin`, of `scale.cu` there), and images broken in every place.

use proptest::prelude::*;

use super::*;

const NONE: &[u8] = include_bytes!("../../tests/fatbin/scale-none.fatbin");
const SPEED: &[u8] = include_bytes!("../../tests/fatbin/scale-speed.fatbin");
const BALANCE: &[u8] = include_bytes!("../../tests/fatbin/scale-balance.fatbin");
const SIZE: &[u8] = include_bytes!("../../tests/fatbin/scale-size.fatbin");
const ONLY_90A: &[u8] = include_bytes!("../../tests/fatbin/scale-90a.fatbin");
const MACHINE_CODE: &[u8] = include_bytes!("../../tests/fatbin/machine-code-only.fatbin");

/// Offset of the first entry of the given kind.
fn entry_at(image: &[u8], kind: u16) -> usize {
    let r = Bytes(image);
    let mut at = 16;
    while r.u16(at).unwrap() != kind {
        at += r.u32(at + 4).unwrap() as usize + usize::try_from(r.u64(at + 8).unwrap()).unwrap();
    }
    at
}

#[test]
fn every_compression_gives_the_same_text() {
    for image in [NONE, SPEED, BALANCE, SIZE] {
        for (capability, sm) in [(75, 75), (80, 80), (86, 80), (90, 90), (100, 100), (121, 100)] {
            let ptx = ptx_of(image, capability).unwrap();
            assert_eq!(ptx.len(), 1);
            assert_eq!(ptx[0].target_sm, sm);
            assert!(ptx[0].text.contains(&format!(".target sm_{sm}")));
            assert!(ptx[0].text.contains(".entry scale("));
            assert!(ptx[0].text.trim_end().ends_with('}'));
            assert_eq!(ptx[0].text, ptx_of(NONE, capability).unwrap()[0].text);
        }
    }
}

#[test]
fn containers_back_to_back_give_one_each() {
    let both = [SPEED, MACHINE_CODE, BALANCE].concat();
    let ptx = ptx_of(&both, 90).unwrap();
    assert_eq!(ptx.len(), 2);
    assert_eq!(ptx[0], ptx[1]);
    assert_eq!(fatbin_len(&both), Some(SPEED.len() as u64));
    assert_eq!(fatbin_len(&both[..15]), None);
}

#[test]
fn ptx_for_one_architecture_runs_there_only() {
    assert!(ptx_of(ONLY_90A, 90).unwrap()[0].text.contains(".target sm_90a"));
    let message = ptx_of(ONLY_90A, 100).unwrap_err().to_string();
    assert_eq!(
        message,
        "image holds PTX for sm_90a only, which compute capability 100 cannot run; \
         build with -gencode arch=compute_100,code=compute_100"
    );
    assert!(
        matches!(ptx_of(BALANCE, 70), Err(ImageError::NotForDevice { targets, .. }) if targets.len() == 4)
    );
}

#[test]
fn machine_code_alone_is_a_clear_error() {
    let want = "image holds machine code for sm_90 but no PTX; \
                build with -gencode arch=compute_90,code=compute_90";
    assert_eq!(ptx_of(MACHINE_CODE, 90).unwrap_err().to_string(), want);
    // The same for the cubin by itself, as nvcc --cubin writes it.
    let at = entry_at(MACHINE_CODE, KIND_ELF);
    let header = Bytes(MACHINE_CODE).u32(at + 4).unwrap() as usize;
    assert_eq!(ptx_of(&MACHINE_CODE[at + header..], 90).unwrap_err().to_string(), want);
}

#[test]
fn bare_text() {
    let text = "//\n.version 9.0\n.target sm_80, debug\n.address_size 64\n";
    let ptx = ptx_of(format!("{text}\0garbage").as_bytes(), 90).unwrap();
    assert_eq!(ptx, [PtxImage { text: text.to_owned(), target_sm: 80, ident: String::new() }]);
    assert!(matches!(ptx_of(text.as_bytes(), 75), Err(ImageError::NotForDevice { .. })));
    assert!(matches!(ptx_of(b"", 90), Err(ImageError::Unknown { .. })));
    assert!(matches!(ptx_of(b"hello", 90), Err(ImageError::Unknown { .. })));
    assert!(matches!(ptx_of(b"\xff\xfe\xfd\xfc.version", 90), Err(ImageError::Unknown { .. })));
    assert!(matches!(ptx_of(b"!<arch>\nfoo", 90), Err(ImageError::Unsupported { kind: "an archive" })));
    assert!(matches!(ptx_of(&WRAPPER_MAGIC.to_le_bytes(), 90), Err(ImageError::Unsupported { .. })));
}

#[test]
fn targets() {
    let of = |s: &str| Target::of(&format!(".version 8.0\n.target {s}\n"));
    assert_eq!(of("sm_90a"), Target { sm: 90, suffix: 'a' });
    assert_eq!(of("sm_100f").name(), "sm_100f");
    assert!(of("sm_100f").runs_on(103) && !of("sm_100f").runs_on(120));
    assert_eq!(of("sm_52, texmode_independent").name(), "sm_52");
    assert_eq!(Target::of("// no target").sm, 0);
}

#[test]
fn lengths_are_checked_before_they_are_believed() {
    for cut in 0..BALANCE.len() {
        assert!(ptx_of(&BALANCE[..cut], 90).is_err(), "cut at {cut}");
    }
    let at = entry_at(BALANCE, KIND_PTX);
    let patched = |image: &[u8], offset: usize, bytes: &[u8]| {
        let mut copy = image.to_vec();
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        ptx_of(&copy, 75)
    };
    let huge = u64::MAX.to_le_bytes();
    assert!(matches!(patched(BALANCE, 8, &huge), Err(ImageError::Unsupported { .. })));
    assert!(matches!(
        patched(BALANCE, 6, &[0; 2]),
        Err(ImageError::Truncated { .. } | ImageError::Unsupported { .. })
    ));
    let large = (1u64 << 40).to_le_bytes();
    assert!(matches!(
        patched(BALANCE, 8, &large),
        Err(ImageError::Truncated { part: "a fatbin container", .. })
    ));
    assert!(matches!(patched(BALANCE, at + 8, &huge), Err(ImageError::Truncated { part: "an entry", .. })));
    assert!(matches!(
        patched(BALANCE, at + 4, &[0; 4]),
        Err(ImageError::Truncated { part: "an entry's header", .. })
    ));
    assert!(matches!(patched(BALANCE, at + 4, &[0xff; 4]), Err(ImageError::Truncated { .. })));
    assert!(matches!(patched(BALANCE, at + 56, &huge), Err(ImageError::TooLarge { bytes: u64::MAX })));
    for image in [BALANCE, SPEED] {
        for size in [0u64, 100, 667, 669, 100_000, MAX_PTX] {
            let result = patched(image, at + 56, &size.to_le_bytes());
            assert!(matches!(result, Err(ImageError::Damaged { entry: 0, .. })), "{size}: {result:?}");
        }
        let header = Bytes(image).u32(at + 4).unwrap() as usize;
        let result = patched(image, at + header, &[0xff; 40]);
        assert!(matches!(result, Err(ImageError::Damaged { .. })), "{result:?}");
    }
    // A compressed size greater than what is stored, and an identifier outside the header, do no harm.
    assert!(patched(BALANCE, at + 16, &[0xff; 4]).is_ok());
    assert_eq!(patched(BALANCE, at + 32, &[0xff; 8]).unwrap()[0].ident, "");
}

proptest! {
    #[test]
    fn no_bytes_panic(
        edits in proptest::collection::vec((0usize..BALANCE.len(), any::<u8>()), 1..8),
        which in 0usize..4,
    ) {
        let mut image = [NONE, SPEED, BALANCE, SIZE][which].to_vec();
        for (at, byte) in edits {
            // Mostly in the headers, where it matters.
            let at = if at % 2 == 0 { at % 200 } else { at };
            if let Some(b) = image.get_mut(at) {
                *b = byte;
            }
        }
        let _ = ptx_of(&image, 90);
    }

    #[test]
    fn no_noise_panics(noise: Vec<u8>) {
        let _ = ptx_of(&noise, 90);
        let fatbin = [&FATBIN_MAGIC.to_le_bytes()[..], &[1, 0, 16, 0], &(noise.len() as u64).to_le_bytes(), &noise].concat();
        let _ = ptx_of(&fatbin, 90);
    }
}
