//! Images as nvcc 13.0 makes them, wrappers around them as the runtime passes them, and damaged ones.

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::{ProptestConfig, any, prop, proptest};
    use pxos_cudart::image::{
        Compression, EntryKind, Image, ImageError, Kind, Param, SystemAtomics, Wrapper, entries, inspect,
        kernel_params, kind_of, length_of, system_atomics,
    };

    fn data(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)).unwrap()
    }

    const CUBINS: [&str; 3] = ["kernels.sm_75.cubin", "kernels.sm_90.cubin", "kernels.sm_120.cubin"];
    const FATBINS: [&str; 3] = ["kernels.none.fatbin", "kernels.speed.fatbin", "kernels.size.fatbin"];

    /// Bytes that do not end where the image does, as in a data section.
    fn followed_by_more(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.extend_from_slice(&[0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7]);
        bytes
    }

    fn inspect_bytes(bytes: &[u8]) -> Result<Image, ImageError> {
        // SAFETY: the slice is alive during the call and, in these tests, holds a complete image or a damaged one,
        // which the function must survive.
        unsafe { inspect(bytes.as_ptr().cast()) }
    }

    #[test]
    fn files_of_nvcc_are_as_long_as_they_are() {
        for (names, kind) in [(CUBINS, Kind::Elf), (FATBINS, Kind::Fatbin)] {
            for name in names {
                let bytes = data(name);
                let len = bytes.len();
                assert_eq!(kind_of(&bytes), Ok(kind), "{name}");
                assert_eq!(length_of(&bytes, kind), Ok(len), "{name}");
                let longer = followed_by_more(bytes);
                assert_eq!(length_of(&longer, kind), Ok(len), "{name}");
                let image = inspect_bytes(&longer).unwrap();
                assert_eq!((image.kind, image.span.len, image.wrapper), (kind, len, None), "{name}");
                assert_eq!(image.span.pointer, longer.as_ptr());
            }
        }
    }

    #[test]
    fn a_cut_image_is_truncated_wherever_it_is_cut() {
        for name in ["kernels.sm_90.cubin", "kernels.size.fatbin"] {
            let bytes = data(name);
            let kind = kind_of(&bytes).unwrap();
            for len in (4..bytes.len()).step_by(97) {
                let error = length_of(&bytes[..len], kind).unwrap_err();
                assert!(matches!(error, ImageError::Truncated { .. }), "{name} cut to {len}: {error}");
            }
        }
    }

    #[test]
    fn ptx_ends_with_its_nul() {
        let text = b".version 9.0\n.target sm_75\n\0rest";
        assert_eq!(length_of(text, Kind::Ptx), Ok(28));
        let image = inspect_bytes(text).unwrap();
        assert_eq!((image.kind, image.span.len), (Kind::Ptx, 28));
        assert!(matches!(length_of(b"// no end", Kind::Ptx), Err(ImageError::Truncated { .. })));
    }

    #[test]
    fn what_is_no_image_is_named() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { inspect(std::ptr::null()) }, Err(ImageError::Null));
        assert_eq!(inspect_bytes(b"!<arch>\n................"), Err(ImageError::Archive));
        assert_eq!(inspect_bytes(&[1, 0x5a, 0xe5, 0x1e, 0, 0, 0, 0]), Err(ImageError::OldFatbin));
        assert_eq!(inspect_bytes(&[0, 1, 2, 3, 4]), Err(ImageError::UnknownMagic([0, 1, 2, 3])));
        assert_eq!(kind_of(&[0xb1, 0x43, 0x62, 0x46, 0, 0]), Err(ImageError::UnexpectedWrapper));
        assert_eq!(ImageError::Null.result(), 1);
        assert_eq!(ImageError::Archive.result(), 200);
    }

    #[repr(C)]
    struct RawWrapper {
        magic: u32,
        version: u32,
        data: *const u8,
        extra: *const *const u8,
    }

    fn inspect_wrapper(version: u32, image: &[u8], extra: &[*const u8]) -> Result<Image, ImageError> {
        let extra = if extra.is_empty() { std::ptr::null() } else { extra.as_ptr() };
        let wrapper = RawWrapper { magic: 0x4662_43b1, version, data: image.as_ptr(), extra };
        // SAFETY: the wrapper and what it points at are alive during the call.
        unsafe { inspect((&raw const wrapper).cast::<c_void>()) }
    }

    #[test]
    fn wrappers_lead_to_their_image() {
        let fatbin = data("kernels.size.fatbin");
        let image = inspect_wrapper(1, &fatbin, &[]).unwrap();
        assert_eq!((image.kind, image.span.len), (Kind::Fatbin, fatbin.len()));
        assert_eq!(image.span.pointer, fatbin.as_ptr());
        assert_eq!(image.wrapper, Some(Wrapper { version: 1, unlinked: Vec::new() }));

        let (first, second) = (data("kernels.none.fatbin"), data("kernels.speed.fatbin"));
        let image =
            inspect_wrapper(2, &fatbin, &[first.as_ptr(), second.as_ptr(), std::ptr::null()]).unwrap();
        let wrapper = image.wrapper.unwrap();
        let lens: Vec<usize> = wrapper.unlinked.iter().map(|span| span.len).collect();
        assert_eq!((wrapper.version, lens), (2, vec![first.len(), second.len()]));
    }

    #[test]
    fn odd_wrappers_are_refused() {
        let fatbin = data("kernels.size.fatbin");
        assert_eq!(inspect_wrapper(3, &fatbin, &[]), Err(ImageError::WrapperVersion(3)));
        let inner =
            RawWrapper { magic: 0x4662_43b1, version: 1, data: fatbin.as_ptr(), extra: std::ptr::null() };
        // SAFETY: a plain structure seen as its bytes.
        let inner =
            unsafe { std::slice::from_raw_parts((&raw const inner).cast::<u8>(), size_of::<RawWrapper>()) };
        assert_eq!(inspect_wrapper(1, inner, &[]), Err(ImageError::UnexpectedWrapper));
        let wild = RawWrapper {
            magic: 0x4662_43b1,
            version: 1,
            data: std::ptr::without_provenance(0x10),
            extra: std::ptr::null(),
        };
        // SAFETY: the wrapper is alive; that its pointer is wild is what must be found out.
        let result = unsafe { inspect((&raw const wild).cast::<c_void>()) };
        assert_eq!(result, Err(ImageError::Unreadable { address: 0x10, len: 4 }));
    }

    #[test]
    fn a_length_that_leads_out_of_memory_is_no_fault() {
        let mut fatbin = data("kernels.size.fatbin");
        fatbin[8..16].copy_from_slice(&(1u64 << 30).to_le_bytes());
        assert!(matches!(inspect_bytes(&fatbin), Err(ImageError::Unreadable { .. })));
        fatbin[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(inspect_bytes(&fatbin).is_err());
    }

    #[test]
    fn entries_decompress_to_the_image_they_claim() {
        let none = (Compression::None, Compression::None);
        // For speed nvcc leaves cubins as they are.
        let lz4 = (Compression::None, Compression::Lz4);
        let zstd = (Compression::Zstd, Compression::Zstd);
        for (name, (elf, ptx)) in FATBINS.into_iter().zip([none, lz4, zstd]) {
            let bytes = data(name);
            let found: Vec<_> = entries(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
            let [first, second] = found.try_into().unwrap();
            assert_eq!(
                (first.kind, first.architecture, first.compression),
                (EntryKind::Elf, 90, elf),
                "{name}"
            );
            assert_eq!(
                (second.kind, second.architecture, second.compression),
                (EntryKind::Ptx, 75, ptx),
                "{name}"
            );
            assert_eq!(second.version, (9, 0), "{name}");
            for entry in [first, second] {
                let len = usize::try_from(entry.decompressed_len).unwrap();
                let image = entry.image(entry.decompressed_len).unwrap();
                assert_eq!(image.len(), len, "{name}");
                let kind = kind_of(&image).unwrap();
                let expected = if entry.kind == EntryKind::Elf { Kind::Elf } else { Kind::Ptx };
                assert_eq!(kind, expected, "{name}");
                let length = length_of(&image, kind).unwrap();
                assert!(length <= len && length + 8 > len, "{name}: {length} of {len}");
            }
        }
    }

    #[test]
    fn kernel_parameters_are_those_of_the_source() {
        // The place of the over-aligned structure depends on where the constant bank begins.
        for (name, aligned) in CUBINS.into_iter().zip([0x20, 0x70, 0x80]) {
            let kernels = kernel_params(&data(name)).unwrap();
            let found: Vec<(&str, Vec<(u16, u16)>)> = kernels
                .iter()
                .map(|kernel| {
                    let params = kernel.params.iter().map(|Param { offset, size }| (*offset, *size));
                    (kernel.kernel.as_str(), params.collect())
                })
                .collect();
            let expected = [
                ("aligned", vec![(0, 8), (aligned, 128)]),
                ("large", vec![(0, 8), (8, 5000), (5008, 2)]),
                ("none", vec![]),
                ("saxpy", vec![(0, 4), (8, 8), (16, 8), (24, 4)]),
                ("small", vec![(0, 1), (2, 2), (4, 1), (8, 8)]),
            ];
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn kernels_without_system_atomics_have_none() {
        for name in CUBINS.into_iter().chain(FATBINS) {
            assert_eq!(system_atomics(&data(name), &[]), Ok(SystemAtomics::default()), "{name}");
        }
    }

    #[test]
    fn system_atomics_of_a_program_are_those_of_its_source() {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/samples/atomicsAll");
        let Ok(program) = fs::read(&program) else {
            println!("skipped: {} is not there; `make programs` builds it", program.display());
            return;
        };
        // The fatbins of the program and of the runtime that is linked into it; they begin at multiples of eight.
        let fatbins = (0..program.len()).step_by(8).map(|at| &program[at..]).filter_map(|bytes| {
            let len = length_of(bytes, Kind::Fatbin).ok()?;
            Some(&bytes[..len])
        });
        let found: Vec<_> =
            fatbins.map(|bytes| system_atomics(bytes, &[]).unwrap()).filter(SystemAtomics::any).collect();
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert!(found.of("_Z9in_globalv"));
        // Atomics of system scope on shared memory, and none.
        assert!(!found.of("_Z9in_sharedP7Results") && !found.of("_Z12start_globalv"));
    }

    /// What every parser must do with bytes of a peer: come back, and stay inside.
    fn survives(bytes: &[u8]) {
        for kind in [Kind::Fatbin, Kind::Elf, Kind::Ptx] {
            if let Ok(len) = length_of(bytes, kind) {
                assert!(len <= bytes.len());
            }
        }
        if let Ok(entries) = entries(bytes) {
            for entry in entries.flatten() {
                assert!(entry.payload.len() <= bytes.len());
            }
        }
        if let Ok(kernels) = kernel_params(bytes) {
            assert!(kernels.len() <= bytes.len());
        }
        let _ = system_atomics(bytes, &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0usize..4) {
            let magics: [&[u8]; 4] = [b"", b"\x7fELF\x02\x01", &[0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0], b".version"];
            survives(&[magics[magic], &bytes].concat());
        }

        #[test]
        fn damaged_images_are_survived(
            file in 0usize..4,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            in_headers in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let names = ["kernels.sm_90.cubin", "kernels.sm_120.cubin", "kernels.size.fatbin", "kernels.speed.fatbin"];
            let mut bytes = data(names[file]);
            for (at, value) in damage {
                let reach = if in_headers { 128 } else { bytes.len() };
                bytes[at.index(reach)] = value;
            }
            survives(&bytes);
            // In memory a damaged header may lead anywhere, and must not fault.
            let _ = inspect_bytes(&bytes);
            let len = cut.index(bytes.len());
            survives(&bytes[..len]);
        }
    }
}
