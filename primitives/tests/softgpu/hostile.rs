//! Programs that mean harm to what runs them: names that are words of PTX, indices that overflow, accesses that are checked
//! together.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]

use crate::common::{Value, compiled, soft};
use crate::differential::on_cpu;
use pxos_primitives::{Element, Fault, FaultKind, Options, compile};

fn floats(count: usize) -> Value {
    let bytes = (0..count).flat_map(|index| (index as f32).to_le_bytes()).collect();
    Value::Array(Element::Float, bytes)
}

#[test]
fn names_that_are_words_of_ptx_are_names_like_others() {
    let words = [
        "entry",
        "func",
        "visible",
        "extern",
        "param",
        "reg",
        "global",
        "shared",
        "local",
        "ret",
        "bra",
        "exit",
        "trap",
        "ld",
        "st",
        "mov",
        "setp",
        "version",
        "target",
        "maxntid",
        "tid",
        "ctaid",
        "ntid",
        "laneid",
        "WARP_SZ",
        "pred",
        "b32",
        "f32",
        "r1",
        "rd1",
        "p1",
        "px_k",
        "fault",
        "done",
        "px_entry",
        "px_entry_0",
        "__half",
        "int4",
        "main",
        "asm",
        "volatile",
        "threadIdx",
    ];
    for (word, other) in words.iter().zip(words.iter().cycle().skip(1)) {
        let text = format!(
            "GPU_FUNCTION {word}_(x float) → float:\n    RETURN x + 1.0\nGPU_END\nGPU_KERNEL {word}\nGPU_PARAM {other} float[]\n\
             GPU_THREAD_CODE:\n    THREAD_ID → {word}\n    LOAD {other}[{word}] → {other}_\n    \
             STORE {word}_({other}_) → {other}[{word}]\nGPU_END\n"
        );
        let program = compiled(&text, &Options::default());
        let mut values = [floats(100)];
        soft::run(&program.kernels()[0], &mut values, None).unwrap_or_else(|fault| panic!("{word}: {fault}"));
        let Value::Array(_, bytes) = &values[0] else { unreachable!() };
        assert_eq!(bytes[4..8], 2.0_f32.to_le_bytes(), "{word}");
    }
    for name in [".entry", "%tid.x", "$done", "k;}", "k\")", "k{", "ret;", "a b", "é", "1k", &"k".repeat(65)]
    {
        let text =
            format!("GPU_KERNEL {name}\nGPU_PARAM o int[]\nGPU_THREAD_CODE:\n    STORE 1 → o[0]\nGPU_END\n");
        let found = compile(&text, &Options::default()).unwrap_err();
        assert!(found.iter().any(|d| d.span.line == 1), "{name}: {found:?}");
        let text = format!("GPU_KERNEL k\nGPU_PARAM {name} int[]\nGPU_THREAD_CODE:\n    RETURN 1\nGPU_END\n");
        assert!(compile(&text, &Options::default()).is_err(), "{name}");
    }
}

/// Runs a kernel of `a` (100 elements), `o` (100) and `n` on both; the fault of the one thread that runs.
fn fault(body: &str, n: i32) -> Option<Fault> {
    let text = format!(
        "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID → t\n    {}\nGPU_END\n",
        body.replace("; ", "\n    ")
    );
    let program = compiled(&text, &Options::default());
    let kernel = &program.kernels()[0];
    let values = [floats(100), floats(100), Value::Scalar(u64::from(n.cast_unsigned()))];
    let (mut here, mut there) = (values.to_vec(), values.to_vec());
    let cpu = on_cpu(kernel, &mut here, Some(1)).err();
    let gpu = soft::run(kernel, &mut there, Some(1)).err();
    assert_eq!(cpu, gpu, "{text}\n{}", kernel.ptx().ptx);
    for (a, b) in here.iter().zip(&there) {
        if let (Value::Array(_, a), Value::Array(_, b)) = (a, b) {
            assert_eq!(a, b, "{text}");
        }
    }
    gpu
}

#[test]
fn an_index_that_overflows_is_found_where_it_ends_up() {
    let wrapped = |index: &str, n: i32, at: i64| {
        let found = fault(&format!("LOAD a[{index}] → x; STORE x → o[t]"), n);
        let found = found.unwrap_or_else(|| panic!("{index}"));
        assert_eq!(
            (found.kind, found.line, found.index, found.length),
            (FaultKind::Load, 7, at, 100),
            "{index}"
        );
    };
    wrapped("n", i32::MAX, i64::from(i32::MAX));
    wrapped("n + 1", i32::MAX, i64::from(i32::MIN));
    wrapped("n - 1", i32::MIN, i64::from(i32::MAX));
    wrapped("n * 4", 1 << 29, i64::from(i32::MIN));
    wrapped("n * n", 46_341, 46_341 * 46_341 - (1 << 32));
    wrapped("n + 4096", i32::MAX - 4000, -(1 << 31) + 95);
    wrapped("n - 4096", -2_147_483_000, 2_147_480_200);
    wrapped("(t + n) - 1", i32::MIN, i64::from(i32::MAX));
    wrapped("t - n", i32::MIN, i64::from(i32::MIN));
    wrapped("t + n", -1, -1);
    wrapped("(n << 16) + n", 0x7fff, 0x7fff_7fff);
    wrapped("-n", i32::MIN, i64::from(i32::MIN));
    wrapped("int(float(n))", i32::MAX, i64::from(i32::MAX));
    // What wraps back into the array is an element of it.
    for (index, n) in [("n * 4", 1 << 30), ("n + n", i32::MIN), ("(n + 1) - n - 1", i32::MAX)] {
        assert_eq!(fault(&format!("LOAD a[{index}] → x; STORE x → o[t]"), n), None, "{index}");
    }
}

