//! The library against references: published vectors, a float64 product, sorted arrays, filters written plainly.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "an integration test; the numbers are small"
)]

use pxos_primitives::{CpuArg, CpuError, CpuOptions, FaultKind, Kernel, Options, Program, compile};

fn compiled(text: &str) -> Program {
    compile(text, &Options::default()).unwrap_or_else(|found| {
        panic!("{}", found.iter().map(|d| d.render("test", text)).collect::<String>())
    })
}

fn whole(params: &str, statement: &str) -> Program {
    let params: String = params.split(", ").map(|p| format!("GPU_PARAM {p}\n")).collect();
    compiled(&format!("GPU_KERNEL k\n{params}GPU_THREAD_CODE:\n    {statement}\nGPU_END\n"))
}

fn run(kernel: &Kernel, args: &mut [CpuArg<'_>]) -> Result<(), CpuError> {
    kernel.run_on_cpu(args, &CpuOptions { threads: 2, ..CpuOptions::default() }).map(|_| ())
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn to_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Numbers that look random and are the same every time.
fn noise(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

#[test]
fn a_kernels_name_is_no_part_of_the_librarys_own_texts() {
    for name in ["k".repeat(64), "whole".to_owned(), "exp".to_owned(), "table".to_owned(), "k".repeat(65)] {
        let text = format!("GPU_KERNEL {name}\nGPU_PARAM a float[]\nGPU_THREAD_CODE:\n    SORT a\nGPU_END\n");
        match compile(&text, &Options::default()) {
            Ok(program) => {
                let mut values = floats([3.0, 1.0, 2.0]);
                run(&program.kernels()[0], &mut [CpuArg::Array(&mut values)]).unwrap();
                assert_eq!(to_floats(&values), [1.0, 2.0, 3.0]);
                assert!(
                    program.kernels()[0]
                        .entries()
                        .iter()
                        .all(|entry| entry.starts_with(&format!("px_{name}")))
                );
            }
            Err(found) => assert_eq!((name.len(), found[0].code), (65, "long-name")),
        }
    }
}

#[test]
fn aes_blocks_are_those_of_fips_197() {
    let program = whole("data byte[], key byte[], out byte[]", "AES_BLOCK data key → out");
    let plain = hex("00112233445566778899aabbccddeeff");
    for (length, expected) in [
        (16, "69c4e0d86a7b0430d8cdb78070b4c55a"),
        (24, "dda97ca4864cdfe06eaf70a0ec0d7191"),
        (32, "8ea2b7ca516745bfeafc49904b496089"),
    ] {
        let mut data = [plain.clone(), plain.clone()].concat();
        let mut key: Vec<u8> = (0..length).collect();
        let mut out = vec![0; 32];
        run(
            &program.kernels()[0],
            &mut [CpuArg::Array(&mut data), CpuArg::Array(&mut key), CpuArg::Array(&mut out)],
        )
        .unwrap();
        assert_eq!(out, [hex(expected), hex(expected)].concat());
    }
    let error = run(
        &program.kernels()[0],
        &mut [CpuArg::Array(&mut [0; 16]), CpuArg::Array(&mut [0; 17]), CpuArg::Array(&mut [0; 16])],
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "kernel `k`: a key has 16, 24 or 32 bytes, not 17");
}

#[test]
fn aes_counter_mode_is_that_of_sp_800_38a() {
    let program =
        whole("data byte[], key byte[], counter byte[], out byte[]", "AES_CTR data key counter → out");
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    for (key, expected) in [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff\
             5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5\
             2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
        ),
    ] {
        // A last block that is not full uses part of its key stream.
        for length in [64, 61] {
            let mut data = plain[..length].to_vec();
            let mut out = vec![0; 64];
            let (mut key, mut counter) = (hex(key), hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
            let kernel = &program.kernels()[0];
            run(
                kernel,
                &mut [
                    CpuArg::Array(&mut data),
                    CpuArg::Array(&mut key),
                    CpuArg::Array(&mut counter),
                    CpuArg::Array(&mut out),
                ],
            )
            .unwrap();
            assert_eq!(out[..length], hex(expected)[..length]);
            assert!(out[length..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn the_counter_carries_through_all_its_words() {
    let program =
        whole("data byte[], key byte[], counter byte[], out byte[]", "AES_CTR data key counter → out");
    let ecb = whole("data byte[], key byte[], out byte[]", "AES_BLOCK data key → out");
    let counter = hex("00000000ffffffffffffffffffffffff");
    let mut stream = vec![0; 32];
    let mut key = vec![7; 16];
    run(
        &program.kernels()[0],
        &mut [
            CpuArg::Array(&mut [0; 32]),
            CpuArg::Array(&mut key),
            CpuArg::Array(&mut counter.clone()),
            CpuArg::Array(&mut stream),
        ],
    )
    .unwrap();
    let mut blocks = [counter, hex("00000001000000000000000000000000")].concat();
    let mut expected = vec![0; 32];
    run(
        &ecb.kernels()[0],
        &mut [CpuArg::Array(&mut blocks), CpuArg::Array(&mut key), CpuArg::Array(&mut expected)],
    )
    .unwrap();
    assert_eq!(stream, expected);
}

#[test]
fn digests_are_those_of_fips_180_4() {
    for (message, expected) in [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
        ),
    ] {
        let size = message.len().max(1);
        let program = whole("data byte[], out byte[]", &format!("SHA256 data {size} → out"));
        // The same message three times, and none of it where the message is empty.
        let mut data = message.repeat(3).into_bytes();
        let count = if message.is_empty() { 1 } else { 3 };
        let mut out = vec![0; 96];
        run(&program.kernels()[0], &mut [CpuArg::Array(&mut data), CpuArg::Array(&mut out)]).unwrap();
        for digest in out.chunks(32).take(count) {
            assert_eq!(digest, hex(expected), "{message}");
        }
    }
}

#[test]
fn products_agree_with_float64() {
    let program = whole("a float[], b float[], c float[], n int", "PARALLEL_MATMUL a b → c");
    let explicit = whole("a float[], b float[], c float[], n int", "PARALLEL_MATMUL a b → c DIMS 5 n 3");
    for (kernel, m, n, k) in [
        (&program.kernels()[0], 1, 1, 1),
        (&program.kernels()[0], 130, 37, 19),
        (&program.kernels()[0], 64, 200, 9),
        (&explicit.kernels()[0], 5, 7, 3),
    ] {
        let mut next = noise(m as u64);
        let mut value = || (next() % 2001) as f32 / 1000.0 - 1.0;
        let a: Vec<f32> = (0..m * k).map(|_| value()).collect();
        let b: Vec<f32> = (0..k * n).map(|_| value()).collect();
        let (mut x, mut y, mut c) =
            (floats(a.iter().copied()), floats(b.iter().copied()), vec![0; m * n * 4]);
        run(
            kernel,
            &mut [
                CpuArg::Array(&mut x),
                CpuArg::Array(&mut y),
                CpuArg::Array(&mut c),
                CpuArg::Scalar(n as u64),
            ],
        )
        .unwrap();
        for (at, got) in to_floats(&c).into_iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let exact: f64 = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column])).sum();
            assert!((f64::from(got) - exact).abs() <= 1e-6 * k as f64, "{m} {n} {k} at {at}: {got} {exact}");
        }
    }
    let error = run(
        &program.kernels()[0],
        &mut [
            CpuArg::Array(&mut [0; 24]),
            CpuArg::Array(&mut [0; 24]),
            CpuArg::Array(&mut [0; 20]),
            CpuArg::Scalar(0),
        ],
    )
    .unwrap_err();
    assert!(error.to_string().contains("no matrix shapes have 6, 6 and 5 elements"), "{error}");
}

#[test]
fn sorting_works_for_every_length() {
    for (ty, order) in [("int", 0), ("uint", 1), ("float", 2)] {
        let program = whole(&format!("data {ty}[]"), "SORT data");
        for length in [0usize, 1, 2, 3, 1000, 1024, 1025, 2048, 5000, 9000] {
            let mut next = noise(length as u64 + order);
            let values: Vec<u32> = (0..length)
                .map(|i| match (order, i % 97) {
                    (2, 0) => f32::NAN.to_bits(),
                    (2, 1) => (-0.0f32).to_bits(),
                    (2, 2) => f32::NEG_INFINITY.to_bits(),
                    (2, _) => ((next() % 4001) as f32 - 2000.0).to_bits(),
                    (_, 5) => u32::MAX,
                    (_, 6) => i32::MAX as u32,
                    _ => next().wrapping_mul(3),
                })
                .collect();
            let mut data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            run(&program.kernels()[0], &mut [CpuArg::Array(&mut data)]).unwrap();
            let mut expected = values;
            match order {
                0 => expected.sort_unstable_by_key(|v| v.cast_signed()),
                1 => expected.sort_unstable(),
                _ => expected.sort_unstable_by(|a, b| f32::from_bits(*a).total_cmp(&f32::from_bits(*b))),
            }
            let got: Vec<u32> = data.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
            assert!(got == expected, "{ty} {length}");
        }
    }
}

#[test]
fn the_blur_is_the_binomial_window_with_repeated_borders() {
    for (size, weights) in [("3x3", vec![1, 2, 1]), ("5x5", vec![1, 4, 6, 4, 1])] {
        let program = compiled(&format!(
            "GPU_KERNEL gaussian_blur\nGPU_PARAM input pixel[]\nGPU_PARAM output pixel[]\nGPU_PARAM width int\n\
             GPU_PARAM height int\nGPU_THREAD_CODE:\n    THREAD_ID → tid\n    CALCULATE x = tid % width\n    \
             CALCULATE y = tid / width\n    APPLY_KERNEL {size} input x y → blurred\n    STORE blurred → output[tid]\nGPU_END\n"
        ));
        for (width, height) in [(23i32, 11i32), (3, 2), (1, 1), (300, 7)] {
            let mut next = noise(width as u64);
            let pixels: Vec<[u8; 4]> =
                (0..width * height).map(|_| next().wrapping_mul(77).to_le_bytes()).collect();
            let mut input: Vec<u8> = pixels.concat();
            let mut output = vec![0; input.len()];
            run(
                &program.kernels()[0],
                &mut [
                    CpuArg::Array(&mut input),
                    CpuArg::Array(&mut output),
                    CpuArg::Scalar(width as u64),
                    CpuArg::Scalar(height as u64),
                ],
            )
            .unwrap();
            let reach = weights.len() as i32 / 2;
            let total: u32 = weights.iter().sum::<u32>().pow(2);
            for y in 0..height {
                for x in 0..width {
                    for c in 0..4 {
                        let mut sum = 0;
                        for (dy, wy) in (-reach..).zip(&weights) {
                            for (dx, wx) in (-reach..).zip(&weights) {
                                let at = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1);
                                sum += wx * wy * u32::from(pixels[at as usize][c]);
                            }
                        }
                        let expected = (sum + total / 2) / total;
                        let got = output[(y * width + x) as usize * 4 + c];
                        assert_eq!(u32::from(got), expected, "{size} {width}x{height} at {x},{y}.{c}");
                    }
                }
            }
        }
        // An image that is larger than its array is refused where it would be read.
        let error = run(
            &program.kernels()[0],
            &mut [
                CpuArg::Array(&mut [0; 40]),
                CpuArg::Array(&mut [0; 40]),
                CpuArg::Scalar(4),
                CpuArg::Scalar(3),
            ],
        )
        .unwrap_err();
        let CpuError::Fault(fault) = error else { panic!("{error}") };
        assert_eq!((fault.kind, fault.line), (FaultKind::Require, 10));
    }
}

#[test]
fn colours_are_corrected_as_documented() {
    let program = compiled(
        "GPU_KERNEL color_correct\nGPU_PARAM frame pixel[]\nGPU_PARAM contrast float\nGPU_THREAD_CODE:\n    THREAD_ID → tid\n    \
         LOAD frame[tid] → pixel\n    COLOR_CORRECT pixel 0.1 contrast 0.5 → corrected\n    STORE corrected → frame[tid]\nGPU_END\n",
    );
    let mut next = noise(3);
    let pixels: Vec<[u8; 4]> = (0..777).map(|_| next().wrapping_mul(77).to_le_bytes()).collect();
    let mut frame = pixels.concat();
    run(&program.kernels()[0], &mut [CpuArg::Array(&mut frame), CpuArg::from_float(1.3)]).unwrap();
    for (before, after) in pixels.iter().zip(frame.chunks(4)) {
        let [r, g, b] = [0, 1, 2].map(|c| f64::from(before[c]));
        let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        for (c, value) in [r, g, b].into_iter().enumerate() {
            let exact = ((luma + (value - luma) * 0.5) - 127.5) * 1.3 + 127.5 + 0.1 * 255.0;
            assert!((exact.clamp(0.0, 255.0) - f64::from(after[c])).abs() <= 0.501, "{before:?} {after:?}");
        }
        assert_eq!(before[3], after[3]);
    }
}

#[test]
fn transcendental_functions_are_within_two_units() {
    let ulp = |exact: f64| {
        let float = (exact as f32).abs().max(f32::MIN_POSITIVE);
        f64::from(f32::from_bits(float.to_bits() + 1)) - f64::from(float)
    };
    for (word, function, low, high, allowed) in [
        ("EXP", f64::exp as fn(f64) -> f64, -87.0f32, 88.0, 2.0),
        ("LOG", f64::ln, 1e-30, 1e30, 2.0),
        ("SIN", f64::sin, -100.0, 100.0, 0.0),
        ("COS", f64::cos, -100.0, 100.0, 0.0),
        ("TANH", f64::tanh, -12.0, 12.0, 4.0),
    ] {
        let program = compiled(&format!(
            "GPU_KERNEL f\nGPU_PARAM v float[]\nGPU_THREAD_CODE:\n    PARALLEL FOR v:\n        {word} v → v\nGPU_END\n"
        ));
        let mut next = noise(9);
        let inputs: Vec<f32> = (0..20_000)
            .map(|_| {
                let part = next() as f32 / 2_147_483_648.0;
                if word == "LOG" {
                    (f64::from(low) * 1e60f64.powf(f64::from(part))) as f32
                } else {
                    low + (high - low) * part
                }
            })
            .collect();
        let mut data = floats(inputs.iter().copied());
        run(&program.kernels()[0], &mut [CpuArg::Array(&mut data)]).unwrap();
        for (x, got) in inputs.iter().zip(to_floats(&data)) {
            let exact = function(f64::from(*x));
            // Near a zero of sin and cos, what counts is the absolute error.
            let bound = if allowed == 0.0 { 1.5e-7 } else { allowed * ulp(exact) };
            assert!((f64::from(got) - exact).abs() <= bound, "{word}({x}) = {got}, exactly {exact}");
        }
    }
    let special = compiled(
        "GPU_KERNEL f\nGPU_PARAM v float[]\nGPU_PARAM w float[]\nGPU_THREAD_CODE:\n    THREAD_ID → t\n    EXP (v[t]) → e\n    \
         LOG (w[t]) → l\n    STORE e → v[t]\n    STORE l → w[t]\nGPU_END\n",
    );
    let mut v = floats([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, 1000.0]);
    let mut w = floats([0.0, -1.0, f32::INFINITY, 1.0, 1e-40]);
    run(&special.kernels()[0], &mut [CpuArg::Array(&mut v), CpuArg::Array(&mut w)]).unwrap();
    let (v, w) = (to_floats(&v), to_floats(&w));
    assert_eq!((v[0], v[1], v[3], v[4]), (f32::INFINITY, 0.0, 1.0, f32::INFINITY));
    assert!(v[2].is_nan() && w[1].is_nan());
    assert_eq!((w[0], w[2], w[3]), (f32::NEG_INFINITY, f32::INFINITY, 0.0));
    assert!((w[4] - f64::from(1e-40f32).ln() as f32).abs() < 1e-4, "{}", w[4]);
}

/// Scalars as they are passed.
trait Scalars {
    fn from_float(value: f32) -> Self;
}

impl Scalars for CpuArg<'_> {
    fn from_float(value: f32) -> Self {
        CpuArg::Scalar(u64::from(value.to_bits()))
    }
}
