//! The same program on the CPU executor and, as PTX, on softgpu: equal bits, for programs made at random and for the
//! library.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]

use crate::common::{Noise, Value, compiled, generate, same, soft};
use proptest::prelude::{ProptestConfig, proptest};
use pxos_primitives::{CpuArg, CpuError, CpuOptions, Element, Fault, Kernel, Options};

pub(crate) fn on_cpu(kernel: &Kernel, values: &mut [Value], elements: Option<u64>) -> Result<(), Fault> {
    let mut args: Vec<CpuArg<'_>> = values
        .iter_mut()
        .map(|value| match value {
            Value::Array(_, bytes) => CpuArg::Array(bytes),
            Value::Scalar(bits) => CpuArg::Scalar(*bits),
        })
        .collect();
    match kernel.run_on_cpu(&mut args, &CpuOptions { threads: 2, elements, ..CpuOptions::default() }) {
        Ok(_) => Ok(()),
        Err(CpuError::Fault(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

/// Runs both ways and compares every array.
fn agree(kernel: &Kernel, values: &[Value], elements: Option<u64>) -> Result<(), String> {
    let (mut here, mut there) = (values.to_vec(), values.to_vec());
    let cpu = on_cpu(kernel, &mut here, elements);
    let gpu = soft::run(kernel, &mut there, elements).map(|_| ());
    match (&cpu, &gpu) {
        (Ok(()), Ok(())) => {}
        // Which thread is first is not defined; what it did wrong is.
        (Err(a), Err(b)) if a.kind == b.kind => return Ok(()),
        _ => return Err(format!("{cpu:?} on the CPU, {gpu:?} on softgpu")),
    }
    for (index, (a, b)) in here.iter().zip(&there).enumerate() {
        if let (Value::Array(element, a), Value::Array(_, b)) = (a, b) {
            same(*element, a, b).map_err(|why| format!("argument {index}: {why}"))?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_agree(seed: u64) {
        let case = generate::program(seed);
        let program = compiled(&case.text, &Options::default());
        let kernel = &program.kernels()[0];
        if let Err(why) = agree(kernel, &case.values, Some(case.elements)) {
            panic!("seed {seed}: {why}\n{}\n{}", case.text, kernel.ptx().ptx);
        }
    }
}

fn library(params: &str, statement: &str, values: &[Value]) {
    let params: String = params.split(", ").map(|p| format!("GPU_PARAM {p}\n")).collect();
    let text = format!("GPU_KERNEL k\n{params}GPU_THREAD_CODE:\n    {statement}\nGPU_END\n");
    let program = compiled(&text, &Options::default());
    if let Err(why) = agree(&program.kernels()[0], values, None) {
        panic!("{statement}: {why}");
    }
}

#[test]
fn the_library_agrees() {
    let mut noise = Noise::new(5);
    let mut array = |element, length| Value::Array(element, noise.array(element, length));
    use Element::{Byte, Double, Float, Half, Int, Pixel};
    for (a, c) in [(Float, Float), (Half, Float), (Double, Double), (Int, Int)] {
        let values = [array(a, 70 * 21), array(a, 21 * 150), array(c, 70 * 150)];
        let params = format!("a {0}[], b {0}[], c {1}[]", a.name(), c.name());
        library(&params, "PARALLEL_MATMUL a b → c", &values);
    }
    for (element, length) in [(Float, 3000), (Int, 5001)] {
        library(&format!("a {}[]", element.name()), "SORT a", &[array(element, length)]);
    }
    let bytes = [array(Byte, 1001), array(Byte, 24), array(Byte, 16), array(Byte, 1001)];
    library("d byte[], k byte[], n byte[], o byte[]", "AES_CTR d k n → o", &bytes);
    library("d byte[], o byte[]", "SHA256 d 100 → o", &[array(Byte, 1001), array(Byte, 352)]);
    let image = [array(Pixel, 1200), array(Pixel, 1200), Value::Scalar(40), Value::Scalar(30)];
    for word in ["APPLY_KERNEL 5x5", "APPLY_KERNEL 3x3", "SOBEL_FILTER"] {
        library(
            "i pixel[], o pixel[], width int, height int",
            &format!("THREAD_ID → t\n    {word} i (t % width) (t / width) → o[t]"),
            &image,
        );
    }
    for word in ["EXP", "LOG", "SIN", "COS", "TANH", "SIGMOID", "RSQRT"] {
        library("v float[]", &format!("PARALLEL FOR v: {word} v → v"), &[array(Float, 3000)]);
    }
}

#[test]
fn faults_are_the_same_on_both() {
    for (body, what) in [
        (
            "LOAD a[tid + 1] → x\n    STORE x → o[tid]",
            "line 6, thread 99: load of `a[100]`, which has 100 elements",
        ),
        ("IF tid == 7: STORE 1.0 → o[n]", "line 5, thread 7: store to `o[100]`, which has 100 elements"),
        ("CALCULATE z = tid / (n - 100)\n    STORE float(z) → o[tid]", "division by zero"),
        ("REQUIRE n == 3", "a requirement does not hold"),
    ] {
        let text = format!(
            "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID → tid\n    {body}\nGPU_END\n"
        );
        let program = compiled(
            &text.replace("int\nGPU_THREAD_CODE:\n    THREAD_ID", "int\nGPU_THREAD_CODE: #\n    THREAD_ID"),
            &Options::default(),
        );
        let kernel = &program.kernels()[0];
        let values = [
            Value::Array(Element::Float, vec![0; 400]),
            Value::Array(Element::Float, vec![0; 400]),
            Value::Scalar(100),
        ];
        let cpu = on_cpu(kernel, &mut values.to_vec(), None).unwrap_err();
        let gpu = soft::run(kernel, &mut values.to_vec(), None).unwrap_err();
        assert_eq!(cpu.kind, gpu.kind);
        assert!(gpu.message.contains(&what.replace("line 6", "line 7").replace("line 5", "line 7")), "{gpu}");
        if what.contains("thread") {
            assert_eq!(cpu, gpu);
        }
    }
}

#[test]
fn what_arguments_prove_is_not_checked_again() {
    let text = "GPU_KERNEL k\nGPU_PARAM a float[]\nGPU_PARAM o float[]\nGPU_PARAM n int\nGPU_PARAM width int\nGPU_THREAD_CODE:\n    \
                THREAD_ID → tid\n    CALCULATE x = tid % width\n    CALCULATE y = tid / width\n    IF x > 0 AND y < n:\n        \
                LOAD a[y * width + x - 1] → l\n        STORE l → o[tid]\nGPU_END\n";
    let program = compiled(text, &Options::default());
    let kernel = &program.kernels()[0];
    let values = |width: u64, length: usize| {
        [
            Value::Array(Element::Float, vec![0; length * 4]),
            Value::Array(Element::Float, vec![0; length * 4]),
            Value::Scalar(10),
            Value::Scalar(width),
        ]
    };
    let plan = soft::run(kernel, &mut values(20, 200).to_vec(), None).unwrap();
    assert_eq!(plan.checks.1, 0, "{}", plan.module.ptx);
    assert!(
        !plan.module.ptx.contains("div.s32") && !plan.module.ptx.contains("$fault"),
        "{}",
        plan.module.ptx
    );
    // A width that proves nothing gets the checks, and the division by zero is found.
    let fault = soft::run(kernel, &mut values(0, 200).to_vec(), None).unwrap_err();
    assert!(fault.message.contains("division by zero"), "{fault}");
    // However the arguments change, only so many modules are made.
    for width in 1..50 {
        soft::run(kernel, &mut values(width, 100 + width as usize).to_vec(), None).ok();
    }
}