#[test]
fn of_accesses_that_are_checked_together_the_first_that_is_wrong_is_told() {
    // Lines 7 to 10, then the store in line 12.
    let body = "LOAD a[n - 1] → w; LOAD a[n + 1] → e; LOAD a[n] → c; LOAD a[n + 40] → f; CALCULATE s = w + e + c + f; STORE s → o[n + 2]";
    for (n, told) in [
        (1, None),
        (59, None),
        (0, Some((7, -1))),
        (-1, Some((7, -2))),
        (60, Some((10, 100))),
        (98, Some((10, 138))),
        (99, Some((8, 100))),
        (100, Some((8, 101))),
        (101, Some((7, 100))),
        (i32::MAX, Some((7, i64::from(i32::MAX) - 1))),
        (i32::MIN, Some((7, i64::from(i32::MAX)))),
        (i32::MIN + 1, Some((7, i64::from(i32::MIN)))),
    ] {
        assert_eq!(fault(body, n).map(|fault| (fault.line, fault.index)), told, "{n}");
    }
    // The store is checked with the load before it, and is told after it.
    let body = "LOAD a[n] → x; STORE x → o[n + 1]";
    let told = [0, 98, 99, 100].map(|n| fault(body, n).map(|fault| (fault.kind, fault.line, fault.index)));
    assert_eq!(told, [None, None, Some((FaultKind::Store, 8, 100)), Some((FaultKind::Load, 7, 100))]);
    // What has been stored before an access that is wrong has been stored: `fault` compares the arrays.
    assert!(fault("STORE 7.0 → o[3]; LOAD a[n] → x; STORE x → o[n]", 100).is_some());
}

#[test]
fn a_grid_is_the_same_by_rows_and_columns_and_by_number() {
    let text = "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM w int\nGPU_PARAM h int\nGPU_THREAD_CODE:\n    \
                THREAD_ID → t\n    CALCULATE x = t % w\n    CALCULATE y = t / w\n    \
                IF x > 0 AND y > 0 AND x < w - 1 AND y < h - 1:\n        LOAD a[(y - 1) * w + x - 1] → p\n        \
                LOAD a[w * y + w + x + 1] → q\n        LOAD a[y * w + x] → c\n        LOAD a[(y - 1) * w + x] → n\n        \
                LOAD a[(y + 1) * w + x] → s\n        STORE p + 2.0 * q + 4.0 * c + 8.0 * n + 16.0 * s → o[y * w + x]\n    \
                ELSE:\n        STORE 0.0 - 1.0 → o[x + w * y]\nGPU_END\n";
    let program = compiled(text, &Options::default());
    let kernel = &program.kernels()[0];
    // Proven and in full blocks; proven; without a proof, because the array is one row longer than what is computed.
    for (w, h, length) in [(32, 24, 768), (37, 21, 777), (37, 21, 800), (1, 50, 50), (50, 1, 50), (3, 3, 9)] {
        let a: Vec<f32> = (0..length).map(|i| (i * i % 101) as f32).collect();
        let of = |values: &[f32]| {
            Value::Array(Element::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        let mut values = [of(&a), of(&vec![0.5; length]), Value::Scalar(w as u64), Value::Scalar(h as u64)];
        let mut here = values.to_vec();
        on_cpu(kernel, &mut here, Some((w * h) as u64)).unwrap();
        soft::run(kernel, &mut values, Some((w * h) as u64)).unwrap();
        let mut wanted = vec![0.5_f32; length];
        for y in 0..h {
            for x in 0..w {
                let at = |dy: i64, dx: i64| a[((y as i64 + dy) * w as i64 + x as i64 + dx) as usize];
                wanted[y * w + x] = if x > 0 && y > 0 && x + 1 < w && y + 1 < h {
                    at(-1, -1) + 2.0 * at(1, 1) + 4.0 * at(0, 0) + 8.0 * at(-1, 0) + 16.0 * at(1, 0)
                } else {
                    -1.0
                };
            }
        }
        for told in [&here[1], &values[1]] {
            let Value::Array(_, bytes) = told else { unreachable!() };
            let found: Vec<f32> =
                bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
            assert_eq!(found, wanted, "{w} x {h} of {length}\n{}", kernel.ptx().ptx);
        }
    }
}
